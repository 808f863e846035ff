#!/usr/bin/env python3
"""Metrics: Prometheus scrapes Garenne and answers what dashboards ask; names and labels are laid beside RabbitMQ's.

Every query must return a series, on a broker with nothing to do and on a busy one.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import brokers
import report
import world
from api import Api

SCRAPES_SECS = 14                # some scrapes, so that there are rates
NAMESPACE = "tools"
IDENTITY = 'rabbitmq_identity_info{rabbitmq_cluster="$cluster", rabbitmq_endpoint="aggregated", namespace="tools"}'
JOIN = f"* on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) {IDENTITY}"
FAMILIES = """connection_churn_metrics connection_coarse_metrics connection_metrics channel_metrics
    channel_exchange_metrics channel_queue_metrics channel_queue_exchange_metrics queue_coarse_metrics
    queue_consumer_count queue_metrics node_coarse_metrics node_metrics node_persister_metrics auth_attempt_metrics
    vhost_status exchange_bindings exchange_names""".split()


def total(metric):
    return f"sum({metric} {JOIN})"


def by_node(metric):
    return f"sum({metric} {JOIN}) by(rabbitmq_node)"


def rate(metric):
    return f"rate({metric}[60s])"


def message_counter(name):
    return rate(f"rabbitmq_global_messages_{name}_total")


OUTGOING = ("redelivered", "delivered_consume_auto_ack", "delivered_consume_manual_ack", "delivered_get_auto_ack",
            "delivered_get_manual_ack")


def overview():
    """What the dashboard RabbitMQ-Overview asks: panel -> query."""
    panels = {
        "variable namespace": "count(rabbitmq_identity_info) by (namespace)",
        "variable cluster": 'count(rabbitmq_identity_info{namespace="tools"}) by (rabbitmq_cluster)',
        "variable endpoint": "count(rabbitmq_identity_info) by (rabbitmq_endpoint)",
        "Incoming messages / s": total(message_counter("received")),
        "Outgoing messages / s": " + ".join(total(message_counter(name)) for name in OUTGOING),
        "Nodes": total("rabbitmq_build_info"),
        "Nodes, table": f"rabbitmq_build_info {JOIN}",
        "Nodes, uptime": f"rabbitmq_erlang_uptime_seconds {JOIN}",
        "Memory available": f"(rabbitmq_resident_memory_limit_bytes {JOIN}) "
                            f"- (rabbitmq_process_resident_memory_bytes {JOIN})",
        "Disk space available": f"rabbitmq_disk_space_available_bytes {JOIN}",
        "Disk space available before alarm": f"(rabbitmq_disk_space_available_bytes {JOIN}) "
                                             f"- (rabbitmq_disk_space_available_limit_bytes {JOIN})",
        "File descriptors available": f"(rabbitmq_process_max_fds {JOIN}) - (rabbitmq_process_open_fds {JOIN})",
        "Messages unconfirmed / s": f"sum({message_counter('received_confirm')} {JOIN} - "
                                    f"{message_counter('confirmed')} {JOIN}) by(rabbitmq_node)",
        "Messages delivered / s": f"sum(({message_counter('delivered_consume_auto_ack')} "
                                  f"+ {message_counter('delivered_consume_manual_ack')}) {JOIN}) by(rabbitmq_node)",
        "Message sizes": f"sum by (le) (increase(rabbitmq_message_size_bytes_bucket[60s]) {JOIN})",
        "Message sizes, number": by_node(rate("rabbitmq_message_size_bytes_count")),
        "Message sizes, bytes": by_node(rate("rabbitmq_message_size_bytes_sum")),
    }
    for title, metric in {"Ready": "rabbitmq_queue_messages_ready", "Unacked": "rabbitmq_queue_messages_unacked",
                          "Publishers": "rabbitmq_global_publishers", "Consumers": "rabbitmq_global_consumers",
                          "Connections": "rabbitmq_connections", "Channels": "rabbitmq_channels",
                          "Queues": "rabbitmq_queues"}.items():
        panels[title] = total(metric)
        panels[f"{title}, a node"] = by_node(metric)
    for name in ("received", "confirmed", "routed", "unroutable_dropped", "unroutable_returned", "delivered",
                 "acknowledged", "get_empty", *OUTGOING):
        panels[f"Messages {name} / s"] = panels.get(f"Messages {name} / s", by_node(message_counter(name)))
    for noun, verbs in {"queues": ("declared", "created", "deleted"), "channels": ("opened", "closed"),
                        "connections": ("opened", "closed")}.items():
        for verb in verbs:
            panels[f"{noun} {verb} / s"] = by_node(rate(f"rabbitmq_{noun}_{verb}_total"))
    return panels


def alerts():
    """What alert rules in wide use ask, beyond the dashboard; the queries themselves, without their thresholds."""
    queries = {name: f"rabbitmq_alarms_{name}" for name in
               ("memory_used_watermark", "free_disk_space_watermark", "file_descriptor_limit")}
    queries |= {
        "unroutable dropped": "increase(rabbitmq_channel_messages_unroutable_dropped_total[1m])",
        "unroutable returned": "increase(rabbitmq_channel_messages_unroutable_returned_total[1m])",
        "queue messages": "sum by (vhost, queue) (rabbitmq_detailed_queue_messages)",
        "queue consumers": "sum by (vhost, queue) (rabbitmq_detailed_queue_consumers)",
        "scraped": "up == 1",
    }
    for reason in ("expired", "rejected", "maxlen", "delivery_limit"):
        queries[f"dead lettered {reason}"] = (f"sum by (queue_type, dead_letter_strategy) "
                                              f"(rabbitmq_global_messages_dead_lettered_{reason}_total)")
    return queries


class Prometheus:
    def __init__(self, port, metrics_port):
        self.port, self.metrics_port = port, metrics_port

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        target = [{"targets": [f"127.0.0.1:{self.metrics_port}"], "labels": {"namespace": NAMESPACE}}]
        jobs = [{"job_name": "overview", "static_configs": target},
                {"job_name": "detailed", "static_configs": target, "metrics_path": "/metrics/detailed",
                 "params": {"family": ["queue_coarse_metrics", "queue_consumer_count"]}},
                {"job_name": "per-object", "static_configs": target, "metrics_path": "/metrics/per-object"}]
        config = Path(self.folder.name, "prometheus.yml")            # JSON is YAML
        config.write_text(json.dumps({"global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
                                      "scrape_configs": jobs}))
        self.log = open(Path(self.folder.name, "log"), "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder.name}/data",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.log, stderr=self.log)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()
        self.folder.cleanup()

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=20) as answer:
            return json.loads(answer.read())["data"]

    def series(self, query):
        return self.ask("query", query=query)["result"]

    def targets_failing(self):
        return {target["labels"]["job"]: target["lastError"] for target in self.ask("targets")["activeTargets"]
                if target["health"] != "up"}


def ask_everything(result, broker, port, when):
    with Prometheus(port, broker.metrics) as prometheus:
        time.sleep(SCRAPES_SECS)
        failing = prometheus.targets_failing()
        if failing:
            result.differ(f"{when} scrape", "up", failing)
        clusters = prometheus.series("rabbitmq_identity_info")
        cluster = clusters[0]["metric"].get("rabbitmq_cluster", "") if clusters else ""
        named = any("rabbitmq_endpoint" in each["metric"] for each in clusters)
        for title, query in (overview() | alerts()).items():
            result.calls += 1
            if not named and "variable" not in title:      # RabbitMQ 3.10 does not say which page a series is from
                query = query.replace(', rabbitmq_endpoint="aggregated"', "")
            query = query.replace("$cluster", cluster)
            try:
                found = prometheus.series(query)
            except urllib.error.HTTPError as failure:
                found, title = [], f"{title}: {failure.read().decode()[:300]}"
            if not found:
                result.differ(f"{when} query {title}", "a series", f"nothing for {query}")


def exposition(port, path):
    """The metrics of a page: name -> (type, the sets of labels)."""
    answer = Api("127.0.0.1", port, None).get(path)
    if answer.status != 200:
        return {}, f"{answer.status} {answer.text()[:200]}"
    metrics, types = {}, {}
    for line in answer.text().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            types[name] = kind
        elif line and not line.startswith("#"):
            name, labels = re.match(r"([\w:]+)(\{.*\})?", line).groups()
            metrics.setdefault(name, set()).update(re.findall(r"(\w+)=\"", labels or ""))
    base = {name: re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics}
    return {name: (types.get(name) or types.get(base[name], "untyped"), sorted(labels))
            for name, labels in metrics.items()}, answer.headers.get("content-type")


def compare_pages(result, rabbit, garenne):
    for path in ["/metrics", "/metrics/per-object", *(f"/metrics/detailed?family={family}" for family in FAMILIES)]:
        (theirs, their_type), (ours, our_type) = exposition(rabbit.metrics, path), exposition(garenne.metrics, path)
        result.compare(path, (their_type or "").split(";")[0], (our_type or "").split(";")[0], "content type")
        for name, (kind, labels) in theirs.items():
            result.calls += 1
            if name not in ours:
                result.differ(f"{path} {name}", f"{kind} {labels}", None, "missing")
            elif ours[name][0] != kind:
                result.differ(f"{path} {name}", kind, ours[name][0], "type")
            elif set(labels) - set(ours[name][1]):
                result.differ(f"{path} {name}", labels, ours[name][1], "labels")


def check_syntax(result, broker):
    """promtool reads what is scraped; its remarks about names are RabbitMQ's names."""
    for path in ("/metrics", "/metrics/per-object"):
        text = Api(broker.host, broker.metrics, None).get(path).body
        run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        result.calls += 1
        if run.returncode not in (0, 3):
            result.differ(f"promtool {path}", "fine", run.stderr.decode()[:1000])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    arguments = parser.parse_args()
    result = report.Report("prometheus")
    port = arguments.port + 8
    with brokers.garenne(arguments) as garenne:
        garenne.api.must("PUT", "/api/queues/%2F/idle", {"durable": True})       # no series of queues without one
        ask_everything(result, garenne, port, "idle")
        world.populate(garenne.api)
        world.fill(garenne.host, garenne.amqp)
        with world.Clients(garenne.host, garenne.amqp):
            world.await_statistics(garenne.api)
            ask_everything(result, garenne, port, "busy")
            check_syntax(result, garenne)
            with brokers.rabbitmq(arguments) as rabbit:
                world.populate(rabbit.api)
                world.fill(rabbit.host, rabbit.amqp)
                with world.Clients(rabbit.host, rabbit.amqp):
                    world.await_statistics(rabbit.api)
                    compare_pages(result, rabbit, garenne)
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()

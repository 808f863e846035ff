#!/usr/bin/env python3
"""The calls of answers.jsonl to both brokers: status, headers, fields, their types, and values that must agree.

Garenne may tell more than RabbitMQ; what RabbitMQ tells must be there, of the same type. Texts, booleans and
nulls must be equal but for those in VOLATILE; numbers only where EXACT says so, since most of them move.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import brokers
import report
import world
from api import part

CALLS = Path(__file__).with_name("answers.jsonl")
HEADERS = ("content-type", "www-authenticate", "allow", "location")
# Fields whose text is each broker's own.
VOLATILE = set("""password_hash node leader idle_since head_message_timestamp pid os_pid owner_pid consumer_pid
    management_version rabbitmq_version rabbit_version product_version product_name erlang_version
    erlang_full_version erlang_config_version crypto_lib_version cluster_name original_cluster_name description
    internal_cluster_id garbage_collection log_files config_files db_dir enabled_plugins connected_at timestamp
    ip_address desc doc_url provided_by cookies_path platform version information copyright product
    ssl_path path""".split())
# Fields that are each broker's own altogether: what Erlang tells of itself, and times that may be missing.
OWN = set("garbage_collection socket_opts applications ets_tables_memory ports head_message_timestamp".split())
EXACT = set("""priority max-length message-ttl prefetch_count global_prefetch_count page page_size payload_bytes
    value x-max-length x-message-ttl number max-queues max-connections max-channels filtered_count item_count
    total_count page_count delivery_mode""".split())
IDENTITIES = (("source", "vhost", "destination", "destination_type", "properties_key"), ("user", "vhost", "exchange"),
              ("user", "vhost"), ("component", "vhost", "name"), ("vhost", "name"), ("name",), ("consumer_tag",))


class Asked:
    """One broker, the calls as they are for it, and its answers with names that both brokers share."""

    def __init__(self, broker, names=None):
        self.broker = broker
        self.api = broker.api
        self.masks, self.places = [], {}
        if names is None:
            names = self.look()
        self.masks += [(re.escape(name), f"@{label}") for label, name in names.items()]
        self.masks += [(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+", "@connection"), (r"ctag\d+\.[0-9a-f]+", "@ctag"),
                       (r"amq\.(gen|ctag)-[\w-]+", r"amq.\1-@"), (re.escape(broker.node), "@node"),
                       (r"rabbitmq-cluster-id-[\w-]+", "@cluster"), (r"tools\d+(@|%40)[\w.-]+", "@node"),
                       (rf"\b({broker.amqp}|{broker.http}|{broker.metrics})\b", "@port"), (r"<\d+\.\d+\.\d+>", "@pid")]

    @classmethod
    def without_clients(cls, broker):
        """For tools that only want names replaced."""
        return cls(broker, {})

    def look(self):
        """Fills in what stands for {places}. Returns label -> name of the connections there are."""
        broker, names = self.broker, {}          # without the busy clients there is no publisher and no consumer
        for connection in self.api.get("/api/connections").json():
            label = connection.get("client_properties", {}).get("connection_name", f"w.{connection['user']}")
            names[label] = connection["name"]
        odd = [binding for binding in self.api.get(f"/api/bindings/{world.V}/e/w.direct/q/w.classic").json()
               if "odd" in binding["routing_key"]]
        self.places = {
            "{node}": broker.node, "{amqp}": str(broker.amqp), "{publisher}": part(names.get("w.publisher", "none")),
            "{idle}": part(names["w.idle"]), "{lonely}": part(names["w.admin"]),
            "{channel}": part(names.get("w.consumer", "none") + " (1)"), "{odd_key}": part(odd[0]["properties_key"]),
        }
        return names

    def fill(self, text):
        for place, value in self.places.items():
            text = text.replace(place, value)
        return text

    def call(self, method, path, options):
        if method == "WORLD":
            world.populate(self.api)
            return None
        api = self.api
        if "as" in options:
            user, _, password = options["as"].partition(":")
            api = api.as_user(user or None, password)
        body = options.get("body")
        if body == "{definitions}":
            body = api.get("/api/definitions").json()
        elif body is not None:
            body = json.loads(self.fill(json.dumps(body)))
        raw = options["raw"].encode("latin-1") if "raw" in options else None
        return api.call(method, self.fill(path), body, raw, options.get("headers"))

    def plain(self, answer):
        """Status, headers and body of an answer, its own names replaced."""
        text = answer.text()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        try:
            body = self.mask(json.loads(text))
        except ValueError:
            body = self.mask(text)
        return answer.status, {name: headers.get(name) for name in HEADERS}, body

    def mask(self, value):
        if isinstance(value, dict):
            return {self.mask(key): self.mask(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mask(item) for item in value]
        if isinstance(value, str):
            for pattern, name in self.masks:
                value = re.sub(pattern, name, value)
            value = value.replace(",\n ", ",")      # Erlang breaks long lines
        return value


def kind(value):
    return {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object",
            type(None): "null"}[type(value)]


def identity(item):
    if not isinstance(item, dict):
        return None
    label = (item.get("client_properties") or {}).get("connection_name") \
        if isinstance(item.get("client_properties"), dict) else None
    if label:
        return label
    if str(item.get("name")).startswith("@w.") and "node" in item:      # a connection of which not all is told
        return item["name"][1:]
    if "auth_attempts" in item:
        return (item["protocol"], str(item.get("remote_address")), str(item.get("username")))
    if "routing_key" in item and "arguments" in item and "destination" in item:
        return tuple(str(item.get(key)) for key in ("source", "vhost", "destination", "routing_key", "arguments"))
    if "consumer_tag" in item and "queue" in item:
        return (item["consumer_tag"], item["queue"]["name"], item["channel_details"].get("name", ""))
    for keys in IDENTITIES:
        if all(isinstance(item.get(key), str) for key in keys):
            return tuple(item[key] for key in keys)
    return None


def differences(theirs, ours, path=""):
    """Yields (path, what is different, theirs, ours)."""
    key = path.rsplit(".", 1)[-1].rstrip("[]")
    if kind(theirs) != kind(ours):
        # `arguments` and `definition` are [] when empty in some answers of some versions; tools take both.
        if not (theirs in ([], {}) and ours in ([], {})):
            yield path, "type", theirs, ours
    elif isinstance(theirs, dict):
        for name in theirs:
            if name not in ours:
                yield f"{path}.{name}", "missing", theirs[name], None
            elif name in OWN:
                pass
            elif name not in VOLATILE or isinstance(theirs[name], (dict, list)):
                yield from differences(theirs[name], ours[name], f"{path}.{name}")
            elif kind(theirs[name]) != kind(ours[name]):
                yield f"{path}.{name}", "type", theirs[name], ours[name]
    elif isinstance(theirs, list):
        yield from of_lists(theirs, ours, path)
    elif isinstance(theirs, (int, float)) and not isinstance(theirs, bool):
        if key in EXACT and theirs != ours:
            yield path, "value", theirs, ours
    elif theirs != ours and key not in VOLATILE:
        yield path, "value", theirs, ours


def of_lists(theirs, ours, path):
    if all(identity(item) for item in theirs + ours) and theirs + ours:
        left, right = ({identity(item): item for item in side} for side in (theirs, ours))
        for name in left:
            if name not in right:
                yield f"{path}[{show(name)}]", "missing", left[name], None
            else:
                yield from differences(left[name], right[name], f"{path}[]")
        for name in right:
            if name not in left:
                yield f"{path}[{show(name)}]", "only here", None, right[name]
    elif any(isinstance(item, dict) for item in theirs):
        if not ours:
            yield path, "empty", theirs, ours
        elif len(theirs) == len(ours):
            for item, our_item in zip(theirs, ours, strict=True):
                yield from differences(item, our_item, f"{path}[]")
        else:
            merged = {}
            for item in ours:
                merged |= item if isinstance(item, dict) else {}
            for item in theirs:
                yield from ((where, what, one, other) for where, what, one, other
                            in differences(item, merged, f"{path}[]") if what in ("missing", "type"))
    elif sorted(map(str, theirs)) != sorted(map(str, ours)) and path.rsplit(".", 1)[-1] not in VOLATILE:
        yield path, "value", theirs, ours


def show(name):
    return "/".join(name) if isinstance(name, tuple) else name


def compare(result, name, theirs, ours):
    result.calls += 1
    (status, headers, body), (our_status, our_headers, our_body) = theirs, ours
    if status != our_status:
        result.differ(name, f"{status} {short(body)}", f"{our_status} {short(our_body)}", "status")
        return
    for header in HEADERS:
        if headers[header] != our_headers[header]:
            result.differ(name, headers[header], our_headers[header], f"header {header}")
    seen = set()
    for path, what, one, other in differences(body, our_body):
        if (path, what) not in seen:
            seen.add((path, what))
            result.differ(name, one, other, f"{what} {path}")
    if (name.startswith("page") or name in ("sort-unknown", "sort-arguments", "sort-reverse-bad")) and not seen:
        order, our_order = ([show(identity(item)) for item in items] if all(identity(item) for item in items) else None
                            for items in (listed(body), listed(our_body)))
        # Clients have the names that their ports give them, so that chance puts them in order.
        if order != our_order and not any("@" in json.dumps(item) for item in listed(body)):
            result.differ(name, order, our_order, "order")


def listed(body):
    items = body.get("items", []) if isinstance(body, dict) else body
    return items if isinstance(items, list) else []


def short(body):
    return body if isinstance(body, str) else json.dumps(body)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    parser.add_argument("--only", default="", help="a regular expression: names of calls to compare")
    arguments = parser.parse_args()
    calls = [json.loads(line) for line in CALLS.read_text().splitlines() if line.startswith("[")]
    answers = []
    for broker in (brokers.rabbitmq(arguments), brokers.garenne(arguments)):
        with broker:
            world.populate(broker.api)
            world.fill(broker.host, broker.amqp)
            with world.Clients(broker.host, broker.amqp) as clients:
                world.await_statistics(broker.api)
                asked = Asked(broker)
                taken = {}
                for name, method, path, *more in calls:
                    answer = asked.call(method, path, more[0] if more else {})
                    if name != "-" and re.search(arguments.only, name):
                        taken[name] = (f"{method} {path}", asked.plain(answer))
                answers.append(taken)
            # One connection is closed on purpose, that of the idle ones.
            if failures := [failure for failure in clients.failures if not failure.startswith("idle:")]:
                print(f"{broker.name}: clients failed: {failures}")
    result = report.Report("answers")
    for name, (call, theirs) in answers[0].items():
        compare(result, f"{name}", theirs, answers[1][name][1])
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()

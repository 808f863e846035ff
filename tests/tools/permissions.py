#!/usr/bin/env python3
"""Who may do what: every operation over AMQP and HTTP by every kind of user, on both brokers."""

import argparse
import json
import sys

import brokers
import pika
import report
import world
from answers import Asked

V = world.V
ALL = {"configure": ".*", "write": ".*", "read": ".*"}
# Users whose tags are in world.TAGS have all permissions in "/" and "world". These have none, or less:
LESS = {
    "none-nowhere": ("", None), "nowhere": ("management", None), "monitor-nowhere": ("monitoring", None),
    "policymaker-nowhere": ("policymaker", None), "admin-nowhere": ("administrator", None),
    "impersonator-nowhere": ("impersonator", None),
    "reader": ("management", {"configure": "", "write": "", "read": ".*"}),
    "writer": ("management", {"configure": "", "write": ".*", "read": ""}),
    "maker": ("management", {"configure": ".*", "write": "", "read": ""}),
    "limited": ("management", {"configure": "^w\\.", "write": "^w\\.", "read": "^w\\."}),
}
STRANGERS = {"unknown user": ("nobody", "x"), "wrong password": ("guest", "wrong"), "empty password": ("guest", ""),
             "no password": ("hashed", ""), "no credentials": (None, "")}


def credentials():
    """kind of user -> (name, password)"""
    users = {name: (name, world.PASSWORD) for name in (*world.TAGS, *LESS)}
    return {"guest": ("guest", "guest")} | users | STRANGERS


def populate(api):
    world.populate(api)
    for name, (tags, permissions) in LESS.items():
        api.must("PUT", f"/api/users/{name}", {"password": world.PASSWORD, "tags": tags})
        if permissions:
            api.must("PUT", f"/api/permissions/{V}/{name}", permissions)
    api.must("DELETE", f"/api/topic-permissions/{V}/limited")
    api.must("PUT", f"/api/topic-permissions/{V}/limited", {"exchange": "w.topic", "write": "^a\\.", "read": "^a\\."})


# --- HTTP ---

def http_operations(node):
    """name -> (method, path, body, calls of guest that make it possible)"""
    queue, exchange = f"/api/queues/{V}/w.p", f"/api/exchanges/{V}/w.px"
    binding = f"/api/bindings/{V}/e/w.px/q/w.p"
    make = [("PUT", queue, {}), ("PUT", exchange, {"type": "topic"}), ("POST", binding, {"routing_key": "k"})]
    target = [("PUT", "/api/vhosts/perm", {}), ("PUT", "/api/users/perm", {"password": "x", "tags": ""}),
              ("PUT", "/api/permissions/perm/guest", ALL)]
    policy = {"pattern": "^w.p$", "definition": {"max-length": 10}, "apply-to": "queues"}
    message = {"routing_key": "k", "payload": "x", "payload_encoding": "string", "properties": {}}
    reads = f"""overview nodes nodes/{node} nodes/{node}/memory extensions whoami cluster-name connections channels
        consumers consumers/{V} exchanges exchanges/{V} exchanges/{V}/w.px exchanges/{V}/w.px/bindings/source queues
        queues/{V} queues/{V}/w.p queues/{V}/w.p/bindings queues/quiet bindings bindings/{V} bindings/{V}/e/w.px/q/w.p
        bindings/{V}/e/w.px/q/w.p/k vhosts vhosts/{V} vhosts/quiet vhosts/none vhosts/{V}/permissions
        vhosts/{V}/connections vhosts/{V}/channels vhosts/{V}/topic-permissions users users/guest users/manager
        users/manager/permissions users/without-permissions user-limits user-limits/guest vhost-limits
        vhost-limits/{V} vhost-limits/quiet permissions permissions/{V}/guest topic-permissions
        topic-permissions/{V}/limited parameters parameters/vhost-limits parameters/vhost-limits/{V}
        parameters/vhost-limits/{V}/limits global-parameters policies policies/{V} policies/{V}/w-policy
        policies/quiet operator-policies operator-policies/{V} definitions definitions/{V} feature-flags
        health/checks/alarms health/checks/local-alarms health/checks/virtual-hosts
        health/checks/node-is-quorum-critical health/checks/port-listener/1 health/checks/protocol-listener/amqp
        health/checks/certificate-expiration/1/days healthchecks/node aliveness-test/{V} aliveness-test/quiet
        connections/none channels/none connections/username/guest auth/attempts/{node} all-configuration no-such""".split()
    operations = {f"GET {path}": ("GET", f"/api/{path}", None, make) for path in reads}
    writes = [
        ("PUT", queue, {}, [("DELETE", queue, None)]), ("PUT", f"/api/queues/{V}/z.p", {}, []),
        ("PUT", "/api/queues/quiet/q", {}, []), ("DELETE", queue, None, make),
        ("DELETE", f"{queue}/contents", None, make), ("POST", f"{queue}/actions", {"action": "sync"}, make),
        ("POST", f"{queue}/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}, make),
        ("POST", f"/api/queues/{V}/none/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}, make),
        ("PUT", exchange, {"type": "topic"}, [("DELETE", exchange, None)]),
        ("PUT", f"/api/exchanges/{V}/z.px", {"type": "direct"}, []), ("DELETE", exchange, None, make),
        ("POST", f"{exchange}/publish", message, make),
        ("POST", f"/api/exchanges/{V}/w.topic/publish", message | {"routing_key": "a.b"}, make),
        ("POST", f"/api/exchanges/{V}/w.topic/publish", message | {"routing_key": "b.a"}, make),
        ("POST", f"/api/exchanges/{V}/amq.default/publish", message, make),
        ("POST", binding, {"routing_key": "k2"}, make), ("DELETE", f"{binding}/k", None, make),
        ("PUT", "/api/vhosts/perm", {}, [("DELETE", "/api/vhosts/perm", None)]),
        ("DELETE", "/api/vhosts/perm", None, target),
        ("PUT", "/api/users/perm", {"password": "x", "tags": ""}, []), ("DELETE", "/api/users/perm", None, target),
        ("POST", "/api/users/bulk-delete", {"users": ["perm"]}, target),
        ("PUT", "/api/permissions/perm/perm", ALL, target),
        ("DELETE", "/api/permissions/perm/perm", None, [*target, ("PUT", "/api/permissions/perm/perm", ALL)]),
        ("PUT", "/api/topic-permissions/perm/perm", {"exchange": "amq.topic", "write": "", "read": ""}, target),
        ("DELETE", "/api/topic-permissions/perm/perm", None, target),
        ("PUT", "/api/user-limits/perm/max-channels", {"value": 5}, target),
        ("DELETE", "/api/user-limits/perm/max-channels", None, target),
        ("PUT", "/api/vhost-limits/perm/max-queues", {"value": 5}, target),
        ("DELETE", "/api/vhost-limits/perm/max-queues", None, target),
        ("PUT", f"/api/policies/{V}/p", policy, make), ("PUT", "/api/policies/quiet/p", policy, make),
        ("DELETE", f"/api/policies/{V}/p", None, [("PUT", f"/api/policies/{V}/p", policy)]),
        ("PUT", f"/api/operator-policies/{V}/p", policy, make),
        ("DELETE", f"/api/operator-policies/{V}/p", None, [("PUT", f"/api/operator-policies/{V}/p", policy)]),
        ("PUT", "/api/parameters/vhost-limits/perm/limits", {"value": {"max-queues": 9}}, target),
        ("DELETE", "/api/parameters/vhost-limits/perm/limits", None,
         [*target, ("PUT", "/api/parameters/vhost-limits/perm/limits", {"value": {"max-queues": 9}})]),
        ("PUT", "/api/global-parameters/p", {"value": 1}, []),
        ("DELETE", "/api/global-parameters/p", None, [("PUT", "/api/global-parameters/p", {"value": 1})]),
        ("PUT", "/api/cluster-name", {"name": "rabbit@name"}, []), ("POST", "/api/definitions", {"queues": []}, []),
        ("POST", f"/api/definitions/{V}", {"queues": []}, []), ("POST", "/api/rebalance/queues", {}, []),
        ("PUT", "/api/feature-flags/quorum_queue/enable", {"name": "quorum_queue"}, []),
        ("DELETE", "/api/connections/username/nobody", None, []), ("DELETE", "/api/reset", None, []),
        ("DELETE", f"/api/auth/attempts/{node}", None, []),
    ]
    for number, (method, path, body, prepare) in enumerate(writes):
        name = f"{method} {path.removeprefix('/api/')}"
        if name in operations:
            name += f" {number}"
        operations[name] = (method, path, body, prepare)
    return operations


LEFTOVERS = [f"/api/queues/{V}/z.p", "/api/queues/quiet/q", f"/api/exchanges/{V}/z.px", "/api/policies/quiet/p",
             f"/api/policies/{V}/p", f"/api/operator-policies/{V}/p", "/api/vhosts/perm", "/api/users/perm",
             "/api/global-parameters/p"]


def over_http(broker):
    asked = Asked.without_clients(broker)
    outcome = {}
    for number, (name, (method, path, body, prepare)) in enumerate(http_operations(broker.node).items()):
        for kind, (user, password) in credentials().items():
            # Wrong passwords are answered slowly, on purpose: they are tried on every tenth operation.
            if kind in STRANGERS and user is not None and number % 10:
                continue
            for call in prepare:
                broker.api.call(*call)
            answer = broker.api.as_user(user, password).call(method, path, body)
            found = asked.plain(answer)[2]
            if isinstance(found, list):            # who sees how much of a list; each broker has exchanges of its own
                found = [item for item in found if not (isinstance(item, dict) and str(item.get("name")).startswith("amq."))]
                found = {"length": len(found)}
            elif isinstance(found, dict):
                found = {key: found[key] for key in ("error", "reason") if key in found}
            outcome[f"HTTP {asked.mask(name)} as {kind}"] = f"{answer.status} {json.dumps(found, sort_keys=True)}"
        for path in LEFTOVERS:
            broker.api.call("DELETE", path)
    return outcome


# --- AMQP ---

def amqp_operations():
    """name -> what is done with a channel. Names: w.* may all, z.* may not `limited`."""
    operations = {}
    for letter in "wz":
        queue, exchange = f"{letter}.aq", f"{letter}.ax"
        operations |= {
            f"queue.declare {queue}": lambda c, q=queue: c.queue_declare(q, durable=True),
            f"queue.declare passive {queue}": lambda c, q=queue: c.queue_declare(q, passive=True),
            f"queue.declare {letter}.new": lambda c, q=letter: c.queue_declare(f"{q}.new", auto_delete=True),
            f"queue.declare {letter}.dlx": lambda c, q=letter: c.queue_declare(
                f"{q}.dlx", arguments={"x-dead-letter-exchange": f"{q}.ax"}),
            f"queue.declare w.dlx to {letter}": lambda c, q=letter: c.queue_declare(
                f"w.dlx-{q}", arguments={"x-dead-letter-exchange": f"{q}.ax"}),
            f"queue.purge {queue}": lambda c, q=queue: c.queue_purge(q),
            f"queue.bind {queue}": lambda c, q=queue, x=exchange: c.queue_bind(q, x, "k"),
            f"queue.unbind {queue}": lambda c, q=queue, x=exchange: c.queue_unbind(q, x, "k"),
            f"queue.bind {queue} to w.ax": lambda c, q=queue: c.queue_bind(q, "w.ax", "k"),
            f"exchange.declare {exchange}": lambda c, x=exchange: c.exchange_declare(x, "topic", durable=True),
            f"exchange.declare passive {exchange}": lambda c, x=exchange: c.exchange_declare(x, passive=True),
            f"exchange.declare w.ae to {letter}": lambda c, x=letter: c.exchange_declare(
                f"w.ae-{x}", "direct", arguments={"alternate-exchange": f"{x}.ax"}),
            f"exchange.bind {exchange}": lambda c, x=exchange: c.exchange_bind(x, "w.ax", "k"),
            f"exchange.unbind {exchange}": lambda c, x=exchange: c.exchange_unbind(x, "w.ax", "k"),
            f"publish to {exchange}": lambda c, x=exchange: publish(c, x, "k"),
            f"get {queue}": lambda c, q=queue: c.basic_get(q, auto_ack=True),
            f"consume {queue}": lambda c, q=queue: c.basic_consume(q, lambda *_: None),
            f"exchange.delete {exchange}": lambda c, x=exchange: c.exchange_delete(x),
            f"queue.delete {queue}": lambda c, q=queue: c.queue_delete(q),
        }
    operations |= {
        "queue.declare server-named": lambda c: c.queue_declare("", exclusive=True),
        "queue.declare passive none": lambda c: c.queue_declare("none", passive=True),
        "exchange.declare passive none": lambda c: c.exchange_declare("none", passive=True),
        "queue.delete none": lambda c: c.queue_delete("none"), "get none": lambda c: c.basic_get("none"),
        "exchange.delete none": lambda c: c.exchange_delete("none"),
        "publish to none": lambda c: publish(c, "none", "k"), "publish to default": lambda c: publish(c, "", "w.aq"),
        "publish to amq.topic": lambda c: publish(c, "amq.topic", "k"),
        "publish to w.topic a.b": lambda c: publish(c, "w.topic", "a.b"),
        "publish to w.topic b.a": lambda c: publish(c, "w.topic", "b.a"),
        "bind w.aq to w.topic a.b": lambda c: c.queue_bind("w.aq", "w.topic", "a.b"),
        "bind w.aq to w.topic b.a": lambda c: c.queue_bind("w.aq", "w.topic", "b.a"),
        "bind w.aq to w.topic #": lambda c: c.queue_bind("w.aq", "w.topic", "#"),
        "publish as guest": lambda c: publish(c, "w.direct", "k", user_id="guest"),
        "publish as nobody": lambda c: publish(c, "w.direct", "k", user_id="nobody"),
        "exchange.declare amq.mine": lambda c: c.exchange_declare("amq.mine", "direct"),
        "queue.declare amq.mine": lambda c: c.queue_declare("amq.mine"),
        "exchange.delete amq.direct": lambda c: c.exchange_delete("amq.direct"),
        "publish to internal": lambda c: publish(c, "w.internal", "k"),
        "reply-to": lambda c: c.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True),
        "tx": lambda c: (c.tx_select(), c.tx_commit()), "qos": lambda c: c.basic_qos(prefetch_count=5),
    }
    return operations


def publish(channel, exchange, key, **properties):
    channel.basic_publish(exchange, key, b"x", pika.BasicProperties(**properties))
    channel.basic_qos(prefetch_count=1)            # a refusal comes before the answer to this


def over_amqp(broker):
    asked = Asked.without_clients(broker)
    outcome = {}
    for kind, (user, password) in credentials().items():
        if user is None:
            continue
        for vhost in (V, "quiet", "none"):
            try:
                connection = world.connect(broker.host, broker.amqp, vhost, user, password)
            except Exception as failure:
                outcome[f"AMQP open {vhost} as {kind}"] = asked.mask(told(failure))
                continue
            outcome[f"AMQP open {vhost} as {kind}"] = "ok"
            if vhost == V:
                for name, work in amqp_operations().items():
                    for letter in "wz":            # what an operation needs, or another one has deleted
                        broker.api.call("PUT", f"/api/queues/{V}/{letter}.aq", {"durable": True})
                        broker.api.call("PUT", f"/api/exchanges/{V}/{letter}.ax", {"type": "topic", "durable": True})
                    connection, result = attempt(broker, connection, work, vhost, user, password)
                    outcome[f"AMQP {name} as {kind}"] = asked.mask(result)
                    for leftover in ("w.dlx-w", "w.dlx-z", "w.dlx", "z.dlx", "w.new", "z.new", "amq.mine"):
                        if "declare" in name:
                            broker.api.call("DELETE", f"/api/queues/{V}/{leftover}")
            try:
                connection.close()
            except pika.exceptions.AMQPError:
                pass
    return outcome


def attempt(broker, connection, work, vhost, user, password):
    """Does it on a channel of its own; connects again if that cost the connection."""
    try:
        if not connection.is_open:
            connection = world.connect(broker.host, broker.amqp, vhost, user, password)
        channel = connection.channel()
        work(channel)
        channel.close()
        return connection, "ok"
    except Exception as failure:
        return connection, told(failure)


def told(failure):
    """Reply code and text, out of whatever pika made of it."""
    inner = failure.args[0] if failure.args and isinstance(failure.args[0], Exception) else failure
    for each in (failure, inner):
        if hasattr(each, "reply_code"):
            return f"{each.reply_code} {each.reply_text}"
    return f"{type(failure).__name__} {failure.args}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    arguments = parser.parse_args()
    outcomes = []
    for broker in (brokers.rabbitmq(arguments), brokers.garenne(arguments)):
        with broker:
            populate(broker.api)
            outcomes.append(over_http(broker) | over_amqp(broker))
    result = report.Report("permissions")
    theirs, ours = outcomes
    for name in theirs:
        mine = ours.get(name, "not done")
        same_status = theirs[name].split(" ")[0] == mine.split(" ")[0]
        result.compare(name, theirs[name], mine, "words" if same_status else "status")
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()

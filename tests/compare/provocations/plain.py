"""Plain answers worth comparing: nothing here is wrong."""

import re

from amqp_raw import As
from bench import provocation, show


@provocation
def server_properties(b):
    """the protocol header; names and types in connection.start's server-properties"""
    talk = b.socket()
    talk.greet()
    start = talk.last["connection.start"]
    b.note(f"version {start['version_major']}.{start['version_minor']}")
    for key, value in sorted(start["server_properties"].items()):
        if key == "capabilities":
            for name, on in sorted(value.items()):
                b.note(f"capability {name} {show(on)}")
        else:
            b.note(f"property {key}: {type(value).__name__}")


@provocation
def version_is_dotted_integers(b):
    """the protocol header; the shape of server-properties' version"""
    talk = b.socket()
    talk.greet()
    version = talk.last["connection.start"]["server_properties"].get("version", "")
    b.note("three integers" if re.fullmatch(r"\d+\.\d+\.\d+", version) else f"not: {version}")


@provocation
def mechanisms_and_locales(b):
    """the protocol header; mechanisms (sorted) and locales of connection.start"""
    talk = b.socket()
    talk.greet()
    start = talk.last["connection.start"]
    b.note("mechanisms " + " ".join(sorted(start["mechanisms"].split())))
    b.note("locales " + start["locales"])


@provocation
def tune_values(b):
    """a right login; connection.tune"""
    talk = b.socket()
    talk.greet()
    talk.start_ok()
    talk.see(until="connection.tune")


@provocation
def open_ok_answer(b):
    """connection.open of the right vhost"""
    talk = b.socket().tuned()
    talk.ask(0, "connection.open", virtual_host=b.vhost)
    b.note(f"known-hosts {show(talk.last['connection.open-ok']['known_hosts'])}")


@provocation
def channel_open_ok_answer(b):
    """channel.open 3; the channel-id in open-ok"""
    talk = b.connect()
    talk.ask(3, "channel.open")
    b.note(f"channel-id {show(talk.last['channel.open-ok']['channel_id'])}")


@provocation
def declare_ok_counts(b):
    """declare, 2 publishes and a consumer with prefetch 1, declare again, passive declare"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"one")
    talk.publish(1, "", "cmp.q", b"two")
    talk.fence()
    talk.ask(1, "queue.declare", queue="cmp.q")
    talk.get(2, "basic.qos", prefetch_count=1)
    talk.say(2, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(until="basic.deliver")
    talk.ask(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.declare", queue="cmp.q", passive=True)


@provocation
def get_ok_counts(b):
    """3 messages; get, get, get, get: the remaining count, redelivered, get-empty"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    for _ in range(4):
        talk.ask(1, "basic.get", queue="cmp.q")


@provocation
def purge_ok_count(b):
    """3 messages, 1 of them unacked; purge; the unacked one is nacked back"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.get(1, "basic.get", queue="cmp.q")
    talk.ask(1, "queue.purge", queue="cmp.q")
    talk.say(1, "basic.nack", delivery_tag=1, requeue=True)
    talk.fence()
    b.queue_state("cmp.q")


@provocation
def delete_ok_count(b):
    """3 messages, 1 of them unacked; delete"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.get(1, "basic.get", queue="cmp.q")
    talk.ask(1, "queue.delete", queue="cmp.q")


@provocation
def generated_queue_name(b):
    """declare of a queue without a name; the shape of the name made"""
    talk = b.connect()
    name = talk.get(1, "queue.declare", exclusive=True)["queue"]
    prefix, rest = name[:8], name[8:]
    shape = "base64url" if re.fullmatch(r"[A-Za-z0-9_-]+", rest) else rest
    b.note(f"{prefix!r} and {len(rest)} characters of {shape}")


@provocation
def generated_consumer_tag(b):
    """consume without a consumer tag; the shape of the tag made"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    tag = talk.get(1, "basic.consume", queue="cmp.q")["consumer_tag"]
    prefix, rest = tag[:9], tag[9:]
    shape = "base64url" if re.fullmatch(r"[A-Za-z0-9_-]+", rest) else rest
    b.note(f"{prefix!r} and {len(rest)} characters of {shape}")


@provocation
def properties_round_trip(b):
    """a message with all 14 properties and headers of every type; get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    headers = {"bool": True, "int8": As("b", -8), "uint8": As("B", 200), "int16": As("s", -16),
               "uint16": As("u", 60000), "int32": -32, "uint32": As("i", 4000000000),
               "int64": As("l", -64), "float": As("f", 1.5), "double": 2.5,
               "decimal": As("D", b"\x02\x00\x00\x01\x00"), "string": "text", "void": None,
               "bytes": As("x", b"\x00\xff"), "time": As("T", 1700000000),
               "array": [1, "a", [2], {}], "table": {"z": 1, "a": {"b": True}}}
    talk.publish(1, "", "cmp.q", b"body", {
        "content_type": "text/plain", "content_encoding": "gzip", "headers": headers,
        "delivery_mode": 2, "priority": 5, "correlation_id": "corr", "reply_to": "reply",
        "expiration": "60000", "message_id": "id", "timestamp": 1700000000, "type": "type",
        "user_id": b.user, "app_id": "app", "cluster_id": "cluster"})
    talk.ask(1, "basic.get", queue="cmp.q")


@provocation
def mandatory_and_confirm_order(b):
    """confirm mode; mandatory publishes: unroutable, routable; the order of return and acks"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "confirm.select")
    talk.publish(1, "", "cmp.nowhere", b"lost", mandatory=True)
    talk.see(until="basic.ack", linger=0.1)
    talk.publish(1, "", "cmp.q", b"kept", mandatory=True)
    talk.see(until="basic.ack", linger=0.1)


@provocation
def consume_ok_before_delivery(b):
    """a queue with 2 messages; consume: the order of consume-ok and deliveries"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"one")
    talk.publish(1, "", "cmp.q", b"two")
    talk.fence()
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(linger=0.2)


@provocation
def empty_content(b):
    """a message of size 0, no body frame; get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"")
    talk.ask(1, "basic.get", queue="cmp.q")


@provocation
def channel_close_with_unacked(b):
    """prefetch 2 of 3 messages delivered; channel.close; the queue afterwards, in order"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.get(1, "basic.qos", prefetch_count=2)
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(linger=0.2)
    talk.ask(1, "channel.close", reply_code=200, reply_text="bye")
    b.queue_state("cmp.q")
    b.drain("cmp.q")


@provocation
def nowait_answers_nothing(b):
    """nowait on declare, bind, exchange.declare, consume, cancel, purge, unbind, delete"""
    talk = b.connect()
    talk.say(1, "queue.declare", queue="cmp.q", nowait=True)
    talk.say(1, "exchange.declare", exchange="cmp.x", type="fanout", nowait=True)
    talk.say(1, "queue.bind", queue="cmp.q", exchange="cmp.x", nowait=True)
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c", nowait=True)
    talk.say(1, "basic.cancel", consumer_tag="c", nowait=True)
    talk.say(1, "queue.purge", queue="cmp.q", nowait=True)
    talk.say(1, "confirm.select", nowait=True)
    talk.settled()
    b.queue_state("cmp.q")
    b.exchange_state("cmp.x")
    talk.say(1, "queue.delete", queue="cmp.q", nowait=True)
    talk.say(1, "exchange.delete", exchange="cmp.x", nowait=True)
    talk.settled()
    b.queue_state("cmp.q")
    b.exchange_state("cmp.x")

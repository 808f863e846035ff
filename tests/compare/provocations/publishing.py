"""basic.publish: where to, with which flags and properties."""

import time

from amqp_raw import As
from bench import add, provocation, show


def publish(b, exchange, key, body=b"m", properties=None, confirm=False, **flags):
    """A publish on channel 1 with a queue cmp.q about, what follows, and the queue afterwards."""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    if confirm:
        talk.get(1, "confirm.select")
    talk.publish(1, exchange, key, body, properties, **flags)
    talk.settled()
    if confirm:
        talk.quiet(0.2)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def publish_missing_exchange(b):
    """publish to a missing exchange"""
    publish(b, "cmp.x", "k")


@provocation
def publish_missing_exchange_confirmed(b):
    """publish to a missing exchange in confirm mode"""
    publish(b, "cmp.x", "k", confirm=True)


@provocation
def publish_missing_exchange_mandatory(b):
    """mandatory publish to a missing exchange"""
    publish(b, "cmp.x", "k", mandatory=True)


@provocation
def publish_missing_exchange_bad_expiration(b):
    """publish to a missing exchange with a bad expiration: which error wins?"""
    publish(b, "cmp.x", "k", properties={"expiration": "bad"})


@provocation
def publish_immediate(b):
    """publish with immediate"""
    publish(b, "", "cmp.q", immediate=True)


@provocation
def publish_immediate_mandatory_nowhere(b):
    """publish with immediate and mandatory to no queue"""
    publish(b, "", "cmp.nowhere", immediate=True, mandatory=True)


@provocation
def publish_unroutable(b):
    """publish to no queue, not mandatory"""
    publish(b, "", "cmp.nowhere")


@provocation
def publish_unroutable_confirmed(b):
    """publish to no queue, not mandatory, in confirm mode"""
    publish(b, "", "cmp.nowhere", confirm=True)


@provocation
def publish_mandatory_unroutable(b):
    """mandatory publish to no queue: the return, its properties and body"""
    publish(b, "", "cmp.nowhere", b"come back", {"message_id": "m", "headers": {"a": 1}},
            mandatory=True)


@provocation
def publish_mandatory_unroutable_confirmed(b):
    """mandatory publishes to amq.direct: unroutable, unroutable; in confirm mode"""
    talk = b.connect()
    talk.get(1, "confirm.select")
    for body in b"one", b"two":
        talk.publish(1, "amq.direct", "cmp.nowhere", body, mandatory=True)
    talk.settled()
    talk.quiet(0.2)


@provocation
def user_id_other(b):
    """user-id other than the login"""
    publish(b, "", "cmp.q", properties={"user_id": "somebody"})


@provocation
def user_id_right(b):
    """user-id equal to the login"""
    publish(b, "", "cmp.q", properties={"user_id": b.user})


@provocation
def user_id_empty(b):
    """user-id ''"""
    publish(b, "", "cmp.q", properties={"user_id": ""})


BAD_EXPIRATIONS = ["", "abc", "-1", "10x", "1.5", " 10", "10 ", "+5", "0x10", "4294967295",
                   "4294967296", "315360000000", "315360000001", "99999999999999999999", "007"]
for _at, _value in enumerate(BAD_EXPIRATIONS):
    add(f"expiration_{_at + 1:02}", f"publish with expiration '{_value}'",
        lambda b, value=_value: publish(b, "", "cmp.q", properties={"expiration": value}),
        group="publishing")


@provocation
def expiration_0(b):
    """publish with expiration '0', no consumer; the queue; a get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"m", {"expiration": "0"})
    talk.settled()
    talk.ask(1, "basic.get", queue="cmp.q")


@provocation
def expiration_0_with_consumer(b):
    """publish with expiration '0' to a waiting consumer"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c", no_ack=True)
    talk.publish(1, "", "cmp.q", b"m", {"expiration": "0"})
    talk.see(1, until="basic.deliver")


BAD_COPIES = {
    "cc_string": {"CC": "cmp.q"}, "cc_integer": {"CC": 1}, "cc_table": {"CC": {}},
    "cc_array_of_integers": {"CC": [1]}, "cc_array_mixed": {"CC": ["cmp.q2", 5]},
    "cc_void": {"CC": None}, "bcc_string": {"BCC": "cmp.q"}, "bcc_integer": {"BCC": 1},
    "cc_empty_array": {"CC": []}, "cc_lower_case": {"cc": "cmp.q"},
}
for _name, _headers in BAD_COPIES.items():
    add(_name, f"publish with headers {show(_headers)}",
        lambda b, headers=_headers: publish(b, "", "cmp.q", properties={"headers": headers}),
        group="publishing")


@provocation
def cc_and_bcc(b):
    """CC [cmp.q2], BCC [cmp.q3]: each queue's copy and its headers"""
    talk = b.connect()
    for name in "cmp.q", "cmp.q2", "cmp.q3":
        talk.get(1, "queue.declare", queue=name)
    talk.publish(1, "", "cmp.q", b"m", {"headers": {"CC": ["cmp.q2"], "BCC": ["cmp.q3"], "z": 1}})
    for name in "cmp.q", "cmp.q2", "cmp.q3":
        talk.ask(1, "basic.get", queue=name, no_ack=True)


@provocation
def cc_same_queue_twice(b):
    """routing key cmp.q and CC [cmp.q, cmp.q]: one copy"""
    publish(b, "", "cmp.q", properties={"headers": {"CC": ["cmp.q", "cmp.q"]}})


for _mode in 0, 3, 255:
    add(f"delivery_mode_{_mode}", f"publish with delivery_mode {_mode}",
        lambda b, mode=_mode: publish(b, "", "cmp.q", properties={"delivery_mode": mode}),
        group="publishing")


@provocation
def several_bad_properties(b):
    """publish with delivery_mode 0, a bad expiration and another's user-id: which error wins?"""
    publish(b, "", "cmp.q", properties={"delivery_mode": 0, "expiration": "bad", "user_id": "x"})


@provocation
def priority_order(b):
    """x-max-priority 5; priorities 1, none, 9, 5, 0, 3: the order out"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", arguments={"x-max-priority": 5})
    for body, properties in ((b"1", {"priority": 1}), (b"none", {}), (b"9", {"priority": 9}),
                             (b"5", {"priority": 5}), (b"0", {"priority": 0}),
                             (b"3", {"priority": 3})):
        talk.publish(1, "", "cmp.q", body, properties)
    talk.fence()
    b.drain("cmp.q")


@provocation
def reply_to_without_consumer(b):
    """publish with reply_to amq.rabbitmq.reply-to without consuming from it"""
    publish(b, "", "cmp.q", properties={"reply_to": "amq.rabbitmq.reply-to"})


@provocation
def reply_to_round_trip(b):
    """consume amq.rabbitmq.reply-to, request, answer to the token, passive declare of it before and after"""
    talk = b.connect("client: ")
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "basic.consume", queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True)
    talk.publish(1, "", "cmp.q", b"ask", {"reply_to": "amq.rabbitmq.reply-to"})
    talk.fence()
    server = b.connect("server: ")
    server.ask(1, "basic.get", queue="cmp.q", no_ack=True)
    token = server.properties["reply_to"]
    server.ask(1, "queue.declare", queue=token, passive=True)
    server.publish(1, "", token, b"answer", mandatory=True)
    server.settled()
    talk.see(until="basic.deliver")
    talk.get(1, "channel.close", reply_code=200)
    server.publish(1, "", token, b"late", mandatory=True)
    server.settled()
    server.ask(1, "queue.declare", queue=token, passive=True)


@provocation
def reply_to_bogus_token(b):
    """mandatory publish to amq.rabbitmq.reply-to.bogus"""
    publish(b, "", "amq.rabbitmq.reply-to.bogus", mandatory=True)


@provocation
def reply_to_declare(b):
    """queue.declare and passive declare of amq.rabbitmq.reply-to"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="amq.rabbitmq.reply-to", passive=True)
    talk.ask(2, "queue.declare", queue="amq.rabbitmq.reply-to")


@provocation
def overflow_reject_publish(b):
    """x-max-length 1, reject-publish; 2 confirmed publishes"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q",
             arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    talk.get(1, "confirm.select")
    for body in b"one", b"two":
        talk.publish(1, "", "cmp.q", body)
        talk.hear(1) and b.note(next(iter(reversed(talk.last))))
    b.drain("cmp.q")


@provocation
def overflow_drop_head(b):
    """x-max-length 2; 4 publishes; what is left"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", arguments={"x-max-length": 2})
    for body in b"one", b"two", b"three", b"four":
        talk.publish(1, "", "cmp.q", body)
    talk.fence()
    b.drain("cmp.q")


@provocation
def overflow_bytes(b):
    """x-max-length-bytes 5; messages of 3, 3 and 6 bytes; what is left"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", arguments={"x-max-length-bytes": 5})
    for body in b"aaa", b"bbb":
        talk.publish(1, "", "cmp.q", body)
    talk.fence()
    b.queue_state("cmp.q")
    talk.publish(1, "", "cmp.q", b"cccccc")
    talk.fence()
    b.drain("cmp.q")


@provocation
def dead_letter_headers(b):
    """a message rejected into a dead-letter exchange: routing key and headers (time masked)"""
    dead_letter(b, lambda talk: (talk.get(1, "basic.get", queue="cmp.q"),
                                 talk.say(1, "basic.reject", delivery_tag=1)), {})


@provocation
def dead_letter_headers_expired(b):
    """a message with expiration 1 dead-lettered: x-death (time masked)"""
    dead_letter(b, lambda talk: time.sleep(0.2), {"expiration": "1"})


def dead_letter(b, how, properties):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q2")
    talk.get(1, "queue.declare", queue="cmp.q",
             arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "cmp.q2"})
    talk.publish(1, "", "cmp.q", b"m", properties | {"headers": {"mine": 1}})
    talk.fence()
    how(talk)
    talk.fence()
    time.sleep(0.2)
    talk.get(1, "basic.get", queue="cmp.q2")
    if "basic.get-ok" not in talk.last or talk.last["basic.get-ok"]["routing_key"] != "cmp.q2":
        return b.note("not dead-lettered")
    for death in talk.properties["headers"].get("x-death", []):
        if isinstance(death.get("time"), As):
            death["time"] = As("T", 0)
    b.note(show(talk.properties))

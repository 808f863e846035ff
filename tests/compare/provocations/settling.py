"""ack, nack, reject and recover."""

from bench import add, provocation


def delivered(b, count=3, no_ack=False):
    """A channel that got `count` messages one, two, three… unacked (tags 1 to count)."""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for word in ("one", "two", "three", "four")[:count]:
        talk.publish(1, "", "cmp.q", word.encode())
    for _ in range(count):
        talk.get(1, "basic.get", queue="cmp.q", no_ack=no_ack)
    return talk


def settle(b, *methods, count=3, no_ack=False):
    talk = delivered(b, count, no_ack)
    for name, fields in methods:
        talk.say(1, name, **fields)
    talk.settled()
    talk.after()
    b.queue_state("cmp.q")
    b.drain("cmp.q")


def ack(tag, **more):
    return "basic.ack", {"delivery_tag": tag} | more


def nack(tag, **more):
    return "basic.nack", {"delivery_tag": tag} | more


def reject(tag, **more):
    return "basic.reject", {"delivery_tag": tag} | more


CASES = {
    "ack_unknown_tag": ("3 unacked; ack 99", [ack(99)]),
    "ack_unknown_tag_multiple": ("3 unacked; ack 99 multiple", [ack(99, multiple=True)]),
    "ack_twice": ("3 unacked; ack 1, ack 1", [ack(1), ack(1)]),
    "ack_multiple_twice": ("3 unacked; ack 2 multiple, ack 2 multiple",
                           [ack(2, multiple=True), ack(2, multiple=True)]),
    "ack_below_multiple": ("3 unacked; ack 2, then ack 1 multiple, then ack 3",
                           [ack(2), ack(1, multiple=True), ack(3)]),
    "ack_multiple_of_acked": ("3 unacked; ack 2, then ack 2 multiple",
                              [ack(2), ack(2, multiple=True)]),
    "ack_0": ("3 unacked; ack 0", [ack(0)]),
    "ack_0_multiple": ("3 unacked; ack 0 multiple", [ack(0, multiple=True)]),
    "ack_of_2_to_64_less_1": ("3 unacked; ack 2^64-1", [ack(2**64 - 1)]),
    "nack_unknown_tag": ("3 unacked; nack 99 requeue", [nack(99, requeue=True)]),
    "nack_0": ("3 unacked; nack 0 requeue", [nack(0, requeue=True)]),
    "nack_0_multiple_requeue": ("3 unacked; nack 0 multiple requeue",
                                [nack(0, multiple=True, requeue=True)]),
    "nack_requeue_order": ("3 unacked; nack 3, 1, 2 requeue",
                           [nack(3, requeue=True), nack(1, requeue=True), nack(2, requeue=True)]),
    "nack_drop": ("3 unacked; nack 2 multiple without requeue", [nack(2, multiple=True)]),
    "nack_then_ack": ("3 unacked; nack 1 requeue, ack 1", [nack(1, requeue=True), ack(1)]),
    "reject_unknown_tag": ("3 unacked; reject 99", [reject(99)]),
    "reject_0": ("3 unacked; reject 0 requeue", [reject(0, requeue=True)]),
    "reject_twice": ("3 unacked; reject 1, reject 1", [reject(1), reject(1)]),
    "reject_requeue": ("3 unacked; reject 2 requeue", [reject(2, requeue=True)]),
    "reject_drop": ("3 unacked; reject 2", [reject(2)]),
    "recover_requeue": ("3 unacked; recover requeue=true", [("basic.recover", {"requeue": True})]),
    "recover_no_requeue": ("3 unacked; recover requeue=false", [("basic.recover", {})]),
    "recover_async_requeue": ("3 unacked; recover-async requeue=true",
                              [("basic.recover-async", {"requeue": True})]),
    "recover_async_no_requeue": ("3 unacked; recover-async requeue=false",
                                 [("basic.recover-async", {})]),
}
for _name, (_sent, _methods) in CASES.items():
    add(_name, _sent + "; the queue afterwards",
        lambda b, methods=_methods: settle(b, *methods), group="settling")

NOTHING_OUT = {
    "ack_0_multiple_nothing_out": ack(0, multiple=True), "ack_1_nothing_out": ack(1),
    "ack_0_nothing_out": ack(0), "nack_0_multiple_nothing_out": nack(0, multiple=True),
    "ack_1_multiple_nothing_out": ack(1, multiple=True),
    "recover_nothing_out": ("basic.recover", {"requeue": True}),
}
for _name, _method in NOTHING_OUT.items():
    add(_name, f"nothing delivered; {_method[0]} {_method[1]}",
        lambda b, method=_method: settle(b, method, count=0), group="settling")


@provocation
def ack_of_no_ack_delivery(b):
    """1 message got with no_ack; ack 1"""
    settle(b, ack(1), count=1, no_ack=True)


@provocation
def ack_on_other_channel(b):
    """3 unacked on channel 1; ack 1 on channel 2"""
    talk = delivered(b)
    talk.say(2, "basic.ack", delivery_tag=1)
    talk.settled(2)
    talk.after(2, 1)


@provocation
def recover_to_consumer(b):
    """a consumer with 2 unacked; recover requeue=true: order of recover-ok and redeliveries"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two":
        talk.publish(1, "", "cmp.q", body)
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(linger=0.2)
    talk.say(1, "basic.recover", requeue=True)
    talk.see(linger=0.3)


@provocation
def recover_no_requeue_to_consumer(b):
    """a consumer with 2 unacked; recover requeue=false"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two":
        talk.publish(1, "", "cmp.q", body)
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(linger=0.2)
    talk.say(1, "basic.recover")
    talk.see(linger=0.3)
    talk.after()


@provocation
def requeue_to_two_consumers(b):
    """consumer a (qos 1) holds one; b waits; a nacks with requeue: who gets it, redelivered?"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for channel, tag in ((1, "a"), (2, "b")):
        talk.get(channel, "basic.qos", prefetch_count=1)
        talk.get(channel, "basic.consume", queue="cmp.q", consumer_tag=tag)
    talk.publish(1, "", "cmp.q", b"m")
    talk.see(1, until="basic.deliver")
    talk.say(1, "basic.nack", delivery_tag=1, requeue=True)
    talk.see(1, until="basic.deliver")

"""basic.consume, cancel, qos and get."""

import time

from amqp_raw import As
from bench import CAPABILITIES, add, provocation, show


def with_queue(b, *methods, arguments=None):
    """A queue, then methods one after the other, all answers; what stays open."""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", arguments=arguments)
    for name, fields in methods:
        talk.ask(1, name, **fields)
        if talk.closing or talk.socket_closed or 1 in talk.closed_channels:
            break
    talk.after()
    return talk


def consume(tag="c", **more):
    return "basic.consume", {"queue": "cmp.q", "consumer_tag": tag} | more


@provocation
def consume_missing_queue(b):
    """consume of a missing queue"""
    with_queue(b, consume(queue="cmp.missing"))


@provocation
def consume_duplicate_tag(b):
    """two consumers with the same tag on a channel"""
    with_queue(b, consume(), consume())


@provocation
def consume_same_tag_other_channel(b):
    """the same tag on channels 1 and 2"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for channel in 1, 2:
        talk.ask(channel, "basic.consume", queue="cmp.q", consumer_tag="c")


@provocation
def consume_tag_of_255_bytes(b):
    """a consumer tag of 255 bytes"""
    with_queue(b, consume("t" * 255))


@provocation
def consume_tag_reserved(b):
    """a consumer tag 'amq.mine'"""
    with_queue(b, consume("amq.mine"))


@provocation
def consume_exclusive_while_others(b):
    """an exclusive consumer while another consumes"""
    with_queue(b, consume("a"), consume("b", exclusive=True))


@provocation
def consume_while_exclusive(b):
    """a consumer while an exclusive one consumes"""
    with_queue(b, consume("a", exclusive=True), consume("b"))


@provocation
def consume_exclusive_twice(b):
    """an exclusive consumer while an exclusive one consumes"""
    with_queue(b, consume("a", exclusive=True), consume("b", exclusive=True))


@provocation
def consume_after_exclusive_cancelled(b):
    """an exclusive consumer is cancelled; then another consumes"""
    with_queue(b, consume("a", exclusive=True), ("basic.cancel", {"consumer_tag": "a"}), consume("b"))


@provocation
def get_while_exclusive(b):
    """basic.get while an exclusive consumer consumes"""
    with_queue(b, consume("a", exclusive=True), ("basic.get", {"queue": "cmp.q"}))


@provocation
def consume_no_local(b):
    """no_local; a publish on the same connection: delivered?"""
    talk = with_queue(b, consume(no_local=True))
    talk.publish(1, "", "cmp.q", b"m")
    talk.see(1, until="basic.deliver")


BAD_PRIORITIES = {"string": "5", "double": 1.5, "bool": True, "void": None, "negative": -5,
                  "int64": As("l", 2**40), "table": {}}
for _name, _value in BAD_PRIORITIES.items():
    add(f"consume_priority_{_name}", f"consume with x-priority {show(_value)}",
        lambda b, value=_value: with_queue(b, consume(arguments={"x-priority": value})),
        group="consuming")


@provocation
def consume_unknown_argument(b):
    """consume with the argument x-anything"""
    with_queue(b, consume(arguments={"x-anything": 1}))


@provocation
def consume_stream_offset_on_classic(b):
    """consume with x-stream-offset on a classic queue"""
    with_queue(b, consume(arguments={"x-stream-offset": "first"}))


@provocation
def consume_cancel_on_ha_failover_string(b):
    """consume with x-cancel-on-ha-failover 'yes'"""
    with_queue(b, consume(arguments={"x-cancel-on-ha-failover": "yes"}))


@provocation
def consume_single_active_exclusive(b):
    """an exclusive consumer of a queue with single active consumer"""
    with_queue(b, consume(exclusive=True), arguments={"x-single-active-consumer": True})


@provocation
def consume_single_active_takes_over(b):
    """single active consumer: a, b; a message; cancel a; a message"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", arguments={"x-single-active-consumer": True})
    for tag in "a", "b":
        talk.get(1, "basic.consume", queue="cmp.q", consumer_tag=tag, no_ack=True)
    for body in b"one", b"two":
        talk.publish(1, "", "cmp.q", body)
        talk.see(1, until="basic.deliver")
        if body == b"one":
            talk.ask(1, "basic.cancel", consumer_tag="a")


@provocation
def consume_round_robin(b):
    """consumers a, b, c; 6 messages"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for tag in "a", "b", "c":
        talk.get(1, "basic.consume", queue="cmp.q", consumer_tag=tag, no_ack=True)
    shares = {}
    for _ in range(6):
        talk.publish(1, "", "cmp.q", b"m")
        heard = talk.hear(1)
        tag = heard and heard[2].get("consumer_tag")
        shares[tag] = shares.get(tag, 0) + 1
    b.note(", ".join(f"{tag}: {count}" for tag, count in sorted(shares.items())))


@provocation
def consume_priorities_order(b):
    """consumers low (0), high (10, prefetch 1); 2 messages: high first, then low"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.qos", prefetch_count=1)
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="low")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="high", arguments={"x-priority": 10})
    for body in b"one", b"two":
        talk.publish(1, "", "cmp.q", body)
        talk.see(1, until="basic.deliver")


# --- cancel ---

@provocation
def cancel_unknown_tag(b):
    """cancel of a tag that never was"""
    with_queue(b, ("basic.cancel", {"consumer_tag": "never"}))


@provocation
def cancel_empty_tag(b):
    """cancel of the tag ''"""
    with_queue(b, ("basic.cancel", {"consumer_tag": ""}))


@provocation
def cancel_twice(b):
    """consume, cancel, cancel"""
    with_queue(b, consume(), ("basic.cancel", {"consumer_tag": "c"}),
               ("basic.cancel", {"consumer_tag": "c"}))


@provocation
def cancel_keeps_unacked(b):
    """a delivered message; cancel; the queue; then the ack"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"m")
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(until="basic.deliver")
    talk.ask(1, "basic.cancel", consumer_tag="c")
    b.queue_state("cmp.q")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.settled()
    talk.ask(1, "queue.delete", queue="cmp.q", if_empty=True)


# --- the queue goes away under the consumer ---

def queue_deleted(b, capabilities, nowait=False):
    talk = b.connect("consumer: ", properties={"capabilities": capabilities})
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    other = b.connect("other: ")
    other.get(1, "queue.delete", queue="cmp.q")
    talk.quiet(0.4)
    talk.after()
    return talk


@provocation
def consumed_queue_deleted(b):
    """the queue of a consumer is deleted, client with consumer_cancel_notify"""
    queue_deleted(b, CAPABILITIES)


@provocation
def consumed_queue_deleted_no_capability(b):
    """the queue of a consumer is deleted, client without consumer_cancel_notify"""
    queue_deleted(b, {})


@provocation
def consumed_queue_deleted_tag_free(b):
    """the queue is deleted, basic.cancel came; the same tag consumes another queue"""
    talk = queue_deleted(b, CAPABILITIES)
    talk.get(1, "queue.declare", queue="cmp.q2")
    talk.ask(1, "basic.consume", queue="cmp.q2", consumer_tag="c")


@provocation
def consumed_queue_deleted_by_itself(b):
    """the consumer's own channel deletes the queue: the order of basic.cancel and delete-ok"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.say(1, "queue.delete", queue="cmp.q")
    lines = sorted(line for _ in range(2) if (heard := talk.hear(0.6)) and (line := heard[3]))
    b.note("in any order: " + ", ".join(lines))


@provocation
def exclusive_queue_of_consumer_deleted(b):
    """an exclusive queue with a consumer, deleted by its owner on channel 2"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.say(2, "queue.delete", queue="cmp.q")
    lines = sorted(f"ch{heard[0]}: {heard[3]}" for _ in range(2) if (heard := talk.hear(0.6)))
    b.note("in any order: " + ", ".join(lines))
    talk.after()


@provocation
def client_sends_basic_cancel_ok_after_cancel(b):
    """basic.cancel from the broker (queue deleted), answered with basic.cancel-ok"""
    talk = queue_deleted(b, CAPABILITIES)
    talk.say(1, "basic.cancel-ok", consumer_tag="c")
    talk.settled()
    talk.after()


# --- qos ---

@provocation
def qos_prefetch_size(b):
    """qos with prefetch_size 1000"""
    with_queue(b, ("basic.qos", {"prefetch_size": 1000}))


@provocation
def qos_per_consumer(b):
    """qos 1 (not global), consumers a and b, 4 messages: what is out"""
    qos(b, False)


@provocation
def qos_global(b):
    """qos 1 global, consumers a and b, 4 messages: what is out"""
    qos(b, True)


def qos(b, whole):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "basic.qos", prefetch_count=1, **{"global": whole})
    for tag in "a", "b":
        talk.get(1, "basic.consume", queue="cmp.q", consumer_tag=tag)
    for body in b"one", b"two", b"three", b"four":
        talk.publish(1, "", "cmp.q", body)
    talk.quiet(0.3)
    b.note("ack 1:")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.quiet(0.3)


@provocation
def qos_later_not_for_existing(b):
    """a consumer without limit, then qos 1 (not global); 3 messages: all are delivered"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.ask(1, "basic.qos", prefetch_count=1)
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.quiet(0.3)


@provocation
def qos_global_lowered(b):
    """qos 3 global, 5 messages, 3 are out; qos 1 global; ack 2; ack all"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.qos", prefetch_count=3, **{"global": True})
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    for body in b"one", b"two", b"three", b"four", b"five":
        talk.publish(1, "", "cmp.q", body)
    talk.quiet(0.3)
    talk.ask(1, "basic.qos", prefetch_count=1, **{"global": True})
    b.note("ack 2 multiple:")
    talk.say(1, "basic.ack", delivery_tag=2, multiple=True)
    talk.quiet(0.3)
    b.note("ack all:")
    talk.say(1, "basic.ack", delivery_tag=0, multiple=True)
    talk.quiet(0.3)


@provocation
def qos_ignored_by_get(b):
    """qos 1; 2 messages; get, get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.qos", prefetch_count=1)
    for body in b"one", b"two":
        talk.publish(1, "", "cmp.q", body)
    for _ in range(2):
        talk.ask(1, "basic.get", queue="cmp.q")


@provocation
def qos_ignored_by_no_ack(b):
    """qos 1; a no_ack consumer; 3 messages"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.qos", prefetch_count=1)
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c", no_ack=True)
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.quiet(0.3)


@provocation
def qos_65535(b):
    """qos 65535"""
    with_queue(b, ("basic.qos", {"prefetch_count": 65535}))


# --- get ---

@provocation
def get_missing_queue(b):
    """get from a missing queue"""
    with_queue(b, ("basic.get", {"queue": "cmp.missing"}))


@provocation
def get_empty_queue(b):
    """get from an empty queue"""
    with_queue(b, ("basic.get", {"queue": "cmp.q"}))


@provocation
def tags_over_get_and_consume(b):
    """delivery tags: get (no_ack), get, then a consumer"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.ask(1, "basic.get", queue="cmp.q", no_ack=True)
    talk.ask(1, "basic.get", queue="cmp.q")
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(until="basic.deliver")


# --- direct reply-to ---

REPLY = {"queue": "amq.rabbitmq.reply-to"}


@provocation
def reply_to_consume_with_acks(b):
    """consume amq.rabbitmq.reply-to without no_ack"""
    with_queue(b, consume(**REPLY))


@provocation
def reply_to_consume_twice(b):
    """consume amq.rabbitmq.reply-to twice on a channel"""
    with_queue(b, consume("a", no_ack=True, **REPLY), consume("b", no_ack=True, **REPLY))


@provocation
def reply_to_get(b):
    """get from amq.rabbitmq.reply-to"""
    with_queue(b, ("basic.get", REPLY))


@provocation
def reply_to_consume_again_after_cancel(b):
    """consume amq.rabbitmq.reply-to, cancel, consume"""
    with_queue(b, consume("a", no_ack=True, **REPLY), ("basic.cancel", {"consumer_tag": "a"}),
               consume("b", no_ack=True, **REPLY))


# --- streams and quorum over 0-9-1 ---

def typed(b, kind, *methods):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", durable=True, arguments={"x-queue-type": kind})
    for name, fields in methods:
        talk.ask(1, name, **fields)
        if talk.closing or talk.closed_channels:
            break
    talk.after()


@provocation
def quorum_global_qos(b):
    """global qos 5, then consume from a quorum queue"""
    typed(b, "quorum", ("basic.qos", {"prefetch_count": 5, "global": True}), consume())


@provocation
def stream_consume_without_prefetch(b):
    """consume from a stream without prefetch"""
    typed(b, "stream", consume())


@provocation
def stream_consume_no_ack(b):
    """qos 10, consume from a stream with no_ack"""
    typed(b, "stream", ("basic.qos", {"prefetch_count": 10}), consume(no_ack=True))


@provocation
def stream_get(b):
    """get from a stream"""
    typed(b, "stream", ("basic.get", {"queue": "cmp.q"}))


@provocation
def stream_purge(b):
    """purge of a stream"""
    typed(b, "stream", ("queue.purge", {"queue": "cmp.q"}))

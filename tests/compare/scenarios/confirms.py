"""Confirms: what is acked, what is nacked, and when."""

from stage import scenario


@scenario
def confirm_transient_to_classic(s):
    """three transient messages"""
    s.queue("@q")
    s.boss.get(1, "confirm.select")
    for word in "abc":
        s.publish("", "@q", word)
    s.boss.confirms(3)


@scenario
def confirm_persistent_to_durable(s):
    """three persistent messages to a durable queue"""
    s.queue("@q", durable=True)
    s.boss.get(1, "confirm.select")
    for word in "abc":
        s.publish("", "@q", word, delivery_mode=2)
    s.boss.confirms(3)
    s.drain("@q", 3)


@scenario
def confirm_to_quorum(s):
    """three messages to a quorum queue"""
    s.quorum("@q")
    s.boss.get(1, "confirm.select")
    for word in "abc":
        s.publish("", "@q", word)
    s.boss.confirms(3)


@scenario
def confirm_fanout_to_three_kinds(s):
    """a fanout to a transient, a durable and a quorum queue: one confirm each"""
    s.exchange("@x", "fanout")
    s.queue("@transient")
    s.queue("@durable", durable=True)
    s.quorum("@quorum")
    for name in ("@transient", "@durable", "@quorum"):
        s.bind(name, "@x")
    s.boss.get(1, "confirm.select")
    for word in "ab":
        s.publish("@x", "k", word, delivery_mode=2)
    s.boss.confirms(2)
    for name in ("@transient", "@durable", "@quorum"):
        s.state(name, 2)


@scenario
def confirm_unroutable(s):
    """unroutable, not mandatory: ack"""
    s.boss.get(1, "confirm.select")
    s.publish("", "@nowhere")
    s.boss.confirms(1)


@scenario
def confirm_begins_at_select(s):
    """two before confirm.select do not count"""
    s.queue("@q")
    s.publish("", "@q", "x")
    s.publish("", "@q", "y")
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", "a")
    s.boss.confirms(1)
    s.drain("@q", 3)


@scenario
def confirm_select_twice_keeps_counting(s):
    """confirm.select again: the numbers go on"""
    s.queue("@q")
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", "a")
    s.boss.confirms(1)
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", "b")
    s.boss.confirms(2)


@scenario
def confirm_channels_count_alone(s):
    """two channels in confirm mode"""
    s.queue("@q")
    for channel in (1, 2):
        s.boss.get(channel, "confirm.select")
        s.boss.publish(channel, "", "@q", b"m")
        s.boss.messages(1, "basic.ack")


@scenario
def confirm_with_consumer_no_ack(s):
    """delivered to a no-ack consumer at once"""
    s.queue("@q", durable=True)
    consumer = s.connect()
    consumer.consume("@q", no_ack=True)
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", delivery_mode=2)
    s.boss.confirms(1)
    consumer.messages(1)


@scenario
def confirm_with_consumer_unacked(s):
    """delivered to a consumer that does not ack: confirmed all the same"""
    s.queue("@q", durable=True)
    consumer = s.connect()
    consumer.consume("@q")
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", delivery_mode=2)
    s.boss.confirms(1)
    consumer.messages(1)


@scenario
def confirm_own_exchange_missing(s):
    """the exchange does not exist: channel.close, no confirm"""
    s.boss.get(1, "confirm.select")
    s.publish("@missing", "k")
    s.boss.see()
    s.boss.after()


@scenario
def confirm_nack_and_ack_mixed(s):
    """a full reject-publish queue and a free one in turns"""
    s.queue("@full", {"x-max-length": 0, "x-overflow": "reject-publish"})
    s.queue("@free")
    s.boss.get(1, "confirm.select")
    for at in range(6):
        s.publish("", "@full" if at % 2 else "@free", str(at))
    s.boss.confirms(6)


@scenario
def confirm_dead_letter_to_full_queue(s):
    """the dead letter is refused by a full queue: the publisher is acked"""
    s.queue("@full", {"x-max-length": 0, "x-overflow": "reject-publish"})
    s.queue("@q", {"x-max-length": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@full"})
    s.boss.get(1, "confirm.select")
    s.publish("", "@q")
    s.boss.confirms(1)
    s.state("@full", 0)


@scenario
def confirm_empty_and_large_bodies(s):
    """bodies of 0 bytes and of several frames"""
    s.queue("@q")
    s.boss.get(1, "confirm.select")
    for size in (0, 200000, 0):
        s.publish("", "@q", "x" * size)
    s.boss.confirms(3)
    s.drain("@q", 3)


@scenario
def confirm_hundred(s):
    """a hundred at once: all acked"""
    s.queue("@q")
    s.boss.get(1, "confirm.select")
    for at in range(100):
        s.publish("", "@q", str(at))
    s.boss.confirms(100)
    s.state("@q", 100)


@scenario
def confirm_queue_deleted_between(s):
    """the queue is deleted between two publishings: mandatory returned, acked"""
    s.queue("@q")
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", "a", mandatory=True)
    s.boss.confirms(1)
    s.boss.get(1, "queue.delete", queue="@q")
    s.publish("", "@q", "b", mandatory=True)
    s.boss.confirms(2)

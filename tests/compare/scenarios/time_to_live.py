"""Message TTL, queue TTL (x-message-ttl) and x-expires."""

from amqp_raw import As
from stage import add, scenario


def lives(s, arguments, expiration, dies):
    """Whether a message is still there after 0.25 s; where it went."""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"} | arguments)
    s.publish("", "@q", **({} if expiration is None else {"expiration": expiration}))
    s.wait(0.25)
    s.state("@q", 0 if dies else 1)
    s.drain("@dead", 1 if dies else 0)
    s.drain("@q")


CASES = {
    "queue_100": ({"x-message-ttl": 100}, None, True),
    "message_100": ({}, "100", True),
    "queue_smaller": ({"x-message-ttl": 100}, "60000", True),
    "message_smaller": ({"x-message-ttl": 60000}, "100", True),
    "both_longer": ({"x-message-ttl": 60000}, "60000", False),
    "equal": ({"x-message-ttl": 100}, "100", True),
    "queue_0": ({"x-message-ttl": 0}, None, True),
    "message_0": ({}, "0", True),
    "both_0": ({"x-message-ttl": 0}, "0", True),
    "queue_0_message_longer": ({"x-message-ttl": 0}, "60000", True),
    "message_0_queue_longer": ({"x-message-ttl": 60000}, "0", True),
    "message_1": ({}, "1", True),
    "message_leading_zeros": ({}, "00100", True),
    "message_largest": ({}, "4294967295", False),
    "queue_as_long": ({"x-message-ttl": As("l", 100)}, None, True),
    "queue_as_short": ({"x-message-ttl": As("s", 100)}, None, True),
    "queue_as_byte": ({"x-message-ttl": As("b", 100)}, None, True),
}
for _name, (_arguments, _expiration, _dies) in CASES.items():
    add(f"ttl_{_name}", f"{_arguments}, expiration {_expiration}: after 0.25 s",
        lambda s, case=(_arguments, _expiration, _dies): lives(s, *case), "time_to_live")

for _name, _value in (("word", "soon"), ("empty", ""), ("negative", "-1"), ("fraction", "1.5"),
                      ("spaces", " 100 "), ("plus", "+100"), ("hex", "0x10"), ("trailing", "100ms"),
                      ("too_large", "99999999999"), ("above_32_bits", "4294967296")):
    def _refused(s, value=_value):
        s.queue("@q")
        s.publish("", "@q", expiration=value)
        s.boss.settled()
        s.boss.after()
        s.state("@q")
    add(f"expiration_{_name}", f"publish with expiration {_value!r}", _refused, "time_to_live")


@scenario
def ttl_0_with_waiting_consumer(s):
    """x-message-ttl 0 with a consumer that waits: delivered"""
    s.queue("@q", {"x-message-ttl": 0})
    consumer = s.connect()
    consumer.consume("@q", no_ack=True)
    s.publish("", "@q", "a")
    s.publish("", "@q", "b", expiration="0")
    consumer.messages(2)


@scenario
def ttl_0_with_busy_consumer(s):
    """x-message-ttl 0, consumer with prefetch 1: the second one dies"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-message-ttl": 0, "x-dead-letter-exchange": "@dlx"})
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    s.publish("", "@q", "a")
    s.publish("", "@q", "b")
    consumer.messages(1)
    s.drain("@dead", 1)


@scenario
def ttl_0_requeued(s):
    """expiration 0, delivered, then requeued: dies at once"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    s.publish("", "@q", "a", expiration="0")
    consumer.messages(1)
    consumer.ask(1, "basic.cancel", consumer_tag="c")
    consumer.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.drain("@dead", 1)


@scenario
def ttl_unacked_do_not_expire(s):
    """got before its time and held longer: acked without a dead letter"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-message-ttl": 300, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q")
    s.wait(0.5)
    s.state("@dead")
    s.boss.say(1, "basic.ack", delivery_tag=1)
    s.settle()
    s.state("@dead")


@scenario
def ttl_requeue_after_deadline(s):
    """held beyond its time, then requeued: dies at once, with the old deadline"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-message-ttl": 300, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q")
    s.wait(0.45)
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.drain("@dead", 1)


@scenario
def ttl_requeue_keeps_deadline(s):
    """requeued after half of 600 ms: dies 600 ms after publishing, not after the requeue"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-message-ttl": 600, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q")
    s.wait(0.35)
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.wait(0.45)
    s.state("@dead")


@scenario
def ttl_only_head_dies(s):
    """expirations 700 and 80: the second waits behind the first; both die in queue order"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "slow", expiration="700")
    s.publish("", "@q", "fast", expiration="80")
    s.wait(0.3)
    s.state("@q")
    s.state("@dead")
    s.drain("@dead", 2)


@scenario
def ttl_head_without_deadline_holds(s):
    """the head has no expiration: what is behind it is gone only when it comes to the head"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "stays")
    s.publish("", "@q", "fast", expiration="80")
    s.wait(0.25)
    s.state("@q")
    s.boss.take("@q")
    s.drain("@dead", 1)
    s.state("@q", 0)


@scenario
def ttl_expired_behind_head_not_got(s):
    """the expired one behind the head is not delivered by basic.get"""
    s.queue("@q")
    s.publish("", "@q", "stays")
    s.publish("", "@q", "fast", expiration="80")
    s.publish("", "@q", "last")
    s.wait(0.25)
    s.boss.take("@q")
    s.boss.take("@q")
    s.boss.take("@q")


@scenario
def ttl_order_of_dead_letters(s):
    """ten of one queue TTL: dead letters in publishing order"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-message-ttl": 100, "x-dead-letter-exchange": "@dlx"})
    for at in range(10):
        s.publish("", "@q", str(at))
    s.drain("@dead", 10)


@scenario
def ttl_without_dlx_just_goes(s):
    """no DLX: the count falls to 0"""
    s.queue("@q", {"x-message-ttl": 60})
    s.publish("", "@q", "a")
    s.publish("", "@q", "b")
    s.state("@q", 0)


@scenario
def ttl_expiration_is_delivered(s):
    """the expiration property is delivered as it was sent"""
    s.queue("@q")
    s.publish("", "@q", expiration="060000")
    s.drain("@q", 1)


@scenario
def ttl_confirms(s):
    """confirms of messages that expire at once"""
    s.queue("@q", {"x-message-ttl": 0})
    s.boss.get(1, "confirm.select")
    for word in "abc":
        s.publish("", "@q", word)
    s.boss.confirms(3)
    s.state("@q", 0)


@scenario
def ttl_in_two_queues(s):
    """one publishing, two queues with different TTL"""
    s.dead_letter_queue("fanout")
    s.exchange("@x", "fanout")
    for name, ttl in (("@q", 60), ("@q2", 300)):
        s.queue(name, {"x-message-ttl": ttl, "x-dead-letter-exchange": "@dlx"})
        s.bind(name, "@x")
    s.publish("@x", "k")
    s.drain("@dead", 2)


@scenario
def ttl_with_priority_high_first(s):
    """TTL and priorities: a high one that lives, low ones that die"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-priority": 5, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "l1", priority=1, expiration="60")
    s.publish("", "@q", "high", priority=5)
    s.publish("", "@q", "l2", priority=1, expiration="90")
    s.wait(0.3)
    s.drain("@dead")
    s.state("@q")
    s.boss.take("@q")
    s.drain("@dead", 2)


@scenario
def ttl_expired_during_consumer_wait(s):
    """a consumer at its prefetch limit; what expires meanwhile is never delivered"""
    s.queue("@q")
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    s.publish("", "@q", "held")
    s.publish("", "@q", "dies", expiration="80")
    s.publish("", "@q", "lives")
    consumer.messages(1)
    s.wait(0.25)
    consumer.say(1, "basic.ack", delivery_tag=1)
    consumer.messages(1)
    s.state("@q", 0)


@scenario
def ttl_tx_counts_from_commit(s):
    """tx: published with expiration 400, committed 500 ms later: it lives from the commit on"""
    s.queue("@q")
    s.boss.get(1, "tx.select")
    s.publish("", "@q", expiration="400")
    s.wait(0.5)
    s.boss.ask(1, "tx.commit")
    s.state("@q")
    s.state("@q", 0)


@scenario
def ttl_redeclare_does_not_reset(s):
    """queue.declare and passive declare do not touch deadlines"""
    s.queue("@q", {"x-message-ttl": 300})
    s.publish("", "@q")
    s.wait(0.2)
    s.queue("@q", {"x-message-ttl": 300})
    s.wait(0.25)
    s.state("@q")


@scenario
def expires_unused(s):
    """x-expires 150: gone"""
    s.queue("@q", {"x-expires": 150})
    s.wait(0.35)
    s.state("@q")


@scenario
def expires_not_while_consumed(s):
    """x-expires 250 with a consumer: stays; goes after the cancel"""
    consumer = s.connect()
    s.queue("@q", {"x-expires": 250})
    consumer.consume("@q")
    s.wait(0.5)
    consumer.ask(1, "queue.declare", queue="@q", passive=True)
    consumer.ask(1, "basic.cancel", consumer_tag="c")
    s.wait(0.5)
    s.state("@q")


@scenario
def expires_renewed_by_get(s):
    """x-expires 600, basic.get every 250 ms: stays"""
    s.queue("@q", {"x-expires": 600})
    for _ in range(4):
        s.wait(0.25)
        s.boss.take("@q")
    s.wait(0.9)
    s.state("@q")


@scenario
def expires_renewed_by_declare(s):
    """x-expires 600, declared again every 250 ms: stays"""
    s.queue("@q", {"x-expires": 600})
    for _ in range(4):
        s.wait(0.25)
        s.boss.ask(1, "queue.declare", queue="@q", arguments={"x-expires": 600})
    s.wait(0.9)
    s.state("@q")


@scenario
def expires_renewed_by_passive_declare(s):
    """x-expires 600, passively declared every 250 ms"""
    s.queue("@q", {"x-expires": 600})
    for _ in range(4):
        s.wait(0.25)
        s.boss.ask(1, "queue.declare", queue="@q", passive=True)


@scenario
def expires_not_renewed_by_publish(s):
    """x-expires 300, published to every 100 ms: goes all the same"""
    s.queue("@q", {"x-expires": 300})
    for _ in range(6):
        s.publish("", "@q")
        s.wait(0.1)
    s.state("@q")


@scenario
def expires_with_unacked(s):
    """x-expires 300, a message is held unacked without a consumer: goes all the same"""
    s.queue("@q", {"x-expires": 300})
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q")
    s.wait(0.6)
    s.state("@q")
    s.boss.say(1, "basic.ack", delivery_tag=1)
    s.boss.settled()


@scenario
def expires_name_can_be_used_again(s):
    """gone, then declared again with other arguments: empty"""
    s.queue("@q", {"x-expires": 100})
    s.publish("", "@q")
    s.wait(0.3)         # a look at it would be a use
    s.boss.ask(1, "queue.declare", queue="@q", arguments={"x-max-length": 3})

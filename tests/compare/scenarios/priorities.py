"""x-max-priority: the order of messages."""

from amqp_raw import As
from stage import add, scenario


def fill(s, *messages):
    for priority in messages:
        word, number = priority if isinstance(priority, tuple) else (str(priority), priority)
        s.publish("", "@q", word, **({} if number is None else {"priority": number}))


def order(s, arguments, messages):
    s.queue("@q", arguments)
    fill(s, *messages)
    s.drain("@q", len(messages))


CASES = {
    "order": (10, [1, 5, 3, 9, 5]),
    "same_stays_in_order": (10, [("a", 5), ("b", 5), ("c", 5)]),
    "none_is_zero": (10, [("none", None), ("zero", 0), ("one", 1), ("none2", None)]),
    "above_maximum_is_maximum": (5, [("five", 5), ("nine", 9), ("255", 255), ("four", 4), ("five2", 5)]),
    "maximum_1": (1, [("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", 7)]),
    "maximum_255": (255, [("a", 254), ("b", 255), ("c", 0), ("d", 128)]),
    "maximum_0": (0, [("a", 0), ("b", 1), ("c", None)]),
    "interleaved": (3, [("l1", 1), ("h1", 3), ("l2", 1), ("h2", 3), ("m1", 2)]),
}
for _name, (_maximum, _messages) in CASES.items():
    add(f"priority_{_name}", f"x-max-priority {_maximum}, published {_messages}",
        lambda s, maximum=_maximum, messages=_messages: order(s, {"x-max-priority": maximum}, messages),
        "priorities")


@scenario
def priority_without_argument(s):
    """no x-max-priority: the property changes nothing"""
    order(s, {}, [1, 9, 5])


@scenario
def priority_unsigned_byte_argument(s):
    """x-max-priority as an unsigned byte"""
    order(s, {"x-max-priority": As("B", 5)}, [1, 9, 5])


@scenario
def priority_requeue_goes_to_its_level(s):
    """the highest is got and requeued: first of its level again"""
    s.queue("@q", {"x-max-priority": 9})
    fill(s, ("h1", 9), ("l1", 1), ("h2", 9), ("l2", 1))
    s.settle()
    s.boss.take("@q")
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.drain("@q", 4)


@scenario
def priority_requeue_of_low(s):
    """three got, all requeued at once with a newer high one there"""
    s.queue("@q", {"x-max-priority": 9})
    fill(s, ("h1", 9), ("l1", 1), ("l2", 1))
    s.settle()
    for _ in range(3):
        s.boss.take("@q")
    fill(s, ("new", 5), ("new_low", 1))
    s.settle()
    s.boss.say(1, "basic.nack", delivery_tag=3, multiple=True, requeue=True)
    s.drain("@q", 5)


@scenario
def priority_overtakes_while_consumer_is_busy(s):
    """a consumer with prefetch 1: the high one overtakes what is ready"""
    s.queue("@q", {"x-max-priority": 9})
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    fill(s, ("first", 1))
    consumer.messages(1)
    fill(s, ("low", 1), ("high", 9), ("mid", 5))
    s.settle()
    for tag in (1, 2, 3):
        consumer.say(1, "basic.ack", delivery_tag=tag)
        consumer.messages(1)


@scenario
def priority_prefetched_are_not_overtaken(s):
    """a consumer with prefetch 2 already holds the low ones"""
    s.queue("@q", {"x-max-priority": 9})
    consumer = s.connect()
    consumer.prefetch(2)
    consumer.consume("@q")
    fill(s, ("l1", 1), ("l2", 1))
    consumer.messages(2)
    fill(s, ("high", 9))
    consumer.quiet(0.1)
    consumer.say(1, "basic.ack", delivery_tag=1)
    consumer.messages(1)


@scenario
def priority_ttl_in_levels(s):
    """expiration of a low one while a high one stays: the level's head, but not the queue's"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-priority": 9, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "high", priority=9)
    s.publish("", "@q", "low", priority=1, expiration="60")
    s.wait(0.3)
    s.drain("@dead")
    s.state("@q")
    s.boss.take("@q")
    s.drain("@dead", 1)


@scenario
def priority_queue_ttl(s):
    """x-message-ttl: the order in which levels die"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-priority": 9, "x-message-ttl": 250, "x-dead-letter-exchange": "@dlx"})
    fill(s, ("low", 1), ("high", 9), ("low2", 1), ("mid", 5))
    s.drain("@dead", 4)


@scenario
def priority_equal_expiration_dies_behind_same_level(s):
    """two of one level, the first lives longer: the second waits for the head"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-priority": 9, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "long", priority=3, expiration="600")
    s.publish("", "@q", "short", priority=3, expiration="60")
    s.wait(0.3)
    s.state("@dead")
    s.drain("@dead", 2)


@scenario
def priority_property_kept(s):
    """a priority above the maximum is delivered as it was sent"""
    s.queue("@q", {"x-max-priority": 2})
    s.publish("", "@q", priority=200, headers={"a": 1})
    s.drain("@q", 1)


@scenario
def priority_dead_letter_keeps_priority(s):
    """dead-lettered into another priority queue: ordered there by the same property"""
    s.queue("@dead", {"x-max-priority": 9})
    s.queue("@q", {"x-message-ttl": 40, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@dead"})
    fill(s, ("low", 1), ("high", 8))
    s.drain("@dead", 2)


@scenario
def priority_purge_counts_all_levels(s):
    """queue.purge-ok counts all levels"""
    s.queue("@q", {"x-max-priority": 9})
    fill(s, 1, 2, 3, 9, 9)
    s.boss.ask(1, "queue.purge", queue="@q")
    fill(s, 1)
    s.boss.ask(1, "queue.delete", queue="@q")


@scenario
def priority_recover_order(s):
    """three got, recover: the order afterwards"""
    s.queue("@q", {"x-max-priority": 9})
    fill(s, ("a", 1), ("b", 5), ("c", 9), ("d", 5))
    s.settle()
    for _ in range(3):
        s.boss.take("@q")
    s.boss.ask(1, "basic.recover", requeue=True)
    s.drain("@q", 4)

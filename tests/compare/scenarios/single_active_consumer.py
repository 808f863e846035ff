"""x-single-active-consumer: who gets what, and when the next one takes over."""

from stage import scenario

SINGLE = {"x-single-active-consumer": True}


def two(s, arguments=None, prefetch=0):
    """A queue with two consumers; the first one is active."""
    s.queue("@q", SINGLE | (arguments or {}))
    first, second = s.connect("first "), s.connect("second ")
    for talk, tag in ((first, "one"), (second, "two")):
        if prefetch:
            talk.prefetch(prefetch)
        talk.consume("@q", tag)
    return first, second


def send(s, words):
    for word in words:
        s.publish("", "@q", word)
    s.settle()


@scenario
def sac_first_gets_all(s):
    """two consumers, four messages: all to the first"""
    first, second = two(s)
    send(s, "abcd")
    first.messages(4)
    second.quiet()
    s.state("@q")


@scenario
def sac_first_is_full(s):
    """the first has prefetch 1: the second gets nothing though messages wait"""
    first, second = two(s, prefetch=1)
    send(s, "abc")
    first.messages(1)
    second.quiet(0.2)
    s.state("@q")
    first.say(1, "basic.ack", delivery_tag=1)
    first.messages(1)
    second.quiet()


@scenario
def sac_cancel_hands_over(s):
    """the first acks all and cancels"""
    first, second = two(s)
    send(s, "a")
    first.messages(1)
    first.say(1, "basic.ack", delivery_tag=1)
    first.ask(1, "basic.cancel", consumer_tag="one")
    send(s, "b")
    second.messages(1)


@scenario
def sac_cancel_with_unacked(s):
    """the first cancels with one unacked: the second gets new ones at once, or after the ack?"""
    first, second = two(s)
    send(s, "a")
    first.messages(1)
    first.ask(1, "basic.cancel", consumer_tag="one")
    send(s, "b")
    second.quiet(0.25)
    first.say(1, "basic.nack", delivery_tag=1, requeue=True)
    first.fence()
    second.quiet(0.25)


@scenario
def sac_cancel_with_ready(s):
    """the first has prefetch 1 and cancels while two messages wait: the second should get them.
    RabbitMQ 3.10 forgets to wake it, and the next publishing crashes the queue's process"""
    first, second = two(s, prefetch=1)
    send(s, "abc")
    first.messages(1)
    first.ask(1, "basic.cancel", consumer_tag="one")
    second.quiet(0.25)
    s.state("@q")
    send(s, "d")
    second.quiet(0.3)


@scenario
def sac_channel_close_hands_over(s):
    """the first's channel closes with two unacked: the second gets them, redelivered"""
    first, second = two(s)
    send(s, "ab")
    first.messages(2)
    first.ask(1, "channel.close", reply_code=200)
    second.messages(2)


@scenario
def sac_connection_close_hands_over(s):
    """the first's connection closes with two unacked"""
    first, second = two(s)
    send(s, "ab")
    first.messages(2)
    first.hang_up()
    second.messages(2)


@scenario
def sac_third_in_line(s):
    """three consumers: first goes, second takes over, goes too, third takes over"""
    first, second = two(s)
    third = s.connect("third ")
    third.consume("@q", "three")
    first.ask(1, "basic.cancel", consumer_tag="one")
    send(s, "a")
    second.messages(1)
    second.say(1, "basic.ack", delivery_tag=1)
    second.ask(1, "basic.cancel", consumer_tag="two")
    send(s, "b")
    third.messages(1)


@scenario
def sac_waiting_one_goes(s):
    """the waiting one cancels: nothing changes"""
    first, second = two(s)
    second.ask(1, "basic.cancel", consumer_tag="two")
    send(s, "a")
    first.messages(1)
    s.state("@q", 0, 1)


@scenario
def sac_comes_back_last(s):
    """the first cancels and consumes again: it waits behind the second"""
    first, second = two(s)
    first.ask(1, "basic.cancel", consumer_tag="one")
    first.consume("@q", "again")
    send(s, "a")
    second.messages(1)
    first.quiet()


@scenario
def sac_same_channel(s):
    """both consumers on one channel"""
    s.queue("@q", SINGLE)
    talk = s.connect()
    talk.consume("@q", "one")
    talk.consume("@q", "two")
    send(s, "ab")
    talk.messages(2)
    talk.say(1, "basic.ack", delivery_tag=2, multiple=True)
    talk.ask(1, "basic.cancel", consumer_tag="one")
    send(s, "c")
    talk.messages(1)


@scenario
def sac_exclusive_consumer_refused(s):
    """an exclusive consumer of such a queue"""
    s.queue("@q", SINGLE)
    talk = s.connect()
    talk.ask(1, "basic.consume", queue="@q", consumer_tag="one", exclusive=True)
    talk.after()


@scenario
def sac_exclusive_consumer_refused_second(s):
    """an exclusive consumer beside a plain one"""
    first, _ = two(s)
    third = s.connect("third ")
    third.ask(1, "basic.consume", queue="@q", consumer_tag="three", exclusive=True)
    third.after()
    send(s, "a")
    first.messages(1)


@scenario
def sac_consumer_priority_does_not_take_over(s):
    """a later consumer with a higher x-priority"""
    s.queue("@q", SINGLE)
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two", arguments={"x-priority": 10})
    send(s, "a")
    first.quiet(0.2)
    second.quiet(0.2)


@scenario
def sac_consumer_priority_of_waiting(s):
    """two wait, the later one with a higher x-priority: who is next"""
    first, second = two(s)
    third = s.connect("third ")
    third.consume("@q", "three", arguments={"x-priority": 5})
    first.ask(1, "basic.cancel", consumer_tag="one")
    send(s, "a")
    second.quiet(0.2)
    third.quiet(0.2)


@scenario
def sac_get_beside_consumer(s):
    """basic.get by another while the active one is full"""
    first, second = two(s, prefetch=1)
    send(s, "ab")
    first.messages(1)
    s.boss.take("@q", no_ack=True)
    second.quiet()


@scenario
def sac_requeue_goes_to_active(s):
    """the active one nacks with requeue: it gets it again"""
    first, second = two(s)
    send(s, "a")
    first.messages(1)
    first.say(1, "basic.nack", delivery_tag=1, requeue=True)
    first.messages(1)
    second.quiet()


@scenario
def sac_with_priorities(s):
    """with x-max-priority"""
    s.queue("@q", SINGLE | {"x-max-priority": 5})
    send(s, "a")
    s.publish("", "@q", "high", priority=5)
    s.settle()
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two")
    first.messages(2)
    second.quiet()


@scenario
def sac_auto_delete(s):
    """auto-delete: the queue goes when the last of the two has gone"""
    s.queue("@q", SINGLE, auto_delete=True)
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two")
    first.ask(1, "basic.cancel", consumer_tag="one")
    s.state("@q", 0, 1)
    second.ask(1, "basic.cancel", consumer_tag="two")
    s.gone("@q")


@scenario
def sac_no_ack_consumer(s):
    """a no-ack consumer is active, then another takes over"""
    s.queue("@q", SINGLE)
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one", no_ack=True)
    second.consume("@q", "two", no_ack=True)
    send(s, "ab")
    first.messages(2)
    first.ask(1, "basic.cancel", consumer_tag="one")
    send(s, "c")
    second.messages(1)


@scenario
def sac_queue_deleted(s):
    """the queue is deleted: both are told"""
    first, second = two(s)
    s.boss.ask(1, "queue.delete", queue="@q")
    first.quiet()
    second.quiet()


@scenario
def sac_false(s):
    """x-single-active-consumer false: both get some"""
    s.queue("@q", {"x-single-active-consumer": False})
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two")
    send(s, "ab")
    first.messages(1)
    second.messages(1)

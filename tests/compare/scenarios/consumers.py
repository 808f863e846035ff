"""Who of several consumers gets a message: turns, prefetch, x-priority, exclusiveness."""

from stage import add, scenario


def send(s, words):
    for word in words:
        s.publish("", "@q", word)
    s.settle()


def crowd(s, *settings):
    """A queue and consumers one, two, three …; each setting is (prefetch, arguments)."""
    s.queue("@q")
    talks = []
    for name, (prefetch, arguments) in zip(("one", "two", "three", "four"), settings):
        talk = s.connect(f"{name} ")
        if prefetch:
            talk.prefetch(prefetch)
        talk.consume("@q", name, arguments=arguments)
        talks.append(talk)
    return talks


@scenario
def turns_of_two(s):
    """two consumers, six messages one at a time: in turns"""
    one, two = crowd(s, (0, {}), (0, {}))
    send(s, "abcdef")
    one.messages(3)
    two.messages(3)


@scenario
def turns_of_three(s):
    """three consumers, seven messages"""
    one, two, three = crowd(s, (0, {}), (0, {}), (0, {}))
    send(s, "abcdefg")
    one.messages(3)
    two.messages(2)
    three.messages(2)


@scenario
def turns_with_prefetch(s):
    """prefetch 1, 2 and none: six messages"""
    one, two, three = crowd(s, (1, {}), (2, {}), (0, {}))
    send(s, "abcdef")
    one.messages(1)
    two.messages(2)
    three.messages(3)


@scenario
def turns_one_is_full(s):
    """prefetch 1 and 1, four messages; acks decide who is next"""
    one, two = crowd(s, (1, {}), (1, {}))
    send(s, "abcd")
    one.messages(1)
    two.messages(1)
    two.say(1, "basic.ack", delivery_tag=1)
    two.messages(1)
    one.say(1, "basic.ack", delivery_tag=1)
    one.messages(1)


@scenario
def turns_backlog_to_first_consumer(s):
    """the backlog is there first: all of it goes to the first consumer without prefetch"""
    s.queue("@q")
    send(s, "abcd")
    one, two = s.connect("one "), s.connect("two ")
    one.consume("@q", "one")
    one.messages(4)
    two.consume("@q", "two")
    send(s, "ef")
    one.messages(1)
    two.messages(1)


@scenario
def turns_same_channel(s):
    """two consumers on one channel"""
    s.queue("@q")
    talk = s.connect()
    talk.consume("@q", "one")
    talk.consume("@q", "two")
    send(s, "abcd")
    talk.messages(4)


@scenario
def turns_after_cancel(s):
    """one of three cancels: the others go on in turns"""
    one, two, three = crowd(s, (0, {}), (0, {}), (0, {}))
    send(s, "abc")
    for talk in (one, two, three):
        talk.messages(1)
    two.ask(1, "basic.cancel", consumer_tag="two")
    send(s, "defg")
    one.messages(2)
    three.messages(2)


@scenario
def turns_requeued_message(s):
    """two consumers; the first nacks with requeue: who gets it"""
    one, two = crowd(s, (1, {}), (1, {}))
    send(s, "a")
    one.messages(1)
    one.say(1, "basic.nack", delivery_tag=1, requeue=True)
    two.messages(1)


def by_priority(s, priorities, count, prefetch=0):
    talks = crowd(s, *((prefetch, {} if p is None else {"x-priority": p}) for p in priorities))
    send(s, "abcdef"[:count])
    s.wait(0.1)
    for talk in talks:
        talk.quiet(0.05)


for _name, _priorities in (("higher_first", (1, 5)), ("default_is_0", (None, -1)),
                           ("default_below_1", (None, 1)), ("equal_take_turns", (3, 3, 1)),
                           ("negative", (-5, -2))):
    add(f"consumer_priority_{_name}", f"x-priority {_priorities}, four messages",
        lambda s, priorities=_priorities: by_priority(s, priorities, 4), "consumers")
    add(f"consumer_priority_{_name}_prefetch_1", f"x-priority {_priorities}, prefetch 1, six messages",
        lambda s, priorities=_priorities: by_priority(s, priorities, 6, 1), "consumers")


@scenario
def consumer_priority_falls_back_and_returns(s):
    """the higher one is full, the lower one gets; after an ack the higher one again"""
    high, low = crowd(s, (1, {"x-priority": 9}), (0, {"x-priority": 1}))
    send(s, "ab")
    high.messages(1)
    low.messages(1)
    high.say(1, "basic.ack", delivery_tag=1)
    high.fence()
    send(s, "c")
    high.messages(1)
    low.quiet(0.1)


@scenario
def consumer_priority_three_levels(s):
    """prefetch 1 each, levels 9, 5, 1: filled from above"""
    high, mid, low = crowd(s, (1, {"x-priority": 9}), (1, {"x-priority": 5}), (1, {"x-priority": 1}))
    send(s, "abc")
    high.messages(1)
    mid.messages(1)
    low.messages(1)


@scenario
def consumer_priority_late_high(s):
    """a higher one comes later: it gets the next ones"""
    low, = crowd(s, (0, {"x-priority": 1}))
    send(s, "a")
    low.messages(1)
    high = s.connect("high ")
    high.consume("@q", "high", arguments={"x-priority": 7})
    send(s, "bc")
    high.messages(2)
    low.quiet(0.1)


for _name, _value in (("string", "5"), ("float", 1.5), ("bool", True), ("table", {}), ("void", None),
                      ("large", 2**40)):
    def _priority_of_type(s, value=_value):
        s.queue("@q")
        talk = s.connect()
        talk.ask(1, "basic.consume", queue="@q", consumer_tag="c", arguments={"x-priority": value})
        talk.after()
    add(f"consumer_priority_{_name}", f"basic.consume with x-priority {_value!r}", _priority_of_type,
        "consumers")


@scenario
def consumer_unknown_argument(s):
    """basic.consume with an argument nobody knows"""
    s.queue("@q")
    talk = s.connect()
    talk.ask(1, "basic.consume", queue="@q", consumer_tag="c", arguments={"x-mine": [1]})
    talk.after()


@scenario
def exclusive_consumer_refuses_others(s):
    """an exclusive consumer; another, exclusive or not, is refused; basic.get works"""
    s.queue("@q")
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one", exclusive=True)
    for exclusive in (False, True):
        second.ask(1, "basic.consume", queue="@q", consumer_tag="two", exclusive=exclusive)
        second.after()
    second.take("@q")


@scenario
def exclusive_consumer_refused_beside_another(s):
    """an exclusive consumer where one is already"""
    s.queue("@q")
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.ask(1, "basic.consume", queue="@q", consumer_tag="two", exclusive=True)
    second.after()


@scenario
def exclusive_consumer_after_cancel(s):
    """the exclusive one cancels: another may come"""
    s.queue("@q")
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one", exclusive=True)
    first.ask(1, "basic.cancel", consumer_tag="one")
    second.ask(1, "basic.consume", queue="@q", consumer_tag="two")


@scenario
def exclusive_consumer_after_connection_ended(s):
    """the exclusive one's connection ends with an unacked message: the next one gets it"""
    s.queue("@q")
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one", exclusive=True)
    send(s, "a")
    first.messages(1)
    first.hang_up()
    s.state("@q", 1, 0)
    second.consume("@q", "two", exclusive=True)
    second.messages(1)


@scenario
def qos_global_limits_the_channel(s):
    """qos global 3: two consumers of one channel share it"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(3, **{"global": True})
    talk.consume("@q", "one")
    talk.consume("@q", "two")
    send(s, "abcde")
    talk.messages(3)
    talk.quiet(0.15)
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.messages(1)
    s.state("@q", 1)


@scenario
def qos_global_then_per_consumer(s):
    """qos global 3, then 2 for each consumer: the second qos lifts the limit of the channel"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(3, **{"global": True})
    talk.prefetch(2)
    talk.consume("@q", "one")
    send(s, "abcde")
    talk.messages(2)
    talk.quiet(0.15)
    talk.consume("@q", "two")
    talk.messages(1)
    talk.quiet(0.15)


@scenario
def qos_per_consumer_then_global(s):
    """2 for each consumer, then qos global 3: both count"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(2)
    talk.prefetch(3, **{"global": True})
    talk.consume("@q", "one")
    send(s, "abcde")
    talk.messages(2)
    talk.quiet(0.15)
    talk.consume("@q", "two")
    talk.messages(1)
    talk.quiet(0.15)


@scenario
def qos_changed_for_new_consumers_only(s):
    """qos 1, a consumer; qos 0: the first one keeps its 1"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(1)
    talk.consume("@q", "one")
    talk.prefetch(0)
    send(s, "abc")
    talk.messages(1)
    talk.quiet(0.15)
    talk.consume("@q", "two")
    talk.messages(2)


@scenario
def qos_global_raised(s):
    """qos global 1, raised to 3 while messages wait"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(1, **{"global": True})
    talk.consume("@q", "one")
    send(s, "abcd")
    talk.messages(1)
    talk.quiet(0.1)
    talk.prefetch(3, **{"global": True})
    talk.messages(2)
    talk.quiet(0.1)


@scenario
def qos_does_not_limit_get(s):
    """qos global 1: basic.get goes on beyond it, and what was got does not count"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(1, **{"global": True})
    send(s, "abc")
    talk.take("@q")
    talk.take("@q")
    talk.consume("@q", "one")
    talk.messages(1)


@scenario
def qos_no_ack_is_not_limited(s):
    """qos 1 and a no-ack consumer: all at once"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(1)
    talk.consume("@q", "one", no_ack=True)
    send(s, "abc")
    talk.messages(3)


@scenario
def qos_multiple_ack_frees_all(s):
    """qos 3: ack multiple of 2 lets two more come"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(3)
    talk.consume("@q", "one")
    send(s, "abcdef")
    talk.messages(3)
    talk.say(1, "basic.ack", delivery_tag=2, multiple=True)
    talk.messages(2)
    talk.quiet(0.1)


@scenario
def cancel_keeps_unacked(s):
    """cancel with two unacked: they can still be acked and nacked"""
    s.queue("@q")
    talk = s.connect()
    talk.consume("@q", "one")
    send(s, "ab")
    talk.messages(2)
    talk.ask(1, "basic.cancel", consumer_tag="one")
    s.state("@q", 0, 0)
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.say(1, "basic.nack", delivery_tag=2, requeue=True)
    s.drain("@q", 1)


@scenario
def requeue_keeps_order(s):
    """three delivered, all requeued at once: delivered again in order, redelivered"""
    s.queue("@q")
    talk = s.connect()
    talk.prefetch(3)
    talk.consume("@q", "one")
    send(s, "abcd")
    talk.messages(3)
    talk.say(1, "basic.nack", delivery_tag=3, multiple=True, requeue=True)
    talk.messages(3)


@scenario
def requeue_one_by_one_in_reverse(s):
    """three got, requeued 3, 1, 2: each goes back to its place"""
    s.queue("@q")
    send(s, "abcd")
    for _ in range(3):
        s.boss.take("@q")
    for tag in (3, 1, 2):
        s.boss.say(1, "basic.reject", delivery_tag=tag, requeue=True)
    s.drain("@q", 4)


@scenario
def queue_deleted_cancels_consumers(s):
    """the queue goes: consumers are told with basic.cancel"""
    one, two = crowd(s, (0, {}), (0, {}))
    s.boss.ask(1, "queue.delete", queue="@q")
    one.messages(1, "basic.cancel")
    two.messages(1, "basic.cancel")

"""x-max-length, x-max-length-bytes and x-overflow."""

from stage import add, scenario


def fill(s, words, **properties):
    for word in words:
        s.publish("", "@q", word, **properties)


def limited(s, arguments, words, dead=True):
    """The words into @q; what is left, and what came to the dead letter queue."""
    s.dead_letter_queue("fanout")
    s.queue("@q", ({"x-dead-letter-exchange": "@dlx"} if dead else {}) | arguments)
    fill(s, words)
    s.wait(0.1)
    s.drain("@q")
    s.drain("@dead")


FOUR = ["a", "bb", "ccc", "dddd"]
CASES = {
    "length_2": ({"x-max-length": 2}, FOUR),
    "length_1": ({"x-max-length": 1}, FOUR),
    "length_0": ({"x-max-length": 0}, FOUR),
    "length_4_of_4": ({"x-max-length": 4}, FOUR),
    "bytes_7": ({"x-max-length-bytes": 7}, FOUR),
    "bytes_6": ({"x-max-length-bytes": 6}, FOUR),
    "bytes_3_less_than_one": ({"x-max-length-bytes": 3}, FOUR),
    "bytes_0": ({"x-max-length-bytes": 0}, FOUR),
    "bytes_0_empty_bodies": ({"x-max-length-bytes": 0}, ["", ""]),
    "length_3_bytes_4": ({"x-max-length": 3, "x-max-length-bytes": 4}, FOUR),
    "length_1_bytes_100": ({"x-max-length": 1, "x-max-length-bytes": 100}, FOUR),
    "large_drops_many": ({"x-max-length-bytes": 10}, ["a", "b", "c", "1234567890"]),
    "drop_head_said": ({"x-max-length": 2, "x-overflow": "drop-head"}, FOUR),
    "reject_publish": ({"x-max-length": 2, "x-overflow": "reject-publish"}, FOUR),
    "reject_publish_bytes": ({"x-max-length-bytes": 3, "x-overflow": "reject-publish"}, FOUR),
    "reject_publish_length_0": ({"x-max-length": 0, "x-overflow": "reject-publish"}, FOUR),
    "reject_publish_dlx": ({"x-max-length": 2, "x-overflow": "reject-publish-dlx"}, FOUR),
    "reject_publish_dlx_bytes": ({"x-max-length-bytes": 3, "x-overflow": "reject-publish-dlx"}, FOUR),
    "reject_publish_dlx_length_0": ({"x-max-length": 0, "x-overflow": "reject-publish-dlx"}, FOUR),
    "reject_publish_without_limit": ({"x-overflow": "reject-publish"}, FOUR),
}
for _name, (_arguments, _words) in CASES.items():
    add(f"limit_{_name}", f"{_name.replace('_', ' ')}: bodies {' '.join(_words)}; the queue, the dead letters",
        lambda s, arguments=_arguments, words=_words: limited(s, arguments, words), "limits")
    add(f"limit_{_name}_without_dlx", f"{_name.replace('_', ' ')}, no DLX",
        lambda s, arguments=_arguments, words=_words: limited(s, arguments, words, False), "limits")


def confirmed(s, overflow, arguments):
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-overflow": overflow, "x-dead-letter-exchange": "@dlx"} | arguments)
    s.boss.get(1, "confirm.select")
    fill(s, FOUR)
    s.boss.confirms(4)
    s.wait(0.05)
    s.drain("@q")
    s.drain("@dead")


for _overflow in ("drop-head", "reject-publish", "reject-publish-dlx"):
    for _name, _arguments in (("length_2", {"x-max-length": 2}), ("length_0", {"x-max-length": 0}),
                              ("bytes_3", {"x-max-length-bytes": 3})):
        add(f"limit_confirms_{_overflow.replace('-', '_')}_{_name}",
            f"{_overflow}, {_name}, four publishings with confirms",
            lambda s, overflow=_overflow, arguments=_arguments: confirmed(s, overflow, arguments), "limits")


@scenario
def limit_unacked_do_not_count(s):
    """x-max-length 2, two unacked: two more fit"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-dead-letter-exchange": "@dlx"})
    fill(s, "ab")
    s.settle()
    s.boss.take("@q")
    s.boss.take("@q")
    fill(s, "cde")
    s.state("@dead", 1)
    s.drain("@dead")
    s.drain("@q", 2)


@scenario
def limit_bytes_unacked_do_not_count(s):
    """x-max-length-bytes 4, four bytes unacked"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length-bytes": 4, "x-dead-letter-exchange": "@dlx"})
    fill(s, ["aa", "bb"])
    s.settle()
    s.boss.take("@q")
    s.boss.take("@q")
    fill(s, ["cc", "dd", "ee"])
    s.drain("@dead", 1)
    s.drain("@q", 2)


@scenario
def limit_after_requeue(s):
    """x-max-length 2, one unacked, two more; the unacked one is requeued: which one is dropped?"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-dead-letter-exchange": "@dlx"})
    fill(s, "a")
    s.settle()
    s.boss.take("@q")
    fill(s, "bc")
    s.settle()
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.drain("@dead", 1)
    s.drain("@q", 2)


@scenario
def limit_reject_publish_after_requeue(s):
    """reject-publish: requeue over the limit is allowed, then publish is rejected until it is drained"""
    s.queue("@q", {"x-max-length": 1, "x-overflow": "reject-publish"})
    s.boss.get(1, "confirm.select")
    fill(s, "a")
    s.boss.confirms(1)
    s.boss.take("@q")
    fill(s, "b")
    s.boss.confirms(2)
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.state("@q", 2)
    fill(s, "c")
    s.boss.confirms(3)
    s.drain("@q", 2)


@scenario
def limit_reject_publish_frees(s):
    """reject-publish: full, nack; one acked, ack again"""
    s.queue("@q", {"x-max-length": 1, "x-overflow": "reject-publish"})
    s.boss.get(1, "confirm.select")
    fill(s, "a")
    s.boss.confirms(1)
    fill(s, "b")
    s.boss.confirms(2)
    s.boss.take("@q", no_ack=True)
    fill(s, "c")
    s.boss.confirms(3)
    s.drain("@q", 1)


@scenario
def limit_0_with_waiting_consumer(s):
    """x-max-length 0 and a consumer that waits: delivered, not dropped"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 0, "x-dead-letter-exchange": "@dlx"})
    consumer = s.connect()
    consumer.consume("@q", no_ack=True)
    fill(s, "ab")
    consumer.messages(2)
    s.state("@dead", 0)


@scenario
def limit_0_with_busy_consumer(s):
    """x-max-length 0 and a consumer with prefetch 1: the second message is dropped"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 0, "x-dead-letter-exchange": "@dlx"})
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    fill(s, "ab")
    consumer.messages(1)
    s.drain("@dead", 1)


@scenario
def limit_reject_publish_0_with_waiting_consumer(s):
    """reject-publish, x-max-length 0 and a consumer that waits"""
    s.queue("@q", {"x-max-length": 0, "x-overflow": "reject-publish"})
    consumer = s.connect()
    consumer.consume("@q", no_ack=True)
    s.boss.get(1, "confirm.select")
    fill(s, "ab")
    s.boss.confirms(2)
    consumer.quiet(0.2)


@scenario
def limit_reject_publish_1_with_waiting_consumer(s):
    """reject-publish, x-max-length 1 and a consumer that waits: nothing rejected"""
    s.queue("@q", {"x-max-length": 1, "x-overflow": "reject-publish"})
    consumer = s.connect()
    consumer.consume("@q", no_ack=True)
    s.boss.get(1, "confirm.select")
    for at, word in enumerate("abc", 1):
        fill(s, word)
        s.boss.confirms(at)
    consumer.messages(3)


@scenario
def limit_fanout_one_rejects(s):
    """a fanout to two queues, one of them full with reject-publish: nack, the other one has it"""
    s.exchange("@x", "fanout")
    s.queue("@q", {"x-max-length": 0, "x-overflow": "reject-publish"})
    s.queue("@other")
    s.bind("@q", "@x")
    s.bind("@other", "@x")
    s.boss.get(1, "confirm.select")
    s.publish("@x", "k", mandatory=True)
    s.boss.confirms(1)
    s.drain("@q", 0)
    s.drain("@other", 1)


@scenario
def limit_drop_head_without_dlx_confirms(s):
    """drop-head without a DLX: all acked"""
    s.queue("@q", {"x-max-length": 1})
    s.boss.get(1, "confirm.select")
    fill(s, FOUR)
    s.boss.confirms(4)
    s.drain("@q", 1)


@scenario
def limit_tx_over_the_limit(s):
    """tx: four publishings over x-max-length 2, commit"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-dead-letter-exchange": "@dlx"})
    s.boss.get(1, "tx.select")
    fill(s, FOUR)
    s.boss.ask(1, "tx.commit")
    s.drain("@q", 2)
    s.drain("@dead", 2)


@scenario
def limit_tx_reject_publish(s):
    """tx: four publishings to a reject-publish queue of 2, commit"""
    s.queue("@q", {"x-max-length": 2, "x-overflow": "reject-publish"})
    s.boss.get(1, "tx.select")
    fill(s, FOUR)
    s.boss.ask(1, "tx.commit")
    s.wait(0.05)
    s.drain("@q")


@scenario
def limit_counts_ready_with_ttl(s):
    """x-max-length 2 and ttl: the dead tell their own reasons"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-message-ttl": 300, "x-dead-letter-exchange": "@dlx"})
    fill(s, "abc")
    s.drain("@dead", 3)


@scenario
def limit_with_priorities(s):
    """x-max-priority and x-max-length 2: the head is dropped, which has the highest priority"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-max-priority": 9, "x-dead-letter-exchange": "@dlx"})
    for priority in (5, 1, 9, 3, 7):
        s.publish("", "@q", str(priority), priority=priority)
    s.wait(0.1)
    s.drain("@dead", 3)
    s.drain("@q", 2)


@scenario
def limit_with_priorities_equal(s):
    """x-max-priority, x-max-length 2, four of the same priority"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-max-priority": 9, "x-dead-letter-exchange": "@dlx"})
    for word in "abcd":
        s.publish("", "@q", word, priority=4)
    s.drain("@dead", 2)
    s.drain("@q", 2)


@scenario
def limit_with_priorities_low_into_full(s):
    """a low one published into a queue full of high ones"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-max-length": 2, "x-max-priority": 9, "x-dead-letter-exchange": "@dlx"})
    for word, priority in (("h1", 9), ("h2", 9), ("low", 1)):
        s.publish("", "@q", word, priority=priority)
    s.drain("@dead", 1)
    s.drain("@q", 2)


@scenario
def limit_with_priorities_reject_publish(s):
    """reject-publish and priorities: a high one into a full queue"""
    s.queue("@q", {"x-max-length": 2, "x-max-priority": 9, "x-overflow": "reject-publish"})
    s.boss.get(1, "confirm.select")
    for word, priority in (("l1", 1), ("l2", 1), ("high", 9)):
        s.publish("", "@q", word, priority=priority)
    s.boss.confirms(3)
    s.drain("@q", 2)


@scenario
def limit_bytes_count_bodies_only(s):
    """x-max-length-bytes counts bodies, not headers and properties"""
    s.queue("@q", {"x-max-length-bytes": 4})
    for word in ("aa", "bb"):
        s.publish("", "@q", word, headers={"long": "x" * 100}, message_id="y" * 50)
    s.drain("@q", 2)


@scenario
def limit_declare_ok_counts(s):
    """queue.declare-ok, queue.purge-ok and get-ok counts with ready and unacked messages"""
    s.queue("@q", {"x-max-length": 3})
    fill(s, "abcde")
    s.settle()
    s.boss.take("@q")
    s.boss.ask(1, "queue.declare", queue="@q", passive=True)
    s.boss.ask(1, "queue.declare", queue="@q", arguments={"x-max-length": 3})
    s.boss.ask(1, "queue.purge", queue="@q")
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.boss.ask(1, "queue.delete", queue="@q")


@scenario
def limit_dead_letter_to_itself_reject_publish_dlx(s):
    """reject-publish-dlx with the queue itself as target: the rejected one is dropped"""
    s.queue("@q", {"x-max-length": 1, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": "",
                   "x-dead-letter-routing-key": "@q"})
    s.boss.get(1, "confirm.select")
    fill(s, "ab")
    s.boss.confirms(2)
    s.wait(0.1)
    s.drain("@q")


@scenario
def limit_dead_letters_into_full_reject_publish(s):
    """dead letters into a queue that is full with reject-publish: dropped"""
    s.queue("@full", {"x-max-length": 1, "x-overflow": "reject-publish"})
    s.queue("@q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@full", "x-message-ttl": 30})
    fill(s, "ab")
    s.wait(0.3)
    s.drain("@full")
    s.state("@q", 0)


@scenario
def limit_returned_and_rejected(s):
    """mandatory to nothing, then to a full queue: a return with ack, then a nack without return"""
    s.queue("@q", {"x-max-length": 0, "x-overflow": "reject-publish"})
    s.boss.get(1, "confirm.select")
    s.publish("", "@nothing", "one", mandatory=True)
    s.boss.confirms(1)
    s.publish("", "@q", "two", mandatory=True)
    s.boss.confirms(2)

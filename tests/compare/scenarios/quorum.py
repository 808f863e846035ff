"""Quorum queues: delivery count and limit, dead letters, limits, single active consumer."""

from stage import add, scenario


def got_and_requeued(s, times, settle="basic.nack"):
    for _ in range(times):
        s.state("@q", 1)
        tag = s.boss.take("@q")
        if not tag:
            return
        s.boss.say(1, settle, delivery_tag=tag, requeue=True)
        s.settle()


@scenario
def quorum_round_trip(s):
    """published, got, acked: no header of the broker on the first delivery"""
    s.quorum("@q")
    s.publish("", "@q", headers={"a": 1}, delivery_mode=1)
    s.state("@q", 1)
    s.boss.take("@q")
    s.boss.say(1, "basic.ack", delivery_tag=1)
    s.state("@q", 0, 0)


@scenario
def quorum_delivery_count_by_get(s):
    """got and nacked with requeue three times: x-delivery-count on each"""
    s.quorum("@q")
    s.publish("", "@q")
    got_and_requeued(s, 4)
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_by_reject(s):
    """the same with basic.reject, and headers of the client"""
    s.quorum("@q")
    s.publish("", "@q", headers={"z": 1, "a": 2})
    got_and_requeued(s, 3, "basic.reject")
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_to_consumer(s):
    """a consumer nacks with requeue three times, then acks"""
    s.quorum("@q")
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    s.publish("", "@q")
    for tag in (1, 2, 3):
        consumer.messages(1)
        consumer.say(1, "basic.nack", delivery_tag=tag, requeue=True)
    consumer.messages(1)
    consumer.say(1, "basic.ack", delivery_tag=4)
    consumer.fence()
    s.state("@q", 0)


@scenario
def quorum_delivery_count_after_channel_close(s):
    """the channel closes with it unacked: does that count?"""
    s.quorum("@q")
    s.publish("", "@q")
    s.state("@q", 1)
    for _ in range(2):
        other = s.connect()
        other.take("@q")
        other.ask(1, "channel.close", reply_code=200)
        s.state("@q", 1)
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_after_connection_close(s):
    """the connection closes with it unacked"""
    s.quorum("@q")
    s.publish("", "@q")
    s.state("@q", 1)
    for _ in range(2):
        other = s.connect()
        other.take("@q")
        other.hang_up()
        s.state("@q", 1)
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_after_recover(s):
    """basic.recover twice"""
    s.quorum("@q")
    s.publish("", "@q")
    s.state("@q", 1)
    for _ in range(2):
        s.boss.take("@q")
        s.boss.ask(1, "basic.recover", requeue=True)
        s.state("@q", 1)
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_after_cancel(s):
    """the consumer cancels with it unacked, then the channel closes"""
    s.quorum("@q")
    consumer = s.connect()
    consumer.consume("@q")
    s.publish("", "@q")
    consumer.messages(1)
    consumer.ask(1, "basic.cancel", consumer_tag="c")
    s.wait(0.1)
    s.state("@q")
    consumer.ask(1, "channel.close", reply_code=200)
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_of_client(s):
    """the client sends x-delivery-count itself"""
    s.quorum("@q")
    s.publish("", "@q", headers={"x-delivery-count": "mine"})
    got_and_requeued(s, 2)
    s.drain("@q", 1)


@scenario
def quorum_delivery_count_of_client_to_consumer(s):
    """the client sends x-delivery-count itself, a consumer gets it"""
    s.quorum("@q")
    consumer = s.connect()
    consumer.consume("@q")
    s.publish("", "@q", headers={"x-delivery-count": "mine", "a": 1})
    consumer.messages(1)
    consumer.say(1, "basic.nack", delivery_tag=1, requeue=True)
    consumer.messages(1)


def limit(s, limit, times):
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-delivery-limit": limit, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", headers={"mine": 1}, expiration="60000")
    got_and_requeued(s, times)
    s.drain("@dead", 1)
    s.state("@q", 0)


for _limit in (0, 1, 2, 3):
    add(f"quorum_delivery_limit_{_limit}", f"x-delivery-limit {_limit}, requeued until it dies",
        lambda s, value=_limit: limit(s, value, value + 1), "quorum")


@scenario
def quorum_delivery_limit_without_dlx(s):
    """x-delivery-limit 1 and no DLX: gone after the second requeue"""
    s.quorum("@q", {"x-delivery-limit": 1})
    s.publish("", "@q")
    got_and_requeued(s, 2)
    s.wait(0.1)
    s.state("@q")


@scenario
def quorum_delivery_limit_by_channel_close(s):
    """x-delivery-limit 1, the channel closes twice with it unacked"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-delivery-limit": 1, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.state("@q", 1)
    for ready in (1, 0):
        other = s.connect()
        other.take("@q")
        other.ask(1, "channel.close", reply_code=200)
        s.state("@q", ready)
    s.drain("@dead", 1)


@scenario
def quorum_delivery_limit_by_consumer(s):
    """x-delivery-limit 2, a consumer nacks until it is dead-lettered; another message goes on"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-delivery-limit": 2, "x-dead-letter-exchange": "@dlx"})
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    s.publish("", "@q", "poison")
    for tag in (1, 2, 3):
        consumer.messages(1)
        consumer.say(1, "basic.nack", delivery_tag=tag, requeue=True)
    s.drain("@dead", 1)
    s.publish("", "@q", "good")
    consumer.messages(1)


@scenario
def quorum_delivery_limit_dead_letter_to_quorum(s):
    """delivery_limit to a dead letter queue that is a quorum queue, requeued there too"""
    s.exchange("@dlx", "fanout", durable=True)
    s.quorum("@dead")
    s.bind("@dead", "@dlx")
    s.quorum("@q", {"x-delivery-limit": 1, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    got_and_requeued(s, 2)
    s.state("@dead", 1)
    tag = s.boss.take("@dead")
    s.boss.say(1, "basic.nack", delivery_tag=tag, requeue=True)
    s.drain("@dead", 1)


@scenario
def quorum_requeue_position(s):
    """three messages, the first got and requeued: where it stands, with and without a limit"""
    for name, arguments in (("@q", {}), ("@q2", {"x-delivery-limit": 5})):
        s.quorum(name, arguments)
        for word in "abc":
            s.publish("", name, word)
        s.state(name, 3)
        tag = s.boss.take(name)
        s.boss.say(1, "basic.nack", delivery_tag=tag, requeue=True)
        s.drain(name, 3)


@scenario
def quorum_requeue_multiple(s):
    """three got, all nacked with requeue: their order"""
    s.quorum("@q")
    for word in "abcd":
        s.publish("", "@q", word)
    s.state("@q", 4)
    for _ in range(3):
        s.boss.take("@q")
    s.boss.say(1, "basic.nack", delivery_tag=3, multiple=True, requeue=True)
    s.drain("@q", 4)


def quorum_death(s, arguments, act=False, **properties):
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx"} | arguments)
    s.publish("", "@q", "one", **properties)
    if act:
        s.state("@q", 1)
        tag = s.boss.take("@q")
        s.boss.say(1, "basic.reject", delivery_tag=tag)
    s.drain("@dead", 1)
    s.state("@q", 0)


@scenario
def quorum_rejected(s):
    """rejected, with headers, CC and an expiration"""
    quorum_death(s, {}, True, headers={"mine": 1, "CC": ["k"], "BCC": ["b"]}, expiration="60000")


@scenario
def quorum_rejected_with_key(s):
    """rejected, with CC and x-dead-letter-routing-key"""
    quorum_death(s, {"x-dead-letter-routing-key": "new"}, True, headers={"CC": ["k"]})


@scenario
def quorum_expired(s):
    """x-message-ttl (3.10: quorum queues know it)"""
    quorum_death(s, {"x-message-ttl": 50})


@scenario
def quorum_expired_alone(s):
    """expiration of the message"""
    quorum_death(s, {}, expiration="50")


@scenario
def quorum_expired_behind_another(s):
    """expiration 100 behind one of 600: dies when it comes to the head"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "slow", expiration="600")
    s.publish("", "@q", "fast", expiration="100")
    s.wait(0.35)
    s.state("@dead")
    s.drain("@dead", 2)


@scenario
def quorum_maxlen(s):
    """x-max-length 2, four messages: drop-head, dead-lettered"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx", "x-max-length": 2})
    for word in "abcd":
        s.publish("", "@q", word)
    s.drain("@dead", 2)
    s.drain("@q", 2)


@scenario
def quorum_maxlen_bytes(s):
    """x-max-length-bytes 10, messages of 4 bytes"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx", "x-max-length-bytes": 10})
    for word in ("aaaa", "bbbb", "cccc", "dddd"):
        s.publish("", "@q", word)
    s.drain("@dead", 2)
    s.drain("@q", 2)


@scenario
def quorum_maxlen_zero(s):
    """x-max-length 0: everything dies at once"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx", "x-max-length": 0})
    s.publish("", "@q", "a")
    s.drain("@dead", 1)
    s.drain("@q", 0)


@scenario
def quorum_reject_publish_far_over(s):
    """reject-publish with x-max-length 1: after a while publishings are nacked"""
    s.quorum("@q", {"x-max-length": 1, "x-overflow": "reject-publish"})
    s.boss.get(1, "confirm.select")
    for at in range(1, 4):
        s.publish("", "@q", str(at))
        s.boss.hear(2)
        s.wait(0.1)
    s.publish("", "@q", "last")
    heard = s.boss.hear(2)
    s.note(f"the fourth: {heard and heard[1]}")


@scenario
def quorum_redelivered_dead_letter(s):
    """requeued once, then rejected: does x-delivery-count stay on the dead letter?"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    got_and_requeued(s, 1)
    s.state("@q", 1)
    tag = s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=tag)
    s.drain("@dead", 1)


@scenario
def quorum_automatic_cycle_is_dropped(s):
    """quorum a --ttl--> quorum b --ttl--> a"""
    for name, other in (("@a", "@b"), ("@b", "@a")):
        s.quorum(name, {"x-message-ttl": 60, "x-dead-letter-exchange": "",
                        "x-dead-letter-routing-key": other})
    s.publish("", "@a")
    s.wait(0.5)
    s.state("@a")
    s.state("@b")


@scenario
def quorum_reject_cycle_goes_on(s):
    """rejected into itself twice: count goes up"""
    s.quorum("@q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@q"})
    s.publish("", "@q")
    for _ in range(2):
        s.state("@q", 1)
        tag = s.boss.take("@q")
        s.boss.say(1, "basic.reject", delivery_tag=tag)
        s.settle()
    s.drain("@q", 1)


@scenario
def quorum_single_active_consumer(s):
    """two consumers, one gets all; it cancels and the other goes on"""
    s.quorum("@q", {"x-single-active-consumer": True})
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two")
    for word in "ab":
        s.publish("", "@q", word)
    first.messages(2)
    second.quiet(0.15)
    first.say(1, "basic.ack", delivery_tag=2, multiple=True)
    first.ask(1, "basic.cancel", consumer_tag="one")
    s.publish("", "@q", "c")
    second.messages(1)


@scenario
def quorum_single_active_consumer_unacked(s):
    """the active one cancels with one unacked: when does the other get new ones?"""
    s.quorum("@q", {"x-single-active-consumer": True})
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two")
    s.publish("", "@q", "a")
    first.messages(1)
    first.ask(1, "basic.cancel", consumer_tag="one")
    s.publish("", "@q", "b")
    second.quiet(0.3)
    first.say(1, "basic.ack", delivery_tag=1)
    first.fence()
    second.quiet(0.3)


@scenario
def quorum_purge_and_delete_counts(s):
    """queue.purge-ok and queue.delete-ok counts with one unacked"""
    s.quorum("@q")
    for word in "abc":
        s.publish("", "@q", word)
    s.state("@q", 3)
    s.boss.take("@q")
    s.boss.ask(1, "queue.purge", queue="@q")
    s.publish("", "@q", "d")
    s.state("@q", 1)
    s.boss.ask(1, "queue.delete", queue="@q")


@scenario
def quorum_global_qos(s):
    """basic.qos global, then consuming from a quorum queue: refused"""
    s.quorum("@q")
    other = s.connect()
    other.ask(1, "basic.qos", prefetch_count=1, **{"global": True})
    other.ask(1, "basic.consume", queue="@q", consumer_tag="c")
    other.after()


@scenario
def quorum_exclusive_consumer(s):
    """a second consumer of a quorum queue with an exclusive one"""
    s.quorum("@q")
    first, second = s.connect("first "), s.connect("second ")
    first.ask(1, "basic.consume", queue="@q", consumer_tag="one", exclusive=True)
    second.ask(1, "basic.consume", queue="@q", consumer_tag="two")
    second.after()


@scenario
def quorum_priority_property(s):
    """messages with priorities: no order by them in 3.10"""
    s.quorum("@q")
    for priority in (1, 9, 5):
        s.publish("", "@q", str(priority), priority=priority)
    s.drain("@q", 3)


@scenario
def quorum_requeue_multiple_with_limit(s):
    """three got, all nacked with requeue, x-delivery-limit 5: their order"""
    s.quorum("@q", {"x-delivery-limit": 5})
    for word in "abcd":
        s.publish("", "@q", word)
    s.state("@q", 4)
    for _ in range(3):
        s.boss.take("@q")
    s.boss.say(1, "basic.nack", delivery_tag=3, multiple=True, requeue=True)
    s.drain("@q", 4)


@scenario
def quorum_requeue_order_to_consumer(s):
    """a consumer with prefetch 2 requeues the first of three: what comes next"""
    s.quorum("@q")
    consumer = s.connect()
    consumer.prefetch(2)
    consumer.consume("@q")
    for word in "abc":
        s.publish("", "@q", word)
    consumer.messages(2)
    consumer.say(1, "basic.nack", delivery_tag=1, requeue=True)
    consumer.messages(1)
    consumer.say(1, "basic.ack", delivery_tag=2)
    consumer.messages(1)


@scenario
def quorum_delivery_limit_multiple(s):
    """x-delivery-limit 0, three got and nacked with requeue at once: all die, in order"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-delivery-limit": 0, "x-dead-letter-exchange": "@dlx"})
    for word in "abc":
        s.publish("", "@q", word)
    s.state("@q", 3)
    for _ in range(3):
        s.boss.take("@q")
    s.boss.say(1, "basic.nack", delivery_tag=3, multiple=True, requeue=True)
    s.drain("@dead", 3)
    s.state("@q", 0)


@scenario
def quorum_reject_publish_dlx(s):
    """reject-publish-dlx is accepted for a quorum queue: what it does with x-max-length 1"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-max-length": 1, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": "@dlx"})
    for word in "abc":
        s.publish("", "@q", word)
    s.wait(0.2)
    s.drain("@q")
    s.drain("@dead")


@scenario
def quorum_purge_does_not_dead_letter(s):
    """queue.purge"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.state("@q", 1)
    s.boss.ask(1, "queue.purge", queue="@q")
    s.wait(0.1)
    s.state("@dead")


@scenario
def quorum_ttl_unacked_and_requeued(s):
    """held beyond its time, then requeued: dies"""
    s.dead_letter_queue("fanout")
    s.quorum("@q", {"x-message-ttl": 500, "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.state("@q", 1)
    tag = s.boss.take("@q")
    s.wait(0.7)
    s.state("@dead")
    s.boss.say(1, "basic.nack", delivery_tag=tag, requeue=True)
    s.drain("@dead", 1)


@scenario
def quorum_dead_letter_without_dlx(s):
    """rejected without a DLX: gone"""
    s.quorum("@q")
    s.publish("", "@q")
    s.state("@q", 1)
    s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=1)
    s.state("@q", 0, 0)


@scenario
def quorum_at_least_once_rejected(s):
    """x-dead-letter-strategy at-least-once: the dead letter looks the same"""
    s.exchange("@dlx", "fanout", durable=True)
    s.queue("@dead", durable=True)
    s.bind("@dead", "@dlx")
    s.quorum("@q", {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
                    "x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", headers={"mine": 1})
    s.state("@q", 1)
    s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=1)
    s.drain("@dead", 1)


@scenario
def quorum_consumer_priority(s):
    """x-priority of consumers, prefetch 1 each"""
    s.quorum("@q")
    low, high = s.connect("low "), s.connect("high ")
    for talk, priority in ((low, 1), (high, 9)):
        talk.prefetch(1)
        talk.consume("@q", arguments={"x-priority": priority})
    s.publish("", "@q", "a")
    high.messages(1)
    s.publish("", "@q", "b")
    low.messages(1)


@scenario
def quorum_single_active_consumer_connection_closes(s):
    """the active one's connection ends with two unacked: the other gets them, counted"""
    s.quorum("@q", {"x-single-active-consumer": True})
    first, second = s.connect("first "), s.connect("second ")
    first.consume("@q", "one")
    second.consume("@q", "two")
    for word in "ab":
        s.publish("", "@q", word)
    first.messages(2)
    first.hang_up()
    second.messages(2)


@scenario
def quorum_tx(s):
    """tx: publish to and ack from a quorum queue, commit, then rollback"""
    s.quorum("@q")
    s.boss.get(1, "tx.select")
    s.publish("", "@q", "a")
    s.boss.ask(1, "tx.commit")
    s.state("@q", 1)
    s.publish("", "@q", "b")
    s.boss.ask(1, "tx.rollback")
    s.drain("@q", 1)


@scenario
def quorum_mandatory_and_headers_exchange(s):
    """bound to a headers exchange like any queue"""
    s.exchange("@x", "headers")
    s.quorum("@q")
    s.bind("@q", "@x", arguments={"x-match": "all", "a": 1})
    s.boss.get(1, "confirm.select")
    s.publish("@x", "k", "one", mandatory=True, headers={"a": 1})
    s.publish("@x", "k", "two", mandatory=True, headers={"a": 2})
    s.boss.confirms(2)
    s.drain("@q", 1)

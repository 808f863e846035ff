"""Dead letters: why a message dies, where it goes, and what it looks like there."""

from amqp_raw import As
from stage import add, scenario

ALL_PROPERTIES = {
    "content_type": "text/plain", "content_encoding": "utf-8", "headers": {"kept": "yes", "n": 5},
    "delivery_mode": 2, "priority": 4, "correlation_id": "corr", "reply_to": "answers",
    "message_id": "id-1", "timestamp": 1234567890, "type": "kind", "user_id": "guest",
    "app_id": "app", "cluster_id": "cluster"}


def reject_first(talk):
    talk.say(1, "basic.reject", delivery_tag=1)


def nack_first(talk):
    talk.say(1, "basic.nack", delivery_tag=1)


# How a message dies: the queue's arguments, the message's properties, and what is done to it.
DEATHS = {
    "rejected": ({}, {}, reject_first),
    "nacked": ({}, {}, nack_first),
    "expired": ({"x-message-ttl": 50}, {}, None),
    "expired_alone": ({}, {"expiration": "50"}, None),
    "maxlen": ({"x-max-length": 0}, {}, None),
}


def die(s, death, arguments=None, body="m", exchange="", key="@q", **properties):
    """One message published to @q dies there; where @q's dead letters go is up to `arguments`."""
    extra, expiring, act = DEATHS[death]
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"} | extra | (arguments or {}))
    if exchange:
        s.bind("@q", exchange, key)
    s.publish(exchange, key, body, **(expiring | properties))
    if act:
        s.settle()
        s.boss.take("@q", 1)
        act(s.boss)


def plain(s, death):
    s.dead_letter_queue(key="@q")
    die(s, death)
    s.drain("@dead", 1)
    s.state("@q", 0)


def everything(s, death):
    s.dead_letter_queue(key="@q")
    die(s, death, **ALL_PROPERTIES)
    s.drain("@dead", 1)


def with_key(s, death):
    s.dead_letter_queue(key="other")
    die(s, death, {"x-dead-letter-routing-key": "other"})
    s.drain("@dead", 1)


def with_expiration(s, death):
    s.dead_letter_queue(key="@q")
    die(s, death, expiration="60000" if "expired" not in death else "40")
    s.drain("@dead", 1)


def through_exchange(s, death):
    s.exchange("@in", "topic")
    s.dead_letter_queue("topic", "a.#")
    die(s, death, exchange="@in", key="a.b.c")
    s.drain("@dead", 1)


def to_default(s, death):
    s.queue("@dead")
    die(s, death, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@dead"})
    s.drain("@dead", 1)


def copies(s, death):
    s.exchange("@in")
    s.dead_letter_queue("fanout")
    die(s, death, exchange="@in", key="k", headers={"CC": ["copy", "k"], "BCC": ["blind"], "other": 1})
    s.drain("@dead", 1)


def copies_with_key(s, death):
    s.exchange("@in")
    s.dead_letter_queue("fanout")
    die(s, death, {"x-dead-letter-routing-key": "new"}, exchange="@in", key="k",
        headers={"CC": ["copy", "k"], "BCC": ["blind"], "other": 1})
    s.drain("@dead", 1)


for _name, _play, _told in (
        ("plain", plain, "DLX direct, no routing key of its own, no properties"),
        ("all_properties", everything, "all properties set"),
        ("with_key", with_key, "x-dead-letter-routing-key"),
        ("with_expiration", with_expiration, "the message has an expiration"),
        ("through_exchange", through_exchange, "published to a topic exchange, DLX topic"),
        ("to_default_exchange", to_default, "DLX is the default exchange"),
        ("copies", copies, "the message has CC and BCC"),
        ("copies_with_key", copies_with_key, "CC, BCC and x-dead-letter-routing-key")):
    for _death in DEATHS:
        add(f"dead_{_death}_{_name}", f"a message is {_death}: {_told}",
            lambda s, play=_play, death=_death: play(s, death), "dead_letters")


def routed(s, kind, key, message_key="@q", arguments=None, binding=None, **properties):
    s.exchange("@dlx", kind)
    s.queue("@dead")
    s.bind("@dead", "@dlx", key, binding)
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"} | (arguments or {}))
    s.publish("", "@q", "m", **properties)
    s.settle()
    s.boss.take("@q")
    reject_first(s.boss)
    s.wait(0.1)
    s.drain("@dead")


@scenario
def dlx_fanout(s):
    """rejected, DLX fanout"""
    routed(s, "fanout", "whatever")


@scenario
def dlx_headers_exchange(s):
    """rejected, DLX headers that matches a header of the client"""
    routed(s, "headers", "", binding={"x-match": "all", "colour": "red"}, headers={"colour": "red"})


@scenario
def dlx_headers_exchange_matches_first_death(s):
    """rejected, DLX headers bound with x-first-death-reason=rejected: it sees the new headers"""
    routed(s, "headers", "", binding={"x-match": "all-with-x", "x-first-death-reason": "rejected"})


@scenario
def dlx_headers_exchange_matches_first_death_without_x(s):
    """bound with x-match=all and x-first-death-reason=expired only: x- arguments do not count"""
    routed(s, "headers", "", binding={"x-match": "all", "x-first-death-reason": "expired"})


@scenario
def dlx_without_route(s):
    """rejected, DLX exists but nothing is bound: the message is gone"""
    routed(s, "direct", "another")


@scenario
def dlx_missing(s):
    """rejected, DLX does not exist: the message is gone, the queue goes on"""
    s.queue("@q", {"x-dead-letter-exchange": "@missing"})
    s.publish("", "@q", "one")
    s.publish("", "@q", "two")
    s.settle()
    s.boss.take("@q")
    reject_first(s.boss)
    s.drain("@q", 1)


@scenario
def dlx_declared_later(s):
    """the DLX is declared after the queue and before the death"""
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.dead_letter_queue(key="@q")
    s.boss.take("@q")
    reject_first(s.boss)
    s.drain("@dead", 1)


@scenario
def dlx_deleted_and_declared_again(s):
    """the DLX is deleted between two deaths and declared again before a third"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    for word in ("one", "two", "three"):
        s.publish("", "@q", word)
    s.settle()
    for tag in (1, 2, 3):
        s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=1)
    s.state("@dead", 1)
    s.boss.get(1, "exchange.delete", exchange="@dlx")
    s.boss.say(1, "basic.reject", delivery_tag=2)
    s.wait(0.1)
    s.exchange("@dlx", "fanout")
    s.bind("@dead", "@dlx")
    s.boss.say(1, "basic.reject", delivery_tag=3)
    s.drain("@dead", 2)


@scenario
def dlx_has_alternate(s):
    """the DLX routes nowhere and has an alternate exchange"""
    s.exchange("@spare", "fanout")
    s.queue("@spared")
    s.bind("@spared", "@spare")
    s.exchange("@dlx", "direct", {"alternate-exchange": "@spare"})
    die(s, "rejected")
    s.drain("@spared", 1)


@scenario
def dlx_internal(s):
    """the DLX is an internal exchange"""
    s.exchange("@dlx", "fanout", internal=True)
    s.queue("@dead")
    s.bind("@dead", "@dlx")
    die(s, "rejected")
    s.drain("@dead", 1)


@scenario
def dlx_bound_to_exchange(s):
    """the DLX is bound to another exchange, whose queue gets it"""
    s.exchange("@dlx", "fanout")
    s.exchange("@next", "topic")
    s.bind_exchange("@next", "@dlx")
    s.queue("@dead")
    s.bind("@dead", "@next", "#")
    die(s, "rejected")
    s.drain("@dead", 1)


@scenario
def dlx_to_three_queues(s):
    """the DLX is a fanout with three queues: all get the same"""
    s.dead_letter_queue("fanout")
    for name in ("@dead2", "@dead3"):
        s.queue(name)
        s.bind(name, "@dlx")
    die(s, "rejected", headers={"a": 1})
    for name in ("@dead", "@dead2", "@dead3"):
        s.drain(name, 1)


@scenario
def dead_mandatory_is_not_returned(s):
    """a mandatory message dies and its DLX has no route: no return, only the ack"""
    s.exchange("@dlx")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx", "x-message-ttl": 30})
    s.boss.get(1, "confirm.select")
    s.publish("", "@q", mandatory=True)
    s.boss.confirms(1)
    s.boss.quiet(0.3)
    s.state("@q", 0)


@scenario
def reject_many_with_nack_multiple(s):
    """five got, nack multiple up to the fourth: order of the dead letters"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    for word in "abcde":
        s.publish("", "@q", word)
    s.settle()
    for _ in range(5):
        s.boss.take("@q")
    s.boss.say(1, "basic.nack", delivery_tag=4, multiple=True)
    s.drain("@dead", 4)


@scenario
def reject_in_reverse_order(s):
    """three got, rejected 3, 2, 1: the dead letters come in the order of the rejects"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    for word in "abc":
        s.publish("", "@q", word)
    s.settle()
    for _ in range(3):
        s.boss.take("@q")
    for tag in (3, 2, 1):
        s.boss.say(1, "basic.reject", delivery_tag=tag)
    s.drain("@dead", 3)


@scenario
def nack_all_with_tag_zero(s):
    """three got, nack tag 0 multiple"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    for word in "abc":
        s.publish("", "@q", word)
    s.settle()
    for _ in range(3):
        s.boss.take("@q")
    s.boss.say(1, "basic.nack", delivery_tag=0, multiple=True)
    s.drain("@dead", 3)


@scenario
def nack_multiple_over_two_queues(s):
    """got from two queues in turn, nacked at once"""
    s.dead_letter_queue("fanout")
    for name in ("@q", "@q2"):
        s.queue(name, {"x-dead-letter-exchange": "@dlx", "x-dead-letter-routing-key": name})
        s.publish("", name, f"of {name[1:]}")
    s.settle()
    s.boss.take("@q")
    s.boss.take("@q2")
    s.boss.say(1, "basic.nack", delivery_tag=2, multiple=True)
    s.state("@dead", 2)
    s.state("@q", 0)
    s.state("@q2", 0)


@scenario
def reject_with_requeue_is_no_death(s):
    """reject requeue=true: the message is back, redelivered, without headers"""
    s.dead_letter_queue("fanout")
    die(s, "rejected", {"x-message-ttl": 60000})
    s.state("@dead", 1)
    s.publish("", "@q", "again")
    s.settle()
    s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=2, requeue=True)
    s.drain("@q", 1)


@scenario
def reject_redelivered(s):
    """requeued once, then rejected: redelivered at the dead letter queue?"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=1, requeue=True)
    s.settle()
    s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=2)
    s.drain("@dead", 1)


@scenario
def reject_from_consumer(s):
    """rejected by a consumer, one of two nacked"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    consumer = s.connect()
    consumer.consume("@q")
    s.publish("", "@q", "one")
    s.publish("", "@q", "two")
    consumer.messages(2)
    consumer.say(1, "basic.ack", delivery_tag=1)
    consumer.say(1, "basic.nack", delivery_tag=2)
    s.drain("@dead", 1)


@scenario
def reject_without_dlx(s):
    """rejected in a queue without DLX: gone"""
    s.queue("@q")
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q")
    reject_first(s.boss)
    s.boss.settled()
    s.state("@q", 0)


@scenario
def no_ack_get_does_not_die(s):
    """got with no-ack: no dead letter"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    s.boss.take("@q", no_ack=True)
    s.wait(0.1)
    s.state("@dead")


@scenario
def purge_does_not_dead_letter(s):
    """queue.purge"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    s.boss.ask(1, "queue.purge", queue="@q")
    s.wait(0.1)
    s.state("@dead")


@scenario
def delete_does_not_dead_letter(s):
    """queue.delete with ready and unacked messages, then reject"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "one")
    s.publish("", "@q", "two")
    s.settle()
    s.boss.take("@q")
    s.boss.ask(1, "queue.delete", queue="@q")
    reject_first(s.boss)
    s.boss.settled()
    s.wait(0.1)
    s.state("@dead")


@scenario
def auto_delete_does_not_dead_letter(s):
    """an auto-delete queue goes with its last consumer, one message unacked, one ready"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"}, auto_delete=True)
    consumer = s.connect()
    consumer.prefetch(1)
    consumer.consume("@q")
    s.publish("", "@q", "one")
    s.publish("", "@q", "two")
    consumer.messages(1)
    consumer.ask(1, "basic.cancel", consumer_tag="c")
    s.gone("@q")
    s.wait(0.1)
    s.state("@dead")


@scenario
def expired_queue_does_not_dead_letter(s):
    """x-expires ends the queue: its messages are not dead-lettered"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx", "x-expires": 150})
    s.publish("", "@q", "one")
    s.wait(0.4)
    s.state("@q")
    s.state("@dead")


@scenario
def exclusive_queue_ending_does_not_dead_letter(s):
    """the connection of an exclusive queue ends"""
    s.dead_letter_queue("fanout")
    other = s.connect()
    other.get(1, "queue.declare", queue="@own", exclusive=True,
              arguments={"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@own")
    s.settle()
    other.hang_up()
    s.gone("@own")
    s.wait(0.1)
    s.state("@dead")


@scenario
def tx_reject_committed(s):
    """tx: reject, nothing dies before the commit"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    other = s.connect()
    other.get(1, "tx.select")
    other.take("@q")
    other.say(1, "basic.reject", delivery_tag=1)
    other.fence()
    s.wait(0.1)
    s.state("@dead")
    other.ask(1, "tx.commit")
    s.drain("@dead", 1)


@scenario
def tx_reject_rolled_back(s):
    """tx: reject, rollback, then ack and commit"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    other = s.connect()
    other.get(1, "tx.select")
    other.take("@q")
    other.say(1, "basic.reject", delivery_tag=1)
    other.ask(1, "tx.rollback")
    other.say(1, "basic.ack", delivery_tag=1)
    other.ask(1, "tx.commit")
    s.wait(0.1)
    s.state("@dead")
    s.state("@q", 0)


@scenario
def tx_reject_and_publish_in_one(s):
    """tx: nack of two and publish to the same queue, commit"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q", "one")
    s.publish("", "@q", "two")
    s.settle()
    other = s.connect()
    other.get(1, "tx.select")
    other.take("@q")
    other.take("@q")
    other.say(1, "basic.nack", delivery_tag=2, multiple=True)
    other.publish(1, "", "@q", b"new")
    other.ask(1, "tx.commit")
    s.drain("@dead", 2)
    s.drain("@q", 1)


@scenario
def tx_reject_then_channel_closed(s):
    """tx: reject, the channel closes without commit: requeued"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    other = s.connect()
    other.get(1, "tx.select")
    other.take("@q")
    other.say(1, "basic.reject", delivery_tag=1)
    other.ask(1, "channel.close", reply_code=200)
    s.drain("@q", 1)
    s.state("@dead")


@scenario
def recover_after_dead_letter_queue(s):
    """got from the dead letter queue, recovered: redelivered, the same headers"""
    s.dead_letter_queue("fanout")
    die(s, "rejected")
    s.state("@dead", 1)
    s.boss.take("@dead")
    s.boss.ask(1, "basic.recover", requeue=True)
    s.drain("@dead", 1)


@scenario
def channel_close_requeues_and_does_not_dead_letter(s):
    """the channel closes with an unacked message in a queue with DLX"""
    s.dead_letter_queue("fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.publish("", "@q")
    s.settle()
    other = s.connect()
    other.take("@q")
    other.ask(1, "channel.close", reply_code=200)
    s.drain("@q", 1)
    s.state("@dead")


@scenario
def dead_letter_empty_body(s):
    """an empty body"""
    s.dead_letter_queue("fanout")
    die(s, "rejected", body="")
    s.drain("@dead", 1)


@scenario
def dead_letter_large_body(s):
    """a body of several frames"""
    s.dead_letter_queue("fanout")
    die(s, "rejected", body="0123456789" * 30000)
    s.drain("@dead", 1)


@scenario
def dead_letter_header_order(s):
    """the client's headers of many types, in an order that is not the alphabet's"""
    s.dead_letter_queue("fanout")
    die(s, "rejected", headers={"z": 1, "a": As("l", 2), "m": {"b": 1, "a": [1, "x"]}, "B": True,
                                "x-own": 1.5, "n": None})
    s.drain("@dead", 1)


@scenario
def dead_letter_empty_headers(s):
    """an empty headers table"""
    s.dead_letter_queue("fanout")
    die(s, "rejected", headers={})
    s.drain("@dead", 1)


@scenario
def dead_letter_durable_queue_persistent(s):
    """durable queues, delivery mode 2"""
    s.exchange("@dlx", "fanout", durable=True)
    s.queue("@dead", durable=True)
    s.bind("@dead", "@dlx")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"}, durable=True)
    s.publish("", "@q", delivery_mode=2)
    s.settle()
    s.boss.take("@q")
    reject_first(s.boss)
    s.drain("@dead", 1)


@scenario
def dead_letter_waiting_consumer(s):
    """a consumer waits at the dead letter queue"""
    s.dead_letter_queue("fanout")
    consumer = s.connect()
    consumer.consume("@dead")
    die(s, "expired")
    consumer.messages(1)


@scenario
def dead_letter_arguments_not_equivalent(s):
    """declared again without x-dead-letter-exchange, with another, with a routing key besides"""
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.boss.ask(2, "queue.declare", queue="@q")
    s.boss.after(2, 1)
    s.boss.ask(2, "queue.declare", queue="@q", arguments={"x-dead-letter-exchange": "@other"})
    s.boss.after(2, 1)
    s.boss.ask(2, "queue.declare", queue="@q", arguments={
        "x-dead-letter-exchange": "@dlx", "x-dead-letter-routing-key": "k"})
    s.boss.after(2, 1)

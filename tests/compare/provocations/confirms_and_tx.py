"""confirm.* and tx.*"""

from bench import provocation


def steps(b, *methods):
    talk = b.connect()
    for name in methods:
        talk.ask(1, name)
        if talk.closing or talk.closed_channels:
            break
    talk.after()


@provocation
def confirm_select_twice(b):
    """confirm.select, confirm.select"""
    steps(b, "confirm.select", "confirm.select")


@provocation
def tx_select_twice(b):
    """tx.select, tx.select"""
    steps(b, "tx.select", "tx.select")


@provocation
def confirm_on_tx_channel(b):
    """tx.select, confirm.select"""
    steps(b, "tx.select", "confirm.select")


@provocation
def tx_on_confirm_channel(b):
    """confirm.select, tx.select"""
    steps(b, "confirm.select", "tx.select")


@provocation
def commit_without_select(b):
    """tx.commit without tx.select"""
    steps(b, "tx.commit")


@provocation
def rollback_without_select(b):
    """tx.rollback without tx.select"""
    steps(b, "tx.rollback")


@provocation
def commit_on_confirm_channel(b):
    """confirm.select, tx.commit"""
    steps(b, "confirm.select", "tx.commit")


@provocation
def commit_empty(b):
    """tx.select, tx.commit, tx.rollback, tx.commit"""
    steps(b, "tx.select", "tx.commit", "tx.rollback", "tx.commit")


def tx(b, messages=0):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for word in ("one", "two", "three")[:messages]:
        talk.publish(2, "", "cmp.q", word.encode())
    talk.fence(2)
    talk.get(1, "tx.select")
    return talk


@provocation
def tx_publish_commit(b):
    """tx: publish; the queue; commit; the queue"""
    talk = tx(b)
    talk.publish(1, "", "cmp.q", b"m")
    talk.fence()
    b.queue_state("cmp.q")
    talk.ask(1, "tx.commit")
    b.queue_state("cmp.q")


@provocation
def tx_publish_rollback(b):
    """tx: publish, rollback, commit; the queue"""
    talk = tx(b)
    talk.publish(1, "", "cmp.q", b"m")
    talk.ask(1, "tx.rollback")
    talk.ask(1, "tx.commit")
    b.queue_state("cmp.q")


@provocation
def tx_channel_close_forgets(b):
    """tx: publish, ack of a message; channel.close without commit; the queue"""
    talk = tx(b, 1)
    talk.get(1, "basic.get", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"new")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.ask(1, "channel.close", reply_code=200)
    b.drain("cmp.q")


@provocation
def tx_ack_rollback(b):
    """tx: 2 got, ack 1, rollback, ack 1, commit: what the queue holds after the channel closes"""
    talk = tx(b, 2)
    talk.get(1, "basic.get", queue="cmp.q")
    talk.get(1, "basic.get", queue="cmp.q")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.ask(1, "tx.rollback")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.ask(1, "tx.commit")
    talk.ask(1, "channel.close", reply_code=200)
    b.drain("cmp.q")


@provocation
def tx_ack_rollback_redelivers_nothing(b):
    """tx: a consumer with 2 unacked, acks both, rollback: is anything delivered again?"""
    talk = tx(b, 2)
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(linger=0.2)
    talk.say(1, "basic.ack", delivery_tag=0, multiple=True)
    talk.ask(1, "tx.rollback")
    talk.quiet(0.3)
    talk.ask(1, "channel.close", reply_code=200)
    b.queue_state("cmp.q")


@provocation
def tx_nack_commit(b):
    """tx: 2 got, nack both with requeue; the queue; commit; the queue"""
    talk = tx(b, 2)
    talk.get(1, "basic.get", queue="cmp.q")
    talk.get(1, "basic.get", queue="cmp.q")
    talk.say(1, "basic.nack", delivery_tag=2, multiple=True, requeue=True)
    talk.fence()
    b.queue_state("cmp.q")
    talk.ask(1, "tx.commit")
    b.queue_state("cmp.q")


@provocation
def tx_ack_unknown_tag(b):
    """tx: ack 99: at once or at commit?"""
    talk = tx(b)
    talk.say(1, "basic.ack", delivery_tag=99)
    talk.settled()
    if not talk.closed_channels:
        talk.ask(1, "tx.commit")
    talk.after()


@provocation
def tx_ack_twice(b):
    """tx: 1 got, ack 1, ack 1"""
    talk = tx(b, 1)
    talk.get(1, "basic.get", queue="cmp.q")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.settled()
    talk.after()
    b.queue_state("cmp.q")


@provocation
def tx_publish_missing_exchange(b):
    """tx: publish to cmp.q, publish to a missing exchange: at once or at commit? the queue"""
    talk = tx(b)
    talk.publish(1, "", "cmp.q", b"m")
    talk.publish(1, "cmp.x", "k", b"m")
    talk.settled()
    if not talk.closed_channels:
        talk.ask(1, "tx.commit")
    talk.after()
    b.queue_state("cmp.q")


@provocation
def tx_mandatory_unroutable(b):
    """tx: mandatory unroutable publish; silence; commit: the order of return and commit-ok"""
    talk = tx(b)
    talk.publish(1, "", "cmp.nowhere", b"lost", mandatory=True)
    talk.settled()
    talk.say(1, "tx.commit")
    talk.see(linger=0.2)


@provocation
def tx_queue_declare_is_not_part(b):
    """tx: queue.declare cmp.q2, rollback: it stays"""
    talk = tx(b)
    talk.get(1, "queue.declare", queue="cmp.q2")
    talk.ask(1, "tx.rollback")
    b.queue_state("cmp.q2")


@provocation
def tx_get_is_not_part(b):
    """tx: get with no_ack, rollback: the message is gone"""
    talk = tx(b, 1)
    talk.ask(1, "basic.get", queue="cmp.q", no_ack=True)
    talk.ask(1, "tx.rollback")
    b.queue_state("cmp.q")


@provocation
def confirm_numbers_start_at_1(b):
    """2 publishes, confirm.select, 1 publish: the ack's tag"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for _ in range(2):
        talk.publish(1, "", "cmp.q", b"before")
    talk.get(1, "confirm.select")
    talk.publish(1, "", "cmp.q", b"after")
    talk.see(until="basic.ack")


@provocation
def confirm_every_publish_once(b):
    """confirm mode: 50 persistent publishes to a durable queue; acks cover 1 to 50, none twice"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", durable=True)
    talk.get(1, "confirm.select")
    for _ in range(50):
        talk.publish(1, "", "cmp.q", b"m", {"delivery_mode": 2})
    covered, low = [], 1
    while len(covered) < 50 and (heard := talk.hear(3)):
        tag = heard[2]["delivery_tag"]
        if heard[2]["multiple"]:
            covered += [n for n in range(low, tag + 1) if n not in covered]
            low = tag + 1
        else:
            covered.append(tag)
    b.note("each once" if sorted(covered) == list(range(1, 51)) else f"acked {sorted(covered)}")


@provocation
def confirm_queue_deleted(b):
    """confirm mode: publish, delete of the queue in the same write: acked or nacked?"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "confirm.select")
    talk.publish(1, "", "cmp.q", b"m")
    talk.say(1, "queue.delete", queue="cmp.q")
    names = sorted(heard[1] for _ in range(2) if (heard := talk.hear(1)))
    b.note("in any order: " + ", ".join(names))


@provocation
def client_sends_ack_as_confirm(b):
    """confirm mode: the client acks a tag that was only published"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "confirm.select")
    talk.publish(1, "", "cmp.q", b"m")
    talk.see(until="basic.ack")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.settled()
    talk.after()

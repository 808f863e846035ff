"""What queues do with messages that fail, wait or find no room, as pika sees it: dead letters, ladders of TTLs,
delivery limits, priorities, single active consumers, refused publishings, consistent hashing."""
import datetime
import random
import time
from collections import Counter

import pika
from pika.exceptions import NackError

from talk import NAME, closed_with, connect, count, expect, holds, ok, run, take

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def channel(conn):
    ch = conn.channel()
    ch.confirm_delivery()
    return ch


def death(queue, reason, exchange, keys, count=1):
    """An entry of x-death, its time aside."""
    return {"count": count, "reason": reason, "queue": queue, "exchange": exchange, "routing-keys": keys}


def deaths(properties, since):
    """The entries of x-death without their times, which must lie between `since` and now, in whole seconds."""
    entries = [dict(entry) for entry in properties.headers["x-death"]]
    for entry in entries:
        when = entry.pop("time")
        if not since.replace(microsecond=0) <= when <= now():
            raise AssertionError(f"time of death {when}, not between {since} and {now()}")
    return entries


def dead_letters():
    """Each reason: what x-death says, and under which key the message goes on."""
    conn = connect()
    ch = channel(conn)
    work, dead, exchange = NAME + ".work", NAME + ".dead", NAME + ".letters"
    ch.exchange_declare(exchange, "topic", durable=True)
    ch.queue_declare(dead, durable=True)
    ch.queue_bind(dead, exchange, "#")
    ch.queue_declare(work, durable=True, arguments={"x-dead-letter-exchange": exchange, "x-max-length": 2})
    since = now()

    ch.basic_publish("", work, b"rejected", pika.BasicProperties(
        delivery_mode=2, headers={"mine": 1, "CC": [dead + ".no"]}, message_id="id", priority=3))
    m, _, _ = take(ch, work, auto_ack=False)
    ch.basic_nack(m.delivery_tag, requeue=False)
    m, p, b = take(ch, dead)
    expect((m.exchange, m.routing_key, m.redelivered, b), (exchange, work, False, b"rejected"), "dead letter")
    expect((p.message_id, p.delivery_mode, p.priority, p.headers["mine"]), ("id", 2, 3, 1), "properties")
    expect(deaths(p, since), [death(work, "rejected", "", [work, dead + ".no"])], "x-death")
    first = {k: v for k, v in p.headers.items() if k.startswith("x-first-death-")}
    expect(first, {"x-first-death-exchange": "", "x-first-death-queue": work, "x-first-death-reason": "rejected"}, "first")
    ok("rejected")

    ch.basic_publish("", work, b"expired", pika.BasicProperties(expiration="20"))
    _, p, b = take(ch, dead)
    expect((b, p.expiration), (b"expired", None), "dead letter")
    expect(deaths(p, since), [dict(death(work, "expired", "", [work]), **{"original-expiration": "20"})], "x-death")
    ok("expired")

    for body in b"one", b"two", b"three":
        ch.basic_publish("", work, body)
    _, p, b = take(ch, dead)
    expect(b, b"one", "the oldest gives way")
    expect(deaths(p, since), [death(work, "maxlen", "", [work])], "x-death")
    ch.queue_purge(work)
    expect(count(ch, dead), 0, "a purge makes no dead letters")
    ok("no room")

    for queue in work, dead:
        ch.queue_delete(queue)
    ch.exchange_delete(exchange)
    conn.close()


def retries():
    """Rejected, it waits in a queue with a TTL and comes back, until there were enough: the usual way to retry."""
    conn = connect()
    ch = channel(conn)
    work, wait = NAME + ".retried", NAME + ".waits"
    ch.queue_declare(work, durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
    ch.queue_declare(wait, durable=True, arguments={
        "x-message-ttl": 100, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work})
    since = now()
    ch.basic_publish("", work, b"again", PERSISTENT)
    for n in range(5):
        m, p, _ = take(ch, work, auto_ack=False)
        if n > 0:
            wanted = [death(wait, "expired", "", [wait], n), death(work, "rejected", "", [work], n)]
            expect(deaths(p, since), wanted, f"x-death after {n} retries")
        rejected = time.monotonic()
        ch.basic_reject(m.delivery_tag, requeue=False)
        holds(ch, work, 1)
        if time.monotonic() - rejected < 0.1:
            raise AssertionError("it came back before its time")
    for queue in work, wait:
        ch.queue_delete(queue)
    conn.close()
    ok("five retries by dead letters")


def ladder():
    """Three queues with TTLs, one after the other: never early, and a short one is not held up by a long one."""
    conn = connect()
    ch = channel(conn)
    rungs = [200, 400, 800]
    names = [f"{NAME}.rung{ms}" for ms in rungs]
    end = NAME + ".ground"
    ch.queue_declare(end, durable=True)
    for name, after, ms in zip(names, names[1:] + [end], rungs):
        ch.queue_declare(name, durable=True, arguments={
            "x-message-ttl": ms, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": after})
    since = now()
    begun = time.monotonic()
    for name in names:  # these wait 1400, 1200 and 800 ms in all
        ch.basic_publish("", name, name.encode(), PERSISTENT)
    for n, name in reversed(list(enumerate(names))):
        _, p, b = take(ch, end)
        waited = time.monotonic() - begun
        expect(b, name.encode(), "order")
        if waited < sum(rungs[n:]) / 1000:
            raise AssertionError(f"{name}: there after {waited:.3f} s")
        wanted = {q: "expired" for q in names[n:]}
        expect({d["queue"]: d["reason"] for d in deaths(p, since)}, wanted, "x-death")
        expect(p.headers["x-first-death-queue"], name, "first death")
    for queue in names + [end]:
        ch.queue_delete(queue)
    conn.close()
    ok("ladder of TTLs")


def delivery_limit():
    conn = connect()
    ch = channel(conn)
    work, dead = NAME + ".limited", NAME + ".failed"
    arguments = {
        "x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    text = closed_with(406, lambda: conn.channel().queue_declare(work, arguments=arguments))
    expect(text, f"PRECONDITION_FAILED - invalid property 'non-durable' for queue '{work}' in vhost '/'", "text")
    ch.queue_declare(work, durable=True, arguments=arguments)
    ch.queue_declare(dead, durable=True, arguments={"x-queue-type": "quorum"})
    since = now()
    ch.basic_publish("", work, b"bad", PERSISTENT)
    seen = []

    def fail(c, m, p, _body):
        seen.append(((p.headers or {}).get("x-delivery-count"), m.redelivered))
        c.basic_nack(m.delivery_tag, requeue=True)

    ch.basic_qos(prefetch_count=1)
    tag = ch.basic_consume(work, fail)
    holds(ch, dead, 1)
    ch.basic_cancel(tag)
    expect(seen, [(None, False), (1, True), (2, True)], "x-delivery-count and redelivered")
    m, p, b = take(ch, dead, auto_ack=False)
    expect((b, m.redelivered), (b"bad", False), "dead letter")
    expect(deaths(p, since), [death(work, "delivery_limit", "", [work])], "x-death")
    ch.basic_ack(m.delivery_tag)

    ch.basic_publish("", work, b"lost with its connection", PERSISTENT)
    for attempt in range(3):
        other = connect()
        _, p, _ = take(other.channel(), work, auto_ack=False)
        expect(p.headers["x-delivery-count"], attempt, "x-delivery-count of a basic.get")
        other.close()
    _, p, b = take(ch, dead)
    expect((b, deaths(p, since)[0]["reason"]), (b"lost with its connection", "delivery_limit"), "dead letter")
    for queue in work, dead:
        ch.queue_delete(queue)
    conn.close()
    ok("delivery limit")


def priorities():
    conn = connect()
    ch = channel(conn)
    queue = NAME + ".priorities"
    ch.queue_declare(queue, durable=True, arguments={"x-max-priority": 10})
    given = [random.Random(7).choice([None, 0, 1, 5, 9, 10, 200]) for _ in range(200)]
    for n, priority in enumerate(given):
        ch.basic_publish("", queue, b"%d" % n, pika.BasicProperties(priority=priority, delivery_mode=2))
    wanted = sorted(range(200), key=lambda n: -min(given[n] or 0, 10))  # in order within a priority
    got = []
    ch.basic_qos(prefetch_count=20)
    ch.basic_consume(queue, lambda c, m, p, b: (got.append((int(b), p.priority)), c.basic_ack(m.delivery_tag)))
    while len(got) < 200:
        conn.process_data_events(1)
    expect([n for n, _ in got], wanted, "order")
    expect([p for _, p in got], [given[n] for n in wanted], "priorities as they were sent")
    ch.queue_delete(queue)
    conn.close()
    ok("priorities")


def single_active_consumer():
    """Three consumers: one gets everything; when it goes, the next in line does, and nothing is lost or done twice."""
    conn = connect()
    ch = channel(conn)
    for kind in "classic", "quorum":
        queue = f"{NAME}.single.{kind}"
        ch.queue_declare(queue, durable=True, arguments={"x-queue-type": kind, "x-single-active-consumer": True})
        got = [[], [], []]
        conns = [connect() for _ in got]
        for each, mine in zip(conns, got):
            c = each.channel()
            c.basic_qos(prefetch_count=5)
            c.basic_consume(queue, lambda c, m, _p, b, mine=mine: mine.append((c, m.delivery_tag, b)))
        bodies = [b"%d" % n for n in range(20)]
        for body in bodies:
            ch.basic_publish("", queue, body, PERSISTENT)
        done = []

        def until(index, number):
            deadline = time.monotonic() + 20
            while len(got[index]) < number:
                conns[index].process_data_events(0.1)
                if time.monotonic() > deadline:
                    raise AssertionError(f"consumer {index} has {len(got[index])} of {number} messages ({kind})")

        def ack(index, number):
            """Acks so many of the consumer's messages that are not yet."""
            settled = sum(consumer == index for consumer, _ in done)
            for c, tag, body in got[index][settled:settled + number]:
                c.basic_ack(tag)
                done.append((index, body))

        def let_others_take():
            """What has been delivered to the other consumers is counted too."""
            for each in conns[1:]:
                each.process_data_events(0)

        until(0, 5)
        let_others_take()
        expect([len(mine) for mine in got], [5, 0, 0], f"messages of each: the first in line gets all ({kind})")
        ack(0, 3)
        until(0, 8)
        conns[0].close()  # 3 are done, 5 come back
        until(1, 5)
        let_others_take()
        expect([len(mine) for mine in got], [8, 5, 0], f"messages of each: the second has taken over ({kind})")
        ack(1, 5)
        until(1, 10)
        ack(1, 5)
        until(1, 15)
        conns[1].close()
        for number in 5, 7:
            until(2, number)
            ack(2, number - sum(consumer == 2 for consumer, _ in done))
        conns[2].close()
        # pika cancels its consumers before it closes, so that the next one may begin before messages are back
        expect(sorted(int(b) for _, b in done), list(range(20)), f"each done once ({kind})")
        expect(count(ch, queue), 0, f"messages ({kind})")
        ch.queue_delete(queue)
    conn.close()
    ok("single active consumer")


def refused():
    conn = connect()
    ch = channel(conn)
    full, free, exchange = NAME + ".full", NAME + ".free", NAME + ".both"
    ch.exchange_declare(exchange, "fanout", durable=True)
    ch.queue_declare(full, durable=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    ch.queue_declare(free, durable=True)
    for queue in full, free:
        ch.queue_bind(queue, exchange)

    def publish(body, wanted):
        try:
            ch.basic_publish(exchange, "", body, PERSISTENT)
            answer = "ack"
        except NackError as e:
            expect(e.messages, [], "returned messages")
            answer = "nack"
        expect(answer, wanted, body)

    publish(b"1", "ack")
    publish(b"2", "ack")
    publish(b"3", "nack")
    publish(b"4", "nack")
    expect(count(ch, full), 2, "messages")
    holds(ch, free, 4)  # what this one refused the other one has
    take(ch, full)
    publish(b"5", "ack")
    expect([take(ch, full)[2], take(ch, full)[2]], [b"2", b"5"], "bodies")
    for queue in full, free:
        ch.queue_delete(queue)
    ch.exchange_delete(exchange)
    conn.close()
    ok("refused publishings")


def consistent_hash():
    conn = connect()
    ch = channel(conn)
    total = 4000
    exchange = NAME + ".hash"
    weights = {f"{NAME}.share{weight}": weight for weight in (10, 20, 50)}
    ch.exchange_declare(exchange, "x-consistent-hash", durable=True)
    for queue, weight in weights.items():
        ch.queue_declare(queue, durable=True)
        ch.queue_bind(queue, exchange, str(weight))
    fast = conn.channel()
    for n in range(2 * total):
        fast.basic_publish(exchange, f"key-{n % total}", b"")
    fast.close()  # a round trip: all is in the queues
    homes = {}
    for queue, weight in weights.items():
        keys = Counter()
        while (got := ch.basic_get(queue, auto_ack=True))[0] is not None:
            keys[got[0].routing_key] += 1
        expect(set(keys.values()), {2}, "how often each key is in its queue")
        homes.update({key: queue for key in keys})
        share = len(keys) / total / (weight / sum(weights.values()))
        if not 0.7 < share < 1.3:
            raise AssertionError(f"{queue} has {len(keys)} of {total} keys: {share:.2f} times its share")
    expect(len(homes), total, "keys")
    for queue in weights:
        ch.queue_delete(queue)
    ch.exchange_delete(exchange)
    conn.close()
    ok("consistent hash")


run(dead_letters, retries, ladder, delivery_limit, priorities, single_active_consumer, refused, consistent_hash)

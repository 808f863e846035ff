"""x-delayed-message exchanges, as MassTransit uses them: a header says how long a message waits."""
import time

import pika

from talk import NAME, connect, count, expect, ok, run


def until_there(conn, got, number, since):
    """Has the connection's consumers take messages until there are so many."""
    deadline = time.monotonic() + 20
    while len(got) < number:
        conn.process_data_events(0.05)
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(got)} of {number} messages after {time.monotonic() - since:.1f} s")


def redelivery():
    """MassTransit's delayed redelivery: an exchange for delays in front of the endpoint's own."""
    conn = connect()
    ch = conn.channel()
    ch.confirm_delivery()
    queue, delays = NAME + ".endpoint", NAME + ".endpoint_delay"
    ch.exchange_declare(queue, "fanout", durable=True)
    ch.exchange_declare(delays, "x-delayed-message", durable=True, arguments={"x-delayed-type": "fanout"})
    ch.queue_declare(queue, durable=True)
    ch.queue_bind(queue, queue)
    ch.exchange_bind(queue, delays)
    got = []

    def handle(c, m, p, body):
        attempt = p.headers.get("MT-Redelivery-Count", 0)
        got.append((body, attempt, time.monotonic(), p.headers.get("x-delay")))
        if attempt < 2:
            headers = {"MT-Redelivery-Count": attempt + 1, "x-delay": 300 * (attempt + 1)}
            ch.basic_publish(delays, "", body, pika.BasicProperties(headers=headers, delivery_mode=2))
        c.basic_ack(m.delivery_tag)

    ch.basic_consume(queue, handle)
    begun = time.monotonic()
    for n in range(5):
        ch.basic_publish(queue, "", b"%d" % n, pika.BasicProperties(headers={}, delivery_mode=2))
    until_there(conn, got, 15, begun)
    for n in range(5):
        attempts = [each for each in got if each[0] == b"%d" % n]
        expect([attempt for _, attempt, _, _ in attempts], [0, 1, 2], "attempts")
        for before, after, delay in zip(attempts, attempts[1:], (300, 600)):
            if after[2] - before[2] < delay / 1000:
                raise AssertionError(f"there after {after[2] - before[2]:.3f} s, wanted {delay} ms")
            expect(abs(after[3]), delay, "x-delay as it comes")
    ch.queue_delete(queue)
    for exchange in queue, delays:
        ch.exchange_delete(exchange)
    conn.close()
    ok("redelivery by a delayed exchange")


def order():
    """Through a topic exchange: who is due first comes first, whoever was sent first, and those without x-delay at once."""
    conn = connect()
    ch = conn.channel()
    ch.confirm_delivery()
    exchange, queue = NAME + ".topic", NAME + ".topics"
    ch.exchange_declare(exchange, "x-delayed-message", durable=True, arguments={"x-delayed-type": "topic"})
    ch.queue_declare(queue, durable=True)
    ch.queue_bind(queue, exchange, "later.#")
    got = []
    due = {}
    ch.basic_consume(queue, lambda c, m, p, b: (got.append((int(b), time.monotonic())), c.basic_ack(m.delivery_tag)))
    begun = time.monotonic()
    for n, delay in enumerate([900, 300, 600, 0, None, 1200, -5]):
        headers = {} if delay is None else {"x-delay": delay}
        due[n] = time.monotonic() + max(delay or 0, 0) / 1000
        ch.basic_publish(exchange, f"later.{n}", b"%d" % n, pika.BasicProperties(headers=headers, delivery_mode=2))
    ch.basic_publish(exchange, "never.1", b"99", pika.BasicProperties(headers={"x-delay": 100}, delivery_mode=2))
    until_there(conn, got, 7, begun)
    expect([n for n, _ in got], [3, 4, 6, 1, 2, 0, 5], "order")
    late = [when - due[n] for n, when in got]
    if min(late) < 0:
        raise AssertionError(f"a message came {-min(late):.3f} s before its time")
    print(f"messages came up to {max(late) * 1000:.0f} ms after their time")
    expect(count(ch, queue), 0, "messages")
    ch.queue_delete(queue)
    ch.exchange_delete(exchange)
    conn.close()
    ok("order of a delayed exchange")


def taken_back():
    """Garenne's own: a delayed message is cancelled by its id, and a refusal says why."""
    conn = connect()
    ch = conn.channel()
    ch.confirm_delivery()
    exchange, queue = NAME + ".reminders", NAME + ".mail"
    ch.exchange_declare(exchange, "x-delayed-message", durable=True, arguments={"x-delayed-type": "fanout"})
    ch.queue_declare(queue, durable=True)
    ch.queue_bind(queue, exchange)

    def remind(body, id, delay):
        headers = {"x-delay": delay, "x-schedule-id": id}
        ch.basic_publish(exchange, "", body, pika.BasicProperties(headers=headers, delivery_mode=2), mandatory=True)

    def cancel(id):
        headers = {"x-schedule-exchange": exchange, "x-schedule-id": id}
        ch.basic_publish("amq.schedule", "cancel", b"", pika.BasicProperties(headers=headers), mandatory=True)

    def refused(ask, why):
        try:
            ask()
        except pika.exceptions.NackError as error:
            expect(error.messages[0].method.reply_code, 312, "code")
            if why not in error.messages[0].method.reply_text:
                raise AssertionError(error.messages[0].method.reply_text)
            return
        raise AssertionError(f"it is not refused: {why}")

    got = []
    ch.basic_consume(queue, lambda c, m, p, b: (got.append(b), c.basic_ack(m.delivery_tag)))
    remind(b"comes", "r-1", 500)
    remind(b"never", "r-2", 300)
    refused(lambda: remind(b"again", "r-1", 100), "waits in exchange")
    cancel("r-2")
    refused(lambda: cancel("r-2"), "it is unknown, or its time has come")
    until_there(conn, got, 1, time.monotonic())
    refused(lambda: cancel("r-1"), "it is unknown, or its time has come")
    expect(got, [b"comes"], "what came")
    ch.queue_delete(queue)
    ch.exchange_delete(exchange)
    conn.close()
    ok("delayed messages that are taken back")


def once():
    """The argument of the deduplication plugin on a queue: a message is there once, until it is settled."""
    conn = connect()
    ch = conn.channel()
    ch.confirm_delivery()
    queue = NAME + ".once"
    ch.queue_declare(queue, durable=True, arguments={"x-message-deduplication": True})

    def publish(body, value):
        headers = {"x-deduplication-header": value}
        ch.basic_publish("", queue, body, pika.BasicProperties(headers=headers, delivery_mode=2))

    for n in range(10):
        publish(b"%d" % n, n // 2)
    expect(count(ch, queue), 5, "messages")
    method, _, body = ch.basic_get(queue)
    expect(body, b"0", "the first")
    publish(b"out still", 0)
    ch.basic_ack(method.delivery_tag)
    publish(b"again", 0)
    bodies = [ch.basic_get(queue, auto_ack=True)[2] for _ in range(5)]
    expect(bodies, [b"2", b"4", b"6", b"8", b"again"], "bodies")
    ch.queue_delete(queue)
    conn.close()
    ok("a queue that has a message once")


run(redelivery, order, taken_back, once)

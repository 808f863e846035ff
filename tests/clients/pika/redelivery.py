"""Endpoints built as MassTransit's RabbitMQ transport builds them: a fanout exchange for each type of message, bound
to the endpoint's exchange, bound to its queue; _error and _skipped beside it; redelivery after a while by a
queue for each delay. Publishings are confirmed and mandatory."""
import json
import time
import uuid

import pika
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from talk import NAME, closed_with, connect, count, expect, holds, ok, run, take

TYPES = NAME.replace(".", "_") + ".Contracts:"


class Endpoint:
    """A receive endpoint: its queue, and the topology around it."""

    def __init__(self, conn, name, arguments=None):
        self.ch = conn.channel()
        self.ch.confirm_delivery()
        self.name = name
        self.exchanges = []
        self.queues = []
        self.handled = []
        self.queue(name, arguments)

    def exchange(self, name, kind="fanout", arguments=None):
        self.ch.exchange_declare(name, kind, durable=True, arguments=arguments)
        if name not in self.exchanges:
            self.exchanges.append(name)

    def queue(self, name, arguments=None):
        """A queue with the exchange of its name."""
        self.exchange(name)
        self.ch.queue_declare(name, durable=True, arguments=arguments)
        self.ch.queue_bind(name, name, "")
        if name not in self.queues:
            self.queues.append(name)

    def takes(self, message, *bases):
        """Messages of this type, and as which types they count besides."""
        for each in (message, *bases):
            self.exchange(TYPES + each)
        for base in bases:
            self.ch.exchange_bind(TYPES + base, TYPES + message, "")
        self.ch.exchange_bind(self.name, TYPES + message, "")

    def delay_queue(self, ms):
        """The queue in which messages wait so long, after which they come to this endpoint; it goes when unused."""
        name = f"{self.name}_delay_{ms}"
        self.ch.queue_declare(name, durable=True, arguments={
            "x-message-ttl": ms, "x-dead-letter-exchange": self.name, "x-expires": ms + 1000})
        return name

    def send(self, exchange, properties, body, routing_key=""):
        self.ch.basic_publish(exchange, routing_key, body, properties, mandatory=True)

    def fault(self, properties, body, why):
        self.queue(self.name + "_error")
        properties.headers.update({"MT-Reason": "fault", "MT-Fault-Message": why})
        self.send(self.name + "_error", properties, body)

    def handle(self, consume, delays):
        """What MassTransit does with a message: consumed; later again, with growing delays; to _error; to _skipped."""
        def on_message(ch, method, properties, body):
            self.handled.append((time.monotonic(), method, properties, body))
            kinds = json.loads(body)["messageType"]
            if not any(kind.endswith(":SubmitOrder") for kind in kinds):
                self.queue(self.name + "_skipped")
                properties.headers["MT-Reason"] = "dead-letter"
                self.send(self.name + "_skipped", properties, body)
            else:
                try:
                    consume(body)
                except ValueError as e:
                    attempt = properties.headers.get("MT-Redelivery-Count", 0)
                    if attempt < len(delays):
                        properties.headers["MT-Redelivery-Count"] = attempt + 1
                        self.send("", properties, body, self.delay_queue(delays[attempt]))
                    else:
                        self.fault(properties, body, str(e))
            ch.basic_ack(method.delivery_tag)

        self.ch.basic_qos(prefetch_count=16)
        self.ch.basic_consume(self.name, on_message)

    def until(self, ready, what):
        deadline = time.monotonic() + 20
        while not ready():
            self.ch.connection.process_data_events(0.02)
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within 20 s, {len(self.handled)} handled")

    def delete(self):
        for tag in list(self.ch.consumer_tags):
            self.ch.basic_cancel(tag)
        for queue in self.queues:
            self.ch.queue_delete(queue)
        for exchange in self.exchanges:
            self.ch.exchange_delete(exchange)


def envelope(kind, number):
    body = json.dumps({"messageId": str(uuid.uuid4()), "messageType": ["urn:message:" + TYPES + kind],
                       "message": {"number": number}}).encode()
    properties = pika.BasicProperties(
        content_type="application/vnd.masstransit+json", delivery_mode=2, message_id=str(uuid.uuid4()),
        headers={"Content-Type": "application/vnd.masstransit+json", "publishId": str(number)})
    return properties, body


def consume(body):
    if json.loads(body)["message"]["number"] % 3 == 2:
        raise ValueError("on purpose")


def expired(conn, queue, ms):
    """Wait until the unused `queue` is gone; asking counts as use, so that there must be time between two questions."""
    for _ in range(10):
        conn.sleep(ms / 1000 + 0.2)
        try:
            conn.channel().queue_declare(queue, passive=True)
        except ChannelClosedByBroker as e:
            expect(e.reply_code, 404, "reply code")
            return
    raise AssertionError(f"{queue} is still there")


def endpoint():
    """Consumed, skipped, and redelivered until there is nothing left but _error."""
    delays = [200, 400]
    conn = connect()
    e = Endpoint(conn, NAME + ".submit-order")
    e.takes("SubmitOrder", "OrderCommand")
    e.takes("CancelOrder")
    audit = Endpoint(conn, NAME + ".audit")
    audit.takes("OrderCommand")

    e.send(TYPES + "SubmitOrder", *envelope("SubmitOrder", 1))
    expect((count(e.ch, e.name), count(e.ch, audit.name)), (1, 1), "messages, by exchange to exchange bindings")
    e.exchange(TYPES + "Nobody")
    try:
        e.send(TYPES + "Nobody", *envelope("Nobody", 0))
        raise AssertionError("the message that nobody wants was not returned")
    except UnroutableError as error:
        expect(error.messages[0].method.reply_code, 312, "reply code")
    ok("types of messages")

    e.handle(consume, delays)
    e.send(TYPES + "CancelOrder", *envelope("CancelOrder", 1))
    e.until(lambda: len(e.handled) == 2, "consumed and skipped")
    _, p, _ = take(e.ch, e.name + "_skipped")
    expect((p.headers["MT-Reason"], p.headers["publishId"]), ("dead-letter", "1"), "headers of the skipped message")
    ok("skipped")

    del e.handled[:]
    for number in range(3, 12):
        e.send(TYPES + "SubmitOrder", *envelope("SubmitOrder", number))
    # 5, 8 and 11 fail three times
    e.until(lambda: len(e.handled) == 9 + 2 * 3, "redelivered")
    holds(e.ch, e.name + "_error", 3)
    attempts = {}
    for when, method, p, body in e.handled:
        attempts.setdefault(json.loads(body)["message"]["number"], []).append((when, method, p))
    expect({n: len(a) for n, a in attempts.items()}, {n: 3 if n % 3 == 2 else 1 for n in range(3, 12)}, "attempts")
    for number in 5, 8, 11:
        for attempt, delay in enumerate(delays):
            (before, _, _), (after, method, p) = attempts[number][attempt:attempt + 2]
            if not delay / 1000 <= after - before < delay / 1000 + 15:
                raise AssertionError(f"{number} is there again after {after - before:.3f} s, wanted {delay} ms")
            expect((method.exchange, method.redelivered), (e.name, False), "where it comes from")
            waited = p.headers["x-death"][0]
            expect((waited["queue"], waited["reason"], waited["count"]), (f"{e.name}_delay_{delay}", "expired", 1), "x-death")
            expect(len(p.headers["x-death"]), attempt + 1, "deaths")
        _, p, _ = take(e.ch, e.name + "_error")
        wanted = {"MT-Reason": "fault", "MT-Fault-Message": "on purpose", "MT-Redelivery-Count": 2, "publishId": str(number)}
        expect({k: p.headers.get(k) for k in wanted}, wanted, "headers of the faulted message")
    expect(count(e.ch, audit.name), 10, "the other endpoint's messages: each once, whatever fails here")
    ok("redelivered by queues with TTLs")
    for delay in delays:
        expired(conn, f"{e.name}_delay_{delay}", delay + 1000)
    ok("queues for delays expire")

    e.delete()
    audit.delete()
    conn.close()


def quorum_endpoint():
    """A quorum queue whose broker counts the attempts; one consumer at a time; the next goes on when it dies."""
    conn, other = connect(), connect()
    name = NAME + ".quorum"
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2, "x-single-active-consumer": True,
                 "x-dead-letter-exchange": name + "_error", "x-dead-letter-strategy": "at-least-once",
                 "x-overflow": "reject-publish"}
    e = Endpoint(conn, name, arguments)
    e.queue(name + "_error", {"x-queue-type": "quorum"})
    e.takes("SubmitOrder")
    text = closed_with(406, lambda: conn.channel().queue_declare(name, durable=True))
    expect(text.startswith("PRECONDITION_FAILED - inequivalent arg 'x-"), True, text)

    seen = {"active": [], "next": []}

    def consumer(who):
        def on_message(ch, method, properties, body):
            number = json.loads(body)["message"]["number"]
            seen[who].append((number, (properties.headers or {}).get("x-delivery-count", 0)))
            try:
                consume(body)
                ch.basic_ack(method.delivery_tag)
            except ValueError:
                ch.basic_nack(method.delivery_tag, requeue=True)
        return on_message

    for c, who in (conn, "active"), (other, "next"):
        ch = c.channel()
        ch.basic_qos(prefetch_count=1)
        ch.basic_consume(name, consumer(who))
    for number in range(6):
        e.send(TYPES + "SubmitOrder", *envelope("SubmitOrder", number))
    e.until(lambda: len(seen["active"]) == 4 + 2 * 3, "the active consumer's messages")
    holds(e.ch, name + "_error", 2)
    other.process_data_events(0)
    expect(seen["next"], [], "messages of the consumer that waits")
    expect(sorted(seen["active"]), sorted(
        [(n, 0) for n in (0, 1, 3, 4)] + [(n, attempt) for n in (2, 5) for attempt in range(3)]), "attempts")
    for _ in range(2):
        _, p, _ = take(e.ch, name + "_error")
        death = p.headers["x-death"][0]
        expect((death["queue"], death["reason"], death["exchange"]), (name, "delivery_limit", TYPES + "SubmitOrder"), "x-death")
    ok("quorum endpoint: delivery limit")

    conn.close()
    e.ch = other.channel()
    e.ch.confirm_delivery()
    for number in 6, 7:
        e.send(TYPES + "SubmitOrder", *envelope("SubmitOrder", number))
    e.until(lambda: len(seen["next"]) == 2, "the next consumer's messages")
    expect(seen["next"], [(6, 0), (7, 0)], "messages of the next consumer")
    ok("quorum endpoint: the next consumer")
    e.delete()
    other.close()


run(endpoint, quorum_endpoint)

"""The conversation of the clients' tests in pika: BlockingConnection, then SelectConnection."""
import datetime
import decimal
import os

import pika
from pika.exceptions import UnroutableError

from talk import NAME, URL, closed_with, connect, count, expect, gone, ok, run


def blocking():
    conn = connect()
    ch = conn.channel()
    ok("connect")

    ch.exchange_declare(NAME, "direct", durable=True)
    expect(ch.queue_declare(NAME, durable=True).method.queue, NAME, "queue name")
    ch.queue_bind(NAME, NAME, "key")
    ok("declare")

    ch.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    for i in range(100):
        ch.basic_publish(NAME, "key", b"m%d" % i, persistent, mandatory=True)
    expect(count(ch, NAME), 100, "messages")
    ok("publish with confirms")

    try:
        ch.basic_publish(NAME, "nowhere", b"lost", mandatory=True)
        raise AssertionError("the unroutable message was not returned")
    except UnroutableError as e:
        [m] = e.messages
        expect((m.method.reply_code, m.method.reply_text), (312, "NO_ROUTE"), "return")
        expect((m.method.exchange, m.method.routing_key, m.body), (NAME, "nowhere", b"lost"), "return")
    ok("mandatory return")

    ch.basic_qos(prefetch_count=10)
    got = []
    tag = ch.basic_consume(NAME, lambda _c, m, p, b: got.append((m, p, b)))
    while len(got) < 10:
        conn.process_data_events(1)
    expect(count(ch, NAME), 90, "messages ready beyond the prefetch window")
    expect(len(got), 10, "prefetched messages")
    acked = 0
    while acked < 100:
        while acked < len(got):
            m, p, b = got[acked]
            expect((b, m.redelivered, p.delivery_mode), (b"m%d" % acked, False, 2), "delivery")
            expect((m.exchange, m.routing_key, m.consumer_tag), (NAME, "key", tag), "delivery")
            ch.basic_ack(m.delivery_tag)
            acked += 1
        if acked < 100:
            conn.process_data_events(1)
    ch.basic_cancel(tag)
    expect(count(ch, NAME), 0, "messages")
    ok("consume with prefetch and acks")

    ch.basic_publish(NAME, "key", b"again")
    del got[:]
    tag = ch.basic_consume(NAME, lambda _c, m, p, b: got.append((m, p, b)))
    while len(got) < 1:
        conn.process_data_events(1)
    expect((got[0][0].redelivered, got[0][2]), (False, b"again"), "first delivery")
    ch.basic_nack(got[0][0].delivery_tag, requeue=True)
    while len(got) < 2:
        conn.process_data_events(1)
    expect((got[1][0].redelivered, got[1][2]), (True, b"again"), "second delivery")
    ch.basic_reject(got[1][0].delivery_tag, requeue=False)
    ch.basic_cancel(tag)
    expect(count(ch, NAME), 0, "messages")
    ok("nack and reject")

    expect(ch.basic_get(NAME), (None, None, None), "get from the empty queue")
    ch.basic_publish(NAME, "key", b"one")
    ch.basic_publish(NAME, "key", b"two")
    m, _, b = ch.basic_get(NAME)
    expect((b, m.message_count, m.redelivered, m.routing_key), (b"one", 1, False, "key"), "get")
    ch.basic_ack(m.delivery_tag)
    m, _, b = ch.basic_get(NAME, auto_ack=True)
    expect((b, m.message_count), (b"two", 0), "get")
    ok("basic.get")

    bad = conn.channel()
    text = closed_with(404, lambda: bad.queue_declare(NAME + ".no", passive=True))
    expect(text, f"NOT_FOUND - no queue '{NAME}.no' in vhost '/'", "text")
    text = closed_with(406, lambda: conn.channel().queue_declare(NAME, durable=False))
    expect(text.startswith("PRECONDITION_FAILED - inequivalent arg 'durable' for queue"), True, text)
    again = conn.channel()
    expect(count(again, NAME), 0, "on a new channel")
    expect(count(ch, NAME), 0, "on the old channel")
    again.close()
    ok("channel error")

    # pika knows no floats in tables
    when = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    values = {
        "str": "ünï", "empty": "", "bytes": b"\x00\xff", "true": True, "false": False,
        "int": -5, "int32": 2**31 - 1, "long": 2**40, "min": -(2**63), "null": None,
        "decimal": decimal.Decimal("12.345"), "time": when, "longtext": "x" * 5000,
    }
    headers = dict(values, table=dict(values, deeper={"a": {}}), array=[1, "two", None, [], {"x": [True]}, b"\x01"])
    props = dict(
        content_type="text/x", content_encoding="utf-8", headers=headers, delivery_mode=2, priority=7,
        correlation_id="corr", reply_to="reply", expiration="60000", message_id="mid", timestamp=1700000000,
        type="kind", user_id=pika.URLParameters(URL).credentials.username, app_id="app", cluster_id="cluster",
    )
    ch.basic_publish(NAME, "key", b"props", pika.BasicProperties(**props))
    _, p, b = ch.basic_get(NAME, auto_ack=True)
    expect(b, b"props", "body")
    for key, value in props.items():
        expect(getattr(p, key), value, key)
    ch.basic_publish(NAME, "key", b"bare")
    _, p, _ = ch.basic_get(NAME, auto_ack=True)
    expect({k: v for k, v in vars(p).items() if v is not None}, {}, "no properties")
    ok("properties")

    big = os.urandom(1 << 20)
    ch.basic_publish(NAME, "key", big, persistent)
    _, _, b = ch.basic_get(NAME, auto_ack=True)
    expect(b == big, True, "1 MiB body")
    ok("1 MiB body")
    ch.basic_publish(NAME, "key", b"", persistent)
    m, _, b = ch.basic_get(NAME, auto_ack=True)
    expect((m is not None, b), (True, b""), "empty body")
    ok("empty body")

    tx = conn.channel()
    tx.tx_select()
    tx.basic_publish(NAME, "key", b"committed")
    expect(count(ch, NAME), 0, "messages before the commit")
    tx.tx_commit()
    expect(count(ch, NAME), 1, "messages after the commit")
    tx.basic_publish(NAME, "key", b"rolled back")
    tx.tx_rollback()
    tx.tx_commit()
    expect(count(ch, NAME), 1, "messages after the rollback")
    m, _, b = tx.basic_get(NAME)
    expect(b, b"committed", "body")
    tx.basic_ack(m.delivery_tag)
    tx.tx_commit()
    tx.close()
    expect(count(ch, NAME), 0, "messages after the committed ack")
    ok("transactions")

    other = connect()
    och = other.channel()
    mine = och.queue_declare("", exclusive=True).method.queue
    expect(mine.startswith("amq.gen-"), True, mine)
    och.queue_bind(mine, NAME, "mine")
    ch.basic_publish(NAME, "mine", b"x", mandatory=True)
    text = closed_with(405, lambda: conn.channel().queue_declare(mine, passive=True))
    expect(text.startswith("RESOURCE_LOCKED - "), True, text)
    other.close()
    gone(conn, mine)
    auto = NAME + ".auto"
    ch.queue_declare(auto, auto_delete=True)
    tag = ch.basic_consume(auto, lambda *_: None)
    ch.basic_cancel(tag)
    gone(conn, auto)
    ok("exclusive and auto-delete queues")

    ch.queue_purge(NAME)
    ch.queue_unbind(NAME, NAME, "key")
    ch.queue_delete(NAME)
    ch.exchange_delete(NAME)
    closed_with(404, lambda: conn.channel().exchange_declare(NAME, passive=True))
    conn.close()
    expect(conn.is_closed, True, "closed")
    ok("close")


def select():
    """1,000 messages in flight at once; confirms, maybe for many messages each; no_ack consumer."""
    total = 1000
    queue = NAME + ".select"
    state = {"open": set(range(1, total + 1)), "got": [], "error": None, "closed": False}

    def fail(_what, why):
        if not state["closed"]:
            state["error"] = why
        conn.ioloop.stop()

    def on_open(c):
        c.channel(on_open_callback=on_channel)

    def on_channel(ch):
        state["ch"] = ch
        ch.add_on_close_callback(lambda _c, why: None if state["closed"] else fail(_c, why))
        ch.queue_declare(queue, exclusive=True, callback=lambda _: ch.confirm_delivery(on_confirm, callback=publish))

    def publish(_):
        state["ch"].basic_consume(queue, on_message, auto_ack=True)
        for i in range(total):
            state["ch"].basic_publish("", queue, b"%d" % i)

    def on_confirm(frame):
        m = frame.method
        expect(type(m).__name__, "Ack", "confirm")
        if m.multiple:
            state["open"] = {t for t in state["open"] if t > m.delivery_tag}
        else:
            state["open"].remove(m.delivery_tag)
        done()

    def on_message(_ch, _m, _p, body):
        state["got"].append(int(body))
        done()

    def done():
        if not state["open"] and len(state["got"]) == total and not state["closed"]:
            state["closed"] = True
            conn.close()

    conn = pika.SelectConnection(
        pika.URLParameters(URL), on_open_callback=on_open, on_open_error_callback=fail, on_close_callback=fail)
    conn.ioloop.start()
    if state["error"]:
        raise AssertionError(repr(state["error"]))
    expect(state["got"], list(range(total)), "order")
    ok("1000 messages in flight")


run(blocking, select)

"""What the conversations in pika share: steps, what is wanted, connections, and the end in time."""
import os
import signal
import sys
import time
import uuid

import pika
from pika.exceptions import ChannelClosedByBroker

LIMIT = 60
URL = os.environ["AMQP_URL"]
NAME = "clients.pika." + uuid.uuid4().hex
step = "start"


def ok(name):
    global step
    print("ok", name, flush=True)
    step = "after " + name


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.500}, wanted {wanted!r:.500}")


def connect():
    return pika.BlockingConnection(pika.URLParameters(URL))


def closed_with(code, call):
    """The text of the channel error with which `call` must end."""
    try:
        call()
    except ChannelClosedByBroker as e:
        expect(e.reply_code, code, "reply code")
        return e.reply_text
    raise AssertionError(f"no channel error {code}")


def gone(conn, queue):
    """Wait until `queue` does not exist any more."""
    deadline = time.monotonic() + 20
    while True:
        ch = conn.channel()
        try:
            ch.queue_declare(queue, passive=True)
            ch.close()
        except ChannelClosedByBroker as e:
            if e.reply_code == 404:
                return
            # 405: the exclusive queue's owner is not quite gone yet
            expect(e.reply_code, 405, "reply code")
        if time.monotonic() > deadline:
            raise AssertionError(f"{queue} is still there")
        conn.sleep(0.02)


def count(ch, queue):
    return ch.queue_declare(queue, passive=True).method.message_count


def holds(ch, queue, wanted):
    """Wait until `queue` has `wanted` messages that are ready."""
    deadline = time.monotonic() + 20
    while (got := count(ch, queue)) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"{queue}: {got} messages, wanted {wanted}")
        ch.connection.sleep(0.02)


def take(ch, queue, auto_ack=True):
    """The next message of `queue`, waited for: method, properties, body."""
    deadline = time.monotonic() + 20
    while True:
        m, p, b = ch.basic_get(queue, auto_ack=auto_ack)
        if m is not None:
            return m, p, b
        if time.monotonic() > deadline:
            raise AssertionError(f"{queue}: no message")
        ch.connection.sleep(0.005)


def run(*conversations):
    """Has the conversations one after the other; the program's exit code says how they went."""
    def too_late(*_):
        print(f"FAILED {step}: not done within {LIMIT} s", flush=True)
        os._exit(1)

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(LIMIT)
    try:
        for conversation in conversations:
            conversation()
    except BaseException as e:
        print(f"FAILED {step}: {type(e).__name__}: {e}", flush=True)
        sys.exit(1)

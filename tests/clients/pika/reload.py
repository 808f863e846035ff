"""A server's certificates are replaced while pika is connected. For every line on stdin a new connection is made, the old
one is tried, and the certificate that the new one has seen is printed in hex; the end of stdin is the end."""
import sys

from talk import NAME, expect, ok, run
from tls import connect, context


def works(conn, queue):
    ch = conn.channel()
    ch.confirm_delivery()
    ch.queue_declare(queue)
    ch.basic_publish("", queue, b"x" * 100_000, mandatory=True)
    expect(len(ch.basic_get(queue, auto_ack=True)[2]), 100_000, "length")
    ch.queue_delete(queue)
    ch.close()


def reload():
    first = context(certificate="client")
    stays = connect(first)
    works(stays, NAME)
    ok("connect")
    seen = first.last.getpeercert(binary_form=True)
    for _ in sys.stdin:
        made = context(certificate="client")
        new = connect(made)
        works(new, NAME + ".new")
        works(stays, NAME)
        expect(first.last.getpeercert(binary_form=True) == seen, True, "the old connection's certificate unchanged")
        print("certificate", made.last.getpeercert(binary_form=True).hex(), flush=True)
        new.close()
    works(stays, NAME)
    stays.close()
    ok("close")


run(reload)

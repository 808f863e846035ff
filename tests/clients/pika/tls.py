"""Over TLS, in pika: certificates of both sides, with passwords and without."""
import os
import ssl

import pika
from pika.exceptions import AMQPConnectionError, ProbableAuthenticationError

from talk import NAME, closed_with, count, expect, ok, run

# A broker that wants certificates of its clients, and one that only asks for them
URLS = {"required": os.environ["AMQP_URL"], "optional": os.environ.get("AMQP_URL_OPTIONAL")}
DIR = os.environ["TLS_DIR"]
# Who the certificate `client.pem` is
USER = os.environ.get("TLS_USER")
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
EXTERNAL = pika.credentials.ExternalCredentials()


class Context(ssl.SSLContext):
    """Remembers its last socket."""

    def wrap_socket(self, *args, **more):
        self.last = super().wrap_socket(*args, **more)
        return self.last


def context(version=None, certificate=None, ca="ca"):
    made = Context(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(f"{DIR}/{ca}.pem")
    if version:
        made.minimum_version = made.maximum_version = version
    if certificate:
        made.load_cert_chain(f"{DIR}/{certificate}.pem", f"{DIR}/{certificate}.key")
    return made


def connect(made, broker="required", credentials=None, host=None, name=None):
    url = pika.URLParameters(URLS[broker])
    parameters = pika.ConnectionParameters(
        host or url.host, url.port, url.virtual_host, credentials or url.credentials,
        ssl_options=pika.SSLOptions(made, name or host or url.host), connection_attempts=1)
    return pika.BlockingConnection(parameters)


def refused(what, **how):
    """All that is told of why there is no connection."""
    try:
        connect(**how).close()
    except (AMQPConnectionError, OSError) as e:
        told, seen = "", [e]
        while seen:
            one = seen.pop()
            told += repr(one) + "\n"
            seen += [x for x in (one.__cause__, one.__context__, getattr(one, "exception", None), *one.args)
                     if isinstance(x, BaseException)]
        return told
    raise AssertionError(f"{what} gets in")


def messages(conn):
    """There and back, small and large."""
    ch = conn.channel()
    ch.queue_declare(NAME, durable=True)
    ch.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    bodies = [b"m%d" % i for i in range(50)] + [os.urandom(5 << 20), b"", os.urandom(3 << 20)]
    for body in bodies:
        ch.basic_publish("", NAME, body, persistent, mandatory=True)
    ch.basic_qos(prefetch_count=5)
    got = []
    for method, _, body in ch.consume(NAME, inactivity_timeout=20):
        if method is None:
            raise AssertionError(f"only {len(got)} messages came")
        got.append(body)
        ch.basic_ack(method.delivery_tag)
        if len(got) == len(bodies):
            break
    ch.cancel()
    expect([len(body) for body in got], [len(body) for body in bodies], "lengths")
    expect(got == bodies, True, "bodies unchanged")
    expect(count(ch, NAME), 0, "messages left")
    ch.queue_delete(NAME)


def is_user(conn, name):
    """The broker lets nobody say another name than his own in a message."""
    ch = conn.channel()
    ch.confirm_delivery()
    queue = ch.queue_declare("", exclusive=True).method.queue
    ch.basic_publish("", queue, b"", pika.BasicProperties(user_id=name))

    def as_another():
        other = conn.channel()
        other.confirm_delivery()
        other.basic_publish("", queue, b"", pika.BasicProperties(user_id=name + "x"))

    expect(closed_with(406, as_another).startswith("PRECONDITION_FAILED - user_id property"), True, "text")
    ch.close()


def certificates():
    for version in VERSIONS:
        said = version.name.replace("v1_", "v1.")
        made = context(version, "client")
        conn = connect(made)
        expect(made.last.version(), said, "version")
        is_user(conn, "guest")
        messages(conn)
        conn.close()
        ok(f"{said}: PLAIN with a certificate")

        conn = connect(context(version, "client"), credentials=EXTERNAL)
        is_user(conn, USER)
        messages(conn)
        conn.close()
        ok(f"{said}: EXTERNAL")

        told = refused("who has no certificate", made=context(version))
        expect("CERTIFICATE_REQUIRED" in told.upper(), True, told)
        ok(f"{said}: no certificate where one is wanted")

        for broker in URLS:
            told = refused("who has another authority's certificate", made=context(version, "strange"), broker=broker)
            # The authorities may have one name and two keys
            expect("UNKNOWN_CA" in told.upper() or "DECRYPT_ERROR" in told, True, told)
        ok(f"{said}: a certificate of another authority")

        conn = connect(context(version), broker="optional")
        is_user(conn, "guest")
        conn.close()
        conn = connect(context(version, "client"), broker="optional", credentials=EXTERNAL)
        is_user(conn, USER)
        conn.close()
        told = refused("who names no user", made=context(version), broker="optional", credentials=EXTERNAL)
        expect(ProbableAuthenticationError.__name__ in told or "ACCESS_REFUSED" in told, True, told)
        ok(f"{said}: where a certificate is only asked for")

        host = pika.URLParameters(URLS["required"]).host
        for how in ({"host": "127.0.0.1"}, {"host": host, "name": "other.example"}):
            told = refused("a server under a wrong name", made=context(version, "client"), **how)
            expect("CERTIFICATE_VERIFY_FAILED" in told and "mismatch" in told, True, told)
        told = refused("a server of another authority", made=context(version, "client", ca="strange-ca"))
        expect("CERTIFICATE_VERIFY_FAILED" in told, True, told)
        ok(f"{said}: a server that is not the right one")


if __name__ == "__main__":
    run(certificates)

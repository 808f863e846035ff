"""A world for tools to look at: some of everything, the same on every broker; and clients that keep it busy."""

import threading
import time

import pika

from api import Api, part

PASSWORD = "secret"
V = "world"                      # the second vhost; the first is "/"
TAGS = {
    "none": "", "manager": "management", "policymaker": "policymaker", "monitor": "monitoring",
    "admin": "administrator", "impersonator": "impersonator", "several": "management,monitoring,own-tag",
}
# The plugin types are left out where a broker has not got them.
EXCHANGES = [
    ("w.direct", "direct", {}, {}), ("w.fanout", "fanout", {}, {}), ("w.topic", "topic", {}, {}),
    ("w.headers", "headers", {}, {}), ("w.hash", "x-consistent-hash", {}, {"hash-header": "h"}),
    ("w.internal", "direct", {"internal": True}, {}), ("w.transient", "direct", {"durable": False}, {}),
    ("w.auto", "fanout", {"auto_delete": True}, {}),
    ("w.alternate", "direct", {}, {"alternate-exchange": "w.fanout"}), ("w.dead", "direct", {}, {}),
]
QUEUES = [
    ("w.classic", {}, {}), ("w.empty", {}, {}), ("w.transient", {"durable": False}, {}),
    ("w.auto", {"auto_delete": True}, {}), ("w.quorum", {}, {"x-queue-type": "quorum"}),
    ("w.limited", {}, {"x-max-length": 10, "x-max-length-bytes": 10000, "x-overflow": "reject-publish"}),
    ("w.ttl", {}, {"x-message-ttl": 3600000, "x-expires": 3600000, "x-dead-letter-exchange": "w.dead",
                   "x-dead-letter-routing-key": "dead"}),
    ("w.priority", {}, {"x-max-priority": 5}), ("w.single", {}, {"x-single-active-consumer": True}),
    ("w.delivery", {}, {"x-queue-type": "quorum", "x-delivery-limit": 3}), ("w.dead", {}, {}),
    ("w.policied", {}, {}), ("w/slash %", {}, {}), ("w.ünïcode", {}, {}), ("w.busy", {}, {}),
    ("w.unacked", {}, {}),
]
BINDINGS = [
    ("w.direct", "q", "w.classic", "classic", {}), ("w.direct", "q", "w.quorum", "quorum", {}),
    ("w.direct", "q", "w.classic", "second key", {}), ("w.direct", "q", "w.classic", "key~with/odd %", {}),
    ("w.direct", "q", "w.classic", "with-arguments", {"number": 1, "text": "a"}),
    ("w.fanout", "q", "w.empty", "", {}), ("w.topic", "q", "w.classic", "a.*.#", {}),
    ("w.headers", "q", "w.classic", "", {"x-match": "all", "h": "1"}),
    ("w.topic", "e", "w.direct", "e2e.#", {}), ("w.dead", "q", "w.dead", "dead", {}),
    ("w.hash", "q", "w.classic", "1", {}),
]


def populate(api: Api):
    """Vhost, users of every kind, permissions, policies, limits, exchanges, queues, bindings. Idempotent."""
    must = api.must
    must("PUT", f"/api/vhosts/{V}", {"description": "a second vhost", "tags": "one,two"})
    must("PUT", "/api/vhosts/quiet")
    for name, tags in TAGS.items():
        must("PUT", f"/api/users/{name}", {"password": PASSWORD, "tags": tags})
        for vhost in ("/", V):
            must("PUT", f"/api/permissions/{part(vhost)}/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
    must("PUT", "/api/users/nowhere", {"password": PASSWORD, "tags": "management"})
    must("PUT", "/api/users/limited", {"password": PASSWORD, "tags": "management"})
    must("PUT", "/api/users/hashed", {"password_hash": "", "tags": ""})
    must("PUT", f"/api/permissions/{V}/limited", {"configure": "^w\\.", "write": "^w\\.", "read": ""})
    must("PUT", f"/api/permissions/{V}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
    must("PUT", f"/api/topic-permissions/{V}/limited", {"exchange": "w.topic", "write": "^a\\.", "read": ".*"})
    must("PUT", f"/api/topic-permissions/{V}/guest", {"exchange": "amq.topic", "write": ".*", "read": ".*"})
    must("PUT", f"/api/policies/{V}/w-policy", {"pattern": "^w\\.policied", "apply-to": "queues", "priority": 3,
         "definition": {"max-length": 1000, "message-ttl": 600000, "dead-letter-exchange": "w.dead"}})
    must("PUT", f"/api/policies/{V}/w-exchanges", {"pattern": "^w\\.direct$", "apply-to": "exchanges",
         "definition": {"alternate-exchange": "w.fanout"}})
    must("PUT", f"/api/operator-policies/{V}/w-operator", {"pattern": "^w\\.policied", "apply-to": "queues",
         "priority": 0, "definition": {"max-length": 500}})
    must("PUT", f"/api/vhost-limits/{V}/max-connections", {"value": 500})
    must("PUT", f"/api/vhost-limits/{V}/max-queues", {"value": 500})
    must("PUT", "/api/user-limits/limited/max-connections", {"value": 10})
    must("PUT", "/api/user-limits/limited/max-channels", {"value": 100})
    must("PUT", "/api/global-parameters/w-parameter", {"value": {"a": 1, "b": ["x"]}})
    known = {kind["name"] for kind in api.get("/api/overview").json()["exchange_types"]}
    for name, kind, flags, arguments in EXCHANGES:
        if kind in known:
            must("PUT", f"/api/exchanges/{V}/{part(name)}", {"type": kind, "arguments": arguments, **flags})
    for name, flags, arguments in QUEUES:
        must("PUT", f"/api/queues/{V}/{part(name)}", {"arguments": arguments, **{"durable": True, **flags}})
    for source, kind, target, key, arguments in BINDINGS:
        if source != "w.hash" or "x-consistent-hash" in known:
            must("POST", f"/api/bindings/{V}/e/{part(source)}/{kind}/{part(target)}",
                 {"routing_key": key, "arguments": arguments})


def connect(host, port, vhost=V, user="guest", password="guest", name=None):
    properties = {"connection_name": name} if name else {}
    return pika.BlockingConnection(pika.ConnectionParameters(
        host, port, vhost, pika.PlainCredentials(user, password), client_properties=properties,
        heartbeat=60, connection_attempts=1, blocked_connection_timeout=30))


FILLED = 7 * 20                  # messages that fill() leaves


def fill(host, port):
    """Leaves messages in the queues."""
    connection = connect(host, port, name="w.filler")
    channel = connection.channel()
    for queue in ("w.classic", "w.quorum", "w.ttl", "w.priority", "w.delivery", "w.policied", "w.unacked"):
        channel.queue_purge(queue)
        for number in range(20):
            channel.basic_publish("", queue, b"message %d" % number, pika.BasicProperties(
                delivery_mode=2, message_id=f"id-{number}", content_type="text/plain", priority=number % 5,
                timestamp=1700000000 + number, headers={"number": number, "text": "a", "flag": True}))
    connection.close()


class Clients:
    """Connections that stay: idle ones, a holder of unacked messages, a confirming publisher and consumers."""

    def __init__(self, host, port, busy=True):
        self.host, self.port, self.busy = host, port, busy
        self.stopping = threading.Event()
        self.ready = []
        self.threads = []
        self.failures = []

    def __enter__(self):
        quiet, moving = (self.idle, self.hold, self.single, self.transact), (self.publish, self.consume)
        for work in quiet + (moving if self.busy else ()):
            began = threading.Event()
            self.ready.append(began)
            thread = threading.Thread(target=self.run, args=(work, began), daemon=True)
            self.threads.append(thread)
            thread.start()
        for began in self.ready:
            began.wait(15)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)

    def run(self, work, began):
        try:
            work(began)
        except Exception as failure:           # told by whoever looks at the list
            self.failures.append(f"{work.__name__}: {failure!r}")
        finally:
            began.set()

    def idle(self, began):
        connection = connect(self.host, self.port, name="w.idle")
        connection.channel()
        connection.channel()
        other = connect(self.host, self.port, "/", "admin", PASSWORD)
        began.set()
        while not self.stopping.is_set():
            connection.process_data_events(0.2)
            other.process_data_events(0.2)
        connection.close()
        other.close()

    def hold(self, began):
        connection = connect(self.host, self.port, user="several", password=PASSWORD, name="w.holder")
        channel = connection.channel()
        channel.basic_qos(prefetch_count=7)
        channel.basic_consume("w.unacked", lambda *_: None, consumer_tag="w.holder", arguments={"x-priority": 2})
        global_qos = connection.channel()
        global_qos.basic_qos(prefetch_count=50, global_qos=True)
        global_qos.queue_declare("w.exclusive", exclusive=True)
        global_qos.basic_consume("w.exclusive", lambda *_: None, auto_ack=True, exclusive=True)
        connection.process_data_events(0.3)
        began.set()
        while not self.stopping.is_set():
            connection.process_data_events(0.2)
        connection.close()

    def publish(self, began):
        connection = connect(self.host, self.port, name="w.publisher")
        channel = connection.channel()
        channel.confirm_delivery()
        began.set()
        number = 0
        while not self.stopping.is_set():
            number += 1
            properties = pika.BasicProperties(delivery_mode=2, timestamp=int(time.time()))
            channel.basic_publish("", "w.busy", b"x" * (100 if number % 5 else 20000), properties)
            channel.basic_publish("w.direct", "classic" if number % 10 == 0 else "nowhere", b"y", properties)
            try:
                channel.basic_publish("", "w.no-such-queue", b"z", properties, mandatory=True)
            except pika.exceptions.UnroutableError:
                pass
            time.sleep(0.04)
        connection.close()

    def consume(self, began):
        connection = connect(self.host, self.port, name="w.consumer")
        channel = connection.channel()
        channel.basic_qos(prefetch_count=10)
        seen = [0]

        def deliver(channel, method, *_):
            seen[0] += 1
            if seen[0] % 20 == 0 and not method.redelivered:
                channel.basic_nack(method.delivery_tag, requeue=True)
            else:
                channel.basic_ack(method.delivery_tag)
        channel.basic_consume("w.busy", deliver)
        getter = connection.channel()
        began.set()
        while not self.stopping.is_set():
            connection.process_data_events(0.1)
            getter.basic_get("w.classic", auto_ack=True)
            getter.basic_get("w.empty")
            got = getter.basic_get("w.classic")[0]
            if got:
                getter.basic_ack(got.delivery_tag)
        connection.close()

    def single(self, began):
        connection = connect(self.host, self.port, name="w.single")
        for _ in range(2):
            connection.channel().basic_consume("w.single", lambda *_: None, auto_ack=True)
        began.set()
        while not self.stopping.is_set():
            connection.process_data_events(0.2)
        connection.close()

    def transact(self, began):
        connection = connect(self.host, self.port, name="w.transaction")
        channel = connection.channel()
        channel.tx_select()
        channel.basic_publish("", "w.empty", b"uncommitted")
        began.set()
        while not self.stopping.is_set():
            connection.process_data_events(0.2)
        connection.close()


def await_statistics(api, seconds=20, busy=True):
    """Until the broker tells of the clients: RabbitMQ gathers statistics every few seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        names = {connection.get("client_properties", {}).get("connection_name")
                 for connection in api.get("/api/connections").json()}
        published = api.get(f"/api/queues/{V}/w.busy").json().get("message_stats", {}).get("publish_details", {})
        total = api.get("/api/overview").json()["queue_totals"].get("messages")
        held = api.get(f"/api/queues/{V}/w.unacked").json().get("messages_unacknowledged")
        if {"w.idle", "w.holder", "w.single", *(("w.publisher", "w.consumer") if busy else ())} <= names \
                and (published.get("rate") if busy else total == FILLED) and held and len(api.get("/api/consumers").json()) >= 4:
            return
        time.sleep(0.5)
    raise RuntimeError("the broker does not tell of its clients")


def main():
    """world.py HTTP_PORT AMQP_PORT: makes the world and keeps it busy until interrupted."""
    import sys
    http_port, amqp_port = map(int, sys.argv[1:3])
    populate(Api("127.0.0.1", http_port))
    fill("127.0.0.1", amqp_port)
    with Clients("127.0.0.1", amqp_port) as clients:
        print("busy", clients.failures, flush=True)
        while True:
            time.sleep(5)
            if clients.failures:
                print(clients.failures, flush=True)
                clients.failures.clear()


if __name__ == "__main__":
    main()

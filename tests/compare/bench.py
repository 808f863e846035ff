"""The bench a provocation works on: conversations with a broker, and the minutes taken of them.

A provocation is a function of a `Bench`. It opens `Talk`s, says things, and what comes back is
written down a line each in `bench.minutes`: these lines are what two brokers are compared by.

Masked, because they must differ between brokers or runs:
  amq.gen-… and amq.ctag-…  the generated part (its length and alphabet are noted by one provocation)
  reply-to tokens           everything after amq.rabbitmq.reply-to.
  values of server properties other than `capabilities` (only their names and types are compared)
  whether a socket ended by FIN or by RST: both are "socket closed"
  times: only whether something happened within a stated window
"""

import re
import struct
import time
import zlib
from dataclasses import dataclass, field

import amqp_raw as raw
from amqp_raw import Closed

PROVOCATIONS = {}       # name -> Provocation, in the order of the files

CAPABILITIES = {"publisher_confirms": True, "exchange_exchange_bindings": True, "basic.nack": True,
                "consumer_cancel_notify": True, "connection.blocked": True,
                "consumer_priorities": True, "authentication_failure_close": True,
                "per_consumer_qos": True}

# Names that provocations may use; deleted before and after each one.
QUEUES = ["cmp.q", "cmp.q2", "cmp.q3", "cmp.ok", "cmp.ok2"]
EXCHANGES = ["cmp.x", "cmp.x2", "cmp.x3", "cmp.xok", "cmp.xok2"]

# Users and vhosts the access provocations need: verbs of rabbitmqctl, run through --setup-cmd.
SETUP = [
    "add_vhost cmp_closed", "clear_permissions -p cmp_closed guest",
    "add_vhost cmp_one_connection", "set_permissions -p cmp_one_connection guest .* .* .*",
    'set_vhost_limits -p cmp_one_connection {"max-connections":1}',
    "add_vhost cmp_no_connection", "set_permissions -p cmp_no_connection guest .* .* .*",
    'set_vhost_limits -p cmp_no_connection {"max-connections":0}',
    "add_vhost cmp_one_queue", "set_permissions -p cmp_one_queue guest .* .* .*",
    'set_vhost_limits -p cmp_one_queue {"max-queues":1}',
    "add_user cmp_nothing secret",
    "add_user cmp_limited secret",
    r"set_permissions -p / cmp_limited ^cmp\.(ok|xok|c) ^cmp\.(ok|xok|w) ^cmp\.(ok|xok|r)",
    "add_user cmp_empty secret", "set_permissions -p / cmp_empty ^$ ^$ ^$",
    "add_user cmp_topic secret", "set_permissions -p / cmp_topic .* .* .*",
    "set_topic_permissions -p / cmp_topic amq.topic ^ok ^ok",
    "add_user cmp_one_connection secret", "set_permissions -p / cmp_one_connection .* .* .*",
    'set_user_limits cmp_one_connection {"max-connections":1}',
    "add_user cmp_one_channel secret", "set_permissions -p / cmp_one_channel .* .* .*",
    'set_user_limits cmp_one_channel {"max-channels":1}',
]
TEARDOWN = ["delete_vhost cmp_closed", "delete_vhost cmp_one_connection",
            "delete_vhost cmp_no_connection", "delete_vhost cmp_one_queue",
            "delete_user cmp_nothing", "delete_user cmp_limited", "delete_user cmp_empty",
            "delete_user cmp_topic", "delete_user cmp_one_connection",
            "delete_user cmp_one_channel"]


@dataclass
class Provocation:
    name: str
    group: str
    sent: str
    talk: object
    slow: bool = False
    setup: bool = False      # needs the users and vhosts of SETUP


def provocation(function=None, *, slow=False, setup=False):
    """Registers a function: its name is the provocation's, its docstring says what was sent."""
    def register(function):
        add(function.__name__, function.__doc__, function, slow, setup,
            function.__module__.split(".")[-1])
        return function
    return register(function) if function else register


def add(name, sent, talk, slow=False, setup=False, group=None):
    """Registers one of a family that is made in a loop."""
    assert name not in PROVOCATIONS, name
    group = group or talk.__module__.split(".")[-1]
    PROVOCATIONS[name] = Provocation(name, group, " ".join(sent.split()), talk, slow, setup)


def mask(text):
    text = re.sub(r"amq\.gen-[A-Za-z0-9_-]+", "amq.gen-<generated>", text)
    text = re.sub(r"amq\.ctag-[A-Za-z0-9_-]+", "amq.ctag-<generated>", text)
    return re.sub(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=_.-]+",
                  "amq.rabbitmq.reply-to.<token>", text)


def show(value):
    """A field's value, short and the same everywhere."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if len(value) > 120:
            data = value.encode()
            value = value[:40] + f"…({len(data)} bytes, crc {zlib.crc32(data):08x})"
        return f"'{value}'"
    if isinstance(value, raw.As):
        return f"{value.tag}:{value.value!r}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


def describe(name, fields):
    if name in ("channel.close", "connection.close"):
        return (f"{name} {fields['reply_code']} \"{fields['reply_text']}\" "
                f"({fields['class_id']},{fields['method_id']})")
    if name == "connection.start":
        return f"connection.start for {fields['version_major']}-{fields['version_minor']}"
    quiet = {"channel.open-ok", "connection.open-ok", "basic.get-empty"}
    shown = {} if name in quiet else fields
    return " ".join([name] + [f"{k}={show(v)}" for k, v in shown.items()])


class Talk:
    """One connection, and what was said on it."""

    def __init__(self, bench, label=""):
        self.bench, self.label = bench, label
        self.wire = raw.Wire(bench.host, bench.port)
        self.socket_closed = False       # we saw the socket end
        self.closing = False             # the broker sent connection.close
        self.closed_channels = set()     # the broker sent channel.close for them
        self.open_channels = set()       # the broker said open-ok
        self.last = {}                   # fields of the last method of each name
        self.frame_max = 131072

    # --- saying ---

    def send_bytes(self, data):
        """Sends. If the peer has hung up we still read on: its last words may be waiting for us."""
        try:
            self.wire.send_bytes(data)
        except Closed:
            pass

    def frame(self, kind, channel, payload, end=raw.FRAME_END):
        self.send_bytes(raw.encode_frame(kind, channel, payload, end))

    def say(self, channel, name, **fields):
        self.frame(raw.METHOD, channel, raw.encode_method(name, **fields))

    def header(self, channel, size, properties=None, **more):
        self.frame(raw.CONTENT_HEADER, channel,
                   raw.encode_content_header(size, properties, **more))

    def body(self, channel, data):
        self.frame(raw.BODY, channel, data)

    def publish(self, channel, exchange, routing_key, body=b"", properties=None, **flags):
        self.say(channel, "basic.publish", exchange=exchange, routing_key=routing_key, **flags)
        self.header(channel, len(body), properties)
        step = self.frame_max - 8
        for at in range(0, len(body), step):
            self.body(channel, body[at:at + step])

    # --- hearing ---

    def hear(self, seconds):
        """The next method with its content, as (channel, name, fields, line); None if silent."""
        if self.socket_closed:
            return None
        try:
            item = self.wire.read(seconds)
            if item is None:
                return None
            if isinstance(item, raw.Junk):
                return 0, "junk", {}, f"answered bytes {item.data!r}"
            if item.kind == raw.HEARTBEAT:
                return item.channel, "heartbeat", {}, "heartbeat"
            name, fields = item.method()
            if not name:
                return item.channel, "stray", {}, f"stray frame of type {item.kind}"
            line = describe(name, fields)
            if name in ("basic.deliver", "basic.return", "basic.get-ok"):
                line += self._content()
        except Closed:
            self._ended()
            return None
        self.last[name] = fields
        if name == "channel.open-ok":
            self.open_channels.add(item.channel)
        if name == "channel.close":
            self.closed_channels.add(item.channel)
        if name == "connection.close":
            self.closing = True
        return item.channel, name, fields, line

    def _content(self):
        header = self.wire.read(2)
        size, self.properties = header.content_header()
        body = b""
        while len(body) < size:
            body += self.wire.read(2).payload
        self.content = body
        shown = show(body.decode("latin1"))
        return f" body={shown} properties={show(self.properties)}"

    def _ended(self):
        if not self.socket_closed:
            self.socket_closed = True
            self.note("socket closed")

    def note(self, line):
        self.bench.note(self.label + line)

    def see(self, seconds=2.0, until=None, linger=0.04):
        """Writes down what comes, up to a method that ends the matter (or the one named)."""
        heard_any = False
        while True:
            heard = self.hear(seconds)
            if heard is None:
                if not heard_any and not self.socket_closed:
                    self.note("no answer")
                return
            heard_any = True
            channel, name, _, line = heard
            self.note(f"ch{channel}: {line}" if name != "junk" else line)
            if until:
                done = name == until or name in ("connection.close", "channel.close")
            else:
                done = name.endswith(("-ok", ".close", "get-empty")) or name == "junk"
            if done:
                seconds = linger

    def quiet(self, seconds=0.15):
        """Writes down whatever comes in that time, and nothing if nothing does."""
        while (heard := self.hear(seconds)) is not None:
            channel, _, _, line = heard
            self.note(f"ch{channel}: {line}")

    def ask(self, channel, name, **fields):
        """A question whose answer is written down."""
        self.say(channel, name, **fields)
        self.see()

    def get(self, channel, name, **fields):
        """A question that belongs to the setting up: its answer is returned, not written down."""
        self.say(channel, name, **fields)
        while (heard := self.hear(5)) is not None:
            if heard[1].startswith(name) or heard[1].startswith("basic.get"):
                return heard[2]
            self.note(f"ch{heard[0]}: {heard[3]}")
            if heard[1].endswith(".close"):
                break
        if heard is None:
            self.note(f"setting up: no answer to {name}")
        return {}

    def fence(self, channel=1):
        """Waits until the channel has done what was sent; writes down what came meanwhile.

        Cancelling an unknown consumer is a round trip that changes nothing. True if it came back.
        """
        if self.socket_closed or self.closing or channel in self.closed_channels:
            return False
        self.say(channel, "basic.cancel", consumer_tag="fence")
        while (heard := self.hear(3)) is not None:
            on, name, fields, line = heard
            if name == "basic.cancel-ok" and fields["consumer_tag"] == "fence":
                return True
            self.note(f"ch{on}: {line}")
            if name == "connection.close" or (name == "channel.close" and on == channel):
                return False
        if not self.socket_closed:
            self.note(f"ch{channel} answers nothing")
        return False

    def settled(self, channel=1):
        """For methods without an answer: fence, and say so if all went quietly."""
        before = len(self.bench.minutes)
        if self.fence(channel) and len(self.bench.minutes) == before:
            self.note("accepted in silence")

    def after(self, channel=1, other=2):
        """What stays open: the connection, another channel, the same channel's number."""
        if self.closing:
            self.say(0, "connection.close-ok")
            self.wait_closed()
            return
        if self.socket_closed or channel not in self.open_channels:
            return
        if channel in self.closed_channels:
            self.say(channel, "channel.close-ok")
            self.closed_channels.discard(channel)
            if self.fence(other):
                self.note("other channel works")
            self.say(channel, "channel.open")
            heard = self.hear(3)
            if heard and heard[1] == "channel.open-ok":
                self.note("channel number opens again")
            else:
                self.note(f"channel number does not open again: {heard and heard[3]}")
            return
        place = len(self.bench.minutes)
        if self.fence(channel):
            self.note("channel stays open")
            return
        self.bench.minutes.insert(place, f"asked on with basic.cancel on ch{channel}:")
        if self.closing:
            self.say(0, "connection.close-ok")
            self.wait_closed()

    def wait_closed(self, seconds=3.5):
        deadline = time.monotonic() + seconds
        while not self.socket_closed and time.monotonic() < deadline:
            heard = self.hear(max(0.01, deadline - time.monotonic()))
            if heard:
                self.note(f"ch{heard[0]}: {heard[3]}")
        if not self.socket_closed:
            self.note(f"socket still open after {seconds:g} s")

    # --- the beginning and the end ---

    def greet(self):
        """The protocol header; connection.start is kept in `last`, not written down."""
        self.send_bytes(raw.HEADER)
        return self.hear(5)

    def start_ok(self, user=None, password=None, mechanism="PLAIN", response=None, properties=None):
        user = self.bench.user if user is None else user
        password = self.bench.password if password is None else password
        if response is None:
            response = f"\0{user}\0{password}"
        if properties is None:
            properties = {"product": "compare", "capabilities": CAPABILITIES}
        self.say(0, "connection.start-ok", client_properties=properties, mechanism=mechanism,
                 response=response, locale="en_US")

    def tuned(self, channel_max=2047, frame_max=131072, heartbeat=0, **who):
        """Up to and with tune-ok."""
        self.greet()
        self.start_ok(**who)
        self.hear(5)
        self.frame_max = frame_max or 131072
        self.say(0, "connection.tune-ok", channel_max=channel_max, frame_max=frame_max,
                 heartbeat=heartbeat)
        return self

    def opened(self, vhost=None, channels=(1, 2), **how):
        """All the way, with channels 1 and 2 open."""
        self.tuned(**how)
        self.say(0, "connection.open", virtual_host=self.bench.vhost if vhost is None else vhost)
        heard = self.hear(5)
        if not heard or heard[1] != "connection.open-ok":
            self.note(f"setting up: connection.open: {heard and heard[3]}")
            return self
        for channel in channels:
            self.get(channel, "channel.open")
        return self

    def hang_up(self):
        """A clean end, nothing written down: after it all that the connection owned is gone."""
        try:
            if "connection.open-ok" in self.last and not self.socket_closed:
                name = "connection.close-ok" if self.closing else "connection.close"
                self.wire.method(0, name, **({} if self.closing else {"reply_code": 200}))
                deadline = time.monotonic() + 3
                while time.monotonic() < deadline:
                    frame = self.wire.read(1)
                    if frame is None or (isinstance(frame, raw.Frame)
                                         and frame.method()[0] == "connection.close-ok"):
                        break
        except (Closed, ValueError, struct.error):
            pass
        self.wire.close()


@dataclass
class Bench:
    host: str
    port: int
    user: str
    password: str
    vhost: str
    minutes: list = field(default_factory=list)
    talks: list = field(default_factory=list)

    def note(self, line):
        self.minutes.append(mask(line))

    def socket(self, label=""):
        """A connected socket, nothing said yet."""
        talk = Talk(self, label)
        self.talks.append(talk)
        return talk

    def connect(self, label="", **how):
        """A fresh, open connection with channels 1 and 2."""
        return self.socket(label).opened(**how)

    def queue_state(self, *names):
        """What a bystander sees of the queues: how many ready, how many consumers."""
        for name in names:
            self.note(f"{name}: {self._peek('queue.declare', queue=name, passive=True)}")

    def exchange_state(self, *names):
        for name in names:
            self.note(f"{name}: {self._peek('exchange.declare', exchange=name, passive=True)}")

    def _peek(self, method, **fields):
        talk = Talk(self).opened(channels=(1,))
        talk.say(1, method, **fields)
        _, name, found, _ = talk.hear(3) or (0, "silence", {}, "")
        talk.hang_up()
        if name == "queue.declare-ok":
            return f"{found['message_count']} ready, {found['consumer_count']} consumers"
        if name == "exchange.declare-ok":
            return "exists"
        return {404: "gone", 405: "locked"}.get(found.get("reply_code"), name)

    def drain(self, queue):
        """All ready messages of a queue, in order, each a line; they are gone afterwards."""
        talk = Talk(self).opened(channels=(1,))
        for _ in range(50):
            talk.say(1, "basic.get", queue=queue, no_ack=True)
            heard = talk.hear(3)
            if not heard or heard[1] != "basic.get-ok":
                break
            again = " redelivered" if heard[2]["redelivered"] else ""
            self.note(f"{queue} holds {show(talk.content.decode('latin1'))}{again}")
        talk.hang_up()

    def clean(self):
        """Hangs up every talk, then deletes every name provocations may have used.

        Returns what went wrong, nothing usually. It gives up at the first trouble, so that a
        broker that has stopped answering costs seconds and not hours.
        """
        for talk in self.talks:
            talk.hang_up()
        self.talks.clear()
        kept, self.minutes = self.minutes, []
        try:
            talk = Talk(self).opened(channels=(1,))
            for method, key, names in (("queue.delete", "queue", QUEUES),
                                       ("exchange.delete", "exchange", EXCHANGES)):
                for name in names:
                    if not self.minutes:
                        talk.get(1, method, **{key: name})
            talk.hang_up()
        except (OSError, Closed, ValueError, struct.error) as error:
            self.note(f"{type(error).__name__}: {error}")
        trouble, self.minutes = self.minutes, kept
        return trouble

    def run(self, one):
        """The minutes of one provocation."""
        trouble = self.clean()
        self.minutes = [f"BENCH before: {line}" for line in trouble]
        try:
            one.talk(self)
        except Exception as error:      # a broker that answers nonsense must not stop the round
            self.note(f"BENCH: {type(error).__name__}: {error}")
        minutes = self.minutes
        minutes += [f"BENCH after: {line}" for line in self.clean()]
        return minutes

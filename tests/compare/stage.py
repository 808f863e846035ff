"""The stage a scenario plays on: a Bench whose names are its own, so that many can play at once.

A scenario is a function of a `Stage`. Wherever it writes a name it begins it with `@`: "@q" is sent
as a name nobody else uses and read back as "@q", in queue names, routing keys, arguments, headers and
x-death alike. `s.boss` is the connection that declares and publishes, counts are asked on a third.

Masked, besides what bench.py masks:
  times within x-death, if they lie between the scenario's beginning and now: T:now
  how the broker bundles confirms (`multiple`): written down by publishing number
"""

import time
import zlib
from dataclasses import dataclass, field

import amqp_raw as raw
from amqp_raw import Closed
from bench import Bench, Talk, mask, show

SCENARIOS = {}          # name -> Scenario, in the order of the files
PATIENCE = 4.0          # seconds until what should happen is said not to
CLOCK_SLACK = 1         # seconds; x-death tells whole ones


@dataclass
class Scenario:
    name: str
    group: str
    told: str
    play: object


def scenario(play):
    """Registers a function: its name is the scenario's, its docstring tells what is played."""
    add(play.__name__, play.__doc__, play, play.__module__.split(".")[-1])
    return play


def add(name, told, play, group):
    """Registers one of a family that is made in a loop."""
    assert name not in SCENARIOS, name
    SCENARIOS[name] = Scenario(name, group, " ".join(told.split()), play)


class Actor(Talk):
    """A connection whose names are the stage's, and which writes down messages in full."""

    confirmed = 0       # the last publishing whose confirm was waited for
    properties = {}     # of the last message that came

    def say(self, channel, name, **fields):
        super().say(channel, name, **self.bench.expand(fields))

    def header(self, channel, size, properties=None, **more):
        super().header(channel, size, self.bench.expand(properties), **more)

    def _content(self):
        super()._content()
        headers = self.properties.get("headers")
        if headers and isinstance(headers.get("x-death"), list):
            headers["x-death"] = [self._death(entry) for entry in headers["x-death"]]
        return f" body={show(self.content.decode('latin1'))} properties={show(self.properties)}"

    def _death(self, entry):
        when = entry.get("time") if isinstance(entry, dict) else None
        if isinstance(when, raw.As) and when.tag == "T" and self.bench.is_now(when.value):
            return entry | {"time": raw.As("T", Now())}
        return entry

    def is_shut(self, channel):
        """Whether the broker has closed this channel: then nothing answers, and waiting is in vain."""
        return self.socket_closed or self.closing or channel in self.closed_channels

    def get(self, channel, name, **fields):
        if self.is_shut(channel):
            self.note(f"ch{channel} is closed: {name} not sent")
            return {}
        return super().get(channel, name, **fields)

    def ask(self, channel, name, **fields):
        if self.is_shut(channel):
            self.note(f"ch{channel} is closed: {name} not sent")
        else:
            super().ask(channel, name, **fields)

    def hang_up(self):
        super().hang_up()
        self.socket_closed = True        # a second time there is nothing to do

    def consume(self, queue, tag="c", channel=1, **fields):
        """Consumes; only a refusal is written down."""
        self.get(channel, "basic.consume", queue=queue, consumer_tag=tag, **fields)

    def prefetch(self, count, channel=1, **fields):
        self.get(channel, "basic.qos", prefetch_count=count, **fields)

    def messages(self, count, name="basic.deliver"):
        """Writes down what comes until `count` messages have come. Returns their delivery tags."""
        tags, deadline = [], time.monotonic() + PATIENCE
        while len(tags) < count:
            heard = self.hear(max(0.01, deadline - time.monotonic()))
            if heard is None:
                if not self.socket_closed:
                    self.note(f"{len(tags)} of {count} messages came")
                break
            self.note(f"ch{heard[0]}: {heard[3]}")
            if heard[1] == name:
                tags.append(heard[2].get("delivery_tag"))
            elif heard[1] in ("connection.close", "channel.close"):
                break
        return tags

    def confirms(self, last):
        """Writes down returns as they come, then whether the publishings up to `last` were acked."""
        verdicts, deadline = {}, time.monotonic() + PATIENCE
        awaited = range(self.confirmed + 1, last + 1)
        while len(verdicts) < len(awaited) and not self.is_shut(1):
            heard = self.hear(max(0.01, deadline - time.monotonic()))
            if heard is None:
                break
            channel, name, fields, line = heard
            if name not in ("basic.ack", "basic.nack"):
                self.note(f"ch{channel}: {line}")
                if name.endswith(".close"):
                    break
                continue
            until = fields["delivery_tag"]
            for tag in awaited:
                if tag == until or (tag < until and fields["multiple"]):
                    verdicts.setdefault(tag, name[6:])
        self.confirmed = last
        self.note("confirms " + " ".join(f"{tag}:{verdicts.get(tag, 'silence')}" for tag in awaited))

    def take(self, queue, channel=1, **fields):
        """basic.get, written down; returns the delivery tag, 0 for none."""
        if self.is_shut(channel):
            self.note(f"ch{channel} is closed: basic.get not sent")
            return 0
        self.say(channel, "basic.get", queue=queue, **fields)
        heard = self.hear(PATIENCE)
        self.note(f"got {heard[3]}" if heard else "basic.get: no answer")
        return heard[2].get("delivery_tag", 0) if heard else 0


class Now(int):
    """A time that is plausible: shown as such, and equal on all brokers."""

    def __repr__(self):
        return "now"


@dataclass
class Stage(Bench):
    name: str = ""
    token: str = ""
    queues: list = field(default_factory=list)
    exchanges: list = field(default_factory=list)

    def __post_init__(self):
        # Short: RabbitMQ cuts long values in its texts, and what is cut cannot be read back.
        self.prefix = f"{self.token}.{zlib.crc32(self.name.encode()):08x}."
        self.began = time.time()
        self._boss = self._eye = None

    # --- names and times ---

    def expand(self, value):
        """The same with this stage's names for those that begin with @."""
        if isinstance(value, str) and value.startswith("@"):
            return self.prefix + value[1:]
        if isinstance(value, list):
            return [self.expand(item) for item in value]
        if isinstance(value, dict):
            return {key: self.expand(item) for key, item in value.items()}
        return value

    def note(self, line):
        self.minutes.append(mask(line.replace(self.prefix, "@")))

    def is_now(self, seconds):
        return self.began - CLOCK_SLACK <= seconds <= time.time() + CLOCK_SLACK

    # --- who acts ---

    def socket(self, label=""):
        talk = Actor(self, label)
        self.talks.append(talk)
        return talk

    @property
    def boss(self):
        if self._boss is None:
            self._boss = self.connect()
        return self._boss

    # --- what the boss does; only refusals are written down ---

    def queue(self, name, arguments=None, **flags):
        """Declares @name; flags are those of queue.declare."""
        self.queues.append(name)
        return self.boss.get(1, "queue.declare", queue=name, arguments=arguments, **flags)

    def quorum(self, name, arguments=None):
        return self.queue(name, {"x-queue-type": "quorum"} | (arguments or {}), durable=True)

    def exchange(self, name, kind="direct", arguments=None, **flags):
        self.exchanges.append(name)
        return self.boss.get(1, "exchange.declare", exchange=name, type=kind, arguments=arguments,
                             **flags)

    def bind(self, queue, exchange, key="", arguments=None):
        self.boss.get(1, "queue.bind", queue=queue, exchange=exchange, routing_key=key,
                      arguments=arguments)

    def bind_exchange(self, destination, source, key="", arguments=None):
        self.boss.get(1, "exchange.bind", destination=destination, source=source, routing_key=key,
                      arguments=arguments)

    def publish(self, exchange, key, body="m", mandatory=False, **properties):
        self.boss.publish(1, exchange, key, body.encode(), properties, mandatory=mandatory)

    def dead_letter_queue(self, kind="direct", key="dead", name="@dead"):
        """An exchange @dlx with one queue bound by `key`."""
        self.exchange("@dlx", kind)
        self.queue(name)
        self.bind(name, "@dlx", key)

    # --- what a bystander sees ---

    def peek(self, queue):
        """(ready, consumers), or a word for why not."""
        if self._eye is None or 1 in self._eye.closed_channels or self._eye.socket_closed:
            self._eye = self.connect(channels=(1,))
        self._eye.say(1, "queue.declare", queue=queue, passive=True)
        heard = self._eye.hear(PATIENCE)
        if heard and heard[1] == "queue.declare-ok":
            return heard[2]["message_count"], heard[2]["consumer_count"]
        return {404: "gone", 405: "locked"}.get(heard[2].get("reply_code"), heard[3]) if heard \
            else "no answer"

    def state(self, queue, ready=None, consumers=None):
        """Writes down the counts, once they are the ones waited for or patience ends."""
        self.settle()
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = self.peek(queue)
            if isinstance(seen, str) or time.monotonic() > deadline or (
                    ready in (None, seen[0]) and consumers in (None, seen[1])):
                break
            time.sleep(0.01)
        self.note(f"{queue}: {seen}" if isinstance(seen, str)
                  else f"{queue}: {seen[0]} ready, {seen[1]} consumers")

    def gone(self, queue):
        """Writes down whether the queue goes away."""
        deadline = time.monotonic() + PATIENCE
        while (seen := self.peek(queue)) != "gone" and time.monotonic() < deadline:
            time.sleep(0.02)
        self.note(f"{queue}: {'gone' if seen == 'gone' else 'still there'}")

    def settle(self):
        """All that the boss published is where it was sent."""
        if self._boss:
            self._boss.fence(1)

    def wait(self, seconds):
        """For what must not happen, or must have happened by time alone."""
        self.settle()
        time.sleep(seconds)

    def drain(self, queue, ready=None, at_most=60):
        """Waits for `ready` messages, then writes down and removes what the queue holds."""
        self.state(queue, ready)
        talk = self.connect(channels=(1,))
        for _ in range(at_most):
            talk.say(1, "basic.get", queue=queue, no_ack=True)
            heard = talk.hear(PATIENCE)
            if not heard or heard[1] != "basic.get-ok":
                break
            again = "redelivered " if heard[2]["redelivered"] else ""
            content = heard[3].split(" body=", 1)[1]
            self.note(f"{queue} held {again}exchange={show(heard[2]['exchange'])} "
                      f"routing_key={show(heard[2]['routing_key'])} body={content}")

    def play(self, one):
        """The minutes of a scenario."""
        try:
            one.play(self)
        except Exception as error:      # a broker that answers nonsense must not stop the round
            self.note(f"BENCH: {type(error).__name__}: {error}")
        self.strike()
        return self.minutes

    def strike(self):
        """Hangs up, and deletes what the boss declared."""
        for talk in self.talks:
            talk.hang_up()
        try:
            talk = self.connect(channels=(1,))
            for queue in self.queues:
                talk.get(1, "queue.delete", queue=queue)
            for exchange in self.exchanges:
                talk.get(1, "exchange.delete", exchange=exchange)
            talk.hang_up()
        except (OSError, Closed, ValueError) as error:
            self.note(f"BENCH after: {type(error).__name__}: {error}")

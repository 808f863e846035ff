"""What is measured: a scenario is a function of a started broker that returns figures by name.

A figure may have goals: for the ratio of both brokers, for Garenne's figure itself, or for its ratio to
another figure of the same run, such as what the bare disk can do.
"""

import dataclasses
import operator

from brokers import START_SECONDS, Failed

PERSISTENT = ["--persistent", "--durable-queues"]
CONFIRMED = ["--confirm-window", 1000]
SMALL, KIB = ["--size", 16], ["--size", 1024]


@dataclasses.dataclass
class Goal:
    """`ratio` is ours by RabbitMQ's, `ours` the figure itself, any other word ours by that figure."""
    of: str
    compare: object
    bound: float
    text: str

    def is_met(self, ours, theirs, figures):
        value = ours if self.of == "ours" else None
        if self.of == "ratio" and theirs:
            value = ours / theirs
        elif self.of in figures and figures[self.of]:
            value = ours / figures[self.of]
        return None if value is None else self.compare(value, self.bound)


def ratio_at_least(bound):
    return Goal("ratio", operator.ge, bound, f"≥ {bound:g}×")


def ratio_at_most(bound):
    return Goal("ratio", operator.le, bound, f"≤ {bound:g}×")


def at_least(bound, text):
    return Goal("ours", operator.ge, bound, text)


def at_most(bound, text):
    return Goal("ours", operator.le, bound, text)


@dataclasses.dataclass
class Figure:
    """What is shown of a scenario. A bare one is the machine's, not a broker's: it has no ratio."""
    name: str
    title: str
    goals: list = dataclasses.field(default_factory=list)
    is_bare: bool = False


@dataclasses.dataclass
class Scenario:
    letter: str
    title: str
    measure: object
    figures: list


SCENARIOS = []


def scenario(letter, title, *figures):
    def register(measure):
        SCENARIOS.append(Scenario(letter, title, measure, list(figures)))
        return measure
    return register


def run(broker, options, *flags, seconds=None):
    """Producers and consumers for the time that was asked for."""
    return broker.perf("run", "--duration", seconds or options.seconds, *flags)


def received(found):
    return {"received/s": found["received_per_second"], "share": found["own_share_percent"]}


@scenario("A", "1 producer, 1 consumer, transient, auto-ack, 16 B",
          Figure("received/s", "received/s", [ratio_at_least(12)]))
def small(broker, options):
    return received(run(broker, options, *SMALL))


@scenario("B", "the same with 1 KiB", Figure("received/s", "received/s", [ratio_at_least(6)]))
def larger(broker, options):
    return received(run(broker, options, *KIB))


WORK = [*PERSISTENT, *KIB, *CONFIRMED, "--ack-every", 50, "--prefetch", 500]


@scenario("C", "persistent 1 KiB, confirm window 1000, ack every 50, prefetch 500",
          Figure("received/s", "received/s", [ratio_at_least(7)]))
def safe(broker, options):
    return received(run(broker, options, *WORK))


@scenario("D", "the same, 4 queues, 4 producers, 4 consumers",
          Figure("received/s", "received/s", [ratio_at_least(6)]))
def safe_four(broker, options):
    return received(run(broker, options, *WORK, "--queues", 4, "--producers", 4, "--consumers", 4))


@scenario("E", "persistent 1 KiB, confirmed, at 5,000/s",
          Figure("delivery p50", "delivery p50, µs", [ratio_at_most(0.25)]),
          Figure("delivery p99", "delivery p99, µs", [ratio_at_most(1)]),
          Figure("confirm p50", "confirm p50, µs", [ratio_at_most(1)]),
          Figure("confirm p99", "confirm p99, µs", [
              ratio_at_most(1), Goal("disk p99", operator.le, 1.5, "≤ 1.5× the bare disk")]),
          Figure("disk p99", "bare overwrite + fdatasync p99, µs", is_bare=True))
def paced(broker, options):
    found = run(broker, options, *WORK, "--rate", 5000)
    if found["published_per_second"] < 4900:
        raise Failed(f"only {found['published_per_second']:.0f}/s of 5,000/s")
    delivery, confirm = found["delivery_us"], found["confirm_us"]
    return {"delivery p50": delivery["p50"], "delivery p99": delivery["p99"],
            "confirm p50": confirm["p50"], "confirm p99": confirm["p99"],
            "disk p99": options.disk()["overwrite"]["us"]["p99"], "share": found["own_share_percent"]}


@scenario("F", "one at a time: persistent 1 KiB, confirm window 1, no consumer",
          Figure("confirmed/s", "confirmed/s",
                 [Goal("disk/s", operator.ge, 0.8, "≥ 0.8× the bare disk")]),
          Figure("disk/s", "bare overwrite + fdatasync/s", is_bare=True))
def one_at_a_time(broker, options):
    found = run(broker, options, *PERSISTENT, *KIB, "--confirm-window", 1, "--consumers", 0)
    return {"confirmed/s": found["confirmed_per_second"],
            "disk/s": options.disk()["overwrite"]["per_second"], "share": found["own_share_percent"]}


@scenario("G", "a backlog of 2,000,000 × 256 B, persistent, confirmed; then drained",
          Figure("in/s", "in/s", [ratio_at_least(20)]),
          Figure("out/s", "out/s", [ratio_at_least(25)]),
          Figure("MB full", "RSS with the backlog, MB", [at_most(100, "≤ 100 MB")]),
          Figure("MB empty", "RSS after the drain, MB"))
def backlog(broker, options):
    count = options.scaled(2_000_000)
    filled = broker.perf("fill", "--count", count, "--size", 256, *PERSISTENT, *CONFIRMED)
    drained = broker.perf("drain", "--count", count, "--ack-every", 100, "--prefetch", 1000)
    return {"in/s": filled["confirmed_per_second"], "out/s": drained["received_per_second"],
            "MB full": megabytes(filled), "MB empty": megabytes(drained), "share": filled["own_share_percent"]}


def megabytes(found):
    return found["broker_memory"]["end_kib"] * 1024 / 1e6


FANOUT = ["--exchange", "fanout", "--queues", 10, "--consumers", 10]


@scenario("H", "fanout to 10 queues, 10 consumers, transient, auto-ack",
          Figure("received/s", "deliveries/s of 16 B", [ratio_at_least(10)]),
          Figure("16 KiB/s", "deliveries/s of 16 KiB", [at_least(100_000, "≥ 100,000/s")]))
def fanout(broker, options):
    small = run(broker, options, *FANOUT, *SMALL)
    large = run(broker, options, *FANOUT, "--size", 16_384)
    return {**received(small), "16 KiB/s": large["received_per_second"]}


@scenario("I", "topic exchange: 1,000 patterns on 100 queues, 4 consumers, confirmed",
          Figure("received/s", "deliveries/s", [ratio_at_least(12)]))
def topic(broker, options):
    return received(run(broker, options, "--exchange", "topic", "--bindings", 1000, "--queues", 100,
                        "--consumers", 4, *SMALL, *CONFIRMED))


@scenario("J", "10,000 durable queues, declared and bound one request at a time",
          Figure("queues/s", "queues/s", [ratio_at_least(10)]),
          Figure("KiB each", "KiB each", [at_most(6, "≤ 6 KiB")]),
          Figure("restart", "restart until a client is in, s", [at_most(1, "< 1 s")]))
def many_queues(broker, options):
    count = options.scaled(10_000)
    declared = broker.perf("declare", "--queues", count, "--keep-queues")
    broker.stop()
    let_in = broker.perf_begin("first", "--connection-only", "--patience", START_SECONDS)
    broker.spawn()
    return {"queues/s": declared["queues_per_second"], "KiB each": declared["kib_each"],
            "restart": let_in()["connected_ms"] / 1000}


@scenario("K", "2,000 idle connections with a channel and a consumer each",
          Figure("KiB each", "KiB each", [at_most(10, "≤ 10 KiB")]),
          Figure("seconds", "seconds to open", [at_most(1, "≤ 1 s")]))
def idle(broker, options):
    found = broker.perf("idle", "--connections", options.scaled(2000))
    return {"KiB each": found["kib_each"], "seconds": found["seconds_to_open"]}


@scenario("L", "kill -9 with 1,000,000 persistent messages of 256 B in a queue, then a restart",
          Figure("first", "start to first message, s", [at_most(0.1, "≤ 0.1 s")]),
          Figure("out/s", "drained/s, 0 lost, in order"))
def crash(broker, options):
    count = options.scaled(1_000_000)
    broker.perf("fill", "--count", count, "--size", 256, *PERSISTENT, *CONFIRMED)
    broker.kill()
    first = broker.perf_begin("first", "--patience", START_SECONDS)
    broker.spawn()
    first = first()
    drained = broker.perf("drain", "--count", count, "--ack-every", 100, "--prefetch", 1000)
    return {"first": first["received_ms"] / 1000, "out/s": drained["received_per_second"]}


@scenario("M", "64 producers at full speed into one queue, 1 consumer, 16 B",
          Figure("received/s", "received/s"),
          Figure("of A", "of the rate with 1 producer, %", [at_least(80, "≥ 80 % of A")]))
def crowd(broker, options):
    alone = run(broker, options, *SMALL)
    found = run(broker, options, *SMALL, "--producers", 64)
    return {**received(found), "of A": 100 * found["received_per_second"] / alone["received_per_second"]}

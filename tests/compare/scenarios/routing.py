"""Exchange-to-exchange bindings, alternate exchanges, headers and topic matching, returns."""

from amqp_raw import As
from stage import add, scenario


def drain_all(s, *names):
    s.wait(0.05)
    for name in names:
        s.drain(name)


@scenario
def exchange_chain_of_three(s):
    """direct -> topic -> fanout -> queue: the exchange named in the delivery is the first"""
    s.exchange("@a", "direct")
    s.exchange("@b", "topic")
    s.exchange("@c", "fanout")
    s.bind_exchange("@b", "@a", "k.1")
    s.bind_exchange("@c", "@b", "k.*")
    s.queue("@q")
    s.bind("@q", "@c")
    s.publish("@a", "k.1")
    drain_all(s, "@q")


@scenario
def exchange_cycle(s):
    """two fanouts bound to each other: once a queue"""
    s.exchange("@a", "fanout")
    s.exchange("@b", "fanout")
    s.bind_exchange("@b", "@a")
    s.bind_exchange("@a", "@b")
    s.queue("@qa")
    s.queue("@qb")
    s.bind("@qa", "@a")
    s.bind("@qb", "@b")
    s.publish("@a", "k")
    drain_all(s, "@qa", "@qb")


@scenario
def exchange_two_ways_to_one_queue(s):
    """a queue reached by three ways: once"""
    s.exchange("@a", "topic")
    s.exchange("@b", "fanout")
    s.queue("@q")
    s.bind("@q", "@a", "#")
    s.bind("@q", "@a", "k.*")
    s.bind_exchange("@b", "@a", "k.1")
    s.bind("@q", "@b")
    s.publish("@a", "k.1")
    drain_all(s, "@q")


@scenario
def exchange_unbind(s):
    """exchange.unbind: no longer routed, mandatory returned"""
    s.exchange("@a", "fanout")
    s.exchange("@b", "fanout")
    s.queue("@q")
    s.bind("@q", "@b")
    s.bind_exchange("@b", "@a", "k")
    s.publish("@a", "k", "one", mandatory=True)
    s.boss.ask(1, "exchange.unbind", destination="@b", source="@a", routing_key="k")
    s.publish("@a", "k", "two", mandatory=True)
    s.boss.messages(1, "basic.return")
    drain_all(s, "@q")


@scenario
def internal_exchange_by_binding(s):
    """an internal exchange refuses publishing but takes from a binding"""
    s.exchange("@a", "fanout")
    s.exchange("@in", "fanout", internal=True)
    s.bind_exchange("@in", "@a")
    s.queue("@q")
    s.bind("@q", "@in")
    s.publish("@a", "k")
    drain_all(s, "@q")
    s.publish("@in", "k")
    s.boss.settled()


@scenario
def alternate_exchange_takes_unroutable(s):
    """unroutable goes to the alternate exchange; the delivery names the first exchange"""
    s.exchange("@alt", "fanout")
    s.exchange("@x", "direct", {"alternate-exchange": "@alt"})
    s.queue("@q")
    s.bind("@q", "@alt")
    s.publish("@x", "k", mandatory=True)
    drain_all(s, "@q")


@scenario
def alternate_exchange_chain(s):
    """alternate of the alternate"""
    s.exchange("@alt2", "fanout")
    s.exchange("@alt1", "direct", {"alternate-exchange": "@alt2"})
    s.exchange("@x", "direct", {"alternate-exchange": "@alt1"})
    s.queue("@q")
    s.bind("@q", "@alt2")
    s.publish("@x", "k", mandatory=True)
    drain_all(s, "@q")


@scenario
def alternate_exchange_cycle(s):
    """two exchanges are each other's alternate: unroutable is returned"""
    s.exchange("@a", "direct", {"alternate-exchange": "@b"})
    s.exchange("@b", "direct", {"alternate-exchange": "@a"})
    s.publish("@a", "k", mandatory=True)
    s.boss.messages(1, "basic.return")


@scenario
def alternate_exchange_missing(s):
    """the alternate exchange does not exist: as if there were none"""
    s.exchange("@x", "direct", {"alternate-exchange": "@missing"})
    s.boss.get(1, "confirm.select")
    s.publish("@x", "k", mandatory=True)
    s.boss.confirms(1)


@scenario
def alternate_exchange_of_internal_destination(s):
    """the bound exchange does not route, the alternate of it does, that of the first does not"""
    s.exchange("@alt_b", "fanout")
    s.exchange("@alt_a", "fanout")
    s.exchange("@b", "direct", {"alternate-exchange": "@alt_b"})
    s.exchange("@a", "fanout", {"alternate-exchange": "@alt_a"})
    s.bind_exchange("@b", "@a")
    for name in ("@qa", "@qb"):
        s.queue(name)
    s.bind("@qa", "@alt_a")
    s.bind("@qb", "@alt_b")
    s.publish("@a", "k")
    drain_all(s, "@qa", "@qb")


@scenario
def alternate_exchange_with_self(s):
    """an exchange that is its own alternate"""
    s.exchange("@x", "direct", {"alternate-exchange": "@x"})
    s.publish("@x", "k", mandatory=True)
    s.boss.messages(1, "basic.return")


@scenario
def alternate_exchange_is_default(s):
    """the alternate exchange is the default one: the routing key is a queue's name"""
    s.exchange("@x", "direct", {"alternate-exchange": ""})
    s.queue("@q")
    s.publish("@x", "@q")
    drain_all(s, "@q")


@scenario
def alternate_exchange_wrong_type(s):
    """alternate-exchange is a number"""
    s.exchanges.append("@x")
    s.boss.ask(1, "exchange.declare", exchange="@x", type="direct", arguments={"alternate-exchange": 1})
    s.boss.after()


@scenario
def alternate_exchange_inequivalent(s):
    """declared again with another alternate exchange, and without"""
    s.exchange("@x", "direct", {"alternate-exchange": "@a"})
    for arguments in ({"alternate-exchange": "@b"}, {}):
        s.boss.ask(2, "exchange.declare", exchange="@x", type="direct", arguments=arguments)
        s.boss.after(2, 1)


HEADERS = {"a": 1, "b": "two", "c": True, "x-own": 5}
MATCHES = {
    "all": {"x-match": "all", "a": 1, "b": "two"},
    "all_missing": {"x-match": "all", "a": 1, "d": 1},
    "any": {"x-match": "any", "a": 2, "b": "two"},
    "any_none": {"x-match": "any", "a": 2, "b": "three"},
    "default_is_all": {"a": 1, "b": "two"},
    "nothing_all": {"x-match": "all"},
    "nothing_any": {"x-match": "any"},
    "no_arguments": {},
    "void_matches_presence": {"x-match": "all", "a": None},
    "void_absent": {"x-match": "all", "d": None},
    "other_integer_type": {"x-match": "all", "a": As("l", 1)},
    "string_for_number": {"x-match": "all", "a": "1"},
    "float_for_number": {"x-match": "all", "a": 1.0},
    "x_header_ignored_in_all": {"x-match": "all", "x-own": 9},
    "x_header_counts_in_all_with_x": {"x-match": "all-with-x", "x-own": 5},
    "x_header_wrong_in_all_with_x": {"x-match": "all-with-x", "x-own": 9},
    "x_header_in_any_with_x": {"x-match": "any-with-x", "x-own": 5, "a": 7},
    "x_header_in_any": {"x-match": "any", "x-own": 5},
}
for _name, _binding in MATCHES.items():
    def _match(s, binding=_binding):
        s.exchange("@x", "headers")
        s.queue("@q")
        s.bind("@q", "@x", "", binding)
        s.publish("@x", "k", headers=HEADERS)
        s.wait(0.05)
        s.state("@q")
    add(f"headers_match_{_name}", f"headers exchange: {HEADERS} against binding {_binding}", _match, "routing")

for _name, _value in (("bogus", "some"), ("number", 1), ("upper_case", "ALL")):
    def _wrong(s, value=_value):
        s.exchange("@x", "headers")
        s.queue("@q")
        s.boss.ask(1, "queue.bind", queue="@q", exchange="@x", arguments={"x-match": value, "a": 1})
        s.boss.after()
    add(f"headers_x_match_{_name}", f"queue.bind with x-match {_value!r}", _wrong, "routing")

PATTERNS = ["a.*", "*.b", "#", "a.#", "#.b", "a.*.b", "a.#.b", "*", "", "a", "*.*", "#.#", "a..b", "A.b",
            "#.*", "*.#.*"]
for _at, _key in enumerate(["a.b", "a", "", "a.x.b", "a.x.y.b", "b.a", "a..b", ".", "a.b.", "A.b"]):
    def _topic(s, key=_key):
        s.exchange("@x", "topic")
        for at, pattern in enumerate(PATTERNS):
            s.queue(f"@q{at}")
            s.bind(f"@q{at}", "@x", pattern)
        s.publish("@x", key)
        s.settle()
        s.wait(0.05)
        matched = [pattern for at, pattern in enumerate(PATTERNS) if s.peek(f"@q{at}")[0]]
        s.note(f"key {key!r} matches {matched}")
    add(f"topic_key_{_at}", f"topic exchange: key {_key!r} against {PATTERNS}", _topic, "routing")


@scenario
def mandatory_return_before_confirm(s):
    """mandatory, unroutable, one at a time: the return comes before the ack"""
    s.boss.get(1, "confirm.select")
    for at in (1, 2, 3):
        s.publish("", "@nowhere", str(at), mandatory=True, headers={"n": at})
        s.boss.confirms(at)


@scenario
def mandatory_mixed(s):
    """routable and unroutable in turns, mandatory: returns in order"""
    s.queue("@q")
    s.boss.get(1, "confirm.select")
    for at in range(1, 7):
        s.publish("", "@q" if at % 2 else "@nowhere", str(at), mandatory=True)
    s.boss.confirms(6)
    s.drain("@q", 3)


@scenario
def mandatory_in_tx(s):
    """mandatory in a transaction: returned at the commit"""
    s.boss.get(1, "tx.select")
    s.publish("", "@nowhere", "a", mandatory=True)
    s.boss.quiet(0.15)
    s.boss.say(1, "tx.commit")
    s.boss.see(until="tx.commit-ok")


@scenario
def mandatory_to_exchange_without_bindings(s):
    """each exchange type without bindings"""
    for kind in ("direct", "fanout", "topic", "headers"):
        s.exchange(f"@{kind}", kind)
        s.publish(f"@{kind}", "k", kind, mandatory=True)
        s.boss.messages(1, "basic.return")


@scenario
def immediate_flag(s):
    """immediate"""
    s.queue("@q")
    s.boss.publish(1, "", "@q", b"m", {}, immediate=True)
    s.boss.see()
    s.boss.after()


@scenario
def default_exchange_cannot_be_bound(s):
    """queue.bind to the default exchange, exchange.bind, exchange.delete of it"""
    s.queue("@q")
    for method, fields in (("queue.bind", {"queue": "@q", "exchange": "", "routing_key": "k"}),
                           ("queue.unbind", {"queue": "@q", "exchange": "", "routing_key": "@q"}),
                           ("exchange.delete", {"exchange": ""})):
        talk = s.connect(f"{method} ")
        talk.ask(1, method, **fields)
        talk.after()


@scenario
def auto_delete_exchange_goes_with_last_binding(s):
    """an auto-delete exchange goes with its last binding"""
    s.exchange("@x", "fanout", auto_delete=True)
    s.queue("@q")
    s.bind("@q", "@x")
    s.boss.ask(1, "queue.unbind", queue="@q", exchange="@x", routing_key="")
    s.publish("@x", "k")
    s.boss.settled()


@scenario
def same_binding_twice_other_arguments(s):
    """the same key twice with other arguments: two bindings, one message"""
    s.exchange("@x")
    s.queue("@q")
    s.bind("@q", "@x", "k", {"a": 1})
    s.bind("@q", "@x", "k", {"a": 2})
    s.publish("@x", "k", "one")
    s.boss.ask(1, "queue.unbind", queue="@q", exchange="@x", routing_key="k", arguments={"a": 1})
    s.publish("@x", "k", "two")
    s.boss.ask(1, "queue.unbind", queue="@q", exchange="@x", routing_key="k", arguments={"a": 2})
    s.publish("@x", "k", "three", mandatory=True)
    s.boss.messages(1, "basic.return")
    drain_all(s, "@q")

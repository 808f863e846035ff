"""exchange.* — declare, delete, bind, unbind."""

from amqp_raw import As
from bench import add, provocation, show


def one(b, name, **fields):
    """A single method on channel 1 and what follows."""
    talk = b.connect()
    talk.ask(1, name, **fields)
    talk.after()


def with_exchange(b, declared, name, **fields):
    """An exchange cmp.x, then a single method."""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", **{"type": "direct"} | declared)
    talk.ask(1, name, **fields)
    talk.after()


# --- declare ---

@provocation
def exchange_type_unknown(b):
    """exchange.declare of type 'nonsense'"""
    one(b, "exchange.declare", exchange="cmp.x", type="nonsense")


@provocation
def exchange_type_empty(b):
    """exchange.declare of type ''"""
    one(b, "exchange.declare", exchange="cmp.x", type="")


@provocation
def exchange_type_other_case(b):
    """exchange.declare of type 'Direct'"""
    one(b, "exchange.declare", exchange="cmp.x", type="Direct")


@provocation
def exchange_type_plugin(b):
    """exchange.declare of type 'x-delayed-message' (a plugin's)"""
    one(b, "exchange.declare", exchange="cmp.x", type="x-delayed-message")


@provocation
def exchange_type_unknown_of_existing(b):
    """an existing direct exchange declared with type 'nonsense'"""
    with_exchange(b, {}, "exchange.declare", exchange="cmp.x", type="nonsense")


@provocation
def exchange_passive_missing(b):
    """passive declare of a missing exchange"""
    one(b, "exchange.declare", exchange="cmp.x", passive=True)


@provocation
def exchange_passive_ignores_all(b):
    """passive declare of a direct exchange with type 'nonsense', durable, internal and arguments"""
    with_exchange(b, {}, "exchange.declare", exchange="cmp.x", type="nonsense", passive=True,
                  durable=True, internal=True, auto_delete=True, arguments={"alternate-exchange": 5})


@provocation
def exchange_passive_empty_name(b):
    """passive declare of the default exchange"""
    one(b, "exchange.declare", exchange="", passive=True)


@provocation
def exchange_declare_default(b):
    """declare of the exchange '' of type direct"""
    one(b, "exchange.declare", exchange="", type="direct", durable=True)


INEQUIVALENT = {
    "type": ({}, {"type": "fanout"}),
    "durable": ({}, {"durable": True}),
    "durable_lost": ({"durable": True}, {}),
    "auto_delete": ({}, {"auto_delete": True}),
    "internal": ({}, {"internal": True}),
    "alternate_added": ({}, {"arguments": {"alternate-exchange": "cmp.x2"}}),
    "alternate_lost": ({"arguments": {"alternate-exchange": "cmp.x2"}}, {}),
    "alternate_other": ({"arguments": {"alternate-exchange": "cmp.x2"}},
                        {"arguments": {"alternate-exchange": "cmp.x3"}}),
    "unknown_argument": ({}, {"arguments": {"x-anything": 1}}),
    "type_and_durable": ({}, {"type": "topic", "durable": True}),
}
for _name, (_first, _second) in INEQUIVALENT.items():
    add("exchange_inequivalent_" + _name, f"exchange.declare with {_first}, again with {_second}",
        lambda b, first=_first, second=_second:
            with_exchange(b, first, "exchange.declare", exchange="cmp.x",
                          **{"type": "direct"} | second), group="exchanges")


@provocation
def exchange_amq_new(b):
    """declare of a new exchange 'amq.cmp'"""
    one(b, "exchange.declare", exchange="amq.cmp", type="direct")


@provocation
def exchange_amq_existing_equivalent(b):
    """declare of amq.direct as it is (durable)"""
    one(b, "exchange.declare", exchange="amq.direct", type="direct", durable=True)


@provocation
def exchange_amq_existing_inequivalent(b):
    """declare of amq.direct as not durable"""
    one(b, "exchange.declare", exchange="amq.direct", type="direct")


@provocation
def exchange_amq_passive_missing(b):
    """passive declare of the missing 'amq.cmp'"""
    one(b, "exchange.declare", exchange="amq.cmp", passive=True)


@provocation
def exchange_predeclared(b):
    """passive declares of amq.direct, fanout, topic, headers, match, rabbitmq.trace, rabbitmq.log"""
    b.exchange_state("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match",
                     "amq.rabbitmq.trace", "amq.rabbitmq.log", "amq.rabbitmq.event")


@provocation
def exchange_alternate_wrong_type(b):
    """declare with alternate-exchange of type integer"""
    one(b, "exchange.declare", exchange="cmp.x", type="direct", arguments={"alternate-exchange": 5})


@provocation
def exchange_alternate_missing(b):
    """declare with an alternate-exchange that does not exist; mandatory publish"""
    talk = b.connect()
    talk.ask(1, "exchange.declare", exchange="cmp.x", type="direct",
             arguments={"alternate-exchange": "cmp.missing"})
    talk.publish(1, "cmp.x", "k", b"lost", mandatory=True)
    talk.settled()


@provocation
def exchange_alternate_takes_unroutable(b):
    """an alternate fanout with a queue; mandatory publish that matches nothing"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x2", type="fanout")
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct",
             arguments={"alternate-exchange": "cmp.x2"})
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="cmp.x2")
    talk.publish(1, "cmp.x", "k", b"m", mandatory=True)
    talk.settled()
    talk.ask(1, "basic.get", queue="cmp.q", no_ack=True)


@provocation
def exchange_alternate_cycle(b):
    """two exchanges that are each other's alternate; mandatory publish"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct",
             arguments={"alternate-exchange": "cmp.x2"})
    talk.get(1, "exchange.declare", exchange="cmp.x2", type="direct",
             arguments={"alternate-exchange": "cmp.x"})
    talk.publish(1, "cmp.x", "k", b"m", mandatory=True)
    talk.settled()


# --- delete ---

@provocation
def exchange_delete_missing(b):
    """exchange.delete of a missing exchange"""
    one(b, "exchange.delete", exchange="cmp.x")


@provocation
def exchange_delete_default(b):
    """exchange.delete of ''"""
    one(b, "exchange.delete", exchange="")


@provocation
def exchange_delete_amq(b):
    """exchange.delete of amq.direct"""
    one(b, "exchange.delete", exchange="amq.direct")


@provocation
def exchange_delete_amq_missing(b):
    """exchange.delete of the missing amq.cmp"""
    one(b, "exchange.delete", exchange="amq.cmp")


@provocation
def exchange_delete_if_unused_in_use(b):
    """exchange.delete if-unused of an exchange with a binding"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct")
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="cmp.x", routing_key="k")
    talk.ask(1, "exchange.delete", exchange="cmp.x", if_unused=True)
    talk.after()
    b.exchange_state("cmp.x")


@provocation
def exchange_delete_if_unused_as_destination(b):
    """exchange.delete if-unused of an exchange that is only the destination of a binding"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct")
    talk.get(1, "exchange.bind", destination="cmp.x", source="amq.direct", routing_key="k")
    talk.ask(1, "exchange.delete", exchange="cmp.x", if_unused=True)
    talk.after()


@provocation
def exchange_auto_delete(b):
    """auto-delete: before a first binding, with one, after its unbind"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct", auto_delete=True)
    talk.get(1, "queue.declare", queue="cmp.q")
    b.exchange_state("cmp.x")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="cmp.x", routing_key="k")
    b.exchange_state("cmp.x")
    talk.get(1, "queue.unbind", queue="cmp.q", exchange="cmp.x", routing_key="k")
    b.exchange_state("cmp.x")


@provocation
def exchange_auto_delete_with_queue(b):
    """auto-delete: its only bound queue is deleted"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct", auto_delete=True)
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="cmp.x", routing_key="k")
    talk.get(1, "queue.delete", queue="cmp.q")
    b.exchange_state("cmp.x")


@provocation
def exchange_auto_delete_as_destination(b):
    """auto-delete: only ever the destination; the binding goes"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct", auto_delete=True)
    talk.get(1, "exchange.bind", destination="cmp.x", source="amq.direct", routing_key="k")
    talk.get(1, "exchange.unbind", destination="cmp.x", source="amq.direct", routing_key="k")
    b.exchange_state("cmp.x")


# --- publish to ---

@provocation
def exchange_internal_publish(b):
    """publish to an internal exchange"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="direct", internal=True)
    talk.publish(1, "cmp.x", "k", b"m")
    talk.settled()
    talk.after()


# --- bind and unbind ---

@provocation
def bind_missing_exchange(b):
    """queue.bind to a missing exchange"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.bind", queue="cmp.q", exchange="cmp.x", routing_key="k")
    talk.after()


@provocation
def bind_missing_queue(b):
    """queue.bind of a missing queue to amq.direct"""
    one(b, "queue.bind", queue="cmp.q", exchange="amq.direct", routing_key="k")


@provocation
def bind_both_missing(b):
    """queue.bind of a missing queue to a missing exchange"""
    one(b, "queue.bind", queue="cmp.q", exchange="cmp.x", routing_key="k")


@provocation
def bind_default_exchange(b):
    """queue.bind to the default exchange"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.bind", queue="cmp.q", exchange="", routing_key="k")
    talk.after()


@provocation
def unbind_default_exchange(b):
    """queue.unbind from the default exchange"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.unbind", queue="cmp.q", exchange="", routing_key="cmp.q")
    talk.after()


@provocation
def unbind_never_bound(b):
    """queue.unbind of a binding that never was"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.unbind", queue="cmp.q", exchange="amq.direct", routing_key="k")
    talk.after()


@provocation
def unbind_missing_exchange(b):
    """queue.unbind from a missing exchange"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.unbind", queue="cmp.q", exchange="cmp.x", routing_key="k")
    talk.after()


@provocation
def unbind_missing_queue(b):
    """queue.unbind of a missing queue"""
    one(b, "queue.unbind", queue="cmp.q", exchange="amq.direct", routing_key="k")


@provocation
def unbind_other_arguments(b):
    """bind with an argument, unbind without it: is the binding still there?"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="amq.direct", routing_key="cmp.k",
             arguments={"a": 1})
    talk.ask(1, "queue.unbind", queue="cmp.q", exchange="amq.direct", routing_key="cmp.k")
    talk.publish(1, "amq.direct", "cmp.k", b"m")
    talk.fence()
    b.queue_state("cmp.q")


@provocation
def bind_twice(b):
    """the same binding twice, one publish; one unbind, one publish"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for _ in range(2):
        talk.ask(1, "queue.bind", queue="cmp.q", exchange="amq.direct", routing_key="cmp.k")
    talk.publish(1, "amq.direct", "cmp.k", b"one")
    talk.fence()
    b.queue_state("cmp.q")
    talk.ask(1, "queue.unbind", queue="cmp.q", exchange="amq.direct", routing_key="cmp.k")
    talk.publish(1, "amq.direct", "cmp.k", b"two")
    talk.fence()
    b.queue_state("cmp.q")


@provocation
def bind_empty_queue_name(b):
    """queue.bind with queue '' after a declare: the last declared one; key '' stays ''?"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.bind", queue="", exchange="amq.direct", routing_key="")
    talk.publish(1, "amq.direct", "cmp.q", b"by the name")
    talk.publish(1, "amq.direct", "", b"by the empty key")
    talk.fence()
    b.drain("cmp.q")


@provocation
def bind_empty_queue_name_without_declare(b):
    """queue.bind with queue '' on a channel that declared none"""
    one(b, "queue.bind", queue="", exchange="amq.direct", routing_key="k")


@provocation
def e2e_bind_missing_source(b):
    """exchange.bind, missing source"""
    one(b, "exchange.bind", destination="amq.fanout", source="cmp.x", routing_key="k")


@provocation
def e2e_bind_missing_destination(b):
    """exchange.bind, missing destination"""
    one(b, "exchange.bind", destination="cmp.x", source="amq.fanout", routing_key="k")


@provocation
def e2e_bind_both_missing(b):
    """exchange.bind, both missing"""
    one(b, "exchange.bind", destination="cmp.x", source="cmp.x2", routing_key="k")


@provocation
def e2e_bind_default_source(b):
    """exchange.bind from the default exchange"""
    one(b, "exchange.bind", destination="amq.fanout", source="", routing_key="k")


@provocation
def e2e_bind_default_destination(b):
    """exchange.bind to the default exchange"""
    one(b, "exchange.bind", destination="", source="amq.fanout", routing_key="k")


@provocation
def e2e_unbind_missing_source(b):
    """exchange.unbind, missing source"""
    one(b, "exchange.unbind", destination="amq.fanout", source="cmp.x", routing_key="k")


@provocation
def e2e_unbind_never_bound(b):
    """exchange.unbind of a binding that never was"""
    one(b, "exchange.unbind", destination="amq.fanout", source="amq.direct", routing_key="cmp.k")


@provocation
def e2e_bind_internal_destination(b):
    """exchange.bind to an internal exchange; a publish goes through it"""
    talk = b.connect()
    talk.get(1, "exchange.declare", exchange="cmp.x", type="fanout", internal=True)
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="cmp.x")
    talk.ask(1, "exchange.bind", destination="cmp.x", source="amq.direct", routing_key="cmp.k")
    talk.publish(1, "amq.direct", "cmp.k", b"m")
    talk.ask(1, "basic.get", queue="cmp.q", no_ack=True)


@provocation
def e2e_cycle(b):
    """two fanouts bound to each other, a queue on each; one publish: one copy each"""
    talk = b.connect()
    for x, q in (("cmp.x", "cmp.q"), ("cmp.x2", "cmp.q2")):
        talk.get(1, "exchange.declare", exchange=x, type="fanout")
        talk.get(1, "queue.declare", queue=q)
        talk.get(1, "queue.bind", queue=q, exchange=x)
    talk.get(1, "exchange.bind", destination="cmp.x2", source="cmp.x")
    talk.get(1, "exchange.bind", destination="cmp.x", source="cmp.x2")
    talk.publish(1, "cmp.x", "", b"m")
    talk.fence()
    b.queue_state("cmp.q", "cmp.q2")


# --- headers exchange ---

def headers_bind(b, arguments):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.bind", queue="cmp.q", exchange="amq.headers", arguments=arguments)
    talk.after()


BAD_MATCH = {
    "x_match_nonsense": ("x-match 'nonsense'", {"x-match": "nonsense"}),
    "x_match_integer": ("x-match of type integer", {"x-match": 1}),
    "x_match_missing": ("no x-match", {"a": 1}),
    "x_match_all_with_x": ("x-match 'all-with-x' (3.10 and later)", {"x-match": "all-with-x"}),
}
for _name, (_sent, _arguments) in BAD_MATCH.items():
    add("headers_" + _name, f"bind to amq.headers with {_sent}",
        lambda b, arguments=_arguments: headers_bind(b, arguments), group="exchanges")


def headers_match(b, bound, published):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="amq.headers", arguments=bound)
    for headers in published:
        talk.publish(1, "amq.headers", "", b"m", None if headers is None else {"headers": headers})
        talk.fence()
        hit = talk.get(1, "queue.purge", queue="cmp.q").get("message_count")
        b.note(f"{headers if headers is None else show(headers)}: "
               + ("matches" if hit else "does not match"))


MATCHES = {
    "all": ({"x-match": "all", "a": 1, "b": "x"},
            [{"a": 1, "b": "x"}, {"a": 1}, {"a": 1, "b": "x", "c": 3}, {"a": "1", "b": "x"}, {}, None]),
    "any": ({"x-match": "any", "a": 1, "b": "x"}, [{"a": 1}, {"b": "x"}, {"a": 2, "b": "y"}, {}]),
    "all_of_nothing": ({"x-match": "all"}, [{"a": 1}, {}, None]),
    "any_of_nothing": ({"x-match": "any"}, [{"a": 1}, {}, None]),
    "void_means_present": ({"x-match": "all", "a": None}, [{"a": 1}, {"a": None}, {"b": 1}]),
    "x_keys_skipped": ({"x-match": "all", "x-a": 1, "b": 2}, [{"b": 2}, {"x-a": 1}, {"x-a": 2, "b": 2}]),
    "x_keys_with_x": ({"x-match": "all-with-x", "x-a": 1}, [{"x-a": 1}, {"x-a": 2}, {}]),
    "integer_widths": ({"x-match": "all", "a": As("l", 1)},
                       [{"a": As("I", 1)}, {"a": As("b", 1)}, {"a": 1.0}, {"a": True}]),
}
for _name, (_bound, _published) in MATCHES.items():
    add("headers_match_" + _name, f"amq.headers bound with {show(_bound)}; publishes with other headers",
        lambda b, bound=_bound, published=_published: headers_match(b, bound, published),
        group="exchanges")


# --- topic exchange ---

TOPICS = {
    "a.*": ["a.b", "a", "a.", "a.b.c"],
    "a.#": ["a", "a.b", "a.b.c", "b", "a."],
    "#.a": ["a", "b.a", "c.b.a", "a.b"],
    "#": ["", "a", "a.b", "."],
    "*": ["a", "", "a.b"],
    "": ["", "a"],
    "a..b": ["a..b", "a.b", "a.c.b"],
    "a.*.b": ["a..b", "a.c.b", "a.b"],
    "#.#": ["", "a", "a.b"],
    "*.#": ["", "a", "a.b"],
    "a.#.#.b": ["a.b", "a.c.b", "a.c.d.b", "a"],
    "a*": ["a*", "ab", "a"],
}


@provocation
def topic_matches(b):
    """amq.topic: 12 patterns with *, #, empty words, each against some keys"""
    talk = b.connect()
    for pattern, keys in TOPICS.items():
        talk.get(1, "queue.declare", queue="cmp.q")
        talk.get(1, "queue.bind", queue="cmp.q", exchange="amq.topic", routing_key=pattern)
        hits = []
        for key in keys:
            talk.publish(1, "amq.topic", key, b"m")
            talk.fence()
            if talk.get(1, "queue.purge", queue="cmp.q").get("message_count"):
                hits.append(key)
        b.note(f"'{pattern}' matches {hits} of {keys}")
        talk.get(1, "queue.delete", queue="cmp.q")

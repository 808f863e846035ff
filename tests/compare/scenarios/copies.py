"""CC and BCC: further routing keys in headers."""

from amqp_raw import As
from stage import add, scenario


def targets(s, kind="direct", keys=("k", "c1", "c2", "b1")):
    s.exchange("@x", kind)
    for key in keys:
        s.queue(f"@{key}")
        s.bind(f"@{key}", "@x", key)


def publish_and_drain(s, headers, keys=("k", "c1", "c2", "b1"), key="k"):
    targets(s, keys=keys)
    s.publish("@x", key, headers=headers)
    s.boss.settled()
    s.wait(0.05)
    for name in keys:
        s.drain(f"@{name}")


CASES = {
    "cc_one": {"CC": ["c1"]},
    "cc_two": {"CC": ["c1", "c2"]},
    "bcc_one": {"BCC": ["b1"]},
    "cc_and_bcc": {"CC": ["c1"], "BCC": ["b1"]},
    "cc_same_as_key": {"CC": ["k"]},
    "cc_twice": {"CC": ["c1", "c1"]},
    "cc_and_bcc_same": {"CC": ["c1"], "BCC": ["c1"]},
    "cc_empty": {"CC": []},
    "bcc_empty": {"BCC": []},
    "cc_unroutable": {"CC": ["nowhere"]},
    "cc_string": {"CC": "c1"},
    "bcc_string": {"BCC": "b1"},
    "cc_number": {"CC": 1},
    "cc_table": {"CC": {"c1": True}},
    "cc_void": {"CC": None},
    "cc_array_of_numbers": {"CC": [1, 2]},
    "cc_mixed": {"CC": ["c1", 5, "c2"]},
    "cc_binary": {"CC": [As("x", "c1")]},
    "cc_nested": {"CC": [["c1"]]},
    "cc_empty_key": {"CC": [""]},
    "lower_case": {"cc": ["c1"], "Bcc": ["b1"]},
    "between_headers": {"z": 1, "BCC": ["b1"], "CC": ["c1"], "a": 2},
    "bcc_only_header_leaves_table": {"BCC": []},
    "cc_many": {"CC": ["c1", "c2", "b1", "k", "nowhere"]},
}
for _name, _headers in CASES.items():
    add(f"copies_{_name}", f"direct exchange, key k, headers {_headers}",
        lambda s, headers=_headers: publish_and_drain(s, headers), "copies")


@scenario
def copies_cc_alone_routes(s):
    """the routing key routes nowhere, CC does: mandatory, no return"""
    targets(s)
    s.boss.get(1, "confirm.select")
    s.publish("@x", "nowhere", mandatory=True, headers={"CC": ["c1"]})
    s.boss.confirms(1)
    s.drain("@c1", 1)


@scenario
def copies_mandatory_none_routes(s):
    """neither key nor CC nor BCC route: returned; is BCC still in the returned message?"""
    targets(s)
    s.boss.get(1, "confirm.select")
    s.publish("@x", "nowhere", mandatory=True, headers={"CC": ["no"], "BCC": ["none"], "a": 1})
    s.boss.confirms(1)


@scenario
def copies_default_exchange(s):
    """default exchange: CC and BCC are queue names"""
    for name in ("@q", "@c", "@b"):
        s.queue(name)
    s.publish("", "@q", headers={"CC": ["@c"], "BCC": ["@b"]})
    for name in ("@q", "@c", "@b"):
        s.drain(name, 1)


@scenario
def copies_topic(s):
    """topic exchange: patterns match any of the keys, one copy a queue"""
    s.exchange("@x", "topic")
    for name, pattern in (("@a", "a.*"), ("@b", "b.#"), ("@all", "#"), ("@c", "c")):
        s.queue(name)
        s.bind(name, "@x", pattern)
    s.publish("@x", "a.1", headers={"CC": ["b.2.3", "a.9"], "BCC": ["c"]})
    for name in ("@a", "@b", "@all", "@c"):
        s.drain(name, 1)
    s.publish("@x", "a.1", headers={"CC": ["b.2.3", "a.9"], "BCC": ["c"]})
    s.wait(0.05)
    for name in ("@a", "@b", "@all", "@c"):
        s.state(name)


@scenario
def copies_fanout(s):
    """fanout: CC changes nothing"""
    s.exchange("@x", "fanout")
    s.queue("@q")
    s.bind("@q", "@x")
    s.publish("@x", "k", headers={"CC": ["c"]})
    s.drain("@q", 1)


@scenario
def copies_headers_exchange(s):
    """headers exchange: CC changes nothing, BCC is seen by no binding"""
    s.exchange("@x", "headers")
    for name, arguments in (("@q", {"x-match": "all", "a": 1}), ("@other", {"x-match": "all", "a": 2})):
        s.queue(name)
        s.bind(name, "@x", "c", arguments)
    s.publish("@x", "k", headers={"CC": ["c"], "a": 1})
    s.drain("@q", 1)
    s.state("@other", 0)


@scenario
def copies_through_exchange_binding(s):
    """exchange-to-exchange: CC counts at each exchange"""
    s.exchange("@x", "direct")
    s.exchange("@y", "direct")
    s.bind_exchange("@y", "@x", "k")
    s.queue("@q")
    s.bind("@q", "@y", "c")
    s.publish("@x", "k", headers={"CC": ["c"]})
    s.drain("@q", 1)


@scenario
def copies_alternate_exchange(s):
    """key and CC both unroutable: to the alternate exchange, once"""
    s.exchange("@alt", "fanout")
    s.exchange("@x", "direct", {"alternate-exchange": "@alt"})
    s.queue("@q")
    s.bind("@q", "@alt")
    s.publish("@x", "nowhere", headers={"CC": ["no"], "BCC": ["none"]})
    s.drain("@q", 1)


@scenario
def copies_alternate_exchange_not_for_part(s):
    """the key is unroutable, CC is not: the alternate exchange gets nothing"""
    s.exchange("@alt", "fanout")
    s.exchange("@x", "direct", {"alternate-exchange": "@alt"})
    s.queue("@spare")
    s.bind("@spare", "@alt")
    s.queue("@c")
    s.bind("@c", "@x", "c")
    s.publish("@x", "nowhere", headers={"CC": ["c"]})
    s.drain("@c", 1)
    s.state("@spare", 0)


@scenario
def copies_long_key_in_cc(s):
    """a CC entry longer than a short string can be"""
    s.exchange("@x", "topic")
    s.queue("@q")
    s.bind("@q", "@x", "#")
    s.publish("@x", "k", headers={"CC": ["c" * 300]})
    s.boss.settled()
    s.drain("@q", 1)


@scenario
def copies_in_tx(s):
    """CC and BCC in a transaction"""
    targets(s)
    s.boss.get(1, "tx.select")
    s.publish("@x", "k", headers={"CC": ["c1"], "BCC": ["b1"]})
    s.boss.ask(1, "tx.commit")
    for name in ("@k", "@c1", "@b1"):
        s.drain(name, 1)


@scenario
def copies_requeued(s):
    """requeued: CC is still there, BCC is not"""
    targets(s)
    s.publish("@x", "k", headers={"CC": ["c1"], "BCC": ["b1"]})
    s.settle()
    s.boss.take("@b1")
    s.boss.say(1, "basic.nack", delivery_tag=1, requeue=True)
    s.drain("@b1", 1)


@scenario
def copies_malformed_is_not_confirmed(s):
    """a wrong CC with confirms: channel.close, what came before is confirmed"""
    targets(s)
    s.boss.get(1, "confirm.select")
    s.publish("@x", "k")
    s.boss.confirms(1)
    s.publish("@x", "k", headers={"CC": 5})
    s.boss.see()
    s.boss.after()
    s.state("@k", 1)

"""Round trips: every type a header can have, and every property."""

from amqp_raw import As
from stage import add, scenario

HEADERS = {
    "bool_true": True,
    "bool_false": False,
    "byte": As("b", -128),
    "byte_positive": As("b", 127),
    "unsigned_byte": As("B", 255),
    "short": As("s", -32768),
    "unsigned_short": As("u", 65535),
    "int": As("I", -2**31),
    "unsigned_int": As("i", 2**32 - 1),
    "long": As("l", -2**63),
    "unsigned_long": As("L", 5),
    "long_small": As("l", 1),
    "float": As("f", 1.5),
    "double": As("d", -1e300),
    "double_infinity": float("inf"),
    "double_nan": float("nan"),
    "float_infinity": As("f", float("-inf")),
    "decimal": As("D", b"\x02\x00\x00\x04\xd2"),
    "decimal_negative": As("D", b"\x00\xff\xff\xff\xff"),
    "decimal_scale_255": As("D", b"\xff\x00\x00\x00\x01"),
    "string": "grüße",
    "string_empty": "",
    "string_not_utf8": b"\xff\xfe",
    "string_long": "x" * 5000,
    "timestamp": As("T", 1234567890),
    "timestamp_largest": As("T", 2**64 - 1),
    "void": None,
    "binary": As("x", b"\x00\x01\xff"),
    "binary_empty": As("x", b""),
    "array": [1, "a", True, None, As("l", 5)],
    "array_empty": [],
    "array_nested": [[1, [2, [3]]], []],
    "table": {"a": 1, "b": {"c": "d"}},
    "table_empty": {},
    "table_in_array": [{"a": 1}, {}],
    "array_of_every_type": [As("b", 1), As("B", 2), As("s", 3), As("u", 4), 5, As("i", 6), As("l", 7),
                            As("f", 8.0), 9.0, As("D", b"\0\0\0\0\x0a"), As("T", 11), As("x", b"12")],
    "unknown_type": As("Z", b"\x00"),
    "unknown_type_q": As("q", b"\x00" * 8),
}
for _name, _value in HEADERS.items():
    def _header(s, value=_value):
        s.queue("@q")
        s.publish("", "@q", headers={"first": 1, "h": value, "last": 2})
        s.boss.settled()
        s.boss.after()
        s.state("@q")
        s.drain("@q")
    add(f"header_{_name}", f"a header of type {_name.replace('_', ' ')}", _header, "properties")


def deep(levels):
    value = {"bottom": 1}
    for _ in range(levels):
        value = {"t": value}
    return value


TABLES = {
    "order_kept": {"z": 1, "a": 2, "M": 3, "b": 4},
    "key_of_128": {"k" * 128: 1},
    "key_of_255": {"k" * 255: 1},
    "key_empty": {"": 1},
    "key_utf8": {"schlüssel": 1},
    "key_twice": b"\x01aI\x00\x00\x00\x01\x01aI\x00\x00\x00\x02",
    "key_twice_apart": b"\x01aI\x00\x00\x00\x01\x01bt\x01\x01aS\x00\x00\x00\x01x",
    "empty": {},
    "hundred": {f"h{at}": at for at in range(100)},
    "deep_20": deep(20),
    "deep_100": deep(100),
    "large": {f"h{at}": "x" * 1000 for at in range(60)},
    "bool_of_2": b"\x01at\x02",
    "x_delivery_count": {"x-delivery-count": 5},
    "x_stream_offset": {"x-stream-offset": As("l", 5)},
    "x_received_from": {"x-received-from": [{"uri": "x"}]},
    "x_death_not_dead": {"x-death": [{"count": As("l", 1)}]},
}
for _name, _table in TABLES.items():
    def _headers(s, table=_table):
        s.queue("@q")
        s.publish("", "@q", headers=table)
        s.boss.settled()
        s.drain("@q")
    add(f"headers_{_name}", f"headers: {_name.replace('_', ' ')}", _headers, "properties")

EACH = {
    "content_type": ["text/plain", ""], "content_encoding": ["gzip"], "delivery_mode": [1, 2],
    "priority": [0, 9, 255], "correlation_id": ["c", "c" * 255], "reply_to": ["q", ""],
    "expiration": ["100000"], "message_id": ["m"], "timestamp": [0, 1234567890, 2**63, 2**64 - 1],
    "type": ["t"], "user_id": ["guest"], "app_id": ["a"], "cluster_id": ["c"]}
for _field, _values in EACH.items():
    def _property(s, field=_field, values=_values):
        s.queue("@q")
        for value in values:
            s.publish("", "@q", **{field: value})
        s.drain("@q", len(values))
    add(f"property_{_field}", f"{_field} alone: {[str(v)[:12] for v in _values]}", _property, "properties")

for _mode in (0, 3, 255):
    def _delivery_mode(s, mode=_mode):
        s.queue("@q")
        s.publish("", "@q", delivery_mode=mode)
        s.boss.settled()
        s.boss.after()
        s.drain("@q")
    add(f"property_delivery_mode_{_mode}", f"delivery_mode {_mode}", _delivery_mode, "properties")

ALL = {"content_type": "text/plain", "content_encoding": "utf-8", "headers": {"a": As("l", 1)},
       "delivery_mode": 2, "priority": 5, "correlation_id": "c", "reply_to": "r", "expiration": "99999",
       "message_id": "m", "timestamp": 1234567890, "type": "t", "user_id": "guest", "app_id": "a",
       "cluster_id": "x"}


@scenario
def properties_all_by_get(s):
    """all properties, basic.get"""
    s.queue("@q")
    s.publish("", "@q", **ALL)
    s.settle()
    s.boss.take("@q")


@scenario
def properties_all_by_consumer(s):
    """all properties, basic.deliver"""
    s.queue("@q")
    consumer = s.connect()
    consumer.consume("@q")
    s.publish("", "@q", **ALL)
    consumer.messages(1)


@scenario
def properties_all_returned(s):
    """all properties, basic.return"""
    s.publish("", "@nowhere", mandatory=True, **ALL)
    s.boss.messages(1, "basic.return")


@scenario
def properties_all_in_durable_queue(s):
    """all properties, durable queue, persistent"""
    s.queue("@q", durable=True)
    s.publish("", "@q", **ALL)
    s.drain("@q", 1)


@scenario
def properties_all_in_quorum_queue(s):
    """all properties, quorum queue"""
    s.quorum("@q")
    s.publish("", "@q", **ALL)
    s.drain("@q", 1)


@scenario
def properties_all_through_headers_exchange(s):
    """all properties, headers exchange"""
    s.exchange("@x", "headers")
    s.queue("@q")
    s.bind("@q", "@x", arguments={"x-match": "any", "a": 1})
    s.publish("@x", "k", **ALL)
    s.drain("@q", 1)


@scenario
def properties_none(s):
    """no property at all"""
    s.queue("@q")
    s.publish("", "@q")
    s.drain("@q", 1)


@scenario
def properties_user_id_of_another(s):
    """user_id of somebody else"""
    s.queue("@q")
    s.publish("", "@q", user_id="somebody")
    s.boss.settled()
    s.boss.after()


for _size in (0, 1, 4088, 4096, 131064, 131072, 300000):
    def _body(s, size=_size):
        s.queue("@q")
        s.publish("", "@q", ("0123456789abcdef" * (size // 16 + 1))[:size])
        s.drain("@q", 1)
    add(f"body_of_{_size}", f"a body of {_size} bytes", _body, "properties")

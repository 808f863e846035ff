"""Frames and methods that are malformed, too large, out of order or on the wrong channel."""

import struct

import amqp_raw as raw
from amqp_raw import BODY, CONTENT_HEADER, HEARTBEAT, METHOD, As
from bench import add, provocation


def lone_frame(b, kind, channel, payload, end=raw.FRAME_END):
    """A frame on an open connection, and all that follows from it."""
    talk = b.connect()
    talk.frame(kind, channel, payload, end)
    talk.see(1.5)
    talk.after()


# --- the envelope ---

@provocation
def frame_bad_end(b):
    """basic.qos on channel 1 with frame end 0x00"""
    lone_frame(b, METHOD, 1, raw.encode_method("basic.qos"), end=0)


@provocation
def frame_bad_end_on_channel_0(b):
    """a heartbeat with frame end 0x01"""
    lone_frame(b, HEARTBEAT, 0, b"", end=1)


@provocation
def frame_type_unknown(b):
    """frame type 9 on channel 1"""
    lone_frame(b, 9, 1, b"abc")


@provocation
def frame_type_unknown_on_channel_0(b):
    """frame type 9 on channel 0"""
    lone_frame(b, 9, 0, b"abc")


@provocation
def frame_type_0(b):
    """frame type 0 on channel 1"""
    lone_frame(b, 0, 1, b"")


@provocation
def frame_type_4(b):
    """frame type 4 (out of band of 0-8) on channel 1"""
    lone_frame(b, 4, 1, b"")


@provocation
def frame_too_large(b):
    """a body frame of 131073 payload bytes announced (frame_max 131072)"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.say(1, "basic.publish", routing_key="cmp.q")
    talk.header(1, 140000)
    talk.body(1, b"x" * 131073)
    talk.see()
    talk.after()


@provocation
def frame_just_fits(b):
    """a body frame of 131064 payload bytes: 131072 with its envelope"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.say(1, "basic.publish", routing_key="cmp.q")
    talk.header(1, 131064)
    talk.body(1, b"x" * 131064)
    talk.settled()
    talk.after()


@provocation
def frame_one_too_many(b):
    """a body frame of 131065 payload bytes: 131073 with its envelope"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.say(1, "basic.publish", routing_key="cmp.q")
    talk.header(1, 131065)
    talk.body(1, b"x" * 131065)
    talk.settled()
    talk.after()


@provocation
def frame_size_4_gigabytes(b):
    """a frame envelope that announces 4294967295 bytes"""
    talk = b.connect()
    talk.send_bytes(struct.pack(">BHI", METHOD, 1, 0xFFFFFFFF) + b"some bytes")
    talk.see()
    talk.after()


@provocation
def frame_empty_method(b):
    """a method frame of 0 bytes on channel 1"""
    lone_frame(b, METHOD, 1, b"")


@provocation
def frame_method_3_bytes(b):
    """a method frame of 3 bytes on channel 1"""
    lone_frame(b, METHOD, 1, b"\x00\x3c\x00")


@provocation
def frame_empty_method_on_channel_0(b):
    """a method frame of 0 bytes on channel 0"""
    lone_frame(b, METHOD, 0, b"")


@provocation
def heartbeat_on_channel_1(b):
    """a heartbeat on channel 1"""
    lone_frame(b, HEARTBEAT, 1, b"")


@provocation
def heartbeat_on_unopened_channel(b):
    """a heartbeat on channel 9"""
    lone_frame(b, HEARTBEAT, 9, b"")


@provocation
def heartbeat_with_payload(b):
    """a heartbeat on channel 0 with 3 payload bytes"""
    lone_frame(b, HEARTBEAT, 0, b"abc")


# --- channel numbers ---

@provocation
def method_on_channel_0(b):
    """queue.declare on channel 0"""
    lone_frame(b, METHOD, 0, raw.encode_method("queue.declare", queue="cmp.q"))


@provocation
def channel_open_on_channel_0(b):
    """channel.open on channel 0"""
    lone_frame(b, METHOD, 0, raw.encode_method("channel.open"))


@provocation
def header_on_channel_0(b):
    """a content header on channel 0"""
    lone_frame(b, CONTENT_HEADER, 0, raw.encode_content_header(1))


@provocation
def body_on_channel_0(b):
    """a body frame on channel 0"""
    lone_frame(b, BODY, 0, b"abc")


@provocation
def connection_method_on_channel_1(b):
    """connection.close on channel 1"""
    lone_frame(b, METHOD, 1, raw.encode_method("connection.close", reply_code=200))


@provocation
def connection_open_on_channel_1(b):
    """connection.open on channel 1"""
    lone_frame(b, METHOD, 1, raw.encode_method("connection.open", virtual_host="/"))


@provocation
def connection_method_on_unopened_channel(b):
    """connection.close on channel 9"""
    lone_frame(b, METHOD, 9, raw.encode_method("connection.close", reply_code=200))


@provocation
def channel_above_channel_max(b):
    """channel_max 10 agreed; channel.open on channel 11"""
    talk = b.connect(channel_max=10)
    talk.ask(11, "channel.open")
    talk.after()


@provocation
def channel_at_channel_max(b):
    """channel_max 10 agreed; channel.open on channel 10"""
    talk = b.connect(channel_max=10)
    talk.ask(10, "channel.open")
    talk.after(10)


@provocation
def channel_above_default_max(b):
    """channel_max 2047 agreed; channel.open on channel 2048"""
    talk = b.connect()
    talk.ask(2048, "channel.open")
    talk.after()


@provocation
def channel_65535(b):
    """channel_max 2047 agreed; channel.open on channel 65535"""
    talk = b.connect()
    talk.ask(65535, "channel.open")
    talk.after()


@provocation
def channel_count_above_channel_max(b):
    """channel_max 2 agreed; channels 1 and 2 are open; channel.open on channel 3"""
    talk = b.connect(channel_max=2)
    talk.ask(3, "channel.open")
    talk.after()


@provocation
def channel_count_after_close(b):
    """channel_max 2 agreed; channels 1 and 2 are open; close 2, open 3"""
    talk = b.connect(channel_max=2)
    talk.ask(2, "channel.close", reply_code=200)
    talk.ask(3, "channel.open")
    talk.after()


@provocation
def channel_open_twice(b):
    """channel.open on the open channel 1"""
    lone_frame(b, METHOD, 1, raw.encode_method("channel.open"))


@provocation
def method_on_unopened_channel(b):
    """queue.declare on channel 9, never opened"""
    lone_frame(b, METHOD, 9, raw.encode_method("queue.declare", queue="cmp.q"))


@provocation
def header_on_unopened_channel(b):
    """a content header on channel 9, never opened"""
    lone_frame(b, CONTENT_HEADER, 9, raw.encode_content_header(1))


@provocation
def body_on_unopened_channel(b):
    """a body frame on channel 9, never opened"""
    lone_frame(b, BODY, 9, b"abc")


@provocation
def channel_close_on_unopened_channel(b):
    """channel.close on channel 9, never opened"""
    lone_frame(b, METHOD, 9, raw.encode_method("channel.close", reply_code=200))


@provocation
def channel_close_ok_on_unopened_channel(b):
    """channel.close-ok on channel 9, never opened"""
    lone_frame(b, METHOD, 9, raw.encode_method("channel.close-ok"))


# --- classes, methods, arguments ---

@provocation
def class_unknown(b):
    """class 99 method 10 on channel 1"""
    lone_frame(b, METHOD, 1, struct.pack(">HH", 99, 10))


@provocation
def class_unknown_on_channel_0(b):
    """class 99 method 10 on channel 0"""
    lone_frame(b, METHOD, 0, struct.pack(">HH", 99, 10))


@provocation
def method_unknown(b):
    """class 50 (queue) method 99 on channel 1"""
    lone_frame(b, METHOD, 1, struct.pack(">HH", 50, 99))


@provocation
def method_unknown_on_channel_0(b):
    """class 10 (connection) method 99 on channel 0"""
    lone_frame(b, METHOD, 0, struct.pack(">HH", 10, 99))


@provocation
def method_access_request(b):
    """access.request (class 30, gone since 0-9-1)"""
    lone_frame(b, METHOD, 1, raw.encode_method("access.request", realm="/data", passive=True))


@provocation
def method_truncated(b):
    """queue.declare cut after its ticket"""
    lone_frame(b, METHOD, 1, raw.encode_method("queue.declare", queue="cmp.q")[:6])


@provocation
def method_truncated_in_name(b):
    """queue.declare cut inside the queue's name"""
    lone_frame(b, METHOD, 1, raw.encode_method("queue.declare", queue="cmp.q")[:9])


@provocation
def method_without_arguments_table(b):
    """queue.declare without its arguments table"""
    lone_frame(b, METHOD, 1, raw.encode_method("queue.declare", queue="cmp.q")[:-4])


@provocation
def method_truncated_on_channel_0(b):
    """connection.close cut after its code"""
    lone_frame(b, METHOD, 0, raw.encode_method("connection.close", reply_code=200)[:6])


@provocation
def method_trailing_garbage(b):
    """queue.declare with 4 bytes too many"""
    lone_frame(b, METHOD, 1, raw.encode_method("queue.declare", queue="cmp.q") + b"junk")


@provocation
def method_trailing_garbage_qos(b):
    """basic.qos with 4 bytes too many"""
    lone_frame(b, METHOD, 1, raw.encode_method("basic.qos") + b"junk")


@provocation
def method_trailing_garbage_ack(b):
    """basic.ack with 4 bytes too many"""
    lone_frame(b, METHOD, 1, raw.encode_method("basic.ack", delivery_tag=0, multiple=True) + b"junk")


@provocation
def method_reserved_bits_set(b):
    """queue.declare with all 8 bits of its flag octet set"""
    payload = bytearray(raw.encode_method("queue.declare", queue="cmp.q"))
    payload[12] = 0b11101000        # the reserved bits, and exclusive off, auto_delete on
    talk = b.connect()
    talk.frame(METHOD, 1, bytes(payload))
    talk.see(1.5)
    talk.after()


SERVER_METHODS = ["queue.declare-ok", "basic.deliver", "basic.consume-ok", "basic.get-empty",
                  "basic.return", "basic.cancel-ok", "channel.open-ok", "channel.flow-ok",
                  "confirm.select-ok", "basic.recover-ok", "exchange.declare-ok"]
for _method in SERVER_METHODS:
    add("client_sends_" + _method.replace(".", "_").replace("-", "_"),
        f"{_method} from the client on channel 1",
        lambda b, name=_method: lone_frame(b, METHOD, 1, raw.encode_method(name)), group="frames")

for _method in ["connection.start", "connection.tune", "connection.open-ok", "connection.blocked",
                "connection.secure", "connection.start-ok", "connection.tune-ok",
                "connection.secure-ok"]:
    add("client_sends_" + _method.replace(".", "_").replace("-", "_"),
        f"{_method} from the client on channel 0 of an open connection",
        lambda b, name=_method: lone_frame(b, METHOD, 0, raw.encode_method(name)), group="frames")


# --- tables ---

BAD_TABLES = {
    "unknown_type": ("type 'z'", b"\x01kz\x01"),
    "value_missing": ("a key and no value", b"\x01k"),
    "string_too_long": ("a string longer than the table", b"\x01kS\x00\x00\x01\x00abc"),
    "inner_table_too_long": ("an inner table longer than the table", b"\x01kF\x00\x00\x01\x00"),
    "array_too_long": ("an array longer than the table", b"\x01kA\x00\x00\x01\x00"),
    "array_bad_item": ("an array with an item of type 'z'", b"\x01kA\x00\x00\x00\x01z"),
    "key_too_long": ("a key longer than the table", b"\xffabc"),
    "bool_of_2": ("a boolean of 2", b"\x01kt\x02"),
    "type_L": ("type 'L' (the specification's long long int)", b"\x01kL" + bytes(8)),
    "type_U": ("type 'U' (the specification's short int)", b"\x01kU" + bytes(2)),
    "type_s_short_string": ("type 's' as a short string of 5 (the specification's)",
                            b"\x01ks\x05hello"),
}


def bad_table(content):
    def talk(b):
        lone_frame(b, METHOD, 1,
                   raw.encode_method("queue.declare", queue="cmp.q", arguments=content))
    return talk


for _name, (_sent, _content) in BAD_TABLES.items():
    add("table_" + _name, "queue.declare with an arguments table with " + _sent,
        bad_table(_content), group="frames")


@provocation
def table_longer_than_frame(b):
    """queue.declare whose table announces 1000 bytes more than the frame has"""
    payload = raw.encode_method("queue.declare", queue="cmp.q")[:-4] + struct.pack(">I", 1000)
    lone_frame(b, METHOD, 1, payload)


@provocation
def table_length_4_gigabytes(b):
    """queue.declare whose table announces 4294967295 bytes"""
    payload = raw.encode_method("queue.declare", queue="cmp.q")[:-4] + b"\xff\xff\xff\xff"
    lone_frame(b, METHOD, 1, payload)


@provocation
def table_key_twice(b):
    """queue.declare with x-max-length 10 and x-max-length 20; again with 10; again with 20"""
    pair = lambda n: b"\x0cx-max-lengthI" + struct.pack(">i", n)
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="cmp.q", arguments=pair(10) + pair(20))
    talk.ask(1, "queue.declare", queue="cmp.q", arguments={"x-max-length": 10})
    if talk.closed_channels:
        return talk.after()
    talk.ask(1, "queue.declare", queue="cmp.q", arguments={"x-max-length": 20})
    talk.after()


def nested(depth):
    table = {}
    for _ in range(depth):
        table = {"t": table}
    return table


@provocation
def table_nested_200_deep(b):
    """queue.declare with an argument of tables nested 200 deep"""
    lone_frame(b, METHOD, 1,
               raw.encode_method("queue.declare", queue="cmp.q", arguments=nested(200)))


@provocation
def headers_nested_200_deep(b):
    """a message whose headers are tables nested 200 deep; get: do they come back the same?"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"deep", {"headers": nested(200)})
    talk.get(1, "basic.get", queue="cmp.q")
    if "basic.get-ok" in talk.last:
        b.note("the same" if talk.properties == {"headers": nested(200)} else "changed")
    talk.after()


@provocation
def headers_table_malformed(b):
    """a message whose headers table has a value of type 'z'; then get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"bad", {"headers": b"\x01kz\x01"})
    talk.settled()
    talk.after()
    b.queue_state("cmp.q")


# --- names ---

LONG = "n" * 255


@provocation
def queue_name_255_bytes(b):
    """queue.declare of a name of 255 bytes, then delete"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue=LONG)
    talk.ask(1, "queue.delete", queue=LONG)
    talk.after()


@provocation
def exchange_name_255_bytes(b):
    """exchange.declare of a name of 255 bytes, then delete"""
    talk = b.connect()
    talk.ask(1, "exchange.declare", exchange=LONG, type="direct")
    talk.ask(1, "exchange.delete", exchange=LONG)
    talk.after()


@provocation
def queue_name_255_bytes_missing(b):
    """passive declare of a missing queue of 255 bytes: how is the reply text cut?"""
    talk = b.connect()
    talk.say(1, "queue.declare", queue=LONG, passive=True)
    talk.hear(2)
    text = talk.last.get("channel.close", {}).get("reply_text", "")
    b.note(f"{len(text)} bytes: {text[:30]}…{text[-30:]}")
    talk.after()


@provocation
def routing_key_255_bytes(b):
    """bind and publish with a routing key of 255 bytes"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.bind", queue="cmp.q", exchange="amq.direct", routing_key=LONG)
    talk.publish(1, "amq.direct", LONG, b"x")
    talk.ask(1, "basic.get", queue="cmp.q")


INVALID = b"cmp.\xff\xfe"


@provocation
def queue_name_invalid_utf8(b):
    """queue.declare of the name 'cmp.\\xff\\xfe'"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue=INVALID)
    if not talk.closed_channels and not talk.closing:
        talk.ask(1, "queue.delete", queue=INVALID)
    talk.after()


@provocation
def exchange_name_invalid_utf8(b):
    """exchange.declare of the name 'cmp.\\xff\\xfe'"""
    talk = b.connect()
    talk.ask(1, "exchange.declare", exchange=INVALID, type="direct")
    if not talk.closed_channels and not talk.closing:
        talk.ask(1, "exchange.delete", exchange=INVALID)
    talk.after()


@provocation
def routing_key_invalid_utf8(b):
    """publish to amq.direct with a routing key that is not UTF-8, bound so; get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.bind", queue="cmp.q", exchange="amq.direct", routing_key=INVALID)
    talk.publish(1, "amq.direct", INVALID, b"x")
    talk.ask(1, "basic.get", queue="cmp.q")
    talk.after()


@provocation
def consumer_tag_invalid_utf8(b):
    """consume with a consumer tag that is not UTF-8"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "basic.consume", queue="cmp.q", consumer_tag=INVALID)
    talk.after()


@provocation
def missing_name_invalid_utf8(b):
    """passive declare of a missing queue that is not UTF-8: what does the reply text hold?"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue=INVALID, passive=True)
    talk.after()


@provocation
def queue_name_with_zero_byte(b):
    """queue.declare of the name 'cmp.\\0z'"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="cmp.\0z")
    talk.ask(1, "queue.delete", queue="cmp.\0z")
    talk.after()


@provocation
def queue_name_line_feeds(b):
    """queue.declare of 'cmp\\r\\n.q': the name that comes back"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="cmp\r\n.q")
    b.queue_state("cmp.q")
    talk.after()


@provocation
def exchange_name_line_feeds(b):
    """exchange.declare of 'cmp\\r\\n.x'"""
    talk = b.connect()
    talk.ask(1, "exchange.declare", exchange="cmp\r\n.x", type="direct")
    b.exchange_state("cmp.x")
    talk.after()


# --- contents out of order ---

def contents(b, *frames):
    """A queue, then frames on channel 1, then what comes; the queue afterwards."""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for kind, payload in frames:
        talk.frame(kind, 1, payload)
    talk.see(1.0)
    talk.after()
    b.queue_state("cmp.q")


PUBLISH = (METHOD, raw.encode_method("basic.publish", routing_key="cmp.q"))
QOS = (METHOD, raw.encode_method("basic.qos"))


def header(size, **how):
    return CONTENT_HEADER, raw.encode_content_header(size, **how)


@provocation
def header_without_method(b):
    """a content header, no publish before it"""
    contents(b, header(3))


@provocation
def body_without_method(b):
    """a body frame, no publish before it"""
    contents(b, (BODY, b"abc"))


@provocation
def body_without_header(b):
    """publish, then a body frame"""
    contents(b, PUBLISH, (BODY, b"abc"))


@provocation
def method_after_publish(b):
    """publish, then basic.qos in the place of the header"""
    contents(b, PUBLISH, QOS)


@provocation
def publish_after_publish(b):
    """publish, publish"""
    contents(b, PUBLISH, PUBLISH)


@provocation
def method_after_header(b):
    """publish, header of 3 bytes, then basic.qos in the place of the body"""
    contents(b, PUBLISH, header(3), QOS)


@provocation
def method_inside_body(b):
    """publish, header of 6 bytes, 3 bytes, then basic.qos"""
    contents(b, PUBLISH, header(6), (BODY, b"abc"), QOS)


@provocation
def header_twice(b):
    """publish, header, header"""
    contents(b, PUBLISH, header(3), header(3))


@provocation
def channel_close_inside_content(b):
    """publish, header of 3 bytes, then channel.close"""
    contents(b, PUBLISH, header(3),
             (METHOD, raw.encode_method("channel.close", reply_code=200)))


@provocation
def body_longer_than_announced(b):
    """publish, header of 3 bytes, body of 5"""
    contents(b, PUBLISH, header(3), (BODY, b"abcde"))


@provocation
def body_after_complete(b):
    """publish, header of 3 bytes, body of 3, body of 2"""
    contents(b, PUBLISH, header(3), (BODY, b"abc"), (BODY, b"de"))


@provocation
def body_when_announced_empty(b):
    """publish, header of 0 bytes, body of 2"""
    contents(b, PUBLISH, header(0), (BODY, b"de"))


@provocation
def body_frame_empty_when_announced_empty(b):
    """publish, header of 0 bytes, a body frame of 0 bytes"""
    contents(b, PUBLISH, header(0), (BODY, b""))


@provocation
def body_with_empty_frames_between(b):
    """publish, header of 3 bytes, bodies of 0, 1, 0 and 2 bytes"""
    contents(b, PUBLISH, header(3), (BODY, b""), (BODY, b"a"), (BODY, b""), (BODY, b"bc"))


@provocation
def body_shorter_than_announced(b):
    """publish, header of 5 bytes, body of 3, then nothing"""
    contents(b, PUBLISH, header(5), (BODY, b"abc"))


@provocation
def heartbeat_inside_content(b):
    """publish, header, a heartbeat on channel 0, body, get"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.frame(*[PUBLISH[0], 1, PUBLISH[1]])
    talk.header(1, 3)
    talk.frame(HEARTBEAT, 0, b"")
    talk.body(1, b"abc")
    talk.ask(1, "basic.get", queue="cmp.q")
    talk.after()


@provocation
def header_wrong_class(b):
    """publish, header of class 50"""
    contents(b, PUBLISH, header(3, class_id=50), (BODY, b"abc"))


@provocation
def header_weight_not_0(b):
    """publish, header with weight 1"""
    contents(b, PUBLISH, header(3, weight=1), (BODY, b"abc"))


@provocation
def header_truncated(b):
    """publish, header of 10 bytes payload"""
    contents(b, PUBLISH, (CONTENT_HEADER, raw.encode_content_header(3)[:10]), (BODY, b"abc"))


@provocation
def header_without_flags(b):
    """publish, header of 12 bytes payload: no property flags"""
    contents(b, PUBLISH, (CONTENT_HEADER, raw.encode_content_header(3)[:12]), (BODY, b"abc"))


@provocation
def header_property_missing(b):
    """publish, header whose flags announce a content type that is not there"""
    contents(b, PUBLISH, header(3, properties=b"\x80\x00"), (BODY, b"abc"))


@provocation
def header_continuation_flag(b):
    """publish, header with the continuation flag (bit 0) and a second word of flags"""
    contents(b, PUBLISH, header(3, properties=b"\x00\x01\x00\x00"), (BODY, b"abc"))


@provocation
def header_unknown_flag(b):
    """publish, header with the unused flag (bit 1)"""
    contents(b, PUBLISH, header(3, properties=b"\x00\x02"), (BODY, b"abc"))


@provocation
def header_trailing_garbage(b):
    """publish, header with 4 bytes too many"""
    contents(b, PUBLISH, header(3, properties=b"\x00\x00junk"), (BODY, b"abc"))


@provocation
def body_size_2_to_63(b):
    """publish, header that announces 2^63 bytes"""
    contents(b, PUBLISH, header(2**63))


@provocation
def body_size_above_limit(b):
    """publish, header that announces 600 MB (no broker's limit is that high), no body"""
    contents(b, PUBLISH, header(600_000_000))


@provocation
def body_size_just_above_limit(b):
    """publish, header that announces 134217729 bytes (RabbitMQ 3.10's limit + 1), one body frame"""
    contents(b, PUBLISH, header(134217729), (BODY, b"x" * 131064))


@provocation(slow=True)
def body_above_limit_complete(b):
    """a whole message of 134217729 bytes (RabbitMQ 3.10's limit + 1)"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", bytes(134217729))
    talk.see(20)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def two_channels_interleaved(b):
    """contents of channels 1 and 2 interleaved frame by frame"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for channel in (1, 2):
        talk.say(channel, "basic.publish", routing_key="cmp.q")
    for channel in (1, 2):
        talk.header(channel, 6)
    for part in (b"abc", b"def"):
        for channel in (1, 2):
            talk.body(channel, part)
    talk.fence(1)
    talk.fence(2)
    b.drain("cmp.q")

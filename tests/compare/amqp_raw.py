"""A small AMQP 0-9-1 client on a bare socket, which will also send what is wrong.

Nothing here decides what is allowed: it turns names and values into bytes and back. `Wire` is the
socket; `encode_*` and `decode_*` are the pure halves. Only the standard library is used.

    wire = Wire("127.0.0.1", 5672)
    wire.send_bytes(HEADER)
    print(describe(wire.read(2)))          # connection.start …
"""

import socket
import struct
import time
from dataclasses import dataclass

HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, CONTENT_HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE

# Every method of the protocol: name, class id, method id, then its fields in wire order.
_METHODS_TEXT = """
connection.start 10 10 octet:version_major octet:version_minor table:server_properties longstr:mechanisms longstr:locales
connection.start-ok 10 11 table:client_properties shortstr:mechanism longstr:response shortstr:locale
connection.secure 10 20 longstr:challenge
connection.secure-ok 10 21 longstr:response
connection.tune 10 30 short:channel_max long:frame_max short:heartbeat
connection.tune-ok 10 31 short:channel_max long:frame_max short:heartbeat
connection.open 10 40 shortstr:virtual_host shortstr:capabilities bit:insist
connection.open-ok 10 41 shortstr:known_hosts
connection.close 10 50 short:reply_code shortstr:reply_text short:class_id short:method_id
connection.close-ok 10 51
connection.blocked 10 60 shortstr:reason
connection.unblocked 10 61
connection.update-secret 10 70 longstr:new_secret shortstr:reason
connection.update-secret-ok 10 71
channel.open 20 10 shortstr:out_of_band
channel.open-ok 20 11 longstr:channel_id
channel.flow 20 20 bit:active
channel.flow-ok 20 21 bit:active
channel.close 20 40 short:reply_code shortstr:reply_text short:class_id short:method_id
channel.close-ok 20 41
access.request 30 10 shortstr:realm bit:exclusive bit:passive bit:active bit:write bit:read
access.request-ok 30 11 short:ticket
exchange.declare 40 10 short:ticket shortstr:exchange shortstr:type bit:passive bit:durable bit:auto_delete bit:internal bit:nowait table:arguments
exchange.declare-ok 40 11
exchange.delete 40 20 short:ticket shortstr:exchange bit:if_unused bit:nowait
exchange.delete-ok 40 21
exchange.bind 40 30 short:ticket shortstr:destination shortstr:source shortstr:routing_key bit:nowait table:arguments
exchange.bind-ok 40 31
exchange.unbind 40 40 short:ticket shortstr:destination shortstr:source shortstr:routing_key bit:nowait table:arguments
exchange.unbind-ok 40 51
queue.declare 50 10 short:ticket shortstr:queue bit:passive bit:durable bit:exclusive bit:auto_delete bit:nowait table:arguments
queue.declare-ok 50 11 shortstr:queue long:message_count long:consumer_count
queue.bind 50 20 short:ticket shortstr:queue shortstr:exchange shortstr:routing_key bit:nowait table:arguments
queue.bind-ok 50 21
queue.purge 50 30 short:ticket shortstr:queue bit:nowait
queue.purge-ok 50 31 long:message_count
queue.delete 50 40 short:ticket shortstr:queue bit:if_unused bit:if_empty bit:nowait
queue.delete-ok 50 41 long:message_count
queue.unbind 50 50 short:ticket shortstr:queue shortstr:exchange shortstr:routing_key table:arguments
queue.unbind-ok 50 51
basic.qos 60 10 long:prefetch_size short:prefetch_count bit:global
basic.qos-ok 60 11
basic.consume 60 20 short:ticket shortstr:queue shortstr:consumer_tag bit:no_local bit:no_ack bit:exclusive bit:nowait table:arguments
basic.consume-ok 60 21 shortstr:consumer_tag
basic.cancel 60 30 shortstr:consumer_tag bit:nowait
basic.cancel-ok 60 31 shortstr:consumer_tag
basic.publish 60 40 short:ticket shortstr:exchange shortstr:routing_key bit:mandatory bit:immediate
basic.return 60 50 short:reply_code shortstr:reply_text shortstr:exchange shortstr:routing_key
basic.deliver 60 60 shortstr:consumer_tag longlong:delivery_tag bit:redelivered shortstr:exchange shortstr:routing_key
basic.get 60 70 short:ticket shortstr:queue bit:no_ack
basic.get-ok 60 71 longlong:delivery_tag bit:redelivered shortstr:exchange shortstr:routing_key long:message_count
basic.get-empty 60 72 shortstr:cluster_id
basic.ack 60 80 longlong:delivery_tag bit:multiple
basic.reject 60 90 longlong:delivery_tag bit:requeue
basic.recover-async 60 100 bit:requeue
basic.recover 60 110 bit:requeue
basic.recover-ok 60 111
basic.nack 60 120 longlong:delivery_tag bit:multiple bit:requeue
confirm.select 85 10 bit:nowait
confirm.select-ok 85 11
tx.select 90 10
tx.select-ok 90 11
tx.commit 90 20
tx.commit-ok 90 21
tx.rollback 90 30
tx.rollback-ok 90 31
"""

BY_NAME, BY_ID = {}, {}
for _line in _METHODS_TEXT.split("\n"):
    if _line:
        _name, _class, _method, *_fields = _line.split()
        _spec = [tuple(field.split(":")) for field in _fields]
        BY_NAME[_name] = (int(_class), int(_method), _spec)
        BY_ID[int(_class), int(_method)] = (_name, _spec)

# The 14 properties of class basic, most significant flag first.
PROPERTIES = [("content_type", "shortstr"), ("content_encoding", "shortstr"), ("headers", "table"),
              ("delivery_mode", "octet"), ("priority", "octet"), ("correlation_id", "shortstr"),
              ("reply_to", "shortstr"), ("expiration", "shortstr"), ("message_id", "shortstr"),
              ("timestamp", "longlong"), ("type", "shortstr"), ("user_id", "shortstr"),
              ("app_id", "shortstr"), ("cluster_id", "shortstr")]

NUMBERS = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q"}
TABLE_NUMBERS = {"t": ">?", "b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I",
                 "l": ">q", "L": ">Q", "f": ">f", "d": ">d", "T": ">Q"}


class Closed(Exception):
    """The peer closed the socket: an orderly end and a reset are the same to us."""


@dataclass
class As:
    """A table value with its type tag said outright: As('b', 5). Unknown tags take bytes."""
    tag: str
    value: object


# --- encoding ---------------------------------------------------------------------------------

def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def encode_shortstr(text):
    text = as_bytes(text)
    return bytes([len(text)]) + text


def encode_longstr(text):
    text = as_bytes(text)
    return struct.pack(">I", len(text)) + text


def encode_value(value):
    if isinstance(value, As):
        if value.tag in TABLE_NUMBERS:
            return value.tag.encode() + struct.pack(TABLE_NUMBERS[value.tag], value.value)
        if value.tag in "Sx":
            return value.tag.encode() + encode_longstr(value.value)
        return value.tag.encode() + value.value
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t" + bytes([value])
    if isinstance(value, int):
        fits = -2**31 <= value < 2**31
        return (b"I" + struct.pack(">i", value)) if fits else (b"l" + struct.pack(">q", value))
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    if isinstance(value, (str, bytes)):
        return b"S" + encode_longstr(value)
    if isinstance(value, dict):
        return b"F" + encode_table(value)
    if isinstance(value, list):
        return b"A" + encode_longstr(b"".join(encode_value(item) for item in value))
    raise TypeError(f"no table type for {value!r}")


def encode_table(table):
    """A table from a dict; from bytes, those bytes as the table's content, right or wrong."""
    if isinstance(table, bytes):
        return encode_longstr(table)
    return encode_longstr(b"".join(encode_shortstr(k) + encode_value(v) for k, v in table.items()))


def encode_field(kind, value):
    if kind in NUMBERS:
        return struct.pack(NUMBERS[kind], value or 0)
    if kind == "shortstr":
        return encode_shortstr(value or "")
    if kind == "longstr":
        return encode_longstr(value or "")
    return encode_table(value or {})


def encode_method(name, **values):
    """A method's frame payload. Fields left out are 0, empty or false."""
    class_id, method_id, spec = BY_NAME[name]
    unknown = set(values) - {field for _, field in spec}
    if unknown:
        raise TypeError(f"{name} has no {unknown}")
    out = struct.pack(">HH", class_id, method_id)
    bits, count = 0, 0
    for kind, field in spec + [("end", "")]:
        if kind == "bit":
            bits |= bool(values.get(field)) << count
            count += 1
            continue
        if count:
            out, bits, count = out + bytes([bits]), 0, 0
        if kind != "end":
            out += encode_field(kind, values.get(field))
    return out


def encode_properties(**values):
    flags, out = 0, b""
    for place, (field, kind) in enumerate(PROPERTIES):
        if field in values:
            flags |= 1 << (15 - place)
            out += encode_field(kind, values[field])
    return struct.pack(">H", flags) + out


def encode_content_header(size, properties=None, class_id=60, weight=0):
    """`properties`: a dict, or bytes that stand for flags and values together."""
    if not isinstance(properties, bytes):
        properties = encode_properties(**(properties or {}))
    return struct.pack(">HHQ", class_id, weight, size) + properties


def encode_frame(kind, channel, payload, end=FRAME_END):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


# --- decoding ---------------------------------------------------------------------------------

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("short of bytes")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, form):
        return self.take(self.number(form)).decode("utf-8", "backslashreplace")

    def field(self, kind):
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == "shortstr":
            return self.text(">B")
        if kind == "longstr":
            return self.text(">I")
        return self.table()

    def table(self):
        inner, out = Reader(self.take(self.number(">I"))), {}
        while inner.at < len(inner.data):
            key = inner.text(">B")
            while key in out:       # a table may name a key twice; a dict must not hide it
                key += " (again)"
            out[key] = inner.value()
        return out

    def value(self):
        tag = self.take(1).decode("latin1")
        if tag == "F":
            return self.table()
        if tag == "A":
            inner, out = Reader(self.take(self.number(">I"))), []
            while inner.at < len(inner.data):
                out.append(inner.value())
            return out
        if tag == "S":
            return self.text(">I")
        if tag in ("I", "t"):
            return self.number(TABLE_NUMBERS[tag])
        if tag == "V":
            return None
        # Less usual types keep their tag, so that a broker that changes it is seen.
        if tag in TABLE_NUMBERS:
            return As(tag, self.number(TABLE_NUMBERS[tag]))
        if tag == "x":
            return As(tag, self.take(self.number(">I")))
        if tag == "D":
            return As(tag, self.take(5))
        raise ValueError(f"unknown table type {tag!r}")


@dataclass
class Frame:
    kind: int
    channel: int
    payload: bytes
    end: int = FRAME_END

    def method(self):
        """(name, fields) of a method frame, ('', {}) of any other."""
        if self.kind != METHOD:
            return "", {}
        reader = Reader(self.payload)
        class_id, method_id = reader.number(">H"), reader.number(">H")
        if (class_id, method_id) not in BY_ID:
            return f"unknown method {class_id}.{method_id}", {}
        name, spec = BY_ID[class_id, method_id]
        fields, bits, count = {}, 0, 8
        for kind, field in spec:
            if kind != "bit":
                fields[field], count = reader.field(kind), 8
                continue
            if count == 8:
                bits, count = reader.take(1)[0], 0
            fields[field] = bool(bits >> count & 1)
            count += 1
        return name, fields

    def content_header(self):
        """(body size, properties) of a content header frame."""
        reader = Reader(self.payload)
        _class, _weight, size, flags = struct.unpack(">HHQH", reader.take(14))
        properties = {}
        for place, (field, kind) in enumerate(PROPERTIES):
            if flags & 1 << (15 - place):
                properties[field] = reader.field(kind)
        return size, properties


@dataclass
class Junk:
    """Bytes that are no frame, such as the protocol header a broker answers."""
    data: bytes


# --- the socket -------------------------------------------------------------------------------

class Wire:
    def __init__(self, host, port, timeout=5):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send_bytes(self, data):
        try:
            self.socket.settimeout(10)
            self.socket.sendall(data)
        except (ConnectionError, socket.timeout) as error:
            raise Closed() from error

    def frame(self, kind, channel, payload, end=FRAME_END):
        self.send_bytes(encode_frame(kind, channel, payload, end))

    def method(self, channel, name, **values):
        self.frame(METHOD, channel, encode_method(name, **values))

    def read(self, seconds):
        """The next Frame (or Junk), None if none came in time; Closed if the socket is."""
        deadline = time.monotonic() + seconds
        while True:
            item = self._cut()
            if item is not None:
                return item
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except socket.timeout:
                return None
            except ConnectionError:
                data = b""
            if not data:
                raise Closed()
            self.buffer += data

    def _cut(self):
        if self.buffer[:4] == b"AMQP" and len(self.buffer) >= 8:
            junk, self.buffer = self.buffer[:8], self.buffer[8:]
            return Junk(junk)
        if self.buffer and self.buffer[0] not in (METHOD, CONTENT_HEADER, BODY, HEARTBEAT, ord("A")):
            junk, self.buffer = self.buffer, b""
            return Junk(junk)
        if len(self.buffer) < 7:
            return None
        kind, channel, size = struct.unpack(">BHI", self.buffer[:7])
        if len(self.buffer) < size + 8:
            return None
        frame = Frame(kind, channel, self.buffer[7:7 + size], self.buffer[7 + size])
        self.buffer = self.buffer[size + 8:]
        return frame

    def close(self):
        self.socket.close()

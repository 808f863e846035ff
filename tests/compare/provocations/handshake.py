"""From the first byte to connection.open-ok, and all that can go wrong on the way."""

import time

import amqp_raw as raw
from bench import CAPABILITIES, add, provocation

# --- first bytes ---

FIRST_BYTES = {
    "header_0_8": ("the old header AMQP 1 1 8 0", b"AMQP\x01\x01\x08\x00"),
    "header_0_9": ("the old header AMQP 1 1 0 9", b"AMQP\x01\x01\x00\x09"),
    "header_0_9_1_bad_revision": ("AMQP 0 0 9 2", b"AMQP\x00\x00\x09\x02"),
    "header_0_10": ("the header of 0-10: AMQP 1 1 0 10", b"AMQP\x01\x01\x00\x0a"),
    "header_1_0": ("the header of AMQP 1.0: AMQP 0 1 0 0", b"AMQP\x00\x01\x00\x00"),
    "header_1_0_sasl": ("the SASL header of AMQP 1.0: AMQP 3 1 0 0", b"AMQP\x03\x01\x00\x00"),
    "header_junk": ("8 bytes that are nothing: 'xyzzyxyz'", b"xyzzyxyz"),
    "header_http": ("GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "header_tls": ("the beginning of a TLS ClientHello",
                   bytes.fromhex("16030100c8010000c40303") + bytes(190)),
    "header_mqtt": ("an MQTT CONNECT", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test"),
    "header_zeros": ("8 zero bytes", bytes(8)),
}


def first_bytes(data):
    def talk(b):
        talk = b.socket()
        talk.send_bytes(data)
        talk.see(5, until="connection.start")
        talk.wait_closed()
    return talk


for _name, (_sent, _data) in FIRST_BYTES.items():
    add(_name, _sent, first_bytes(_data), group="handshake")


@provocation(slow=True)
def header_half(b):
    """4 bytes 'AMQP', then silence: closed within 8 to 14 s?"""
    talk = b.socket()
    talk.send_bytes(b"AMQP")
    closed_between(b, talk, 8, 14)


@provocation(slow=True)
def header_never(b):
    """a socket without a byte: closed within 8 to 14 s?"""
    closed_between(b, b.socket(), 8, 14)


@provocation(slow=True)
def start_ok_never(b):
    """the header, then silence: closed within 8 to 14 s?"""
    talk = b.socket()
    talk.greet()
    closed_between(b, talk, 8, 14)


def closed_between(b, talk, low, high):
    began = time.monotonic()
    talk.wait_closed(high)
    took = time.monotonic() - began
    b.note(f"within {low} to {high} s" if low <= took <= high else f"after {took:.1f} s")


# --- login ---

def start_ok(b, **how):
    """The header and start-ok; what comes up to the end of the socket."""
    talk = b.socket()
    talk.greet()
    talk.start_ok(**how)
    talk.see(6, until="connection.tune")
    talk.after()
    if talk.socket_closed or "connection.tune" in talk.last:
        return talk
    talk.wait_closed()
    return talk


NO_CAPABILITIES = {"product": "compare"}


@provocation
def mechanism_unknown(b):
    """start-ok with mechanism FOO, client with authentication_failure_close"""
    start_ok(b, mechanism="FOO")


@provocation
def mechanism_unknown_no_capability(b):
    """start-ok with mechanism FOO, client without capabilities"""
    start_ok(b, mechanism="FOO", properties=NO_CAPABILITIES)


@provocation
def mechanism_empty(b):
    """start-ok with an empty mechanism"""
    start_ok(b, mechanism="")


@provocation
def mechanism_external(b):
    """start-ok with mechanism EXTERNAL without TLS"""
    start_ok(b, mechanism="EXTERNAL", response="guest")


@provocation
def mechanism_anonymous(b):
    """start-ok with mechanism ANONYMOUS"""
    start_ok(b, mechanism="ANONYMOUS", response="")


@provocation
def password_wrong(b):
    """PLAIN with a wrong password, client with authentication_failure_close"""
    start_ok(b, password="wrong")


@provocation
def password_wrong_no_capability(b):
    """PLAIN with a wrong password, client without capabilities; silent for how long (2 to 5 s)?"""
    began = time.monotonic()
    start_ok(b, password="wrong", properties=NO_CAPABILITIES)
    took = time.monotonic() - began
    b.note("after 2 to 5 s" if 2 <= took <= 5 else f"after {took:.1f} s")


@provocation
def password_empty(b):
    """PLAIN with an empty password"""
    start_ok(b, password="")


@provocation
def user_unknown(b):
    """PLAIN with an unknown user"""
    start_ok(b, user="cmp_nobody", password="x")


@provocation
def user_empty(b):
    """PLAIN with an empty user name"""
    start_ok(b, user="", password="x")


@provocation
def user_invalid_utf8(b):
    """PLAIN with a user name that is not UTF-8"""
    start_ok(b, response=b"\0\xff\xfe\0guest")


@provocation
def plain_response_malformed(b):
    """PLAIN with a response without zero bytes: 'guestguest'"""
    start_ok(b, response="guestguest")


@provocation
def plain_response_with_authzid(b):
    """PLAIN with an authorization id: 'guest\\0guest\\0guest'"""
    start_ok(b, response=f"{b.user}\0{b.user}\0{b.password}")


@provocation
def amqplain_right(b):
    """AMQPLAIN with LOGIN and PASSWORD"""
    start_ok(b, mechanism="AMQPLAIN",
             response=raw.encode_table({"LOGIN": b.user, "PASSWORD": b.password})[4:])


@provocation
def amqplain_wrong(b):
    """AMQPLAIN with a wrong password"""
    start_ok(b, mechanism="AMQPLAIN",
             response=raw.encode_table({"LOGIN": b.user, "PASSWORD": "wrong"})[4:])


@provocation
def amqplain_malformed(b):
    """AMQPLAIN with a response that is no table"""
    start_ok(b, mechanism="AMQPLAIN", response=b"\xff\xff\xff")


@provocation
def amqplain_without_password(b):
    """AMQPLAIN with LOGIN only"""
    start_ok(b, mechanism="AMQPLAIN", response=raw.encode_table({"LOGIN": b.user})[4:])


@provocation
def locale_unknown(b):
    """start-ok with locale xx_XX"""
    talk = b.socket()
    talk.greet()
    talk.say(0, "connection.start-ok", client_properties={}, mechanism="PLAIN",
             response=f"\0{b.user}\0{b.password}", locale="xx_XX")
    talk.see(5, until="connection.tune")
    talk.after()


@provocation
def client_capabilities_not_a_table(b):
    """start-ok with client property capabilities = 'text'"""
    start_ok(b, properties={"capabilities": "text"})


@provocation
def first_method_open(b):
    """connection.open in the place of start-ok"""
    talk = b.socket()
    talk.greet()
    talk.say(0, "connection.open", virtual_host="/")
    talk.see(5)
    talk.after()


@provocation
def first_method_on_channel_1(b):
    """channel.open on channel 1 in the place of start-ok"""
    talk = b.socket()
    talk.greet()
    talk.say(1, "channel.open")
    talk.see(5)
    talk.after()


@provocation
def first_frame_too_large(b):
    """a start-ok frame of 200 kB (larger than what is allowed before tune)"""
    talk = b.socket()
    talk.greet()
    talk.start_ok(properties={"capabilities": CAPABILITIES, "note": "x" * 200000})
    talk.see(5, until="connection.tune")
    talk.after()


@provocation
def first_frame_of_5000_bytes(b):
    """a start-ok frame of 5000 bytes (larger than frame-min-size)"""
    talk = b.socket()
    talk.greet()
    talk.start_ok(properties={"capabilities": CAPABILITIES, "note": "x" * 5000})
    talk.see(5, until="connection.tune")
    talk.after()


@provocation
def close_before_open(b):
    """connection.close after tune"""
    talk = b.socket()
    talk.greet()
    talk.start_ok()
    talk.hear(5)
    talk.say(0, "connection.close", reply_code=200, reply_text="bye")
    talk.see(3)
    talk.after()


# --- tune ---

def tune_ok(b, **values):
    talk = b.socket()
    talk.greet()
    talk.start_ok()
    talk.hear(5)
    talk.say(0, "connection.tune-ok", **values)
    talk.say(0, "connection.open", virtual_host=b.vhost)
    talk.see(5)
    talk.after()
    return talk


@provocation
def tune_frame_max_higher(b):
    """tune-ok with frame_max 131073, then connection.open"""
    tune_ok(b, channel_max=2047, frame_max=131073, heartbeat=0)


@provocation
def tune_channel_max_higher(b):
    """tune-ok with channel_max 2048, then connection.open"""
    tune_ok(b, channel_max=2048, frame_max=131072, heartbeat=0)


@provocation
def tune_channel_max_65535(b):
    """tune-ok with channel_max 65535, then connection.open"""
    tune_ok(b, channel_max=65535, frame_max=131072, heartbeat=0)


@provocation
def tune_frame_max_0(b):
    """tune-ok with frame_max 0 (no limit), then connection.open"""
    tune_ok(b, channel_max=2047, frame_max=0, heartbeat=0)


@provocation
def tune_channel_max_0(b):
    """tune-ok with channel_max 0 (no limit), then connection.open"""
    tune_ok(b, channel_max=0, frame_max=131072, heartbeat=0)


@provocation
def tune_frame_max_4096(b):
    """tune-ok with frame_max 4096, then connection.open"""
    tune_ok(b, channel_max=2047, frame_max=4096, heartbeat=0)


@provocation
def tune_frame_max_4095(b):
    """tune-ok with frame_max 4095, then connection.open"""
    tune_ok(b, channel_max=2047, frame_max=4095, heartbeat=0)


@provocation
def tune_frame_max_1(b):
    """tune-ok with frame_max 1, then connection.open"""
    tune_ok(b, channel_max=2047, frame_max=1, heartbeat=0)


@provocation
def tune_heartbeat_higher(b):
    """tune-ok with heartbeat 1000 (the server offers 60), then connection.open"""
    tune_ok(b, channel_max=2047, frame_max=131072, heartbeat=1000)


@provocation
def tune_frame_max_lower_is_kept(b):
    """frame_max 4096; a message of 10000 bytes; the sizes of the body frames that come back"""
    talk = b.connect(frame_max=4096)
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"x" * 10000)
    talk.say(1, "basic.get", queue="cmp.q")
    for _ in range(6):
        frame = talk.wire.read(1)
        if frame is None:
            break
        b.note(f"frame type {frame.kind}" +
               (f" payload {len(frame.payload)}" if frame.kind == raw.BODY else ""))


@provocation
def tune_frame_max_0_no_limit(b):
    """frame_max 0; a message of 300000 bytes in one body frame; the frames that come back"""
    talk = b.connect(frame_max=0)
    if not talk.open_channels:
        return
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.frame_max = 1 << 20
    talk.publish(1, "", "cmp.q", b"x" * 300000)
    if not talk.fence():
        return talk.after()
    talk.say(1, "basic.get", queue="cmp.q")
    for _ in range(6):
        frame = talk.wire.read(1)
        if frame is None:
            break
        b.note(f"frame type {frame.kind}" +
               (f" payload {len(frame.payload)}" if frame.kind == raw.BODY else ""))


@provocation
def tune_ok_twice(b):
    """tune-ok, tune-ok, connection.open"""
    talk = b.socket().tuned()
    tune = {"channel_max": 2047, "frame_max": 131072, "heartbeat": 0}
    talk.say(0, "connection.tune-ok", **tune)
    talk.say(0, "connection.open", virtual_host="/")
    talk.see(5)
    talk.after()


@provocation
def start_ok_twice(b):
    """start-ok, start-ok"""
    talk = b.socket()
    talk.greet()
    talk.start_ok()
    talk.hear(5)
    talk.start_ok()
    talk.see(5)
    talk.after()


@provocation
def open_without_tune_ok(b):
    """connection.open in the place of tune-ok"""
    talk = b.socket()
    talk.greet()
    talk.start_ok()
    talk.hear(5)
    talk.say(0, "connection.open", virtual_host="/")
    talk.see(5)
    talk.after()


# --- open ---

def open_vhost(b, vhost, **who):
    talk = b.socket().tuned(**who)
    talk.say(0, "connection.open", virtual_host=vhost)
    talk.see(5)
    talk.after()


@provocation
def vhost_unknown(b):
    """connection.open of vhost cmp_missing"""
    open_vhost(b, "cmp_missing")


@provocation
def vhost_empty(b):
    """connection.open of vhost ''"""
    open_vhost(b, "")


@provocation
def vhost_255_bytes(b):
    """connection.open of a vhost of 255 bytes"""
    open_vhost(b, "v" * 255)


@provocation
def vhost_invalid_utf8(b):
    """connection.open of a vhost that is not UTF-8: 'v\\xff'"""
    open_vhost(b, b"v\xff")


@provocation(setup=True)
def vhost_no_access(b):
    """connection.open of vhost cmp_closed, which guest has no permissions in"""
    open_vhost(b, "cmp_closed")


@provocation(setup=True)
def vhost_no_access_user_without_any(b):
    """connection.open of / by a user without permissions in any vhost"""
    open_vhost(b, "/", user="cmp_nothing", password="secret")


@provocation(setup=True)
def vhost_unknown_for_restricted_user(b):
    """connection.open of an unknown vhost by a user without permissions"""
    open_vhost(b, "cmp_missing", user="cmp_nothing", password="secret")


@provocation(setup=True)
def vhost_connection_limit_0(b):
    """connection.open of a vhost with max-connections 0"""
    open_vhost(b, "cmp_no_connection")


@provocation(setup=True)
def vhost_connection_limit_1(b):
    """the second connection.open of a vhost with max-connections 1"""
    b.connect("first: ", vhost="cmp_one_connection")
    time.sleep(0.3)
    open_vhost(b, "cmp_one_connection")


@provocation(setup=True)
def user_connection_limit_1(b):
    """the second connection of a user with max-connections 1"""
    who = {"user": "cmp_one_connection", "password": "secret"}
    b.connect("first: ", **who)
    time.sleep(0.3)
    open_vhost(b, "/", **who)


@provocation
def open_twice(b):
    """connection.open on an open connection"""
    talk = b.connect()
    talk.ask(0, "connection.open", virtual_host="/")
    talk.after()


@provocation
def method_before_open(b):
    """channel.open after tune-ok, without connection.open"""
    talk = b.socket().tuned()
    talk.say(1, "channel.open")
    talk.see(3)
    talk.after()


@provocation
def pipelined_handshake(b):
    """header, start-ok, tune-ok, open, channel.open and queue.declare in one write"""
    talk = b.socket()
    frame = lambda channel, name, **f: raw.encode_frame(1, channel, raw.encode_method(name, **f))
    talk.send_bytes(raw.HEADER + frame(0, "connection.start-ok", client_properties={},
                                       mechanism="PLAIN", locale="en_US",
                                       response=f"\0{b.user}\0{b.password}")
                    + frame(0, "connection.tune-ok", channel_max=2047, frame_max=131072)
                    + frame(0, "connection.open", virtual_host=b.vhost)
                    + frame(1, "channel.open") + frame(1, "queue.declare", queue="cmp.q"))
    for _ in range(5):
        heard = talk.hear(3)
        if heard is None:
            break
        b.note(f"ch{heard[0]}: {heard[1]}")
    talk.last.setdefault("connection.open-ok", {})


# --- after open ---

@provocation
def update_secret(b):
    """connection.update-secret on an open connection (the user has a password, no token)"""
    talk = b.connect()
    talk.ask(0, "connection.update-secret", new_secret=b.password, reason="test")
    talk.after()


@provocation
def update_secret_wrong(b):
    """connection.update-secret with a wrong password"""
    talk = b.connect()
    talk.ask(0, "connection.update-secret", new_secret="wrong", reason="test")
    talk.after()


@provocation(slow=True)
def heartbeat_interval_1(b):
    """heartbeat 1, the client sends heartbeats too; how many come in 5 s of silence"""
    talk = b.connect(heartbeat=1)
    count, began = 0, time.monotonic()
    while time.monotonic() < began + 5:
        heard = talk.hear(0.4)
        count += bool(heard and heard[1] == "heartbeat")
        talk.frame(raw.HEARTBEAT, 0, b"")
    b.note(f"{'4 to 6' if 4 <= count <= 6 else '8 to 11' if 8 <= count <= 11 else count} heartbeats")


@provocation(slow=True)
def heartbeat_silent_client(b):
    """heartbeat 1, the client is silent: closed within 1.5 to 3.5 s, with what?"""
    talk = b.connect(heartbeat=1)
    began = time.monotonic()
    while not talk.socket_closed and time.monotonic() < began + 12:
        heard = talk.hear(1)
        if heard and heard[1] != "heartbeat":
            b.note(f"ch{heard[0]}: {heard[3]}")
    took = time.monotonic() - began
    b.note("within 1.5 to 3.5 s" if 1.5 <= took <= 3.5 else f"after {took:.1f} s")


@provocation(slow=True)
def heartbeat_0(b):
    """heartbeat 0, both silent for 4 s: nothing comes and nothing closes"""
    talk = b.connect(heartbeat=0)
    talk.quiet(4)
    talk.settled()


@provocation(slow=True)
def heartbeat_traffic_counts(b):
    """heartbeat 1, methods every 0.5 s in the place of heartbeats for 4 s"""
    talk = b.connect(heartbeat=1)
    for _ in range(8):
        time.sleep(0.5)
        talk.say(1, "basic.cancel", consumer_tag="fence")
    while (heard := talk.hear(0.2)) is not None:
        if heard[1] not in ("heartbeat", "basic.cancel-ok"):
            b.note(heard[3])
    b.note("still open" if not talk.socket_closed else "closed")

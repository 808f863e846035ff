"""Opening, closing and flow of channels; the closing of connections."""

import time

import amqp_raw as raw
from bench import provocation


@provocation
def channel_close_and_reopen(b):
    """channel.close, channel.open on the same number"""
    talk = b.connect()
    talk.ask(1, "channel.close", reply_code=200, reply_text="bye")
    talk.ask(1, "channel.open")
    talk.after()


@provocation
def channel_close_twice(b):
    """channel.close, channel.close"""
    talk = b.connect()
    talk.ask(1, "channel.close", reply_code=200)
    talk.ask(1, "channel.close", reply_code=200)
    talk.after()


@provocation
def method_after_channel_close(b):
    """channel.close, close-ok received, then queue.declare on it"""
    talk = b.connect()
    talk.ask(1, "channel.close", reply_code=200)
    talk.ask(1, "queue.declare", queue="cmp.q")
    talk.after()


@provocation
def channel_close_ok_unexpected(b):
    """channel.close-ok on an open channel"""
    talk = b.connect()
    talk.say(1, "channel.close-ok")
    talk.see(1)
    talk.after()


@provocation
def channel_close_with_odd_code(b):
    """channel.close with code 0 and class and method ids 60,40"""
    talk = b.connect()
    talk.ask(1, "channel.close", reply_code=0, class_id=60, method_id=40)
    talk.after(2, 2)


@provocation
def frames_in_flight_after_channel_error(b):
    """an error on channel 1, more methods on it before close-ok: ignored; then close-ok, reopen"""
    talk = b.connect()
    talk.say(1, "queue.declare", queue="cmp.missing", passive=True)
    talk.say(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"x")
    talk.say(1, "queue.declare", queue="cmp.missing2", passive=True)
    talk.see(linger=0.3)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def channel_close_after_channel_error(b):
    """an error on channel 1, the client crosses it with its own channel.close"""
    talk = b.connect()
    talk.say(1, "queue.declare", queue="cmp.missing", passive=True)
    talk.see()
    talk.ask(1, "channel.close", reply_code=200)
    talk.after()


@provocation
def channel_open_after_channel_error(b):
    """an error on channel 1, channel.open without close-ok"""
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="cmp.missing", passive=True)
    talk.say(1, "channel.open")
    talk.see(1)
    talk.closed_channels.clear()
    talk.after()


@provocation
def body_in_flight_after_channel_error(b):
    """publish with a bad expiration in 3 body frames, a good publish behind it, then close-ok"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.frame_max = 20
    talk.publish(1, "", "cmp.q", b"x" * 36, {"expiration": "bad"})
    talk.publish(1, "", "cmp.q", b"y")
    talk.see(linger=0.3)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def channel_flow_true(b):
    """channel.flow active=true"""
    talk = b.connect()
    talk.ask(1, "channel.flow", active=True)
    talk.after()


@provocation
def channel_flow_false(b):
    """channel.flow active=false"""
    talk = b.connect()
    talk.ask(1, "channel.flow", active=False)
    talk.after()


@provocation
def channel_close_ends_consumers(b):
    """a consumer on channel 1; channel.close; is there a basic.cancel? the queue's consumers"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.ask(1, "channel.close", reply_code=200)
    talk.quiet()
    b.queue_state("cmp.q")


@provocation
def channel_error_ends_consumers(b):
    """a consumer with an unacked message on channel 1; a channel error; the queue afterwards"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"one")
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(until="basic.deliver")
    talk.ask(1, "queue.declare", queue="cmp.missing", passive=True)
    talk.after()
    b.queue_state("cmp.q")
    b.drain("cmp.q")


@provocation
def channel_error_before_close_ok(b):
    """as before, but the client never says close-ok: is the message back already?"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"one")
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(until="basic.deliver")
    talk.ask(1, "queue.declare", queue="cmp.missing", passive=True)
    time.sleep(0.2)
    b.queue_state("cmp.q")


# --- the connection ---

@provocation
def connection_close(b):
    """connection.close: close-ok, then who closes the socket?"""
    talk = b.connect()
    talk.ask(0, "connection.close", reply_code=200, reply_text="bye")
    talk.wait_closed()


@provocation(slow=True)
def connection_close_socket_kept(b):
    """connection.close, close-ok; the client keeps its socket: for how long (0 to 35 s)?"""
    talk = b.connect()
    talk.ask(0, "connection.close", reply_code=200)
    began = time.monotonic()
    talk.wait_closed(35)
    took = time.monotonic() - began
    b.note("at once" if took < 1 else f"after {round(took / 5) * 5} s, to the nearest 5")


@provocation
def connection_close_ok_unexpected(b):
    """connection.close-ok on an open connection"""
    talk = b.connect()
    talk.say(0, "connection.close-ok")
    talk.see(1.5)
    talk.after()


@provocation
def frames_after_connection_close(b):
    """connection.close and, in the same write, queue.declare on channel 1"""
    talk = b.connect()
    frame = lambda channel, name, **f: raw.encode_frame(1, channel, raw.encode_method(name, **f))
    talk.send_bytes(frame(0, "connection.close", reply_code=200)
                    + frame(1, "queue.declare", queue="cmp.q"))
    talk.see()
    talk.wait_closed()
    b.queue_state("cmp.q")


@provocation
def frames_after_server_close(b):
    """a connection error, then queue.declare in the place of close-ok: ignored?"""
    talk = b.connect()
    talk.ask(1, "channel.open")
    talk.say(2, "queue.declare", queue="cmp.q")
    talk.see(0.5)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def connection_close_after_server_close(b):
    """a connection error, then the client's connection.close in the place of close-ok"""
    talk = b.connect()
    talk.ask(1, "channel.open")
    talk.ask(0, "connection.close", reply_code=200)
    talk.wait_closed()


@provocation
def exclusive_gone_at_close_ok(b):
    """an exclusive queue; connection.close; at close-ok: is the queue gone for others?"""
    talk = b.connect("owner: ")
    talk.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    talk.ask(0, "connection.close", reply_code=200)
    other = b.connect("other: ")
    other.ask(1, "queue.declare", queue="cmp.q", passive=True)


@provocation
def socket_dropped_requeues(b):
    """a consumer with 2 unacked of 3 messages; the socket is dropped; the queue afterwards"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    for body in b"one", b"two", b"three":
        talk.publish(1, "", "cmp.q", body)
    talk.get(1, "basic.qos", prefetch_count=2)
    talk.say(1, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.see(linger=0.2)
    talk.wire.close()
    talk.socket_closed = True
    time.sleep(0.5)
    b.queue_state("cmp.q")
    b.drain("cmp.q")


@provocation(slow=True)
def server_close_unanswered(b):
    """a connection error that the client never answers: how long does the socket stay (0 to 35 s)?"""
    talk = b.connect()
    talk.ask(1, "channel.open")
    began = time.monotonic()
    talk.wait_closed(35)
    took = time.monotonic() - began
    b.note("at once" if took < 1 else f"after {round(took / 5) * 5} s, to the nearest 5")


@provocation(setup=True)
def user_channel_limit_1(b):
    """the second channel of a user with max-channels 1"""
    talk = b.connect(user="cmp_one_channel", password="secret", channels=(1,))
    time.sleep(0.3)
    talk.ask(2, "channel.open")
    talk.after(2, 1)

"""Direct reply-to: amq.rabbitmq.reply-to."""

from stage import add, scenario

PSEUDO = "amq.rabbitmq.reply-to"


def client(s, label="client "):
    """A client that listens for replies."""
    talk = s.connect(label)
    talk.consume(PSEUDO, "replies", no_ack=True)
    return talk


def request(s, talk, **properties):
    """Sends a request to @work; the server's get of it is written down. Returns its reply_to."""
    talk.publish(1, "", "@work", b"request", {"reply_to": PSEUDO} | properties)
    talk.fence()
    s.boss.take("@work", no_ack=True)
    return s.boss.properties["reply_to"]


@scenario
def reply_round_trip(s):
    """a request, the name the server sees, the reply with all its properties"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk, correlation_id="c1", headers={"a": 1})
    s.publish("", name, "reply", correlation_id="c1", headers={"b": 2}, delivery_mode=2)
    talk.messages(1)


@scenario
def reply_many(s):
    """three replies to one request, in order"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    for word in ("one", "two", "three"):
        s.publish("", name, word)
    talk.messages(3)


@scenario
def reply_same_name_for_all_requests(s):
    """two requests of one channel carry the same name"""
    s.queue("@work")
    talk = client(s)
    s.note(f"the same name: {request(s, talk) == request(s, talk)}")


@scenario
def reply_names_differ_between_channels(s):
    """requests of two clients carry different names"""
    s.queue("@work")
    first, second = client(s), client(s, "second ")
    s.note(f"the same name: {request(s, first) == request(s, second)}")


@scenario
def reply_name_form(s):
    """the name begins with the pseudo queue's and a dot, and fits a short string"""
    s.queue("@work")
    name = request(s, client(s))
    s.note(f"begins well: {name.startswith(PSEUDO + '.')}, fits: {len(name) < 128}")


@scenario
def reply_consume_with_acks(s):
    """consuming the pseudo queue with acks"""
    talk = s.connect()
    talk.ask(1, "basic.consume", queue=PSEUDO, consumer_tag="c")
    talk.after()


@scenario
def reply_publish_without_consumer(s):
    """a request with this reply_to on a channel that does not listen"""
    s.queue("@work")
    talk = s.connect()
    talk.publish(1, "", "@work", b"m", {"reply_to": PSEUDO})
    talk.settled()
    talk.after()
    s.state("@work")


@scenario
def reply_publish_on_other_channel(s):
    """channel 1 listens, channel 2 sends the request"""
    s.queue("@work")
    talk = client(s)
    talk.publish(2, "", "@work", b"m", {"reply_to": PSEUDO})
    talk.settled(2)
    talk.after(2, 1)


@scenario
def reply_second_consumer(s):
    """the same channel listens twice"""
    talk = client(s)
    talk.ask(1, "basic.consume", queue=PSEUDO, consumer_tag="more", no_ack=True)
    talk.after()


@scenario
def reply_second_consumer_on_other_channel(s):
    """two channels of one connection listen"""
    talk = client(s)
    talk.ask(2, "basic.consume", queue=PSEUDO, consumer_tag="more", no_ack=True)
    talk.after(2, 1)


@scenario
def reply_consume_after_cancel(s):
    """listen, cancel, a request is refused, listen again"""
    s.queue("@work")
    talk = client(s)
    talk.ask(1, "basic.cancel", consumer_tag="replies")
    talk.ask(1, "basic.consume", queue=PSEUDO, consumer_tag="again", no_ack=True)
    name = request(s, talk)
    s.publish("", name, "reply")
    talk.messages(1)


@scenario
def reply_after_cancel(s):
    """the client cancels: a reply to the old name, mandatory"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    talk.ask(1, "basic.cancel", consumer_tag="replies")
    s.publish("", name, "late", mandatory=True)
    s.boss.quiet(0.2)
    talk.quiet(0.1)


@scenario
def reply_to_gone_client_mandatory(s):
    """the client's connection is gone: a mandatory reply is returned"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    talk.hang_up()
    s.wait(0.1)
    s.boss.get(1, "confirm.select")
    s.publish("", name, "late", mandatory=True)
    s.boss.confirms(1)


@scenario
def reply_to_closed_channel(s):
    """the client's channel is closed, not mandatory: nothing happens"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    talk.ask(1, "channel.close", reply_code=200)
    s.publish("", name, "late")
    s.boss.settled()


@scenario
def reply_confirmed_when_mandatory(s):
    """a mandatory reply with confirms to a living client: ack, no return"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    s.boss.get(1, "confirm.select")
    s.publish("", name, "reply", mandatory=True)
    s.boss.confirms(1)
    talk.messages(1)


for _name, _forged in (("word", ".forged"), ("two_words", ".g1h2AA==.abc"), ("empty", ".")):
    def _to_forged(s, forged=_forged):
        s.publish("", PSEUDO + forged, "m", mandatory=True)
        s.boss.see()
    add(f"reply_to_forged_{_name}", f"a reply to {PSEUDO + _forged}, which nobody was given", _to_forged,
        "reply_to")


@scenario
def reply_to_pseudo_queue_itself(s):
    """publishing with the routing key amq.rabbitmq.reply-to"""
    talk = client(s)
    s.publish("", PSEUDO, "m", mandatory=True)
    s.boss.quiet(0.2)
    s.boss.settled()
    talk.quiet(0.1)


@scenario
def reply_declare_pseudo_queue(s):
    """queue.declare of the pseudo queue, passive and not"""
    talk = s.connect()
    talk.ask(1, "queue.declare", queue=PSEUDO, passive=True)
    talk.ask(1, "queue.declare", queue=PSEUDO)
    talk.after()


@scenario
def reply_declare_name(s):
    """the server asks with queue.declare whether the client is still there; then it is not"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    s.boss.ask(2, "queue.declare", queue=name, passive=True)
    s.boss.ask(2, "queue.declare", queue=name)
    talk.hang_up()
    s.wait(0.1)
    s.boss.ask(2, "queue.declare", queue=name, passive=True)
    s.boss.after(2, 1)


@scenario
def reply_delete_purge_bind_get(s):
    """queue.delete, queue.purge, queue.bind and basic.get of the pseudo queue"""
    s.exchange("@x")
    for method, fields in (("queue.delete", {}), ("queue.purge", {}), ("basic.get", {"no_ack": True}),
                           ("queue.bind", {"exchange": "@x", "routing_key": "k"})):
        talk = s.connect(f"{method} ")
        talk.ask(1, method, queue=PSEUDO, **fields)
        talk.after()


@scenario
def reply_request_to_two_queues(s):
    """the request goes to a fanout: both servers see the same name, both reply"""
    s.exchange("@x", "fanout")
    for queue in ("@work", "@work2"):
        s.queue(queue)
        s.bind(queue, "@x")
    talk = client(s)
    talk.publish(1, "@x", "k", b"request", {"reply_to": PSEUDO})
    talk.fence()
    names = []
    for queue in ("@work", "@work2"):
        s.boss.take(queue, no_ack=True)
        names.append(s.boss.properties["reply_to"])
    s.note(f"the same name: {names[0] == names[1]}")
    for word, name in zip(("one", "two"), names):
        s.publish("", name, word)
    talk.messages(2)


@scenario
def reply_through_named_exchange(s):
    """a reply published to another exchange than the default one is not a reply"""
    s.queue("@work")
    s.exchange("@x")
    talk = client(s)
    name = request(s, talk)
    s.publish("@x", name, "reply", mandatory=True)
    s.boss.messages(1, "basic.return")
    talk.quiet(0.1)


@scenario
def reply_by_copy(s):
    """the reply's name in CC, the routing key is a queue: both get it"""
    s.queue("@work")
    s.queue("@q")
    talk = client(s)
    name = request(s, talk)
    s.publish("", "@q", "reply", headers={"CC": [name]})
    s.drain("@q", 1)
    talk.quiet(0.2)


@scenario
def reply_other_reply_to_untouched(s):
    """a reply_to that only resembles the pseudo queue's name stays as it is"""
    s.queue("@work")
    talk = client(s)
    talk.publish(1, "", "@work", b"m", {"reply_to": PSEUDO + "2"})
    talk.fence()
    s.drain("@work", 1)


@scenario
def reply_request_dead_lettered(s):
    """the request is dead-lettered: its reply_to stays usable"""
    s.dead_letter_queue("fanout")
    s.queue("@work", {"x-dead-letter-exchange": "@dlx", "x-message-ttl": 50})
    talk = client(s)
    talk.publish(1, "", "@work", b"request", {"reply_to": PSEUDO})
    talk.fence()
    s.state("@dead", 1)
    s.boss.take("@dead", no_ack=True)
    s.publish("", s.boss.properties["reply_to"], "reply")
    talk.messages(1)


@scenario
def reply_generated_consumer_tag(s):
    """the consumer tag of the listener is chosen by the server, and cancelled"""
    talk = s.connect()
    talk.ask(1, "basic.consume", queue=PSEUDO, no_ack=True)
    talk.ask(1, "basic.cancel", consumer_tag=talk.last["basic.consume-ok"]["consumer_tag"])


@scenario
def reply_exclusive_listener(s):
    """listening exclusively"""
    talk = s.connect()
    talk.ask(1, "basic.consume", queue=PSEUDO, consumer_tag="c", no_ack=True, exclusive=True)
    talk.after()


@scenario
def reply_after_channel_error(s):
    """the client's channel is closed by an error and opened again: the old name is dead"""
    s.queue("@work")
    talk = client(s)
    name = request(s, talk)
    talk.ask(1, "queue.declare", queue="@missing", passive=True)
    talk.after()
    s.publish("", name, "late", mandatory=True)
    s.boss.messages(1, "basic.return")

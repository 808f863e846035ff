"""queue.* — declare, equivalence, exclusive use, purge and delete."""

import time

from amqp_raw import As
from bench import add, provocation


def one(b, name, **fields):
    talk = b.connect()
    talk.ask(1, name, **fields)
    talk.after()


def declare_twice(b, first, second):
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", **first)
    talk.ask(1, "queue.declare", queue="cmp.q", **second)
    talk.after()


ARGUMENTS = {
    "message_ttl": {"x-message-ttl": 60000}, "expires": {"x-expires": 60000},
    "max_length": {"x-max-length": 10}, "max_length_bytes": {"x-max-length-bytes": 1000},
    "max_priority": {"x-max-priority": 5}, "overflow": {"x-overflow": "reject-publish"},
    "dead_letter_exchange": {"x-dead-letter-exchange": "amq.fanout"},
    "single_active": {"x-single-active-consumer": True},
    "queue_mode": {"x-queue-mode": "lazy"}, "queue_type_classic": {"x-queue-type": "classic"},
    "queue_version": {"x-queue-version": 2},
    "unknown_argument": {"x-anything": 1},
}
INEQUIVALENT = {
    "durable": ({}, {"durable": True}), "durable_lost": ({"durable": True}, {}),
    "auto_delete": ({}, {"auto_delete": True}), "exclusive": ({}, {"exclusive": True}),
    "exclusive_lost": ({"exclusive": True}, {}),
    "max_length_value": ({"arguments": {"x-max-length": 10}}, {"arguments": {"x-max-length": 11}}),
    "dead_letter_routing_key": (
        {"arguments": {"x-dead-letter-exchange": "e", "x-dead-letter-routing-key": "a"}},
        {"arguments": {"x-dead-letter-exchange": "e", "x-dead-letter-routing-key": "b"}}),
    "type_of_value": ({"arguments": {"x-overflow": "drop-head"}},
                      {"arguments": {"x-overflow": "reject-publish"}}),
    "two_fields": ({}, {"durable": True, "auto_delete": True}),
}
for _key, _arguments in ARGUMENTS.items():
    INEQUIVALENT[_key + "_added"] = ({}, {"arguments": _arguments})
    INEQUIVALENT[_key + "_lost"] = ({"arguments": _arguments}, {})
INEQUIVALENT["queue_type_quorum_added"] = (
    {"durable": True}, {"durable": True, "arguments": {"x-queue-type": "quorum"}})
for _name, (_first, _second) in INEQUIVALENT.items():
    add("queue_inequivalent_" + _name, f"queue.declare with {_first}, again with {_second}",
        lambda b, first=_first, second=_second: declare_twice(b, first, second), group="queues")


@provocation
def queue_equivalent_integer_widths(b):
    """x-max-length 10 as int32, again as int8, int16, int64 and 10.0 (a double)"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", arguments={"x-max-length": 10})
    for value in As("b", 10), As("s", 10), As("l", 10), 10.0:
        talk.ask(1, "queue.declare", queue="cmp.q", arguments={"x-max-length": value})
    talk.after()


@provocation
def queue_passive_ignores_all(b):
    """passive declare with every flag and other arguments"""
    declare_twice(b, {}, {"passive": True, "durable": True, "auto_delete": True,
                          "arguments": {"x-max-length": 5}})


@provocation
def queue_passive_exclusive_flag(b):
    """passive declare with exclusive of a queue that is not"""
    declare_twice(b, {}, {"passive": True, "exclusive": True})


@provocation
def queue_passive_missing(b):
    """passive declare of a missing queue"""
    one(b, "queue.declare", queue="cmp.q", passive=True)


@provocation
def queue_passive_nowait_missing(b):
    """passive nowait declare of a missing queue"""
    one(b, "queue.declare", queue="cmp.q", passive=True, nowait=True)


@provocation
def queue_passive_empty_name(b):
    """passive declare of '' on a channel that declared none"""
    one(b, "queue.declare", queue="", passive=True)


@provocation
def queue_passive_empty_name_after_declare(b):
    """declare cmp.q, passive declare of ''"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.declare", queue="", passive=True)
    talk.after()


@provocation
def queue_amq_prefix(b):
    """declare of 'amq.cmp'"""
    one(b, "queue.declare", queue="amq.cmp")


@provocation
def queue_amq_prefix_passive(b):
    """passive declare of 'amq.cmp', missing"""
    one(b, "queue.declare", queue="amq.cmp", passive=True)


@provocation
def queue_amq_generated_again(b):
    """exclusive declare of '', then of the name that came back, equivalently"""
    talk = b.connect()
    name = talk.get(1, "queue.declare", exclusive=True)["queue"]
    talk.ask(1, "queue.declare", queue=name, exclusive=True)
    talk.after()


EMPTY_NAME = {
    "consume": ("basic.consume", {"consumer_tag": "c"}), "get": ("basic.get", {}),
    "purge": ("queue.purge", {}), "delete": ("queue.delete", {}),
    "unbind": ("queue.unbind", {"exchange": "amq.direct"}),
}
for _name, (_method, _fields) in EMPTY_NAME.items():
    add(f"empty_name_{_name}_without_declare", f"{_method} of queue '' on a channel that declared none",
        lambda b, m=_method, f=_fields: one(b, m, queue="", **f), group="queues")


@provocation
def empty_name_means_last_declared(b):
    """declare cmp.q, cmp.q2; publish to both; get of ''; passive declare of cmp.q, get of ''"""
    talk = b.connect()
    for name in "cmp.q", "cmp.q2":
        talk.get(1, "queue.declare", queue=name)
        talk.publish(1, "", name, name.encode())
    talk.ask(1, "basic.get", queue="", no_ack=True)
    talk.get(1, "queue.declare", queue="cmp.q", passive=True)
    talk.ask(1, "basic.get", queue="", no_ack=True)


@provocation
def empty_name_after_delete(b):
    """declare cmp.q, delete it, get of ''"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(1, "queue.delete", queue="cmp.q")
    talk.ask(1, "basic.get", queue="")
    talk.after()


@provocation
def empty_name_is_per_channel(b):
    """declare on channel 2, get of '' on channel 1"""
    talk = b.connect()
    talk.get(2, "queue.declare", queue="cmp.q")
    talk.ask(1, "basic.get", queue="")
    talk.after()


# --- exclusive ---

OTHERS = {
    "declare": ("queue.declare", {}), "declare_exclusive": ("queue.declare", {"exclusive": True}),
    "passive": ("queue.declare", {"passive": True}),
    "consume": ("basic.consume", {"consumer_tag": "c"}), "get": ("basic.get", {}),
    "purge": ("queue.purge", {}), "delete": ("queue.delete", {}),
    "bind": ("queue.bind", {"exchange": "amq.direct", "routing_key": "k"}),
    "unbind": ("queue.unbind", {"exchange": "amq.direct", "routing_key": "k"}),
}


def from_another(b, method, fields):
    owner = b.connect("owner: ")
    owner.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    other = b.connect()
    other.ask(1, method, queue="cmp.q", **fields)
    other.after()


for _name, (_method, _fields) in OTHERS.items():
    add(f"exclusive_{_name}_by_another",
        f"an exclusive queue; {_method} {_fields or ''} from another connection",
        lambda b, m=_method, f=_fields: from_another(b, m, f), group="queues")


@provocation
def exclusive_publish_by_another(b):
    """an exclusive queue; publish to it from another connection is fine"""
    owner = b.connect("owner: ")
    owner.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    other = b.connect()
    other.publish(1, "", "cmp.q", b"m", mandatory=True)
    other.settled()
    owner.ask(1, "basic.get", queue="cmp.q")


@provocation
def exclusive_unbind_of_binding_by_another(b):
    """an exclusive queue bound by its owner; unbind of that binding from another connection"""
    owner = b.connect("owner: ")
    owner.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    owner.get(1, "queue.bind", queue="cmp.q", exchange="amq.direct", routing_key="cmp.k")
    other = b.connect()
    other.ask(1, "queue.unbind", queue="cmp.q", exchange="amq.direct", routing_key="cmp.k")
    other.after()
    owner.publish(1, "amq.direct", "cmp.k", b"m", mandatory=True)
    owner.settled()


@provocation
def exclusive_survives_its_channel(b):
    """an exclusive queue declared on channel 1; channel 1 closes; passive declare on 2"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    talk.get(1, "channel.close", reply_code=200)
    talk.ask(2, "queue.declare", queue="cmp.q", passive=True)


@provocation
def exclusive_gone_after_drop(b):
    """an exclusive queue; the socket is dropped; half a second later"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", exclusive=True, durable=True)
    talk.wire.close()
    talk.socket_closed = True
    time.sleep(0.5)
    b.queue_state("cmp.q")


# --- auto-delete ---

@provocation
def auto_delete_queue(b):
    """auto-delete: before a consumer, after a get, after the last consumer is cancelled"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", auto_delete=True)
    talk.get(1, "basic.get", queue="cmp.q")
    b.queue_state("cmp.q")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="a")
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="b")
    talk.get(1, "basic.cancel", consumer_tag="a")
    b.queue_state("cmp.q")
    talk.get(1, "basic.cancel", consumer_tag="b")
    time.sleep(0.1)
    b.queue_state("cmp.q")


@provocation
def auto_delete_queue_channel_close(b):
    """auto-delete: the channel of its only consumer closes"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", auto_delete=True)
    talk.get(1, "basic.consume", queue="cmp.q", consumer_tag="a")
    talk.get(1, "channel.close", reply_code=200)
    time.sleep(0.1)
    b.queue_state("cmp.q")


# --- delete and purge ---

@provocation
def queue_delete_missing(b):
    """delete of a missing queue"""
    one(b, "queue.delete", queue="cmp.q")


@provocation
def queue_delete_missing_if_unused(b):
    """delete if-unused if-empty of a missing queue"""
    one(b, "queue.delete", queue="cmp.q", if_unused=True, if_empty=True)


@provocation
def queue_delete_if_unused_in_use(b):
    """delete if-unused of a queue with a consumer"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(2, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.ask(1, "queue.delete", queue="cmp.q", if_unused=True)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def queue_delete_if_empty_not_empty(b):
    """delete if-empty of a queue with a message"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"m")
    talk.ask(1, "queue.delete", queue="cmp.q", if_empty=True)
    talk.after()
    b.queue_state("cmp.q")


@provocation
def queue_delete_if_empty_unacked(b):
    """delete if-empty of a queue whose only message is unacked"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"m")
    talk.fence()
    talk.get(2, "basic.get", queue="cmp.q")
    talk.ask(1, "queue.delete", queue="cmp.q", if_empty=True)
    talk.after()


@provocation
def queue_delete_both_conditions(b):
    """delete if-unused if-empty of a queue with a consumer and a message"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.get(2, "basic.qos", prefetch_count=1)
    talk.publish(1, "", "cmp.q", b"m")
    talk.publish(1, "", "cmp.q", b"m")
    talk.fence()
    talk.get(2, "basic.consume", queue="cmp.q", consumer_tag="c")
    talk.hear(1)
    talk.ask(1, "queue.delete", queue="cmp.q", if_unused=True, if_empty=True)
    talk.after()


@provocation
def queue_delete_empty_exclusive_owner(b):
    """delete of the own exclusive queue with 2 messages"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q", exclusive=True)
    talk.publish(1, "", "cmp.q", b"m")
    talk.publish(1, "", "cmp.q", b"m")
    talk.ask(1, "queue.delete", queue="cmp.q")


@provocation
def queue_purge_missing(b):
    """purge of a missing queue"""
    one(b, "queue.purge", queue="cmp.q")


@provocation
def queue_purge_empty(b):
    """purge of an empty queue"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.ask(1, "queue.purge", queue="cmp.q")


@provocation(setup=True)
def queue_limit_of_vhost(b):
    """vhost with max-queues 1: declare cmp.q, again cmp.q, then cmp.q2"""
    talk = b.connect(vhost="cmp_one_queue")
    talk.ask(1, "queue.declare", queue="cmp.q", exclusive=True)
    talk.ask(1, "queue.declare", queue="cmp.q", exclusive=True)
    talk.ask(1, "queue.declare", queue="cmp.q2", exclusive=True)
    talk.after()


@provocation
def queue_deleted_messages_and_acks(b):
    """a message of cmp.q is unacked; cmp.q is deleted; then the ack"""
    talk = b.connect()
    talk.get(1, "queue.declare", queue="cmp.q")
    talk.publish(1, "", "cmp.q", b"m")
    talk.ask(1, "basic.get", queue="cmp.q")
    talk.get(2, "queue.delete", queue="cmp.q")
    talk.say(1, "basic.ack", delivery_tag=1)
    talk.settled()
    talk.after()

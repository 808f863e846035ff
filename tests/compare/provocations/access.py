r"""403 for each operation, with users that may little.

cmp_limited may on /: configure ^cmp\.(ok|xok|c), write ^cmp\.(ok|xok|w), read ^cmp\.(ok|xok|r).
The queue cmp.q and the exchange cmp.x are refused to it in every way; cmp.ok and cmp.xok are its own.
cmp_empty has the pattern ^$ three times; cmp_topic may publish and bind ^ok on amq.topic.
"""

from bench import add, provocation

LIMITED = {"user": "cmp_limited", "password": "secret"}


def refused(b, name, fields, who=LIMITED):
    """The owner makes everything there is; then the limited user tries one thing."""
    owner = b.connect("owner: ")
    for queue in "cmp.q", "cmp.ok":
        owner.get(1, "queue.declare", queue=queue)
    for exchange in "cmp.x", "cmp.xok":
        owner.get(1, "exchange.declare", exchange=exchange, type="topic")
    talk = b.connect(**who)
    if name == "basic.publish":
        talk.publish(1, body=b"m", **fields)
        talk.settled()
    else:
        talk.ask(1, name, **fields)
    talk.after()


CASES = {
    "declare_queue": ("queue.declare", {"queue": "cmp.q2"}),
    "declare_existing_queue": ("queue.declare", {"queue": "cmp.q"}),
    "declare_existing_queue_inequivalent": ("queue.declare", {"queue": "cmp.q", "durable": True}),
    "passive_queue": ("queue.declare", {"queue": "cmp.q", "passive": True}),
    "passive_missing_queue": ("queue.declare", {"queue": "cmp.q2", "passive": True}),
    "declare_server_named": ("queue.declare", {"queue": "", "exclusive": True}),
    "declare_own_queue": ("queue.declare", {"queue": "cmp.ok"}),
    "declare_dead_letter_exchange": ("queue.declare", {
        "queue": "cmp.ok2", "arguments": {"x-dead-letter-exchange": "cmp.x"}}),
    "declare_dead_letter_exchange_own": ("queue.declare", {
        "queue": "cmp.ok2", "arguments": {"x-dead-letter-exchange": "cmp.xok"}}),
    "declare_dead_letter_exchange_default": ("queue.declare", {
        "queue": "cmp.ok2", "arguments": {"x-dead-letter-exchange": ""}}),
    "delete_queue": ("queue.delete", {"queue": "cmp.q"}),
    "delete_missing_queue": ("queue.delete", {"queue": "cmp.q2"}),
    "purge": ("queue.purge", {"queue": "cmp.q"}),
    "purge_missing": ("queue.purge", {"queue": "cmp.q2"}),
    "get": ("basic.get", {"queue": "cmp.q"}),
    "consume": ("basic.consume", {"queue": "cmp.q", "consumer_tag": "c"}),
    "consume_missing": ("basic.consume", {"queue": "cmp.q2", "consumer_tag": "c"}),
    "bind_queue_write": ("queue.bind", {"queue": "cmp.q", "exchange": "cmp.xok", "routing_key": "k"}),
    "bind_exchange_read": ("queue.bind", {"queue": "cmp.ok", "exchange": "cmp.x", "routing_key": "k"}),
    "bind_both": ("queue.bind", {"queue": "cmp.q", "exchange": "cmp.x", "routing_key": "k"}),
    "bind_default": ("queue.bind", {"queue": "cmp.ok", "exchange": "", "routing_key": "k"}),
    "unbind_queue_write": ("queue.unbind",
                           {"queue": "cmp.q", "exchange": "cmp.xok", "routing_key": "k"}),
    "unbind_exchange_read": ("queue.unbind",
                             {"queue": "cmp.ok", "exchange": "cmp.x", "routing_key": "k"}),
    "declare_exchange": ("exchange.declare", {"exchange": "cmp.x2", "type": "direct"}),
    "declare_existing_exchange": ("exchange.declare", {"exchange": "cmp.x", "type": "topic"}),
    "declare_exchange_unknown_type": ("exchange.declare", {"exchange": "cmp.x2", "type": "bogus"}),
    "passive_exchange": ("exchange.declare", {"exchange": "cmp.x", "passive": True}),
    "declare_alternate_exchange": ("exchange.declare", {
        "exchange": "cmp.xok2", "type": "direct", "arguments": {"alternate-exchange": "cmp.x"}}),
    "declare_alternate_exchange_own": ("exchange.declare", {
        "exchange": "cmp.xok2", "type": "direct", "arguments": {"alternate-exchange": "cmp.xok"}}),
    "delete_exchange": ("exchange.delete", {"exchange": "cmp.x"}),
    "delete_missing_exchange": ("exchange.delete", {"exchange": "cmp.x2"}),
    "delete_amq_exchange": ("exchange.delete", {"exchange": "amq.direct"}),
    "e2e_bind_destination_write": ("exchange.bind", {"destination": "cmp.x", "source": "cmp.xok"}),
    "e2e_bind_source_read": ("exchange.bind", {"destination": "cmp.xok", "source": "cmp.x"}),
    "e2e_unbind_destination_write": ("exchange.unbind",
                                     {"destination": "cmp.x", "source": "cmp.xok"}),
    "publish": ("basic.publish", {"exchange": "cmp.x", "routing_key": "k"}),
    "publish_missing_exchange": ("basic.publish", {"exchange": "cmp.x2", "routing_key": "k"}),
    "publish_default_exchange": ("basic.publish", {"exchange": "", "routing_key": "cmp.q"}),
    "publish_own_exchange": ("basic.publish", {"exchange": "cmp.xok", "routing_key": "k"}),
}
for _name, (_method, _fields) in CASES.items():
    add(f"refused_{_name}", f"cmp_limited: {_method} {_fields}",
        lambda b, m=_method, f=_fields: refused(b, m, f), setup=True, group="access")

EMPTY = {
    "declare_server_named": ("queue.declare", {"queue": "", "exclusive": True}),
    "publish_default_exchange": ("basic.publish", {"exchange": "", "routing_key": "cmp.q"}),
    "publish_amq_direct": ("basic.publish", {"exchange": "amq.direct", "routing_key": "k"}),
    "passive_queue": ("queue.declare", {"queue": "cmp.q", "passive": True}),
    "reply_to_consume": ("basic.consume", {"queue": "amq.rabbitmq.reply-to", "no_ack": True,
                                           "consumer_tag": "r"}),
}
for _name, (_method, _fields) in EMPTY.items():
    add(f"refused_empty_{_name}", f"cmp_empty: {_method} {_fields}",
        lambda b, m=_method, f=_fields:
            refused(b, m, f, {"user": "cmp_empty", "password": "secret"}),
        setup=True, group="access")

TOPIC = {
    "publish": ("basic.publish", {"exchange": "amq.topic", "routing_key": "no.key"}),
    "publish_allowed": ("basic.publish", {"exchange": "amq.topic", "routing_key": "ok.key"}),
    "publish_other_exchange": ("basic.publish", {"exchange": "cmp.x", "routing_key": "no.key"}),
    "bind": ("queue.bind", {"queue": "cmp.q", "exchange": "amq.topic", "routing_key": "no.key"}),
    "bind_allowed": ("queue.bind",
                     {"queue": "cmp.q", "exchange": "amq.topic", "routing_key": "ok.key"}),
    "unbind": ("queue.unbind", {"queue": "cmp.q", "exchange": "amq.topic", "routing_key": "no.key"}),
    "e2e_bind": ("exchange.bind",
                 {"destination": "cmp.x", "source": "amq.topic", "routing_key": "no.key"}),
}
for _name, (_method, _fields) in TOPIC.items():
    add(f"topic_permission_{_name}", f"cmp_topic: {_method} {_fields}",
        lambda b, m=_method, f=_fields:
            refused(b, m, f, {"user": "cmp_topic", "password": "secret"}),
        setup=True, group="access")


@provocation(setup=True)
def refused_in_tx(b):
    """cmp_limited: tx.select, publish to cmp.x: at once or at commit?"""
    owner = b.connect("owner: ")
    owner.get(1, "exchange.declare", exchange="cmp.x", type="topic")
    talk = b.connect(**LIMITED)
    talk.get(1, "tx.select")
    talk.publish(1, "cmp.x", "k", b"m")
    talk.settled()
    talk.after()


@provocation(setup=True)
def refused_user_id(b):
    """cmp_limited: publish with user-id guest to cmp.xok"""
    owner = b.connect("owner: ")
    owner.get(1, "exchange.declare", exchange="cmp.xok", type="topic")
    talk = b.connect(**LIMITED)
    talk.publish(1, "cmp.xok", "k", b"m", {"user_id": "guest"})
    talk.settled()
    talk.after()

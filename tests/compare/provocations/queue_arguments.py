"""x- arguments of queue.declare: bad ones of every kind, and some that must be accepted."""

from amqp_raw import As
from bench import add, provocation, show

COUNTS = ["x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority"]
BAD_COUNTS = {"string": "10", "negative": -1, "zero": 0, "double": 1.5, "bool": True, "void": None,
              "table": {}, "array": [], "timestamp": As("T", 10), "huge": 2**40,
              "two_to_63_less_1": 2**63 - 1}

CASES = {}
for _argument in COUNTS:
    for _kind, _value in BAD_COUNTS.items():
        CASES[f"{_argument[2:].replace('-', '_')}_{_kind}"] = {_argument: _value}

CASES |= {
    "max_priority_256": {"x-max-priority": 256},
    "max_priority_255": {"x-max-priority": 255},
    "max_priority_uint8": {"x-max-priority": As("B", 10)},
    "message_ttl_134217728000": {"x-message-ttl": 134217728000},
    "message_ttl_4294967295": {"x-message-ttl": 4294967295},
    "message_ttl_4294967296": {"x-message-ttl": 4294967296},
    "expires_4294967296": {"x-expires": 4294967296},
    "expires_1": {"x-expires": 1},
    "overflow_bogus": {"x-overflow": "bogus"},
    "overflow_integer": {"x-overflow": 1},
    "overflow_reject_publish_dlx": {"x-overflow": "reject-publish-dlx"},
    "queue_type_unknown": {"x-queue-type": "bogus"},
    "queue_type_integer": {"x-queue-type": 1},
    "queue_type_empty": {"x-queue-type": ""},
    "queue_mode_bogus": {"x-queue-mode": "bogus"},
    "queue_mode_integer": {"x-queue-mode": 1},
    "queue_mode_lazy": {"x-queue-mode": "lazy"},
    "queue_version_3": {"x-queue-version": 3},
    "queue_version_string": {"x-queue-version": "2"},
    "dead_letter_exchange_integer": {"x-dead-letter-exchange": 1},
    "dead_letter_exchange_missing": {"x-dead-letter-exchange": "cmp.missing"},
    "dead_letter_exchange_empty": {"x-dead-letter-exchange": ""},
    "dead_letter_routing_key_alone": {"x-dead-letter-routing-key": "k"},
    "dead_letter_routing_key_integer": {"x-dead-letter-exchange": "e",
                                        "x-dead-letter-routing-key": 1},
    "dead_letter_strategy_on_classic": {"x-dead-letter-strategy": "at-least-once"},
    "single_active_consumer_string": {"x-single-active-consumer": "true"},
    "single_active_consumer_integer": {"x-single-active-consumer": 1},
    "delivery_limit_on_classic": {"x-delivery-limit": 3},
    "delivery_limit_string_on_classic": {"x-delivery-limit": "3"},
    "max_age_on_classic": {"x-max-age": "1h"},
    "max_in_memory_length_on_classic": {"x-max-in-memory-length": 5},
    "quorum_initial_group_size_on_classic": {"x-quorum-initial-group-size": 3},
    "queue_master_locator": {"x-queue-master-locator": "min-masters"},
    "queue_master_locator_bogus": {"x-queue-master-locator": "bogus"},
    "queue_leader_locator_bogus": {"x-queue-leader-locator": "bogus"},
    "consumer_timeout_string": {"x-consumer-timeout": "5"},
    "unknown_argument": {"x-anything": {"a": [1]}, "no-x": 1},
    "argument_name_other_case": {"X-Message-TTL": "abc"},
}


def declare(b, arguments, **flags):
    talk = b.connect()
    talk.ask(1, "queue.declare", queue="cmp.q", arguments=arguments, **flags)
    talk.after()


for _name, _arguments in CASES.items():
    add("argument_" + _name, f"queue.declare with {show(_arguments)}",
        lambda b, arguments=_arguments: declare(b, arguments), group="queue_arguments")

QUORUM = {"x-queue-type": "quorum"}
TYPED = {
    "quorum_not_durable": (QUORUM, {}),
    "quorum_exclusive": (QUORUM, {"durable": True, "exclusive": True}),
    "quorum_auto_delete": (QUORUM, {"durable": True, "auto_delete": True}),
    "quorum_max_priority": (QUORUM | {"x-max-priority": 5}, {"durable": True}),
    "quorum_lazy": (QUORUM | {"x-queue-mode": "lazy"}, {"durable": True}),
    "quorum_max_age": (QUORUM | {"x-max-age": "1h"}, {"durable": True}),
    "quorum_delivery_limit_string": (QUORUM | {"x-delivery-limit": "3"}, {"durable": True}),
    "quorum_delivery_limit_negative": (QUORUM | {"x-delivery-limit": -1}, {"durable": True}),
    "quorum_overflow_reject_publish_dlx": (QUORUM | {"x-overflow": "reject-publish-dlx"},
                                           {"durable": True}),
    "quorum_strategy_bogus": (QUORUM | {"x-dead-letter-strategy": "bogus"}, {"durable": True}),
    "quorum_initial_group_size_0": (QUORUM | {"x-quorum-initial-group-size": 0}, {"durable": True}),
    "stream_not_durable": ({"x-queue-type": "stream"}, {}),
    "stream_exclusive": ({"x-queue-type": "stream"}, {"durable": True, "exclusive": True}),
    "stream_message_ttl": ({"x-queue-type": "stream", "x-message-ttl": 5}, {"durable": True}),
    "stream_max_age_bogus": ({"x-queue-type": "stream", "x-max-age": "bogus"}, {"durable": True}),
    "stream_max_age_integer": ({"x-queue-type": "stream", "x-max-age": 5}, {"durable": True}),
    "stream_max_length": ({"x-queue-type": "stream", "x-max-length": 5}, {"durable": True}),
}
for _name, (_arguments, _flags) in TYPED.items():
    add("argument_" + _name, f"queue.declare with {show(_arguments)} {_flags or ''}",
        lambda b, arguments=_arguments, flags=_flags: declare(b, arguments, **flags),
        group="queue_arguments")


@provocation
def argument_of_integer_types(b):
    """x-max-length as int8, uint8, int16, uint16, int32, uint32, int64"""
    talk = b.connect()
    for tag in "bBsuIil":
        b.note(f"type {tag}:")
        talk.ask(1, "queue.declare", queue="cmp.q", arguments={"x-max-length": As(tag, 10)})
        if talk.closed_channels or talk.closing or talk.socket_closed:
            return talk.after()
        talk.get(1, "queue.delete", queue="cmp.q")

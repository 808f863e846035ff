"""queue.declare refused: arguments of classic and quorum queues, and what is not equivalent."""

from amqp_raw import As
from bench import show
from stage import add

COUNTS = ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority",
          "x-delivery-limit")
WRONG_COUNTS = {"string": "10", "negative": -1, "zero": 0, "double": 1.5, "bool": True, "void": None,
                "above_32_bits": 2**32, "unsigned_byte": As("B", 10), "timestamp": As("T", 10)}
QUORUM = {"x-queue-type": "quorum"}

ARGUMENTS = {
    "dead_letter_exchange_number": {"x-dead-letter-exchange": 1},
    "dead_letter_exchange_bad_name": {"x-dead-letter-exchange": "a\nb"},
    "dead_letter_routing_key_alone": {"x-dead-letter-routing-key": "k"},
    "dead_letter_routing_key_number": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": 1},
    "dead_letter_exchange_empty": {"x-dead-letter-exchange": ""},
    "overflow_bogus": {"x-overflow": "bogus"},
    "overflow_number": {"x-overflow": 1},
    "overflow_drop_head": {"x-overflow": "drop-head"},
    "overflow_reject_publish": {"x-overflow": "reject-publish"},
    "overflow_reject_publish_dlx": {"x-overflow": "reject-publish-dlx"},
    "single_active_consumer_string": {"x-single-active-consumer": "true"},
    "single_active_consumer_number": {"x-single-active-consumer": 1},
    "single_active_consumer_false": {"x-single-active-consumer": False},
    "queue_mode_lazy": {"x-queue-mode": "lazy"},
    "queue_mode_bogus": {"x-queue-mode": "bogus"},
    "queue_version_2": {"x-queue-version": 2},
    "queue_version_3": {"x-queue-version": 3},
    "max_age": {"x-max-age": "1h"},
    "max_age_bogus": {"x-max-age": "soon"},
    "stream_max_segment_size_bytes": {"x-stream-max-segment-size-bytes": 1000},
    "initial_cluster_size": {"x-initial-cluster-size": 1},
    "quorum_initial_group_size": {"x-quorum-initial-group-size": 1},
    "quorum_initial_group_size_0": {"x-quorum-initial-group-size": 0},
    "max_in_memory_length": {"x-max-in-memory-length": 10},
    "max_in_memory_bytes": {"x-max-in-memory-bytes": 10},
    "queue_leader_locator": {"x-queue-leader-locator": "client-local"},
    "queue_leader_locator_bogus": {"x-queue-leader-locator": "bogus"},
    "queue_master_locator": {"x-queue-master-locator": "client-local"},
    "dead_letter_strategy": {"x-dead-letter-strategy": "at-most-once"},
    "dead_letter_strategy_bogus": {"x-dead-letter-strategy": "bogus"},
    "dead_letter_strategy_at_least_once": {"x-dead-letter-strategy": "at-least-once"},
    "dead_letter_strategy_at_least_once_complete": {
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
        "x-dead-letter-exchange": ""},
    "consumer_timeout": {"x-consumer-timeout": 60000},
    "unknown": {"x-anything": {"a": [1]}},
    "ttl_and_expires_wrong": {"x-expires": "a", "x-message-ttl": "b"},
}
ARGUMENTS |= {f"{argument[2:].replace('-', '_')}_{kind}": {argument: value}
              for argument in COUNTS for kind, value in WRONG_COUNTS.items()}
ARGUMENTS |= {"max_priority_255": {"x-max-priority": 255}, "max_priority_256": {"x-max-priority": 256}}


def declare(s, arguments, **flags):
    s.queues.append("@q")
    s.boss.ask(1, "queue.declare", queue="@q", arguments=arguments, **flags)
    s.boss.after()


for _name, _arguments in ARGUMENTS.items():
    add(f"classic_{_name}", f"queue.declare of a classic queue with {show(_arguments)}",
        lambda s, arguments=_arguments: declare(s, arguments), "refusals")
    add(f"quorum_{_name}", f"queue.declare of a quorum queue with {show(_arguments)}",
        lambda s, arguments=QUORUM | _arguments: declare(s, arguments, durable=True), "refusals")

TYPES = {
    "quorum_not_durable": (QUORUM, {}),
    "quorum_exclusive": (QUORUM, {"durable": True, "exclusive": True}),
    "quorum_auto_delete": (QUORUM, {"durable": True, "auto_delete": True}),
    "quorum_everything_wrong": (QUORUM | {"x-max-priority": 5},
                                {"exclusive": True, "auto_delete": True}),
    "type_classic": ({"x-queue-type": "classic"}, {}),
    "type_bogus": ({"x-queue-type": "bogus"}, {}),
    "type_number": ({"x-queue-type": 1}, {}),
    "type_upper_case": ({"x-queue-type": "QUORUM"}, {"durable": True}),
    "type_short": ({"x-queue-type": As("x", "quorum")}, {"durable": True}),
    "quorum_max_priority_and_lazy": (QUORUM | {"x-max-priority": 5, "x-queue-mode": "lazy"},
                                     {"durable": True}),
}
for _name, (_arguments, _flags) in TYPES.items():
    add(_name, f"queue.declare with {show(_arguments)} {show(_flags)}",
        lambda s, arguments=_arguments, flags=_flags: declare(s, arguments, **flags), "refusals")


def declare_twice(s, first, second, flags_first, flags_second):
    s.queue("@q", first, **flags_first)
    s.boss.ask(2, "queue.declare", queue="@q", arguments=second, **flags_second)
    s.boss.after(2, 1)


DURABLE = {"durable": True}
TWICE = {
    "same": ({"x-max-length": 5}, {"x-max-length": 5}, {}, {}),
    "number_of_another_type": ({"x-max-length": 5}, {"x-max-length": As("l", 5)}, {}, {}),
    "number_as_short": ({"x-message-ttl": 5}, {"x-message-ttl": As("s", 5)}, {}, {}),
    "max_length_other": ({"x-max-length": 5}, {"x-max-length": 6}, {}, {}),
    "max_length_left_out": ({"x-max-length": 5}, {}, {}, {}),
    "max_length_added": ({}, {"x-max-length": 5}, {}, {}),
    "max_length_bytes_other": ({"x-max-length-bytes": 5}, {"x-max-length-bytes": 6}, {}, {}),
    "ttl_other": ({"x-message-ttl": 5000}, {"x-message-ttl": 6000}, {}, {}),
    "expires_other": ({"x-expires": 50000}, {"x-expires": 60000}, {}, {}),
    "expires_left_out": ({"x-expires": 50000}, {}, {}, {}),
    "priority_other": ({"x-max-priority": 5}, {"x-max-priority": 6}, {}, {}),
    "priority_left_out": ({"x-max-priority": 5}, {}, {}, {}),
    "overflow_other": ({"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, {}, {}),
    "overflow_default_said": ({}, {"x-overflow": "drop-head"}, {}, {}),
    "single_active_consumer_added": ({}, {"x-single-active-consumer": True}, {}, {}),
    "single_active_consumer_false_added": ({}, {"x-single-active-consumer": False}, {}, {}),
    "single_active_consumer_left_out": ({"x-single-active-consumer": True}, {}, {}, {}),
    "unknown_argument_added": ({}, {"x-anything": 1}, {}, {}),
    "unknown_argument_other": ({"x-anything": 1}, {"x-anything": 2}, {}, {}),
    "lazy_added": ({}, {"x-queue-mode": "lazy"}, {}, {}),
    "type_classic_said": ({}, {"x-queue-type": "classic"}, {}, {}),
    "classic_then_quorum": ({}, QUORUM, DURABLE, DURABLE),
    "quorum_then_classic": (QUORUM, {"x-queue-type": "classic"}, DURABLE, DURABLE),
    "quorum_then_nothing": (QUORUM, {}, DURABLE, DURABLE),
    "quorum_same": (QUORUM, QUORUM, DURABLE, DURABLE),
    "quorum_limit_other": (QUORUM | {"x-delivery-limit": 2}, QUORUM | {"x-delivery-limit": 3},
                           DURABLE, DURABLE),
    "quorum_limit_left_out": (QUORUM | {"x-delivery-limit": 2}, QUORUM, DURABLE, DURABLE),
    "durable_other": ({}, {}, {}, DURABLE),
    "auto_delete_other": ({}, {}, {}, {"auto_delete": True}),
    "exclusive_other": ({}, {}, {}, {"exclusive": True}),
    "two_other": ({"x-max-length": 5, "x-message-ttl": 5000},
                  {"x-max-length": 6, "x-message-ttl": 6000}, {}, {}),
}
for _name, _case in TWICE.items():
    add(f"declare_twice_{_name}",
        f"queue.declare with {show(_case[0])} {show(_case[2])}, then {show(_case[1])} {show(_case[3])}",
        lambda s, case=_case: declare_twice(s, *case), "refusals")

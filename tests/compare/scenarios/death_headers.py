"""x-death and its kin when the client has sent them itself, right or wrong."""

from amqp_raw import As
from stage import add

WELL_FORMED = {"reason": "rejected", "queue": "@q", "time": As("T", 1500000000), "exchange": "",
               "count": As("l", 7), "routing-keys": ["@q"]}
OF_ANOTHER = WELL_FORMED | {"queue": "elsewhere", "exchange": "far"}
EXPIRED_HERE = WELL_FORMED | {"reason": "expired"}

CASES = {
    "well_formed": {"x-death": [WELL_FORMED]},
    "well_formed_of_another_queue": {"x-death": [OF_ANOTHER]},
    "same_queue_another_reason": {"x-death": [EXPIRED_HERE]},
    "two_entries_ours_second": {"x-death": [OF_ANOTHER, WELL_FORMED]},
    "three_entries_ours_in_the_middle": {"x-death": [OF_ANOTHER, WELL_FORMED, EXPIRED_HERE]},
    "ours_twice": {"x-death": [WELL_FORMED, WELL_FORMED | {"count": As("l", 2)}]},
    "ours_twice_lower_count_first": {"x-death": [WELL_FORMED | {"count": As("l", 2)}, WELL_FORMED]},
    "another_twice": {"x-death": [OF_ANOTHER, OF_ANOTHER | {"count": As("l", 2)}]},
    "four_of_others": {"x-death": [WELL_FORMED | {"queue": name} for name in "wxyz"]},
    "count_is_int": {"x-death": [WELL_FORMED | {"count": 7}]},
    "count_is_string": {"x-death": [WELL_FORMED | {"count": "7"}]},
    "count_is_byte": {"x-death": [WELL_FORMED | {"count": As("b", 7)}]},
    "count_is_negative": {"x-death": [WELL_FORMED | {"count": As("l", -1)}]},
    "count_is_largest": {"x-death": [WELL_FORMED | {"count": As("l", 2**63 - 1)}]},
    "count_missing": {"x-death": [{k: v for k, v in WELL_FORMED.items() if k != "count"}]},
    "reason_missing": {"x-death": [{k: v for k, v in WELL_FORMED.items() if k != "reason"}]},
    "queue_missing": {"x-death": [{k: v for k, v in WELL_FORMED.items() if k != "queue"}]},
    "reason_is_number": {"x-death": [WELL_FORMED | {"reason": 5}]},
    "reason_unknown": {"x-death": [WELL_FORMED | {"reason": "tired"}]},
    "queue_is_number": {"x-death": [WELL_FORMED | {"queue": 5}]},
    "time_is_string": {"x-death": [WELL_FORMED | {"time": "noon"}]},
    "routing_keys_is_string": {"x-death": [WELL_FORMED | {"routing-keys": "k"}]},
    "other_order_of_keys": {"x-death": [dict(reversed(WELL_FORMED.items()))]},
    "other_keys_kept": {"x-death": [WELL_FORMED | {"mine": 1, "original-expiration": "5"}]},
    "empty_array": {"x-death": []},
    "is_string": {"x-death": "yes"},
    "is_number": {"x-death": 1},
    "is_table": {"x-death": WELL_FORMED},
    "is_void": {"x-death": None},
    "array_of_strings": {"x-death": ["a", "b"]},
    "array_of_empty_table": {"x-death": [{}]},
    "array_mixed": {"x-death": ["a", WELL_FORMED, 5]},
    "first_death_of_client": {"x-first-death-reason": "mine", "x-first-death-queue": "q0",
                              "x-first-death-exchange": "x0"},
    "first_death_reason_only": {"x-first-death-reason": "mine"},
    "first_death_queue_only": {"x-first-death-queue": "mine"},
    "first_death_is_number": {"x-first-death-reason": 1},
    "x_death_and_first_death": {"x-death": [WELL_FORMED], "x-first-death-reason": "expired",
                                "x-first-death-queue": "q0", "x-first-death-exchange": "x0"},
    "last_death_of_client": {"x-last-death-reason": "mine", "x-last-death-queue": "q0"},
    "between_other_headers": {"before": 1, "x-death": [OF_ANOTHER], "after": 2},
    "original_expiration_header": {"original-expiration": "9"},
}


def rejected(s, headers):
    s.queue("@q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@dead"})
    s.queue("@dead")
    s.publish("", "@q", headers=headers)
    s.settle()
    s.boss.take("@q")
    s.boss.say(1, "basic.reject", delivery_tag=1)
    s.boss.settled()
    s.wait(0.05)
    s.state("@q")
    s.drain("@dead")


def expired(s, headers):
    s.queue("@q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@dead",
                   "x-message-ttl": 60})
    s.queue("@dead")
    s.publish("", "@q", headers=headers)
    s.wait(0.25)
    s.state("@q")
    s.drain("@dead")


for _name, _headers in CASES.items():
    add(f"client_death_{_name}", f"rejected, with headers of the client: {_name.replace('_', ' ')}",
        lambda s, headers=_headers: rejected(s, headers), "death_headers")

for _name in ("well_formed", "well_formed_of_another_queue", "same_queue_another_reason", "is_string",
              "empty_array", "count_is_int", "first_death_of_client", "array_of_strings"):
    add(f"client_death_{_name}_expired",
        f"expired, with headers of the client: {_name.replace('_', ' ')}",
        lambda s, headers=CASES[_name]: expired(s, headers), "death_headers")

"""Several hops: x-death with more than one entry, cycles, and what ends them."""

from stage import scenario


def chain(s, count, arguments=None):
    """@q1 … @q<count>, each dead-letters to the next through the default exchange after 30 ms."""
    for at in range(1, count + 1):
        s.queue(f"@q{at}", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"@q{at + 1}",
                            "x-message-ttl": 30} | (arguments or {}))
    s.queue(f"@q{count + 1}")


def reject_from(s, queue):
    s.state(queue, 1)
    if tag := s.boss.take(queue):
        s.boss.say(1, "basic.reject", delivery_tag=tag)
    s.settle()


@scenario
def two_hops_expired(s):
    """two queues with ttl in a row"""
    chain(s, 2)
    s.publish("", "@q1")
    s.drain("@q3", 1)


@scenario
def five_hops_expired(s):
    """five queues with ttl in a row"""
    chain(s, 5)
    s.publish("", "@q1", headers={"kept": 1})
    s.drain("@q6", 1)


@scenario
def five_hops_expiration_and_key_changes(s):
    """the message's own expiration ends it in the first queue, the queues' in the others"""
    chain(s, 5, {"x-message-ttl": 60})
    s.publish("", "@q1", expiration="20")
    s.drain("@q6", 1)


@scenario
def hops_of_different_reasons(s):
    """expired, then rejected, then maxlen"""
    s.queue("@a", {"x-message-ttl": 30, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@b"})
    s.queue("@b", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@c"})
    s.queue("@c", {"x-max-length": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@d"})
    s.queue("@d")
    s.publish("", "@a")
    reject_from(s, "@b")
    s.drain("@d", 1)


@scenario
def same_queue_two_reasons(s):
    """rejected in a queue, sent back there by its DLX, expired in it"""
    s.queue("@a", {"x-message-ttl": 500, "x-dead-letter-exchange": "@dlx"})
    s.exchange("@dlx", "fanout")
    s.bind("@a", "@dlx")
    s.queue("@seen")
    s.bind("@seen", "@dlx")
    s.publish("", "@a")
    reject_from(s, "@a")
    s.drain("@seen", 1)
    s.drain("@seen", 1)
    s.wait(0.6)
    s.state("@a")
    s.state("@seen")


@scenario
def reject_cycle_counts_up(s):
    """dead-lettered to the same queue by reject, four times"""
    s.queue("@q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@q"})
    s.publish("", "@q", headers={"mine": 1})
    for _ in range(4):
        reject_from(s, "@q")
    s.drain("@q", 1)


@scenario
def reject_cycle_without_key(s):
    """the same through a DLX without x-dead-letter-routing-key"""
    s.exchange("@dlx", "fanout")
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.bind("@q", "@dlx")
    s.publish("", "@q", expiration="60000")
    for _ in range(3):
        reject_from(s, "@q")
    s.drain("@q", 1)


@scenario
def retry_queue(s):
    """work --reject--> wait --ttl--> work, three rounds: counts and order of the entries"""
    s.queue("@work", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@wait"})
    s.queue("@wait", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@work",
                      "x-message-ttl": 40})
    s.publish("", "@work")
    for _ in range(3):
        reject_from(s, "@work")
    s.drain("@work", 1)


@scenario
def retry_queue_republished_by_client(s):
    """the client republishes what it got from the retry queue, headers and all"""
    s.queue("@work", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@wait"})
    s.queue("@wait", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@work"})
    s.publish("", "@work", expiration="60000")
    reject_from(s, "@work")
    s.state("@wait", 1)
    s.boss.take("@wait", no_ack=True)
    headers = s.boss.properties["headers"]
    headers["x-death"][0]["time"].value = 1600000000      # its time is masked
    s.publish("", "@wait", "again", headers=headers, expiration="20")
    s.drain("@work", 1)


@scenario
def three_queues_one_rejects(s):
    """a --ttl--> b --ttl--> c --reject--> a --ttl--> b: RabbitMQ turns the older entries of x-death
    around at each death, so the reject is no longer between a and b, and the message is dropped"""
    for name, next_one, ttl in (("@a", "@b", 40), ("@b", "@c", 40), ("@c", "@a", None)):
        s.queue(name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": next_one}
                | ({"x-message-ttl": ttl} if ttl else {}))
    s.publish("", "@a")
    reject_from(s, "@c")
    s.wait(0.4)
    for name in ("@a", "@b", "@c"):
        s.state(name)


@scenario
def three_queues_two_reject(s):
    """a --ttl--> b --reject--> c --reject--> a …, two rounds"""
    for name, next_one, ttl in (("@a", "@b", 40), ("@b", "@c", None), ("@c", "@a", None)):
        s.queue(name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": next_one}
                | ({"x-message-ttl": ttl} if ttl else {}))
    s.publish("", "@a")
    for name in ("@b", "@c", "@b", "@c"):
        reject_from(s, name)
    s.drain("@b", 1)


@scenario
def automatic_cycle_of_two_is_dropped(s):
    """a --ttl--> b --ttl--> a: dropped when it would come to a again"""
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@b", "x-message-ttl": 50})
    s.queue("@b", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@a", "x-message-ttl": 50})
    s.publish("", "@a")
    s.wait(0.4)
    s.state("@a")
    s.state("@b")


@scenario
def automatic_cycle_of_two_with_witness(s):
    """the same through a fanout that a third queue watches"""
    s.exchange("@to_a", "fanout")
    s.exchange("@to_b", "fanout")
    s.queue("@a", {"x-dead-letter-exchange": "@to_b", "x-message-ttl": 50})
    s.queue("@b", {"x-dead-letter-exchange": "@to_a", "x-message-ttl": 50})
    s.bind("@a", "@to_a")
    s.bind("@b", "@to_b")
    s.queue("@seen")
    s.bind("@seen", "@to_a")
    s.bind("@seen", "@to_b")
    s.publish("", "@a")
    s.wait(0.5)
    s.drain("@seen")
    s.state("@a")
    s.state("@b")


@scenario
def automatic_self_cycle_is_dropped(s):
    """ttl to itself"""
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@a", "x-message-ttl": 50})
    s.publish("", "@a")
    s.wait(0.3)
    s.state("@a")


@scenario
def automatic_self_cycle_with_witness(s):
    """ttl to itself through a fanout with a witness: only the queue of the cycle is left out"""
    s.exchange("@dlx", "fanout")
    s.queue("@a", {"x-dead-letter-exchange": "@dlx", "x-message-ttl": 50})
    s.bind("@a", "@dlx")
    s.queue("@seen")
    s.bind("@seen", "@dlx")
    s.publish("", "@a")
    s.wait(0.3)
    s.drain("@seen")
    s.state("@a")


@scenario
def maxlen_self_cycle_is_dropped(s):
    """dropped from the head to itself: two messages in a queue of one"""
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@a", "x-max-length": 1})
    s.publish("", "@a", "one")
    s.publish("", "@a", "two")
    s.wait(0.2)
    s.drain("@a")


@scenario
def maxlen_and_ttl_cycle_is_dropped(s):
    """a --maxlen--> b --ttl--> a"""
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@b", "x-max-length": 1})
    s.queue("@b", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@a", "x-message-ttl": 50})
    s.publish("", "@a", "one")
    s.publish("", "@a", "two")
    s.wait(0.4)
    s.state("@b")
    s.drain("@a")


@scenario
def cycle_with_old_reject_goes_on(s):
    """rejected once, then a --ttl--> b --ttl--> a …: the reject counts, so it turns for ever"""
    s.exchange("@to_a", "fanout")
    s.queue("@start", {"x-dead-letter-exchange": "@to_a"})
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@b", "x-message-ttl": 30})
    s.queue("@b", {"x-dead-letter-exchange": "@to_a", "x-message-ttl": 30})
    s.bind("@a", "@to_a")
    s.queue("@seen", {"x-max-length": 3, "x-overflow": "reject-publish"})
    s.bind("@seen", "@to_a")
    s.publish("", "@start")
    reject_from(s, "@start")
    s.drain("@seen", 3, at_most=3)


@scenario
def client_republishing_breaks_a_cycle(s):
    """after a --ttl--> b the client moves it to a with its headers: it dies there, and then?"""
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@b", "x-message-ttl": 30})
    s.queue("@b")
    s.publish("", "@a")
    s.state("@b", 1)
    s.boss.take("@b", no_ack=True)
    headers = s.boss.properties["headers"]
    headers["x-death"][0]["time"].value = 1600000000      # its time is masked
    s.publish("", "@a", "again", headers=headers)
    s.drain("@b", 1)


@scenario
def two_messages_keep_their_own_deaths(s):
    """two messages, one of them twice rejected"""
    s.queue("@q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@q"})
    s.publish("", "@q", "one")
    reject_from(s, "@q")
    s.state("@q", 1)
    s.publish("", "@q", "two")
    s.drain("@q", 2)


@scenario
def routing_keys_grow_with_copies_over_hops(s):
    """CC and BCC over two hops, the first with a routing key of its own"""
    s.exchange("@x1", "fanout")
    s.exchange("@x2", "fanout")
    s.queue("@a", {"x-dead-letter-exchange": "@x1", "x-dead-letter-routing-key": "first"})
    s.queue("@b", {"x-dead-letter-exchange": "@x2"})
    s.bind("@b", "@x1")
    s.queue("@c")
    s.bind("@c", "@x2")
    s.publish("", "@a", headers={"CC": ["cc"], "BCC": ["bcc"]})
    reject_from(s, "@a")
    reject_from(s, "@b")
    s.drain("@c", 1)


@scenario
def routing_keys_with_copies_over_hops_without_key(s):
    """CC and BCC over two hops, none with a routing key of its own"""
    s.exchange("@x1", "fanout")
    s.exchange("@x2", "fanout")
    s.queue("@a", {"x-dead-letter-exchange": "@x1"})
    s.queue("@b", {"x-dead-letter-exchange": "@x2"})
    s.bind("@b", "@x1")
    s.queue("@c")
    s.bind("@c", "@x2")
    s.publish("", "@a", headers={"CC": ["cc"], "BCC": ["bcc"]})
    reject_from(s, "@a")
    reject_from(s, "@b")
    s.drain("@c", 1)


@scenario
def copies_route_dead_letters_without_key(s):
    """a dead letter without a routing key of its own goes to the queues of its CC and BCC keys too"""
    s.exchange("@in")
    s.exchange("@dlx")
    for key in ("k", "cc", "bcc"):
        s.queue(f"@{key}")
        s.bind(f"@{key}", "@dlx", key)
    s.queue("@q", {"x-dead-letter-exchange": "@dlx"})
    s.bind("@q", "@in", "k")
    s.publish("@in", "k", headers={"CC": ["cc"], "BCC": ["bcc"]})
    reject_from(s, "@q")
    s.drain("@k", 1)
    s.drain("@cc", 1)
    s.wait(0.1)
    s.drain("@bcc")


@scenario
def copies_do_not_route_dead_letters_with_key(s):
    """with a routing key of its own only that one counts"""
    s.exchange("@in")
    s.exchange("@dlx")
    for key in ("k", "cc", "bcc", "new"):
        s.queue(f"@{key}")
        s.bind(f"@{key}", "@dlx", key)
    s.queue("@q", {"x-dead-letter-exchange": "@dlx", "x-dead-letter-routing-key": "new"})
    s.bind("@q", "@in", "k")
    s.publish("@in", "k", headers={"CC": ["cc"], "BCC": ["bcc"]})
    reject_from(s, "@q")
    s.drain("@new", 1)
    s.wait(0.1)
    for key in ("k", "cc", "bcc"):
        s.state(f"@{key}")


@scenario
def first_death_headers_stay(s):
    """expired in a, rejected in b: x-first-death- tells of a"""
    s.queue("@a", {"x-message-ttl": 30, "x-dead-letter-exchange": "@dlx"})
    s.exchange("@dlx", "fanout")
    s.queue("@b", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@c"})
    s.bind("@b", "@dlx")
    s.queue("@c")
    s.publish("", "@a")
    reject_from(s, "@b")
    s.drain("@c", 1)


@scenario
def expiration_dies_once(s):
    """expiration expires in a, is gone in b, which has no ttl"""
    s.queue("@a", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@b"})
    s.queue("@b", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "@c"})
    s.queue("@c")
    s.publish("", "@a", expiration="30")
    s.state("@b", 1)
    s.wait(0.2)
    s.state("@b")
    reject_from(s, "@b")
    s.drain("@c", 1)

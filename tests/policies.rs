//! Policies: arguments for many queues at once, which hold at once and end at once.

use std::time::Duration;

use garenne::vhost::policy::Policy;
use serde_json::json;

use crate::support::*;

fn policy(name: &str, pattern: &str, definition: serde_json::Value) -> Policy {
    let policy = json!({"vhost": "/", "name": name, "pattern": pattern, "definition": definition});
    serde_json::from_value(policy).expect("a policy")
}

#[test]
fn a_policy_holds_for_queues_that_are_there_and_those_to_come_until_it_is_taken_away() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("old");
    client.declare_durable("dead");
    (0..5).for_each(|n| client.publish_persistent("", "old", n.to_string()));
    client.sync();

    let dead = json!({"max-length": 2, "dead-letter-exchange": "", "dead-letter-routing-key": "dead"});
    broker.vhost("/").set_policy(policy("short", "^(old|new)$", dead)).expect("a policy that can be");
    eventually("the oldest have given way", || client.counts("old").0 == 2);
    eventually("they are dead letters", || client.counts("dead").0 == 3);
    client.declare_durable("new");
    (0..5).for_each(|n| client.publish_persistent("", "new", n.to_string()));
    assert_eq!(client.counts("new").0, 2);
    client.close();

    broker.restart();
    let mut client = broker.client();
    client.publish_persistent("", "new", "5");
    eventually("the oldest has given way", || client.counts("new").0 == 2);
    assert!(broker.vhost("/").clear_policy("short", false));
    client.publish_persistent("", "new", "6");
    assert_eq!(client.counts("new").0, 3);
}

#[test]
fn a_time_to_live_by_policy_is_for_messages_that_wait_already() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish("", "q", "waits");
    client.sync();
    broker.advance(Duration::from_secs(10));
    assert_eq!(client.counts("q").0, 1);

    broker.vhost("/").set_policy(policy("p", "", json!({"message-ttl": 5_000}))).expect("a policy");

    eventually("its time is over", || client.counts("q").0 == 0);
}

#[test]
fn a_time_to_live_by_policy_is_for_messages_that_come_back_too() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish("", "q", "is out");
    let tag = client.get("q", "is out").tag();

    broker.vhost("/").set_policy(policy("p", "", json!({"message-ttl": 5_000}))).expect("a policy");
    client.nack(tag, false, true);
    assert_eq!(client.counts("q").0, 1);
    broker.advance(Duration::from_secs(5));

    eventually("its time is over", || client.counts("q").0 == 0);
}

#[test]
fn an_exchange_gets_its_alternate_by_policy() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "direct");
    client.declare("rest");
    client.bind("rest", "amq.fanout", "");
    client.publish("x", "nowhere", "lost");
    client.sync();

    broker
        .vhost("/")
        .set_policy(policy("p", "^x$", json!({"alternate-exchange": "amq.fanout"})))
        .expect("one");
    client.publish("x", "nowhere", "found");
    client.sync();
    assert!(broker.vhost("/").clear_policy("p", false));
    client.publish("x", "nowhere", "lost");

    assert_eq!(client.drain("rest"), ["found"]);
}

#[test]
fn what_holds_can_be_asked_for_with_its_source() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let vhost = broker.vhost("/");
    vhost.set_policy(policy("user's", "", json!({"max-length": 9, "message-ttl": 7}))).expect("a policy");
    let operators = Policy { operator: true, ..policy("operator's", "", json!({"max-length": 5})) };
    vhost.set_policy(operators).expect("a policy");

    let held = vhost.policies_of(&vhost.queue("q").expect("a queue"));

    assert_eq!(
        (held.policy.as_deref(), held.operator_policy.as_deref()),
        (Some("user's"), Some("operator's"))
    );
    assert_eq!(serde_json::Value::Object(held.definition), json!({"max-length": 5, "message-ttl": 7}));
}

#[test]
fn policies_can_be_configured() {
    let text = "[[policies]]\nvhost = \"/\"\nname = \"p\"\npattern = \"^q\"\napply-to = \"queues\"\n\
                definition = { max-length = 1 }\n";
    let seed = toml::from_str::<garenne::config::Config>(text).expect("a configuration").seed;
    let broker = Broker::with(|config| config.seed.policies = seed.policies);
    let mut client = broker.client();
    client.declare("q");

    client.publish("", "q", "a");
    client.publish("", "q", "b");

    assert_eq!(client.drain("q"), ["b"]);
}

#[test]
fn a_limit_does_not_drop_a_living_message_for_the_sake_of_expired_ones_that_are_away() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable_with("q", arguments([("x-max-priority", Value::Int(5))]));
    let priority = |priority: u8| vec![0x18, 0x00, 2, priority];
    (0..6).for_each(|n| client.publish_with("", "q", &priority(1), n.to_string()));
    client.sync();
    client.close();
    // After a start all of them are away.
    broker.restart();
    broker.advance(Duration::from_secs(100));
    let mut client = broker.client();
    client.publish_with("", "q", &priority(4), "high");
    client.sync();

    let rules = json!({"message-ttl": 50_000, "max-length": 1});
    broker.vhost("/").set_policy(policy("p", "", rules)).expect("a policy");

    eventually("the old ones have expired", || client.counts("q").0 == 1);
    assert_eq!(client.drain("q"), ["high"]);
}

//! Delayed messages: held back until their hour, to the millisecond, across restarts.

use std::time::Duration;

use garenne::vhost::policy::Policy;
use serde_json::json;

use crate::support::wire;
use crate::support::*;

/// A delayed exchange of this inner type, and a queue bound to it with key `k`.
fn delayed(client: &mut Client, inner: &str) {
    client.declare_exchange(exchange::Declare {
        exchange: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        arguments: arguments([("x-delayed-type", Value::text(inner))]),
        ..exchange::Declare::default()
    });
    client.declare_durable("q");
    client.bind("q", "later", "k");
}

fn headers<const N: usize>(entries: [(&str, Value); N]) -> Vec<u8> {
    wire::headers(&Table::from_iter(entries))
}

/// A delay, and delivery-mode 2.
fn persistent(ms: i64) -> Vec<u8> {
    let mut out = vec![0x30, 0x00];
    Table::from_iter([("x-delay", Value::Int(ms))]).encode(&mut out);
    out.push(2);
    out
}

fn held(broker: &Broker) -> usize {
    broker.vhost("/").delayed_count("later")
}

#[test]
fn a_message_arrives_when_its_delay_is_over_and_not_before() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.publish_with("later", "k", &headers([("x-delay", Value::Int(5000))]), "five");
    client.publish_with("later", "k", &headers([("x-delay", Value::text("3000"))]), "three");
    client.publish_with("later", "k", &headers([("x-delay", Value::Int(-1))]), "now");
    client.publish("later", "k", "plain");
    client.publish_with("later", "other", &headers([("x-delay", Value::Int(2000))]), "nowhere");
    assert_eq!(client.drain("q"), ["now", "plain"]);
    assert_eq!(held(&broker), 3);

    broker.advance(Duration::from_millis(2900));
    client.expect_empty("q");
    broker.advance(Duration::from_millis(100));
    eventually("the first is due", || client.counts("q").0 == 1);
    let three = client.get("q", "three");
    assert_eq!(three.headers().get("x-delay"), Some(&Value::Int(-3000)));
    assert_eq!((three.exchange(), three.routing_key()), ("later", "k"));
    broker.advance(Duration::from_secs(2));

    eventually("the second is due", || client.counts("q").0 == 1);
    client.get("q", "five");
    assert_eq!(held(&broker), 0);
    // What led nowhere when it was due is kept where people look for such things.
    assert_eq!(client.drain("amq.dead"), ["nowhere"]);
}

#[test]
fn a_time_and_a_level_delay_as_well() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "topic");
    let at = broker.clock.now_ms() as i64 + 60_000;
    client.publish_with("later", "k", &headers([("x-deliver-at", Value::Int(at))]), "in a minute");
    client.publish_with("later", "k", &headers([("x-delay-level", Value::Int(4))]), "level four");
    client.sync();
    assert_eq!(held(&broker), 2);

    broker.advance(Duration::from_secs(31));
    eventually("the level is due", || client.counts("q").0 == 1);
    client.get("q", "level four");
    broker.advance(Duration::from_secs(30));

    eventually("its time has come", || client.counts("q").0 == 1);
    client.get("q", "in a minute");
}

#[test]
fn what_makes_no_sense_is_refused_where_messages_are_delayed_and_inert_elsewhere() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    let senseless = headers([("x-delay", Value::text("soon"))]);
    client.publish_with("", "q", &senseless, "inert");
    client.publish_with("", "q", &headers([("x-delay", Value::Int(5000))]), "inert, too");
    assert_eq!(client.drain("q"), ["inert", "inert, too"]);

    client.publish_with("later", "k", &senseless, "refused");

    let text = "PRECONDITION_FAILED - the header 'x-delay' is 'soon' of type 'longstr', and must be a number";
    client.expect_channel_close(ReplyCode::PreconditionFailed, text);
}

#[test]
fn a_mandatory_message_that_leads_nowhere_today_comes_back_today() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.confirm();
    let mandatory = |key: &str| basic::Publish {
        exchange: "later".into(),
        routing_key: key.into(),
        mandatory: true,
        immediate: false,
    };

    let nowhere = client.content(mandatory("nowhere"), &persistent(1000), b"nowhere");
    client.send_raw(&nowhere);
    client.expect_return("later", "nowhere", "nowhere");
    client.expect_ack(1);
    let somewhere = client.content(mandatory("k"), &persistent(1000), b"somewhere");
    client.send_raw(&somewhere);
    client.expect_ack(2);

    assert_eq!(held(&broker), 1);
    broker.advance(Duration::from_secs(1));
    eventually("it is due", || client.counts("q").0 == 1);
}

#[test]
fn delays_count_on_while_the_broker_is_down_and_come_in_their_order() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    client.confirm();
    for n in 0..300u64 {
        let ms = 1000 + 50 * ((n * 7919) % 300);
        client.publish_with("later", "", &persistent(ms as i64), format!("{ms:05}"));
    }
    client.publish_with("later", "", &persistent(600_000), "late");
    client.expect_confirmed(1, 301);
    client.close();
    broker.stop();

    broker.advance(Duration::from_secs(60));
    broker.restart();
    let mut client = broker.client();
    eventually("all that are due have come", || client.counts("q").0 == 300);
    assert_eq!(held(&broker), 1);

    let expected: Vec<String> = (0..300).map(|n| format!("{:05}", 1000 + 50 * n)).collect();
    assert_eq!(client.drain("q"), expected);
    broker.advance(Duration::from_secs(600));
    eventually("the late one has come", || client.counts("q").0 == 1);
    client.close();
    broker.restart();
    assert_eq!((broker.client().drain("q"), held(&broker)), (vec!["late".to_string()], 0));
}

#[test]
fn after_a_time_the_broker_was_down_messages_come_no_faster_than_they_may() {
    let mut broker = Broker::with(|config| config.delayed_release_rate = 10);
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    (0..5).for_each(|n| client.publish_with("later", "", &persistent(1000), n.to_string()));
    client.sync();
    client.close();
    broker.stop();
    broker.advance(Duration::from_secs(60));
    broker.restart();
    let mut client = broker.client();

    eventually("the first has come", || client.counts("q").0 >= 1);
    assert!(client.counts("q").0 < 5);
    for n in 2..=5 {
        broker.advance(Duration::from_millis(100));
        eventually("one more has come", || client.counts("q").0 >= n);
    }

    assert_eq!(client.drain("q"), ["0", "1", "2", "3", "4"]);
}

#[test]
fn any_exchange_can_delay_by_argument_or_policy() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.declare_exchange(exchange::Declare {
        exchange: "argument".into(),
        kind: "direct".into(),
        arguments: arguments([("delayed", Value::Bool(true))]),
        ..exchange::Declare::default()
    });
    client.exchange("policy", "direct");
    let policy = json!({"vhost": "/", "name": "p", "pattern": "^policy$", "apply-to": "exchanges",
                        "definition": {"delayed": true}});
    let policy: Policy = serde_json::from_value(policy).expect("a policy");
    broker.vhost("/").set_policy(policy).expect("a policy that can be");

    for exchange in ["argument", "policy"] {
        client.bind("q", exchange, "k");
        client.publish(exchange, "k", "first");
        client.publish(exchange, "k", "second");
        client.publish_with(exchange, "k", &headers([("x-delay", Value::Int(1000))]), "delayed");
        assert_eq!(client.drain("q"), ["first", "second"]);
        broker.advance(Duration::from_secs(1));
        eventually("it is due", || client.counts("q").0 == 1);
        assert_eq!(client.drain("q"), ["delayed"]);
    }
}

#[test]
fn what_is_held_back_can_be_purged_and_goes_with_its_exchange() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.publish_with("later", "k", &persistent(1000), "purged");
    client.sync();
    assert_eq!(broker.vhost("/").purge_delayed("later"), Ok(1));
    client.publish_with("later", "k", &persistent(1000), "gone");
    client.sync();
    assert_eq!(held(&broker), 1);

    client.send(exchange::Delete { exchange: "later".into(), ..exchange::Delete::default() });
    client.expect(exchange::DeleteOk {});
    delayed(&mut client, "direct");
    client.close();
    broker.restart();
    broker.advance(Duration::from_secs(1));
    let mut client = broker.client();

    assert_eq!(held(&broker), 0);
    client.expect_empty("q");
}

#[test]
fn a_delayed_publish_of_a_transaction_waits_for_the_commit_and_then_for_its_hour() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.tx();
    client.publish_with("later", "k", &persistent(1000), "forgotten");
    client.rollback();
    client.publish_with("later", "k", &persistent(1000), "committed");
    client.commit();
    assert_eq!(held(&broker), 1);

    broker.advance(Duration::from_secs(1));

    eventually("it is due", || client.counts("q").0 == 1);
    assert_eq!(client.drain("q"), ["committed"]);
}

#[test]
fn the_time_to_live_of_a_delayed_message_begins_when_it_arrives() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    let mut properties = vec![0x21, 0x00];
    Table::from_iter([("x-delay", Value::Int(5000))]).encode(&mut properties);
    properties.extend(wire::short("2000"));
    client.publish_with("later", "k", &properties, "m");
    client.sync();

    broker.advance(Duration::from_secs(5));
    eventually("it is due", || client.counts("q").0 == 1);
    broker.advance(Duration::from_secs(2));

    eventually("it has expired", || client.counts("q").0 == 0);
}

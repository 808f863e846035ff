//! Messages that fail: how often they may, and how long they rest in between.

use std::time::Duration;

use crate::support::*;

fn quorum(client: &mut Client, queue: &str, more: &[(&str, Value)]) {
    let mut table = Table::from_iter([("x-queue-type", Value::text("quorum"))]);
    more.iter().for_each(|(name, value)| table.insert(*name, value.clone()));
    client.declare_durable_with(queue, (&table).into());
}

fn dead_letters() -> [(&'static str, Value); 2] {
    [("x-dead-letter-exchange", Value::text("")), ("x-dead-letter-routing-key", Value::text("dead"))]
}

fn count(message: &Message, name: &str) -> Option<i64> {
    match message.headers().get(name) {
        Some(Value::Int(count)) => Some(*count),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

#[test]
fn a_message_that_fails_once_more_than_it_may_is_a_dead_letter() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let limit = ("x-delivery-limit", Value::Int(2));
    for kind in ["classic", "quorum"] {
        let [exchange, key] = dead_letters();
        let arguments = [("x-queue-type", Value::text(kind)), limit.clone(), exchange, key];
        client.declare_durable_with(kind, (&Table::from_iter(arguments)).into());
        client.publish_persistent("", kind, kind);
        client.consume(kind, kind);
        for failures in 0..=2 {
            let delivered = client.expect_delivery(kind);
            let expected = (failures > 0).then_some(failures);
            assert_eq!(count(&delivered, "x-delivery-count"), expected);
            assert_eq!(count(&delivered, "x-acquired-count"), expected);
            client.nack(delivered.tag(), false, true);
        }
        eventually("it is a dead letter", || client.counts("dead").0 == 1);
        let dead = client.get("dead", kind);
        client.ack(dead.tag());
        assert_eq!(dead.deaths(), [(1, kind.into(), "delivery_limit".into())]);
        assert_eq!(count(&dead, "x-delivery-count"), None);
    }
}

#[test]
fn the_end_of_a_channel_or_connection_counts_as_a_failure() {
    let broker = Broker::start();
    let mut client = broker.client();
    quorum(&mut client, "q", &[]);
    client.publish_persistent("", "q", "job");
    let first = client.get("q", "job");
    assert_eq!((count(&first, "x-delivery-count"), count(&first, "x-acquired-count")), (Some(0), None));

    client.close_channel();
    let mut other = broker.client();
    eventually("it is back", || other.counts("q").0 == 1);
    let second = other.get("q", "job");
    assert_eq!(count(&second, "x-delivery-count"), Some(1));
    drop(other);
    let mut third = broker.client();
    eventually("it is back", || third.counts("q").0 == 1);

    assert_eq!(count(&third.get("q", "job"), "x-delivery-count"), Some(2));
}

#[test]
fn failures_are_remembered_across_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let [exchange, key] = dead_letters();
    quorum(&mut client, "q", &[("x-delivery-limit", Value::Int(3)), exchange, key]);
    client.publish_persistent("", "q", "job");
    for _ in 0..2 {
        let tag = client.get("q", "job").tag();
        client.nack(tag, false, true);
    }
    client.sync();
    client.close();

    for failures in [2, 3] {
        broker.restart();
        let mut client = broker.client();
        let got = client.get("q", "job");
        assert_eq!((count(&got, "x-delivery-count"), got.redelivered()), (Some(failures), true));
        client.nack(got.tag(), false, true);
        client.sync();
        client.close();
    }

    let mut client = broker.client();
    eventually("it is a dead letter", || client.counts("dead").0 == 1);
    assert_eq!(client.get("dead", "job").deaths(), [(1, "q".into(), "delivery_limit".into())]);
}

#[test]
fn a_nack_does_not_count_as_a_failure_where_that_is_configured() {
    let broker = Broker::with(|config| config.nack_counts_as_failure = false);
    let mut client = broker.client();
    quorum(&mut client, "q", &[("x-delivery-limit", Value::Int(1))]);
    client.publish_persistent("", "q", "job");

    for acquired in 0..5 {
        let got = client.get("q", "job");
        let told = (count(&got, "x-delivery-count"), count(&got, "x-acquired-count"));
        assert_eq!(told, (Some(0), (acquired > 0).then_some(acquired)));
        client.nack(got.tag(), false, true);
    }
    for _ in 0..2 {
        let tag = client.get("q", "job").tag();
        client.send(basic::Reject { delivery_tag: tag, requeue: true });
    }

    client.expect_empty("q");
}

#[test]
fn a_quorum_queue_limits_by_itself_only_where_dead_letters_have_a_place() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    quorum(&mut client, "with", &dead_letters());
    quorum(&mut client, "without", &[]);
    for queue in ["with", "without"] {
        client.publish_persistent("", queue, queue);
        for _ in 0..=20 {
            let tag = client.get(queue, queue).tag();
            client.nack(tag, false, true);
        }
    }

    eventually("it is a dead letter", || client.counts("dead").0 == 1);
    assert_eq!((client.counts("with"), client.counts("without")), ((0, 0), (1, 0)));
}

#[test]
fn a_message_that_failed_rests_longer_each_time() {
    let broker = Broker::start();
    let mut client = broker.client();
    let retry = [
        ("x-delayed-retry-type", Value::text("failed")),
        ("x-delayed-retry-min", Value::Int(10_000)),
        ("x-delayed-retry-max", Value::Int(35_000)),
        ("x-delayed-retry-multiplier", Value::Int(2)),
    ];
    client.declare_durable_with("q", (&Table::from_iter(retry)).into());
    client.publish_persistent("", "q", "job");

    for rest_secs in [10, 20, 35, 35] {
        let tag = client.get("q", "job").tag();
        client.send(basic::Reject { delivery_tag: tag, requeue: true });
        client.sync();
        broker.advance(Duration::from_secs(rest_secs - 5));
        client.expect_empty("q");
        broker.advance(Duration::from_secs(5));
        eventually("it has rested", || client.counts("q").0 == 1);
    }
    // A nack is no failure of that kind.
    let tag = client.get("q", "job").tag();
    client.nack(tag, false, true);
    client.get("q", "job");
}

#[test]
fn a_message_that_has_rested_goes_to_a_consumer_though_there_is_no_room_for_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    let arguments = [
        ("x-delayed-retry-type", Value::text("all")),
        ("x-delayed-retry-min", Value::Int(60_000)),
        ("x-max-length", Value::Int(0)),
    ];
    client.declare_durable_with("q", (&Table::from_iter(arguments)).into());
    client.consume("q", "c");
    client.publish("", "q", "job");
    let mut tag = client.expect_delivery("job").tag();
    for _ in 0..20 {
        client.nack(tag, false, true);
        client.sync();

        broker.advance(Duration::from_secs(3600));
        // Whoever looks at the queue in this moment takes nothing away.
        client.send(queue::Declare { queue: "q".into(), passive: true, ..queue::Declare::default() });

        let heard = [client.event(), client.event()];
        let again = heard.iter().find_map(|event| match event {
            Event::Message(message) => Some(message.tag()),
            _ => None,
        });
        tag = again.expect("it has come again");
    }
}

#[test]
fn a_time_to_live_by_policy_is_for_resting_messages_too() {
    let broker = Broker::start();
    let mut client = broker.client();
    let arguments = [
        ("x-delayed-retry-type", Value::text("all")),
        ("x-delayed-retry-min", Value::Int(3_600_000)),
        ("x-dead-letter-exchange", Value::text("")),
        ("x-dead-letter-routing-key", Value::text("dead")),
    ];
    client.declare_durable("dead");
    client.declare_durable_with("q", (&Table::from_iter(arguments)).into());
    client.publish("", "q", "job");
    let tag = client.get("q", "job").tag();
    client.nack(tag, false, true);
    client.sync();

    let policy = serde_json::json!({
        "vhost": "/", "name": "p", "pattern": "^q$", "definition": {"message-ttl": 5_000}
    });
    let policy = serde_json::from_value(policy).expect("a policy");
    broker.vhost("/").set_policy(policy).expect("a policy that can be");
    broker.advance(Duration::from_secs(5));

    eventually("it is a dead letter", || client.counts("dead").0 == 1);
}

#[test]
fn a_resting_message_expires_in_its_time_and_goes_with_its_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let [exchange, key] = dead_letters();
    let arguments = [
        ("x-delayed-retry-type", Value::text("all")),
        ("x-delayed-retry-min", Value::Int(60_000)),
        ("x-message-ttl", Value::Int(20_000)),
        exchange,
        key,
    ];
    client.declare_durable_with("q", (&Table::from_iter(arguments)).into());
    client.publish_persistent("", "q", "job");
    let tag = client.get("q", "job").tag();
    client.nack(tag, false, true);
    client.expect_empty("q");

    broker.advance(Duration::from_secs(20));

    eventually("it is a dead letter", || client.counts("dead").0 == 1);
    assert_eq!(client.get("dead", "job").deaths(), [(1, "q".into(), "expired".into())]);
}

#[test]
fn a_consumer_that_keeps_a_message_too_long_loses_it_and_ends_and_its_channel_goes_on() {
    let broker = Broker::start();
    let (mut client, mut slow) = (broker.client(), broker.client());
    client.declare_durable_with("q", arguments([("x-consumer-timeout", Value::Int(60_000))]));
    slow.qos(2, false);
    slow.consume("q", "slow");
    client.publish_persistent("", "q", "kept");
    let kept = slow.expect_delivery("kept").tag();
    broker.advance(Duration::from_secs(40));
    client.publish_persistent("", "q", "fresh");
    let fresh = slow.expect_delivery("fresh").tag();

    broker.advance(Duration::from_secs(20));
    slow.expect(basic::Cancel { consumer_tag: "slow".into(), nowait: true });
    eventually("it is back", || client.counts("q") == (1, 0));
    // It does not know better, and is not punished.
    slow.ack(kept);
    slow.ack(fresh);
    slow.sync();

    assert!(client.get("q", "kept").redelivered());
    client.expect_empty("q");
}

#[test]
fn a_consumer_can_say_how_long_it_takes_and_a_policy_can_for_those_that_do_not() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    let own = arguments([("x-consumer-timeout", Value::Int(600_000))]);
    let patient = basic::Consume {
        queue: "q".into(),
        consumer_tag: "patient".into(),
        arguments: own,
        ..basic::Consume::default()
    };
    client.qos(1, false);
    client.send(patient);
    client.expect(basic::ConsumeOk { consumer_tag: "patient".into() });
    client.consume("q", "plain");
    client.publish_persistent("", "q", "a");
    client.publish_persistent("", "q", "b");
    client.expect_delivery("a");
    client.expect_delivery("b");

    let policy = serde_json::json!({"vhost": "/", "name": "p", "pattern": "^q$",
                                    "definition": {"consumer-timeout": 1000}});
    let policy = serde_json::from_value(policy).expect("a policy");
    broker.vhost("/").set_policy(policy).expect("a policy that can be");
    broker.advance(Duration::from_secs(2));
    client.expect(basic::Cancel { consumer_tag: "plain".into(), nowait: true });
    assert_eq!(client.counts("q"), (1, 1));

    broker.advance(Duration::from_secs(600));
    client.expect(basic::Cancel { consumer_tag: "patient".into(), nowait: true });
}

#[test]
fn the_next_of_single_active_consumers_begins_with_what_the_late_one_had() {
    let broker = Broker::start();
    let (mut client, mut late, mut next) = (broker.client(), broker.client(), broker.client());
    let arguments = arguments([
        ("x-consumer-timeout", Value::Int(60_000)),
        ("x-single-active-consumer", Value::Bool(true)),
    ]);
    client.declare_durable_with("q", arguments);
    late.qos(2, false);
    late.consume("q", "late");
    next.consume("q", "next");
    for body in ["a", "b", "c"] {
        client.publish_persistent("", "q", body);
    }
    late.expect_delivery("a");
    late.expect_delivery("b");

    broker.advance(Duration::from_secs(60));

    ["a", "b", "c"].into_iter().for_each(|body| drop(next.expect_delivery(body)));
}

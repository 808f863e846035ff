//! Whose turn it is: priorities of messages, single active consumers, rates.

use std::time::Duration;

use crate::support::wire;
use crate::support::*;

fn with(client: &mut Client, queue: &str, more: &[(&str, Value)]) {
    let table: Table = more.iter().map(|(name, value)| (*name, value.clone())).collect();
    client.declare_durable_with(queue, (&table).into());
}

fn priorities(max: i64) -> (&'static str, Value) {
    ("x-max-priority", Value::Int(max))
}

/// `priority` and delivery-mode 2.
fn persistent_priority(priority: u8) -> Vec<u8> {
    vec![0x18, 0x00, 2, priority]
}

#[test]
fn the_highest_priority_comes_first_and_within_it_who_came_first() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[priorities(5)]);
    for (priority, body) in [(0, "e"), (3, "c"), (9, "a"), (3, "d"), (5, "b")] {
        client.publish_with("", "q", &persistent_priority(priority), body);
    }
    client.publish_persistent("", "q", "f");
    assert_eq!(client.counts("q"), (6, 0));
    let tag = client.get("q", "a").tag();
    client.nack(tag, false, true);
    client.close();

    broker.restart();
    let mut client = broker.client();

    assert_eq!(client.counts("q"), (6, 0));
    assert_eq!(client.drain("q"), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn a_consumer_that_takes_all_at_once_gets_the_highest_priority_first() {
    let broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[priorities(5)]);
    for (priority, body) in [(1, "d"), (1, "e"), (5, "a"), (3, "b"), (3, "c")] {
        client.publish_with("", "q", &wire::priority(priority), body);
    }

    client.consume("q", "c");

    ["a", "b", "c", "d", "e"].into_iter().for_each(|body| drop(client.expect_delivery(body)));
}

#[test]
fn messages_of_all_priorities_expire_and_give_way() {
    let broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[priorities(10), ("x-max-length", Value::Int(3))]);
    client.publish_with("", "q", &[0x09, 0x00, 7, 4, b'1', b'0', b'0', b'0'], "high");
    client.publish_with("", "q", &wire::expiration("1000"), "low");
    client.publish("", "q", "stays");

    broker.advance(Duration::from_secs(1));
    eventually("two have expired", || client.counts("q").0 == 1);
    for (priority, body) in [(1, "one"), (2, "two"), (3, "three")] {
        client.publish_with("", "q", &wire::priority(priority), body);
    }

    // As in RabbitMQ, it is the head that goes, whatever its priority.
    assert_eq!(client.drain("q"), ["two", "one", "stays"]);
}

#[test]
fn acknowledgements_of_all_priorities_last() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[priorities(255)]);
    for priority in 0..=255 {
        client.publish_with("", "q", &persistent_priority(priority), priority.to_string());
    }
    client.consume("q", "c");
    for priority in (0..=255).rev() {
        let tag = client.expect_delivery(&priority.to_string()).tag();
        if priority % 2 == 1 {
            client.ack(tag);
        }
    }
    client.sync();
    client.close();

    broker.restart();
    let mut client = broker.client();

    let expected: Vec<(String, bool)> = (0..128).rev().map(|n| ((2 * n).to_string(), true)).collect();
    assert_eq!(client.drain_marked("q"), expected);
}

#[test]
fn one_consumer_gets_everything_until_it_leaves_and_then_the_next() {
    let broker = Broker::start();
    let (mut client, mut one, mut two) = (broker.client(), broker.client(), broker.client());
    with(&mut client, "q", &[("x-single-active-consumer", Value::Bool(true))]);
    one.consume("q", "one");
    two.consume("q", "two");
    for body in ["a", "b"] {
        client.publish("", "q", body);
    }
    one.expect_delivery("a");
    let tag = one.expect_delivery("b").tag();
    one.ack(tag);

    one.cancel("one");
    client.publish("", "q", "c");
    two.expect_delivery("c");
    one.close_channel();

    assert!(two.expect_delivery("a").redelivered());
}

#[test]
fn the_next_active_consumer_begins_with_what_the_one_before_had_not_acknowledged() {
    let broker = Broker::start();
    let (mut client, mut one, mut two) = (broker.client(), broker.client(), broker.client());
    with(&mut client, "q", &[("x-single-active-consumer", Value::Bool(true))]);
    for consumer in [&mut one, &mut two] {
        consumer.qos(1, false);
        consumer.consume("q", "c");
    }
    for body in ["a", "b"] {
        client.publish("", "q", body);
    }
    one.expect_delivery("a");
    client.sync();

    one.close_channel();

    let tag = two.expect_delivery("a").tag();
    two.ack(tag);
    two.expect_delivery("b");
}

#[test]
fn nobody_has_a_queue_with_a_single_active_consumer_for_itself() {
    let broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[("x-single-active-consumer", Value::Bool(true))]);

    client.send(basic::Consume { queue: "q".into(), exclusive: true, ..basic::Consume::default() });

    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    client.expect_channel_close(ReplyCode::AccessRefused, text);
}

#[test]
fn the_one_with_least_to_do_gets_the_next_message() {
    let broker = Broker::start();
    let (mut client, mut busy, mut idle) = (broker.client(), broker.client(), broker.client());
    with(&mut client, "q", &[("x-dispatch", Value::text("least-loaded"))]);
    busy.consume("q", "busy");
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
        busy.expect_delivery(body);
    }

    idle.consume("q", "idle");
    for body in ["d", "e", "f"] {
        client.publish("", "q", body);
    }

    ["d", "e", "f"].into_iter().for_each(|body| drop(idle.expect_delivery(body)));
}

#[test]
fn no_more_leave_in_a_second_than_the_rate_says() {
    let broker = Broker::start();
    for argument in ["x-delivery-rate", "x-consumer-delivery-rate"] {
        let mut client = broker.client();
        with(&mut client, argument, &[(argument, Value::Int(1))]);
        for body in ["a", "b", "c"] {
            client.publish("", argument, body);
        }
        client.consume_no_ack(argument, "c");

        client.expect_delivery("a");
        assert_eq!(client.counts(argument).0, 2);
        broker.advance(Duration::from_secs(1));
        client.expect_delivery("b");
        assert_eq!(client.counts(argument).0, 1);
        broker.advance(Duration::from_secs(1));
        client.expect_delivery("c");
    }
}

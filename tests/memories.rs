//! Exchanges that remember: the last messages for those that come later, and messages that come twice.

use std::time::Duration;

use crate::support::wire;
use crate::support::*;

fn exchange_with<const N: usize>(client: &mut Client, kind: &str, entries: [(&str, Value); N]) {
    client.declare_exchange(exchange::Declare {
        exchange: "x".into(),
        kind: kind.into(),
        durable: true,
        arguments: arguments(entries),
        ..exchange::Declare::default()
    });
}

/// Headers with a value to be known by, and delivery-mode 2.
fn known_by(value: &str) -> Vec<u8> {
    known_for(value, None)
}

fn known_for(value: &str, ttl_ms: Option<i64>) -> Vec<u8> {
    let mut table = Table::from_iter([("x-deduplication-header", Value::text(value))]);
    ttl_ms.into_iter().for_each(|ms| table.insert("x-cache-ttl", Value::Int(ms)));
    let mut out = vec![0x30, 0x00];
    table.encode(&mut out);
    out.push(2);
    out
}

#[test]
fn who_is_bound_later_gets_the_last_messages() {
    let broker = Broker::start();
    let mut client = broker.client();
    exchange_with(&mut client, "x-recent-history", [("x-recent-history-length", Value::Int(3))]);
    for body in ["a", "b", "c", "d"] {
        client.publish("x", "k", body);
    }
    let no_store = wire::headers(&Table::from_iter([("x-recent-history-no-store", Value::Bool(true))]));
    client.publish_with("x", "k", &no_store, "not remembered");
    client.declare("q");

    client.bind("q", "x", "");
    client.bind("q", "x", "");
    client.publish("x", "k", "e");

    assert_eq!(client.drain("q"), ["b", "c", "d", "e"]);
    client.exchange("fan", "fanout");
    client.declare("behind");
    client.bind("behind", "fan", "");
    client.bind_exchange("fan", "x", "");
    assert_eq!(client.drain("behind"), ["c", "d", "e"]);
}

#[test]
fn a_message_that_comes_twice_passes_once_and_is_confirmed_twice() {
    let broker = Broker::start();
    let mut client = broker.client();
    exchange_with(&mut client, "x-message-deduplication", [("x-cache-size", Value::Int(2))]);
    client.declare_durable("q");
    client.bind("q", "x", "");
    client.confirm();

    for (value, body) in [("1", "a"), ("1", "again"), ("2", "b"), ("3", "c"), ("1", "out of the window")] {
        client.publish_with("x", "", &known_by(value), body);
    }
    client.publish("x", "", "no value");
    client.publish("x", "", "no value");
    client.expect_confirmed(1, 7);

    assert_eq!(client.drain("q"), ["a", "b", "c", "out of the window", "no value", "no value"]);
}

#[test]
fn a_value_is_forgotten_after_its_time_and_a_message_can_say_how_long_that_is() {
    let broker = Broker::start();
    let mut client = broker.client();
    let arguments = [("x-cache-size", Value::Int(100)), ("x-cache-ttl", Value::Int(10_000))];
    exchange_with(&mut client, "x-message-deduplication", arguments);
    client.declare_durable("q");
    client.bind("q", "x", "");
    client.publish_with("x", "", &known_by("plain"), "plain");
    client.publish_with("x", "", &known_for("short", Some(1000)), "short");
    client.sync();

    broker.advance(Duration::from_secs(1));
    client.publish_with("x", "", &known_by("plain"), "plain again");
    client.publish_with("x", "", &known_by("short"), "short again");
    client.sync();
    broker.advance(Duration::from_secs(9));
    client.publish_with("x", "", &known_by("plain"), "plain later");

    assert_eq!(client.drain("q"), ["plain", "short", "short again", "plain later"]);
}

#[test]
fn what_is_kept_on_disk_is_known_after_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    let on_disk = [
        ("x-cache-size", Value::Int(3)),
        ("x-cache-ttl", Value::Int(60_000)),
        ("x-cache-persistence", Value::text("disk")),
    ];
    exchange_with(&mut client, "x-message-deduplication", on_disk);
    client.declare_durable("q");
    client.bind("q", "x", "");
    client.confirm();
    for n in 1..=5 {
        client.publish_with("x", "", &known_by(&n.to_string()), n.to_string());
    }
    client.expect_confirmed(1, 5);
    client.close();

    broker.restart();
    let mut client = broker.client();
    for value in ["3", "4", "5", "1"] {
        client.publish_with("x", "", &known_by(value), format!("{value} again"));
    }
    assert_eq!(client.drain("q"), ["1", "2", "3", "4", "5", "1 again"]);
    broker.advance(Duration::from_secs(60));
    client.publish_with("x", "", &known_by("5"), "5 later");
    assert_eq!(client.drain("q"), ["5 later"]);
}

#[test]
fn what_becomes_of_a_duplicate_can_be_chosen() {
    let broker = Broker::start();
    for how in ["nack", "return", "dead-letter"] {
        let mut client = broker.client();
        client.declare(how);
        let choice = [
            ("x-cache-size", Value::Int(10)),
            ("x-deduplication-on-duplicate", Value::text(how)),
            ("alternate-exchange", Value::text("amq.fanout")),
        ];
        exchange_with(&mut client, "x-message-deduplication", choice);
        client.bind(how, "x", "");
        client.declare("others");
        client.bind("others", "amq.fanout", "");
        client.confirm();
        client.publish_with("x", "", &known_by("v"), "first");
        client.expect_ack(1);

        client.publish_with("x", "", &known_by("v"), "second");
        match how {
            "nack" => client.expect(basic::Nack { delivery_tag: 2, multiple: false, requeue: false }),
            "return" => {
                let Event::Message(returned) = client.event() else { panic!("a return was expected") };
                assert_eq!((returned.text().as_str(), returned.exchange()), ("second", "x"));
                let method = &*returned.method;
                assert!(matches!(method, Cold::Basic(basic::AMQPMethod::Return(m)) if m.reply_code == 406));
                client.expect_ack(2);
            }
            _ => client.expect_ack(2),
        }

        let elsewhere: &[&str] = if how == "dead-letter" { &["second"] } else { &[] };
        assert_eq!(client.drain(how), ["first"]);
        assert_eq!(client.drain("others"), elsewhere);
        client.send(exchange::Delete { exchange: "x".into(), ..exchange::Delete::default() });
        client.expect(exchange::DeleteOk {});
    }
}

#[test]
fn no_transaction_publishes_to_an_exchange_that_knows_messages_again() {
    let broker = Broker::start();
    let mut client = broker.client();
    exchange_with(&mut client, "x-message-deduplication", [("x-cache-size", Value::Int(2))]);
    client.tx();

    client.publish_with("x", "", &known_by("1"), "a");

    let text = "PRECONDITION_FAILED - exchange 'x' in vhost '/' knows messages again, which no transaction can \
                take back; publish on a channel without one";
    client.expect_channel_close(ReplyCode::PreconditionFailed, text);
}

/// A durable queue that has each value once.
fn once(client: &mut Client, queue: &str, more: &[(&str, Value)]) {
    let all = [("x-message-deduplication", Value::Bool(true))].into_iter().chain(more.iter().cloned());
    let all = (&Table::from_iter(all)).into();
    client.declare_durable_with(queue, all);
}

#[test]
fn a_queue_has_a_message_once_until_it_is_gone() {
    let mut broker = Broker::with(|config| config.message_memory_bytes_max = 10_000);
    let mut client = broker.client();
    once(&mut client, "q", &[]);
    client.confirm();
    let publish = |client: &mut Client, value: &str, body: &str| {
        client.publish_with("", "q", &known_by(value), format!("{body:>500}"));
    };
    let drained = |client: &mut Client| -> Vec<String> {
        client.drain("q").iter().map(|body| body.trim_start().to_string()).collect()
    };
    for n in 0..100 {
        publish(&mut client, &n.to_string(), &n.to_string());
        publish(&mut client, &(n / 2).to_string(), "a duplicate");
    }
    client.publish("", "q", "without a value");
    client.publish("", "q", "without a value");
    client.expect_confirmed(1, 202);
    assert_eq!(client.counts("q").0, 102);

    client.get("q", &format!("{:>500}", 0));
    publish(&mut client, "0", "it is out, but not gone");
    client.expect_ack(203);
    client.ack(1);
    publish(&mut client, "0", "again");
    client.expect_ack(204);
    client.close();
    broker.restart();
    let mut client = broker.client();
    client.confirm();
    publish(&mut client, "17", "a duplicate");
    client.expect_ack(1);
    let expected: Vec<String> = (1..100).map(|n| n.to_string()).chain(["again".into()]).collect();
    assert_eq!(drained(&mut client), expected);
    publish(&mut client, "17", "17 again");
    client.expect_ack(2);
    assert_eq!(drained(&mut client), ["17 again"]);
}

#[test]
fn a_value_goes_with_its_message_however_that_goes() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("dead");
    let dead = [
        ("x-dead-letter-exchange", Value::text("")),
        ("x-dead-letter-routing-key", Value::text("dead")),
        ("x-max-length", Value::Int(1)),
    ];
    once(&mut client, "q", &dead);
    let publish = |client: &mut Client, body: &str| client.publish_with("", "q", &known_by("v"), body);
    publish(&mut client, "rejected");
    publish(&mut client, "a duplicate");
    client.get("q", "rejected");
    client.nack(1, false, false);
    eventually("it is a dead letter", || client.counts("dead").0 == 1);
    publish(&mut client, "dropped");
    client.publish_with("", "q", &known_by("w"), "purged");
    eventually("it has made room", || client.counts("dead").0 == 2);
    client.send(queue::Purge { queue: "q".into(), ..queue::Purge::default() });
    client.expect(queue::PurgeOk { message_count: 1 });
    client.publish_with("", "q", &known_by("w"), "taken at once");
    client.consume_no_ack("q", "c");
    client.expect_delivery("taken at once");
    client.publish_with("", "q", &known_by("w"), "taken, too");
    client.expect_delivery("taken, too");
    client.cancel("c");
    let mut expiring = vec![0x31, 0x00];
    Table::from_iter([("x-deduplication-header", Value::text("x"))]).encode(&mut expiring);
    expiring.extend([2, 4]);
    expiring.extend(b"1000");
    client.publish_with("", "q", &expiring, "expired");
    client.publish_with("", "q", &expiring, "a duplicate");
    client.sync();
    broker.advance(Duration::from_secs(1));
    eventually("it has expired", || client.counts("dead").0 == 3);
    client.publish_with("", "q", &known_by("x"), "the last");
    client.tx();
    publish(&mut client, "committed");
    publish(&mut client, "a duplicate");
    client.rollback();
    client.publish_with("", "q", &known_by("x"), "a duplicate");
    client.commit();

    assert_eq!(client.drain("q"), ["the last"]);
    assert_eq!(client.drain("dead"), ["rejected", "dropped", "expired"]);
}

#[test]
fn a_queue_does_with_a_duplicate_what_it_was_told() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("dead");
    let choices = ["nack", "return", "dead-letter"];
    for (queue, choice) in ["a", "b", "c"].into_iter().zip(choices) {
        let more = [
            ("x-deduplication-on-duplicate", Value::text(choice)),
            ("x-dead-letter-exchange", Value::text("")),
            ("x-dead-letter-routing-key", Value::text("dead")),
        ];
        once(&mut client, queue, &more);
    }
    client.confirm();
    for queue in ["a", "b", "c"] {
        client.publish_with("", queue, &known_by("v"), "first");
    }
    client.expect_confirmed(1, 3);

    client.publish_with("", "a", &known_by("v"), "second");
    client.expect(basic::Nack { delivery_tag: 4, multiple: false, requeue: false });
    client.publish_with("", "b", &known_by("v"), "second");
    let Event::Message(back) = client.event() else { panic!("it does not come back") };
    let Cold::Basic(basic::AMQPMethod::Return(method)) = &*back.method else { panic!("{back:?}") };
    assert_eq!((method.reply_code, &*back.body), (406, b"second".as_slice()));
    client.expect_ack(5);
    client.publish_with("", "c", &known_by("v"), "third");
    client.expect_ack(6);
    eventually("it is a dead letter", || client.counts("dead").0 == 1);
    assert_eq!(client.drain("dead"), ["third"]);
    assert_eq!((client.counts("a").0, client.counts("b").0, client.counts("c").0), (1, 1, 1));
    let other = arguments([("x-message-deduplication", Value::text("yes"))]);
    client.send(queue::Declare { queue: "d".into(), arguments: other, ..queue::Declare::default() });
    client.expect_channel_close(
        ReplyCode::PreconditionFailed,
        "PRECONDITION_FAILED - invalid arg 'x-message-deduplication' for queue 'd' in vhost '/': \
         {unacceptable_type,longstr}",
    );
}

#[test]
fn what_comes_through_another_exchange_is_remembered_as_well() {
    let broker = Broker::start();
    let mut client = broker.client();
    exchange_with(&mut client, "x-recent-history", [("x-recent-history-length", Value::Int(2))]);
    client.exchange("front", "fanout");
    client.bind_exchange("x", "front", "");
    ["a", "b", "c"].iter().for_each(|body| client.publish("front", "k", body));
    client.declare("q");

    client.bind("q", "x", "");

    assert_eq!(client.drain("q"), ["b", "c"]);
}

#[test]
fn a_message_that_was_refused_can_be_sent_again() {
    let broker = Broker::start();
    let mut client = broker.client();
    exchange_with(
        &mut client,
        "x-message-deduplication",
        [("x-cache-size", Value::Int(10)), ("x-cache-persistence", Value::text("disk"))],
    );
    let full = [("x-max-length", Value::Int(1)), ("x-overflow", Value::text("reject-publish"))];
    client.declare_durable_with("q", arguments(full));
    client.bind("q", "x", "");
    client.confirm();
    client.publish_with("x", "", &known_by("one"), "one");
    client.publish_with("x", "", &known_by("two"), "two");
    // Of the same batch: nobody knows yet what becomes of the first.
    client.publish_with("x", "", &known_by("two"), "two again");
    client.expect_ack(1);
    client.expect(basic::Nack { delivery_tag: 2, multiple: false, requeue: false });
    client.expect(basic::Nack { delivery_tag: 3, multiple: false, requeue: false });
    assert_eq!(client.drain("q"), ["one"]);

    client.publish_with("x", "", &known_by("two"), "two at last");
    client.expect_ack(4);
    client.publish_with("x", "", &known_by("two"), "a duplicate");
    client.expect_ack(5);

    assert_eq!(client.drain("q"), ["two at last"]);
}

#[test]
fn a_transaction_can_replace_a_message_that_its_queue_has_once() {
    let broker = Broker::start();
    let mut client = broker.client();
    once(&mut client, "q", &[]);
    client.publish_with("", "q", &known_by("v"), "before");
    client.tx();
    client.get("q", "before");
    client.ack(1);
    client.publish_with("", "q", &known_by("v"), "after");
    client.publish_with("", "q", &known_by("v"), "a duplicate");
    client.commit();

    assert_eq!(client.drain("q"), ["after"]);
}

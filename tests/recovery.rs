//! What is there after a stop and after a crash. A stop is in order; a crash is SIGKILL of the real binary,
//! which loses what had not been synced and nothing else.

use std::time::Duration;

use crate::support::wire::{self, NO_PROPERTIES, PERSISTENT};
use crate::support::*;

fn marked<const N: usize>(expected: [(&str, bool); N]) -> Vec<(String, bool)> {
    expected.map(|(body, redelivered)| (body.to_string(), redelivered)).into()
}

/// Publishes persistent messages to a queue and waits until they are confirmed.
fn fill(client: &mut Client, queue: &str, bodies: &[&str]) {
    let channel = 9;
    client.open_channel(channel);
    let mut client = client.on(channel);
    client.confirm();
    bodies.iter().for_each(|body| client.publish_persistent("", queue, body));
    client.expect_confirmed(1, bodies.len() as u64);
    client.close_channel();
}

/// Durable and other things of every kind, with a message in each queue.
fn declare_everything(client: &mut Client) {
    client.declare_durable("durable");
    client.declare("transient");
    let exclusive = queue::Declare { exclusive: true, durable: true, ..Default::default() };
    client.declare_queue(queue::Declare { queue: "exclusive".into(), ..exclusive });
    for (exchange, kind, durable) in [("x", "topic", true), ("x2", "fanout", true), ("gone", "fanout", false)]
    {
        let (exchange, kind) = (exchange.into(), kind.into());
        client.declare_exchange(exchange::Declare { exchange, kind, durable, ..Default::default() });
    }
    client.declare_exchange(exchange::Declare {
        exchange: "inner".into(),
        kind: "headers".into(),
        durable: true,
        internal: true,
        auto_delete: true,
        arguments: arguments([("alternate-exchange", Value::text("x2"))]),
        ..Default::default()
    });
    client.bind("durable", "x", "a.*");
    client.bind("durable", "x", "unbound");
    client.send(queue::Unbind {
        queue: "durable".into(),
        exchange: "x".into(),
        routing_key: "unbound".into(),
        ..Default::default()
    });
    client.expect(queue::UnbindOk {});
    client.bind_exchange("x2", "x", "b.*");
    client.bind("durable", "x2", "");
    client.bind("transient", "x", "#");
    client.bind("durable", "gone", "");
    client.bind_with(
        "durable",
        "inner",
        "",
        arguments([("x-match", Value::text("any")), ("n", Value::Int(7))]),
    );
    client.confirm();
    client.publish_persistent("", "durable", "persistent");
    client.publish("", "durable", "transient");
    client.publish_persistent("", "transient", "persistent");
    client.publish_persistent("", "exclusive", "persistent");
    client.expect_confirmed(1, 4);
}

fn check_everything(client: &mut Client) {
    assert_eq!(client.drain("durable"), ["persistent"]);
    assert!(!client.has_queue("transient"));
    assert!(!client.has_queue("exclusive"));
    assert!(!client.has_exchange("gone"));
    for key in ["a.a", "b.b", "unbound", "c.c"] {
        client.publish("x", key, key);
    }
    assert_eq!(client.drain("durable"), ["a.a", "b.b"]);
    // The same declares again find what they ask for.
    client.declare_exchange(exchange::Declare {
        exchange: "inner".into(),
        kind: "headers".into(),
        durable: true,
        internal: true,
        auto_delete: true,
        arguments: arguments([("alternate-exchange", Value::text("x2"))]),
        ..Default::default()
    });
    client.bind_exchange("inner", "x", "to.inner");
    let headers = wire::headers(&Table::from_iter([("n", Value::Int(7))]));
    client.publish_with("x", "to.inner", &headers, "by its header");
    assert_eq!(client.drain("durable"), ["by its header"]);
}

#[test]
fn a_restart_brings_back_what_is_durable() {
    let mut broker = Broker::start();
    declare_everything(&mut broker.client());

    broker.restart();

    check_everything(&mut broker.client());
}

#[test]
fn a_crash_brings_back_what_is_durable() {
    let mut broker = Process::start();
    let mut client = broker.client();
    declare_everything(&mut client);

    broker.crash();

    check_everything(&mut broker.client());
}

#[test]
fn what_was_deleted_stays_deleted() {
    let mut broker = Process::start();
    let mut client = broker.client();
    for queue in ["kept", "deleted", "again"] {
        client.declare_durable(queue);
    }
    client.declare_exchange(exchange::Declare {
        exchange: "x".into(),
        kind: "fanout".into(),
        durable: true,
        ..Default::default()
    });
    for queue in ["kept", "deleted", "again"] {
        client.bind(queue, "x", "");
        fill(&mut client, queue, &["old"]);
    }
    for queue in ["deleted", "again"] {
        client.send(queue::Delete { queue: queue.into(), ..Default::default() });
        client.expect(queue::DeleteOk { message_count: 1 });
    }
    client.send(exchange::Delete { exchange: "x".into(), ..Default::default() });
    client.expect(exchange::DeleteOk {});
    client.declare_durable("again");

    broker.crash();

    let mut client = broker.client();
    assert!(!client.has_queue("deleted"));
    assert!(!client.has_exchange("x"));
    assert_eq!(client.drain("again"), Vec::<String>::new());
    assert_eq!(client.drain("kept"), ["old"]);
}

#[test]
fn what_is_answered_is_on_disk() {
    let mut broker = Process::start();
    for n in 0..5 {
        let mut client = broker.client();
        let queue = format!("q{n}");
        client.declare_durable(&queue);
        client.bind(&queue, "amq.direct", "k");

        broker.crash();

        let mut client = broker.client();
        assert_eq!(client.counts(&queue), (0, 0));
        client.confirm();
        client.publish_persistent("amq.direct", "k", "m");
        client.expect_ack(1);
    }

    broker.crash();

    let mut client = broker.client();
    for n in 0..5u32 {
        assert_eq!(client.counts(&format!("q{n}")), (5 - n, 0));
    }
}

#[test]
fn what_was_confirmed_is_there_after_a_crash_in_order() {
    let mut broker = Process::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    let mut bytes = Vec::new();
    for n in 0..20_000 {
        let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };
        bytes.extend(client.content(publish, PERSISTENT, format!("{n}").as_bytes()));
    }

    // The crash comes while more is on its way.
    client.send_raw(&bytes);
    let mut confirmed = 0;
    while confirmed < 2000 {
        let Cold::Basic(basic::AMQPMethod::Ack(ack)) = client.method() else { panic!("no ack") };
        confirmed = ack.delivery_tag as usize;
    }
    broker.crash();

    let found = broker.client().drain("q");
    let expected: Vec<String> = (0..found.len()).map(|n| n.to_string()).collect();
    assert!(found.len() >= confirmed, "{} found, {confirmed} confirmed", found.len());
    assert_eq!(found, expected, "in order and without a gap");
}

#[test]
fn a_body_of_many_segments_is_there_after_a_crash() {
    let mut broker = Process::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    let bodies: Vec<Vec<u8>> =
        [0, 1, 5_000_000].iter().map(|&n: &usize| (0..n).map(|i| (i % 251) as u8).collect()).collect();

    for (body, tag) in bodies.iter().zip(1..) {
        client.publish_persistent("", "q", body);
        client.expect_ack(tag);
    }
    broker.crash();

    let mut client = broker.client();
    for body in &bodies {
        client.send(basic::Get { queue: "q".into(), no_ack: true });
        let Event::Message(got) = client.event() else { panic!("no message") };
        assert!(got.body == *body, "{} octets", body.len());
        assert_eq!(&got.properties[..], PERSISTENT);
    }
}

fn hold_three(client: &mut Client) {
    client.declare_durable("q");
    fill(client, "q", &["one", "two", "three", "four", "five"]);
    client.qos(3, false);
    client.consume("q", "c");
    for body in ["one", "two", "three"] {
        client.expect_delivery(body);
    }
}

#[test]
fn unacked_messages_are_back_in_their_places_after_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    hold_three(&mut client);
    client.ack(2);
    client.expect_delivery("four");

    drop(client);
    broker.restart();

    assert_eq!(
        broker.client().drain_marked("q"),
        marked([("one", true), ("three", true), ("four", true), ("five", false)])
    );
}

#[test]
fn unacked_messages_are_back_in_their_places_after_a_crash() {
    let mut broker = Process::start();
    let mut client = broker.client();
    hold_three(&mut client);
    // Acks and marks may wait for company on their way to the disk; a confirm comes after them.
    client.ack(2);
    client.expect_delivery("four");
    fill(&mut client, "q", &["six"]);

    broker.crash();

    assert_eq!(
        broker.client().drain_marked("q"),
        marked([("one", true), ("three", true), ("four", true), ("five", false), ("six", false)])
    );
}

#[test]
fn acknowledged_messages_do_not_come_back() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", &["1", "2", "3", "4", "5", "6"]);
    for body in ["1", "2", "3"] {
        client.get("q", body);
    }
    client.ack(1);
    client.nack(2, false, false);
    client.send(basic::Reject { delivery_tag: 3, requeue: false });
    client.send(basic::Get { queue: "q".into(), no_ack: true });
    client.expect_got("4");
    client.sync();

    drop(client);
    broker.restart();

    assert_eq!(broker.client().drain("q"), ["5", "6"]);
}

// A message that a no_ack consumer gets the moment it is published: the store hears of both in one go.
#[test]
fn a_message_that_was_taken_at_once_without_ack_does_not_come_back() {
    let mut broker = Broker::start();
    let (mut consumer, mut publisher) = (broker.client(), broker.client());
    publisher.declare_durable("q");
    consumer.consume_no_ack("q", "c");
    publisher.confirm();
    for n in 1..=50 {
        publisher.publish_persistent("", "q", "m");
        consumer.expect_delivery("m");
        publisher.expect_ack(n);
    }

    drop((consumer, publisher));
    broker.restart();

    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn a_message_that_was_acknowledged_before_its_confirm_does_not_come_back() {
    let mut broker = Broker::start();
    let (mut consumer, mut publisher) = (broker.client(), broker.client());
    publisher.declare_durable("q");
    consumer.consume("q", "c");
    publisher.confirm();
    for n in 1..=50 {
        publisher.publish_persistent("", "q", "m");
        let tag = consumer.expect_delivery("m").tag();
        consumer.ack(tag);
        publisher.expect_ack(n);
    }
    consumer.sync();

    drop((consumer, publisher));
    broker.restart();

    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn purged_messages_do_not_come_back() {
    let mut broker = Process::start();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", &["1", "2", "3"]);
    client.send(queue::Purge { queue: "q".into(), nowait: false });
    client.expect(queue::PurgeOk { message_count: 3 });

    broker.crash();

    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn a_message_of_many_queues_is_in_each_of_them_until_it_is_settled_there() {
    let mut broker = Process::start();
    let mut client = broker.client();
    for n in 0..10 {
        client.declare_durable(&format!("q{n}"));
        client.bind(&format!("q{n}"), "amq.fanout", "");
    }
    client.confirm();
    client.publish_persistent("amq.fanout", "", "m");
    client.expect_ack(1);
    for n in 0..5 {
        let tag = client.get(&format!("q{n}"), "m").tag();
        client.ack(tag);
    }
    // A purge is answered when all before it is on disk.
    client.send(queue::Purge { queue: "q0".into(), nowait: false });
    client.expect(queue::PurgeOk { message_count: 0 });

    broker.crash();

    let mut client = broker.client();
    for n in 0..10 {
        let expected = if n < 5 { 0 } else { 1 };
        assert_eq!(client.drain(&format!("q{n}")).len(), expected, "q{n}");
    }
}

#[test]
fn a_committed_transaction_is_there_after_a_crash_and_another_is_not() {
    let mut broker = Process::start();
    let mut client = broker.client();
    for queue in ["from", "a", "b"] {
        client.declare_durable(queue);
    }
    fill(&mut client, "from", &["1", "2"]);
    client.tx();
    let one = client.get("from", "1").tag();
    client.publish_persistent("", "a", "committed");
    client.publish_persistent("", "b", "committed");
    client.ack(one);
    client.commit();
    let two = client.get("from", "2").tag();
    client.publish_persistent("", "a", "not committed");
    client.ack(two);
    client.sync();

    broker.crash();

    let mut client = broker.client();
    assert_eq!(client.drain("a"), ["committed"]);
    assert_eq!(client.drain("b"), ["committed"]);
    assert_eq!(client.drain("from"), ["2"]);
}

#[test]
fn a_transaction_that_the_crash_meets_is_there_whole_or_not_at_all() {
    for round in 0..5 {
        let mut broker = Process::start();
        let mut client = broker.client();
        for queue in ["from", "a", "b"] {
            client.declare_durable(queue);
        }
        fill(&mut client, "from", &["m"]);
        client.tx();
        let tag = client.get("from", "m").tag();
        for n in 0..200 {
            client.publish_persistent("", if n % 2 == 0 { "a" } else { "b" }, "m");
        }
        client.ack(tag);

        client.send(tx::Commit {});
        std::thread::sleep(Duration::from_millis(round));
        broker.crash();

        let mut client = broker.client();
        let found = ["from", "a", "b"].map(|queue| client.counts(queue).0);
        assert!(found == [1, 0, 0] || found == [0, 100, 100], "{found:?}");
    }
}

#[test]
fn users_permissions_and_vhosts_are_there_after_a_crash() {
    let config = "vhosts = [{ name = \"v\" }]\nusers = [{ name = \"u\", password = \"secret\" }]\n\
                  [[permissions]]\nuser = \"u\"\nvhost = \"v\"\nconfigure = \".*\"\nwrite = \"\"\nread = \"\"\n";
    let mut broker = Process::with_config(config);
    let login = Login { vhost: "v".into(), ..Login::of("u", "secret") };
    Client::open(broker.address(), &login).declare_durable("q");

    broker.forget_config();
    broker.crash();

    let mut client = Client::open(broker.address(), &login);
    assert_eq!(client.counts("q"), (0, 0));
    client.publish("", "q", "m");
    let text = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost 'v' refused for user 'u'";
    client.expect_error(ReplyCode::AccessRefused, text);
    broker.client().declare("guest is there as well");
}

#[test]
fn times_to_live_count_on_while_the_broker_is_stopped() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("own");
    client.declare_durable_with("of the queue", arguments([("x-message-ttl", Value::Int(60_000))]));
    client.confirm();
    client.publish_with("", "own", &wire::persistent_with_expiration("60000"), "short");
    client.publish_with("", "own", &wire::persistent_with_expiration("90000"), "long");
    client.publish_persistent("", "of the queue", "m");
    client.expect_confirmed(1, 3);

    drop(client);
    broker.stop();
    broker.advance(Duration::from_secs(61));
    broker.restart();

    let mut client = broker.client();
    assert_eq!(client.drain("own"), ["long"]);
    assert_eq!(client.drain("of the queue"), Vec::<String>::new());
}

#[test]
fn a_message_that_had_time_left_has_the_rest_of_it_after_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    client.publish_with("", "q", &wire::persistent_with_expiration("60000"), "m");
    client.expect_ack(1);
    broker.advance(Duration::from_secs(40));

    drop(client);
    broker.restart();

    let mut client = broker.client();
    assert_eq!(client.counts("q"), (1, 0));
    broker.advance(Duration::from_secs(21));
    eventually("its time is over", || client.counts("q") == (0, 0));
}

#[test]
fn an_expired_message_does_not_come_back() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable_with("q", arguments([("x-message-ttl", Value::Int(1000))]));
    client.confirm();
    client.publish_persistent("", "q", "m");
    client.expect_ack(1);
    broker.advance(Duration::from_secs(2));
    eventually("it expires", || client.counts("q") == (0, 0));

    drop(client);
    broker.restart();

    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn a_queue_that_expires_when_unused_does_so_after_a_restart_too() {
    let mut broker = Broker::start();
    broker.client().declare_durable_with("q", arguments([("x-expires", Value::Int(60_000))]));

    broker.restart();

    let mut client = broker.client();
    client.confirm();
    client.publish_mandatory("", "q", "m");
    client.expect_ack(1);
    broker.advance(Duration::from_secs(61));
    eventually("it is gone", || {
        client.publish_mandatory("", "q", "m");
        match client.event() {
            Event::Message(_) => {
                client.event();
                true
            }
            _ => false,
        }
    });
}

#[test]
fn numbers_go_on_after_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", &["1", "2"]);
    assert_eq!(client.drain("q"), ["1", "2"]);
    drop(client);

    for round in 0..3 {
        broker.restart();
        let (first, second) = (format!("{round}a"), format!("{round}b"));
        fill(&mut broker.client(), "q", &[&first, &second]);
        broker.restart();

        assert_eq!(broker.client().drain("q"), [first, second]);
    }
}

#[test]
fn transient_and_persistent_messages_of_a_queue_come_back_without_the_transient_ones_and_in_order() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    for n in 0..100 {
        let properties = if n % 3 == 0 { PERSISTENT } else { NO_PROPERTIES };
        client.publish_with("", "q", properties, format!("{n}"));
    }
    client.expect_confirmed(1, 100);

    drop(client);
    broker.restart();

    let expected: Vec<String> = (0..100).step_by(3).map(|n| n.to_string()).collect();
    assert_eq!(broker.client().drain("q"), expected);
}

#[test]
fn many_segments_of_log_are_reclaimed_and_what_is_left_is_there() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("churn");
    client.declare_durable("kept");
    fill(&mut client, "kept", &["from the beginning"]);
    client.consume_no_ack("churn", "c");
    let body = "x".repeat(100_000);
    client.open_channel(2);
    // Twenty segments of 1 MiB.
    for _ in 0..200 {
        client.on(2).publish_persistent("", "churn", &body);
        client.expect_delivery(&body);
    }
    fill(&mut client, "kept", &["from the end"]);

    drop(client);
    broker.restart();

    let mut client = broker.client();
    assert_eq!(client.drain("kept"), ["from the beginning", "from the end"]);
    assert_eq!(client.counts("churn"), (0, 0));
    eventually("the log is small again", || log_bytes(&broker) < 8 << 20);
}

fn log_bytes(broker: &Broker) -> u64 {
    let log = std::fs::read_dir(broker.data_dir().join("log")).expect("the log");
    log.filter_map(|entry| entry.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

#[test]
fn a_broker_that_was_never_used_starts_again() {
    let mut broker = Process::start();
    broker.crash();
    broker.restart();
    broker.crash();

    broker.client().declare("q");
}

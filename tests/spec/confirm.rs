//! The confirm class: what a publisher is told, when, and in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::wire::{self, NO_PROPERTIES, PERSISTENT};
use crate::support::*;

#[test]
fn select_is_idempotent_and_tags_start_with_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish("", "q", "before");
    client.publish("", "q", "before");

    client.confirm();
    client.publish("", "q", "first");
    client.expect_ack(1);
    client.confirm();
    client.publish("", "q", "second");

    client.expect_ack(2);
}

#[test]
fn select_with_nowait_is_answered_by_nothing() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(confirm::Select { nowait: true });

    client.expect_nothing();
    client.publish("", "nowhere", "m");
    client.expect_ack(1);
}

#[test]
fn every_message_is_confirmed_once_and_in_order() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("durable");
    client.declare("transient");
    client.confirm();
    let mut bytes = Vec::new();
    for n in 0..1000 {
        let (queue, properties) = match n % 4 {
            0 => ("durable", PERSISTENT),
            1 => ("transient", NO_PROPERTIES),
            2 => ("durable", NO_PROPERTIES),
            _ => ("nowhere", PERSISTENT),
        };
        let publish = basic::Publish { routing_key: queue.into(), ..Default::default() };
        bytes.extend(client.content(publish, properties, format!("{n}").as_bytes()));
    }

    client.send_raw(&bytes);

    client.expect_confirmed(1, 1000);
    assert_eq!(client.counts("durable"), (500, 0));
    assert_eq!(client.counts("transient"), (250, 0));
}

#[test]
fn many_confirms_come_as_few_acks() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };
    let bytes = client.content(publish, PERSISTENT, b"m").repeat(1000);

    client.send_raw(&bytes);

    let (mut acks, mut last) = (0, 0);
    while last < 1000 {
        let Cold::Basic(basic::AMQPMethod::Ack(ack)) = client.method() else { panic!("no ack") };
        (acks, last) = (acks + 1, ack.delivery_tag);
    }
    assert!(acks < 500, "{acks} acks for 1000 messages");
}

#[test]
fn channels_of_a_connection_count_for_themselves() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    client.open_channel(3);
    client.declare_durable("q");
    client.confirm();
    client.on(2).confirm();

    for _ in 0..10 {
        client.publish_persistent("", "q", "m");
        client.on(2).publish_persistent("", "q", "m");
        client.on(3).publish_persistent("", "q", "m");
    }

    client.expect_confirmed(1, 10);
    client.on(2).expect_confirmed(1, 10);
    client.on(3).expect_nothing();
    assert_eq!(client.counts("q"), (30, 0));
}

#[test]
fn a_message_that_goes_nowhere_is_confirmed() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.confirm();

    client.publish_persistent("", "nowhere", "m");

    client.expect_ack(1);
}

#[test]
fn a_mandatory_message_is_returned_before_it_is_confirmed() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();

    client.publish_mandatory("amq.direct", "nowhere", "lost");
    client.expect_return("amq.direct", "nowhere", "lost");
    client.expect_ack(1);
    client.publish_mandatory("", "q", "found");

    client.expect_ack(2);
}

#[test]
fn a_return_brings_back_properties_and_body_as_they_were() {
    let broker = Broker::start();
    let mut client = broker.client();
    let headers = wire::headers(&Table::from_iter([("a", Value::Int(1))]));
    let method =
        basic::Publish { routing_key: "nowhere".into(), mandatory: true, ..basic::Publish::default() };
    let body = "x".repeat(300_000);

    let bytes = client.content(method, &headers, body.as_bytes());
    client.send_raw(&bytes);

    let returned = client.expect_return("", "nowhere", &body);
    assert_eq!(&returned.properties[..], &headers[..]);
}

#[test]
fn a_message_is_in_its_queue_when_it_is_confirmed() {
    let broker = Broker::start();
    let (mut publisher, mut other) = (broker.client(), broker.client());
    publisher.declare_durable("q");
    publisher.confirm();

    for n in 1..=20 {
        publisher.publish_persistent("", "q", "m");
        publisher.expect_ack(n);
        assert_eq!(other.counts("q"), (n as u32, 0));
    }
}

#[test]
fn a_transient_message_does_not_overtake_a_persistent_one() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    let publish = || basic::Publish { routing_key: "q".into(), ..Default::default() };

    let mut bytes = client.content(publish(), PERSISTENT, b"persistent");
    bytes.extend(client.content(publish(), NO_PROPERTIES, b"transient"));
    client.send_raw(&bytes);

    client.expect_confirmed(1, 2);
}

#[test]
fn a_publish_to_a_missing_exchange_is_an_error_and_no_confirm() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.confirm();

    client.publish("missing", "k", "m");

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'missing' in vhost '/'");
    client.expect_nothing();
}

#[test]
fn a_publish_and_the_deletion_of_its_queue_are_both_answered() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    client.declare_durable("q");
    client.confirm();
    let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };
    let mut bytes = client.content(publish, PERSISTENT, b"m");
    bytes.extend(wire::method(2, queue::Delete { queue: "q".into(), ..Default::default() }));

    client.send_raw(&bytes);

    client.on(2).expect(queue::DeleteOk { message_count: 1 });
    client.expect_ack(1);
}

#[test]
fn a_client_cannot_ack_what_it_has_published() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.confirm();
    client.publish("", "nowhere", "m");
    client.expect_ack(1);

    client.ack(1);

    client.expect_error(ReplyCode::PreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag 1");
}

#[test]
fn a_channel_is_either_confirming_or_transactional() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.tx();
    client.send(confirm::Select { nowait: false });
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    client.expect_error(ReplyCode::PreconditionFailed, text);

    client.confirm();
    client.send(tx::Select {});
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

/// A broker that counts how often it syncs its log.
fn broker_that_counts_syncs() -> (Broker, Arc<AtomicUsize>) {
    let syncs = Arc::new(AtomicUsize::new(0));
    let counter = syncs.clone();
    let fault = move |step: &'static str| {
        if step == "log.sync" {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    // No checkpoint, which syncs as well.
    let checkpoint_interval = Duration::from_secs(3600);
    let options =
        store::Options { fault: Some(Arc::new(fault)), checkpoint_interval, ..store::Options::default() };
    (Broker::on(options), syncs)
}

#[test]
fn a_queue_says_what_its_confirms_wait_for() {
    let (mut broker, syncs) = broker_that_counts_syncs();
    let mut client = broker.client();
    for (queue, sync) in [("safe", "group"), ("soon", "interval:60000"), ("fast", "os")] {
        client.declare_durable_with(queue, arguments([("x-sync", Value::text(sync))]));
    }
    client.confirm();
    let mut tag = 0;
    // The least of three, since the log itself syncs when it goes on to a new segment.
    let mut publish = |queue: &str| {
        let one = |_| {
            let before = syncs.load(Ordering::SeqCst);
            client.publish_persistent("", queue, queue);
            tag += 1;
            client.expect_ack(tag);
            syncs.load(Ordering::SeqCst) - before
        };
        (0..3).map(one).min()
    };

    assert_eq!((publish("fast"), publish("soon")), (Some(0), Some(0)));
    assert!(publish("safe") >= Some(1));

    let mut client = broker.client();
    client.exchange("both", "fanout");
    client.bind("safe", "both", "");
    client.bind("fast", "both", "");
    client.confirm();
    let before = syncs.load(Ordering::SeqCst);
    client.publish_persistent("both", "", "the stricter one holds");
    client.expect_ack(1);
    assert!(syncs.load(Ordering::SeqCst) > before);

    broker.restart();
    let mut client = broker.client();
    for (queue, count) in [("safe", 4), ("soon", 3), ("fast", 4)] {
        assert_eq!(client.counts(queue).0, count, "{queue}");
    }
}

#[test]
fn a_sync_that_cannot_be_is_refused_and_a_second_declare_must_repeat_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    let declare = |value: Value| queue::Declare {
        queue: "q".into(),
        durable: true,
        arguments: arguments([("x-sync", value)]),
        ..Default::default()
    };
    let mut check = |value: Value, reason: &str| {
        client.send(declare(value));
        let text = format!("PRECONDITION_FAILED - invalid arg 'x-sync' for queue 'q' in vhost '/': {reason}");
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    };

    check(Value::text("never"), "{value_not_allowed,<<\"never\">>}");
    check(Value::text("interval:0"), "{value_not_allowed,<<\"interval:0\">>}");
    check(Value::Int(5), "\"expected string, got signedint\"");

    client.declare_queue(declare(Value::text("os")));
    client.send(declare(Value::text("group")));
    let text = "PRECONDITION_FAILED - inequivalent arg 'x-sync' for queue 'q' in vhost '/': received 'group' but current is 'os'";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

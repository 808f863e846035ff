//! The basic class: publishing, consuming, getting, acknowledging, and who gets which message when.

use crate::support::wire;
use crate::support::*;

fn marked<const N: usize>(expected: [(&str, bool); N]) -> Vec<(String, bool)> {
    expected.map(|(body, redelivered)| (body.to_string(), redelivered)).into()
}

/// A queue with these messages.
fn filled(client: &mut Client, queue: &str, bodies: &[&str]) {
    client.declare(queue);
    bodies.iter().for_each(|body| client.publish("", queue, body));
}

fn unknown_tag(tag: u64) -> String {
    format!("PRECONDITION_FAILED - unknown delivery tag {tag}")
}

// Publishing -----------------------------------------------------------------------------------------

#[test]
fn a_publish_to_a_missing_exchange_is_not_found() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.publish("missing", "k", "m");

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'missing' in vhost '/'");
}

#[test]
fn a_publish_to_an_exchange_that_was_deleted_is_not_found() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.exchange("x", "fanout");
    client.publish("x", "", "m");
    client.sync();

    other.send(exchange::Delete { exchange: "x".into(), ..Default::default() });
    other.expect(exchange::DeleteOk {});
    client.publish("x", "", "m");

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'x' in vhost '/'");
}

#[test]
fn an_unroutable_message_is_dropped_in_silence_unless_it_is_mandatory() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.publish("", "nowhere", "dropped");
    client.expect_nothing();
    client.publish_mandatory("", "nowhere", "returned");

    client.expect_return("", "nowhere", "returned");
}

#[test]
fn immediate_is_not_implemented() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let publish = basic::Publish { routing_key: "q".into(), immediate: true, ..Default::default() };

    let bytes = client.content(publish, wire::NO_PROPERTIES, b"m");
    client.send_raw(&bytes);

    client.expect_connection_close(ReplyCode::NotImplemented, "NOT_IMPLEMENTED - immediate=true");
    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn a_message_larger_than_the_limit_is_refused_and_one_of_that_size_is_not() {
    let broker = Broker::with(|config| config.message_bytes_max = 1000);
    let mut client = broker.client();
    client.declare("q");

    client.publish("", "q", [b'x'; 1001]);
    let text = "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000";
    client.expect_error(ReplyCode::PreconditionFailed, text);
    client.publish("", "q", [b'x'; 1000]);

    client.get("q", &"x".repeat(1000));
}

#[test]
fn an_announced_size_costs_no_memory() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.send_raw(
        &[
            wire::method(1, basic::Publish { routing_key: "q".into(), ..Default::default() }),
            wire::header(1, 1 << 63, wire::NO_PROPERTIES),
            wire::body(1, b"the beginning"),
        ]
        .concat(),
    );
    drop(client);

    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn the_user_id_has_to_be_that_of_the_login() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("proxy", "secret", &["impersonator"])];
        config.seed.permissions = vec![permission("proxy", "/", [".*", ".*", ".*"])];
    });
    let mut client = broker.client();
    client.declare("q");

    for other in ["somebody", ""] {
        client.publish_with("", "q", &wire::user_id(other), "m");

        let text = format!(
            "PRECONDITION_FAILED - user_id property set to '{other}' but authenticated user was 'guest'"
        );
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    }
    client.publish_with("", "q", &wire::user_id("guest"), "by guest");
    client.sync();
    let mut proxy = broker.client_as(&Login::of("proxy", "secret"));
    proxy.publish_with("", "q", &wire::user_id("somebody"), "for somebody");

    assert_eq!(proxy.drain("q"), ["by guest", "for somebody"]);
}

#[test]
fn a_delivery_mode_is_one_or_two() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    for mode in [0, 3, 255] {
        client.publish_with("", "q", &[0x10, 0, mode], "m");

        let text = format!("PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}");
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    }
}

#[test]
fn properties_and_body_come_out_as_they_went_in() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let mut properties = vec![0xff, 0xfc];
    properties.extend(wire::short("text/plain"));
    properties.extend(wire::short("gzip"));
    // Every type of field that there is, unsorted, one name twice, a table in an array in a table.
    let fields = [
        b"\x01tt\x01\x01bb\xf8\x01BB\xc8\x01ss\xff\xf0\x01uu\xea\x60".as_slice(),
        b"\x01II\xff\xff\xff\xe0\x01ii\xee\x6b\x28\x00\x01ll\xff\xff\xff\xff\xff\xff\xff\xc0",
        b"\x01ff\x3f\xc0\x00\x00\x01dd\x40\x04\x00\x00\x00\x00\x00\x00\x01DD\x02\x00\x00\x00\x01",
        b"\x01SS\x00\x00\x00\x02hi\x01xx\x00\x00\x00\x02\x00\xff\x01TT\x00\x00\x00\x00\x65\x00\x00\x00",
        b"\x01aA\x00\x00\x00\x0cF\x00\x00\x00\x04\x01zb\x01b\x02V\x01aV",
        b"\x01aV\x00V",
    ]
    .concat();
    properties.extend((fields.len() as u32).to_be_bytes());
    properties.extend(fields);
    properties.extend([2, 5]);
    for text in ["corr", "reply", "60000", "id"] {
        properties.extend(wire::short(text));
    }
    properties.extend(1_700_000_000u64.to_be_bytes());
    for text in ["type", "guest", "app", "cluster"] {
        properties.extend(wire::short(text));
    }
    let body: Vec<u8> = (0..=255).cycle().take(1000).collect();

    client.publish_with("", "q", &properties, &body);

    client.send(basic::Get { queue: "q".into(), no_ack: true });
    let Event::Message(got) = client.event() else { panic!("no message") };
    assert_eq!(&got.properties[..], &properties[..]);
    assert_eq!(got.body, body);
}

#[test]
fn bodies_of_any_size_come_out_as_they_went_in() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    for size in [0, 1, 2048, 2049, 131_063, 131_064, 131_065, 1_000_000, 10_000_000] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        client.publish("", "q", &body);
        client.send(basic::Get { queue: "q".into(), no_ack: true });

        let Event::Message(got) = client.event() else { panic!("no message") };
        assert!(got.body == body, "{size} octets");
    }
}

#[test]
fn names_of_255_bytes_and_of_other_alphabets_come_out_as_they_went_in() {
    let broker = Broker::start();
    let mut client = broker.client();
    let key = "k".repeat(255);
    client.declare("Größe 尺寸");
    client.bind("Größe 尺寸", "amq.direct", &key);

    client.publish("amq.direct", &key, "m");
    client.consume("Größe 尺寸", &"t".repeat(255));

    let delivery = client.expect_delivery("m");
    assert_eq!((delivery.exchange(), delivery.routing_key()), ("amq.direct", key.as_str()));
    assert_eq!(delivery.consumer(), "t".repeat(255));
}

#[test]
fn messages_of_a_channel_keep_their_order() {
    let broker = Broker::start();
    let (mut publisher, mut consumer) = (broker.client(), broker.client());
    publisher.declare_durable("q");
    consumer.consume("q", "c");
    let mut bytes = Vec::new();
    for n in 0..2000 {
        let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };
        let properties = if n % 3 == 0 { wire::PERSISTENT } else { wire::NO_PROPERTIES };
        bytes.extend(publisher.content(publish, properties, format!("{n}").as_bytes()));
    }

    publisher.send_raw(&bytes);

    for n in 0..2000 {
        consumer.expect_delivery(&format!("{n}"));
    }
}

// Consuming ------------------------------------------------------------------------------------------

#[test]
fn consume_ok_comes_before_the_first_delivery() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two"]);

    client.consume("q", "c");

    let one = client.expect_delivery("one");
    assert_eq!((one.tag(), one.redelivered(), one.consumer()), (1, false, "c"));
    assert_eq!((one.exchange(), one.routing_key()), ("", "q"));
    assert_eq!(client.expect_delivery("two").tag(), 2);
}

#[test]
fn a_consumer_without_a_tag_gets_one() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.send(basic::Consume { queue: "q".into(), ..Default::default() });

    let Cold::Basic(basic::AMQPMethod::ConsumeOk(ok)) = client.method() else { panic!("no consume-ok") };
    assert_eq!(ok.consumer_tag.as_str().strip_prefix("amq.ctag-").map(str::len), Some(22));
    client.publish("", "q", "m");
    assert_eq!(client.expect_delivery("m").consumer(), ok.consumer_tag.as_str());
}

#[test]
fn a_tag_is_for_one_consumer_of_a_channel() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    client.declare("q");
    client.consume("q", "c");

    client.on(2).consume("q", "c");
    client.send(basic::Consume { queue: "q".into(), consumer_tag: "c".into(), ..Default::default() });

    client.expect_connection_close(ReplyCode::NotAllowed, "NOT_ALLOWED - attempt to reuse consumer tag 'c'");
}

#[test]
fn consume_and_get_need_a_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";

    client.send(basic::Consume { queue: "missing".into(), ..Default::default() });
    client.expect_error(ReplyCode::NotFound, text);
    client.send(basic::Get { queue: "missing".into(), no_ack: false });
    client.expect_error(ReplyCode::NotFound, text);
}

#[test]
fn an_exclusive_consumer_has_the_queue_for_itself() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    let consume = |tag: &str, exclusive| basic::Consume {
        queue: "q".into(),
        consumer_tag: tag.into(),
        exclusive,
        ..Default::default()
    };
    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";

    other.consume("q", "other");
    client.send(consume("a", true));
    client.expect_error(ReplyCode::AccessRefused, text);
    other.cancel("other");
    client.send(consume("a", true));
    client.expect(basic::ConsumeOk { consumer_tag: "a".into() });
    for exclusive in [false, true] {
        other.send(consume("b", exclusive));
        other.expect_error(ReplyCode::AccessRefused, text);
    }
    other.expect_empty("q");

    client.cancel("a");
    other.consume("q", "b");
}

#[test]
fn no_local_is_not_supported_and_ignored() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.send(basic::Consume {
        queue: "q".into(),
        consumer_tag: "c".into(),
        no_local: true,
        ..Default::default()
    });
    client.expect(basic::ConsumeOk { consumer_tag: "c".into() });

    client.publish("", "q", "m");
    client.expect_delivery("m");
}

#[test]
fn consumers_take_turns() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut others = [broker.client(), broker.client(), broker.client()];
    client.declare("q");
    for other in &mut others {
        other.consume("q", "c");
    }

    for n in 0..9 {
        client.publish("", "q", format!("{n}"));
    }

    for (i, other) in others.iter_mut().enumerate() {
        for round in 0..3 {
            other.expect_delivery(&format!("{}", 3 * round + i));
        }
        other.expect_nothing();
    }
}

#[test]
fn a_consumer_without_credit_is_passed_over() {
    let broker = Broker::start();
    let (mut client, mut busy, mut idle) = (broker.client(), broker.client(), broker.client());
    client.declare("q");
    busy.qos(1, false);
    busy.consume("q", "busy");
    idle.consume("q", "idle");

    for n in 0..5 {
        client.publish("", "q", format!("{n}"));
    }

    busy.expect_delivery("0");
    for n in 1..5 {
        idle.expect_delivery(&format!("{n}"));
    }
    busy.expect_nothing();
}

#[test]
fn a_consumer_of_higher_priority_is_first_while_it_has_credit() {
    let broker = Broker::start();
    let (mut low, mut high) = (broker.client(), broker.client());
    low.declare("q");
    low.consume("q", "low");
    high.qos(1, false);
    high.send(basic::Consume {
        queue: "q".into(),
        consumer_tag: "high".into(),
        arguments: arguments([("x-priority", Value::Int(10))]),
        ..Default::default()
    });
    high.expect(basic::ConsumeOk { consumer_tag: "high".into() });

    for body in ["1", "2", "3"] {
        high.publish("", "q", body);
    }

    let first = high.expect_delivery("1");
    low.expect_delivery("2");
    low.expect_delivery("3");
    high.ack(first.tag());
    high.sync();
    high.publish("", "q", "4");
    high.expect_delivery("4");
    low.expect_nothing();
}

#[test]
fn a_consumers_priority_is_a_whole_number() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    let arguments = arguments([("x-priority", Value::text("5"))]);
    client.send(basic::Consume { queue: "q".into(), arguments, ..Default::default() });

    let text = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got \
                longstr\"";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

#[test]
fn no_ack_settles_at_once_and_knows_no_prefetch() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two", "three"]);
    client.qos(1, false);

    client.consume_no_ack("q", "c");

    let tag = client.expect_delivery("one").tag();
    client.expect_delivery("two");
    client.expect_delivery("three");
    client.ack(tag);
    client.expect_error(ReplyCode::PreconditionFailed, &unknown_tag(tag));
    assert_eq!(client.counts("q"), (0, 0));
}

// Cancelling -----------------------------------------------------------------------------------------

#[test]
fn cancel_ok_comes_after_the_last_delivery_and_unacked_messages_stay_with_the_channel() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two"]);
    client.consume("q", "c");
    client.expect_delivery("one");
    let two = client.expect_delivery("two").tag();

    client.cancel("c");
    client.publish("", "q", "three");

    client.expect_nothing();
    assert_eq!(client.counts("q"), (1, 0));
    client.ack_through(two);
    client.expect_nothing();
    client.close_channel();
    client.open_channel(1);
    assert_eq!(client.drain_marked("q"), marked([("three", false)]));
}

#[test]
fn nothing_is_delivered_after_cancel_ok() {
    let broker = Broker::start();
    let (mut client, mut publisher) = (broker.client(), broker.client());
    client.declare("q");
    let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };
    let bytes = publisher.content(publish, wire::NO_PROPERTIES, b"m").repeat(50);

    for _ in 0..20 {
        client.consume("q", "c");
        publisher.send_raw(&bytes);
        client.send(basic::Cancel { consumer_tag: "c".into(), nowait: false });
        let mut last = 0;
        loop {
            match client.event() {
                Event::Message(message) => last = message.tag(),
                Event::Method(m) => {
                    assert_eq!(*m, basic::CancelOk { consumer_tag: "c".into() }.cold());
                    break;
                }
                Event::Heartbeat => {}
            }
        }
        client.expect_nothing();
        if last > 0 {
            client.ack_through(last);
        }
    }
}

#[test]
fn cancelling_what_is_not_there_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.consume("q", "c");

    client.cancel("never");
    client.cancel("");
    client.cancel("c");
    client.cancel("c");
}

#[test]
fn a_consumer_is_told_when_its_queue_goes() {
    let broker = Broker::start();
    let (mut consumer, mut other) = (broker.client(), broker.client());
    for queue in ["q", "other"] {
        consumer.declare(queue);
    }
    consumer.consume("q", "c");

    other.send(queue::Delete { queue: "q".into(), ..Default::default() });

    consumer.expect(basic::Cancel { consumer_tag: "c".into(), nowait: true });
    consumer.consume("other", "c");
    consumer.publish("", "other", "m");
    consumer.expect_delivery("m");
}

#[test]
fn a_consumer_that_cannot_be_told_is_not_when_its_queue_goes() {
    let broker = Broker::start();
    let mut consumer = broker.client_as(&Login::default().without_capabilities());
    let mut other = broker.client();
    consumer.declare("q");
    consumer.consume("q", "c");

    other.send(queue::Delete { queue: "q".into(), ..Default::default() });
    other.expect(queue::DeleteOk { message_count: 0 });

    consumer.expect_nothing();
}

#[test]
fn messages_of_a_deleted_queue_can_still_be_acknowledged() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two"]);
    client.consume("q", "c");
    client.expect_delivery("one");
    client.expect_delivery("two");

    client.send(queue::Delete { queue: "q".into(), nowait: true, ..Default::default() });
    client.expect(basic::Cancel { consumer_tag: "c".into(), nowait: true });
    client.ack(1);
    client.nack(2, false, true);

    client.expect_nothing();
    assert!(!client.has_queue("q"));
}

// Prefetch -------------------------------------------------------------------------------------------

#[test]
fn a_prefetch_per_consumer_is_for_consumers_to_come() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["1", "2", "3", "4", "5"]);
    client.qos(1, false);
    client.consume("q", "a");
    client.expect_delivery("1");
    client.qos(2, false);
    client.consume("q", "b");
    client.expect_delivery("2");
    client.expect_delivery("3");
    client.qos(0, false);

    client.expect_nothing();
    client.ack(1);

    let fourth = client.expect_delivery("4");
    assert_eq!(fourth.consumer(), "a");
    client.expect_nothing();
}

#[test]
fn a_later_prefetch_does_not_reach_a_running_consumer() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.consume("q", "c");

    client.qos(1, false);
    for n in 0..5 {
        client.publish("", "q", format!("{n}"));
    }

    for n in 0..5 {
        client.expect_delivery(&format!("{n}"));
    }
}

#[test]
fn a_global_prefetch_is_for_all_consumers_of_the_channel_at_once() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    for queue in ["a", "b"] {
        client.declare(queue);
    }
    client.qos(2, true);
    client.consume("a", "a");
    client.consume("b", "b");

    for body in ["1", "2"] {
        client.on(2).publish("", "a", body);
        client.on(2).publish("", "b", body);
    }

    client.on(2).sync();
    let first = client.any_delivery().tag();
    let second = client.any_delivery().tag();
    client.expect_nothing();
    client.ack(first);
    client.any_delivery();
    client.expect_nothing();
    client.ack(second);
    client.any_delivery();
}

#[test]
fn a_global_prefetch_can_be_raised_and_lowered_while_consumers_run() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["1", "2", "3", "4", "5", "6", "7", "8"]);
    client.qos(1, true);
    client.consume("q", "c");
    client.expect_delivery("1");
    client.expect_nothing();

    client.qos(3, true);
    client.expect_delivery("2");
    client.expect_delivery("3");
    client.expect_nothing();

    client.qos(1, true);
    client.ack_through(2);
    client.expect_nothing();
    client.ack(3);
    client.expect_delivery("4");
    client.expect_nothing();

    client.qos(0, true);
    for n in 5..=8 {
        client.expect_delivery(&format!("{n}"));
    }
}

#[test]
fn both_prefetches_hold() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["1", "2", "3", "4", "5"]);
    client.qos(1, false);
    client.qos(3, true);
    client.consume("q", "a");
    client.expect_delivery("1");
    client.consume("q", "b");
    client.expect_delivery("2");

    client.expect_nothing();
    client.consume("q", "c");
    client.expect_delivery("3");
    client.consume("q", "d");

    client.expect_nothing();
}

#[test]
fn get_knows_no_prefetch() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["1", "2"]);
    client.qos(1, false);
    client.qos(1, true);

    client.get("q", "1");
    client.get("q", "2");
}

#[test]
fn credit_is_freed_by_every_way_of_settling() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["1", "2", "3", "4"]);
    client.qos(1, false);
    client.consume("q", "c");

    client.expect_delivery("1");
    client.ack(1);
    client.expect_delivery("2");
    client.nack(2, false, false);
    client.expect_delivery("3");
    client.send(basic::Reject { delivery_tag: 3, requeue: false });
    client.expect_delivery("4");
    client.send(basic::Reject { delivery_tag: 4, requeue: true });
    assert!(client.expect_delivery("4").redelivered());
}

#[test]
fn a_prefetch_in_octets_is_not_implemented() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send_raw(&wire::frame(1, 1, &[0, 60, 0, 10, 0, 0, 3, 0xe8, 0, 0, 0]));

    let text = "NOT_IMPLEMENTED - prefetch_size!=0 (1000)";
    client.expect_connection_close(ReplyCode::NotImplemented, text);
}

// Getting --------------------------------------------------------------------------------------------

#[test]
fn get_counts_what_remains() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two"]);

    let one = client.get("q", "one");
    assert_eq!((one.remaining(), one.tag(), one.redelivered()), (1, 1, false));
    assert_eq!((one.exchange(), one.routing_key()), ("", "q"));
    assert_eq!(client.get("q", "two").remaining(), 0);
    client.expect_empty("q");
}

#[test]
fn tags_grow_over_gets_and_deliveries() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    filled(&mut client, "q", &["1", "2", "3", "4", "5"]);

    client.send(basic::Get { queue: "q".into(), no_ack: true });
    assert_eq!(client.expect_got("1").tag(), 1);
    assert_eq!(client.get("q", "2").tag(), 2);
    assert_eq!(client.on(2).get("q", "3").tag(), 1);
    client.consume("q", "c");

    assert_eq!(client.expect_delivery("4").tag(), 3);
    assert_eq!(client.expect_delivery("5").tag(), 4);
}

// Settling -------------------------------------------------------------------------------------------

/// A client that has got the messages one, two and three, with tags of these numbers.
fn holding_three(broker: &Broker) -> Client {
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two", "three"]);
    for body in ["one", "two", "three"] {
        client.get("q", body);
    }
    client
}

fn check_settling(settle: impl FnOnce(&mut Client), left: &[(&str, bool)]) {
    let broker = Broker::start();
    let mut client = holding_three(&broker);

    settle(&mut client);
    client.expect_nothing();
    client.close_channel();

    let left: Vec<(String, bool)> = left.iter().map(|&(body, marked)| (body.into(), marked)).collect();
    assert_eq!(broker.client().drain_marked("q"), left);
}

const ALL: [(&str, bool); 3] = [("one", true), ("two", true), ("three", true)];

#[test]
fn an_ack_is_for_one_message_or_for_all_up_to_it() {
    check_settling(|client| client.ack(2), &[("one", true), ("three", true)]);
    check_settling(|client| client.ack_through(2), &[("three", true)]);
    check_settling(|client| client.ack_through(0), &[]);
    check_settling(
        |client| {
            client.ack(1);
            client.ack_through(3);
        },
        &[],
    );
}

#[test]
fn an_ack_through_zero_with_nothing_out_is_fine() {
    check_settling(
        |client| {
            client.ack_through(0);
            client.ack_through(0);
            client.nack(0, true, true);
        },
        &[],
    );
}

#[test]
fn a_nack_or_reject_without_requeue_drops() {
    check_settling(|client| client.nack(2, false, false), &[("one", true), ("three", true)]);
    check_settling(|client| client.nack(2, true, false), &[("three", true)]);
    check_settling(|client| client.nack(0, true, false), &[]);
    let reject = |client: &mut Client| client.send(basic::Reject { delivery_tag: 2, requeue: false });
    check_settling(reject, &[("one", true), ("three", true)]);
}

#[test]
fn a_nack_or_reject_with_requeue_brings_messages_back_to_their_places() {
    let check = |settle: &dyn Fn(&mut Client), left: &[&str]| {
        let broker = Broker::start();
        let mut client = holding_three(&broker);
        client.publish("", "q", "four");
        settle(&mut client);
        client.expect_nothing();

        let mut expected: Vec<(String, bool)> = left.iter().map(|&body| (body.into(), true)).collect();
        expected.push(("four".into(), false));
        assert_eq!(broker.client().drain_marked("q"), expected);
    };

    check(&|client| client.nack(2, false, true), &["two"]);
    check(&|client| client.nack(2, true, true), &["one", "two"]);
    check(&|client| client.nack(0, true, true), &["one", "two", "three"]);
    check(&|client| client.send(basic::Reject { delivery_tag: 3, requeue: true }), &["three"]);
    check(
        &|client| {
            for tag in [3, 1, 2] {
                client.nack(tag, false, true);
            }
        },
        &["one", "two", "three"],
    );
}

#[test]
fn an_unknown_tag_closes_the_channel_and_brings_everything_back() {
    let check = |method: Cold, tag| {
        let broker = Broker::start();
        let mut client = holding_three(&broker);

        client.send(method);

        client.expect_error(ReplyCode::PreconditionFailed, &unknown_tag(tag));
        assert_eq!(client.drain_marked("q"), marked(ALL));
    };

    for tag in [99, 0, u64::MAX] {
        check(basic::Ack { delivery_tag: tag, multiple: false }.cold(), tag);
        check(basic::Nack { delivery_tag: tag, multiple: false, requeue: true }.cold(), tag);
        check(basic::Reject { delivery_tag: tag, requeue: true }.cold(), tag);
    }
    check(basic::Ack { delivery_tag: 99, multiple: true }.cold(), 99);
    check(basic::Nack { delivery_tag: 99, multiple: true, requeue: false }.cold(), 99);
}

#[test]
fn a_settled_tag_is_unknown() {
    let check = |first: Cold, second: Cold, tag, left: &[(&str, bool)]| {
        let broker = Broker::start();
        let mut client = holding_three(&broker);

        client.send(first);
        client.send(second);

        client.expect_error(ReplyCode::PreconditionFailed, &unknown_tag(tag));
        let left: Vec<(String, bool)> = left.iter().map(|&(body, marked)| (body.into(), marked)).collect();
        assert_eq!(client.drain_marked("q"), left);
    };
    let ack = |delivery_tag, multiple| basic::Ack { delivery_tag, multiple }.cold();
    let nack = |delivery_tag| basic::Nack { delivery_tag, multiple: false, requeue: true }.cold();

    check(ack(1, false), ack(1, false), 1, &[("two", true), ("three", true)]);
    check(ack(2, true), ack(2, true), 2, &[("three", true)]);
    check(ack(2, false), ack(2, true), 2, &[("one", true), ("three", true)]);
    check(nack(1), ack(1, false), 1, &ALL);
}

// RabbitMQ 3.10 takes it (ack_below_multiple of the provocations).
#[test]
fn an_ack_through_a_settled_tag_below_all_others_is_fine() {
    check_settling(
        |client| {
            client.ack(2);
            client.ack_through(1);
            client.ack(3);
        },
        &[],
    );
}

#[test]
fn a_tag_belongs_to_its_channel() {
    let broker = Broker::start();
    let mut client = holding_three(&broker);
    client.open_channel(2);

    client.on(2).ack(1);

    client.on(2).expect_channel_close(ReplyCode::PreconditionFailed, &unknown_tag(1));
    client.ack(1);
    client.expect_nothing();
}

#[test]
fn many_deliveries_can_be_settled_in_any_order() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    for n in 0..3000u64 {
        client.publish("", "q", format!("{n}"));
    }
    client.consume("q", "c");
    for n in 0..3000 {
        client.expect_delivery(&format!("{n}"));
    }

    // Odd ones from the back, then all that are left up to 2000.
    for tag in (1..=3000).rev().filter(|tag| tag % 2 == 1) {
        client.ack(tag);
    }
    client.ack_through(2000);
    client.cancel("c");
    client.close_channel();

    client.open_channel(1);
    let expected: Vec<String> = (2002..=3000).step_by(2).map(|tag: u64| (tag - 1).to_string()).collect();
    assert_eq!(client.drain("q"), expected);
}

#[test]
fn a_requeued_message_goes_to_whoever_is_next_and_is_marked() {
    let broker = Broker::start();
    let (mut a, mut b) = (broker.client(), broker.client());
    a.declare("q");
    a.qos(1, false);
    a.consume("q", "a");
    b.consume("q", "b");
    a.publish("", "q", "m");
    let tag = a.expect_delivery("m").tag();

    a.nack(tag, false, true);

    assert!(b.expect_delivery("m").redelivered());
    a.expect_nothing();
}

#[test]
fn a_message_that_comes_back_is_delivered_before_younger_ones() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    filled(&mut client, "q", &["1", "2", "3", "4"]);
    let first = client.get("q", "1").tag();
    other.qos(1, false);
    other.consume("q", "c");
    let second = other.expect_delivery("2").tag();

    client.nack(first, false, true);
    client.sync();
    other.ack(second);

    let back = other.expect_delivery("1");
    assert!(back.redelivered());
    other.ack(back.tag());
    other.expect_delivery("3");
}

// Recovering -----------------------------------------------------------------------------------------

#[test]
fn recover_brings_everything_back() {
    let broker = Broker::start();
    let mut client = holding_three(&broker);

    client.send(basic::Recover { requeue: true });
    client.expect(basic::RecoverOk {});

    assert_eq!(client.drain_marked("q"), marked(ALL));
    client.send(basic::Recover { requeue: true });
    client.expect(basic::RecoverOk {});
}

#[test]
fn recovered_messages_are_delivered_again_after_recover_ok() {
    let broker = Broker::start();
    let mut client = broker.client();
    filled(&mut client, "q", &["one", "two"]);
    client.consume("q", "c");
    client.expect_delivery("one");
    client.expect_delivery("two");

    client.send(basic::Recover { requeue: true });

    client.expect(basic::RecoverOk {});
    let one = client.expect_delivery("one");
    assert_eq!((one.tag(), one.redelivered()), (3, true));
    client.expect_delivery("two");
}

#[test]
fn recover_async_is_answered_by_nothing() {
    let broker = Broker::start();
    let mut client = holding_three(&broker);

    client.send(basic::RecoverAsync { requeue: true });

    client.expect_nothing();
    assert_eq!(client.drain_marked("q"), marked(ALL));
}

#[test]
fn recover_without_requeue_is_not_implemented() {
    for method in [basic::Recover { requeue: false }.cold(), basic::RecoverAsync { requeue: false }.cold()] {
        let broker = Broker::start();
        let mut client = holding_three(&broker);

        client.send(method);

        client.expect_connection_close(ReplyCode::NotImplemented, "NOT_IMPLEMENTED - requeue=false");
        assert_eq!(broker.client().drain_marked("q"), marked(ALL));
    }
}

// Direct reply-to ------------------------------------------------------------------------------------

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

fn reply_to(queue: &str) -> Vec<u8> {
    [vec![0x02, 0x00], wire::short(queue)].concat()
}

#[test]
fn a_reply_comes_back_to_the_channel_that_asked_and_goes_through_no_queue() {
    let broker = Broker::start();
    let (mut asks, mut answers) = (broker.client(), broker.client());
    answers.declare("q");
    asks.consume_no_ack(REPLY_TO, "replies");

    asks.publish_with("", "q", &reply_to(REPLY_TO), "question");
    asks.sync();
    let question = answers.get("q", "question");
    let properties = amqp::Properties::parse(&question.properties).unwrap();
    let token = String::from_utf8(properties.reply_to.unwrap().to_vec()).unwrap();
    assert!(token.starts_with("amq.rabbitmq.reply-to."), "{token}");
    assert!(answers.has_queue(&token));
    answers.publish("", &token, "answer");

    let answer = asks.expect_delivery("answer");
    assert_eq!((answer.consumer(), answer.routing_key()), ("replies", token.as_str()));
    asks.close();
    assert!(!answers.has_queue(&token));
    answers.publish_mandatory("", &token, "too late");
    answers.expect_return("", &token, "too late");
}

#[test]
fn replies_are_consumed_without_acks_once_and_before_they_are_asked_for() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.publish_with("", "q", &reply_to(REPLY_TO), "m");
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    client.expect_error(ReplyCode::PreconditionFailed, text);
    client.send(basic::Consume { queue: REPLY_TO.into(), ..Default::default() });
    let text = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    client.expect_error(ReplyCode::PreconditionFailed, text);
    client.consume_no_ack(REPLY_TO, "a");
    client.cancel("a");
    client.consume_no_ack(REPLY_TO, "b");
    client.send(basic::Consume { queue: REPLY_TO.into(), no_ack: true, ..Default::default() });
    let text = "PRECONDITION_FAILED - reply consumer already set";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

//! The channel class: opening, closing, errors of a channel alone, contents, flow.

use crate::support::wire::{self, NO_PROPERTIES};
use crate::support::*;

const NO_QUEUE: &str = "NOT_FOUND - no queue 'missing' in vhost '/'";

fn passive(queue: &str) -> queue::Declare {
    queue::Declare { queue: queue.into(), passive: true, ..Default::default() }
}

#[test]
fn a_channel_error_closes_that_channel_only() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);

    client.send(passive("missing"));

    client.expect_channel_close(ReplyCode::NotFound, NO_QUEUE);
    client.on(2).declare("q");
}

#[test]
fn a_channel_error_names_the_method() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(passive("missing"));

    client.expect(channel::Close {
        reply_code: 404,
        reply_text: NO_QUEUE.into(),
        class_id: 50,
        method_id: 10,
    });
}

#[test]
fn a_channel_number_can_be_opened_again_after_an_error_and_after_a_close() {
    let broker = Broker::start();
    let mut client = broker.client();

    for _ in 0..3 {
        client.send(passive("missing"));
        client.expect_channel_close(ReplyCode::NotFound, NO_QUEUE);
        client.open_channel(1);
        client.declare("q");
        client.close_channel();
        client.open_channel(1);
    }
}

#[test]
fn a_reopened_channel_knows_nothing_of_the_one_before() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.confirm();
    client.qos(1, false);
    client.publish("", "q", "m");
    client.expect_ack(1);
    client.get("q", "m");
    client.close_channel();
    client.open_channel(1);

    client.tx();
    assert_eq!(client.get("q", "m").tag(), 1);
    client.send(queue::Purge { queue: "".into(), nowait: false });

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no previously declared queue");
}

#[test]
fn frames_in_flight_behind_a_channel_error_are_ignored_until_close_ok() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };

    client.send_raw(
        &[
            wire::method(1, passive("missing")),
            wire::method(1, queue::Declare { queue: "late".into(), ..Default::default() }),
            client.content(publish, NO_PROPERTIES, b"late"),
            wire::body(1, b"even what makes no sense"),
        ]
        .concat(),
    );

    client.expect_channel_close(ReplyCode::NotFound, NO_QUEUE);
    client.open_channel(1);
    assert_eq!(client.counts("q"), (0, 0));
    assert!(!client.has_queue("late"));
}

#[test]
fn the_rest_of_a_refused_message_is_ignored() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let publish = basic::Publish { exchange: "missing".into(), ..Default::default() };
    let refused = client.content(publish, NO_PROPERTIES, &[b'x'; 300_000]);
    let behind = client.content(
        basic::Publish { routing_key: "q".into(), ..Default::default() },
        NO_PROPERTIES,
        b"behind",
    );

    client.send_raw(&[refused, behind].concat());

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'missing' in vhost '/'");
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn close_that_crosses_the_brokers_close_is_answered() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.send(passive("missing"));
    client.expect_channel_close_unanswered(ReplyCode::NotFound, NO_QUEUE);

    client.close_channel();
    client.send(channel::CloseOk {});

    client.open_channel(1);
}

#[test]
fn open_before_close_ok_is_a_second_open() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.send(passive("missing"));
    client.expect_channel_close_unanswered(ReplyCode::NotFound, NO_QUEUE);

    client.send(channel::Open {});

    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    client.expect_connection_close(ReplyCode::ChannelError, text);
}

#[test]
fn open_of_an_open_channel_is_an_error_of_the_connection() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(channel::Open {});

    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    client.expect_connection_close(ReplyCode::ChannelError, text);
}

#[test]
fn a_channel_has_to_be_opened_first() {
    let broker = Broker::start();
    let close = channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    let frames = [
        wire::method(9, passive("q")),
        wire::method(9, close),
        wire::method(9, channel::CloseOk {}),
        wire::method(9, basic::Ack { delivery_tag: 1, multiple: false }),
        wire::method(9, basic::Publish::default()),
    ];

    for frame in frames {
        let mut client = broker.client();
        client.send_raw(&frame);

        let text = "CHANNEL_ERROR - expected 'channel.open'";
        client.expect_connection_close(ReplyCode::ChannelError, text);
    }
}

#[test]
fn content_on_a_channel_that_is_not_open_is_an_unexpected_frame() {
    let broker = Broker::start();

    for frame in [wire::header(9, 1, NO_PROPERTIES), wire::body(9, b"abc")] {
        let mut client = broker.client();
        client.send_raw(&frame);

        let text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
        client.expect_connection_close(ReplyCode::UnexpectedFrame, text);
    }
}

#[test]
fn a_method_on_a_channel_that_was_closed_is_an_error_of_the_connection() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.close_channel();

    client.send(passive("q"));

    client.expect_connection_close(ReplyCode::ChannelError, "CHANNEL_ERROR - expected 'channel.open'");
}

#[test]
fn flow_can_be_turned_on_and_not_off() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(channel::Flow { active: true });
    client.expect(channel::FlowOk { active: true });
    client.send(channel::Flow { active: false });

    client.expect_connection_close(ReplyCode::NotImplemented, "NOT_IMPLEMENTED - active=false");
}

// What a channel leaves behind -----------------------------------------------------------------------

#[test]
fn unacked_messages_of_a_closed_channel_are_back_in_their_places_when_close_is_answered() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    for body in ["one", "two", "three"] {
        client.publish("", "q", body);
    }
    client.qos(2, false);
    client.consume("q", "c");
    client.expect_delivery("one");
    client.expect_delivery("two");

    client.close_channel();

    assert_eq!(other.counts("q"), (3, 0));
    let expected = [("one", true), ("two", true), ("three", false)].map(|(b, r)| (b.to_string(), r));
    assert_eq!(other.drain_marked("q"), expected);
}

#[test]
fn unacked_messages_are_back_when_the_broker_closes_the_channel_and_before_close_ok() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    client.publish("", "q", "m");
    client.consume("q", "c");
    client.expect_delivery("m");

    client.send(passive("missing"));
    client.expect_channel_close_unanswered(ReplyCode::NotFound, NO_QUEUE);

    assert_eq!(other.counts("q"), (1, 0));
    assert_eq!(other.drain_marked("q"), [("m".to_string(), true)]);
}

#[test]
fn deliveries_that_a_closing_channel_never_sent_are_not_lost() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    for n in 0..500 {
        client.publish("", "q", format!("{n}"));
    }

    // The deliveries are still on their way when the channel closes.
    client.send_raw(
        &[
            wire::method(1, basic::Consume { queue: "q".into(), ..Default::default() }),
            wire::method(1, passive("missing")),
        ]
        .concat(),
    );
    while !matches!(client.event(), Event::Method(m) if matches!(*m, Cold::Channel(channel::AMQPMethod::Close(_))))
    {
    }

    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(other.drain("q"), expected);
}

#[test]
fn consumers_end_with_their_channel_without_a_cancel() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    client.declare("q");
    client.consume("q", "c");

    client.close_channel();

    assert_eq!(client.on(2).counts("q"), (0, 0));
}

// Contents -------------------------------------------------------------------------------------------

const NOT_HEADER: &str =
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
const NOT_BODY: &str = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
const NOT_METHOD: &str = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";

#[test]
fn contents_come_in_order_or_are_unexpected_frames() {
    let broker = Broker::start();
    broker.client().declare("q");
    let publish = || wire::method(1, basic::Publish { routing_key: "q".into(), ..Default::default() });
    let header = |size| wire::header(1, size, NO_PROPERTIES);
    let body = |part: &str| wire::body(1, part.as_bytes());
    let qos = || wire::method(1, basic::Qos { prefetch_count: 1, global: false });
    let cases = [
        ("a header without a publish", vec![header(3)], NOT_METHOD),
        ("a body without a publish", vec![body("abc")], NOT_METHOD),
        ("a body without a header", vec![publish(), body("abc")], NOT_HEADER),
        ("a method in the place of the header", vec![publish(), qos()], NOT_HEADER),
        ("a publish in the place of the header", vec![publish(), publish()], NOT_HEADER),
        ("a method in the place of the body", vec![publish(), header(3), qos()], NOT_BODY),
        ("a method inside the body", vec![publish(), header(6), body("abc"), qos()], NOT_BODY),
        ("a second header", vec![publish(), header(3), header(3)], NOT_BODY),
        ("a body after the last one", vec![publish(), header(3), body("abc"), body("de")], NOT_METHOD),
        ("a body of an empty message", vec![publish(), header(0), body("ab")], NOT_METHOD),
    ];

    for (what, frames, text) in cases {
        println!("{what}");
        let mut client = broker.client();
        client.send_raw(&frames.concat());

        client.expect_connection_close(ReplyCode::UnexpectedFrame, text);
    }
}

#[test]
fn a_body_longer_than_announced_is_an_unexpected_frame_and_no_message() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let publish = wire::method(1, basic::Publish { routing_key: "q".into(), ..Default::default() });

    client.send_raw(&[publish, wire::header(1, 3, NO_PROPERTIES), wire::body(1, b"abcde")].concat());
    // RabbitMQ notices at the next method.
    let _ = client.try_send_raw(&wire::method(1, basic::Qos { prefetch_count: 1, global: false }));

    client.expect_connection_close_with(ReplyCode::UnexpectedFrame);
    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn a_header_of_another_class_is_an_unexpected_frame() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut header = wire::header(1, 3, NO_PROPERTIES);
    header[8] = 50;

    client.send_raw(&[wire::method(1, basic::Publish::default()), header].concat());

    let text = "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead";
    client.expect_connection_close(ReplyCode::UnexpectedFrame, text);
}

#[test]
fn properties_that_are_none_end_the_connection() {
    let broker = Broker::start();
    broker.client().declare("q");
    let bad: [&[u8]; 5] = [
        b"",                               // no flags
        b"\x80\x00",                       // a content type is announced and not there
        b"\x00\x01\x00\x00",               // flags go on
        b"\x00\x00junk",                   // bytes behind the last property
        b"\x20\x00\x00\x00\x00\x03\x01az", // a header of an unknown type
    ];

    for properties in bad {
        let mut client = broker.client();
        let publish = wire::method(1, basic::Publish { routing_key: "q".into(), ..Default::default() });
        client.send_raw(&[publish, wire::header(1, 1, properties)].concat());
        let _ = client.try_send_raw(&wire::body(1, b"x"));

        client.expect_end();
    }
    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn empty_body_frames_and_heartbeats_between_the_parts_do_no_harm() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.send_raw(
        &[
            wire::method(1, basic::Publish { routing_key: "q".into(), ..Default::default() }),
            wire::header(1, 3, NO_PROPERTIES),
            wire::body(1, b""),
            wire::body(1, b"a"),
            wire::frame(8, 0, b""),
            wire::body(1, b""),
            wire::body(1, b"bc"),
        ]
        .concat(),
    );

    client.get("q", "abc");
}

#[test]
fn contents_of_two_channels_may_be_interleaved() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    client.declare("q");
    let publish = |n| wire::method(n, basic::Publish { routing_key: "q".into(), ..Default::default() });

    client.send_raw(
        &[
            publish(1),
            publish(2),
            wire::header(2, 6, NO_PROPERTIES),
            wire::header(1, 6, NO_PROPERTIES),
            wire::body(1, b"abc"),
            wire::body(2, b"123"),
            wire::body(1, b"def"),
            wire::body(2, b"456"),
        ]
        .concat(),
    );

    assert_eq!(client.drain("q"), ["abcdef", "123456"]);
}

#[test]
fn a_client_may_use_the_whole_frame_max_for_a_payload_as_rabbitmq_lets_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.send_raw(
        &[
            wire::method(1, basic::Publish { routing_key: "q".into(), ..Default::default() }),
            wire::header(1, 131_072, NO_PROPERTIES),
            wire::body(1, &[b'x'; 131_072]),
        ]
        .concat(),
    );

    client.get("q", &"x".repeat(131_072));
}

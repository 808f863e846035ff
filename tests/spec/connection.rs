//! The connection class: handshake, limits, frames, errors of the whole connection, alarms, the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::wire::{self, NO_PROPERTIES};
use crate::support::*;

// The first bytes ------------------------------------------------------------------------------------

#[test]
fn another_protocol_is_answered_with_ours_and_closed() {
    let broker = Broker::start();
    let openings: [&[u8]; 8] = [
        b"AMQP\x00\x00\x09\x02",
        b"AMQP\x01\x01\x00\x0a",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"xyzzyxyz",
        b"GET / HT",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        &[0; 8],
    ];

    for opening in openings {
        let mut client = broker.stranger();
        client.send_raw(opening);

        client.expect_raw(b"AMQP\x00\x00\x09\x01");
        client.expect_closed();
    }
}

#[test]
fn the_header_of_0_9_is_accepted() {
    let broker = Broker::start();
    let mut client = broker.stranger();

    client.send_raw(b"AMQP\x01\x01\x00\x09");

    client.expect_start();
}

#[test]
fn a_client_that_does_not_begin_is_closed_after_the_handshake_timeout() {
    let broker = Broker::with(|config| config.handshake_timeout_secs = 1);
    let mut silent = broker.stranger();
    let mut half = broker.stranger();
    half.send_raw(b"AMQP");
    let mut begun = broker.stranger();
    begun.send_raw(&amqp::limits::PROTOCOL_HEADER);
    begun.expect_start();

    silent.expect_closed();
    half.expect_closed();
    begun.expect_closed();
}

// connection.start -----------------------------------------------------------------------------------

#[test]
fn start_offers_mechanisms_locale_and_what_clients_ask_the_broker_for() {
    let broker = Broker::start();
    let mut client = broker.stranger();

    client.send_raw(&amqp::limits::PROTOCOL_HEADER);

    let start = client.expect_start();
    let mut mechanisms: Vec<String> =
        String::from_utf8_lossy(start.mechanisms.as_bytes()).split(' ').map(String::from).collect();
    mechanisms.sort();
    assert_eq!((start.version_major, start.version_minor), (0, 9));
    assert_eq!(mechanisms, ["AMQPLAIN", "PLAIN"]);
    assert_eq!(start.locales.as_bytes(), b"en_US");
    let properties = Table::from(&start.server_properties);
    for name in ["product", "version", "platform", "copyright", "information", "cluster_name"] {
        assert!(properties.get_str(name).is_some_and(|text| !text.is_empty()), "{name}");
    }
    assert_eq!(properties.get_str("version").map(|v| v.split('.').count()), Some(3));
    let Some(Value::Table(capabilities)) = properties.get("capabilities") else { panic!("no capabilities") };
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        assert!(capabilities.is_true(name), "{name}");
    }
}

#[test]
fn product_and_version_are_what_the_configuration_says() {
    let broker = Broker::with(|config| {
        config.server_properties.product = "RabbitMQ".into();
        config.server_properties.version = "3.13.7".into();
    });
    let mut client = broker.stranger();

    client.send_raw(&amqp::limits::PROTOCOL_HEADER);

    let properties = Table::from(&client.expect_start().server_properties);
    assert_eq!(properties.get_str("product"), Some("RabbitMQ"));
    assert_eq!(properties.get_str("version"), Some("3.13.7"));
}

// Logging in -----------------------------------------------------------------------------------------

const REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the \
                       broker logfile.";

#[test]
fn a_wrong_password_is_told_to_a_client_that_wants_to_hear_it() {
    let broker = Broker::start();

    for (user, password) in [("guest", "wrong"), ("guest", ""), ("nobody", "guest"), ("", "guest")] {
        let mut client = broker.stranger();
        client.log_in(&Login::of(user, password));

        client.expect_connection_close(ReplyCode::AccessRefused, REFUSED);
    }
}

#[test]
fn a_wrong_password_closes_the_socket_of_a_client_that_cannot_be_told_and_makes_it_wait() {
    let broker = Broker::start();
    let mut client = broker.stranger();
    let start = Instant::now();

    client.log_in(&Login::of("guest", "wrong").without_capabilities());

    client.expect_closed();
    assert!(start.elapsed() > Duration::from_secs(1), "guessing is slow");
}

#[test]
fn an_unknown_mechanism_closes_the_socket() {
    let broker = Broker::start();

    for mechanism in ["FOO", "", "EXTERNAL", "ANONYMOUS"] {
        let mut client = broker.stranger();
        client.send_raw(&amqp::limits::PROTOCOL_HEADER);
        client.expect_start();
        let start_ok = Login::default().start_ok();
        client.on(0).send(connection::StartOk { mechanism: mechanism.into(), ..start_ok });

        client.expect_closed();
    }
}

#[test]
fn amqplain_is_a_login_as_well() {
    let broker = Broker::start();
    let mut client = broker.stranger();
    client.send_raw(&amqp::limits::PROTOCOL_HEADER);
    client.expect_start();
    let mut response = Vec::new();
    Table::from_iter([("LOGIN", Value::text("guest")), ("PASSWORD", Value::text("guest"))])
        .encode(&mut response);

    let start_ok = Login::default().start_ok();
    let response = response[4..].into();
    client.on(0).send(connection::StartOk { mechanism: "AMQPLAIN".into(), response, ..start_ok });

    client.expect_tune();
}

#[test]
fn a_method_out_of_turn_ends_the_handshake() {
    let broker = Broker::start();
    let mut client = broker.stranger();
    client.send_raw(&amqp::limits::PROTOCOL_HEADER);
    client.expect_start();

    client.on(0).send(connection::Open { virtual_host: "/".into() });

    client.expect_end();
}

#[test]
fn tune_ok_twice_is_a_channel_error_of_the_connection() {
    let broker = Broker::start();
    let mut client = broker.stranger();
    client.begin(&Login::default());

    client.on(0).send(connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 });

    let text = "CHANNEL_ERROR - unexpected method in connection state opening";
    client.expect_connection_close(ReplyCode::ChannelError, text);
}

#[test]
fn a_whole_handshake_may_come_in_one_write() {
    let broker = Broker::start();
    let mut client = broker.stranger();

    client.send_raw(
        &[
            amqp::limits::PROTOCOL_HEADER.to_vec(),
            wire::method(0, Login::default().start_ok()),
            wire::method(0, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 }),
            wire::method(0, connection::Open { virtual_host: "/".into() }),
            wire::method(1, channel::Open {}),
        ]
        .concat(),
    );

    client.expect_start();
    client.expect_tune();
    client.on(0).expect(connection::OpenOk {});
    client.expect(channel::OpenOk {});
}

#[test]
fn a_handshake_that_comes_octet_by_octet_is_understood() {
    let broker = Broker::start();
    let mut client = broker.stranger();
    let bytes = [
        amqp::limits::PROTOCOL_HEADER.to_vec(),
        wire::method(0, Login::default().start_ok()),
        wire::method(0, connection::TuneOk { channel_max: 0, frame_max: 131_072, heartbeat: 0 }),
    ];

    for octet in bytes.concat() {
        client.send_raw(&[octet]);
    }

    client.expect_start();
    client.expect_tune();
}

// connection.tune ------------------------------------------------------------------------------------

#[test]
fn tune_proposes_rabbitmqs_limits() {
    let broker = Broker::start();
    let mut client = broker.stranger();

    client.log_in(&Login::default());

    let tune = client.expect_tune();
    assert_eq!((tune.channel_max, tune.frame_max, tune.heartbeat), (2047, 131_072, 60));
}

#[test]
fn tune_ok_may_not_raise_a_limit_or_go_below_the_smallest_frame() {
    let broker = Broker::start();
    let check = |frame_max, channel_max| {
        let mut client = broker.stranger();
        client.begin(&Login {
            frame_max: Some(frame_max),
            channel_max: Some(channel_max),
            ..Login::default()
        });
        let _ = client.try_send_raw(&wire::method(0, connection::Open { virtual_host: "/".into() }));
        client.expect_end();
    };

    check(131_073, 2047);
    check(131_072, 2048);
    check(4095, 2047);
    check(1, 2047);
}

#[test]
fn a_heartbeat_longer_than_proposed_is_accepted() {
    let broker = Broker::start();
    let mut client = broker.stranger();

    client.shake_hands(&Login { heartbeat: 1000, ..Login::default() });

    client.open_channel(1);
}

#[test]
fn a_frame_max_of_4096_is_kept_in_both_directions() {
    let broker = Broker::start();
    let mut client = broker.client_as(&Login { frame_max: Some(4096), ..Login::default() });
    client.declare("q");

    client.publish("", "q", "x".repeat(10_000));

    let got = client.get("q", &"x".repeat(10_000));
    assert_eq!(got.parts, [4088, 4088, 1824]);
    client.send_raw(&wire::frame_head(3, 1, 4097));
    let text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}";
    client.expect_connection_close(ReplyCode::FrameError, text);
}

#[test]
fn a_channel_max_counts_open_channels() {
    let broker = Broker::start();
    let mut client = broker.stranger();
    client.shake_hands(&Login { channel_max: Some(2), ..Login::default() });
    client.open_channel(1);
    client.open_channel(65_535);

    client.close_channel();
    client.open_channel(3);
    client.on(4).send(channel::Open {});

    let text = "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)";
    client.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn sixty_five_thousand_channels_can_be_open_on_a_connection() {
    let broker = Broker::with(|config| config.channel_max = u16::MAX);
    let mut client = broker.stranger();
    client.shake_hands(&Login { channel_max: Some(u16::MAX), ..Login::default() });

    for batch in (1..=u16::MAX).collect::<Vec<_>>().chunks(1000) {
        let opens: Vec<u8> = batch.iter().flat_map(|&n| wire::method(n, channel::Open {})).collect();
        client.send_raw(&opens);
        batch.iter().for_each(|&n| client.on(n).expect(channel::OpenOk {}));
    }

    client.on(u16::MAX).declare("q");
    client.publish("", "q", "m");
    client.sync();
    client.on(u16::MAX).get("q", "m");
    client.close();
}

// connection.open ------------------------------------------------------------------------------------

#[test]
fn an_unknown_vhost_is_not_allowed() {
    let broker = Broker::start();

    for vhost in ["missing", ""] {
        let mut client = broker.stranger();
        client.begin(&Login::default());
        client.on(0).send(connection::Open { virtual_host: vhost.into() });

        let text = format!("NOT_ALLOWED - vhost {vhost} not found");
        client.expect_connection_close(ReplyCode::NotAllowed, &text);
    }
}

#[test]
fn a_vhost_that_the_user_has_no_permissions_in_is_not_allowed() {
    let broker = Broker::with(|config| config.seed.vhosts = vec![vhost("closed")]);
    let mut client = broker.stranger();
    client.begin(&Login::default());

    client.on(0).send(connection::Open { virtual_host: "closed".into() });

    let text = "NOT_ALLOWED - access to vhost 'closed' refused for user 'guest'";
    client.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn vhosts_know_nothing_of_each_other() {
    let broker = Broker::with(|config| {
        config.seed.vhosts = vec![vhost("other")];
        config.seed.permissions = vec![permission("guest", "other", [".*", ".*", ".*"])];
    });
    let mut here = broker.client();
    let mut there = broker.client_as(&Login { vhost: "other".into(), ..Login::default() });
    here.declare("q");
    there.declare("q");

    here.publish("", "q", "here");
    here.sync();

    assert_eq!(there.counts("q"), (0, 0));
    assert_eq!(here.drain("q"), ["here"]);
    there.send(queue::Declare { queue: "missing".into(), passive: true, ..Default::default() });
    there.expect_error(ReplyCode::NotFound, "NOT_FOUND - no queue 'missing' in vhost 'other'");
}

#[test]
fn open_on_an_open_connection_is_out_of_turn() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.on(0).send(connection::Open { virtual_host: "/".into() });

    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    client.expect_connection_close(ReplyCode::ChannelError, text);
}

// Frames ---------------------------------------------------------------------------------------------

fn check_frames(bytes: &[u8], code: ReplyCode, text: &str) {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send_raw(bytes);

    client.expect_connection_close(code, text);
}

#[test]
fn an_unknown_frame_type_is_a_frame_error() {
    let bytes = wire::frame(4, 1, b"");
    check_frames(&bytes, ReplyCode::FrameError, "FRAME_ERROR - type 4, all octets = <<>>: unknown_frame");
}

#[test]
fn a_wrong_frame_end_is_a_frame_error() {
    let mut bytes = wire::frame(8, 0, b"");
    *bytes.last_mut().unwrap() = 1;
    let text = "FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,1}";
    check_frames(&bytes, ReplyCode::FrameError, text);
}

#[test]
fn a_frame_larger_than_agreed_is_a_frame_error_as_soon_as_it_is_announced() {
    let bytes = wire::frame_head(3, 1, 131_073);
    let text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}";
    check_frames(&bytes, ReplyCode::FrameError, text);
}

#[test]
fn a_method_frame_too_short_for_a_method_is_a_frame_error() {
    let bytes = wire::frame(1, 1, &[0, 60, 0]);
    check_frames(
        &bytes,
        ReplyCode::FrameError,
        "FRAME_ERROR - type 1, all octets = <<0,60,0>>: unknown_frame",
    );
}

#[test]
fn a_method_cut_short_is_a_frame_error() {
    let bytes = wire::frame(1, 1, &[0, 50, 0, 10, 0, 0, 5, 99, 109]);
    check_frames(&bytes, ReplyCode::FrameError, "FRAME_ERROR - cannot decode <<0,0,5,99,109>>");
}

#[test]
fn a_method_with_bytes_behind_it_is_a_frame_error() {
    let bytes = wire::frame(1, 1, b"\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01\x00junk");
    let text = "FRAME_ERROR - cannot decode <<0,0,0,0,0,0,0,1,0,106,117,110,107>>";
    check_frames(&bytes, ReplyCode::FrameError, text);
}

#[test]
fn a_name_that_is_not_utf_8_is_a_frame_error() {
    let mut declare = vec![0, 50, 0, 10, 0, 0];
    declare.extend(wire::short(b"q\xff\xfe"));
    declare.extend([0, 0, 0, 0, 0]);
    let text = "FRAME_ERROR - Malformed UTF-8 in shortstr";
    check_frames(&wire::frame(1, 1, &declare), ReplyCode::FrameError, text);
}

#[test]
fn an_unknown_class_or_method_ends_the_connection() {
    let broker = Broker::start();

    for (channel, ids) in [(1, [0, 99, 0, 10]), (0, [0, 99, 0, 10]), (1, [0, 50, 0, 99]), (0, [0, 10, 0, 99])]
    {
        let mut client = broker.client();
        client.send_raw(&wire::frame(1, channel, &ids));

        client.expect_end();
    }
}

#[test]
fn a_table_that_is_none_ends_the_connection() {
    let broker = Broker::start();
    let tables: [&[u8]; 5] = [
        b"\x00\x00\x00\x03\x01az",                  // an unknown type
        b"\x00\x00\x00\x02\x01a",                   // no value
        b"\x00\x00\x00\x08\x01aS\x00\x00\x00\x09x", // a string longer than its table
        b"\x00\x00\x03\xe8",                        // a table longer than its frame
        b"\xff\xff\xff\xff",
    ];

    for table in tables {
        let mut client = broker.client();
        let declare = [b"\x00\x32\x00\x0a\x00\x00\x01q\x00", table].concat();
        client.send_raw(&wire::frame(1, 1, &declare));

        client.expect_end();
    }
}

/// The arguments of a declare with tables nested as deep as this.
fn nested(depth: usize) -> Vec<u8> {
    let mut table = vec![0, 0, 0, 0];
    for _ in 1..depth {
        let inner = [b"\x01tF".as_slice(), &table].concat();
        table = [(inner.len() as u32).to_be_bytes().as_slice(), &inner].concat();
    }
    table
}

#[test]
fn tables_nested_two_hundred_deep_are_fine_and_ten_thousand_end_the_connection_alone() {
    let broker = Broker::start();
    let mut client = broker.client();
    let declare = |depth| [b"\x00\x32\x00\x0a\x00\x00\x01q\x00", nested(depth).as_slice()].concat();

    client.send_raw(&wire::frame(1, 1, &declare(200)));
    client.expect(queue::DeclareOk { queue: "q".into(), message_count: 0, consumer_count: 0 });
    client.send_raw(&wire::frame(1, 1, &declare(10_000)));

    client.expect_end();
    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn half_a_frame_is_waited_for_and_holds_nobody_up() {
    let broker = Broker::start();
    let mut half = broker.client();
    let mut other = broker.client();
    let declare = wire::method(1, queue::Declare { queue: "q".into(), ..Default::default() });

    half.send_raw(&declare[..9]);
    other.declare("other");
    half.send_raw(&declare[9..]);

    half.expect(queue::DeclareOk { queue: "q".into(), message_count: 0, consumer_count: 0 });
}

#[test]
fn a_heartbeat_belongs_on_channel_0_and_has_nothing_in_it() {
    let text = "UNEXPECTED_FRAME - type 8, all octets = <<>>";
    check_frames(&wire::frame(8, 1, b""), ReplyCode::UnexpectedFrame, text);
    let text = "FRAME_ERROR - type 8, all octets = <<\"abc\">>: unknown_frame";
    check_frames(&wire::frame(8, 0, b"abc"), ReplyCode::FrameError, text);
}

// Methods where they do not belong -------------------------------------------------------------------

#[test]
fn a_method_of_a_channel_on_channel_0_is_a_channel_error_of_the_connection() {
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    let declare = queue::Declare { queue: "q".into(), ..Default::default() };

    check_frames(&wire::method(0, declare), ReplyCode::ChannelError, text);
    check_frames(&wire::method(0, channel::Open {}), ReplyCode::ChannelError, text);
    check_frames(&wire::method(0, connection::CloseOk {}), ReplyCode::ChannelError, text);
}

#[test]
fn a_content_on_channel_0_is_an_unexpected_frame() {
    let text = "UNEXPECTED_FRAME - type 3, all octets = <<\"abc\">>";
    check_frames(&wire::body(0, b"abc"), ReplyCode::UnexpectedFrame, text);
    let text = "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,1,0,0>>";
    check_frames(&wire::header(0, 1, NO_PROPERTIES), ReplyCode::UnexpectedFrame, text);
}

#[test]
fn a_method_of_the_connection_or_of_the_broker_on_a_channel_is_unimplemented() {
    let text = "COMMAND_INVALID - unimplemented method";
    let close = connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };

    check_frames(&wire::method(1, close), ReplyCode::CommandInvalid, text);
    check_frames(&wire::method(1, basic::GetEmpty {}), ReplyCode::CommandInvalid, text);
    check_frames(&wire::method(1, channel::CloseOk {}), ReplyCode::CommandInvalid, text);
}

#[test]
fn access_request_of_old_clients_is_granted() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send_raw(&wire::frame(1, 1, b"\x00\x1e\x00\x0a\x05/data\x00"));

    client.expect_raw(&wire::frame(1, 1, &[0, 30, 0, 11, 0, 1]));
}

#[test]
fn update_secret_is_acknowledged() {
    let broker = Broker::start();
    let mut client = broker.client();

    client
        .on(0)
        .send(connection::UpdateSecret { new_secret: b"guest".as_slice().into(), reason: "r".into() });

    client.on(0).expect(connection::UpdateSecretOk {});
}

// Heartbeats: the only test that waits for real time ------------------------------------------------

#[test]
fn heartbeats_come_each_half_interval_and_only_a_silent_client_is_cut_off_after_two() {
    let broker = Broker::start();
    let login = Login { heartbeat: 1, ..Login::default() };
    let (mut beating, mut working) = (broker.client_as(&login), broker.client_as(&login));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);

    std::thread::scope(|scope| {
        let active = scope.spawn(|| {
            while !is_over() {
                beating.send_raw(&wire::frame(8, 0, b""));
                working.send(confirm::Select { nowait: true });
                std::thread::sleep(Duration::from_millis(400));
            }
        });
        let mut silent = broker.client_as(&login);
        silent.declare_queue(queue::Declare { queue: "q".into(), exclusive: true, ..Default::default() });
        let start = Instant::now();

        let mut heartbeats = 0;
        while let Some(event) = silent.on(0).event_or_end() {
            assert_eq!(event, Event::Heartbeat);
            heartbeats += 1;
        }
        let cut_off_after = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        active.join().expect("two clients that go on");
        assert!((1500..=4500).contains(&cut_off_after.as_millis()), "cut off after {cut_off_after:?}");
        assert!((2..=9).contains(&heartbeats), "{heartbeats} heartbeats in {cut_off_after:?}");
    });

    beating.qos(1, false);
    working.qos(1, false);
    assert!(!working.has_queue("q"), "the silent client's exclusive queue is gone");
}

// The end --------------------------------------------------------------------------------------------

#[test]
fn exclusive_queues_and_consumers_are_gone_when_close_is_answered() {
    let broker = Broker::start();
    let (mut owner, mut other) = (broker.client(), broker.client());
    owner.declare_queue(queue::Declare { queue: "mine".into(), exclusive: true, ..Default::default() });
    owner.declare("shared");
    owner.consume("shared", "c");

    owner.close();

    assert!(!other.has_queue("mine"));
    assert_eq!(other.counts("shared"), (0, 0));
}

// RabbitMQ leaves the socket to the client for 30 seconds. amqp091-go reports a lost connection (`Exception
// (501) Reason: "EOF"`) when it reads the end before it has handled close-ok: tests/clients/go failed one time
// in three.
#[test]
fn a_client_that_has_closed_is_the_one_to_close_the_socket() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.close();

    client.expect_open_for(Duration::from_millis(300));
}

#[test]
fn frames_behind_connection_close_are_ignored() {
    let broker = Broker::start();
    let mut client = broker.client();
    let close = connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    let declare = queue::Declare { queue: "q".into(), ..Default::default() };

    client.send_raw(&[wire::method(0, close), wire::method(1, declare)].concat());

    client.on(0).expect(connection::CloseOk {});
    assert!(!broker.client().has_queue("q"));
}

#[test]
fn frames_behind_a_connection_error_are_ignored_until_close_ok() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.send(channel::Open {});
    assert_eq!(client.connection_close().reply_text.as_str(), "CHANNEL_ERROR - second 'channel.open' seen");

    client.send(queue::Declare { queue: "q".into(), ..Default::default() });
    client.on(0).send(connection::CloseOk {});

    client.expect_closed();
    assert!(!broker.client().has_queue("q"));
}

#[test]
fn close_that_crosses_the_brokers_close_is_answered() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.send(channel::Open {});
    client.connection_close();

    client.close();
}

#[test]
fn a_connection_error_ends_what_the_connection_had() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    client.publish("", "q", "m");
    client.get("q", "m");
    client.declare_queue(queue::Declare { queue: "mine".into(), exclusive: true, ..Default::default() });

    client.send(channel::Open {});
    client.connection_close();

    assert_eq!(other.drain_marked("q"), [("m".to_string(), true)]);
    assert!(!other.has_queue("mine"));
}

#[test]
fn a_client_that_vanishes_leaves_its_messages_and_takes_its_queues() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    client.declare_queue(queue::Declare { queue: "mine".into(), exclusive: true, ..Default::default() });
    for body in ["one", "two", "three"] {
        client.publish("", "q", body);
    }
    client.qos(2, false);
    client.consume("q", "c");
    client.expect_delivery("one");
    client.expect_delivery("two");

    drop(client);

    eventually("its consumer is gone", || other.counts("q") == (3, 0));
    let expected = [("one", true), ("two", true), ("three", false)].map(|(b, r)| (b.to_string(), r));
    assert_eq!(other.drain_marked("q"), expected);
    assert!(!other.has_queue("mine"));
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_message_has_not_published_it() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    client.consume("q", "c");
    let publish = basic::Publish { routing_key: "q".into(), ..Default::default() };
    let whole = client.content(publish, NO_PROPERTIES, b"a message");

    client.send_raw(&whole[..whole.len() - 3]);
    drop(client);

    eventually("it is gone", || other.counts("q").1 == 0);
    assert_eq!(other.counts("q"), (0, 0));
}

#[test]
fn a_broker_that_stops_says_so_to_everybody() {
    let mut broker = Broker::start();
    let (mut one, mut two) = (broker.client(), broker.client());

    broker.ask_to_stop();

    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    one.expect_connection_close(ReplyCode::ConnectionForced, text);
    two.expect_connection_close(ReplyCode::ConnectionForced, text);
    broker.stop();
}

#[test]
fn a_client_that_does_not_answer_does_not_keep_the_broker_from_stopping() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    client.publish_persistent("", "q", "m");
    client.expect_ack(1);

    broker.restart();

    assert_eq!(broker.client().drain("q"), ["m"]);
    assert_eq!(client.connection_close().reply_code, 320);
}

#[test]
fn sigterm_says_goodbye_and_ends_in_order() {
    let mut broker = Process::start();
    let mut client = broker.client();

    broker.terminate();

    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    client.expect_connection_close(ReplyCode::ConnectionForced, text);
    assert!(broker.wait());
}

#[test]
fn a_second_broker_on_the_same_data_directory_is_refused_and_told_why() {
    let broker = Process::start();

    let second = broker.start_another();

    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let dir = broker.data_dir();
    assert!(said.contains(&*dir.to_string_lossy()), "it names the directory: {said}");
    assert!(said.contains("in use") || said.contains("locked") || said.contains("another"), "{said}");
    broker.client().declare("the first one goes on");
}

// Alarms ---------------------------------------------------------------------------------------------

/// A broker whose disk is never free enough.
fn broker_short_of_disk() -> Broker {
    Broker::with(|config| config.disk_free_bytes_min = u64::MAX)
}

#[track_caller]
fn expect_blocked(client: &mut Client) {
    match client.on(0).method() {
        Cold::Connection(connection::AMQPMethod::Blocked(blocked)) => {
            assert!(blocked.reason.as_str().starts_with("low on"), "{blocked:?}");
        }
        other => panic!("connection.blocked was expected, not {other:?}"),
    }
}

#[test]
fn a_publisher_is_told_that_it_is_blocked_when_the_disk_is_short() {
    let broker = broker_short_of_disk();
    let mut publisher = broker.client();
    publisher.declare("q");

    publisher.publish("", "q", "m");

    expect_blocked(&mut publisher);
    assert_eq!(broker.client().counts("q"), (0, 0));
}

#[test]
fn a_publisher_is_told_the_figures_when_memory_is_short() {
    let broker = Broker::with(|config| config.memory_bytes_total = Some(1_000_000));
    let mut publisher = broker.client();
    publisher.declare("q");

    publisher.publish("", "q", "m");

    let Cold::Connection(connection::AMQPMethod::Blocked(blocked)) = publisher.on(0).method() else {
        panic!("connection.blocked was expected")
    };
    let reason = blocked.reason.as_str();
    assert!(reason.starts_with("low on memory: "), "{reason}");
    assert!(
        reason.ends_with(
            " bytes used, more than 400000, memory_high_watermark 0.4 of 1000000 (memory_bytes_total)"
        ),
        "{reason}"
    );
    assert_eq!(broker.client().counts("q"), (0, 0));
}

/// A disk that is full while the flag is up, and says so each time it refuses.
fn broker_with_a_disk_that_fills() -> (Broker, Arc<AtomicBool>, mpsc::Receiver<()>) {
    let is_full = Arc::new(AtomicBool::new(false));
    let (refused, refusals) = mpsc::channel();
    let (disk, refused) = (is_full.clone(), Mutex::new(refused));
    let fault = move |step: &'static str| {
        if step != "log.write" || !disk.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _ = refused.lock().unwrap().send(());
        Err(std::io::ErrorKind::StorageFull.into())
    };
    let options = store::Options { fault: Some(Arc::new(fault)), ..store::Options::default() };
    (Broker::on(options), is_full, refusals)
}

#[test]
fn a_full_disk_refuses_publishes_and_recovers_by_itself() {
    let (mut broker, is_full, refusals) = broker_with_a_disk_that_fills();
    let mut publisher = broker.client();
    publisher.declare_durable("q");
    publisher.confirm();
    publisher.publish_persistent("", "q", "before");
    publisher.expect_ack(1);

    is_full.store(true, Ordering::SeqCst);
    publisher.publish_persistent("", "q", "into the full disk");
    // When it is refused for the second time, the alarm is on.
    refusals.recv().unwrap();
    refusals.recv().unwrap();
    publisher.publish_persistent("", "q", "held back");
    let Cold::Connection(connection::AMQPMethod::Blocked(blocked)) = publisher.on(0).method() else {
        panic!("connection.blocked was expected")
    };
    assert!(blocked.reason.as_str().starts_with("no room for "), "{blocked:?}");
    // Who only reads is not bothered.
    let mut consumer = broker.client();
    consumer.consume("q", "c");
    consumer.expect_delivery("before");

    is_full.store(false, Ordering::SeqCst);
    assert!(matches!(publisher.on(0).method(), Cold::Connection(connection::AMQPMethod::Unblocked(_))));
    publisher.expect_confirmed(2, 3);
    consumer.hang_up();
    broker.restart();
    assert_eq!(broker.client().counts("q").0, 3);
}

#[test]
fn a_connection_that_does_not_publish_works_on_when_the_disk_is_short() {
    let broker = broker_short_of_disk();
    let mut publisher = broker.client();
    publisher.publish("", "q", "m");
    expect_blocked(&mut publisher);

    let mut consumer = broker.client();
    consumer.declare("q");
    consumer.consume("q", "c");
    consumer.cancel("c");
    consumer.close();
}

#[test]
fn a_blocked_publisher_can_still_acknowledge_and_close() {
    let broker = broker_short_of_disk();
    let mut publisher = broker.client();
    publisher.open_channel(2);
    publisher.publish("", "q", "m");
    expect_blocked(&mut publisher);

    publisher.on(2).declare("q2");
    publisher.on(2).consume("q2", "c");
    publisher.close();
}

#[test]
fn a_blocked_publisher_that_vanishes_is_noticed() {
    let broker = broker_short_of_disk();
    let (mut publisher, mut other) = (broker.client(), broker.client());
    publisher.declare_queue(queue::Declare { queue: "mine".into(), exclusive: true, ..Default::default() });
    publisher.publish("", "mine", "m");
    expect_blocked(&mut publisher);
    assert!(is_locked(&mut other, "mine"));

    drop(publisher);

    eventually("its queue is gone", || !is_locked(&mut other, "mine"));
}

fn is_locked(client: &mut Client, queue: &str) -> bool {
    client.send(queue::Declare { queue: queue.into(), passive: true, ..Default::default() });
    let Cold::Channel(channel::AMQPMethod::Close(close)) = client.method() else { panic!("it is mine") };
    client.send(channel::CloseOk {});
    client.open_channel(1);
    close.reply_code == 405
}

// Clients that do not read ---------------------------------------------------------------------------

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[test]
fn a_client_that_stops_reading_holds_up_nobody_and_leaves_the_messages_in_the_queue() {
    let broker = Broker::start();
    let (mut sleeper, mut other) = (broker.client_with_small_buffer(), broker.client());
    other.declare("big");
    let count = 64 * MIB / (64 * KIB);
    for _ in 0..count {
        other.publish("", "big", vec![b'x'; 64 * KIB]);
    }
    other.sync();
    sleeper.send(basic::Consume { queue: "big".into(), no_ack: true, ..Default::default() });
    let socket = sleeper.into_socket();
    eventually("the sleeper is a consumer", || other.counts("big").1 == 1);

    other.declare("q");
    other.consume("q", "c");
    for n in 0..100 {
        other.publish("", "q", format!("{n}"));
        let tag = other.expect_delivery(&format!("{n}")).tag();
        other.ack(tag);
    }

    // What went out lies in the sockets' buffers (4 MiB on the broker's side) and in an outbox of 1 MiB.
    let (left, consumers) = other.counts("big");
    assert_eq!(consumers, 1);
    assert!(left as usize > count * 3 / 4, "{left} of {count} are still in the queue");
    drop(socket);
}

#[test]
fn memory_stays_flat_when_consumers_stop_reading() {
    let broker = Process::start();
    let mut other = broker.client();
    other.declare("big");
    let publish = basic::Publish { routing_key: "big".into(), ..Default::default() };
    let bytes = other.content(publish, NO_PROPERTIES, &[b'x'; KIB]).repeat(KIB);
    for _ in 0..64 {
        other.send_raw(&bytes);
    }
    other.sync();
    let before = broker.resident_bytes();

    let sleepers: Vec<_> = (0..4)
        .map(|_| {
            let mut sleeper = broker.client_with_small_buffer();
            sleeper.send(basic::Consume { queue: "big".into(), ..Default::default() });
            sleeper.into_socket()
        })
        .collect();
    other.declare("q");
    for _ in 0..20 {
        other.publish("", "q", "m");
        other.get("q", "m");
    }

    assert_grown_less(&broker, before, 24 * MIB);
    drop(sleepers);
}

#[test]
fn memory_stays_flat_when_a_client_asks_for_more_than_it_reads() {
    let broker = Process::start();
    let mut other = broker.client();
    other.declare("q");
    other.publish("", "q", vec![b'x'; 100 * KIB]);
    other.sync();
    let before = broker.resident_bytes();

    // Each get brings the message back for the next one: all in all 200 MB.
    let mut sleeper = broker.client_with_small_buffer();
    for n in 1..=2000 {
        let get = wire::method(1, basic::Get { queue: "q".into(), no_ack: false });
        let nack = wire::method(1, basic::Nack { delivery_tag: n, multiple: false, requeue: true });
        sleeper.send_raw(&[get, nack].concat());
    }
    other.declare("other");
    for _ in 0..20 {
        other.publish("", "other", "m");
        other.get("other", "m");
    }

    assert_grown_less(&broker, before, 24 * MIB);
}

#[track_caller]
fn assert_grown_less(broker: &Process, before: usize, allowed: usize) {
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < allowed, "{} MiB more than before", grown / MIB);
}

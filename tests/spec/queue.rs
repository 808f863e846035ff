//! The queue class: declaring, binding, purging, deleting, exclusive and auto-delete queues, arguments and
//! what time does to queues and messages.

use std::time::Duration;

use crate::support::wire;
use crate::support::*;

fn named(queue: &str) -> queue::Declare {
    queue::Declare { queue: queue.into(), ..Default::default() }
}

fn locked(queue: &str) -> String {
    format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be \
         originally declared on another connection or the exclusive property value does not match that of the \
         original declaration."
    )
}

// Declaring ------------------------------------------------------------------------------------------

#[test]
fn declare_ok_counts_ready_messages_and_consumers() {
    let broker = Broker::start();
    let (mut client, mut consumer) = (broker.client(), broker.client());
    let declared =
        |message_count, consumer_count| queue::DeclareOk { queue: "q".into(), message_count, consumer_count };

    assert_eq!(client.declare_queue(named("q")), declared(0, 0));
    client.publish("", "q", "one");
    client.publish("", "q", "two");
    assert_eq!(client.declare_queue(named("q")), declared(2, 0));
    consumer.qos(1, false);
    consumer.consume("q", "c");
    consumer.expect_delivery("one");
    assert_eq!(client.declare_queue(named("q")), declared(1, 1));
}

#[test]
fn a_queue_without_a_name_gets_one() {
    let broker = Broker::start();
    let mut client = broker.client();

    let one = client.declare_queue(named("")).queue;
    let two = client.declare_queue(named("")).queue;

    for name in [one.as_str(), two.as_str()] {
        let random = name.strip_prefix("amq.gen-").expect(name);
        assert_eq!(random.len(), 22);
        assert!(random.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{name}");
    }
    assert_ne!(one, two);
}

#[test]
fn the_empty_name_means_the_last_declared_queue_of_the_channel() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    client.declare("a");
    let generated = client.declare_queue(named("")).queue;
    client.bind("", "amq.fanout", "k");
    client.publish("amq.fanout", "", "m");

    client.get("", "m");
    client.counts("a");
    client.publish("", "a", "in a");
    client.get("", "in a");
    client.consume(generated.as_str(), "c");
    client.on(2).send(basic::Get { queue: "".into(), no_ack: true });

    let text = "NOT_FOUND - no previously declared queue";
    client.on(2).expect_error(ReplyCode::NotFound, text);
    client.declare("a");
    client.send(queue::Delete::default());
    client.expect(queue::DeleteOk { message_count: 0 });
    client.send(basic::Get::default());
    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no queue 'a' in vhost '/'");
}

#[test]
fn the_empty_name_without_a_declare_before_is_not_found() {
    let broker = Broker::start();
    let mut client = broker.client();
    let exchange = || "amq.direct".into();
    let methods = [
        basic::Consume::default().cold(),
        basic::Get::default().cold(),
        queue::Purge::default().cold(),
        queue::Delete::default().cold(),
        queue::Bind { exchange: exchange(), ..Default::default() }.cold(),
        queue::Unbind { exchange: exchange(), ..Default::default() }.cold(),
    ];

    for method in methods {
        client.send(method);

        client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no previously declared queue");
    }
}

#[test]
fn an_empty_key_with_an_empty_name_is_the_name_of_the_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.bind("", "amq.direct", "");

    client.publish("amq.direct", "q", "by the name");
    client.publish("amq.direct", "", "by the empty key");
    assert_eq!(client.drain("q"), ["by the name"]);
}

#[test]
fn the_same_declare_again_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();

    for (ttl, extra) in [(1000i64, "a"), (1000, "b")] {
        client.declare_queue(queue::Declare {
            durable: true,
            auto_delete: true,
            exclusive: true,
            arguments: arguments([("x-message-ttl", Value::Int(ttl)), ("x-mine", Value::text(extra))]),
            ..named("q")
        });
    }
}

#[test]
fn another_declare_of_the_same_name_is_refused_with_what_differs() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let ttl = |ms| arguments([("x-message-ttl", Value::Int(ms))]);
    client.declare_queue(queue::Declare { arguments: ttl(60_000), ..named("ttl") });
    let mut check = |declare: queue::Declare, difference: &str| {
        client.send(declare);
        client.expect_error(
            ReplyCode::PreconditionFailed,
            &format!("PRECONDITION_FAILED - inequivalent arg {difference}"),
        );
    };

    check(
        queue::Declare { durable: true, ..named("q") },
        "'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
    );
    check(
        queue::Declare { auto_delete: true, ..named("q") },
        "'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
    );
    check(
        queue::Declare { arguments: ttl(60_000), ..named("q") },
        "'x-message-ttl' for queue 'q' in vhost '/': received the value '60000' of type 'signedint' but current is none",
    );
    check(
        named("ttl"),
        "'x-message-ttl' for queue 'ttl' in vhost '/': received none but current is the value '60000' of type \
         'signedint'",
    );
    check(
        queue::Declare { arguments: ttl(1), ..named("ttl") },
        "'x-message-ttl' for queue 'ttl' in vhost '/': received '1' but current is '60000'",
    );
    check(
        queue::Declare { arguments: arguments([("x-queue-mode", Value::text("lazy"))]), ..named("q") },
        "'x-queue-mode' for queue 'q' in vhost '/': received the value 'lazy' of type 'longstr' but current is none",
    );
}

#[test]
fn a_classic_type_and_unknown_arguments_make_no_difference() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    for (name, value) in [("x-queue-type", Value::text("classic")), ("x-anything", Value::Int(1))] {
        client.declare_queue(queue::Declare { arguments: arguments([(name, value)]), ..named("q") });
    }
}

#[test]
fn a_passive_declare_looks_at_the_name_alone() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.declare_queue(queue::Declare {
        passive: true,
        durable: true,
        auto_delete: true,
        exclusive: true,
        arguments: arguments([("x-message-ttl", Value::text("nonsense"))]),
        ..named("q")
    });
    for nowait in [false, true] {
        client.send(queue::Declare { passive: true, nowait, ..named("missing") });
        client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no queue 'missing' in vhost '/'");
    }
    client.send(queue::Declare { passive: true, ..named("") });
    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no queue '' in vhost '/'");
}

#[test]
fn names_that_begin_with_amq_belong_to_the_broker() {
    let broker = Broker::start();
    let mut client = broker.client();
    let generated = client.declare_queue(queue::Declare { exclusive: true, ..named("") }).queue;

    for name in ["amq.mine", generated.as_str()] {
        client.send(queue::Declare { exclusive: true, ..named(name) });

        let text = format!("ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'");
        client.expect_error(ReplyCode::AccessRefused, &text);
    }
}

#[test]
fn a_name_may_have_255_bytes_and_a_reply_text_is_cut_to_as_many() {
    let broker = Broker::start();
    let mut client = broker.client();
    let name = "n".repeat(255);

    client.declare(&name);
    client.publish("", &name, "m");
    client.get(&name, "m");
    client.send(queue::Delete { queue: name.as_str().into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });
    client.send(queue::Declare { passive: true, ..named(&name) });

    let Cold::Channel(channel::AMQPMethod::Close(close)) = client.method() else { panic!("no close") };
    let text = close.reply_text.as_str();
    assert!(text.len() <= 255 && text.starts_with("NOT_FOUND - no queue 'nnnn"), "{text}");
}

#[test]
fn line_feeds_in_a_name_are_dropped() {
    let broker = Broker::start();
    let mut client = broker.client();

    let declared = client.declare_queue(named("a\r\nb"));

    assert_eq!(declared.queue.as_str(), "ab");
}

#[test]
fn nowait_is_answered_by_nothing() {
    let broker = Broker::start();
    let mut client = broker.client();
    let (queue, exchange) = ("q", "amq.direct");

    client.send(queue::Declare { nowait: true, ..named(queue) });
    client.send(queue::Declare { nowait: true, durable: true, ..named("durable") });
    client.send(queue::Bind {
        queue: queue.into(),
        exchange: exchange.into(),
        nowait: true,
        ..Default::default()
    });
    client.publish(exchange, "", "m");
    client.send(queue::Purge { queue: queue.into(), nowait: true });
    client.expect_nothing();
    assert_eq!(client.counts(queue), (0, 0));
    client.send(queue::Delete { queue: queue.into(), nowait: true, ..Default::default() });

    client.expect_nothing();
    assert!(!client.has_queue(queue));
}

// Binding --------------------------------------------------------------------------------------------

#[test]
fn a_binding_needs_its_queue_and_its_exchange() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let mut check = |queue: &str, exchange: &str, text: &str| {
        client.send(queue::Bind { queue: queue.into(), exchange: exchange.into(), ..Default::default() });
        client.expect_error(ReplyCode::NotFound, text);
    };

    check("q", "missing", "NOT_FOUND - no exchange 'missing' in vhost '/'");
    check("missing", "amq.direct", "NOT_FOUND - no queue 'missing' in vhost '/'");
    check("missing q", "missing x", "NOT_FOUND - no exchange 'missing x' in vhost '/'");
}

#[test]
fn unbinding_what_was_never_bound_or_is_not_there_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    for (queue, exchange) in [("q", "amq.direct"), ("q", "missing"), ("missing", "amq.direct")] {
        println!("{exchange} to {queue}");
        client.send(queue::Unbind { queue: queue.into(), exchange: exchange.into(), ..Default::default() });

        client.expect(queue::UnbindOk {});
    }
}

#[test]
fn the_same_binding_twice_is_one_and_arguments_make_another() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let unbind = queue::Unbind {
        queue: "q".into(),
        exchange: "amq.direct".into(),
        routing_key: "k".into(),
        ..Default::default()
    };
    client.bind("q", "amq.direct", "k");
    client.bind("q", "amq.direct", "k");
    client.publish("amq.direct", "k", "one");
    client.send(unbind.clone());
    client.expect(queue::UnbindOk {});
    client.publish("amq.direct", "k", "lost");

    client.bind_with("q", "amq.direct", "k", arguments([("a", Value::Int(1))]));
    client.send(unbind);
    client.expect(queue::UnbindOk {});
    client.publish("amq.direct", "k", "two");

    assert_eq!(client.drain("q"), ["one", "two"]);
}

// Exclusive and auto-delete --------------------------------------------------------------------------

#[test]
fn an_exclusive_queue_is_locked_for_other_connections() {
    let broker = Broker::start();
    let (mut owner, mut other) = (broker.client(), broker.client());
    owner.declare_queue(queue::Declare { exclusive: true, ..named("q") });
    owner.bind("q", "amq.direct", "k");
    let queue = || "q".into();
    let methods = [
        named("q").cold(),
        queue::Declare { exclusive: true, ..named("q") }.cold(),
        queue::Declare { passive: true, ..named("q") }.cold(),
        basic::Consume { queue: queue(), ..Default::default() }.cold(),
        basic::Get { queue: queue(), ..Default::default() }.cold(),
        queue::Purge { queue: queue(), ..Default::default() }.cold(),
        queue::Delete { queue: queue(), ..Default::default() }.cold(),
        queue::Bind { queue: queue(), exchange: "amq.fanout".into(), ..Default::default() }.cold(),
        queue::Unbind {
            queue: queue(),
            exchange: "amq.direct".into(),
            routing_key: "k".into(),
            ..Default::default()
        }
        .cold(),
    ];

    for method in methods {
        println!("{method:?}");
        other.send(method);

        other.expect_error(ReplyCode::ResourceLocked, &locked("q"));
    }
    other.publish("", "q", "anybody may publish to it");
    other.sync();
    owner.get("q", "anybody may publish to it");
}

#[test]
fn exclusiveness_is_not_changed_by_a_second_declare() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("shared");
    client.declare_queue(queue::Declare { exclusive: true, ..named("mine") });

    client.send(queue::Declare { exclusive: true, ..named("shared") });
    client.expect_error(ReplyCode::ResourceLocked, &locked("shared"));
    client.send(named("mine"));
    client.expect_error(ReplyCode::ResourceLocked, &locked("mine"));
}

#[test]
fn an_exclusive_queue_outlives_its_channel_and_not_its_connection() {
    let broker = Broker::start();
    let (mut owner, mut other) = (broker.client(), broker.client());
    owner.open_channel(2);
    owner.declare_queue(queue::Declare { exclusive: true, durable: true, ..named("q") });

    owner.close_channel();
    assert_eq!(owner.on(2).counts("q"), (0, 0));
    owner.close();

    assert!(!other.has_queue("q"));
    other.declare("q");
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_and_never_before_the_first() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.open_channel(2);
    let auto_delete = |name: &str| queue::Declare { auto_delete: true, ..named(name) };

    client.declare_queue(auto_delete("q"));
    client.expect_empty("q");
    client.consume("q", "a");
    client.consume("q", "b");
    client.cancel("a");
    assert_eq!(client.counts("q"), (0, 1));
    client.cancel("b");
    assert!(!client.has_queue("q"));

    client.on(2).declare_queue(auto_delete("q"));
    client.on(2).consume("q", "c");
    client.on(2).close_channel();
    assert!(!client.has_queue("q"));
}

#[test]
fn an_auto_delete_queue_goes_with_the_connection_of_its_last_consumer() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare_queue(queue::Declare { auto_delete: true, ..named("q") });
    client.consume("q", "c");

    drop(client);

    eventually("the queue is gone", || !other.has_queue("q"));
}

// Purging and deleting -------------------------------------------------------------------------------

#[test]
fn purge_takes_and_counts_what_is_ready_and_spares_what_is_out() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    for body in ["one", "two", "three"] {
        client.publish("", "q", body);
    }
    let tag = client.get("q", "one").tag();

    client.send(queue::Purge { queue: "q".into(), nowait: false });
    client.expect(queue::PurgeOk { message_count: 2 });
    client.send(queue::Purge { queue: "q".into(), nowait: false });
    client.expect(queue::PurgeOk { message_count: 0 });

    client.nack(tag, false, true);
    assert_eq!(client.drain("q"), ["one"]);
    client.send(queue::Purge { queue: "missing".into(), nowait: false });
    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no queue 'missing' in vhost '/'");
}

#[test]
fn delete_counts_what_is_ready_and_a_missing_queue_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    for body in ["one", "two", "three"] {
        client.publish("", "q", body);
    }
    let tag = client.get("q", "one").tag();

    client.send(queue::Delete { queue: "q".into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 2 });
    client.send(queue::Delete { queue: "q".into(), if_unused: true, if_empty: true, ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });

    client.ack(tag);
    client.expect_nothing();
    client.declare("q");
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn a_queue_takes_its_bindings_with_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.bind("q", "amq.direct", "k");

    client.send(queue::Delete { queue: "q".into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });
    client.declare("q");

    client.publish_mandatory("amq.direct", "k", "m");
    client.expect_return("amq.direct", "k", "m");
}

#[test]
fn delete_if_unused_and_if_empty_look_at_consumers_and_ready_messages() {
    let broker = Broker::start();
    let mut client = broker.client();
    let delete =
        |if_unused, if_empty| queue::Delete { queue: "q".into(), if_unused, if_empty, ..Default::default() };
    let in_use = "PRECONDITION_FAILED - queue 'q' in vhost '/' in use";
    let not_empty = "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty";
    client.open_channel(2);
    client.declare("q");
    client.publish("", "q", "one");

    client.send(delete(true, true));
    client.expect_error(ReplyCode::PreconditionFailed, not_empty);
    client.on(2).qos(1, false);
    client.on(2).consume("q", "c");
    client.on(2).expect_delivery("one");
    client.send(delete(true, false));
    client.expect_error(ReplyCode::PreconditionFailed, in_use);
    client.publish("", "q", "two");
    client.send(delete(true, true));
    client.expect_error(ReplyCode::PreconditionFailed, not_empty);
    client.send(queue::Purge { queue: "q".into(), nowait: false });
    client.expect(queue::PurgeOk { message_count: 1 });

    client.send(delete(false, true));
    client.expect(queue::DeleteOk { message_count: 0 });
}

// Arguments ------------------------------------------------------------------------------------------

#[test]
fn a_time_has_to_be_a_number_of_milliseconds() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut check = |argument: &str, value: Value, reason: &str| {
        client.send(queue::Declare { arguments: arguments([(argument, value)]), ..named("q") });
        let text =
            format!("PRECONDITION_FAILED - invalid arg '{argument}' for queue 'q' in vhost '/': {reason}");
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    };

    for argument in ["x-message-ttl", "x-expires"] {
        check(argument, Value::text("10"), "\"expected integer, got longstr\"");
        check(argument, Value::Float(1.5), "\"expected integer, got double\"");
        check(argument, Value::Bool(true), "\"expected integer, got bool\"");
        check(argument, Value::Void, "\"expected integer, got void\"");
        check(argument, Value::Table(Table::new()), "\"expected integer, got table\"");
        check(argument, Value::Int(-1), "{value_negative,-1}");
        check(argument, Value::Int(i64::MAX), "{value_too_large,9223372036854775807}");
    }
    check("x-expires", Value::Int(0), "{value_zero,0}");
}

#[test]
fn an_unknown_queue_type_is_refused() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(queue::Declare {
        arguments: arguments([("x-queue-type", Value::text("bogus"))]),
        ..named("q")
    });

    let text = "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"unsupported queue \
                type 'bogus'\"";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

// Time -----------------------------------------------------------------------------------------------

fn with_ttl(queue: &str, ms: i64) -> queue::Declare {
    queue::Declare { arguments: arguments([("x-message-ttl", Value::Int(ms))]), ..named(queue) }
}

#[test]
fn messages_expire_after_the_time_to_live_of_their_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_queue(with_ttl("q", 60_000));
    client.publish("", "q", "old");
    client.sync();
    broker.advance(Duration::from_secs(40));
    client.publish("", "q", "young");
    client.sync();
    assert_eq!(client.counts("q"), (2, 0));

    broker.advance(Duration::from_secs(30));

    eventually("the old one expires by itself", || client.counts("q") == (1, 0));
    client.get("q", "young");
}

#[test]
fn a_message_expires_after_its_own_time_or_the_queues_whichever_is_shorter() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("plain");
    client.declare_queue(with_ttl("limited", 60_000));
    client.publish_with("", "plain", &wire::expiration("30000"), "short");
    client.publish_with("", "plain", &wire::expiration("90000"), "long");
    client.publish_with("", "limited", &wire::expiration("30000"), "short");
    client.publish_with("", "limited", &wire::expiration("90000"), "cut to the queue's");
    client.sync();

    broker.advance(Duration::from_secs(31));
    eventually("the short one expires", || client.counts("plain") == (1, 0));
    eventually("the short one expires", || client.counts("limited") == (1, 0));
    broker.advance(Duration::from_secs(30));
    eventually("the queue's time is over", || client.counts("limited") == (0, 0));

    assert_eq!(client.drain("plain"), ["long"]);
}

#[test]
fn a_time_to_live_of_zero_is_for_consumers_that_wait() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.declare_queue(with_ttl("zero", 0));
    client.publish_with("", "q", &wire::expiration("0"), "lost");
    client.publish("", "zero", "lost");
    client.expect_empty("q");
    client.expect_empty("zero");

    client.consume("q", "c");
    client.publish_with("", "q", &wire::expiration("0"), "taken");

    client.expect_delivery("taken");
}

#[test]
fn a_delivered_message_does_not_expire_and_a_returned_one_does() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_queue(with_ttl("q", 60_000));
    client.publish("", "q", "m");
    let tag = client.get("q", "m").tag();

    broker.advance(Duration::from_secs(61));
    client.nack(tag, false, true);

    client.expect_empty("q");
}

#[test]
fn an_expired_message_is_not_delivered_to_a_consumer_that_comes_later() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish_with("", "q", &wire::expiration("1000"), "expired");
    client.publish("", "q", "kept");
    client.sync();

    broker.advance(Duration::from_secs(2));
    client.consume("q", "c");

    client.expect_delivery("kept");
}

#[test]
fn an_expiration_that_is_no_number_is_refused() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    for (expiration, reason) in [
        ("", "no_integer"),
        ("abc", "no_integer"),
        (" 10", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("10x", "{leftover_string,\"x\"}"),
        ("1.5", "{leftover_string,\".5\"}"),
    ] {
        client.publish_with("", "q", &wire::expiration(expiration), "m");

        let text = format!("PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}");
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    }
    for expiration in ["+5", "007", "315360000000"] {
        client.publish_with("", "q", &wire::expiration(expiration), "m");
    }
    client.expect_nothing();
}

#[test]
fn an_unused_queue_expires() {
    let broker = Broker::start();
    let mut client = broker.client();
    let expires =
        || queue::Declare { arguments: arguments([("x-expires", Value::Int(60_000))]), ..named("q") };
    client.declare_queue(expires());
    client.publish("", "q", "m");
    client.sync();

    broker.advance(Duration::from_secs(61));

    client.confirm();
    eventually("the queue is gone", || !is_reached(&mut client, "q"));
    assert!(!client.has_queue("q"));
}

/// Whether a message reaches the queue, on a channel in confirm mode. Unlike a look at it, that does not
/// count as a use.
fn is_reached(client: &mut Client, queue: &str) -> bool {
    client.publish_mandatory("", queue, "m");
    let is_returned = matches!(client.event(), Event::Message(_));
    if is_returned {
        client.event();
    }
    !is_returned
}

#[test]
fn a_queue_in_use_does_not_expire() {
    let broker = Broker::start();
    let mut client = broker.client();
    let expires =
        || queue::Declare { arguments: arguments([("x-expires", Value::Int(60_000))]), ..named("q") };
    client.declare_queue(expires());
    let forty = Duration::from_secs(40);

    client.consume("q", "c");
    broker.advance(2 * forty);
    client.cancel("c");
    broker.advance(forty);
    client.declare_queue(expires());
    broker.advance(forty);
    client.expect_empty("q");
    broker.advance(forty);
    assert_eq!(client.counts("q"), (0, 0));

    broker.advance(2 * forty);
    client.confirm();
    eventually("nobody has used it", || !is_reached(&mut client, "q"));
}

// Permissions ----------------------------------------------------------------------------------------

#[test]
fn queues_are_configured_written_and_read_by_those_who_may() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("limited", "secret", &[])];
        config.seed.permissions = vec![permission("limited", "/", ["^(ok|c)", "^(ok|w)", "^(ok|r)"])];
    });
    let mut client = broker.client_as(&Login::of("limited", "secret"));
    broker.client().declare("q");
    client.exchange("ok", "fanout");
    client.declare("ok");
    let queue = |name: &str| name.into();
    let methods = |name: &str| {
        [
            named(name).cold(),
            queue::Declare { durable: true, ..named(name) }.cold(),
            queue::Delete { queue: queue(name), ..Default::default() }.cold(),
            queue::Purge { queue: queue(name), ..Default::default() }.cold(),
            basic::Get { queue: queue(name), ..Default::default() }.cold(),
            basic::Consume { queue: queue(name), ..Default::default() }.cold(),
        ]
    };
    let mut check = |method: Cold, name: &str| {
        println!("{method:?}");
        client.send(method);
        let text =
            format!("ACCESS_REFUSED - access to queue '{name}' in vhost '/' refused for user 'limited'");
        client.expect_error(ReplyCode::AccessRefused, &text);
    };

    for method in methods("q") {
        check(method, "q");
    }
    for method in methods("missing") {
        check(method, "missing");
    }
    check(queue::Bind { queue: "q".into(), exchange: "ok".into(), ..Default::default() }.cold(), "q");
    check(queue::Unbind { queue: "q".into(), exchange: "ok".into(), ..Default::default() }.cold(), "q");
    assert_eq!(client.counts("q"), (0, 0), "a passive declare needs no permission");
}

#[test]
fn a_generated_name_needs_permission_like_any_other() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("limited", "secret", &[])];
        config.seed.permissions = vec![permission("limited", "/", ["^ok", ".*", ".*"])];
    });
    let mut client = broker.client_as(&Login::of("limited", "secret"));

    client.send(queue::Declare { exclusive: true, ..named("") });

    let Cold::Channel(channel::AMQPMethod::Close(close)) = client.method() else { panic!("no close") };
    let text = close.reply_text.as_str();
    assert!(text.starts_with("ACCESS_REFUSED - access to queue 'amq.gen-"), "{text}");
    assert!(text.ends_with("' in vhost '/' refused for user 'limited'"), "{text}");
}

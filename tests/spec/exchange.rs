//! The exchange class: declaring, deleting, bindings between exchanges, and where a message goes.

use crate::support::wire;
use crate::support::*;

fn named(exchange: &str, kind: &str) -> exchange::Declare {
    exchange::Declare { exchange: exchange.into(), kind: kind.into(), ..Default::default() }
}

const DEFAULT: &str = "ACCESS_REFUSED - operation not permitted on the default exchange";

// Declaring ------------------------------------------------------------------------------------------

#[test]
fn every_vhost_has_the_exchanges_that_clients_count_on() {
    let broker = Broker::start();
    let mut client = broker.client();

    for (name, kind) in [
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ] {
        client.declare_exchange(exchange::Declare { durable: true, ..named(name, kind) });
    }
    assert!(client.has_exchange("amq.rabbitmq.trace"));
}

#[test]
fn an_unknown_type_is_an_error_of_the_connection() {
    let broker = Broker::start();
    let check = |kind: &str, text: &str| {
        let mut client = broker.client();
        client.send(named("x", kind));
        client.expect_connection_close(ReplyCode::CommandInvalid, text);
    };

    check("nonsense", "COMMAND_INVALID - unknown exchange type 'nonsense'");
    check("Direct", "COMMAND_INVALID - unknown exchange type 'Direct'");
    check("x-nonsense", "COMMAND_INVALID - unknown exchange type 'x-nonsense'");
    check("", "COMMAND_INVALID - invalid exchange type ''");
}

#[test]
fn the_same_declare_again_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();

    for _ in 0..2 {
        client.declare_exchange(exchange::Declare {
            durable: true,
            auto_delete: true,
            internal: true,
            arguments: arguments([("alternate-exchange", Value::text("a")), ("x-anything", Value::Int(1))]),
            ..named("x", "topic")
        });
    }
}

#[test]
fn another_declare_of_the_same_name_is_refused_with_what_differs() {
    let broker = Broker::start();
    let mut client = broker.client();
    let alternate = || arguments([("alternate-exchange", Value::text("a"))]);
    client.exchange("x", "direct");
    client.declare_exchange(exchange::Declare { arguments: alternate(), ..named("y", "direct") });
    let mut check = |declare: exchange::Declare, difference: &str| {
        client.send(declare);
        client.expect_error(ReplyCode::PreconditionFailed, &format!("PRECONDITION_FAILED - {difference}"));
    };

    check(
        named("x", "fanout"),
        "inequivalent arg 'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'direct'",
    );
    check(
        exchange::Declare { durable: true, ..named("x", "direct") },
        "inequivalent arg 'durable' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
    );
    check(
        exchange::Declare { auto_delete: true, ..named("x", "direct") },
        "inequivalent arg 'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
    );
    check(
        exchange::Declare { internal: true, ..named("x", "direct") },
        "inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
    );
    check(
        exchange::Declare { arguments: alternate(), ..named("x", "direct") },
        "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': received the value 'a' of type \
         'longstr' but current is none",
    );
    check(
        named("y", "direct"),
        "inequivalent arg 'alternate-exchange' for exchange 'y' in vhost '/': received none but current is the \
         value 'a' of type 'longstr'",
    );
    check(
        exchange::Declare {
            arguments: arguments([("alternate-exchange", Value::text("b"))]),
            ..named("y", "direct")
        },
        "inequivalent arg 'alternate-exchange' for exchange 'y' in vhost '/': received 'b' but current is 'a'",
    );
    check(
        named("amq.direct", "direct"),
        "inequivalent arg 'durable' for exchange 'amq.direct' in vhost '/': received 'false' but current is 'true'",
    );
}

#[test]
fn a_passive_declare_looks_at_the_name_alone() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "direct");

    client.declare_exchange(exchange::Declare {
        passive: true,
        durable: true,
        internal: true,
        arguments: arguments([("alternate-exchange", Value::text("a"))]),
        ..named("x", "nonsense")
    });
    client.send(exchange::Declare { passive: true, ..named("missing", "direct") });

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'missing' in vhost '/'");
}

#[test]
fn names_that_begin_with_amq_belong_to_the_broker() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(named("amq.mine", "direct"));
    let text = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'";
    client.expect_error(ReplyCode::AccessRefused, text);

    for name in ["amq.direct", "amq.missing"] {
        client.send(exchange::Delete { exchange: name.into(), ..Default::default() });
        let text = format!("ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed");
        client.expect_error(ReplyCode::AccessRefused, &text);
    }
}

#[test]
fn the_default_exchange_cannot_be_declared_deleted_or_bound() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.exchange("x", "fanout");
    let exchange_bind = |destination: &str, source: &str| exchange::Bind {
        destination: destination.into(),
        source: source.into(),
        ..Default::default()
    };
    let methods = [
        named("", "direct").cold(),
        exchange::Declare { passive: true, ..named("", "direct") }.cold(),
        exchange::Delete::default().cold(),
        queue::Bind { queue: "q".into(), routing_key: "k".into(), ..Default::default() }.cold(),
        queue::Unbind { queue: "q".into(), routing_key: "k".into(), ..Default::default() }.cold(),
        exchange_bind("x", "").cold(),
        exchange_bind("", "x").cold(),
    ];

    for method in methods {
        println!("{method:?}");
        client.send(method);

        client.expect_error(ReplyCode::AccessRefused, DEFAULT);
    }
}

#[test]
fn a_name_may_have_255_bytes() {
    let broker = Broker::start();
    let mut client = broker.client();
    let name = "n".repeat(255);

    client.exchange(&name, "fanout");

    assert!(client.has_exchange(&name));
}

#[test]
fn line_feeds_in_a_name_are_dropped() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.exchange("a\r\nb", "fanout");

    assert!(client.has_exchange("ab"));
}

#[test]
fn an_alternate_exchange_is_named_by_a_string() {
    let broker = Broker::start();
    let mut client = broker.client();

    let arguments = arguments([("alternate-exchange", Value::Int(1))]);
    client.send(exchange::Declare { arguments, ..named("x", "direct") });

    let text = "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

#[test]
fn nowait_is_answered_by_nothing() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(exchange::Declare { nowait: true, ..named("x", "fanout") });
    client.send(exchange::Declare { nowait: true, durable: true, ..named("y", "fanout") });
    client.send(exchange::Bind {
        destination: "y".into(),
        source: "x".into(),
        nowait: true,
        ..Default::default()
    });
    client.send(exchange::Delete { exchange: "x".into(), nowait: true, ..Default::default() });

    client.expect_nothing();
    assert!(!client.has_exchange("x"));
    assert!(client.has_exchange("y"));
}

// Deleting -------------------------------------------------------------------------------------------

#[test]
fn deleting_what_is_not_there_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.send(exchange::Delete { exchange: "missing".into(), ..Default::default() });

    client.expect(exchange::DeleteOk {});
}

#[test]
fn deleting_if_unused_spares_an_exchange_with_bindings_and_not_one_that_is_only_bound_to() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("source", "fanout");
    client.exchange("destination", "fanout");
    client.bind_exchange("destination", "source", "");
    let delete =
        |name: &str| exchange::Delete { exchange: name.into(), if_unused: true, ..Default::default() };

    client.send(delete("source"));
    client.expect_error(
        ReplyCode::PreconditionFailed,
        "PRECONDITION_FAILED - exchange 'source' in vhost '/' in use",
    );

    client.send(delete("destination"));
    client.expect(exchange::DeleteOk {});
    client.send(delete("source"));
    client.expect(exchange::DeleteOk {});
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding_and_never_before_the_first() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_exchange(exchange::Declare { auto_delete: true, ..named("x", "direct") });
    client.declare("q");
    assert!(client.has_exchange("x"));
    client.bind("q", "x", "a");
    client.bind("q", "x", "b");
    let unbind = |key: &str| queue::Unbind {
        queue: "q".into(),
        exchange: "x".into(),
        routing_key: key.into(),
        ..Default::default()
    };

    client.send(unbind("a"));
    client.expect(queue::UnbindOk {});
    assert!(client.has_exchange("x"));
    client.send(unbind("b"));
    client.expect(queue::UnbindOk {});

    assert!(!client.has_exchange("x"));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_queue_and_takes_others_along() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_exchange(exchange::Declare { auto_delete: true, ..named("first", "fanout") });
    client.declare_exchange(exchange::Declare { auto_delete: true, ..named("second", "fanout") });
    client.declare("q");
    client.bind_exchange("second", "first", "");
    client.bind("q", "second", "");

    client.send(queue::Delete { queue: "q".into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });

    assert!(!client.has_exchange("second"));
    assert!(!client.has_exchange("first"));
}

// Bindings between exchanges -------------------------------------------------------------------------

#[test]
fn a_binding_of_exchanges_needs_both_of_them() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "fanout");
    let bind = |destination: &str, source: &str| exchange::Bind {
        destination: destination.into(),
        source: source.into(),
        ..Default::default()
    };

    for (destination, source) in [("x", "missing"), ("missing", "x")] {
        client.send(bind(destination, source));

        client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'missing' in vhost '/'");
    }
}

#[test]
fn unbinding_what_was_never_bound_or_is_not_there_is_fine() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "fanout");
    client.exchange("y", "fanout");

    for (destination, source) in [("x", "y"), ("x", "missing"), ("missing", "x")] {
        println!("{source} to {destination}");
        client.send(exchange::Unbind {
            destination: destination.into(),
            source: source.into(),
            ..Default::default()
        });

        client.expect(exchange::UnbindOk {});
    }
}

#[test]
fn a_message_goes_through_bound_exchanges_by_the_rules_of_each() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("first", "topic");
    client.declare_exchange(exchange::Declare { internal: true, ..named("second", "direct") });
    client.declare("q");
    client.bind_exchange("second", "first", "a.#");
    client.bind("q", "second", "a.b");

    for key in ["a.b", "a.c", "b.b"] {
        client.publish("first", key, key);
    }

    let got = client.get("q", "a.b");
    assert_eq!((got.exchange(), got.routing_key(), got.remaining()), ("first", "a.b", 0));
}

#[test]
fn a_binding_of_exchanges_can_be_taken_away() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "fanout");
    client.exchange("y", "fanout");
    client.declare("q");
    client.bind_exchange("y", "x", "");
    client.bind("q", "y", "");

    client.send(exchange::Unbind { destination: "y".into(), source: "x".into(), ..Default::default() });
    client.expect(exchange::UnbindOk {});

    client.publish("x", "", "m");
    client.expect_empty("q");
}

#[test]
fn a_circle_of_exchanges_brings_each_queue_one_copy() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "fanout");
    client.exchange("y", "fanout");
    client.bind_exchange("x", "y", "");
    client.bind_exchange("y", "x", "");
    for queue in ["a", "b"] {
        client.declare(queue);
    }
    client.bind("a", "x", "");
    client.bind("b", "y", "");

    client.publish("x", "", "m");

    assert_eq!(client.drain("a"), ["m"]);
    assert_eq!(client.drain("b"), ["m"]);
}

#[test]
fn clients_cannot_publish_to_an_internal_exchange() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_exchange(exchange::Declare { internal: true, ..named("x", "fanout") });

    client.publish("x", "", "m");

    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'";
    client.expect_error(ReplyCode::AccessRefused, text);
}

// Where a message goes -------------------------------------------------------------------------------

/// Binds a queue to `amq.<kind>` with a key each, publishes with the keys, and says which arrived.
fn arrived(client: &mut Client, exchange: &str, bound: &str, published: &[&str]) -> Vec<String> {
    client.declare("arrived");
    client.bind("arrived", exchange, bound);
    published.iter().for_each(|key| client.publish(exchange, key, key));
    let arrived = client.drain("arrived");
    client.send(queue::Delete { queue: "arrived".into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });
    arrived
}

#[test]
fn a_direct_exchange_takes_the_key_to_the_letter_and_a_fanout_ignores_it() {
    let broker = Broker::start();
    let mut client = broker.client();

    assert_eq!(arrived(&mut client, "amq.direct", "a.*", &["a.*", "a.b", "A.*", ""]), ["a.*"]);
    assert_eq!(arrived(&mut client, "amq.direct", "", &["", "a"]), [""]);
    assert_eq!(arrived(&mut client, "amq.fanout", "a", &["a", "b", ""]), ["a", "b", ""]);
}

#[test]
fn a_topic_exchange_matches_words() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut check = |bound: &str, published: &[&str], expected: &[&str]| {
        assert_eq!(arrived(&mut client, "amq.topic", bound, published), expected, "bound with '{bound}'");
    };

    check("a.*", &["a.b", "a", "a.", "a.b.c"], &["a.b", "a."]);
    check("a.#", &["a", "a.b", "a.b.c", "b", "a."], &["a", "a.b", "a.b.c", "a."]);
    check("#.a", &["a", "b.a", "c.b.a", "a.b"], &["a", "b.a", "c.b.a"]);
    check("#", &["", "a", "a.b", "."], &["", "a", "a.b", "."]);
    check("*", &["a", "", "a.b"], &["a"]);
    check("", &["", "a"], &[""]);
    check("a..b", &["a..b", "a.b", "a.c.b"], &["a..b"]);
    check("a.*.b", &["a..b", "a.c.b", "a.b"], &["a..b", "a.c.b"]);
    check("#.#", &["", "a", "a.b"], &["", "a", "a.b"]);
}

#[test]
fn a_headers_exchange_matches_headers() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut check = |bound: &[(&str, Value)], sent: &[(&str, Value)], expected: bool| {
        client.declare("q");
        let table = Table::from_iter(bound.iter().cloned());
        client.bind_with("q", "amq.headers", "", (&table).into());
        let headers = wire::headers(&Table::from_iter(sent.iter().cloned()));
        client.publish_with("amq.headers", "", &headers, "m");
        let got = client.drain("q").len() == 1;
        assert_eq!(got, expected, "bound with {bound:?}, sent {sent:?}");
        client.send(queue::Delete { queue: "q".into(), ..Default::default() });
        client.expect(queue::DeleteOk { message_count: 0 });
    };
    let text = |t: &str| Value::text(t);
    let (one, x) = (Value::Int(1), text("x"));
    let all = [("x-match", text("all")), ("a", one.clone()), ("b", x.clone())];
    let any = [("x-match", text("any")), ("a", one.clone()), ("b", x.clone())];

    check(&all, &[("a", one.clone()), ("b", x.clone())], true);
    check(&all, &[("a", one.clone()), ("b", x.clone()), ("c", one.clone())], true);
    check(&all, &[("a", one.clone())], false);
    check(&all, &[("a", text("1")), ("b", x.clone())], false);
    check(&all, &[], false);
    check(&any, &[("a", one.clone())], true);
    check(&any, &[("a", Value::Int(2)), ("b", text("y"))], false);
    check(&[("a", one.clone())], &[("a", one.clone())], true);
    check(&[("x-match", text("all"))], &[], true);
    check(&[("x-match", text("any"))], &[("a", one.clone())], false);
    check(&[("x-match", text("all")), ("a", Value::Void)], &[("a", one.clone())], true);
    check(&[("x-match", text("all")), ("x-a", one.clone()), ("b", x.clone())], &[("b", x.clone())], true);
    check(&[("x-match", text("all-with-x")), ("x-a", one.clone())], &[("x-a", Value::Int(2))], false);
    check(&[("x-match", text("all-with-x")), ("x-a", one.clone())], &[("x-a", one.clone())], true);
    check(&[("x-match", text("any-with-x")), ("x-a", one.clone())], &[("x-a", one.clone())], true);
    for mode in ["none", "not-any"] {
        let none = [("x-match", text(mode)), ("a", one.clone()), ("b", x.clone())];
        check(&none, &[], true);
        check(&none, &[("a", Value::Int(2)), ("c", one.clone())], true);
        check(&none, &[("a", Value::Int(2)), ("b", x.clone())], false);
        check(&[("x-match", text(mode)), ("x-a", one.clone())], &[("x-a", one.clone())], true);
    }
}

#[test]
fn a_headers_binding_with_a_nonsense_x_match_is_refused() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    let mut check = |value: Value, text: &str| {
        client.send(queue::Bind {
            queue: "q".into(),
            exchange: "amq.headers".into(),
            arguments: arguments([("x-match", value)]),
            ..Default::default()
        });
        client.expect_error(ReplyCode::PreconditionFailed, text);
    };

    check(
        Value::text("nonsense"),
        "PRECONDITION_FAILED - Invalid x-match field value <<\"nonsense\">>; expected all, any, all-with-x, or \
         any-with-x",
    );
    check(
        Value::Int(1),
        "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr",
    );
}

#[test]
fn a_message_reaches_a_queue_once_however_many_bindings_match() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "topic");
    client.exchange("y", "fanout");
    client.declare("q");
    for key in ["a.b", "a.*", "#", "a.#"] {
        client.bind("q", "x", key);
    }
    client.bind_exchange("y", "x", "#");
    client.bind("q", "y", "");

    client.publish("x", "a.b", "m");

    assert_eq!(client.drain("q"), ["m"]);
}

#[test]
fn the_default_exchange_leads_to_the_queue_of_the_name() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    client.publish("", "q", "m");
    client.publish("", "Q", "lost");

    let got = client.get("q", "m");
    assert_eq!((got.exchange(), got.routing_key(), got.remaining()), ("", "q", 0));
}

#[test]
fn an_alternate_exchange_takes_what_nothing_matched() {
    let broker = Broker::start();
    let mut client = broker.client();
    for queue in ["matched", "rest"] {
        client.declare(queue);
    }
    client.exchange("last", "fanout");
    let to = |name: &str| arguments([("alternate-exchange", Value::text(name))]);
    client.declare_exchange(exchange::Declare { arguments: to("last"), ..named("middle", "direct") });
    client.declare_exchange(exchange::Declare { arguments: to("middle"), ..named("first", "direct") });
    client.bind("matched", "first", "k");
    client.bind("rest", "last", "");

    client.publish_mandatory("first", "k", "matched");
    client.publish_mandatory("first", "other", "not matched");
    client.expect_nothing();

    assert_eq!(client.drain("matched"), ["matched"]);
    let got = client.get("rest", "not matched");
    assert_eq!((got.exchange(), got.routing_key(), got.remaining()), ("first", "other", 0));
}

#[test]
fn an_alternate_exchange_that_is_not_there_takes_nothing() {
    let broker = Broker::start();
    let mut client = broker.client();
    let arguments = arguments([("alternate-exchange", Value::text("missing"))]);
    client.declare_exchange(exchange::Declare { arguments, ..named("x", "direct") });

    client.publish_mandatory("x", "k", "m");

    client.expect_return("x", "k", "m");
}

#[test]
fn alternates_in_a_circle_end() {
    let broker = Broker::start();
    let mut client = broker.client();
    let to = |name: &str| arguments([("alternate-exchange", Value::text(name))]);
    client.declare_exchange(exchange::Declare { arguments: to("y"), ..named("x", "direct") });
    client.declare_exchange(exchange::Declare { arguments: to("x"), ..named("y", "direct") });

    client.publish_mandatory("x", "k", "m");

    client.expect_return("x", "k", "m");
}

#[test]
fn cc_and_bcc_are_more_keys_and_bcc_is_not_shown() {
    let broker = Broker::start();
    let mut client = broker.client();
    for queue in ["to", "cc", "bcc"] {
        client.declare(queue);
    }
    let keys = |key: &str| Value::Array(vec![Value::text(key)]);

    let headers = Table::from_iter([("CC", keys("cc")), ("BCC", keys("bcc")), ("z", Value::Int(1))]);
    client.publish_with("", "to", &wire::headers(&headers), "m");
    client.sync();

    for queue in ["to", "cc", "bcc"] {
        let got = client.get(queue, "m");
        let shown = amqp::Properties::parse(&got.properties).unwrap().header_table();
        assert_eq!(got.routing_key(), "to");
        assert_eq!(shown, Table::from_iter([("CC", keys("cc")), ("z", Value::Int(1))]));
    }
}

// Exchanges that pick one ----------------------------------------------------------------------------

/// An exchange of that kind.
fn declare_with(client: &mut Client, name: &str, kind: &str, table: &[(&str, Value)]) {
    let arguments = (&Table::from_iter(table.iter().cloned())).into();
    client.declare_exchange(exchange::Declare { arguments, ..named(name, kind) });
}

/// Declares an exchange of that kind, and expects to be refused.
#[track_caller]
fn check_refused(client: &mut Client, kind: &str, table: &[(&str, Value)], text: &str) {
    let arguments = (&Table::from_iter(table.iter().cloned())).into();
    client.send(exchange::Declare { arguments, ..named("refused", kind) });
    client.expect_error(ReplyCode::PreconditionFailed, &format!("PRECONDITION_FAILED - {text}"));
}

/// Binds a queue, and expects to be refused.
#[track_caller]
fn check_unbindable(client: &mut Client, exchange: &str, routing_key: &str, text: &str) {
    client.send(queue::Bind {
        queue: "q".into(),
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        ..Default::default()
    });
    client.expect_error(ReplyCode::PreconditionFailed, &format!("PRECONDITION_FAILED - {text}"));
}

/// Publishes so many messages, each with a key and a body that is its number; what each queue got.
fn shared_out(client: &mut Client, exchange: &str, queues: &[&str], messages: usize) -> Vec<Vec<String>> {
    (0..messages).for_each(|number| client.publish(exchange, &number.to_string(), number.to_string()));
    queues.iter().map(|queue| client.drain(queue)).collect()
}

/// `message-id`, or `correlation-id` and nothing else.
fn property(flags: [u8; 2], text: &str) -> Vec<u8> {
    [flags.to_vec(), wire::short(text)].concat()
}

#[test]
fn a_consistent_hash_exchange_shares_keys_out_by_weight_and_keeps_each_with_its_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    for algorithm in ["jump", "ring"] {
        declare_with(&mut client, algorithm, "x-consistent-hash", &[("x-algorithm", Value::text(algorithm))]);
        for (queue, weight) in [("a", "10"), ("b", "20"), ("c", "30")] {
            client.declare(queue);
            client.bind(queue, algorithm, weight);
        }

        let first = shared_out(&mut client, algorithm, &["a", "b", "c"], 600);
        let again = shared_out(&mut client, algorithm, &["a", "b", "c"], 600);

        assert_eq!(first.iter().map(Vec::len).sum::<usize>(), 600);
        for (queue, expected) in first.iter().zip([100, 200, 300]) {
            assert!(queue.len().abs_diff(expected) < 60, "{algorithm}: {} of {expected}", queue.len());
        }
        assert_eq!(first, again);
    }
}

#[test]
fn a_consistent_hash_exchange_moves_only_the_keys_of_a_queue_that_comes_or_goes() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "x-consistent-hash");
    for queue in ["a", "b", "c"] {
        client.declare(queue);
        client.bind(queue, "x", "1");
    }
    let with_all = shared_out(&mut client, "x", &["a", "b", "c"], 300);

    client.send(queue::Delete { queue: "b".into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });
    let without = shared_out(&mut client, "x", &["a", "c"], 300);

    for (with, without) in [(&with_all[0], &without[0]), (&with_all[2], &without[1])] {
        assert!(with.iter().all(|key| without.contains(key)));
    }
    client.declare("b");
    client.bind("b", "x", "1");
    assert_eq!(shared_out(&mut client, "x", &["a", "b", "c"], 300), with_all);
}

#[test]
fn a_consistent_hash_exchange_keeps_keys_with_their_queues_over_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    let queues = ["d", "a", "e", "b", "c"];
    client.declare_exchange(exchange::Declare { durable: true, ..named("x", "x-consistent-hash") });
    for queue in queues {
        client.declare_durable(queue);
        client.bind(queue, "x", "3");
    }
    let before = shared_out(&mut client, "x", &queues, 200);

    broker.restart();

    assert_eq!(shared_out(&mut broker.client(), "x", &queues, 200), before);
}

#[test]
fn a_consistent_hash_exchange_hashes_the_header_or_property_that_it_is_told() {
    let broker = Broker::start();
    let mut client = broker.client();
    let header = |n: usize| wire::headers(&Table::from_iter([("session", Value::Int(n as i64))]));
    let text = |text: &str| Value::text(text);
    let mut check = |name: &str, value: &str, properties: &dyn Fn(usize) -> Vec<u8>| {
        declare_with(&mut client, value, "x-consistent-hash", &[(name, text(value))]);
        for queue in ["a", "b"] {
            client.declare(queue);
            client.bind(queue, value, "1");
        }
        let mut publish = |key: &str| -> [usize; 2] {
            (0..60).for_each(|n| client.publish_with(value, key, &properties(n), "m"));
            ["a", "b"].map(|queue| client.drain(queue).len())
        };
        let first = publish("one key");
        assert!(first.iter().all(|&messages| messages > 10), "{name} {value}: {first:?}");
        assert_eq!(publish("another key"), first);
        client.send(exchange::Delete { exchange: value.into(), ..Default::default() });
        client.expect(exchange::DeleteOk {});
    };

    check("hash-header", "session", &header);
    check("x-hash-on", "session", &header);
    check("hash-property", "message_id", &|n| property([0, 0x80], &n.to_string()));
    check("hash-property", "correlation_id", &|n| property([0x04, 0], &n.to_string()));
    check("hash-property", "timestamp", &|n| [&[0, 0x40][..], &(n as u64).to_be_bytes()].concat());
}

#[test]
fn messages_without_what_is_hashed_all_go_to_one_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    declare_with(&mut client, "x", "x-consistent-hash", &[("hash-header", Value::text("h"))]);
    for queue in ["a", "b", "c"] {
        client.declare(queue);
        client.bind(queue, "x", "1");
    }

    let mut got: Vec<usize> =
        shared_out(&mut client, "x", &["a", "b", "c"], 30).iter().map(Vec::len).collect();

    got.sort_unstable();
    assert_eq!(got, [0, 0, 30]);
}

#[test]
fn a_consistent_hash_exchange_refuses_what_makes_no_sense() {
    let broker = Broker::start();
    let mut client = broker.client();
    let text = |text: &str| Value::text(text);
    client.declare("q");
    client.exchange("x", "x-consistent-hash");
    let mut check = |table: &[(&str, Value)], reason: &str| {
        check_refused(&mut client, "x-consistent-hash", table, reason);
    };
    check(
        &[("hash-header", text("h")), ("hash-property", text("message_id"))],
        "hash-header and hash-property are mutually exclusive",
    );
    check(&[("hash-property", text("nonsense"))], "Unsupported property: nonsense");
    check(
        &[("hash-header", Value::Int(1))],
        "Invalid hash-header field type signedint (value 1); expected longstr",
    );
    check(
        &[("x-algorithm", text("dice"))],
        "Invalid x-algorithm field value <<\"dice\">>; expected ring or jump",
    );

    let mut check = |key: &str, reason: &str| check_unbindable(&mut client, "x", key, reason);
    check("", "The binding key must be an integer: <<>>");
    check("a\"b", "The binding key must be an integer: <<\"a\\\"b\">>");
    check("1.5", "The binding key must be an integer: <<\"1.5\">>");
    check("ł", "The binding key must be an integer: <<197,130>>");
    check("0", "The binding key must be greater than 0");
    check("-1", "The binding key must be greater than 0");
    check("4294967296", "The binding key must be at most 4294967295");
}

#[test]
fn a_modulus_hash_exchange_sends_a_key_to_one_queue_always() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("x", "x-modulus-hash");
    for queue in ["a", "b", "c"] {
        client.declare(queue);
        client.bind(queue, "x", "");
    }

    let first = shared_out(&mut client, "x", &["a", "b", "c"], 300);

    assert_eq!(first.iter().map(Vec::len).sum::<usize>(), 300);
    assert!(first.iter().all(|keys| keys.len() > 60));
    assert_eq!(shared_out(&mut client, "x", &["a", "b", "c"], 300), first);
}

#[test]
fn a_random_exchange_sends_each_message_to_one_queue_whatever_its_key() {
    let broker = Broker::start();
    let mut client = broker.client();
    for (exchange, kind) in [("x", "x-random"), ("y", "x-local-random")] {
        client.exchange(exchange, kind);
        for queue in ["a", "b"] {
            client.declare(queue);
            client.bind(queue, exchange, "");
        }

        (0..300).for_each(|_| client.publish(exchange, "the same", "m"));
        let got = ["a", "b"].map(|queue| client.drain(queue).len());

        assert_eq!(got[0] + got[1], 300);
        // Nine standard deviations.
        assert!(got[0].abs_diff(150) < 78, "{kind}: {got:?}");
    }
}

#[test]
fn a_local_random_exchange_is_bound_to_queues_without_a_key() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.exchange("x", "x-local-random");
    client.exchange("y", "fanout");

    check_unbindable(&mut client, "x", "k", "Non empty binding 'k' key not permitted");
    client.send(exchange::Bind { destination: "y".into(), source: "x".into(), ..Default::default() });

    client.expect_error(ReplyCode::PreconditionFailed, "PRECONDITION_FAILED - Destination not found");
}

#[test]
fn an_exchange_that_picks_one_passes_on_to_its_alternate_what_it_has_no_queue_for() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    for kind in ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"] {
        declare_with(&mut client, kind, kind, &[("alternate-exchange", Value::text("amq.fanout"))]);
    }
    client.bind("q", "amq.fanout", "");

    for kind in ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"] {
        client.publish(kind, "k", kind);
        assert_eq!(client.drain("q"), [kind]);
    }
}

// Exchanges that the broker has more to do with ------------------------------------------------------

#[test]
fn a_recent_history_exchange_sends_everything_to_everyone() {
    let broker = Broker::start();
    let mut client = broker.client();
    declare_with(&mut client, "x", "x-recent-history", &[("x-recent-history-length", Value::Int(5))]);
    for queue in ["a", "b"] {
        client.declare(queue);
        client.bind(queue, "x", queue);
    }

    client.publish("x", "k", "m");

    assert_eq!((client.drain("a"), client.drain("b")), (vec!["m".into()], vec!["m".into()]));
}

#[test]
fn the_length_of_a_recent_history_is_a_whole_number_above_zero() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut check = |value: Value, printed: &str| {
        let text =
            format!("Invalid argument {printed}, 'x-recent-history-length' must be a positive integer");
        check_refused(&mut client, "x-recent-history", &[("x-recent-history-length", value)], &text);
    };

    check(Value::Int(0), "0");
    check(Value::Int(-1), "-1");
    check(Value::text("5"), "<<\"5\">>");
    check(Value::Bool(true), "true");
    check(Value::Void, "undefined");
    check(Value::Array(vec![Value::Int(1)]), "[{signedint,1}]");
    check(Value::Bytes(vec![255, 0]), "<<255,0>>");
}

#[test]
fn a_delayed_message_exchange_routes_as_its_inner_type_does() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    declare_with(&mut client, "x", "x-delayed-message", &[("x-delayed-type", Value::text("topic"))]);
    client.bind("q", "x", "a.*");
    declare_with(
        &mut client,
        "y",
        "x-delayed-message",
        &[("x-delayed-type", Value::text("x-consistent-hash"))],
    );

    for key in ["a.b", "b"] {
        client.publish("x", key, key);
    }

    assert_eq!(client.drain("q"), ["a.b"]);
    check_unbindable(&mut client, "y", "k", "The binding key must be an integer: <<\"k\">>");
}

#[test]
fn the_inner_type_of_a_delayed_message_exchange_has_to_be_one() {
    let broker = Broker::start();
    let mut client = broker.client();
    let inner = |value: Value| [("x-delayed-type", value)];
    let missing = "Invalid argument, 'x-delayed-type' must be an existing exchange type";
    let itself = "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'";

    check_refused(&mut client, "x-delayed-message", &[], missing);
    check_refused(&mut client, "x-delayed-message", &inner(Value::Int(1)), missing);
    check_refused(&mut client, "x-delayed-message", &inner(Value::text("x-delayed-message")), itself);

    let arguments = arguments(inner(Value::text("nonsense")));
    client.send(exchange::Declare { arguments, ..named("x", "x-delayed-message") });
    let text = "COMMAND_INVALID - unknown exchange type 'nonsense'";
    client.expect_connection_close(ReplyCode::CommandInvalid, text);
}

#[test]
fn a_deduplication_exchange_needs_a_size_and_routes_as_a_fanout() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut check = |table: &[(&str, Value)], text: &str| {
        check_refused(&mut client, "x-message-deduplication", table, text);
    };
    let size = ("x-cache-size", Value::Int(10));
    check(&[], "Missing argument, 'x-cache-size' must be a positive integer");
    check(
        &[("x-cache-size", Value::Int(0))],
        "Invalid argument 0, 'x-cache-size' must be a positive integer",
    );
    check(
        &[size.clone(), ("x-cache-ttl", Value::text("soon"))],
        "Invalid argument <<\"soon\">>, 'x-cache-ttl' must be a positive integer",
    );
    check(
        &[size.clone(), ("x-cache-persistence", Value::text("tape"))],
        "Invalid x-cache-persistence field value <<\"tape\">>; expected disk or memory",
    );

    declare_with(
        &mut client,
        "x",
        "x-message-deduplication",
        &[size, ("x-cache-ttl", Value::Int(1000)), ("x-cache-persistence", Value::text("disk"))],
    );
    client.declare("q");
    client.bind("q", "x", "");
    client.publish("x", "k", "m");

    assert_eq!(client.drain("q"), ["m"]);
}

#[test]
fn of_the_arguments_of_an_exchange_that_is_there_only_its_alternate_is_compared() {
    let broker = Broker::start();
    let mut client = broker.client();
    for (kind, name, first, second) in [
        ("x-consistent-hash", "hash-header", Value::text("a"), Value::text("b")),
        ("x-consistent-hash", "hash-property", Value::text("timestamp"), Value::text("nonsense")),
        ("x-recent-history", "x-recent-history-length", Value::Int(1), Value::Int(-2)),
        ("x-delayed-message", "x-delayed-type", Value::text("direct"), Value::text("fanout")),
        ("x-message-deduplication", "x-cache-size", Value::Int(1), Value::Int(2)),
    ] {
        println!("{kind}, {name}");
        declare_with(&mut client, name, kind, &[(name, first.clone())]);
        declare_with(&mut client, name, kind, &[(name, second)]);

        let alternate = [(name, first), ("alternate-exchange", Value::text("k"))];
        client.send(exchange::Declare { arguments: arguments(alternate), ..named(name, kind) });

        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{name}' in vhost '/': \
             received the value 'k' of type 'longstr' but current is none"
        );
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    }
}

// Permissions ----------------------------------------------------------------------------------------

#[test]
fn exchanges_are_configured_written_and_read_by_those_who_may() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("limited", "secret", &[])];
        config.seed.permissions = vec![permission("limited", "/", ["^(ok|c)", "^(ok|w)", "^(ok|r)"])];
    });
    let mut client = broker.client_as(&Login::of("limited", "secret"));
    let mut guest = broker.client();
    guest.exchange("x", "fanout");
    client.exchange("ok", "fanout");
    client.declare("ok");
    let refused = |name: &str| {
        format!("ACCESS_REFUSED - access to exchange '{name}' in vhost '/' refused for user 'limited'")
    };
    let mut check = |method: Cold, name: &str| {
        println!("{method:?}");
        client.send(method);
        client.expect_error(ReplyCode::AccessRefused, &refused(name));
    };

    check(named("x2", "fanout").cold(), "x2");
    check(named("x", "topic").cold(), "x");
    check(exchange::Delete { exchange: "x".into(), ..Default::default() }.cold(), "x");
    check(exchange::Delete { exchange: "x2".into(), ..Default::default() }.cold(), "x2");
    let bind = |destination: &str, source: &str| exchange::Bind {
        destination: destination.into(),
        source: source.into(),
        ..Default::default()
    };
    check(bind("x", "ok").cold(), "x");
    check(bind("ok", "x").cold(), "x");
    check(queue::Bind { queue: "ok".into(), exchange: "x".into(), ..Default::default() }.cold(), "x");
    let alternate = arguments([("alternate-exchange", Value::text("x"))]);
    check(exchange::Declare { arguments: alternate, ..named("ok2", "fanout") }.cold(), "x");
    for (exchange, named) in [("x", "x"), ("x2", "x2"), ("", "amq.default")] {
        client.publish(exchange, "ok", "m");
        client.expect_error(ReplyCode::AccessRefused, &refused(named));
    }
    client.publish("ok", "", "m");
    assert!(client.has_exchange("x"), "a passive declare needs no permission");
}

#[test]
fn a_user_with_empty_permissions_may_do_nothing() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("empty", "secret", &[])];
        config.seed.permissions = vec![permission("empty", "/", ["", "", ""])];
    });
    let mut client = broker.client_as(&Login::of("empty", "secret"));

    client.publish("", "q", "m");

    let text = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'empty'";
    client.expect_error(ReplyCode::AccessRefused, text);
}

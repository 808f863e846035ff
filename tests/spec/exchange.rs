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
    check("x-delayed-message", "COMMAND_INVALID - unknown exchange type 'x-delayed-message'");
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
    check(&[("x-match", text("any-with-x")), ("x-a", one.clone())], &[("x-a", one)], true);
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

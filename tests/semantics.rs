//! What clients written for RabbitMQ rely on and no other test names: docs/SEMANTICS.md says which line of it
//! each of them holds.

use std::path::Path;
use std::time::Duration;

use garenne::config::TopicPermissionSeed;

use crate::support::wire;
use crate::support::*;

fn text(text: &str) -> Value {
    Value::text(text)
}

fn with(client: &mut Client, queue: &str, more: &[(&str, Value)]) {
    let table: Table = more.iter().map(|(name, value)| (*name, value.clone())).collect();
    client.declare_durable_with(queue, (&table).into());
}

fn reject(client: &mut Client, queue: &str, body: &str) {
    let tag = next(client, queue, body).tag();
    client.send(basic::Reject { delivery_tag: tag, requeue: false });
}

fn next(client: &mut Client, queue: &str, body: &str) -> Message {
    eventually("there is a message", || client.counts(queue).0 > 0);
    client.get(queue, body)
}

// Connections ----------------------------------------------------------------------------------------

#[test]
fn a_client_without_limits_of_its_own_is_held_to_the_brokers() {
    let broker = Broker::with(|config| config.channel_max = 2);
    let mut client = broker.stranger();
    client.begin(&Login { frame_max: Some(0), channel_max: Some(0), ..Login::default() });
    client.on(0).send(connection::Open { virtual_host: "/".into() });
    client.on(0).expect(connection::OpenOk {});
    client.open_channel(1);
    client.open_channel(2);

    client.on(3).send(channel::Open {});

    let text = "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)";
    client.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn a_publisher_that_cannot_be_told_that_it_is_blocked_is_not_told() {
    let broker = Broker::with(|config| config.disk_free_bytes_min = u64::MAX);
    let mut told = broker.client();
    told.publish("", "q", "m");
    assert!(matches!(told.on(0).method(), Cold::Connection(connection::AMQPMethod::Blocked(_))));
    let mut client = broker.client_as(&Login::default().without_capabilities());

    client.publish("", "q", "m");

    // Nothing but close-ok comes.
    client.close();
}

#[test]
fn the_log_names_connections_and_what_was_no_amqp() {
    let broker = Process::start();
    let properties = Table::from_iter([("connection_name", text("the baker's"))]);
    let _client = Client::open(broker.address(), &Login { properties, ..Login::default() });
    for (opening, name) in
        [(b"GET / HT".as_slice(), "an HTTP request"), (b"\x16\x03\x01\x02\x00\x01\x00\x01", "a TLS hello")]
    {
        let mut stranger = Client::connect(broker.address());
        stranger.send_raw(opening);
        stranger.expect_raw(&amqp::limits::PROTOCOL_HEADER);

        eventually("the log says what came", || broker.log().contains(name));
    }

    eventually("the log has the name", || broker.log().contains("the baker's"));
}

// Arguments of queues --------------------------------------------------------------------------------

#[test]
fn each_argument_of_a_queue_refuses_what_it_cannot_be() {
    let broker = Broker::start();
    let mut client = broker.client();
    let mut check = |argument: &str, value: Value, reason: &str| {
        client.send(queue::Declare {
            queue: "q".into(),
            durable: true,
            arguments: arguments([(argument, value)]),
            ..Default::default()
        });
        let text =
            format!("PRECONDITION_FAILED - invalid arg '{argument}' for queue 'q' in vhost '/': {reason}");
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    };

    for argument in ["x-max-length", "x-max-length-bytes", "x-max-priority"] {
        check(argument, text("10"), "\"expected integer, got longstr\"");
        check(argument, Value::Int(-1), "{value_negative,-1}");
    }
    check("x-max-priority", Value::Int(256), "{max_value_exceeded,256}");
    check("x-overflow", text("burst"), "invalid_overflow");
    check("x-dead-letter-routing-key", text("k"), "routing_key_but_no_dlx_defined");
    check("x-dead-letter-strategy", text("twice"), "invalid_dlx_strategy");
    check("x-single-active-consumer", text("yes"), "{unacceptable_type,longstr}");
    check("x-delivery-limit", Value::Int(-2), "{value_negative,-2}");
    check("x-queue-mode", text("eager"), "\"unsupported queue mode 'eager'\"");
    check("x-queue-type", text("stream"), "this version of Garenne does not support it yet");
}

#[test]
fn a_dead_letter_exchange_is_named_by_a_string() {
    let broker = Broker::start();
    let mut client = broker.client();

    let arguments = arguments([("x-dead-letter-exchange", Value::Int(1))]);
    client.send(queue::Declare { queue: "q".into(), arguments, ..Default::default() });

    let text = "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'";
    client.expect_error(ReplyCode::PreconditionFailed, text);
}

#[test]
fn a_quorum_queue_cannot_be_what_does_not_last_or_have_priorities() {
    let broker = Broker::start();
    let mut client = broker.client();
    let declare = |durable, exclusive, auto_delete, more: &[(&str, Value)]| queue::Declare {
        queue: "q".into(),
        durable,
        exclusive,
        auto_delete,
        arguments: (&[("x-queue-type", text("quorum"))].iter().chain(more).cloned().collect::<Table>())
            .into(),
        ..Default::default()
    };
    let mut check = |declare: queue::Declare, reason: &str| {
        client.send(declare);
        let text = format!("PRECONDITION_FAILED - invalid {reason}");
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    };

    check(declare(false, false, false, &[]), "property 'non-durable' for queue 'q' in vhost '/'");
    check(declare(true, true, false, &[]), "property 'exclusive-owner' for queue 'q' in vhost '/'");
    check(declare(true, false, true, &[]), "property 'auto-delete' for queue 'q' in vhost '/'");
    check(
        declare(true, false, false, &[("x-max-priority", Value::Int(5))]),
        "arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue",
    );
}

#[test]
fn an_integer_is_the_same_in_whatever_width_it_comes() {
    let broker = Broker::start();
    let mut client = broker.client();
    let widths: [&[u8]; 7] = [
        b"b\x0a",
        b"B\x0a",
        b"s\x00\x0a",
        b"u\x00\x0a",
        b"I\x00\x00\x00\x0a",
        b"i\x00\x00\x00\x0a",
        b"l\x00\x00\x00\x00\x00\x00\x00\x0a",
    ];

    for value in widths {
        let field = [wire::short("x-max-length"), value.to_vec()].concat();
        let size = (field.len() as u32).to_be_bytes();
        let declare = [b"\x00\x32\x00\x0a\x00\x00\x01q\x00".as_slice(), &size, &field].concat();
        client.send_raw(&wire::frame(1, 1, &declare));

        client.expect(queue::DeclareOk { queue: "q".into(), message_count: 0, consumer_count: 0 });
    }
}

#[test]
fn publishing_does_not_keep_an_unused_queue() {
    let broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[("x-expires", Value::Int(60_000))]);
    client.confirm();
    for tag in 1..=2 {
        broker.advance(Duration::from_secs(25));
        client.publish("", "q", "m");
        client.expect_ack(tag);
    }

    broker.advance(Duration::from_secs(15));

    // Once it is gone, publishes come back.
    eventually("the queue is gone", || {
        client.publish_mandatory("", "q", "m");
        let is_returned = matches!(client.event(), Event::Message(_));
        if is_returned {
            client.event();
        }
        is_returned
    });
}

// Publishing -----------------------------------------------------------------------------------------

#[test]
fn copies_go_to_keys_in_an_array_and_nothing_else() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");

    for name in ["CC", "BCC"] {
        let one = Table::from_iter([(name, text("q"))]);
        client.publish_with("", "nowhere", &wire::headers(&one), "m");

        let text = format!(
            "PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,\"{name}\",longstr}}"
        );
        client.expect_error(ReplyCode::PreconditionFailed, &text);
    }
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn a_full_queue_that_refuses_makes_no_dead_letters_and_says_nothing_without_confirms() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let arguments = [
        ("x-max-length", Value::Int(1)),
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    with(&mut client, "q", &arguments);

    client.publish("", "q", "kept");
    client.publish("", "q", "refused");

    client.expect_nothing();
    reject(&mut client, "q", "kept");
    next(&mut client, "dead", "kept");
    client.expect_empty("dead");
}

// Who gets what --------------------------------------------------------------------------------------

#[test]
fn a_message_of_higher_priority_overtakes_those_that_wait_and_not_those_that_are_out() {
    let broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[("x-max-priority", Value::Int(9))]);
    client.qos(1, false);
    client.consume("q", "c");
    client.publish("", "q", "out");
    let out = client.expect_delivery("out").tag();

    client.publish("", "q", "waits");
    client.publish_with("", "q", &wire::priority(5), "overtakes");
    client.ack(out);

    let overtakes = client.expect_delivery("overtakes").tag();
    client.ack(overtakes);
    client.expect_delivery("waits");
}

#[test]
fn when_the_connection_of_the_active_consumer_ends_the_next_one_gets_its_messages() {
    let broker = Broker::start();
    let mut client = broker.client();
    for kind in ["classic", "quorum"] {
        let arguments = [("x-queue-type", text(kind)), ("x-single-active-consumer", Value::Bool(true))];
        with(&mut client, kind, &arguments);
        let (mut active, mut waiting) = (broker.client(), broker.client());
        active.consume(kind, "active");
        waiting.consume(kind, "waiting");
        client.publish("", kind, "one");
        client.publish("", kind, "two");
        active.expect_delivery("one");
        active.expect_delivery("two");
        waiting.expect_nothing();

        drop(active);

        assert!(waiting.expect_delivery("one").redelivered());
        waiting.expect_delivery("two");
    }
}

#[test]
fn a_global_prefetch_holds_for_a_quorum_queue_too() {
    let broker = Broker::start();
    let mut client = broker.client();
    with(&mut client, "q", &[("x-queue-type", text("quorum"))]);
    for body in ["one", "two"] {
        client.publish("", "q", body);
    }
    client.qos(1, true);

    client.consume("q", "c");

    let one = client.expect_delivery("one").tag();
    client.expect_nothing();
    client.ack(one);
    client.expect_delivery("two");
}

#[test]
fn a_client_of_celery_changes_the_prefetch_of_its_running_consumers() {
    let broker = Broker::start();
    let properties = Table::from_iter([("product", text("py-amqp"))]);
    let mut client = broker.client_as(&Login { properties, ..Login::default() });
    client.declare("q");
    client.qos(1, false);
    client.consume("q", "c");
    for body in ["one", "two"] {
        client.publish("", "q", body);
    }
    client.expect_delivery("one");
    client.expect_nothing();

    client.send(basic::Qos { prefetch_count: 2, global: false });

    // The delivery may overtake the answer.
    let events = [client.event(), client.event()];
    assert!(events.iter().any(|event| matches!(event, Event::Message(m) if m.text() == "two")), "{events:?}");
}

// Dead letters ---------------------------------------------------------------------------------------

#[test]
fn a_dead_letter_counts_in_long_integers() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("dead");
    let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    with(&mut client, "q", &arguments);
    client.publish("", "q", "m");

    reject(&mut client, "q", "m");

    let dead = next(&mut client, "dead", "m");
    let count = b"\x05countl\x00\x00\x00\x00\x00\x00\x00\x01";
    assert!(dead.properties.windows(count.len()).any(|bytes| bytes == count), "{:?}", dead.properties);
}

#[test]
fn a_dead_letter_with_a_key_of_its_queue_forgets_its_copies() {
    let broker = Broker::start();
    let mut client = broker.client();
    for queue in ["dead", "copy"] {
        client.declare(queue);
    }
    let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    with(&mut client, "q", &arguments);
    let copies = Table::from_iter([("CC", Value::Array(vec![text("copy")]))]);
    client.publish_with("", "q", &wire::headers(&copies), "m");
    client.sync();
    client.drain("copy");

    reject(&mut client, "q", "m");

    let dead = next(&mut client, "dead", "m");
    assert_eq!(dead.headers().get("CC"), None);
    let Some(Value::Array(deaths)) = dead.headers().get("x-death").cloned() else { panic!("no x-death") };
    let Value::Table(death) = &deaths[0] else { panic!("{deaths:?}") };
    assert_eq!(death.get("routing-keys"), Some(&Value::Array(vec![text("q"), text("copy")])));
    client.expect_empty("copy");
}

#[test]
fn the_first_death_is_told_for_ever_and_the_last_one_changes() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("end");
    for (queue, to) in [("second", "end"), ("first", "second")] {
        let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(to))];
        with(&mut client, queue, &arguments);
    }
    client.publish_with("", "first", &wire::expiration("0"), "m");

    reject(&mut client, "second", "m");

    let headers = next(&mut client, "end", "m").headers();
    let told = |name: &str| headers.get_str(name).map(String::from);
    assert_eq!(told("x-first-death-queue").as_deref(), Some("first"));
    assert_eq!(told("x-first-death-reason").as_deref(), Some("expired"));
    assert_eq!(told("x-last-death-queue").as_deref(), Some("second"));
    assert_eq!(told("x-last-death-reason").as_deref(), Some("rejected"));
}

#[test]
fn deaths_that_a_client_sends_along_are_counted_on() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("dead");
    let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    with(&mut client, "q", &arguments);
    client.publish("", "q", "m");
    reject(&mut client, "q", "m");
    let dead = next(&mut client, "dead", "m");

    client.publish_with("", "q", &dead.properties, "again");
    reject(&mut client, "q", "again");

    assert_eq!(next(&mut client, "dead", "again").deaths(), [(2, "q".into(), "rejected".into())]);
}

#[test]
fn at_least_once_is_what_dead_letters_are_in_any_case() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    with(&mut client, "q", &arguments);
    client.publish_persistent("", "q", "m");

    reject(&mut client, "q", "m");

    assert_eq!(next(&mut client, "dead", "m").deaths(), [(1, "q".into(), "rejected".into())]);
}

// Permissions ----------------------------------------------------------------------------------------

#[test]
fn keys_of_a_topic_exchange_have_permissions_of_their_own() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("anna", "secret", &[])];
        config.seed.permissions = vec![permission("anna", "/", [".*", ".*", ".*"])];
        config.seed.topic_permissions = vec![TopicPermissionSeed {
            user: "anna".into(),
            vhost: "/".into(),
            exchange: "amq.topic".into(),
            write: "^{username}\\.".into(),
            read: "^{vhost}all\\.".into(),
        }];
    });
    let mut client = broker.client_as(&Login::of("anna", "secret"));
    client.declare("q");
    client.bind("q", "amq.direct", "any.key");
    client.bind("q", "amq.topic", "/all.#");
    broker.client().bind("q", "amq.topic", "anna.#");
    let refusal = "ACCESS_REFUSED - access to topic 'bert.news' in exchange 'amq.topic' in vhost '/' refused for \
                   user 'anna'";

    for _ in 0..2 {
        client.publish("amq.topic", "anna.news", "hers");
    }
    client.publish("amq.topic", "bert.news", "not hers");
    client.expect_error(ReplyCode::AccessRefused, refusal);
    client.send(queue::Bind {
        queue: "q".into(),
        exchange: "amq.topic".into(),
        routing_key: "bert.news".into(),
        ..Default::default()
    });
    client.expect_error(ReplyCode::AccessRefused, refusal);

    assert_eq!(client.drain("q"), ["hers", "hers"]);
}

// The document --------------------------------------------------------------------------------------

#[test]
fn every_test_that_the_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
    let document = read("docs/SEMANTICS.md");
    let in_backticks = document.split('`').skip(1).step_by(2);
    let named: Vec<(&str, &str)> = in_backticks.filter_map(|code| code.split_once("::")).collect();

    assert!(named.len() > 200, "only {} tests are named", named.len());
    for (file, test) in named {
        let path = if file.contains("src/") { format!("{file}.rs") } else { format!("tests/{file}.rs") };
        assert!(read(&path).contains(&format!("fn {test}(")), "{path} has no {test}");
    }
}

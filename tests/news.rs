//! What the broker tells of itself: events, the lines of its log, and the firehose, as queues bound to its exchanges
//! get them.

use amqp::{Properties, Table, Value};
use garenne::broker::{Actor, VhostChanges};

use crate::support::{Broker, Client, Login, Process, eventually};

const EVENTS: &str = "amq.rabbitmq.event";
const LOG: &str = "amq.rabbitmq.log";
const TRACE: &str = "amq.rabbitmq.trace";

/// Has a client consume what an exchange of the broker's has for a key.
fn listen(client: &mut Client, exchange: &str, key: &str) {
    client.declare("news");
    client.bind("news", exchange, key);
    client.consume_no_ack("news", "ear");
}

/// The next message has this key; its headers.
#[track_caller]
fn expect(client: &mut Client, key: &str) -> Table {
    let message = client.any_delivery();
    assert_eq!(message.routing_key(), key, "{message:?}");
    message.headers()
}

fn text<'a>(table: &'a Table, name: &str) -> &'a str {
    table.get_str(name).unwrap_or_else(|| panic!("no text {name} in {table:?}"))
}

fn trace(broker: &Broker, tracing: bool) {
    let changes = VhostChanges { tracing: Some(tracing), ..VhostChanges::default() };
    broker.inner().put_vhost(&Actor::broker(), "/", changes).expect("a vhost that can be traced");
}

#[test]
fn who_listens_hears_what_comes_and_goes() {
    let broker = Broker::start();
    let mut ear = broker.client();
    listen(&mut ear, EVENTS, "#");
    // It hears of its own binding, and of its consumer.
    assert_eq!(text(&expect(&mut ear, "binding.created"), "source_name"), EVENTS);
    assert_eq!(text(&expect(&mut ear, "consumer.created"), "consumer_tag"), "ear");

    let mut client = broker.client();
    let login = expect(&mut ear, "user.authentication.success");
    let connection = expect(&mut ear, "connection.created");
    let channel = expect(&mut ear, "channel.created");
    client.declare_durable("q");
    let queue = expect(&mut ear, "queue.created");
    client.exchange("e", "fanout");
    let exchange = expect(&mut ear, "exchange.created");
    client.bind("q", "e", "k");
    let binding = expect(&mut ear, "binding.created");
    client.consume("q", "c");
    let consumer = expect(&mut ear, "consumer.created");
    client.send(crate::support::queue::Delete { queue: "q".into(), ..Default::default() });
    let unbound = expect(&mut ear, "binding.deleted");
    let deleted = expect(&mut ear, "queue.deleted");
    let cancelled = expect(&mut ear, "consumer.deleted");

    assert_eq!(text(&login, "auth_mechanism"), "PLAIN");
    assert_eq!(text(&connection, "name"), text(&login, "connection_name"));
    assert_eq!(text(&channel, "connection"), text(&connection, "pid"));
    assert_eq!((text(&queue, "name"), queue.is_true("durable")), ("q", true));
    assert_eq!((text(&exchange, "type"), text(&exchange, "vhost")), ("fanout", "/"));
    assert_eq!((text(&binding, "source_name"), text(&binding, "destination_name")), ("e", "q"));
    assert_eq!(text(&consumer, "channel"), text(&channel, "pid"));
    assert_eq!(text(&unbound, "routing_key"), "k");
    assert_eq!(text(&deleted, "user_who_performed_action"), "guest");
    assert!(matches!(deleted.get("timestamp_in_ms"), Some(Value::Int(ms)) if *ms > 0));
    assert_eq!(text(&cancelled, "consumer_tag"), "c");
    drop(client);
    assert_eq!(text(&expect(&mut ear, "channel.closed"), "pid"), text(&channel, "pid"));
    assert_eq!(text(&expect(&mut ear, "connection.closed"), "pid"), text(&connection, "pid"));
}

#[test]
fn what_administrators_do_and_who_fails_to_log_in_is_told() {
    let broker = Broker::start();
    let mut ear = broker.client();
    listen(&mut ear, EVENTS, "vhost.*");
    ear.bind("news", EVENTS, "user.authentication.failure");

    broker.inner().put_vhost(&Actor::broker(), "new", VhostChanges::default()).expect("a new vhost");
    let mut stranger = broker.stranger();
    stranger.log_in(&Login::of("guest", "wrong"));

    let vhost = expect(&mut ear, "vhost.created");
    assert_eq!((text(&vhost, "name"), text(&vhost, "user_who_performed_action")), ("new", "rmq-internal"));
    let failure = expect(&mut ear, "user.authentication.failure");
    assert_eq!((text(&failure, "name"), text(&failure, "peer_host")), ("guest", "127.0.0.1"));
}

#[test]
fn a_queue_for_events_hears_of_them_after_a_restart() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("news");
    client.bind("news", EVENTS, "queue.created");
    client.declare_durable("one");
    eventually("the first one is told", || client.counts("news").0 == 1);
    broker.restart();

    let mut client = broker.client();
    client.declare_durable("two");
    client.consume_no_ack("news", "c");

    let names: Vec<String> =
        (0..2).map(|_| text(&expect(&mut client, "queue.created"), "name").to_string()).collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn nobody_else_publishes_news() {
    let broker = Broker::start();
    let mut client = broker.client();

    client.publish(EVENTS, "queue.created", "a lie");

    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.event' in vhost '/'";
    client.expect_channel_close(crate::support::ReplyCode::AccessRefused, text);
}

#[test]
fn the_firehose_has_what_is_published_and_delivered() {
    let broker = Broker::start();
    let mut ear = broker.client();
    let mut client = broker.client();
    client.declare("q");
    client.bind("q", "amq.fanout", "");
    // A way that is remembered from before is looked at again.
    client.publish("amq.fanout", "k", "untraced");
    client.send(crate::support::basic::Get { queue: "q".into(), no_ack: true });
    client.expect_got("untraced");
    listen(&mut ear, TRACE, "#");
    trace(&broker, true);

    let properties = Properties { message_id: Some(b"m1"), priority: Some(3), ..Properties::default() };
    client.publish_with("amq.fanout", "k", &properties.encode(), "hello");
    client.get("q", "hello");

    let published = ear.any_delivery();
    let delivered = ear.any_delivery();
    assert_eq!((published.routing_key(), &*published.text()), ("publish.amq.fanout", "hello"));
    let about = published.headers();
    assert_eq!(text(&about, "exchange_name"), "amq.fanout");
    assert_eq!(about.get("routing_keys"), Some(&Value::Array(vec![Value::text("k")])));
    assert_eq!(about.get("routed_queues"), Some(&Value::Array(vec![Value::text("q")])));
    let Some(Value::Table(kept)) = about.get("properties") else { panic!("{about:?}") };
    assert_eq!((kept.get("priority"), text(kept, "message_id")), (Some(&Value::Int(3)), "m1"));
    assert_eq!((delivered.routing_key(), &*delivered.text()), ("deliver.q", "hello"));
    assert_eq!(delivered.headers().get("redelivered"), Some(&Value::Int(0)));

    trace(&broker, false);
    client.publish("amq.fanout", "k", "quiet");
    client.get("q", "quiet");
    trace(&broker, true);
    client.publish("", "q", "loud");
    assert_eq!(ear.any_delivery().text(), "loud");
}

#[test]
fn the_firehose_keeps_the_order_for_consumers_and_for_what_leads_nowhere() {
    let broker = Broker::start();
    let mut ear = broker.client();
    let mut client = broker.client();
    listen(&mut ear, TRACE, "#");
    trace(&broker, true);
    client.declare("q");
    client.consume_no_ack("q", "c");

    for n in 0..20 {
        client.publish("", "q", n.to_string());
    }
    client.publish("", "nowhere", "lost");

    for n in 0..20 {
        client.expect_delivery(&n.to_string());
    }
    let (mut published, mut delivered) = (Vec::new(), Vec::new());
    while delivered.len() < 20 || published.len() < 21 {
        let message = ear.any_delivery();
        let list = if message.routing_key() == "publish." { &mut published } else { &mut delivered };
        list.push(message.text().to_string());
    }
    let expected: Vec<String> = (0..20).map(|n: i32| n.to_string()).collect();
    assert_eq!((&published[..20], &delivered), (&expected[..], &expected));
    assert_eq!(published[20], "lost");
}

#[test]
fn whoever_binds_to_the_log_reads_it() {
    let process = Process::start();
    let mut ear = process.client();
    listen(&mut ear, LOG, "*");

    let _client = process.client();

    let line = loop {
        let message = ear.any_delivery();
        if message.text().contains("connection opened") {
            break message;
        }
    };
    assert_eq!(line.routing_key(), "info");
    assert!(!text(&line.headers(), "node").is_empty());
    assert!(line.text().contains("INFO") && line.text().ends_with('\n'), "{line:?}");
}

//! Dead letters: where messages go that were rejected, have expired or found no room, and what their headers
//! tell of it.

use std::time::Duration;

use crate::support::wire;
use crate::support::*;

/// A durable queue whose dead letters go to queue `dead`.
fn with_dead_letters(client: &mut Client, queue: &str, more: &[(&str, Value)]) {
    client.declare_durable("dead");
    lead(client, queue, "dead", more);
}

/// A durable queue whose dead letters go to another by the default exchange.
fn lead(client: &mut Client, queue: &str, to: &str, more: &[(&str, Value)]) {
    let mut table = Table::from_iter([
        ("x-dead-letter-exchange", Value::text("")),
        ("x-dead-letter-routing-key", Value::text(to)),
    ]);
    more.iter().for_each(|(name, value)| table.insert(*name, value.clone()));
    client.declare_durable_with(queue, (&table).into());
}

fn next_dead(client: &mut Client, queue: &str, body: &str) -> Message {
    eventually("the dead letter arrives", || client.counts(queue).0 > 0);
    let message = client.get(queue, body);
    client.ack(message.tag());
    message
}

fn text(text: &str) -> Value {
    Value::text(text)
}

#[test]
fn a_rejected_message_goes_to_the_dead_letter_exchange_and_tells_what_happened() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("dlx", "topic");
    client.declare("dead");
    client.bind("dead", "dlx", "work");
    let arguments = arguments([("x-dead-letter-exchange", text("dlx"))]);
    client.declare_durable_with("work", arguments);
    let own = Table::from_iter([("mine", Value::Int(7))]);
    client.publish_with("", "work", &wire::headers(&own), "job");

    let tag = client.get("work", "job").tag();
    client.nack(tag, false, false);
    let dead = next_dead(&mut client, "dead", "job");

    assert_eq!((dead.exchange(), dead.routing_key(), dead.redelivered()), ("dlx", "work", false));
    assert_eq!(dead.deaths(), [(1, "work".into(), "rejected".into())]);
    let headers = dead.headers();
    assert_eq!(headers.get("mine"), Some(&Value::Int(7)));
    for which in ["first", "last"] {
        let told = |what: &str| headers.get_str(&format!("x-{which}-death-{what}")).map(String::from);
        assert_eq!(told("queue").as_deref(), Some("work"));
        assert_eq!((told("reason").as_deref(), told("exchange").as_deref()), (Some("rejected"), Some("")));
    }
    let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
    let Value::Table(death) = &deaths[0] else { panic!("{deaths:?}") };
    assert_eq!(death.get("routing-keys"), Some(&Value::Array(vec![text("work")])));
    assert!(matches!(death.get("time"), Some(Value::Timestamp(_))));
    assert_eq!(client.counts("work"), (0, 0));
}

#[test]
fn an_expired_message_loses_its_expiration_and_keeps_it_in_its_history() {
    let broker = Broker::start();
    let mut client = broker.client();
    with_dead_letters(&mut client, "waiting", &[("x-message-ttl", Value::Int(60_000))]);
    client.publish("", "waiting", "behind nobody");
    client.publish_with("", "waiting", &wire::expiration("1000"), "short");

    broker.advance(Duration::from_secs(1));
    let short = next_dead(&mut client, "dead", "short");
    broker.advance(Duration::from_secs(60));
    let long = next_dead(&mut client, "dead", "behind nobody");

    let original = |message: &Message| {
        let Some(Value::Array(deaths)) = message.headers().get("x-death").cloned() else { panic!() };
        let Value::Table(death) = &deaths[0] else { panic!("{deaths:?}") };
        death.get_str("original-expiration").map(String::from)
    };
    assert_eq!((original(&short).as_deref(), original(&long)), (Some("1000"), None));
    let read = amqp::Properties::parse(&short.properties).unwrap();
    assert_eq!((short.deaths(), read.expiration), (vec![(1, "waiting".into(), "expired".into())], None));
}

#[test]
fn messages_expire_into_the_dead_letter_queue_from_wherever_they_stand_in_the_order_of_their_time() {
    let broker = Broker::start();
    let mut client = broker.client();
    with_dead_letters(&mut client, "waiting", &[]);
    for (ms, body) in [("9000", "d"), ("3000", "b"), ("1000", "a"), ("5000", "c")] {
        client.publish_with("", "waiting", &wire::persistent_with_expiration(ms), body);
    }
    client.sync();

    broker.advance(Duration::from_secs(6));
    eventually("three are dead", || client.counts("dead").0 == 3);
    broker.advance(Duration::from_secs(4));
    eventually("all are dead", || client.counts("dead").0 == 4);

    assert_eq!(client.drain("dead"), ["a", "b", "c", "d"]);
}

#[test]
fn what_is_purged_deleted_or_acknowledged_is_no_dead_letter() {
    let broker = Broker::start();
    let mut client = broker.client();
    with_dead_letters(&mut client, "work", &[]);
    for body in ["acked", "purged", "deleted"] {
        client.publish("", "work", body);
        match body {
            "acked" => {
                let tag = client.get("work", body).tag();
                client.ack(tag);
            }
            "purged" => {
                client.send(queue::Purge { queue: "work".into(), nowait: false });
                client.expect(queue::PurgeOk { message_count: 1 });
            }
            _ => {
                client.send(queue::Delete { queue: "work".into(), ..queue::Delete::default() });
                client.expect(queue::DeleteOk { message_count: 1 });
            }
        }
    }
    with_dead_letters(&mut client, "after", &[]);
    client.publish("", "after", "last");
    let tag = client.get("after", "last").tag();
    client.nack(tag, false, false);

    next_dead(&mut client, "dead", "last");
    client.expect_empty("dead");
}

#[test]
fn the_same_death_once_more_is_counted_and_comes_first() {
    let broker = Broker::start();
    let mut client = broker.client();
    lead(&mut client, "work", "wait", &[]);
    lead(&mut client, "wait", "work", &[("x-message-ttl", Value::Int(1000))]);
    client.publish("", "work", "again");

    for round in 1..=3 {
        let tag = next(&mut client, "work", "again").tag();
        client.nack(tag, false, false);
        eventually("it waits", || client.counts("wait").0 == 1);
        broker.advance(Duration::from_secs(1));
        eventually("it is back", || client.counts("work").0 == 1);
        let back = client.get("work", "again");
        let expected = [(round, "wait".into(), "expired".into()), (round, "work".into(), "rejected".into())];
        assert_eq!(back.deaths(), expected);
        client.nack(back.tag(), false, true);
    }
}

fn next(client: &mut Client, queue: &str, body: &str) -> Message {
    eventually("there is a message", || client.counts(queue).0 > 0);
    client.get(queue, body)
}

#[test]
fn a_message_that_would_go_round_by_itself_for_ever_is_dropped() {
    let broker = Broker::start();
    let mut client = broker.client();
    let ttl = ("x-message-ttl", Value::Int(1000));
    client.exchange("round", "fanout");
    let turn = |name: &str| [ttl.clone(), ("x-dead-letter-exchange", text(name))];
    client.declare_durable_with("a", arguments(turn("round")));
    client.declare("witness");
    client.bind("a", "round", "");
    client.bind("witness", "round", "");
    client.publish("", "a", "circle");

    broker.advance(Duration::from_secs(1));

    eventually("the witness has it", || client.counts("witness").0 == 1);
    assert_eq!(client.counts("a"), (0, 0));
    assert_eq!(client.get("witness", "circle").deaths(), [(1, "a".into(), "expired".into())]);
}

#[test]
fn without_a_key_of_its_own_a_dead_letter_goes_by_its_own_and_its_copies() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.exchange("dlx", "direct");
    for queue in ["k", "cc"] {
        client.declare(queue);
        client.bind(queue, "dlx", queue);
    }
    client.exchange("in", "fanout");
    client.declare_durable_with("q", arguments([("x-dead-letter-exchange", text("dlx"))]));
    client.bind("q", "in", "");
    let copies = Table::from_iter([("CC", Value::Array(vec![text("cc")]))]);
    client.publish_with("in", "k", &wire::headers(&copies), "m");

    let tag = next(&mut client, "q", "m").tag();
    client.nack(tag, false, false);

    for queue in ["k", "cc"] {
        let dead = next_dead(&mut client, queue, "m");
        assert!(dead.headers().get("CC").is_some());
    }
}

#[test]
fn a_dead_letter_without_a_place_is_dropped_or_parked_as_the_queue_says() {
    let broker = Broker::start();
    let mut client = broker.client();
    for (queue, unroutable, exchange) in
        [("drops", "drop", "nowhere"), ("parks", "park", "nowhere"), ("unbound", "park", "amq.direct")]
    {
        let arguments = [
            ("x-dead-letter-exchange", text(exchange)),
            ("x-dead-letter-unroutable", text(unroutable)),
            ("x-message-ttl", Value::Int(0)),
        ];
        client.declare_durable_with(queue, arguments_of(&arguments));
        client.publish_persistent("", queue, queue);
        client.sync();
    }

    eventually("two are parked", || client.has_queue("amq.dead") && client.counts("amq.dead").0 == 2);

    assert_eq!(client.drain("amq.dead"), ["parks", "unbound"]);
    assert_eq!(client.counts("drops"), (0, 0));
}

fn arguments_of(entries: &[(&str, Value)]) -> amqp::method::FieldTable {
    (&entries.iter().map(|(name, value)| (*name, value.clone())).collect::<Table>()).into()
}

#[test]
fn dead_letters_that_are_kept_survive_a_restart_and_are_in_one_queue_only() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    with_dead_letters(&mut client, "work", &[]);
    for n in 0..50 {
        client.publish_persistent("", "work", format!("{n}"));
    }
    for n in 0..25 {
        let tag = client.get("work", &n.to_string()).tag();
        client.nack(tag, false, false);
    }
    eventually("half of them are dead", || client.counts("dead").0 == 25);
    client.close();

    broker.restart();
    let mut client = broker.client();

    let bodies = |range: std::ops::Range<i32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(client.counts("dead"), (25, 0));
    assert_eq!(client.get("dead", "0").deaths(), [(1, "work".into(), "rejected".into())]);
    client.close();
    let mut client = broker.client();
    assert_eq!((client.drain("work"), client.drain("dead")), (bodies(25..50), bodies(0..25)));
}

#[test]
fn messages_that_expired_while_the_broker_was_down_are_dead_letters_after_the_start() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    with_dead_letters(&mut client, "waiting", &[]);
    for n in 0..200 {
        let ms = 1000 + 10 * (n % 100);
        client.publish_with(
            "",
            "waiting",
            &wire::persistent_with_expiration(&ms.to_string()),
            format!("{n}"),
        );
    }
    client.publish_with("", "waiting", &wire::persistent_with_expiration("600000"), "late");
    client.sync();
    client.close();
    broker.stop();

    broker.advance(Duration::from_secs(10));
    broker.restart();
    let mut client = broker.client();

    eventually("all that are due are dead", || client.counts("dead").0 == 200);
    assert_eq!(client.counts("waiting"), (1, 0));
}

#[test]
fn declaring_a_dead_letter_exchange_takes_read_on_the_queue_and_write_on_the_exchange() {
    let broker = Broker::with(|config| {
        config.seed.users = vec![user("maid", "maid", &[])];
        config.seed.permissions = vec![permission("maid", "/", [".*", "^allowed", ".*"])];
    });
    let mut client = broker.client_as(&Login::of("maid", "maid"));
    let to = |exchange: &str| arguments([("x-dead-letter-exchange", text(exchange))]);

    client.declare_durable_with("one", to("allowed"));
    let refused = queue::Declare { queue: "two".into(), arguments: to("other"), ..queue::Declare::default() };
    client.send(refused);

    let refusal = "ACCESS_REFUSED - access to exchange 'other' in vhost '/' refused for user 'maid'";
    client.expect_channel_close(ReplyCode::AccessRefused, refusal);
}

#[test]
fn a_transaction_rejects_at_its_commit() {
    let broker = Broker::start();
    let mut client = broker.client();
    with_dead_letters(&mut client, "work", &[]);
    client.publish("", "work", "job");
    client.tx();
    let tag = client.get("work", "job").tag();

    client.nack(tag, false, false);
    client.rollback();
    client.nack(tag, false, false);
    assert_eq!(client.counts("dead"), (0, 0));
    client.commit();

    next_dead(&mut client, "dead", "job");
}

//! Trails: what happened to messages of queues with `trace-messages`, asked for by their ids.

use std::time::Duration;

use amqp::{Properties, Value};
use garenne::broker::Actor;
use garenne::vhost::policy::{ApplyTo, Policy};
use serde_json::{Value as Json, json};

use crate::support::{Broker, Client, arguments, basic, confirm, eventually, exchange, tx};

fn traced(pattern: &str) -> Broker {
    let broker = Broker::start();
    set_policy(&broker, pattern, true);
    broker
}

fn set_policy(broker: &Broker, pattern: &str, trace: bool) {
    let policy = Policy {
        vhost: "/".into(),
        name: "trails".into(),
        pattern: pattern.into(),
        apply_to: ApplyTo::Queues,
        priority: 0,
        definition: json!({"trace-messages": trace}).as_object().expect("an object").clone(),
        operator: false,
    };
    broker.inner().put_policy(&Actor::broker(), policy).expect("a policy");
}

fn publish(client: &mut Client, exchange: &str, key: &str, id: &str) {
    let properties = Properties { message_id: Some(id.as_bytes()), ..Properties::default() };
    client.publish_with(exchange, key, &properties.encode(), "x");
}

/// What happened to a message: each step in a few words.
fn trail(broker: &Broker, id: &str) -> Vec<String> {
    let text = |step: &Json, name: &str| step[name].as_str().unwrap_or_default().to_string();
    let short = |step: Json| {
        let queues: Vec<&str> =
            step["queues"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let why = text(&step, "reason") + &text(&step, "how");
        let words = [text(&step, "what"), text(&step, "queue"), why, queues.join(",")];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    broker.vhost("/").trails().of(id.as_bytes()).into_iter().map(short).collect()
}

#[test]
fn a_message_leaves_a_trail_from_its_publish_to_its_ack() {
    let broker = traced("^q");
    let mut client = broker.client();
    client.declare("q");
    client.declare("other");
    client.bind("q", "amq.fanout", "");
    client.bind("other", "amq.fanout", "");
    client.consume("q", "c");

    publish(&mut client, "amq.fanout", "k", "m1");
    let first = client.expect_delivery("x");
    client.send(basic::Nack { delivery_tag: first.tag(), multiple: false, requeue: true });
    let second = client.expect_delivery("x");
    client.send(basic::Ack { delivery_tag: second.tag(), multiple: false });
    publish(&mut client, "", "other", "m2");
    client.sync();

    let steps = trail(&broker, "m1");
    let queues = steps[0].strip_prefix("published ").map(|names| names.split(',').count());
    assert_eq!(queues, Some(2), "{steps:?}");
    assert_eq!(steps[1..], ["delivered q", "returned q nacked", "delivered q", "acknowledged q"]);
    let all = broker.vhost("/").trails().of(b"m1");
    assert_eq!((&all[0]["user"], &all[0]["routing_key"]), (&json!("guest"), &json!("k")));
    assert_eq!((&all[1]["consumer_tag"], &all[1]["redelivered"]), (&json!("c"), &json!(false)));
    assert_eq!(all[3]["redelivered"], json!(true));
    assert!(trail(&broker, "m2").is_empty(), "its queue is not traced");
}

#[test]
fn a_trail_says_why_a_message_left_and_where_to() {
    let broker = traced("^q");
    let mut client = broker.client();
    client.declare("dead");
    let letters = [
        ("x-dead-letter-exchange", Value::text("")),
        ("x-dead-letter-routing-key", Value::text("dead")),
        ("x-message-ttl", Value::Int(1000)),
    ];
    client.declare_durable_with("q", arguments(letters));
    client.declare_durable_with("q-drops", arguments([("x-max-length", Value::Int(1))]));

    publish(&mut client, "", "q", "late");
    publish(&mut client, "", "q-drops", "first");
    publish(&mut client, "", "q-drops", "second");
    client.sync();
    broker.advance(Duration::from_millis(1001));

    eventually("the letter has arrived", || trail(&broker, "late").len() == 3);
    assert_eq!(trail(&broker, "late"), ["published q", "left q expired", "dead-lettered q expired dead"]);
    assert_eq!(trail(&broker, "first"), ["published q-drops", "left q-drops maxlen"]);
    assert_eq!(trail(&broker, "second"), ["published q-drops"]);
}

#[test]
fn transactions_and_delayed_messages_leave_trails_when_they_take_effect() {
    let broker = traced("^q");
    let mut client = broker.client();
    client.declare("q");
    client.send(tx::Select {});
    client.expect(tx::SelectOk {});
    publish(&mut client, "", "q", "rolled");
    client.send(tx::Rollback {});
    client.expect(tx::RollbackOk {});
    publish(&mut client, "", "q", "kept");
    assert!(trail(&broker, "kept").is_empty());
    client.send(tx::Commit {});
    client.expect(tx::CommitOk {});
    assert_eq!(trail(&broker, "kept"), ["published q"]);
    assert!(trail(&broker, "rolled").is_empty());

    let mut client = broker.client();
    client.send(confirm::Select::default());
    client.expect(confirm::SelectOk {});
    client.declare_exchange(exchange::Declare {
        exchange: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        arguments: arguments([("x-delayed-type", Value::text("fanout"))]),
        ..Default::default()
    });
    client.bind("q", "later", "");
    let headers = amqp::Table::from_iter([("x-delay", Value::Int(5000))]);
    let mut encoded = Vec::new();
    headers.encode(&mut encoded);
    let properties =
        Properties { message_id: Some(b"held"), headers: Some(&encoded), ..Properties::default() };
    client.publish_with("later", "", &properties.encode(), "x");
    client.expect_ack(1);
    broker.advance(Duration::from_millis(5001));
    eventually("the message has gone on", || trail(&broker, "held") == ["released q"]);
}

#[test]
fn a_policy_that_goes_ends_the_trails() {
    let broker = traced("^q");
    let mut client = broker.client();
    client.declare("q");
    // A way that is remembered.
    publish(&mut client, "", "q", "a");
    publish(&mut client, "", "q", "b");
    client.sync();
    set_policy(&broker, "^q", false);
    publish(&mut client, "", "q", "c");
    client.sync();

    assert_eq!(["a", "b", "c"].map(|id| trail(&broker, id).len()), [1, 1, 0]);
}

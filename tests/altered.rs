//! Queues that are changed in place, and paused.

use std::time::Duration;

use crate::support::*;

fn alter<const N: usize>(broker: &Broker, entries: [(&str, Value); N]) -> Result<(), String> {
    broker.vhost("/").alter_queue("q", &Table::from_iter(entries)).map_err(|error| error.to_string())
}

fn declare<const N: usize>(client: &mut Client, entries: [(&str, Value); N]) {
    client.declare_durable_with("q", arguments(entries));
}

#[test]
fn arguments_change_in_place_and_hold_for_what_is_there() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    declare(&mut client, [("x-max-length", Value::Int(5))]);
    client.confirm();
    for n in 0..5 {
        client.publish_persistent("", "q", n.to_string());
    }
    client.expect_confirmed(1, 5);

    alter(&broker, [("x-max-length", Value::Int(3)), ("x-message-ttl", Value::Int(60_000))]).unwrap();

    assert_eq!(client.counts("q").0, 3);
    // As it was made, and as it is.
    declare(&mut client, [("x-max-length", Value::Int(5))]);
    declare(&mut client, [("x-max-length", Value::Int(3)), ("x-message-ttl", Value::Int(60_000))]);
    client.close();
    broker.restart();
    let mut client = broker.client();
    declare(&mut client, [("x-max-length", Value::Int(3)), ("x-message-ttl", Value::Int(60_000))]);
    declare(&mut client, [("x-max-length", Value::Int(5))]);
    client.publish_persistent("", "q", "5");
    assert_eq!(client.counts("q").0, 3);
    broker.advance(Duration::from_secs(61));
    eventually("they have expired", || client.counts("q").0 == 0);
    alter(&broker, [("x-max-length", Value::Void), ("x-message-ttl", Value::Void)]).unwrap();
    (0..10).for_each(|n| client.publish_persistent("", "q", n.to_string()));
    assert_eq!(client.counts("q").0, 10);
    declare(&mut client, []);
    let other = arguments([("x-max-length", Value::Int(4))]);
    client.send(queue::Declare {
        queue: "q".into(),
        durable: true,
        arguments: other,
        ..queue::Declare::default()
    });
    client.expect_channel_close(
        ReplyCode::PreconditionFailed,
        "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '4' of \
         type 'signedint' but current is none",
    );
}

#[test]
fn a_queue_gets_priorities_without_losing_what_it_has() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    declare(&mut client, []);
    client.publish_persistent("", "q", "before");
    client.sync();

    alter(&broker, [("x-max-priority", Value::Int(3))]).unwrap();

    let urgent = [0x18, 0x00, 2, 3];
    client.confirm();
    client.publish_with("", "q", &urgent, "urgent");
    client.expect_ack(1);
    client.close();
    broker.restart();
    let mut client = broker.client();
    client.publish_with("", "q", &urgent, "as urgent");
    assert_eq!(client.drain("q"), ["urgent", "as urgent", "before"]);
    assert_eq!(
        alter(&broker, [("x-max-priority", Value::Int(2))]).unwrap_err(),
        "argument 'x-max-priority' of queue 'q' in vhost '/' can only be raised; make another queue and move the \
         messages there"
    );
}

#[test]
fn what_a_queue_cannot_have_changes_nothing() {
    let broker = Broker::start();
    let mut client = broker.client();
    declare(&mut client, []);
    let both = [("x-max-length", Value::Int(1)), ("x-message-ttl", Value::text("soon"))];
    assert_eq!(
        alter(&broker, both).unwrap_err(),
        "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got longstr\""
    );
    assert_eq!(
        alter(&broker, [("x-message-deduplication", Value::Bool(true))]).unwrap_err(),
        "argument 'x-message-deduplication' of queue 'q' in vhost '/' cannot be changed; make another queue and move \
         the messages there"
    );
    let missing = broker.vhost("/").alter_queue("other", &Table::new()).unwrap_err();
    assert_eq!(missing.to_string(), "no queue 'other' in vhost '/'");

    (0..3).for_each(|n| client.publish("", "q", n.to_string()));
    assert_eq!(client.drain("q"), ["0", "1", "2"]);
    declare(&mut client, []);
}

#[test]
fn a_policy_holds_beside_altered_arguments() {
    let broker = Broker::start();
    let mut client = broker.client();
    declare(&mut client, []);
    let policy = serde_json::json!({"vhost": "/", "name": "p", "pattern": "^q$", "apply-to": "queues",
                                    "definition": {"max-length": 4}});
    broker.vhost("/").set_policy(serde_json::from_value(policy).unwrap()).unwrap();
    (0..10).for_each(|n| client.publish("", "q", n.to_string()));
    assert_eq!(client.counts("q").0, 4);

    alter(&broker, [("x-max-length", Value::Int(2))]).unwrap();
    assert_eq!(client.counts("q").0, 2);
    alter(&broker, [("x-max-length", Value::Int(7))]).unwrap();

    (0..10).for_each(|n| client.publish("", "q", n.to_string()));
    assert_eq!(client.drain("q"), ["6", "7", "8", "9"]);
}

#[test]
fn a_paused_queue_takes_messages_and_gives_none_until_its_time() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    declare(&mut client, []);
    let vhost = broker.vhost("/");
    vhost.pause_queue("q", u64::MAX).unwrap();
    client.consume("q", "c");
    client.publish_persistent("", "q", "one");
    client.on(1).expect_nothing();
    assert_eq!(client.counts("q"), (1, 1));
    client.send(basic::Get { queue: "q".into(), no_ack: false });
    client.expect(basic::GetEmpty {});

    vhost.pause_queue("q", 0).unwrap();
    client.expect_delivery("one");
    client.ack(1);
    let until_ms = broker.clock.now_ms() + 600_000;
    vhost.pause_queue("q", until_ms).unwrap();
    client.publish_persistent("", "q", "two");
    client.sync();
    client.close();
    drop(vhost);
    broker.restart();
    let mut client = broker.client();
    client.consume("q", "c");
    client.on(1).expect_nothing();
    assert_eq!(broker.vhost("/").queue("q").unwrap().paused_until_ms(), until_ms);

    broker.advance(Duration::from_secs(600));
    client.expect_delivery("two");
    assert!(broker.vhost("/").pause_queue("other", 0).is_err());
}

#[test]
fn an_argument_or_a_policy_pauses_until_a_time() {
    let broker = Broker::start();
    let mut client = broker.client();
    let until_ms = broker.clock.now_ms() as i64 + 600_000;
    declare(&mut client, [("x-pause-until", Value::Int(until_ms))]);
    client.consume("q", "c");
    client.publish("", "q", "later");
    client.declare("other");
    let policy = |name: &str, until_ms: i64| {
        let policy = serde_json::json!({"vhost": "/", "name": name, "pattern": "^other$", "apply-to": "queues",
                                        "definition": {"pause-until": until_ms}});
        broker.vhost("/").set_policy(serde_json::from_value(policy).unwrap()).unwrap();
    };
    policy("p", i64::MAX);
    client.publish("", "other", "for ever, nearly");
    client.expect_empty("other");
    client.on(1).expect_nothing();
    assert_eq!((client.counts("q").0, client.counts("other").0), (1, 1));

    broker.advance(Duration::from_secs(600));
    client.expect_delivery("later");
    policy("p", until_ms);

    client.get("other", "for ever, nearly");
}

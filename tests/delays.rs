//! Delayed messages: held back until their hour, to the millisecond, across restarts.

use std::time::Duration;

use garenne::vhost::policy::Policy;
use serde_json::json;
use store::Seq;

use crate::support::wire;
use crate::support::*;

/// A delayed exchange of this inner type, and a queue bound to it with key `k`.
fn delayed(client: &mut Client, inner: &str) {
    client.declare_exchange(exchange::Declare {
        exchange: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        arguments: arguments([("x-delayed-type", Value::text(inner))]),
        ..exchange::Declare::default()
    });
    client.declare_durable("q");
    client.bind("q", "later", "k");
}

/// The same behind another exchange, `front`.
fn delayed_behind_another(client: &mut Client) {
    delayed(client, "direct");
    client.exchange("front", "fanout");
    client.bind_exchange("later", "front", "");
}

fn headers<const N: usize>(entries: [(&str, Value); N]) -> Vec<u8> {
    wire::headers(&Table::from_iter(entries))
}

/// A delay, and delivery-mode 2.
fn persistent(ms: i64) -> Vec<u8> {
    let mut out = vec![0x30, 0x00];
    Table::from_iter([("x-delay", Value::Int(ms))]).encode(&mut out);
    out.push(2);
    out
}

fn held(broker: &Broker) -> usize {
    broker.vhost("/").delayed_count("later")
}

#[test]
fn a_message_arrives_when_its_delay_is_over_and_not_before() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.publish_with("later", "k", &headers([("x-delay", Value::Int(5000))]), "five");
    client.publish_with("later", "k", &headers([("x-delay", Value::text("3000"))]), "three");
    client.publish_with("later", "k", &headers([("x-delay", Value::Int(-1))]), "now");
    client.publish("later", "k", "plain");
    client.publish_with("later", "other", &headers([("x-delay", Value::Int(2000))]), "nowhere");
    assert_eq!(client.drain("q"), ["now", "plain"]);
    assert_eq!(held(&broker), 3);

    broker.advance(Duration::from_millis(2900));
    client.expect_empty("q");
    broker.advance(Duration::from_millis(100));
    eventually("the first is due", || client.counts("q").0 == 1);
    let three = client.get("q", "three");
    assert_eq!(three.headers().get("x-delay"), Some(&Value::Int(-3000)));
    assert_eq!((three.exchange(), three.routing_key()), ("later", "k"));
    broker.advance(Duration::from_secs(2));

    eventually("the second is due", || client.counts("q").0 == 1);
    client.get("q", "five");
    assert_eq!(held(&broker), 0);
    // What led nowhere when it was due is kept where people look for such things.
    assert_eq!(client.drain("amq.dead"), ["nowhere"]);
}

#[test]
fn a_time_and_a_level_delay_as_well() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "topic");
    let at = broker.clock.now_ms() as i64 + 60_000;
    client.publish_with("later", "k", &headers([("x-deliver-at", Value::Int(at))]), "in a minute");
    client.publish_with("later", "k", &headers([("x-delay-level", Value::Int(4))]), "level four");
    client.sync();
    assert_eq!(held(&broker), 2);

    broker.advance(Duration::from_secs(31));
    eventually("the level is due", || client.counts("q").0 == 1);
    client.get("q", "level four");
    broker.advance(Duration::from_secs(30));

    eventually("its time has come", || client.counts("q").0 == 1);
    client.get("q", "in a minute");
}

#[test]
fn what_makes_no_sense_is_refused_where_messages_are_delayed_and_inert_elsewhere() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    let senseless = headers([("x-delay", Value::text("soon"))]);
    client.publish_with("", "q", &senseless, "inert");
    client.publish_with("", "q", &headers([("x-delay", Value::Int(5000))]), "inert, too");
    assert_eq!(client.drain("q"), ["inert", "inert, too"]);

    client.publish_with("later", "k", &senseless, "refused");

    let text = "PRECONDITION_FAILED - the header 'x-delay' is 'soon' of type 'longstr', and must be a number";
    client.expect_channel_close(ReplyCode::PreconditionFailed, text);
}

#[test]
fn a_mandatory_message_that_leads_nowhere_today_comes_back_today() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.confirm();
    let mandatory = |key: &str| basic::Publish {
        exchange: "later".into(),
        routing_key: key.into(),
        mandatory: true,
        immediate: false,
    };

    let nowhere = client.content(mandatory("nowhere"), &persistent(1000), b"nowhere");
    client.send_raw(&nowhere);
    client.expect_return("later", "nowhere", "nowhere");
    client.expect_ack(1);
    let somewhere = client.content(mandatory("k"), &persistent(1000), b"somewhere");
    client.send_raw(&somewhere);
    client.expect_ack(2);

    assert_eq!(held(&broker), 1);
    broker.advance(Duration::from_secs(1));
    eventually("it is due", || client.counts("q").0 == 1);
}

#[test]
fn delays_count_on_while_the_broker_is_down_and_come_in_their_order() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    client.confirm();
    for n in 0..300u64 {
        let ms = 1000 + 50 * ((n * 7919) % 300);
        client.publish_with("later", "", &persistent(ms as i64), format!("{ms:05}"));
    }
    client.publish_with("later", "", &persistent(600_000), "late");
    client.expect_confirmed(1, 301);
    client.close();
    broker.stop();

    broker.advance(Duration::from_secs(60));
    broker.restart();
    let mut client = broker.client();
    eventually("all that are due have come", || client.counts("q").0 == 300);
    assert_eq!(held(&broker), 1);

    let expected: Vec<String> = (0..300).map(|n| format!("{:05}", 1000 + 50 * n)).collect();
    assert_eq!(client.drain("q"), expected);
    broker.advance(Duration::from_secs(600));
    eventually("the late one has come", || client.counts("q").0 == 1);
    client.close();
    broker.restart();
    assert_eq!((broker.client().drain("q"), held(&broker)), (vec!["late".to_string()], 0));
}

#[test]
fn after_a_time_the_broker_was_down_messages_come_no_faster_than_they_may() {
    let mut broker = Broker::with(|config| config.delayed_release_rate = 10);
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    (0..5).for_each(|n| client.publish_with("later", "", &persistent(1000), n.to_string()));
    client.sync();
    client.close();
    broker.stop();
    broker.advance(Duration::from_secs(60));
    broker.restart();
    let mut client = broker.client();

    eventually("the first has come", || client.counts("q").0 >= 1);
    assert!(client.counts("q").0 < 5);
    for n in 2..=5 {
        broker.advance(Duration::from_millis(100));
        eventually("one more has come", || client.counts("q").0 >= n);
    }

    assert_eq!(client.drain("q"), ["0", "1", "2", "3", "4"]);
}

#[test]
fn any_exchange_can_delay_by_argument_or_policy() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.declare_exchange(exchange::Declare {
        exchange: "argument".into(),
        kind: "direct".into(),
        arguments: arguments([("delayed", Value::Bool(true))]),
        ..exchange::Declare::default()
    });
    client.exchange("policy", "direct");
    let policy = json!({"vhost": "/", "name": "p", "pattern": "^policy$", "apply-to": "exchanges",
                        "definition": {"delayed": true}});
    let policy: Policy = serde_json::from_value(policy).expect("a policy");
    broker.vhost("/").set_policy(policy).expect("a policy that can be");

    for exchange in ["argument", "policy"] {
        client.bind("q", exchange, "k");
        client.publish(exchange, "k", "first");
        client.publish(exchange, "k", "second");
        client.publish_with(exchange, "k", &headers([("x-delay", Value::Int(1000))]), "delayed");
        assert_eq!(client.drain("q"), ["first", "second"]);
        broker.advance(Duration::from_secs(1));
        eventually("it is due", || client.counts("q").0 == 1);
        assert_eq!(client.drain("q"), ["delayed"]);
    }
}

#[test]
fn what_is_held_back_can_be_purged_and_goes_with_its_exchange() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.publish_with("later", "k", &persistent(1000), "purged");
    client.sync();
    assert_eq!(broker.vhost("/").purge_delayed("later"), Ok(1));
    client.publish_with("later", "k", &persistent(1000), "gone");
    client.sync();
    assert_eq!(held(&broker), 1);

    client.send(exchange::Delete { exchange: "later".into(), ..exchange::Delete::default() });
    client.expect(exchange::DeleteOk {});
    delayed(&mut client, "direct");
    client.close();
    broker.restart();
    broker.advance(Duration::from_secs(1));
    let mut client = broker.client();

    assert_eq!(held(&broker), 0);
    client.expect_empty("q");
}

#[test]
fn a_delayed_publish_of_a_transaction_waits_for_the_commit_and_then_for_its_hour() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.tx();
    client.publish_with("later", "k", &persistent(1000), "forgotten");
    client.rollback();
    client.publish_with("later", "k", &persistent(1000), "committed");
    client.commit();
    assert_eq!(held(&broker), 1);

    broker.advance(Duration::from_secs(1));

    eventually("it is due", || client.counts("q").0 == 1);
    assert_eq!(client.drain("q"), ["committed"]);
}

#[test]
fn the_time_to_live_of_a_delayed_message_begins_when_it_arrives() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    let mut properties = vec![0x21, 0x00];
    Table::from_iter([("x-delay", Value::Int(5000))]).encode(&mut properties);
    properties.extend(wire::short("2000"));
    client.publish_with("later", "k", &properties, "m");
    client.sync();

    broker.advance(Duration::from_secs(5));
    eventually("it is due", || client.counts("q").0 == 1);
    broker.advance(Duration::from_secs(2));

    eventually("it has expired", || client.counts("q").0 == 0);
}

/// Delivery-mode 2, a delay and an id.
fn with_id(ms: i64, id: &str) -> Vec<u8> {
    let mut out = vec![0x30, 0x00];
    Table::from_iter([("x-delay", Value::Int(ms)), ("x-schedule-id", Value::text(id))]).encode(&mut out);
    out.push(2);
    out
}

/// Asks for a delayed message of an exchange to be cancelled. Mandatory, to hear why not.
fn take_back(client: &mut Client, exchange: &str, id: &str) {
    let entries = [("x-schedule-exchange", Value::text(exchange)), ("x-schedule-id", Value::text(id))];
    ask(client, "cancel", &headers(entries));
}

fn ask(client: &mut Client, key: &str, headers: &[u8]) {
    let (exchange, routing_key) = ("amq.schedule".into(), key.into());
    let publish = basic::Publish { exchange, routing_key, mandatory: true, immediate: false };
    let content = client.content(publish, headers, b"");
    client.send_raw(&content);
}

/// A mandatory publish comes back with a reason, and is nacked.
fn expect_refused(client: &mut Client, tag: u64, body: &str, reason: &str) {
    let Event::Message(back) = client.event() else { panic!("it does not come back") };
    let Cold::Basic(basic::AMQPMethod::Return(method)) = &*back.method else { panic!("{back:?}") };
    assert_eq!((method.reply_code, method.reply_text.as_str()), (312, reason));
    assert_eq!(*back.body, *body.as_bytes());
    client.expect(basic::Nack { delivery_tag: tag, multiple: false, requeue: false });
}

#[test]
fn a_delayed_message_is_cancelled_by_its_id_and_an_id_is_given_once() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    client.confirm();
    for id in ["one", "two", "three"] {
        client.publish_with("later", "", &with_id(10_000, id), id);
    }
    client.expect_confirmed(1, 3);
    let again = |client: &mut Client, id: &str| {
        let (exchange, routing_key) = ("later".into(), String::new().into());
        let publish = basic::Publish { exchange, routing_key, mandatory: true, immediate: false };
        let content = client.content(publish, &with_id(10_000, id), b"again");
        client.send_raw(&content);
    };
    again(&mut client, "two");
    let taken = |id: &str| {
        format!(
            "a delayed message with x-schedule-id '{id}' waits in exchange 'later' already; cancel that one first, \
             or take another id"
        )
    };
    expect_refused(&mut client, 4, "again", &taken("two"));
    take_back(&mut client, "later", "one");
    client.expect_ack(5);
    let unknown = |exchange: &str, id: &str| {
        format!(
            "no delayed message with x-schedule-id '{id}' waits in exchange '{exchange}'; it is unknown, or its time \
             has come"
        )
    };
    take_back(&mut client, "later", "one");
    expect_refused(&mut client, 6, "", &unknown("later", "one"));
    take_back(&mut client, "nowhere", "two");
    expect_refused(&mut client, 7, "", &unknown("nowhere", "two"));
    assert_eq!(held(&broker), 2);
    client.close();

    broker.restart();
    let mut client = broker.client();
    client.confirm();
    again(&mut client, "two");
    expect_refused(&mut client, 1, "again", &taken("two"));
    take_back(&mut client, "later", "one");
    expect_refused(&mut client, 2, "", &unknown("later", "one"));
    take_back(&mut client, "later", "two");
    client.expect_ack(3);
    again(&mut client, "two");
    client.expect_ack(4);
    broker.advance(Duration::from_secs(10));
    eventually("both are due", || client.counts("q").0 == 2);
    assert_eq!(client.drain("q"), ["three", "again"]);
    again(&mut client, "three");
    client.expect_ack(5);
    take_back(&mut client, "later", "three");
    client.expect_ack(6);
    client.close();

    broker.restart();
    broker.advance(Duration::from_secs(60));
    assert_eq!((held(&broker), broker.client().counts("q").0), (0, 0));
}

#[test]
fn of_thousands_with_ids_exactly_those_arrive_that_nobody_cancelled() {
    const MESSAGES: u64 = 1500;
    const HOUR_MS: u64 = 3_600_000;
    // A line of its own that is hardly in memory, and one of transient messages.
    let mut broker = Broker::with(|config| config.message_memory_bytes_max = 500_000);
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    client.confirm();
    let id = |n: u64| format!("message {n}");
    for n in 0..MESSAGES {
        let ms = HOUR_MS + (n * 7919) % 60_000;
        client.publish_with("later", "", &with_id(ms as i64, &id(n)), format!("{n:1000}"));
    }
    client.expect_confirmed(1, MESSAGES);
    (0..MESSAGES).filter(|n| n % 3 == 0).for_each(|n| take_back(&mut client, "later", &id(n)));
    client.expect_confirmed(MESSAGES + 1, MESSAGES + MESSAGES / 3);
    assert_eq!(held(&broker) as u64, MESSAGES - MESSAGES / 3);
    client.close();
    broker.restart();
    let mut client = broker.client();
    client.confirm();
    (0..MESSAGES).filter(|n| n % 3 == 1).for_each(|n| take_back(&mut client, "later", &id(n)));
    client.expect_confirmed(1, MESSAGES / 3);
    for n in 0..100 {
        let transient = [("x-delay", Value::Int(HOUR_MS as i64 + n)), ("x-schedule-id", Value::Int(n))];
        client.publish_with("later", "", &headers(transient), format!("{:1000}", n + 10_000));
    }
    (0..100).filter(|n| n % 2 == 0).for_each(|n: i64| take_back(&mut client, "later", &n.to_string()));
    client.expect_confirmed(MESSAGES / 3 + 1, MESSAGES / 3 + 150);

    broker.advance(Duration::from_millis(HOUR_MS + 60_000));
    let expected = MESSAGES / 3 + 50;
    eventually("all have come", || u64::from(client.counts("q").0) == expected);
    let mut arrived: Vec<u64> = client.drain("q").iter().map(|body| body.trim().parse().unwrap()).collect();
    arrived.sort_unstable();
    let transient = (10_000..10_100).filter(|n| n % 2 == 1);
    assert_eq!(arrived, (0..MESSAGES).filter(|n| n % 3 == 2).chain(transient).collect::<Vec<_>>());
    assert_eq!(held(&broker), 0);
}

#[test]
fn a_purge_forgets_the_ids_as_well() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    client.confirm();
    client.publish_with("later", "", &with_id(10_000, "one"), "first");
    client.expect_ack(1);

    assert_eq!(broker.vhost("/").purge_delayed("later").unwrap(), 1);

    client.publish_with("later", "", &with_id(10_000, "one"), "second");
    client.expect_ack(2);
    client.close();
    broker.restart();
    broker.advance(Duration::from_secs(10));
    let mut client = broker.client();
    eventually("it is due", || client.counts("q").0 == 1);
    client.get("q", "second");
}

#[test]
fn what_cannot_be_cancelled_or_scheduled_is_said_by_name() {
    let broker = Broker::with(|config| {
        config.seed.users.push(user("reader", "reader", &[]));
        config.seed.permissions.push(permission("reader", "/", [".*", "^amq\\.schedule$", ".*"]));
    });
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    let refusals = [
        (
            "delete",
            headers([]),
            "PRECONDITION_FAILED - exchange 'amq.schedule' takes the key 'cancel', not 'delete'",
        ),
        (
            "cancel",
            headers([]),
            "PRECONDITION_FAILED - the header 'x-schedule-id' must say which message is cancelled",
        ),
        (
            "cancel",
            headers([("x-schedule-id", Value::text("one"))]),
            "PRECONDITION_FAILED - the header 'x-schedule-exchange' must name the exchange that delays the message",
        ),
    ];
    for (n, (key, headers, text)) in (2..).zip(refusals) {
        client.open_channel(n);
        let mut on = client.on(n);
        ask(&mut on, key, &headers);
        on.expect_channel_close(ReplyCode::PreconditionFailed, text);
    }
    client.publish_with(
        "later",
        "",
        &headers([("x-delay", Value::Int(5)), ("x-schedule-id", Value::Bool(true))]),
        "x",
    );
    client.expect_channel_close(
        ReplyCode::PreconditionFailed,
        "PRECONDITION_FAILED - the header 'x-schedule-id' must be a text that is not empty, or a number",
    );
    let mut client = broker.client();
    client.tx();
    take_back(&mut client, "later", "one");
    client.expect_channel_close(
        ReplyCode::PreconditionFailed,
        "PRECONDITION_FAILED - a delayed message is cancelled at once, which no transaction can take back; use a \
         channel without one",
    );

    let mut reader = broker.client_as(&Login::of("reader", "reader"));
    take_back(&mut reader, "later", "one");
    reader.expect_channel_close(
        ReplyCode::AccessRefused,
        "ACCESS_REFUSED - access to exchange 'later' in vhost '/' refused for user 'reader'",
    );
}

#[test]
fn an_exchange_holds_back_what_comes_from_another_one_and_from_dead_letters() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed_behind_another(&mut client);
    client.declare_durable("at once");
    client.bind("at once", "front", "");
    client.declare_durable_with("failing", arguments([("x-dead-letter-exchange", Value::text("later"))]));
    client.bind("q", "later", "failing");
    client.confirm();
    client.publish_with("front", "k", &persistent(10_000), "through");
    client.publish_with("", "failing", &persistent(20_000), "failed");
    client.expect_confirmed(1, 2);
    assert_eq!(client.drain("at once"), ["through"]);
    client.get("failing", "failed");
    client.nack(2, false, false);
    eventually("both are held back", || held(&broker) == 2);
    client.close();
    broker.restart();
    let mut client = broker.client();
    assert_eq!(held(&broker), 2);
    client.expect_empty("q");

    broker.advance(Duration::from_secs(10));
    eventually("the first is due", || client.counts("q").0 == 1);
    broker.advance(Duration::from_secs(20));
    eventually("both are due", || held(&broker) == 0);

    assert_eq!(client.drain("q"), ["through", "failed"]);
}

#[test]
fn a_transaction_and_a_mandatory_publish_see_what_is_held_back_on_the_way() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed_behind_another(&mut client);
    client.confirm();
    let publish = basic::Publish {
        exchange: "front".into(),
        routing_key: "k".into(),
        mandatory: true,
        immediate: false,
    };
    let content = client.content(publish, &persistent(1000), b"held");
    client.send_raw(&content);
    client.expect_ack(1);
    assert_eq!(held(&broker), 1);
    client.open_channel(2);
    let mut on = client.on(2);
    on.tx();
    on.publish_with("front", "k", &persistent(1000), "rolled back");
    on.rollback();
    on.publish_with("front", "k", &persistent(1000), "committed");
    on.commit();
    drop(on);
    assert_eq!(held(&broker), 2);

    broker.advance(Duration::from_secs(1));

    eventually("they are due", || held(&broker) == 0);
    assert_eq!(client.drain("q"), ["held", "committed"]);
}

#[test]
fn a_blind_copy_arrives_when_the_message_does_and_nobody_sees_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "direct");
    client.declare("blind");
    client.bind("blind", "later", "b");
    let copies = |key: &str| Value::Array(vec![Value::text(key)]);
    client.publish_with("later", "k", &headers([("x-delay", Value::Int(1000)), ("BCC", copies("b"))]), "m");
    client.sync();
    assert_eq!(held(&broker), 1);

    broker.advance(Duration::from_secs(1));

    eventually("it is due", || client.counts("q").0 == 1);
    for queue in ["q", "blind"] {
        let got = client.get(queue, "m");
        assert!(got.headers().get("BCC").is_none() && got.headers().get("x-delay").is_some());
    }
}

#[test]
fn a_policy_says_how_fast_what_is_overdue_goes_on() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    let policy = json!({"vhost": "/", "name": "p", "pattern": "^later$", "apply-to": "exchanges",
                        "definition": {"delayed-release-rate": 10}});
    let policy: Policy = serde_json::from_value(policy).expect("a policy");
    broker.vhost("/").set_policy(policy).expect("a policy that can be");
    (0..5).for_each(|n| client.publish_with("later", "", &persistent(1000), n.to_string()));
    client.sync();
    client.close();
    broker.stop();
    broker.advance(Duration::from_secs(60));
    broker.restart();
    let mut client = broker.client();

    eventually("the first has come", || client.counts("q").0 >= 1);
    assert!(client.counts("q").0 < 5);
    assert!(broker.vhost("/").clear_policy("p", false));

    eventually("all have come", || client.counts("q").0 == 5);
}

#[test]
fn delayed_messages_are_listed_in_their_order_wherever_they_are() {
    let mut broker = Broker::with(|config| config.message_memory_bytes_max = 100_000);
    let mut client = broker.client();
    delayed(&mut client, "fanout");
    client.confirm();
    // Some are kept, some are transient, and there are more than memory holds.
    let ms = |n: u64| 3_600_000 + n * 7919 % 400 * 10;
    for n in 0..400u64 {
        let properties = match n % 4 {
            0 => headers([("x-delay", Value::Int(ms(n) as i64))]),
            _ => persistent(ms(n) as i64),
        };
        client.publish_with("later", "", &properties, format!("{n:>1000}"));
    }
    client.expect_confirmed(1, 400);
    let listed = |broker: &Broker| -> Vec<(u64, u64)> {
        let vhost = broker.vhost("/");
        let (mut all, mut after) = (Vec::new(), (0, Seq(0)));
        loop {
            let page = vhost.list_delayed("later", after, 30).unwrap();
            assert!(page.len() <= 30 && page.iter().all(|due| (due.at_ms, due.seq) > after));
            let Some(last) = page.last() else { return all };
            after = (last.at_ms, last.seq);
            let number = |due: &garenne::queue::Due| {
                let body = String::from_utf8(due.message.parts.body().to_vec()).unwrap();
                (due.at_ms, body.trim().parse().unwrap())
            };
            all.extend(page.iter().map(number));
        }
    };
    let all = listed(&broker);
    assert!(all.is_sorted_by_key(|(at_ms, _)| *at_ms));
    let mut numbers: Vec<u64> = all.iter().map(|(_, n)| *n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    client.close();

    broker.restart();
    assert_eq!(listed(&broker), all.into_iter().filter(|(_, n)| n % 4 != 0).collect::<Vec<_>>());
    assert_eq!(broker.vhost("/").purge_delayed("later").unwrap(), 300);
    assert_eq!(listed(&broker), []);
    assert!(broker.vhost("/").list_delayed("nowhere", (0, Seq(0)), 1).is_err());
}

//! How much a queue may hold, and what gives way when there is no room.

use crate::support::wire;
use crate::support::*;

fn limited(client: &mut Client, queue: &str, more: &[(&str, Value)]) {
    let table: Table = more.iter().map(|(name, value)| (*name, value.clone())).collect();
    client.declare_durable_with(queue, (&table).into());
}

fn length(n: i64) -> (&'static str, Value) {
    ("x-max-length", Value::Int(n))
}

fn overflow(how: &str) -> (&'static str, Value) {
    ("x-overflow", Value::text(how))
}

#[test]
fn the_oldest_give_way_and_those_that_are_out_do_not_count() {
    let broker = Broker::start();
    let mut client = broker.client();
    limited(&mut client, "q", &[length(3)]);
    client.publish("", "q", "out");
    let out = client.get("q", "out").tag();

    for body in ["a", "b", "c", "d", "e"] {
        client.publish("", "q", body);
    }
    assert_eq!(client.counts("q"), (3, 0));
    client.nack(out, false, true);

    // It is first again, and so the first to go.
    assert_eq!(client.drain("q"), ["c", "d", "e"]);
}

#[test]
fn bodies_count_for_a_limit_in_bytes_and_a_larger_one_never_fits() {
    let broker = Broker::start();
    let mut client = broker.client();
    limited(&mut client, "q", &[("x-max-length-bytes", Value::Int(10))]);

    for body in ["aaaa", "bbbb", "cc", "d"] {
        client.publish("", "q", body);
    }
    assert_eq!(client.counts("q"), (3, 0));
    client.publish("", "q", "a body of more than ten");
    assert_eq!(client.counts("q"), (0, 0));
    client.publish("", "q", "0123456789");

    assert_eq!(client.drain("q"), ["0123456789"]);
}

#[test]
fn a_queue_of_length_zero_is_for_consumers_that_wait() {
    let broker = Broker::start();
    let mut client = broker.client();
    limited(&mut client, "q", &[length(0)]);
    client.publish("", "q", "nobody waits");
    client.consume("q", "c");

    client.publish("", "q", "somebody waits");

    client.expect_delivery("somebody waits");
}

#[test]
fn a_full_queue_that_refuses_nacks_and_keeps_what_it_has() {
    let broker = Broker::start();
    let mut client = broker.client();
    limited(&mut client, "q", &[length(2), overflow("reject-publish")]);
    client.declare_durable("other");
    client.exchange("both", "fanout");
    client.bind("q", "both", "");
    client.bind("other", "both", "");
    client.confirm();
    client.publish_persistent("", "q", "a");
    client.publish_persistent("both", "", "b");
    client.expect_confirmed(1, 2);

    client.publish_persistent("both", "", "c");
    client.expect(basic::Nack { delivery_tag: 3, multiple: false, requeue: false });
    let tag = client.get("q", "a").tag();
    client.ack(tag);
    client.publish_persistent("", "q", "d");
    client.expect_ack(4);

    assert_eq!(
        (client.drain("q"), client.drain("other")),
        (vec!["b".into(), "d".into()], vec!["b".into(), "c".into()])
    );
}

#[test]
fn what_a_consumer_takes_makes_room_for_the_next_of_the_same_batch() {
    let broker = Broker::start();
    let (mut client, mut consumer) = (broker.client(), broker.client());
    limited(&mut client, "q", &[length(1), overflow("reject-publish")]);
    consumer.qos(3, false);
    consumer.consume("q", "c");
    client.confirm();

    let one = |n: u8| {
        let publish = basic::Publish { routing_key: "q".into(), ..basic::Publish::default() };
        client.content(publish, wire::NO_PROPERTIES, &[b'0' + n])
    };
    let all: Vec<u8> = (0..6).flat_map(one).collect();
    client.send_raw(&all);

    client.expect_confirmed(1, 4);
    for delivery_tag in [5, 6] {
        client.expect(basic::Nack { delivery_tag, multiple: false, requeue: false });
    }
    ["0", "1", "2"].into_iter().for_each(|body| drop(consumer.expect_delivery(body)));
    assert_eq!(client.drain("q"), ["3"]);
}

#[test]
fn a_refused_message_can_be_a_dead_letter() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let dlx =
        [("x-dead-letter-exchange", Value::text("")), ("x-dead-letter-routing-key", Value::text("dead"))];
    limited(&mut client, "q", &[length(1), overflow("reject-publish-dlx"), dlx[0].clone(), dlx[1].clone()]);
    client.confirm();
    client.publish_persistent("", "q", "in");
    client.expect_ack(1);

    client.publish_persistent("", "q", "refused");
    client.expect(basic::Nack { delivery_tag: 2, multiple: false, requeue: false });

    eventually("it is a dead letter", || client.counts("dead").0 == 1);
    assert_eq!(client.get("dead", "refused").deaths(), [(1, "q".into(), "maxlen".into())]);
}

#[test]
fn what_gives_way_is_a_dead_letter_in_its_order() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("dead");
    let dlx =
        [("x-dead-letter-exchange", Value::text("")), ("x-dead-letter-routing-key", Value::text("dead"))];
    limited(&mut client, "q", &[length(2), dlx[0].clone(), dlx[1].clone()]);

    for n in 0..20 {
        client.publish_persistent("", "q", n.to_string());
    }
    eventually("the others are dead letters", || client.counts("dead").0 == 18);

    let bodies = |range: std::ops::Range<i32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!((client.drain("dead"), client.drain("q")), (bodies(0..18), bodies(18..20)));
}

#[test]
fn a_transaction_that_finds_no_room_does_nothing() {
    let broker = Broker::start();
    let mut client = broker.client();
    limited(&mut client, "q", &[length(2), overflow("reject-publish")]);
    client.open_channel(2);
    client.tx();
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }

    client.send(tx::Commit {});

    let text = "PRECONDITION_FAILED - queue 'q' in vhost '/' has no room for a message of this transaction; \
                nothing of it was done";
    client.expect_channel_close(ReplyCode::PreconditionFailed, text);
    assert_eq!(client.on(2).counts("q"), (0, 0));
}

#[test]
fn a_limit_holds_again_after_a_restart_in_messages_and_in_bytes() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    limited(&mut client, "length", &[length(5)]);
    limited(&mut client, "bytes", &[("x-max-length-bytes", Value::Int(50))]);
    for n in 0..5 {
        client.publish_persistent("", "length", format!("{n:010}"));
        client.publish_persistent("", "bytes", format!("{n:010}"));
    }
    client.sync();
    client.close();

    broker.restart();
    let mut client = broker.client();
    for queue in ["length", "bytes"] {
        client.publish_persistent("", queue, format!("{:010}", 5));
        eventually("the oldest is gone", || client.counts(queue).0 == 5);
        let expected: Vec<String> = (1..=5).map(|n| format!("{n:010}")).collect();
        assert_eq!(client.drain(queue), expected);
    }
}

#[test]
fn a_limit_in_bytes_holds_after_a_restart_in_which_messages_expired() {
    let mut broker = Broker::start();
    let mut client = broker.client();
    for n in 0..20 {
        let queue = format!("q{n}");
        limited(&mut client, &queue, &[("x-max-length-bytes", Value::Int(20)), overflow("reject-publish")]);
        client.publish_persistent("", &queue, "0123456789");
        client.publish_with("", &queue, &wire::persistent_with_expiration("1000"), "abcdefghij");
    }
    client.sync();
    client.close();
    broker.stop();
    broker.advance(std::time::Duration::from_secs(1));

    broker.restart();
    let mut client = broker.client();

    client.confirm();
    for n in 0..20 {
        let queue = format!("q{n}");
        eventually("one has expired", || client.counts(&queue).0 == 1);
        let has_room = || broker.vhost("/").queue(&queue).expect("a queue").has_room(1, 10);
        eventually("there is room again", has_room);
    }
}

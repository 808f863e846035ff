//! Queues longer than the memory they may take: what was left to the store comes back, in order, once.

use std::time::Duration;

use crate::support::wire;
use crate::support::*;

/// A broker whose queues leave everything to the store that they can.
fn forgetful() -> Broker {
    Broker::with(|config| config.message_memory_bytes_max = 0)
}

fn body(n: u64) -> String {
    format!("message {n} {}", "x".repeat(n as usize % 700))
}

fn fill(client: &mut Client, queue: &str, from: u64, to: u64) {
    client.open_channel(9);
    let mut client = client.on(9);
    client.confirm();
    (from..to).for_each(|n| client.publish_persistent("", queue, body(n)));
    client.expect_confirmed(1, to - from);
    client.close_channel();
}

/// Takes messages 0 to `count` (a multiple of 20) with acknowledgements, each for the first time.
fn consume_in_order(client: &mut Client, queue: &str, count: u64) {
    client.qos(50, false);
    client.consume(queue, "c");
    for n in 0..count {
        let delivery = client.expect_delivery(&body(n));
        assert!(!delivery.redelivered());
        if n % 20 == 19 {
            client.ack_through(n + 1);
        }
    }
}

#[test]
fn a_long_queue_comes_back_in_order_and_each_message_once() {
    let broker = forgetful();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", 0, 3000);
    assert_eq!(client.counts("q"), (3000, 0));

    consume_in_order(&mut client, "q", 3000);

    client.ack_through(0);
    client.expect_nothing();
    assert_eq!(client.counts("q"), (0, 1));
}

#[test]
fn messages_come_and_go_at_both_ends() {
    let broker = forgetful();
    let (mut client, mut publisher) = (broker.client(), broker.client());
    client.declare_durable("q");
    client.qos(7, false);
    client.consume("q", "c");
    let mut expected = 0;

    for round in 0..40 {
        fill(&mut publisher, "q", round * 50, (round + 1) * 50);
        for _ in 0..45 {
            let delivery = client.expect_delivery(&body(expected));
            client.ack(delivery.tag());
            expected += 1;
        }
    }

    for n in expected..40 * 50 {
        let delivery = client.expect_delivery(&body(n));
        client.ack(delivery.tag());
    }
    assert_eq!(client.counts("q"), (0, 1));
}

#[test]
fn transient_messages_keep_their_place_between_persistent_ones() {
    let broker = forgetful();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    for n in 0..200 {
        match n % 3 {
            0 => client.publish("", "q", body(n)),
            _ => client.publish_persistent("", "q", body(n)),
        }
    }
    client.expect_confirmed(1, 200);

    let got = client.drain("q");

    assert_eq!(got, (0..200).map(body).collect::<Vec<_>>());
}

#[test]
fn what_is_requeued_comes_before_what_is_away() {
    let broker = forgetful();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", 0, 500);
    client.qos(10, false);
    client.consume("q", "c");
    (0..10).for_each(|n| drop(client.expect_delivery(&body(n))));

    client.nack(4, false, true);
    client.nack(2, false, true);
    let third = client.expect_delivery(&body(3));
    let first = client.expect_delivery(&body(1));

    assert!(first.redelivered() && third.redelivered());
    client.cancel("c");
    client.nack(0, true, true);
    assert_eq!(client.drain("q"), (0..500).map(body).collect::<Vec<_>>());
}

#[test]
fn a_purge_reaches_what_is_away_and_nothing_else() {
    let mut broker = forgetful();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", 0, 2500);
    let unacked = client.get("q", &body(0));

    client.send(queue::Purge { queue: "q".into(), ..Default::default() });
    client.expect(queue::PurgeOk { message_count: 2499 });
    fill(&mut client, "q", 3000, 3010);
    client.nack(unacked.tag(), false, true);
    client.sync();
    client.close();
    broker.restart();

    let left: Vec<String> = [0].into_iter().chain(3000..3010).map(body).collect();
    assert_eq!(broker.client().drain("q"), left);
}

#[test]
fn messages_expire_while_they_are_away_and_leave_the_others() {
    let broker = forgetful();
    let mut client = broker.client();
    client.declare_durable("q");
    client.confirm();
    for n in 0..300u64 {
        match n % 3 {
            0 => client.publish_persistent("", "q", body(n)),
            1 => client.publish_with("", "q", &wire::persistent_with_expiration("5000"), body(n)),
            _ => client.publish_with("", "q", &wire::persistent_with_expiration("3600000"), body(n)),
        }
    }
    client.expect_confirmed(1, 300);

    broker.advance(Duration::from_secs(6));
    eventually("a third expires", || client.counts("q").0 == 200);

    assert_eq!(client.drain("q"), (0..300).filter(|n| n % 3 != 1).map(body).collect::<Vec<_>>());
}

#[test]
fn a_queue_with_a_time_to_live_expires_what_it_has_not_read() {
    let mut broker = forgetful();
    let mut client = broker.client();
    client.declare_durable_with("q", arguments([("x-message-ttl", Value::Int(60_000))]));
    fill(&mut client, "q", 0, 400);
    broker.advance(Duration::from_secs(30));
    fill(&mut client, "q", 400, 500);
    client.close();
    broker.restart();
    let mut client = broker.client();
    assert_eq!(client.counts("q"), (500, 0));

    broker.advance(Duration::from_secs(31));
    eventually("the old ones expire", || client.counts("q").0 == 100);

    assert_eq!(client.drain("q"), (400..500).map(body).collect::<Vec<_>>());
}

#[test]
fn commits_and_fan_outs_come_back_once_in_each_queue() {
    let broker = forgetful();
    let mut client = broker.client();
    for queue in ["a", "b"] {
        client.declare_durable(queue);
        client.bind(queue, "amq.fanout", "");
    }
    client.tx();
    for round in 0..20 {
        (0..10).for_each(|n| client.publish_persistent("amq.fanout", "", body(round * 10 + n)));
        client.commit();
    }

    for queue in ["a", "b"] {
        assert_eq!(client.drain(queue), (0..200).map(body).collect::<Vec<_>>());
    }
}

#[test]
fn a_get_that_has_to_read_holds_the_next_request_until_it_is_answered() {
    let broker = forgetful();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", 0, 3);
    let get = || basic::Get { queue: "q".into(), no_ack: true };

    (0..4).for_each(|_| client.send(get()));

    (0..3).for_each(|n| drop(client.expect_got(&body(n))));
    client.expect(basic::GetEmpty {});
}

#[test]
fn a_long_queue_of_before_a_crash_is_there_at_once_and_whole() {
    let mut broker = Process::start();
    let mut client = broker.client();
    client.declare_durable("q");
    fill(&mut client, "q", 0, 3000);

    broker.crash();

    let mut client = broker.client();

    assert_eq!(client.counts("q"), (3000, 0));
    assert_eq!(client.drain("q"), (0..3000).map(body).collect::<Vec<_>>());
}

/// A broker that keeps no more than a few messages in memory, whether they are kept or not.
fn spilling() -> Broker {
    Broker::with(|config| {
        config.message_memory_bytes_max = 0;
        config.transient_memory_bytes_max = Some(50_000);
    })
}

fn fill_transient(client: &mut Client, queue: &str, from: u64, to: u64) {
    (from..to).for_each(|n| client.publish("", queue, body(n)));
    // All of them are in the queue when this is answered.
    client.sync();
}

#[test]
fn a_long_queue_of_transient_messages_is_spilled_and_comes_back_in_order() {
    for durable in [false, true] {
        let broker = spilling();
        let (mut client, mut publisher) = (broker.client(), broker.client());
        client.declare_queue(queue::Declare { queue: "q".into(), durable, ..Default::default() });
        for round in 0..30 {
            fill_transient(&mut publisher, "q", round * 100, (round + 1) * 100);
        }
        assert_eq!(client.counts("q"), (3000, 0));

        consume_in_order(&mut client, "q", 3000);

        client.expect_nothing();
        assert_eq!(client.counts("q"), (0, 1));
    }
}

#[test]
fn persistent_and_transient_messages_keep_their_order_and_only_the_first_survive_a_restart() {
    let mut broker = spilling();
    let mut client = broker.client();
    client.declare_durable("q");
    for n in 0..2000 {
        match n % 3 {
            0 => client.publish_persistent("", "q", body(n)),
            _ => client.publish("", "q", body(n)),
        }
        if n % 100 == 99 {
            client.sync();
        }
    }
    for n in 0..600 {
        client.get("q", &body(n));
    }
    client.ack_through(0);
    client.sync();

    broker.restart();

    let mut client = broker.client();
    assert_eq!(client.counts("q").0, 467);
    for n in (600..2000).filter(|n| n % 3 == 0) {
        client.get("q", &body(n));
    }
    client.expect_empty("q");
}

#[test]
fn spilled_messages_go_when_they_are_purged_and_with_their_queue_and_requeued_ones_come_again() {
    let broker = spilling();
    let mut client = broker.client();
    client.declare("q");
    for round in 0..10 {
        fill_transient(&mut client, "q", round * 100, (round + 1) * 100);
    }
    for n in 0..300 {
        client.get("q", &body(n));
    }
    client.nack(0, true, true);
    client.sync();
    assert_eq!(client.counts("q"), (1000, 0));
    for n in 0..400 {
        assert_eq!(client.get("q", &body(n)).redelivered(), n < 300);
    }

    client.send(queue::Purge { queue: "q".into(), nowait: false });
    client.expect(queue::PurgeOk { message_count: 600 });
    client.nack(0, true, true);
    client.sync();
    (0..400).for_each(|n| drop(client.get("q", &body(n))));
    client.expect_empty("q");
    client.send(queue::Delete { queue: "q".into(), ..Default::default() });
    client.expect(queue::DeleteOk { message_count: 0 });
    client.declare("q");
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn a_fanout_that_is_spilled_reaches_every_queue_once() {
    let broker = spilling();
    let mut client = broker.client();
    client.exchange("f", "fanout");
    for queue in ["a", "b", "c"] {
        client.declare(queue);
        client.bind(queue, "f", "");
    }
    for n in 0..1000 {
        client.publish("f", "", body(n));
        if n % 50 == 49 {
            client.sync();
        }
    }
    for queue in ["a", "b", "c"] {
        (0..1000).for_each(|n| drop(client.get(queue, &body(n))));
        client.expect_empty(queue);
    }
}

//! The tx class: what waits for the commit, and what a rollback forgets.

use crate::support::wire;
use crate::support::*;

#[test]
fn publishes_become_visible_at_the_commit() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare_durable("q");
    other.consume("q", "c");
    client.tx();
    client.publish_persistent("", "q", "one");
    client.publish("", "q", "two");
    client.sync();
    other.expect_nothing();

    client.commit();

    other.expect_delivery("one");
    other.expect_delivery("two");
}

#[test]
fn a_rollback_forgets_publishes() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("q");
    client.tx();
    client.publish_persistent("", "q", "forgotten");

    client.rollback();
    client.commit();
    client.publish_persistent("", "q", "kept");
    client.commit();

    assert_eq!(client.drain("q"), ["kept"]);
}

#[test]
fn acks_count_at_the_commit_and_not_after_a_rollback() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    for body in ["one", "two"] {
        client.publish("", "q", body);
    }
    client.tx();
    let one = client.get("q", "one").tag();
    client.get("q", "two");

    client.ack(one);
    client.rollback();
    client.ack(one);
    client.commit();
    client.close_channel();

    assert_eq!(other.drain_marked("q"), [("two".to_string(), true)]);
}

#[test]
fn a_rollback_delivers_nothing_again() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    for body in ["one", "two"] {
        client.publish("", "q", body);
    }
    client.tx();
    client.consume("q", "c");
    client.expect_delivery("one");
    let two = client.expect_delivery("two").tag();

    client.ack_through(two);
    client.rollback();

    client.expect_nothing();
    client.ack_through(two);
    client.commit();
    client.close_channel();
    client.open_channel(1);
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn credit_comes_back_at_the_commit() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    for body in ["one", "two"] {
        client.publish("", "q", body);
    }
    client.tx();
    client.qos(1, false);
    client.consume("q", "c");
    let tag = client.expect_delivery("one").tag();

    client.ack(tag);
    client.expect_nothing();
    client.commit();

    client.expect_delivery("two");
}

#[test]
fn requeues_wait_for_the_commit() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    for body in ["one", "two", "three"] {
        client.publish("", "q", body);
    }
    client.tx();
    client.get("q", "one");
    let two = client.get("q", "two").tag();

    client.nack(two, true, true);
    client.sync();
    assert_eq!(other.counts("q"), (1, 0));
    client.commit();

    let expected = [("one", true), ("two", true), ("three", false)].map(|(b, r)| (b.to_string(), r));
    assert_eq!(other.drain_marked("q"), expected);
}

#[test]
fn publishes_and_acks_of_one_transaction_happen_together() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    for queue in ["from", "to", "also"] {
        client.declare_durable(queue);
    }
    client.publish_persistent("", "from", "m");
    client.tx();
    let tag = client.get("from", "m").tag();

    client.publish_persistent("", "to", "m");
    client.publish_persistent("", "also", "m");
    client.ack(tag);
    client.commit();

    assert_eq!(other.drain("to"), ["m"]);
    assert_eq!(other.drain("also"), ["m"]);
    client.close_channel();
    assert_eq!(other.counts("from"), (0, 0));
}

#[test]
fn a_mandatory_return_comes_at_the_commit_and_before_commit_ok() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.tx();

    client.publish_mandatory("", "nowhere", "lost");
    client.expect_nothing();
    client.send(tx::Commit {});

    client.expect_return("", "nowhere", "lost");
    client.expect(tx::CommitOk {});
}

#[test]
fn closing_the_channel_without_a_commit_is_a_rollback() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish("", "q", "one");
    client.tx();
    let tag = client.get("q", "one").tag();
    client.publish("", "q", "never");
    client.ack(tag);

    client.close_channel();

    client.open_channel(1);
    assert_eq!(client.drain_marked("q"), [("one".to_string(), true)]);
}

#[test]
fn a_client_that_vanishes_without_a_commit_has_done_nothing() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare("q");
    client.publish("", "q", "one");
    client.tx();
    let tag = client.get("q", "one").tag();
    client.publish("", "q", "never");
    client.ack(tag);
    client.sync();

    drop(client);

    eventually("its message is back", || other.counts("q") == (1, 0));
    assert_eq!(other.drain_marked("q"), [("one".to_string(), true)]);
}

#[test]
fn a_refused_publish_closes_the_channel_at_once_and_forgets_the_transaction() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.tx();
    client.publish("", "q", "forgotten");

    client.publish("missing", "k", "m");

    client.expect_error(ReplyCode::NotFound, "NOT_FOUND - no exchange 'missing' in vhost '/'");
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn an_ack_of_an_unknown_tag_closes_the_channel_at_once() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish("", "q", "m");
    client.tx();
    let tag = client.get("q", "m").tag();
    client.ack(tag);

    client.ack(tag);

    let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
    client.expect_error(ReplyCode::PreconditionFailed, &text);
    assert_eq!(client.drain_marked("q"), [("m".to_string(), true)]);
}

#[test]
fn declares_and_gets_without_ack_are_no_part_of_it() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.publish("", "q", "m");
    client.tx();

    client.declare("made meanwhile");
    client.send(basic::Get { queue: "q".into(), no_ack: true });
    client.expect_got("m");
    client.rollback();

    assert_eq!(client.counts("made meanwhile"), (0, 0));
    assert_eq!(client.counts("q"), (0, 0));
}

#[test]
fn commit_and_rollback_need_a_transaction() {
    let broker = Broker::start();
    let mut client = broker.client();
    let text = "PRECONDITION_FAILED - channel is not transactional";

    client.send(tx::Commit {});
    client.expect_error(ReplyCode::PreconditionFailed, text);
    client.send(tx::Rollback {});
    client.expect_error(ReplyCode::PreconditionFailed, text);
    client.confirm();
    client.send(tx::Commit {});
    client.expect_error(ReplyCode::PreconditionFailed, text);

    client.tx();
    client.tx();
    client.commit();
    client.rollback();
    client.commit();
}

#[test]
fn a_queue_deleted_before_the_commit_takes_nothing_and_hurts_nobody() {
    let broker = Broker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.declare_durable("q");
    client.declare_durable("other");
    client.tx();
    client.publish_persistent("", "q", "m");
    client.publish_persistent("", "other", "m");

    other.send(queue::Delete { queue: "q".into(), ..Default::default() });
    other.expect(queue::DeleteOk { message_count: 0 });
    client.commit();

    assert_eq!(other.drain("other"), ["m"]);
}

#[test]
fn a_message_may_expire_after_the_commit_and_not_before() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("q");
    client.tx();
    client.publish_with("", "q", &wire::expiration("60000"), "m");
    client.sync();

    broker.advance(std::time::Duration::from_secs(50));
    client.commit();

    // RabbitMQ counts from the commit, which is when the message reaches its queue.
    broker.advance(std::time::Duration::from_secs(50));
    assert_eq!(client.counts("q"), (1, 0));
    broker.advance(std::time::Duration::from_secs(11));
    eventually("its time is over", || client.counts("q") == (0, 0));
}

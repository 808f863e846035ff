//! How many connections, channels, consumers and queues users, vhosts and the broker may have; and vhosts
//! themselves.

use garenne::broker::{Actor, VhostChanges};
use serde_json::json;

use crate::support::*;

fn limit_user(broker: &Broker, name: &str, value: i64) {
    broker.inner().set_user_limit(&Actor::broker(), "guest", name, &json!(value)).unwrap();
}

fn limit_vhost(broker: &Broker, name: &str, value: i64) {
    broker.inner().set_vhost_limit(&Actor::broker(), "/", name, &json!(value)).unwrap();
}

#[track_caller]
fn expect_refused(broker: &Broker, text: &str) {
    let mut stranger = broker.stranger();
    stranger.ask_to_open(&Login::default());
    stranger.expect_connection_close(ReplyCode::NotAllowed, &format!("NOT_ALLOWED - {text}"));
}

#[test]
fn a_user_has_no_more_connections_than_it_may() {
    let broker = Broker::start();
    limit_user(&broker, "max-connections", 1);
    let mut client = broker.client();

    expect_refused(&broker, "connection refused for user 'guest': user connection limit (1) is reached");
    client.close();
    let _client = broker.client();
    limit_user(&broker, "max-connections", -1);
    broker.client();
}

#[test]
fn a_vhost_has_no_more_connections_than_it_may() {
    let mut broker = Broker::start();
    limit_vhost(&broker, "max-connections", 0);
    broker.restart();

    expect_refused(&broker, "access to vhost '/' refused for user 'guest': connection limit (0) is reached");
    broker.inner().clear_vhost_limit(&Actor::broker(), "/", "max-connections").unwrap();
    broker.client();
}

#[test]
fn the_broker_has_no_more_connections_and_channels_than_it_may() {
    let broker = Broker::with(|config| {
        config.connection_max = Some(2);
        config.channel_max_per_node = Some(3);
        config.node_name = "rabbit@here".into();
    });
    let (mut client, mut other) = (broker.client(), broker.client());

    expect_refused(&broker, "connection refused: node connection limit (2) is reached");
    client.open_channel(2);
    other.on(2).send(channel::Open {});
    let text = "NOT_ALLOWED - number of channels opened on node 'rabbit@here' has reached the maximum allowed limit \
                of (3)";
    other.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn a_user_has_no_more_channels_than_it_may() {
    let broker = Broker::start();
    limit_user(&broker, "max-channels", 2);
    let mut client = broker.client();
    client.open_channel(2);
    client.on(2).close_channel();
    client.open_channel(3);

    client.on(4).send(channel::Open {});
    let text = "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user limit \
                of (2)";
    client.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn a_channel_has_no_more_consumers_than_it_may() {
    let broker = Broker::with(|config| config.consumer_max_per_channel = Some(1));
    let mut client = broker.client();
    client.declare("q");
    client.consume("q", "a");

    client.send(basic::Consume { queue: "q".into(), consumer_tag: "b".into(), ..basic::Consume::default() });
    let text = "NOT_ALLOWED - reached maximum (1) of consumers per channel";
    client.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn a_vhost_has_no_more_queues_than_it_may() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare("a");
    limit_vhost(&broker, "max-queues", 1);

    client.declare("a");
    client.send(queue::Declare { queue: "b".into(), ..queue::Declare::default() });
    let text = "PRECONDITION_FAILED - cannot declare queue 'b': queue limit in vhost '/' (1) is reached";
    client.expect_channel_close(ReplyCode::PreconditionFailed, text);
}

#[test]
fn what_is_no_limit_is_refused() {
    let broker = Broker::start();
    let set = |name: &str, value| broker.inner().set_vhost_limit(&Actor::broker(), "/", name, &value);

    assert!(set("max-foo", json!(1)).unwrap_err().to_string().contains("max-foo"));
    assert!(set("max-queues", json!("a")).unwrap_err().to_string().contains("should be a number"));
    assert!(broker.inner().set_user_limit(&Actor::broker(), "nobody", "max-channels", &json!(1)).is_err());
}

#[test]
fn a_vhost_goes_with_all_that_is_in_it_and_its_name_is_free_again() {
    let mut broker = Broker::start();
    let actor = Actor::new("guest", "127.0.0.1:1".parse().unwrap());
    let login = Login { vhost: "v".into(), ..Login::default() };
    assert_eq!(broker.inner().put_vhost(&actor, "v", VhostChanges::default()), Ok(true));
    let mut client = broker.client_as(&login);
    client.declare_durable("q");
    client.exchange("x", "topic");
    client.bind("q", "x", "#");
    client.publish_persistent("x", "a", "message");
    client.sync();

    broker.inner().delete_vhost(&actor, "v").unwrap();

    // Its consumers may hear of their queues first.
    client.expect_connection_close(ReplyCode::ConnectionForced, "CONNECTION_FORCED - vhost 'v' is deleted");
    let mut stranger = broker.stranger();
    stranger.ask_to_open(&login);
    stranger.expect_connection_close(ReplyCode::NotAllowed, "NOT_ALLOWED - vhost v not found");
    assert_eq!(broker.inner().put_vhost(&actor, "v", VhostChanges::default()), Ok(true));
    broker.restart();
    let mut client = broker.client_as(&login);
    assert!(!client.has_queue("q") && !client.has_exchange("x"));
}

#[test]
fn a_protected_vhost_stays() {
    let broker = Broker::start();
    let actor = Actor::broker();
    let protect = |protected| VhostChanges { protected: Some(protected), ..VhostChanges::default() };
    broker.inner().put_vhost(&actor, "v", protect(true)).unwrap();

    let error = broker.inner().delete_vhost(&actor, "v").unwrap_err();
    assert_eq!(error.to_string(), "vhost 'v' is protected from deletion; lift the protection first");
    broker.inner().put_vhost(&actor, "v", protect(false)).unwrap();
    broker.inner().delete_vhost(&actor, "v").unwrap();
}

#[test]
fn queues_are_of_the_vhosts_type_if_they_can_be_and_say_nothing_else() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.declare_durable("before");
    let kind = VhostChanges { default_queue_type: Some(Some("quorum".into())), ..VhostChanges::default() };
    broker.inner().put_vhost(&Actor::broker(), "/", kind).unwrap();

    client.declare_durable("durable");
    client.declare("transient");
    client.declare_durable("before");
    client.declare_durable("durable");

    let kind = |name: &str| {
        let declared = broker.vhost("/").queue(name).unwrap().declared();
        declared.table.get_str("x-queue-type").map(String::from)
    };
    assert_eq!((kind("durable"), kind("transient"), kind("before")), (Some("quorum".into()), None, None));
    let unknown = VhostChanges { default_queue_type: Some(Some("odd".into())), ..VhostChanges::default() };
    assert!(broker.inner().put_vhost(&Actor::broker(), "/", unknown).is_err());
}

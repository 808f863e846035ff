//! Users and vhosts made, changed and taken away while clients are connected, and kept over a restart.

use std::sync::{Arc, Mutex};

use garenne::auth::{PasswordHash, Permission, TopicPermission};
use garenne::broker::{Actor, Wanted};
use garenne::error::Error;
use garenne::vhost::definitions::{UserPermission, UserTopicPermission};

use crate::support::*;

fn wanted(name: &str, password: &str, tags: &[&str]) -> Wanted {
    let tags = tags.iter().map(|tag| tag.to_string()).collect();
    Wanted { name: name.into(), password: PasswordHash::sha256(password), tags, limits: None }
}

fn may(user: &str, vhost: &str, [configure, write, read]: [&str; 3]) -> UserPermission {
    let permission = Permission { configure: configure.into(), write: write.into(), read: read.into() };
    UserPermission { user: user.into(), vhost: vhost.into(), permission }
}

/// anna, with password secret, who may do everything in `/`.
fn with_anna(broker: &Broker) -> Login {
    let actor = Actor::broker();
    broker.inner().put_user(&actor, wanted("anna", "secret", &[])).unwrap();
    broker.inner().put_permission(&actor, may("anna", "/", [".*"; 3])).unwrap();
    Login::of("anna", "secret")
}

#[test]
fn a_user_is_there_at_once_and_after_a_restart() {
    let mut broker = Broker::start();
    let login = with_anna(&broker);
    broker.client_as(&login).declare_durable("q");

    broker.restart();

    broker.client_as(&login).declare_durable("q");
    assert_eq!(broker.inner().put_user(&Actor::broker(), wanted("anna", "secret", &[])), Ok(false));
}

#[test]
fn a_user_who_is_deleted_loses_connections_and_permissions() {
    let mut broker = Broker::start();
    let login = with_anna(&broker);
    let mut client = broker.client_as(&login);

    broker.inner().delete_users(&Actor::broker(), &["anna"]).unwrap();

    client.expect_connection_close(ReplyCode::ConnectionForced, "CONNECTION_FORCED - user 'anna' is deleted");
    broker.restart();
    assert!(broker.inner().user("anna").is_none());
    assert_eq!(broker.inner().permission("anna", "/"), None);
}

#[test]
fn none_is_deleted_if_one_of_them_cannot_be() {
    let broker = Broker::start();
    let actor = Actor::broker();
    with_anna(&broker);
    broker.inner().put_user(&actor, wanted("boss", "secret", &["administrator", "protected"])).unwrap();

    let protected = broker.inner().delete_users(&actor, &["anna", "boss"]);
    let missing = broker.inner().delete_users(&actor, &["anna", "nobody"]);

    assert!(matches!(protected, Err(Error::Protected(_))));
    assert_eq!(missing, Err(Error::NoUser("nobody".into())));
    assert!(broker.inner().user("anna").is_some());
}

#[test]
fn permissions_change_under_an_open_channel() {
    let broker = Broker::start();
    let mut client = broker.client_as(&with_anna(&broker));
    client.declare("q");
    client.confirm();
    for n in 1..=3 {
        client.publish("", "q", "allowed");
        client.expect_ack(n);
    }

    broker.inner().put_permission(&Actor::broker(), may("anna", "/", ["", "^x", ".*"])).unwrap();

    client.publish("", "q", "refused");
    let text = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'anna'";
    client.expect_channel_close(ReplyCode::AccessRefused, text);
    client.open_channel(1);
    assert_eq!(client.drain("q").len(), 3);
}

#[test]
fn permissions_that_are_taken_away_end_what_a_channel_may_do_and_new_logins() {
    let broker = Broker::start();
    let login = with_anna(&broker);
    let mut client = broker.client_as(&login);
    client.declare("q");

    assert_eq!(broker.inner().delete_permission(&Actor::broker(), "anna", "/"), Ok(true));

    client.send(queue::Purge { queue: "q".into(), nowait: false });
    let text = "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'anna'";
    client.expect_channel_close(ReplyCode::AccessRefused, text);
    let mut stranger = broker.stranger();
    stranger.ask_to_open(&login);
    let text = "NOT_ALLOWED - access to vhost '/' refused for user 'anna'";
    stranger.expect_connection_close(ReplyCode::NotAllowed, text);
}

#[test]
fn topic_permissions_hold_for_a_channel_that_has_published_already() {
    let broker = Broker::start();
    let mut client = broker.client_as(&with_anna(&broker));
    client.confirm();
    for n in 1..=3 {
        client.publish("amq.topic", "b.c", "allowed");
        client.expect_ack(n);
    }

    let topics = UserTopicPermission {
        user: "anna".into(),
        vhost: "/".into(),
        exchange: "amq.topic".into(),
        permission: TopicPermission { write: "^{username}".into(), read: ".*".into() },
    };
    assert_eq!(broker.inner().put_topic_permission(&Actor::broker(), topics), Ok(true));

    client.publish("amq.topic", "anna.c", "allowed");
    client.expect_ack(4);
    client.publish("amq.topic", "b.c", "refused");
    let text =
        "ACCESS_REFUSED - access to topic 'b.c' in exchange 'amq.topic' in vhost '/' refused for user 'anna'";
    client.expect_channel_close(ReplyCode::AccessRefused, text);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let broker = Broker::start();
    let actor = Actor::broker();
    with_anna(&broker);

    let no_user = broker.inner().put_permission(&actor, may("nobody", "/", [".*"; 3]));
    let no_vhost = broker.inner().put_permission(&actor, may("anna", "nowhere", [".*"; 3]));
    let no_regex = broker.inner().put_permission(&actor, may("anna", "/", ["", "(", ""]));

    assert_eq!(no_user, Err(Error::NoUser("nobody".into())));
    assert_eq!(no_vhost, Err(Error::NoVhost("nowhere".into())));
    assert!(no_regex.unwrap_err().to_string().starts_with("invalid_regexp: write is '('"));
    assert_eq!(broker.inner().permission("anna", "/"), Some(Permission::all()));
}

#[test]
fn whoever_listens_hears_of_what_is_done_and_by_whom() {
    let broker = Broker::start();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    broker.inner().audit.tell(Box::new(move |deed| ears.lock().unwrap().push(deed.clone())));
    let actor = Actor::new("guest", "127.0.0.1:1".parse().unwrap());

    broker.inner().put_user(&actor, wanted("anna", "secret", &["management"])).unwrap();
    broker.inner().put_permission(&actor, may("anna", "/", [".*"; 3])).unwrap();
    broker.inner().delete_users(&actor, &["anna"]).unwrap();

    let heard = heard.lock().unwrap();
    let keys: Vec<&str> = heard.iter().map(|deed| deed.event.key).collect();
    assert_eq!(
        keys,
        ["user.created", "user.tags.set", "permission.created", "permission.deleted", "user.deleted"]
    );
    assert!(heard.iter().all(|deed| deed.actor == actor));
}

#[test]
fn attempts_to_log_in_are_counted_by_where_they_come_from() {
    let broker = Broker::start();
    broker.client();
    let mut stranger = broker.stranger();
    stranger.log_in(&Login::of("guest", "wrong"));
    stranger.expect_connection_close_with(ReplyCode::AccessRefused);

    let by_source = broker.inner().attempts.by_source();

    assert_eq!(by_source.len(), 1);
    let (source, tries) = &by_source[0];
    assert_eq!((&*source.user, source.protocol.name()), ("guest", "amqp091"));
    assert_eq!((tries.succeeded, tries.failed), (1, 1));
}

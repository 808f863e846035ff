//! What is told of connections and channels: the fields of RabbitMQ's events.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use crate::broker::Broker;
use crate::json::table_to_json;
use crate::roster::{Guest, name_of};

/// What RabbitMQ calls AMQP 0-9-1 where it prints a tuple.
const PROTOCOL: &str = "{0,9,1}";

/// Somebody who wants to log in.
pub struct Attempt<'a> {
    /// Who it says it is.
    pub user: &'a str,
    /// How it proves that.
    pub mechanism: &'a str,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Where it comes to.
    pub local: SocketAddr,
    /// TLS is spoken.
    pub is_tls: bool,
}

/// Somebody has tried to log in.
pub fn tried(broker: &Broker, attempt: &Attempt<'_>, is_in: bool) {
    let key = if is_in { "user.authentication.success" } else { "user.authentication.failure" };
    let Attempt { user, mechanism, peer, local, is_tls } = *attempt;
    tell(broker, key, || {
        let mut about = json!({
            "name": user, "connection_name": name_of(peer, local), "connection_type": "network",
            "protocol": PROTOCOL, "auth_mechanism": mechanism, "ssl": is_tls,
            "peer_host": host(peer), "peer_port": peer.port(), "host": host(local),
        });
        if !is_in {
            about["error"] = format!("user '{user}' - invalid credentials").into();
        }
        about
    });
}

/// A connection is open.
pub fn opened(broker: &Broker, guest: &Guest) {
    tell(broker, "connection.created", || {
        json!({
            "pid": guest.id.to_string(), "name": guest.name(), "user_provided_name": guest.client_name(),
            "node": broker.config.node_name, "type": "network", "protocol": PROTOCOL, "vhost": guest.vhost,
            "user": guest.user, "auth_mechanism": guest.mechanism, "connected_at": guest.connected_at_ms,
            "host": host(guest.local), "port": guest.local.port(),
            "peer_host": host(guest.peer), "peer_port": guest.peer.port(),
            "ssl": guest.tls.is_some(), "channel_max": guest.channel_max, "frame_max": guest.frame_bytes_max,
            "timeout": guest.heartbeat_secs, "client_properties": table_to_json(&guest.client_properties),
            "user_who_performed_action": guest.user,
        })
    });
}

/// A connection is over.
pub fn closed(broker: &Broker, guest: &Guest) {
    tell(broker, "connection.closed", || {
        json!({
            "pid": guest.id.to_string(), "name": guest.name(), "user_provided_name": guest.client_name(),
            "node": broker.config.node_name, "client_properties": table_to_json(&guest.client_properties),
            "user_who_performed_action": guest.user,
        })
    });
}

/// A channel is open.
pub fn channel_opened(broker: &Broker, guest: &Guest, number: u16) {
    tell(broker, "channel.created", || {
        json!({
            "pid": guest.channel_pid(number), "name": format!("{} ({number})", guest.name()),
            "connection": guest.id.to_string(), "number": number, "user": guest.user, "vhost": guest.vhost,
            "user_who_performed_action": guest.user,
        })
    });
}

/// A channel is over.
pub fn channel_closed(broker: &Broker, guest: &Guest, number: u16) {
    tell(
        broker,
        "channel.closed",
        || json!({"pid": guest.channel_pid(number), "user_who_performed_action": guest.user}),
    );
}

fn tell(broker: &Broker, key: &'static str, about: impl FnOnce() -> Json) {
    broker.news().tell(key, broker.clock().now_ms(), about);
}

fn host(address: SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}

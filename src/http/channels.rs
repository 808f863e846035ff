//! Channels of connections.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::connections::visible;
use super::consumers;
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::stats::{self, PUBLISHED, TAKEN};
use crate::queue::Past;
use crate::roster::{ChannelFacts, Guest};

pub fn routes() -> Vec<Route> {
    vec![
        Route::list("/channels", Right::Any, "All channels", all),
        Route::get("/channels/{name}", Right::Any, "A channel", get),
        Route::list("/vhosts/{vhost}/channels", Right::See, "The channels of a vhost", of_vhost),
    ]
}

/// A channel as it is described.
struct Channel {
    guest: Arc<Guest>,
    facts: Arc<ChannelFacts>,
    name: String,
    node: Arc<str>,
    now_ms: u64,
    past: Past,
    /// Its consumers, described, if it was asked for alone.
    consumers: Option<Vec<Json>>,
}

impl Item for Channel {
    fn key(&self) -> (&str, &str) {
        (&self.guest.vhost, &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let standing = self.facts.standing();
        sheet.put("name", self.name.as_str());
        sheet.put("number", self.facts.number);
        sheet.put("node", &*self.node);
        sheet.put("vhost", &*self.guest.vhost);
        sheet.put("user", &*self.guest.user);
        sheet.put("user_who_performed_action", &*self.guest.user);
        sheet.with("connection_details", || connection_details(&self.guest));
        sheet.put("state", "running");
        sheet.put("prefetch_count", standing.prefetch);
        sheet.put("global_prefetch_count", standing.global_prefetch);
        sheet.put("confirm", standing.confirm);
        sheet.put("transactional", standing.transactional);
        sheet.put("consumer_count", standing.consumers);
        sheet.put("messages_unacknowledged", standing.unacked);
        sheet.put("messages_unconfirmed", standing.unconfirmed);
        sheet.put("messages_uncommitted", standing.uncommitted);
        sheet.put("acks_uncommitted", standing.acks_uncommitted);
        sheet.with("idle_since", || json!(stats::time(standing.at_ms)));
        if let Some(consumers) = &self.consumers {
            sheet.with("consumer_details", || consumers.clone().into());
            // Counted of channels and of queues, not of both together, as in RabbitMQ unless its rates are `detailed`.
            sheet.put("publishes", json!([]));
            sheet.put("deliveries", json!([]));
        }
        sheet.with("message_stats", || {
            let figures = self.facts.tally.figures_over(self.now_ms, self.past.rates);
            Json::Object(stats::message_stats(&figures, &[PUBLISHED, TAKEN]))
        });
    }
}

/// Which connection a channel belongs to.
pub fn connection_details(guest: &Guest) -> Json {
    json!({
        "name": guest.name(),
        "peer_host": guest.peer.ip().to_canonical().to_string(),
        "peer_port": guest.peer.port(),
    })
}

/// Which channel something belongs to.
pub fn channel_details(guest: &Guest, number: u16, node: &str) -> Json {
    let connection = guest.name();
    json!({
        "name": format!("{connection} ({number})"),
        "connection_name": connection,
        "number": number,
        "node": node,
        "peer_host": guest.peer.ip().to_canonical().to_string(),
        "peer_port": guest.peer.port(),
        "user": &*guest.user,
    })
}

/// The channel of a connection that is about to go.
pub fn no_details() -> Json {
    json!({"name": "", "connection_name": "", "number": 0, "node": "", "peer_host": "", "peer_port": 0, "user": ""})
}

fn of_guest(guest: &Arc<Guest>, node: &Arc<str>, now_ms: u64, past: Past) -> Vec<Channel> {
    let connection = guest.name();
    let describe = |facts: Arc<ChannelFacts>| {
        let name = format!("{connection} ({})", facts.number);
        Channel { guest: guest.clone(), facts, name, node: node.clone(), now_ms, past, consumers: None }
    };
    guest.channels().into_iter().map(describe).collect()
}

/// Answers with the channels of connections.
///
/// # Errors
/// What `list::all` says.
pub fn listed(call: &Call, guests: impl Iterator<Item = Arc<Guest>>) -> Result<Answer, Error> {
    let (node, now_ms, past) = (Arc::from(call.node()), call.broker.clock().now_ms(), call.past());
    list::all(call, guests.flat_map(|guest| of_guest(&guest, &node, now_ms, past)).collect())
}

fn all(call: &Call) -> Result<Answer, Error> {
    listed(call, visible(call).into_iter())
}

fn of_vhost(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    listed(call, visible(call).into_iter().filter(|guest| guest.vhost == *vhost.name()))
}

fn get(call: &Call) -> Result<Answer, Error> {
    let (node, now_ms) = (Arc::from(call.node()), call.broker.clock().now_ms());
    let name = call.param("name");
    // The connection's name comes first: the others need not be looked through.
    let guests = call.broker.roster.guests();
    let guest = guests
        .iter()
        .find(|guest| name.starts_with(&guest.name()) && name[guest.name().len()..].starts_with(' '));
    let guest = guest.ok_or(Error::NotFound)?;
    if !call.who.is_monitoring() && *guest.user != *call.who.name() {
        return Err(Error::NotAuthorised("User not authorised to access object".into()));
    }
    let channel =
        of_guest(guest, &node, now_ms, call.past()).into_iter().find(|channel| channel.name == name);
    let mut channel = channel.ok_or(Error::NotFound)?;
    channel.consumers = Some(consumers::of_channel(call, guest, channel.facts.number));
    list::one(call, &channel)
}

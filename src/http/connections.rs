//! Connections: who is connected, and closing one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use amqp::{Exception, ReplyCode};
use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::channels;
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::stats;
use crate::json::table_to_json;
use crate::roster::Guest;
use crate::tls;

pub fn routes() -> Vec<Route> {
    vec![
        Route::list("/connections", Right::Any, "All connections", all),
        Route::list("/connections/username/{user}", Right::Any, "The connections of a user", of_user),
        Route::delete(
            "/connections/username/{user}",
            Right::Any,
            "Closes the connections of a user",
            close_all,
        ),
        Route::get("/connections/{name}", Right::Any, "A connection", get),
        Route::delete("/connections/{name}", Right::Any, "Closes a connection", close),
        Route::list("/connections/{name}/channels", Right::Any, "The channels of a connection", its_channels),
        Route::list("/vhosts/{vhost}/connections", Right::See, "The connections of a vhost", of_vhost),
    ]
}

/// A connection as it is described.
struct Connection {
    guest: Arc<Guest>,
    name: String,
    node: Arc<str>,
    now_ms: u64,
    /// It was asked for alone.
    is_alone: bool,
}

impl Item for Connection {
    fn key(&self) -> (&str, &str) {
        (&self.guest.vhost, &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let guest = &self.guest;
        let traffic = &guest.traffic;
        sheet.put("name", self.name.as_str());
        sheet.put("node", &*self.node);
        sheet.put("vhost", &*guest.vhost);
        sheet.put("user", &*guest.user);
        sheet.put("user_who_performed_action", &*guest.user);
        sheet.put("user_provided_name", Some(guest.client_name()).filter(|name| !name.is_empty()));
        sheet.put("type", "network");
        sheet.put("protocol", "AMQP 0-9-1");
        sheet.put("auth_mechanism", guest.mechanism.as_str());
        sheet.put("state", if guest.is_blocked.load(Ordering::Relaxed) { "blocked" } else { "running" });
        sheet.put("connected_at", guest.connected_at_ms);
        sheet.put("timeout", guest.heartbeat_secs);
        sheet.put("frame_max", guest.frame_bytes_max);
        sheet.put("channel_max", guest.channel_max);
        sheet.put("channels", guest.channel_count());
        sheet.with("host", || json!(guest.local.ip().to_canonical().to_string()));
        sheet.put("port", guest.local.port());
        sheet.with("peer_host", || json!(guest.peer.ip().to_canonical().to_string()));
        sheet.put("peer_port", guest.peer.port());
        self.describe_tls(sheet);
        sheet.with("client_properties", || Json::Object(table_to_json(&guest.client_properties)));
        sheet.put("recv_oct", traffic.received_bytes.load(Ordering::Relaxed));
        sheet.put("recv_cnt", traffic.reads.load(Ordering::Relaxed));
        sheet.put("send_oct", traffic.sent_bytes.load(Ordering::Relaxed));
        sheet.put("send_cnt", traffic.writes.load(Ordering::Relaxed));
        sheet.put("send_pend", traffic.pending_bytes.load(Ordering::Relaxed));
        if sheet.wants(&["recv_oct_details", "send_oct_details"]) {
            let (received, sent) = traffic.rates(guest.connected_at_ms, self.now_ms);
            sheet.put("recv_oct_details", json!({"rate": stats::rate(received)}));
            sheet.put("send_oct_details", json!({"rate": stats::rate(sent)}));
        }
    }
}

impl Connection {
    /// What TLS says. If it is not spoken, RabbitMQ has null in lists, and otherwise texts of nothing.
    fn describe_tls(&self, sheet: &mut Sheet<'_>) {
        let tls = self.guest.tls.as_deref();
        let certificate = tls.and_then(|tls| tls.certificate.as_ref());
        sheet.put("ssl", tls.is_some());
        for (name, text) in [
            ("ssl_protocol", tls.map(|tls| tls.version.to_string())),
            ("ssl_cipher", tls.map(|tls| tls.cipher.clone())),
            ("ssl_key_exchange", tls.map(|tls| tls.key_exchange.clone())),
            ("ssl_hash", tls.map(tls::Peer::hash)),
            ("peer_cert_subject", certificate.map(|certificate| certificate.subject.clone())),
            ("peer_cert_issuer", certificate.map(|certificate| certificate.issuer.clone())),
            ("peer_cert_validity", certificate.map(|certificate| certificate.validity.clone())),
        ] {
            sheet.put(name, text.or_else(|| self.is_alone.then(String::new)));
        }
    }
}

/// The connections that the user may see: its own, or all of them.
pub fn visible(call: &Call) -> Vec<Arc<Guest>> {
    let sees = |guest: &Arc<Guest>| call.who.is_monitoring() || *guest.user == *call.who.name();
    call.broker.roster.guests().into_iter().filter(sees).collect()
}

fn listed(call: &Call, guests: impl Iterator<Item = Arc<Guest>>) -> Result<Answer, Error> {
    let node: Arc<str> = call.node().into();
    let now_ms = call.broker.clock().now_ms();
    let describe = |guest: Arc<Guest>| {
        let name = guest.name();
        Connection { name, guest, node: node.clone(), now_ms, is_alone: false }
    };
    list::all(call, guests.map(describe).collect())
}

fn all(call: &Call) -> Result<Answer, Error> {
    listed(call, visible(call).into_iter())
}

fn of_vhost(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    listed(call, visible(call).into_iter().filter(|guest| guest.vhost == *vhost.name()))
}

fn of_user(call: &Call) -> Result<Answer, Error> {
    listed(call, visible(call).into_iter().filter(|guest| *guest.user == *call.param("user")))
}

/// The connection of the path: the name that it has here, or that its client gave it.
fn named(call: &Call) -> Result<Arc<Guest>, Error> {
    let name = call.param("name");
    let guests = call.broker.roster.guests();
    let guest = guests.into_iter().find(|guest| guest.name() == name).ok_or(Error::NotFound)?;
    match call.who.is_monitoring() || *guest.user == *call.who.name() {
        true => Ok(guest),
        false => Err(Error::NotAuthorised("User not authorised to access object".into())),
    }
}

fn get(call: &Call) -> Result<Answer, Error> {
    let guest = named(call)?;
    let now_ms = call.broker.clock().now_ms();
    let (name, node) = (guest.name(), call.node().into());
    list::one(call, &Connection { name, guest, node, now_ms, is_alone: true })
}

fn its_channels(call: &Call) -> Result<Answer, Error> {
    let guest = named(call)?;
    channels::listed(call, std::iter::once(guest))
}

fn forced(call: &Call) -> Exception {
    let reason = call.header("x-reason").unwrap_or("Closed via management plugin");
    let text = format!("Connection forced: {reason}");
    Exception::new(ReplyCode::ConnectionForced, text)
}

fn close(call: &Call) -> Result<Answer, Error> {
    let guest = named(call)?;
    if !call.who.is_administrator() && *guest.user != *call.who.name() {
        return Err(Error::NotAuthorised("User not authorised to access object".into()));
    }
    guest.close(forced(call));
    Ok(Answer::Done)
}

fn close_all(call: &Call) -> Result<Answer, Error> {
    let user = call.param("user");
    if !call.who.is_administrator() && *user != *call.who.name() {
        return Err(Error::NotAuthorised("Not administrator user".into()));
    }
    let guests = call.broker.roster.guests().into_iter().filter(|guest| *guest.user == *user);
    guests.for_each(|guest| guest.close(forced(call)));
    Ok(Answer::Done)
}

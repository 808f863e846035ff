//! A request as the resources see it: who, what, and the body read to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::HeaderMap;
use serde_json::{Map, Value as Json};

use super::auth::{self, Who};
use super::error::Error;
use crate::broker::{Actor, Broker};
use crate::delivery::ConnectionId;
use crate::json;
use crate::vhost::{Caller, Vhost};

/// How long the body of a request may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The connection of those who have none.
const NO_CONNECTION: ConnectionId = ConnectionId(0);

/// A request.
#[derive(Debug)]
pub struct Call {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Who asks; nobody where no name is needed.
    pub who: Who,
    /// From where.
    pub peer: SocketAddr,
    params: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    path: String,
    body: Bytes,
}

impl Call {
    /// Reads a request: who it comes from, and its body.
    ///
    /// # Errors
    /// `Login`: nobody we know. `BadRequest`: the body is too large, too slow, or broke off.
    pub async fn read(
        broker: &Arc<Broker>,
        peer: SocketAddr,
        params: Vec<(String, String)>,
        request: Request,
        body_bytes_max: usize,
    ) -> Result<Call, Error> {
        let (head, body) = request.into_parts();
        let who = auth::who(broker, peer, &head.headers).await?;
        let query = head.uri.query().unwrap_or_default().as_bytes();
        let query = form_urlencoded::parse(query).into_owned().collect();
        let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, body_bytes_max)).await;
        let too_late = |_| {
            let seconds = BODY_TIMEOUT.as_secs();
            Error::BadRequest(format!("the request's body did not come within {seconds} seconds"))
        };
        let body = body.map_err(too_late)?.map_err(|_| {
            Error::BadRequest(format!(
                "Exceeded HTTP request body size limit of {body_bytes_max} octets, or it broke off"
            ))
        })?;
        Ok(Call {
            broker: broker.clone(),
            who,
            peer,
            params,
            query,
            path: head.uri.path().into(),
            headers: head.headers,
            body,
        })
    }

    /// A name of the path.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    /// Whether the path has such a name.
    pub fn has_param(&self, name: &str) -> bool {
        self.params.iter().any(|(other, _)| other == name)
    }

    /// The name of an exchange in the path: the default one goes by `amq.default`.
    pub fn exchange(&self, name: &str) -> &str {
        match self.param(name) {
            "amq.default" => "",
            other => other,
        }
    }

    /// A parameter behind the question mark.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter says true.
    pub fn is_true(&self, name: &str) -> bool {
        self.query(name) == Some("true")
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// `BadRequest` naming it.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.query(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text
            .parse()
            .map_err(|_| Error::BadRequest(format!("{name} is '{text}', and must be a number")))?;
        Ok(Some(number))
    }

    /// The vhost of the path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn vhost(&self) -> Result<Arc<Vhost>, Error> {
        self.broker.vhost(self.param("vhost")).map_err(|_| Error::NotFound)
    }

    /// The vhosts that are meant: that of the path, or all that the user may see.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn vhosts(&self) -> Result<Vec<Arc<Vhost>>, Error> {
        if self.has_param("vhost") {
            return Ok(vec![self.vhost()?]);
        }
        let all = self.broker.vhosts().into_iter();
        Ok(all.filter(|vhost| self.sees(vhost.name())).collect())
    }

    /// Whether the user may see a vhost.
    pub fn sees(&self, vhost: &str) -> bool {
        self.who.is_monitoring() || self.uses(vhost)
    }

    /// Whether the user has permissions in a vhost.
    pub fn uses(&self, vhost: &str) -> bool {
        self.broker.access(self.who.name(), vhost).is_ok()
    }

    /// Who asks, with the rights in a vhost, as over AMQP.
    ///
    /// # Errors
    /// `NotAuthorised`: without any.
    pub fn caller(&self, vhost: &str) -> Result<Caller, Error> {
        let access = self.broker.access(self.who.name(), vhost)?;
        Ok(Caller { connection: NO_CONNECTION, user: self.who.user()?, access })
    }

    /// The body, if it is an object of JSON; an empty one is an empty object.
    ///
    /// # Errors
    /// `BadRequest`.
    pub fn object(&self) -> Result<Map<String, Json>, Error> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Json::Object(object)) => Ok(object),
            // RabbitMQ's words.
            Ok(Json::String(_)) => Err(Error::BadRequest(
                "invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?"
                    .into(),
            )),
            Ok(_) => Err(Error::BadRequest("not_json".into())),
            Err(error) => Err(Error::BadRequest(format!("not_json: {error}"))),
        }
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What the node is called.
    pub fn node(&self) -> &str {
        &self.broker.config.node_name
    }

    /// Whether the path ends with this.
    pub fn path_ends_with(&self, end: &str) -> bool {
        self.path.rsplit('/').next() == Some(end)
    }

    /// Who does what the request asks for.
    pub fn actor(&self) -> Actor {
        Actor::new(self.who.name(), self.peer)
    }

    /// A header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Waits until everything that was changed so far is on the disk.
    ///
    /// # Errors
    /// `Internal`: it cannot be.
    pub fn settle(&self) -> Result<(), Error> {
        Ok(self.broker.store().append_and_wait(Vec::new())?)
    }

    /// Who asks, with the rights in the vhost of the path, which is there.
    ///
    /// # Errors
    /// `NotAuthorised`, `NotFound`.
    pub fn caller_here(&self) -> Result<(Arc<Vhost>, Caller), Error> {
        let vhost = self.vhost()?;
        let caller = self.caller(vhost.name())?;
        Ok((vhost, caller))
    }
}

/// Whether a body has all the fields that it must have.
///
/// # Errors
/// `BadRequest` naming all that it has not.
pub fn require(body: &Map<String, Json>, names: &[&str]) -> Result<(), Error> {
    let missing: Vec<&str> = names.iter().filter(|name| !body.contains_key(**name)).copied().collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::missing_fields(&missing)) }
}

/// A field of a body that is a flag: RabbitMQ takes texts for it, too.
///
/// # Errors
/// `BadRequest` naming what it is.
pub fn flag(body: &Map<String, Json>, name: &str) -> Result<Option<bool>, Error> {
    match body.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Bool(flag)) => Ok(Some(*flag)),
        Some(Json::String(text)) if text == "true" => Ok(Some(true)),
        Some(Json::String(text)) if text == "false" => Ok(Some(false)),
        Some(other) => Err(Error::Bad(serde_json::json!(["not_boolean", other]))),
    }
}

/// A field of a body that is a text.
///
/// # Errors
/// `BadRequest` naming it.
pub fn text<'a>(body: &'a Map<String, Json>, name: &str) -> Result<Option<&'a str>, Error> {
    match body.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(other) => Err(Error::BadRequest(format!("{name} is {other}, and must be a string"))),
    }
}

/// A field of a body that is a whole number, or the digits of one.
///
/// # Errors
/// `BadRequest` naming what it is.
pub fn integer(body: &Map<String, Json>, name: &str) -> Result<Option<i64>, Error> {
    match body.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Number(number)) if number.as_i64().is_some() => Ok(number.as_i64()),
        Some(Json::String(text)) if text.parse::<i64>().is_ok() => Ok(text.parse().ok()),
        Some(other) => Err(Error::Bad(serde_json::json!(["not_integer", other]))),
    }
}

/// A field of a body that is a table; `[]` is an empty one, as Erlang has it.
///
/// # Errors
/// `BadRequest` naming what is wrong in it.
pub fn table(body: &Map<String, Json>, name: &str) -> Result<amqp::Table, Error> {
    match body.get(name) {
        None | Some(Json::Null) => Ok(amqp::Table::new()),
        Some(Json::Array(items)) if items.is_empty() => Ok(amqp::Table::new()),
        Some(Json::Object(map)) => {
            json::json_to_table(map).map_err(|reason| Error::BadRequest(format!("{name}: {reason}")))
        }
        Some(other) => Err(Error::BadRequest(format!("{name} is {other}, and must be an object"))),
    }
}

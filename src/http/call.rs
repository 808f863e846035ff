//! A request as the resources see it: who, what, and the body read to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Map, Value as Json};

use super::auth::{self, Who};
use super::error::Error;
use crate::broker::{Actor, Broker};
use crate::delivery::ConnectionId;
use crate::json;
use crate::queue::Past;
use crate::samples::Span;
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
    method: Method,
    params: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
    /// What of a form with files in it is which field.
    parts: Option<Vec<(String, Bytes)>>,
}

/// The fields of a form that has files in it.
async fn form_parts(kind: &HeaderValue, body: Bytes) -> Result<Vec<(String, Bytes)>, Error> {
    let wrong = |text: String| Error::BadRequest(format!("the form cannot be read: {text}"));
    let mut request = Request::new(Body::from(body));
    request.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    // The body is here already, and no longer than bodies may be.
    DefaultBodyLimit::disable().apply(&mut request);
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|error| wrong(error.body_text()))?;
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| wrong(error.body_text()))? {
        let name = field.name().unwrap_or_default().to_string();
        let content = field.bytes().await.map_err(|error| wrong(error.body_text()))?;
        parts.push((name, content));
    }
    Ok(parts)
}

impl Call {
    /// Reads a request: who it comes from, and its body.
    ///
    /// # Errors
    /// `NotAuthorised`: a page of another origin. `Login`: nobody we know. `BadRequest`: the body is too large, too
    /// slow, or broke off.
    pub async fn read(
        broker: &Arc<Broker>,
        peer: SocketAddr,
        params: Vec<(String, String)>,
        request: Request,
        body_bytes_max: usize,
    ) -> Result<Call, Error> {
        let (head, body) = request.into_parts();
        auth::check_origin(&head.method, &head.headers)?;
        if !is_percent_encoded(head.uri.path()) {
            let text = "a percent sign in the path must stand before two hexadecimal digits";
            return Err(Error::BadRequest(text.into()));
        }
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
        let parts = match head.headers.get(header::CONTENT_TYPE) {
            Some(kind) if kind.as_bytes().starts_with(b"multipart/form-data") => {
                Some(form_parts(kind, body.clone()).await?)
            }
            _ => None,
        };
        Ok(Call {
            parts,
            broker: broker.clone(),
            who,
            peer,
            method: head.method,
            params,
            query,
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

    /// The moments of the past that are asked for: RabbitMQ's `…_age` and `…_incr`, both in seconds.
    pub fn span(&self, name: &str) -> Option<Span> {
        let part = |end: &str| {
            let secs: u64 = self.query(&format!("{name}_{end}"))?.parse().ok()?;
            secs.checked_mul(1000).filter(|ms| *ms > 0)
        };
        Some(Span { age_ms: part("age")?, step_ms: part("incr")? })
    }

    /// Those of what is in queues and of what is counted of messages.
    pub fn past(&self) -> Past {
        Past { lengths: self.span("lengths"), rates: self.span("msg_rates") }
    }

    /// The vhost of the path.
    ///
    /// # Errors
    /// `NotFound`; in RabbitMQ's other words where something was to be put there.
    pub fn vhost(&self) -> Result<Arc<Vhost>, Error> {
        self.broker.vhost(self.param("vhost")).map_err(|_| match self.method {
            Method::PUT | Method::POST => Error::Missing("vhost_not_found".into()),
            _ => Error::NotFound,
        })
    }

    /// The vhosts whose contents are meant: that of the path, or all in which the user has permissions;
    /// administrators see into every one.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn vhosts(&self) -> Result<Vec<Arc<Vhost>>, Error> {
        self.vhosts_for(self.who.is_administrator())
    }

    /// The vhosts that are meant themselves, of which monitoring sees every one.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn watched_vhosts(&self) -> Result<Vec<Arc<Vhost>>, Error> {
        self.vhosts_for(self.who.is_monitoring())
    }

    fn vhosts_for(&self, all: bool) -> Result<Vec<Arc<Vhost>>, Error> {
        if self.has_param("vhost") {
            return Ok(vec![self.vhost()?]);
        }
        let vhosts = self.broker.vhosts().into_iter();
        Ok(vhosts.filter(|vhost| all || self.uses(vhost.name())).collect())
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

    /// Who has a name and a password that the request brings otherwise than in its head.
    ///
    /// # Errors
    /// `Login`: nobody, or not from there.
    pub fn log_in(&self, name: &str, password: &str) -> Result<Who, Error> {
        let log_in = auth::log_in(&self.broker, self.peer, name, password);
        tokio::runtime::Handle::current().block_on(log_in)
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

    /// A field of the form that the body is, if it is one with files in it.
    pub fn part(&self, name: &str) -> Option<&Bytes> {
        let parts = self.parts.as_ref()?;
        parts.iter().find(|(other, _)| other == name).map(|(_, content)| content)
    }

    /// Whether the body is a form with files in it.
    pub fn is_upload(&self) -> bool {
        self.parts.is_some()
    }

    /// A field of the form that the body is, if it is a plain one.
    pub fn form_field(&self, name: &str) -> Option<String> {
        let mut fields = form_urlencoded::parse(&self.body);
        fields.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
    }

    /// What the node is called.
    pub fn node(&self) -> &str {
        &self.broker.config.node_name
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

/// Whether each percent sign of a path begins an octet.
fn is_percent_encoded(path: &str) -> bool {
    let is_octet = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    path.split('%').skip(1).all(is_octet)
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

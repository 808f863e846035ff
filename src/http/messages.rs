//! Messages over HTTP: published one at a time, and taken a few at a time.

use std::sync::Arc;
use std::time::Duration;

use amqp::{Properties, table as raw_table};
use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::{Call, integer, require, table, text};
use super::error::Error;
use super::route::{Right, Route};
use crate::auth::Action;
use crate::delivery::{ConsumerId, Entry};
use crate::error::What;
use crate::json::{body_json, properties_json};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::queue::{Got, Handle, Return};
use crate::vhost::Fate;

/// How long a message may take to be brought from the disk.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// So many messages are taken at a time, at most.
const GET_MAX: i64 = 100_000;

/// What a body must have, in the order in which RabbitMQ misses it.
const PUBLISH: &[&str] = &["routing_key", "properties", "payload", "payload_encoding"];
const GET: &[&str] = &["ackmode", "count", "encoding"];

pub fn routes() -> Vec<Route> {
    let publish = json!({"routing_key": "", "payload": "", "payload_encoding": "string", "properties": {}});
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 50_000});
    vec![
        Route::post("/exchanges/{vhost}/{name}/publish", Right::Use, "Publishes a message", self::publish)
            .body(publish, PUBLISH),
        Route::post("/queues/{vhost}/{name}/get", Right::Use, "Takes messages from a queue", self::get)
            .body(get, GET),
    ]
}

fn publish(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    require(&body, PUBLISH)?;
    let (vhost, caller) = call.caller_here()?;
    let Some(Json::String(payload)) = body.get("payload") else {
        return Err(Error::BadRequest("payload_not_string".into()));
    };
    let payload: Bytes = match text(&body, "payload_encoding")? {
        Some("string") => payload.clone().into(),
        Some("base64") => match BASE64.decode(payload) {
            Ok(bytes) => bytes.into(),
            Err(_) => return Err(Error::Bad(json!(["not_base64", payload]))),
        },
        other => return Err(Error::Bad(json!(["unsupported_encoding", other]))),
    };
    let max = call.broker.config.message_bytes_max;
    if payload.len() as u64 > max {
        let text = format!("message size {} is larger than configured max size {max}", payload.len());
        return Err(Error::BadRequest(text));
    }
    let key = text(&body, "routing_key")?.unwrap_or_default();
    if key.len() > amqp::limits::SHORT_STRING_BYTES_MAX {
        let text = format!("routing_key should be less than 255 bytes, actually was {}\n", key.len());
        return Err(Error::BadRequest(text));
    }
    let exchange = call.exchange("name");
    let fate = vhost.publish(&caller, exchange, key, &properties_of(&body)?, payload);
    let fate = fate.map_err(|error| reply_text(&error))?;
    call.settle()?;
    match fate {
        Fate::Routed => Ok(Answer::Json(json!({"routed": true}))),
        Fate::Unroutable => Ok(Answer::Json(json!({"routed": false}))),
        Fate::Refused => {
            Err(Error::BadRequest("a queue refused the message: it has no room, or knows it".into()))
        }
    }
}

/// An error of a publish as RabbitMQ tells it here: with its reply code.
fn reply_text(error: &crate::error::Error) -> Error {
    use crate::error::Error as E;
    let code = match error {
        E::NotFound(_) => "404 NOT_FOUND",
        E::Refused { .. } | E::RefusedTopic { .. } | E::InternalExchange(_) => "403 ACCESS_REFUSED",
        _ => "406 PRECONDITION_FAILED",
    };
    Error::BadRequest(format!("{code} - {error}"))
}

/// The properties of a message in the body of a request, as they are on the wire.
///
/// # Errors
/// `BadRequest` naming the property.
pub fn properties_of(body: &Map<String, Json>) -> Result<Vec<u8>, Error> {
    let empty = Map::new();
    let given = match body.get("properties") {
        None | Some(Json::Null) => &empty,
        Some(Json::Object(given)) => given,
        Some(Json::Array(items)) if items.is_empty() => &empty,
        Some(other) => {
            return Err(Error::BadRequest(format!("properties is {other}, and must be an object")));
        }
    };
    let texts = |name: &str| -> Result<Option<Vec<u8>>, Error> {
        let value = match given.get(name) {
            None => return Ok(None),
            Some(Json::String(text)) => text.clone(),
            Some(Json::Null) => return Err(Error::BadRequest("null_not_allowed".into())),
            Some(_) => return Err(Error::Bad(json!(["not_string", name]))),
        };
        if value.len() > amqp::limits::SHORT_STRING_BYTES_MAX {
            return Err(Error::BadRequest(format!(
                "{name} should be less than 255 bytes, actually was {}",
                value.len()
            )));
        }
        Ok(Some(value.into_bytes()))
    };
    let number = |name: &str, max: i64| -> Result<Option<i64>, Error> {
        if given.get(name).is_some_and(Json::is_null) {
            return Err(Error::BadRequest("null_not_allowed".into()));
        }
        let number = integer(given, name).map_err(|_| Error::Bad(json!(["not_int", name])))?;
        match number.filter(|number| !(0..=max).contains(number)) {
            None => Ok(number),
            Some(_) => Err(Error::Bad(json!(["not_int", name]))),
        }
    };
    let mut headers = Vec::new();
    if given.contains_key("headers") {
        table(given, "headers")?.encode(&mut headers);
    }
    let [
        content_type,
        content_encoding,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        kind,
        user_id,
        app_id,
        cluster_id,
    ] = [
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "expiration",
        "message_id",
        "type",
        "user_id",
        "app_id",
        "cluster_id",
    ]
    .map(texts);
    let encoded = Properties {
        content_type: content_type?.as_deref(),
        content_encoding: content_encoding?.as_deref(),
        headers: Some(&headers[..]).filter(|headers| !headers.is_empty()),
        delivery_mode: number("delivery_mode", u8::MAX.into())?.map(|mode| mode as u8),
        priority: number("priority", u8::MAX.into())?.map(|priority| priority as u8),
        correlation_id: correlation_id?.as_deref(),
        reply_to: reply_to?.as_deref(),
        expiration: expiration?.as_deref(),
        message_id: message_id?.as_deref(),
        timestamp: number("timestamp", i64::MAX)?.map(|seconds| seconds as u64),
        kind: kind?.as_deref(),
        user_id: user_id?.as_deref(),
        app_id: app_id?.as_deref(),
        cluster_id: cluster_id?.as_deref(),
    }
    .encode();
    Ok(encoded)
}

/// How bodies are written.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// Text where it is text.
    is_auto: bool,
    /// So many octets of it at most.
    truncate: Option<usize>,
}

impl Encoding {
    /// Reads `encoding` and `truncate`.
    ///
    /// # Errors
    /// `BadRequest`.
    pub fn read(body: &Map<String, Json>) -> Result<Encoding, Error> {
        let is_auto = match text(body, "encoding")? {
            None | Some("auto") => true,
            Some("base64") => false,
            Some(_) => {
                return Err(Error::BadRequest("Unsupported encoding. Please use auto or base64.".into()));
            }
        };
        let truncate = integer(body, "truncate")?.map(|n| usize::try_from(n).unwrap_or_default());
        Ok(Encoding { is_auto, truncate })
    }
}

/// A message as it is shown.
pub fn message_json(message: &Message, redelivered: bool, encoding: Encoding) -> Map<String, Json> {
    let body = message.parts.body();
    let shown = &body[..body.len().min(encoding.truncate.unwrap_or(usize::MAX))];
    let (payload, payload_encoding) = body_json(shown, encoding.is_auto);
    let mut map = Map::new();
    map.insert("payload_bytes".into(), body.len().into());
    map.insert("redelivered".into(), redelivered.into());
    map.insert("exchange".into(), message.exchange().into());
    map.insert("routing_key".into(), message.routing_key().into());
    map.insert("properties".into(), properties_json(message.parts.properties()));
    map.insert("payload".into(), payload.into());
    map.insert("payload_encoding".into(), payload_encoding.into());
    map
}

/// What becomes of messages that were taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AckMode {
    Gone,
    Back(Return),
    Rejected,
}

fn get(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    require(&body, GET)?;
    let mode = match text(&body, "ackmode")? {
        Some("ack_requeue_false") => AckMode::Gone,
        // An operator's look is no failure of the message.
        Some("ack_requeue_true") => AckMode::Back(Return::Recovered),
        Some("reject_requeue_true") => AckMode::Back(Return::Failed),
        Some("reject_requeue_false") => AckMode::Rejected,
        other => {
            let modes = "ack_requeue_true, ack_requeue_false, reject_requeue_true or reject_requeue_false";
            let other = other.unwrap_or_default();
            return Err(Error::BadRequest(format!("ackmode is '{other}', and must be {modes}")));
        }
    };
    let count = integer(&body, "count")?.unwrap_or_default();
    if count > GET_MAX {
        return Err(Error::BadRequest(format!("count is {count}, and can be {GET_MAX} at most")));
    }
    let encoding = Encoding::read(&body)?;
    let (vhost, caller) = call.caller_here()?;
    let name = call.param("name");
    // RabbitMQ asks whether one may before it looks whether there is such a queue.
    caller.access.check(Action::Read, What::Queue, name).map_err(Error::in_full)?;
    vhost
        .queue(name)
        .map_err(|_| Error::Missing(format!("NOT_FOUND - no queue '{name}' in vhost '{}'", vhost.name())))?;
    let queue = vhost.queue_to_read(&caller, name).map_err(|error| match error {
        crate::error::Error::Locked(_) => Error::BadRequest(format!("405 RESOURCE_LOCKED - {error}")),
        other => other.into(),
    })?;
    let taken = take(&queue, count, mode == AckMode::Gone)?;
    let shown = taken.iter().map(|(entry, remaining)| {
        let mut map = message_json(&entry.message, entry.redelivered, encoding);
        map.insert("message_count".into(), (*remaining).into());
        Json::Object(map)
    });
    let shown: Vec<Json> = shown.collect();
    let none: Option<ConsumerId> = None;
    match mode {
        AckMode::Gone => {}
        AckMode::Back(how) => queue.requeue(taken.into_iter().map(|(entry, _)| (none, how, entry)).collect()),
        AckMode::Rejected => queue.reject(taken.into_iter().map(|(entry, _)| (none, entry)).collect()),
    }
    call.settle()?;
    Ok(Answer::Json(shown.into()))
}

/// Takes messages from a queue, in order, each with how many are behind it.
fn take(queue: &Handle, count: i64, no_ack: bool) -> Result<Vec<(Entry, usize)>, Error> {
    let outbox: Arc<Outbox> = Outbox::new();
    let mut taken = Vec::new();
    // RabbitMQ takes a negative count for all there are.
    while count < 0 || (taken.len() as i64) < count {
        match queue.get(no_ack, &outbox) {
            Got::Message(entry, remaining) => taken.push((entry, remaining)),
            Got::Empty => break,
            Got::Later => {
                let runtime = tokio::runtime::Handle::current();
                if runtime
                    .block_on(async { tokio::time::timeout(READ_TIMEOUT, outbox.rung()).await })
                    .is_err()
                {
                    queue.requeue(
                        taken.into_iter().map(|(entry, _)| (None, Return::Recovered, entry)).collect(),
                    );
                    return Err(Error::Internal("the disk did not bring a message in time".into()));
                }
            }
        }
    }
    Ok(taken)
}

/// Whether a message has a header of this text, or one of the properties of that name.
pub fn has_header(message: &Message, name: &str, value: Option<&str>) -> bool {
    let Ok(read) = Properties::parse(message.parts.properties()) else { return false };
    let headers = read.headers.into_iter().flat_map(raw_table::raw_entries);
    let mut found = headers.filter(|(other, _)| *other == name.as_bytes()).map(|(_, raw)| raw);
    match value {
        None => found.next().is_some(),
        Some(wanted) => found.any(|raw| {
            let value = raw_table::decode_value(raw).map(|value| crate::json::value_to_json(&value));
            match value {
                Ok(Json::String(text)) => text == wanted,
                Ok(other) => serde_json::from_str::<Json>(wanted).is_ok_and(|wanted| wanted == other),
                Err(_) => false,
            }
        }),
    }
}

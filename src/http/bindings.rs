//! Bindings: listed, made, taken away. In a path a binding is its key, with a digest of its arguments if it has any.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::call::{Call, table, text};
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use crate::json::table_to_json;
use crate::vhost::{BindingLook, To};

pub fn routes() -> Vec<Route> {
    const BETWEEN: &str = "/bindings/{vhost}/e/{source}/{kind}/{destination}";
    const ONE: &str = "/bindings/{vhost}/e/{source}/{kind}/{destination}/{key}";
    vec![
        Route::list("/bindings", Right::Any, "All bindings", all),
        Route::list("/bindings/{vhost}", Right::See, "The bindings of a vhost", all),
        Route::list(
            BETWEEN,
            Right::See,
            "The bindings of an exchange to a queue (q) or exchange (e)",
            between,
        ),
        Route::post(BETWEEN, Right::Use, "Binds a queue (q) or exchange (e) to an exchange", post)
            .body(json!({"routing_key": "", "arguments": {}}), &[]),
        Route::get(ONE, Right::See, "A binding", get),
        Route::delete(ONE, Right::Use, "Takes a binding away", delete),
        Route::list(
            "/exchanges/{vhost}/{name}/bindings/source",
            Right::See,
            "The bindings from an exchange",
            from,
        ),
        Route::list(
            "/exchanges/{vhost}/{name}/bindings/destination",
            Right::See,
            "The bindings to an exchange",
            to_exchange,
        ),
        Route::list("/queues/{vhost}/{name}/bindings", Right::See, "The bindings to a queue", to_queue),
    ]
}

/// A binding as it is described.
struct Binding {
    vhost: String,
    look: BindingLook,
}

impl Item for Binding {
    fn key(&self) -> (&str, &str) {
        (&self.vhost, &self.look.source)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let look = &self.look;
        sheet.put("source", look.source.as_str());
        sheet.put("vhost", self.vhost.as_str());
        sheet.put("destination", look.destination.as_str());
        sheet.put("destination_type", if look.to_queue { "queue" } else { "exchange" });
        sheet.put("routing_key", look.routing_key.as_str());
        sheet.with("arguments", || Json::Object(table_to_json(&look.arguments)));
        sheet.with("properties_key", || json!(properties_key(look)));
    }
}

/// By which a binding is found in a path.
fn properties_key(look: &BindingLook) -> String {
    if look.arguments.is_empty() {
        return if look.routing_key.is_empty() { "~".into() } else { quoted(&look.routing_key) };
    }
    let mut entries = look.arguments.clone();
    entries.0.sort_by(|a, b| a.0.cmp(&b.0));
    let mut bytes = Vec::new();
    entries.encode(&mut bytes);
    let digest = Sha256::digest(&bytes);
    format!("{}~{}", quoted(&look.routing_key), URL_SAFE_NO_PAD.encode(&digest[..16]))
}

/// A key as RabbitMQ quotes it: as in a form, and the tilde as well.
fn quoted(key: &str) -> String {
    let mut text = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => text.push(byte.into()),
            b' ' => text.push('+'),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

fn listed(vhost: &str, looks: Vec<BindingLook>) -> Vec<Binding> {
    looks.into_iter().map(|look| Binding { vhost: vhost.into(), look }).collect()
}

fn all(call: &Call) -> Result<Answer, Error> {
    let of = |vhost: std::sync::Arc<crate::vhost::Vhost>| listed(vhost.name(), vhost.bindings());
    list::whole(call, call.vhosts()?.into_iter().flat_map(of).collect())
}

/// Where the path leads.
fn target(call: &Call) -> Result<To<'_>, Error> {
    match call.param("kind") {
        "q" => Ok(To::Queue(call.param("destination"))),
        "e" => Ok(To::Exchange(call.exchange("destination"))),
        other => Err(Error::BadRequest(format!("a binding leads to q or e, not to '{other}'"))),
    }
}

fn found(call: &Call) -> Result<Vec<BindingLook>, Error> {
    let source = call.exchange("source");
    let to = call.vhost()?.bindings_to(target(call)?);
    Ok(to.into_iter().filter(|look| look.source == source).collect())
}

fn between(call: &Call) -> Result<Answer, Error> {
    let looks = found(call)?;
    list::whole(call, listed(call.param("vhost"), looks))
}

fn named(call: &Call) -> Result<BindingLook, Error> {
    let (looks, key) = (found(call)?, call.param("key"));
    let is = |wanted: &str| looks.iter().position(|look| properties_key(look) == wanted);
    // The key as it is told, which is quoted already; but many send the routing key, quoted once for the path.
    let at = is(key).or_else(|| is(&quoted(key))).ok_or(Error::NotFound)?;
    looks.into_iter().nth(at).ok_or(Error::NotFound)
}

fn get(call: &Call) -> Result<Answer, Error> {
    list::one(call, &Binding { vhost: call.param("vhost").into(), look: named(call)? })
}

fn post(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let (vhost, caller) = call.caller_here()?;
    let source = call.exchange("source");
    let key = text(&body, "routing_key")?.unwrap_or_default();
    if key.len() > amqp::limits::SHORT_STRING_BYTES_MAX {
        let text = format!("routing_key should be less than 255 bytes, actually was {}\n", key.len());
        return Err(Error::BadRequest(text));
    }
    let arguments = table(&body, "arguments")?;
    vhost.bind(&caller, source, target(call)?, key, &arguments)?;
    call.settle()?;
    let look = BindingLook {
        source: source.into(),
        destination: call.param("destination").into(),
        to_queue: call.param("kind") == "q",
        routing_key: key.into(),
        arguments,
    };
    let location = format!("{}/{}", quoted(&look.destination), quoted_again(&properties_key(&look)));
    Ok(Answer::Created(Some(location)))
}

/// What is quoted already, in a path.
fn quoted_again(text: &str) -> String {
    text.replace('%', "%25")
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let look = named(call)?;
    let (vhost, caller) = call.caller_here()?;
    vhost.unbind(&caller, &look.source, target(call)?, &look.routing_key, &look.arguments)?;
    call.settle()?;
    Ok(Answer::Done)
}

fn from(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let name = call.exchange("name");
    vhost.exchange(name).ok_or(Error::NotFound)?;
    list::whole(call, listed(vhost.name(), vhost.bindings_from(name)))
}

fn to_exchange(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let name = call.exchange("name");
    vhost.exchange(name).ok_or(Error::NotFound)?;
    list::whole(call, listed(vhost.name(), vhost.bindings_to(To::Exchange(name))))
}

fn to_queue(call: &Call) -> Result<Answer, Error> {
    let (vhost, queue) = super::queues::named(call)?;
    list::whole(call, listed(vhost.name(), vhost.bindings_to(To::Queue(queue.name()))))
}

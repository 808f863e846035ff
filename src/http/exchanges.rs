//! Exchanges: listed, made, deleted; and where a message would go.

use std::sync::Arc;

use amqp::Table;
use exchanges::Exchange as Declared;
use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::{Call, flag, table, text};
use super::error::Error;
use super::list::{self, Item};
use super::messages::properties_of;
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::stats::{self, ROUTED};
use crate::json::table_to_json;
use crate::queue::Past;
use crate::vhost::{ExchangeFlags, Vhost};

pub fn routes() -> Vec<Route> {
    let declaration =
        json!({"type": "direct", "durable": true, "auto_delete": false, "internal": false, "arguments": {}});
    let address = json!({"routing_key": "", "properties": {}});
    vec![
        Route::list("/exchanges", Right::Any, "All exchanges", all),
        Route::list("/exchanges/{vhost}", Right::See, "The exchanges of a vhost", all),
        Route::get("/exchanges/{vhost}/{name}", Right::See, "An exchange", get),
        Route::put("/exchanges/{vhost}/{name}", Right::Use, "Declares an exchange", put)
            .body(declaration, &[]),
        Route::delete("/exchanges/{vhost}/{name}", Right::Use, "Deletes an exchange", delete)
            .query(&["if-unused"]),
        Route::post("/exchanges/{vhost}/{name}/route", Right::See, "Where a message would go", route)
            .body(address, &["routing_key"]),
    ]
}

/// An exchange as it is described.
struct Exchange {
    vhost: Arc<Vhost>,
    name: String,
    declared: Declared,
    arguments: Table,
    now_ms: u64,
    past: Past,
    /// It was asked for alone.
    is_alone: bool,
}

impl Item for Exchange {
    fn key(&self) -> (&str, &str) {
        (self.vhost.name(), &self.name)
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        sheet.put("name", self.name.as_str());
        sheet.put("vhost", &**self.vhost.name());
        sheet.put("type", self.declared.kind.name());
        sheet.put("durable", self.declared.durable);
        sheet.put("auto_delete", self.declared.auto_delete);
        sheet.put("internal", self.declared.internal);
        sheet.with("arguments", || Json::Object(table_to_json(&self.arguments)));
        if sheet.wants(&["policy"])
            && let Some(policy) = self.vhost.policies_of_exchange(&self.name).policy
        {
            // Old tools cannot print null.
            sheet.put("policy", policy);
        }
        if self.name.is_empty() || self.name.starts_with("amq.") {
            sheet.put("user_who_performed_action", "rmq-internal");
        }
        sheet.with("messages_delayed", || json!(self.vhost.delayed_count(&self.name)));
        if self.is_alone {
            // Which channels publish to it and which queues it leads to is counted of neither, as in RabbitMQ unless
            // its rates are `detailed`.
            sheet.put("incoming", json!([]));
            sheet.put("outgoing", json!([]));
        }
        sheet.with("message_stats", || {
            let figures = self.vhost.exchange_tally(&self.name).figures_over(self.now_ms, self.past.rates);
            Json::Object(stats::message_stats(&figures, &[ROUTED]))
        });
    }
}

fn all(call: &Call) -> Result<Answer, Error> {
    let (now_ms, past) = (call.broker.clock().now_ms(), call.past());
    let exchanges = call.vhosts()?.into_iter().flat_map(|vhost| {
        let describe = |(declared, arguments): (Declared, Table)| {
            let name = declared.name.to_string();
            Exchange { vhost: vhost.clone(), name, declared, arguments, now_ms, past, is_alone: false }
        };
        vhost.exchanges().into_iter().map(describe).collect::<Vec<_>>()
    });
    list::all(call, exchanges.collect())
}

fn get(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let name = call.exchange("name").to_string();
    let (declared, arguments) = vhost.exchange(&name).ok_or(Error::NotFound)?;
    let now_ms = call.broker.clock().now_ms();
    list::one(call, &Exchange { vhost, name, declared, arguments, now_ms, past: call.past(), is_alone: true })
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let (vhost, caller) = call.caller_here()?;
    let name = call.exchange("name");
    if name.len() > amqp::limits::SHORT_STRING_BYTES_MAX {
        let text = format!("exchange should be less than 255 bytes, actually was {}\n", name.len());
        return Err(Error::BadRequest(text));
    }
    let is_new = vhost.exchange(name).is_none();
    if is_new && name.starts_with("amq.") {
        return Err(Error::NotAuthorised("Access refused.".into()));
    }
    let flags = ExchangeFlags {
        passive: false,
        durable: flag(&body, "durable")?.unwrap_or(false),
        auto_delete: flag(&body, "auto_delete")?.unwrap_or(false),
        internal: flag(&body, "internal")?.unwrap_or(false),
    };
    let kind = text(&body, "type")?.unwrap_or("direct");
    let declared = vhost.declare_exchange(&caller, name, kind, flags, &table(&body, "arguments")?);
    declared.map_err(|error| match error {
        // RabbitMQ says it differently here than over AMQP.
        crate::error::Error::UnknownKind(kind) => {
            Error::BadRequest(format!("invalid exchange type '{kind}'"))
        }
        other => other.into(),
    })?;
    call.settle()?;
    Ok(Answer::put(is_new))
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let vhost = call.vhost()?;
    let name = call.exchange("name");
    vhost.exchange(name).ok_or(Error::NotFound)?;
    vhost.delete_exchange(&call.caller(vhost.name())?, name, call.is_true("if-unused"))?;
    call.settle()?;
    Ok(Answer::Done)
}

fn route(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let vhost = call.vhost()?;
    let key = text(&body, "routing_key")?.ok_or_else(|| Error::missing_field("routing_key"))?;
    let name = call.exchange("name");
    vhost.exchange(name).ok_or(Error::NotFound)?;
    let (queues, held) = vhost.preview(name, key, &properties_of(&body)?)?;
    let queues: Vec<Json> = queues.iter().map(|queue| json!({"queue": queue})).collect();
    let held: Vec<Json> =
        held.iter().map(|(exchange, ms)| json!({"exchange": exchange, "delay_ms": ms})).collect();
    Ok(Answer::Json(json!({"routed": queues, "held_back": held})))
}

//! Queues: listed, made, deleted, emptied, paused, altered.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::answer::Answer;
use super::call::{Call, flag, integer, table};
use super::channels::connection_details;
use super::consumers;
use super::error::Error;
use super::list::{self, Item};
use super::route::{Right, Route};
use super::sheet::Sheet;
use super::stats::{self, LENGTHS, Lengths, TAKEN};
use crate::auth::Action;
use crate::error::What;
use crate::json::table_to_json;
use crate::queue::{Handle, Past, QueueKind};
use crate::tally::Count;
use crate::vhost::{QueueFlags, Vhost};

pub fn routes() -> Vec<Route> {
    let declaration =
        json!({"durable": true, "auto_delete": false, "arguments": {}, "node": "", "exclusive": false});
    vec![
        Route::list("/queues", Right::Any, "All queues", all),
        Route::list("/queues/detailed", Right::Any, "All queues", all),
        Route::list("/queues/{vhost}", Right::See, "The queues of a vhost", all),
        Route::get("/queues/{vhost}/{name}", Right::See, "A queue", get),
        Route::put("/queues/{vhost}/{name}", Right::Use, "Declares a queue", put).body(declaration, &[]),
        Route::delete("/queues/{vhost}/{name}", Right::Use, "Deletes a queue", delete)
            .query(&["if-unused", "if-empty"]),
        Route::delete("/queues/{vhost}/{name}/contents", Right::Use, "Empties a queue", purge),
        Route::post(
            "/queues/{vhost}/{name}/actions",
            Right::Administer,
            "Does nothing: there are no mirrors",
            act,
        )
        .body(json!({"action": "sync"}), &["action"]),
        Route::put(
            "/queues/{vhost}/{name}/pause",
            Right::Use,
            "Has a queue deliver nothing for a while",
            pause,
        )
        .body(json!({"until_ms": 0}), &[]),
        Route::put("/queues/{vhost}/{name}/resume", Right::Use, "Has a queue deliver again", resume)
            .body(json!({}), &[]),
        Route::put(
            "/queues/{vhost}/{name}/arguments",
            Right::Use,
            "Changes the arguments of a queue in place",
            alter,
        )
        .body(json!({"arguments": {}}), &["arguments"]),
    ]
}

/// A queue as it is described.
pub struct Queue {
    /// Its vhost.
    pub vhost: Arc<Vhost>,
    /// It.
    pub queue: Handle,
    /// What the node is called.
    pub node: Arc<str>,
    /// Which moments of the past are told of.
    pub past: Past,
    /// It was asked for alone.
    pub alone: Option<Alone>,
}

/// What is told of a queue only when it is asked for alone.
pub struct Alone {
    /// Its consumers, described.
    consumers: Vec<Json>,
    /// The connection that has it for itself, described.
    owner: Option<Json>,
}

impl Item for Queue {
    fn key(&self) -> (&str, &str) {
        (self.vhost.name(), self.queue.name())
    }

    fn describe(&self, sheet: &mut Sheet<'_>) {
        let queue = &self.queue;
        let declaration = queue.declaration();
        sheet.put("name", &*declaration.name);
        sheet.put("vhost", &*declaration.vhost);
        sheet.put("durable", declaration.durable);
        sheet.put("auto_delete", declaration.auto_delete);
        sheet.put("exclusive", declaration.owner.is_some());
        sheet.put("node", &*self.node);
        sheet.with("arguments", || Json::Object(table_to_json(&queue.declared().table)));
        const OF_POLICIES: &[&str] = &["policy", "operator_policy", "effective_policy_definition"];
        if sheet.wants(OF_POLICIES) {
            let effective = self.vhost.policies_of(queue);
            sheet.put("policy", effective.policy);
            sheet.put("operator_policy", effective.operator_policy);
            sheet.put("effective_policy_definition", effective.definition);
        }
        if let Some(alone) = &self.alone {
            sheet.with("consumer_details", || alone.consumers.clone().into());
            // Which exchanges they come from and which channels they go to is counted of neither, as in RabbitMQ
            // unless its rates are `detailed`.
            sheet.put("incoming", json!([]));
            sheet.put("deliveries", json!([]));
            if let Some(owner) = &alone.owner {
                sheet.put("owner_pid_details", owner.clone());
            }
        }
        self.describe_state(sheet);
    }
}

impl Queue {
    fn describe_state(&self, sheet: &mut Sheet<'_>) {
        let look = self.queue.look_back(self.past);
        let is_quorum = look.settings.kind == QueueKind::Quorum;
        sheet.put("type", if is_quorum { "quorum" } else { "classic" });
        sheet.put("state", if look.paused_until_ms > 0 { "paused" } else { "running" });
        sheet.put("paused_until_ms", Some(look.paused_until_ms).filter(|ms| *ms > 0));
        let messages = look.ready + look.unacked;
        const OF_PERSISTENT: &[&str] = &["messages_persistent", "message_bytes_persistent"];
        if sheet.wants(OF_PERSISTENT) {
            let (persistent, bytes) = self.queue.persistent(&look);
            sheet.put("messages_persistent", persistent);
            sheet.put("message_bytes_persistent", bytes);
        }
        if sheet.wants(LENGTHS) {
            let lengths = Lengths { now: [look.ready, look.unacked], growth: look.growth, past: look.past };
            sheet.extend(lengths.describe());
        }
        sheet.put("messages_resting", look.resting);
        sheet.put("messages_ram", messages - look.away.min(messages));
        sheet.put("messages_ready_ram", look.ready - look.away.min(look.ready));
        sheet.put("messages_unacknowledged_ram", look.unacked);
        sheet.put("messages_paged_out", look.away);
        sheet.put("message_bytes", look.ready_body_bytes + look.unacked_body_bytes);
        sheet.put("message_bytes_ready", look.ready_body_bytes);
        sheet.put("message_bytes_unacknowledged", look.unacked_body_bytes);
        sheet.put("message_bytes_ram", look.memory_bytes);
        sheet.put("memory", look.memory_bytes + QUEUE_BYTES);
        sheet.put("consumers", look.consumers);
        // Whether the consumers would have taken more than there was.
        let is_used = look.consumers > 0 && (look.starving || look.ready == 0);
        sheet.put("consumer_utilisation", if is_used { 1.0 } else { 0.0 });
        sheet.put("consumer_capacity", if is_used { 1.0 } else { 0.0 });
        sheet.with("exclusive_consumer_tag", || json!(look.exclusive.as_deref()));
        sheet.with("single_active_consumer_tag", || json!(look.single_active.as_deref()));
        sheet.with("head_message_timestamp", || json!(look.head.and_then(|(_, timestamp)| timestamp)));
        sheet.with("oldest_message_received_timestamp", || {
            json!(look.head.map(|(taken_at_ms, _)| taken_at_ms))
        });
        sheet.with("idle_since", || json!(stats::time(look.used_at_ms)));
        sheet.with("delivery_limit", || json!(look.settings.delivery_limit()));
        sheet.with("message_stats", || {
            Json::Object(stats::message_stats(&look.figures, &[TAKEN, &[("publish", Count::Publish)]]))
        });
        if is_quorum {
            sheet.put("leader", &*self.node);
            sheet.with("members", || json!([&*self.node]));
            sheet.with("online", || json!([&*self.node]));
        }
    }
}

/// What a queue takes beside its messages, in octets, about.
const QUEUE_BYTES: usize = 5 * 1024;

fn all(call: &Call) -> Result<Answer, Error> {
    let (node, past): (Arc<str>, Past) = (call.node().into(), call.past());
    let vhosts = call.vhosts()?;
    let total = vhosts.iter().map(|vhost| vhost.queue_count()).sum();
    list::ordered(call, total, |mut skipped, max| {
        let mut page = Vec::new();
        for vhost in vhosts {
            let queues = vhost.page_of_queues(skipped, max - page.len());
            skipped = skipped.saturating_sub(vhost.queue_count());
            let (vhost, node) = (&vhost, &node);
            page.extend(queues.into_iter().map(|queue| {
                let (vhost, node) = (vhost.clone(), node.clone());
                Queue { vhost, queue, node, past, alone: None }
            }));
        }
        page
    })
}

/// The queue of the path.
///
/// # Errors
/// `NotFound`.
pub fn named(call: &Call) -> Result<(Arc<Vhost>, Handle), Error> {
    let vhost = call.vhost()?;
    let queue = vhost.queue(call.param("name")).map_err(|_| Error::NotFound)?;
    Ok((vhost, queue))
}

fn get(call: &Call) -> Result<Answer, Error> {
    let (vhost, queue) = named(call)?;
    let consumers = consumers::of(call, &vhost, &queue);
    let owner = queue.declaration().owner.and_then(|owner| call.broker.roster.get(owner));
    let owner = owner.map(|guest| connection_details(&guest));
    let alone = Some(Alone { consumers, owner });
    list::one(call, &Queue { vhost, queue, node: call.node().into(), past: call.past(), alone })
}

fn put(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    let (vhost, caller) = call.caller_here()?;
    let name = call.param("name");
    if name.len() > amqp::limits::SHORT_STRING_BYTES_MAX {
        let text = format!("queue should be less than 255 bytes, actually was {}\n", name.len());
        return Err(Error::BadRequest(text));
    }
    if let Some(node) = super::call::text(&body, "node")?.filter(|node| !node.is_empty())
        && node != call.node()
    {
        return Err(Error::BadRequest(format!("Node {node} could not be contacted")));
    }
    let flags = QueueFlags {
        passive: false,
        durable: flag(&body, "durable")?.unwrap_or(false),
        // The connection that it would belong to is over before anybody could use it.
        exclusive: false,
        auto_delete: flag(&body, "auto_delete")?.unwrap_or(false),
    };
    let is_new = vhost.queue(name).is_err();
    vhost.declare_queue(&caller, name, flags, &table(&body, "arguments")?)?;
    call.settle()?;
    Ok(Answer::put(is_new))
}

fn delete(call: &Call) -> Result<Answer, Error> {
    let (vhost, _) = named(call)?;
    let caller = call.caller(vhost.name())?;
    vhost.delete_queue(&caller, call.param("name"), call.is_true("if-unused"), call.is_true("if-empty"))?;
    call.settle()?;
    Ok(Answer::Done)
}

fn purge(call: &Call) -> Result<Answer, Error> {
    let (vhost, _) = named(call)?;
    vhost.queue_to_read(&call.caller(vhost.name())?, call.param("name"))?.purge();
    call.settle()?;
    Ok(Answer::Done)
}

fn act(call: &Call) -> Result<Answer, Error> {
    named(call)?;
    let body = call.object()?;
    match body.get("action") {
        None => Err(Error::missing_field("action")),
        Some(Json::String(action)) if action == "sync" || action == "cancel_sync" => Ok(Answer::Done),
        Some(other) => Err(Error::Bad(json!(["unknown", other]))),
    }
}

fn pause(call: &Call) -> Result<Answer, Error> {
    let until_ms = match integer(&call.object()?, "until_ms")? {
        None => u64::MAX,
        Some(ms) => {
            u64::try_from(ms).map_err(|_| Error::BadRequest(format!("until_ms is {ms}, and is a time")))?
        }
    };
    set_pause(call, until_ms)
}

fn resume(call: &Call) -> Result<Answer, Error> {
    set_pause(call, 0)
}

fn set_pause(call: &Call, until_ms: u64) -> Result<Answer, Error> {
    let (vhost, _) = named(call)?;
    let caller = call.caller(vhost.name())?;
    caller.access.check(Action::Configure, What::Queue, call.param("name"))?;
    vhost.pause_queue(call.param("name"), until_ms)?;
    call.settle()?;
    Ok(Answer::Done)
}

fn alter(call: &Call) -> Result<Answer, Error> {
    let body = call.object()?;
    if !body.contains_key("arguments") {
        return Err(Error::missing_field("arguments"));
    }
    let (vhost, _) = named(call)?;
    let caller = call.caller(vhost.name())?;
    caller.access.check(Action::Configure, What::Queue, call.param("name"))?;
    vhost.alter_queue(call.param("name"), &table(&body, "arguments")?)?;
    call.settle()?;
    Ok(Answer::Done)
}

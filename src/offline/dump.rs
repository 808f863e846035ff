//! `dump`: a line of JSON for each queue, and one for each message in it.

use std::io::{BufWriter, Write, stdout};

use serde_json::{Map, Value as Json, json};
use store::{Depth, RecoveredQueue, Stored};

use super::contents::{Contents, Of};
use super::{Dump, Error, export};
use crate::json::{body_json, properties_json, table_to_json};

/// Prints it. Whether all of it could be read.
pub fn run(asked: &Dump) -> Result<bool, Error> {
    let mut contents = Contents::read(&asked.dir, Depth::Tail)?;
    let mut out = BufWriter::new(stdout().lock());
    if asked.definitions {
        let definitions = export::definitions(&contents.store)?;
        serde_json::to_writer_pretty(&mut out, &definitions).map_err(std::io::Error::from)?;
        writeln!(out)?;
        out.flush()?;
        return Ok(true);
    }
    let queues: Vec<RecoveredQueue> = contents.store.queues.clone();
    let (mut lost, mut is_found) = (0, asked.queue.is_none());
    for queue in &queues {
        if !is_wanted(asked, contents.owner(queue.queue)) {
            continue;
        }
        is_found = true;
        if let Some(line) = queue_line(&contents, &queues, queue) {
            writeln!(out, "{line}")?;
        }
        let damage = contents.messages(queue, |contents, message| {
            let line = message_line(asked, contents.owner(queue.queue), queue, &message);
            writeln!(out, "{line}").map_err(Error::from)
        })?;
        for damage in damage {
            lost += damage.messages.len();
            eprintln!("{}: {damage}", contents.owner(queue.queue));
        }
    }
    out.flush()?;
    if !is_found {
        let (name, vhost) = (asked.queue.as_deref().unwrap_or_default(), vhost_of(asked));
        return Err(Error::Asked(format!(
            "there is no queue '{name}' in vhost '{vhost}'; without --queue all of them are printed"
        )));
    }
    if lost > 0 {
        eprintln!("{lost} messages cannot be read; garenne verify says more");
    }
    Ok(lost == 0)
}

fn vhost_of(asked: &Dump) -> &str {
    asked.vhost.as_deref().unwrap_or("/")
}

fn is_wanted(asked: &Dump, of: Of<'_>) -> bool {
    let (vhost, queue) = match of {
        Of::Queue(queue, _) => (Some(&queue.vhost), Some(&queue.name)),
        Of::Delays(held) => (Some(&held.vhost), None),
        Of::Nothing => (None, None),
        // These are no messages.
        Of::Marks | Of::Window(_) | Of::Spilled => return false,
    };
    match &asked.queue {
        Some(name) => queue == Some(name) && vhost.is_some_and(|vhost| vhost == vhost_of(asked)),
        None => asked.vhost.is_none() || vhost == asked.vhost.as_ref(),
    }
}

/// What is told of a queue, before the messages of its first line.
fn queue_line(contents: &Contents, queues: &[RecoveredQueue], queue: &RecoveredQueue) -> Option<Json> {
    match contents.owner(queue.queue) {
        Of::Queue(definition, 0) => {
            let lines = queues.iter().filter(|line| match contents.owner(line.queue) {
                Of::Queue(other, _) => other.id == definition.id,
                _ => false,
            });
            let arguments = definition.altered.as_ref().unwrap_or(&definition.arguments);
            Some(json!({
                "object": "queue", "vhost": definition.vhost, "queue": definition.name,
                "auto_delete": definition.auto_delete, "arguments": table_to_json(arguments),
                "messages": lines.map(|line| line.live).sum::<u64>(),
            }))
        }
        Of::Delays(delays) => Some(json!({
            "object": "delaying_exchange", "vhost": delays.vhost, "exchange": delays.exchange,
            "messages": queue.live,
        })),
        Of::Nothing => Some(json!({"object": "unknown_queue", "id": queue.queue.0, "messages": queue.live})),
        _ => None,
    }
}

fn message_line(asked: &Dump, of: Of<'_>, queue: &RecoveredQueue, message: &Stored) -> Json {
    let [address, properties, body] = &message.parts;
    let (exchange, routing_key) = amqp::method::split_address(address).unwrap_or_default();
    let mut line = Map::new();
    let mut put = |name: &str, value: Json| drop(line.insert(name.into(), value));
    put("object", "message".into());
    match of {
        Of::Queue(definition, level) => {
            put("vhost", definition.vhost.as_str().into());
            put("queue", definition.name.as_str().into());
            put("priority", level.into());
        }
        Of::Delays(delays) => {
            put("vhost", delays.vhost.as_str().into());
            put("held_back_by", delays.exchange.as_str().into());
        }
        _ => put("queue_id", queue.queue.0.into()),
    }
    put("seq", message.seq.0.into());
    put("redelivered", (message.seq < queue.delivered_below).into());
    put("exchange", exchange.into());
    put("routing_key", routing_key.into());
    put("properties", properties_json(properties));
    put("taken_at_ms", message.timestamp_ms.into());
    if let Some(at_ms) = message.due_at_ms {
        put("due_at_ms", at_ms.into());
    }
    put("payload_bytes", body.len().into());
    if asked.bodies {
        let (payload, encoding) = body_json(body, true);
        put("payload", payload.into());
        put("payload_encoding", encoding.into());
    }
    Json::Object(line)
}

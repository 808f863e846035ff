//! What rabbitmqctl and rabbitmq-queues do to a single queue.

use serde_json::{Map, Value, json};

use super::arguments::{flag, text};
use super::call::{Call, Fault, Result, Verb, code};
use super::output::Output;
use super::{CTL, QUEUES};
use crate::cli::client::path;
use crate::cli::failure::Failure;

pub const VERBS: &[Verb] = &[
    Verb {
        name: "delete_queue",
        tools: CTL,
        section: "Queues",
        about: "Deletes a queue",
        usage: "[--vhost <vhost>] <queue_name> [--if-empty|-e] [--if-unused|-u]",
        switches: &[flag("if-empty").short('e'), flag("if-unused").short('u'), flag("force")],
        words: (1, 1),
        banner: |call| {
            let conditions: Vec<&str> = [
                call.given.is_set("if-empty").then_some("if queue is empty "),
                call.given.is_set("if-unused").then_some("if queue is unused "),
            ]
            .into_iter()
            .flatten()
            .collect();
            format!(
                "Deleting queue '{}' on vhost '{}' {}...",
                call.word(0),
                call.vhost(),
                conditions.join("and ")
            )
        },
        run: delete,
    },
    Verb {
        name: "purge_queue",
        tools: CTL,
        section: "Queues",
        about: "Drops the ready messages of a queue",
        usage: "[--vhost <vhost>] <queue>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Purging queue '{}' in vhost '{}' ...", call.word(0), call.vhost()),
        run: |call| match call.client.delete(&path(&["queues", call.vhost(), call.word(0), "contents"])) {
            Ok(_) => Ok(Output::Nothing),
            Err(Failure::NotFound { .. }) => Err(Fault::error(code::UNAVAILABLE, "not_found")),
            Err(failure) => Err(call.fault(failure)),
        },
    },
    Verb {
        name: "peek",
        tools: QUEUES,
        section: "Monitoring, observability and health checks",
        about: "Shows the message at a position of a queue, of any type; it stays where it is",
        usage: "[--vhost <vhost>] <queue> <pos>",
        switches: &[],
        words: (2, 2),
        banner: |call| {
            let (queue, position) = (call.word(0), call.word(1));
            format!("Peeking at quorum queue {queue} at position {position} on node {} ...", call.node)
        },
        run: peek,
    },
    Verb {
        name: "rebalance",
        tools: QUEUES,
        section: "Cluster",
        about: "Spreads queues over nodes; a single node has them all",
        usage: "< all | classic | quorum > [--vhost-pattern <pattern>] [--queue-pattern <pattern>]",
        switches: &[text("vhost-pattern"), text("queue-pattern")],
        words: (1, 1),
        banner: |call| match call.word(0) {
            "all" => "Re-balancing leaders of all queues...".into(),
            kind => format!("Re-balancing leaders of {kind} queues..."),
        },
        run: |call| {
            call.get("/overview").map(|_| Output::said("Nothing to do: a single node has all queues"))
        },
    },
];

fn delete(call: &Call) -> Result<Output> {
    let queue = path(&["queues", call.vhost(), call.word(0)]);
    let not_found = || Fault::error(code::USAGE, "Queue not found");
    let Some(known) = call.find(&queue)? else { return Err(not_found()) };
    let conditions: Vec<&str> = [
        call.given.is_set("if-empty").then_some("if-empty=true"),
        call.given.is_set("if-unused").then_some("if-unused=true"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match call.client.delete(&format!("{queue}?{}", conditions.join("&"))) {
        Ok(_) => {
            let ready = known["messages_ready"].as_u64().unwrap_or(0);
            Ok(Output::said(format!("Queue was successfully deleted with {ready} ready messages")))
        }
        Err(Failure::NotFound { .. }) => Err(not_found()),
        Err(failure) => Err(call.fault(failure)),
    }
}

fn peek(call: &Call) -> Result<Output> {
    let position: u64 = match call.word(1).parse() {
        Ok(position) if position > 0 => position,
        _ => {
            let given = [call.verb.name.to_string(), call.words.join(" ")];
            return Err(call.misused(code::DATA, "Bad argument: the position is a number from 1", &given));
        }
    };
    let queue = path(&["queues", call.vhost(), call.word(0)]);
    if call.find(&queue)?.is_none() {
        let text = format!("Target queue was not found in virtual host '{}'", call.vhost());
        return Err(Fault::error(code::UNAVAILABLE, text));
    }
    let body = json!({ "count": 1, "offset": position - 1 });
    let found = call.client.post(&format!("{queue}/peek"), &body).map_err(|failure| call.fault(failure))?;
    let Some(Value::Object(message)) = found.get(0).cloned() else {
        return Err(Fault::error(code::UNAVAILABLE, "Message at the position was not found"));
    };
    let line = |(key, value): (&String, &Value)| format!("{key}: {}\n", super::output::term(value));
    let text = Map::iter(&message).map(line).collect();
    Ok(Output::Page { text, json: Value::Object(message) })
}

//! Queues: list, declare, delete, purge, alter, pause, and who holds what was not acknowledged.

use serde_json::{Map, Value, json};

use super::client::path;
use super::command::{
    Given, IDEMPOTENTLY, Noun, Session, Verb, default, delete, flag, named, object, optional, required,
    switch,
};
use super::duration;
use super::failure::{Failure, Result};
use super::listing::{PAGES, list, rows_of, scoped};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "queues",
    aliases: &["queue"],
    about: "Queues: where messages wait for their consumers",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists queues",
            example: "queues list --name-pattern '^orders' --sort messages --sort-reverse",
            arguments: PAGES,
            run: listed,
        },
        Verb {
            name: "show",
            about: "Shows one queue",
            example: "queues show --name orders",
            arguments: &[named("name", "the queue")],
            run: show,
        },
        Verb {
            name: "declare",
            about: "Makes a queue",
            example: "queues declare --name orders --type quorum --durable true --arguments '{\"x-max-length\": 1000}'",
            arguments: &[
                named("name", "the queue"),
                default("type", "classic", "classic or quorum"),
                switch("durable", true, "is it there after a restart?"),
                switch("auto-delete", false, "does it go with its last consumer?"),
                object("arguments", "arguments, as in {\"x-dead-letter-exchange\": \"dead\"}"),
            ],
            run: declare,
        },
        Verb {
            name: "delete",
            about: "Deletes a queue and its messages",
            example: "queues delete --name orders --if-empty",
            arguments: &[
                named("name", "the queue"),
                flag("if-empty", "only if no message is ready"),
                flag("if-unused", "only if it has no consumers"),
                IDEMPOTENTLY,
            ],
            run: deleted,
        },
        Verb {
            name: "delete_multiple",
            about: "Deletes all queues of a vhost whose name matches",
            example: "--vhost / queues delete_multiple --name-pattern '^tmp' --approve",
            arguments: &[
                required("name-pattern", "a regular expression over names"),
                flag("approve", "really delete; without it nothing is"),
                flag("dry-run", "only list what would be deleted"),
            ],
            run: delete_multiple,
        },
        Verb {
            name: "purge",
            about: "Drops the ready messages of a queue",
            example: "queues purge --name orders",
            arguments: &[named("name", "the queue")],
            run: purge,
        },
        Verb {
            name: "alter",
            about: "Changes arguments of a queue where it stands, without deleting it",
            example: "queues alter --name orders --arguments '{\"x-max-length\": 5000}'",
            arguments: &[named("name", "the queue"), object("arguments", "what it shall have from now on")],
            run: alter,
        },
        Verb {
            name: "pause",
            about: "Delivers nothing from a queue until it is resumed, or for a time; it still takes messages",
            example: "queues pause --name orders --until 15m",
            arguments: &[
                named("name", "the queue"),
                optional("until", "for how long (90s, 15m, 2h) or until when (2027-01-31T18:00:00Z)"),
            ],
            run: pause,
        },
        Verb {
            name: "resume",
            about: "Delivers from a paused queue again",
            example: "queues resume --name orders",
            arguments: &[named("name", "the queue")],
            run: resume,
        },
        Verb {
            name: "unacked",
            about: "Shows who holds the messages that were not acknowledged, and since when",
            example: "queues unacked --name orders",
            arguments: &[named("name", "the queue")],
            run: unacked,
        },
        Verb {
            name: "bindings",
            about: "Lists what is bound to a queue",
            example: "queues bindings --name orders",
            arguments: &[named("name", "the queue")],
            run: bound,
        },
        Verb {
            name: "rebalance",
            about: "Spreads leaders over the nodes of a cluster; a single node has nothing to spread",
            example: "queues rebalance",
            arguments: &[],
            run: rebalance,
        },
    ],
};

const COLUMNS: &[&str] = &[
    "vhost",
    "name",
    "type",
    "state",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "consumers",
    "policy",
    "arguments",
];

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, scoped(session, "queues"), COLUMNS)
}

pub fn at(session: &Session, given: &Given, what: &[&str]) -> String {
    path(&[&["queues", session.vhost(), given.text("name")], what].concat())
}

/// As people speak of it: `queue 'orders' in vhost '/'`.
fn title(session: &Session, given: &Given) -> String {
    format!("queue '{}' in vhost '{}'", given.text("name"), session.vhost())
}

fn show(session: &Session, given: &Given) -> Result<Answer> {
    let object = session.client.get(&at(session, given, &[]))?;
    Ok(Answer::Fields { object, columns: &[] })
}

fn declare(session: &Session, given: &Given) -> Result<Answer> {
    let mut arguments = given.object("arguments");
    // A type among the arguments wins over the default, and must not contradict what was asked for.
    let kind = given.text("type").to_lowercase();
    arguments.entry("x-queue-type").or_insert_with(|| Value::String(kind));
    let body = json!({
        "durable": given.flag("durable"), "auto_delete": given.flag("auto-delete"), "arguments": arguments,
    });
    session.client.put(&at(session, given, &[]), &body)?;
    Ok(Answer::Done(format!("{} declared", title(session, given))))
}

fn deleted(session: &Session, given: &Given) -> Result<Answer> {
    let conditions: Vec<&str> = [
        given.flag("if-empty").then_some("if-empty=true"),
        given.flag("if-unused").then_some("if-unused=true"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let query = if conditions.is_empty() { String::new() } else { format!("?{}", conditions.join("&")) };
    delete(session, given, &(at(session, given, &[]) + &query), title(session, given))
}

fn delete_multiple(session: &Session, given: &Given) -> Result<Answer> {
    let vhost = session.vhost();
    let pattern = given.text("name-pattern");
    let pattern = regex::Regex::new(pattern).map_err(|error| {
        Failure::Usage(format!("--name-pattern '{pattern}' is no regular expression: {error}"))
    })?;
    let all = path(&["queues", vhost]);
    let queues = rows_of(session.client.get(&format!("{all}?columns=name"))?, &all)?;
    let names: Vec<&str> = queues
        .iter()
        .filter_map(|queue| queue["name"].as_str())
        .filter(|name| pattern.is_match(name))
        .collect();
    let is_dry = given.flag("dry-run");
    if !is_dry && !given.flag("approve") {
        let text =
            format!("{} queues match; say --approve to delete them, --dry-run to see them", names.len());
        return Err(Failure::Usage(text));
    }
    let mut rows = Vec::new();
    for name in names {
        if !is_dry {
            match session.client.delete(&path(&["queues", vhost, name])) {
                Ok(_) | Err(Failure::NotFound { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        rows.push(json!({ "vhost": vhost, "name": name, "deleted": !is_dry }));
    }
    Ok(Answer::Rows { rows, columns: &["vhost", "name", "deleted"] })
}

fn purge(session: &Session, given: &Given) -> Result<Answer> {
    session.client.delete(&at(session, given, &["contents"]))?;
    Ok(Answer::Done(format!("{} purged", title(session, given))))
}

fn alter(session: &Session, given: &Given) -> Result<Answer> {
    let arguments = given.object("arguments");
    if arguments.is_empty() {
        return Err(Failure::Usage("--arguments names no argument; nothing would change".into()));
    }
    let names: Vec<String> = arguments.keys().cloned().collect();
    let body = json!({ "arguments": arguments });
    session.client.put(&at(session, given, &["arguments"]), &body)?;
    Ok(Answer::Done(format!("{} altered: {}", title(session, given), names.join(", "))))
}

fn pause(session: &Session, given: &Given) -> Result<Answer> {
    let mut body = Map::new();
    let until = given.maybe("until").map(|text| duration::until_ms(text, duration::now_ms())).transpose();
    let until = until.map_err(|reason| Failure::Usage(format!("--until: {reason}")))?;
    if let Some(ms) = until {
        body.insert("until_ms".into(), ms.into());
    }
    session.client.put(&at(session, given, &["pause"]), &Value::Object(body))?;
    let end = given.maybe("until").map_or("until it is resumed".to_string(), |text| format!("until {text}"));
    Ok(Answer::Done(format!("{} paused {end}", title(session, given))))
}

fn resume(session: &Session, given: &Given) -> Result<Answer> {
    session.client.put(&at(session, given, &["resume"]), &json!({}))?;
    Ok(Answer::Done(format!("{} resumed", title(session, given))))
}

fn unacked(session: &Session, given: &Given) -> Result<Answer> {
    let path = at(session, given, &["unacked"]);
    let mut rows = rows_of(session.client.get(&path)?, &path)?;
    for row in &mut rows {
        let age = row["age_ms"].as_u64().map(duration::words);
        if let (Some(age), Some(row)) = (age, row.as_object_mut()) {
            row.insert("held_for".into(), age.into());
        }
    }
    let columns = &[
        "consumer_tag",
        "channel_details.connection_name",
        "channel_details.number",
        "channel_details.user",
        "delivery_tag",
        "held_for",
        "message_id",
        "routing_key",
        "redelivered",
    ];
    Ok(Answer::Rows { rows, columns })
}

fn bound(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &["source", "routing_key", "arguments"];
    list(session, given, at(session, given, &["bindings"]), columns)
}

fn rebalance(session: &Session, _: &Given) -> Result<Answer> {
    session.client.post("/rebalance/queues", &json!({}))?;
    Ok(Answer::Done("rebalancing started".into()))
}

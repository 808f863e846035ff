//! Messages: publish and get, look into a queue without disturbing it, find one, move many.

use std::fs;
use std::io::Read;

use base64::Engine;
use serde_json::{Map, Value, json};

use super::client::path;
use super::command::{
    Argument, Given, Noun, Session, Verb, default, flag, named, number, object, optional, required,
};
use super::duration;
use super::exchanges;
use super::failure::{Failure, Result};
use super::listing::rows_of;
use super::table::{Answer, Format};

const LIMIT: Argument = number("limit", "at most so many messages");
const RATE: Argument = number("rate", "at most so many messages a second");
const DRY_RUN: Argument = flag("dry-run", "only count what would be moved");

pub const NOUN: Noun = Noun {
    name: "messages",
    aliases: &["message"],
    about: "Messages: publish, get, peek, find, move",
    verbs: &[
        Verb {
            name: "publish",
            about: "Publishes a message; for tests and repairs, not for traffic",
            example: "messages publish --exchange orders --routing-key eu.new --payload 'hello' --properties '{\"message_id\": \"1\"}'",
            arguments: &[
                default("exchange", "", "the exchange; without one it goes to the queue named by the key")
                    .short('e'),
                default("routing-key", "", "the routing key").short('k'),
                default("payload", "test", "the body").short('m'),
                optional("payload-file", "a file with the body; - is standard input").short('f'),
                object("properties", "as in {\"delivery_mode\": 2, \"headers\": {\"a\": 1}}").short('p'),
            ],
            run: publish,
        },
        Verb {
            name: "get",
            about: "Takes messages from a queue; with an ack mode that requeues they come back as redelivered",
            example: "messages get --queue orders --count 10 --ack-mode ack_requeue_true",
            arguments: &[
                named("queue", "the queue").short('q'),
                default("count", "1", "how many").short('c'),
                default(
                    "ack-mode",
                    "ack_requeue_false",
                    "ack_requeue_false, ack_requeue_true, reject_requeue_false or reject_requeue_true",
                )
                .short('a'),
                default("encoding", "auto", "auto: text where it is text; base64: always base64"),
            ],
            run: get,
        },
        Verb {
            name: "peek",
            about: "Shows messages where they lie: nothing is taken, requeued or marked",
            example: "messages peek --queue orders --count 10 --offset 100",
            arguments: &[
                named("queue", "the queue").short('q'),
                number("count", "how many (10)").short('c'),
                number("offset", "how many to pass over from the head"),
                number("truncate", "show at most so many bytes of a body"),
                default("encoding", "auto", "auto: text where it is text; base64: always base64"),
            ],
            run: peek,
        },
        Verb {
            name: "find",
            about: "Finds messages in a queue by their id or a header, without disturbing it",
            example: "messages find --queue orders --header tenant --value acme",
            arguments: &[
                named("queue", "the queue").short('q'),
                optional("message-id", "the property message_id").alias("id"),
                optional("header", "a header that it has"),
                optional("value", "what this header says"),
                LIMIT,
            ],
            run: find,
        },
        Verb {
            name: "trail",
            about: "Tells what happened to the messages of an id, in queues whose policy says trace-messages",
            example: "messages trail --message-id 7f3a",
            arguments: &[required("message-id", "the property message_id").alias("id")],
            run: trail,
        },
        Verb {
            name: "move",
            about: "Moves ready messages from one queue to another, none lost and none twice",
            example: "messages move --queue orders --to orders-eu --limit 1000 --rate 100 --header region --value eu",
            arguments: &[
                named("queue", "the queue they are in").short('q'),
                required("to", "the queue they go to"),
                LIMIT,
                RATE,
                optional("header", "only those with this header"),
                optional("value", "and this value of it"),
                DRY_RUN,
            ],
            run: moved,
        },
    ],
};

fn publish(session: &Session, given: &Given) -> Result<Answer> {
    let (payload, encoding) = match given.maybe("payload-file") {
        Some(file) => payload_of(read(file)?),
        None => (given.text("payload").to_string(), "string"),
    };
    let body = json!({
        "routing_key": given.text("routing-key"), "payload": payload, "payload_encoding": encoding,
        "properties": given.json("properties"),
    });
    let exchange = exchanges::of(given.text("exchange"));
    let answer = session.client.post(&path(&["exchanges", session.vhost(), exchange, "publish"]), &body)?;
    Ok(Answer::Rows { rows: vec![answer], columns: &["routed"] })
}

fn trail(session: &Session, given: &Given) -> Result<Answer> {
    let path = path(&["trails", session.vhost(), given.text("message-id")]);
    let steps = session.client.get(&path)?;
    const COLUMNS: &[&str] =
        &["at_ms", "what", "queue", "queues", "reason", "how", "connection", "consumer_tag", "user"];
    Ok(Answer::Rows { rows: rows_of(steps, &path)?, columns: COLUMNS })
}

fn read(file: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = match file {
        "-" => std::io::stdin().read_to_end(&mut bytes).map(|_| bytes),
        file => fs::read(file),
    };
    got.map_err(|error| Failure::Input(format!("{file} cannot be read: {error}")))
}

/// Text as it is; what is no text, as base64.
fn payload_of(bytes: Vec<u8>) -> (String, &'static str) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, "string"),
        Err(error) => (base64::engine::general_purpose::STANDARD.encode(error.as_bytes()), "base64"),
    }
}

fn get(session: &Session, given: &Given) -> Result<Answer> {
    let count: u64 = given
        .text("count")
        .parse()
        .map_err(|_| Failure::Usage(format!("--count '{}' is no whole number", given.text("count"))))?;
    let body =
        json!({ "count": count, "ackmode": given.text("ack-mode"), "encoding": given.text("encoding") });
    let path = path(&["queues", session.vhost(), given.text("queue"), "get"]);
    let rows = rows_of(session.client.post(&path, &body)?, &path)?;
    Ok(Answer::Rows { rows, columns: &["exchange", "routing_key", "redelivered", "properties", "payload"] })
}

fn peek(session: &Session, given: &Given) -> Result<Answer> {
    let mut body = Map::new();
    body.insert("count".into(), given.number("count").unwrap_or(10).into());
    body.insert("encoding".into(), given.text("encoding").into());
    for name in ["offset", "truncate"] {
        if let Some(number) = given.number(name) {
            body.insert(name.into(), number.into());
        }
    }
    looked(session, given, "peek", body)
}

fn find(session: &Session, given: &Given) -> Result<Answer> {
    let mut body = Map::new();
    for (argument, key) in [("message-id", "message_id"), ("header", "header"), ("value", "value")] {
        if let Some(value) = given.maybe(argument) {
            body.insert(key.into(), value.into());
        }
    }
    if !body.contains_key("message_id") && !body.contains_key("header") {
        return Err(Failure::Usage(
            "say what to find: --message-id ID, or --header NAME with --value".into(),
        ));
    }
    if let Some(limit) = given.number("limit") {
        body.insert("limit".into(), limit.into());
    }
    looked(session, given, "find", body)
}

fn looked(session: &Session, given: &Given, how: &str, body: Map<String, Value>) -> Result<Answer> {
    let path = path(&["queues", session.vhost(), given.text("queue"), how]);
    let mut rows = rows_of(session.client.post(&path, &Value::Object(body))?, &path)?;
    if session.format == Format::Table {
        rows.iter_mut().for_each(add_age);
    }
    let columns = &[
        "position",
        "message_id",
        "age",
        "exchange",
        "routing_key",
        "redelivered",
        "payload_bytes",
        "payload",
    ];
    Ok(Answer::Rows { rows, columns })
}

fn add_age(row: &mut Value) {
    let age = row["age_ms"].as_u64().map(duration::words);
    if let (Some(age), Some(row)) = (age, row.as_object_mut()) {
        row.insert("age".into(), age.into());
    }
}

fn moved(session: &Session, given: &Given) -> Result<Answer> {
    let mut body = motion(given)?;
    body.insert("queue".into(), given.text("to").into());
    let path = path(&["queues", session.vhost(), given.text("queue"), "move"]);
    report(session, &path, body)
}

/// What redriving and moving are told alike: how many, how fast, which ones, and whether really.
pub fn motion(given: &Given) -> Result<Map<String, Value>> {
    let mut body = Map::new();
    for name in ["limit", "rate"] {
        match given.number(name) {
            Some(0) => return Err(Failure::Usage(format!("--{name} 0 would move nothing"))),
            Some(number) => {
                body.insert(name.into(), number.into());
            }
            None => {}
        }
    }
    match (given.maybe("header"), given.maybe("value"), given.maybe("reason")) {
        (Some(header), Some(value), None) => {
            body.insert("filter".into(), json!({ "header": header, "value": value }));
        }
        (None, None, Some(reason)) => {
            body.insert("filter".into(), json!({ "reason": reason }));
        }
        (None, None, None) => {}
        _ => {
            return Err(Failure::Usage(
                "a filter is --header NAME with --value VALUE, or --reason REASON".into(),
            ));
        }
    }
    body.insert("dry_run".into(), given.flag("dry-run").into());
    Ok(body)
}

/// Many messages at a rate take their time: this waits as long as it lasts.
pub fn report(session: &Session, path: &str, body: Map<String, Value>) -> Result<Answer> {
    let object = session.client.without_timeout().post(path, &Value::Object(body))?;
    Ok(Answer::Fields { object, columns: &["moved", "skipped", "failed", "targets"] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_text_travels_as_base64() {
        assert_eq!(payload_of(b"hi".to_vec()), ("hi".to_string(), "string"));
        assert_eq!(payload_of(vec![0xff, 0]), ("/wA=".to_string(), "base64"));
    }
}

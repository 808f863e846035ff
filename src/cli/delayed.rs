//! Delayed messages: what an exchange holds back until its hour, and how to take it out.

use serde_json::Value;

use super::client::{path, with_query};
use super::command::{Given, IDEMPOTENTLY, Noun, Session, Verb, delete, named, number, optional, required};
use super::duration;
use super::exchanges;
use super::failure::Result;
use super::listing::{list, rows_of, scoped};
use super::table::{Answer, Format};

pub const NOUN: Noun = Noun {
    name: "delayed",
    aliases: &[],
    about: "Messages that wait for their hour at an exchange",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists the exchanges that hold messages back; with --exchange, the messages of one",
            example: "delayed list --exchange later --max 100",
            arguments: &[
                optional("exchange", "the exchange").short('e'),
                number("max", "at most so many messages"),
                optional("after", "go on after this one: its due_at_ms,seq"),
            ],
            run: listed,
        },
        Verb {
            name: "cancel",
            about: "Takes one message out before it is due, by its x-schedule-id",
            example: "delayed cancel --exchange later --id reminder-17",
            arguments: &[
                required("exchange", "the exchange").short('e'),
                required("id", "the header x-schedule-id of the message"),
                IDEMPOTENTLY,
            ],
            run: cancel,
        },
        Verb {
            name: "purge",
            about: "Drops everything that an exchange holds back",
            example: "delayed purge --exchange later",
            arguments: &[named("exchange", "the exchange").short('e')],
            run: purge,
        },
    ],
};

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    let Some(exchange) = given.maybe("exchange") else {
        return list(session, given, scoped(session, "delayed"), &["vhost", "exchange", "messages"]);
    };
    let path = with_query(
        path(&["exchanges", session.vhost(), exchanges::of(exchange), "delayed"]),
        &[
            ("max", given.number("max").map(|max| max.to_string())),
            ("after", given.maybe("after").map(String::from)),
        ],
    );
    let mut rows = rows_of(session.client.get(&path)?, &path)?;
    if session.format == Format::Table {
        rows.iter_mut().for_each(add_point);
    }
    let columns =
        &["due_at", "due_at_ms", "seq", "schedule_id", "message_id", "routing_key", "payload_bytes"];
    Ok(Answer::Rows { rows, columns })
}

fn add_point(row: &mut Value) {
    let due = row["due_at_ms"].as_u64().map(duration::point);
    if let (Some(due), Some(row)) = (due, row.as_object_mut()) {
        row.insert("due_at".into(), due.into());
    }
}

fn cancel(session: &Session, given: &Given) -> Result<Answer> {
    let (exchange, id) = (given.text("exchange"), given.text("id"));
    let path = path(&["exchanges", session.vhost(), exchanges::of(exchange), "delayed", id]);
    delete(session, given, &path, format!("delayed message '{id}' at exchange '{exchange}'"))
}

fn purge(session: &Session, given: &Given) -> Result<Answer> {
    let exchange = given.text("exchange");
    let path = path(&["exchanges", session.vhost(), exchanges::of(exchange), "delayed"]);
    let object = session.client.delete(&path)?;
    Ok(Answer::Fields { object, columns: &["purged"] })
}

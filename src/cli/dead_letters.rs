//! Dead letters: which queues they gather in, and back with them to where they came from.

use serde_json::Value;

use super::client::path;
use super::command::{Given, Noun, Session, Verb, default, flag, named, number, optional};
use super::failure::Result;
use super::listing::{list, scoped};
use super::messages::{motion, report};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "dead_letters",
    aliases: &[],
    about: "Dead letters: where they lie, and how they go back",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists the queues that dead letters go to, and why the messages in them died",
            example: "dead_letters list",
            arguments: &[],
            run: listed,
        },
        Verb {
            name: "redrive",
            about: "Sends dead letters back to where they died, or to another queue",
            example: "dead_letters redrive dead --to origin --limit 100 --rate 10 --reason expired --dry-run",
            arguments: &[
                named("queue", "the queue that they lie in").short('q'),
                default("to", "origin", "origin: the queue each one died in; or the name of a queue"),
                number("limit", "at most so many messages"),
                number("rate", "at most so many messages a second"),
                optional("filter", "HEADER=VALUE or reason=REASON; or the next three"),
                optional("header", "only those with this header"),
                optional("value", "and this value of it"),
                optional("reason", "only those that died of rejected, expired, maxlen or delivery_limit"),
                flag("dry-run", "only count what would be moved"),
            ],
            run: redrive,
        },
    ],
};

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, scoped(session, "dead-letters"), &["vhost", "queue", "messages", "reasons"])
}

fn redrive(session: &Session, given: &Given) -> Result<Answer> {
    let mut body = motion(given)?;
    if let Some(filter) = given.maybe("filter") {
        body.insert("filter".into(), parse_filter(filter)?);
    }
    match given.text("to") {
        "origin" => {
            body.insert("to".into(), "origin".into());
        }
        queue => {
            body.insert("to".into(), "queue".into());
            body.insert("queue".into(), queue.into());
        }
    }
    report(session, &path(&["queues", session.vhost(), given.text("queue"), "redrive"]), body)
}

fn parse_filter(text: &str) -> Result<Value> {
    match text.split_once('=') {
        Some(("reason", reason)) => Ok(serde_json::json!({ "reason": reason })),
        Some((header, value)) if !header.is_empty() => {
            Ok(serde_json::json!({ "header": header, "value": value }))
        }
        _ => {
            let text = format!("--filter '{text}' is neither HEADER=VALUE nor reason=REASON");
            Err(super::failure::Failure::Usage(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_header_or_a_reason() {
        assert_eq!(
            parse_filter("reason=expired").expect("a filter"),
            serde_json::json!({"reason": "expired"})
        );
        assert_eq!(
            parse_filter("tenant=a=b").expect("a filter"),
            serde_json::json!({"header": "tenant", "value": "a=b"})
        );
        assert!(parse_filter("tenant").is_err());
    }
}

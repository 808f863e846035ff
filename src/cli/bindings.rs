//! Bindings of exchanges to queues and exchanges.

use serde_json::{Value, json};

use super::client::path;
use super::command::{Argument, Given, IDEMPOTENTLY, Noun, Session, Verb, default, object, required};
use super::failure::{Failure, Result};
use super::listing::{list, rows_of, scoped};
use super::table::Answer;

const SOURCE: Argument = required("source", "the exchange that messages come from");
const KIND: Argument = default("destination-type", "queue", "queue or exchange");
const DESTINATION: Argument = required("destination", "the queue or exchange that messages go to");
const KEY: Argument = default("routing-key", "", "the routing key or pattern");
const ARGUMENTS: Argument = object("arguments", "arguments, as for headers exchanges");

pub const DECLARE: &[Argument] = &[SOURCE, KIND, DESTINATION, KEY, ARGUMENTS];
pub const DELETE: &[Argument] = &[SOURCE, KIND, DESTINATION, KEY, ARGUMENTS, IDEMPOTENTLY];

pub const NOUN: Noun = Noun {
    name: "bindings",
    aliases: &["binding"],
    about: "Bindings: which messages go from an exchange to a queue or another exchange",
    verbs: &[
        Verb { name: "list", about: "Lists bindings", example: "bindings list", arguments: &[], run: listed },
        Verb {
            name: "declare",
            about: "Binds a queue or exchange to an exchange",
            example: "bindings declare --source orders --destination-type queue --destination eu --routing-key 'eu.#'",
            arguments: DECLARE,
            run: declare,
        },
        Verb {
            name: "delete",
            about: "Removes a binding",
            example: "bindings delete --source orders --destination-type queue --destination eu --routing-key 'eu.#'",
            arguments: DELETE,
            run: deleted,
        },
    ],
};

pub fn listed(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &["vhost", "source", "destination_type", "destination", "routing_key", "arguments"];
    list(session, given, scoped(session, "bindings"), columns)
}

pub fn declare(session: &Session, given: &Given) -> Result<Answer> {
    let body = json!({ "routing_key": given.text("routing-key"), "arguments": given.json("arguments") });
    session.client.post(&between(session, given)?, &body)?;
    let (from, to) = (given.text("source"), given.text("destination"));
    Ok(Answer::Done(format!("'{to}' bound to exchange '{from}'")))
}

/// The one binding with this key and these arguments; the broker knows it by its properties key.
pub fn deleted(session: &Session, given: &Given) -> Result<Answer> {
    let between = between(session, given)?;
    let (from, to, key) = (given.text("source"), given.text("destination"), given.text("routing-key"));
    let arguments = given.json("arguments");
    let is_same = |binding: &&Value| {
        let has = binding.get("arguments").cloned().unwrap_or_else(|| json!({}));
        // Old brokers write no arguments as an empty list.
        let has = if has == json!([]) { json!({}) } else { has };
        binding["routing_key"] == key && has == arguments
    };
    let all = match session.client.get(&between) {
        Ok(all) => rows_of(all, &between)?,
        Err(Failure::NotFound { .. }) => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let properties = all.iter().find(is_same).and_then(|binding| binding["properties_key"].as_str());
    let what = format!("binding of '{to}' to exchange '{from}' with routing key '{key}'");
    match properties {
        Some(properties) => {
            session.client.delete(&format!("{between}{}", path(&[properties])))?;
            Ok(Answer::Done(format!("{what} deleted")))
        }
        None if given.flag("idempotently") => Ok(Answer::Done(format!("{what} was not there"))),
        None => Err(Failure::Input(format!("there is no {what} and arguments {arguments}"))),
    }
}

fn between(session: &Session, given: &Given) -> Result<String> {
    let kind = match given.text("destination-type") {
        "queue" | "q" => "q",
        "exchange" | "e" => "e",
        other => {
            let text = format!("--destination-type '{other}' is neither queue nor exchange");
            return Err(Failure::Usage(text));
        }
    };
    // The default exchange has no name; the API calls it so.
    let source = match given.text("source") {
        "" => "amq.default",
        name => name,
    };
    Ok(path(&["bindings", session.vhost(), "e", source, kind, given.text("destination")]))
}

//! Exchanges: list, declare, delete, bind; and where a message would go.

use serde_json::json;

use super::bindings;
use super::client::path;
use super::command::{
    Given, IDEMPOTENTLY, Noun, Session, Verb, default, delete, flag, named, object, switch,
};
use super::failure::Result;
use super::listing::{PAGES, list, scoped};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "exchanges",
    aliases: &["exchange"],
    about: "Exchanges: where messages are published to",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists exchanges",
            example: "exchanges list",
            arguments: PAGES,
            run: listed,
        },
        Verb {
            name: "show",
            about: "Shows one exchange",
            example: "exchanges show --name orders",
            arguments: &[named("name", "the exchange")],
            run: show,
        },
        Verb {
            name: "declare",
            about: "Makes an exchange",
            example: "exchanges declare --name orders --type topic --durable true",
            arguments: &[
                named("name", "the exchange"),
                default(
                    "type",
                    "direct",
                    "direct, fanout, topic, headers, x-consistent-hash, x-delayed-message, ...",
                ),
                switch("durable", true, "is it there after a restart?"),
                switch("auto-delete", false, "does it go with its last binding?"),
                switch("internal", false, "do only other exchanges publish to it?"),
                object("arguments", "arguments, as in {\"alternate-exchange\": \"rest\"}"),
            ],
            run: declare,
        },
        Verb {
            name: "delete",
            about: "Deletes an exchange",
            example: "exchanges delete --name orders",
            arguments: &[
                named("name", "the exchange"),
                flag("if-unused", "only if nothing is bound to it"),
                IDEMPOTENTLY,
            ],
            run: deleted,
        },
        Verb {
            name: "bind",
            about: "Binds a queue or exchange to an exchange",
            example: "exchanges bind --source orders --destination-type queue --destination eu --routing-key 'eu.#'",
            arguments: bindings::DECLARE,
            run: bindings::declare,
        },
        Verb {
            name: "unbind",
            about: "Removes a binding",
            example: "exchanges unbind --source orders --destination-type queue --destination eu --routing-key 'eu.#'",
            arguments: bindings::DELETE,
            run: bindings::deleted,
        },
        Verb {
            name: "route",
            about: "Says which queues a message would reach, without publishing it",
            example: "exchanges route --name orders --routing-key eu.new --properties '{\"headers\": {\"vip\": true}}'",
            arguments: &[
                named("name", "the exchange"),
                default("routing-key", "", "the routing key").short('k'),
                object("properties", "the properties of the message"),
            ],
            run: route,
        },
    ],
};

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &["vhost", "name", "type", "durable", "auto_delete", "internal", "policy", "arguments"];
    list(session, given, scoped(session, "exchanges"), columns)
}

fn show(session: &Session, given: &Given) -> Result<Answer> {
    let object = session.client.get(&path(&["exchanges", session.vhost(), of(given.text("name"))]))?;
    Ok(Answer::Fields { object, columns: &[] })
}

/// The default exchange has no name; the API calls it so.
pub fn of(name: &str) -> &str {
    if name.is_empty() { "amq.default" } else { name }
}

fn declare(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, name) = (session.vhost(), given.text("name"));
    let body = json!({
        "type": given.text("type"), "durable": given.flag("durable"), "auto_delete": given.flag("auto-delete"),
        "internal": given.flag("internal"), "arguments": given.json("arguments"),
    });
    session.client.put(&path(&["exchanges", vhost, name]), &body)?;
    Ok(Answer::Done(format!("exchange '{name}' in vhost '{vhost}' declared")))
}

fn deleted(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, name) = (session.vhost(), given.text("name"));
    let query = if given.flag("if-unused") { "?if-unused=true" } else { "" };
    let path = path(&["exchanges", vhost, name]) + query;
    delete(session, given, &path, format!("exchange '{name}' in vhost '{vhost}'"))
}

fn route(session: &Session, given: &Given) -> Result<Answer> {
    let path = path(&["exchanges", session.vhost(), of(given.text("name")), "route"]);
    let body = json!({ "routing_key": given.text("routing-key"), "properties": given.json("properties") });
    let answer = session.client.post(&path, &body)?;
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let routed = list("routed").into_iter().map(|to| json!({ "queue": to["queue"], "how": "routed" }));
    let held = list("held_back").into_iter().map(|at| {
        let name = if at.is_object() { at["exchange"].clone() } else { at };
        json!({ "exchange": name, "how": "held back there" })
    });
    Ok(Answer::Rows { rows: routed.chain(held).collect(), columns: &["queue", "exchange", "how"] })
}

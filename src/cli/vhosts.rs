//! Virtual hosts: list, declare, delete, protect; and their limits.

use serde_json::{Map, Value, json};

use super::client::path;
use super::command::{
    Given, IDEMPOTENTLY, Noun, Session, Verb, delete, json, named, optional, required, switch,
};
use super::failure::Result;
use super::listing::{PAGES, list, scoped};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "vhosts",
    aliases: &["vhost"],
    about: "Virtual hosts: rooms with their own exchanges, queues and permissions",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists virtual hosts",
            example: "vhosts list",
            arguments: PAGES,
            run: listed,
        },
        Verb {
            name: "show",
            about: "Shows one virtual host",
            example: "vhosts show --name orders",
            arguments: &[named("name", "the virtual host")],
            run: show,
        },
        Verb {
            name: "declare",
            about: "Makes or changes a virtual host",
            example: "vhosts declare --name orders --default-queue-type quorum --description 'orders of the shop'",
            arguments: &[
                named("name", "the virtual host"),
                optional("default-queue-type", "classic or quorum, for queues declared without a type"),
                optional("description", "what it is for"),
                optional("tags", "words, separated by commas"),
                switch("tracing", false, "copy what is published and delivered to amq.rabbitmq.trace"),
            ],
            run: declare,
        },
        Verb {
            name: "delete",
            about: "Deletes a virtual host and everything in it",
            example: "vhosts delete --name orders",
            arguments: &[named("name", "the virtual host"), IDEMPOTENTLY],
            run: deleted,
        },
        Verb {
            name: "enable_deletion_protection",
            about: "Lets nobody delete this virtual host",
            example: "vhosts enable_deletion_protection --name orders",
            arguments: &[named("name", "the virtual host")],
            run: protect,
        },
        Verb {
            name: "disable_deletion_protection",
            about: "Lets this virtual host be deleted again",
            example: "vhosts disable_deletion_protection --name orders",
            arguments: &[named("name", "the virtual host")],
            run: unprotect,
        },
    ],
};

pub const LIMITS: Noun = Noun {
    name: "vhost_limits",
    aliases: &[],
    about: "How many connections and queues a virtual host may have",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists limits of virtual hosts",
            example: "vhost_limits list",
            arguments: &[],
            run: limits,
        },
        Verb {
            name: "declare",
            about: "Sets a limit; -1 lifts it",
            example: "--vhost orders vhost_limits declare --name max-queues --value 1000",
            arguments: &[required("name", "max-connections or max-queues"), json("value", "a number")],
            run: declare_limit,
        },
        Verb {
            name: "delete",
            about: "Removes a limit",
            example: "--vhost orders vhost_limits delete --name max-queues",
            arguments: &[required("name", "max-connections or max-queues"), IDEMPOTENTLY],
            run: delete_limit,
        },
    ],
};

const COLUMNS: &[&str] = &[
    "name",
    "description",
    "tags",
    "default_queue_type",
    "tracing",
    "messages_ready",
    "messages_unacknowledged",
];

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, path(&["vhosts"]), COLUMNS)
}

fn show(session: &Session, given: &Given) -> Result<Answer> {
    let object = session.client.get(&path(&["vhosts", given.text("name")]))?;
    Ok(Answer::Fields { object, columns: &[] })
}

fn declare(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    let mut body = Map::new();
    for (argument, key) in
        [("description", "description"), ("tags", "tags"), ("default-queue-type", "default_queue_type")]
    {
        if let Some(value) = given.maybe(argument) {
            body.insert(key.into(), value.into());
        }
    }
    body.insert("tracing".into(), given.flag("tracing").into());
    session.client.put(&path(&["vhosts", name]), &Value::Object(body))?;
    Ok(Answer::Done(format!("vhost '{name}' declared")))
}

fn deleted(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    delete(session, given, &path(&["vhosts", name]), format!("vhost '{name}'"))
}

fn protect(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    session.client.post(&path(&["vhosts", name, "deletion", "protection"]), &json!({}))?;
    Ok(Answer::Done(format!("vhost '{name}' cannot be deleted any more")))
}

fn unprotect(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    session.client.delete(&path(&["vhosts", name, "deletion", "protection"]))?;
    Ok(Answer::Done(format!("vhost '{name}' can be deleted again")))
}

fn limits(session: &Session, given: &Given) -> Result<Answer> {
    list(session, given, scoped(session, "vhost-limits"), &["vhost", "value"])
}

fn declare_limit(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, name, value) = (session.vhost(), given.text("name"), given.json("value"));
    session.client.put(&path(&["vhost-limits", vhost, name]), &json!({ "value": value }))?;
    Ok(Answer::Done(format!("limit {name} of vhost '{vhost}' is {value}")))
}

fn delete_limit(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, name) = (session.vhost(), given.text("name"));
    delete(session, given, &path(&["vhost-limits", vhost, name]), format!("limit {name} of vhost '{vhost}'"))
}

//! Permissions of users in a vhost, and of topics within an exchange.

use serde_json::json;

use super::client::path;
use super::command::{Given, IDEMPOTENTLY, Noun, Session, Verb, delete, optional, required};
use super::failure::Result;
use super::listing::{list, rows_of};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "permissions",
    aliases: &["permission"],
    about: "What users may configure, write and read in a vhost, as regular expressions over names",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists permissions",
            example: "permissions list",
            arguments: &[],
            run: listed,
        },
        Verb {
            name: "declare",
            about: "Sets the permissions of a user in a vhost",
            example: "--vhost / permissions declare --username alice --configure '^alice' --write '.*' --read '.*'",
            arguments: &[
                required("username", "the user").alias("user"),
                required("configure", "what it may declare and delete"),
                required("write", "what it may publish to and bind"),
                required("read", "what it may consume from and bind to"),
            ],
            run: declare,
        },
        Verb {
            name: "delete",
            about: "Takes away all permissions of a user in a vhost",
            example: "--vhost / permissions delete --username alice",
            arguments: &[required("username", "the user").alias("user"), IDEMPOTENTLY],
            run: deleted,
        },
    ],
};

pub const TOPICS: Noun = Noun {
    name: "topic_permissions",
    aliases: &[],
    about: "Which routing keys users may write to and read from at topic exchanges",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists topic permissions",
            example: "topic_permissions list",
            arguments: &[],
            run: topics,
        },
        Verb {
            name: "declare",
            about: "Sets the topic permissions of a user at an exchange",
            example: "topic_permissions declare --username alice --exchange amq.topic --write '^eu\\.' --read '.*'",
            arguments: &[
                required("username", "the user").alias("user"),
                required("exchange", "the exchange"),
                required("write", "the keys it may publish with"),
                required("read", "the keys it may bind with"),
            ],
            run: declare_topic,
        },
        Verb {
            name: "delete",
            about: "Takes away the topic permissions of a user in a vhost",
            example: "topic_permissions delete --username alice",
            arguments: &[
                required("username", "the user").alias("user"),
                optional("exchange", "only at this exchange"),
                IDEMPOTENTLY,
            ],
            run: delete_topic,
        },
    ],
};

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    let path = match &session.named_vhost {
        Some(vhost) => path(&["vhosts", vhost, "permissions"]),
        None => path(&["permissions"]),
    };
    list(session, given, path, &["vhost", "user", "configure", "write", "read"])
}

fn declare(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, user) = (session.vhost(), given.text("username"));
    let body = json!({
        "configure": given.text("configure"), "write": given.text("write"), "read": given.text("read"),
    });
    session.client.put(&path(&["permissions", vhost, user]), &body)?;
    Ok(Answer::Done(format!("permissions of user '{user}' in vhost '{vhost}' declared")))
}

fn deleted(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, user) = (session.vhost(), given.text("username"));
    let what = format!("permissions of user '{user}' in vhost '{vhost}'");
    delete(session, given, &path(&["permissions", vhost, user]), what)
}

fn topics(session: &Session, given: &Given) -> Result<Answer> {
    let path = match &session.named_vhost {
        Some(vhost) => path(&["vhosts", vhost, "topic-permissions"]),
        None => path(&["topic-permissions"]),
    };
    list(session, given, path, &["vhost", "user", "exchange", "write", "read"])
}

fn declare_topic(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, user, exchange) = (session.vhost(), given.text("username"), given.text("exchange"));
    let body = json!({ "exchange": exchange, "write": given.text("write"), "read": given.text("read") });
    session.client.put(&path(&["topic-permissions", vhost, user]), &body)?;
    Ok(Answer::Done(format!("topic permissions of user '{user}' at exchange '{exchange}' declared")))
}

/// The API takes away all of a user's in a vhost; to keep the others they are set again.
fn delete_topic(session: &Session, given: &Given) -> Result<Answer> {
    let (vhost, user) = (session.vhost(), given.text("username"));
    let all = path(&["topic-permissions", vhost, user]);
    let what = format!("topic permissions of user '{user}' in vhost '{vhost}'");
    let Some(exchange) = given.maybe("exchange") else {
        return delete(session, given, &all, what);
    };
    let kept = rows_of(session.client.get(&all)?, &all)?;
    session.client.delete(&all)?;
    for permission in kept.iter().filter(|permission| permission["exchange"] != exchange) {
        session.client.put(&all, permission)?;
    }
    Ok(Answer::Done(format!("{what} at exchange '{exchange}' deleted")))
}

//! Connections, channels and consumers: who is there, and how to show them out.

use super::client::path;
use super::command::{Given, IDEMPOTENTLY, Noun, Session, Verb, delete, named};
use super::failure::{Failure, Result};
use super::listing::{PAGES, list, rows_of, scoped};
use super::table::Answer;

pub const NOUN: Noun = Noun {
    name: "connections",
    aliases: &["connection"],
    about: "Connections of clients",
    verbs: &[
        Verb {
            name: "list",
            about: "Lists connections",
            example: "connections list",
            arguments: PAGES,
            run: listed,
        },
        Verb {
            name: "show",
            about: "Shows one connection",
            example: "connections show --name '127.0.0.1:4711 -> 127.0.0.1:5672'",
            arguments: &[named("name", "the connection")],
            run: show,
        },
        Verb {
            name: "close",
            about: "Closes a connection",
            example: "connections close --name '127.0.0.1:4711 -> 127.0.0.1:5672'",
            arguments: &[named("name", "the connection"), IDEMPOTENTLY],
            run: close,
        },
        Verb {
            name: "list_of_user",
            about: "Lists the connections of a user",
            example: "connections list_of_user --username alice",
            arguments: &[named("username", "the user").short('u')],
            run: of_user,
        },
        Verb {
            name: "close_of_user",
            about: "Closes all connections of a user",
            example: "connections close_of_user --username alice",
            arguments: &[named("username", "the user").short('u'), IDEMPOTENTLY],
            run: close_of_user,
        },
    ],
};

pub const CHANNELS: Noun = Noun {
    name: "channels",
    aliases: &["channel"],
    about: "Channels of clients' connections",
    verbs: &[Verb {
        name: "list",
        about: "Lists channels",
        example: "channels list",
        arguments: PAGES,
        run: channels,
    }],
};

pub const CONSUMERS: Noun = Noun {
    name: "consumers",
    aliases: &["consumer"],
    about: "Consumers of queues",
    verbs: &[Verb {
        name: "list",
        about: "Lists consumers",
        example: "consumers list",
        arguments: &[],
        run: consumers,
    }],
};

fn listed(session: &Session, given: &Given) -> Result<Answer> {
    let path = match &session.named_vhost {
        Some(vhost) => path(&["vhosts", vhost, "connections"]),
        None => path(&["connections"]),
    };
    let columns = &[
        "name",
        "user_provided_name",
        "vhost",
        "user",
        "state",
        "protocol",
        "ssl",
        "channels",
        "client_properties.product",
    ];
    list(session, given, path, columns)
}

fn show(session: &Session, given: &Given) -> Result<Answer> {
    let object = session.client.get(&path(&["connections", given.text("name")]))?;
    Ok(Answer::Fields { object, columns: &[] })
}

pub fn of_user(session: &Session, given: &Given) -> Result<Answer> {
    let path = path(&["connections", "username", given.text("username")]);
    list(session, given, path, &["name", "vhost", "user", "node"])
}

fn close(session: &Session, given: &Given) -> Result<Answer> {
    let name = given.text("name");
    delete(session, given, &path(&["connections", name]), format!("connection '{name}'"))
}

/// One by one: RabbitMQ 3.10 has no call that closes them all.
fn close_of_user(session: &Session, given: &Given) -> Result<Answer> {
    let user = given.text("username");
    let all = path(&["connections", "username", user]);
    let connections = match session.client.get(&all) {
        Ok(answer) => rows_of(answer, &all)?,
        Err(Failure::NotFound { .. }) if given.flag("idempotently") => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let mut closed = 0;
    for name in connections.iter().filter_map(|connection| connection["name"].as_str()) {
        match session.client.delete(&path(&["connections", name])) {
            Ok(_) => closed += 1,
            // It went by itself meanwhile.
            Err(Failure::NotFound { .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Answer::Done(format!("{closed} connections of user '{user}' closed")))
}

fn channels(session: &Session, given: &Given) -> Result<Answer> {
    let path = match &session.named_vhost {
        Some(vhost) => path(&["vhosts", vhost, "channels"]),
        None => path(&["channels"]),
    };
    let columns = &[
        "name",
        "vhost",
        "user",
        "state",
        "consumer_count",
        "prefetch_count",
        "confirm",
        "messages_unacknowledged",
        "messages_unconfirmed",
    ];
    list(session, given, path, columns)
}

fn consumers(session: &Session, given: &Given) -> Result<Answer> {
    let columns = &[
        "queue.vhost",
        "queue.name",
        "consumer_tag",
        "channel_details.connection_name",
        "ack_required",
        "prefetch_count",
        "active",
        "exclusive",
    ];
    list(session, given, scoped(session, "consumers"), columns)
}

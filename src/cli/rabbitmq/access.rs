//! Users, their tags, passwords and permissions.

use std::io::{BufRead, IsTerminal};

use serde_json::{Value, json};

use super::CTL;
use super::arguments::text;
use super::call::{Call, Fault, READING, Result, Verb, code, quiet};
use super::output::{Output, Rows};
use crate::cli::client::{Client, path};
use crate::cli::failure::Failure;
use crate::cli::settings::{Flags, Settings};
use crate::cli::users::hash;

const USERS: &str = "Users";
pub const ACCESS: &str = "Access Control";

pub const VERBS: &[Verb] = &[
    Verb {
        name: "add_user",
        tools: CTL,
        section: USERS,
        about: "Makes a user, at first without any permission",
        usage: "<username> <password>",
        switches: &[text("pre-hashed-password"), text("tags")],
        words: (1, 2),
        banner: |call| format!("Adding user \"{}\" ...", call.word(0)),
        run: add_user,
    },
    Verb {
        name: "delete_user",
        tools: CTL,
        section: USERS,
        about: "Deletes a user",
        usage: "<username>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Deleting user \"{}\" ...", call.word(0)),
        run: |call| {
            let user = known_user(call)?;
            call.delete(&path(&["users", &user])).map(|_| Output::Nothing)
        },
    },
    Verb {
        name: "change_password",
        tools: CTL,
        section: USERS,
        about: "Changes the password of a user",
        usage: "<username> <password>",
        switches: &[],
        words: (1, 2),
        banner: |call| format!("Changing password for user \"{}\" ...", call.word(0)),
        run: |call| {
            let password = password(call)?;
            change(call, json!({ "password": password }))
        },
    },
    Verb {
        name: "clear_password",
        tools: CTL,
        section: USERS,
        about: "Takes a user's password away; certificates are left",
        usage: "<username>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Clearing password for user \"{}\" ...", call.word(0)),
        run: |call| match call.has_user(call.word(0))? {
            true => change(call, json!({ "password_hash": "" })),
            false => Err(no_such_user(call.word(0))),
        },
    },
    Verb {
        name: "authenticate_user",
        tools: CTL,
        section: USERS,
        about: "Tries a user's password",
        usage: "<username> <password>",
        switches: &[],
        words: (1, 2),
        banner: |call| format!("Authenticating user \"{}\" ...", call.word(0)),
        run: authenticate,
    },
    Verb {
        name: "set_user_tags",
        tools: CTL,
        section: USERS,
        about: "Sets the tags of a user",
        usage: "<username> <tag> [...]",
        switches: &[],
        words: (1, usize::MAX),
        banner: |call| {
            format!("Setting tags for user \"{}\" to [{}] ...", call.word(0), call.words[1..].join(", "))
        },
        run: set_tags,
    },
    Verb {
        name: "list_users",
        tools: READING,
        section: USERS,
        about: "Lists users and their tags",
        usage: "[--no-table-headers] [--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |_| "Listing users ...".into(),
        run: |call| Ok(rows(&[("user", "name"), ("tags", "tags")], call.list("/users")?)),
    },
    Verb {
        name: "hash_password",
        tools: CTL,
        section: USERS,
        about: "Prints a salted hash of a password",
        usage: "<cleartext_password>",
        switches: &[],
        words: (1, 1),
        banner: |_| "Will hash password ...".into(),
        run: |call| Ok(Output::said(hash(call.word(0), rand::random(), false))),
    },
    Verb {
        name: "set_permissions",
        tools: CTL,
        section: ACCESS,
        about: "Sets what a user may configure, write and read in a vhost",
        usage: "[--vhost <vhost>] <username> <conf> <write> <read>",
        switches: &[],
        words: (4, 4),
        banner: |call| {
            format!("Setting permissions for user \"{}\" in vhost \"{}\" ...", call.word(0), call.vhost())
        },
        run: |call| {
            let body = json!({ "configure": call.word(1), "write": call.word(2), "read": call.word(3) });
            set(call, "permissions", body)
        },
    },
    Verb {
        name: "clear_permissions",
        tools: CTL,
        section: ACCESS,
        about: "Takes away a user's permissions in a vhost",
        usage: "[--vhost <vhost>] <username>",
        switches: &[],
        words: (1, 1),
        banner: |call| {
            format!("Clearing permissions for user \"{}\" in vhost \"{}\" ...", call.word(0), call.vhost())
        },
        run: |call| clear(call, "permissions"),
    },
    Verb {
        name: "list_permissions",
        tools: READING,
        section: ACCESS,
        about: "Lists the permissions in a vhost",
        usage: "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Listing permissions for vhost \"{}\" ...", call.vhost()),
        run: |call| {
            known_vhost(call)?;
            let all = call.list(&path(&["vhosts", call.vhost(), "permissions"]))?;
            Ok(rows(&same(&["user", "configure", "write", "read"]), all))
        },
    },
    Verb {
        name: "list_user_permissions",
        tools: READING,
        section: ACCESS,
        about: "Lists the permissions of a user in all vhosts",
        usage: "[--no-table-headers] <username> [--timeout <timeout>]",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Listing permissions for user \"{}\" ...", call.word(0)),
        run: |call| of_user(call, "permissions", &["vhost", "configure", "write", "read"]),
    },
    Verb {
        name: "set_topic_permissions",
        tools: CTL,
        section: ACCESS,
        about: "Sets which routing keys a user may write and read at a topic exchange",
        usage: "[--vhost <vhost>] <username> <exchange> <write> <read>",
        switches: &[],
        words: (4, 4),
        banner: |call| {
            let (user, exchange) = (call.word(0), call.word(1));
            let vhost = call.vhost();
            format!(
                "Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."
            )
        },
        run: |call| {
            let body = json!({ "exchange": call.word(1), "write": call.word(2), "read": call.word(3) });
            set(call, "topic-permissions", body)
        },
    },
    Verb {
        name: "clear_topic_permissions",
        tools: CTL,
        section: ACCESS,
        about: "Takes away a user's topic permissions, in a vhost or at one exchange",
        usage: "[--vhost <vhost>] <username> [<exchange>]",
        switches: &[],
        words: (1, 2),
        banner: |call| {
            let at = call.words.get(1).map(|exchange| format!(" on \"{exchange}\"")).unwrap_or_default();
            format!(
                "Clearing topic permissions{at} for user \"{}\" in vhost \"{}\" ...",
                call.word(0),
                call.vhost()
            )
        },
        run: clear_topic,
    },
    Verb {
        name: "list_topic_permissions",
        tools: READING,
        section: ACCESS,
        about: "Lists the topic permissions in a vhost",
        usage: "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Listing topic permissions for vhost \"{}\" ...", call.vhost()),
        run: |call| {
            known_vhost(call)?;
            let all = call.list(&path(&["vhosts", call.vhost(), "topic-permissions"]))?;
            Ok(rows(&same(&["user", "exchange", "write", "read"]), all))
        },
    },
    Verb {
        name: "list_user_topic_permissions",
        tools: READING,
        section: ACCESS,
        about: "Lists the topic permissions of a user in all vhosts",
        usage: "[--no-table-headers] <username> [--timeout <timeout>]",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Listing topic permissions for user \"{}\" ...", call.word(0)),
        run: |call| of_user(call, "topic-permissions", &["vhost", "exchange", "write", "read"]),
    },
    Verb {
        name: "list_hashes",
        tools: CTL,
        section: super::absent::SECTION,
        about: "Lists hash functions of encrypted configuration values; there are none",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: quiet,
        run: |call| super::absent::absent(call, "encrypted configuration values are RabbitMQ's own"),
    },
];

fn same<'a>(names: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    names.iter().map(|name| (*name, *name)).collect()
}

/// Rows of the columns `(shown, key)`.
pub fn rows(columns: &[(&str, &str)], items: Vec<Value>) -> Output {
    let rows = items.iter().map(|item| columns.iter().map(|(_, key)| item[*key].clone()).collect()).collect();
    let columns = columns.iter().map(|(shown, _)| shown.to_string()).collect();
    Output::Rows(Rows { columns, rows, is_stream: false })
}

fn no_user(user: &str) -> Fault {
    Fault::error(code::NO_USER, format!("User \"{user}\" does not exist"))
}

/// As Elixir prints it, for commands that have no better text.
pub fn no_such_user(user: &str) -> Fault {
    Fault::error(code::UNAVAILABLE, format!("{{:no_such_user, \"{user}\"}}"))
}

pub fn no_vhost(vhost: &str) -> Fault {
    Fault::plain(code::DATA, format!("Virtual host '{vhost}' does not exist"))
}

fn known_user(call: &Call) -> Result<String> {
    match call.has_user(call.word(0))? {
        true => Ok(call.word(0).to_string()),
        false => Err(no_user(call.word(0))),
    }
}

pub fn known_vhost(call: &Call) -> Result<()> {
    match call.has_vhost(call.vhost())? {
        true => Ok(()),
        false => Err(no_vhost(call.vhost())),
    }
}

/// The second word, or else a line of standard input.
fn password(call: &Call) -> Result<String> {
    if let Some(word) = call.words.get(1) {
        return Ok(word.clone());
    }
    if std::io::stdin().is_terminal() {
        // The answer is typed behind it.
        eprint!("Password: ");
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match (read, line.trim_end_matches(['\r', '\n'])) {
        (Ok(_), password) if !password.is_empty() => Ok(password.to_string()),
        _ => Err(Fault::error(code::DATA, "Password is not provided via argument or stdin")),
    }
}

fn add_user(call: &Call) -> Result<Output> {
    let user = call.word(0);
    let mut body = json!({ "tags": call.given.text("tags").unwrap_or_default() });
    match call.given.text("pre-hashed-password") {
        Some(hash) => body["password_hash"] = hash.into(),
        None => body["password"] = password(call)?.into(),
    }
    if call.has_user(user)? {
        return Err(Fault::error(code::SOFTWARE, format!("User \"{user}\" already exists")));
    }
    call.put(&path(&["users", user]), &body)?;
    if call.is_quiet() {
        return Ok(Output::Nothing);
    }
    let next = "Done. Don't forget to grant the user permissions to some virtual hosts! \
                See 'rabbitmqctl help set_permissions' to learn more.";
    Ok(Output::Message { text: next.into(), json: json!({ "node": call.node, "result": "ok" }) })
}

/// Writes a user again, with its tags as they are, and what `body` changes.
fn change(call: &Call, mut body: Value) -> Result<Output> {
    let user = call.word(0);
    let Some(known) = call.find(&path(&["users", user]))? else {
        return Err(no_user(user));
    };
    body["tags"] = tags_of(&known);
    call.put(&path(&["users", user]), &body).map(|_| Output::Nothing)
}

/// The API takes tags as one string.
pub fn tags_of(user: &Value) -> Value {
    match &user["tags"] {
        Value::Array(tags) => tags.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into(),
        other => other.clone(),
    }
}

fn set_tags(call: &Call) -> Result<Output> {
    let user = call.word(0);
    let Some(known) = call.find(&path(&["users", user]))? else {
        return Err(no_user(user));
    };
    let body = json!({
        "password_hash": known["password_hash"], "hashing_algorithm": known["hashing_algorithm"],
        "tags": call.words[1..].join(","),
    });
    call.put(&path(&["users", user]), &body).map(|_| Output::Nothing)
}

/// Logs in as this user. Who has the right password but no tag for the API is told so, and is right.
fn authenticate(call: &Call) -> Result<Output> {
    let (user, password) = (call.word(0).to_string(), password(call)?);
    let settings = Settings {
        user: user.clone(),
        password,
        ..super::settings(Flags::default(), &call.given).map_err(|failure| call.fault(failure))?
    };
    let client = Client::new(&settings).map_err(|failure| call.fault(failure))?;
    match client.get("/whoami") {
        Ok(_) => Ok(Output::said("Success")),
        Err(Failure::Denied { reason, .. }) if reason.to_lowercase().contains("management user") => {
            Ok(Output::said("Success"))
        }
        Err(Failure::Denied { .. }) => Err(Fault::error(
            code::DATA,
            format!("Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials"),
        )),
        Err(failure) => Err(call.fault(failure)),
    }
}

/// What is missing when a permission cannot be set or cleared: the vhost or the user.
fn missing(call: &Call, failure: Failure) -> Fault {
    let (user, vhost) = (call.word(0), call.vhost());
    match (call.has_vhost(vhost), call.has_user(user)) {
        (Ok(false), _) => Fault::error(code::UNAVAILABLE, format!("Virtual host {vhost} does not exist")),
        (_, Ok(false)) => Fault::error(code::NO_USER, format!("User {user} does not exist")),
        _ => call.fault(failure),
    }
}

fn set(call: &Call, what: &str, body: Value) -> Result<Output> {
    match call.client.put(&path(&[what, call.vhost(), call.word(0)]), &body) {
        Ok(_) => Ok(Output::Nothing),
        Err(failure) => Err(missing(call, failure)),
    }
}

fn clear(call: &Call, what: &str) -> Result<Output> {
    match call.client.delete(&path(&[what, call.vhost(), call.word(0)])) {
        Ok(_) => Ok(Output::Nothing),
        // There was nothing to clear, which is no error where user and vhost are there.
        Err(failure @ Failure::NotFound { .. }) => {
            match (call.has_vhost(call.vhost())?, call.has_user(call.word(0))?) {
                (true, true) => Ok(Output::Nothing),
                _ => Err(missing(call, failure)),
            }
        }
        Err(failure) => Err(call.fault(failure)),
    }
}

/// The API clears all exchanges of a user; those that shall stay are set again.
fn clear_topic(call: &Call) -> Result<Output> {
    let all = path(&["topic-permissions", call.vhost(), call.word(0)]);
    let kept = match (call.words.get(1), call.find(&all)?) {
        (Some(exchange), Some(Value::Array(permissions))) => {
            permissions.into_iter().filter(|permission| permission["exchange"] != **exchange).collect()
        }
        _ => Vec::new(),
    };
    clear(call, "topic-permissions")?;
    for permission in &kept {
        call.put(&all, permission)?;
    }
    Ok(Output::Nothing)
}

fn of_user(call: &Call, what: &str, columns: &[&str]) -> Result<Output> {
    let user = call.word(0);
    if !call.has_user(user)? {
        return Err(no_such_user(user));
    }
    Ok(rows(&same(columns), call.list(&path(&["users", user, what]))?))
}

//! Vhosts: list, add, delete, tag, trace.

use serde_json::Value;

use super::CTL;
use super::access::{ACCESS, known_vhost, no_vhost, tags_of};
use super::arguments::text;
use super::call::{Call, READING, Result, Verb};
use super::lists::columns;
use super::output::{Output, Rows};
use crate::cli::client::path;
use crate::cli::failure::Failure;

const VHOSTS: &str = "Virtual hosts";

pub const VERBS: &[Verb] = &[
    Verb {
        name: "list_vhosts",
        tools: READING,
        section: ACCESS,
        about: "Lists vhosts",
        usage: "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |_| "Listing vhosts ...".into(),
        run: vhosts,
    },
    Verb {
        name: "add_vhost",
        tools: CTL,
        section: VHOSTS,
        about: "Makes a vhost",
        usage: "<vhost> [--description <description> --tags \"<tag1>,<tag2>,<...>\" --default-queue-type <quorum|classic|stream>]",
        switches: &[text("description"), text("tags"), text("default-queue-type")],
        words: (1, 1),
        banner: |call| format!("Adding vhost \"{}\" ...", call.word(0)),
        run: add_vhost,
    },
    Verb {
        name: "delete_vhost",
        tools: CTL,
        section: VHOSTS,
        about: "Deletes a vhost and everything in it",
        usage: "<vhost>",
        switches: &[],
        words: (1, 1),
        banner: |call| format!("Deleting vhost \"{}\" ...", call.word(0)),
        run: |call| match call.client.delete(&path(&["vhosts", call.word(0)])) {
            Ok(_) => Ok(Output::Nothing),
            Err(Failure::NotFound { .. }) => Err(no_vhost(call.word(0))),
            Err(failure) => Err(call.fault(failure)),
        },
    },
    Verb {
        name: "set_vhost_tags",
        tools: CTL,
        section: VHOSTS,
        about: "Sets the tags of a vhost",
        usage: "<vhost> <tag> [...]",
        switches: &[],
        words: (1, usize::MAX),
        banner: |call| {
            format!(
                "Setting tags for virtual host \"{}\" to [{}] ...",
                call.word(0),
                call.words[1..].join(", ")
            )
        },
        run: |call| update_vhost(call, call.word(0), "tags", call.words[1..].join(",").into()),
    },
    Verb {
        name: "trace_on",
        tools: CTL,
        section: VHOSTS,
        about: "Copies what is published and delivered in a vhost to amq.rabbitmq.trace",
        usage: "[--vhost <vhost>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Starting tracing for vhost \"{}\" ...", call.vhost()),
        run: |call| {
            update_vhost(call, call.vhost(), "tracing", true.into())?;
            Ok(Output::said(format!("Trace enabled for vhost {}", call.vhost())))
        },
    },
    Verb {
        name: "trace_off",
        tools: CTL,
        section: VHOSTS,
        about: "Stops tracing of a vhost",
        usage: "[--vhost <vhost>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Stopping tracing for vhost \"{}\" ...", call.vhost()),
        run: |call| {
            update_vhost(call, call.vhost(), "tracing", false.into())?;
            Ok(Output::said(format!("Trace disabled for vhost {}", call.vhost())))
        },
    },
    Verb {
        name: "restart_vhost",
        tools: CTL,
        section: VHOSTS,
        about: "Restarts a failed vhost; a vhost here runs as long as the broker does",
        usage: "[--vhost <vhost>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Trying to restart vhost '{}' on node '{}' ...", call.vhost(), call.node),
        run: |call| {
            known_vhost(call)?;
            Ok(Output::said(format!("Vhost '{}' is already running on node '{}'", call.vhost(), call.node)))
        },
    },
];

fn vhosts(call: &Call) -> Result<Output> {
    let columns = columns(call, &["name"]);
    let field = |vhost: &Value, name: &str| match (name, &vhost[name]) {
        ("default_queue_type", Value::Null) => "undefined".into(),
        (_, value) => value.clone(),
    };
    let all = call.list("/vhosts")?;
    let rows = all.iter().map(|vhost| columns.iter().map(|name| field(vhost, name)).collect()).collect();
    Ok(Output::Rows(Rows { columns, rows, is_stream: false }))
}

fn add_vhost(call: &Call) -> Result<Output> {
    let mut body = serde_json::Map::new();
    for (switch, key) in
        [("description", "description"), ("tags", "tags"), ("default-queue-type", "default_queue_type")]
    {
        if let Some(value) = call.given.text(switch) {
            body.insert(key.into(), value.into());
        }
    }
    // The user who adds it gets no permissions in rabbitmqctl; over HTTP it does, which harms nobody.
    call.put(&path(&["vhosts", call.word(0)]), &Value::Object(body)).map(|_| Output::Nothing)
}

/// Changes one field of a vhost; the others are written as they are.
fn update_vhost(call: &Call, vhost: &str, key: &str, value: Value) -> Result<Output> {
    let Some(known) = call.find(&path(&["vhosts", vhost]))? else {
        return Err(no_vhost(vhost));
    };
    let mut body = serde_json::Map::new();
    for key in ["description", "default_queue_type", "tracing"] {
        if let Some(value) = known.get(key).filter(|value| !value.is_null() && *value != "undefined") {
            body.insert(key.into(), value.clone());
        }
    }
    if known["tags"].is_array() {
        body.insert("tags".into(), tags_of(&known));
    }
    body.insert(key.into(), value);
    call.put(&path(&["vhosts", vhost]), &Value::Object(body)).map(|_| Output::Nothing)
}

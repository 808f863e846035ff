//! Connections shown out: one, those of a vhost, those of a user.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::CTL;
use super::arguments::{flag, number};
use super::call::{Call, Fault, Result, Verb, code};
use super::output::Output;
use crate::cli::client::path;
use crate::cli::failure::Failure;

const OPERATIONS: &str = "Operations";

pub const VERBS: &[Verb] = &[
    Verb {
        name: "close_connection",
        tools: CTL,
        section: OPERATIONS,
        about: "Closes a connection, by the name or pid that list_connections shows",
        usage: "<connectionpid> <explanation>",
        switches: &[],
        words: (2, 2),
        banner: |call| format!("Closing connection {}, reason: {}...", call.word(0), call.word(1)),
        run: |call| match close(call, call.word(0), call.word(1))? {
            true => Ok(Output::Nothing),
            false => {
                Err(Fault::error(code::UNAVAILABLE, format!("there is no connection '{}'", call.word(0))))
            }
        },
    },
    Verb {
        name: "close_all_connections",
        tools: CTL,
        section: OPERATIONS,
        about: "Closes all connections of a vhost, or with --global of the node",
        usage: "[--vhost <vhost> --limit <limit>] [-n <node> --global] [--per-connection-delay <delay>] <explanation>",
        switches: &[flag("global"), number("limit"), number("per-connection-delay")],
        words: (1, 1),
        banner: |call| match call.given.is_set("global") {
            true => format!("Closing all connections to node {}, reason: {}...", call.node, call.word(0)),
            false => {
                format!("Closing all connections in vhost {}, reason: {}...", call.vhost(), call.word(0))
            }
        },
        run: |call| {
            let all = match call.given.is_set("global") {
                true => "/connections".to_string(),
                false => path(&["vhosts", call.vhost(), "connections"]),
            };
            let closed = close_all(call, &all, call.word(0))?;
            Ok(Output::said(format!("Closed {closed} connections")))
        },
    },
    Verb {
        name: "close_all_user_connections",
        tools: CTL,
        section: OPERATIONS,
        about: "Closes all connections of a user",
        usage: "<username> <explanation>",
        switches: &[number("limit"), number("per-connection-delay")],
        words: (2, 2),
        banner: |call| format!("Closing connections of user {}, reason: {}...", call.word(0), call.word(1)),
        run: |call| {
            close_all(call, &path(&["connections", "username", call.word(0)]), call.word(1))
                .map(|_| Output::Nothing)
        },
    },
];

/// Whether it was there.
fn close(call: &Call, name: &str, reason: &str) -> Result<bool> {
    match call.client.delete_because(&path(&["connections", name]), reason) {
        Ok(_) => Ok(true),
        Err(Failure::NotFound { .. }) => Ok(false),
        Err(failure) => Err(call.fault(failure)),
    }
}

fn close_all(call: &Call, all: &str, reason: &str) -> Result<usize> {
    let Some(Value::Array(connections)) = call.find(all)? else { return Ok(0) };
    let limit =
        call.given.number("limit").filter(|limit| *limit > 0).map_or(usize::MAX, |limit| limit as usize);
    let delay = call.given.number("per-connection-delay").and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    let mut closed = 0;
    for name in connections.iter().filter_map(|connection| connection["name"].as_str()).take(limit) {
        closed += usize::from(close(call, name, reason)?);
        thread::sleep(Duration::from_millis(delay));
    }
    Ok(closed)
}

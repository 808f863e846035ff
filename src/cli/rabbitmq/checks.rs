//! Health checks and other questions of rabbitmq-diagnostics, fast enough for probes.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::{number, text};
use super::call::{Call, Fault, Result, Verb, code};
use super::output::Output;
use super::status::{alarms, in_unit, listener_line, listeners, memory, percent};
use super::{DIAGNOSTICS, QUEUES, UPGRADE};
use crate::cli::client::path;
use crate::cli::failure::Failure;

const SECTION: &str = "Monitoring, observability and health checks";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub const VERBS: &[Verb] = &[
    Verb {
        name: "check_running",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: does the broker run?",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Checking if RabbitMQ is running on node {} ...", call.node),
        run: |call| call.get("/overview").map(|_| Output::said(running(call))),
    },
    Verb {
        name: "is_running",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Says whether the broker runs",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} for its status ...", call.node),
        run: |call| {
            call.get("/overview")?;
            let text = running(call);
            Ok(Output::Message { json: json!({ "result": true, "message": text }), text })
        },
    },
    Verb {
        name: "is_booting",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Says whether the broker is still starting; once it answers, it is not",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} for its boot status ...", call.node),
        run: |call| {
            call.get("/overview")?;
            let text = format!(
                "RabbitMQ on node {} is fully booted (check with is_running), stopped or has not started booting yet",
                call.node
            );
            Ok(Output::Message { json: json!({ "result": false, "message": text }), text })
        },
    },
    Verb {
        name: "alarms",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Lists alarms in force",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} to report any known resource alarms ...", call.node),
        run: |call| {
            let found = alarms(call)?;
            let node = &call.node;
            if found.is_empty() {
                let text = match call.is_silent() {
                    true => String::new(),
                    false => format!("Node {node} reported no alarms, local or clusterwide"),
                };
                return Ok(Output::Message {
                    text,
                    json: json!({ "result": "ok", "node": node, "alarms": [] }),
                });
            }
            let json = json!({
                "result": "ok", "local": found, "global": [], "message": format!("Node {node} reported alarms"),
            });
            Ok(Output::Message { text: found.join("\n"), json })
        },
    },
    Verb {
        name: "check_alarms",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: is there an alarm anywhere?",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} to report any local resource alarms ...", call.node),
        run: |call| match alarms(call)? {
            found if found.is_empty() => {
                Ok(passed(call, format!("Node {} reported no alarms, local or clusterwide", call.node)))
            }
            found => Err(Fault::plain(code::UNAVAILABLE, found.join("\n"))),
        },
    },
    Verb {
        name: "check_local_alarms",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: is there an alarm on this node?",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} to report any local resource alarms ...", call.node),
        run: |call| match alarms(call)? {
            found if found.is_empty() => {
                Ok(passed(call, format!("Node {} reported no local alarms", call.node)))
            }
            found => Err(Fault::error(code::UNAVAILABLE, found.join("\n"))),
        },
    },
    Verb {
        name: "listeners",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Lists where the node listens",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} to report its protocol listeners ...", call.node),
        run: |call| {
            let all = listeners(&call.get("/overview")?);
            let text = all.iter().map(listener_line).collect::<Vec<_>>().join("\n");
            Ok(Output::Message { text, json: json!({ "result": "ok", "node": call.node, "listeners": all }) })
        },
    },
    Verb {
        name: "check_port_listener",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: does the node listen at a port?",
        usage: "<port> [--timeout <timeout>]",
        switches: &[],
        words: (1, 1),
        banner: |call| match call.word(0).parse::<u16>() {
            Ok(port) => format!("Asking node {} if there's an active listener on port {port} ...", call.node),
            Err(_) => String::new(),
        },
        run: port_listener,
    },
    Verb {
        name: "check_protocol_listener",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: does the node listen for a protocol?",
        usage: "<protocol> [--timeout <timeout>]",
        switches: &[],
        words: (1, 1),
        banner: |call| {
            format!(
                "Asking node {} if there's an active listener for protocol {} ...",
                call.node,
                call.word(0)
            )
        },
        run: protocol_listener,
    },
    Verb {
        name: "check_port_connectivity",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: can every port of the node be connected to from here?",
        usage: "[--timeout <timeout>] [--address <ip-address>]",
        switches: &[text("address")],
        words: (0, 0),
        banner: |call| format!("Testing TCP connections to all active listeners on node {} ...", call.node),
        run: connectivity,
    },
    Verb {
        name: "check_virtual_hosts",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: do all vhosts run?",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Checking if all vhosts are running on node {} ...", call.node),
        run: |call| {
            check(call, &["health", "checks", "virtual-hosts"], code::UNAVAILABLE)?;
            Ok(passed(call, format!("Node {} reported all vhosts as running", call.node)))
        },
    },
    Verb {
        name: "check_certificate_expiration",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Health check: does a certificate expire soon?",
        usage: "[--within <period>] [--unit <unit>]",
        switches: &[number("within"), text("unit")],
        words: (0, 0),
        banner: |call| format!("Checking certificate expiration on node {} ...", call.node),
        run: |call| {
            let (within, unit) =
                (call.given.number("within").unwrap_or(4), call.given.text("unit").unwrap_or("weeks"));
            check(
                call,
                &["health", "checks", "certificate-expiration", &within.to_string(), unit],
                code::UNAVAILABLE,
            )?;
            Ok(passed(call, format!("No certificates are expiring within {within} {unit}.")))
        },
    },
    Verb {
        name: "check_if_node_is_quorum_critical",
        tools: DIAGNOSTICS | QUEUES | UPGRADE,
        section: SECTION,
        about: "Health check: would queues lose their majority without this node?",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| {
            format!("Checking if node {} is critical for quorum of any quorum queues ...", call.node)
        },
        run: single,
    },
    Verb {
        name: "check_if_node_is_mirror_sync_critical",
        tools: DIAGNOSTICS | QUEUES | UPGRADE,
        section: SECTION,
        about: "Health check: would mirrored queues lose data without this node?",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| {
            format!(
                "Checking if node {} is critical for data safety of any classic mirrored queues ...",
                call.node
            )
        },
        run: single,
    },
    Verb {
        name: "await_online_quorum_plus_one",
        tools: UPGRADE,
        section: "Upgrade",
        about: "Waits until this node may stop; a single one always may",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| {
            let secs = call.timeout().map_or(120, |timeout| timeout.as_secs());
            format!(
                "Will wait for a quorum + 1 of nodes to be online for all quorum queues for {secs} seconds..."
            )
        },
        run: alone,
    },
    Verb {
        name: "await_online_synchronized_mirror",
        tools: UPGRADE,
        section: "Upgrade",
        about: "Waits until this node may stop; a single one always may",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| {
            let secs = call.timeout().map_or(120, |timeout| timeout.as_secs());
            format!(
                "Will wait for a synchronised mirror be online for all classic mirrored queues for {secs} seconds..."
            )
        },
        run: alone,
    },
    Verb {
        name: "post_upgrade",
        tools: UPGRADE,
        section: "Upgrade",
        about: "Tidies up after an upgrade; there is nothing to do",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |_| "Executing post upgrade tasks...".into(),
        run: |call| {
            call.get("/overview")
                .map(|_| Output::said("Nothing to do: a single node, whose data is upgraded when it starts"))
        },
    },
    Verb {
        name: "memory_breakdown",
        tools: DIAGNOSTICS,
        section: SECTION,
        about: "Shows what the node needs its memory for",
        usage: "[--unit <unit>] [--timeout <timeout>]",
        switches: &[text("unit")],
        words: (0, 0),
        banner: |call| match call.given.text("unit").unwrap_or("gb") {
            "bytes" | "mb" | "gb" => format!("Reporting memory breakdown on node {}...", call.node),
            _ => String::new(),
        },
        run: breakdown,
    },
];

fn running(call: &Call) -> String {
    format!("RabbitMQ on node {} is fully booted and running", call.node)
}

/// What a check says that passed: a sentence, to who wants to hear it.
fn passed(call: &Call, text: String) -> Output {
    let json = json!({ "result": "ok" });
    if call.is_silent() { Output::Page { text: String::new(), json } } else { Output::Message { text, json } }
}

/// A check of the API; one that did not pass is answered with 503 and a reason.
pub fn check(call: &Call, segments: &[&str], code: u8) -> Result<()> {
    match call.client.get(&path(segments)) {
        Ok(_) => Ok(()),
        Err(Failure::Refused { status: 503, reason, .. }) => Err(Fault::error(code, reason)),
        Err(failure) => Err(call.fault(failure)),
    }
}

fn single(call: &Call) -> Result<Output> {
    call.get("/overview")?;
    let text = format!(
        "Node {} seems to be the only one in a single node cluster, the check does not apply",
        call.node
    );
    Ok(passed(call, text))
}

fn alone(call: &Call) -> Result<Output> {
    call.get("/overview")?;
    Ok(Output::said(
        "Target node seems to be the only one in a single node cluster, the command does not apply",
    ))
}

fn ports(all: &[Value]) -> String {
    let mut ports: Vec<u64> = all.iter().filter_map(|listener| listener["port"].as_u64()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn port_listener(call: &Call) -> Result<Output> {
    let Ok(port) = call.word(0).parse::<u16>() else {
        let given = [call.verb.name.to_string(), call.word(0).to_string()];
        return Err(call.misused(code::DATA, "Bad argument: Argument must be a positive integer", &given));
    };
    let all = listeners(&call.get("/overview")?);
    let node = &call.node;
    if all.iter().any(|listener| listener["port"] == port) {
        return Ok(passed(call, format!("A listener for port {port} is running on node {node}.")));
    }
    let text = format!(
        "No listener for port {port} is active on node {node}. Found listeners that use the following ports: {}",
        ports(&all)
    );
    Err(Fault::plain(code::UNAVAILABLE, text))
}

/// The names that people give protocols, as the node names them.
fn protocol_of(name: &str) -> &str {
    match name {
        "amqp091" | "amqp0.9.1" | "amqp09" | "amqp-0-9-1" => "amqp",
        "amqps" | "amqp091/ssl" | "amqp/tls" => "amqp/ssl",
        "http/ssl" | "http/tls" => "https",
        "prometheus" => "http/prometheus",
        other => other,
    }
}

fn protocol_listener(call: &Call) -> Result<Output> {
    let protocol = protocol_of(call.word(0));
    let all = listeners(&call.get("/overview")?);
    let node = &call.node;
    if all.iter().any(|listener| listener["protocol"] == protocol) {
        return Ok(passed(call, format!("A listener for protocol {protocol} is running on node {node}.")));
    }
    let mut known: Vec<&str> = all.iter().filter_map(|listener| listener["protocol"].as_str()).collect();
    known.sort_unstable();
    known.dedup();
    let text = format!(
        "No listener for protocol {protocol} is active on node {node}. Found listeners for the following protocols: {}",
        known.join(", ")
    );
    Err(Fault::error(code::UNAVAILABLE, text))
}

fn connectivity(call: &Call) -> Result<Output> {
    let all = listeners(&call.get("/overview")?);
    let host = match call.given.text("address") {
        Some(address) => address.to_string(),
        None => call.client.host(),
    };
    let fails = |listener: &&Value| {
        let port = listener["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let addresses = (host.as_str(), port).to_socket_addrs().into_iter().flatten();
        !addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok())
    };
    let failed: Vec<Value> = all.iter().filter(fails).cloned().collect();
    let node = &call.node;
    if failed.is_empty() {
        let text = format!("Successfully connected to ports {} on node {node}.", ports(&all));
        let json = json!({ "result": "ok", "node": node, "listeners": all });
        return Ok(if call.is_silent() {
            Output::Page { text: String::new(), json }
        } else {
            Output::Message { text, json }
        });
    }
    let lines: Vec<String> = failed.iter().map(listener_line).collect();
    let text = format!(
        "Connection to ports of the following listeners on node {node} failed:\n{}",
        lines.join("\n")
    );
    Err(Fault::error(code::UNAVAILABLE, text))
}

fn breakdown(call: &Call) -> Result<Output> {
    let unit = call.given.text("unit").unwrap_or("gb");
    if !matches!(unit, "bytes" | "mb" | "gb") {
        let reason = format!("\"unit '{unit}' is not supported. Please use one of: bytes, mb, gb\"");
        let given = [call.verb.name.to_string(), format!("--unit {unit}")];
        return Err(call.misused(code::USAGE, &reason, &given));
    }
    let overview = call.get("/overview")?;
    let (parts, total) = memory(call, overview["node"].as_str().unwrap_or(&call.node))?;
    let lines = parts.iter().map(|(part, bytes)| {
        format!("{part}: {} {unit} ({}%)\n", in_unit(*bytes, unit), percent(*bytes, total))
    });
    let object = |bytes: u64| json!({ "bytes": bytes, "percentage": percent(bytes, total).parse::<f64>().unwrap_or(0.0) });
    let json = parts.iter().map(|(part, bytes)| (part.clone(), object(*bytes))).collect();
    Ok(Output::Page { text: lines.collect(), json: Value::Object(json) })
}

//! The node as such: is it there, wait for it, stop it, and what it logs.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arguments::{flag, number};
use super::call::{Call, Fault, READING, Result, Verb, code, quiet};
use super::output::Output;
use super::{CTL, DIAGNOSTICS};
use crate::cli::client::path;
use crate::cli::failure::Failure;

const NODES: &str = "Nodes";
const CONFIGURATION: &str = "Configuration and Environment";
const OPERATIONS: &str = "Operations";
const MONITORING: &str = "Monitoring, observability and health checks";

/// How often a node that is waited for is asked.
const POLL: Duration = Duration::from_millis(200);
/// How long await_startup waits by itself, as RabbitMQ's does.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(300);
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(300);

pub const VERBS: &[Verb] = &[
    Verb {
        name: "ping",
        tools: READING,
        section: MONITORING,
        about: "Checks that the node answers and lets this tool in",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: |call| {
            let ms = call.timeout().map_or(60_000, |timeout| timeout.as_millis());
            let node = &call.node;
            format!(
                "Will ping {node}. This only checks if the OS process is running and registered with epmd. Timeout: {ms} ms."
            )
        },
        run: ping,
    },
    Verb {
        name: "await_startup",
        tools: CTL,
        section: NODES,
        about: "Waits until the node answers",
        usage: "[--timeout <timeout>]",
        switches: &[],
        words: (0, 0),
        banner: quiet,
        run: |call| {
            let timeout = call.timeout().unwrap_or(STARTUP_TIMEOUT);
            await_node(call, timeout, || true)
                .map(|()| Output::Message { text: String::new(), json: ok(call) })
        },
    },
    Verb {
        name: "wait",
        tools: READING,
        section: NODES,
        about: "Waits until the node answers, while its process runs",
        usage: "[<pidfile>] [--pid|-P <pid>] [--timeout <timeout>]",
        switches: &[number("pid").short('P')],
        words: (0, 1),
        banner: quiet,
        run: wait,
    },
    Verb {
        name: "await_online_nodes",
        tools: CTL,
        section: "Cluster",
        about: "Waits for so many nodes; there is one",
        usage: "<count> [--timeout <timeout>]",
        switches: &[],
        words: (1, 1),
        banner: |call| {
            let secs = call.timeout().map_or(300, |timeout| timeout.as_secs());
            let (count, node) = (call.word(0), &call.node);
            format!(
                "Will wait for at least {count} nodes to join the cluster of {node}. Timeout: {secs} seconds."
            )
        },
        run: |call| match call.word(0) {
            "0" | "1" => {
                await_node(call, call.timeout().unwrap_or(STARTUP_TIMEOUT), || true).map(|()| Output::Nothing)
            }
            count => Err(Fault::error(
                code::UNAVAILABLE,
                format!("{count} nodes will not come: this broker is a single node"),
            )),
        },
    },
    Verb {
        name: "stop",
        tools: CTL,
        section: NODES,
        about: "Stops the broker; with the path of its pid file it waits for the end",
        usage: "[--idempotent] [<pidfile>]",
        switches: &[flag("idempotent")],
        words: (0, 1),
        banner: |call| format!("Stopping and halting node {} ...", call.node),
        run: stop,
    },
    Verb {
        name: "shutdown",
        tools: CTL,
        section: NODES,
        about: "Stops the broker and waits for its end",
        usage: "[--wait]",
        switches: &[flag("wait"), flag("no-wait")],
        words: (0, 0),
        banner: quiet,
        run: shutdown,
    },
    Verb {
        name: "start_app",
        tools: CTL,
        section: NODES,
        about: "Starts the broker in its node; here the two are one, and it runs",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Starting node {} ...", call.node),
        run: |call| call.get("/overview").map(|_| Output::Nothing),
    },
    Verb {
        name: "set_log_level",
        tools: CTL,
        section: CONFIGURATION,
        about: "Changes what the running node logs",
        usage: "<log_level>",
        switches: &[],
        words: (1, 1),
        banner: |call| match log_level(call.word(0)) {
            Some(_) => format!("Setting log level to \"{}\" ...", call.word(0)),
            None => String::new(),
        },
        run: |call| match log_level(call.word(0)) {
            Some(level) => call.put("/log-level", &json!({ "level": level })).map(|_| Output::Nothing),
            None => {
                let level = call.word(0);
                let text = format!(
                    "level {level} is not supported. Try one of debug, info, warning, error, critical, none"
                );
                Err(Fault::error(code::UNAVAILABLE, text))
            }
        },
    },
    Verb {
        name: "rotate_logs",
        tools: CTL,
        section: NODES,
        about: "Rotated logs once; does nothing",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: quiet,
        run: |_| {
            Err(Fault::error(code::UNAVAILABLE, "This command does not rotate logs anymore [deprecated]"))
        },
    },
    Verb {
        name: "force_gc",
        tools: CTL,
        section: OPERATIONS,
        about: "Collects garbage; there is none to collect",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Will ask all processes on node {} to schedule a full sweep GC", call.node),
        run: |call| call.get("/overview").map(|_| Output::Nothing),
    },
    Verb {
        name: "server_version",
        tools: DIAGNOSTICS,
        section: MONITORING,
        about: "Shows which version of RabbitMQ the node is equal to",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Asking node {} for its RabbitMQ version...", call.node),
        run: |call| {
            let version = call.get("/overview")?["rabbitmq_version"].as_str().unwrap_or_default().to_string();
            Ok(Output::Message { json: json!({ "result": "ok", "value": version }), text: version })
        },
    },
];

fn ok(call: &Call) -> Value {
    json!({ "node": call.node, "result": "ok" })
}

fn ping(call: &Call) -> Result<Output> {
    match call.client.get("/whoami") {
        Ok(_) => Ok(Output::said("Ping succeeded")),
        Err(failure) => {
            let ms = call.timeout().map_or(60_000, |timeout| timeout.as_millis());
            let text = format!("Failed to connect and authenticate to {} in {ms} ms\n{failure}", call.node);
            Err(Fault::error(code::UNAVAILABLE, text))
        }
    }
}

/// Asks until the node answers, the time is over, or `goes_on` says no. Who is not let in need not wait.
fn await_node(call: &Call, timeout: Duration, goes_on: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    loop {
        match call.client.get("/overview") {
            Ok(_) => return Ok(()),
            Err(failure @ Failure::Unreachable { .. }) if start.elapsed() + POLL >= timeout => {
                return Err(call.unreachable(&failure));
            }
            Err(Failure::Unreachable { .. }) if goes_on() => thread::sleep(POLL),
            Err(failure) => return Err(call.fault(failure)),
        }
    }
}

fn wait(call: &Call) -> Result<Output> {
    let timeout = call.timeout().unwrap_or(WAIT_TIMEOUT);
    let start = Instant::now();
    let timed_out = || {
        let (node, ms) = (&call.node, timeout.as_millis());
        Fault::plain(
            code::TEMPORARY,
            format!("Error: operation wait on node {node} timed out. Timeout value used: {ms}"),
        )
    };
    let say = |line: String| {
        if !call.is_quiet() {
            println!("{line}");
        }
    };
    let pid = match (call.given.number("pid"), call.words.first()) {
        (Some(pid), None) => pid.to_string(),
        (None, Some(file)) => {
            say(format!("Waiting for pid file '{file}' to appear"));
            loop {
                match fs::read_to_string(file) {
                    Ok(text) if !text.trim().is_empty() => break text.trim().to_string(),
                    _ if start.elapsed() >= timeout => return Err(timed_out()),
                    _ => thread::sleep(POLL),
                }
            }
        }
        _ => {
            let given = [vec![call.verb.name.to_string()], call.words.clone()].concat();
            return Err(call.misused(code::USAGE, "\"No pid or pidfile specified\"", &given));
        }
    };
    let node = &call.node;
    say(format!("Waiting for erlang distribution on node '{node}' while OS process '{pid}' is running"));
    let process = Path::new("/proc").join(&pid);
    let is_running = || !Path::new("/proc/self").exists() || process.exists();
    match await_node(call, timeout.saturating_sub(start.elapsed()), is_running) {
        Ok(()) => {}
        Err(_) if !is_running() => return Err(Fault::error(code::UNAVAILABLE, "process_not_running")),
        Err(_) if start.elapsed() + POLL >= timeout => return Err(timed_out()),
        Err(fault) => return Err(fault),
    }
    say(format!("Waiting for applications 'rabbit_and_plugins' to start on node '{node}'"));
    say(format!("Applications 'rabbit_and_plugins' are running on node '{node}'"));
    Ok(Output::Message { text: String::new(), json: ok(call) })
}

fn stop(call: &Call) -> Result<Output> {
    let pid = match call.words.first() {
        None => None,
        Some(file) => Some(fs::read_to_string(file).map_err(|error| {
            Fault::error(code::UNAVAILABLE, format!("the pid file {file} cannot be read: {error}"))
        })?),
    };
    match call.client.put("/shutdown", &json!({})) {
        Ok(_) => {}
        Err(Failure::Unreachable { .. }) if call.given.is_set("idempotent") => {
            return Ok(Output::said(format!("Node {} is no longer running", call.node)));
        }
        Err(failure) => return Err(call.fault(failure)),
    }
    if let Some(pid) = pid {
        let process = Path::new("/proc").join(pid.trim());
        until(STOP_TIMEOUT, || !process.exists())
            .map_err(|()| Fault::error(code::TEMPORARY, format!("process {} still runs", pid.trim())))?;
    }
    Ok(Output::Nothing)
}

fn shutdown(call: &Call) -> Result<Output> {
    let overview = call.get("/overview")?;
    let name = overview["node"].as_str().unwrap_or(&call.node).to_string();
    let pid = call.get(&path(&["nodes", &name]))?["os_pid"].as_str().unwrap_or("?").to_string();
    let say = |line: String| {
        if !call.is_quiet() {
            println!("{line}");
        }
    };
    say(format!("Shutting down RabbitMQ node {} running at PID {pid}", call.node));
    call.put("/shutdown", &json!({}))?;
    if call.given.is_set("no-wait") {
        return Ok(Output::Nothing);
    }
    say(format!("Waiting for PID {pid} to terminate"));
    let is_gone = || matches!(call.client.get("/whoami"), Err(Failure::Unreachable { .. }));
    until(call.timeout().unwrap_or(STOP_TIMEOUT), is_gone)
        .map_err(|()| Fault::error(code::TEMPORARY, format!("node {} still answers", call.node)))?;
    Ok(Output::said(format!("RabbitMQ node {} running at PID {pid} successfully shut down", call.node)))
}

fn until(timeout: Duration, is_so: impl Fn() -> bool) -> std::result::Result<(), ()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() >= timeout {
            return Err(());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// RabbitMQ's names of levels as Garenne's log has them.
fn log_level(name: &str) -> Option<&'static str> {
    match name {
        "debug" => Some("debug"),
        "info" => Some("info"),
        "warning" => Some("warn"),
        "error" | "critical" => Some("error"),
        "none" => Some("off"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_of_both_brokers() {
        assert_eq!(log_level("warning"), Some("warn"));
        assert_eq!(log_level("none"), Some("off"));
        assert_eq!(log_level("nosuch"), None);
    }
}

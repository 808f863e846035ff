//! The node as a whole: is it there, how is it, stop it, what it logs, what it defines.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arguments::{flag, number, text};
use super::call::{Call, Fault, READING, Result, Verb, bold, code, quiet};
use super::lists::columns;
use super::output::{Output, Rows};
use super::{CTL, DIAGNOSTICS};
use crate::cli::client::path;
use crate::cli::failure::Failure;
use crate::cli::table::at;

const NODES: &str = "Nodes";
const CONFIGURATION: &str = "Configuration and Environment";
const OPERATIONS: &str = "Operations";
const DEFINITIONS: &str = "Definitions";
const FLAGS: &str = "Feature flags";
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
        name: "status",
        tools: READING,
        section: MONITORING,
        about: "Shows how the node is",
        usage: "[--unit <unit>] [--timeout <timeout>]",
        switches: &[text("unit")],
        words: (0, 0),
        banner: |call| format!("Status of node {} ...", call.node),
        run: status,
    },
    Verb {
        name: "cluster_status",
        tools: READING,
        section: "Cluster",
        about: "Shows the nodes of the cluster",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Cluster status of node {} ...", call.node),
        run: cluster_status,
    },
    Verb {
        name: "environment",
        tools: READING,
        section: CONFIGURATION,
        about: "Shows the configuration in force",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Application environment of node {} ...", call.node),
        run: |call| match call.find("/config/effective")? {
            Some(json) => {
                let text = serde_json::to_string_pretty(&json).unwrap_or_else(|_| json.to_string());
                Ok(Output::Message { text, json })
            }
            None => {
                Err(Fault::error(code::UNAVAILABLE, "this broker does not tell its configuration over HTTP"))
            }
        },
    },
    Verb {
        name: "report",
        tools: READING,
        section: MONITORING,
        about: "Shows everything that support would ask for",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| format!("Reporting server status of node {} ...\n", call.node),
        run: report,
    },
    Verb {
        name: "node_health_check",
        tools: READING,
        section: "Deprecated",
        about: "Checks alarms and vhosts; the check_* commands are better",
        usage: "",
        switches: &[],
        words: (0, 0),
        banner: |call| {
            let node = &call.node;
            format!(
                "This command is DEPRECATED and will be removed in a future version.\n\
                 It performs intrusive, opinionated health checks and requires a fully booted node.\n\
                 Use one of the options covered in https://www.rabbitmq.com/monitoring.html#health-checks instead.\n\
                 Timeout: {} seconds ...\nChecking health of node {node} ...",
                call.timeout().map_or(70, |timeout| timeout.as_secs())
            )
        },
        run: |call| {
            for name in ["local-alarms", "virtual-hosts"] {
                super::checks::check(call, &["health", "checks", name], code::SOFTWARE)?;
            }
            Ok(Output::said("Health check passed"))
        },
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
        name: "export_definitions",
        tools: CTL,
        section: DEFINITIONS,
        about: "Writes everything but messages to a file of JSON",
        usage: "<file_path | \"-\"> [--format <json | erlang>] [--timeout <timeout>]",
        switches: &[text("format")],
        words: (1, 1),
        banner: |call| match call.word(0) {
            "-" => String::new(),
            file => format!("Exporting definitions in JSON to a file at \"{file}\" ..."),
        },
        run: export,
    },
    Verb {
        name: "import_definitions",
        tools: CTL,
        section: DEFINITIONS,
        about: "Makes what a file of JSON defines",
        usage: "<file_path | \"-\"> [--format <json | erlang>] [--skip-if-unchanged] [--timeout <timeout>]",
        switches: &[text("format"), flag("skip-if-unchanged")],
        words: (0, 1),
        banner: |call| match call.words.first().map_or("-", String::as_str) {
            "-" => "Importing definitions in JSON from standard input ...".into(),
            // What is wrong with the command line is said without a banner.
            file if !Path::new(file).exists() => String::new(),
            file => format!("Importing definitions in JSON from a file at \"{file}\" ..."),
        },
        run: import,
    },
    Verb {
        name: "list_feature_flags",
        tools: READING,
        section: FLAGS,
        about: "Lists feature flags",
        usage: "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |_| "Listing feature flags ...".into(),
        run: |call| {
            let columns = columns(call, &["name", "state"]);
            let all = call.list("/feature-flags")?;
            let rows =
                all.iter().map(|flag| columns.iter().map(|name| flag[name].clone()).collect()).collect();
            Ok(Output::Rows(Rows { columns, rows, is_stream: false }))
        },
    },
    Verb {
        name: "enable_feature_flag",
        tools: CTL,
        section: FLAGS,
        about: "Enables a feature flag, or all",
        usage: "<all | feature_flag>",
        switches: &[],
        words: (1, 1),
        banner: |call| match call.word(0) {
            "all" => "Enabling all feature flags ...".into(),
            name => format!("Enabling feature flag \"{name}\" ..."),
        },
        run: enable,
    },
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
        name: "list_node_auth_attempt_stats",
        tools: READING,
        section: MONITORING,
        about: "Shows how often users logged in and failed to",
        usage: "[--by-source]",
        switches: &[flag("by-source")],
        words: (0, 0),
        banner: |call| format!("Listing authentication\n attempts for node \"{}\" ...", call.node),
        run: |call| {
            let node = name(call)?;
            let attempts = ["auth", "attempts", node.as_str()];
            let by_source = ["auth", "attempts", node.as_str(), "source"];
            let all =
                call.list(&if call.given.is_set("by-source") { path(&by_source) } else { path(&attempts) })?;
            let columns = [
                ("protocol", "protocol"),
                ("auth_attempts", "auth_attempts"),
                ("auth_attempts_failed", "auth_attempts_failed"),
                ("auth_attempts_succeeded", "auth_attempts_succeeded"),
            ];
            Ok(super::access::rows(&columns, all))
        },
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

fn export(call: &Call) -> Result<Output> {
    let file = call.word(0);
    let bad = |reason: String| {
        let given = [vec![call.verb.name.to_string()], call.words.clone()].concat();
        call.misused(code::DATA, &format!("Bad argument: {reason}"), &given)
    };
    if call.given.text("format").is_some_and(|format| !format.eq_ignore_ascii_case("json")) {
        return Err(bad("definitions are exported as json only".into()));
    }
    let folder = Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| file != "-" && !folder.is_dir()) {
        return Err(bad(format!("Directory {} does not exist", folder.display())));
    }
    let json = call.get("/definitions")?;
    if file == "-" {
        return Ok(Output::Page { text: json.to_string(), json });
    }
    fs::write(file, json.to_string())
        .map_err(|error| Fault::error(code::DATA, format!("{file} cannot be written: {error}")))?;
    Ok(Output::Nothing)
}

fn import(call: &Call) -> Result<Output> {
    let file = call.words.first().map_or("-", String::as_str);
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = match text {
        Ok(text) => text,
        Err(_) if file != "-" && !Path::new(file).exists() => {
            let given = [vec![call.verb.name.to_string()], call.words.clone()].concat();
            let reason = format!("Bad argument: File {file} does not exist");
            return Err(call.misused(code::DATA, &reason, &given));
        }
        Err(error) => return Err(Fault::error(code::DATA, format!("{file} cannot be read: {error}"))),
    };
    let definitions: Value = serde_json::from_str(&text).map_err(|error| {
        Fault::error(code::DATA, format!("Failed to deserialise input (format: JSON) (error: {error})"))
    })?;
    call.client
        .without_timeout()
        .post("/definitions", &definitions)
        .map_err(|failure| call.fault(failure))?;
    Ok(Output::said(
        "Successfully started definition import. This process is asynchronous and can take some time.",
    ))
}

fn enable(call: &Call) -> Result<Output> {
    let all = call.list("/feature-flags")?;
    let names: Vec<&str> = match call.word(0) {
        "all" => all
            .iter()
            .filter(|flag| flag["state"] == "disabled" && flag["stability"] != "experimental")
            .filter_map(|flag| flag["name"].as_str())
            .collect(),
        name if all.iter().any(|flag| flag["name"] == name) => vec![name],
        _ => {
            let text = format!("This feature flag is not supported by node {}", call.node);
            return Err(Fault::error(code::USAGE, text));
        }
    };
    for name in names {
        call.put(&path(&["feature-flags", name, "enable"]), &json!({ "name": name }))?;
    }
    Ok(Output::Nothing)
}

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

/// The node as it calls itself; a single one has no other.
fn name(call: &Call) -> Result<String> {
    Ok(call.get("/overview")?["node"].as_str().unwrap_or(&call.node).to_string())
}

/// What a listener is for, as the tools say it.
pub fn purpose(protocol: &str) -> &str {
    match protocol {
        "amqp" => "AMQP 0-9-1",
        "amqp/ssl" => "AMQP 0-9-1 over TLS",
        "http" => "HTTP API",
        "https" => "HTTP API over TLS (HTTPS)",
        "http/prometheus" => "Prometheus exporter API over HTTP",
        "https/prometheus" => "Prometheus exporter API over TLS (HTTPS)",
        "clustering" => "inter-node and CLI tool communication",
        other => other,
    }
}

/// `{node, interface, port, protocol, purpose}` of each.
pub fn listeners(overview: &Value) -> Vec<Value> {
    let all = overview["listeners"].as_array().cloned().unwrap_or_default();
    let one = |listener: &Value| {
        let address = listener["ip_address"].as_str().unwrap_or_default();
        let interface = if address.contains(':') { format!("[{address}]") } else { address.to_string() };
        let protocol = listener["protocol"].as_str().unwrap_or_default();
        json!({
            "node": listener["node"], "interface": interface, "port": listener["port"], "protocol": protocol,
            "purpose": purpose(protocol),
        })
    };
    all.iter().map(one).collect()
}

pub fn listener_line(listener: &Value) -> String {
    let text = |key: &str| listener[key].as_str().unwrap_or_default();
    format!(
        "Interface: {}, port: {}, protocol: {}, purpose: {}",
        text("interface"),
        listener["port"],
        text("protocol"),
        text("purpose")
    )
}

/// Alarms of all nodes, in words.
pub fn alarms(call: &Call) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in call.list("/nodes")? {
        let name = node["name"].as_str().unwrap_or(&call.node);
        if node["disk_free_alarm"] == true {
            found.push(format!("Free disk space alarm on node {name}"));
        }
        if node["mem_alarm"] == true {
            found.push(format!("Memory alarm on node {name}"));
        }
    }
    Ok(found)
}

/// The parts of the memory, the largest first.
pub fn memory(call: &Call, node: &str) -> Result<(Vec<(String, u64)>, u64)> {
    let answer = call.find(&path(&["nodes", node, "memory"]))?.unwrap_or(Value::Null);
    let parts = answer["memory"].as_object().into_iter().flatten();
    let mut parts: Vec<(String, u64)> =
        parts.filter_map(|(name, bytes)| Some((name.clone(), bytes.as_u64()?))).collect();
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let total = at(&answer, "memory.total.rss").as_u64();
    let sum = parts.iter().map(|(_, bytes)| bytes).sum();
    Ok((parts, total.unwrap_or(sum)))
}

/// Bytes in gigabytes of 1000, with four digits, as Elixir prints a rounded float.
pub fn in_unit(bytes: u64, unit: &str) -> String {
    let divisor = match unit {
        "bytes" => return bytes.to_string(),
        "mb" => 1e6,
        _ => 1e9,
    };
    format!("{:?}", (bytes as f64 / divisor * 10_000.0).round() / 10_000.0)
}

pub fn percent(part: u64, total: u64) -> String {
    format!("{:?}", (part as f64 * 10_000.0 / total.max(1) as f64).round() / 100.0)
}

fn status(call: &Call) -> Result<Output> {
    let unit = call.given.text("unit").unwrap_or("gb");
    if !matches!(unit, "bytes" | "mb" | "gb") {
        let reason = format!("\"unit '{unit}' is not supported. Please use one of: bytes, mb, gb\"");
        let given = [call.verb.name.to_string(), format!("--unit {unit}")];
        return Err(call.misused(code::USAGE, &reason, &given));
    }
    let overview = call.get("/overview")?;
    let name = overview["node"].as_str().unwrap_or(&call.node).to_string();
    let node = call.get(&path(&["nodes", &name]))?;
    let (parts, total) = memory(call, &name)?;
    let alarms = alarms(call)?;
    let listeners = listeners(&overview);
    let vhosts = call.list("/vhosts")?.len();
    let text = |value: &Value| value.as_str().map(String::from).unwrap_or_else(|| value.to_string());
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let plugins: Vec<String> = node["enabled_plugins"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p.as_str().map(String::from))
        .collect();
    let bulleted = |items: &[String]| items.iter().map(|item| format!(" * {item}")).collect::<Vec<_>>();
    let or_none = |lines: Vec<String>| if lines.is_empty() { vec!["(none)".to_string()] } else { lines };
    let files = |key: &str| {
        let all = node[key].as_array().into_iter().flatten();
        all.filter_map(|file| file.as_str().map(String::from)).collect::<Vec<_>>()
    };

    let sections: Vec<(&str, Vec<String>)> = vec![
        (
            "Runtime",
            vec![
                format!("OS PID: {}", text(&node["os_pid"])),
                "OS: Linux".to_string(),
                format!("Uptime (seconds): {}", number(&node["uptime"]) / 1000),
                format!("Is under maintenance?: {}", node["being_drained"] == true),
                format!("RabbitMQ version: {}", text(&overview["rabbitmq_version"])),
                format!(
                    "Product: {} {}",
                    text(&overview["product_name"]),
                    text(&overview["product_version"])
                ),
                format!("Node name: {name}"),
                format!("Erlang configuration: {}", text(&overview["erlang_full_version"])),
                format!("Scheduler run queue: {}", number(&node["run_queue"])),
            ],
        ),
        ("Plugins", [vec!["Enabled plugins:".to_string(), String::new()], bulleted(&plugins)].concat()),
        ("Data directory", vec![format!("Node data directory: {}", text(&node["db_dir"]))]),
        ("Config files", or_none(bulleted(&files("config_files")))),
        ("Log file(s)", or_none(bulleted(&files("log_files")))),
        ("Alarms", or_none(alarms.clone())),
        (
            "Memory",
            [
                vec![
                    format!("Total memory used: {} {unit}", in_unit(total, unit)),
                    format!("Calculation strategy: {}", text(&node["mem_calculation_strategy"])),
                    format!(
                        "Memory high watermark setting: computed to: {} {unit}",
                        in_unit(number(&node["mem_limit"]), unit)
                    ),
                    String::new(),
                ],
                parts
                    .iter()
                    .map(|(part, bytes)| {
                        format!("{part}: {} {unit} ({} %)", in_unit(*bytes, unit), percent(*bytes, total))
                    })
                    .collect(),
            ]
            .concat(),
        ),
        (
            "File Descriptors",
            vec![
                format!("Total: {}, limit: {}", number(&node["fd_used"]), number(&node["fd_total"])),
                format!(
                    "Sockets: {}, limit: {}",
                    number(&node["sockets_used"]),
                    number(&node["sockets_total"])
                ),
            ],
        ),
        (
            "Free Disk Space",
            vec![
                format!(
                    "Low free disk space watermark: {} {unit}",
                    in_unit(number(&node["disk_free_limit"]), unit)
                ),
                format!("Free disk space: {} {unit}", in_unit(number(&node["disk_free"]), unit)),
            ],
        ),
        (
            "Totals",
            vec![
                format!("Connection count: {}", number(at(&overview, "object_totals.connections"))),
                format!("Queue count: {}", number(at(&overview, "object_totals.queues"))),
                format!("Virtual host count: {vhosts}"),
            ],
        ),
        ("Listeners", listeners.iter().map(listener_line).collect()),
    ];
    let json = json!({
        "os": "Linux", "pid": text(&node["os_pid"]).parse::<u64>().ok(), "uptime": number(&node["uptime"]) / 1000,
        "is_under_maintenance": node["being_drained"] == true, "rabbitmq_version": overview["rabbitmq_version"],
        "product_name": overview["product_name"], "product_version": overview["product_version"],
        "erlang_version": overview["erlang_full_version"], "run_queue": node["run_queue"],
        "active_plugins": plugins, "data_directory": node["db_dir"], "config_files": node["config_files"],
        "log_files": node["log_files"], "alarms": alarms,
        "memory": parts.iter().map(|(part, bytes)| (part.clone(), Value::from(*bytes))).collect::<serde_json::Map<_, _>>(),
        "vm_memory_high_watermark_limit": node["mem_limit"],
        "vm_memory_calculation_strategy": node["mem_calculation_strategy"],
        "file_descriptors": {
            "total_used": node["fd_used"], "total_limit": node["fd_total"], "sockets_used": node["sockets_used"],
            "sockets_limit": node["sockets_total"],
        },
        "disk_free": node["disk_free"], "disk_free_limit": node["disk_free_limit"],
        "totals": {
            "connection_count": at(&overview, "object_totals.connections"),
            "queue_count": at(&overview, "object_totals.queues"), "virtual_host_count": vhosts,
        },
        "listeners": listeners,
    });
    Ok(Output::Page { text: page(&sections), json })
}

fn page(sections: &[(&str, Vec<String>)]) -> String {
    let section = |(title, lines): &(&str, Vec<String>)| format!("{}\n\n{}\n", bold(title), lines.join("\n"));
    sections.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn cluster_status(call: &Call) -> Result<Output> {
    let overview = call.get("/overview")?;
    let nodes = call.list("/nodes")?;
    let flags = call.list("/feature-flags")?;
    let alarms = alarms(call)?;
    let listeners = listeners(&overview);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let names: Vec<String> = nodes.iter().map(|node| text(&node["name"])).collect();
    let running: Vec<String> =
        nodes.iter().filter(|node| node["running"] != false).map(|node| text(&node["name"])).collect();
    let or_none = |lines: Vec<String>| if lines.is_empty() { vec!["(none)".to_string()] } else { lines };
    let version = |name: &String| {
        format!(
            "{name}: RabbitMQ {} on Erlang {}",
            text(&overview["rabbitmq_version"]),
            text(&overview["erlang_version"])
        )
    };
    let maintenance = |node: &Value| {
        let state = if node["being_drained"] == true { "under maintenance" } else { "not under maintenance" };
        format!("Node: {}, status: {state}", text(&node["name"]))
    };
    let listener = |one: &Value| {
        let line = listener_line(one);
        format!("Node: {}, {}", text(&one["node"]), line.replacen("Interface", "interface", 1))
    };
    let flag = |flag: &Value| format!("Flag: {}, state: {}", text(&flag["name"]), text(&flag["state"]));
    let sections: Vec<(&str, Vec<String>)> = vec![
        ("Basics", vec![format!("Cluster name: {}", text(&overview["cluster_name"]))]),
        ("Disk Nodes", names.clone()),
        ("Running Nodes", running.clone()),
        ("Versions", names.iter().map(version).collect()),
        ("Maintenance status", nodes.iter().map(maintenance).collect()),
        ("Alarms", or_none(alarms.clone())),
        ("Network Partitions", vec!["(none)".to_string()]),
        ("Listeners", listeners.iter().map(listener).collect()),
        ("Feature flags", flags.iter().map(flag).collect()),
    ];
    let json = json!({
        "cluster_name": overview["cluster_name"], "disk_nodes": names, "ram_nodes": [], "running_nodes": running,
        "alarms": alarms, "partitions": {}, "listeners": listeners, "feature_flags": flags,
    });
    Ok(Output::Page { text: page(&sections), json })
}

/// What `report` runs, one after the other.
const REPORTED: &[&str] = &[
    "status",
    "cluster_status",
    "list_connections",
    "list_channels",
    "list_queues",
    "list_exchanges",
    "list_bindings",
    "list_permissions",
    "list_policies",
    "list_global_parameters",
    "list_parameters",
];

fn report(call: &Call) -> Result<Output> {
    let mut text = String::new();
    for name in REPORTED {
        let Some(verb) = super::find(CTL, name) else { continue };
        let part = Call { verb, ..call.again() };
        text.push_str(&format!("{}\n", (verb.banner)(&part)));
        let output = (verb.run)(&part)?;
        text.push_str(&output.render(super::output::Formatter::Table, true, &call.node));
        text.push('\n');
    }
    Ok(Output::Page { json: json!({ "node": call.node, "report": text }), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_parts_are_rounded_as_elixir_rounds_them() {
        assert_eq!(in_unit(136_900_123, "gb"), "0.1369");
        assert_eq!(in_unit(0, "gb"), "0.0");
        assert_eq!(in_unit(34_728_123, "mb"), "34.7281");
        assert_eq!(in_unit(5, "bytes"), "5");
        assert_eq!(percent(622, 1000), "62.2");
        assert_eq!(percent(1, 0), "100.0");
    }

    #[test]
    fn levels_have_the_names_of_both_brokers() {
        assert_eq!(log_level("warning"), Some("warn"));
        assert_eq!(log_level("none"), Some("off"));
        assert_eq!(log_level("nosuch"), None);
    }
}

//! How the node is: its status, its memory, its alarms, where it listens, and all of it in a report.

use serde_json::{Value, json};

use super::CTL;
use super::arguments::{flag, text};
use super::call::{Call, Fault, READING, Result, Verb, bold, code};
use super::output::{Formatter, Output};
use crate::cli::client::path;
use crate::cli::table::at;

const MONITORING: &str = "Monitoring, observability and health checks";

pub const VERBS: &[Verb] = &[
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
        section: "Configuration and Environment",
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
];

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
    // A RabbitMQ runs on Erlang, others on themselves.
    let runtime = match overview["product_name"].as_str() {
        Some("RabbitMQ") | None => format!("Erlang {}", text(&overview["erlang_version"])),
        Some(product) => format!("{product} {}", text(&overview["product_version"])),
    };
    let version =
        |name: &String| format!("{name}: RabbitMQ {} on {runtime}", text(&overview["rabbitmq_version"]));
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
        text.push_str(&output.render(Formatter::Table, true, &call.node));
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
}

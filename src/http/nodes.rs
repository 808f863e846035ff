//! The node: what the process takes and may take, where it listens, what is built in.

use exchanges::KINDS;
use serde_json::{Map, Value as Json, json};

use super::answer::Answer;
use super::call::Call;
use super::error::Error;
use super::overview;
use super::route::{Right, Route};
use super::sheet::Columns;
use crate::alarm::Cause;
use crate::config::PLUGINS;
use crate::node::{COMPATIBLE, Usage, processors};

pub fn routes() -> Vec<Route> {
    vec![
        Route::list("/nodes", Right::Monitor, "The nodes: this one", all),
        Route::get("/nodes/{node}", Right::Monitor, "The node", get),
        Route::get("/nodes/{node}/memory", Right::Monitor, "What memory is used for", memory),
        Route::get("/cluster-name", Right::Any, "What the cluster is called", cluster_name),
    ]
}

/// The types of exchange there are.
pub fn exchange_types() -> Json {
    let text = |name: &str| match name {
        "direct" => "routes by the whole key",
        "fanout" => "routes to all",
        "topic" => "routes by patterns of the key",
        "headers" => "routes by headers",
        "x-consistent-hash" => "spreads messages, each key to one",
        "x-modulus-hash" => "spreads messages by the rest of a division",
        "x-random" | "x-local-random" => "routes to one at random",
        "x-recent-history" => "routes to all, and shows new ones the last messages",
        "x-delayed-message" => "holds messages back until their hour",
        "x-message-deduplication" => "lets each message pass once",
        _ => "",
    };
    KINDS
        .iter()
        .map(|kind| json!({"name": kind.name(), "description": text(kind.name()), "enabled": true}))
        .collect()
}

/// Where the broker listens.
pub fn listeners(call: &Call) -> Json {
    let node = call.node();
    let one = |listener: &crate::node::Listener| {
        json!({
            "node": node,
            "protocol": listener.protocol,
            "ip_address": listener.address.ip().to_string(),
            "port": listener.address.port(),
            "socket_opts": {"nodelay": true},
        })
    };
    call.broker.listeners().iter().map(one).collect()
}

/// Where HTTP is spoken.
pub fn contexts(call: &Call) -> Json {
    let node = call.node();
    let http = call.broker.listeners().iter().filter(|listener| listener.protocol.starts_with("http"));
    let one = |listener: &crate::node::Listener| {
        let description = if listener.protocol.ends_with("prometheus") {
            "RabbitMQ Prometheus"
        } else {
            "RabbitMQ Management"
        };
        json!({
            "node": node,
            "description": description,
            "path": "/",
            "ip": listener.address.ip().to_string(),
            "port": listener.address.port().to_string(),
            "protocol": listener.protocol,
            "ssl_opts": [],
        })
    };
    http.map(one).collect()
}

fn describe(call: &Call) -> Json {
    let broker = &call.broker;
    let config = &broker.config;
    let usage = Usage::look(&config.data_dir);
    let mechanism =
        |name: &String| json!({"name": name, "description": format!("SASL {name}"), "enabled": true});
    let log = config.log_file.as_ref().map_or("<stdout>".into(), |path| path.display().to_string());
    let mut node = json!({
        "name": call.node(),
        "type": "disc",
        "running": true,
        "being_drained": false,
        "partitions": [],
        "os_pid": std::process::id().to_string(),
        "uptime": broker.uptime.ms(),
        "run_queue": tokio::runtime::Handle::current().metrics().global_queue_depth(),
        "processors": processors(),
        "rates_mode": "basic",
        "fd_total": usage.descriptors.1,
        "sockets_total": usage.descriptors.1,
        "proc_total": usage.threads.1,
        "mem_limit": broker.budget().limit_bytes(),
        "mem_alarm": broker.alarm().has(Cause::Memory),
        "mem_calculation_strategy": "rss",
        "disk_free_limit": broker.budget().disk_free_bytes_min(),
        "disk_free_alarm": broker.alarm().has(Cause::LowDisk) || broker.alarm().has(Cause::FullDisk),
        "exchange_types": exchange_types(),
        "auth_mechanisms": config.auth_mechanisms.iter().map(mechanism).collect::<Vec<_>>(),
        "applications": [
            {"name": "garenne", "description": "Garenne", "version": env!("CARGO_PKG_VERSION")},
            {"name": "rabbit", "description": "RabbitMQ, as far as clients can tell", "version": COMPATIBLE},
        ],
        "enabled_plugins": PLUGINS,
        "contexts": contexts(call),
        "listeners": listeners(call),
        "log_files": [log],
        "db_dir": config.data_dir.display().to_string(),
        "net_ticktime": 60,
        "cluster_links": [],
        "metrics_gc_queue_length": {},
    });
    let map = node.as_object_mut().expect("it is an object");
    let figures = broker.node_figures(&usage, call.span("node_stats"));
    map.extend(overview::node_stats(&figures));
    node
}

fn all(call: &Call) -> Result<Answer, Error> {
    let columns = Columns::read(call.query("columns"));
    Ok(Answer::Json(json!([columns.of(describe(call))])))
}

/// The node of the path: only this one is there.
fn here(call: &Call) -> Result<(), Error> {
    if call.param("node") == call.node() { Ok(()) } else { Err(Error::NotFound) }
}

fn get(call: &Call) -> Result<Answer, Error> {
    here(call)?;
    let columns = Columns::read(call.query("columns"));
    Ok(Answer::Json(columns.of(describe(call))))
}

/// RabbitMQ's names for what memory is used for. Those of Erlang's own have nothing here.
const ELSEWHERE: &[&str] = &[
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "quorum_queue_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "other_proc",
    "metrics",
    "mgmt_db",
    "mnesia",
    "metadata_store",
    "quorum_ets",
    "metadata_store_ets",
    "other_ets",
    "msg_index",
    "code",
    "atom",
    "allocated_unused",
    "reserved_unallocated",
];

fn memory(call: &Call) -> Result<Answer, Error> {
    here(call)?;
    let resident = Usage::look(&call.broker.config.data_dir).resident_bytes;
    let messages = call.broker.memory().used_bytes() as u64;
    let mut memory: Map<String, Json> = ELSEWHERE.iter().map(|name| (name.to_string(), json!(0))).collect();
    memory.insert("queue_procs".into(), messages.into());
    memory.insert("binary".into(), 0.into());
    memory.insert("connection_other".into(), 0.into());
    memory.insert("other_system".into(), resident.saturating_sub(messages).into());
    memory.insert("strategy".into(), "rss".into());
    memory.insert("total".into(), json!({"rss": resident, "allocated": resident, "erlang": resident}));
    Ok(Answer::Json(json!({"memory": memory})))
}

fn cluster_name(call: &Call) -> Result<Answer, Error> {
    Ok(Answer::Json(json!({"name": call.broker.cluster_name()})))
}

//! Lists of queues, exchanges, bindings, connections, channels and consumers, by columns.

use serde_json::{Value, json};

use super::arguments::{Switch, flag};
use super::call::{Call, Fault, READING, Result, Verb, code};
use super::output::{Output, Rows};
use super::{CTL, DIAGNOSTICS, QUEUES};
use crate::cli::client::path;
use crate::cli::failure::Failure;
use crate::cli::table::at;

const SECTION: &str = "Monitoring, observability and health checks";

const WHERE: &[Switch] = &[flag("online"), flag("offline"), flag("local")];

pub const VERBS: &[Verb] = &[
    Verb {
        name: "list_queues",
        tools: READING | QUEUES,
        section: SECTION,
        about: "Lists queues and their columns",
        usage: "[--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] [<column>, ...] [--timeout <timeout>]",
        switches: WHERE,
        words: (0, usize::MAX),
        banner: |call| format!("{}Listing queues for vhost {} ...", call.timeout_banner(), call.vhost()),
        run: queues,
    },
    Verb {
        name: "list_unresponsive_queues",
        tools: READING,
        section: SECTION,
        about: "Lists queues that do not answer; a queue here has no process that could hang",
        usage: "[--local] [--queue-timeout <queue-timeout>] [<column> ...] [--no-table-headers]",
        switches: &[flag("local"), super::arguments::number("queue-timeout"), flag("all")],
        words: (0, usize::MAX),
        banner: |call| format!("Listing unresponsive queues for vhost {} ...", call.vhost()),
        run: |call| {
            call.get("/overview")?;
            Ok(stream(call, &["name"], Vec::new(), |_, _| Value::Null))
        },
    },
    Verb {
        name: "list_exchanges",
        tools: READING,
        section: SECTION,
        about: "Lists exchanges and their columns",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |call| format!("Listing exchanges for vhost {} ...", call.vhost()),
        run: exchanges,
    },
    Verb {
        name: "list_bindings",
        tools: READING,
        section: SECTION,
        about: "Lists the bindings of a vhost",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |call| format!("Listing bindings for vhost {}...", call.vhost()),
        run: bindings,
    },
    Verb {
        name: "list_connections",
        tools: READING,
        section: SECTION,
        about: "Lists connections and their columns",
        usage: "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |_| "Listing connections ...".into(),
        run: connections,
    },
    Verb {
        name: "list_channels",
        tools: READING,
        section: SECTION,
        about: "Lists channels and their columns",
        usage: "[--no-table-headers] [<column> ...]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |_| "Listing channels ...".into(),
        run: channels,
    },
    Verb {
        name: "list_consumers",
        tools: CTL | DIAGNOSTICS,
        section: SECTION,
        about: "Lists the consumers of a vhost",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        switches: &[],
        words: (0, usize::MAX),
        banner: |call| format!("Listing consumers in vhost {} ...", call.vhost()),
        run: consumers,
    },
];

/// What may be asked of a list; None of one that takes no columns.
fn known_columns(verb: &str) -> Option<&'static [&'static str]> {
    match verb {
        "list_queues" => Some(QUEUE_COLUMNS),
        "list_unresponsive_queues" => Some(&["name"]),
        "list_exchanges" => Some(EXCHANGE_COLUMNS),
        "list_bindings" => Some(BINDING_COLUMNS),
        "list_connections" => Some(CONNECTION_COLUMNS),
        "list_channels" => Some(CHANNEL_COLUMNS),
        "list_consumers" => Some(CONSUMER_COLUMNS),
        "list_vhosts" => {
            Some(&["cluster_state", "default_queue_type", "description", "name", "tags", "tracing"])
        }
        "list_feature_flags" => Some(&["desc", "doc_url", "name", "provided_by", "stability", "state"]),
        _ => None,
    }
}

/// The columns that this list does not have. Asked before anything is said.
pub fn unknown_columns(verb: &str, words: &[String]) -> Vec<String> {
    let Some(known) = known_columns(verb) else { return Vec::new() };
    asked(words).filter(|name| !known.contains(name)).map(String::from).collect()
}

/// Separated by blanks or commas.
fn asked(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().flat_map(|word| word.split(',')).filter(|name| !name.is_empty())
}

/// The columns that were asked for, or the usual ones.
pub fn columns(call: &Call, default: &[&str]) -> Vec<String> {
    let asked: Vec<String> = asked(&call.words).map(String::from).collect();
    if asked.is_empty() { default.iter().map(|name| name.to_string()).collect() } else { asked }
}

fn stream(call: &Call, default: &[&str], items: Vec<Value>, field: impl Fn(&Value, &str) -> Value) -> Output {
    let columns = columns(call, default);
    let rows = items.iter().map(|item| columns.iter().map(|name| field(item, name)).collect()).collect();
    Output::Rows(Rows { columns, rows, is_stream: true })
}

/// Of a vhost that is not there the real tools list nothing, without complaint.
fn items(call: &Call, path: &str) -> Result<Vec<Value>> {
    match call.client.get(path) {
        Ok(Value::Array(rows)) => Ok(rows),
        Ok(_) => Err(Fault::error(code::SOFTWARE, format!("{path} answered no list"))),
        Err(Failure::NotFound { .. }) => Ok(Vec::new()),
        Err(failure) => Err(call.fault(failure)),
    }
}

const QUEUE_COLUMNS: &[&str] = &[
    "arguments",
    "auto_delete",
    "consumer_capacity",
    "consumer_utilisation",
    "consumers",
    "disk_reads",
    "disk_writes",
    "durable",
    "exclusive",
    "exclusive_consumer_pid",
    "exclusive_consumer_tag",
    "head_message_timestamp",
    "leader",
    "members",
    "memory",
    "message_bytes",
    "message_bytes_persistent",
    "message_bytes_ram",
    "message_bytes_ready",
    "message_bytes_unacknowledged",
    "messages",
    "messages_persistent",
    "messages_ram",
    "messages_ready",
    "messages_ready_ram",
    "messages_unacknowledged",
    "messages_unacknowledged_ram",
    "name",
    "online",
    "owner_pid",
    "pid",
    "policy",
    "slave_pids",
    "state",
    "synchronised_slave_pids",
    "type",
    "operator_policy",
    "effective_policy_definition",
    "single_active_consumer_pid",
    "single_active_consumer_tag",
];

fn queues(call: &Call) -> Result<Output> {
    let all = if call.given.is_set("offline") {
        Vec::new()
    } else {
        items(call, &path(&["queues", call.vhost()]))?
    };
    Ok(stream(call, &["name", "messages"], all, |queue, name| match name {
        // Queues of Garenne are no processes; whoever owns one is a connection, which has a name.
        "pid" | "exclusive_consumer_pid" | "single_active_consumer_pid" => Value::Null,
        "owner_pid" => at(queue, "owner_pid_details.name").clone(),
        "slave_pids" => at(queue, "slave_nodes").clone(),
        "synchronised_slave_pids" => at(queue, "synchronised_slave_nodes").clone(),
        name => at(queue, name).clone(),
    }))
}

const EXCHANGE_COLUMNS: &[&str] =
    &["arguments", "auto_delete", "durable", "internal", "name", "policy", "type"];

fn exchanges(call: &Call) -> Result<Output> {
    let all = items(call, &path(&["exchanges", call.vhost()]))?;
    Ok(stream(call, &["name", "type"], all, |exchange, name| at(exchange, name).clone()))
}

const BINDING_COLUMNS: &[&str] =
    &["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"];

fn bindings(call: &Call) -> Result<Output> {
    let all = items(call, &path(&["bindings", call.vhost()]))?;
    Ok(stream(call, BINDING_COLUMNS, all, |binding, name| match name {
        "source_name" => binding["source"].clone(),
        "source_kind" => "exchange".into(),
        "destination_name" => binding["destination"].clone(),
        "destination_kind" => binding["destination_type"].clone(),
        name => at(binding, name).clone(),
    }))
}

const CONNECTION_COLUMNS: &[&str] = &[
    "auth_mechanism",
    "channel_max",
    "channels",
    "client_properties",
    "connected_at",
    "frame_max",
    "host",
    "name",
    "peer_cert_issuer",
    "peer_cert_subject",
    "peer_cert_validity",
    "peer_host",
    "peer_port",
    "pid",
    "port",
    "protocol",
    "recv_cnt",
    "recv_oct",
    "send_cnt",
    "send_oct",
    "send_pend",
    "ssl",
    "ssl_cipher",
    "ssl_hash",
    "ssl_key_exchange",
    "ssl_protocol",
    "state",
    "timeout",
    "user",
    "vhost",
];

fn connections(call: &Call) -> Result<Output> {
    let default = &["user", "peer_host", "peer_port", "state"];
    let all = items(call, "/connections")?;
    Ok(stream(call, default, all, |connection, name| match name {
        // What close_connection takes.
        "pid" => connection["name"].clone(),
        "protocol" => erlang_protocol(&connection["protocol"]),
        name => at(connection, name).clone(),
    }))
}

/// `AMQP 0-9-1` is `{0,9,1}` to rabbitmqctl.
fn erlang_protocol(protocol: &Value) -> Value {
    match protocol.as_str().and_then(|text| text.strip_prefix("AMQP ")) {
        Some(version) => format!("{{{}}}", version.replace('-', ",")).into(),
        None => protocol.clone(),
    }
}

const CHANNEL_COLUMNS: &[&str] = &[
    "acks_uncommitted",
    "confirm",
    "connection",
    "consumer_count",
    "global_prefetch_count",
    "messages_unacknowledged",
    "messages_uncommitted",
    "messages_unconfirmed",
    "name",
    "number",
    "pid",
    "prefetch_count",
    "transactional",
    "user",
    "vhost",
];

fn channels(call: &Call) -> Result<Output> {
    let default = &["pid", "user", "consumer_count", "messages_unacknowledged"];
    let all = items(call, "/channels")?;
    Ok(stream(call, default, all, |channel, name| match name {
        "pid" => channel["name"].clone(),
        "connection" => at(channel, "connection_details.name").clone(),
        name => at(channel, name).clone(),
    }))
}

const CONSUMER_COLUMNS: &[&str] = &[
    "queue_name",
    "channel_pid",
    "consumer_tag",
    "ack_required",
    "prefetch_count",
    "active",
    "activity_status",
    "arguments",
];

fn consumers(call: &Call) -> Result<Output> {
    let default = &[
        "queue_name",
        "channel_pid",
        "consumer_tag",
        "ack_required",
        "prefetch_count",
        "active",
        "arguments",
    ];
    let all = items(call, &path(&["consumers", call.vhost()]))?;
    Ok(stream(call, default, all, |consumer, name| match name {
        "queue_name" => at(consumer, "queue.name").clone(),
        "channel_pid" => at(consumer, "channel_details.name").clone(),
        // No arguments come as an empty list.
        "arguments" if consumer["arguments"] == json!([]) => json!({}),
        name => at(consumer, name).clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_a_tuple() {
        assert_eq!(erlang_protocol(&json!("AMQP 0-9-1")), json!("{0,9,1}"));
        assert_eq!(erlang_protocol(&json!("Web STOMP")), json!("Web STOMP"));
    }
}

//! Metrics of the broker as a whole: who it is, what the process takes, what has come and gone, all messages.

use super::families::Wanted;
use super::text::{Kind, Text};
use crate::alarm::Cause;
use crate::broker::{Broker, Tries};
use crate::node::{COMPATIBLE, Usage};
use crate::tally::{Count, Figures};

/// Who is asked. Dashboards join everything with it.
pub fn identity(broker: &Broker, endpoint: &str, text: &mut Text) {
    let (node, cluster) = (broker.config.node_name.as_str(), broker.cluster_name());
    let permanent = broker.cluster_id();
    text.family_of("rabbitmq_", "identity_info", Kind::Gauge, "RabbitMQ node & cluster identity info");
    let labels = [
        ("rabbitmq_node", node),
        ("rabbitmq_cluster", cluster.as_str()),
        ("rabbitmq_cluster_permanent_id", permanent.as_str()),
        ("rabbitmq_endpoint", endpoint),
    ];
    text.sample(&labels, 1.0);
    let own = env!("CARGO_PKG_VERSION");
    text.family_of("rabbitmq_", "build_info", Kind::Gauge, "RabbitMQ & Erlang/OTP version info");
    let labels = [
        ("rabbitmq_version", COMPATIBLE),
        ("prometheus_plugin_version", COMPATIBLE),
        ("prometheus_client_version", own),
        ("erlang_version", "none"),
        ("product_name", "Garenne"),
        ("product_version", own),
    ];
    text.sample(&labels, 1.0);
}

/// Everything that is not of one object.
pub fn families(broker: &Broker, wanted: &Wanted, text: &mut Text) {
    if wanted.has("alarm_metrics") {
        alarms(broker, text);
    }
    if wanted.has("connection_churn_metrics") {
        churn(broker, text);
    }
    if wanted.has_any(&["node_coarse_metrics", "node_metrics"]) {
        process(broker, wanted, text);
    }
    if wanted.has("auth_attempt_metrics") {
        attempts(broker, text);
    }
    if wanted.has("global") {
        totals(broker, text);
        messages(broker, text);
        sizes(broker, text);
    }
}

fn alarms(broker: &Broker, text: &mut Text) {
    let is_on = |causes: &[Cause]| f64::from(u8::from(causes.iter().any(|cause| broker.alarm().has(*cause))));
    let usage = Usage::look(&broker.config.data_dir);
    let is_out = f64::from(u8::from(usage.descriptors.0 >= usage.descriptors.1));
    for (name, value) in [
        ("alarms_file_descriptor_limit", is_out),
        ("alarms_free_disk_space_watermark", is_on(&[Cause::LowDisk, Cause::FullDisk])),
        ("alarms_memory_used_watermark", is_on(&[Cause::Memory])),
    ] {
        text.single(name, Kind::Gauge, "is 1 if this alarm is in effect", value);
    }
}

fn churn(broker: &Broker, text: &mut Text) {
    let names = [
        ("connections_opened_total", "Total number of connections opened"),
        ("connections_closed_total", "Total number of connections closed or terminated"),
        ("channels_opened_total", "Total number of channels opened"),
        ("channels_closed_total", "Total number of channels closed"),
        ("queues_declared_total", "Total number of queues declared"),
        ("queues_created_total", "Total number of queues created"),
        ("queues_deleted_total", "Total number of queues deleted"),
    ];
    for ((name, help), count) in names.into_iter().zip(broker.roster.churn.counts()) {
        text.single(name, Kind::Counter, help, count as f64);
    }
}

fn process(broker: &Broker, wanted: &Wanted, text: &mut Text) {
    let usage = Usage::look(&broker.config.data_dir);
    let sockets = broker.roster.len() + broker.listeners().len();
    let mut gauge = |name, help, value| text.single(name, Kind::Gauge, help, value);
    if wanted.has("node_coarse_metrics") {
        gauge("process_open_fds", "Open file descriptors", usage.descriptors.0 as f64);
        gauge("process_open_tcp_sockets", "Open TCP sockets", sockets as f64);
        gauge("process_resident_memory_bytes", "Memory used in bytes", usage.resident_bytes as f64);
        gauge("disk_space_available_bytes", "Disk space available in bytes", usage.disk_free_bytes as f64);
        gauge("erlang_processes_used", "Threads of the process", usage.threads.0 as f64);
    }
    if wanted.has("node_metrics") {
        gauge("process_max_fds", "Open file descriptors limit", usage.descriptors.1 as f64);
        gauge("process_max_tcp_sockets", "Open TCP sockets limit", usage.descriptors.1 as f64);
        let limit = broker.budget().limit_bytes() as f64;
        gauge("resident_memory_limit_bytes", "Memory high watermark in bytes", limit);
        let limit = broker.budget().disk_free_bytes_min() as f64;
        gauge("disk_space_available_limit_bytes", "Free disk space low watermark in bytes", limit);
        gauge("erlang_processes_limit", "Threads that the machine allows", usage.threads.1 as f64);
        gauge("erlang_uptime_seconds", "Node uptime", broker.uptime.ms() as f64 / 1000.0);
        // What exporters call it everywhere.
        let started_secs = broker.clock().now_ms().saturating_sub(broker.uptime.ms()) as f64 / 1000.0;
        const HELP: &str = "Start time of the process since unix epoch in seconds";
        text.family_of("", "process_start_time_seconds", Kind::Gauge, HELP);
        text.sample(&[], started_secs);
    }
}

fn attempts(broker: &Broker, text: &mut Text) {
    let all = broker.attempts.by_protocol();
    type Pick = fn(&Tries) -> u64;
    let families: [(&str, &str, Pick); 3] = [
        ("auth_attempts_total", "Total number of authorization attempts", |tries| {
            tries.succeeded + tries.failed
        }),
        ("auth_attempts_succeeded_total", "Total number of successful authentication attempts", |tries| {
            tries.succeeded
        }),
        ("auth_attempts_failed_total", "Total number of failed authentication attempts", |tries| {
            tries.failed
        }),
    ];
    for (name, help, pick) in families {
        text.family(name, Kind::Counter, help);
        all.iter()
            .for_each(|(protocol, tries)| text.sample(&[("protocol", protocol.name())], pick(tries) as f64));
    }
}

fn totals(broker: &Broker, text: &mut Text) {
    let guests = broker.roster.guests();
    let channels: usize = guests.iter().map(|guest| guest.channel_count()).sum();
    let vhosts = broker.vhosts();
    let queues: usize = vhosts.iter().map(|vhost| vhost.queue_count()).sum();
    let exchanges: usize = vhosts.iter().map(|vhost| vhost.exchange_count()).sum();
    let now_ms = broker.clock().now_ms();
    let (mut consumers, mut publishers) = (0, 0);
    for channel in guests.iter().flat_map(|guest| guest.channels()) {
        consumers += channel.standing().consumers;
        publishers += u32::from(channel.tally.figures(now_ms).count(Count::Publish) > 0);
    }
    let mut gauge = |name, help, value| text.single(name, Kind::Gauge, help, value);
    gauge("connections", "Connections currently open", guests.len() as f64);
    gauge("channels", "Channels currently open", channels as f64);
    gauge("consumers", "Consumers currently connected", consumers.into());
    gauge("queues", "Queues available", queues as f64);
    gauge("exchanges", "Exchanges available", exchanges as f64);
    let protocol = [("protocol", "amqp091")];
    text.family("global_publishers", Kind::Gauge, "Publishers currently connected");
    text.sample(&protocol, publishers.into());
    text.family("global_consumers", Kind::Gauge, "Consumers currently connected");
    text.sample(&protocol, consumers.into());
}

/// Counters of what is published: name, help, what.
const PUBLISHED: &[(&str, &str, Count)] = &[
    ("received_total", "Total number of messages received from publishers", Count::Publish),
    (
        "received_confirm_total",
        "Total number of messages received from publishers expecting confirmations",
        Count::PublishConfirm,
    ),
    ("confirmed_total", "Total number of messages confirmed to publishers", Count::Confirm),
    ("routed_total", "Total number of messages routed to queues or streams", Count::Routed),
    (
        "unroutable_dropped_total",
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
        Count::DropUnroutable,
    ),
    (
        "unroutable_returned_total",
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
        Count::ReturnUnroutable,
    ),
];

/// Counters of what leaves queues: name, help, what is summed up.
const TAKEN: &[(&str, &str, &[Count])] = &[
    (
        "delivered_total",
        "Total number of messages delivered to consumers",
        &[Count::Deliver, Count::DeliverNoAck, Count::Get, Count::GetNoAck],
    ),
    (
        "delivered_consume_manual_ack_total",
        "Total number of messages delivered to consumers using basic.consume with manual acknowledgment",
        &[Count::Deliver],
    ),
    (
        "delivered_consume_auto_ack_total",
        "Total number of messages delivered to consumers using basic.consume with automatic acknowledgment",
        &[Count::DeliverNoAck],
    ),
    (
        "delivered_get_manual_ack_total",
        "Total number of messages delivered to consumers using basic.get with manual acknowledgment",
        &[Count::Get],
    ),
    (
        "delivered_get_auto_ack_total",
        "Total number of messages delivered to consumers using basic.get with automatic acknowledgment",
        &[Count::GetNoAck],
    ),
    ("get_empty_total", "Total number of times basic.get operations fetched no message", &[Count::GetEmpty]),
    ("redelivered_total", "Total number of messages redelivered to consumers", &[Count::Redeliver]),
    ("acknowledged_total", "Total number of messages acknowledged by consumers", &[Count::Ack]),
];

/// Counters of dead letters: name, what is summed up.
const DEAD: &[(&str, &[Count])] = &[
    (
        "confirmed_total",
        &[Count::DeadRejected, Count::DeadExpired, Count::DeadMaxLen, Count::DeadDeliveryLimit],
    ),
    ("delivery_limit_total", &[Count::DeadDeliveryLimit]),
    ("expired_total", &[Count::DeadExpired]),
    ("maxlen_total", &[Count::DeadMaxLen]),
    ("rejected_total", &[Count::DeadRejected]),
];

/// RabbitMQ's names for types of queue, in the order of `QueueKind`.
pub const QUEUE_TYPES: [&str; 2] = ["rabbit_classic_queue", "rabbit_quorum_queue"];

fn messages(broker: &Broker, text: &mut Text) {
    let now_ms = broker.clock().now_ms();
    let published = broker.tallies.published.figures(now_ms);
    for (name, help, count) in PUBLISHED {
        text.family(&format!("global_messages_{name}"), Kind::Counter, help);
        text.sample(&[("protocol", "amqp091")], published.count(*count) as f64);
    }
    let queues: Vec<Figures> = broker.tallies.queues.iter().map(|queues| queues.figures(now_ms)).collect();
    let sum = |figures: &Figures, counts: &[Count]| -> f64 {
        counts.iter().map(|count| figures.count(*count)).sum::<u64>() as f64
    };
    for (name, help, counts) in TAKEN {
        text.family(&format!("global_messages_{name}"), Kind::Counter, help);
        for (kind, figures) in QUEUE_TYPES.into_iter().zip(&queues) {
            text.sample(&[("protocol", "amqp091"), ("queue_type", kind)], sum(figures, counts));
        }
    }
    for (name, counts) in DEAD {
        let name = format!("global_messages_dead_lettered_{name}");
        text.family(&name, Kind::Counter, "Total number of messages dead-lettered, for this reason");
        for (kind, figures) in QUEUE_TYPES.into_iter().zip(&queues) {
            // A dead letter is in its new queues, or still in the old one.
            let labels = [("queue_type", kind), ("dead_letter_strategy", "at_least_once")];
            text.sample(&labels, sum(figures, counts));
        }
    }
}

fn sizes(broker: &Broker, text: &mut Text) {
    // Dashboards look for exactly these.
    const ENDS: [&str; 8] = ["100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "5e+07", "1e+08"];
    let (classes, bytes) = broker.sizes.figures();
    text.family("message_size_bytes", Kind::Histogram, "Size of messages received from publishers");
    text.histogram(&ENDS, &classes, bytes as f64);
}

/// What memory is used for.
pub fn memory(broker: &Broker, text: &mut Text) {
    let resident = Usage::look(&broker.config.data_dir).resident_bytes;
    let messages = broker.memory().used_bytes() as u64;
    let mut gauge = |name, help, bytes: u64| text.single(name, Kind::Gauge, help, bytes as f64);
    gauge("memory_queue_procs_bytes", "Ready messages in memory", messages);
    gauge("memory_other_system_bytes", "Everything else", resident.saturating_sub(messages));
    gauge("memory_total_rss_bytes", "All of the process", resident);
}

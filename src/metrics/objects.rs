//! Metrics of queues, channels, connections, exchanges and vhosts: each for itself, or summed up.
//!
//! A table has a line for every family: its name, and where the value is found. The same line serves all endpoints.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Endpoint;
use super::families::Wanted;
use super::text::{Kind, Text};
use crate::broker::Broker;
use crate::queue::Look;
use crate::roster::{ChannelFacts, Guest, Standing};
use crate::tally::{Count, Figures};

/// A family: which of RabbitMQ's groups it is in, its name, type, help, and where its value is.
struct Family<T: 'static> {
    group: &'static str,
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&T) -> f64,
}

const fn gauge<T>(
    group: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> f64,
) -> Family<T> {
    Family { group, name, kind: Kind::Gauge, help, value }
}

const fn counter<T>(
    group: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> f64,
) -> Family<T> {
    Family { group, name, kind: Kind::Counter, help, value }
}

const COARSE: &str = "queue_coarse_metrics";
/// These are in the next one as well.
const CONSUMERS: &str = "queue_consumer_count";
const QUEUE: &str = "queue_metrics";
const DELIVERY: &str = "queue_delivery_metrics";

/// A queue, looked at once.
struct Queue {
    look: Look,
    /// How many of its messages survive a restart.
    persistent: u64,
}

impl Deref for Queue {
    type Target = Look;

    fn deref(&self) -> &Look {
        &self.look
    }
}

const QUEUES: &[Family<Queue>] = &[
    gauge(COARSE, "queue_messages_ready", "Messages ready to be delivered to consumers", |q| q.ready as f64),
    gauge(
        COARSE,
        "queue_messages_unacked",
        "Messages delivered to consumers but not yet acknowledged",
        |q| q.unacked as f64,
    ),
    gauge(COARSE, "queue_messages", "Sum of ready and unacknowledged messages - total queue depth", |q| {
        (q.ready + q.unacked) as f64
    }),
    gauge(CONSUMERS, "queue_consumers", "Consumers on a queue", |q| q.consumers as f64),
    gauge(QUEUE, "queue_consumer_capacity", "Consumer capacity", capacity),
    gauge(QUEUE, "queue_consumer_utilisation", "Same as consumer capacity", capacity),
    gauge(QUEUE, "queue_process_memory_bytes", "Memory in bytes used by the messages of a queue", |q| {
        q.memory_bytes as f64
    }),
    gauge(QUEUE, "queue_messages_ram", "Ready and unacknowledged messages stored in memory", |q| {
        (q.ready + q.unacked).saturating_sub(q.away) as f64
    }),
    gauge(QUEUE, "queue_messages_ready_ram", "Ready messages stored in memory", |q| {
        q.ready.saturating_sub(q.away) as f64
    }),
    gauge(QUEUE, "queue_messages_unacked_ram", "Unacknowledged messages stored in memory", |q| {
        q.unacked as f64
    }),
    gauge(QUEUE, "queue_messages_ram_bytes", "Size of ready messages stored in memory", |q| {
        q.memory_bytes as f64
    }),
    gauge(QUEUE, "queue_messages_bytes", "Size in bytes of ready and unacknowledged messages", |q| {
        (q.ready_body_bytes + q.unacked_body_bytes) as f64
    }),
    gauge(QUEUE, "queue_messages_ready_bytes", "Size in bytes of ready messages", |q| {
        q.ready_body_bytes as f64
    }),
    gauge(QUEUE, "queue_messages_unacked_bytes", "Size in bytes of all unacknowledged messages", |q| {
        q.unacked_body_bytes as f64
    }),
    gauge(QUEUE, "queue_messages_persistent", "Persistent messages", |q| {
        q.persistent.min((q.ready + q.unacked) as u64) as f64
    }),
    gauge(QUEUE, "queue_messages_persistent_bytes", "Size in bytes of persistent messages", |q| {
        // Octets are not counted apart: where only some are persistent, each counts as one of middle size.
        let messages = ((q.ready + q.unacked) as u64).max(1);
        let share = q.persistent.min(messages) as f64 / messages as f64;
        (q.ready_body_bytes + q.unacked_body_bytes) as f64 * share
    }),
    gauge(QUEUE, "queue_messages_paged_out", "Messages paged out to disk", |q| q.away as f64),
    counter(QUEUE, "queue_messages_published_total", "Total number of messages published to queues", |q| {
        q.figures.count(Count::Publish) as f64
    }),
    counter(
        DELIVERY,
        "queue_get_ack_total",
        "Total number of messages fetched from a queue with basic.get in manual acknowledgement mode",
        |q| q.figures.count(Count::Get) as f64,
    ),
    counter(
        DELIVERY,
        "queue_get_total",
        "Total number of messages fetched from a queue with basic.get in automatic acknowledgement mode",
        |q| q.figures.count(Count::GetNoAck) as f64,
    ),
    counter(
        DELIVERY,
        "queue_messages_delivered_ack_total",
        "Total number of messages delivered from a queue to consumers in manual acknowledgement mode",
        |q| q.figures.count(Count::Deliver) as f64,
    ),
    counter(
        DELIVERY,
        "queue_messages_delivered_total",
        "Total number of messages delivered from a queue to consumers in automatic acknowledgement mode",
        |q| q.figures.count(Count::DeliverNoAck) as f64,
    ),
    counter(
        DELIVERY,
        "queue_messages_redelivered_total",
        "Total number of messages redelivered from a queue to consumers",
        |q| q.figures.count(Count::Redeliver) as f64,
    ),
    counter(
        DELIVERY,
        "queue_messages_acked_total",
        "Total number of messages acknowledged by consumers on a queue",
        |q| q.figures.count(Count::Ack) as f64,
    ),
    counter(
        DELIVERY,
        "queue_get_empty_total",
        "Total number of times basic.get operations fetched no message on a queue",
        |q| q.figures.count(Count::GetEmpty) as f64,
    ),
];

fn capacity(look: &Queue) -> f64 {
    f64::from(u8::from(look.consumers > 0 && (look.starving || look.ready == 0)))
}

/// A channel, looked at once.
struct Channel {
    name: String,
    vhost: Arc<str>,
    standing: Standing,
    figures: Figures,
}

const CHANNEL: &str = "channel_metrics";
const CHANNEL_EXCHANGE: &str = "channel_exchange_metrics";
const CHANNEL_QUEUE: &str = "channel_queue_metrics";

const CHANNELS: &[Family<Channel>] = &[
    gauge(CHANNEL, "channel_consumers", "Consumers on a channel", |c| c.standing.consumers.into()),
    gauge(CHANNEL, "channel_messages_unacked", "Delivered but not yet acknowledged messages", |c| {
        c.standing.unacked.into()
    }),
    gauge(CHANNEL, "channel_messages_unconfirmed", "Published but not yet confirmed messages", |c| {
        c.standing.unconfirmed.into()
    }),
    gauge(
        CHANNEL,
        "channel_messages_uncommitted",
        "Messages received in a transaction but not yet committed",
        |c| c.standing.uncommitted.into(),
    ),
    gauge(
        CHANNEL,
        "channel_acks_uncommitted",
        "Message acknowledgements in a transaction not yet committed",
        |c| c.standing.acks_uncommitted.into(),
    ),
    gauge(CHANNEL, "consumer_prefetch", "Limit of unacknowledged messages for each consumer", |c| {
        c.standing.prefetch.into()
    }),
    gauge(
        CHANNEL,
        "channel_prefetch",
        "Total limit of unacknowledged messages for all consumers on a channel",
        |c| c.standing.global_prefetch.into(),
    ),
    counter(
        CHANNEL_EXCHANGE,
        "channel_messages_published_total",
        "Total number of messages published into an exchange on a channel",
        |c| c.figures.count(Count::Publish) as f64,
    ),
    counter(
        CHANNEL_EXCHANGE,
        "channel_messages_confirmed_total",
        "Total number of messages published into an exchange and confirmed on the channel",
        |c| c.figures.count(Count::Confirm) as f64,
    ),
    counter(
        CHANNEL_EXCHANGE,
        "channel_messages_unroutable_returned_total",
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
        |c| c.figures.count(Count::ReturnUnroutable) as f64,
    ),
    counter(
        CHANNEL_EXCHANGE,
        "channel_messages_unroutable_dropped_total",
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
        |c| c.figures.count(Count::DropUnroutable) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_get_ack_total",
        "Total number of messages fetched with basic.get in manual acknowledgement mode",
        |c| c.figures.count(Count::Get) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_get_total",
        "Total number of messages fetched with basic.get in automatic acknowledgement mode",
        |c| c.figures.count(Count::GetNoAck) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_messages_delivered_ack_total",
        "Total number of messages delivered to consumers in manual acknowledgement mode",
        |c| c.figures.count(Count::Deliver) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_messages_delivered_total",
        "Total number of messages delivered to consumers in automatic acknowledgement mode",
        |c| c.figures.count(Count::DeliverNoAck) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_messages_redelivered_total",
        "Total number of messages redelivered to consumers",
        |c| c.figures.count(Count::Redeliver) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_messages_acked_total",
        "Total number of messages acknowledged by consumers",
        |c| c.figures.count(Count::Ack) as f64,
    ),
    counter(
        CHANNEL_QUEUE,
        "channel_get_empty_total",
        "Total number of times basic.get operations fetched no message",
        |c| c.figures.count(Count::GetEmpty) as f64,
    ),
];

const CONNECTION_COARSE: &str = "connection_coarse_metrics";
const CONNECTION: &str = "connection_metrics";

const CONNECTIONS: &[Family<Arc<Guest>>] = &[
    counter(
        CONNECTION_COARSE,
        "connection_incoming_bytes_total",
        "Total number of bytes received on a connection",
        |c| c.traffic.received_bytes.load(Ordering::Relaxed) as f64,
    ),
    counter(
        CONNECTION_COARSE,
        "connection_outgoing_bytes_total",
        "Total number of bytes sent on a connection",
        |c| c.traffic.sent_bytes.load(Ordering::Relaxed) as f64,
    ),
    counter(
        CONNECTION,
        "connection_incoming_packets_total",
        "Total number of packets received on a connection",
        |c| c.traffic.reads.load(Ordering::Relaxed) as f64,
    ),
    counter(
        CONNECTION,
        "connection_outgoing_packets_total",
        "Total number of packets sent on a connection",
        |c| c.traffic.writes.load(Ordering::Relaxed) as f64,
    ),
    gauge(
        CONNECTION,
        "connection_pending_packets",
        "Number of bytes waiting to be sent on a connection",
        |c| c.traffic.pending_bytes.load(Ordering::Relaxed) as f64,
    ),
    gauge(CONNECTION, "connection_channels", "Channels on a connection", |c| c.channel_count() as f64),
];

/// Writes the families of a table that are wanted, each with a sample for every object, or their sum.
fn table<T>(
    families: &[Family<T>],
    endpoint: Endpoint,
    wanted: &Wanted,
    objects: &[T],
    labels: impl Fn(&T) -> Vec<(&'static str, String)>,
    text: &mut Text,
) {
    for family in families.iter().filter(|family| wanted.has(family.group)) {
        text.family(family.name, family.kind, family.help);
        if endpoint == Endpoint::Aggregated {
            text.sample(&[], objects.iter().map(family.value).sum());
            continue;
        }
        for object in objects {
            let labels = labels(object);
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            text.sample(&labels, (family.value)(object));
        }
    }
}

/// Everything of objects.
pub fn families(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    queues(broker, endpoint, wanted, text);
    channels(broker, endpoint, wanted, text);
    if wanted.has_any(&[CONNECTION_COARSE, CONNECTION]) {
        let guests = broker.roster.guests();
        table(CONNECTIONS, endpoint, wanted, &guests, |guest| vec![("connection", guest.name())], text);
    }
    if endpoint == Endpoint::Aggregated {
        return;
    }
    exchanges(broker, wanted, text);
    if wanted.has("vhost_status") {
        let prefix = if endpoint == Endpoint::Detailed { "rabbitmq_cluster_" } else { "rabbitmq_" };
        text.family_of(prefix, "vhost_status", Kind::Gauge, "Whether a given vhost is running");
        for vhost in broker.vhosts().iter().filter(|vhost| wanted.has_vhost(vhost.name())) {
            text.sample(&[("vhost", vhost.name())], 1.0);
        }
    }
}

fn queues(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    if !wanted.has_any(&[COARSE, QUEUE, DELIVERY, CONSUMERS]) {
        return;
    }
    let mut looked: Vec<Named> = Vec::new();
    let mut sums = vec![0.0; QUEUES.len()];
    for vhost in broker.vhosts().iter().filter(|vhost| wanted.has_vhost(vhost.name())) {
        for queue in vhost.declared_queues().iter().filter(|queue| wanted.has_queue(queue.name())) {
            let look = Queue { look: queue.look(), persistent: queue.persistent_count() };
            if endpoint == Endpoint::Aggregated {
                sums.iter_mut().zip(QUEUES).for_each(|(sum, family)| *sum += (family.value)(&look));
            } else {
                let declaration = queue.declaration();
                let values = QUEUES.iter().map(|family| (family.value)(&look)).collect();
                looked.push(Named {
                    vhost: declaration.vhost.clone(),
                    name: declaration.name.clone(),
                    values,
                    head_timestamp_secs: look.head.and_then(|(_, timestamp)| timestamp),
                });
            }
        }
    }
    let is_wanted = |group| wanted.has(group) || (group == CONSUMERS && wanted.has(QUEUE));
    for (at, family) in QUEUES.iter().enumerate().filter(|(_, family)| is_wanted(family.group)) {
        text.family(family.name, family.kind, family.help);
        if endpoint == Endpoint::Aggregated {
            text.sample(&[], sums[at]);
        }
        for queue in &looked {
            text.sample(&[("vhost", &queue.vhost), ("queue", &queue.name)], queue.values[at]);
        }
    }
    if wanted.has(QUEUE) && endpoint != Endpoint::Aggregated {
        const HELP: &str = "Timestamp of the first message of the queue, if any";
        text.family("queue_head_message_timestamp", Kind::Gauge, HELP);
        for queue in &looked {
            let labels: &[(&str, &str)] = &[("vhost", &queue.vhost), ("queue", &queue.name)];
            queue.head_timestamp_secs.into_iter().for_each(|secs| text.sample(labels, secs as f64));
        }
    }
}

/// The values of a queue, which was looked at once.
struct Named {
    vhost: Arc<str>,
    name: Arc<str>,
    values: Vec<f64>,
    /// What the first message says of itself.
    head_timestamp_secs: Option<u64>,
}

fn channels(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    if !wanted.has_any(&[CHANNEL, CHANNEL_EXCHANGE, CHANNEL_QUEUE]) {
        return;
    }
    let now_ms = broker.clock().now_ms();
    let mut looked: Vec<Channel> = Vec::new();
    for guest in broker.roster.guests().iter().filter(|guest| wanted.has_vhost(&guest.vhost)) {
        let connection = guest.name();
        let look = |facts: Arc<ChannelFacts>| Channel {
            name: format!("{connection} ({})", facts.number),
            vhost: guest.vhost.clone(),
            standing: facts.standing(),
            figures: facts.tally.figures(now_ms),
        };
        looked.extend(guest.channels().into_iter().map(look));
    }
    let labels =
        |channel: &Channel| vec![("channel", channel.name.clone()), ("vhost", channel.vhost.to_string())];
    table(CHANNELS, endpoint, wanted, &looked, labels, text);
}

fn exchanges(broker: &Broker, wanted: &Wanted, text: &mut Text) {
    let vhosts: Vec<_> = broker.vhosts().into_iter().filter(|vhost| wanted.has_vhost(vhost.name())).collect();
    let now_ms = broker.clock().now_ms();
    let has = |family| wanted.has(family);
    if has("exchange_metrics") {
        text.family(
            "exchange_messages_published_total",
            Kind::Counter,
            "Total number of messages published to an exchange",
        );
        for vhost in &vhosts {
            for (exchange, _) in vhost.exchanges() {
                let name = exchange.name.to_string();
                let published = vhost.exchange_tally(&name).figures(now_ms).count(Count::PublishIn);
                text.sample(&[("vhost", vhost.name()), ("exchange", &name)], published as f64);
            }
        }
    }
    for (family, metric, help) in [
        ("exchange_names", "exchange_name", "Enumerates exchanges without any additional info"),
        ("exchange_bindings", "exchange_bindings", "Number of bindings for an exchange"),
    ] {
        if !has(family) {
            continue;
        }
        text.family_of("rabbitmq_cluster_", metric, Kind::Gauge, help);
        for vhost in &vhosts {
            for (exchange, _) in vhost.exchanges() {
                let name = exchange.name.to_string();
                let value = if family == "exchange_names" { 1 } else { vhost.bindings_from(&name).len() };
                let labels =
                    [("vhost", &**vhost.name()), ("exchange", &name), ("type", exchange.kind.name())];
                text.sample(&labels, value as f64);
            }
        }
    }
}

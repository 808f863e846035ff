//! Metrics of channels, connections, exchanges and vhosts: each for itself, or summed up.
//!
//! A table has a line for every family: its name, and where the value is found. The same line serves all endpoints.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Endpoint;
use super::families::Wanted;
use super::text::{Kind, Text};
use crate::broker::Broker;
use crate::roster::{ChannelFacts, Guest, Standing};
use crate::tally::{Count, Figures};

/// A family: which of RabbitMQ's groups it is in, its name, type, help, and where its value is.
pub struct Family<T: 'static> {
    pub group: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub value: fn(&T) -> f64,
}

pub const fn gauge<T>(
    group: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> f64,
) -> Family<T> {
    Family { group, name, kind: Kind::Gauge, help, value }
}

pub const fn counter<T>(
    group: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> f64,
) -> Family<T> {
    Family { group, name, kind: Kind::Counter, help, value }
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

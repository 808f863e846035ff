//! What RabbitMQ does not tell: how often messages come back, what is held back and what is held by consumers, how long
//! the disk takes, and what the log needs. What is told of queues is in `queues`.

use store::SYNC_CLASSES_US;

use super::Endpoint;
use super::families::Wanted;
use super::node::QUEUE_TYPES;
use super::text::{Kind, Text};
use crate::broker::Broker;
use crate::tally::Count;

/// What its names begin with.
pub const PREFIX: &str = "garenne_";

/// The group that all of it is in.
pub const GROUP: &str = "garenne_metrics";

/// Everything of Garenne's own.
pub fn families(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    if !wanted.has(GROUP) {
        return;
    }
    unacked(broker, endpoint, text);
    delayed(broker, endpoint, wanted, text);
    redeliveries(broker, text);
    store(broker, text);
}

fn unacked(broker: &Broker, endpoint: Endpoint, text: &mut Text) {
    let now_ms = broker.clock().now_ms();
    text.family_of(
        PREFIX,
        "channel_oldest_unacked_seconds",
        Kind::Gauge,
        "How long the oldest delivery of a channel has been unacknowledged",
    );
    let mut max = 0.0_f64;
    for guest in broker.roster.guests() {
        for channel in guest.channels() {
            let since_ms = channel.standing().oldest_unacked_at_ms;
            let age = since_ms.map_or(0.0, |since_ms| now_ms.saturating_sub(since_ms) as f64 / 1000.0);
            max = max.max(age);
            if endpoint != Endpoint::Aggregated {
                let name = format!("{} ({})", guest.name(), channel.number);
                text.sample(&[("channel", &name), ("vhost", &guest.vhost)], age);
            }
        }
    }
    if endpoint == Endpoint::Aggregated {
        text.sample(&[], max);
    }
}

fn delayed(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    text.family_of(PREFIX, "exchange_messages_delayed", Kind::Gauge, "Messages that an exchange holds back");
    let mut sum = 0;
    for vhost in broker.vhosts().iter().filter(|vhost| wanted.has_vhost(vhost.name())) {
        for (exchange, messages) in vhost.delaying_exchanges() {
            sum += messages;
            if endpoint != Endpoint::Aggregated {
                text.sample(&[("vhost", vhost.name()), ("exchange", &exchange)], messages as f64);
            }
        }
    }
    if endpoint == Endpoint::Aggregated {
        text.sample(&[], sum as f64);
    }
}

fn redeliveries(broker: &Broker, text: &mut Text) {
    let now_ms = broker.clock().now_ms();
    text.family_of(
        PREFIX,
        "message_redeliveries",
        Kind::Histogram,
        "How often delivered messages had come back before, where that is counted",
    );
    for (kind, queues) in QUEUE_TYPES.into_iter().zip(&broker.tallies.queues) {
        let figures = queues.figures(now_ms);
        let count = |count| figures.count(count);
        let out = [Count::Deliver, Count::DeliverNoAck, Count::Get, Count::GetNoAck];
        let all: u64 = out.into_iter().map(count).sum();
        let classes = [
            ("0", all.saturating_sub(count(Count::Redeliver))),
            ("1", count(Count::RedeliverOnce)),
            ("5", count(Count::RedeliverFew)),
            ("20", count(Count::RedeliverOften)),
            ("+Inf", count(Count::RedeliverEndlessly)),
        ];
        let mut below = 0;
        for (end, n) in classes {
            below += n;
            text.sample_of("_bucket", &[("queue_type", kind), ("le", end)], below as f64);
        }
        text.sample_of("_count", &[("queue_type", kind)], below as f64);
        // Of each class at least so many: the exact sum is not kept.
        let sum = classes[1].1 + 2 * classes[2].1 + 6 * classes[3].1 + 21 * classes[4].1;
        text.sample_of("_sum", &[("queue_type", kind)], sum as f64);
    }
}

fn store(broker: &Broker, text: &mut Text) {
    let syncs = broker.store().syncs();
    let ends: Vec<String> = SYNC_CLASSES_US.iter().map(|us| format!("{}", *us as f64 / 1e6)).collect();
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    text.family_of(PREFIX, "log_sync_seconds", Kind::Histogram, "How long syncs of the log took");
    text.histogram(&ends, &syncs.classes, syncs.sum_us as f64 / 1e6);
    if let Ok(space) = broker.store().space() {
        text.family_of(
            PREFIX,
            "log_bytes",
            Kind::Gauge,
            "What the log takes on the disk: live messages, and the rest",
        );
        text.sample(&[("kind", "live")], space.live_bytes as f64);
        text.sample(&[("kind", "dead")], space.log_bytes.saturating_sub(space.live_bytes) as f64);
    }
}

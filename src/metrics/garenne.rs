//! What RabbitMQ does not tell: how old the oldest messages are, how long queues take to drain, how often messages
//! come back, what is held back, how long the disk takes, and what the log needs.

use store::SYNC_CLASSES_US;

use super::Endpoint;
use super::families::Wanted;
use super::node::QUEUE_TYPES;
use super::text::{Kind, Text};
use crate::broker::Broker;
use crate::queue::Look;
use crate::tally::Count;

const PREFIX: &str = "garenne_";

/// Everything of Garenne's own.
pub fn families(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    if !wanted.has("garenne_metrics") {
        return;
    }
    queues(broker, endpoint, wanted, text);
    unacked(broker, endpoint, text);
    delayed(broker, endpoint, wanted, text);
    redeliveries(broker, text);
    store(broker, text);
}

/// How long ago the message that is first was taken, in seconds.
fn oldest_secs(look: &Look, now_ms: u64) -> f64 {
    look.head.map_or(0.0, |(taken_at_ms, _)| now_ms.saturating_sub(taken_at_ms) as f64 / 1000.0)
}

/// How long it takes until nothing is ready at the rates of the last seconds; nothing if it never will be.
fn drain_secs(look: &Look) -> Option<f64> {
    if look.ready == 0 {
        return Some(0.0);
    }
    let out = [Count::Deliver, Count::DeliverNoAck, Count::Get, Count::GetNoAck];
    let per_second =
        out.iter().map(|count| look.figures.rate(*count)).sum::<f64>() - look.figures.rate(Count::Publish);
    (per_second > 0.0).then(|| look.ready as f64 / per_second)
}

fn queues(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    let now_ms = broker.clock().now_ms();
    let mut oldest: Vec<(String, String, f64)> = Vec::new();
    let mut drain: Vec<(String, String, f64)> = Vec::new();
    let (mut oldest_max, mut drain_max) = (0.0_f64, 0.0_f64);
    for vhost in broker.vhosts().iter().filter(|vhost| wanted.has_vhost(vhost.name())) {
        for queue in vhost.declared_queues().iter().filter(|queue| wanted.has_queue(queue.name())) {
            let look = queue.look();
            let (age, rest) = (oldest_secs(&look, now_ms), drain_secs(&look));
            oldest_max = oldest_max.max(age);
            drain_max = drain_max.max(rest.unwrap_or(f64::INFINITY));
            if endpoint != Endpoint::Aggregated {
                let (vhost, name) = (vhost.name().to_string(), queue.name().to_string());
                oldest.push((vhost.clone(), name.clone(), age));
                drain.push((vhost, name, rest.unwrap_or(f64::INFINITY)));
            }
        }
    }
    for (name, help, each, max) in [
        (
            "queue_oldest_ready_seconds",
            "How long the first ready message has been with the broker",
            oldest,
            oldest_max,
        ),
        (
            "queue_drain_seconds",
            "How long the ready messages take to leave at the present rates",
            drain,
            drain_max,
        ),
    ] {
        text.family_of(PREFIX, name, Kind::Gauge, help);
        if endpoint == Endpoint::Aggregated {
            text.sample(&[], max);
        }
        for (vhost, queue, value) in each {
            text.sample(&[("vhost", &vhost), ("queue", &queue)], value);
        }
    }
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

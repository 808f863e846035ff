//! Metrics of queues: each is looked at once, for RabbitMQ's families and for our own.

use std::ops::Deref;
use std::sync::Arc;

use super::Endpoint;
use super::families::Wanted;
use super::garenne;
use super::objects::{Family, counter, gauge};
use super::text::{Kind, Text};
use crate::broker::Broker;
use crate::queue::Look;
use crate::tally::Count;

const COARSE: &str = "queue_coarse_metrics";
/// These are in the next one as well.
const CONSUMERS: &str = "queue_consumer_count";
const QUEUE: &str = "queue_metrics";
const DELIVERY: &str = "queue_delivery_metrics";

/// A queue, looked at once.
struct Queue {
    look: Look,
    /// How many of its messages survive a restart, and octets of their bodies; asked for with `queue_metrics`.
    persistent: (u64, u64),
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
    gauge(QUEUE, "queue_messages_persistent", "Persistent messages", |q| q.persistent.0 as f64),
    gauge(QUEUE, "queue_messages_persistent_bytes", "Size in bytes of persistent messages", |q| {
        q.persistent.1 as f64
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

/// What is told of a queue that was looked at, if each is told of for itself.
struct Named {
    vhost: Arc<str>,
    name: Arc<str>,
    /// Of the families of the table.
    values: Vec<f64>,
    /// What the first message says of itself.
    head_timestamp_secs: Option<u64>,
    oldest_secs: f64,
    drain_secs: f64,
}

impl Named {
    fn labels(&self) -> [(&str, &str); 2] {
        [("vhost", &self.vhost), ("queue", &self.name)]
    }
}

/// All queues together.
#[derive(Default)]
struct Sum {
    /// Of the families of the table.
    values: [f64; QUEUES.len()],
    oldest_secs: f64,
    drain_secs: f64,
}

/// Everything of queues.
pub fn families(broker: &Broker, endpoint: Endpoint, wanted: &Wanted, text: &mut Text) {
    if !wanted.has_any(&[COARSE, QUEUE, DELIVERY, CONSUMERS, garenne::GROUP]) {
        return;
    }
    let now_ms = broker.clock().now_ms();
    let is_summed = endpoint == Endpoint::Aggregated;
    let (mut sum, mut each) = (Sum::default(), Vec::new());
    for vhost in broker.vhosts().iter().filter(|vhost| wanted.has_vhost(vhost.name())) {
        for queue in vhost.declared_queues().iter().filter(|queue| wanted.has_queue(queue.name())) {
            let look = queue.look();
            let persistent = if wanted.has(QUEUE) { queue.persistent(&look) } else { (0, 0) };
            let look = Queue { look, persistent };
            let oldest_secs = oldest_secs(&look, now_ms);
            let drain_secs = drain_secs(&look).unwrap_or(f64::INFINITY);
            if is_summed {
                sum.values.iter_mut().zip(QUEUES).for_each(|(sum, family)| *sum += (family.value)(&look));
                sum.oldest_secs = sum.oldest_secs.max(oldest_secs);
                sum.drain_secs = sum.drain_secs.max(drain_secs);
                continue;
            }
            each.push(Named {
                vhost: vhost.name().clone(),
                name: queue.declaration().name.clone(),
                values: QUEUES.iter().map(|family| (family.value)(&look)).collect(),
                head_timestamp_secs: look.head.and_then(|(_, timestamp)| timestamp),
                oldest_secs,
                drain_secs,
            });
        }
    }
    let write = |text: &mut Text, sum: f64, value: &dyn Fn(&Named) -> f64| {
        if is_summed {
            text.sample(&[], sum);
        }
        each.iter().for_each(|queue| text.sample(&queue.labels(), value(queue)));
    };
    let is_wanted = |group| wanted.has(group) || (group == CONSUMERS && wanted.has(QUEUE));
    for (at, family) in QUEUES.iter().enumerate().filter(|(_, family)| is_wanted(family.group)) {
        text.family(family.name, family.kind, family.help);
        write(text, sum.values[at], &|queue| queue.values[at]);
    }
    if wanted.has(QUEUE) && !is_summed {
        const HELP: &str = "Timestamp of the first message of the queue, if any";
        text.family("queue_head_message_timestamp", Kind::Gauge, HELP);
        for queue in &each {
            queue.head_timestamp_secs.into_iter().for_each(|secs| text.sample(&queue.labels(), secs as f64));
        }
    }
    if wanted.has(garenne::GROUP) {
        const OLDEST: &str = "How long the first ready message has been with the broker";
        text.family_of(garenne::PREFIX, "queue_oldest_ready_seconds", Kind::Gauge, OLDEST);
        write(text, sum.oldest_secs, &|queue| queue.oldest_secs);
        const DRAIN: &str = "How long the ready messages take to leave at the present rates";
        text.family_of(garenne::PREFIX, "queue_drain_seconds", Kind::Gauge, DRAIN);
        write(text, sum.drain_secs, &|queue| queue.drain_secs);
    }
}

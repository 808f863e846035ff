//! Deliveries that a consumer has kept for longer than it may: they go back to their queue, and the consumer
//! ends. Its other deliveries, and the channel, go on.

use tracing::warn;

use super::{Channel, Context};
use crate::delivery::ConsumerId;
use crate::queue::Return;

/// How long consumers of a channel may keep deliveries.
#[derive(Debug, Default)]
pub struct Patience {
    /// When one may have been kept too long, in milliseconds since 1970.
    look_at_ms: Option<u64>,
}

impl Patience {
    /// A delivery has gone to a consumer that may keep it until then.
    pub fn delivered(&mut self, until_ms: u64) {
        self.look_at_ms = Some(self.look_at_ms.map_or(until_ms, |at_ms| at_ms.min(until_ms)));
    }
}

impl Channel {
    /// When to look for late deliveries next, in milliseconds since 1970.
    pub fn look_at_ms(&self) -> Option<u64> {
        self.patience.look_at_ms
    }

    /// Takes back what has been kept too long, and names the consumers that are to end for it.
    pub fn take_late(&mut self, context: &mut Context<'_>) -> Vec<ConsumerId> {
        let now_ms = context.now_ms;
        if self.patience.look_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return Vec::new();
        }
        self.patience.look_at_ms = None;
        let mut late = Vec::new();
        for (tag, unacked) in self.unacked.iter() {
            let consumer = unacked.consumer.and_then(|id| self.consumers.get(&id));
            let Some(timeout_ms) = consumer.and_then(|consumer| consumer.timeout_ms) else { continue };
            let until_ms = unacked.since_ms.saturating_add(timeout_ms);
            match until_ms <= now_ms {
                true => late.push(tag),
                false => self.patience.delivered(until_ms),
            }
        }
        let mut ended: Vec<ConsumerId> = Vec::new();
        for tag in late {
            let Some(unacked) = self.unacked.take(tag) else { continue };
            // Its consumer may still settle it, and does not know better.
            self.taken_back.insert(tag);
            self.return_credit(&unacked);
            if let Some(id) = unacked.consumer.filter(|id| !ended.contains(id)) {
                let tag = self.consumers.get(&id).map_or("", |consumer| &consumer.tag);
                warn!(
                    queue = ?unacked.queue, consumer = tag, peer = %context.guest.peer, channel = self.number,
                    age_ms = now_ms.saturating_sub(unacked.since_ms),
                    "a consumer has not settled a delivery in time: it is cancelled, and the delivery goes back"
                );
                // Whoever takes over begins with what goes back.
                unacked.queue.stop(id);
                ended.push(id);
            }
            context.requeues.push((unacked, Return::Failed));
        }
        ended
    }

    /// The consumers of a queue may now keep deliveries for so long, unless they said it themselves.
    pub fn set_timeout(&mut self, id: ConsumerId, timeout_ms: Option<u64>, now_ms: u64) {
        let Some(consumer) = self.consumers.get_mut(&id).filter(|consumer| !consumer.has_own_timeout) else {
            return;
        };
        consumer.timeout_ms = timeout_ms;
        if timeout_ms.is_some() {
            // What it has already is looked at, too.
            self.patience.delivered(now_ms);
        }
    }
}

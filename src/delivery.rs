//! A message on its way to a consumer, and the credit a channel's consumers share.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use store::Seq;

use crate::message::Message;

/// A consumer's number, unique in the broker while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// A connection's number, unique in the broker while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// As others are told of it, where RabbitMQ has the number of a process.
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<connection.{}>", self.0)
    }
}

/// Whether the store has a message, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is in memory alone.
    No,
    /// It is persistent and its queue is durable: it survives a restart.
    Kept,
    /// Memory was short: the store has it, but it does not survive a restart.
    Spilled,
}

/// Where a message stands in its queue: the line of its priority, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The line; 0 is the lowest priority, and the only line of most queues.
    pub level: u8,
    /// The number in that line.
    pub seq: Seq,
}

/// How often a message has come back to its queue. Both stop at 65,535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    /// However it came back: `x-acquired-count`.
    pub acquired: u16,
    /// After what counts as a failure: `x-delivery-count`.
    pub failed: u16,
}

impl Returns {
    /// As the store keeps them.
    pub fn to_mark(self) -> u64 {
        u64::from(self.acquired) | u64::from(self.failed) << 16
    }

    /// As the store has kept them.
    pub fn from_mark(mark: u64) -> Returns {
        Returns { acquired: mark as u16, failed: (mark >> 16) as u16 }
    }
}

/// A message in a queue, or out of it and not yet settled.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number in its line.
    pub seq: Seq,
    /// Its line.
    pub level: u8,
    /// How often it has come back, if its queue counts that.
    pub returns: Returns,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Whether the store has it.
    pub stored: Stored,
    /// When it is no longer to be delivered, in milliseconds since 1970; `u64::MAX` for never.
    pub expires_at_ms: u64,
    /// What it says.
    pub message: Arc<Message>,
}

impl Entry {
    /// Where it stands in its queue.
    pub fn place(&self) -> Place {
        Place { level: self.level, seq: self.seq }
    }
}

/// A message on its way from a queue to the connection of a consumer.
#[derive(Debug)]
pub struct Delivery {
    /// The consumer's channel.
    pub channel: u16,
    /// The consumer.
    pub consumer: ConsumerId,
    /// The message, which the channel now owns until it is settled.
    pub entry: Entry,
}

/// What is called when a consumer that could take no more can take again.
pub trait Resume: Send + Sync {
    /// Delivers to the consumer what has been waiting.
    fn resume(&self, consumer: ConsumerId);
}

/// A consumer of a queue that waits, and whom to tell when it need not.
pub type Waiting = (Arc<dyn Resume>, ConsumerId);

/// The prefetch limit over all consumers of a channel (basic.qos with global=true).
#[derive(Debug, Default)]
pub struct ChannelCredit {
    /// 0 is no limit.
    limit: AtomicU32,
    used: AtomicU32,
    waiting: Mutex<WaitingList>,
}

#[derive(Default)]
struct WaitingList(Vec<Waiting>);

impl std::fmt::Debug for WaitingList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiting", self.0.len())
    }
}

impl ChannelCredit {
    /// Takes one, or remembers `waiting` for when there is one again.
    pub fn take(&self, waiting: impl FnOnce() -> Waiting) -> bool {
        if self.try_take() {
            return true;
        }
        let mut list = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at again under the lock that whoever gives back takes to find the waiting: either it
        // sees this consumer in the list, or this consumer sees what it gave back.
        if self.try_take() {
            return true;
        }
        list.0.push(waiting());
        false
    }

    fn try_take(&self) -> bool {
        let take = |used| {
            let limit = self.limit.load(Ordering::SeqCst);
            (limit == 0 || used < limit).then_some(used + 1)
        };
        // Never counted up and down again: somebody who gives back must not see credit in use that is not.
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Gives `n` back. The caller resumes whoever is returned, once it holds no lock.
    #[must_use]
    pub fn give_back(&self, n: u32) -> Vec<Waiting> {
        self.used.fetch_sub(n, Ordering::SeqCst);
        self.wake_if_room()
    }

    /// The limit; 0 is none.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::SeqCst)
    }

    /// Sets the limit; 0 is none. The caller resumes whoever is returned.
    #[must_use]
    pub fn set_limit(&self, limit: u16) -> Vec<Waiting> {
        self.limit.store(limit.into(), Ordering::SeqCst);
        self.wake_if_room()
    }

    fn wake_if_room(&self) -> Vec<Waiting> {
        let limit = self.limit.load(Ordering::SeqCst);
        if limit != 0 && self.used.load(Ordering::SeqCst) >= limit {
            return Vec::new();
        }
        let mut list = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut list.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;
    impl Resume for Nobody {
        fn resume(&self, _: ConsumerId) {}
    }

    fn waiting(id: u64) -> Waiting {
        (Arc::new(Nobody), ConsumerId(id))
    }

    #[test]
    fn a_consumer_without_credit_is_remembered_until_some_comes_back() {
        let credit = ChannelCredit::default();
        assert!(credit.set_limit(1).is_empty());

        assert!(credit.take(|| waiting(1)));
        assert!(!credit.take(|| waiting(2)));

        let woken = credit.give_back(1);
        assert_eq!(woken.iter().map(|w| w.1).collect::<Vec<_>>(), [ConsumerId(2)]);
    }

    #[test]
    fn a_limit_below_what_is_out_stops_delivery_until_below() {
        let credit = ChannelCredit::default();
        assert!((0..3).all(|_| credit.take(|| waiting(1))));
        assert!(credit.set_limit(2).is_empty());

        assert!(!credit.take(|| waiting(1)));
        assert!(credit.give_back(1).is_empty());
        assert_eq!(credit.give_back(1).len(), 1);
        assert!(credit.take(|| waiting(1)));
    }
}

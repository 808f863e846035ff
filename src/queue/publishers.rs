//! Publishers that are faster than the consumers of a queue, and wait for them.
//!
//! Consumers that take all they are given and find nothing new would be left behind by publishers that
//! are many: the broker would spend its time on taking in what it has no time to give out. So a
//! publisher that is ahead is not read until the consumers have caught up. A consumer that is slow
//! itself (its socket is full, or it has as many unacknowledged messages as it wants) holds nobody up.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::outbox::Outbox;

/// So many octets of ready messages are no reason for a publisher to wait.
pub const AHEAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The connections that wait, the longest first. They look again by themselves now and then: that a
/// consumer has become slow is nobody's business to tell the queue.
#[derive(Debug, Default)]
pub struct Publishers(VecDeque<Arc<Outbox>>);

impl Publishers {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more waits.
    pub fn hold(&mut self, publisher: &Arc<Outbox>) {
        self.0.push_back(publisher.clone());
    }

    /// Whether this one still waits.
    pub fn holds(&self, publisher: &Arc<Outbox>) -> bool {
        self.0.iter().any(|other| Arc::ptr_eq(other, publisher))
    }

    /// This one waits no more.
    pub fn forget(&mut self, publisher: &Arc<Outbox>) {
        self.0.retain(|other| !Arc::ptr_eq(other, publisher));
    }

    /// Lets the first `n` go; they are to be rung.
    pub fn release(&mut self, n: usize, ring: &mut Vec<Arc<Outbox>>) {
        let n = n.min(self.0.len());
        ring.extend(self.0.drain(..n));
    }
}

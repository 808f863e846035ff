//! What is counted of a queue for as long as the broker runs.

use std::sync::atomic::{AtomicU64, Ordering};

use super::departure::Reason;

/// Why a message that left its queue reached no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The dead letter exchange is not there.
    NoExchange,
    /// It led nowhere.
    NoRoute,
    /// It led back to where the message had been, with nobody having rejected it in between.
    Cycle,
    /// The queues that it led to had no room, or went away.
    NoRoom,
}

impl Lost {
    /// In words, for the log.
    pub fn text(self) -> &'static str {
        match self {
            Lost::NoExchange => "the dead letter exchange does not exist",
            Lost::NoRoute => "the dead letter exchange has no route for it",
            Lost::Cycle => "it has been there before, and nobody rejected it in between",
            Lost::NoRoom => "the queue it is routed to has no room, or is gone",
        }
    }
}

/// Messages that left a queue though nobody was done with them.
#[derive(Debug, Default)]
pub struct Counters {
    dead_lettered: [AtomicU64; 4],
    lost: [AtomicU64; 4],
}

impl Counters {
    /// One went to another queue.
    pub fn dead_lettered(&self, reason: Reason) {
        self.dead_lettered[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many went to other queues for this reason.
    pub fn dead_lettered_count(&self, reason: Reason) -> u64 {
        self.dead_lettered[reason as usize].load(Ordering::Relaxed)
    }

    /// One reached no other queue. True for the first time that this is why.
    pub fn lost(&self, why: Lost) -> bool {
        self.lost[why as usize].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// So many reached no other queue, and this is why.
    pub fn lost_count(&self, why: Lost) -> u64 {
        self.lost[why as usize].load(Ordering::Relaxed)
    }
}

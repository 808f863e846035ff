//! How much memory waiting messages may take, and how much of it is a queue's share.
//!
//! While there is room, queues keep everything. Beyond that each keeps its share, and leaves the rest to
//! the store, which has it anyway.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A queue keeps at least so much of its messages, in octets: enough to deliver from while more is read.
const SHARE_BYTES_MIN: usize = 64 * 1024;
/// More than this at once is of no use to a queue.
const SHARE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most that is read at once.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The memory of all queues. They say what they use, once for each batch.
#[derive(Debug)]
pub struct Memory {
    bytes_max: usize,
    /// Above this even messages that the store does not have are written to it.
    spill_bytes: usize,
    used_bytes: AtomicUsize,
    queues: AtomicUsize,
}

impl Memory {
    /// `bytes_max` octets for all queues together before they leave to the store what it has, and
    /// `spill_bytes` before it is given the rest.
    pub fn new(bytes_max: usize, spill_bytes: usize) -> Self {
        Memory { bytes_max, spill_bytes, used_bytes: AtomicUsize::new(0), queues: AtomicUsize::new(0) }
    }

    /// There is one queue more.
    pub fn enter(&self) {
        self.queues.fetch_add(1, Ordering::Relaxed);
    }

    /// There is one queue less, which used `bytes`.
    pub fn leave(&self, bytes: usize) {
        self.queues.fetch_sub(1, Ordering::Relaxed);
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A queue that used `before` octets uses `now`.
    pub fn changed(&self, before: usize, now: usize) {
        if now > before {
            self.used_bytes.fetch_add(now - before, Ordering::Relaxed);
        } else if now < before {
            self.used_bytes.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// What the queues use, in octets.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether the queues use more than they may.
    pub fn is_short(&self) -> bool {
        self.used_bytes.load(Ordering::Relaxed) > self.bytes_max
    }

    /// What a queue may keep now, in octets.
    pub fn share_bytes(&self) -> usize {
        if !self.is_short() {
            return usize::MAX;
        }
        self.per_queue(self.bytes_max / 2).clamp(SHARE_BYTES_MIN.min(self.bytes_max), SHARE_BYTES_MAX)
    }

    /// Whether the queues use so much that spilling does not keep up, and publishers have to be slower.
    pub fn is_over(&self) -> bool {
        self.used_bytes.load(Ordering::Relaxed) > self.spill_bytes.saturating_add(self.spill_bytes / 2)
    }

    /// What a queue may keep now of messages that the store does not have, in octets.
    pub fn unstored_share_bytes(&self) -> usize {
        if self.used_bytes.load(Ordering::Relaxed) <= self.spill_bytes {
            return usize::MAX;
        }
        self.per_queue(self.spill_bytes / 2).max(SHARE_BYTES_MIN.min(self.spill_bytes))
    }

    /// How much a queue may have read at once, in octets.
    pub fn page_bytes(&self) -> usize {
        self.per_queue(self.bytes_max / 4).clamp(SHARE_BYTES_MIN.min(self.bytes_max), PAGE_BYTES_MAX)
    }

    fn per_queue(&self, bytes: usize) -> usize {
        bytes / self.queues.load(Ordering::Relaxed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_everything_until_memory_is_short() {
        let memory = Memory::new(100 << 20, usize::MAX);
        (0..100).for_each(|_| memory.enter());
        memory.changed(0, 60 << 20);
        assert_eq!(memory.share_bytes(), usize::MAX);

        memory.changed(0, 50 << 20);
        assert_eq!((memory.share_bytes(), memory.page_bytes()), (512 << 10, 256 << 10));

        (0..100_000).for_each(|_| memory.enter());
        assert_eq!(memory.share_bytes(), SHARE_BYTES_MIN);
        memory.leave(20 << 20);
        assert_eq!(memory.share_bytes(), usize::MAX);
    }

    #[test]
    fn nothing_is_spilled_before_there_is_need() {
        let memory = Memory::new(1 << 20, 100 << 20);
        (0..10).for_each(|_| memory.enter());
        memory.changed(0, 100 << 20);
        assert_eq!(memory.unstored_share_bytes(), usize::MAX);

        memory.changed(0, 1);
        assert_eq!((memory.unstored_share_bytes(), memory.is_over()), (5 << 20, false));
        memory.changed(0, 50 << 20);
        assert!(memory.is_over());
    }
}

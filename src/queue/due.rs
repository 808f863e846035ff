//! When messages of a line are due that have a time to live of their own, wherever they stand.
//!
//! The store lists messages in the order of their time, so only those that are due next are in memory; the
//! others are asked for when most of these are gone:
//!
//! ```text
//!     near (in memory) │ horizon │ in the store, and `fresh` while it may not know them yet ──> time
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use store::{Seq, Ticket};

use crate::delivery::{Entry, Stored};
use crate::message::Message;

/// A time in milliseconds since 1970, and which message is due then.
pub type Time = (u64, Seq);

/// Behind everything.
pub const NEVER: Time = (u64::MAX, Seq(u64::MAX));

/// So many messages that are due next are in memory, at most.
const NEAR_MAX: usize = 65_536;

/// When messages are due.
#[derive(Debug)]
pub struct Due {
    /// Those of the store's messages that are due up to the horizon. What is not ready any more may still be in
    /// here; what is ready and due by then is.
    near: BTreeSet<Time>,
    horizon: Time,
    near_max: usize,
    /// What is due up to here has been taken, unless it came since. Never behind the horizon.
    taken: Time,
    /// Messages behind the horizon that came when the store may not have known them.
    fresh: VecDeque<(Time, Arc<Message>)>,
    /// Those that the store does not have, or has for want of memory.
    unkept: BTreeSet<Time>,
    /// Taken out before their time, each by a message that is stored when the store knows of it. Until then it
    /// lists them still.
    withdrawn: VecDeque<(Time, Arc<Message>)>,
    /// The store has been asked for what is behind this time, which was the horizon then.
    asked: Option<Time>,
}

impl Default for Due {
    fn default() -> Due {
        Due::with_room(NEAR_MAX)
    }
}

impl Due {
    /// Nothing is due. So many messages may be in memory that the store can list.
    pub fn with_room(near_max: usize) -> Due {
        Due {
            near: BTreeSet::new(),
            horizon: NEVER,
            near_max,
            taken: (0, Seq(0)),
            fresh: VecDeque::new(),
            unkept: BTreeSet::new(),
            withdrawn: VecDeque::new(),
            asked: None,
        }
    }

    /// The store has messages from before a start, the first of which may be due at `first_ms`.
    pub fn restore(&mut self, first_ms: Option<u64>) {
        if let Some(first_ms) = first_ms {
            // No message has the number 0.
            self.horizon = (first_ms, Seq(0));
        }
    }

    /// A message is ready.
    #[inline]
    pub fn insert(&mut self, entry: &Entry) {
        // Most messages have no time of their own.
        if let Some(at_ms) = entry.message.expires_at_ms() {
            self.insert_at((at_ms, entry.seq), entry);
        }
    }

    fn insert_at(&mut self, time: Time, entry: &Entry) {
        if entry.stored != Stored::Kept {
            self.unkept.insert(time);
            return;
        }
        self.fresh.push_back((time, entry.message.clone()));
        if time <= self.horizon {
            self.near.insert(time);
            self.leave_far();
        }
    }

    /// Leaves to the store what is due last, if there is too much.
    fn leave_far(&mut self) {
        if self.near.len() <= self.near_max {
            return;
        }
        while self.near.len() > self.near_max / 2 && self.near.last().is_some_and(|last| *last > self.taken) {
            self.near.pop_last();
        }
        self.horizon = self.near.last().copied().unwrap_or_default().max(self.taken);
    }

    /// A message is not ready any more.
    #[inline]
    pub fn remove(&mut self, entry: &Entry) {
        if let Some(at_ms) = entry.message.expires_at_ms() {
            self.remove_at((at_ms, entry.seq), entry);
        }
    }

    fn remove_at(&mut self, time: Time, entry: &Entry) {
        match entry.stored {
            Stored::Kept => self.near.remove(&time),
            Stored::No | Stored::Spilled => self.unkept.remove(&time),
        };
    }

    /// Whether a message may be ready that is due at this time. One that is not there any more has been taken
    /// by its time, or withdrawn.
    pub fn has(&self, time: Time) -> bool {
        match time <= self.horizon {
            true => self.near.contains(&time) || self.unkept.contains(&time),
            false => self.withdrawn.iter().all(|(other, _)| *other != time),
        }
    }

    /// Takes a message out before its time. True if the store keeps it, and lists it until `by` is stored.
    pub fn withdraw(&mut self, time: Time, by: &Arc<Message>) -> bool {
        if self.unkept.remove(&time) {
            return false;
        }
        self.near.remove(&time);
        self.fresh.retain(|(fresh, _)| *fresh != time);
        self.withdrawn.push_back((time, by.clone()));
        true
    }

    /// What is due behind a time and the store does not list, or not yet: up to so many, in order. It need not be
    /// ready.
    pub fn unlisted(&self, after: Time, max: usize) -> Vec<Time> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let fresh = self.fresh.iter().map(|(time, _)| *time).filter(|time| *time > after);
        let mut times: Vec<Time> = self.unkept.range(behind).take(max).copied().chain(fresh).collect();
        times.sort_unstable();
        times.dedup();
        times.truncate(max);
        times
    }

    /// Nothing is ready any more.
    pub fn clear(&mut self) {
        self.near.clear();
        self.unkept.clear();
        self.fresh.clear();
    }

    /// Whether a message that the store brings is not ready any more: it was due while it was away.
    pub fn is_over(&self, entry: &Entry) -> bool {
        let Some(at_ms) = entry.message.expires_at_ms() else { return false };
        let time = (at_ms, entry.seq);
        match entry.stored {
            Stored::Kept => time <= self.horizon && !self.near.contains(&time),
            Stored::No | Stored::Spilled => !self.unkept.contains(&time),
        }
    }

    /// When something is due next, so far as that is known.
    pub fn first_ms(&self) -> Option<u64> {
        [self.near.first(), self.unkept.first()].into_iter().flatten().map(|(at_ms, _)| *at_ms).min()
    }

    /// What is due up to this time is known.
    pub fn known_ms(&self) -> u64 {
        self.horizon.0
    }

    /// Takes what is due first, by `now_ms`. It need not be ready.
    pub fn pop(&mut self, now_ms: u64) -> Option<Seq> {
        let (near, unkept) = (self.near.first().copied(), self.unkept.first().copied());
        let first = [near, unkept].into_iter().flatten().min().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        if near == Some(first) {
            self.near.pop_first();
            self.taken = self.taken.max(first);
        } else {
            self.unkept.pop_first();
        }
        Some(first.1)
    }

    /// The store lists what was appended up to `applied`.
    pub fn is_applied(&mut self, applied: Ticket) {
        // What it listed while it did not know a message is not told yet.
        while self.asked.is_none()
            && self.fresh.front().is_some_and(|(_, message)| message.is_applied(applied))
        {
            self.fresh.pop_front();
        }
        while self.asked.is_none() && self.withdrawn.front().is_some_and(|(_, by)| by.is_applied(applied)) {
            self.withdrawn.pop_front();
        }
    }

    /// Behind which time the store should list what is due next; nothing if enough is known, or it has been
    /// asked.
    pub fn wanted(&mut self) -> Option<Time> {
        if self.asked.is_some() || self.horizon == NEVER || self.near.len() > self.near_max / 4 {
            return None;
        }
        self.asked = Some(self.horizon);
        self.asked
    }

    /// How many the store should list at once.
    pub fn page(&self) -> usize {
        self.near_max / 2
    }

    /// The store has listed what is due behind the horizon.
    pub fn listed(&mut self, entries: Vec<Time>, through: Time) {
        let before = self.horizon;
        if self.asked.take() != Some(before) {
            // It has come nearer since then.
            return;
        }
        let is_there = |time: &Time| self.withdrawn.iter().all(|(withdrawn, _)| withdrawn != time);
        self.near.extend(entries.into_iter().filter(is_there));
        self.horizon = through;
        let fresh = self.fresh.iter().map(|(time, _)| *time);
        let missed: Vec<Time> = fresh.filter(|time| *time > before && *time <= through).collect();
        self.near.extend(missed);
        self.leave_far();
    }
}

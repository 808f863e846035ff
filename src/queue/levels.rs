//! The ready messages of a queue by priority: a line each, of which the highest comes first.
//!
//! A line has numbers of its own, and is a queue of its own to the store, so that the order of a priority queue
//! is found again after a start without looking at its messages. Most queues have one line.

use std::sync::Arc;

use smallvec::SmallVec;
use store::{Run, Seq, Ticket};

use super::ready::Ready;
use crate::delivery::{Entry, Place};
use crate::message::Message;

/// The lines of a queue. There is always one.
#[derive(Debug)]
pub struct Levels(SmallVec<[Level; 1]>);

/// One line, and what is known of it beside its messages.
#[derive(Debug)]
pub struct Level {
    /// The messages.
    pub ready: Ready,
    next_seq: u64,
    /// Messages from before the start may have been delivered before it, up to here.
    pub delivered_below: Seq,
    /// The store has been told that messages up to here were delivered.
    pub marked_delivered: u64,
    /// The store has been asked for messages.
    pub is_reading: bool,
    /// The bodies of those that are away are being counted: they stay where they are until that is done.
    pub is_counting: bool,
}

impl Level {
    fn new(next_seq: Seq) -> Level {
        Level {
            ready: Ready::default(),
            next_seq: next_seq.0,
            delivered_below: Seq(0),
            marked_delivered: 0,
            is_reading: false,
            is_counting: false,
        }
    }

    /// Takes numbers for `n` messages.
    pub fn reserve(&mut self, n: usize) -> Seq {
        let first = self.next_seq;
        self.next_seq += n as u64;
        Seq(first)
    }

    /// The messages of before a start; they stay in the store until somebody wants them.
    pub fn restore(&mut self, recovered: &store::RecoveredQueue) {
        self.next_seq = recovered.next_seq.0;
        self.delivered_below = recovered.delivered_below;
        if recovered.live > 0 {
            let run = Run { first: recovered.first, last: Seq(recovered.next_seq.0 - 1) };
            self.ready.restore(run, recovered.live, recovered.first_due_ms);
        }
    }
}

impl Levels {
    /// So many empty lines, at least one.
    pub fn new(n: usize) -> Levels {
        Levels((0..n.max(1)).map(|_| Level::new(Seq(1))).collect())
    }

    /// Makes sure that there are so many lines. None is ever taken away.
    pub fn grow(&mut self, n: usize) {
        while self.0.len() < n {
            self.0.push(Level::new(Seq(1)));
        }
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// The line for messages of this priority.
    pub fn of(&self, priority: u8) -> u8 {
        usize::from(priority).min(self.0.len() - 1) as u8
    }

    /// A line.
    pub fn at(&mut self, level: u8) -> &mut Level {
        let last = self.0.len() - 1;
        &mut self.0[usize::from(level).min(last)]
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A line, to be looked at.
    pub fn line(&self, level: u8) -> Option<&Ready> {
        self.0.get(usize::from(level)).map(|line| &line.ready)
    }

    /// Below which number messages of a line may have been delivered before the start.
    pub fn delivered_below(&self, level: u8) -> Option<Seq> {
        self.0.get(usize::from(level)).map(|line| line.delivered_below)
    }

    /// Every line with its number, the lowest first.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (u8, &mut Level)> {
        self.0.iter_mut().enumerate().map(|(level, line)| (level as u8, line))
    }

    /// Whether the bodies of some line have still to be counted.
    pub fn are_uncounted(&self) -> bool {
        self.lines().any(Ready::is_uncounted)
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = &Ready> {
        self.0.iter().map(|level| &level.ready)
    }

    /// How many messages are ready.
    pub fn len(&self) -> usize {
        self.lines().map(Ready::len).sum()
    }

    /// How many of them are in the store and not in memory.
    pub fn away_count(&self) -> usize {
        self.lines().map(Ready::away_count).sum()
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.lines().all(Ready::is_empty)
    }

    /// What is in memory takes so many octets, about.
    pub fn bytes(&self) -> usize {
        self.lines().map(Ready::bytes).sum()
    }

    /// What is in memory and could be away, in octets, about.
    pub fn stored_bytes(&self) -> usize {
        self.lines().map(Ready::stored_bytes).sum()
    }

    /// Octets of all bodies, so far as they are known; see [`Ready::is_uncounted`].
    pub fn body_bytes(&self) -> u64 {
        self.lines().map(Ready::body_bytes).sum()
    }

    /// The highest line with messages.
    fn top(&mut self) -> &mut Ready {
        // Most queues have one line, and this is asked for every message.
        let at = match self.0.len() {
            1 => 0,
            _ => self.0.iter().rposition(|level| !level.ready.is_empty()).unwrap_or(0),
        };
        &mut self.0[at].ready
    }

    /// Adds a new message, or puts one back at its place.
    pub fn insert(&mut self, entry: Entry) {
        self.at(entry.level).ready.insert(entry);
    }

    /// Takes the first message of the highest line. `None` if there is none, or it is away.
    pub fn pop(&mut self) -> Option<Entry> {
        self.top().pop()
    }

    /// The first message of the highest line that has any. `None` if there is none, or it is away.
    pub fn head(&self) -> Option<&Arc<Message>> {
        let top = self.lines().rev().find(|line| !line.is_empty())?;
        top.first().map(|entry| &entry.message)
    }

    /// Whether [`Levels::pop`] would take one.
    pub fn has_next(&mut self) -> bool {
        self.top().has_next()
    }

    /// Whether the first message of some line is away.
    pub fn has_unseen_head(&self) -> bool {
        self.lines().any(|line| !line.is_empty() && !line.has_next())
    }

    /// When the message that [`Levels::pop`] would take expires; `u64::MAX` for never.
    pub fn next_expires_at_ms(&mut self) -> Option<u64> {
        self.top().next_expires_at_ms()
    }

    /// When the next message is due to expire, so far as that is known.
    pub fn next_due(&self) -> Option<u64> {
        self.lines().filter_map(Ready::next_due).min()
    }

    /// Takes the message that is due first, by `now_ms`: where it stood, and itself unless it is away.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<(Place, Option<Entry>)> {
        let due = |(at, level): (usize, &Level)| level.ready.next_due().map(|due_ms| (due_ms, at));
        // The highest of those that are due at the same time.
        let lines = self.0.iter().enumerate().rev();
        let (due_ms, at) = lines.filter_map(due).min_by_key(|(due_ms, _)| *due_ms)?;
        if due_ms > now_ms {
            return None;
        }
        let (seq, here) = self.0[at].ready.pop_expired(now_ms)?;
        Some((Place { level: at as u8, seq }, here))
    }

    /// Lets go of messages in the middle of each line until all lines together take no more than `keep_bytes`,
    /// as [`Ready::page_out`] does.
    pub fn page_out(&mut self, keep_bytes: usize, applied: Ticket, spills: bool) {
        let share = self.share(keep_bytes);
        let lines = self.0.iter_mut().filter(|level| !level.is_counting);
        lines.for_each(|level| level.ready.page_out(share, applied, spills));
    }

    /// Up to `bytes_max` octets of messages that the store is to be given, as [`Ready::spill`] takes them.
    pub fn spill(&mut self, keep_bytes: usize, bytes_max: usize) -> Vec<(Place, Arc<Message>)> {
        let (keep_bytes, bytes_max) = (self.share(keep_bytes), self.share(bytes_max));
        let mut batch = Vec::new();
        for (level, line) in self.iter_mut() {
            let of_line = line.ready.spill(keep_bytes, bytes_max);
            batch.extend(of_line.into_iter().map(|(seq, message)| (Place { level, seq }, message)));
        }
        batch
    }

    /// What one of the lines that have messages may take of `bytes`.
    fn share(&self, bytes: usize) -> usize {
        bytes / self.lines().filter(|line| !line.is_empty()).count().max(1)
    }
}

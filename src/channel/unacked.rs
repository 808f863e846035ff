//! Deliveries of a channel that wait for an acknowledgement: tags and what they stand for.

use std::collections::VecDeque;

use crate::delivery::{ConsumerId, Entry};
use crate::queue;

/// A delivered message that is not yet settled.
#[derive(Debug)]
pub struct Unacked {
    /// Where it came from.
    pub queue: queue::Handle,
    /// Who got it; nobody if it was taken by basic.get.
    pub consumer: Option<ConsumerId>,
    /// When it was handed out, in milliseconds since 1970.
    pub since_ms: u64,
    /// The message.
    pub entry: Entry,
}

/// The unsettled deliveries of a channel, by tag. Tags only grow, so this is a line with gaps: the gaps
/// at the front are dropped at once, those in the middle when they are the most of it.
#[derive(Debug, Default)]
pub struct UnackedList {
    line: VecDeque<(u64, Option<Unacked>)>,
    gaps: usize,
}

const GAPS_MIN: usize = 1024;

impl UnackedList {
    /// Adds a delivery. Its tag is higher than all before.
    pub fn push(&mut self, tag: u64, unacked: Unacked) {
        debug_assert!(self.line.back().is_none_or(|(last, _)| *last < tag));
        self.line.push_back((tag, Some(unacked)));
    }

    /// Takes the delivery of this tag.
    pub fn take(&mut self, tag: u64) -> Option<Unacked> {
        let at = self.position(tag)?;
        let unacked = self.line[at].1.take()?;
        self.gaps += 1;
        self.tidy();
        Some(unacked)
    }

    /// Takes all deliveries up to this tag, oldest first; `None` for the tag takes all there are.
    pub fn take_through(&mut self, tag: Option<u64>) -> impl Iterator<Item = (u64, Unacked)> {
        let end = match tag {
            None => self.line.len(),
            Some(tag) => self.line.partition_point(|(t, _)| *t <= tag),
        };
        let taken = self.line.iter().take(end).filter(|(_, u)| u.is_none()).count();
        self.gaps -= taken;
        self.line.drain(..end).filter_map(|(tag, unacked)| Some((tag, unacked?)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.line.len() - self.gaps
    }

    /// The oldest. The first of the line is no gap.
    pub fn first(&self) -> Option<&Unacked> {
        self.line.front()?.1.as_ref()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Unacked)> {
        self.line.iter().filter_map(|(tag, unacked)| Some((*tag, unacked.as_ref()?)))
    }

    /// Whether this tag is waiting for an acknowledgement.
    pub fn contains(&self, tag: u64) -> bool {
        self.position(tag).is_some_and(|at| self.line[at].1.is_some())
    }

    /// Puts deliveries back that were taken, under their old tags.
    pub fn put_back(&mut self, taken: impl IntoIterator<Item = (u64, Unacked)>) {
        let mut all: Vec<(u64, Option<Unacked>)> =
            self.line.drain(..).filter(|(_, unacked)| unacked.is_some()).collect();
        all.extend(taken.into_iter().map(|(tag, unacked)| (tag, Some(unacked))));
        all.sort_by_key(|(tag, _)| *tag);
        self.line = all.into();
        self.gaps = 0;
    }

    fn position(&self, tag: u64) -> Option<usize> {
        // Without gaps dropped from the middle, the place follows from the first tag.
        let guess = tag.checked_sub(self.line.front()?.0)? as usize;
        if self.line.get(guess).is_some_and(|(t, _)| *t == tag) {
            return Some(guess);
        }
        self.line.binary_search_by_key(&tag, |(t, _)| *t).ok()
    }

    fn tidy(&mut self) {
        while self.line.front().is_some_and(|(_, unacked)| unacked.is_none()) {
            self.line.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > GAPS_MIN && self.gaps > self.line.len() / 2 {
            self.line.retain(|(_, unacked)| unacked.is_some());
            self.gaps = 0;
        }
    }
}

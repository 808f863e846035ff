//! 1024 messages of one queue: where each lies in the log, and which are gone.
//!
//! A number is in one of three states, and only moves downwards:
//!
//! ```text
//! unknown ──publish──> live ──settle──┐
//!    └─────settle (early)──> settled <┘   a publish of a settled number is dead on arrival
//! ```
//!
//! A block that is in the state database and that the queue has moved on from is *cold*: it has given
//! up the places of its messages and only remembers which segments they lie in.

use smallvec::SmallVec;

use crate::log::Position;
use crate::slots::{Bitmap, Slots, count, has, rank, set, slots, span};

/// The places of published messages, by slot: from which place on which segment holds the live ones.
pub(crate) type Segments = SmallVec<[(u16, u64); 1]>;

/// How many bytes of which segments the live messages take.
pub(crate) type Weights = SmallVec<[(u64, u64); 1]>;

/// Slots with the marks of their messages, in order; none is 0.
pub(crate) type Marks = Vec<(u16, u64)>;

#[derive(Default)]
pub(crate) struct Block {
    published: Slots,
    settled: Slots,
    places: Places,
    /// Of live messages that have one.
    marks: Marks,
    /// As of the last checkpoint that wrote this block.
    weights: Weights,
    live: u16,
    early: u16,
    /// What has changed since the last checkpoint, and what an earlier one has written.
    pub(crate) dirty: Parts,
    pub(crate) stored: Parts,
    /// The checkpoint round of the last change.
    pub(crate) touched: u64,
}

/// Where the published messages lie, in the order of their slots.
enum Places {
    Warm(Vec<Position>),
    Cold(Segments),
}

impl Default for Places {
    fn default() -> Places {
        Places::Warm(Vec::new())
    }
}

/// The two values a block has in the state database.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parts {
    pub(crate) positions: bool,
    pub(crate) summary: bool,
}

impl Parts {
    pub(crate) fn any(self) -> bool {
        self.positions || self.summary
    }
}

/// All that must be known of a block to count its messages, without their places.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) published: Bitmap,
    pub(crate) settled: Bitmap,
    pub(crate) segments: Segments,
    pub(crate) marks: Marks,
    pub(crate) weights: Weights,
}

impl Summary {
    /// The slots of live messages, each with its place among the published ones.
    pub(crate) fn live_slots(&self) -> impl Iterator<Item = (u16, usize)> + '_ {
        live_slots(&self.published, &self.settled)
    }

    /// Whether these can be the places of the published messages. Those of settled ones do not matter.
    pub(crate) fn fits(&self, positions: &[Position]) -> bool {
        let is_there = |(_, at): (u16, usize)| Some(positions[at].segment) == segment_at(&self.segments, at);
        positions.len() == count(&self.published) && self.live_slots().all(is_there)
    }

    /// Weighs the live messages, given the places of all published ones.
    pub(crate) fn weigh(&self, positions: &[Position]) -> Weights {
        weigh(self.live_slots().map(|(_, at)| positions[at]))
    }
}

impl Block {
    /// A cold block, as a checkpoint wrote it.
    pub(crate) fn restore(summary: Summary) -> Block {
        let Summary { published, settled, segments, marks, weights } = summary;
        let (published, settled) = (published.into(), settled.into());
        let mut block = Block { published, settled, marks, weights, ..Block::default() };
        if count(&block.published) > 0 {
            block.places = Places::Cold(segments);
        }
        block.stored = Parts { positions: true, summary: true };
        block.recount();
        block
    }

    pub(crate) fn summary(&self) -> Summary {
        let (published, settled, weights) = (*self.published, *self.settled, self.weights.clone());
        let marks = self.marks.clone();
        Summary { published, settled, segments: self.segments(), marks, weights }
    }

    /// Whether the message is new and live from now on. The block must be warm, unless the message is
    /// known already.
    pub(crate) fn publish(&mut self, slot: u16, position: Position) -> bool {
        if has(&self.published, slot) {
            return false;
        }
        let at = rank(&self.published, slot);
        let Places::Warm(positions) = &mut self.places else {
            unreachable!("it is warmed before it gets a new message");
        };
        positions.insert(at, position);
        set(self.published.edit(), slot);
        self.dirty = Parts { positions: true, summary: true };
        if has(&self.settled, slot) {
            self.early -= 1;
            return false;
        }
        self.live += 1;
        true
    }

    /// A live message has been written again and now lies elsewhere. The block must be warm. In which
    /// segment it lay before; none if it is not live.
    pub(crate) fn relocate(&mut self, slot: u16, position: Position) -> Option<u64> {
        if !self.is_live(slot) {
            return None;
        }
        let at = rank(&self.published, slot);
        let Places::Warm(positions) = &mut self.places else {
            unreachable!("it is warmed before a message of it moves");
        };
        self.dirty = Parts { positions: true, summary: true };
        Some(std::mem::replace(&mut positions[at], position).segment)
    }

    /// Settles the slots from `first` to `last`, also those whose publish has not come. Visits the
    /// segments of those that were live until now.
    pub(crate) fn settle(&mut self, first: u16, last: u16, released: impl FnMut(u64)) {
        self.settle_where(span(first, last), released);
    }

    /// Settles the slots from `first` to `last` that are live.
    pub(crate) fn purge(&mut self, first: u16, last: u16, released: impl FnMut(u64)) {
        let mut span = span(first, last);
        for (word, published) in span.iter_mut().zip(self.published.iter()) {
            *word &= published;
        }
        self.settle_where(span, released);
    }

    fn settle_where(&mut self, slots: Bitmap, mut released: impl FnMut(u64)) {
        for (word, wanted) in slots.iter().enumerate() {
            let mut new = wanted & !self.settled[word];
            if new == 0 {
                continue;
            }
            self.dirty.summary = true;
            self.settled.edit()[word] |= new;
            self.early += (new & !self.published[word]).count_ones() as u16;
            new &= self.published[word];
            self.live -= new.count_ones() as u16;
            while new != 0 {
                let slot = word as u16 * 64 + new.trailing_zeros() as u16;
                released(self.segment_of(slot));
                new &= new - 1;
            }
        }
        let mut marks = std::mem::take(&mut self.marks);
        marks.retain(|(slot, _)| self.is_live(*slot));
        self.marks = marks;
    }

    /// Sets the mark of a message, if it is live.
    pub(crate) fn mark(&mut self, slot: u16, mark: u64) {
        if !self.is_live(slot) || self.mark_of(slot) == mark {
            return;
        }
        self.dirty.summary = true;
        match self.marks.binary_search_by_key(&slot, |(marked, _)| *marked) {
            Ok(at) if mark == 0 => drop(self.marks.remove(at)),
            Ok(at) => self.marks[at].1 = mark,
            Err(at) => self.marks.insert(at, (slot, mark)),
        }
    }

    /// The mark of a message, 0 if it has none.
    pub(crate) fn mark_of(&self, slot: u16) -> u64 {
        self.marks.binary_search_by_key(&slot, |(marked, _)| *marked).map_or(0, |at| self.marks[at].1)
    }

    pub(crate) fn live(&self) -> u16 {
        self.live
    }

    /// How many were settled before their publish came.
    pub(crate) fn early(&self) -> u16 {
        self.early
    }

    /// Nothing in here matters any more: a number that comes late is simply new.
    pub(crate) fn is_spent(&self) -> bool {
        self.live == 0 && self.early == 0
    }

    pub(crate) fn is_published(&self, slot: u16) -> bool {
        has(&self.published, slot)
    }

    /// Forgets settlements whose publish never came.
    pub(crate) fn forget_early(&mut self) {
        for (settled, published) in self.settled.edit().iter_mut().zip(self.published.iter()) {
            *settled &= published;
        }
        self.early = 0;
        self.dirty.summary = true;
    }

    /// The places of all published messages, unless the block is cold.
    pub(crate) fn positions(&self) -> Option<&[Position]> {
        match &self.places {
            Places::Warm(positions) => Some(positions),
            Places::Cold(_) => None,
        }
    }

    /// How many bytes of which segments its live messages took when they were last weighed.
    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    pub(crate) fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }

    /// Weighs the live messages, unless the block is cold.
    pub(crate) fn weigh(&self) -> Option<Weights> {
        let positions = self.positions()?;
        Some(weigh(self.live_slots(0).map(|(_, at)| positions[at])))
    }

    /// Gives up the places. There is nothing to give up, and nothing stored to get back, while no
    /// publish has come.
    pub(crate) fn cool(&mut self) {
        if count(&self.published) > 0 {
            self.places = Places::Cold(self.segments());
            self.published.settle_down();
            self.settled.settle_down();
        }
    }

    /// Gets the places back, one for each published message.
    pub(crate) fn warm(&mut self, positions: Vec<Position>) {
        assert_eq!(positions.len(), count(&self.published), "places of another block");
        self.places = Places::Warm(positions);
    }

    /// The slots of live messages from `first` on, each with its place among the published ones.
    pub(crate) fn live_slots(&self, first: u16) -> impl Iterator<Item = (u16, usize)> + '_ {
        live_slots(&self.published, &self.settled).skip_while(move |(slot, _)| *slot < first)
    }

    /// Visits the segments of the live messages, each with how many lie there together.
    pub(crate) fn live_segments(&self, mut visit: impl FnMut(u64, u64)) {
        match &self.places {
            Places::Warm(positions) => {
                self.live_slots(0).for_each(|(_, at)| visit(positions[at].segment, 1));
            }
            Places::Cold(segments) if segments.len() == 1 && self.live > 0 => {
                visit(segments[0].1, u64::from(self.live));
            }
            Places::Cold(segments) => {
                let mut live = self.live_slots(0).map(|(_, at)| at).peekable();
                let ends = segments.iter().skip(1).map(|(from, _)| usize::from(*from)).chain([usize::MAX]);
                for ((_, segment), end) in segments.iter().zip(ends) {
                    let together = std::iter::from_fn(|| live.next_if(|at| *at < end)).count();
                    if together > 0 {
                        visit(*segment, together as u64);
                    }
                }
            }
        }
    }

    pub(crate) fn is_live(&self, slot: u16) -> bool {
        has(&self.published, slot) && !has(&self.settled, slot)
    }

    /// In which segment a live message lies.
    pub(crate) fn segment_of(&self, slot: u16) -> u64 {
        let at = rank(&self.published, slot);
        match &self.places {
            Places::Warm(positions) => positions[at].segment,
            Places::Cold(segments) => segment_at(segments, at).expect("a live message lies somewhere"),
        }
    }

    fn segments(&self) -> Segments {
        match &self.places {
            Places::Warm(positions) => segments_of(self.live_slots(0).map(|(_, at)| (at, positions[at]))),
            Places::Cold(segments) => segments.clone(),
        }
    }

    fn recount(&mut self) {
        let both = |(published, settled): (&u64, &u64)| (published & settled).count_ones() as u16;
        let dead: u16 = self.published.iter().zip(self.settled.iter()).map(both).sum();
        self.live = count(&self.published) as u16 - dead;
        self.early = count(&self.settled) as u16 - dead;
    }
}

/// Which segments hold these places. Those before the first one, and between two, may be said to lie
/// anywhere.
fn segments_of(live: impl Iterator<Item = (usize, Position)>) -> Segments {
    let mut segments = Segments::new();
    for (at, position) in live {
        match segments.last() {
            None => segments.push((0, position.segment)),
            Some((_, segment)) if *segment != position.segment => {
                segments.push((at as u16, position.segment))
            }
            Some(_) => {}
        }
    }
    segments
}

/// The segment of the message at a place.
pub(crate) fn segment_at(segments: &Segments, at: usize) -> Option<u64> {
    let behind = segments.partition_point(|(from, _)| usize::from(*from) <= at);
    Some(segments.get(behind.checked_sub(1)?)?.1)
}

fn weigh(live: impl Iterator<Item = Position>) -> Weights {
    let mut weights = Weights::new();
    for position in live {
        match weights.iter_mut().find(|(segment, _)| *segment == position.segment) {
            Some((_, bytes)) => *bytes += u64::from(position.weight),
            None => weights.push((position.segment, position.weight.into())),
        }
    }
    weights
}

fn live_slots<'a>(
    published: &'a Bitmap,
    settled: &'a Bitmap,
) -> impl Iterator<Item = (u16, usize)> + use<'a> {
    let published = slots(published).enumerate();
    published.filter(move |(_, slot)| !has(settled, *slot)).map(|(at, slot)| (slot, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64) -> Position {
        Position { segment, offset: 7, len: 10, weight: 10 }
    }

    fn settle(block: &mut Block, first: u16, last: u16) -> Vec<u64> {
        let mut released = Vec::new();
        block.settle(first, last, |segment| released.push(segment));
        released
    }

    #[test]
    fn a_block_begun_by_an_early_settlement_has_no_places_to_give_up() {
        let mut block = Block::default();
        settle(&mut block, 0, 0);

        block.cool();

        assert!(block.publish(15, at(30)), "it is still warm");
    }

    #[test]
    fn a_settled_message_is_not_live_and_the_block_is_spent() {
        let mut block = Block::default();
        assert!(block.publish(3, at(30)));
        assert!(!block.publish(3, at(30)));

        assert_eq!(settle(&mut block, 3, 3), [30]);

        assert!(block.is_spent());
        assert_eq!(settle(&mut block, 0, 2), []);
        assert_eq!((block.live(), block.early()), (0, 3));
    }

    #[test]
    fn an_early_settlement_kills_the_publish_that_follows_and_a_purge_is_never_early() {
        let mut block = Block::default();
        block.purge(0, 1023, |_| panic!("nothing is there"));
        assert_eq!(settle(&mut block, 9, 9), []);
        assert_eq!(block.early(), 1);

        assert!(!block.publish(9, at(90)));

        assert!(block.is_spent());
    }

    #[test]
    fn forgotten_early_settlements_leave_the_others_settled() {
        let mut block = Block::default();
        block.publish(1, at(1));
        block.publish(0, at(2));
        settle(&mut block, 1, 1);
        settle(&mut block, 7, 7);

        block.forget_early();

        assert_eq!((block.live(), block.early()), (1, 0));
        assert_eq!(block.live_slots(0).collect::<Vec<_>>(), [(0, 0)]);
    }

    #[test]
    fn a_mark_stays_with_its_message_until_that_is_settled() {
        let mut block = Block::default();
        block.mark(7, 1);
        for slot in 5..10 {
            block.publish(slot, at(1));
            block.mark(slot, 3);
        }
        block.mark(9, 0);
        block.mark(8, 4);
        settle(&mut block, 5, 6);

        let block = Block::restore(block.summary());

        let marks: Vec<u64> = (5..10).map(|slot| block.mark_of(slot)).collect();
        assert_eq!(marks, [0, 0, 3, 4, 0]);
    }

    #[test]
    fn a_cold_block_knows_the_segments_of_its_messages_and_gets_their_places_back() {
        let mut block = Block::default();
        for slot in (0..1024).rev().step_by(2) {
            block.publish(slot, at(u64::from(slot) / 100));
        }
        let positions = block.positions().unwrap().to_vec();

        let mut cold = Block::restore(block.summary());
        assert_eq!(settle(&mut cold, 190, 210), [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!((cold.live(), cold.early()), (502, 11));

        cold.warm(positions.clone());
        let (slot, place) = cold.live_slots(211).next().unwrap();
        assert_eq!((slot, positions[place]), (211, at(2)));
    }
}

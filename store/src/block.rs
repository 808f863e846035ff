//! 1024 messages of one queue: where each lies in the log, and which are gone.
//!
//! A number is in one of three states, and only moves downwards:
//!
//! ```text
//! unknown ──publish──> live ──settle──┐
//!    └─────settle (early)──> settled <┘   a publish of a settled number is dead on arrival
//! ```

use crate::log::Position;

/// Messages in one block.
pub(crate) const SLOTS: u64 = 1024;
const WORDS: usize = SLOTS as usize / 64;

/// Which numbers are settled, one bit each.
pub(crate) type Bitmap = [u64; WORDS];

#[derive(Default)]
pub(crate) struct Block {
    /// The numbers whose publish was seen, sorted; they nearly always come in order.
    slots: Vec<u16>,
    /// Where each of them lies; parallel to `slots`, since 2 + 16 bytes would pad to 24.
    positions: Vec<Position>,
    settled: Bitmap,
    settled_count: u16,
    live: u16,
    /// What has changed since the last checkpoint, and what an earlier one has written.
    pub(crate) dirty: Parts,
    pub(crate) stored: Parts,
    /// The checkpoint round of the last change.
    pub(crate) touched: u64,
}

/// The two values a block has in the state database.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parts {
    pub(crate) positions: bool,
    pub(crate) settled: bool,
}

impl Parts {
    pub(crate) fn any(self) -> bool {
        self.positions || self.settled
    }
}

impl Block {
    /// Puts a block together from what a checkpoint wrote.
    pub(crate) fn restore(entries: Vec<(u16, Position)>, settled: Bitmap) -> Block {
        let mut block = Block { settled, ..Block::default() };
        (block.slots, block.positions) = entries.into_iter().unzip();
        block.recount();
        block
    }

    /// Whether the message is new and live from now on.
    pub(crate) fn publish(&mut self, slot: u16, position: Position) -> bool {
        match self.slots.last() {
            Some(last) if *last >= slot => {
                let Err(at) = self.slots.binary_search(&slot) else { return false };
                self.slots.insert(at, slot);
                self.positions.insert(at, position);
            }
            _ => {
                self.slots.push(slot);
                self.positions.push(position);
            }
        }
        self.dirty.positions = true;
        let live = !self.is_settled(slot);
        self.live += u16::from(live);
        live
    }

    /// Where the message lay if it was live until now.
    pub(crate) fn settle(&mut self, slot: u16) -> Option<Position> {
        if self.is_settled(slot) {
            return None;
        }
        self.settled[usize::from(slot / 64)] |= 1 << (slot % 64);
        self.settled_count += 1;
        self.dirty.settled = true;
        let at = self.slots.binary_search(&slot).ok()?;
        self.live -= 1;
        Some(self.positions[at])
    }

    pub(crate) fn live(&self) -> u16 {
        self.live
    }

    /// How many were settled before their publish came.
    pub(crate) fn early(&self) -> u16 {
        self.settled_count - (self.slots.len() as u16 - self.live)
    }

    /// Nothing in here matters any more: a number that comes late is simply new.
    pub(crate) fn is_spent(&self) -> bool {
        self.live == 0 && self.early() == 0
    }

    /// Forgets settlements whose publish never came.
    pub(crate) fn forget_early(&mut self) {
        let mut published = Bitmap::default();
        for slot in &self.slots {
            published[usize::from(slot / 64)] |= 1 << (slot % 64);
        }
        for (settled, published) in self.settled.iter_mut().zip(published) {
            *settled &= published;
        }
        self.dirty.settled = true;
        self.recount();
    }

    /// Every message whose publish was seen.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (u16, Position)> + '_ {
        self.slots.iter().copied().zip(self.positions.iter().copied())
    }

    pub(crate) fn live_entries(&self) -> impl Iterator<Item = (u16, Position)> + '_ {
        self.entries().filter(|(slot, _)| !self.is_settled(*slot))
    }

    /// Where a live message lies.
    pub(crate) fn find(&self, slot: u16) -> Option<Position> {
        let at = self.slots.binary_search(&slot).ok()?;
        (!self.is_settled(slot)).then(|| self.positions[at])
    }

    pub(crate) fn bitmap(&self) -> &Bitmap {
        &self.settled
    }

    fn is_settled(&self, slot: u16) -> bool {
        self.settled[usize::from(slot / 64)] & (1 << (slot % 64)) != 0
    }

    fn recount(&mut self) {
        self.settled_count = self.settled.iter().map(|word| word.count_ones() as u16).sum();
        self.live = self.live_entries().count() as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> Position {
        Position { segment: 1, offset, len: 10 }
    }

    #[test]
    fn a_settled_message_is_not_live_and_the_block_is_spent() {
        let mut block = Block::default();
        assert!(block.publish(3, at(30)));
        assert!(!block.publish(3, at(30)));

        assert_eq!(block.settle(3), Some(at(30)));

        assert!(block.is_spent());
        assert_eq!(block.settle(3), None);
    }

    #[test]
    fn an_early_settlement_kills_the_publish_that_follows() {
        let mut block = Block::default();
        assert_eq!(block.settle(9), None);
        assert_eq!(block.early(), 1);

        assert!(!block.publish(9, at(90)));

        assert!(block.is_spent());
    }

    #[test]
    fn forgotten_early_settlements_leave_the_others_settled() {
        let mut block = Block::default();
        block.publish(1, at(1));
        block.publish(0, at(2));
        block.settle(1);
        block.settle(7);

        block.forget_early();

        assert_eq!((block.live(), block.early()), (1, 0));
        assert_eq!(block.live_entries().collect::<Vec<_>>(), [(0, at(2))]);
    }

    #[test]
    fn a_restored_block_counts_as_before() {
        let mut block = Block::default();
        for slot in 0..1024 {
            block.publish(slot, at(u32::from(slot)));
        }
        block.settle(5);

        let restored = Block::restore(block.entries().collect(), *block.bitmap());

        assert_eq!((restored.live(), restored.early()), (1023, 0));
        assert_eq!(restored.find(5), None);
        assert_eq!(restored.find(6), Some(at(6)));
    }
}

//! Sets of slots, which are the numbers of messages within their block.

use std::ops::Deref;

/// Messages in one block.
pub(crate) const SLOTS: u64 = 1024;
const WORDS: usize = SLOTS as usize / 64;

/// A set of slots, one bit each.
pub(crate) type Bitmap = [u64; WORDS];

/// A set that takes no room while it is empty or full, as most are. Read like a [`Bitmap`].
#[derive(Clone, Debug, Default)]
pub(crate) enum Slots {
    #[default]
    None,
    Some(Box<Bitmap>),
    All,
}

static NONE: Bitmap = [0; WORDS];
static ALL: Bitmap = [u64::MAX; WORDS];

impl Slots {
    /// The bits, to be changed. [`Slots::settle_down`] gives the room back.
    pub(crate) fn edit(&mut self) -> &mut Bitmap {
        if !matches!(self, Slots::Some(_)) {
            *self = Slots::Some(Box::new(**self));
        }
        match self {
            Slots::Some(bitmap) => bitmap,
            Slots::None | Slots::All => unreachable!("it has just got room"),
        }
    }

    /// Takes no more room than is needed.
    pub(crate) fn settle_down(&mut self) {
        match **self {
            bits if bits == NONE => *self = Slots::None,
            bits if bits == ALL => *self = Slots::All,
            _ => {}
        }
    }
}

impl From<Bitmap> for Slots {
    fn from(bitmap: Bitmap) -> Slots {
        let mut slots = Slots::Some(Box::new(bitmap));
        slots.settle_down();
        slots
    }
}

impl Deref for Slots {
    type Target = Bitmap;

    fn deref(&self) -> &Bitmap {
        match self {
            Slots::None => &NONE,
            Slots::Some(bitmap) => bitmap,
            Slots::All => &ALL,
        }
    }
}

pub(crate) fn has(bitmap: &Bitmap, slot: u16) -> bool {
    bitmap[usize::from(slot / 64)] & (1 << (slot % 64)) != 0
}

pub(crate) fn set(bitmap: &mut Bitmap, slot: u16) {
    bitmap[usize::from(slot / 64)] |= 1 << (slot % 64);
}

/// How many slots before this one are in the set.
pub(crate) fn rank(bitmap: &Bitmap, slot: u16) -> usize {
    let (word, bit) = (usize::from(slot / 64), slot % 64);
    let before: u32 = bitmap[..word].iter().map(|word| word.count_ones()).sum();
    (before + (bitmap[word] & ((1 << bit) - 1)).count_ones()) as usize
}

/// How many slots are in the set.
pub(crate) fn count(bitmap: &Bitmap) -> usize {
    bitmap.iter().map(|word| word.count_ones() as usize).sum()
}

/// The slots in the set, in order.
pub(crate) fn slots(bitmap: &Bitmap) -> impl Iterator<Item = u16> + '_ {
    bitmap.iter().enumerate().flat_map(|(word, bits)| {
        let mut rest = *bits;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros() as u16)?;
            rest &= rest - 1;
            Some(word as u16 * 64 + bit)
        })
    })
}

pub(crate) fn span(first: u16, last: u16) -> Bitmap {
    let mut span = Bitmap::default();
    for (word, bits) in span.iter_mut().enumerate() {
        let (low, high) = (word as u16 * 64, word as u16 * 64 + 63);
        if first > high || last < low {
            continue;
        }
        let from = !0 << first.saturating_sub(low);
        let to = !0 >> (high - last.min(high));
        *bits = from & to;
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_takes_room_only_while_it_is_neither_empty_nor_full() {
        let mut set = Slots::default();
        for slot in 0..SLOTS as u16 {
            super::set(set.edit(), slot);
            set.settle_down();
            assert_eq!((count(&set), has(&set, slot)), (usize::from(slot) + 1, true));
            assert_eq!(matches!(set, Slots::Some(_)), u64::from(slot) + 1 < SLOTS);
        }

        set.edit()[0] -= 1;
        assert!(!has(&set, 0) && has(&set, 1));
        set.edit().fill(0);
        set.settle_down();
        assert!(matches!(set, Slots::None));
    }

    #[test]
    fn a_span_is_all_slots_between_its_ends() {
        for (first, last) in [(0, 0), (0, 63), (5, 70), (64, 127), (63, 64), (1, 1023)] {
            let found: Vec<u16> = slots(&span(first, last)).collect();
            assert_eq!(found, (first..=last).collect::<Vec<_>>());
        }
    }
}

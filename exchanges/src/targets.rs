//! The targets of bindings that say the same thing, each counted.

use crate::routing::Link;

/// The small number that stands for a queue or an exchange inside one [`Exchanges`](crate::Exchanges).
///
/// Kinds keep and report slots, so they are the same code whatever a queue is to the broker, and the
/// queues of a message are told apart by a bit each. A slot is used again once nothing refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u32);

/// Slots with the number of bindings that lead to each.
///
/// Two bindings of one queue may mean the same to an exchange (the same direct key with different
/// arguments): the queue stops matching when the last of them goes.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    // Sorted by slot: a few entries as a rule, found by halving when there are many.
    counted: Vec<(Slot, u32)>,
}

impl Targets {
    /// Counts one more binding to `slot`.
    pub(crate) fn add(&mut self, slot: Slot) {
        match self.position(slot) {
            Ok(place) => self.counted[place].1 += 1,
            Err(place) => self.counted.insert(place, (slot, 1)),
        }
    }

    /// Counts one binding to `slot` less.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let place = self.position(slot).expect("only what was bound is unbound");
        self.counted[place].1 -= 1;
        if self.counted[place].1 == 0 {
            self.counted.remove(place);
        }
    }

    /// Every target once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> {
        self.counted.iter().map(|&(slot, _)| slot)
    }

    /// Whether no binding is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    fn position(&self, slot: Slot) -> Result<usize, usize> {
        self.counted.binary_search_by_key(&slot, |&(other, _)| other)
    }
}

/// The targets of bindings in an order that is the same in every run of the broker, whatever the order in
/// which they were bound. Of a target bound twice there are two.
#[derive(Debug, Default)]
pub(crate) struct Ranks {
    // Sorted by identity.
    ranked: Vec<(u64, Slot)>,
}

impl Ranks {
    /// Adds the target of a binding.
    pub(crate) fn add(&mut self, link: Link<'_>) {
        let rank = (link.identity, link.target);
        let place = self.ranked.partition_point(|other| *other < rank);
        self.ranked.insert(place, rank);
    }

    /// Takes the target of a binding away, once.
    pub(crate) fn remove(&mut self, link: Link<'_>) {
        let place = self.ranked.binary_search(&(link.identity, link.target));
        self.ranked.remove(place.expect("only what was bound is unbound"));
    }

    /// How many bindings there are.
    pub(crate) fn len(&self) -> usize {
        self.ranked.len()
    }

    /// Whether no binding is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranked.is_empty()
    }

    /// The target at a place in the order.
    pub(crate) fn at(&self, place: usize) -> Slot {
        self.ranked[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_until_its_last_binding_goes() {
        let mut targets = Targets::default();
        targets.add(Slot(7));
        targets.add(Slot(2));
        targets.add(Slot(7));

        targets.remove(Slot(7));
        assert_eq!(targets.iter().collect::<Vec<_>>(), [Slot(2), Slot(7)]);

        targets.remove(Slot(7));
        assert_eq!(targets.iter().collect::<Vec<_>>(), [Slot(2)]);

        targets.remove(Slot(2));
        assert!(targets.is_empty());
    }
}

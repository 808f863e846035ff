//! The targets of bindings that say the same thing, each counted.

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

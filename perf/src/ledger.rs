//! What came out of one queue, by stream: what is missing, what came twice, what came out of order.

use crate::numbers::{Numbers, Seen};
use crate::stamp::Stamp;

/// The messages that a queue has delivered to all its consumers.
#[derive(Debug, Default)]
pub struct Ledger {
    streams: Vec<Numbers>,
}

impl Ledger {
    /// Notes a message.
    #[inline]
    pub fn see(&mut self, stamp: Stamp) -> Seen {
        let stream = usize::from(stamp.stream);
        if stream >= self.streams.len() {
            self.streams.resize_with(stream + 1, Numbers::default);
        }
        self.streams[stream].see(stamp.number)
    }

    /// How many different messages of a stream came.
    pub fn count(&self, stream: usize) -> u64 {
        self.streams.get(stream).map_or(0, Numbers::count)
    }

    /// How many different messages came.
    pub fn total(&self) -> u64 {
        self.streams.iter().map(Numbers::count).sum()
    }

    /// How many numbers are missing below the highest of each stream: what is known to be lost when
    /// nobody says how many were sent.
    pub fn holes(&self) -> u64 {
        self.streams.iter().map(|numbers| numbers.end() - numbers.count()).sum()
    }
}

/// The order in which one consumer of a queue gets each stream. With several consumers a queue deals
/// its messages out, but each consumer's share still rises.
#[derive(Debug, Default)]
pub struct Order {
    /// The lowest number that may come, by stream.
    next: Vec<u64>,
}

impl Order {
    /// Whether a message has its place after the last one of its stream. Redelivered ones have not, and
    /// must not be asked about.
    #[inline]
    pub fn follows(&mut self, stamp: Stamp) -> bool {
        let stream = usize::from(stamp.stream);
        if stream >= self.next.len() {
            self.next.resize(stream + 1, 0);
        }
        let follows = stamp.number >= self.next[stream];
        self.next[stream] = stamp.number + 1;
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn at(stream: u16, number: u64) -> Stamp {
        Stamp { stream, number }
    }

    #[test]
    fn streams_do_not_mix() {
        let mut ledger = Ledger::default();

        assert_eq!(ledger.see(at(3, 0)), Seen::New);
        assert_eq!(ledger.see(at(0, 0)), Seen::New);
        assert_eq!(ledger.see(at(3, 0)), Seen::Again);
        assert_eq!(ledger.see(at(3, 2)), Seen::New);

        assert_eq!((ledger.count(3), ledger.count(0), ledger.count(9)), (2, 1, 0));
        assert_eq!((ledger.total(), ledger.holes()), (3, 1));
    }

    #[test]
    fn a_gap_keeps_the_order_and_a_step_back_does_not() {
        let mut order = Order::default();

        assert!(order.follows(at(0, 5)));
        assert!(order.follows(at(0, 9)));
        assert!(!order.follows(at(0, 7)));
        assert!(order.follows(at(1, 0)));
        assert!(order.follows(at(0, 8)), "one step back is one fault, not all that follow");
    }

    proptest! {
        #[test]
        fn losses_and_doubles_are_those_of_a_naive_count(
            messages in proptest::collection::vec((0u16..4, 0u64..90), 0..400)
        ) {
            let mut ledger = Ledger::default();
            let mut model: BTreeMap<u16, BTreeSet<u64>> = BTreeMap::new();
            let (mut doubles, mut expected_doubles) = (0, 0);
            for (stream, number) in messages {
                doubles += u64::from(ledger.see(at(stream, number)) == Seen::Again);
                expected_doubles += u64::from(!model.entry(stream).or_default().insert(number));
            }

            let holes = |numbers: &BTreeSet<u64>| {
                let end = numbers.last().map_or(0, |last| last + 1);
                (0..end).filter(|n| !numbers.contains(n)).count() as u64
            };
            prop_assert_eq!(doubles, expected_doubles);
            prop_assert_eq!(ledger.total(), model.values().map(|n| n.len() as u64).sum::<u64>());
            prop_assert_eq!(ledger.holes(), model.values().map(holes).sum::<u64>());
        }
    }
}

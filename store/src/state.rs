//! All durable state in memory, and the one function that changes it.

use crate::definitions::Definitions;
use crate::log::Position;
use crate::operation::Operation;
use crate::queues::Queues;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) definitions: Definitions,
    pub(crate) queues: Queues,
}

impl State {
    /// Applies an operation whose record lies at `position`. Deterministic: the commit thread calls
    /// it after the sync, recovery calls it with what it reads, and both must end the same.
    pub(crate) fn apply(&mut self, position: Position, operation: &Operation) {
        match operation {
            Operation::Define { key, value } => self.definitions.define(key, value),
            Operation::Undefine { key } => self.definitions.undefine(key),
            Operation::QueueCreate { queue } => self.queues.create(*queue),
            Operation::QueueDelete { queue } => self.queues.delete(*queue),
            Operation::Publish(publish) => {
                for (queue, seq) in &publish.destinations {
                    self.queues.publish(*queue, *seq, position);
                }
            }
            Operation::Settle { queue, seqs } => {
                for seq in seqs {
                    self.queues.settle(*queue, *seq);
                }
            }
            Operation::Delivered { queue, through } => self.queues.delivered(*queue, *through),
            Operation::Atomic(parts) => {
                for part in parts {
                    self.apply(position, part);
                }
            }
        }
    }

    /// Whether a checkpoint would write anything.
    pub(crate) fn is_dirty(&self) -> bool {
        self.definitions.is_dirty() || self.queues.is_dirty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Key, Meta};
    use crate::operation::{Publish, QueueId, Seq};
    use crate::queues::Change;

    const QUEUE: QueueId = QueueId(1);

    fn publish(seq: u64) -> Operation {
        let destinations = [(QUEUE, Seq(seq))].into_iter().collect();
        Operation::Publish(Publish { timestamp_ms: 0, destinations, parts: Default::default() })
    }

    fn settle(seqs: impl IntoIterator<Item = u64>) -> Operation {
        Operation::Settle { queue: QUEUE, seqs: seqs.into_iter().map(Seq).collect() }
    }

    /// What a start would find: numbers, places, and how much is alive in the only segment.
    type Seen = (Vec<(u64, u32)>, u64, u64, u64);

    fn seen(state: &State) -> Seen {
        let (_, queue) = state.queues.sorted()[0];
        let live = queue.live_entries().map(|(seq, position)| (seq.0, position.offset));
        let in_segment = state.queues.live_in(1);
        (live.collect(), queue.next_seq, queue.delivered_below, in_segment)
    }

    fn apply_all(state: &mut State, log: &[Operation]) {
        for (offset, operation) in log.iter().enumerate() {
            let position = Position { segment: 1, offset: offset as u32, len: 1 };
            state.apply(position, operation);
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => (0u64..3000).prop_map(publish),
            2 => (0u64..3000).prop_map(|seq| settle([seq])),
            1 => (0u64..3000, 0u64..1500).prop_map(|(from, count)| settle(from..from + count)),
            1 => (0u64..3000).prop_map(|seq| Operation::Delivered { queue: QUEUE, through: Seq(seq) }),
        ]
    }

    /// A number is published once in a log.
    fn without_repetition(operations: Vec<Operation>) -> Vec<Operation> {
        let mut published = std::collections::HashSet::new();
        let mut log = vec![Operation::QueueCreate { queue: QUEUE }];
        log.extend(operations.into_iter().filter(|operation| match operation {
            Operation::Publish(publish) => published.insert(publish.destinations[0].1),
            _ => true,
        }));
        log
    }

    fn reload(rows: &mut std::collections::BTreeMap<Vec<u8>, Vec<u8>>, state: &mut State) -> State {
        for (key, value) in state.queues.take_changes() as Vec<Change> {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        let (queues, blocks) = state.queues.stored();
        let meta = Meta { schema: crate::schema::FORMAT, queues, blocks, ..Meta::default() };
        rows.insert(Key::Meta.encode(), meta.encode());
        let rows = rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        crate::recovery::load(rows).unwrap().0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn replaying_a_log_twice_changes_nothing(
            operations in proptest::collection::vec(operation(), 0..300)
        ) {
            let log = without_repetition(operations);
            let mut state = State::default();
            apply_all(&mut state, &log);
            let once = seen(&state);

            apply_all(&mut state, &log);

            prop_assert_eq!(seen(&state), once);
        }

        #[test]
        fn a_checkpoint_anywhere_changes_nothing(
            operations in proptest::collection::vec(operation(), 0..300), every in 1usize..60
        ) {
            let log = without_repetition(operations);
            let mut plain = State::default();
            apply_all(&mut plain, &log);

            let mut state = State::default();
            let mut rows = Default::default();
            for (index, operation) in log.iter().enumerate() {
                let position = Position { segment: 1, offset: index as u32, len: 1 };
                state.apply(position, operation);
                if index % every == 0 {
                    state = reload(&mut rows, &mut state);
                }
            }
            state = reload(&mut rows, &mut state);

            prop_assert_eq!(seen(&state), seen(&plain));
        }
    }

    #[test]
    fn a_wholly_settled_block_leaves_no_row() {
        let mut state = State::default();
        state.apply(Position::default(), &Operation::QueueCreate { queue: QUEUE });
        for seq in 0..3000 {
            state.apply(Position { segment: 1, offset: 0, len: 1 }, &publish(seq));
        }
        let mut rows = Default::default();
        reload(&mut rows, &mut state);
        assert_eq!(rows.len(), 2 + 3);

        state.apply(Position::default(), &settle(0..3000));
        reload(&mut rows, &mut state);

        assert_eq!((rows.len(), state.queues.live_in(1)), (2, 0));
    }
}

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
        self.apply_part(position.weighed(operation), operation);
    }

    fn apply_part(&mut self, position: Position, operation: &Operation) {
        match operation {
            Operation::Define { key, value } => self.definitions.define(key, value),
            Operation::Undefine { key } => self.definitions.undefine(key),
            Operation::QueueCreate { queue } => self.queues.create(*queue),
            Operation::QueueDelete { queue } => self.queues.delete(*queue),
            Operation::Publish(publish) => {
                self.queues.saw_time(publish.timestamp_ms);
                for (queue, seq) in &publish.destinations {
                    self.queues.publish(*queue, *seq, position, publish.due_at_ms);
                }
            }
            Operation::Relocate(publish) => {
                for (queue, seq) in &publish.destinations {
                    self.queues.relocate(*queue, *seq, position, publish.due_at_ms);
                }
            }
            Operation::Settle { queue, runs } => {
                runs.iter().for_each(|run| self.queues.settle(*queue, run));
            }
            Operation::Purge { queue, runs } => {
                runs.iter().for_each(|run| self.queues.purge(*queue, run));
            }
            Operation::Delivered { queue, through } => self.queues.delivered(*queue, *through),
            Operation::Mark { queue, marks } => {
                marks.iter().for_each(|(seq, mark)| self.queues.mark(*queue, *seq, *mark));
            }
            Operation::Atomic(parts) => {
                for part in parts {
                    self.apply_part(position, part);
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

    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::block::Weights;
    use crate::due::{DueWanted, Entry, Span};
    use crate::keys::{self, Key};
    use crate::operation::{Publish, QueueId, Run, Seq};
    use crate::pages;
    use crate::queues::{Changes, Recall, Seen as Block};

    const QUEUE: QueueId = QueueId(1);

    /// What stands in for the state database.
    type Rows = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

    fn recall(rows: &Rows) -> Recall {
        let rows = rows.clone();
        Arc::new(move |queue, index, _| {
            let value = rows.lock().unwrap()[&Key::Positions(queue, index).encode()].clone();
            keys::decode_positions(&value).unwrap()
        })
    }

    /// A third of all are due at some time, many of them at the same.
    fn due_at_ms(seq: u64) -> Option<u64> {
        seq.is_multiple_of(3).then_some(seq * 7919 % 499)
    }

    fn message(seq: u64) -> Publish {
        let destinations = [(QUEUE, Seq(seq))].into_iter().collect();
        let due_at_ms = due_at_ms(seq);
        Publish { timestamp_ms: 0, due_at_ms, destinations, parts: Default::default() }
    }

    fn publish(seq: u64) -> Operation {
        Operation::Publish(message(seq))
    }

    /// Where the operation of this index lies: ten of them share a segment.
    fn position(index: usize) -> Position {
        Position { segment: index as u64 / 10, offset: index as u32, len: 1, weight: 0 }
    }

    fn settle(seqs: impl IntoIterator<Item = u64>) -> Operation {
        Operation::Settle { queue: QUEUE, runs: seqs.into_iter().map(Seq).collect() }
    }

    fn purge(seqs: impl IntoIterator<Item = u64>) -> Operation {
        Operation::Purge { queue: QUEUE, runs: seqs.into_iter().map(Seq).collect() }
    }

    fn page_of(rows: &Rows, number: u64, span: &Span) -> Option<Vec<Entry>> {
        let rows = rows.lock().unwrap();
        let value = rows.get(&Key::DueEntries(QUEUE, number).encode())?;
        Some(keys::decode_entries(value).unwrap()).filter(|entries| span.fits(entries))
    }

    /// All that is due, so many at a time.
    fn due(state: &State, rows: &Rows, max: usize) -> Vec<Entry> {
        let mut found = Vec::new();
        let mut wanted = DueWanted { queue: QUEUE, after: (0, Seq(0)), until_ms: u64::MAX, max };
        while wanted.after < (u64::MAX, Seq(u64::MAX)) {
            let live = |entries: Vec<Entry>| {
                let mut live = Vec::new();
                state.queues.add_live(QUEUE, &entries, &mut live);
                live
            };
            let read = |number, span: &Span| page_of(rows, number, span);
            let page = state.queues.due(&wanted).page(&wanted, read, live).unwrap();
            assert!(page.through > wanted.after && page.entries.len() <= max);
            found.extend(page.entries);
            wanted.after = page.through;
        }
        found
    }

    /// What is live is due when it said so, and nothing else is.
    fn check_due(state: &State, rows: &Rows, max: usize) {
        let mut live: Vec<Entry> = (0..10_000).map(|seq| (0, Seq(seq))).collect();
        state.queues.add_live(QUEUE, &std::mem::take(&mut live), &mut live);
        let due_at = live.iter().filter_map(|(_, seq)| Some((due_at_ms(seq.0)?, *seq)));
        // This one cannot be asked for: it is not behind any other.
        let mut expected: Vec<Entry> = due_at.filter(|entry| *entry != (0, Seq(0))).collect();
        expected.sort_unstable();
        assert_eq!(due(state, rows, max), expected);
        let first_ms = state.queues.first_due_ms(QUEUE);
        assert!(expected.first().is_none_or(|(at_ms, _)| first_ms.unwrap() <= *at_ms));
        assert!(!live.is_empty() || first_ms.is_none());
    }

    /// What a start would find: numbers, places and marks, the next number, the last one delivered, and how
    /// much is alive in each segment.
    type Seen = (Vec<(u64, u32, u64)>, u64, u64, Vec<(u64, u64)>);

    fn seen(state: &State, rows: &Rows) -> Seen {
        let recall = recall(rows);
        check_due(state, rows, 100);
        let (_, queue) = state.queues.sorted()[0];
        let mut live = Vec::new();
        let mut rest = Run { first: Seq(0), last: Seq(10_000) };
        while let Some(block) = state.queues.look(QUEUE, rest) {
            let found = match block {
                Block::Warm(found) => found,
                Block::Cold { index, summary, live } => {
                    let positions = recall(QUEUE, index, &summary);
                    live.into_iter().map(|(seq, at)| (seq, positions[at])).collect()
                }
            };
            rest.first = Seq(found.last().unwrap().0.0 + 1);
            let mark = |seq| state.queues.mark_of(QUEUE, seq);
            live.extend(found.into_iter().map(|(seq, position)| (seq.0, position.offset, mark(seq))));
        }
        assert_eq!(live.len() as u64, queue.live());
        assert_eq!(live.first().map(|(seq, ..)| Seq(*seq)), queue.first_live());
        let in_segment = state.queues.live_segments().collect();
        (live, queue.next_seq, queue.delivered_below, in_segment)
    }

    fn apply_all(state: &mut State, log: &[Operation]) {
        for (offset, operation) in log.iter().enumerate() {
            state.apply(position(offset), operation);
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => (0u64..3000).prop_map(publish),
            2 => (0u64..3000).prop_map(|seq| Operation::Relocate(message(seq))),
            2 => (0u64..3000).prop_map(|seq| settle([seq])),
            1 => (0u64..3000, 0u64..1500).prop_map(|(from, count)| settle(from..from + count)),
            1 => (0u64..3000, 0u64..1500).prop_map(|(from, count)| purge(from..from + count)),
            2 => (0u64..3000, 0u64..3).prop_map(|(seq, mark)| Operation::Mark {
                queue: QUEUE,
                marks: (seq..seq + 40).map(|seq| (Seq(seq), mark)).collect(),
            }),
            1 => (0u64..3000).prop_map(|seq| Operation::Delivered { queue: QUEUE, through: Seq(seq) }),
        ]
    }

    /// A number is published once in a log, and moves only after that.
    fn without_repetition(operations: Vec<Operation>) -> Vec<Operation> {
        let mut published = std::collections::HashSet::new();
        let mut log = vec![Operation::QueueCreate { queue: QUEUE }];
        log.extend(operations.into_iter().filter(|operation| match operation {
            Operation::Publish(publish) => published.insert(publish.destinations[0].1),
            Operation::Relocate(publish) => published.contains(&publish.destinations[0].1),
            _ => true,
        }));
        log
    }

    /// Changes the rows as a checkpoint does, with what the one before has weighed.
    fn checkpoint(rows: &Rows, state: &mut State, weighed: &mut Vec<(QueueId, u64, Weights)>) {
        state.queues.set_weights(std::mem::take(weighed));
        let Changes { rows: mut changes, cold, due } = state.queues.take_changes();
        check_due(state, rows, 7);
        let due: Vec<_> = due.iter().map(|job| (job.queue, job.write(&mut changes))).collect();
        for (queue, index, mut summary) in cold {
            summary.weights = summary.weigh(&recall(rows)(queue, index, &summary));
            changes.push((Key::Summary(queue, index).encode(), Some(keys::encode_summary(&summary))));
            weighed.push((queue, index, summary.weights));
        }
        let mut table = rows.lock().unwrap();
        for (key, value) in changes {
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
        let pages = table.keys().filter(|key| key[0] == keys::DUE_SPAN).count() as u64;
        assert_eq!(state.queues.stored().2, pages);
        drop(table);
        check_due(state, rows, 1000);
        due.into_iter().for_each(|(queue, pages)| state.queues.due_written(queue, pages));
        check_due(state, rows, 50);
        let shared = Mutex::new(std::mem::take(state));
        pages::recall(&shared, |_, number, span| page_of(rows, number, span).unwrap());
        *state = shared.into_inner().unwrap();
        check_due(state, rows, 1);
    }

    fn reload(rows: &Rows, state: &mut State) -> State {
        checkpoint(rows, state, &mut Vec::new());
        load(rows)
    }

    fn load(rows: &Rows) -> State {
        let mut state = State::default();
        for (key, value) in &*rows.lock().unwrap() {
            match Key::decode(key).unwrap() {
                Key::Queue(queue) => {
                    let row = keys::QueueRow::decode(value).unwrap();
                    state.queues.restore_queue(queue, row);
                }
                Key::Summary(queue, index) => {
                    let (summary, _) = keys::decode_summary(value).unwrap();
                    assert!(state.queues.restore_block(queue, index, summary));
                }
                Key::DueSpan(queue, page) => {
                    assert!(state.queues.restore_page(queue, page, Span::decode(value).unwrap()));
                }
                _ => {}
            }
        }
        state.queues.set_recall(recall(rows));
        state
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A purge and a mark take only what was there before them.
        #[test]
        fn replaying_a_log_twice_changes_nothing(
            operations in proptest::collection::vec(operation(), 0..300)
        ) {
            let mut log = without_repetition(operations);
            let mut published = std::collections::HashSet::new();
            log.retain_mut(|operation| {
                match operation {
                    Operation::Publish(publish) => drop(published.insert(publish.destinations[0].1)),
                    Operation::Mark { marks, .. } => marks.retain(|(seq, _)| published.contains(seq)),
                    _ => {}
                }
                !matches!(operation, Operation::Purge { .. })
            });
            let rows = Rows::default();
            let mut state = State::default();
            apply_all(&mut state, &log);
            let once = seen(&state, &rows);

            apply_all(&mut state, &log);

            prop_assert_eq!(seen(&state, &rows), once);
        }

        #[test]
        fn a_checkpoint_anywhere_changes_nothing(
            operations in proptest::collection::vec(operation(), 0..300), every in 1usize..60
        ) {
            let log = without_repetition(operations);
            let rows = Rows::default();
            let mut plain = State::default();
            apply_all(&mut plain, &log);

            let mut state = State::default();
            state.queues.set_recall(recall(&rows));
            let mut weighed = Vec::new();
            let mut checkpointed = 0;
            for (index, operation) in log.iter().enumerate() {
                state.apply(position(index), operation);
                if index % every == 0 {
                    checkpoint(&rows, &mut state, &mut weighed);
                    checkpointed = index + 1;
                }
                if index % (3 * every) == 0 {
                    state = reload(&rows, &mut state);
                    weighed.clear();
                }
                if index % (every + every / 2 + 1) == 0 {
                    // A crash: what the last checkpoint wrote, and the log behind it.
                    state = load(&rows);
                    (checkpointed..=index).for_each(|at| state.apply(position(at), &log[at]));
                    weighed.clear();
                }
            }
            let found = seen(&state, &rows);
            state = reload(&rows, &mut state);

            prop_assert_eq!(&found, &seen(&plain, &rows));
            let (live, weights) = (found.3.iter().copied(), state.queues.weights());
            prop_assert!(live.eq(weights.iter().map(|(segment, bytes)| (*segment, *bytes))));
            prop_assert_eq!(seen(&state, &rows), found);
        }
    }

    #[test]
    fn a_wholly_settled_block_leaves_no_row() {
        let mut state = State::default();
        state.apply(Position::default(), &Operation::QueueCreate { queue: QUEUE });
        for seq in 0..3000 {
            state.apply(position(10), &publish(seq));
        }
        let rows = Rows::default();
        checkpoint(&rows, &mut state, &mut Vec::new());
        assert_eq!(rows.lock().unwrap().len(), 1 + 2 * 3 + 2, "a queue, blocks, and a page of due times");

        state.apply(Position::default(), &settle(0..3000));
        checkpoint(&rows, &mut state, &mut Vec::new());

        assert_eq!((rows.lock().unwrap().len(), state.queues.live_in(1)), (1, 0));
    }
}

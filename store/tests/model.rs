//! Random operations and restarts, against a map that is too simple to be wrong.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::*;
use garenne_store::*;
use proptest::prelude::*;

const QUEUES: u64 = 4;

#[derive(Default)]
struct Model {
    definitions: BTreeMap<Vec<u8>, Vec<u8>>,
    queues: BTreeMap<u64, ModelQueue>,
    created: u64,
}

#[derive(Default)]
struct ModelQueue {
    live: BTreeMap<u64, Vec<u8>>,
    /// When those that are due at some time are; those of messages that are gone do not matter.
    due: BTreeMap<u64, u64>,
    gone: BTreeSet<u64>,
    /// Those of messages that are gone do not matter.
    marks: BTreeMap<u64, u64>,
    next: u64,
    delivered_below: u64,
}

impl ModelQueue {
    fn saw(&mut self, seq: u64) {
        self.next = self.next.max(seq + 1);
    }
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Define { key, value } => {
                self.definitions.insert(key.clone(), value.clone());
            }
            Operation::Undefine { key } => {
                self.definitions.remove(key);
            }
            Operation::QueueCreate { queue } => {
                self.queues.entry(queue.0).or_default();
            }
            Operation::QueueDelete { queue } => {
                self.queues.remove(&queue.0);
            }
            Operation::Publish(publish) => {
                for (queue, seq) in &publish.destinations {
                    let Some(queue) = self.queues.get_mut(&queue.0) else { continue };
                    queue.saw(seq.0);
                    if !queue.gone.contains(&seq.0) {
                        queue.live.entry(seq.0).or_insert_with(|| publish.parts.get()[2].to_vec());
                        queue.due.extend(publish.due_at_ms.map(|at_ms| (seq.0, at_ms)));
                    }
                }
            }
            // The same messages in another place.
            Operation::Relocate(_) => {}
            Operation::Settle { queue, runs } => {
                let Some(queue) = self.queues.get_mut(&queue.0) else { return };
                for seq in runs.iter().flat_map(|run| run.first.0..=run.last.0) {
                    queue.saw(seq);
                    queue.live.remove(&seq);
                    queue.gone.insert(seq);
                }
            }
            Operation::Purge { queue, runs } => {
                let Some(queue) = self.queues.get_mut(&queue.0) else { return };
                for seq in runs.iter().flat_map(|run| run.first.0..=run.last.0) {
                    queue.gone.extend(queue.live.remove(&seq).map(|_| seq));
                }
            }
            Operation::Delivered { queue, through } => {
                let Some(queue) = self.queues.get_mut(&queue.0) else { return };
                queue.saw(through.0);
                queue.delivered_below = queue.delivered_below.max(through.0 + 1);
            }
            Operation::Mark { queue, marks } => {
                let Some(queue) = self.queues.get_mut(&queue.0) else { return };
                let live = marks.iter().filter(|(seq, _)| queue.live.contains_key(&seq.0));
                queue.marks.extend(live.map(|(seq, mark)| (seq.0, *mark)));
            }
            Operation::Atomic(parts) => parts.iter().for_each(|part| self.apply(part)),
        }
    }

    fn check(&self, recovered: &Reopened) {
        let definitions: Vec<_> = self.definitions.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(recovered.definitions, definitions);
        let expected: Contents = self
            .queues
            .iter()
            .map(|(id, queue)| {
                let messages = queue
                    .live
                    .iter()
                    .map(|(seq, body)| (*seq, *seq < queue.delivered_below, body.clone().into()));
                (*id, messages.collect())
            })
            .collect();
        assert_eq!(recovered.contents, expected);
        let of_queue = |(id, queue): (&u64, &'_ ModelQueue)| {
            let live = queue.due.iter().filter(|(seq, _)| queue.live.contains_key(seq));
            let mut due: Vec<(u64, Seq)> = live.map(|(seq, at_ms)| (*at_ms, Seq(*seq))).collect();
            due.sort_unstable();
            (*id, due)
        };
        let due: BTreeMap<_, _> =
            self.queues.iter().map(of_queue).filter(|(_, due)| !due.is_empty()).collect();
        assert_eq!(recovered.due, due);
        let of_queue = |(id, queue): (&u64, &'_ ModelQueue)| {
            let marks = queue.marks.iter().filter(|(seq, mark)| queue.live.contains_key(seq) && **mark != 0);
            marks.map(|(seq, mark)| ((*id, *seq), *mark)).collect::<Vec<_>>()
        };
        let marks: BTreeMap<_, _> = self.queues.iter().flat_map(of_queue).collect();
        assert_eq!(recovered.marks, marks);
        for queue in &recovered.queues {
            assert_eq!(queue.next_seq.0, self.queues[&queue.queue.0].next);
        }
        assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish { to: u8, body: usize },
    PublishMany { queue: u64, count: u64 },
    Settle { queue: u64, pick: u64 },
    SettleOldest { queue: u64, count: usize },
    Overtake { queue: u64 },
    Purge { queue: u64, pick: u64, count: u64 },
    Delivered { queue: u64, pick: u64 },
    Mark { queue: u64, pick: u64, mark: u64 },
    Define { key: u8, value: u8 },
    Undefine { key: u8 },
    Create,
    Delete { queue: u64 },
    Atomic(Vec<Step>),
    Close,
    Crash,
}

fn plain() -> impl Strategy<Value = Step> {
    let queue = || 0..QUEUES;
    prop_oneof![
        6 => (1u8..16, 0usize..6000).prop_map(|(to, body)| Step::Publish { to, body }),
        1 => (queue(), 500u64..1500).prop_map(|(queue, count)| Step::PublishMany { queue, count }),
        4 => (queue(), any::<u64>()).prop_map(|(queue, pick)| Step::Settle { queue, pick }),
        2 => (queue(), 1usize..1500)
            .prop_map(|(queue, count)| Step::SettleOldest { queue, count }),
        2 => queue().prop_map(|queue| Step::Overtake { queue }),
        1 => (queue(), any::<u64>(), 0u64..2000)
            .prop_map(|(queue, pick, count)| Step::Purge { queue, pick, count }),
        1 => (queue(), any::<u64>()).prop_map(|(queue, pick)| Step::Delivered { queue, pick }),
        3 => (queue(), any::<u64>(), 0u64..3).prop_map(|(queue, pick, mark)| Step::Mark { queue, pick, mark }),
        1 => (0u8..4, any::<u8>()).prop_map(|(key, value)| Step::Define { key, value }),
        1 => (0u8..4).prop_map(|key| Step::Undefine { key }),
        1 => Just(Step::Create),
        1 => queue().prop_map(|queue| Step::Delete { queue }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => plain(),
        2 => proptest::collection::vec(plain(), 1..6).prop_map(Step::Atomic),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ]
}

/// The operations of a step, decided on what the model holds now; the model follows.
fn operations(model: &mut Model, step: &Step) -> Vec<Operation> {
    let ids: Vec<u64> = model.queues.keys().copied().collect();
    let id = |queue: &u64| ids.get(*queue as usize).copied();
    let made = match step {
        Step::Publish { to, body } => {
            let to: Vec<_> = (0..QUEUES)
                .filter(|queue| to & (1 << queue) != 0)
                .filter_map(|queue| id(&queue))
                .map(|id| (id, model.queues[&id].next))
                .collect();
            let Operation::Publish(mut publish) = publish(&to, vec![*body as u8; *body]) else {
                unreachable!()
            };
            publish.due_at_ms = (body % 2 == 1).then_some(*body as u64);
            vec![Operation::Publish(publish)]
        }
        Step::PublishMany { queue, count } => {
            let Some(id) = id(queue) else { return Vec::new() };
            let next = model.queues[&id].next;
            (next..next + count).map(|seq| publish_due(&[(id, seq)], 1 + seq * 7919 % 499)).collect()
        }
        Step::Settle { queue, pick } => {
            let Some(id) = id(queue) else { return Vec::new() };
            let live: Vec<u64> = model.queues[&id].live.keys().copied().collect();
            let Some(at) = pick.checked_rem(live.len() as u64) else { return Vec::new() };
            vec![settle(id, [live[at as usize]])]
        }
        Step::SettleOldest { queue, count } => {
            let Some(id) = id(queue) else { return Vec::new() };
            vec![settle(id, model.queues[&id].live.keys().copied().take(*count))]
        }
        Step::Overtake { queue } => {
            let Some(id) = id(queue) else { return Vec::new() };
            let next = model.queues[&id].next;
            vec![settle(id, [next]), publish(&[(id, next)], "late")]
        }
        Step::Purge { queue, pick, count } => {
            let Some(id) = id(queue) else { return Vec::new() };
            let Some(first) = pick.checked_rem(model.queues[&id].next) else { return Vec::new() };
            vec![purge(id, first..first + count)]
        }
        Step::Delivered { queue, pick } => {
            let Some(id) = id(queue) else { return Vec::new() };
            let Some(through) = pick.checked_rem(model.queues[&id].next) else { return Vec::new() };
            vec![delivered(id, through)]
        }
        Step::Mark { queue, pick, mark } => {
            let Some(id) = id(queue) else { return Vec::new() };
            // Some are gone, or still to come.
            let Some(first) = pick.checked_rem(model.queues[&id].next) else { return Vec::new() };
            vec![common::mark(id, first..first + 20, *mark)]
        }
        Step::Define { key, value } => {
            vec![Operation::Define { key: vec![*key], value: vec![*value] }]
        }
        Step::Undefine { key } => vec![Operation::Undefine { key: vec![*key] }],
        Step::Create => {
            if ids.len() as u64 == QUEUES {
                return Vec::new();
            }
            model.created += 1;
            vec![create(model.created)]
        }
        Step::Delete { queue } => {
            let Some(id) = id(queue) else { return Vec::new() };
            vec![delete(id)]
        }
        Step::Atomic(steps) => {
            let parts = steps.iter().flat_map(|step| operations(model, step)).collect();
            return vec![Operation::Atomic(parts)];
        }
        Step::Close | Step::Crash => return Vec::new(),
    };
    made.iter().for_each(|operation| model.apply(operation));
    made
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_that_survives(
        steps in proptest::collection::vec(step(), 1..60),
        interval_ms in prop_oneof![Just(0u64), Just(5), Just(3_600_000)],
    ) {
        let options = || Options {
            segment_bytes: 32 << 10,
            checkpoint_interval: Duration::from_millis(interval_ms),
            ..Options::default()
        };
        let mut dirs = vec![tempfile::tempdir().unwrap()];
        let mut model = Model::default();
        let (mut store, _) = Store::open(dirs[0].path(), options()).unwrap();
        let mut session = store.session(nobody());
        for queue in 1..=3 {
            model.created = queue;
            model.apply(&create(queue));
            session.append([create(queue)], Urgency::Lazy);
        }

        for step in steps.iter().chain([&Step::Crash, &Step::Close]) {
            let made = operations(&mut model, step);
            session.append(made, Urgency::Lazy);
            let next_dir = match step {
                Step::Close => {
                    store.close().unwrap();
                    dirs.pop().unwrap()
                }
                Step::Crash => {
                    store.append_and_wait(vec![]).unwrap();
                    crash_between_checkpoints(dirs.last().unwrap().path())
                }
                _ => continue,
            };
            let (opened, recovered) = Store::open(next_dir.path(), options()).unwrap();
            model.check(&read_all(&opened, recovered));
            session = opened.session(nobody());
            store = opened;
            dirs.push(next_dir);
        }
        store.close().unwrap();
    }
}

/// A copy is not made in an instant: one that a checkpoint has changed under our hands is taken
/// again.
fn crash_between_checkpoints(dir: &std::path::Path) -> tempfile::TempDir {
    loop {
        let before = fingerprint(dir);
        let copy = crash(dir);
        if before == fingerprint(dir) {
            return copy;
        }
    }
}

fn fingerprint(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut files = Vec::new();
    for sub in ["", "log", "state"] {
        for entry in std::fs::read_dir(dir.join(sub)).unwrap().flatten() {
            if let Ok(metadata) = entry.metadata() {
                files.push((entry.path(), metadata.len(), metadata.modified().unwrap()));
            }
        }
    }
    files.sort();
    files
}

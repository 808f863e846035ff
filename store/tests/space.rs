//! The log takes at most twice the space of the live messages and two segments, whatever pins it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::*;
use garenne_store::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

const SEGMENT_BYTES: u64 = 16 << 10;

fn quick() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_interval: Duration::from_millis(10),
        lazy_delay: Duration::from_millis(1),
        ..Options::default()
    }
}

/// What is live: numbers and bodies by queue.
#[derive(Default)]
struct Live {
    queues: BTreeMap<u64, BTreeMap<u64, Arc<Vec<u8>>>>,
    next: BTreeMap<u64, u64>,
}

impl Live {
    fn new(queues: u64) -> (Live, Vec<Operation>) {
        let live = Live { queues: (1..=queues).map(|id| (id, BTreeMap::new())).collect(), ..Live::default() };
        (live, (1..=queues).map(create).collect())
    }

    fn publish(&mut self, to: &[u64], body: Vec<u8>) -> Operation {
        let (mut destinations, body) = (Vec::new(), Arc::new(body));
        for queue in to {
            let next = self.next.entry(*queue).or_default();
            self.queues.get_mut(queue).unwrap().insert(*next, body.clone());
            destinations.push((*queue, *next));
            *next += 1;
        }
        publish(&destinations, body.to_vec())
    }

    fn settle(&mut self, queue: u64, seqs: &BTreeSet<u64>) -> Operation {
        self.queues.get_mut(&queue).unwrap().retain(|seq, _| !seqs.contains(seq));
        settle(queue, seqs.iter().copied())
    }

    /// What all records take of which a queue still has the message.
    fn bytes(&self) -> u64 {
        const RECORD_BYTES: usize = 120;
        let bodies: BTreeMap<*const Vec<u8>, usize> = self
            .queues
            .values()
            .flat_map(|queue| queue.values())
            .map(|body| (Arc::as_ptr(body), body.len()))
            .collect();
        bodies.values().map(|bytes| (bytes + RECORD_BYTES) as u64).sum()
    }

    fn check(&self, reopened: &Reopened) {
        assert!(
            reopened.damage.iter().all(|damage| damage.kind == DamageKind::TornTail),
            "{:?}",
            reopened.damage
        );
        for (queue, messages) in &self.queues {
            let found = reopened.contents.get(queue).into_iter().flatten();
            let found: Vec<(u64, &[u8])> = found.map(|(seq, _, body)| (*seq, &body[..])).collect();
            let expected: Vec<(u64, &[u8])> = messages.iter().map(|(seq, body)| (*seq, &body[..])).collect();
            assert!(
                found == expected,
                "queue {queue}: {} messages instead of {}",
                found.len(),
                expected.len()
            );
        }
    }
}

fn bound(space: Space, segment_bytes: u64) -> u64 {
    2 * space.live_bytes + 2 * segment_bytes
}

/// Waits until the store has come to rest within its bound.
fn comes_to_rest(store: &Store, live: &Live, segment_bytes: u64) -> Space {
    let (began, live_bytes) = (Instant::now(), live.bytes());
    loop {
        let space = store.space().unwrap();
        if space.live_bytes <= live_bytes && space.log_bytes <= bound(space, segment_bytes) {
            return space;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{space:?} is not within its bound");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One step of somebody who wants the disk full of almost nothing.
#[derive(Debug, Clone)]
enum Step {
    /// Messages of this size for a queue and some of its neighbours.
    Publish {
        queue: u64,
        neighbours: u64,
        count: u64,
        bytes: usize,
    },
    /// Each live message of a queue but the first one goes with this chance.
    Settle {
        queue: u64,
        percent: u32,
        seed: u64,
    },
    Transaction {
        queue: u64,
        count: u64,
        bytes: usize,
    },
}

const QUEUES: u64 = 20;

fn step() -> impl Strategy<Value = Step> {
    let queue = 1..=QUEUES;
    prop_oneof![
        3 => (queue.clone(), 0u64..3, 1u64..40, 0usize..2000)
            .prop_map(|(queue, neighbours, count, bytes)| Step::Publish { queue, neighbours, count, bytes }),
        4 => (queue.clone(), 0u32..=100, any::<u64>())
            .prop_map(|(queue, percent, seed)| Step::Settle { queue, percent, seed }),
        1 => (queue, 1u64..10, 0usize..2000)
            .prop_map(|(queue, count, bytes)| Step::Transaction { queue, count, bytes }),
    ]
}

fn operations(live: &mut Live, step: &Step) -> Vec<Operation> {
    match *step {
        Step::Publish { queue, neighbours, count, bytes } => {
            let to: Vec<u64> = (queue..=(queue + neighbours).min(QUEUES)).collect();
            (0..count).map(|n| live.publish(&to, vec![n as u8; bytes])).collect()
        }
        Step::Settle { queue, percent, seed } => {
            let mut random = StdRng::seed_from_u64(seed);
            let there = live.queues[&queue].keys().skip(1).copied();
            let chosen = there.filter(|_| random.random_range(0..100) < percent).collect();
            vec![live.settle(queue, &chosen)]
        }
        Step::Transaction { queue, count, bytes } => {
            vec![Operation::Atomic(
                (0..count).map(|n| live.publish(&[queue], vec![n as u8; bytes])).collect(),
            )]
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_at_most_twice_as_large_as_what_lives(steps in proptest::collection::vec(step(), 1..150)) {
        let dir = tempfile::tempdir().unwrap();
        // Whoever holds it makes the store stand still at its next step.
        let gate = Arc::new(Mutex::new(()));
        let at_gate = Arc::clone(&gate);
        let fault = move |_: &'static str| {
            drop(at_gate.lock());
            Ok(())
        };
        let options = Options { fault: Some(Arc::new(fault)), ..quick() };
        let (store, _) = Store::open(dir.path(), options).unwrap();
        let (mut live, begin) = Live::new(QUEUES);
        store.append_and_wait(begin).unwrap();
        for step in &steps {
            store.append_and_wait(operations(&mut live, step)).unwrap();
        }

        comes_to_rest(&store, &live, SEGMENT_BYTES);

        let held = gate.lock();
        let crashed = crash(dir.path());
        drop(held);
        store.close().unwrap();
        live.check(&reopen(crashed.path()));
        live.check(&reopen(dir.path()));
    }
}

/// Copies of a directory, each taken at a step.
type Copies = Arc<Mutex<Vec<(&'static str, tempfile::TempDir)>>>;

/// Takes a copy of the directory, as a crash would leave it, at each step that the store makes.
fn copies_at_each_step(dir: &Path) -> (Options, Copies) {
    let copies = Copies::default();
    let (taken, path) = (Arc::clone(&copies), dir.to_owned());
    let fault = move |step: &'static str| {
        let mut taken = taken.lock().unwrap();
        // One of each kind and round is enough.
        if taken.iter().filter(|(other, _)| *other == step).count() < 6 {
            taken.push((step, crash(&path)));
        }
        Ok(())
    };
    (Options { fault: Some(Arc::new(fault)), ..quick() }, copies)
}

#[test]
fn a_crash_at_any_step_of_a_roll_or_a_rewrite_leaves_each_live_message_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut live, begin) = Live::new(3);
    {
        let (store, _) = Store::open(dir.path(), quick()).unwrap();
        store.append_and_wait(begin).unwrap();
        for n in 0..300 {
            store
                .append_and_wait(vec![live.publish(&[1 + n % 3, 1 + (n + 1) % 3], vec![n as u8; 500])])
                .unwrap();
        }
        let few: BTreeSet<u64> = (0..200).filter(|seq| seq % 20 != 3).collect();
        store.append_and_wait((1..=3).map(|queue| live.settle(queue, &few)).collect()).unwrap();
        // What has been settled is in every copy that is taken from now on.
    }
    let (options, copies) = copies_at_each_step(dir.path());
    let (store, _) = Store::open(dir.path(), options).unwrap();

    // Large ones that nobody keeps make the log roll, without a live message more.
    for n in 0..60 {
        store.append_and_wait(vec![publish(&[(77, n)], vec![0; 1500])]).unwrap();
    }
    comes_to_rest(&store, &live, SEGMENT_BYTES);
    store.close().unwrap();

    let copies = std::mem::take(&mut *copies.lock().unwrap());
    let steps: BTreeSet<_> = copies.iter().map(|(step, _)| *step).collect();
    for step in
        ["log.roll", "log.rolled", "rewrite.read", "rewrite.append", "rewrite.done", "checkpoint.reclaim"]
    {
        assert!(steps.contains(step), "{step} is not one of {steps:?}");
    }
    for (_, copy) in &copies {
        live.check(&reopen(copy.path()));
    }
    live.check(&reopen(dir.path()));
}

#[test]
fn messages_that_moved_survive_the_loss_of_the_state_database() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), quick()).unwrap();
    let (mut live, begin) = Live::new(1);
    store.append_and_wait(begin).unwrap();
    for n in 0..200 {
        store.append_and_wait(vec![live.publish(&[1], vec![n as u8; 500])]).unwrap();
    }
    let most: BTreeSet<u64> = (0..200).filter(|seq| seq % 50 != 7).collect();
    store.append_and_wait(vec![live.settle(1, &most)]).unwrap();
    comes_to_rest(&store, &live, SEGMENT_BYTES);
    store.close().unwrap();
    assert!(fs::metadata(dir.path().join("log/0000000000000001.seg")).is_err(), "nothing has moved");

    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let reopened = reopen(dir.path());

    let found: BTreeSet<u64> = reopened.contents[&1].iter().map(|(seq, _, _)| *seq).collect();
    assert!(live.queues[&1].keys().all(|seq| found.contains(seq)), "{found:?}");
}

/// For `GARENNE_SPACE_SECONDS`, or one second: a hundred queues, half of them never read to the end, heads
/// that nobody settles, and settlements in any order.
#[test]
fn the_bound_holds_all_the_time_under_load() {
    const QUEUES: u64 = 100;
    const BACKLOG: usize = 3_000;
    let seconds = env::var("GARENNE_SPACE_SECONDS").map_or(1, |seconds| seconds.parse().unwrap());
    let segment_bytes = if seconds < 10 { 256 << 10 } else { 16 << 20 };
    let interval = Duration::from_millis(if seconds < 10 { 20 } else { 1000 });
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes, checkpoint_interval: interval, ..Options::default() };
    let (store, _) = Store::open(dir.path(), options).unwrap();
    let (mut live, begin) = Live::new(QUEUES);
    store.append_and_wait(begin).unwrap();

    let mut random = StdRng::seed_from_u64(7);
    let began = Instant::now();
    let (mut published, mut tell_at) = (0u64, 1);
    let mut worst = 0.0f64;
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut group = Vec::new();
        for _ in 0..200 {
            let queue = random.random_range(1..=QUEUES);
            let bytes = if random.random_ratio(1, 50) { 20_000 } else { random.random_range(0..600) };
            group.push(live.publish(&[queue], vec![queue as u8; bytes]));
            published += 1;
        }
        for _ in 0..20 {
            let queue = random.random_range(1..=QUEUES);
            let there = &live.queues[&queue];
            let excess = there.len().saturating_sub(BACKLOG / QUEUES as usize);
            // The first ten are never settled.
            let chosen = there.keys().skip(10).copied().sample(&mut random, excess);
            group.push(live.settle(queue, &chosen.into_iter().collect()));
        }
        store.append_and_wait(group).unwrap();
        if began.elapsed().as_secs() >= tell_at {
            let space = store.space().unwrap();
            worst = worst.max(space.log_bytes as f64 / bound(space, segment_bytes) as f64);
            if tell_at % 10 == 0 {
                let mib = |bytes: u64| bytes >> 20;
                println!(
                    "{tell_at} s: {published} published, {} MiB live, {} MiB in the log",
                    mib(space.live_bytes),
                    mib(space.log_bytes)
                );
            }
            tell_at += 1;
        }
    }
    println!("at worst {worst:.2} of the bound under load");

    let space = comes_to_rest(&store, &live, segment_bytes);
    println!("at rest {space:?}");
    store.close().unwrap();
    live.check(&reopen(dir.path()));
}

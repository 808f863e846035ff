//! The index of due times: nearly all of it is on disk, and it says exactly what is live and when it is due.

mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use garenne_store::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const HOUR_MS: u64 = 3_600_000;
const BATCH: u64 = 10_000;

fn quick() -> Options {
    Options { checkpoint_interval: Duration::from_millis(50), ..Options::default() }
}

/// A message that says nothing but when it is due.
fn due_at(seq: u64, now_ms: u64, at_ms: u64) -> Operation {
    Operation::Publish(Publish {
        timestamp_ms: now_ms,
        due_at_ms: Some(at_ms),
        destinations: [(QueueId(1), Seq(seq))].into_iter().collect(),
        parts: Parts::default(),
    })
}

/// Waits until the checkpoints have nothing left to do.
fn come_to_rest(store: &Store) -> DueFigures {
    let began = Instant::now();
    loop {
        let figures = store.due_figures().unwrap();
        if figures.in_memory == 0 {
            return figures;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{figures:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// In each queue of [`publish_due`] messages exactly those that are there are listed.
fn check(reopened: &Reopened, step: &str) {
    assert!(
        reopened.damage.iter().all(|damage| damage.kind == DamageKind::TornTail),
        "{step}: {:?}",
        reopened.damage
    );
    for (queue, messages) in &reopened.contents {
        let at_ms = |body: &[u8]| str::from_utf8(body).unwrap().parse::<u64>().unwrap();
        let mut expected: Vec<(u64, Seq)> =
            messages.iter().map(|(seq, _, body)| (at_ms(body), Seq(*seq))).collect();
        expected.sort_unstable();
        let listed = reopened.due.get(queue).cloned().unwrap_or_default();
        assert!(listed == expected, "{step}: {} are listed of {}", listed.len(), expected.len());
    }
}

#[test]
fn a_million_random_times_stay_out_of_memory_and_are_listed_in_order() {
    const MESSAGES: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), quick()).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let (mut expected, mut worst) = (Vec::new(), 0);
    for from in (0..MESSAGES).step_by(BATCH as usize) {
        let times = (from..from + BATCH).map(|seq| (random.random_range(1..HOUR_MS), Seq(seq)));
        let batch: Vec<(u64, Seq)> = times.collect();
        store.append_and_wait(batch.iter().map(|(at_ms, seq)| due_at(seq.0, 1, *at_ms)).collect()).unwrap();
        expected.extend(batch);
        worst = worst.max(store.due_figures().unwrap().in_memory);
    }
    expected.sort_unstable();

    let figures = come_to_rest(&store);
    assert_eq!(figures.in_pages, MESSAGES);
    println!("at worst {worst} in memory; at rest {figures:?}");
    assert!(due(&store, 1, 65_536) == expected);
    // Slices of some part of it.
    let (from, to) = (MESSAGES as usize / 3, MESSAGES as usize / 2);
    let wanted = DueWanted { queue: QueueId(1), after: expected[from], until_ms: expected[to].0, max: 1000 };
    let page = store.due_and_wait(wanted).unwrap();
    assert_eq!(page.entries, expected[from + 1..from + 1001]);
    assert_eq!(page.through, expected[from + 1000]);
    let at_ms = expected[from].0;
    let same: Vec<Seq> = expected.iter().filter(|(at, _)| *at == at_ms).map(|(_, seq)| *seq).collect();
    let found = store.due_at(QueueId(1), at_ms);
    assert!(found.iter().all(|message| message.due_at_ms == Some(at_ms)));
    let mut found: Vec<Seq> = found.iter().map(|message| message.seq).collect();
    found.sort_unstable();
    assert!(!same.is_empty() && found == same, "{found:?} are due then, not {same:?}");
    assert_eq!(store.due_at(QueueId(1), HOUR_MS), []);
    store.close().unwrap();
    assert_eq!(store.due_at(QueueId(1), at_ms), []);

    let began = Instant::now();
    let (store, recovered) = Store::open(dir.path(), quick()).unwrap();
    println!("opened in {:?}", began.elapsed());
    assert_eq!(recovered.queues[0].first_due_ms, Some(expected[0].0));
    assert_eq!(store.due_figures().unwrap().in_memory, 0);
    assert!(due(&store, 1, 65_536) == expected);
    store.close().unwrap();
}

#[test]
fn a_queue_that_keeps_nothing_for_its_year_leaves_nothing_behind() {
    const MESSAGES: u64 = 1_000_000;
    const YEAR_MS: u64 = 365 * 24 * HOUR_MS;
    const WAITING: u64 = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), quick()).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    let mut most = 0;
    for from in (0..MESSAGES).step_by(BATCH as usize) {
        let batch = (from..from + BATCH).map(|seq| due_at(seq, seq, seq + YEAR_MS));
        let consumed = settle(1, from.saturating_sub(WAITING)..(from + BATCH).saturating_sub(WAITING));
        store.append_and_wait(batch.chain([consumed]).collect()).unwrap();
        most = most.max(store.due_figures().unwrap().in_pages);
    }
    let figures = come_to_rest(&store);
    println!("at most {most} in pages; at rest {figures:?}");
    assert!(figures.in_pages <= 4 * WAITING + 100_000, "{figures:?}");

    store.append_and_wait(vec![settle(1, MESSAGES - WAITING..MESSAGES)]).unwrap();
    store.close().unwrap();

    let (store, recovered) = Store::open(dir.path(), quick()).unwrap();
    assert_eq!(store.due_figures().unwrap(), DueFigures::default());
    assert_eq!(recovered.queues[0].first_due_ms, None);
    store.close().unwrap();
}

#[test]
fn a_crash_at_any_step_leaves_each_due_time_once() {
    let dir = tempfile::tempdir().unwrap();
    let copies = Arc::new(Mutex::new(Vec::new()));
    let (taken, path) = (Arc::clone(&copies), dir.path().to_owned());
    let fault = move |step: &'static str| {
        // The log's own steps come much more often.
        if step.starts_with("checkpoint.") || step == "recall.done" {
            let mut taken = taken.lock().unwrap();
            let of_step = taken.iter().filter(|(other, _)| *other == step).count();
            if of_step < 200 && taken.len() % 3 == 0 {
                taken.push((step, Some(crash(&path))));
            } else {
                taken.push((step, None));
            }
        }
        Ok(())
    };
    let options = Options {
        checkpoint_interval: Duration::from_millis(1),
        fault: Some(Arc::new(fault)),
        ..common::options()
    };
    let (store, _) = Store::open(dir.path(), options).unwrap();
    store.append_and_wait(vec![create(1), create(2)]).unwrap();
    let mut random = StdRng::seed_from_u64(2);
    let mut next = 0;
    while copies.lock().unwrap().len() < 500 {
        let messages =
            (next..next + 20).map(|seq| publish_due(&[(1, seq), (2, seq)], random.random_range(1..9999)));
        let messages: Vec<_> = messages.collect();
        next += 20;
        let first: Vec<u64> = (0..30).map(|_| random.random_range(0..next)).collect();
        let second = if next % 500 == 0 { 0..next } else { next - 19..next - 10 };
        store.append_and_wait(messages).unwrap();
        store.append_and_wait(vec![settle(1, first), settle(2, second)]).unwrap();
    }
    store.close().unwrap();

    let copies = std::mem::take(&mut *copies.lock().unwrap());
    let copies: Vec<_> = copies.into_iter().filter_map(|(step, copy)| Some((step, copy?))).collect();
    for (step, copy) in copies.iter().step_by(1 + copies.len() / 100) {
        check(&reopen(copy.path()), step);
    }
    check(&reopen(dir.path()), "closed");
}

#[test]
fn a_lost_state_database_costs_no_due_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), Options { segment_bytes: 16 << 10, ..quick() }).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    for seq in 0..3000 {
        store.append(vec![publish_due(&[(1, seq)], 1 + seq * 7919 % 1009)], Urgency::Lazy);
    }
    store.append_and_wait(vec![settle(1, (0..2900).filter(|seq| seq % 20 != 3))]).unwrap();
    // What is live in the first segments moves, and they die.
    let began = Instant::now();
    while segments(dir.path())[0].ends_with("0000000000000001.seg") {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing was rewritten");
        thread::sleep(Duration::from_millis(5));
    }
    store.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();

    let (store, recovered) = Store::open(dir.path(), options()).unwrap();
    let reopened = read_all(&store, recovered);

    let live = (0..3000).filter(|seq| *seq >= 2900 || seq % 20 == 3);
    let found = &reopened.due[&1];
    assert!(live.clone().all(|seq| found.contains(&(1 + seq * 7919 % 1009, Seq(seq)))));
    assert_eq!(found.len(), reopened.contents[&1].len());
    store.close().unwrap();
    check(&reopen(dir.path()), "rebuilt");
}

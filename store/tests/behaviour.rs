//! What the store promises while nothing is damaged.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, io};

use common::*;
use garenne_store::*;

#[test]
fn an_empty_directory_opens_quickly_and_clean() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();

    let (store, recovered) = Store::open(dir.path(), Options::default()).unwrap();
    println!("opened an empty directory in {:?}", began.elapsed());

    assert!(recovered.clean && recovered.queues.is_empty() && recovered.damage.is_empty());
    store.close().unwrap();
    assert!(reopen(dir.path()).clean);
}

#[test]
fn what_was_waited_for_is_there_after_a_crash_and_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();

    store.append_and_wait(vec![define("queue/jobs", "durable"), create(1)]).unwrap();
    let messages = (0..50).map(|seq| publish(&[(1, seq)], format!("body {seq}"))).collect();
    store.append_and_wait(messages).unwrap();
    store.append_and_wait(vec![settle(1, 10..20), delivered(1, 30)]).unwrap();
    let crashed = crash(dir.path());
    store.close().unwrap();

    let expected: Vec<_> = (0..50)
        .filter(|seq| !(10..20).contains(seq))
        .map(|seq| (seq, seq <= 30, format!("body {seq}").into()))
        .collect();
    let after_crash = reopen(crashed.path());
    let after_close = reopen(dir.path());
    assert_eq!(after_crash.contents[&1], expected);
    assert_eq!(after_close.contents[&1], expected);
    assert_eq!((after_crash.clean, after_close.clean), (false, true));
    assert_eq!(after_close.definitions, [(b"queue/jobs".to_vec(), b"durable".to_vec())]);
    assert_eq!(after_close.queues[0].next_seq, Seq(50));
}

#[test]
fn a_fan_out_is_written_once_and_comes_back_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait((1..=5).map(create).collect()).unwrap();

    let to: Vec<_> = (1..=5).map(|queue| (queue, 7)).collect();
    store.append_and_wait(vec![publish(&to, vec![b'x'; 100_000])]).unwrap();
    store.append_and_wait(vec![settle(3, [7])]).unwrap();
    store.close().unwrap();

    let written: u64 = segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    // A segment that was made ready for what comes next may be there as well.
    assert!(written < 110_000 + (16 << 10), "{written} bytes");
    let recovered = reopen(dir.path());
    assert_eq!(recovered.contents[&5][0].2.len(), 100_000);
    assert_eq!((seqs(&recovered, 1), seqs(&recovered, 3)), (vec![7], vec![]));
}

#[test]
fn a_settlement_that_overtakes_its_publish_kills_it() {
    let dir = tempfile::tempdir().unwrap();
    let (done, checkpoints) = mpsc::channel();
    let fault = Arc::new(move |step: &'static str| {
        if step == "checkpoint.done" {
            let _ = done.send(());
        }
        Ok(())
    });
    let quick = Options { checkpoint_interval: Duration::ZERO, fault: Some(fault), ..options() };
    let (store, _) = Store::open(dir.path(), quick).unwrap();
    store.append_and_wait(vec![create(1), settle(1, [4, 6])]).unwrap();
    checkpoints.recv().unwrap();
    let between = crash(dir.path());

    store.append_and_wait(vec![publish(&[(1, 4)], "late"), publish(&[(1, 5)], "alive")]).unwrap();
    let crashed = crash(dir.path());
    store.close().unwrap();

    assert_eq!(seqs(&reopen(crashed.path()), 1), [5]);
    assert_eq!(seqs(&reopen(dir.path()), 1), [5]);
    let recovered = reopen(between.path());
    assert_eq!((seqs(&recovered, 1), recovered.queues[0].next_seq), (vec![], Seq(7)));
}

#[test]
fn what_names_an_unknown_or_deleted_queue_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1), create(2), publish(&[(1, 0), (2, 0)], "a")]).unwrap();

    store.append_and_wait(vec![delete(1), publish(&[(1, 1), (9, 0)], "b")]).unwrap();
    store.append_and_wait(vec![settle(9, [0]), delivered(1, 5)]).unwrap();
    store.close().unwrap();

    let recovered = reopen(dir.path());
    assert_eq!(recovered.queues.iter().map(|queue| queue.queue.0).collect::<Vec<_>>(), [2]);
    assert_eq!(seqs(&recovered, 2), [0]);
}

#[test]
fn bodies_larger_than_a_segment_have_one_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    let body = |seq: u64| match seq % 3 {
        0 => vec![seq as u8; 300_000],
        1 => vec![seq as u8; 5_000],
        _ => vec![seq as u8; 20],
    };

    let all = (0..30).map(|seq| publish(&[(1, seq)], body(seq))).collect();
    store.append_and_wait(all).unwrap();

    let recovered = reopen(crash(dir.path()).path());
    assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
    let found = &recovered.contents[&1];
    assert_eq!(found.len(), 30);
    assert!(found.iter().all(|(seq, _, found)| *found == body(*seq)));
}

#[test]
fn dead_segments_go_and_the_log_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let quick = Options { checkpoint_interval: Duration::ZERO, ..options() };
    let (store, _) = Store::open(dir.path(), quick).unwrap();
    store.append_and_wait(vec![create(1), publish(&[(1, 0)], "the first stays")]).unwrap();

    for seq in 1..2500 {
        let body = vec![b'x'; 1000];
        store.append(vec![publish(&[(1, seq)], body), settle(1, [seq])], Urgency::Lazy);
        if seq % 20 == 0 {
            store.append_and_wait(vec![]).unwrap();
        }
    }
    store.close().unwrap();

    let recovered = reopen(dir.path());
    assert_eq!((seqs(&recovered, 1), recovered.queues[0].next_seq), (vec![0], Seq(2500)));
    assert!(recovered.clean, "{:?}", recovered.damage);
    assert!(segments(dir.path()).len() < 6, "{:?}", segments(dir.path()));
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();

    let error = Store::open(dir.path(), options()).unwrap_err();

    assert!(matches!(&error, Error::Locked { dir: named } if named == dir.path()));
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    store.close().unwrap();
    reopen(dir.path());
}

#[test]
fn an_unknown_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    reopen(dir.path());

    fs::write(dir.path().join("VERSION"), "garenne-store 3\n").unwrap();

    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::Version { found: 3, supported: 2, .. }));
}

#[test]
fn a_failing_sync_poisons_and_no_later_ticket_becomes_durable() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let (woken, wakes) = mpsc::channel();
    let (told, poisons) = mpsc::channel();
    let failing = Arc::clone(&fails);
    let (store, _) = Store::open(
        dir.path(),
        Options {
            fault: Some(Arc::new(move |step| {
                // Only once: the store must not try again.
                match step == "log.sync" && failing.swap(false, Ordering::SeqCst) {
                    true => Err(io::Error::other("the disk is on fire")),
                    false => Ok(()),
                }
            })),
            on_poison: Some(Arc::new(move |error| told.send(error.to_string()).unwrap())),
            ..options()
        },
    )
    .unwrap();
    let mut session = store.session(Arc::new(move || woken.send(()).unwrap()));
    let good = session.append([create(1)], Urgency::Sync);
    wakes.recv().unwrap();
    assert_eq!(session.durable(), good);

    fails.store(true, Ordering::SeqCst);
    session.append([publish(&[(1, 0)], "x")], Urgency::Sync);
    wakes.recv().unwrap();

    assert!(store.poisoned());
    assert!(poisons.recv().unwrap().contains("the disk is on fire"));
    session.append([publish(&[(1, 1)], "y")], Urgency::Sync);
    assert!(matches!(store.append_and_wait(vec![create(2)]), Err(Error::Poisoned)));
    assert_eq!(session.durable(), good);
    assert!(matches!(store.close(), Err(Error::Poisoned)));
}

#[test]
fn a_full_intake_says_so_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (at_sync, syncs) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let (store, _) = Store::open(
        dir.path(),
        Options {
            intake_bytes_max: 10_000,
            fault: Some(Arc::new(move |step| {
                if step == "log.sync" {
                    let _ = at_sync.send(());
                    let _ = gate.lock().unwrap().recv();
                }
                Ok(())
            })),
            ..options()
        },
    )
    .unwrap();
    let (woken, wakes) = mpsc::channel();
    let mut session = store.session(Arc::new(move || {
        let _ = woken.send(());
    }));
    session.append([create(1)], Urgency::Sync);
    syncs.recv().unwrap();

    // The writer is in its sync; this waits behind it.
    session.append([publish(&[(1, 0)], vec![0; 20_000])], Urgency::Lazy);
    assert!(session.is_full());

    drop(go_on);
    wakes.recv().unwrap();
    store.append_and_wait(vec![]).unwrap();
    assert!(!session.is_full());
    assert_eq!(session.durable(), Ticket(3));
    store.close().unwrap();
}

#[test]
fn lazy_operations_are_written_without_company() {
    let dir = tempfile::tempdir().unwrap();
    let (synced, syncs) = mpsc::channel();
    let fault = Arc::new(move |step: &'static str| {
        if step == "log.sync" {
            let _ = synced.send(());
        }
        Ok(())
    });
    let (store, _) = Store::open(dir.path(), Options { fault: Some(fault), ..options() }).unwrap();
    let mut session = store.session(nobody());

    let ticket = session.append([create(1)], Urgency::Lazy);
    syncs.recv_timeout(Duration::from_secs(20)).unwrap();

    let barrier = store.append(vec![], Urgency::Sync);
    store.append_and_wait(vec![]).unwrap();
    assert!(session.durable() > barrier && barrier > ticket);
    assert!(store.applied() >= ticket);
    store.close().unwrap();
}

#[test]
fn a_purge_takes_what_is_there_and_leaves_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1), publish(&[(1, 3)], "a"), publish(&[(1, 2000)], "b")]).unwrap();

    store.append_and_wait(vec![purge(1, 0..3000), publish(&[(1, 5)], "late")]).unwrap();
    let crashed = crash(dir.path());
    store.close().unwrap();

    assert_eq!(seqs(&reopen(crashed.path()), 1), [5]);
    assert_eq!(seqs(&reopen(dir.path()), 1), [5]);
}

#[test]
fn a_mark_comes_back_with_its_message_wherever_that_lies() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let messages = (0..5).map(|seq| publish(&[(1, seq)], vec![b'x'; 8000]));
    store.append_and_wait([create(1)].into_iter().chain(messages).collect()).unwrap();
    let together = Operation::Atomic(vec![mark(1, [1], 3), settle(1, [0])]);
    store.append_and_wait(vec![mark(1, [0, 1, 2, 9], 2), together, publish(&[(1, 9)], "late")]).unwrap();
    let Operation::Publish(moved) = publish(&[(1, 2)], vec![b'x'; 8000]) else { unreachable!() };
    store.append_and_wait(vec![Operation::Relocate(moved)]).unwrap();
    let crashed = crash(dir.path());
    store.close().unwrap();

    let expected = [((1, 1), 3), ((1, 2), 2)].into();
    assert_eq!(reopen(crashed.path()).marks, expected);
    assert_eq!(reopen(dir.path()).marks, expected);
}

#[test]
fn messages_that_are_due_at_some_time_are_listed_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1), publish(&[(1, 0)], "stays")]).unwrap();
    store
        .append_and_wait(vec![
            publish_due(&[(1, 1)], 70),
            publish_due(&[(1, 2)], 0),
            publish_due(&[(1, 5000)], 60),
        ])
        .unwrap();
    store.append_and_wait(vec![settle(1, [2])]).unwrap();
    let crashed = crash(dir.path());
    store.close().unwrap();

    let expected = [(60, Seq(5000)), (70, Seq(1))];
    assert_eq!(reopen(crashed.path()).due[&1], expected);
    assert_eq!(reopen(dir.path()).due[&1], expected);
}

#[test]
fn what_is_applied_is_read_while_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let quick = Options { checkpoint_interval: Duration::ZERO, ..options() };
    let (store, _) = Store::open(dir.path(), quick).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    let page = |first: u64, last: u64, bytes_max: usize| {
        let run = Run { first: Seq(first), last: Seq(last) };
        let page = store.read_and_wait(Wanted { queue: QueueId(1), run, bytes_max }).unwrap();
        assert!(page.lost.is_empty(), "{:?}", page.lost);
        let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq.0).collect();
        assert!(page.messages.iter().all(|m| m.parts[2] == m.seq.0.to_string().as_bytes()));
        (seqs, page.through.0)
    };

    // Blocks cool down and are forgotten on the way: each checkpoint does its part.
    for from in (0..10_000).step_by(500) {
        let messages = (from..from + 500).map(|seq| publish(&[(1, seq)], seq.to_string()));
        store.append(messages.collect(), Urgency::Sync);
        let settled = (from..from + 500).filter(|seq| seq % 100 != 7);
        let ticket = store.append(vec![settle(1, settled)], Urgency::Sync);
        while store.applied() < ticket {
            std::thread::yield_now();
        }
        let expected: Vec<u64> = (0..from + 500).filter(|seq| seq % 100 == 7).collect();
        assert_eq!(page(0, 20_000, usize::MAX), (expected, 20_000));
    }

    assert_eq!(page(5_000, 5_200, usize::MAX), (vec![5_007, 5_107], 5_200));
    assert_eq!(page(5_000, 5_200, 1), (vec![5_007], 5_007));
    assert_eq!(page(5_008, 5_106, 1), (vec![], 5_106));
    store.close().unwrap();
    let run = Run { first: Seq(0), last: Seq(1) };
    let closed = store.read_and_wait(Wanted { queue: QueueId(1), run, bytes_max: 1 });
    assert!(matches!(closed, Err(Error::Closed)));
}

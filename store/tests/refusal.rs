//! Disks that refuse: a full one is waited for, a broken one ends the store, and neither costs anything that
//! was promised.

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::*;
use garenne_store::*;

/// A disk that refuses one kind of step while told to.
struct Disk {
    step: &'static str,
    error: fn() -> io::Error,
    refuses: AtomicBool,
    refused: Mutex<mpsc::Sender<()>>,
}

impl Disk {
    fn new(step: &'static str, error: fn() -> io::Error) -> (Arc<Disk>, mpsc::Receiver<()>) {
        let (refused, refusals) = mpsc::channel();
        let disk = Disk { step, error, refuses: AtomicBool::new(false), refused: Mutex::new(refused) };
        (Arc::new(disk), refusals)
    }

    fn options(self: &Arc<Disk>) -> Options {
        let disk = Arc::clone(self);
        let fault = move |step: &'static str| {
            if step != disk.step || !disk.refuses.load(Ordering::SeqCst) {
                return Ok(());
            }
            let _ = disk.refused.lock().unwrap().send(());
            Err((disk.error)())
        };
        Options { checkpoint_interval: Duration::from_millis(10), fault: Some(Arc::new(fault)), ..options() }
    }

    fn set(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn broken() -> io::Error {
    io::Error::other("input/output error")
}

/// A hundred bytes more than half a segment: every other one needs a new segment.
fn large(seq: u64) -> Operation {
    publish(&[(1, seq)], vec![seq as u8; 8 << 10])
}

#[test]
fn a_full_disk_holds_everything_up_and_then_all_goes_on() {
    for step in ["log.write", "log.create", "checkpoint.room"] {
        let dir = tempfile::tempdir().unwrap();
        let (disk, refusals) = Disk::new(step, full);
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let on_full: OnFull = Arc::new(move |reason| tell.lock().unwrap().push(reason.is_some()));
        let (store, _) =
            Store::open(dir.path(), Options { on_full: Some(on_full), ..disk.options() }).unwrap();
        store.append_and_wait(vec![create(1), large(0)]).unwrap();

        disk.set(true);
        let confirmed = Arc::new(AtomicU64::new(0));
        let publisher = {
            let (store, confirmed) = (store.clone(), Arc::clone(&confirmed));
            thread::spawn(move || {
                for seq in 1..20 {
                    store.append_and_wait(vec![large(seq)]).unwrap();
                    confirmed.store(seq, Ordering::SeqCst);
                }
            })
        };
        // Refused again and again, while a step that is refused says nothing durable.
        for _ in 0..3 {
            refusals.recv().unwrap();
        }
        assert!(!store.poisoned(), "{step}");
        if step == "log.write" {
            assert_eq!(confirmed.load(Ordering::SeqCst), 0, "confirmed before it was written");
        }
        disk.set(false);
        publisher.join().unwrap();

        store.close().unwrap();
        let told = told.lock().unwrap().clone();
        assert!(told.len() >= 2 && told.iter().step_by(2).all(|is_full| *is_full), "{step}: {told:?}");
        assert!(told.iter().skip(1).step_by(2).all(|is_full| !*is_full), "{step}: {told:?}");
        assert_eq!(seqs(&reopen(dir.path()), 1), (0..20).collect::<Vec<_>>(), "{step}");
    }
}

#[test]
fn a_store_that_closes_does_not_wait_for_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, refusals) = Disk::new("log.write", full);
    let (store, _) = Store::open(dir.path(), disk.options()).unwrap();
    store.append_and_wait(vec![create(1), large(0)]).unwrap();
    disk.set(true);
    store.append(vec![large(1)], Urgency::Sync);
    refusals.recv().unwrap();

    assert!(matches!(store.close(), Err(Error::Poisoned)));

    assert_eq!(seqs(&reopen(dir.path()), 1), [0]);
}

/// Whatever fails, all that was durable before is there afterwards, and nothing becomes durable any more.
#[test]
fn after_any_step_that_fails_nothing_more_is_confirmed_and_nothing_confirmed_is_lost() {
    let steps = [
        ("log.write", broken as fn() -> io::Error),
        ("log.sync", broken),
        // A sync that fails for want of room has lost what was written, too.
        ("log.sync", full),
        ("log.create", broken),
        ("log.roll", broken),
        ("log.rolled", broken),
        ("checkpoint.backup", broken),
        ("checkpoint.batch", broken),
        ("checkpoint.flush", broken),
        ("checkpoint.sync", broken),
        ("checkpoint.sync", full),
        ("checkpoint.reclaim", broken),
    ];
    for (step, error) in steps {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _refusals) = Disk::new(step, error);
        let (store, _) = Store::open(dir.path(), disk.options()).unwrap();
        store.append_and_wait(vec![create(1)]).unwrap();
        let mut confirmed = Vec::new();
        for seq in 0..2000 {
            if seq == 10 {
                disk.set(true);
            }
            // A new definition each time, so that a checkpoint has its backup to write.
            match store.append_and_wait(vec![large(seq), define("a", &seq.to_string()), settle(1, [seq])]) {
                Ok(()) => confirmed.push(seq),
                Err(Error::Poisoned) => break,
                Err(error) => panic!("{step}: {error}"),
            }
        }
        assert!(store.poisoned(), "{step} was never taken");
        let kept = publish(&[(1, 5000)], "late");
        assert!(matches!(store.append_and_wait(vec![kept]), Err(Error::Poisoned)), "{step}");
        assert!(matches!(store.close(), Err(Error::Poisoned)), "{step}");

        let reopened = reopen(dir.path());
        let last: u64 = String::from_utf8(reopened.definitions[0].1.clone()).unwrap().parse().unwrap();
        assert!(last >= *confirmed.last().unwrap(), "{step}: {last} is less than what was confirmed");
        // One group more may have reached the disk without anybody having been told.
        assert!(last <= confirmed.last().unwrap() + 1, "{step}");
    }
}

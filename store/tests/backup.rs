//! A backup of a store that goes on: what was there before the call is in it, and it is a directory like any other.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use garenne_store::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Checkpoints as often as can be.
fn quick() -> Options {
    Options {
        segment_bytes: 16 << 10,
        checkpoint_interval: Duration::from_millis(5),
        lazy_delay: Duration::from_millis(1),
        ..Options::default()
    }
}

fn body(seq: u64) -> String {
    format!("<message {seq}>{}", "x".repeat(300))
}

/// The segments of a directory by their numbers.
fn ids(dir: &Path) -> BTreeSet<u64> {
    let ids = segments(dir).into_iter().map(|path| path.file_stem().unwrap().to_str().unwrap().parse());
    ids.map(Result::unwrap).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it has not come to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

type Work = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Does something at one step of the store, once it is told what.
#[derive(Clone, Default)]
struct At(Arc<OnceLock<(&'static str, Work)>>);

impl At {
    fn options(&self, options: Options) -> Options {
        let at = self.clone();
        let hook = move |step: &'static str| match at.0.get() {
            Some((wanted, work)) if *wanted == step => work(),
            _ => Ok(()),
        };
        Options { fault: Some(Arc::new(hook)), ..options }
    }

    fn set(&self, step: &'static str, work: impl Fn() -> io::Result<()> + Send + Sync + 'static) {
        assert!(self.0.set((step, Box::new(work))).is_ok(), "it is set once");
    }
}

#[test]
fn a_backup_has_what_was_there_and_nothing_that_was_settled() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1), define("a", "1"), create(2)]).unwrap();
    for seq in 0..200 {
        store.append(vec![publish(&[(1, seq), (2, seq)], body(seq))], Urgency::Lazy);
    }
    store.append(vec![publish_due(&[(2, 200)], 9000)], Urgency::Lazy);
    store.append(vec![settle(1, 0..150), mark(1, [160], 7), delivered(1, 155)], Urgency::Lazy);
    let to = other.path().join("deep/monday");

    let backed_up = store.back_up(&to).unwrap();

    // What comes later is none of its business.
    store.append_and_wait(vec![settle(1, 150..200), define("a", "2"), delete(2)]).unwrap();
    let copy = reopen(&to);
    assert!(copy.damage.is_empty(), "{:?}", copy.damage);
    assert_eq!(copy.definitions, [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!(seqs(&copy, 1), (150..200).collect::<Vec<_>>());
    assert_eq!(seqs(&copy, 2), (0..201).collect::<Vec<_>>());
    assert_eq!(copy.due[&2], [(9000, Seq(200))]);
    assert!(
        copy.contents[&1]
            .iter()
            .all(|(seq, redelivered, text)| *text == body(*seq) && *redelivered == (*seq <= 155))
    );
    assert_eq!(copy.marks[&(1, 160)], 7);
    assert_eq!(
        (1..=backed_up.segments as u64).collect::<BTreeSet<_>>(),
        ids(&to).into_iter().take(backed_up.segments).collect()
    );
    assert!(backed_up.bytes > 200 * 300);
}

#[test]
fn a_backup_of_an_empty_store_is_an_empty_store() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(dir.path(), options()).unwrap();

    store.back_up(to.path()).unwrap();

    let copy = reopen(to.path());
    assert!(copy.damage.is_empty() && copy.queues.is_empty());
}

/// What dies while a backup copies the log stays until that is done, and goes then.
#[test]
fn segments_that_die_while_they_are_copied_are_copied_whole() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = At::default();
    let (store, _) = Store::open(dir.path(), at.options(quick())).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    for seq in 0..300 {
        store.append(vec![publish(&[(1, seq)], body(seq))], Urgency::Lazy);
    }
    store.append_and_wait(vec![]).unwrap();
    let before = ids(dir.path());
    assert!(before.len() > 4, "{before:?}");
    let (held, path) = (Arc::new(OnceLock::new()), dir.path().to_owned());
    {
        let (held, store, before) = (held.clone(), store.clone(), before.clone());
        at.set("backup.log", move || {
            // All of it dies, and so much follows that dead segments are wanted for a new life.
            store.append_and_wait(vec![settle(1, 0..300)]).unwrap();
            for seq in 300..900 {
                store.append(vec![publish(&[(1, seq)], body(seq))], Urgency::Lazy);
                if seq % 50 == 0 {
                    store.append_and_wait(vec![settle(1, 300..seq)]).unwrap();
                }
            }
            wait_until("checkpoints have nothing left to say", || {
                store.space().unwrap().live_bytes < 60 * 400
            });
            let _ = held.set(ids(&path).is_superset(&before));
            Ok(())
        });
    }

    let to = other.path().join("copy");
    store.back_up(&to).unwrap();

    assert_eq!(held.get(), Some(&true), "no segment went while it could be wanted");
    let copy = reopen(&to);
    assert!(copy.damage.is_empty(), "{:?}", copy.damage);
    assert_eq!(seqs(&copy, 1), (0..300).collect::<Vec<_>>());
    assert!(copy.contents[&1].iter().all(|(seq, _, text)| *text == body(*seq)));
    wait_until("the dead ones are gone", || ids(dir.path()).is_disjoint(&before));
}

/// Publishers, consumers, checkpoints and rewrites go on while one backup after the other is made.
#[test]
fn a_backup_under_load_has_all_that_was_told_before() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(dir.path(), quick()).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    let (published, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // One in sixteen stays, which makes segments sparse.
    let stays = |seq: &u64| seq.is_multiple_of(16);
    let settled = Arc::new(Mutex::new(0));
    let load = {
        let (store, published, is_over, settled) =
            (store.clone(), published.clone(), is_over.clone(), settled.clone());
        thread::spawn(move || {
            let mut seq = 0;
            while !is_over.load(Ordering::SeqCst) {
                let batch = (seq..seq + 64).map(|seq| publish(&[(1, seq)], body(seq))).collect();
                store.append_and_wait(batch).unwrap();
                published.store(seq + 64, Ordering::SeqCst);
                store.append_and_wait(vec![settle(1, (seq..seq + 64).filter(|seq| !stays(seq)))]).unwrap();
                *settled.lock().unwrap() = seq + 64;
                seq += 64;
            }
        })
    };

    for round in 0..4 {
        let enough = (round + 1) * 1500;
        wait_until("there is something to keep", || published.load(Ordering::SeqCst) > enough);
        let to = other.path().join(round.to_string());
        let (settled, published) = (*settled.lock().unwrap(), published.load(Ordering::SeqCst));

        store.back_up(&to).unwrap();

        let copy = reopen(&to);
        assert!(copy.damage.is_empty(), "{:?}", copy.damage);
        let found: BTreeSet<u64> = seqs(&copy, 1).into_iter().collect();
        let wrong = |seq: &u64| match *seq < settled {
            true => found.contains(seq) != stays(seq),
            false => !found.contains(seq) && stays(seq),
        };
        assert_eq!((0..published).find(wrong), None, "of {published}, {settled} of them settled");
        assert!(copy.contents[&1].iter().all(|(seq, _, text)| *text == body(*seq)));
    }
    is_over.store(true, Ordering::SeqCst);
    load.join().unwrap();
}

#[test]
fn a_backup_of_a_backup_is_as_good() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(dir.path(), quick()).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    for seq in 0..100 {
        store.append(vec![publish(&[(1, seq)], body(seq))], Urgency::Lazy);
    }
    let (first, second) = (other.path().join("1"), other.path().join("2"));
    store.back_up(&first).unwrap();

    let (copy, _) = Store::open(&first, quick()).unwrap();
    copy.append_and_wait(vec![settle(1, 0..90)]).unwrap();
    copy.back_up(&second).unwrap();

    assert_eq!(seqs(&reopen(&second), 1), (90..100).collect::<Vec<_>>());
    // Nothing of one reaches into the other.
    store.close().unwrap();
    assert_eq!(seqs(&reopen(dir.path()), 1), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_backup_that_did_not_come_to_its_end_is_not_opened() {
    for step in ["backup.state", "backup.log", "backup.version"] {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, left) = (At::default(), other.path().join("left"));
        let (store, _) = Store::open(dir.path(), at.options(options())).unwrap();
        store.append_and_wait(vec![create(1), publish(&[(1, 0)], "x")]).unwrap();
        let to = other.path().join("copy");
        {
            let (to, left) = (to.clone(), left.clone());
            at.set(step, move || {
                copy_tree(&to, &left);
                Err(io::Error::other("the cable"))
            });
        }

        let error = store.back_up(&to).unwrap_err();

        assert!(error.to_string().contains("the cable"), "{error}");
        assert!(!to.exists(), "it is cleared away");
        let error = Store::open(&left, options()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("a backup was not finished"), "{error}");
        store.append_and_wait(vec![publish(&[(1, 1)], "y")]).unwrap();
    }
}

#[test]
fn a_backup_goes_where_there_is_nothing_and_says_why_not() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    fs::write(other.path().join("file"), "x").unwrap();
    std::os::unix::fs::symlink(dir.path(), other.path().join("link")).unwrap();
    let check = |to: &Path, reason: &str| {
        let error = store.back_up(to).unwrap_err();
        assert!(matches!(error, Error::Backup { .. }) && error.to_string().contains(reason), "{error}");
    };

    check("relative/path".as_ref(), "whole path");
    check(&other.path().join("a/../b"), "without ..");
    check(other.path(), "not empty");
    check(&other.path().join("file"), "a file of that name");
    check(dir.path(), "inside the data directory");
    check(&dir.path().join("new/deep"), "inside the data directory");
    check(&other.path().join("link/new"), "inside the data directory");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 2, "nothing was made");
}

#[test]
fn a_disk_without_room_is_left_alone() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = At::default();
    let (store, _) = Store::open(dir.path(), at.options(options())).unwrap();
    at.set("backup.room", || Err(io::ErrorKind::StorageFull.into()));

    let error = store.back_up(&other.path().join("copy")).unwrap_err();

    assert!(error.to_string().contains("are free there; free some"), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn one_backup_at_a_time_and_none_of_a_closed_store() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = At::default();
    let (store, _) = Store::open(dir.path(), at.options(options())).unwrap();
    let second = Arc::new(Mutex::new(String::new()));
    {
        let (second, store, to) = (second.clone(), store.clone(), other.path().join("second"));
        at.set("backup.state", move || {
            *second.lock().unwrap() = store.back_up(&to).unwrap_err().to_string();
            Ok(())
        });
    }

    store.back_up(&other.path().join("first")).unwrap();

    assert!(second.lock().unwrap().contains("another backup is being written"));
    assert!(!other.path().join("second").exists());
    store.close().unwrap();
    assert!(matches!(store.back_up(&other.path().join("third")).unwrap_err(), Error::Closed));
    assert!(!other.path().join("third").exists());
}

/// Whoever closes does not wait for the copy of a large log.
#[test]
fn a_store_that_closes_ends_its_backup() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = At::default();
    let (store, _) = Store::open(dir.path(), at.options(options())).unwrap();
    store.append_and_wait(vec![create(1), publish(&[(1, 0)], "x")]).unwrap();
    {
        let store = store.clone();
        at.set("backup.log", move || {
            store.close().unwrap();
            Ok(())
        });
    }
    let to = other.path().join("copy");

    let error = store.back_up(&to).unwrap_err();

    assert!(matches!(error, Error::Closed), "{error}");
    assert!(!to.exists());
    assert_eq!(seqs(&reopen(dir.path()), 1), [0]);
}

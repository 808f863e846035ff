//! The format on disk: what this version reads, every later one has to read.
//!
//! Each of `fixtures` is a data directory as a crash left it: definitions, messages of all kinds in sealed
//! segments, in an open one, before and behind the checkpoint, settled, purged, moved, in transactions, for
//! several queues, due at some time; since format 2 also with marks. They are never written again; a new
//! format gets a new one (`cargo test -p garenne-store --test format -- --ignored` makes it).

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use garenne_store::*;

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

fn body(n: u64) -> Vec<u8> {
    format!("body {n} ").into_bytes().repeat(1 + n as usize % 40)
}

fn due_at(queue: u64, seq: u64, at_ms: u64) -> Operation {
    let Operation::Publish(mut message) = publish(&[(queue, seq)], body(seq)) else { unreachable!() };
    message.due_at_ms = Some(at_ms);
    Operation::Publish(message)
}

/// What is in the first queue: of two hundred messages every tenth, and what came behind the checkpoint.
fn in_the_first() -> Vec<u64> {
    (0..200).step_by(10).chain(200..210).collect()
}

#[test]
fn a_directory_of_format_1_is_read_whole() {
    is_read_whole(1);
}

#[test]
fn a_directory_of_format_2_is_read_whole() {
    let again = is_read_whole(2);

    assert_eq!(again.marks, [((1, 10), 7), ((1, 205), 2), ((4, 1), 3)].into());
}

/// What is there after it was opened once, and closed.
fn is_read_whole(format: u32) -> Reopened {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&fixture(format), dir.path());
    let version = fs::read_to_string(dir.path().join("VERSION")).unwrap();
    assert_eq!(version, format!("garenne-store {format}\n"));

    let reopened = reopen(dir.path());

    let damage: Vec<_> = reopened.damage.iter().filter(|d| d.kind != DamageKind::TornTail).collect();
    assert!(damage.is_empty(), "{damage:?}");
    let definitions: Vec<(&[u8], &[u8])> =
        reopened.definitions.iter().map(|(k, v)| (&k[..], &v[..])).collect();
    assert_eq!(definitions, [(&b"a"[..], &b"one"[..]), (b"b", b"changed behind the checkpoint")]);
    let ids: Vec<u64> = reopened.queues.iter().map(|queue| queue.queue.0).collect();
    assert_eq!(ids, [1, 2, 4], "3 was deleted");

    let first = &reopened.contents[&1];
    assert_eq!(seqs(&reopened, 1), in_the_first());
    assert!(first.iter().all(|(seq, _, found)| *found == body(*seq)));
    assert!(first.iter().all(|(seq, redelivered, _)| *redelivered == (*seq <= 50)));
    assert_eq!(seqs(&reopened, 2), [0, 20, 40, 60, 80, 100, 120, 140, 160, 180]);
    assert_eq!(seqs(&reopened, 4), [0, 1, 3000, 3001]);
    assert_eq!(reopened.due[&4], [(60, Seq(3001)), (70, Seq(1))]);
    assert_eq!(reopened.queues[2].first_due_ms, Some(60));
    assert_eq!(reopened.queues[2].next_seq, Seq(3002));
    // And it goes on from there, in the newest format.
    let again = reopen(dir.path());
    assert_eq!(fs::read_to_string(dir.path().join("VERSION")).unwrap(), "garenne-store 2\n");
    assert!(again.clean);
    assert_eq!(again.contents, reopened.contents);
    assert_eq!((&again.due, &again.marks), (&reopened.due, &reopened.marks));
    again
}

#[test]
#[ignore = "writes the fixture of a new format"]
fn make_the_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&steps);
    let fault = move |step: &'static str| {
        taken.lock().unwrap().push(step);
        Ok(())
    };
    let options = Options {
        segment_bytes: 8 << 10,
        checkpoint_interval: Duration::from_millis(20),
        fault: Some(Arc::new(fault)),
        ..Options::default()
    };
    let (store, _) = Store::open(dir.path(), options).unwrap();
    let run = |operations: Vec<Operation>| store.append_and_wait(operations).unwrap();
    run(vec![
        create(1),
        create(2),
        create(3),
        create(4),
        define("a", "one"),
        define("b", "two"),
        define("c", "gone"),
    ]);
    for n in 0..200 {
        match n % 2 {
            0 => run(vec![publish(&[(1, n), (2, n)], body(n))]),
            _ => run(vec![Operation::Atomic(vec![publish(&[(1, n)], body(n)), publish(&[(3, n)], body(n))])]),
        }
    }
    run(vec![publish(&[(4, 0)], body(0)), due_at(4, 1, 70), delivered(1, 50)]);
    run(vec![mark(1, [9, 10], 7), mark(4, [1], 3)]);
    run(vec![settle(1, (0..200).filter(|n| n % 10 != 0))]);
    run(vec![purge(2, (0..200).filter(|n| n % 20 != 0))]);
    run(vec![delete(3), Operation::Undefine { key: b"c".to_vec() }]);
    let began = Instant::now();
    while !steps.lock().unwrap().contains(&"rewrite.done") {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing was rewritten");
        std::thread::sleep(Duration::from_millis(5));
    }
    store.close().unwrap();
    let (store, _) =
        Store::open(dir.path(), Options { segment_bytes: 8 << 10, ..common::options() }).unwrap();
    let run = |operations: Vec<Operation>| store.append_and_wait(operations).unwrap();
    run((200..210).map(|n| publish(&[(1, n)], body(n))).collect());
    run(vec![publish(&[(4, 3000)], body(3000)), due_at(4, 3001, 60)]);
    run(vec![mark(1, [205], 2)]);
    run(vec![define("b", "changed behind the checkpoint")]);

    let fixture = fixture(2);
    let _ = fs::remove_dir_all(&fixture);
    copy_tree(dir.path(), &fixture);
    fs::remove_file(fixture.join("LOCK")).unwrap();
}

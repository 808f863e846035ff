//! A look into a directory finds what a start would find, and leaves every byte as it is.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::*;
use garenne_store::*;

fn body(seq: u64) -> String {
    format!("<message {seq}>{}", "x".repeat(200))
}

/// Two hundred messages in several segments, every other one settled; as a crash leaves it, never checkpointed.
fn crashed_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1), define("a", "1")]).unwrap();
    for seq in 0..200 {
        store.append(vec![publish(&[(1, seq)], body(seq))], Urgency::Lazy);
    }
    store.append_and_wait(vec![settle(1, (1..200).step_by(2)), mark(1, [8], 3), delivered(1, 4)]).unwrap();
    crash(dir.path())
}

/// The same after a stop in order.
fn closed_store() -> tempfile::TempDir {
    let dir = crashed_store();
    reopen(dir.path());
    dir
}

/// Every file but the lock, which has nothing in it.
fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => files
                .extend(bytes_of(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes))),
            false => drop(files.insert(name, fs::read(&path).unwrap())),
        }
    }
    files
}

/// All that is found: numbers, marks, damage at once and damage of messages.
fn look(dir: &Path, depth: Depth) -> (Inspection, Vec<(u64, u64)>, Vec<Damage>) {
    let before = bytes_of(dir);
    let mut found = Inspection::open(dir, depth).unwrap();
    let (mut messages, mut lost) = (Vec::new(), Vec::new());
    for queue in found.queues.clone() {
        let mut run = Run { first: Seq(0), last: queue.next_seq };
        while run.first <= run.last {
            let page = found.read(Wanted { queue: queue.queue, run, bytes_max: 5000 });
            for message in page.messages {
                assert_eq!(message.parts[2], body(message.seq.0));
                messages.push((message.seq.0, message.mark));
            }
            lost.extend(page.lost);
            run.first = Seq(page.through.0 + 1);
        }
    }
    assert!(before == bytes_of(dir), "something was changed");
    (found, messages, lost)
}

fn live() -> Vec<(u64, u64)> {
    (0..200).step_by(2).map(|seq| (seq, if seq == 8 { 3 } else { 0 })).collect()
}

#[test]
fn a_look_finds_what_a_start_finds() {
    for (dir, clean) in [(closed_store(), true), (crashed_store(), false)] {
        for depth in [Depth::Tail, Depth::Everything] {
            let (found, messages, lost) = look(dir.path(), depth);

            assert!(found.damage.is_empty() && lost.is_empty(), "{:?} {lost:?}", found.damage);
            assert_eq!((found.clean, found.definitions.len()), (clean, 1));
            assert_eq!(messages, live());
            assert_eq!(found.queues[0].delivered_below, Seq(5));
            let records: u64 = found.segments.iter().map(|segment| segment.records).sum();
            // A record a message, and those of the queue, the definition, settlements, marks and deliveries.
            let expected = if depth == Depth::Everything || !clean { 205 } else { 0 };
            assert_eq!(records, expected);
        }
    }
}

#[test]
fn a_torn_tail_is_told_as_one() {
    let dir = crashed_store();
    let (last, at) = find(dir.path(), body(199).as_bytes());
    fs::OpenOptions::new().write(true).open(last).unwrap().set_len(at as u64 + 50).unwrap();

    let (found, messages, lost) = look(dir.path(), Depth::Everything);

    let [torn] = found.damage.as_slice() else { panic!("{:?}", found.damage) };
    assert_eq!((torn.kind, lost.len()), (DamageKind::TornTail, 0));
    assert_eq!(messages.len(), 199, "the settlements are torn off, too");
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    // Of a message that lives: the record is a hole, and the message is named.
    let dir = closed_store();
    let (path, at) = find(dir.path(), body(50).as_bytes());
    flip(&path, at);
    let (found, messages, lost) = look(dir.path(), Depth::Everything);
    let [hole] = found.damage.as_slice() else { panic!("{:?}", found.damage) };
    assert_eq!(hole.kind, DamageKind::Hole);
    assert!((hole.offset..hole.offset + hole.bytes).contains(&(at as u64)));
    assert_eq!((messages.len(), lost.len()), (99, 1));
    assert_eq!(
        (lost[0].messages.as_slice(), lost[0].offset),
        ([(QueueId(1), Seq(50))].as_slice(), hole.offset)
    );

    // Of one that was settled: nobody misses it, and it is told all the same.
    let dir = closed_store();
    let (path, at) = find(dir.path(), body(151).as_bytes());
    flip(&path, at);
    let (found, messages, lost) = look(dir.path(), Depth::Everything);
    assert_eq!((found.damage.len(), lost.len(), messages), (1, 0, live()));
    assert!(look(dir.path(), Depth::Tail).0.damage.is_empty(), "a start does not read there");

    // Of the state database: the log says the same.
    let dir = closed_store();
    let file = dir.path().join("state/db");
    let bytes = fs::read(&file).unwrap();
    (0..bytes.len()).step_by(7).filter(|at| bytes[*at] != 0).take(40).for_each(|at| flip(&file, at));
    let (found, messages, _) = look(dir.path(), Depth::Everything);
    assert_eq!(found.damage[0].kind, DamageKind::State);
    assert!(found.damage[0].detail.contains("a start sets it aside"), "{:?}", found.damage);
    assert_eq!(messages, live());
}

#[test]
fn what_is_missing_is_told() {
    let dir = closed_store();
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    fs::write(dir.path().join("definitions.backup"), "what").unwrap();

    let (found, messages, lost) = look(dir.path(), Depth::Everything);

    let kinds: Vec<_> = found.damage.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::State, DamageKind::Missing], "{:?}", found.damage);
    assert!(found.damage[0].detail.starts_with("definitions.backup cannot be read"));
    let lost: usize = lost.iter().map(|damage| damage.messages.len()).sum();
    assert!(lost > 10 && messages.len() + lost == 100);
}

#[test]
fn what_is_no_directory_of_a_store_or_in_use_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let error = Inspection::open(dir.path(), Depth::Tail).unwrap_err();
    assert!(matches!(error, Error::NoData { .. }), "{error}");

    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let error = Inspection::open(dir.path(), Depth::Tail).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");

    store.close().unwrap();
    let first = Inspection::open(dir.path(), Depth::Tail).unwrap();
    let second = Inspection::open(dir.path(), Depth::Everything).unwrap();
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop((first, second));
    assert!(Store::open(dir.path(), options()).is_ok());

    fs::remove_file(dir.path().join("VERSION")).unwrap();
    let error = Inspection::open(dir.path(), Depth::Tail).unwrap_err();
    assert!(error.to_string().contains("a backup was not finished"), "{error}");
}

/// Directories of every format that there was.
#[test]
fn old_directories_are_looked_at_as_they_are() {
    for format in [1, 2] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"));
        let copy = tempfile::tempdir().unwrap();
        copy_tree(&fixture, copy.path());
        let before = bytes_of(copy.path());

        let found = Inspection::open(copy.path(), Depth::Everything).unwrap();

        assert_eq!((found.format, before), (format, bytes_of(copy.path())));
        let queues = found.queues.clone();
        drop(found);
        assert_eq!(queues, reopen(copy.path()).queues);
    }
}

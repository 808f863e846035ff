//! What is lost when the disk lies, and what is not.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use garenne_store::*;

/// Two hundred messages in several segments; the crashed directory, never checkpointed.
fn crashed_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    for seq in 0..200 {
        store.append(vec![publish(&[(1, seq)], body(seq))], Urgency::Lazy);
    }
    store.append_and_wait(vec![]).unwrap();
    crash(dir.path())
}

fn body(seq: u64) -> String {
    format!("<message {seq}>{}", "x".repeat(200))
}

fn without(seq: u64) -> Vec<u64> {
    (0..200).filter(|other| *other != seq).collect()
}

#[test]
fn a_torn_tail_costs_only_what_is_torn() {
    let crashed = crashed_store();
    // One that was made ready may stand behind it.
    let (last, _) = find(crashed.path(), body(199).as_bytes());
    let whole = fs::read(&last).unwrap();
    let len = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;

    // Every byte is tried by the unit test of the scan; here whole starts, at some of them.
    let mut before = 200;
    for cut in (0..4096.min(len - 32)).step_by(311) {
        let copy = crash(crashed.path());
        let last = copy.path().join("log").join(last.file_name().unwrap());
        fs::OpenOptions::new().write(true).open(last).unwrap().set_len((len - cut) as u64).unwrap();

        let recovered = reopen(copy.path());

        let found = seqs(&recovered, 1);
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        assert!(found.len() <= before && found.len() >= 200 - cut / 200 - 2);
        assert!(
            recovered.damage.iter().all(|damage| damage.kind == DamageKind::TornTail),
            "{:?}",
            recovered.damage
        );
        before = found.len();
    }
}

#[test]
fn a_flipped_bit_in_an_old_segment_costs_one_message_and_says_where() {
    let crashed = crashed_store();
    let (path, at) = find(crashed.path(), body(5).as_bytes());
    assert_ne!(path, *segments(crashed.path()).last().unwrap());
    flip(&path, at + 20);

    let recovered = reopen(crashed.path());

    assert_eq!(seqs(&recovered, 1), without(5));
    let [damage] = recovered.damage.as_slice() else { panic!("{:?}", recovered.damage) };
    assert_eq!((damage.kind, damage.segment), (DamageKind::Hole, 1));
    assert!((damage.offset..damage.offset + damage.bytes).contains(&(at as u64)));
    assert_eq!(seqs(&reopen(crashed.path()), 1), without(5));
}

#[test]
fn a_flipped_bit_behind_the_checkpoint_names_the_message() {
    let crashed = crashed_store();
    reopen(crashed.path());
    let (path, at) = find(crashed.path(), body(77).as_bytes());
    flip(&path, at);

    let recovered = reopen(crashed.path());

    assert_eq!(seqs(&recovered, 1), without(77));
    let [damage] = recovered.damage.as_slice() else { panic!("{:?}", recovered.damage) };
    assert_eq!(damage.kind, DamageKind::Message);
    assert_eq!(damage.messages, [(QueueId(1), Seq(77))]);
    assert!(damage.to_string().contains("lost message 77 of queue 1"), "{damage}");
    assert!(recovered.clean && reopen(crashed.path()).damage.is_empty());
}

#[test]
fn a_damaged_segment_header_does_not_cost_its_records() {
    let crashed = crashed_store();
    flip(&segments(crashed.path())[1], 14);

    let recovered = reopen(crashed.path());

    assert_eq!(seqs(&recovered, 1).len(), 200);
    assert_eq!(recovered.damage[0].kind, DamageKind::Header);
}

#[test]
fn a_lost_segment_costs_its_messages_and_names_them() {
    let crashed = crashed_store();
    reopen(crashed.path());
    fs::remove_file(&segments(crashed.path())[1]).unwrap();

    let recovered = reopen(crashed.path());

    assert_eq!((recovered.damage[0].kind, recovered.damage[0].segment), (DamageKind::Missing, 2));
    let lost: usize = recovered.damage.iter().map(|damage| damage.messages.len()).sum();
    assert!(lost > 10 && seqs(&recovered, 1).len() + lost == 200);
}

/// A store that has lived: checkpoints, dead segments that are gone, definitions old and new.
fn aged_store() -> tempfile::TempDir {
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
    store.append_and_wait(vec![define("a", "old"), define("b", "old"), create(1), create(2)]).unwrap();
    for seq in 0..300 {
        store.append(vec![publish(&[(1, seq)], body(seq))], Urgency::Lazy);
    }
    store.append_and_wait(vec![settle(1, 0..200)]).unwrap();
    store.append_and_wait(vec![define("a", "new"), Operation::Undefine { key: "b".into() }]).unwrap();
    store.append_and_wait(vec![delete(2), create(3), publish(&[(3, 0)], "three")]).unwrap();
    while checkpoints.recv_timeout(Duration::from_millis(500)).is_ok() {}
    store.append_and_wait(vec![define("c", "newest"), publish(&[(3, 1)], "newest")]).unwrap();
    store.close().unwrap();
    assert!(!segments(dir.path())[0].ends_with("0000000000000001.seg"), "nothing was reclaimed");
    dir
}

fn check_rebuilt(dir: &Path) {
    let (store, recovered) = Store::open(dir, options()).unwrap();
    let recovered = read_all(&store, recovered);

    assert_eq!(recovered.damage[0].kind, DamageKind::State, "{:?}", recovered.damage);
    let names: Vec<_> = recovered.definitions.iter().map(|(k, v)| (&k[..], &v[..])).collect();
    assert_eq!(names, [(&b"a"[..], &b"new"[..]), (b"c", b"newest")]);
    let found = &recovered.contents;
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3]);
    let live =
        (200..300).all(|seq| found[&1].iter().any(|message| *message == (seq, true, body(seq).into())));
    assert!(live, "{:?}", seqs(&recovered, 1));
    assert_eq!(seqs(&recovered, 3), [0, 1]);

    // Life goes on, with numbers that were never used.
    let next = recovered.queues[0].next_seq.0;
    assert!(next > 300);
    store.append_and_wait(vec![publish(&[(1, next)], "after")]).unwrap();
    store.close().unwrap();
    let again = reopen(dir);
    assert!(again.clean && seqs(&again, 1).contains(&next), "{:?}", again.damage);
}

#[test]
fn a_lost_state_database_is_rebuilt() {
    let aged = aged_store();

    fs::remove_dir_all(aged.path().join("state")).unwrap();

    check_rebuilt(aged.path());
    assert!(!aged.path().join("state.bad").exists());
}

#[test]
fn a_state_database_full_of_zeros_is_set_aside_and_rebuilt() {
    let aged = aged_store();
    let db = aged.path().join("state/db");
    let len = fs::metadata(&db).unwrap().len();
    fs::write(&db, vec![0; len as usize]).unwrap();

    check_rebuilt(aged.path());

    let is_aside = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("state.bad-");
    assert!(fs::read_dir(aged.path()).unwrap().flatten().any(is_aside));
}

#[test]
fn flipped_bytes_in_the_state_database_never_cost_a_message() {
    let aged = aged_store();
    let len = fs::metadata(aged.path().join("state/db")).unwrap().len() as usize;

    for part in 0..6 {
        let copy = crash(aged.path());
        flip(&copy.path().join("state/db"), part * len / 6 + 100);

        let recovered = reopen(copy.path());

        let found = seqs(&recovered, 1);
        assert!((200..300).all(|seq| found.contains(&seq)), "part {part}: {found:?}");
        assert!(recovered.definitions.contains(&(b"a".to_vec(), b"new".to_vec())));
    }
}

#[test]
fn a_left_over_snapshot_of_sled_does_not_matter() {
    let aged = aged_store();
    fs::write(aged.path().join("state/snap.00000000000000FF.generating"), b"half").unwrap();

    assert!(reopen(aged.path()).clean);
}

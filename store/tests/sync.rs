//! What a session is told before a sync, and when the sync comes.

mod common;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use garenne_store::*;

/// A store that says when it syncs its log.
fn store(dir: &std::path::Path, sync: SyncMode) -> (Store, mpsc::Receiver<()>) {
    let (synced, syncs) = mpsc::channel();
    let synced = std::sync::Mutex::new(synced);
    let fault = move |step: &'static str| {
        if step == "log.sync" {
            let _ = synced.lock().unwrap().send(());
        }
        Ok(())
    };
    let options = Options { sync, fault: Some(Arc::new(fault)), ..options() };
    let (store, _) = Store::open(dir, options).unwrap();
    store.append_and_wait(vec![create(1)]).unwrap();
    while syncs.try_recv().is_ok() {}
    (store, syncs)
}

/// Appends one message and waits until the session is woken.
fn append(store: &Store, seq: u64, urgency: Urgency) {
    let (woken, wakes) = mpsc::channel();
    let woken = std::sync::Mutex::new(woken);
    let mut session = store.session(Arc::new(move || {
        let _ = woken.lock().unwrap().send(());
    }));
    let ticket = session.append([publish(&[(1, seq)], "m")], urgency);
    while session.durable() < ticket {
        wakes.recv().unwrap();
    }
}

#[test]
fn what_is_written_for_the_system_to_sync_is_told_without_a_sync_and_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (store, syncs) = store(dir.path(), SyncMode::Os);

    append(&store, 0, Urgency::Written(SyncMode::Os));
    assert!(syncs.try_recv().is_err());

    // A kill leaves to the system what was written.
    let crashed = crash(dir.path());
    assert_eq!(seqs(&reopen(crashed.path()), 1), [0]);
    // Whoever waits for a sync gets one, and all before it have it, too.
    append(&store, 1, Urgency::Sync);
    syncs.try_recv().unwrap();
    // A store that is closed owes nothing.
    append(&store, 2, Urgency::Written(SyncMode::Os));
    store.close().unwrap();
    syncs.try_recv().unwrap();
}

#[test]
fn an_interval_is_a_promise() {
    let dir = tempfile::tempdir().unwrap();
    let (store, syncs) = store(dir.path(), SyncMode::Os);

    append(&store, 0, Urgency::Written(SyncMode::Interval(Duration::from_millis(30))));
    assert!(syncs.try_recv().is_err(), "told after the sync");
    // Nothing else comes that would need one.
    syncs.recv_timeout(Duration::from_secs(30)).expect("a sync within its time");

    append(&store, 1, Urgency::Written(SyncMode::Interval(Duration::from_secs(3600))));
    append(&store, 2, Urgency::Written(SyncMode::Interval(Duration::from_millis(30))));
    syncs.recv_timeout(Duration::from_secs(30)).expect("the shorter one holds");
}

#[test]
fn lazy_operations_are_synced_as_the_store_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, syncs) = store(dir.path(), SyncMode::Group);
    store.append(vec![publish(&[(1, 0)], "m")], Urgency::Lazy);
    syncs.recv_timeout(Duration::from_secs(30)).expect("a sync");

    // Those who wait for less are not held up by what is lazy, which has its sync soon after.
    store.append(vec![publish(&[(1, 1)], "m")], Urgency::Lazy);
    append(&store, 2, Urgency::Written(SyncMode::Os));
    syncs.recv_timeout(Duration::from_secs(30)).expect("a sync");
}

#[test]
fn the_stricter_of_two_holds_and_text_is_read() {
    use SyncMode::*;
    let interval = |ms| Interval(Duration::from_millis(ms));

    assert_eq!(Os.stricter(interval(5)).stricter(interval(7)), interval(5));
    assert_eq!(interval(5).stricter(Group), Group);
    assert_eq!(
        ("group".parse(), "os".parse(), "interval:60000".parse()),
        (Ok(Group), Ok(Os), Ok(interval(60_000)))
    );
    for wrong in ["", "Group", "interval:0", "interval:60001", "interval:x", "interval"] {
        assert!(wrong.parse::<SyncMode>().is_err(), "{wrong}");
    }
}

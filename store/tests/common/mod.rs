//! What the store's tests share: short words for operations, and crashes without a crash.
#![allow(dead_code)] // Each test binary uses its own part of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use garenne_store::*;
use tempfile::TempDir;

/// Small segments, and no checkpoint unless the store is closed.
pub fn options() -> Options {
    Options { segment_bytes: 16 << 10, checkpoint_interval: Duration::from_secs(3600), ..Options::default() }
}

pub fn create(queue: u64) -> Operation {
    Operation::QueueCreate { queue: QueueId(queue) }
}

pub fn delete(queue: u64) -> Operation {
    Operation::QueueDelete { queue: QueueId(queue) }
}

pub fn define(key: &str, value: &str) -> Operation {
    Operation::Define { key: key.into(), value: value.into() }
}

pub fn publish(to: &[(u64, u64)], body: impl Into<Bytes>) -> Operation {
    Operation::Publish(Publish {
        timestamp_ms: 1,
        due_at_ms: None,
        destinations: to.iter().map(|(queue, seq)| (QueueId(*queue), Seq(*seq))).collect(),
        parts: Parts::Own([Bytes::from_static(b"to"), Bytes::from_static(b"properties"), body.into()]),
    })
}

pub fn publish_due(to: &[(u64, u64)], at_ms: u64) -> Operation {
    let Operation::Publish(publish) = publish(to, at_ms.to_string()) else { unreachable!() };
    Operation::Publish(Publish { due_at_ms: Some(at_ms), ..publish })
}

pub fn settle(queue: u64, seqs: impl IntoIterator<Item = u64>) -> Operation {
    Operation::Settle { queue: QueueId(queue), runs: seqs.into_iter().map(Seq).collect() }
}

pub fn purge(queue: u64, seqs: impl IntoIterator<Item = u64>) -> Operation {
    Operation::Purge { queue: QueueId(queue), runs: seqs.into_iter().map(Seq).collect() }
}

pub fn delivered(queue: u64, through: u64) -> Operation {
    Operation::Delivered { queue: QueueId(queue), through: Seq(through) }
}

pub fn mark(queue: u64, seqs: impl IntoIterator<Item = u64>, mark: u64) -> Operation {
    let marks = seqs.into_iter().map(|seq| (Seq(seq), mark)).collect();
    Operation::Mark { queue: QueueId(queue), marks }
}

pub fn nobody() -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(|| ())
}

/// The messages of each queue: number, whether redelivered, body.
pub type Contents = BTreeMap<u64, Vec<(u64, bool, Bytes)>>;

/// A directory that was opened, and all that was read from it.
pub struct Reopened {
    pub recovered: Recovered,
    pub contents: Contents,
    /// By queue and number, of messages that have one.
    pub marks: BTreeMap<(u64, u64), u64>,
    /// What is due when, of queues that have such messages.
    pub due: BTreeMap<u64, Vec<(u64, Seq)>>,
    /// What was noticed at the start and when the messages were read.
    pub damage: Vec<Damage>,
}

impl std::ops::Deref for Reopened {
    type Target = Recovered;

    fn deref(&self) -> &Recovered {
        &self.recovered
    }
}

/// Reads all messages, some at a time, and holds them against what the start has said of them.
pub fn read_all(store: &Store, recovered: Recovered) -> Reopened {
    let (mut contents, mut marks) = (Contents::new(), BTreeMap::new());
    let mut damage = recovered.damage.clone();
    for queue in &recovered.queues {
        let messages: &mut Vec<_> = contents.entry(queue.queue.0).or_default();
        let mut run = Run { first: Seq(0), last: queue.next_seq };
        let mut lost = 0;
        while run.first <= run.last {
            let wanted = Wanted { queue: queue.queue, run, bytes_max: 5000 };
            let page = store.read_and_wait(wanted).unwrap();
            assert!(page.through >= run.first && page.through <= run.last);
            run.first = Seq(page.through.0 + 1);
            let marked = page.messages.iter().filter(|stored| stored.mark != 0);
            marks.extend(marked.map(|stored| ((queue.queue.0, stored.seq.0), stored.mark)));
            messages.extend(page.messages.into_iter().map(|stored| {
                let [_, _, body] = stored.parts;
                (stored.seq.0, stored.seq < queue.delivered_below, body)
            }));
            lost += page.lost.iter().map(|damage| damage.messages.len()).sum::<usize>();
            damage.extend(page.lost);
        }
        assert!(messages.is_sorted_by(|a, b| a.0 < b.0), "queue {} is out of order", queue.queue.0);
        assert_eq!(queue.live as usize, messages.len() + lost);
        if lost == 0 {
            assert_eq!(messages.first().map_or(queue.next_seq.0, |first| first.0), queue.first.0);
        }
    }
    let due = recovered.queues.iter().map(|queue| (queue.queue.0, due(store, queue.queue.0, 97)));
    let due: BTreeMap<_, _> = due.filter(|(_, due)| !due.is_empty()).collect();
    for queue in &recovered.queues {
        let first = due.get(&queue.queue.0).map(|due| due[0].0);
        assert!(first.is_none_or(|first| queue.first_due_ms.unwrap() <= first));
    }
    Reopened { recovered, contents, marks, due, damage }
}

/// All that is due of a queue, so many at a time.
pub fn due(store: &Store, queue: u64, max: usize) -> Vec<(u64, Seq)> {
    let end = (u64::MAX, Seq(u64::MAX));
    let mut found = Vec::new();
    let mut after = (0, Seq(0));
    while after < end {
        let wanted = DueWanted { queue: QueueId(queue), after, until_ms: u64::MAX, max };
        let page = store.due_and_wait(wanted).unwrap();
        assert!(page.through > after && page.entries.len() <= max);
        assert!(page.entries.iter().all(|entry| after < *entry && *entry <= page.through));
        after = page.through;
        found.extend(page.entries);
    }
    assert!(found.is_sorted_by(|a, b| a < b));
    found
}

pub fn seqs(reopened: &Reopened, queue: u64) -> Vec<u64> {
    reopened.contents[&queue].iter().map(|(seq, _, _)| *seq).collect()
}

/// Opens the directory, reads all of it, and closes it again.
pub fn reopen(dir: &Path) -> Reopened {
    let (store, recovered) = Store::open(dir, options()).unwrap();
    let reopened = read_all(&store, recovered);
    store.close().unwrap();
    reopened
}

/// The directory as a kill at this moment would leave it.
pub fn crash(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir, copy.path());
    copy
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else if let Err(error) = fs::copy(&path, &target) {
            // sled and the store remove files while we look.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

/// The file that holds these bytes, and where.
pub fn find(dir: &Path, bytes: &[u8]) -> (PathBuf, usize) {
    let found = segments(dir).into_iter().find_map(|path| {
        let file = fs::read(&path).unwrap();
        let at = file.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    });
    found.expect("some segment holds it")
}

pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

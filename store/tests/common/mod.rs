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
        destinations: to.iter().map(|(queue, seq)| (QueueId(*queue), Seq(*seq))).collect(),
        parts: [Bytes::from_static(b"to"), Bytes::from_static(b"properties"), body.into()],
    })
}

pub fn settle(queue: u64, seqs: impl IntoIterator<Item = u64>) -> Operation {
    Operation::Settle { queue: QueueId(queue), seqs: seqs.into_iter().map(Seq).collect() }
}

pub fn delivered(queue: u64, through: u64) -> Operation {
    Operation::Delivered { queue: QueueId(queue), through: Seq(through) }
}

pub fn nobody() -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(|| ())
}

/// The messages of each queue: number, whether redelivered, body.
pub type Contents = BTreeMap<u64, Vec<(u64, bool, Bytes)>>;

pub fn contents(recovered: &Recovered) -> Contents {
    let of_queue = |queue: &RecoveredQueue| {
        let messages = queue.messages.iter().map(|message| {
            let body = recovered.publishes[message.publish].parts[2].clone();
            (message.seq.0, message.redelivered, body)
        });
        (queue.queue.0, messages.collect())
    };
    recovered.queues.iter().map(of_queue).collect()
}

pub fn seqs(recovered: &Recovered, queue: u64) -> Vec<u64> {
    contents(recovered)[&queue].iter().map(|(seq, _, _)| *seq).collect()
}

/// Opens the directory, and closes it again.
pub fn reopen(dir: &Path) -> Recovered {
    let (store, recovered) = Store::open(dir, options()).unwrap();
    store.close().unwrap();
    recovered
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

//! The one door to sled: a sorted table, changed by whole batches, that really reaches the disk.

use std::fs::{self, File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::queues::Change;

/// What sled may keep of its pages in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// sled's own thread, which also collects its garbage, runs this often.
const FLUSH_INTERVAL_MS: u64 = 500;

pub(crate) struct Table {
    dir: PathBuf,
    db: sled::Db,
    /// sled 0.34 flushes with sync_file_range, which reaches neither the disk's cache nor the
    /// file's metadata; an fdatasync through this handle does.
    file: File,
}

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

impl Table {
    /// Opens the database. sled panics on some damage: that is caught too.
    pub(crate) fn open(dir: &Path) -> Result<Table, Error> {
        remove_unfinished_snapshots(dir)?;
        let open = || {
            sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_INTERVAL_MS))
                .open()
        };
        let db = attempt(dir, open)?;
        let path = dir.join("db");
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io(&path))?;
        Ok(Table { dir: dir.to_owned(), db, file })
    }

    /// All rows whose keys begin with `prefix`, sorted.
    pub(crate) fn rows(&self, prefix: &[u8]) -> Result<Vec<Row>, Error> {
        let read = || {
            let rows = self.db.scan_prefix(prefix);
            rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        };
        attempt(&self.dir, read)
    }

    /// The value of a key; none also when it cannot be read.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = attempt(&self.dir, || self.db.get(key));
        value.unwrap_or_default().map(|value| value.to_vec())
    }

    /// Makes all changes or none.
    pub(crate) fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        attempt(&self.dir, || self.db.apply_batch(batch))
    }

    /// Hands what was applied to the operating system.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        attempt(&self.dir, || self.db.flush().map(|_| ()))
    }

    /// Makes what was flushed survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::io(&self.dir.join("db")))
    }
}

/// Calls sled, and makes an error of a panic.
fn attempt<T>(dir: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    let reason = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked".into(),
    };
    Err(Error::State { path: dir.to_owned(), reason })
}

/// sled refuses to start beside one of these in some cases; they are of no use.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

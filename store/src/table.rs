//! The one door to sled: a sorted table, changed by whole batches, that really reaches the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::queues::Change;

/// sled's file, which it locks.
const FILE: &str = "db";
/// What sled may keep of its pages in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// sled's own thread, which also collects its garbage, runs this often.
const FLUSH_INTERVAL_MS: u64 = 500;
/// A database that was just closed in this process is waited for so long, looking so often.
const RELEASE_MAX: Duration = Duration::from_secs(10);
const RELEASE_LOOK: Duration = Duration::from_millis(5);
/// About so many bytes of rows are visited at once.
const VISIT_BYTES: usize = 1 << 20;

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
    /// Opens the database. sled panics on some damage: that is caught too. [`Error::Locked`] when somebody has
    /// it open, which is no damage.
    pub(crate) fn open(dir: &Path) -> Result<Table, Error> {
        remove_unfinished_snapshots(dir)?;
        wait_until_released(dir)?;
        let open = || {
            sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_INTERVAL_MS))
                .open()
        };
        let db = attempt(dir, open)?;
        let path = dir.join(FILE);
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

    /// Calls `visit` with every row whose key begins with `prefix`, sorted; some at a time are in memory.
    pub(crate) fn visit(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(Vec<Row>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rows = self.db.scan_prefix(prefix);
        loop {
            let next = || {
                let (mut some, mut bytes) = (Vec::new(), 0);
                while bytes < VISIT_BYTES
                    && let Some(row) = rows.next()
                {
                    let (key, value) = row?;
                    bytes += key.len() + value.len();
                    some.push((key.to_vec(), value.to_vec()));
                }
                Ok(some)
            };
            let some = attempt(&self.dir, next)?;
            if some.is_empty() {
                return Ok(());
            }
            visit(some)?;
        }
    }

    /// Ends it, and waits until nobody writes to its files any more.
    pub(crate) fn close(self) -> Result<(), Error> {
        let Table { dir, db, file } = self;
        attempt(&dir, move || {
            drop(db);
            Ok(())
        })?;
        drop(file);
        wait_until_released(&dir)
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
        self.file.sync_data().map_err(Error::io(&self.dir.join(FILE)))
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

/// sled's threads hold its file for a moment longer than the last handle to the database.
fn wait_until_released(dir: &Path) -> Result<(), Error> {
    let path = dir.join(FILE);
    let file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < RELEASE_MAX => thread::sleep(RELEASE_LOOK),
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_not_released_yet_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path()).unwrap();
        table.apply(vec![(vec![1], Some(vec![2]))]).unwrap();
        let path = dir.path().to_owned();
        let opener = thread::spawn(move || Table::open(&path).unwrap().rows(&[]).unwrap());

        thread::sleep(4 * RELEASE_LOOK);
        assert!(!opener.is_finished());
        drop(table);

        assert_eq!(opener.join().unwrap(), [(vec![1], vec![2])]);
    }
}

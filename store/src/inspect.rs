//! A look into a data directory that nobody has open: what a start would find is read, and nothing is changed.
//!
//! The log is read where it is. The state database is copied first: sled writes to what it opens. Then
//! everything goes as at a start, but that open segments are not sealed, nothing is set aside, and what is lost is
//! told and not settled.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::definitions::{BACKUP_FILE, Backup};
use crate::error::Error;
use crate::intake::Hub;
use crate::keys::{self, DUE_ENTRIES, Key, POSITIONS};
use crate::pages::Pages;
use crate::places::Places;
use crate::read::{Page, Reader, Wanted};
use crate::recovery::{self, Damage, RecoveredQueue, Sight};
use crate::schema;
use crate::store::LOCK_FILE;
use crate::table::Table;

/// How much of a directory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What a start reads: the state database, and the log behind the last checkpoint.
    Tail,
    /// Every record of every segment, and every row.
    Everything,
}

/// A segment that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLook {
    /// Its number.
    pub segment: u64,
    /// How many good records it has, so far as it was read.
    pub records: u64,
}

/// What is in a data directory.
pub struct Inspection {
    /// The format of the directory.
    pub format: u32,
    /// All definitions, sorted by name.
    pub definitions: Vec<(Vec<u8>, Vec<u8>)>,
    /// All queues, sorted by id.
    pub queues: Vec<RecoveredQueue>,
    /// The segments that were read, in order.
    pub segments: Vec<SegmentLook>,
    /// The bytes of all segments.
    pub log_bytes: u64,
    /// What cannot be read, or does not fit together. A torn tail is what a crash looks like.
    pub damage: Vec<Damage>,
    /// A start has nothing to replay: the store was closed in order.
    pub clean: bool,
    /// Before the copy of the state database that it reads goes.
    reader: Reader,
    _scratch: Scratch,
    _lock: Option<File>,
}

impl Inspection {
    /// Looks into a directory. Until this value goes, no store opens it.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when a store has it open, [`Error::NoData`] when there is none, [`Error::Version`] and
    /// [`Error::Corrupt`] when it cannot be one of a format that is known, [`Error::Io`]. Damage is no error.
    pub fn open(dir: &Path, depth: Depth) -> Result<Inspection, Error> {
        let lock = share(dir)?;
        let format = schema::read(dir)?;
        let log_dir = dir.join("log");
        let segments: BTreeSet<u64> = match log_dir.exists() {
            true => recovery::ids(&log_dir, "seg")?,
            false => BTreeSet::new(),
        };
        let files = recovery::file_bytes(&log_dir, &segments)?;
        let mut damage = Vec::new();
        let backup = Backup::read(dir);
        if backup.is_none() && dir.join(BACKUP_FILE).exists() {
            damage.push(recovery::in_state(format!(
                "{BACKUP_FILE} cannot be read; the next checkpoint writes it anew"
            )));
        }
        let scratch = Scratch::new()?;
        let state_dir = scratch.dir.join("state");
        if dir.join("state").exists() {
            copy_below(&dir.join("state"), &state_dir)?;
        }
        let is_whole = depth == Depth::Everything;
        let sight = recovery::look(&log_dir, &state_dir, &segments, backup, is_whole, &mut damage)?;
        let Sight { state, table, read, is_clean } = sight;
        if is_whole {
            look_at_rows(&table, &mut damage)?;
        }
        let definitions = state.definitions.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let queues = recovery::queues(&state);
        let places = Places::new(Arc::clone(&table), &log_dir);
        let pages = Pages::new(table, &log_dir);
        // What the reader would have settled stays there.
        let hub = Arc::new(Hub::new(usize::MAX, None));
        let reader = Reader::new(Arc::new(Mutex::new(state)), hub, places, pages, &log_dir);
        let segments = read.into_iter().map(|(segment, records)| SegmentLook { segment, records });
        Ok(Inspection {
            format,
            definitions,
            queues,
            segments: segments.collect(),
            log_bytes: files.values().sum(),
            clean: is_clean,
            damage,
            reader,
            _scratch: scratch,
            _lock: lock,
        })
    }

    /// Reads live messages of a queue.
    pub fn read(&mut self, wanted: Wanted) -> Page {
        self.reader.page(wanted)
    }
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection").field("damage", &self.damage).finish_non_exhaustive()
    }
}

/// Keeps stores away for as long as the file is there. A backup that was never opened has none.
fn share(dir: &Path) -> Result<Option<File>, Error> {
    let path = dir.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}

/// Looks at the rows that a start does not read. What they say is found again in the log.
fn look_at_rows(table: &Table, damage: &mut Vec<Damage>) -> Result<(), Error> {
    for kind in [POSITIONS, DUE_ENTRIES] {
        table.visit(&[kind], |rows| {
            for (key, value) in rows {
                let bad = match Key::decode(&key) {
                    Some(Key::Positions(queue, block)) if keys::decode_positions(&value).is_none() => {
                        format!("the places of block {block} of queue {}", queue.0)
                    }
                    Some(Key::DueEntries(queue, page)) if keys::decode_entries(&value).is_none() => {
                        format!("page {page} of the due times of queue {}", queue.0)
                    }
                    Some(_) => continue,
                    None => format!("a row of the unknown key {key:02x?}"),
                };
                damage.push(recovery::in_state(format!("{bad} cannot be read; the log says the same")));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A directory of this process that goes with it.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new() -> Result<Scratch, Error> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("garenne-look-{}-{number}", std::process::id()));
        // There are passwords in it, if only their hashes.
        DirBuilder::new().mode(0o700).create(&dir).map_err(Error::io(&dir))?;
        Ok(Scratch { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "a directory that is of no use any more is left");
        }
    }
}

fn copy_below(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir(to).map_err(Error::io(to))?;
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        let path = entry.map_err(Error::io(from))?.path();
        let Some(name) = path.file_name() else { continue };
        match path.is_dir() {
            true => copy_below(&path, &to.join(name))?,
            false => drop(fs::copy(&path, to.join(name)).map_err(Error::io(&path))?),
        }
    }
    Ok(())
}

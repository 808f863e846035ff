//! A copy of the data directory, made while the store goes on.
//!
//! A start needs two things that fit together: a state database as some checkpoint left it, and the log from
//! that checkpoint on, with all segments that it speaks of. So a backup
//!
//! ```text
//! has no segment removed -> has no checkpoint written -> notes where the log ends -> copies the state database
//!   -> lets checkpoints go on -> copies the segments up to the noted end -> lets segments go -> VERSION
//! ```
//!
//! Publishing is never held up: whoever publishes waits for the log alone, and that is only read here. A
//! checkpoint waits for the state database, which is small beside the log; dead segments wait for all of it. What
//! the copied state database does not know yet stands in the log behind its checkpoint, and the log is cut where it
//! was noted to end, and sealed, as a start does with what a crash has left: so the copy is a directory like any
//! other, and recovery has no case for it.
//!
//! The rows of the state database go one by one into a new one: sled's own files change under whoever copies them.
//! Segments are copied and not linked, though complete ones never change: the store writes over dead
//! ones, which would reach through a link; and a copy that shares its blocks is none when those go bad. (Where the
//! file system can share blocks until one side writes, the copy asks it to.) Spares are left out.
//!
//! `VERSION` comes last, when all else is synced. A start refuses a directory without it that has a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::definitions::BACKUP_FILE;
use crate::error::Error;
use crate::fault::Fault;
use crate::intake::{Hub, lock};
use crate::log::Position;
use crate::pool::Pool;
use crate::schema;
use crate::segment::{self, sync_directory};
use crate::table::Table;

/// Files are copied and synced in pieces of this size, so that the syncs of the log in between do not wait for
/// all of a segment.
const PIECE_BYTES: u64 = 4 << 20;
/// A new state database takes this much, and this many times what the old one does until sled has tidied up.
const STATE_BYTES_MIN: u64 = 4 << 20;
const STATE_FACTOR: u64 = 2;

/// What a backup has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// How many log segments.
    pub segments: usize,
    /// The bytes of all files.
    pub bytes: u64,
}

/// What backups are made of.
pub(crate) struct Source {
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) hub: Arc<Hub>,
    /// Where the log ends.
    pub(crate) end: Arc<Mutex<Position>>,
    /// The threads of the store keep it open.
    pub(crate) table: Weak<Table>,
    pub(crate) pool: Arc<Pool>,
    /// Held while a checkpoint is written.
    pub(crate) turn: Arc<Mutex<()>>,
    pub(crate) fault: Fault,
}

impl Source {
    pub(crate) fn write(&self, to: &Path) -> Result<BackedUp, Error> {
        let target = Target::prepare(&self.dir, to)?;
        // What was left lazily belongs to it as well.
        self.hub.append_and_wait(Vec::new())?;
        let hold = self.pool.hold();
        let segments = self.copy_state(to)?;
        self.fault.at("backup.log").map_err(Error::io(to))?;
        let log_dir = to.join("log");
        for part in &segments {
            self.copy_segment(part, &log_dir)?;
        }
        sync_directory(&log_dir)?;
        drop(hold);
        sync_directory(to)?;
        self.fault.at("backup.version").map_err(Error::io(to))?;
        schema::mark(to)?;
        let bytes = bytes_below(to)?;
        target.finish()?;
        Ok(BackedUp { segments: segments.len(), bytes })
    }

    /// Copies what the last checkpoint has written. Returns the segments that belong to it.
    fn copy_state(&self, to: &Path) -> Result<Vec<Part>, Error> {
        let table = self.table.upgrade().ok_or(Error::Closed)?;
        let turn = lock(&self.turn);
        self.go_on()?;
        let end = *lock(&self.end);
        let segments = self.parts(end)?;
        self.check_room(to, &segments)?;

        // The first of them is what an unfinished backup is known by.
        for name in ["state", "log"] {
            fs::create_dir(to.join(name)).map_err(Error::io(to))?;
        }
        match fs::read(self.dir.join(BACKUP_FILE)) {
            Ok(bytes) => write_synced(&to.join(BACKUP_FILE), &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&self.dir.join(BACKUP_FILE))(error)),
        }
        self.fault.at("backup.state").map_err(Error::io(to))?;
        let state_dir = to.join("state");
        let copy = Table::open(&state_dir)?;
        table.visit(&[], |rows| {
            self.go_on()?;
            copy.apply(rows.into_iter().map(|(key, value)| (key, Some(value))).collect())
        })?;
        drop(turn);
        drop(table);
        copy.flush()?;
        copy.close()?;
        sync_below(&state_dir)?;
        Ok(segments)
    }

    /// The segments that have records before the end of the log.
    fn parts(&self, end: Position) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        for path in segment::list(&self.dir.join("log"), "seg")? {
            let Some(id) = segment::id_of(&path).filter(|id| *id <= end.segment) else { continue };
            let is_last = id == end.segment;
            let bytes = match is_last {
                true => u64::from(end.offset),
                false => fs::metadata(&path).map_err(Error::io(&path))?.len(),
            };
            parts.push(Part { id, path, bytes, is_last });
        }
        Ok(parts)
    }

    /// A disk that a backup fills stops the store, if it is the same one: so there has to be room for both.
    fn check_room(&self, to: &Path, parts: &[Part]) -> Result<(), Error> {
        let log_bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        let state_bytes = STATE_BYTES_MIN + STATE_FACTOR * bytes_below(&self.dir.join("state"))?;
        let needed = log_bytes + state_bytes + 2 * self.segment_bytes;
        let disk = rustix::fs::statvfs(to).map_err(|error| Error::io(to)(error.into()))?;
        let free = disk.f_bavail * disk.f_frsize;
        if self.fault.at("backup.room").is_ok() && free >= needed {
            return Ok(());
        }
        let reason =
            format!("it needs {needed} bytes, and {free} are free there; free some, or name another disk");
        Err(Error::Backup { dir: to.to_owned(), reason })
    }

    fn copy_segment(&self, part: &Part, log_dir: &Path) -> Result<(), Error> {
        let path = segment::path(log_dir, part.id);
        let copy = |from: &mut File, to: &mut File| -> Result<(), Error> {
            let mut left = part.bytes;
            while left > 0 {
                self.go_on()?;
                let piece = left.min(PIECE_BYTES);
                let copied = io::copy(&mut from.take(piece), to).map_err(Error::io(&path))?;
                to.sync_data().map_err(Error::io(&path))?;
                if copied < piece {
                    return Err(Error::corrupt(&part.path, "it is shorter than what was written to it"));
                }
                left -= piece;
            }
            Ok(())
        };
        let mut from = File::open(&part.path).map_err(Error::io(&part.path))?;
        let mut to = create(&path)?;
        copy(&mut from, &mut to)?;
        to.sync_all().map_err(Error::io(&path))?;
        match part.is_last {
            true => segment::seal(&path, part.id, part.bytes as usize),
            false => Ok(()),
        }
    }

    /// Whoever closes the store does not wait for a backup.
    fn go_on(&self) -> Result<(), Error> {
        match self.hub.ended() {
            Some(error) => Err(error),
            None if self.hub.is_closing() => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

/// A segment, and how much of it is copied.
struct Part {
    id: u64,
    path: PathBuf,
    bytes: u64,
    /// It is being written to, or it was when the end of the log was noted.
    is_last: bool,
}

/// The directory of a backup: empty again, or gone if it was not there, unless it is finished.
struct Target<'a> {
    dir: &'a Path,
    is_new: bool,
    is_finished: bool,
}

impl Target<'_> {
    fn prepare<'a>(data_dir: &Path, dir: &'a Path) -> Result<Target<'a>, Error> {
        let refuse = |reason: String| Err(Error::Backup { dir: dir.to_owned(), reason });
        if !dir.is_absolute() || dir.components().any(|part| part == Component::ParentDir) {
            return refuse("name it by its whole path, from / on and without ..".into());
        }
        let data_dir = fs::canonicalize(data_dir).map_err(Error::io(data_dir))?;
        // It need not be there yet, but something above it is.
        let above = dir.ancestors().find_map(|above| fs::canonicalize(above).ok());
        if above.is_some_and(|above| above.starts_with(&data_dir)) {
            return refuse(format!(
                "it is inside the data directory {}; name one outside of it, best on another disk",
                data_dir.display()
            ));
        }
        let is_new = match fs::read_dir(dir).map(Iterator::count) {
            Ok(0) => false,
            Ok(_) => return refuse("it is not empty; name a directory that does not exist yet".into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return refuse(
                    "there is a file of that name; name a directory that does not exist yet".into(),
                );
            }
            Err(error) => return Err(Error::io(dir)(error)),
        };
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        Ok(Target { dir, is_new, is_finished: false })
    }

    fn finish(mut self) -> Result<(), Error> {
        self.is_finished = true;
        match self.dir.parent() {
            Some(parent) => sync_directory(parent),
            None => Ok(()),
        }
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // First of all nobody may take it for a backup.
        schema::unmark(self.dir);
        let _ = fs::remove_dir_all(self.dir.join("log"));
        let _ = fs::remove_dir_all(self.dir.join("state"));
        let _ = fs::remove_file(self.dir.join(BACKUP_FILE));
        if self.is_new {
            let _ = fs::remove_dir(self.dir);
        }
    }
}

fn create(path: &Path) -> Result<File, Error> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(Error::io(path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = create(path)?;
    let write = io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all());
    write.map_err(Error::io(path))
}

/// All files in a directory and in those below it, each with whether it is a directory.
pub(crate) fn below(
    dir: &Path,
    visit: &mut impl FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            // sled removes files while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        visit(&path, &about)?;
        if about.is_dir() {
            below(&path, visit)?;
        }
    }
    Ok(())
}

fn bytes_below(dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    let mut add = |_: &Path, about: &fs::Metadata| {
        bytes += if about.is_file() { about.len() } else { 0 };
        Ok(())
    };
    below(dir, &mut add).map_err(Error::io(dir))?;
    Ok(bytes)
}

fn sync_below(dir: &Path) -> Result<(), Error> {
    let mut sync = |path: &Path, _: &fs::Metadata| File::open(path)?.sync_all();
    below(dir, &mut sync).map_err(Error::io(dir))?;
    sync_directory(dir)
}

//! Segments that are ready before they are needed: dead ones to write over, or a zero-filled one.
//!
//! Overwriting blocks that have been written before needs no block allocation and no commit of the
//! file system's journal: a sync is several times cheaper than on a growing file.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::intake::lock;
use crate::segment::{self, sync_directory};

/// How long no segment is made ready after that has failed, most likely because the disk is full.
const PAUSE: Duration = Duration::from_secs(1);
/// Zeros are written and synced in pieces of this size, so that the syncs of the log in between
/// do not wait for all of them.
const FILL_BYTES: usize = 4 << 20;

pub(crate) struct Pool {
    dir: PathBuf,
    segment_bytes: u64,
    spares: Mutex<Vec<PathBuf>>,
    /// Names of spares are never used twice: one may be on its way to a new life while the next one
    /// is set aside.
    next_spare: AtomicU64,
    failed_at: Mutex<Option<Instant>>,
    held: Mutex<Held>,
}

/// Dead segments that somebody still reads.
#[derive(Default)]
struct Held {
    is_held: bool,
    dead: Vec<u64>,
}

/// While it is there, no segment is removed or written over.
pub(crate) struct Hold<'a>(&'a Pool);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        lock(&self.0.held).is_held = false;
        // Now, since a store at rest makes no checkpoint. None becomes a spare: nobody has asked for one.
        if let Err(error) = self.0.reclaim(&[], self.0.spares()) {
            tracing::warn!(%error, "segments that were held for a backup are not removed");
        }
    }
}

impl Pool {
    /// Takes over the spares an earlier run left, and removes what it left half done.
    pub(crate) fn open(dir: &Path, segment_bytes: u64) -> Result<Pool, Error> {
        for path in segment::list(dir, "tmp")? {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        let spares = segment::list(dir, "spare")?;
        let used = spares.iter().filter_map(|path| segment::id_of(path)).max();
        Ok(Pool {
            dir: dir.to_owned(),
            segment_bytes,
            spares: Mutex::new(spares),
            next_spare: AtomicU64::new(used.map_or(0, |used| used + 1)),
            failed_at: Mutex::new(None),
            held: Mutex::default(),
        })
    }

    /// Keeps a file for a new life.
    fn set_aside(&self, path: &Path) -> Result<(), Error> {
        let number = self.next_spare.fetch_add(1, Ordering::Relaxed);
        let spare = segment::path(&self.dir, number).with_extension("spare");
        fs::rename(path, &spare).map_err(Error::io(path))?;
        lock(&self.spares).push(spare);
        Ok(())
    }

    /// Gives their room back to a disk that is full.
    pub(crate) fn remove_spares(&self) -> std::io::Result<()> {
        lock(&self.spares).drain(..).try_for_each(fs::remove_file)
    }

    /// How many files wait for a new life.
    pub(crate) fn spares(&self) -> usize {
        lock(&self.spares).len()
    }

    pub(crate) fn has_failed_lately(&self) -> bool {
        lock(&self.failed_at).is_some_and(|at| at.elapsed() < PAUSE)
    }

    /// Leaves all segments as they are, until the hold goes. Only one may be there at a time.
    pub(crate) fn hold(&self) -> Hold<'_> {
        lock(&self.held).is_held = true;
        Hold(self)
    }

    /// Takes dead segments out of the log, and keeps at most `spares_max` of them. Their records can not come
    /// back: the checkpoint that no longer needs them is durable, and the checksums are seeded with the
    /// segment's id. While they are held they only wait for the next time.
    pub(crate) fn reclaim(&self, ids: &[u64], spares_max: usize) -> Result<(), Error> {
        let mut held = lock(&self.held);
        held.dead.extend(ids);
        if held.is_held {
            return Ok(());
        }
        let dead = std::mem::take(&mut held.dead);
        drop(held);
        let mut renamed = false;
        for id in dead {
            renamed |= self.reclaim_one(id, spares_max)?;
        }
        let mut spares = lock(&self.spares);
        let kept = spares.len().min(spares_max);
        for path in spares.drain(kept..) {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        drop(spares);
        if renamed {
            // Before a spare is written over, its old name must be gone for good.
            sync_directory(&self.dir)?;
        }
        Ok(())
    }

    fn reclaim_one(&self, id: u64, spares_max: usize) -> Result<bool, Error> {
        let path = segment::path(&self.dir, id);
        let len = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let fits = len >= self.segment_bytes / 2 && len <= self.segment_bytes;
        if self.spares() >= spares_max || !fits {
            fs::remove_file(&path).map_err(Error::io(&path))?;
            return Ok(false);
        }
        self.set_aside(&path)?;
        Ok(true)
    }
}

/// A segment that is being made ready in the background.
pub(crate) struct Preparation {
    id: u64,
    claim: Arc<Mutex<Claim>>,
    thread: JoinHandle<()>,
}

/// Who makes the segment. Decided under a lock: ids have no gaps and no two owners.
enum Claim {
    /// Still being prepared.
    Open,
    /// The writer could not wait and made its own.
    Taken,
    /// Prepared, under its final name.
    Ready(File),
}

impl Preparation {
    /// Starts to make the segment `id` ready.
    pub(crate) fn start(pool: &Arc<Pool>, id: u64) -> std::io::Result<Preparation> {
        let claim = Arc::new(Mutex::new(Claim::Open));
        let job = (Arc::clone(pool), Arc::clone(&claim));
        let thread =
            thread::Builder::new().name("store-prepare".into()).spawn(move || prepare(&job.0, id, &job.1))?;
        Ok(Preparation { id, claim, thread })
    }

    /// The segment's file if it is ready; otherwise the caller has to make it, and what has been
    /// prepared becomes a spare.
    pub(crate) fn claim(&self) -> Option<File> {
        match std::mem::replace(&mut *lock(&self.claim), Claim::Taken) {
            Claim::Ready(file) => Some(file),
            Claim::Open | Claim::Taken => None,
        }
    }

    /// Whether [`Preparation::claim`] would get the file now.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(*lock(&self.claim), Claim::Ready(_))
    }

    /// Whether it is claimed and its thread has ended: the next one may start.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished() && matches!(*lock(&self.claim), Claim::Taken)
    }

    /// Waits for the end of it, at shutdown. What was prepared is a spare for the next run: an open
    /// segment would look like a crash. Its id is free again, since no record was written under it.
    pub(crate) fn finish(self, pool: &Pool) {
        if self.thread.join().is_err() {
            tracing::warn!(segment = self.id, "preparing a segment panicked");
        }
        let is_ready = matches!(*lock(&self.claim), Claim::Ready(_));
        if is_ready && let Err(error) = pool.set_aside(&segment::path(&pool.dir, self.id)) {
            tracing::warn!(segment = self.id, %error, "prepared segment not set aside");
        }
    }
}

fn prepare(pool: &Pool, id: u64, claim: &Mutex<Claim>) {
    if let Err(error) = prepare_file(pool, id, claim) {
        // Not fatal: the writer makes its own segment, and fails there if it must.
        tracing::warn!(segment = id, %error, "segment not prepared");
        *lock(&pool.failed_at) = Some(Instant::now());
        *lock(claim) = Claim::Taken;
    }
}

fn prepare_file(pool: &Pool, id: u64, claim: &Mutex<Claim>) -> Result<(), Error> {
    let spare = lock(&pool.spares).pop();
    let is_recycled = spare.is_some();
    let path = match spare {
        Some(spare) => spare,
        None => zero_filled(pool, id)?,
    };
    let mut file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
    file.write_all(&segment::head(id, is_recycled)).map_err(Error::io(&path))?;
    file.sync_all().map_err(Error::io(&path))?;

    let mut claim = lock(claim);
    if matches!(*claim, Claim::Taken) {
        return pool.set_aside(&path);
    }
    let name = segment::path(&pool.dir, id);
    fs::rename(&path, &name).map_err(Error::io(&name))?;
    sync_directory(&pool.dir)?;
    file.seek(SeekFrom::Start(segment::HEADER_BYTES as u64)).map_err(Error::io(&name))?;
    *claim = Claim::Ready(file);
    Ok(())
}

fn zero_filled(pool: &Pool, id: u64) -> Result<PathBuf, Error> {
    let path = segment::path(&pool.dir, id).with_extension("tmp");
    let filled = fill(&path, pool.segment_bytes);
    if filled.is_err() {
        // Most likely the disk is full: the last thing it needs is half a segment of zeros.
        let _ = fs::remove_file(&path);
    }
    filled.map(|()| path)
}

fn fill(path: &Path, segment_bytes: u64) -> Result<(), Error> {
    let mut file = File::create(path).map_err(Error::io(path))?;
    let zeros = vec![0; FILL_BYTES.min(segment_bytes as usize)];
    let mut left = segment_bytes as usize;
    while left > 0 {
        let piece = left.min(zeros.len());
        file.write_all(&zeros[..piece]).map_err(Error::io(path))?;
        file.sync_data().map_err(Error::io(path))?;
        left -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 8 << 10;

    fn prepared(pool: &Arc<Pool>, id: u64) -> Option<File> {
        let preparation = Preparation::start(pool, id).unwrap();
        while !preparation.thread.is_finished() {
            thread::yield_now();
        }
        preparation.claim()
    }

    #[test]
    fn a_dead_segment_lives_again_under_a_new_id() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(Pool::open(dir.path(), SEGMENT_BYTES).unwrap());
        let old = vec![b'x'; SEGMENT_BYTES as usize];
        for id in 1..=4 {
            fs::write(segment::path(dir.path(), id), &old).unwrap();
        }

        pool.reclaim(&[1, 2, 3, 9], 2).unwrap();
        assert!(prepared(&pool, 5).is_some());

        let names = |extension| segment::list(dir.path(), extension).unwrap();
        let ids: Vec<_> = names("seg").iter().filter_map(|path| segment::id_of(path)).collect();
        assert_eq!((ids, names("spare").len()), (vec![4, 5], 1));
        let bytes = fs::read(segment::path(dir.path(), 5)).unwrap();
        assert_eq!(bytes[..32], segment::head(5, true));
        assert_eq!(bytes[32..], old[32..]);
    }

    #[test]
    fn without_a_spare_the_segment_is_filled_with_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(Pool::open(dir.path(), SEGMENT_BYTES).unwrap());

        assert!(prepared(&pool, 1).is_some());

        let bytes = fs::read(segment::path(dir.path(), 1)).unwrap();
        assert_eq!((bytes.len() as u64, &bytes[..32]), (SEGMENT_BYTES, &segment::head(1, false)[..]));
        assert!(bytes[32..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_comes_too_late_becomes_a_spare() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(Pool::open(dir.path(), SEGMENT_BYTES).unwrap());
        let claim = Mutex::new(Claim::Taken);

        prepare_file(&pool, 1, &claim).unwrap();

        assert_eq!(segment::list(dir.path(), "spare").unwrap().len(), 1);
        assert!(segment::list(dir.path(), "seg").unwrap().is_empty());
    }
}

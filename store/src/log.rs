//! The commit log as its one writer sees it: append, sync, roll to the next segment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::fault::Fault;
use crate::full::Full;
use crate::operation::{Operation, QueueId, Run};
use crate::pool::{Pool, Preparation};
use crate::record::{self, Buffer, Mark};
use crate::segment;
pub(crate) use crate::segment::sync_directory;

/// Encoded bytes are handed to the operating system in pieces of about this size: they are still
/// in the processor's cache then.
const WRITE_BYTES: usize = 512 << 10;
/// Dead segments kept for a new life in the busiest of times; more are removed.
const SPARES_MAX: usize = 4;

/// Where a record lies. Ordered as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    /// Bytes of the record, its header included.
    pub(crate) len: u32,
    /// The share of these bytes that one message in one queue has, where the position is a message's:
    /// a record may hold several, for several queues.
    pub(crate) weight: u32,
}

impl Position {
    /// This place, with the share of its bytes that each message of the record has.
    pub(crate) fn weighed(self, record: &Operation) -> Position {
        let weight = self.len / (record.messages().max(1) as u32);
        Position { weight: weight.max(1), ..self }
    }
}

pub(crate) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    fault: Fault,
    full: Arc<Full>,
    pool: Arc<Pool>,
    preparation: Option<Preparation>,
    /// All segments that are complete, with the bytes of their files.
    segments: BTreeMap<u64, u64>,
    /// How many segments were begun since [`Log::forget_demand`].
    begun: usize,
    /// How much was appended since the last checkpoint.
    appended_bytes: u64,

    segment: u64,
    seed: u32,
    file: File,
    /// The file grows with each write, which makes a sync several times as expensive.
    is_growing: bool,
    /// Where the next record goes; what is in `buffer` is counted.
    end: u64,
    buffer: Buffer,
    /// Something was written since the last sync.
    is_unsynced: bool,
}

impl Log {
    /// Begins a new segment behind all `existing` ones.
    pub(crate) fn start(
        pool: Arc<Pool>,
        dir: &Path,
        segment: u64,
        segments: BTreeMap<u64, u64>,
        segment_bytes: u64,
        fault: Fault,
        full: Arc<Full>,
    ) -> Result<Log, Error> {
        let file = segment::create(dir, segment)?;
        sync_directory(dir)?;
        Ok(Log {
            dir: dir.to_owned(),
            segment_bytes,
            fault,
            full,
            pool,
            preparation: None,
            segments,
            begun: 0,
            appended_bytes: 0,
            segment,
            seed: record::seed(segment),
            file,
            is_growing: true,
            end: segment::HEADER_BYTES as u64,
            buffer: Buffer::default(),
            is_unsynced: false,
        })
    }

    /// The point behind the last record.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.end as u32, ..Position::default() }
    }

    /// Encodes an operation behind the others. Durable only after [`Log::sync`].
    pub(crate) fn append(&mut self, operation: &Operation) -> Result<Position, Error> {
        let mark = self.buffer.begin(operation);
        self.place(mark)
    }

    /// Encodes settlements, which must be sorted.
    pub(crate) fn append_settle(&mut self, sorted: &[(QueueId, Run)]) -> Result<Position, Error> {
        let mark = self.buffer.begin_settle(sorted);
        self.place(mark)
    }

    fn place(&mut self, mut mark: Mark) -> Result<Position, Error> {
        let len = self.buffer.len_since(mark);
        let is_first = self.end == segment::HEADER_BYTES as u64;
        let end = self.end + (len + record::HEADER_BYTES) as u64;
        // A record larger than a segment is the only one in its own.
        if end > self.segment_bytes && !is_first {
            let (tail, moved) = self.buffer.split_off(mark);
            self.roll()?;
            self.buffer = tail;
            mark = moved;
        }
        self.buffer.finish(mark, self.seed);
        let position = Position { len: len as u32, ..self.position() };
        self.end += len as u64;
        self.appended_bytes += len as u64;
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(position)
    }

    /// Writes and syncs all that was appended.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.write()?;
        if !self.is_unsynced {
            return Ok(());
        }
        let sync = |log: &Log| -> io::Result<()> {
            log.fault.at("log.sync")?;
            log.file.sync_data()
        };
        sync(self).map_err(Error::io(&segment::path(&self.dir, self.segment)))?;
        self.is_unsynced = false;
        Ok(())
    }

    /// Writes all that was appended.
    pub(crate) fn write(&mut self) -> Result<(), Error> {
        if self.buffer.len() == 0 {
            return Ok(());
        }
        self.is_unsynced = true;
        let path = segment::path(&self.dir, self.segment);
        let mut slices = self.buffer.slices();
        let mut rest = slices.as_mut_slice();
        let written = self.full.wait_out(&path, || {
            self.fault.at("log.write")?;
            write_all(&self.file, &mut rest)
        });
        written.map_err(Error::io(&path))?;
        self.buffer.clear();
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.step("log.roll")?;
        self.seal()?;
        let id = self.segment + 1;
        let prepared = self.preparation.as_ref().and_then(Preparation::claim);
        let file_bytes = if self.is_growing { self.end } else { self.end.max(self.segment_bytes) };
        self.is_growing = prepared.is_none();
        self.file = match prepared {
            Some(file) => file,
            None => {
                let path = segment::path(&self.dir, id);
                let created = self.full.wait_out(&path, || {
                    self.fault.at("log.create")?;
                    segment::create(&self.dir, id).map_err(Error::into_io)
                });
                let file = created.map_err(Error::io(&path))?;
                sync_directory(&self.dir)?;
                file
            }
        };
        self.segments.insert(self.segment, file_bytes);
        self.begun += 1;
        self.segment = id;
        self.seed = record::seed(id);
        self.end = segment::HEADER_BYTES as u64;
        self.step("log.rolled")
    }

    fn step(&self, name: &'static str) -> Result<(), Error> {
        self.fault.at(name).map_err(Error::io(&segment::path(&self.dir, self.segment)))
    }

    /// Marks the current segment complete, and syncs it.
    fn seal(&mut self) -> Result<(), Error> {
        let mark = self.buffer.begin_seal();
        self.end += self.buffer.len_since(mark) as u64;
        self.buffer.finish(mark, self.seed);
        self.sync()
    }

    /// Seals the last segment of a run, and gives back what it has not used.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.seal()?;
        self.file.set_len(self.end).map_err(Error::io(&segment::path(&self.dir, self.segment)))
    }

    /// Has the next segment made ready if this one is over half full, and leaves one that grows as soon
    /// as the next one is ready. All that was appended must be synced.
    pub(crate) fn prepare(&mut self) -> Result<(), Error> {
        if self.preparation.as_ref().is_some_and(Preparation::is_over) {
            self.preparation = None;
        }
        if let Some(preparation) = &self.preparation {
            let is_better = self.is_growing && preparation.is_ready();
            return if is_better { self.roll() } else { Ok(()) };
        }
        let is_due = self.is_growing || self.end > self.segment_bytes / 2;
        if is_due && !self.pool.has_failed_lately() {
            match Preparation::start(&self.pool, self.segment + 1) {
                Ok(preparation) => self.preparation = Some(preparation),
                Err(error) => tracing::warn!(%error, "no thread to prepare a segment"),
            }
        }
        Ok(())
    }

    /// How many dead segments are worth keeping: as many as were begun of late. One that is ready or being
    /// made ready is enough for a log at rest.
    pub(crate) fn demand(&self) -> usize {
        let at_rest = usize::from(self.preparation.is_none());
        self.begun.clamp(at_rest, SPARES_MAX)
    }

    /// Counts what is begun anew.
    pub(crate) fn forget_demand(&mut self) {
        self.begun = 0;
    }

    /// All that has been appended is in a checkpoint.
    pub(crate) fn is_checkpointed(&mut self) {
        self.appended_bytes = 0;
    }

    /// Whether a checkpoint would give back segments that are kept for nothing.
    pub(crate) fn has_much_to_spare(&self) -> bool {
        self.begun == 0 && self.pool.spares() > usize::from(self.preparation.is_none())
    }

    /// Whether so much has come since the last checkpoint that the next one should not wait: a start would
    /// have to read it, and what died young could go.
    pub(crate) fn has_grown_much(&self) -> bool {
        self.appended_bytes >= self.segment_bytes / 4
    }

    /// The segments that are complete, with the bytes of their files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.segments.iter().map(|(id, bytes)| (*id, *bytes))
    }

    /// Waits for the thread that prepares a segment.
    pub(crate) fn finish(&mut self) {
        if let Some(preparation) = self.preparation.take() {
            preparation.finish(&self.pool);
        }
    }

    /// Takes the segments before `position` of which `is_dead` holds off the list.
    pub(crate) fn take_dead(&mut self, position: Position, mut is_dead: impl FnMut(u64) -> bool) -> Vec<u64> {
        let dead: Vec<u64> =
            self.segments.range(..position.segment).map(|(id, _)| *id).filter(|id| is_dead(*id)).collect();
        for id in &dead {
            self.segments.remove(id);
        }
        dead
    }
}

/// Leaves in `slices` what could not be written.
fn write_all(mut file: &File, slices: &mut &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

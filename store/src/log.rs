//! The commit log as its one writer sees it: append, sync, roll to the next segment.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::fault::Fault;
use crate::operation::{Operation, QueueId, Run};
use crate::pool::{Pool, Preparation};
use crate::record::{self, Buffer, Mark};
use crate::segment;
pub(crate) use crate::segment::sync_directory;

/// Encoded bytes are handed to the operating system in pieces of about this size: they are still
/// in the processor's cache then.
const WRITE_BYTES: usize = 512 << 10;

/// Where a record lies. Ordered as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    /// Bytes of the record, its header included.
    pub(crate) len: u32,
}

pub(crate) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    fault: Fault,
    pool: Arc<Pool>,
    preparation: Option<Preparation>,
    /// All segments there are, the current one included.
    segments: BTreeSet<u64>,

    segment: u64,
    seed: u32,
    file: File,
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
        existing: BTreeSet<u64>,
        segment_bytes: u64,
        fault: Fault,
    ) -> Result<Log, Error> {
        let file = segment::create(dir, segment)?;
        sync_directory(dir)?;
        let mut segments = existing;
        segments.insert(segment);
        Ok(Log {
            dir: dir.to_owned(),
            segment_bytes,
            fault,
            pool,
            preparation: None,
            segments,
            segment,
            seed: record::seed(segment),
            file,
            end: segment::HEADER_BYTES as u64,
            buffer: Buffer::default(),
            is_unsynced: false,
        })
    }

    /// The point behind the last record.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.end as u32, len: 0 }
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
        let position = Position { segment: self.segment, offset: self.end as u32, len: len as u32 };
        self.end += len as u64;
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

    fn write(&mut self) -> Result<(), Error> {
        if self.buffer.len() == 0 {
            return Ok(());
        }
        self.is_unsynced = true;
        let written =
            self.fault.at("log.write").and_then(|()| write_all(&self.file, &mut self.buffer.slices()));
        written.map_err(Error::io(&segment::path(&self.dir, self.segment)))?;
        self.buffer.clear();
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.seal()?;
        let id = self.segment + 1;
        let prepared = self.preparation.as_ref().and_then(Preparation::claim);
        self.file = match prepared {
            Some(file) => file,
            None => {
                let create = |log: &Log| -> Result<File, Error> {
                    let path = segment::path(&log.dir, id);
                    log.fault.at("log.create").map_err(Error::io(&path))?;
                    let file = segment::create(&log.dir, id)?;
                    sync_directory(&log.dir)?;
                    Ok(file)
                };
                create(self)?
            }
        };
        self.segments.insert(id);
        self.segment = id;
        self.seed = record::seed(id);
        self.end = segment::HEADER_BYTES as u64;
        Ok(())
    }

    /// Marks the current segment complete, and syncs it.
    pub(crate) fn seal(&mut self) -> Result<(), Error> {
        let mark = self.buffer.begin_seal();
        self.buffer.finish(mark, self.seed);
        self.sync()
    }

    /// Has the next segment made ready if this one is over half full.
    pub(crate) fn prepare(&mut self) {
        if self.preparation.as_ref().is_some_and(Preparation::is_over) {
            self.preparation = None;
        }
        if self.preparation.is_some() || self.end <= self.segment_bytes / 2 {
            return;
        }
        match Preparation::start(&self.pool, self.segment + 1) {
            Ok(preparation) => self.preparation = Some(preparation),
            Err(error) => tracing::warn!(%error, "no thread to prepare a segment"),
        }
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
            self.segments.range(..position.segment).copied().filter(|id| is_dead(*id)).collect();
        for id in &dead {
            self.segments.remove(id);
        }
        dead
    }
}

fn write_all(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

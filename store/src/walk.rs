//! A walk through the records of a segment file, a piece of it in memory at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::Error;
use crate::record::{self, Parsed};
use crate::segment::{self, Head};

/// How much of the file is read at once; more if a record is larger.
const PIECE_BYTES: usize = 1 << 20;

/// The same when only zeros are expected: it stays near the processor.
const ZERO_PIECE_BYTES: usize = 128 << 10;

pub(crate) struct Walk {
    path: PathBuf,
    file: File,
    segment: u64,
    seed: u32,
    /// Where the next record stands in the file, and what has been read from there on.
    at: u64,
    piece: Bytes,
    /// From here on there is nothing but zeros, as far as is known.
    zeros_from: u64,
}

/// What stands at the next place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A whole record; its header stands at `offset`.
    Record { offset: u64, kind: u8, payload: Bytes },
    /// The seal: the segment is complete.
    Seal,
    /// No whole record.
    Stop,
}

impl Walk {
    /// Begins at the first record.
    pub(crate) fn begin(path: &Path, segment: u64) -> Result<Walk, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let (path, seed) = (path.to_owned(), record::seed(segment));
        let (at, piece) = (segment::HEADER_BYTES as u64, Bytes::new());
        Ok(Walk { path, file, segment, seed, at, piece, zeros_from: u64::MAX })
    }

    /// What the segment's first bytes say.
    pub(crate) fn head(&self) -> Result<Head, Error> {
        let head = self.read(0, segment::HEADER_BYTES)?;
        Ok(segment::read_head(self.segment, &head))
    }

    /// Goes to a place where a record begins.
    pub(crate) fn go_to(&mut self, at: u64) {
        self.at = at;
        self.piece = Bytes::new();
    }

    /// Somebody has found out where the file's last zeros begin.
    pub(crate) fn know_zeros(&mut self, from: u64) {
        self.zeros_from = from;
    }

    /// Where the next record stands.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next record. After anything else it stays where it is.
    pub(crate) fn step(&mut self) -> Result<Step, Error> {
        loop {
            let needed = match record::parse(&self.piece, self.seed) {
                Parsed::Whole { kind: record::SEAL, .. } => return Ok(Step::Seal),
                Parsed::Whole { kind, len } => {
                    let mut record = self.piece.split_to(record::HEADER_BYTES + len);
                    let offset = self.at;
                    self.at += record.len() as u64;
                    let payload = record.split_off(record::HEADER_BYTES);
                    return Ok(Step::Record { offset, kind, payload });
                }
                Parsed::Broken { needed } => needed,
                Parsed::Nothing => record::HEADER_BYTES,
            };
            if needed <= self.piece.len() {
                return Ok(Step::Stop);
            }
            self.piece = self.read(self.at, needed.max(PIECE_BYTES))?;
            if self.piece.len() < needed {
                return Ok(Step::Stop);
            }
        }
    }

    /// Whether there is nothing but zeros from here on.
    pub(crate) fn is_zero_from_here(&self) -> Result<bool, Error> {
        let mut piece = vec![0; ZERO_PIECE_BYTES];
        let mut at = self.at;
        loop {
            if at >= self.zeros_from {
                return Ok(true);
            }
            let read = self.read_into(at, &mut piece)?;
            if !segment::is_zero(&piece[..read]) {
                return Ok(false);
            }
            if read < piece.len() {
                return Ok(true);
            }
            at += read as u64;
        }
    }

    /// All that stands in the file from here on.
    pub(crate) fn rest(&self) -> Result<Bytes, Error> {
        let len = self.file.metadata().map_err(Error::io(&self.path))?.len();
        self.read(self.at, len.saturating_sub(self.at) as usize)
    }

    /// As much of the range as there is.
    fn read(&self, at: u64, len: usize) -> Result<Bytes, Error> {
        let mut bytes = vec![0; len];
        let read = self.read_into(at, &mut bytes)?;
        bytes.truncate(read);
        Ok(Bytes::from(bytes))
    }

    fn read_into(&self, at: u64, bytes: &mut [u8]) -> Result<usize, Error> {
        let (read, result) = read_range(&self.file, at, bytes);
        result.map(|()| read).map_err(Error::io(&self.path))
    }
}

/// Where the zeros begin that a file ends with, to within [`ZERO_PIECE_BYTES`].
pub(crate) fn zeros_from(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut from = file.metadata()?.len();
    let mut piece = vec![0; ZERO_PIECE_BYTES];
    while from > 0 {
        let at = from.saturating_sub(ZERO_PIECE_BYTES as u64);
        let piece = &mut piece[..(from - at) as usize];
        file.read_exact_at(piece, at)?;
        if !segment::is_zero(piece) {
            break;
        }
        from = at;
    }
    Ok(from)
}

/// Reads as much of the range as there is. How much that was, also if it ended in an error.
pub(crate) fn read_range(file: &File, at: u64, bytes: &mut [u8]) -> (usize, io::Result<()>) {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Err(error)),
        }
    }
    (read, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Operation, QueueId};
    use crate::record::tests::encoded;

    const ID: u64 = 3;

    fn define(bytes: usize) -> Vec<u8> {
        encoded(&Operation::Define { key: vec![1], value: vec![7; bytes] }, ID)
    }

    #[test]
    fn records_of_all_sizes_are_met_in_order_up_to_the_first_one_that_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = segment::path(dir.path(), ID);
        let sizes = [0, 5, PIECE_BYTES - 30, 100, 3 * PIECE_BYTES, 1];
        let mut bytes = segment::head(ID, false).to_vec();
        sizes.iter().for_each(|size| bytes.extend(define(*size)));
        let end = bytes.len() as u64;
        let cut = define(PIECE_BYTES);
        bytes.extend(&cut[..cut.len() - 1]);
        std::fs::write(&path, bytes).unwrap();

        let mut walk = Walk::begin(&path, ID).unwrap();
        assert_eq!(walk.head().unwrap(), Head::Good { format: crate::schema::FORMAT, recycled: false });
        for size in sizes {
            let Step::Record { payload, .. } = walk.step().unwrap() else { panic!("no record of {size}") };
            assert_eq!(payload.len(), size + 2);
        }

        assert_eq!((walk.step().unwrap(), walk.at()), (Step::Stop, end));
        assert!(!walk.is_zero_from_here().unwrap());
        assert_eq!(walk.rest().unwrap(), cut[..cut.len() - 1]);
    }

    #[test]
    fn zeros_and_a_seal_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = segment::path(dir.path(), ID);
        let mut bytes = segment::head(ID, false).to_vec();
        bytes.extend(encoded(&Operation::QueueCreate { queue: QueueId(1) }, ID));
        let at = bytes.len();
        bytes.resize(2 * PIECE_BYTES, 0);
        std::fs::write(&path, bytes).unwrap();

        let mut walk = Walk::begin(&path, ID).unwrap();
        assert!(matches!(walk.step().unwrap(), Step::Record { .. }));
        assert_eq!(walk.step().unwrap(), Step::Stop);
        assert!(walk.is_zero_from_here().unwrap());

        segment::seal(&path, ID, at).unwrap();
        walk.go_to(at as u64);
        assert_eq!(walk.step().unwrap(), Step::Seal);
    }
}

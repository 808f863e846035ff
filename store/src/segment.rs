//! One segment file: its name, its header, and how its records are found again.
//!
//! ```text
//! 0                8            12             20            24          28
//! | "GRNSEGM\0"    | format u32 | segment u64  | recycled u32 | zero u32 | crc32c of all before |
//! | records, see record.rs ...
//! | the seal record, once the segment is complete
//! | zeros, or what an earlier life of a recycled file left
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::Error;
use crate::keys::take;
use crate::record::{self, Buffer, Parsed};
use crate::schema::FORMAT;
use crate::walk::{Step, Walk};

const MAGIC: [u8; 8] = *b"GRNSEGM\0";
/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 32;

/// The file of a segment.
pub(crate) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016}.seg"))
}

/// The segment a file name speaks of.
pub(crate) fn id_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// What a segment's first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A crash came before the header was written: there are no records either.
    Unwritten,
    /// The checksum is wrong, or it is the header of another segment.
    Damaged,
    /// A good header of this format number.
    Good { format: u32, recycled: bool },
}

pub(crate) fn head(id: u64, recycled: bool) -> [u8; HEADER_BYTES] {
    let mut head = [0; HEADER_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..20].copy_from_slice(&id.to_le_bytes());
    head[20..24].copy_from_slice(&u32::from(recycled).to_le_bytes());
    let crc = crc32c::crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

pub(crate) fn read_head(id: u64, bytes: &[u8]) -> Head {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Head::Unwritten };
    if head.iter().all(|byte| *byte == 0) {
        return Head::Unwritten;
    }
    good_head(id, head).unwrap_or(Head::Damaged)
}

fn good_head(id: u64, head: &[u8; HEADER_BYTES]) -> Option<Head> {
    let crc = crc32c::crc32c(&head[..28]);
    let mut rest = &head[..];
    let magic: [u8; 8] = take(&mut rest)?;
    let format = u32::from_le_bytes(take(&mut rest)?);
    let found = u64::from_le_bytes(take(&mut rest)?);
    let recycled = u32::from_le_bytes(take(&mut rest)?) != 0;
    let is_good = magic == MAGIC && found == id && head[28..] == crc.to_le_bytes();
    is_good.then_some(Head::Good { format, recycled })
}

/// Makes an empty segment file, ready for its first record, or leaves nothing. Not synced: the sync of
/// the first group covers it.
pub(crate) fn create(dir: &Path, id: u64) -> Result<File, Error> {
    let path = path(dir, id);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::io(&path))?;
    if let Err(error) = file.write_all(&head(id, false)) {
        fs::remove_file(&path).map_err(Error::io(&path))?;
        return Err(Error::io(&path)(error));
    }
    Ok(file)
}

/// Ends a segment that a crash left open, so that what stands behind its last good record is
/// never looked at again.
pub(crate) fn seal(path: &Path, id: u64, at: usize) -> Result<(), Error> {
    use std::os::unix::fs::FileExt;

    let file = OpenOptions::new().write(true).open(path).map_err(Error::io(path))?;
    if at <= HEADER_BYTES {
        file.write_all_at(&head(id, false), 0).map_err(Error::io(path))?;
    }
    let mut buffer = Buffer::default();
    let mark = buffer.begin_seal();
    buffer.finish(mark, record::seed(id));
    let mut at = at.max(HEADER_BYTES) as u64;
    for slice in buffer.slices() {
        file.write_all_at(&slice, at).map_err(Error::io(path))?;
        at += slice.len() as u64;
    }
    file.set_len(at).map_err(Error::io(path))?;
    file.sync_all().map_err(Error::io(path))
}

/// What a scan meets, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole record; its header stands at `offset`.
    Record { offset: usize, kind: u8, payload: Bytes },
    /// Bytes that are no record, with good records behind them.
    Hole { offset: usize, bytes: usize },
}

/// How a segment ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its seal: it is complete.
    Sealed { at: usize },
    /// The writer was still in it. `torn` are bytes that look like a record cut short.
    Open { at: usize, torn: usize },
}

/// Reads all records of a file from the byte `from` on.
pub(crate) fn scan_file(
    walk: &mut Walk,
    id: u64,
    from: u64,
    recycled: bool,
    visit: &mut impl FnMut(Found),
) -> Result<End, Error> {
    walk.go_to(from);
    while let Step::Record { offset, kind, payload } = walk.step()? {
        visit(Found::Record { offset: offset as usize, kind, payload });
    }
    let at = walk.at() as usize;
    if walk.is_zero_from_here()? {
        return Ok(End::Open { at, torn: 0 });
    }
    let rest = walk.rest()?;
    let end = scan(id, &rest, 0, recycled, &mut |found| {
        visit(match found {
            Found::Record { offset, kind, payload } => Found::Record { offset: at + offset, kind, payload },
            Found::Hole { offset, bytes } => Found::Hole { offset: at + offset, bytes },
        });
    });
    Ok(match end {
        End::Sealed { at: sealed } => End::Sealed { at: at + sealed },
        End::Open { at: open, torn } => End::Open { at: at + open, torn },
    })
}

/// Reads all records from the byte `from` on.
fn scan(id: u64, bytes: &Bytes, from: usize, recycled: bool, visit: &mut impl FnMut(Found)) -> End {
    let seed = record::seed(id);
    let mut at = from;
    loop {
        match record::parse(bytes.get(at..).unwrap_or_default(), seed) {
            Parsed::Whole { kind: record::SEAL, .. } => return End::Sealed { at },
            Parsed::Whole { kind, len } => {
                let payload = at + record::HEADER_BYTES;
                let end = payload + len;
                visit(Found::Record { offset: at, kind, payload: bytes.slice(payload..end) });
                at = end;
            }
            here => match next_record(bytes, at, seed) {
                Some(next) => {
                    visit(Found::Hole { offset: at, bytes: next - at });
                    at = next;
                }
                None => return End::Open { at, torn: torn(bytes, at, recycled, &here) },
            },
        }
    }
}

fn next_record(bytes: &[u8], bad: usize, seed: u32) -> Option<usize> {
    if is_zero(bytes.get(bad..)?) {
        return None;
    }
    // There may be a whole segment of a former life to look through, and the kind tells most of what is no
    // record: many bytes are looked at together, and only then each.
    const TOGETHER: usize = 64;
    let first = bad + 1;
    let kinds = bytes.get(first + record::KIND_AT..)?;
    let may_begin = |kinds: &[u8]| kinds.iter().fold(false, |any, kind| any | record::is_kind(*kind));
    let chunks = kinds.chunks(TOGETHER).enumerate().filter(|(_, kinds)| may_begin(kinds));
    let mut places = chunks.flat_map(|(chunk, kinds)| (0..kinds.len()).map(move |at| chunk * TOGETHER + at));
    places.find_map(|at| {
        let at = first + at;
        matches!(record::parse(&bytes[at..], seed), Parsed::Whole { .. }).then_some(at)
    })
}

fn torn(bytes: &[u8], at: usize, recycled: bool, here: &Parsed) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    // What stands behind the end of a recycled segment is its former life, unless it says that it
    // is ours.
    if is_zero(rest) || (recycled && *here == Parsed::Nothing) {
        return 0;
    }
    rest.len()
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A loop that may stop at any byte is far slower than one that looks at many together.
    const TOGETHER: usize = 4096;
    bytes.chunks(TOGETHER).all(|bytes| bytes.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Makes what was created, renamed or removed in a directory survive a power cut.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), Error> {
    let sync = || -> io::Result<()> { File::open(dir)?.sync_all() };
    sync().map_err(Error::io(dir))
}

/// The files in `dir` whose names end in `.extension`.
pub(crate) fn list(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Operation, QueueId};
    use crate::record::tests::encoded;

    const ID: u64 = 9;

    fn create_queue(id: u64) -> Vec<u8> {
        encoded(&Operation::QueueCreate { queue: QueueId(id) }, ID)
    }

    /// The queue ids in the records, the holes, and the end.
    fn scanned(bytes: &[u8], recycled: bool) -> (Vec<u64>, Vec<(usize, usize)>, End) {
        let (mut ids, mut holes) = (Vec::new(), Vec::new());
        let bytes = Bytes::copy_from_slice(bytes);
        let end = scan(ID, &bytes, HEADER_BYTES, recycled, &mut |found| match found {
            Found::Record { payload, .. } => {
                ids.push(u64::from_le_bytes(payload[..8].try_into().unwrap()));
            }
            Found::Hole { offset, bytes } => holes.push((offset, bytes)),
        });
        (ids, holes, end)
    }

    fn segment(records: u64) -> Vec<u8> {
        let mut bytes = head(ID, false).to_vec();
        (0..records).for_each(|id| bytes.extend(create_queue(id)));
        bytes
    }

    #[test]
    fn a_header_reads_back_and_that_of_another_segment_does_not() {
        let good = head(ID, true);

        assert_eq!(read_head(ID, &good), Head::Good { format: FORMAT, recycled: true });
        assert_eq!(read_head(ID + 1, &good), Head::Damaged);
        assert_eq!(read_head(ID, &good[..31]), Head::Unwritten);
        assert_eq!(read_head(ID, &[0; 64]), Head::Unwritten);
    }

    #[test]
    fn a_tail_torn_at_any_byte_keeps_all_records_before_it() {
        const RECORD: usize = record::HEADER_BYTES + 8;
        let whole = segment(210);

        for len in HEADER_BYTES..whole.len() {
            let (ids, holes, end) = scanned(&whole[..len], false);

            let records = (len - HEADER_BYTES) / RECORD;
            let at = HEADER_BYTES + records * RECORD;
            assert_eq!(ids, (0..records as u64).collect::<Vec<_>>());
            assert_eq!((holes, end), (vec![], End::Open { at, torn: len - at }));
        }
    }

    #[test]
    fn any_flipped_bit_of_the_last_record_costs_only_that_record() {
        let whole = segment(5);
        let last = whole.len() - 20;

        for bit in last * 8..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);

            let (ids, holes, end) = scanned(&bytes, false);

            assert_eq!((ids, holes), (vec![0, 1, 2, 3], vec![]));
            assert_eq!(end, End::Open { at: last, torn: 20 });
        }
    }

    #[test]
    fn any_flipped_bit_in_the_middle_is_a_hole_of_one_record() {
        let whole = segment(5);
        let third = HEADER_BYTES + 2 * 20;

        for bit in third * 8..(third + 20) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);

            let (ids, holes, _) = scanned(&bytes, false);

            assert_eq!((ids, holes), (vec![0, 1, 3, 4], vec![(third, 20)]));
        }
    }

    #[test]
    fn a_recycled_segments_old_records_never_parse() {
        let mut bytes = head(ID, true).to_vec();
        bytes.extend(create_queue(1));
        for id in 0..50 {
            bytes.extend(encoded(&Operation::QueueCreate { queue: QueueId(id) }, ID - 1));
        }

        let (ids, holes, end) = scanned(&bytes, true);

        assert_eq!((ids, holes), (vec![1], vec![]));
        assert_eq!(end, End::Open { at: HEADER_BYTES + 20, torn: 0 });
    }

    #[test]
    fn nothing_behind_the_seal_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), ID);
        fs::write(&path, segment(4)).unwrap();

        seal(&path, ID, HEADER_BYTES + 2 * 20).unwrap();

        let (ids, _, end) = scanned(&fs::read(&path).unwrap(), false);
        assert_eq!((ids, end), (vec![0, 1], End::Sealed { at: HEADER_BYTES + 2 * 20 }));
        assert_eq!(id_of(&path), Some(ID));
    }
}

//! Every record of the log, byte by byte: how an operation is written and read back.
//!
//! ```text
//! 0        4        8      9       12
//! | len u32 | crc u32 | kind | check | payload (len bytes)
//!
//! crc    crc32c of kind and payload, seeded with the segment id: a recycled segment's old records
//!        never parse.
//! check  low 24 bits of the crc32c of len, crc and kind, seeded likewise: a search for the next
//!        record after damage does not have to trust a random length.
//! ```
//!
//! All numbers are little-endian; `varint` is LEB128.

use bytes::Bytes;
use crc32c::crc32c_append;
use smallvec::SmallVec;

use crate::operation::{Operation, Parts, Publish, QueueId, RECORD_BYTES_MAX, Run, Runs, Seq};
use crate::varint;

/// Bytes of a record before its payload.
pub(crate) const HEADER_BYTES: usize = 12;
/// Where in the header the kind stands.
pub(crate) const KIND_AT: usize = 8;
/// Parts at least this large are written from where they are instead of being copied.
const LOAN_BYTES_MIN: usize = 4096;

const DEFINE: u8 = 1;
const UNDEFINE: u8 = 2;
const QUEUE_CREATE: u8 = 3;
const QUEUE_DELETE: u8 = 4;
const PUBLISH: u8 = 5;
const SETTLE: u8 = 6;
const DELIVERED: u8 = 7;
const ATOMIC: u8 = 8;
/// The last record of a segment that is complete: what follows is of no meaning.
pub(crate) const SEAL: u8 = 9;
const PURGE: u8 = 10;
const RELOCATE: u8 = 11;
const MARK: u8 = 12;

/// The payload does not say what its kind promises, although its checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What every checksum of a segment starts from.
pub(crate) fn seed(segment: u64) -> u32 {
    crc32c_append(0, &segment.to_le_bytes())
}

/// Encoded records waiting to be written. Large parts are kept by reference.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    loans: Vec<Loan>,
    loaned_bytes: usize,
}

struct Loan {
    /// The part stands before `bytes[at]`.
    at: usize,
    parts: Parts,
    which: usize,
}

impl Loan {
    fn part(&self) -> &[u8] {
        self.parts.get()[self.which]
    }
}

/// Where a record began in a [`Buffer`].
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    at: usize,
    loan: usize,
    total: usize,
    kind: u8,
}

impl Buffer {
    /// Bytes that writing it all will take.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.loaned_bytes
    }

    /// Bytes of the record that began at `mark`, its header included.
    pub(crate) fn len_since(&self, mark: Mark) -> usize {
        self.len() - mark.total
    }

    pub(crate) fn clear(&mut self) {
        const KEEP_BYTES: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.loans.clear();
        self.loaned_bytes = 0;
    }

    /// Appends `operation` without its checksums; [`Buffer::finish`] adds them once it is decided
    /// in which segment the record lies.
    pub(crate) fn begin(&mut self, operation: &Operation) -> Mark {
        let mark = self.mark(kind(operation));
        self.put(operation);
        mark
    }

    /// Appends settlements, sorted by queue and number, as one record.
    pub(crate) fn begin_settle(&mut self, sorted: &[(QueueId, Run)]) -> Mark {
        let mark = self.mark(SETTLE);
        self.put_runs(sorted);
        mark
    }

    /// Appends the record that ends a segment.
    pub(crate) fn begin_seal(&mut self) -> Mark {
        self.mark(SEAL)
    }

    fn mark(&mut self, kind: u8) -> Mark {
        let mark = Mark { at: self.bytes.len(), loan: self.loans.len(), total: self.len(), kind };
        self.bytes.extend_from_slice(&[0; HEADER_BYTES]);
        mark
    }

    /// Fills in the header of the last record.
    pub(crate) fn finish(&mut self, mark: Mark, seed: u32) {
        let len = self.len_since(mark) - HEADER_BYTES;
        assert!(len <= RECORD_BYTES_MAX, "a record of {len} bytes passed the door");

        let mut crc = crc32c_append(seed, &[mark.kind]);
        let mut from = mark.at + HEADER_BYTES;
        for loan in &self.loans[mark.loan..] {
            crc = crc32c_append(crc, &self.bytes[from..loan.at]);
            crc = crc32c_append(crc, loan.part());
            from = loan.at;
        }
        crc = crc32c_append(crc, &self.bytes[from..]);

        let header = header(len as u32, crc, mark.kind, seed);
        self.bytes[mark.at..mark.at + HEADER_BYTES].copy_from_slice(&header);
    }

    /// Takes the record that began at `mark` out, with a mark that is valid in its new place.
    pub(crate) fn split_off(&mut self, mark: Mark) -> (Buffer, Mark) {
        let mut loans = self.loans.split_off(mark.loan);
        let mut loaned_bytes = 0;
        for loan in &mut loans {
            loan.at -= mark.at;
            loaned_bytes += loan.part().len();
        }
        self.loaned_bytes -= loaned_bytes;
        let tail = Buffer { bytes: self.bytes.split_off(mark.at), loans, loaned_bytes };
        (tail, Mark { at: 0, loan: 0, total: 0, kind: mark.kind })
    }

    /// The pieces in the order of the file.
    pub(crate) fn slices(&self) -> Vec<std::io::IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.loans.len() * 2 + 1);
        let mut from = 0;
        for loan in &self.loans {
            if loan.at > from {
                slices.push(std::io::IoSlice::new(&self.bytes[from..loan.at]));
            }
            slices.push(std::io::IoSlice::new(loan.part()));
            from = loan.at;
        }
        if from < self.bytes.len() {
            slices.push(std::io::IoSlice::new(&self.bytes[from..]));
        }
        slices
    }

    fn put(&mut self, operation: &Operation) {
        match operation {
            Operation::Define { key, value } => {
                self.put_varint(key.len() as u64);
                self.bytes.extend_from_slice(key);
                self.bytes.extend_from_slice(value);
            }
            Operation::Undefine { key } => self.bytes.extend_from_slice(key),
            Operation::QueueCreate { queue } | Operation::QueueDelete { queue } => {
                self.put_u64(queue.0);
            }
            Operation::Publish(publish) | Operation::Relocate(publish) => self.put_publish(publish),
            Operation::Settle { queue, runs } | Operation::Purge { queue, runs } => {
                let mut sorted: SmallVec<[(QueueId, Run); 4]> =
                    runs.iter().map(|run| (*queue, run)).collect();
                sorted.sort_unstable();
                self.put_runs(&sorted);
            }
            Operation::Delivered { queue, through } => {
                self.put_u64(queue.0);
                self.put_u64(through.0);
            }
            Operation::Mark { queue, marks } => {
                self.put_u64(queue.0);
                for (seq, mark) in marks {
                    self.put_u64(seq.0);
                    self.put_varint(*mark);
                }
            }
            Operation::Atomic(parts) => self.put_atomic(parts),
        }
    }

    fn put_publish(&mut self, publish: &Publish) {
        self.put_u64(publish.timestamp_ms);
        self.put_varint(publish.due_at_ms.map_or(0, |at_ms| at_ms.saturating_add(1)));
        self.put_varint(publish.destinations.len() as u64);
        for (queue, seq) in &publish.destinations {
            self.put_u64(queue.0);
            self.put_u64(seq.0);
        }
        let parts = publish.parts.get();
        for part in parts {
            self.put_varint(part.len() as u64);
        }
        for (which, part) in parts.into_iter().enumerate() {
            if part.len() < LOAN_BYTES_MIN {
                self.bytes.extend_from_slice(part);
            } else {
                self.loaned_bytes += part.len();
                self.loans.push(Loan { at: self.bytes.len(), parts: publish.parts.clone(), which });
            }
        }
    }

    fn put_atomic(&mut self, parts: &[Operation]) {
        self.put_varint(parts.len() as u64);
        for part in parts {
            self.bytes.push(kind(part));
            let len_at = self.bytes.len();
            self.put_u32(0);
            let before = self.len();
            self.put(part);
            let len = (self.len() - before) as u32;
            self.bytes[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    /// `(queue u64, ranges varint, {first - last of the range before varint, last - first varint})`
    /// for each queue.
    fn put_runs(&mut self, sorted: &[(QueueId, Run)]) {
        let mut ranges: SmallVec<[Run; 16]> = SmallVec::new();
        for of_queue in sorted.chunk_by(|a, b| a.0 == b.0) {
            ranges.clear();
            for (_, run) in of_queue {
                match ranges.last_mut() {
                    Some(range) if run.first.0 <= range.last.0.saturating_add(1) => {
                        range.last = range.last.max(run.last);
                    }
                    _ => ranges.push(*run),
                }
            }
            self.put_u64(of_queue[0].0.0);
            self.put_varint(ranges.len() as u64);
            let mut end = 0;
            for range in &ranges {
                self.put_varint(range.first.0 - end);
                self.put_varint(range.last.0 - range.first.0);
                end = range.last.0;
            }
        }
    }

    fn put_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn put_varint(&mut self, value: u64) {
        varint::put(&mut self.bytes, value);
    }
}

fn kind(operation: &Operation) -> u8 {
    match operation {
        Operation::Define { .. } => DEFINE,
        Operation::Undefine { .. } => UNDEFINE,
        Operation::QueueCreate { .. } => QUEUE_CREATE,
        Operation::QueueDelete { .. } => QUEUE_DELETE,
        Operation::Publish(_) => PUBLISH,
        Operation::Relocate(_) => RELOCATE,
        Operation::Settle { .. } => SETTLE,
        Operation::Purge { .. } => PURGE,
        Operation::Delivered { .. } => DELIVERED,
        Operation::Mark { .. } => MARK,
        Operation::Atomic(_) => ATOMIC,
    }
}

fn header(len: u32, crc: u32, kind: u8, seed: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header[8] = kind;
    let check = crc32c_append(seed, &header[..9]).to_le_bytes();
    header[9..].copy_from_slice(&check[..3]);
    header
}

/// What stands at a place where a record may begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A record of `kind`, whose payload is the `len` bytes after the header.
    Whole { kind: u8, len: usize },
    /// A header of this segment, but the record, which takes this many bytes, is cut short or changed.
    Broken { needed: usize },
    /// No header of this segment.
    Nothing,
}

/// Whether a record of this kind is known.
pub(crate) fn is_kind(kind: u8) -> bool {
    (DEFINE..=MARK).contains(&kind)
}

/// Looks at the start of `bytes`. Checks the checksum of the whole record.
pub(crate) fn parse(bytes: &[u8], seed: u32) -> Parsed {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Parsed::Nothing };
    // Most of what is no header is found out by a look at the kind.
    if !is_kind(header[KIND_AT]) {
        return Parsed::Nothing;
    }
    let check = crc32c_append(seed, &header[..9]).to_le_bytes();
    if header[9..] != check[..3] {
        return Parsed::Nothing;
    }

    let [l0, l1, l2, l3, c0, c1, c2, c3, kind, ..] = *header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let Some(payload) = bytes[HEADER_BYTES..].get(..len) else {
        return Parsed::Broken { needed: HEADER_BYTES + len };
    };
    let crc = crc32c_append(crc32c_append(seed, &[kind]), payload);
    if crc != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Parsed::Broken { needed: HEADER_BYTES + len };
    }
    Parsed::Whole { kind, len }
}

/// Reads a payload. A `SETTLE` record holds settlements of many sessions and is handed out as one
/// operation a queue; every other kind as one. The parts of a message share `payload`'s memory.
pub(crate) fn decode(kind: u8, payload: Bytes, visit: &mut impl FnMut(Operation)) -> Result<(), Malformed> {
    let mut reader = Reader { bytes: payload };
    match kind {
        SETTLE | PURGE => return decode_runs(kind, &mut reader, visit),
        ATOMIC => visit(decode_atomic(&mut reader)?),
        _ => visit(decode_plain(kind, &mut reader)?),
    }
    reader.end()
}

fn decode_plain(kind: u8, reader: &mut Reader) -> Result<Operation, Malformed> {
    Ok(match kind {
        DEFINE => {
            let key_len = reader.varint()?;
            let key = reader.take(key_len)?.to_vec();
            Operation::Define { key, value: reader.rest().to_vec() }
        }
        UNDEFINE => Operation::Undefine { key: reader.rest().to_vec() },
        QUEUE_CREATE => Operation::QueueCreate { queue: QueueId(reader.u64()?) },
        QUEUE_DELETE => Operation::QueueDelete { queue: QueueId(reader.u64()?) },
        PUBLISH => Operation::Publish(decode_publish(reader)?),
        RELOCATE => Operation::Relocate(decode_publish(reader)?),
        DELIVERED => Operation::Delivered { queue: QueueId(reader.u64()?), through: Seq(reader.u64()?) },
        MARK => {
            let queue = QueueId(reader.u64()?);
            let mut marks = SmallVec::new();
            while !reader.bytes.is_empty() {
                marks.push((Seq(reader.u64()?), reader.varint()?));
            }
            Operation::Mark { queue, marks }
        }
        _ => return Err(Malformed),
    })
}

fn decode_publish(reader: &mut Reader) -> Result<Publish, Malformed> {
    let timestamp_ms = reader.u64()?;
    let due_at_ms = reader.varint()?.checked_sub(1);
    let count = reader.varint()?;
    if count > reader.bytes.len() as u64 / 16 {
        return Err(Malformed);
    }
    let mut destinations = SmallVec::with_capacity(count as usize);
    for _ in 0..count {
        destinations.push((QueueId(reader.u64()?), Seq(reader.u64()?)));
    }
    let lens = [reader.varint()?, reader.varint()?, reader.varint()?];
    let parts = [reader.take(lens[0])?, reader.take(lens[1])?, reader.take(lens[2])?];
    Ok(Publish { timestamp_ms, due_at_ms, destinations, parts: Parts::Own(parts) })
}

fn decode_atomic(reader: &mut Reader) -> Result<Operation, Malformed> {
    let count = reader.varint()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let kind = reader.u8()?;
        let len = reader.u32()?;
        let mut part = Reader { bytes: reader.take(u64::from(len))? };
        if matches!(kind, SETTLE | PURGE) {
            decode_runs(kind, &mut part, &mut |operation| parts.push(operation))?;
        } else {
            parts.push(decode_plain(kind, &mut part)?);
            part.end()?;
        }
    }
    Ok(Operation::Atomic(parts))
}

fn decode_runs(kind: u8, reader: &mut Reader, visit: &mut impl FnMut(Operation)) -> Result<(), Malformed> {
    while !reader.bytes.is_empty() {
        let queue = QueueId(reader.u64()?);
        let mut end = 0u64;
        let mut runs = Runs::default();
        for _ in 0..reader.varint()? {
            let first = end.checked_add(reader.varint()?).ok_or(Malformed)?;
            let last = first.checked_add(reader.varint()?).ok_or(Malformed)?;
            runs.push_run(Run { first: Seq(first), last: Seq(last) });
            end = last;
        }
        visit(match kind {
            SETTLE => Operation::Settle { queue, runs },
            _ => Operation::Purge { queue, runs },
        });
    }
    Ok(())
}

struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn take(&mut self, len: u64) -> Result<Bytes, Malformed> {
        if len > self.bytes.len() as u64 {
            return Err(Malformed);
        }
        Ok(self.bytes.split_to(len as usize))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = *self.bytes.first_chunk::<N>().ok_or(Malformed)?;
        bytes::Buf::advance(&mut self.bytes, N);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        varint::take(|| self.u8().ok()).ok_or(Malformed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One finished record as it stands in a file.
    pub(crate) fn encoded(operation: &Operation, segment: u64) -> Vec<u8> {
        let mut buffer = Buffer::default();
        let mark = buffer.begin(operation);
        buffer.finish(mark, seed(segment));
        buffer.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn decoded(bytes: &[u8], segment: u64) -> Vec<Operation> {
        let Parsed::Whole { kind, len } = parse(bytes, seed(segment)) else {
            panic!("not a record of segment {segment}");
        };
        assert_eq!(len + HEADER_BYTES, bytes.len());
        let mut found = Vec::new();
        let payload = Bytes::copy_from_slice(&bytes[HEADER_BYTES..]);
        decode(kind, payload, &mut |operation| found.push(operation)).unwrap();
        found
    }

    fn plain() -> impl Strategy<Value = Operation> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let part = || (0usize..9000, any::<u8>()).prop_map(|(len, byte)| Bytes::from(vec![byte; len]));
        prop_oneof![
            (bytes(), bytes()).prop_map(|(key, value)| Operation::Define { key, value }),
            bytes().prop_map(|key| Operation::Undefine { key }),
            any::<u64>().prop_map(|id| Operation::QueueCreate { queue: QueueId(id) }),
            any::<u64>().prop_map(|id| Operation::QueueDelete { queue: QueueId(id) }),
            any::<(u64, u64)>()
                .prop_map(|(id, seq)| Operation::Delivered { queue: QueueId(id), through: Seq(seq) }),
            (any::<u64>(), proptest::collection::vec(any::<(u64, u64)>(), 0..5)).prop_map(|(id, marks)| {
                let marks = marks.into_iter().map(|(seq, mark)| (Seq(seq), mark)).collect();
                Operation::Mark { queue: QueueId(id), marks }
            }),
            (any::<u64>(), proptest::collection::btree_set(any::<u64>(), 1..50), any::<bool>()).prop_map(
                |(id, seqs, is_purge)| {
                    let (queue, runs) = (QueueId(id), seqs.into_iter().map(Seq).collect());
                    match is_purge {
                        true => Operation::Purge { queue, runs },
                        false => Operation::Settle { queue, runs },
                    }
                }
            ),
            (
                any::<(u64, Option<u32>)>(),
                proptest::collection::vec(any::<(u64, u64)>(), 0..5),
                [part(), part(), part()]
            )
                .prop_map(|((timestamp_ms, expires), destinations, parts)| Operation::Publish(
                    Publish {
                        timestamp_ms,
                        due_at_ms: expires.map(u64::from),
                        destinations: destinations
                            .into_iter()
                            .map(|(queue, seq)| (QueueId(queue), Seq(seq)))
                            .collect(),
                        parts: Parts::Own(parts)
                    }
                )),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_record_reads_back_as_it_was_written(operation in plain(), segment: u64) {
            prop_assert_eq!(decoded(&encoded(&operation, segment), segment), vec![operation]);
        }

        #[test]
        fn an_atomic_record_reads_back_as_it_was_written(
            parts in proptest::collection::vec(plain(), 0..6)
        ) {
            let atomic = Operation::Atomic(parts);

            prop_assert_eq!(decoded(&encoded(&atomic, 7), 7), vec![atomic]);
        }

        #[test]
        fn garbage_never_panics(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(kind, Bytes::from(payload), &mut |_| ());
        }

        #[test]
        fn any_flipped_bit_is_noticed(operation in plain(), bit: proptest::sample::Index) {
            let mut bytes = encoded(&operation, 3);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);

            let is_whole = matches!(parse(&bytes, seed(3)), Parsed::Whole { .. });
            prop_assert!(!is_whole);
        }
    }

    #[test]
    fn a_record_of_another_segment_does_not_parse() {
        let bytes = encoded(&Operation::QueueCreate { queue: QueueId(1) }, 5);

        assert_eq!(parse(&bytes, seed(6)), Parsed::Nothing);
    }

    #[test]
    fn a_thousand_neighbours_settle_in_one_short_range() {
        let settle = Operation::Settle { queue: QueueId(1), runs: (5..1005).map(Seq).collect() };

        assert!(encoded(&settle, 1).len() < 32);
        assert_eq!(decoded(&encoded(&settle, 1), 1), vec![settle]);
    }
}

//! Every key and value of the state database, byte by byte.
//!
//! One tree, a kind byte in front, so that one batch changes all kinds at once. Keys are
//! big-endian and sort by queue and block; values are little-endian and end with their crc32c.
//!
//! ```text
//! 'm'                       meta        schema u32 | segment u64 | offset u32 | definitions u64 | queues u64 | blocks u64 | pages u64
//! 'd' key                   definition  value
//! 'q' queue u64             queue       next_seq u64 | delivered_below u64
//! 'b' queue u64 block u64   positions   segments | weighs u8 | { offset u32 | len u32 | weight u32, if weighs is 1 } ...
//! 's' queue u64 block u64   summary     published [u64; 16] | settled [u64; 16] | segments | weights
//!                                       | 0 u16 | { slot u16 | mark u64 } ...
//! 't' queue u64 page u64    due span    first ms u64 | its seq u64 | last ms u64 | its seq u64 | count u32 | written ms u64
//! 'e' queue u64 page u64    due entries { ms varint, more than before | seq zigzag varint, more than before } ...
//!
//! segments                  n u16 { from place u16 | segment u64 } ...
//! weights                   n u16 { segment u64 | bytes u64 } ...
//!
//! In format 1 there were no pages, and instead of 0 in the summary stood `n u16 { slot u16 | due at ms u64 } ...`.
//! `weighs` is 0 when each record has one message for one queue: its weight is its length then.
//! ```

use crate::block::{Marks, Segments, Summary, Weights, segment_at};
use crate::due::{Entry, Span};
use crate::log::Position;
use crate::operation::{QueueId, Seq};
use crate::slots::Bitmap;
use crate::varint;

pub(crate) const META: u8 = b'm';
pub(crate) const DEFINITION: u8 = b'd';
pub(crate) const QUEUE: u8 = b'q';
pub(crate) const POSITIONS: u8 = b'b';
pub(crate) const SUMMARY: u8 = b's';
pub(crate) const DUE_SPAN: u8 = b't';
pub(crate) const DUE_ENTRIES: u8 = b'e';

const PLACE_BYTES: usize = 8;
const WEIGHED_PLACE_BYTES: usize = 12;

/// A key, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Meta,
    Definition(Vec<u8>),
    Queue(QueueId),
    Positions(QueueId, u64),
    Summary(QueueId, u64),
    /// Of a page of due times.
    DueSpan(QueueId, u64),
    DueEntries(QueueId, u64),
}

impl Key {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Key::Meta => vec![META],
            Key::Definition(name) => [&[DEFINITION], name.as_slice()].concat(),
            Key::Queue(queue) => [&[QUEUE], queue.0.to_be_bytes().as_slice()].concat(),
            Key::Positions(queue, block) => of_queue(POSITIONS, *queue, *block),
            Key::Summary(queue, block) => of_queue(SUMMARY, *queue, *block),
            Key::DueSpan(queue, page) => of_queue(DUE_SPAN, *queue, *page),
            Key::DueEntries(queue, page) => of_queue(DUE_ENTRIES, *queue, *page),
        }
    }

    pub(crate) fn decode(key: &[u8]) -> Option<Key> {
        let (kind, rest) = key.split_first()?;
        Some(match *kind {
            META if rest.is_empty() => Key::Meta,
            DEFINITION => Key::Definition(rest.to_vec()),
            QUEUE => Key::Queue(QueueId(u64::from_be_bytes(rest.try_into().ok()?))),
            POSITIONS => {
                let (queue, block) = number_of(rest)?;
                Key::Positions(queue, block)
            }
            SUMMARY => {
                let (queue, block) = number_of(rest)?;
                Key::Summary(queue, block)
            }
            DUE_SPAN => {
                let (queue, page) = number_of(rest)?;
                Key::DueSpan(queue, page)
            }
            DUE_ENTRIES => {
                let (queue, page) = number_of(rest)?;
                Key::DueEntries(queue, page)
            }
            _ => return None,
        })
    }
}

fn of_queue(kind: u8, queue: QueueId, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(kind);
    key.extend_from_slice(&queue.0.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn number_of(rest: &[u8]) -> Option<(QueueId, u64)> {
    let (queue, number) = rest.split_at_checked(8)?;
    let queue = QueueId(u64::from_be_bytes(queue.try_into().ok()?));
    Some((queue, u64::from_be_bytes(number.try_into().ok()?)))
}

/// Where the log has been applied up to, and how much there must be of everything else: a
/// database that lost keys is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) schema: u32,
    /// `len` is not kept: this is a point between two records.
    pub(crate) position: Position,
    pub(crate) definitions: u64,
    pub(crate) queues: u64,
    pub(crate) blocks: u64,
    /// Of due times; none in format 1.
    pub(crate) pages: u64,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(52);
        value.extend_from_slice(&self.schema.to_le_bytes());
        value.extend_from_slice(&self.position.segment.to_le_bytes());
        value.extend_from_slice(&self.position.offset.to_le_bytes());
        value.extend_from_slice(&self.definitions.to_le_bytes());
        value.extend_from_slice(&self.queues.to_le_bytes());
        value.extend_from_slice(&self.blocks.to_le_bytes());
        value.extend_from_slice(&self.pages.to_le_bytes());
        checked(value)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Meta> {
        let mut value = unchecked(value)?;
        let schema = u32::from_le_bytes(take(&mut value)?);
        let meta = Meta {
            schema,
            position: Position {
                segment: u64::from_le_bytes(take(&mut value)?),
                offset: u32::from_le_bytes(take(&mut value)?),
                ..Position::default()
            },
            definitions: u64::from_le_bytes(take(&mut value)?),
            queues: u64::from_le_bytes(take(&mut value)?),
            blocks: u64::from_le_bytes(take(&mut value)?),
            pages: if schema == 1 { 0 } else { u64::from_le_bytes(take(&mut value)?) },
        };
        value.is_empty().then_some(meta)
    }
}

/// What is kept of a queue beside its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueueRow {
    pub(crate) next_seq: u64,
    pub(crate) delivered_below: u64,
}

impl QueueRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(20);
        value.extend_from_slice(&self.next_seq.to_le_bytes());
        value.extend_from_slice(&self.delivered_below.to_le_bytes());
        checked(value)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<QueueRow> {
        let mut value = unchecked(value)?;
        let row = QueueRow {
            next_seq: u64::from_le_bytes(take(&mut value)?),
            delivered_below: u64::from_le_bytes(take(&mut value)?),
        };
        value.is_empty().then_some(row)
    }
}

pub(crate) fn encode_positions(positions: &[Position], segments: &Segments) -> Vec<u8> {
    let mut value = Vec::with_capacity(2 + segments.len() * 10 + positions.len() * PLACE_BYTES + 4);
    put_segments(&mut value, segments);
    let weighs = positions.iter().any(|position| position.weight != position.len);
    value.push(weighs.into());
    for position in positions {
        value.extend_from_slice(&position.offset.to_le_bytes());
        value.extend_from_slice(&position.len.to_le_bytes());
        if weighs {
            value.extend_from_slice(&position.weight.to_le_bytes());
        }
    }
    checked(value)
}

pub(crate) fn decode_positions(value: &[u8]) -> Option<Vec<Position>> {
    let mut value = unchecked(value)?;
    let segments = take_segments(&mut value)?;
    let [weighs] = take(&mut value)?;
    let bytes = if weighs == 0 { PLACE_BYTES } else { WEIGHED_PLACE_BYTES };
    if value.len() % bytes != 0 {
        return None;
    }
    let mut positions = Vec::with_capacity(value.len() / bytes);
    for (at, mut place) in value.chunks_exact(bytes).enumerate() {
        // Without any segment all are settled, and it does not matter where they lay.
        let segment = segment_at(&segments, at).unwrap_or_default();
        let offset = u32::from_le_bytes(take(&mut place)?);
        let len = u32::from_le_bytes(take(&mut place)?);
        let weight = if weighs == 0 { len } else { u32::from_le_bytes(take(&mut place)?) };
        positions.push(Position { segment, offset, len, weight });
    }
    Some(positions)
}

pub(crate) fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut value = Vec::with_capacity(300);
    for word in summary.published.iter().chain(&summary.settled) {
        value.extend_from_slice(&word.to_le_bytes());
    }
    put_segments(&mut value, &summary.segments);
    value.extend_from_slice(&(summary.weights.len() as u16).to_le_bytes());
    for (segment, bytes) in &summary.weights {
        value.extend_from_slice(&segment.to_le_bytes());
        value.extend_from_slice(&bytes.to_le_bytes());
    }
    value.extend_from_slice(&0u16.to_le_bytes());
    for (slot, mark) in &summary.marks {
        value.extend_from_slice(&slot.to_le_bytes());
        value.extend_from_slice(&mark.to_le_bytes());
    }
    checked(value)
}

/// The summary, and when messages are due, by slot: in format 1 that stood here.
pub(crate) fn decode_summary(value: &[u8]) -> Option<(Summary, Vec<(u16, u64)>)> {
    let mut value = unchecked(value)?;
    let published = take_bitmap(&mut value)?;
    let settled = take_bitmap(&mut value)?;
    let segments = take_segments(&mut value)?;
    let mut weights = Weights::new();
    for _ in 0..u16::from_le_bytes(take(&mut value)?) {
        let segment = u64::from_le_bytes(take(&mut value)?);
        weights.push((segment, u64::from_le_bytes(take(&mut value)?)));
    }
    let mut due = Vec::new();
    for _ in 0..u16::from_le_bytes(take(&mut value)?) {
        let slot = u16::from_le_bytes(take(&mut value)?);
        due.push((slot, u64::from_le_bytes(take(&mut value)?)));
    }
    let mut marks = Marks::new();
    while !value.is_empty() {
        let slot = u16::from_le_bytes(take(&mut value)?);
        marks.push((slot, u64::from_le_bytes(take(&mut value)?)));
    }
    let summary = Summary { published, settled, segments, marks, weights };
    // Every live message must be covered by a segment.
    let is_covered = match summary.segments.first() {
        Some((from, _)) => *from == 0,
        None => summary.live_slots().next().is_none(),
    };
    is_covered.then_some((summary, due))
}

impl Span {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(48);
        for (at_ms, seq) in [self.first, self.last] {
            value.extend_from_slice(&at_ms.to_le_bytes());
            value.extend_from_slice(&seq.0.to_le_bytes());
        }
        value.extend_from_slice(&self.count.to_le_bytes());
        value.extend_from_slice(&self.written_ms.to_le_bytes());
        checked(value)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Span> {
        let mut value = unchecked(value)?;
        let span = Span {
            first: take_entry(&mut value)?,
            last: take_entry(&mut value)?,
            count: u32::from_le_bytes(take(&mut value)?),
            written_ms: u64::from_le_bytes(take(&mut value)?),
        };
        value.is_empty().then_some(span)
    }
}

fn take_entry(value: &mut &[u8]) -> Option<Entry> {
    let at_ms = u64::from_le_bytes(take(value)?);
    Some((at_ms, Seq(u64::from_le_bytes(take(value)?))))
}

/// The entries must be sorted.
pub(crate) fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let mut value = Vec::with_capacity(entries.len() * 6);
    let (mut at_ms, mut seq) = (0, 0);
    for entry in entries {
        varint::put(&mut value, entry.0 - at_ms);
        let step = entry.1.0.wrapping_sub(seq) as i64;
        varint::put(&mut value, (step << 1 ^ step >> 63) as u64);
        (at_ms, seq) = (entry.0, entry.1.0);
    }
    checked(value)
}

pub(crate) fn decode_entries(value: &[u8]) -> Option<Vec<Entry>> {
    let mut value = unchecked(value)?;
    let mut entries = Vec::new();
    let (mut at_ms, mut seq) = (0u64, 0u64);
    while !value.is_empty() {
        let mut number = || varint::take(|| take(&mut value).map(|[byte]| byte));
        at_ms = at_ms.checked_add(number()?)?;
        let step = number()?;
        seq = seq.wrapping_add(step >> 1 ^ (step & 1).wrapping_neg());
        entries.push((at_ms, Seq(seq)));
    }
    Some(entries)
}

fn take_bitmap(value: &mut &[u8]) -> Option<Bitmap> {
    let mut bitmap = Bitmap::default();
    for word in &mut bitmap {
        *word = u64::from_le_bytes(take(value)?);
    }
    Some(bitmap)
}

fn put_segments(value: &mut Vec<u8>, segments: &Segments) {
    value.extend_from_slice(&(segments.len() as u16).to_le_bytes());
    for (from, segment) in segments {
        value.extend_from_slice(&from.to_le_bytes());
        value.extend_from_slice(&segment.to_le_bytes());
    }
}

fn take_segments(value: &mut &[u8]) -> Option<Segments> {
    let mut segments = Segments::new();
    for _ in 0..u16::from_le_bytes(take(value)?) {
        let from = u16::from_le_bytes(take(value)?);
        segments.push((from, u64::from_le_bytes(take(value)?)));
    }
    Some(segments)
}

/// Adds the checksum that [`unchecked`] takes off.
pub(crate) fn checked(mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

pub(crate) fn unchecked(value: &[u8]) -> Option<&[u8]> {
    let (value, crc) = value.split_last_chunk::<4>()?;
    (crc32c::crc32c(value) == u32::from_le_bytes(*crc)).then_some(value)
}

/// Takes a fixed number of bytes off the front.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::Block;

    proptest! {
        #[test]
        fn keys_read_back_and_sort_by_queue_and_block(a: (u64, u64), b: (u64, u64)) {
            let key = |(queue, block)| Key::Positions(QueueId(queue), block);

            prop_assert_eq!(Key::decode(&key(a).encode()), Some(key(a)));
            prop_assert_eq!(key(a).encode().cmp(&key(b).encode()), a.cmp(&b));
        }

        #[test]
        fn definitions_and_queues_read_back(name: Vec<u8>, queue: u64) {
            let summary = Key::Summary(QueueId(queue), 3);

            prop_assert_eq!(Key::decode(&summary.encode()), Some(summary));
            for key in [Key::DueSpan(QueueId(queue), 4), Key::DueEntries(QueueId(queue), 5), Key::Meta, Key::Definition(name), Key::Queue(QueueId(queue))] {
                prop_assert_eq!(Key::decode(&key.encode()), Some(key));
            }
        }

        #[test]
        fn due_times_read_back(entries: std::collections::BTreeSet<(u64, u64)>, written_ms: u64) {
            let entries: Vec<_> = entries.into_iter().map(|(at_ms, seq)| (at_ms, Seq(seq))).collect();
            let (first, last) = (entries.first().copied(), entries.last().copied());
            let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
            let span = Span { first, last, count: entries.len() as u32, written_ms };

            prop_assert_eq!(Span::decode(&span.encode()), Some(span));
            prop_assert_eq!(decode_entries(&encode_entries(&entries)), Some(entries));
        }

        #[test]
        fn values_read_back_and_a_flipped_bit_is_noticed(
            segment: u64, offset: u32, next_seq: u64, slot in 0u16..1024, bit in 0usize..160
        ) {
            let position = Position { segment, offset, len: 7, weight: if slot < 9 { 7 } else { 3 } };
            let place = Position { segment, offset, ..Position::default() };
            let meta =
                Meta { schema: 2, position: place, definitions: 2, queues: 3, blocks: 4, pages: 5 };
            let row = QueueRow { next_seq, delivered_below: 5 };
            let mut block = Block::default();
            block.publish(slot, position);
            block.mark(slot, next_seq);
            block.set_weights(block.weigh().unwrap());
            let summary = block.summary();

            prop_assert_eq!(Meta::decode(&meta.encode()), Some(meta));
            prop_assert_eq!(QueueRow::decode(&row.encode()), Some(row));
            let positions = encode_positions(&[position], &summary.segments);
            prop_assert_eq!(decode_positions(&positions), Some(vec![position]));
            prop_assert_eq!(decode_summary(&encode_summary(&summary)), Some((summary, Vec::new())));
            let mut damaged = row.encode();
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(QueueRow::decode(&damaged), None);
        }
    }
}

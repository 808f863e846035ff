//! Every key and value of the state database, byte by byte.
//!
//! One tree, a kind byte in front, so that one batch changes all kinds at once. Keys are
//! big-endian and sort by queue and block; values are little-endian and end with their crc32c.
//!
//! ```text
//! 'm'                       meta        schema u32 | segment u64 | offset u32 | definitions u64 | queues u64 | blocks u64
//! 'd' key                   definition  value
//! 'q' queue u64             queue       next_seq u64 | delivered_below u64
//! 'b' queue u64 block u64   positions   { slot u16 | segment u64 | offset u32 | len u32 } ...
//! 's' queue u64 block u64   settled     [u64; 16], bit = settled
//! ```

use crate::block::{Bitmap, Block};
use crate::log::Position;
use crate::operation::QueueId;

pub(crate) const META: u8 = b'm';
pub(crate) const DEFINITION: u8 = b'd';
pub(crate) const QUEUE: u8 = b'q';
pub(crate) const POSITIONS: u8 = b'b';
pub(crate) const SETTLED: u8 = b's';

const ENTRY_BYTES: usize = 18;

/// A key, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Meta,
    Definition(Vec<u8>),
    Queue(QueueId),
    Positions(QueueId, u64),
    Settled(QueueId, u64),
}

impl Key {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Key::Meta => vec![META],
            Key::Definition(name) => [&[DEFINITION], name.as_slice()].concat(),
            Key::Queue(queue) => [&[QUEUE], queue.0.to_be_bytes().as_slice()].concat(),
            Key::Positions(queue, block) => of_block(POSITIONS, *queue, *block),
            Key::Settled(queue, block) => of_block(SETTLED, *queue, *block),
        }
    }

    pub(crate) fn decode(key: &[u8]) -> Option<Key> {
        let (kind, rest) = key.split_first()?;
        Some(match *kind {
            META if rest.is_empty() => Key::Meta,
            DEFINITION => Key::Definition(rest.to_vec()),
            QUEUE => Key::Queue(QueueId(u64::from_be_bytes(rest.try_into().ok()?))),
            POSITIONS => {
                let (queue, block) = block_of(rest)?;
                Key::Positions(queue, block)
            }
            SETTLED => {
                let (queue, block) = block_of(rest)?;
                Key::Settled(queue, block)
            }
            _ => return None,
        })
    }
}

fn of_block(kind: u8, queue: QueueId, block: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(kind);
    key.extend_from_slice(&queue.0.to_be_bytes());
    key.extend_from_slice(&block.to_be_bytes());
    key
}

fn block_of(rest: &[u8]) -> Option<(QueueId, u64)> {
    let (queue, block) = rest.split_at_checked(8)?;
    let queue = QueueId(u64::from_be_bytes(queue.try_into().ok()?));
    Some((queue, u64::from_be_bytes(block.try_into().ok()?)))
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
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(44);
        value.extend_from_slice(&self.schema.to_le_bytes());
        value.extend_from_slice(&self.position.segment.to_le_bytes());
        value.extend_from_slice(&self.position.offset.to_le_bytes());
        value.extend_from_slice(&self.definitions.to_le_bytes());
        value.extend_from_slice(&self.queues.to_le_bytes());
        value.extend_from_slice(&self.blocks.to_le_bytes());
        checked(value)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Meta> {
        let mut value = unchecked(value)?;
        let meta = Meta {
            schema: u32::from_le_bytes(take(&mut value)?),
            position: Position {
                segment: u64::from_le_bytes(take(&mut value)?),
                offset: u32::from_le_bytes(take(&mut value)?),
                len: 0,
            },
            definitions: u64::from_le_bytes(take(&mut value)?),
            queues: u64::from_le_bytes(take(&mut value)?),
            blocks: u64::from_le_bytes(take(&mut value)?),
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

pub(crate) fn encode_positions(block: &Block) -> Vec<u8> {
    let entries = block.entries();
    let mut value = Vec::with_capacity(entries.len() * ENTRY_BYTES + 4);
    for (slot, position) in entries {
        value.extend_from_slice(&slot.to_le_bytes());
        value.extend_from_slice(&position.segment.to_le_bytes());
        value.extend_from_slice(&position.offset.to_le_bytes());
        value.extend_from_slice(&position.len.to_le_bytes());
    }
    checked(value)
}

pub(crate) fn decode_positions(value: &[u8]) -> Option<Vec<(u16, Position)>> {
    let value = unchecked(value)?;
    if value.len() % ENTRY_BYTES != 0 {
        return None;
    }
    value
        .chunks_exact(ENTRY_BYTES)
        .map(|mut entry| {
            let slot = u16::from_le_bytes(take(&mut entry)?);
            let position = Position {
                segment: u64::from_le_bytes(take(&mut entry)?),
                offset: u32::from_le_bytes(take(&mut entry)?),
                len: u32::from_le_bytes(take(&mut entry)?),
            };
            Some((slot, position))
        })
        .collect()
}

pub(crate) fn encode_settled(bitmap: &Bitmap) -> Vec<u8> {
    checked(bitmap.iter().flat_map(|word| word.to_le_bytes()).collect())
}

pub(crate) fn decode_settled(value: &[u8]) -> Option<Bitmap> {
    let mut value = unchecked(value)?;
    let mut bitmap = Bitmap::default();
    for word in &mut bitmap {
        *word = u64::from_le_bytes(take(&mut value)?);
    }
    value.is_empty().then_some(bitmap)
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

    proptest! {
        #[test]
        fn keys_read_back_and_sort_by_queue_and_block(a: (u64, u64), b: (u64, u64)) {
            let key = |(queue, block)| Key::Positions(QueueId(queue), block);

            prop_assert_eq!(Key::decode(&key(a).encode()), Some(key(a)));
            prop_assert_eq!(key(a).encode().cmp(&key(b).encode()), a.cmp(&b));
        }

        #[test]
        fn definitions_and_queues_read_back(name: Vec<u8>, queue: u64) {
            let settled = Key::Settled(QueueId(queue), 3);

            prop_assert_eq!(Key::decode(&settled.encode()), Some(settled));
            for key in [Key::Meta, Key::Definition(name), Key::Queue(QueueId(queue))] {
                prop_assert_eq!(Key::decode(&key.encode()), Some(key));
            }
        }

        #[test]
        fn values_read_back_and_a_flipped_bit_is_noticed(
            segment: u64, offset: u32, next_seq: u64, slot in 0u16..1024, bit in 0usize..160
        ) {
            let position = Position { segment, offset, len: 0 };
            let meta = Meta { schema: 1, position, definitions: 2, queues: 3, blocks: 4 };
            let row = QueueRow { next_seq, delivered_below: 5 };
            let mut block = Block::default();
            block.publish(slot, position);
            block.settle(slot);

            prop_assert_eq!(Meta::decode(&meta.encode()), Some(meta));
            prop_assert_eq!(QueueRow::decode(&row.encode()), Some(row));
            let positions = decode_positions(&encode_positions(&block));
            prop_assert_eq!(positions, Some(vec![(slot, position)]));
            prop_assert_eq!(decode_settled(&encode_settled(block.bitmap())), Some(*block.bitmap()));
            let mut damaged = row.encode();
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(QueueRow::decode(&damaged), None);
        }
    }
}

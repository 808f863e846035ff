//! Definitions: opaque names and values, sorted; and their disaster copy on disk.
//!
//! `definitions.backup` lets the store start when the state database is lost:
//!
//! ```text
//! "GRNBACK\0" | format u32 | segment u64 | offset u32
//! | queues u64      | { queue u64 | next_seq u64 } ...
//! | definitions u64 | { key len u32 | value len u32 | key | value } ...
//! | crc32c u32 of all before
//! ```
//!
//! Little-endian. The position says up to where the log is contained in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::Error;
use crate::keys::{checked, take, unchecked};
use crate::log::{Position, sync_directory};
use crate::operation::QueueId;
use crate::schema::{self, FORMAT};

const MAGIC: [u8; 8] = *b"GRNBACK\0";
/// The copy's name in the data directory.
pub(crate) const BACKUP_FILE: &str = "definitions.backup";

#[derive(Default)]
pub(crate) struct Definitions {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Changed since the last checkpoint.
    dirty: BTreeSet<Vec<u8>>,
}

impl Definitions {
    pub(crate) fn define(&mut self, key: &[u8], value: &[u8]) {
        self.values.insert(key.to_vec(), value.to_vec());
        self.dirty.insert(key.to_vec());
    }

    pub(crate) fn undefine(&mut self, key: &[u8]) {
        if self.values.remove(key).is_some() {
            self.dirty.insert(key.to_vec());
        }
    }

    /// Puts back what a checkpoint has written.
    pub(crate) fn restore(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.values.insert(key, value);
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.values.iter()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty() > 0
    }

    /// How many have changed since they were last asked for.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// What has changed since it was last asked; `None` is gone.
    pub(crate) fn take_dirty(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|key| {
                let value = self.values.get(&key).cloned();
                (key, value)
            })
            .collect()
    }
}

/// The disaster copy, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Backup {
    pub(crate) position: Position,
    pub(crate) queues: Vec<(QueueId, u64)>,
    pub(crate) definitions: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Backup {
    pub(crate) fn encode<'a>(
        position: Position,
        queues: impl ExactSizeIterator<Item = (QueueId, u64)>,
        definitions: impl ExactSizeIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&position.segment.to_le_bytes());
        bytes.extend_from_slice(&position.offset.to_le_bytes());
        bytes.extend_from_slice(&(queues.len() as u64).to_le_bytes());
        for (queue, next_seq) in queues {
            bytes.extend_from_slice(&queue.0.to_le_bytes());
            bytes.extend_from_slice(&next_seq.to_le_bytes());
        }
        bytes.extend_from_slice(&(definitions.len() as u64).to_le_bytes());
        for (key, value) in definitions {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        checked(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Backup> {
        let mut rest = unchecked(bytes)?;
        let head: [u8; 8] = take(&mut rest)?;
        if head != MAGIC || !schema::is_known(u32::from_le_bytes(take(&mut rest)?)) {
            return None;
        }
        let mut backup = Backup::default();
        backup.position.segment = u64::from_le_bytes(take(&mut rest)?);
        backup.position.offset = u32::from_le_bytes(take(&mut rest)?);
        for _ in 0..u64::from_le_bytes(take(&mut rest)?) {
            let queue = QueueId(u64::from_le_bytes(take(&mut rest)?));
            backup.queues.push((queue, u64::from_le_bytes(take(&mut rest)?)));
        }
        for _ in 0..u64::from_le_bytes(take(&mut rest)?) {
            let key_len = u32::from_le_bytes(take(&mut rest)?) as usize;
            let value_len = u32::from_le_bytes(take(&mut rest)?) as usize;
            let (key, tail) = rest.split_at_checked(key_len)?;
            let (value, tail) = tail.split_at_checked(value_len)?;
            backup.definitions.push((key.to_vec(), value.to_vec()));
            rest = tail;
        }
        rest.is_empty().then_some(backup)
    }

    /// Reads the copy, if there is one and it is whole.
    pub(crate) fn read(dir: &Path) -> Option<Backup> {
        Backup::decode(&fs::read(dir.join(BACKUP_FILE)).ok()?)
    }

    /// Replaces the copy in one step: a crash leaves the old one or the new one.
    pub(crate) fn write(dir: &Path, bytes: &[u8]) -> Result<(), Error> {
        let path = dir.join(BACKUP_FILE);
        let tmp = dir.join("definitions.backup.tmp");
        let mut file = File::create(&tmp).map_err(Error::io(&tmp))?;
        file.write_all(bytes).map_err(Error::io(&tmp))?;
        file.sync_all().map_err(Error::io(&tmp))?;
        fs::rename(&tmp, &path).map_err(Error::io(&path))?;
        sync_directory(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backup_reads_back_and_a_cut_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut definitions = Definitions::default();
        definitions.define(b"queue/jobs", b"durable");
        definitions.define(b"user/guest", b"");
        let position = Position { segment: 4, offset: 77, ..Position::default() };
        let queues = [(QueueId(1), 10), (QueueId(2), 0)];

        let bytes = Backup::encode(position, queues.into_iter(), definitions.iter());
        Backup::write(dir.path(), &bytes).unwrap();

        let backup = Backup::read(dir.path()).unwrap();
        assert_eq!((backup.position, backup.queues.as_slice()), (position, queues.as_slice()));
        assert_eq!(backup.definitions[0], (b"queue/jobs".to_vec(), b"durable".to_vec()));
        for len in 0..bytes.len() {
            assert_eq!(Backup::decode(&bytes[..len]), None);
        }
    }

    #[test]
    fn only_what_changed_is_written_again() {
        let mut definitions = Definitions::default();
        definitions.define(b"a", b"1");
        definitions.define(b"b", b"1");
        definitions.take_dirty();

        definitions.define(b"a", b"2");
        definitions.undefine(b"b");
        definitions.undefine(b"c");

        let changed = [(b"a".to_vec(), Some(b"2".to_vec())), (b"b".to_vec(), None)];
        assert_eq!(definitions.take_dirty(), changed);
        assert!(!definitions.is_dirty());
    }
}

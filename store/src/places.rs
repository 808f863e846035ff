//! Where the messages of a cold block lie: in the state database, or else found again in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::block::{Summary, segment_at};
use crate::keys::{self, Key};
use crate::log::Position;
use crate::operation::{Operation, QueueId, Seq};
use crate::queues::seq_of;
use crate::record;
use crate::segment::{self, Found, Head};
use crate::slots::slots;
use crate::table::Table;
use crate::walk::Walk;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Places {
    table: Arc<Table>,
    log_dir: Arc<PathBuf>,
}

impl Places {
    pub(crate) fn new(table: Arc<Table>, log_dir: &Path) -> Places {
        Places { table, log_dir: Arc::new(log_dir.to_owned()) }
    }

    /// The place of each published message of a block, in order. One that cannot be found has no
    /// length: whoever reads it reports it.
    pub(crate) fn of_block(&self, queue: QueueId, index: u64, summary: &Summary) -> Vec<Position> {
        let kept = self.table.get(&Key::Positions(queue, index).encode());
        let positions = kept.as_deref().and_then(keys::decode_positions);
        positions
            .filter(|positions| summary.fits(positions))
            .unwrap_or_else(|| self.search(queue, index, summary))
    }

    /// The slow way, for a state database that has lost something.
    fn search(&self, queue: QueueId, index: u64, summary: &Summary) -> Vec<Position> {
        tracing::error!(
            queue = queue.0,
            block = index,
            "the state database has lost the places of a block; they are looked up in the log"
        );
        let mut found: HashMap<Seq, Position> = HashMap::new();
        for (_, segment) in &summary.segments {
            visit_segment(&self.log_dir, *segment, &mut |operation, position| {
                note(queue, position, operation, &mut found);
            });
        }
        let place = |(at, slot): (usize, u16)| {
            let segment = segment_at(&summary.segments, at).unwrap_or_default();
            let lost = Position { segment, ..Position::default() };
            found.get(&seq_of(index, slot)).copied().filter(|there| there.segment == segment).unwrap_or(lost)
        };
        slots(&summary.published).enumerate().map(place).collect()
    }
}

/// Visits all operations that can be read in a segment, with their places.
pub(crate) fn visit_segment(log_dir: &Path, segment: u64, visit: &mut impl FnMut(&Operation, Position)) {
    let Ok(mut walk) = Walk::begin(&segment::path(log_dir, segment), segment) else { return };
    let is_recycled = matches!(walk.head(), Ok(Head::Good { recycled: true, .. }));
    let from = walk.at();
    // Whoever reads what is not found here reports it.
    let _ = segment::scan_file(&mut walk, segment, from, is_recycled, &mut |here| {
        let Found::Record { offset, kind, payload } = here else { return };
        let len = (record::HEADER_BYTES + payload.len()) as u32;
        let position = Position { segment, offset: offset as u32, len, weight: 0 };
        // What makes no sense holds no message.
        let _ = record::decode(kind, payload, &mut |operation| {
            visit(&operation, position.weighed(&operation));
        });
    });
}

fn note(queue: QueueId, position: Position, operation: &Operation, found: &mut HashMap<Seq, Position>) {
    match operation {
        Operation::Publish(publish) | Operation::Relocate(publish) => {
            let here = publish.destinations.iter().filter(|(id, _)| *id == queue);
            found.extend(here.map(|(_, seq)| (*seq, position)));
        }
        Operation::Atomic(parts) => parts.iter().for_each(|part| note(queue, position, part, found)),
        _ => {}
    }
}

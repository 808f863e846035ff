//! The checkpoint: now and then the changed state goes to the state database, so that a start has
//! little log to read and dead segments can go.
//!
//! The order must hold, each step durable before the next:
//!
//! ```text
//! log synced up to P -> definitions.backup -> sled batch with P in it -> flush -> fdatasync -> dead segments go
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::block::Weights;
use crate::definitions::Backup;
use crate::error::Error;
use crate::fault::Fault;
use crate::full::Full;
use crate::intake::lock;
use crate::keys::{self, Key, Meta, checked};
use crate::log::Log;
use crate::operation::QueueId;
use crate::pages::{self, Pages};
use crate::places::Places;
use crate::pool::Pool;
use crate::queues::{Change, Changes};
use crate::schema::FORMAT;
use crate::state::State;
use crate::table::Table;

/// A checkpoint waits for so much room on the disk, and for this many times what it writes: sled writes
/// things more than once.
const ROOM_BYTES_MIN: u64 = 4 << 20;
const ROOM_FACTOR: u64 = 4;

/// All that one checkpoint writes: the state exactly as it is at one point of the log.
pub(crate) struct Snapshot {
    changes: Changes,
    backup: Option<Vec<u8>>,
    dead: Vec<u64>,
    /// How many dead segments are kept for a new life.
    spares_max: usize,
}

/// What cold blocks weigh, found out by a checkpoint for the next one.
pub(crate) type Weighed = Arc<Mutex<Vec<(QueueId, u64, Weights)>>>;

impl Snapshot {
    /// Takes what has changed. All that is in the log must be synced and applied.
    pub(crate) fn take(state: &mut State, log: &mut Log, force_backup: bool) -> Snapshot {
        let position = log.position();
        let is_backup_due = force_backup || state.definitions.is_dirty() || state.queues.membership_changed();
        let backup = is_backup_due.then(|| {
            let queues = state.queues.sorted();
            let queues = queues.iter().map(|(id, queue)| (*id, queue.next_seq));
            Backup::encode(position, queues, state.definitions.iter())
        });

        let mut changes = state.queues.take_changes();
        for (name, value) in state.definitions.take_dirty() {
            changes.rows.push((Key::Definition(name).encode(), value.map(checked)));
        }
        let (queues, blocks, pages) = state.queues.stored();
        let definitions = state.definitions.iter().len() as u64;
        let meta = Meta { schema: FORMAT, position, definitions, queues, blocks, pages };
        changes.rows.push((Key::Meta.encode(), Some(meta.encode())));
        let dead = log.take_dead(position, |segment| state.queues.live_in(segment) == 0);
        log.is_checkpointed();
        Snapshot { changes, backup, dead, spares_max: log.demand() }
    }
}

/// Writes snapshots.
pub(crate) struct Checkpointer {
    pub(crate) dir: PathBuf,
    pub(crate) table: Arc<Table>,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) places: Places,
    pub(crate) pages: Pages,
    pub(crate) weighed: Weighed,
    pub(crate) pool: Arc<Pool>,
    /// Held while a checkpoint is written, and by a backup that reads what the last one has written.
    pub(crate) turn: Arc<Mutex<()>>,
    pub(crate) fault: Fault,
    pub(crate) full: Arc<Full>,
}

impl Checkpointer {
    pub(crate) fn write(&self, mut snapshot: Snapshot) -> Result<(), Error> {
        let _turn = lock(&self.turn);
        if let Some(backup) = &snapshot.backup {
            self.step("checkpoint.backup")?;
            let write = || Backup::write(&self.dir, backup).map_err(Error::into_io);
            self.full.wait_out(&self.dir, write).map_err(Error::io(&self.dir))?;
        }
        self.step("checkpoint.batch")?;
        self.weigh(&mut snapshot.changes);
        let Changes { mut rows, due, .. } = snapshot.changes;
        let due: Vec<_> = due.iter().map(|job| (job.queue, job.write(&mut rows))).collect();
        self.wait_for_room(&rows)?;
        self.table.apply(rows)?;
        let mut state = lock(&self.state);
        due.into_iter().for_each(|(queue, pages)| state.queues.due_written(queue, pages));
        drop(state);
        self.step("checkpoint.flush")?;
        self.table.flush()?;
        self.step("checkpoint.sync")?;
        self.table.sync()?;
        self.step("checkpoint.reclaim")?;
        self.pool.reclaim(&snapshot.dead, snapshot.spares_max)?;
        self.step("checkpoint.done")?;
        pages::recall(&self.state, |queue, number, span| {
            self.pages.read(queue, number, span).unwrap_or_else(|| self.pages.search(queue, number, span))
        });
        self.step("recall.done")
    }

    /// sled does not survive a full disk, so there has to be room before it is asked. Segments that are
    /// kept for a new life make room first.
    fn wait_for_room(&self, rows: &[Change]) -> Result<(), Error> {
        let bytes = rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        let needed = ROOM_BYTES_MIN + ROOM_FACTOR * bytes.sum::<usize>() as u64;
        let look = || {
            self.fault.at("checkpoint.room")?;
            let disk = rustix::fs::statvfs(&self.dir)?;
            if disk.f_bavail * disk.f_frsize >= needed {
                return Ok(());
            }
            self.pool.remove_spares()?;
            Err(io::ErrorKind::StorageFull.into())
        };
        self.full.wait_out(&self.dir.join("state"), look).map_err(Error::io(&self.dir))
    }

    /// Adds the rows of cold blocks.
    fn weigh(&self, changes: &mut Changes) {
        let mut weighed = Vec::new();
        for (queue, index, mut summary) in changes.cold.drain(..) {
            summary.weights = summary.weigh(&self.places.of_block(queue, index, &summary));
            let row = (Key::Summary(queue, index).encode(), Some(keys::encode_summary(&summary)));
            changes.rows.push(row);
            weighed.push((queue, index, summary.weights));
        }
        lock(&self.weighed).extend(weighed);
    }

    fn step(&self, name: &'static str) -> Result<(), Error> {
        self.fault.at(name).map_err(Error::io(&self.dir))
    }
}

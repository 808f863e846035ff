//! The checkpoint: now and then the changed state goes to the state database, so that a start has
//! little log to read and dead segments can go.
//!
//! The order must hold, each step durable before the next:
//!
//! ```text
//! log synced up to P -> definitions.backup -> sled batch with P in it -> flush -> fdatasync -> dead segments go
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::definitions::Backup;
use crate::error::Error;
use crate::fault::Fault;
use crate::keys::{Key, Meta, checked};
use crate::log::Log;
use crate::pool::Pool;
use crate::queues::Change;
use crate::schema::FORMAT;
use crate::state::State;
use crate::table::Table;

/// All that one checkpoint writes: the state exactly as it is at one point of the log.
pub(crate) struct Snapshot {
    changes: Vec<Change>,
    backup: Option<Vec<u8>>,
    dead: Vec<u64>,
}

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
            changes.push((Key::Definition(name).encode(), value.map(checked)));
        }
        let (queues, blocks) = state.queues.stored();
        let definitions = state.definitions.iter().len() as u64;
        let meta = Meta { schema: FORMAT, position, definitions, queues, blocks };
        changes.push((Key::Meta.encode(), Some(meta.encode())));
        let dead = log.take_dead(position, |segment| state.queues.live_in(segment) == 0);
        Snapshot { changes, backup, dead }
    }
}

/// Writes snapshots.
pub(crate) struct Checkpointer {
    pub(crate) dir: PathBuf,
    pub(crate) table: Arc<Table>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) fault: Fault,
}

impl Checkpointer {
    pub(crate) fn write(&self, snapshot: Snapshot) -> Result<(), Error> {
        if let Some(backup) = &snapshot.backup {
            self.step("checkpoint.backup")?;
            Backup::write(&self.dir, backup)?;
        }
        self.step("checkpoint.batch")?;
        self.table.apply(snapshot.changes)?;
        self.step("checkpoint.flush")?;
        self.table.flush()?;
        self.step("checkpoint.sync")?;
        self.table.sync()?;
        self.step("checkpoint.reclaim")?;
        self.pool.reclaim(&snapshot.dead)?;
        self.step("checkpoint.done")
    }

    fn step(&self, name: &'static str) -> Result<(), Error> {
        self.fault.at(name).map_err(Error::io(&self.dir))
    }
}

/// The thread that writes snapshots while the log goes on.
pub(crate) struct Worker {
    jobs: mpsc::Sender<Snapshot>,
    is_busy: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `on_error` is called at most once; after it no snapshot is written.
    pub(crate) fn start(
        checkpointer: Checkpointer,
        on_error: impl FnOnce(Error) + Send + 'static,
    ) -> std::io::Result<Worker> {
        // Holds at most one job: the next one is taken only when the worker is idle.
        let (jobs, inbox) = mpsc::channel();
        let is_busy = Arc::new(AtomicBool::new(false));
        let busy = Arc::clone(&is_busy);
        let thread = thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            for snapshot in inbox {
                if let Err(error) = checkpointer.write(snapshot) {
                    on_error(error);
                    return;
                }
                busy.store(false, Ordering::Release);
            }
        })?;
        Ok(Worker { jobs, is_busy, thread })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    pub(crate) fn write(&self, snapshot: Snapshot) {
        self.is_busy.store(true, Ordering::Release);
        // It is gone only after an error, which has been told already.
        let _ = self.jobs.send(snapshot);
    }

    /// Waits until all is written.
    pub(crate) fn finish(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

//! The one writer thread: gather, encode, write, sync, tell, apply. Nobody else changes the state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::checkpoint::{Checkpointer, Snapshot, Worker};
use crate::error::Error;
use crate::intake::{Gathered, Group, Hub, lock};
use crate::log::{Log, Position};
use crate::operation::{Operation, QueueId, Run};
use crate::state::State;

/// Buffers keep room for this many operations between groups.
const KEEP_OPERATIONS: usize = 16 << 10;

pub(crate) struct Commit {
    pub(crate) hub: Arc<Hub>,
    /// Shared with the reading thread alone, which only looks.
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) log: Log,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) lazy_delay: Duration,
    /// There is something a checkpoint would write or free, although the state is unchanged.
    pub(crate) checkpoint_wanted: bool,
    /// The disaster copy of the definitions is missing.
    pub(crate) backup_wanted: bool,
    /// Where each operation of the group was written; parallel to it.
    pub(crate) positions: Vec<Position>,
    /// Settlements of the group that have not been encoded yet.
    pub(crate) settlements: Vec<(QueueId, Run)>,
}

impl Commit {
    /// Runs until the store is closed or poisoned.
    pub(crate) fn run(mut self, checkpointer: Checkpointer) {
        let hub = Arc::clone(&self.hub);
        let ended = catch_unwind(AssertUnwindSafe(|| self.work(checkpointer)));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => hub.poison(&error),
            Err(_) => {
                // The panic hook has told the details.
                let path = "the writer thread".into();
                hub.poison(&Error::Corrupt { path, reason: "it panicked".into() });
            }
        }
        hub.closed();
    }

    fn work(&mut self, checkpointer: Checkpointer) -> Result<(), Error> {
        let hub = Arc::clone(&self.hub);
        let worker = Worker::start(checkpointer, move |error| hub.poison(&error));
        let worker = worker.map_err(Error::io("a thread for checkpoints".as_ref()))?;
        let result = self.serve(&worker);
        self.log.finish();
        worker.finish();
        result
    }

    fn serve(&mut self, worker: &Worker) -> Result<(), Error> {
        let mut group = Group::default();
        let mut checkpoint_at = None;
        loop {
            let gathered = self.hub.gather(&mut group, self.lazy_delay, checkpoint_at);
            if self.hub.is_poisoned() {
                return Ok(());
            }
            self.commit(&mut group)?;
            if gathered == Gathered::Closing {
                return self.close(worker);
            }
            checkpoint_at = self.checkpoint_if_due(checkpoint_at, worker);
        }
    }

    fn commit(&mut self, group: &mut Group) -> Result<(), Error> {
        self.encode(&group.operations)?;
        self.log.sync()?;
        if self.hub.is_poisoned() {
            // A checkpoint failed meanwhile; the promise to tell nothing more is kept.
            return Ok(());
        }
        // IMPORTANT: only after the sync, or a crash makes the ticket a lie.
        self.hub.confirm(group);
        self.log.prepare();

        let mut state = lock(&self.state);
        for (operation, position) in group.operations.iter().zip(&self.positions) {
            state.apply(*position, operation);
        }
        drop(state);
        self.hub.is_applied(group);
        group.operations.clear();
        group.operations.shrink_to(KEEP_OPERATIONS);
        Ok(())
    }

    /// Settlements are gathered over the group and written as ranges. They may pass publishes, with
    /// which they commute, but nothing else.
    fn encode(&mut self, operations: &[Operation]) -> Result<(), Error> {
        self.positions.clear();
        self.positions.shrink_to(KEEP_OPERATIONS);
        for operation in operations {
            let position = match operation {
                Operation::Settle { queue, runs } => {
                    self.settlements.extend(runs.iter().map(|run| (*queue, run)));
                    Position::default()
                }
                Operation::Publish(_) => self.log.append(operation)?,
                _ => {
                    self.encode_settlements()?;
                    self.log.append(operation)?
                }
            };
            self.positions.push(position);
        }
        self.encode_settlements()
    }

    fn encode_settlements(&mut self) -> Result<(), Error> {
        if self.settlements.is_empty() {
            return Ok(());
        }
        self.settlements.sort_unstable();
        self.log.append_settle(&self.settlements)?;
        self.settlements.clear();
        self.settlements.shrink_to(KEEP_OPERATIONS);
        Ok(())
    }

    /// When the next checkpoint is due; none when there is nothing to write.
    fn checkpoint_if_due(&mut self, due: Option<Instant>, worker: &Worker) -> Option<Instant> {
        if !lock(&self.state).is_dirty() && !self.checkpoint_wanted {
            return None;
        }
        let now = Instant::now();
        let Some(at) = due else { return Some(now + self.checkpoint_interval) };
        if now < at {
            return due;
        }
        if worker.is_busy() {
            return Some(now + self.checkpoint_interval);
        }
        worker.write(self.snapshot());
        None
    }

    fn snapshot(&mut self) -> Snapshot {
        let snapshot = Snapshot::take(&mut lock(&self.state), &mut self.log, self.backup_wanted);
        self.checkpoint_wanted = false;
        self.backup_wanted = false;
        snapshot
    }

    /// Leaves the log sealed and wholly contained in the state database.
    fn close(&mut self, worker: &Worker) -> Result<(), Error> {
        if lock(&self.state).is_dirty() || self.checkpoint_wanted {
            let snapshot = self.snapshot();
            worker.write(snapshot);
        }
        self.log.seal()
    }
}

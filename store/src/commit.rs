//! The one writer thread: gather, encode, write, sync, tell, apply. Nobody else changes the state.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::checkpoint::{Checkpointer, Snapshot, Weighed};
use crate::error::Error;
use crate::intake::{Gathered, Group, Hub, SyncMode, lock};
use crate::log::{Log, Position};
use crate::meter::Meter;
use crate::operation::{Operation, QueueId, Run};
use crate::rewrite;
use crate::state::State;
use crate::worker::Worker;

/// So many changed definitions, and so many parts of all, are not left to wait for a checkpoint.
const DEFINITIONS_MIN: usize = 512;
const DEFINITIONS_PART: usize = 8;
/// Under load a checkpoint comes after this part of its interval.
const BUSY_PART: u32 = 50;
/// After this part of it sparse segments are looked for again.
const REWRITE_PART: u32 = 8;
/// Buffers keep room for this many operations between groups.
const KEEP_OPERATIONS: usize = 16 << 10;

pub(crate) struct Commit {
    pub(crate) hub: Arc<Hub>,
    /// Shared with threads that look, and with the checkpoint, which says where it has put due times.
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) log: Log,
    /// Where the log ends: all that anybody was told of lies before it, and every checkpoint. For backups.
    pub(crate) end: Arc<Mutex<Position>>,
    /// Every sync is timed.
    pub(crate) meter: Arc<Meter>,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) lazy_delay: Duration,
    pub(crate) lazy_sync: SyncMode,
    /// When what is written has to be synced at the latest.
    pub(crate) sync_at: Option<Instant>,
    /// There is something a checkpoint would write or free, although the state is unchanged.
    pub(crate) checkpoint_wanted: bool,
    /// The disaster copy of the definitions is missing.
    pub(crate) backup_wanted: bool,
    /// Where each operation of the group was written; parallel to it.
    pub(crate) positions: Vec<Position>,
    /// Settlements of the group that have not been encoded yet.
    pub(crate) settlements: Vec<(QueueId, Run)>,
    /// What the last checkpoint has found out.
    pub(crate) weighed: Weighed,
    pub(crate) rewriter: Worker<Vec<u64>>,
    /// Segments before this one were complete when sparse ones were looked for, and have been weighed since.
    pub(crate) weighed_before: u64,
    /// Those that have been given to the rewriter. One that still has live messages then is damaged.
    pub(crate) rewritten: BTreeSet<u64>,
    /// Not before this time are sparse segments looked for again.
    pub(crate) rewrite_at: Instant,
    /// The last checkpoint may have left something to weigh or to rewrite.
    pub(crate) is_settling: bool,
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
        let write = move |snapshot| {
            let written = checkpointer.write(snapshot);
            written.map_err(|error| hub.poison(&error)).is_ok()
        };
        let (worker, thread) = Worker::start("store-checkpoint", write)?;
        let result = self.serve(&worker);
        self.log.finish();
        drop(worker);
        // It has told why, if it did not end well.
        let _ = thread.join();
        result
    }

    fn serve(&mut self, worker: &Worker<Snapshot>) -> Result<(), Error> {
        let mut group = Group::default();
        let mut checkpoint_at = None;
        loop {
            let until = checkpoint_at.into_iter().chain(self.sync_at).min();
            let gathered = self.hub.gather(&mut group, self.lazy_delay, until);
            if self.hub.is_poisoned() {
                return Ok(());
            }
            self.commit(&mut group)?;
            if gathered == Gathered::Closing {
                return self.close(worker);
            }
            checkpoint_at = self.checkpoint_if_due(checkpoint_at, worker)?;
        }
    }

    fn commit(&mut self, group: &mut Group) -> Result<(), Error> {
        self.encode(&group.operations)?;
        self.write_or_sync(group)?;
        if self.hub.is_poisoned() {
            // A checkpoint failed meanwhile; the promise to tell nothing more is kept.
            return Ok(());
        }
        // IMPORTANT: only after the sync, if any of them waits for that, or a crash makes the ticket a lie.
        *lock(&self.end) = self.log.position();
        self.hub.confirm(group);
        self.log.prepare()?;

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

    fn write_or_sync(&mut self, group: &mut Group) -> Result<(), Error> {
        let now = Instant::now();
        let is_due = self.sync_at.is_some_and(|at| at <= now);
        // A group without operations is there because it is time for something.
        let sync = match group.is_empty() {
            true => SyncMode::Os,
            false => group.take_sync(self.lazy_sync, self.lazy_delay),
        };
        match sync {
            SyncMode::Group => self.sync(),
            _ if is_due => self.sync(),
            SyncMode::Interval(within) => {
                self.sync_at = self.sync_at.into_iter().chain([now + within]).min();
                self.log.write()
            }
            SyncMode::Os => self.log.write(),
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.sync_at = None;
        let began = Instant::now();
        self.log.sync()?;
        self.meter.synced(began.elapsed());
        Ok(())
    }

    /// Settlements are gathered over the group and written as ranges. They may pass publishes and marks,
    /// with which they commute, but nothing else.
    fn encode(&mut self, operations: &[Operation]) -> Result<(), Error> {
        self.positions.clear();
        self.positions.shrink_to(KEEP_OPERATIONS);
        for operation in operations {
            let position = match operation {
                Operation::Settle { queue, runs } => {
                    self.settlements.extend(runs.iter().map(|run| (*queue, run)));
                    Position::default()
                }
                Operation::Publish(_) | Operation::Mark { .. } => self.log.append(operation)?,
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
    fn checkpoint_if_due(
        &mut self,
        due: Option<Instant>,
        worker: &Worker<Snapshot>,
    ) -> Result<Option<Instant>, Error> {
        let is_wanted = self.checkpoint_wanted || self.log.has_much_to_spare();
        let state = lock(&self.state);
        let is_wanted = is_wanted || state.is_dirty();
        // A part of all, since the disaster copy has all of them each time.
        let definitions_max = DEFINITIONS_MIN.max(state.definitions.iter().len() / DEFINITIONS_PART);
        let has_much = self.log.has_grown_much() || state.definitions.dirty() >= definitions_max;
        drop(state);
        if !is_wanted && !self.is_settling {
            return Ok(None);
        }
        let now = Instant::now();
        let Some(at) = due else { return Ok(Some(now + self.checkpoint_interval)) };
        let is_busy = has_much && now + self.checkpoint_interval >= at + self.checkpoint_interval / BUSY_PART;
        if now < at && !is_busy {
            return Ok(due);
        }
        if worker.is_busy() {
            return Ok(Some(now + self.checkpoint_interval));
        }
        // What the last one has found out, before blocks that it has weighed become cold again.
        lock(&self.state).queues.set_weights(std::mem::take(&mut lock(&self.weighed)));
        if is_wanted {
            worker.give(self.snapshot()?);
        }
        self.is_settling |= is_wanted;
        if now >= self.rewrite_at {
            self.rewrite_at = now + self.checkpoint_interval / REWRITE_PART;
            self.is_settling = self.rewrite_sparse() || is_wanted;
            self.log.forget_demand();
        }
        Ok(self.is_settling.then_some(now + self.checkpoint_interval))
    }

    /// Has sparse segments rewritten, some at a time. Young ones are left alone: most of their messages
    /// are about to go. Whether there is any being rewritten.
    fn rewrite_sparse(&mut self) -> bool {
        let before = std::mem::replace(&mut self.weighed_before, self.log.position().segment);
        if self.rewriter.is_busy() {
            return true;
        }
        let state = lock(&self.state);
        let files: BTreeMap<u64, u64> = self.log.files().filter(|(id, _)| *id < before).collect();
        self.rewritten.retain(|id| files.contains_key(id));
        let mut chosen = rewrite::sparse(&files, state.queues.weights());
        drop(state);
        chosen.retain(|id| self.rewritten.insert(*id));
        if chosen.is_empty() {
            return false;
        }
        self.rewriter.give(chosen);
        true
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        // The state database must never know more than the log.
        self.sync()?;
        *lock(&self.end) = self.log.position();
        let snapshot = Snapshot::take(&mut lock(&self.state), &mut self.log, self.backup_wanted);
        self.checkpoint_wanted = false;
        self.backup_wanted = false;
        Ok(snapshot)
    }

    /// Leaves the log sealed and wholly contained in the state database.
    fn close(&mut self, worker: &Worker<Snapshot>) -> Result<(), Error> {
        if lock(&self.state).is_dirty() || self.checkpoint_wanted {
            // What it has to say comes before the next snapshot is taken.
            worker.wait();
            let snapshot = self.snapshot()?;
            worker.give(snapshot);
        }
        self.log.end()
    }
}

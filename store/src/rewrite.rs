//! Sparse segments: what is still alive in them is written again at the end of the log, so that they
//! can go.
//!
//! Without this one old message that nobody settles would keep 64 MiB of dead ones on the disk. With it
//! the segments take at most twice the space of the live messages, whatever these are; what is copied is
//! never more than what is freed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use smallvec::SmallVec;

use crate::error::Error;
use crate::fault::Fault;
use crate::intake::{Hub, lock};
use crate::operation::{Operation, Publish};
use crate::record;
use crate::segment;
use crate::state::State;
use crate::walk::{Step, Walk};

/// Of about this much of a segment is appended at once what is alive.
const ROUND_BYTES_MAX: u64 = 1 << 20;
/// About as many live bytes are given to the rewriter at once.
const JOB_BYTES_MAX: u64 = 64 << 20;

/// Which of these segments, given with their bytes on the disk, are worth rewriting. `weights` says how
/// many bytes of them are alive.
pub(crate) fn sparse(files: &BTreeMap<u64, u64>, weights: &BTreeMap<u64, u64>) -> Vec<u64> {
    let live = |id: &u64| weights.get(id).copied().unwrap_or(0);
    let mut excess = files.iter().map(|(id, bytes)| *bytes as i64 - 2 * live(id) as i64).sum::<i64>();
    let mut candidates: Vec<(u64, u64, u64)> =
        files.iter().map(|(id, bytes)| (*id, *bytes, live(id))).collect();
    // Those without any live message go by themselves.
    candidates.retain(|(_, bytes, live)| *live > 0 && live * 2 < *bytes);
    candidates.sort_by_key(|(_, bytes, live)| live * 1000 / bytes);

    let mut chosen = Vec::new();
    let mut moved = 0;
    for (id, bytes, live) in candidates {
        if excess <= 0 || (moved + live > JOB_BYTES_MAX && !chosen.is_empty()) {
            break;
        }
        // The same messages take `live` bytes elsewhere.
        excess -= bytes as i64 - live as i64;
        moved += live;
        chosen.push(id);
    }
    chosen
}

/// Rewrites segments that are complete.
pub(crate) struct Rewriter {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) log_dir: PathBuf,
    pub(crate) fault: Fault,
}

impl Rewriter {
    /// Whether it makes sense to go on with another one.
    pub(crate) fn rewrite(&self, segments: Vec<u64>) -> bool {
        for segment in segments {
            match self.rewrite_one(segment) {
                Ok(()) => {}
                Err(Error::Closed | Error::Poisoned) => return false,
                // Nothing is lost: it stays where it is.
                Err(error) => tracing::warn!(segment, %error, "segment not rewritten"),
            }
        }
        true
    }

    fn rewrite_one(&self, segment: u64) -> Result<(), Error> {
        let path = segment::path(&self.log_dir, segment);
        self.fault.at("rewrite.read").map_err(Error::io(&path))?;
        let mut walk = Walk::begin(&path, segment)?;
        let (mut moved, mut is_over) = (0, false);
        while !is_over {
            let began = Instant::now();
            let (messages, ended) = messages(&mut walk)?;
            is_over = ended;
            let alive = self.alive(segment, messages);
            if !alive.is_empty() {
                self.fault.at("rewrite.append").map_err(Error::io(&path))?;
                moved += alive.len();
                self.hub.append_and_wait(alive)?;
                // The other half of the time belongs to those who publish.
                thread::sleep(began.elapsed());
            }
        }
        tracing::debug!(segment, messages = moved, "segment rewritten");
        self.fault.at("rewrite.done").map_err(Error::io(&path))
    }

    /// What has to be written again: the live messages, with the queues that still have them.
    fn alive(&self, segment: u64, operations: Vec<Operation>) -> Vec<Operation> {
        let state = lock(&self.state);
        let mut alive = Vec::new();
        for operation in operations {
            let (Operation::Publish(publish) | Operation::Relocate(publish)) = operation else { continue };
            let destinations: SmallVec<_> = publish
                .destinations
                .iter()
                .copied()
                .filter(|(queue, seq)| state.queues.is_live_in(*queue, *seq, segment))
                .collect();
            if !destinations.is_empty() {
                alive.push(Operation::Relocate(Publish { destinations, ..publish }));
            }
        }
        alive
    }
}

/// The messages of the next records, and whether there is nothing behind them: no more, or nothing that can
/// be read. Whoever asks for that is told.
fn messages(walk: &mut Walk) -> Result<(Vec<Operation>, bool), Error> {
    let from = walk.at();
    let mut found = Vec::new();
    while walk.at() < from + ROUND_BYTES_MAX {
        let Step::Record { kind, payload, .. } = walk.step()? else { return Ok((found, true)) };
        // What makes no sense holds no message.
        let _ = record::decode(kind, payload, &mut |operation| take(operation, &mut found));
    }
    Ok((found, false))
}

fn take(operation: Operation, found: &mut Vec<Operation>) {
    match operation {
        Operation::Publish(_) | Operation::Relocate(_) => found.push(operation),
        Operation::Atomic(parts) => parts.into_iter().for_each(|part| take(part, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(of: &[(u64, u64)]) -> BTreeMap<u64, u64> {
        of.iter().copied().collect()
    }

    #[test]
    fn the_sparsest_segments_are_rewritten_until_half_of_all_is_alive() {
        let files = map(&[(1, 100), (2, 100), (3, 100), (4, 100)]);

        assert!(sparse(&files, &map(&[(1, 50), (2, 51), (3, 49), (4, 90)])).is_empty());
        assert_eq!(sparse(&files, &map(&[(1, 30), (2, 20), (3, 40), (4, 90)])), [2]);
        assert_eq!(sparse(&files, &map(&[(1, 10), (2, 20), (3, 5), (4, 70)])), [3, 1, 2]);
    }

    #[test]
    fn a_dead_segment_is_not_rewritten_and_a_lonely_message_is() {
        assert!(sparse(&map(&[(1, 100)]), &map(&[])).is_empty());
        assert_eq!(sparse(&map(&[(1, 100)]), &map(&[(1, 1)])), [1]);
    }
}

//! Looking through the ready messages of a queue without touching them.
//!
//! A piece at a time, in memory or from the store, so that nobody waits for it long. Messages that come or go
//! meanwhile may be seen or not.

use std::sync::Arc;

use store::{Page, Run, Seq, Wanted};

use super::{Found, Handle};
use crate::delivery::{Entry, Place, Returns, Stored};
use crate::message::Message;

/// So many octets of messages are read at once.
const PAGE_BYTES: usize = 1 << 20;

/// So many messages in memory are looked at under the queue's lock at once.
const LOOK_MAX: usize = 1024;

/// A message that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Where it stands.
    pub place: Place,
    /// The message.
    pub message: Arc<Message>,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// How often it has come back, if its queue counts that.
    pub returns: Returns,
}

impl Waiting {
    fn of(entry: &Entry) -> Waiting {
        let (place, message) = (entry.place(), entry.message.clone());
        Waiting { place, message, redelivered: entry.redelivered, returns: entry.returns }
    }
}

impl Handle {
    /// Shows the ready messages in the order in which they will be delivered, until `see` has enough and says false.
    /// Blocks the calling thread while the store reads: for operators.
    pub fn walk(&self, mut see: impl FnMut(Waiting) -> bool) {
        let levels = self.lock().state.line_count();
        let mut has_enough = false;
        let mut see = |waiting| {
            has_enough = !see(waiting);
            !has_enough
        };
        for level in (0..levels as u8).rev() {
            if !self.walk_line(level, &mut see) {
                return;
            }
        }
    }

    /// The same of a line; false if there were enough.
    fn walk_line(&self, level: u8, see: &mut impl FnMut(Waiting) -> bool) -> bool {
        let (mut from, end) = (Seq(0), Seq(u64::MAX));
        loop {
            let (here, away) = self.lock().state.waiting(level, from, end, LOOK_MAX);
            let away =
                away.filter(|run| run.last >= from).map(|run| Run { first: run.first.max(from), ..run });
            let is_near = |entry: &&Entry| away.is_none_or(|run| entry.seq < run.first);
            let near: Vec<Waiting> = here.iter().take_while(is_near).map(Waiting::of).collect();
            if let Some(last) = near.last() {
                from = Seq(last.place.seq.0 + 1);
                if !near.into_iter().all(&mut *see) {
                    return false;
                }
                continue;
            }
            // Nothing in memory stands before what is away.
            let Some(run) = away else { return true };
            let Some(found) = self.read_run(level, run) else { return true };
            let through = found.through();
            if !self.away(level, from, found).into_iter().all(&mut *see) {
                return false;
            }
            if through == end {
                return true;
            }
            from = Seq(through.0 + 1);
        }
    }

    /// What was found of a line, so far as it still waits there, and what is in memory between it.
    fn away(&self, level: u8, from: Seq, found: Found) -> Vec<Waiting> {
        let through = found.through();
        let messages = found.messages(self);
        let guarded = self.lock();
        let (here, _) = guarded.state.waiting(level, from, through, usize::MAX);
        let mut all: Vec<Waiting> = here.iter().map(Waiting::of).collect();
        for (seq, _, returns, message) in messages {
            let place = Place { level, seq };
            // What has been delivered, or brought back, in the meantime is not away any more.
            if guarded.state.has_away(place) {
                all.push(Waiting {
                    place,
                    message,
                    redelivered: guarded.state.was_delivered(place),
                    returns,
                });
            }
        }
        drop(guarded);
        all.sort_by_key(|waiting| waiting.place);
        all
    }

    fn read_run(&self, level: u8, run: Run) -> Option<Found> {
        let store = &self.0.surroundings.store;
        let read = |stored| {
            let wanted = Wanted { queue: self.line_id(level, stored), run, bytes_max: PAGE_BYTES };
            store.read_and_wait(wanted).ok()
        };
        let nothing = Page { through: run.last, ..Page::default() };
        let kept = if self.declaration().is_kept() { read(Stored::Kept)? } else { nothing };
        let spilled = match self.lock().has_spilled {
            true => read(Stored::Spilled)?,
            false => Page { through: run.last, ..Page::default() },
        };
        Some(Found { kept, spilled })
    }
}

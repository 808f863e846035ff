//! Looking through the ready messages of a queue without touching them.
//!
//! What is in memory is copied as it stands at the beginning; what is away is read from the store page by page, so
//! that a long queue costs a page at a time. Messages that come or go meanwhile may be seen or not.

use std::sync::Arc;

use store::{Page, Run, Seq, Wanted};

use super::{Found, Handle};
use crate::delivery::{Entry, Place, Returns, Stored};
use crate::message::Message;

/// So many octets of messages are read at once.
const PAGE_BYTES: usize = 1 << 20;

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
        for level in (0..levels).rev() {
            let (here, away) = self.lock().state.waiting(level as u8);
            let here: Vec<Waiting> = here.iter().map(Waiting::of).collect();
            let first_away = away.map_or(Seq(u64::MAX), |run| run.first);
            let (before, behind): (Vec<_>, Vec<_>) =
                here.into_iter().partition(|waiting| waiting.place.seq < first_away);
            if !before.into_iter().all(&mut see) {
                return;
            }
            let mut behind = behind.into_iter().peekable();
            if let Some(run) = away
                && !self.walk_away(level as u8, run, &mut behind, &mut see)
            {
                return;
            }
            if !behind.all(&mut see) {
                return;
            }
        }
    }

    /// The messages of a run that are away, and those between them that are not.
    fn walk_away(
        &self,
        level: u8,
        mut run: Run,
        here: &mut std::iter::Peekable<std::vec::IntoIter<Waiting>>,
        see: &mut impl FnMut(Waiting) -> bool,
    ) -> bool {
        while run.first <= run.last {
            let Some(found) = self.read_run(level, run) else { return true };
            let through = found.through();
            for (seq, _, returns, message) in found.messages(self) {
                let place = Place { level, seq };
                while let Some(other) = here.next_if(|other| other.place.seq <= seq) {
                    if other.place.seq < seq && !see(other) {
                        return false;
                    }
                }
                if !self.lock().state.has_away(place) {
                    // It has been delivered, or brought back, in the meantime.
                    continue;
                }
                let redelivered = self.lock().state.was_delivered(place);
                if !see(Waiting { place, message, redelivered, returns }) {
                    return false;
                }
            }
            if through >= run.last {
                break;
            }
            run.first = Seq(through.0 + 1);
        }
        true
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

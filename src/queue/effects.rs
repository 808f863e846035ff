//! What a command on a queue's state asks its caller to do once the queue's lock is released.

use std::sync::Arc;

use smallvec::SmallVec;
use store::{Run, Runs};

use super::Return;
use super::departure::{Departure, Reason};
use super::due::Time;
use crate::delivery::{Entry, Place, Returns, Stored};
use crate::message::Message;
use crate::outbox::Outbox;

/// What is to be done. Nearly always most of it is empty.
#[derive(Debug, Default)]
pub struct Effects {
    /// Kept messages that are gone from the queue.
    pub gone: Vec<Place>,
    /// The same for spilled ones.
    pub gone_spilled: Vec<Place>,
    /// The same for messages that were not in memory, by line.
    pub gone_away: SmallVec<[(u8, Runs); 1]>,
    /// What the store is to be given, for want of memory.
    pub spill: Vec<(Place, Arc<Message>)>,
    /// What the store is to bring: live messages of this run of a line, and about how many octets of them.
    pub wanted: SmallVec<[(u8, Run, usize); 1]>,
    /// The store is to list what is due in a line behind this time, and about how many of it.
    pub due: SmallVec<[(u8, Time, usize); 1]>,
    /// Runs of lines whose bodies are to be counted.
    pub uncounted: SmallVec<[(u8, Run); 1]>,
    /// Messages that have expired, and have to be read to be seen off.
    pub exhumed: Vec<Place>,
    /// Stored messages up to these have been handed to consumers that will acknowledge them.
    pub delivered_through: SmallVec<[Place; 1]>,
    /// How often kept messages have come back.
    pub returned: Vec<(Place, Returns)>,
    /// Messages that have left, and have somewhere to go.
    pub departed: Vec<Departure>,
    /// What happened to messages, if that is to be noted.
    pub noted: Vec<(Arc<Message>, Happened)>,
    /// So many messages were counted on and are not in the store.
    pub missing: u64,
    /// Connections with something new in their outboxes.
    pub ring: Vec<Arc<Outbox>>,
}

/// What happens to a message in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It went back to its place.
    Returned(Return),
    /// It left though nobody was done with it.
    Left(Reason),
}

impl Effects {
    /// Nobody will ask for this message again.
    pub fn is_gone(&mut self, entry: &Entry) {
        self.is_gone_from(entry.place(), entry.stored);
    }

    /// The same, if the message itself is elsewhere by now.
    pub fn is_gone_from(&mut self, place: Place, stored: Stored) {
        match stored {
            Stored::No => {}
            Stored::Kept => self.gone.push(place),
            Stored::Spilled => self.gone_spilled.push(place),
        }
    }

    /// Messages that were away are gone.
    pub fn are_gone_away(&mut self, level: u8, run: Run) {
        match self.gone_away.last_mut() {
            Some((last, runs)) if *last == level => runs.push_run(run),
            _ => {
                let mut runs = Runs::default();
                runs.push_run(run);
                self.gone_away.push((level, runs));
            }
        }
    }
}

/// Places by line: what one operation of the store can say at once.
pub fn by_level(mut places: Vec<Place>) -> impl Iterator<Item = (u8, Runs)> {
    // Mostly there is one line, and they are in the order in which they went.
    if places.iter().any(|place| place.level != places[0].level) {
        places.sort_by_key(|place| place.level);
    }
    let mut groups: SmallVec<[(u8, Runs); 1]> = SmallVec::new();
    for place in places {
        match groups.last_mut() {
            Some((level, runs)) if *level == place.level => runs.push(place.seq),
            _ => groups.push((place.level, [place.seq].into_iter().collect::<Runs>())),
        }
    }
    groups.into_iter()
}

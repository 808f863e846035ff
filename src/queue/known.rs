//! What a queue with `x-message-deduplication` knows again: one message of each value that is in the queue,
//! ready or not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::delivery::Place;
use crate::message::Message;

/// Values, and where the message of each is.
#[derive(Debug, Default)]
pub struct Known {
    places: HashMap<u128, Place>,
    /// Messages that the store may not have been told of yet, and in which round they came.
    fresh: VecDeque<(u128, u64, Arc<Message>)>,
    /// Messages of one round are told to the store together.
    round: u64,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No message has it.
    New,
    /// A message has it. The store is told of it before it is told of anything that comes now.
    Known,
    /// A message has it, and nobody can say when the store is told of that.
    OnItsWay,
}

impl Known {
    /// What comes from now on is told to the store later than what came before.
    pub fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Whether a message of this value is there.
    pub fn look(&self, value: u128) -> Sight {
        if !self.places.contains_key(&value) {
            return Sight::New;
        }
        let is_on_its_way = |(fresh, round, message): &(u128, u64, Arc<Message>)| {
            *fresh == value && *round != self.round && !message.is_told()
        };
        if self.fresh.iter().any(is_on_its_way) { Sight::OnItsWay } else { Sight::Known }
    }

    /// A message has come; one that is kept with itself.
    pub fn insert(&mut self, value: u128, place: Place, kept: Option<&Arc<Message>>) {
        self.places.insert(value, place);
        while self.fresh.front().is_some_and(|(_, _, message)| message.is_told()) {
            self.fresh.pop_front();
        }
        self.fresh.extend(kept.map(|message| (value, self.round, message.clone())));
    }

    /// The message of this place has gone.
    pub fn remove(&mut self, value: u128, place: Place) {
        if self.places.get(&value) == Some(&place) {
            self.places.remove(&value);
        }
    }

    /// Messages have gone: all but those that are there.
    pub fn retain(&mut self, mut is_there: impl FnMut(Place) -> bool) {
        self.places.retain(|_, place| is_there(*place));
    }
}

//! What a queue with `x-message-deduplication` knows again: one message of each value that is in the queue,
//! ready or not.

use std::collections::HashMap;

use crate::delivery::Place;

/// Values, and where the message of each is.
#[derive(Debug, Default)]
pub struct Known(HashMap<u128, Place>);

impl Known {
    /// Whether a message of this value is there.
    pub fn has(&self, value: u128) -> bool {
        self.0.contains_key(&value)
    }

    /// A message has come.
    pub fn insert(&mut self, value: u128, place: Place) {
        self.0.insert(value, place);
    }

    /// The message of this place has gone.
    pub fn remove(&mut self, value: u128, place: Place) {
        if self.0.get(&value) == Some(&place) {
            self.0.remove(&value);
        }
    }

    /// Messages have gone: all but those that are there.
    pub fn retain(&mut self, mut is_there: impl FnMut(Place) -> bool) {
        self.0.retain(|_, place| is_there(*place));
    }
}

//! One kind of exchange on a bench, for the tests of kinds: numbers for queues, text for keys.

use crate::error::Error;
use crate::matches::{Found, Matches};
use crate::routing::{Envelope, Headers, Link, NoHeaders, Routing};
use crate::targets::Slot;
use crate::value::{Arguments, Table, Value};

pub(crate) struct Bench<R> {
    pub(crate) routing: R,
    matches: Matches<()>,
}

/// A table from pairs.
pub(crate) fn table<'a>(values: &[(&'a str, Value<'a>)]) -> Table<'a> {
    values.iter().map(|(name, value)| (name.as_bytes(), value.clone())).collect()
}

impl<R: Routing> Bench<R> {
    pub(crate) fn new(routing: R) -> Self {
        Self { routing, matches: Matches::new() }
    }

    pub(crate) fn bind(&mut self, target: u32, key: &str) {
        self.bind_with(target, key, &Arguments::default()).expect("accepted");
    }

    pub(crate) fn bind_with(&mut self, target: u32, key: &str, arguments: &Arguments) -> Result<(), Error> {
        self.routing.check(key.as_bytes(), arguments)?;
        self.routing.bind(Link { target: Slot(target), routing_key: key.as_bytes(), arguments });
        Ok(())
    }

    pub(crate) fn unbind(&mut self, target: u32, key: &str) {
        self.unbind_with(target, key, &Arguments::default());
    }

    pub(crate) fn unbind_with(&mut self, target: u32, key: &str, arguments: &Arguments) {
        self.routing.unbind(Link { target: Slot(target), routing_key: key.as_bytes(), arguments });
    }

    /// The targets of a message with that key, sorted.
    pub(crate) fn matches(&mut self, key: &str) -> Vec<u32> {
        self.matches_with(key, &NoHeaders)
    }

    pub(crate) fn matches_with(&mut self, key: &str, headers: &dyn Headers) -> Vec<u32> {
        self.matches.clear();
        let Matches { reached, scratch, .. } = &mut self.matches;
        let envelope = Envelope::new(key.as_bytes(), headers);
        self.routing.visit(&envelope, scratch, &mut Found::new(reached));

        let mut targets = reached.list().to_vec();
        targets.sort_unstable();
        targets
    }
}

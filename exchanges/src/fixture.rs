//! One kind of exchange on a bench, for the tests of kinds: numbers for queues, text for keys.

use crate::binding::Target;
use crate::error::Error;
use crate::matches::{Found, Matches};
use crate::routing::{Envelope, Link, NoProperties, Properties, Proposal, Routing};
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

/// How many of the messages with the keys 0, 1, 2 and so on each target gets; one has to get each.
pub(crate) fn counts<R: Routing>(bench: &mut Bench<R>, messages: usize) -> [usize; 8] {
    let mut counts = [0; 8];
    for key in 0..messages {
        let [target] = bench.matches(&key.to_string())[..] else { panic!("one target for each message") };
        counts[target as usize] += 1;
    }
    counts
}

/// A binding to the queue of that number.
fn link<'a>(target: u32, key: &'a str, arguments: &'a Arguments) -> Link<'a> {
    let identity = Target::Queue(format!("queue {target}").as_str()).identity();
    Link { target: Slot(target), identity, routing_key: key.as_bytes(), arguments }
}

impl<R: Routing> Bench<R> {
    pub(crate) fn new(routing: R) -> Self {
        Self { routing, matches: Matches::new() }
    }

    pub(crate) fn bind(&mut self, target: u32, key: &str) {
        self.bind_with(target, key, &Arguments::default()).expect("accepted");
    }

    pub(crate) fn bind_with(&mut self, target: u32, key: &str, arguments: &Arguments) -> Result<(), Error> {
        self.routing.check(Proposal { to_queue: true, routing_key: key.as_bytes(), arguments })?;
        self.routing.bind(link(target, key, arguments));
        Ok(())
    }

    pub(crate) fn unbind(&mut self, target: u32, key: &str) {
        self.unbind_with(target, key, &Arguments::default());
    }

    pub(crate) fn unbind_with(&mut self, target: u32, key: &str, arguments: &Arguments) {
        self.routing.unbind(link(target, key, arguments));
    }

    /// The targets of a message with that key, sorted.
    pub(crate) fn matches(&mut self, key: &str) -> Vec<u32> {
        self.matches_with(key, &NoProperties)
    }

    pub(crate) fn matches_with(&mut self, key: &str, properties: &dyn Properties) -> Vec<u32> {
        self.matches.clear();
        let Matches { reached, scratch, .. } = &mut self.matches;
        let envelope = Envelope::new(key.as_bytes(), properties);
        self.routing.visit(&envelope, scratch, &mut Found::new(reached));

        let mut targets = reached.list().to_vec();
        targets.sort_unstable();
        targets
    }
}

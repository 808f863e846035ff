//! The direct exchange: a binding wants the messages whose key is its own.

use hashbrown::HashMap;

use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Routing};
use crate::targets::Targets;

/// Targets by key (section 3.1.3.1).
#[derive(Debug, Default)]
pub(crate) struct Direct {
    keys: HashMap<Box<[u8]>, Targets>,
}

impl Routing for Direct {
    fn bind(&mut self, link: Link<'_>) {
        self.keys.entry(link.routing_key.into()).or_default().add(link.target);
    }

    fn unbind(&mut self, link: Link<'_>) {
        let targets = self.keys.get_mut(link.routing_key).expect("only what was bound is unbound");
        targets.remove(link.target);
        if targets.is_empty() {
            self.keys.remove(link.routing_key);
        }
    }

    fn visit(&self, envelope: &Envelope<'_>, _: &mut Scratch, found: &mut Found<'_>) {
        for targets in envelope.keys().filter_map(|key| self.keys.get(key)) {
            targets.iter().for_each(|target| found.add(target));
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Bench;

    #[test]
    fn only_the_exact_key_matches() {
        let mut bench = Bench::new(Direct::default());
        bench.bind(1, "jobs");
        bench.bind(2, "jobs.urgent");
        bench.bind(3, "");

        assert_eq!(bench.matches("jobs"), [1]);
        assert_eq!(bench.matches("jobs.urgent"), [2]);
        assert_eq!(bench.matches(""), [3]);
        assert!(bench.matches("Jobs").is_empty());
    }

    #[test]
    fn a_key_bound_twice_matches_until_both_are_gone() {
        let mut bench = Bench::new(Direct::default());
        bench.bind(1, "jobs");
        bench.bind(1, "jobs");

        bench.unbind(1, "jobs");
        assert_eq!(bench.matches("jobs"), [1]);

        bench.unbind(1, "jobs");
        assert!(bench.matches("jobs").is_empty());
        assert!(bench.routing.is_empty());
    }
}

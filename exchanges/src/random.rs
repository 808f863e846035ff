//! The `x-random` and `x-local-random` exchanges: a message goes to one of the bindings, whichever.

use crate::error::Error;
use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Proposal, Routing};
use crate::targets::Ranks;

/// All bindings, of which every message draws one. A queue that is bound twice is drawn twice as often,
/// as in RabbitMQ.
#[derive(Debug, Default)]
pub(crate) struct Random {
    is_local: bool,
    ranks: Ranks,
}

impl Random {
    /// An `x-local-random` exchange, which picks among the queues of the node where the message came in:
    /// here all of them. Bindings are what RabbitMQ 4 takes: queues, without a key.
    pub(crate) fn local() -> Self {
        Self { is_local: true, ranks: Ranks::default() }
    }
}

impl Routing for Random {
    fn check(&self, proposal: Proposal<'_>) -> Result<(), Error> {
        let Proposal { to_queue, routing_key, .. } = proposal;
        let reason = match self.is_local {
            true if !routing_key.is_empty() => {
                let key = String::from_utf8_lossy(routing_key);
                format!("Non empty binding '{key}' key not permitted")
            }
            true if !to_queue => "Destination not found".to_owned(),
            _ => return Ok(()),
        };
        Err(Error::Invalid { reason })
    }

    fn bind(&mut self, link: Link<'_>) {
        self.ranks.add(link);
    }

    fn unbind(&mut self, link: Link<'_>) {
        self.ranks.remove(link);
    }

    fn visit(&self, _: &Envelope<'_>, _: &mut Scratch, found: &mut Found<'_>) {
        if !self.ranks.is_empty() {
            // The thread's own generator: nobody waits for it.
            found.add(self.ranks.at(rand::random_range(0..self.ranks.len())));
        }
    }

    fn is_by_keys(&self) -> bool {
        false
    }

    fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{Bench, counts};
    use crate::value::Arguments;

    #[test]
    fn every_binding_is_drawn_as_often() {
        let mut bench = Bench::new(Random::default());
        bench.bind(1, "a");
        bench.bind(1, "b");
        bench.bind(2, "a");

        let counts = counts(&mut bench, 30_000);

        // Ten standard deviations.
        assert!(counts[1].abs_diff(20_000) < 820, "{counts:?}");
        assert_eq!(counts[1] + counts[2], 30_000);
    }

    #[test]
    fn without_bindings_nothing_matches() {
        assert!(Bench::new(Random::default()).matches("a").is_empty());
    }

    #[test]
    fn a_local_one_is_bound_to_queues_without_a_key() {
        let routing = Random::local();
        let none = Arguments::default();
        let check = |to_queue, routing_key| {
            let checked = routing.check(Proposal { to_queue, routing_key, arguments: &none });
            checked.map_err(|error| error.to_string())
        };

        assert_eq!(check(true, b""), Ok(()));
        assert_eq!(check(true, b"k"), Err("Non empty binding 'k' key not permitted".into()));
        assert_eq!(check(false, b""), Err("Destination not found".into()));
    }

    proptest! {
        #[test]
        fn nothing_is_left_when_all_that_was_bound_is_unbound(
            bound in vec((0..4u32, 0..3u32), 0..20)
                .prop_flat_map(|bound| (Just(bound.clone()), Just(bound).prop_shuffle())),
        ) {
            let (bound, unbound) = bound;
            let mut bench = Bench::new(Random::default());
            bound.iter().for_each(|(target, key)| bench.bind(*target, &key.to_string()));
            prop_assert_eq!(bench.routing.is_empty(), bound.is_empty());

            unbound.iter().for_each(|(target, key)| bench.unbind(*target, &key.to_string()));
            prop_assert!(bench.routing.is_empty());
        }
    }
}

//! The fanout exchange: every binding wants every message.

use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Routing};
use crate::targets::Targets;

/// All targets (section 3.1.3.2). Keys are not looked at.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    targets: Targets,
}

impl Routing for Fanout {
    fn bind(&mut self, link: Link<'_>) {
        self.targets.add(link.target);
    }

    fn unbind(&mut self, link: Link<'_>) {
        self.targets.remove(link.target);
    }

    fn visit(&self, _: &Envelope<'_>, _: &mut Scratch, found: &mut Found<'_>) {
        self.targets.iter().for_each(|target| found.add(target));
    }

    fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Bench;

    #[test]
    fn every_target_matches_once_whatever_the_keys() {
        let mut bench = Bench::new(Fanout::default());
        bench.bind(1, "a");
        bench.bind(1, "b");
        bench.bind(2, "");

        assert_eq!(bench.matches("c"), [1, 2]);

        bench.unbind(1, "a");
        assert_eq!(bench.matches("c"), [1, 2]);

        bench.unbind(1, "b");
        assert_eq!(bench.matches("c"), [2]);
    }
}

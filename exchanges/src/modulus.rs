//! The `x-modulus-hash` exchange: a message goes to one of the bindings, the same for the same key.

use crate::digest::Digest;
use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Routing};
use crate::targets::Ranks;

/// All bindings in order of rank; what the key comes to, modulo how many they are, is the one. When a
/// binding comes or goes, most keys go elsewhere: that is what `x-consistent-hash` is for.
#[derive(Debug, Default)]
pub(crate) struct Modulus {
    ranks: Ranks,
}

impl Routing for Modulus {
    fn bind(&mut self, link: Link<'_>) {
        self.ranks.add(link);
    }

    fn unbind(&mut self, link: Link<'_>) {
        self.ranks.remove(link);
    }

    fn visit(&self, envelope: &Envelope<'_>, _: &mut Scratch, found: &mut Found<'_>) {
        if self.ranks.is_empty() {
            return;
        }
        let place = Digest::of(envelope.routing_key) % self.ranks.len() as u64;
        found.add(self.ranks.at(place as usize));
    }

    fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{Bench, counts};

    #[test]
    fn every_binding_gets_its_part_of_the_keys() {
        let mut bench = Bench::new(Modulus::default());
        bench.bind(1, "a");
        bench.bind(1, "b");
        bench.bind(2, "a");

        let counts = counts(&mut bench, 3000);

        assert!(counts[1].abs_diff(2000) < 150 && counts[2].abs_diff(1000) < 150, "{counts:?}");
    }

    #[test]
    fn without_bindings_nothing_matches() {
        assert!(Bench::new(Modulus::default()).matches("a").is_empty());
    }

    proptest! {
        #[test]
        fn a_key_goes_to_one_target_whatever_the_order_of_bindings(
            mut order in Just((0..8).collect::<Vec<u32>>()).prop_shuffle(),
            key in "[a-z]{0,8}",
        ) {
            let mut sorted = Bench::new(Modulus::default());
            (0..4).for_each(|target| sorted.bind(target, ""));
            let mut shuffled = Bench::new(Modulus::default());
            order.iter().for_each(|&target| shuffled.bind(target, ""));
            order.reverse();
            order.iter().filter(|&&target| target >= 4).for_each(|&target| shuffled.unbind(target, ""));

            let expected = sorted.matches(&key);
            prop_assert_eq!(expected.len(), 1);
            prop_assert_eq!(shuffled.matches(&key), expected);

            (0..4).for_each(|target| shuffled.unbind(target, ""));
            prop_assert!(shuffled.routing.is_empty());
        }
    }
}

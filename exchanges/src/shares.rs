//! How keys are shared out among members by weight, so that few change hands when a member comes or goes.
//!
//! The outcome depends on who the members are, never on the order in which they came: a restart forgets
//! that order.

use std::collections::BTreeSet;

use crate::digest::mix;
use crate::targets::Slot;

/// Someone who is to have a share of the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) target: Slot,
    /// Its number in every run of the broker.
    pub(crate) identity: u64,
    /// How large its share is to be, compared with those of others; at least 1.
    pub(crate) weight: u32,
}

/// A way of sharing out.
pub(crate) trait Shares: Send + Sync {
    /// The largest weight a member may have.
    fn weight_max(&self) -> u32;

    /// Adds a member. Only keys that it takes change hands.
    fn add(&mut self, member: Member);

    /// Takes a member away. Only its keys change hands.
    fn remove(&mut self, member: Member);

    /// Who has the key with this digest; nobody only if there is no member.
    fn owner(&self, key: u64) -> Option<Slot>;
}

/// For each key every member draws a lot, and the best one wins (rendezvous hashing).
///
/// Like the jump hash, of which it is the form that needs no order of members, it gives everyone exactly
/// the share that the weights say, and a new member takes from each of the others no more than it must.
/// A key costs a few nanoseconds a member.
#[derive(Debug, Default)]
pub(crate) struct Lots {
    members: Vec<Member>,
}

impl Shares for Lots {
    fn weight_max(&self) -> u32 {
        u32::MAX
    }

    fn add(&mut self, member: Member) {
        self.members.push(member);
    }

    fn remove(&mut self, member: Member) {
        let place = self.members.iter().position(|other| *other == member);
        self.members.swap_remove(place.expect("only who was added is removed"));
    }

    fn owner(&self, key: u64) -> Option<Slot> {
        let lots = self.members.iter().map(|member| (lot(member, key), member.target));
        lots.min_by(|(one, _), (two, _)| one.total_cmp(two)).map(|(_, target)| target)
    }
}

/// What a member draws for a key; the smallest wins. Lots are distributed exponentially at the rate of the
/// weight, so that each member has the smallest as often as its part of all weights says.
fn lot(member: &Member, key: u64) -> f64 {
    const STEPS: u64 = 1 << 53;
    let drawn = (mix(member.identity ^ key) % STEPS + 1) as f64 / STEPS as f64;
    -drawn.ln() / f64::from(member.weight)
}

/// Every member has points on a ring, as many as its weight says, and the next point clockwise has the key.
///
/// A key costs about the same however many members there are, and shares are only about as large as the
/// weights say.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    points: BTreeSet<(u64, Slot)>,
}

impl Ring {
    /// Points for each unit of weight. With so many, the shares of equal members differ by a tenth.
    const POINTS: u64 = 128;

    fn points_of(member: Member) -> impl Iterator<Item = (u64, Slot)> {
        // Odd, and far from all patterns: no two points of a member are the same (SplitMix64 again).
        const APART: u64 = 0x9e37_79b9_7f4a_7c15;
        let points = 1..=u64::from(member.weight) * Self::POINTS;
        points.map(move |n| (mix(member.identity.wrapping_add(n.wrapping_mul(APART))), member.target))
    }
}

impl Shares for Ring {
    // A member of this weight takes a few megabytes.
    fn weight_max(&self) -> u32 {
        1000
    }

    fn add(&mut self, member: Member) {
        self.points.extend(Self::points_of(member));
    }

    fn remove(&mut self, member: Member) {
        for point in Self::points_of(member) {
            self.points.remove(&point);
        }
    }

    fn owner(&self, key: u64) -> Option<Slot> {
        let next = self.points.range((key, Slot(0))..).next().or_else(|| self.points.first());
        next.map(|(_, target)| *target)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;

    const KEYS: usize = 20_000;

    fn member(number: u32, weight: u32) -> Member {
        Member { target: Slot(number), identity: Digest::of(&number.to_be_bytes()), weight }
    }

    fn both() -> [(&'static str, Box<dyn Shares>); 2] {
        [("lots", Box::<Lots>::default()), ("ring", Box::<Ring>::default())]
    }

    fn owners(shares: &dyn Shares, keys: usize) -> Vec<u32> {
        (0..keys).map(|key| shares.owner(Digest::of(&key.to_be_bytes())).unwrap().0).collect()
    }

    #[test]
    fn shares_are_as_large_as_the_weights_say() {
        let weights = [1, 2, 3, 4, 10];
        for ((name, mut shares), tolerance) in both().into_iter().zip([0.06, 0.3]) {
            (0..).zip(weights).for_each(|(number, weight)| shares.add(member(number, weight)));

            let owners = owners(&*shares, KEYS);

            for (number, weight) in (0..).zip(weights) {
                let keys = owners.iter().filter(|owner| **owner == number).count() as f64;
                let share = keys / KEYS as f64 * 20.0 / f64::from(weight);
                assert!((share - 1.0).abs() < tolerance, "{name}: {share} of what {weight} should have");
            }
        }
    }

    #[test]
    fn keys_never_change_hands_with_a_new_version() {
        for ((name, mut shares), expected) in both()
            .into_iter()
            .zip([[4, 4, 4, 2, 0, 4, 2, 3, 4, 2, 4, 1], [3, 4, 4, 3, 1, 3, 3, 3, 3, 0, 3, 1]])
        {
            (0..5).for_each(|number| shares.add(member(number, number + 1)));

            assert_eq!(owners(&*shares, 12), expected, "{name}");
        }
    }

    #[test]
    fn nobody_has_a_key_where_there_are_no_members() {
        for (name, shares) in both() {
            assert_eq!(shares.owner(7), None, "{name}");
        }
    }

    #[test]
    fn weights_may_be_as_large_as_is_said() {
        for (name, mut shares) in both() {
            let heavy = member(1, shares.weight_max());
            shares.add(heavy);
            shares.add(member(2, 1));

            let owners = owners(&*shares, 1000);

            assert!(owners.iter().filter(|owner| **owner == 1).count() > 980, "{name}");
            shares.remove(heavy);
            assert_eq!(shares.owner(7), Some(Slot(2)), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn only_the_keys_of_who_comes_or_goes_change_hands(
            weights in vec(1..20u32, 2..10),
            order in any::<prop::sample::Index>(),
        ) {
            for (name, mut shares) in both() {
                let members: Vec<Member> = (0..).zip(&weights).map(|(n, weight)| member(n, *weight)).collect();
                let (last, others) = members.split_last().unwrap();
                others.iter().for_each(|other| shares.add(*other));
                let before = owners(&*shares, 500);

                shares.add(*last);
                let with = owners(&*shares, 500);
                for (before, with) in before.iter().zip(&with) {
                    prop_assert!(with == before || *with == last.target.0, "{}", name);
                }

                shares.remove(*last);
                prop_assert_eq!(&owners(&*shares, 500), &before, "{}", name);

                let (_, mut again) = both().into_iter().find(|(other, _)| *other == name).unwrap();
                let mut reordered = others.to_vec();
                reordered.rotate_left(order.index(others.len()));
                reordered.iter().for_each(|other| again.add(*other));
                prop_assert_eq!(owners(&*again, 500), before, "{}", name);
            }
        }
    }
}

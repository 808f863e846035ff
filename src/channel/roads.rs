//! What a channel remembers of its publishes: where messages with an address seen before go, and what
//! properties seen before mean. Most publishes are like one of the last.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};
use smallvec::SmallVec;

use crate::queue;
use crate::tally::Tally;

/// So many addresses are remembered; then all are forgotten.
const ROADS_MAX: usize = 512;

/// So many addresses can be waiting to be seen a second time.
const SEEN: usize = 64;

/// The queues that messages with one address reach, and where their exchange is counted.
type Road = (SmallVec<[queue::Handle; 1]>, Arc<Tally>);

/// Addresses and where they lead, as long as the vhost does not change.
#[derive(Debug, Default)]
pub struct Roads {
    generation: u64,
    hasher: DefaultHashBuilder,
    known: HashMap<Box<[u8]>, Road>,
    /// Hashes of addresses that were seen once: those that come a single time are not worth remembering.
    seen: Vec<u64>,
    properties: Vec<u8>,
    meaning: Meaning,
}

/// What properties mean for a message, if nothing else has to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// It asks to survive a restart.
    pub persistent: bool,
    /// How long it may wait.
    pub ttl_ms: Option<u64>,
    /// Its priority.
    pub priority: u8,
}

impl Roads {
    /// Where messages with this address go, if that is known in this generation of the vhost.
    pub fn find(&self, generation: u64, address: &[u8]) -> Option<(&[queue::Handle], &Arc<Tally>)> {
        if generation != self.generation {
            return None;
        }
        self.known.get(address).map(|(queues, tally)| (&queues[..], tally))
    }

    /// Notes where a message went, in a generation that was looked up before it was routed.
    pub fn learn(&mut self, generation: u64, address: &[u8], queues: &[queue::Handle], tally: Arc<Tally>) {
        if generation != self.generation || self.known.len() == ROADS_MAX {
            self.generation = generation;
            self.known.clear();
            self.seen.clear();
        }
        let hash = self.hasher.hash_one(address);
        self.seen.resize(SEEN, 0);
        let seen = &mut self.seen[hash as usize % SEEN];
        if std::mem::replace(seen, hash) == hash {
            self.known.insert(address.into(), (queues.into(), tally));
        }
    }

    /// What properties mean, if they are the same as those of before.
    pub fn meaning(&self, properties: &[u8]) -> Option<Meaning> {
        (!properties.is_empty() && self.properties == properties).then_some(self.meaning)
    }

    /// Notes what properties mean.
    pub fn learn_meaning(&mut self, properties: &[u8], meaning: Meaning) {
        self.properties.clear();
        self.properties.extend_from_slice(properties);
        self.meaning = meaning;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_when_it_has_come_twice_in_one_generation() {
        let mut roads = Roads::default();
        roads.learn(1, b"a", &[], Arc::default());
        assert!(roads.find(1, b"a").is_none());

        roads.learn(1, b"a", &[], Arc::default());

        assert!(roads.find(1, b"a").is_some());
        assert!(roads.find(2, b"a").is_none());
        roads.learn(2, b"a", &[], Arc::default());
        assert!(roads.find(2, b"a").is_none());
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut roads = Roads::default();
        for n in 0u32..10_000 {
            (0..2).for_each(|_| roads.learn(1, &n.to_be_bytes(), &[], Arc::default()));
        }

        assert!(roads.known.len() <= ROADS_MAX && roads.seen.len() == SEEN);
    }

    #[test]
    fn only_the_same_properties_mean_the_same() {
        let mut roads = Roads::default();
        let meaning = Meaning { persistent: true, ttl_ms: Some(7), priority: 3 };
        assert_eq!(roads.meaning(b""), None);

        roads.learn_meaning(b"ab", meaning);

        assert_eq!((roads.meaning(b"ab"), roads.meaning(b"abc")), (Some(meaning), None));
    }
}

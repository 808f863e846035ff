//! Bindings, kept so that they are found by identity, by where they leave from and by where they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::digest::Digest;
use crate::name::Name;
use crate::routing::Link;
use crate::targets::Slot;
use crate::value::Arguments;

/// What a queue is to this crate: a cheap handle, as a shared pointer is, with a name.
pub trait Destination: Clone + Eq + Hash {
    /// Its name, from which kinds that spread messages know it again when the broker has been restarted.
    fn name(&self) -> &[u8];
}

impl Destination for &str {
    fn name(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Destination for Arc<str> {
    fn name(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target<D> {
    /// A queue of the broker's.
    Queue(D),
    /// Another exchange of the vhost.
    Exchange(Name),
}

impl<D: Destination> Target<D> {
    /// A number that is the target's in every run of the broker.
    pub(crate) fn identity(&self) -> u64 {
        let (sort, name) = match self {
            Self::Queue(queue) => (b"q", queue.name()),
            Self::Exchange(name) => (b"e", name.as_bytes()),
        };
        Digest::default().with(sort).with(name).number()
    }
}

/// A binding. All four fields together are its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding<D> {
    /// The exchange it leaves from.
    pub source: Name,
    /// The queue or exchange it leads to.
    pub target: Target<D>,
    /// Its key; what it means is up to the kind of the source.
    pub routing_key: Name,
    /// Its arguments; what they mean is up to the kind of the source.
    pub arguments: Arguments,
}

/// Numbers bindings in the order they were made; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BindingId(u64);

/// All bindings of a vhost.
#[derive(Debug)]
pub(crate) struct Bindings<D> {
    all: BTreeMap<BindingId, Kept<D>>,
    identities: HashTable<BindingId>,
    hasher: DefaultHashBuilder,
    sources: BTreeSet<(Slot, BindingId)>,
    targets: BTreeSet<(Slot, BindingId)>,
    made: u64,
}

#[derive(Debug)]
pub(crate) struct Kept<D> {
    pub(crate) source: Slot,
    pub(crate) target: Slot,
    pub(crate) binding: Binding<D>,
}

impl<D: Destination> Bindings<D> {
    /// The binding from `source` that is this link.
    pub(crate) fn find(&self, source: Slot, link: Link<'_>) -> Option<BindingId> {
        let hash = self.hash(source, link);
        let same = |id: &BindingId| {
            let kept = &self.all[id];
            let binding = &kept.binding;
            (kept.source, kept.target) == (source, link.target)
                && *binding.routing_key == *link.routing_key
                && binding.arguments == *link.arguments
        };
        self.identities.find(hash, same).copied()
    }

    /// Keeps a binding that is not there yet.
    pub(crate) fn insert(&mut self, kept: Kept<D>) {
        let id = BindingId(self.made);
        self.made += 1;
        let hash = self.hash(kept.source, kept.link());
        self.sources.insert((kept.source, id));
        self.targets.insert((kept.target, id));
        self.all.insert(id, kept);

        let (all, hasher) = (&self.all, &self.hasher);
        let rehash = |id: &BindingId| hash_of(hasher, all[id].source, all[id].link());
        self.identities.insert_unique(hash, id, rehash);
    }

    /// Forgets a binding.
    pub(crate) fn remove(&mut self, id: BindingId) -> Kept<D> {
        let kept = self.all.remove(&id).expect("a binding is removed once");
        self.sources.remove(&(kept.source, id));
        self.targets.remove(&(kept.target, id));
        let hash = self.hash(kept.source, kept.link());
        let entry = self.identities.find_entry(hash, |other| *other == id);
        entry.expect("every binding has an identity").remove();
        kept
    }

    /// All bindings, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding<D>> {
        self.all.values().map(|kept| &kept.binding)
    }

    pub(crate) fn get(&self, id: BindingId) -> &Binding<D> {
        &self.all[&id].binding
    }

    /// The bindings that leave from an exchange, the oldest first.
    pub(crate) fn from(&self, source: Slot) -> impl Iterator<Item = BindingId> {
        at(&self.sources, source)
    }

    /// The bindings that lead to a queue or exchange, the oldest first.
    pub(crate) fn to(&self, target: Slot) -> impl Iterator<Item = BindingId> {
        at(&self.targets, target)
    }

    fn hash(&self, source: Slot, link: Link<'_>) -> u64 {
        hash_of(&self.hasher, source, link)
    }
}

impl<D> Default for Bindings<D> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            identities: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            sources: BTreeSet::new(),
            targets: BTreeSet::new(),
            made: 0,
        }
    }
}

impl<D: Destination> Kept<D> {
    /// The binding as its source's kind sees it.
    pub(crate) fn link(&self) -> Link<'_> {
        Link {
            target: self.target,
            identity: self.binding.target.identity(),
            routing_key: &self.binding.routing_key,
            arguments: &self.binding.arguments,
        }
    }
}

fn hash_of(hasher: &DefaultHashBuilder, source: Slot, link: Link<'_>) -> u64 {
    let mut state = hasher.build_hasher();
    (source, link.target, link.routing_key, link.arguments).hash(&mut state);
    std::hash::Hasher::finish(&state)
}

fn at(pairs: &BTreeSet<(Slot, BindingId)>, slot: Slot) -> impl Iterator<Item = BindingId> {
    let range = (slot, BindingId(0))..=(slot, BindingId(u64::MAX));
    pairs.range(range).map(|&(_, id)| id)
}

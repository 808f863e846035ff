//! The types of exchange there are.

use std::fmt;

use crate::consistent_hash::ConsistentHash;
use crate::direct::Direct;
use crate::error::Error;
use crate::fanout::Fanout;
use crate::headers::HeaderMatch;
use crate::modulus::Modulus;
use crate::random::Random;
use crate::routing::Routing;
use crate::topic::Topic;
use crate::value::Arguments;
use crate::{deduplication, delayed, recent_history};

/// Every type of exchange: its name on the wire, and how an empty one is made.
pub const KINDS: &[Kind] = &[
    Kind { name: "direct", new: |_| Ok(Box::<Direct>::default()) },
    Kind { name: "fanout", new: |_| Ok(Box::<Fanout>::default()) },
    Kind { name: "topic", new: |_| Ok(Box::<Topic>::default()) },
    Kind { name: "headers", new: |_| Ok(Box::<HeaderMatch>::default()) },
    Kind { name: "x-consistent-hash", new: |arguments| Ok(Box::new(ConsistentHash::declared(arguments)?)) },
    Kind { name: "x-modulus-hash", new: |_| Ok(Box::<Modulus>::default()) },
    Kind { name: "x-random", new: |_| Ok(Box::<Random>::default()) },
    Kind { name: "x-local-random", new: |_| Ok(Box::new(Random::local())) },
    Kind { name: "x-recent-history", new: |arguments| Ok(Box::new(recent_history::declared(arguments)?)) },
    Kind { name: "x-delayed-message", new: |arguments| Ok(Box::new(delayed::declared(arguments)?)) },
    Kind {
        name: "x-message-deduplication",
        new: |arguments| Ok(Box::new(deduplication::declared(arguments)?)),
    },
];

/// A type of exchange, one of [`KINDS`].
#[derive(Clone, Copy)]
pub struct Kind {
    name: &'static str,
    new: fn(&Arguments) -> Result<Box<dyn Routing>, Error>,
}

impl Kind {
    /// The type of that name, which is case-sensitive.
    pub fn parse(name: &[u8]) -> Result<Self, Error> {
        let found = KINDS.iter().find(|kind| kind.name.as_bytes() == name);
        found.copied().ok_or_else(|| Error::UnknownKind { kind: name.into() })
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// An exchange of this type without bindings; refused if the declaration's arguments make no sense.
    pub(crate) fn routing(self, arguments: &Arguments) -> Result<Box<dyn Routing>, Error> {
        (self.new)(arguments)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Kind {}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::table;
    use crate::value::Value;

    #[test]
    fn kinds_are_found_by_their_name_and_start_empty() {
        // What some kinds cannot do without.
        let arguments = table(&[("x-delayed-type", Value::text("direct")), ("x-cache-size", Value::Int(1))]);
        for kind in KINDS {
            assert_eq!(Kind::parse(kind.name.as_bytes()), Ok(*kind));
            assert!(kind.routing(&arguments).unwrap().is_empty());
        }
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert_eq!(Kind::parse(b"Direct"), Err(Error::UnknownKind { kind: "Direct".into() }));
    }
}

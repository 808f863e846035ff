//! Exchanges, bindings and routing of one virtual host: which queues a published message reaches.
//!
//! Everything here is pure and synchronous: no IO, no clock, no lock, no task. The broker owns an
//! [`Exchanges`], tells it what is declared and bound, and asks it to [`route`](Exchanges::route)
//! each publish into a [`Matches`] that it reuses. What a queue *is* stays the broker's business: any
//! cheap handle that can be cloned, compared and hashed is a [`Destination`].
//!
//! ```
//! use garenne_exchanges::{Arguments, Declaration, Envelope, Exchanges, Kind, Matches, Target};
//!
//! let mut exchanges = Exchanges::new();
//! let kind = Kind::parse(b"topic").unwrap();
//! exchanges.declare(b"news", Declaration::durable(kind)).unwrap();
//! exchanges.bind(b"news", &Target::Queue("inbox"), b"sport.#", &Arguments::default()).unwrap();
//!
//! let mut matches = Matches::new();
//! exchanges.route(b"news", &Envelope::keyed(b"sport.chess"), &mut matches).unwrap();
//!
//! assert_eq!(matches.queues(), ["inbox"]);
//! ```
//!
//! A new kind of exchange is a file that implements `Routing` and a line in [`KINDS`].

mod graph;

mod binding;
mod exchange;
mod kind;

mod consistent_hash;
mod deduplication;
mod delayed;
mod direct;
mod fanout;
mod headers;
mod modulus;
mod random;
mod recent_history;
mod topic;
mod watched;

mod matches;
mod routing;

mod arguments;
mod digest;
mod error;
mod marks;
mod name;
mod shares;
mod slab;
mod targets;
mod value;

#[cfg(test)]
mod fixture;

pub use binding::{Binding, Destination, Target};
pub use deduplication::Deduplication;
pub use error::Error;
pub use exchange::{Declaration, Exchange};
pub use graph::{Declared, Exchanges, Removed};
pub use kind::{KINDS, Kind};
pub use matches::Matches;
pub use name::{NAME_BYTES_MAX, Name};
pub use recent_history::history_length;
pub use routing::{Envelope, NoProperties, Properties, Property};
pub use value::{Arguments, Table, Value};

//! Why a request about exchanges or bindings was refused: facts, from which the broker makes replies.

use std::fmt;

use crate::name::Name;

/// A refusal. It names the thing but not the vhost, which this crate has never heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such exchange.
    NotFound {
        /// The sort of thing: `exchange`.
        what: &'static str,
        /// The name that was asked for.
        name: Name,
    },
    /// The exchange exists with other properties.
    Mismatch {
        /// The exchange.
        name: Name,
        /// `type`, `durable`, `auto_delete`, `internal` or `alternate-exchange`.
        field: &'static str,
        /// What was asked for, as RabbitMQ prints it: `'fanout'`, `'true'`, `none`,
        /// `the value 'x' of type 'longstr'`. The quotes are part of it.
        received: String,
        /// What the exchange has, printed likewise.
        current: String,
    },
    /// Deleted "if unused", yet something is bound to it.
    InUse {
        /// The exchange.
        name: Name,
    },
    /// Names that begin `amq.` can be neither declared anew nor deleted.
    Reserved {
        /// The exchange.
        name: Name,
    },
    /// The default exchange cannot be declared, deleted, bound or unbound.
    DefaultExchange,
    /// No such type of exchange.
    UnknownKind {
        /// The type that was asked for.
        kind: Name,
    },
    /// An argument is of a type it cannot have.
    InvalidType {
        /// The exchange.
        name: Name,
        /// The argument.
        field: &'static str,
        /// The type it came with, as RabbitMQ names it.
        received: &'static str,
    },
    /// Arguments, a routing key or a name that the kind cannot take; the reason in RabbitMQ's words.
    Invalid {
        /// Fit to be shown to the client.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { what, name } => write!(f, "no {what} '{name}'"),
            Self::Mismatch { name, field, received, current } => write!(
                f,
                "inequivalent arg '{field}' for exchange '{name}': received {received} but current is {current}"
            ),
            Self::InUse { name } => write!(f, "exchange '{name}' in use"),
            Self::Reserved { name } => {
                write!(f, "exchange name '{name}' contains reserved prefix 'amq.*'")
            }
            Self::DefaultExchange => f.write_str("operation not permitted on the default exchange"),
            Self::UnknownKind { kind } => write!(f, "unknown exchange type '{kind}'"),
            Self::InvalidType { name, field, received } => {
                write!(f, "invalid type '{received}' for arg '{field}' in exchange '{name}'")
            }
            Self::Invalid { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

//! What the broker refuses and why, in terms of what the caller can do about it.
//!
//! Nobody here knows reply codes or HTTP statuses: `channel/reply.rs` (and later `http/error.rs`)
//! translate. The texts are RabbitMQ's, since people search for them.

use std::fmt;

/// The kinds of things that have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
    /// A virtual host.
    Vhost,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Exchange => "exchange",
            What::Queue => "queue",
            What::Vhost => "vhost",
        })
    }
}

/// A named thing of a vhost, as reply texts print it: `queue 'jobs' in vhost '/'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its kind.
    pub what: What,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub vhost: String,
}

impl Resource {
    /// A queue of a vhost.
    pub fn queue(name: &str, vhost: &str) -> Self {
        Resource { what: What::Queue, name: name.into(), vhost: vhost.into() }
    }

    /// An exchange of a vhost.
    pub fn exchange(name: &str, vhost: &str) -> Self {
        Resource { what: What::Exchange, name: name.into(), vhost: vhost.into() }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.what, self.name, self.vhost)
    }
}

/// Two declarations of one thing that do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The thing.
    pub resource: Resource,
    /// The flag or argument that differs.
    pub field: String,
    /// What was asked for, printed with its quotes.
    pub received: String,
    /// What it has, printed likewise.
    pub current: String,
}

impl From<Mismatch> for Error {
    fn from(mismatch: Mismatch) -> Error {
        Error::Mismatch(Box::new(mismatch))
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such thing.
    NotFound(Resource),
    /// It exists with other properties.
    Mismatch(Box<Mismatch>),
    /// The user's permissions do not allow it.
    Refused {
        /// The thing.
        resource: Resource,
        /// Who asked.
        user: String,
    },
    /// The user's topic permissions do not allow it.
    RefusedTopic {
        /// The routing key.
        key: String,
        /// The topic exchange.
        exchange: Resource,
        /// Who asked.
        user: String,
    },
    /// The user may not use the vhost at all.
    RefusedVhost {
        /// The vhost.
        vhost: String,
        /// Who asked.
        user: String,
    },
    /// No such vhost.
    NoVhost(String),
    /// No such user.
    NoUser(String),
    /// There may be no more connections or channels; the whole reason.
    Limit(String),
    /// It is protected from what was asked for; the whole reason, and the next step.
    Protected(String),
    /// Names beginning `amq.` belong to the broker.
    Reserved {
        /// Its kind.
        what: What,
        /// The name asked for.
        name: String,
    },
    /// The broker's own exchanges cannot be deleted.
    SystemExchange(Resource),
    /// The default exchange cannot be declared, deleted or bound.
    DefaultExchange,
    /// Clients cannot publish to an internal exchange.
    InternalExchange(Resource),
    /// An exclusive queue of another connection.
    Locked(Resource),
    /// Deleted "if unused", but it is used.
    InUse(Resource),
    /// Deleted "if empty", but it is not.
    NotEmpty(Resource),
    /// A consumer has, or would need, the queue for itself.
    ExclusiveUse(Resource),
    /// No such type of exchange.
    UnknownKind(String),
    /// An argument or property has a value it cannot have; the whole reason.
    Invalid(String),
    /// The store can no longer write; the broker is about to end.
    Store(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound(resource) => write!(f, "no {resource}"),
            Error::Mismatch(mismatch) => {
                let Mismatch { resource, field, received, current } = &**mismatch;
                write!(
                    f,
                    "inequivalent arg '{field}' for {resource}: received {received} but current is {current}"
                )
            }
            Error::Refused { resource, user } => {
                write!(f, "access to {resource} refused for user '{user}'")
            }
            Error::RefusedTopic { key, exchange, user } => {
                write!(f, "access to topic '{key}' in {exchange} refused for user '{user}'")
            }
            Error::RefusedVhost { vhost, user } => {
                write!(f, "access to vhost '{vhost}' refused for user '{user}'")
            }
            Error::NoVhost(name) => write!(f, "vhost {name} not found"),
            Error::NoUser(name) => write!(f, "user '{name}' not found"),
            Error::Reserved { what, name } => {
                write!(f, "{what} name '{name}' contains reserved prefix 'amq.*'")
            }
            Error::SystemExchange(resource) => write!(f, "deletion of system {resource} not allowed"),
            Error::DefaultExchange => f.write_str("operation not permitted on the default exchange"),
            Error::InternalExchange(resource) => {
                write!(f, "cannot publish to internal {resource}")
            }
            Error::Locked(resource) => write!(
                f,
                "cannot obtain exclusive access to locked {resource}. It could be originally declared on \
                 another connection or the exclusive property value does not match that of the original \
                 declaration."
            ),
            Error::InUse(resource) => write!(f, "{resource} in use"),
            Error::NotEmpty(resource) => write!(f, "{resource} not empty"),
            Error::ExclusiveUse(resource) => write!(f, "{resource} in exclusive use"),
            Error::UnknownKind(kind) if kind.is_empty() => f.write_str("invalid exchange type ''"),
            Error::UnknownKind(kind) => write!(f, "unknown exchange type '{kind}'"),
            Error::Invalid(reason)
            | Error::Limit(reason)
            | Error::Protected(reason)
            | Error::Store(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

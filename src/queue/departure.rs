//! Why a message left its queue though nobody was done with it, and the way up for such messages.
//!
//! A queue says that a message has departed; where it goes then is the business of those who know exchanges.
//! Until they have said so to the store, the store still has the message in its old queue.

use tokio::sync::mpsc;

use super::Handle;
use crate::delivery::Entry;

/// Why a message left its queue though nobody was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A consumer rejected it for good.
    Rejected,
    /// Its time to live was over.
    Expired,
    /// There was no room for it.
    MaxLen,
    /// It failed once more than it may.
    DeliveryLimit,
}

impl Reason {
    /// Its name in the `x-death` header.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Expired => "expired",
            Reason::MaxLen => "maxlen",
            Reason::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message that has left its queue.
#[derive(Debug)]
pub struct Departure {
    /// The message; nothing is left of it in the queue's memory.
    pub entry: Entry,
    /// Why.
    pub reason: Reason,
    /// It never was in the queue: there was no room for it.
    pub is_newcomer: bool,
}

/// A queue, and messages that have left it, in the order in which they did.
pub type Departed = (Handle, Vec<Departure>);

/// Where queues leave departures; whoever takes them there gives the queue leave to go on with
/// [`Handle::seen_off`].
pub type Exit = mpsc::UnboundedSender<Departed>;

/// So many messages of a queue may be on their way out. It is slower to expire, and holds its publishers up,
/// while there are more.
pub const LEAVING_MAX: usize = 4096;

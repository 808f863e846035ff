//! What exchanges do with a message on its way beside routing it: hold it back, or remember it.
//!
//! What the exchange does that a message is published to is seen to by the publish, which can still be refused.

use std::sync::Arc;

use amqp::Properties;
use smallvec::SmallVec;
use store::Operation;

use super::{Topology, delay, history};
use crate::message::Message;
use crate::queue::{self, Handle, Origin, With};

/// Where a message is held back, and how long, in milliseconds.
pub type Held = SmallVec<[(Handle, u64); 1]>;

/// Adds a message for its queues, and for the exchanges that hold it back. It leaves where it comes from, as
/// `settle` tells the store, with the last of these.
pub fn hand_on(
    batch: &mut queue::Batch,
    message: Message,
    queues: &[Handle],
    held: Held,
    origin: Origin,
    settle: Option<Operation>,
) {
    let mut settle = settle.map(|settle| With::Operation(Box::new(settle)));
    let last = if queues.is_empty() { held.len().checked_sub(1) } else { None };
    for (n, (delays, ms)) in held.into_iter().enumerate() {
        let with = if last == Some(n) { settle.take() } else { None };
        batch.add(message.held_back(ms), &[delays], origin, with);
    }
    if last.is_none() {
        batch.add(message, queues, origin, settle);
    }
}

/// Looks at the exchanges on the way of a message.
pub struct Watch<'a> {
    message: &'a Message,
    /// The exchange that it begins with is not looked at.
    skips_next: bool,
    /// How long it is held back where messages are delayed; found out when it is first needed.
    delay_ms: Option<Option<u64>>,
    /// Exchanges that hold it back, and how long.
    pub held: SmallVec<[(Arc<str>, u64); 1]>,
    /// Exchanges that remember it, among how many.
    pub remembered: SmallVec<[(Arc<str>, u64); 1]>,
}

impl<'a> Watch<'a> {
    /// Looks at all exchanges on the way but the first.
    pub fn of_others(message: &'a Message) -> Watch<'a> {
        Watch { skips_next: true, ..Watch::of_all(message) }
    }

    /// Looks at all exchanges on the way.
    pub fn of_all(message: &'a Message) -> Watch<'a> {
        let (held, remembered) = (SmallVec::new(), SmallVec::new());
        Watch { message, skips_next: false, delay_ms: None, held, remembered }
    }

    /// Whether a message goes on from an exchange that it has reached.
    pub fn lets_pass(&mut self, topology: &Topology, exchange: &exchanges::Exchange) -> bool {
        if std::mem::take(&mut self.skips_next) {
            return true;
        }
        if let Some(ms) = self.delay_ms()
            && topology.delays_messages_of(exchange)
        {
            self.held.push((exchange.name.to_string().into(), ms));
            return false;
        }
        if exchange.kind.name() == history::KIND
            && let Ok(length) = exchanges::history_length(&exchange.arguments)
        {
            self.remembered.push((exchange.name.to_string().into(), length));
        }
        true
    }

    fn delay_ms(&mut self) -> Option<u64> {
        let message = self.message;
        *self.delay_ms.get_or_insert_with(|| {
            let read = Properties::parse(message.parts.properties()).ok()?;
            // What makes no sense is only refused to a publisher.
            delay::delay_ms(read.headers?, message.taken_at_ms).ok().flatten()
        })
    }
}

//! A message as it travels through the broker: shared by all the queues it reached.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amqp::method::split_address;
use amqp::{Properties, table};
use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;
use store::Ticket;

use crate::parts::Parts;

/// A published message.
#[derive(Debug)]
pub struct Message {
    /// Address, properties and body.
    pub parts: Parts,
    /// Whether it asked to survive a restart.
    pub persistent: bool,
    /// When the broker took it, in milliseconds since 1970.
    pub taken_at_ms: u64,
    /// How long it may wait in a queue, if it said so (its `expiration`); of a delayed message, how long it is
    /// held back.
    pub ttl_ms: Option<u64>,
    /// Its priority; 0 if it did not say.
    pub priority: u8,
    /// Further keys it is routed with (its headers `CC` and `BCC`). Not kept: it is routed once.
    pub copies: Option<Keys>,
    /// The append that stores it.
    pub stored_by: StoredBy,
}

/// The last append that stores a message; noted after the message has gone to its queues.
#[derive(Debug)]
pub struct StoredBy(AtomicU64);

impl StoredBy {
    /// It is stored since before the start.
    pub const fn before() -> StoredBy {
        StoredBy(AtomicU64::new(0))
    }

    const NONE: u64 = u64::MAX;
    const DUE: u64 = u64::MAX - 1;

    /// Nobody stores it.
    pub const fn none() -> StoredBy {
        StoredBy(AtomicU64::new(Self::NONE))
    }

    /// It is about to be stored, by an append that has no ticket yet. Only that one may be noted next.
    pub const fn due() -> StoredBy {
        StoredBy(AtomicU64::new(Self::DUE))
    }

    /// Notes an append. A message may have several, for several queues, noted in any order: it is stored
    /// when all of them are applied.
    pub fn add(&self, ticket: Ticket) {
        let later = |before| Some(if before >= Self::DUE { ticket.0 } else { ticket.0.max(before) });
        // It never gives up.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

impl store::Held for Message {
    fn parts(&self) -> [&[u8]; 3] {
        [self.parts.address(), self.parts.properties(), self.parts.body()]
    }
}

/// Several routing keys.
pub type Keys = Box<[Box<[u8]>]>;

impl Message {
    /// A message that the store has kept, from its three parts, with what the broker needs to know read
    /// from its properties, but when it is due. `None` if the properties are not properties.
    pub fn from_parts(parts: Parts, taken_at_ms: u64, due_at_ms: Option<u64>) -> Option<Self> {
        let read = Properties::parse(parts.properties()).ok()?;
        let ttl_ms = due_at_ms.map(|at_ms| at_ms.saturating_sub(taken_at_ms));
        let (persistent, priority) = (read.is_persistent(), read.priority.unwrap_or_default());
        let stored_by = StoredBy::before();
        Some(Message { parts, persistent, taken_at_ms, ttl_ms, priority, copies: None, stored_by })
    }

    /// The same message once more, as the broker sends it on: with these parts, and taken at another time. It may
    /// wait as long as before; it has no further keys, and nobody stores it yet.
    pub fn again(&self, parts: Parts, taken_at_ms: u64) -> Message {
        Message {
            parts,
            persistent: self.persistent,
            taken_at_ms,
            ttl_ms: self.ttl_ms,
            priority: self.priority,
            copies: None,
            stored_by: StoredBy::none(),
        }
    }

    /// The same message once more, for an exchange that holds it back for so many milliseconds.
    pub fn held_back(&self, ms: u64) -> Message {
        Message { ttl_ms: Some(ms), ..self.again(self.parts.clone(), self.taken_at_ms) }
    }

    /// Its `message_id`.
    pub fn id(&self) -> Option<&[u8]> {
        Properties::parse(self.parts.properties()).ok()?.message_id
    }

    /// By which it is known again: its header `x-deduplication-header`.
    pub fn deduplication_value(&self) -> Option<u128> {
        let read = Properties::parse(self.parts.properties()).ok()?;
        deduplication_value(read.headers?)
    }

    /// Whether the store can bring it back, when it has applied what was appended up to `applied`.
    pub fn is_applied(&self, applied: Ticket) -> bool {
        self.stored_by.0.load(Ordering::Relaxed) <= applied.0
    }

    /// Whether an append of it has been noted.
    pub fn is_told(&self) -> bool {
        self.stored_by.0.load(Ordering::Relaxed) < StoredBy::DUE
    }

    /// Whether an append of it has still to be noted.
    pub fn is_due(&self) -> bool {
        self.stored_by.0.load(Ordering::Relaxed) == StoredBy::DUE
    }

    /// When it wishes to be gone, in milliseconds since 1970.
    #[inline]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.ttl_ms.map(|ttl_ms| self.taken_at_ms.saturating_add(ttl_ms))
    }

    /// When it has to be gone from a queue whose messages may wait for `ttl_ms`; `u64::MAX` for never.
    pub fn expires_at_ms_within(&self, ttl_ms: Option<u64>) -> u64 {
        let ttl_ms = match (self.ttl_ms, ttl_ms) {
            (Some(own), Some(queue)) => Some(own.min(queue)),
            (own, queue) => own.or(queue),
        };
        ttl_ms.map_or(u64::MAX, |ttl_ms| self.taken_at_ms.saturating_add(ttl_ms))
    }

    /// The exchange it was published to.
    pub fn exchange(&self) -> &str {
        split_address(self.parts.address()).map_or("", |(exchange, _)| exchange)
    }

    /// The key it was published with.
    pub fn routing_key(&self) -> &str {
        split_address(self.parts.address()).map_or("", |(_, key)| key)
    }

    /// Octets it takes on its way to a consumer, about.
    #[inline]
    pub fn wire_bytes(&self) -> usize {
        self.parts.size_bytes() + 64
    }
}

/// The operation that stores a message for these queues.
pub fn publish_operation(
    message: &Arc<Message>,
    destinations: SmallVec<[(store::QueueId, store::Seq); 1]>,
) -> store::Publish {
    store::Publish {
        timestamp_ms: message.taken_at_ms,
        due_at_ms: message.expires_at_ms(),
        destinations,
        parts: store::Parts::Held(message.clone()),
    }
}

/// By which a message with these headers is known again, as it travels, type letter first, in 128 bits that are
/// the same after a start.
pub fn deduplication_value(headers: &[u8]) -> Option<u128> {
    let (_, raw) = table::raw_entries(headers).find(|(name, _)| *name == b"x-deduplication-header")?;
    Some(hash(raw))
}

/// 128 bits of some bytes, the same after a start.
pub fn hash(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    bytes.hash(&mut hasher);
    hasher.finish128().as_u128()
}

/// The longest time to live, in milliseconds.
pub const TTL_MS_MAX: u64 = 1 << 53;

/// Reads an `expiration`: milliseconds as decimal digits.
///
/// # Errors
/// What is wrong with it, in RabbitMQ's words.
pub fn parse_ttl(expiration: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(expiration);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let digits = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = unsigned.split_at(digits);
    match (number, rest) {
        ("", _) => Err("no_integer".into()),
        (_, "") if text.starts_with('-') && number.bytes().any(|b| b != b'0') => {
            Err(format!("{{value_negative,{text}}}"))
        }
        (_, "") => match number.parse() {
            Ok(ms) if ms <= TTL_MS_MAX => Ok(ms),
            _ => Err(format!("{{value_too_large,{number}}}")),
        },
        _ => Err(format!("{{leftover_string,\"{rest}\"}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_stored_when_the_last_of_its_appends_is_whatever_their_order() {
        for tickets in [[5, 9, 0], [9, 0, 5]] {
            let stored_by = StoredBy::none();
            tickets.iter().for_each(|ticket| stored_by.add(Ticket(*ticket)));

            assert_eq!(stored_by.0.load(Ordering::Relaxed), 9);
        }
    }

    #[test]
    fn an_expiration_is_a_number_of_milliseconds() {
        let check = |text: &str, expected: Result<u64, &str>| {
            assert_eq!(parse_ttl(text.as_bytes()), expected.map_err(String::from), "{text}");
        };

        check("0", Ok(0));
        check("007", Ok(7));
        check("+5", Ok(5));
        check("", Err("no_integer"));
        check("abc", Err("no_integer"));
        check("-1", Err("{value_negative,-1}"));
        check("10x", Err("{leftover_string,\"x\"}"));
        check("99999999999999999999", Err("{value_too_large,99999999999999999999}"));
    }

    #[test]
    fn values_are_told_apart_by_type_and_are_the_same_after_a_start() {
        assert_eq!(hash(b"S\0\0\0\x01a"), hash(b"S\0\0\0\x01a"));
        assert_ne!(hash(b"S\0\0\0\x01a"), hash(b"x\0\0\0\x01a"));
        assert_eq!(hash(b"S"), 203_777_532_467_411_874_927_433_048_561_481_237_460);
    }
}

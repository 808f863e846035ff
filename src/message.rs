//! A message as it travels through the broker: shared by all the queues it reached.

use amqp::Properties;
use amqp::method::split_address;
use bytes::Bytes;

/// A published message. Its parts share the memory they were received in and are never copied on the
/// way to the log or to a consumer's socket.
#[derive(Debug)]
pub struct Message {
    /// Exchange and routing key as two short strings, as basic.deliver carries them.
    pub address: Bytes,
    /// Property flags and properties as received.
    pub properties: Bytes,
    /// The body.
    pub body: Bytes,
    /// Whether it asked to survive a restart.
    pub persistent: bool,
    /// When the broker took it, in milliseconds since 1970.
    pub taken_at_ms: u64,
    /// How long it may wait in a queue, if it said so (its `expiration`).
    pub ttl_ms: Option<u64>,
}

impl Message {
    /// A message from its three parts, with what the broker needs to know read from its properties.
    /// `None` if the properties are not properties.
    pub fn from_parts(address: Bytes, properties: Bytes, body: Bytes, taken_at_ms: u64) -> Option<Self> {
        let read = Properties::parse(&properties).ok()?;
        let (persistent, ttl_ms) = (read.is_persistent(), read.expiration.and_then(parse_ttl));
        Some(Message { address, properties, body, persistent, taken_at_ms, ttl_ms })
    }

    /// The exchange it was published to.
    pub fn exchange(&self) -> &str {
        split_address(&self.address).map_or("", |(exchange, _)| exchange)
    }

    /// The key it was published with.
    pub fn routing_key(&self) -> &str {
        split_address(&self.address).map_or("", |(_, key)| key)
    }

    /// Octets it takes on its way to a consumer, about.
    pub fn wire_bytes(&self) -> usize {
        self.address.len() + self.properties.len() + self.body.len() + 64
    }
}

/// Reads an `expiration`: milliseconds as decimal digits.
pub fn parse_ttl(expiration: &[u8]) -> Option<u64> {
    if expiration.is_empty() || !expiration.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(expiration).ok()?.parse().ok()
}

//! What a kind of exchange is: bindings come and go, and a message finds those that want it.

use crate::error::Error;
use crate::matches::{Found, Scratch};
use crate::targets::Slot;
use crate::value::{Arguments, Value};

/// What routing may look at of a message.
pub struct Envelope<'a> {
    /// The key it was published with.
    pub routing_key: &'a [u8],
    /// Further keys (the `CC` and `BCC` headers): an exchange that matches keys matches all of them.
    pub copies: &'a [&'a [u8]],
    /// The headers and the rest of its properties.
    pub properties: &'a dyn Properties,
}

impl<'a> Envelope<'a> {
    /// A message with one key and these properties.
    pub fn new(routing_key: &'a [u8], properties: &'a dyn Properties) -> Self {
        Self { routing_key, copies: &[], properties }
    }

    /// A message with one key and no properties.
    pub fn keyed(routing_key: &'a [u8]) -> Self {
        Self::new(routing_key, &NoProperties)
    }

    /// All its keys, the one it was published with first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(self.routing_key).chain(self.copies.iter().copied())
    }
}

/// The properties of a message. Asked for only by kinds that look at them, so decoding can wait until then.
pub trait Properties {
    /// Shows every header in turn. Of a name that comes twice the first counts.
    fn headers(&self, see: &mut dyn FnMut(&[u8], &Value<'_>));

    /// One of the other properties, if the message has it.
    fn property(&self, property: Property) -> Option<Value<'_>>;
}

/// A property, other than a header, that a kind may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// `message-id`, a string.
    MessageId,
    /// `correlation-id`, a string.
    CorrelationId,
    /// `timestamp`.
    Timestamp,
}

/// A message without properties.
pub struct NoProperties;

impl Properties for NoProperties {
    fn headers(&self, _: &mut dyn FnMut(&[u8], &Value<'_>)) {}

    fn property(&self, _: Property) -> Option<Value<'_>> {
        None
    }
}

/// A message that has these headers and no other properties.
impl Properties for crate::value::Table<'_> {
    fn headers(&self, see: &mut dyn FnMut(&[u8], &Value<'_>)) {
        for (name, value) in self.iter() {
            see(name, value);
        }
    }

    fn property(&self, _: Property) -> Option<Value<'_>> {
        None
    }
}

/// A binding that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proposal<'a> {
    /// Whether it leads to a queue, not to an exchange.
    pub(crate) to_queue: bool,
    /// The binding's key.
    pub(crate) routing_key: &'a [u8],
    /// The binding's arguments.
    pub(crate) arguments: &'a Arguments,
}

/// A binding as the exchange it leaves from sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    /// Where it leads.
    pub(crate) target: Slot,
    /// The target's number in every run of the broker, where slots are given out anew in each.
    pub(crate) identity: u64,
    /// The binding's key.
    pub(crate) routing_key: &'a [u8],
    /// The binding's arguments.
    pub(crate) arguments: &'a Arguments,
}

/// The bindings of one exchange, arranged so that its kind finds matches fast.
///
/// The graph keeps binding identities: a link is bound once until it is unbound, and only what was
/// bound is unbound. Several links may lead to one target; it matches until the last is gone.
pub(crate) trait Routing: Send + Sync {
    /// Refuses a link that the kind cannot take. Called before anything changes.
    fn check(&self, _: Proposal<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Adds a link that passed `check`.
    fn bind(&mut self, link: Link<'_>);

    /// Takes away a link that was bound.
    fn unbind(&mut self, link: Link<'_>);

    /// Reports the target of every link that wants the message, by any of its keys; the same target
    /// twice does no harm.
    ///
    /// IMPORTANT: this is the hot path of the broker. What must be written down goes to `scratch`,
    /// whose memory is kept between messages, so that nothing is allocated here.
    fn visit(&self, envelope: &Envelope<'_>, scratch: &mut Scratch, found: &mut Found<'_>);

    /// Whether the keys alone decide: messages with the same keys go the same way for as long as no
    /// link comes or goes. Otherwise headers, other properties or chance have a say.
    fn is_by_keys(&self) -> bool {
        true
    }

    /// Whether no link is left.
    fn is_empty(&self) -> bool;
}

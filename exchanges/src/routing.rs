//! What a kind of exchange is: bindings come and go, and a message finds those that want it.

use crate::error::Error;
use crate::matches::{Found, Scratch};
use crate::targets::Slot;
use crate::value::{Arguments, Value};

/// What routing may look at of a message.
pub struct Envelope<'a> {
    /// The key it was published with.
    pub routing_key: &'a [u8],
    /// Further keys (the `CC` and `BCC` headers): each exchange matches all keys of a message before
    /// it says that nothing matched.
    pub copies: &'a [&'a [u8]],
    /// The headers of its properties.
    pub headers: &'a dyn Headers,
}

impl<'a> Envelope<'a> {
    /// A message with one key and these headers.
    pub fn new(routing_key: &'a [u8], headers: &'a dyn Headers) -> Self {
        Self { routing_key, copies: &[], headers }
    }

    /// A message with one key and no headers.
    pub fn keyed(routing_key: &'a [u8]) -> Self {
        Self::new(routing_key, &NoHeaders)
    }
}

/// The headers of a message. Asked for only by kinds that look at them, so decoding can wait until then.
pub trait Headers {
    /// Shows every header in turn. Of a name that comes twice the first counts.
    fn visit(&self, see: &mut dyn FnMut(&[u8], &Value<'_>));
}

/// A message without headers.
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn visit(&self, _: &mut dyn FnMut(&[u8], &Value<'_>)) {}
}

impl Headers for crate::value::Table<'_> {
    fn visit(&self, see: &mut dyn FnMut(&[u8], &Value<'_>)) {
        for (name, value) in self.iter() {
            see(name, value);
        }
    }
}

/// A binding as the exchange it leaves from sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    /// Where it leads.
    pub(crate) target: Slot,
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
    fn check(&self, _routing_key: &[u8], _arguments: &Arguments) -> Result<(), Error> {
        Ok(())
    }

    /// Adds a link that passed `check`.
    fn bind(&mut self, link: Link<'_>);

    /// Takes away a link that was bound.
    fn unbind(&mut self, link: Link<'_>);

    /// Reports the target of every link that wants the message; the same target twice does no harm.
    ///
    /// IMPORTANT: this is the hot path of the broker. What must be written down goes to `scratch`,
    /// whose memory is kept between messages, so that nothing is allocated here.
    fn visit(&self, envelope: &Envelope<'_>, scratch: &mut Scratch, found: &mut Found<'_>);

    /// Whether the outcome depends on more of a message than its keys.
    fn looks_at_headers(&self) -> bool {
        false
    }

    /// Whether no link is left.
    fn is_empty(&self) -> bool;
}

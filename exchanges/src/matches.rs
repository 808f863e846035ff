//! The queues that one message reaches, in memory that is used again for the next message.

use crate::headers::Tally;
use crate::marks::Marks;
use crate::targets::Slot;
use crate::topic::Walk;

/// The outcome of routing a message. Keep one and reuse it: its memory grows to what the largest
/// message needed (a bit for each queue and exchange of the vhost, and the queues of the widest
/// fan-out), after which routing allocates nothing.
#[derive(Debug)]
pub struct Matches<D> {
    pub(crate) queues: Vec<D>,
    /// Queues and exchanges reached so far, in that order: the walk's list of work as well.
    pub(crate) reached: Marks,
    pub(crate) scratch: Scratch,
    pub(crate) is_by_keys: bool,
}

/// Where kinds write things down while they match, kept from message to message.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) topic: Walk,
    pub(crate) headers: Tally,
}

/// Where a kind reports the targets that it found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    reached: &'a mut Marks,
    any: bool,
}

impl<D> Matches<D> {
    /// No matches yet, and no memory.
    pub fn new() -> Self {
        Self { queues: Vec::new(), reached: Marks::default(), scratch: Scratch::default(), is_by_keys: true }
    }

    /// The queues reached, each once.
    pub fn queues(&self) -> &[D] {
        &self.queues
    }

    /// Whether the keys alone decided: every message with the same keys reaches the same queues, until
    /// something is declared, bound or deleted, and nobody has to see it on its way.
    pub fn is_by_keys(&self) -> bool {
        self.is_by_keys
    }

    /// Whether the message reached no queue.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Lets go of the queues that are not wanted.
    pub fn retain(&mut self, is_wanted: impl FnMut(&D) -> bool) {
        self.queues.retain(is_wanted);
    }

    /// Takes the queues out and keeps the memory. The next `route` would let go of them anyway.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = D> {
        self.queues.drain(..)
    }

    /// Forgets the last message, and lets go of its queues.
    pub fn clear(&mut self) {
        self.queues.clear();
        self.reached.clear();
        self.is_by_keys = true;
    }
}

impl<D> Default for Matches<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Found<'a> {
    pub(crate) fn new(reached: &'a mut Marks) -> Self {
        Self { reached, any: false }
    }

    /// Reports a target; one that was reached before is not walked again but still counts as found.
    #[inline]
    pub(crate) fn add(&mut self, target: Slot) {
        self.any = true;
        self.reached.mark(target.0);
    }

    /// Whether anything was reported.
    pub(crate) fn any(&self) -> bool {
        self.any
    }
}

//! Exchanges that route as another kind does, and that the broker has more to do with than to route.

use crate::error::Error;
use crate::fanout::Fanout;
use crate::matches::{Found, Scratch};
use crate::routing::{Envelope, Link, Proposal, Routing};

/// Another kind, of which the broker has to see every message: to keep it, to hold it back, or to know
/// it again. So no route through it may be remembered.
pub(crate) struct Watched(Box<dyn Routing>);

impl Watched {
    pub(crate) fn new(routing: Box<dyn Routing>) -> Self {
        Self(routing)
    }

    /// One that passes every message on.
    pub(crate) fn fanout() -> Self {
        Self(Box::<Fanout>::default())
    }
}

impl Routing for Watched {
    fn check(&self, proposal: Proposal<'_>) -> Result<(), Error> {
        self.0.check(proposal)
    }

    fn bind(&mut self, link: Link<'_>) {
        self.0.bind(link);
    }

    fn unbind(&mut self, link: Link<'_>) {
        self.0.unbind(link);
    }

    fn visit(&self, envelope: &Envelope<'_>, scratch: &mut Scratch, found: &mut Found<'_>) {
        self.0.visit(envelope, scratch, found);
    }

    fn is_by_keys(&self) -> bool {
        false
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

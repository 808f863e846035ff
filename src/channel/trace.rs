//! The firehose, as a channel feeds it: what is published on it and delivered to it.

use super::{Batch, Channel, Context};
use crate::delivery::Entry;
use crate::message::Message;
use crate::queue;
use crate::vhost::{Party, Step};

impl Channel {
    /// A message is published, and reaches these queues.
    pub(super) fn trace_publish(
        &self,
        context: &mut Context<'_>,
        message: &Message,
        queues: &[queue::Handle],
    ) {
        self.trace(context, &Step::Published(queues), message);
    }

    /// A queue hands a message out.
    pub(super) fn trace_delivery(&self, context: &mut Context<'_>, queue: &str, entry: &Entry) {
        self.trace(context, &Step::Delivered { queue, redelivered: entry.redelivered }, &entry.message);
    }

    fn trace(&self, context: &mut Context<'_>, step: &Step<'_>, message: &Message) {
        let party = Party {
            connection: &context.guest.name(),
            channel: self.number,
            user: &context.caller.user.name,
        };
        let Batch { matches, messages, .. } = &mut *context.batch;
        context.vhost.trace(&party, step, message, matches, messages);
    }
}

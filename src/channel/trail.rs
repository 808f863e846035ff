//! What a channel notes of messages whose queues keep trails: published, delivered, acknowledged.

use std::sync::Arc;

use super::unacked::Unacked;
use super::{Channel, Context};
use crate::message::Message;
use crate::queue;
use crate::trail::Step;

impl Channel {
    /// A message is on its way to these queues.
    #[inline]
    pub(super) fn note_published(&self, context: &Context<'_>, message: &Message, queues: &[queue::Handle]) {
        if queues.iter().any(queue::Handle::keeps_trails) {
            note(context, message, |connection| Step::Published {
                user: context.caller.user.name.clone(),
                connection,
                exchange: message.exchange().into(),
                routing_key: message.routing_key().into(),
                queues: queue::names(queues),
            });
        }
    }

    /// A message is handed out to a consumer, or without one.
    #[inline]
    pub(super) fn note_delivered(
        &self,
        context: &Context<'_>,
        queue: &queue::Handle,
        entry: &crate::delivery::Entry,
        consumer_tag: Option<&Arc<str>>,
        no_ack: bool,
    ) {
        if queue.keeps_trails() {
            note(context, &entry.message, |connection| Step::Delivered {
                queue: queue.declaration().name.clone(),
                connection,
                consumer_tag: consumer_tag.cloned().unwrap_or_default(),
                redelivered: entry.redelivered,
                no_ack,
            });
        }
    }

    /// A delivery is rejected in a transaction, and its queue has nowhere for it to go.
    pub(super) fn note_rejected(&self, context: &Context<'_>, unacked: &Unacked) {
        let Unacked { queue, entry, .. } = unacked;
        if queue.keeps_trails() {
            let (queue, reason) = (queue.declaration().name.clone(), queue::Reason::Rejected.name());
            note(context, &entry.message, |_| Step::Left { queue, reason });
        }
    }

    /// A delivery is acknowledged.
    #[inline]
    pub(super) fn note_acknowledged(&self, context: &Context<'_>, unacked: &Unacked) {
        let Unacked { queue, entry, .. } = unacked;
        if queue.keeps_trails() {
            note(context, &entry.message, |connection| Step::Acknowledged {
                queue: queue.declaration().name.clone(),
                connection,
            });
        }
    }
}

fn note(context: &Context<'_>, message: &Message, step: impl FnOnce(String) -> Step) {
    // Who has no id cannot be asked for.
    if let id @ Some(_) = message.id() {
        let step = step(context.guest.name());
        context.vhost.trails().note(id, context.broker.clock().now_ms(), step);
    }
}

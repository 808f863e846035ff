//! Direct reply-to: answers that go straight to the channel of whoever asked, through no queue.
//!
//! A requester consumes `amq.rabbitmq.reply-to`; its publishes then carry a reply-to name with a token.
//! What is published to the default exchange with such a name as key goes to that consumer at once, or
//! nowhere if it is gone. Nothing is kept, and nothing waits.

use std::sync::Arc;

use dashmap::DashMap;
use store::Seq;

use crate::delivery::{ConsumerId, Delivery, Entry, Returns, Stored};
use crate::message::Message;
use crate::outbox::Outbox;

/// What a requester consumes, and says as its reply-to.
pub const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// What the names of requesters begin with.
const PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Whether this is a name that answers go to.
pub fn is_reply_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The requesters that wait for answers, by the name that answers go to.
#[derive(Debug, Default)]
pub struct Requesters(DashMap<Box<str>, Requester>);

/// Where answers go.
#[derive(Debug)]
pub struct Requester {
    /// The consumer's channel.
    pub channel: u16,
    /// The consumer.
    pub consumer: ConsumerId,
    /// Its connection's mailbox.
    pub outbox: Arc<Outbox>,
}

impl Requesters {
    /// Adds a requester; the name that answers to it go to.
    pub fn add(&self, requester: Requester) -> Box<str> {
        let name: Box<str> = super::generated(PREFIX).into();
        self.0.insert(name.clone(), requester);
        name
    }

    /// The requester is gone.
    pub fn remove(&self, name: &str) {
        self.0.remove(name);
    }

    /// Whether this name is one that answers go to, and somebody waits there. `None` if it is another
    /// kind of name.
    pub fn is_waiting(&self, name: &str) -> Option<bool> {
        match name {
            REPLY_TO => Some(true),
            _ if is_reply_name(name) => Some(self.0.contains_key(name)),
            _ => None,
        }
    }

    /// Hands an answer over. False if nobody waits for it, or takes no more.
    pub fn answer(&self, name: &str, message: &Arc<Message>) -> bool {
        let Some(requester) = self.0.get(name) else { return false };
        if !requester.outbox.has_room_for(0) {
            // It has not read for a while; a queue would stop delivering to it at this point.
            return false;
        }
        let entry = Entry {
            seq: Seq(0),
            level: 0,
            returns: Returns::default(),
            redelivered: false,
            stored: Stored::No,
            expires_at_ms: u64::MAX,
            message: message.clone(),
        };
        let (channel, consumer) = (requester.channel, requester.consumer);
        let bytes = entry.message.wire_bytes();
        requester.outbox.deliver(&mut vec![Delivery { channel, consumer, entry }], bytes);
        requester.outbox.ring();
        true
    }
}

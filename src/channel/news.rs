//! What is told of consumers: the fields of RabbitMQ's events.

use amqp::Table;
use amqp::method::basic;
use serde_json::json;

use super::consume::Consumer;
use super::{Channel, Context};
use crate::delivery::ConsumerId;
use crate::json::table_to_json;
use crate::queue;

impl Channel {
    /// A consumer is there.
    pub(super) fn tell_consumer_created(
        &self,
        context: &Context<'_>,
        consume: &basic::Consume,
        id: ConsumerId,
    ) {
        let Some(consumer) = self.consumers.get(&id) else { return };
        context.broker.news().tell("consumer.created", context.now_ms, || {
            let user = &*context.caller.user.name;
            json!({
                "consumer_tag": *consumer.tag, "queue": consumer.queue.as_ref().map(queue::Handle::name),
                "vhost": **context.vhost.name(), "channel": context.guest.channel_pid(self.number),
                "exclusive": consume.exclusive, "ack_required": !consume.no_ack,
                "prefetch_count": self.prefetch, "arguments": table_to_json(&Table::from(&consume.arguments)),
                "user_who_performed_action": user,
            })
        });
    }

    /// A consumer is gone.
    pub(super) fn tell_consumer_deleted(&self, context: &Context<'_>, consumer: &Consumer) {
        let Some(queue) = &consumer.queue else { return };
        context.broker.news().tell("consumer.deleted", context.broker.clock().now_ms(), || {
            let user = &*context.caller.user.name;
            json!({
                "consumer_tag": *consumer.tag, "queue": queue.name(), "vhost": **context.vhost.name(),
                "channel": context.guest.channel_pid(self.number), "user_who_performed_action": user,
            })
        });
    }
}

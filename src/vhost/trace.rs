//! The firehose: while a vhost is traced, a copy of every message that is published to it or delivered from it goes
//! to `amq.rabbitmq.trace`, with what happened to it in the headers, as RabbitMQ has them.

use std::sync::atomic::Ordering;

use amqp::{Properties, Table, Value};
use exchanges::Matches;

use super::Vhost;
use super::news::own_message;
use crate::json::properties_to_table;
use crate::message::Message;
use crate::queue;

/// Where copies go; every vhost has it.
const TRACE: &str = "amq.rabbitmq.trace";

/// Who publishes, or is delivered to.
#[derive(Debug)]
pub struct Party<'a> {
    /// The name of the connection.
    pub connection: &'a str,
    /// The number of the channel there.
    pub channel: u16,
    /// Who logged in.
    pub user: &'a str,
}

/// What happens to a message.
#[derive(Debug)]
pub enum Step<'a> {
    /// It is published, and reaches these queues.
    Published(&'a [queue::Handle]),
    /// This queue hands it out, perhaps not for the first time.
    Delivered {
        /// The queue's name.
        queue: &'a str,
        /// It may have been delivered before.
        redelivered: bool,
    },
}

impl Vhost {
    /// Whether its messages are traced.
    pub fn is_traced(&self) -> bool {
        self.is_traced.load(Ordering::Relaxed)
    }

    /// Adds a copy of a message to a batch, for whoever listens to the firehose. What comes out of the firehose does
    /// not go into it again.
    pub fn trace(
        &self,
        party: &Party<'_>,
        step: &Step<'_>,
        message: &Message,
        matches: &mut Matches<queue::Handle>,
        batch: &mut queue::Batch,
    ) {
        let exchange = message.exchange();
        if exchange == TRACE {
            return;
        }
        let further = message.copies.iter().flatten().map(|key| Value::Bytes(key.to_vec()));
        let keys = [Value::text(message.routing_key())].into_iter().chain(further);
        let mut headers = Table::from_iter([
            ("exchange_name", Value::text(exchange)),
            ("routing_keys", Value::Array(keys.collect())),
            ("properties", Value::Table(properties_to_table(message.parts.properties()))),
            ("node", Value::text(&*self.surroundings.node_name)),
            ("vhost", Value::text(&**self.name())),
            ("connection", Value::text(party.connection)),
            ("channel", Value::Int(party.channel.into())),
            ("user", Value::text(party.user)),
        ]);
        let key = match step {
            Step::Published(queues) => {
                let names = queues.iter().map(|queue| Value::text(queue.name()));
                headers.insert("routed_queues", Value::Array(names.collect()));
                format!("publish.{exchange}")
            }
            Step::Delivered { queue, redelivered } => {
                headers.insert("redelivered", Value::Int((*redelivered).into()));
                format!("deliver.{queue}")
            }
        };
        let mut encoded = Vec::new();
        headers.encode(&mut encoded);
        let properties = Properties { headers: Some(&encoded), ..Properties::default() };
        let body = message.parts.share_body(0..message.parts.body().len());
        let now_ms = self.surroundings.clock.now_ms();
        self.publish_own(own_message(TRACE, &key, &properties, body, now_ms), matches, batch);
    }
}

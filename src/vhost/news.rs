//! What the broker publishes itself, without a client: news to the exchanges that have them.

use amqp::{Properties, method};
use bytes::Bytes;
use exchanges::{Exchange, Kind, Matches};
use serde_json::{Value as Json, json};

use super::arguments::from_exchanges;
use super::watch::hand_on;
use super::{Topology, Vhost, definitions};
use crate::json::{json_to_table, table_to_json};
use crate::message::{Message, StoredBy};
use crate::news::{Feed, Item};
use crate::parts::Parts;
use crate::queue::{self, Declaration, Origin, Surroundings};

/// A routing key is no longer; of a name that would make it longer the end is cut.
const KEY_BYTES_MAX: usize = amqp::limits::SHORT_STRING_BYTES_MAX;

impl Vhost {
    /// Gives the vhost the exchanges for news.
    pub fn add_news(&self) {
        let mut topology = self.write();
        for feed in Feed::ALL {
            let kind = Kind::parse(b"topic").expect("every broker has it");
            let declaration =
                exchanges::Declaration { internal: true, ..exchanges::Declaration::durable(kind) };
            topology.exchanges.add_own(feed.exchange().as_bytes(), declaration);
        }
    }

    /// Bindings have come or gone: whether somebody hears the news.
    pub(super) fn note_listeners(&self, topology: &Topology) {
        for feed in Feed::ALL {
            let exchange = feed.exchange().as_bytes();
            if topology.exchanges.get(exchange).is_some_and(|exchange| exchange.internal) {
                let is_heard = topology.exchanges.bindings_from(exchange).next().is_some();
                self.surroundings.news.set_heard(feed, is_heard);
            }
        }
    }

    pub(super) fn tell_exchange_created(&self, exchange: &Exchange, by: &str) {
        self.tell_of("exchange.created", || {
            json!({
                "name": exchange.name.to_string(), "vhost": self.name(), "type": exchange.kind.name(),
                "durable": exchange.durable, "auto_delete": exchange.auto_delete, "internal": exchange.internal,
                "arguments": table_to_json(&from_exchanges(&exchange.arguments)),
                "user_who_performed_action": by,
            })
        });
    }

    pub(super) fn tell_exchange_deleted(&self, exchange: &Exchange, by: &str) {
        self.tell_of("exchange.deleted", || {
            json!({"name": exchange.name.to_string(), "vhost": self.name(), "user_who_performed_action": by})
        });
    }

    pub(super) fn tell_queue_created(&self, queue: &queue::Handle, by: &str) {
        let Declaration { durable, auto_delete, owner, table, .. } = queue.declaration();
        self.tell_of("queue.created", || {
            json!({
                "name": queue.name(), "vhost": self.name(), "durable": durable, "auto_delete": auto_delete,
                "exclusive": owner.is_some(), "owner_pid": owner.map_or_else(String::new, |owner| owner.to_string()),
                "arguments": table_to_json(table), "user_who_performed_action": by,
            })
        });
    }

    pub(super) fn tell_queue_deleted(&self, queue: &queue::Handle, by: &str) {
        self.tell_of(
            "queue.deleted",
            || json!({"name": queue.name(), "vhost": self.name(), "user_who_performed_action": by}),
        );
    }

    /// A binding is made, or gone; it is only put together if somebody wants to know.
    pub(super) fn tell_binding(
        &self,
        key: &'static str,
        by: &str,
        binding: impl FnOnce() -> definitions::Binding,
    ) {
        self.tell_of(key, || {
            let definitions::Binding { source, destination, to_queue, routing_key, arguments, .. } =
                binding();
            json!({
                "source_name": source, "source_kind": "exchange", "destination_name": destination,
                "destination_kind": if to_queue { "queue" } else { "exchange" }, "routing_key": routing_key,
                "arguments": table_to_json(&arguments), "vhost": self.name(), "user_who_performed_action": by,
            })
        });
    }

    fn tell_of(&self, key: &'static str, about: impl FnOnce() -> Json) {
        let Surroundings { news, clock, .. } = &self.surroundings;
        news.tell(key, clock.now_ms(), about);
    }

    /// Publishes a piece of news: adds it to a batch.
    pub fn publish_news(&self, item: Item, matches: &mut Matches<queue::Handle>, batch: &mut queue::Batch) {
        let mut headers = Vec::new();
        json_to_table(&item.headers).unwrap_or_default().encode(&mut headers);
        let properties = Properties {
            content_type: (item.feed == Feed::Log).then_some(b"text/plain"),
            headers: Some(&headers),
            delivery_mode: (item.feed == Feed::Events).then_some(2),
            timestamp: Some(item.at_ms / 1000),
            ..Properties::default()
        };
        let message = own_message(item.feed.exchange(), item.key, &properties, item.body.into(), item.at_ms);
        self.publish_own(message, matches, batch);
    }

    /// Publishes a message of the broker's own: adds it to a batch, for the queues that it reaches.
    pub(super) fn publish_own(
        &self,
        message: Message,
        matches: &mut Matches<queue::Handle>,
        batch: &mut queue::Batch,
    ) {
        matches.clear();
        if let Some(held) = self.route(&message, matches) {
            hand_on(batch, message, matches.queues(), held, Origin::default(), None);
        }
        matches.clear();
    }
}

/// A message of the broker's own.
pub(super) fn own_message(
    exchange: &str,
    key: &str,
    properties: &Properties<'_>,
    body: Bytes,
    now_ms: u64,
) -> Message {
    let mut end = key.len().min(KEY_BYTES_MAX);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    Message {
        parts: Parts::gathered(&method::address(exchange, &key[..end]), &properties.encode(), body),
        persistent: properties.is_persistent(),
        taken_at_ms: now_ms,
        ttl_ms: None,
        priority: 0,
        copies: None,
        stored_by: StoredBy::none(),
    }
}

//! The last messages of `x-recent-history` exchanges, for whoever is bound to one later.
//!
//! They are in memory alone, as in RabbitMQ: after a start there is no history.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use amqp::{Properties, Value, table};
use exchanges::{Matches, Target};
use store::Urgency;

use super::Vhost;
use crate::message::{Message, StoredBy};
use crate::queue::{self, Origin};

/// The type of exchange that remembers.
pub const KIND: &str = "x-recent-history";

/// With this header set, a message is not remembered.
const NO_STORE: &[u8] = b"x-recent-history-no-store";

/// The messages that exchanges remember, by exchange, the oldest first.
#[derive(Debug, Default)]
pub struct Histories(Mutex<HashMap<Arc<str>, VecDeque<Kept>>>);

/// A message, as it is published once more.
#[derive(Debug)]
struct Kept {
    parts: crate::parts::Parts,
    persistent: bool,
    priority: u8,
    expiration_ms: Option<u64>,
}

impl Kept {
    fn of(message: &Message) -> Kept {
        Kept {
            parts: message.parts.clone(),
            persistent: message.persistent,
            priority: message.priority,
            expiration_ms: message.ttl_ms,
        }
    }

    fn message(&self, now_ms: u64) -> Message {
        Message {
            parts: self.parts.clone(),
            persistent: self.persistent,
            taken_at_ms: now_ms,
            ttl_ms: self.expiration_ms,
            priority: self.priority,
            copies: None,
            stored_by: StoredBy::none(),
        }
    }
}

impl Histories {
    /// Remembers a message; the oldest is forgotten if there are more than `length`.
    pub fn add(&self, exchange: &str, length: u64, message: &Message) {
        let read = Properties::parse(message.parts.properties()).unwrap_or_default();
        let mut headers = read.headers.into_iter().flat_map(table::raw_entries);
        let no_store = headers.find(|(name, _)| *name == NO_STORE).map(|(_, raw)| table::decode_value(raw));
        if no_store == Some(Ok(Value::Bool(true))) {
            return;
        }
        let mut histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let history = histories.entry(exchange.into()).or_default();
        history.push_back(Kept::of(message));
        while history.len() as u64 > length {
            history.pop_front();
        }
    }

    /// The exchange is gone.
    pub fn forget(&self, exchange: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(exchange);
    }

    fn messages(&self, exchange: &str, now_ms: u64) -> Vec<Message> {
        let histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histories.get(exchange).into_iter().flatten().map(|kept| kept.message(now_ms)).collect()
    }
}

impl Vhost {
    /// Something has been bound to an exchange: it gets what the exchange remembers.
    pub(super) fn replay_history(&self, exchange: &str, target: &Target<queue::Handle>) {
        let now_ms = self.surroundings.clock.now_ms();
        let mut batch = queue::Batch::default();
        let mut matches = Matches::default();
        for message in self.histories.messages(exchange, now_ms) {
            let queues = match target {
                Target::Queue(queue) => vec![queue.clone()],
                Target::Exchange(name) => {
                    let found = self.route_from(&name.to_string(), &message, &mut matches);
                    if found { matches.queues().to_vec() } else { Vec::new() }
                }
            };
            if !queues.is_empty() {
                batch.add(message, &queues, Origin::default());
            }
        }
        let store = &self.surroundings.store;
        batch.flush(None, |operations, _| store.append(operations.collect(), Urgency::Lazy));
    }
}

//! The last messages of `x-recent-history` exchanges, for whoever is bound to one later.
//!
//! They are in memory alone, as in RabbitMQ: after a start there is no history.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use amqp::{Properties, Value, table};
use exchanges::{Matches, Target};
use store::Urgency;

use super::watch::hand_on;
use super::{Held, Vhost, Watch};
use crate::message::Message;
use crate::queue::{self, Origin};

/// The type of exchange that remembers.
pub const KIND: &str = "x-recent-history";

/// With this header set, a message is not remembered.
const NO_STORE: &[u8] = b"x-recent-history-no-store";

/// The messages that exchanges remember, by exchange, the oldest first.
#[derive(Debug, Default)]
pub struct Histories(Mutex<HashMap<Arc<str>, VecDeque<Message>>>);

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
        history.push_back(message.again(message.parts.clone(), message.taken_at_ms));
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
        let kept = histories.get(exchange).into_iter().flatten();
        kept.map(|message| message.again(message.parts.clone(), now_ms)).collect()
    }
}

impl Vhost {
    /// Something has been bound to an exchange: it gets what the exchange remembers.
    pub(super) fn replay_history(&self, exchange: &str, target: &Target<queue::Handle>) {
        let now_ms = self.surroundings.clock.now_ms();
        let mut batch = queue::Batch::default();
        let mut matches = Matches::default();
        for message in self.histories.messages(exchange, now_ms) {
            let (queues, held) = match target {
                Target::Queue(queue) => (vec![queue.clone()], Held::new()),
                Target::Exchange(name) => {
                    let watch = Watch::of_all(&message);
                    match self.route_from(&name.to_string(), &message, &mut matches, watch) {
                        Some(held) => (matches.queues().to_vec(), held),
                        None => Default::default(),
                    }
                }
            };
            hand_on(&mut batch, message, &queues, held, Origin::default(), None);
        }
        let store = &self.surroundings.store;
        batch.flush(None, |operations, _| store.append(operations.collect(), Urgency::Lazy));
    }
}

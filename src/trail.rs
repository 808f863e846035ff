//! Trails: what happened to a message, step by step, for those who ask for it by its `message_id`.
//!
//! Steps are noted of queues whose policy says `trace-messages`, in memory, and the oldest are forgotten when there are
//! too many. Nothing here is needed to deliver a message.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value as Json, json};

/// One thing that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was published, and has reached these queues.
    Published {
        /// By whom.
        user: Arc<str>,
        /// The name of the publisher's connection.
        connection: String,
        /// To which exchange.
        exchange: String,
        /// With which key.
        routing_key: String,
        /// The queues.
        queues: Vec<Arc<str>>,
    },
    /// An exchange had held it back until its hour; now it has reached these queues.
    Released {
        /// The exchange.
        exchange: String,
        /// The queues.
        queues: Vec<Arc<str>>,
    },
    /// A queue has handed it out.
    Delivered {
        /// The queue.
        queue: Arc<str>,
        /// The name of the consumer's connection.
        connection: String,
        /// The consumer; empty for basic.get.
        consumer_tag: Arc<str>,
        /// It may have been delivered before.
        redelivered: bool,
        /// Nobody will acknowledge it: it is done with.
        no_ack: bool,
    },
    /// Whoever had it is done with it.
    Acknowledged {
        /// The queue that it was from.
        queue: Arc<str>,
        /// The name of the consumer's connection.
        connection: String,
    },
    /// It went back to its place.
    Returned {
        /// The queue that it was from.
        queue: Arc<str>,
        /// How: `nacked`, `recovered`, or `failed`: rejected, or lost with its consumer.
        how: &'static str,
    },
    /// It left its queue though nobody was done with it.
    Left {
        /// The queue.
        queue: Arc<str>,
        /// Why, as in its header `x-death`.
        reason: &'static str,
    },
    /// What had left a queue has reached these queues.
    DeadLettered {
        /// The queue.
        queue: Arc<str>,
        /// Why.
        reason: &'static str,
        /// The queues that it has reached.
        queues: Vec<Arc<str>>,
    },
}

impl Step {
    /// As the HTTP API tells it, with the time in milliseconds since 1970.
    fn to_json(&self, at_ms: u64) -> Json {
        let (what, fields) = match self {
            Step::Published { user, connection, exchange, routing_key, queues } => (
                "published",
                json!({
                    "user": user, "connection": connection, "exchange": exchange, "routing_key": routing_key,
                    "queues": queues,
                }),
            ),
            Step::Released { exchange, queues } => {
                ("released", json!({"exchange": exchange, "queues": queues}))
            }
            Step::Delivered { queue, connection, consumer_tag, redelivered, no_ack } => (
                "delivered",
                json!({
                    "queue": queue, "connection": connection, "consumer_tag": consumer_tag,
                    "redelivered": redelivered, "ack_required": !no_ack,
                }),
            ),
            Step::Acknowledged { queue, connection } => {
                ("acknowledged", json!({"queue": queue, "connection": connection}))
            }
            Step::Returned { queue, how } => ("returned", json!({"queue": queue, "how": how})),
            Step::Left { queue, reason } => ("left", json!({"queue": queue, "reason": reason})),
            Step::DeadLettered { queue, reason, queues } => {
                ("dead-lettered", json!({"queue": queue, "reason": reason, "queues": queues}))
            }
        };
        let mut map = Map::from_iter([("at_ms".to_string(), json!(at_ms)), ("what".into(), json!(what))]);
        if let Json::Object(fields) = fields {
            map.extend(fields);
        }
        Json::Object(map)
    }
}

/// The steps of all messages of a vhost.
#[derive(Debug)]
pub struct Trails {
    steps_max: usize,
    // Short sections. Only messages of queues that keep trails come here.
    steps: Mutex<VecDeque<Noted>>,
}

#[derive(Debug)]
struct Noted {
    id: Box<[u8]>,
    at_ms: u64,
    step: Step,
}

impl Trails {
    /// Remembers so many steps.
    pub fn new(steps_max: usize) -> Trails {
        Trails { steps_max, steps: Mutex::default() }
    }

    /// Notes what happened to a message; nothing if it has no id to be found by.
    pub fn note(&self, id: Option<&[u8]>, at_ms: u64, step: Step) {
        let Some(id) = id.filter(|_| self.steps_max > 0) else { return };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() >= self.steps_max {
            steps.pop_front();
        }
        steps.push_back(Noted { id: id.into(), at_ms, step });
    }

    /// What happened to the messages of this id, the oldest first.
    pub fn of(&self, id: &[u8]) -> Vec<Json> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let own = steps.iter().filter(|noted| *noted.id == *id);
        own.map(|noted| noted.step.to_json(noted.at_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_steps_are_forgotten_and_messages_without_an_id_leave_none() {
        let trails = Trails::new(2);
        let left = |reason| Step::Left { queue: "q".into(), reason };

        trails.note(Some(b"a"), 1, left("expired"));
        trails.note(None, 2, left("expired"));
        trails.note(Some(b"b"), 3, left("expired"));
        assert_eq!(trails.of(b"a").len(), 1);
        trails.note(Some(b"b"), 4, left("maxlen"));

        assert!(trails.of(b"a").is_empty());
        let expected = [
            json!({"at_ms": 3, "what": "left", "queue": "q", "reason": "expired"}),
            json!({"at_ms": 4, "what": "left", "queue": "q", "reason": "maxlen"}),
        ];
        assert_eq!(trails.of(b"b"), expected);
    }
}

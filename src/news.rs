//! News: what happens in the broker, for whoever has bound a queue to `amq.rabbitmq.event` or `amq.rabbitmq.log`.
//!
//! Whoever makes something happen tells it here and goes on; one task of the broker publishes what was told. While
//! nobody listens, nothing is put together, and telling costs a look at a flag.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc;

/// So many items may wait to be published. What comes when there are more is lost, and that is told in the log.
const WAITING_MAX: usize = 65_536;

/// Who does what nobody asked for, in RabbitMQ's words.
pub const NOBODY: &str = "rmq-internal";

/// What sort of news, by the exchange it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// What was made, changed and taken away, who came and went: headers without a body.
    Events,
    /// The lines of the log.
    Log,
}

impl Feed {
    /// All of them.
    pub const ALL: [Feed; 2] = [Feed::Events, Feed::Log];

    /// The exchange that has it; its type is topic.
    pub fn exchange(self) -> &'static str {
        match self {
            Feed::Events => "amq.rabbitmq.event",
            Feed::Log => "amq.rabbitmq.log",
        }
    }
}

/// A single piece of news.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it belongs.
    pub feed: Feed,
    /// Its routing key: what happened, or the level of a line.
    pub key: &'static str,
    /// Everything about it.
    pub headers: Map<String, Json>,
    /// A line of the log.
    pub body: String,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Where news are told.
pub struct News {
    is_heard: [AtomicBool; 2],
    lost: AtomicU64,
    sender: mpsc::Sender<Item>,
}

/// Where they come out, in the order in which they were told.
pub type Ear = mpsc::Receiver<Item>;

impl News {
    /// Nobody listens yet.
    pub fn new() -> (News, Ear) {
        let (sender, ear) = mpsc::channel(WAITING_MAX);
        (News { is_heard: Default::default(), lost: AtomicU64::new(0), sender }, ear)
    }

    /// Whether somebody listens.
    pub fn is_heard(&self, feed: Feed) -> bool {
        self.is_heard[feed as usize].load(Ordering::Relaxed)
    }

    /// Somebody listens from now on, or nobody does.
    pub fn set_heard(&self, feed: Feed, is_heard: bool) {
        self.is_heard[feed as usize].store(is_heard, Ordering::Relaxed);
    }

    /// Something has happened: what, in RabbitMQ's words, and all about it.
    pub fn tell(&self, key: &'static str, at_ms: u64, about: impl FnOnce() -> Json) {
        if !self.is_heard(Feed::Events) {
            return;
        }
        let Json::Object(mut headers) = about() else { return };
        headers.insert("timestamp_in_ms".into(), at_ms.into());
        self.send(Item { feed: Feed::Events, key, headers, body: String::new(), at_ms });
    }

    /// A line was logged.
    pub fn tell_line(&self, level: &'static str, line: String, node: &str, at_ms: u64) {
        if !self.is_heard(Feed::Log) {
            return;
        }
        let headers = Map::from_iter([("node".to_string(), json!(node))]);
        self.send(Item { feed: Feed::Log, key: level, headers, body: line, at_ms });
    }

    /// How many items were lost since this was last asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    fn send(&self, item: Item) {
        if self.sender.try_send(item).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.is_heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_listens_to_is_not_put_together() {
        let (news, mut ear) = News::new();

        news.tell("queue.created", 5, || unreachable!("nobody listens"));
        news.set_heard(Feed::Events, true);
        news.tell("queue.deleted", 6, || json!({"name": "q"}));
        news.tell_line("info", "a line".into(), "node", 7);

        let item = ear.try_recv().unwrap();
        assert_eq!((item.key, &item.headers["timestamp_in_ms"]), ("queue.deleted", &json!(6)));
        assert!(ear.try_recv().is_err());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (news, _ear) = News::new();
        news.set_heard(Feed::Log, true);

        (0..WAITING_MAX + 3).for_each(|_| news.tell_line("info", String::new(), "node", 0));

        assert_eq!((news.take_lost(), news.take_lost()), (3, 0));
    }
}

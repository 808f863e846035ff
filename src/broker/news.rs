//! The teller: publishes news in the vhost that has the exchanges for them.

use std::sync::Arc;

use exchanges::Matches;
use store::Urgency;
use tokio::sync::Notify;
use tracing::warn;

use super::Broker;
use crate::log;
use crate::news::{Item, News};
use crate::queue;

/// So many items are published at once.
const ITEMS_MAX: usize = 256;

impl Broker {
    /// Where it is told what happens.
    pub fn news(&self) -> &Arc<News> {
        &self.surroundings.news
    }

    /// A line was logged.
    pub fn log_line(&self, level: &'static str, line: String) {
        self.news().tell_line(level, line, &self.config.node_name, self.clock().now_ms());
    }

    /// Publishes what is told, until the caller stops polling.
    pub async fn tell_news(&self) {
        let mut ear = self.ear.lock().await;
        let bell = Arc::new(Notify::new());
        let rung = bell.clone();
        let mut session = self.surroundings.store.session(Arc::new(move || rung.notify_one()));
        let mut items: Vec<Item> = Vec::new();
        let (mut matches, mut batch) = (Matches::default(), queue::Batch::default());
        while ear.recv_many(&mut items, ITEMS_MAX).await > 0 {
            let lost = self.news().take_lost();
            if lost > 0 {
                warn!(lost, "more news than could be published; what found no room is lost");
            }
            // A line about the lines would never end.
            log::unheard(|| match self.vhost(&self.config.news_vhost) {
                Ok(vhost) => {
                    for item in items.drain(..) {
                        vhost.publish_news(item, &mut matches, &mut batch);
                    }
                    let append =
                        |operations: std::vec::Drain<'_, _>, _| session.append(operations, Urgency::Lazy);
                    batch.flush(None, append);
                }
                Err(_) => items.clear(),
            });
            // The store has more to write than it should: the news wait, and find no more room one day.
            while session.is_full() {
                bell.notified().await;
            }
            tokio::task::yield_now().await;
        }
    }
}

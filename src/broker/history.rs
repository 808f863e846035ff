//! What the node took, and who came and went, at moments of the last minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Broker;
use crate::node::Usage;
use crate::samples::{Course, Samples, Span};

/// It is looked this often.
const PERIOD: Duration = Duration::from_secs(5);

/// So many numbers there are: five of the node, and behind them those of `Churn::counts`.
pub const NODE_NUMBERS: usize = 12;

/// The numbers of the node: octets of memory, descriptors, sockets, threads, free octets of the disk.
const OF_NODE: usize = 5;

/// What has been noted.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    course: Course,
    last: Option<(u64, [u64; NODE_NUMBERS])>,
    rates: [f64; NODE_NUMBERS],
}

impl Noted {
    fn note(&mut self, now_ms: u64, numbers: [u64; NODE_NUMBERS]) {
        if let Some((at_ms, before)) = self.last {
            let secs = now_ms.saturating_sub(at_ms).max(1) as f64 / 1000.0;
            self.rates = std::array::from_fn(|n| (numbers[n] as f64 - before[n] as f64) / secs);
        }
        self.course.note(now_ms, &numbers);
        self.last = Some((now_ms, numbers));
    }
}

/// How the node stands, and has stood.
#[derive(Debug)]
pub struct NodeFigures {
    /// The numbers now.
    pub numbers: [u64; NODE_NUMBERS],
    /// How much more of each in a second, in the last seconds.
    pub rates: [f64; NODE_NUMBERS],
    /// What they were at moments, if that was asked for.
    pub past: Option<Samples<NODE_NUMBERS>>,
}

impl Broker {
    /// Notes how the node stands every few seconds, until the caller stops polling.
    pub async fn keep_history(&self) {
        loop {
            // It reads folders of the system: not on a thread that serves connections.
            let dir = self.config.data_dir.clone();
            if let Ok(usage) = tokio::task::spawn_blocking(move || Usage::look(&dir)).await {
                let mut noted = self.history.0.lock().unwrap_or_else(PoisonError::into_inner);
                noted.note(self.clock().now_ms(), self.node_numbers(&usage));
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// How the node stands, if the process takes so much; and has stood, if a span is asked for.
    pub fn node_figures(&self, usage: &Usage, span: Option<Span>) -> NodeFigures {
        let (numbers, now_ms) = (self.node_numbers(usage), self.clock().now_ms());
        let noted = self.history.0.lock().unwrap_or_else(PoisonError::into_inner);
        let past = span.map(|span| noted.course.samples(span, now_ms, now_ms, numbers));
        NodeFigures { numbers, rates: noted.rates, past }
    }

    fn node_numbers(&self, usage: &Usage) -> [u64; NODE_NUMBERS] {
        let sockets = self.roster.len() + self.listeners().len();
        let of_node = [
            usage.resident_bytes,
            usage.descriptors.0,
            sockets as u64,
            usage.threads.0,
            usage.disk_free_bytes,
        ];
        let churn = self.roster.churn.counts();
        std::array::from_fn(|n| if n < OF_NODE { of_node[n] } else { churn[n - OF_NODE] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_time_between_two_looks() {
        let mut noted = Noted::default();

        noted.note(10_000, [1_000; NODE_NUMBERS]);
        assert_eq!(noted.rates[0], 0.0, "the first look says nothing of how it came about");
        noted.note(15_000, [500; NODE_NUMBERS]);

        assert_eq!(noted.rates[0], -100.0);
    }
}

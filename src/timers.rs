//! Things that are due at a time, soonest first, and the wait for the next one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;

/// A set of `T`s, each with the time it is due. Who adds one never waits.
#[derive(Debug)]
pub struct Timers<T> {
    // Short sections only: a push, or a peek and a pop.
    heap: Mutex<BinaryHeap<Reverse<Due<T>>>>,
    sooner: Notify,
    clock: Clock,
}

#[derive(Debug)]
struct Due<T> {
    at_ms: u64,
    what: T,
}

impl<T> Timers<T> {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Timers { heap: Mutex::new(BinaryHeap::new()), sooner: Notify::new(), clock }
    }

    /// Makes `what` come out of [`Timers::next`] at `at_ms`.
    pub fn schedule(&self, at_ms: u64, what: T) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let is_soonest = heap.peek().is_none_or(|Reverse(first)| at_ms < first.at_ms);
        heap.push(Reverse(Due { at_ms, what }));
        drop(heap);
        if is_soonest {
            self.sooner.notify_one();
        }
    }

    /// Waits for the next thing to be due, and takes it out.
    pub async fn next(&self) -> T {
        loop {
            let soonest = {
                let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
                let soonest = heap.peek().map(|Reverse(due)| due.at_ms);
                if soonest.is_some_and(|at_ms| at_ms <= self.clock.now_ms())
                    && let Some(Reverse(due)) = heap.pop()
                {
                    return due.what;
                }
                soonest
            };
            match soonest {
                None => self.sooner.notified().await,
                Some(at_ms) => tokio::select! {
                    () = self.sooner.notified() => {}
                    () = self.clock.sleep_until(at_ms) => {}
                },
            }
        }
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at_ms.cmp(&other.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_due_first_comes_first_and_only_when_due() {
        let clock = Clock::system();
        let timers = Timers::new(clock.clone());
        let now = clock.now_ms();
        timers.schedule(now + 7_200_000, "second");
        timers.schedule(now + 3_600_000, "first");

        let mut next = Box::pin(timers.next());
        assert!(futures_poll(next.as_mut()).await.is_none());
        clock.advance(Duration::from_secs(3600));
        assert_eq!(next.await, "first");

        clock.advance(Duration::from_secs(3600));
        assert_eq!(timers.next().await, "second");
    }

    /// One poll: what came of it, if anything did.
    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            use std::task::Poll;
            match std::pin::Pin::new(&mut future).poll(context) {
                Poll::Ready(out) => Poll::Ready(Some(out)),
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    }
}

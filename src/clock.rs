//! What time it is. Tests move it; nobody else reads the system's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// Wall time in milliseconds, plus what a test has added to it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The time it shows before anything is added, if it does not go by itself.
    stands_at_ms: Option<u64>,
    added: Arc<Added>,
}

#[derive(Debug, Default)]
struct Added {
    ms: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock::default()
    }

    /// A clock that stands still until it is moved.
    pub fn standing(at_ms: u64) -> Self {
        Clock { stands_at_ms: Some(at_ms), ..Clock::default() }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let since_1970 = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shown_ms = self.stands_at_ms.unwrap_or_else(|| since_1970().as_millis() as u64);
        shown_ms + self.added.ms.load(Ordering::Relaxed)
    }

    /// Moves the clock forward, for everybody who shares it.
    pub fn advance(&self, by: Duration) {
        self.added.ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
        self.added.moved.notify_waiters();
    }

    /// Waits until the clock shows `at_ms`.
    pub async fn sleep_until(&self, at_ms: u64) {
        loop {
            let moved = self.added.moved.notified();
            let now = self.now_ms();
            if now >= at_ms {
                return;
            }
            tokio::select! {
                () = moved => {}
                () = tokio::time::sleep(Duration::from_millis(at_ms - now)) => {}
            }
        }
    }
}

//! A full disk: whoever writes waits until there is room again, and then goes on where it was.
//!
//! Nothing is lost by a write that did not fit: it has not been promised to anybody. (One that failed for
//! another reason, and any failed sync, is a different matter: see [`crate::Error::Poisoned`].)

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::intake::lock;

/// How often it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Called with the reason when the disk is full, and with nothing when it is not any more. By a thread of
/// the store: must be short.
pub type OnFull = Arc<dyn Fn(Option<String>) + Send + Sync>;

/// What all who write share.
pub(crate) struct Full {
    on_full: Option<OnFull>,
    /// How many wait. The first one tells, and so does the last.
    waiting: Mutex<usize>,
    gives_up: AtomicBool,
    given_up: Condvar,
}

impl Full {
    pub(crate) fn new(on_full: Option<OnFull>) -> Full {
        Full { on_full, waiting: Mutex::new(0), gives_up: AtomicBool::new(false), given_up: Condvar::new() }
    }

    /// Does `work` until it does not fail for want of room, or nobody has the time to wait any more.
    /// `path` is what it writes to.
    pub(crate) fn wait_out<T>(&self, path: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let (mut is_waiting, mut is_last) = (false, false);
        let result = loop {
            match work() {
                Err(error) if is_full(&error) && !is_last => {
                    if !is_waiting {
                        is_waiting = true;
                        self.begin(path, &error);
                    }
                    let waiting = lock(&self.waiting);
                    let gives_up = |_: &mut usize| !self.gives_up.load(Ordering::SeqCst);
                    let waited = self.given_up.wait_timeout_while(waiting, PAUSE, gives_up);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                    is_last = self.gives_up.load(Ordering::SeqCst);
                }
                result => break result,
            }
        };
        if is_waiting {
            self.end();
        }
        result
    }

    /// Nobody waits from now on: the store closes.
    pub(crate) fn give_up(&self) {
        self.gives_up.store(true, Ordering::SeqCst);
        self.given_up.notify_all();
    }

    fn begin(&self, path: &Path, error: &io::Error) {
        let mut waiting = lock(&self.waiting);
        *waiting += 1;
        if *waiting > 1 {
            return;
        }
        let reason = format!("no room for {}: {error}; free some, and it goes on by itself", path.display());
        tracing::error!("{reason}");
        self.tell(Some(reason));
    }

    fn end(&self) {
        let mut waiting = lock(&self.waiting);
        *waiting -= 1;
        if *waiting == 0 {
            tracing::info!("there is room on the disk again");
            self.tell(None);
        }
    }

    fn tell(&self, reason: Option<String>) {
        if let Some(on_full) = &self.on_full {
            on_full(reason);
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

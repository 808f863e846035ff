//! A thread that does one job after the other, and can be asked whether it is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::error::Error;

/// Gives jobs to the thread, which ends when this is dropped and its job is done.
pub(crate) struct Worker<T> {
    jobs: mpsc::Sender<T>,
    is_busy: Arc<AtomicBool>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread. It ends early if `work` says that nothing more is to be done.
    pub(crate) fn start(
        name: &str,
        mut work: impl FnMut(T) -> bool + Send + 'static,
    ) -> Result<(Worker<T>, JoinHandle<()>), Error> {
        // Holds at most one job: the next one is given only when the worker is idle.
        let (jobs, inbox) = mpsc::channel();
        let is_busy = Arc::new(AtomicBool::new(false));
        let busy = Arc::clone(&is_busy);
        let run = move || {
            for job in inbox {
                if !work(job) {
                    return;
                }
                busy.store(false, Ordering::Release);
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(Error::io(format!("a thread named {name}").as_ref()))?;
        Ok((Worker { jobs, is_busy }, thread))
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    pub(crate) fn give(&self, job: T) {
        self.is_busy.store(true, Ordering::Release);
        // The thread is gone only after an error, which has been told already.
        let _ = self.jobs.send(job);
    }
}

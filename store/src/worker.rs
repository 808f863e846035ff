//! A thread that does one job after the other, and can be asked whether it is idle.

use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use crate::error::Error;
use crate::intake::lock;

/// Gives jobs to the thread, which ends when this is dropped and its job is done.
pub(crate) struct Worker<T> {
    jobs: mpsc::Sender<T>,
    activity: Arc<Activity>,
}

#[derive(Default)]
struct Activity {
    is_busy: Mutex<bool>,
    is_over: Condvar,
}

impl Activity {
    fn set(&self, is_busy: bool) {
        *lock(&self.is_busy) = is_busy;
        self.is_over.notify_all();
    }
}

/// Tells that a job is over, however it ended.
struct Busy<'a>(&'a Activity);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread. It ends early if `work` says that nothing more is to be done.
    pub(crate) fn start(
        name: &str,
        mut work: impl FnMut(T) -> bool + Send + 'static,
    ) -> Result<(Worker<T>, JoinHandle<()>), Error> {
        // Holds at most one job: the next one is given only when the worker is idle.
        let (jobs, inbox) = mpsc::channel();
        let activity = Arc::new(Activity::default());
        let shared = Arc::clone(&activity);
        let run = move || {
            for job in inbox {
                let _busy = Busy(&shared);
                if !work(job) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(Error::io(format!("a thread named {name}").as_ref()))?;
        Ok((Worker { jobs, activity }, thread))
    }

    pub(crate) fn is_busy(&self) -> bool {
        *lock(&self.activity.is_busy)
    }

    /// Blocks until there is no job.
    pub(crate) fn wait(&self) {
        let is_busy = lock(&self.activity.is_busy);
        drop(self.activity.is_over.wait_while(is_busy, |busy| *busy).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn give(&self, job: T) {
        self.activity.set(true);
        // The thread is gone only after an error, which has been told already.
        if self.jobs.send(job).is_err() {
            self.activity.set(false);
        }
    }
}

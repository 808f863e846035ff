//! Alarms: when the disk runs short, publishers are held back and told why.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

/// How often the disk is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Whether there is an alarm; cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Alarm(watch::Receiver<Option<String>>);

/// Sets the alarm and lifts it.
#[derive(Debug)]
pub struct Siren(watch::Sender<Option<String>>);

/// An alarm that is off, and what turns it on.
pub fn channel() -> (Siren, Alarm) {
    let (sender, receiver) = watch::channel(None);
    (Siren(sender), Alarm(receiver))
}

impl Alarm {
    /// Whether publishers are to be held back.
    pub fn is_on(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Why, with the figures.
    pub fn reason(&self) -> String {
        self.0.borrow().clone().unwrap_or_default()
    }

    /// Waits for a change; false if there will be none any more.
    pub async fn changed(&mut self) -> bool {
        if self.0.changed().await.is_ok() {
            return true;
        }
        std::future::pending().await
    }
}

impl Siren {
    /// Turns the alarm on with a reason, or off. Only a change is told.
    pub fn set(&self, reason: Option<String>) {
        let is_change = self.0.borrow().is_some() != reason.is_some();
        if !is_change {
            return;
        }
        match &reason {
            Some(reason) => warn!(reason, "publishers are blocked"),
            None => info!("publishers are not blocked any more"),
        }
        self.0.send_replace(reason);
    }

    /// Looks after the disk of `dir` until the caller stops polling.
    pub async fn watch_disk(&self, dir: &Path, free_bytes_min: u64) {
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            tick.tick().await;
            let Ok(disk) = rustix::fs::statvfs(dir) else { continue };
            let free_bytes = disk.f_bavail * disk.f_frsize;
            let is_short = free_bytes < free_bytes_min;
            self.set(is_short.then(|| {
                format!(
                    "low on disk: {free_bytes} bytes free, fewer than disk_free_bytes_min {free_bytes_min}"
                )
            }));
        }
    }
}

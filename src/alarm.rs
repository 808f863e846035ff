//! Alarms: when disk or memory run short, publishers are held back and told why.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

/// How often disk and memory are looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// What can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The disk has little left.
    LowDisk,
    /// The disk has nothing left, and the store waits.
    FullDisk,
    /// The process has taken what it may.
    Memory,
}

/// By cause, why.
type Reasons = [Option<String>; 3];

/// Whether there is an alarm; cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Alarm(watch::Receiver<Reasons>);

/// Sets alarms and lifts them.
#[derive(Clone, Debug)]
pub struct Siren(Arc<watch::Sender<Reasons>>);

/// An alarm that is off, and what turns it on.
pub fn channel() -> (Siren, Alarm) {
    let (sender, receiver) = watch::channel(Reasons::default());
    (Siren(Arc::new(sender)), Alarm(receiver))
}

impl Alarm {
    /// Whether publishers are to be held back.
    pub fn is_on(&self) -> bool {
        self.0.borrow().iter().any(Option::is_some)
    }

    /// Whether this is a reason to hold them back.
    pub fn has(&self, cause: Cause) -> bool {
        self.0.borrow()[cause as usize].is_some()
    }

    /// Why, with the figures.
    pub fn reason(&self) -> String {
        let reasons = self.0.borrow();
        reasons.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ")
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
    /// Turns an alarm on with a reason, or off. Only a change is told.
    pub fn set(&self, cause: Cause, reason: Option<String>) {
        self.0.send_if_modified(|reasons| {
            let held = &mut reasons[cause as usize];
            if held.is_some() == reason.is_some() {
                return false;
            }
            match &reason {
                Some(reason) => warn!(reason, "publishers are blocked"),
                None => info!(?cause, "this is no reason to block publishers any more"),
            }
            *held = reason;
            true
        });
    }

    /// Looks after the disk of `dir`, and after memory, of which `shortage` says why there is too little,
    /// until the caller stops polling.
    pub async fn watch(
        &self,
        dir: &Path,
        free_bytes_min: impl Fn() -> u64,
        shortage: impl Fn() -> Option<String>,
    ) {
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            tick.tick().await;
            self.set(Cause::Memory, shortage());
            let Ok(disk) = rustix::fs::statvfs(dir) else { continue };
            let free_bytes = disk.f_bavail * disk.f_frsize;
            let free_bytes_min = free_bytes_min();
            let is_short = free_bytes < free_bytes_min;
            self.set(
                Cause::LowDisk,
                is_short.then(|| {
                    format!(
                        "low on disk: {free_bytes} bytes free, fewer than disk_free_bytes_min {free_bytes_min}"
                    )
                }),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_on_while_there_is_any_reason_and_names_all() {
        let (siren, alarm) = channel();
        assert!(!alarm.is_on());

        siren.set(Cause::Memory, Some("a".into()));
        siren.set(Cause::LowDisk, Some("b".into()));
        siren.set(Cause::LowDisk, Some("told already".into()));
        assert_eq!((alarm.is_on(), alarm.reason()), (true, "b; a".into()));

        siren.set(Cause::Memory, None);
        assert_eq!(alarm.reason(), "b");
        siren.set(Cause::LowDisk, None);
        assert!(!alarm.is_on());
    }
}

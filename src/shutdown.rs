//! The wish to stop, told once and heard by all.

use tokio::sync::watch;

/// Tells everybody to stop. Dropping it tells them as well.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Hears the wish to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and who hears it.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks for the stop.
    pub fn pull(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits until a stop is asked for.
    pub async fn asked(&mut self) {
        // An error means that the trigger is gone: a stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether a stop has been asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

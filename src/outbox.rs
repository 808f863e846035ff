//! What the broker has for a connection: deliveries and news, put there by others, taken by its task.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use amqp::Exception;
use store::QueueId;
use tokio::sync::Notify;

use crate::delivery::{ConsumerId, Delivery, Waiting};
use crate::message::Message;

/// How much may wait for a connection that does not read, in octets. Queues stop delivering to it at
/// this point, so a consumer that sleeps costs this much and no more.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Something for a connection to act on.
#[derive(Debug)]
pub enum Event {
    /// A message for one of its consumers.
    Deliver(Delivery),
    /// The queue of this consumer is gone.
    Cancel {
        /// The consumer's channel.
        channel: u16,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// How long this consumer may keep a delivery, in milliseconds, unless it said so itself.
    Timeout {
        /// The consumer's channel.
        channel: u16,
        /// The consumer.
        consumer: ConsumerId,
        /// How long; nothing for ever.
        timeout_ms: Option<u64>,
    },
    /// The broker wants the connection closed.
    Close(Exception),
    /// Somebody asks which messages of a queue it holds.
    Ask {
        /// The queue.
        queue: QueueId,
        /// So many at most.
        max: usize,
        /// Where the answer goes.
        answer: mpsc::Sender<Vec<Held>>,
    },
}

/// A message that a connection holds and has not settled.
#[derive(Debug)]
pub struct Held {
    /// On which channel.
    pub channel: u16,
    /// Under which number.
    pub delivery_tag: u64,
    /// For which consumer; nobody if it was taken by basic.get.
    pub consumer_tag: Option<Arc<str>>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: Arc<Message>,
}

/// The mailbox of a connection. Whoever puts something in never waits.
#[derive(Default)]
pub struct Outbox {
    // Held for a push, or for a swap of the whole list.
    inner: Mutex<Inner>,
    /// Octets of the messages inside.
    bytes: AtomicUsize,
    /// The client does not take what has been written for it.
    is_clogged: AtomicBool,
    /// Rings for new events, and for progress of the store.
    bell: Notify,
}

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    stalled: Vec<Waiting>,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds deliveries, which take so many octets on the wire; the caller rings, once it holds no lock. All of
    /// `deliveries` is taken; its memory stays with the caller.
    pub fn deliver(&self, deliveries: &mut Vec<Delivery>, bytes: usize) {
        let mut inner = self.lock();
        inner.events.extend(deliveries.drain(..).map(Event::Deliver));
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Adds news and rings.
    pub fn send(&self, event: Event) {
        self.lock().events.push(event);
        self.ring();
    }

    /// Wakes the connection.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until somebody rings.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Whether `more` octets still fit.
    pub fn has_room_for(&self, more: usize) -> bool {
        self.bytes.load(Ordering::SeqCst) + more < OUTBOX_BYTES_MAX
    }

    /// Notes whether the client takes what is written for it.
    pub fn set_clogged(&self, is_clogged: bool) {
        if is_clogged != self.is_clogged() {
            self.is_clogged.store(is_clogged, Ordering::Relaxed);
        }
    }

    /// Whether it is the client that is slow, and not this broker.
    pub fn is_clogged(&self) -> bool {
        self.is_clogged.load(Ordering::Relaxed)
    }

    /// Remembers a consumer that found no room for `more` octets; false if there is room by now.
    pub fn stall(&self, more: usize, waiting: impl FnOnce() -> Waiting) -> bool {
        let mut inner = self.lock();
        let is_full = !self.has_room_for(more);
        if is_full {
            inner.stalled.push(waiting());
        }
        is_full
    }

    /// Whether something may be inside; a cheap look that can be a moment old.
    pub fn is_empty(&self) -> bool {
        self.lock().events.is_empty()
    }

    /// Takes all events, in order, into `events` (which must be empty). The caller resumes whoever is
    /// returned: there is room now.
    #[must_use]
    pub fn take(&self, events: &mut Vec<Event>) -> Vec<Waiting> {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.events, events);
        self.bytes.store(0, Ordering::SeqCst);
        std::mem::take(&mut inner.stalled)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({} octets)", self.bytes.load(Ordering::Relaxed))
    }
}

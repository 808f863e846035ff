//! A queue: messages in order, and the consumers they go to.
//!
//! The state is a pure machine (`state.rs`); this shell holds its lock, tells the store what is gone
//! and rings the connections that got something. A handle is cheap to clone and compares by identity.

mod arguments;
mod consumers;
mod ready;
mod state;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use amqp::Table;
use store::{Operation, QueueId, Seq, Store, Urgency};

pub use arguments::{Arguments, integer, other_type_text, type_name};
pub use consumers::Consumer;
pub use state::{Dead, DeleteIf, Joined, Kept};

use crate::clock::Clock;
use crate::delivery::{ConnectionId, ConsumerId, Entry, Resume};
use crate::message::Message;
use crate::outbox::Event;
use crate::timers::Timers;
use state::{Effects, State};

/// What a queue was declared with.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its vhost.
    pub vhost: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// It was declared durable; see [`Declaration::is_kept`].
    pub durable: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that has it for itself, and with which it goes.
    pub owner: Option<ConnectionId>,
    /// Its arguments as they were given.
    pub table: Table,
    /// What they ask for.
    pub arguments: Arguments,
}

impl Declaration {
    /// Whether the queue and its persistent messages outlive the broker. A durable queue that belongs
    /// to a connection does not: the connection will be gone.
    pub fn is_kept(&self) -> bool {
        self.durable && self.owner.is_none()
    }
}

/// What a queue is given by the house.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where its messages are kept.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// Where it asks to be looked at again; [`Handle::tick`] is then called.
    pub timers: Arc<Timers<WeakHandle>>,
}

/// A queue, shared by all who use it.
#[derive(Clone)]
pub struct Handle(Arc<Queue>);

/// A queue that does not live longer for it.
#[derive(Clone, Debug)]
pub struct WeakHandle(Weak<Queue>);

struct Queue {
    id: QueueId,
    declaration: Declaration,
    surroundings: Surroundings,
    // IMPORTANT: short sections, never across an await. It is held while deliveries go into outboxes,
    // so that those of one queue to one consumer keep their order. Lock order: queue, then outbox.
    state: Mutex<Guarded>,
}

struct Guarded {
    state: State,
    /// The soonest time for which a timer is out.
    timer_at_ms: u64,
}

/// What time has done to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// It goes on.
    Alive,
    /// It has been unused for too long and is to be deleted.
    Expired,
}

impl Handle {
    /// A queue with nothing in it.
    pub fn new(id: QueueId, declaration: Declaration, next_seq: Seq, surroundings: Surroundings) -> Self {
        let now_ms = surroundings.clock.now_ms();
        let state = State::new(declaration.arguments, declaration.is_kept(), next_seq, now_ms);
        let state = Mutex::new(Guarded { state, timer_at_ms: u64::MAX });
        let handle = Handle(Arc::new(Queue { id, declaration, surroundings, state }));
        handle.set_timer(&mut handle.lock());
        handle
    }

    /// Its number in the store.
    pub fn id(&self) -> QueueId {
        self.0.id
    }

    /// What it was declared with.
    pub fn declaration(&self) -> &Declaration {
        &self.0.declaration
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.declaration.name
    }

    /// A handle that does not keep it alive.
    pub fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.0))
    }

    /// Ready messages and consumers.
    pub fn counts(&self) -> (usize, usize) {
        let guarded = self.lock();
        (guarded.state.ready_count(), guarded.state.consumer_count())
    }

    /// Messages that have been delivered and not settled.
    pub fn unacked_count(&self) -> usize {
        self.lock().state.unacked_count()
    }

    /// Puts a message back that was there before the restart.
    pub fn restore(&self, seq: Seq, message: Arc<Message>, redelivered: bool) {
        let mut guarded = self.lock();
        let since_ms = message.taken_at_ms;
        guarded.state.insert(seq, message, redelivered, since_ms);
        self.set_timer(&mut guarded);
    }

    /// Adds messages and delivers. Returns the number of the first one; the others follow without a
    /// gap. `None` if the queue is gone.
    pub fn enqueue(&self, messages: &[Arc<Message>]) -> Option<Seq> {
        self.act(|state, now_ms, _| {
            let first = state.reserve(messages.len())?;
            for (seq, message) in (first.0..).zip(messages) {
                state.insert(Seq(seq), message.clone(), false, now_ms);
            }
            Some(first)
        })
    }

    /// Takes a number for one message that will come later with [`Handle::insert`].
    pub fn reserve(&self) -> Option<Seq> {
        self.lock().state.reserve(1)
    }

    /// Adds messages under numbers that were reserved, and delivers.
    pub fn insert(&self, messages: impl IntoIterator<Item = (Seq, Arc<Message>)>) {
        self.act(|state, now_ms, _| {
            for (seq, message) in messages {
                state.insert(seq, message, false, now_ms);
            }
        });
    }

    /// Adds a consumer; [`Resume::resume`] gives it what is ready.
    pub fn consume(&self, consumer: Consumer) -> Joined {
        self.lock().state.consume(consumer)
    }

    /// Takes a consumer out. True if the queue was to go with its last consumer and this was it.
    #[must_use]
    pub fn cancel(&self, id: ConsumerId) -> bool {
        let was_last = self.act(|state, now_ms, _| state.cancel(id, now_ms));
        was_last && self.0.declaration.auto_delete
    }

    /// Changes how many unacknowledged messages a consumer takes.
    pub fn set_prefetch(&self, id: ConsumerId, prefetch: u16) {
        self.act(|state, _, _| state.set_prefetch(id, prefetch));
    }

    /// Takes the first message by basic.get, with the count of those behind it.
    pub fn get(&self, no_ack: bool) -> Option<(Entry, usize)> {
        self.act(|state, now_ms, effects| state.get(no_ack, now_ms, effects))
    }

    /// Delivered messages are settled; the caller tells the store.
    pub fn settle(&self, consumer: Option<ConsumerId>, n: usize) {
        self.act(|state, _, _| state.settle(consumer, n));
    }

    /// Delivered messages come back, each with the consumer that had it. They are all in their places
    /// before anything is delivered again.
    pub fn requeue(&self, entries: Vec<(Option<ConsumerId>, Entry)>) {
        self.act(|state, _, _| state.requeue(entries));
    }

    /// Lets go of all ready messages; says how many.
    pub fn purge(&self) -> usize {
        self.act(|state, now_ms, effects| state.purge(now_ms, effects))
    }

    /// Ends the queue, if the condition holds in this moment: its consumers are told. Returns the
    /// messages that were ready, to be dropped where it holds nobody up. The caller tells the store.
    ///
    /// # Errors
    /// Why the condition does not hold.
    pub fn delete(&self, condition: DeleteIf) -> Result<Dead, Kept> {
        let now_ms = self.0.surroundings.clock.now_ms();
        let (dead, consumers) = self.lock().state.delete(condition, now_ms)?;
        for consumer in consumers {
            consumer.outbox.send(Event::Cancel { channel: consumer.channel, consumer: consumer.id });
        }
        Ok(dead)
    }

    /// The queue has been declared again.
    pub fn touch(&self) {
        self.act(|state, now_ms, _| state.touch(now_ms));
    }

    /// Does what is due; called when a timer that the queue asked for has come.
    pub fn tick(&self) -> Tick {
        let now_ms = self.0.surroundings.clock.now_ms();
        let mut guarded = self.lock();
        if guarded.timer_at_ms <= now_ms {
            // A timer that is not out yet stays the one to wait for; one of before must not start another.
            guarded.timer_at_ms = u64::MAX;
        }
        drop(guarded);
        let is_expired = self.act(|state, now_ms, effects| {
            state.expire(now_ms, effects);
            state.is_expired(now_ms)
        });
        if is_expired { Tick::Expired } else { Tick::Alive }
    }

    /// Runs a command under the lock, delivers what can be delivered, and carries out the effects.
    fn act<T>(&self, command: impl FnOnce(&mut State, u64, &mut Effects) -> T) -> T {
        let now_ms = self.0.surroundings.clock.now_ms();
        let mut effects = Effects::default();
        let mut guarded = self.lock();
        let result = command(&mut guarded.state, now_ms, &mut effects);
        guarded.state.deliver(now_ms, &|| Arc::new(self.clone()), &mut effects);
        self.set_timer(&mut guarded);
        drop(guarded);
        self.carry_out(effects);
        result
    }

    fn carry_out(&self, effects: Effects) {
        let queue = self.0.id;
        let mut operations = Vec::new();
        if let Some(through) = effects.delivered_through {
            operations.push(Operation::Delivered { queue, through });
        }
        if !effects.gone.is_empty() {
            operations.push(Operation::Settle { queue, seqs: effects.gone.into() });
        }
        if !operations.is_empty() {
            self.0.surroundings.store.append(operations, Urgency::Lazy);
        }
        effects.ring.iter().for_each(|outbox| outbox.ring());
    }

    fn set_timer(&self, guarded: &mut Guarded) {
        let Some(at_ms) = guarded.state.next_due() else { return };
        if at_ms < guarded.timer_at_ms {
            guarded.timer_at_ms = at_ms;
            self.0.surroundings.timers.schedule(at_ms, self.downgrade());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WeakHandle {
    /// The queue, if anybody still has it.
    pub fn upgrade(&self) -> Option<Handle> {
        self.0.upgrade().map(Handle)
    }
}

impl Resume for Handle {
    fn resume(&self, consumer: ConsumerId) {
        self.act(|state, _, _| state.resume(consumer));
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue '{}' in vhost '{}'", self.name(), self.0.declaration.vhost)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue {}", self.id.0)
    }
}

//! A queue: messages in order, and the consumers they go to.
//!
//! The state is a pure machine (`state.rs`); this shell holds its lock, tells the store what is gone,
//! has it bring back what is wanted, and rings the connections that got something. A handle is cheap to
//! clone and compares by identity.

mod arguments;
mod consumers;
mod publishers;
mod ready;
mod state;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use amqp::Table;
use smallvec::SmallVec;
use store::{Operation, Page, QueueId, RecoveredQueue, Run, Seq, Store, SyncMode, Urgency, Wanted};
use tracing::{error, info};

pub use arguments::{Arguments, integer, other_type_text, type_name};
pub use consumers::Consumer;
pub use state::{Dead, DeleteIf, Got, Joined, Kept};

use crate::clock::Clock;
use crate::delivery::{ConnectionId, ConsumerId, Entry, Resume, Stored};
use crate::memory::Memory;
use crate::message::{Message, publish_operation};
use crate::outbox::{Event, Outbox};
use crate::parts::Parts;
use crate::timers::Timers;
use state::{Allowance, Effects, State};

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
    /// How much memory its messages may take.
    pub memory: Arc<Memory>,
    /// When messages are synced that do not say it themselves.
    pub sync: store::SyncMode,
}

/// Set in the numbers under which the store has messages that it was given for want of memory.
const SPILL: u64 = 1 << 63;

/// Whether a number of the store stands for what was spilled of a queue: nothing that survives a restart.
pub fn is_spill(id: QueueId) -> bool {
    id.0 & SPILL != 0
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
    /// What the state takes of the memory for messages.
    used_bytes: usize,
    /// The store knows a queue for what was spilled.
    has_spilled: bool,
}

/// What came of adding messages.
#[derive(Clone, Copy, Debug)]
pub struct Enqueued {
    /// The number of the first one; the others follow without a gap.
    pub first: Seq,
    /// The publisher has to wait; see [`Handle::holds_up`].
    pub holds_up: bool,
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
        let state = Mutex::new(Guarded { state, timer_at_ms: u64::MAX, used_bytes: 0, has_spilled: false });
        surroundings.memory.enter();
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

    /// When its messages are synced.
    pub fn sync(&self) -> store::SyncMode {
        self.0.declaration.arguments.sync.unwrap_or(self.0.surroundings.sync)
    }

    /// The number under which the store has what was spilled of it.
    pub fn spill_id(&self) -> QueueId {
        QueueId(self.0.id.0 | SPILL)
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

    /// It has messages from before the start.
    pub fn restore(&self, recovered: &RecoveredQueue, due: Vec<(u64, Seq)>) {
        self.act(|state, _, _| state.restore(recovered, due));
    }

    /// Leaves to the store what it can of a long queue that nobody has touched for a while, if memory is
    /// short.
    pub fn page_out(&self) {
        self.act(|_, _, _| ());
    }

    /// Adds all of these messages and delivers. `None` if the queue is gone.
    pub fn enqueue(&self, messages: &mut Vec<Arc<Message>>, publisher: &Arc<Outbox>) -> Option<Enqueued> {
        let taken_at_ms = messages.first()?.taken_at_ms;
        self.act_at(taken_at_ms, |state, _| {
            let holds_up = state.holds_up(publisher);
            let first = state.reserve(messages.len())?;
            for (seq, message) in (first.0..).zip(messages.drain(..)) {
                state.insert(Seq(seq), message);
            }
            Some(Enqueued { first, holds_up })
        })
    }

    /// Whether a publisher still has to wait for the consumers, who would take more than they get. Its
    /// outbox is rung when it need not any more, but it asks again after a while in any case.
    pub fn holds_up(&self, publisher: &Arc<Outbox>) -> bool {
        self.lock().state.holds_up(publisher)
    }

    /// Takes a number for one message that will come later with [`Handle::insert`].
    pub fn reserve(&self) -> Option<Seq> {
        let mut guarded = self.lock();
        let seq = guarded.state.reserve(1)?;
        guarded.state.expect(seq);
        Some(seq)
    }

    /// Adds messages under numbers that were reserved, and delivers.
    pub fn insert(&self, messages: Vec<(Seq, Arc<Message>)>) {
        let Some((_, first)) = messages.first() else { return };
        self.act_at(first.taken_at_ms, |state, _| {
            for (seq, message) in messages {
                state.insert(seq, message);
            }
        });
    }

    /// A publisher that was held up waits no more.
    pub fn let_go(&self, publisher: &Arc<Outbox>) {
        self.lock().state.let_go(publisher);
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

    /// Takes the first message by basic.get. If it has still to be read, `outbox` is rung then.
    pub fn get(&self, no_ack: bool, outbox: &Arc<Outbox>) -> Got {
        self.act(|state, now_ms, effects| state.get(no_ack, outbox, now_ms, effects))
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
        let mut guarded = self.lock();
        let (dead, consumers) = guarded.state.delete(condition, now_ms)?;
        let has_spilled = guarded.has_spilled;
        drop(guarded);
        if has_spilled {
            let forget = Operation::QueueDelete { queue: self.spill_id() };
            self.0.surroundings.store.append(vec![forget], Urgency::Lazy);
        }
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
        self.act_at(now_ms, |state, effects| command(state, now_ms, effects))
    }

    /// The same at the time when messages were taken, which may be a moment ago: one that lives no longer
    /// than that moment must find its consumer.
    fn act_at<T>(&self, now_ms: u64, command: impl FnOnce(&mut State, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let mut guarded = self.lock();
        let result = command(&mut guarded.state, &mut effects);
        guarded.state.deliver(now_ms, &|| Arc::new(self.clone()), &mut effects);
        guarded.state.release_publishers(&mut effects);
        self.turn_pages(&mut guarded, &mut effects);
        self.set_timer(&mut guarded);
        let has_spilled = guarded.has_spilled;
        drop(guarded);
        self.carry_out(effects, has_spilled);
        result
    }

    fn carry_out(&self, effects: Effects, has_spilled: bool) {
        let (queue, spill) = (self.0.id, self.spill_id());
        let has_kept = self.0.declaration.is_kept();
        let mut operations = Vec::new();
        if let Some(through) = effects.delivered_through {
            operations.push(Operation::Delivered { queue, through });
        }
        if !effects.gone.is_empty() {
            operations.push(Operation::Settle { queue, runs: effects.gone.into_iter().collect() });
        }
        if !effects.gone_spilled.is_empty() {
            let runs = effects.gone_spilled.into_iter().collect();
            operations.push(Operation::Settle { queue: spill, runs });
        }
        if !effects.gone_away.is_empty() {
            if has_spilled {
                operations.push(Operation::Purge { queue: spill, runs: effects.gone_away.clone() });
            }
            if has_kept {
                operations.push(Operation::Purge { queue, runs: effects.gone_away });
            }
        }
        if !operations.is_empty() {
            self.0.surroundings.store.append(operations, Urgency::Lazy);
        }
        if effects.missing > 0 {
            error!(queue = ?self, messages = effects.missing, "messages that were kept cannot be brought back");
        }
        if let Some((run, bytes_max)) = effects.wanted {
            self.read(run, bytes_max, has_kept, has_spilled);
        }
        effects.ring.iter().for_each(|outbox| outbox.ring());
    }

    fn turn_pages(&self, guarded: &mut Guarded, effects: &mut Effects) {
        let Surroundings { memory, store, .. } = &self.0.surroundings;
        let allowance = Allowance {
            keep_bytes: memory.share_bytes(),
            keep_unstored_bytes: memory.unstored_share_bytes(),
            page_bytes: memory.page_bytes(),
            applied: store.applied(),
        };
        guarded.state.turn_pages(allowance, effects);
        if !effects.spill.is_empty() {
            self.spill(guarded, std::mem::take(&mut effects.spill));
        }
        let used_bytes = guarded.state.bytes();
        memory.changed(guarded.used_bytes, used_bytes);
        guarded.used_bytes = used_bytes;
    }

    /// Gives messages to the store. Under the queue's lock, so that it has them before it is told that they
    /// are gone.
    fn spill(&self, guarded: &mut Guarded, messages: Vec<(Seq, Arc<Message>)>) {
        let queue = self.spill_id();
        let mut operations = Vec::with_capacity(messages.len() + 1);
        if !guarded.has_spilled {
            info!(queue = ?self, "memory is short: messages that are not kept are written to the store");
            guarded.has_spilled = true;
            operations.push(Operation::QueueCreate { queue });
        }
        for (seq, message) in &messages {
            let destinations = SmallVec::from([(queue, *seq)]);
            operations.push(Operation::Publish(publish_operation(message, destinations)));
        }
        // At once, but nobody needs a sync.
        let urgency = Urgency::Written(SyncMode::Os);
        let ticket = self.0.surroundings.store.append(operations, urgency);
        messages.iter().for_each(|(_, message)| message.stored_by.add(ticket));
    }

    /// Asks the store for messages: for those that are kept first, then for those that were spilled among
    /// them.
    fn read(&self, run: Run, bytes_max: usize, has_kept: bool, has_spilled: bool) {
        let (queue, spill, handle) = (self.0.id, self.spill_id(), self.downgrade());
        let page_in = move |kept: Page, spilled: Page| {
            if let Some(queue) = handle.upgrade() {
                queue.page_in(run.first, kept, spilled);
            }
        };
        let store = self.0.surroundings.store.clone();
        let nothing = Page { through: run.last, ..Page::default() };
        match (has_kept, has_spilled) {
            (true, true) => {
                let asked = store.clone();
                let then = move |kept: Page| {
                    let run = Run { last: kept.through, ..run };
                    let then = move |spilled| page_in(kept, spilled);
                    asked.read(Wanted { queue: spill, run, bytes_max }, Box::new(then));
                };
                store.read(Wanted { queue, run, bytes_max }, Box::new(then));
            }
            (true, false) => {
                let then = move |kept| page_in(kept, nothing);
                store.read(Wanted { queue, run, bytes_max }, Box::new(then));
            }
            (false, _) => {
                let then = move |spilled| page_in(nothing, spilled);
                store.read(Wanted { queue: spill, run, bytes_max }, Box::new(then));
            }
        }
    }

    /// The store has brought messages.
    fn page_in(&self, first: Seq, kept: Page, spilled: Page) {
        let through = kept.through.min(spilled.through);
        let stored = |stored| move |message| (message, stored);
        let kept = kept.messages.into_iter().map(stored(Stored::Kept));
        let spilled = spilled.messages.into_iter().map(stored(Stored::Spilled));
        let mut messages = Vec::with_capacity(kept.len() + spilled.len());
        // What is behind the shorter of the two is read again.
        for (found, stored) in kept.chain(spilled).filter(|(found, _)| found.seq <= through) {
            let [address, properties, body] = found.parts;
            let parts = Parts::gathered(&address, &properties, body);
            match Message::from_parts(parts, found.timestamp_ms) {
                Some(message) => messages.push((found.seq, stored, Arc::new(message))),
                None => error!(queue = ?self, seq = found.seq.0, "a kept message has unreadable properties"),
            }
        }
        messages.sort_unstable_by_key(|(seq, ..)| *seq);
        let run = Run { first, last: through };
        self.act(|state, _, effects| state.page_in(run, messages, effects));
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

impl Drop for Queue {
    fn drop(&mut self) {
        let guarded = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.surroundings.memory.leave(guarded.used_bytes);
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

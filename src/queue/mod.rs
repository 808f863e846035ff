//! A queue: messages in order, and the consumers they go to.
//!
//! The state is a pure machine (`state.rs`); this shell holds its lock, tells the store what is gone,
//! has it bring back what is wanted, and rings the connections that got something. A handle is cheap to
//! clone and compares by identity.

mod arguments;
mod batch;
mod browse;
mod consumers;
mod counters;
mod departure;
mod due;
mod effects;
mod known;
mod levels;
mod look;
mod publishers;
mod rate;
mod ready;
mod state;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use amqp::Table;
use hashbrown::HashMap;
use smallvec::SmallVec;
use store::{
    DuePage, DueWanted, Operation, Page, QueueId, RecoveredQueue, Run, Seq, Store, SyncMode, Urgency, Wanted,
    WantedEach,
};
use tracing::{error, info};

pub use arguments::{
    Arguments, Flags, OnDuplicate, QueueKind, Unroutable, integer, other_type_text, type_name,
};
pub use batch::{Batch, Claim, Origin, Outcome, With, nothing};
pub use browse::Waiting;
pub use consumers::Consumer;
pub use counters::{Counters, Lost};
pub use departure::{Departed, Departure, Exit, Reason};
pub use look::{ConsumerLook, Depth, Look, Past};
pub use state::{Dead, DeleteIf, Got, Joined, Kept, Return};

use crate::clock::Clock;
use crate::delivery::{ConnectionId, ConsumerId, Entry, Place, Resume, Returns, Stored};
use crate::memory::Memory;
use crate::message::{Message, publish_operation};
use crate::news::News;
use crate::outbox::{Event, Outbox};
use crate::parts::Parts;
use crate::roster::Churn;
use crate::tally::{Count, Rated, Tallies};
use crate::timers::Timers;
use crate::trail::{self, Trails};
use effects::{Effects, Happened, by_level};
use state::{Allowance, Arrival, State};

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
    /// The arguments that it was made with; see [`Handle::declared`].
    pub table: Table,
    /// It is no queue of anybody's: it holds the messages back that an exchange of its name has delayed.
    pub is_delays: bool,
}

impl Declaration {
    /// Whether the queue and its persistent messages outlive the broker. A durable queue that belongs
    /// to a connection does not: the connection will be gone.
    pub fn is_kept(&self) -> bool {
        self.durable && self.owner.is_none()
    }
}

/// The arguments of a queue, which can be changed in place.
#[derive(Debug)]
pub struct Declared {
    /// As they were given.
    pub table: Table,
    /// What they ask for.
    pub arguments: Arguments,
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
    /// Where messages go that leave it though nobody is done with them.
    pub exit: Exit,
    /// A message that a consumer nacks has failed, as one that it rejects.
    pub nack_is_failure: bool,
    /// How many delayed messages of an exchange go on in a second, at most.
    pub delayed_release_rate: Option<u64>,
    /// Where the vhost counts what its queues do.
    pub tallies: Arc<Tallies>,
    /// Where the vhost notes what happens to messages.
    pub trails: Arc<Trails>,
    /// Where it is counted what comes and goes.
    pub churn: Arc<Churn>,
    /// Where all of it is.
    pub node_name: Arc<str>,
    /// Where it is told what comes and goes.
    pub news: Arc<News>,
}

/// A queue has so many numbers in the store, from its own on: one for each line that it may ever have.
pub const LEVELS_MAX: u64 = 256;

/// So many messages that expired while they were away are read at once.
const EXHUMED_MAX: usize = 128;

/// Set in the numbers under which the store has messages that it was given for want of memory.
const SPILL: u64 = 1 << 63;

/// Whether a number of the store stands for what was spilled of a queue: nothing that survives a restart.
pub fn is_spill(id: QueueId) -> bool {
    id.0 & SPILL != 0
}

/// The names of queues.
pub fn names(queues: &[Handle]) -> Vec<Arc<str>> {
    queues.iter().map(|queue| queue.declaration().name.clone()).collect()
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
    // Short sections, and nothing else is locked in them.
    declared: RwLock<Arc<Declared>>,
    /// It has each message once.
    deduplicates: bool,
    surroundings: Surroundings,
    /// New messages may find no room, and are taken one by one.
    may_refuse: AtomicBool,
    /// What happens to its messages is noted.
    keeps_trails: AtomicBool,
    counters: Counters,
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
    /// What it has counted, once there was something.
    rated: Option<Box<Rated>>,
}

/// What came of adding messages.
#[derive(Debug)]
pub struct Enqueued {
    /// Where they are.
    pub places: Places,
    /// Which of them the queue has refused.
    pub refused: Vec<usize>,
    /// Which of them were there already, and are to be known as safe when those before are.
    pub duplicates: bool,
    /// Which of those go back to their publisher.
    pub returned: Vec<(usize, Arc<Message>)>,
    /// The publisher has to wait; see [`Handle::holds_up`].
    pub holds_up: bool,
}

/// Where messages are that were added together.
#[derive(Debug)]
pub enum Places {
    /// In the only line, from this number on without a gap.
    From(Seq),
    /// Each for itself; nothing for those that were refused.
    Each(Vec<Option<Place>>),
}

impl Places {
    /// Where the `n`th of the messages is, unless it was refused.
    pub fn get(&self, n: usize) -> Option<Place> {
        match self {
            Places::From(first) => Some(Place { level: 0, seq: Seq(first.0 + n as u64) }),
            Places::Each(places) => places.get(n).copied().flatten(),
        }
    }
}

/// A message that waits for its time.
#[derive(Clone, Debug)]
pub struct Due {
    /// When it is due, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its number in the queue.
    pub seq: Seq,
    /// The message.
    pub message: Arc<Message>,
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
    pub fn new(
        id: QueueId,
        declaration: Declaration,
        arguments: Arguments,
        surroundings: Surroundings,
    ) -> Self {
        let now_ms = surroundings.clock.now_ms();
        let (settings, nack_is_failure) = (Arc::new(arguments.clone()), surroundings.nack_is_failure);
        let deduplicates = arguments.deduplicates;
        let declared = RwLock::new(Arc::new(Declared { table: declaration.table.clone(), arguments }));
        let may_refuse = AtomicBool::new(settings.looks_at_each());
        let keeps_trails = AtomicBool::new(settings.trace_messages == Some(true));
        let state = State::new(settings, declaration.is_kept(), nack_is_failure, now_ms);
        let state = Mutex::new(Guarded {
            state,
            timer_at_ms: u64::MAX,
            used_bytes: 0,
            has_spilled: false,
            rated: None,
        });
        surroundings.memory.enter();
        let handle = Handle(Arc::new(Queue {
            id,
            declaration,
            declared,
            deduplicates,
            surroundings,
            may_refuse,
            keeps_trails,
            counters: Counters::default(),
            state,
        }));
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

    /// Its arguments, as they are now.
    pub fn declared(&self) -> Arc<Declared> {
        self.0.declared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes its arguments; the caller sees to it that they hold.
    pub fn alter(&self, table: Table, arguments: Arguments) {
        *self.0.declared.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Declared { table, arguments });
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.declaration.name
    }

    /// When its messages are synced.
    pub fn sync(&self) -> store::SyncMode {
        self.declared().arguments.sync.unwrap_or(self.0.surroundings.sync)
    }

    /// The number under which the store has the messages of one of its lines.
    pub fn line_id(&self, level: u8, stored: Stored) -> QueueId {
        let spill = if stored == Stored::Spilled { SPILL } else { 0 };
        QueueId((self.0.id.0 + u64::from(level)) | spill)
    }

    /// All numbers under which the store keeps messages of it.
    pub fn line_ids(&self) -> impl Iterator<Item = QueueId> + use<> {
        let first = self.0.id.0;
        (first..first + self.declared().arguments.levels() as u64).map(QueueId)
    }

    /// The number under which the store has the marks of messages that can be found by an id, if this is the
    /// queue for delayed messages of an exchange: each has the number of its message.
    pub fn marks_id(&self) -> Option<QueueId> {
        self.0.declaration.is_delays.then(|| QueueId(self.0.id.0 + 1))
    }

    /// What holds for it: its arguments, and the policies.
    pub fn settings(&self) -> Arc<Arguments> {
        self.lock().state.settings().clone()
    }

    /// Other arguments hold from now on, for the messages that are there as well.
    pub fn set_settings(&self, settings: Arc<Arguments>) {
        self.0.may_refuse.store(settings.looks_at_each(), Ordering::Relaxed);
        self.0.keeps_trails.store(settings.trace_messages == Some(true), Ordering::Relaxed);
        self.act(|state, _, _| state.set_settings(settings));
    }

    /// Whether what leaves it though nobody is done with it has somewhere to go.
    pub fn has_dead_letters(&self) -> bool {
        self.lock().state.settings().dead_letter_exchange.is_some()
    }

    /// Whether so many more messages, with so many octets of bodies, would find room.
    pub fn has_room(&self, messages: u64, body_bytes: u64) -> bool {
        !self.lock().state.is_over(messages, body_bytes)
    }

    /// The same, or else the oldest messages would make room.
    pub fn takes(&self, messages: u64, body_bytes: u64) -> bool {
        let guarded = self.lock();
        !guarded.state.settings().may_refuse() || !guarded.state.is_over(messages, body_bytes)
    }

    /// What is counted of it.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Whether new messages may find no room.
    pub fn may_refuse(&self) -> bool {
        self.0.may_refuse.load(Ordering::Relaxed)
    }

    /// Whether it is noted what happens to its messages.
    #[inline]
    pub fn keeps_trails(&self) -> bool {
        self.0.keeps_trails.load(Ordering::Relaxed)
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

    /// One of its lines has messages from before the start. Reads them all if the queue has to know them again.
    pub fn restore(&self, level: u8, recovered: &RecoveredQueue) {
        if self.0.deduplicates {
            self.learn(level);
        }
        self.act(|state, _, _| state.restore(level, recovered));
    }

    fn learn(&self, level: u8) {
        const PAGE_BYTES: usize = 1 << 20;
        let queue = self.line_id(level, Stored::Kept);
        let mut run = Run { first: Seq(0), last: Seq(u64::MAX) };
        while let Ok(page) =
            self.0.surroundings.store.read_and_wait(Wanted { queue, run, bytes_max: PAGE_BYTES })
        {
            let through = page.through;
            let spilled = Page { through, ..Page::default() };
            let messages = Found { kept: page, spilled }.messages(self);
            let values = messages.iter().filter_map(|(seq, _, _, message)| {
                Some((message.deduplication_value()?, Place { level, seq: *seq }))
            });
            self.lock().state.learn(values.collect());
            if through >= run.last {
                break;
            }
            run.first = Seq(through.0 + 1);
        }
    }

    /// Leaves to the store what it can of a long queue that nobody has touched for a while, if memory is
    /// short.
    pub fn page_out(&self) {
        self.act(|_, _, _| ());
    }

    /// Adds all of these messages and delivers; some of them may be refused, or the queue must take all. `None`
    /// if the queue is gone.
    pub fn enqueue(
        &self,
        messages: &mut Vec<Arc<Message>>,
        may_refuse: bool,
        publisher: Option<&Arc<Outbox>>,
    ) -> Option<Enqueued> {
        let taken_at_ms = messages.first()?.taken_at_ms;
        self.act_at(taken_at_ms, |state, effects| {
            // What a consumer takes now makes room for the next, and what gives way depends on who came before.
            let one_by_one = may_refuse || (state.has_levels() && state.is_limited());
            let holds_up = publisher.is_some_and(|publisher| state.holds_up(publisher));
            let (mut refused, mut returned, mut duplicates) = (Vec::new(), Vec::new(), false);
            if may_refuse || state.has_levels() {
                state.begin_round();
                let mut places = Vec::with_capacity(messages.len());
                for (n, message) in messages.drain(..).enumerate() {
                    let arrival = state.arrive(message, may_refuse, publisher.is_some(), effects)?;
                    duplicates |= matches!(arrival, Arrival::Duplicate | Arrival::Returned(_));
                    places.push(match arrival {
                        Arrival::In(place) => Some(place),
                        Arrival::Refused => {
                            refused.push(n);
                            None
                        }
                        Arrival::Duplicate => None,
                        Arrival::Returned(message) => {
                            returned.push((n, message));
                            None
                        }
                    });
                    if one_by_one {
                        state.deliver(taken_at_ms, &|| Arc::new(self.clone()), effects);
                    }
                }
                let places = Places::Each(places);
                return Some(Enqueued { places, refused, duplicates, returned, holds_up });
            }
            let first = state.reserve(0, messages.len())?;
            for (seq, message) in (first.0..).zip(messages.drain(..)) {
                state.insert(Place { level: 0, seq: Seq(seq) }, message);
            }
            Some(Enqueued { places: Places::From(first), refused, duplicates, returned, holds_up })
        })
    }

    /// Whether a publisher still has to wait for the consumers, who would take more than they get. Its
    /// outbox is rung when it need not any more, but it asks again after a while in any case.
    pub fn holds_up(&self, publisher: &Arc<Outbox>) -> bool {
        self.lock().state.holds_up(publisher)
    }

    /// Takes a place for one message of this priority that will come later with [`Handle::insert`].
    pub fn reserve(&self, priority: u8) -> Option<Place> {
        self.lock().state.expect(priority, None)
    }

    /// The same for a message that is known. `None` also if the queue has one like it already.
    pub fn reserve_for(&self, message: &Arc<Message>) -> Option<Place> {
        self.lock().state.expect(message.priority, Some(message))
    }

    /// A delivered message leaves for good: if the queue has such a message once, it may come again. At once: what
    /// is published behind the settlement is none of its duplicates.
    pub fn forget(&self, entry: &Entry) {
        // Without the lock where there is nothing to forget.
        if self.0.deduplicates {
            self.lock().state.forget(entry);
        }
    }

    /// Adds messages at places that were taken for them, and delivers.
    pub fn insert(&self, messages: Vec<(Place, Arc<Message>)>) {
        let Some((_, first)) = messages.first() else { return };
        self.act_at(first.taken_at_ms, |state, _| {
            for (place, message) in messages {
                state.insert(place, message);
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

    /// Gives a consumer nothing any more; it is still there, until [`Handle::cancel`] takes it out.
    pub fn stop(&self, id: ConsumerId) {
        self.lock().state.stop(id);
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

    /// Delivered messages, with so many octets of bodies, are settled; the caller tells the store.
    pub fn settle(&self, consumer: Option<ConsumerId>, n: usize, body_bytes: u64) {
        self.act(|state, _, _| {
            state.counted.add(Count::Ack, n);
            state.settle(consumer, n, body_bytes);
        });
    }

    /// Delivered messages are rejected for good, each by the consumer that had it.
    pub fn reject(&self, entries: Vec<(Option<ConsumerId>, Entry)>) {
        self.act(|state, _, effects| state.reject(entries, effects));
    }

    /// Delivered messages come back, each with the consumer that had it. They are all in their places
    /// before anything is delivered again.
    pub fn requeue(&self, entries: Vec<(Option<ConsumerId>, Return, Entry)>) {
        self.act(|state, now_ms, effects| state.requeue(entries, now_ms, effects));
    }

    /// So many of the messages that have departed are where they belong, and the store knows.
    pub fn seen_off(&self, n: usize) {
        self.act(|state, _, _| state.seen_off(n));
    }

    /// Whether a message waits at this place that is due at this time.
    pub fn waits(&self, place: Place, due_at_ms: u64) -> bool {
        self.lock().state.waits(place, due_at_ms)
    }

    /// Which messages of its first line are due behind a time, in milliseconds since 1970, and a number: up to so
    /// many, in order. Blocks the calling thread while the store reads: for operators.
    pub fn list_due(&self, after: (u64, Seq), max: usize) -> Vec<Due> {
        let store = &self.0.surroundings.store;
        let (kept, spilled) = (self.line_id(0, Stored::Kept), self.line_id(0, Stored::Spilled));
        let mut listed = Vec::new();
        let mut wanted = DueWanted { queue: kept, after, until_ms: u64::MAX, max };
        while listed.len() < max && wanted.after < due::NEVER {
            let Ok(page) = store.due_and_wait(wanted) else { break };
            (wanted.after, wanted.max) = (page.through, max - listed.len().min(max - 1));
            listed.extend(page.entries);
        }
        let found = self.lock().state.due(listed, after, max);
        let away: Vec<Seq> =
            found.iter().filter(|(_, here)| here.is_none()).map(|((_, seq), _)| *seq).collect();
        let mut read: HashMap<Seq, Arc<Message>> = HashMap::new();
        for queue in [kept, spilled] {
            let missing: Vec<Seq> = away.iter().copied().filter(|seq| !read.contains_key(seq)).collect();
            if missing.is_empty() {
                break;
            }
            let Ok(page) = store.read_each_and_wait(WantedEach { queue, seqs: missing }) else { break };
            let nothing = Page { through: page.through, ..Page::default() };
            let messages = Found { kept: page, spilled: nothing }.messages(self);
            read.extend(messages.into_iter().map(|(seq, _, _, message)| (seq, message)));
        }
        let message = |(at_ms, seq): due::Time, here: Option<Arc<Message>>| {
            // One that has gone in the meantime is left out.
            Some(Due { at_ms, seq, message: here.or_else(|| read.get(&seq).cloned())? })
        };
        found.into_iter().filter_map(|(time, here)| message(time, here)).collect()
    }

    /// Takes out a message before its time: why the store has it. The caller tells the store, with the message
    /// `by`. `None` if it does not wait any more.
    pub fn withdraw(&self, place: Place, due_at_ms: u64, by: &Arc<Message>) -> Option<Stored> {
        self.act(|state, _, _| state.withdraw(place, due_at_ms, by))
    }

    /// Until when it was told to deliver nothing, in milliseconds since 1970; 0 if it was not. Its settings may say
    /// more.
    pub fn paused_until_ms(&self) -> u64 {
        self.lock().state.paused_until_ms()
    }

    /// Delivers nothing before this time, in milliseconds since 1970; 0 goes on at once.
    pub fn pause(&self, until_ms: u64) {
        self.act(|state, _, _| state.pause(until_ms));
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
            let spilled = self.line_ids().map(|id| QueueId(id.0 | SPILL));
            let forget = spilled.map(|queue| Operation::QueueDelete { queue }).collect();
            self.0.surroundings.store.append(forget, Urgency::Lazy);
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
        if !effects.departed.is_empty() {
            // Under the lock, so that they leave in order. It only fails when the broker has ended: the store
            // still has what it had.
            let _ = self.0.surroundings.exit.send((self.clone(), std::mem::take(&mut effects.departed)));
        }
        let has_spilled = guarded.has_spilled;
        let counted = guarded.state.counted.take();
        if !counted.is_empty() && !self.0.declaration.is_delays {
            let levels = [guarded.state.ready_count() as u64, guarded.state.unacked_count() as u64];
            guarded.rated.get_or_insert_default().add(&counted, levels, now_ms);
        }
        let kind = guarded.state.settings().kind;
        drop(guarded);
        if !self.0.declaration.is_delays {
            self.0.surroundings.tallies.queues[kind as usize].add(&counted, now_ms);
        }
        for (message, happened) in std::mem::take(&mut effects.noted) {
            let queue = self.0.declaration.name.clone();
            let step = match happened {
                Happened::Returned(how) => trail::Step::Returned { queue, how: how.name() },
                Happened::Left(reason) => trail::Step::Left { queue, reason: reason.name() },
            };
            self.0.surroundings.trails.note(message.id(), now_ms, step);
        }
        self.carry_out(effects, has_spilled);
        result
    }

    fn carry_out(&self, effects: Effects, has_spilled: bool) {
        let has_kept = self.0.declaration.is_kept();
        let mut operations = Vec::new();
        if let Some(queue) = self.marks_id().filter(|_| has_kept) {
            // First, so that no mark outlives its message.
            let here = by_level(effects.gone.clone()).map(|(_, runs)| runs);
            let away = effects.gone_away.iter().map(|(_, runs)| runs.clone());
            operations.extend(here.chain(away).map(|runs| Operation::Purge { queue, runs }));
        }
        for place in effects.delivered_through {
            let queue = self.line_id(place.level, Stored::Kept);
            operations.push(Operation::Delivered { queue, through: place.seq });
        }
        let gone = [(effects.gone, Stored::Kept), (effects.gone_spilled, Stored::Spilled)];
        for (places, stored) in gone.into_iter().filter(|(places, _)| !places.is_empty()) {
            let lines = by_level(places);
            let settle = |(level, runs)| Operation::Settle { queue: self.line_id(level, stored), runs };
            operations.extend(lines.map(settle));
        }
        for (level, runs) in effects.gone_away {
            if has_spilled {
                let queue = self.line_id(level, Stored::Spilled);
                operations.push(Operation::Purge { queue, runs: runs.clone() });
            }
            if has_kept {
                operations.push(Operation::Purge { queue: self.line_id(level, Stored::Kept), runs });
            }
        }
        for (place, returns) in effects.returned {
            let queue = self.line_id(place.level, Stored::Kept);
            let marks = SmallVec::from([(place.seq, returns.to_mark())]);
            operations.push(Operation::Mark { queue, marks });
        }
        if !operations.is_empty() {
            self.0.surroundings.store.append(operations, Urgency::Lazy);
        }
        if effects.missing > 0 {
            error!(queue = ?self, messages = effects.missing, "messages that were kept cannot be brought back");
        }
        for (level, run, bytes_max) in effects.wanted {
            self.read(level, run, bytes_max, has_spilled, move |queue, found| {
                queue.page_in(level, run, found)
            });
        }
        for (level, after, max) in effects.due {
            self.ask_due(level, after, max);
        }
        for places in
            effects.exhumed.chunk_by(|a, b| a.level == b.level).flat_map(|of| of.chunks(EXHUMED_MAX))
        {
            self.exhume(places, has_spilled);
        }
        for (level, run) in effects.uncounted {
            self.count(level, run, has_spilled, 0);
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
    fn spill(&self, guarded: &mut Guarded, messages: Vec<(Place, Arc<Message>)>) {
        let mut operations = Vec::with_capacity(messages.len() + 1);
        if !guarded.has_spilled {
            info!(queue = ?self, "memory is short: messages that are not kept are written to the store");
            guarded.has_spilled = true;
            let spilled = self.line_ids().map(|id| QueueId(id.0 | SPILL));
            operations.extend(spilled.map(|queue| Operation::QueueCreate { queue }));
        }
        for (place, message) in &messages {
            let destinations = SmallVec::from([(self.line_id(place.level, Stored::Spilled), place.seq)]);
            operations.push(Operation::Publish(publish_operation(message, destinations)));
        }
        // At once, but nobody needs a sync.
        let urgency = Urgency::Written(SyncMode::Os);
        let ticket = self.0.surroundings.store.append(operations, urgency);
        messages.iter().for_each(|(_, message)| message.stored_by.add(ticket));
    }

    /// Asks the store for messages of a line: for those that are kept first, then for those that were spilled
    /// among them. On the reading thread, if the queue still lives then.
    fn read(
        &self,
        level: u8,
        run: Run,
        bytes_max: usize,
        has_spilled: bool,
        then: impl FnOnce(Handle, Found) + Send + 'static,
    ) {
        let has_kept = self.0.declaration.is_kept();
        let handle = self.downgrade();
        let then = move |kept: Page, spilled: Page| {
            if let Some(queue) = handle.upgrade() {
                then(queue, Found { kept, spilled });
            }
        };
        let (kept_id, spill_id) = (self.line_id(level, Stored::Kept), self.line_id(level, Stored::Spilled));
        let store = self.0.surroundings.store.clone();
        let nothing = Page { through: run.last, ..Page::default() };
        let spilled = Wanted { queue: spill_id, run, bytes_max };
        let kept = Wanted { queue: kept_id, run, bytes_max };
        match (has_kept, has_spilled) {
            (true, true) => {
                let asked = store.clone();
                let then = move |kept: Page| {
                    let run = Run { last: kept.through, ..run };
                    asked.read(Wanted { run, ..spilled }, Box::new(move |spilled| then(kept, spilled)));
                };
                store.read(kept, Box::new(then));
            }
            (true, false) => store.read(kept, Box::new(move |kept| then(kept, nothing))),
            (false, _) => store.read(spilled, Box::new(move |spilled| then(nothing, spilled))),
        }
    }

    /// The store has brought messages.
    fn page_in(&self, level: u8, wanted: Run, found: Found) {
        let run = Run { first: wanted.first, last: found.through() };
        let messages = found.messages(self);
        self.act(|state, _, effects| state.page_in(level, run, messages, effects));
    }

    /// Has the store list what is due in a line behind a time.
    fn ask_due(&self, level: u8, after: due::Time, max: usize) {
        let queue = self.line_id(level, Stored::Kept);
        let wanted = DueWanted { queue, after, until_ms: u64::MAX, max };
        let handle = self.downgrade();
        let then = move |page: DuePage| {
            if let Some(queue) = handle.upgrade() {
                queue.act(|state, _, _| state.listed(level, page.entries, page.through));
            }
        };
        self.0.surroundings.store.due(wanted, Box::new(then));
    }

    /// Has messages of one line read that expired while they were away: those that are kept first, then those
    /// that were spilled.
    fn exhume(&self, places: &[Place], has_spilled: bool) {
        let Some(level) = places.first().map(|place| place.level) else { return };
        let seqs: Vec<Seq> = places.iter().map(|place| place.seq).collect();
        let wanted = |stored| WantedEach { queue: self.line_id(level, stored), seqs: seqs.clone() };
        let (kept, spilled) = (wanted(Stored::Kept), wanted(Stored::Spilled));
        let (handle, places) = (self.downgrade(), places.to_vec());
        let then = move |kept: Page, spilled: Page| {
            if let Some(queue) = handle.upgrade() {
                queue.exhumed(&places, Found { kept, spilled });
            }
        };
        let store = self.0.surroundings.store.clone();
        // Both look at all of them.
        let nothing = || Page { through: Seq(u64::MAX), ..Page::default() };
        match (self.0.declaration.is_kept(), has_spilled) {
            (true, true) => {
                let asked = store.clone();
                let then = move |kept: Page| {
                    asked.read_each(spilled, Box::new(move |spilled| then(kept, spilled)));
                };
                store.read_each(kept, Box::new(then));
            }
            (true, false) => store.read_each(kept, Box::new(move |kept| then(kept, nothing()))),
            (false, _) => store.read_each(spilled, Box::new(move |spilled| then(nothing(), spilled))),
        }
    }

    fn exhumed(&self, places: &[Place], found: Found) {
        let mut messages: HashMap<Seq, (Stored, Arc<Message>)> = found
            .messages(self)
            .into_iter()
            .map(|(seq, stored, _, message)| (seq, (stored, message)))
            .collect();
        self.act(|state, _, effects| {
            for place in places {
                state.exhumed(*place, messages.remove(&place.seq), effects);
            }
        });
    }

    /// Has the bodies of messages counted that are away.
    fn count(&self, level: u8, run: Run, has_spilled: bool, before: u64) {
        const PAGE_BYTES: usize = 1 << 20;
        self.read(level, run, PAGE_BYTES, has_spilled, move |queue, found| {
            let through = found.through();
            let sum = before + found.body_bytes();
            if through < run.last {
                let rest = Run { first: Seq(through.0 + 1), ..run };
                return queue.count(level, rest, has_spilled, sum);
            }
            queue.act(|state, _, _| state.counted(level, sum));
        });
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

/// What the store has brought of a line, up to the same number.
struct Found {
    kept: Page,
    spilled: Page,
}

impl Found {
    /// The last number that was looked at in both: what is behind it is read again.
    fn through(&self) -> Seq {
        self.kept.through.min(self.spilled.through)
    }

    fn pages(self) -> impl Iterator<Item = (store::Stored, Stored)> {
        let through = self.through();
        let stored = |stored| move |message| (message, stored);
        let kept = self.kept.messages.into_iter().map(stored(Stored::Kept));
        let spilled = self.spilled.messages.into_iter().map(stored(Stored::Spilled));
        kept.chain(spilled).filter(move |(found, _)| found.seq <= through)
    }

    fn body_bytes(self) -> u64 {
        self.pages().map(|(found, _)| found.parts[2].len() as u64).sum()
    }

    /// The messages, in order.
    fn messages(self, queue: &Handle) -> Vec<(Seq, Stored, Returns, Arc<Message>)> {
        let mut messages = Vec::with_capacity(self.kept.messages.len() + self.spilled.messages.len());
        for (found, stored) in self.pages() {
            let [address, properties, body] = found.parts;
            let parts = Parts::gathered(&address, &properties, body);
            match Message::from_parts(parts, found.timestamp_ms, found.due_at_ms) {
                Some(message) => {
                    let returns = Returns::from_mark(found.mark);
                    messages.push((found.seq, stored, returns, Arc::new(message)));
                }
                None => error!(?queue, seq = found.seq.0, "a kept message has unreadable properties"),
            }
        }
        messages.sort_unstable_by_key(|(seq, ..)| *seq);
        messages
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

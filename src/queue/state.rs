//! The state of a queue, as a machine without IO or clock: commands in, effects out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;
use store::{Run, Seq, Ticket};

use super::arguments::{Arguments, OnDuplicate, Overflow, Retry};
use super::consumers::{Consumer, Consumers};
use super::departure::{Departure, LEAVING_MAX, Reason};
use super::due::Time;
use super::effects::{Effects, Happened};
use super::known::{Known, Sight};
use super::levels::Levels;
use super::publishers::{AHEAD_BYTES_MAX, Publishers};
use super::rate::Rate;
use crate::delivery::{ConsumerId, Entry, Place, Resume, Returns, Stored};
use crate::message::Message;
use crate::outbox::Outbox;
use crate::tally::{Count, Delta};

/// A message that failed, and when it is to be delivered again.
#[derive(Debug)]
struct Resting {
    until_ms: u64,
    entry: Entry,
}

/// How much the store is given at once, in octets.
const SPILL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a queue knows of its messages and consumers.
#[derive(Debug)]
pub struct State {
    settings: Arc<Arguments>,
    /// Messages are kept across restarts: the queue is durable.
    durable: bool,
    /// A message that a consumer nacks has failed, as one that it rejects.
    nack_is_failure: bool,
    levels: Levels,
    consumers: Consumers,
    /// Those that are ahead of the consumers.
    publishers: Publishers,
    /// Connections that want a message that the store has still to bring.
    getters: Vec<Arc<Outbox>>,
    /// Delivered, or taken by basic.get, and not yet settled; and octets of their bodies.
    unacked: usize,
    unacked_body_bytes: u64,
    /// Departed, and not yet seen off.
    leaving: usize,
    /// Expired, and about to depart in this order; without those that have still to be read.
    expired: VecDeque<(Place, Option<Entry>)>,
    /// Messages that failed, by when something happens to each: it has rested, or expires before.
    resting: BTreeMap<(u64, Place), Resting>,
    /// Messages that are known again, if the queue has each only once.
    known: Known,
    /// Nothing is delivered before this time, in milliseconds since 1970; beside what the settings say.
    paused_until_ms: u64,
    /// When the pause ends that it is in.
    pause_ends_ms: Option<u64>,
    rate: Rate,
    /// The rate lets the next message go at this time.
    rate_at_ms: Option<u64>,
    /// It lets the next one leave at this time that is due already.
    release_at_ms: Option<u64>,
    /// No consumer, get or declare since then.
    unused_since_ms: u64,
    is_deleted: bool,
    /// What has been counted and is not in a tally yet.
    pub counted: Delta,
}

/// What a queue may keep in memory, and what the store can bring back.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Octets of messages that are in the store as well; no more than that stay in memory.
    pub keep_bytes: usize,
    /// Octets of messages that are not; more are given to it.
    pub keep_unstored_bytes: usize,
    /// About how many octets are brought back at once.
    pub page_bytes: usize,
    /// What the store has applied, it can bring back.
    pub applied: Ticket,
}

/// How a delivered message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Rejected, or lost with its consumer.
    Failed,
    /// Nacked.
    Nacked,
    /// Recovered: the consumer asked for it again.
    Recovered,
}

impl Return {
    /// What happened, in a word.
    pub fn name(self) -> &'static str {
        match self {
            Return::Failed => "failed",
            Return::Nacked => "nacked",
            Return::Recovered => "recovered",
        }
    }
}

/// What came of a new message.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// It has this place.
    In(Place),
    /// There is no room for it, or one like it is there and that is an error.
    Refused,
    /// One like it is there.
    Duplicate,
    /// The same, and its publisher gets it back.
    Returned(Arc<Message>),
}

/// What came of basic.get.
#[derive(Debug)]
pub enum Got {
    /// The first message, and how many are behind it.
    Message(Entry, usize),
    /// The store has still to bring it; the connection will be rung.
    Later,
    /// There is none.
    Empty,
}

/// Whether a consumer may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It has.
    Yes,
    /// It, or another, wants the queue for itself.
    ExclusiveUse,
    /// The queue is gone.
    Gone,
}

/// When a queue is to be deleted; looked at in the moment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteIf {
    /// In any case.
    Always,
    /// If it has no consumer: its last one has left.
    NoConsumer,
    /// If it has been unused for as long as it may be.
    Expired,
    /// As queue.delete asks.
    Asked {
        /// Not while it has consumers.
        if_unused: bool,
        /// Not while it has ready messages.
        if_empty: bool,
    },
}

/// Why a queue was not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is used.
    InUse,
    /// It has ready messages.
    NotEmpty,
}

/// The messages of a deleted queue. There may be millions: drop it where that holds nobody up.
#[derive(Debug)]
pub struct Dead(Levels);

impl Default for Dead {
    fn default() -> Dead {
        Dead(Levels::new(1))
    }
}

impl Dead {
    /// How many messages were ready.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl State {
    /// An empty queue.
    pub fn new(settings: Arc<Arguments>, durable: bool, nack_is_failure: bool, now_ms: u64) -> Self {
        let mut consumers = Consumers::default();
        consumers.set_rules(&settings);
        State {
            levels: Levels::new(settings.levels()),
            durable,
            nack_is_failure,
            consumers,
            publishers: Publishers::default(),
            getters: Vec::new(),
            unacked: 0,
            unacked_body_bytes: 0,
            leaving: 0,
            expired: VecDeque::new(),
            resting: BTreeMap::new(),
            known: Known::default(),
            paused_until_ms: 0,
            pause_ends_ms: None,
            rate: Rate::default(),
            rate_at_ms: None,
            release_at_ms: None,
            unused_since_ms: now_ms,
            is_deleted: false,
            counted: Delta::default(),
            settings,
        }
    }

    /// Other arguments hold from now on, for the messages that are there as well.
    pub fn set_settings(&mut self, settings: Arc<Arguments>) {
        self.levels.grow(settings.levels());
        self.consumers.set_rules(&settings);
        self.settings = settings;
        let message_ttl_ms = self.settings.message_ttl_ms;
        for (_, level) in self.levels.iter_mut() {
            level.ready.set_ttl(message_ttl_ms);
        }
        for (_, mut resting) in std::mem::take(&mut self.resting) {
            resting.entry.expires_at_ms = resting.entry.message.expires_at_ms_within(message_ttl_ms);
            self.rest(resting);
        }
    }

    /// A message is not delivered for a while. It may expire while it rests.
    fn rest(&mut self, resting: Resting) {
        let at_ms = resting.until_ms.min(resting.entry.expires_at_ms);
        self.resting.insert((at_ms, resting.entry.place()), resting);
    }

    /// What holds for it now.
    pub fn settings(&self) -> &Arc<Arguments> {
        &self.settings
    }

    /// Ready messages.
    pub fn ready_count(&self) -> usize {
        self.levels.len()
    }

    /// Delivered and not yet settled.
    pub fn unacked_count(&self) -> usize {
        self.unacked
    }

    /// When it was last used, in milliseconds since 1970.
    pub fn unused_since_ms(&self) -> u64 {
        self.unused_since_ms
    }

    /// Messages that failed, and rest.
    pub fn resting_count(&self) -> usize {
        self.resting.len()
    }

    /// How many lines it has.
    pub fn line_count(&self) -> usize {
        self.levels.count()
    }

    /// What waits in a line: the messages in memory between two numbers, in order, so many at most; and the run of
    /// those that are away.
    pub fn waiting(&self, level: u8, from: Seq, through: Seq, max: usize) -> (Vec<Entry>, Option<Run>) {
        let line = self.levels.line(level);
        line.map_or_else(Default::default, |line| (line.between(from, through, max), line.away()))
    }

    /// Whether a message waits at this place and is away.
    pub fn has_away(&self, place: Place) -> bool {
        self.levels.line(place.level).is_some_and(|line| line.has(place.seq) && line.get(place.seq).is_none())
    }

    /// Whether the store says that what stands at this place may have been delivered before the start.
    pub fn was_delivered(&self, place: Place) -> bool {
        self.levels.delivered_below(place.level).is_some_and(|below| place.seq < below)
    }

    /// What its consumers are and have.
    pub fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// Octets of the bodies of messages that are delivered and not settled.
    pub fn unacked_body_bytes(&self) -> u64 {
        self.unacked_body_bytes
    }

    /// How many ready messages are in the store and not in memory.
    pub fn away_count(&self) -> usize {
        self.levels.away_count()
    }

    /// Octets of the bodies of ready messages, so far as they are known.
    pub fn ready_body_bytes(&self) -> u64 {
        self.levels.body_bytes()
    }

    /// The message that is first, if it is in memory.
    pub fn head(&self) -> Option<&Arc<Message>> {
        self.levels.head()
    }

    /// Consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// Whether messages stand in several lines.
    pub fn has_levels(&self) -> bool {
        self.levels.are_several()
    }

    /// Takes numbers for `n` messages of a line. `None` if the queue is gone.
    pub fn reserve(&mut self, level: u8, n: usize) -> Option<Seq> {
        (!self.is_deleted).then(|| self.levels.at(level).reserve(n))
    }

    /// Takes a place for a message that will come later, perhaps later than others behind it. `None` if the
    /// queue is gone, or knows one of this value.
    pub fn expect(&mut self, priority: u8, message: Option<&Arc<Message>>) -> Option<Place> {
        let value = message.and_then(|message| Some((self.value_of(message)?, message)));
        if value.is_some_and(|(value, _)| self.known.look(value) == Sight::Known) {
            return None;
        }
        self.known.begin_round();
        let level = self.levels.of(priority);
        let place = Place { level, seq: self.reserve(level, 1)? };
        value.into_iter().for_each(|(value, message)| self.know(value, place, message));
        self.levels.at(level).ready.expect(place.seq);
        Some(place)
    }

    /// Adds a message at a place that was taken for it.
    pub fn insert(&mut self, place: Place, message: Arc<Message>) {
        if !self.is_deleted {
            self.counted.add(Count::Publish, 1);
            let entry = self.entry(place, message);
            self.levels.insert(entry);
        }
    }

    /// Adds a new message, unless there is no room and it is the new ones that give way.
    ///
    /// Some are let in in any case, unless it `may_refuse` them; from a `publisher` it refuses those that are like
    /// one that may still be on its way to the store.
    pub fn arrive(
        &mut self,
        message: Arc<Message>,
        may_refuse: bool,
        from_publisher: bool,
        effects: &mut Effects,
    ) -> Option<Arrival> {
        if self.is_deleted {
            return None;
        }
        if may_refuse && self.settings.may_refuse() && self.is_over(1, message.parts.body().len() as u64) {
            if self.settings.overflow == Some(Overflow::RejectPublishDlx)
                && self.settings.dead_letter_exchange.is_some()
            {
                self.turn_away(message, Reason::MaxLen, effects);
            }
            return Some(Arrival::Refused);
        }
        let value = self.value_of(&message);
        match value.map_or(Sight::New, |value| self.known.look(value)) {
            Sight::Known => return Some(self.duplicate(message, effects)),
            Sight::OnItsWay if from_publisher => return Some(Arrival::Refused),
            // Two are better than none.
            Sight::OnItsWay | Sight::New => {}
        }
        let level = self.levels.of(message.priority);
        let place = Place { level, seq: self.reserve(level, 1)? };
        value.into_iter().for_each(|value| self.know(value, place, &message));
        self.insert(place, message);
        Some(Arrival::In(place))
    }

    /// What comes from now on is told to the store later than what came before.
    pub fn begin_round(&mut self) {
        self.known.begin_round();
    }

    fn know(&mut self, value: u128, place: Place, message: &Arc<Message>) {
        let kept = Some(message).filter(|message| self.durable && message.persistent);
        self.known.insert(value, place, kept);
    }

    /// One like this message is there already.
    fn duplicate(&mut self, message: Arc<Message>, effects: &mut Effects) -> Arrival {
        match self.settings.on_duplicate {
            OnDuplicate::Nack => return Arrival::Refused,
            OnDuplicate::Return => return Arrival::Returned(message),
            OnDuplicate::DeadLetter if self.settings.dead_letter_exchange.is_some() => {
                self.turn_away(message, Reason::Rejected, effects);
            }
            OnDuplicate::Ack | OnDuplicate::DeadLetter => {}
        }
        Arrival::Duplicate
    }

    /// A new message is a dead letter before it has a place.
    fn turn_away(&mut self, message: Arc<Message>, reason: Reason, effects: &mut Effects) {
        let place = Place { level: 0, seq: Seq(0) };
        self.note(&message, Happened::Left(reason), effects);
        let entry = Entry { stored: Stored::No, ..self.entry(place, message) };
        self.leaving += 1;
        effects.departed.push(Departure { entry, reason, is_newcomer: true });
    }

    /// By which a message is known again, if this queue looks at that.
    fn value_of(&self, message: &Message) -> Option<u128> {
        if self.settings.deduplicates { message.deduplication_value() } else { None }
    }

    /// A message leaves for good, and is not known again.
    pub fn forget(&mut self, entry: &Entry) {
        if let Some(value) = self.value_of(&entry.message) {
            self.known.remove(value, entry.place());
        }
    }

    /// Messages of before a start are known again.
    pub fn learn(&mut self, values: Vec<(u128, Place)>) {
        values.into_iter().for_each(|(value, place)| self.known.insert(value, place, None));
    }

    /// The messages of a line of before a start; they stay in the store until somebody wants them.
    pub fn restore(&mut self, level: u8, recovered: &store::RecoveredQueue) {
        self.levels.at(level).restore(recovered);
    }

    fn entry(&self, place: Place, message: Arc<Message>) -> Entry {
        Entry {
            seq: place.seq,
            level: place.level,
            returns: Returns::default(),
            redelivered: false,
            stored: if self.durable && message.persistent { Stored::Kept } else { Stored::No },
            expires_at_ms: message.expires_at_ms_within(self.settings.message_ttl_ms),
            message,
        }
    }

    /// The store has brought what is live in a run, in order: numbers, why it had them, and messages.
    pub fn page_in(
        &mut self,
        level: u8,
        run: Run,
        messages: Vec<(Seq, Stored, Returns, Arc<Message>)>,
        effects: &mut Effects,
    ) {
        self.levels.at(level).is_reading = false;
        if self.is_deleted {
            return;
        }
        let delivered_below = self.levels.at(level).delivered_below;
        let entries: Vec<Entry> = messages
            .into_iter()
            .map(|(seq, stored, returns, message)| {
                let redelivered = stored == Stored::Kept && seq < delivered_below;
                Entry { stored, redelivered, returns, ..self.entry(Place { level, seq }, message) }
            })
            .collect();
        effects.missing = self.levels.at(level).ready.page_in(run, entries);
        effects.ring.append(&mut self.getters);
    }

    /// Whether it has to be known how large messages are, and is not yet.
    fn must_count(&self) -> bool {
        self.settings.body_bytes_max.is_some() && self.levels.are_uncounted()
    }

    /// The bodies of all messages of a line that are away have been counted.
    pub fn counted(&mut self, level: u8, body_bytes: u64) {
        let line = self.levels.at(level);
        (line.is_reading, line.is_counting) = (false, false);
        line.ready.counted(body_bytes);
    }

    /// The store has listed messages of a line that are due, up to a time.
    pub fn listed(&mut self, level: u8, entries: Vec<Time>, through: Time) {
        self.levels.at(level).ready.due().listed(entries, through);
    }

    /// Keeps what is in memory within bounds, and asks for what will be wanted.
    pub fn turn_pages(&mut self, allowance: Allowance, effects: &mut Effects) {
        let spills = self.levels.bytes() > allowance.keep_unstored_bytes;
        if spills || self.levels.stored_bytes() > allowance.keep_bytes {
            self.levels.page_out(allowance.keep_bytes, allowance.applied, spills);
        }
        if spills {
            effects.spill = self.levels.spill(allowance.keep_bytes, SPILL_BYTES_MAX);
        }
        let is_wanted_now = self.settings.message_ttl_ms.is_some()
            || !self.consumers.is_empty()
            || !self.getters.is_empty()
            || self.is_over(0, 0);
        let has_consumers = !self.consumers.is_empty();
        let must_count = self.settings.body_bytes_max.is_some();
        for (level, line) in self.levels.iter_mut() {
            let due = line.ready.due();
            due.is_applied(allowance.applied);
            if let Some(after) = due.wanted() {
                effects.due.push((level, after, due.page()));
            }
            let Some(run) = line.ready.away().filter(|_| !line.is_reading) else { continue };
            if must_count && line.ready.is_uncounted() {
                (line.is_reading, line.is_counting) = (true, true);
                effects.uncounted.push((level, run));
                continue;
            }
            let is_wanted = match line.ready.has_next() {
                true => has_consumers && line.ready.front_bytes() < allowance.page_bytes / 2,
                false => is_wanted_now,
            };
            if is_wanted {
                line.is_reading = true;
                effects.wanted.push((level, run, allowance.page_bytes));
            }
        }
    }

    /// What its ready messages take in memory, in octets, about.
    pub fn bytes(&self) -> usize {
        self.levels.bytes()
    }

    /// Whether a publisher, whom it remembers, is to wait for the consumers, or for messages to be seen off.
    pub fn holds_up(&mut self, publisher: &Arc<Outbox>) -> bool {
        let is_held = self.publishers.holds(publisher);
        let bytes_max = if is_held { AHEAD_BYTES_MAX / 2 } else { AHEAD_BYTES_MAX };
        let is_ahead =
            (self.levels.bytes() > bytes_max && self.consumers.has_starving()) || self.is_crowded();
        match (is_ahead, is_held) {
            (true, false) => self.publishers.hold(publisher),
            (false, true) => self.publishers.forget(publisher),
            _ => {}
        }
        is_ahead
    }

    /// Lets publishers go on once the consumers have caught up: one at a time, since each comes with a
    /// batch, or all if there is nobody to wait for.
    pub fn release_publishers(&mut self, effects: &mut Effects) {
        if self.publishers.is_empty() || self.is_crowded() {
            return;
        }
        let is_awaited = self.levels.has_next() && self.consumers.has_starving();
        if is_awaited && self.levels.bytes() > AHEAD_BYTES_MAX / 2 {
            return;
        }
        let n = if is_awaited { 1 } else { usize::MAX };
        self.publishers.release(n, &mut effects.ring);
    }

    /// A publisher waits no more.
    pub fn let_go(&mut self, publisher: &Arc<Outbox>) {
        self.publishers.forget(publisher);
    }

    /// Hands ready messages to consumers that can take them. A message that is due goes to a consumer
    /// that is ready for it in the moment it arrives (a time to live of 0), but not later.
    pub fn deliver(&mut self, now_ms: u64, resume: &dyn Fn() -> Arc<dyn Resume>, effects: &mut Effects) {
        if self.levels.next_due().is_some_and(|due| due < now_ms) {
            self.expire(now_ms - 1, effects);
        }
        // They go to a consumer that waits, before it is seen whether there is room for them.
        self.wake_rested(now_ms, false);
        self.rate_at_ms = None;
        self.pause_ends_ms = Some(self.pause_until_ms()).filter(|until_ms| *until_ms > now_ms);
        let deduplicates = self.settings.deduplicates;
        let mut through: SmallVec<[Place; 1]> = SmallVec::new();
        while self.pause_ends_ms.is_none()
            && !self.consumers.is_empty()
            && let Some(expires_at_ms) = self.levels.next_expires_at_ms()
        {
            if expires_at_ms < now_ms {
                // It is not due in its turn: it was taken before others that came earlier.
                if self.is_crowded() {
                    break;
                }
                let entry = self.levels.pop().expect("there is a next one");
                self.depart(entry, Reason::Expired, effects);
                continue;
            }
            if self.settings.delivery_rate.is_some()
                && let Err(at_ms) = self.rate.check(now_ms)
            {
                self.rate_at_ms = Some(at_ms);
                break;
            }
            let Some(turn) = self.consumers.next(now_ms, resume) else { break };
            let entry = self.levels.pop().expect("there is a next one");
            if let Some(per_second) = self.settings.delivery_rate {
                self.rate.take(per_second, now_ms);
            }
            let (place, stored) = (entry.place(), entry.stored);
            let body_bytes = entry.message.parts.body().len() as u64;
            let value = if deduplicates { entry.message.deduplication_value() } else { None };
            if entry.redelivered {
                self.counted.add_redelivery(entry.returns.acquired);
            }
            if turn.give(entry) {
                self.counted.add(Count::DeliverNoAck, 1);
                value.into_iter().for_each(|value| self.known.remove(value, place));
                effects.is_gone_from(place, stored);
                continue;
            }
            self.counted.add(Count::Deliver, 1);
            self.unacked += 1;
            self.unacked_body_bytes += body_bytes;
            if stored == Stored::Kept {
                match through.iter_mut().find(|other| other.level == place.level) {
                    Some(other) => other.seq = other.seq.max(place.seq),
                    None => through.push(place),
                }
            }
        }
        through.into_iter().for_each(|place| self.mark_delivered(place, effects));
        self.consumers.send(&mut effects.ring);
        self.expire(now_ms, effects);
        self.drop_excess(effects);
    }

    /// Lets go of the messages that are due, so far as they can be seen off, and wakes those that have rested.
    pub fn expire(&mut self, now_ms: u64, effects: &mut Effects) {
        self.wake_rested(now_ms, true);
        self.release_at_ms = None;
        if self.must_count() {
            // Nobody could say whether what expired now has been counted.
            return;
        }
        while !self.is_crowded()
            && self.may_release(now_ms)
            && let Some((place, here)) = self.levels.pop_expired(now_ms)
        {
            let must_read = self.settings.dead_letter_exchange.is_some()
                || self.settings.body_bytes_max.is_some()
                || self.settings.deduplicates;
            match here {
                // Those behind one that has to be read wait for it: they leave in the order of their time.
                Some(entry) if self.expired.is_empty() => self.depart(entry, Reason::Expired, effects),
                Some(entry) => self.expired.push_back((place, Some(entry))),
                None if must_read => {
                    self.expired.push_back((place, None));
                    effects.exhumed.push(place);
                }
                None => {
                    self.levels.at(place.level).ready.left_away(place.seq, None);
                    effects.are_gone_away(place.level, Run { first: place.seq, last: place.seq });
                }
            }
        }
    }

    /// Whether the rate lets one more message go that is due.
    fn may_release(&mut self, now_ms: u64) -> bool {
        let Some(per_second) = self.settings.release_rate else { return true };
        if self.levels.next_due().is_none_or(|due| due > now_ms) {
            return true;
        }
        match self.rate.check(now_ms) {
            Ok(()) => {
                self.rate.take(per_second, now_ms);
                true
            }
            Err(at_ms) => {
                self.release_at_ms = Some(at_ms);
                false
            }
        }
    }

    /// A message that expired while it was away has been read; nothing if it is not there any more.
    pub fn exhumed(&mut self, place: Place, found: Option<(Stored, Arc<Message>)>, effects: &mut Effects) {
        let at = self.expired.iter().position(|(other, entry)| *other == place && entry.is_none());
        let Some(at) = at else { return };
        match found {
            Some((stored, message)) => {
                let body_bytes = message.parts.body().len() as u64;
                self.levels.at(place.level).ready.left_away(place.seq, Some(body_bytes));
                self.expired[at].1 = Some(Entry { stored, ..self.entry(place, message) });
            }
            None => {
                self.expired.remove(at);
                self.known.retain(|known| known != place);
            }
        }
        while let Some((_, first)) = self.expired.front_mut()
            && let Some(entry) = first.take()
        {
            self.expired.pop_front();
            self.depart(entry, Reason::Expired, effects);
        }
    }

    /// A message leaves though nobody is done with it. It is gone at once if it has nowhere to go.
    fn depart(&mut self, entry: Entry, reason: Reason, effects: &mut Effects) {
        self.forget(&entry);
        self.note(&entry.message, Happened::Left(reason), effects);
        if self.settings.dead_letter_exchange.is_none() || self.is_deleted {
            return effects.is_gone(&entry);
        }
        self.leaving += 1;
        effects.departed.push(Departure { entry, reason, is_newcomer: false });
    }

    /// Something happens to a message, which may be of interest.
    fn note(&self, message: &Arc<Message>, happened: Happened, effects: &mut Effects) {
        if self.settings.trace_messages == Some(true) {
            effects.noted.push((message.clone(), happened));
        }
    }

    /// Whether as many messages are on their way out as may be.
    fn is_crowded(&self) -> bool {
        self.leaving + self.expired.len() > LEAVING_MAX
    }

    /// So many of the messages that have departed are where they belong.
    pub fn seen_off(&mut self, n: usize) {
        self.leaving = self.leaving.saturating_sub(n);
    }

    /// Whether there would be more than there may be, with so many more messages and octets of bodies.
    pub fn is_over(&self, messages: u64, body_bytes: u64) -> bool {
        let (length_max, bytes_max) = (self.settings.length_max, self.settings.body_bytes_max);
        length_max.is_some_and(|max| self.levels.len() as u64 + messages > max)
            || bytes_max.is_some_and(|max| self.levels.body_bytes() + body_bytes > max)
    }

    /// Whether there is a limit to what it holds.
    pub fn is_limited(&self) -> bool {
        self.settings.length_max.is_some() || self.settings.body_bytes_max.is_some()
    }

    /// Makes room at the head.
    fn drop_excess(&mut self, effects: &mut Effects) {
        if self.settings.may_refuse() {
            return;
        }
        if self.settings.message_ttl_ms.is_some() && self.levels.has_unseen_head() {
            // Its messages may have expired, and take no room then. They are being read.
            return;
        }
        while self.is_over(0, 0)
            && let Some(entry) = self.levels.pop()
        {
            self.depart(entry, Reason::MaxLen, effects);
        }
    }

    fn mark_delivered(&mut self, through: Place, effects: &mut Effects) {
        let level = self.levels.at(through.level);
        if through.seq.0 > level.marked_delivered {
            level.marked_delivered = through.seq.0;
            effects.delivered_through.push(through);
        }
    }

    /// Adds a consumer.
    pub fn consume(&mut self, consumer: Consumer) -> Joined {
        if self.is_deleted {
            return Joined::Gone;
        }
        let is_single = self.settings.single_active_consumer == Some(true);
        let wants_alone = consumer.exclusive && (is_single || !self.consumers.is_empty());
        if self.consumers.has_exclusive() || wants_alone {
            return Joined::ExclusiveUse;
        }
        self.consumers.add(consumer);
        Joined::Yes
    }

    /// Gives a consumer nothing any more.
    pub fn stop(&mut self, id: ConsumerId) {
        self.consumers.stop(id);
    }

    /// Takes a consumer out; true if it was the last one.
    pub fn cancel(&mut self, id: ConsumerId, now_ms: u64) -> bool {
        let was_there = self.consumers.remove(id).is_some();
        self.touch(now_ms);
        was_there && self.consumers.is_empty()
    }

    /// Takes the first message by basic.get. If it has still to be read, `outbox` is rung then.
    pub fn get(&mut self, no_ack: bool, outbox: &Arc<Outbox>, now_ms: u64, effects: &mut Effects) -> Got {
        self.touch(now_ms);
        self.expire(now_ms, effects);
        if self.pause_until_ms() > now_ms {
            self.counted.add(Count::GetEmpty, 1);
            return Got::Empty;
        }
        let Some(entry) = self.levels.pop() else {
            if self.levels.is_empty() {
                self.counted.add(Count::GetEmpty, 1);
                return Got::Empty;
            }
            self.getters.push(outbox.clone());
            return Got::Later;
        };
        if entry.redelivered {
            self.counted.add_redelivery(entry.returns.acquired);
        }
        if no_ack {
            self.counted.add(Count::GetNoAck, 1);
            self.forget(&entry);
            effects.is_gone(&entry);
        } else {
            self.counted.add(Count::Get, 1);
            self.unacked += 1;
            self.unacked_body_bytes += entry.message.parts.body().len() as u64;
            if entry.stored == Stored::Kept {
                self.mark_delivered(entry.place(), effects);
            }
        }
        Got::Message(entry, self.levels.len())
    }

    /// `n` delivered messages, with so many octets of bodies, are settled: acknowledged, or gone for good.
    pub fn settle(&mut self, consumer: Option<ConsumerId>, n: usize, body_bytes: u64) {
        self.unacked = self.unacked.saturating_sub(n);
        self.unacked_body_bytes = self.unacked_body_bytes.saturating_sub(body_bytes);
        if let Some(id) = consumer {
            self.consumers.settled(id, n as u32);
        }
    }

    /// Delivered messages are rejected for good, each by the consumer that had it.
    pub fn reject(&mut self, entries: Vec<(Option<ConsumerId>, Entry)>, effects: &mut Effects) {
        for (consumer, entry) in entries {
            self.settle(consumer, 1, entry.message.parts.body().len() as u64);
            self.depart(entry, Reason::Rejected, effects);
        }
    }

    /// Delivered messages come back, to their old places, each with the consumer that had it.
    pub fn requeue(
        &mut self,
        entries: Vec<(Option<ConsumerId>, Return, Entry)>,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        for (consumer, how, mut entry) in entries {
            self.settle(consumer, 1, entry.message.parts.body().len() as u64);
            if self.is_deleted {
                continue;
            }
            entry.redelivered = true;
            self.note(&entry.message, Happened::Returned(how), effects);
            // A policy may have changed it while the message was out.
            entry.expires_at_ms = entry.message.expires_at_ms_within(self.settings.message_ttl_ms);
            if self.settings.counts_deliveries() {
                self.count_return(&mut entry, how, effects);
                if self.settings.delivery_limit().is_some_and(|limit| entry.returns.failed > limit) {
                    self.depart(entry, Reason::DeliveryLimit, effects);
                    continue;
                }
                if let Some(rest_ms) = self.rest_ms(&entry, how) {
                    self.rest(Resting { until_ms: now_ms.saturating_add(rest_ms), entry });
                    continue;
                }
            }
            self.levels.insert(entry);
        }
    }

    fn count_return(&self, entry: &mut Entry, how: Return, effects: &mut Effects) {
        let returns = &mut entry.returns;
        returns.acquired = returns.acquired.saturating_add(1);
        if how == Return::Failed || self.nack_is_failure {
            returns.failed = returns.failed.saturating_add(1);
        }
        if entry.stored == Stored::Kept {
            effects.returned.push((entry.place(), entry.returns));
        }
    }

    fn rest_ms(&self, entry: &Entry, how: Return) -> Option<u64> {
        let rests = match self.settings.retry? {
            Retry::Disabled => false,
            Retry::All => true,
            Retry::Failed => how == Return::Failed,
            Retry::Returned => how != Return::Failed,
        };
        if rests { self.settings.rest_ms(entry.returns.acquired) } else { None }
    }

    /// Puts those back into line that have rested; with `expired`, those as well whose time is over.
    fn wake_rested(&mut self, now_ms: u64, expired: bool) {
        let mut dying = Vec::new();
        while let Some(first) = self.resting.first_entry()
            && first.key().0 <= now_ms
        {
            let (key, resting) = first.remove_entry();
            if expired || resting.entry.expires_at_ms > now_ms {
                self.levels.insert(resting.entry);
            } else {
                dying.push((key, resting));
            }
        }
        self.resting.extend(dying);
    }

    /// A consumer that could take nothing may try again.
    pub fn resume(&mut self, id: ConsumerId) {
        self.consumers.resume(id);
    }

    /// Changes how many unacknowledged messages a consumer takes.
    pub fn set_prefetch(&mut self, id: ConsumerId, prefetch: u16) {
        self.consumers.set_prefetch(id, prefetch);
    }

    /// Until when it delivers nothing, whoever says so, in milliseconds since 1970.
    pub fn pause_until_ms(&self) -> u64 {
        self.paused_until_ms.max(self.settings.pause_until_ms.unwrap_or_default())
    }

    /// Until when it was told to deliver nothing, in milliseconds since 1970.
    pub fn paused_until_ms(&self) -> u64 {
        self.paused_until_ms
    }

    /// Delivers nothing before this time, in milliseconds since 1970; 0 goes on at once.
    pub fn pause(&mut self, until_ms: u64) {
        self.paused_until_ms = until_ms;
    }

    /// Whether a message waits at this place that is due at this time.
    pub fn waits(&mut self, place: Place, due_at_ms: u64) -> bool {
        !self.is_deleted && self.levels.at(place.level).ready.waits((due_at_ms, place.seq))
    }

    /// Which messages of the first line are due behind a time, of those that the store lists and those that it does
    /// not list: up to so many, in order, each with itself unless it is away.
    pub fn due(&mut self, listed: Vec<Time>, after: Time, max: usize) -> Vec<(Time, Option<Arc<Message>>)> {
        let ready = &self.levels.at(0).ready;
        let mut times: Vec<Time> = listed.into_iter().filter(|time| ready.waits(*time)).collect();
        times.extend(ready.unlisted(after, max));
        times.sort_unstable();
        times.dedup();
        times.truncate(max);
        let here = |time: Time| (time, ready.get(time.1).map(|entry| entry.message.clone()));
        times.into_iter().map(here).collect()
    }

    /// Takes out a message before its time, of which the store is told with `by`: why the store has it. `None`
    /// if it does not wait any more.
    pub fn withdraw(&mut self, place: Place, due_at_ms: u64, by: &Arc<Message>) -> Option<Stored> {
        if self.is_deleted {
            return None;
        }
        self.levels.at(place.level).ready.withdraw((due_at_ms, place.seq), by)
    }

    /// Lets go of all ready messages; says how many.
    pub fn purge(&mut self, now_ms: u64, effects: &mut Effects) -> usize {
        self.expire(now_ms, effects);
        let levels = &mut self.levels;
        self.known.retain(|place| !levels.at(place.level).ready.has(place.seq));
        let mut purged = 0;
        for (level, line) in self.levels.iter_mut() {
            let (n, stored, away) = line.ready.drain();
            stored.into_iter().for_each(|(seq, stored)| effects.is_gone_from(Place { level, seq }, stored));
            away.iter().for_each(|run| effects.are_gone_away(level, run));
            purged += n;
        }
        purged
    }

    /// Ends the queue, if the condition holds: what was ready, and who was consuming.
    pub fn delete(&mut self, condition: DeleteIf, now_ms: u64) -> Result<(Dead, Vec<Consumer>), Kept> {
        match condition {
            DeleteIf::Always => {}
            DeleteIf::NoConsumer if self.consumers.is_empty() => {}
            DeleteIf::Expired if self.is_expired(now_ms) => {}
            DeleteIf::NoConsumer | DeleteIf::Expired => return Err(Kept::InUse),
            DeleteIf::Asked { if_empty, .. } if if_empty && !self.levels.is_empty() => {
                return Err(Kept::NotEmpty);
            }
            DeleteIf::Asked { if_unused, .. } if if_unused && !self.consumers.is_empty() => {
                return Err(Kept::InUse);
            }
            DeleteIf::Asked { .. } => {}
        }
        self.is_deleted = true;
        self.resting.clear();
        self.expired.clear();
        self.getters.drain(..).for_each(|outbox| outbox.ring());
        let levels = std::mem::replace(&mut self.levels, Levels::new(1));
        Ok((Dead(levels), self.consumers.drain()))
    }

    /// The queue has been used in a way that defers its expiry.
    pub fn touch(&mut self, now_ms: u64) {
        self.unused_since_ms = self.unused_since_ms.max(now_ms);
    }

    /// Whether the queue has been unused for as long as it may be.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    fn expires_at_ms(&self) -> Option<u64> {
        let expires_ms = self.settings.expires_ms.filter(|_| self.consumers.is_empty())?;
        Some(self.unused_since_ms.saturating_add(expires_ms))
    }

    /// When time will next change something by itself.
    pub fn next_due(&self) -> Option<u64> {
        if self.is_deleted {
            return None;
        }
        // What cannot be seen off yet is looked at again when something has been, and all when it is counted.
        let can_expire = !self.is_crowded() && !self.must_count();
        let due = self.levels.next_due().filter(|_| can_expire);
        let due = due.map(|at_ms| at_ms.max(self.release_at_ms.unwrap_or_default()));
        let resting = self.resting.keys().next().map(|(at_ms, _)| *at_ms);
        let has_ready = !self.levels.is_empty();
        let paused = self.pause_ends_ms.filter(|_| has_ready);
        let rates = [self.rate_at_ms, self.consumers.next_due()].into_iter().flatten().min();
        let times = [due, resting, paused, rates.filter(|_| has_ready), self.expires_at_ms()];
        times.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    //! The machine beside a naive model: a list of ready numbers and a list of what each consumer holds.

    use super::super::ready::tests::entry;
    use super::*;
    use crate::delivery::{ChannelCredit, ConnectionId, Delivery};
    use crate::outbox::Event;
    use crate::parts::Parts;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Command {
        Enqueue(usize),
        Consume { prefetch: u16, no_ack: bool, priority: i64 },
        Cancel(usize),
        Settle { consumer: usize, n: usize },
        Requeue { consumer: usize, n: usize },
        Get { no_ack: bool },
        Purge,
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            4 => (1usize..6).prop_map(Command::Enqueue),
            2 => (0u16..4, any::<bool>(), 0i64..2)
                .prop_map(|(prefetch, no_ack, priority)| Command::Consume { prefetch, no_ack, priority }),
            1 => (0usize..4).prop_map(Command::Cancel),
            4 => (0usize..4, 1usize..4).prop_map(|(consumer, n)| Command::Settle { consumer, n }),
            2 => (0usize..4, 1usize..4).prop_map(|(consumer, n)| Command::Requeue { consumer, n }),
            1 => any::<bool>().prop_map(|no_ack| Command::Get { no_ack }),
            1 => Just(Command::Purge),
        ]
    }

    fn consumer(id: ConsumerId, no_ack: bool, prefetch: u16, outbox: &Arc<Outbox>) -> Consumer {
        Consumer {
            id,
            connection: ConnectionId(1),
            channel: 1,
            no_ack,
            exclusive: false,
            priority: 0,
            prefetch,
            credit: Arc::new(ChannelCredit::default()),
            outbox: outbox.clone(),
            tag: "c".into(),
            arguments: Arc::default(),
        }
    }

    /// A queue with one consumer and 20 MiB in pieces of 512 KiB.
    fn long_queue(no_ack: bool, prefetch: u16, outbox: &Arc<Outbox>) -> State {
        let mut state = State::new(Arc::default(), false, true, 0);
        let body = bytes::Bytes::from(vec![0; 512 * 1024]);
        for _ in 0..40 {
            let message =
                Message::from_parts(Parts::gathered(&[0, 0], &[0, 0], body.clone()), 0, None).unwrap();
            let seq = state.reserve(0, 1).unwrap();
            state.insert(Place { level: 0, seq }, Arc::new(message));
        }
        state.consume(consumer(ConsumerId(1), no_ack, prefetch, outbox));
        state.deliver(0, &|| Arc::new(Nobody), &mut Effects::default());
        state
    }

    #[test]
    fn publishers_wait_for_consumers_that_would_take_more_and_go_on_one_by_one() {
        let (outbox, publishers) = (Outbox::new(), [Outbox::new(), Outbox::new()]);
        let mut state = long_queue(true, 0, &outbox);
        assert!(publishers.iter().all(|publisher| state.holds_up(publisher)));

        let mut rung: Vec<Arc<Outbox>> = Vec::new();
        while rung.is_empty() {
            assert!(publishers.iter().all(|publisher| state.holds_up(publisher)));
            for (_, id) in outbox.take(&mut Vec::new()) {
                state.resume(id);
            }
            let mut effects = Effects::default();
            state.deliver(0, &|| Arc::new(Nobody), &mut effects);
            state.release_publishers(&mut effects);
            rung = effects.ring.into_iter().filter(|other| !Arc::ptr_eq(other, &outbox)).collect();
        }

        assert!(state.levels.bytes() <= AHEAD_BYTES_MAX / 2 && state.levels.has_next());
        assert!(rung.len() == 1 && Arc::ptr_eq(&rung[0], &publishers[0]));
    }

    #[test]
    fn no_publisher_waits_for_a_consumer_that_is_slow_itself() {
        let (outbox, publisher) = (Outbox::new(), Outbox::new());
        let mut state = long_queue(true, 0, &outbox);
        outbox.set_clogged(true);
        assert!(!state.holds_up(&publisher));
        outbox.set_clogged(false);
        assert!(state.holds_up(&publisher));

        assert!(!long_queue(false, 1, &Outbox::new()).holds_up(&publisher));
    }

    struct Nobody;
    impl Resume for Nobody {
        fn resume(&self, _: ConsumerId) {}
    }

    struct Held {
        id: ConsumerId,
        prefetch: u16,
        no_ack: bool,
        is_gone: bool,
        outbox: Arc<Outbox>,
        entries: Vec<Entry>,
    }

    struct Bench {
        state: State,
        consumers: Vec<Held>,
        /// Numbers that are ready, in order.
        ready: Vec<u64>,
        /// Numbers that were delivered before.
        delivered: Vec<u64>,
        gone: Vec<Place>,
    }

    impl Bench {
        fn run(&mut self, command: Command) {
            let mut effects = Effects::default();
            match command {
                Command::Enqueue(n) => {
                    let first = self.state.reserve(0, n).unwrap().0;
                    for seq in first..first + n as u64 {
                        let place = Place { level: 0, seq: Seq(seq) };
                        self.state.insert(place, entry(seq, u64::MAX).message);
                        self.ready.push(seq);
                    }
                }
                Command::Consume { prefetch, no_ack, priority } => {
                    let (id, outbox) = (ConsumerId(self.consumers.len() as u64), Outbox::new());
                    let new = consumer(id, no_ack, prefetch, &outbox);
                    let joined = self.state.consume(Consumer { priority, ..new });
                    assert_eq!(joined, Joined::Yes);
                    let entries = Vec::new();
                    self.consumers.push(Held { id, prefetch, no_ack, is_gone: false, outbox, entries });
                }
                Command::Cancel(at) => {
                    if let Some(held) = self.consumers.get_mut(at).filter(|h| !h.is_gone) {
                        self.state.cancel(held.id, 0);
                        held.is_gone = true;
                    }
                }
                Command::Settle { consumer, n } => {
                    if let Some(held) = self.consumers.get_mut(consumer) {
                        let n = n.min(held.entries.len());
                        held.entries.drain(..n);
                        self.state.settle(Some(held.id), n, 0);
                    }
                }
                Command::Requeue { consumer, n } => {
                    if let Some(held) = self.consumers.get_mut(consumer) {
                        let n = n.min(held.entries.len());
                        let back: Vec<Entry> = held.entries.drain(..n).collect();
                        self.ready.extend(back.iter().map(|e| e.seq.0));
                        self.ready.sort_unstable();
                        let back = back.into_iter().map(|e| (Some(held.id), Return::Nacked, e)).collect();
                        self.state.requeue(back, 0, &mut effects);
                    }
                }
                Command::Get { no_ack } => {
                    let got = match self.state.get(no_ack, &Outbox::new(), 0, &mut effects) {
                        Got::Message(entry, remaining) => Some((entry.seq.0, remaining)),
                        Got::Later | Got::Empty => None,
                    };
                    let expected = (!self.ready.is_empty()).then(|| self.ready.remove(0));
                    assert_eq!(got, expected.map(|seq| (seq, self.ready.len())));
                    self.delivered.extend(expected);
                    if !no_ack && expected.is_some() {
                        self.state.settle(None, 1, 0);
                    }
                }
                Command::Purge => {
                    assert_eq!(self.state.purge(0, &mut effects), self.ready.len());
                    self.ready.clear();
                }
            }
            self.state.deliver(0, &|| Arc::new(Nobody), &mut effects);
            self.gone.extend(effects.gone);
            self.collect();
        }

        fn collect(&mut self) {
            for held in &mut self.consumers {
                let mut events = Vec::new();
                let _ = held.outbox.take(&mut events);
                let mut last = 0;
                for event in events {
                    let Event::Deliver(Delivery { consumer, entry, .. }) = event else { panic!("{event:?}") };
                    let seq = entry.seq.0;
                    assert_eq!(consumer, held.id);
                    assert!(!held.is_gone, "{seq} went to a consumer that was gone");
                    assert!(seq > last, "{seq} came after {last} in one round");
                    last = seq;
                    let at = self.ready.binary_search(&seq).expect("it was ready");
                    self.ready.remove(at);
                    assert_eq!(entry.redelivered, self.delivered.contains(&seq));
                    self.delivered.push(seq);
                    if held.no_ack {
                        assert!(self.gone.contains(&entry.place()));
                    } else {
                        held.entries.push(entry);
                    }
                }
                let fits = held.no_ack || held.prefetch == 0 || held.entries.len() <= held.prefetch.into();
                assert!(fits, "more than its prefetch is out");
            }
        }

        fn check(&self) {
            let unacked: usize = self.consumers.iter().map(|h| h.entries.len()).sum();
            assert_eq!(self.state.unacked_count(), unacked);
            assert_eq!(self.state.ready_count(), self.ready.len());
            let takes =
                |h: &Held| !h.is_gone && (h.no_ack || h.prefetch == 0 || h.entries.len() < h.prefetch.into());
            let is_idle = self.ready.is_empty() || !self.consumers.iter().any(takes);
            assert!(is_idle, "a message is ready and a consumer with credit does not get it");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn the_machine_does_what_the_naive_model_says(
            commands in proptest::collection::vec(command(), 1..80)
        ) {
            let mut bench = Bench {
                state: State::new(Arc::default(), true, true, 0),
                consumers: Vec::new(),
                ready: Vec::new(),
                delivered: Vec::new(),
                gone: Vec::new(),
            };
            for command in commands {
                bench.run(command);
                bench.check();
            }
        }
    }
}

//! The state of a queue, as a machine without IO or clock: commands in, effects out.

use std::sync::Arc;

use store::{Run, Runs, Seq, Ticket};

use super::arguments::Arguments;
use super::consumers::{Consumer, Consumers};
use super::publishers::{AHEAD_BYTES_MAX, Publishers};
use super::ready::Ready;
use crate::delivery::{ConsumerId, Entry, Resume, Stored};
use crate::message::Message;
use crate::outbox::Outbox;

/// What a command asks its caller to do once the queue's lock is released.
#[derive(Debug, Default)]
pub struct Effects {
    /// Kept messages that are gone from the queue.
    pub gone: Vec<Seq>,
    /// The same for spilled ones.
    pub gone_spilled: Vec<Seq>,
    /// What the store is to be given, for want of memory.
    pub spill: Vec<(Seq, Arc<Message>)>,
    /// The same for messages that were not in memory.
    pub gone_away: Runs,
    /// What the store is to bring: live messages of this run, and about how many octets of them.
    pub wanted: Option<(Run, usize)>,
    /// Stored messages up to here have been handed to a consumer that will acknowledge them.
    pub delivered_through: Option<Seq>,
    /// So many messages were counted on and are not in the store.
    pub missing: u64,
    /// Connections with something new in their outboxes.
    pub ring: Vec<Arc<Outbox>>,
}

impl Effects {
    fn is_gone(&mut self, seq: Seq, stored: Stored) {
        match stored {
            Stored::No => {}
            Stored::Kept => self.gone.push(seq),
            Stored::Spilled => self.gone_spilled.push(seq),
        }
    }
}

/// How much the store is given at once, in octets.
const SPILL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a queue knows of its messages and consumers.
#[derive(Debug)]
pub struct State {
    arguments: Arguments,
    /// Messages are kept across restarts: the queue is durable.
    durable: bool,
    ready: Ready,
    consumers: Consumers,
    /// Those that are ahead of the consumers.
    publishers: Publishers,
    next_seq: u64,
    /// Messages from before the start may have been delivered before it, up to here.
    delivered_below: Seq,
    /// The store has been asked for more messages.
    is_reading: bool,
    /// Connections that want a message that the store has still to bring.
    getters: Vec<Arc<Outbox>>,
    /// Delivered, or taken by basic.get, and not yet settled.
    unacked: usize,
    /// The store has been told that messages up to here were delivered.
    marked_delivered: u64,
    /// No consumer, get or declare since then.
    unused_since_ms: u64,
    is_deleted: bool,
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
#[derive(Debug, Default)]
pub struct Dead(Ready);

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
    /// An empty queue whose next message will be number `next_seq`.
    pub fn new(arguments: Arguments, durable: bool, next_seq: Seq, now_ms: u64) -> Self {
        State {
            arguments,
            durable,
            ready: Ready::default(),
            consumers: Consumers::default(),
            publishers: Publishers::default(),
            next_seq: next_seq.0,
            delivered_below: Seq(0),
            is_reading: false,
            getters: Vec::new(),
            unacked: 0,
            marked_delivered: 0,
            unused_since_ms: now_ms,
            is_deleted: false,
        }
    }

    /// Ready messages.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Delivered and not yet settled.
    pub fn unacked_count(&self) -> usize {
        self.unacked
    }

    /// Consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// Takes numbers for `n` messages. `None` if the queue is gone.
    pub fn reserve(&mut self, n: usize) -> Option<Seq> {
        if self.is_deleted {
            return None;
        }
        let first = self.next_seq;
        self.next_seq += n as u64;
        Some(Seq(first))
    }

    /// A message will come under a number that was reserved, perhaps later than others.
    pub fn expect(&mut self, seq: Seq) {
        self.ready.expect(seq);
    }

    /// Adds a message under a number that was reserved for it.
    pub fn insert(&mut self, seq: Seq, message: Arc<Message>) {
        if !self.is_deleted {
            let entry = self.entry(seq, message, false);
            self.ready.insert(entry);
        }
    }

    /// The messages of before a start; they stay in the store until somebody wants them.
    pub fn restore(&mut self, recovered: &store::RecoveredQueue, due: Vec<(u64, Seq)>) {
        self.delivered_below = recovered.delivered_below;
        if recovered.live > 0 {
            let run = Run { first: recovered.first, last: Seq(recovered.next_seq.0 - 1) };
            self.ready.restore(run, recovered.live, due);
        }
    }

    fn entry(&self, seq: Seq, message: Arc<Message>, redelivered: bool) -> Entry {
        let ttl_ms = match (message.ttl_ms, self.arguments.message_ttl_ms) {
            (Some(own), Some(queue)) => Some(own.min(queue)),
            (own, queue) => own.or(queue),
        };
        Entry {
            seq,
            redelivered,
            stored: if self.durable && message.persistent { Stored::Kept } else { Stored::No },
            expires_at_ms: ttl_ms.map_or(u64::MAX, |ttl| message.taken_at_ms.saturating_add(ttl)),
            message,
        }
    }

    /// The store has brought what is live in a run, in order: numbers, why it had them, and messages.
    pub fn page_in(&mut self, run: Run, messages: Vec<(Seq, Stored, Arc<Message>)>, effects: &mut Effects) {
        self.is_reading = false;
        if self.is_deleted {
            return;
        }
        let delivered_below = self.delivered_below;
        let entries: Vec<Entry> = messages
            .into_iter()
            .map(|(seq, stored, message)| {
                let redelivered = stored == Stored::Kept && seq < delivered_below;
                Entry { stored, ..self.entry(seq, message, redelivered) }
            })
            .collect();
        effects.missing = self.ready.page_in(run, entries);
        effects.ring.append(&mut self.getters);
    }

    /// Keeps what is in memory within bounds, and asks for what will be wanted.
    pub fn turn_pages(&mut self, allowance: Allowance, effects: &mut Effects) {
        let spills = self.ready.bytes() > allowance.keep_unstored_bytes;
        if spills || self.ready.stored_bytes() > allowance.keep_bytes {
            self.ready.page_out(allowance.keep_bytes, allowance.applied, spills);
        }
        if spills {
            effects.spill = self.ready.spill(allowance.keep_bytes, SPILL_BYTES_MAX);
        }
        let Some(run) = self.ready.away().filter(|_| !self.is_reading) else { return };
        let is_wanted = match self.ready.has_next() {
            true => !self.consumers.is_empty() && self.ready.front_bytes() < allowance.page_bytes / 2,
            false => {
                let has_ttl = self.arguments.message_ttl_ms.is_some();
                has_ttl || !self.consumers.is_empty() || !self.getters.is_empty()
            }
        };
        if is_wanted {
            self.is_reading = true;
            effects.wanted = Some((run, allowance.page_bytes));
        }
    }

    /// What its ready messages take in memory, in octets, about.
    pub fn bytes(&self) -> usize {
        self.ready.bytes()
    }

    /// Whether a publisher, whom it remembers, is to wait for the consumers.
    pub fn holds_up(&mut self, publisher: &Arc<Outbox>) -> bool {
        let is_held = self.publishers.holds(publisher);
        let bytes_max = if is_held { AHEAD_BYTES_MAX / 2 } else { AHEAD_BYTES_MAX };
        let is_ahead = self.ready.bytes() > bytes_max && self.consumers.has_starving();
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
        if self.publishers.is_empty() {
            return;
        }
        let is_awaited = self.ready.has_next() && self.consumers.has_starving();
        if is_awaited && self.ready.bytes() > AHEAD_BYTES_MAX / 2 {
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
        if self.ready.next_due().is_some_and(|due| due < now_ms) {
            self.expire(now_ms - 1, effects);
        }
        let mut through = self.marked_delivered;
        while self.ready.has_next() {
            let Some(turn) = self.consumers.next(resume) else { break };
            let entry = self.ready.pop().expect("there is a next one");
            let (seq, stored) = (entry.seq, entry.stored);
            let is_settled = turn.give(entry);
            if is_settled {
                effects.is_gone(seq, stored);
            } else {
                self.unacked += 1;
                if stored == Stored::Kept {
                    through = through.max(seq.0);
                }
            }
        }
        self.mark_delivered(through, effects);
        self.consumers.send(&mut effects.ring);
        self.expire(now_ms, effects);
    }

    /// Lets go of the messages that are due.
    pub fn expire(&mut self, now_ms: u64, effects: &mut Effects) {
        while let Some((seq, stored)) = self.ready.pop_expired(now_ms) {
            match stored {
                Some(stored) => effects.is_gone(seq, stored),
                None => effects.gone_away.push(seq),
            }
        }
    }

    fn mark_delivered(&mut self, through: u64, effects: &mut Effects) {
        if through > self.marked_delivered {
            self.marked_delivered = through;
            effects.delivered_through = Some(Seq(through));
        }
    }

    /// Adds a consumer.
    pub fn consume(&mut self, consumer: Consumer) -> Joined {
        if self.is_deleted {
            return Joined::Gone;
        }
        if self.consumers.has_exclusive() || (consumer.exclusive && !self.consumers.is_empty()) {
            return Joined::ExclusiveUse;
        }
        self.consumers.add(consumer);
        Joined::Yes
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
        let Some(entry) = self.ready.pop() else {
            if self.ready.is_empty() {
                return Got::Empty;
            }
            self.getters.push(outbox.clone());
            return Got::Later;
        };
        if !no_ack {
            self.unacked += 1;
            if entry.stored == Stored::Kept {
                self.mark_delivered(entry.seq.0.max(self.marked_delivered), effects);
            }
        } else {
            effects.is_gone(entry.seq, entry.stored);
        }
        Got::Message(entry, self.ready.len())
    }

    /// `n` delivered messages are settled: acknowledged, or rejected for good.
    pub fn settle(&mut self, consumer: Option<ConsumerId>, n: usize) {
        self.unacked = self.unacked.saturating_sub(n);
        if let Some(id) = consumer {
            self.consumers.settled(id, n as u32);
        }
    }

    /// Delivered messages come back, to their old places, each with the consumer that had it.
    pub fn requeue(&mut self, entries: Vec<(Option<ConsumerId>, Entry)>) {
        for (consumer, entry) in entries {
            self.settle(consumer, 1);
            if !self.is_deleted {
                self.ready.insert(Entry { redelivered: true, ..entry });
            }
        }
    }

    /// A consumer that could take nothing may try again.
    pub fn resume(&mut self, id: ConsumerId) {
        self.consumers.resume(id);
    }

    /// Changes how many unacknowledged messages a consumer takes.
    pub fn set_prefetch(&mut self, id: ConsumerId, prefetch: u16) {
        self.consumers.set_prefetch(id, prefetch);
    }

    /// Lets go of all ready messages; says how many.
    pub fn purge(&mut self, now_ms: u64, effects: &mut Effects) -> usize {
        self.expire(now_ms, effects);
        let (n, stored, away) = self.ready.drain();
        stored.into_iter().for_each(|(seq, stored)| effects.is_gone(seq, stored));
        away.iter().for_each(|run| effects.gone_away.push_run(run));
        n
    }

    /// Ends the queue, if the condition holds: what was ready, and who was consuming.
    pub fn delete(&mut self, condition: DeleteIf, now_ms: u64) -> Result<(Dead, Vec<Consumer>), Kept> {
        match condition {
            DeleteIf::Always => {}
            DeleteIf::NoConsumer if self.consumers.is_empty() => {}
            DeleteIf::Expired if self.is_expired(now_ms) => {}
            DeleteIf::NoConsumer | DeleteIf::Expired => return Err(Kept::InUse),
            DeleteIf::Asked { if_empty, .. } if if_empty && !self.ready.is_empty() => {
                return Err(Kept::NotEmpty);
            }
            DeleteIf::Asked { if_unused, .. } if if_unused && !self.consumers.is_empty() => {
                return Err(Kept::InUse);
            }
            DeleteIf::Asked { .. } => {}
        }
        self.is_deleted = true;
        self.getters.drain(..).for_each(|outbox| outbox.ring());
        Ok((Dead(std::mem::take(&mut self.ready)), self.consumers.drain()))
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
        let expires_ms = self.arguments.expires_ms.filter(|_| self.consumers.is_empty())?;
        Some(self.unused_since_ms.saturating_add(expires_ms))
    }

    /// When time will next change something by itself.
    pub fn next_due(&self) -> Option<u64> {
        if self.is_deleted {
            return None;
        }
        [self.ready.next_due(), self.expires_at_ms()].into_iter().flatten().min()
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
        }
    }

    /// A queue with one consumer and 20 MiB in pieces of 512 KiB.
    fn long_queue(no_ack: bool, prefetch: u16, outbox: &Arc<Outbox>) -> State {
        let mut state = State::new(Arguments::default(), false, Seq(1), 0);
        let body = bytes::Bytes::from(vec![0; 512 * 1024]);
        for _ in 0..40 {
            let message = Message::from_parts(Parts::gathered(&[0, 0], &[0, 0], body.clone()), 0).unwrap();
            let seq = state.reserve(1).unwrap();
            state.insert(seq, Arc::new(message));
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

        assert!(state.ready.bytes() <= AHEAD_BYTES_MAX / 2 && state.ready.has_next());
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
        gone: Vec<Seq>,
    }

    impl Bench {
        fn run(&mut self, command: Command) {
            let mut effects = Effects::default();
            match command {
                Command::Enqueue(n) => {
                    let first = self.state.reserve(n).unwrap().0;
                    for seq in first..first + n as u64 {
                        self.state.insert(Seq(seq), entry(seq, u64::MAX).message);
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
                        self.state.settle(Some(held.id), n);
                    }
                }
                Command::Requeue { consumer, n } => {
                    if let Some(held) = self.consumers.get_mut(consumer) {
                        let n = n.min(held.entries.len());
                        let back: Vec<Entry> = held.entries.drain(..n).collect();
                        self.ready.extend(back.iter().map(|e| e.seq.0));
                        self.ready.sort_unstable();
                        self.state.requeue(back.into_iter().map(|e| (Some(held.id), e)).collect());
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
                        self.state.settle(None, 1);
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
                        assert!(self.gone.contains(&entry.seq));
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
                state: State::new(Arguments::default(), true, Seq(1), 0),
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

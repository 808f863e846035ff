//! The consumers of a queue: who may take the next message, in fair turns, or one of them at a time.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use amqp::Table;
use store::Seq;

use super::arguments::{Arguments, Dispatch};
use super::rate::Rate;
use crate::delivery::{ChannelCredit, ConnectionId, ConsumerId, Delivery, Entry, Resume, Waiting};
use crate::outbox::{Event, Outbox};

/// What a consumer is made with.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its number.
    pub id: ConsumerId,
    /// Whose it is.
    pub connection: ConnectionId,
    /// Its channel on that connection.
    pub channel: u16,
    /// Messages are settled when they are sent.
    pub no_ack: bool,
    /// Nobody else may consume from the queue.
    pub exclusive: bool,
    /// Those with a higher one get messages first, while they can take them.
    pub priority: i64,
    /// How many unacknowledged messages it takes; 0 for any number. Without effect under `no_ack`.
    pub prefetch: u16,
    /// The limit that it shares with the other consumers of its channel.
    pub credit: Arc<ChannelCredit>,
    /// Where its deliveries go.
    pub outbox: Arc<Outbox>,
    /// Its name on its channel.
    pub tag: Arc<str>,
    /// What it was asked for with.
    pub arguments: Arc<Table>,
}

/// All consumers of a queue. Those that can take a message stand in line, one line a priority; each gets
/// one and goes to the back. Those that cannot are out of the line until something changes for them.
#[derive(Debug, Default)]
pub struct Consumers {
    members: Vec<Member>,
    /// Numbers of those who can take a message, next one first; the highest priority comes first.
    lines: Vec<(i64, VecDeque<ConsumerId>)>,
    rules: Rules,
    /// How long each may keep a delivery, in milliseconds.
    timeout_ms: Option<u64>,
    /// The one that gets everything, where only one does.
    active: Option<ConsumerId>,
    /// The rate lets one of those go on at this time that it holds back.
    rate_at_ms: Option<u64>,
}

/// What the queue's arguments say of its consumers.
#[derive(Debug, Default)]
struct Rules {
    is_single: bool,
    is_least_loaded: bool,
    /// How many messages a second each of them gets.
    per_second: Option<u64>,
}

#[derive(Debug)]
struct Member {
    consumer: Consumer,
    /// Delivered and not yet settled. Not counted under `no_ack`.
    out: u32,
    is_in_line: bool,
    /// It is about to go and gets nothing any more, but nobody has taken its place yet.
    is_stopped: bool,
    /// There was no room in its outbox.
    is_stalled: bool,
    rate: Rate,
    /// It has had as many as its rate allows.
    is_rated: bool,
    /// Deliveries of this round, put into the outbox at its end.
    parcel: Vec<Delivery>,
    parcel_bytes: usize,
}

impl Member {
    fn has_credit(&self) -> bool {
        let consumer = &self.consumer;
        let has_room = consumer.no_ack || consumer.prefetch == 0 || self.out < consumer.prefetch.into();
        has_room && !self.is_stopped
    }
}

impl Consumers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether one of them would take more at once, if its connection came to giving it more.
    pub fn has_starving(&self) -> bool {
        self.members.iter().any(|m| m.is_stalled && !m.consumer.outbox.is_clogged())
    }

    /// Whether one of them has the queue for itself.
    pub fn has_exclusive(&self) -> bool {
        self.members.iter().any(|m| m.consumer.exclusive)
    }

    /// What the queue's arguments say of its consumers holds from now on.
    pub fn set_rules(&mut self, settings: &Arguments) {
        let timeout_ms = settings.consumer_timeout_ms;
        for consumer in self.members.iter().map(|m| &m.consumer).filter(|_| self.timeout_ms != timeout_ms) {
            let (channel, id) = (consumer.channel, consumer.id);
            consumer.outbox.send(Event::Timeout { channel, consumer: id, timeout_ms });
        }
        self.timeout_ms = timeout_ms;
        self.rules = Rules {
            is_single: settings.single_active_consumer == Some(true),
            is_least_loaded: settings.dispatch == Some(Dispatch::LeastLoaded),
            per_second: settings.consumer_delivery_rate,
        };
        self.lines.clear();
        self.rate_at_ms = None;
        for member in &mut self.members {
            (member.is_in_line, member.is_rated) = (false, false);
        }
        self.active = self.active.filter(|_| self.rules.is_single).or_else(|| self.successor());
        (0..self.members.len()).for_each(|at| self.line_up(at));
    }

    /// Who gets everything when nobody does: the first of those with the highest priority.
    fn successor(&self) -> Option<ConsumerId> {
        if !self.rules.is_single {
            return None;
        }
        let highest = self.members.iter().map(|m| m.consumer.priority).max()?;
        self.members.iter().map(|m| &m.consumer).find(|c| c.priority == highest).map(|c| c.id)
    }

    /// When the rate lets one of those go on that it holds back, in milliseconds since 1970.
    pub fn next_due(&self) -> Option<u64> {
        self.rate_at_ms
    }

    /// Adds one at the back of the line.
    pub fn add(&mut self, consumer: Consumer) {
        if self.rules.is_single {
            self.active.get_or_insert(consumer.id);
        }
        self.members.push(Member {
            consumer,
            out: 0,
            is_in_line: false,
            is_stopped: false,
            is_stalled: false,
            rate: Rate::default(),
            is_rated: false,
            parcel: Vec::new(),
            parcel_bytes: 0,
        });
        self.line_up(self.members.len() - 1);
    }

    /// Gives one nothing any more. Where one consumer gets everything nobody does, until it is taken out.
    pub fn stop(&mut self, id: ConsumerId) {
        if let Some(at) = self.position(id) {
            let member = &mut self.members[at];
            (member.is_stopped, member.is_stalled) = (true, false);
        }
    }

    /// Takes one out; its unsettled messages stay with its channel.
    pub fn remove(&mut self, id: ConsumerId) -> Option<Consumer> {
        let at = self.position(id)?;
        self.lines.iter_mut().for_each(|(_, line)| line.retain(|&other| other != id));
        self.lines.retain(|(_, line)| !line.is_empty());
        let removed = self.members.remove(at).consumer;
        if self.active == Some(id) {
            self.active = self.successor();
            if let Some(at) = self.active.and_then(|id| self.position(id)) {
                self.line_up(at);
            }
        }
        Some(removed)
    }

    /// Takes all of them out.
    pub fn drain(&mut self) -> Vec<Consumer> {
        self.lines.clear();
        self.active = None;
        self.members.drain(..).map(|m| m.consumer).collect()
    }

    /// A consumer has settled `n` messages.
    pub fn settled(&mut self, id: ConsumerId, n: u32) {
        let Some(at) = self.position(id) else { return };
        let member = &mut self.members[at];
        member.out = member.out.saturating_sub(n);
        self.line_up(at);
    }

    /// Something else that held a consumer back has changed.
    pub fn resume(&mut self, id: ConsumerId) {
        if let Some(at) = self.position(id) {
            self.line_up(at);
        }
    }

    /// Changes how many unacknowledged messages a consumer takes.
    pub fn set_prefetch(&mut self, id: ConsumerId, prefetch: u16) {
        if let Some(at) = self.position(id) {
            self.members[at].consumer.prefetch = prefetch;
            self.line_up(at);
        }
    }

    fn line_up(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.is_stalled = false;
        let may = !self.rules.is_single || self.active == Some(member.consumer.id);
        if may && !member.is_in_line && !member.is_rated && member.has_credit() {
            member.is_in_line = true;
            let (id, priority) = (member.consumer.id, member.consumer.priority);
            self.line_of(priority).push_back(id);
        }
    }

    fn line_of(&mut self, priority: i64) -> &mut VecDeque<ConsumerId> {
        let at = self.lines.partition_point(|(p, _)| *p > priority);
        if self.lines.get(at).is_none_or(|(p, _)| *p != priority) {
            self.lines.insert(at, (priority, VecDeque::new()));
        }
        &mut self.lines[at].1
    }

    /// All of them, each with how many messages it has not settled, and whether it gets any.
    pub fn iter(&self) -> impl Iterator<Item = (&Consumer, u32, bool)> {
        self.members.iter().map(|member| {
            let is_active = !self.rules.is_single || self.active == Some(member.consumer.id);
            (&member.consumer, member.out, is_active)
        })
    }

    /// The one that gets everything, where only one does.
    pub fn single_active(&self) -> Option<&Consumer> {
        let active = self.active.filter(|_| self.rules.is_single)?;
        self.members.iter().map(|member| &member.consumer).find(|consumer| consumer.id == active)
    }

    fn position(&self, id: ConsumerId) -> Option<usize> {
        self.members.iter().position(|m| m.consumer.id == id)
    }

    /// The next consumer that can take a message now. It has been charged for one, so it must get it.
    pub fn next(&mut self, now_ms: u64, resume: &dyn Fn() -> Arc<dyn Resume>) -> Option<Turn<'_>> {
        if self.rate_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.let_rated_go_on(now_ms);
        }
        loop {
            let first = self.lines.iter().position(|(_, line)| !line.is_empty())?;
            if self.rules.is_least_loaded {
                self.least_loaded_first(first);
            }
            let id = *self.lines[first].1.front()?;
            let at = self.position(id)?;
            let per_second = self.rules.per_second;
            let member = &mut self.members[at];
            let waiting = || -> Waiting { (resume(), id) };
            let has_credit = member.has_credit();
            let rate = per_second.map_or(Ok(()), |_| member.rate.check(now_ms));
            if let Err(at_ms) = rate {
                member.is_rated = true;
                self.rate_at_ms = Some(self.rate_at_ms.map_or(at_ms, |other| other.min(at_ms)));
            }
            let may = has_credit && !member.is_rated;
            let (outbox, bytes) = (&member.consumer.outbox, member.parcel_bytes);
            member.is_stalled = may && !outbox.has_room_for(bytes) && outbox.stall(bytes, waiting);
            let is_ready =
                may && !member.is_stalled && (member.consumer.no_ack || member.consumer.credit.take(waiting));
            let line = &mut self.lines[first].1;
            line.pop_front();
            if is_ready {
                line.push_back(id);
                if let Some(per_second) = per_second {
                    member.rate.take(per_second, now_ms);
                }
                return Some(Turn { member: &mut self.members[at] });
            }
            member.is_in_line = false;
        }
    }

    /// Those whose rate lets them go on get into line again.
    fn let_rated_go_on(&mut self, now_ms: u64) {
        self.rate_at_ms = None;
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if !member.is_rated {
                continue;
            }
            match member.rate.check(now_ms) {
                Ok(()) => {
                    member.is_rated = false;
                    self.line_up(at);
                }
                Err(at_ms) => {
                    self.rate_at_ms = Some(self.rate_at_ms.map_or(at_ms, |other| other.min(at_ms)));
                }
            }
        }
    }

    /// Puts the one with the fewest unsettled messages to the front of a line; the first of them if there
    /// are several.
    fn least_loaded_first(&mut self, line: usize) {
        let out = |id: ConsumerId| self.members.iter().find(|m| m.consumer.id == id).map_or(0, |m| m.out);
        let least = self.lines[line].1.iter().enumerate().min_by_key(|(_, id)| out(**id)).map(|(at, _)| at);
        if let Some(id) = least.and_then(|at| self.lines[line].1.remove(at)) {
            self.lines[line].1.push_front(id);
        }
    }

    /// Puts what each consumer got in this round into its outbox, once for all of it, and names the
    /// outboxes to ring.
    pub fn send(&mut self, ring: &mut Vec<Arc<Outbox>>) {
        for at in 0..self.members.len() {
            let (member, others) = self.members[at..].split_first_mut().expect("it is one of them");
            if member.parcel.is_empty() {
                continue;
            }
            // Consumers of one connection get their messages in the queue's order, across them as well.
            let outbox = &member.consumer.outbox;
            let mut bytes = std::mem::take(&mut member.parcel_bytes);
            let mut is_mixed = false;
            let same = others.iter_mut().filter(|m| Arc::ptr_eq(&m.consumer.outbox, outbox));
            for other in same.filter(|m| !m.parcel.is_empty()) {
                member.parcel.append(&mut other.parcel);
                bytes += std::mem::take(&mut other.parcel_bytes);
                is_mixed = true;
            }
            // What one consumer got is in order.
            if is_mixed {
                member.parcel.sort_by_key(rank);
            }
            outbox.deliver(&mut member.parcel, bytes);
            ring.push(outbox.clone());
        }
    }
}

/// Where a message stands among those of its round: the highest priority first, and then its number.
fn rank(delivery: &Delivery) -> (Reverse<u8>, Seq) {
    (Reverse(delivery.entry.level), delivery.entry.seq)
}

/// The right of a consumer to one message.
pub struct Turn<'a> {
    member: &'a mut Member,
}

impl Turn<'_> {
    /// Hands the message over; true if that settles it.
    pub fn give(self, entry: Entry) -> bool {
        let member = self.member;
        let no_ack = member.consumer.no_ack;
        if !no_ack {
            member.out += 1;
        }
        member.parcel_bytes += entry.message.wire_bytes();
        let (channel, consumer) = (member.consumer.channel, member.consumer.id);
        member.parcel.push(Delivery { channel, consumer, entry });
        no_ack
    }
}

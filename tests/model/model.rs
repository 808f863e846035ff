//! A queue as one would write it on a napkin: lists of messages, gone through from front to back.
//!
//! The model says which messages are handed over, in order, and who may get them; which of several consumers
//! that may gets one is the broker's to choose, as long as it is fair.

use crate::settings::{Overflow, Retry, Rules, Settings};

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Also the order in which they came.
    pub number: u64,
    pub level: u8,
    pub priority: u8,
    pub persistent: bool,
    pub bytes: usize,
    pub taken_at_ms: u64,
    pub expiration_ms: Option<u64>,
    /// Counts and reasons, the newest first.
    pub deaths: Vec<(i64, &'static str)>,
    pub redelivered: bool,
    /// Somebody had it who was to acknowledge it.
    pub was_out: bool,
    pub acquired: i64,
    pub failed: i64,
}

/// A consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    pub name: String,
    pub peer: usize,
    pub no_ack: bool,
    pub prefetch: usize,
    pub priority: i64,
    /// Those who got a message while this one could have had it, since it got its last one.
    overtaken_by: Vec<String>,
}

/// A message that somebody has and has not settled.
#[derive(Clone, Debug)]
pub struct Held {
    pub peer: usize,
    pub tag: u64,
    pub consumer: Option<String>,
    pub message: Message,
}

/// A dead letter that has to be in the other queue.
#[derive(Clone, Debug)]
pub struct Dead {
    pub message: Message,
    pub exchange: &'static str,
    pub key: &'static str,
    /// The step in which it died; in some, the order is the broker's.
    pub step: u64,
    pub any_order: bool,
}

/// How a message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Failed,
    Nacked,
    Recovered,
}

/// A delivery as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub number: u64,
    pub peer: usize,
    pub consumer: String,
    pub tag: u64,
    pub redelivered: bool,
}

#[derive(Debug)]
pub struct Model {
    settings: Settings,
    rules: Rules,
    pub now_ms: u64,
    pub step: u64,
    /// In the order in which they will leave.
    pub ready: Vec<Message>,
    /// Messages that rest, and until when.
    pub resting: Vec<(u64, Message)>,
    pub held: Vec<Held>,
    /// In the order in which they came.
    pub consumers: Vec<Consumer>,
    active: Option<String>,
    /// Handed over; who got them is still to be seen.
    pub leaving: Vec<Message>,
    /// Who got them is not the model's to check.
    pub is_any_turn: bool,
    pub dead: Vec<Dead>,
    /// Some messages may be in the store alone, which makes their expiry slower than that of others.
    pub is_any_away: bool,
}

impl Model {
    pub fn new(settings: &Settings, now_ms: u64) -> Model {
        Model {
            settings: settings.clone(),
            rules: settings.rules.clone(),
            now_ms,
            step: 0,
            ready: Vec::new(),
            resting: Vec::new(),
            held: Vec::new(),
            consumers: Vec::new(),
            active: None,
            leaving: Vec::new(),
            is_any_turn: false,
            dead: Vec::new(),
            is_any_away: settings.memory_bytes.is_some(),
        }
    }

    // What holds ------------------------------------------------------------------------------------

    fn deadline_ms(&self, message: &Message) -> u64 {
        let ttl_ms = message.expiration_ms.into_iter().chain(self.rules.ttl_ms).min();
        ttl_ms.map_or(u64::MAX, |ttl_ms| message.taken_at_ms + ttl_ms)
    }

    fn may_refuse(&self) -> bool {
        matches!(self.rules.overflow, Some(Overflow::RejectPublish | Overflow::RejectPublishDlx))
            && (self.rules.length_max.is_some() || self.rules.bytes_max.is_some())
    }

    pub fn ready_bytes(&self) -> u64 {
        self.ready.iter().map(|message| message.bytes as u64).sum()
    }

    fn is_over(&self, messages: u64, bytes: u64) -> bool {
        self.rules.length_max.is_some_and(|max| self.ready.len() as u64 + messages > max)
            || self.rules.bytes_max.is_some_and(|max| self.ready_bytes() + bytes > max)
    }

    fn delivery_limit(&self) -> Option<i64> {
        let by_default = self.settings.quorum && self.rules.dead_letter_exchange.is_some();
        self.rules.delivery_limit.map(|limit| limit as i64).or(by_default.then_some(20))
    }

    fn counts_deliveries(&self) -> bool {
        self.settings.quorum || self.rules.delivery_limit.is_some() || self.settings.rest.is_some()
    }

    fn rest_ms(&self, message: &Message, how: How) -> Option<u64> {
        let rest = self.settings.rest?;
        let rests = match rest.retry {
            Retry::All => true,
            Retry::Failed => how == How::Failed,
            Retry::Returned => how != How::Failed,
        };
        let times = message.acquired as u64;
        let ms = match rest.doubles {
            true => rest.min_ms << (times - 1).min(30),
            false => rest.min_ms * times,
        };
        rests.then_some(ms.min(rest.max_ms))
    }

    /// The counts in the headers of a delivery: failures and returns.
    pub fn counts_told(&self, message: &Message, by_get: bool) -> (Option<i64>, Option<i64>) {
        let is_back = message.acquired > 0;
        let is_told = is_back || (by_get && self.settings.quorum);
        (is_told.then_some(message.failed), is_back.then_some(message.acquired))
    }

    /// How many more messages a consumer takes; nothing for any number.
    fn credit(&self, consumer: &Consumer) -> Option<usize> {
        if consumer.no_ack || consumer.prefetch == 0 {
            return None;
        }
        let out = self.held.iter().filter(|held| held.consumer.as_ref() == Some(&consumer.name)).count();
        Some(consumer.prefetch.saturating_sub(out))
    }

    fn may_take(&self, consumer: &Consumer) -> bool {
        (!self.settings.single || self.active.as_ref() == Some(&consumer.name))
            && self.credit(consumer).is_none_or(|credit| credit > 0)
    }

    // What happens ----------------------------------------------------------------------------------

    /// A message is published; false if it is refused.
    pub fn publish(&mut self, mut message: Message) -> bool {
        message.level = message.priority.min(self.settings.priority_max);
        if !self.may_refuse() {
            self.line_up(message);
            return true;
        }
        if self.is_over(1, message.bytes as u64) {
            if self.rules.overflow == Some(Overflow::RejectPublishDlx) {
                self.die(message, "maxlen");
            }
            return false;
        }
        self.line_up(message);
        // What a consumer takes now makes room for the next.
        self.go_round();
        true
    }

    fn line_up(&mut self, message: Message) {
        self.ready.push(message);
        self.ready.sort_by_key(|message| (u8::MAX - message.level, message.number));
    }

    /// All that comes of a change: what is overdue dies, consumers get what they can take, what nobody could
    /// take in its last moment dies, and then what there is no room for.
    pub fn go_round(&mut self) {
        self.expire(self.now_ms.saturating_sub(1));
        self.hand_over();
        self.expire(self.now_ms);
        while !self.may_refuse() && self.is_over(0, 0) {
            let first = self.ready.remove(0);
            self.die(first, "maxlen");
        }
        if self.ready.is_empty() && self.settings.memory_bytes.is_none() {
            self.is_any_away = false;
        }
    }

    fn hand_over(&mut self) {
        let takers: Vec<&Consumer> = self.consumers.iter().filter(|c| self.may_take(c)).collect();
        let mut room = 0;
        for taker in takers {
            room += self.credit(taker).unwrap_or(usize::MAX / 100);
        }
        let n = room.saturating_sub(self.leaving.len()).min(self.ready.len());
        self.leaving.extend(self.ready.drain(..n));
    }

    fn expire(&mut self, now_ms: u64) {
        let resting = std::mem::take(&mut self.resting);
        let (awake, resting): (Vec<_>, Vec<_>) =
            resting.into_iter().partition(|(until_ms, m)| self.deadline_ms(m).min(*until_ms) <= now_ms);
        self.resting = resting;
        awake.into_iter().for_each(|(_, message)| self.line_up(message));
        let ready = std::mem::take(&mut self.ready);
        let (mut due, ready): (Vec<_>, Vec<_>) =
            ready.into_iter().partition(|message| self.deadline_ms(message) <= now_ms);
        self.ready = ready;
        due.sort_by_key(|message| self.deadline_ms(message));
        due.into_iter().for_each(|message| self.die(message, "expired"));
    }

    fn die(&mut self, mut message: Message, reason: &'static str) {
        let Some(exchange) = self.rules.dead_letter_exchange else { return };
        let before = message.deaths.iter().position(|(_, other)| *other == reason);
        let count = before.map_or(0, |at| message.deaths.remove(at).0);
        message.deaths.insert(0, (count + 1, reason));
        message.expiration_ms = None;
        let key = self.rules.dead_letter_key.unwrap_or(crate::settings::QUEUE);
        let any_order = self.is_any_away;
        self.dead.push(Dead { message, exchange, key, step: self.step, any_order });
    }

    /// The clock has been moved.
    pub fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.expire(self.now_ms);
        self.go_round();
    }

    pub fn set_policy(&mut self, policy: &Rules) {
        self.rules = self.settings.rules.within(policy);
        self.consumers.iter_mut().for_each(|consumer| consumer.overtaken_by.clear());
        self.go_round();
    }

    pub fn consume(&mut self, name: &str, peer: usize, no_ack: bool, prefetch: usize, priority: i64) {
        let (name, overtaken_by) = (name.to_string(), Vec::new());
        self.active.get_or_insert(name.clone());
        self.consumers.push(Consumer { name, peer, no_ack, prefetch, priority, overtaken_by });
        self.go_round();
    }

    pub fn cancel(&mut self, name: &str) {
        self.leave(name);
        self.go_round();
    }

    fn leave(&mut self, name: &str) {
        self.consumers.retain(|consumer| consumer.name != name);
        if self.active.as_deref() == Some(name) {
            // The first of those with the highest priority is next.
            let highest = self.consumers.iter().map(|consumer| consumer.priority).max();
            let next = self.consumers.iter().find(|consumer| Some(consumer.priority) == highest);
            self.active = next.map(|consumer| consumer.name.clone());
        }
    }

    /// The first message is taken by basic.get: it, and how many are behind it.
    pub fn get(&mut self) -> Option<(Message, usize)> {
        if self.ready.is_empty() {
            return None;
        }
        Some((self.ready.remove(0), self.ready.len()))
    }

    /// Somebody has this message now.
    pub fn hold(&mut self, peer: usize, tag: u64, consumer: Option<String>, mut message: Message) {
        message.was_out = true;
        self.held.push(Held { peer, tag, consumer, message });
    }

    /// Takes what a tag stands for out of what a client has.
    fn take(&mut self, peer: usize, tag: u64, multiple: bool) -> Vec<Held> {
        let is_meant = |held: &Held| {
            held.peer == peer && (held.tag == tag || (multiple && (tag == 0 || held.tag <= tag)))
        };
        let (taken, held) = std::mem::take(&mut self.held).into_iter().partition(is_meant);
        self.held = held;
        taken
    }

    pub fn ack(&mut self, peer: usize, tag: u64, multiple: bool) {
        let taken = self.take(peer, tag, multiple);
        // Each consumer's are settled for themselves, and deliveries go on in between.
        self.is_any_turn |= taken.iter().any(|held| held.consumer != taken[0].consumer);
        self.go_round();
    }

    pub fn reject(&mut self, peer: usize, tag: u64, multiple: bool) {
        let taken = self.take(peer, tag, multiple);
        taken.into_iter().for_each(|held| self.die(held.message, "rejected"));
        self.go_round();
    }

    pub fn requeue(&mut self, peer: usize, tag: u64, multiple: bool, how: How) {
        for held in self.take(peer, tag, multiple) {
            self.come_back(held.message, how);
        }
        self.go_round();
    }

    fn come_back(&mut self, mut message: Message, how: How) {
        message.redelivered = true;
        if self.counts_deliveries() {
            message.acquired += 1;
            message.failed += 1;
            if self.delivery_limit().is_some_and(|limit| message.failed > limit) {
                return self.die(message, "delivery_limit");
            }
            if let Some(rest_ms) = self.rest_ms(&message, how) {
                self.resting.push((self.now_ms + rest_ms, message));
                return;
            }
        }
        self.line_up(message);
    }

    /// A channel or connection ends: what it had is back before anybody else takes its consumers' place.
    pub fn close(&mut self, peer: usize) {
        let consumers = std::mem::take(&mut self.consumers);
        let (leaving, staying): (Vec<_>, Vec<_>) = consumers.into_iter().partition(|c| c.peer == peer);
        self.consumers = staying;
        self.requeue(peer, 0, true, How::Failed);
        leaving.iter().for_each(|consumer| self.leave(&consumer.name));
        self.go_round();
    }

    pub fn purge(&mut self) -> usize {
        let n = self.ready.len();
        self.ready.clear();
        self.go_round();
        n
    }

    /// The broker is stopped and started again, with nobody connected, and the clock moves in between.
    pub fn restart(&mut self, ms: u64) {
        let resting = std::mem::take(&mut self.resting);
        resting.into_iter().for_each(|(_, message)| self.line_up(message));
        self.ready.retain(|message| self.settings.durable && message.persistent);
        self.ready.iter_mut().for_each(|message| message.redelivered = message.was_out);
        self.dead.retain(|dead| dead.message.persistent);
        self.is_any_away = true;
        self.advance(ms);
    }

    // What is seen ----------------------------------------------------------------------------------

    /// Compares what was seen with what had to be handed over.
    pub fn compare(&mut self, seen: &[Seen]) -> Result<(), String> {
        let leaving = std::mem::take(&mut self.leaving);
        for peer in 0..seen.iter().map(|one| one.peer + 1).max().unwrap_or(0) {
            let got: Vec<u64> = seen.iter().filter(|one| one.peer == peer).map(|one| one.number).collect();
            let order = leaving.iter().map(|message| message.number).filter(|n| got.contains(n));
            let order: Vec<u64> = order.collect();
            if order != got {
                return Err(format!("client {peer} got messages {got:?}; their order is {order:?}"));
            }
        }
        for message in leaving {
            let one = seen.iter().find(|one| one.number == message.number);
            let one = one.ok_or_else(|| format!("message {} was not delivered", message.number))?;
            self.take_turn(&one.consumer, message.number)?;
            if one.redelivered != message.redelivered {
                let (number, is) = (message.number, message.redelivered);
                return Err(format!("message {number} has redelivered={}, not {is}", one.redelivered));
            }
            let consumer = self.consumers.iter().find(|consumer| consumer.name == one.consumer);
            if consumer.is_some_and(|consumer| !consumer.no_ack) {
                self.hold(one.peer, one.tag, Some(one.consumer.clone()), message);
            }
        }
        self.is_any_turn = false;
        Ok(())
    }

    /// What there is, for a run that failed.
    pub fn in_words(&self) -> String {
        let deadline = |message: &Message| match self.deadline_ms(message) {
            u64::MAX => String::new(),
            at_ms => format!(" until {}", at_ms as i64 - self.now_ms as i64),
        };
        let one = |message: &Message| format!("{}{}", message.number, deadline(message));
        let ready: Vec<String> = self.ready.iter().map(one).collect();
        let rests =
            |(at_ms, message): &(u64, Message)| format!("{} for {}", one(message), at_ms - self.now_ms);
        let resting: Vec<String> = self.resting.iter().map(rests).collect();
        let has = |held: &Held| format!("{} has {} as {}", held.peer, one(&held.message), held.tag);
        let held: Vec<String> = self.held.iter().map(has).collect();
        let dead: Vec<u64> = self.dead.iter().map(|dead| dead.message.number).collect();
        format!(
            "ready [{}], resting [{}], dead letters {dead:?}, active {:?}\n  unsettled: {}\n  consumers: {:?}",
            ready.join(", "),
            resting.join(", "),
            self.active,
            held.join("; "),
            self.consumers,
        )
    }

    /// Whether this consumer may take the next message, and it is its turn.
    fn take_turn(&mut self, name: &str, number: u64) -> Result<(), String> {
        let takers: Vec<Consumer> = self.consumers.iter().filter(|c| self.may_take(c)).cloned().collect();
        let Some(taker) = takers.iter().find(|taker| taker.name == name) else {
            let names: Vec<&str> = takers.iter().map(|taker| taker.name.as_str()).collect();
            return Err(format!("message {number} went to {name}; those who may take it are {names:?}"));
        };
        if self.is_any_turn {
            return Ok(());
        }
        if let Some(first) = takers.iter().find(|other| other.priority > taker.priority) {
            return Err(format!(
                "message {number} went to {name}, not to {} with a higher priority",
                first.name
            ));
        }
        let is_equal = |other: &Consumer| other.priority == taker.priority && other.name != name;
        let waiting: Vec<String> = takers.iter().filter(|c| is_equal(c)).map(|c| c.name.clone()).collect();
        for consumer in &mut self.consumers {
            if !waiting.contains(&consumer.name) {
                consumer.overtaken_by.clear();
            } else if consumer.overtaken_by.iter().any(|other| other == name) {
                let waits = &consumer.name;
                return Err(format!("message {number} went to {name} once more, while {waits} waits"));
            } else {
                consumer.overtaken_by.push(name.to_string());
            }
        }
        Ok(())
    }
}

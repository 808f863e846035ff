//! Delayed messages: an exchange holds them back until their hour, and then they go its way.
//!
//! Each exchange with delayed messages has a queue of its own that nobody else sees. There a message waits as
//! one that expires in any queue does: the store lists by time what is due, memory holds what is due next.
//! When its time has come it leaves that queue, goes through the exchange like any message, and one record of
//! the log says both.

use std::sync::Arc;

use amqp::{Properties, Value, table};
use exchanges::Matches;
use smallvec::SmallVec;
use store::{Operation, QueueId, Seq};
use tracing::{debug, warn};

use super::arguments::{BCC, CC, keys_in};
use super::definitions::{self, Definition};
use super::watch::hand_on;
use super::{Topology, Vhost, Watch};
use crate::error::Error;
use crate::message::{Keys, Message, parse_ttl};
use crate::parts::Parts;
use crate::queue::{self, Arguments, Departure, Due, Handle, Lost, Origin};
use crate::trail::Step;

/// The type of exchange that always delays.
const KIND: &str = "x-delayed-message";

/// When to deliver: milliseconds since 1970, or a timestamp.
const DELIVER_AT: &[u8] = b"x-deliver-at";
/// How long to wait, in milliseconds.
const DELAY: &[u8] = b"x-delay";
/// The same by a number from 1 on.
const DELAY_LEVEL: &[u8] = b"x-delay-level";

/// RocketMQ's levels, in seconds.
const LEVELS_SECS: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// The longest delay: 366 days, in milliseconds.
pub const DELAY_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// Whether headers ask for a delay, wherever that has an effect.
pub fn asks_for_delay(headers: &[u8]) -> bool {
    table::raw_entries(headers).any(|(name, _)| [DELIVER_AT, DELAY, DELAY_LEVEL].contains(&name))
}

/// How long a message taken now is to be held back, in milliseconds; nothing if it is to go at once.
///
/// # Errors
/// `Invalid`: what the header is, and what it can be.
pub(super) fn delay_ms(headers: &[u8], now_ms: u64) -> Result<Option<u64>, Error> {
    let get = |name: &[u8]| {
        let raw = table::raw_entries(headers).find(|(other, _)| *other == name)?.1;
        table::decode_value(raw).ok()
    };
    let invalid = |name: &[u8], value: &Value| {
        let (name, kind) = (String::from_utf8_lossy(name), queue::type_name(value));
        let value = value.as_str().unwrap_or_default();
        Error::Invalid(format!("the header '{name}' is '{value}' of type '{kind}', and must be a number"))
    };
    let ms = if let Some(value) = get(DELIVER_AT) {
        let at_ms = match value {
            Value::Timestamp(secs) => i128::from(secs) * 1000,
            _ => number(&value).ok_or_else(|| invalid(DELIVER_AT, &value))?,
        };
        at_ms - i128::from(now_ms)
    } else if let Some(value) = get(DELAY) {
        number(&value).ok_or_else(|| invalid(DELAY, &value))?
    } else if let Some(value) = get(DELAY_LEVEL) {
        match number(&value).ok_or_else(|| invalid(DELAY_LEVEL, &value))? {
            ..=0 => 0,
            level => i128::from(LEVELS_SECS[(level as usize).min(LEVELS_SECS.len()) - 1]) * 1000,
        }
    } else {
        return Ok(None);
    };
    match u64::try_from(ms) {
        Err(_) | Ok(0) => Ok(None),
        Ok(ms) if ms > DELAY_MS_MAX => Err(Error::Invalid(format!(
            "a message can be delayed for {DELAY_MS_MAX} ms at most, not for {ms}"
        ))),
        Ok(ms) => Ok(Some(ms)),
    }
}

/// A number as RabbitMQ's plugin reads it: an integer, digits, or a float, which is cut.
fn number(value: &Value) -> Option<i128> {
    match value {
        Value::Int(int) => Some((*int).into()),
        Value::Float(float) if float.is_finite() => Some(*float as i128),
        Value::Bytes(_) => {
            let text = value.as_str()?.trim();
            text.parse::<i64>().map(i128::from).ok().or_else(|| text.parse::<f64>().ok().map(|f| f as i128))
        }
        _ => None,
    }
}

impl Vhost {
    /// Where a message published to this exchange has to wait, and how long, in milliseconds; nothing if it
    /// goes on at once.
    ///
    /// # Errors
    /// `Invalid` if the exchange delays messages and the headers make no sense.
    pub fn delay(
        &self,
        exchange: &str,
        properties: &Properties<'_>,
        now_ms: u64,
    ) -> Result<Option<(Handle, u64)>, Error> {
        let Some(headers) = properties.headers.filter(|headers| asks_for_delay(headers)) else {
            return Ok(None);
        };
        if !self.read().delays_messages(exchange) {
            return Ok(None);
        }
        let Some(ms) = delay_ms(headers, now_ms)? else { return Ok(None) };
        Ok(self.delays_of(exchange).map(|queue| (queue, ms)))
    }

    /// How many messages an exchange holds back.
    pub fn delayed_count(&self, exchange: &str) -> usize {
        let queue = self.read().delays.get(exchange).cloned();
        queue.map_or(0, |queue| queue.counts().0)
    }

    /// The messages that an exchange holds back and that are due behind a time, in milliseconds since 1970, and a
    /// number: up to so many, in order; `(0, Seq(0))` stands before all. Blocks the calling thread while the store
    /// reads.
    ///
    /// # Errors
    /// `NotFound`: there is no such exchange.
    pub fn list_delayed(&self, exchange: &str, after: (u64, Seq), max: usize) -> Result<Vec<Due>, Error> {
        let topology = self.read();
        topology.exchange(exchange, &self.name)?;
        let queue = topology.delays.get(exchange).cloned();
        drop(topology);
        Ok(queue.map_or_else(Vec::new, |queue| queue.list_due(after, max)))
    }

    /// Forgets the messages that an exchange holds back; says how many.
    ///
    /// # Errors
    /// `NotFound`: there is no such exchange.
    pub fn purge_delayed(&self, exchange: &str) -> Result<usize, Error> {
        let topology = self.read();
        topology.exchange(exchange, &self.name)?;
        let queue = topology.delays.get(exchange).cloned();
        drop(topology);
        Ok(queue.map_or(0, |queue| {
            self.schedule_ids.forget(&queue);
            queue.purge()
        }))
    }

    /// The queue for the delayed messages of an exchange; it is made when it is first needed. Nothing if the
    /// exchange has gone.
    pub(super) fn delays_of(&self, exchange: &str) -> Option<Handle> {
        if let Some(queue) = self.read().delays.get(exchange) {
            return Some(queue.clone());
        }
        let mut topology = self.write();
        if let Some(queue) = topology.delays.get(exchange) {
            return Some(queue.clone());
        }
        let durable = topology.exchanges.get(exchange.as_bytes())?.durable;
        let queue = self.make_delays(&mut topology, self.ids.next(), exchange, durable);
        debug!(vhost = %self.name, exchange, "the exchange has its first delayed message");
        if durable {
            let create = delays_ids(&queue).map(|queue| Operation::QueueCreate { queue });
            self.tell(create.chain([self.delays_definition(&queue).define()]).collect());
        }
        Some(queue)
    }

    fn make_delays(&self, topology: &mut Topology, id: QueueId, exchange: &str, durable: bool) -> Handle {
        let arguments = Arguments {
            // What is due departs, as a dead letter does.
            dead_letter_exchange: Some(exchange.into()),
            release_rate: self.surroundings.delayed_release_rate,
            ..Arguments::default()
        };
        let queue = self.hidden_queue(id, exchange, durable, true, arguments);
        topology.delays.insert(queue.declaration().name.clone(), queue.clone());
        topology.apply_to_delays(&queue);
        queue
    }

    fn delays_definition(&self, queue: &Handle) -> Definition {
        Definition::Delays(self.hidden_definition(queue))
    }

    /// Puts the queue for the delayed messages of an exchange back, without its messages.
    ///
    /// # Errors
    /// `NotFound`: the exchange is not there.
    pub fn restore_delays(&self, kept: &definitions::Delays) -> Result<Handle, Error> {
        let mut topology = self.write();
        topology.exchange(&kept.exchange, &self.name)?;
        let id = QueueId(kept.id);
        self.ids.reserve(id);
        let queue = self.make_delays(&mut topology, id, &kept.exchange, true);
        // Earlier versions had no marks.
        self.tell(queue.marks_id().map(|queue| Operation::QueueCreate { queue }).into_iter().collect());
        Ok(queue)
    }

    /// An exchange is gone, and with it what it held back: what the store is to be told.
    pub(super) fn without_delays(&self, topology: &mut Topology, exchange: &str) -> Vec<Operation> {
        let Some(queue) = topology.delays.remove(exchange) else { return Vec::new() };
        // Nobody can stand in its way.
        if let Ok(dead) = queue.delete(queue::DeleteIf::Always)
            && !dead.is_empty()
        {
            let messages = dead.len();
            warn!(vhost = %self.name, exchange, messages, "delayed messages have gone with their exchange");
        }
        self.schedule_ids.forget(&queue);
        match queue.declaration().is_kept() {
            true => {
                let gone = delays_ids(&queue).map(|queue| Operation::QueueDelete { queue });
                [self.delays_definition(&queue).undefine()].into_iter().chain(gone).collect()
            }
            false => Vec::new(),
        }
    }

    /// Sends messages on their way that were held back and are due.
    pub(super) fn release(
        &self,
        delays: &Handle,
        departures: &[Departure],
        matches: &mut Matches<Handle>,
        batch: &mut queue::Batch,
    ) {
        let now_ms = self.surroundings.clock.now_ms();
        for (n, departure) in departures.iter().enumerate() {
            let message = released(&departure.entry.message, now_ms);
            matches.clear();
            // Its delay is negated, so nobody holds it back again.
            let held = self.route_from(delays.name(), &message, matches, Watch::of_others(&message));
            let why = if held.is_some() { Lost::NoRoute } else { Lost::NoExchange };
            let held = held.unwrap_or_default();
            let mut targets: SmallVec<[Handle; 4]> = matches.queues().iter().cloned().collect();
            if targets.is_empty() && held.is_empty() {
                // It has been confirmed to its publisher, so it is not dropped.
                self.lose(delays, why, true);
                targets.extend(self.dead_queue());
            }
            // Before it goes, so that no mark outlives its message.
            let unmark = self.unschedule(delays, departure.entry.place(), &departure.entry.message);
            unmark.into_iter().for_each(|operation| batch.tell(operation));
            let settle = super::dead_letter::settle(delays, departure);
            if targets.iter().any(Handle::keeps_trails) {
                let (exchange, queues) = (delays.name().into(), queue::names(&targets));
                self.trails().note(message.id(), now_ms, Step::Released { exchange, queues });
            }
            let origin = Origin { channel: 0, tag: n as u64 };
            hand_on(batch, message, &targets, held, origin, settle);
        }
        matches.clear();
    }
}

impl Topology {
    /// Whether an exchange holds messages back that ask for it.
    pub(super) fn delays_messages(&self, exchange: &str) -> bool {
        self.exchanges.get(exchange.as_bytes()).is_some_and(|found| self.delays_messages_of(found))
    }

    /// The same of an exchange that has been looked up.
    pub(super) fn delays_messages_of(&self, exchange: &exchanges::Exchange) -> bool {
        exchange.kind.name() == KIND
            || exchange.arguments.get(b"delayed") == Some(&exchanges::Value::Bool(true))
            || self.policies.of_exchange(&exchange.name.to_string()).is_delayed()
    }
}

/// All numbers under which the store keeps something of the delayed messages of an exchange.
fn delays_ids(delays: &Handle) -> impl Iterator<Item = QueueId> {
    delays.line_ids().chain(delays.marks_id())
}

/// A message as it goes on when its time has come: it is taken now, and its delay is negated so that nobody
/// delays it again.
fn released(message: &Arc<Message>, now_ms: u64) -> Message {
    let read = Properties::parse(message.parts.properties()).unwrap_or_default();
    let delayed_ms = message.ttl_ms.unwrap_or_default();
    let negated = table::encode_value(&Value::Int(-(delayed_ms as i64)));
    let raw: Vec<(&[u8], &[u8])> = read.headers.into_iter().flat_map(table::raw_entries).collect();
    let stays = |(name, _): &(&[u8], &[u8])| *name != DELAY && *name != BCC;
    let mut entries: Vec<(&[u8], &[u8])> = raw.iter().copied().filter(stays).collect();
    entries.push((DELAY, &negated));
    let headers = table::from_raw(entries);
    let properties = Properties { headers: Some(&headers), ..read }.encode();
    let body = message.parts.share_body(0..message.parts.body().len());
    let copies: Keys = [CC, BCC].into_iter().flat_map(|header| keys_in(&raw, header)).collect();
    let parts = Parts::gathered(message.parts.address(), &properties, body);
    Message {
        ttl_ms: read.expiration.and_then(|expiration| parse_ttl(expiration).ok()),
        copies: (!copies.is_empty()).then_some(copies),
        ..message.again(parts, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use amqp::Table;

    use super::*;

    fn delay(headers: &[(&str, Value)]) -> Result<Option<u64>, String> {
        let table: Table = headers.iter().map(|(name, value)| (*name, value.clone())).collect();
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        delay_ms(&bytes, 1_000_000).map_err(|error| error.to_string())
    }

    #[test]
    fn a_delay_is_a_number_however_it_comes() {
        for value in [Value::Int(1500), Value::text("1500"), Value::Float(1500.9), Value::text(" 1500.5")] {
            assert_eq!(delay(&[("x-delay", value)]), Ok(Some(1500)));
        }
        for at_once in [Value::Int(0), Value::Int(-7), Value::text("-7")] {
            assert_eq!(delay(&[("x-delay", at_once)]), Ok(None));
        }
        assert_eq!(delay(&[("x-delay", Value::Int(5_000_000_000))]), Ok(Some(5_000_000_000)));
        assert_eq!(delay(&[("other", Value::Int(5))]), Ok(None));
    }

    #[test]
    fn a_time_goes_before_a_delay_and_a_delay_before_a_level() {
        let all = [
            ("x-delay-level", Value::Int(2)),
            ("x-delay", Value::Int(7)),
            ("x-deliver-at", Value::Int(1_000_003)),
        ];
        assert_eq!(delay(&all), Ok(Some(3)));
        assert_eq!(delay(&all[..2]), Ok(Some(7)));
        assert_eq!(delay(&all[..1]), Ok(Some(5000)));
        assert_eq!(delay(&[("x-deliver-at", Value::Timestamp(1002))]), Ok(Some(2000)));
        assert_eq!(delay(&[("x-deliver-at", Value::Int(999_999))]), Ok(None));
        assert_eq!(delay(&[("x-delay-level", Value::Int(99))]), Ok(Some(7_200_000)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        assert_eq!(
            delay(&[("x-delay", Value::text("soon"))]).unwrap_err(),
            "the header 'x-delay' is 'soon' of type 'longstr', and must be a number"
        );
        let error = delay(&[("x-delay", Value::Int(i64::MAX))]).unwrap_err();
        assert!(error.contains("31622400000 ms at most, not for 9223372036854775807"), "{error}");
    }
}

//! Dead letters: messages that left a queue though nobody was done with them go back to an exchange.
//!
//! What happened to a message is told in its headers, which are RabbitMQ's: `x-death` has an entry for each
//! queue and reason, the newest first; `x-first-death-…` and `x-last-death-…` name the two ends of it.
//! That a message leaves its old queue and that it is in the new ones is one record of the log: after a crash
//! it is in exactly one of the two.

use std::sync::Arc;

use amqp::{Properties, Table, Value, table};
use bytes::Bytes;
use exchanges::Matches;
use store::Operation;
use tracing::warn;

use super::arguments::{CC, keys_in};
use super::watch::hand_on;
use super::{Held, QueueFlags, Vhost, Watch};
use crate::delivery::{ConnectionId, Stored};
use crate::message::Message;
use crate::news::NOBODY;
use crate::parts::Parts;
use crate::queue::{self, Departure, Handle, Lost, Origin, Reason, Unroutable};
use crate::tally::{Count, Delta};
use crate::trail::Step;

/// Where dead letters are kept that lead nowhere, if their queue says so.
pub const DEAD_QUEUE: &str = "amq.dead";

/// So many of them are kept, and so many octets of bodies; the oldest go first.
const DEAD_LENGTH_MAX: i64 = 1_000_000;
const DEAD_BYTES_MAX: i64 = 1 << 30;

/// So many entries of `x-death` are kept: a client may send any number.
const DEATHS_MAX: usize = 128;

impl Vhost {
    /// Takes messages that have left `queue` to where its arguments say, and has the store told of both in one
    /// record each.
    pub fn see_off(
        &self,
        queue: &Handle,
        departures: &[Departure],
        matches: &mut Matches<Handle>,
        batch: &mut queue::Batch,
    ) {
        if queue.declaration().is_delays {
            return self.release(queue, departures, matches, batch);
        }
        let settings = queue.settings();
        let now_ms = self.surroundings.clock.now_ms();
        let mut counted = Delta::default();
        for (n, departure) in departures.iter().enumerate() {
            let settle = settle(queue, departure);
            let Some(exchange) = &settings.dead_letter_exchange else {
                // A policy is gone in the meantime.
                settle.into_iter().for_each(|settle| batch.tell(settle));
                continue;
            };
            let key = settings.dead_letter_routing_key.as_deref();
            let letter = letter(departure, queue.name(), exchange, key, now_ms);
            let found = self.targets(&letter, departure.reason, matches);
            let parks = settings.unroutable == Some(Unroutable::Park);
            let (targets, held) = match found {
                Ok(held) => (matches.queues().to_vec(), held),
                Err(why) => {
                    self.lose(queue, why, parks);
                    let dead = if parks { self.dead_queue() } else { None };
                    (dead.into_iter().collect(), Held::new())
                }
            };
            if !(targets.is_empty() && held.is_empty()) {
                queue.counters().dead_lettered(departure.reason);
                counted.add(
                    match departure.reason {
                        Reason::Rejected => Count::DeadRejected,
                        Reason::Expired => Count::DeadExpired,
                        Reason::MaxLen => Count::DeadMaxLen,
                        Reason::DeliveryLimit => Count::DeadDeliveryLimit,
                    },
                    1,
                );
            }
            if queue.keeps_trails() {
                let (queues, reason) = (queue::names(&targets), departure.reason.name());
                let step = Step::DeadLettered { queue: queue.declaration().name.clone(), reason, queues };
                self.trails().note(letter.id(), now_ms, step);
            }
            let origin = Origin { channel: 0, tag: n as u64 };
            hand_on(batch, letter, &targets, held, origin, settle);
        }
        matches.clear();
        self.tallies().queues[settings.kind as usize].add(&counted, now_ms);
    }

    /// Finds where a dead letter goes, and where it is held back.
    fn targets(&self, letter: &Message, reason: Reason, matches: &mut Matches<Handle>) -> Result<Held, Lost> {
        matches.clear();
        let watch = Watch::of_all(letter);
        let held = self.route_from(letter.exchange(), letter, matches, watch).ok_or(Lost::NoExchange)?;
        if !held.is_empty() {
            return Ok(held);
        }
        if matches.is_empty() {
            return Err(Lost::NoRoute);
        }
        if reason != Reason::Rejected {
            let deaths = deaths_of(letter);
            matches.retain(|queue| !is_cycle(&deaths, queue.name()));
        }
        if matches.is_empty() { Err(Lost::Cycle) } else { Ok(held) }
    }

    /// A message that left `queue` has reached no other.
    pub fn lose(&self, queue: &Handle, why: Lost, is_parked: bool) {
        if queue.counters().lost(why) {
            let becomes = if is_parked { "kept in queue amq.dead" } else { "dropped" };
            warn!(?queue, reason = why.text(), "dead letters of this queue are {becomes}, and counted");
        }
    }

    /// The queue for messages that lead nowhere; it is made when it is first needed.
    pub(super) fn dead_queue(&self) -> Option<Handle> {
        if let Ok(queue) = self.queue(DEAD_QUEUE) {
            return Some(queue);
        }
        let arguments = Table::from_iter([
            ("x-max-length", Value::Int(DEAD_LENGTH_MAX)),
            ("x-max-length-bytes", Value::Int(DEAD_BYTES_MAX)),
        ]);
        let flags = QueueFlags { durable: true, ..QueueFlags::default() };
        match self.make_queue(DEAD_QUEUE.into(), ConnectionId(0), NOBODY, flags, &arguments) {
            Ok((queue, _)) => Some(queue),
            Err(error) => {
                warn!(vhost = %self.name, %error, "the queue for dead letters cannot be made");
                None
            }
        }
    }
}

/// What the store is told of a message that leaves its queue; nothing if it does not have it.
pub(super) fn settle(queue: &Handle, departure: &Departure) -> Option<Operation> {
    let entry = &departure.entry;
    if entry.stored == Stored::No || departure.is_newcomer {
        return None;
    }
    let runs = [entry.seq].into_iter().collect();
    Some(Operation::Settle { queue: queue.line_id(entry.level, entry.stored), runs })
}

/// The message as it goes on, with what happened to it in its headers.
fn letter(departure: &Departure, queue: &str, exchange: &str, key: Option<&str>, now_ms: u64) -> Message {
    let message = &departure.entry.message;
    let read = Properties::parse(message.parts.properties()).unwrap_or_default();
    let raw: Vec<(&[u8], &[u8])> = read.headers.into_iter().flat_map(table::raw_entries).collect();
    let copies = keys_in(&raw, CC);
    let death = Death { message, queue, reason: departure.reason, copies: &copies, now_ms };
    let news = death.headers(&raw, read.expiration);
    let is_old = |name: &[u8]| news.iter().any(|(new, _)| new.as_bytes() == name);
    let drops_copies = key.is_some();
    let old = raw.iter().copied().filter(|(name, _)| !(is_old(name) || drops_copies && *name == CC));
    let mut entries: Vec<(&[u8], &[u8])> = old.collect();
    entries.extend(news.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
    entries.sort_by(|a, b| a.0.cmp(b.0));
    let headers = table::from_raw(entries);
    let properties = Properties { headers: Some(&headers), expiration: None, ..read }.encode();
    let address = amqp::method::address(exchange, key.unwrap_or(message.routing_key()));
    let body: Bytes = message.parts.share_body(0..message.parts.body().len());
    let copies = (!drops_copies && !copies.is_empty()).then_some(copies);
    let parts = Parts::gathered(&address, &properties, body);
    Message { ttl_ms: None, copies, ..message.again(parts, now_ms) }
}

/// Something that happened to a message.
struct Death<'a> {
    message: &'a Arc<Message>,
    queue: &'a str,
    reason: Reason,
    copies: &'a [Box<[u8]>],
    now_ms: u64,
}

impl Death<'_> {
    /// The headers that tell of it, given those of before. They are raw, as the others are: what was there
    /// keeps its types.
    fn headers(&self, before: &[(&[u8], &[u8])], expiration: Option<&[u8]>) -> Vec<(String, Vec<u8>)> {
        let raw = before.iter().find(|(name, _)| *name == b"x-death").map(|(_, raw)| *raw);
        // Another kind of header of that name makes no sense.
        let told = raw.filter(|raw| raw.first() == Some(&b'A'));
        let deaths = told.into_iter().flat_map(table::raw_items);
        let (same, mut others): (Vec<&[u8]>, Vec<&[u8]>) = deaths.partition(|death| self.is_same(death));
        let newest = match same.first() {
            Some(entry) => raised(entry),
            None => {
                let mut entry = self.entry(expiration);
                if told.is_some() {
                    entry.0.sort_by(|a, b| a.0.cmp(&b.0));
                }
                table::encode_value(&Value::Table(entry))
            }
        };
        others.insert(0, &newest);
        others.truncate(DEATHS_MAX);
        let mut headers = vec![("x-death".to_string(), table::array_of_raw(others))];
        let mut name = |which: &str| {
            let exchange = self.message.exchange();
            for (what, text) in
                [("exchange", exchange), ("queue", self.queue), ("reason", self.reason.name())]
            {
                let value = table::encode_value(&Value::text(text));
                headers.push((format!("x-{which}-death-{what}"), value));
            }
        };
        if raw.is_none() {
            name("first");
        }
        name("last");
        headers
    }

    fn is_same(&self, death: &[u8]) -> bool {
        let Ok(Value::Table(death)) = table::decode_value(death) else { return false };
        death.get_str("queue") == Some(self.queue) && death.get_str("reason") == Some(self.reason.name())
    }

    fn entry(&self, expiration: Option<&[u8]>) -> Table {
        let key = Value::text(self.message.routing_key());
        let copies = self.copies.iter().map(|key| Value::Bytes(key.to_vec()));
        let mut entry = Table::from_iter([
            ("count", Value::Int(1)),
            ("reason", Value::text(self.reason.name())),
            ("queue", Value::text(self.queue)),
            ("time", Value::Timestamp(self.now_ms / 1000)),
            ("exchange", Value::text(self.message.exchange())),
            ("routing-keys", Value::Array([key].into_iter().chain(copies).collect())),
        ]);
        if let Some(expiration) = expiration {
            entry.insert("original-expiration", Value::Bytes(expiration.to_vec()));
        }
        entry
    }
}

/// The same once more. Its fields are sorted, as RabbitMQ has them then.
fn raised(death: &[u8]) -> Vec<u8> {
    let fields: Vec<(&[u8], &[u8])> = table::raw_entries(&death[1..]).collect();
    let count = fields.iter().find(|(name, _)| *name == b"count").map(|(_, raw)| table::decode_value(raw));
    let before = if let Some(Ok(Value::Int(count))) = count { count } else { 0 };
    let count = table::encode_value(&Value::Int(before.wrapping_add(1)));
    let mut fields: Vec<(&[u8], &[u8])> = fields
        .into_iter()
        .filter(|(name, _)| *name != b"count")
        .chain([(&b"count"[..], &count[..])])
        .collect();
    fields.sort_by_key(|(name, _)| *name);
    [b"F", table::from_raw(fields).as_slice()].concat()
}

/// What has happened to a message, the newest first.
fn deaths_of(letter: &Message) -> Vec<Value> {
    let Ok(read) = Properties::parse(letter.parts.properties()) else { return Vec::new() };
    let raw = read.headers.and_then(|headers| {
        table::raw_entries(headers).find(|(name, _)| *name == b"x-death").map(|(_, raw)| raw)
    });
    match raw.map(table::decode_value) {
        Some(Ok(Value::Array(deaths))) => deaths,
        _ => Vec::new(),
    }
}

/// Whether a message that goes to this queue has been there before, with nobody having rejected it since: it
/// would go round for ever.
fn is_cycle(deaths: &[Value], queue: &str) -> bool {
    let was_here =
        |death: &Value| matches!(death, Value::Table(death) if death.get_str("queue") == Some(queue));
    let Some(at) = deaths.iter().position(was_here) else { return false };
    let is_automatic = |death: &Value| match death {
        Value::Table(death) => death.get_str("reason") != Some(Reason::Rejected.name()),
        // A client must have put it there.
        _ => false,
    };
    deaths[..=at].iter().all(is_automatic)
}

//! Delayed messages that their publishers can take back: each has an id, by which it is found again.
//!
//! The header `x-schedule-id` is the id; while a message waits, no other of its exchange may have it. A message
//! to the exchange `amq.schedule` cancels. Ids are not kept in memory: for each such message the store has a
//! mark, a small message in a queue of its own, under the number of the message that it stands for:
//!
//! ```text
//!     delayed messages    seq 7: due 12:00, the message
//!     marks               seq 7: "due" at the hash of the id, which the store finds; the id, and 12:00
//! ```
//!
//! One record of the log says both. Memory only has the ids of messages that the store does not list yet, or
//! does not keep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqp::{Properties, Table, Value, method, table};
use bytes::Bytes;
use smallvec::SmallVec;
use store::{Operation, QueueId, Store, SyncMode, Ticket, Urgency};

use super::{Caller, Vhost};
use crate::auth::Action;
use crate::delivery::{Place, Stored};
use crate::error::{Error, What};
use crate::message::{self, Message, StoredBy, publish_operation};
use crate::parts::Parts;
use crate::queue::Handle;

/// Where delayed messages are cancelled.
pub const SCHEDULE: &str = "amq.schedule";

/// What can be asked there: it is the key.
const CANCEL: &str = "cancel";

/// By which a delayed message is found again, and which one is cancelled.
const ID: &[u8] = b"x-schedule-id";
/// The exchange that holds it back.
const EXCHANGE: &[u8] = b"x-schedule-exchange";

/// Set in the numbers under which marks are listed, so that they are in the future for as long as there are
/// clocks.
const MARK: u64 = 1 << 63;

/// Ids in memory are looked through when there are so many, and then when there are twice as many as stayed.
const IDS_MIN: usize = 1024;

/// What is done about a message to `amq.schedule`.
#[derive(Debug)]
pub enum Cancelled {
    /// The delayed message will not be delivered; the store is told this, and when it has to be synced, if it
    /// kept the message.
    Done(Option<(Operation, SyncMode)>),
    /// There was none: what the publisher is told.
    Refused(String),
}

/// A message that waits: what the store is told of it, in one record, and when that has to be synced.
pub type Scheduled = Option<(Arc<Message>, Vec<Operation>, SyncMode)>;

/// The ids of delayed messages that the store does not list yet, or does not keep.
#[derive(Debug, Default)]
pub struct Ids {
    recent: Mutex<Recent>,
    // Held from the look for an id until it is given or taken back: before the queue's lock.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Recent {
    ids: HashMap<(QueueId, Box<[u8]>), Waiting>,
    prune_at: usize,
}

/// A delayed message, where it waits.
#[derive(Clone, Debug)]
struct Waiting {
    place: Place,
    due_at_ms: u64,
    /// It will be found in the store when this is there; nothing if the store does not keep it.
    message: Option<Arc<Message>>,
}

impl Ids {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, delays: &Handle, id: &[u8]) -> Option<Waiting> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.ids.get(&(delays.id(), id.into())).cloned()
    }

    fn insert(&self, delays: &Handle, id: &[u8], waiting: Waiting, applied: Ticket) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.ids.insert((delays.id(), id.into()), waiting);
        if recent.ids.len() >= recent.prune_at.max(IDS_MIN) {
            let is_listed = |message: &Arc<Message>| message.is_applied(applied);
            recent.ids.retain(|_, waiting| !waiting.message.as_ref().is_some_and(is_listed));
            recent.prune_at = recent.ids.len() * 2;
        }
    }

    fn remove(&self, delays: &Handle, id: &[u8], place: Place) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (delays.id(), id.into());
        // Another message may have the id by now, or have had it all the time: this one came by way of another
        // exchange.
        if recent.ids.get(&key).is_some_and(|waiting| waiting.place == place) {
            recent.ids.remove(&key);
        }
    }

    /// No message of this queue waits any more.
    pub(super) fn forget(&self, delays: &Handle) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.ids.retain(|(queue, _), _| *queue != delays.id());
    }
}

/// The id in these headers: text as it is, a number in digits.
///
/// # Errors
/// `Invalid`: it is something else, or empty.
pub fn schedule_id(headers: &[u8]) -> Result<Option<Box<[u8]>>, Error> {
    let Some((_, raw)) = table::raw_entries(headers).find(|(name, _)| *name == ID) else { return Ok(None) };
    match table::decode_value(raw) {
        Ok(Value::Bytes(id)) if !id.is_empty() => Ok(Some(id.into())),
        Ok(Value::Int(id)) => Ok(Some(id.to_string().into_bytes().into())),
        _ => Err(Error::Invalid(
            "the header 'x-schedule-id' must be a text that is not empty, or a number".into(),
        )),
    }
}

/// The id of a delayed message, as text.
pub fn delayed_id(message: &Message) -> Option<String> {
    let read = Properties::parse(message.parts.properties()).ok()?;
    let id = schedule_id(read.headers?).ok().flatten()?;
    Some(String::from_utf8_lossy(&id).into_owned())
}

impl Vhost {
    /// Lets a message wait among the delayed messages of an exchange, so that it can be found by its id. It must
    /// say how long. What the store is told of it, with what else is to go with it, and when that has to be synced,
    /// if it keeps the message.
    ///
    /// # Errors
    /// Another message of this id waits: the message, and what its publisher is told.
    pub fn schedule(
        &self,
        delays: &Handle,
        id: &[u8],
        message: Message,
    ) -> Result<Scheduled, Box<(Message, String)>> {
        let _turn = self.schedule_ids.turn();
        if self.find(delays, id).is_some() {
            let text = format!(
                "a delayed message with x-schedule-id '{}' waits in exchange '{}' already; cancel that one first, or \
                 take another id",
                short(id),
                delays.name()
            );
            return Err(Box::new((message, text)));
        }
        let due_at_ms = message.expires_at_ms().unwrap_or_default();
        let (taken_at_ms, is_kept) =
            (message.taken_at_ms, message.persistent && delays.declaration().is_kept());
        let message =
            Arc::new(if is_kept { Message { stored_by: StoredBy::due(), ..message } } else { message });
        // If the exchange has gone the message comes too late, as any publish does then.
        let Some(place) = delays.reserve(0) else { return Ok(None) };
        let waiting = Waiting { place, due_at_ms, message: is_kept.then(|| message.clone()) };
        self.schedule_ids.insert(delays, id, waiting, self.surroundings.store.applied());
        delays.insert(vec![(place, message.clone())]);
        let Some(marks) = delays.marks_id().filter(|_| is_kept) else { return Ok(None) };
        let line = delays.line_id(place.level, Stored::Kept);
        let publish = publish_operation(&message, SmallVec::from([(line, place.seq)]));
        let mark = store::Publish {
            timestamp_ms: taken_at_ms,
            due_at_ms: Some(hash(id)),
            destinations: SmallVec::from([(marks, place.seq)]),
            parts: mark_parts(id, due_at_ms),
        };
        let both = vec![Operation::Publish(publish), Operation::Publish(mark)];
        Ok(Some((message, both, delays.sync())))
    }

    /// Does what a message to `amq.schedule` asks for. The store is told with this message.
    ///
    /// # Errors
    /// `Invalid`: what is asked makes no sense. `Refused`: the caller may not write to the exchange.
    pub fn cancel_delayed(
        &self,
        caller: &Caller,
        asks: &Arc<Message>,
        headers: &[u8],
    ) -> Result<Cancelled, Error> {
        if asks.routing_key() != CANCEL {
            let text =
                format!("exchange '{SCHEDULE}' takes the key '{CANCEL}', not '{}'", asks.routing_key());
            return Err(Error::Invalid(text));
        }
        let Some(id) = schedule_id(headers)? else {
            return Err(Error::Invalid(
                "the header 'x-schedule-id' must say which message is cancelled".into(),
            ));
        };
        let named = Table::decode(headers)
            .ok()
            .and_then(|table| table.get_str("x-schedule-exchange").map(String::from));
        let Some(exchange) = named else {
            let name = String::from_utf8_lossy(EXCHANGE);
            return Err(Error::Invalid(format!(
                "the header '{name}' must name the exchange that delays the message"
            )));
        };
        self.withdraw(caller, &exchange, &id, asks)
    }

    /// Cancels the delayed message of an id. False if none waits.
    ///
    /// # Errors
    /// `Refused`: the caller may not write to the exchange.
    pub fn cancel(&self, caller: &Caller, exchange: &str, id: &str) -> Result<bool, Error> {
        // Of a message that the store has not listed yet it is told by whatever comes next.
        let parts = Parts::gathered(&method::address(SCHEDULE, CANCEL), &[0, 0], Bytes::new());
        let now_ms = self.surroundings.clock.now_ms();
        let asks = Message::from_parts(parts, now_ms, None).expect("no properties are properties");
        let asks = Arc::new(Message { stored_by: StoredBy::due(), ..asks });
        match self.withdraw(caller, exchange, id.as_bytes(), &asks)? {
            Cancelled::Done(told) => {
                if let Some((operation, sync)) = told {
                    let ticket = self.surroundings.store.append(vec![operation], Urgency::Written(sync));
                    asks.stored_by.add(ticket);
                }
                Ok(true)
            }
            Cancelled::Refused(_) => Ok(false),
        }
    }

    fn withdraw(
        &self,
        caller: &Caller,
        exchange: &str,
        id: &[u8],
        asks: &Arc<Message>,
    ) -> Result<Cancelled, Error> {
        caller.access.check(Action::Write, What::Exchange, exchange)?;
        let delays = self.read().delays.get(exchange).cloned();
        let _turn = self.schedule_ids.turn();
        let found = delays.and_then(|delays| {
            let waiting = self.find(&delays, id)?;
            let stored = delays.withdraw(waiting.place, waiting.due_at_ms, asks)?;
            self.schedule_ids.remove(&delays, id, waiting.place);
            Some((delays, waiting.place, stored, waiting.message))
        });
        let Some((delays, place, stored, message)) = found else {
            return Ok(Cancelled::Refused(format!(
                "no delayed message with x-schedule-id '{}' waits in exchange '{exchange}'; it is unknown, or its \
                 time has come",
                short(id)
            )));
        };
        if stored == Stored::No {
            return Ok(Cancelled::Done(None));
        }
        let settle = Operation::Settle {
            queue: delays.line_id(place.level, stored),
            runs: [place.seq].into_iter().collect(),
        };
        let gone = self.unmark(&delays, place, message.as_deref()).into_iter().chain([settle]).collect();
        Ok(Cancelled::Done(Some((Operation::Atomic(gone), delays.sync()))))
    }

    /// The delayed message of this id that waits, if one does.
    fn find(&self, delays: &Handle, id: &[u8]) -> Option<Waiting> {
        let waits = |waiting: &Waiting| delays.waits(waiting.place, waiting.due_at_ms);
        match self.schedule_ids.get(delays, id) {
            Some(recent) if waits(&recent) => Some(recent),
            _ => marked(&self.surroundings.store, delays, id).into_iter().find(waits),
        }
    }

    /// A delayed message with this id, if it has one, goes its way: what the store is told.
    pub(super) fn unschedule(&self, delays: &Handle, place: Place, message: &Message) -> Option<Operation> {
        let read = Properties::parse(message.parts.properties()).ok()?;
        let id = schedule_id(read.headers?).ok().flatten()?;
        self.schedule_ids.remove(delays, &id, place);
        self.unmark(delays, place, Some(message))
    }

    /// What the store is told when the message of a mark goes; nothing is known of a message that is not in
    /// memory, but that the store has it.
    fn unmark(&self, delays: &Handle, place: Place, message: Option<&Message>) -> Option<Operation> {
        let queue = delays.marks_id().filter(|_| delays.declaration().is_kept())?;
        let runs = [place.seq].into_iter().collect();
        let applied = self.surroundings.store.applied();
        // A settlement may come before the mark does, but it stays if none ever comes: a message of the same id
        // that has come by way of another exchange has no mark.
        Some(match message.is_some_and(|message| !message.is_applied(applied)) {
            true => Operation::Settle { queue, runs },
            false => Operation::Purge { queue, runs },
        })
    }
}

/// The messages that are marked with this id in the store.
fn marked(store: &Store, delays: &Handle, id: &[u8]) -> Vec<Waiting> {
    let Some(marks) = delays.marks_id().filter(|_| delays.declaration().is_kept()) else { return Vec::new() };
    let found = store.due_at(marks, hash(id)).into_iter();
    let line = delays.line_id(0, Stored::Kept);
    // A mark may be left of a message that went before the mark came.
    let found = found.filter(|mark| store.is_live(line, mark.seq)).filter_map(|mark| {
        let due_at_ms = u64::from_le_bytes(mark.parts[2][..].try_into().ok()?);
        let place = Place { level: 0, seq: mark.seq };
        (*mark.parts[0] == *id).then_some(Waiting { place, due_at_ms, message: None })
    });
    found.collect()
}

fn mark_parts(id: &[u8], due_at_ms: u64) -> store::Parts {
    store::Parts::Own([
        Bytes::copy_from_slice(id),
        Bytes::new(),
        Bytes::copy_from_slice(&due_at_ms.to_le_bytes()),
    ])
}

fn hash(id: &[u8]) -> u64 {
    message::hash(id) as u64 | MARK
}

/// An id as it fits into a reply.
fn short(id: &[u8]) -> String {
    String::from_utf8_lossy(id).chars().take(40).collect()
}

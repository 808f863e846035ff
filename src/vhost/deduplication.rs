//! Messages that come twice: what `x-message-deduplication` exchanges know again by the header
//! `x-deduplication-header`, and let pass once.
//!
//! What an exchange knows is a window: so many values, each for so long. If it is to outlive the broker, each
//! value is also a small message in a queue that nobody else sees, written in one record with the message it
//! came with; that queue has the same limits, so that the store forgets what the window does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use amqp::{Properties, Table, Value, table};
use bytes::Bytes;
use store::{Operation, QueueId, Run, Seq, Wanted};

use super::definitions::{self, Definition};
use super::{Topology, Vhost};
use crate::delivery::{Place, Stored};
use crate::error::Error;
use crate::message::{Message, StoredBy, deduplication_value, publish_operation};
use crate::parts::Parts;
use crate::queue::{Arguments, Declaration, Handle, OnDuplicate};

/// The type of exchange that lets a message pass once.
pub const KIND: &str = "x-message-deduplication";

/// For how long, in milliseconds, if not as the exchange says.
const TTL: &[u8] = b"x-cache-ttl";
/// What becomes of a duplicate: an argument of the exchange.
const ON_DUPLICATE: &[u8] = b"x-deduplication-on-duplicate";

/// What the arguments of an exchange say of duplicates.
///
/// # Errors
/// `Invalid`: what it is, and what it can be.
pub fn on_duplicate(arguments: &exchanges::Arguments) -> Result<OnDuplicate, Error> {
    let Some(value) = arguments.get(ON_DUPLICATE) else { return Ok(OnDuplicate::Ack) };
    value.as_bytes().and_then(OnDuplicate::parse).ok_or_else(|| {
        Error::Invalid(format!(
            "Invalid argument {value}, 'x-deduplication-on-duplicate' must be ack, nack, return or dead-letter"
        ))
    })
}

/// What an exchange knows again.
#[derive(Debug)]
pub struct Window {
    size: u64,
    ttl_ms: Option<u64>,
    on_duplicate: OnDuplicate,
    // Short sections: a look, and an addition.
    seen: Mutex<Seen>,
    /// Where it is kept, if it is.
    queue: Option<Handle>,
}

/// Values by their hash, and when each is forgotten, in milliseconds since 1970.
#[derive(Debug, Default)]
struct Seen {
    until_ms: HashMap<u128, u64>,
    order: VecDeque<(u128, u64)>,
}

impl Seen {
    /// Whether a value is new. It is known from now on.
    fn is_new(&mut self, value: u128, until_ms: u64, size: u64, now_ms: u64) -> bool {
        if self.until_ms.get(&value).is_some_and(|until_ms| *until_ms > now_ms) {
            return false;
        }
        self.until_ms.insert(value, until_ms);
        self.order.push_back((value, until_ms));
        while self.order.len() as u64 > size || self.order.front().is_some_and(|(_, until)| *until <= now_ms)
        {
            let Some((value, until_ms)) = self.order.pop_front() else { break };
            // It may have come again since it was forgotten.
            if self.until_ms.get(&value) == Some(&until_ms) {
                self.until_ms.remove(&value);
            }
        }
        true
    }
}

/// What a window says of a message.
#[derive(Debug)]
pub enum Verdict {
    /// It passes; the store is told this in the same record, if anything.
    New(Option<Operation>),
    /// It has come before.
    Duplicate(OnDuplicate),
}

impl Window {
    /// Looks whether a message has come before; it is known from now on.
    pub fn judge(&self, properties: &Properties<'_>, now_ms: u64) -> Verdict {
        let headers = || properties.headers.into_iter().flat_map(table::raw_entries);
        let value = properties.headers.and_then(deduplication_value);
        let Some(value) = value else { return Verdict::New(None) };
        let own = headers().find(|(name, _)| *name == TTL).and_then(|(_, raw)| table::decode_value(raw).ok());
        let own_ms = match own {
            Some(Value::Int(ms)) => u64::try_from(ms).ok(),
            _ => None,
        };
        let ttl_ms = own_ms.or(self.ttl_ms);
        let until_ms = ttl_ms.map_or(u64::MAX, |ttl_ms| now_ms.saturating_add(ttl_ms));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.is_new(value, until_ms, self.size, now_ms) {
            return Verdict::Duplicate(self.on_duplicate);
        }
        drop(seen);
        Verdict::New(self.queue.as_ref().and_then(|queue| keep(queue, value, ttl_ms, now_ms)))
    }

    /// Where it is kept, if it is.
    pub fn queue(&self) -> Option<&Handle> {
        self.queue.as_ref()
    }

    /// Knows again what was kept before a start.
    fn restore(&self, store: &store::Store, now_ms: u64) {
        const PAGE_BYTES: usize = 1 << 20;
        let Some(queue) = &self.queue else { return };
        let mut run = Run { first: Seq(0), last: Seq(u64::MAX) };
        let id = queue.line_id(0, Stored::Kept);
        while let Ok(page) = store.read_and_wait(Wanted { queue: id, run, bytes_max: PAGE_BYTES }) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for kept in &page.messages {
                if let Ok(value) = kept.parts[2][..].try_into() {
                    let until_ms = kept.due_at_ms.unwrap_or(u64::MAX);
                    seen.is_new(u128::from_le_bytes(value), until_ms, self.size, now_ms);
                }
            }
            if page.through >= run.last {
                break;
            }
            run.first = Seq(page.through.0 + 1);
        }
    }
}

/// The operation that keeps a value.
fn keep(queue: &Handle, value: u128, ttl_ms: Option<u64>, now_ms: u64) -> Option<Operation> {
    let place: Place = queue.reserve(0)?;
    let marker = Arc::new(Message {
        parts: Parts::gathered(&[0, 0], &[0, 0], Bytes::copy_from_slice(&value.to_le_bytes())),
        persistent: true,
        taken_at_ms: now_ms,
        ttl_ms,
        priority: 0,
        copies: None,
        stored_by: StoredBy::before(),
    });
    let destinations = [(queue.line_id(0, Stored::Kept), place.seq)].into_iter().collect();
    let operation = Operation::Publish(publish_operation(&marker, destinations));
    queue.insert(vec![(place, marker)]);
    Some(operation)
}

impl Vhost {
    /// Whether an exchange knows messages again.
    pub fn knows_again(&self, exchange: &str) -> bool {
        self.read().windows.contains_key(exchange)
    }

    /// The window of an exchange of that kind, which has just been made.
    pub(super) fn make_window(&self, topology: &mut Topology, exchange: &str) -> Result<(), Error> {
        let found = topology.exchange(exchange, &self.name)?;
        let asked = exchanges::Deduplication::parse(&found.arguments).map_err(|e| self.exchange_error(e))?;
        let on_duplicate = on_duplicate(&found.arguments)?;
        let is_kept = asked.on_disk && found.durable;
        let queue = is_kept.then(|| self.make_memory(self.ids.next(), exchange, asked.size, asked.ttl_ms));
        if let Some(queue) = &queue {
            let create = Operation::QueueCreate { queue: queue.id() };
            self.tell(vec![create, self.memory_definition(queue).define()]);
        }
        self.insert_window(topology, exchange, asked, on_duplicate, queue);
        Ok(())
    }

    fn insert_window(
        &self,
        topology: &mut Topology,
        exchange: &str,
        asked: exchanges::Deduplication,
        on_duplicate: OnDuplicate,
        queue: Option<Handle>,
    ) -> Arc<Window> {
        let exchanges::Deduplication { size, ttl_ms, .. } = asked;
        let window = Arc::new(Window { size, ttl_ms, on_duplicate, seen: Mutex::default(), queue });
        topology.windows.insert(exchange.into(), window.clone());
        window
    }

    fn make_memory(&self, id: QueueId, exchange: &str, size: u64, ttl_ms: Option<u64>) -> Handle {
        let arguments = Arguments { length_max: Some(size), message_ttl_ms: ttl_ms, ..Arguments::default() };
        let declaration = Declaration {
            vhost: self.name.clone(),
            name: exchange.into(),
            durable: true,
            auto_delete: false,
            owner: None,
            table: Table::new(),
            is_delays: false,
        };
        Handle::new(id, declaration, arguments, self.surroundings.clone())
    }

    fn memory_definition(&self, queue: &Handle) -> Definition {
        let (vhost, exchange) = (self.name.to_string(), queue.name().to_string());
        Definition::Window(definitions::Delays { vhost, exchange, id: queue.id().0 })
    }

    /// Puts the window of an exchange back, with what it knew.
    ///
    /// # Errors
    /// `NotFound`: the exchange is not there. `Invalid`: it is of another kind.
    pub fn restore_window(
        &self,
        kept: &definitions::Delays,
        recovered: Option<store::RecoveredQueue>,
    ) -> Result<(), Error> {
        let mut topology = self.write();
        let found = topology.exchange(&kept.exchange, &self.name)?;
        let asked = exchanges::Deduplication::parse(&found.arguments).map_err(|e| self.exchange_error(e))?;
        let on_duplicate = on_duplicate(&found.arguments)?;
        let id = QueueId(kept.id);
        self.ids.reserve(id);
        let queue = self.make_memory(id, &kept.exchange, asked.size, asked.ttl_ms);
        if let Some(recovered) = recovered {
            queue.restore(0, &recovered);
        }
        let window = self.insert_window(&mut topology, &kept.exchange, asked, on_duplicate, Some(queue));
        drop(topology);
        window.restore(&self.surroundings.store, self.surroundings.clock.now_ms());
        Ok(())
    }

    /// An exchange is gone: what the store is to be told.
    pub(super) fn without_window(&self, topology: &mut Topology, exchange: &str) -> Vec<Operation> {
        let Some(window) = topology.windows.remove(exchange) else { return Vec::new() };
        let Some(queue) = &window.queue else { return Vec::new() };
        vec![self.memory_definition(queue).undefine(), Operation::QueueDelete { queue: queue.id() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_for_its_time_and_among_so_many() {
        let mut seen = Seen::default();
        assert!(seen.is_new(1, 100, 2, 0));
        assert!(!seen.is_new(1, 100, 2, 99));
        assert!(seen.is_new(1, 300, 2, 100));
        assert!(seen.is_new(2, 300, 2, 100));
        assert!(seen.is_new(3, 300, 2, 100));

        assert!(seen.is_new(1, 300, 2, 100), "it was the oldest of three");
        assert!(!seen.is_new(3, 300, 2, 100));
        assert!(seen.until_ms.len() <= 2 && seen.order.len() <= 2);
    }
}

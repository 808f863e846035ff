//! Messages that come twice: what `x-message-deduplication` exchanges know again by the header
//! `x-deduplication-header`, and let pass once.
//!
//! What an exchange knows is a window: so many values, each for so long. If it is to outlive the broker, each
//! value is also a small message in a queue that nobody else sees, written in one record with the message it
//! came with; that queue has the same limits, so that the store forgets what the window does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqp::{Properties, Value, table};
use bytes::Bytes;
use store::{Operation, QueueId, Run, Seq, Wanted};

use super::definitions::{self, Definition};
use super::{Topology, Vhost};
use crate::delivery::{ConnectionId, Place, Stored};
use crate::error::Error;
use crate::message::{Message, StoredBy, deduplication_value, publish_operation};
use crate::parts::Parts;
use crate::queue::{self, Arguments, Handle, OnDuplicate, With};

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

/// Values by their hash.
#[derive(Debug, Default)]
struct Seen {
    values: HashMap<u128, Sight>,
    order: VecDeque<(u128, u64)>,
}

/// A value that has been seen.
#[derive(Clone, Copy, Debug)]
struct Sight {
    /// When it is forgotten, in milliseconds since 1970.
    until_ms: u64,
    /// The store has not been told yet of the message that it came with.
    pending: Option<Pending>,
}

/// A message that is on its way to its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who published it.
    pub connection: ConnectionId,
    /// None of its queues can refuse it.
    pub is_certain: bool,
}

impl Seen {
    /// What is known of a value.
    fn get(&self, value: u128, now_ms: u64) -> Option<Sight> {
        self.values.get(&value).copied().filter(|sight| sight.until_ms > now_ms)
    }

    /// A value is known from now on.
    fn insert(&mut self, value: u128, sight: Sight, size: u64, now_ms: u64) {
        let until_ms = sight.until_ms;
        self.values.insert(value, sight);
        self.order.push_back((value, until_ms));
        while self.order.len() as u64 > size || self.order.front().is_some_and(|(_, until)| *until <= now_ms)
        {
            let Some((value, until_ms)) = self.order.pop_front() else { break };
            // It may have come again since it was forgotten.
            if self.values.get(&value).is_some_and(|sight| sight.until_ms == until_ms) {
                self.values.remove(&value);
            }
        }
    }

    /// The message that a value came with was refused.
    fn forget(&mut self, value: u128) {
        self.values.remove(&value);
        self.order.retain(|(other, _)| *other != value);
    }
}

/// What a window says of a message.
#[derive(Debug)]
pub enum Verdict {
    /// It passes, with this if its value is known from now on.
    New(Option<With>),
    /// It has come before.
    Duplicate(OnDuplicate),
}

impl Window {
    /// Looks whether a message has come before; it is known from now on.
    pub fn judge(self: &Arc<Self>, properties: &Properties<'_>, pending: Pending, now_ms: u64) -> Verdict {
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
        let mut seen = self.lock();
        match seen.get(value, now_ms).map(|sight| sight.pending) {
            // The store is told of both together.
            Some(Some(before)) if before == pending && pending.is_certain => {
                return Verdict::Duplicate(self.on_duplicate);
            }
            // Nobody can say yet whether the first one will be safe.
            Some(Some(_)) => return Verdict::Duplicate(OnDuplicate::Nack),
            Some(None) => return Verdict::Duplicate(self.on_duplicate),
            None => {}
        }
        seen.insert(value, Sight { until_ms, pending: Some(pending) }, self.size, now_ms);
        drop(seen);
        let claim = Claim { window: self.clone(), value, ttl_ms, now_ms, is_settled: false };
        Verdict::New(Some(With::Claim(Box::new(claim))))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut seen = self.lock();
            for kept in &page.messages {
                if let Ok(value) = kept.parts[2][..].try_into() {
                    let until_ms = kept.due_at_ms.unwrap_or(u64::MAX);
                    let sight = Sight { until_ms, pending: None };
                    seen.insert(u128::from_le_bytes(value), sight, self.size, now_ms);
                }
            }
            if page.through >= run.last {
                break;
            }
            run.first = Seq(page.through.0 + 1);
        }
    }
}

/// A value whose message is on its way to its queues.
#[derive(Debug)]
struct Claim {
    window: Arc<Window>,
    value: u128,
    ttl_ms: Option<u64>,
    now_ms: u64,
    is_settled: bool,
}

impl queue::Claim for Claim {
    fn settle(&mut self, is_taken: bool) -> Option<Operation> {
        if !is_taken {
            // Its publisher sends it again.
            return None;
        }
        self.is_settled = true;
        let queue = self.window.queue.as_ref()?;
        keep(queue, self.value, self.ttl_ms, self.now_ms)
    }

    fn told(&mut self) {
        if let Some(sight) = self.window.lock().values.get_mut(&self.value).filter(|_| self.is_settled) {
            sight.pending = None;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_settled {
            self.window.lock().forget(self.value);
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
        self.hidden_queue(id, exchange, true, false, arguments)
    }

    fn memory_definition(&self, queue: &Handle) -> Definition {
        Definition::Window(self.hidden_definition(queue))
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
        let mut is_new = |value, until_ms, now_ms| {
            let is_new = seen.get(value, now_ms).is_none();
            if is_new {
                seen.insert(value, Sight { until_ms, pending: None }, 2, now_ms);
            }
            is_new
        };
        assert!(is_new(1, 100, 0));
        assert!(!is_new(1, 100, 99));
        assert!(is_new(1, 300, 100));
        assert!(is_new(2, 300, 100));
        assert!(is_new(3, 300, 100));

        assert!(is_new(1, 300, 100), "it was the oldest of three");
        assert!(!is_new(3, 300, 100));
        seen.forget(3);
        assert!(seen.get(3, 100).is_none() && seen.values.len() <= 1 && seen.order.len() <= 1);
    }
}

//! What is said of a vhost itself: its description, its limits, what its queues are if nobody says; and its end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use amqp::{Table, Value};
use store::Operation;
use tracing::info;

use super::definitions::{self, Definition};
use super::{QueueFlags, Topology, Vhost};
use crate::auth::limits::MAX_QUEUES;
use crate::error::Error;
use crate::queue::{DeleteIf, Flags};

impl Vhost {
    /// What is said of it.
    pub fn about(&self) -> Arc<definitions::Vhost> {
        self.about.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something else is said of it. Whoever calls this tells the store.
    pub fn describe(&self, about: definitions::Vhost) {
        let is_traced = about.tracing;
        *self.about.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(about);
        if self.is_traced.swap(is_traced, Ordering::Relaxed) != is_traced {
            // Messages that go a way which is remembered are not looked at. The topology itself may be held by a draft.
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Routes that are remembered are looked up again: what is allowed may have changed.
    pub fn forget_routes(&self) {
        drop(self.write());
    }

    /// Whether it has been deleted, though somebody still holds it.
    pub fn is_deleted(&self) -> bool {
        self.read().is_closed
    }

    /// Ends everything in it. Nothing can be declared in it afterwards. What the store has to be told.
    pub fn close(&self) -> Vec<Operation> {
        let mut topology = self.write();
        topology.is_closed = true;
        let bindings =
            topology.exchanges.bindings().filter(|b| topology.is_kept(&b.source.to_string(), &b.target));
        let mut operations: Vec<Operation> =
            bindings.map(|binding| self.binding_definition(binding).undefine()).collect();
        let durable = topology.exchanges.iter().filter(|exchange| exchange.durable);
        operations.extend(durable.map(|exchange| self.exchange_definition(exchange).undefine()));
        let policies = topology.policies.iter().cloned().map(Definition::Policy);
        operations.extend(policies.map(|policy| policy.undefine()));
        let delaying: Vec<Arc<str>> = topology.delays.keys().cloned().collect();
        delaying.iter().for_each(|exchange| operations.extend(self.without_delays(&mut topology, exchange)));
        let knowing: Vec<Arc<str>> = topology.windows.keys().cloned().collect();
        knowing.iter().for_each(|exchange| operations.extend(self.without_window(&mut topology, exchange)));
        let queues: Vec<_> = topology.queues.values().cloned().collect();
        let mut messages = 0;
        let dead: Vec<_> = queues.iter().map(|queue| queue.delete(DeleteIf::Always)).collect();
        for (queue, dead) in queues.iter().zip(&dead) {
            messages += dead.as_ref().map_or(0, |dead| dead.len());
            topology.queues.remove(queue.name());
            topology.exchanges.remove_queue(queue);
            if queue.declaration().is_kept() {
                operations.push(self.queue_definition(queue).undefine());
                operations.extend(queue.line_ids().map(|queue| Operation::QueueDelete { queue }));
            }
        }
        topology.owned.clear();
        drop(topology);
        info!(vhost = %self.name, queues = queues.len(), messages, "vhost deleted");
        operations
    }

    /// The arguments of a queue, with the type that queues of this vhost have if nobody says one and they can be
    /// of it.
    pub(super) fn with_default_type(&self, flags: QueueFlags, table: &Table) -> Option<Table> {
        let about = self.about();
        let kind = about.default_queue_type.as_ref().or(self.queue_type.as_ref())?;
        let is_plain = !flags.exclusive && !flags.auto_delete && flags.durable;
        let fits = kind == "classic" || is_plain;
        if !fits || table.get("x-queue-type").is_some() {
            return None;
        }
        let entries = table.iter().map(|(name, value)| (name.to_string(), value.clone()));
        Some(entries.chain([("x-queue-type".to_string(), Value::text(kind.as_str()))]).collect())
    }

    /// Whether there may be one more queue.
    pub(super) fn check_room(&self, topology: &Topology, name: &str) -> Result<(), Error> {
        let Some(max) = self.about().limits.get(MAX_QUEUES) else { return Ok(()) };
        if (topology.queues.len() as u64) < max {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "cannot declare queue '{name}': queue limit in vhost '{}' ({max}) is reached",
            self.name
        )))
    }
}

impl Topology {
    /// Nothing is made in a vhost that is gone.
    pub(super) fn check_open(&self, vhost: &str) -> Result<(), Error> {
        if self.is_closed { Err(Error::NoVhost(vhost.into())) } else { Ok(()) }
    }
}

/// Whether queues can be of this type.
///
/// # Errors
/// `Invalid`, naming it.
pub fn check_queue_type(kind: &str) -> Result<(), Error> {
    let table = Table::from_iter([("x-queue-type", Value::text(kind))]);
    let durable = Flags { durable: true, ..Flags::default() };
    crate::queue::Arguments::parse(&table, durable, "", "")
        .map(drop)
        .map_err(|_| Error::Invalid(format!("default_queue_type is '{kind}', and must be classic or quorum")))
}

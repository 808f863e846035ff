//! What is in a vhost, as operators look through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amqp::Table;
use exchanges::Target;

use super::arguments::from_exchanges;
use super::policy::Effective;
use super::{To, Vhost};
use crate::queue::Handle;

/// A binding as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingLook {
    /// The exchange it leaves from; empty for the default one.
    pub source: String,
    /// Where it leads.
    pub destination: String,
    /// It leads to a queue, not to an exchange.
    pub to_queue: bool,
    /// Its key.
    pub routing_key: String,
    /// Its arguments.
    pub arguments: Table,
}

impl Vhost {
    /// So many of the queues that have been declared, by name, behind so many others.
    pub fn page_of_queues(&self, skipped: usize, max: usize) -> Vec<Handle> {
        self.read().queues.values().skip(skipped).take(max).cloned().collect()
    }

    /// The queues that have been declared, by name.
    pub fn declared_queues(&self) -> Vec<Handle> {
        self.read().queues.values().cloned().collect()
    }

    /// How many there are.
    pub fn queue_count(&self) -> usize {
        self.read().queues.len()
    }

    /// The exchanges, each with its arguments.
    pub fn exchanges(&self) -> Vec<(exchanges::Exchange, Table)> {
        let with_table =
            |exchange: &exchanges::Exchange| (exchange.clone(), from_exchanges(&exchange.arguments));
        self.read().exchanges.iter().map(with_table).collect()
    }

    /// How many there are.
    pub fn exchange_count(&self) -> usize {
        self.read().exchanges.iter().count()
    }

    /// The exchange of that name.
    pub fn exchange(&self, name: &str) -> Option<(exchanges::Exchange, Table)> {
        let topology = self.read();
        let exchange = topology.exchanges.get(name.as_bytes())?;
        Some((exchange.clone(), from_exchanges(&exchange.arguments)))
    }

    /// Which policies hold for an exchange.
    pub fn policies_of_exchange(&self, name: &str) -> Effective {
        self.read().policies.of_exchange(name).effective()
    }

    /// All bindings, with those that every queue has to the default exchange.
    pub fn bindings(&self) -> Vec<BindingLook> {
        let topology = self.read();
        let own = topology.queues.keys().map(|name| own_binding(name));
        own.chain(topology.exchanges.bindings().map(look)).collect()
    }

    /// The bindings that leave from an exchange.
    pub fn bindings_from(&self, source: &str) -> Vec<BindingLook> {
        let topology = self.read();
        if source.is_empty() {
            return topology.queues.keys().map(|name| own_binding(name)).collect();
        }
        topology.exchanges.bindings_from(source.as_bytes()).map(look).collect()
    }

    /// The bindings that lead to a queue or an exchange; none if it is not there.
    pub fn bindings_to(&self, to: To<'_>) -> Vec<BindingLook> {
        let topology = self.read();
        let Ok(target) = topology.target(to, &self.name) else { return Vec::new() };
        let own = match to {
            To::Queue(name) => Some(own_binding(name)),
            To::Exchange(_) => None,
        };
        own.into_iter().chain(topology.exchanges.bindings_to(&target).map(look)).collect()
    }

    /// The queues that dead letters go to: those that exchanges lead to which some queue names for them, and
    /// `amq.dead`.
    pub fn dead_letter_queues(&self) -> Vec<Handle> {
        let topology = self.read();
        let named: BTreeSet<Arc<str>> = topology
            .queues
            .values()
            .filter_map(|queue| queue.settings().dead_letter_exchange.clone())
            .collect();
        let mut found: BTreeMap<Arc<str>, Handle> = BTreeMap::new();
        for exchange in named.iter().filter(|exchange| !exchange.is_empty()) {
            for binding in topology.exchanges.bindings_from(exchange.as_bytes()) {
                if let Target::Queue(queue) = &binding.target {
                    found.insert(queue.declaration().name.clone(), queue.clone());
                }
            }
        }
        // By way of the default exchange the key is the queue.
        for queue in topology.queues.values() {
            let settings = queue.settings();
            if settings.dead_letter_exchange.as_deref() == Some("")
                && let Some(name) = &settings.dead_letter_routing_key
                && let Some(dead) = topology.queues.get(name)
            {
                found.insert(name.clone(), dead.clone());
            }
        }
        if let Some(dead) = topology.queues.get(super::dead_letter::DEAD_QUEUE) {
            found.insert(super::dead_letter::DEAD_QUEUE.into(), dead.clone());
        }
        found.into_values().collect()
    }

    /// The exchanges that hold messages back, and how many.
    pub fn delaying_exchanges(&self) -> Vec<(String, usize)> {
        let delays: Vec<Handle> = self.read().delays.values().cloned().collect();
        delays.iter().map(|delays| (delays.name().to_string(), delays.counts().0)).collect()
    }
}

fn own_binding(queue: &str) -> BindingLook {
    BindingLook {
        source: String::new(),
        destination: queue.into(),
        to_queue: true,
        routing_key: queue.into(),
        arguments: Table::new(),
    }
}

fn look(binding: &exchanges::Binding<Handle>) -> BindingLook {
    let (destination, to_queue) = match &binding.target {
        Target::Queue(queue) => (queue.name().to_string(), true),
        Target::Exchange(name) => (name.to_string(), false),
    };
    BindingLook {
        source: binding.source.to_string(),
        destination,
        to_queue,
        routing_key: binding.routing_key.to_string(),
        arguments: from_exchanges(&binding.arguments),
    }
}

//! Many exchanges, queues, bindings and policies at once: all are checked before the first of them is made.
//!
//! A draft holds the vhost's topology, so that what was checked is still so when it is applied.

use std::sync::RwLockWriteGuard;

use amqp::Table;
use exchanges::{Exchanges, Kind, Target};
use hashbrown::HashMap;
use store::Operation;

use super::arguments::{from_exchanges, to_exchanges};
use super::definitions::{self, Binding, Definition};
use super::policy::Policy;
use super::{Topology, Vhost, deduplication};
use crate::auth::limits::MAX_QUEUES;
use crate::error::{Error, Resource};
use crate::queue::{self, Arguments, Declaration, Flags};

/// An exchange as a file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedExchange {
    /// What is kept of it.
    pub kept: definitions::Exchange,
    /// It outlives the broker.
    pub durable: bool,
}

/// A queue as a file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedQueue {
    /// Its name.
    pub name: String,
    /// It outlives the broker.
    pub durable: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Table,
}

/// What a file says is in a vhost.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Policies, of users and of operators.
    pub policies: Vec<Policy>,
    /// Exchanges.
    pub exchanges: Vec<WantedExchange>,
    /// Queues.
    pub queues: Vec<WantedQueue>,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

/// What an import comes to.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Diff {
    /// What is new.
    pub create: Vec<String>,
    /// What is there and becomes what the file says.
    pub change: Vec<String>,
    /// What is there with other properties, which cannot be changed, and stays as it is.
    pub keep: Vec<String>,
    /// What is passed over, and why.
    pub skip: Vec<String>,
    /// How much is there as the file says it.
    pub same: usize,
}

/// A vhost while something is made in it, if all of it can be.
pub struct Draft<'a> {
    vhost: &'a Vhost,
    topology: RwLockWriteGuard<'a, Topology>,
    /// What remains to be made.
    remaining: Contents,
}

impl Vhost {
    /// Holds the vhost for a draft.
    pub fn draft(&self) -> Draft<'_> {
        Draft { vhost: self, topology: self.write(), remaining: Contents::default() }
    }
}

impl Draft<'_> {
    /// Looks what is new in there, and whether it can be. `max_queues` is what the vhost is limited to then.
    ///
    /// # Errors
    /// `NoVhost`, `NotFound`, `UnknownKind`, `Reserved`, `Invalid`: the first that cannot be.
    pub fn check(
        &mut self,
        wanted: Contents,
        about: &definitions::Vhost,
        diff: &mut Diff,
    ) -> Result<(), Error> {
        self.topology.check_open(&self.vhost.name)?;
        self.check_policies(wanted.policies, diff)?;
        let mut scratch = self.check_exchanges(wanted.exchanges, diff)?;
        self.check_queues(wanted.queues, about, diff)?;
        self.check_bindings(wanted.bindings, &mut scratch, diff)
    }

    fn check_policies(&mut self, wanted: Vec<Policy>, diff: &mut Diff) -> Result<(), Error> {
        for policy in wanted {
            policy.check()?;
            let kind = if policy.operator { "operator policy" } else { "policy" };
            let text = format!("{kind} '{}' in vhost '{}'", policy.name, policy.vhost);
            match self.topology.policies.get(&policy.name, policy.operator) {
                Some(before) if *before == policy => {
                    diff.same += 1;
                    continue;
                }
                Some(_) => diff.change.push(text),
                None => diff.create.push(text),
            }
            self.remaining.policies.push(policy);
        }
        Ok(())
    }

    /// The new exchanges, and a place where bindings can be tried.
    fn check_exchanges(
        &mut self,
        wanted: Vec<WantedExchange>,
        diff: &mut Diff,
    ) -> Result<Exchanges<queue::Handle>, Error> {
        let mut scratch = Exchanges::new();
        for exchange in self.topology.exchanges.iter() {
            let declaration = exchanges::Declaration {
                kind: exchange.kind,
                durable: exchange.durable,
                auto_delete: false,
                internal: false,
                arguments: exchange.arguments.clone(),
                alternate: None,
            };
            // The broker's own are in there already.
            let _ = scratch.declare(&exchange.name, declaration);
        }
        for WantedExchange { kept, durable } in wanted {
            let resource = Resource::exchange(&kept.name, &self.vhost.name);
            if kept.name.is_empty() || (kept.name.starts_with("amq.") && !self.has_exchange(&kept.name)) {
                diff.skip.push(format!("{resource}: it belongs to the broker"));
                continue;
            }
            let kind = Kind::parse(kept.kind.as_bytes()).map_err(|_| {
                Error::Invalid(format!("{resource}: {}", Error::UnknownKind(kept.kind.clone())))
            })?;
            let declaration = declaration(&kept, kind, durable);
            if let Some(before) = self.topology.exchanges.get(kept.name.as_bytes()) {
                let is_same = before.kind == kind
                    && before.durable == durable
                    && before.auto_delete == kept.auto_delete
                    && before.internal == kept.internal
                    && before.arguments == declaration.arguments;
                match is_same {
                    true => diff.same += 1,
                    false => diff.keep.push(resource.to_string()),
                }
                continue;
            }
            let text = |error| Error::Invalid(format!("{resource}: {}", self.vhost.exchange_error(error)));
            scratch.declare(kept.name.as_bytes(), declaration).map_err(text)?;
            if kind.name() == deduplication::KIND {
                deduplication::on_duplicate(&to_exchanges(&kept.arguments))?;
            }
            diff.create.push(resource.to_string());
            self.remaining.exchanges.push(WantedExchange { kept, durable });
        }
        Ok(scratch)
    }

    fn check_queues(
        &mut self,
        wanted: Vec<WantedQueue>,
        about: &definitions::Vhost,
        diff: &mut Diff,
    ) -> Result<(), Error> {
        let mut seen: HashMap<String, ()> = HashMap::new();
        for queue in wanted {
            let resource = Resource::queue(&queue.name, &self.vhost.name);
            if seen.insert(queue.name.clone(), ()).is_some() {
                return Err(Error::Invalid(format!("{resource} is there twice")));
            }
            if let Some(before) = self.topology.queues.get(queue.name.as_str()) {
                let declaration = before.declaration();
                let is_same = declaration.durable == queue.durable
                    && declaration.auto_delete == queue.auto_delete
                    && sorted(&before.declared().table) == sorted(&queue.arguments);
                match is_same {
                    true => diff.same += 1,
                    false => diff.keep.push(resource.to_string()),
                }
                continue;
            }
            if queue.name.is_empty() || queue.name.len() > amqp::limits::SHORT_STRING_BYTES_MAX {
                let bytes = queue.name.len();
                return Err(Error::Invalid(format!(
                    "{resource}: its name has {bytes} bytes, and must have 1 to 255"
                )));
            }
            let flags = flags(&queue);
            Arguments::parse(&queue.arguments, flags, &queue.name, &self.vhost.name)?;
            diff.create.push(resource.to_string());
            self.remaining.queues.push(queue);
        }
        let count = (self.topology.queues.len() + self.remaining.queues.len()) as u64;
        match about.limits.get(MAX_QUEUES).filter(|max| count > *max && !self.remaining.queues.is_empty()) {
            Some(max) => Err(Error::Invalid(format!(
                "vhost '{}' would have {count} queues, and its queue limit is {max}",
                self.vhost.name
            ))),
            None => Ok(()),
        }
    }

    fn check_bindings(
        &mut self,
        wanted: Vec<Binding>,
        scratch: &mut Exchanges<queue::Handle>,
        diff: &mut Diff,
    ) -> Result<(), Error> {
        // All bindings that are there, by what tells them apart.
        let own = self.topology.exchanges.bindings();
        let kept = own.map(|binding| self.vhost.binding_definition(binding));
        let mut known: HashMap<Vec<u8>, ()> = kept.map(|binding| (binding.key(), ())).collect();
        let new_queues: HashMap<&str, ()> =
            self.remaining.queues.iter().map(|queue| (queue.name.as_str(), ())).collect();
        let mut remaining = Vec::new();
        for binding in wanted {
            let Binding { source, destination, to_queue, routing_key, .. } = &binding;
            if source.is_empty() {
                // Every queue has it.
                diff.same += 1;
                continue;
            }
            let kind = if *to_queue { "queue" } else { "exchange" };
            let text = format!(
                "binding from '{source}' to {kind} '{destination}' with key '{routing_key}' in vhost '{}'",
                self.vhost.name
            );
            let missing =
                |resource: Resource| Error::Invalid(format!("{text}: {}", Error::NotFound(resource)));
            if scratch.get(source.as_bytes()).is_none() {
                return Err(missing(Resource::exchange(source, &self.vhost.name)));
            }
            let is_there = match to_queue {
                true => {
                    self.topology.queues.contains_key(destination.as_str())
                        || new_queues.contains_key(destination.as_str())
                }
                false => !destination.is_empty() && scratch.get(destination.as_bytes()).is_some(),
            };
            if !is_there {
                return Err(missing(match to_queue {
                    true => Resource::queue(destination, &self.vhost.name),
                    false => Resource::exchange(destination, &self.vhost.name),
                }));
            }
            if known.insert(Definition::Binding(binding.clone()).key(), ()).is_some() {
                diff.same += 1;
                continue;
            }
            // Whether the exchange takes it does not depend on where it leads.
            let target = Target::Exchange("amq.fanout".into());
            let arguments = to_exchanges(&binding.arguments);
            scratch
                .bind(source.as_bytes(), &target, routing_key.as_bytes(), &arguments)
                .map_err(|error| Error::Invalid(format!("{text}: {}", self.vhost.exchange_error(error))))?;
            diff.create.push(text);
            remaining.push(binding);
        }
        self.remaining.bindings = remaining;
        Ok(())
    }

    fn has_exchange(&self, name: &str) -> bool {
        self.topology.exchanges.get(name.as_bytes()).is_some()
    }

    /// Makes what was checked, for this user. What the store has to be told.
    ///
    /// # Errors
    /// None but those of [`Draft::check`], which have been found by then.
    pub fn apply(mut self, by: &str) -> Result<Vec<Operation>, Error> {
        let Draft { vhost, topology, remaining } = &mut self;
        let remaining = std::mem::take(remaining);
        let mut operations = Vec::new();
        let has_policies = !remaining.policies.is_empty();
        for policy in remaining.policies {
            topology.policies.set(policy.clone())?;
            operations.push(Definition::Policy(policy).define());
        }
        for WantedExchange { kept, durable } in remaining.exchanges {
            let kind =
                Kind::parse(kept.kind.as_bytes()).map_err(|_| Error::UnknownKind(kept.kind.clone()))?;
            let declaration = declaration(&kept, kind, durable);
            topology
                .exchanges
                .declare(kept.name.as_bytes(), declaration)
                .map_err(|e| vhost.exchange_error(e))?;
            topology.apply_to_exchange(kept.name.as_bytes());
            if let Some(exchange) = topology.exchanges.get(kept.name.as_bytes()) {
                vhost.tell_exchange_created(exchange, by);
            }
            if kind.name() == deduplication::KIND {
                vhost.make_window(topology, &kept.name)?;
            }
            if durable {
                operations.push(Definition::Exchange(kept).define());
            }
        }
        for wanted in remaining.queues {
            let flags = flags(&wanted);
            let arguments = Arguments::parse(&wanted.arguments, flags, &wanted.name, &vhost.name)?;
            let declaration = Declaration {
                vhost: vhost.name.clone(),
                name: wanted.name.as_str().into(),
                durable: wanted.durable,
                auto_delete: wanted.auto_delete,
                owner: None,
                table: wanted.arguments,
                is_delays: false,
            };
            let queue = vhost.add_queue(topology, declaration, arguments);
            vhost.tell_queue_created(&queue, by);
            if queue.declaration().is_kept() {
                operations.extend(queue.line_ids().map(|queue| Operation::QueueCreate { queue }));
                operations.push(vhost.queue_definition(&queue).define());
            }
        }
        for binding in remaining.bindings {
            let target = match binding.to_queue {
                true => Target::Queue(topology.queue(&binding.destination, &vhost.name)?.clone()),
                false => Target::Exchange(binding.destination.as_str().into()),
            };
            let arguments = to_exchanges(&binding.arguments);
            let (source, key) = (binding.source.as_bytes(), binding.routing_key.as_bytes());
            topology.exchanges.bind(source, &target, key, &arguments).map_err(|e| vhost.exchange_error(e))?;
            vhost.tell_binding("binding.created", by, || binding.clone());
            if topology.is_kept(&binding.source, &target) {
                // In the order that the exchanges have it, by which it is found when it goes.
                let binding = Binding { arguments: from_exchanges(&arguments), ..binding };
                operations.push(Definition::Binding(binding).define());
            }
        }
        if has_policies {
            topology.apply_policies();
        }
        vhost.note_listeners(topology);
        Ok(operations)
    }
}

fn declaration(kept: &definitions::Exchange, kind: Kind, durable: bool) -> exchanges::Declaration {
    exchanges::Declaration {
        kind,
        durable,
        auto_delete: kept.auto_delete,
        internal: kept.internal,
        arguments: to_exchanges(&kept.arguments),
        alternate: None,
    }
}

fn flags(queue: &WantedQueue) -> Flags {
    Flags { durable: queue.durable, exclusive: false, auto_delete: queue.auto_delete }
}

fn sorted(table: &Table) -> Vec<&(String, amqp::Value)> {
    let mut entries: Vec<_> = table.0.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

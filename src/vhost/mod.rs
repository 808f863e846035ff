//! A virtual host: the names of exchanges and queues, and everything that is done by name.
//!
//! Names, permissions and mismatches are checked here, once, whichever door a request came through.
//! Changes that outlive the broker are appended to the store under the same lock that makes them
//! visible, so the log has them in the order in which they happened. The caller waits for the store
//! before it says that a change is made.

mod about;
mod alter;
mod arguments;
mod dead_letter;
mod deduplication;
pub mod definitions;
mod delay;
mod draft;
mod history;
mod news;
pub mod policy;
mod publish;
mod redrive;
mod reply_to;
mod schedule;
mod survey;
mod trace;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use amqp::{Properties, Table};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use exchanges::{Envelope, Exchanges, Kind, Matches, Removed, Target};
use hashbrown::HashMap;
use smallvec::SmallVec;
use store::{Operation, QueueId, Urgency};
use tracing::debug;

use crate::auth::{Access, Action, User};
use crate::delivery::ConnectionId;
use crate::error::{Error, Mismatch, Resource, What};
use crate::message::Message;
use crate::news::NOBODY;
use crate::queue::{self, Arguments, Dead, Declaration, DeleteIf, Kept, Surroundings};
use crate::roster::Churn;
use crate::tally::{Tallies, Tally};
use crate::trail::Trails;
pub use about::check_queue_type;
pub use arguments::BCC;
use arguments::{MessageProperties, from_exchanges, to_exchanges};
use deduplication::Window;
pub use deduplication::{Pending, Verdict};
use definitions::Definition;
pub use delay::asks_for_delay;
pub use draft::{Contents, Diff, Draft, WantedExchange, WantedQueue};
use history::Histories;
use policy::{Policies, Policy};
pub use publish::{Asked, Fate};
pub use redrive::{Goal, Redrive, Redriven};
pub use reply_to::{REPLY_TO, Requester, Requesters, is_reply_name};
use schedule::Ids;
pub use schedule::{Cancelled, SCHEDULE, delayed_id, schedule_id};
pub use survey::BindingLook;
pub use trace::{Party, Step};
pub use watch::Held;
use watch::Watch;

/// Who asks for something, and with which rights.
#[derive(Clone, Debug)]
pub struct Caller {
    /// On which connection.
    pub connection: ConnectionId,
    /// Who.
    pub user: Arc<User>,
    /// With which rights in this vhost.
    pub access: Arc<Access>,
}

/// The flags of exchange.declare.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExchangeFlags {
    /// Only look whether it is there.
    pub passive: bool,
    /// It outlives the broker.
    pub durable: bool,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
}

/// The flags of queue.declare.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueFlags {
    /// Only look whether it is there; everything else is then ignored.
    pub passive: bool,
    /// It outlives the broker.
    pub durable: bool,
    /// Only this connection may use it, and it goes with it.
    pub exclusive: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
}

/// Where a binding leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// To a queue.
    Queue(&'a str),
    /// To an exchange.
    Exchange(&'a str),
}

/// A virtual host.
#[derive(Debug)]
pub struct Vhost {
    name: Arc<str>,
    // Held for a look, and for an exchange of the pointer.
    about: RwLock<Arc<definitions::Vhost>>,
    /// What it says of tracing, for every message to look at.
    is_traced: AtomicBool,
    /// The type of queues, if neither they nor the vhost say it.
    queue_type: Option<String>,
    surroundings: Surroundings,
    ids: Arc<QueueIds>,
    requesters: Requesters,
    histories: Histories,
    schedule_ids: Ids,
    generation: AtomicU64,
    /// What is counted of exchanges, by name.
    exchange_tallies: DashMap<Arc<str>, Arc<Tally>>,
    // Held for reading while a message is routed, for writing while something is declared or deleted;
    // never across an await. Lock order: vhost, then queue, then outbox.
    topology: RwLock<Topology>,
}

struct Topology {
    exchanges: Exchanges<queue::Handle>,
    // In order, so that a page of a long list costs no more than what is on it.
    queues: BTreeMap<Arc<str>, queue::Handle>,
    /// Exclusive queues, by the connection they go with.
    owned: HashMap<ConnectionId, Vec<queue::Handle>>,
    policies: Policies,
    /// The messages that exchanges hold back, by exchange.
    delays: HashMap<Arc<str>, queue::Handle>,
    /// What exchanges know again, by exchange.
    windows: HashMap<Arc<str>, Arc<Window>>,
    /// The vhost is gone.
    is_closed: bool,
}

/// Gives every queue of the broker its number.
#[derive(Debug, Default)]
pub struct QueueIds(AtomicU64);

impl QueueIds {
    /// Never gives out this number, those of a queue that begins with it, or a smaller one.
    pub fn reserve(&self, id: QueueId) {
        self.0.fetch_max(id.0 + queue::LEVELS_MAX - 1, Ordering::Relaxed);
    }

    /// The first of the numbers for a new queue's lines.
    fn next(&self) -> QueueId {
        QueueId(self.0.fetch_add(queue::LEVELS_MAX, Ordering::Relaxed) + 1)
    }
}

impl Vhost {
    /// An empty vhost, with the exchanges that every vhost has.
    /// Queues are of `queue_type` if neither they nor the vhost say otherwise.
    pub fn new(
        about: definitions::Vhost,
        queue_type: Option<String>,
        surroundings: Surroundings,
        ids: Arc<QueueIds>,
    ) -> Self {
        let topology = Topology {
            exchanges: Exchanges::new(),
            queues: BTreeMap::new(),
            owned: HashMap::new(),
            policies: Policies::default(),
            delays: HashMap::new(),
            windows: HashMap::new(),
            is_closed: false,
        };
        let requesters = Requesters::default();
        let (generation, topology) = (AtomicU64::new(0), RwLock::new(topology));
        let (histories, schedule_ids) = (Histories::default(), Ids::default());
        let name = about.name.as_str().into();
        let is_traced = AtomicBool::new(about.tracing);
        let about = RwLock::new(Arc::new(about));
        let exchange_tallies = DashMap::new();
        Vhost {
            name,
            about,
            is_traced,
            queue_type,
            surroundings,
            ids,
            requesters,
            histories,
            schedule_ids,
            generation,
            exchange_tallies,
            topology,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// When messages are synced, if their queues do not say otherwise.
    pub fn sync(&self) -> store::SyncMode {
        self.surroundings.sync
    }

    /// Who waits for direct replies.
    pub fn requesters(&self) -> &Requesters {
        &self.requesters
    }

    /// What happened to messages, in queues that keep trails.
    pub fn trails(&self) -> &Trails {
        &self.surroundings.trails
    }

    /// What is counted of its messages.
    pub fn tallies(&self) -> &Arc<Tallies> {
        &self.surroundings.tallies
    }

    /// What is counted of an exchange.
    pub fn exchange_tally(&self, exchange: &str) -> Arc<Tally> {
        match self.exchange_tallies.get(exchange) {
            Some(tally) => tally.clone(),
            None => self.exchange_tallies.entry(exchange.into()).or_default().clone(),
        }
    }

    // Exchanges -----------------------------------------------------------------------------------

    /// exchange.declare: makes an exchange, or makes sure that the one there is the same. True if it is
    /// kept: the answer then waits for the store, also when somebody else has just made it.
    ///
    /// # Errors
    /// `UnknownKind`, `Refused`, `NotFound` (passive), `Mismatch`, `Reserved`, `DefaultExchange`, `Invalid`.
    pub fn declare_exchange(
        &self,
        caller: &Caller,
        name: &str,
        kind: &str,
        flags: ExchangeFlags,
        table: &Table,
    ) -> Result<bool, Error> {
        if flags.passive {
            if name.is_empty() {
                return Err(Error::DefaultExchange);
            }
            self.read().exchange(name, &self.name)?;
            return Ok(false);
        }
        let kind = Kind::parse(kind.as_bytes()).map_err(|_| Error::UnknownKind(kind.into()))?;
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        caller.access.check(Action::Configure, What::Exchange, name)?;
        let arguments = to_exchanges(table);
        let declaration = exchanges::Declaration {
            kind,
            durable: flags.durable,
            auto_delete: flags.auto_delete,
            internal: flags.internal,
            arguments,
            alternate: None,
        };
        let mut topology = self.write();
        topology.check_open(&self.name)?;
        if topology.exchanges.get(name.as_bytes()).is_none() {
            self.check_alternate(caller, name, table)?;
        }
        let declared = topology.exchanges.declare(name.as_bytes(), declaration);
        match declared.map_err(|e| self.exchange_error(e))? {
            exchanges::Declared::Existed => Ok(flags.durable),
            exchanges::Declared::Created => {
                topology.apply_to_exchange(name.as_bytes());
                if kind.name() == deduplication::KIND
                    && let Err(error) = self.make_window(&mut topology, name)
                {
                    // It has no bindings yet, so nothing else goes with it.
                    let _ = topology.exchanges.delete(name.as_bytes(), false);
                    return Err(error);
                }
                debug!(vhost = %self.name, exchange = name, kind = kind.name(), "exchange declared");
                let exchange = topology.exchanges.get(name.as_bytes()).expect("it was just made");
                self.tell_exchange_created(exchange, &caller.user.name);
                if !flags.durable {
                    return Ok(false);
                }
                self.tell(vec![self.exchange_definition(exchange).define()]);
                Ok(true)
            }
        }
    }

    /// An alternate exchange needs read on the exchange and write on the alternate.
    fn check_alternate(&self, caller: &Caller, name: &str, table: &Table) -> Result<(), Error> {
        let Some(alternate) = table.get_str("alternate-exchange") else { return Ok(()) };
        caller.access.check(Action::Read, What::Exchange, name)?;
        caller.access.check(Action::Write, What::Exchange, alternate)
    }

    /// exchange.delete. A missing one is fine.
    ///
    /// # Errors
    /// `Refused`, `Reserved`, `DefaultExchange`, `InUse`.
    pub fn delete_exchange(&self, caller: &Caller, name: &str, if_unused: bool) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        if name.starts_with("amq.") {
            return Err(Error::SystemExchange(Resource::exchange(name, &self.name)));
        }
        caller.access.check(Action::Configure, What::Exchange, name)?;
        let mut topology = self.write();
        let removed = topology.exchanges.delete(name.as_bytes(), if_unused);
        let removed = removed.map_err(|e| self.exchange_error(e))?;
        self.forget(&mut topology, &removed, &caller.user.name);
        Ok(())
    }

    /// queue.bind and exchange.bind. True if the binding is kept: the answer then waits for the store.
    ///
    /// # Errors
    /// `Refused`, `NotFound`, `Locked`, `DefaultExchange`, `Invalid`.
    pub fn bind(
        &self,
        caller: &Caller,
        source: &str,
        to: To<'_>,
        routing_key: &str,
        table: &Table,
    ) -> Result<bool, Error> {
        let mut topology = self.write();
        topology.check_open(&self.name)?;
        self.check_binding(caller, &topology, source, to, routing_key)?;
        topology.exchange(source, &self.name)?;
        let target = topology.target(to, &self.name)?;
        if let Target::Queue(queue) = &target {
            check_owner(queue, caller.connection)?;
        }
        let arguments = to_exchanges(table);
        let bound = topology.exchanges.bind(source.as_bytes(), &target, routing_key.as_bytes(), &arguments);
        let is_new = bound.map_err(|e| self.exchange_error(e))?;
        let is_kept = topology.is_kept(source, &target);
        let remembers = topology.exchange(source, &self.name)?.kind.name() == history::KIND;
        if is_new {
            let (target, source) = (target.clone(), source.into());
            let binding = exchanges::Binding { source, target, routing_key: routing_key.into(), arguments };
            self.note_listeners(&topology);
            self.tell_binding("binding.created", &caller.user.name, || self.binding(&binding));
            if is_kept {
                self.tell(vec![self.binding_definition(&binding).define()]);
            }
        }
        drop(topology);
        if is_new && remembers {
            self.replay_history(source, &target);
        }
        Ok(is_kept)
    }

    /// queue.unbind and exchange.unbind. What was never bound, or is not there, is fine.
    ///
    /// # Errors
    /// `Refused`, `Locked`, `DefaultExchange`.
    pub fn unbind(
        &self,
        caller: &Caller,
        source: &str,
        to: To<'_>,
        routing_key: &str,
        table: &Table,
    ) -> Result<(), Error> {
        let mut topology = self.write();
        self.check_binding(caller, &topology, source, to, routing_key)?;
        let Ok(target) = topology.target(to, &self.name) else { return Ok(()) };
        let arguments = to_exchanges(table);
        if let Target::Queue(queue) = &target {
            let is_this = |b: &exchanges::Binding<queue::Handle>| {
                *b.source == *source.as_bytes()
                    && *b.routing_key == *routing_key.as_bytes()
                    && b.arguments == arguments
            };
            if !topology.exchanges.bindings_to(&target).any(is_this) {
                return Ok(());
            }
            check_owner(queue, caller.connection)?;
        }
        if topology.exchanges.get(source.as_bytes()).is_none() {
            return Ok(());
        }
        let removed =
            topology.exchanges.unbind(source.as_bytes(), &target, routing_key.as_bytes(), &arguments);
        let removed = removed.map_err(|e| self.exchange_error(e))?;
        self.forget(&mut topology, &removed, &caller.user.name);
        Ok(())
    }

    /// Checks whether a binding may be made or removed: write on the destination, read on the source,
    /// and on the key if the source is a topic exchange.
    fn check_binding(
        &self,
        caller: &Caller,
        topology: &Topology,
        source: &str,
        to: To<'_>,
        routing_key: &str,
    ) -> Result<(), Error> {
        let (what, name) = match to {
            To::Queue(name) => (What::Queue, name),
            To::Exchange(name) => (What::Exchange, name),
        };
        if source.is_empty() || (what == What::Exchange && name.is_empty()) {
            return Err(Error::DefaultExchange);
        }
        caller.access.check(Action::Write, what, name)?;
        caller.access.check(Action::Read, What::Exchange, source)?;
        match topology.is_topic(source) {
            true => caller.access.check_topic(Action::Read, source, routing_key),
            false => Ok(()),
        }
    }

    // Queues --------------------------------------------------------------------------------------

    /// queue.declare: makes a queue, or makes sure that the one there is the same. The empty name asks
    /// for a new one. True if it is kept: the answer then waits for the store, also when somebody else
    /// has just made it.
    ///
    /// # Errors
    /// `Reserved`, `Refused`, `NotFound` (passive), `Locked`, `Mismatch`, `Invalid`.
    pub fn declare_queue(
        &self,
        caller: &Caller,
        name: &str,
        flags: QueueFlags,
        table: &Table,
    ) -> Result<(queue::Handle, bool), Error> {
        if flags.passive {
            let queue = self.read().queue(name, &self.name)?.clone();
            check_owner(&queue, caller.connection)?;
            queue.touch();
            return Ok((queue, false));
        }
        if name.starts_with("amq.") {
            return Err(Error::Reserved { what: What::Queue, name: name.into() });
        }
        let name: Arc<str> = if name.is_empty() { generated("amq.gen-").into() } else { name.into() };
        caller.access.check(Action::Configure, What::Queue, &name)?;
        if !self.read().queues.contains_key(&name) {
            check_dead_letter_exchange(caller, &name, table)?;
        }
        Churn::count(&self.surroundings.churn.queues_declared);
        self.make_queue(name, caller.connection, &caller.user.name, flags, table)
    }

    /// Makes a queue, or makes sure that the one there is the same. True if it is kept.
    fn make_queue(
        &self,
        name: Arc<str>,
        connection: ConnectionId,
        by: &str,
        flags: QueueFlags,
        table: &Table,
    ) -> Result<(queue::Handle, bool), Error> {
        let mut topology = self.write();
        topology.check_open(&self.name)?;
        let typed = self.with_default_type(flags, table);
        if let Some(queue) = topology.queues.get(&name) {
            check_owner(queue, connection)?;
            // The default may have been another when the queue was made.
            let is_same = check_same(queue, flags, table);
            is_same.or_else(|error| match &typed {
                Some(table) => check_same(queue, flags, table),
                None => Err(error),
            })?;
            queue.touch();
            return Ok((queue.clone(), queue.declaration().is_kept()));
        }
        self.check_room(&topology, &name)?;
        let table = typed.as_ref().unwrap_or(table);
        let arguments = Arguments::parse(table, flags.of_type(), &name, &self.name)?;
        let declaration = Declaration {
            vhost: self.name.clone(),
            name: name.clone(),
            durable: flags.durable,
            auto_delete: flags.auto_delete,
            owner: flags.exclusive.then_some(connection),
            table: table.clone(),
            is_delays: false,
        };
        let queue = self.add_queue(&mut topology, declaration, arguments);
        if flags.exclusive {
            topology.owned.entry(connection).or_default().push(queue.clone());
        }
        Churn::count(&self.surroundings.churn.queues_created);
        debug!(vhost = %self.name, queue = %name, "queue declared");
        self.tell_queue_created(&queue, by);
        let is_kept = queue.declaration().is_kept();
        if is_kept {
            let create = queue.line_ids().map(|queue| Operation::QueueCreate { queue });
            let define = self.queue_definition(&queue).define();
            self.tell(create.chain([define]).collect());
        }
        Ok((queue, is_kept))
    }

    /// A queue that nothing stands against. The store has not been told.
    fn add_queue(
        &self,
        topology: &mut Topology,
        declaration: Declaration,
        arguments: Arguments,
    ) -> queue::Handle {
        let queue = queue::Handle::new(self.ids.next(), declaration, arguments, self.surroundings.clone());
        let name = queue.declaration().name.clone();
        topology.exchanges.add_queue(name.as_bytes(), queue.clone());
        topology.queues.insert(name, queue.clone());
        topology.apply_to_queue(&queue);
        queue
    }

    /// The queue of that name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn queue(&self, name: &str) -> Result<queue::Handle, Error> {
        self.read().queue(name, &self.name).cloned()
    }

    /// A queue for basic.consume, basic.get and the like.
    ///
    /// # Errors
    /// `Refused` without read permission, `NotFound`, `Locked`.
    pub fn queue_to_read(&self, caller: &Caller, name: &str) -> Result<queue::Handle, Error> {
        caller.access.check(Action::Read, What::Queue, name)?;
        let queue = self.read().queue(name, &self.name)?.clone();
        check_owner(&queue, caller.connection)?;
        Ok(queue)
    }

    /// queue.delete. A missing queue is fine. Says how many messages were ready.
    ///
    /// # Errors
    /// `Refused`, `Locked`, `InUse`, `NotEmpty`.
    pub fn delete_queue(
        &self,
        caller: &Caller,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<usize, Error> {
        caller.access.check(Action::Configure, What::Queue, name)?;
        let mut topology = self.write();
        let Some(queue) = topology.queues.get(name).cloned() else { return Ok(0) };
        check_owner(&queue, caller.connection)?;
        let removed =
            self.remove(&mut topology, &queue, DeleteIf::Asked { if_unused, if_empty }, &caller.user.name);
        drop(topology);
        let resource = || Resource::queue(name, &self.name);
        match removed {
            Ok(dead) => Ok(dead.len()),
            Err(Kept::InUse) => Err(Error::InUse(resource())),
            Err(Kept::NotEmpty) => Err(Error::NotEmpty(resource())),
        }
    }

    /// Takes a queue away that has reached its end by itself: its last consumer is gone, or nobody has
    /// used it for too long. Unless that has changed by now.
    pub fn end_queue(&self, queue: &queue::Handle, condition: DeleteIf) {
        let removed = self.remove(&mut self.write(), queue, condition, NOBODY);
        if removed.is_ok_and(|dead| !dead.is_empty()) {
            debug!(vhost = %self.name, queue = queue.name(), "queue ended with messages in it");
        }
    }

    fn remove(
        &self,
        topology: &mut Topology,
        queue: &queue::Handle,
        condition: DeleteIf,
        by: &str,
    ) -> Result<Dead, Kept> {
        // A new queue may have the name by now.
        if topology.queues.get(queue.name()) != Some(queue) {
            return Ok(Dead::default());
        }
        let dead = queue.delete(condition)?;
        topology.queues.remove(queue.name());
        if let Some(owner) = queue.declaration().owner
            && let Some(owned) = topology.owned.get_mut(&owner)
        {
            owned.retain(|other| other != queue);
        }
        let removed = topology.exchanges.remove_queue(queue);
        let mut operations = self.without(topology, &removed, by);
        if queue.declaration().is_kept() {
            operations.push(self.queue_definition(queue).undefine());
            operations.extend(queue.line_ids().map(|queue| Operation::QueueDelete { queue }));
        }
        Churn::count(&self.surroundings.churn.queues_deleted);
        debug!(vhost = %self.name, queue = queue.name(), "queue deleted");
        self.tell_queue_deleted(queue, by);
        self.tell(operations);
        Ok(dead)
    }

    /// Takes away the exclusive queues of a connection that is gone.
    pub fn end_connection(&self, connection: ConnectionId) {
        if !self.read().owned.contains_key(&connection) {
            return;
        }
        let mut topology = self.write();
        let owned = topology.owned.remove(&connection).unwrap_or_default();
        let dead: Vec<_> =
            owned.iter().map(|queue| self.remove(&mut topology, queue, DeleteIf::Always, NOBODY)).collect();
        drop(topology);
        drop(dead);
    }

    // Policies ------------------------------------------------------------------------------------

    /// Adds a policy, or changes the one of that name. It holds at once for all that is there.
    ///
    /// # Errors
    /// `Invalid`: what is wrong with it.
    pub fn set_policy(&self, policy: Policy) -> Result<(), Error> {
        let mut topology = self.write();
        topology.policies.set(policy.clone())?;
        self.tell(vec![Definition::Policy(policy).define()]);
        topology.apply_policies();
        Ok(())
    }

    /// Takes a policy away. False if there is none of that name.
    pub fn clear_policy(&self, name: &str, operator: bool) -> bool {
        let mut topology = self.write();
        let Some(policy) = topology.policies.remove(name, operator) else { return false };
        self.tell(vec![Definition::Policy(policy).undefine()]);
        topology.apply_policies();
        true
    }

    /// All policies.
    pub fn policies(&self) -> Vec<Policy> {
        self.read().policies.iter().cloned().collect()
    }

    /// The policy of that name.
    pub fn policy(&self, name: &str, operator: bool) -> Option<Policy> {
        self.read().policies.get(name, operator).cloned()
    }

    /// What policies hold for a queue: the names of the user's and the operator's, and what they say together.
    pub fn policies_of(&self, queue: &queue::Handle) -> policy::Effective {
        let kind = queue.declared().arguments.kind;
        self.read().policies.of_queue(queue.name(), kind).effective()
    }

    /// Puts back a policy that was kept.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn restore_policy(&self, kept: &Policy) -> Result<(), Error> {
        self.write().policies.set(kept.clone())
    }

    // Messages ------------------------------------------------------------------------------------

    /// Whether the caller may publish to an exchange, and whether there is one.
    ///
    /// # Errors
    /// `Refused`, `NotFound`, `InternalExchange`.
    pub fn check_publish(&self, caller: &Caller, exchange: &str) -> Result<(), Error> {
        caller.access.check(Action::Write, What::Exchange, exchange)?;
        let topology = self.read();
        let found = topology.exchange(exchange, &self.name)?;
        if found.internal {
            return Err(Error::InternalExchange(Resource::exchange(exchange, &self.name)));
        }
        Ok(())
    }

    /// Whether the caller may publish with this key; only topic exchanges have such permissions.
    ///
    /// # Errors
    /// `RefusedTopic`.
    pub fn check_topic(&self, caller: &Caller, exchange: &str, key: &str) -> Result<(), Error> {
        match self.read().is_topic(exchange) {
            true => caller.access.check_topic(Action::Write, exchange, key),
            false => Ok(()),
        }
    }

    /// Finds the queues that a message reaches, each once, into `matches`, and where it is held back on its way.
    /// `None` if the exchange has vanished since it was checked.
    pub fn route(&self, message: &Message, matches: &mut Matches<queue::Handle>) -> Option<Held> {
        self.route_from(message.exchange(), message, matches, Watch::of_others(message))
    }

    /// The same from another exchange than the message was published to.
    fn route_from(
        &self,
        exchange: &str,
        message: &Message,
        matches: &mut Matches<queue::Handle>,
        mut watch: Watch<'_>,
    ) -> Option<Held> {
        let routing_key = message.routing_key();
        let properties = MessageProperties(message.parts.properties());
        let copies: SmallVec<[&[u8]; 4]> = message.copies.iter().flatten().map(|key| &**key).collect();
        let envelope = Envelope { copies: &copies, ..Envelope::new(routing_key.as_bytes(), &properties) };
        let topology = self.read();
        let lets_pass = |exchange: &exchanges::Exchange| watch.lets_pass(&topology, exchange);
        topology.exchanges.route_past(exchange.as_bytes(), &envelope, matches, lets_pass).ok()?;
        drop(topology);
        watch.remembered.iter().for_each(|(exchange, length)| self.histories.add(exchange, *length, message));
        let held = watch.held.iter();
        Some(held.filter_map(|(exchange, ms)| Some((self.delays_of(exchange)?, *ms))).collect())
    }

    /// Looks at a message that an exchange has more to do with than to route: whether it may pass. Asked of
    /// exchanges whose routes are not by keys alone.
    pub fn look_at(&self, message: &Message, properties: &Properties<'_>, pending: Pending) -> Verdict {
        let exchange = message.exchange();
        let topology = self.read();
        if let Some(window) = topology.windows.get(exchange).cloned() {
            drop(topology);
            return window.judge(properties, pending, message.taken_at_ms);
        }
        if let Some(found) = topology.exchanges.get(exchange.as_bytes())
            && found.kind.name() == history::KIND
            && let Ok(length) = exchanges::history_length(&found.arguments)
        {
            drop(topology);
            self.histories.add(exchange, length, message);
        }
        Verdict::New(None)
    }

    /// The queues that a message reaches by way of its exchange's alternate.
    pub fn route_to_alternate(&self, message: &Message, matches: &mut Matches<queue::Handle>) -> Held {
        let alternate =
            self.read().exchanges.get(message.exchange().as_bytes()).and_then(|e| e.alternate.clone());
        matches.clear();
        if let Some(alternate) = alternate {
            let watch = Watch::of_all(message);
            return self.route_from(&alternate.to_string(), message, matches, watch).unwrap_or_default();
        }
        Held::new()
    }

    // What is kept --------------------------------------------------------------------------------

    /// Changes with everything that may change where a message goes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// All queues, also those that exchanges have for themselves.
    pub fn queues(&self) -> Vec<queue::Handle> {
        let topology = self.read();
        let windows = topology.windows.values().filter_map(|window| window.queue());
        topology.queues.values().chain(topology.delays.values()).chain(windows).cloned().collect()
    }

    /// Puts back an exchange that outlived the broker.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn restore_exchange(&self, kept: &definitions::Exchange) -> Result<(), Error> {
        let kind = Kind::parse(kept.kind.as_bytes()).map_err(|_| Error::UnknownKind(kept.kind.clone()))?;
        let declaration = exchanges::Declaration {
            kind,
            durable: true,
            auto_delete: kept.auto_delete,
            internal: kept.internal,
            arguments: to_exchanges(&kept.arguments),
            alternate: None,
        };
        let mut topology = self.write();
        topology.exchanges.declare(kept.name.as_bytes(), declaration).map_err(|e| self.exchange_error(e))?;
        topology.apply_to_exchange(kept.name.as_bytes());
        let is_remembered = kept.arguments.get_str("x-cache-persistence") == Some("disk");
        if kind.name() == deduplication::KIND && !is_remembered {
            self.make_window(&mut topology, &kept.name)?;
        }
        Ok(())
    }

    /// Puts back a queue that outlived the broker, without its messages.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn restore_queue(&self, kept: &definitions::Queue) -> Result<queue::Handle, Error> {
        let id = QueueId(kept.id);
        self.ids.reserve(id);
        let name: Arc<str> = kept.name.as_str().into();
        let declaration = Declaration {
            vhost: self.name.clone(),
            name: name.clone(),
            durable: true,
            auto_delete: kept.auto_delete,
            owner: None,
            table: kept.arguments.clone(),
            is_delays: false,
        };
        let table = kept.altered.as_ref().unwrap_or(&kept.arguments);
        let flags = queue::Flags { durable: true, ..queue::Flags::default() };
        let arguments = Arguments::parse(table, flags, &kept.name, &self.name)?;
        let queue = queue::Handle::new(id, declaration, arguments.clone(), self.surroundings.clone());
        if let Some(table) = &kept.altered {
            queue.alter(table.clone(), arguments);
        }
        queue.pause(kept.paused_until_ms);
        let mut topology = self.write();
        topology.exchanges.add_queue(name.as_bytes(), queue.clone());
        topology.queues.insert(name, queue.clone());
        topology.apply_to_queue(&queue);
        Ok(queue)
    }

    /// Puts back a binding that outlived the broker.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn restore_binding(&self, kept: &definitions::Binding) -> Result<(), Error> {
        let mut topology = self.write();
        let target = match kept.to_queue {
            true => Target::Queue(topology.queue(&kept.destination, &self.name)?.clone()),
            false => Target::Exchange(kept.destination.as_str().into()),
        };
        let (source, key) = (kept.source.as_bytes(), kept.routing_key.as_bytes());
        let bound = topology.exchanges.bind(source, &target, key, &to_exchanges(&kept.arguments));
        self.note_listeners(&topology);
        bound.map(drop).map_err(|e| self.exchange_error(e))
    }

    fn exchange_definition(&self, exchange: &exchanges::Exchange) -> Definition {
        Definition::Exchange(definitions::Exchange {
            vhost: self.name.to_string(),
            name: exchange.name.to_string(),
            kind: exchange.kind.name().into(),
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: from_exchanges(&exchange.arguments),
        })
    }

    fn queue_definition(&self, queue: &queue::Handle) -> Definition {
        let declaration = queue.declaration();
        Definition::Queue(definitions::Queue {
            vhost: self.name.to_string(),
            name: declaration.name.to_string(),
            id: queue.id().0,
            auto_delete: declaration.auto_delete,
            arguments: declaration.table.clone(),
            altered: Some(queue.declared().table.clone()).filter(|table| *table != declaration.table),
            paused_until_ms: queue.paused_until_ms(),
        })
    }

    /// A queue that an exchange has for itself, under its name.
    fn hidden_queue(
        &self,
        id: QueueId,
        exchange: &str,
        durable: bool,
        is_delays: bool,
        arguments: Arguments,
    ) -> queue::Handle {
        let declaration = Declaration {
            vhost: self.name.clone(),
            name: exchange.into(),
            durable,
            auto_delete: false,
            owner: None,
            table: Table::new(),
            is_delays,
        };
        queue::Handle::new(id, declaration, arguments, self.surroundings.clone())
    }

    fn hidden_definition(&self, queue: &queue::Handle) -> definitions::Delays {
        let (vhost, exchange) = (self.name.to_string(), queue.name().to_string());
        definitions::Delays { vhost, exchange, id: queue.id().0 }
    }

    fn binding_definition(&self, binding: &exchanges::Binding<queue::Handle>) -> Definition {
        Definition::Binding(self.binding(binding))
    }

    fn binding(&self, binding: &exchanges::Binding<queue::Handle>) -> definitions::Binding {
        let (destination, to_queue) = match &binding.target {
            Target::Queue(queue) => (queue.name().to_string(), true),
            Target::Exchange(name) => (name.to_string(), false),
        };
        definitions::Binding {
            vhost: self.name.to_string(),
            source: binding.source.to_string(),
            destination,
            to_queue,
            routing_key: binding.routing_key.to_string(),
            arguments: from_exchanges(&binding.arguments),
        }
    }

    fn forget(&self, topology: &mut Topology, removed: &Removed<queue::Handle>, by: &str) {
        let operations = self.without(topology, removed, by);
        self.tell(operations);
    }

    /// What the store has to be told of everything that vanished.
    fn without(&self, topology: &mut Topology, removed: &Removed<queue::Handle>, by: &str) -> Vec<Operation> {
        let bindings = removed.bindings.iter().filter(|b| match &b.target {
            Target::Queue(queue) => queue.declaration().is_kept(),
            Target::Exchange(_) => true,
        });
        let mut operations: Vec<Operation> =
            bindings.map(|b| self.binding_definition(b).undefine()).collect();
        let exchanges = removed.exchanges.iter().filter(|e| e.durable);
        operations.extend(exchanges.map(|e| self.exchange_definition(e).undefine()));
        for exchange in &removed.exchanges {
            let name = exchange.name.to_string();
            operations.extend(self.without_delays(topology, &name));
            operations.extend(self.without_window(topology, &name));
            self.histories.forget(&name);
            self.exchange_tallies.remove(name.as_str());
        }
        for binding in &removed.bindings {
            self.tell_binding("binding.deleted", by, || self.binding(binding));
        }
        removed.exchanges.iter().for_each(|exchange| self.tell_exchange_deleted(exchange, by));
        self.note_listeners(topology);
        operations
    }

    /// Appends what belongs together: all of it happens or none.
    fn tell(&self, operations: Vec<Operation>) {
        let operations = match operations.len() {
            0 => return,
            1 => operations,
            _ => vec![Operation::Atomic(operations)],
        };
        self.surroundings.store.append(operations, Urgency::Lazy);
    }

    fn exchange_error(&self, error: exchanges::Error) -> Error {
        let exchange = |name: &exchanges::Name| Resource::exchange(&name.to_string(), &self.name);
        match error {
            exchanges::Error::NotFound { name, .. } => Error::NotFound(exchange(&name)),
            exchanges::Error::Mismatch { name, field, received, current } => {
                Mismatch { resource: exchange(&name), field: field.into(), received, current }.into()
            }
            exchanges::Error::InUse { name } => Error::InUse(exchange(&name)),
            exchanges::Error::Reserved { name } => {
                Error::Reserved { what: What::Exchange, name: name.to_string() }
            }
            exchanges::Error::DefaultExchange => Error::DefaultExchange,
            exchanges::Error::UnknownKind { kind } => Error::UnknownKind(kind.to_string()),
            exchanges::Error::InvalidType { name, field, received } => Error::Invalid(format!(
                "invalid type '{received}' for arg '{field}' in exchange '{name}' in vhost '{}'",
                self.name
            )),
            exchanges::Error::Invalid { reason } => Error::Invalid(reason),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Topology> {
        let topology = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: who sees the old number has a route of before this change.
        self.generation.fetch_add(1, Ordering::Release);
        topology
    }
}

impl Topology {
    fn apply_policies(&mut self) {
        let queues: Vec<queue::Handle> = self.queues.values().cloned().collect();
        queues.iter().for_each(|queue| self.apply_to_queue(queue));
        let names: Vec<exchanges::Name> = self.exchanges.iter().map(|e| e.name.clone()).collect();
        names.iter().for_each(|name| self.apply_to_exchange(name));
        self.delays.values().for_each(|delays| self.apply_to_delays(delays));
    }

    fn apply_to_delays(&self, delays: &queue::Handle) {
        let release_rate = self.policies.of_exchange(delays.name()).release_rate();
        let declared = delays.declared();
        let release_rate = release_rate.or(declared.arguments.release_rate);
        delays.set_settings(Arc::new(Arguments { release_rate, ..declared.arguments.clone() }));
    }

    fn apply_to_queue(&self, queue: &queue::Handle) {
        let declared = queue.declared();
        let arguments = &declared.arguments;
        let settings = self.policies.of_queue(queue.name(), arguments.kind).settle(arguments);
        if settings != *queue.settings() {
            queue.set_settings(Arc::new(settings));
        }
    }

    fn apply_to_exchange(&mut self, name: &[u8]) {
        let holding = self.policies.of_exchange(&String::from_utf8_lossy(name));
        let alternate = holding.alternate_exchange().map(exchanges::Name::from);
        // It is there.
        let _ = self.exchanges.set_alternate(name, alternate);
    }

    fn exchange(&self, name: &str, vhost: &str) -> Result<&exchanges::Exchange, Error> {
        let found = self.exchanges.get(name.as_bytes());
        found.ok_or_else(|| Error::NotFound(Resource::exchange(name, vhost)))
    }

    fn queue(&self, name: &str, vhost: &str) -> Result<&queue::Handle, Error> {
        self.queues.get(name).ok_or_else(|| Error::NotFound(Resource::queue(name, vhost)))
    }

    fn target(&self, to: To<'_>, vhost: &str) -> Result<Target<queue::Handle>, Error> {
        match to {
            To::Queue(name) => self.queue(name, vhost).cloned().map(Target::Queue),
            To::Exchange(name) => self.exchange(name, vhost).map(|_| Target::Exchange(name.into())),
        }
    }

    fn is_topic(&self, exchange: &str) -> bool {
        self.exchanges.get(exchange.as_bytes()).is_some_and(|e| e.kind.name() == "topic")
    }

    /// Whether a binding outlives the broker: both its ends do.
    fn is_kept(&self, source: &str, target: &Target<queue::Handle>) -> bool {
        let is_durable = |name: &[u8]| self.exchanges.get(name).is_some_and(|e| e.durable);
        is_durable(source.as_bytes())
            && match target {
                Target::Queue(queue) => queue.declaration().is_kept(),
                Target::Exchange(name) => is_durable(name),
            }
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} queues", self.queues.len())
    }
}

impl QueueFlags {
    /// What types of queue may not have.
    fn of_type(self) -> queue::Flags {
        queue::Flags { durable: self.durable, exclusive: self.exclusive, auto_delete: self.auto_delete }
    }
}

/// A dead letter exchange needs read on the queue and write on the exchange.
fn check_dead_letter_exchange(caller: &Caller, name: &str, table: &Table) -> Result<(), Error> {
    let Some(exchange) = table.get_str("x-dead-letter-exchange") else { return Ok(()) };
    caller.access.check(Action::Read, What::Queue, name)?;
    caller.access.check(Action::Write, What::Exchange, exchange)
}

/// An exclusive queue is used by its connection alone.
fn check_owner(queue: &queue::Handle, connection: ConnectionId) -> Result<(), Error> {
    let declaration = queue.declaration();
    match declaration.owner {
        Some(owner) if owner != connection => {
            Err(Error::Locked(Resource::queue(&declaration.name, &declaration.vhost)))
        }
        _ => Ok(()),
    }
}

/// Whether a second declare asks for the queue that is there (RabbitMQ's list of what counts).
fn check_same(queue: &queue::Handle, flags: QueueFlags, table: &Table) -> Result<(), Error> {
    let declaration = queue.declaration();
    let resource = || Resource::queue(&declaration.name, &declaration.vhost);
    if flags.exclusive != declaration.owner.is_some() {
        return Err(Error::Locked(resource()));
    }
    let flag = |field: &str, received: bool, current: bool| {
        let (received, current) = (format!("'{received}'"), format!("'{current}'"));
        Mismatch { resource: resource(), field: field.into(), received, current }.into()
    };
    if flags.durable != declaration.durable {
        return Err(flag("durable", flags.durable, declaration.durable));
    }
    if flags.auto_delete != declaration.auto_delete {
        return Err(flag("auto_delete", flags.auto_delete, declaration.auto_delete));
    }
    let difference = Arguments::difference(table, &queue.declared().table);
    match difference.filter(|_| Arguments::difference(table, &declaration.table).is_some()) {
        None => Ok(()),
        Some((field, received, current)) => {
            Err(Mismatch { resource: resource(), field: field.into(), received, current }.into())
        }
    }
}

/// A name nobody else has: the prefix and 22 characters.
pub fn generated(prefix: &str) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
}

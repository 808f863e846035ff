//! The exchanges of one vhost, the bindings between them and to queues, and the way of a message.

use hashbrown::HashMap;

use crate::binding::{Binding, BindingId, Bindings, Destination, Kept, Target};
use crate::error::Error;
use crate::exchange::{Declaration, Exchange};
use crate::kind::Kind;
use crate::matches::{Found, Matches};
use crate::name::{NAME_BYTES_MAX, Name};
use crate::routing::{Envelope, Link, Proposal, Routing};
use crate::slab::Slab;
use crate::targets::Slot;
use crate::value::Arguments;

/// The exchanges that every vhost has from the start (section 3.1.3), all durable: name, type, internal.
/// The last one is ours: delayed messages are cancelled there.
const PREDECLARED: &[(&str, &str, bool)] = &[
    ("", "direct", false),
    ("amq.direct", "direct", false),
    ("amq.fanout", "fanout", false),
    ("amq.topic", "topic", false),
    ("amq.headers", "headers", false),
    ("amq.match", "headers", false),
    ("amq.rabbitmq.trace", "topic", true),
    ("amq.schedule", "direct", false),
];

/// All exchanges and bindings of a vhost.
///
/// The default exchange has no bindings here: it knows queues by name, as told by
/// [`add_queue`](Self::add_queue) and [`remove_queue`](Self::remove_queue). What RabbitMQ lists as its
/// implicit bindings is [`queues`](Self::queues).
pub struct Exchanges<D> {
    /// Everything a binding can lead to. The slot of an exchange or queue is its number here.
    vertices: Slab<Vertex<D>>,
    exchanges: HashMap<Name, Slot>,
    queues: HashMap<D, Slot>,
    /// The default exchange: queues by name.
    named: HashMap<Name, Slot>,
    default: Slot,
    bindings: Bindings<D>,
}

/// What became of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// It is new.
    Created,
    /// It was there already, and is the same.
    Existed,
}

/// Everything that vanished: the exchange or binding that was named first, then what went with it.
#[derive(Debug)]
pub struct Removed<D> {
    /// Exchanges: the one deleted, and auto-delete ones that lost their last binding.
    pub exchanges: Vec<Exchange>,
    /// Bindings from and to those exchanges, and those that were to be removed.
    pub bindings: Vec<Binding<D>>,
}

enum Vertex<D> {
    Exchange(Box<Node>),
    Queue {
        queue: D,
        /// Its name in the default exchange, if it was added there.
        name: Option<Name>,
    },
}

struct Node {
    exchange: Exchange,
    routing: Box<dyn Routing>,
}

impl<D: Destination> Exchanges<D> {
    /// A vhost's exchanges as it starts: the default exchange, the `amq.` ones, and no bindings.
    pub fn new() -> Self {
        let mut exchanges = Self {
            vertices: Slab::default(),
            exchanges: HashMap::new(),
            queues: HashMap::new(),
            named: HashMap::new(),
            default: Slot(0),
            bindings: Bindings::default(),
        };
        for &(name, kind, internal) in PREDECLARED {
            let kind = Kind::parse(kind.as_bytes()).expect("predeclared kinds exist");
            exchanges.add_own(name.as_bytes(), Declaration { internal, ..Declaration::durable(kind) });
        }
        exchanges.default = exchanges.exchanges[b"".as_slice()];
        exchanges
    }

    /// Makes an exchange, or makes sure that the one there is the same (section 1.6.2.1).
    ///
    /// Compared are type, durable, auto_delete, internal and the argument `alternate-exchange`.
    pub fn declare(&mut self, name: &[u8], declaration: Declaration) -> Result<Declared, Error> {
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        if let Some(exchange) = self.get(name) {
            exchange.check_same(&declaration)?;
            return Ok(Declared::Existed);
        }
        if name.starts_with(b"amq.") {
            return Err(Error::Reserved { name: name.into() });
        }
        if name.len() > NAME_BYTES_MAX {
            let reason = format!("exchange name longer than {NAME_BYTES_MAX} bytes");
            return Err(Error::Invalid { reason });
        }
        self.create(name.into(), declaration)?;
        Ok(Declared::Created)
    }

    /// Adds an exchange of the broker's own, whose name nobody else may take.
    pub fn add_own(&mut self, name: &[u8], declaration: Declaration) {
        if self.get(name).is_none() {
            self.create(name.into(), declaration).expect("no arguments to refuse");
        }
    }

    /// The exchange of that name.
    pub fn get(&self, name: &[u8]) -> Option<&Exchange> {
        let slot = *self.exchanges.get(name)?;
        Some(&self.node(slot).exchange)
    }

    /// All exchanges, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.values().map(|&slot| &self.node(slot).exchange)
    }

    /// Changes where a policy sends what an exchange could not route. An `alternate-exchange` in the
    /// exchange's arguments goes before it.
    pub fn set_alternate(&mut self, name: &[u8], alternate: Option<Name>) -> Result<(), Error> {
        let slot = self.slot_of(name)?;
        self.node_mut(slot).exchange.set_alternate(alternate);
        Ok(())
    }

    /// Deletes an exchange with all bindings from and to it (section 1.6.2.3). A missing one is fine.
    ///
    /// With `if_unused`, an exchange that has bindings from it is left alone.
    pub fn delete(&mut self, name: &[u8], if_unused: bool) -> Result<Removed<D>, Error> {
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        if name.starts_with(b"amq.") {
            return Err(Error::Reserved { name: name.into() });
        }
        let mut removed = Removed::default();
        let Some(&slot) = self.exchanges.get(name) else { return Ok(removed) };
        if if_unused && !self.node(slot).routing.is_empty() {
            return Err(Error::InUse { name: name.into() });
        }
        let bereft = self.remove_exchange(slot, &mut removed);
        self.remove_unused(bereft, &mut removed);
        Ok(removed)
    }

    /// Binds a queue or exchange to an exchange; false if that very binding was there already.
    pub fn bind(
        &mut self,
        source: &[u8],
        target: &Target<D>,
        routing_key: &[u8],
        arguments: &Arguments,
    ) -> Result<bool, Error> {
        let from = self.bindable(source)?;
        if let Target::Exchange(name) = target {
            self.bindable(name)?;
        }
        let to_queue = matches!(target, Target::Queue(_));
        self.node(from).routing.check(Proposal { to_queue, routing_key, arguments })?;

        let to = self.slot_for(target)?;
        let link = Link { target: to, identity: target.identity(), routing_key, arguments };
        if self.bindings.find(from, link).is_some() {
            return Ok(false);
        }
        let node = self.node_mut(from);
        node.routing.bind(link);
        let binding = Binding {
            source: node.exchange.name.clone(),
            target: target.clone(),
            routing_key: routing_key.into(),
            arguments: arguments.clone(),
        };
        self.bindings.insert(Kept { source: from, target: to, binding });
        Ok(true)
    }

    /// Takes away exactly that binding, and an auto-delete source with its last one. A binding that
    /// was never made is fine; an exchange that is missing is not.
    pub fn unbind(
        &mut self,
        source: &[u8],
        target: &Target<D>,
        routing_key: &[u8],
        arguments: &Arguments,
    ) -> Result<Removed<D>, Error> {
        let from = self.bindable(source)?;
        let to = match target {
            Target::Exchange(name) => Some(self.bindable(name)?),
            Target::Queue(queue) => self.queues.get(queue).copied(),
        };
        let mut removed = Removed::default();
        let link = |to| Link { target: to, identity: target.identity(), routing_key, arguments };
        let Some(id) = to.and_then(|to| self.bindings.find(from, link(to))) else {
            return Ok(removed);
        };
        self.remove_binding(id, &mut removed);
        self.remove_unused(vec![from], &mut removed);
        Ok(removed)
    }

    /// Lets the default exchange reach a queue by its name. It replaces a queue of the same name.
    pub fn add_queue(&mut self, name: &[u8], queue: D) {
        let slot = self.slot_for(&Target::Queue(queue)).expect("only exchanges can be missing");
        if let Some(&replaced) = self.named.get(name) {
            self.unname(replaced);
            self.release_unreached(replaced);
        }
        self.unname(slot);
        self.named.insert(name.into(), slot);
        if let Vertex::Queue { name: known, .. } = &mut self.vertices[slot.0] {
            *known = Some(name.into());
        }
    }

    /// A queue is gone: takes it from the default exchange, and all its bindings as
    /// [`unbind_queue`](Self::unbind_queue) does.
    pub fn remove_queue(&mut self, queue: &D) -> Removed<D> {
        if let Some(&slot) = self.queues.get(queue) {
            self.unname(slot);
        }
        self.unbind_queue(queue)
    }

    /// Takes away all bindings of a queue, and auto-delete exchanges that lost their last one.
    pub fn unbind_queue(&mut self, queue: &D) -> Removed<D> {
        let mut removed = Removed::default();
        let Some(&slot) = self.queues.get(queue) else { return removed };
        let ids: Vec<BindingId> = self.bindings.to(slot).collect();
        let sources = ids.into_iter().map(|id| self.remove_binding(id, &mut removed)).collect();
        self.release_unreached(slot);
        self.remove_unused(sources, &mut removed);
        removed
    }

    /// All bindings, the oldest first, without the implicit ones of the default exchange.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding<D>> {
        self.bindings.iter()
    }

    /// The bindings that leave from an exchange, the oldest first.
    pub fn bindings_from(&self, source: &[u8]) -> impl Iterator<Item = &Binding<D>> {
        let slot = self.exchanges.get(source).copied();
        let ids = slot.into_iter().flat_map(|slot| self.bindings.from(slot));
        ids.map(|id| self.bindings.get(id))
    }

    /// The bindings that lead to a queue or exchange, the oldest first.
    pub fn bindings_to(&self, target: &Target<D>) -> impl Iterator<Item = &Binding<D>> {
        let slot = match target {
            Target::Queue(queue) => self.queues.get(queue),
            Target::Exchange(name) => self.exchanges.get(&**name),
        };
        let ids = slot.copied().into_iter().flat_map(|slot| self.bindings.to(slot));
        ids.map(|id| self.bindings.get(id))
    }

    /// What the default exchange reaches: each queue by its name.
    pub fn queues(&self) -> impl Iterator<Item = (&Name, &D)> {
        self.named.iter().map(|(name, &slot)| match &self.vertices[slot.0] {
            Vertex::Queue { queue, .. } => (name, queue),
            Vertex::Exchange(_) => unreachable!("the slot of a queue"),
        })
    }

    /// Finds the queues that a message published to `exchange` reaches, each once, into `matches`,
    /// which is emptied first. `internal` is for the caller to look at.
    ///
    /// Exchanges bound to exchanges are walked, and alternates where nothing matched, each exchange
    /// once however often it is reached: circles end. An alternate that is missing is passed over.
    pub fn route(
        &self,
        exchange: &[u8],
        envelope: &Envelope<'_>,
        matches: &mut Matches<D>,
    ) -> Result<(), Error> {
        self.route_past(exchange, envelope, matches, |_| true)
    }

    /// The same, but a message only goes on from those exchanges that let it pass.
    pub fn route_past(
        &self,
        exchange: &[u8],
        envelope: &Envelope<'_>,
        matches: &mut Matches<D>,
        mut lets_pass: impl FnMut(&Exchange) -> bool,
    ) -> Result<(), Error> {
        matches.clear();
        let first = self.slot_of(exchange)?;
        matches.reached.mark(first.0);

        // What was reached is the list of work too; it grows while it is walked.
        let mut walked = 0;
        while let Some(&reached) = matches.reached.list().get(walked) {
            walked += 1;
            match &self.vertices[reached] {
                Vertex::Queue { queue, .. } => matches.queues.push(queue.clone()),
                Vertex::Exchange(node) if lets_pass(&node.exchange) => {
                    self.pass(Slot(reached), node, envelope, matches);
                }
                Vertex::Exchange(node) => matches.is_by_keys &= node.routing.is_by_keys(),
            }
        }
        Ok(())
    }

    /// Takes a message through one exchange.
    fn pass(&self, slot: Slot, node: &Node, envelope: &Envelope<'_>, matches: &mut Matches<D>) {
        matches.is_by_keys &= node.routing.is_by_keys();
        let mut found = Found::new(&mut matches.reached);
        if slot == self.default {
            let queues = envelope.keys().filter_map(|key| self.named.get(key));
            queues.for_each(|&queue| found.add(queue));
        } else {
            node.routing.visit(envelope, &mut matches.scratch, &mut found);
        }
        if found.any() {
            return;
        }
        // The default exchange is nobody's alternate, as in RabbitMQ.
        let alternate = node.exchange.alternate.as_ref().filter(|name| !name.is_empty());
        let alternate = alternate.and_then(|name| self.exchanges.get(&**name));
        alternate.into_iter().for_each(|&slot| found.add(slot));
    }

    fn create(&mut self, name: Name, declaration: Declaration) -> Result<(), Error> {
        let routing = declaration.kind.routing(&declaration.arguments)?;
        let exchange = Exchange::declared(name.clone(), declaration)?;
        let node = Box::new(Node { exchange, routing });
        let slot = Slot(self.vertices.insert(Vertex::Exchange(node)));
        self.exchanges.insert(name, slot);
        Ok(())
    }

    /// Deletes auto-delete exchanges among those that lost bindings, and so on with what loses its
    /// last binding by that.
    fn remove_unused(&mut self, mut bereft: Vec<Slot>, removed: &mut Removed<D>) {
        while let Some(slot) = bereft.pop() {
            // It may have gone already. Nothing is added meanwhile, so the slot is not another's.
            let Some(Vertex::Exchange(node)) = self.vertices.get(slot.0) else { continue };
            if node.exchange.auto_delete && node.routing.is_empty() {
                bereft.extend(self.remove_exchange(slot, removed));
            }
        }
    }

    /// Deletes one exchange with its bindings; returns the exchanges that were bound to lead to it.
    fn remove_exchange(&mut self, slot: Slot, removed: &mut Removed<D>) -> Vec<Slot> {
        let outgoing: Vec<BindingId> = self.bindings.from(slot).collect();
        for id in outgoing {
            self.remove_binding(id, removed);
        }
        let incoming: Vec<BindingId> = self.bindings.to(slot).collect();
        let sources = incoming.into_iter().map(|id| self.remove_binding(id, removed)).collect();

        let Vertex::Exchange(node) = self.vertices.remove(slot.0) else {
            unreachable!("the slot of an exchange")
        };
        self.exchanges.remove(&*node.exchange.name);
        removed.exchanges.push(node.exchange);
        sources
    }

    /// Takes away one binding; returns the exchange it left from.
    fn remove_binding(&mut self, id: BindingId, removed: &mut Removed<D>) -> Slot {
        let kept = self.bindings.remove(id);
        self.node_mut(kept.source).routing.unbind(kept.link());
        removed.bindings.push(kept.binding);
        self.release_unreached(kept.target);
        kept.source
    }

    /// Takes a queue out of the default exchange.
    fn unname(&mut self, slot: Slot) {
        let Vertex::Queue { name, .. } = &mut self.vertices[slot.0] else { return };
        if let Some(name) = name.take() {
            self.named.remove(&*name);
        }
    }

    /// Forgets a queue that neither a binding nor the default exchange leads to any more.
    fn release_unreached(&mut self, slot: Slot) {
        let Some(Vertex::Queue { queue, name: None }) = self.vertices.get(slot.0) else { return };
        if self.bindings.to(slot).next().is_none() {
            self.queues.remove(queue);
            self.vertices.remove(slot.0);
        }
    }

    /// The slot of what a binding leads to; a queue gets one when it is first heard of.
    fn slot_for(&mut self, target: &Target<D>) -> Result<Slot, Error> {
        let queue = match target {
            Target::Exchange(name) => return self.slot_of(name),
            Target::Queue(queue) => queue,
        };
        if let Some(&slot) = self.queues.get(queue) {
            return Ok(slot);
        }
        let slot = Slot(self.vertices.insert(Vertex::Queue { queue: queue.clone(), name: None }));
        self.queues.insert(queue.clone(), slot);
        Ok(slot)
    }

    fn slot_of(&self, exchange: &[u8]) -> Result<Slot, Error> {
        let slot = self.exchanges.get(exchange).copied();
        slot.ok_or_else(|| Error::NotFound { what: "exchange", name: exchange.into() })
    }

    /// The slot of an exchange that may have bindings.
    fn bindable(&self, exchange: &[u8]) -> Result<Slot, Error> {
        if exchange.is_empty() {
            return Err(Error::DefaultExchange);
        }
        self.slot_of(exchange)
    }

    fn node(&self, slot: Slot) -> &Node {
        match &self.vertices[slot.0] {
            Vertex::Exchange(node) => node,
            Vertex::Queue { .. } => unreachable!("the slot of an exchange"),
        }
    }

    fn node_mut(&mut self, slot: Slot) -> &mut Node {
        match &mut self.vertices[slot.0] {
            Vertex::Exchange(node) => node,
            Vertex::Queue { .. } => unreachable!("the slot of an exchange"),
        }
    }
}

impl<D: Destination> Default for Exchanges<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> Removed<D> {
    /// Whether nothing vanished.
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty() && self.bindings.is_empty()
    }
}

impl<D> Default for Removed<D> {
    fn default() -> Self {
        Self { exchanges: Vec::new(), bindings: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::ALTERNATE;
    use crate::fixture::table;
    use crate::routing::NoProperties;
    use crate::value::Value;

    type Graph = Exchanges<&'static str>;

    fn kind(name: &str) -> Kind {
        Kind::parse(name.as_bytes()).unwrap()
    }

    fn graph(declared: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (name, kind_name) in declared {
            declare(&mut graph, name, Declaration::durable(kind(kind_name)));
        }
        graph
    }

    fn declare(graph: &mut Graph, name: &str, declaration: Declaration) {
        assert_eq!(graph.declare(name.as_bytes(), declaration), Ok(Declared::Created));
    }

    fn with_alternate(kind_name: &str, alternate: &'static str) -> Declaration {
        let arguments = table(&[(ALTERNATE, Value::text(alternate))]);
        Declaration { arguments, ..Declaration::durable(kind(kind_name)) }
    }

    fn auto_delete(kind_name: &str) -> Declaration {
        Declaration { auto_delete: true, ..Declaration::durable(kind(kind_name)) }
    }

    fn queue(name: &'static str) -> Target<&'static str> {
        Target::Queue(name)
    }

    fn exchange(name: &str) -> Target<&'static str> {
        Target::Exchange(name.into())
    }

    fn bind(graph: &mut Graph, source: &str, target: Target<&'static str>, key: &str) {
        let arguments = Arguments::default();
        assert_eq!(graph.bind(source.as_bytes(), &target, key.as_bytes(), &arguments), Ok(true));
    }

    fn unbind(
        graph: &mut Graph,
        source: &str,
        target: Target<&'static str>,
        key: &str,
    ) -> Removed<&'static str> {
        graph.unbind(source.as_bytes(), &target, key.as_bytes(), &Arguments::default()).unwrap()
    }

    fn reached(graph: &Graph, exchange: &str, key: &str) -> Vec<&'static str> {
        let mut matches = Matches::new();
        graph.route(exchange.as_bytes(), &Envelope::keyed(key.as_bytes()), &mut matches).unwrap();
        let mut queues = matches.queues().to_vec();
        queues.sort_unstable();
        queues
    }

    fn names(removed: &Removed<&'static str>) -> Vec<String> {
        removed.exchanges.iter().map(|exchange| exchange.name.to_string()).collect()
    }

    #[test]
    fn a_vhost_starts_with_the_exchanges_of_the_specification() {
        let graph = Graph::new();

        let mut names: Vec<_> = graph.iter().map(|exchange| exchange.name.to_string()).collect();
        names.sort();
        let expected = ["", "amq.direct", "amq.fanout", "amq.headers", "amq.match"];
        assert_eq!(names[..5], expected);
        assert_eq!(names[5..], ["amq.rabbitmq.trace", "amq.schedule", "amq.topic"]);
        assert!(graph.iter().all(|exchange| exchange.durable && !exchange.auto_delete));
        assert!(graph.get(b"amq.rabbitmq.trace").unwrap().internal);
        assert_eq!(graph.get(b"amq.match").unwrap().kind, kind("headers"));
    }

    #[test]
    fn the_default_exchange_reaches_queues_by_name() {
        let mut graph = graph(&[]);
        graph.add_queue(b"jobs", "first");

        assert_eq!(reached(&graph, "", "jobs"), ["first"]);
        assert!(reached(&graph, "", "other").is_empty());

        graph.add_queue(b"jobs", "second");
        assert_eq!(reached(&graph, "", "jobs"), ["second"]);

        graph.remove_queue(&"first");
        assert_eq!(reached(&graph, "", "jobs"), ["second"]);
        assert_eq!(graph.queues().collect::<Vec<_>>(), [(&Name::from("jobs"), &"second")]);

        graph.remove_queue(&"second");
        assert!(reached(&graph, "", "jobs").is_empty());
        assert!(graph.queues.is_empty());
    }

    #[test]
    fn unbinding_a_queue_leaves_it_to_the_default_exchange() {
        let mut graph = graph(&[]);
        graph.add_queue(b"jobs", "q");
        bind(&mut graph, "amq.direct", queue("q"), "k");

        let removed = graph.unbind_queue(&"q");

        assert_eq!(removed.bindings.len(), 1);
        assert!(reached(&graph, "amq.direct", "k").is_empty());
        assert_eq!(reached(&graph, "", "jobs"), ["q"]);
    }

    #[test]
    fn the_default_exchange_is_not_to_be_touched() {
        let mut graph = graph(&[("x", "fanout")]);
        let none = Arguments::default();
        let refused = Error::DefaultExchange;

        let declared = graph.declare(b"", Declaration::durable(kind("direct")));
        assert_eq!(declared, Err(refused.clone()));
        assert_eq!(graph.delete(b"", false).unwrap_err(), refused);
        assert_eq!(graph.bind(b"", &queue("q"), b"", &none), Err(refused.clone()));
        assert_eq!(graph.bind(b"x", &exchange(""), b"", &none), Err(refused.clone()));
        assert_eq!(graph.unbind(b"", &queue("q"), b"", &none).unwrap_err(), refused);
    }

    #[test]
    fn reserved_names_are_neither_made_nor_deleted() {
        let mut graph = graph(&[]);
        let refused = |name: &str| Error::Reserved { name: name.into() };

        let declared = graph.declare(b"amq.mine", Declaration::durable(kind("direct")));
        assert_eq!(declared, Err(refused("amq.mine")));
        let declared = graph.declare(b"amq.topic", Declaration::durable(kind("topic")));
        assert_eq!(declared, Ok(Declared::Existed));
        assert_eq!(graph.delete(b"amq.topic", false).unwrap_err(), refused("amq.topic"));
    }

    #[test]
    fn names_are_any_bytes_up_to_the_limit() {
        let mut graph = graph(&[]);
        let name = [0xff; NAME_BYTES_MAX];

        let declared = graph.declare(&name, Declaration::durable(kind("direct")));
        assert_eq!(declared, Ok(Declared::Created));
        assert!(graph.get(&name).is_some());

        let too_long = graph.declare(&[b'x'; 256], Declaration::durable(kind("direct")));
        assert!(matches!(too_long, Err(Error::Invalid { .. })));
    }

    #[test]
    fn declaring_again_must_ask_for_the_same() {
        let mut graph = graph(&[]);
        declare(&mut graph, "x", Declaration::durable(kind("direct")));
        declare(&mut graph, "y", with_alternate("fanout", "x"));
        let mut check = |name: &str, declaration, field, received: &str, current: &str| {
            let expected = Error::Mismatch {
                name: name.into(),
                field,
                received: received.into(),
                current: current.into(),
            };
            assert_eq!(graph.declare(name.as_bytes(), declaration), Err(expected));
        };

        let direct = || Declaration::durable(kind("direct"));
        check("x", Declaration::durable(kind("fanout")), "type", "'fanout'", "'direct'");
        check("x", Declaration { durable: false, ..direct() }, "durable", "'false'", "'true'");
        check("x", auto_delete("direct"), "auto_delete", "'true'", "'false'");
        check("x", Declaration { internal: true, ..direct() }, "internal", "'true'", "'false'");
        let printed = "the value 'x' of type 'longstr'";
        check("x", with_alternate("direct", "x"), ALTERNATE, printed, "none");
        check("y", Declaration::durable(kind("fanout")), ALTERNATE, "none", printed);

        let arguments = table(&[("whatever", Value::Int(1))]);
        let same = Declaration { arguments, alternate: Some("policy".into()), ..direct() };
        assert_eq!(graph.declare(b"x", same), Ok(Declared::Existed));
    }

    #[test]
    fn a_mismatch_reads_as_rabbitmqs() {
        let mut graph = graph(&[("x", "direct")]);

        let error = graph.declare(b"x", Declaration::durable(kind("fanout"))).unwrap_err();

        assert_eq!(
            error.to_string(),
            "inequivalent arg 'type' for exchange 'x': received 'fanout' but current is 'direct'"
        );
    }

    #[test]
    fn an_alternate_must_be_a_string() {
        let mut graph = graph(&[]);
        let arguments = table(&[(ALTERNATE, Value::Int(1))]);

        let declaration = Declaration { arguments, ..Declaration::durable(kind("direct")) };
        let error = graph.declare(b"x", declaration).unwrap_err();

        let received = "signedint";
        assert_eq!(error, Error::InvalidType { name: "x".into(), field: ALTERNATE, received });
        assert!(graph.get(b"x").is_none());
    }

    #[test]
    fn binding_needs_both_ends() {
        let mut graph = graph(&[("x", "direct")]);
        let none = Arguments::default();
        let missing = |name: &str| Error::NotFound { what: "exchange", name: name.into() };

        assert_eq!(graph.bind(b"y", &queue("q"), b"", &none), Err(missing("y")));
        assert_eq!(graph.bind(b"x", &exchange("z"), b"", &none), Err(missing("z")));
        assert_eq!(graph.unbind(b"y", &queue("q"), b"", &none).unwrap_err(), missing("y"));
        assert_eq!(graph.unbind(b"x", &exchange("z"), b"", &none).unwrap_err(), missing("z"));
        let routed = graph.route(b"y", &Envelope::keyed(b""), &mut Matches::new());
        assert_eq!(routed, Err(missing("y")));
        assert!(graph.queues.is_empty());
    }

    #[test]
    fn a_binding_the_kind_refuses_changes_nothing() {
        let mut graph = graph(&[("x", "headers")]);
        let arguments = table(&[("x-match", Value::text("most"))]);

        let refused = graph.bind(b"x", &queue("q"), b"", &arguments);

        assert!(matches!(refused, Err(Error::Invalid { .. })));
        assert_eq!(graph.bindings().count(), 0);
        assert!(graph.queues.is_empty());
    }

    #[test]
    fn the_same_binding_again_is_no_new_one() {
        let mut graph = graph(&[("x", "direct")]);
        let none = Arguments::default();
        bind(&mut graph, "x", queue("q"), "k");

        assert_eq!(graph.bind(b"x", &queue("q"), b"k", &none), Ok(false));

        unbind(&mut graph, "x", queue("q"), "k");
        assert!(reached(&graph, "x", "k").is_empty());
    }

    #[test]
    fn arguments_are_part_of_a_bindings_identity_in_any_order() {
        let mut graph = graph(&[("x", "direct")]);
        let ab = table(&[("a", Value::Int(1)), ("b", Value::Int(2))]);
        let ba = table(&[("b", Value::Uint(2)), ("a", Value::Int(1))]);
        let other = table(&[("a", Value::Int(1))]);
        bind(&mut graph, "x", queue("q"), "k");

        assert_eq!(graph.bind(b"x", &queue("q"), b"k", &ab), Ok(true));
        assert_eq!(graph.bind(b"x", &queue("q"), b"k", &ba), Ok(false));
        assert_eq!(graph.bindings().count(), 2);

        assert!(graph.unbind(b"x", &queue("q"), b"k", &other).unwrap().is_empty());
        unbind(&mut graph, "x", queue("q"), "k");
        assert_eq!(reached(&graph, "x", "k"), ["q"]);

        assert_eq!(graph.unbind(b"x", &queue("q"), b"k", &ba).unwrap().bindings.len(), 1);
        assert!(reached(&graph, "x", "k").is_empty());
    }

    #[test]
    fn unbinding_what_was_never_bound_is_fine() {
        let mut graph = graph(&[("x", "direct")]);
        declare(&mut graph, "auto", auto_delete("direct"));
        bind(&mut graph, "x", queue("q"), "k");

        assert!(unbind(&mut graph, "x", queue("q"), "other").is_empty());
        assert!(unbind(&mut graph, "auto", queue("q"), "k").is_empty());
        assert!(unbind(&mut graph, "auto", queue("unheard of"), "k").is_empty());
        assert!(graph.get(b"auto").is_some());
    }

    #[test]
    fn a_queue_is_reached_once_however_many_bindings_match() {
        let mut graph = graph(&[("x", "topic"), ("y", "fanout")]);
        bind(&mut graph, "x", queue("q"), "#");
        bind(&mut graph, "x", queue("q"), "a.*");
        bind(&mut graph, "x", exchange("y"), "*.b");
        bind(&mut graph, "y", queue("q"), "");

        assert_eq!(reached(&graph, "x", "a.b"), ["q"]);
    }

    #[test]
    fn exchanges_pass_messages_on_and_circles_end() {
        let mut graph = graph(&[("x", "fanout"), ("y", "direct"), ("z", "topic")]);
        bind(&mut graph, "x", exchange("y"), "");
        bind(&mut graph, "y", exchange("z"), "k");
        bind(&mut graph, "z", exchange("x"), "#");
        bind(&mut graph, "z", exchange("z"), "#");
        bind(&mut graph, "x", queue("at x"), "");
        bind(&mut graph, "y", queue("at y"), "k");
        bind(&mut graph, "z", queue("at z"), "*");

        for start in ["x", "y", "z"] {
            assert_eq!(reached(&graph, start, "k"), ["at x", "at y", "at z"]);
        }
        assert_eq!(reached(&graph, "x", "other"), ["at x"]);
    }

    #[test]
    fn what_matches_nothing_goes_to_the_alternate_and_its_alternate() {
        let mut graph = graph(&[]);
        declare(&mut graph, "x", with_alternate("direct", "y"));
        declare(&mut graph, "y", with_alternate("topic", "z"));
        declare(&mut graph, "z", with_alternate("fanout", "x"));
        bind(&mut graph, "x", queue("at x"), "k");
        bind(&mut graph, "y", queue("at y"), "*.y");
        assert!(reached(&graph, "x", "k.z").is_empty());
        bind(&mut graph, "z", queue("at z"), "");

        assert_eq!(reached(&graph, "x", "k"), ["at x"]);
        assert_eq!(reached(&graph, "x", "k.y"), ["at y"]);
        assert_eq!(reached(&graph, "x", "k.z"), ["at z"]);
    }

    #[test]
    fn a_missing_alternate_is_passed_over_until_it_is_there() {
        let mut graph = graph(&[]);
        declare(&mut graph, "x", with_alternate("direct", "later"));

        assert!(reached(&graph, "x", "k").is_empty());

        declare(&mut graph, "later", Declaration::durable(kind("fanout")));
        bind(&mut graph, "later", queue("q"), "");
        assert_eq!(reached(&graph, "x", "k"), ["q"]);
    }

    #[test]
    fn a_match_that_is_an_exchange_keeps_the_alternate_out() {
        let mut graph = graph(&[("dead end", "fanout"), ("spare", "fanout")]);
        declare(&mut graph, "x", with_alternate("fanout", "spare"));
        bind(&mut graph, "x", exchange("dead end"), "");
        bind(&mut graph, "spare", queue("q"), "");

        assert!(reached(&graph, "x", "k").is_empty());
    }

    #[test]
    fn an_alternate_of_the_arguments_goes_before_a_policys() {
        let mut graph = graph(&[("one", "fanout"), ("two", "fanout"), ("plain", "direct")]);
        declare(&mut graph, "argued", with_alternate("direct", "one"));
        bind(&mut graph, "one", queue("q1"), "");
        bind(&mut graph, "two", queue("q2"), "");

        for name in ["plain", "argued"] {
            graph.set_alternate(name.as_bytes(), Some("two".into())).unwrap();
        }
        assert_eq!(reached(&graph, "plain", "k"), ["q2"]);
        assert_eq!(reached(&graph, "argued", "k"), ["q1"]);

        graph.set_alternate(b"plain", None).unwrap();
        assert!(reached(&graph, "plain", "k").is_empty());
    }

    #[test]
    fn copies_are_further_keys_of_the_same_message() {
        let mut graph = graph(&[("spare", "fanout")]);
        declare(&mut graph, "x", with_alternate("direct", "spare"));
        bind(&mut graph, "x", queue("q"), "carbon");
        bind(&mut graph, "spare", queue("spare"), "");
        let copies: &[&[u8]] = &[b"carbon", b"blind"];
        let envelope = Envelope { routing_key: b"none", copies, properties: &NoProperties };
        let mut matches = Matches::new();

        graph.route(b"x", &envelope, &mut matches).unwrap();

        assert_eq!(matches.queues(), ["q"]);
    }

    #[test]
    fn a_message_with_copies_still_goes_to_one_target_where_one_is_picked() {
        for name in ["x-consistent-hash", "x-modulus-hash", "x-random"] {
            let mut graph = graph(&[("x", name)]);
            ["q1", "q2", "q3", "q4"].into_iter().for_each(|name| bind(&mut graph, "x", queue(name), "1"));
            let copies: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"e", b"f"];
            let envelope = Envelope { copies, ..Envelope::keyed(b"k") };
            let mut matches = Matches::new();

            graph.route(b"x", &envelope, &mut matches).unwrap();

            assert_eq!(matches.queues().len(), 1, "{name}");
        }
    }

    #[test]
    fn hashed_keys_go_to_the_same_names_in_every_run() {
        let names = ["q1", "q2", "q3", "q4", "q5"];
        for name in ["x-consistent-hash", "x-modulus-hash"] {
            let mut one = graph(&[("x", name), ("y", "fanout")]);
            bind(&mut one, "x", exchange("y"), "2");
            bind(&mut one, "y", queue("behind"), "");
            names.into_iter().for_each(|name| bind(&mut one, "x", queue(name), "2"));
            let mut other = graph(&[("y", "fanout"), ("other", "fanout"), ("x", name)]);
            names.into_iter().rev().for_each(|name| bind(&mut other, "x", queue(name), "2"));
            bind(&mut other, "y", queue("behind"), "");
            bind(&mut other, "x", exchange("y"), "2");

            let reached = |graph: &Graph| -> Vec<_> {
                (0..100).map(|key| reached(graph, "x", &key.to_string())).collect()
            };

            assert_eq!(reached(&one), reached(&other), "{name}");
            assert!(reached(&one).contains(&vec!["behind"]), "{name}");
        }
    }

    #[test]
    fn a_route_is_by_keys_if_every_exchange_on_it_is() {
        let mut graph = graph(&[("x", "topic"), ("random", "x-random")]);
        declare(&mut graph, "spare", with_alternate("direct", "random"));
        bind(&mut graph, "x", exchange("random"), "lucky");
        let is_by_keys = |exchange: &str, key: &str| {
            let mut matches = Matches::new();
            graph.route(exchange.as_bytes(), &Envelope::keyed(key.as_bytes()), &mut matches).unwrap();
            matches.is_by_keys()
        };

        assert!(is_by_keys("", "k"));
        assert!(is_by_keys("x", "k"));
        assert!(!is_by_keys("x", "lucky"));
        assert!(!is_by_keys("random", "k"));
        assert!(!is_by_keys("spare", "k"));
        assert!(!is_by_keys("amq.headers", "k"));
    }

    #[test]
    fn deleting_takes_all_bindings_along() {
        let mut graph = graph(&[("x", "fanout"), ("y", "fanout")]);
        bind(&mut graph, "x", exchange("y"), "");
        bind(&mut graph, "y", queue("q"), "");
        bind(&mut graph, "y", exchange("y"), "");

        let removed = graph.delete(b"y", false).unwrap();

        assert_eq!(names(&removed), ["y"]);
        assert_eq!(removed.bindings.len(), 3);
        assert_eq!(graph.bindings().count(), 0);
        assert!(graph.get(b"y").is_none());
        assert!(reached(&graph, "x", "").is_empty());
        assert!(graph.delete(b"y", true).unwrap().is_empty());
    }

    #[test]
    fn deleting_if_unused_spares_what_has_bindings_from_it() {
        let mut graph = graph(&[("x", "fanout"), ("y", "fanout")]);
        bind(&mut graph, "x", exchange("y"), "");

        assert_eq!(graph.delete(b"x", true).unwrap_err(), Error::InUse { name: "x".into() });
        assert_eq!(names(&graph.delete(b"y", true).unwrap()), ["y"]);
        assert_eq!(names(&graph.delete(b"x", true).unwrap()), ["x"]);
    }

    #[test]
    fn an_auto_delete_exchange_goes_with_its_last_binding() {
        let mut graph = graph(&[]);
        declare(&mut graph, "x", auto_delete("topic"));
        bind(&mut graph, "x", queue("q"), "a");
        bind(&mut graph, "x", queue("q"), "b");

        assert!(names(&unbind(&mut graph, "x", queue("q"), "a")).is_empty());
        assert_eq!(reached(&graph, "x", "b"), ["q"]);
        assert_eq!(names(&unbind(&mut graph, "x", queue("q"), "b")), ["x"]);
        assert!(graph.get(b"x").is_none());
    }

    #[test]
    fn auto_delete_runs_up_the_bindings() {
        let mut graph = graph(&[("kept", "fanout")]);
        for name in ["top", "middle", "bottom", "unbound"] {
            declare(&mut graph, name, auto_delete("fanout"));
        }
        bind(&mut graph, "kept", exchange("top"), "");
        bind(&mut graph, "top", exchange("middle"), "");
        bind(&mut graph, "middle", exchange("bottom"), "");
        bind(&mut graph, "bottom", queue("q"), "");
        bind(&mut graph, "bottom", queue("q"), "again");

        let removed = graph.remove_queue(&"q");

        assert_eq!(names(&removed), ["bottom", "middle", "top"]);
        assert_eq!(removed.bindings.len(), 5);
        assert_eq!(graph.bindings().count(), 0);
        assert!(graph.get(b"kept").is_some());
        assert!(graph.get(b"unbound").is_some());
        assert!(graph.queues.is_empty());
    }

    #[test]
    fn auto_delete_exchanges_in_a_circle_go_once() {
        let mut graph = graph(&[]);
        declare(&mut graph, "x", auto_delete("fanout"));
        declare(&mut graph, "y", auto_delete("fanout"));
        bind(&mut graph, "x", exchange("y"), "");
        bind(&mut graph, "y", exchange("x"), "");
        bind(&mut graph, "x", exchange("x"), "");

        let removed = graph.delete(b"x", false).unwrap();

        assert_eq!(names(&removed), ["x", "y"]);
        assert_eq!(removed.bindings.len(), 3);
    }

    #[test]
    fn bindings_are_listed_in_order_from_and_to() {
        let mut graph = graph(&[("x", "direct"), ("y", "fanout")]);
        bind(&mut graph, "x", queue("q"), "2");
        bind(&mut graph, "y", queue("q"), "");
        bind(&mut graph, "x", exchange("y"), "1");
        let keys = |bindings: Vec<&Binding<&'static str>>| -> Vec<String> {
            bindings.iter().map(|binding| binding.routing_key.to_string()).collect()
        };

        assert_eq!(keys(graph.bindings().collect()), ["2", "", "1"]);
        assert_eq!(keys(graph.bindings_from(b"x").collect()), ["2", "1"]);
        assert_eq!(keys(graph.bindings_to(&queue("q")).collect()), ["2", ""]);
        assert_eq!(keys(graph.bindings_to(&exchange("y")).collect()), ["1"]);
        assert_eq!(graph.bindings_from(b"nowhere").count(), 0);
        assert_eq!(graph.bindings_to(&queue("nowhere")).count(), 0);
    }

    #[test]
    fn a_wide_fanout_reaches_every_queue_once() {
        let mut graph = Exchanges::<Arc<str>>::new();
        let none = Arguments::default();
        for source in [b"amq.fanout".as_slice(), b"amq.topic"] {
            for queue in 0..20_000 {
                graph.bind(source, &Target::Queue(queue.to_string().into()), b"#", &none).unwrap();
            }
        }
        graph.bind(b"amq.topic", &Target::Exchange("amq.fanout".into()), b"a", &none).unwrap();
        let mut matches = Matches::new();

        graph.route(b"amq.topic", &Envelope::keyed(b"a"), &mut matches).unwrap();

        assert_eq!(matches.queues().len(), 20_000);
        graph.route(b"amq.direct", &Envelope::keyed(b"a"), &mut matches).unwrap();
        assert!(matches.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Declare(usize, bool),
        Delete(usize),
        Bind(usize, usize, usize),
        Unbind(usize, usize, usize),
        RemoveQueue(usize),
    }

    const KINDS_USED: [&str; 4] = ["direct", "fanout", "topic", "direct"];
    const EXCHANGES: [&str; 4] = ["w", "x", "y", "z"];
    const QUEUES: [&str; 3] = ["q1", "q2", "q3"];
    const KEYS: [&str; 3] = ["a", "b", "#"];

    fn target(number: usize) -> Target<&'static str> {
        match QUEUES.get(number) {
            Some(name) => queue(name),
            None => exchange(EXCHANGES[number - QUEUES.len()]),
        }
    }

    fn take(graph: &mut Graph, step: &Step) {
        let none = Arguments::default();
        let name = |number: usize| EXCHANGES[number].as_bytes();
        match *step {
            Step::Declare(number, auto_delete) => {
                let kind = kind(KINDS_USED[number]);
                let declaration = Declaration { auto_delete, ..Declaration::durable(kind) };
                graph.declare(name(number), declaration).ok();
            }
            Step::Delete(number) => drop(graph.delete(name(number), false).unwrap()),
            Step::Bind(source, to, key) => {
                graph.bind(name(source), &target(to), KEYS[key].as_bytes(), &none).ok();
            }
            Step::Unbind(source, to, key) => {
                graph.unbind(name(source), &target(to), KEYS[key].as_bytes(), &none).ok();
            }
            Step::RemoveQueue(number) => drop(graph.remove_queue(&QUEUES[number])),
        }
    }

    /// What is reached, by following the list of bindings.
    fn followed(graph: &Graph, start: &str, key: &str) -> Vec<&'static str> {
        let mut walked = vec![Name::from(start)];
        let mut queues = Vec::new();
        let mut next = 0;
        while let Some(name) = walked.get(next).cloned() {
            next += 1;
            let kind = graph.get(&name).unwrap().kind.name();
            for binding in graph.bindings().filter(|binding| binding.source == name) {
                let wanted = match kind {
                    "fanout" => true,
                    "topic" => *binding.routing_key == *b"#" || *binding.routing_key == *key.as_bytes(),
                    _ => *binding.routing_key == *key.as_bytes(),
                };
                match &binding.target {
                    _ if !wanted => {}
                    Target::Queue(queue) if !queues.contains(queue) => queues.push(*queue),
                    Target::Exchange(name) if !walked.contains(name) => walked.push(name.clone()),
                    _ => {}
                }
            }
        }
        queues.sort_unstable();
        queues
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let binding = || (0..4usize, 0..7usize, 0..3usize);
        let step = prop_oneof![
            3 => (0..4usize, any::<bool>()).prop_map(|(number, auto)| Step::Declare(number, auto)),
            1 => (0..4usize).prop_map(Step::Delete),
            8 => binding().prop_map(|(source, to, key)| Step::Bind(source, to, key)),
            3 => binding().prop_map(|(source, to, key)| Step::Unbind(source, to, key)),
            1 => (0..3usize).prop_map(Step::RemoveQueue),
        ];
        vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn routes_agree_with_the_list_of_bindings_whatever_happened(steps in steps()) {
            let mut graph = graph(&[]);
            for step in &steps {
                take(&mut graph, step);
            }

            for name in EXCHANGES.into_iter().filter(|name| graph.get(name.as_bytes()).is_some()) {
                for key in ["a", "b", "c"] {
                    prop_assert_eq!(reached(&graph, name, key), followed(&graph, name, key));
                }
            }

            for number in 0..EXCHANGES.len() {
                take(&mut graph, &Step::Delete(number));
            }
            prop_assert_eq!(graph.bindings().count(), 0);
            prop_assert!(graph.queues.is_empty());
            prop_assert_eq!(graph.exchanges.len(), PREDECLARED.len());
        }
    }
}

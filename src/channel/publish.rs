//! Publishing: checks, the route, and the batch in which messages reach their queues and the store.

use std::sync::Arc;

use amqp::method::{self, Cold, basic};
use amqp::{Exception, Header, Properties, ReplyCode, frame, table};
use bytes::Bytes;
use exchanges::Matches;
use store::{Ticket, Urgency};

use super::assembly::Published;
use super::roads::Meaning;
use super::{Channel, Context, Mode};
use crate::message::{Message, StoredBy};
use crate::outbox::Outbox;
use crate::parts;
use crate::queue::{self, OnDuplicate, With};
use crate::tally::{Count, Delta, Sizes, SizesDelta, Tally};
use crate::vhost::{
    Asked, BCC, Held, Pending, REPLY_TO, SCHEDULE, Verdict, asks_for_delay, is_reply_name, schedule_id,
};

/// Publishes of a connection that have been routed and wait to be handed over.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) matches: Matches<queue::Handle>,
    pub(super) messages: queue::Batch,
    /// Channels in confirm mode that published.
    confirming: Vec<u16>,
    /// A queue that has more than its consumers have been given, and wants no more for a while.
    pub ahead_in: Option<queue::Handle>,
    /// What has been counted of exchanges and is not in their tallies yet: mostly it is the same one.
    exchanges: Vec<(Arc<Tally>, Delta)>,
    /// How large the bodies were.
    sizes: SizesDelta,
}

/// How a message is to be sent.
struct Way {
    mandatory: bool,
    /// Messages of the same keys and properties go the same way.
    is_plain: bool,
    /// The exchange holds it back first.
    delay: Option<Delay>,
}

/// Where a message waits for its hour, how long, in milliseconds, and the id that it can be found by.
pub(super) struct Delay {
    pub(super) queue: queue::Handle,
    ms: u64,
    id: Option<Box<[u8]>>,
}

/// What came of handing publishes over.
pub struct Flushed<'a> {
    /// What they wait for; nothing if nothing was stored.
    pub ticket: Option<Ticket>,
    /// The channels that want to confirm them.
    pub confirming: std::vec::Drain<'a, u16>,
    /// Those that a queue has refused, in order.
    pub refused: Vec<queue::Origin>,
    /// Those that go back: a queue has one like it.
    pub returned: Vec<(queue::Origin, Arc<Message>)>,
}

impl Batch {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.confirming.is_empty()
    }

    /// Counts a message that an exchange has routed to so many queues.
    #[inline]
    fn count(&mut self, exchange: &Arc<Tally>, queues: usize, body_bytes: usize) {
        self.sizes.add(body_bytes);
        if self.exchanges.last().is_none_or(|(last, _)| !Arc::ptr_eq(last, exchange)) {
            self.exchanges.push((exchange.clone(), Delta::default()));
        }
        if let Some((_, counted)) = self.exchanges.last_mut() {
            counted.add(Count::PublishIn, 1);
            counted.add(Count::PublishOut, queues);
        }
    }

    /// Adds what was counted to the tallies.
    pub fn note(&mut self, sizes: &Sizes, now_ms: u64) {
        self.exchanges.drain(..).for_each(|(tally, counted)| tally.add(&counted, now_ms));
        sizes.add(&mut self.sizes);
    }

    /// Hands everything over: to the queues, which deliver at once, and to the store.
    pub fn flush(&mut self, session: &mut store::Session, outbox: &Arc<Outbox>) -> Flushed<'_> {
        let is_lazy = self.confirming.is_empty();
        let (ticket, outcome) = self.messages.flush(Some(outbox), |operations, sync| {
            let urgency = if is_lazy { Urgency::Lazy } else { Urgency::Written(sync) };
            session.append(operations, urgency)
        });
        for queue in outcome.ahead {
            let before = self.ahead_in.replace(queue.clone());
            if let Some(other) = before.filter(|before| *before != queue) {
                other.let_go(outbox);
            }
        }
        let queue::Outcome { refused, returned, .. } = outcome;
        Flushed { ticket, confirming: self.confirming.drain(..), refused, returned }
    }
}

impl Channel {
    /// A publish with all of its content, in the way of those that the channel remembers: the payloads of
    /// its method, header and body. False if it is not like one of them, and nothing has happened.
    pub fn publish_again(
        &mut self,
        context: &mut Context<'_>,
        method: &[u8],
        header: &[u8],
        body: &[u8],
    ) -> bool {
        const MANDATORY: u8 = 1;
        if !self.assembly.is_idle() || matches!(self.mode, Mode::Tx(_)) {
            return false;
        }
        // Taken out while the rest of the channel is at work.
        let Some(roads) = self.roads.take() else { return false };
        let properties = Header::properties(header);
        let road = method::publish_parts(method).filter(|(_, flags)| *flags <= MANDATORY);
        let road = road.and_then(|(address, flags)| {
            let (queues, tally) = roads.find(context.vhost.generation(), address)?;
            Some((address, flags, queues, tally, roads.meaning(properties)?))
        });
        let is_known = road.is_some_and(|(address, flags, queues, tally, meaning)| {
            if body.len() as u64 > context.broker.config.message_bytes_max {
                return false;
            }
            let message = Message {
                parts: parts::Parts::within(context.whole, address, properties, body),
                persistent: meaning.persistent,
                ttl_ms: meaning.ttl_ms,
                priority: meaning.priority,
                copies: None,
                stored_by: StoredBy::none(),
                taken_at_ms: context.now_ms,
            };
            context.batch.count(tally, queues.len(), body.len());
            self.routed(context, message, flags == MANDATORY, queues, None);
            true
        });
        self.roads = Some(roads);
        is_known
    }

    /// A publish with all its content has come.
    pub(super) fn publish(
        &mut self,
        context: &mut Context<'_>,
        published: Published,
    ) -> Result<(), Exception> {
        let Published { head, properties, body } = published;
        if head.immediate {
            return Err(Exception::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        let Some((exchange, routing_key)) = method::split_address(&head.address) else {
            return Err(Exception::new(ReplyCode::InternalError, "an address is not one"));
        };
        // That an exchange is gone, the route finds out.
        let permitted = context.caller.access.generation();
        if self.checked_exchange.as_ref().is_none_or(|(by, name)| *by != permitted || **name != *exchange) {
            context.vhost.check_publish(context.caller, exchange)?;
            self.checked_exchange = Some((permitted, exchange.into()));
        }
        if let Mode::Tx(tx) = &self.mode {
            tx.check_room(body.len())?;
        }
        if context.caller.access.has_topics(exchange) {
            context.vhost.check_topic(context.caller, exchange, routing_key)?;
        }
        let Ok(read) = Properties::parse(&properties) else {
            return Err(Exception::new(ReplyCode::SyntaxError, "the properties of a message are malformed"));
        };
        let Asked { ttl_ms, copies } = Asked::read(&context.caller.user, &read)?;
        let (persistent, priority) = (read.is_persistent(), read.priority.unwrap_or_default());
        let delay = context.vhost.delay(exchange, &read, context.now_ms)?;
        // A blind copy is for later, too, if the message is.
        let rewritten = self.rewrite(&read, delay.is_some())?;
        // The same headers may mean a delay elsewhere.
        let is_plain = copies.is_none() && rewritten.is_none() && !read.headers.is_some_and(asks_for_delay);
        let properties = rewritten.unwrap_or_else(|| properties.clone());
        let message = Message {
            parts: parts::Parts::gathered(&head.address, &properties, body),
            persistent,
            ttl_ms,
            priority,
            copies,
            stored_by: StoredBy::none(),
            taken_at_ms: context.now_ms,
        };
        if exchange == SCHEDULE {
            return self.ask_schedule(context, message, head.mandatory, read.headers.unwrap_or_default());
        }
        let delay = match delay {
            None => None,
            Some((queue, ms)) => {
                let id = schedule_id(read.headers.unwrap_or_default())?;
                if id.is_some() {
                    self.check_untransacted("a message with an x-schedule-id is published")?;
                }
                Some(Delay { queue, ms, id })
            }
        };
        let mut matches = std::mem::take(&mut context.batch.matches);
        let way = Way { mandatory: head.mandatory, is_plain, delay };
        let outcome = self.send(context, message, &read, way, &mut matches);
        matches.clear();
        context.batch.matches = matches;
        outcome
    }

    /// A message that nothing is wrong with goes its way.
    fn send(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        read: &Properties<'_>,
        mut way: Way,
        matches: &mut Matches<queue::Handle>,
    ) -> Result<(), Exception> {
        let generation = context.vhost.generation();
        let mut held = self.route(context, &message, matches)?;
        let tally = context.vhost.exchange_tally(message.exchange());
        context.batch.count(&tally, matches.queues().len(), message.parts.body().len());
        let is_traced = context.vhost.is_traced();
        if is_traced {
            self.trace_publish(context, &message, matches.queues());
        }
        if way.is_plain && !is_traced && matches.is_by_keys() && !is_direct_reply(&message) {
            let roads = self.roads.get_or_insert_default();
            roads.learn(generation, message.parts.address(), matches.queues(), tally.clone());
            let Message { persistent, ttl_ms, priority, .. } = message;
            roads.learn_meaning(message.parts.properties(), Meaning { persistent, ttl_ms, priority });
        }
        let verdict = match matches.is_by_keys() {
            true => Verdict::New(None),
            false => self.look_at(context, &message, read, matches)?,
        };
        let with = match verdict {
            Verdict::New(with) => with,
            Verdict::Duplicate(OnDuplicate::DeadLetter) => {
                held = context.vhost.route_to_alternate(&message, matches);
                way.delay = None;
                None
            }
            Verdict::Duplicate(how) => {
                self.duplicate(context, &message, how);
                return Ok(());
            }
        };
        let leads_nowhere = matches.is_empty() && held.is_empty();
        match way.delay {
            // Whether it leads anywhere is looked at now, and again when it is due.
            Some(delay) if !(way.mandatory && leads_nowhere) => {
                let message = Message { ttl_ms: Some(delay.ms), ..message };
                match &delay.id {
                    None => self.routed(context, message, false, &[delay.queue], with),
                    Some(id) => self.schedule(context, message, way.mandatory, &delay, id, with),
                }
            }
            _ => {
                for (delays, ms) in held {
                    self.hold(context, &message, delays, ms);
                }
                self.routed(context, message, way.mandatory && leads_nowhere, matches.queues(), with);
            }
        }
        Ok(())
    }

    /// A message is held back by an exchange that it has reached from another one.
    fn hold(&mut self, context: &mut Context<'_>, message: &Message, delays: queue::Handle, ms: u64) {
        let again = message.held_back(ms);
        match &mut self.mode {
            Mode::Tx(tx) => tx.publish(Arc::new(again), false, &[delays]),
            Mode::Plain | Mode::Confirm(_) => {
                context.batch.messages.add(again, &[delays], queue::Origin::default(), None);
            }
        }
    }

    /// Finds where a message goes, and where it is held back on its way.
    fn route(
        &mut self,
        context: &mut Context<'_>,
        message: &Message,
        matches: &mut Matches<queue::Handle>,
    ) -> Result<Held, Exception> {
        matches.clear();
        if is_direct_reply(message) {
            return Ok(Held::new());
        }
        if let Some(held) = context.vhost.route(message, matches) {
            return Ok(held);
        }
        // The exchange was there when it was checked. Find out what is wrong now.
        self.checked_exchange = None;
        context.vhost.check_publish(context.caller, message.exchange())?;
        Ok(Held::new())
    }

    /// An exchange that has more to do with messages than to route them looks at one.
    fn look_at(
        &self,
        context: &Context<'_>,
        message: &Message,
        properties: &Properties<'_>,
        matches: &Matches<queue::Handle>,
    ) -> Result<Verdict, Exception> {
        if matches!(self.mode, Mode::Tx(_)) && context.vhost.knows_again(message.exchange()) {
            let text = format!(
                "exchange '{}' in vhost '{}' knows messages again, which no transaction can take back; publish \
                 on a channel without one",
                message.exchange(),
                context.vhost.name()
            );
            return Err(Exception::new(ReplyCode::PreconditionFailed, text));
        }
        let is_certain = matches.queues().iter().all(|queue| !queue.may_refuse());
        let pending = Pending { connection: context.caller.connection, is_certain };
        Ok(context.vhost.look_at(message, properties, pending))
    }

    /// A publish has come before, and goes to no queue.
    fn duplicate(&mut self, context: &mut Context<'_>, message: &Message, how: OnDuplicate) {
        if how == OnDuplicate::Return {
            self.returned(context, message);
        }
        let origin = self.published(context);
        if matches!(self.mode, Mode::Confirm(_)) {
            match how {
                OnDuplicate::Nack => context.batch.messages.refuse(origin),
                _ => context.batch.messages.wait(context.vhost.sync()),
            }
        }
    }

    /// Counts a publish, which is confirmed with the batch if the client wants that.
    pub(super) fn published(&mut self, context: &mut Context<'_>) -> queue::Origin {
        let mut origin = queue::Origin { channel: self.number, tag: 0 };
        self.published.add(Count::Publish, 1);
        if let Mode::Confirm(confirms) = &mut self.mode {
            self.published.add(Count::PublishConfirm, 1);
            origin.tag = confirms.published();
            if context.batch.confirming.last() != Some(&self.number) {
                context.batch.confirming.push(self.number);
            }
        }
        origin
    }

    /// A publish that nothing is wrong with takes effect, or is kept for the commit. The store is told `with`
    /// in the same record.
    fn routed(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        mandatory: bool,
        queues: &[queue::Handle],
        with: Option<With>,
    ) {
        self.published.add(Count::Routed, queues.len());
        if let Mode::Tx(tx) = &mut self.mode {
            self.published.add(Count::Publish, 1);
            return tx.publish(Arc::new(message), mandatory, queues);
        }
        self.note_published(context, &message, queues);
        let origin = self.published(context);
        if message.copies.is_some() && message.exchange().is_empty() {
            answer_by_copies(context, &message);
        }
        if !queues.is_empty() {
            return context.batch.messages.add(message, queues, origin, with);
        }
        with.into_iter().for_each(|with| context.batch.messages.add_with(with, origin));
        let message = Arc::new(message);
        let is_answered =
            is_direct_reply(&message) && context.vhost.requesters().answer(message.routing_key(), &message);
        if mandatory && !is_answered {
            self.published.add(Count::ReturnUnroutable, 1);
            self.return_unroutable(context, &message);
        } else if !is_answered {
            self.published.add(Count::DropUnroutable, 1);
        }
    }

    /// The properties as they go on, if they have to change: a direct reply-to gets the name that answers
    /// go to, and `BCC` is for nobody to see.
    fn rewrite(&self, read: &Properties<'_>, keeps_bcc: bool) -> Result<Option<Bytes>, Exception> {
        let reply_to = match read.reply_to {
            Some(name) if name == REPLY_TO.as_bytes() => match &self.requester {
                Some((_, name)) => Some(name.as_bytes()),
                None => {
                    let text = "fast reply consumer does not exist";
                    return Err(Exception::new(ReplyCode::PreconditionFailed, text));
                }
            },
            _ => None,
        };
        let has_bcc = |headers: &&[u8]| table::raw_entries(headers).any(|(name, _)| name == BCC);
        let headers = read.headers.filter(|_| !keeps_bcc).filter(has_bcc);
        if reply_to.is_none() && headers.is_none() {
            return Ok(None);
        }
        let headers = headers.map(|headers| table::without(headers, BCC));
        let changed = Properties {
            reply_to: reply_to.or(read.reply_to),
            headers: headers.as_deref().or(read.headers),
            ..*read
        };
        Ok(Some(changed.encode().into()))
    }

    /// A queue has a message like this one.
    pub fn returned(&self, context: &mut Context<'_>, message: &Message) {
        let code = ReplyCode::PreconditionFailed;
        self.return_message(context, message, code, code.name());
    }

    /// basic.return: no queue took a mandatory message.
    pub(super) fn return_unroutable(&self, context: &mut Context<'_>, message: &Message) {
        self.return_message(context, message, ReplyCode::NoRoute, ReplyCode::NoRoute.name());
    }

    pub(super) fn return_message(
        &self,
        context: &mut Context<'_>,
        message: &Message,
        code: ReplyCode,
        text: &str,
    ) {
        let method = Cold::Basic(basic::AMQPMethod::Return(basic::Return {
            reply_code: code.number(),
            reply_text: text.into(),
            exchange: message.exchange().into(),
            routing_key: message.routing_key().into(),
        }));
        frame::put_method(context.out.frames(), self.number, &method);
        context.out.put_content(self.number, message, context.frame_bytes_max);
    }
}

/// Hands an answer to those direct reply-to names that are among a message's further keys.
fn answer_by_copies(context: &Context<'_>, message: &Message) {
    let copies = message.copies.iter().flatten().filter_map(|key| std::str::from_utf8(key).ok());
    for name in copies.filter(|name| is_reply_name(name)) {
        let again = message.again(message.parts.clone(), message.taken_at_ms);
        let answer = Message { ttl_ms: None, ..again };
        context.vhost.requesters().answer(name, &Arc::new(answer));
    }
}

/// Whether a message is the answer to a direct reply-to, which goes through no queue.
pub fn is_direct_reply(message: &Message) -> bool {
    message.exchange().is_empty() && is_reply_name(message.routing_key())
}

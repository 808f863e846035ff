//! A channel: one client's conversation within a connection. Dispatch by method; the work is in a file
//! a verb.

mod assembly;
mod confirm;
mod consume;
mod declare;
mod late;
mod news;
mod publish;
mod reply;
mod roads;
mod schedule;
mod settle;
mod trace;
mod trail;
mod tx;
mod unacked;

use std::collections::BTreeSet;
use std::sync::Arc;

use amqp::method::{Cold, access, basic, channel, confirm as confirm_class, tx as tx_class};
use amqp::{Exception, Frame, FrameKind, Method, ReplyCode, frame, method};
use bytes::Bytes;
use hashbrown::HashMap;
use store::{QueueId, Ticket};

pub use publish::{Batch, Flushed};
pub use reply::Failure;
pub use settle::{Settlements, reject, requeue};
pub use tx::Commit;
pub use unacked::Unacked;

use crate::broker::Broker;
use crate::delivery::{ChannelCredit, ConsumerId};
use crate::outbox::{Held, Outbox};
use crate::queue::Return;
use crate::roster::{ChannelFacts, Guest, Standing};
use crate::tally::{Count, Delta, Tallies};
use crate::vhost::{Caller, Vhost};
use crate::writer::Writer;
use assembly::Assembly;
use confirm::{Confirms, Verdict};
use consume::Consumer;
use late::Patience;
use roads::Roads;
use tx::Transaction;
use unacked::UnackedList;

/// What a channel needs of its connection while it works.
pub struct Context<'a> {
    /// The broker.
    pub broker: &'a Arc<Broker>,
    /// The connection's vhost.
    pub vhost: &'a Arc<Vhost>,
    /// Who asks.
    pub caller: &'a Caller,
    /// The connection, as others see it.
    pub guest: &'a Arc<Guest>,
    /// Where replies go.
    pub out: &'a mut Writer,
    /// Where deliveries come from.
    pub outbox: &'a Arc<Outbox>,
    /// The connection's line to the store.
    pub session: &'a mut store::Session,
    /// Publishes to be handed over.
    pub batch: &'a mut Batch,
    /// Acknowledged deliveries to be handed over.
    pub settlements: &'a mut Settlements,
    /// Deliveries to be put back, each with how it comes back.
    pub requeues: &'a mut Vec<(Unacked, Return)>,
    /// Deliveries that have been rejected for good.
    pub rejections: &'a mut Vec<Unacked>,
    /// The memory that the frame being handled lies in.
    pub whole: &'a Bytes,
    /// The largest frame the client takes; 0 for any.
    pub frame_bytes_max: u32,
    /// When the frames being handled were received, in milliseconds since 1970.
    pub now_ms: u64,
    /// The client wants to hear when the broker ends a consumer.
    pub wants_cancel_notices: bool,
    /// The client takes basic.qos without `global` to be for the channel's running consumers too.
    pub is_qos_for_running_consumers: bool,
}

impl Context<'_> {
    fn next_consumer_id(&self) -> ConsumerId {
        self.broker.next_consumer_id()
    }
}

/// How a connection goes on after a method.
#[derive(Debug)]
pub enum Flow {
    /// With the next frame.
    Go,
    /// Not before the store has written something.
    Wait(Wait),
    /// After it has delivered what is in the outbox: the consumer is then gone, and the client told.
    Cancelled {
        /// The consumer.
        consumer: ConsumerId,
        /// What the client is told.
        reply: Option<Cold>,
    },
    /// The client has closed the channel.
    Closed,
}

/// Something to be done when the store has written, or read.
#[derive(Debug)]
pub struct Wait {
    /// What has to be durable.
    pub ticket: Ticket,
    /// What is then done.
    pub then: Then,
}

/// What is done when the store has written, or read.
#[derive(Debug)]
pub enum Then {
    /// The client is told.
    Reply(Cold),
    /// The commit becomes visible, and the client is told.
    Commit(Box<Commit>, Cold),
    /// The message may have been read by now: basic.get is tried again.
    Get(basic::Get),
}

/// A channel of a connection.
#[derive(Debug)]
pub struct Channel {
    number: u16,
    is_closing: bool,
    assembly: Assembly,
    mode: Mode,
    consumers: HashMap<ConsumerId, Consumer>,
    tags: HashMap<Arc<str>, ConsumerId>,
    unacked: UnackedList,
    /// The last delivery's number.
    last_tag: u64,
    /// The queue that an empty name means.
    last_queue: Option<Arc<str>>,
    /// For consumers to come; 0 is no limit.
    prefetch: u16,
    credit: Arc<ChannelCredit>,
    /// Credit that settled deliveries had of the global limit, not yet given back.
    credit_back: u32,
    /// The consumer of direct replies, and the name that they go to.
    requester: Option<(ConsumerId, Box<str>)>,
    /// The exchange that the last publish was allowed to, and by which permissions.
    checked_exchange: Option<(u64, Box<str>)>,
    /// What is remembered of publishes, once there was one.
    roads: Option<Box<Roads>>,
    patience: Patience,
    /// Numbers of deliveries that were kept too long, and have gone back.
    taken_back: BTreeSet<u64>,
    /// What others may see of it.
    facts: Arc<ChannelFacts>,
    /// What has been counted of its publishes, and of what it took, and is not in a tally yet.
    published: Delta,
    taken: Delta,
    /// The last publish that the client was told of.
    confirmed_tag: u64,
    /// Others may not see yet how it stands.
    is_changed: bool,
}

/// What a channel's publishes are part of.
#[derive(Debug)]
enum Mode {
    Plain,
    Confirm(Confirms),
    Tx(Transaction),
}

impl Channel {
    /// A channel that has just been opened.
    pub fn new(number: u16, facts: Arc<ChannelFacts>) -> Self {
        Channel {
            facts,
            published: Delta::default(),
            taken: Delta::default(),
            confirmed_tag: 0,
            is_changed: true,
            number,
            is_closing: false,
            assembly: Assembly::default(),
            mode: Mode::Plain,
            consumers: HashMap::new(),
            tags: HashMap::new(),
            unacked: UnackedList::default(),
            last_tag: 0,
            last_queue: None,
            prefetch: 0,
            credit: Arc::default(),
            credit_back: 0,
            requester: None,
            checked_exchange: None,
            roads: None,
            patience: Patience::default(),
            taken_back: BTreeSet::new(),
        }
    }

    /// Whether methods are served; after an error only its end is waited for.
    pub fn is_open(&self) -> bool {
        !self.is_closing
    }

    /// Handles a frame of this channel.
    ///
    /// # Errors
    /// What the client did wrong; the connection closes the channel, or itself.
    pub fn handle(&mut self, context: &mut Context<'_>, frame: &Frame<'_>) -> Result<Flow, Failure> {
        const PUBLISH: (u16, u16) = (60, 40);
        let published = match frame.kind {
            FrameKind::Method => return self.handle_method(context, frame.payload),
            FrameKind::Header => {
                let blame = if self.assembly.is_idle() { (0, 0) } else { PUBLISH };
                let body_bytes_max = context.broker.config.message_bytes_max;
                let header = self.assembly.header(context.whole, frame.payload, body_bytes_max);
                header.map_err(|e| match e.code {
                    // Not a header at all: no method is to blame for that.
                    ReplyCode::FrameError => Failure::of_none(e),
                    _ => Failure::of(e, blame),
                })?
            }
            FrameKind::Body => {
                let blame = if self.assembly.is_idle() { (0, 0) } else { PUBLISH };
                let body = self.assembly.body(context.whole, frame.payload);
                body.map_err(|e| Failure::of(e, blame))?
            }
            FrameKind::Heartbeat => None,
        };
        if let Some(published) = published {
            self.publish(context, published).map_err(|e| Failure::of(e, PUBLISH))?;
        }
        Ok(Flow::Go)
    }

    fn handle_method(&mut self, context: &mut Context<'_>, payload: &[u8]) -> Result<Flow, Failure> {
        if !self.assembly.is_idle() {
            return Err(Failure::of(self.assembly.unexpected(), (60, 40)));
        }
        match method::decode(payload).map_err(|e| undecodable(e, payload))? {
            Method::Publish(publish) => {
                self.assembly.begin(&publish, context.whole);
                Ok(Flow::Go)
            }
            Method::Ack(ack) => self.ack(context, ack).map_err(|e| Failure::of(e, (60, 80))),
            Method::Cold(method) => {
                let ids = (method.get_amqp_class_id(), method.get_amqp_method_id());
                if let Cold::Basic(basic::AMQPMethod::Qos(_)) = *method {
                    check_prefetch_bytes(payload).map_err(|e| Failure::of(e, ids))?;
                }
                self.handle_cold(context, *method).map_err(|e| Failure::of(e, ids))
            }
        }
    }

    fn handle_cold(&mut self, context: &mut Context<'_>, method: Cold) -> Result<Flow, Exception> {
        use basic::AMQPMethod as Basic;
        use channel::AMQPMethod as Chan;
        self.is_changed = true;
        match method {
            Cold::Basic(Basic::Nack(m)) => self.nack(context, &m),
            Cold::Basic(Basic::Reject(m)) => self.reject(context, &m),
            Cold::Basic(Basic::Consume(m)) => self.consume(context, m),
            Cold::Basic(Basic::Cancel(m)) => self.cancel(context, m),
            Cold::Basic(Basic::Get(m)) => self.get(context, m),
            Cold::Basic(Basic::Qos(m)) => self.qos(context, m),
            Cold::Basic(Basic::Recover(m)) => self.recover(context, m.requeue, true),
            Cold::Basic(Basic::RecoverAsync(m)) => self.recover(context, m.requeue, false),
            Cold::Exchange(m) => self.exchange_method(context, m),
            Cold::Queue(m) => self.queue_method(context, m),
            Cold::Confirm(confirm_class::AMQPMethod::Select(m)) => self.confirm_select(context, m.nowait),
            Cold::Tx(tx_class::AMQPMethod::Select(_)) => self.tx_select(context),
            Cold::Tx(tx_class::AMQPMethod::Commit(_)) => self.tx_commit(context),
            Cold::Tx(tx_class::AMQPMethod::Rollback(_)) => self.tx_rollback(context),
            Cold::Channel(Chan::Flow(m)) => self.flow(context, m.active),
            Cold::Channel(Chan::Close(_)) => Ok(Flow::Closed),
            Cold::Channel(Chan::Open(_)) => {
                Err(Exception::new(ReplyCode::ChannelError, "second 'channel.open' seen"))
            }
            Cold::Access(access::AMQPMethod::Request(_)) => {
                self.reply(context, Cold::Access(access::AMQPMethod::RequestOk(access::RequestOk {})));
                Ok(Flow::Go)
            }
            _ => Err(unimplemented_method()),
        }
    }

    fn confirm_select(&mut self, context: &mut Context<'_>, nowait: bool) -> Result<Flow, Exception> {
        match self.mode {
            Mode::Tx(_) => {
                let text = "cannot switch from tx to confirm mode";
                return Err(Exception::new(ReplyCode::PreconditionFailed, text));
            }
            Mode::Plain => self.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
        }
        if !nowait {
            let select_ok = confirm_class::AMQPMethod::SelectOk(confirm_class::SelectOk {});
            self.reply(context, Cold::Confirm(select_ok));
        }
        Ok(Flow::Go)
    }

    fn flow(&mut self, context: &mut Context<'_>, active: bool) -> Result<Flow, Exception> {
        if !active {
            return Err(Exception::new(ReplyCode::NotImplemented, "active=false"));
        }
        self.reply(context, Cold::Channel(channel::AMQPMethod::FlowOk(channel::FlowOk { active })));
        Ok(Flow::Go)
    }

    fn reply(&self, context: &mut Context<'_>, method: Cold) {
        frame::put_method(context.out.frames(), self.number, &method);
    }

    /// The publishes so far are safe once `ticket` is durable.
    pub fn sent(&mut self, ticket: Ticket) {
        if let Mode::Confirm(confirms) = &mut self.mode {
            confirms.sent(ticket);
        }
    }

    /// A queue has had no room for the publish of this number.
    pub fn refused(&mut self, tag: u64) {
        if let Mode::Confirm(confirms) = &mut self.mode {
            confirms.refused(tag);
        }
    }

    /// Confirms what is durable; true if more is waiting.
    pub fn confirm(&mut self, out: &mut Writer, durable: Ticket) -> bool {
        let Mode::Confirm(confirms) = &mut self.mode else { return false };
        while let Some(verdict) = confirms.take(durable) {
            match verdict {
                _ if self.is_closing => {}
                Verdict::Ack(ack) => {
                    let confirmed = ack.delivery_tag - self.confirmed_tag;
                    self.published.add(Count::Confirm, confirmed as usize);
                    self.confirmed_tag = ack.delivery_tag;
                    frame::put_ack(out.frames(), self.number, ack);
                }
                Verdict::Nack(delivery_tag) => {
                    self.confirmed_tag = delivery_tag;
                    let nack = basic::Nack { delivery_tag, multiple: false, requeue: false };
                    let nack = Cold::Basic(basic::AMQPMethod::Nack(nack));
                    frame::put_method(out.frames(), self.number, &nack);
                }
            }
        }
        confirms.is_waiting()
    }

    /// Adds what was counted to the tallies, and lets others see how the channel stands.
    pub fn note(&mut self, tallies: &Tallies, now_ms: u64) {
        if self.published.is_empty() && self.taken.is_empty() && !self.is_changed {
            return;
        }
        self.is_changed = false;
        for (counted, of_vhost) in [(&mut self.published, Some(&tallies.published)), (&mut self.taken, None)]
        {
            let counted = counted.take();
            self.facts.tally.add(&counted, now_ms);
            of_vhost.into_iter().for_each(|tally| tally.add(&counted, now_ms));
        }
        let (unconfirmed, uncommitted, acks_uncommitted) = match &self.mode {
            Mode::Plain => (0, 0, 0),
            Mode::Confirm(confirms) => (confirms.last_tag() - self.confirmed_tag, 0, 0),
            Mode::Tx(tx) => (0, tx.publish_count(), tx.settle_count()),
        };
        self.facts.set(&Standing {
            prefetch: self.prefetch,
            global_prefetch: self.credit.limit(),
            confirm: matches!(self.mode, Mode::Confirm(_)),
            transactional: matches!(self.mode, Mode::Tx(_)),
            consumers: self.consumers.len() as u32,
            unacked: self.unacked.len() as u32,
            unconfirmed: unconfirmed as u32,
            uncommitted: uncommitted as u32,
            acks_uncommitted: acks_uncommitted as u32,
            oldest_unacked_at_ms: self.unacked.first().map(|unacked| unacked.since_ms),
            at_ms: now_ms,
        });
    }

    /// What it has not settled of a queue, oldest first.
    pub fn holds(&self, queue: QueueId) -> impl Iterator<Item = Held> {
        let of_queue = self.unacked.iter().filter(move |(_, unacked)| unacked.queue.id() == queue);
        of_queue.map(|(delivery_tag, unacked)| {
            let consumer = unacked.consumer.and_then(|id| self.consumers.get(&id));
            Held {
                channel: self.number,
                delivery_tag,
                consumer_tag: consumer.map(|consumer| consumer.tag.clone()),
                since_ms: unacked.since_ms,
                redelivered: unacked.entry.redelivered,
                message: unacked.entry.message.clone(),
            }
        })
    }

    /// Gives back what settled deliveries had of the channel's global limit.
    pub fn give_back_credit(&mut self) {
        let n = std::mem::take(&mut self.credit_back);
        if n > 0 {
            for (queue, consumer) in self.credit.give_back(n) {
                queue.resume(consumer);
            }
        }
    }

    /// Stops serving: consumers get nothing any more. What they still have in the outbox has to be taken
    /// out, then [`Channel::release`] puts everything unsettled back, and then they [`Channel::leave`].
    pub fn close(&mut self) {
        self.is_closing = true;
        self.assembly = Assembly::Idle;
        self.stop_consumers();
    }

    /// Everything unsettled, oldest first.
    pub fn release(&mut self, context: &mut Context<'_>) {
        if let Mode::Tx(transaction) = std::mem::replace(&mut self.mode, Mode::Plain) {
            self.unacked.put_back(transaction.into_unsettled());
        }
        let lost = self.unacked.take_through(None).map(|(_, unacked)| (unacked, Return::Failed));
        context.requeues.extend(lost);
    }

    /// Consumers leave their queues. What they had is there already: a consumer that takes over begins with it.
    pub fn leave(&mut self, context: &mut Context<'_>) {
        let ids: Vec<ConsumerId> = self.consumers.keys().copied().collect();
        for id in ids {
            self.leave_queue(context, id);
            self.forget_consumer(context, id);
        }
        self.tags.clear();
    }
}

/// A prefetch window in octets is something RabbitMQ never had, and neither have we.
fn check_prefetch_bytes(qos: &[u8]) -> Result<(), Exception> {
    match method::prefetch_bytes(qos) {
        0 => Ok(()),
        size => Err(Exception::new(ReplyCode::NotImplemented, format!("prefetch_size!=0 ({size})"))),
    }
}

/// A method that clients do not send, or not on a channel.
fn unimplemented_method() -> Exception {
    Exception::new(ReplyCode::CommandInvalid, "unimplemented method")
}

/// A method that could not be read.
pub fn undecodable(error: method::Error, payload: &[u8]) -> Failure {
    match error {
        method::Error::Unknown { class_id, method_id } => {
            let text = format!("unknown method {method_id} of class {class_id}");
            Failure::of(Exception::new(ReplyCode::CommandInvalid, text), (class_id, method_id))
        }
        method::Error::NotText => {
            // RabbitMQ blames no method either.
            Failure::of_none(Exception::new(ReplyCode::FrameError, "Malformed UTF-8 in shortstr"))
        }
        method::Error::Malformed { class_id, method_id } => {
            let octets = octets(&payload[4..]);
            let exception = Exception::new(ReplyCode::FrameError, format!("cannot decode {octets}"));
            Failure::of(exception, (class_id, method_id))
        }
        method::Error::Short => Failure::of_none(Exception::new(
            ReplyCode::FrameError,
            format!("type 1, all octets = {}: unknown_frame", octets(payload)),
        )),
    }
}

/// Octets as RabbitMQ's texts print them: `<<"text">>` or `<<1,2,3>>`. Cut where no reply text could
/// show more.
pub fn octets(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(amqp::limits::SHORT_STRING_BYTES_MAX)];
    let is_text = !shown.is_empty() && shown.iter().all(|b| (0x20..0x7f).contains(b));
    if is_text {
        return format!("<<\"{}\">>", String::from_utf8_lossy(shown));
    }
    let numbers: Vec<String> = shown.iter().map(u8::to_string).collect();
    format!("<<{}>>", numbers.join(","))
}

//! Getting messages to the client: consume, cancel, get, qos, deliver.

use std::sync::Arc;

use amqp::method::{Cold, DeliverPrefix, basic};
use amqp::{Exception, Properties, ReplyCode, Table, Value, frame, table};
use store::Ticket;

use super::unacked::Unacked;
use super::{Channel, Context, Flow, Then, Wait};
use crate::delivery::{ConsumerId, Delivery, Entry, Resume, Returns};
use crate::error::{Error, Resource};
use crate::queue::{self, DeleteIf, Got, Joined, QueueKind, Return};
use crate::tally::Count;
use crate::vhost::{REPLY_TO, Requester, generated};

/// A consumer as its channel knows it.
#[derive(Debug)]
pub struct Consumer {
    /// Its name on the channel.
    pub tag: Arc<str>,
    /// What every delivery to it begins with.
    prefix: DeliverPrefix,
    /// Where it consumes from; nowhere if it waits for direct replies.
    pub queue: Option<queue::Handle>,
    no_ack: bool,
    /// How long it may keep a delivery, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// It has said so itself.
    pub has_own_timeout: bool,
}

impl Channel {
    /// basic.consume
    pub(super) fn consume(
        &mut self,
        context: &mut Context<'_>,
        consume: basic::Consume,
    ) -> Result<Flow, Exception> {
        let name = self.queue_name(consume.queue.as_str())?;
        let tag: Arc<str> = match consume.consumer_tag.as_str() {
            "" => generated("amq.ctag-").into(),
            tag => tag.into(),
        };
        if self.tags.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Exception::new(ReplyCode::NotAllowed, text));
        }
        if let Some(max) = context.broker.config.consumer_max_per_channel
            && self.consumers.len() >= max as usize
        {
            let text = format!("reached maximum ({max}) of consumers per channel");
            return Err(Exception::new(ReplyCode::NotAllowed, text));
        }
        if name == REPLY_TO {
            return self.consume_replies(context, &consume, tag);
        }
        let table = Table::from(&consume.arguments);
        let arguments = Arguments::read(&table, &name, context.vhost.name())?;
        let queue = context.vhost.queue_to_read(context.caller, &name)?;
        let id = context.next_consumer_id();
        let joined = queue.consume(queue::Consumer {
            id,
            connection: context.caller.connection,
            channel: self.number,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority: arguments.priority,
            prefetch: self.prefetch,
            credit: self.credit.clone(),
            outbox: context.outbox.clone(),
            tag: tag.clone(),
            arguments: Arc::new(table),
        });
        let resource = || Resource::queue(&name, context.vhost.name());
        match joined {
            Joined::Yes => {}
            Joined::ExclusiveUse => return Err(Error::ExclusiveUse(resource()).into()),
            Joined::Gone => return Err(Error::NotFound(resource()).into()),
        }
        let timeout_ms = arguments.timeout_ms.or(queue.settings().consumer_timeout_ms);
        self.add_consumer(context, &consume, id, tag, Some(queue.clone()));
        self.tell_consumer_created(context, &consume, id);
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.timeout_ms = timeout_ms;
            consumer.has_own_timeout = arguments.timeout_ms.is_some();
        }
        // Deliveries go through the outbox, so they come after consume-ok.
        queue.resume(id);
        Ok(Flow::Go)
    }

    /// Direct reply-to: answers will come to this channel through no queue.
    fn consume_replies(
        &mut self,
        context: &mut Context<'_>,
        consume: &basic::Consume,
        tag: Arc<str>,
    ) -> Result<Flow, Exception> {
        let refuse = |text| Err(Exception::new(ReplyCode::PreconditionFailed, text));
        if !consume.no_ack {
            return refuse("reply consumer cannot acknowledge");
        }
        if self.requester.is_some() {
            return refuse("reply consumer already set");
        }
        let id = context.next_consumer_id();
        let outbox = context.outbox.clone();
        let requester = Requester { channel: self.number, consumer: id, outbox };
        self.requester = Some((id, context.vhost.requesters().add(requester)));
        self.add_consumer(context, consume, id, tag, None);
        Ok(Flow::Go)
    }

    fn add_consumer(
        &mut self,
        context: &mut Context<'_>,
        consume: &basic::Consume,
        id: ConsumerId,
        tag: Arc<str>,
        queue: Option<queue::Handle>,
    ) {
        self.tags.insert(tag.clone(), id);
        let prefix = DeliverPrefix::new(&tag);
        let consumer_tag = (&*tag).into();
        let no_ack = consume.no_ack;
        let consumer = Consumer { tag, prefix, queue, no_ack, timeout_ms: None, has_own_timeout: false };
        self.consumers.insert(id, consumer);
        if !consume.nowait {
            self.reply(context, Cold::Basic(basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag })));
        }
    }

    /// basic.cancel. The reply has to wait until what is in the outbox has been delivered.
    pub(super) fn cancel(
        &mut self,
        context: &mut Context<'_>,
        cancel: basic::Cancel,
    ) -> Result<Flow, Exception> {
        let consumer_tag = cancel.consumer_tag.clone();
        let reply = Cold::Basic(basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag }));
        let reply = (!cancel.nowait).then_some(reply);
        if let Some(id) = self.tags.remove(cancel.consumer_tag.as_str()) {
            self.leave_queue(context, id);
            return Ok(Flow::Cancelled { consumer: id, reply });
        }
        if let Some(reply) = reply {
            self.reply(context, reply);
        }
        Ok(Flow::Go)
    }

    /// Has the queues give this channel's consumers nothing any more.
    pub(super) fn stop_consumers(&self) {
        for (id, consumer) in &self.consumers {
            if let Some(queue) = &consumer.queue {
                queue.stop(*id);
            }
        }
    }

    /// Ends a consumer at its queue, and the queue if it was to go with it.
    pub fn leave_queue(&mut self, context: &mut Context<'_>, id: ConsumerId) {
        if let Some((_, name)) = self.requester.take_if(|(requester, _)| *requester == id) {
            context.vhost.requesters().remove(&name);
        }
        let Some(queue) = self.consumers.get(&id).and_then(|c| c.queue.as_ref()) else { return };
        if queue.cancel(id) {
            context.vhost.end_queue(queue, DeleteIf::NoConsumer);
        }
    }

    /// The consumer has got its last delivery.
    pub fn forget_consumer(&mut self, context: &mut Context<'_>, id: ConsumerId) {
        let gone = self.consumers.remove(&id);
        gone.iter().for_each(|consumer| self.tell_consumer_deleted(context, consumer));
    }

    /// The queue of a consumer is gone: the client is told, if it can be.
    pub fn cancelled_by_broker(&mut self, context: &mut Context<'_>, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else { return };
        self.tags.remove(&consumer.tag);
        self.tell_consumer_deleted(context, &consumer);
        if self.is_open() && context.wants_cancel_notices {
            let consumer_tag = (&*consumer.tag).into();
            let cancel = basic::Cancel { consumer_tag, nowait: true };
            self.reply(context, Cold::Basic(basic::AMQPMethod::Cancel(cancel)));
        }
    }

    /// A queue has handed a message to one of the channel's consumers.
    pub fn deliver(&mut self, context: &mut Context<'_>, delivery: Delivery) {
        let Delivery { consumer: id, entry, .. } = delivery;
        let Some(consumer) = self.consumers.get(&id) else { return };
        if !self.is_closing && consumer.queue.is_some() {
            self.taken.add(if consumer.no_ack { Count::DeliverNoAck } else { Count::Deliver }, 1);
            if entry.redelivered {
                self.taken.add(Count::Redeliver, 1);
            }
        }
        let unsettled = if consumer.no_ack { None } else { consumer.queue.clone() };
        if self.is_closing {
            // Nobody will see it any more: it goes back with what is unsettled.
            let since_ms = context.now_ms;
            let back = unsettled.map(|queue| Unacked { queue, consumer: Some(id), since_ms, entry });
            context.requeues.extend(back.map(|unacked| (unacked, Return::Failed)));
            return;
        }
        if let Some(queue) = consumer.queue.as_ref().filter(|_| context.vhost.is_traced()) {
            self.trace_delivery(context, queue.name(), &entry);
        }
        if let Some(queue) = &consumer.queue {
            self.note_delivered(context, queue, &entry, Some(&consumer.tag), consumer.no_ack);
        }
        // Direct replies take no number of their own.
        let tag = self.last_tag + 1;
        if consumer.queue.is_some() {
            self.last_tag = tag;
        }
        let message = &entry.message;
        let out = context.out.frames();
        frame::put_deliver(
            out,
            self.number,
            &consumer.prefix,
            tag,
            entry.redelivered,
            message.parts.address(),
        );
        match entry.returns.acquired {
            0 => context.out.put_content(self.number, message, context.frame_bytes_max),
            _ => put_counted(context, self.number, &entry),
        }
        if let Some(queue) = unsettled {
            let since_ms = context.now_ms;
            if let Some(timeout_ms) = consumer.timeout_ms {
                self.patience.delivered(since_ms.saturating_add(timeout_ms));
            }
            self.unacked.push(tag, Unacked { queue, consumer: Some(id), since_ms, entry });
        }
    }

    /// basic.get
    pub fn get(&mut self, context: &mut Context<'_>, get: basic::Get) -> Result<Flow, Exception> {
        let name = self.queue_name(get.queue.as_str())?;
        let queue = context.vhost.queue_to_read(context.caller, &name)?;
        let (entry, remaining) = match queue.get(get.no_ack, context.outbox) {
            Got::Message(entry, remaining) => (entry, remaining),
            Got::Later => return Ok(Flow::Wait(Wait { ticket: Ticket(0), then: Then::Get(get) })),
            Got::Empty => {
                self.taken.add(Count::GetEmpty, 1);
                self.reply(context, Cold::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {})));
                return Ok(Flow::Go);
            }
        };
        self.last_tag += 1;
        self.taken.add(if get.no_ack { Count::GetNoAck } else { Count::Get }, 1);
        if entry.redelivered {
            self.taken.add(Count::Redeliver, 1);
        }
        if context.vhost.is_traced() {
            self.trace_delivery(context, queue.name(), &entry);
        }
        self.note_delivered(context, &queue, &entry, None, get.no_ack);
        let message = &entry.message;
        let get_ok = basic::GetOk {
            delivery_tag: self.last_tag,
            redelivered: entry.redelivered,
            exchange: message.exchange().into(),
            routing_key: message.routing_key().into(),
            message_count: remaining as u32,
        };
        self.reply(context, Cold::Basic(basic::AMQPMethod::GetOk(get_ok)));
        // RabbitMQ tells basic.get of the first delivery, too.
        let is_counted = entry.returns.acquired > 0 || queue.declared().arguments.kind == QueueKind::Quorum;
        match is_counted {
            true => put_counted(context, self.number, &entry),
            false => context.out.put_content(self.number, message, context.frame_bytes_max),
        }
        if !get.no_ack {
            let since_ms = context.now_ms;
            self.unacked.push(self.last_tag, Unacked { queue, consumer: None, since_ms, entry });
        }
        Ok(Flow::Go)
    }

    /// basic.qos
    pub(super) fn qos(&mut self, context: &mut Context<'_>, qos: basic::Qos) -> Result<Flow, Exception> {
        if qos.global {
            for (queue, consumer) in self.credit.set_limit(qos.prefetch_count) {
                queue.resume(consumer);
            }
        } else {
            // As in RabbitMQ, a limit for each consumer ends one for all of them.
            for (queue, consumer) in self.credit.set_limit(0) {
                queue.resume(consumer);
            }
            self.prefetch = qos.prefetch_count;
            if context.is_qos_for_running_consumers {
                for (&id, consumer) in &self.consumers {
                    consumer.queue.iter().for_each(|queue| queue.set_prefetch(id, self.prefetch));
                }
            }
        }
        self.reply(context, Cold::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})));
        Ok(Flow::Go)
    }
}

/// Puts the content of a message whose deliveries are counted, with the counts in its headers.
fn put_counted(context: &mut Context<'_>, channel: u16, entry: &Entry) {
    let message = &entry.message;
    let read = Properties::parse(message.parts.properties()).unwrap_or_default();
    let Returns { acquired, failed } = entry.returns;
    let mut counts = vec![("x-delivery-count", Value::Int(failed.into()))];
    if acquired > 0 {
        counts.push(("x-acquired-count", Value::Int(acquired.into())));
    }
    let counts: Vec<(&str, Vec<u8>)> =
        counts.into_iter().map(|(name, value)| (name, table::encode_value(&value))).collect();
    let old = read.headers.into_iter().flat_map(table::raw_entries);
    let is_count = |name: &[u8]| name == b"x-delivery-count" || name == b"x-acquired-count";
    let mut entries: Vec<(&[u8], &[u8])> = old.filter(|(name, _)| !is_count(name)).collect();
    entries.extend(counts.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
    entries.sort_by_key(|(name, _)| *name);
    let headers = table::from_raw(entries);
    let properties = Properties { headers: Some(&headers), ..read }.encode();
    context.out.put_content_with(channel, &properties, message, context.frame_bytes_max);
}

/// What the arguments of a consumer ask for.
struct Arguments {
    /// `x-priority`
    priority: i64,
    /// `x-consumer-timeout`: how long it may keep a delivery, in milliseconds.
    timeout_ms: Option<u64>,
}

impl Arguments {
    /// Reads them. Arguments that a later version will have are refused until then, those of other types of
    /// queue as RabbitMQ does.
    fn read(table: &Table, queue: &str, vhost: &str) -> Result<Arguments, Exception> {
        let refuse = |text: String| Exception::new(ReplyCode::PreconditionFailed, text);
        const OTHER_TYPE: &[&str] = &["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];
        if let Some((name, _)) = table.iter().find(|(name, _)| OTHER_TYPE.contains(name)) {
            return Err(refuse(queue::other_type_text(name, queue, vhost, QueueKind::Classic)));
        }
        let invalid = |name: &str, reason: String| {
            refuse(format!("invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {reason}"))
        };
        if table.get("x-group").is_some() {
            let reason = "this version of Garenne does not support it yet".into();
            return Err(invalid("x-group", reason));
        }
        let whole = |name: &str| {
            let value = table.get(name).map(queue::integer).transpose();
            value.map_err(|reason| invalid(name, reason))
        };
        let priority = whole("x-priority")?.unwrap_or_default();
        let timeout_ms = whole("x-consumer-timeout")?.map(|ms| {
            u64::try_from(ms).map_err(|_| invalid("x-consumer-timeout", format!("{{value_negative,{ms}}}")))
        });
        Ok(Arguments { priority, timeout_ms: timeout_ms.transpose()? })
    }
}

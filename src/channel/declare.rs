//! exchange.* and queue.*: names in, names out; the vhost decides.

use amqp::method::{Cold, exchange, queue};
use amqp::{Exception, Table};
use store::Urgency;

use super::{Channel, Context, Flow, Then, Wait};
use crate::error::{Error, Resource};
use crate::vhost::{ExchangeFlags, QueueFlags, To};

/// Line feeds in names are dropped, as RabbitMQ does for the sake of old shell scripts.
fn clean(name: &str) -> String {
    name.replace(['\r', '\n'], "")
}

impl Channel {
    /// The queue that is meant: the empty name is the last one declared on this channel.
    pub(super) fn queue_name(&self, name: &str) -> Result<String, Exception> {
        match (name, &self.last_queue) {
            ("", Some(last)) => Ok(last.to_string()),
            ("", None) => {
                let text = "no previously declared queue";
                Err(Exception::new(amqp::ReplyCode::NotFound, text))
            }
            _ => Ok(clean(name)),
        }
    }

    /// Answers when the store has all it was told so far, or at once if nothing is to be waited for.
    fn answer(&mut self, context: &mut Context<'_>, nowait: bool, must_wait: bool, reply: Cold) -> Flow {
        if nowait {
            return Flow::Go;
        }
        if must_wait {
            // No operation of its own: durable when all before it is, also what others have just changed.
            let ticket = context.session.append([], Urgency::Sync);
            return Flow::Wait(Wait { ticket, then: Then::Reply(reply) });
        }
        self.reply(context, reply);
        Flow::Go
    }

    pub(super) fn exchange_method(
        &mut self,
        context: &mut Context<'_>,
        method: exchange::AMQPMethod,
    ) -> Result<Flow, Exception> {
        use exchange::AMQPMethod as M;
        let (vhost, caller) = (context.vhost.clone(), context.caller);
        // Whatever changes the exchanges may change what publishes are allowed.
        self.checked_exchange = None;
        let (nowait, must_wait, reply) = match method {
            M::Declare(m) => {
                let flags = ExchangeFlags {
                    passive: m.passive,
                    durable: m.durable,
                    auto_delete: m.auto_delete,
                    internal: m.internal,
                };
                let (name, arguments) = (clean(m.exchange.as_str()), Table::from(&m.arguments));
                let must_wait = vhost.declare_exchange(caller, &name, m.kind.as_str(), flags, &arguments)?;
                (m.nowait, must_wait, M::DeclareOk(exchange::DeclareOk {}))
            }
            M::Delete(m) => {
                vhost.delete_exchange(caller, &clean(m.exchange.as_str()), m.if_unused)?;
                (m.nowait, true, M::DeleteOk(exchange::DeleteOk {}))
            }
            M::Bind(m) => {
                let (from, to) = (clean(m.source.as_str()), clean(m.destination.as_str()));
                let (key, arguments) = (m.routing_key.as_str(), Table::from(&m.arguments));
                let must_wait = vhost.bind(caller, &from, To::Exchange(&to), key, &arguments)?;
                (m.nowait, must_wait, M::BindOk(exchange::BindOk {}))
            }
            M::Unbind(m) => {
                let (from, to) = (clean(m.source.as_str()), clean(m.destination.as_str()));
                let (key, arguments) = (m.routing_key.as_str(), Table::from(&m.arguments));
                vhost.unbind(caller, &from, To::Exchange(&to), key, &arguments)?;
                (m.nowait, true, M::UnbindOk(exchange::UnbindOk {}))
            }
            _ => return Err(super::unimplemented_method()),
        };
        Ok(self.answer(context, nowait, must_wait, Cold::Exchange(reply)))
    }

    /// queue.declare of a name that direct replies go to: whether somebody still waits there.
    fn declare_reply_to(
        &mut self,
        context: &mut Context<'_>,
        name: String,
        is_waiting: bool,
        nowait: bool,
    ) -> Result<Flow, Exception> {
        if !is_waiting {
            return Err(Error::NotFound(Resource::queue(&name, context.vhost.name())).into());
        }
        let queue = name.as_str().into();
        let declare_ok = queue::DeclareOk { queue, message_count: 0, consumer_count: 1 };
        let reply = Cold::Queue(queue::AMQPMethod::DeclareOk(declare_ok));
        Ok(self.answer(context, nowait, false, reply))
    }

    pub(super) fn queue_method(
        &mut self,
        context: &mut Context<'_>,
        method: queue::AMQPMethod,
    ) -> Result<Flow, Exception> {
        use queue::AMQPMethod as M;
        let (vhost, caller) = (context.vhost.clone(), context.caller);
        let (nowait, must_wait, reply) = match method {
            M::Declare(m) => {
                let flags = QueueFlags {
                    passive: m.passive,
                    durable: m.durable,
                    exclusive: m.exclusive,
                    auto_delete: m.auto_delete,
                };
                let name = clean(m.queue.as_str());
                let arguments = Table::from(&m.arguments);
                if let Some(is_waiting) = vhost.requesters().is_waiting(&name) {
                    return self.declare_reply_to(context, name, is_waiting, m.nowait);
                }
                let (queue, must_wait) = vhost.declare_queue(caller, &name, flags, &arguments)?;
                self.last_queue = Some(queue.declaration().name.clone());
                let (messages, consumers) = queue.counts();
                let declare_ok = queue::DeclareOk {
                    queue: queue.name().into(),
                    message_count: messages as u32,
                    consumer_count: consumers as u32,
                };
                (m.nowait, must_wait, M::DeclareOk(declare_ok))
            }
            M::Bind(m) => {
                let name = self.queue_name(m.queue.as_str())?;
                // An empty key with an empty queue name means the queue's name, says 1.7.2.3.
                let key = match (m.queue.as_str(), m.routing_key.as_str()) {
                    ("", "") => name.as_str(),
                    (_, key) => key,
                };
                let (from, arguments) = (clean(m.exchange.as_str()), Table::from(&m.arguments));
                let must_wait = vhost.bind(caller, &from, To::Queue(&name), key, &arguments)?;
                (m.nowait, must_wait, M::BindOk(queue::BindOk {}))
            }
            M::Unbind(m) => {
                let name = self.queue_name(m.queue.as_str())?;
                let key = match (m.queue.as_str(), m.routing_key.as_str()) {
                    ("", "") => name.as_str(),
                    (_, key) => key,
                };
                let (from, arguments) = (clean(m.exchange.as_str()), Table::from(&m.arguments));
                vhost.unbind(caller, &from, To::Queue(&name), key, &arguments)?;
                (false, true, M::UnbindOk(queue::UnbindOk {}))
            }
            M::Purge(m) => {
                let name = self.queue_name(m.queue.as_str())?;
                let purged = vhost.queue_to_read(caller, &name)?.purge();
                (m.nowait, true, M::PurgeOk(queue::PurgeOk { message_count: purged as u32 }))
            }
            M::Delete(m) => {
                let name = self.queue_name(m.queue.as_str())?;
                let ready = vhost.delete_queue(caller, &name, m.if_unused, m.if_empty)?;
                (m.nowait, true, M::DeleteOk(queue::DeleteOk { message_count: ready as u32 }))
            }
            _ => return Err(super::unimplemented_method()),
        };
        Ok(self.answer(context, nowait, must_wait, Cold::Queue(reply)))
    }
}

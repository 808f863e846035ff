//! Makes, empties and removes the exchange, queues and bindings of a topology.

use amqp::method::{AMQPValue, Cold, FieldTable, basic, exchange, queue};

use crate::error::Result;
use crate::session::Session;
use crate::topology::{Exchange, Topology};

/// Declares and binds everything, one request at a time, and empties the queues: numbers start from 0.
pub fn declare(session: &mut Session, topology: &Topology) -> Result<()> {
    if topology.shape.exchange != Exchange::Default {
        declare_exchange(session, topology)?;
    }
    let arguments = FieldTable::from(&topology.shape.queue_arguments);
    for name in &topology.queues {
        declare_queue(session, name, topology.shape.durable, arguments.clone())?;
        let purge = queue::Purge { queue: name.as_str().into(), nowait: false };
        session.call(Cold::Queue(queue::AMQPMethod::Purge(purge)))?;
    }
    for binding in &topology.bindings {
        let mut arguments = FieldTable::default();
        if topology.shape.exchange == Exchange::Headers {
            arguments.insert("x-match".into(), AMQPValue::LongString("all".into()));
            arguments.insert("key".into(), AMQPValue::LongString(binding.key.as_str().into()));
        }
        bind(session, &topology.queues[binding.queue], topology.exchange_name(), &binding.key, arguments)?;
    }
    Ok(())
}

fn declare_exchange(session: &mut Session, topology: &Topology) -> Result<()> {
    let declare = exchange::Declare {
        exchange: topology.exchange_name().into(),
        kind: topology.shape.exchange.kind().into(),
        durable: topology.shape.durable,
        ..Default::default()
    };
    session.call(Cold::Exchange(exchange::AMQPMethod::Declare(declare))).map(drop)
}

/// Declares one queue.
pub fn declare_queue(session: &mut Session, name: &str, durable: bool, arguments: FieldTable) -> Result<()> {
    let declare = queue::Declare { queue: name.into(), durable, arguments, ..Default::default() };
    session.call(Cold::Queue(queue::AMQPMethod::Declare(declare))).map(drop)
}

/// Binds one queue.
pub fn bind(
    session: &mut Session,
    queue: &str,
    exchange: &str,
    key: &str,
    arguments: FieldTable,
) -> Result<()> {
    let (queue, exchange, routing_key) = (queue.into(), exchange.into(), key.into());
    let bind = queue::Bind { queue, exchange, routing_key, nowait: false, arguments };
    session.call(Cold::Queue(queue::AMQPMethod::Bind(bind))).map(drop)
}

/// How many messages wait in a queue.
pub fn waiting(session: &mut Session, name: &str) -> Result<u64> {
    let declare = queue::Declare { queue: name.into(), passive: true, ..Default::default() };
    match session.call(Cold::Queue(queue::AMQPMethod::Declare(declare)))? {
        Cold::Queue(queue::AMQPMethod::DeclareOk(ok)) => Ok(u64::from(ok.message_count)),
        other => Err(session.unexpected(&other)),
    }
}

/// Deletes queues and the exchange of the prefix, whether they are there or not.
pub fn delete(session: &mut Session, prefix: &str, queues: &[String]) -> Result<()> {
    for name in queues {
        let delete = queue::Delete { queue: name.as_str().into(), ..Default::default() };
        session.call(Cold::Queue(queue::AMQPMethod::Delete(delete)))?;
    }
    let delete = exchange::Delete { exchange: prefix.into(), ..Default::default() };
    session.call(Cold::Exchange(exchange::AMQPMethod::Delete(delete))).map(drop)
}

/// How to consume.
#[derive(Clone, Copy, Debug)]
pub struct Consume {
    /// Deliveries need no acknowledgement.
    pub no_ack: bool,
    /// The broker does not answer.
    pub nowait: bool,
}

/// The method that starts consumer number `tag` on a queue.
pub fn consume(queue: &str, tag: usize, Consume { no_ack, nowait }: Consume) -> Cold {
    let (queue, consumer_tag) = (queue.into(), tag.to_string().into());
    let consume = basic::Consume { queue, consumer_tag, no_ack, nowait, ..Default::default() };
    Cold::Basic(basic::AMQPMethod::Consume(consume))
}

/// Sets the prefetch of the consumers that follow; 0 is no limit.
pub fn prefetch(session: &mut Session, prefetch_count: u16) -> Result<()> {
    let qos = basic::Qos { prefetch_count, global: false };
    session.call(Cold::Basic(basic::AMQPMethod::Qos(qos))).map(drop)
}

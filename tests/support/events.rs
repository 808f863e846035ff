//! What a broker says, frame by frame, and what a client says to it.

use std::fmt;

use amqp::method::{Cold, basic, channel, confirm, connection, exchange, queue, tx};
use amqp::{Properties, Table, Value};
use bytes::Bytes;

/// Something that came from the broker.
#[derive(Clone, PartialEq)]
pub enum Event {
    /// A method without content.
    Method(Box<Cold>),
    /// basic.deliver, get-ok or return with all of its content.
    Message(Message),
    /// A heartbeat.
    Heartbeat,
}

/// A message that came from the broker.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// basic.deliver, get-ok or return.
    pub method: Box<Cold>,
    /// Property flags and properties, as they came.
    pub properties: Bytes,
    /// The body, put together.
    pub body: Vec<u8>,
    /// Octets of payload of each body frame.
    pub parts: Vec<usize>,
}

impl Message {
    /// The delivery tag; 0 of a return.
    pub fn tag(&self) -> u64 {
        match &*self.method {
            Cold::Basic(basic::AMQPMethod::Deliver(m)) => m.delivery_tag,
            Cold::Basic(basic::AMQPMethod::GetOk(m)) => m.delivery_tag,
            _ => 0,
        }
    }

    /// Whether it may have been delivered before.
    pub fn redelivered(&self) -> bool {
        match &*self.method {
            Cold::Basic(basic::AMQPMethod::Deliver(m)) => m.redelivered,
            Cold::Basic(basic::AMQPMethod::GetOk(m)) => m.redelivered,
            _ => false,
        }
    }

    /// Whose it is.
    pub fn consumer(&self) -> &str {
        match &*self.method {
            Cold::Basic(basic::AMQPMethod::Deliver(m)) => m.consumer_tag.as_str(),
            _ => "",
        }
    }

    /// The exchange it was published to.
    pub fn exchange(&self) -> &str {
        match &*self.method {
            Cold::Basic(basic::AMQPMethod::Deliver(m)) => m.exchange.as_str(),
            Cold::Basic(basic::AMQPMethod::GetOk(m)) => m.exchange.as_str(),
            Cold::Basic(basic::AMQPMethod::Return(m)) => m.exchange.as_str(),
            _ => "",
        }
    }

    /// The key it was published with.
    pub fn routing_key(&self) -> &str {
        match &*self.method {
            Cold::Basic(basic::AMQPMethod::Deliver(m)) => m.routing_key.as_str(),
            Cold::Basic(basic::AMQPMethod::GetOk(m)) => m.routing_key.as_str(),
            Cold::Basic(basic::AMQPMethod::Return(m)) => m.routing_key.as_str(),
            _ => "",
        }
    }

    /// Its headers.
    pub fn headers(&self) -> Table {
        let read = Properties::parse(&self.properties).expect("properties");
        read.header_table()
    }

    /// The counts, queues and reasons of its `x-death` header, in order.
    pub fn deaths(&self) -> Vec<(i64, String, String)> {
        let Some(Value::Array(deaths)) = self.headers().get("x-death").cloned() else { return Vec::new() };
        let death = |death: Value| {
            let Value::Table(death) = death else { panic!("{death:?}") };
            let Some(&Value::Int(count)) = death.get("count") else { panic!("{death:?}") };
            let text = |name| death.get_str(name).unwrap_or_default().to_string();
            (count, text("queue"), text("reason"))
        };
        deaths.into_iter().map(death).collect()
    }

    /// How many messages a get-ok says remain.
    pub fn remaining(&self) -> u32 {
        match &*self.method {
            Cold::Basic(basic::AMQPMethod::GetOk(m)) => m.message_count,
            other => panic!("not a get-ok: {other:?}"),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let shown: String = text.chars().take(60).collect();
        write!(f, "{:?} with {} octets '{shown}'", self.method, self.body.len())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Method(method) => method.fmt(f),
            Event::Message(message) => message.fmt(f),
            Event::Heartbeat => f.write_str("a heartbeat"),
        }
    }
}

/// A method by itself, as `queue::Declare { .. }`, which knows its class.
pub trait Method {
    /// With its class around it.
    fn cold(self) -> Cold;
}

impl Method for Cold {
    fn cold(self) -> Cold {
        self
    }
}

macro_rules! methods {
    ($($class:ident $module:ident: $($method:ident)*;)*) => {
        $($(impl Method for $module::$method {
            fn cold(self) -> Cold {
                Cold::$class($module::AMQPMethod::$method(self))
            }
        })*)*
    };
}

methods! {
    Connection connection: Start StartOk Tune TuneOk Open OpenOk Close CloseOk Blocked Unblocked
        UpdateSecret UpdateSecretOk Secure SecureOk;
    Channel channel: Open OpenOk Flow FlowOk Close CloseOk;
    Exchange exchange: Declare DeclareOk Delete DeleteOk Bind BindOk Unbind UnbindOk;
    Queue queue: Declare DeclareOk Delete DeleteOk Bind BindOk Unbind UnbindOk Purge PurgeOk;
    Basic basic: Qos QosOk Consume ConsumeOk Cancel CancelOk Publish Return Deliver Get GetOk GetEmpty Ack
        Reject RecoverAsync Recover RecoverOk Nack;
    Confirm confirm: Select SelectOk;
    Tx tx: Select SelectOk Commit CommitOk Rollback RollbackOk;
}

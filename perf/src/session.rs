//! A connection that asks and waits for the answer: login, declarations, farewell.

use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use std::{io, vec};

use amqp::method::{AMQPValue, Cold, FieldTable, LongString, channel, connection};
use amqp::{FrameKind, Method, Table, Value, frame, limits, method};
use bytes::BytesMut;

use crate::error::{Error, Result};
use crate::inbox::Inbox;
use crate::uri::Uri;

/// The one channel that we use of a connection.
pub const CHANNEL: u16 = 1;

/// How long a broker may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a broker may take to answer. RabbitMQ needs seconds for some things while it is busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A logged-in connection.
pub struct Session {
    /// The socket, blocking.
    pub stream: TcpStream,
    /// Host and port, for errors.
    pub address: String,
    /// What came and was not looked at.
    pub inbox: Inbox,
    /// The largest frame that both sides agreed to.
    pub frame_bytes_max: u32,
}

impl Session {
    /// Connects, logs in and opens a channel.
    pub fn open(uri: &Uri) -> Result<Session> {
        let mut session = Session::connect(uri)?;
        session.open_channel()?;
        Ok(session)
    }

    /// Opens our channel.
    pub fn open_channel(&mut self) -> Result<()> {
        self.call(Cold::Channel(channel::AMQPMethod::Open(channel::Open {}))).map(drop)
    }

    /// Connects and logs in, up to connection.open-ok.
    pub fn connect(uri: &Uri) -> Result<Session> {
        let address = uri.address();
        let stream = connect(uri).map_err(io_error(&address, "connecting"))?;
        let mut session = Session {
            stream,
            address,
            inbox: Inbox::new(),
            // Until tuning ends, frames are small (specification 4.2.3).
            frame_bytes_max: limits::FRAME_BYTES_MIN,
        };
        session.write(&limits::PROTOCOL_HEADER)?;
        session.next_method()?;
        let start_ok = connection::StartOk {
            client_properties: client_properties(),
            mechanism: "PLAIN".into(),
            response: LongString::from(format!("\0{}\0{}", uri.user, uri.password)),
            locale: "en_US".into(),
        };
        session.send(0, Cold::Connection(connection::AMQPMethod::StartOk(start_ok)))?;
        let tune = match session.next_method()? {
            Cold::Connection(connection::AMQPMethod::Tune(tune)) => tune,
            other => return Err(session.unexpected(&other)),
        };
        session.frame_bytes_max = match tune.frame_max {
            0 => limits::FRAME_BYTES_MAX,
            proposed => proposed.min(limits::FRAME_BYTES_MAX),
        };
        let tune_ok = connection::TuneOk {
            channel_max: tune.channel_max,
            frame_max: session.frame_bytes_max,
            // Neither side sends any, so that an idle connection costs nothing.
            heartbeat: 0,
        };
        session.send(0, Cold::Connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
        let open = connection::Open { virtual_host: uri.vhost.as_str().into() };
        session.send(0, Cold::Connection(connection::AMQPMethod::Open(open)))?;
        session.next_method()?;
        Ok(session)
    }

    /// Sends a method on our channel and waits for its answer.
    pub fn call(&mut self, method: Cold) -> Result<Cold> {
        self.send(CHANNEL, method)?;
        self.next_method()
    }

    /// Sends a method.
    pub fn send(&mut self, channel: u16, method: Cold) -> Result<()> {
        let mut out = BytesMut::new();
        frame::put_method(&mut out, channel, &method);
        self.write(&out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(io_error(&self.address, "writing"))
    }

    /// The next method; contents and heartbeats are passed over. A close is an error.
    pub fn next_method(&mut self) -> Result<Cold> {
        loop {
            let address = &self.address;
            let frame = self.inbox.take_frame().map_err(|e| bad_frame(address, e))?;
            if let Some(frame) = frame {
                if frame.kind != FrameKind::Method {
                    continue;
                }
                if let Some(error) = closed(address, frame.payload) {
                    return Err(error);
                }
                match method::decode(frame.payload) {
                    Ok(Method::Cold(method)) => return Ok(*method),
                    Ok(_) => continue,
                    Err(e) => return Err(unexpected(address, format!("method: {e:?}"))),
                }
            }
            let n = self.inbox.read_from(&mut self.stream).map_err(|error| match error.kind() {
                // What a socket with a time limit says when it is over.
                io::ErrorKind::WouldBlock => {
                    Error::Stalled(format!("{address}: no answer for {} s", ANSWER_TIMEOUT.as_secs()))
                }
                _ => io_error(address, "reading")(error),
            })?;
            if n == 0 {
                return Err(hung_up(address));
            }
        }
    }

    /// The error for an answer that is not the awaited one.
    pub fn unexpected(&self, method: &Cold) -> Error {
        unexpected(&self.address, format!("answer {method:?}"))
    }

    /// Says goodbye and waits until the broker has done all that was sent before.
    pub fn close(mut self) -> Result<()> {
        let close =
            connection::Close { reply_code: 200, reply_text: "done".into(), class_id: 0, method_id: 0 };
        self.send(0, Cold::Connection(connection::AMQPMethod::Close(close)))?;
        loop {
            if let Cold::Connection(connection::AMQPMethod::CloseOk(_)) = self.next_method()? {
                return Ok(());
            }
        }
    }
}

fn connect(uri: &Uri) -> io::Result<TcpStream> {
    let addresses: vec::IntoIter<_> = (uri.host.as_str(), uri.port).to_socket_addrs()?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Says what we understand, so that a broker closes a refused login with a reason and tells when it
/// takes a consumer away.
fn client_properties() -> FieldTable {
    let understood =
        ["authentication_failure_close", "basic.nack", "consumer_cancel_notify", "publisher_confirms"];
    let capabilities: Table = understood.into_iter().map(|name| (name, Value::Bool(true))).collect();
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("garenne perf".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(FieldTable::from(&capabilities)));
    properties
}

/// The error in a method frame's payload, if it closes the connection or the channel, or takes our
/// consumer away.
pub fn closed(address: &str, payload: &[u8]) -> Option<Error> {
    let (code, text) = match (method::ids(payload), method::decode(payload)) {
        ((10 | 20, _), Ok(Method::Cold(method))) => match *method {
            Cold::Connection(connection::AMQPMethod::Close(close)) => {
                (close.reply_code, close.reply_text.to_string())
            }
            Cold::Channel(channel::AMQPMethod::Close(close)) => {
                (close.reply_code, close.reply_text.to_string())
            }
            _ => return None,
        },
        ((60, 30), _) => return Some(unexpected(address, "basic.cancel: the queue was deleted".into())),
        _ => return None,
    };
    Some(Error::Closed { address: address.into(), code, text })
}

/// The error for a failed socket.
pub fn io_error(address: &str, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    let address = address.to_string();
    move |source| Error::Io { address, doing, source }
}

/// The error for a socket that ended without a word.
pub fn hung_up(address: &str) -> Error {
    io_error(address, "reading")(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker hung up"))
}

/// The error for bytes that are no frame.
pub fn bad_frame(address: &str, error: frame::Error) -> Error {
    unexpected(address, format!("bytes, is this an AMQP 0-9-1 port? ({error:?})"))
}

fn unexpected(address: &str, what: String) -> Error {
    Error::Unexpected { address: address.into(), what }
}

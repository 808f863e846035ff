//! A client that is fast and nothing else, so that it can be as much load as a broker takes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use amqp::frame::{self, Frame, Frames};
use amqp::method::{Cold, FieldTable, LongString, basic, channel, connection, queue};
use amqp::{FrameKind, Header, Method, limits, method};
use bytes::BytesMut;

/// The one channel that is used of a connection.
pub const CHANNEL: u16 = 1;
/// So long a live broker is never silent while something is asked of it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const INBOX_BYTES: usize = 1 << 20;

/// A logged-in connection with its channel.
pub struct Wire {
    stream: TcpStream,
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Wire {
    /// Connects, logs in, opens the channel.
    pub fn open(port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let inbox = vec![0; INBOX_BYTES].into_boxed_slice();
        let mut wire = Wire { stream, inbox, start: 0, end: 0 };
        wire.set_silence_max(SILENCE_MAX)?;
        wire.write(&limits::PROTOCOL_HEADER)?;
        wire.answer()?;
        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: LongString::from("\0guest\0guest"),
            locale: "en_US".into(),
        };
        wire.send(0, Cold::Connection(connection::AMQPMethod::StartOk(start_ok)))?;
        wire.answer()?;
        let tune_ok = connection::TuneOk { channel_max: 1, frame_max: limits::FRAME_BYTES_MAX, heartbeat: 0 };
        wire.send(0, Cold::Connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
        let open = connection::Open { virtual_host: "/".into() };
        wire.send(0, Cold::Connection(connection::AMQPMethod::Open(open)))?;
        wire.answer()?;
        wire.call(Cold::Channel(channel::AMQPMethod::Open(channel::Open {})))?;
        Ok(wire)
    }

    /// A read that gets nothing for so long is an error, [`io::ErrorKind::WouldBlock`].
    pub fn set_silence_max(&self, silence_max: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(silence_max))
    }

    /// Another end of the same socket, to write to while this one reads.
    pub fn writer(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Sends a method on the channel and waits for the answer.
    pub fn call(&mut self, method: Cold) -> io::Result<Cold> {
        self.send(CHANNEL, method)?;
        match self.answer()? {
            Cold::Channel(channel::AMQPMethod::Close(close)) => Err(io::Error::other(format!("{close:?}"))),
            Cold::Connection(connection::AMQPMethod::Close(close)) => {
                Err(io::Error::other(format!("{close:?}")))
            }
            answer => Ok(answer),
        }
    }

    /// How many messages a queue has ready.
    pub fn ready(&mut self, name: &str) -> io::Result<u32> {
        let declare = queue::Declare { queue: name.into(), passive: true, ..queue::Declare::default() };
        match self.call(Cold::Queue(queue::AMQPMethod::Declare(declare)))? {
            Cold::Queue(queue::AMQPMethod::DeclareOk(ok)) => Ok(ok.message_count),
            other => Err(io::Error::other(format!("{name}: {other:?}"))),
        }
    }

    /// Begins to consume from a queue; the first frames that are read are deliveries.
    pub fn consume(&mut self, name: &str, prefetch: u16) -> io::Result<()> {
        let qos = basic::Qos { prefetch_count: prefetch, global: false };
        self.call(Cold::Basic(basic::AMQPMethod::Qos(qos)))?;
        let consume = basic::Consume { queue: name.into(), nowait: true, ..basic::Consume::default() };
        self.send(CHANNEL, Cold::Basic(basic::AMQPMethod::Consume(consume)))
    }

    /// Sends a method.
    pub fn send(&mut self, channel: u16, method: Cold) -> io::Result<()> {
        let mut out = BytesMut::new();
        frame::put_method(&mut out, channel, &method);
        self.write(&out)
    }

    /// Sends frames.
    pub fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames)
    }

    fn answer(&mut self) -> io::Result<Cold> {
        loop {
            let mut answer = None;
            self.read(|frame| {
                if frame.kind == FrameKind::Method
                    && let Ok(Method::Cold(method)) = method::decode(frame.payload)
                {
                    answer = Some(*method);
                }
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    /// Reads once and visits all frames that are whole.
    pub fn read(&mut self, visit: impl FnMut(Frame<'_>)) -> io::Result<()> {
        self.inbox.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let n = self.stream.read(&mut self.inbox[self.end..])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += n;
        let (whole, bad) = frame::whole(&self.inbox[..self.end], limits::FRAME_BYTES_MAX);
        if let Some(bad) = bad {
            return Err(io::Error::other(format!("no frame: {bad:?}")));
        }
        self.start = whole;
        Frames::new(&self.inbox[..whole]).for_each(visit);
        Ok(())
    }
}

/// A message that has come.
#[derive(Debug)]
pub struct Delivered {
    pub tag: u64,
    pub redelivered: bool,
    pub exchange: String,
    pub routing_key: String,
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
}

/// Puts deliveries together out of their frames.
#[derive(Default)]
pub struct Assembly {
    message: Option<Delivered>,
    body_bytes: usize,
}

impl Assembly {
    /// The message, if this was the last frame of one.
    pub fn add(&mut self, frame: &Frame<'_>) -> Option<Delivered> {
        match frame.kind {
            FrameKind::Method => {
                let Ok(Method::Cold(method)) = method::decode(frame.payload) else { return None };
                let Cold::Basic(basic::AMQPMethod::Deliver(deliver)) = *method else { return None };
                self.message = Some(Delivered {
                    tag: deliver.delivery_tag,
                    redelivered: deliver.redelivered,
                    exchange: deliver.exchange.to_string(),
                    routing_key: deliver.routing_key.to_string(),
                    properties: Vec::new(),
                    body: Vec::new(),
                });
                return None;
            }
            FrameKind::Header => {
                self.body_bytes = Header::body_bytes(frame.payload)? as usize;
                self.message.as_mut()?.properties = Header::properties(frame.payload).to_vec();
            }
            FrameKind::Body => self.message.as_mut()?.body.extend_from_slice(frame.payload),
            _ => return None,
        }
        self.message.take_if(|message| message.body.len() >= self.body_bytes)
    }
}

/// Reads a body's number; every eight octets must say the same.
pub fn number_in(body: &[u8]) -> Option<u64> {
    let first: [u8; 8] = body.get(..8)?.try_into().ok()?;
    let is_whole = body.chunks(8).all(|eight| eight == first);
    is_whole.then(|| u64::from_be_bytes(first))
}

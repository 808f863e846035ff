//! A client that behaves: for the watchdog, the janitor, and whoever has to look into the broker.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use amqp::method::{self, Cold, channel, connection};
use amqp::{FrameKind, Method, frame, limits};
use bytes::BytesMut;

/// Nobody who behaves waits longer.
pub const PATIENCE: Duration = Duration::from_secs(5);

pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
}

/// A frame with its own memory.
#[derive(Debug)]
pub struct Received {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr, user: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream, buffer: BytesMut::new() };
        client.stream.write_all(&limits::PROTOCOL_HEADER)?;
        client.receive_method()?;
        client.send(0, &start_ok(user, method::FieldTable::default()))?;
        client.receive_method()?;
        client.send(0, &tune_ok(2047, limits::FRAME_BYTES_MAX, 0))?;
        client.send(0, &open())?;
        client.receive_method()?;
        Ok(client)
    }

    pub fn send(&mut self, channel: u16, method: &Cold) -> io::Result<()> {
        let mut out = BytesMut::new();
        frame::put_method(&mut out, channel, method);
        self.write(&out)
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(bytes)
    }

    /// Sends a method and takes the next method as its answer.
    pub fn call(&mut self, channel: u16, method: &Cold) -> io::Result<Cold> {
        self.send(channel, method)?;
        self.receive_method()
    }

    pub fn open_channel(&mut self, number: u16) -> io::Result<()> {
        self.call(number, &Cold::Channel(channel::AMQPMethod::Open(channel::Open::default()))).map(drop)
    }

    pub fn receive_method(&mut self) -> io::Result<Cold> {
        let frame = self.receive(Instant::now() + PATIENCE)?;
        match method::decode(&frame.payload) {
            Ok(Method::Cold(method)) if frame.kind == FrameKind::Method => Ok(*method),
            other => Err(io::Error::other(format!("no method: {:?} {other:?}", frame.kind))),
        }
    }

    /// The next frame that is no heartbeat.
    pub fn receive(&mut self, until: Instant) -> io::Result<Received> {
        loop {
            let (n, bad) = frame::whole(&self.buffer, 0);
            if n > 0 {
                let frame = frame::Frames::new(&self.buffer[..n]).next().expect("a whole frame");
                let (kind, channel, payload) = (frame.kind, frame.channel, frame.payload.to_vec());
                let _ = self.buffer.split_to(payload.len() + limits::FRAME_OVERHEAD_BYTES);
                if kind == FrameKind::Heartbeat {
                    continue;
                }
                return Ok(Received { kind, channel, payload });
            }
            if let Some(bad) = bad {
                return Err(io::Error::other(format!("the broker sent a bad frame: {bad:?}")));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the broker does not answer"));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut room = [0; 16 * 1024];
            match self.stream.read(&mut room) {
                Ok(0) => return Err(io::Error::other("the broker hung up")),
                Ok(n) => self.buffer.extend_from_slice(&room[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

pub fn start_ok(user: &str, client_properties: method::FieldTable) -> Cold {
    Cold::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response: format!("\0{user}\0{user}").as_str().into(),
        locale: "en_US".into(),
    }))
}

pub fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Cold {
    Cold::Connection(connection::AMQPMethod::TuneOk(connection::TuneOk { channel_max, frame_max, heartbeat }))
}

pub fn open() -> Cold {
    Cold::Connection(connection::AMQPMethod::Open(connection::Open { virtual_host: "/".into() }))
}

//! How fast a broker confirms: one connection publishes persistent messages of 1 KiB to a durable queue
//! and keeps a window of 1,000 unconfirmed. Frames are written by hand, so that the client costs little.
//!
//! `cargo run --release --example publish_rate -- 127.0.0.1:5672 200000`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use amqp::method::{Cold, LongString, basic, channel, confirm, connection, queue};
use amqp::{Method, frame, limits, method};
use bytes::{Bytes, BytesMut};

const WINDOW: u64 = 1000;
const BODY_BYTES: usize = 1024;
const QUEUE: &str = "publish-rate";
/// Delivery mode 2 and nothing else.
const PERSISTENT: &[u8] = &[0x10, 0, 2];

type Error = Box<dyn std::error::Error>;

struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    fn send(&mut self, channel: u16, method: Cold) -> Result<(), Error> {
        let mut out = BytesMut::new();
        frame::put_method(&mut out, channel, &method);
        Ok(self.stream.write_all(&out)?)
    }

    /// All frames that have come; waits for at least one.
    fn receive(&mut self) -> Result<Bytes, Error> {
        let mut part = [0; 65536];
        loop {
            let (whole, error) = frame::whole(&self.input, limits::FRAME_BYTES_MAX);
            if let Some(error) = error {
                return Err(format!("{error:?}").into());
            }
            if whole > 0 {
                return Ok(self.input.split_to(whole).freeze());
            }
            let n = self.stream.read(&mut part)?;
            if n == 0 {
                return Err("the broker hung up".into());
            }
            self.input.extend_from_slice(&part[..n]);
        }
    }

    fn call(&mut self, channel: u16, method: Cold) -> Result<(), Error> {
        self.send(channel, method)?;
        let frames = self.receive()?;
        match method::decode(&frames[7..frames.len() - 1]) {
            Ok(Method::Cold(m)) if matches!(*m, Cold::Channel(channel::AMQPMethod::Close(_))) => {
                Err(format!("refused: {m:?}").into())
            }
            _ => Ok(()),
        }
    }
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:5672".into());
    let messages: u64 = arguments.next().map_or(Ok(200_000), |n| n.parse())?;
    let mut client = Client { stream: TcpStream::connect(&address)?, input: BytesMut::new() };
    client.stream.set_nodelay(true)?;
    open(&mut client)?;

    let mut message = BytesMut::new();
    let publish = basic::Publish { routing_key: QUEUE.into(), ..Default::default() };
    frame::put_method(&mut message, 1, &Cold::Basic(basic::AMQPMethod::Publish(publish)));
    frame::put_header(&mut message, 1, BODY_BYTES as u64, PERSISTENT);
    frame::put_body(&mut message, 1, &[b'x'; BODY_BYTES]);

    let start = Instant::now();
    let (mut sent, mut confirmed) = (0, 0);
    let mut out = Vec::with_capacity(64 * message.len());
    while confirmed < messages {
        while sent < messages && sent - confirmed < WINDOW {
            let n = (messages - sent).min(WINDOW - (sent - confirmed)).min(64);
            out.clear();
            (0..n).for_each(|_| out.extend_from_slice(&message));
            client.stream.write_all(&out)?;
            sent += n;
        }
        let frames = client.receive()?;
        for frame in frame::Frames::new(&frames) {
            if let Ok(Method::Ack(ack)) = method::decode(frame.payload) {
                // Single acks may come out of order; counting them is enough for a rate.
                confirmed = if ack.multiple { confirmed.max(ack.delivery_tag) } else { confirmed + 1 };
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{messages} messages of {BODY_BYTES} octets confirmed in {seconds:.2} s: {:.0} a second",
        messages as f64 / seconds
    );
    let delete = queue::Delete { queue: QUEUE.into(), ..Default::default() };
    client.call(1, Cold::Queue(queue::AMQPMethod::Delete(delete)))
}

fn open(client: &mut Client) -> Result<(), Error> {
    client.stream.write_all(&limits::PROTOCOL_HEADER)?;
    client.receive()?;
    let start_ok = connection::StartOk {
        mechanism: "PLAIN".into(),
        response: LongString::from("\0guest\0guest"),
        locale: "en_US".into(),
        ..Default::default()
    };
    client.call(0, Cold::Connection(connection::AMQPMethod::StartOk(start_ok)))?;
    let (frame_max, heartbeat) = (limits::FRAME_BYTES_MAX, 0);
    let tune_ok = connection::TuneOk { channel_max: limits::CHANNEL_MAX, frame_max, heartbeat };
    client.send(0, Cold::Connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
    let virtual_host = "/".into();
    client.call(0, Cold::Connection(connection::AMQPMethod::Open(connection::Open { virtual_host })))?;
    client.call(1, Cold::Channel(channel::AMQPMethod::Open(channel::Open {})))?;
    let declare = queue::Declare { queue: QUEUE.into(), durable: true, ..Default::default() };
    client.call(1, Cold::Queue(queue::AMQPMethod::Declare(declare)))?;
    client.call(1, Cold::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })))
}

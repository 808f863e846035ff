//! A client that must never notice the others: it publishes with confirms, consumes, acknowledges, and
//! counts.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use amqp::method::{self, Ack, Cold, basic, confirm, queue};
use amqp::{FrameKind, Header, Method, frame};
use bytes::{Bytes, BytesMut};

use crate::client::{Client, PATIENCE};
use crate::random::Random;

/// Property flags and properties of a persistent message.
pub const PERSISTENT: &[u8] = &[0x10, 0, 2];

pub struct Watchdog {
    client: Client,
    queue: String,
    random: Random,
    /// The last message's number.
    sent: u64,
    pub messages: u64,
    pub slowest: Duration,
}

impl Watchdog {
    pub fn new(address: SocketAddr, queue: &str) -> io::Result<Watchdog> {
        let mut client = Client::connect(address, "guest")?;
        client.open_channel(1)?;
        client.open_channel(2)?;
        declare(&mut client, 1, queue)?;
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        client.call(1, &Cold::Confirm(select))?;
        let consume =
            basic::Consume { queue: queue.into(), consumer_tag: "dog".into(), ..Default::default() };
        client.call(2, &Cold::Basic(basic::AMQPMethod::Consume(consume)))?;
        let random = Random::new(1);
        Ok(Watchdog { client, queue: queue.into(), random, sent: 0, messages: 0, slowest: Duration::ZERO })
    }

    /// Publishes a few messages, and sees every one of them confirmed and delivered, in order and whole.
    pub fn round(&mut self) -> io::Result<()> {
        let n = 1 + self.random.below(20) as u64;
        let (first, last) = (self.sent + 1, self.sent + n);
        let mut out = BytesMut::new();
        for number in first..=last {
            put_publish(&mut out, 1, &self.queue, &body(number));
        }
        let start = Instant::now();
        self.client.write(&out)?;
        self.sent = last;

        let (mut confirmed, mut delivered) = (first - 1, first - 1);
        let mut body_so_far: Option<(u64, Vec<u8>)> = None;
        while confirmed < last || delivered < last {
            let frame = self.client.receive(start + PATIENCE).map_err(|e| {
                io::Error::other(format!("{e}; confirmed {confirmed}, delivered {delivered} of {last}"))
            })?;
            match (frame.kind, frame.channel) {
                (FrameKind::Method, 1) => match method::decode(&frame.payload) {
                    Ok(Method::Ack(ack)) if ack.delivery_tag > confirmed && ack.delivery_tag <= last => {
                        confirmed = ack.delivery_tag;
                    }
                    other => return Err(io::Error::other(format!("instead of a confirm: {other:?}"))),
                },
                (FrameKind::Method, 2) => match method::decode(&frame.payload) {
                    Ok(Method::Cold(m)) if matches!(*m, Cold::Basic(basic::AMQPMethod::Deliver(_))) => {}
                    other => return Err(io::Error::other(format!("instead of a delivery: {other:?}"))),
                },
                (FrameKind::Header, 2) => {
                    let payload = Bytes::from(frame.payload);
                    let header = Header::decode(&payload, &payload).map_err(io::Error::other)?;
                    body_so_far = Some((header.body_bytes, Vec::new()));
                }
                (FrameKind::Body, 2) => {
                    let (size, mut bytes) =
                        body_so_far.take().ok_or_else(|| io::Error::other("a body alone"))?;
                    bytes.extend_from_slice(&frame.payload);
                    if (bytes.len() as u64) < size {
                        body_so_far = Some((size, bytes));
                    } else if bytes != body(delivered + 1) {
                        let text = format!("message {} is lost or damaged", delivered + 1);
                        return Err(io::Error::other(text));
                    } else {
                        delivered += 1;
                    }
                }
                other => return Err(io::Error::other(format!("unexpected {other:?}"))),
            }
        }
        let mut out = BytesMut::new();
        frame::put_ack(&mut out, 2, Ack { delivery_tag: last, multiple: true });
        self.client.write(&out)?;
        self.messages += n;
        self.slowest = self.slowest.max(start.elapsed());
        Ok(())
    }
}

/// Every message is another, and none can be mistaken for another.
fn body(number: u64) -> Vec<u8> {
    let len = 8 + (number * 7919 % 4000) as usize;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((8..len).map(|at| (number as usize + at) as u8));
    bytes
}

pub fn declare(client: &mut Client, channel: u16, name: &str) -> io::Result<u32> {
    let declare = queue::Declare { queue: name.into(), durable: true, ..Default::default() };
    match client.call(channel, &Cold::Queue(queue::AMQPMethod::Declare(declare)))? {
        Cold::Queue(queue::AMQPMethod::DeclareOk(ok)) => Ok(ok.message_count),
        other => Err(io::Error::other(format!("instead of declare-ok: {other:?}"))),
    }
}

pub fn put_publish(out: &mut BytesMut, channel: u16, queue: &str, body: &[u8]) {
    let publish = basic::Publish { routing_key: queue.into(), ..Default::default() };
    frame::put_method(out, channel, &Cold::Basic(basic::AMQPMethod::Publish(publish)));
    frame::put_header(out, channel, body.len() as u64, PERSISTENT);
    frame::put_body(out, channel, body);
}

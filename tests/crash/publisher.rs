//! A publisher that is as fast as broker and socket let it, and remembers what was confirmed.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};

use amqp::method::{Cold, confirm};
use amqp::{Method, method};
use bytes::BytesMut;

use crate::lock;
use crate::wire::Wire;

/// Messages written at once.
const BATCH: u64 = 100;

/// What a publisher knows.
#[derive(Default)]
pub struct Published {
    /// One for each message, in order: whether it was confirmed.
    pub is_confirmed: Vec<bool>,
    pub confirmed: u64,
    pub refused: u64,
}

/// Publishes until the connection is lost, with at most `window` unconfirmed messages. `put` appends the
/// frames of the message of a number.
pub fn publish(
    port: u16,
    window: u64,
    published: &Mutex<Published>,
    put: impl Fn(&mut BytesMut, u64) + Send,
) -> io::Result<()> {
    let mut wire = Wire::open(port)?;
    let select = confirm::Select { nowait: false };
    wire.call(Cold::Confirm(confirm::AMQPMethod::Select(select)))?;
    let socket = wire.writer()?;
    let first = lock(published).is_confirmed.len() as u64;
    let settled = AtomicU64::new(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(socket, window, first, &settled, published, put));
        let result = read_confirms(&mut wire, first, &settled, writer.thread(), published);
        // The writer may wait for confirms that will not come.
        settled.store(u64::MAX, Ordering::Release);
        writer.thread().unpark();
        result
    })
}

fn write(
    mut socket: TcpStream,
    window: u64,
    first: u64,
    settled: &AtomicU64,
    published: &Mutex<Published>,
    put: impl Fn(&mut BytesMut, u64),
) {
    let mut out = BytesMut::new();
    let mut sent = 0;
    loop {
        let room = loop {
            match settled.load(Ordering::Acquire) {
                u64::MAX => return,
                settled if sent - settled < window => break window - (sent - settled),
                _ => thread::park(),
            }
        };
        let count = room.min(BATCH);
        out.clear();
        for n in first + sent..first + sent + count {
            put(&mut out, n);
        }
        sent += count;
        lock(published).is_confirmed.resize((first + sent) as usize, false);
        if socket.write_all(&out).is_err() {
            return;
        }
    }
}

fn read_confirms(
    wire: &mut Wire,
    first: u64,
    settled: &AtomicU64,
    writer: &Thread,
    published: &Mutex<Published>,
) -> io::Result<()> {
    // All tags up to here are settled.
    let mut through = 0;
    loop {
        let mut acks = Vec::new();
        let mut refused = 0;
        wire.read(|frame| match method::decode(frame.payload) {
            Ok(Method::Ack(ack)) => acks.push((ack.delivery_tag, ack.multiple)),
            _ => refused += 1,
        })?;
        let mut published = lock(published);
        published.refused += refused;
        for (tag, multiple) in acks {
            let from = if multiple { through + 1 } else { tag };
            for tag in from..=tag {
                let Some(is_confirmed) = published.is_confirmed.get_mut((first + tag - 1) as usize) else {
                    return Err(io::Error::other(format!("a confirm of tag {tag}, which was not sent")));
                };
                let is_new = !std::mem::replace(is_confirmed, true);
                published.confirmed += u64::from(is_new);
            }
            while published.is_confirmed.get((first + through) as usize) == Some(&true) {
                through += 1;
            }
        }
        drop(published);
        settled.store(through, Ordering::Release);
        writer.unpark();
    }
}

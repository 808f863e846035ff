//! The run under full load: as many persistent messages of 1 KiB as broker and clients manage, confirmed
//! with a window of 1,000, consumed and acknowledged meanwhile, in one queue or in four; and a broker that
//! is killed in the middle of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amqp::method::{Cold, basic, queue};
use amqp::{Frame, FrameKind, frame, limits};
use bytes::{BufMut, BytesMut};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::dice::Dice;
use crate::findings::Findings;
use crate::publisher::{self, Published};
use crate::wire::{CHANNEL, Wire, number_in};
use crate::{Failure, Totals, lock};

const QUEUES: [&str; 4] = ["load.one", "load.two", "load.three", "load.four"];
const BODY_BYTES: usize = 1024;
/// Unconfirmed messages of a publisher.
const WINDOW: u64 = 1000;
const PREFETCH: u16 = 500;
/// Acknowledged at once.
const MULTIPLE: u64 = 50;

/// In a life of so many milliseconds something must have been confirmed.
const CONFIRM_MS_MAX: u64 = 500;

const LOST: &str = "confirmed and lost";
const ORDER: &str = "out of order";

const BASIC: u16 = 60;
const DELIVER: u16 = 60;

/// What the consumer of a queue knows.
#[derive(Default)]
struct Received {
    /// One for each number: whether it has come, and whether it was acknowledged after that.
    has_come: Vec<bool>,
    is_acked: Vec<bool>,
    /// The last one that came for the first time.
    last: Option<u64>,
    again: u64,
}

#[derive(Default)]
struct Book {
    published: Mutex<Published>,
    received: Mutex<Received>,
}

/// Kills the broker `kills` times, drains it, and says what came of it.
pub async fn run(
    broker: &mut Broker,
    kills: u64,
    mut dice: Dice,
    findings: &Findings,
) -> Result<Totals, Failure> {
    let books: Vec<Arc<Book>> = QUEUES.iter().map(|_| Arc::default()).collect();
    let (mut alive, mut start_max) = (Duration::ZERO, Duration::ZERO);
    for life in 0..kills {
        start_max = start_max.max(broker.start().await?);
        let port = broker.port();
        if life == 0 {
            declare(port)?;
        }
        // One queue in every other life, all of them in the rest.
        let queues = if life % 2 == 0 { 1 } else { QUEUES.len() };
        let begun = Instant::now();
        let is_killed = Arc::new(AtomicBool::new(false));
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        let mut client = |name: &'static str, work: Box<dyn FnOnce() -> io::Result<()> + Send>| {
            let (is_killed, found) = (is_killed.clone(), findings.clone());
            threads.push(thread::spawn(move || {
                let ended = work();
                if !is_killed.load(Ordering::SeqCst) {
                    found.add("a client ended while the broker lived", format!("{name}: {ended:?}"));
                }
            }));
        };
        let confirmed_before: Vec<u64> = books.iter().map(|book| book.confirmed()).collect();
        for (name, book) in QUEUES.into_iter().zip(&books).take(queues) {
            let (consuming, publishing) = (book.clone(), book.clone());
            let found = findings.clone();
            // Now and then a queue has nobody for a life, so that there is more to recover.
            if !dice.once_in(5) {
                client(name, Box::new(move || consume(port, name, None, &consuming, &found)));
            }
            client(
                name,
                Box::new(move || {
                    let put = |out: &mut BytesMut, n| put_publish(out, name, n);
                    publisher::publish(port, WINDOW, &publishing.published, put)
                }),
            );
        }
        let life_ms = dice.roll(100, 1500);
        sleep(Duration::from_millis(life_ms)).await;
        is_killed.store(true, Ordering::SeqCst);
        if !broker.kill()? {
            findings.add("the broker ended by itself", format!("in life {life}"));
        }
        alive += begun.elapsed();
        threads.into_iter().try_for_each(JoinHandle::join).map_err(|_| "a client panicked")?;
        let with_before = QUEUES.into_iter().zip(books.iter().zip(confirmed_before));
        for (name, (book, before)) in with_before.take(queues) {
            if life_ms >= CONFIRM_MS_MAX && book.confirmed() == before {
                findings.add("no confirms", format!("{name}, {life_ms} ms in life {life}"));
            }
        }
    }

    start_max = start_max.max(broker.start().await?);
    for (name, book) in QUEUES.into_iter().zip(&books) {
        drain(broker.port(), name, book, findings).await?;
    }
    broker.kill()?;
    let mut totals = Totals::default();
    for (name, book) in QUEUES.into_iter().zip(&books) {
        let (published, received) = (lock(&book.published), lock(&book.received));
        let confirmed = published.is_confirmed.iter().enumerate().filter(|(_, is_confirmed)| **is_confirmed);
        // The drain has acknowledged all there was, so what was not is gone: also what had come before, and
        // was to come again.
        for (n, _) in confirmed.filter(|(n, _)| received.is_acked.get(*n) != Some(&true)) {
            findings.add(LOST, format!("{name}, number {n}"));
        }
        totals.published += published.is_confirmed.len() as u64;
        totals.confirmed += published.confirmed;
        totals.duplicated += received.again;
        if published.refused > 0 {
            findings.add("refused", format!("{name}, {} times", published.refused));
        }
    }
    (totals.lost, totals.out_of_order) = (findings.count(LOST), findings.count(ORDER));
    println!(
        "load: kills {kills}, published {} ({:.0} a second), confirmed {}, lost {}, came again {}, \
         out of order {}, slowest start {} ms",
        totals.published,
        totals.published as f64 / alive.as_secs_f64(),
        totals.confirmed,
        totals.lost,
        totals.duplicated,
        totals.out_of_order,
        start_max.as_millis(),
    );
    Ok(totals)
}

fn declare(port: u16) -> io::Result<()> {
    let mut wire = Wire::open(port)?;
    for name in QUEUES {
        let declare = queue::Declare { queue: name.into(), durable: true, ..queue::Declare::default() };
        wire.call(Cold::Queue(queue::AMQPMethod::Declare(declare)))?;
    }
    Ok(())
}

/// basic.publish to the default exchange, and its content.
fn put_publish(out: &mut BytesMut, name: &str, n: u64) {
    const PERSISTENT: [u8; 3] = [0x10, 0x00, 2];
    let publish =
        basic::Publish { exchange: "".into(), routing_key: name.into(), mandatory: false, immediate: false };
    frame::put_method(out, CHANNEL, &Cold::Basic(basic::AMQPMethod::Publish(publish)));
    frame::put_header(out, CHANNEL, BODY_BYTES as u64, &PERSISTENT);
    frame::put_body_head(out, CHANNEL, BODY_BYTES);
    for _ in 0..BODY_BYTES / 8 {
        out.put_u64(n);
    }
    out.put_u8(limits::FRAME_END);
}

/// Consumes until the connection is lost, or until nothing has come for `silence_max`.
fn consume(
    port: u16,
    name: &str,
    silence_max: Option<Duration>,
    book: &Book,
    findings: &Findings,
) -> io::Result<()> {
    let mut wire = Wire::open(port)?;
    wire.consume(name, PREFETCH)?;
    if let Some(silence_max) = silence_max {
        wire.set_silence_max(silence_max)?;
    }
    let (mut received, mut acked) = (0, 0);
    // What has come on this connection and was not acknowledged, in order.
    let mut unacked: Vec<u64> = Vec::new();
    let mut last = None;
    let mut body = Vec::with_capacity(BODY_BYTES);
    let mut numbers = Vec::new();
    loop {
        let read = wire.read(|frame| match frame.kind {
            FrameKind::Method if method_of(&frame) == Some((BASIC, DELIVER)) => body.clear(),
            FrameKind::Body => {
                body.extend_from_slice(frame.payload);
                if body.len() >= BODY_BYTES {
                    numbers.push(number_in(&body));
                }
            }
            _ => {}
        });
        let is_silent = matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if !is_silent {
            read?;
        }
        received += numbers.len() as u64;
        let mut book = lock(&book.received);
        for number in numbers.drain(..) {
            match number {
                Some(n) => {
                    book.receive(n, name, findings);
                    if last.is_some_and(|last| last >= n) {
                        findings.add(ORDER, format!("{name}, number {n} after {last:?}, in one life"));
                    }
                    last = Some(n);
                    unacked.push(n);
                }
                None => findings.add("not the body that was published", name.into()),
            }
        }
        if received - acked >= MULTIPLE || is_silent && received > acked {
            acked = received;
            book.ack(unacked.drain(..));
            drop(book);
            let ack = basic::Ack { delivery_tag: received, multiple: true };
            wire.send(CHANNEL, Cold::Basic(basic::AMQPMethod::Ack(ack)))?;
        }
        if is_silent {
            return Ok(());
        }
    }
}

/// Consumes until the queue stays empty.
async fn drain(port: u16, name: &'static str, book: &Arc<Book>, findings: &Findings) -> Result<(), Failure> {
    const TRIES: u32 = 60;
    for _ in 0..TRIES {
        let (book, found) = (book.clone(), findings.clone());
        let silence_max = Some(Duration::from_secs(1));
        let drained = thread::spawn(move || consume(port, name, silence_max, &book, &found));
        drained.join().map_err(|_| "a client panicked")??;
        if Wire::open(port)?.ready(name)? == 0 {
            return Ok(());
        }
    }
    findings.add("the queues do not get empty", name.into());
    Ok(())
}

impl Book {
    fn confirmed(&self) -> u64 {
        lock(&self.published).confirmed
    }
}

impl Received {
    fn ack(&mut self, numbers: impl Iterator<Item = u64>) {
        self.is_acked.resize(self.has_come.len(), false);
        numbers.for_each(|n| self.is_acked[n as usize] = true);
    }

    fn receive(&mut self, n: u64, name: &str, findings: &Findings) {
        let at = n as usize;
        if self.has_come.len() <= at {
            self.has_come.resize(at + 1, false);
        }
        if std::mem::replace(&mut self.has_come[at], true) {
            self.again += 1;
            return;
        }
        if self.last.is_some_and(|last| last > n) {
            findings.add(ORDER, format!("{name}, number {n} after {:?}", self.last));
        }
        self.last = self.last.max(Some(n));
    }
}

/// Class and method of a method frame.
fn method_of(frame: &Frame<'_>) -> Option<(u16, u16)> {
    let [c1, c2, m1, m2, ..] = *frame.payload else { return None };
    let is_method = frame.kind == FrameKind::Method;
    is_method.then(|| (u16::from_be_bytes([c1, c2]), u16::from_be_bytes([m1, m2])))
}

//! The run down a chain of dead letters: a message is in one queue at a time, whatever happens.
//!
//! Five queues, of which each leads to the next: out of the first messages expire in no order, out of the
//! second in order, the third has room for a few, and the consumer of the fourth rejects. What leaves one queue
//! and comes into the next does so in one record of the log; so all that was confirmed ends up in the fifth
//! queue, once, and its headers tell of each queue once, wherever in between the broker was killed.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amqp::method::{Cold, basic, exchange, queue};
use amqp::{Properties, Table, Value, frame, limits};
use bytes::{BufMut, BytesMut};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::chain_ledger::{self as book, FIVE, FOUR, LENGTH_MAX, LINKS, PUSHER, Places, THREE};
use crate::dice::Dice;
use crate::findings::Findings;
use crate::publisher::{self, Published};
use crate::wire::{Assembly, CHANNEL, Delivered, Wire};
use crate::{Failure, Totals, lock};

const PUBLISHERS: u64 = 2;
/// How long a message stays in the second queue.
const TTL_MS: i64 = 200;
const PREFETCH: u16 = 400;
/// Rejected, or given back, at once, at most.
const MULTIPLE_MAX: u64 = 64;
/// What has come is settled after so long a silence.
const PAUSE: Duration = Duration::from_millis(20);
/// Long enough for anything that a live broker does.
const PATIENCE: Duration = Duration::from_secs(60);
/// Counts that stay the same so long will stay; as long as this they may change again by themselves.
const STILL_MIN: Duration = Duration::from_millis(500);
const STILL_MAX: Duration = Duration::from_secs(15);
/// Long enough for what nobody waits for to be in the log.
const LOG_DELAY: Duration = Duration::from_millis(1200);

/// What the clients of all lives share.
struct Work {
    published: [Mutex<Published>; PUBLISHERS as usize],
    findings: Findings,
    rejected: AtomicU64,
    given_back: AtomicU64,
    redelivered: AtomicU64,
}

/// What ends the clients of one life: the kill, or that there is nothing left to do.
#[derive(Default)]
struct End {
    is_killed: AtomicBool,
    is_over: AtomicBool,
}

/// Kills the broker `kills` times while at least `messages` are published, has the chain run out, and looks
/// what is where.
pub async fn run(
    broker: &mut Broker,
    kills: u64,
    messages: u64,
    mut dice: Dice,
    findings: &Findings,
) -> Result<Totals, Failure> {
    let work = Arc::new(Work {
        published: Default::default(),
        findings: findings.clone(),
        rejected: AtomicU64::default(),
        given_back: AtomicU64::default(),
        redelivered: AtomicU64::default(),
    });
    let (mut early_kills, mut censuses, mut starts_ms) = (0, 0, Vec::new());
    // Each kill has its share of the messages, and comes somewhere in the next one's.
    let share = (messages / kills).max(1);
    for life in 0..kills {
        if life > 0 && dice.once_in(6) {
            // Also while it recovers.
            early_kills += 1;
            broker.spawn()?;
            sleep(Duration::from_millis(dice.roll(0, 60))).await;
            broker.kill()?;
        }
        starts_ms.push(broker.start().await?.as_millis());
        let port = broker.port();
        if life == 0 {
            declare(port)?;
        } else if dice.once_in(3) {
            censuses += 1;
            work.census(port, life).await?;
        }
        let end = Arc::new(End::default());
        let mut clients = Vec::new();
        for publisher in 0..PUBLISHERS {
            // The fewer are unconfirmed, the slower it is.
            let window = dice.roll(10, 500);
            clients
                .push(work.client("publisher", &end, move |work, _| work.publish(port, publisher, window)));
        }
        // Now and then nobody rejects for a life, so that there is more to recover.
        if !dice.once_in(5) {
            let dice = dice.fork();
            clients.push(work.client("rejecter", &end, move |work, end| work.reject(port, dice, end)));
        }
        work.wait_for_confirms(share * (life + 1) + dice.roll(0, share), life).await;
        sleep(Duration::from_millis(dice.roll(0, 1000))).await;
        end.is_killed.store(true, Ordering::SeqCst);
        if !broker.kill()? {
            findings.add("the broker ended by itself", format!("in life {life}"));
        }
        join(clients)?;
    }

    starts_ms.push(broker.start().await?.as_millis());
    let counts = work.run_out(broker.port(), dice.fork()).await?;
    // All that happened is old by the time of this kill, and nothing is on its way: nothing may change.
    sleep(LOG_DELAY).await;
    broker.kill()?;
    starts_ms.push(broker.start().await?.as_millis());
    let after = counts_of(broker.port())?;
    if after != counts {
        findings.add("another number of messages after a restart", format!("{counts:?} became {after:?}"));
    }
    let places = work.collect(broker.port())?;
    broker.kill()?;

    if places.pushers[THREE] != LENGTH_MAX || places.pushers.iter().sum::<u64>() != LENGTH_MAX {
        findings.add("the pushers are not where they belong", format!("{:?}", places.pushers));
    }
    let published: Vec<_> = work.published.iter().map(lock).collect();
    let sum = places.check(&published.iter().map(|one| &**one).collect::<Vec<_>>(), findings);
    let total = |of: fn(&Published) -> u64| published.iter().map(|one| of(one)).sum::<u64>();
    if total(|one| one.refused) > 0 {
        findings.add("refused", format!("{} times", total(|one| one.refused)));
    }
    let totals = Totals {
        published: total(|one| one.is_confirmed.len() as u64),
        confirmed: total(|one| one.confirmed),
        lost: findings.count(book::LOST),
        duplicated: findings.count(book::TWICE),
        ..Totals::default()
    };
    println!(
        "chain: kills {kills} (and {early_kills} while recovering), published {}, confirmed {}, at the end {} \
         (unconfirmed among them {}), lost {}, twice {}, elsewhere {}\n       \
         rejected {}, given back {}, redelivered {}, counted after a restart {censuses} times\n       \
         starts in ms: {}",
        totals.published,
        totals.confirmed,
        sum.at_the_end,
        sum.unconfirmed,
        totals.lost,
        totals.duplicated,
        findings.count(book::STUCK),
        work.rejected.load(Ordering::Relaxed),
        work.given_back.load(Ordering::Relaxed),
        work.redelivered.load(Ordering::Relaxed),
        starts_ms.iter().map(|ms| ms.to_string()).collect::<Vec<_>>().join(" "),
    );
    Ok(totals)
}

fn declare(port: u16) -> io::Result<()> {
    let mut wire = Wire::open(port)?;
    for (at, link) in LINKS.iter().enumerate() {
        let (exchange, kind) = (link.exchange.into(), link.kind.into());
        let declare = exchange::Declare { exchange, kind, durable: true, ..exchange::Declare::default() };
        wire.call(Cold::Exchange(exchange::AMQPMethod::Declare(declare)))?;
        let mut arguments = Table::new();
        if let Some(next) = LINKS.get(at + 1) {
            arguments.insert("x-dead-letter-exchange", Value::text(next.exchange));
            arguments.insert("x-dead-letter-routing-key", Value::text(next.key));
        }
        match at {
            1 => arguments.insert("x-message-ttl", Value::Int(TTL_MS)),
            THREE => arguments.insert("x-max-length", Value::Int(LENGTH_MAX as i64)),
            _ => {}
        }
        let (queue, arguments) = (link.queue.into(), (&arguments).into());
        let declare = queue::Declare { queue, durable: true, arguments, ..queue::Declare::default() };
        wire.call(Cold::Queue(queue::AMQPMethod::Declare(declare)))?;
        let (queue, exchange, routing_key) = (link.queue.into(), link.exchange.into(), link.key.into());
        let bind = queue::Bind { queue, exchange, routing_key, ..queue::Bind::default() };
        wire.call(Cold::Queue(queue::AMQPMethod::Bind(bind)))?;
    }
    Ok(())
}

/// How many messages each queue has ready.
fn counts_of(port: u16) -> io::Result<Vec<u64>> {
    counts_on(&mut Wire::open(port)?)
}

fn counts_on(wire: &mut Wire) -> io::Result<Vec<u64>> {
    LINKS.iter().map(|link| wire.ready(link.queue).map(u64::from)).collect()
}

fn join(clients: Vec<JoinHandle<()>>) -> Result<(), Failure> {
    clients.into_iter().try_for_each(JoinHandle::join).map_err(|_| "a client panicked".into())
}

/// basic.publish into the queue at `at`, and its content.
fn put_publish(out: &mut BytesMut, at: usize, n: u64, body_bytes: usize, expiration: Option<&[u8]>) {
    let (exchange, routing_key) = (LINKS[at].exchange.into(), LINKS[at].key.into());
    let publish = basic::Publish { exchange, routing_key, mandatory: false, immediate: false };
    frame::put_method(out, CHANNEL, &Cold::Basic(basic::AMQPMethod::Publish(publish)));
    let properties = Properties { delivery_mode: Some(2), expiration, ..Properties::default() };
    frame::put_header(out, CHANNEL, body_bytes as u64, &properties.encode());
    frame::put_body_head(out, CHANNEL, body_bytes);
    (0..body_bytes / 8).for_each(|_| out.put_u64(n));
    out.put_u8(limits::FRAME_END);
}

impl Work {
    /// Does a client's work, which ends by itself only when it may.
    fn client(
        self: &Arc<Work>,
        name: &'static str,
        end: &Arc<End>,
        work: impl FnOnce(&Work, &End) -> io::Result<()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (all, end) = (self.clone(), end.clone());
        thread::spawn(move || {
            let ended = work(&all, &end);
            let may_end =
                end.is_killed.load(Ordering::SeqCst) || (ended.is_ok() && end.is_over.load(Ordering::SeqCst));
            if !may_end {
                all.findings.add("a client ended while the broker lived", format!("{name}: {ended:?}"));
            }
        })
    }

    fn publish(&self, port: u16, publisher: u64, window: u64) -> io::Result<()> {
        publisher::publish(port, window, &self.published[publisher as usize], |out, turn| {
            let n = turn * PUBLISHERS + publisher;
            let expiration = book::expiration_ms(n).to_string();
            put_publish(out, 0, n, book::body_bytes(n), Some(expiration.as_bytes()));
        })
    }

    fn published(&self) -> u64 {
        self.published.iter().map(|one| lock(one).is_confirmed.len() as u64).sum()
    }

    fn confirmed(&self) -> u64 {
        self.published.iter().map(|one| lock(one).confirmed).sum()
    }

    async fn wait_for_confirms(&self, count: u64, life: u64) {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let confirmed = self.confirmed();
            if confirmed >= count {
                return;
            }
            if confirmed > before {
                (before, since) = (confirmed, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return self.findings.add("no confirms", format!("in life {life}"));
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Rejects what comes out of the fourth queue, one by one or many at once, and now and then gives some
    /// back.
    fn reject(&self, port: u16, mut dice: Dice, end: &End) -> io::Result<()> {
        let mut wire = Wire::open(port)?;
        wire.consume(LINKS[FOUR].queue, PREFETCH)?;
        wire.set_silence_max(PAUSE)?;
        // What has come in this life, and was not given back.
        let mut has_come: HashSet<u64> = HashSet::new();
        let mut held: Vec<(u64, u64)> = Vec::new();
        let (mut assembly, mut messages) = (Assembly::default(), Vec::new());
        loop {
            let is_silent = read(&mut wire, &mut assembly, &mut messages)?;
            for message in messages.drain(..) {
                let Some(n) = book::read(FOUR, &message, &self.findings) else { continue };
                self.redelivered.fetch_add(u64::from(message.redelivered), Ordering::Relaxed);
                if !has_come.insert(n) {
                    self.findings.add("came again in the same life", format!("number {n}"));
                }
                held.push((message.tag, n));
            }
            while !held.is_empty() {
                let many = dice.roll(1, MULTIPLE_MAX) as usize;
                if held.len() < many && !is_silent {
                    break;
                }
                let some: Vec<(u64, u64)> = held.drain(..many.min(held.len())).collect();
                self.settle(&mut wire, &some, &mut has_come, &mut dice)?;
            }
            if is_silent && end.is_over.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    }

    fn settle(
        &self,
        wire: &mut Wire,
        some: &[(u64, u64)],
        has_come: &mut HashSet<u64>,
        dice: &mut Dice,
    ) -> io::Result<()> {
        let Some(&(last, _)) = some.last() else { return Ok(()) };
        let nack = |requeue| basic::Nack { delivery_tag: last, multiple: true, requeue };
        match dice.roll(0, 12) {
            0 => {
                for (_, n) in some {
                    has_come.remove(n);
                }
                self.given_back.fetch_add(some.len() as u64, Ordering::Relaxed);
                return wire.send(CHANNEL, Cold::Basic(basic::AMQPMethod::Nack(nack(true))));
            }
            1..4 => {
                for &(delivery_tag, _) in some {
                    let reject = basic::Reject { delivery_tag, requeue: false };
                    wire.send(CHANNEL, Cold::Basic(basic::AMQPMethod::Reject(reject)))?;
                }
            }
            _ => wire.send(CHANNEL, Cold::Basic(basic::AMQPMethod::Nack(nack(false))))?,
        }
        self.rejected.fetch_add(some.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits after a restart until nothing moves, and counts: all that was confirmed must be in some queue, and
    /// no more than was published.
    async fn census(&self, port: u16, life: u64) -> Result<(), Failure> {
        let (least, most) = (self.confirmed(), self.published());
        let counts = wait_until(port, |counts| has_run_down(counts, least)).await?;
        let sum: u64 = counts.iter().sum();
        if sum < least || sum > most {
            let detail = format!("life {life}, {counts:?} are {sum}, which must be {least} to {most}");
            self.findings.add("a wrong number of messages after a restart", detail);
        }
        Ok(())
    }

    /// Has everything come to the end of the chain: pushers take the places of what is in the third queue.
    /// Returns how many messages each queue has then.
    async fn run_out(self: &Arc<Work>, port: u16, dice: Dice) -> Result<Vec<u64>, Failure> {
        let least = self.confirmed();
        wait_until(port, |counts| has_run_down(counts, least)).await?;
        push(port)?;
        let end = Arc::new(End::default());
        let rejecter = self.client("rejecter", &end, move |work, end| work.reject(port, dice, end));
        let is_done = |counts: &[u64]| counts[..FIVE] == [0, 0, LENGTH_MAX, 0] && counts[FIVE] >= least;
        let counts = wait_until(port, is_done).await?;
        if !is_done(&counts) {
            let detail = format!("{counts:?}, and {least} must be at the end");
            self.findings.add("the chain does not run out", detail);
        }
        end.is_over.store(true, Ordering::SeqCst);
        join(vec![rejecter])?;
        Ok(counts)
    }

    /// Takes everything out of all queues.
    fn collect(&self, port: u16) -> io::Result<Places> {
        const TRIES: u32 = 60;
        let mut places = Places::default();
        for (at, link) in LINKS.iter().enumerate() {
            for _ in 0..TRIES {
                if Wire::open(port)?.ready(link.queue)? == 0 {
                    break;
                }
                self.empty(port, at, &mut places)?;
            }
        }
        Ok(places)
    }

    fn empty(&self, port: u16, at: usize, places: &mut Places) -> io::Result<()> {
        let mut wire = Wire::open(port)?;
        wire.consume(LINKS[at].queue, PREFETCH)?;
        wire.set_silence_max(Duration::from_secs(1))?;
        let (mut assembly, mut messages) = (Assembly::default(), Vec::new());
        loop {
            let is_silent = read(&mut wire, &mut assembly, &mut messages)?;
            if let Some(last) = messages.last() {
                let ack = basic::Ack { delivery_tag: last.tag, multiple: true };
                wire.send(CHANNEL, Cold::Basic(basic::AMQPMethod::Ack(ack)))?;
            }
            let numbers = messages.drain(..).filter_map(|message| book::read(at, &message, &self.findings));
            numbers.for_each(|n| places.add(at, n));
            if is_silent {
                return Ok(());
            }
        }
    }
}

/// Whether all that was confirmed has come as far as it does by itself.
fn has_run_down(counts: &[u64], confirmed: u64) -> bool {
    counts[..THREE] == [0, 0] && counts[THREE] <= LENGTH_MAX && counts.iter().sum::<u64>() >= confirmed
}

/// Counts until it is done and nothing moves, or until it will never be done. Messages on their way are in no
/// queue, and are waited for.
async fn wait_until(port: u16, is_done: impl Fn(&[u64]) -> bool) -> Result<Vec<u64>, Failure> {
    let mut wire = Wire::open(port)?;
    let (mut before, mut since) = (Vec::new(), Instant::now());
    loop {
        let counts = counts_on(&mut wire)?;
        if counts != before {
            (before, since) = (counts, Instant::now());
        }
        let still = since.elapsed();
        if still > STILL_MAX || still > STILL_MIN && is_done(&before) {
            return Ok(before);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// As many pushers as the third queue has places. They are in it when this returns.
fn push(port: u16) -> io::Result<()> {
    let mut wire = Wire::open(port)?;
    let mut out = BytesMut::new();
    (0..LENGTH_MAX).for_each(|_| put_publish(&mut out, THREE, PUSHER, 8, None));
    wire.write(&out)?;
    // What comes behind them on their channel is answered after them.
    wire.ready(LINKS[THREE].queue).map(drop)
}

/// Reads once; true if nothing has come.
fn read(wire: &mut Wire, assembly: &mut Assembly, messages: &mut Vec<Delivered>) -> io::Result<bool> {
    match wire.read(|frame| messages.extend(assembly.add(&frame))) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        read => read.map(|()| false),
    }
}

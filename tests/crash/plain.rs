//! The run without transactions: publishers with confirms, consumers with acknowledgements, and a broker
//! that is killed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, ExchangeKind, PublisherConfirm};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::broker::{Broker, Door};
use crate::dice::Dice;
use crate::findings::Findings;
use crate::plain_ledger::{self as book, Answer, FANOUT, Ledger, Number, QUEUES, TOPIC};
use crate::{Failure, Totals};

const PUBLISHERS: u32 = 2;
/// Unconfirmed messages of a publisher.
const WINDOW: usize = 200;
const PREFETCH: u16 = 100;
/// Publishers pause above this many messages that nobody has acknowledged.
const BACKLOG_MAX: i64 = 20_000;
/// The last queue's consumer acknowledges so many at once.
const MULTIPLE: usize = 16;
/// Long enough for anything that a live broker does.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all tasks share.
#[derive(Clone)]
struct Work {
    door: Door,
    ledger: Arc<Mutex<Ledger>>,
    findings: Findings,
    is_over: Arc<AtomicBool>,
}

/// How fast a publisher goes in one life of the broker.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Full,
    /// Bursts of so many messages with so many milliseconds between them.
    Bursts(u64, u64),
}

/// Kills the broker `kills` times, drains it, and says what came of it.
pub async fn run(
    broker: &mut Broker,
    kills: u64,
    mut dice: Dice,
    findings: &Findings,
) -> Result<Totals, Failure> {
    let mut work = Work {
        door: broker.door(),
        ledger: Arc::new(Mutex::new(Ledger::new(PUBLISHERS as usize))),
        findings: findings.clone(),
        is_over: Arc::default(),
    };
    let (mut early_kills, mut start_max) = (0, Duration::ZERO);
    for life in 0..kills {
        if life > 0 && dice.once_in(6) {
            // Also while it recovers.
            early_kills += 1;
            broker.spawn()?;
            sleep(Duration::from_millis(dice.roll(0, 60))).await;
            broker.kill()?;
        }
        start_max = start_max.max(broker.start().await?);
        work.door = broker.door();
        match life {
            0 => work.declare().await?,
            _ => work.check_restart().await?,
        }
        let mut tasks = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let pace = match dice.roll(0, 3) {
                0 => Pace::Bursts(dice.roll(1, 50), dice.roll(1, 20)),
                _ => Pace::Full,
            };
            tasks.spawn(work.clone().publish(publisher, pace, dice.fork()));
        }
        for queue in 0..QUEUES.len() {
            // Now and then a queue has nobody for a life, so that there is more to recover.
            let is_alone = dice.once_in(5);
            if !is_alone {
                tasks.spawn(work.clone().consume(queue));
            }
        }
        sleep(Duration::from_millis(dice.roll(50, 1500))).await;
        work.ledger().killing();
        if !broker.kill()? {
            findings.add("the broker ended by itself", format!("in life {life}"));
        }
        work.end(tasks).await?;
    }

    start_max = start_max.max(broker.start().await?);
    work.door = broker.door();
    work.check_restart().await?;
    work.drain().await?;
    work.ledger().check_lost(findings);
    // All acks are old by the time of this kill: nothing may come again.
    sleep(Duration::from_millis(1200)).await;
    work.ledger().killing();
    broker.kill()?;
    broker.start().await?;
    work.door = broker.door();
    work.check_restart().await?;
    broker.kill()?;

    let tally = work.ledger().tally.clone();
    let count = |kind| findings.count(kind);
    println!(
        "plain: kills {kills} (and {early_kills} while recovering), published {}, confirmed {}, lost {}, \
         duplicated {} (acked too long before: {}; oldest ack {} ms), out of order {}\n       \
         received {} (unconfirmed among them {}), redelivered unacked {}, without flag {} (oldest {} ms; too old: {}), \
         requeued {}, refused {}, backlog at most {}, slowest start {} ms, \
         clients that hung {:?}",
        tally.published,
        tally.confirmed,
        count(book::LOST),
        tally.duplicated,
        count(book::LATE),
        tally.duplicate_ack_age_ms_max,
        count(book::ORDER),
        tally.received,
        tally.unconfirmed_received,
        tally.redelivered,
        tally.unflagged,
        tally.unflagged_age_ms_max,
        count(book::UNFLAGGED),
        tally.returned,
        tally.refused,
        tally.backlog_max,
        start_max.as_millis(),
        broker.hung(),
    );
    Ok(Totals {
        published: tally.published,
        confirmed: tally.confirmed,
        lost: count(book::LOST),
        duplicated: tally.duplicated,
        out_of_order: count(book::ORDER),
        half_applied: 0,
    })
}

impl Work {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no task panics with it")
    }

    async fn declare(&self) -> Result<(), Failure> {
        let connection = self.door.connect("declare").await?;
        let channel = connection.create_channel().await?;
        for queue in QUEUES {
            channel
                .queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default())
                .await?;
        }
        for (exchange, kind) in [(FANOUT, ExchangeKind::Fanout), (TOPIC, ExchangeKind::Topic)] {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await?;
        }
        for (at, queue) in QUEUES.into_iter().enumerate() {
            let (exchange, key) = if at < 2 { (TOPIC, "both.#") } else { (FANOUT, "") };
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
                .await?;
        }
        connection.close(200, "declared".into()).await?;
        Ok(())
    }

    /// What is in the queues after a restart, before anybody consumes, must agree with the ledger.
    async fn check_restart(&self) -> Result<(), Failure> {
        let counts = self.counts().await?;
        let mut ledger = self.ledger();
        ledger.restarted();
        // What was lost unconfirmed is nobody's backlog.
        ledger.tally.backlog = counts.iter().sum::<u64>() as i64;
        for (queue, count) in counts.into_iter().enumerate() {
            ledger.check_count(queue, count, &self.findings);
        }
        Ok(())
    }

    async fn counts(&self) -> Result<Vec<u64>, Failure> {
        let connection = self.door.connect("counts").await?;
        let channel = connection.create_channel().await?;
        let mut counts = Vec::new();
        for queue in QUEUES {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
            counts.push(u64::from(declared.message_count()));
        }
        connection.close(200, "counted".into()).await?;
        Ok(counts)
    }

    /// Waits for the tasks, which end with their connections.
    async fn end(&self, mut tasks: JoinSet<()>) -> Result<(), Failure> {
        while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.map_err(|_| "a client hangs")? {
            ended?;
        }
        Ok(())
    }

    async fn publish(self, publisher: u32, pace: Pace, mut dice: Dice) {
        let mut waiting = VecDeque::new();
        let work = self.publish_all(publisher, pace, &mut dice, &mut waiting);
        let _ = self.door.work("publisher", work).await;
        // Some confirms had arrived before the connection was lost.
        for (number, confirm) in waiting {
            if let Some(confirmed) = poll_once(confirm).await {
                self.confirmed(number, confirmed);
            }
        }
    }

    async fn publish_all(
        &self,
        publisher: u32,
        pace: Pace,
        dice: &mut Dice,
        waiting: &mut VecDeque<(Number, PublisherConfirm)>,
    ) -> lapin::Result<()> {
        let connection = self.door.connect("publisher").await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for count in 1.. {
            if let Pace::Bursts(burst, pause_ms) = pace
                && count % burst == 0
            {
                sleep(Duration::from_millis(pause_ms)).await;
            }
            while self.ledger().tally.backlog > BACKLOG_MAX && channel.status().connected() {
                sleep(Duration::from_millis(2)).await;
            }
            let size = match dice.roll(0, 400) {
                0 => dice.roll(100_000, 400_000),
                1..20 => dice.roll(4_000, 20_000),
                _ => dice.roll(0, 1_500),
            };
            let number = self.ledger().publish(publisher);
            let (exchange, key, _) = book::route(number);
            let body = book::body(number, size as usize);
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let confirm =
                channel.basic_publish(exchange.into(), key.into(), options, &body, properties).await?;
            waiting.push_back((number, confirm));
            if waiting.len() >= WINDOW {
                let (number, confirm) = waiting.pop_front().expect("the window is full");
                match timeout(PATIENCE, confirm).await {
                    Ok(confirmed) => self.confirmed(number, confirmed),
                    Err(_) => self.findings.add("a confirm does not come", format!("{number:?}")),
                }
            }
        }
        Ok(())
    }

    fn confirmed(&self, number: Number, confirmed: lapin::Result<Confirmation>) {
        match confirmed {
            Ok(Confirmation::Ack(None)) => self.ledger().confirm(number),
            Ok(Confirmation::Ack(Some(_))) => {
                self.findings.add("returned as unroutable", format!("{number:?}"));
            }
            Ok(_) => self.ledger().tally.refused += 1,
            Err(_) => {}
        }
    }

    /// Consumes until the connection is lost or the run is over.
    async fn consume(self, queue: usize) {
        let _ = self.door.work("consumer", self.consume_all(queue)).await;
    }

    async fn consume_all(&self, queue: usize) -> lapin::Result<()> {
        let connection = self.door.connect("consumer").await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let name = QUEUES[queue];
        let mut consumer =
            channel.basic_consume(name.into(), name.into(), options, FieldTable::default()).await?;
        let is_multiple = queue == QUEUES.len() - 1;
        let mut held: Vec<(Number, Delivery)> = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let next = timeout(Duration::from_millis(20), consumer.next()).await;
            if let Ok(next) = next {
                let Some(delivery) = next else { return Ok(()) };
                let delivery = delivery?;
                let Some(number) = book::read(&delivery.data) else {
                    let about = format!("{name}, {} octets", delivery.data.len());
                    self.findings.add("not the body that was published", about);
                    delivery.ack(BasicAckOptions::default()).await?;
                    continue;
                };
                let answer = self.ledger().receive(queue, number, delivery.redelivered, &self.findings);
                if answer == Answer::Return {
                    self.ledger().returned(queue, number);
                    delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await?;
                    continue;
                }
                held.push((number, delivery));
                if is_multiple && held.len() < MULTIPLE {
                    continue;
                }
            }
            let Some((_, last)) = held.last() else { continue };
            held.iter().for_each(|(number, _)| self.ledger().acking(queue, *number));
            last.ack(BasicAckOptions { multiple: is_multiple }).await?;
            held.drain(..).for_each(|(number, _)| self.ledger().acked(queue, number));
        }
        connection.close(200, "drained".into()).await
    }

    /// Consumes until all queues stay empty.
    async fn drain(&self) -> Result<(), Failure> {
        let mut tasks = JoinSet::new();
        for queue in 0..QUEUES.len() {
            tasks.spawn(self.clone().consume(queue));
        }
        let start = Instant::now();
        let mut before = u64::MAX;
        loop {
            sleep(Duration::from_millis(500)).await;
            let is_empty = self.counts().await?.iter().all(|count| *count == 0);
            let received = self.ledger().tally.received;
            if is_empty && received == before {
                break;
            }
            before = received;
            if start.elapsed() > Duration::from_secs(120) {
                self.findings.add("the queues do not get empty", format!("{:?}", self.counts().await?));
                break;
            }
        }
        self.is_over.store(true, Ordering::Relaxed);
        self.end(tasks).await
    }
}

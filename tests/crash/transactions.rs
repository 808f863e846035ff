//! The run with the tx class: every transaction is there wholly or not at all.
//!
//! Publishers commit one message to each of three queues. One consumer takes both messages of a
//! transaction out of the first two queues and acknowledges them in one commit; the mover takes the
//! third, publishes it to a fourth queue and acknowledges it in one commit. Now and then both roll back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::broker::{Broker, Door};
use crate::dice::Dice;
use crate::findings::Findings;
use crate::transactions_ledger::{self as book, Id, Ledger, MOVED, SOURCES, Stage};
use crate::{Failure, Totals};

const CONNECTIONS: usize = 3;
/// Publishing channels of a connection: a commit is waited for on each, so this many are in flight.
const CHANNELS: usize = 3;
const PREFETCH: u16 = 300;
/// So many pairs, or moves, in a commit.
const BATCH: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Work {
    door: Door,
    ledger: Arc<Mutex<Ledger>>,
    findings: Findings,
    is_over: Arc<AtomicBool>,
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
        ledger: Arc::default(),
        findings: findings.clone(),
        is_over: Arc::default(),
    };
    for life in 0..kills {
        broker.start().await?;
        work.door = broker.door();
        match life {
            0 => work.declare().await?,
            _ => work.check_restart(life).await?,
        }
        let mut tasks = work.settlers(&mut dice);
        for _ in 0..CONNECTIONS {
            tasks.spawn(work.clone().publish(dice.fork()));
        }
        sleep(Duration::from_millis(dice.roll(50, 1500))).await;
        if !broker.kill()? {
            findings.add("the broker ended by itself", format!("in life {life}"));
        }
        work.end(tasks).await?;
    }

    broker.start().await?;
    work.door = broker.door();
    work.check_restart(kills).await?;
    work.drain(&mut dice).await?;
    work.count_moved().await?;
    broker.kill()?;
    // Commits do not wait for company: nothing may come again.
    broker.start().await?;
    work.door = broker.door();
    work.check_restart(kills + 1).await?;
    broker.kill()?;

    let ledger = work.ledger();
    ledger.check(findings);
    println!(
        "tx: kills {kills}, transactions {}, committed {}, unanswered {}, rolled back {}, lost {}, half-applied {}, \
         ghosts {}\n    acknowledged in commits {}, moved {} (rolled back and done again {}), committed acks undone {}, \
         came again after an unanswered commit {}, clients that hung {:?}",
        ledger.begun(),
        ledger.count(Stage::Done),
        ledger.count(Stage::Asked),
        ledger.count(Stage::Undone),
        findings.count(book::LOST),
        findings.count(book::HALF),
        findings.count(book::GHOST),
        ledger.pairs,
        ledger.moves,
        ledger.rollbacks_of_moves,
        findings.count(book::UNDONE),
        ledger.again,
        broker.hung(),
    );
    let messages = SOURCES.len() as u64;
    Ok(Totals {
        published: messages * ledger.begun() as u64,
        confirmed: messages * ledger.count(Stage::Done) as u64,
        lost: findings.count(book::LOST),
        duplicated: ledger.again,
        out_of_order: 0,
        half_applied: findings.count(book::HALF),
    })
}

impl Work {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no task panics with it")
    }

    async fn declare(&self) -> Result<(), Failure> {
        let connection = self.door.connect("declare").await?;
        let channel = connection.create_channel().await?;
        for queue in SOURCES.into_iter().chain([MOVED]) {
            channel
                .queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default())
                .await?;
        }
        connection.close(200, "declared".into()).await?;
        Ok(())
    }

    async fn check_restart(&self, life: u64) -> Result<(), Failure> {
        for (source, count) in self.counts().await?.into_iter().enumerate() {
            self.ledger().check_count(source, count, life, &self.findings);
        }
        Ok(())
    }

    async fn counts(&self) -> Result<Vec<u64>, Failure> {
        let connection = self.door.connect("counts").await?;
        let channel = connection.create_channel().await?;
        let mut counts = Vec::new();
        for queue in SOURCES {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
            counts.push(u64::from(declared.message_count()));
        }
        connection.close(200, "counted".into()).await?;
        Ok(counts)
    }

    fn settlers(&self, dice: &mut Dice) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().pair());
        tasks.spawn(self.clone().shift(dice.fork()));
        tasks
    }

    async fn end(&self, mut tasks: JoinSet<()>) -> Result<(), Failure> {
        while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.map_err(|_| "a client hangs")? {
            ended?;
        }
        Ok(())
    }

    async fn publish(self, mut dice: Dice) {
        let work = async {
            let connection = self.door.connect("tx publisher").await?;
            let mut tasks = JoinSet::new();
            for _ in 0..CHANNELS {
                let channel = connection.create_channel().await?;
                let (work, mut dice) = (self.clone(), dice.fork());
                tasks.spawn(async move { work.publish_all(&channel, &mut dice).await });
            }
            while tasks.join_next().await.is_some() {}
            lapin::Result::Ok(())
        };
        let _ = self.door.work("tx publisher", work).await;
    }

    async fn publish_all(&self, channel: &Channel, dice: &mut Dice) -> lapin::Result<()> {
        channel.tx_select().await?;
        loop {
            let id = self.ledger().begin();
            let size = if dice.once_in(50) { dice.roll(10_000, 200_000) } else { dice.roll(0, 1_000) };
            for queue in SOURCES {
                publish(channel, queue, id, size as usize).await?;
            }
            if dice.once_in(12) {
                self.ledger().published(id, Stage::Undone);
                channel.tx_rollback().await?;
                continue;
            }
            self.ledger().published(id, Stage::Asked);
            channel.tx_commit().await?;
            self.ledger().published(id, Stage::Done);
        }
    }

    /// Acknowledges both messages of a transaction in the first two queues in one commit.
    async fn pair(self) {
        let _ = self.door.work("pairs", self.pair_all()).await;
    }

    async fn pair_all(&self) -> lapin::Result<()> {
        let connection = self.door.connect("pairs").await?;
        let channel = connection.create_channel().await?;
        channel.tx_select().await?;
        let first = consume(&channel, SOURCES[0]).await?;
        let second = consume(&channel, SOURCES[1]).await?;
        let mut deliveries = first.map(|d| (0, d)).or(second.map(|d| (1, d)));
        let mut halves: HashMap<Id, Delivery> = HashMap::new();
        let mut pairs: Vec<(Id, [Delivery; 2])> = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            if let Ok(next) = timeout(Duration::from_millis(20), deliveries.next()).await {
                let Some((source, delivery)) = next else { return Ok(()) };
                let delivery = delivery?;
                let Some(id) = self.received(source, &delivery) else { continue };
                match halves.remove(&id) {
                    Some(half) => pairs.push((id, [half, delivery])),
                    None => drop(halves.insert(id, delivery)),
                }
                if pairs.len() < BATCH {
                    continue;
                }
            }
            if pairs.is_empty() {
                continue;
            }
            for (_, deliveries) in &pairs {
                for delivery in deliveries {
                    delivery.ack(BasicAckOptions::default()).await?;
                }
            }
            pairs.iter().for_each(|(id, _)| self.ledger().pair(*id, Stage::Asked));
            channel.tx_commit().await?;
            pairs.drain(..).for_each(|(id, _)| self.ledger().pair(id, Stage::Done));
        }
        connection.close(200, "drained".into()).await
    }

    /// Moves what is in the third queue to the fourth.
    async fn shift(self, mut dice: Dice) {
        let _ = self.door.work("mover", self.shift_all(&mut dice)).await;
    }

    async fn shift_all(&self, dice: &mut Dice) -> lapin::Result<()> {
        let connection = self.door.connect("mover").await?;
        let channel = connection.create_channel().await?;
        channel.tx_select().await?;
        let mut deliveries = consume(&channel, SOURCES[2]).await?;
        let mut held: Vec<(Id, Delivery)> = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            if let Ok(next) = timeout(Duration::from_millis(20), deliveries.next()).await {
                let Some(delivery) = next else { return Ok(()) };
                let delivery = delivery?;
                let Some(id) = self.received(2, &delivery) else { continue };
                held.push((id, delivery));
                if held.len() < BATCH {
                    continue;
                }
            }
            let Some((_, last)) = held.last() else { continue };
            if dice.once_in(20) {
                for (id, _) in &held {
                    publish(&channel, MOVED, *id, 0).await?;
                }
                held.iter().for_each(|(id, _)| self.ledger().moving(*id, Stage::Undone));
                channel.tx_rollback().await?;
            }
            for (id, _) in &held {
                publish(&channel, MOVED, *id, 0).await?;
            }
            last.ack(BasicAckOptions { multiple: true }).await?;
            held.iter().for_each(|(id, _)| self.ledger().moving(*id, Stage::Asked));
            channel.tx_commit().await?;
            held.drain(..).for_each(|(id, _)| self.ledger().moving(id, Stage::Done));
        }
        connection.close(200, "drained".into()).await
    }

    fn received(&self, source: usize, delivery: &Delivery) -> Option<Id> {
        let id = read(&delivery.data);
        match id {
            Some(id) => self.ledger().receive(source, id, &self.findings),
            None => self.findings.add("not the body that was published", SOURCES[source].into()),
        }
        id
    }

    /// Settles until all sources stay empty.
    async fn drain(&self, dice: &mut Dice) -> Result<(), Failure> {
        let tasks = self.settlers(dice);
        let start = Instant::now();
        let mut before = None;
        loop {
            sleep(Duration::from_millis(500)).await;
            let is_empty = self.counts().await?.iter().all(|count| *count == 0);
            let settled = Some(self.ledger().settled());
            if is_empty && settled == before {
                break;
            }
            before = settled;
            if start.elapsed() > Duration::from_secs(120) {
                self.findings.add("the queues do not get empty", format!("{:?}", self.counts().await?));
                break;
            }
        }
        self.is_over.store(true, Ordering::Relaxed);
        self.end(tasks).await
    }

    async fn count_moved(&self) -> Result<(), Failure> {
        let connection = self.door.connect("moved").await?;
        let channel = connection.create_channel().await?;
        let mut deliveries = consume(&channel, MOVED).await?;
        // Prefetch counts what is not acknowledged, so each batch is.
        let mut count = 0;
        while let Ok(Some(delivery)) = timeout(Duration::from_secs(2), deliveries.next()).await {
            let delivery = delivery?;
            match read(&delivery.data) {
                Some(id) => self.ledger().found_moved(id, &self.findings),
                None => self.findings.add("not the body that was published", MOVED.into()),
            }
            count += 1;
            if count % (PREFETCH / 4) == 0 {
                delivery.ack(BasicAckOptions { multiple: true }).await?;
                count = 0;
            }
        }
        connection.close(200, "counted".into()).await?;
        Ok(())
    }
}

async fn consume(channel: &Channel, queue: &'static str) -> lapin::Result<Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), queue.into(), options, FieldTable::default()).await
}

async fn publish(channel: &Channel, queue: &'static str, id: Id, size: usize) -> lapin::Result<()> {
    let mut body = id.to_be_bytes().to_vec();
    body.resize(8 + size, id as u8);
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), &body, properties).await?;
    Ok(())
}

fn read(body: &[u8]) -> Option<Id> {
    let (head, filled) = body.split_at_checked(8)?;
    let id = Id::from_be_bytes(head.try_into().ok()?);
    filled.iter().all(|octet| *octet == id as u8).then_some(id)
}

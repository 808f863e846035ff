//! Taking dead letters back to where they came from, and messages from one queue to another.
//!
//! A message leaves its queue and enters the other in one record of the log. What is not taken goes back to its
//! place; nobody else gets it while it is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqp::{Properties, Table, Value, method, table};
use smallvec::SmallVec;
use store::{Operation, Urgency};
use tracing::info;

use super::Vhost;
use crate::delivery::{Entry, Stored};
use crate::error::Error;
use crate::message::{Message, StoredBy, parse_ttl, publish_operation};
use crate::outbox::Outbox;
use crate::parts::Parts;
use crate::queue::{Got, Handle, Return};

/// So many messages are looked at in one go, at most.
pub const LOOKED_AT_MAX: usize = 1_000_000;

/// Messages that are not taken are held so long; then they go back, and their queue goes on behind them.
const HELD_MAX: usize = 100_000;

/// How long a message may take to be brought from the disk.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells how often a message was taken back.
const COUNT: &[u8] = b"x-redrive-count";

/// Where messages go.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Each to the queue where it first became a dead letter.
    Origin,
    /// All to this queue.
    Queue(String),
}

/// Which messages, and how.
pub struct Redrive {
    /// Where they go.
    pub goal: Goal,
    /// So many at most.
    pub limit: usize,
    /// So many a second at most.
    pub per_second: Option<u32>,
    /// Also those that have been taken back before: they have failed again.
    pub again: bool,
    /// Nothing is moved, and everything is counted.
    pub dry_run: bool,
    /// Whether a message is meant.
    pub wants: Box<dyn Fn(&Message) -> bool + Send>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Moved, or about to be.
    pub moved: usize,
    /// Not meant.
    pub skipped: usize,
    /// Meant, but their goal is not there or has no room.
    pub failed: usize,
    /// How many to which queue.
    pub targets: BTreeMap<String, usize>,
}

impl Vhost {
    /// Moves messages out of a queue. Blocks the calling thread while it works.
    ///
    /// # Errors
    /// `NotFound`: one of the queues. `Invalid`: it would move messages to where they are. `Store`.
    pub fn redrive(&self, from: &Handle, redrive: &Redrive) -> Result<Redriven, Error> {
        if let Goal::Queue(name) = &redrive.goal {
            let to = self.queue(name)?;
            if to == *from {
                let text = format!("messages of {from:?} are to go to itself; name another queue");
                return Err(Error::Invalid(text));
            }
        }
        let outbox = Outbox::new();
        let (mut done, mut kept, began) = (Redriven::default(), Vec::new(), Instant::now());
        let outcome = loop {
            if done.moved >= redrive.limit
                || done.moved + kept.len() >= LOOKED_AT_MAX
                || kept.len() >= HELD_MAX
            {
                break Ok(());
            }
            let entry = match from.get(false, &outbox) {
                Got::Message(entry, _) => entry,
                Got::Empty => break Ok(()),
                Got::Later => match wait_for(&outbox) {
                    true => continue,
                    false => break Err(Error::Store("the disk did not bring a message in time".into())),
                },
            };
            match self.goal_of(from, redrive, &entry.message) {
                Some(Ok(to)) if redrive.dry_run => {
                    *done.targets.entry(to.name().into()).or_default() += 1;
                    done.moved += 1;
                    kept.push(entry);
                }
                Some(Ok(to)) => match self.carry(from, &to, entry) {
                    Ok(()) => {
                        *done.targets.entry(to.name().into()).or_default() += 1;
                        done.moved += 1;
                        pace(began, done.moved, redrive.per_second);
                    }
                    Err(entry) => {
                        done.failed += 1;
                        kept.push(*entry);
                    }
                },
                Some(Err(())) => {
                    done.failed += 1;
                    kept.push(entry);
                }
                None => {
                    done.skipped += 1;
                    kept.push(entry);
                }
            }
        };
        from.requeue(kept.into_iter().map(|entry| (None, Return::Recovered, entry)).collect());
        let (moved, failed) = (done.moved, done.failed);
        info!(vhost = %self.name, queue = from.name(), moved, failed, dry_run = redrive.dry_run, "messages moved");
        outcome.map(|()| done)
    }

    /// Where a message goes; nothing if it is not meant, an error if that is not there.
    fn goal_of(&self, from: &Handle, redrive: &Redrive, message: &Message) -> Option<Result<Handle, ()>> {
        let headers = Properties::parse(message.parts.properties()).ok().and_then(|read| read.headers);
        let headers = headers.and_then(|headers| Table::decode(headers).ok()).unwrap_or_default();
        let is_new = redrive.again || headers.get("x-redrive-count").is_none();
        if !is_new || !(redrive.wants)(message) {
            return None;
        }
        let name = match &redrive.goal {
            Goal::Queue(name) => name.as_str(),
            Goal::Origin => match headers.get_str("x-first-death-queue") {
                Some(name) => name,
                None => return Some(Err(())),
            },
        };
        Some(self.queue(name).ok().filter(|to| to != from).ok_or(()))
    }

    /// Takes a message from one queue to another; gives it back if the other does not take it.
    fn carry(&self, from: &Handle, to: &Handle, entry: Entry) -> Result<(), Box<Entry>> {
        let now_ms = self.surroundings.clock.now_ms();
        let body_bytes = entry.message.parts.body().len() as u64;
        if to.may_refuse() && !to.takes(1, body_bytes) {
            return Err(Box::new(entry));
        }
        let is_kept = entry.message.persistent && to.declaration().is_kept();
        let stored_by = if is_kept { StoredBy::due() } else { StoredBy::none() };
        let message = Arc::new(Message { stored_by, ..revived(&entry.message, to.name(), now_ms) });
        let Some(place) = to.reserve_for(&message) else { return Err(Box::new(entry)) };
        let mut operations = Vec::new();
        if is_kept {
            let destinations = SmallVec::from([(to.line_id(place.level, Stored::Kept), place.seq)]);
            operations.push(Operation::Publish(publish_operation(&message, destinations)));
        }
        if entry.stored != Stored::No {
            let queue = from.line_id(entry.level, entry.stored);
            operations.push(Operation::Settle { queue, runs: [entry.seq].into_iter().collect() });
        }
        if !operations.is_empty() {
            let urgency = Urgency::Written(to.sync());
            let ticket = self.surroundings.store.append(vec![Operation::Atomic(operations)], urgency);
            if is_kept {
                message.stored_by.add(ticket);
            }
        }
        from.forget(&entry);
        from.settle(None, 1, body_bytes);
        to.insert(vec![(place, message)]);
        Ok(())
    }
}

/// Waits until the outbox is rung: a message has been read.
fn wait_for(outbox: &Arc<Outbox>) -> bool {
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(async { tokio::time::timeout(READ_TIMEOUT, outbox.rung()).await.is_ok() })
}

/// Waits so long that no more go in a second than may.
fn pace(began: Instant, moved: usize, per_second: Option<u32>) {
    let Some(per_second) = per_second.filter(|n| *n > 0) else { return };
    let due = began + Duration::from_secs_f64(moved as f64 / f64::from(per_second));
    if let Some(rest) = due.checked_duration_since(Instant::now()) {
        std::thread::sleep(rest);
    }
}

/// A message as it goes to a queue again: its deaths are forgotten, so that none of them counts as a cycle, and it is
/// counted how often it was taken back.
fn revived(message: &Message, queue: &str, now_ms: u64) -> Message {
    let read = Properties::parse(message.parts.properties()).unwrap_or_default();
    let is_death = |name: &[u8]| {
        name == b"x-death" || name.starts_with(b"x-first-death-") || name.starts_with(b"x-last-death-")
    };
    let raw: Vec<(&[u8], &[u8])> = read.headers.into_iter().flat_map(table::raw_entries).collect();
    let before =
        raw.iter().find(|(name, _)| *name == COUNT).and_then(|(_, raw)| table::decode_value(raw).ok());
    let count = match before {
        Some(Value::Int(count)) => count.saturating_add(1),
        _ => 1,
    };
    let count = table::encode_value(&Value::Int(count));
    let mut entries: Vec<(&[u8], &[u8])> =
        raw.into_iter().filter(|(name, _)| !is_death(name) && *name != COUNT).collect();
    entries.push((COUNT, &count));
    let headers = table::from_raw(entries);
    let properties = Properties { headers: Some(&headers), ..read }.encode();
    let body = message.parts.share_body(0..message.parts.body().len());
    let parts = Parts::gathered(&method::address("", queue), &properties, body);
    let ttl_ms = read.expiration.and_then(|expiration| parse_ttl(expiration).ok());
    Message { ttl_ms, ..message.again(parts, now_ms) }
}

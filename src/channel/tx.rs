//! The tx class: publishes and settlements that all happen at the commit, or not at all.
//!
//! The commit is one record in the log. Its messages become visible to consumers, and commit-ok goes
//! out, only when that record is synced: no crash shows a part of it.

use std::sync::Arc;

use amqp::method::{Cold, tx};
use amqp::{Exception, ReplyCode};
use hashbrown::HashMap;
use smallvec::SmallVec;
use store::{Operation, Urgency};

use super::publish::is_direct_reply;
use super::settle::{Settlements, Verdict, reject, requeue};
use super::unacked::Unacked;
use super::{Channel, Context, Flow, Mode, Then, Wait};
use crate::delivery::{Place, Stored};
use crate::message::{Message, publish_operation};
use crate::queue::{self, Return};

/// What a transaction has gathered since it began.
#[derive(Debug, Default)]
pub struct Transaction {
    publishes: Vec<Publish>,
    body_bytes: usize,
    settles: Vec<(u64, Unacked, Verdict)>,
}

/// A publish of a transaction, and the queues that it was routed to.
#[derive(Debug)]
struct Publish {
    message: Arc<Message>,
    mandatory: bool,
    queues: SmallVec<[queue::Handle; 1]>,
}

/// What the bodies of a transaction may take together, in octets: a commit is one record of the log.
const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What a transaction may hold of publishes and settlements, for the same reason.
const PARTS_MAX: usize = 1_000_000;

impl Transaction {
    /// Whether a publish with a body of so many octets still fits.
    ///
    /// # Errors
    /// 406 if it does not.
    pub fn check_room(&self, body_bytes: usize) -> Result<(), Exception> {
        let bytes = self.body_bytes + body_bytes;
        if bytes <= BODY_BYTES_MAX && self.publishes.len() < PARTS_MAX {
            return Ok(());
        }
        let text = format!(
            "a transaction may hold {PARTS_MAX} messages and {BODY_BYTES_MAX} bytes, not {} and {bytes}; \
             commit more often",
            self.publishes.len() + 1
        );
        Err(Exception::new(ReplyCode::PreconditionFailed, text))
    }

    /// Keeps a publish for the commit.
    pub fn publish(&mut self, message: Arc<Message>, mandatory: bool, queues: &[queue::Handle]) {
        self.body_bytes += message.parts.body().len();
        self.publishes.push(Publish { message, mandatory, queues: queues.into() });
    }

    /// How many publishes it has.
    pub fn publish_count(&self) -> u64 {
        self.publishes.len() as u64
    }

    /// How many settlements it has.
    pub fn settle_count(&self) -> u64 {
        self.settles.len() as u64
    }

    /// Keeps a settlement for the commit.
    pub fn settle(&mut self, tag: u64, unacked: Unacked, verdict: Verdict) {
        self.settles.push((tag, unacked, verdict));
    }

    /// Whether the queues that refuse what they have no room for have room for all of it.
    ///
    /// # Errors
    /// The first that has not.
    fn check_rooms(&self) -> Result<(), queue::Handle> {
        let mut wanted: HashMap<&queue::Handle, (u64, u64)> = HashMap::new();
        for publish in &self.publishes {
            for queue in publish.queues.iter().filter(|queue| queue.may_refuse()) {
                let (messages, body_bytes) = wanted.entry(queue).or_default();
                *messages += 1;
                *body_bytes += publish.message.parts.body().len() as u64;
            }
        }
        let full = wanted.into_iter().find(|(queue, (messages, bytes))| !queue.takes(*messages, *bytes));
        full.map_or(Ok(()), |(queue, _)| Err(queue.clone()))
    }

    /// The deliveries whose settlement is not committed.
    pub fn into_unsettled(self) -> impl Iterator<Item = (u64, Unacked)> {
        self.settles.into_iter().map(|(tag, unacked, _)| (tag, unacked))
    }
}

/// Messages with the places they have in a queue.
type Placed = Vec<(Place, Arc<Message>)>;

/// A commit on its way to the disk: what is left to do when it has arrived.
#[derive(Debug)]
pub struct Commit {
    inserts: HashMap<queue::Handle, Placed>,
    settlements: Settlements,
    requeues: Vec<(Unacked, Return)>,
    rejections: Vec<Unacked>,
}

impl Commit {
    /// The record is durable: the queues get their messages, the consumers their credit.
    pub fn finish(mut self) {
        for (queue, messages) in self.inserts {
            queue.insert(messages);
        }
        self.settlements.release();
        requeue(self.requeues);
        reject(self.rejections);
    }
}

impl Channel {
    /// tx.select
    pub(super) fn tx_select(&mut self, context: &mut Context<'_>) -> Result<Flow, Exception> {
        match self.mode {
            Mode::Confirm(_) => {
                let text = "cannot switch from confirm to tx mode";
                return Err(Exception::new(ReplyCode::PreconditionFailed, text));
            }
            Mode::Plain => self.mode = Mode::Tx(Transaction::default()),
            Mode::Tx(_) => {}
        }
        self.reply(context, Cold::Tx(tx::AMQPMethod::SelectOk(tx::SelectOk {})));
        Ok(Flow::Go)
    }

    /// tx.rollback: publishes are forgotten, settled deliveries wait again under their old tags.
    pub(super) fn tx_rollback(&mut self, context: &mut Context<'_>) -> Result<Flow, Exception> {
        let transaction = self.transaction()?;
        self.unacked.put_back(transaction.into_unsettled());
        self.reply(context, Cold::Tx(tx::AMQPMethod::RollbackOk(tx::RollbackOk {})));
        Ok(Flow::Go)
    }

    /// tx.commit
    pub(super) fn tx_commit(&mut self, context: &mut Context<'_>) -> Result<Flow, Exception> {
        let transaction = self.transaction()?;
        let reply = Cold::Tx(tx::AMQPMethod::CommitOk(tx::CommitOk {}));
        if let Err(full) = transaction.check_rooms() {
            self.unacked.put_back(transaction.into_unsettled());
            let text =
                format!("{full:?} has no room for a message of this transaction; nothing of it was done");
            return Err(Exception::new(ReplyCode::PreconditionFailed, text));
        }
        for (_, unacked, verdict) in &transaction.settles {
            if matches!(verdict, Verdict::Done | Verdict::Rejected) {
                unacked.queue.forget(&unacked.entry);
            }
        }
        let mut operations = Vec::new();
        let mut inserts: HashMap<queue::Handle, Placed> = HashMap::new();
        let mut kept: Vec<Arc<Message>> = Vec::new();
        let mut sync = None;
        for Publish { mut message, mandatory, queues } in transaction.publishes {
            let is_delayed = queues.iter().any(|queue| queue.declaration().is_delays);
            if let Some(message) = Arc::get_mut(&mut message).filter(|_| !is_delayed) {
                // It is published now, so its time to live begins now.
                message.taken_at_ms = context.now_ms;
            }
            if queues.is_empty() {
                let is_answered = is_direct_reply(&message)
                    && context.vhost.requesters().answer(message.routing_key(), &message);
                if mandatory && !is_answered {
                    self.return_unroutable(context, &message);
                }
            }
            self.note_published(context, &message, &queues);
            let mut stored: SmallVec<[_; 1]> = SmallVec::new();
            for queue in queues {
                // A queue that is gone by now takes nothing, as with any publish, nor does one that has it already.
                let Some(place) = queue.reserve_for(&message) else {
                    // What it has may still be on its way to the disk.
                    if queue.declaration().is_kept() {
                        operations.push(queue::nothing());
                        let own = queue.sync();
                        sync = Some(sync.map_or(own, |other: store::SyncMode| other.stricter(own)));
                    }
                    continue;
                };
                if message.persistent && queue.declaration().is_kept() {
                    stored.push((queue.line_id(place.level, Stored::Kept), place.seq));
                    let own = queue.sync();
                    sync = Some(sync.map_or(own, |other: store::SyncMode| other.stricter(own)));
                }
                inserts.entry(queue).or_default().push((place, message.clone()));
            }
            if !stored.is_empty() {
                operations.push(Operation::Publish(publish_operation(&message, stored)));
                kept.push(message);
            }
        }
        let (settlements, requeues, rejections) = (Settlements::default(), Vec::new(), Vec::new());
        let mut commit = Commit { inserts, settlements, requeues, rejections };
        for (_, unacked, verdict) in transaction.settles {
            self.return_credit(&unacked);
            match verdict {
                Verdict::Done => {
                    self.note_acknowledged(context, &unacked);
                    commit.settlements.add(unacked);
                }
                // A dead letter is a record of its own: this message comes again if that is never written.
                Verdict::Rejected if unacked.queue.has_dead_letters() => commit.rejections.push(unacked),
                Verdict::Rejected => {
                    self.note_rejected(context, &unacked);
                    commit.settlements.add(unacked);
                }
                Verdict::Requeue(how) => commit.requeues.push((unacked, how)),
            }
        }
        operations.extend(commit.settlements.operations());
        if operations.is_empty() {
            commit.finish();
            self.give_back_credit();
            self.reply(context, reply);
            return Ok(Flow::Go);
        }
        let urgency = Urgency::Written(sync.unwrap_or_default());
        let ticket = context.session.append([Operation::Atomic(operations)], urgency);
        kept.iter().for_each(|message| message.stored_by.add(ticket));
        Ok(Flow::Wait(Wait { ticket, then: Then::Commit(Box::new(commit), reply) }))
    }

    /// Takes what the transaction has gathered; the next one begins.
    fn transaction(&mut self) -> Result<Transaction, Exception> {
        match &mut self.mode {
            Mode::Tx(transaction) => Ok(std::mem::take(transaction)),
            _ => Err(Exception::new(ReplyCode::PreconditionFailed, "channel is not transactional")),
        }
    }
}

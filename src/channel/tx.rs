//! The tx class: publishes and settlements that all happen at the commit, or not at all.
//!
//! The commit is one record in the log. Its messages become visible to consumers, and commit-ok goes
//! out, only when that record is synced: no crash shows a part of it.

use std::sync::Arc;

use amqp::method::{Cold, tx};
use amqp::{Exception, ReplyCode};
use exchanges::Matches;
use hashbrown::HashMap;
use smallvec::SmallVec;
use store::{Operation, Seq, Urgency};

use super::publish::publish_operation;
use super::settle::{Settlements, Verdict, requeue};
use super::unacked::Unacked;
use super::{Channel, Context, Flow, Mode, Then, Wait};
use crate::message::Message;
use crate::queue;

/// What a transaction has gathered since it began.
#[derive(Debug, Default)]
pub struct Transaction {
    publishes: Vec<(Arc<Message>, bool)>,
    settles: Vec<(u64, Unacked, Verdict)>,
}

impl Transaction {
    /// Keeps a publish for the commit.
    pub fn publish(&mut self, message: Arc<Message>, mandatory: bool) {
        self.publishes.push((message, mandatory));
    }

    /// Keeps a settlement for the commit.
    pub fn settle(&mut self, tag: u64, unacked: Unacked, verdict: Verdict) {
        self.settles.push((tag, unacked, verdict));
    }

    /// The deliveries whose settlement is not committed.
    pub fn into_unsettled(self) -> impl Iterator<Item = (u64, Unacked)> {
        self.settles.into_iter().map(|(tag, unacked, _)| (tag, unacked))
    }
}

/// Messages with the numbers they have in a queue.
type Numbered = Vec<(Seq, Arc<Message>)>;

/// A commit on its way to the disk: what is left to do when it has arrived.
#[derive(Debug)]
pub struct Commit {
    inserts: HashMap<queue::Handle, Numbered>,
    settlements: Settlements,
    requeues: Vec<Unacked>,
}

impl Commit {
    /// The record is durable: the queues get their messages, the consumers their credit.
    pub fn finish(mut self) {
        for (queue, messages) in self.inserts {
            queue.insert(messages);
        }
        self.settlements.release();
        requeue(self.requeues);
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
        let mut operations = Vec::new();
        let mut inserts: HashMap<queue::Handle, Numbered> = HashMap::new();
        let mut matches = Matches::new();
        for (message, mandatory) in transaction.publishes {
            context.vhost.route(&message, &mut matches);
            if matches.is_empty() && mandatory {
                self.give_back(context, &message);
            }
            let mut stored: SmallVec<[_; 1]> = SmallVec::new();
            for queue in matches.drain() {
                // A queue that is gone by now takes nothing, as with any publish.
                let Some(seq) = queue.reserve() else { continue };
                if message.persistent && queue.declaration().is_kept() {
                    stored.push((queue.id(), seq));
                }
                inserts.entry(queue).or_default().push((seq, message.clone()));
            }
            if !stored.is_empty() {
                operations.push(Operation::Publish(publish_operation(&message, stored)));
            }
        }
        let mut commit = Commit {
            inserts,
            settlements: Settlements::default(),
            requeues: Vec::new(),
        };
        for (_, unacked, verdict) in transaction.settles {
            self.return_credit(&unacked);
            match verdict {
                Verdict::Done | Verdict::Rejected => commit.settlements.add(unacked),
                Verdict::Requeue => commit.requeues.push(unacked),
            }
        }
        operations.extend(commit.settlements.operations());
        if operations.is_empty() {
            commit.finish();
            self.reply(context, reply);
            return Ok(Flow::Go);
        }
        let ticket = context.session.append([Operation::Atomic(operations)], Urgency::Sync);
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

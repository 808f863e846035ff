//! Settling deliveries: ack, nack, reject, recover.

use amqp::method::{Ack, Cold, basic};
use amqp::{Exception, ReplyCode};
use hashbrown::HashMap;
use store::{Operation, Runs, Urgency};

use super::unacked::Unacked;
use super::{Channel, Context, Flow, Mode};
use crate::delivery::{ConsumerId, Entry, Stored};
use crate::queue::{self, Return};
use crate::tally::Count;

/// What becomes of settled deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done: they are gone.
    Done,
    /// Rejected: they are dead letters, if their queue has a place for those.
    Rejected,
    /// They go back to their places.
    Requeue(Return),
}

/// Acknowledged deliveries of a connection that wait to be handed over: every queue is locked once for
/// those of one consumer, and the store is told once.
#[derive(Debug, Default)]
pub struct Settlements {
    groups: Vec<Group>,
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Group {
    queue: queue::Handle,
    consumer: Option<ConsumerId>,
    level: u8,
    count: usize,
    body_bytes: u64,
    kept: Runs,
    spilled: Runs,
}

impl Settlements {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds a delivery that is done with.
    pub fn add(&mut self, unacked: Unacked) {
        unacked.queue.forget(&unacked.entry);
        let level = unacked.entry.level;
        let fits = |g: &Group| g.consumer == unacked.consumer && g.level == level && g.queue == unacked.queue;
        let at = self.groups.iter().rposition(fits).unwrap_or_else(|| {
            self.groups.push(Group {
                queue: unacked.queue,
                consumer: unacked.consumer,
                level,
                count: 0,
                body_bytes: 0,
                kept: Runs::default(),
                spilled: Runs::default(),
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.count += 1;
        group.body_bytes += unacked.entry.message.parts.body().len() as u64;
        match unacked.entry.stored {
            Stored::No => {}
            Stored::Kept => group.kept.push(unacked.entry.seq),
            Stored::Spilled => group.spilled.push(unacked.entry.seq),
        }
    }

    /// The operations that make it last; for a commit, which stores them itself.
    pub fn operations(&self) -> impl Iterator<Item = Operation> + '_ {
        let kept = self.groups.iter().map(|g| (g.queue.line_id(g.level, Stored::Kept), &g.kept));
        let spilled = self.groups.iter().map(|g| (g.queue.line_id(g.level, Stored::Spilled), &g.spilled));
        let stored = kept.chain(spilled).filter(|(_, runs)| !runs.is_empty());
        stored.map(|(queue, runs)| Operation::Settle { queue, runs: runs.clone() })
    }

    /// Tells the store, then the queues, which deliver into the credit that came back.
    pub fn flush(&mut self, session: &mut store::Session) {
        self.operations = self.operations().collect();
        if !self.operations.is_empty() {
            session.append(self.operations.drain(..), Urgency::Lazy);
        }
        self.release();
    }

    /// Tells the queues alone.
    pub fn release(&mut self) {
        for group in self.groups.drain(..) {
            group.queue.settle(group.consumer, group.count, group.body_bytes);
        }
    }
}

/// Puts deliveries back into their queues, each queue once: they are all in their places before one of
/// them is delivered again.
pub fn requeue(unacked: impl IntoIterator<Item = (Unacked, Return)>) {
    let mut groups: HashMap<queue::Handle, Vec<(Option<ConsumerId>, Return, Entry)>> = HashMap::new();
    for (Unacked { queue, consumer, entry, .. }, how) in unacked {
        groups.entry(queue).or_default().push((consumer, how, entry));
    }
    for (queue, entries) in groups {
        queue.requeue(entries);
    }
}

/// Rejects deliveries for good, each queue once.
pub fn reject(unacked: impl IntoIterator<Item = Unacked>) {
    let mut groups: HashMap<queue::Handle, Vec<(Option<ConsumerId>, Entry)>> = HashMap::new();
    for Unacked { queue, consumer, entry, .. } in unacked {
        groups.entry(queue).or_default().push((consumer, entry));
    }
    for (queue, entries) in groups {
        queue.reject(entries);
    }
}

impl Channel {
    /// basic.ack
    pub(super) fn ack(&mut self, context: &mut Context<'_>, ack: Ack) -> Result<Flow, Exception> {
        self.settle(context, ack.delivery_tag, ack.multiple, Verdict::Done)
    }

    /// basic.nack
    pub(super) fn nack(&mut self, context: &mut Context<'_>, nack: &basic::Nack) -> Result<Flow, Exception> {
        let verdict = if nack.requeue { Verdict::Requeue(Return::Nacked) } else { Verdict::Rejected };
        self.settle(context, nack.delivery_tag, nack.multiple, verdict)
    }

    /// basic.reject
    pub(super) fn reject(
        &mut self,
        context: &mut Context<'_>,
        reject: &basic::Reject,
    ) -> Result<Flow, Exception> {
        let verdict = if reject.requeue { Verdict::Requeue(Return::Failed) } else { Verdict::Rejected };
        self.settle(context, reject.delivery_tag, false, verdict)
    }

    fn settle(
        &mut self,
        context: &mut Context<'_>,
        tag: u64,
        multiple: bool,
        verdict: Verdict,
    ) -> Result<Flow, Exception> {
        if !multiple {
            let Some(unacked) = self.unacked.take(tag) else {
                return if self.taken_back.remove(&tag) { Ok(Flow::Go) } else { Err(unknown_tag(tag)) };
            };
            self.settled(context, tag, unacked, verdict);
            return Ok(Flow::Go);
        }
        if tag != 0 && !self.unacked.contains(tag) && !self.taken_back.contains(&tag) {
            return Err(unknown_tag(tag));
        }
        let through = (tag != 0).then_some(tag);
        self.taken_back.retain(|other| through.is_some_and(|through| *other > through));
        let taken: Vec<(u64, Unacked)> = self.unacked.take_through(through).collect();
        for (tag, unacked) in taken {
            self.settled(context, tag, unacked, verdict);
        }
        Ok(Flow::Go)
    }

    fn settled(&mut self, context: &mut Context<'_>, tag: u64, unacked: Unacked, verdict: Verdict) {
        if let Mode::Tx(tx) = &mut self.mode {
            tx.settle(tag, unacked, verdict);
            return;
        }
        self.return_credit(&unacked);
        match verdict {
            Verdict::Done => {
                self.taken.add(Count::Ack, 1);
                self.note_acknowledged(context, &unacked);
                context.settlements.add(unacked);
            }
            Verdict::Rejected => {
                unacked.queue.forget(&unacked.entry);
                context.rejections.push(unacked);
            }
            Verdict::Requeue(how) => context.requeues.push((unacked, how)),
        }
    }

    /// The credit that a delivery had of the channel's global limit comes back.
    pub(super) fn return_credit(&mut self, unacked: &Unacked) {
        if unacked.consumer.is_some() {
            self.credit_back += 1;
        }
    }

    /// basic.recover and basic.recover-async.
    pub(super) fn recover(
        &mut self,
        context: &mut Context<'_>,
        requeue: bool,
        wants_reply: bool,
    ) -> Result<Flow, Exception> {
        if !requeue {
            return Err(Exception::new(ReplyCode::NotImplemented, "requeue=false"));
        }
        let taken: Vec<Unacked> = self.unacked.take_through(None).map(|(_, unacked)| unacked).collect();
        taken.iter().for_each(|unacked| self.return_credit(unacked));
        context.requeues.extend(taken.into_iter().map(|unacked| (unacked, Return::Recovered)));
        if wants_reply {
            self.reply(context, Cold::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {})));
        }
        Ok(Flow::Go)
    }
}

fn unknown_tag(tag: u64) -> Exception {
    Exception::new(ReplyCode::PreconditionFailed, format!("unknown delivery tag {tag}"))
}

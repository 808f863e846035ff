//! Messages that have been routed and wait to be handed over: every queue is locked once for all its messages,
//! and the store is told once.

use std::sync::Arc;

use smallvec::SmallVec;
use store::{Operation, QueueId, Seq, SyncMode, Ticket};

use super::{Enqueued, Handle, Places};
use crate::delivery::Stored;
use crate::message::{Message, StoredBy, publish_operation};
use crate::outbox::Outbox;

/// Messages on their way to their queues.
#[derive(Debug, Default)]
pub struct Batch {
    queues: Vec<ForQueue>,
    kept: Vec<Kept>,
    /// What the store is to be told.
    operations: Vec<Operation>,
    /// Messages that are stored when the store has been told of them.
    told: Vec<Told>,
    /// When what was told of them has to be synced.
    told_sync: Option<SyncMode>,
    /// Messages that were refused before they had a queue.
    refused: Vec<Origin>,
    /// Of messages that the store does not keep.
    claims: Vec<(Origin, Box<dyn Claim>)>,
}

/// What goes with a message.
#[derive(Debug)]
pub enum With {
    /// The store is told this in the same record, whatever becomes of the message in its queues. Boxed, since
    /// nearly no message has any.
    Operation(Box<Operation>),
    /// Somebody who wants to know what becomes of it.
    Claim(Box<dyn Claim>),
}

/// Somebody who wants to know whether a message is taken, and when the store has been told.
pub trait Claim: std::fmt::Debug + Send {
    /// The message is taken, or one of its queues has refused it: what the store is told in the same record.
    fn settle(&mut self, is_taken: bool) -> Option<Operation>;

    /// The store has been told.
    fn told(&mut self);
}

#[derive(Debug)]
struct ForQueue {
    queue: Handle,
    messages: Vec<Arc<Message>>,
    /// Whether the queue may refuse some. Messages that came before that was so are let in.
    may_refuse: bool,
    /// Whose they are, if so.
    origins: Vec<Origin>,
}

/// Whose message it is, to whoever made the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The channel it was published on.
    pub channel: u16,
    /// Its number there.
    pub tag: u64,
}

/// A message that the store is to keep, or to let go of.
#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// Which queues, and which of their messages in this batch this one is.
    places: SmallVec<[(u32, u32); 1]>,
    origin: Origin,
    /// What happens with it, or not at all.
    with: Option<With>,
}

/// A message that is where it belongs, and what the store is told of it.
#[derive(Debug)]
struct Told {
    message: Arc<Message>,
    operations: Vec<Operation>,
    with: Option<With>,
}

/// What came of handing a batch over.
#[derive(Debug, Default)]
pub struct Outcome {
    /// When what is in it has to be synced.
    pub sync: SyncMode,
    /// Those that one of their queues has refused.
    pub refused: Vec<Origin>,
    /// Those that go back to their publisher: a queue has one like it.
    pub returned: Vec<(Origin, Arc<Message>)>,
    /// Queues that have more than their consumers have been given, and want no more for a while.
    pub ahead: SmallVec<[Handle; 1]>,
}

impl Batch {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
            && self.operations.is_empty()
            && self.refused.is_empty()
            && self.claims.is_empty()
            && self.told.is_empty()
    }

    /// Adds a message for these queues, and what goes with it.
    pub fn add(&mut self, mut message: Message, queues: &[Handle], origin: Origin, with: Option<With>) {
        if is_kept(&message, queues) {
            // It goes to its queues first, and none may take it for stored before all of it is.
            message.stored_by = StoredBy::due();
            let message = Arc::new(message);
            let places = queues.iter().map(|queue| self.place(queue, message.clone(), origin)).collect();
            self.kept.push(Kept { message, places, origin, with });
            return;
        }
        with.into_iter().for_each(|with| self.add_with(with, origin));
        let Some((last, others)) = queues.split_last() else { return };
        let message = Arc::new(message);
        for queue in others {
            self.place(queue, message.clone(), origin);
        }
        self.place(last, message, origin);
    }

    /// A message goes to no queue, but something went with it.
    pub fn add_with(&mut self, with: With, origin: Origin) {
        match with {
            With::Operation(operation) => self.operations.push(*operation),
            With::Claim(claim) => self.claims.push((origin, claim)),
        }
    }

    /// The store is told this with the rest.
    pub fn tell(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// The store is told this of a message in one record, with what goes with it. The message is stored then; and
    /// it is synced when `sync` says.
    pub fn tell_of(
        &mut self,
        message: Arc<Message>,
        operations: Vec<Operation>,
        with: Option<With>,
        sync: SyncMode,
    ) {
        self.told.push(Told { message, operations, with });
        self.told_sync = self.told_sync.into_iter().chain([sync]).reduce(SyncMode::stricter);
    }

    /// This batch is not safe before all that the store was told so far, synced when `sync` says: a message is a
    /// duplicate of one that may still be on its way to the disk.
    pub fn wait(&mut self, sync: SyncMode) {
        self.operations.push(nothing());
        self.told_sync = self.told_sync.into_iter().chain([sync]).reduce(SyncMode::stricter);
    }

    /// A message is refused, and goes to no queue.
    pub fn refuse(&mut self, origin: Origin) {
        self.refused.push(origin);
    }

    fn place(&mut self, queue: &Handle, message: Arc<Message>, origin: Origin) -> (u32, u32) {
        // Mostly it is the queue of the message before.
        let at = self.queues.iter().rposition(|q| q.queue == *queue).unwrap_or_else(|| {
            let (queue, may_refuse) = (queue.clone(), queue.may_refuse());
            self.queues.push(ForQueue { queue, messages: Vec::new(), may_refuse, origins: Vec::new() });
            self.queues.len() - 1
        });
        let ForQueue { messages, may_refuse, origins, .. } = &mut self.queues[at];
        if *may_refuse {
            origins.push(origin);
        }
        messages.push(message);
        (at as u32, messages.len() as u32 - 1)
    }

    /// Hands everything to the queues, which deliver at once, and what the store has to be told to `append`,
    /// which returns its ticket. `None` for that if there is nothing to tell.
    pub fn flush(
        &mut self,
        publisher: Option<&Arc<Outbox>>,
        append: impl FnOnce(std::vec::Drain<'_, Operation>, SyncMode) -> Ticket,
    ) -> (Option<Ticket>, Outcome) {
        let mut outcome = Outcome { refused: std::mem::take(&mut self.refused), ..Outcome::default() };
        let mut places: SmallVec<[Option<Places>; 4]> = SmallVec::new();
        let mut waits: SmallVec<[SyncMode; 1]> = SmallVec::new();
        for batch in &mut self.queues {
            let enqueued = batch.queue.enqueue(&mut batch.messages, batch.may_refuse, publisher);
            if enqueued.as_ref().is_some_and(|enqueued| enqueued.holds_up) {
                outcome.ahead.push(batch.queue.clone());
            }
            let found = enqueued.map(|Enqueued { places, refused, duplicates, returned, .. }| {
                let origin = |n: usize| batch.origins.get(n).copied().unwrap_or_default();
                outcome.refused.extend(refused.into_iter().map(origin));
                outcome.returned.extend(returned.into_iter().map(|(n, message)| (origin(n), message)));
                if duplicates && batch.queue.declaration().is_kept() {
                    waits.push(batch.queue.sync());
                }
                places
            });
            places.push(found);
        }
        waits.into_iter().for_each(|sync| self.wait(sync));
        // Those that nobody can name are no one's to send again.
        let is_taken = |origin: Origin| origin.tag == 0 || !outcome.refused.contains(&origin);
        let mut claims: SmallVec<[Box<dyn Claim>; 1]> = SmallVec::new();
        for Kept { message, places: wanted, origin, with } in &mut self.kept {
            let stored = wanted.iter().filter_map(|&(at, n)| {
                let queue = &self.queues[at as usize].queue;
                let place = places[at as usize].as_ref()?.get(n as usize)?;
                let is_kept = queue.declaration().is_kept();
                is_kept.then(|| (queue.line_id(place.level, Stored::Kept), place.seq))
            });
            let destinations: SmallVec<[(QueueId, Seq); 1]> = stored.collect();
            let publish = (!destinations.is_empty())
                .then(|| Operation::Publish(publish_operation(message, destinations)));
            let with = with.take().and_then(|with| settle(with, is_taken(*origin), &mut claims));
            self.operations.extend(match (with, publish) {
                (Some(with), Some(publish)) => Some(Operation::Atomic(vec![with, publish])),
                (with, publish) => with.or(publish),
            });
        }
        let kept = self.queues.iter().filter(|batch| batch.queue.declaration().is_kept());
        let syncs = kept.map(|batch| batch.queue.sync()).chain(self.told_sync.take());
        outcome.sync = syncs.reduce(SyncMode::stricter).unwrap_or_default();
        for Told { operations, with, .. } in &mut self.told {
            let with = with.take().and_then(|with| settle(with, true, &mut claims));
            let mut operations = std::mem::take(operations);
            // In the order in which they are there: a mark does not come before its message.
            operations.extend(with);
            self.operations.push(match operations.len() {
                1 => operations.remove(0),
                _ => Operation::Atomic(operations),
            });
        }
        for (origin, mut claim) in self.claims.drain(..) {
            self.operations.extend(claim.settle(is_taken(origin)));
            claims.push(claim);
        }
        self.queues.clear();
        let ticket = (!self.operations.is_empty()).then(|| append(self.operations.drain(..), outcome.sync));
        claims.iter_mut().for_each(|claim| claim.told());
        let told = self.told.drain(..);
        told.for_each(|told| told.message.stored_by.add(ticket.unwrap_or(Ticket(0))));
        for kept in self.kept.drain(..) {
            // Of a message that has missed its queue nobody will ask.
            kept.message.stored_by.add(ticket.unwrap_or(Ticket(0)));
        }
        outcome.refused.sort_unstable();
        outcome.refused.dedup();
        (ticket, outcome)
    }
}

/// Changes nothing, but has its place in the log: what waits for it waits for all before.
pub fn nothing() -> Operation {
    Operation::Mark { queue: QueueId(0), marks: SmallVec::new() }
}

/// What the store is told with a message.
fn settle(with: With, is_taken: bool, claims: &mut SmallVec<[Box<dyn Claim>; 1]>) -> Option<Operation> {
    match with {
        With::Operation(operation) => Some(*operation),
        With::Claim(mut claim) => {
            let operation = claim.settle(is_taken);
            claims.push(claim);
            operation
        }
    }
}

fn is_kept(message: &Message, queues: &[Handle]) -> bool {
    message.persistent && queues.iter().any(|queue| queue.declaration().is_kept())
}

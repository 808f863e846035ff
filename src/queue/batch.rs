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
    told: Vec<Arc<Message>>,
    /// When what was told of them has to be synced.
    told_sync: Option<SyncMode>,
    /// Messages that were refused before they had a queue.
    refused: Vec<Origin>,
}

#[derive(Debug)]
struct ForQueue {
    queue: Handle,
    messages: Vec<Arc<Message>>,
    /// Whose they are, if the queue may have no room for some.
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
    /// What happens with it, or not at all.
    with: Option<Operation>,
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
        self.queues.is_empty() && self.operations.is_empty() && self.refused.is_empty()
    }

    /// Adds a message for these queues. With one that comes from another queue goes what the store is told of
    /// that, `with`, in the same record if the store keeps the message at all.
    pub fn add(&mut self, mut message: Message, queues: &[Handle], origin: Origin, with: Option<Operation>) {
        if is_kept(&message, queues) {
            // It goes to its queues first, and none may take it for stored before all of it is.
            message.stored_by = StoredBy::due();
            let message = Arc::new(message);
            let places = queues.iter().map(|queue| self.place(queue, message.clone(), origin)).collect();
            self.kept.push(Kept { message, places, with });
            return;
        }
        self.operations.extend(with);
        let Some((last, others)) = queues.split_last() else { return };
        let message = Arc::new(message);
        for queue in others {
            self.place(queue, message.clone(), origin);
        }
        self.place(last, message, origin);
    }

    /// The store is told this with the rest.
    pub fn tell(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// The store is told this of a message, which is stored then; and it is synced when `sync` says.
    pub fn tell_of(&mut self, message: Arc<Message>, operation: Operation, sync: SyncMode) {
        self.operations.push(operation);
        self.told.push(message);
        self.told_sync = self.told_sync.into_iter().chain([sync]).reduce(SyncMode::stricter);
    }

    /// This batch is not safe before all that the store was told so far, synced when `sync` says: a message is a
    /// duplicate of one that may still be on its way to the disk.
    pub fn wait(&mut self, sync: SyncMode) {
        // It changes nothing, and has its place in the log.
        self.operations.push(Operation::Mark { queue: QueueId(0), marks: SmallVec::new() });
        self.told_sync = self.told_sync.into_iter().chain([sync]).reduce(SyncMode::stricter);
    }

    /// A message is refused, and goes to no queue.
    pub fn refuse(&mut self, origin: Origin) {
        self.refused.push(origin);
    }

    fn place(&mut self, queue: &Handle, message: Arc<Message>, origin: Origin) -> (u32, u32) {
        // Mostly it is the queue of the message before.
        let at = self.queues.iter().rposition(|q| q.queue == *queue).unwrap_or_else(|| {
            self.queues.push(ForQueue { queue: queue.clone(), messages: Vec::new(), origins: Vec::new() });
            self.queues.len() - 1
        });
        let ForQueue { queue, messages, origins } = &mut self.queues[at];
        if queue.may_refuse() {
            // It may not have refused anything before.
            origins.resize(messages.len(), Origin::default());
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
            let enqueued = batch.queue.enqueue(&mut batch.messages, publisher);
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
        for Kept { message, places: wanted, with } in &mut self.kept {
            let stored = wanted.iter().filter_map(|&(at, n)| {
                let queue = &self.queues[at as usize].queue;
                let place = places[at as usize].as_ref()?.get(n as usize)?;
                let is_kept = queue.declaration().is_kept();
                is_kept.then(|| (queue.line_id(place.level, Stored::Kept), place.seq))
            });
            let destinations: SmallVec<[(QueueId, Seq); 1]> = stored.collect();
            let publish = (!destinations.is_empty())
                .then(|| Operation::Publish(publish_operation(message, destinations)));
            self.operations.extend(match (with.take(), publish) {
                (Some(with), Some(publish)) => Some(Operation::Atomic(vec![with, publish])),
                (with, publish) => with.or(publish),
            });
        }
        let kept = self.queues.iter().filter(|batch| batch.queue.declaration().is_kept());
        let syncs = kept.map(|batch| batch.queue.sync()).chain(self.told_sync.take());
        outcome.sync = syncs.reduce(SyncMode::stricter).unwrap_or_default();
        self.queues.clear();
        let ticket = (!self.operations.is_empty()).then(|| append(self.operations.drain(..), outcome.sync));
        let told = self.told.drain(..);
        told.for_each(|message| message.stored_by.add(ticket.unwrap_or(Ticket(0))));
        for kept in self.kept.drain(..) {
            // Of a message that has missed its queue nobody will ask.
            kept.message.stored_by.add(ticket.unwrap_or(Ticket(0)));
        }
        outcome.refused.sort_unstable();
        outcome.refused.dedup();
        (ticket, outcome)
    }
}

fn is_kept(message: &Message, queues: &[Handle]) -> bool {
    message.persistent && queues.iter().any(|queue| queue.declaration().is_kept())
}

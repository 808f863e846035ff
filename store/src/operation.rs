//! The operations: the only things that change durable state, and the ids they speak of.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

/// The largest encoded record in bytes (1 GiB): offsets inside a segment stay below `u32::MAX`.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 30;

/// A queue's number, given by the broker. Never used again after `QueueDelete`: a record that
/// names an unknown queue is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A message's number within one queue, given by the broker in growing order and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// Numbers that follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first of them.
    pub first: Seq,
    /// The last of them; not below `first`.
    pub last: Seq,
}

/// A set of numbers of one queue, as runs: what is settled together mostly stands together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(SmallVec<[Run; 1]>);

impl Runs {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a number.
    pub fn push(&mut self, seq: Seq) {
        self.push_run(Run { first: seq, last: seq });
    }

    /// Adds a run; it grows the last one if it continues it.
    pub fn push_run(&mut self, run: Run) {
        match self.0.last_mut() {
            Some(last) if last.last.0.checked_add(1) == Some(run.first.0) => last.last = run.last,
            _ => self.0.push(run),
        }
    }

    /// The runs, as they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Run> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Seq> for Runs {
    fn from_iter<I: IntoIterator<Item = Seq>>(seqs: I) -> Runs {
        let mut runs = Runs::default();
        seqs.into_iter().for_each(|seq| runs.push(seq));
        runs
    }
}

/// One message on its way to one or more queues. It is written once, however many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// When the broker took the message, in milliseconds since 1970. Decided by the caller, since
    /// [`Operation`]s must replay to the same state at any time.
    pub timestamp_ms: u64,
    /// When something is to be done with the message, in milliseconds since 1970. The store keeps an index
    /// of these times, see [`crate::Store::due`], and does nothing else with them.
    pub due_at_ms: Option<u64>,
    /// The queues that receive it, each with the message's number there.
    pub destinations: SmallVec<[(QueueId, Seq); 1]>,
    /// Address, properties and body. Opaque to the store; together less than 1 GiB.
    pub parts: Parts,
}

/// The three parts of a message, in the memory of whoever has them.
#[derive(Clone)]
pub enum Parts {
    /// Each by itself.
    Own([Bytes; 3]),
    /// In something that others hold, too: it is cheap to hold, however many parts it has.
    Held(Arc<dyn Held>),
}

/// Something that holds the three parts of a message.
pub trait Held: Send + Sync {
    /// The parts; always the same ones.
    fn parts(&self) -> [&[u8]; 3];
}

impl Parts {
    /// The parts.
    pub fn get(&self) -> [&[u8]; 3] {
        match self {
            Parts::Own(parts) => parts.each_ref().map(|part| &part[..]),
            Parts::Held(held) => held.parts(),
        }
    }
}

impl Default for Parts {
    fn default() -> Parts {
        Parts::Own(Default::default())
    }
}

impl PartialEq for Parts {
    fn eq(&self, other: &Parts) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Parts {}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parts").field(&self.get()).finish()
    }
}

/// A change of durable state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a definition, new or not.
    Define {
        /// The name it is found under; opaque, sorted bytewise, at most 64 KiB.
        key: Vec<u8>,
        /// What is kept; opaque.
        value: Vec<u8>,
    },
    /// Removes a definition; nothing happens when there is none.
    Undefine {
        /// The name given to `Define`.
        key: Vec<u8>,
    },
    /// Makes a queue known. Nothing happens when it is already known.
    QueueCreate {
        /// A number never used before.
        queue: QueueId,
    },
    /// Forgets a queue and all of its messages.
    QueueDelete {
        /// The queue; nothing happens when it is unknown.
        queue: QueueId,
    },
    /// Stores a message.
    Publish(Publish),
    /// Messages that are stored already are stored again, here, for those of the queues that still have
    /// them. The store writes these itself, to free what holds little else.
    Relocate(Publish),
    /// These messages are gone from this queue. It may arrive before their `Publish` when another
    /// session sends it: the message is then dead on arrival.
    Settle {
        /// The queue they leave; other queues keep them.
        queue: QueueId,
        /// The messages, in any order.
        runs: Runs,
    },
    /// Those of these messages that were published before this are gone from this queue.
    Purge {
        /// The queue they leave; other queues keep them.
        queue: QueueId,
        /// The numbers, sorted; those that nobody knows do not matter.
        runs: Runs,
    },
    /// Messages of this queue up to here have been handed to a consumer: they come back marked
    /// redelivered.
    Delivered {
        /// The queue.
        queue: QueueId,
        /// The highest number handed out, itself included.
        through: Seq,
    },
    /// Sets the marks of messages of this queue: a number that the caller keeps beside a message, for as
    /// long as that is live, and gets back with [`crate::Stored::mark`]. Those that are not live do not
    /// matter. When the mark arrives before the `Publish` of the message, because another session sends
    /// that, it is lost: the message begins without one.
    Mark {
        /// The queue.
        queue: QueueId,
        /// The messages, each with its mark; 0 takes the mark away.
        marks: SmallVec<[(Seq, u64); 1]>,
    },
    /// All of these or none of them, even when the machine dies in between. Must not hold another
    /// `Atomic`; less than 1 GiB together.
    Atomic(Vec<Operation>),
}

impl Operation {
    /// About how many bytes this operation holds in memory and will take in the log.
    pub(crate) fn weight(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + match self {
                Operation::Define { key, value } => key.len() + value.len(),
                Operation::Undefine { key } => key.len(),
                Operation::QueueCreate { .. } | Operation::QueueDelete { .. } => 0,
                Operation::Delivered { .. } => 0,
                Operation::Publish(publish) | Operation::Relocate(publish) => {
                    publish.destinations.len() * 16
                        + publish.parts.get().iter().map(|part| part.len()).sum::<usize>()
                }
                Operation::Settle { runs, .. } | Operation::Purge { runs, .. } => runs.iter().len() * 16,
                Operation::Mark { marks, .. } => marks.len() * 16,
                Operation::Atomic(parts) => parts.iter().map(Operation::weight).sum(),
            }
    }

    /// How many messages it stores, counted once for each queue.
    pub(crate) fn messages(&self) -> usize {
        match self {
            Operation::Publish(publish) | Operation::Relocate(publish) => publish.destinations.len(),
            Operation::Atomic(parts) => parts.iter().map(Operation::messages).sum(),
            _ => 0,
        }
    }

    pub(crate) fn holds_nested_atomic(&self) -> bool {
        let Operation::Atomic(parts) = self else { return false };
        parts.iter().any(|part| matches!(part, Operation::Atomic(_)))
    }
}

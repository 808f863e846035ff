//! What is in a data directory: its definitions, and which of its numbered queues stands for what.

use std::collections::BTreeMap;
use std::path::Path;

use store::{Damage, Depth, Inspection, QueueId, RecoveredQueue, Run, Stored, Wanted};

use super::Error;
use crate::queue::{LEVELS_MAX, is_spill};
use crate::vhost::definitions::{Definition, Delays, Queue};

/// So many bytes of messages are read at once.
const PAGE_BYTES: usize = 1 << 20;

/// A directory that was read.
pub struct Contents {
    pub store: Inspection,
    pub definitions: Vec<Definition>,
    /// Definitions that make no sense: the name, and why.
    pub senseless: Vec<(String, String)>,
    /// What the numbers from each of these on stand for.
    owners: BTreeMap<u64, Owner>,
}

enum Owner {
    Queue(Queue),
    Delays(Delays),
    Window(Delays),
}

/// What a queue of the store stands for.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    /// A queue's messages of one priority.
    Queue(&'a Queue, u8),
    /// Messages that an exchange holds back.
    Delays(&'a Delays),
    /// By which id these are taken back.
    Marks,
    /// What an exchange knows again.
    Window(&'a Delays),
    /// What was written for want of memory; the next start forgets it.
    Spilled,
    /// Nothing that is defined.
    Nothing,
}

impl Contents {
    pub fn read(dir: &Path, depth: Depth) -> Result<Contents, Error> {
        let store = Inspection::open(dir, depth)?;
        let (mut definitions, mut senseless, mut owners) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (key, value) in &store.definitions {
            let name = || String::from_utf8_lossy(key).into_owned();
            match Definition::decode(key, value) {
                Ok(definition) if definition.key() == *key => definitions.push(definition),
                Ok(_) => senseless.push((name(), "it is kept under the name of another one".into())),
                Err(reason) => senseless.push((name(), reason)),
            }
        }
        for definition in &definitions {
            let (id, owner) = match definition {
                Definition::Queue(queue) => (queue.id, Owner::Queue(queue.clone())),
                Definition::Delays(delays) => (delays.id, Owner::Delays(delays.clone())),
                Definition::Window(window) => (window.id, Owner::Window(window.clone())),
                _ => continue,
            };
            owners.insert(id, owner);
        }
        Ok(Contents { store, definitions, senseless, owners })
    }

    pub fn owner(&self, queue: QueueId) -> Of<'_> {
        if is_spill(queue) {
            return Of::Spilled;
        }
        let Some((first, owner)) = self.owners.range(..=queue.0).next_back() else { return Of::Nothing };
        match (owner, queue.0 - first) {
            (Owner::Queue(queue), line @ 0..LEVELS_MAX) => Of::Queue(queue, line as u8),
            (Owner::Delays(delays), 0) => Of::Delays(delays),
            (Owner::Delays(_), 1) => Of::Marks,
            (Owner::Window(window), 0) => Of::Window(window),
            _ => Of::Nothing,
        }
    }

    /// Calls `each` with every message of a queue of the store, in order. Returns what cannot be read.
    pub fn messages(
        &mut self,
        queue: &RecoveredQueue,
        mut each: impl FnMut(&Contents, Stored) -> Result<(), Error>,
    ) -> Result<Vec<Damage>, Error> {
        let mut lost = Vec::new();
        let mut run = Run { first: queue.first, last: queue.next_seq };
        while queue.live > 0 && run.first <= run.last {
            let page = self.store.read(Wanted { queue: queue.queue, run, bytes_max: PAGE_BYTES });
            for message in page.messages {
                each(self, message)?;
            }
            lost.extend(page.lost);
            run.first.0 = page.through.0.saturating_add(1);
        }
        Ok(lost)
    }
}

impl std::fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Of::Queue(queue, _) => write!(f, "queue '{}' in vhost '{}'", queue.name, queue.vhost),
            Of::Delays(delays) => {
                write!(f, "what exchange '{}' in vhost '{}' holds back", delays.exchange, delays.vhost)
            }
            Of::Marks => f.write_str("ids of delayed messages"),
            Of::Window(window) => {
                write!(f, "what exchange '{}' in vhost '{}' knows again", window.exchange, window.vhost)
            }
            Of::Spilled => f.write_str("what was written for want of memory"),
            Of::Nothing => f.write_str("a queue that no definition names"),
        }
    }
}

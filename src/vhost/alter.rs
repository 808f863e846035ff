//! Changing a queue in place: its arguments, and whether it delivers.

use amqp::{Table, Value};
use store::Operation;
use tracing::info;

use super::Vhost;
use crate::delivery::Stored;
use crate::error::Error;
use crate::queue::{Arguments, Flags, Handle};

/// What cannot be changed: messages that are there already have been treated by it.
const FIXED: &[&str] = &["x-message-deduplication"];

impl Vhost {
    /// Changes arguments of a queue; `Void` takes one away. They hold at once, for the messages that are there as
    /// well. Programs may declare the queue as it is now, or as it was made.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: why the queue cannot have them. Nothing has changed then.
    pub fn alter_queue(&self, name: &str, changes: &Table) -> Result<(), Error> {
        let topology = self.write();
        let queue = topology.queue(name, &self.name)?.clone();
        let before = queue.declared();
        let stays = before.table.iter().filter(|(key, _)| changes.get(key).is_none());
        let given = changes.iter().filter(|(_, value)| **value != Value::Void);
        let table: Table = stays.chain(given).map(|(key, value)| (key.to_string(), value.clone())).collect();
        let declaration = queue.declaration();
        let flags = Flags {
            durable: declaration.durable,
            exclusive: declaration.owner.is_some(),
            auto_delete: declaration.auto_delete,
        };
        let arguments = Arguments::parse(&table, flags, name, &self.name)?;
        let fixed = |key: &str, why: &str| {
            let text = format!(
                "argument '{key}' of queue '{name}' in vhost '{}' {why}; make another queue and move the messages there",
                self.name
            );
            Err(Error::Invalid(text))
        };
        if let Some(key) = FIXED.iter().find(|key| table.get(key) != before.table.get(key)) {
            return fixed(key, "cannot be changed");
        }
        if arguments.levels() < before.arguments.levels() {
            return fixed("x-max-priority", "can only be raised");
        }
        // Before any message can stand in them.
        let lines = before.arguments.levels()..arguments.levels();
        let stored = [Stored::Kept, Stored::Spilled];
        let stored = stored.into_iter().filter(|stored| *stored == Stored::Spilled || declaration.is_kept());
        let ids = stored.flat_map(|stored| lines.clone().map(move |level| (level as u8, stored)));
        let create =
            ids.map(|(level, stored)| Operation::QueueCreate { queue: queue.line_id(level, stored) });
        self.tell(create.collect());
        queue.alter(table, arguments);
        topology.apply_to_queue(&queue);
        self.define_again(&queue);
        info!(vhost = %self.name, queue = name, "the queue's arguments have been changed");
        Ok(())
    }

    /// Has a queue deliver nothing before this time, in milliseconds since 1970; `u64::MAX` for until it is told
    /// otherwise, 0 to go on at once. A queue that is kept stays paused over a restart.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn pause_queue(&self, name: &str, until_ms: u64) -> Result<(), Error> {
        let topology = self.write();
        let queue = topology.queue(name, &self.name)?.clone();
        queue.pause(until_ms);
        self.define_again(&queue);
        info!(vhost = %self.name, queue = name, until_ms, "the queue is paused, or goes on");
        Ok(())
    }

    /// The topology is locked, so that the log has changes in their order.
    fn define_again(&self, queue: &Handle) {
        if queue.declaration().is_kept() {
            self.tell(vec![self.queue_definition(queue).define()]);
        }
    }
}

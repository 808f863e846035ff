//! The queues: which messages each of them holds, and how many live ones each segment has.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::block::{Block, Parts, Summary, Weights};
use crate::due::{Due, DueFigures, DueWanted, Entry, Job, Listing, Recalled, Span};
use crate::keys::{self, Key, QueueRow};
use crate::log::Position;
use crate::operation::{QueueId, Run, Seq};
use crate::pages::Survey;
use crate::slots::SLOTS;

/// An early settlement whose publish has not come within this many checkpoints was for a message
/// that is never stored; without an end they would pile up.
const EARLY_ROUNDS: u64 = 64;

/// One changed row of the state database; `None` removes it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Looks up the place of each published message of a cold block, in order.
pub(crate) type Recall = Arc<dyn Fn(QueueId, u64, &Summary) -> Vec<Position> + Send + Sync>;

/// What the next checkpoint writes.
pub(crate) struct Changes {
    /// In this order.
    pub(crate) rows: Vec<Change>,
    /// Cold blocks: they have to be weighed first, which takes a look at the state database.
    pub(crate) cold: Vec<(QueueId, u64, Summary)>,
    /// Due times: they have to be sorted first.
    pub(crate) due: Vec<Job>,
}

/// The live messages of one block, in order.
pub(crate) enum Seen {
    /// And where they lie.
    Warm(Vec<(Seq, Position)>),
    /// Where they lie has to be looked up: each has its place among all published ones.
    Cold { index: u64, summary: Box<Summary>, live: Vec<(Seq, usize)> },
}

#[derive(Default)]
pub(crate) struct Queues {
    queues: HashMap<QueueId, Queue>,
    /// Of those queues that have messages with a due time.
    dues: BTreeMap<QueueId, Due>,
    /// Pages of due times have been recalled since the last checkpoint.
    has_recalled: bool,
    /// The newest time at which a message was taken.
    now_ms: u64,
    /// Live messages per segment, once for each queue that holds them.
    live: BTreeMap<u64, u64>,
    /// How many bytes of which segments live messages take, as of the last checkpoint.
    weights: BTreeMap<u64, u64>,
    /// The past is not fully known: a message that moves may not have been seen before.
    is_rebuilding: bool,
    dirty: Dirty,
    /// Blocks whose places the last checkpoint has written: they cool down at the next one, when those
    /// are sure to be in the state database.
    cooling: Vec<(QueueId, u64)>,
    /// How cold blocks get their places back.
    recall: Option<Recall>,
    /// Blocks with settlements whose publish has not come.
    early: Vec<(QueueId, u64)>,
    /// Grows by one with each checkpoint.
    round: u64,
    stored_queues: u64,
    stored_blocks: u64,
}

/// What the next checkpoint has to write. Each name is in here at most once.
#[derive(Default)]
struct Dirty {
    blocks: Vec<(QueueId, u64)>,
    queues: Vec<QueueId>,
    gone: Vec<Vec<u8>>,
    /// A queue came or went.
    membership: bool,
}

#[derive(Default)]
pub(crate) struct Queue {
    /// One more than the highest number seen in any operation.
    pub(crate) next_seq: u64,
    /// One more than the highest number handed to a consumer.
    pub(crate) delivered_below: u64,
    /// By number / 1024. A block that is not here is wholly settled or was never used.
    blocks: BTreeMap<u64, Block>,
    is_dirty: bool,
    is_stored: bool,
}

pub(crate) fn place(seq: Seq) -> (u64, u16) {
    (seq.0 / SLOTS, (seq.0 % SLOTS) as u16)
}

pub(crate) fn seq_of(index: u64, slot: u16) -> Seq {
    Seq(index * SLOTS + u64::from(slot))
}

impl Queues {
    /// Says how cold blocks get their places back. Until then none may be cold.
    pub(crate) fn set_recall(&mut self, recall: Recall) {
        self.recall = Some(recall);
    }

    pub(crate) fn create(&mut self, id: QueueId) {
        let queue = self.queues.entry(id).or_insert_with(|| {
            self.dirty.membership = true;
            Queue::default()
        });
        queue.mark_dirty(id, &mut self.dirty);
    }

    pub(crate) fn delete(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        self.dirty.membership = true;
        if queue.is_stored {
            self.dirty.gone.push(Key::Queue(id).encode());
            self.stored_queues -= 1;
        }
        if let Some(due) = self.dues.remove(&id) {
            due.numbers().for_each(|number| self.dirty.forget_page(id, number));
        }
        for (index, block) in &queue.blocks {
            block.live_segments(|segment, count| release(&mut self.live, segment, count));
            self.stored_blocks -= u64::from(block.stored.any());
            lift(&mut self.weights, block.weights());
            self.dirty.forget(id, *index, block);
        }
    }

    pub(crate) fn publish(&mut self, id: QueueId, seq: Seq, position: Position, due_at_ms: Option<u64>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.saw(id, seq, &mut self.dirty);
        let (index, slot) = place(seq);
        let is_new_block = !queue.blocks.contains_key(&index);
        let block = queue.blocks.entry(index).or_default();
        if block.is_published(slot) {
            return;
        }
        // It comes late, or a start applies the log's tail.
        warm(block, id, index, self.recall.as_ref());
        let mut is_live = false;
        self.dirty.touch(id, index, block, self.round, |block| is_live = block.publish(slot, position));
        let is_spent = block.is_spent();
        if is_live {
            *self.live.entry(position.segment).or_default() += 1;
        }
        if let Some(at_ms) = due_at_ms.filter(|_| is_live) {
            self.dues.entry(id).or_default().push((at_ms, seq), liveness(&queue.blocks));
        }
        let passed = match is_new_block {
            true => queue.blocks.range(..index).next_back().map(|(before, _)| *before),
            false => is_spent.then_some(index),
        };
        if let Some(passed) = passed {
            self.retire(id, passed);
        }
    }

    /// A message lies elsewhere from now on, if it is still there.
    pub(crate) fn relocate(&mut self, id: QueueId, seq: Seq, position: Position, due_at_ms: Option<u64>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let (index, slot) = place(seq);
        let block = queue.blocks.get_mut(&index).filter(|block| block.is_published(slot));
        let Some(block) = block else {
            if self.is_rebuilding {
                self.publish(id, seq, position, due_at_ms);
            }
            return;
        };
        if !block.is_live(slot) {
            return;
        }
        warm(block, id, index, self.recall.as_ref());
        self.dirty.touch(id, index, block, self.round, |block| {
            if let Some(segment) = block.relocate(slot, position) {
                release(&mut self.live, segment, 1);
                *self.live.entry(position.segment).or_default() += 1;
            }
        });
    }

    pub(crate) fn settle(&mut self, id: QueueId, run: Run) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.saw(id, run.last, &mut self.dirty);
        for (index, first, last) in pieces(run) {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            let block = queue.blocks.entry(index).or_default();
            let was_early = block.early();
            let live = &mut self.live;
            self.dirty.touch(id, index, block, self.round, |block| {
                block.settle(first, last, |segment| release(live, segment, 1));
            });
            if was_early == 0 && block.early() > 0 {
                self.early.push((id, index));
            }
            if block.is_spent() {
                self.retire(id, index);
            }
        }
    }

    /// Settles what is there of these numbers.
    pub(crate) fn purge(&mut self, id: QueueId, run: Run) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let there = queue.blocks.range(place(run.first).0..=place(run.last).0);
        let indices: Vec<u64> = there.map(|(index, _)| *index).collect();
        for index in indices {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            let Some(block) = queue.blocks.get_mut(&index) else { continue };
            let (first, last) = within(run, index);
            let live = &mut self.live;
            self.dirty.touch(id, index, block, self.round, |block| {
                block.purge(first, last, |segment| release(live, segment, 1));
            });
            if block.is_spent() {
                self.retire(id, index);
            }
        }
    }

    pub(crate) fn delivered(&mut self, id: QueueId, through: Seq) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.saw(id, through, &mut self.dirty);
        let below = through.0.saturating_add(1);
        if queue.delivered_below < below {
            queue.delivered_below = below;
            queue.mark_dirty(id, &mut self.dirty);
        }
    }

    /// Sets the mark of a message, if it is live.
    pub(crate) fn mark(&mut self, id: QueueId, seq: Seq, mark: u64) {
        let (index, slot) = place(seq);
        let block = self.queues.get_mut(&id).and_then(|queue| queue.blocks.get_mut(&index));
        if let Some(block) = block {
            self.dirty.touch(id, index, block, self.round, |block| block.mark(slot, mark));
        }
    }

    /// The mark of a message, 0 if it has none.
    pub(crate) fn mark_of(&self, id: QueueId, seq: Seq) -> u64 {
        let (index, slot) = place(seq);
        let block = self.queues.get(&id).and_then(|queue| queue.blocks.get(&index));
        block.map_or(0, |block| block.mark_of(slot))
    }

    /// Drops a block that no longer matters, once the queue has moved on to a later one: the last
    /// block of a short queue is not made anew for each message.
    fn retire(&mut self, id: QueueId, index: u64) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let tail = queue.next_seq.saturating_sub(1) / SLOTS;
        if index < tail && queue.blocks.get(&index).is_some_and(Block::is_spent) {
            self.remove_block(id, index);
        }
    }

    fn remove_block(&mut self, id: QueueId, index: u64) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if let Some(block) = queue.blocks.remove(&index) {
            self.stored_blocks -= u64::from(block.stored.any());
            lift(&mut self.weights, block.weights());
            self.dirty.forget(id, index, &block);
        }
    }

    /// Live messages that lie in a segment.
    pub(crate) fn live_in(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// The segments with live messages, each with their number.
    pub(crate) fn live_segments(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.live.iter().map(|(segment, count)| (*segment, *count))
    }

    /// How many bytes live messages take in each segment, as of the last checkpoint.
    pub(crate) fn weights(&self) -> &BTreeMap<u64, u64> {
        &self.weights
    }

    /// How many messages of a queue are live.
    pub(crate) fn live_of(&self, id: QueueId) -> u64 {
        self.queues.get(&id).map_or(0, Queue::live)
    }

    /// Whether a message is live and lies in this segment.
    pub(crate) fn is_live_in(&self, id: QueueId, seq: Seq, segment: u64) -> bool {
        let (index, slot) = place(seq);
        let block = self.queues.get(&id).and_then(|queue| queue.blocks.get(&index));
        block.is_some_and(|block| block.is_live(slot) && block.segment_of(slot) == segment)
    }

    /// Live messages of the first block that has any in this run.
    pub(crate) fn look(&self, id: QueueId, run: Run) -> Option<Seen> {
        let queue = self.queues.get(&id)?;
        let blocks = queue.blocks.range(place(run.first).0..=place(run.last).0);
        for (index, block) in blocks.filter(|(_, block)| block.live() > 0) {
            let (first, last) = within(run, *index);
            let live = block.live_slots(first).take_while(|(slot, _)| *slot <= last);
            let live: Vec<(Seq, usize)> = live.map(|(slot, at)| (seq_of(*index, slot), at)).collect();
            if live.is_empty() {
                continue;
            }
            return Some(match block.positions() {
                Some(positions) => Seen::Warm(live.iter().map(|(seq, at)| (*seq, positions[*at])).collect()),
                None => Seen::Cold { index: *index, summary: Box::new(block.summary()), live },
            });
        }
        None
    }

    /// Takes note of the time at which a message was taken.
    pub(crate) fn saw_time(&mut self, at_ms: u64) {
        self.now_ms = self.now_ms.max(at_ms);
    }

    /// What may hold due messages of a queue.
    pub(crate) fn due(&self, wanted: &DueWanted) -> Listing {
        self.dues.get(&wanted.queue).map(|due| due.listing(wanted)).unwrap_or_default()
    }

    /// No live message of the queue is due before this.
    pub(crate) fn first_due_ms(&self, id: QueueId) -> Option<u64> {
        let queue = self.queues.get(&id).filter(|queue| queue.has_live())?;
        self.dues.get(&id)?.first_ms(liveness(&queue.blocks))
    }

    pub(crate) fn is_live(&self, id: QueueId, seq: Seq) -> bool {
        self.queues.get(&id).is_some_and(|queue| liveness(&queue.blocks)(seq))
    }

    /// Adds those whose messages are live.
    pub(crate) fn add_live(&self, id: QueueId, entries: &[Entry], found: &mut Vec<Entry>) {
        let Some(queue) = self.queues.get(&id) else { return };
        let mut is_live = liveness(&queue.blocks);
        found.extend(entries.iter().copied().filter(|(_, seq)| is_live(*seq)));
    }

    pub(crate) fn has_page(&self, id: QueueId, number: u64) -> bool {
        self.dues.get(&id).is_some_and(|due| due.has_page(number))
    }

    /// The queues that have due messages.
    pub(crate) fn due_queues(&self) -> Vec<QueueId> {
        self.dues.keys().copied().collect()
    }

    /// What has to be known to decide which pages of a queue are written anew.
    pub(crate) fn survey(&self, id: QueueId) -> Option<Survey> {
        let pages = self.dues.get(&id)?.pages().collect();
        Some(Survey { pages, live: self.queues.get(&id)?.live(), now_ms: self.now_ms })
    }

    /// These pages have been read, and will be written anew.
    pub(crate) fn recall(&mut self, id: QueueId, recalled: Recalled) {
        if let Some(due) = self.dues.get_mut(&id) {
            due.recall(recalled);
            self.has_recalled = true;
        }
    }

    /// The due times of a queue that a checkpoint has taken are in the state database, in these pages.
    pub(crate) fn due_written(&mut self, id: QueueId, pages: Vec<(u64, Span)>) {
        if let Some(due) = self.dues.get_mut(&id) {
            due.written(pages);
        }
    }

    /// How many due times are where, of all queues.
    pub(crate) fn due_figures(&self) -> DueFigures {
        let mut sum = DueFigures::default();
        for figures in self.dues.values().map(Due::figures) {
            sum.in_memory += figures.in_memory;
            sum.in_pages += figures.in_pages;
            sum.pages += figures.pages;
        }
        sum
    }

    /// All queues, sorted by id.
    pub(crate) fn sorted(&self) -> Vec<(QueueId, &Queue)> {
        let mut queues: Vec<_> = self.queues.iter().map(|(id, queue)| (*id, queue)).collect();
        queues.sort_unstable_by_key(|(id, _)| *id);
        queues
    }

    pub(crate) fn membership_changed(&self) -> bool {
        self.dirty.membership
    }

    pub(crate) fn is_dirty(&self) -> bool {
        let dirty = &self.dirty;
        self.has_recalled || !(dirty.blocks.is_empty() && dirty.queues.is_empty() && dirty.gone.is_empty())
    }

    /// No session of before is left, so a publish that has not come never will.
    pub(crate) fn forget_early(&mut self) {
        for (id, index) in std::mem::take(&mut self.early) {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let Some(block) = queue.blocks.get_mut(&index) else { continue };
            if block.early() > 0 {
                self.dirty.touch(id, index, block, self.round, Block::forget_early);
            }
        }
    }

    /// Begins or ends to take messages that move for new ones.
    pub(crate) fn set_rebuilding(&mut self, is_rebuilding: bool) {
        self.is_rebuilding = is_rebuilding;
    }

    /// Leaves a gap that no earlier number can reach, for a queue whose past is not fully known.
    pub(crate) fn skip_seqs(&mut self, count: u64) {
        for (id, queue) in &mut self.queues {
            queue.next_seq = queue.next_seq.saturating_add(count);
            queue.mark_dirty(*id, &mut self.dirty);
        }
    }

    /// Marks all that is there as handed out before.
    pub(crate) fn all_delivered(&mut self) {
        for (id, queue) in &mut self.queues {
            queue.delivered_below = queue.next_seq;
            queue.mark_dirty(*id, &mut self.dirty);
        }
    }

    /// What changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.round += 1;
        self.expire_early();
        self.cool_down();
        let dirty_blocks = std::mem::take(&mut self.dirty.blocks);
        // Removals first: a block may have been removed and begun anew.
        let mut spent = Vec::new();
        let mut changes = Vec::new();
        let mut cold = Vec::new();
        for (id, index) in dirty_blocks {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let Some(block) = queue.blocks.get_mut(&index) else { continue };
            if block.is_spent() {
                spent.push((id, index));
                continue;
            }
            self.stored_blocks += u64::from(!block.stored.any());
            let weights = block.weigh();
            if let Some(weights) = &weights {
                weigh_anew(&mut self.weights, block, weights.clone());
            }
            let summary = block.summary();
            if block.dirty.positions
                && let Some(positions) = block.positions()
            {
                let key = Key::Positions(id, index).encode();
                changes.push((key, Some(keys::encode_positions(positions, &summary.segments))));
                self.cooling.push((id, index));
            }
            match weights {
                Some(_) => {
                    changes.push((Key::Summary(id, index).encode(), Some(keys::encode_summary(&summary))));
                }
                None => cold.push((id, index, summary)),
            }
            block.stored = Parts { positions: true, summary: true };
            block.dirty = Parts::default();
        }
        for (id, index) in spent {
            self.remove_block(id, index);
        }
        for id in std::mem::take(&mut self.dirty.queues) {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.is_dirty = false;
            self.stored_queues += u64::from(!queue.is_stored);
            queue.is_stored = true;
            let row = QueueRow { next_seq: queue.next_seq, delivered_below: queue.delivered_below };
            changes.push((Key::Queue(id).encode(), Some(row.encode())));
        }
        let due = self.take_due();
        let gone = std::mem::take(&mut self.dirty.gone).into_iter().map(|key| (key, None));
        self.dirty.membership = false;
        Changes { rows: gone.chain(changes).collect(), cold, due }
    }

    fn take_due(&mut self) -> Vec<Job> {
        self.has_recalled = false;
        let mut jobs = Vec::new();
        for (id, due) in &mut self.dues {
            let Some(queue) = self.queues.get(id) else { continue };
            let (job, gone) = due.take(*id, self.now_ms, queue.has_live(), liveness(&queue.blocks));
            gone.into_iter().for_each(|number| self.dirty.forget_page(*id, number));
            jobs.extend(job);
        }
        self.dues.retain(|_, due| !due.is_empty());
        jobs
    }

    /// What a checkpoint has found out about cold blocks. Those that have changed since are weighed
    /// again by the next one.
    pub(crate) fn set_weights(&mut self, weighed: Vec<(QueueId, u64, Weights)>) {
        for (id, index, weights) in weighed {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let Some(block) = queue.blocks.get_mut(&index) else { continue };
            if block.positions().is_none() {
                weigh_anew(&mut self.weights, block, weights);
            }
        }
    }

    /// What the checkpoint before has written is in the state database by now.
    fn cool_down(&mut self) {
        for (id, index) in std::mem::take(&mut self.cooling) {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let tail = queue.next_seq.saturating_sub(1) / SLOTS;
            let Some(block) = queue.blocks.get_mut(&index) else { continue };
            match block.dirty.positions {
                // The next checkpoint writes them again.
                true => {}
                false if index < tail => block.cool(),
                false => self.cooling.push((id, index)),
            }
        }
    }

    fn expire_early(&mut self) {
        let mut early = std::mem::take(&mut self.early);
        early.retain(|(id, index)| {
            let Some(queue) = self.queues.get_mut(id) else { return false };
            let Some(block) = queue.blocks.get_mut(index) else { return false };
            if block.early() == 0 {
                return false;
            }
            if block.touched + EARLY_ROUNDS > self.round {
                return true;
            }
            self.dirty.touch(*id, *index, block, self.round, Block::forget_early);
            false
        });
        self.early = early;
    }

    /// Rows the state database holds now: queues, blocks, and pages of due times.
    pub(crate) fn stored(&self) -> (u64, u64, u64) {
        (self.stored_queues, self.stored_blocks, self.dues.values().map(Due::stored).sum())
    }

    /// Puts back what a checkpoint has written.
    pub(crate) fn restore_queue(&mut self, id: QueueId, row: QueueRow) {
        let queue = self.queues.entry(id).or_default();
        queue.next_seq = row.next_seq;
        queue.delivered_below = row.delivered_below;
        queue.is_stored = true;
        self.stored_queues += 1;
    }

    /// Puts back what a checkpoint has written; its queue must be there. `false` when it is not.
    pub(crate) fn restore_block(&mut self, id: QueueId, index: u64, summary: Summary) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        let block = Block::restore(summary);
        let live = &mut self.live;
        block.live_segments(|segment, count| *live.entry(segment).or_default() += count);
        for (segment, bytes) in block.weights() {
            *self.weights.entry(*segment).or_default() += bytes;
        }
        if block.early() > 0 {
            self.early.push((id, index));
        }
        queue.blocks.insert(index, block);
        self.stored_blocks += 1;
        true
    }

    /// Puts back a page of due times; its queue must be there. `false` when it is not.
    pub(crate) fn restore_page(&mut self, id: QueueId, number: u64, span: Span) -> bool {
        if !self.queues.contains_key(&id) {
            return false;
        }
        self.dues.entry(id).or_default().restore(number, span);
        true
    }

    /// Takes over the due times that stood in the summary of a block, by slot. The next checkpoint writes
    /// them into pages, and the block without them.
    pub(crate) fn restore_due(&mut self, id: QueueId, index: u64, slots: &[(u16, u64)]) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let Some(block) = queue.blocks.get_mut(&index) else { return };
        self.dirty.touch(id, index, block, self.round, |block| block.dirty.summary = true);
        let due = self.dues.entry(id).or_default();
        for (slot, at_ms) in slots {
            due.push((*at_ms, seq_of(index, *slot)), liveness(&queue.blocks));
        }
    }

    /// Puts back what the disaster copy says.
    pub(crate) fn restore_from_backup(&mut self, id: QueueId, next_seq: u64) {
        self.create(id);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.next_seq = next_seq;
        }
    }
}

impl Queue {
    /// How many messages are live.
    pub(crate) fn live(&self) -> u64 {
        self.blocks.values().map(|block| u64::from(block.live())).sum()
    }

    /// The first live message.
    pub(crate) fn first_live(&self) -> Option<Seq> {
        let (index, block) = self.blocks.iter().find(|(_, block)| block.live() > 0)?;
        block.live_slots(0).next().map(|(slot, _)| seq_of(*index, slot))
    }

    fn has_live(&self) -> bool {
        self.blocks.values().any(|block| block.live() > 0)
    }

    fn saw(&mut self, id: QueueId, seq: Seq, dirty: &mut Dirty) {
        if seq.0 >= self.next_seq {
            self.next_seq = seq.0.saturating_add(1);
            self.mark_dirty(id, dirty);
        }
    }

    fn mark_dirty(&mut self, id: QueueId, dirty: &mut Dirty) {
        if !self.is_dirty {
            self.is_dirty = true;
            dirty.queues.push(id);
        }
    }
}

impl Dirty {
    /// Changes a block and notes it for the next checkpoint if it was clean.
    fn touch(
        &mut self,
        id: QueueId,
        index: u64,
        block: &mut Block,
        round: u64,
        change: impl FnOnce(&mut Block),
    ) {
        let was_dirty = block.dirty.any();
        change(block);
        block.touched = round;
        if !was_dirty && block.dirty.any() {
            self.blocks.push((id, index));
        }
    }

    fn forget_page(&mut self, id: QueueId, number: u64) {
        self.gone.push(Key::DueSpan(id, number).encode());
        self.gone.push(Key::DueEntries(id, number).encode());
    }

    fn forget(&mut self, id: QueueId, index: u64, block: &Block) {
        if block.stored.positions {
            self.gone.push(Key::Positions(id, index).encode());
        }
        if block.stored.summary {
            self.gone.push(Key::Summary(id, index).encode());
        }
    }
}

/// The part of a run that lies in a block.
fn within(run: Run, index: u64) -> (u16, u16) {
    let (start, end) = (index * SLOTS, index * SLOTS + (SLOTS - 1));
    let slot = |seq: u64| (seq.clamp(start, end) - start) as u16;
    (slot(run.first.0), slot(run.last.0))
}

/// A run, cut at the ends of blocks.
fn pieces(run: Run) -> impl Iterator<Item = (u64, u16, u16)> {
    (place(run.first).0..=place(run.last).0).map(move |index| {
        let (first, last) = within(run, index);
        (index, first, last)
    })
}

/// Tells which messages are live. Those of one block are best asked for together.
fn liveness(blocks: &BTreeMap<u64, Block>) -> impl FnMut(Seq) -> bool + '_ {
    let mut last: Option<(u64, Option<&Block>)> = None;
    move |seq| {
        let (index, slot) = place(seq);
        let block = match last {
            Some((of, block)) if of == index => block,
            _ => blocks.get(&index),
        };
        last = Some((index, block));
        block.is_some_and(|block| block.is_live(slot))
    }
}

/// Gets the places of a block back if it has given them up.
fn warm(block: &mut Block, id: QueueId, index: u64, recall: Option<&Recall>) {
    if block.positions().is_none()
        && let Some(recall) = recall
    {
        block.warm(recall(id, index, &block.summary()));
    }
}

fn weigh_anew(total: &mut BTreeMap<u64, u64>, block: &mut Block, weights: Weights) {
    lift(total, block.weights());
    for (segment, bytes) in &weights {
        *total.entry(*segment).or_default() += bytes;
    }
    block.set_weights(weights);
}

/// Takes the weight of a block off the total.
fn lift(total: &mut BTreeMap<u64, u64>, weights: &Weights) {
    for (segment, bytes) in weights {
        if let Some(sum) = total.get_mut(segment) {
            *sum -= bytes;
            if *sum == 0 {
                total.remove(segment);
            }
        }
    }
}

fn release(live: &mut BTreeMap<u64, u64>, segment: u64, count: u64) {
    if let Some(left) = live.get_mut(&segment) {
        *left -= count;
        if *left == 0 {
            live.remove(&segment);
        }
    }
}

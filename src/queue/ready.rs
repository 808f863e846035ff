//! The messages of a queue that wait for a consumer, in order, and which of them are due to expire.
//!
//! A short queue is all in memory. Of a long one, only both ends are; what is between them is in the
//! store alone and is brought back a page at a time:
//!
//! ```text
//!            returned (in memory, at their old places)
//!               │
//!   pop <── front │ away: a run of numbers, in the store │ back <── insert
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeBounds;
use std::sync::Arc;

use store::{Run, Runs, Seq, Ticket};

use super::due::{Due, Time};
use crate::delivery::{Entry, Stored};
use crate::message::Message;

/// What an entry takes beside its message, in octets, about.
const ENTRY_BYTES: usize = 200;

/// Ready messages. New ones come in at the back; returned ones go back to their old place.
///
/// Nearly all messages only ever see the line: in at the back, out at the front. What comes out of turn
/// (a requeue, a commit that waited for its sync) stands in `returned` until the line gets there.
#[derive(Debug, Default)]
pub struct Ready {
    front: Line,
    away: Option<Away>,
    /// Empty unless something is away.
    back: Line,
    returned: BTreeMap<Seq, Entry>,
    returned_bytes: usize,
    /// When messages with a time to live of their own are due, wherever they are.
    due: Due,
    /// The highest number that has come. The line only takes higher ones, so it is in order.
    newest: Seq,
    /// Numbers whose messages are still to come, though higher ones may be there.
    expected: BTreeSet<Seq>,
    /// While nothing is away: the first of some messages that were spilled, which will be.
    spilled: Option<Seq>,
    /// Numbers behind the first of the line whose messages did not stand in it. They, and those that
    /// are expected, are not the store's to bring back with the others.
    apart: BTreeSet<Seq>,
    /// Octets of the bodies of returned messages.
    returned_body_bytes: u64,
    /// It is not known how large the messages are that are away.
    is_uncounted: bool,
}

/// Messages that are in the store and not in memory.
#[derive(Debug)]
struct Away {
    run: Run,
    count: u64,
    /// Octets of their bodies; of those from before a start, none until they have been counted.
    body_bytes: u64,
    /// Messages that were taken from here, and whose bodies count until they have been read.
    unread: BTreeSet<Seq>,
}

impl Ready {
    /// How many messages are ready.
    pub fn len(&self) -> usize {
        let away = self.away.as_ref().map_or(0, |away| away.count as usize);
        self.front.len() + away + self.back.len() + self.returned.len()
    }

    /// How many of them are away.
    pub fn away_count(&self) -> usize {
        self.away.as_ref().map_or(0, |away| away.count as usize)
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is in memory takes so many octets, about.
    pub fn bytes(&self) -> usize {
        self.front.bytes + self.back.bytes + self.returned_bytes
    }

    /// Octets of all their bodies, so far as they are known; see [`Ready::is_uncounted`].
    pub fn body_bytes(&self) -> u64 {
        let away = self.away.as_ref().map_or(0, |away| away.body_bytes);
        self.front.body_bytes + away + self.back.body_bytes + self.returned_body_bytes
    }

    /// Whether some messages are away whose bodies have not been counted.
    pub fn is_uncounted(&self) -> bool {
        self.is_uncounted && self.away.is_some()
    }

    /// The bodies of all messages that are away have been counted.
    pub fn counted(&mut self, body_bytes: u64) {
        self.is_uncounted = false;
        if let Some(away) = &mut self.away {
            away.body_bytes = body_bytes;
        }
    }

    /// What is in memory and could be away, in octets, about.
    pub fn stored_bytes(&self) -> usize {
        self.front.stored_bytes + self.back.stored_bytes
    }

    /// Adds a new message, or puts one back at its place.
    pub fn insert(&mut self, entry: Entry) {
        self.due.insert(&entry);
        self.expected.remove(&entry.seq);
        if entry.seq <= self.newest {
            self.stand_apart(entry);
            return;
        }
        self.newest = entry.seq;
        if self.away.is_some() { self.back.push(entry) } else { self.front.push(entry) }
    }

    /// A message of this number will come, perhaps later than higher ones.
    pub fn expect(&mut self, seq: Seq) {
        self.expected.insert(seq);
    }

    /// Takes the first message. `None` if there is none, or it is away.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = match self.first_returned() {
            Some(first) => self.take_returned(first)?,
            None => self.front.pop()?,
        };
        self.due.remove(&entry);
        Some(entry)
    }

    fn take_returned(&mut self, seq: Seq) -> Option<Entry> {
        let entry = self.returned.remove(&seq)?;
        self.returned_bytes -= bytes(&entry);
        self.returned_body_bytes -= body_bytes(&entry);
        Some(entry)
    }

    fn put_returned(&mut self, entry: Entry) {
        self.returned_bytes += bytes(&entry);
        self.returned_body_bytes += body_bytes(&entry);
        self.returned.insert(entry.seq, entry);
    }

    /// Whether [`Ready::pop`] would take one.
    pub fn has_next(&self) -> bool {
        self.front.len() > 0 || self.first_returned().is_some()
    }

    /// When the message that [`Ready::pop`] would take expires; `u64::MAX` for never.
    pub fn next_expires_at_ms(&self) -> Option<u64> {
        self.first().map(|entry| entry.expires_at_ms)
    }

    /// Messages live no longer than this from now on, in milliseconds since they were taken, or than they say
    /// themselves.
    pub fn set_ttl(&mut self, ttl_ms: Option<u64>) {
        let here = self.returned.values_mut().chain(self.front.entries_mut()).chain(self.back.entries_mut());
        for entry in here {
            entry.expires_at_ms = entry.message.expires_at_ms_within(ttl_ms);
        }
    }

    /// The first of the returned messages, if it is before all others.
    fn first_returned(&self) -> Option<Seq> {
        if self.returned.is_empty() {
            return None;
        }
        let first = self.returned.keys().next().copied()?;
        let away = self.away.as_ref().map(|away| away.run.first);
        self.front.first().map(|entry| entry.seq).or(away).is_none_or(|line| first < line).then_some(first)
    }

    /// The message that [`Ready::pop`] would take.
    pub fn first(&self) -> Option<&Entry> {
        self.first_returned().and_then(|first| self.returned.get(&first)).or_else(|| self.front.first())
    }

    /// Takes everything: how many messages, the numbers of those that the store knows and that were in
    /// memory, and the runs of those that were away.
    pub fn drain(&mut self) -> (usize, Vec<(Seq, Stored)>, Runs) {
        let all = std::mem::take(self);
        let n = all.len();
        let here = all.returned.values().chain(all.front.entries()).chain(all.back.entries());
        let stored = here.map(|entry| (entry.seq, entry.stored)).filter(|(_, stored)| *stored != Stored::No);
        let stored = stored.collect();
        let elsewhere: BTreeSet<Seq> = all.apart.union(&all.expected).copied().collect();
        let runs = all.away.map(|away| without(away.run, &elsewhere)).unwrap_or_default();
        (self.newest, self.expected, self.due) = (all.newest, all.expected, all.due);
        self.due.clear();
        (n, stored, runs)
    }

    /// When the next message is due to expire, so far as that is known.
    pub fn next_due(&self) -> Option<u64> {
        [self.due.first_ms(), self.first_due_ms()].into_iter().flatten().min()
    }

    /// Takes the message that is due first, by `now_ms`: its number, and itself unless it is away.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<(Seq, Option<Entry>)> {
        loop {
            // Those that have only the queue's time to live are due in their order.
            let first = self.first_due_ms().unwrap_or(u64::MAX);
            let own = self.due.first_ms().unwrap_or(u64::MAX);
            if first.min(own) > now_ms {
                return None;
            }
            if first <= own {
                return self.pop().map(|entry| (entry.seq, Some(entry)));
            }
            let seq = self.due.pop(now_ms)?;
            if let Some(here) = self.take(seq) {
                return Some((seq, here));
            }
            // It is not ready: it is out, or gone.
        }
    }

    /// Takes a message from wherever it is: itself, unless it is away. `None` if it is not ready.
    fn take(&mut self, seq: Seq) -> Option<Option<Entry>> {
        let here = self.take_returned(seq).or_else(|| self.front.take(seq)).or_else(|| self.back.take(seq));
        let is_away = here.is_none() && self.is_away(seq);
        if is_away && let Some(away) = &mut self.away {
            away.count = away.count.saturating_sub(1);
            away.unread.insert(seq);
        }
        self.join();
        (here.is_some() || is_away).then_some(here)
    }

    /// Whether a message is ready that has a time to live of its own.
    pub fn waits(&self, (at_ms, seq): Time) -> bool {
        self.due.has((at_ms, seq)) && self.has(seq)
    }

    /// Whether a message is ready. Of those that are away, also whether one was that has been taken since.
    pub fn has(&self, seq: Seq) -> bool {
        self.get(seq).is_some() || self.is_away(seq)
    }

    /// What is due behind a time and the store does not list, or not yet: up to so many, in order.
    pub fn unlisted(&self, after: Time, max: usize) -> Vec<Time> {
        let times = self.due.unlisted(after, max).into_iter();
        times.filter(|time| self.waits(*time)).collect()
    }

    /// The messages in memory between two numbers, in order; so many at most.
    pub fn between(&self, from: Seq, through: Seq, max: usize) -> Vec<Entry> {
        if from > through {
            return Vec::new();
        }
        let returned = self.returned.range(from..=through).map(|(_, entry)| entry);
        let lines = [&self.front, &self.back].map(|line| line.between(from, through).take(max));
        let mut all: Vec<Entry> = lines.into_iter().flatten().chain(returned.take(max)).cloned().collect();
        all.sort_by_key(|entry| entry.seq);
        all.truncate(max);
        all
    }

    /// A message that is ready and in memory.
    pub fn get(&self, seq: Seq) -> Option<&Entry> {
        self.returned.get(&seq).or_else(|| self.front.get(seq)).or_else(|| self.back.get(seq))
    }

    /// Takes out a message before its time, of which the store is told with `by`: why the store has it. `None`
    /// if it does not wait any more.
    pub fn withdraw(&mut self, time: Time, by: &Arc<Message>) -> Option<Stored> {
        if !self.waits(time) {
            return None;
        }
        let away = if self.due.withdraw(time, by) { Stored::Kept } else { Stored::Spilled };
        let here = self.take(time.1)?;
        if here.is_none() {
            self.left_away(time.1, None);
        }
        let stored = here.map_or(away, |entry| entry.stored);
        if stored != Stored::Kept {
            // Its number lies among those that are away, or may come to, and nobody else could tell it from them.
            self.apart.insert(time.1);
            self.tidy_apart();
        }
        Some(stored)
    }

    /// When the first of all is due, unless something may be due before it that the store has still to list.
    fn first_due_ms(&self) -> Option<u64> {
        let first = self.first().map(|entry| entry.expires_at_ms).filter(|at_ms| *at_ms != u64::MAX);
        first.filter(|at_ms| *at_ms <= self.due.known_ms())
    }

    fn is_away(&self, seq: Seq) -> bool {
        let is_in_run = |away: &Away| away.run.first <= seq && seq <= away.run.last;
        self.away.as_ref().is_some_and(is_in_run)
            && !self.apart.contains(&seq)
            && !self.expected.contains(&seq)
    }

    /// When messages with a time to live of their own are due.
    pub fn due(&mut self) -> &mut Due {
        &mut self.due
    }

    /// A message that was taken while it was away has been read: its body counts no more. `None` if nobody
    /// has read it.
    pub fn left_away(&mut self, seq: Seq, body_bytes: Option<u64>) {
        let Some(away) = &mut self.away else { return };
        if !away.unread.remove(&seq) {
            // Those that are away now went there later.
            return;
        }
        match body_bytes {
            Some(body_bytes) => away.body_bytes = away.body_bytes.saturating_sub(body_bytes),
            None => self.is_uncounted = true,
        }
    }

    /// Messages of before a start, which are all in the store: how many, in which run, and when the first of
    /// them may be due that have a time to live of their own.
    pub fn restore(&mut self, run: Run, count: u64, first_due_ms: Option<u64>) {
        self.due.restore(first_due_ms);
        self.newest = run.last;
        self.away = (count > 0).then_some(Away { run, count, body_bytes: 0, unread: BTreeSet::new() });
        self.is_uncounted = count > 0;
    }

    /// Lets go of messages in the middle until the line takes no more than `keep_bytes`, so far as the
    /// store can bring them back: it has applied what was appended up to `applied`. If the queue `spills`,
    /// those that the store does not have are waited for.
    pub fn page_out(&mut self, keep_bytes: usize, applied: Ticket, spills: bool) {
        let keep_each = keep_bytes / 2;
        let can_go = |entry: &Entry| entry.stored != Stored::No && entry.message.is_applied(applied);
        let spilled = self.spilled.and_then(|seq| self.front.get(seq));
        let last = self.front.last().filter(|_| self.away.is_some());
        let is_ready = [self.front.middle(), spilled, last].into_iter().flatten().any(can_go);
        if self.front.bytes > keep_each && self.front.len() > 1 && is_ready {
            self.front_out(keep_each, can_go, if spills { 0 } else { STRANGERS_MAX });
        }
        let Some(away) = &mut self.away else { return };
        let mut strangers = Vec::new();
        while self.back.bytes > keep_each
            && let Some(first) = self.back.first()
            && (can_go(first) || (first.stored == Stored::No && !spills))
            && let Some(entry) = self.back.pop()
        {
            if entry.stored != Stored::No {
                away.run.last = entry.seq;
                away.count += 1;
                away.body_bytes += body_bytes(&entry);
            } else {
                strangers.push(entry);
            }
        }
        for entry in strangers {
            self.apart.insert(entry.seq);
            self.put_returned(entry);
        }
    }

    /// The far end of the front goes, but not the first message: somebody may be on the way to take it.
    /// What is newest, and not applied yet, becomes the back. Of those that the store does not have so many
    /// together are put aside; behind more of them it stops.
    fn front_out(&mut self, keep_bytes: usize, can_go: impl Fn(&Entry) -> bool, strangers_max: usize) {
        let mut strangers = 0;
        while self.front.bytes > keep_bytes
            && self.front.len() > 1
            && let Some(entry) = self.front.pop_last()
        {
            match &mut self.away {
                Some(away) if can_go(&entry) => {
                    away.run.first = entry.seq;
                    away.count += 1;
                    away.body_bytes += body_bytes(&entry);
                    strangers = 0;
                }
                Some(_) if strangers < strangers_max => {
                    strangers += 1;
                    self.stand_apart(entry);
                }
                Some(_) => {
                    self.front.push(entry);
                    break;
                }
                None if can_go(&entry) => {
                    let (run, body_bytes) = (Run { first: entry.seq, last: entry.seq }, body_bytes(&entry));
                    self.away = Some(Away { run, count: 1, body_bytes, unread: BTreeSet::new() });
                    self.is_uncounted = false;
                }
                None => self.back.push_first(entry),
            }
        }
        self.join();
    }

    /// Up to `bytes_max` octets of messages that the store is to be given, next to what is away, or in the
    /// middle. They count as spilled from now on, and go away once it has applied them. No more are taken
    /// before these have gone.
    pub fn spill(&mut self, keep_bytes: usize, bytes_max: usize) -> Vec<(Seq, Arc<Message>)> {
        let mut batch = Vec::new();
        if self.away.is_none() {
            let is_on_its_way = self.spilled.is_some_and(|seq| self.front.get(seq).is_some());
            if self.front.bytes > keep_bytes && !is_on_its_way {
                let middle = self.front.slots.len() / 2;
                self.front.spill(middle.., false, bytes_max, &mut batch);
                self.spilled = batch.first().map(|(seq, _)| *seq);
            }
            return batch;
        }
        self.spilled = None;
        if self.front.bytes > keep_bytes / 2 {
            self.front.spill(1.., true, bytes_max, &mut batch);
        }
        if self.back.bytes > keep_bytes / 2 {
            self.back.spill(0.., false, bytes_max, &mut batch);
        }
        batch
    }

    /// What the store should bring next; nothing if nothing is away.
    pub fn away(&self) -> Option<Run> {
        self.away.as_ref().map(|away| away.run)
    }

    /// How much of the front is in memory, in octets.
    pub fn front_bytes(&self) -> usize {
        self.front.bytes
    }

    /// The store has brought what is live in `run`. If that is not what comes next any more, nothing
    /// happens. Returns how many messages were counted on and are not in the store: none, in a good world.
    pub fn page_in(&mut self, run: Run, entries: impl IntoIterator<Item = Entry>) -> u64 {
        let Some(away) = self.away.as_mut().filter(|away| away.run.first == run.first) else { return 0 };
        for entry in entries {
            let seq = entry.seq;
            // It may have expired in the meantime.
            if self.due.is_over(&entry) || self.apart.contains(&seq) || self.expected.contains(&seq) {
                continue;
            }
            away.count = away.count.saturating_sub(1);
            away.body_bytes = away.body_bytes.saturating_sub(body_bytes(&entry));
            self.front.push(entry);
        }
        away.run.first = Seq(run.last.0 + 1);
        let is_over = away.run.first > away.run.last;
        let missing = if is_over { std::mem::take(&mut away.count) } else { 0 };
        self.join();
        self.tidy_apart();
        missing
    }

    /// Front and back are one line again when nothing is away between them.
    fn join(&mut self) {
        if self.away.as_ref().is_some_and(|away| away.count > 0) {
            return;
        }
        self.away = None;
        self.front.append(&mut self.back);
    }

    fn stand_apart(&mut self, entry: Entry) {
        self.apart.insert(entry.seq);
        self.put_returned(entry);
        self.tidy_apart();
    }

    /// Only what is behind the first of the line can ever be away.
    fn tidy_apart(&mut self) {
        let away = self.away.as_ref().map(|away| away.run.first);
        match self.front.first().map(|entry| entry.seq).or(away) {
            None => self.apart.clear(),
            Some(first) if self.apart.first().is_some_and(|apart| *apart < first) => {
                self.apart = self.apart.split_off(&first);
            }
            Some(_) => {}
        }
    }
}

/// So many messages that the store does not have, one behind the other, may be put aside.
const STRANGERS_MAX: usize = 64;

/// So many messages are looked at for some that can be spilled.
const SPILL_LOOKS_MAX: usize = 65_536;

/// A run without these numbers.
fn without(run: Run, apart: &BTreeSet<Seq>) -> Runs {
    let mut runs = Runs::default();
    let mut first = run.first;
    for seq in apart.range(run.first..=run.last) {
        if first < *seq {
            runs.push_run(Run { first, last: Seq(seq.0 - 1) });
        }
        first = Seq(seq.0 + 1);
    }
    if first <= run.last {
        runs.push_run(Run { first, last: run.last });
    }
    runs
}

fn bytes(entry: &Entry) -> usize {
    entry.message.wire_bytes() + ENTRY_BYTES
}

fn body_bytes(entry: &Entry) -> u64 {
    entry.message.parts.body().len() as u64
}

/// Messages one behind the other, in memory, with gaps where one has expired.
#[derive(Debug, Default)]
struct Line {
    slots: VecDeque<Slot>,
    /// Empty slots; the first slot is never empty.
    gaps: usize,
    bytes: usize,
    stored_bytes: usize,
    body_bytes: u64,
}

/// So many empty slots are not worth tidying up.
const GAPS_MIN: usize = 1024;

#[derive(Debug)]
struct Slot {
    seq: Seq,
    entry: Option<Entry>,
}

impl Line {
    fn len(&self) -> usize {
        self.slots.len() - self.gaps
    }

    fn first(&self) -> Option<&Entry> {
        self.slots.front().and_then(|slot| slot.entry.as_ref())
    }

    fn last(&self) -> Option<&Entry> {
        self.slots.back().and_then(|slot| slot.entry.as_ref())
    }

    fn get(&self, seq: Seq) -> Option<&Entry> {
        let at = self.slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        self.slots[at].entry.as_ref()
    }

    /// Marks messages of these slots as spilled, from one end on, up to the first that is.
    fn spill(
        &mut self,
        slots: impl RangeBounds<usize>,
        from_the_end: bool,
        bytes_max: usize,
        batch: &mut Vec<(Seq, Arc<Message>)>,
    ) {
        if self.slots.len() < 2 {
            return;
        }
        let mut slots = self.slots.range_mut(slots);
        let mut left = bytes_max;
        for _ in 0..SPILL_LOOKS_MAX {
            let next = if from_the_end { slots.next_back() } else { slots.next() };
            let Some(slot) = next else { break };
            let Some(entry) = &mut slot.entry else { continue };
            match entry.stored {
                Stored::Kept => {}
                Stored::Spilled => break,
                // Another queue keeps it. It is not seen whether that is done if this append is noted first.
                Stored::No if entry.message.is_due() => {}
                Stored::No => {
                    let bytes = bytes(entry);
                    entry.stored = Stored::Spilled;
                    self.stored_bytes += bytes;
                    batch.push((entry.seq, entry.message.clone()));
                    left = left.saturating_sub(bytes);
                    if left == 0 {
                        break;
                    }
                }
            }
        }
    }

    /// One from about the middle.
    fn middle(&self) -> Option<&Entry> {
        self.slots.get(self.slots.len() / 2).and_then(|slot| slot.entry.as_ref()).or_else(|| self.first())
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }

    fn between(&self, from: Seq, through: Seq) -> impl Iterator<Item = &Entry> {
        let first = self.slots.partition_point(|slot| slot.seq < from);
        let slots = self.slots.range(first..).take_while(move |slot| slot.seq <= through);
        slots.filter_map(|slot| slot.entry.as_ref())
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut())
    }

    fn push(&mut self, entry: Entry) {
        self.count_in(&entry);
        self.slots.push_back(Slot { seq: entry.seq, entry: Some(entry) });
    }

    fn push_first(&mut self, entry: Entry) {
        self.count_in(&entry);
        self.slots.push_front(Slot { seq: entry.seq, entry: Some(entry) });
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.slots.pop_front()?.entry?;
        self.count_out(&entry);
        self.drop_first_gaps();
        Some(entry)
    }

    fn pop_last(&mut self) -> Option<Entry> {
        loop {
            let slot = self.slots.pop_back()?;
            let Some(entry) = slot.entry else {
                self.gaps -= 1;
                continue;
            };
            self.count_out(&entry);
            return Some(entry);
        }
    }

    fn take(&mut self, seq: Seq) -> Option<Entry> {
        let at = self.slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        let entry = self.slots[at].entry.take()?;
        self.count_out(&entry);
        self.gaps += 1;
        self.drop_first_gaps();
        if self.gaps > GAPS_MIN && self.gaps > self.slots.len() / 2 {
            // One old message at the front must not keep the places of all that expired behind it.
            self.slots.retain(|slot| slot.entry.is_some());
            self.gaps = 0;
        }
        Some(entry)
    }

    fn append(&mut self, other: &mut Line) {
        if self.slots.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        self.slots.append(&mut other.slots);
        self.gaps += std::mem::take(&mut other.gaps);
        self.bytes += std::mem::take(&mut other.bytes);
        self.stored_bytes += std::mem::take(&mut other.stored_bytes);
        self.body_bytes += std::mem::take(&mut other.body_bytes);
    }

    fn count_in(&mut self, entry: &Entry) {
        let bytes = bytes(entry);
        self.bytes += bytes;
        self.stored_bytes += if entry.stored == Stored::No { 0 } else { bytes };
        self.body_bytes += body_bytes(entry);
    }

    fn count_out(&mut self, entry: &Entry) {
        let bytes = bytes(entry);
        self.bytes -= bytes;
        self.stored_bytes -= if entry.stored == Stored::No { 0 } else { bytes };
        self.body_bytes -= body_bytes(entry);
    }

    fn drop_first_gaps(&mut self) {
        while self.gaps > 0 && self.slots.front().is_some_and(|slot| slot.entry.is_none()) {
            self.slots.pop_front();
            self.gaps -= 1;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::due::{NEVER, Time};
    use super::*;
    use crate::delivery::Returns;
    use crate::message::{Message, StoredBy};
    use crate::parts::Parts;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A stored message; `expires_at_ms` is its own time to live, `u64::MAX` for none.
    pub(crate) fn entry(seq: u64, expires_at_ms: u64) -> Entry {
        let address = amqp::method::address("", "q");
        let parts = Parts::gathered(&address, &[0x10, 0, 2], Bytes::from(seq.to_string()));
        let message = Message::from_parts(parts, 0, None);
        let mut message = message.unwrap();
        message.ttl_ms = (expires_at_ms != u64::MAX).then_some(expires_at_ms);
        message.stored_by = StoredBy::none();
        message.stored_by.add(Ticket(seq));
        let (seq, message) = (Seq(seq), Arc::new(message));
        let returns = Returns::default();
        Entry { seq, level: 0, returns, redelivered: false, stored: Stored::Kept, expires_at_ms, message }
    }

    fn seqs(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop()).map(|e| e.seq.0).collect()
    }

    fn expired(ready: &mut Ready, now_ms: u64) -> Option<u64> {
        ready.pop_expired(now_ms).map(|(seq, _)| seq.0)
    }

    #[test]
    fn a_returned_message_is_first_again() {
        let mut ready = Ready::default();
        (1..=4).for_each(|seq| ready.insert(entry(seq, u64::MAX)));
        let first = ready.pop().unwrap();
        let second = ready.pop().unwrap();

        ready.insert(second);
        ready.insert(first);

        assert_eq!(ready.len(), 4);
        assert_eq!(seqs(&mut ready), [1, 2, 3, 4]);
    }

    #[test]
    fn a_message_that_comes_late_stands_where_its_number_says() {
        let mut ready = Ready::default();
        [1, 3, 4].into_iter().for_each(|seq| ready.insert(entry(seq, u64::MAX)));

        ready.insert(entry(2, u64::MAX));

        assert_eq!(seqs(&mut ready), [1, 2, 3, 4]);
    }

    #[test]
    fn messages_expire_when_due_wherever_they_stand() {
        let mut ready = Ready::default();
        let messages = [(1, u64::MAX), (2, 50), (3, 10), (4, 30)];
        messages.into_iter().for_each(|(seq, at)| ready.insert(entry(seq, at)));

        assert_eq!(ready.next_due(), Some(10));
        assert_eq!(expired(&mut ready, 9), None);
        assert_eq!(expired(&mut ready, 30), Some(3));
        assert_eq!(expired(&mut ready, 30), Some(4));
        assert_eq!(expired(&mut ready, 30), None);
        assert_eq!(ready.len(), 2);
        assert_eq!(seqs(&mut ready), [1, 2]);
        assert_eq!(ready.next_due(), None);
    }

    #[test]
    fn what_the_store_has_not_applied_stays_in_memory() {
        let mut ready = Ready::default();
        (1..=100).for_each(|seq| ready.insert(entry(seq, u64::MAX)));

        ready.page_out(0, Ticket(0), false);
        assert_eq!(ready.away(), None);
        ready.page_out(0, Ticket(60), false);
        assert_eq!(ready.away(), Some(Run { first: Seq(2), last: Seq(60) }));
        ready.page_out(0, Ticket(80), false);

        assert_eq!(ready.away(), Some(Run { first: Seq(2), last: Seq(80) }));
        assert_eq!(
            (ready.pop().map(|entry| entry.seq), ready.has_next(), ready.len()),
            (Some(Seq(1)), false, 99)
        );
    }

    #[test]
    fn what_the_store_does_not_have_is_spilled_until_little_is_left() {
        let mut ready = Ready::default();
        let unstored = |seq| Entry { stored: Stored::No, ..entry(seq, u64::MAX) };
        (1..=1000).for_each(|seq| ready.insert(unstored(seq)));
        let bytes_each = ready.bytes() / 1000;
        let keep_bytes = 20 * bytes_each;

        for round in 0..100 {
            ready.insert(unstored(1001 + round));
            ready.page_out(keep_bytes, Ticket(u64::MAX - 1), true);
            ready.spill(keep_bytes, 30 * bytes_each);
        }

        assert!(
            ready.bytes() <= 2 * keep_bytes,
            "{} of {bytes_each} each are left",
            ready.bytes() / bytes_each
        );
        assert_eq!(ready.len(), 1100);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { stored: bool, expires: bool },
        Expect,
        Arrive,
        Pop,
        Return,
        PageOut { keep: usize, spills: bool },
        Spill { keep: usize, bytes: usize },
        PageIn { n: usize },
        List { n: usize },
        Restart,
        Expire,
        Read,
        Withdraw { nth: usize },
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (prop::bool::weighted(0.7), prop::bool::weighted(0.2))
                .prop_map(|(stored, expires)| Step::Insert { stored, expires }),
            1 => Just(Step::Expect),
            1 => Just(Step::Arrive),
            4 => Just(Step::Pop),
            2 => Just(Step::Return),
            3 => (0usize..3000, any::<bool>()).prop_map(|(keep, spills)| Step::PageOut { keep, spills }),
            3 => (0usize..3000, 0usize..2000).prop_map(|(keep, bytes)| Step::Spill { keep, bytes }),
            4 => (1usize..6).prop_map(|n| Step::PageIn { n }),
            2 => (1usize..6).prop_map(|n| Step::List { n }),
            1 => Just(Step::Restart),
            1 => Just(Step::Expire),
            2 => Just(Step::Read),
            2 => (0usize..20).prop_map(|nth| Step::Withdraw { nth }),
            1 => Just(Step::Drain),
        ]
    }

    /// A line that keeps four due times in memory.
    fn small() -> Ready {
        Ready { due: Due::with_room(4), ..Ready::default() }
    }

    /// A list of all ready numbers, and what the store has.
    #[derive(Default)]
    struct Naive {
        ready: BTreeMap<u64, Entry>,
        store: BTreeMap<u64, Entry>,
        expected: Vec<u64>,
        out: Vec<Entry>,
        /// Expired while they were away, and not read yet.
        unread: Vec<Entry>,
        /// Taken out before their time, each by a message.
        withdrawn: Vec<(Entry, Arc<Message>)>,
        next: u64,
    }

    impl Naive {
        fn run(&mut self, ready: &mut Ready, step: &Step) {
            match step {
                Step::Insert { stored, expires } => {
                    self.next += 1;
                    let at_ms = if *expires { self.next % 7 } else { u64::MAX };
                    let stored = if *stored { Stored::Kept } else { Stored::No };
                    let entry = Entry { stored, ..entry(self.next, at_ms) };
                    self.insert(ready, entry);
                }
                Step::Expect => {
                    self.next += 1;
                    self.expected.push(self.next);
                    ready.expect(Seq(self.next));
                    // The store may know it long before it comes.
                    self.store.insert(self.next, entry(self.next, u64::MAX));
                }
                Step::Arrive if self.expected.is_empty() => {}
                Step::Arrive => {
                    let seq = self.expected.swap_remove(self.next as usize % self.expected.len());
                    self.insert(ready, entry(seq, u64::MAX));
                }
                Step::Pop => {
                    let popped = ready.pop();
                    if popped.is_none() {
                        assert!(self.ready.is_empty() || ready.away().is_some());
                        assert!(!ready.has_next());
                        return;
                    }
                    let (_, first) = self.ready.pop_first().unwrap();
                    assert_eq!(popped.as_ref().map(|e| e.seq), Some(first.seq));
                    self.out.extend(popped);
                }
                Step::Return => {
                    if let Some(entry) = self.out.pop() {
                        self.insert(ready, entry);
                    }
                    // The others are settled.
                    self.out.drain(..).for_each(|entry| drop(self.store.remove(&entry.seq.0)));
                }
                Step::PageOut { keep, spills } => {
                    ready.page_out(*keep, Ticket(self.next.saturating_sub(2)), *spills);
                }
                Step::Spill { keep, bytes } => {
                    for (seq, _) in ready.spill(*keep, *bytes) {
                        let entry = self.ready.get_mut(&seq.0).expect("it is ready");
                        assert_eq!(entry.stored, Stored::No);
                        entry.stored = Stored::Spilled;
                        self.store.insert(seq.0, entry.clone());
                    }
                }
                Step::PageIn { n } => {
                    let Some(run) = ready.away() else { return };
                    let live = self.store.range(run.first.0..=run.last.0).map(|(_, entry)| entry.clone());
                    let page: Vec<Entry> = live.take(*n).collect();
                    let through = if page.len() < *n { run.last } else { page[n - 1].seq };
                    assert_eq!(ready.page_in(Run { last: through, ..run }, page), 0);
                }
                Step::List { n } => drop(self.list(ready, *n)),
                Step::Restart => {
                    // What is not kept is gone, and so is what was settled before.
                    self.out.drain(..).for_each(|entry| drop(self.store.remove(&entry.seq.0)));
                    self.store
                        .retain(|seq, entry| entry.stored == Stored::Kept && !self.expected.contains(seq));
                    self.expected.clear();
                    self.unread.clear();
                    self.withdrawn.clear();
                    self.ready = self.store.clone();
                    *ready = small();
                    self.next += 5;
                    let Some((first, _)) = self.store.first_key_value() else { return };
                    let run = Run { first: Seq(*first), last: Seq(self.next) };
                    let first_due = self.store.values().filter_map(|e| e.message.expires_at_ms()).min();
                    ready.restore(run, self.store.len() as u64, first_due);
                    ready.counted(self.store.values().map(body_bytes).sum());
                }
                Step::Expire => {
                    self.expire(ready);
                    while self.list(ready, 2) {
                        self.expire(ready);
                    }
                    assert!(self.ready.values().all(|entry| entry.expires_at_ms > 3));
                }
                Step::Read => self.read(ready),
                Step::Withdraw { nth } => {
                    let due = self.ready.values().filter(|e| e.message.ttl_ms.is_some());
                    let Some(entry) = due.cycle().nth(*nth).cloned() else { return };
                    self.ready.remove(&entry.seq.0);
                    self.store.remove(&entry.seq.0);
                    let (time, by) = ((entry.expires_at_ms, entry.seq), self::entry(self.next, 0).message);
                    assert!(ready.waits(time));
                    assert_eq!(ready.withdraw(time, &by), Some(entry.stored));
                    assert!(!ready.waits(time) && ready.withdraw(time, &by).is_none());
                    self.withdrawn.push((entry, by));
                }
                Step::Drain => {
                    let (n, stored, runs) = ready.drain();
                    assert_eq!(n, self.ready.len());
                    let away = runs.iter().flat_map(|run| run.first.0..=run.last.0);
                    let gone: Vec<u64> = stored.into_iter().map(|(seq, _)| seq.0).chain(away).collect();
                    let ready = std::mem::take(&mut self.ready).into_values();
                    for entry in ready.filter(|entry| entry.stored != Stored::No) {
                        assert!(gone.contains(&entry.seq.0), "{} is left in the store", entry.seq.0);
                    }
                    assert!(self.expected.iter().all(|seq| !gone.contains(seq)));
                    gone.iter().for_each(|seq| drop(self.store.remove(seq)));
                }
            }
        }

        /// The store lists what is due next, if it is asked.
        fn list(&self, ready: &mut Ready, n: usize) -> bool {
            let applied = Ticket(self.next.saturating_sub(2));
            ready.due().is_applied(applied);
            let Some(after) = ready.due().wanted() else { return false };
            let listed = self.withdrawn.iter().filter(|(_, by)| !by.is_applied(applied));
            let listed = self.store.values().chain(listed.map(|(entry, _)| entry));
            let kept = listed.filter(|e| e.stored == Stored::Kept);
            let known = kept.filter(|e| e.message.is_applied(applied));
            let mut times: Vec<Time> =
                known.filter_map(|e| Some((e.message.expires_at_ms()?, e.seq))).collect();
            times.sort_unstable();
            times.retain(|time| *time > after);
            let through = if times.len() > n { times[n - 1] } else { NEVER };
            times.truncate(n);
            ready.due().listed(times, through);
            true
        }

        fn expire(&mut self, ready: &mut Ready) {
            let mut last = 0;
            while let Some((seq, here)) = ready.pop_expired(3) {
                let entry = self.ready.remove(&seq.0).expect("it was ready");
                assert!(last <= entry.expires_at_ms && entry.expires_at_ms <= 3);
                last = entry.expires_at_ms;
                match here {
                    Some(here) => assert_eq!(here.stored, entry.stored),
                    None => self.unread.push(entry),
                }
            }
        }

        fn read(&mut self, ready: &mut Ready) {
            for entry in self.unread.drain(..) {
                ready.left_away(entry.seq, Some(body_bytes(&entry)));
            }
        }

        fn insert(&mut self, ready: &mut Ready, entry: Entry) {
            if entry.stored != Stored::No {
                self.store.insert(entry.seq.0, entry.clone());
            }
            self.ready.insert(entry.seq.0, entry.clone());
            ready.insert(entry);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_is_away_the_order_is_that_of_a_plain_list(
            steps in proptest::collection::vec(step(), 1..150)
        ) {
            let (mut naive, mut ready) = (Naive::default(), small());
            for step in &steps {
                naive.run(&mut ready, step);
                prop_assert_eq!(ready.len(), naive.ready.len());
                prop_assert_eq!(ready.is_empty(), naive.ready.is_empty());
                let bytes = ready.bytes();
                prop_assert!(ready.stored_bytes() <= bytes);
                if naive.unread.is_empty() && !ready.is_uncounted() {
                    prop_assert_eq!(ready.body_bytes(), naive.ready.values().map(body_bytes).sum::<u64>());
                }
            }
            // In the end everything comes out, in order.
            while !naive.ready.is_empty() {
                naive.run(&mut ready, &Step::PageIn { n: 3 });
                naive.run(&mut ready, &Step::Pop);
            }
            prop_assert_eq!((ready.len(), ready.bytes()), (0, 0));
        }
    }
}

//! When the messages of a queue are due: sorted pages in the state database. In memory there is only what has
//! come since the last checkpoint, and what is known of each page without reading it.
//!
//! A checkpoint writes what is new as a run of pages, in order. The pages of different checkpoints overlap;
//! those of which there are too many, or which are mostly dead, are recalled (`pages.rs`): they are read, and
//! the next checkpoint writes their live entries again, in order, as if these were new.
//!
//! ```text
//! publish ──> fresh ────take───> writing ──written──> pages ──recall──┐
//!                         │                                           │
//!                         └──────────────── recalled <────────────────┘
//! ```
//!
//! An entry counts while its message is live, and what is settled never lives again. So nobody has to find
//! the entry of a message that goes, and a page never changes under its number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::keys::{self, Key};
use crate::operation::{QueueId, Seq};
use crate::queues::Change;

/// When a message is due, and its number. They are listed in this order.
pub(crate) type Entry = (u64, Seq);

/// So many entries are in a full page.
pub(crate) const PAGE_ENTRIES: usize = 2048;
/// Dead entries are looked for once so many have come since the last checkpoint.
const PRUNE_MIN: usize = 64 << 10;

/// Which due messages are to be listed.
#[derive(Debug, Clone, Copy)]
pub struct DueWanted {
    /// The queue.
    pub queue: QueueId,
    /// Those behind this one, in the order of time and number; `(0, Seq(0))` stands before all others.
    pub after: (u64, Seq),
    /// Those that are due up to this time, itself included.
    pub until_ms: u64,
    /// At most so many; at least one.
    pub max: usize,
}

impl DueWanted {
    fn end(&self) -> Entry {
        (self.until_ms, Seq(u64::MAX))
    }

    fn has(&self, entry: Entry) -> bool {
        self.after < entry && entry <= self.end()
    }
}

/// Live messages that are due, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePage {
    /// When each is due, and its number. There may be fewer than were asked for, even none, though there
    /// are more behind `through`.
    pub entries: Vec<(u64, Seq)>,
    /// All live messages up to here have been listed: where the next page begins. At the end it is
    /// `(until_ms, Seq(u64::MAX))`.
    pub through: (u64, Seq),
}

/// What is known of a page without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Entry,
    pub(crate) last: Entry,
    pub(crate) count: u32,
    /// The newest time in the log when it was written.
    pub(crate) written_ms: u64,
}

impl Span {
    /// Whether these can be the entries of the page.
    pub(crate) fn fits(&self, entries: &[Entry]) -> bool {
        entries.len() == self.count as usize
            && entries.first() == Some(&self.first)
            && entries.last() == Some(&self.last)
    }
}

/// The due times of one queue.
#[derive(Default)]
pub(crate) struct Due {
    /// Those of after the last checkpoint, as they came.
    fresh: Vec<Entry>,
    /// When there are so many, the dead ones are dropped.
    prune_at: usize,
    /// What the checkpoint under way writes, and the numbers of the pages that it makes of it.
    writing: Vec<Arc<Vec<Entry>>>,
    reserved: Range<u64>,
    /// What is in the state database, by number.
    pages: BTreeMap<u64, Span>,
    recalled: Vec<Recalled>,
    /// How many pages there are in the state database after the checkpoint under way.
    stored: u64,
}

/// Pages that the next checkpoint removes, and what was live in them, in order.
pub(crate) struct Recalled {
    pub(crate) pages: Vec<u64>,
    pub(crate) entries: Vec<Entry>,
}

/// What a checkpoint writes of one queue.
pub(crate) struct Job {
    pub(crate) queue: QueueId,
    /// Each becomes pages of its own.
    groups: Vec<Arc<Vec<Entry>>>,
    first_page: u64,
    written_ms: u64,
}

/// What may hold due messages that somebody asks for.
#[derive(Default)]
pub(crate) struct Listing {
    /// In memory, in no order.
    recent: Vec<Entry>,
    /// In the state database, by their first entries.
    pages: Vec<(u64, Span)>,
}

/// How many due times are where: for tests.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DueFigures {
    /// Since the last checkpoint, or on the way to the next one.
    pub in_memory: u64,
    /// In the state database, live or not.
    pub in_pages: u64,
    /// And in how many pages.
    pub pages: u64,
}

impl Due {
    /// A message has come, or its entry was in a row of format 1.
    pub(crate) fn push(&mut self, entry: Entry, mut is_live: impl FnMut(Seq) -> bool) {
        self.fresh.push(entry);
        if self.fresh.len() >= self.prune_at.max(PRUNE_MIN) {
            self.fresh.retain(|(_, seq)| is_live(*seq));
            self.prune_at = self.fresh.len() * 2;
        }
    }

    /// Puts back a page that a checkpoint has written.
    pub(crate) fn restore(&mut self, number: u64, span: Span) {
        self.pages.insert(number, span);
        let next = self.reserved.end.max(number + 1);
        self.reserved = next..next;
        self.stored += 1;
    }

    /// What the next checkpoint writes, and the pages that it removes. `has_live` says whether the queue has
    /// any live message.
    pub(crate) fn take(
        &mut self,
        queue: QueueId,
        written_ms: u64,
        has_live: bool,
        mut is_live: impl FnMut(Seq) -> bool,
    ) -> (Option<Job>, Vec<u64>) {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|(_, seq)| is_live(*seq));
        self.prune_at = 0;
        let mut groups = vec![fresh];
        let mut gone = Vec::new();
        for recalled in std::mem::take(&mut self.recalled) {
            gone.extend(recalled.pages);
            groups.push(recalled.entries);
        }
        if !has_live {
            groups.clear();
            gone = self.pages.keys().copied().collect();
        }
        gone.sort_unstable();
        self.pages.retain(|number, _| gone.binary_search(number).is_err());
        groups.retain(|group| !group.is_empty());
        let pages: usize = groups.iter().map(|group| group.len().div_ceil(PAGE_ENTRIES)).sum();
        self.reserved = self.reserved.end..self.reserved.end + pages as u64;
        self.stored = self.stored + pages as u64 - gone.len() as u64;
        self.writing = groups.into_iter().map(Arc::new).collect();
        let groups = self.writing.clone();
        let job = Job { queue, groups, first_page: self.reserved.start, written_ms };
        ((pages > 0).then_some(job), gone)
    }

    /// What was taken is in the state database, in these pages.
    pub(crate) fn written(&mut self, pages: Vec<(u64, Span)>) {
        self.pages.extend(pages);
        self.writing = Vec::new();
        self.reserved.start = self.reserved.end;
    }

    /// Pages have been read and will be written anew.
    pub(crate) fn recall(&mut self, recalled: Recalled) {
        if recalled.pages.iter().all(|number| self.pages.contains_key(number)) {
            self.recalled.push(recalled);
        }
    }

    /// What may hold the messages that are wanted.
    pub(crate) fn listing(&self, wanted: &DueWanted) -> Listing {
        let recent = self.recent().filter(|entry| wanted.has(*entry)).collect();
        let is_there = |span: &Span| span.last > wanted.after && span.first <= wanted.end();
        let mut pages: Vec<_> = self.pages().filter(|(_, span)| is_there(span)).collect();
        pages.sort_unstable_by_key(|(_, span)| span.first);
        Listing { recent, pages }
    }

    /// The pages in the state database, by number, which is by age.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, Span)> + '_ {
        self.pages.iter().map(|(number, span)| (*number, *span))
    }

    pub(crate) fn has_page(&self, number: u64) -> bool {
        self.pages.contains_key(&number)
    }

    /// No live message is due before this.
    pub(crate) fn first_ms(&self, mut is_live: impl FnMut(Seq) -> bool) -> Option<u64> {
        let recent = self.recent().filter(|(_, seq)| is_live(*seq)).map(|(at_ms, _)| at_ms);
        recent.chain(self.pages.values().map(|span| span.first.0)).min()
    }

    /// How many pages there are in the state database after the checkpoint under way.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// The numbers of all pages that are in the state database, or on their way there.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied().chain(self.reserved.clone())
    }

    /// Nothing is due, now or later.
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.writing.is_empty() && self.pages.is_empty()
    }

    pub(crate) fn figures(&self) -> DueFigures {
        let recalled: usize = self.recalled.iter().map(|recalled| recalled.entries.len()).sum();
        DueFigures {
            in_memory: (self.recent().count() + recalled) as u64,
            in_pages: self.pages.values().map(|span| u64::from(span.count)).sum(),
            pages: self.pages.len() as u64,
        }
    }

    fn recent(&self) -> impl Iterator<Item = Entry> + '_ {
        self.fresh.iter().chain(self.writing.iter().flat_map(|group| group.iter())).copied()
    }
}

impl Job {
    /// Adds the rows of its pages. What they are.
    pub(crate) fn write(&self, rows: &mut Vec<Change>) -> Vec<(u64, Span)> {
        let mut pages = Vec::new();
        for group in &self.groups {
            let mut sorted = group.to_vec();
            sorted.sort_unstable();
            for entries in sorted.chunks(PAGE_ENTRIES) {
                let number = self.first_page + pages.len() as u64;
                let span = Span {
                    first: entries[0],
                    last: entries[entries.len() - 1],
                    count: entries.len() as u32,
                    written_ms: self.written_ms,
                };
                rows.push((Key::DueSpan(self.queue, number).encode(), Some(span.encode())));
                let entries = keys::encode_entries(entries);
                rows.push((Key::DueEntries(self.queue, number).encode(), Some(entries)));
                pages.push((number, span));
            }
        }
        pages
    }
}

impl Listing {
    /// Puts together what is wanted. `read` reads a page; none if that is not there any more, and somebody
    /// has to look again. `live` says which entries are live.
    pub(crate) fn page(
        self,
        wanted: &DueWanted,
        mut read: impl FnMut(u64, &Span) -> Option<Vec<Entry>>,
        live: impl FnOnce(Vec<Entry>) -> Vec<Entry>,
    ) -> Option<DuePage> {
        let max = wanted.max.max(1);
        // No fewer than are in a page, or many dead ones would be passed one by one.
        let look_at = max.max(PAGE_ENTRIES);
        let mut found = self.recent;
        let mut is_cut = false;
        for (number, span) in &self.pages {
            if found.len() >= look_at {
                // Mostly sorted already, which this kind of sort makes use of.
                found.sort();
                found.dedup();
                is_cut = found.get(look_at - 1).is_some_and(|last| *last < span.first);
                if is_cut {
                    break;
                }
            }
            found.extend(read(*number, span)?.into_iter().filter(|entry| wanted.has(*entry)));
        }
        found.sort();
        found.dedup();
        is_cut |= found.len() > look_at;
        found.truncate(look_at);
        let mut through = found.last().copied().filter(|_| is_cut).unwrap_or(wanted.end());
        let mut entries = live(found);
        if entries.len() > max {
            entries.truncate(max);
            through = entries[max - 1];
        }
        Some(DuePage { entries, through })
    }
}

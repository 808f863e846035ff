//! The pages of due times in the state database: read, found again in the log if they are lost, and chosen
//! to be written anew.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::due::{Entry, PAGE_ENTRIES, Recalled, Span};
use crate::intake::lock;
use crate::keys::{self, Key};
use crate::operation::{Operation, QueueId};
use crate::places;
use crate::segment;
use crate::state::State;
use crate::table::Table;

/// So many pages of one queue may speak of the same time; whoever looks for what is due then reads them all.
const DEPTH_MAX: usize = 16;
/// So many more pages than are needed are left alone, beside a factor:
const SPARE_PAGES: usize = 16;
const SPARE_FACTOR: usize = 4;
/// At most so many small pages become one.
const SMALL_PAGES_MAX: usize = 64;
/// So many more entries than live messages are left alone, beside the same factor.
const SPARE_ENTRIES: u64 = 100_000;
/// What was due so long ago has mostly been settled.
const PAST_MS: u64 = 60_000;
/// How many pages one checkpoint reads. Their entries stay in memory until the next one.
const RECALL_PAGES_MAX: usize = 128;
/// For how many entries is looked at once whether they are live.
const LOOK_MAX: usize = 4096;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pages {
    table: Arc<Table>,
    log_dir: Arc<PathBuf>,
}

/// What is known of the pages of one queue.
pub(crate) struct Survey {
    /// The oldest first.
    pub(crate) pages: Vec<(u64, Span)>,
    /// How many live messages the queue has, due at some time or not.
    pub(crate) live: u64,
    /// The newest time in the log.
    pub(crate) now_ms: u64,
}

impl Pages {
    pub(crate) fn new(table: Arc<Table>, log_dir: &Path) -> Pages {
        Pages { table, log_dir: Arc::new(log_dir.to_owned()) }
    }

    /// The entries of a page, in order. None if it is not there, or damaged.
    pub(crate) fn read(&self, queue: QueueId, number: u64, span: &Span) -> Option<Vec<Entry>> {
        let value = self.table.get(&Key::DueEntries(queue, number).encode())?;
        keys::decode_entries(&value).filter(|entries| span.fits(entries))
    }

    /// The slow way, for a state database that has lost the page: what the log has of its time, live or
    /// not, and also if it is in other pages as well.
    pub(crate) fn search(&self, queue: QueueId, number: u64, span: &Span) -> Vec<Entry> {
        tracing::error!(
            queue = queue.0,
            page = number,
            "the state database has lost a page of due times; they are looked up in the log"
        );
        let mut found = Vec::new();
        let segments = segment::list(&self.log_dir, "seg").unwrap_or_default();
        for id in segments.iter().filter_map(|path| segment::id_of(path)) {
            places::visit_segment(&self.log_dir, id, &mut |operation, _| note(queue, operation, &mut found));
        }
        found.retain(|entry| span.first <= *entry && *entry <= span.last);
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn note(queue: QueueId, operation: &Operation, found: &mut Vec<Entry>) {
    match operation {
        Operation::Publish(publish) | Operation::Relocate(publish) => {
            let Some(at_ms) = publish.due_at_ms else { return };
            let here = publish.destinations.iter().filter(|(id, _)| *id == queue);
            found.extend(here.map(|(_, seq)| (at_ms, *seq)));
        }
        Operation::Atomic(parts) => parts.iter().for_each(|part| note(queue, part, found)),
        _ => {}
    }
}

/// Those whose messages are live, in the same order. The state is looked at for a short time only, again
/// and again.
pub(crate) fn live(state: &Mutex<State>, queue: QueueId, entries: &[Entry]) -> Vec<Entry> {
    let mut live = Vec::new();
    for some in entries.chunks(LOOK_MAX) {
        lock(state).queues.add_live(queue, some, &mut live);
    }
    live
}

/// Reads pages that are to be written anew and leaves what is live in them for the next checkpoint.
///
/// IMPORTANT: that one must be taken after this. An entry that is dead now may be live at an earlier point
/// of the log, which is where a crash leads back to.
pub(crate) fn recall(state: &Mutex<State>, mut read: impl FnMut(QueueId, u64, &Span) -> Vec<Entry>) {
    let queues = lock(state).queues.due_queues();
    let mut left = RECALL_PAGES_MAX;
    for queue in queues {
        let Some(survey) = lock(state).queues.survey(queue) else { continue };
        for group in plan(survey, &mut left) {
            let mut entries: Vec<Entry> = Vec::new();
            for (number, span) in &group {
                entries.extend(live(state, queue, &read(queue, *number, span)));
            }
            entries.sort_unstable();
            entries.dedup();
            let pages = group.iter().map(|(number, _)| *number).collect();
            lock(state).queues.recall(queue, Recalled { pages, entries });
        }
    }
}

/// Which pages are worth writing anew, each group by itself, and no more than are `left`.
///
/// This comes to an end when nothing else happens: no group makes more pages than it had, one of small ones
/// makes fewer, a group of one time ends with one page there, and what is oldest is looked at in turn.
fn plan(survey: Survey, left: &mut usize) -> Vec<Vec<(u64, Span)>> {
    let Survey { pages, live, now_ms } = survey;
    let entries: u64 = pages.iter().map(|(_, span)| u64::from(span.count)).sum();
    let mut plan = Plan { pages, groups: Vec::new(), left };

    if entries > SPARE_FACTOR as u64 * live + SPARE_ENTRIES {
        plan.choose(plan.pages.iter().take(*plan.left).copied().collect());
    }
    // What was in the past when it was written has been looked at before.
    let is_past = |span: &Span| span.written_ms <= span.last.0 && span.last.0 + PAST_MS < now_ms;
    let past = plan.pages.iter().filter(|(_, span)| is_past(span));
    plan.choose(past.take(*plan.left).copied().collect());
    deep(&plan.pages).into_iter().for_each(|group| plan.choose(group));
    if plan.pages.len() > SPARE_PAGES + SPARE_FACTOR * (entries as usize / PAGE_ENTRIES) {
        plan.choose(small(&plan.pages));
    }
    plan.groups
}

struct Plan<'a> {
    /// Those that have not been chosen.
    pages: Vec<(u64, Span)>,
    groups: Vec<Vec<(u64, Span)>>,
    left: &'a mut usize,
}

impl Plan<'_> {
    fn choose(&mut self, group: Vec<(u64, Span)>) {
        if !group.is_empty() && group.len() <= *self.left {
            *self.left -= group.len();
            self.pages.retain(|page| !group.contains(page));
            self.groups.push(group);
        }
    }
}

/// Where too many pages overlap, the half of them that says least about most time. An entry comes into ever
/// denser pages that way, and is not often written on its way there.
fn deep(pages: &[(u64, Span)]) -> Vec<Vec<(u64, Span)>> {
    let mut by_first = pages.to_vec();
    by_first.sort_unstable_by_key(|(_, span)| span.first);
    let mut groups = Vec::new();
    let mut open: Vec<(u64, Span)> = Vec::new();
    for page in by_first {
        open.retain(|(_, span)| span.last >= page.1.first);
        open.push(page);
        if open.len() > DEPTH_MAX {
            open.sort_by_key(|(_, span)| {
                Reverse((span.last.0 - span.first.0) / u64::from(span.count.max(1)))
            });
            groups.push(open.drain(..DEPTH_MAX / 2).collect());
        }
    }
    groups
}

/// The smallest ones, next to each other so far as they are alike.
fn small(pages: &[(u64, Span)]) -> Vec<(u64, Span)> {
    let mut small: Vec<(u64, Span)> =
        pages.iter().filter(|(_, span)| span.count as usize <= PAGE_ENTRIES / 2).copied().collect();
    small.sort_unstable_by_key(|(_, span)| (span.count, span.first));
    small.truncate(SMALL_PAGES_MAX);
    small
}

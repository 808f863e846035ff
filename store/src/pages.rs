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
const RECALL_PAGES_MAX: usize = 256;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc;
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::due::{Due, DueWanted};
    use crate::operation::{Publish, Seq};
    use crate::store::{Options, Store};

    const QUEUE: QueueId = QueueId(1);

    /// A queue's due times with what stands in for log and state database.
    #[derive(Default)]
    struct World {
        due: Due,
        rows: BTreeMap<Vec<u8>, Vec<u8>>,
        /// When each message is due that is live, by number.
        messages: Vec<Option<u64>>,
        now_ms: u64,
    }

    impl World {
        fn publish(&mut self, at_ms: u64) {
            self.due.push((at_ms, Seq(self.messages.len() as u64)), |_| true);
            self.messages.push(Some(at_ms));
        }

        fn is_live(&self, seq: Seq) -> bool {
            self.messages[seq.0 as usize].is_some()
        }

        fn live(&self) -> Vec<Entry> {
            let entries = self.messages.iter().zip(0..);
            let mut live: Vec<Entry> =
                entries.filter_map(|(at_ms, seq)| Some(((*at_ms)?, Seq(seq)))).collect();
            live.sort_unstable();
            live
        }

        fn settle(&mut self, is_settled: impl Fn(u64, u64) -> bool) {
            for (at_ms, seq) in self.messages.iter_mut().zip(0..) {
                *at_ms = at_ms.filter(|at_ms| !is_settled(*at_ms, seq));
            }
        }

        fn read(&self, number: u64) -> Vec<Entry> {
            keys::decode_entries(&self.rows[&Key::DueEntries(QUEUE, number).encode()]).unwrap()
        }

        /// How many pages it has recalled.
        fn checkpoint(&mut self) -> usize {
            let has_live = self.messages.iter().any(Option::is_some);
            let is_live = |seq: Seq| self.messages[seq.0 as usize].is_some();
            let (job, gone) = self.due.take(QUEUE, self.now_ms, has_live, is_live);
            for number in gone {
                self.rows.remove(&Key::DueSpan(QUEUE, number).encode());
                self.rows.remove(&Key::DueEntries(QUEUE, number).encode());
            }
            let mut rows = Vec::new();
            let pages = job.map(|job| job.write(&mut rows)).unwrap_or_default();
            self.rows.extend(rows.into_iter().map(|(key, value)| (key, value.unwrap())));
            self.due.written(pages);
            assert_eq!(self.rows.len() as u64, 2 * self.due.stored());

            let mut left = RECALL_PAGES_MAX;
            for group in self.plan(&mut left) {
                let mut entries: Vec<Entry> =
                    group.iter().flat_map(|(number, _)| self.read(*number)).collect();
                entries.retain(|(_, seq)| self.is_live(*seq));
                entries.sort_unstable();
                self.due
                    .recall(Recalled { pages: group.iter().map(|(number, _)| *number).collect(), entries });
            }
            RECALL_PAGES_MAX - left
        }

        fn plan(&self, left: &mut usize) -> Vec<Vec<(u64, Span)>> {
            let (live, now_ms) = (self.messages.iter().flatten().count() as u64, self.now_ms);
            plan(Survey { pages: self.due.pages().collect(), live, now_ms }, left)
        }

        /// Checkpoints until nothing is left to do. How many pages that took.
        fn come_to_rest(&mut self) -> usize {
            let mut recalled = 0;
            for _ in 0..1000 {
                match self.checkpoint() {
                    0 => return recalled,
                    more => recalled += more,
                }
            }
            panic!("it does not come to rest: {recalled} pages were recalled");
        }

        fn listed(&self) -> Vec<Entry> {
            let mut wanted = DueWanted { queue: QUEUE, after: (0, Seq(0)), until_ms: u64::MAX, max: 10_000 };
            let mut found = Vec::new();
            while wanted.after < (u64::MAX, Seq(u64::MAX)) {
                let live = |mut entries: Vec<Entry>| {
                    entries.retain(|(_, seq)| self.is_live(*seq));
                    entries
                };
                let read = |number, _: &Span| Some(self.read(number));
                let page = self.due.listing(&wanted).page(&wanted, read, live).unwrap();
                found.extend(page.entries);
                wanted.after = page.through;
            }
            found
        }

        /// How many pages speak of the same time at most.
        fn depth(&self) -> usize {
            let pages: Vec<Span> = self.due.pages().map(|(_, span)| span).collect();
            let at = |entry: Entry| pages.iter().filter(|s| s.first <= entry && entry <= s.last).count();
            pages.iter().map(|span| at(span.first)).max().unwrap_or(0)
        }

        fn check(&self) {
            assert!(self.listed() == self.live());
        }
    }

    #[test]
    fn random_times_end_in_pages_that_hardly_overlap_and_are_seldom_written() {
        let mut random = StdRng::seed_from_u64(7);
        let mut world = World::default();
        let mut recalled = 0;
        for _ in 0..100 {
            (0..3000).for_each(|_| world.publish(random.random_range(1..3_600_000)));
            recalled += world.checkpoint();
        }
        world.check();

        recalled += world.come_to_rest();

        let pages = world.due.pages().count();
        assert!(world.depth() <= DEPTH_MAX, "{} pages overlap", world.depth());
        assert!(pages < 300_000 / PAGE_ENTRIES * 2, "{pages} pages");
        assert!(recalled < 400, "{recalled} pages were recalled");
        world.check();
    }

    #[test]
    fn a_few_at_a_time_do_not_each_keep_a_page() {
        let mut random = StdRng::seed_from_u64(8);
        for spread_ms in [1, 100, 1 << 40] {
            let mut world = World::default();
            for n in 0..500 {
                (0..3).for_each(|_| world.publish(1000 * n + random.random_range(1..=spread_ms)));
                world.checkpoint();
            }
            world.come_to_rest();

            assert!(world.due.pages().count() <= SPARE_PAGES + SPARE_FACTOR * 3);
            world.check();
        }
    }

    #[test]
    fn the_same_time_for_all_comes_to_rest() {
        let mut world = World::default();
        for _ in 0..40 {
            (0..3000).for_each(|_| world.publish(5));
            world.checkpoint();
        }

        world.come_to_rest();

        assert!(world.depth() <= DEPTH_MAX);
        world.check();
    }

    #[test]
    fn pages_of_the_past_and_of_the_dead_go() {
        let mut world = World::default();
        (0..10_000).for_each(|n| world.publish(1000 + n % 100));
        (0..200_000).for_each(|n| world.publish(10_000_000 + n));
        world.come_to_rest();

        world.now_ms = 1_000_000;
        world.settle(|at_ms, seq| at_ms < 2000 && seq >= 10);
        world.come_to_rest();

        let past: Vec<Span> = world.due.pages().map(|(_, span)| span).filter(|s| s.last.0 < 2000).collect();
        assert_eq!(past.len(), 1);
        assert_eq!(past[0].count, 10, "those are live still");
        world.check();

        world.settle(|_, seq| seq % 100 != 0);
        world.come_to_rest();

        let left: u64 = world.due.pages().map(|(_, span)| u64::from(span.count)).sum();
        assert!(left <= 4 * world.live().len() as u64 + SPARE_ENTRIES, "{left} entries");
        world.check();

        world.settle(|_, _| true);
        world.checkpoint();
        assert!(world.due.is_empty() && world.rows.is_empty());
    }

    fn publish(queue: u64, seq: u64) -> Operation {
        let destinations = [(QueueId(queue), Seq(seq))].into_iter().collect();
        let due_at_ms = Some(1 + seq * 7919 % 1009);
        Operation::Publish(Publish { timestamp_ms: 1, due_at_ms, destinations, parts: Default::default() })
    }

    fn rows(dir: &Path) -> (Table, usize, Vec<Vec<u8>>) {
        let table = Table::open(&dir.join("state")).unwrap();
        let spans = table.rows(&[keys::DUE_SPAN]).unwrap().len();
        let entries = table.rows(&[keys::DUE_ENTRIES]).unwrap().into_iter().map(|(key, _)| key).collect();
        (table, spans, entries)
    }

    #[test]
    fn a_lost_page_is_found_again_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
        let messages = (0..5000).map(|seq| publish(1, seq));
        let create = Operation::QueueCreate { queue: QUEUE };
        store.append_and_wait([create].into_iter().chain(messages).collect()).unwrap();
        let runs = (0..5000).step_by(7).map(Seq).collect();
        store.append_and_wait(vec![Operation::Settle { queue: QUEUE, runs }]).unwrap();
        store.close().unwrap();
        drop(store);
        let (table, _, keys) = rows(dir.path());
        table.apply(vec![(keys[0].clone(), None), (keys[1].clone(), Some(vec![7; 100]))]).unwrap();
        table.flush().unwrap();
        drop(table);

        let (store, recovered) = Store::open(dir.path(), Options::default()).unwrap();

        assert_eq!(recovered.damage, []);
        assert!(recovered.clean, "the log was read");
        assert!(recovered.queues[0].first_due_ms.is_some());
        let wanted = DueWanted { queue: QUEUE, after: (0, Seq(0)), until_ms: u64::MAX, max: 10_000 };
        let mut expected: Vec<Entry> =
            (0..5000).filter(|seq| seq % 7 != 0).map(|seq| (1 + seq * 7919 % 1009, Seq(seq))).collect();
        expected.sort_unstable();
        assert_eq!(store.due_and_wait(wanted).unwrap().entries, expected);
        store.close().unwrap();
    }

    #[test]
    fn a_deleted_queue_leaves_no_page() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
        for queue in [1, 2] {
            let messages = (0..5000).map(|seq| publish(queue, seq));
            let create = Operation::QueueCreate { queue: QueueId(queue) };
            store.append_and_wait([create].into_iter().chain(messages).collect()).unwrap();
        }
        store.close().unwrap();
        drop(store);
        let (table, spans, entries) = rows(dir.path());
        assert_eq!((spans, entries.len()), (6, 6));
        drop(table);

        let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
        store.append_and_wait(vec![Operation::QueueDelete { queue: QUEUE }]).unwrap();
        store.close().unwrap();
        drop(store);

        let (_table, spans, entries) = rows(dir.path());
        assert_eq!((spans, entries.len()), (3, 3));
        assert!(entries.iter().all(|key| matches!(Key::decode(key), Some(Key::DueEntries(QueueId(2), _)))));
    }

    #[test]
    fn a_queue_that_is_deleted_while_its_pages_are_written_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let shared: Arc<Mutex<Option<Store>>> = Arc::default();
        let (inside, (deleted, wait)) = (Arc::clone(&shared), mpsc::channel());
        let fault = move |step: &'static str| {
            if step == "checkpoint.batch"
                && let Some(store) = lock(&inside).take()
            {
                store.append_and_wait(vec![Operation::QueueDelete { queue: QUEUE }]).unwrap();
                // What was waited for before this is applied.
                store.append_and_wait(Vec::new()).unwrap();
                deleted.send(store).unwrap();
            }
            Ok(())
        };
        let checkpoint_interval = Duration::from_millis(10);
        let options = Options { checkpoint_interval, fault: Some(Arc::new(fault)), ..Options::default() };
        let (store, _) = Store::open(dir.path(), options).unwrap();
        let messages = (0..5000).map(|seq| publish(1, seq));
        let create = Operation::QueueCreate { queue: QUEUE };
        store.append_and_wait([create].into_iter().chain(messages).collect()).unwrap();
        *lock(&shared) = Some(store);

        let store = wait.recv_timeout(Duration::from_secs(20)).unwrap();
        store.close().unwrap();
        drop(store);

        let (_table, spans, entries) = rows(dir.path());
        assert_eq!((spans, entries.len()), (0, 0));
    }
}

//! Reading messages back: a thread that turns numbers into bodies, a page at a time, and says which are due.
//!
//! The index says where the messages of a page lie; neighbours in the log are read with one call. Each
//! record is checked: its checksum, and that it is the message that was asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::due::{DuePage, DueWanted, Span};
use crate::error::Error;
use crate::intake::{Hub, Urgency, lock};
use crate::log::Position;
use crate::operation::{Operation, Parts, Publish, QueueId, Run, Seq};
use crate::pages::{self, Pages};
use crate::places::Places;
use crate::queues::Seen;
use crate::record::{self, Parsed};
use crate::recovery::{Damage, DamageKind};
use crate::segment;
use crate::state::State;
use crate::walk::read_range;

/// Records this near to each other are read at once,
const GAP_BYTES: u64 = 4 << 10;
/// and up to this much: one surviving message keeps no more than this in memory.
const RUN_BYTES_MAX: u64 = 256 << 10;
/// Open segment files that are kept for the next page.
const FILES_MAX: usize = 8;
/// Blocks of places that are kept for the next page.
const BLOCKS_MAX: usize = 16;

/// So many messages that are due at the same time are listed at once.
const DUE_AT_MAX: usize = 64;

/// Messages of a queue that are to be read, wherever they are.
#[derive(Debug, Clone)]
pub struct WantedEach {
    /// The queue.
    pub queue: QueueId,
    /// Their numbers.
    pub seqs: Vec<Seq>,
}

/// What is to be read of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The queue.
    pub queue: QueueId,
    /// Which of its messages.
    pub run: Run,
    /// About how many bytes of records the page may have; it has at least one message if there is any.
    pub bytes_max: usize,
}

/// A message that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the queue.
    pub seq: Seq,
    /// As given in [`Publish::timestamp_ms`].
    pub timestamp_ms: u64,
    /// As given in [`Publish::due_at_ms`].
    pub due_at_ms: Option<u64>,
    /// The last one given in [`Operation::Mark`]; 0 if none was.
    pub mark: u64,
    /// As given in [`Publish::parts`]. Slices of larger pieces of at most 256 KiB (or one record, if
    /// that is larger), which go when the last slice goes.
    pub parts: [Bytes; 3],
}

/// Live messages of a queue, in order.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages. Each live one of the run is here, up to `through`.
    pub messages: Vec<Stored>,
    /// The last number that was looked at: the end of the run, or where the page was full.
    pub through: Seq,
    /// Messages whose records cannot be read. They have been reported, and are settled.
    pub lost: Vec<Damage>,
}

/// What is done with a page. Called by the reading thread: must be short.
pub type Then = Box<dyn FnOnce(Page) + Send>;

/// The same for a page of due messages.
pub type DueThen = Box<dyn FnOnce(DuePage) + Send>;

/// What somebody asks the reading thread for.
pub(crate) enum Wish {
    Messages(Wanted, Then),
    Each(WantedEach, Then),
    Due(DueWanted, DueThen),
}

pub(crate) struct Reader {
    state: Arc<Mutex<State>>,
    hub: Arc<Hub>,
    places: Places,
    pages: Pages,
    log_dir: PathBuf,
    /// Those of the last pages, the last one first.
    files: Vec<(u64, File)>,
    blocks: Vec<Recalled>,
}

/// The places of a cold block.
struct Recalled {
    key: (QueueId, u64),
    positions: Arc<[Position]>,
}

impl Reader {
    pub(crate) fn new(
        state: Arc<Mutex<State>>,
        hub: Arc<Hub>,
        places: Places,
        pages: Pages,
        log_dir: &Path,
    ) -> Reader {
        let log_dir = log_dir.to_owned();
        Reader { state, hub, places, pages, log_dir, files: Vec::new(), blocks: Vec::new() }
    }

    /// Reads pages until nobody can ask for one any more.
    pub(crate) fn start(mut self, wishes: mpsc::Receiver<Wish>) -> Result<JoinHandle<()>, Error> {
        let work = move || {
            for wish in wishes {
                match wish {
                    Wish::Messages(wanted, then) => then(self.page(wanted)),
                    Wish::Each(wanted, then) => then(self.each(wanted)),
                    Wish::Due(wanted, then) => then(self.due(&wanted)),
                }
            }
        };
        let spawned = thread::Builder::new().name("store-read".into()).spawn(work);
        spawned.map_err(Error::io("a thread to read messages".as_ref()))
    }

    /// Live messages of a queue.
    pub(crate) fn page(&mut self, wanted: Wanted) -> Page {
        let mut found: Vec<(Seq, Position)> = Vec::new();
        let mut bytes = 0;
        let bytes_max = wanted.bytes_max.max(1);
        let mut run = wanted.run;
        'blocks: while bytes < bytes_max && run.first <= run.last {
            let Some(live) = self.look(wanted.queue, run) else { break };
            for (seq, position) in live {
                // Messages of one transaction share a record.
                let is_new = found.last().is_none_or(|(_, before)| *before != position);
                if is_new && bytes >= bytes_max {
                    break 'blocks;
                }
                bytes += if is_new { position.len as usize } else { 0 };
                found.push((seq, position));
                run.first = Seq(seq.0 + 1);
            }
        }
        let is_full = bytes >= bytes_max;
        let through = found.last().map(|(seq, _)| *seq).filter(|_| is_full);
        self.bring(wanted.queue, &found, through.unwrap_or(wanted.run.last))
    }

    fn each(&mut self, mut wanted: WantedEach) -> Page {
        // Neighbours share the places of their block.
        wanted.seqs.sort_unstable();
        let mut found = Vec::with_capacity(wanted.seqs.len());
        for seq in &wanted.seqs {
            found.extend(self.look(wanted.queue, Run { first: *seq, last: *seq }).into_iter().flatten());
        }
        self.bring(wanted.queue, &found, wanted.seqs.last().copied().unwrap_or_default())
    }

    /// Reads messages that lie at these places, or have been moved from there in the meantime.
    fn bring(&mut self, queue: QueueId, found: &[(Seq, Position)], through: Seq) -> Page {
        let mut page = Page { through, ..Page::default() };
        let mut missed = self.read(queue, found, &mut page);
        let mut lost = BTreeMap::new();
        while !missed.is_empty() {
            let moved = self.moved(queue, missed, &mut lost);
            missed = self.read(queue, &moved, &mut page);
        }
        page.messages.sort_unstable_by_key(|message| message.seq);
        self.add_marks(queue, &mut page.messages);
        page.lost = self.report(queue, lost);
        page
    }

    fn due(&self, wanted: &DueWanted) -> DuePage {
        let queue = wanted.queue;
        let read = |number, span: &Span| {
            let entries = self.pages.read(queue, number, span);
            // If it is not there since a checkpoint has written its entries elsewhere, that has told the
            // state before.
            let is_lost = entries.is_none() && lock(&self.state).queues.has_page(queue, number);
            entries.or_else(|| is_lost.then(|| self.pages.search(queue, number, span)))
        };
        loop {
            let listing = lock(&self.state).queues.due(wanted);
            let page = listing.page(wanted, read, |entries| pages::live(&self.state, queue, &entries));
            if let Some(page) = page {
                return page;
            }
        }
    }

    /// Live messages that are due at exactly this time.
    pub(crate) fn due_at(&mut self, queue: QueueId, at_ms: u64) -> Vec<Stored> {
        let mut wanted = DueWanted {
            queue,
            after: (at_ms.saturating_sub(1), Seq(u64::MAX)),
            until_ms: at_ms,
            max: DUE_AT_MAX,
        };
        let mut seqs = Vec::new();
        while wanted.after < (at_ms, Seq(u64::MAX)) {
            let page = self.due(&wanted);
            seqs.extend(page.entries.iter().map(|(_, seq)| *seq));
            wanted.after = page.through;
        }
        if seqs.is_empty() { Vec::new() } else { self.each(WantedEach { queue, seqs }).messages }
    }

    fn add_marks(&self, queue: QueueId, messages: &mut [Stored]) {
        let state = lock(&self.state);
        for message in messages {
            message.mark = state.queues.mark_of(queue, message.seq);
        }
    }

    /// Of messages that were not where they should be: where they lie now, if they have been moved in the
    /// meantime. Those that have been settled are not missed.
    fn moved(
        &mut self,
        queue: QueueId,
        missed: Vec<(Seq, Position)>,
        lost: &mut BTreeMap<Position, Vec<Seq>>,
    ) -> Vec<(Seq, Position)> {
        let mut moved = Vec::new();
        for (seq, before) in missed {
            let now = self.look(queue, Run { first: seq, last: seq });
            match now.as_deref() {
                Some([(_, now)]) if *now != before => moved.push((seq, *now)),
                Some(_) => lost.entry(before).or_default().push(seq),
                None => {}
            }
        }
        moved
    }

    fn look(&mut self, queue: QueueId, run: Run) -> Option<Vec<(Seq, Position)>> {
        let seen = lock(&self.state).queues.look(queue, run)?;
        let (index, summary, live) = match seen {
            Seen::Warm(found) => return Some(found),
            Seen::Cold { index, summary, live } => (index, summary, live),
        };
        let key = (queue, index);
        // It may have been warm in between, and have new messages or old ones in new places.
        let is_same = |kept: &Recalled| kept.key == key && summary.fits(&kept.positions);
        let kept = self.blocks.iter().position(is_same);
        let positions = match kept {
            Some(at) => self.blocks.remove(at).positions,
            None => self.places.of_block(queue, index, &summary).into(),
        };
        self.blocks.truncate(BLOCKS_MAX - 1);
        self.blocks.insert(0, Recalled { key, positions: Arc::clone(&positions) });
        Some(live.into_iter().map(|(seq, at)| (seq, positions[at])).collect())
    }

    /// Reads the records in the order of the log. Returns the messages that were not there.
    fn read(&mut self, queue: QueueId, found: &[(Seq, Position)], page: &mut Page) -> Vec<(Seq, Position)> {
        let mut wanted: Vec<(Position, Seq)> =
            found.iter().map(|(seq, position)| (*position, *seq)).collect();
        wanted.sort_unstable();
        let mut missing = Vec::new();
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let (together, behind) = rest.split_at(neighbours(rest));
            let start = u64::from(together[0].0.offset);
            let last = together[together.len() - 1].0;
            let end = u64::from(last.offset) + u64::from(last.len);
            let bytes = self.bytes(last.segment, start, (end - start) as usize);
            for of_record in together.chunk_by(|(a, _), (b, _)| a == b) {
                let position = of_record[0].0;
                let from = (u64::from(position.offset) - start) as usize;
                let to = from + position.len as usize;
                let seqs: Vec<Seq> = of_record.iter().map(|(_, seq)| *seq).collect();
                let before = page.messages.len();
                if to <= bytes.len() {
                    messages(queue, &seqs, position.segment, &bytes.slice(from..to), &mut page.messages);
                }
                if page.messages.len() - before < seqs.len() {
                    let read: Vec<Seq> = page.messages[before..].iter().map(|message| message.seq).collect();
                    let missed = seqs.into_iter().filter(|seq| !read.contains(seq));
                    missing.extend(missed.map(|seq| (seq, position)));
                }
            }
            rest = behind;
        }
        missing
    }

    /// As much of the range as there is.
    fn bytes(&mut self, segment: u64, offset: u64, len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        // What cannot be read is missed, and reported, by message.
        let read = self.file(segment).map_or(0, |file| read_range(file, offset, &mut bytes).0);
        bytes.truncate(read);
        Bytes::from(bytes)
    }

    fn file(&mut self, segment: u64) -> Option<&File> {
        let at = self.files.iter().position(|(kept, _)| *kept == segment);
        let kept = match at {
            Some(at) => self.files.remove(at),
            None => (segment, File::open(segment::path(&self.log_dir, segment)).ok()?),
        };
        self.files.truncate(FILES_MAX - 1);
        self.files.insert(0, kept);
        self.files.first().map(|(_, file)| file)
    }

    /// Names the messages whose records cannot be read, and settles them.
    fn report(&self, queue: QueueId, lost: BTreeMap<Position, Vec<Seq>>) -> Vec<Damage> {
        let mut damages = Vec::new();
        for (position, seqs) in lost {
            let messages = seqs.iter().map(|seq| (queue, *seq)).collect();
            let settle = Operation::Settle { queue, runs: seqs.into_iter().collect() };
            self.hub.append(vec![settle], Urgency::Lazy);
            let damage = Damage {
                kind: DamageKind::Message,
                segment: position.segment,
                offset: u64::from(position.offset),
                bytes: u64::from(position.len),
                messages,
                detail: "the record of a message cannot be read".into(),
            };
            tracing::error!(kind = ?damage.kind, "{damage}");
            damages.push(damage);
        }
        damages
    }
}

/// How many of the first places are worth reading at once.
fn neighbours(places: &[(Position, Seq)]) -> usize {
    let first = places[0].0;
    let mut end = u64::from(first.offset) + u64::from(first.len);
    let is_near = |(place, _): &&(Position, Seq)| {
        let (start, next_end) = (u64::from(place.offset), u64::from(place.offset) + u64::from(place.len));
        let is_near = place.segment == first.segment
            && start <= end + GAP_BYTES
            && next_end - u64::from(first.offset) <= RUN_BYTES_MAX;
        end = end.max(next_end);
        is_near
    };
    1 + places[1..].iter().take_while(is_near).count()
}

/// Adds the messages of these numbers, which are sorted, if this is their record.
fn messages(queue: QueueId, seqs: &[Seq], segment: u64, record: &Bytes, found: &mut Vec<Stored>) {
    let Parsed::Whole { kind, len } = record::parse(record, record::seed(segment)) else { return };
    if record::HEADER_BYTES + len != record.len() {
        return;
    }
    // Its checksum is right, so it makes sense; what does not is missed.
    let payload = record.slice(record::HEADER_BYTES..);
    let _ = record::decode(kind, payload, &mut |operation| take(queue, seqs, operation, found));
}

fn take(queue: QueueId, seqs: &[Seq], operation: Operation, found: &mut Vec<Stored>) {
    match operation {
        Operation::Publish(publish) | Operation::Relocate(publish) => {
            let here =
                publish.destinations.iter().find(|(id, seq)| *id == queue && seqs.binary_search(seq).is_ok());
            let Some((_, seq)) = here.copied() else { return };
            // What was read is in memory of its own.
            let Publish { timestamp_ms, due_at_ms, parts: Parts::Own(parts), .. } = publish else { return };
            found.push(Stored { seq, timestamp_ms, due_at_ms, mark: 0, parts });
        }
        Operation::Atomic(parts) => parts.into_iter().for_each(|part| take(queue, seqs, part, found)),
        _ => {}
    }
}

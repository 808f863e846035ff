//! The start: state database, then the log's tail. Messages stay where they are.
//!
//! Damage never prevents a start. What is lost is named, and all around it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::checkpoint::{Checkpointer, Snapshot, Weighed};
use crate::definitions::Backup;
use crate::due::Span;
use crate::error::Error;
use crate::fault::Fault;
use crate::full::Full;
use crate::intake::lock;
use crate::keys::{self, DEFINITION, DUE_SPAN, Key, META, Meta, QUEUE, QueueRow, SUMMARY};
use crate::log::{Log, Position};
use crate::operation::{Operation, QueueId, Seq};
use crate::pages::Pages;
use crate::places::Places;
use crate::pool::Pool;
use crate::record;
use crate::schema;
use crate::segment::{self, End, Found, Head};
use crate::state::State;
use crate::table::{Row, Table};
use crate::walk::{self, Walk};

/// What is left free in each queue's numbers when its past is not fully known: a settlement in an
/// old segment must never meet a new message of the same number.
const REBUILD_GAP: u64 = 1 << 40;
/// What was in the data directory.
#[derive(Debug)]
pub struct Recovered {
    /// All definitions, sorted by name.
    pub definitions: Vec<(Vec<u8>, Vec<u8>)>,
    /// All queues, sorted by id, also those without messages.
    pub queues: Vec<RecoveredQueue>,
    /// What could not be read, or does not fit together. Empty after a crash, but for torn tails.
    pub damage: Vec<Damage>,
    /// The store was closed before, or is new: nothing had to be replayed.
    pub clean: bool,
}

/// A queue, and what is known of its messages without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredQueue {
    /// Its id.
    pub queue: QueueId,
    /// The number for its next message: no operation has ever named it or a higher one.
    pub next_seq: Seq,
    /// Messages below this number may have been handed to a consumer before.
    pub delivered_below: Seq,
    /// How many live messages it has, all from `first` on.
    pub live: u64,
    /// The first live message; `next_seq` if there is none.
    pub first: Seq,
    /// No live message has an earlier [`crate::Publish::due_at_ms`]. The first of them may be later, and there
    /// may even be none: what is on disk may be of messages that are settled. [`crate::Store::due`] says more.
    pub first_due_ms: Option<u64>,
}

/// Something on disk that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What kind of thing it is.
    pub kind: DamageKind,
    /// The log segment, 0 when it is not about one.
    pub segment: u64,
    /// Where in the segment's file.
    pub offset: u64,
    /// How many bytes are concerned.
    pub bytes: u64,
    /// The messages known to be lost by it.
    pub messages: Vec<(QueueId, Seq)>,
    /// What was found, and what was done.
    pub detail: String,
}

/// Kinds of [`Damage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// The log ends in a record that was not fully written. Nobody was told that it was durable: this
    /// is what a crash looks like, and harmless.
    TornTail,
    /// Bytes between good records make no sense: what they held is lost, and is not known. After a
    /// power cut it may be a group that was never confirmed.
    Hole,
    /// A segment's header makes no sense; its records were read nevertheless.
    Header,
    /// The record of live messages cannot be read: they are lost. Noticed when they are asked for.
    Message,
    /// A segment that should be there is not, and the messages in it are lost.
    Missing,
    /// The state database was lost or made no sense. It was set aside and rebuilt from the log: some
    /// messages may come again, marked redelivered.
    State,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.segment != 0 {
            write!(f, "segment {} at byte {}, {} bytes: ", self.segment, self.offset, self.bytes)?;
        }
        f.write_str(&self.detail)?;
        for (queue, seq) in &self.messages {
            write!(f, "; lost message {} of queue {}", seq.0, queue.0)?;
        }
        Ok(())
    }
}

/// All that the writer thread needs, and what the caller gets.
pub(crate) struct Start {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) log: Log,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) places: Places,
    pub(crate) log_dir: PathBuf,
    pub(crate) recovered: Recovered,
    pub(crate) checkpoint_wanted: bool,
    pub(crate) backup_wanted: bool,
}

pub(crate) fn recover(
    dir: &Path,
    segment_bytes: u64,
    fault: Fault,
    full: &Arc<Full>,
) -> Result<Start, Error> {
    let begun = Instant::now();
    let log_dir = dir.join("log");
    fs::create_dir_all(&log_dir).map_err(Error::io(&log_dir))?;
    let pool = Arc::new(Pool::open(&log_dir, segment_bytes)?);
    let segments = ids(&log_dir, "seg")?;
    let backup = Backup::read(dir);
    let backup_wanted = backup.is_none();

    let mut damage = Vec::new();
    // The last segment is mostly room that was not used yet. That takes as long to see as the state
    // database takes to open.
    let last = segments.last().map(|id| (*id, segment::path(&log_dir, *id)));
    let zeros = last.and_then(|(id, path)| {
        let thread = thread::Builder::new().name("store-zeros".into());
        Some((id, thread.spawn(move || walk::zeros_from(&path)).ok()?))
    });
    let (base, table) = base(dir, &segments, backup, &mut damage)?;
    let zeros = zeros.and_then(|(id, from)| Some((id, from.join().ok()?.ok()?)));
    let Base { mut state, position, definitions_at, is_rebuild } = base;
    state.queues.set_rebuilding(is_rebuild);
    let database_read = begun.elapsed();
    let table = Arc::new(table);
    let places = Places::new(Arc::clone(&table), &log_dir);
    let recall = places.clone();
    state.queues.set_recall(Arc::new(move |queue, index, summary| recall.of_block(queue, index, summary)));

    let mut replay = Replay {
        state: &mut state,
        contained: position,
        definitions_at,
        zeros,
        records: 0,
        replayed: 0,
        read: Vec::new(),
        damage: &mut damage,
    };
    let open = replay.run(&log_dir, segments.range(position.segment..), position)?;
    let (records, log_read) = (replay.records, begun.elapsed() - database_read);
    for (path, id, at) in &open {
        segment::seal(path, *id, *at)?;
    }
    let is_clean = records == 0 && open.is_empty();
    tracing::debug!(?database_read, ?log_read, records, "recovered");
    conclude(&mut state, &segments, is_rebuild, &mut damage);
    let queues = queues(&state);

    // Without gaps, see `has_no_gap`. A spare of a higher id has never held a record under it.
    let used = segments.last().copied().unwrap_or(0);
    let used = used.max(position.segment).max(definitions_at.segment);
    let checkpoint_wanted = !segments.is_empty();
    let files = file_bytes(&log_dir, &segments)?;
    let mut log = Log::start(
        Arc::clone(&pool),
        &log_dir,
        used + 1,
        files,
        segment_bytes,
        fault.clone(),
        Arc::clone(full),
    )?;
    let definitions = state.definitions.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let state = Arc::new(Mutex::new(state));
    let checkpointer = Checkpointer {
        dir: dir.to_owned(),
        pages: Pages::new(Arc::clone(&table), &log_dir),
        table,
        state: Arc::clone(&state),
        places: places.clone(),
        weighed: Weighed::default(),
        pool,
        turn: Arc::default(),
        fault,
        full: Arc::clone(full),
    };
    if is_rebuild {
        // The gap in the numbers must be known before anything is built on it.
        let snapshot = Snapshot::take(&mut lock(&state), &mut log, true);
        checkpointer.write(snapshot)?;
    }

    for damage in &damage {
        tracing::warn!(kind = ?damage.kind, "{damage}");
    }
    let clean = is_clean && damage.is_empty();
    let recovered = Recovered { definitions, queues, damage, clean };
    Ok(Start { state, log, checkpointer, places, log_dir, recovered, checkpoint_wanted, backup_wanted })
}

/// What is left to be said when all of the log is read.
fn conclude(state: &mut State, segments: &BTreeSet<u64>, is_rebuild: bool, damage: &mut Vec<Damage>) {
    state.queues.forget_early();
    state.queues.set_rebuilding(false);
    if is_rebuild {
        state.queues.all_delivered();
        state.queues.skip_seqs(REBUILD_GAP);
    }
    for (segment, messages) in state.queues.live_segments().filter(|(id, _)| !segments.contains(id)) {
        let detail = format!("the segment is missing, and {messages} live messages with it");
        let position = Position { segment, ..Position::default() };
        damage.push(Damage { detail, ..missing(position) });
    }
}

/// What a start would find.
pub(crate) struct Sight {
    pub(crate) state: State,
    pub(crate) table: Arc<Table>,
    /// How many good records were read of which segment.
    pub(crate) read: Vec<(u64, u64)>,
    /// A start would have nothing to replay.
    pub(crate) is_clean: bool,
}

/// Looks what a start would find, and changes nothing but `state_dir`, a copy of the state database. Reads
/// all of the log if `is_whole`, and else what a start does.
pub(crate) fn look(
    log_dir: &Path,
    state_dir: &Path,
    segments: &BTreeSet<u64>,
    backup: Option<Backup>,
    is_whole: bool,
    damage: &mut Vec<Damage>,
) -> Result<Sight, Error> {
    let is_whole_log = is_whole_log(segments, backup.is_some());
    let (base, table) = match open_state(state_dir, segments, is_whole_log, backup.is_some(), damage)? {
        Ok(usable) => usable,
        Err(reason) => {
            damage.push(in_state(format!(
                "the state database is unusable ({reason}); a start sets it aside and rebuilds it from the log"
            )));
            (rebuilt(is_whole_log, backup), Table::open(&state_dir.with_extension("new"))?)
        }
    };
    let Base { mut state, position, definitions_at, is_rebuild } = base;
    state.queues.set_rebuilding(is_rebuild);
    let table = Arc::new(table);
    let places = Places::new(Arc::clone(&table), log_dir);
    state.queues.set_recall(Arc::new(move |queue, index, summary| places.of_block(queue, index, summary)));
    let start = if is_whole { Position::default() } else { position };
    let mut replay = Replay {
        state: &mut state,
        contained: position,
        definitions_at,
        zeros: None,
        records: 0,
        replayed: 0,
        read: Vec::new(),
        damage,
    };
    let open = replay.run(log_dir, segments.range(start.segment..), start)?;
    let (replayed, read) = (replay.replayed, replay.read);
    conclude(&mut state, segments, is_rebuild, damage);
    Ok(Sight { state, table, read, is_clean: replayed == 0 && open.is_empty() })
}

pub(crate) fn file_bytes(log_dir: &Path, segments: &BTreeSet<u64>) -> Result<BTreeMap<u64, u64>, Error> {
    let file_bytes = |id: &u64| {
        let path = segment::path(log_dir, *id);
        Ok((*id, fs::metadata(&path).map_err(Error::io(&path))?.len()))
    };
    segments.iter().map(file_bytes).collect()
}

pub(crate) fn queues(state: &State) -> Vec<RecoveredQueue> {
    let recovered = state.queues.sorted().into_iter().map(|(id, queue)| RecoveredQueue {
        queue: id,
        next_seq: Seq(queue.next_seq),
        delivered_below: Seq(queue.delivered_below),
        live: queue.live(),
        first: queue.first_live().unwrap_or(Seq(queue.next_seq)),
        first_due_ms: state.queues.first_due_ms(id),
    });
    recovered.collect()
}

pub(crate) fn ids(dir: &Path, extension: &str) -> Result<BTreeSet<u64>, Error> {
    let paths = segment::list(dir, extension)?;
    Ok(paths.iter().filter_map(|path| segment::id_of(path)).collect())
}

/// What the log's tail is applied to.
#[derive(Default)]
struct Base {
    state: State,
    /// Up to here the log is contained in it.
    position: Position,
    /// Up to here the log's definitions and queues are contained in it.
    definitions_at: Position,
    is_rebuild: bool,
}

/// What is built on the state database, or why it is unusable.
type Opened = Result<(Base, Table), String>;

fn base(
    dir: &Path,
    segments: &BTreeSet<u64>,
    backup: Option<Backup>,
    damage: &mut Vec<Damage>,
) -> Result<(Base, Table), Error> {
    let state_dir = dir.join("state");
    let is_whole_log = is_whole_log(segments, backup.is_some());
    let reason = match open_state(&state_dir, segments, is_whole_log, backup.is_some(), damage)? {
        Ok(usable) => return Ok(usable),
        Err(reason) => reason,
    };
    let aside = set_aside(&state_dir)?;
    let table = Table::open(&state_dir)?;
    damage.push(in_state(format!(
        "the state database was unusable ({reason}); it is now {}, and was rebuilt from the log",
        aside.display()
    )));
    Ok((rebuilt(is_whole_log, backup), table))
}

/// Whether the log alone says everything.
fn is_whole_log(segments: &BTreeSet<u64>, has_backup: bool) -> bool {
    match segments.first() {
        Some(first) => *first == 1 && has_no_gap(segments, 1),
        None => !has_backup,
    }
}

fn open_state(
    state_dir: &Path,
    segments: &BTreeSet<u64>,
    is_whole_log: bool,
    has_backup: bool,
    damage: &mut Vec<Damage>,
) -> Result<Opened, Error> {
    let opened = Table::open(state_dir).and_then(|table| Ok((rows(&table)?, table)));
    let reason = match opened {
        Ok((rows, table)) if rows.is_empty() && is_whole_log => {
            return Ok(Ok((Base::default(), table)));
        }
        Ok((rows, _)) if rows.is_empty() => "it is empty".to_owned(),
        Ok((rows, table)) => match load(rows) {
            Ok((state, position)) => {
                let fits = segments.contains(&position.segment) && has_no_gap(segments, position.segment);
                if fits || !has_backup {
                    if !fits {
                        damage.push(missing(position));
                    }
                    let base = Base { state, position, definitions_at: position, is_rebuild: false };
                    return Ok(Ok((base, table)));
                }
                format!("it does not fit to the log, from segment {} on", position.segment)
            }
            Err(reason) => reason,
        },
        Err(error @ Error::Locked { .. }) => return Err(error),
        Err(error) => error.to_string(),
    };
    Ok(Err(reason))
}

/// What to begin with where there is no state database.
fn rebuilt(is_whole_log: bool, backup: Option<Backup>) -> Base {
    if is_whole_log {
        return Base::default();
    }
    let backup = backup.unwrap_or_default();
    let mut base = Base { definitions_at: backup.position, is_rebuild: true, ..Base::default() };
    for (key, value) in backup.definitions {
        base.state.definitions.define(&key, &value);
    }
    for (queue, next_seq) in backup.queues {
        base.state.queues.restore_from_backup(queue, next_seq);
    }
    base
}

/// Damage that is not about a segment.
pub(crate) fn in_state(detail: String) -> Damage {
    Damage { kind: DamageKind::State, segment: 0, offset: 0, bytes: 0, messages: Vec::new(), detail }
}

fn missing(position: Position) -> Damage {
    Damage {
        kind: DamageKind::Missing,
        segment: position.segment,
        offset: u64::from(position.offset),
        bytes: 0,
        messages: Vec::new(),
        detail: "the log does not continue here; its files are missing".into(),
    }
}

/// Ids are given without gaps, so a gap means that files are missing.
fn has_no_gap(segments: &BTreeSet<u64>, from: u64) -> bool {
    segments.range(from..).zip(from..).all(|(id, expected)| *id == expected)
}

fn set_aside(state_dir: &Path) -> Result<PathBuf, Error> {
    let secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = (0..)
        .map(|count| match count {
            0 => state_dir.with_extension(format!("bad-{secs}")),
            _ => state_dir.with_extension(format!("bad-{secs}-{count}")),
        })
        .find(|path| !path.exists())
        .expect("one of all numbers is free");
    match fs::rename(state_dir, &aside) {
        Ok(()) => Ok(aside),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(aside),
        Err(error) => Err(Error::io(state_dir)(error)),
    }
}

/// All rows that a start reads: everything but the places and due times of messages, which are most of it.
fn rows(table: &Table) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for kind in [META, DEFINITION, QUEUE, SUMMARY, DUE_SPAN] {
        rows.extend(table.rows(&[kind])?);
    }
    Ok(rows)
}

/// Puts the state together from the rows of the state database, which are sorted.
fn load(rows: Vec<Row>) -> Result<(State, Position), String> {
    let mut state = State::default();
    let mut meta = None;
    let (mut queues, mut blocks, mut pages) = (0, 0, 0);
    for (key, value) in rows {
        let bad = || format!("the value of key {key:02x?} makes no sense");
        match Key::decode(&key).ok_or_else(|| format!("unknown key {key:02x?}"))? {
            Key::Meta => meta = Some(Meta::decode(&value).ok_or_else(bad)?),
            Key::Definition(name) => {
                let value = keys::unchecked(&value).ok_or_else(bad)?.to_vec();
                state.definitions.restore(name, value);
            }
            Key::Queue(queue) => {
                queues += 1;
                state.queues.restore_queue(queue, QueueRow::decode(&value).ok_or_else(bad)?);
            }
            Key::Summary(queue, block) => {
                blocks += 1;
                let (summary, due) = keys::decode_summary(&value).ok_or_else(bad)?;
                if !state.queues.restore_block(queue, block, summary) {
                    return Err(format!("it holds a block of queue {}, which is unknown", queue.0));
                }
                if !due.is_empty() {
                    state.queues.restore_due(queue, block, &due);
                }
            }
            Key::DueSpan(queue, page) => {
                pages += 1;
                if !state.queues.restore_page(queue, page, Span::decode(&value).ok_or_else(bad)?) {
                    return Err(format!("it holds due times of queue {}, which is unknown", queue.0));
                }
            }
            Key::Positions(..) | Key::DueEntries(..) => {}
        }
    }

    let meta = meta.ok_or("it does not say where the log continues")?;
    if !schema::is_known(meta.schema) {
        return Err(format!("it has format {}, which is unknown", meta.schema));
    }
    let found = (state.definitions.iter().len() as u64, queues, blocks, pages);
    let expected = (meta.definitions, meta.queues, meta.blocks, meta.pages);
    if found != expected {
        return Err(format!(
            "it holds {found:?} definitions, queues, blocks and pages instead of {expected:?}"
        ));
    }
    Ok((state, meta.position))
}

/// Applies the log's tail.
struct Replay<'a> {
    state: &'a mut State,
    /// Up to here the log is contained in it: records before that are only looked at.
    contained: Position,
    definitions_at: Position,
    /// From where on a segment is known to be zero.
    zeros: Option<(u64, u64)>,
    records: u64,
    /// How many operations were not contained.
    replayed: u64,
    /// How many of them each segment has.
    read: Vec<(u64, u64)>,
    damage: &'a mut Vec<Damage>,
}

impl Replay<'_> {
    /// Reads the segments from `start` on. Returns those that a crash left open, with where they end.
    fn run<'i>(
        &mut self,
        log_dir: &Path,
        ids: impl Iterator<Item = &'i u64>,
        start: Position,
    ) -> Result<Vec<(PathBuf, u64, usize)>, Error> {
        let mut open = Vec::new();
        // A tail is torn only if nothing comes behind it; otherwise it is a hole.
        let mut tail: Option<Damage> = None;
        for id in ids {
            let path = segment::path(log_dir, *id);
            let mut walk = Walk::begin(&path, *id)?;
            if let Some((_, from)) = self.zeros.filter(|(segment, _)| segment == id) {
                walk.know_zeros(from);
            }
            let is_recycled = self.check_head(&path, *id, walk.head()?)?;
            let from = match *id == start.segment {
                true => u64::from(start.offset),
                false => walk.at(),
            };
            let before = self.records;
            let visit = &mut |found| self.found(*id, found);
            let end = segment::scan_file(&mut walk, *id, from, is_recycled, visit)?;
            self.read.push((*id, self.records - before));
            if self.records > before
                && let Some(hole) = tail.take()
            {
                self.damage.push(Damage { kind: DamageKind::Hole, ..hole });
            }
            if let End::Open { at, torn } = end {
                open.push((path, *id, at));
                if torn > 0 {
                    tail = Some(unreadable(DamageKind::TornTail, *id, at, torn));
                }
            }
        }
        self.damage.extend(tail);
        Ok(open)
    }

    fn check_head(&mut self, path: &Path, id: u64, head: Head) -> Result<bool, Error> {
        match head {
            Head::Good { format, recycled } => {
                schema::require(path, format)?;
                Ok(recycled)
            }
            Head::Unwritten => Ok(false),
            Head::Damaged => {
                let bytes = segment::HEADER_BYTES;
                let mut damage = unreadable(DamageKind::Header, id, 0, bytes);
                damage.detail = "the segment's header is damaged; its records were read".into();
                self.damage.push(damage);
                Ok(true)
            }
        }
    }

    fn found(&mut self, id: u64, found: Found) {
        let (offset, kind, payload) = match found {
            Found::Record { offset, kind, payload } => (offset, kind, payload),
            Found::Hole { offset, bytes } => {
                self.damage.push(unreadable(DamageKind::Hole, id, offset, bytes));
                return;
            }
        };
        self.records += 1;
        let len = record::HEADER_BYTES + payload.len();
        let position = Position { segment: id, offset: offset as u32, len: len as u32, weight: 0 };
        let decoded = record::decode(kind, payload, &mut |operation| self.apply(position, &operation));
        if decoded.is_err() {
            let mut damage = unreadable(DamageKind::Hole, id, offset, len);
            damage.detail = format!("a whole record of kind {kind} makes no sense; it was skipped");
            self.damage.push(damage);
        }
    }

    fn apply(&mut self, position: Position, operation: &Operation) {
        if position < self.contained {
            return;
        }
        self.replayed += 1;
        if position >= self.definitions_at {
            return self.state.apply(position, operation);
        }
        // The disaster copy is newer than this part of the log.
        match operation {
            Operation::Define { .. }
            | Operation::Undefine { .. }
            | Operation::QueueCreate { .. }
            | Operation::QueueDelete { .. } => {}
            Operation::Atomic(parts) => {
                parts.iter().for_each(|part| self.apply(position, part));
            }
            Operation::Publish(_)
            | Operation::Relocate(_)
            | Operation::Settle { .. }
            | Operation::Purge { .. }
            | Operation::Delivered { .. }
            | Operation::Mark { .. } => {
                self.state.apply(position, operation);
            }
        }
    }
}

fn unreadable(kind: DamageKind, segment: u64, offset: usize, bytes: usize) -> Damage {
    let detail = match kind {
        DamageKind::TornTail => "the log ends in a record that was not fully written",
        _ => "no readable record; it was skipped",
    };
    Damage {
        kind,
        segment,
        offset: offset as u64,
        bytes: bytes as u64,
        messages: Vec::new(),
        detail: detail.into(),
    }
}

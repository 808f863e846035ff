//! The intake: where sessions leave their operations for the one writer thread, and how they learn
//! what is durable.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::operation::{Operation, RECORD_BYTES_MAX};

/// This much is worth a group of its own, even when nobody waits for it.
const LAZY_BYTES_MAX: usize = 1 << 20;

/// Called by the writer thread; must be short and must not call the store.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Called once, with the error that poisoned the store.
pub(crate) type OnPoison = Arc<dyn Fn(&Error) + Send + Sync>;

/// One append, of whichever session. Tickets grow in the order of the log; `Ticket(0)` is always
/// durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// When what was written is synced: made to survive more than the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// With its group, before anybody is told.
    #[default]
    Group,
    /// At most this much later. A power cut takes back what was told in between.
    Interval(Duration),
    /// When the operating system likes. A power cut takes back what was told since.
    Os,
}

impl SyncMode {
    /// The stricter one of two.
    pub fn stricter(self, other: SyncMode) -> SyncMode {
        match (self, other) {
            (SyncMode::Group, _) | (_, SyncMode::Group) => SyncMode::Group,
            (SyncMode::Interval(a), SyncMode::Interval(b)) => SyncMode::Interval(a.min(b)),
            (SyncMode::Interval(within), SyncMode::Os) | (SyncMode::Os, SyncMode::Interval(within)) => {
                SyncMode::Interval(within)
            }
            (SyncMode::Os, SyncMode::Os) => SyncMode::Os,
        }
    }
}

/// The longest interval that can be written as text, in milliseconds: a minute.
const INTERVAL_MS_MAX: u64 = 60_000;

/// As operators write it: `group`, `os`, or `interval:` and milliseconds, at most a minute.
impl FromStr for SyncMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<SyncMode, &'static str> {
        match text {
            "group" => return Ok(SyncMode::Group),
            "os" => return Ok(SyncMode::Os),
            _ => {}
        }
        let ms = text.strip_prefix("interval:").and_then(|ms| ms.parse().ok());
        let ms = ms.filter(|ms| (1..=INTERVAL_MS_MAX).contains(ms));
        let interval = ms.map(|ms| SyncMode::Interval(Duration::from_millis(ms)));
        interval.ok_or("and must be group, os, or interval:MILLISECONDS, from interval:1 to interval:60000")
    }
}

/// How soon operations have to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits: the writer is woken now, and the session when it is durable.
    Sync,
    /// Somebody waits, but not for more than this: the session is woken, and [`Session::durable`] counts
    /// it, once it is written and will be synced as it says.
    Written(SyncMode),
    /// Nobody waits: it rides in the next group, at the latest after `lazy_delay` or once the
    /// intake holds about 1 MiB. The session is not woken for it, but [`Session::durable`] counts it.
    Lazy,
}

/// A party that appends, such as a connection, and wants to know when its operations are durable.
/// They are applied in the order of its appends.
pub struct Session {
    hub: Arc<Hub>,
    line: Arc<Line>,
    /// Where this session stands in the intake's list, and in which round that was.
    index: usize,
    round: u64,
}

/// The writer's end of a session.
pub(crate) struct Line {
    /// It has seen the intake full and wants to hear when it is not.
    saw_full: AtomicBool,
    wake: Wake,
}

/// What all handles and the writer share.
pub(crate) struct Hub {
    /// Short sections only: pushing operations, or swapping the whole list. A lock and not a
    /// channel, since the writer always takes everything at once.
    intake: Mutex<Intake>,
    arrived: Condvar,
    /// Bytes in the intake, readable without the lock.
    bytes: AtomicUsize,
    bytes_max: usize,
    /// The last ticket that is on disk, and the last one that is applied; all before them are, too.
    durable: AtomicU64,
    applied: AtomicU64,
    lines: Mutex<Vec<Weak<Line>>>,
    is_poisoned: AtomicBool,
    is_closed: AtomicBool,
    on_poison: Option<OnPoison>,
}

struct Intake {
    group: Group,
    bytes: usize,
    /// The last ticket that was given.
    last: u64,
    round: u64,
    is_urgent: bool,
    is_closing: bool,
    has_ended: bool,
    writer: Writer,
}

/// What the writer waits for.
#[derive(PartialEq, Eq)]
enum Writer {
    Works,
    WaitsForAnything,
    WaitsForUrgent,
}

/// What was gathered since the writer last took it.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) operations: Vec<Operation>,
    pub(crate) touched: Vec<Touched>,
    /// The last ticket in it.
    last: u64,
    /// What those who wait for it wait for; nothing if nobody does.
    awaited: Option<SyncMode>,
    /// Something in it was lazy.
    has_lazy: bool,
}

/// A session with operations in a group.
pub(crate) struct Touched {
    line: Arc<Line>,
    wants_wake: bool,
}

/// What ended the writer's wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// A group, or the time that was given; the group may be empty.
    Group,
    /// The last group: nothing comes after it.
    Closing,
}

impl Session {
    pub(crate) fn new(hub: &Arc<Hub>, wake: Wake) -> Session {
        let line = Arc::new(Line { saw_full: AtomicBool::new(false), wake });
        hub.register(&line);
        Session { hub: Arc::clone(hub), line, index: 0, round: 0 }
    }

    /// Leaves operations for the writer. Never blocks; the caller looks at [`Session::is_full`].
    /// They are taken from the iterator under a lock: pass something plain such as `drain(..)`. No
    /// operations at all is a barrier: it is durable when all before it is.
    ///
    /// After the store was closed or poisoned they are dropped and never become durable.
    ///
    /// # Panics
    ///
    /// When an operation takes 1 GiB or more, or an `Atomic` holds another one.
    pub fn append(&mut self, operations: impl IntoIterator<Item = Operation>, urgency: Urgency) -> Ticket {
        let wants_wake = urgency != Urgency::Lazy;
        let mut intake = lock(&self.hub.intake);
        let ticket = intake.take_in(operations);
        if self.round == intake.round {
            intake.group.touched[self.index].wants_wake |= wants_wake;
        } else {
            self.round = intake.round;
            self.index = intake.group.touched.len();
            intake.group.touched.push(Touched { line: Arc::clone(&self.line), wants_wake });
        }
        self.hub.appended(intake, urgency);
        ticket
    }

    /// The highest ticket that is on disk, with all before it. One atomic load.
    pub fn durable(&self) -> Ticket {
        self.hub.durable()
    }

    /// Whether more than `intake_bytes_max` waits to be written. The caller then stops taking in
    /// work until its `wake` is called.
    pub fn is_full(&self) -> bool {
        if !self.hub.is_full() {
            return false;
        }
        self.line.saw_full.store(true, Ordering::SeqCst);
        // The writer may have emptied it before it could see the note.
        self.hub.is_full()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("durable", &self.durable().0).finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(bytes_max: usize, on_poison: Option<OnPoison>) -> Hub {
        Hub {
            intake: Mutex::new(Intake {
                group: Group::default(),
                bytes: 0,
                last: 0,
                round: 1,
                is_urgent: false,
                is_closing: false,
                has_ended: false,
                writer: Writer::Works,
            }),
            arrived: Condvar::new(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            durable: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            lines: Mutex::new(Vec::new()),
            is_poisoned: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            on_poison,
        }
    }

    /// Leaves operations nobody asks about.
    pub(crate) fn append(&self, operations: Vec<Operation>, urgency: Urgency) -> Ticket {
        let mut intake = lock(&self.intake);
        let ticket = intake.take_in(operations);
        self.appended(intake, urgency);
        ticket
    }

    /// Blocks the calling thread until the operations are on disk.
    pub(crate) fn append_and_wait(self: &Arc<Hub>, operations: Vec<Operation>) -> Result<(), Error> {
        let caller = thread::current();
        let mut session = Session::new(self, Arc::new(move || caller.unpark()));
        let ticket = session.append(operations, Urgency::Sync);
        loop {
            // In this order: the writer tells what is durable before it says that it has ended.
            let ended = self.ended();
            if session.durable() >= ticket {
                return Ok(());
            }
            if let Some(error) = ended {
                return Err(error);
            }
            thread::park();
        }
    }

    /// The last ticket that is on disk.
    pub(crate) fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    /// The last ticket whose messages can be read.
    pub(crate) fn applied(&self) -> Ticket {
        Ticket(self.applied.load(Ordering::Acquire))
    }

    fn appended(&self, mut intake: MutexGuard<'_, Intake>, urgency: Urgency) {
        let awaited = match urgency {
            Urgency::Sync => Some(SyncMode::Group),
            Urgency::Written(sync) => Some(sync),
            Urgency::Lazy => None,
        };
        intake.is_urgent |= awaited.is_some() || intake.bytes >= LAZY_BYTES_MAX;
        intake.group.wants(awaited);
        self.bytes.store(intake.bytes, Ordering::SeqCst);
        let must_wake = match intake.writer {
            Writer::Works => false,
            Writer::WaitsForAnything => true,
            Writer::WaitsForUrgent => intake.is_urgent,
        };
        if must_wake {
            intake.writer = Writer::Works;
        }
        drop(intake);
        if must_wake {
            self.arrived.notify_one();
        }
    }

    /// The writer's wait: swaps the intake for `group`, which must be empty, once something urgent
    /// is there, something lazy is old enough, it is time `until`, or the store closes.
    pub(crate) fn gather(&self, group: &mut Group, lazy_delay: Duration, until: Option<Instant>) -> Gathered {
        // Lazy operations are looked for then, instead of being woken by the first of them: mostly
        // something urgent comes first.
        let mut look_at = Some(Instant::now() + lazy_delay);
        let mut intake = lock(&self.intake);
        loop {
            if intake.is_urgent || intake.is_closing {
                break;
            }
            let now = Instant::now();
            let has_lazy = !intake.group.is_empty();
            if has_lazy {
                look_at.get_or_insert(now + lazy_delay);
            } else {
                look_at = look_at.filter(|at| now < *at);
            }
            let deadline = look_at.into_iter().chain(until).min();
            if deadline.is_some_and(|deadline| deadline <= now) {
                break;
            }
            intake.writer = if look_at.is_some() { Writer::WaitsForUrgent } else { Writer::WaitsForAnything };
            intake = match deadline {
                None => self.arrived.wait(intake).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let timeout = deadline - now;
                    let waited = self.arrived.wait_timeout(intake, timeout);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            intake.writer = Writer::Works;
        }
        std::mem::swap(&mut intake.group, group);
        group.last = intake.last;
        let was_full = intake.bytes > self.bytes_max;
        intake.bytes = 0;
        intake.round += 1;
        intake.is_urgent = false;
        self.bytes.store(0, Ordering::SeqCst);
        let gathered = if intake.is_closing { Gathered::Closing } else { Gathered::Group };
        drop(intake);
        if was_full {
            self.wake_lines(|line| line.saw_full.swap(false, Ordering::SeqCst));
        }
        gathered
    }

    /// Tells every session of a group that it is durable, and lets go of the sessions.
    pub(crate) fn confirm(&self, group: &mut Group) {
        self.durable.store(group.last, Ordering::Release);
        for touched in group.touched.drain(..) {
            if touched.wants_wake {
                (touched.line.wake)();
            }
        }
    }

    /// What a group holds can be read from now on.
    pub(crate) fn is_applied(&self, group: &Group) {
        self.applied.store(group.last, Ordering::Release);
    }

    /// Nothing becomes durable any more. Only the first error is told.
    pub(crate) fn poison(&self, error: &Error) {
        if self.is_poisoned.swap(true, Ordering::SeqCst) {
            return;
        }
        self.end();
        match &self.on_poison {
            Some(hook) => hook(error),
            None => tracing::error!(%error, "the store is poisoned: nothing is durable any more"),
        }
        self.wake_lines(|_| true);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Ordering::SeqCst)
    }

    /// Asks the writer to end after what is in the intake.
    pub(crate) fn close(&self) {
        let mut intake = lock(&self.intake);
        intake.is_closing = true;
        drop(intake);
        self.arrived.notify_one();
    }

    /// Whether nothing that is begun now comes to its end.
    pub(crate) fn is_closing(&self) -> bool {
        lock(&self.intake).is_closing
    }

    /// The writer is gone.
    pub(crate) fn closed(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.end();
        self.wake_lines(|_| true);
    }

    /// Why nothing more will be written, if so.
    pub(crate) fn ended(&self) -> Option<Error> {
        if self.is_poisoned() {
            return Some(Error::Poisoned);
        }
        self.is_closed.load(Ordering::SeqCst).then_some(Error::Closed)
    }

    fn end(&self) {
        let mut intake = lock(&self.intake);
        intake.has_ended = true;
        intake.is_closing = true;
        intake.group.operations = Vec::new();
        intake.bytes = 0;
        self.bytes.store(0, Ordering::SeqCst);
        drop(intake);
        self.arrived.notify_one();
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) > self.bytes_max
    }

    fn register(&self, line: &Arc<Line>) {
        let mut lines = lock(&self.lines);
        // Amortised: swept only when it would have to grow anyway.
        if lines.len() == lines.capacity() {
            lines.retain(|line| line.strong_count() > 0);
        }
        lines.push(Arc::downgrade(line));
    }

    /// Wakes those of which `which` holds; outside the lock, since `wake` is not ours.
    fn wake_lines(&self, which: impl Fn(&Line) -> bool) {
        let lines: Vec<Arc<Line>> = lock(&self.lines).iter().filter_map(Weak::upgrade).collect();
        for line in lines {
            if which(&line) {
                (line.wake)();
            }
        }
    }
}

impl Intake {
    fn take_in(&mut self, operations: impl IntoIterator<Item = Operation>) -> Ticket {
        self.last += 1;
        for operation in operations {
            let weight = operation.weight();
            assert!(weight < RECORD_BYTES_MAX, "an operation of {weight} bytes");
            assert!(!operation.holds_nested_atomic(), "an Atomic inside an Atomic");
            if self.has_ended {
                continue;
            }
            self.bytes += weight;
            self.group.operations.push(operation);
        }
        Ticket(self.last)
    }
}

impl Group {
    fn wants(&mut self, awaited: Option<SyncMode>) {
        match (awaited, self.awaited) {
            (None, _) => self.has_lazy = true,
            (Some(a), Some(b)) => self.awaited = Some(a.stricter(b)),
            (Some(a), None) => self.awaited = Some(a),
        }
    }

    /// When it has to be synced, if what nobody waits for is synced as `lazy` says, and has `lazy_delay`
    /// to wait for company.
    pub(crate) fn take_sync(&mut self, lazy: SyncMode, lazy_delay: Duration) -> SyncMode {
        let has_lazy = std::mem::take(&mut self.has_lazy);
        match (self.awaited.take(), has_lazy) {
            (None, _) => lazy,
            (Some(awaited), false) => awaited,
            // Those who wait for less than a sync are not made to wait for one.
            (Some(awaited), true) if lazy == SyncMode::Group => {
                awaited.stricter(SyncMode::Interval(lazy_delay))
            }
            (Some(awaited), true) => awaited.stricter(lazy),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.touched.is_empty()
    }
}

/// Locks a mutex whose holder may have panicked: each section leaves what it guards whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::QueueId;

    const LONG: Duration = Duration::from_secs(600);

    fn operation() -> Operation {
        Operation::QueueCreate { queue: QueueId(1) }
    }

    fn counting_session(hub: &Arc<Hub>) -> (Session, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let wake = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (Session::new(hub, wake), count)
    }

    #[test]
    fn a_session_is_woken_once_for_a_group_and_only_for_sync() {
        let hub = Arc::new(Hub::new(1 << 20, None));
        let (mut eager, eager_woken) = counting_session(&hub);
        let (mut idle, idle_woken) = counting_session(&hub);
        let mut group = Group::default();

        idle.append([operation()], Urgency::Lazy);
        eager.append([operation()], Urgency::Sync);
        let last = eager.append([operation()], Urgency::Sync);
        hub.gather(&mut group, LONG, None);
        assert_eq!(eager.durable(), Ticket(0));
        hub.confirm(&mut group);

        assert_eq!((eager.durable(), idle.durable()), (last, last));
        assert_eq!(eager_woken.load(Ordering::SeqCst), 1);
        assert_eq!(idle_woken.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_full_intake_wakes_those_who_saw_it_when_it_is_taken() {
        let hub = Arc::new(Hub::new(100, None));
        let (mut writer, woken) = counting_session(&hub);
        writer.append([operation(), operation()], Urgency::Sync);
        assert!(writer.is_full());

        hub.gather(&mut Group::default(), LONG, None);

        assert!(!writer.is_full());
        assert_eq!(woken.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_poisoned_store_takes_nothing_in_and_tells_everybody() {
        let hub = Arc::new(Hub::new(100, Some(Arc::new(|_: &Error| ()))));
        let (mut session, woken) = counting_session(&hub);

        hub.poison(&Error::Poisoned);
        session.append([operation(), operation()], Urgency::Sync);

        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(hub.is_poisoned() && !session.is_full());
        assert!(matches!(hub.ended(), Some(Error::Poisoned)));
    }
}

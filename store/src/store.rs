//! The handle: open a data directory, append to it, close it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError as TryLock, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::backup::{BackedUp, Source};
use crate::commit::Commit;
use crate::due::{DueFigures, DuePage, DueWanted};
use crate::error::Error;
use crate::fault::{Fault, Hook};
use crate::full::{Full, OnFull};
use crate::intake::{Hub, OnPoison, Session, SyncMode, Ticket, Urgency, lock};
use crate::meter::{Meter, Syncs};
use crate::operation::{Operation, QueueId, Seq};
use crate::read::{DueThen, Page, Reader, Stored, Then, Wanted, WantedEach, Wish};
use crate::recovery::{self, Recovered};
use crate::rewrite::Rewriter;
use crate::schema;
use crate::state::State;
use crate::worker::Worker;

/// What can be chosen when a store is opened.
#[derive(Clone)]
pub struct Options {
    /// The size of a log segment in bytes, 4 KiB to 1 GiB; 64 MiB by default. A larger record gets a
    /// segment of its own.
    pub segment_bytes: u64,
    /// How long changes may be only in the log; 5 s by default, or a fiftieth of it after a quarter segment of
    /// them. A start reads about this much log.
    pub checkpoint_interval: Duration,
    /// How long [`Urgency::Lazy`] operations wait for company; 50 ms by default.
    pub lazy_delay: Duration,
    /// When operations that nobody waits for are synced; with their group by default.
    pub sync: SyncMode,
    /// Above this many bytes in the intake [`Session::is_full`] holds; 16 MiB by default. As much
    /// again may be on its way to the disk.
    pub intake_bytes_max: usize,
    /// Called once when a write or sync has failed, by the thread that noticed it. By default it is
    /// logged as an error.
    pub on_poison: Option<OnPoison>,
    /// Called when the disk is full, and when it is not any more. In between nothing becomes durable, and
    /// nothing fails: the store goes on by itself.
    pub on_full: Option<OnFull>,
    /// For tests: called at each step that touches the disk.
    #[doc(hidden)]
    pub fault: Option<Hook>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(5),
            lazy_delay: Duration::from_millis(50),
            sync: SyncMode::Group,
            intake_bytes_max: 16 << 20,
            on_poison: None,
            on_full: None,
            fault: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("checkpoint_interval", &self.checkpoint_interval)
            .field("lazy_delay", &self.lazy_delay)
            .field("sync", &self.sync)
            .field("intake_bytes_max", &self.intake_bytes_max)
            .finish_non_exhaustive()
    }
}

/// An open data directory. Clones are handles to the same one; it is closed with the last of them.
/// Sessions do not keep it open.
#[derive(Clone)]
pub struct Store {
    hub: Arc<Hub>,
    owner: Arc<Owner>,
}

/// What a store takes of the disk, see [`Store::space`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The records of live messages, as of about one [`Options::checkpoint_interval`] ago.
    pub live_bytes: u64,
    /// All files of the log. At rest no more than twice `live_bytes` and two segments: one that is
    /// written, and one that is ready to be.
    pub log_bytes: u64,
}

/// Ends the threads with the last handle.
struct Owner {
    hub: Arc<Hub>,
    /// Its threads keep it, and the state database with it, until they end.
    state: Weak<Mutex<State>>,
    log_dir: PathBuf,
    full: Arc<Full>,
    meter: Arc<Meter>,
    /// Unbounded, but a queue has at most one page on its way.
    wishes: Mutex<Option<mpsc::Sender<Wish>>>,
    /// Reads on the threads of others.
    reader: Mutex<Option<Reader>>,
    /// What backups are made of. Locked while one is.
    source: Mutex<Source>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

const SEGMENT_BYTES_MIN: u64 = 4 << 10;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
pub(crate) const LOCK_FILE: &str = "LOCK";

impl Store {
    /// Opens a data directory, making it if need be, and looks what is there: about one checkpoint
    /// interval of log, 300 bytes for each 1024 messages, and 50 for each 2048 due times. Damage does not
    /// prevent a start: it is reported in [`Recovered::damage`], or in [`Page::lost`] once the message is read.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another process has it open, [`Error::Version`] when its format is not
    /// known, [`Error::Io`] when the file system refuses.
    pub fn open(dir: &Path, options: Options) -> Result<(Store, Recovered), Error> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let held = hold(dir)?;
        schema::check(dir)?;

        let segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let fault = Fault(options.fault);
        let full = Arc::new(Full::new(options.on_full));
        let start = recovery::recover(dir, segment_bytes, fault.clone(), &full)?;

        let hub = Arc::new(Hub::new(options.intake_bytes_max, options.on_poison));
        let state = start.state;
        let rewriter = Rewriter {
            state: Arc::clone(&state),
            hub: Arc::clone(&hub),
            log_dir: start.log_dir.clone(),
            fault,
        };
        let (rewriter, rewriting) =
            Worker::start("store-rewrite", move |segments| rewriter.rewrite(segments))?;
        let meter = Arc::new(Meter::default());
        let (wishes, inbox) = mpsc::channel();
        let pages = start.checkpointer.pages.clone();
        let reader =
            |places, pages| Reader::new(Arc::clone(&state), Arc::clone(&hub), places, pages, &start.log_dir);
        let end = Arc::new(Mutex::new(start.log.position()));
        let source = Source {
            dir: dir.to_owned(),
            segment_bytes,
            hub: Arc::clone(&hub),
            end: Arc::clone(&end),
            table: Arc::downgrade(&start.checkpointer.table),
            pool: Arc::clone(&start.checkpointer.pool),
            turn: Arc::clone(&start.checkpointer.turn),
            fault: start.checkpointer.fault.clone(),
        };
        let own = reader(start.places.clone(), pages.clone());
        let reading = reader(start.places, pages).start(inbox)?;
        let commit = Commit {
            hub: Arc::clone(&hub),
            state: Arc::clone(&state),
            log: start.log,
            end,
            meter: Arc::clone(&meter),
            checkpoint_interval: options.checkpoint_interval,
            lazy_delay: options.lazy_delay,
            lazy_sync: options.sync,
            sync_at: None,
            checkpoint_wanted: start.checkpoint_wanted,
            backup_wanted: start.backup_wanted,
            positions: Vec::new(),
            settlements: Vec::new(),
            weighed: Arc::clone(&start.checkpointer.weighed),
            rewriter,
            weighed_before: 0,
            rewritten: BTreeSet::new(),
            rewrite_at: Instant::now(),
            is_settling: true,
        };
        let checkpointer = start.checkpointer;
        let writer = thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || {
                commit.run(checkpointer);
                // Only now may another process open the directory.
                drop(held);
            })
            .map_err(Error::io("a thread for the log".as_ref()))?;
        let owner = Owner {
            hub: Arc::clone(&hub),
            state: Arc::downgrade(&state),
            log_dir: start.log_dir,
            full,
            meter,
            wishes: Mutex::new(Some(wishes)),
            reader: Mutex::new(Some(own)),
            source: Mutex::new(source),
            threads: Mutex::new(vec![reading, writer, rewriting]),
        };
        Ok((Store { hub, owner: Arc::new(owner) }, start.recovered))
    }

    /// How many syncs of the log there were, and how long they took.
    pub fn syncs(&self) -> Syncs {
        self.owner.meter.syncs()
    }

    /// Begins a session. `wake` is called by the writer thread after a synced group in which this
    /// session had [`Urgency::Sync`] appends (once for each group), when [`Session::is_full`] is no
    /// longer true after it was seen to be, and when the store is poisoned or closed. It must be
    /// short and must not call the store.
    pub fn session(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Session {
        Session::new(&self.hub, wake)
    }

    /// Leaves operations for the writer, without a session to be woken.
    ///
    /// # Panics
    ///
    /// As [`Session::append`] does.
    pub fn append(&self, operations: Vec<Operation>, urgency: Urgency) -> Ticket {
        self.hub.append(operations, urgency)
    }

    /// The last append whose messages can be read, with all before it. One atomic load.
    pub fn applied(&self) -> Ticket {
        self.hub.applied()
    }

    /// Reads live messages of a queue, and calls `then` with them on the reading thread. Only what is
    /// [`Store::applied`] is found. After [`Store::close`] it is never called.
    pub fn read(&self, wanted: Wanted, then: Then) {
        self.owner.wish(Wish::Messages(wanted, then));
    }

    /// Reads those of these messages that are live, and calls `then` with them on the reading thread, as
    /// [`Store::read`] does.
    pub fn read_each(&self, wanted: WantedEach, then: Then) {
        self.owner.wish(Wish::Each(wanted, then));
    }

    /// Reads those of these messages that are live, and blocks the calling thread until they are there: for
    /// operators and tools.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn read_each_and_wait(&self, wanted: WantedEach) -> Result<Page, Error> {
        let (page, pages) = mpsc::channel();
        self.read_each(wanted, Box::new(move |read| drop(page.send(read))));
        pages.recv().map_err(|_| Error::Closed)
    }

    /// Reads live messages and blocks the calling thread until they are there: for tests and tools.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn read_and_wait(&self, wanted: Wanted) -> Result<Page, Error> {
        let (page, pages) = mpsc::channel();
        self.read(wanted, Box::new(move |read| drop(page.send(read))));
        pages.recv().map_err(|_| Error::Closed)
    }

    /// Lists live messages of a queue by when they are due, and calls `then` with them on the reading thread.
    /// Only what is [`Store::applied`] is found. After [`Store::close`] it is never called.
    pub fn due(&self, wanted: DueWanted, then: DueThen) {
        self.owner.wish(Wish::Due(wanted, then));
    }

    /// Lists due messages and blocks the calling thread until they are there: for tests and tools.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn due_and_wait(&self, wanted: DueWanted) -> Result<DuePage, Error> {
        let (page, pages) = mpsc::channel();
        self.due(wanted, Box::new(move |due| drop(page.send(due))));
        pages.recv().map_err(|_| Error::Closed)
    }

    /// The live messages of a queue that are due at exactly this time, in milliseconds since 1970. Reads on the
    /// calling thread: at most a handful of pages of the index, and these messages. Only what is
    /// [`Store::applied`] is found, and nothing after [`Store::close`].
    pub fn due_at(&self, queue: QueueId, at_ms: u64) -> Vec<Stored> {
        lock(&self.owner.reader).as_mut().map(|reader| reader.due_at(queue, at_ms)).unwrap_or_default()
    }

    /// Whether a message is there that is [`Store::applied`], and has not been settled.
    pub fn is_live(&self, queue: QueueId, seq: Seq) -> bool {
        let state = self.owner.state.upgrade();
        state.is_some_and(|state| lock(&state).queues.is_live(queue, seq))
    }

    /// How many messages of a queue are there that are [`Store::applied`] and have not been settled.
    pub fn live(&self, queue: QueueId) -> u64 {
        self.owner.state.upgrade().map_or(0, |state| lock(&state).queues.live_of(queue))
    }

    /// How many due times are where: for tests.
    #[doc(hidden)]
    pub fn due_figures(&self) -> Result<DueFigures, Error> {
        let state = self.owner.state.upgrade().ok_or(Error::Closed)?;
        let figures = lock(&state).queues.due_figures();
        Ok(figures)
    }

    /// Blocks the calling thread until the operations are on disk: for start-up, shutdown and tests.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] or [`Error::Closed`]: whether they are on disk is then unknown.
    pub fn append_and_wait(&self, operations: Vec<Operation>) -> Result<(), Error> {
        self.hub.append_and_wait(operations)
    }

    /// How much there is on the disk. Looks at the log's directory: for operators and tests.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the directory cannot be read, [`Error::Closed`].
    pub fn space(&self) -> Result<Space, Error> {
        let state = self.owner.state.upgrade().ok_or(Error::Closed)?;
        let live_bytes = lock(&state).queues.weights().values().sum();
        let log_dir = &self.owner.log_dir;
        let mut log_bytes = 0;
        for entry in fs::read_dir(log_dir).map_err(Error::io(log_dir))? {
            // A segment may go while we look.
            log_bytes += entry.and_then(|entry| entry.metadata()).map_or(0, |found| found.len());
        }
        Ok(Space { live_bytes, log_bytes })
    }

    /// Writes a copy of all that is there into a directory that is empty or not there yet, and blocks the calling
    /// thread until it is on disk. Meanwhile the store goes on; it is opened with all that was appended
    /// before this call, and perhaps more.
    ///
    /// # Errors
    ///
    /// [`Error::Backup`] when it cannot be there, [`Error::Io`] and [`Error::State`] when something cannot be
    /// read or written, [`Error::Poisoned`], [`Error::Closed`]. What was written is removed again.
    pub fn back_up(&self, to: &Path) -> Result<BackedUp, Error> {
        let source = match self.owner.source.try_lock() {
            Ok(source) => source,
            Err(TryLock::Poisoned(source)) => source.into_inner(),
            Err(TryLock::WouldBlock) => {
                let reason = "another backup is being written; wait until it is done".into();
                return Err(Error::Backup { dir: to.to_owned(), reason });
            }
        };
        source.write(to)
    }

    /// Writes and syncs all that was appended, makes a last checkpoint, ends the threads and
    /// releases the directory. Closing again does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] when not all of it could be written.
    pub fn close(&self) -> Result<(), Error> {
        self.owner.close();
        if self.poisoned() { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// Whether a write or sync has failed. Nothing becomes durable any more; the process should end.
    pub fn poisoned(&self) -> bool {
        self.hub.is_poisoned()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("poisoned", &self.poisoned()).finish_non_exhaustive()
    }
}

impl Owner {
    fn wish(&self, wish: Wish) {
        if let Some(wishes) = &*lock(&self.wishes) {
            // The thread takes wishes until it is closed.
            let _ = wishes.send(wish);
        }
    }

    fn close(&self) {
        *lock(&self.wishes) = None;
        *lock(&self.reader) = None;
        self.full.give_up();
        let threads = std::mem::take(&mut *lock(&self.threads));
        self.hub.close();
        for thread in threads {
            // The last handle may go with a page that nobody waits for any more. Panics have been told.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes the directory for this process, until the file is dropped or the process dies.
fn hold(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}

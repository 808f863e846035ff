//! The whole: vhosts, users and the store. Opens the data directory and puts back what was there.

mod attempts;
mod audit;
mod export;
mod history;
mod import;
mod limits;
mod news;
mod parameters;
mod read;
mod seed;
mod users;
mod vhosts;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use dashmap::DashMap;
use hashbrown::HashMap;
use serde_json::Value as Json;
use store::{Operation, QueueId, RecoveredQueue, Store, Urgency};
use tokio::sync::{Notify, mpsc};
use tracing::{error, info, warn};

use crate::alarm::{self, Alarm, Cause, Siren};
use crate::auth::Users;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::ConsumerId;
use crate::error::Error;
use crate::memory::Memory;
use crate::news::{Ear, News};
use crate::node::{Expiry, Listener, Uptime};
use crate::queue::{self, DeleteIf, Departed, Surroundings, Tick};
use crate::roster::Roster;
use crate::tally::{Sizes, WholeTallies};
use crate::timers::Timers;
use crate::trail::Trails;
use crate::vhost::definitions::Definition;
use crate::vhost::{QueueIds, Vhost};
pub use attempts::{Attempts, Protocol, Source, Tries};
pub use audit::{Actor, AdminEvent, Audit, Deed, Hook};
pub use export::metadata;
pub use history::NodeFigures;
pub use limits::Place;
use limits::Places;
use parameters::Globals;
pub use parameters::{CLUSTER_NAME, Parameter};
pub use read::tags;
pub use users::{Refused, Wanted};
pub use vhosts::VhostChanges;

/// How often is looked whether messages take too much memory.
const MEMORY_PERIOD: Duration = Duration::from_millis(100);
/// The same while they do.
const MEMORY_PERIOD_SHORT: Duration = Duration::from_millis(5);

/// So many batches of messages that have left their queues are taken at once.
const DEPARTED_MAX: usize = 64;

/// What is needed to take messages from one queue to others.
#[derive(Default)]
struct Porter {
    matches: exchanges::Matches<queue::Handle>,
    batch: queue::Batch,
}

/// How to find out which certificates are in use.
struct Certificates(Box<dyn Fn() -> Vec<Expiry> + Send + Sync>);

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", (self.0)())
    }
}

/// A running broker. Everything in it is shared by all connections.
#[derive(Debug)]
pub struct Broker {
    /// What was configured.
    pub config: Config,
    /// Who is connected.
    pub roster: Roster,
    vhosts: DashMap<Arc<str>, Arc<Vhost>>,
    users: RwLock<Users>,
    globals: RwLock<Globals>,
    // Held by whoever changes any of these for an administrator; lock order: this, then users, then a vhost.
    turn: Mutex<()>,
    /// Who tried to log in.
    pub attempts: Attempts,
    /// Tells what administrators do.
    pub audit: Audit,
    places: Places,
    surroundings: Surroundings,
    ids: Arc<QueueIds>,
    last_consumer: AtomicU64,
    /// Messages that have left their queues though nobody was done with them. One task takes them.
    departed: tokio::sync::Mutex<mpsc::UnboundedReceiver<Departed>>,
    /// Where news come out. One task takes them.
    ear: tokio::sync::Mutex<Ear>,
    alarm: Alarm,
    budget: Budget,
    /// How long it has been there.
    pub uptime: Uptime,
    listeners: OnceLock<Vec<Listener>>,
    /// Somebody wants it to stop.
    stop: Notify,
    certificates: OnceLock<Certificates>,
    /// What is counted of all messages.
    pub tallies: Arc<WholeTallies>,
    /// How large publishes are.
    pub sizes: Sizes,
    history: history::History,
}

impl Broker {
    /// Opens the data directory and puts back what was there. Blocks while it reads. The siren is for
    /// whoever watches disk and memory.
    ///
    /// # Errors
    /// What the store says, or why the configured users cannot be.
    pub fn open(
        config: Config,
        mut options: store::Options,
        clock: Clock,
    ) -> Result<(Arc<Broker>, Siren), Box<dyn std::error::Error + Send + Sync>> {
        let (siren, alarm) = alarm::channel();
        let sync = config.sync;
        if sync != store::SyncMode::Group {
            warn!(
                ?sync,
                "confirms do not wait for the disk: a power cut takes back what was confirmed before it"
            );
        }
        options.sync = sync;
        let on_full = siren.clone();
        options.on_full = Some(Arc::new(move |reason| on_full.set(Cause::FullDisk, reason)));
        let (store, recovered) = Store::open(Path::new(&config.data_dir), options)?;
        for damage in &recovered.damage {
            match damage.kind {
                store::DamageKind::TornTail => {
                    info!(detail = %damage.detail, "the log ends in an unfinished write")
                }
                _ => error!(
                    kind = ?damage.kind, segment = damage.segment, offset = damage.offset,
                    bytes = damage.bytes, lost = damage.messages.len(), detail = %damage.detail,
                    "damage in the data directory"
                ),
            }
        }
        let timers = Arc::new(Timers::new(clock.clone()));
        let budget =
            Budget::new(config.memory_high_watermark, config.memory_bytes_total, config.disk_free_bytes_min);
        let spill_bytes = config.transient_memory_bytes_max.unwrap_or(budget.limit_bytes() as usize / 2);
        let memory = Arc::new(Memory::new(config.message_memory_bytes_max, spill_bytes));
        let (exit, departed) = mpsc::unbounded_channel();
        let (news, ear) = News::new();
        let news = Arc::new(news);
        let audit = Audit::default();
        let teller = news.clone();
        audit.tell(Box::new(move |deed: &Deed| {
            teller.tell(deed.event.key, deed.at_ms, || Json::Object(deed.fields()));
        }));
        let nack_is_failure = config.nack_counts_as_failure;
        let delayed_release_rate = Some(config.delayed_release_rate).filter(|rate| *rate > 0);
        let roster = Roster::default();
        let churn = roster.churn.clone();
        let broker = Broker {
            roster,
            vhosts: DashMap::new(),
            users: RwLock::default(),
            globals: RwLock::default(),
            turn: Mutex::default(),
            attempts: Attempts::default(),
            audit,
            places: Places::default(),
            surroundings: Surroundings {
                store,
                clock,
                timers,
                memory,
                sync,
                exit,
                nack_is_failure,
                delayed_release_rate,
                tallies: Arc::default(),
                trails: Arc::new(Trails::new(0)),
                churn,
                node_name: config.node_name.as_str().into(),
                news,
            },
            uptime: Uptime::begin(),
            listeners: OnceLock::new(),
            stop: Notify::new(),
            certificates: OnceLock::new(),
            tallies: Arc::default(),
            sizes: Sizes::default(),
            history: history::History::default(),
            departed: tokio::sync::Mutex::new(departed),
            ear: tokio::sync::Mutex::new(ear),
            ids: Arc::default(),
            last_consumer: AtomicU64::new(0),
            alarm,
            budget,
            config,
        };
        broker.restore(recovered.definitions, recovered.queues);
        broker.seed()?;
        broker.load_definitions()?;
        Ok((Arc::new(broker), siren))
    }

    /// Where everything is kept.
    pub fn store(&self) -> &Store {
        &self.surroundings.store
    }

    /// What time it is.
    pub fn clock(&self) -> &Clock {
        &self.surroundings.clock
    }

    /// Has the server stop in order.
    pub fn ask_to_stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until somebody wants it to stop.
    pub async fn is_asked_to_stop(&self) {
        self.stop.notified().await;
    }

    /// Where it listens; nothing before the server does.
    pub fn listeners(&self) -> &[Listener] {
        self.listeners.get().map_or(&[], Vec::as_slice)
    }

    /// Notes where it listens, once.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        // Only the server calls this, before it serves.
        let _ = self.listeners.set(listeners);
    }

    /// The certificates in use.
    pub fn certificates(&self) -> Vec<Expiry> {
        self.certificates.get().map_or_else(Vec::new, |certificates| (certificates.0)())
    }

    /// Says, once, how to find out which certificates are in use: they may be read again at any time.
    pub fn set_certificates(&self, look: impl Fn() -> Vec<Expiry> + Send + Sync + 'static) {
        // Only the server calls this, before it serves.
        let _ = self.certificates.set(Certificates(Box::new(look)));
    }

    /// Whether publishers are to be held back.
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// A number for a new consumer.
    pub fn next_consumer_id(&self) -> ConsumerId {
        ConsumerId(self.last_consumer.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// How much memory there is.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Looks after queues whose time has come, until the caller stops polling.
    pub async fn keep_time(&self) {
        loop {
            let Some(queue) = self.surroundings.timers.next().await.upgrade() else { continue };
            if queue.tick() == Tick::Expired
                && let Ok(vhost) = self.vhost(&queue.declaration().vhost)
            {
                info!(vhost = %vhost.name(), queue = queue.name(), "queue expired unused");
                vhost.end_queue(&queue, DeleteIf::Expired);
            }
        }
    }

    /// Takes messages that have left their queues to where they belong, until the caller stops polling.
    pub async fn see_off(&self) {
        let mut departed = self.departed.lock().await;
        let bell = Arc::new(Notify::new());
        let rung = bell.clone();
        let mut session = self.surroundings.store.session(Arc::new(move || rung.notify_one()));
        let (mut waiting, mut porter) = (Vec::new(), Porter::default());
        while departed.recv_many(&mut waiting, DEPARTED_MAX).await > 0 {
            for (queue, departures) in waiting.drain(..) {
                self.see_off_of(&queue, &departures, &mut porter, &mut session);
            }
            // The store has more to write than it should: what leaves now waits, and so do the queues.
            while session.is_full() {
                bell.notified().await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Does the same with what is left, when nobody does it any more.
    pub fn see_off_the_last(&self) {
        let Ok(mut departed) = self.departed.try_lock() else { return };
        let mut session = self.surroundings.store.session(Arc::new(|| ()));
        let mut porter = Porter::default();
        while let Ok((queue, departures)) = departed.try_recv() {
            self.see_off_of(&queue, &departures, &mut porter, &mut session);
        }
    }

    fn see_off_of(
        &self,
        queue: &queue::Handle,
        departures: &[queue::Departure],
        porter: &mut Porter,
        session: &mut store::Session,
    ) {
        if let Ok(vhost) = self.vhost(&queue.declaration().vhost) {
            vhost.see_off(queue, departures, &mut porter.matches, &mut porter.batch);
            let append =
                |operations: std::vec::Drain<'_, Operation>, _| session.append(operations, Urgency::Lazy);
            let (_, outcome) = porter.batch.flush(None, append);
            outcome.refused.iter().for_each(|_| vhost.lose(queue, queue::Lost::NoRoom, false));
        }
        queue.seen_off(departures.len());
    }

    /// The memory of all queues.
    pub fn memory(&self) -> &Memory {
        &self.surroundings.memory
    }

    /// Has queues that nobody touches give up memory that others need, until the caller stops polling.
    pub async fn keep_memory(&self) {
        loop {
            let is_over = self.surroundings.memory.is_over();
            tokio::time::sleep(if is_over { MEMORY_PERIOD_SHORT } else { MEMORY_PERIOD }).await;
            if self.surroundings.memory.is_short() {
                self.vhosts().iter().flat_map(|vhost| vhost.queues()).for_each(|queue| queue.page_out());
            }
        }
    }

    fn restore(&self, kept: Vec<(Vec<u8>, Vec<u8>)>, queues: Vec<RecoveredQueue>) {
        let mut definitions: Vec<Definition> = Vec::with_capacity(kept.len());
        for (key, value) in kept {
            match Definition::decode(&key, &value) {
                Ok(definition) => definitions.push(definition),
                Err(reason) => {
                    error!(key = %String::from_utf8_lossy(&key), reason, "a definition cannot be read")
                }
            }
        }
        // What is referred to comes before what refers to it.
        definitions.sort_by_key(|definition| match definition {
            Definition::Vhost(_) | Definition::GlobalParameter(_) => 0,
            Definition::User(_) => 1,
            Definition::Permission(_) => 2,
            Definition::TopicPermission(_) => 3,
            Definition::Policy(_) => 4,
            Definition::Exchange(_) => 5,
            Definition::Delays(_) | Definition::Window(_) => 6,
            Definition::Queue(_) => 7,
            Definition::Binding(_) => 8,
        });
        let mut queues: HashMap<QueueId, RecoveredQueue> = queues.into_iter().map(|q| (q.queue, q)).collect();
        let spilled = queues.extract_if(|id, _| queue::is_spill(*id));
        let forgotten: Vec<Operation> = spilled.map(|(queue, _)| Operation::QueueDelete { queue }).collect();
        if !forgotten.is_empty() {
            info!(
                queues = forgotten.len(),
                "messages that were only written for want of memory are forgotten"
            );
            self.surroundings.store.append(forgotten, Urgency::Lazy);
        }
        queues.keys().for_each(|&id| self.ids.reserve(id));
        // IMPORTANT: the numbers of deleted queues are not used again, though nobody knows them any more:
        // old records of such a queue may still be in the log. So each start begins above all before.
        self.ids.reserve(QueueId(self.clock().now_ms() << 20));
        for definition in definitions {
            if let Err(reason) = self.restore_one(&definition, &mut queues) {
                error!(?definition, %reason, "a definition cannot be put back");
            }
        }
        for id in queues.keys() {
            warn!(queue = id.0, "messages of a queue that no definition names are left alone");
        }
    }

    fn restore_one(
        &self,
        definition: &Definition,
        queues: &mut HashMap<QueueId, RecoveredQueue>,
    ) -> Result<(), Error> {
        match definition {
            Definition::Vhost(kept) => {
                self.add_vhost(kept.clone());
                Ok(())
            }
            Definition::GlobalParameter(kept) => {
                self.globals_mut().insert(kept.name.clone(), kept.value.clone());
                Ok(())
            }
            Definition::User(kept) => {
                self.users_mut().insert(kept.clone());
                Ok(())
            }
            Definition::Permission(kept) => {
                self.users_mut().permit(&kept.user, &kept.vhost, Some(kept.permission.clone()));
                Ok(())
            }
            Definition::TopicPermission(kept) => {
                let permission = Some(kept.permission.clone());
                self.users_mut().permit_topic(&kept.user, &kept.vhost, &kept.exchange, permission);
                Ok(())
            }
            Definition::Policy(kept) => self.vhost(&kept.vhost)?.restore_policy(kept),
            Definition::Exchange(kept) => self.vhost(&kept.vhost)?.restore_exchange(kept),
            Definition::Binding(kept) => self.vhost(&kept.vhost)?.restore_binding(kept),
            Definition::Delays(kept) => {
                let delays = self.vhost(&kept.vhost)?.restore_delays(kept)?;
                delays.marks_id().and_then(|marks| queues.remove(&marks));
                if let Some(recovered) = queues.remove(&delays.id()) {
                    delays.restore(0, &recovered);
                    let messages = recovered.live;
                    info!(
                        vhost = kept.vhost,
                        exchange = kept.exchange,
                        messages,
                        "delayed messages recovered"
                    );
                }
                Ok(())
            }
            Definition::Window(kept) => {
                let recovered = queues.remove(&QueueId(kept.id));
                self.vhost(&kept.vhost)?.restore_window(kept, recovered)
            }
            Definition::Queue(kept) => {
                let queue = self.vhost(&kept.vhost)?.restore_queue(kept)?;
                let mut messages = 0;
                for (level, id) in (0..=u8::MAX).zip(queue.line_ids()) {
                    if let Some(recovered) = queues.remove(&id) {
                        queue.restore(level, &recovered);
                        messages += recovered.live;
                    }
                }
                info!(vhost = kept.vhost, queue = kept.name, messages, "queue recovered");
                Ok(())
            }
        }
    }

    // Changes -------------------------------------------------------------------------------------

    /// Makes a change that an administrator asks for: nothing else is changed meanwhile, the store has it when
    /// this returns, and it is told of. May block.
    fn perform<T>(
        &self,
        actor: &Actor,
        what: &str,
        change: impl FnOnce() -> Result<Change<T>, Error>,
    ) -> Result<T, Error> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change().inspect_err(|error| self.audit.refused(actor, what, error))?;
        let Change { operations, events, value } = changed;
        self.tell(operations);
        drop(turn);
        if !events.is_empty() {
            self.keep(Vec::new())?;
        }
        events.into_iter().for_each(|event| self.audit.done(actor, event, self.clock()));
        Ok(value)
    }

    /// Appends what belongs together: all of it happens or none.
    fn tell(&self, operations: Vec<Operation>) {
        let operations = match operations.len() {
            0 => return,
            1 => operations,
            _ => vec![Operation::Atomic(operations)],
        };
        self.store().append(operations, Urgency::Lazy);
    }

    /// Appends it, and waits until the disk has this and all before.
    fn keep(&self, operations: Vec<Operation>) -> Result<(), Error> {
        self.tell(operations);
        self.store().append_and_wait(Vec::new()).map_err(|error| Error::Store(error.to_string()))
    }

    fn users(&self) -> RwLockReadGuard<'_, Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn users_mut(&self) -> RwLockWriteGuard<'_, Users> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn globals(&self) -> RwLockReadGuard<'_, Globals> {
        self.globals.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn globals_mut(&self) -> RwLockWriteGuard<'_, Globals> {
        self.globals.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a change comes to: it has been made, and has to be kept and told of.
struct Change<T> {
    operations: Vec<Operation>,
    events: Vec<AdminEvent>,
    value: T,
}

impl<T> Change<T> {
    /// Nothing has changed.
    fn nothing(value: T) -> Change<T> {
        Change { operations: Vec::new(), events: Vec::new(), value }
    }

    /// Another belongs to it.
    fn add<U>(&mut self, other: Change<U>) {
        self.operations.extend(other.operations);
        self.events.extend(other.events);
    }
}

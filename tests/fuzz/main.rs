//! Whole connections against a running broker: conversations made up by chance, most of them broken on
//! purpose, while a client that behaves must not notice any of it.
//!
//! ```text
//!   workers ── conversations, mutated ──┐
//!   janitor ── deletes what they made ──┼──> garenne (a child process)
//!   watchdog ── confirms, deliveries ───┘      memory, open files, log
//! ```
//!
//! The broker must not panic, die, keep memory or sockets, hang up late, refuse a valid conversation, or
//! keep the watchdog waiting. Afterwards it is killed and must come back with what it had confirmed.
//!
//! `GARENNE_FUZZ_SECS` how long (3); `GARENNE_FUZZ_START` the first seed (chance); `GARENNE_FUZZ_SEED`
//! that conversation alone; `GARENNE_FUZZ_WORKERS` how many at a time (6); `GARENNE_FUZZ_BIN` another
//! broker; `GARENNE_FUZZ_LOG` its log filter (info). `tests/fuzz/run SECONDS` does the long round.

mod broker;
mod client;
mod grammar;
mod janitor;
mod mutate;
mod play;
mod random;
mod watchdog;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker::Broker;
use bytes::BytesMut;
use play::Silent;
use watchdog::Watchdog;

/// Forgotten sockets at a time.
const SILENT_MAX: usize = 200;

/// Memory that may stay after everybody has left: the allocator's, the log's index, the last queues'.
const GROWTH_KIB_MAX: u64 = 128 * 1024;

/// Open files that may stay: segments of the log come and go.
const FILES_MAX: usize = 16;

/// Persistent messages that have to be there after the broker was killed.
const KEPT: u32 = 100;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fuzz_connection FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is '{text}', and must be a number")))
}

/// What all threads share.
struct Round {
    address: SocketAddr,
    is_over: AtomicBool,
    next_seed: AtomicU64,
    played: AtomicU64,
    valid: AtomicU64,
    bytes: AtomicU64,
    left_silent: AtomicU64,
    silent: Mutex<Vec<Silent>>,
    silent_count: AtomicUsize,
    /// Seeds that were played last, to look for the guilty one.
    recent: Mutex<VecDeque<u64>>,
    failures: Mutex<Vec<String>>,
    sweeps: AtomicU64,
}

impl Round {
    fn new(address: SocketAddr, start: u64) -> Arc<Round> {
        Arc::new(Round {
            address,
            is_over: AtomicBool::new(false),
            next_seed: AtomicU64::new(start),
            played: AtomicU64::new(0),
            valid: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            left_silent: AtomicU64::new(0),
            silent: Mutex::default(),
            silent_count: AtomicUsize::new(0),
            recent: Mutex::default(),
            failures: Mutex::default(),
            sweeps: AtomicU64::new(0),
        })
    }

    fn fail(&self, failure: String) {
        eprintln!("  failure: {failure}");
        self.failures.lock().unwrap().push(failure);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn play(&self, seed: u64) {
        {
            let mut recent = self.recent.lock().unwrap();
            recent.push_back(seed);
            if recent.len() > 60 {
                recent.pop_front();
            }
        }
        let conversation = prepared(seed);
        self.played.fetch_add(1, Ordering::Relaxed);
        self.valid.fetch_add(conversation.is_valid.into(), Ordering::Relaxed);
        self.bytes.fetch_add(conversation.frames.iter().map(|f| f.len() as u64).sum(), Ordering::Relaxed);
        match play::play(self.address, conversation) {
            Ok(None) => {}
            Ok(Some(silent)) => {
                self.left_silent.fetch_add(1, Ordering::Relaxed);
                let mut all = self.silent.lock().unwrap();
                if all.len() < SILENT_MAX {
                    all.push(silent);
                }
                self.silent_count.store(all.len(), Ordering::Relaxed);
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// Lets go of the sockets whose time has come.
    fn end_silent(&self) {
        let due: Vec<Silent> = {
            let mut all = self.silent.lock().unwrap();
            let now = Instant::now();
            let (due, rest) = std::mem::take(&mut *all).into_iter().partition(|silent| silent.until <= now);
            *all = rest;
            due
        };
        for silent in due {
            if let Err(failure) = silent.check() {
                self.fail(failure);
            }
        }
    }
}

/// The conversation of a seed as it will be said: mutated, unless it is to stay valid.
fn prepared(seed: u64) -> grammar::Conversation {
    let mut conversation = grammar::conversation(seed);
    if !conversation.is_valid {
        mutate::mutate(&mut conversation.frames, grammar::HANDSHAKE, &mut conversation.random);
    }
    conversation
}

fn run() -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut broker = Broker::start(dir.path())?;
    let failed = |e: std::io::Error| e.to_string();
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_micros() as u64);
    if let Some(seed) = number("GARENNE_FUZZ_SEED") {
        return replay(&mut broker, seed);
    }
    let seconds = number("GARENNE_FUZZ_SECS").unwrap_or(3);
    let start = number("GARENNE_FUZZ_START").unwrap_or(chance);
    let workers = number("GARENNE_FUZZ_WORKERS").unwrap_or(6);
    eprintln!("fuzz_connection: {seconds} s from seed {start}, {workers} at a time, broker {}", broker.id());

    keep_messages(broker.address)?;
    let mut dog = Watchdog::new(broker.address, "watchdog").map_err(failed)?;
    for _ in 0..20 {
        dog.round().map_err(failed)?;
    }
    let (start_kib, start_files) = (broker.resident_kib(), broker.open_files());
    let mut peak_kib = start_kib;
    let round = Round::new(broker.address, start);
    let mut threads = Vec::new();
    for _ in 0..workers {
        let round = round.clone();
        threads.push(std::thread::spawn(move || {
            while !round.is_over() {
                round.play(round.next_seed.fetch_add(1, Ordering::SeqCst));
            }
        }));
    }
    threads.push(std::thread::spawn({
        let round = round.clone();
        move || sweep_until_over(&round)
    }));
    threads.push(std::thread::spawn({
        let round = round.clone();
        move || {
            while !round.is_over() {
                round.end_silent();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }));

    let began = Instant::now();
    let mut last_report = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        if let Err(error) = dog.round() {
            round.fail(format!("watchdog: {error}"));
            break;
        }
        peak_kib = peak_kib.max(broker.resident_kib());
        let has_panicked = !broker.said.lock().unwrap().panics.is_empty();
        if has_panicked || !broker.is_alive() {
            round.fail("the broker has panicked, or is gone".into());
            break;
        }
        if last_report.elapsed() > Duration::from_secs(30) {
            last_report = Instant::now();
            eprintln!(
                "  {:4} s: {} conversations, {} MiB resident, {} files, {} silent, watchdog {} messages, slowest {:?}",
                began.elapsed().as_secs(),
                round.played.load(Ordering::Relaxed),
                broker.resident_kib() / 1024,
                broker.open_files(),
                round.silent_count.load(Ordering::Relaxed),
                dog.messages,
                dog.slowest,
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    round.is_over.store(true, Ordering::SeqCst);
    let elapsed = began.elapsed();
    for thread in threads {
        thread.join().map_err(|_| "a thread of the fuzzer has panicked")?;
    }
    let recent: Vec<u64> = round.recent.lock().unwrap().iter().copied().collect();
    round.silent.lock().unwrap().clear();

    let (end_kib, end_files) = settle(&mut broker, &round, start_files);
    let played = round.played.load(Ordering::Relaxed);
    eprintln!(
        "  {played} conversations ({} valid, {} left silent), {} MiB said, {:.0} a second; {} sweeps",
        round.valid.load(Ordering::Relaxed),
        round.left_silent.load(Ordering::Relaxed),
        round.bytes.load(Ordering::Relaxed) >> 20,
        played as f64 / elapsed.as_secs_f64(),
        round.sweeps.load(Ordering::Relaxed),
    );
    eprintln!("  watchdog: {} messages, slowest round {:?}", dog.messages, dog.slowest);
    eprintln!(
        "  resident: start {} MiB, peak {} MiB, end {} MiB; open files: start {start_files}, end {end_files}",
        start_kib / 1024,
        peak_kib / 1024,
        end_kib / 1024
    );
    if end_kib > start_kib + GROWTH_KIB_MAX {
        round.fail(format!("{} MiB stayed resident after all had left", end_kib / 1024));
    }
    if end_files > start_files + FILES_MAX {
        round.fail(format!("{end_files} files stayed open after all had left, {start_files} at the start"));
    }
    if let Err(error) = dog.round() {
        round.fail(format!("watchdog, afterwards: {error}\nthe log ends with\n{}", broker.last_words()));
    }
    {
        let said = broker.said.lock().unwrap();
        eprintln!("  log: {} lines, {} errors, {} panics", said.lines, said.errors.len(), said.panics.len());
        said.errors.iter().for_each(|line| eprintln!("  error: {line}"));
        for line in &said.panics {
            round.fail(format!(
                "the log says: {line}\n{}",
                said.last.iter().cloned().collect::<Vec<_>>().join("\n")
            ));
        }
    }
    broker.kill();
    come_back(dir.path(), &round);

    let failures = round.failures.lock().unwrap();
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("{} failures; the last seeds were {recent:?}\n{}", failures.len(), failures.join("\n")))
}

fn sweep_until_over(round: &Round) {
    let mut last = Instant::now();
    while !round.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        if last.elapsed() < Duration::from_secs(2) {
            continue;
        }
        last = Instant::now();
        match janitor::sweep(round.address) {
            Ok(()) => drop(round.sweeps.fetch_add(1, Ordering::Relaxed)),
            Err(error) => round.fail(format!("janitor: {error}")),
        }
    }
}

/// Waits until the broker has let go of all that have left: its memory and open files then.
fn settle(broker: &mut Broker, round: &Round, files: usize) -> (u64, usize) {
    let until = Instant::now() + Duration::from_secs(20);
    std::thread::sleep(Duration::from_secs(1));
    if let Err(error) = janitor::sweep(round.address) {
        round.fail(format!("janitor, afterwards: {error}"));
    }
    while broker.open_files() > files + 2 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    (broker.resident_kib(), broker.open_files())
}

/// Messages that a restart has to find.
fn keep_messages(address: SocketAddr) -> Result<(), String> {
    let keep = || -> std::io::Result<()> {
        let mut client = client::Client::connect(address, "guest")?;
        client.open_channel(1)?;
        watchdog::declare(&mut client, 1, "kept")?;
        let select = amqp::method::confirm::Select { nowait: false };
        client.call(1, &amqp::method::Cold::Confirm(amqp::method::confirm::AMQPMethod::Select(select)))?;
        let mut out = BytesMut::new();
        for n in 0..KEPT {
            watchdog::put_publish(&mut out, 1, "kept", &n.to_be_bytes());
        }
        client.write(&out)?;
        let until = Instant::now() + client::PATIENCE;
        loop {
            let frame = client.receive(until)?;
            if let Ok(amqp::Method::Ack(ack)) = amqp::method::decode(&frame.payload)
                && ack.delivery_tag == u64::from(KEPT)
            {
                return Ok(());
            }
        }
    };
    keep().map_err(|e| format!("messages to keep: {e}"))
}

/// Whatever was declared under fire, the broker can be started with it.
fn come_back(dir: &std::path::Path, round: &Round) {
    let began = Instant::now();
    let broker = match Broker::start(dir) {
        Ok(broker) => broker,
        Err(error) => return round.fail(format!("killed, it does not come back: {error}")),
    };
    let check = || -> std::io::Result<()> {
        let mut client = client::Client::connect(broker.address, "guest")?;
        client.open_channel(1)?;
        let found = watchdog::declare(&mut client, 1, "kept")?;
        if found != KEPT {
            return Err(std::io::Error::other(format!("{found} of {KEPT} confirmed messages")));
        }
        let mut dog = Watchdog::new(broker.address, "watchdog-again")?;
        (0..20).try_for_each(|_| dog.round())
    };
    match check() {
        Ok(()) => eprintln!("  killed and back in {:?}, with all that was confirmed", began.elapsed()),
        Err(error) => round.fail(format!("killed and back, {error}")),
    }
    for panic in &broker.said.lock().unwrap().panics {
        round.fail(format!("killed and back, the log says: {panic}"));
    }
}

/// One conversation alone, shown.
fn replay(broker: &mut Broker, seed: u64) -> Result<(), String> {
    let conversation = prepared(seed);
    eprintln!("seed {seed}, valid: {}, heartbeat {} s", conversation.is_valid, conversation.heartbeat_secs);
    for frame in &conversation.frames {
        let shown: String = frame.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{shown}{}", if frame.len() > 200 { ".." } else { "" });
    }
    let round = Round::new(broker.address, seed);
    round.play(seed);
    std::thread::sleep(Duration::from_millis(500));
    let silent = std::mem::take(&mut *round.silent.lock().unwrap());
    for one in silent {
        std::thread::sleep(one.until.saturating_duration_since(Instant::now()));
        one.check()?;
    }
    eprintln!("the broker says:\n{}", broker.last_words());
    let panics = broker.said.lock().unwrap().panics.len();
    let failures = round.failures.lock().unwrap();
    match (panics, failures.len()) {
        (0, 0) => Ok(()),
        _ => Err(format!("{panics} panics; {failures:?}")),
    }
}

//! Kills the broker with SIGKILL again and again while clients work, and counts what is lost, comes twice
//! or out of order, or is half done.
//!
//! Without environment variables it is a short check (a few kills); `tests/crash/run KILLS` is the long
//! form. CRASH_KILLS, CRASH_LOAD_KILLS, CRASH_TX_KILLS and CRASH_CHAIN_KILLS say how often, and
//! CRASH_CHAIN_MESSAGES how many messages go down the chain of dead letters at least. CRASH_SEED repeats the
//! plan of a run: when to kill, what is published how fast. (The threads of two processes are not repeated by a
//! seed.) CRASH_DIR keeps the data and the broker's log. Ends with an error if anything was found that must not be.

mod broker;
mod chain;
mod chain_ledger;
mod dice;
mod findings;
mod load;
mod plain;
mod plain_ledger;
mod publisher;
mod transactions;
mod transactions_ledger;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use broker::Broker;
use dice::Dice;
use findings::Findings;

/// An error that ends the run: the broker does not start, a client cannot connect to a live broker.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a run adds to the last line.
#[derive(Default)]
pub struct Totals {
    pub published: u64,
    pub confirmed: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub half_applied: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.published += other.published;
        self.confirmed += other.confirmed;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.half_applied += other.half_applied;
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.any(|word| word == "--list" || !(word.starts_with('-') || "crash".contains(&word))) {
        // cargo test NAME runs all test binaries; this one is meant only by its own name.
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool, Failure> {
    let kills = number("CRASH_KILLS")?.unwrap_or(3);
    let load_kills = number("CRASH_LOAD_KILLS")?.unwrap_or(2);
    let tx_kills = number("CRASH_TX_KILLS")?.unwrap_or(2);
    let chain_kills = number("CRASH_CHAIN_KILLS")?.unwrap_or(2);
    let chain_messages = number("CRASH_CHAIN_MESSAGES")?.unwrap_or(2000);
    let seed = number("CRASH_SEED")?.unwrap_or_else(any_seed);
    let (dir, temporary) = match std::env::var_os("CRASH_DIR") {
        Some(dir) => (PathBuf::from(dir), None),
        None => {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    println!("crash: seed {seed} (CRASH_SEED={seed} repeats its plan), data in {}", dir.display());
    let start = Instant::now();
    let mut dice = Dice::new(seed);

    let mut totals = Totals::default();
    let (plain_dice, tx_dice, load_dice) = (dice.fork(), dice.fork(), dice.fork());
    let chain_dice = dice.fork();
    let plain_findings = Findings::new("plain");
    if kills > 0 {
        let mut broker = Broker::new(&dir.join("plain"))?;
        let ran = plain::run(&mut broker, kills, plain_dice, &plain_findings).await;
        report(&broker, &plain_findings);
        totals.add(&ran?);
    }
    let load_findings = Findings::new("load");
    if load_kills > 0 {
        let mut broker = Broker::new(&dir.join("load"))?;
        let ran = load::run(&mut broker, load_kills, load_dice, &load_findings).await;
        report(&broker, &load_findings);
        totals.add(&ran?);
    }
    let tx_findings = Findings::new("tx");
    if tx_kills > 0 {
        let mut broker = Broker::new(&dir.join("tx"))?;
        let ran = transactions::run(&mut broker, tx_kills, tx_dice, &tx_findings).await;
        report(&broker, &tx_findings);
        totals.add(&ran?);
    }

    let chain_findings = Findings::new("chain");
    if chain_kills > 0 {
        let mut broker = Broker::new(&dir.join("chain"))?;
        let ran = chain::run(&mut broker, chain_kills, chain_messages, chain_dice, &chain_findings).await;
        report(&broker, &chain_findings);
        totals.add(&ran?);
    }

    let all = [&plain_findings, &load_findings, &tx_findings, &chain_findings];
    let is_clean = all.iter().all(|found| found.is_empty());
    let verdict = if is_clean { "nothing found" } else { "VIOLATIONS, see above" };
    let secs = start.elapsed().as_secs();
    println!(
        "crash: kills {kills} + {load_kills} under full load + {tx_kills} with tx + {chain_kills} down the chain, \
         published {}, confirmed {}, lost {}, duplicated {}, out of order {}, half-applied {}; {secs} s, seed {seed}: {verdict}",
        totals.published,
        totals.confirmed,
        totals.lost,
        totals.duplicated,
        totals.out_of_order,
        totals.half_applied,
    );
    if !is_clean && let Some(temporary) = temporary {
        println!("crash: data and logs are kept in {}", temporary.keep().display());
    }
    Ok(is_clean)
}

/// Takes a lock, also after a thread has panicked with it: that is found elsewhere.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(broker: &Broker, findings: &Findings) {
    findings.print();
    for line in broker.complaints() {
        println!("  broker: {line}");
    }
}

fn number(name: &str) -> Result<Option<u64>, Failure> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    let number = text.parse::<u64>();
    number.map(Some).map_err(|e| format!("{name}={text}: {e}; it is a number").into())
}

fn any_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_micros() as u64 % 1_000_000_000)
}

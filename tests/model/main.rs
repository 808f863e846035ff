//! Random operations on a queue with random arguments, beside a model of it that is obviously right: which
//! message goes to whom in which order, what is confirmed and refused, what dies of what, and what is there
//! after a restart.
//!
//! ```text
//!   dice ── steps ──┬──> garenne, over the wire ──┐
//!                   └──> model (lists) ───────────┴── must say the same
//! ```
//!
//! Without arguments it is a short check. `tests/model/run SEEDS [STEPS]` is the long form, and
//! `tests/model/run --seed N --steps M` plays one seed again.

mod broker;
mod client;
#[path = "../crash/dice.rs"]
mod dice;
mod model;
mod play;
mod settings;

use std::process::ExitCode;
use std::time::Instant;

/// Seeds and steps of the short check.
const SEEDS: u64 = 8;
const STEPS: u64 = 600;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.any(|word| word == "--list" || !(word.starts_with('-') || "model".contains(&word))) {
        // cargo test NAME runs all test binaries; this one is meant only by its own name.
        return ExitCode::SUCCESS;
    }
    let steps = number("MODEL_STEPS").unwrap_or(STEPS);
    let first = number("MODEL_SEED").unwrap_or(1);
    let seeds = number("MODEL_SEEDS").unwrap_or(SEEDS);
    let mut failed = 0;
    let began = Instant::now();
    for seed in first..first + seeds {
        let started = Instant::now();
        match play::play(seed, steps) {
            Ok(()) => {
                let a_second = steps as f64 / started.elapsed().as_secs_f64();
                println!("model: seed {seed}: {steps} steps, {a_second:.0} a second");
            }
            Err(failure) => {
                failed += 1;
                println!("model: seed {seed} FAILED\n{failure}");
                println!("again: tests/model/run --seed {seed} --steps {steps}");
            }
        }
    }
    println!("model: {seeds} seeds, {failed} failed, {:.1} s", began.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is '{text}', and must be a number")))
}

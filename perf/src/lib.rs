//! `garenne perf`: a load generator for AMQP 0-9-1 brokers that numbers its messages and checks what comes
//! out. It speaks to any broker by its URI and has never heard of ours.
//!
//! ```text
//! arguments ─> load ─> threads (host), each with its connections ─> report
//!                        producer: pace, stamp, confirms
//!                        consumer: inbox, delivery, ledger
//! ```
//!
//! It must cost less a message than any broker, or it measures itself. So messages are copied from a
//! template and stamped, a buffer of them is one write, a read is walked as frames in place, and what the
//! threads share is counted once a buffer.

#![deny(missing_docs)]

mod arguments;
mod uri;

mod load;

mod figures;
mod measure;
mod routes;

mod declare;
mod disk;
mod first;
mod idle;

mod consumer;
mod host;
mod producer;

mod board;
mod delivery;
mod error;
mod inbox;
mod ledger;
mod line;
mod numbers;
mod pace;
mod report;
mod session;
mod setup;
mod stamp;
mod topology;
mod usage;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use arguments::Arguments;

use arguments::Mode;
use error::Error;
use report::finish;

/// Does what the command line says. Status 1 is a fault of the broker, or none to be found.
pub fn run(arguments: &Arguments) -> ExitCode {
    allow_many_sockets();
    let is_json = arguments.is_json();
    dispatch(arguments, is_json).unwrap_or_else(|error| {
        if is_json {
            println!("{}", serde_json::json!({ "errors": [error.to_string()] }));
        }
        eprintln!("garenne perf: {error}");
        ExitCode::FAILURE
    })
}

fn dispatch(arguments: &Arguments, is_json: bool) -> Result<ExitCode, Error> {
    let under_load = |plan: load::Plan| {
        let figures = load::run(&plan)?;
        Ok(finish(&figures, figures.is_clean(), is_json))
    };
    match &arguments.mode {
        None => under_load(arguments.run.plan()?),
        Some(Mode::Run(run)) => under_load(run.plan()?),
        Some(Mode::Fill(fill)) => under_load(fill.plan()?),
        Some(Mode::Drain(drain)) => under_load(drain.plan()?),
        Some(Mode::Declare(mode)) => Ok(finish(&declare::run(&mode.plan())?, true, is_json)),
        Some(Mode::Idle(mode)) => {
            let report = idle::run(&mode.plan())?;
            Ok(finish(&report, report.is_clean(), is_json))
        }
        Some(Mode::First(mode)) => Ok(finish(&first::run(&mode.plan())?, true, is_json)),
        Some(Mode::Disk(mode)) => Ok(finish(&disk::run(&mode.plan())?, true, is_json)),
    }
}

/// Takes as many open files as we are allowed: a shell often gives fewer.
fn allow_many_sockets() {
    let limit = getrlimit(Resource::Nofile);
    // If it is refused, opening the connections will say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

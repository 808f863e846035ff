//! How long it takes from now until a broker lets us in, and until a queue gives its first message: the
//! time of a restart, for whoever starts this together with the broker.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use amqp::ReplyCode;
use amqp::method::{Cold, basic};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::report::round;
use crate::session::{CHANNEL, Session};
use crate::setup::{self, Consume};
use crate::uri::Uri;

/// What is to be done.
pub struct Plan {
    /// Which broker.
    pub uri: Uri,
    /// Which queue; `None` stops as soon as we are let in.
    pub queue: Option<String>,
    /// After how long to give up.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    mode: &'static str,
    broker: String,
    /// Until connection.open-ok.
    connected_ms: f64,
    /// Until the first basic.deliver.
    received_ms: Option<f64>,
    /// Attempts to connect.
    attempts: u64,
}

/// Between two attempts: far less than what is measured.
const RETRY: Duration = Duration::from_millis(1);

/// Tries until it works or patience ends. The message stays in its queue: it is never acknowledged.
pub fn run(plan: &Plan) -> Result<Report> {
    let start = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match attempt(plan, start) {
            Ok((connected_ms, received_ms)) => {
                let (mode, broker) = ("first", plan.uri.to_string());
                return Ok(Report { mode, broker, connected_ms, received_ms, attempts });
            }
            Err(error) if start.elapsed() >= plan.patience || !may_pass(&error) => return Err(error),
            Err(_) => thread::sleep(RETRY),
        }
    }
}

/// Whether a broker that is still starting would say that: a refused or cut connection, or a queue that
/// is not back yet.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Io { .. } => true,
        Error::Closed { code, .. } => *code == ReplyCode::NotFound.number(),
        _ => false,
    }
}

fn attempt(plan: &Plan, start: Instant) -> Result<(f64, Option<f64>)> {
    let millis = || round(start.elapsed().as_secs_f64() * 1000.0, 2);
    let mut session = Session::connect(&plan.uri)?;
    let connected_ms = millis();
    let Some(queue) = &plan.queue else { return Ok((connected_ms, None)) };
    session.open_channel()?;
    setup::prefetch(&mut session, 1)?;
    session.send(CHANNEL, setup::consume(queue, 0, Consume { no_ack: false, nowait: true }))?;
    loop {
        if let Cold::Basic(basic::AMQPMethod::Deliver(_)) = session.next_method()? {
            return Ok((connected_ms, Some(millis())));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "first {}: let in after {} ms", self.broker, self.connected_ms)?;
        match self.received_ms {
            Some(millis) => writeln!(f, "  first message after {millis} ms"),
            None => Ok(()),
        }
    }
}

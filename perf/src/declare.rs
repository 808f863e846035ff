//! Many durable queues, declared and bound one request at a time: how fast, and what each one costs.

use std::fmt;
use std::time::{Duration, Instant};

use amqp::method::{Cold, FieldTable, exchange};
use serde::Serialize;

use crate::error::Result;
use crate::report::{Memory, grouped, round};
use crate::session::Session;
use crate::setup;
use crate::topology::queue_name;
use crate::uri::Uri;
use crate::usage::Processes;

/// What is to be done.
pub struct Plan {
    /// Which broker.
    pub uri: Uri,
    /// How many queues.
    pub queues: usize,
    /// What their names begin with; the name of the direct exchange that they are bound to.
    pub prefix: String,
    /// Whether they stay.
    pub must_keep_queues: bool,
    /// The broker's process.
    pub broker: Option<u32>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    mode: &'static str,
    broker: String,
    queues: usize,
    seconds: f64,
    /// Queues with their binding: two requests each.
    queues_per_second: f64,
    kib_each: Option<f64>,
    broker_memory: Option<Memory>,
}

/// A broker's memory settles a little after it has answered.
const SETTLE: Duration = Duration::from_secs(1);

/// Declares and binds.
pub fn run(plan: &Plan) -> Result<Report> {
    let processes = plan.broker.map(Processes::tree).transpose()?;
    let mut session = Session::open(&plan.uri)?;
    let exchange = plan.prefix.as_str();
    let declare = exchange::Declare {
        exchange: exchange.into(),
        kind: "direct".into(),
        durable: true,
        ..Default::default()
    };
    session.call(Cold::Exchange(exchange::AMQPMethod::Declare(declare)))?;
    let names: Vec<String> = (0..plan.queues).map(|queue| queue_name(exchange, queue)).collect();
    let mut memory = processes.as_ref().map(|processes| Memory::starting(processes.usage()));

    let start = Instant::now();
    for name in &names {
        setup::declare_queue(&mut session, name, true, FieldTable::default())?;
        setup::bind(&mut session, name, exchange, name, FieldTable::default())?;
    }
    let seconds = start.elapsed().as_secs_f64();

    if let (Some(processes), Some(memory)) = (&processes, &mut memory) {
        std::thread::sleep(SETTLE);
        memory.see(processes.usage());
    }
    if !plan.must_keep_queues {
        setup::delete(&mut session, exchange, &names)?;
    }
    session.close()?;
    Ok(Report {
        mode: "declare",
        broker: plan.uri.to_string(),
        queues: plan.queues,
        seconds: round(seconds, 3),
        queues_per_second: round(plan.queues as f64 / seconds, 1),
        kib_each: memory.map(|memory| memory.kib_each(plan.queues)),
        broker_memory: memory,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (queues, rate) = (grouped(self.queues as u64), grouped(self.queues_per_second as u64));
        writeln!(f, "declare {}: {queues} queues in {:.2} s, {rate}/s", self.broker, self.seconds)?;
        if let (Some(each), Some(memory)) = (self.kib_each, &self.broker_memory) {
            writeln!(f, "  memory        {each:.1} KiB each: {memory}")?;
        }
        Ok(())
    }
}

//! Many connections with a channel and a consumer each that do nothing: how fast they open, what each
//! one costs.

use std::fmt;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use amqp::method::FieldTable;
use serde::Serialize;

use crate::error::Result;
use crate::report::{Memory, grouped, round};
use crate::session::{Session, io_error};
use crate::setup::{self, Consume};
use crate::topology::queue_name;
use crate::uri::Uri;
use crate::usage::Processes;

/// What is to be done.
pub struct Plan {
    /// Which broker.
    pub uri: Uri,
    /// How many connections.
    pub connections: usize,
    /// How many queues their consumers are spread over.
    pub queues: usize,
    /// What the queues' names begin with.
    pub prefix: String,
    /// How many connections are opened at a time.
    pub threads: usize,
    /// How long they are held.
    pub duration: Duration,
    /// The broker's process.
    pub broker: Option<u32>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    mode: &'static str,
    broker: String,
    connections: usize,
    seconds_to_open: f64,
    connections_per_second: f64,
    /// Connections that the broker had closed at the end.
    dropped: usize,
    kib_each: Option<f64>,
    broker_memory: Option<Memory>,
}

impl Report {
    /// Whether all connections stayed.
    pub fn is_clean(&self) -> bool {
        self.dropped == 0
    }
}

/// Opens, holds, looks, closes.
pub fn run(plan: &Plan) -> Result<Report> {
    let processes = plan.broker.map(Processes::tree).transpose()?;
    let mut session = Session::open(&plan.uri)?;
    let queues: Vec<String> = (0..plan.queues).map(|queue| queue_name(&plan.prefix, queue)).collect();
    for name in &queues {
        setup::declare_queue(&mut session, name, false, FieldTable::default())?;
    }
    let mut memory = processes.as_ref().map(|processes| Memory::starting(processes.usage()));

    let start = Instant::now();
    let sessions = open_all(plan, &queues)?;
    let seconds = start.elapsed().as_secs_f64();

    thread::sleep(plan.duration);
    if let (Some(processes), Some(memory)) = (&processes, &mut memory) {
        memory.see(processes.usage());
    }
    let mut dropped = 0;
    for session in sessions {
        match is_dropped(&session)? {
            true => dropped += 1,
            false => session.close()?,
        }
    }
    setup::delete(&mut session, &plan.prefix, &queues)?;
    session.close()?;
    Ok(Report {
        mode: "idle",
        broker: plan.uri.to_string(),
        connections: plan.connections,
        seconds_to_open: round(seconds, 3),
        connections_per_second: round(plan.connections as f64 / seconds, 1),
        dropped,
        kib_each: memory.map(|memory| memory.kib_each(plan.connections)),
        broker_memory: memory,
    })
}

fn open_all(plan: &Plan, queues: &[String]) -> Result<Vec<Session>> {
    thread::scope(|scope| {
        let open_share = |first: usize| {
            let indexes = (first..plan.connections).step_by(plan.threads);
            indexes.map(|index| open(plan, &queues[index % queues.len()])).collect::<Result<Vec<Session>>>()
        };
        let threads: Vec<_> = (0..plan.threads).map(|first| scope.spawn(move || open_share(first))).collect();
        let mut sessions = Vec::with_capacity(plan.connections);
        for thread in threads {
            sessions.extend(thread.join().expect("a thread that does not panic")?);
        }
        Ok(sessions)
    })
}

fn open(plan: &Plan, queue: &str) -> Result<Session> {
    let mut session = Session::open(&plan.uri)?;
    session.call(setup::consume(queue, 0, Consume { no_ack: true, nowait: false }))?;
    Ok(session)
}

/// Whether the broker has said or done anything to a silent connection.
fn is_dropped(session: &Session) -> Result<bool> {
    let told = |error| io_error(&session.address, "looking")(error);
    session.stream.set_nonblocking(true).map_err(told)?;
    let looked = session.stream.peek(&mut [0]);
    session.stream.set_nonblocking(false).map_err(told)?;
    Ok(!looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, rate) =
            (grouped(self.connections as u64), grouped(self.connections_per_second as u64));
        let seconds = self.seconds_to_open;
        writeln!(f, "idle {}: {connections} connections open in {seconds:.2} s, {rate}/s", self.broker)?;
        if self.dropped > 0 {
            writeln!(f, "  dropped       {}", grouped(self.dropped as u64))?;
        }
        if let (Some(each), Some(memory)) = (self.kib_each, &self.broker_memory) {
            writeln!(f, "  memory        {each:.1} KiB each: {memory}")?;
        }
        Ok(())
    }
}

//! A thread with its share of the connections: waits for sockets and clocks, and gives turns.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::board::{Board, Stage};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::line::Line;

/// How long a thread sleeps without a look at the board.
const LOOK_NS: u64 = 50_000_000;

/// The longest latency that is told from longer ones: ten minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// What a connection does under load.
pub trait Work {
    /// The connection.
    fn line(&self) -> &Line;

    /// Whether there is something to write, or would be if the socket took it.
    fn wants_to_write(&self, board: &Board) -> bool;

    /// When to give it a turn though the socket is silent.
    fn due_ns(&self) -> Option<u64>;

    /// Reads if there is something, writes if there is room.
    fn turn(&mut self, is_readable: bool, desk: &mut Desk, board: &Board) -> Result<()>;

    /// Whether it has done all that it shall.
    fn is_done(&self, board: &Board) -> bool;
}

/// What the connections of one thread share.
pub struct Desk {
    /// Latencies in nanoseconds: of confirms for producers, of deliveries for consumers.
    pub latency: Histogram<u64>,
    /// What came out of the queues, by number of the queue. All consumers of a queue live in one thread.
    pub ledgers: Vec<Ledger>,
    /// Processor time of the thread while it was measured.
    pub cpu_ns: u64,
}

impl Desk {
    /// An empty one.
    pub fn new(queues: usize) -> Desk {
        let latency = Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("bounds that a histogram takes");
        let ledgers = (0..queues).map(|_| Ledger::default()).collect();
        Desk { latency, ledgers, cpu_ns: 0 }
    }

    /// Notes a latency.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.latency.saturating_record(ns);
    }
}

/// Gives turns until all have done what they shall, or the run is aborted.
pub fn host<W: Work>(works: &mut [W], desk: &mut Desk, board: &Board) -> Result<()> {
    let mut meter = Meter::default();
    let result = give_turns(works, desk, board, &mut meter);
    meter.look(false);
    desk.cpu_ns = meter.cpu_ns;
    result
}

fn give_turns<W: Work>(works: &mut [W], desk: &mut Desk, board: &Board, meter: &mut Meter) -> Result<()> {
    let mut is_ready = Vec::with_capacity(works.len());
    while board.stage() != Stage::Aborted && !works.iter().all(|work| work.is_done(board)) {
        meter.look(board.is_measuring());
        wait(works, &mut is_ready, board)?;
        for (work, &is_readable) in works.iter_mut().zip(&is_ready) {
            work.turn(is_readable, desk, board)?;
        }
    }
    Ok(())
}

/// Waits until something can be done, and says who has something to read.
fn wait<W: Work>(works: &[W], is_ready: &mut Vec<bool>, board: &Board) -> Result<()> {
    let due_ns = works.iter().filter_map(Work::due_ns).min();
    let sleep_ns = due_ns.map_or(LOOK_NS, |due| due.saturating_sub(board.now_ns()).min(LOOK_NS));
    let timeout = Timespec::try_from(Duration::from_nanos(sleep_ns)).expect("50 ms are a Timespec");
    let mut sockets: Vec<PollFd<'_>> = works
        .iter()
        .map(|work| {
            let writing = if work.wants_to_write(board) { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(work.line().stream(), PollFlags::IN | writing)
        })
        .collect();
    match poll(&mut sockets, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => {
            return Err(Error::File { path: "poll".into(), source: error.into() });
        }
    }
    is_ready.clear();
    // Errors and hang-ups are found by reading.
    is_ready.extend(sockets.iter().map(|socket| !(socket.revents() - PollFlags::OUT).is_empty()));
    Ok(())
}

/// Processor time of this thread between the beginning and the end of what is measured.
#[derive(Default)]
struct Meter {
    started_at_ns: Option<u64>,
    cpu_ns: u64,
}

impl Meter {
    fn look(&mut self, is_measuring: bool) {
        match (is_measuring, self.started_at_ns) {
            (true, None) => self.started_at_ns = Some(thread_cpu_ns()),
            (false, Some(start)) => {
                self.cpu_ns += thread_cpu_ns() - start;
                self.started_at_ns = None;
            }
            _ => {}
        }
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

//! The measuring thread: begins and ends the measured time, samples the broker, tells who watches, and
//! gives up when nothing moves.

use std::io::IsTerminal;
use std::thread;
use std::time::{Duration, Instant};

use crate::board::{Board, Counts, Stage};
use crate::error::{Error, Result};
use crate::report::{Memory, grouped};
use crate::usage::{Processes, Usage, own_cpu_ns};

/// How often the measuring thread looks.
const LOOK: Duration = Duration::from_millis(20);

/// The measuring thread's own notes.
pub struct Measure<'a> {
    board: &'a Board,
    broker: Option<&'a Processes>,
    /// Memory of the broker.
    pub memory: Option<Memory>,
    progress: Progress,
    /// When what is measured began.
    pub start: Moment,
    /// When it ended.
    pub end: Option<Moment>,
    /// What was counted at the last change, and when that was.
    moved: (Counts, Instant),
}

/// All counters at one moment.
#[derive(Clone, Copy, Default)]
pub struct Moment {
    /// On the board's clock.
    pub at_ns: u64,
    /// What was counted until then.
    pub counts: Counts,
    /// Processor time of this process.
    pub own_cpu_ns: u64,
    /// What the broker had used.
    pub broker: Usage,
}

impl<'a> Measure<'a> {
    /// Looks at the broker for the first time; nothing is measured yet.
    pub fn new(board: &'a Board, broker: Option<&'a Processes>) -> Self {
        Measure {
            board,
            broker,
            memory: broker.map(|broker| Memory::starting(broker.usage())),
            progress: Progress::new(),
            start: Moment::default(),
            end: None,
            moved: (Counts::default(), Instant::now()),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            at_ns: self.board.now_ns(),
            counts: self.board.counters.read(),
            own_cpu_ns: own_cpu_ns(),
            broker: self.broker.map(Processes::usage).unwrap_or_default(),
        }
    }

    /// Begins what is measured.
    pub fn begin(&mut self) {
        self.start = self.moment();
        self.board.measure(true);
    }

    /// Ends what is measured, once.
    pub fn stop(&mut self) {
        if self.end.is_none() {
            self.end = Some(self.moment());
            self.board.measure(false);
        }
    }

    /// Sleeps for a look, samples, and tells.
    fn look(&mut self) {
        thread::sleep(LOOK);
        let counts = self.board.counters.read();
        if counts != self.moved.0 {
            self.moved = (counts, Instant::now());
        }
        if let (Some(broker), Some(memory)) = (self.broker, &mut self.memory) {
            memory.see(broker.usage());
        }
        self.progress.tell(&counts);
    }

    /// Looks until `is_over` or somebody aborted; gives up when nothing moved for `patience`.
    pub fn wait(&mut self, patience: Option<Duration>, mut is_over: impl FnMut() -> bool) -> Result<()> {
        self.moved.1 = Instant::now();
        while self.board.stage() != Stage::Aborted && !is_over() {
            self.look();
            if patience.is_some_and(|patience| self.moved.1.elapsed() > patience) {
                self.board.enter(Stage::Aborted);
                let seconds = self.moved.1.elapsed().as_secs();
                return Err(Error::Stalled(format!(
                    "nothing was published, confirmed or received for {seconds} s"
                )));
            }
        }
        Ok(())
    }
}

/// A line a second for whoever watches.
struct Progress {
    is_watched: bool,
    told_at: Instant,
    told: Counts,
}

impl Progress {
    fn new() -> Self {
        Progress {
            is_watched: std::io::stderr().is_terminal(),
            told_at: Instant::now(),
            told: Counts::default(),
        }
    }

    fn tell(&mut self, counts: &Counts) {
        let elapsed = self.told_at.elapsed();
        if !self.is_watched || elapsed < Duration::from_secs(1) {
            return;
        }
        let passed = counts.since(&self.told);
        let rate = |count: u64| grouped((count as f64 / elapsed.as_secs_f64()) as u64);
        let (published, confirmed, received) =
            (rate(passed.published), rate(passed.confirmed), rate(passed.received));
        eprintln!("published {published}/s  confirmed {confirmed}/s  received {received}/s");
        (self.told_at, self.told) = (Instant::now(), *counts);
    }
}

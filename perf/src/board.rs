//! The board that all threads of a run see: what they shall do now, and how much was counted.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What producers and consumers shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Publish and consume.
    Running,
    /// Publish no more; wait for confirms, consume what is left.
    Stopping,
    /// Leave everything and end.
    Aborted,
}

/// Counts since the start. Added once a buffer, never once a message.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages written to a socket.
    pub published: AtomicU64,
    /// Messages that the broker confirmed.
    pub confirmed: AtomicU64,
    /// Messages that the broker refused with basic.nack.
    pub nacked: AtomicU64,
    /// Messages that came back because no queue takes them.
    pub returned: AtomicU64,
    /// Deliveries.
    pub received: AtomicU64,
    /// Deliveries marked as redelivered.
    pub redelivered: AtomicU64,
    /// Deliveries of a message for the second time that were not marked.
    pub duplicated: AtomicU64,
    /// Deliveries of a message for the second time, marked or not.
    pub repeated: AtomicU64,
    /// Deliveries of a message after a later one of its stream.
    pub out_of_order: AtomicU64,
    /// Deliveries of what we did not publish, or of another size.
    pub unreadable: AtomicU64,
}

macro_rules! counts {
    ($($name:ident),*) => {
        /// What the counters say at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)] // as in Counters
        pub struct Counts { $(pub $name: u64,)* }

        impl Counts {
            /// What was counted since `earlier`.
            pub fn since(&self, earlier: &Counts) -> Counts {
                Counts { $($name: self.$name - earlier.$name,)* }
            }
        }

        impl Counters {
            /// All of them now.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }

            /// Adds all that was counted in one buffer.
            pub fn add(&self, counts: &Counts) {
                $(if counts.$name != 0 { self.$name.fetch_add(counts.$name, Relaxed); })*
            }
        }
    };
}

counts!(
    published,
    confirmed,
    nacked,
    returned,
    received,
    redelivered,
    duplicated,
    repeated,
    out_of_order,
    unreadable
);

/// When something was last counted, in nanoseconds on the board's clock.
#[derive(Debug, Default)]
pub struct LastTimes {
    /// A buffer was written.
    pub published_ns: AtomicU64,
    /// A confirm came.
    pub confirmed_ns: AtomicU64,
    /// A delivery came.
    pub received_ns: AtomicU64,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Board {
    /// What was counted.
    pub counters: Counters,
    /// When.
    pub last: LastTimes,
    start: Instant,
    stage: AtomicU8,
    is_measuring: AtomicBool,
    /// Different deliveries after which consumers are done.
    expected: AtomicU64,
}

impl Board {
    /// A board whose clock starts now. Nothing is measured until it is said.
    pub fn new() -> Self {
        Board {
            counters: Counters::default(),
            last: LastTimes::default(),
            start: Instant::now(),
            stage: AtomicU8::new(Stage::Running as u8),
            is_measuring: AtomicBool::new(false),
            expected: AtomicU64::new(u64::MAX),
        }
    }

    /// Nanoseconds since the start: the time of stamps.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// What to do now.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Running,
            1 => Stage::Stopping,
            _ => Stage::Aborted,
        }
    }

    /// Goes on to a later stage; never back.
    pub fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Relaxed);
    }

    /// Whether what happens now counts for latencies and costs.
    pub fn is_measuring(&self) -> bool {
        self.is_measuring.load(Relaxed)
    }

    /// Begins or ends the measured time.
    pub fn measure(&self, is_measuring: bool) {
        self.is_measuring.store(is_measuring, Relaxed);
    }

    /// Says how many different deliveries are to come in all.
    pub fn expect(&self, deliveries: u64) {
        self.expected.store(deliveries, Relaxed);
    }

    /// Whether all that must come has come.
    pub fn has_all(&self) -> bool {
        let repeated = self.counters.repeated.load(Relaxed);
        self.counters.received.load(Relaxed).saturating_sub(repeated) >= self.expected.load(Relaxed)
    }
}

//! How long the disk takes: every sync of the log is timed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper ends of the classes that syncs are counted in, in microseconds; a last class is above them.
pub const SYNC_CLASSES_US: [u64; 10] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// Counts syncs by how long they took.
#[derive(Debug, Default)]
pub struct Meter {
    classes: [AtomicU64; SYNC_CLASSES_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a meter says at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Syncs {
    /// How many in each class of [`SYNC_CLASSES_US`], and above them.
    pub classes: [u64; SYNC_CLASSES_US.len() + 1],
    /// How long all of them took together, in microseconds.
    pub sum_us: u64,
}

impl Meter {
    /// A sync took so long.
    pub fn synced(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let class = SYNC_CLASSES_US.iter().take_while(|end| us > **end).count();
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What it says now.
    pub fn syncs(&self) -> Syncs {
        Syncs {
            classes: std::array::from_fn(|at| self.classes[at].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_in_the_class_that_it_fits() {
        let meter = Meter::default();
        for us in [90, 100, 101, 2_000_000] {
            meter.synced(Duration::from_micros(us));
        }
        let syncs = meter.syncs();

        assert_eq!((syncs.classes[0], syncs.classes[1], syncs.classes[10]), (2, 1, 1));
        assert_eq!(syncs.sum_us, 2_000_291);
    }
}

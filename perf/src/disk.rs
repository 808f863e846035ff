//! What the disk can do without any broker: how often a second a small write can be made safe.
//!
//! Two ways, each with a `fdatasync` after every write. *Overwrite*: over blocks of a file that were
//! written before, so that a sync writes data alone. *Append*: at the end of a growing file, so that a
//! sync writes the file's size and its map of blocks as well.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::report::{Latency, grouped, round};

/// What is to be done.
pub struct Plan {
    /// Where.
    pub folder: PathBuf,
    /// Octets of a write.
    pub size: usize,
    /// How long each way is tried.
    pub duration: Duration,
}

/// What came of one way.
#[derive(Debug, Serialize)]
struct Way {
    per_second: f64,
    us: Option<Latency>,
}

/// What came of both.
#[derive(Debug, Serialize)]
pub struct Report {
    mode: &'static str,
    folder: String,
    size: usize,
    overwrite: Way,
    append: Way,
}

/// What is overwritten again and again.
const FILE_BYTES: usize = 64 << 20;

/// A write is prepared in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Tries both ways.
pub fn run(plan: &Plan) -> Result<Report> {
    let path = plan.folder.join(format!("garenne-perf-disk-{}", std::process::id()));
    let tried = try_both(plan, &path);
    let removed = fs::remove_file(&path);
    let told = |source| Error::File { path: path.display().to_string(), source };
    let (overwrite, append) = tried.map_err(told)?;
    removed.map_err(told)?;
    let folder = plan.folder.display().to_string();
    Ok(Report { mode: "disk", folder, size: plan.size, overwrite, append })
}

fn try_both(plan: &Plan, path: &Path) -> io::Result<(Way, Way)> {
    let file = File::create(path)?;
    for at in (0..FILE_BYTES).step_by(PIECE_BYTES) {
        file.write_all_at(&vec![1; PIECE_BYTES], at as u64)?;
    }
    file.sync_all()?;
    let slots = (FILE_BYTES / plan.size).max(1) as u64;
    let overwrite = repeat(plan, &file, |n| n % slots * plan.size as u64)?;
    let file = File::create(path)?;
    let append = repeat(plan, &file, |n| n * plan.size as u64)?;
    Ok((overwrite, append))
}

fn repeat(plan: &Plan, file: &File, place: impl Fn(u64) -> u64) -> io::Result<Way> {
    let block = vec![2; plan.size];
    let mut latency =
        Histogram::<u64>::new_with_max(60_000_000_000, 3).expect("bounds that a histogram takes");
    let start = Instant::now();
    let mut writes = 0;
    while start.elapsed() < plan.duration {
        let begin = Instant::now();
        file.write_all_at(&block, place(writes))?;
        file.sync_data()?;
        latency.saturating_record(begin.elapsed().as_nanos() as u64);
        writes += 1;
    }
    let per_second = round(writes as f64 / start.elapsed().as_secs_f64(), 1);
    Ok(Way { per_second, us: Latency::of(&latency) })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "disk {}: {} octets and a fdatasync", self.folder, grouped(self.size as u64))?;
        for (name, way) in [("overwrite", &self.overwrite), ("append", &self.append)] {
            write!(f, "  {name:<13} {}/s", grouped(way.per_second as u64))?;
            way.us.map_or(Ok(()), |us| write!(f, "  {us}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_tried_and_nothing_stays_behind() {
        let folder = std::env::temp_dir().join(format!("garenne-perf-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let plan = Plan { folder: folder.clone(), size: 512, duration: Duration::from_millis(5) };

        let report = run(&plan).unwrap();

        assert!(report.overwrite.per_second > 0.0 && report.append.per_second > 0.0);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
    }
}

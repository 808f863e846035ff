//! What processes use: processor time and memory, from /proc.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};

/// A process with all that it had started when we looked: RabbitMQ is a shell script, an Erlang machine
/// and its helpers.
#[derive(Clone, Debug)]
pub struct Processes {
    pids: Vec<u32>,
}

/// One look at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since their start, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
}

impl Processes {
    /// The process `pid` and all below it.
    pub fn tree(pid: u32) -> Result<Processes> {
        if stat(pid).is_none() {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such process");
            return Err(Error::File { path: format!("/proc/{pid}"), source });
        }
        let entries = fs::read_dir("/proc").map_err(|source| Error::File { path: "/proc".into(), source })?;
        let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let all: Vec<(u32, u32)> = numbers.filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
        let mut pids = vec![pid];
        let mut at = 0;
        while let Some(&parent) = pids.get(at) {
            pids.extend(all.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        Ok(Processes { pids })
    }

    /// What they use now; those that ended use nothing.
    pub fn usage(&self) -> Usage {
        let stats = self.pids.iter().filter_map(|&pid| stat(pid));
        stats.fold(Usage::default(), |sum, stat| Usage {
            cpu_ns: sum.cpu_ns + stat.usage.cpu_ns,
            rss_kib: sum.rss_kib + stat.usage.rss_kib,
        })
    }
}

/// Processor time of this process, all threads.
pub fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

struct Stat {
    parent: u32,
    usage: Usage,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state parent …`: the name may hold spaces and parentheses, so fields count from the last.
/// proc(5) numbers utime and stime 14 and 15, rss 24; the state is 3.
fn parse(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)?;
    let usage = Usage {
        cpu_ns: ticks * (1_000_000_000 / clock_ticks_per_second()),
        rss_kib: number(24)? * (page_size() as u64 / 1024),
    };
    Some(Stat { parent: number(4)? as u32, usage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_hides_nothing() {
        let line = "77 (a (b) c) S 12 0 0 0 -1 0 0 0 0 0 30 20 0 0 20 0 1 0 0 0 256 0";

        let stat = parse(line).unwrap();

        assert_eq!(stat.parent, 12);
        assert_eq!(stat.usage.cpu_ns, 50 * 1_000_000_000 / clock_ticks_per_second());
        assert_eq!(stat.usage.rss_kib, 256 * page_size() as u64 / 1024);
    }

    #[test]
    fn this_process_is_there_and_another_is_not() {
        let own = Processes::tree(std::process::id()).unwrap().usage();
        assert!(own.rss_kib > 0);

        assert!(Processes::tree(u32::MAX).is_err());
    }
}

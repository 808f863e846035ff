//! The process and its machine, as operators ask for them: descriptors, threads, memory, disk; where it listens.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use rustix::process::Resource;

/// RabbitMQ's version whose HTTP API and behaviour this broker is like. Tools look at it to see what there is.
pub const COMPATIBLE: &str = "4.2.0";

/// A port that clients come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken there, as RabbitMQ names it: `amqp`, `amqp/ssl`, `http`, `https`, `http/prometheus`.
    pub protocol: &'static str,
    /// Where.
    pub address: SocketAddr,
}

/// A certificate in use, and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What is spoken where it is shown.
    pub protocol: &'static str,
    /// The file it is in.
    pub file: String,
    /// When it ends, in seconds since 1970.
    pub not_after_secs: u64,
}

/// What the process has taken, and what it may.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Open file descriptors, and how many may be.
    pub descriptors: (u64, u64),
    /// Threads, and how many the machine allows.
    pub threads: (u64, u64),
    /// Resident memory, in octets.
    pub resident_bytes: u64,
    /// Free on the disk of the data directory, in octets.
    pub disk_free_bytes: u64,
}

impl Usage {
    /// Looks at the process, and at the disk of a directory.
    pub fn look(data_dir: &Path) -> Usage {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let threads_max = fs::read_to_string("/proc/sys/kernel/threads-max").unwrap_or_default();
        let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let disk = rustix::fs::statvfs(data_dir).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
        Usage {
            descriptors: (open, rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
            threads: (number("Threads:"), threads_max.trim().parse().unwrap_or_default()),
            resident_bytes: number("VmRSS:") * 1024,
            disk_free_bytes: disk,
        }
    }
}

/// The processors there are.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// When the process began, for how long it has been there.
#[derive(Clone, Copy, Debug)]
pub struct Uptime(Instant);

impl Uptime {
    /// From now on.
    pub fn begin() -> Uptime {
        Uptime(Instant::now())
    }

    /// In milliseconds.
    pub fn ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_takes_something_and_not_more_than_it_may() {
        let usage = Usage::look(Path::new("/"));

        assert!(usage.descriptors.0 > 2 && usage.descriptors.0 < usage.descriptors.1, "{usage:?}");
        assert!(usage.threads.0 > 0 && usage.threads.0 < usage.threads.1, "{usage:?}");
        assert!(usage.resident_bytes > 1_000_000, "{usage:?}");
    }
}

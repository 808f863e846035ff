//! How much memory the process may take, by what the system and its control groups say, and how much it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::info;

/// A part of the memory there is, above which publishers are held back, and what is to remain of the disk. Both can
/// be changed at any time.
#[derive(Debug)]
pub struct Budget {
    /// What there is, in octets, and who says so.
    total: (u64, &'static str),
    /// The bits of a float.
    high_watermark: AtomicU64,
    disk_free_bytes_min: AtomicU64,
}

impl Budget {
    /// `high_watermark` is a part of what there is, between 0 and 1; what there is is found out, unless it
    /// is given.
    pub fn new(high_watermark: f64, bytes_total: Option<u64>, disk_free_bytes_min: u64) -> Budget {
        let given = bytes_total.map(|bytes| (bytes, "memory_bytes_total"));
        let total = given.unwrap_or_else(|| total(Path::new("/")));
        info!(bytes = total.0, source = total.1, high_watermark, "memory");
        let high_watermark = AtomicU64::new(high_watermark.to_bits());
        Budget { total, high_watermark, disk_free_bytes_min: disk_free_bytes_min.into() }
    }

    /// What there is, in octets.
    pub fn total_bytes(&self) -> u64 {
        self.total.0
    }

    /// Which part of it the process may take before publishers have to wait.
    pub fn high_watermark(&self) -> f64 {
        f64::from_bits(self.high_watermark.load(Ordering::Relaxed))
    }

    /// Changes that part.
    pub fn set_high_watermark(&self, part: f64) {
        self.high_watermark.store(part.to_bits(), Ordering::Relaxed);
    }

    /// The same in octets.
    pub fn set_limit_bytes(&self, bytes: u64) {
        self.set_high_watermark(bytes as f64 / self.total.0 as f64);
    }

    /// What is to remain of the disk, in octets, or publishers have to wait.
    pub fn disk_free_bytes_min(&self) -> u64 {
        self.disk_free_bytes_min.load(Ordering::Relaxed)
    }

    /// Changes that.
    pub fn set_disk_free_bytes_min(&self, bytes: u64) {
        self.disk_free_bytes_min.store(bytes, Ordering::Relaxed);
    }

    /// What the process may take before publishers have to wait, in octets.
    pub fn limit_bytes(&self) -> u64 {
        (self.total.0 as f64 * self.high_watermark()).round() as u64
    }

    /// Why publishers have to wait; nothing if there is room.
    pub fn shortage(&self) -> Option<String> {
        self.shortage_with(resident_bytes()?)
    }

    fn shortage_with(&self, used: u64) -> Option<String> {
        let (total, source) = self.total;
        let limit = self.limit_bytes();
        (used > limit).then(|| {
            format!(
                "low on memory: {used} bytes used, more than {limit}, memory_high_watermark {} of {total} ({source})",
                self.high_watermark()
            )
        })
    }
}

/// The least of what control groups of both versions allow and the machine has, in octets.
fn total(root: &Path) -> (u64, &'static str) {
    let machine = (machine_bytes(root).unwrap_or(u64::MAX), "the machine");
    let groups = group_files(root).into_iter().filter_map(|(path, version)| {
        // "max" in version 2, a very large number in version 1 stand for no limit.
        Some((fs::read_to_string(path).ok()?.trim().parse().ok()?, version))
    });
    groups.chain([machine]).min_by_key(|(bytes, _)| *bytes).unwrap_or(machine)
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The files that may limit this process: those of its groups and of all groups around them. In a container
/// the process may see its own group as the root.
fn group_files(root: &Path) -> Vec<(PathBuf, &'static str)> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (base, file, version) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max", "control group v2"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "control group v1")
            }
            _ => continue,
        };
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            files.push((root.join(base).join(group).join(file), version));
        }
    }
    files
}

/// What the process takes now, in octets.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  10 kB\n");

    #[test]
    fn the_smallest_limit_of_machine_and_groups_holds() {
        let bare = system(&[MEMINFO]);
        assert_eq!(total(bare.path()), (1_024_000, "the machine"));

        let v2 = system(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "500000\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
        ]);
        assert_eq!(total(v2.path()), (500_000, "control group v2"));

        let container =
            system(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "400000\n")]);
        assert_eq!(total(container.path()), (400_000, "control group v2"));

        let v1 = system(&[
            MEMINFO,
            ("proc/self/cgroup", "9:cpu:/x\n4:memory,hugetlb:/docker/1\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "300000\n"),
        ]);
        assert_eq!(total(v1.path()), (300_000, "control group v1"));
    }

    #[test]
    fn a_shortage_names_the_figures() {
        let budget = Budget::new(0.4, Some(1000), 0);

        assert_eq!(budget.shortage_with(400), None);
        let reason = budget.shortage_with(401).unwrap();
        assert_eq!(
            reason,
            "low on memory: 401 bytes used, more than 400, memory_high_watermark 0.4 of 1000 (memory_bytes_total)"
        );
        assert!(resident_bytes().unwrap() > 100_000);
    }
}

//! What the numbers were measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::stats::number;

/// How long the disk is measured.
const DISK_SPAN: Duration = Duration::from_secs(1);

const BLOCK_BYTES: usize = 4096;

/// The machine of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Of the servers' data.
    pub(crate) filesystem: String,
    pub(crate) disk: Disk,
}

/// What syncing costs: the floor of every write.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Disk {
    /// Appends of 4 KiB, each synced.
    pub(crate) syncs_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Machine {
    /// Describes this machine, with `data` as the place of the servers' data.
    ///
    /// # Errors
    ///
    /// `data` cannot be written, or `/proc` is not Linux's.
    pub(crate) fn describe(data: &Path) -> Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let memory = field(&read("/proc/meminfo")?, "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: field(&read("/proc/cpuinfo")?, "model name"),
            memory_mib: memory_kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            filesystem: filesystem(&read("/proc/self/mounts")?, &data.canonicalize()?),
            disk: Disk::measure(data)?,
        })
    }

    /// Whether a sync costs nothing here, and all writes are faster than they would be.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.filesystem.as_str(), "tmpfs" | "ramfs")
    }
}

impl Disk {
    fn measure(directory: &Path) -> Result<Self> {
        let path = directory.join("sync-probe");
        let mut file = File::create(&path)?;
        let block = [0x5a; BLOCK_BYTES];
        let mut latencies = Vec::new();
        let started = Instant::now();
        while started.elapsed() < DISK_SPAN {
            let before = Instant::now();
            file.write_all(&block)?;
            file.sync_data().context("cannot sync")?;
            latencies.push(before.elapsed());
        }
        let elapsed = started.elapsed();
        fs::remove_file(&path)?;
        latencies.sort();
        let quantile_us = |percent: usize| {
            let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies
                .get(at)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        let count = number(u64::try_from(latencies.len())?);
        Ok(Self {
            syncs_per_second: count / elapsed.as_secs_f64(),
            p50_us: quantile_us(50),
            p99_us: quantile_us(99),
        })
    }
}

/// The value of the first line `name: value`, or `unknown`.
fn field(text: &str, name: &str) -> String {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = values.filter(|(found, _)| found.trim() == name);
    values.next().map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

/// The type of the filesystem that `path` is on.
fn filesystem(mounts: &str, path: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    // The longest mount point above the path wins; of two equal ones the later hides the earlier.
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_its_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /mnt tmpfs rw 0 0\n/dev/b /mnt/x xfs rw 0 0\n";
        for (path, want) in [
            ("/home", "ext4"),
            ("/mnt/y", "tmpfs"),
            ("/mnt/x/y", "xfs"),
            ("/mntfoo", "ext4"),
        ] {
            assert_eq!(filesystem(mounts, Path::new(path)), want, "{path}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t: 7\nmodel name\t: Some CPU\nmodel name\t: Another\n";
        assert_eq!(field(text, "model name"), "Some CPU");
        assert_eq!(field(text, "bogomips"), "unknown");
    }

    #[test]
    fn this_machine_can_be_described_and_syncs() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::describe(directory.path()).unwrap();
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.disk.syncs_per_second > 0.0, "{machine:?}");
        assert!(machine.disk.p50_us <= machine.disk.p99_us, "{machine:?}");
    }
}

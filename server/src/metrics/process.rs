//! What Linux says of this process, under the names that every Prometheus client uses.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks a second of the times in `/proc/PID/stat`: the kernel's `USER_HZ`, 100 on every
/// architecture that Rust's standard library supports on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at this process.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Process {
    /// Of the processor, user and system, since the start.
    pub(super) cpu_seconds: f64,
    /// When it started, in Unix seconds.
    pub(super) start_time_seconds: f64,
    /// In memory.
    pub(super) resident_bytes: i64,
    /// In the address space.
    pub(super) virtual_bytes: i64,
    /// Threads.
    pub(super) threads: i64,
    /// File descriptors that are open.
    pub(super) fds: i64,
    /// File descriptors that may be open.
    pub(super) fds_max: i64,
}

impl Process {
    /// Reads `/proc`; none where there is no such thing.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let fds = fs::read_dir("/proc/self/fd").ok()?.count();
        let mut process = Self::parse(&stat, &status, &limits, &uptime, SystemTime::now())?;
        process.fds = i64::try_from(fds).ok()?;
        Some(process)
    }

    fn parse(
        stat: &str,
        status: &str,
        limits: &str,
        uptime: &str,
        now: SystemTime,
    ) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything, spaces and
        // parentheses too: fields are counted from the last one that closes. The third is next.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let (user, system, started) = (field(14)?, field(15)?, field(22)?);
        let since_boot: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let age = Duration::try_from_secs_f64(since_boot - started / TICKS_PER_SECOND);
        let started_at = now.checked_sub(age.unwrap_or_default())?;
        let kilobytes = |name| Some(1024 * number(status, name)?);
        Some(Self {
            cpu_seconds: (user + system) / TICKS_PER_SECOND,
            start_time_seconds: started_at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64(),
            resident_bytes: kilobytes("VmRSS:")?,
            virtual_bytes: kilobytes("VmSize:")?,
            threads: number(status, "Threads:")?,
            fds: 0,
            // The soft limit; a word instead of a number means that there is none.
            fds_max: number(limits, "Max open files").unwrap_or(i64::MAX),
        })
    }
}

/// The first number behind `name` on the line that begins with it.
fn number(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 900 0 0 0 250 150 0 0 20 0 9 0 \
                        5000 123456 789 18446744073709551615";
    const STATUS: &str = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\nThreads:\t9\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
                          Max open files            1024                 1048576              files\n";

    #[test]
    fn proc_is_read_whatever_the_program_is_called() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let process = Process::parse(STAT, STATUS, LIMITS, "150.00 80.00\n", now).expect("parses");
        let want = Process {
            cpu_seconds: 4.0,
            start_time_seconds: 999_900.0,
            resident_bytes: 512 * 1024,
            virtual_bytes: 2048 * 1024,
            threads: 9,
            fds: 0,
            fds_max: 1024,
        };
        assert_eq!(process, want);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let process = Process::read().expect("Linux has /proc");
        assert!(process.resident_bytes > 1_000_000, "{process:?}");
        assert!(process.fds >= 3, "{process:?}");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        assert!(
            (now - 3600.0..=now).contains(&process.start_time_seconds),
            "{process:?}"
        );
    }
}

//! What the kernel says about processor time and memory.
//!
//! Times are in clock ticks (10 ms), so a window of seconds is known to about a percent. The text
//! of `/proc` is parsed by pure functions; nothing else in this program reads it for times.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::stats::number;

/// Processor time spent up to an instant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    machine: Duration,
    servers: Duration,
    client: Duration,
}

/// Processor time between two samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Wall time between the samples.
    pub(crate) elapsed: Duration,
    /// Of all threads of the servers under test.
    pub(crate) servers: Duration,
    /// Of this process.
    pub(crate) client: Duration,
    /// Cores that everybody else used: the noise of the measurement.
    pub(crate) other_cores: f64,
}

/// Resident memory of some processes together, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: u64,
    /// The most that was resident.
    pub(crate) peak: u64,
    /// Resident and not backed by a file.
    pub(crate) anonymous: u64,
}

impl Sample {
    /// The times now, with `servers` as the processes under test.
    pub(crate) fn take(servers: &[u32]) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            machine: machine_time(&read("/proc/stat")?)?,
            servers: processes_time(servers)?,
            client: processes_time(&[std::process::id()])?,
        })
    }

    /// What was used from `self` until `later`.
    pub(crate) fn until(&self, later: &Self) -> Usage {
        let elapsed = later.at - self.at;
        let servers = later.servers.saturating_sub(self.servers);
        let client = later.client.saturating_sub(self.client);
        let other = later
            .machine
            .saturating_sub(self.machine)
            .saturating_sub(servers + client);
        Usage {
            elapsed,
            servers,
            client,
            other_cores: other.as_secs_f64() / elapsed.as_secs_f64(),
        }
    }
}

/// Processor time of all threads of `processes`, since they started.
pub(crate) fn processes_time(processes: &[u32]) -> Result<Duration> {
    processes
        .iter()
        .map(|pid| process_time(&read(&format!("/proc/{pid}/stat"))?))
        .sum()
}

/// Resident memory of `processes`.
pub(crate) fn memory(processes: &[u32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in processes {
        let one = process_memory(&read(&format!("/proc/{pid}/status"))?)?;
        sum.resident += one.resident;
        sum.peak += one.peak;
        sum.anonymous += one.anonymous;
    }
    Ok(sum)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Time that all processors spent working, from `/proc/stat`.
///
/// Time stolen by the hypervisor counts: it is somebody else's work on our processors.
fn machine_time(stat: &str) -> Result<Duration> {
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // cpu user nice system idle iowait irq softirq steal guest guest_nice; the guests' times are
    // inside user and nice.
    let times: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = times[..] else {
        anyhow::bail!("/proc/stat starts with {line:?}");
    };
    Ok(ticks(user + nice + system + irq + softirq + steal))
}

/// utime + stime from `/proc/<pid>/stat`.
fn process_time(stat: &str) -> Result<Duration> {
    // The second field is the program's name in parentheses and may itself hold both.
    let after_name = stat
        .rsplit_once(')')
        .context("no name in /proc/<pid>/stat")?
        .1;
    let mut fields = after_name
        .split_whitespace()
        .skip(11)
        .map(str::parse::<u64>);
    let (user, system) = (fields.next(), fields.next());
    let (Some(Ok(user)), Some(Ok(system))) = (user, system) else {
        anyhow::bail!("no times in /proc/<pid>/stat: {stat:?}");
    };
    Ok(ticks(user + system))
}

fn process_memory(status: &str) -> Result<Memory> {
    let kib = |name: &str| -> Result<u64> {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = value.with_context(|| format!("no {name} in /proc/<pid>/status"))?;
        let number = value.trim().trim_end_matches(" kB");
        number
            .parse()
            .with_context(|| format!("{name} is {value:?}"))
    };
    Ok(Memory {
        resident: kib("VmRSS")?,
        peak: kib("VmHWM")?,
        anonymous: kib("RssAnon")?,
    })
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(number(count) / number(rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_strange_name_is_still_read() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 12 0 99 1 2";
        assert_eq!(process_time(stat).unwrap(), ticks(200));
    }

    #[test]
    fn idle_and_waiting_time_is_not_work_and_stolen_time_is() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(machine_time(stat).unwrap(), ticks(63));
    }

    #[test]
    fn memory_is_read_by_name() {
        let status = "Name:\tx\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nRssAnon:\t  150 kB\n";
        let want = Memory {
            resident: 200,
            peak: 300,
            anonymous: 150,
        };
        assert_eq!(process_memory(status).unwrap(), want);
        assert!(process_memory("Name:\tx\n").is_err());
    }

    #[test]
    fn other_is_what_neither_the_servers_nor_the_client_used() {
        let at = Instant::now();
        let sample = |seconds: u64, machine, servers, client| Sample {
            at: at + Duration::from_secs(seconds),
            machine: Duration::from_secs(machine),
            servers: Duration::from_secs(servers),
            client: Duration::from_secs(client),
        };
        let usage = sample(0, 10, 1, 1).until(&sample(4, 18, 5, 3));
        assert_eq!(usage.servers, Duration::from_secs(4));
        assert_eq!(usage.client, Duration::from_secs(2));
        assert!((usage.other_cores - 0.5).abs() < 1e-9, "{usage:?}");
    }

    #[test]
    fn this_process_has_times_and_memory() {
        let me = [std::process::id()];
        assert!(memory(&me).unwrap().resident > 0);
        let first = Sample::take(&me).unwrap();
        assert!(first.until(&Sample::take(&me).unwrap()).other_cores >= 0.0);
    }
}

//! One server process.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Ports;
use crate::software::Software;

/// The longest that a member may need to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_mins(1);

const STOP_POLL: Duration = Duration::from_millis(2);

/// So much of the end of a log is shown when a member fails.
const LOG_TAIL_BYTES: usize = 2_000;

/// Far more than any case writes: no case may end in the alarm for lack of space.
const QUOTA_BYTES: u64 = 8 << 30;

/// A member of a cluster, running or not.
#[derive(Debug)]
pub(super) struct Member {
    software: Software,
    name: String,
    client_port: u16,
    flags: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Member {
    /// The members of a new cluster of `nodes`, none of them started.
    pub(super) fn plan(
        software: &Software,
        nodes: usize,
        directory: &Path,
        ports: &mut Ports,
    ) -> Result<Vec<Self>> {
        let mut planned = Vec::new();
        for number in 1..=nodes {
            planned.push((format!("m{number}"), ports.take()?, ports.take()?));
        }
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> = planned
            .iter()
            .map(|(name, _, peer)| format!("{name}={}", url(*peer)))
            .collect();
        let all = all.join(",");
        let member = |(name, client, peer): (String, u16, u16)| {
            let (client_url, peer_url) = (url(client), url(peer));
            let data = directory.join(&name).display().to_string();
            let flags = [
                ("name", name.as_str()),
                ("data-dir", &data),
                ("listen-client-urls", &client_url),
                ("advertise-client-urls", &client_url),
                ("listen-peer-urls", &peer_url),
                ("initial-advertise-peer-urls", &peer_url),
                ("initial-cluster", &all),
                ("initial-cluster-state", "new"),
                ("quota-backend-bytes", &QUOTA_BYTES.to_string()),
            ]
            .map(|(flag, value)| format!("--{flag}={value}"));
            Self {
                software: software.clone(),
                log: directory.join(format!("{name}.log")),
                name,
                client_port: client,
                flags: flags.into(),
                process: None,
            }
        };
        Ok(planned.into_iter().map(member).collect())
    }

    /// Starts the process; its output goes to a file.
    pub(super) fn launch(&mut self) -> Result<()> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let process = self
            .software
            .serve()
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.software.subject.name()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&mut self) -> Result<()> {
        let pid = self.pid().context("it does not run")?;
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a strange pid")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))
    }

    /// Waits for the end of the process after [`Member::terminate`].
    pub(super) async fn ended(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut process = self.process.take().context("it does not run")?;
        loop {
            if let Some(status) = process.try_wait()? {
                // etcd gives the signal back to the system, which then reports it.
                let by_term = std::os::unix::process::ExitStatusExt::signal(&status)
                    == Some(Signal::TERM.as_raw());
                ensure!(
                    status.success() || by_term,
                    "{} ended with {status}: {}",
                    self.name,
                    self.log()
                );
                return Ok(());
            }
            if started.elapsed() > STOP_MAX {
                self.process = Some(process);
                bail!(
                    "{} still runs {STOP_MAX:?} after SIGTERM: {}",
                    self.name,
                    self.log()
                );
            }
            tokio::time::sleep(STOP_POLL).await;
        }
    }

    /// Fails if the process has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("it does not run")?;
        if let Some(status) = process.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.log());
        }
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        format!("{} member {}", self.software.subject.name(), self.name)
    }

    pub(super) fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The end of what it has printed.
    pub(super) fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        format!("its log ends with\n{}", String::from_utf8_lossy(tail))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only if it has ended already.
            let _killed = process.kill();
            let _status = process.wait();
        }
    }
}

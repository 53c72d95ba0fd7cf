//! Clusters of real processes on loopback, with their data in a directory that a failure keeps.
//!
//! Every server is started with etcd's own flags under the name `etcd`, so that the same code
//! starts all of them: that is itself part of what is proven.

use std::collections::HashSet;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::binaries::Server;
use crate::client::Client;
use crate::process::{Process, Signal, log_tail};

/// How long a cluster may take from its processes' start to its first answer. A first election
/// takes about two seconds; the rest is for a machine that is busy building.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// How long a member may take to stop after SIGTERM.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// Between two questions.
const POLL: Duration = Duration::from_millis(20);
/// So many lines of each member's log are shown when a test fails.
const LOG_LINES: usize = 25;

/// Members of one cluster, each a process.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    program: PathBuf,
    members: Vec<Member>,
    flags: Vec<String>,
    dir: Option<TempDir>,
}

/// One member: where it is and, while it runs, its process.
#[derive(Debug)]
pub struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    data_dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    client: Client,
}

impl Cluster {
    /// Starts `size` members and waits until each answers and knows the leader.
    ///
    /// # Errors
    /// A program is missing, or the cluster is not ready in time; the text shows the logs' ends.
    pub async fn start(server: Server, size: usize) -> Result<Self> {
        Self::start_with(server, size, &[]).await
    }

    /// [`Cluster::start`] with more flags for every member.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(server: Server, size: usize, flags: &[&str]) -> Result<Self> {
        let mut cluster = Self::prepare(server, size, flags)?;
        for at in 0..size {
            cluster.start_member(at)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Chooses directories and ports; starts nothing.
    ///
    /// # Errors
    /// The program is missing, or there are no free ports.
    pub fn prepare(server: Server, size: usize, flags: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("gonfalon-test-")
            .tempdir()?;
        let mut members = Vec::with_capacity(size);
        for at in 0..size {
            let name = format!("m{at}");
            let client_port = free_port()?;
            members.push(Member {
                client_port,
                peer_port: free_port()?,
                data_dir: dir.path().join(format!("{name}.data")),
                log: dir.path().join(format!("{name}.log")),
                process: None,
                client: Client::new(client_port)?,
                name,
            });
        }
        let program = named_etcd(&server.program()?, dir.path())?;
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Ok(Self {
            server,
            program,
            members,
            flags,
            dir: Some(dir),
        })
    }

    /// Which server it is.
    pub fn server(&self) -> Server {
        self.server
    }

    /// How many members it has.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The member number `at`.
    pub fn member(&self, at: usize) -> &Member {
        &self.members[at]
    }

    /// Stubs for the member number `at`.
    pub fn client(&self, at: usize) -> Client {
        self.members[at].client.clone()
    }

    /// Makes the stubs anew. They belong to the runtime that they were made in, and this is for one
    /// that uses a cluster which another has started.
    ///
    /// # Errors
    /// Never for ports that fit.
    pub fn connect_again(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.client = Client::new(member.client_port)?;
        }
        Ok(())
    }

    /// `host:port` of every member, as etcd's tools want it.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// Where the members' data and logs are.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("only dropping takes it").path()
    }

    /// The command line that starts a member.
    pub fn command(&self, at: usize) -> Command {
        let mut command = Command::new(&self.program);
        self.configure(at, &mut command);
        command
    }

    /// Adds a member's flags to `command`, which runs the server in some other way.
    pub fn configure(&self, at: usize, command: &mut Command) {
        let member = &self.members[at];
        let client = format!("http://127.0.0.1:{}", member.client_port);
        let peer = format!("http://127.0.0.1:{}", member.peer_port);
        let all: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer_port))
            .collect();
        command.current_dir(self.dir());
        command
            .args(["--name", &member.name, "--data-dir"])
            .arg(&member.data_dir);
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        command.args([
            "--initial-cluster",
            &all.join(","),
            "--initial-cluster-state",
            "new",
        ]);
        command.args(&self.flags);
        // A developer's own settings must not reach the servers under test.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("ETCD_") || name_text.starts_with("GONFALON_") {
                command.env_remove(&name);
            }
        }
    }

    /// The program, under the name `etcd`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a member that does not run.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_member(&mut self, at: usize) -> Result<()> {
        let command = self.command(at);
        self.start_member_as(at, command)
    }

    /// Starts a member with a command line of the test's own.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_member_as(&mut self, at: usize, command: Command) -> Result<()> {
        let member = &mut self.members[at];
        assert!(member.process.is_none(), "{} runs already", member.name);
        member.process = Some(Process::spawn(command, &member.log)?);
        Ok(())
    }

    /// SIGKILL, as a power cut.
    ///
    /// # Errors
    /// It did not run.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        let mut process = member.process.take().context("the member does not run")?;
        process.kill()
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// It did not run, or does not stop in time.
    pub async fn terminate(&mut self, at: usize) -> Result<ExitStatus> {
        let member = &mut self.members[at];
        let mut process = member.process.take().context("the member does not run")?;
        process.signal(Signal::TERM)?;
        process.wait(STOPPED_WITHIN).await
    }

    /// Waits for a member to end by itself.
    ///
    /// # Errors
    /// It still runs after `patience`.
    pub async fn wait(&mut self, at: usize, patience: Duration) -> Result<ExitStatus> {
        let member = &mut self.members[at];
        let mut process = member.process.take().context("the member does not run")?;
        process.wait(patience).await
    }

    /// Sends SIGSTOP: the member neither answers nor hears anything until [`Cluster::resume`].
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&mut self, at: usize) -> Result<()> {
        self.signal(at, Signal::STOP)
    }

    /// Sends SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&mut self, at: usize) -> Result<()> {
        self.signal(at, Signal::CONT)
    }

    /// Sends a signal to a member's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&mut self, at: usize, signal: Signal) -> Result<()> {
        self.members[at]
            .process
            .as_mut()
            .context("the member does not run")?
            .signal(signal)
    }

    /// Waits until every running member answers and all know the same leader.
    ///
    /// # Errors
    /// Not in time, or a member has ended; the text shows the logs' ends.
    pub async fn ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.agree_on_a_leader().await? {
                return Ok(());
            }
            if start.elapsed() > READY_WITHIN {
                bail!("not ready after {READY_WITHIN:?}\n{}", self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn agree_on_a_leader(&mut self) -> Result<bool> {
        let mut leaders = HashSet::new();
        for member in &mut self.members {
            let Some(process) = &mut member.process else {
                continue;
            };
            if let Some(status) = process.ended()? {
                bail!(
                    "{} ended with {status}:\n{}",
                    member.name,
                    process.log_tail(LOG_LINES)
                );
            }
            let status = tokio::time::timeout(Duration::from_secs(1), member.client.status()).await;
            match status {
                Ok(Ok(status)) if status.leader != 0 => drop(leaders.insert(status.leader)),
                _ => return Ok(false),
            }
        }
        if leaders.len() != 1 {
            return Ok(false);
        }
        // A leader that has just been elected may not serve yet: a linearizable read tells.
        for member in self
            .members
            .iter()
            .filter(|member| member.process.is_some())
        {
            let read = tokio::time::timeout(Duration::from_secs(1), member.client.get("ready?"));
            if !matches!(read.await, Ok(Ok(_))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which member leads, by the word of the running ones.
    ///
    /// # Errors
    /// No leader in time.
    pub async fn leader(&self) -> Result<usize> {
        let start = Instant::now();
        loop {
            for (at, member) in self.members.iter().enumerate() {
                if member.process.is_none() {
                    continue;
                }
                let asked = tokio::time::timeout(Duration::from_secs(1), member.client.status());
                let Ok(Ok(status)) = asked.await else {
                    continue;
                };
                let own_id = status.header.map_or(0, |header| header.member_id);
                if status.leader != 0 && status.leader == own_id {
                    return Ok(at);
                }
            }
            if start.elapsed() > READY_WITHIN {
                bail!("no leader after {READY_WITHIN:?}\n{}", self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The end of every member's log.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            let log = log_tail(&member.log, LOG_LINES);
            text += "--- ";
            text += &member.name;
            text += " ";
            text += &member.log.display().to_string();
            text += "\n";
            text += &log;
            text += "\n";
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("{}", self.logs());
            eprintln!("data and logs are kept in {}", dir.keep().display());
        }
    }
}

impl Member {
    /// Its name: `m0`, `m1`, ….
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `127.0.0.1:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// The port for clients.
    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// The port for other members.
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it has printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it was started and not stopped by the test.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }
}

/// A link named `etcd` to `program`: the name decides how Gonfalon reads its flags.
fn named_etcd(program: &Path, dir: &Path) -> Result<PathBuf> {
    let link = dir.join("etcd");
    std::os::unix::fs::symlink(program, &link)?;
    Ok(link)
}

/// Ports for servers, below those that the kernel gives to outgoing connections (from 32768): one of
/// those may take the port of a member that is down, and a client that knocks at such a port may
/// even be connected to itself.
const PORTS: RangeInclusive<u16> = 20_000..=31_999;

/// A port that nobody listens on, given once per test process. `GONFALON_TEST_PORTS=23000-23999`
/// chooses others than [`PORTS`].
///
/// # Errors
/// All are taken.
pub fn free_port() -> Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let ports = ports()?;
    let len = u32::from(ports.end() - ports.start()) + 1;
    // Test processes that run at once begin at places far from each other.
    let begin = std::process::id().wrapping_mul(613);
    for _ in 0..len {
        let at = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % len;
        let port = ports.start() + u16::try_from(at).expect("it is below a number of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port of {ports:?} is taken")
}

fn ports() -> Result<RangeInclusive<u16>> {
    let Ok(text) = std::env::var("GONFALON_TEST_PORTS") else {
        return Ok(PORTS);
    };
    let bad = || format!("GONFALON_TEST_PORTS is {text:?}: write FIRST-LAST");
    let (first, last) = text.split_once('-').with_context(bad)?;
    let (first, last) = (first.parse().ok(), last.parse().ok());
    let range = first.zip(last).filter(|(first, last)| first <= last);
    range.map(|(first, last)| first..=last).with_context(bad)
}

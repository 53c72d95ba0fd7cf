//! A cluster of server processes with fresh data, and what the cases left in it.
//!
//! Both servers get the same flags, and keep their own defaults for everything else; both sync
//! every write to disk. What is known of the content (keys, leases) is kept here, so that a case
//! can check what it reads.

mod fill;
mod member;
mod ports;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;

pub(crate) use self::fill::Filled;
use self::member::Member;
pub(crate) use self::ports::Ports;
use crate::sampling::{self, Memory};
use crate::software::Software;

/// The longest that a cluster may need to answer after its start, with any amount of data.
const READY_MAX: Duration = Duration::from_mins(2);

/// Between two attempts to read from a cluster that is starting; the error of restart times.
const READY_POLL: Duration = Duration::from_millis(5);

/// One attempt; a connection may be accepted by a server that does not answer yet.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// A cluster is at rest when it used less than this share of a core ...
const REST_CORES_MAX: f64 = 0.05;

/// ... for this long. Cases start after this, or after [`REST_WAIT_MAX`].
const REST_SPAN: Duration = Duration::from_millis(300);

const REST_WAIT_MAX: Duration = Duration::from_secs(10);

/// Running members, and their data; both end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// What the keys contain.
    pub(crate) filled: Filled,
    /// Leases that a case granted, for the next round to renew.
    pub(crate) leases: Vec<i64>,
    members: Vec<Member>,
    directory: PathBuf,
}

impl Cluster {
    /// Starts `nodes` members in an empty `directory` and waits until each of them answers.
    ///
    /// # Errors
    ///
    /// A member ends or does not answer; the error holds the end of its log.
    pub(crate) async fn start(
        software: &Software,
        nodes: usize,
        directory: &Path,
        ports: &mut Ports,
    ) -> Result<Self> {
        if directory.exists() {
            std::fs::remove_dir_all(directory)
                .with_context(|| format!("cannot empty {}", directory.display()))?;
        }
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let mut cluster = Self {
            filled: Filled::default(),
            leases: Vec::new(),
            members: Member::plan(software, nodes, directory, ports)?,
            directory: directory.to_owned(),
        };
        cluster.launch().await?;
        Ok(cluster)
    }

    /// Stops all members with SIGTERM and waits for their end; returns how long that took.
    ///
    /// # Errors
    ///
    /// A member does not end, or ends with an error.
    pub(crate) async fn stop(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for member in &mut self.members {
            member.terminate()?;
        }
        for member in &mut self.members {
            member.ended().await?;
        }
        Ok(started.elapsed())
    }

    /// Starts all members and waits until each answers a linearizable read; returns how long
    /// that took.
    pub(crate) async fn launch(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for member in &mut self.members {
            member.launch()?;
        }
        for member in &mut self.members {
            while !answers(&member.client_url()).await {
                member.check_alive()?;
                if started.elapsed() > READY_MAX {
                    bail!(
                        "{} does not answer after {READY_MAX:?}: {}",
                        member.name(),
                        member.log()
                    );
                }
                tokio::time::sleep(READY_POLL).await;
            }
        }
        Ok(started.elapsed())
    }

    /// Waits until the members have nothing left to do, or for ten seconds.
    pub(crate) async fn rest(&self) -> Result<()> {
        let started = Instant::now();
        let mut before = self.processor_time()?;
        while started.elapsed() < REST_WAIT_MAX {
            tokio::time::sleep(REST_SPAN).await;
            let now = self.processor_time()?;
            if now.saturating_sub(before).as_secs_f64() < REST_CORES_MAX * REST_SPAN.as_secs_f64() {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Client URLs of all members, the leader's first.
    ///
    /// # Errors
    ///
    /// No member says that it leads.
    pub(crate) async fn endpoints_leader_first(&self) -> Result<Vec<String>> {
        let mut endpoints = self.endpoints();
        for at in 0..endpoints.len() {
            let mut client = MaintenanceClient::connect(endpoints[at].clone()).await?;
            let status = client
                .status(pb::StatusRequest::default())
                .await?
                .into_inner();
            if status
                .header
                .is_some_and(|header| header.member_id == status.leader)
            {
                endpoints.rotate_left(at);
                return Ok(endpoints);
            }
        }
        bail!("no member leads")
    }

    /// Client URLs of all members.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::client_url).collect()
    }

    /// Process ids of all members.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.members.iter().filter_map(Member::pid).collect()
    }

    /// Processor time of the members since they were last started.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        sampling::processes_time(&self.processes())
    }

    /// Resident memory of the members.
    pub(crate) fn memory(&self) -> Result<Memory> {
        sampling::memory(&self.processes())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Members first: dropping one kills its process.
        self.members.clear();
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("cannot delete {}: {error}", self.directory.display());
        }
    }
}

/// Whether the member at `url` answers a linearizable read.
async fn answers(url: &str) -> bool {
    let attempt = async {
        let mut client = KvClient::connect(url.to_owned()).await.ok()?;
        let request = pb::RangeRequest {
            key: "/bench".into(),
            ..Default::default()
        };
        client.range(request).await.ok()
    };
    matches!(
        tokio::time::timeout(ATTEMPT_MAX, attempt).await,
        Ok(Some(_))
    )
}

//! Clients that read, write and watch while a test does what it likes to the cluster; all they ask
//! and hear is recorded for [`crate::check`].
//!
//! Each client has a member that it prefers and goes to the next one when that does not answer, as
//! the clients of etcd do. Watchers resume after the last revision they know of.

mod recorder;
mod watcher;
mod writer;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::recorder::Recorder;
use self::watcher::{Watched, Watcher};
use self::writer::Writer;
use crate::check::{Report, check};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::{Outcome, Request};

/// Clients that write: enough that calls overlap, few enough that each key's history is short.
const WRITERS: usize = 4;
/// Keys that all of them write.
const KEYS: usize = 8;
/// Every key begins with it.
const PREFIX: &str = "k";
/// How long watchers may take to see the last write, and members to serve again.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// Running clients, and what they have recorded.
#[derive(Debug)]
pub struct Workload {
    recorder: Arc<Recorder>,
    clients: Vec<Client>,
    writing: watch::Sender<bool>,
    /// Watchers end when they know of everything up to here.
    last: watch::Sender<Option<i64>>,
    writers: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts writers and watchers on a cluster whose store is empty.
    pub fn start(cluster: &Cluster) -> Self {
        let recorder = Arc::new(Recorder::new());
        let clients: Vec<Client> = (0..cluster.size()).map(|at| cluster.client(at)).collect();
        let (writing, _) = watch::channel(true);
        let (last, _) = watch::channel(None);
        let mut workload = Self {
            recorder,
            clients,
            writing,
            last,
            writers: Vec::new(),
            watchers: Vec::new(),
        };
        for watched in [Watched::ALL, Watched::ALL, Watched::PUTS_OF_FEW] {
            workload.watch(watched, workload.watchers.len() % cluster.size());
        }
        for at in 0..WRITERS {
            let writer = Writer::new(
                workload.recorder.clone(),
                workload.clients.clone(),
                at % cluster.size(),
            );
            let writing = workload.writing.subscribe();
            workload.writers.push(tokio::spawn(writer.run(writing)));
        }
        workload
    }

    fn watch(&mut self, watched: Watched, home: usize) {
        let watcher = Watcher::new(
            self.recorder.clone(),
            self.clients.clone(),
            watched,
            home,
            u32::try_from(self.watchers.len()).expect("there are a handful"),
        );
        let last = self.last.subscribe();
        self.watchers.push(tokio::spawn(watcher.run(last)));
    }

    /// Waits until so many writes more have been acknowledged.
    ///
    /// # Errors
    /// Not within `patience`.
    pub async fn advance(&self, writes: u64, patience: Duration) -> Result<()> {
        let start = Instant::now();
        let goal = self.recorder.acknowledged() + writes;
        while self.recorder.acknowledged() < goal {
            if start.elapsed() > patience {
                let missing = goal - self.recorder.acknowledged();
                bail!("{missing} of {writes} writes are missing after {patience:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The longest time without an acknowledged write since `since`.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        self.recorder.longest_pause(since)
    }

    /// Ends the clients and judges what they recorded, together with a last look at every member:
    /// a linearizable read of all keys, and a watch of everything from the first revision.
    ///
    /// # Errors
    /// A member does not serve, or a watcher does not see the last write in time.
    ///
    /// # Panics
    /// If a promise was broken; the history is then kept beside the cluster's data.
    pub async fn verify(mut self, cluster: &Cluster) -> Result<Report> {
        self.writing.send_replace(false);
        for writer in self.writers.drain(..) {
            writer.await.context("a writer")?;
        }
        let mut last = 0;
        for at in 0..self.clients.len() {
            last = last.max(self.read_everything(at).await?);
        }
        for at in 0..self.clients.len() {
            self.watch(Watched::ALL, at);
        }
        self.last.send_replace(Some(last));
        let watchers = futures::future::try_join_all(self.watchers.drain(..));
        let Ok(ended) = tokio::time::timeout(SETTLED_WITHIN, watchers).await else {
            bail!("a watcher does not see revision {last}\n{}", cluster.logs());
        };
        ended.context("a watcher")?;
        let history = self.recorder.take();
        let report = check(&history);
        if !report.violations.is_empty() {
            let path = cluster.dir().join("history.jsonl");
            let mut file = BufWriter::new(File::create(&path)?);
            history.write(&mut file)?;
            file.flush()?;
        }
        report.assert_clean();
        Ok(report)
    }

    /// A linearizable read of every key at one member; its revision.
    async fn read_everything(&self, at: usize) -> Result<i64> {
        let start = Instant::now();
        let caller = self.recorder.new_caller();
        loop {
            let request = Request::Read {
                keys: (0..KEYS).map(writer::key).collect(),
                serializable: false,
                at: None,
            };
            let call = self.recorder.call(caller, at, &self.clients[at], request);
            match call.await {
                Outcome::Done(answer) => return Ok(answer.revision),
                Outcome::Refused(why) | Outcome::Unknown(why)
                    if start.elapsed() > SETTLED_WITHIN =>
                {
                    bail!("member {at} does not serve reads: {why}")
                }
                Outcome::Refused(_) | Outcome::Unknown(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

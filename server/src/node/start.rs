//! Opening a node: what is read and checked, in which order, and the tasks that then run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gonfalon_core::command::Command;
use gonfalon_core::{LeaseId, MemberId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, ReadPolicy, SnapshotPolicy};
use tokio::sync::watch;

use super::apply::Applier;
use super::expire::LeaseClock;
use super::founding::{Opening, founders, proposers};
use super::identity::{DataDir, IdentityError, LOG, STATE};
use super::network::Network;
use super::pending::Pending;
use super::propose::Proposer;
use super::read::ReadIndex;
use super::shorten::LogSizes;
use super::{Inner, Node, NodeError};
use crate::config::AutoCompaction;
use crate::metrics::Metrics;
use crate::raft::PeerNode;
use crate::storage::{Durability, FailStop, LogStore, Pace, StorageError};
use crate::store::Store;
use crate::tasks::Tasks;

/// What a node is opened with. Nothing is left open: see `config.rs` for defaults.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The member's name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// The cluster's first members, this one among them.
    pub initial_members: Vec<InitialMember>,
    /// Distinguishes clusters that have the same members.
    pub initial_token: String,
    /// Whether this member takes part in founding the cluster; else it waits to be contacted.
    pub is_founder: bool,
    /// Whether to refuse a data directory that `initial_members` does not describe.
    pub check_identity: bool,
    /// How often the leader is heard.
    pub heartbeat_interval: Duration,
    /// How long a leader may be silent, about: see [`raft_config`].
    pub election_timeout: Duration,
    /// Whether candidates ask first.
    pub pre_vote: bool,
    /// Log entries between snapshots.
    pub snapshot_count: u64,
    /// Log entries kept behind a snapshot for followers that are a little behind.
    pub snapshot_catchup_entries: u64,
    /// When a write counts as done.
    pub durability: Durability,
    /// Which history is compacted without being asked.
    pub auto_compaction: AutoCompaction,
    /// How fast compacted history is swept off the disk.
    pub sweep_pace: Pace,
    /// Size of the data at which writes are refused, in bytes; `None`: never.
    pub quota_bytes: Option<u64>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
}

/// One of the cluster's first members.
#[derive(Debug, Clone)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
}

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is in it cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Raft refused to start.
    #[error("starting Raft: {0}")]
    Raft(String),
}

/// openraft's settings for etcd's two.
///
/// A follower campaigns after a silence of `election_timeout_max` (the leader's lease) plus a random
/// time between the two. With 0.35 and 0.7 of etcd's election timeout E that is 1.05 to 1.4 E,
/// where etcd waits 1 to 2 E.
fn raft_config(config: &NodeConfig, cluster_id: u64) -> Result<Config, OpenError> {
    let timeout = u64::try_from(config.election_timeout.as_millis()).unwrap_or(u64::MAX);
    let heartbeat = u64::try_from(config.heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
    let raft = Config {
        cluster_name: format!("{cluster_id:x}"),
        heartbeat_interval: heartbeat,
        election_timeout_min: timeout * 35 / 100,
        election_timeout_max: timeout * 70 / 100,
        install_snapshot_timeout: 600_000,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count),
        replication_lag_threshold: config.snapshot_count + config.snapshot_catchup_entries,
        max_in_snapshot_log_to_keep: config.snapshot_catchup_entries,
        enable_pre_vote: Some(config.pre_vote),
        // The default lets a restarted leader resume in its old term, which gave stale reads and
        // even two entries with one log id.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    raft.validate()
        .map_err(|error| OpenError::Raft(error.to_string()))
}

impl Node {
    /// Opens a member that may take part and starts its tasks.
    pub(super) async fn open(opening: Opening, tasks: &mut Tasks) -> Result<Self, OpenError> {
        let Opening {
            config,
            dir,
            identity,
            peers,
            ..
        } = opening;
        let fail_stop = FailStop::new();
        let (mut log, store) = open_storage(&dir, &fail_stop, &config).await?;
        let proposers = proposers(&mut log, &store).await?;
        let store = Arc::new(store);
        let metrics = config.metrics.clone();
        let applied_index = store.applied_state().0.map_or(0, |id| id.index);
        let (applied_sender, applied) = watch::channel(applied_index);
        let pending = Arc::new(Pending::default());
        let leases = Arc::new(LeaseClock::default());
        let is_open = Arc::new(AtomicBool::new(false));
        let sizes = LogSizes::opened(applied_index, log.entry_bytes(applied_index));
        let sizes = Arc::new(sizes);
        let applier = Applier {
            origin: identity.member_id,
            store: store.clone(),
            pending: pending.clone(),
            leases: leases.clone(),
            applied: applied_sender,
            sizes: sizes.clone(),
            is_open: is_open.clone(),
        };
        let raft = openraft::Raft::new(
            identity.member_id.get(),
            Arc::new(raft_config(&config, identity.cluster_id)?),
            Network::new(peers.clone(), config.heartbeat_interval),
            log,
            applier,
        )
        .await
        .map_err(|error| OpenError::Raft(error.to_string()))?;
        is_open.store(true, Ordering::Release);
        let (publisher, published) = watch::channel(false);
        let node = Self {
            inner: Arc::new(Inner {
                raft,
                proposer: Proposer::new(identity.member_id, pending, metrics.clone()),
                identity,
                store,
                reads: ReadIndex::new(config.request_timeout(), metrics),
                leases,
                peers,
                heard: Mutex::default(),
                applied,
                published,
                fail_stop,
                leave: tasks.leave_token(),
                stop: tasks.stop_token(),
                election_timeout: config.election_timeout,
                request_timeout: config.request_timeout(),
                proposers,
            }),
        };
        // Before anybody calls: who is not known is not counted. Raft tells of them a little later.
        let (_, membership) = node.store().applied_state();
        node.learn_peers(membership.nodes());
        node.found(&config).await?;
        node.spawn_rest(tasks);
        node.spawn_shorten(sizes, tasks);
        node.start(&config, dir, publisher, tasks);
        Ok(node)
    }

    /// Writes the first membership, if there is none. Every founder writes the same one, so it does
    /// not matter who is first.
    async fn found(&self, config: &NodeConfig) -> Result<(), OpenError> {
        let raft = self.raft();
        let refused = |error: String| OpenError::Raft(error);
        let is_initialized = raft
            .is_initialized()
            .await
            .map_err(|error| refused(error.to_string()))?;
        if is_initialized || !config.is_founder {
            return Ok(());
        }
        let members = founders(config);
        self.learn_peers(members.iter());
        raft.initialize(members)
            .await
            .map_err(|error| refused(error.to_string()))
    }

    fn start(
        &self,
        config: &NodeConfig,
        dir: DataDir,
        published: watch::Sender<bool>,
        tasks: &mut Tasks,
    ) {
        let stop = tasks.stop_token();
        let timeout = self.inner.request_timeout;

        let (node, token) = (self.clone(), stop.clone());
        tasks.spawn("proposer", async move {
            let inner = &node.inner;
            inner
                .proposer
                .run(inner.raft.clone(), inner.peers.clone(), timeout, token)
                .await;
            Ok(())
        });

        let (node, token) = (self.clone(), stop.clone());
        tasks.spawn("read index", async move {
            let inner = &node.inner;
            let (raft, peers, applied) = (
                inner.raft.clone(),
                inner.peers.clone(),
                inner.applied.clone(),
            );
            inner.reads.run(raft, peers, applied, token).await;
            Ok(())
        });

        let (node, token) = (self.clone(), stop.clone());
        tasks.spawn("leadership", async move {
            tokio::select! {
                biased;
                () = token.cancelled() => Ok(()),
                // When the node is closed Raft ends too, perhaps while this is being looked at, and
                // that is no failure.
                ended = node.follow_leadership() => {
                    if token.is_cancelled() { Ok(()) } else { Err(ended) }
                }
            }
        });

        let (node, token) = (self.clone(), stop.clone());
        tasks.spawn("lease expiry", async move {
            let revoke = async |leases| node.revoke_all(leases).await;
            node.inner.leases.run(revoke, token).await;
            Ok(())
        });

        let (node, token, urls) = (self.clone(), stop.clone(), config.client_urls.clone());
        tasks.spawn("publish", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = node.publish(urls) => {
                    published.send_replace(true);
                    token.cancelled().await;
                }
            }
            Ok(())
        });

        self.spawn_probe(tasks);

        let (node, token, option) = (self.clone(), stop.clone(), config.auto_compaction);
        tasks.spawn("automatic compaction", async move {
            node.compact_automatically(option, token).await;
            Ok(())
        });

        let (node, token, quota_bytes) = (self.clone(), stop.clone(), config.quota_bytes);
        tasks.spawn("quota", async move {
            node.watch_quota(quota_bytes, token).await;
            Ok(())
        });

        self.spawn_close(dir, tasks);
    }

    /// Closes the node when nobody uses it any more, or when storage has failed.
    fn spawn_close(&self, dir: DataDir, tasks: &mut Tasks) {
        let stop = tasks.stop_token();
        // Says so before anything is closed: a disk that has failed may hang after that.
        let (fail_stop, token) = (self.inner.fail_stop.clone(), stop.clone());
        tasks.spawn("storage", async move {
            tokio::select! {
                biased;
                error = fail_stop.raised() => Err(error.to_string()),
                () = token.cancelled() => Ok(()),
            }
        });

        // The last to end: it closes what the others use.
        let (node, peers) = (self.clone(), tasks.peers());
        tasks.spawn("raft", async move {
            stop.cancelled().await;
            tokio::select! {
                // Whatever the others have said by then Raft takes in.
                () = peers.wait() => {}
                _ = node.inner.fail_stop.raised() => {}
            }
            node.close().await;
            drop(dir);
            Ok(())
        });
    }

    /// Keeps the leader's clockwork in step with Raft. Returns (why) only when Raft has ended.
    async fn follow_leadership(&self) -> String {
        let mut metrics = self.raft().metrics();
        let mut led_term = None;
        let mut elected_term = None;
        let mut leader = None;
        let mut told = None;
        let mut membership = None;
        loop {
            let (running, term, now_leader, now_membership) = {
                let now = metrics.borrow_watched();
                let leads = now.state.is_leader();
                (
                    now.running_state.clone(),
                    leads.then_some(now.current_term),
                    now.current_leader,
                    now.membership_config.clone(),
                )
            };
            if let Err(fatal) = running {
                return format!("Raft stopped: {fatal}");
            }
            if now_leader.is_some() && now_leader != leader {
                self.store().metrics().raft.leader_changes.inc();
                leader = now_leader;
            }
            if now_leader != told {
                match now_leader.map(MemberId::new) {
                    Some(leader) if leader == self.identity().member_id => {}
                    Some(leader) => tracing::info!(%leader, "following a leader"),
                    None => tracing::info!("no leader is known"),
                }
                told = now_leader;
            }
            if membership.as_ref() != Some(&now_membership) {
                self.learn_peers(now_membership.nodes());
                membership = Some(now_membership);
            }
            if term.is_some() && term > elected_term {
                // It was elected by a quorum just now. Once a term: whether it still has a quorum
                // is what it cannot know of itself.
                self.heard_from_leader();
                elected_term = term;
            }
            if term != led_term {
                led_term = match term {
                    Some(term) if self.begin_leading(term).await => Some(term),
                    Some(_) => None,
                    None => {
                        tracing::info!("not leading any more");
                        self.stop_leading();
                        None
                    }
                };
            }
            if metrics.changed().await.is_err() {
                return "Raft stopped".into();
            }
        }
    }

    /// Remembers where the others are reached: a follower asks the leader, whoever that is.
    fn learn_peers<'a>(&self, members: impl Iterator<Item = (&'a u64, &'a PeerNode)>) {
        for (&id, node) in members.filter(|(id, _)| **id != self.id()) {
            if let Err(error) = self.inner.peers.learn(id, &node.peer_urls) {
                tracing::error!(%error, "a member cannot be reached");
            }
        }
    }

    /// Starts the leader's clockwork once the term's first entry is applied.
    async fn begin_leading(&self, term: u64) -> bool {
        if self
            .raft()
            .ensure_linearizable(ReadPolicy::ReadIndex)
            .await
            .is_err()
        {
            return false;
        }
        tracing::info!(term, "leading");
        self.inner.leases.start(
            || {
                self.store()
                    .read(|state, _| state.leases().map(|(id, l)| (id, l.ttl)).collect())
            },
            self.inner.election_timeout,
        );
        let is_alone =
            self.metrics(|metrics| metrics.membership_config.voter_ids().eq([self.id()]));
        self.inner.reads.set_alone(is_alone);
        true
    }

    fn stop_leading(&self) {
        self.inner.reads.set_alone(false);
        self.inner.leases.stop();
    }

    /// Proposes the end of leases whose time is up. What fails is found again by the next scan.
    ///
    /// Only into this member's own log, as the leader that its clock belongs to: a member that was
    /// stopped and wakes up finds the time of every lease up, while its successor has renewed them.
    async fn revoke_all(&self, leases: Vec<LeaseId>) {
        if !self.leads_surely() {
            return;
        }
        let count = leases.len() as u64;
        let revocations = leases.into_iter().map(|id| Command::LeaseRevoke { id });
        let entry = self.inner.proposer.entry(revocations.collect());
        let written = self.raft().client_write(entry);
        match tokio::time::timeout(self.inner.request_timeout, written).await {
            Ok(Ok(_)) => self.store().metrics().kv.lease_expired.inc_by(count),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot revoke expired leases; trying again");
            }
            Err(_) => tracing::warn!("no quorum to revoke expired leases; trying again"),
        }
    }

    /// Tells the cluster this member's name and where clients reach it, until the cluster answers and
    /// knows.
    async fn publish(&self, client_urls: Vec<String>) {
        let identity = self.identity();
        loop {
            // Before there is a leader, a read could only fail.
            let raft = self.raft().wait(None);
            let elected = raft.metrics(|metrics| metrics.current_leader.is_some(), "a leader");
            if elected.await.is_err() {
                // Raft has ended; whoever waits is told so by the task that it waits for.
                return std::future::pending().await;
            }
            // The own name may be on disk since long ago, when there is no leader now.
            let is_known = match self.linearize().await {
                Ok(()) => self.is_published(&client_urls),
                Err(NodeError::Stopped) => return std::future::pending().await,
                Err(error) => {
                    tracing::warn!(%error, "not ready: the cluster does not answer; trying again");
                    tokio::time::sleep(crate::limits::PUBLISH_RETRY).await;
                    continue;
                }
            };
            if is_known {
                return;
            }
            let command = Command::PublishMember {
                id: identity.member_id,
                name: identity.name.clone(),
                client_urls: client_urls.clone(),
            };
            if let Err(error) = self.propose(command).await {
                tracing::warn!(%error, "cannot publish this member's client URLs; trying again");
                tokio::time::sleep(crate::limits::PUBLISH_RETRY).await;
            }
        }
    }

    fn is_published(&self, client_urls: &[String]) -> bool {
        let identity = self.identity();
        self.store().read(|state, _| {
            let mut members = state.members();
            members.any(|(id, info)| {
                id == identity.member_id
                    && info.name == identity.name
                    && info.client_urls == client_urls
            })
        })
    }

    /// Stops Raft and brings everything to disk, if that has not failed.
    async fn close(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
        if self.inner.fail_stop.error().is_some() {
            return;
        }
        let store = self.inner.store.clone();
        match tokio::task::spawn_blocking(move || store.flush()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot flush; the log has it all"),
            Err(error) => tracing::error!(%error, "flushing panicked"),
        }
    }

    /// Gives leadership to the voter that is furthest, if this member leads others.
    pub async fn hand_over(&self) {
        let own = self.id();
        let next = self.metrics(|metrics| {
            let replication = metrics.replication.as_ref()?;
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            replication
                .iter()
                .filter(|(id, _)| **id != own && voters.contains(id))
                .max_by_key(|(_, matched)| **matched)
                .map(|(&id, _)| id)
        });
        if let Some(next) = next
            && let Err(error) = self.transfer(next).await
        {
            tracing::warn!(to = %MemberId::new(next), %error, "leadership was not handed over");
        }
    }
}

async fn open_storage(
    dir: &DataDir,
    fail_stop: &FailStop,
    config: &NodeConfig,
) -> Result<(LogStore, Store), OpenError> {
    let metrics = config.metrics.clone();
    let (durability, pace) = (config.durability, config.sweep_pace);
    let (raft, state, outgoing) = (dir.join(LOG), dir.join(STATE), dir.join("outgoing"));
    let (incoming, fail_stop) = (dir.join("incoming"), fail_stop.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let wal = metrics.disk.wal.clone();
        let log = LogStore::open(&raft, fail_stop.clone(), durability, wal)?;
        let store = Store::open(&state, outgoing, fail_stop, pace, metrics)?;
        crate::storage::clear_dir(&incoming)?;
        Ok::<_, StorageError>((log, store))
    });
    Ok(opened
        .await
        .map_err(|error| OpenError::Raft(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;
    use crate::config::{Invocation, Options};

    /// A member alone that keeps its data in `dir`.
    async fn open(dir: &tempfile::TempDir) -> Server {
        let args = [
            format!("--data-dir={}", dir.path().join("data").display()),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        ];
        let Invocation::Run(options) = Options::read(&args, &[]).unwrap() else {
            panic!("a command line that is fine");
        };
        Server::open(options.resolve().unwrap()).await.unwrap()
    }

    /// A lock that nobody gives back stands for the disk: flushing waits for it, and whoever reads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn a_member_whose_disk_fails_and_then_hangs_ends_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let server = open(&dir).await;
        server.ready().await;
        let node = server.node().clone();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (hang, hangs) = tokio::sync::oneshot::channel();
        let store = node.store().clone();
        let disk = std::thread::spawn(move || {
            store.while_locked(|| {
                hang.send(()).unwrap();
                released.recv().unwrap_err();
            });
        });
        hangs.await.unwrap();
        let error = StorageError::io(dir.path(), "writing", "it burns");
        node.inner.fail_stop.raise(&error);
        let run = server.run_until(std::future::pending());
        let ended = tokio::time::timeout(Duration::from_secs(20), run).await;
        drop(release);
        disk.join().unwrap();
        let failure = ended.expect("it ends although the disk hangs").unwrap_err();
        assert!(failure.to_string().contains("it burns"), "{failure}");
    }
}

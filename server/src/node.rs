//! One member: owns Raft, the replicated state and its storage, and the order in which they start
//! and stop.
//!
//! Everything that clients ask for goes through four calls: [`Node::propose`] replicates a command,
//! [`Node::linearize`] makes the local state safe to read, [`Node::store`] reads it, and the lease
//! calls talk to whoever keeps the leases' clock, the leader. None of them cares which member this
//! is: what a follower cannot do itself it asks of the leader.

mod apply;
mod compact;
mod dial;
mod expire;
mod founding;
mod identity;
mod meter;
mod network;
mod peer_service;
mod peers;
mod pending;
mod plan;
mod probe;
mod propose;
mod quota;
mod read;
mod rest;
mod returning;
mod shorten;
mod snapshot;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gonfalon_core::command::Command;
use gonfalon_core::{LeaseId, MemberId, Reply};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::apply::Applier;
use self::expire::{LeaseClock, Renewal};
use self::peers::SharedPeers;
use self::propose::Proposer;
use self::read::ReadIndex;
use crate::raft::TypeConfig;
use crate::storage::FailStop;
use crate::store::Store;

pub use self::founding::Opening;
pub use self::identity::{Identity, IdentityError, cluster_id, is_started, member_id};
pub(crate) use self::meter::Asked;
pub use self::peer_service::PeerService;
pub use self::snapshot::SnapshotDir;
pub use self::start::{InitialMember, NodeConfig, OpenError};

/// Raft with our types.
type Raft = openraft::Raft<TypeConfig, Applier>;

/// A handle to this member. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    identity: Identity,
    store: Arc<Store>,
    proposer: Proposer,
    reads: ReadIndex,
    leases: Arc<LeaseClock>,
    peers: SharedPeers,
    /// When a leader's message was last accepted here, or this member was elected.
    heard: Mutex<Option<Instant>>,
    /// Index of the last entry applied here.
    applied: tokio::sync::watch::Receiver<u64>,
    /// Whether the cluster knows this member's name and client URLs.
    published: tokio::sync::watch::Receiver<bool>,
    /// Members whose proposals were in the log when it was opened, and not in the state.
    proposers: BTreeSet<MemberId>,
    fail_stop: FailStop,
    /// Cancelled when clients are to be served no longer.
    leave: CancellationToken,
    /// Cancelled after that, when tasks are to end and the others to be heard no longer.
    stop: CancellationToken,
    election_timeout: Duration,
    request_timeout: Duration,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Why a node could not do what was asked; the text for clients is in `server/wire/src/refusal.rs`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No leader is known. Nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the call was under way. A write may or may not have happened.
    #[error("leader changed")]
    LeaderChanged,
    /// No answer in time. A write may or may not have happened.
    #[error("timed out")]
    Timeout,
    /// No answer in time, and the leader was lost meanwhile. A write may or may not have happened.
    #[error("timed out, possibly due to previous leader failure")]
    TimeoutLeaderLost,
    /// This member did not catch up with the leader in time.
    #[error("timed out waiting for the applied index")]
    TimeoutApply,
    /// Too much is waiting to be applied. Nothing was proposed.
    #[error("too many requests")]
    TooManyRequests,
    /// The command is larger than a log entry may be. Nothing was proposed.
    #[error("request is too large")]
    TooLarge,
    /// The node is shutting down.
    #[error("stopped")]
    Stopped,
    /// This member is not the leader, and only the leader can do this.
    #[error("not leader")]
    NotLeader,
    /// The member named is not a voter of this cluster.
    #[error("bad leader transferee")]
    BadTransferee,
}

/// What a node knows of itself and its cluster, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster.
    pub cluster_id: u64,
    /// This member.
    pub member_id: MemberId,
    /// The leader, if one is known and has been heard from within an election timeout.
    pub leader: Option<MemberId>,
    /// Raft's term.
    pub term: u64,
    /// Index of the last log entry that is known to be committed.
    pub committed_index: u64,
    /// Index of the last log entry that was applied.
    pub applied_index: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
}

/// One member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// What is left of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRemaining {
    /// Seconds granted.
    pub granted: i64,
    /// Seconds left, rounded down; not below 0.
    pub remaining: i64,
}

/// Whether a failure comes of a change of leader and there is time to ask again; then a moment has
/// passed.
async fn passes_soon<T>(result: &Result<T, NodeError>, give_up: Instant) -> bool {
    let is_passing = matches!(
        result,
        Err(NodeError::NoLeader | NodeError::LeaderChanged | NodeError::NotLeader)
    );
    if !is_passing || Instant::now() >= give_up {
        return false;
    }
    tokio::time::sleep(crate::limits::READ_INDEX_RETRY).await;
    true
}

/// Returns when a leader of a later term than `term` is known: what was asked of one before it will
/// not be answered.
async fn succeeded(raft: &Raft, term: u64) {
    let mut metrics = raft.server_metrics();
    loop {
        {
            let now = metrics.borrow_watched();
            if now.current_leader.is_some() && now.vote.leader_id.term > term {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            // Raft has ended; whoever waits is told so by the one that it waits for.
            std::future::pending::<()>().await;
        }
    }
}

impl Node {
    /// Replicates `command` and answers once this member has applied it.
    ///
    /// # Errors
    ///
    /// See [`NodeError`]: its lines say whether the command may have happened. What is wrong with
    /// the command itself is in [`Reply::result`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the command may or may not happen.
    pub async fn propose(&self, command: Command) -> Result<Reply, NodeError> {
        self.inner.proposer.propose(command).await
    }

    /// Returns when the local state holds everything that any member acknowledged before the call.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn linearize(&self) -> Result<(), NodeError> {
        self.inner.reads.linearize().await
    }

    /// The local state.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// Cancelled when clients are to be served no longer: long streams end then. What is under way
    /// still goes on.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.leave.clone()
    }

    /// Who this member is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Renews a lease; seconds granted, or none if there is no such lease.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>, NodeError> {
        let give_up = Instant::now() + self.inner.request_timeout;
        loop {
            let result = match self.leader() {
                None => Err(NodeError::NoLeader),
                Some(leader) if leader == self.id() => self.renew_here(&[id]).await,
                Some(leader) => {
                    let asked = self.inner.peers.keep_alive(leader, vec![id.get()]);
                    let renewed = self.of_leader(asked).await;
                    renewed.map(|ttls| {
                        ttls.into_iter()
                            .map(|ttl| (ttl > 0).then_some(ttl))
                            .collect()
                    })
                }
            };
            let result = result.map(|ttls: Vec<_>| ttls.into_iter().next().flatten());
            if !passes_soon(&result, give_up).await {
                return result;
            }
        }
    }

    /// What is left of a lease, or none if there is no such lease.
    pub async fn lease_remaining(&self, id: LeaseId) -> Result<Option<LeaseRemaining>, NodeError> {
        let give_up = Instant::now() + self.inner.request_timeout;
        loop {
            let result = match self.leader() {
                None => Err(NodeError::NoLeader),
                Some(leader) if leader == self.id() => self.remaining_here(id).await,
                Some(leader) => {
                    let asked = self.inner.peers.lease_remaining(leader, id);
                    self.of_leader(asked).await
                }
            };
            if !passes_soon(&result, give_up).await {
                return result;
            }
        }
    }

    /// Sorts leases by when they end, the soonest first, if this member leads. Others do not know, and
    /// leave them as they are.
    pub fn sort_leases(&self, leases: &mut [LeaseId]) {
        self.inner.leases.sort(leases);
    }

    /// What the leader answers, unless it hangs until it has a successor.
    async fn of_leader<T, E>(
        &self,
        asked: impl Future<Output = Result<T, E>>,
    ) -> Result<T, NodeError> {
        let term = self.term();
        tokio::select! {
            biased;
            answer = asked => answer.map_err(|_| NodeError::LeaderChanged),
            () = succeeded(self.raft(), term) => Err(NodeError::LeaderChanged),
        }
    }

    fn leader(&self) -> Option<u64> {
        self.metrics(|metrics| metrics.current_leader)
    }

    /// Renews leases if this member leads; seconds granted to each, or none if there is no such
    /// lease.
    ///
    /// One that is not there may be on its way: a follower acknowledges a grant once it is
    /// committed, which may be before it is applied here.
    async fn renew_here(&self, ids: &[LeaseId]) -> Result<Vec<Option<i64>>, NodeError> {
        let mut is_caught_up = false;
        let mut ttls = Vec::with_capacity(ids.len());
        for &id in ids {
            let mut ttl = self.renew_known(id).await?;
            if ttl.is_none() && !is_caught_up {
                self.linearize().await?;
                is_caught_up = true;
                ttl = self.renew_known(id).await?;
            }
            ttls.push(ttl);
        }
        Ok(ttls)
    }

    /// Renews a lease that is known here, if this member leads and a quorum has heard so recently.
    async fn renew_known(&self, id: LeaseId) -> Result<Option<i64>, NodeError> {
        if !self.leads_surely() {
            return Err(NodeError::NotLeader);
        }
        match self.inner.leases.renew(id) {
            Renewal::Renewed(ttl) => {
                self.store().metrics().kv.lease_renewed.inc();
                Ok(Some(ttl))
            }
            Renewal::Missing => Ok(None),
            Renewal::NotLeading => Err(NodeError::NotLeader),
            Renewal::Expired => {
                let gone = self.inner.leases.wait_gone(id);
                match tokio::time::timeout(self.inner.request_timeout, gone).await {
                    Ok(()) => Ok(None),
                    Err(_) => Err(NodeError::Timeout),
                }
            }
        }
    }

    /// What is left of a lease, with everything that was acknowledged before the call.
    async fn remaining_here(&self, id: LeaseId) -> Result<Option<LeaseRemaining>, NodeError> {
        self.linearize().await?;
        self.inner
            .leases
            .remaining(id)
            .map_err(|()| NodeError::NotLeader)
    }

    /// Whether this member leads and has heard from a quorum within an election timeout: nobody
    /// else can have been elected since.
    fn leads_surely(&self) -> bool {
        self.metrics(|metrics| {
            let alone = metrics.membership_config.voter_ids().count() == 1;
            let heard = metrics
                .last_quorum_acked
                .is_some_and(|at| at.elapsed() < self.inner.election_timeout);
            metrics.state.is_leader() && (alone || heard)
        })
    }

    /// Notes that a message of the leader was accepted, or that this member was elected.
    fn heard_from_leader(&self) {
        *self
            .inner
            .heard
            .lock()
            .expect("nobody panics while holding it") = Some(Instant::now());
    }

    /// The leader, if it is there. Raft itself knows whom it last voted for, and keeps that while
    /// nobody can be elected: a leader without followers goes on believing that it leads, and
    /// followers of a leader that died go on believing in it.
    fn leader_heard_of(&self) -> Option<u64> {
        let leader = self.leader()?;
        let heard = *self
            .inner
            .heard
            .lock()
            .expect("nobody panics while holding it");
        let heard = heard.is_some_and(|at| at.elapsed() < self.inner.election_timeout);
        let is_there = heard || (leader == self.id() && self.leads_surely());
        is_there.then_some(leader)
    }

    /// Hands leadership to `target`; returns when it is the leader.
    pub async fn move_leader(&self, target: MemberId) -> Result<(), NodeError> {
        let target = target.get();
        if !self.inner.raft.is_leader() {
            return Err(NodeError::NotLeader);
        }
        let is_voter =
            self.metrics(|metrics| metrics.membership_config.voter_ids().any(|id| id == target));
        if !is_voter {
            return Err(NodeError::BadTransferee);
        }
        if target == self.id() {
            return Ok(());
        }
        self.transfer(target).await
    }

    async fn transfer(&self, target: u64) -> Result<(), NodeError> {
        let raft = &self.inner.raft;
        raft.trigger()
            .transfer_leader(target)
            .await
            .map_err(|_| NodeError::Stopped)?;
        let moved = raft
            .wait(Some(self.inner.request_timeout))
            .metrics(
                |metrics| metrics.current_leader == Some(target),
                "leadership moves",
            )
            .await;
        moved.map_err(|_| NodeError::Timeout)?;
        // It was: Raft knows that from its first message, which is noted as heard a moment later.
        // Until then this member would call itself without a leader.
        self.heard_from_leader();
        Ok(())
    }

    /// What this member knows of itself and the cluster.
    pub fn status(&self) -> Status {
        let identity = &self.inner.identity;
        let leader = self.leader_heard_of().map(MemberId::new);
        self.metrics(|metrics| Status {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            leader,
            term: metrics.current_term,
            committed_index: metrics.local_committed.map_or(0, |id| id.index),
            applied_index: *self.inner.applied.borrow(),
            is_learner: metrics.state.is_learner(),
        })
    }

    /// The cluster's term alone; cheaper than [`Node::status`], for response headers.
    pub fn term(&self) -> u64 {
        self.metrics(|metrics| metrics.current_term)
    }

    /// The cluster's members as this member knows them, in order of their ids.
    pub fn members(&self) -> Vec<Member> {
        let membership = self.metrics(|metrics| metrics.membership_config.clone());
        let voters: Vec<u64> = membership.voter_ids().collect();
        self.store().read(|state, _| {
            let published: BTreeMap<_, _> = state.members().collect();
            membership
                .nodes()
                .map(|(&id, node)| {
                    let info = published
                        .get(&MemberId::new(id))
                        .copied()
                        .cloned()
                        .unwrap_or_default();
                    Member {
                        id: MemberId::new(id),
                        name: info.name,
                        peer_urls: node.peer_urls.clone(),
                        client_urls: info.client_urls,
                        is_learner: !voters.contains(&id),
                    }
                })
                .collect()
        })
    }

    /// Waits until the cluster has a leader and knows this member's name and client URLs.
    pub async fn published(&self) {
        let mut published = self.inner.published.clone();
        if published
            .wait_for(|&is_published| is_published)
            .await
            .is_err()
        {
            // The publisher ended: the node is being closed, and nobody is ready any more.
            std::future::pending::<()>().await;
        }
    }

    fn id(&self) -> u64 {
        self.inner.identity.member_id.get()
    }

    fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// Looks at Raft's metrics; `look` must be short, Raft waits for it.
    fn metrics<T>(&self, look: impl FnOnce(&openraft::RaftMetrics<TypeConfig>) -> T) -> T {
        look(&self.inner.raft.metrics().borrow_watched())
    }
}

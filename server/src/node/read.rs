//! One read index for all reads that wait.
//!
//! A linearizable read must see everything that was acknowledged before it began. The leader proves
//! that it still is one by a round of heartbeats; all reads that arrive while a round is under way
//! share the next one. A follower asks the leader for the index, then waits until it has applied
//! that far itself, so reads cost the leader one small call a batch, not one a read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peers::SharedPeers;
use super::{NodeError, Raft};
use crate::limits::{READ_INDEX_RETRY, READS_WAITING_MAX};
use crate::metrics::{self, Metrics};
use crate::raft::{LogId, TypeConfig};

/// The reads that wait for their index.
#[derive(Debug)]
pub(super) struct ReadIndex {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Whether this member is the only voter, leads, and has applied its term's first entry. Then
    /// whatever was acknowledged was applied here before, and a read needs no round at all.
    is_alone: AtomicBool,
    /// How long a read waits, from its arrival.
    timeout: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    readers: Vec<oneshot::Sender<Result<(), NodeError>>>,
    is_closed: bool,
}

impl ReadIndex {
    pub(super) fn new(timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            is_alone: AtomicBool::new(false),
            timeout,
            metrics,
        }
    }

    /// Says whether the only voter of the cluster is this member, and ready. Must be cleared before
    /// another voter is proposed.
    pub(super) fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::Release);
    }

    /// Returns when the local state holds everything acknowledged before the call.
    pub(super) async fn linearize(&self) -> Result<(), NodeError> {
        if self.is_alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let give_up = Instant::now() + self.timeout;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.lock();
            if waiting.is_closed {
                return Err(NodeError::Stopped);
            }
            if waiting.readers.len() >= READS_WAITING_MAX {
                return Err(NodeError::TooManyRequests);
            }
            waiting.readers.push(sender);
        }
        self.arrived.notify_one();
        match tokio::time::timeout_at(give_up, receiver).await {
            Ok(answered) => answered.unwrap_or(Err(NodeError::Stopped)),
            // The round under way when it arrived took all its time.
            Err(_) => Err(NodeError::Timeout),
        }
    }

    /// Serves the waiting reads, round by round, until `stop`.
    pub(super) async fn run(
        &self,
        raft: Raft,
        peers: SharedPeers,
        applied: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.arrived.notified() => {}
            }
            let readers = std::mem::take(&mut self.lock().readers);
            if readers.is_empty() {
                continue;
            }
            let metrics = &self.metrics.raft;
            let round = round(&raft, &peers, applied.clone(), self.timeout, metrics);
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(NodeError::Stopped),
                result = round => result,
            };
            for reader in readers {
                // One who has gone away does not want to know.
                let _ = reader.send(result.clone());
            }
        }
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.readers.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// Gets an index from the leader and waits until it is applied here.
async fn round(
    raft: &Raft,
    peers: &SharedPeers,
    mut applied: watch::Receiver<u64>,
    timeout: Duration,
    metrics: &metrics::Raft,
) -> Result<(), NodeError> {
    let give_up = Instant::now() + timeout;
    let index = loop {
        let term = raft.server_metrics().borrow_watched().vote.leader_id.term;
        let index = async {
            tokio::select! {
                biased;
                index = leader_index(raft, peers) => index,
                // A leader that hangs is not waited for once there is another.
                () = super::succeeded(raft, term) => Err(NodeError::LeaderChanged),
            }
        };
        let attempt = tokio::time::timeout_at(give_up, index).await;
        match attempt {
            Ok(Ok(read)) => break read.index,
            Ok(Err(NodeError::Stopped)) => return Err(NodeError::Stopped),
            Ok(Err(_)) => {
                metrics.read_indexes_failed.inc();
                // At the end of its time a read has timed out, whatever the last reason was.
                if Instant::now() + READ_INDEX_RETRY >= give_up {
                    return Err(NodeError::Timeout);
                }
                tokio::time::sleep(READ_INDEX_RETRY).await;
            }
            Err(_) => {
                metrics.slow_read_indexes.inc();
                return Err(NodeError::Timeout);
            }
        }
    };
    match tokio::time::timeout_at(give_up, applied.wait_for(|&at| at >= index)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(NodeError::Stopped),
        Err(_) => {
            metrics.slow_read_indexes.inc();
            Err(NodeError::TimeoutApply)
        }
    }
}

/// The index, from this member if it leads, else from the leader.
async fn leader_index(raft: &Raft, peers: &SharedPeers) -> Result<LogId, NodeError> {
    let leader = match own_index(raft).await {
        Ok(read) => return Ok(read),
        Err(NotLeading::Elsewhere(leader)) => leader,
        Err(NotLeading::Error(error)) => return Err(error),
    };
    peers
        .read_index(leader)
        .await
        .map_err(|_| NodeError::LeaderChanged)
}

/// Why this member gives no read index.
pub(super) enum NotLeading {
    /// Another member leads.
    Elsewhere(u64),
    /// Nobody does, or this one cannot prove that it does.
    Error(NodeError),
}

/// The read index of this member, if it leads.
pub(super) async fn own_index(raft: &Raft) -> Result<LogId, NotLeading> {
    match raft.get_read_log_id(ReadPolicy::ReadIndex).await {
        Ok((read, _)) => Ok(*read.log_id()),
        Err(error) => Err(not_leading(error, *raft.node_id())),
    }
}

fn not_leading(
    error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>,
    own: u64,
) -> NotLeading {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            match forward.leader_id.filter(|&leader| leader != own) {
                Some(leader) => NotLeading::Elsewhere(leader),
                None => NotLeading::Error(NodeError::NoLeader),
            }
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
            NotLeading::Error(NodeError::NoLeader)
        }
        RaftError::Fatal(_) => NotLeading::Error(NodeError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(7);

    fn reads() -> ReadIndex {
        ReadIndex::new(TIMEOUT, Arc::new(Metrics::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_its_own_time_whatever_round_it_falls_into() {
        let reads = reads();
        let began = Instant::now();
        assert_eq!(reads.linearize().await, Err(NodeError::Timeout));
        assert_eq!(began.elapsed(), TIMEOUT, "nobody makes rounds here");
    }

    #[tokio::test]
    async fn what_piles_up_without_a_leader_is_bounded() {
        let reads = reads();
        let waiting = (0..READS_WAITING_MAX).map(|_| oneshot::channel().0);
        reads.lock().readers.extend(waiting);
        assert_eq!(reads.linearize().await, Err(NodeError::TooManyRequests));
    }
}

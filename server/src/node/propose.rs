//! Joins waiting commands into one log entry, hands it to the leader, and sees to it that every
//! caller is answered.
//!
//! While an entry is on its way, whatever arrives becomes the next one: the disk is the clock of
//! batching, and hundreds of writers share one fsync and one entry. What an entry costs beside its
//! commands (a dozen hand-overs between tasks, and the fsync) is most of the price of a small write,
//! so a second entry goes out behind the first only if it is full, or if the first is slow. An entry
//! gathers the requests that are being read already, and those of [callers that come
//! back](super::returning).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use gonfalon_core::command::{Batch, Command};
use gonfalon_core::{MemberId, Reply};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use prometheus::IntCounter;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peers::{ForwardError, Peers};
use super::pending::{Answer, Pending, fail_all};
use super::returning::Returning;
use super::{NodeError, Raft};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, COMMAND_BYTES_MAX, GATHER_TURNS, HELD_BACK_MAX,
    IN_FLIGHT_MAX, PROPOSAL_RETRY, PROPOSAL_SWEEP, QUEUE_BYTES_MAX, QUEUE_COMMANDS_MAX, RETURN_MAX,
};
use crate::metrics::{self, Inflight, Metrics};
use crate::raft::{Payload, TypeConfig};

/// Bytes of a batch beside its commands, at most.
const BATCH_HEAD_BYTES: usize = 32;

/// The queue in front of Raft.
#[derive(Debug)]
pub(super) struct Proposer {
    queue: Mutex<Queue>,
    arrived: Notify,
    pending: Arc<Pending>,
    origin: MemberId,
    /// Starts at a random place: entries of an earlier life of this member are applied again after
    /// a restart, and must not be taken for answers to this life's callers.
    next_sequence: AtomicU64,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    commands: VecDeque<Queued>,
    bytes: usize,
    /// With so many commands the proposer is woken; 0 if it does not wait for any number.
    wanted: usize,
    is_closed: bool,
}

impl Queue {
    /// Whether it fills an entry.
    fn is_full(&self) -> bool {
        self.commands.len() >= BATCH_COMMANDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

#[derive(Debug)]
struct Queued {
    command: Command,
    answer: Answer,
    bytes: usize,
    since: Instant,
}

/// Commands on their way into an entry.
#[derive(Debug)]
struct Outgoing {
    sequence: u64,
    commands: usize,
    bytes: Bytes,
}

/// A caller that waits for an answer. One that goes away without it is counted as failed, too.
#[derive(Debug)]
struct Waiting<'a> {
    failed: &'a IntCounter,
    is_answered: bool,
    _inflight: Inflight,
}

impl<'a> Waiting<'a> {
    fn of(metrics: &'a metrics::Raft) -> Self {
        Self {
            failed: &metrics.proposals_failed,
            is_answered: false,
            _inflight: Inflight::of(&metrics.proposals_pending),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.failed.inc_by(u64::from(!self.is_answered));
    }
}

impl Proposer {
    pub(super) fn new(origin: MemberId, pending: Arc<Pending>, metrics: Arc<Metrics>) -> Self {
        Self {
            queue: Mutex::default(),
            arrived: Notify::new(),
            pending,
            origin,
            next_sequence: AtomicU64::new(rand::random::<u64>() >> 1),
            metrics,
        }
    }

    /// Queues `command` and waits until it is applied here, or given up.
    pub(super) async fn propose(&self, command: Command) -> Result<Reply, NodeError> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(command, answer)?;
        let mut waiting = Waiting::of(&self.metrics.raft);
        let result = answered.await.unwrap_or(Err(NodeError::Stopped));
        waiting.is_answered = result.is_ok();
        result
    }

    /// A log entry of commands that nobody waits for.
    pub(super) fn entry(&self, commands: Vec<Command>) -> Payload {
        let bytes = commands.iter().map(Command::encoded_len).sum();
        Payload(self.encode(commands, bytes).1)
    }

    /// `bytes_max` is what the commands take, about.
    fn encode(&self, commands: Vec<Command>, bytes_max: usize) -> (u64, Bytes) {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let batch = Batch {
            origin: self.origin,
            sequence,
            commands,
        };
        let mut bytes = Vec::with_capacity(bytes_max + BATCH_HEAD_BYTES);
        batch.encode(&mut bytes);
        (sequence, bytes.into())
    }

    fn enqueue(&self, command: Command, answer: Answer) -> Result<(), NodeError> {
        let bytes = command.encoded_len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(NodeError::TooLarge);
        }
        let mut queue = self.lock();
        if queue.is_closed {
            return Err(NodeError::Stopped);
        }
        if queue.commands.len() >= QUEUE_COMMANDS_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(NodeError::TooManyRequests);
        }
        let (was_empty, was_full) = (queue.commands.is_empty(), queue.is_full());
        queue.bytes += bytes;
        queue.commands.push_back(Queued {
            command,
            answer,
            bytes,
            since: Instant::now(),
        });
        let became_full = !was_full && queue.is_full();
        let is_wanted = queue.commands.len() == queue.wanted;
        drop(queue);
        if was_empty || is_wanted || became_full {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes the next batch off the queue, without the commands of callers who have gone away.
    fn next_batch(&self) -> Option<Outgoing> {
        let mut commands = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        {
            let mut queue = self.lock();
            let count = queue.commands.len().min(BATCH_COMMANDS_MAX);
            commands.reserve(count);
            answers.reserve(count);
            while let Some(first) = queue.commands.front() {
                let is_full = commands.len() == BATCH_COMMANDS_MAX
                    || !commands.is_empty() && bytes + first.bytes > BATCH_BYTES_MAX;
                if is_full {
                    break;
                }
                let Some(queued) = queue.commands.pop_front() else {
                    break;
                };
                queue.bytes -= queued.bytes;
                if !queued.answer.is_closed() {
                    bytes += queued.bytes;
                    commands.push(queued.command);
                    answers.push(queued.answer);
                }
            }
        }
        if commands.is_empty() {
            return None;
        }
        let count = commands.len();
        let (sequence, bytes) = self.encode(commands, bytes);
        self.pending.insert(sequence, answers);
        Some(Outgoing {
            sequence,
            commands: count,
            bytes,
        })
    }

    /// Lets the requests that are being read get into the queue, for as long as some do, then waits
    /// for those that `returning` expects; says whether it waited in vain. With nobody to wait for,
    /// a lone request loses a few microseconds.
    async fn gather(&self, returning: &Returning) -> bool {
        let wanted = returning.wanted();
        let queued = || {
            let queue = self.lock();
            let is_enough = queue.is_full() || wanted > 0 && queue.commands.len() >= wanted;
            (queue.commands.len(), is_enough)
        };
        let (mut seen, mut is_enough) = queued();
        let mut turns_without = 0;
        while seen > 0 && !is_enough && turns_without < GATHER_TURNS {
            // Whatever can run does, and sockets are looked at, before this goes on.
            tokio::task::yield_now().await;
            let before = seen;
            (seen, is_enough) = queued();
            turns_without = if seen > before { 0 } else { turns_without + 1 };
        }
        if seen == 0 || is_enough || wanted == 0 || !returning.is_likely() {
            return false;
        }
        let arrival = async {
            while !queued().1 {
                self.arrived.notified().await;
            }
        };
        self.lock().wanted = wanted;
        let have_come = tokio::time::timeout(RETURN_MAX, arrival).await.is_ok();
        self.lock().wanted = 0;
        !have_come
    }

    /// Whether what is queued should go out although an entry is on its way.
    fn is_due(&self) -> bool {
        let queue = self.lock();
        let oldest = queue.commands.front();
        queue.is_full() || oldest.is_some_and(|queued| queued.since.elapsed() >= HELD_BACK_MAX)
    }

    /// Since when the first command in the queue has waited.
    fn oldest(&self) -> Option<Instant> {
        self.lock().commands.front().map(|queued| queued.since)
    }

    /// Tells the callers whose batch was lost with its leader, now that another one leads, and
    /// those whose commands have waited longer than `timeout`: in the queue, nothing was proposed;
    /// behind a proposal, nobody knows.
    fn give_up_late(&self, timeout: Duration, raft: &Raft) {
        let applied = raft.metrics().borrow_watched().last_applied;
        let applied_term = applied.map_or(0, |id| id.committed_leader_id().term);
        self.pending
            .fail_lost_before(applied_term, &NodeError::TimeoutLeaderLost);
        self.pending.fail_older_than(timeout, &late(raft));
        let mut unproposed = Vec::new();
        {
            let mut queue = self.lock();
            let now = Instant::now();
            while queue
                .commands
                .front()
                .is_some_and(|q| now.duration_since(q.since) > timeout)
            {
                let Some(queued) = queue.commands.pop_front() else {
                    break;
                };
                queue.bytes -= queued.bytes;
                unproposed.push(queued.answer);
            }
        }
        fail_all(unproposed.into_iter(), &NodeError::NoLeader);
    }

    /// Proposes what is queued until `stop`; then answers everybody that is left.
    pub(super) async fn run(
        &self,
        raft: Raft,
        peers: Arc<Peers>,
        timeout: Duration,
        stop: CancellationToken,
    ) {
        let mut in_flight = FuturesUnordered::new();
        let mut returning = Returning::default();
        let mut sweep = tokio::time::interval(PROPOSAL_SWEEP.min(timeout / 16));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let in_vain = in_flight.is_empty() && self.gather(&returning).await;
            while in_flight.is_empty() || in_flight.len() < IN_FLIGHT_MAX && self.is_due() {
                let Some(batch) = self.next_batch() else {
                    break;
                };
                returning.gone(in_vain);
                let commands = batch.commands;
                let submit = self.submit(batch.sequence, batch.bytes, &raft, &peers, timeout);
                // A leader without a quorum never answers; the sweep has told the callers then.
                let submit = tokio::time::timeout(timeout, submit);
                in_flight.push(submit.map(move |_| commands));
            }
            // What is queued now is held back by what is in flight.
            let held_until = self.oldest().map(|since| since + HELD_BACK_MAX);
            let held = async {
                match held_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(commands) = in_flight.next(), if !in_flight.is_empty() => {
                    returning.answered(commands, self.lock().commands.len());
                }
                () = held, if in_flight.len() < IN_FLIGHT_MAX => {}
                () = self.arrived.notified(), if in_flight.len() < IN_FLIGHT_MAX => {}
                _ = sweep.tick() => self.give_up_late(timeout, &raft),
            }
        }
        self.close();
    }

    /// Hands one batch to the leader, wherever it is; tries again as long as it is certain that it
    /// was not proposed.
    async fn submit(
        &self,
        sequence: u64,
        bytes: Bytes,
        raft: &Raft,
        peers: &Peers,
        timeout: Duration,
    ) {
        let give_up = Instant::now() + timeout;
        while Instant::now() < give_up {
            let term = raft.server_metrics().borrow_watched().vote.leader_id.term;
            let outcome = tokio::select! {
                biased;
                outcome = propose_once(&bytes, raft, peers) => outcome,
                // A leader that hangs would keep this place until its connection is given up.
                () = succeeded_for(PROPOSAL_SWEEP, raft, term) => Outcome::Unknown,
            };
            match outcome {
                // The callers are answered by the apply task, or by the sweep.
                Outcome::Proposed => return,
                Outcome::Unknown => return self.pending.lose(sequence, term),
                Outcome::Discarded => {
                    return self.pending.fail(sequence, &NodeError::LeaderChanged);
                }
                Outcome::Stopped => return self.pending.fail(sequence, &NodeError::Stopped),
                Outcome::NotProposed => tokio::time::sleep(PROPOSAL_RETRY).await,
            }
        }
        self.pending.fail(sequence, &NodeError::NoLeader);
    }

    fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        let left = std::mem::take(&mut queue.commands);
        drop(queue);
        fail_all(
            left.into_iter().map(|queued| queued.answer),
            &NodeError::Stopped,
        );
        self.pending.fail_everything(&NodeError::Stopped);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// Returns when a leader of a later term than `term` has been known for `time`: one that still
/// answers has done so by then.
async fn succeeded_for(time: Duration, raft: &Raft, term: u64) {
    super::succeeded(raft, term).await;
    tokio::time::sleep(time).await;
}

/// What is known of a batch after one attempt.
enum Outcome {
    /// The leader has committed it.
    Proposed,
    /// It was not appended to any log: it may be proposed again.
    NotProposed,
    /// It was appended, and the leader lost its office before it was committed.
    Discarded,
    /// No answer: it may still be committed.
    Unknown,
    /// This member is shutting down.
    Stopped,
}

async fn propose_once(bytes: &Bytes, raft: &Raft, peers: &Peers) -> Outcome {
    let forward = match raft.client_write(Payload(bytes.clone())).await {
        Ok(_) => return Outcome::Proposed,
        Err(error) => match classify(error) {
            Ok(forward) => forward,
            Err(outcome) => return outcome,
        },
    };
    let Some(leader) = forward.leader_id.filter(|leader| leader != raft.node_id()) else {
        return Outcome::NotProposed;
    };
    match peers.propose(leader, bytes.clone()).await {
        Ok(()) => Outcome::Proposed,
        Err(ForwardError::NotProposed) => Outcome::NotProposed,
        Err(ForwardError::Discarded) => Outcome::Discarded,
        Err(ForwardError::Unknown) => Outcome::Unknown,
    }
}

/// Whether a refusal proves that nothing was appended (then: where the leader may be).
pub(super) fn classify_write(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
) -> Result<ForwardToLeader<TypeConfig>, ForwardError> {
    match classify(error) {
        Ok(forward) => Ok(forward),
        Err(Outcome::Discarded) => Err(ForwardError::Discarded),
        Err(_) => Err(ForwardError::Unknown),
    }
}

fn classify(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
) -> Result<ForwardToLeader<TypeConfig>, Outcome> {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => Ok(forward),
        RaftError::APIError(_) => Err(Outcome::Discarded),
        RaftError::Fatal(_) => Err(Outcome::Stopped),
    }
}

/// What to tell a caller whose time is up.
fn late(raft: &Raft) -> NodeError {
    if raft.metrics().borrow_watched().current_leader.is_some() {
        NodeError::Timeout
    } else {
        NodeError::TimeoutLeaderLost
    }
}

#[cfg(test)]
mod tests {
    use gonfalon_core::LeaseId;

    use super::*;

    #[tokio::test]
    async fn a_caller_is_counted_until_it_is_answered_or_goes_away() {
        let metrics = Arc::new(Metrics::default());
        let pending = Arc::new(Pending::default());
        let proposer = Proposer::new(MemberId::new(1), pending.clone(), metrics.clone());
        let counted = || {
            let raft = &metrics.raft;
            (raft.proposals_pending.get(), raft.proposals_failed.get())
        };
        let revoke = |id| {
            let id = LeaseId::new(id);
            proposer.propose(Command::LeaseRevoke { id })
        };
        let (mut first, mut second) = (Box::pin(revoke(1)), Box::pin(revoke(2)));
        assert!(futures::poll!(first.as_mut()).is_pending());
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert_eq!(counted(), (2, 0), "both wait");
        drop(first);
        assert_eq!(counted(), (1, 1), "the first has gone away");

        let sequence = proposer
            .next_batch()
            .expect("the second is queued")
            .sequence;
        let answers = pending.take(sequence).expect("the batch is pending");
        let reply = Reply {
            revision: gonfalon_core::Revision::new(1),
            result: Err(gonfalon_core::Error::LeaseNotFound),
        };
        for answer in answers {
            answer.send(Ok(reply.clone())).expect("it still waits");
        }
        assert_eq!(second.await, Ok(reply));
        assert_eq!(counted(), (0, 1), "a refusal is an answer");
    }

    fn proposer() -> (Proposer, Arc<Pending>) {
        let pending = Arc::new(Pending::default());
        let metrics = Arc::new(Metrics::default());
        let proposer = Proposer::new(MemberId::new(1), pending.clone(), metrics);
        (proposer, pending)
    }

    fn enqueue(proposer: &Proposer, id: i64) -> oneshot::Receiver<Result<Reply, NodeError>> {
        let (answer, answered) = oneshot::channel();
        let id = LeaseId::new(id);
        let queued = proposer.enqueue(Command::LeaseRevoke { id }, answer);
        queued.expect("there is room");
        answered
    }

    #[tokio::test]
    async fn an_entry_gathers_the_requests_that_are_being_read() {
        let (proposer, pending) = proposer();
        let proposer = Arc::new(proposer);
        let first = enqueue(&proposer, 0);
        let reading: Vec<_> = (1..4)
            .map(|id| {
                let proposer = proposer.clone();
                tokio::spawn(async move {
                    // The later ones need more turns to be read.
                    for _ in 1..id {
                        tokio::task::yield_now().await;
                    }
                    vec![enqueue(&proposer, id)]
                })
            })
            .collect();
        assert!(!proposer.gather(&Returning::default()).await);
        let sequence = proposer.next_batch().expect("there are commands").sequence;
        let answers = pending.take(sequence).expect("the batch is pending");
        assert_eq!(answers.len(), 4, "all are in one entry");
        assert!(proposer.next_batch().is_none(), "nothing is left");
        drop((first, reading));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_waits_for_callers_that_were_answered_but_not_long() {
        let (proposer, _pending) = proposer();
        let proposer = Arc::new(proposer);
        let mut returning = Returning::default();
        let mut waiting = vec![enqueue(&proposer, 0)];
        returning.answered(4, 1);
        let (coming, start) = (proposer.clone(), Instant::now());
        let others = tokio::spawn(async move {
            tokio::time::sleep(RETURN_MAX / 2).await;
            (1..=4).map(|id| enqueue(&coming, id)).collect::<Vec<_>>()
        });
        assert!(!proposer.gather(&returning).await, "they have come");
        assert_eq!(start.elapsed(), RETURN_MAX / 2);
        let batch = proposer.next_batch().expect("there are commands");
        assert_eq!(batch.commands, 5);

        returning.gone(false);
        waiting.push(enqueue(&proposer, 5));
        returning.answered(5, 1);
        let start = Instant::now();
        assert!(proposer.gather(&returning).await, "they have not come");
        assert_eq!(start.elapsed(), RETURN_MAX);
        returning.gone(true);
        returning.answered(5, 1);
        let start = Instant::now();
        assert!(!proposer.gather(&returning).await);
        assert_eq!(start.elapsed(), Duration::ZERO, "that was in vain before");
        drop((waiting, others));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_entry_goes_out_when_it_is_full_or_was_held_back_long_enough() {
        let (proposer, _pending) = proposer();
        assert!(!proposer.is_due(), "nothing is queued");
        let mut waiting = vec![enqueue(&proposer, 0)];
        assert!(!proposer.is_due(), "one command is held back");
        tokio::time::advance(HELD_BACK_MAX).await;
        assert!(proposer.is_due(), "not for longer than that");

        proposer.next_batch().expect("one is queued");
        assert!(!proposer.is_due(), "it has gone out");
        for id in (1..).take(BATCH_COMMANDS_MAX - 1) {
            waiting.push(enqueue(&proposer, id));
            assert!(!proposer.is_due(), "there is room after {id}");
        }
        waiting.push(enqueue(&proposer, 0));
        assert!(proposer.is_due(), "an entry is full");
    }
}

//! Callers that wait for a batch of theirs to be applied here.
//!
//! A batch names the member that proposed it and a sequence number. Whichever way its entry comes
//! back (through this member as leader, or from the leader it was sent to), the apply task finds
//! the callers by that number and answers them, so that whoever is answered can also read his own
//! write on this member.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use gonfalon_core::Reply;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::NodeError;

/// Where one caller waits.
pub(super) type Answer = oneshot::Sender<Result<Reply, NodeError>>;

/// The callers of every batch that was handed to Raft and is not applied yet, by sequence number.
#[derive(Debug, Default)]
pub(super) struct Pending {
    batches: Mutex<BTreeMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    answers: Vec<Answer>,
    /// The term in which its way to the leader was lost, if it was: it may be in that leader's log.
    lost_in: Option<u64>,
}

impl Pending {
    /// Keeps `answers` until the batch `sequence` is applied or given up.
    pub(super) fn insert(&self, sequence: u64, answers: Vec<Answer>) {
        let waiting = Waiting {
            since: Instant::now(),
            answers,
            lost_in: None,
        };
        let previous = self.lock().insert(sequence, waiting);
        assert!(previous.is_none(), "sequence numbers are used once");
    }

    /// The callers of the batch that was just applied; none if they were given up before.
    pub(super) fn take(&self, sequence: u64) -> Option<Vec<Answer>> {
        self.lock().remove(&sequence).map(|waiting| waiting.answers)
    }

    /// Tells the callers of `sequence` that it failed.
    pub(super) fn fail(&self, sequence: u64, error: &NodeError) {
        fail_all(self.take(sequence).into_iter().flatten(), error);
    }

    /// Tells the callers that have waited longer than `timeout`.
    pub(super) fn fail_older_than(&self, timeout: Duration, error: &NodeError) {
        let now = Instant::now();
        self.fail_where(error, |waiting| now.duration_since(waiting.since) > timeout);
    }

    /// Notes that nobody will say what came of `sequence`, which a leader of `term` may have.
    pub(super) fn lose(&self, sequence: u64, term: u64) {
        if let Some(waiting) = self.lock().get_mut(&sequence) {
            waiting.lost_in = Some(term);
        }
    }

    /// Tells the callers of batches that were lost before the term that is applied now: what a
    /// later leader has of an earlier one comes before its own first entry, so these will not come.
    pub(super) fn fail_lost_before(&self, applied_term: u64, error: &NodeError) {
        self.fail_where(error, |waiting| {
            waiting.lost_in.is_some_and(|term| term < applied_term)
        });
    }

    fn fail_where(&self, error: &NodeError, is_hopeless: impl Fn(&Waiting) -> bool) {
        let hopeless: Vec<Answer> = {
            let mut batches = self.lock();
            let hopeless: Vec<u64> = batches
                .iter()
                .filter(|(_, waiting)| is_hopeless(waiting))
                .map(|(&sequence, _)| sequence)
                .collect();
            hopeless
                .iter()
                .filter_map(|sequence| batches.remove(sequence))
                .flat_map(|waiting| waiting.answers)
                .collect()
        };
        fail_all(hopeless.into_iter(), error);
    }

    /// Tells everybody.
    pub(super) fn fail_everything(&self, error: &NodeError) {
        let all = std::mem::take(&mut *self.lock());
        fail_all(all.into_values().flat_map(|waiting| waiting.answers), error);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.batches
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// Answers each with `error`; one who has gone away does not want to know.
pub(super) fn fail_all(answers: impl Iterator<Item = Answer>, error: &NodeError) {
    for answer in answers {
        let _ = answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_callers_that_waited_too_long_are_given_up() {
        let pending = Pending::default();
        let (old, old_answer) = oneshot::channel();
        let (new, mut new_answer) = oneshot::channel();
        pending.insert(1, vec![old]);
        tokio::time::advance(Duration::from_secs(8)).await;
        pending.insert(2, vec![new]);
        pending.fail_older_than(Duration::from_secs(7), &NodeError::Timeout);
        assert_eq!(old_answer.await.unwrap(), Err(NodeError::Timeout));
        assert!(
            new_answer.try_recv().is_err(),
            "the second batch is still under way"
        );
        assert!(pending.take(1).is_none() && pending.take(2).is_some());
    }
    #[tokio::test]
    async fn a_lost_batch_is_given_up_when_the_next_term_is_applied() {
        let pending = Pending::default();
        let (lost, lost_answer) = oneshot::channel();
        let (kept, mut kept_answer) = oneshot::channel();
        pending.insert(1, vec![lost]);
        pending.insert(2, vec![kept]);
        pending.lose(1, 5);
        pending.fail_lost_before(5, &NodeError::TimeoutLeaderLost);
        assert!(pending.lock().contains_key(&1), "that leader may go on");
        pending.fail_lost_before(6, &NodeError::TimeoutLeaderLost);
        assert_eq!(
            lost_answer.await.unwrap(),
            Err(NodeError::TimeoutLeaderLost)
        );
        assert!(kept_answer.try_recv().is_err(), "nobody has lost it");
    }
}

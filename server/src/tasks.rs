//! Owner of every task that outlives a request.
//!
//! Stopping is one path, for tests too. The listeners of clients end first, while everything behind
//! them still works, so that whoever waits for an answer gets it. Then all other tasks are told, get
//! `grace`, and what is left is aborted and its names are logged. A task that ends before it was told
//! to ends the server: whatever it did is not being done any more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The long-lived tasks of one server.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Result<(), String>>,
    names: BTreeMap<Id, &'static str>,
    /// Cancelled first.
    leave: CancellationToken,
    stop: CancellationToken,
    /// Those that serve clients.
    clients: TaskTracker,
    /// Those that serve other members.
    peers: TaskTracker,
}

/// A task ended that should have gone on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{task}: {why}")]
pub struct TaskError {
    /// Its name.
    pub task: &'static str,
    /// What it said.
    pub why: String,
}

/// The rounds of a task that looks at something every so often: the first at once.
#[derive(Debug)]
pub(crate) struct Rounds {
    ticks: Interval,
    stop: CancellationToken,
}

impl Rounds {
    /// At least `interval` from the beginning of a round to that of the next, until `stop`.
    pub(crate) fn every(interval: Duration, stop: CancellationToken) -> Self {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, stop }
    }

    /// Waits for the next round; false if the task is to end instead.
    pub(crate) async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            _ = self.ticks.tick() => true,
        }
    }
}

impl Tasks {
    /// Nothing is running yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when tasks are to end, but for those of [clients](Self::spawn_for_clients).
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when clients are to be served no longer: before all other tasks are to end.
    pub fn leave_token(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// What is served to other members; its [`wait`](TaskTracker::wait) returns when they are to be
    /// heard no longer and nothing of it is left.
    pub fn peers(&self) -> TaskTracker {
        self.peers.clone()
    }

    /// Starts a task that ends only when told to, or with an error.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// The same for a task that serves clients until [told](Self::leave_token) to leave.
    pub fn spawn_for_clients(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let task = self.clients.track_future(task);
        self.spawn(name, task);
    }

    /// The same for a task that serves [other members](Self::peers).
    pub fn spawn_for_peers(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let task = self.peers.track_future(task);
        self.spawn(name, task);
    }

    /// Waits until a task ends early; never returns while all go on.
    pub async fn first_failure(&mut self) -> TaskError {
        match self.set.join_next_with_id().await {
            Some(ended) => self.report(ended).unwrap_or_else(|task| TaskError {
                task,
                why: "ended, although it was not told to".into(),
            }),
            None => std::future::pending().await,
        }
    }

    /// Tells the tasks that serve clients to end, and waits for that up to `grace`. All others go on
    /// meanwhile.
    pub async fn end_clients(&self, grace: Duration) {
        self.leave.cancel();
        self.clients.close();
        if tokio::time::timeout(grace, self.clients.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                ?grace,
                "clients are still being served; going on without them"
            );
        }
    }

    /// Tells every task to end, and waits up to `grace` before it aborts those that have not.
    pub async fn shut_down(mut self, grace: Duration) -> Result<(), TaskError> {
        self.leave.cancel();
        self.peers.close();
        self.stop.cancel();
        let mut first = Ok(());
        let drain = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                if let Ok(error) = self.report(ended) {
                    first = first.clone().and(Err(error));
                }
            }
        };
        if tokio::time::timeout(grace, drain).await.is_err() {
            let left: Vec<_> = self.names.values().copied().collect();
            tracing::warn!(?left, ?grace, "aborting tasks that did not stop");
        }
        first
    }

    /// The error a task ended with, or its name if it ended well. A panic goes on here.
    fn report(
        &mut self,
        ended: Result<(Id, Result<(), String>), tokio::task::JoinError>,
    ) -> Result<TaskError, &'static str> {
        match ended {
            Ok((id, result)) => {
                let task = self.names.remove(&id).unwrap_or("task");
                match result {
                    Ok(()) => Err(task),
                    Err(why) => Ok(TaskError { task, why }),
                }
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => {
                let task = self.names.remove(&error.id()).unwrap_or("task");
                Ok(TaskError {
                    task,
                    why: error.to_string(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_end_when_told_and_a_stuck_one_is_aborted() {
        let mut tasks = Tasks::new();
        let stop = tasks.stop_token();
        tasks.spawn("obedient", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("stuck", std::future::pending());
        assert!(tasks.shut_down(Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_leave_while_all_others_go_on_and_peers_are_waited_for() {
        let mut tasks = Tasks::new();
        let (leave, stop, peers) = (tasks.leave_token(), tasks.stop_token(), tasks.peers());
        let told = leave.clone();
        tasks.spawn_for_clients("clients", async move {
            told.cancelled().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        });
        let told = stop.clone();
        tasks.spawn_for_peers("peers", async move {
            told.cancelled().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        });
        let began = tokio::time::Instant::now();
        tasks.end_clients(Duration::from_secs(1)).await;
        assert_eq!(began.elapsed(), Duration::from_millis(100), "they had time");
        assert!(!stop.is_cancelled(), "nobody else was told");
        let silent = tokio::spawn(async move {
            peers.wait().await;
            began.elapsed()
        });
        tasks.shut_down(Duration::from_secs(1)).await.unwrap();
        assert_eq!(silent.await.unwrap(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_do_not_leave_hold_up_nothing_for_long() {
        let mut tasks = Tasks::new();
        tasks.spawn_for_clients("stuck", std::future::pending());
        let began = tokio::time::Instant::now();
        tasks.end_clients(Duration::from_secs(1)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_task_that_fails_is_named() {
        let mut tasks = Tasks::new();
        tasks.spawn("disk", async { Err("it burns".into()) });
        assert_eq!(tasks.first_failure().await.to_string(), "disk: it burns");
    }
}

//! What an application says of its own health, asked where nobody else waits for the answer.
//!
//! A hook is the application's code: it may take its time, hang, or panic. So it runs on a thread
//! beside the keeper's, and its answer comes to the keeper as an order among others. As long as
//! there is none, the lease is not renewed: silence is a no.
//!
//! Invariants
//! - a hook runs once at a time: it is not asked again before it has answered;
//! - it is not dropped on the keeper's thread either, where what it owns could panic.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::keeper::Order;
use super::term::Term;
use crate::orders::Orders;
use crate::types::LeaseId;

/// Hooks that are asked at the same time, as long as they answer soon: 10,000 leases that are due at
/// once do not need a thread each.
const AT_ONCE_MAX: usize = 4;

/// From then on a hook is waited for by itself, and others are asked in its place.
const SOON: Duration = Duration::from_millis(100);

/// Hooks that run at the same time at most, those that hang included: each has a thread. When so many
/// hang, the others are not asked.
pub(super) const HOOKS_MAX: usize = 256;

/// An application's own word on whether it is well.
#[derive(Clone)]
pub(super) struct Health(Arc<dyn Fn() -> bool + Send + Sync>);

impl Health {
    pub(super) fn new(is_well: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_well))
    }

    /// Drops it where it runs.
    pub(super) fn put_away(self) {
        drop(spawn_blocking(move || drop(self)));
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Health")
    }
}

/// How far a lease's hook is between two renewals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It was not asked since.
    Unasked,
    /// It was asked and has not answered.
    Asked,
    /// It has said yes: the renewal can go.
    Well,
}

/// What a hook has answered.
#[derive(Debug)]
pub(super) struct Checkup {
    pub(super) id: LeaseId,
    /// For whom it was asked: the lease may be another's by now.
    pub(super) term: Weak<Term>,
    pub(super) is_well: bool,
}

/// Asks hooks.
#[derive(Debug)]
pub(super) struct Hooks {
    wanted: Arc<Orders<Order>>,
    /// For hooks that may still answer soon.
    turns: Arc<Semaphore>,
    /// For all that run.
    rooms: Arc<Semaphore>,
}

impl Hooks {
    pub(super) fn new(wanted: Arc<Orders<Order>>) -> Self {
        Self {
            wanted,
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            rooms: Arc::new(Semaphore::new(HOOKS_MAX)),
        }
    }

    /// Asks a lease's hook, and leaves what it says among the orders. The task ends with the hook, or
    /// with the runtime.
    pub(super) fn ask(&self, id: LeaseId, term: Weak<Term>, health: Health) {
        let (turns, rooms) = (self.turns.clone(), self.rooms.clone());
        let wanted = self.wanted.clone();
        tokio::spawn(async move {
            let _room = rooms.acquire().await;
            let turn = turns.acquire().await;
            let mut run = spawn_blocking(move || (health.0)());
            let word = if let Ok(word) = timeout(SOON, &mut run).await {
                word
            } else {
                drop(turn);
                tracing::warn!(lease = %id, "a health check takes long; until it answers, its lease is not renewed");
                run.await
            };
            let is_well = *word.as_ref().unwrap_or(&false);
            wanted.leave(Order::Checked(Checkup { id, term, is_well }));
            if let Err(error) = word {
                tracing::warn!(lease = %id, %error, "a health check has panicked; that is a no");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// What was told, until there are so many answers.
    async fn answers(wanted: &Orders<Order>, count: usize) -> Vec<(i64, bool)> {
        let mut told = Vec::new();
        let all = async {
            while told.len() < count {
                wanted.left().await;
                told.extend(wanted.take().into_iter().map(|order| match order {
                    Order::Checked(checkup) => (checkup.id.get(), checkup.is_well),
                    other => panic!("{other:?}"),
                }));
            }
        };
        timeout(PATIENCE, all).await.expect("they are told in time");
        told.sort_unstable();
        told
    }

    #[tokio::test]
    async fn hooks_that_hang_or_panic_keep_no_other_from_being_asked() {
        let wanted = Arc::default();
        let hooks = Hooks::new(Arc::clone(&wanted));
        let term = Arc::new(Term::new(Duration::from_mins(1), Moment::now()));
        let ask = |id: usize, health: Health| {
            let id = LeaseId::new(i64::try_from(id).unwrap());
            hooks.ask(id, Arc::downgrade(&term), health);
        };
        let (free, hang) = std::sync::mpsc::channel::<()>();
        let hang = Arc::new(std::sync::Mutex::new(hang));
        // More than are asked at once.
        for id in 0..2 * AT_ONCE_MAX {
            let hang = hang.clone();
            let hangs = move || hang.lock().is_ok_and(|hang| hang.recv().is_err());
            ask(id, Health::new(hangs));
        }
        ask(100, Health::new(|| panic!("on purpose")));
        ask(101, Health::new(|| true));
        ask(102, Health::new(|| false));
        let told = answers(&wanted, 3).await;
        assert_eq!(told, [(100, false), (101, true), (102, false)]);
        drop(free);
        let told = answers(&wanted, 2 * AT_ONCE_MAX).await;
        assert!(told.iter().all(|(_, is_well)| *is_well), "late is not no");
    }

    #[tokio::test]
    async fn so_many_hooks_run_at_once_and_no_more() {
        const HOOKS: usize = 200;
        let wanted = Arc::default();
        let hooks = Hooks::new(Arc::clone(&wanted));
        let term = Arc::new(Term::new(Duration::from_mins(1), Moment::now()));
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        for id in 0..HOOKS {
            let (running, most) = (running.clone(), most.clone());
            let hook = move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                true
            };
            let id = LeaseId::new(i64::try_from(id).unwrap());
            hooks.ask(id, Arc::downgrade(&term), Health::new(hook));
        }
        answers(&wanted, HOOKS).await;
        assert!((1..=AT_ONCE_MAX).contains(&most.load(Ordering::SeqCst)));
    }
}

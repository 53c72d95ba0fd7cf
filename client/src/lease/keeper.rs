//! The thread that renews every lease of a client, from where handles see it.
//!
//! An application that blocks its runtime loses no lease: the thread has its own runtime and its own
//! connections. What it does is `renewals.rs` and `janitor.rs`.
//!
//! Code of others runs on it: recorders of metrics, subscribers of logs. When that panics, what the
//! thread does begins anew, with the leases that it had (`renewals.rs`). Should the thread end all
//! the same, that is seen:
//!
//! Invariants
//! - a lease that nobody renews any more is told that it is lost: by the thread itself when it ends,
//!   or by whoever finds that his order is not taken;
//! - what was left undone is known only from a thread that has ended in good order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::health::{Checkup, HOOKS_MAX};
use super::janitor::Litter;
use super::renewals::{Kept, Work};
use crate::error::{Error, ErrorKind};
use crate::observe;
use crate::options::Config;
use crate::orders::Orders;
use crate::transport::Transport;
use crate::types::LeaseId;

/// Threads beside the keeper's own: for hooks, and for the names of endpoints, which are looked up
/// also when every hook hangs.
const THREADS_MAX: usize = HOOKS_MAX + 8;

/// How long the end waits for threads that are idle already. One whose hook hangs is left behind.
const THREADS_GRACE: Duration = Duration::from_millis(100);

/// The keeper's end that handles hold.
#[derive(Debug)]
pub(crate) struct Keeper {
    wanted: Arc<Orders<Order>>,
    stop: CancellationToken,
    /// How long the end may take; the client's deadline unless somebody chose.
    budget: Arc<Mutex<Duration>>,
    /// What was left undone, once the thread and all that it held are gone.
    left: watch::Receiver<Option<usize>>,
}

#[derive(Debug)]
pub(super) enum Order {
    Keep(LeaseId, Kept),
    Forget(LeaseId),
    /// Also end it on the server: its last handle is gone.
    Revoke(LeaseId),
    /// A contender's key, whose lease lives on, must go: others wait for it.
    Clean(Litter),
    /// The hook of a lease has answered.
    Checked(Checkup),
    Endpoints(Vec<Uri>),
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start(
        endpoints: Vec<Uri>,
        user: Option<(String, String)>,
        config: Config,
    ) -> Result<Self, Error> {
        let wanted = Arc::new(Orders::default());
        let stop = CancellationToken::new();
        let budget = Arc::new(Mutex::new(config.deadline));
        let (done, left) = watch::channel(None);
        let (orders, token, time) = (wanted.clone(), stop.clone(), budget.clone());
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Internal, "grant", "no thread for its leases").because(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS_MAX)
            .thread_name("gonfalon-aside")
            .build()
            .map_err(failed)?;
        observe::keeper_started();
        std::thread::Builder::new()
            .name("gonfalon-leases".into())
            .spawn(move || {
                let undone = runtime.block_on(async {
                    let transport = Transport::new(endpoints, user, config);
                    let mut work = Work::new(transport, orders, token);
                    work.go_on(&time).await
                });
                // Its connections end with it.
                runtime.shutdown_timeout(THREADS_GRACE);
                done.send_replace(Some(undone));
            })
            .map_err(failed)?;
        Ok(Self {
            wanted,
            stop,
            budget,
            left,
        })
    }

    /// Renews a lease from now on. False: nobody does.
    pub(super) fn keep(&self, id: LeaseId, kept: Kept) -> bool {
        self.wanted.leave(Order::Keep(id, kept))
    }

    /// Renews it no more.
    pub(super) fn forget(&self, id: LeaseId) {
        self.wanted.leave(Order::Forget(id));
    }

    /// Ends it, in the background.
    pub(super) fn revoke(&self, id: LeaseId) {
        self.wanted.leave(Order::Revoke(id));
    }

    /// Deletes a key, in the background, until it is gone.
    pub(crate) fn clean(&self, litter: Litter) {
        self.wanted.leave(Order::Clean(litter));
    }

    pub(crate) fn replace_endpoints(&self, uris: Vec<Uri>) {
        self.wanted.leave(Order::Endpoints(uris));
    }

    /// Every lease is lost from now on, and ended on the server within `budget`, or else when its
    /// time is up. The first budget counts.
    pub(crate) fn stop(&self, budget: Option<Duration>) {
        if let Some(budget) = budget
            && !self.stop.is_cancelled()
        {
            *lock(&self.budget) = budget;
        }
        self.stop.cancel();
    }

    /// Whether nobody renews anything any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.wanted.is_over()
    }

    /// Returns when the thread has ended; an error if it could not confirm that all is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn ended(&self) -> Result<(), Error> {
        let mut left = self.left.clone();
        let left = left.wait_for(Option::is_some).await;
        let (kind, why) = match left.ok().and_then(|left| *left) {
            Some(0) => return Ok(()),
            Some(left) => {
                let why = format!("{left} leases or keys were not confirmed to be gone");
                (ErrorKind::Timeout, why)
            }
            None => {
                let why = "nobody knows what has become of its leases: their thread has died";
                (ErrorKind::Internal, why.to_owned())
            }
        };
        Err(Error::new(kind, "close", why))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop(None);
    }
}

/// How long the end may take.
pub(super) fn lock(budget: &Mutex<Duration>) -> std::sync::MutexGuard<'_, Duration> {
    budget
        .lock()
        .expect("nothing panics while it holds this lock")
}

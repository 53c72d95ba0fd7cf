//! The leader's clock for leases. It proposes revocations; it never changes state itself.
//!
//! Deadlines are not replicated: a new leader gives every lease its full time again, and an election
//! timeout on top, so a lease may live longer than promised and never shorter. Renewals are taken
//! only while a quorum has heard this leader recently; a leader that has been replaced without
//! knowing it renews nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use gonfalon_core::LeaseId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LeaseRemaining;
use crate::limits::LEASE_EXPIRIES_PER_SECOND;
use crate::tasks::Rounds;

/// How often expired leases are looked for, at the most.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// How many leases may be revoked at one scan.
const EXPIRIES_PER_SCAN: usize = LEASE_EXPIRIES_PER_SECOND / 2;

const _: () = assert!(
    SCAN_INTERVAL.as_millis() == 500,
    "EXPIRIES_PER_SCAN is half a second's worth"
);

/// Deadlines of all leases, while this member leads.
#[derive(Debug, Default)]
pub(super) struct LeaseClock {
    deadlines: Mutex<Option<Deadlines>>,
    gone: Notify,
}

#[derive(Debug, Default)]
struct Deadlines {
    leases: BTreeMap<LeaseId, Deadline>,
    order: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    ttl: i64,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Renewed for so many seconds.
    Renewed(i64),
    /// There is no such lease.
    Missing,
    /// Its time is up, and it is about to be revoked.
    Expired,
    /// This member keeps no clock now.
    NotLeading,
}

/// None is granted less than a second, but a database may hold one that an older version granted: its
/// time is up.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl Deadlines {
    fn set(&mut self, id: LeaseId, ttl: i64, at: Instant) {
        self.remove(id);
        self.leases.insert(id, Deadline { at, ttl });
        self.order.insert((at, id));
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(old) = self.leases.remove(&id) {
            let was_there = self.order.remove(&(old.at, id));
            assert!(was_there, "every lease is in both indexes");
        }
    }
}

impl LeaseClock {
    /// Starts the clock for the leases there are (with their seconds); `extra` is the time that may
    /// have passed between the last leader's last renewal and now.
    ///
    /// `leases` is asked under the clock's lock: a lease granted meanwhile is either in its answer
    /// or told by [`LeaseClock::applied`] afterwards.
    pub(super) fn start(&self, leases: impl FnOnce() -> Vec<(LeaseId, i64)>, extra: Duration) {
        let mut guard = self.lock();
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        for (id, ttl) in leases() {
            deadlines.set(id, ttl, now + seconds(ttl) + extra);
        }
        *guard = Some(deadlines);
    }

    /// Stops the clock: another member leads.
    pub(super) fn stop(&self) {
        *self.lock() = None;
        self.gone.notify_waiters();
    }

    /// Takes notice of leases granted (seconds) and gone (none).
    pub(super) fn applied(&self, leases: &[(LeaseId, Option<i64>)]) {
        if leases.is_empty() {
            return;
        }
        if let Some(deadlines) = &mut *self.lock() {
            let now = Instant::now();
            for &(id, ttl) in leases {
                match ttl {
                    Some(ttl) => deadlines.set(id, ttl, now + seconds(ttl)),
                    None => deadlines.remove(id),
                }
            }
        }
        self.gone.notify_waiters();
    }

    /// Gives a lease its full time again.
    pub(super) fn renew(&self, id: LeaseId) -> Renewal {
        let mut guard = self.lock();
        let Some(deadlines) = &mut *guard else {
            return Renewal::NotLeading;
        };
        let Some(&Deadline { at, ttl }) = deadlines.leases.get(&id) else {
            return Renewal::Missing;
        };
        let now = Instant::now();
        if at <= now {
            return Renewal::Expired;
        }
        deadlines.set(id, ttl, now + seconds(ttl));
        Renewal::Renewed(ttl)
    }

    /// What is left of a lease. `Err` if this member keeps no clock now.
    pub(super) fn remaining(&self, id: LeaseId) -> Result<Option<LeaseRemaining>, ()> {
        let guard = self.lock();
        let deadlines = guard.as_ref().ok_or(())?;
        Ok(deadlines.leases.get(&id).map(|deadline| LeaseRemaining {
            granted: deadline.ttl,
            remaining: i64::try_from(
                deadline
                    .at
                    .saturating_duration_since(Instant::now())
                    .as_secs(),
            )
            .unwrap_or(i64::MAX),
        }))
    }

    /// Sorts leases by when they end, the soonest first. Leaves them as they are if this member keeps
    /// no clock now.
    pub(super) fn sort(&self, leases: &mut [LeaseId]) {
        if let Some(deadlines) = &*self.lock() {
            // One that was granted a moment ago may be missing, and ends late.
            leases.sort_by_key(|id| {
                let deadline = deadlines.leases.get(id);
                (deadline.is_none(), deadline.map(|deadline| deadline.at))
            });
        }
    }

    /// Waits until an expired lease is gone, or this member keeps no clock any more.
    pub(super) async fn wait_gone(&self, id: LeaseId) {
        loop {
            let changed = self.gone.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change is missed in between.
            changed.as_mut().enable();
            let is_there = self
                .lock()
                .as_ref()
                .is_some_and(|d| d.leases.contains_key(&id));
            if !is_there {
                return;
            }
            changed.await;
        }
    }

    /// Leases whose time is up, longest first, at most [`EXPIRIES_PER_SCAN`].
    fn expired(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let guard = self.lock();
        let Some(deadlines) = &*guard else {
            return Vec::new();
        };
        let late = deadlines.order.iter().take_while(|(at, _)| *at <= now);
        late.take(EXPIRIES_PER_SCAN).map(|&(_, id)| id).collect()
    }

    /// Proposes the end of every lease whose time is up, until `stop`.
    pub(super) async fn run<F: Future<Output = ()>>(
        &self,
        revoke_all: impl Fn(Vec<LeaseId>) -> F,
        stop: CancellationToken,
    ) {
        let mut rounds = Rounds::every(SCAN_INTERVAL, stop.clone());
        while rounds.next().await {
            let expired = self.expired();
            if !expired.is_empty() {
                // Without a quorum this takes long.
                stop.run_until_cancelled(revoke_all(expired)).await;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Deadlines>> {
        self.deadlines
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> LeaseId {
        LeaseId::new(number)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_when_it_is_not_renewed_and_not_before() {
        let clock = LeaseClock::default();
        clock.start(Vec::new, Duration::ZERO);
        clock.applied(&[(id(1), Some(10)), (id(2), Some(10))]);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(clock.renew(id(1)), Renewal::Renewed(10));
        assert_eq!(clock.expired(), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.expired(), [id(2)]);
        assert_eq!(clock.renew(id(2)), Renewal::Expired);
        assert_eq!(clock.renew(id(3)), Renewal::Missing);
        let left = clock.remaining(id(1)).unwrap().unwrap();
        assert_eq!((left.granted, left.remaining), (10, 9));
        clock.applied(&[(id(2), None)]);
        assert_eq!(
            (clock.expired(), clock.renew(id(2))),
            (vec![], Renewal::Missing)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_of_an_expired_lease_waits_for_its_revocation() {
        let clock = LeaseClock::default();
        clock.start(Vec::new, Duration::ZERO);
        clock.applied(&[(id(1), Some(1))]);
        tokio::time::advance(Duration::from_secs(2)).await;
        let gone = clock.wait_gone(id(1));
        tokio::pin!(gone);
        assert!(
            futures::poll!(gone.as_mut()).is_pending(),
            "the lease is still there"
        );
        clock.applied(&[(id(1), None)]);
        gone.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_that_no_quorum_takes_does_not_hold_up_the_end() {
        let clock = LeaseClock::default();
        clock.start(|| vec![(id(1), 1)], Duration::ZERO);
        let stop = CancellationToken::new();
        let (asked, is_asked) = tokio::sync::oneshot::channel();
        let asked = Mutex::new(Some(asked));
        let revoke = async |_| {
            let asked = asked
                .lock()
                .unwrap()
                .take()
                .expect("it waits for the first");
            asked.send(()).unwrap();
            std::future::pending::<()>().await;
        };
        let told = async {
            is_asked.await.unwrap();
            stop.cancel();
        };
        let ends = futures::future::join(clock.run(revoke, stop.clone()), told);
        let ended = tokio::time::timeout(Duration::from_mins(1), ends).await;
        assert!(ended.is_ok(), "it still waits");
    }

    #[test]
    fn a_lease_of_a_database_that_never_had_time_is_over() {
        let clock = LeaseClock::default();
        clock.start(|| vec![(id(1), -5), (id(2), 5)], Duration::ZERO);
        assert_eq!(clock.expired(), [id(1)]);
    }

    #[test]
    fn without_leadership_there_is_no_clock() {
        let clock = LeaseClock::default();
        assert_eq!(clock.renew(id(1)), Renewal::NotLeading);
        assert_eq!(clock.remaining(id(1)), Err(()));
    }
}

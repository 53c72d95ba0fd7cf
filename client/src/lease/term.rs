//! What is known of one lease: until when it is surely held, and whether it is lost.
//!
//! Invariants
//! - the deadline counts from before a renewal was *sent*: the server's own count began later, so
//!   ours ends first;
//! - lost is for ever: an answer that comes too late does not bring the lease back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::observe;

/// Clocks of two machines may differ by so much in their speed: a thousandth.
const DRIFT: u32 = 1000;
/// The least that is taken off for the way from a check to what depends on it.
const MARGIN_MIN: Duration = Duration::from_millis(50);
/// The same as a share of the lease.
const MARGIN_SHARE: u32 = 20;

/// Why a lease is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The server says that there is no such lease: it expired, or somebody revoked it.
    Gone,
    /// No renewal was answered in time: the server may have ended it.
    NotRenewed,
    /// The application ended it.
    Revoked,
    /// It was detached: it may go on, but not here.
    Detached,
    /// The client was closed.
    Closed,
    /// Somebody deleted the key that stood for a lock or for leadership.
    KeyDeleted,
}

impl LostReason {
    /// Its name here, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "Gone",
            Self::NotRenewed => "NotRenewed",
            Self::Revoked => "Revoked",
            Self::Detached => "Detached",
            Self::Closed => "Closed",
            Self::KeyDeleted => "KeyDeleted",
        }
    }

    /// A few words for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Gone => "the lease has expired or was revoked",
            Self::NotRenewed => "the lease could not be renewed in time",
            Self::Revoked => "it was given up",
            Self::Detached => "it was detached",
            Self::Closed => "the client was closed",
            Self::KeyDeleted => "its key was deleted by somebody",
        }
    }
}

/// How a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseStatus {
    /// It is held, and renewed in time.
    Held,
    /// It is still held, but a renewal is overdue.
    Suspect,
    /// It is not held any more, and will not be again.
    Lost(LostReason),
}

/// The part of a lease that its handles and its keeper share.
#[derive(Debug)]
pub(crate) struct Term {
    /// What the server granted, in nanoseconds.
    ttl: AtomicU64,
    /// When the last renewal that was answered was sent.
    renewed: AtomicU64,
    lost: OnceLock<LostReason>,
    token: CancellationToken,
}

/// The time for which a renewal of `ttl` may be relied upon.
pub(super) fn reliable(ttl: Duration) -> Duration {
    let margin = (ttl / MARGIN_SHARE).max(MARGIN_MIN);
    ttl.saturating_sub(ttl / DRIFT).saturating_sub(margin)
}

impl Term {
    /// Granted for `ttl` by a request that was sent at `sent`.
    pub(super) fn new(ttl: Duration, sent: Moment) -> Self {
        Self {
            ttl: AtomicU64::new(nanos(ttl)),
            renewed: AtomicU64::new(sent.as_nanos()),
            lost: OnceLock::new(),
            token: CancellationToken::new(),
        }
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl.load(Ordering::Acquire))
    }

    fn renewed_at(&self) -> Moment {
        Moment::from_nanos(self.renewed.load(Ordering::Acquire))
    }

    /// Until when it is surely held, if it is not lost.
    pub(super) fn deadline(&self) -> Moment {
        self.renewed_at() + reliable(self.ttl())
    }

    /// When the next renewal is due: then two more can fail before the deadline.
    pub(super) fn due(&self) -> Moment {
        self.renewed_at() + self.ttl() / 3
    }

    /// A renewal that was sent at `sent` was answered with `ttl`. Too late if it is lost already.
    pub(super) fn renewed(&self, ttl: Duration, sent: Moment, now: Moment) {
        self.check(now);
        if self.lost.get().is_none() {
            self.ttl.store(nanos(ttl), Ordering::Release);
            self.renewed.fetch_max(sent.as_nanos(), Ordering::AcqRel);
        }
    }

    /// It is lost; the first reason counts.
    pub(super) fn lose(&self, reason: LostReason) {
        if self.lost.set(reason).is_ok() {
            // Whatever happens while it is counted: they are told.
            let told = self.token.clone().drop_guard();
            // Counted before anybody is told, who may drop the last handle.
            if matches!(reason, LostReason::NotRenewed | LostReason::Gone) {
                observe::lease_lost(reason);
            }
            drop(told);
        }
    }

    /// Whether it is not held any more. Tells nobody.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.lost.get().is_some() || now >= self.deadline()
    }

    /// Notices that the deadline has passed.
    pub(super) fn check(&self, now: Moment) {
        if self.lost.get().is_none() && now >= self.deadline() {
            self.lose(LostReason::NotRenewed);
        }
    }

    pub(super) fn status(&self, now: Moment) -> LeaseStatus {
        self.check(now);
        match self.lost.get() {
            Some(&reason) => LeaseStatus::Lost(reason),
            None if now >= self.renewed_at() + self.ttl() / 2 => LeaseStatus::Suspect,
            None => LeaseStatus::Held,
        }
    }

    /// How long it is surely held yet.
    pub(super) fn remaining(&self, now: Moment) -> Duration {
        match self.status(now) {
            LeaseStatus::Lost(_) => Duration::ZERO,
            LeaseStatus::Held | LeaseStatus::Suspect => {
                self.deadline().since(now).unwrap_or_default()
            }
        }
    }

    /// Why it was lost, once its token is cancelled.
    pub(super) fn lost_reason(&self) -> LostReason {
        let reason = self.lost.get().copied();
        reason.expect("the token is cancelled by losing alone")
    }

    /// Cancelled when it is lost.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn at(seconds: f64) -> Moment {
        Moment::from_nanos(0) + Duration::from_secs_f64(100.0 + seconds)
    }

    #[test]
    fn a_lease_is_given_up_before_the_server_does() {
        let term = Term::new(TTL, at(0.0));
        assert_eq!(term.status(at(14.9)), LeaseStatus::Held);
        assert_eq!(term.status(at(15.0)), LeaseStatus::Suspect);
        assert_eq!(term.status(at(28.4)), LeaseStatus::Suspect);
        assert!(term.remaining(at(28.4)) < Duration::from_millis(100));
        assert_eq!(
            term.status(at(28.5)),
            LeaseStatus::Lost(LostReason::NotRenewed)
        );
        assert!(term.token().is_cancelled());
    }

    #[test]
    fn the_time_counts_from_the_sending_of_a_renewal_not_from_its_answer() {
        let term = Term::new(TTL, at(0.0));
        term.renewed(TTL, at(10.0), at(19.0));
        assert_eq!(term.deadline(), at(10.0) + reliable(TTL));
        // An answer to an earlier one does not take time away.
        term.renewed(TTL, at(5.0), at(20.0));
        assert_eq!(term.deadline(), at(10.0) + reliable(TTL));
    }

    #[test]
    fn an_answer_after_the_deadline_does_not_bring_a_lease_back() {
        let term = Term::new(TTL, at(0.0));
        term.renewed(TTL, at(28.0), at(29.0));
        assert_eq!(
            term.status(at(29.0)),
            LeaseStatus::Lost(LostReason::NotRenewed)
        );
        assert_eq!(term.remaining(at(29.0)), Duration::ZERO);
    }

    #[test]
    fn the_first_reason_for_a_loss_counts() {
        let term = Term::new(TTL, at(0.0));
        term.lose(LostReason::Gone);
        term.lose(LostReason::Revoked);
        assert_eq!(term.status(at(0.0)), LeaseStatus::Lost(LostReason::Gone));
    }

    #[test]
    fn a_lease_of_a_second_leaves_time_to_act() {
        assert_eq!(reliable(Duration::from_secs(1)), Duration::from_millis(949));
        assert_eq!(reliable(Duration::from_millis(40)), Duration::ZERO);
    }

    /// One renewal as both sides see it, in milliseconds: when it is sent, how long it takes to the
    /// server, how long its answer takes back; none if the answer is lost.
    type Renewal = (u64, u64, Option<u64>);

    proptest::proptest! {
        /// Model: the server's own count, which begins when a renewal arrives, on a clock that is up
        /// to a thousandth faster or slower than ours.
        #[test]
        fn no_server_ends_a_lease_while_it_is_held(
            ttl_ms in 1_000u64..60_000,
            skew in -1_000i64..=1_000,
            way in 0u64..500,
            renewals in proptest::collection::vec(
                (1u64..30_000, 0u64..20_000, proptest::option::of(0u64..20_000)), 0..20),
        ) {
            let moment = |ms: u64| Moment::from_nanos(1_000_000 * ms);
            // What the server counts as the TTL, in our milliseconds.
            let ttl = i64::try_from(ttl_ms).unwrap();
            let counted = u64::try_from(ttl - ttl * skew / 1_000_000).unwrap();
            let granted = Duration::from_millis(ttl_ms);
            let term = Term::new(granted, moment(0));
            // Arrivals at the server, and answers here, in the order of time.
            let (mut arrivals, mut answers) = (vec![way], Vec::new());
            let mut sent = 0;
            let mut last_arrival = way;
            let mut last_answer = 0;
            for (pause, there, back) in renewals as Vec<Renewal> {
                sent += pause;
                // One stream: nothing overtakes.
                last_arrival = last_arrival.max(sent + there);
                arrivals.push(last_arrival);
                if let Some(back) = back {
                    last_answer = last_answer.max(last_arrival + back);
                    answers.push((last_answer, sent, last_arrival));
                }
            }
            let end = last_arrival.max(last_answer) + 2 * ttl_ms;
            // The server ends the lease at the first gap between arrivals that is too long; what
            // arrives later finds none, and is answered so.
            let mut ended = arrivals[0] + counted;
            for &arrival in &arrivals[1..] {
                if arrival < ended {
                    ended = ended.max(arrival + counted);
                }
            }
            let mut answers = answers.into_iter().peekable();
            for now in (0..end).step_by(7) {
                while let Some((at, sent, arrived)) = answers.next_if(|&(at, ..)| at <= now) {
                    if arrived < ended {
                        term.renewed(granted, moment(sent), moment(at));
                    } else {
                        term.lose(LostReason::Gone);
                    }
                }
                let is_held = !matches!(term.status(moment(now)), LeaseStatus::Lost(_));
                proptest::prop_assert!(
                    !is_held || now < ended,
                    "held at {now} ms although the server ended it at {ended} ms"
                );
            }
        }
    }
}

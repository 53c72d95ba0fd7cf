//! A clock that goes on while the machine sleeps.
//!
//! `Instant` stops then, on Linux at least, and a holder that wakes up would believe in a lease that
//! ended long ago.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// On Apple's systems this clock counts sleep; where it does not, a sleep is not noticed.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The longest time that is waited for anything, about thirty years: every clock can add it, and
/// gRPC can say it.
const TIME_MAX: Duration = Duration::from_secs(1_000_000_000);

/// `time`, or the longest that there is: who wants to wait for ever says `Duration::MAX`.
pub(crate) fn bounded(time: Duration) -> Duration {
    time.min(TIME_MAX)
}

/// A moment, as the time since the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

/// What a test has let this machine sleep, in nanoseconds.
#[cfg(feature = "testkit")]
static SLEPT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// As if this machine had slept: see [`machine_sleeps`](crate::testkit::machine_sleeps).
#[cfg(feature = "testkit")]
pub(crate) fn sleep(time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    SLEPT.fetch_add(nanos, std::sync::atomic::Ordering::AcqRel);
}

impl Moment {
    pub(crate) fn now() -> Self {
        let now = Self::of_the_machine();
        #[cfg(feature = "testkit")]
        let now = now + Duration::from_nanos(SLEPT.load(std::sync::atomic::Ordering::Acquire));
        now
    }

    fn of_the_machine() -> Self {
        let time = clock_gettime(CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanos))
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// 584 years fit.
    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// None if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }
}

/// A moment on both clocks: tokio's, which tests pause, and the one that counts sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    instant: Instant,
    moment: Moment,
}

impl Stamp {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            moment: Moment::now(),
        }
    }

    pub(crate) fn instant(self) -> Instant {
        self.instant
    }

    /// The time since then, the machine's sleep included.
    pub(crate) fn elapsed(self) -> Duration {
        let moment = Moment::now().since(self.moment).unwrap_or_default();
        self.instant.elapsed().max(moment)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

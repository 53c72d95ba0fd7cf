//! Protection against a range that loses most of its keys all of a sudden.
//!
//! A script with the wrong prefix, a registry whose leases all ended during a network failure, a
//! store that was restored empty: what a cluster says may be true and still not be what an
//! application should act on at once. Here is only the judgement; `follow.rs` acts on it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::bounded;
use crate::types::Revision;

/// So many steps of a window remember how many keys there were: its end is exact to this part.
const STEPS: u32 = 16;

/// When a loss of keys is withheld, and what lifts that: for
/// [`CacheBuilder::guard_loss`](crate::CacheBuilder::guard_loss).
///
/// A loss counts if within the window (default: 10 s) the range goes down by the given share of its
/// keys, and by three keys at least. The cache then stays as it was before the step that went too
/// far, [`CacheStatus::withheld`](crate::CacheStatus::withheld) says so, and
/// [`Cache::status_changes`](crate::Cache::status_changes) tells. What lifts it:
///
/// - keys come back: the loss is no longer that large;
/// - after a delay (default: 10 s) the range is listed again, linearizably, and the keys are still
///   gone: then that is how it is;
/// - [`Cache::accept_loss`](crate::Cache::accept_loss).
#[derive(Debug, Clone)]
pub struct LossGuard {
    share: f64,
    keys_min: usize,
    window: Duration,
    confirm_after: Option<Duration>,
}

impl LossGuard {
    /// Withholds a loss of `share` of the keys or more: 0.5 is half of them, 1.0 all of them.
    ///
    /// # Panics
    ///
    /// If `share` is not above 0 and at most 1.
    pub fn new(share: f64) -> Self {
        assert!(share > 0.0 && share <= 1.0, "a share of {share}");
        Self {
            share,
            keys_min: 3,
            window: Duration::from_secs(10),
            confirm_after: Some(Duration::from_secs(10)),
        }
    }

    /// A loss of fewer keys is never withheld. Default: 3.
    #[must_use]
    pub fn keys_min(mut self, keys: usize) -> Self {
        self.keys_min = keys;
        self
    }

    /// Losses that are no further apart than this count as one: keys that are deleted one by one,
    /// leases that end one after the other. Default: 10 s.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How long a loss is withheld until the store is asked again; if it says the same, the loss is
    /// shown. Default: 10 s.
    #[must_use]
    pub fn confirm_after(mut self, delay: Duration) -> Self {
        self.confirm_after = Some(bounded(delay));
        self
    }

    /// A loss is withheld until the keys come back or
    /// [`Cache::accept_loss`](crate::Cache::accept_loss) is called.
    #[must_use]
    pub fn until_accepted(mut self) -> Self {
        self.confirm_after = None;
        self
    }
}

/// What a cache does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Withheld {
    /// Since when.
    pub since: Instant,
    /// The revision that the store is known to be at.
    pub revision: Revision,
    /// How many keys there are at that revision.
    pub keys: usize,
}

/// Judges steps by what was there before them.
#[derive(Debug)]
pub(super) struct Judge {
    guard: LossGuard,
    /// How many keys are shown.
    now: usize,
    /// How many were shown, and until when: later and later, fewer and fewer, `STEPS` at most.
    before: VecDeque<(Instant, usize)>,
}

impl Judge {
    pub(super) fn new(guard: LossGuard) -> Self {
        Self {
            guard,
            now: 0,
            before: VecDeque::new(),
        }
    }

    /// How long a loss is withheld before the store is asked again.
    pub(super) fn confirm_after(&self) -> Option<Duration> {
        self.guard.confirm_after
    }

    /// Whether a range that has `keys` has lost too many of those that it had.
    pub(super) fn is_loss(&mut self, keys: usize, at: Instant) -> bool {
        let window = self.guard.window;
        while self
            .before
            .pop_front_if(|(until, _)| at.duration_since(*until) > window)
            .is_some()
        {}
        let most = self.before.front().map_or(0, |&(_, most)| most);
        let most = most.max(self.now);
        let lost = most.saturating_sub(keys);
        let is_large = as_number(lost) >= self.guard.share * as_number(most);
        lost > 0 && lost >= self.guard.keys_min && is_large
    }

    /// A range of `keys` is shown from now on.
    pub(super) fn showed(&mut self, keys: usize, at: Instant) {
        let ended = std::mem::replace(&mut self.now, keys);
        if ended <= keys {
            return;
        }
        while self
            .before
            .pop_back_if(|(_, keys)| *keys <= ended)
            .is_some()
        {}
        let step = self.guard.window / STEPS;
        // Of a step only the most counts, which came first.
        let is_near = |(until, _): &(Instant, usize)| at.duration_since(*until) < step;
        if !self.before.back().is_some_and(is_near) {
            self.before.push_back((at, ended));
        }
    }

    /// The loss is how it is: what was before does not count any more.
    pub(super) fn accept(&mut self) {
        self.before.clear();
        self.now = 0;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "keys in memory are far below 2^52"
)]
fn as_number(keys: usize) -> f64 {
    keys as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_large_loss_counts() {
        let now = Instant::now();
        for (share, keys_min, had, has, is_loss) in [
            (0.5, 3, 100, 50, true),
            (0.5, 3, 100, 51, false),
            (1.0, 3, 100, 1, false),
            (1.0, 3, 100, 0, true),
            (0.5, 3, 3, 1, false),
            (0.5, 3, 3, 0, true),
            (0.5, 1, 1, 0, true),
            (0.5, 3, 0, 0, false),
            (0.1, 3, 10, 20, false),
        ] {
            let mut judge = Judge::new(LossGuard::new(share).keys_min(keys_min));
            judge.showed(had, now);
            let judged = judge.is_loss(has, now);
            assert_eq!(judged, is_loss, "{had} to {has} with {share}, {keys_min}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn small_losses_add_up_within_the_window_and_not_beyond() {
        let begin = Instant::now();
        for (pause, is_found) in [(seconds(1), true), (seconds(3), false)] {
            let mut judge = Judge::new(LossGuard::new(0.1).window(seconds(10)));
            judge.showed(100, begin);
            let mut at = begin;
            let mut found = None;
            // One key after the other, from 100 to 60.
            for keys in (60..100).rev() {
                at += pause;
                if judge.is_loss(keys, at) {
                    found = Some(keys);
                    break;
                }
                judge.showed(keys, at);
            }
            assert_eq!(found.is_some(), is_found, "{pause:?}: {found:?}");
            assert!(judge.before.len() <= STEPS as usize + 1, "{judge:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_is_no_loss_any_more_and_the_next_one_is() {
        let now = Instant::now();
        let mut judge = Judge::new(LossGuard::new(0.5));
        judge.showed(100, now);
        assert!(judge.is_loss(10, now));
        judge.accept();
        judge.showed(10, now);
        assert!(!judge.is_loss(10, now) && !judge.is_loss(6, now));
        assert!(judge.is_loss(0, now));
    }
}

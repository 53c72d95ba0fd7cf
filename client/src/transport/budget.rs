//! How many attempts beyond the first a client may make.

use std::sync::atomic::{AtomicI64, Ordering};

/// Thousandths of an attempt, so that a share of one can be earned.
const ATTEMPT: i64 = 1000;
/// What a client begins with, and can save up.
const SAVED_MAX: i64 = 10 * ATTEMPT;

/// Every call earns a share of an attempt; every repetition costs a whole one.
#[derive(Debug)]
pub(super) struct Budget {
    saved: AtomicI64,
    share: i64,
}

impl Budget {
    pub(super) fn new(share: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a share of a thousand is a small number"
        )]
        let share = (share * ATTEMPT as f64) as i64;
        Self {
            saved: AtomicI64::new(SAVED_MAX),
            share,
        }
    }

    /// A call begins.
    pub(super) fn earn(&self) {
        let saved = self.saved.load(Ordering::Relaxed);
        if saved < SAVED_MAX {
            // Two at once may save a little too much; nobody minds.
            self.saved.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// Whether there may be another attempt.
    pub(super) fn spend(&self) -> bool {
        let less = |saved| (saved >= ATTEMPT).then_some(saved - ATTEMPT);
        let order = Ordering::Relaxed;
        self.saved.fetch_update(order, order, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_a_share_of_the_calls_once_the_first_ten_are_gone() {
        let budget = Budget::new(0.2);
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        let repeated = (0..100).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(repeated.count(), 20);
    }

    #[test]
    fn an_idle_client_does_not_save_up_for_ever() {
        let budget = Budget::new(1.0);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }
}

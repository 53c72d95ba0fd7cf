//! Whether callers that were answered come back at once.
//!
//! Most writers are loops: an answer is followed by the next write. While such writers' commands are
//! on their way to disk those of the others gather, and so it goes on for ever, half of them in each
//! entry; an entry that waited for the other half would cost hardly more. So the next one waits until
//! as many have come as were answered, but not for long, and only if that was worth it before: where
//! callers do not come back nothing is waited for, but for a try now and then.

use crate::limits::BATCH_COMMANDS_MAX;

/// Of eight callers that were answered one may stay away.
const STRAY: usize = 8;

/// A wait that was in vain is not tried again for so many entries.
const CAUTION: u32 = 64;

/// What is expected of callers that were answered.
#[derive(Debug, Default)]
pub(super) struct Returning {
    /// Callers that were answered since the last entry went out.
    answered: usize,
    /// Commands that were queued by then.
    held: usize,
    /// Entries that still go out without waiting.
    caution: u32,
}

impl Returning {
    /// Notes that an entry of `commands` is done, while `queued` others wait.
    pub(super) fn answered(&mut self, commands: usize, queued: usize) {
        self.answered += commands;
        self.held = queued;
    }

    /// With how many commands the next entry is as large as it gets.
    pub(super) fn wanted(&self) -> usize {
        let returning = self.answered - self.answered / STRAY;
        (self.held + returning).min(BATCH_COMMANDS_MAX)
    }

    /// Whether an entry of fewer may wait for the rest.
    pub(super) fn is_likely(&self) -> bool {
        self.caution == 0
    }

    /// Notes that an entry goes out, and whether it has waited in vain.
    pub(super) fn gone(&mut self, waited_in_vain: bool) {
        self.answered = 0;
        self.held = 0;
        self.caution = if waited_in_vain {
            CAUTION
        } else {
            self.caution.saturating_sub(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_those_that_were_answered_are_wanted_beside_those_that_wait() {
        let mut returning = Returning::default();
        assert_eq!(returning.wanted(), 0, "nobody was answered");
        returning.answered(1, 0);
        assert_eq!(returning.wanted(), 1);
        returning.answered(31, 32);
        assert_eq!(returning.wanted(), 32 + 28);
        returning.gone(false);
        assert_eq!(returning.wanted(), 0, "they are in the next entry");
        returning.answered(BATCH_COMMANDS_MAX, BATCH_COMMANDS_MAX);
        assert_eq!(returning.wanted(), BATCH_COMMANDS_MAX, "an entry is full");
    }

    #[test]
    fn waiting_in_vain_is_not_repeated_soon() {
        let mut returning = Returning::default();
        assert!(returning.is_likely());
        returning.gone(true);
        for entry in 0..CAUTION {
            assert!(!returning.is_likely(), "{entry}");
            returning.gone(false);
        }
        assert!(returning.is_likely());
    }
}

//! Whether the member that a stream of watches comes from keeps up with what others have told.
//!
//! A member that lags far behind, or hangs in its disk, says nothing, as one does where nothing
//! happens. So, when any other answer has named a later revision than this stream has, it is asked
//! how far it is; if it names an earlier one, and again after a while, another member is better.

use std::time::Duration;

use crate::types::Revision;

/// How often a stream is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What one stream has told.
#[derive(Debug, Default)]
pub(super) struct Lag {
    told: Revision,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    /// What had happened before it was asked.
    happened: Revision,
    /// Servers may leave the question unanswered; then nothing is known.
    has_told_since: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing: it keeps up, or is thinking.
    Fine,
    /// Ask how far it is.
    Ask,
    /// Go elsewhere.
    Behind,
}

impl Lag {
    /// The stream has named a revision.
    pub(super) fn told(&mut self, revision: Revision) {
        self.told = self.told.max(revision);
        if let Some(asked) = &mut self.asked {
            asked.has_told_since = true;
        }
    }

    /// Every [`LOOK_EVERY`]; `happened` is the highest revision that anybody has named.
    pub(super) fn look(&mut self, happened: Revision) -> Look {
        match &self.asked {
            Some(asked) if self.told < asked.happened => {
                if asked.has_told_since {
                    Look::Behind
                } else {
                    Look::Fine
                }
            }
            _ if self.told < happened => {
                self.asked = Some(Asked {
                    happened,
                    has_told_since: false,
                });
                Look::Ask
            }
            _ => {
                self.asked = None;
                Look::Fine
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: i64) -> Revision {
        Revision::new(revision)
    }

    #[test]
    fn a_stream_that_has_told_everything_is_not_asked() {
        let mut lag = Lag::default();
        lag.told(at(7));
        assert_eq!(lag.look(at(7)), Look::Fine);
        assert_eq!(lag.look(at(6)), Look::Fine);
    }

    #[test]
    fn a_member_that_says_it_is_behind_is_left() {
        let mut lag = Lag::default();
        lag.told(at(5));
        assert_eq!(lag.look(at(9)), Look::Ask);
        lag.told(at(6));
        assert_eq!(lag.look(at(20)), Look::Behind);
    }

    #[test]
    fn a_member_that_catches_up_is_kept_however_much_happens_meanwhile() {
        let mut lag = Lag::default();
        lag.told(at(5));
        assert_eq!(lag.look(at(9)), Look::Ask);
        lag.told(at(9));
        assert_eq!(lag.look(at(20)), Look::Ask, "a new question");
        lag.told(at(20));
        assert_eq!(lag.look(at(20)), Look::Fine);
    }

    #[test]
    fn silence_proves_nothing() {
        let mut lag = Lag::default();
        lag.told(at(5));
        assert_eq!(lag.look(at(9)), Look::Ask);
        assert_eq!(lag.look(at(9)), Look::Fine);
        assert_eq!(lag.look(at(9)), Look::Fine);
    }
}

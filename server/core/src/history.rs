//! The door to history that is no longer in memory.

use crate::{Event, KeyValue, Revision};

/// All changes of one revision, in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionEvents {
    /// The revision that all of `events` share.
    pub revision: Revision,
    /// At least one change.
    pub events: Vec<Event>,
}

/// Reads versions and events that [`crate::State`] has dropped from memory.
///
/// Whatever was dropped was handed to storage before, in [`crate::Changes`], so an answer "not
/// there" is final. Implementations must answer the same on every member.
pub trait History {
    /// The newest version of `key` at or below `at`; none if there is none or it is a deletion.
    fn version_at(&self, key: &[u8], at: Revision) -> Result<Option<KeyValue>, HistoryError>;

    /// The changes of revisions `from..=to`, oldest first, at most about `limit` of them; each that
    /// does not create its key with the newest version before its revision, if that is still there,
    /// and only if `with_prev` is set.
    ///
    /// A revision is never split: the last one is given whole even if that exceeds `limit`.
    fn events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Vec<RevisionEvents>, HistoryError>;
}

/// The storage below could not be read. A member that sees this stops: its state is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("reading history: {0}")]
pub struct HistoryError(pub String);

/// A [`History`] for stores that never drop anything from memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn version_at(&self, _: &[u8], _: Revision) -> Result<Option<KeyValue>, HistoryError> {
        Ok(None)
    }

    fn events(
        &self,
        _: Revision,
        _: Revision,
        _: usize,
        _: bool,
    ) -> Result<Vec<RevisionEvents>, HistoryError> {
        Ok(Vec::new())
    }
}

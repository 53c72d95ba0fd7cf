//! What watchers that are behind are told of the past.
//!
//! What of it is only on disk is read before the state is locked: a watcher that catches up delays
//! nobody who writes.

use std::cell::Cell;
use std::sync::Arc;

use gonfalon_core::{Error, History, HistoryError, KeyValue, Revision, RevisionEvents};

use super::Store;
use crate::storage::StateDb;
use crate::watch::{Replay, Replayed};

impl Replay for Store {
    fn replay(
        &self,
        from: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Result<Replayed, Error>, HistoryError> {
        loop {
            let (db, floor) = {
                let local = self.local();
                (local.db.clone(), local.state.history_floor())
            };
            let read = (from <= floor).then(|| db.events(from, floor, limit, with_prev));
            let local = self.local();
            if !Arc::ptr_eq(&db, &local.db) {
                // A snapshot has replaced all of it.
                continue;
            }
            let state = &local.state;
            let revision = state.revision();
            let read = ReadAhead {
                db: &db,
                events: Cell::new(read),
            };
            let events = state.events(from, revision, limit, with_prev, &read)?;
            return Ok(events.map(|events| Replayed { events, revision }));
        }
    }
}

/// History of which a part is read already. Whether that is compacted by now is asked before it is
/// used: a failure to read what is being swept away does not matter.
struct ReadAhead<'a> {
    db: &'a StateDb,
    events: Cell<Option<Result<Vec<RevisionEvents>, HistoryError>>>,
}

impl History for ReadAhead<'_> {
    fn version_at(&self, key: &[u8], at: Revision) -> Result<Option<KeyValue>, HistoryError> {
        self.db.version_at(key, at)
    }

    fn events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Vec<RevisionEvents>, HistoryError> {
        let read = self.events.take();
        // Memory may have given up the part in question only now.
        read.unwrap_or_else(|| self.db.events(from, to, limit, with_prev))
    }
}

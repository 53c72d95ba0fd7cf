//! Which leases the handles of one client keep: there is one term for each, however many have come
//! to keep it.
//!
//! Invariants
//! - an entry is what its lease's newest handles share; it goes with the last of them;
//! - only what has the entry gives orders about the lease: whoever has lost it before, and still has
//!   a handle, ends or forgets nothing of those who have it now;
//! - such orders are left under the lock, so that they are in the order of the entries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Inner;
use super::term::Term;
use crate::types::LeaseId;

type ById = HashMap<LeaseId, Weak<Inner>>;

/// See above. No strong reference is dropped under the lock: its end would take it again.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    by_id: Mutex<ById>,
}

impl Handles {
    /// What the handle of a lease holds: what others hold already, if it `joins` that; else `new`.
    /// Also who was there before a new one.
    pub(super) fn enter(
        &self,
        id: LeaseId,
        joins: impl Fn(&Term) -> bool,
        new: impl FnOnce() -> Arc<Inner>,
    ) -> (Arc<Inner>, Option<Arc<Inner>>) {
        let mut by_id = self.lock();
        match by_id.get(&id).and_then(Weak::upgrade) {
            Some(known) if joins(&known.term) => (known, None),
            before => {
                let new = new();
                by_id.insert(id, Arc::downgrade(&new));
                (new, before)
            }
        }
    }

    /// The table, locked, if `inner` has its lease's entry.
    pub(super) fn of(&self, inner: &Inner) -> Option<MutexGuard<'_, ById>> {
        let by_id = self.lock();
        let has_entry = by_id
            .get(&inner.id)
            .is_some_and(|known| std::ptr::eq(known.as_ptr(), inner));
        has_entry.then_some(by_id)
    }

    fn lock(&self) -> MutexGuard<'_, ById> {
        self.by_id
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

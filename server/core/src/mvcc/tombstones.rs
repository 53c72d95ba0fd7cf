//! Keys whose newest change is a deletion, until that is compacted.
//!
//! A read at a revision before the deletion still finds such a key, so it must be enumerated.
//!
//! Invariant: `by_key` and `by_revision` hold the same tombstones.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::keys::bounds;
use crate::{KeyRange, Revision};

/// At most so many compacted tombstones are dropped at once, so that nobody waits for the sweep.
const SWEEP_MAX: usize = 1024;

/// The deleted keys.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    by_key: BTreeMap<Bytes, (Revision, u32)>,
    by_revision: BTreeMap<(Revision, u32), Bytes>,
}

impl Tombstones {
    /// Remembers that change `sub` of `revision` deleted `key`.
    pub(crate) fn insert(&mut self, key: Bytes, revision: Revision, sub: u32) {
        self.by_revision.insert((revision, sub), key.clone());
        let before = self.by_key.insert(key, (revision, sub));
        assert!(before.is_none(), "a key is deleted once");
    }

    /// Forgets the deletion of `key`, because the key exists again.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(change) = self.by_key.remove(key) {
            let key = self.by_revision.remove(&change);
            assert!(key.is_some(), "both indexes hold the tombstone");
        }
    }

    /// Drops some tombstones at or below `compacted`: nobody may read before them any more.
    pub(crate) fn sweep(&mut self, compacted: Revision) {
        for _ in 0..SWEEP_MAX {
            let Some(oldest) = self.by_revision.first_entry() else {
                break;
            };
            if oldest.key().0 > compacted {
                break;
            }
            let key = oldest.remove();
            self.by_key.remove(&key);
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// The keys of `range` that were deleted after revision `at`, in key order.
    pub(crate) fn deleted_after<'a>(
        &'a self,
        range: &KeyRange,
        at: Revision,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bounds = bounds(range);
        bounds
            .map(|bounds| self.by_key.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
            .filter(move |(_, (revision, _))| *revision > at)
            .map(|(key, _)| key.as_ref())
    }

    /// Asserts the invariants; `revision` is the store's.
    pub(crate) fn check(&self, revision: Revision) {
        assert_eq!(
            self.by_key.len(),
            self.by_revision.len(),
            "both indexes hold the same"
        );
        for (change, key) in &self.by_revision {
            assert_eq!(
                self.by_key.get(key),
                Some(change),
                "both indexes hold the same"
            );
            assert!(change.0 <= revision, "no deletion is newer than the store");
        }
    }
}

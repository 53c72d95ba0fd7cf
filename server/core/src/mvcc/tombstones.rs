//! Keys whose newest change is a deletion, until that is compacted.
//!
//! A read at a revision before the deletion still finds such a key, so it must be enumerated.
//!
//! Invariant: `by_key` and `by_change` hold the same tombstones.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bounds::bounds;
use super::recent::ChangeId;
use crate::{KeyRange, Revision};

/// At most so many compacted tombstones are dropped at once, so that nobody waits for the sweep.
const SWEEP_MAX: usize = 1024;

/// So many tombstones are sorted by key for a read of the past; if there are more, all are walked.
const FEW_MAX: usize = 256;

/// The deleted keys.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    by_key: BTreeMap<Bytes, ChangeId>,
    by_change: BTreeMap<ChangeId, Bytes>,
}

impl Tombstones {
    /// Remembers that `change` deleted `key`.
    pub(crate) fn insert(&mut self, key: Bytes, change: ChangeId) {
        self.by_change.insert(change, key.clone());
        let before = self.by_key.insert(key, change);
        assert!(before.is_none(), "a key is deleted once");
    }

    /// Forgets the deletion of `key`, because the key exists again; returns the change.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<ChangeId> {
        let change = self.by_key.remove(key)?;
        let key = self.by_change.remove(&change);
        assert!(key.is_some(), "both indexes hold the tombstone");
        Some(change)
    }

    /// Drops some tombstones at or below `compacted`: nobody may read before them any more. Whether
    /// there are more.
    pub(crate) fn sweep(&mut self, compacted: Revision) -> bool {
        for _ in 0..SWEEP_MAX {
            match self.by_change.first_entry() {
                Some(oldest) if oldest.key().0 <= compacted => {
                    let key = oldest.remove();
                    self.by_key.remove(&key);
                }
                _ => return false,
            }
        }
        true
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// Keys of `range` that may have been deleted after revision `at`, in key order, each with the
    /// change that deleted it: all that were, and if these are many, others too.
    pub(crate) fn deleted_after<'a>(
        &'a self,
        range: &KeyRange,
        at: Revision,
    ) -> impl Iterator<Item = (&'a [u8], ChangeId)> + use<'a> {
        // A range may hold a million keys that were deleted long ago: they are not walked for a
        // read at a revision that is not.
        let after = self.by_change.range((at, u32::MAX)..).take(FEW_MAX + 1);
        let mut few: Vec<(&[u8], ChangeId)> =
            after.map(|(change, key)| (key.as_ref(), *change)).collect();
        let mut many = None;
        if few.len() > FEW_MAX {
            few.clear();
            many = bounds(range).map(|bounds| self.by_key.range::<[u8], _>(bounds));
        }
        few.retain(|(key, _)| range.contains(key));
        few.sort_unstable();
        let many = many
            .into_iter()
            .flatten()
            .map(|(key, change)| (key.as_ref(), *change));
        few.into_iter().chain(many)
    }

    /// Asserts the invariants; `revision` is the store's.
    pub(crate) fn check(&self, revision: Revision) {
        assert_eq!(
            self.by_key.len(),
            self.by_change.len(),
            "both indexes hold the same"
        );
        for (change, key) in &self.by_change {
            assert_eq!(
                self.by_key.get(key),
                Some(change),
                "both indexes hold the same"
            );
            assert!(change.0 <= revision, "no deletion is newer than the store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacted_tombstones_are_dropped_in_steps() {
        let mut tombstones = Tombstones::default();
        let count = 2 * SWEEP_MAX + 10;
        for number in 0..count {
            let revision = Revision::new(2 + i64::try_from(number).unwrap());
            tombstones.insert(Bytes::from(format!("{number:05}")), (revision, 0));
        }
        let all = KeyRange::prefix(Bytes::new());
        let left =
            |tombstones: &Tombstones| tombstones.deleted_after(&all, Revision::FIRST).count();
        // The newest five stay.
        let compacted = Revision::new(1 + i64::try_from(count).unwrap() - 5);
        for want in [count - SWEEP_MAX, count - 2 * SWEEP_MAX, 5, 5] {
            tombstones.sweep(compacted);
            tombstones.check(Revision::new(i64::MAX));
            assert_eq!(left(&tombstones), want);
        }
    }
}

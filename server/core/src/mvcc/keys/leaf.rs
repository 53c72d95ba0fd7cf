//! A run of neighbouring keys.
//!
//! Beside each version lies its *digest*: the eight bytes that follow the prefix which all keys of
//! the leaf share, as a number. Digests ascend with the keys, so a search compares numbers within one
//! block of memory; only where digests are equal does it follow the references to keys.

use super::shared_prefix;
use crate::mvcc::version::Version;

/// Versions in key order.
#[derive(Debug)]
pub(super) struct Leaf {
    /// All keys between the leaf's fences begin with the same so many bytes.
    shared: usize,
    slots: Vec<Slot>,
}

#[derive(Debug)]
pub(super) struct Slot {
    digest: u64,
    version: Version,
}

impl Slot {
    pub(super) fn version(&self) -> &Version {
        &self.version
    }
}

impl Leaf {
    /// A leaf with room for `capacity` versions.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            shared: 0,
            slots: Vec::with_capacity(capacity),
        }
    }

    /// Takes note of what the fences have in common.
    pub(super) fn set_shared(&mut self, shared: usize) {
        if self.shared != shared {
            self.shared = shared;
            for slot in &mut self.slots {
                slot.digest = digest(slot.version.key(), shared);
            }
        }
    }

    pub(super) fn insert(&mut self, slot: usize, version: Version) {
        let digest = digest(version.key(), self.shared);
        self.slots.insert(slot, Slot { digest, version });
    }

    pub(super) fn replace(&mut self, slot: usize, version: Version) -> Version {
        let old = std::mem::replace(&mut self.slots[slot].version, version);
        debug_assert_eq!(old.key(), self.slots[slot].version.key(), "of the same key");
        old
    }

    pub(super) fn remove(&mut self, slot: usize) -> Version {
        self.slots.remove(slot).version
    }

    /// Moves everything from `slot` on to a leaf behind this one. Both fences must be noted next.
    pub(super) fn split_off(&mut self, slot: usize, capacity: usize) -> Self {
        let mut right = Self {
            shared: self.shared,
            slots: Vec::with_capacity(capacity),
        };
        right.slots.extend(self.slots.drain(slot..));
        right
    }

    /// Takes in the leaf behind this one. The fences must be noted next.
    pub(super) fn append(&mut self, right: Self) {
        let shared = self.shared;
        self.slots
            .extend(right.slots.into_iter().map(|Slot { version, .. }| Slot {
                digest: digest(version.key(), shared),
                version,
            }));
    }

    /// The slot of `key`, or where it belongs. The key lies between the leaf's fences.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let digest = digest(key, self.shared);
        let first = self.slots.partition_point(|slot| slot.digest < digest);
        let equal = self.slots[first..]
            .iter()
            .take_while(|slot| slot.digest == digest)
            .count();
        self.slots[first..first + equal]
            .binary_search_by(|slot| slot.version.key().cmp(key))
            .map(|slot| first + slot)
            .map_err(|slot| first + slot)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Asserts the invariants, given the leaf's fences.
    pub(super) fn check(&self, fence: &[u8], next: Option<&[u8]>) {
        let shared = next.map_or(0, |next| shared_prefix(fence, next));
        assert_eq!(
            self.shared, shared,
            "the shared prefix is that of the fences"
        );
        for slot in &self.slots {
            let key = slot.version.key();
            assert_eq!(slot.digest, digest(key, shared), "the digest of {key:?}");
            assert!(
                fence <= key && next.is_none_or(|next| key < next),
                "{key:?} is in its leaf"
            );
        }
        let ascend = |a: &Slot, b: &Slot| a.version.key() < b.version.key();
        assert!(self.slots.is_sorted_by(ascend), "keys ascend strictly");
    }
}

/// The eight bytes of `key` behind the first `shared`, as a number; missing ones count as zero.
fn digest(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

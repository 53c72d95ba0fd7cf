//! A run of neighbouring keys.
//!
//! Beside each version lies its *digest*: the eight bytes that follow the prefix which all keys of
//! the leaf share, as a number. Digests ascend with the keys, so a search compares numbers that lie
//! side by side; only where digests are equal are keys compared.

use super::shared_prefix;
use crate::mvcc::version::Version;

/// Versions in key order.
#[derive(Debug)]
pub(super) struct Leaf {
    /// All keys between the leaf's fences begin with the same so many bytes.
    shared: usize,
    digests: Vec<u64>,
    versions: Vec<Version>,
}

impl Leaf {
    /// A leaf of versions in key order.
    pub(super) fn new(versions: Vec<Version>, shared: usize) -> Self {
        let mut leaf = Self {
            shared,
            digests: Vec::new(),
            versions,
        };
        leaf.digest_all();
        leaf
    }

    /// Takes note of what the fences have in common.
    pub(super) fn set_shared(&mut self, shared: usize) {
        if self.shared != shared {
            self.shared = shared;
            self.digest_all();
        }
    }

    pub(super) fn insert(&mut self, slot: usize, version: Version) {
        self.digests
            .insert(slot, digest(version.key(), self.shared));
        self.versions.insert(slot, version);
    }

    pub(super) fn replace(&mut self, slot: usize, version: Version) -> Version {
        let old = std::mem::replace(&mut self.versions[slot], version);
        debug_assert_eq!(
            old.key(),
            self.versions[slot].key(),
            "a version replaces its like"
        );
        old
    }

    pub(super) fn remove(&mut self, slot: usize) -> Version {
        self.digests.remove(slot);
        self.versions.remove(slot)
    }

    /// Takes away everything from `slot` on.
    pub(super) fn split_off(&mut self, slot: usize) -> Vec<Version> {
        self.digests.truncate(slot);
        self.versions.split_off(slot)
    }

    /// Adds the versions of the leaf behind this one. The fences must be noted next.
    pub(super) fn append(&mut self, mut right: Self) {
        self.versions.append(&mut right.versions);
        self.digest_all();
    }

    /// The slot of `key`, or where it belongs. The key lies between the leaf's fences.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let digest = digest(key, self.shared);
        let first = self.digests.partition_point(|other| *other < digest);
        let equal = self.digests[first..]
            .iter()
            .take_while(|other| **other == digest)
            .count();
        self.versions[first..first + equal]
            .binary_search_by(|version| version.key().cmp(key))
            .map(|slot| first + slot)
            .map_err(|slot| first + slot)
    }

    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    pub(super) fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Asserts the invariants, given the leaf's fences.
    pub(super) fn check(&self, fence: &[u8], next: Option<&[u8]>) {
        let shared = next.map_or(0, |next| shared_prefix(fence, next));
        assert_eq!(
            self.shared, shared,
            "the shared prefix is that of the fences"
        );
        assert_eq!(
            self.digests.len(),
            self.versions.len(),
            "a digest for each version"
        );
        for (version, found) in self.versions.iter().zip(&self.digests) {
            let key = version.key();
            assert_eq!(digest(key, shared), *found, "the digest of {key:?}");
            assert!(
                fence <= key && next.is_none_or(|next| key < next),
                "{key:?} is in its leaf"
            );
        }
        assert!(
            self.versions.is_sorted_by(|a, b| a.key() < b.key()),
            "keys ascend strictly"
        );
    }

    fn digest_all(&mut self) {
        let shared = self.shared;
        self.digests.clear();
        self.digests.extend(
            self.versions
                .iter()
                .map(|version| digest(version.key(), shared)),
        );
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

//! The newest version of every key that exists, in key order.
//!
//! A sorted list cut into leaves of at most `MAX` keys. Fences separate the leaves: every key of a
//! leaf is at or above the leaf's fence and below the next one. A search halves the fences, then the
//! leaf's digests (see [`leaf`]), and looks at a key itself only to be sure. The sizes of the leaves
//! lie side by side, so that the count of any range is a short sum.
//!
//! Why not a `BTreeMap`: it cannot count without walking (1 M keys: 1.8 ms against 2 µs), finds a key
//! twice to replace its version, and reads a key at each step of a search (adding a key at random to
//! 1 M: 4.3 µs against 1.5).
//!
//! Invariants
//! - keys ascend strictly, within a leaf and from leaf to leaf;
//! - the first fence is the empty key; fences ascend strictly;
//! - no leaf is empty, and of two neighbours at least one is not small ([`Keys::is_small`]);
//! - `bytes` is the sum of what the versions cost.

mod leaf;

use super::version::Version;
use crate::{KeyRange, RangeEnd};
use leaf::{Leaf, Slot};

/// At most so many keys in a leaf. Measured with 1 M keys: searches take the same with 32 to 256,
/// adding a key at random takes half as long with 256 as with 32.
const LEAF_KEYS_MAX: usize = 256;

/// An ordered map from keys to their newest versions.
#[derive(Debug)]
pub(crate) struct Keys<const MAX: usize = LEAF_KEYS_MAX> {
    len: usize,
    bytes: usize,
    fences: Vec<Box<[u8]>>,
    sizes: Vec<usize>,
    leaves: Vec<Leaf>,
}

/// Where a key is, or belongs. Valid until the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    leaf: usize,
    slot: usize,
}

impl<const MAX: usize> Default for Keys<MAX> {
    fn default() -> Self {
        Self {
            len: 0,
            bytes: 0,
            fences: Vec::new(),
            sizes: Vec::new(),
            leaves: Vec::new(),
        }
    }
}

impl<const MAX: usize> Keys<MAX> {
    /// Adds a version whose key is above all others.
    pub(crate) fn push(&mut self, version: Version) {
        // Not by `find`: this is most of what a member's start costs.
        let last = self.leaves.last().and_then(|leaf| leaf.slots().last());
        assert!(
            last.is_none_or(|last| last.version().key() < version.key()),
            "a key that is pushed is above all others"
        );
        self.insert(self.end(), version);
    }

    /// Adds a version of a new key, in the place where [`Keys::find`] did not find it.
    pub(crate) fn insert(&mut self, place: Place, version: Version) {
        self.len += 1;
        self.bytes += version.cost_bytes();
        let Some(leaf) = self.leaves.get(place.leaf) else {
            assert!(
                self.leaves.is_empty(),
                "only an empty map has no leaf for a key"
            );
            self.insert_leaf(0, Box::default(), Leaf::with_capacity(MAX));
            self.insert_into(place, version);
            return;
        };
        if leaf.len() < MAX {
            self.insert_into(place, version);
        } else if place == self.end() {
            // Keys that come in order leave full leaves behind them.
            let fence = version.key().into();
            self.insert_leaf(place.leaf + 1, fence, Leaf::with_capacity(MAX));
            self.refence(place.leaf);
            self.insert_into(
                Place {
                    leaf: place.leaf + 1,
                    slot: 0,
                },
                version,
            );
        } else {
            self.split(place.leaf);
            let half = self.sizes[place.leaf];
            // At the seam the key is above the left half and below the fence between the halves.
            let place = match place.slot.checked_sub(half) {
                None | Some(0) => place,
                Some(slot) => Place {
                    leaf: place.leaf + 1,
                    slot,
                },
            };
            self.insert_into(place, version);
        }
    }

    /// Puts a version in the place of the one before, of the same key.
    pub(crate) fn replace(&mut self, place: Place, version: Version) -> Version {
        self.bytes += version.cost_bytes();
        let old = self.leaves[place.leaf].replace(place.slot, version);
        self.bytes -= old.cost_bytes();
        old
    }

    pub(crate) fn remove(&mut self, place: Place) -> Version {
        let Place { leaf, slot } = place;
        let version = self.leaves[leaf].remove(slot);
        self.len -= 1;
        self.bytes -= version.cost_bytes();
        self.sizes[leaf] -= 1;
        if self.is_small(leaf) {
            if leaf + 1 < self.leaves.len() && self.is_small(leaf + 1) {
                self.merge(leaf);
            } else if leaf > 0 && self.is_small(leaf - 1) {
                self.merge(leaf - 1);
            } else if self.sizes[leaf] == 0 {
                self.remove_leaf(leaf);
            }
        }
        version
    }

    /// The place of `key`: where it is, or where it would be inserted.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Place, Place> {
        // The first fence is empty, so only an empty map has none at or below the key.
        let leaf = self
            .fences
            .partition_point(|fence| fence.as_ref() <= key)
            .saturating_sub(1);
        match self.leaves.get(leaf).map_or(Err(0), |leaf| leaf.find(key)) {
            Ok(slot) => Ok(Place { leaf, slot }),
            Err(slot) => Err(Place { leaf, slot }),
        }
    }

    /// The place of `key` if it exists; without a search if that is `near`, which may be any.
    pub(crate) fn find_near(&self, near: Place, key: &[u8]) -> Option<Place> {
        let slots = self.leaves.get(near.leaf).map(Leaf::slots);
        let slot = slots.and_then(|slots| slots.get(near.slot));
        if slot.is_some_and(|slot| slot.version().key() == key) {
            return Some(near);
        }
        self.find(key).ok()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Version> {
        self.find(key).ok().map(|place| self.at(place))
    }

    /// The version at a place that [`Keys::find`] has found.
    pub(crate) fn at(&self, place: Place) -> &Version {
        self.leaves[place.leaf].slots()[place.slot].version()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that the versions take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The versions whose keys are in `range`, in key order.
    pub(crate) fn range<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Version> + use<'a, MAX> {
        let (start, end) = self.bounds(range);
        let last = end.leaf.min(self.leaves.len().saturating_sub(1));
        let leaves = self.leaves.get(start.leaf..=last).unwrap_or_default();
        leaves
            .iter()
            .zip(start.leaf..)
            .flat_map(move |(leaf, index)| {
                let from = if index == start.leaf { start.slot } else { 0 };
                let to = if index == end.leaf {
                    end.slot
                } else {
                    leaf.len()
                };
                leaf.slots()[from..to].iter().map(Slot::version)
            })
    }

    /// How many keys are in `range`.
    pub(crate) fn count(&self, range: &KeyRange) -> usize {
        let (start, end) = self.bounds(range);
        self.sizes[start.leaf..end.leaf].iter().sum::<usize>() + end.slot - start.slot
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Version> {
        self.leaves.iter().flat_map(Leaf::slots).map(Slot::version)
    }

    /// Asserts the invariants.
    pub(crate) fn check(&self) {
        let leaves = self.leaves.len();
        assert_eq!(
            (self.fences.len(), self.sizes.len()),
            (leaves, leaves),
            "lists agree"
        );
        assert_eq!(
            self.len,
            self.iter().count(),
            "the length is that of the leaves"
        );
        assert_eq!(
            self.bytes,
            self.iter().map(Version::cost_bytes).sum::<usize>(),
            "the bytes are those of the versions"
        );
        assert!(
            self.fences.first().is_none_or(|fence| fence.is_empty()),
            "the first fence"
        );
        for (index, leaf) in self.leaves.iter().enumerate() {
            assert_eq!(
                self.sizes[index],
                leaf.len(),
                "sizes are those of the leaves"
            );
            assert!(
                (1..=MAX).contains(&leaf.len()),
                "no leaf is empty or overfull"
            );
            leaf.check(
                &self.fences[index],
                self.fences.get(index + 1).map(AsRef::as_ref),
            );
            let has_small_neighbour = index > 0 && self.is_small(index - 1);
            assert!(
                !(self.is_small(index) && has_small_neighbour),
                "small leaves are merged"
            );
        }
    }

    /// The places of the first key of a range and of the first one behind it.
    fn bounds(&self, range: &KeyRange) -> (Place, Place) {
        if range.is_empty() {
            return (Place { leaf: 0, slot: 0 }, Place { leaf: 0, slot: 0 });
        }
        let start = self.find(&range.start);
        let end = match &range.end {
            RangeEnd::Single => match start {
                Ok(Place { leaf, slot }) => Place {
                    leaf,
                    slot: slot + 1,
                },
                Err(place) => place,
            },
            RangeEnd::Before(end) => self.find(end).unwrap_or_else(|place| place),
            RangeEnd::Unbounded => self.end(),
        };
        (start.unwrap_or_else(|place| place), end)
    }

    /// The place behind the last key.
    fn end(&self) -> Place {
        let leaf = self.leaves.len().saturating_sub(1);
        Place {
            leaf,
            slot: self.sizes.last().copied().unwrap_or(0),
        }
    }

    /// A small leaf is merged with a small neighbour; together they leave room to grow.
    fn is_small(&self, leaf: usize) -> bool {
        self.sizes[leaf] <= MAX / 4
    }

    /// Inserts into a leaf that has room.
    fn insert_into(&mut self, place: Place, version: Version) {
        self.leaves[place.leaf].insert(place.slot, version);
        self.sizes[place.leaf] += 1;
    }

    /// Cuts a leaf in two halves.
    fn split(&mut self, index: usize) {
        let right = self.leaves[index].split_off(MAX / 2, MAX);
        self.sizes[index] = self.leaves[index].len();
        let fence = right.slots()[0].version().key().into();
        self.insert_leaf(index + 1, fence, right);
        self.refence(index);
        self.refence(index + 1);
    }

    /// Joins a leaf with the one behind it.
    fn merge(&mut self, index: usize) {
        let right = self.leaves.remove(index + 1);
        self.fences.remove(index + 1);
        self.sizes.remove(index + 1);
        self.leaves[index].append(right);
        self.sizes[index] = self.leaves[index].len();
        self.refence(index);
    }

    fn insert_leaf(&mut self, index: usize, fence: Box<[u8]>, leaf: Leaf) {
        self.sizes.insert(index, leaf.len());
        self.fences.insert(index, fence);
        self.leaves.insert(index, leaf);
    }

    fn remove_leaf(&mut self, index: usize) {
        assert_eq!(self.leaves[index].len(), 0, "only empty leaves are removed");
        self.leaves.remove(index);
        self.fences.remove(index);
        self.sizes.remove(index);
        // The neighbour takes over the interval, on whichever side it is.
        if index > 0 {
            self.refence(index - 1);
        } else if let Some(first) = self.fences.first_mut() {
            *first = Box::default();
            self.refence(0);
        }
    }

    /// Adapts a leaf to its fences.
    fn refence(&mut self, index: usize) {
        let shared = match self.fences.get(index + 1) {
            Some(next) => shared_prefix(&self.fences[index], next),
            None => 0,
        };
        self.leaves[index].set_shared(shared);
    }
}

/// How many first bytes two keys have in common; so has every key between them.
fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;

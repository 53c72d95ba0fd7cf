//! The newest version of every key that exists, in key order.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::version::Version;
use crate::{KeyRange, RangeEnd};

/// An ordered map from keys to their newest versions.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    tree: BTreeSet<Version>,
}

impl Keys {
    /// Builds the map from versions whose keys ascend strictly.
    pub(crate) fn from_sorted(versions: Vec<Version>) -> Self {
        Self {
            tree: versions.into_iter().collect(),
        }
    }

    /// Puts a version in the place of the one of the same key, if there is one.
    pub(crate) fn insert(&mut self, version: Version) -> Option<Version> {
        self.tree.replace(version)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Version> {
        self.tree.take(key)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Version> {
        self.tree.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    /// The versions whose keys are in `range`, in key order.
    pub(crate) fn range<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Version> + use<'a> {
        let bounds = bounds(range);
        bounds
            .map(|bounds| self.tree.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
    }

    /// How many keys are in `range`.
    pub(crate) fn count(&self, range: &KeyRange) -> usize {
        self.range(range).count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Version> {
        self.tree.iter()
    }

    /// Asserts the invariants.
    pub(crate) fn check(&self) {
        let mut before: Option<&Version> = None;
        for version in self.iter() {
            assert!(
                before.is_none_or(|before| before.key() < version.key()),
                "keys ascend"
            );
            before = Some(version);
        }
    }
}

/// Where a part of an ordered map starts and ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a range for an ordered map; none if no key can be in it.
pub(super) fn bounds(range: &KeyRange) -> Option<Bounds<'_>> {
    let start = range.start.as_ref();
    match &range.end {
        _ if range.is_empty() => None,
        RangeEnd::Single => Some((Bound::Included(start), Bound::Included(start))),
        RangeEnd::Before(end) => Some((Bound::Included(start), Bound::Excluded(end))),
        RangeEnd::Unbounded => Some((Bound::Included(start), Bound::Unbounded)),
    }
}

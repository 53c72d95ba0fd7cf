//! What a holder gives to resources outside of the store, so that they can tell him from later ones.

use std::cmp::Ordering;
use std::fmt;

use crate::types::Revision;

/// A number that is higher than that of everybody who had the same thing before, within one cluster.
///
/// A resource that keeps the highest fence it has seen, and refuses what is lower, is safe from a
/// holder who was stopped for longer than his lease and does not know it yet. Nothing else is:
///
/// ```
/// use gonfalon::{Fence, Revision};
///
/// let mut newest: Option<Fence> = None;
/// let mut write = |fence: Fence| {
///     // Two clusters, or one that was restored from a backup of another, have no common order.
///     let is_fine = newest.is_none_or(|newest| newest <= fence);
///     if is_fine {
///         newest = Some(fence);
///     }
///     is_fine
/// };
/// assert!(write(Fence::new(7, Revision::new(40))));
/// assert!(write(Fence::new(7, Revision::new(55))));
/// assert!(!write(Fence::new(7, Revision::new(40))), "the first holder wakes up");
/// assert!(!write(Fence::new(8, Revision::new(90))), "another cluster says nothing about this one");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    cluster: u64,
    revision: Revision,
}

impl Fence {
    /// From its parts, as they came over the wire.
    pub const fn new(cluster: u64, revision: Revision) -> Self {
        Self { cluster, revision }
    }

    /// The cluster that the number is of.
    pub const fn cluster(self) -> u64 {
        self.cluster
    }

    /// The number: when the holder's key was created.
    pub const fn revision(self) -> Revision {
        self.revision
    }
}

impl PartialOrd for Fence {
    /// None for two clusters: neither is later.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.cluster == other.cluster).then(|| self.revision.cmp(&other.revision))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.cluster, self.revision)
    }
}

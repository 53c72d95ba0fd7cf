//! Leases and the keys attached to them.
//!
//! A lease here has no deadline: the leader's clock decides when it is over and proposes its
//! revocation. A key is attached to at most one lease, the one in its newest version.

use std::collections::{BTreeMap, BTreeSet};

use crate::LeaseId;

/// Seconds that a lease may live; etcd's number.
pub(crate) const TTL_MAX: i64 = 9_000_000_000;

/// A lease that is granted and not yet revoked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    /// Seconds granted.
    pub ttl: i64,
    keys: BTreeSet<Box<[u8]>>,
}

impl Lease {
    /// The attached keys, in key order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.keys.iter().map(AsRef::as_ref)
    }
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    /// Adds a lease without keys.
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: i64) {
        assert!(
            !id.is_none(),
            "the id of a lease is never the one that stands for none"
        );
        let before = self.leases.insert(
            id,
            Lease {
                ttl,
                keys: BTreeSet::new(),
            },
        );
        assert!(before.is_none(), "{id:?} was granted while it existed");
    }

    /// Takes a lease away, with the list of its keys; they are still to be deleted.
    pub(crate) fn revoke(&mut self, id: LeaseId) -> Option<Lease> {
        self.leases.remove(&id)
    }

    /// Moves `key` from the lease of its version before to that of the new one.
    pub(crate) fn moved(&mut self, key: &[u8], before: LeaseId, after: LeaseId) {
        if before == after {
            return;
        }
        // The lease before is gone already when its revocation is what deletes the key.
        if let Some(lease) = self.leases.get_mut(&before) {
            let was_attached = lease.keys.remove(key);
            assert!(was_attached, "a version's lease lists its key");
        }
        if !after.is_none() {
            let lease = self
                .leases
                .get_mut(&after)
                .expect("checked before the put began");
            lease.keys.insert(key.into());
        }
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// Asserts that the leases list exactly the keys of `attached`: (key, lease) of every version
    /// that has one.
    pub(crate) fn check<'a>(&self, attached: impl Iterator<Item = (&'a [u8], LeaseId)>) {
        let mut count = 0;
        for (key, id) in attached {
            let lease = self.leases.get(&id).expect("a key's lease exists");
            assert!(lease.keys.contains(key), "{id:?} lists {key:?}");
            count += 1;
        }
        let listed: usize = self.leases.values().map(|lease| lease.keys.len()).sum();
        assert_eq!(
            count, listed,
            "leases list only keys that are attached to them"
        );
        assert!(!self.contains(LeaseId::NONE), "lease 0 stands for none");
    }
}

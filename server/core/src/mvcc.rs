//! Every version of every key, readable at any revision that is not compacted.
//!
//! Memory holds the newest version of each key ([`keys`]), the keys whose newest change is a
//! deletion ([`tombstones`]) and the changes of recent revisions ([`recent`]); older versions are
//! read through [`crate::History`]. The store knows nothing about leases, watchers, disks or Raft.
//!
//! Invariants
//! - a key is in `keys` or in `tombstones`, never in both;
//! - no version or tombstone is newer than `revision`, which grows by one a command;
//! - `compacted` never exceeds `revision`; nothing below it is answered.

mod bounds;
mod compact;
mod keys;
mod range;
mod recent;
mod replay;
mod tombstones;
mod version;

use std::sync::Arc;

use bytes::Bytes;

use crate::{Changes, Event, EventKind, KeyRange, KeyValue, LeaseId, Revision, Written};
pub(crate) use keys::Keys;
use keys::Place;
use recent::Recent;
use recent::{ChangeId, Past};
pub(crate) use tombstones::Tombstones;
pub(crate) use version::{Meta, Version};

/// The revision of the last compaction of a store that never was compacted.
const NEVER_COMPACTED: Revision = Revision::new(-1);

/// The keys and their history.
#[derive(Debug)]
pub(crate) struct Store {
    revision: Revision,
    compacted: Revision,
    keys: Keys,
    tombstones: Tombstones,
    recent: Recent,
}

/// The changes of one command: all at one revision, in order.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    /// The next change's number within the revision.
    sub: u32,
    /// Where the last key was deleted. The key behind it is there now, and the next to be deleted
    /// more often than not.
    near: Place,
    changes: &'a mut Changes,
}

impl<'a> Write<'a> {
    /// The command's changes go to `changes`.
    pub(crate) fn new(changes: &'a mut Changes) -> Self {
        Self {
            sub: 0,
            near: Place::default(),
            changes,
        }
    }
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::from_parts(
            Revision::FIRST,
            NEVER_COMPACTED,
            Keys::default(),
            Tombstones::default(),
        )
    }

    /// A store as storage has it; its history is left there.
    pub(crate) fn from_parts(
        revision: Revision,
        compacted: Revision,
        keys: Keys,
        tombstones: Tombstones,
    ) -> Self {
        assert!(
            compacted <= revision,
            "compaction never exceeds the present"
        );
        Self {
            revision,
            compacted,
            keys,
            tombstones,
            recent: Recent::new(revision),
        }
    }

    /// Gives `key` a value; returns the version before.
    pub(crate) fn put(
        &mut self,
        write: &mut Write<'_>,
        key: &[u8],
        value: &[u8],
        lease: LeaseId,
    ) -> Option<Version> {
        assert!(!key.is_empty(), "a key is never empty");
        let change = self.next_change(write);
        let place = self.keys.find(key);
        let old = place.ok().map(|place| self.keys.at(place).clone());
        let create_revision = old.as_ref().map_or(change.0, Version::create_revision);
        let meta = Meta {
            create_revision,
            mod_revision: change.0,
            version: old.as_ref().map_or(1, |old| old.number_of_puts() + 1),
            lease,
            sub: change.1,
        };
        // The key and the value are copied: what came in is a part of a whole batch's bytes.
        let version = Version::new(key, value, meta);
        let kv = version.to_kv();
        let before = match place {
            Ok(place) => Some(self.keys.replace(place, version).change()),
            Err(place) => {
                self.keys.insert(place, version);
                self.tombstones.remove(key)
            }
        };
        let is_create = create_revision == change.0;
        let prev = old
            .as_ref()
            .filter(|_| !is_create)
            .and_then(|old| self.prev(old));
        let event = Event {
            kind: EventKind::Put,
            kv,
            prev,
        };
        self.record(write, change, event, before, old.as_ref());
        old
    }

    /// Deletes `key`; returns the version before. Nothing happens if the key does not exist.
    pub(crate) fn delete(&mut self, write: &mut Write<'_>, key: &[u8]) -> Option<Version> {
        write.near = self.keys.find_near(write.near, key)?;
        let old = self.keys.remove(write.near);
        let change = self.next_change(write);
        // A copy: the deleted version's block is not kept alive for its key.
        let key = Bytes::copy_from_slice(key);
        self.tombstones.insert(key.clone(), change);
        let prev = self.prev(&old);
        let kv = KeyValue {
            key,
            mod_revision: change.0,
            ..KeyValue::default()
        };
        let event = Event {
            kind: EventKind::Delete,
            kv,
            prev,
        };
        self.record(write, change, event, Some(old.change()), Some(&old));
        Some(old)
    }

    /// Gives back memory, a step at a time: recent changes beyond the budget, and tombstones that are
    /// compacted. Whether there is more.
    ///
    /// All changes so far must have been written to storage.
    pub(crate) fn evict(&mut self, budget_bytes: usize) -> bool {
        let has_changes = self.recent.evict(budget_bytes);
        let has_tombstones = self.tombstones.sweep(self.compacted);
        has_changes || has_tombstones
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision of the last compaction; −1 if there was none.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn present_keys(&self, range: &KeyRange) -> usize {
        self.keys.count(range)
    }

    pub(crate) fn key_bytes(&self) -> usize {
        self.keys.bytes()
    }

    pub(crate) fn history_floor(&self) -> Revision {
        self.recent.floor()
    }

    pub(crate) fn recent_bytes(&self) -> usize {
        self.recent.bytes()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key)
    }

    /// The newest versions of the keys in `range`, in key order.
    pub(crate) fn current<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Version> + use<'a> {
        self.keys.range(range)
    }

    /// Every newest version, in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Version> {
        self.keys.iter()
    }

    /// Asserts the invariants.
    pub(crate) fn check(&self) {
        assert!(
            self.revision >= Revision::FIRST,
            "the store begins at revision 1"
        );
        assert!(
            self.compacted <= self.revision,
            "compaction never exceeds the present"
        );
        self.keys.check();
        for version in self.keys.iter() {
            assert!(!version.key().is_empty(), "a key is never empty");
            assert!(version.number_of_puts() >= 1, "the first version is 1");
            assert!(
                version.create_revision() > Revision::FIRST,
                "revision 1 is the empty store"
            );
            assert!(
                version.create_revision() <= version.mod_revision(),
                "created, then changed"
            );
            assert!(
                version.mod_revision() <= self.revision,
                "nothing is newer than the store"
            );
            assert!(
                !self.tombstones.contains(version.key()),
                "a key exists or it does not"
            );
            if let Some(last) = self.recent.event(version.change()) {
                assert_eq!(
                    last.kv,
                    version.to_kv(),
                    "the last change made the newest version"
                );
            }
        }
        self.tombstones.check(self.revision);
        self.recent.check(self.revision);
    }

    /// The next change; the command's first one moves the revision.
    fn next_change(&mut self, write: &mut Write<'_>) -> ChangeId {
        if write.sub == 0 {
            self.revision = self.revision.next();
        }
        let sub = write.sub;
        write.sub += 1;
        (self.revision, sub)
    }

    /// The version at the revision before this one of a key whose newest version was `old`.
    ///
    /// They differ when this command has changed the key before (a nested transaction may put a key
    /// that a later one deletes): watchers see the revision as a whole.
    fn prev(&self, old: &Version) -> Option<KeyValue> {
        if old.mod_revision() < self.revision {
            return Some(old.to_kv());
        }
        match self.recent.past(old.change(), self.revision.prev()) {
            Past::Version(kv) => Some(kv.clone()),
            Past::Missing => None,
            Past::Unknown => unreachable!("this revision's changes are not evicted"),
        }
    }

    /// Hands out a change. `before` is the key's last one, `old` its version before if it existed.
    fn record(
        &mut self,
        write: &mut Write<'_>,
        change: ChangeId,
        event: Event,
        before: Option<ChangeId>,
        old: Option<&Version>,
    ) {
        assert_eq!(change.0, self.revision, "a change is made at the present");
        let event = Arc::new(event);
        self.recent.push(change, event.clone(), before);
        let previous = old.map(Version::change);
        write.changes.versions.push(Written {
            event,
            sub: change.1,
            previous,
        });
    }
}

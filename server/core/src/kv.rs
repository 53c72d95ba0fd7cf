//! What readers and watchers are given: a version of a key, and a change.

use bytes::Bytes;

use crate::{LeaseId, Revision};

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; may be empty.
    pub value: Bytes,
    /// Revision of the put that created the key (or created it again after a deletion).
    pub create_revision: Revision,
    /// Revision of the change that made this version.
    pub mod_revision: Revision,
    /// 1 for the put that created the key, then 2, 3, …
    pub version: i64,
    /// The lease that the key belongs to, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a key is put or deleted; there is no third thing"
)]
pub enum EventKind {
    /// The key was given a value.
    Put,
    /// The key was deleted, by a request or with its lease.
    Delete,
}

/// A change of one key, as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version. For a deletion only `key` and `mod_revision` are set.
    pub kv: KeyValue,
    /// The version before this change; none if the key did not exist, or if it is compacted.
    pub prev: Option<KeyValue>,
}

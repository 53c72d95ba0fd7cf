//! What commands changed, for storage to write and for watchers to be told.

use std::sync::Arc;

use crate::{Event, LeaseId, Revision};

/// The changes of one or of many commands that are then written in one batch.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Versions written, in order.
    pub versions: Vec<Written>,
    /// Leases granted (`Some` seconds) and gone (`None`), in order.
    pub leases: Vec<(LeaseId, Option<i64>)>,
    /// The store was compacted up to here.
    pub compacted: Option<Revision>,
    /// The alarms changed; write [`crate::State::alarms`].
    pub alarms: bool,
    /// What members publish changed; write [`crate::State::members`].
    pub members: bool,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
            && self.leases.is_empty()
            && self.compacted.is_none()
            && !self.alarms
            && !self.members
    }
}

/// One version written to storage.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its revision is `event.kv.mod_revision`.
    pub event: Arc<Event>,
    /// Orders the changes of one revision: 0, 1, 2, …
    pub sub: u32,
    /// The revision and sub-revision of the version before, if the key existed.
    pub previous: Option<(Revision, u32)>,
}

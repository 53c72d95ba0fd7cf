//! Who has something and who waits for it, for people who look.

use bytes::Bytes;

use crate::types::{KeyValue, LeaseId, Revision};

/// Somebody who has it or waits for it: for people who look.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contender {
    /// His key.
    pub key: Bytes,
    /// Who he says he is.
    pub identity: Bytes,
    /// Since when he contends.
    pub since: Revision,
    /// The lease with which his key goes.
    pub lease: Option<LeaseId>,
    /// How many came before him and are still there.
    pub position: usize,
    /// Whether his turn has come. He may not know it yet, or be dead until his lease ends.
    pub is_holder: bool,
}

impl Contender {
    pub(super) fn new(kv: KeyValue, position: usize, is_holder: bool) -> Self {
        Self {
            key: kv.key,
            identity: kv.value,
            since: kv.create_revision,
            lease: kv.lease,
            position,
            is_holder,
        }
    }
}

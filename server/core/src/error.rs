//! What a user can do wrong, or ask for too early or too late.

use crate::Revision;

/// Why a command or a query was refused. A refused command changes nothing, on every member alike.
///
/// The server gives each its etcd code and text in one table, `server/wire/src/refusal.rs`; a new one
/// needs an entry there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The revision is below the last compaction.
    #[error("revision is compacted; the oldest readable one is {oldest}")]
    Compacted {
        /// The revision of the last compaction, still readable.
        oldest: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision is in the future; the current one is {current}")]
    FutureRevision {
        /// The store's revision.
        current: Revision,
    },
    /// A key of no bytes. The API refuses it before; a log may hold what an older version let pass.
    #[error("a key is empty")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// The lease does not exist (any more).
    #[error("lease not found")]
    LeaseNotFound,
    /// A lease with the chosen id exists.
    #[error("lease already exists")]
    LeaseExists,
    /// A lease is asked to live longer than any may.
    #[error("lease time to live is too large")]
    LeaseTtlTooLarge,
    /// A lease is asked to live no second. The API lengthens it before; a log may hold what an older
    /// version let pass.
    #[error("lease time to live is not positive")]
    LeaseTtlNotPositive,
    /// Writes that need space are refused until the alarm is disarmed.
    #[error("database space exceeded")]
    NoSpace,
    /// A member holds data that differs from the others'; everything that changes state is refused.
    #[error("corrupt cluster")]
    Corrupt,
}

//! What can be replicated, and its bytes in the log.
//!
//! The wire is parsed into these types before anything is proposed (`server/wire/src/parse.rs`), so
//! a command is well-formed by construction: keys are not empty, duplicate keys and operation
//! counts have been checked, unknown enum values have been resolved. Only what depends on the state
//! (leases, revisions, `ignore_value`) is decided in [`crate::State::apply`].

mod batch;
mod codec;
mod decode;
mod encode;
mod size;

use bytes::Bytes;

use crate::{KeyRange, LeaseId, MemberId, Revision};

pub use batch::{Batch, DecodeError, NESTING_MAX};

/// One replicated request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Gives a key a value.
    Put(Put),
    /// Deletes the keys of a range.
    DeleteRange(DeleteRange),
    /// Compares, then runs one of two branches, all at one revision.
    Txn(Txn),
    /// Drops history below a revision.
    Compact {
        /// The oldest revision that stays readable.
        revision: Revision,
    },
    /// Creates a lease.
    LeaseGrant {
        /// Chosen by the client, or by the member that proposed it.
        id: LeaseId,
        /// Seconds; already raised to the minimum.
        ttl: i64,
    },
    /// Ends a lease, by request or because its time is up, and deletes its keys at one revision.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// Raises or clears an alarm.
    Alarm(AlarmChange),
    /// Publishes what a member says of itself.
    PublishMember {
        /// The member.
        id: MemberId,
        /// Its human-readable name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
}

/// Gives a key a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Not empty.
    pub key: Bytes,
    /// The new value.
    pub value: Bytes,
    /// The lease to attach to; [`LeaseId::NONE`] detaches the key from the lease it had.
    pub lease: LeaseId,
    /// Answer with the version before.
    pub prev_kv: bool,
    /// Keep the present value (`value` is empty); the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease (`lease` is none); the key must exist.
    pub ignore_lease: bool,
}

/// Deletes the keys of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRange {
    /// What to delete.
    pub range: KeyRange,
    /// Answer with the deleted versions.
    pub prev_kv: bool,
}

/// A transaction: all compares hold → `success`, else `failure`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// Evaluated on the state before the transaction.
    pub compare: Vec<Compare>,
    /// Run when every compare holds.
    pub success: Vec<Op>,
    /// Run when one does not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Whether neither branch can change anything.
    pub fn is_read_only(&self) -> bool {
        self.ops().all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::DeleteRange(_) => false,
            Op::Txn(txn) => txn.is_read_only(),
        })
    }

    /// Whether either branch has a put, on any level.
    pub fn has_put(&self) -> bool {
        self.ops().any(|op| match op {
            Op::Put(_) => true,
            Op::Range(_) | Op::DeleteRange(_) => false,
            Op::Txn(txn) => txn.has_put(),
        })
    }

    fn ops(&self) -> impl Iterator<Item = &Op> {
        self.success.iter().chain(&self.failure)
    }
}

/// One operation of a transaction's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's oneof; a new one must be handled"
)]
pub enum Op {
    /// Read.
    Range(Range),
    /// Write.
    Put(Put),
    /// Delete.
    DeleteRange(DeleteRange),
    /// A transaction within; its compares see the state before the outermost one.
    Txn(Txn),
}

/// A condition on every key of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// One key, or several: then the condition must hold for each. No key at all counts as one
    /// key that does not exist.
    pub range: KeyRange,
    /// What is compared with what.
    pub target: CompareTarget,
    /// How.
    pub relation: Relation,
}

/// The field of a version that a [`Compare`] looks at, and the value it is compared with.
///
/// A key that does not exist has version, revisions and lease 0, and no value: a comparison with
/// the value of a missing key is false whatever the relation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's enum; a new one must be handled"
)]
pub enum CompareTarget {
    /// `version`.
    Version(i64),
    /// `create_revision`.
    CreateRevision(i64),
    /// `mod_revision`.
    ModRevision(i64),
    /// The value's bytes.
    Value(Bytes),
    /// `lease`.
    Lease(i64),
    /// A target this version does not know: counts as equal, as etcd has it.
    Unknown,
}

/// How a [`Compare`] relates the stored field (left) to the given value (right).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's enum; a new one must be handled"
)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Stored is greater.
    Greater,
    /// Stored is less.
    Less,
    /// Not equal.
    NotEqual,
    /// A relation this version does not know: the comparison is true, as etcd has it (but for the
    /// value of a missing key).
    Unknown,
}

/// A read of the keys of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// What to read.
    pub range: KeyRange,
    /// At most so many keys; 0 is no limit.
    pub limit: usize,
    /// The revision to read at; none and 0 read the present. A negative one is compacted, as etcd
    /// has it within transactions; outside of them the parser takes it for none.
    pub revision: Option<Revision>,
    /// How to sort, and by what.
    pub sort: Sort,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Inclusive bounds; 0 is off.
    pub min_mod_revision: i64,
    /// Inclusive bounds; 0 is off.
    pub max_mod_revision: i64,
    /// Inclusive bounds; 0 is off.
    pub min_create_revision: i64,
    /// Inclusive bounds; 0 is off.
    pub max_create_revision: i64,
}

impl Range {
    /// A read of `range` with every option off.
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: None,
            sort: Sort {
                order: SortOrder::None,
                target: SortTarget::Key,
            },
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
    /// Whether no bound on revisions leaves keys out.
    pub fn is_unfiltered(&self) -> bool {
        self.min_mod_revision == 0
            && self.max_mod_revision == 0
            && self.min_create_revision == 0
            && self.max_create_revision == 0
    }
}

/// The order of a read's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// Direction. With [`SortOrder::None`], a limit, no filters and a target other than the key, the
    /// first `limit + 1` keys in key order are sorted ascending by the target, and `limit` of these
    /// are the answer, as etcd has it.
    pub order: SortOrder,
    /// What to sort by; ties stay in key order.
    pub target: SortTarget,
}

/// Direction of a [`Sort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's enum; a new one must be handled"
)]
pub enum SortOrder {
    /// Not asked for.
    None,
    /// Smallest first.
    Ascend,
    /// Greatest first.
    Descend,
}

/// What a [`Sort`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's enum; a new one must be handled"
)]
pub enum SortTarget {
    /// The key.
    Key,
    /// `version`.
    Version,
    /// `create_revision`.
    Create,
    /// `mod_revision`.
    Mod,
    /// The value's bytes.
    Value,
}

/// Raises or clears an alarm of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmChange {
    /// Raise, or clear.
    pub activate: bool,
    /// Whose alarm; clearing one that is not raised clears nothing.
    pub member: MemberId,
    /// Which alarm.
    pub kind: AlarmKind,
}

/// What is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's enum; a new one must be handled"
)]
pub enum AlarmKind {
    /// Its database has reached the quota.
    NoSpace,
    /// Its data differs from the others'.
    Corrupt,
}

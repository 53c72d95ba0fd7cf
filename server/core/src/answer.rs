//! What commands and reads answer.

use bytes::Bytes;

use crate::command::AlarmKind;
use crate::{Error, KeyValue, LeaseId, MemberId, Revision};

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The revision of the command's changes, or the store's if it changed nothing.
    pub revision: Revision,
    /// What it did, or why it was refused.
    pub result: Result<Answer, Error>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Of [`crate::Command::Put`].
    Put(PutAnswer),
    /// Of [`crate::Command::DeleteRange`].
    DeleteRange(DeleteAnswer),
    /// Of [`crate::Command::Txn`].
    Txn(TxnAnswer),
    /// Of [`crate::Command::LeaseGrant`].
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Seconds granted.
        ttl: i64,
    },
    /// Of [`crate::Command::Alarm`]: the alarms that it raised (or found raised) or cleared.
    Alarms(Vec<(MemberId, AlarmKind)>),
    /// Of the others, which have nothing to tell.
    Done,
}

/// The answer to a put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutAnswer {
    /// The version before, if asked for and there was one.
    pub prev: Option<KeyValue>,
}

/// The answer to a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteAnswer {
    /// How many keys were deleted.
    pub deleted: usize,
    /// The deleted versions in key order, if asked for.
    pub prev: Vec<KeyValue>,
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeAnswer {
    /// The keys, sorted and limited as asked.
    pub kvs: Vec<KeyValue>,
    /// Whether keys were left out because of the limit.
    pub more: bool,
    /// How many keys the range holds, whatever the limit and the revision filters.
    pub count: usize,
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnAnswer {
    /// Whether every compare held.
    pub succeeded: bool,
    /// One answer for each operation of the branch taken, in order.
    pub responses: Vec<OpAnswer>,
}

/// The answer to one operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpAnswer {
    /// For the header of the inner response: the store's revision as the operation left it.
    pub revision: Revision,
    /// What it did.
    pub result: OpResult,
}

/// What one operation of a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire's oneof; a new one must be handled"
)]
pub enum OpResult {
    /// A read.
    Range(RangeAnswer),
    /// A put.
    Put(PutAnswer),
    /// A deletion.
    DeleteRange(DeleteAnswer),
    /// A nested transaction.
    Txn(TxnAnswer),
}

/// A part of a range, read at a pinned revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys in key order; may be fewer than the limit, even none, although there is a next page.
    pub kvs: Vec<KeyValue>,
    /// Where the next page starts; none if this was the last.
    pub next: Option<Bytes>,
}

/// A part of the count of a range at a pinned revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    /// How many keys this part of the range holds.
    pub count: usize,
    /// Where the next part starts; none if this was the last.
    pub next: Option<Bytes>,
}

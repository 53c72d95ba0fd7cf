//! The whole replicated state, and the only function that changes it (skeleton).

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{AlarmChange, AlarmKind, Command, Range, Txn};
use crate::{
    Error, Event, History, KeyRange, KeyValue, LeaseId, MemberId, Revision, RevisionEvents,
};

/// The replicated state of one member.
#[derive(Debug)]
pub struct State {}

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
    /// Of [`Command::Put`] .
    Put(PutAnswer),
    /// Of [`Command::DeleteRange`].
    DeleteRange(DeleteAnswer),
    /// Of [`Command::Txn`].
    Txn(TxnAnswer),
    /// Of [`Command::LeaseGrant`].
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Seconds granted.
        ttl: i64,
    },
    /// Of [`Command::Alarm`]: the alarms that were raised or cleared by it.
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
#[expect(clippy::exhaustive_enums, reason = "the wire's oneof; a new one must be handled")]
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

/// What commands changed, for storage to write and for watchers to be told.
///
/// One value may gather the changes of many commands that are then written in one batch.
#[derive(Debug, Default)]
pub struct Changes {
    /// Versions written, in order.
    pub versions: Vec<Written>,
    /// Leases granted (`Some` seconds) and gone (`None`), in order.
    pub leases: Vec<(LeaseId, Option<i64>)>,
    /// The store was compacted up to here.
    pub compacted: Option<Revision>,
    /// The alarms changed; write [`State::alarms`].
    pub alarms: bool,
    /// What members publish changed; write [`State::members`].
    pub members: bool,
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

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    /// Human-readable name.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// A part of a range, read at a pinned revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys in key order.
    pub kvs: Vec<KeyValue>,
    /// Where the next page starts; none if this was the last.
    pub next: Option<Bytes>,
}

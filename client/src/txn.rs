//! Transactions: comparisons, and what is done if they all hold, or else.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::etcdserverpb::response_op::Response;

use crate::call::{Call, Repeat};
use crate::client::{Client, awaited};
use crate::error::{Error, ErrorKind, Outcome};
use crate::kv::{Deleted, PutResult, RangePage};
use crate::op::Op;
use crate::types::{IntoBytes, KeyRange, LeaseId, Revision, revision_of};

/// A condition on one key, or on every key of a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    range: KeyRange,
    result: CompareResult,
    target: CompareTarget,
    operand: TargetUnion,
}

/// What of a key is compared. A key that is not there has version 0 and revisions 0, and fails every
/// comparison of its value.
#[derive(Debug, Clone)]
pub struct Subject<T> {
    range: KeyRange,
    target: CompareTarget,
    operand: fn(T) -> TargetUnion,
    of: PhantomData<T>,
}

impl Compare {
    /// How often the key was written since it was created: 0 if it is not there.
    pub fn version(range: impl Into<KeyRange>) -> Subject<i64> {
        Subject::new(range, CompareTarget::Version, TargetUnion::Version)
    }

    /// When the key was created: [`Revision::UNKNOWN`] if it is not there.
    pub fn create_revision(range: impl Into<KeyRange>) -> Subject<Revision> {
        Subject::new(range, CompareTarget::Create, |revision: Revision| {
            TargetUnion::CreateRevision(revision.get())
        })
    }

    /// When the key was last written: [`Revision::UNKNOWN`] if it is not there.
    pub fn mod_revision(range: impl Into<KeyRange>) -> Subject<Revision> {
        Subject::new(range, CompareTarget::Mod, |revision: Revision| {
            TargetUnion::ModRevision(revision.get())
        })
    }

    /// The lease that the key goes with.
    pub fn lease(range: impl Into<KeyRange>) -> Subject<LeaseId> {
        Subject::new(range, CompareTarget::Lease, |lease: LeaseId| {
            TargetUnion::Lease(lease.get())
        })
    }

    /// What the key holds.
    pub fn value(range: impl Into<KeyRange>) -> Subject<Bytes> {
        Subject::new(range, CompareTarget::Value, TargetUnion::Value)
    }

    /// The key is there.
    pub fn exists(key: impl IntoBytes) -> Self {
        Self::create_revision(KeyRange::key(key)).gt(Revision::UNKNOWN)
    }

    /// The key is not there.
    pub fn absent(key: impl IntoBytes) -> Self {
        Self::create_revision(KeyRange::key(key)).eq(Revision::UNKNOWN)
    }

    fn to_wire(&self, namespace: &Bytes) -> pb::Compare {
        let (key, range_end) = self.range.to_wire(namespace);
        pb::Compare {
            result: self.result.into(),
            target: self.target.into(),
            key,
            range_end,
            target_union: Some(self.operand.clone()),
        }
    }
}

/// What a [`Subject`] can be compared with.
pub trait Operand<T> {
    /// The operand itself.
    fn into_operand(self) -> T;
}

impl Operand<i64> for i64 {
    fn into_operand(self) -> i64 {
        self
    }
}

impl Operand<Revision> for Revision {
    fn into_operand(self) -> Revision {
        self
    }
}

impl<L: Into<LeaseId>> Operand<LeaseId> for L {
    fn into_operand(self) -> LeaseId {
        self.into()
    }
}

impl<B: IntoBytes> Operand<Bytes> for B {
    fn into_operand(self) -> Bytes {
        self.into_bytes()
    }
}

impl<T> Subject<T> {
    fn new(
        range: impl Into<KeyRange>,
        target: CompareTarget,
        operand: fn(T) -> TargetUnion,
    ) -> Self {
        Self {
            range: range.into(),
            target,
            operand,
            of: PhantomData,
        }
    }

    fn compared(self, result: CompareResult, operand: impl Operand<T>) -> Compare {
        Compare {
            range: self.range,
            result,
            target: self.target,
            operand: (self.operand)(operand.into_operand()),
        }
    }

    /// It equals `operand`.
    pub fn eq(self, operand: impl Operand<T>) -> Compare {
        self.compared(CompareResult::Equal, operand)
    }

    /// It does not equal `operand`.
    pub fn ne(self, operand: impl Operand<T>) -> Compare {
        self.compared(CompareResult::NotEqual, operand)
    }

    /// It is greater than `operand`.
    pub fn gt(self, operand: impl Operand<T>) -> Compare {
        self.compared(CompareResult::Greater, operand)
    }

    /// It is less than `operand`.
    pub fn lt(self, operand: impl Operand<T>) -> Compare {
        self.compared(CompareResult::Less, operand)
    }
}

/// A transaction as an operation.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "an operation does nothing outside of a transaction"]
pub struct TxnOp {
    compare: Vec<Compare>,
    success: Vec<Op>,
    failure: Vec<Op>,
}

/// The parts of a transaction, for an operation and for a call alike.
macro_rules! txn_parts {
    ($($txn:ident)?) => {
        /// Adds a condition; all must hold.
        pub fn when(mut self, compare: Compare) -> Self {
            self.$($txn.)?compare.push(compare);
            self
        }

        /// Adds what is done if all conditions hold.
        pub fn then(mut self, op: impl Into<Op>) -> Self {
            self.$($txn.)?success.push(op.into());
            self
        }

        /// Adds what is done if one does not hold.
        pub fn or_else(mut self, op: impl Into<Op>) -> Self {
            self.$($txn.)?failure.push(op.into());
            self
        }
    };
}

impl TxnOp {
    txn_parts!();

    pub(crate) fn only_reads(&self) -> bool {
        self.success.iter().chain(&self.failure).all(Op::only_reads)
    }

    pub(crate) fn to_wire(&self, namespace: &Bytes) -> pb::TxnRequest {
        let ops = |ops: &[Op]| ops.iter().map(|op| op.to_wire(namespace)).collect();
        pb::TxnRequest {
            compare: self.compare.iter().map(|c| c.to_wire(namespace)).collect(),
            success: ops(&self.success),
            failure: ops(&self.failure),
        }
    }
}

/// A transaction on its way: add parts, then await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Txn {
    client: Client,
    op: TxnOp,
    deadline: Option<Duration>,
    is_repeatable: bool,
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TxnResult {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The store's revision after it.
    pub revision: Revision,
    /// One for each operation of the branch that was taken.
    pub results: Vec<OpResult>,
    /// Whose revision it is.
    pub(crate) cluster: u64,
}

/// What came of one operation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum OpResult {
    /// Of a write.
    Put(PutResult),
    /// Of a read.
    Range(RangePage),
    /// Of a deletion.
    Delete(Deleted),
    /// Of a transaction within.
    Txn(TxnResult),
}

impl OpResult {
    /// What was read, if it was a read.
    pub fn into_range(self) -> Option<RangePage> {
        match self {
            Self::Range(page) => Some(page),
            Self::Put(_) | Self::Delete(_) | Self::Txn(_) => None,
        }
    }
}

impl Txn {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            op: TxnOp::default(),
            deadline: None,
            is_repeatable: false,
        }
    }

    /// Its conditions fail once it has taken place, or it changes nothing the second time: it may be
    /// sent again when nobody knows what became of it.
    pub(crate) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    txn_parts!(op);

    /// How long it may take. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn send(self) -> Result<TxnResult, Error> {
        let repeat = match (self.op.only_reads(), self.is_repeatable) {
            (true, _) => Repeat::Reads,
            (false, true) => Repeat::Safe,
            (false, false) => Repeat::Never,
        };
        let call = Call::new("txn", repeat);
        let namespace = self.client.namespace_bytes().clone();
        let request = self.op.to_wire(&namespace);
        let seen = self.client.transport().seen();
        // One that only reads may be answered by a member that lags.
        let least = match repeat {
            Repeat::Reads => Revision::UNKNOWN,
            Repeat::Safe | Repeat::Never => seen,
        };
        let limit = self.client.response_bytes_max();
        let answer = self
            .client
            .unary(
                call.within(self.deadline),
                request,
                move |channel, request| async move {
                    KvClient::new(channel)
                        .max_decoding_message_size(limit)
                        .txn(request)
                        .await
                },
            )
            .await?;
        let header = answer.header.as_ref();
        let transport = self.client.transport();
        transport.saw_in_order(seen, least, header);
        TxnResult::from_wire(answer, namespace.len()).ok_or_else(|| {
            let message = "the server sent a result without its content";
            Error::new(ErrorKind::Internal, "txn", message).outcome_is(Outcome::Applied)
        })
    }
}

awaited!(Txn => TxnResult);

impl TxnResult {
    /// None if the server left something out.
    fn from_wire(answer: pb::TxnResponse, hidden: usize) -> Option<Self> {
        let revision = revision_of(answer.header.as_ref());
        let cluster = answer.header.map_or(0, |header| header.cluster_id);
        let result = |op: pb::ResponseOp| {
            Some(match op.response? {
                Response::ResponsePut(put) => OpResult::Put(PutResult::from_wire(put, hidden)),
                Response::ResponseRange(range) => {
                    OpResult::Range(RangePage::from_wire(range, hidden))
                }
                Response::ResponseDeleteRange(deleted) => {
                    OpResult::Delete(Deleted::from_wire(deleted, hidden))
                }
                Response::ResponseTxn(txn) => OpResult::Txn(Self::from_wire(txn, hidden)?),
            })
        };
        Some(Self {
            succeeded: answer.succeeded,
            revision,
            results: answer
                .responses
                .into_iter()
                .map(result)
                .collect::<Option<_>>()?,
            cluster,
        })
    }
}

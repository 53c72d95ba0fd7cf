//! Operations: what can be asked of the store, alone or within a transaction.

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::request_op::Request;

use crate::txn::TxnOp;
use crate::types::prefixed;
use crate::types::{IntoBytes, KeyRange, Revision};

/// A write.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an operation does nothing outside of a transaction"]
pub struct PutOp {
    key: Bytes,
    request: pb::PutRequest,
}

/// A read.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an operation does nothing outside of a transaction"]
pub struct RangeOp {
    range: KeyRange,
    request: pb::RangeRequest,
}

/// A deletion.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an operation does nothing outside of a transaction"]
pub struct DeleteOp {
    range: KeyRange,
    request: pb::DeleteRangeRequest,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// Writes a key.
    Put(PutOp),
    /// Reads keys.
    Range(RangeOp),
    /// Deletes keys.
    Delete(DeleteOp),
    /// Another transaction.
    Txn(TxnOp),
}

/// What a range is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SortBy {
    /// The keys' bytes.
    Key,
    /// How often each was written.
    Version,
    /// When each was created.
    CreateRevision,
    /// When each was last written.
    ModRevision,
    /// The values' bytes.
    Value,
}

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SortOrder {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// The settings of a write, for an operation and for a call alike.
macro_rules! put_settings {
    ($($request:tt)+) => {
        /// The key goes when this lease ends. Default: it stays.
        pub fn lease(mut self, lease: impl Into<$crate::LeaseId>) -> Self {
            self.$($request)+.lease = lease.into().get();
            self
        }

        /// The result has what the key was before.
        pub fn prev_kv(mut self) -> Self {
            self.$($request)+.prev_kv = true;
            self
        }

        /// The key keeps its value; give an empty one. An error if the key is not there.
        pub fn ignore_value(mut self) -> Self {
            self.$($request)+.ignore_value = true;
            self
        }

        /// The key keeps its lease. An error if the key is not there.
        pub fn ignore_lease(mut self) -> Self {
            self.$($request)+.ignore_lease = true;
            self
        }
    };
}
pub(crate) use put_settings;

/// The settings of every read.
macro_rules! read_settings {
    ($($request:tt)+) => {
        /// Reads as of this revision. Default: the newest.
        pub fn at(mut self, revision: $crate::Revision) -> Self {
            self.$($request)+.revision = revision.get();
            self
        }

        /// Reads what the member that is asked has, without asking the leader: faster, possible
        /// without a leader, and maybe old.
        pub fn serializable(mut self) -> Self {
            self.$($request)+.serializable = true;
            self
        }

        /// Without the values.
        pub fn keys_only(mut self) -> Self {
            self.$($request)+.keys_only = true;
            self
        }
    };
}
pub(crate) use read_settings;

/// The settings of a read of several keys.
macro_rules! range_settings {
    ($($request:tt)+) => {
        $crate::op::read_settings!($($request)+);

        /// At most this many keys. Default: all.
        pub fn limit(mut self, keys: u32) -> Self {
            self.$($request)+.limit = keys.into();
            self
        }

        /// Only how many there are.
        pub fn count_only(mut self) -> Self {
            self.$($request)+.count_only = true;
            self
        }

        /// Default: by key, ascending.
        pub fn sort(mut self, by: $crate::SortBy, order: $crate::SortOrder) -> Self {
            self.$($request)+.set_sort_target(by.to_wire());
            self.$($request)+.set_sort_order(order.to_wire());
            self
        }

        /// Only keys last written at or after `first` and at or before `last`.
        pub fn modified(mut self, first: $crate::Revision, last: $crate::Revision) -> Self {
            self.$($request)+.min_mod_revision = first.get();
            self.$($request)+.max_mod_revision = last.get();
            self
        }

        /// Only keys created at or after `first` and at or before `last`.
        pub fn created(mut self, first: $crate::Revision, last: $crate::Revision) -> Self {
            self.$($request)+.min_create_revision = first.get();
            self.$($request)+.max_create_revision = last.get();
            self
        }
    };
}
pub(crate) use range_settings;

impl SortBy {
    pub(crate) fn to_wire(self) -> pb::range_request::SortTarget {
        use pb::range_request::SortTarget;
        match self {
            Self::Key => SortTarget::Key,
            Self::Version => SortTarget::Version,
            Self::CreateRevision => SortTarget::Create,
            Self::ModRevision => SortTarget::Mod,
            Self::Value => SortTarget::Value,
        }
    }
}

impl SortOrder {
    pub(crate) fn to_wire(self) -> pb::range_request::SortOrder {
        match self {
            Self::Ascending => pb::range_request::SortOrder::Ascend,
            Self::Descending => pb::range_request::SortOrder::Descend,
        }
    }
}

impl PutOp {
    pub(crate) fn new(key: impl IntoBytes, value: impl IntoBytes) -> Self {
        Self {
            key: key.into_bytes(),
            request: pb::PutRequest {
                value: value.into_bytes(),
                ..pb::PutRequest::default()
            },
        }
    }

    put_settings!(request);

    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(crate) fn request_mut(&mut self) -> &mut pb::PutRequest {
        &mut self.request
    }

    pub(crate) fn to_wire(&self, namespace: &Bytes) -> pb::PutRequest {
        pb::PutRequest {
            key: prefixed(namespace, &self.key),
            ..self.request.clone()
        }
    }
}

impl RangeOp {
    pub(crate) fn new(range: impl Into<KeyRange>) -> Self {
        Self {
            range: range.into(),
            request: pb::RangeRequest::default(),
        }
    }

    range_settings!(request);

    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.request.revision)
    }

    /// How many keys it may have at most; 0: all.
    pub(crate) fn keys_max(&self) -> i64 {
        self.request.limit
    }

    /// Whether servers have it as a stream: without filters. (Pages have no order of their own.)
    pub(crate) fn can_be_streamed(&self) -> bool {
        let request = &self.request;
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        filters == [0; 4]
    }

    pub(crate) fn is_serializable(&self) -> bool {
        self.request.serializable
    }

    /// The same, of the keys after `key` and at `revision`.
    pub(crate) fn continued(&self, key: &[u8], revision: Revision) -> Self {
        Self {
            range: self.range.after(key),
            request: self.request.clone(),
        }
        .at(revision)
    }

    pub(crate) fn request_mut(&mut self) -> &mut pb::RangeRequest {
        &mut self.request
    }

    pub(crate) fn to_wire(&self, namespace: &Bytes) -> pb::RangeRequest {
        let (key, range_end) = self.range.to_wire(namespace);
        pb::RangeRequest {
            key,
            range_end,
            ..self.request.clone()
        }
    }
}

impl DeleteOp {
    pub(crate) fn new(range: impl Into<KeyRange>) -> Self {
        Self {
            range: range.into(),
            request: pb::DeleteRangeRequest::default(),
        }
    }

    /// The result has what was deleted.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    pub(crate) fn to_wire(&self, namespace: &Bytes) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.range.to_wire(namespace);
        pb::DeleteRangeRequest {
            key,
            range_end,
            ..self.request.clone()
        }
    }
}

impl Op {
    /// Writes `key`.
    pub fn put(key: impl IntoBytes, value: impl IntoBytes) -> PutOp {
        PutOp::new(key, value)
    }

    /// Reads one key, or a [`KeyRange`].
    pub fn get(range: impl Into<KeyRange>) -> RangeOp {
        RangeOp::new(range)
    }

    /// Deletes one key, or a [`KeyRange`].
    pub fn delete(range: impl Into<KeyRange>) -> DeleteOp {
        DeleteOp::new(range)
    }

    /// A transaction within a transaction.
    pub fn txn() -> TxnOp {
        TxnOp::default()
    }

    /// Whether it changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Put(_) | Self::Delete(_) => false,
            Self::Range(_) => true,
            Self::Txn(txn) => txn.only_reads(),
        }
    }

    pub(crate) fn to_wire(&self, namespace: &Bytes) -> pb::RequestOp {
        let request = match self {
            Self::Put(put) => Request::RequestPut(put.to_wire(namespace)),
            Self::Range(range) => Request::RequestRange(range.to_wire(namespace)),
            Self::Delete(delete) => Request::RequestDeleteRange(delete.to_wire(namespace)),
            Self::Txn(txn) => Request::RequestTxn(txn.to_wire(namespace)),
        };
        pb::RequestOp {
            request: Some(request),
        }
    }
}

macro_rules! into_op {
    ($($from:ident => $variant:ident),*) => {$(
        impl From<$from> for Op {
            fn from(op: $from) -> Self {
                Self::$variant(op)
            }
        }
    )*};
}

into_op!(PutOp => Put, RangeOp => Range, DeleteOp => Delete, TxnOp => Txn);

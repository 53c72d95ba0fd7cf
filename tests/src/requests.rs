//! Requests in as few words as a test about something else wants to spend on them.

use bytes::Bytes;
use gonfalon_proto::etcdserverpb::compare::TargetUnion;
use gonfalon_proto::etcdserverpb::request_op::Request;
use gonfalon_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};

use crate::client::prefix_end;

/// The wire's pair for "every key": as a key, the first one; as an end, none.
pub const ZERO: &[u8] = b"\0";

/// Writes a value.
pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..PutRequest::default()
    }
}

/// Reads one key.
pub fn get(key: &str) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..RangeRequest::default()
    }
}

/// Reads every key.
pub fn get_all() -> RangeRequest {
    RangeRequest {
        key: ZERO.into(),
        range_end: ZERO.into(),
        ..RangeRequest::default()
    }
}

/// Deletes one key.
pub fn delete(key: &str) -> DeleteRangeRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    DeleteRangeRequest {
        key,
        ..DeleteRangeRequest::default()
    }
}

/// Deletes every key that begins with `prefix`.
pub fn delete_prefix(prefix: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        range_end: prefix_end(prefix),
        ..delete(prefix)
    }
}

/// Watches one key from now on.
pub fn watch(key: &str) -> WatchCreateRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    WatchCreateRequest {
        key,
        ..WatchCreateRequest::default()
    }
}

/// Watches every key that begins with `prefix`.
pub fn watch_prefix(prefix: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        range_end: prefix_end(prefix),
        ..watch(prefix)
    }
}

/// A transaction without a condition.
pub fn all_of(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

/// An operation of a transaction.
pub fn op(request: impl Into<Op>) -> RequestOp {
    RequestOp {
        request: Some(request.into().0),
    }
}

/// A condition: `result` and `target` by their numbers on the wire.
pub fn compare(key: &str, result: i32, target: i32, right: TargetUnion) -> Compare {
    Compare {
        result,
        target,
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(right),
        ..Compare::default()
    }
}

/// What [`op`] takes.
#[derive(Debug)]
pub struct Op(Request);

impl From<PutRequest> for Op {
    fn from(request: PutRequest) -> Self {
        Self(Request::RequestPut(request))
    }
}

impl From<RangeRequest> for Op {
    fn from(request: RangeRequest) -> Self {
        Self(Request::RequestRange(request))
    }
}

impl From<DeleteRangeRequest> for Op {
    fn from(request: DeleteRangeRequest) -> Self {
        Self(Request::RequestDeleteRange(request))
    }
}

impl From<TxnRequest> for Op {
    fn from(request: TxnRequest) -> Self {
        Self(Request::RequestTxn(request))
    }
}

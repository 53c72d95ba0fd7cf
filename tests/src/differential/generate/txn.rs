//! Transactions: compares of every kind, nesting, and all that may be wrong with them.

use bytes::Bytes;
use gonfalon_proto::etcdserverpb::compare::TargetUnion;
use gonfalon_proto::etcdserverpb::request_op::Request;
use gonfalon_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};
use rand::Rng;

use super::Generator;

/// Transactions inside transactions inside a transaction.
const DEPTH_MAX: u32 = 3;

impl Generator {
    pub(super) fn txn(&mut self) -> TxnRequest {
        if self.one_in(40) {
            return self.too_long();
        }
        let mut txn = self.txn_at(1);
        if deletes(&txn) {
            ignore_nothing(&mut txn);
        }
        txn
    }

    /// One without transactions within: older etcds do not count what those would take of the quota
    /// (3.7.1 does).
    pub(super) fn flat_txn(&mut self) -> TxnRequest {
        let mut txn = self.txn();
        let is_flat = |op: &RequestOp| !matches!(op.request, Some(Request::RequestTxn(_)));
        txn.success.retain(is_flat);
        txn.failure.retain(is_flat);
        txn
    }

    fn txn_at(&mut self, depth: u32) -> TxnRequest {
        let compares = self.rng.random_range(0..4);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    fn branch(&mut self, depth: u32) -> Vec<RequestOp> {
        let ops = self.rng.random_range(0..4);
        (0..ops).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u32) -> RequestOp {
        let request = match self.rng.random_range(0..20) {
            0..7 => Some(Request::RequestPut(self.put())),
            7..11 => Some(Request::RequestDeleteRange(self.delete())),
            11..16 => Some(Request::RequestRange(self.range_in_txn())),
            16..19 if depth < DEPTH_MAX => Some(Request::RequestTxn(self.txn_at(depth + 1))),
            // No request at all.
            _ if self.one_in(4) => None,
            _ => Some(Request::RequestPut(self.put())),
        };
        RequestOp { request }
    }

    /// Sort options that do not exist are refused by new servers and accepted by old ones: a
    /// transaction that changes something would leave the two with different stores.
    fn range_in_txn(&mut self) -> gonfalon_proto::etcdserverpb::RangeRequest {
        let mut range = self.range();
        range.sort_order = range.sort_order.clamp(0, 2);
        range.sort_target = range.sort_target.clamp(0, 4);
        if self.members > 1 {
            // Old etcds check revisions only on the member that answers: the others do the puts
            // before an impossible read all the same, and the reference's members differ.
            range.revision = 0;
        }
        range
    }

    fn compare(&mut self) -> Compare {
        let near = self.revision - self.rng.random_range(-1..20);
        let (target, right) = match self.rng.random_range(0..5) {
            0 => (0, TargetUnion::Version(self.rng.random_range(0..4))),
            1 => (1, TargetUnion::CreateRevision(self.pick(&[0, near]))),
            2 => (2, TargetUnion::ModRevision(self.pick(&[0, near]))),
            3 => (3, TargetUnion::Value(self.small_value())),
            _ => (4, TargetUnion::Lease(self.lease_of_key())),
        };
        // A target that the value does not belong to, or that nobody knows.
        let target = if self.one_in(25) {
            self.rng.random_range(-1..7)
        } else {
            target
        };
        let known = self.rng.random_range(0..4);
        let result = if self.one_in(40) {
            self.pick(&[-1, 4, 99])
        } else {
            known
        };
        let (key, range_end) = self.interval();
        let range_end = if self.one_in(3) {
            range_end
        } else {
            Bytes::new()
        };
        let target_union = if self.one_in(40) { None } else { Some(right) };
        Compare {
            result,
            target,
            key,
            range_end,
            target_union,
        }
    }

    fn small_value(&mut self) -> Bytes {
        format!("v{}", self.rng.random_range(0..20)).into()
    }

    /// Around `--max-txn-ops`, also by the sum of nested ones.
    fn too_long(&mut self) -> TxnRequest {
        let one = self.rng.random_range(120..132);
        let (key, range_end) = self.interval();
        let read = Request::RequestRange(gonfalon_proto::etcdserverpb::RangeRequest {
            key,
            range_end,
            ..gonfalon_proto::etcdserverpb::RangeRequest::default()
        });
        let read = RequestOp {
            request: Some(read),
        };
        if self.one_in(2) {
            return TxnRequest {
                success: vec![read; one],
                ..TxnRequest::default()
            };
        }
        let inner = TxnRequest {
            failure: vec![read.clone(); one],
            ..TxnRequest::default()
        };
        let mut success = vec![RequestOp {
            request: Some(Request::RequestTxn(inner)),
        }];
        success.extend(std::iter::repeat_n(read, self.rng.random_range(0..8)));
        TxnRequest {
            success,
            ..TxnRequest::default()
        }
    }
}

/// Whether a transaction may delete something, in whatever branch.
fn deletes(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| match &op.request {
            Some(Request::RequestDeleteRange(_)) => true,
            Some(Request::RequestTxn(nested)) => deletes(nested),
            _ => false,
        })
}

/// etcd dies of a put that keeps the value or the lease of a key which the same transaction has
/// deleted before: it has checked that the key exists, and panics when it does not any more.
fn ignore_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => {
                (put.ignore_value, put.ignore_lease) = (false, false);
            }
            Some(Request::RequestTxn(nested)) => ignore_nothing(nested),
            _ => {}
        }
    }
}

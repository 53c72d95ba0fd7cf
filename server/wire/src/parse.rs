//! Wire → commands and reads; the only place that validates what clients send.
//!
//! What comes out is well-formed: keys are not empty, enums are known, a transaction is within its
//! limits and puts no key twice. What depends on the state (leases, revisions, `ignore_value`) is
//! left to the core. Where etcd is odd, this is odd in the same way, and says so.

mod overlap;

use bytes::Bytes;
use gonfalon_core::command::{
    Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation, Sort, SortOrder, SortTarget, Txn,
};
use gonfalon_core::watch::{Filter, Spec, WatchId};
use gonfalon_core::{KeyRange, LeaseId, Revision};
use gonfalon_proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;
use prost::Message as _;

use crate::Refusal;

/// How much one request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a write, encoded, with what etcd puts around it.
    pub request_bytes: usize,
    /// Operations of a transaction: the longest of its three lists, plus that of those within.
    pub txn_ops: usize,
    /// Seconds; a lease that asks for less is given these.
    pub lease_ttl_min: i64,
}

/// A read, and what its answer may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// What to read.
    pub range: Range,
    /// What this member has is good enough, even if it is stale.
    pub serializable: bool,
}

/// A transaction, and the way it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// What to do.
    pub txn: Txn,
    /// What that may change.
    pub effect: Effect,
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Change something: it goes through the log. One with a transaction within counts as such.
    Write,
    /// Read only.
    Read {
        /// Every range of both branches is serializable.
        serializable: bool,
    },
}

/// A read of a range. A negative revision means the present, as 0 does.
pub fn range(request: pb::RangeRequest) -> Result<Read, Refusal> {
    let serializable = request.serializable;
    let mut range = range_op(request)?;
    range.revision = range.revision.filter(|revision| revision.get() > 0);
    Ok(Read {
        range,
        serializable,
    })
}

/// A read that is answered in pieces: in key order, and without filters.
pub fn range_stream(request: pb::RangeRequest) -> Result<Read, Refusal> {
    let read = range(request)?;
    // A target without an order changes nothing here: where the answer of a plain read would be
    // sorted by it, pieces cannot be sorted together, and come in key order.
    match read.range.sort {
        Sort {
            order: SortOrder::None,
            ..
        }
        | Sort {
            order: SortOrder::Ascend,
            target: SortTarget::Key,
        } => {}
        _ => return Err(Refusal::StreamSortOrder),
    }
    if !read.range.is_unfiltered() {
        return Err(Refusal::StreamRevisionFilter);
    }
    Ok(read)
}

/// A write of a key.
pub fn put(request: pb::PutRequest, limits: &Limits) -> Result<Put, Refusal> {
    let size = request.encoded_len();
    let put = put_op(request)?;
    within_size(size, limits)?;
    Ok(put)
}

/// A deletion.
pub fn delete(request: pb::DeleteRangeRequest, limits: &Limits) -> Result<DeleteRange, Refusal> {
    let size = request.encoded_len();
    let delete = delete_op(request)?;
    within_size(size, limits)?;
    Ok(delete)
}

/// A transaction.
pub fn txn(request: pb::TxnRequest, limits: &Limits) -> Result<Transaction, Refusal> {
    let effect = effect(&request);
    let size = if effect == Effect::Write {
        request.encoded_len()
    } else {
        0
    };
    let txn = txn_op(request, limits.txn_ops)?;
    overlap::check(&txn.success)?;
    overlap::check(&txn.failure)?;
    within_size(size, limits)?;
    Ok(Transaction { txn, effect })
}

/// What a watcher wants to be told. A start before all history is as good as compacted.
pub fn watch(request: &pb::WatchCreateRequest) -> Result<Spec, Refusal> {
    if request.start_revision < 0 {
        return Err(Refusal::Compacted);
    }
    let leaves_out = |kind| request.filters().any(|filter| filter == kind);
    let key = if request.key.is_empty() {
        Bytes::from_static(b"\0")
    } else {
        request.key.clone()
    };
    Ok(Spec {
        id: (request.watch_id != 0).then(|| WatchId::new(request.watch_id)),
        range: KeyRange::from_wire(key, request.range_end.clone()),
        start: (request.start_revision > 0).then(|| Revision::new(request.start_revision)),
        filter: Filter {
            no_put: leaves_out(FilterType::Noput),
            no_delete: leaves_out(FilterType::Nodelete),
        },
    })
}

/// The time to live that who asks for `seconds` is granted, unless it is too large for the core.
pub fn lease_ttl(seconds: i64, limits: &Limits) -> i64 {
    seconds.max(limits.lease_ttl_min)
}

fn within_size(size: usize, limits: &Limits) -> Result<(), Refusal> {
    if size + envelope_bytes(size) > limits.request_bytes {
        Err(Refusal::RequestTooLarge)
    } else {
        Ok(())
    }
}

/// What etcd counts around a request of `size` bytes: it measures what it puts into its log.
///
/// That has a header (3 bytes) with the request's number, whose upper 16 bits are the member's: 10
/// bytes with most members' ids, and one more or less with some. The request itself follows as a
/// field: a tag of one byte and its length.
fn envelope_bytes(size: usize) -> usize {
    3 + 10 + 1 + prost::length_delimiter_len(size)
}

fn effect(request: &pb::TxnRequest) -> Effect {
    let mut serializable = true;
    for op in request.success.iter().chain(&request.failure) {
        let Some(pb::request_op::Request::RequestRange(range)) = &op.request else {
            return Effect::Write;
        };
        serializable &= range.serializable;
    }
    Effect::Read { serializable }
}

/// `ops_left`: what the transactions around this one have left of the limit.
fn txn_op(request: pb::TxnRequest, ops_left: usize) -> Result<Txn, Refusal> {
    let ops = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let ops_left = ops_left.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
    let branch = |ops: Vec<pb::RequestOp>| {
        ops.into_iter()
            .map(|request| op(request, ops_left))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Txn {
        compare: request
            .compare
            .into_iter()
            .map(compare)
            .collect::<Result<_, _>>()?,
        success: branch(request.success)?,
        failure: branch(request.failure)?,
    })
}

fn op(request: pb::RequestOp, ops_left: usize) -> Result<Op, Refusal> {
    use pb::request_op::Request;
    Ok(match request.request.ok_or(Refusal::KeyNotFound)? {
        Request::RequestRange(range) => Op::Range(range_op(range)?),
        Request::RequestPut(put) => Op::Put(put_op(put)?),
        Request::RequestDeleteRange(delete) => Op::DeleteRange(delete_op(delete)?),
        Request::RequestTxn(txn) => Op::Txn(txn_op(txn, ops_left)?),
    })
}

/// A negative revision stays: within a transaction it is below every compaction.
fn range_op(request: pb::RangeRequest) -> Result<Range, Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let sort = sort(request.sort_order, request.sort_target)?;
    Ok(Range {
        range: KeyRange::from_wire(request.key, request.range_end),
        limit: usize::try_from(request.limit).unwrap_or(0),
        revision: (request.revision != 0).then(|| Revision::new(request.revision)),
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

fn sort(order: i32, target: i32) -> Result<Sort, Refusal> {
    use pb::range_request::{SortOrder as Order, SortTarget as Target};
    let order = match Order::try_from(order).map_err(|_| Refusal::InvalidSortOption)? {
        Order::None => SortOrder::None,
        Order::Ascend => SortOrder::Ascend,
        Order::Descend => SortOrder::Descend,
    };
    let target = match Target::try_from(target).map_err(|_| Refusal::InvalidSortOption)? {
        Target::Key => SortTarget::Key,
        Target::Version => SortTarget::Version,
        Target::Create => SortTarget::Create,
        Target::Mod => SortTarget::Mod,
        Target::Value => SortTarget::Value,
    };
    Ok(Sort { order, target })
}

fn put_op(request: pb::PutRequest) -> Result<Put, Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(Put {
        key: request.key,
        value: request.value,
        lease: LeaseId::new(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    })
}

fn delete_op(request: pb::DeleteRangeRequest) -> Result<DeleteRange, Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let range = KeyRange::from_wire(request.key, request.range_end);
    Ok(DeleteRange {
        range,
        prev_kv: request.prev_kv,
    })
}

fn compare(request: pb::Compare) -> Result<Compare, Refusal> {
    use pb::compare::{CompareResult, CompareTarget as Target, TargetUnion};
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let relation = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Err(_) => Relation::Unknown,
    };
    // A value that is not of the target's kind counts as the zero of that kind.
    let target = match (Target::try_from(request.target), request.target_union) {
        (Ok(Target::Version), Some(TargetUnion::Version(n))) => CompareTarget::Version(n),
        (Ok(Target::Version), _) => CompareTarget::Version(0),
        (Ok(Target::Create), Some(TargetUnion::CreateRevision(n))) => {
            CompareTarget::CreateRevision(n)
        }
        (Ok(Target::Create), _) => CompareTarget::CreateRevision(0),
        (Ok(Target::Mod), Some(TargetUnion::ModRevision(n))) => CompareTarget::ModRevision(n),
        (Ok(Target::Mod), _) => CompareTarget::ModRevision(0),
        (Ok(Target::Value), Some(TargetUnion::Value(bytes))) => CompareTarget::Value(bytes),
        (Ok(Target::Value), _) => CompareTarget::Value(Bytes::new()),
        (Ok(Target::Lease), Some(TargetUnion::Lease(n))) => CompareTarget::Lease(n),
        (Ok(Target::Lease), _) => CompareTarget::Lease(0),
        (Err(_), _) => CompareTarget::Unknown,
    };
    Ok(Compare {
        range: KeyRange::from_wire(request.key, request.range_end),
        target,
        relation,
    })
}

#[cfg(test)]
mod tests;

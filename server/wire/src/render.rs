//! What the core answers → the wire's responses.
//!
//! Keys and values are shared, not copied.

use gonfalon_core::watch::CreateError;
use gonfalon_core::{
    DeleteAnswer, KeyValue, OpAnswer, OpResult, PutAnswer, RangeAnswer, TxnAnswer,
};
use gonfalon_proto::{etcdserverpb as pb, mvccpb};

/// A version of a key.
pub fn kv(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.get(),
        mod_revision: kv.mod_revision.get(),
        version: kv.version,
        value: kv.value,
        lease: kv.lease.get(),
    }
}

/// Versions of keys.
///
/// The two kinds of version have the same layout, so this reuses the list's memory.
pub fn kvs(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(kv).collect()
}

/// The answer to a read.
pub fn range(answer: RangeAnswer, header: pb::ResponseHeader) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: kvs(answer.kvs),
        more: answer.more,
        count: count(answer.count),
    }
}

/// The answer to a write.
pub fn put(answer: PutAnswer, header: pb::ResponseHeader) -> pb::PutResponse {
    pb::PutResponse {
        header: Some(header),
        prev_kv: answer.prev.map(kv),
    }
}

/// The answer to a deletion.
pub fn delete(answer: DeleteAnswer, header: pb::ResponseHeader) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: count(answer.deleted),
        prev_kvs: kvs(answer.prev),
    }
}

/// The answer to a transaction.
pub fn txn(answer: TxnAnswer, header: pb::ResponseHeader) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: answer.succeeded,
        responses: answer.responses.into_iter().map(op).collect(),
    }
}

/// The headers within a transaction have a revision and nothing else; that of a transaction within
/// has not even that.
fn op(answer: OpAnswer) -> pb::ResponseOp {
    use pb::response_op::Response;
    let header = pb::ResponseHeader {
        revision: answer.revision.get(),
        ..Default::default()
    };
    let response = match answer.result {
        OpResult::Range(answer) => Response::ResponseRange(range(answer, header)),
        OpResult::Put(answer) => Response::ResponsePut(put(answer, header)),
        OpResult::DeleteRange(answer) => Response::ResponseDeleteRange(delete(answer, header)),
        OpResult::Txn(answer) => Response::ResponseTxn(txn(answer, pb::ResponseHeader::default())),
    };
    pb::ResponseOp {
        response: Some(response),
    }
}

/// A number of keys.
pub fn count(count: usize) -> i64 {
    i64::try_from(count).expect("fewer keys than fit in memory")
}

/// Why a watcher was not created: what a client reads as the reason of its cancellation.
pub fn not_created(error: CreateError) -> &'static str {
    match error {
        CreateError::EmptyRange => "mvcc: watcher range is empty",
        CreateError::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
    }
}

#[cfg(test)]
mod tests {
    use gonfalon_core::{LeaseId, Revision};

    use super::*;

    #[test]
    fn a_list_of_versions_keeps_its_memory() {
        let list: Vec<KeyValue> = (1..=100)
            .map(|number| KeyValue {
                mod_revision: Revision::new(number),
                lease: LeaseId::new(-number),
                ..KeyValue::default()
            })
            .collect();
        let before = list.as_ptr().addr();
        let list = kvs(list);
        assert_eq!(list.as_ptr().addr(), before, "the list was copied");
        assert_eq!((list[99].mod_revision, list[99].lease), (100, -100));
    }

    #[test]
    fn headers_within_a_transaction_have_only_a_revision() {
        let inner = |result| OpAnswer {
            revision: Revision::new(7),
            result,
        };
        let answer = TxnAnswer {
            succeeded: true,
            responses: vec![
                inner(OpResult::Put(PutAnswer::default())),
                inner(OpResult::Txn(TxnAnswer::default())),
            ],
        };
        let header = pb::ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision: 7,
            raft_term: 3,
        };
        let response = txn(answer, header);
        assert_eq!(response.header, Some(header));
        let headers: Vec<_> = response
            .responses
            .into_iter()
            .map(|op| match op.response.unwrap() {
                pb::response_op::Response::ResponsePut(put) => put.header,
                pb::response_op::Response::ResponseTxn(txn) => txn.header,
                other => panic!("nobody asked for {other:?}"),
            })
            .collect();
        let revision_only = pb::ResponseHeader {
            revision: 7,
            ..Default::default()
        };
        assert_eq!(
            headers,
            [Some(revision_only), Some(pb::ResponseHeader::default())]
        );
    }
}

//! Ranges and transactions of a real member, over gRPC.

use gonfalon_proto::etcdserverpb::request_op::Request;
use gonfalon_proto::etcdserverpb::{
    CompactionRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
};
use prost::Message as _;
use tonic::Code;

use crate::member::Member;

/// More than fit into two pages.
const KEYS: u16 = 2_500;

async fn fill(member: &Member) {
    let keys: Vec<u16> = (0..KEYS).collect();
    for keys in keys.chunks(100) {
        let put = |key: &u16| {
            let (key, value) = (
                format!("k{key:05}").into(),
                "v".repeat((key % 50).into()).into(),
            );
            RequestOp {
                request: Some(Request::RequestPut(PutRequest {
                    key,
                    value,
                    ..Default::default()
                })),
            }
        };
        let success = keys.iter().map(put).collect();
        member
            .kv()
            .txn(TxnRequest {
                success,
                ..Default::default()
            })
            .await
            .unwrap();
    }
}

fn all() -> RangeRequest {
    RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..Default::default()
    }
}

/// The pieces of a stream, merged as protobuf merges messages.
async fn streamed(member: &Member, request: RangeRequest) -> (usize, RangeResponse) {
    let mut stream = member
        .kv()
        .range_stream(request)
        .await
        .unwrap()
        .into_inner();
    let (mut pieces, mut merged) = (0, RangeResponse::default());
    while let Some(piece) = stream.message().await.unwrap() {
        assert!(merged.header.is_none(), "nothing follows the header");
        pieces += 1;
        let piece = piece
            .range_response
            .expect("a piece of a response")
            .encode_to_vec();
        merged.merge(piece.as_slice()).unwrap();
    }
    (pieces, merged)
}

#[tokio::test]
async fn a_long_range_is_whole_and_of_one_revision() {
    let member = Member::alone().await;
    fill(&member).await;
    let before = member.range(all()).await;
    member.put("k00100", "new").await;
    member.put("k99999", "new").await;

    let whole = member.range(all()).await;
    assert_eq!(
        (whole.kvs.len(), whole.count, whole.more),
        (usize::from(KEYS) + 1, i64::from(KEYS) + 1, false)
    );
    assert!(whole.kvs.is_sorted_by(|a, b| a.key < b.key));
    for limit in [999, 1_000, 1_001, 2_000, 2_500, 2_501, 9_999] {
        let part = member.range(RangeRequest { limit, ..all() }).await;
        let wanted = whole.kvs.len().min(usize::try_from(limit).unwrap());
        assert_eq!(part.kvs, whole.kvs[..wanted], "limit {limit}");
        assert_eq!(part.more, wanted < whole.kvs.len(), "limit {limit}");
        assert_eq!(part.count, whole.count, "limit {limit}");
    }
    let revision = before.header.unwrap().revision;
    let old = member.range(RangeRequest { revision, ..all() }).await;
    assert_eq!(old.kvs, before.kvs);
    assert_eq!(
        old.header, whole.header,
        "the header has the present revision"
    );
}

#[tokio::test]
async fn a_streamed_range_merges_to_the_plain_one() {
    let member = Member::alone().await;
    fill(&member).await;
    let revision = member.range(all()).await.header.unwrap().revision;
    member.put("k00100", "new").await;
    for (request, is_one_piece) in [
        (all(), false),
        (RangeRequest { limit: 25, ..all() }, false),
        (RangeRequest { limit: 10, ..all() }, true),
        (
            RangeRequest {
                limit: 9_999,
                ..all()
            },
            false,
        ),
        (
            RangeRequest {
                keys_only: true,
                ..all()
            },
            false,
        ),
        (
            RangeRequest {
                count_only: true,
                ..all()
            },
            true,
        ),
        (RangeRequest { revision, ..all() }, false),
        (
            RangeRequest {
                key: "k00007".into(),
                ..Default::default()
            },
            true,
        ),
        (
            RangeRequest {
                key: "nothing".into(),
                ..Default::default()
            },
            true,
        ),
    ] {
        let plain = member.range(request.clone()).await;
        let (pieces, merged) = streamed(&member, request.clone()).await;
        assert_eq!(merged, plain, "{request:?}");
        assert_eq!(pieces == 1, is_one_piece, "{pieces} pieces of {request:?}");
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_answered_is_refused() {
    let member = Member::alone().await;
    for (request, code, text) in [
        (
            RangeRequest {
                sort_order: 2,
                ..all()
            },
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        (
            RangeRequest {
                min_mod_revision: 2,
                ..all()
            },
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ),
        (
            RangeRequest {
                revision: 99,
                ..all()
            },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            RangeRequest::default(),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
    ] {
        let refused = member.kv().range_stream(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code, text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_of_the_present_is_not_refused_because_of_a_compaction() {
    let member = Member::alone().await;
    fill(&member).await;
    let mut kv = member.kv();
    let compacting = tokio::spawn(async move {
        loop {
            let put = PutRequest {
                key: "k00000".into(),
                ..Default::default()
            };
            let revision = kv
                .put(put)
                .await
                .unwrap()
                .into_inner()
                .header
                .unwrap()
                .revision;
            let compaction = CompactionRequest {
                revision,
                physical: false,
            };
            kv.compact(compaction).await.unwrap();
        }
    });
    for _ in 0..50 {
        let read = member.range(all()).await;
        assert_eq!(
            (read.kvs.len(), read.count),
            (usize::from(KEYS), i64::from(KEYS))
        );
    }
    compacting.abort();
}

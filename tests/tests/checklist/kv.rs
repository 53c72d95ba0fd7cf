//! Reads and writes of keys.

use gonfalon_proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::requests::{all_of, get, get_all, op, put};
use tonic::Code;

use super::{assert_refused, one};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

items! {
    always {
        item_01_a_fresh_store_is_at_revision_one_and_compacts_to_zero_once,
        item_02_the_header_of_an_old_read_has_the_current_revision,
        item_03_count_ignores_limit_and_filters,
        item_04_a_target_without_an_order_sorts_after_the_limit,
        item_05_a_negative_revision_reads_the_present_but_not_in_a_transaction,
        item_33_a_request_is_too_large_in_two_stages,
        compaction_refuses_what_is_below_and_keeps_what_is_at_it,
    }
    now {
        item_06_keys_only_leaves_the_lease_out,
        an_unknown_sort_option_is_refused,
        a_range_stream_of_many_parts_is_the_unary_answer,
    }
}

async fn read(client: &Client, request: RangeRequest) -> RangeResponse {
    client
        .kv
        .clone()
        .range(request)
        .await
        .expect("the read is answered")
        .into_inner()
}

fn keys(answer: &RangeResponse) -> Vec<&str> {
    answer
        .kvs
        .iter()
        .map(|kv| std::str::from_utf8(&kv.key).expect("keys are text"))
        .collect()
}

fn revision(answer: &RangeResponse) -> i64 {
    answer.header.as_ref().expect("a header").revision
}

async fn item_01_a_fresh_store_is_at_revision_one_and_compacts_to_zero_once(server: Server) {
    let (_cluster, client) = one(server).await;
    assert_eq!(revision(&read(&client, get("a")).await), 1);
    let zero = CompactionRequest::default();
    client
        .kv
        .clone()
        .compact(zero)
        .await
        .expect("revision 0 can be compacted once");
    assert_refused(
        client.kv.clone().compact(zero).await,
        Code::OutOfRange,
        COMPACTED,
    );
    let first = client.put("a", "1").await.expect("a put");
    assert_eq!(first.header.expect("a header").revision, 2);
}

async fn item_02_the_header_of_an_old_read_has_the_current_revision(server: Server) {
    let (_cluster, client) = one(server).await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await.expect("a put");
    }
    let old = read(
        &client,
        RangeRequest {
            revision: 2,
            ..get("a")
        },
    )
    .await;
    assert_eq!(
        (revision(&old), old.kvs[0].value.as_ref()),
        (4, b"1".as_slice())
    );
    let future = client
        .kv
        .clone()
        .range(RangeRequest {
            revision: 5,
            ..get("a")
        })
        .await;
    assert_refused(future, Code::OutOfRange, FUTURE);
}

async fn item_03_count_ignores_limit_and_filters(server: Server) {
    let (_cluster, client) = one(server).await;
    for key in ["a", "b", "c", "d"] {
        client.put(key, "1").await.expect("a put");
    }
    let limited = read(
        &client,
        RangeRequest {
            limit: 2,
            ..get_all()
        },
    )
    .await;
    assert_eq!(
        (keys(&limited), limited.count, limited.more),
        (vec!["a", "b"], 4, true)
    );
    let filtered = read(
        &client,
        RangeRequest {
            min_mod_revision: 5,
            ..get_all()
        },
    )
    .await;
    assert_eq!(
        (keys(&filtered), filtered.count, filtered.more),
        (vec!["d"], 4, false)
    );
    let counted = read(
        &client,
        RangeRequest {
            count_only: true,
            limit: 1,
            ..get_all()
        },
    )
    .await;
    assert_eq!(
        (keys(&counted), counted.count, counted.more),
        (vec![], 4, false)
    );
    let exact = read(
        &client,
        RangeRequest {
            limit: 4,
            ..get_all()
        },
    )
    .await;
    assert_eq!(
        (exact.kvs.len(), exact.more),
        (4, false),
        "nothing is left out"
    );
}

/// One key more than the limit is read, to know whether there are more, and takes part in the sort.
async fn item_04_a_target_without_an_order_sorts_after_the_limit(server: Server) {
    let (_cluster, client) = one(server).await;
    for (key, value) in [("a", "4"), ("b", "3"), ("c", "2"), ("d", "1")] {
        client.put(key, value).await.expect("a put");
    }
    let by_value = RangeRequest {
        sort_target: 4,
        limit: 2,
        ..get_all()
    };
    assert_eq!(keys(&read(&client, by_value.clone()).await), ["c", "b"]);
    let ascending = RangeRequest {
        sort_order: 1,
        ..by_value.clone()
    };
    assert_eq!(keys(&read(&client, ascending).await), ["d", "c"]);
    let descending = RangeRequest {
        sort_order: 2,
        ..by_value
    };
    assert_eq!(keys(&read(&client, descending).await), ["a", "b"]);
}

async fn item_05_a_negative_revision_reads_the_present_but_not_in_a_transaction(server: Server) {
    let (_cluster, client) = one(server).await;
    client.put("a", "1").await.expect("a put");
    let before_time = RangeRequest {
        revision: -5,
        ..get("a")
    };
    assert_eq!(read(&client, before_time.clone()).await.kvs.len(), 1);
    let txn = all_of(vec![op(before_time)]);
    assert_refused(
        client.kv.clone().txn(txn).await,
        Code::OutOfRange,
        COMPACTED,
    );
}

async fn item_06_keys_only_leaves_the_lease_out(server: Server) {
    let (_cluster, client) = one(server).await;
    let lease = LeaseGrantRequest { id: 7, ttl: 60 };
    client
        .lease
        .clone()
        .lease_grant(lease)
        .await
        .expect("a lease");
    let leased = PutRequest {
        lease: 7,
        ..put("a", "1")
    };
    client.kv.clone().put(leased).await.expect("a put");
    let keys_only = RangeRequest {
        keys_only: true,
        ..get("a")
    };
    let answer = read(&client, keys_only.clone()).await;
    assert_eq!(
        (answer.kvs[0].value.as_ref(), answer.kvs[0].lease),
        (b"".as_slice(), 0)
    );
    let by_value = RangeRequest {
        sort_target: 4,
        ..keys_only
    };
    let answer = read(&client, by_value).await;
    assert_eq!(
        (answer.kvs[0].value.as_ref(), answer.kvs[0].lease),
        (b"".as_slice(), 7)
    );
}

async fn an_unknown_sort_option_is_refused(server: Server) {
    let (_cluster, client) = one(server).await;
    for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (1, 99)] {
        let request = RangeRequest {
            sort_order,
            sort_target,
            ..get("a")
        };
        let text = "etcdserver: invalid sort option";
        assert_refused(
            client.kv.clone().range(request).await,
            Code::InvalidArgument,
            text,
        );
    }
}

async fn item_33_a_request_is_too_large_in_two_stages(server: Server) {
    let (_cluster, client) = one(server).await;
    let of = |bytes: usize| PutRequest {
        value: vec![b'v'; bytes].into(),
        ..put("a", "")
    };
    client
        .kv
        .clone()
        .put(of(1_500_000))
        .await
        .expect("below the limit of 1.5 MiB");
    // What etcd puts around a request in its log counts too: 17 bytes, or one more or less with
    // some members' ids.
    let largest = client.kv.clone().put(of(1_572_838)).await;
    largest.expect("as large as may be");
    let above = client.kv.clone().put(of(1_572_844)).await;
    assert_refused(
        above,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    let above = client.kv.clone().put(of(1_600_000)).await;
    assert_refused(
        above,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    let far_above = client
        .kv
        .clone()
        .put(of(2_200_000))
        .await
        .expect_err("it is refused");
    assert_eq!(far_above.code(), Code::ResourceExhausted);
    let text = far_above.message();
    let shape = text.starts_with("grpc: received message larger than max (2200")
        && text.ends_with(" vs. 2097152)");
    assert!(shape, "{text}");
}

async fn compaction_refuses_what_is_below_and_keeps_what_is_at_it(server: Server) {
    let (_cluster, client) = one(server).await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await.expect("a put");
    }
    let compact = |revision| CompactionRequest {
        revision,
        physical: true,
    };
    assert_refused(
        client.kv.clone().compact(compact(5)).await,
        Code::OutOfRange,
        FUTURE,
    );
    client
        .kv
        .clone()
        .compact(compact(3))
        .await
        .expect("a compaction");
    assert_refused(
        client.kv.clone().compact(compact(3)).await,
        Code::OutOfRange,
        COMPACTED,
    );
    let below = client
        .kv
        .clone()
        .range(RangeRequest {
            revision: 2,
            ..get("a")
        })
        .await;
    assert_refused(below, Code::OutOfRange, COMPACTED);
    let at = read(
        &client,
        RangeRequest {
            revision: 3,
            ..get("a")
        },
    )
    .await;
    assert_eq!(at.kvs[0].value.as_ref(), b"2");
}

async fn a_range_stream_of_many_parts_is_the_unary_answer(server: Server) {
    let (_cluster, client) = one(server).await;
    for at in 0..60 {
        client
            .put(&format!("k{at:02}"), &"v".repeat(40_000))
            .await
            .expect("a put");
    }
    let request = RangeRequest {
        limit: 55,
        ..get_all()
    };
    let unary = read(&client, request.clone()).await;
    let stream = client
        .kv
        .clone()
        .range_stream(request)
        .await
        .expect("a stream");
    let mut stream = stream.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await.expect("a part") {
        parts.push(part.range_response.expect("a part holds an answer"));
    }
    assert!(parts.len() > 2, "2 MB came in {} parts", parts.len());
    assert_eq!(parts[0].kvs.len(), 10, "the first part has ten keys");
    let last = parts.last().expect("a last part").clone();
    assert_eq!(
        (last.header, last.more, last.count),
        (unary.header, true, 60)
    );
    for early in &parts[..parts.len() - 1] {
        assert_eq!((early.header, early.more, early.count), (None, false, 0));
    }
    let joined: Vec<_> = parts.into_iter().flat_map(|part| part.kvs).collect();
    assert_eq!(joined, unary.kvs);
}

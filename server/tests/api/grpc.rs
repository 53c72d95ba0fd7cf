//! What holds for every call: sizes, unknown methods, metadata, health.

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use gonfalon_proto::etcdserverpb::{LeaseKeepAliveRequest, PutRequest, RangeRequest};
use gonfalon_proto::v3lockpb::LockRequest;
use gonfalon_server::api::Grpc;
use http::{Request, Response, StatusCode};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt as _;

use crate::member::Member;

/// A message as gRPC frames it.
fn framed(message: &impl prost::Message, is_compressed: bool) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(is_compressed.into());
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn call(path: &str, body: Bytes) -> Request<Body> {
    Request::post(format!("http://member{path}"))
        .header("content-type", "application/grpc")
        .body(Body::from(body))
        .unwrap()
}

async fn answer(member: &Member, request: Request<Body>) -> Response<tonic::body::Body> {
    Grpc::new(member.node.clone(), &member.config)
        .oneshot(request)
        .await
        .unwrap()
}

/// Code and text of a call that is refused before anything is answered.
async fn refusal(member: &Member, request: Request<Body>) -> (Code, String) {
    let response = answer(member, request).await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "an error of gRPC is none of HTTP"
    );
    let status = Status::from_header_map(response.headers()).expect("a refusal");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn calls_that_are_not_known_are_refused_in_grpc_gos_words() {
    let member = Member::alone().await;
    for (path, text) in [
        (
            "/etcdserverpb.KV/Nope",
            "unknown method Nope for service etcdserverpb.KV",
        ),
        (
            "/etcdserverpb.Nope/Range",
            "unknown service etcdserverpb.Nope",
        ),
        (
            "/etcdserverpb.Auth/UserAdd",
            "unknown method UserAdd for service etcdserverpb.Auth",
        ),
        (
            "/etcdserverpb.Cluster/MemberAdd",
            "unknown method MemberAdd for service etcdserverpb.Cluster",
        ),
        ("/nothing", "malformed method name: \"/nothing\""),
    ] {
        let refused = refusal(&member, call(path, framed(&RangeRequest::default(), false))).await;
        assert_eq!(refused, (Code::Unimplemented, text.to_owned()));
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_two_steps() {
    let member = Member::alone().await;
    let put = |value_bytes: usize| PutRequest {
        key: "k".into(),
        value: vec![b'v'; value_bytes].into(),
        ..Default::default()
    };
    let refused = |value_bytes| {
        let request = call("/etcdserverpb.KV/Put", framed(&put(value_bytes), false));
        refusal(&member, request)
    };
    let largest = member.config.request_bytes_max;
    assert_eq!(
        refused(largest).await,
        (
            Code::InvalidArgument,
            "etcdserver: request is too large".to_owned()
        )
    );
    let size = put(largest + 512 * 1024).encoded_len();
    assert_eq!(
        refused(largest + 512 * 1024).await,
        (
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({size} vs. 2097152)")
        )
    );
}

#[tokio::test]
async fn compressed_requests_are_refused() {
    let member = Member::alone().await;
    let mut request = call(
        "/etcdserverpb.KV/Range",
        framed(&RangeRequest::default(), true),
    );
    request
        .headers_mut()
        .insert("grpc-encoding", "gzip".parse().unwrap());
    let text = "grpc: Decompressor is not installed for grpc-encoding \"gzip\"";
    assert_eq!(
        refusal(&member, request).await,
        (Code::Unimplemented, text.to_owned())
    );
}

#[tokio::test]
async fn a_client_version_that_is_no_text_is_refused() {
    let member = Member::alone().await;
    let mut request = call(
        "/etcdserverpb.KV/Range",
        framed(&RangeRequest::default(), false),
    );
    let version = http::HeaderValue::from_bytes(b"3.\xff").unwrap();
    request.headers_mut().insert("client-api-version", version);
    let text = "etcdserver: invalid client api version";
    assert_eq!(
        refusal(&member, request).await,
        (Code::InvalidArgument, text.to_owned())
    );
}

#[tokio::test]
async fn a_call_that_takes_longer_than_the_client_waits_is_dropped() {
    let member = Member::alone().await;
    let (holder, waiter) = (member.grant(60).await, member.grant(60).await);
    let lock = |lease| {
        let lock = LockRequest {
            name: "l".into(),
            lease,
        };
        let mut request = call("/v3lockpb.Lock/Lock", framed(&lock, false));
        request
            .headers_mut()
            .insert("grpc-timeout", "300m".parse().unwrap());
        request
    };
    let held = answer(&member, lock(holder)).await;
    assert!(
        Status::from_header_map(held.headers()).is_none(),
        "nobody was before it"
    );
    assert_eq!(
        refusal(&member, lock(waiter)).await,
        (
            Code::DeadlineExceeded,
            "context deadline exceeded".to_owned()
        )
    );
    member.wait_for_queue_of("l", 1).await;
}

#[tokio::test]
async fn what_is_not_grpc_is_a_page_or_not_found() {
    let member = Member::alone().await;
    let version = member.page("/version").await;
    assert!(version.starts_with("HTTP/1.1 200 OK\r\n"), "{version}");
    let nothing = member.page("/nothing").await;
    assert!(
        nothing.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{nothing}"
    );
    assert!(nothing.ends_with("404 page not found\n"), "{nothing}");
}

#[tokio::test]
async fn the_server_as_a_whole_is_healthy_and_nothing_else_is_known() {
    let member = Member::alone().await;
    let mut health = HealthClient::new(member.channel.clone());
    let whole = HealthCheckRequest {
        service: String::new(),
    };
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
    assert_eq!(
        health.check(whole).await.unwrap().into_inner().status(),
        serving
    );
    let other = HealthCheckRequest {
        service: "etcdserverpb.KV".into(),
    };
    assert_eq!(
        health.check(other).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn renewals_are_answered_in_order_and_an_unknown_lease_is_no_error() {
    let member = Member::alone().await;
    let leases = [member.grant(60).await, 7, member.grant(30).await, 0, -1];
    let ids: Vec<i64> = leases.into_iter().cycle().take(200).collect();
    let requests = stream::iter(
        ids.clone()
            .into_iter()
            .map(|id| LeaseKeepAliveRequest { id }),
    );
    let mut client = LeaseClient::new(member.channel.clone());
    let mut answers = client
        .lease_keep_alive(requests)
        .await
        .unwrap()
        .into_inner();
    for id in ids {
        let answer = answers
            .message()
            .await
            .unwrap()
            .expect("an answer for each request");
        let ttl = if id == leases[0] {
            60
        } else if id == leases[2] {
            30
        } else {
            0
        };
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    assert!(
        answers.message().await.unwrap().is_none(),
        "the client is done, and so is the stream"
    );
}

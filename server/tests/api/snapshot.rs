//! Snapshots for clients: what they cost on disk, and what is left of them.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use gonfalon_proto::etcdserverpb::{PutRequest, SnapshotRequest, SnapshotResponse};
use gonfalon_server::api::Grpc;
use gonfalon_server::limits::BACKUPS_MAX;
use http::Request;
use tonic::Streaming;
use tower::Service as _;

use crate::member::{Member, PATIENCE};

/// Much more than what is on its way to a client in sockets and windows.
const DATA_BYTES: usize = 32 * 1024 * 1024;
const VALUE_BYTES: usize = 1024 * 1024;

async fn filled() -> Member {
    let member = Member::alone().await;
    for number in 0..DATA_BYTES / VALUE_BYTES {
        // Not to be compressed away.
        let mut value = vec![0; VALUE_BYTES];
        rand::fill(value.as_mut_slice());
        let put = PutRequest {
            key: number.to_string().into(),
            value: value.into(),
            ..Default::default()
        };
        member.kv().put(put).await.unwrap();
    }
    member
}

/// A snapshot of which the first part was read, on a connection of its own: what is not read of one
/// would hold up the others.
async fn begun(member: &Member) -> (Streaming<SnapshotResponse>, SnapshotResponse) {
    let mut client = MaintenanceClient::new(member.connect());
    let mut stream = client
        .snapshot(SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().expect("a first part");
    (stream, first)
}

/// Everything in the directory for copies.
fn outgoing(member: &Member) -> Vec<PathBuf> {
    let mut found = vec![member.config.data_dir.join("outgoing")];
    let mut at = 0;
    while at < found.len() {
        if found[at].is_dir() {
            // What is deleted meanwhile is not there.
            let entries = std::fs::read_dir(&found[at]).into_iter().flatten();
            let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            found.extend(paths);
        }
        at += 1;
    }
    found.split_off(1)
}

async fn wait_until_nothing_is_left(member: &Member) {
    let gone = async {
        while !outgoing(member).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "left on the disk: {:?}", outgoing(member));
}

#[tokio::test]
async fn a_snapshot_takes_no_disk_and_is_gone_with_its_stream() {
    let member = filled().await;
    let (stream, first) = begun(&member).await;
    let total = first.remaining_bytes + first.blob.len() as u64;
    assert!(
        total > DATA_BYTES as u64 / 2,
        "{total} bytes are not the data"
    );
    let own: u64 = outgoing(&member)
        .iter()
        .filter_map(|path| path.metadata().ok())
        .filter(|file| file.is_file() && file.nlink() == 1)
        .map(|file| file.len())
        .sum();
    assert!(own < 1024 * 1024, "{own} bytes were written for it");
    drop(stream);
    wait_until_nothing_is_left(&member).await;
}

#[tokio::test]
async fn a_snapshot_that_is_given_up_while_it_is_made_leaves_nothing() {
    let member = filled().await;
    let call = || {
        let request = Request::post("http://member/etcdserverpb.Maintenance/Snapshot")
            .header("content-type", "application/grpc")
            .body(Body::from(vec![0; 5]))
            .unwrap();
        Grpc::new(member.node.clone(), &member.config).call(request)
    };
    // Asked for and given up at once: from then on a thread makes it for nobody.
    for _ in 0..2 * BACKUPS_MAX {
        let mut given_up = call();
        assert!(futures::poll!(&mut given_up).is_pending());
    }
    // This one is whole, and it waits for its turn behind those.
    let (mut stream, first) = begun(&member).await;
    let mut left = first.remaining_bytes;
    while let Some(part) = stream.message().await.unwrap() {
        left = part.remaining_bytes;
    }
    assert_eq!(left, 0);
    wait_until_nothing_is_left(&member).await;
}

#[tokio::test]
async fn one_snapshot_more_than_there_may_be_waits_for_its_turn() {
    let member = filled().await;
    let mut open = Vec::new();
    for _ in 0..BACKUPS_MAX {
        open.push(begun(&member).await);
    }
    let mut waiting = Box::pin(begun(&member));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "one more at once");
    open.pop();
    let late = tokio::time::timeout(PATIENCE, waiting).await;
    late.expect("its turn comes when another is given up");
}

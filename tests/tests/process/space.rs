//! Disks that are small: what may be refused is refused before it fills them.
//!
//! The disk is one of memory, in a name space of its own, so that nothing but the member is on it.

use std::path::Path;
use std::process::Command;

use gonfalon_proto::etcdserverpb::{DefragmentRequest, PutRequest, SnapshotRequest};
use gonfalon_tests::binaries::{on_path, server_under_test};
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use tonic::{Code, Status};

use super::PATIENCE;

const MIB: usize = 1024 * 1024;

/// A short log: what takes the space is the data.
const FLAGS: [&str; 4] = [
    "--snapshot-count",
    "10",
    "--experimental-snapshot-catchup-entries",
    "1",
];

/// Starts the program on a disk of `size_mib` that is mounted at `data_dir`.
fn on_small_disk(program: &Path, data_dir: &Path, size_mib: usize) -> Command {
    let unshare = on_path("unshare", "apt-get install util-linux");
    let mut command = Command::new(unshare.expect("unshare is installed"));
    let script = "mkdir -p \"$2\" && mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && shift 2 && \
                  exec \"$@\"";
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(format!("{size_mib}m")).arg(data_dir);
    command.arg(program);
    command
}

/// A member alone on a disk of `size_mib`, with `data_mib` on it.
async fn filled(size_mib: usize, data_mib: usize) -> (Cluster, Client) {
    let mut cluster = Cluster::prepare(server_under_test(), 1, &FLAGS).expect("a directory");
    let data_dir = cluster.member(0).data_dir();
    let mut command = on_small_disk(cluster.program(), data_dir, size_mib);
    cluster.configure(0, &mut command);
    cluster.start_member_as(0, command).expect("it starts");
    cluster.ready().await.expect("it serves");
    let client = cluster.client(0);
    for key in 0..data_mib {
        put(&client, key).await.expect("there is room");
    }
    (cluster, client)
}

/// A mebibyte that cannot be compressed.
async fn put(client: &Client, key: usize) -> Result<(), Status> {
    let mut value = vec![0; MIB];
    rand::fill(value.as_mut_slice());
    let put = PutRequest {
        key: key.to_string().into(),
        value: value.into(),
        ..Default::default()
    };
    client.kv.clone().put(put).await.map(drop)
}

/// Reads a snapshot to its end; its size.
async fn snapshot(client: &Client) -> Result<usize, Status> {
    let mut maintenance = client.maintenance.clone();
    let mut parts = maintenance.snapshot(SnapshotRequest {}).await?.into_inner();
    let mut size = 0;
    while let Some(part) = parts.message().await? {
        size += part.blob.len();
    }
    Ok(size)
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_together_are_larger_than_the_disk_are_sent() {
    let (_cluster, client) = filled(128, 32).await;
    let snapshots = (0..6).map(|_| snapshot(&client));
    for size in futures::future::join_all(snapshots).await {
        let size = size.expect("it takes no space");
        assert!(size > 32 * MIB, "{size} bytes are not all of it");
    }
    put(&client, 0).await.expect("the member goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defragmentation_that_does_not_fit_is_refused_and_the_member_goes_on() {
    let (_cluster, client) = filled(192, 40).await;
    // What is on the disk beside the data is not known to the byte: until it is more than half full.
    let mut key = 40;
    let refused = loop {
        let mut maintenance = client.maintenance.clone();
        match maintenance.defragment(DefragmentRequest {}).await {
            Ok(_) => put(&client, key).await.expect("there is room"),
            Err(refused) => break refused,
        }
        key += 1;
        assert!(key < 120, "it fits into a disk that is full");
    };
    let text = "gonfalon: not enough free disk space";
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, text)
    );
    put(&client, 0).await.expect("the member goes on");
    let first = client.get("0").await.expect("and everything can be read");
    assert_eq!(first.kvs[0].value.len(), MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_is_full_says_so_and_stops() {
    let (mut cluster, client) = filled(160, 8).await;
    let mut key = 8;
    while put(&client, key).await.is_ok() {
        key += 1;
        assert!(key < 400, "more fits than there is room for");
    }
    let status = cluster.wait(0, PATIENCE).await.expect("it stops");
    let log = std::fs::read_to_string(cluster.member(0).log()).expect("it has a log");
    assert_eq!(status.code(), Some(1), "{log}");
    let words = "No space left on device";
    assert!(log.contains(words), "{words:?} is not in its log:\n{log}");
}

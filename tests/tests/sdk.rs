//! Our client against Gonfalon and against real etcds: the same tests, the same answers.

#[path = "sdk/auth.rs"]
mod auth;
#[path = "sdk/cache.rs"]
mod cache;
#[path = "sdk/certificates.rs"]
mod certificates;
#[path = "sdk/close.rs"]
mod close;
#[path = "sdk/counting.rs"]
mod counting;
#[path = "sdk/disk.rs"]
mod disk;
#[path = "sdk/elections.rs"]
mod elections;
#[path = "sdk/failover.rs"]
mod failover;
#[path = "sdk/handover.rs"]
mod handover;
#[path = "sdk/holders.rs"]
mod holders;
#[path = "sdk/kv.rs"]
mod kv;
#[path = "sdk/lease.rs"]
mod lease;
#[path = "sdk/loss.rs"]
mod loss;
#[path = "sdk/operators.rs"]
mod operators;
#[path = "sdk/pages.rs"]
mod pages;
#[path = "sdk/points.rs"]
mod points;
#[path = "sdk/recipes.rs"]
mod recipes;
#[path = "sdk/sharing.rs"]
mod sharing;
#[path = "sdk/tls.rs"]
mod tls;
#[path = "sdk/typed.rs"]
mod typed;
#[path = "sdk/watch.rs"]
mod watch;

use std::time::Duration;

use gonfalon::{Batch, Client, Watch};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::relay::Relay;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const SERVERS: [Server; 3] = [Server::Gonfalon, Server::Etcd34, Server::Etcd35];

/// One member of each server, one after the other.
async fn each_server(test: impl AsyncFn(&Cluster, Client)) {
    for server in SERVERS {
        let cluster = Cluster::start(server, 1).await.expect("the server starts");
        let client = client(&cluster);
        eprintln!("against {server:?}");
        test(&cluster, client).await;
    }
}

/// A client of every member.
fn client(cluster: &Cluster) -> Client {
    let client = Client::builder()
        .endpoints(cluster.endpoints())
        .deadline(PATIENCE)
        .build();
    client.expect("the endpoints are addresses")
}

/// A client whose connections to the first member can be cut.
async fn relayed(cluster: &Cluster) -> (Relay, Client) {
    let port = cluster.member(0).client_port();
    let relay = Relay::to(port).await.expect("there is a free port");
    let client = Client::builder().endpoints(relay.endpoint()).build();
    (relay, client.expect("the endpoint is an address"))
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, what).await;
    ended.expect("it happens in time")
}

/// The next batch, which is no error.
async fn next(watch: &mut Watch) -> Batch {
    let item = within(watch.next()).await.expect("the watch goes on");
    item.expect("no error")
}

/// Keys and values of a batch, as text.
fn told(batch: &Batch) -> Vec<(String, String)> {
    let events = batch.events.iter().map(|event| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&event.kv.key), text(&event.kv.value))
    });
    events.collect()
}

/// The numbers of a member's metrics whose line contains every one of `words`.
async fn metric(cluster: &Cluster, words: &[&str]) -> f64 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(cluster.member(0).endpoint())
        .await
        .expect("the member shows its metrics");
    let request = b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
    socket
        .write_all(request)
        .await
        .expect("the member shows its metrics");
    let mut page = String::new();
    socket
        .read_to_string(&mut page)
        .await
        .expect("the member shows its metrics");
    let lines = page
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)));
    let numbers = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    numbers.sum()
}

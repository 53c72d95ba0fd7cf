//! Our client against Gonfalon, one member and three, and against real etcds: the same tests, the same
//! answers.

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
#[path = "sdk/pool.rs"]
mod pool;
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

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures::FutureExt as _;
use gonfalon::{Batch, Client, Watch};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::raw::http_get;
use gonfalon_tests::relay::Relay;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const SERVERS: [Server; 3] = [Server::Gonfalon, Server::Etcd34, Server::Etcd35];

/// One member of each server, one after the other, and three of Gonfalon meanwhile; each with an empty
/// store. Most of what tests do is wait.
async fn each_server(test: impl AsyncFn(&Cluster, Client)) {
    let ones = async {
        for server in SERVERS {
            let cluster = Cluster::start(server, 1).await.expect("the server starts");
            tried(&cluster, &test).await;
        }
    };
    let three = async {
        let threes = pool::threes();
        let cluster = threes.take().await;
        tried(&cluster, &test).await;
        threes.give_back(cluster);
    };
    tokio::join!(ones, three);
}

/// Says against which cluster a test fails.
async fn tried(cluster: &Cluster, test: &impl AsyncFn(&Cluster, Client)) {
    let test = Box::pin(test(cluster, client(cluster)));
    if let Err(panic) = AssertUnwindSafe(test).catch_unwind().await {
        let (server, size) = (cluster.server(), cluster.size());
        eprintln!("failed against {server:?}, members: {size}");
        resume_unwind(panic);
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

/// The sum of the numbers of all members' metrics whose line contains every one of `words`.
async fn metric(cluster: &Cluster, words: &[&str]) -> f64 {
    let mut sum = 0.0;
    for at in 0..cluster.size() {
        let endpoint = cluster.member(at).endpoint();
        let (code, page) = http_get(&endpoint, "/metrics").await.expect("a page");
        assert_eq!(code, 200);
        let lines = page
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)));
        let numbers = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        sum += numbers.sum::<f64>();
    }
    sum
}

//! Other people's clients, as their users use them: the `etcd-client` crate, Python's `aetcd`, and a
//! tool that starts an `etcd` by that name.

#[path = "clients/aetcd.rs"]
mod aetcd;
#[path = "clients/crate_kv.rs"]
mod crate_kv;
#[path = "clients/crate_recipes.rs"]
mod crate_recipes;
#[path = "clients/crate_watch.rs"]
mod crate_watch;

use std::time::Duration;

use etcd_client::Client;
use gonfalon_tests::binaries::server_under_test;
use gonfalon_tests::cluster::Cluster;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster with an empty store.
async fn cluster(size: usize) -> Cluster {
    Cluster::start(server_under_test(), size)
        .await
        .expect("the server starts")
}

/// The crate's client, for all members.
async fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.endpoints(), None)
        .await
        .expect("it connects")
}

/// The crate's client, for one member.
async fn connect_to(cluster: &Cluster, at: usize) -> Client {
    Client::connect([cluster.member(at).endpoint()], None)
        .await
        .expect("it connects")
}

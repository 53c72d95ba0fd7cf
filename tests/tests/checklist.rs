//! The things that a re-implementation of etcd gets wrong, each with a test against a live server.
//!
//! Every item runs against the server under test, and against etcd 3.4.23 too where that version
//! already behaves so: a test that real etcd fails is a wrong test. The numbers are those of the
//! list of pitfalls that they come from.

/// Runs items against the server under test (`now`), and those of `always` against etcd 3.4 too.
macro_rules! items {
    (always { $($always:ident,)* } now { $($now:ident,)* }) => {
        mod here {
            use gonfalon_tests::binaries::server_under_test;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $always() { Box::pin(super::$always(server_under_test())).await; })*
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $now() { Box::pin(super::$now(server_under_test())).await; })*
        }
        mod etcd_3_4 {
            use gonfalon_tests::binaries::Server;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $always() { Box::pin(super::$always(Server::Etcd34)).await; })*
        }
    };
}

#[path = "checklist/alarms.rs"]
mod alarms;
#[path = "checklist/failures.rs"]
mod failures;
#[path = "checklist/kv.rs"]
mod kv;
#[path = "checklist/lease.rs"]
mod lease;
#[path = "checklist/maintenance.rs"]
mod maintenance;
#[path = "checklist/pages.rs"]
mod pages;
#[path = "checklist/recipes.rs"]
mod recipes;
#[path = "checklist/starting.rs"]
mod starting;
#[path = "checklist/txn.rs"]
mod txn;
#[path = "checklist/watch.rs"]
mod watch;

use std::time::Duration;

use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use tonic::{Code, Status};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for something that must not happen.
const SILENCE: Duration = Duration::from_millis(500);
/// A lone member needs no second to elect itself.
const QUICK: [&str; 4] = ["--heartbeat-interval", "20", "--election-timeout", "200"];

/// One member with an empty store, and its stubs.
async fn one(server: Server) -> (Cluster, Client) {
    one_with(server, &[]).await
}

/// [`one`] with more flags.
async fn one_with(server: Server, flags: &[&str]) -> (Cluster, Client) {
    let flags = [&QUICK, flags].concat();
    let cluster = Cluster::start_with(server, 1, &flags)
        .await
        .expect("the server starts");
    let client = cluster.client(0);
    (cluster, client)
}

/// Asserts code and text of an error.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it is refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

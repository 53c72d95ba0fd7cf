//! Clusters of three members that tests use in turns: to start one takes seconds, and what a test needs
//! is an empty store. A test has its cluster for itself.

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use gonfalon::{ErrorKind, KeyRange};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;

use super::client;

/// Clusters that nobody uses now. They are stopped with the last test that could take one: nothing
/// runs what is left when a test program ends.
#[derive(Debug, Default)]
pub(super) struct Threes {
    idle: Mutex<Vec<Cluster>>,
}

/// What all tests share that run at the same time.
pub(super) fn threes() -> Arc<Threes> {
    static SHARED: Mutex<Weak<Threes>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().expect("nothing panics while it holds this");
    shared.upgrade().unwrap_or_else(|| {
        let new = Arc::default();
        *shared = Arc::downgrade(&new);
        new
    })
}

impl Threes {
    /// A cluster with an empty store, but for its history.
    pub(super) async fn take(&self) -> Cluster {
        let idle = self.idle().pop();
        let Some(mut cluster) = idle else {
            let started = Cluster::start(Server::Gonfalon, 3).await;
            return started.expect("the servers start");
        };
        cluster.connect_again().expect("the ports are fine");
        empty(&cluster).await;
        cluster
    }

    /// The cluster is as good as new. One whose test failed is not given back.
    pub(super) fn give_back(&self, cluster: Cluster) {
        self.idle().push(cluster);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Cluster>> {
        self.idle
            .lock()
            .expect("nothing panics while it holds this")
    }
}

/// Removes what a test has left.
async fn empty(cluster: &Cluster) {
    let client = client(cluster);
    let alarms = client.maintenance().alarms().await.expect("it answers");
    for alarm in alarms {
        let disarmed = client.maintenance().disarm_alarm(alarm).await;
        disarmed.expect("it answers");
    }
    for lease in client.leases().await.expect("it answers") {
        match client.revoke(lease).await {
            // It may have ended by itself.
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            revoked => revoked.expect("it answers"),
        }
    }
    client.delete(KeyRange::all()).await.expect("it answers");
}

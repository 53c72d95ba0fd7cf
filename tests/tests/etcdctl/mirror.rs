//! `make-mirror`: a copy of a prefix that follows, from one server to another.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gonfalon_tests::binaries::{Server, server_under_test};
use gonfalon_tests::etcdctl::Etcdctl;

use super::{PATIENCE, started};

/// Waits until everything under `prefix` is `wanted`.
fn wait_for(etcdctl: &Etcdctl, prefix: &str, wanted: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let found = etcdctl.quietly(&["get", "--prefix", prefix])?;
        if found == wanted {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("the copy is {found:?}, not {wanted:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Mirrors between two servers, first what is there, then what happens.
async fn mirrors(from: Server, to: Server) -> Result<()> {
    let (_source, mut source) = started(from, 1).await;
    let (destination, target) = started(to, 1).await;
    for key in ["/a/1", "/a/2", "/b/1"] {
        source.quietly(&["put", key, "before"])?;
    }
    let endpoint = destination.member(0).endpoint();
    let args = [
        "make-mirror",
        "--prefix",
        "/a/",
        "--dest-prefix",
        "/copy/",
        &endpoint,
    ];
    let mirror = source.start(&args)?;
    wait_for(&target, "/", "/copy/1\nbefore\n/copy/2\nbefore\n")?;
    source.quietly(&["put", "/a/1", "after"])?;
    source.quietly(&["del", "/a/2"])?;
    source.quietly(&["put", "/a/3", "new"])?;
    source.quietly(&["put", "/b/1", "nobody's business"])?;
    source.run_with(&["txn"], "\nput /a/4 1\nput /a/5 2\n\n\n")?;
    wait_for(
        &target,
        "/",
        "/copy/1\nafter\n/copy/3\nnew\n/copy/4\n1\n/copy/5\n2\n",
    )?;
    mirror.interrupt()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_us_to_etcd() {
    let mirrored = mirrors(server_under_test(), Server::Etcd34).await;
    mirrored.expect("etcd has what we have");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_etcd_to_us() {
    let mirrored = mirrors(Server::Etcd34, server_under_test()).await;
    mirrored.expect("we have what etcd has");
}

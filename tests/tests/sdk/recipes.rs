//! Locks: one at a time, in order, and with etcd's own tools in the same line.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use gonfalon::{Client, ErrorKind, KeyRange, LostReason, Op};
use gonfalon_tests::binaries::etcdctl;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::etcdctl::{Etcdctl, Running};

use super::{each_server, relayed, within};

pub(super) const TTL: Duration = Duration::from_secs(3);

/// Waits until so many contend.
pub(super) async fn contenders(client: &Client, name: &str, wanted: u64) {
    let range = || KeyRange::prefix(format!("{name}/"));
    let counted = async {
        loop {
            let counted = client.range(range()).count_only().await;
            if counted.expect("the server answers").count == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(counted).await;
}

#[tokio::test]
async fn one_at_a_time_holds_a_lock_and_each_has_a_higher_fence() {
    each_server(async |cluster, client| {
        let holders = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for number in 0..10 {
            // Every second one is another process, as far as the servers can tell.
            let client = match number % 2 {
                0 => client.clone(),
                _ => super::client(cluster),
            };
            let holders = holders.clone();
            tasks.push(tokio::spawn(async move {
                let lock = client.lock("l").ttl(TTL).identity(format!("{number}"));
                let guard = within(lock.acquire()).await.unwrap();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                tokio::time::sleep(Duration::from_millis(5)).await;
                let done = guard.txn().then(Op::put("last", format!("{number}"))).await;
                assert!(done.unwrap().succeeded && guard.is_held());
                holders.fetch_sub(1, Ordering::SeqCst);
                let fence = guard.fence();
                guard.release().await.unwrap();
                fence.revision()
            }));
        }
        let mut fences = Vec::new();
        for task in tasks {
            fences.push(task.await.unwrap());
        }
        fences.sort();
        fences.dedup();
        assert_eq!(fences.len(), 10);
        contenders(&client, "l", 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_lock_that_is_taken_is_not_waited_for_unless_asked() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).await.unwrap();
        // The same lease: still two contenders.
        let lock = client.lock("t").lease(&lease);
        let guard = lock.try_acquire().await.unwrap().expect("it is free");
        assert!(lock.try_acquire().await.unwrap().is_none());
        let waiting = client.lock("t").ttl(TTL).identity("second");
        let waiting = tokio::spawn(async move { waiting.acquire().await });
        contenders(&client, "t", 2).await;
        let names = lock.contenders().await.unwrap();
        assert_eq!(names[0].key, *guard.key());
        assert_eq!(names[1].identity, "second");
        assert!(names[0].is_holder && !names[1].is_holder && names[0].since < names[1].since);
        assert_eq!((names[1].position, names[0].lease), (1, Some(lease.id())));
        let late = lock.acquire_within(Duration::from_millis(100)).await;
        assert_eq!(*late.unwrap_err().kind(), ErrorKind::Timeout);
        contenders(&client, "t", 2).await;
        // Dropping is enough.
        drop(guard);
        let second = within(waiting).await.unwrap().unwrap();
        assert!(second.is_held() && lease.is_held());
    })
    .await;
}

/// Whatever it was doing when it was dropped, nothing of it stays that others would wait for.
#[tokio::test]
async fn an_acquisition_that_is_given_up_leaves_no_key() {
    each_server(async |cluster, client| {
        let other = super::client(cluster);
        let lease = client.grant(Duration::from_mins(1)).await.unwrap();
        for polls in 0..40 {
            let held = other.lock("d").ttl(TTL).acquire().await.unwrap();
            let lock = client.lock("d").lease(&lease);
            let mut acquiring = Box::pin(lock.acquire());
            for _ in 0..polls {
                assert!((&mut acquiring).now_or_never().is_none());
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            drop(acquiring);
            held.release().await.unwrap();
            if polls % 8 == 7 {
                contenders(&client, "d", 0).await;
            }
        }
        assert!(lease.is_held());
        let guard = within(other.lock("d").acquire()).await.unwrap();
        assert!(guard.is_held());
    })
    .await;
}

#[tokio::test]
async fn whoever_loses_his_lease_while_he_waits_gets_no_lock() {
    each_server(async |_, client| {
        let held = client.lock("w").ttl(TTL).acquire().await.unwrap();
        let lease = client.grant(TTL).await.unwrap();
        let lock = client.lock("w").lease(&lease);
        let waiting = tokio::spawn(async move { lock.acquire().await });
        contenders(&client, "w", 2).await;
        client.revoke(lease.id()).await.unwrap();
        let error = within(waiting).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");

        let lock = client.lock("w").ttl(TTL).identity("deleted");
        let waiting = tokio::spawn(async move { lock.acquire().await });
        contenders(&client, "w", 2).await;
        let second = client.lock("w").contenders().await.unwrap().remove(1);
        client.delete(&second.key).await.unwrap();
        let error = within(waiting).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");
        assert!(error.to_string().contains("deleted"), "{error}");
        assert!(held.is_held());
    })
    .await;
}

#[tokio::test]
async fn a_holder_whose_key_or_lease_is_gone_is_told_and_can_write_nothing() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        let guard = client.lock("g").ttl(TTL).acquire().await.unwrap();
        direct.delete(guard.key()).await.unwrap();
        assert_eq!(within(guard.lost()).await, LostReason::KeyDeleted);
        assert!(!guard.is_held() && guard.token().is_cancelled());
        let written = guard.txn().then(Op::put("x", "1")).await.unwrap();
        assert!(!written.succeeded);

        let guard = client.lock("g").ttl(TTL).acquire().await.unwrap();
        relay.refuse(true);
        assert_eq!(within(guard.lost()).await, LostReason::NotRenewed);
        // The next one has it only after the first knows that he has not.
        let next = within(direct.lock("g").acquire()).await.unwrap();
        assert!(next.fence() > guard.fence());
        relay.refuse(false);
        let written = within(guard.txn().then(Op::put("x", "2")).into_future()).await;
        assert!(!written.unwrap().succeeded);
        assert!(direct.get("x").await.unwrap().is_none());
    })
    .await;
}

pub(super) fn etcdctl_with(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(etcdctl().expect("etcdctl is installed"));
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &cluster.endpoints().join(",")])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

#[tokio::test]
async fn etcds_own_lock_and_ours_exclude_each_other() {
    each_server(async |cluster, client| {
        let guard = client.lock("both").ttl(TTL).acquire().await.unwrap();
        let mut theirs = etcdctl_with(cluster, &["lock", "both", "sleep", "1"])
            .spawn()
            .unwrap();
        contenders(&client, "both", 2).await;
        assert!(theirs.try_wait().unwrap().is_none(), "it waits");
        guard.release().await.unwrap();
        // Theirs has it now, for a second, and then ours again.
        let guard = within(client.lock("both").acquire()).await.unwrap();
        assert!(theirs.wait().unwrap().success());
        assert!(guard.is_held());
    })
    .await;
}

/// Waits until it has said so many lines; all that it has said.
pub(super) async fn says(running: &Running, lines: usize) -> String {
    let said = async {
        loop {
            let said = running.said().expect("its file is there");
            if said.lines().count() >= lines && said.ends_with('\n') {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(said).await
}

/// Each waits for whoever came before, and for nobody else; who dies is waited for until his time is up.
#[tokio::test]
async fn etcdctl_and_we_hold_a_lock_in_the_order_in_which_we_came() {
    each_server(async |cluster, client| {
        let mut etcdctl = Etcdctl::new(cluster).unwrap();
        let acquire = || {
            let lock = client.lock("line").ttl(TTL);
            tokio::spawn(async move { lock.acquire().await })
        };
        let first = etcdctl.start(&["lock", "line"]).unwrap();
        says(&first, 1).await;
        let second = acquire();
        contenders(&client, "line", 2).await;
        let third = etcdctl.start(&["lock", "line", "--ttl", "2"]).unwrap();
        contenders(&client, "line", 3).await;
        let fourth = acquire();
        contenders(&client, "line", 4).await;
        assert!(!second.is_finished() && !fourth.is_finished());
        assert_eq!(third.said().unwrap(), "");
        assert!(client.lock("line").try_acquire().await.unwrap().is_none());

        first.interrupt().unwrap();
        let second = within(second).await.unwrap().unwrap();
        let written = second.txn().then(Op::put("by", "second")).await.unwrap();
        assert!(written.succeeded && !fourth.is_finished());
        assert_eq!(third.said().unwrap(), "");

        let fence = second.fence();
        second.release().await.unwrap();
        let key = says(&third, 1).await;
        let holder = client.lock("line").contenders().await.unwrap().remove(0);
        assert!(holder.is_holder);
        assert_eq!(holder.key, key.trim(), "as both sides see it");
        assert!(!fourth.is_finished());

        // Without a word: its lease has to end first.
        drop(third);
        let fourth = within(fourth).await.unwrap().unwrap();
        assert!(fourth.is_held() && fourth.fence() > fence);
        contenders(&client, "line", 1).await;
    })
    .await;
}

/// What every gRPC client can ask of a server: etcd's own lock service, here by the crate
/// `etcd-client`.
#[tokio::test]
async fn the_servers_lock_service_and_ours_exclude_each_other() {
    each_server(async |cluster, client| {
        let guard = client.lock("rpc").ttl(TTL).acquire().await.unwrap();
        let endpoints = cluster.endpoints();
        let mut theirs = etcd_client::Client::connect(endpoints, None).await.unwrap();
        let lease = theirs.lease_grant(30, None).await.unwrap().id();
        let options = etcd_client::LockOptions::new().with_lease(lease);
        let mut waiting = Box::pin(theirs.lock("rpc", Some(options)));
        // It is sent when it is polled.
        assert!((&mut waiting).now_or_never().is_none());
        let queued = contenders(&client, "rpc", 2);
        tokio::select! {
            _ = &mut waiting => panic!("two hold it"),
            () = queued => {}
        }
        guard.release().await.unwrap();
        let key = within(waiting).await.unwrap().key().to_vec();
        assert!(client.lock("rpc").try_acquire().await.unwrap().is_none());
        client.delete(&key).await.unwrap();
        assert!(client.lock("rpc").try_acquire().await.unwrap().is_some());
    })
    .await;
}

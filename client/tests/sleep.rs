//! A machine that sleeps for longer than its leases: what was held before is not held after, by the
//! clock alone, whatever servers have said or not said yet; and what a cache shows is that much older.
//!
//! One test, alone in its process: the clock is everybody's.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame, machine_sleeps};
use gonfalon::{Client, Error, ErrorKind, Lease, LockGuard, LostReason, Op};

const TTL: Duration = Duration::from_mins(1);

async fn hold(client: Client, lease: Lease) -> Result<LockGuard, Error> {
    client.lock("s").lease(&lease).acquire().await
}

#[tokio::test]
async fn what_was_held_before_the_machine_slept_is_not_held_after() {
    let server = FakeServer::start();
    let client = server.client();
    let grant = async || client.grant(TTL).await.unwrap();
    let (first, second) = (grant().await, grant().await);
    let guard = hold(client.clone(), first.clone()).await.unwrap();
    let created = server.sent(Frame::Created);
    let waiting = tokio::spawn(hold(client.clone(), second.clone()));
    while server.sent(Frame::Created) < created + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let cache = client.cache("k").await.unwrap();
    assert!(cache.status().age() < TTL / 2);

    // Less than the lease: whoever holds something still does, with less time left.
    machine_sleeps(TTL / 2);
    assert!(
        cache.status().age() >= TTL / 2,
        "nothing was heard meanwhile"
    );
    drop(cache);
    assert!(guard.is_held() && first.remaining() < TTL / 2);
    first.renew_now().await.unwrap();
    second.renew_now().await.unwrap();
    assert!(first.remaining() > TTL / 2);

    machine_sleeps(TTL);
    // At the first look, before any task or server could say anything.
    assert!(!guard.is_held() && !first.is_held() && guard.token().is_cancelled());
    assert_eq!(guard.lost().await, LostReason::NotRenewed);
    // The server knows nothing of it yet; a write through the guard is still safe, and others wait.
    let proven = guard.txn().then(Op::put("k", "1")).await.unwrap();
    assert!(proven.succeeded);
    // Who was waiting has slept too: the lock that becomes free is not his.
    server.expire(first.id());
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");
    assert_eq!(
        error.to_string().matches("renewed in time").count(),
        1,
        "{error}"
    );
    // A renewal now comes too late for what is lost, and whoever comes anew has it.
    assert!(second.renew_now().await.is_err() || !second.is_held());
    let next = hold(client.clone(), grant().await).await.unwrap();
    assert!(next.is_held() && next.fence() > guard.fence());
    assert!(!guard.is_held(), "it does not come back");

    // Nobody looks: whoever waits is told, although the timers of this process have not moved.
    let token = next.token();
    // The thread that keeps leases has done all that was asked of it, and rests.
    tokio::time::sleep(Duration::from_millis(200)).await;
    machine_sleeps(TTL);
    let told = async {
        token.cancelled().await;
        next.lost().await
    };
    let told = tokio::time::timeout(TTL / 10, told).await;
    assert_eq!(told, Ok(LostReason::NotRenewed), "soon after waking up");
}

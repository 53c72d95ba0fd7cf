//! What applications say of their own health: it costs their own lease, and no other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame};
use gonfalon::{Client, Lease, LostReason};

use super::{until, within};

/// The least that the server in memory grants.
const TTL: Duration = Duration::from_secs(2);

/// A hook that hangs until the other end is dropped, and is well then; and how often it was called.
fn hanging() -> (
    Sender<()>,
    Arc<AtomicUsize>,
    impl Fn() -> bool + Send + Sync,
) {
    let (free, hang) = channel::<()>();
    let hang = Mutex::new(hang);
    let calls = Arc::new(AtomicUsize::new(0));
    let called = calls.clone();
    let hook = move || {
        called.fetch_add(1, Ordering::SeqCst);
        hang.lock().is_ok_and(|hang| hang.recv().is_err())
    };
    (free, calls, hook)
}

/// Leases of healthy applications, with and without a hook.
async fn well(client: &Client) -> [Lease; 2] {
    let grant = client.grant(TTL);
    let plain = within(grant.clone()).await;
    let hooked = within(grant.health(|| true)).await;
    [plain, hooked].map(|lease| lease.expect("nothing is in its way"))
}

#[tokio::test]
async fn a_health_check_that_hangs_costs_its_own_lease_alone() {
    const HANGING: usize = 10;
    let server = FakeServer::start();
    let client = server.client();
    let well = well(&client).await;
    let (mut sick, mut hanging_yet) = (Vec::new(), Vec::new());
    for _ in 0..HANGING {
        let (free, calls, hook) = hanging();
        let lease = within(client.grant(TTL).health(hook)).await.unwrap();
        sick.push((lease, calls));
        hanging_yet.push(free);
    }
    for (lease, calls) in &sick {
        assert_eq!(within(lease.lost()).await, LostReason::NotRenewed);
        assert_eq!(calls.load(Ordering::SeqCst), 1, "it has not answered");
    }
    tokio::time::sleep(TTL).await;
    assert!(well.iter().all(Lease::is_held), "{well:?}");
    // Orders are carried out, and closing does not wait for a hook.
    drop(sick);
    until(|| server.leases().len() == 2).await;
    within(client.close()).await.unwrap();
    assert_eq!(server.leases(), []);
    drop(hanging_yet);
}

/// What a hook owns is dropped with its lease; this panics then.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose, when it is dropped");
    }
}

#[tokio::test]
async fn a_health_check_that_panics_costs_its_own_lease_alone() {
    let server = FakeServer::start();
    let client = server.client();
    let well = well(&client).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let called = calls.clone();
    let panics = move || {
        called.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose, when it is asked")
    };
    let sick = within(client.grant(TTL).health(panics)).await.unwrap();
    let bomb = Bomb;
    let owner = move || size_of_val(&bomb) == 0;
    let owner = within(client.grant(TTL).health(owner)).await.unwrap();
    assert_eq!(within(sick.lost()).await, LostReason::NotRenewed);
    assert!(calls.load(Ordering::SeqCst) > 1, "it is asked again");
    assert!(owner.is_held(), "what it owns does not matter yet");
    drop((owner, sick));
    until(|| server.leases().len() == 2).await;
    tokio::time::sleep(TTL).await;
    assert!(well.iter().all(Lease::is_held), "{well:?}");
    within(client.close()).await.unwrap();
}

#[tokio::test]
async fn a_lease_is_renewed_as_soon_as_its_health_check_says_yes() {
    let server = FakeServer::start();
    let client = server.client();
    let (free, calls, hook) = hanging();
    // A third of it is longer than this test takes.
    let ttl = Duration::from_mins(1);
    let lease = within(client.grant(ttl).health(hook)).await.unwrap();
    until(|| calls.load(Ordering::SeqCst) == 1).await;
    assert_eq!(server.sent(Frame::Renewal), 0, "silence is a no");
    drop(free);
    until(|| server.sent(Frame::Renewal) == 1).await;
    assert!(lease.is_held());
}

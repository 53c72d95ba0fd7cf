//! What renews leases, when the code of others that runs with it panics: a recorder of metrics, here.
//!
//! The recorder is the whole process's: the tests take turns.

#[path = "shared/waiting.rs"]
mod waiting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame};
use gonfalon::{Client, ErrorKind, Lease, LostReason};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::sync::MutexGuard;

use waiting::{until, within};

/// The least that the server in memory grants.
const TTL: Duration = Duration::from_secs(2);

const SOUND: &str = "nothing panics while it holds this lock";

const PANICS: &str = "gonfalon_client_keeper_panics_total";
const RENEWALS: &str = "gonfalon_client_lease_renewals_total";
const LEASES: &str = "gonfalon_client_leases";
const CALLS: &str = "gonfalon_client_calls_total";

/// How the recorder fails, on the thread that renews leases.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Once,
    Always,
    /// Once, and then again when what was thrown is looked after.
    Twice,
}

/// What is thrown in the last case.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose, and again");
    }
}

#[derive(Default)]
struct Faulty {
    /// At which metric.
    fault: Mutex<Option<(&'static str, Fault)>>,
    counts: Mutex<HashMap<String, Arc<AtomicU64>>>,
}

impl Faulty {
    fn set(&self, fault: Option<(&'static str, Fault)>) {
        *self.fault.lock().expect(SOUND) = fault;
    }

    /// Fails, if it is time for that.
    fn touched(&self, key: &Key) {
        if std::thread::current().name() != Some("gonfalon-leases") {
            return;
        }
        let mut fault = self.fault.lock().expect(SOUND);
        let Some((_, kind)) = fault.filter(|(name, _)| *name == key.name()) else {
            return;
        };
        if kind != Fault::Always {
            *fault = None;
        }
        drop(fault);
        match kind {
            Fault::Once | Fault::Always => panic!("on purpose, at {}", key.name()),
            Fault::Twice => std::panic::panic_any(Bomb),
        }
    }

    fn count(&self, name: &str) -> u64 {
        let counts = self.counts.lock().expect(SOUND);
        counts
            .get(name)
            .map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

/// Hands on to what tests look into.
struct Installed(&'static Faulty);

impl Recorder for Installed {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.touched(key);
        let mut counts = self.0.counts.lock().expect(SOUND);
        let count = counts.entry(key.name().to_owned()).or_default();
        Counter::from_arc(count.clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.touched(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.touched(key);
        Histogram::noop()
    }
}

/// The recorder, for this test alone until it drops the other thing.
async fn recorder() -> (&'static Faulty, MutexGuard<'static, ()>) {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    static RECORDER: OnceLock<Faulty> = OnceLock::new();
    let turn = TURN.lock().await;
    let recorder = RECORDER.get_or_init(Faulty::default);
    // Again, it is refused, and is there already.
    let _ = metrics::set_global_recorder(Installed(recorder));
    recorder.set(None);
    (recorder, turn)
}

async fn grant(client: &Client) -> Lease {
    within(client.grant(TTL)).await.expect("it is granted")
}

#[tokio::test]
async fn a_panic_in_what_renews_leases_loses_none_of_them() {
    let (recorder, _turn) = recorder().await;
    let server = FakeServer::start();
    let client = server.client();
    let leases = [grant(&client).await, grant(&client).await];
    let panics = recorder.count(PANICS);
    recorder.set(Some((RENEWALS, Fault::Once)));
    until(|| recorder.count(PANICS) > panics).await;
    // Longer than they were granted for.
    let renewed = server.sent(Frame::Renewal);
    tokio::time::sleep(2 * TTL).await;
    assert!(leases.iter().all(Lease::is_held), "{leases:?}");
    assert!(server.sent(Frame::Renewal) >= renewed + 4);
    assert_eq!(recorder.count(PANICS), panics + 1);
    // Orders are taken as before.
    let [first, second] = leases;
    drop(first);
    until(|| server.leases() == [second.id()]).await;
    within(client.close()).await.unwrap();
    assert_eq!(server.leases(), []);
}

#[tokio::test]
async fn a_lease_is_lost_in_time_when_what_renews_it_panics_again_and_again() {
    let (recorder, _turn) = recorder().await;
    let server = FakeServer::start();
    let client = server.client();
    let lease = grant(&client).await;
    let panics = recorder.count(PANICS);
    recorder.set(Some((LEASES, Fault::Always)));
    // Whoever leaves an order has it carried out, and the panic after that.
    drop(grant(&client).await);
    let began = std::time::Instant::now();
    assert_eq!(within(lease.lost()).await, LostReason::NotRenewed);
    assert!(began.elapsed() < 2 * TTL, "{:?}", began.elapsed());
    let again = recorder.count(PANICS) - panics;
    assert!((2..200).contains(&again), "with pauses: {again} panics");
    // It is not so for ever.
    recorder.set(None);
    let next = grant(&client).await;
    tokio::time::sleep(2 * TTL).await;
    assert!(next.is_held());
    within(client.close()).await.unwrap();
}

#[tokio::test]
async fn when_what_renews_leases_is_gone_for_good_that_is_said_to_everybody() {
    let (recorder, _turn) = recorder().await;
    let server = FakeServer::start();
    let client = server.client();
    let lease = within(client.grant(Duration::from_mins(5))).await.unwrap();
    let short = grant(&client).await;
    recorder.set(Some((RENEWALS, Fault::Twice)));
    // At once, and not when its time is up.
    assert_eq!(within(lease.lost()).await, LostReason::NotRenewed);
    assert_eq!(within(short.lost()).await, LostReason::NotRenewed);
    let refused = within(client.grant(TTL)).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Internal, "{refused}");
    let refused = within(client.adopt(lease.id())).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Internal, "{refused}");
    // All else goes on.
    within(client.put("k", "v")).await.unwrap();
    within(lease.revoke()).await.unwrap();
    assert_eq!(server.leases(), [short.id()]);
    let error = within(client.close()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Internal, "{error}");
}

#[tokio::test]
async fn closing_does_not_confirm_what_has_panicked() {
    let (recorder, _turn) = recorder().await;
    let server = FakeServer::start();
    let client = server.client();
    let _lease = grant(&client).await;
    until(|| server.sent(Frame::Renewal) > 0).await;
    // The first call that is counted there is the revocation.
    recorder.set(Some((CALLS, Fault::Once)));
    let error = within(client.close()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("1 leases or keys"), "{error}");
}

//! Every point at which a wait can be given up, or lose its lease: nobody gets anything he does not
//! have, and nothing stays that others would wait for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use gonfalon::{
    Claim, Client, DoubleBarrierGuard, Error, ErrorKind, KeyRange, Leadership, Lease, LockGuard,
    MultiLockGuard, Op, Permit, RwLockReadGuard, RwLockWriteGuard, Txn,
};
use gonfalon_tests::cluster::Cluster;

use super::{PATIENCE, each_server, within};

/// The most polls that a wait may take; it takes about ten.
const POLLS_MAX: usize = 60;

/// Whatever can be held.
#[derive(Debug)]
enum Held {
    Lock(LockGuard),
    Leader(Leadership),
    Reader(RwLockReadGuard),
    Writer(RwLockWriteGuard),
    Permit(Permit),
    Locks(MultiLockGuard),
    Between(DoubleBarrierGuard),
    Item(Claim),
}

macro_rules! of_any {
    ($held:expr, $guard:ident => $what:expr) => {
        match $held {
            Held::Lock($guard) => $what,
            Held::Leader($guard) => $what,
            Held::Reader($guard) => $what,
            Held::Writer($guard) => $what,
            Held::Permit($guard) => $what,
            Held::Locks($guard) => $what,
            Held::Between($guard) => $what,
            Held::Item($guard) => $what,
        }
    };
}

impl Held {
    fn txn(&self) -> Txn {
        of_any!(self, guard => guard.txn())
    }

    async fn lost(&self) {
        of_any!(self, guard => drop(guard.lost().await));
    }
}

/// Something that one waits for, while others have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recipe {
    Lock,
    Election,
    Reader,
    Writer,
    Semaphore,
    Locks,
    DoubleBarrier,
    Queue,
}

const RECIPES: [Recipe; 8] = [
    Recipe::Lock,
    Recipe::Election,
    Recipe::Reader,
    Recipe::Writer,
    Recipe::Semaphore,
    Recipe::Locks,
    Recipe::DoubleBarrier,
    Recipe::Queue,
];

impl Recipe {
    /// Waits for it with `lease`, which lives on.
    fn wait(self, client: &Client, name: &str, lease: &Lease) -> Waiting {
        let (client, name, lease) = (client.clone(), name.to_owned(), lease.clone());
        Box::pin(async move {
            Ok(match self {
                Self::Lock => Held::Lock(client.lock(name).lease(&lease).acquire().await?),
                Self::Election => {
                    let election = client.election(name).lease(&lease);
                    Held::Leader(election.campaign("me").await?)
                }
                Self::Reader => Held::Reader(client.rw_lock(name).lease(&lease).read().await?),
                Self::Writer => Held::Writer(client.rw_lock(name).lease(&lease).write().await?),
                Self::Semaphore => {
                    let semaphore = client.semaphore(name, 2).lease(&lease);
                    Held::Permit(semaphore.acquire().await?)
                }
                Self::Locks => {
                    let names = [format!("{name}/b"), format!("{name}/a")];
                    let locks = client.multi_lock(names).lease(&lease);
                    Held::Locks(locks.acquire().await?)
                }
                Self::DoubleBarrier => {
                    let barrier = client.double_barrier(name, 2).lease(&lease);
                    Held::Between(barrier.enter().await?)
                }
                Self::Queue => Held::Item(client.queue(name).claim().await?),
            })
        })
    }

    /// Makes the others have it, as etcd's own would; gives what makes way.
    async fn block(self, client: &Client, name: &str) -> Way {
        let (keys, way) = match self {
            Self::Lock | Self::Election => (vec!["/1"], Way::Delete("/1")),
            Self::Reader => (vec!["/write/1"], Way::Delete("/write/1")),
            Self::Writer => (vec!["/read/1"], Way::Delete("/read/1")),
            Self::Semaphore => (vec!["/1", "/2"], Way::Delete("/2")),
            Self::Locks => (vec!["/b/1"], Way::Delete("/b/1")),
            Self::DoubleBarrier => (Vec::new(), Way::Enter),
            Self::Queue => (Vec::new(), Way::Put("/1")),
        };
        for key in keys {
            client
                .put(format!("{name}{key}"), "")
                .await
                .expect("the server answers");
        }
        way
    }

    /// Where nothing of a wait must stay.
    fn left(self, name: &str) -> KeyRange {
        match self {
            Self::Queue => KeyRange::prefix(format!("__{name}/claims/")),
            _ => KeyRange::prefix(format!("{name}/")),
        }
    }
}

type Waited = Result<Held, Error>;
type Waiting = BoxFuture<'static, Waited>;

/// What lets a wait go on.
#[derive(Debug, Clone, Copy)]
enum Way {
    Delete(&'static str),
    Put(&'static str),
    /// The other participant comes.
    Enter,
}

impl Way {
    /// Makes way as soon as there is somebody who waits.
    fn make(self, client: &Client, recipe: Recipe, name: &str) -> tokio::task::JoinHandle<()> {
        let (client, name) = (client.clone(), name.to_owned());
        tokio::spawn(async move {
            // Who waits for an item leaves no trace.
            while recipe != Recipe::Queue && leased(&client, recipe, &name).await == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            match self {
                Self::Delete(key) => drop(
                    client
                        .delete(format!("{name}{key}"))
                        .await
                        .expect("the server answers"),
                ),
                Self::Put(key) => drop(
                    client
                        .put(format!("{name}{key}"), "")
                        .await
                        .expect("the server answers"),
                ),
                Self::Enter => {
                    client
                        .put(format!("{name}/waiters/1"), "")
                        .await
                        .expect("the server answers");
                    client
                        .put(format!("{name}/ready"), "")
                        .await
                        .expect("the server answers");
                }
            }
        })
    }
}

/// How many keys of a wait there are: those that go with a lease.
async fn leased(client: &Client, recipe: Recipe, name: &str) -> usize {
    let range = client
        .range(recipe.left(name))
        .await
        .expect("the server answers");
    range.kvs.iter().filter(|kv| kv.lease.is_some()).count()
}

/// Polls until it is ready, at most so many times: none if it is not then.
async fn polled<T>(
    future: &mut Pin<Box<dyn Future<Output = T> + Send>>,
    times: usize,
) -> Option<T> {
    let mut left = times;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            // At once: before what would wake it has happened.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// So many points are tried at a time.
const AT_ONCE: usize = 2;

/// Tries `interrupt` at the first, second, … point of a wait, until one is done before.
async fn at_every_point(
    recipe: Recipe,
    client: &Client,
    lease: impl AsyncFn() -> Lease,
    interrupt: impl AsyncFn(String, Lease, Waiting),
) -> usize {
    let at = async |point: usize| {
        let name = format!("{recipe:?}{point}");
        let lease = lease().await;
        let way = recipe.block(client, &name).await;
        let way = way.make(client, recipe, &name);
        let mut waiting = recipe.wait(client, &name, &lease);
        let done = within(polled(&mut waiting, point)).await;
        if let Some(done) = &done {
            assert!(done.is_ok(), "{recipe:?} {point}: {done:?}");
        } else {
            interrupt(name, lease, waiting).await;
            way.abort();
        }
        done.is_some()
    };
    for first in (1..POLLS_MAX).step_by(AT_ONCE) {
        let done = join_all((first..first + AT_ONCE).map(&at)).await;
        if let Some(before) = done.iter().position(|done| *done) {
            return first + before;
        }
    }
    panic!("{recipe:?} is not done after {POLLS_MAX} polls");
}

/// Waits until nothing is left of a wait but what this test has put there itself.
async fn nothing_stays(client: &Client, recipe: Recipe, name: &str) {
    let gone = async {
        while leased(client, recipe, name).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "{recipe:?}: a key of {name} stays");
}

/// A client whose deletions of what was given up follow each other sooner.
fn quick(cluster: &Cluster) -> Client {
    Client::builder()
        .endpoints(cluster.endpoints())
        .deadline(Duration::from_secs(5))
        .build()
        .expect("the endpoints are addresses")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_given_up_at_any_point_leaves_nothing() {
    each_server(async |cluster, _| {
        let client = quick(cluster);
        let shared = client.grant(Duration::from_mins(1)).await.unwrap();
        let all = RECIPES.map(async |recipe| {
            let lease = async || shared.clone();
            let dropped = async |name: String, _: Lease, waiting: Waiting| {
                drop(waiting);
                nothing_stays(&client, recipe, &name).await;
            };
            at_every_point(recipe, &client, lease, dropped).await
        });
        let points = join_all(all).await;
        eprintln!("points: {points:?}");
        assert!(points.iter().all(|&points| points > 3), "{points:?}");
        assert!(shared.is_held());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_his_lease_at_any_point_of_a_wait_gets_nothing() {
    each_server(async |cluster, direct| {
        let client = quick(cluster);
        let all = RECIPES.map(async |recipe| {
            // A claim goes with a lease of the queue's own.
            if recipe == Recipe::Queue {
                return;
            }
            let lease = async || client.grant(Duration::from_mins(1)).await.unwrap();
            let revoked = async |name: String, lease: Lease, waiting: Waiting| {
                direct.revoke(lease.id()).await.unwrap();
                match within(waiting).await {
                    Err(error) => assert_eq!(*error.kind(), ErrorKind::Lost, "{recipe:?} {error}"),
                    // It was confirmed before, and that was under way.
                    Ok(held) => {
                        let late = held.txn().then(Op::put("late", "")).await.unwrap();
                        assert!(!late.succeeded, "{recipe:?}: {held:?}");
                        within(held.lost()).await;
                    }
                }
                nothing_stays(&direct, recipe, &name).await;
            };
            at_every_point(recipe, &client, lease, revoked).await;
        });
        join_all(all).await;
        assert!(direct.get("late").await.unwrap().is_none());
    })
    .await;
}

/// The clock alone tells: no server has said anything yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_stopped_for_longer_than_his_lease_at_any_point_of_a_wait_gets_nothing() {
    each_server(async |cluster, direct| {
        let client = quick(cluster);
        let all = RECIPES.map(async |recipe| {
            if recipe == Recipe::Queue {
                return;
            }
            let lease = async || {
                let dying = client.grant(Duration::from_secs(2)).health(|| false);
                dying.await.unwrap()
            };
            let stopped = async |name: String, lease: Lease, waiting: Waiting| {
                within(lease.lost()).await;
                let error = within(waiting).await.expect_err("its time was up");
                assert_eq!(*error.kind(), ErrorKind::Lost, "{recipe:?} {error}");
                nothing_stays(&direct, recipe, &name).await;
            };
            at_every_point(recipe, &client, lease, stopped).await;
        });
        join_all(all).await;
    })
    .await;
}

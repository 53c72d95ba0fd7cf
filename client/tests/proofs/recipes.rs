//! Recipes when answers are lost, streams break, history goes and stores are restored.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all, try_join_all};
use gonfalon::testkit::{FakeServer, Frame, OnNext, Rpc};
use gonfalon::{Client, Error, ErrorKind, KeyRange, Lease, LostReason, Op, Outcome};

use super::within;

/// A client that does not wait long between attempts, and has enough of them.
fn client(server: &FakeServer) -> Client {
    let builder = server.client_builder().retry_share(1.0);
    let builder = builder.backoff(Duration::from_millis(1), Duration::from_millis(5));
    builder.build().expect("nothing is wrong with these")
}

/// How many keys there are that go with a lease, but for what proves writes.
async fn contenders(client: &Client) -> usize {
    let all = client.range(KeyRange::all()).await;
    let all = all.expect("the server answers").kvs;
    let is_proof = |key: &[u8]| key.windows(6).any(|part| part == b"/once/");
    let contenders = all.iter().filter(|kv| kv.lease.is_some());
    contenders.filter(|kv| !is_proof(&kv.key)).count()
}

async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let checked = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let checked = tokio::time::timeout(super::PATIENCE, checked).await;
    assert!(checked.is_ok(), "{what}");
}

/// Whatever is held; dropped, it is given up.
pub(super) type Held = Box<dyn Debug + Send>;
pub(super) type Waiting = BoxFuture<'static, Result<Held, Error>>;

/// Something that is waited for, and what the test puts in the way and takes out of it.
pub(super) struct Wait {
    pub(super) name: &'static str,
    pub(super) begin: fn(Client, Lease) -> Waiting,
    pub(super) block: fn(&FakeServer),
    pub(super) make_way: fn(&FakeServer),
}

macro_rules! wait {
    ($name:literal, |$client:ident, $lease:ident| $held:expr, $block:expr, $make_way:expr) => {
        Wait {
            name: $name,
            begin: |$client, $lease| Box::pin(async move { Ok(Box::new($held) as Held) }),
            block: $block,
            make_way: $make_way,
        }
    };
}

pub(super) const WAITS: [Wait; 7] = [
    wait!(
        "lock",
        |client, lease| client.lock("n").lease(&lease).acquire().await?,
        |server| {
            server.put("n/0", "");
        },
        |server| {
            server.delete("n/0");
        }
    ),
    wait!(
        "election",
        |client, lease| client.election("n").lease(&lease).campaign("me").await?,
        |server| {
            server.put("n/0", "");
        },
        |server| {
            server.delete("n/0");
        }
    ),
    wait!(
        "read lock",
        |client, lease| client.rw_lock("n").lease(&lease).read().await?,
        |server| {
            server.put("n/write/0", "");
        },
        |server| {
            server.delete("n/write/0");
        }
    ),
    wait!(
        "semaphore",
        |client, lease| client.semaphore("n", 2).lease(&lease).acquire().await?,
        |server| {
            server.txn([Op::put("n/0", ""), Op::put("n/1", "")]);
        },
        |server| {
            server.delete("n/1");
        }
    ),
    wait!(
        "several locks",
        |client, lease| client
            .multi_lock(["m", "n"])
            .lease(&lease)
            .acquire()
            .await?,
        |server| {
            server.put("n/0", "");
        },
        |server| {
            server.delete("n/0");
        }
    ),
    wait!(
        "double barrier",
        |client, lease| client.double_barrier("n", 2).lease(&lease).enter().await?,
        |_| (),
        |server| {
            server.txn([Op::put("n/waiters/0", ""), Op::put("n/ready", "")]);
        }
    ),
    wait!(
        "queue",
        |client, _lease| client.queue("n").claim().await?,
        |_| (),
        |server| {
            server.put("n/0", "item");
        }
    ),
];

impl Wait {
    /// Has others have it, begins to wait, and makes way when it waits.
    async fn run(&self, server: &FakeServer, client: &Client, lease: &Lease) -> Held {
        (self.block)(server);
        let before = server.sent(Frame::Created);
        let waiting = tokio::spawn((self.begin)(client.clone(), lease.clone()));
        until("it waits", async || {
            server.sent(Frame::Created) >= before + 2
        })
        .await;
        (self.make_way)(server);
        let held = within(waiting).await.expect("it does not panic");
        held.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// How many contenders' keys stand for it.
    fn keys(&self) -> usize {
        if self.name == "several locks" { 2 } else { 1 }
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy)]
enum Lost {
    Request,
    Answer,
}

impl Lost {
    fn on(self, next: OnNext<'_>) {
        match self {
            Self::Request => next.drop_request(),
            Self::Answer => next.drop_response(),
        }
    }
}

/// Each transaction in turn is lost, on the way there or on the way back: what has become of it is
/// found out, nothing is done twice, and nothing stays.
async fn each_transaction_in_turn(lost: Lost) {
    for wait in WAITS {
        for number in 0.. {
            let server = FakeServer::start();
            let client = client(&server);
            let lease = client.grant(Duration::from_mins(1)).await;
            let lease = lease.expect("nothing is in its way");
            if number > 0 {
                let others = server.on_next(Rpc::Txn).times(number);
                others.delay(Duration::ZERO);
            }
            lost.on(server.on_next(Rpc::Txn));
            let held = wait.run(&server, &client, &lease).await;
            let sent = server.received(Rpc::Txn);
            let keys = contenders(&client).await;
            assert_eq!(keys, wait.keys(), "{}, transaction {number}", wait.name);
            drop(held);
            until("nothing stays", async || contenders(&client).await == 0).await;
            if sent <= number {
                assert!(number >= 2, "{}: {number} transactions", wait.name);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_transaction_of_a_wait_whose_answer_is_lost_took_place_once() {
    each_transaction_in_turn(Lost::Answer).await;
}

#[tokio::test]
async fn a_transaction_of_a_wait_that_is_lost_itself_is_sent_again() {
    each_transaction_in_turn(Lost::Request).await;
}

#[tokio::test]
async fn a_wait_goes_on_when_the_stream_breaks_after_any_message() {
    for wait in WAITS {
        for number in 1..8 {
            let server = FakeServer::builder().members(2).start();
            let client = client(&server);
            let lease = client.grant(Duration::from_mins(1)).await.unwrap();
            server.cut_after(Frame::Any, number);
            let held = wait.run(&server, &client, &lease).await;
            assert_eq!(contenders(&client).await, wait.keys(), "{}", wait.name);
            drop(held);
        }
    }
}

/// The deletion, or the item, is in the history that nobody has any more when the stream is back.
#[tokio::test]
async fn a_wait_goes_on_when_what_it_waits_for_is_in_history_that_is_gone() {
    for wait in WAITS {
        let server = FakeServer::start();
        let client = client(&server);
        let lease = client.grant(Duration::from_mins(1)).await.unwrap();
        (wait.block)(&server);
        let waiting = tokio::spawn((wait.begin)(client.clone(), lease.clone()));
        until("it waits", async || server.sent(Frame::Created) >= 2).await;
        server.member(0).stop();
        (wait.make_way)(&server);
        server.put("other", "1");
        server.compact_now();
        server.member(0).start();
        let held = within(waiting).await.unwrap();
        let held = held.unwrap_or_else(|error| panic!("{}: {error}", wait.name));
        assert_eq!(contenders(&client).await, wait.keys(), "{}", wait.name);
        drop(held);
    }
}

#[tokio::test]
async fn a_hand_over_is_one_event_and_one_transaction_with_a_hundred_waiters() {
    const WAITERS: usize = 100;
    let server = FakeServer::start();
    let client = client(&server);
    let lease = client.grant(Duration::from_mins(1)).await.unwrap();
    let mut guard = client.lock("h").lease(&lease).acquire().await.unwrap();
    let mut waiting = Vec::new();
    for number in 1..=WAITERS {
        let lock = client.lock("h").lease(&lease);
        waiting.push(tokio::spawn(async move { lock.acquire().await.unwrap() }));
        until("it waits", async || contenders(&client).await == number + 1).await;
    }
    // Each of them watches two keys, and the holder his own.
    let watches = 2 * WAITERS + 1;
    until("all watch", async || server.sent(Frame::Created) >= watches).await;
    let (txns, events) = (server.received(Rpc::Txn), server.sent(Frame::Events));
    for next in waiting {
        guard.release().await.unwrap();
        guard = within(next).await.unwrap();
    }
    let txns = server.received(Rpc::Txn) - txns;
    let events = server.sent(Frame::Events) - events;
    eprintln!("{WAITERS} hand-overs: {txns} transactions, {events} events");
    assert_eq!(txns, 2 * WAITERS, "one to release, and one to look");
    // Whoever releases may be told of it before his own watch is cancelled.
    assert!(
        (WAITERS..=WAITERS + WAITERS / 10).contains(&events),
        "{events}"
    );
}

#[tokio::test]
async fn a_restored_store_ends_what_was_held_and_its_fences_say_nothing_about_the_new_one() {
    let server = FakeServer::start();
    let client = client(&server);
    let lease = client.grant(Duration::from_mins(1)).await.unwrap();
    client.put("k", "1").await.unwrap();
    let backup = server.revision();
    let guard = client.lock("r").lease(&lease).acquire().await.unwrap();
    server.restore(backup);
    assert_eq!(within(guard.lost()).await, LostReason::KeyDeleted);
    assert!(!guard.txn().then(Op::put("k", "2")).await.unwrap().succeeded);
    let next = client.lock("r").acquire().await.unwrap();
    assert_eq!(next.fence().partial_cmp(&guard.fence()), None);
    assert_ne!(next.fence().cluster(), guard.fence().cluster());
}

#[tokio::test]
async fn what_is_counted_or_put_in_a_queue_is_written_once_whatever_is_lost() {
    for lost in [Lost::Request, Lost::Answer] {
        for times in 1..4 {
            let server = FakeServer::start();
            let client = client(&server);
            let (counter, queue) = (client.counter("c"), client.queue("q"));
            let wrong = || lost.on(server.on_next(Rpc::Txn).times(times));
            wrong();
            assert_eq!(counter.add(5).await.unwrap(), 5);
            wrong();
            assert_eq!(counter.add(5).await.unwrap(), 10);
            // The counter moves on before the answer that was lost is looked for.
            assert_eq!(client.counter("c").add(1).await.unwrap(), 11);
            wrong();
            assert_eq!(within(counter.add(5)).await.unwrap(), 16);
            assert_eq!(server.get("c").unwrap().value, "16");
            for number in 1..=3 {
                wrong();
                queue.enqueue(format!("{number}")).await.unwrap();
            }
            assert_eq!(queue.count().await.unwrap(), 3);
            wrong();
            assert_eq!(queue.dequeue().await.unwrap(), "1");
            let claim = queue.claim().await.unwrap();
            assert_eq!(claim.value(), "2");
            wrong();
            claim.done().await.unwrap();
            assert_eq!(queue.count().await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unknown_or_proven_as_one_likes() {
    let server = FakeServer::start();
    let client = client(&server);
    let stm = client.stm();
    let write = |txn: gonfalon::StmTxn| async move {
        let before = txn.get("s").await?.unwrap_or_default();
        txn.put("s", [&before[..], b"x"].concat())?;
        Ok::<_, Error>(())
    };
    server.on_next(Rpc::Txn).drop_response();
    let error = stm.run(write).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(server.get("s").unwrap().value, "x", "it was not repeated");
    let stm = stm.once("s");
    server.on_next(Rpc::Txn).times(2).drop_response();
    let ((), revision) = stm.run(write).await.unwrap();
    let stored = server.get("s").unwrap();
    assert_eq!(
        (&stored.value[..], stored.mod_revision),
        (&b"xx"[..], revision)
    );
}

/// The store goes back between two reads: the revision of the first is in the future then.
#[tokio::test]
async fn a_function_begins_anew_when_its_revision_has_not_happened_any_more() {
    let server = FakeServer::start();
    let client = client(&server);
    server.put("a", "1");
    let backup = server.revision();
    server.put("a", "2");
    let runs = AtomicU32::new(0);
    let (read, _) = client
        .stm()
        .run(|txn| {
            let is_first = runs.fetch_add(1, Ordering::SeqCst) == 0;
            let server = &server;
            async move {
                let first = txn.get("a").await?;
                if is_first {
                    server.roll_back(backup);
                }
                txn.get("b").await?;
                txn.put("c", "1")?;
                Ok::<_, Error>(first)
            }
        })
        .await
        .unwrap();
    assert_eq!(read.unwrap(), "1");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_lease_that_ends_on_the_server_ends_all_that_was_held_with_it() {
    let server = FakeServer::start();
    let client = client(&server);
    let lease = client.grant(Duration::from_secs(2)).await.unwrap();
    let lock = client.lock("l").lease(&lease).acquire().await.unwrap();
    let leads = client.election("e").lease(&lease);
    let leads = leads.campaign("me").await.unwrap();
    let permit = client.semaphore("s", 1).lease(&lease);
    let permit = permit.acquire().await.unwrap();
    assert!(server.expire(lease.id()));
    join_all([
        Box::pin(async {
            within(lock.lost()).await;
        }) as BoxFuture<'_, ()>,
        Box::pin(async {
            within(leads.lost()).await;
        }),
        Box::pin(async {
            within(permit.lost()).await;
        }),
    ])
    .await;
    let error = leads.proclaim("still me").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Lost);
    assert!(!lock.is_held() && !permit.is_held());
    assert!(within(client.lock("l").acquire()).await.unwrap().is_held());
}

/// The first says at which revision the others are; these need not wait for each other.
#[tokio::test(start_paused = true)]
async fn the_reads_of_a_transaction_are_on_their_way_together() {
    let server = FakeServer::start();
    let client = server.client();
    for key in ["a", "b", "c", "d"] {
        server.put(key, key);
    }
    let second = Duration::from_secs(1);
    server.on_next(Rpc::Range).times(4).delay(second);
    let began = tokio::time::Instant::now();
    let read = |txn: gonfalon::StmTxn| async move {
        let reads = ["a", "b", "c", "d"].map(|key| txn.get(key));
        let read = try_join_all(reads).await?;
        // Known by now, and one is no more than the other.
        assert_eq!(txn.get("a").await?, read[0]);
        Ok::<_, Error>(read)
    };
    let (read, at) = client.stm().run(read).await.unwrap();
    assert_eq!(read, ["a", "b", "c", "d"].map(|key| Some(Bytes::from(key))));
    assert_eq!((at, server.received(Rpc::Range)), (server.revision(), 4));
    assert!(began.elapsed() < 3 * second, "{:?}", began.elapsed());

    // More of them at once than it may have keys are still too many.
    let many = |txn: gonfalon::StmTxn| async move {
        let reads = ["a", "b", "c", "d"].map(|key| txn.get(key));
        try_join_all(reads).await
    };
    let error = client.stm().ops_max(2).run(many).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::TooLarge, "{error}");
}

//! Members that die, and endpoints that never were: calls, watches and leases go on.

use std::time::Duration;

use gonfalon::{Client, ConnectionState, ErrorKind, KeyRange, Outcome, Revision, WatchState};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::{Cluster, free_port};
use gonfalon_tests::relay::Relay;

use super::{PATIENCE, client, each_server, next};

#[tokio::test]
async fn a_dead_endpoint_among_living_ones_costs_no_call() {
    each_server(async |cluster, _| {
        let dead = format!("127.0.0.1:{}", free_port().unwrap());
        let endpoints = [dead, cluster.member(0).endpoint()];
        let client = Client::connect(endpoints).await.unwrap();
        for number in 0..50 {
            client.put("k", format!("{number}")).await.unwrap();
        }
        assert_eq!(client.get("k").await.unwrap().unwrap().version, 50);
        assert_eq!(*client.state().borrow(), ConnectionState::Ready);
    })
    .await;
}

#[tokio::test]
async fn when_no_endpoint_lives_a_write_is_known_not_to_have_happened() {
    let dead = format!("127.0.0.1:{}", free_port().unwrap());
    let client = Client::builder()
        .endpoints(&dead)
        .deadline(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connect, "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.attempts() > 1 && error.is_retryable(), "{error}");
    assert!(error.endpoint().unwrap().contains(&dead));
    assert_eq!(*client.state().borrow(), ConnectionState::Failing);
}

/// The answer is cut off: the write has happened, and the client must not say that it has not, nor
/// do it again.
#[tokio::test]
async fn a_write_whose_answer_is_lost_is_unknown_and_not_repeated() {
    each_server(async |cluster, direct| {
        let relay = Relay::to(cluster.member(0).client_port()).await.unwrap();
        let client = Client::connect(relay.endpoint()).await.unwrap();
        client.put("u", "0").await.unwrap();
        relay.cut_after(0);
        let error = client.put("u", "1").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert!(!error.is_retryable());
        assert_eq!(error.attempts(), 1);
        let kv = direct.get("u").await.unwrap().unwrap();
        assert!(kv.version <= 2, "it was not written twice: {kv:?}");

        // A read whose answer is lost is simply asked again.
        relay.cut_after(0);
        assert!(client.get("u").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn the_members_themselves_say_where_they_are() {
    let cluster = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let client = Client::connect(cluster.member(0).endpoint()).await.unwrap();
    client.sync_endpoints().await.unwrap();
    let mut known: Vec<String> = client.endpoints().iter().map(ToString::to_string).collect();
    let mut all: Vec<String> = (0..3)
        .map(|at| format!("http://{}", cluster.member(at).endpoint()))
        .collect();
    known.sort();
    all.sort();
    assert_eq!(known, all);
    assert_eq!(client.cluster().members().await.unwrap().len(), 3);
}

/// Every member is killed once while a client writes, watches and holds a lease.
#[tokio::test]
async fn calls_watches_and_leases_outlive_every_member_in_turn() {
    let mut cluster = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let client = client(&cluster);
    let lease = client.grant(Duration::from_secs(20)).await.unwrap();
    client.put("f/lease", "held").lease(&lease).await.unwrap();
    let mut watch = client.watch(KeyRange::prefix("f/")).await.unwrap();
    let mut acknowledged: Vec<Revision> = Vec::new();
    for at in 0..3 {
        cluster.kill(at).unwrap();
        let mut written = 0;
        while written < 20 {
            match client.put("f/k", "v").deadline(PATIENCE).await {
                Ok(put) => {
                    acknowledged.push(put.revision);
                    written += 1;
                }
                // The one that was under way when the member died.
                Err(error) => assert_eq!(error.outcome(), Outcome::Unknown, "{error}"),
            }
        }
        cluster.start_member(at).unwrap();
        cluster.ready().await.unwrap();
    }
    let last = *acknowledged.last().unwrap();
    let mut seen: Vec<Revision> = Vec::new();
    while seen.last() < Some(&last) {
        let batch = next(&mut watch).await;
        seen.extend(batch.events.iter().map(|event| event.kv.mod_revision));
    }
    assert!(seen.is_sorted_by(|one, next| one < next), "in order, once");
    for revision in &acknowledged {
        assert!(seen.binary_search(revision).is_ok(), "{revision} was lost");
    }
    assert!(lease.is_held());
    assert!(client.get("f/lease").await.unwrap().is_some());
}

/// etcd's issue 15247: a leader that was stopped wakes up, finds the time of every lease up, and has
/// its successor end them, although they were renewed all the while.
#[tokio::test]
async fn a_leader_that_hangs_and_wakes_up_ends_no_lease_that_is_renewed() {
    let mut cluster = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let others = (0..3).filter(|&at| at != leader);
    let others: Vec<String> = others.map(|at| cluster.member(at).endpoint()).collect();
    let client = Client::connect(others).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(client.grant(Duration::from_secs(6)).await.unwrap());
    }
    cluster.pause(leader).unwrap();
    // Longer than they are granted for. They are renewed through the others as soon as one of these
    // leads: none waits for the one that hangs.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(leases.iter().all(gonfalon::Lease::is_held), "{leases:?}");
    cluster.resume(leader).unwrap();
    // Expired leases are looked for twice a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for lease in &leases {
        assert!(lease.is_held(), "{lease:?}");
        client.lease_info(lease.id(), false).await.unwrap();
    }
}

/// "Nothing happened", "nobody can be reached" and "the member is cut off from the others" are three
/// different things, and a client sees which it is.
#[tokio::test]
async fn a_member_without_a_leader_is_told_from_one_that_is_quiet_and_from_none() {
    let mut cluster = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let (own, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let client = Client::builder()
        .endpoints(cluster.member(own).endpoint())
        .deadline(Duration::from_secs(1))
        .build()
        .unwrap();
    let watch = client.watch("q").await.unwrap();
    let mut state = client.state();
    let mut becomes = async |wanted| {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while *state.borrow_and_update() != wanted {
            // What is said of a member is as old as the last call.
            let _ = client.put("o", "1").await;
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "{:?}, not {wanted:?}", *state.borrow());
        }
    };
    // Nothing happens: the watch is live.
    becomes(ConnectionState::Ready).await;
    assert_eq!(watch.state(), WatchState::Live);
    // The member is there and answers, and knows of nobody who leads.
    cluster.pause(leader).unwrap();
    cluster.pause(other).unwrap();
    becomes(ConnectionState::NoLeader).await;
    stands(&watch, WatchState::Resuming).await;
    // Nobody is there.
    cluster.kill(own).unwrap();
    becomes(ConnectionState::Failing).await;
    cluster.resume(leader).unwrap();
    cluster.resume(other).unwrap();
    cluster.start_member(own).unwrap();
    cluster.ready().await.unwrap();
    becomes(ConnectionState::Ready).await;
    stands(&watch, WatchState::Live).await;
}

/// Waits until a watch stands so.
async fn stands(watch: &gonfalon::Watch, wanted: WatchState) {
    let stands = async {
        while watch.state() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    super::within(stands).await;
}

/// A member that was stopped while others wrote answers at once when it goes on: with what it had.
#[tokio::test]
async fn a_member_that_lags_does_not_take_a_client_back_in_time() {
    for server in [Server::Gonfalon, Server::Etcd34] {
        let mut cluster = Cluster::start(server, 3).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        let lagging = (leader + 1) % 3;
        let endpoints = cluster.endpoints();
        let one = |at: usize, goes_forward| {
            Client::builder()
                .endpoints(&endpoints[at])
                .reads_go_forward(goes_forward)
                .deadline(PATIENCE)
                .build()
                .unwrap()
        };
        // Whoever knows only the lagging member and does not mind sees that it lags.
        let careless = one(lagging, false);
        let writer = one(leader, true);
        careless.get("k").serializable().await.unwrap();
        let mut has_lagged = false;
        for round in 0..5 {
            let client = one(leader, true);
            client.sync_endpoints().await.unwrap();
            cluster.pause(lagging).unwrap();
            for number in 0..200 {
                writer.put("k", format!("{round} {number}")).await.unwrap();
            }
            // The client hears of it from one that does not lag.
            let floor = writer.revision_floor();
            while client.revision_floor() < floor {
                let read = client.get("k").deadline(Duration::from_millis(500));
                let _ = read.await;
            }
            // On their way before it goes on.
            let stale = tokio::spawn(careless.range("k").serializable().into_future());
            let reads =
                (0..9).map(|_| tokio::spawn(client.range("k").serializable().into_future()));
            let reads: Vec<_> = reads.collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.resume(lagging).unwrap();
            for read in reads {
                let page = read.await.unwrap().unwrap();
                assert!(page.revision >= floor, "{page:?} is before {floor}");
            }
            has_lagged |= stale.await.unwrap().unwrap().revision < floor;
            cluster.ready().await.unwrap();
        }
        assert!(has_lagged, "{server:?}: no read met a member that lags");
    }
}

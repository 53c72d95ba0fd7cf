//! Elections: one leader, work that ends with leadership, and everybody sees who leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gonfalon::{ErrorKind, LeaderContext, LeaderState, Led, LostReason, Op};
use gonfalon_tests::etcdctl::Etcdctl;

use super::recipes::{TTL, contenders, etcdctl_with, says};
use super::{each_server, within};

#[tokio::test]
async fn candidates_lead_in_turn_and_everybody_sees_who() {
    each_server(async |cluster, client| {
        let election = client.election("e").ttl(TTL);
        let mut seen = super::client(cluster)
            .election("e")
            .observe()
            .await
            .unwrap();
        assert_eq!(within(seen.next()).await, Some(LeaderState::Vacant));
        let value = async |seen: &mut gonfalon::LeaderChanges| match within(seen.next()).await {
            Some(LeaderState::Led(leader)) => leader,
            other => panic!("{other:?}"),
        };

        let first = election.campaign("one").await.unwrap();
        let led = value(&mut seen).await;
        assert_eq!(
            (led.value.as_ref(), led.fence),
            (&b"one"[..], first.fence().revision())
        );
        first.proclaim("still one").await.unwrap();
        assert_eq!(value(&mut seen).await.value, "still one");
        let second = election.clone();
        let second = tokio::spawn(async move { second.campaign("two").await });
        contenders(&client, "e", 2).await;
        assert_eq!(election.leader().await.unwrap().unwrap().value, "still one");
        first.resign().await.unwrap();
        let second = within(second).await.unwrap().unwrap();
        assert_eq!(value(&mut seen).await.value, "two");

        client.delete(second.key()).await.unwrap();
        assert_eq!(within(seen.next()).await, Some(LeaderState::Vacant));
        let error = second.proclaim("me?").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Lost);
        assert_eq!(election.leader().await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn etcds_own_election_and_ours_have_one_leader() {
    each_server(async |cluster, client| {
        let mut theirs = etcdctl_with(cluster, &["elect", "job", "theirs"]);
        let mut theirs = theirs.spawn().unwrap();
        contenders(&client, "job", 1).await;
        let election = client.election("job").ttl(TTL);
        let led = election.leader().await.unwrap().unwrap();
        assert_eq!(led.value, "theirs");
        let ours = tokio::spawn(async move { election.campaign("ours").await });
        contenders(&client, "job", 2).await;
        assert!(!ours.is_finished());
        client.delete(&led.key).await.unwrap();
        let ours = within(ours).await.unwrap().unwrap();
        assert!(ours.is_held() && ours.fence().revision() > led.fence);
        theirs.kill().unwrap();
        theirs.wait().unwrap();
    })
    .await;
}

#[tokio::test]
async fn etcdctl_and_we_lead_in_the_order_in_which_we_came_and_see_each_other() {
    each_server(async |cluster, client| {
        let mut etcdctl = Etcdctl::new(cluster).unwrap();
        let election = client.election("office").ttl(TTL);
        let mut seen = election.observe().await.unwrap();
        let leads = async |seen: &mut gonfalon::LeaderChanges, wanted: &str| {
            loop {
                match within(seen.next()).await {
                    Some(LeaderState::Led(leader)) if leader.value == wanted => return leader,
                    Some(_) => {}
                    None => panic!("nobody is seen any more"),
                }
            }
        };
        let first = election.campaign("first").await.unwrap();
        leads(&mut seen, "first").await;
        let observer = etcdctl.start(&["elect", "-l", "office"]).unwrap();
        assert!(says(&observer, 2).await.ends_with("\nfirst\n"));
        let second = etcdctl.start(&["elect", "office", "second"]).unwrap();
        contenders(&client, "office", 2).await;
        let third = election.clone();
        let third = tokio::spawn(async move { third.campaign("third").await });
        contenders(&client, "office", 3).await;
        first.proclaim("first, still").await.unwrap();
        leads(&mut seen, "first, still").await;
        assert!(says(&observer, 4).await.ends_with("\nfirst, still\n"));
        assert_eq!(second.said().unwrap(), "");
        assert!(!third.is_finished());

        first.resign().await.unwrap();
        let said = says(&second, 2).await;
        let leader = leads(&mut seen, "second").await;
        let key = std::str::from_utf8(&leader.key).unwrap();
        assert_eq!(said, format!("{key}\nsecond\n"), "as both sides see it");
        assert!(says(&observer, 6).await.ends_with(&said));
        assert!(!third.is_finished());

        second.interrupt().unwrap();
        let third = within(third).await.unwrap().unwrap();
        assert!(third.is_held() && third.fence().revision() > leader.fence);
        leads(&mut seen, "third").await;
        assert!(says(&observer, 8).await.ends_with("\nthird\n"));
    })
    .await;
}

/// Counts how many work at a time.
#[derive(Debug, Default)]
struct Office {
    workers: AtomicU32,
    terms: AtomicU32,
}

impl Office {
    fn enter(&self) -> u32 {
        assert_eq!(
            self.workers.fetch_add(1, Ordering::SeqCst),
            0,
            "twice at a time"
        );
        self.terms.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn leave(&self) {
        self.workers.fetch_sub(1, Ordering::SeqCst);
    }

    async fn term(&self, number: u32) {
        let begun = async {
            while self.terms.load(Ordering::SeqCst) < number {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(begun).await;
    }
}

#[tokio::test]
async fn a_leaders_work_is_cancelled_waited_for_and_begun_again() {
    each_server(async |_, client| {
        let office = Arc::new(Office::default());
        let election = client.election("r").ttl(TTL);
        let desk = office.clone();
        let running = tokio::spawn(async move {
            let lead = |context: LeaderContext| {
                let desk = desk.clone();
                async move {
                    let term = desk.enter();
                    if term < 3 {
                        context.token().cancelled().await;
                        // It takes a while to stop.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        let late = context.txn().then(Op::put("r-late", "1")).await.unwrap();
                        assert!(!late.succeeded && !context.is_held());
                    }
                    desk.leave();
                    term
                }
            };
            election.run("me", lead).await
        });
        for term in 1..3 {
            office.term(term).await;
            let leader = client.election("r").leader().await.unwrap().unwrap();
            client.delete(&leader.key).await.unwrap();
        }
        assert_eq!(within(running).await.unwrap().unwrap(), 3);
        assert_eq!(client.election("r").leader().await.unwrap(), None);
        assert!(client.get("r-late").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn work_that_does_not_stop_is_dropped_and_that_is_said() {
    each_server(async |_, client| {
        let election = client.election("o").ttl(TTL);
        let election = election.stop_budget(Duration::from_millis(200));
        let office = Arc::new(Office::default());
        let desk = office.clone();
        let running = tokio::spawn(async move {
            let lead = |_| async move {
                desk.enter();
                let _leaves = Leaves(desk);
                std::future::pending::<()>().await;
            };
            election.run_once("me", lead).await.unwrap()
        });
        office.term(1).await;
        let leader = client.election("o").leader().await.unwrap().unwrap();
        let began = Instant::now();
        client.delete(&leader.key).await.unwrap();
        let led = within(running).await.unwrap();
        let reason = LostReason::KeyDeleted;
        assert_eq!(led, Led::Lost { reason, work: None });
        assert!(began.elapsed() >= Duration::from_millis(200));
        assert_eq!(office.workers.load(Ordering::SeqCst), 0, "it was dropped");
    })
    .await;
}

struct Leaves(Arc<Office>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[tokio::test]
async fn whoever_lost_the_lease_he_leads_with_does_not_campaign_for_ever() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).await.unwrap();
        let election = client.election("l").lease(&lease);
        let lead = |context: LeaderContext| async move { context.lost().await };
        let running = tokio::spawn(async move { election.run("me", lead).await });
        contenders(&client, "l", 1).await;
        lease.revoke().await.unwrap();
        let error = within(running).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");
    })
    .await;
}

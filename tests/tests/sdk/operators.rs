//! What operators do: members, alarms, hashes, snapshots, the leader.

use gonfalon::{Alarm, AlarmKind, Client, ErrorKind, Outcome, Revision};
use gonfalon_tests::binaries::{Server, etcdctl};
use gonfalon_tests::cluster::{Cluster, free_port};
use sha2::{Digest as _, Sha256};

use super::{client, each_server, within};

#[tokio::test]
async fn members_are_listed_by_the_leader_and_by_whoever_is_asked() {
    each_server(async |cluster, client| {
        // They say where clients find them when they have started; and whoever is asked for what it
        // has itself may hear of that later.
        let published = async {
            loop {
                let members = client.cluster().members().await.unwrap();
                let local = client.cluster().members_serializable().await.unwrap();
                if members.iter().all(|member| !member.client_urls.is_empty()) && local == members {
                    return members;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let members = within(published).await;
        assert_eq!(members.len(), cluster.size());
        for at in 0..cluster.size() {
            let started = cluster.member(at);
            let found = members.iter().find(|member| member.name == started.name());
            let found = found.expect("it is listed");
            assert_eq!(
                found.client_urls,
                [format!("http://{}", started.endpoint())]
            );
            assert!(found.id != 0 && !found.is_learner);
        }
    })
    .await;
}

#[tokio::test]
async fn a_learner_is_added_changed_refused_a_vote_and_removed() {
    for server in [Server::Etcd34, Server::Etcd35] {
        let running = Cluster::start(server, 1).await.unwrap();
        let client = client(&running);
        let cluster = client.cluster();
        // etcd drops a change of members that is proposed before its Raft has noted that the one
        // before is applied, and the caller waits in vain. A write in between comes after that.
        let settled = async || client.put("settled", "").await.unwrap();
        let url = format!("http://127.0.0.1:{}", free_port().unwrap());
        let other = format!("http://127.0.0.1:{}", free_port().unwrap());
        let learner = cluster.add_learner([&url]).await.unwrap();
        assert!(learner.is_learner && learner.name.is_empty());
        assert_eq!(learner.peer_urls, [url.as_str()]);
        settled().await;
        assert_eq!(cluster.members().await.unwrap().len(), 2);

        let twice = cluster.add_learner([&url]).await.unwrap_err();
        assert_eq!(*twice.kind(), ErrorKind::AlreadyExists, "{twice}");
        let early = cluster.promote(learner.id).await.unwrap_err();
        assert_eq!(*early.kind(), ErrorKind::FailedPrecondition, "{early}");
        assert_eq!(early.outcome(), Outcome::NotApplied);
        let bad = cluster.add(["no url"]).await.unwrap_err();
        assert_eq!(*bad.kind(), ErrorKind::InvalidArgument, "{bad}");

        let members = cluster.update(learner.id, [&other]).await.unwrap();
        settled().await;
        let moved = members.iter().find(|member| member.id == learner.id);
        assert_eq!(moved.expect("it is there").peer_urls, [other.as_str()]);
        assert_eq!(cluster.remove(learner.id).await.unwrap().len(), 1);
        settled().await;
        let gone = cluster.remove(learner.id).await.unwrap_err();
        assert_eq!(*gone.kind(), ErrorKind::NotFound, "{gone}");
        settled().await;
        let gone = cluster.promote(learner.id).await.unwrap_err();
        assert_eq!(*gone.kind(), ErrorKind::NotFound, "{gone}");
        let own = &cluster.members().await.unwrap()[0].peer_urls;
        let taken = cluster.add(own).await.unwrap_err();
        assert_eq!(*taken.kind(), ErrorKind::AlreadyExists, "{taken}");
    }
}

#[tokio::test]
async fn alarms_are_raised_listed_and_disarmed() {
    each_server(async |_, client| {
        let maintenance = client.maintenance();
        assert_eq!(maintenance.alarms().await.unwrap(), []);
        let id = maintenance.status().await.unwrap().member_id;
        let alarm = Alarm::new(id, AlarmKind::NoSpace);
        maintenance.raise_alarm(alarm).await.unwrap();
        assert_eq!(maintenance.alarms().await.unwrap(), [alarm]);
        let full = client.put("k", "v").await.unwrap_err();
        assert_eq!(*full.kind(), ErrorKind::QuotaExceeded, "{full}");
        assert_eq!(full.outcome(), Outcome::NotApplied);
        maintenance.disarm_alarm(alarm).await.unwrap();
        maintenance.disarm_alarm(alarm).await.unwrap();
        assert_eq!(maintenance.alarms().await.unwrap(), []);
        client.put("k", "v").await.unwrap();
        let unknown = Alarm::new(id, AlarmKind::Other(77));
        let refused = maintenance.raise_alarm(unknown).await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    })
    .await;
}

#[tokio::test]
async fn hashes_tell_histories_apart() {
    each_server(async |_, client| {
        let maintenance = client.maintenance();
        let first = client.put("k", "1").await.unwrap().revision;
        let then = maintenance.hash_history(Revision::UNKNOWN).await.unwrap();
        client.put("k", "2").await.unwrap();
        let now = maintenance.hash_history(Revision::UNKNOWN).await.unwrap();
        let again = maintenance.hash_history(first).await.unwrap();
        assert_eq!(then.hash, again.hash, "the same history");
        assert_ne!(then.hash, now.hash, "another");
        maintenance.hash().await.unwrap();
        let future = maintenance.hash_history(Revision::new(1 << 40)).await;
        let future = future.unwrap_err();
        assert_eq!(*future.kind(), ErrorKind::FutureRevision, "{future}");
        let status = maintenance.status().await.unwrap();
        assert!(status.db_bytes >= status.db_bytes_in_use && status.db_bytes > 0);
        maintenance.defragment().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn downgrades_are_validated_where_they_are_known() {
    each_server(async |cluster, client| {
        let maintenance = client.maintenance();
        let bad = maintenance
            .validate_downgrade("no version")
            .await
            .unwrap_err();
        let none = maintenance.cancel_downgrade().await.unwrap_err();
        let (bad, none) = (bad.kind(), none.kind());
        if cluster.server() == Server::Etcd35 {
            assert_eq!(*bad, ErrorKind::InvalidArgument);
            assert_eq!(*none, ErrorKind::FailedPrecondition);
        } else {
            assert_eq!(*bad, ErrorKind::Unimplemented);
            assert_eq!(*none, ErrorKind::Unimplemented);
        }
    })
    .await;
}

async fn save(client: &Client, path: &std::path::Path) -> gonfalon::SavedSnapshot {
    let snapshot = client.maintenance().snapshot().await;
    let snapshot = snapshot.expect("the member has one");
    let saved = within(snapshot.save_to(path)).await;
    saved.expect("there is room")
}

#[tokio::test]
async fn a_snapshot_is_saved_whole_or_not_at_all() {
    each_server(async |cluster, client| {
        for number in 0..200 {
            // Nothing that can be compressed.
            let value: Vec<u8> = (0..313_u32)
                .flat_map(|part| Sha256::digest(format!("{number} {part}")))
                .collect();
            client.put(format!("s/{number}"), value).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot.db");
        std::fs::write(&path, "what was there").unwrap();
        let names = || {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name())
                .collect::<Vec<_>>()
        };

        // Given up in the middle: nothing has changed.
        let snapshot = client.maintenance().snapshot().await.unwrap();
        let total = snapshot.total_bytes();
        let started = snapshot.save_to(&path);
        let given_up = tokio::time::timeout(std::time::Duration::from_micros(1), started);
        assert!(given_up.await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"what was there");
        assert_eq!(names(), ["snapshot.db"]);

        let saved = save(&client, &path).await;
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(saved.bytes, bytes.len() as u64);
        assert!(saved.bytes > 1_000_000 && total > 1_000_000);
        let (store, hash) = bytes.split_at(bytes.len() - 32);
        assert_eq!(Sha256::digest(store)[..], *hash);
        assert_eq!(saved.sha256[..], *hash);
        assert_eq!(names(), ["snapshot.db"], "nothing is beside it");
        if cluster.server() != Server::Gonfalon {
            let mut status = std::process::Command::new(etcdctl().unwrap());
            status.env("ETCDCTL_API", "3").args(["snapshot", "status"]);
            let status = status.arg(&path).output().unwrap();
            let text = String::from_utf8_lossy(&status.stderr).into_owned();
            assert!(status.status.success(), "etcdctl takes it: {text}");
        }

        // Piece by piece it is the same size as was said.
        let mut snapshot = client.maintenance().snapshot().await.unwrap();
        let (said, mut came) = (snapshot.total_bytes(), 0);
        while let Some(piece) = within(snapshot.next()).await {
            came += piece.unwrap().len() as u64;
        }
        assert_eq!(came, said);

        let nowhere = dir.path().join("none/snapshot.db");
        let snapshot = client.maintenance().snapshot().await.unwrap();
        let error = snapshot.save_to(&nowhere).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::File, "{error}");
    })
    .await;
}

#[tokio::test]
async fn leadership_is_handed_over_whichever_member_is_asked_first() {
    for server in [Server::Gonfalon, Server::Etcd34] {
        let running = Cluster::start(server, 3).await.unwrap();
        let leader = running.leader().await.unwrap();
        let follower = (leader + 1) % 3;
        let ask = |at: usize| Client::builder().endpoints(running.member(at).endpoint());
        let alone = ask(follower).build().unwrap();
        let id = alone.maintenance().status().await.unwrap().member_id;
        let refused = alone.maintenance().move_leader(id).await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::NotLeader, "{refused}");
        assert_eq!(refused.attempts(), 1, "there is nobody else to ask");

        let all = client(&running);
        all.maintenance().move_leader(id).await.unwrap();
        let moved = async {
            while running.leader().await.unwrap() != follower {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within(moved).await;
    }
}

#[tokio::test]
async fn endpoints_are_synced_on_an_interval() {
    let running = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let client = Client::builder()
        .endpoints(running.member(0).endpoint())
        .sync_endpoints_every(std::time::Duration::from_millis(200))
        .build()
        .unwrap();
    let synced = async {
        while client.endpoints().len() != 3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within(synced).await;
}

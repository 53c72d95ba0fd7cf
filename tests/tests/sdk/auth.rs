//! Users: who may call, tokens that end while calls and streams go on, and users' own affairs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gonfalon::{Access, Client, ErrorKind, KeyRange, Outcome};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;

use super::{PATIENCE, client, metric, next, told, within};

const ETCDS: [Server; 2] = [Server::Etcd34, Server::Etcd35];

/// A lease that outlives a restart, and is renewed every two seconds.
const RENEWED: Duration = Duration::from_secs(6);

/// A client of `cluster` who signs in.
fn signed_in(cluster: &Cluster, name: &str, password: &str) -> Client {
    let client = Client::builder()
        .endpoints(cluster.endpoints())
        .user(name, password)
        .deadline(PATIENCE)
        .build();
    client.expect("the endpoints are addresses")
}

/// `root` with the password `r00t`, and `reader`, password `read`, who may read `pub/`; enabled.
async fn with_users(client: &Client) {
    let auth = client.auth();
    auth.add_user("root", "r00t").await.expect("no users yet");
    auth.grant_role("root", "root").await.expect("no users yet");
    auth.add_role("readers").await.expect("no users yet");
    auth.grant_permission("readers", Access::Read, KeyRange::prefix("pub/"))
        .await
        .expect("no users yet");
    auth.add_user("reader", "read").await.expect("no users yet");
    auth.grant_role("reader", "readers")
        .await
        .expect("no users yet");
    auth.enable().await.expect("no users yet");
}

async fn etcds(flags: &[&str], test: impl AsyncFn(&mut Cluster, Client)) {
    for server in ETCDS {
        let cluster = Cluster::start_with(server, 1, flags).await;
        let mut cluster = cluster.expect("the server starts");
        let client = client(&cluster);
        eprintln!("against {server:?}");
        test(&mut cluster, client).await;
    }
}

#[tokio::test]
async fn users_and_roles_come_and_go() {
    etcds(&[], async |cluster, client| {
        let auth = client.auth();
        auth.add_user("ann", "one").await.unwrap();
        auth.add_user_without_password("machine").await.unwrap();
        assert_eq!(auth.users().await.unwrap(), ["ann", "machine"]);
        let twice = auth.add_user("ann", "two").await.unwrap_err();
        assert_eq!(*twice.kind(), ErrorKind::AlreadyExists, "{twice}");
        let nobody = auth.user("bob").await.unwrap_err();
        assert_eq!(*nobody.kind(), ErrorKind::NotFound, "{nobody}");
        let unnamed = auth.add_user("", "x").await.unwrap_err();
        assert_eq!(*unnamed.kind(), ErrorKind::InvalidArgument, "{unnamed}");
        auth.change_password("ann", "two").await.unwrap();

        auth.add_role("ops").await.unwrap();
        assert_eq!(auth.roles().await.unwrap(), ["ops"]);
        for (access, range) in [
            (Access::Read, KeyRange::prefix("conf/")),
            (Access::Write, KeyRange::key("one")),
            (Access::ReadWrite, KeyRange::from("z")),
            (Access::Read, KeyRange::between("a", "c")),
        ] {
            let granted = auth.grant_permission("ops", access, range.clone()).await;
            granted.unwrap();
            let permissions = auth.role("ops").await.unwrap();
            let found = permissions.iter().find(|one| one.range == range);
            assert_eq!(found.expect("it was granted").access, access);
        }
        auth.grant_permission("ops", Access::ReadWrite, KeyRange::key("one"))
            .await
            .unwrap();
        assert_eq!(auth.role("ops").await.unwrap().len(), 4, "one was replaced");
        auth.revoke_permission("ops", KeyRange::prefix("conf/"))
            .await
            .unwrap();
        let gone = auth.revoke_permission("ops", KeyRange::prefix("conf/"));
        assert_eq!(*gone.await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(auth.role("ops").await.unwrap().len(), 3);

        auth.grant_role("ann", "ops").await.unwrap();
        auth.grant_role("ann", "ops").await.unwrap();
        assert_eq!(auth.user("ann").await.unwrap(), ["ops"]);
        auth.revoke_role("ann", "ops").await.unwrap();
        let gone = auth.revoke_role("ann", "ops").await.unwrap_err();
        assert_eq!(*gone.kind(), ErrorKind::NotFound, "{gone}");
        auth.delete_role("ops").await.unwrap();
        auth.delete_user("ann").await.unwrap();
        let gone = auth.delete_user("ann").await.unwrap_err();
        assert_eq!(*gone.kind(), ErrorKind::NotFound, "{gone}");

        // Nobody is root yet.
        let refused = auth.enable().await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::FailedPrecondition, "{refused}");
        let status = auth.status().await;
        if cluster.server() == Server::Etcd34 {
            let unknown = status.unwrap_err();
            assert_eq!(*unknown.kind(), ErrorKind::Unimplemented, "{unknown}");
        } else {
            let status = status.unwrap();
            assert!(!status.enabled && status.revision > 1, "{status:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_without_users_says_that_it_has_none() {
    let cluster = Cluster::start(Server::Gonfalon, 1).await.unwrap();
    let auth = client(&cluster).auth();
    assert!(!auth.status().await.unwrap().enabled);
    let refusals = [
        auth.enable().await.err(),
        auth.disable().await.err(),
        auth.users().await.err(),
        auth.user("a").await.err(),
        auth.add_user("a", "b").await.err(),
        auth.add_user_without_password("a").await.err(),
        auth.delete_user("a").await.err(),
        auth.change_password("a", "b").await.err(),
        auth.grant_role("a", "b").await.err(),
        auth.revoke_role("a", "b").await.err(),
        auth.roles().await.err(),
        auth.role("a").await.err(),
        auth.add_role("a").await.err(),
        auth.delete_role("a").await.err(),
        auth.grant_permission("a", Access::Read, "k").await.err(),
        auth.revoke_permission("a", "k").await.err(),
    ];
    for error in refusals {
        let error = error.expect("it is not there yet");
        assert_eq!(*error.kind(), ErrorKind::Unimplemented, "{error}");
        assert_eq!(
            (error.outcome(), error.attempts()),
            (Outcome::NotApplied, 1)
        );
    }
}

#[tokio::test]
async fn whoever_may_not_is_told_so_and_nothing_happens() {
    etcds(&[], async |cluster, nobody| {
        with_users(&nobody).await;
        let root = signed_in(cluster, "root", "r00t");
        root.put("pub/a", "1").await.unwrap();
        let reader = signed_in(cluster, "reader", "read");
        assert_eq!(reader.get("pub/a").await.unwrap().unwrap().value, "1");
        for error in [
            reader.get("a").await.unwrap_err(),
            reader.put("pub/a", "2").await.unwrap_err(),
            reader.delete("pub/a").await.unwrap_err(),
            reader.auth().users().await.unwrap_err(),
            reader.watch("a").await.unwrap_err(),
        ] {
            assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            assert!(error.endpoint().is_some(), "{error}");
        }
        assert_eq!(root.get("pub/a").await.unwrap().unwrap().version, 1);

        let wrong = signed_in(cluster, "reader", "wrong");
        for error in [
            nobody.get("pub/a").await.unwrap_err(),
            wrong.get("pub/a").await.unwrap_err(),
            wrong.put("pub/a", "2").await.unwrap_err(),
            within(async { wrong.watch("pub/a").await.unwrap_err() }).await,
        ] {
            assert_eq!(*error.kind(), ErrorKind::Unauthenticated, "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        }
        assert!(!format!("{wrong:?}").contains("wrong"));
    })
    .await;
}

/// A member that is started anew knows no token of before: calls, watches, leases and pages have to
/// get new ones while they are under way.
#[tokio::test]
async fn tokens_that_end_are_replaced_on_calls_and_on_streams() {
    etcds(&[], async |cluster, nobody| {
        with_users(&nobody).await;
        let root = signed_in(cluster, "root", "r00t");
        let reader = signed_in(cluster, "reader", "read");
        for number in 0..30 {
            root.put(format!("pub/{number:02}"), "").await.unwrap();
        }
        let mut watch = reader.watch(KeyRange::prefix("pub/")).await.unwrap();
        let mut denied = root.watch("other").await.unwrap();
        let lease = root.grant(RENEWED).await.unwrap();
        root.put("leased", "").lease(&lease).await.unwrap();
        let mut pages = reader.range(KeyRange::prefix("pub/")).pages(10);
        assert_eq!(pages.next().await.unwrap().unwrap().kvs.len(), 10);

        cluster.terminate(0).await.unwrap();
        cluster.start_member(0).unwrap();
        let written = async {
            loop {
                match root.put("pub/new", "1").await {
                    Ok(_) => return,
                    Err(error) => assert_ne!(*error.kind(), ErrorKind::Unauthenticated, "{error}"),
                }
            }
        };
        within(written).await;
        assert_eq!(told(&next(&mut watch).await)[0].0, "pub/new");
        assert_eq!(pages.next().await.unwrap().unwrap().kvs.len(), 10);
        let last = pages.next().await.unwrap().unwrap();
        assert_eq!((last.kvs.len(), last.more), (10, false), "as of before");
        root.put("other", "1").await.unwrap();
        assert_eq!(told(&next(&mut denied).await)[0].0, "other");
        // The stream of renewals too: what is left of the lease grows with each that is answered.
        let renewed = async {
            let (mut renewals, mut left) = (0, lease.remaining());
            while renewals < 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let now = lease.remaining();
                renewals += u32::from(now > left);
                left = now;
            }
        };
        within(renewed).await;
        assert!(lease.is_held());
        let info = root.lease_info(lease.id(), true).await.unwrap();
        assert_eq!(info.keys, ["leased"]);
        // A single renewal is a call of its own.
        lease.renew_now().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_token_that_says_when_it_ends_is_replaced_before() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let secret = secret.display();
    let token = format!("jwt,pub-key={secret},priv-key={secret},sign-method=HS256,ttl=3s");
    etcds(&["--auth-token", &token], async |cluster, nobody| {
        with_users(&nobody).await;
        let root = signed_in(cluster, "root", "r00t");
        let fetched = ["handled_total", "Authenticate", "OK"];
        let refused = ["handled_total", "Unauthenticated"];
        // Four times the life of a token.
        for second in 0..12 {
            root.put("k", format!("{second}")).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let refused = metric(cluster, &refused).await;
        assert!(refused < 1.0, "{refused} tokens were refused");
        let times = metric(cluster, &fetched).await;
        assert!((4.0..=6.0).contains(&times), "{times} tokens in 12 s");
        // Whoever changes users makes every token old.
        root.auth().add_role("another").await.unwrap();
        root.put("k", "after").await.unwrap();
        let mut watch = root.watch("k").await.unwrap();
        root.auth().add_role("yet another").await.unwrap();
        let mut second = root.watch("k").await.unwrap();
        root.put("k", "seen").await.unwrap();
        assert_eq!(told(&next(&mut watch).await)[0].1, "seen");
        assert_eq!(told(&next(&mut second).await)[0].1, "seen");
    })
    .await;
}

#[tokio::test]
async fn authentication_is_enabled_and_disabled_under_a_client_that_has_a_user() {
    etcds(&[], async |cluster, nobody| {
        let root = signed_in(cluster, "root", "r00t");
        // Nobody is asked who he is.
        let mut first = root.watch("k").await.unwrap();
        root.put("k", "1").await.unwrap();
        with_users(&nobody).await;
        root.put("k", "2").await.unwrap();
        let refused = nobody.put("k", "x").await.unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Unauthenticated, "{refused}");
        // On the stream of the first, which carries no token.
        let mut second = root.watch("k").await.unwrap();
        root.put("k", "3").await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let batch = told(&next(&mut first).await);
            seen.extend(batch.into_iter().map(|(_, value)| value));
        }
        assert_eq!(seen, ["1", "2", "3"]);
        assert_eq!(told(&next(&mut second).await)[0].1, "3");

        root.auth().disable().await.unwrap();
        root.put("k", "4").await.unwrap();
        nobody.put("k", "5").await.unwrap();
        let mut third = root.watch("k").await.unwrap();
        root.put("k", "6").await.unwrap();
        assert_eq!(told(&next(&mut third).await)[0].1, "6");
        let needless = root.auth().disable().await;
        needless.unwrap();
    })
    .await;
}

/// What is logged, at the finest level, by every crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics here").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_passwords_nor_tokens_are_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    etcds(&[], async |cluster, nobody| {
        with_users(&nobody).await;
        let root = signed_in(cluster, "root", "r00t");
        root.put("key-in-clear", "1").await.unwrap();
        let mut watch = root.watch("key-in-clear").await.unwrap();
        root.auth()
            .change_password("reader", "n3w-w0rd")
            .await
            .unwrap();
        root.auth().add_user("more", "m0re-w0rd").await.unwrap();
        let wrong = signed_in(cluster, "root", "wr0ng-w0rd");
        let error = wrong.get("k").await.unwrap_err();
        assert!(!format!("{error} {error:?} {wrong:?}").contains("wr0ng"));
        root.put("key-in-clear", "2").await.unwrap();
        next(&mut watch).await;
        // As a token looks: 16 letters, a dot, a number.
        let token =
            gonfalon_proto::etcdserverpb::auth_client::AuthClient::new(cluster.client(0).channel)
                .authenticate(gonfalon_proto::etcdserverpb::AuthenticateRequest {
                    name: "root".into(),
                    password: "r00t".into(),
                })
                .await
                .unwrap()
                .into_inner()
                .token;
        assert_eq!(token.find('.'), Some(16), "{token}");
    })
    .await;
    let log = log.0.lock().unwrap();
    let text = String::from_utf8_lossy(&log);
    for secret in ["r00t", "wr0ng", "n3w-w0rd", "m0re-w0rd"] {
        assert!(!text.contains(secret), "{secret} was logged");
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let tokens: Vec<&str> = words
        .filter(|word| {
            let (letters, number) = word.split_once('.').unwrap_or_default();
            letters.len() == 16
                && letters.bytes().all(|byte| byte.is_ascii_alphabetic())
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
        .collect();
    assert!(tokens.is_empty(), "tokens were logged: {tokens:?}");
    assert!(text.lines().count() > 100, "something was logged at all");
}

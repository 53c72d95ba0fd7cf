//! Encrypted connections, against etcds that ask for certificates.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gonfalon::{Client, ClientBuilder, Error, ErrorKind, KeyRange, Outcome, Tls};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::{Cluster, free_port};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::certificates::{Authority, write};
use super::{PATIENCE, next, told, within};

const ETCDS: [Server; 2] = [Server::Etcd34, Server::Etcd35];

/// One etcd that listens in plain, for the harness, and encrypted, asking for certificates.
struct Secured {
    cluster: Cluster,
    dir: TempDir,
    port: u16,
    authority: Authority,
}

impl Secured {
    async fn start(server: Server) -> Self {
        let authority = Authority::new("authority");
        let dir = tempfile::tempdir().expect("the server and its files are fine");
        std::fs::write(dir.path().join("ca.pem"), &authority.pem)
            .expect("the server and its files are fine");
        write(dir.path(), "server", &authority.identity("server"));
        write(dir.path(), "client", &authority.identity("client"));
        let cluster = Cluster::prepare(server, 1, &[]).expect("the server and its files are fine");
        let port = free_port().expect("the server and its files are fine");
        let mut secured = Self {
            cluster,
            dir,
            port,
            authority,
        };
        secured.start_member().await;
        secured
    }

    async fn start_member(&mut self) {
        let plain = self.cluster.member(0).endpoint();
        let urls = format!("http://{plain},{}", self.endpoint());
        let mut command = self.cluster.command(0);
        command.args(["--listen-client-urls", &urls]);
        command.args(["--advertise-client-urls", &urls, "--client-cert-auth"]);
        command.arg("--cert-file").arg(self.file("server.pem"));
        command.arg("--key-file").arg(self.file("server.key"));
        command.arg("--trusted-ca-file").arg(self.file("ca.pem"));
        self.cluster
            .start_member_as(0, command)
            .expect("the server and its files are fine");
        self.cluster
            .ready()
            .await
            .expect("the server and its files are fine");
    }

    async fn restart(&mut self) {
        self.cluster
            .kill(0)
            .expect("the server and its files are fine");
        self.start_member().await;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn tls(&self) -> Tls {
        Tls::new().ca_file(self.file("ca.pem"))
    }

    fn tls_with_identity(&self) -> Tls {
        let (certificate, key) = (self.file("client.pem"), self.file("client.key"));
        self.tls().identity_files(certificate, key)
    }

    fn client(&self, tls: Tls) -> Client {
        let builder = Client::builder().endpoints(self.endpoint()).tls(tls);
        builder
            .deadline(PATIENCE)
            .build()
            .expect("the server and its files are fine")
    }
}

#[tokio::test]
async fn calls_watches_and_leases_go_over_encrypted_connections() {
    for server in ETCDS {
        let secured = Secured::start(server).await;
        let client = secured.client(secured.tls_with_identity());
        let mut watch = client.watch(KeyRange::all()).await.unwrap();
        let lease = client.grant(Duration::from_secs(5)).await.unwrap();
        client.put("a", "1").lease(&lease).await.unwrap();
        assert_eq!(client.get("a").await.unwrap().unwrap().value, "1");
        assert_eq!(
            told(&next(&mut watch).await),
            [("a".into(), "1".into())],
            "{server:?}"
        );
        lease.renew_now().await.unwrap();
        // Certificates as texts, and a name other than the endpoint's.
        let read = |name| std::fs::read(secured.file(name)).unwrap();
        let tls = Tls::new()
            .ca_pem(read("ca.pem"))
            .identity_pem(read("client.pem"), read("client.key"))
            .server_name("localhost");
        let by_name = secured.client(tls);
        assert_eq!(by_name.get("a").await.unwrap().unwrap().value, "1");
        // The member says where it is, in plain too, which this client leaves out.
        client.sync_endpoints().await.unwrap();
        assert_eq!(client.endpoints(), [secured.endpoint().into()]);
    }
}

/// Why a write is refused, and how long that took. A server that refuses a client's certificate may
/// break the connection before its reason is read; then the next write has to read it.
async fn refusal(client: &Client, refused_by_server: bool) -> (Error, Duration) {
    let read = async {
        loop {
            let began = Instant::now();
            let error = client.put("a", "1").await.expect_err("it is refused");
            if !(refused_by_server && *error.kind() == ErrorKind::Unavailable) {
                return (error, began.elapsed());
            }
        }
    };
    within(read).await
}

#[tokio::test]
async fn whoever_cannot_be_trusted_is_refused_at_once_and_nothing_is_written() {
    for server in ETCDS {
        let secured = Secured::start(server).await;
        let other = Authority::new("other");
        let stranger = other.identity("client");
        let no_certificate = secured.tls();
        let wrong_authority = secured.tls_with_identity().ca_pem(other.pem.clone());
        let wrong_name = secured.tls_with_identity().server_name("example.org");
        let wrong_certificate = secured
            .tls()
            .identity_pem(stranger.certificate.clone(), stranger.key.clone());
        for (what, tls, refused_by_server) in [
            ("no certificate", no_certificate, true),
            ("the client's is by another", wrong_certificate, true),
            ("the server's is by another", wrong_authority, false),
            ("the server's is for another", wrong_name, false),
        ] {
            let client = secured.client(tls);
            let (error, took) = refusal(&client, refused_by_server).await;
            eprintln!("{server:?}, {what}: {error:?}");
            assert_eq!(*error.kind(), ErrorKind::Tls, "{what}: {error:?}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{what}: {error}");
            assert!(!error.message().is_empty(), "{what}: it says why");
            assert!(took < PATIENCE / 2, "{what}: it does not wait");
            assert!(!error.is_retryable());
        }
        let client = secured.client(secured.tls_with_identity());
        assert_eq!(client.get("a").await.unwrap(), None);
    }
}

/// Another authority signs everything anew: the files change, and then every connection breaks.
#[tokio::test]
async fn renewed_certificates_are_used_without_a_restart_of_the_client() {
    for server in ETCDS {
        let mut secured = Secured::start(server).await;
        let client = secured.client(secured.tls_with_identity());
        let mut watch = client.watch(KeyRange::prefix("r/")).await.unwrap();
        let lease = client.grant(Duration::from_mins(1)).await.unwrap();
        client.put("r/1", "").await.unwrap();

        let successor = Authority::new("successor");
        std::fs::write(secured.file("ca.pem"), &successor.pem).unwrap();
        let dir = secured.dir.path();
        write(dir, "server", &successor.identity("server"));
        write(dir, "client", &successor.identity("client"));
        secured.restart().await;
        // Neither side trusts the old authority any more.
        within(async { while client.put("r/2", "").await.is_err() {} }).await;
        lease.renew_now().await.unwrap();
        assert!(lease.is_held());
        let seen = async {
            let mut keys = Vec::new();
            while keys.last().map(String::as_str) != Some("r/2") {
                keys.extend(
                    told(&next(&mut watch).await)
                        .into_iter()
                        .map(|(key, _)| key),
                );
            }
            keys
        };
        assert_eq!(within(seen).await, ["r/1", "r/2"], "{server:?}");
        drop(secured.authority);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_what_was_read_before() {
    let mut secured = Secured::start(Server::Etcd35).await;
    let trusted = secured.file("trusted.pem");
    std::fs::copy(secured.file("ca.pem"), &trusted).unwrap();
    let client = secured.client(secured.tls_with_identity().ca_file(&trusted));
    client.put("k", "1").await.unwrap();
    let other = secured.authority.identity("other");
    for (file, text) in [
        (secured.file("client.pem"), Some("half a certif")),
        // Not of the key beside it, as between the two steps of a renewal.
        (secured.file("client.pem"), Some(other.certificate.as_str())),
        (secured.file("client.key"), Some("")),
        (trusted, None),
    ] {
        match text {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        secured.restart().await;
        within(async { while client.get("k").await.is_err() {} }).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_when_the_client_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("ca.pem"), &authority.pem).unwrap();
    std::fs::write(file("empty"), "").unwrap();
    std::fs::write(
        file("broken"),
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let (certificate, key) = write(dir.path(), "one", &authority.identity("one"));
    let (_, other_key) = write(dir.path(), "two", &authority.identity("two"));
    let with = |endpoint: &str, tls: Tls| Client::builder().endpoints(endpoint).tls(tls);
    let secured = |tls| with("https://127.0.0.1:1", tls);
    let identity = |certificate: &Path, key: &Path| {
        secured(
            Tls::new()
                .ca_pem(authority.pem.clone())
                .identity_files(certificate, key),
        )
    };
    let refused: [(ClientBuilder, &str); 9] = [
        (
            secured(Tls::new().ca_file(file("none"))),
            "none cannot be read",
        ),
        (
            secured(Tls::new().ca_file(file("empty"))),
            "holds no certificate",
        ),
        (secured(Tls::new().ca_file(file("broken"))), "is no PEM"),
        (secured(Tls::new().ca_file(&key)), "holds no certificate"),
        (identity(&certificate, &file("none")), "none cannot be read"),
        (identity(&certificate, &certificate), "holds no private key"),
        (
            identity(&certificate, &other_key),
            "is not the one of the certificate",
        ),
        (
            secured(Tls::new().ca_file(file("ca.pem")).server_name("no name")),
            "neither a name nor an address",
        ),
        (
            with("http://127.0.0.1:1", Tls::new().ca_file(file("ca.pem"))),
            "is not encrypted",
        ),
    ];
    for (builder, why) in refused {
        let error = builder.build().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(
            error.message().contains(why),
            "{error}: it should say {why:?}"
        );
    }
    assert!(identity(&certificate, &key).build().is_ok());
    let mixed = Client::builder().endpoints(["https://127.0.0.1:1", "http://127.0.0.1:2"]);
    assert!(mixed.build().is_err());
}

/// A server that accepts and says nothing: no request can have been sent.
#[tokio::test]
async fn a_connection_that_takes_too_long_to_be_secured_carried_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", silent.local_addr().unwrap());
    let authority = Authority::new("authority");
    let client = Client::builder()
        .endpoints(endpoint)
        .tls(Tls::new().ca_pem(authority.pem))
        .connect_timeout(Duration::from_millis(200))
        .deadline(Duration::from_secs(1))
        .build()
        .unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Connect, "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.attempts() > 1, "{error}");
}

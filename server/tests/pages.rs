//! The pages on the client port, read as a probe or a scraper reads them.
#![allow(clippy::unwrap_used, reason = "what cannot go on fails its test here")]

use std::net::SocketAddr;
use std::time::Duration;

use gonfalon_core::MemberId;
use gonfalon_core::command::{AlarmChange, AlarmKind, Command};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_server::Server;
use gonfalon_server::config::{Invocation, Options};
use gonfalon_server::node::Node;
use pb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// One node, with its client port and a port for monitoring.
struct Fixture {
    node: Node,
    client: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn open(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut args = vec![
            format!("--data-dir={}", dir.path().join("data").display()),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        ];
        args.extend(more.iter().map(ToString::to_string));
        let Invocation::Run(options) = Options::read(&args, &[]).unwrap() else {
            panic!("these options ask to run");
        };
        let server = Server::open(options.resolve().unwrap()).await.unwrap();
        let (node, client) = (server.node().clone(), server.client_addresses()[0]);
        tokio::time::timeout(Duration::from_secs(20), server.ready())
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            server
                .run_until(async { drop(stopped.await) })
                .await
                .unwrap();
        });
        Self {
            node,
            client,
            stop,
            ended,
            _dir: dir,
        }
    }

    /// Status line and headers, and the body, of one HTTP/1.1 request.
    async fn ask(&self, method: &str, path: &str) -> (String, String) {
        Self::ask_at(self.client, method, path).await
    }

    async fn ask_at(address: SocketAddr, method: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.ask("GET", path).await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    async fn alarm(&self, kind: AlarmKind, activate: bool) {
        let change = AlarmChange {
            activate,
            member: MemberId::new(7),
            kind,
        };
        self.node
            .propose(Command::Alarm(change))
            .await
            .unwrap()
            .result
            .unwrap();
    }

    async fn close(self) {
        drop(self.node);
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_etcds_does() {
    let server = Fixture::open(&[]).await;
    let well = (200, r#"{"health":"true","reason":""}"#.to_owned());
    assert_eq!(server.get("/health").await, well);
    assert_eq!(server.get("/health?serializable=true").await, well);

    let (head, _) = server.ask("POST", "/health").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.to_lowercase().contains("\r\nallow: get"), "{head}");

    server.alarm(AlarmKind::NoSpace, true).await;
    let full = (
        503,
        "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".to_owned(),
    );
    assert_eq!(server.get("/health").await, full);
    assert_eq!(server.get("/health?exclude=NOSPACE").await, well);
    assert_eq!(server.get("/health?exclude=CORRUPT").await, full);
    assert_eq!(
        server.get("/health?exclude=CORRUPT&exclude=NOSPACE").await,
        well
    );
    server.alarm(AlarmKind::NoSpace, false).await;
    assert_eq!(server.get("/health").await, well);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn livez_and_readyz_tell_their_checks() {
    let server = Fixture::open(&[]).await;
    let ready = "[+]data_corruption ok\n[+]serializable_read ok\n\
                 [+]linearizable_read ok\n[+]non_learner ok\nok\n";
    for (path, want) in [
        ("/livez", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", "ok\n"),
        ("/readyz", "ok\n"),
        ("/readyz?verbose", ready),
        (
            "/readyz/linearizable_read?verbose",
            "[+]linearizable_read ok\nok\n",
        ),
        (
            "/readyz?verbose&exclude=data_corruption&exclude=non_learner&exclude=nonsense",
            "[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
        ),
    ] {
        assert_eq!(server.get(path).await, (200, want.to_owned()), "{path}");
    }
    assert_eq!(server.get("/livez/non_learner").await.0, 404);

    server.alarm(AlarmKind::Corrupt, true).await;
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(
        body.starts_with("[-]data_corruption failed: alarm activated: CORRUPT\n"),
        "{body}"
    );
    assert_eq!(server.get("/readyz?exclude=data_corruption").await.0, 200);
    assert_eq!(
        server.get("/livez").await.0,
        200,
        "what is corrupt is alive"
    );
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_names_etcds_release_and_ours() {
    let server = Fixture::open(&[]).await;
    let (status, body) = server.get("/version").await;
    assert_eq!(status, 200);
    let version: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(version["etcdserver"], "3.7.1");
    assert_eq!(version["etcdcluster"], "3.7.0");
    assert_eq!(version["storage"], "3.7.0");
    assert_eq!(version["gonfalon"], env!("CARGO_PKG_VERSION"));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one table of names and values")]
async fn metrics_count_what_clients_do() {
    let server = Fixture::open(&["--metrics=extensive"]).await;
    let mut kv = KvClient::connect(format!("http://{}", server.client))
        .await
        .unwrap();
    for value in ["1", "22"] {
        let put = pb::PutRequest {
            key: "a".into(),
            value: value.into(),
            ..Default::default()
        };
        kv.put(put).await.unwrap();
    }
    kv.range(pb::RangeRequest {
        key: "a".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    let empty = kv.put(pb::PutRequest::default()).await.unwrap_err();
    assert_eq!(empty.code(), tonic::Code::InvalidArgument);
    assert_eq!(server.get("/health").await.0, 200);

    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, 200);
    let put = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    for line in [
        "etcd_mvcc_put_total 2".to_owned(),
        "etcd_mvcc_range_total 1".to_owned(),
        "etcd_debugging_mvcc_keys_total 1".to_owned(),
        "etcd_debugging_mvcc_current_revision 3".to_owned(),
        "etcd_debugging_mvcc_total_put_size_in_bytes 5".to_owned(),
        "etcd_server_has_leader 1".to_owned(),
        "etcd_server_is_leader 1".to_owned(),
        "etcd_server_leader_changes_seen_total 1".to_owned(),
        "etcd_server_health_success 1".to_owned(),
        "etcd_server_proposals_pending 0".to_owned(),
        r#"etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 4"#
            .to_owned(),
        "etcd_server_read_indexes_failed_total 0".to_owned(),
        r#"etcd_server_range_duration_seconds_count{success="true"} 1"#.to_owned(),
        r#"etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"} 2"#
            .to_owned(),
        format!("grpc_server_started_total{{{put}}} 3"),
        format!(r#"grpc_server_handled_total{{grpc_code="OK",{put}}} 2"#),
        format!(r#"grpc_server_handled_total{{grpc_code="InvalidArgument",{put}}} 1"#),
        format!("grpc_server_handling_seconds_count{{{put}}} 3"),
    ] {
        let name = line.split(['{', ' ']).next().unwrap();
        let near: Vec<_> = text.lines().filter(|got| got.starts_with(name)).collect();
        assert!(
            near.contains(&line.as_str()),
            "{line}\nis none of\n{}",
            near.join("\n")
        );
    }
    let value = |name: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split(' ').nth(1))
            .unwrap()
            .parse()
            .unwrap()
    };
    for name in [
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_write_duration_seconds_count",
        "etcd_disk_wal_write_bytes_total",
        "etcd_disk_backend_commit_duration_seconds_count",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_mvcc_db_total_size_in_bytes",
        "process_resident_memory_bytes",
    ] {
        assert!(value(name) > 0.0, "{name} counts");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_with_a_port_of_their_own_are_there_alone() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = free.local_addr().unwrap();
    drop(free);
    let server = Fixture::open(&[&format!("--listen-client-http-urls=http://{http}")]).await;
    let ask = async |address| Fixture::ask_at(address, "GET", "/health").await.0;
    let (there, beside_grpc) = (ask(http).await, ask(server.client).await);
    assert!(there.starts_with("HTTP/1.1 200 "), "{there}");
    assert!(beside_grpc.starts_with("HTTP/1.1 404 "), "{beside_grpc}");

    let put = async |address: SocketAddr| {
        let url = format!("http://{address}");
        let put = pb::PutRequest {
            key: "a".into(),
            ..Default::default()
        };
        KvClient::connect(url).await.unwrap().put(put).await
    };
    put(server.client).await.unwrap();
    let refused = put(http).await.unwrap_err();
    assert!(refused.message().contains("404 Not Found"), "{refused}");
    server.close().await;
}

//! Pages over HTTP on the clients' port.

use std::collections::BTreeSet;

use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::raw::{http_ask, http_get};

use super::{one, one_with};

items! {
    always {
        the_version_page_names_server_and_cluster,
        metrics_count_what_was_done,
        pages_say_what_they_are,
        scripts_of_other_origins_may_read_what_is_allowed,
    }
    now {
        item_29_metrics_have_the_names_that_dashboards_read,
        health_is_told_with_its_reason,
        a_member_without_quorum_lives_but_is_not_ready,
    }
}

/// What etcd's own dashboards and alerts read.
const NAMES: &[&str] = &[
    "etcd_server_has_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_disk_wal_fsync_duration_seconds_bucket",
    "etcd_disk_backend_commit_duration_seconds_bucket",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_server_quota_backend_bytes",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "process_resident_memory_bytes",
];

/// The same, between members, with the label that they have.
const PEER_NAMES: &[&str] = &[
    "etcd_network_peer_sent_bytes_total{To=",
    "etcd_network_peer_received_bytes_total{From=",
    "etcd_network_peer_round_trip_time_seconds_bucket{To=",
];

async fn metrics(cluster: &Cluster) -> String {
    let endpoint = cluster.member(0).endpoint();
    let (code, page) = http_get(&endpoint, "/metrics").await.expect("a page");
    assert_eq!(code, 200);
    page
}

async fn item_29_metrics_have_the_names_that_dashboards_read(server: Server) {
    let cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    cluster.client(0).put("a", "1").await.expect("a put");
    let page = metrics(&cluster).await;
    let present: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let missing: Vec<_> = NAMES
        .iter()
        .filter(|name| !present.contains(**name))
        .collect();
    assert!(missing.is_empty(), "no {missing:?} in\n{page}");
    let unlabelled: Vec<_> = PEER_NAMES
        .iter()
        .filter(|start| !page.contains(**start))
        .collect();
    assert!(unlabelled.is_empty(), "no {unlabelled:?} in\n{page}");
    assert!(page.contains("etcd_server_has_leader 1"), "{page}");
}

async fn metrics_count_what_was_done(server: Server) {
    let (cluster, client) = one(server).await;
    for key in ["a", "b", "a"] {
        client.put(key, "1").await.expect("a put");
    }
    let page = metrics(&cluster).await;
    let puts = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
                grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 3";
    assert!(page.contains(puts), "no {puts:?} in\n{page}");
    assert!(
        page.lines()
            .any(|line| line == "etcd_debugging_mvcc_keys_total 2"),
        "{page}"
    );
    assert!(
        page.lines().any(|line| line == "etcd_mvcc_put_total 3"),
        "{page}"
    );
}

async fn the_version_page_names_server_and_cluster(server: Server) {
    let (cluster, client) = one(server).await;
    let endpoint = cluster.member(0).endpoint();
    let (code, page) = http_get(&endpoint, "/version").await.expect("a page");
    assert_eq!(code, 200);
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    let version = client.status().await.expect("a status").version;
    assert_eq!(page["etcdserver"], version);
    let minor = version.rsplit_once('.').expect("three parts").0;
    assert_eq!(page["etcdcluster"], format!("{minor}.0"));
}

/// The value of a header, if there is one.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

async fn pages_say_what_they_are(server: Server) {
    let (cluster, _client) = one(server).await;
    let endpoint = cluster.member(0).endpoint();
    let (text, json) = ("text/plain; charset=utf-8", "application/json");
    let metrics = "text/plain; version=0.0.4; charset=utf-8";
    for (method, path, code, kind, is_for_people) in [
        ("GET", "/health", 200, text, false),
        ("HEAD", "/health", 405, text, true),
        ("POST", "/health", 405, text, true),
        ("GET", "/version", 200, json, false),
        ("POST", "/version", 405, text, true),
        ("GET", "/metrics", 200, metrics, false),
        ("POST", "/metrics", 200, metrics, false),
        ("PUT", "/metrics", 200, metrics, false),
        ("GET", "/nowhere", 404, text, true),
    ] {
        let answer = http_ask(&endpoint, method, path, "").await;
        let (head, _) = answer.expect("an answer");
        let what = format!("{method} {path}: {head}");
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{what}");
        assert_eq!(header(&head, "content-type"), Some(kind), "{what}");
        let sniff = is_for_people.then_some("nosniff");
        assert_eq!(header(&head, "x-content-type-options"), sniff, "{what}");
        let allow = (code == 405).then_some("GET");
        assert_eq!(header(&head, "allow"), allow, "{what}");
    }
}

async fn scripts_of_other_origins_may_read_what_is_allowed(server: Server) {
    let listed = ["--cors", "http://a.example:80,http://b.example:80"];
    let (of_a, of_c) = (
        "Origin: http://a.example:80\r\n",
        "Origin: http://c.example:80\r\n",
    );
    for (flags, headers, allowed) in [
        (&[][..], "", Some("*")),
        (&[], of_a, Some("*")),
        (&listed, "", None),
        (&listed, of_a, Some("http://a.example:80")),
        (&listed, of_c, None),
    ] {
        let (cluster, _client) = one_with(server, flags).await;
        let endpoint = cluster.member(0).endpoint();
        for (method, path, code) in [
            ("GET", "/version", 200),
            ("GET", "/nowhere", 404),
            ("OPTIONS", "/version", 200),
            ("OPTIONS", "/nowhere", 200),
        ] {
            let answer = http_ask(&endpoint, method, path, headers).await;
            let (head, _) = answer.expect("an answer");
            let what = format!("{flags:?} {method} {path} {headers}: {head}");
            assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{what}");
            let origin = header(&head, "access-control-allow-origin");
            assert_eq!(origin, allowed, "{what}");
            for (name, value) in [
                ("methods", "POST, GET, OPTIONS, PUT, DELETE"),
                ("headers", "accept, content-type, authorization"),
            ] {
                let said = header(&head, &format!("access-control-allow-{name}"));
                assert_eq!(said, allowed.map(|_| value), "{what}");
            }
        }
    }
}

async fn health_is_told_with_its_reason(server: Server) {
    let (cluster, _client) = one(server).await;
    let endpoint = cluster.member(0).endpoint();
    let page = async |path: &str| http_get(&endpoint, path).await.expect("a page");
    assert_eq!(
        page("/health").await,
        (200, "{\"health\":\"true\",\"reason\":\"\"}".into())
    );
    assert_eq!(page("/livez").await, (200, "ok\n".into()));
    assert_eq!(page("/readyz").await, (200, "ok\n".into()));
    let (code, verbose) = page("/readyz?verbose").await;
    assert_eq!(code, 200);
    assert!(verbose.contains("[+]linearizable_read ok"), "{verbose}");
}

async fn a_member_without_quorum_lives_but_is_not_ready(server: Server) {
    let mut cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let endpoint = cluster.member(0).endpoint();
    for other in [1, 2] {
        cluster.kill(other).expect("the member runs");
    }
    let page = async |path: &str| http_get(&endpoint, path).await.expect("a page");
    assert_eq!(
        page("/livez").await,
        (200, "ok\n".into()),
        "its own state is still readable"
    );
    let (code, health) = page("/health").await;
    assert_eq!(code, 503, "{health}");
    let is_told = health.starts_with("{\"health\":\"false\",\"reason\":\"");
    assert!(is_told && health.ends_with("\"}\n"), "{health}");
    assert_eq!(page("/readyz").await.0, 503);
}

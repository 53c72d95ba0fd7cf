//! What a server that cannot run says: one line, a code, and nothing on disk.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::{Cluster, free_port};
use tempfile::TempDir;

/// `gonfalon serve` in an empty directory.
fn serve(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(Server::Gonfalon.program().expect("it is built"));
    command.arg("serve").args(args).current_dir(dir);
    command.env_clear().output().expect("it runs")
}

/// Asserts that it failed with this code, and a line that has all of `words`.
#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "errors belong on standard error");
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    // At most one line more, which says what to do next.
    assert!(
        lines.next().is_none_or(|next| next.starts_with("  ")),
        "{text}"
    );
    assert_eq!(lines.next(), None, "{text}");
}

#[track_caller]
fn assert_empty(dir: &Path) {
    let names: Vec<_> = std::fs::read_dir(dir)
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert!(names.is_empty(), "left on disk: {names:?}");
}

#[test]
fn what_cannot_be_understood_is_refused_before_anything_is_written() {
    let cases: [(&[&str], i32, &[&str]); 8] = [
        (
            &["--data-dri", "d"],
            2,
            &["data-dri", "did you mean --data-dir?"],
        ),
        (
            &["--listen-client-urls", "127.0.0.1:1"],
            2,
            &["--listen-client-urls", "127.0.0.1:1"],
        ),
        (
            &["--listen-peer-urls", "http://[::1"],
            2,
            &["--listen-peer-urls"],
        ),
        (
            &["--heartbeat-interval", "fast"],
            2,
            &["--heartbeat-interval", "fast"],
        ),
        (
            &["--heartbeat-interval", "500"],
            1,
            &["heartbeat", "election"],
        ),
        (&["--config-file", "missing.yml"], 1, &["missing.yml"]),
        (
            &["--data-dir", ""],
            2,
            &["--data-dir", "a directory's path"],
        ),
        (
            &["--initial-cluster-state", "existing"],
            1,
            &["is new", "not there yet"],
        ),
    ];
    for (args, code, words) in cases {
        let dir = TempDir::new().expect("a directory");
        assert_refused(&serve(dir.path(), args), code, words);
        assert_empty(dir.path());
    }
}

#[test]
fn the_data_of_an_etcd_is_refused_and_nothing_is_written_beside_it() {
    let dir = TempDir::new().expect("a directory");
    let data = dir.path().join("default.etcd");
    std::fs::create_dir_all(data.join("member/wal")).expect("writable");
    let output = serve(dir.path(), &["--data-dir", "default.etcd"]);
    assert_refused(
        &output,
        1,
        &["default.etcd", "the data of an etcd", "--data-dir"],
    );
    let left = std::fs::read_dir(&data).expect("it is there").count();
    assert_eq!(left, 1, "only etcd's own is there");
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_written() {
    let taken = TcpListener::bind(("127.0.0.1", free_port().expect("a port"))).expect("it is free");
    let port = taken.local_addr().expect("an address").port();
    let (taken_url, free_url) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", free_port().expect("a port")),
    );
    for (client, peer, flag) in [
        (&taken_url, &free_url, "--listen-client-urls"),
        (&free_url, &taken_url, "--listen-peer-urls"),
    ] {
        let dir = TempDir::new().expect("a directory");
        let args = [
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ];
        let output = serve(dir.path(), &args);
        let port = port.to_string();
        assert_refused(&output, 1, &[&port, "in use", flag, "another port"]);
        assert_empty(dir.path());
    }
}

#[test]
fn a_data_directory_that_is_none_or_damaged_is_refused_and_named() {
    let peer = format!("http://127.0.0.1:{}", free_port().expect("a port"));
    let client = format!("http://127.0.0.1:{}", free_port().expect("a port"));
    let flags = [
        "--data-dir",
        "data",
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
    ];
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("data"), "a file").expect("writable");
    let output = serve(dir.path(), &flags);
    assert_refused(&output, 1, &["data directory data is not a directory"]);

    let dir = TempDir::new().expect("a directory");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("writable");
    std::fs::write(data.join("identity.json"), "{").expect("writable");
    let output = serve(dir.path(), &flags);
    assert_refused(
        &output,
        1,
        &["data/identity.json is damaged", "restore it from a copy"],
    );
}

/// Every file below `dir` with its bytes.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("readable");
            all.push((path.display().to_string(), bytes));
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_another_cluster_is_refused_and_left_alone() {
    let mut cluster = Cluster::start(Server::Gonfalon, 1)
        .await
        .expect("the server starts");
    cluster.client(0).put("a", "1").await.expect("it serves");
    cluster.terminate(0).await.expect("it stops");
    let before = contents(cluster.member(0).data_dir());
    let mut command = cluster.command(0);
    // Last wins: another token makes another cluster of the same members.
    command.args(["--initial-cluster-token", "another"]);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap_or_default();
    for words in ["belongs to member", "of cluster", "use another --data-dir"] {
        assert!(last.contains(words), "{words:?} is not in {text:?}");
    }
    assert!(contents(cluster.member(0).data_dir()) == before, "it wrote");

    cluster.start_member(0).expect("it starts");
    cluster.ready().await.expect("with its own flags it serves");
    let found = cluster.client(0).get("a").await.expect("it serves");
    assert_eq!(found.count, 1, "its data is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_in_use_is_refused() {
    let cluster = Cluster::start(Server::Gonfalon, 1)
        .await
        .expect("the server starts");
    let other = Cluster::prepare(Server::Gonfalon, 1, &[]).expect("ports");
    let mut command = other.command(0);
    command.arg("--data-dir").arg(cluster.member(0).data_dir());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("is in use by another process"), "{text}");
    cluster
        .client(0)
        .put("a", "1")
        .await
        .expect("the first goes on");
}

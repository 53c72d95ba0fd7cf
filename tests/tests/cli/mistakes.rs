//! Command lines that can only be mistakes, and what they are told.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::gonfalon::{Gonfalon, said};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_only_be_a_mistake_is_refused_before_it_is_sent() {
    let gonfalon = Gonfalon::new().await;
    let zero = "must be longer than zero";
    let negative = "must not be negative";
    let cases: [(&[&str], &str); 20] = [
        (&["put", "a", "1", "--ttl", "-5s"], zero),
        (&["put", "a", "1", "--ttl", "0"], zero),
        (&["lease", "grant", "0"], zero),
        (&["lease", "grant", "-1"], zero),
        (&["lock", "--ttl=-1", "door"], zero),
        (&["elect", "--ttl", "0s", "office", "me"], zero),
        (&["get", "a", "--limit", "-1"], negative),
        (&["get", "a", "--rev=-1"], negative),
        (&["watch", "a", "--rev", "-1"], negative),
        (&["compact", "-1"], negative),
        (&["lock", ""], "must not be empty"),
        (&["elect", "", "me"], "must not be empty"),
        (&["watch", ""], "an empty key cannot be watched"),
        (
            &["watch", "a", "--also", ""],
            "an empty key cannot be watched",
        ),
        (
            &["get", "a", "--keys-only", "--print-value-only"],
            "cannot be used with",
        ),
        (
            &["get", "a", "--keys-only", "--count-only"],
            "cannot be used with",
        ),
        (&["user", "list"], "user: users and roles are not there yet"),
        (
            &["role", "add", "r"],
            "role: users and roles are not there yet",
        ),
        (
            &["auth", "enable"],
            "auth: users and roles are not there yet",
        ),
        (
            &["member", "add", "m"],
            "member add: members cannot be added, removed or changed yet",
        ),
    ];
    for (args, words) in cases {
        gonfalon.refused(args, 2, words);
    }
    let revision = gonfalon.json(&["get", "a"])["header"]["revision"].clone();
    assert_eq!(revision, json!(1), "something was written");
    assert_eq!(gonfalon.json(&["lease", "list"])["leases"], json!([]));
    assert_eq!(
        gonfalon
            .ok(&["lease", "grant", "-w", "simple", "60"])
            .lines()
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_empty_is_not_set() {
    let gonfalon = Gonfalon::new().await;
    gonfalon.ok(&["put", "a", "1"]);
    for name in [
        "GONFALON_DIAL_TIMEOUT",
        "GONFALON_WRITE_OUT",
        "GONFALON_HEX",
        "GONFALON_INSECURE_TRANSPORT",
    ] {
        let mut command = gonfalon.command(&["get", "a", "--print-value-only"]);
        assert_eq!(said(command.env(name, ""), "").ok(), "1\n", "{name}");
    }
    let endpoint = gonfalon.cluster.member(0).endpoint();
    let mut command = gonfalon.command(&["get", "a", "--print-value-only"]);
    command
        .env("GONFALON_ENDPOINTS", "")
        .env("ETCDCTL_ENDPOINTS", &endpoint);
    assert_eq!(said(&mut command, "").ok(), "1\n");
    gonfalon.refused(&["--endpoints", "", "get", "a"], 2, "write host:port");
    let mut command = gonfalon.command(&["get", "a"]);
    said(command.env("GONFALON_HEX", "maybe"), "").is_refused(2, "GONFALON_HEX");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_the_port_of_members_is_told_where_clients_are_served() {
    let gonfalon = Gonfalon::new().await;
    let member = gonfalon.cluster.member(0);
    let peers = format!("127.0.0.1:{}", member.peer_port());
    let clients = format!("clients are served at http://{}", member.endpoint());
    gonfalon.refused(&["--endpoints", &peers, "get", "a"], 1, &clients);
    let (code, page) = gonfalon_tests::raw::http_get(&peers, "/health")
        .await
        .expect("it answers");
    assert_eq!(code, 404, "{page}");
    assert!(page.contains(&clients), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_run_is_refused_before_the_lock_is_waited_for() {
    let gonfalon = Gonfalon::new().await;
    let mut holder = gonfalon.start(&["lock", "door"]);
    holder.line();
    let script = gonfalon.dir().join("script");
    std::fs::write(&script, "#!/bin/sh\n").expect("writable");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o600)).expect("ours");
    for (program, code, words) in [
        (
            "no-such-program",
            127,
            "cannot run no-such-program: not found",
        ),
        ("./no-such-program", 127, "not found"),
        ("./script", 126, "cannot run ./script: not executable"),
        ("/", 126, "not executable"),
    ] {
        gonfalon.refused(&["lock", "door", program], code, words);
        gonfalon.refused(&["watch", "a", "--", program], code, words);
    }
    assert_eq!(holder.interrupt(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_compacted_already_needs_nothing() {
    let gonfalon = Gonfalon::new().await;
    gonfalon.ok(&["put", "a", "1"]);
    gonfalon.ok(&["put", "a", "2"]);
    gonfalon.ok(&["compact", "3"]);
    gonfalon.refused(&["compact", "2"], 1, "there is nothing to do");
    gonfalon.refused(&["get", "a", "--rev", "2"], 1, "That history is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_deleted_with_etcdctls_flag_as_without() {
    let gonfalon = Gonfalon::new().await;
    for key in ["a", "b", "c"] {
        gonfalon.ok(&["put", key, "1"]);
    }
    let simple = |args: &[&str]| gonfalon.ok(&[&["-w", "simple", "del"], args].concat());
    assert_eq!(simple(&["a", "b", "--range"]), "1\n");
    assert_eq!(simple(&["b", "d"]), "2\n");
}

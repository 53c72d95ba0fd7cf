//! Flags and variables that every command has, etcdctl's among them.

use super::gonfalon::{Gonfalon, said};

#[tokio::test(flavor = "multi_thread")]
async fn etcdctls_variables_are_understood_or_refused_and_none_is_passed_over() {
    let gonfalon = Gonfalon::new().await;
    gonfalon.ok(&["put", "a", "1"]);
    let with = |name: &str, value: &str| {
        let mut command = gonfalon.command(&["get", "a"]);
        said(command.env(name, value), "")
    };
    assert_eq!(with("ETCDCTL_WRITE_OUT", "simple").ok(), "a\n1\n");
    assert_eq!(with("ETCDCTL_USER", "").code, 0, "empty is not set");
    for (name, value, words) in [
        ("ETCDCTL_USER", "root:secret", "users are not there yet"),
        ("ETCDCTL_PASSWORD", "secret", "users are not there yet"),
        ("ETCDCTL_CACERT", "ca.pem", "TLS is not there yet"),
        ("ETCDCTL_CERT", "client.pem", "TLS is not there yet"),
        ("ETCDCTL_KEY", "client.key", "TLS is not there yet"),
        (
            "ETCDCTL_INSECURE_TRANSPORT",
            "false",
            "TLS, which is not there yet",
        ),
        ("ETCDCTL_KEEPALIVE_TIME", "soon", "ETCDCTL_KEEPALIVE_TIME"),
    ] {
        let refused = with(name, value);
        refused.is_refused(2, words);
        assert!(
            !refused.err.contains("secret"),
            "it tells a secret: {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctls_flags_for_plain_connections_are_accepted() {
    let gonfalon = Gonfalon::new().await;
    gonfalon.ok(&["--insecure-transport", "put", "a", "1"]);
    let value = gonfalon.ok(&[
        "get",
        "a",
        "--insecure-transport=true",
        "--print-value-only",
    ]);
    assert_eq!(value, "1\n");
    let off = ["--insecure-transport=false", "get", "a"];
    gonfalon.refused(&off, 2, "TLS, which is not there yet");
    gonfalon.refused(&["--user", "root", "get", "a"], 2, "--user");
    gonfalon.refused(
        &["--endpoints", "https://127.0.0.1:1", "get", "a"],
        2,
        "https is not supported",
    );
}

//! `lease` and `put --ttl`.

use serde_json::{Value, json};

use super::gonfalon::{Gonfalon, names, table, until};

/// The id in `lease 0123456789abcdef, ...`.
fn id(said: &str) -> &str {
    let id = said.strip_prefix("lease ").expect(said);
    id.split([',', ' ', '\n'])
        .next()
        .expect("the first of some")
}

/// An id as JSON has it.
fn number(id: &str) -> Value {
    json!(u64::from_str_radix(id, 16).expect("hexadecimal"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_granted_shown_renewed_and_revoked_with_its_keys() {
    let gonfalon = Gonfalon::new().await;
    let granted = gonfalon.ok(&["lease", "grant", "90s"]);
    let id = id(&granted);
    assert_eq!(granted, format!("lease {id}, 1m 30s\n"));
    gonfalon.ok(&["put", "k", "v", "--lease", id]);
    let got = gonfalon.ok(&["get", "k"]);
    assert_eq!(table(&got)[1], ["k", "2", "1", id, "v"]);
    let left = gonfalon.ok(&["lease", "timetolive", id, "--keys"]);
    assert!(left.starts_with(&format!("lease {id}: 1m ")), "{left}");
    assert!(left.ends_with(" left of 1m 30s\n1 key\n  k\n"), "{left}");
    assert_eq!(table(&gonfalon.ok(&["lease", "list"])), [["LEASE"], [id]]);
    let renewed = gonfalon.ok(&["lease", "keep-alive", id, "--once"]);
    assert_eq!(renewed, format!("lease {id} renewed for 1m 30s\n"));
    let revoked = gonfalon.ok(&["lease", "revoke", id]);
    assert_eq!(revoked, format!("lease {id} revoked\n"));

    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "0 keys\n"
    );
    let gone = gonfalon.ok(&["lease", "timetolive", id]);
    assert!(
        gone.starts_with(&format!("lease {id} does not exist")),
        "{gone}"
    );
    gonfalon.refused(&["lease", "revoke", id], 1, "requested lease not found");
    let renewal = ["lease", "keep-alive", id, "--once"];
    gonfalon.refused(&renewal, 1, &format!("lease {id} expired or was revoked"));
    gonfalon.refused(&["lease", "revoke", "not-hex"], 2, "hexadecimal");
    gonfalon.refused(&["lease", "grant", "soon"], 2, "write seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_as_json_have_etcdctls_names() {
    let gonfalon = Gonfalon::new().await;
    let header = ["cluster_id", "member_id", "raft_term", "revision"];
    let with = |more: &[&'static str]| {
        let mut names = [&header[..], more].concat();
        names.sort_unstable();
        names
    };
    let granted = gonfalon.json(&["lease", "grant", "60"]);
    assert_eq!(names(&granted), with(&["Error", "ID", "TTL"]));
    assert_eq!(
        (&granted["TTL"], &granted["Error"]),
        (&json!(60), &json!(""))
    );
    let id = format!("{:x}", granted["ID"].as_u64().expect("an id"));
    gonfalon.ok(&["put", "k", "v", "--lease", &id]);
    assert_eq!(
        gonfalon.json(&["get", "k"])["kvs"][0]["lease"],
        granted["ID"]
    );
    let left = gonfalon.json(&["lease", "timetolive", &id, "--keys"]);
    assert_eq!(names(&left), with(&["granted-ttl", "id", "keys", "ttl"]));
    assert_eq!(
        (&left["id"], &left["granted-ttl"]),
        (&granted["ID"], &json!(60))
    );
    assert_eq!(left["keys"], json!(["aw=="]));
    let list = gonfalon.json(&["lease", "list"]);
    assert_eq!(names(&list), with(&["leases"]));
    assert_eq!(list["leases"], json!([{"id": granted["ID"]}]));
    let renewed = gonfalon.json(&["lease", "keep-alive", &id, "--once"]);
    assert_eq!(names(&renewed), with(&["ID", "TTL"]));
    assert_eq!(
        (&renewed["ID"], &renewed["TTL"]),
        (&granted["ID"], &json!(60))
    );
    assert_eq!(names(&gonfalon.json(&["lease", "revoke", &id])), ["header"]);
    assert_eq!(
        gonfalon.json(&["lease", "timetolive", &id])["ttl"],
        json!(-1)
    );
    assert_eq!(gonfalon.json(&["lease", "list"])["leases"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_renews_until_the_lease_is_gone() {
    let gonfalon = Gonfalon::new().await;
    let granted = gonfalon.ok(&["lease", "grant", "3"]);
    let id = id(&granted);
    let mut people = gonfalon.start(&["lease", "keep-alive", id]);
    let mut programs = gonfalon.start(&["-w", "json", "lease", "keep-alive", id]);
    for _ in 0..2 {
        assert_eq!(people.line(), format!("lease {id} renewed for 3s"));
        let renewed = programs.object();
        assert_eq!((&renewed["ID"], &renewed["TTL"]), (&number(id), &json!(3)));
    }
    gonfalon.ok(&["lease", "revoke", id]);
    assert_eq!(people.ends(), Some(1), "the lease is gone");
    assert_eq!(programs.ends(), Some(1), "the lease is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn put_with_a_time_makes_a_lease_with_which_the_key_goes() {
    let gonfalon = Gonfalon::new().await;
    let put = gonfalon.ok(&["put", "k", "v", "--ttl", "1s"]);
    let second = put.strip_prefix("OK, revision 2\n").expect(&put);
    let lease = id(second);
    let advice = format!("lease {lease}, 1s; renew it with: gonfalon lease keep-alive {lease}\n");
    assert_eq!(second, advice);
    until("the key goes with its lease", || {
        gonfalon.run(&["get", "k"]).err.contains("no such key")
    });
    // Its end is a deletion like any other.
    let mut watch = gonfalon.start(&["watch", "k", "--rev", "3"]);
    assert_eq!(watch.line(), "3  delete  k  was v");
    drop(watch);

    let put = gonfalon.json(&["put", "k", "v", "--ttl", "5m"]);
    assert_eq!(names(&put), ["header", "lease"]);
    let list = gonfalon.json(&["lease", "list"]);
    assert_eq!(list["leases"], json!([{"id": put["lease"]}]));
    // A lease for a key that could not be written is not left behind.
    gonfalon.refused(&["put", "", "v", "--ttl", "5m"], 1, "key is not provided");
    assert_eq!(gonfalon.json(&["lease", "list"])["leases"], list["leases"]);
    gonfalon.refused(
        &["put", "k", "v", "--ttl", "1s", "--lease", "7b"],
        2,
        "--lease",
    );
}

//! `lock` and `elect`.

use serde_json::json;

use super::gonfalon::{Gonfalon, names, until};

#[tokio::test(flavor = "multi_thread")]
async fn lock_runs_a_command_and_lets_go() {
    let gonfalon = Gonfalon::new().await;
    let script = "echo $ETCD_LOCK_KEY at $ETCD_LOCK_REV; exit 7";
    let ran = gonfalon.run(&["lock", "door", "sh", "-c", script]);
    assert_eq!((ran.code, ran.err.as_str()), (7, ""), "{ran:?}");
    assert!(ran.out.starts_with("door/"), "{ran:?}");
    assert!(ran.out.ends_with(" at 2\n"), "{ran:?}");
    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "0 keys\n"
    );
    assert_eq!(gonfalon.json(&["lease", "list"])["leases"], json!([]));
    gonfalon.refused(&["lock"], 2, "Usage:");
}

/// Says which process does its work; SIGTERM ends it by a trap.
const WORK: &str = "trap 'echo tidied up; exit 3' TERM; sleep 600 & echo $!; wait";

/// Whether a process, which is not ours, is at work.
fn is_at_work(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that nobody waits for stays as a zombie where init does not.
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_told_to_end_ends_before_the_lock_is_free() {
    let gonfalon = Gonfalon::new().await;
    let mut holder = gonfalon.start(&["lock", "door", "sh", "-c", WORK]);
    let worker = holder.line();
    assert!(is_at_work(&worker), "{worker}");
    holder.terminate();
    assert_eq!(holder.line(), "tidied up");
    assert_eq!(holder.ends(), Some(3));
    assert!(!is_at_work(&worker), "what it had started has ended too");
    gonfalon.ok(&["lock", "door", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_lock_is_lost_is_killed_with_all_that_it_has_started() {
    let gonfalon = Gonfalon::new().await;
    let mut holder = gonfalon.start(&["lock", "--ttl", "3", "door", "sh", "-c", WORK]);
    let worker = holder.line();
    assert!(is_at_work(&worker), "{worker}");
    let leases = gonfalon.json(&["lease", "list"]);
    let id = leases["leases"][0]["id"].as_i64().expect("there is one");
    gonfalon.ok(&["lease", "revoke", &format!("{id:x}")]);
    assert!(holder.ends().is_some_and(|code| code != 0));
    until("its work is over", || !is_at_work(&worker));
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_lets_one_in_after_the_other() {
    let gonfalon = Gonfalon::new().await;
    let mut first = gonfalon.start(&["-w", "json", "lock", "door"]);
    let held = first.object();
    assert_eq!(names(&held), ["count", "header", "kvs"]);
    assert_eq!(held["kvs"][0]["create_revision"], json!(2));
    let mut second = gonfalon.start(&["lock", "door"]);
    until("the second waits in line", || {
        gonfalon.ok(&["get", "door/", "--prefix", "--count-only"]) == "2 keys\n"
    });
    assert!(!second.has_said_more(), "the first still holds it");
    assert_eq!(first.interrupt(), Some(0));
    let held = second.line();
    assert!(held.starts_with("holding door/"), "{held}");
    assert!(held.ends_with(" (revision 3); Ctrl-C lets go"), "{held}");
    assert_eq!(second.interrupt(), Some(0));
    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "0 keys\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn elect_has_a_winner_whom_everybody_sees() {
    let gonfalon = Gonfalon::new().await;
    let mut alice = gonfalon.start(&["elect", "office", "alice"]);
    let won = alice.line();
    assert!(won.starts_with("elected: alice (office/"), "{won}");
    assert!(won.ends_with(", revision 2)"), "{won}");
    let mut observer = gonfalon.start(&["-w", "json", "elect", "--listen", "office"]);
    let seen = observer.object();
    assert_eq!(names(&seen), ["count", "header", "kvs"]);
    assert_eq!(seen["kvs"][0]["value"], "YWxpY2U=");
    let mut bob = gonfalon.start(&["elect", "office", "bob"]);
    until("bob stands too", || {
        gonfalon.ok(&["get", "office/", "--prefix", "--count-only"]) == "2 keys\n"
    });
    assert!(!bob.has_said_more(), "alice is still elected");
    assert_eq!(alice.interrupt(), Some(0));
    let won = bob.line();
    assert!(won.starts_with("elected: bob (office/"), "{won}");
    assert_eq!(observer.object()["kvs"][0]["value"], "Ym9i");
    assert_eq!(bob.interrupt(), Some(0));
    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "0 keys\n"
    );
    gonfalon.refused(&["elect", "office"], 2, "required");
    gonfalon.refused(
        &["elect", "office", "carol", "--listen"],
        2,
        "cannot be used with",
    );
}

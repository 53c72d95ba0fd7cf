//! What is asked of all members: `--cluster`, and `move-leader`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::gonfalon::{Gonfalon, names, object};

/// What every member says, and the id of the one that leads.
fn statuses(gonfalon: &Gonfalon) -> (Vec<Value>, u64) {
    let said = gonfalon.json(&["endpoint", "status", "--cluster"]);
    let all = said.as_array().expect("a list").clone();
    let leader = all[0]["Status"]["leader"].as_u64();
    (all, leader.expect("there is a leader"))
}

fn ids(statuses: &[Value]) -> BTreeSet<u64> {
    let id = |one: &Value| one["Status"]["header"]["member_id"].as_u64();
    statuses.iter().map(|one| id(one).expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_are_asked_and_the_leader_moves() {
    let mut gonfalon = Gonfalon::with_members(3).await;
    gonfalon.ok(&["put", "a", "1"]);
    // One endpoint is enough: the others, and the leader, are found.
    gonfalon.only_endpoint(0);
    let (all, leader) = statuses(&gonfalon);
    let members = ids(&all);
    assert_eq!(members.len(), 3, "{all:?}");
    let list = gonfalon.json(&["member", "list"]);
    assert_eq!(list["members"].as_array().map(Vec::len), Some(3));
    let well = gonfalon.json(&["endpoint", "health", "--cluster"]);
    let health = well
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["health"]);
    assert_eq!(health.collect::<Vec<_>>(), [&json!(true); 3]);
    let hashes = gonfalon.json(&["endpoint", "hashkv", "--cluster", "--rev", "2"]);
    let hashes = hashes.as_array().expect("a list").iter();
    let hashes: BTreeSet<String> = hashes
        .map(|one| one["HashKV"]["hash"].to_string())
        .collect();
    assert_eq!(hashes.len(), 1, "members differ: {hashes:?}");

    let said = gonfalon.ok(&["-w", "json", "defrag", "--cluster"]);
    let mut done: Vec<String> = said
        .lines()
        .map(|line| object(line)["endpoint"].to_string())
        .collect();
    done.sort();
    let mut endpoints: Vec<String> = gonfalon
        .cluster
        .endpoints()
        .iter()
        .map(|at| json!(at).to_string())
        .collect();
    endpoints.sort();
    assert_eq!(done, endpoints);

    let next = *members
        .iter()
        .find(|&&id| id != leader)
        .expect("there are three");
    let moved = gonfalon.json(&["move-leader", &format!("{next:x}")]);
    assert_eq!(names(&moved), ["from", "to"]);
    assert_eq!(
        (&moved["from"], &moved["to"]),
        (&json!(leader), &json!(next))
    );
    let back = gonfalon.ok(&["move-leader", &format!("{leader:x}")]);
    assert_eq!(
        back,
        format!("{leader:x} leads now; before, {next:x} did\n")
    );
    assert_eq!(statuses(&gonfalon).1, leader);
    gonfalon.refused(&["move-leader", "1"], 1, "bad leader transferee");
    gonfalon.refused(&["move-leader", "the-second"], 2, "hexadecimal");
}

//! Commands that mean the whole cluster: three members.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gonfalon_tests::etcdctl::Etcdctl;

use super::{PATIENCE, says_the_same};

/// The members' ids and names, from `member list`; a member is named a moment after it serves.
fn members(etcdctl: &Etcdctl) -> Result<Vec<(String, String)>> {
    let start = Instant::now();
    loop {
        let said = etcdctl.quietly(&["member", "list"])?;
        let mut members = Vec::new();
        for line in said.lines() {
            let parts: Vec<&str> = line.split(", ").collect();
            let id = parts.first().context("an id")?;
            let name = parts.get(2).context("a name")?;
            members.push(((*id).to_owned(), (*name).to_owned()));
        }
        if members.iter().all(|(_, name)| !name.is_empty()) {
            return Ok(members);
        }
        if start.elapsed() > PATIENCE {
            bail!("a member has no name:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn lists(etcdctl: &mut Etcdctl) -> Result<()> {
    for (id, name) in members(etcdctl)? {
        etcdctl.name(&id, &format!("<id of {name}>"));
        let number = u64::from_str_radix(&id, 16)?;
        etcdctl.name(&number.to_string(), &format!("<id of {name}>"));
    }
    // In the order of the ids, which are made of the ports: not the same for two clusters.
    let sorted = |text: String| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_by_key(|line| line.find(", m").map(|at| line[at..].to_owned()));
        lines.join("\n") + "\n"
    };
    let said = etcdctl.quietly(&["member", "list"])?;
    etcdctl.note(&sorted(said));
    let said = etcdctl.quietly(&["member", "list", "-w", "table"])?;
    etcdctl.note(said.lines().nth(1).unwrap_or_default());
    let said = etcdctl.quietly(&["member", "list", "-w", "json"])?;
    let parsed: serde_json::Value = serde_json::from_str(&said)?;
    let list = parsed["members"].as_array().context("members")?;
    etcdctl.note(&format!("\n{} members\n", list.len()));
    for member in list {
        let keys: Vec<&String> = member.as_object().context("a member")?.keys().collect();
        etcdctl.note(&format!("{keys:?}\n"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn member_list_shows_names_and_urls() {
    let said = says_the_same(3, lists).await;
    let line = "<id of m1>, started, m1, http://<peer 1>, http://<member 1>, false\n";
    assert!(said.contains(line), "{said}");
}

/// The endpoint and the id of each member, and whether it leads.
fn statuses(etcdctl: &Etcdctl) -> Result<Vec<(String, String, bool)>> {
    let said = etcdctl.quietly(&["endpoint", "status"])?;
    let mut statuses = Vec::new();
    for line in said.lines() {
        let parts: Vec<&str> = line.split(", ").collect();
        let [endpoint, id, _, _, leads, ..] = parts[..] else {
            bail!("{line:?} is no status");
        };
        statuses.push((endpoint.to_owned(), id.to_owned(), leads == "true"));
    }
    Ok(statuses)
}

fn moves_leader(etcdctl: &mut Etcdctl) -> Result<()> {
    for round in 0..3 {
        let before = statuses(etcdctl)?;
        let leader = before.iter().find(|status| status.2).context("a leader")?;
        let other = before.iter().find(|status| !status.2).context("another")?;
        let said = etcdctl.quietly(&["move-leader", &other.1])?;
        let said = said.replace(&leader.1, "<old>").replace(&other.1, "<new>");
        etcdctl.note(&said);
        let after = statuses(etcdctl)?;
        let moved = after.iter().find(|status| status.2).context("a leader")?;
        etcdctl.note(&format!(
            "round {round}: it moved: {}\n",
            moved.1 == other.1
        ));
        // A follower cannot give away what it does not have.
        let refused = etcdctl.output(&["--endpoints", &leader.0, "move-leader", &leader.1], "")?;
        etcdctl.note(&format!("{}\n", refused.status));
        // Nor can leadership go to nobody.
        let refused = etcdctl.output(&["move-leader", "1234"], "")?;
        let text = String::from_utf8(refused.stderr)?;
        let text = text.lines().last().unwrap_or_default();
        etcdctl.note(&format!("{text} {}\n", refused.status));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn move_leader_moves_it_and_only_from_the_leader() {
    let said = says_the_same(3, moves_leader).await;
    assert!(
        said.contains("Leadership transferred from <old> to <new>\n"),
        "{said}"
    );
    assert_eq!(said.matches("it moved: true").count(), 3, "{said}");
}

fn asks_each(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "k", "1"])?;
    let output = etcdctl.output(&["endpoint", "health"], "")?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    etcdctl.note(&format!("{} healthy\n", said.matches("is healthy").count()));
    // In the order of the ids, which differ between two clusters.
    let said = etcdctl.quietly(&["defrag", "--cluster"])?;
    let finished = said.matches("Finished defragmenting etcd member").count();
    etcdctl.note(&format!("{finished} defragmented\n"));
    let said = etcdctl.quietly(&["endpoint", "hashkv", "--cluster"])?;
    let mut hashes: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split(", ").nth(1))
        .collect();
    hashes.dedup();
    etcdctl.note(&format!("{} different hashes\n", hashes.len()));
    // Each member answers: reads, writes, leases.
    let endpoints: Vec<String> = statuses(etcdctl)?.into_iter().map(|s| s.0).collect();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let one = ["--endpoints", endpoint];
        let key = format!("by-{at}");
        etcdctl.run(&[&one[..], &["put", &key, "1"]].concat())?;
        etcdctl.run(&[&one[..], &["get", "", "--prefix"]].concat())?;
        let granted = etcdctl.quietly(&[&one[..], &["lease", "grant", "60"]].concat())?;
        let id = granted.split(' ').nth(1).context("an id")?.to_owned();
        etcdctl.name(&id, &format!("<lease {at}>"));
        etcdctl.run(&[&one[..], &["lease", "keep-alive", "--once", &id]].concat())?;
        etcdctl.run(&[&one[..], &["lease", "revoke", &id]].concat())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_answers_for_the_cluster() {
    let said = says_the_same(3, asks_each).await;
    assert!(said.contains("3 healthy\n"), "{said}");
    assert!(
        said.contains("3 defragmented\n1 different hashes\n"),
        "{said}"
    );
}

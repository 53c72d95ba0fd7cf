//! `compaction`, `defrag`, `alarm`, `endpoint`, `snapshot`, `check`: one member.

use anyhow::{Context as _, Result};
use gonfalon_tests::binaries::server_under_test;
use gonfalon_tests::etcdctl::Etcdctl;
use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{says_the_same, started};

fn compacts(etcdctl: &mut Etcdctl) -> Result<()> {
    for value in 1..8 {
        etcdctl.run(&["put", "k", &value.to_string()])?;
    }
    etcdctl.run(&["compaction", "5"])?;
    etcdctl.run(&["compaction", "5"])?;
    etcdctl.run(&["compaction", "3"])?;
    etcdctl.run(&["compaction", "100"])?;
    etcdctl.run(&["get", "k", "--rev", "4"])?;
    etcdctl.run(&["get", "k", "--rev", "5"])?;
    etcdctl.run(&["compaction", "7", "--physical"])?;
    etcdctl.run(&["get", "k", "--rev", "6"])?;
    etcdctl.run(&["get", "k", "-w", "json"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_drops_history_and_nothing_else() {
    let said = says_the_same(1, compacts).await;
    assert!(said.contains("compacted revision 5\n"), "{said}");
    assert!(
        said.contains("required revision has been compacted"),
        "{said}"
    );
}

fn maintains(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "k", "1"])?;
    etcdctl.run(&["defrag"])?;
    etcdctl.run(&["defrag", "--cluster"])?;
    etcdctl.run(&["alarm", "list"])?;
    etcdctl.run(&["alarm", "disarm"])?;
    etcdctl.run(&["get", "k"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn defrag_and_alarms() {
    let said = says_the_same(1, maintains).await;
    assert!(
        said.contains("Finished defragmenting etcd member"),
        "{said}"
    );
}

fn endpoints(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "k", "1"])?;
    for args in [
        &["endpoint", "health"][..],
        &["endpoint", "health", "--cluster"],
    ] {
        // It says how long it took, on standard error in this version.
        let output = etcdctl.output(args, "")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said)?;
        let said = said.split("took =").next().unwrap_or_default();
        etcdctl.note(&format!("{said} {}\n", output.status));
    }
    let said = etcdctl.quietly(&["endpoint", "status", "-w", "json"])?;
    let parsed: serde_json::Value = serde_json::from_str(&said)?;
    let status = &parsed[0]["Status"];
    let number = |value: &serde_json::Value| value.as_u64().is_some_and(|number| number > 0);
    for key in [
        "dbSize",
        "leader",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
    ] {
        etcdctl.note(&format!("{key} is there: {}\n", number(&status[key])));
    }
    etcdctl.note(&format!("revision {}\n", status["header"]["revision"]));
    let leads = status["leader"] == status["header"]["member_id"];
    etcdctl.note(&format!("it leads: {leads}\n"));
    for format in ["simple", "table", "fields"] {
        let said = etcdctl.quietly(&["endpoint", "status", "-w", format])?;
        etcdctl.note(&format!("{} lines\n", said.lines().count()));
    }
    let said = etcdctl.quietly(&["endpoint", "hashkv", "-w", "json"])?;
    let parsed: serde_json::Value = serde_json::from_str(&said)?;
    let hash = &parsed[0]["HashKV"];
    etcdctl.note(&format!("hash is there: {}\n", number(&hash["hash"])));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_health_status_and_hash() {
    let said = says_the_same(1, endpoints).await;
    assert!(said.contains("<member 0> is healthy"), "{said}");
    assert!(said.contains("revision 2\nit leads: true\n"), "{said}");
    assert!(!said.contains("is there: false"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_save_takes_the_whole_store() {
    let (_cluster, mut etcdctl) = started(server_under_test(), 1).await;
    // A megabyte, in more than one piece.
    for at in 0..10 {
        // Nothing that could be compressed to less than half.
        let random = StdRng::seed_from_u64(at).sample_iter(Alphanumeric);
        let value: String = random.take(100_000).map(char::from).collect();
        let key = format!("k{at}");
        let output = etcdctl.output(&["put", &key], &value).expect("it runs");
        assert!(output.status.success(), "{output:?}");
    }
    let said = etcdctl
        .run(&["snapshot", "save", "saved.db"])
        .expect("it runs");
    assert!(
        said.contains("Snapshot saved at saved.db"),
        "{}",
        etcdctl.transcript()
    );
    let saved = std::fs::metadata(etcdctl.dir().join("saved.db")).expect("it is there");
    assert!(saved.len() > 10 * 100_000 / 2, "{} bytes", saved.len());
}

/// The number in the line of what `check` says that has `word`, whatever it thinks of it:
/// `PASS: Throughput is 150 writes/s`, `FAIL: Throughput too low: 90 writes/s`.
fn figure(said: &str, word: &str) -> Result<f64> {
    let line = said.lines().find(|line| line.contains(word));
    let line = line.with_context(|| format!("{word:?} is not in {said:?}"))?;
    let mut numbers = line.split(' ').filter_map(|part| part.parse().ok());
    numbers
        .next()
        .with_context(|| format!("no number in {line:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn check_perf_runs_its_minute_and_cleans_up() {
    let (_cluster, mut etcdctl) = started(server_under_test(), 1).await;
    // Whether it passes is the machine's matter; that it can measure is ours.
    let said = etcdctl
        .run(&["check", "perf", "--load", "s"])
        .expect("it runs");
    let writes = figure(&said, "Throughput").expect("a throughput");
    assert!(writes > 1.0, "{said}");
    let left = etcdctl.run(&["get", "", "--prefix", "--keys-only"]);
    assert_eq!(left.expect("it runs"), "", "its keys are deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_datascale_reads_our_memory_from_the_metrics() {
    let (_cluster, mut etcdctl) = started(server_under_test(), 1).await;
    let said = etcdctl
        .run(&["check", "datascale", "--load", "s"])
        .expect("it runs");
    assert!(said.contains("Approximate system memory used"), "{said}");
}

//! `put`, `get`, `del`.

use anyhow::Result;
use gonfalon_tests::etcdctl::Etcdctl;

use super::says_the_same;

/// Keys whose orders by key, value, version, creation and modification all differ.
fn fill(etcdctl: &mut Etcdctl) -> Result<()> {
    for (key, value) in [
        ("b", "5"),
        ("a", "9"),
        ("d", "1"),
        ("c", "3"),
        ("a", "7"),
        ("a", "2"),
        ("d", "4"),
        ("other", "x"),
    ] {
        etcdctl.run(&["put", key, value])?;
    }
    Ok(())
}

fn puts(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "k", "one"])?;
    etcdctl.run(&["put", "k", "two", "--prev-kv"])?;
    etcdctl.run(&["put", "new", "1", "--prev-kv"])?;
    etcdctl.run_with(&["put", "k"], "from standard input\n")?;
    etcdctl.run(&["put", "k", "--ignore-value"])?;
    etcdctl.run(&["put", "k", "v", "--ignore-lease"])?;
    etcdctl.run(&["put", "missing", "--ignore-value"])?;
    etcdctl.run(&["put", "k", "", "-w", "fields"])?;
    etcdctl.run(&["put", "", "v"])?;
    etcdctl.run(&["put", "k", "v", "--lease", "1234abcd"])?;
    etcdctl.run(&["put", "k", "v", "--prev-kv", "-w", "json"])?;
    etcdctl.run(&["put", "k", "v", "--prev-kv", "-w", "fields"])?;
    etcdctl.run(&["get", "k", "-w", "json"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn put_with_each_of_its_flags() {
    let said = says_the_same(1, puts).await;
    for words in [
        "OK\nk\none\n",
        "requested lease not found",
        "key is not provided",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

fn gets(etcdctl: &mut Etcdctl) -> Result<()> {
    fill(etcdctl)?;
    for args in [
        &["a"][..],
        &["none"],
        &[""],
        &["a", "c"],
        &["c", "a"],
        &["", "--prefix"],
        &["", "--from-key"],
        &["b", "--from-key"],
        &["a", "--prefix", "--limit", "1"],
        &["", "--prefix", "--limit", "2"],
        &["", "--prefix", "--keys-only"],
        &["", "--prefix", "--print-value-only"],
        &["", "--prefix", "--consistency", "s"],
        &["", "--prefix", "--rev", "4"],
        &["a", "--rev", "2"],
        &["a", "--rev", "1000"],
        &[
            "", "--prefix", "--rev", "5", "--limit", "2", "--order", "DESCEND",
        ],
        &["a", "--prefix", "--from-key"],
        &["", "--prefix", "--hex"],
        &["", "--prefix", "-w", "json"],
        &["", "--prefix", "-w", "json", "--hex"],
        &["", "--prefix", "-w", "fields"],
        &["a", "-w", "fields"],
        &["", "--prefix", "--limit", "3", "-w", "json"],
        &["", "--prefix", "--keys-only", "-w", "fields"],
    ] {
        etcdctl.run(&[&["get"], args].concat())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn get_with_each_of_its_flags() {
    let said = says_the_same(1, gets).await;
    assert!(said.contains("$ etcdctl get a\na\n2\n"), "{said}");
    assert!(
        said.contains("required revision is a future revision"),
        "{said}"
    );
}

fn sorted_gets(etcdctl: &mut Etcdctl) -> Result<()> {
    fill(etcdctl)?;
    for by in ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"] {
        for order in ["ASCEND", "DESCEND"] {
            let sort = ["get", "", "--prefix", "--sort-by", by, "--order", order];
            etcdctl.run(&sort)?;
            etcdctl.run(&[&sort[..], &["--limit", "3"]].concat())?;
            etcdctl.run(&[&sort[..], &["--rev", "6"]].concat())?;
        }
        etcdctl.run(&["get", "", "--prefix", "--sort-by", by])?;
    }
    etcdctl.run(&["get", "", "--prefix", "--sort-by", "COLOUR"])?;
    etcdctl.run(&["get", "", "--prefix", "--order", "UPWARD"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn get_in_each_order() {
    let said = says_the_same(1, sorted_gets).await;
    assert!(
        said.contains("--sort-by VALUE --order ASCEND --limit 3\na\n2\nc\n3\nd\n4\n"),
        "{said}"
    );
}

fn dels(etcdctl: &mut Etcdctl) -> Result<()> {
    fill(etcdctl)?;
    for args in [
        &["none"][..],
        &["a"],
        &["b", "--prev-kv"],
        &["c", "e", "--prev-kv"],
        &["oth", "--prefix"],
        &["", "--from-key"],
        &[""],
        &["a", "-w", "json"],
    ] {
        etcdctl.run(&[&["del"], args].concat())?;
        etcdctl.run(&["get", "", "--prefix", "--keys-only"])?;
    }
    fill(etcdctl)?;
    for args in [
        &["a", "--prev-kv", "-w", "json"][..],
        &["b", "--prev-kv", "-w", "fields"],
        &["", "--prefix", "--prev-kv"],
    ] {
        etcdctl.run(&[&["del"], args].concat())?;
    }
    // Deleted keys are there in the past, and begin anew.
    etcdctl.run(&["get", "a", "--rev", "4"])?;
    etcdctl.run(&["put", "a", "again"])?;
    etcdctl.run(&["get", "a", "-w", "json"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn del_with_each_of_its_flags() {
    let said = says_the_same(1, dels).await;
    assert!(
        said.contains("$ etcdctl del c e --prev-kv\n2\nc\n3\nd\n4\n"),
        "{said}"
    );
}

fn large(etcdctl: &mut Etcdctl) -> Result<()> {
    // A value of a megabyte does not fit on a command line.
    let megabyte = "x".repeat(1_000_000);
    let said = etcdctl.output(&["put", "large"], &megabyte)?;
    etcdctl.note(&String::from_utf8_lossy(&said.stdout));
    let found = etcdctl.quietly(&["get", "large", "--print-value-only"])?;
    etcdctl.note(&format!("{} bytes\n", found.len()));
    let said = etcdctl.output(&["put", "large"], &megabyte.repeat(2))?;
    let errors = String::from_utf8_lossy(&said.stderr);
    let refused = errors.contains("etcdserver: request is too large");
    etcdctl.note(&format!("refused: {refused}\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_up_to_the_limit() {
    let said = says_the_same(1, large).await;
    assert_eq!(said, "OK\n1000001 bytes\nrefused: true\n");
}

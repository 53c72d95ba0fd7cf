//! `txn`: comparisons, then one of two lists of requests.

use anyhow::Result;
use gonfalon_tests::etcdctl::Etcdctl;

use super::says_the_same;

fn transactions(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "a", "1"])?;
    etcdctl.run(&["put", "b", "2"])?;
    for script in [
        "value(\"a\") = \"1\"\n\nput a 10\nget a\n\nget b\n\n",
        "value(\"a\") = \"1\"\n\nput a 11\n\nget b\nget a\n\n",
        "\nput c 3\ndel b\nget \"\" --prefix\n\n\n",
        "ver(\"a\") > \"1\"\nmod(\"c\") = \"5\"\ncreate(\"none\") = \"0\"\n\nput won yes\n\nput won no\n\n",
        "create(\"a\") < \"2\"\n\nput won yes\n\nput won no\n\n",
        "value(\"none\") = \"\"\n\nput won yes\n\nput won no\n\n",
        "\n\n\n",
        "\nput twice 1\nput twice 2\n\n\n",
        "\nput a 1 --ignore-lease\nget a --rev 2\ndel a --prev-kv\n\n\n",
        "\nput \"\" 1\n\n\n",
        "nonsense\n\n\n\n",
    ] {
        etcdctl.run_with(&["txn"], script)?;
    }
    etcdctl.run(&["get", "", "--prefix", "-w", "json"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn txn_from_standard_input() {
    let said = says_the_same(1, transactions).await;
    for words in [
        "SUCCESS\n",
        "FAILURE\n",
        "duplicate key given in txn request",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

fn interactive(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "a", "1"])?;
    let script = "value(\"a\") = \"1\"\n\nput a 2\nget a\n\nget a\n\n";
    etcdctl.run_with(&["txn", "-i"], script)?;
    etcdctl.run_with(&["txn", "--interactive"], script)?;
    for format in ["json", "fields"] {
        etcdctl.run_with(&["txn", "-w", format], "\nget a\nput b 1\ndel a\n\n\n")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn txn_interactively_and_in_each_format() {
    let said = says_the_same(1, interactive).await;
    assert!(said.contains("success requests (get, put, del):"), "{said}");
}

//! `lease`: grant, timetolive, list, keep-alive, revoke, and keys that go with them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gonfalon_tests::etcdctl::Etcdctl;

use super::says_the_same;

/// Grants a lease and gives it a name in the transcript; its id.
fn grant(etcdctl: &mut Etcdctl, ttl: &str, name: &str) -> Result<String> {
    let said = etcdctl.run(&["lease", "grant", ttl])?;
    // lease 694d7… granted with TTL(60s)
    let id = said.split(' ').nth(1).context("an id")?.to_owned();
    etcdctl.name(&id, name);
    let number = i64::from_str_radix(&id, 16)?;
    etcdctl.name(&number.to_string(), name);
    Ok(id)
}

fn lives(etcdctl: &mut Etcdctl) -> Result<()> {
    let id = grant(etcdctl, "600", "<lease>")?;
    etcdctl.run(&["put", "b", "1", "--lease", &id])?;
    etcdctl.run(&["put", "a", "2", "--lease", &id])?;
    etcdctl.run(&["get", "a", "-w", "json"])?;
    etcdctl.run(&["put", "a", "3", "--ignore-lease"])?;
    etcdctl.run(&["put", "a", "--ignore-value", "--lease", &id])?;
    // What remains is counted in seconds, and some may have passed.
    let said = etcdctl.quietly(&["lease", "timetolive", &id, "--keys"])?;
    let said = (590..600).fold(said, |said, left| {
        said.replace(&format!("remaining({left}s)"), "remaining(600s)")
    });
    // etcd lists the keys in the order of a hash table.
    let said = said.replace("[b a]", "[a b]");
    etcdctl.note(&said);
    etcdctl.run(&["lease", "keep-alive", "--once", &id])?;
    etcdctl.run(&["lease", "list"])?;
    etcdctl.run(&["lease", "list", "-w", "json"])?;
    // Without a lease the key outlives it.
    etcdctl.run(&["put", "b", "4"])?;
    etcdctl.run(&["lease", "revoke", &id])?;
    etcdctl.run(&["get", "", "--prefix", "-w", "fields"])?;
    etcdctl.run(&["lease", "list"])?;
    etcdctl.run(&["lease", "timetolive", &id])?;
    etcdctl.run(&["lease", "revoke", &id])?;
    etcdctl.run(&["lease", "keep-alive", "--once", &id])?;
    etcdctl.run(&["put", "a", "5", "--lease", &id])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_its_grant_to_its_end() {
    let said = says_the_same(1, lives).await;
    for words in [
        "granted with TTL(600s)",
        "attached keys([a b])",
        "keepalived with TTL(600)",
        "lease <lease> revoked",
        "lease <lease> already expired",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_in_each_format() {
    says_the_same(1, formats).await;
}

fn formats(etcdctl: &mut Etcdctl) -> Result<()> {
    for format in ["json", "fields"] {
        let said = etcdctl.quietly(&["lease", "grant", "600", "-w", format])?;
        let (_, id) = said.split_once("\"ID\"").context("an id")?;
        let id = id.trim_start_matches([' ', ':']);
        let digits: String = id.chars().take_while(char::is_ascii_digit).collect();
        etcdctl.name(&digits, &format!("<lease in {format}>"));
        etcdctl.note(&said);
        let hex = format!("{:x}", digits.parse::<i64>()?);
        etcdctl.name(&hex, &format!("<lease in {format}>"));
        etcdctl.run(&["put", "k", "v", "--lease", &hex])?;
        let said = etcdctl.quietly(&["lease", "timetolive", &hex, "--keys", "-w", format])?;
        // Some seconds may have passed. Only the time is changed: an id may have these digits too.
        let said = (590..600).fold(said, |said, left| {
            let said = said.replace(&format!(":{left},"), ":600,");
            said.replace(&format!(" : {left}\n"), " : 600\n")
        });
        etcdctl.note(&said);
        etcdctl.run(&["lease", "keep-alive", "--once", &hex, "-w", format])?;
        etcdctl.run(&["lease", "revoke", &hex, "-w", format])?;
    }
    Ok(())
}

fn expires(etcdctl: &mut Etcdctl) -> Result<()> {
    let dies = grant(etcdctl, "4", "<dies>")?;
    let lives = grant(etcdctl, "4", "<lives>")?;
    let mut renewing = etcdctl.start(&["lease", "keep-alive", &lives])?;
    etcdctl.run(&["put", "dies", "1", "--lease", &dies])?;
    etcdctl.run(&["put", "lives", "1", "--lease", &lives])?;
    // From the beginning: on a busy machine etcdctl may start only when the key is gone.
    let mut watch = etcdctl.start(&["watch", "dies", "--rev", "1"])?;
    let said = watch.wait_for(|said| said.contains("DELETE"))?;
    etcdctl.note(&said);
    watch.interrupt()?;
    // Longer than it would live without being renewed.
    std::thread::sleep(Duration::from_secs(5));
    etcdctl.run(&["get", "", "--prefix"])?;
    let said = renewing.wait_for_lines(2)?;
    etcdctl.note(said.lines().next().unwrap_or_default());
    renewing.interrupt()?;
    etcdctl.quietly(&["lease", "revoke", &lives])?;
    etcdctl.run(&["get", "", "--prefix"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_lives_and_one_that_is_not_takes_its_keys() {
    let said = says_the_same(1, expires).await;
    assert!(said.contains("DELETE\ndies\n"), "{said}");
    assert!(
        said.contains("$ etcdctl get  --prefix\nlives\n1\n"),
        "{said}"
    );
}

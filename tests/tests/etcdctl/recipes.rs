//! `lock` and `elect`, which etcdctl builds itself on leases, transactions and watches.

use anyhow::Result;
use gonfalon_tests::etcdctl::{Etcdctl, Running};

use super::says_the_same;

/// Whether it has said a line: the key that it holds.
fn holds(running: &mut Running) -> Result<String> {
    running.wait_for(|said| said.ends_with('\n'))
}

fn locks(etcdctl: &mut Etcdctl) -> Result<()> {
    let mut first = etcdctl.start(&["lock", "mutex", "--ttl", "30"])?;
    let held = holds(&mut first)?;
    etcdctl.name(held.trim().trim_start_matches("mutex/"), "<first>");
    etcdctl.note(&held);
    let mut second = etcdctl.start(&["lock", "mutex"])?;
    // It waits behind the first: its key is there, and it has said nothing.
    loop {
        let waiting = etcdctl.quietly(&["get", "mutex", "--prefix", "--keys-only"])?;
        if waiting.lines().filter(|line| !line.is_empty()).count() == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    etcdctl.note(&format!("the second says {:?}\n", second.said()?));
    first.interrupt()?;
    let held = holds(&mut second)?;
    etcdctl.name(held.trim().trim_start_matches("mutex/"), "<second>");
    etcdctl.note(&held);
    second.interrupt()?;
    etcdctl.run(&["get", "mutex", "--prefix"])?;
    // With a command: its output, its exit code, and the key in its environment.
    etcdctl.run(&[
        "lock",
        "mutex",
        "sh",
        "-c",
        "echo ${ETCD_LOCK_KEY%/*}; exit 7",
    ])?;
    etcdctl.run(&["get", "mutex", "--prefix"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_lets_one_in_at_a_time() {
    let said = says_the_same(1, locks).await;
    assert!(said.contains("mutex/<first>\n"), "{said}");
    assert!(
        said.contains("the second says \"\"\nmutex/<second>\n"),
        "{said}"
    );
}

fn elects(etcdctl: &mut Etcdctl) -> Result<()> {
    let mut first = etcdctl.start(&["elect", "office", "alice"])?;
    let held = first.wait_for_lines(2)?;
    let key = held.lines().next().unwrap_or_default();
    etcdctl.name(key.trim_start_matches("office/"), "<alice>");
    etcdctl.note(&held);
    let mut observer = etcdctl.start(&["elect", "-l", "office"])?;
    observer.wait_for_lines(2)?;
    let mut second = etcdctl.start(&["elect", "office", "bob"])?;
    first.interrupt()?;
    let held = second.wait_for_lines(2)?;
    let key = held.lines().next().unwrap_or_default();
    etcdctl.name(key.trim_start_matches("office/"), "<bob>");
    etcdctl.note(&held);
    let said = observer.wait_for_lines(4)?;
    etcdctl.note(&said);
    observer.interrupt()?;
    second.interrupt()?;
    etcdctl.run(&["get", "office", "--prefix"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn elect_has_one_winner_whom_observers_see() {
    let said = says_the_same(1, elects).await;
    assert!(
        said.contains("office/<alice>\nalice\noffice/<bob>\nbob\n"),
        "{said}"
    );
}

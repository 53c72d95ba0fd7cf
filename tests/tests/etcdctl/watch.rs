//! `watch`, its flags, its interactive form, and commands that it runs.

use anyhow::Result;
use gonfalon_tests::etcdctl::{Etcdctl, Running};

use super::says_the_same;

/// Puts until the watcher has seen one, so that what follows is seen too.
fn until_it_watches(etcdctl: &Etcdctl, watch: &mut Running, key: &str) -> Result<()> {
    while watch.said()?.is_empty() {
        etcdctl.quietly(&["put", key, "are you there?"])?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}

/// What a watcher said after the last `marker`: before it, it may have seen one or two questions.
fn after<'a>(said: &'a str, marker: &str) -> &'a str {
    said.rsplit_once(marker).map_or("", |(_, rest)| rest)
}

fn replays(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "a", "1"])?;
    etcdctl.run(&["put", "ab", "2"])?;
    etcdctl.run(&["put", "a", "3"])?;
    etcdctl.run(&["put", "b", "4"])?;
    etcdctl.run(&["del", "a", "--prefix"])?;
    for (args, lines) in [
        (&["a", "--rev", "1"][..], 9),
        (&["a", "--rev", "4"], 6),
        (&["a", "--rev", "1", "--prev-kv"], 13),
        (&["a", "b", "--rev", "2"], 15),
        (&["", "--prefix", "--rev", "1"], 18),
        (&["a", "--prefix", "--rev", "1", "--prev-kv"], 21),
        (&["a", "--rev", "1", "--hex"], 9),
        (&["a", "--rev", "6", "-w", "json"], 1),
        (&["a", "--rev", "6", "-w", "fields", "--prev-kv"], 16),
    ] {
        let mut watch = etcdctl.start(&[&["watch"], args].concat())?;
        let said = watch.wait_for_lines(lines)?;
        etcdctl.note(&said);
        watch.interrupt()?;
    }
    etcdctl.run(&["compaction", "4"])?;
    // A watch of what is gone ends by itself, with the error.
    etcdctl.run(&["watch", "a", "--rev", "2"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_of_the_past_with_each_of_its_flags() {
    let said = says_the_same(1, replays).await;
    assert!(
        said.contains("etcdctl watch a --rev 1 &\nPUT\na\n1\nPUT\na\n3\nDELETE\na\n"),
        "{said}"
    );
    assert!(
        said.contains("required revision has been compacted"),
        "{said}"
    );
}

fn follows(etcdctl: &mut Etcdctl) -> Result<()> {
    let mut watch = etcdctl.start(&["watch", "k", "--prefix", "--prev-kv"])?;
    until_it_watches(etcdctl, &mut watch, "k")?;
    etcdctl.quietly(&["put", "k", "from here"])?;
    for at in 0..20 {
        etcdctl.quietly(&["put", &format!("k{at}"), "1"])?;
    }
    etcdctl.quietly(&["del", "k1", "--prefix"])?;
    etcdctl.quietly(&["put", "elsewhere", "1"])?;
    etcdctl.quietly(&["put", "k-end", "1"])?;
    let said = watch.wait_for(|said| said.contains("k-end"))?;
    etcdctl.note(after(&said, "from here\n"));
    watch.interrupt()
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_of_what_happens_now() {
    let said = says_the_same(1, follows).await;
    assert_eq!(said.matches("DELETE\n").count(), 11, "{said}");
    assert!(!said.contains("elsewhere"), "{said}");
}

fn types_in(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "a", "1"])?;
    etcdctl.run(&["put", "b", "2"])?;
    let mut watch = etcdctl.start(&["watch", "-i"])?;
    watch.type_in("watch a --rev 1\n")?;
    watch.wait_for_lines(3)?;
    watch.type_in("watch b c --rev 1 --prev-kv\n")?;
    watch.wait_for_lines(6)?;
    etcdctl.quietly(&["put", "b", "3"])?;
    watch.wait_for_lines(11)?;
    // Each of the two watches reports.
    watch.type_in("progress\n")?;
    let said = watch.wait_for(|said| said.matches("progress notify").count() == 2)?;
    etcdctl.note(&said);
    watch.interrupt()
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_interactively_several_ranges_and_progress() {
    let said = says_the_same(1, types_in).await;
    assert!(
        said.ends_with("PUT\nb\n2\nb\n3\nprogress notify: 4\nprogress notify: 4\n"),
        "{said}"
    );
}

fn runs_commands(etcdctl: &mut Etcdctl) -> Result<()> {
    etcdctl.run(&["put", "a", "1"])?;
    etcdctl.run(&["del", "a"])?;
    let script =
        "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let mut watch = etcdctl.start(&["watch", "a", "--rev", "1", "--", "sh", "-c", script])?;
    let said = watch.wait_for(|said| said.contains("3 \"DELETE\""))?;
    etcdctl.note(&said);
    watch.interrupt()
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_runs_a_command_for_each_event() {
    let said = says_the_same(1, runs_commands).await;
    assert!(said.contains("3 \"PUT\" \"a\" \"1\"\n"), "{said}");
    assert!(said.contains("3 \"DELETE\" \"a\" \"\"\n"), "{said}");
}

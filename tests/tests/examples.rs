//! The programs in `examples/`, as their readers would run them, against a real server.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use gonfalon::{Client, KeyRange};
use gonfalon_tests::binaries::{server_under_test, workspace};
use gonfalon_tests::cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// What the leases of the programs get: short, so that the tests are.
const TTL: &str = "2";

/// Built once, by the Cargo that runs the tests.
fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .current_dir(workspace())
            .args(["build", "--quiet", "-p", "gonfalon-examples"])
            .output()
            .expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let test = std::env::current_exe().expect("this program has a path");
        // target/debug/deps/examples-…
        test.ancestors().nth(2).expect("it is below target").into()
    });
    dir.join(name)
}

/// A running example. Dropped, it is killed.
struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(name: &str, cluster: &Cluster, args: &[&str]) -> Self {
        let mut child = Command::new(program(name))
            .args(["--endpoints", &cluster.member(0).endpoint()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let out = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        // Ends with the program's output.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with `text` in it.
    async fn says(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            match self.lines.try_recv() {
                Ok(line) => {
                    eprintln!("  {line}");
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => {
                    let is_over = error == std::sync::mpsc::TryRecvError::Disconnected;
                    assert!(!is_over, "it ended without {text:?}: {:#?}", self.seen);
                    assert!(began.elapsed() < PATIENCE, "no {text:?}: {:#?}", self.seen);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end, which is a good one; everything that it has said.
    fn ends(mut self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on: {:#?}", self.seen),
            }
        }
        let status = self.child.wait().expect("it can be waited for");
        assert!(status.success(), "{status}: {:#?}", self.seen);
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn server() -> (Cluster, Client) {
    let cluster = Cluster::start(server_under_test(), 1).await;
    let cluster = cluster.expect("the server starts");
    let client = Client::connect(cluster.member(0).endpoint()).await;
    (cluster, client.expect("it answers"))
}

#[tokio::test]
async fn live_config_follows_what_is_good_and_refuses_what_is_not() {
    let (cluster, client) = server().await;
    let mut config = Running::start("live_config", &cluster, &[]);
    config
        .says("limits: Limits { requests_per_second: 100")
        .await;
    let limits = |number: u32| format!("{{\"requests_per_second\": {number}, \"timeout_ms\": 5}}");
    client
        .put("/live_config/limits", limits(200))
        .await
        .unwrap();
    config
        .says("limits: Limits { requests_per_second: 200, timeout_ms: 5 }")
        .await;
    client.put("/live_config/limits", limits(0)).await.unwrap();
    config.says("nobody could ask anything").await;
    client.put("/live_config/greeting", "hello").await.unwrap();
    config.says("greeting is now hello").await;
    client.delete("/live_config/greeting").await.unwrap();
    config.says("greeting is gone").await;
    config.signal(Signal::TERM);
    let said = config.ends();
    assert!(said.iter().any(|line| line == "closed"), "{said:?}");
    assert!(
        !said
            .iter()
            .any(|line| line.contains("requests_per_second: 0,"))
    );
}

#[tokio::test]
async fn leader_election_has_one_leader_also_when_one_is_killed_or_ends() {
    let (cluster, client) = server().await;
    let start = |name: &'static str| {
        let args = ["--name", name, "--ttl", TTL];
        Running::start("leader_election", &cluster, &args)
    };
    let mut one = start("one");
    one.says("one: 1").await;
    let mut two = start("two");
    two.says("leader: one").await;
    one.signal(Signal::KILL);
    two.says("two: elected").await;
    let mut three = start("three");
    three.says("leader: two").await;
    // Nobody waits for a lease to run out when a leader says goodbye.
    two.signal(Signal::TERM);
    let said = two.ends();
    assert!(said.iter().any(|line| line == "closed"), "{said:?}");
    three.says("three: elected").await;
    three.says("three: ").await;
    let counted = client.get("/leader_election-counter").await.unwrap();
    assert!(counted.unwrap().version > 1);
}

/// The holder is stopped for longer than its lease: others go on, and when it wakes up it knows, and
/// writes nothing.
#[tokio::test]
async fn distributed_lock_is_safe_when_its_holder_is_stopped() {
    let (cluster, client) = server().await;
    let args = |name: &'static str, times: &'static str| {
        [
            "--name",
            name,
            "--ttl",
            TTL,
            "--times",
            times,
            "--hold-ms",
            "1000",
        ]
    };
    let mut one = Running::start("distributed_lock", &cluster, &args("one", "1"));
    one.says("one: has the lock").await;
    one.signal(Signal::STOP);
    let two = Running::start("distributed_lock", &cluster, &args("two", "2"));
    let said = two.ends();
    let wrote = said.iter().filter(|line| line.contains("two: wrote under"));
    assert_eq!(wrote.count(), 2, "{said:?}");
    one.signal(Signal::CONT);
    let said = one.ends();
    assert!(
        said.iter().any(|line| line.contains("one: wrote nothing")),
        "{said:?}"
    );
    let journal = client
        .range(KeyRange::prefix("/distributed_lock-journal/"))
        .await;
    let names: Vec<_> = journal
        .unwrap()
        .kvs
        .iter()
        .map(|kv| kv.value.clone())
        .collect();
    assert_eq!(names, ["two", "two"]);
}

/// Each takes it three times; nobody is there at the same time as another.
#[tokio::test]
async fn distributed_lock_lets_one_process_in_at_a_time() {
    let (cluster, client) = server().await;
    let start = |name: &'static str| {
        let args = ["--name", name, "--hold-ms", "20"];
        Running::start("distributed_lock", &cluster, &args)
    };
    let all: Vec<Running> = ["a", "b", "c"].into_iter().map(start).collect();
    for one in all {
        let said = one.ends();
        let wrote = said
            .iter()
            .filter(|line| line.contains(": wrote under fence"));
        assert_eq!(wrote.count(), 3, "{said:?}");
    }
    let journal = client
        .range(KeyRange::prefix("/distributed_lock-journal/"))
        .await
        .unwrap();
    assert_eq!(journal.count, 9, "a fence is given once");
    let left = client
        .range(KeyRange::prefix("/distributed_lock/"))
        .await
        .unwrap();
    assert_eq!(left.count, 0);
}

/// A worker dies with an item in its hands: another one does it, and none is lost.
#[tokio::test]
async fn work_queue_loses_nothing_when_a_worker_dies() {
    let (cluster, client) = server().await;
    let worker = |name: &'static str, item_ms: &'static str| {
        let args = ["--ttl", TTL, "work", "--name", name, "--item-ms", item_ms];
        Running::start("work_queue", &cluster, &args)
    };
    let items = ["one", "two", "three", "four"];
    Running::start("work_queue", &cluster, &[&["add"][..], &items].concat()).ends();
    // It begins, and would need an hour.
    let mut slow = worker("slow", "3600000");
    let begun = slow.says("slow: begins").await;
    slow.signal(Signal::KILL);
    let (a, b) = (worker("a", "50"), worker("b", "50"));
    let began = Instant::now();
    let mut done = Vec::new();
    while done.len() < items.len() {
        assert!(began.elapsed() < PATIENCE, "only {done:?} were done");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let said = a.lines.try_iter().chain(b.lines.try_iter());
        let items = said.filter_map(|line| Some(line.split_once("has done ")?.1.to_owned()));
        done.extend(items);
    }
    for one in [a, b] {
        one.signal(Signal::TERM);
        one.ends();
    }
    assert_eq!(client.queue("/work_queue").count().await.unwrap(), 0);
    done.sort();
    assert_eq!(
        done,
        ["four", "one", "three", "two"],
        "each once; the slow one: {begun}"
    );
}

//! Runs `gonfalon`'s commands against a cluster, as a shell would.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what must happen.
const POLL: Duration = Duration::from_millis(20);
/// So many lines of a running command wait for the test; more hold the command up.
const LINES_WAITING: usize = 1000;
/// A lone member needs no second to elect itself.
const QUICK: [&str; 4] = ["--heartbeat-interval", "20", "--election-timeout", "200"];

/// The program, and the servers that it is to talk to.
pub(crate) struct Gonfalon {
    program: PathBuf,
    endpoints: String,
    pub(crate) cluster: Cluster,
}

/// What one run left behind.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Gonfalon {
    /// With one member and an empty store.
    pub(crate) async fn new() -> Self {
        Self::with_members(1).await
    }

    /// With so many members and an empty store.
    pub(crate) async fn with_members(size: usize) -> Self {
        let flags = if size == 1 { &QUICK[..] } else { &[] };
        let cluster = Cluster::start_with(Server::Gonfalon, size, flags)
            .await
            .expect("it starts");
        Self {
            program: Server::Gonfalon.program().expect("it was just started"),
            endpoints: cluster.endpoints().join(","),
            cluster,
        }
    }

    /// From here on it knows of one member only.
    pub(crate) fn only_endpoint(&mut self, at: usize) {
        self.endpoints = self.cluster.member(at).endpoint();
    }

    /// Where files may be left.
    pub(crate) fn dir(&self) -> &Path {
        self.cluster.dir()
    }

    /// The command line with nothing of this machine's environment in it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GONFALON_ENDPOINTS", &self.endpoints)
            .env("GONFALON_COMMAND_TIMEOUT", "30s")
            .env("GONFALON_DIAL_TIMEOUT", "10s")
            .current_dir(self.dir())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs one command line to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(args), "")
    }

    /// Runs one command line with something to read on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Said {
        said(&mut self.command(args), input)
    }

    /// Standard output of a command that must succeed without a word on standard error.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// The one object that a command prints with `-w json`.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        object(&self.ok(&[&["--write-out", "json"], args].concat()))
    }

    /// Asserts that a command is refused with this exit code and these words; nothing may be on
    /// standard output.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str], code: i32, words: &str) {
        self.run(args).is_refused(code, words);
    }

    /// Starts a command that goes on until it is told to stop.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (send, lines) = sync_channel(LINES_WAITING);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Running { child, lines }
    }
}

/// Runs a command line to its end, with something to read on standard input.
pub(crate) fn said(command: &mut Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may end without reading all.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Said {
        code: output.status.code().expect("no signal ends it"),
        out: String::from_utf8(output.stdout).expect("these tests write text only"),
        err: String::from_utf8(output.stderr).expect("errors are text"),
    }
}

impl Said {
    /// Standard output, if it succeeded without a word on standard error.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self.out
    }

    /// Asserts the exit code, what standard error contains, and that there was no answer.
    #[track_caller]
    pub(crate) fn is_refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(words), "no {words:?} in {self:?}");
        assert_eq!(self.out, "", "{self:?}");
    }
}

/// A command that goes on. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Its next line on standard output.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.expect("it says one more line")
    }

    /// Its next line, as an object.
    #[track_caller]
    pub(crate) fn object(&mut self) -> Value {
        object(&self.line())
    }

    /// Whether it has said something that was not asked for yet.
    pub(crate) fn has_said_more(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    /// Ctrl-C; its exit code.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        self.ends()
    }

    /// SIGTERM, which is for it alone.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }

    /// Waits for its end; its exit code.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        thread::sleep(POLL);
    }
}

/// One line that is one JSON value.
#[track_caller]
pub(crate) fn object(line: &str) -> Value {
    let trimmed = line.trim_end();
    assert!(!trimmed.contains('\n'), "not one line: {line}");
    serde_json::from_str(trimmed).unwrap_or_else(|err| panic!("{err}: {line}"))
}

/// The keys of a JSON object, sorted.
#[track_caller]
pub(crate) fn names(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("an object");
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Asserts that `header` is one, and gives its revision.
#[track_caller]
pub(crate) fn revision(header: &Value) -> i64 {
    for name in ["cluster_id", "member_id", "raft_term"] {
        assert!(header[name].as_u64() > Some(0), "no {name}: {header}");
    }
    header["revision"].as_i64().expect("a revision")
}

/// The words of each line of a table for people.
pub(crate) fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

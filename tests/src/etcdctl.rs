//! etcd's own command line, run against a cluster; what it says is kept so that it can be compared
//! with what it says of another server.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::etcdctl;
use crate::cluster::Cluster;

/// How long something may take that etcdctl waits for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a running etcdctl's output.
const POLL: Duration = Duration::from_millis(10);

/// Runs etcdctl against one cluster and writes down what it says.
#[derive(Debug)]
pub struct Etcdctl {
    program: PathBuf,
    endpoints: String,
    dir: PathBuf,
    transcript: String,
    /// What differs between any two servers, and the word that stands for it.
    names: Vec<(String, String)>,
    runs: usize,
}

impl Etcdctl {
    /// Talks to every member of `cluster`; files go to the cluster's directory.
    ///
    /// # Errors
    /// etcdctl is not installed.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        let mut names = Vec::new();
        for at in 0..cluster.size() {
            names.push((cluster.member(at).endpoint(), format!("<member {at}>")));
            let peer = format!("127.0.0.1:{}", cluster.member(at).peer_port());
            names.push((peer, format!("<peer {at}>")));
        }
        names.push((cluster.dir().display().to_string(), "<dir>".to_owned()));
        Ok(Self {
            program: etcdctl()?,
            endpoints: cluster.endpoints().join(","),
            dir: cluster.dir().to_owned(),
            transcript: String::new(),
            names,
            runs: 0,
        })
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("ETCDCTL_API", "3")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(&self.dir)
            .args(["--endpoints", &self.endpoints])
            .args(args);
        command
    }

    /// Runs one command line to its end; standard output, as text.
    ///
    /// # Errors
    /// etcdctl cannot be run.
    pub fn run(&mut self, args: &[&str]) -> Result<String> {
        self.run_with(args, "")
    }

    /// [`Etcdctl::run`] with something to read on standard input.
    ///
    /// # Errors
    /// etcdctl cannot be run.
    pub fn run_with(&mut self, args: &[&str], input: &str) -> Result<String> {
        let output = self.output(args, input)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        writeln!(self.transcript, "$ etcdctl {}", args.join(" "))?;
        if !input.is_empty() {
            writeln!(self.transcript, "{}", indented(input, "< "))?;
        }
        self.transcript += &text;
        if !output.status.success() {
            let error = said(&output.stderr);
            let code = output.status.code().unwrap_or_default();
            writeln!(self.transcript, "exit {code}: {error}")?;
        }
        Ok(text)
    }

    /// Runs one command line whose output is nobody else's business; fails unless it succeeds.
    ///
    /// # Errors
    /// It does not succeed.
    pub fn quietly(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args, "")?;
        if !output.status.success() {
            bail!("etcdctl {}: {}", args.join(" "), said(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// All that a run leaves: code, output, errors.
    ///
    /// # Errors
    /// etcdctl cannot be run.
    pub fn output(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting etcdctl")?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        // It may end without reading all.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// Starts a command that goes on until it is told to stop.
    ///
    /// # Errors
    /// etcdctl cannot be run.
    pub fn start(&mut self, args: &[&str]) -> Result<Running> {
        self.runs += 1;
        writeln!(self.transcript, "$ etcdctl {} &", args.join(" "))?;
        let out = self.dir.join(format!("etcdctl-{}.out", self.runs));
        let errors = self.dir.join(format!("etcdctl-{}.err", self.runs));
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(File::create(&out)?)
            .stderr(File::create(&errors)?)
            .spawn()
            .context("starting etcdctl")?;
        let stdin = child.stdin.take();
        Ok(Running {
            child,
            stdin,
            out,
            errors,
        })
    }

    /// Adds to the transcript what a running command has said.
    pub fn note(&mut self, text: &str) {
        self.transcript += text;
    }

    /// From here on, and before, the transcript says `name` where it would say `id`.
    pub fn name(&mut self, id: &str, name: &str) {
        self.names.push((id.to_owned(), name.to_owned()));
    }

    /// Everything that was run and said, with names for what differs between any two servers.
    pub fn transcript(&self) -> String {
        let mut text = self.transcript.clone();
        for (id, name) in &self.names {
            text = text.replace(id, name);
        }
        for key in ["cluster_id", "member_id", "raft_term"] {
            text = without_number(&text, &format!("\"{key}\":"));
        }
        for key in ["ClusterID", "MemberID", "RaftTerm"] {
            text = without_number(&text, &format!("\"{key}\" : "));
        }
        text
    }
}

/// A command that goes on. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: PathBuf,
    errors: PathBuf,
}

impl Running {
    /// What it has said so far.
    ///
    /// # Errors
    /// The file is gone.
    pub fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.out)?).into_owned())
    }

    /// Waits until it has said so much that `enough` holds; all that it said.
    ///
    /// # Errors
    /// It does not say so in time.
    pub fn wait_for(&mut self, enough: impl Fn(&str) -> bool) -> Result<String> {
        let start = Instant::now();
        loop {
            let said = self.said()?;
            if enough(&said) {
                return Ok(said);
            }
            if start.elapsed() > PATIENCE {
                let errors = std::fs::read_to_string(&self.errors)?;
                bail!("after {PATIENCE:?} etcdctl has said only {said:?} and {errors:?}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until it has said so many lines; all that it said.
    ///
    /// # Errors
    /// It does not say so many in time.
    pub fn wait_for_lines(&mut self, lines: usize) -> Result<String> {
        self.wait_for(|said| said.lines().count() >= lines)
    }

    /// Types something.
    ///
    /// # Errors
    /// It does not read any more.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("nothing is typed twice")?;
        stdin.write_all(text.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Ctrl-C; waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn interrupt(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                bail!("etcdctl does not end");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The error that a run ends with. Its log lines before, with times and addresses, are left out.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().filter(|line| !line.starts_with('{'));
    let errors: Vec<&str> = lines
        .map(|line| line.strip_prefix("Error: ").unwrap_or(line))
        .collect();
    errors.join("\n")
}

fn indented(text: &str, with: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{with}{line}")).collect();
    lines.join("\n")
}

/// `text` with `_` for every number that follows `key`.
fn without_number(text: &str, key: &str) -> String {
    let mut parts = text.split(key);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += key;
        out += "_";
        out += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_behind_the_key_is_left_out() {
        assert_eq!(
            without_number(
                r#"{"member_id":12,"revision":3,"member_id":4}"#,
                "\"member_id\":"
            ),
            r#"{"member_id":_,"revision":3,"member_id":_}"#
        );
    }
}

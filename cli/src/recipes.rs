//! Locks and elections, made by the client from leases and keys.
//!
//! The keys are those of etcd's own recipes (`NAME/` and the lease's id in hexadecimal), so that
//! this command line, etcdctl, and the server's lock and election services exclude each other.

pub(crate) mod ownership;
pub(crate) mod session;

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Runs a command with more variables; its exit code becomes ours if it fails.
pub(crate) async fn run(
    command: &[OsString],
    variables: &[(&'static str, OsString)],
) -> Result<(), Failure> {
    match Running::start(command, variables, false)? {
        Some(mut running) => running.ended().await,
        None => Ok(()),
    }
}

/// A command that runs. Dropped, it is killed.
pub(crate) struct Running {
    program: String,
    child: Child,
    /// None once it has ended.
    pid: Option<Pid>,
    /// What it starts is signalled too.
    leads_group: bool,
}

impl Running {
    /// Starts a command with more variables, with all that it starts; none if it has no words.
    ///
    /// In a terminal it stays in the foreground, where Ctrl-C reaches it and it may read, and only
    /// itself can be signalled. Else it leads a group of its own, which is signalled as a whole.
    pub(crate) fn with_all(
        command: &[OsString],
        variables: &[(&'static str, OsString)],
    ) -> Result<Option<Self>, Failure> {
        Self::start(command, variables, !std::io::stdin().is_terminal())
    }

    fn start(
        command: &[OsString],
        variables: &[(&'static str, OsString)],
        leads_group: bool,
    ) -> Result<Option<Self>, Failure> {
        let Some((program, args)) = command.split_first() else {
            return Ok(None);
        };
        let mut child = Command::new(program);
        child.args(args).kill_on_drop(true);
        if leads_group {
            child.process_group(0);
        }
        let variables = variables.iter();
        child.envs(variables.map(|(name, value)| (OsStr::new(name), value)));
        let program = program.to_string_lossy().into_owned();
        let child = child.spawn().map_err(|err| cannot_run(&program, &err))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Some(Self {
            program,
            child,
            pid,
            leads_group,
        }))
    }

    /// Waits for its end; its exit code becomes ours if it fails.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        let status = self.child.wait().await;
        let status = status.map_err(|err| {
            let program = &self.program;
            Failure::failed(format!("cannot wait for {program}: {err}"))
        })?;
        self.pid = None;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(Failure::child(u8::try_from(code).unwrap_or(1))),
            // As a shell reports it.
            (None, Some(signal)) => Err(Failure::child(u8::try_from(128 + signal).unwrap_or(1))),
            (None, None) => Err(Failure::child(1)),
        }
    }

    /// Hands on what asked us to stop, unless it has had it already.
    pub(crate) fn stop(&self, stop: Stop) {
        match stop {
            Stop::Interrupt if !self.leads_group => {}
            Stop::Interrupt => self.signal(Signal::INT),
            Stop::Terminate => self.signal(Signal::TERM),
        }
    }

    fn signal(&self, signal: Signal) {
        let sent = match self.pid {
            Some(pid) if self.leads_group => kill_process_group(pid, signal),
            Some(pid) => kill_process(pid, signal),
            None => Ok(()),
        };
        // It has ended meanwhile.
        let _ = sent;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Fails if a command cannot be run, as far as can be seen without running it.
pub(crate) fn check(command: &[OsString]) -> Result<(), Failure> {
    let Some(program) = command.first() else {
        return Ok(());
    };
    // As `execvp` looks for it.
    let candidates: Vec<PathBuf> = if program.as_bytes().contains(&b'/') {
        vec![program.into()]
    } else if let Some(path) = std::env::var_os("PATH") {
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .collect()
    } else {
        return Ok(());
    };
    let mut found = candidates
        .iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .peekable();
    let is_there = found.peek().is_some();
    if found.any(|file| file.is_file() && file.permissions().mode() & 0o111 != 0) {
        return Ok(());
    }
    let kind = if is_there {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::NotFound
    };
    Err(cannot_run(&program.to_string_lossy(), &kind.into()))
}

/// With the exit codes that shells have.
fn cannot_run(program: &str, err: &std::io::Error) -> Failure {
    match err.kind() {
        ErrorKind::NotFound => Failure::exits(127, format!("cannot run {program}: not found")),
        ErrorKind::PermissionDenied => {
            Failure::exits(126, format!("cannot run {program}: not executable"))
        }
        _ => Failure::exits(126, format!("cannot run {program}: {err}")),
    }
}

/// Who asked this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C, which a terminal sends to a command that we run too.
    Interrupt,
    /// SIGTERM, which only we got.
    Terminate,
}

/// Ends when somebody asks this process to end.
pub(crate) async fn asked_to_stop() -> Result<Stop, Failure> {
    let listen = |kind| signal(kind).map_err(|err| Failure::failed(format!("no signals: {err}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => Stop::Interrupt,
        _ = terminate.recv() => Stop::Terminate,
    })
}

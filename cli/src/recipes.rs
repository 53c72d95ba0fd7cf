//! Locks and elections, made by the client from leases and keys.
//!
//! The keys are those of etcd's own recipes (`NAME/` and the lease's id in hexadecimal), so that
//! this command line, etcdctl, and the server's lock and election services exclude each other.

pub(crate) mod ownership;
pub(crate) mod session;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Runs a command with more variables; its exit code becomes ours if it fails.
pub(crate) async fn run(
    command: &[OsString],
    variables: &[(&'static str, OsString)],
) -> Result<(), Failure> {
    let Some((program, args)) = command.split_first() else {
        return Ok(());
    };
    let mut child = Command::new(program);
    child.args(args).kill_on_drop(true);
    child.envs(
        variables
            .iter()
            .map(|(name, value)| (OsStr::new(name), value)),
    );
    let status = child.status().await;
    let status = status.map_err(|err| {
        Failure::failed(format!("cannot run {}: {err}", program.to_string_lossy()))
    })?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::child(u8::try_from(code).unwrap_or(1))),
        // As a shell reports it.
        (None, Some(signal)) => Err(Failure::child(u8::try_from(128 + signal).unwrap_or(1))),
        (None, None) => Err(Failure::child(1)),
    }
}

/// Who asked this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C, which the terminal sends to a command that we run too.
    Interrupt,
    /// SIGTERM, which only we got.
    Terminate,
}

/// Ends when somebody asks this process to end.
pub(crate) async fn asked_to_stop() -> Result<Stop, Failure> {
    let listen = |kind| signal(kind).map_err(|err| Failure::failed(format!("no signals: {err}")));
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    Ok(tokio::select! {
        _ = interrupt.recv() => Stop::Interrupt,
        _ = terminate.recv() => Stop::Terminate,
    })
}

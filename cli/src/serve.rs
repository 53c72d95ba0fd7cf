//! `gonfalon serve`: one member, until a signal. Called by the name `etcd`, the program is this
//! alone, so that tools that start an etcd can start it.

mod logs;
mod notify;

use std::process::ExitCode;
use std::time::Duration;

use gonfalon_server::config::{self, Config, Invocation, Options};
use gonfalon_server::node::Node;
use gonfalon_server::{Server, version};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, note};

/// The exit code of a program that was not given the time to stop in order.
const INTERRUPTED: i32 = 130;

/// How long threads get to end after everything was stopped in order: a disk that hangs holds them
/// for ever.
const THREADS_END_MAX: Duration = Duration::from_secs(5);

/// How the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// `gonfalon serve`.
    Gonfalon,
    /// `etcd`.
    Etcd,
}

/// Serves as the arguments behind the name say.
pub(crate) fn run(name: Name, args: &[String]) -> ExitCode {
    let vars: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let config = match Options::read(args, &vars) {
        Ok(Invocation::Run(options)) if name == Name::Etcd => options.called_etcd().resolve(),
        Ok(Invocation::Run(options)) => options.resolve(),
        Ok(Invocation::Help) => return print(&help_text(name)),
        Ok(Invocation::Version) => return print(&versions(name)),
        Err(error) => Err(error),
    };
    match config {
        Ok(config) => serve(config),
        // As etcd says it: tools that start one look for the words.
        Err(error) if name == Name::Etcd => {
            note(&error);
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            let exit = error.exit_code();
            let hint = "`gonfalon serve --help` lists every option.";
            Failure::exits(exit, error).next(hint).report()
        }
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::output(&error).report(),
    }
}

/// Prints the help, as `serve --help` does.
pub(crate) fn help() -> ExitCode {
    print(&help_text(Name::Gonfalon))
}

fn help_text(name: Name) -> String {
    let usage = match name {
        Name::Gonfalon => "Usage: gonfalon serve [OPTIONS]",
        Name::Etcd => "Usage: etcd [OPTIONS]",
    };
    format!(
        "Run one member of a cluster until Ctrl-C or SIGTERM.\n\n{usage}\n\n{}",
        config::help()
    )
}

/// Tools that start an etcd read the first line; the rest says what this really is.
fn versions(name: Name) -> String {
    let own = format!("Gonfalon Version: {}\n", version::GONFALON);
    // Go has names of its own.
    let (os, arch) = match (std::env::consts::OS, std::env::consts::ARCH) {
        (os, "x86_64") => (os, "amd64"),
        (os, "aarch64") => (os, "arm64"),
        other => other,
    };
    match name {
        Name::Gonfalon => format!("{own}API: etcd {}\n", version::ETCD),
        Name::Etcd => format!(
            "etcd Version: {}\nGit SHA: none, this is Gonfalon\nGo Version: none, written in \
             Rust\nGo OS/Arch: {os}/{arch}\n{own}",
            version::ETCD
        ),
    }
}

fn serve(config: Config) -> ExitCode {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error).report();
    if let Err(error) = logs::start(&config.log) {
        return failed(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = runtime.block_on(serve_until_signal(config));
    // The databases are closed by whichever thread drops them last. If the process ended meanwhile,
    // RocksDB would find its own statics gone and abort. What still blocks a thread after that time
    // has nothing to say any more.
    runtime.shutdown_timeout(THREADS_END_MAX);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn serve_until_signal(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let mut signals = Signals::listen()?;
    let members = config.initial.cluster.len();
    let server = tokio::select! {
        biased;
        opened = Server::open(config) => opened?,
        // Nothing was promised yet.
        () = signals.next() => {
            tracing::info!("stopped before it took part");
            return Ok(());
        }
    };
    let announce = tokio::spawn(announce(server.node().clone(), members));
    let stop = async {
        signals.next().await;
        tracing::info!("stopping; a second signal stops at once");
        notify::stopping();
        tokio::spawn(async move {
            signals.next().await;
            note("stopped at once, as asked");
            std::process::exit(INTERRUPTED);
        });
    };
    let result = server.run_until(stop).await;
    announce.abort();
    match result {
        Ok(()) => {
            tracing::info!("stopped in order");
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "stopped");
            Err(error.into())
        }
    }
}

/// Says so when this member can serve: in etcd's words, which tools wait for, and to systemd.
async fn announce(node: Node, members: usize) {
    node.published().await;
    let status = node.status();
    tracing::info!(
        member = %status.member_id,
        cluster = format_args!("{:x}", status.cluster_id),
        members,
        version = version::GONFALON,
        "ready to serve client requests"
    );
    notify::ready();
}

/// The signals that ask a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they do not end the process by themselves.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_read_etcds_version_from_the_first_line() {
        let text = versions(Name::Etcd);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("etcd Version: {}", version::ETCD));
        for (line, word) in lines.iter().zip([
            "etcd Version: ",
            "Git SHA: ",
            "Go Version: ",
            "Go OS/Arch: ",
        ]) {
            assert!(line.starts_with(word), "{line}");
        }
        assert!(lines.contains(&format!("Gonfalon Version: {}", version::GONFALON).as_str()));
    }

    #[test]
    fn the_help_names_the_program_as_it_was_called() {
        assert!(help_text(Name::Etcd).contains("Usage: etcd ["));
        assert!(help_text(Name::Gonfalon).contains("Usage: gonfalon serve ["));
    }
}

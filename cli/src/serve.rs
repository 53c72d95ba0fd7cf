//! `gonfalon serve`: one member, until a signal. Called by the name `etcd`, the program is this
//! alone, so that tools that start an etcd can start it.

mod logs;
mod notify;

use std::process::ExitCode;

use gonfalon_server::config::{self, Config, Invocation, Options};
use gonfalon_server::{Server, version};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, note};

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
        Ok(Invocation::Run(options)) => options.resolve(),
        Ok(Invocation::Help) => return print(&help(name)),
        Ok(Invocation::Version) => return print(&versions(name)),
        Err(error) => Err(error),
    };
    match config {
        Ok(config) => serve(config),
        Err(error) => Failure::usage(error)
            .next("`gonfalon serve --help` lists every option.")
            .report(),
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::output(&error).report(),
    }
}

fn help(name: Name) -> String {
    let usage = match name {
        Name::Gonfalon => "Usage: gonfalon serve [OPTIONS]",
        Name::Etcd => "Usage: etcd [OPTIONS]",
    };
    format!("One member of a cluster.\n\n{usage}\n\n{}", config::help())
}

/// Tools that start an etcd read the first line; the rest says what this really is.
fn versions(name: Name) -> String {
    let own = format!("Gonfalon Version: {}\n", version::GONFALON);
    match name {
        Name::Gonfalon => format!("{own}API: etcd {}\n", version::ETCD),
        Name::Etcd => format!("etcd Version: {}\n{own}", version::ETCD),
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
    // Whatever still blocks a thread then has nothing to say any more.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            failed(&error)
        }
    }
}

async fn serve_until_signal(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    // From here on a signal ends the process in order, even while it is being opened.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let quorum_needed = config.initial.cluster.len();
    let server = Server::open(config).await?;
    for address in server.client_addresses() {
        tracing::info!(%address, "listening for clients");
    }
    let node = server.node().clone();
    let announce = tokio::spawn(async move {
        node.published().await;
        let status = node.status();
        tracing::info!(
            member = %status.member_id,
            cluster = format_args!("{:x}", status.cluster_id),
            members = quorum_needed,
            version = version::GONFALON,
            "ready to serve client requests"
        );
        notify::ready();
    });
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal stops at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            note("stopped at once, as asked");
            std::process::exit(1);
        });
    };
    let result = server.run_until(stop).await;
    announce.abort();
    result.map_err(Into::into)
}

//! `gonfalon`: the server (`serve`) and the commands that talk to it, or to any etcd v3 server.

mod args;
mod argv;
mod commands;
mod connection;
mod failure;
mod output;
mod parse;
mod range;
mod recipes;
mod watching;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;

/// Many small allocations from many threads is what a server does; the system's allocator keeps
/// their memory far longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    client(argv)
}

/// Runs a command that talks to a server.
fn client(argv: Vec<OsString>) -> ExitCode {
    let command = Cli::command();
    let argv = argv::without_go_booleans(&command, argv);
    let parsed = command
        .try_get_matches_from(argv)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        // clap knows which of its errors are answers (--help) and which exit with 2.
        Err(err) => err.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return failure::Failure::failed(format!("cannot start: {err}")).report(),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

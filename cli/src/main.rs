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
mod serve;
mod watching;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::args::Cli;

/// Many small allocations from many threads is what a server does; the system's allocator keeps
/// their memory far longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let name = argv.first().map(Path::new).and_then(Path::file_name);
    let is_etcd = name.is_some_and(|name| name == "etcd");
    let (name, options) = match argv.get(1..) {
        Some(rest) if is_etcd => (serve::Name::Etcd, rest),
        Some([first, rest @ ..]) if first == "serve" => (serve::Name::Gonfalon, rest),
        Some([help, serve]) if help == "help" && serve == "serve" => return serve::help(),
        _ => return client(argv),
    };
    match options
        .iter()
        .map(|word| word.to_str().map(str::to_owned))
        .collect::<Option<Vec<_>>>()
    {
        Some(options) => serve::run(name, &options),
        None => failure::Failure::usage("an option is not UTF-8").report(),
    }
}

/// Runs a command that talks to a server.
fn client(argv: Vec<OsString>) -> ExitCode {
    let command = args::command();
    let argv = argv::without_go_booleans(&command, argv);
    let parsed = command
        .try_get_matches_from(&argv)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(err) => match args::absent(&err, &argv) {
            Some(absent) => return absent.report(),
            // clap knows which of its errors are answers (--help) and which exit with 2.
            None => err.exit(),
        },
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(err) => return failure::Failure::failed(format!("cannot start: {err}")).report(),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

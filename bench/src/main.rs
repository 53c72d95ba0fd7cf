//! Measures etcd and Gonfalon side by side.
//!
//! [`plan`] says which cases run on which clusters, [`run`] runs both servers in turn and repeats
//! noisy rounds, [`cases`] are the work, [`load`] generates it and counts, [`report`] judges by
//! [`targets`] and writes. [`clients`] is another program in the same one: it measures the client
//! library. `docs/benchmarks.md` explains the method to readers of the results.

mod cases;
mod clients;
mod cluster;
mod dataset;
mod load;
mod machine;
mod metric;
mod options;
mod plan;
mod report;
mod run;
mod sampling;
mod software;
mod stats;
mod targets;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;

use crate::cases::Bench;
use crate::cluster::Ports;
use crate::load::{Threads, Window};
use crate::machine::Machine;
use crate::options::Options;
use crate::plan::Scenario;
use crate::report::{Method, Row, Table};
use crate::run::{Noise, Runner};
use crate::software::{Software, Subject};

/// The load generator shares the processors with the server: what it saves, both servers get.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // A signal ends the run like an error does, so that no server is left behind.
    let outcome = tokio::select! {
        outcome = Box::pin(run(&options)) => outcome,
        signal = stop_signal() => signal,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gonfalon-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    bail!("stopped by a signal")
}

async fn run(options: &Options) -> Result<()> {
    if options.clients {
        return clients::run(options).await;
    }
    let scale = options.scale();
    let mut scenarios = plan::scenarios(&scale, &options.nodes());
    plan::filter(&mut scenarios, &options.cases);
    if scenarios.is_empty() {
        bail!(
            "no case is called {}; --list shows all names",
            options.cases.join(" or ")
        );
    }
    if options.list {
        return list(&scenarios);
    }
    let mut software = Vec::new();
    for subject in options.subjects() {
        let program = match subject {
            Subject::Etcd => &options.etcd_bin,
            Subject::Gonfalon => &options.gonfalon_bin,
        };
        software.push(Software::find(subject, program)?);
    }
    let machine = describe(&options.data_dir)?;
    let method = Method {
        machine,
        versions: software
            .iter()
            .map(|one| (one.subject, one.version.clone()))
            .collect(),
        seconds: scale.length.as_secs_f64(),
        client_threads: options.client_threads(),
        connections: options.connections(),
        noise_cores_max: options.noise_limit,
    };
    let mut runner = Runner {
        bench: Bench {
            threads: Threads::start(options.client_threads())?,
            window: Window {
                warm_up: scale.warm_up,
                length: scale.length,
            },
            connections: options.connections(),
            settle: scale.settle,
        },
        software,
        // A smoke run asks whether, not how fast: noise does not matter to it.
        noise: Noise {
            cores_max: if options.smoke {
                f64::INFINITY
            } else {
                options.noise_limit
            },
            retries: options.retries,
        },
        ports: Ports::from(options.first_port),
        data: options.data_dir.clone(),
    };
    measure(options, &mut runner, &scenarios, &method).await
}

async fn measure(
    options: &Options,
    runner: &mut Runner,
    scenarios: &[Scenario],
    method: &Method,
) -> Result<()> {
    let mut table = Table::start(io::stdout())?;
    let mut rows: Vec<Row> = Vec::new();
    for scenario in scenarios {
        let finished = |row: Row| {
            table.row(&row)?;
            rows.push(row);
            // After every case: a run that is stopped leaves what it has.
            if let Some(name) = options.name() {
                report::write(&options.results, &name, method, &rows)?;
            }
            Ok(())
        };
        runner.run(scenario, finished).await?;
    }
    if rows.iter().any(|row| row.noisy_rounds_kept > 0) {
        table.note("* others kept using the processors in some rounds: see the spread")?;
    }
    match options.name() {
        Some(name) => {
            let files = options.results.join(name);
            table.note(&format!("written to {}.md and .json", files.display()))?;
        }
        None => table.note("a smoke run: every case works; its numbers mean nothing")?,
    }
    let problems: Vec<String> = rows.iter().flat_map(Row::problems).collect();
    if !problems.is_empty() {
        bail!("not every operation succeeded:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn describe(data: &Path) -> Result<Machine> {
    let machine = Machine::describe(data)?;
    if machine.is_in_memory() {
        eprintln!(
            "warning: {} is in memory: syncing costs nothing there",
            data.display()
        );
    }
    Ok(machine)
}

fn list(scenarios: &[Scenario]) -> Result<()> {
    let mut out = io::stdout().lock();
    for scenario in scenarios {
        for case in &scenario.cases {
            writeln!(out, "{:<27}{}", scenario.name_of(*case), case.description())
                .context("cannot print")?;
        }
    }
    Ok(())
}

//! What the client library costs (`--clients`): alone, and beside the crate `etcd-client`.
//!
//! One Gonfalon serves both, so what differs is the client's. [`compare`] runs the two in turn on the
//! same runtime; [`alone`] measures what only ours has. Processor time is this process's.

mod alone;
mod compare;
mod relay;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gonfalon::{Client, KeyRange};

use crate::cluster::{Cluster, Ports};
use crate::dataset;
use crate::load::Threads;
use crate::machine::Machine;
use crate::options::Options;
use crate::sampling;
use crate::software::{Software, Subject};

/// Threads of the runtime that both clients run on.
const WORKERS: usize = 2;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    keys: u64,
    rounds: usize,
    length: Duration,
    /// Events that a watch has to catch up with.
    events: u64,
    /// Puts that are awaited in another client's cache.
    visible: u64,
    watches: usize,
    leases: usize,
    /// How long leases are watched being kept.
    kept: Duration,
}

const FULL: Sizes = Sizes {
    keys: 100_000,
    rounds: 5,
    length: Duration::from_secs(2),
    events: 100_000,
    visible: 2_000,
    watches: 10_000,
    leases: 10_000,
    kept: Duration::from_secs(20),
};

const SMOKE: Sizes = Sizes {
    keys: 2_000,
    rounds: 1,
    length: Duration::from_millis(100),
    events: 1_000,
    visible: 20,
    watches: 100,
    leases: 100,
    kept: Duration::from_secs(1),
};

/// Runs the whole mode and writes its results.
///
/// # Errors
///
/// The server does not start, a call fails, or a result cannot be written.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut sizes = if options.smoke { SMOKE } else { FULL };
    sizes.rounds = options.rounds().unwrap_or(sizes.rounds);
    sizes.length = options.seconds().unwrap_or(sizes.length);
    let software = Software::find(Subject::Gonfalon, &options.gonfalon_bin)?;
    let machine = Machine::describe(&options.data_dir)?;
    let version = software.version.clone();
    let mut ports = Ports::from(options.first_port);
    let directory = options.data_dir.join("clients");
    let mut cluster = Cluster::start(&software, 1, &directory, &mut ports).await?;
    let threads = Threads::start(options.client_threads())?;
    cluster.fill(&threads, sizes.keys).await?;
    cluster.rest().await?;
    drop(threads);
    let endpoint = cluster.endpoints().into_iter().next();
    let endpoint = endpoint.context("a cluster has a member")?;
    let cases = options.cases.clone();
    // Both clients want threads that take tasks from each other, as applications have them.
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()?;
        let measured = runtime.block_on(measure(&endpoint, sizes, &cases));
        runtime.shutdown_timeout(Duration::from_secs(5));
        measured
    });
    let measured = measured.await??;
    let report = report::Report {
        machine,
        version,
        workers: WORKERS,
        rounds: sizes.rounds,
        seconds: sizes.length.as_secs_f64(),
        numbers: measured.0,
        comparisons: measured.1,
    };
    report.print(std::io::stdout())?;
    match options.name() {
        Some(name) => report.write(&options.results, &name),
        None => Ok(()),
    }
}

type Measured = (Vec<report::Number>, Vec<report::Comparison>);

async fn measure(endpoint: &str, sizes: Sizes, cases: &[String]) -> Result<Measured> {
    let is_wanted = |name: &str| cases.is_empty() || cases.iter().any(|case| name.contains(case));
    let mut comparisons = Vec::new();
    for case in compare::ALL {
        if is_wanted(case.name()) {
            eprintln!("{}", case.name());
            comparisons.push(Box::pin(compare::run(endpoint, case, sizes)).await?);
        }
    }
    let mut numbers = Vec::new();
    if is_wanted("sync") {
        numbers.extend(alone::sync(endpoint, sizes).await?);
    }
    if is_wanted("visible") {
        numbers.extend(alone::visible(endpoint, sizes).await?);
    }
    if is_wanted("resume") {
        numbers.extend(alone::resume(endpoint, sizes).await?);
    }
    if is_wanted("leases") {
        numbers.extend(alone::leases(endpoint, sizes).await?);
    }
    Ok((numbers, comparisons))
}

/// A client of ours.
async fn ours(endpoint: &str) -> Result<Client> {
    let client = Client::builder()
        .endpoints(endpoint)
        .deadline(Duration::from_secs(30))
        .build()?;
    // Connections come about with the first calls.
    client.range(KeyRange::key("warm")).await?;
    Ok(client)
}

/// Processor time of this process so far.
fn own_time() -> Result<Duration> {
    sampling::processes_time(&[std::process::id()])
}

/// What some work took of the clock and of the processors.
#[derive(Debug, Clone, Copy)]
struct Took {
    elapsed: Duration,
    processor: Duration,
}

async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Took)> {
    let (began, before) = (Instant::now(), own_time()?);
    let done = work.await?;
    let elapsed = began.elapsed();
    let processor = own_time()?.saturating_sub(before);
    Ok((done, Took { elapsed, processor }))
}

/// Every key of the data set.
fn everything() -> KeyRange {
    let (first, end) = dataset::everything();
    KeyRange::between(first, end)
}

//! A critical section among processes, and what keeps it safe when a holder is stopped.
//!
//! ```text
//! for name in a b c; do cargo run -p gonfalon-examples --bin distributed_lock -- --name $name & done
//! etcdctl lock /distributed_lock             # etcd's own tools stand in the same queue
//! ```
//!
//! Each process takes the lock some times and appends its name to a journal. A lock alone is not
//! enough for that: a holder can be stopped (by the scheduler, by a debugger, by a suspended
//! machine) between looking at its lock and writing. So the write itself is conditional on the lock
//! (`LockGuard::txn`). Something outside of the store would be given the guard's fence instead, and
//! refuse those that are lower than one it has seen.

mod interrupt;

use std::time::Duration;

use clap::Parser;
use gonfalon::{Client, Op};
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// Servers, as host:port, separated by commas.
    #[arg(long, default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// The lock.
    #[arg(long, default_value = "/distributed_lock")]
    lock: String,
    /// Who this is.
    #[arg(long, default_value_t = format!("process {}", std::process::id()))]
    name: String,
    /// How long others wait for a holder who has died, in seconds.
    #[arg(long, default_value_t = 5)]
    ttl: u64,
    /// How often the lock is taken.
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// How long it is held each time, in milliseconds.
    #[arg(long, default_value_t = 300)]
    hold_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let client = Client::connect(&args.endpoints).await?;
    tokio::select! {
        () = interrupt::interrupted() => {}
        ended = work(&client, &args) => ended?,
    }
    // Also gives up a place in the queue, or the lock.
    client.close().await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
async fn work(client: &Client, args: &Args) -> Result<(), gonfalon::Error> {
    let Args { name, .. } = args;
    let lock = client
        .lock(&args.lock)
        .ttl(Duration::from_secs(args.ttl))
        .identity(name);
    for _ in 0..args.times {
        let guard = lock.acquire().await?;
        println!("{name}: has the lock, fence {}", guard.fence());
        let lost = guard.token();
        // The work: given up as soon as the lock is lost.
        let hold = sleep(Duration::from_millis(args.hold_ms));
        if lost.run_until_cancelled(hold).await.is_none() {
            println!("{name}: lost the lock: {}", guard.lost().await.text());
        }
        // It may still be lost now, and after this line too: the transaction tells.
        let entry = format!("{}-journal/{}", args.lock, guard.fence());
        let written = guard.txn().then(Op::put(entry, name)).await?;
        if written.succeeded {
            println!("{name}: wrote under fence {}", guard.fence());
            guard.release().await?;
        } else {
            println!("{name}: wrote nothing: the lock is somebody else's");
        }
    }
    Ok(())
}

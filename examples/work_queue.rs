//! Work that many processes share, each piece done by one of them, none lost when one dies.
//!
//! ```text
//! cargo run -p gonfalon-examples --bin work_queue -- work --name a &
//! cargo run -p gonfalon-examples --bin work_queue -- work --name b &
//! cargo run -p gonfalon-examples --bin work_queue -- add one two three
//! ```
//!
//! A worker claims an item; it stays in the queue until it is done, and comes back when the worker
//! dies or gives it up. So an item can be worked on twice, and its work must bear that; what a worker
//! writes together with taking the item out happens once.

mod interrupt;

use std::time::Duration;

use clap::{Parser, Subcommand};
use gonfalon::{Client, Queue};
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// Servers, as host:port, separated by commas.
    #[arg(long, default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// The queue.
    #[arg(long, default_value = "/work_queue")]
    queue: String,
    /// How long an item waits for a worker who has died with it, in seconds.
    #[arg(long, default_value_t = 5)]
    ttl: u64,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Puts items into the queue.
    Add {
        /// What there is to do.
        items: Vec<String>,
    },
    /// Works until it is told to end.
    Work {
        /// Who this is.
        #[arg(long, default_value_t = format!("process {}", std::process::id()))]
        name: String,
        /// How long an item takes, in milliseconds.
        #[arg(long, default_value_t = 100)]
        item_ms: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let client = Client::connect(&args.endpoints).await?;
    let queue = client.queue(&args.queue).ttl(Duration::from_secs(args.ttl));
    match &args.command {
        Action::Add { items } => {
            for item in items {
                queue.enqueue(item).await?;
            }
        }
        Action::Work { name, item_ms } => tokio::select! {
            () = interrupt::interrupted() => {}
            ended = work(&queue, name, Duration::from_millis(*item_ms)) => ended?,
        },
    }
    // An item that was claimed and is not done is there for the others at once.
    client.close().await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
async fn work(queue: &Queue, name: &str, time: Duration) -> Result<(), gonfalon::Error> {
    loop {
        let claim = queue.claim().await?;
        let item = String::from_utf8_lossy(claim.value()).into_owned();
        println!("{name}: begins {item}");
        sleep(time).await;
        claim.done().await?;
        println!("{name}: has done {item}");
    }
}

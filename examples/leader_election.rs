//! One of many leads; when it dies, stops or is cut off, another does.
//!
//! ```text
//! cargo run -p gonfalon-examples --bin leader_election -- --name one &
//! cargo run -p gonfalon-examples --bin leader_election -- --name two &
//! etcdctl elect -l /leader_election          # etcd's own tools stand in the same election
//! ```
//!
//! The leader counts: each step is a transaction that takes place only while it leads, so that a
//! leader who was stopped and wakes up cannot write over its successor's work, whatever it believes.

mod interrupt;

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use gonfalon::{Client, LeaderState, Op};
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// Servers, as host:port, separated by commas.
    #[arg(long, default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// The election.
    #[arg(long, default_value = "/leader_election")]
    election: String,
    /// What others see of this candidate.
    #[arg(long, default_value_t = format!("process {}", std::process::id()))]
    name: String,
    /// How long nobody leads after a leader has died, in seconds.
    #[arg(long, default_value_t = 5)]
    ttl: u64,
    /// Ends, and lets the next one lead, after so many steps. Default: never.
    #[arg(long)]
    steps: Option<u64>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it is what the program is for")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let client = Client::connect(&args.endpoints).await?;
    let election = client
        .election(&args.election)
        .ttl(Duration::from_secs(args.ttl));

    let mut leaders = election.observe().await?;
    let observing = async {
        while let Some(state) = leaders.next().await {
            match state {
                LeaderState::Led(leader) => {
                    println!("leader: {}", String::from_utf8_lossy(&leader.value));
                }
                LeaderState::Vacant => println!("leader: nobody"),
            }
        }
        anyhow::Ok(())
    };

    // Called whenever this candidate is elected; never twice at a time.
    let counter = format!("{}-counter", args.election);
    let leading = election.run(&args.name, |leadership| {
        let (counter, name, steps) = (counter.clone(), args.name.clone(), args.steps);
        let client = client.clone();
        async move {
            println!("{name}: elected with fence {}", leadership.fence());
            let lost = leadership.token();
            let mut done = 0;
            while !lost.is_cancelled() && steps.is_none_or(|steps| done < steps) {
                let last = client.get(&counter).await?;
                let last = last.and_then(|kv| kv.value_str()?.parse::<u64>().ok());
                let next = last.unwrap_or_default() + 1;
                let written = leadership
                    .txn()
                    .then(Op::put(&counter, next.to_string()))
                    .await?;
                if !written.succeeded {
                    println!("{name}: not the leader any more; {next} was not written");
                    break;
                }
                println!("{name}: {next}");
                done += 1;
                // Ends early when leadership is lost.
                lost.run_until_cancelled(sleep(Duration::from_millis(200)))
                    .await;
            }
            println!("{name}: leads no more after {done} steps");
            Ok::<u64, gonfalon::Error>(done)
        }
    });

    tokio::select! {
        () = interrupt::interrupted() => {}
        ended = observing => ended?,
        done = leading => {
            let done = done.context("campaigning")?.context("leading")?;
            println!("{}: done after {done} steps", args.name);
        }
    }
    // Whoever waits is elected at once, not when a lease has run out.
    client.close().await?;
    println!("closed");
    Ok(())
}

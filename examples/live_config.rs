//! Settings that change while the program runs.
//!
//! ```text
//! cargo run -p gonfalon-examples --bin live_config &
//! gonfalon put /live_config/limits '{"requests_per_second": 200, "timeout_ms": 500}'
//! gonfalon put /live_config/limits '{"requests_per_second": 0, "timeout_ms": 500}'   # refused
//! gonfalon put /live_config/greeting hello
//! ```
//!
//! The hot path reads a setting in nanoseconds. A value that makes no sense never arrives there: the
//! last good one stays, and the error is there to be seen. When the servers are away the program
//! goes on with what it has, and says for how long it has heard nothing.

mod interrupt;

use std::pin::pin;
use std::time::Duration;

use clap::Parser;
use gonfalon::{Cached, Client, KeyRange};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

/// A server that is there is heard of every second.
const AGE_MAX: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Args {
    /// Servers, as host:port, separated by commas.
    #[arg(long, default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// The settings are the keys behind this.
    #[arg(long, default_value = "/live_config/")]
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Limits {
    requests_per_second: u32,
    timeout_ms: u64,
}

impl Limits {
    /// What no program could work with.
    fn check(&self) -> Result<(), String> {
        if self.requests_per_second == 0 {
            return Err("requests_per_second is 0: nobody could ask anything".into());
        }
        Ok(())
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it is what the program is for")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let client = Client::connect(&args.endpoints).await?;
    let client = client.namespace(args.prefix);

    // Typed, checked, and there from the beginning, even if nobody has set it yet.
    let limits: Cached<Limits> = client
        .cached("limits")
        .check(Limits::check)
        .or(Limits {
            requests_per_second: 100,
            timeout_ms: 1000,
        })
        .await?;
    // Everything else as a whole: two keys that were written together are never seen apart.
    let settings = client.cache(KeyRange::all()).await?;
    let mut changes = settings.subscribe();
    let mut read = limits.changes();
    println!("limits: {:?}", *limits.load());

    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = limits.load_full();
    let mut interrupted = pin!(interrupt::interrupted());
    loop {
        tokio::select! {
            () = &mut interrupted => break,
            changed = changes.next() => {
                let Some(changed) = changed else { break };
                for change in changed {
                    let key = String::from_utf8_lossy(change.key());
                    let text = change.new.as_ref().map(|kv| String::from_utf8_lossy(&kv.value));
                    match text {
                        Some(text) => println!("{key} is now {text}"),
                        None => println!("{key} is gone"),
                    }
                }
            }
            state = read.next_state() => {
                let Some(state) = state else { break };
                if let Some(error) = &state.error {
                    println!("refused: {error}");
                }
            }
            _ = ticks.tick() => {
                let age = settings.status().age();
                if age > AGE_MAX {
                    println!("no server for {age:?}; going on with {told:?}");
                }
            }
        }
        // The hot path would do this for every request.
        let now = limits.load();
        if *now != *told {
            println!("limits: {:?}", *now);
            told = limits.load_full();
        }
    }
    client.close().await?;
    println!("closed");
    Ok(())
}

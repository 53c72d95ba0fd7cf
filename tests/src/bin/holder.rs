//! A process that holds a lock, for tests that stop it: `holder ENDPOINT NAME TTL_SECONDS`.
//!
//! Again and again it looks whether it holds the lock, writes to the store through its guard, and
//! says on one line what it believed, what became of the write, and its fence.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gonfalon::{Client, Op};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, endpoint, name, ttl] = &arguments[..] else {
        anyhow::bail!("holder ENDPOINT NAME TTL_SECONDS");
    };
    let client = Client::connect(endpoint).await?;
    let ttl = Duration::from_secs(ttl.parse().context("seconds")?);
    let guard = client.lock(name).ttl(ttl).acquire().await?;
    let fence = guard.fence().revision();
    loop {
        let believed = guard.is_held();
        let write = Op::put("register", fence.to_string());
        let written = guard.txn().then(write).await?.succeeded;
        say(&format!(
            "believed={believed} written={written} fence={fence}"
        ));
        if !believed {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[expect(clippy::print_stdout, reason = "the test reads it")]
fn say(line: &str) {
    println!("{line}");
}

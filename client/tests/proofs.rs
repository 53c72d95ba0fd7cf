//! The client against the server in memory, which does on request what real servers do rarely.

#[path = "proofs/server.rs"]
mod server;

use std::time::Duration;

use gonfalon::{Batch, Watch};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<F: IntoFuture>(what: F) -> F::Output {
    let ended = tokio::time::timeout(PATIENCE, what.into_future()).await;
    ended.expect("it happens in time")
}

/// The next batch, which is no error.
async fn next(watch: &mut Watch) -> Batch {
    let item = within(watch.next()).await.expect("the watch goes on");
    item.expect("no error")
}

/// Keys and values of a batch, as text.
fn told(batch: &Batch) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let events = batch.events.iter();
    events
        .map(|event| (text(&event.kv.key), text(&event.kv.value)))
        .collect()
}

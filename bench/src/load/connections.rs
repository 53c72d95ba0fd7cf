//! Connections to a cluster, shared by the clients of a case.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tonic::transport::{Channel, Endpoint};

use super::Threads;

/// Windows wide enough for the largest answer (1000 keys, 300 KB): what is measured is the
/// servers' work, not round trips of flow control. Go's client widens its windows by itself.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One HTTP/2 connection, and where it lives.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Carries calls.
    pub(crate) channel: Channel,
    /// The thread of the load generator that reads and writes it.
    pub(crate) thread: usize,
}

/// Opens `count` connections, spread evenly over `endpoints` and the first `on_threads` threads.
///
/// # Errors
///
/// A member cannot be reached.
pub(crate) async fn connect(
    threads: &Threads,
    on_threads: usize,
    endpoints: &[String],
    count: usize,
) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for (number, url) in endpoints.iter().cycle().take(count).enumerate() {
        let thread = number % on_threads.clamp(1, threads.count());
        let endpoint = Endpoint::from_shared(url.clone())?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = threads
            .spawn(thread, async move { endpoint.connect().await })
            .await?
            .with_context(|| format!("cannot connect to {url}"))?;
        connections.push(Connection { channel, thread });
    }
    Ok(connections)
}

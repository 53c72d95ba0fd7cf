//! Brings the state's memtables to disk when nothing is written. The log's own thread does the same
//! for the log.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Node;
use crate::limits::REST_BYTES_MIN;
use crate::storage::Rest;
use crate::tasks::{Rounds, Tasks};

/// How often is looked whether anything was written.
const INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    /// Flushes the state once after every burst of writes.
    pub(super) fn spawn_rest(&self, tasks: &mut Tasks) {
        let (node, stop) = (self.clone(), tasks.stop_token());
        tasks.spawn("rest", async move {
            node.flush_at_rest(stop).await;
            Ok(())
        });
    }

    async fn flush_at_rest(&self, stop: CancellationToken) {
        let mut rest = Rest::new();
        let mut rounds = Rounds::every(INTERVAL, stop);
        while rounds.next().await {
            let applied = *self.inner.applied.borrow();
            let store = self.store();
            if !rest.begins(applied, Instant::now()) || store.unflushed_bytes() < REST_BYTES_MIN {
                continue;
            }
            let store = store.clone();
            match tokio::task::spawn_blocking(move || store.flush()).await {
                Ok(Ok(_)) => {}
                // Whatever is wrong with the disk, the next write meets it and ends the member.
                Ok(Err(error)) => tracing::warn!(%error, "cannot flush the state"),
                Err(error) => tracing::error!(%error, "flushing the state panicked"),
            }
        }
    }
}

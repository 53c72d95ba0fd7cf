//! Brings the state's memtables to disk when nothing is written, and gives back memory of the past.
//! The log's own thread does the same for the log.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Node;
use crate::limits::REST_BYTES_MIN;
use crate::storage::{Rest, StorageError};
use crate::tasks::{Rounds, Tasks};

/// How often is looked whether anything was written.
const INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    /// Flushes and thins out the state once after every burst of writes.
    pub(super) fn spawn_rest(&self, tasks: &mut Tasks) {
        let (node, stop) = (self.clone(), tasks.stop_token());
        tasks.spawn("rest", async move {
            node.rest_after_writes(stop).await;
            Ok(())
        });
    }

    async fn rest_after_writes(&self, stop: CancellationToken) {
        let mut rest = Rest::new();
        let mut rounds = Rounds::every(INTERVAL, stop);
        while rounds.next().await {
            let applied = *self.inner.applied.borrow();
            if !rest.begins(applied, Instant::now()) {
                continue;
            }
            let store = self.store().clone();
            let resting = move || {
                store.evict_at_rest();
                if store.unflushed_bytes() >= REST_BYTES_MIN {
                    store.flush()?;
                }
                Ok::<_, StorageError>(())
            };
            match tokio::task::spawn_blocking(resting).await {
                Ok(Ok(())) => {}
                // Whatever is wrong with the disk, the next write meets it and ends the member.
                Ok(Err(error)) => tracing::warn!(%error, "cannot flush the state"),
                Err(error) => tracing::error!(%error, "flushing the state panicked"),
            }
        }
    }
}

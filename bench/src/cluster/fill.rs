//! Fills a cluster with the keys of the data set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tonic::transport::Channel;

use super::Cluster;
use crate::dataset;
use crate::load::{Recorder, Session, Threads, connect};
use crate::metric::Measurement;
use crate::sampling::Memory;

/// Keys in one transaction of a fill; below the servers' default limit of 128 operations.
const KEYS_PER_TXN: u64 = 100;

/// Transactions under way at once.
const CLIENTS: usize = 16;

/// The longest that any fill may take.
const FILL_MAX: Duration = Duration::from_mins(10);

/// What a fill has left, and what it took.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    /// Keys `0..keys` exist.
    pub(crate) keys: u64,
    /// The fill as a case of its own: one operation is one call.
    pub(crate) measured: Measurement,
    /// Memory when the last call was answered.
    pub(crate) memory: Memory,
}

impl Cluster {
    /// Writes keys `0..keys`, a hundred in a transaction.
    ///
    /// # Errors
    ///
    /// A write fails, or the keys are not there afterwards.
    pub(crate) async fn fill(&mut self, threads: &Threads, keys: u64) -> Result<()> {
        let measured = self.write_all(threads, keys, KEYS_PER_TXN, CLIENTS).await?;
        self.filled = Filled {
            keys,
            measured,
            memory: self.memory()?,
        };
        self.check_count().await
    }

    /// Overwrites keys `0..writes` of the existing ones, each by a call of its own, with 64 clients.
    ///
    /// # Errors
    ///
    /// A write fails.
    pub(crate) async fn burst(&mut self, threads: &Threads, writes: u64) -> Result<()> {
        ensure!(writes <= self.filled.keys, "a burst overwrites");
        self.write_all(threads, writes, 1, 64).await?;
        Ok(())
    }

    /// Fails unless the keys that were filled, and no others, are there.
    pub(crate) async fn check_count(&self) -> Result<()> {
        let (key, range_end) = dataset::everything();
        for url in self.endpoints() {
            let request = pb::RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                count_only: true,
                ..Default::default()
            };
            let found = KvClient::connect(url)
                .await?
                .range(request)
                .await?
                .into_inner()
                .count;
            ensure!(
                u64::try_from(found) == Ok(self.filled.keys),
                "{found} keys instead of {}",
                self.filled.keys
            );
        }
        Ok(())
    }

    async fn write_all(
        &self,
        threads: &Threads,
        keys: u64,
        per_call: u64,
        clients: usize,
    ) -> Result<Measurement> {
        let endpoints = self.endpoints();
        let count = 2 * threads.count() * endpoints.len();
        let connections = connect(threads, threads.count(), &endpoints, count).await?;
        let next = Arc::new(AtomicU64::new(0));
        let mut session = Session::new(threads);
        for connection in connections.iter().cycle().take(clients) {
            let writer = Writer {
                kv: KvClient::new(connection.channel.clone()),
                next: Arc::clone(&next),
                keys,
                per_call,
                recorder: session.recorder(connection.thread),
            };
            session.client(connection.thread, writer.run());
        }
        let measured = session.complete(FILL_MAX, &self.processes()).await?;
        let expected = keys.div_ceil(per_call);
        ensure!(
            measured.errors == 0 && measured.operations == expected,
            "filling failed: {} errors, {} of {expected} calls, the first error: {:?}",
            measured.errors,
            measured.operations,
            measured.first_error
        );
        Ok(measured)
    }
}

struct Writer {
    kv: KvClient<Channel>,
    next: Arc<AtomicU64>,
    keys: u64,
    per_call: u64,
    recorder: Arc<Recorder>,
}

impl Writer {
    async fn run(mut self) -> Result<()> {
        loop {
            let from = self.next.fetch_add(self.per_call, Ordering::Relaxed);
            if from >= self.keys {
                return Ok(());
            }
            let to = self.keys.min(from + self.per_call);
            let started = Instant::now();
            if self.per_call == 1 {
                self.kv.put(dataset::put(from, 0)).await?;
            } else {
                let success = (from..to)
                    .map(|index| dataset::put_in_txn(index, 0))
                    .collect();
                let request = pb::TxnRequest {
                    success,
                    ..Default::default()
                };
                let answer = self.kv.txn(request).await?.into_inner();
                ensure!(
                    answer.succeeded,
                    "a transaction without conditions did not succeed"
                );
            }
            self.recorder.completed(started.elapsed());
        }
    }
}

//! A stop and a start with a full store.

use anyhow::{Context as _, Result, bail, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use std::time::{Duration, Instant};

use super::memory;
use crate::cluster::Cluster;
use crate::dataset;
use crate::metric::{Measurement, Metric};
use crate::sampling::Sample;

/// The start is the operation: its latency is the time to the first linearizable get, its cost is
/// the processor time until then.
pub(super) async fn measure(cluster: &mut Cluster) -> Result<Measurement> {
    let stopped = cluster.stop().await?;
    // Nothing runs: whatever is used between the samples beyond the new processes is noise.
    let before = Sample::take(&[])?;
    let started = Instant::now();
    cluster.launch().await?;
    first_get(cluster).await?;
    let took = started.elapsed();
    let usage = before.until(&Sample::take(&cluster.processes())?);

    let mut measured = Measurement {
        operations: 1,
        other_cores: usage.other_cores,
        ..Measurement::default()
    };
    measured.metrics.extend([
        (Metric::P50Us, took.as_secs_f64() * 1e6),
        (Metric::ServerCpuUs, usage.servers.as_secs_f64() * 1e6),
        (Metric::StopSeconds, stopped.as_secs_f64()),
    ]);
    measured.metrics.extend(memory::metrics(cluster.memory()?));
    cluster.check_count().await?;
    Ok(measured)
}

/// Reads the last key of the data set; [`Cluster::launch`] has seen every member answer already.
async fn first_get(cluster: &Cluster) -> Result<()> {
    let index = cluster
        .filled
        .keys
        .checked_sub(1)
        .context("nothing to read")?;
    let url = cluster.endpoints().swap_remove(0);
    let read = async {
        let request = pb::RangeRequest {
            key: dataset::key(index),
            ..Default::default()
        };
        let found = KvClient::connect(url)
            .await?
            .range(request)
            .await?
            .into_inner()
            .kvs;
        ensure!(found.len() == 1, "the last key is gone after a restart");
        dataset::sequence_of(index, &found[0].value)
    };
    match tokio::time::timeout(Duration::from_secs(10), read).await {
        Ok(sequence) => sequence.map(|_| ()),
        Err(_) => bail!("no answer to the first get after a restart"),
    }
}

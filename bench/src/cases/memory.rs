//! Memory after a fill, at once and at rest.

use anyhow::{Result, ensure};

use super::Bench;
use crate::cluster::Cluster;
use crate::metric::{Measurement, Metric};
use crate::sampling::Memory;
use crate::stats::number;

/// The fill itself was measured when the cluster was prepared; what is added here is memory.
pub(super) async fn measure(bench: &Bench, cluster: &Cluster) -> Result<Measurement> {
    ensure!(cluster.filled.keys > 0, "nothing was filled");
    cluster.rest().await?;
    tokio::time::sleep(bench.settle).await;
    let mut measured = cluster.filled.measured.clone();
    measured
        .metrics
        .insert(Metric::RssFilledMib, mib(cluster.filled.memory.resident));
    measured.metrics.extend(metrics(cluster.memory()?));
    Ok(measured)
}

pub(super) fn metrics(memory: Memory) -> [(Metric, f64); 3] {
    [
        (Metric::RssMib, mib(memory.resident)),
        (Metric::RssPeakMib, mib(memory.peak)),
        (Metric::RssAnonymousMib, mib(memory.anonymous)),
    ]
}

fn mib(kib: u64) -> f64 {
    number(kib) / 1024.0
}

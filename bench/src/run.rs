//! The order of things: both servers in turn, round after round, noisy rounds again.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cases::{Bench, Case};
use crate::cluster::{Cluster, Ports};
use crate::metric::Measurement;
use crate::plan::{Scenario, Setup};
use crate::report::Row;
use crate::software::Software;

/// What is too much noise, and what to do then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    /// Cores that others may use during a measurement.
    pub(crate) cores_max: f64,
    /// A round is measured again so many times before its quietest try is taken.
    pub(crate) retries: usize,
}

/// A run of some scenarios.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) bench: Bench,
    pub(crate) software: Vec<Software>,
    pub(crate) noise: Noise,
    pub(crate) ports: Ports,
    /// Where the servers keep their data; everything in it may be deleted.
    pub(crate) data: PathBuf,
}

impl Runner {
    /// Measures all cases of `scenario` and hands each finished row to `report`.
    ///
    /// # Errors
    ///
    /// A cluster could not be used, or a report could not be written. Operations that failed are
    /// in the rows.
    pub(crate) async fn run(
        &mut self,
        scenario: &Scenario,
        mut report: impl FnMut(Row) -> Result<()>,
    ) -> Result<()> {
        let mut clusters = Vec::new();
        if !scenario.setup.fresh {
            for number in 0..self.software.len() {
                clusters.push(self.prepare(number, scenario).await?);
            }
        }
        for case in &scenario.cases {
            let mut row = Row::new(*case, scenario.nodes, &self.software);
            for round in 1..=scenario.rounds {
                self.round(scenario, *case, round, &mut clusters, &mut row)
                    .await?;
            }
            report(row)?;
        }
        Ok(())
    }

    /// One measurement of each server, again while it is noisy. Without `clusters`, each
    /// measurement gets a new one.
    async fn round(
        &mut self,
        scenario: &Scenario,
        case: Case,
        round: usize,
        clusters: &mut [Cluster],
        row: &mut Row,
    ) -> Result<()> {
        let mut quietest: Option<Vec<Measurement>> = None;
        for attempt in 0..=self.noise.retries {
            progress(
                &format!("{} round {round}/{}", row.name(), scenario.rounds),
                attempt,
            );
            let measured = self.measure(scenario, case, clusters).await?;
            let is_quiet = noise_of(&measured) <= self.noise.cores_max;
            if quietest
                .as_ref()
                .is_none_or(|best| noise_of(&measured) < noise_of(best))
            {
                quietest = Some(measured);
            }
            if is_quiet {
                break;
            }
            row.noisy_rounds_dropped += 1;
        }
        let kept = quietest.context("a round without a measurement")?;
        if noise_of(&kept) > self.noise.cores_max {
            // It was counted as dropped above, but nothing better came.
            row.noisy_rounds_dropped -= 1;
            row.noisy_rounds_kept += 1;
        }
        row.push(kept);
        Ok(())
    }

    async fn measure(
        &mut self,
        scenario: &Scenario,
        case: Case,
        clusters: &mut [Cluster],
    ) -> Result<Vec<Measurement>> {
        let mut measured = Vec::with_capacity(self.software.len());
        for number in 0..self.software.len() {
            let who = self.software[number].subject.name();
            let failed = || format!("{} of {who} failed", scenario.name_of(case));
            let one = if let Some(cluster) = clusters.get_mut(number) {
                case.measure(&self.bench, cluster).await
            } else {
                let mut fresh = self.prepare(number, scenario).await.with_context(failed)?;
                case.measure(&self.bench, &mut fresh).await
            };
            measured.push(one.with_context(failed)?);
        }
        Ok(measured)
    }

    /// Starts a cluster with the data that `scenario` wants.
    async fn prepare(&mut self, number: usize, scenario: &Scenario) -> Result<Cluster> {
        let Setup {
            keys,
            burst,
            restart,
            ..
        } = scenario.setup;
        let software = &self.software[number];
        let who = software.subject.name();
        progress(&format!("{who} of {} with {keys} keys", scenario.nodes), 0);
        let directory = self.data.join(who);
        let mut cluster =
            Cluster::start(software, scenario.nodes, &directory, &mut self.ports).await?;
        if keys > 0 {
            cluster.fill(&self.bench.threads, keys).await?;
        }
        if burst > 0 {
            cluster.burst(&self.bench.threads, burst).await?;
        }
        if restart {
            cluster.stop().await?;
            cluster.launch().await?;
        }
        cluster.rest().await?;
        Ok(cluster)
    }
}

/// The noise of a pair is that of its worse half: a quiet half alone compares with nothing.
fn noise_of(pair: &[Measurement]) -> f64 {
    pair.iter().map(|one| one.other_cores).fold(0.0, f64::max)
}

/// Says on standard error what is going on; the table goes to standard output.
fn progress(what: &str, attempt: usize) {
    if attempt == 0 {
        eprintln!("- {what}");
    } else {
        eprintln!("- {what}, again ({attempt}): too much else was running");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_as_noisy_as_its_worse_half() {
        let with = |other_cores| Measurement {
            other_cores,
            ..Measurement::default()
        };
        assert!((noise_of(&[with(0.1), with(0.4)]) - 0.4).abs() < f64::EPSILON);
        assert!(noise_of(&[]).abs() < f64::EPSILON);
    }
}

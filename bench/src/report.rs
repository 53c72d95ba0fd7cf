//! What was found: rows for people and for programs.

mod markdown;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

pub(crate) use self::table::Table;
use crate::cases::Case;
use crate::machine::Machine;
use crate::metric::{Measurement, Metric};
use crate::software::{Software, Subject};
use crate::stats;
use crate::targets::{Target, Verdict, targets};

/// All measurements of one case.
#[derive(Debug)]
pub(crate) struct Row {
    /// Pairs that were measured again because of noise.
    pub(crate) noisy_rounds_dropped: usize,
    /// Pairs that stayed noisy in every try; the quietest try is in the row.
    pub(crate) noisy_rounds_kept: usize,
    case: Case,
    nodes: usize,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    subject: Subject,
    rounds: Vec<Measurement>,
}

impl Row {
    /// No measurements yet, of one column for each of `software`.
    pub(crate) fn new(case: Case, nodes: usize, software: &[Software]) -> Self {
        let column = |one: &Software| Column {
            subject: one.subject,
            rounds: Vec::new(),
        };
        Self {
            noisy_rounds_dropped: 0,
            noisy_rounds_kept: 0,
            case,
            nodes,
            columns: software.iter().map(column).collect(),
        }
    }

    /// Adds a round: one measurement for each column.
    pub(crate) fn push(&mut self, round: Vec<Measurement>) {
        assert_eq!(
            round.len(),
            self.columns.len(),
            "a round measures every column"
        );
        for (column, measured) in self.columns.iter_mut().zip(round) {
            column.rounds.push(measured);
        }
    }

    /// The name in tables and filters.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.nodes, self.case.name())
    }

    /// Problems that make the row worthless, in words.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for column in &self.columns {
            for measured in column.rounds.iter().filter(|one| !one.is_clean()) {
                let Measurement {
                    operations, errors, ..
                } = measured;
                let first = measured
                    .first_error
                    .as_deref()
                    .unwrap_or("nothing was done");
                problems.push(format!(
                    "{} of {}: {operations} operations, {errors} errors, first: {first}",
                    self.name(),
                    column.subject.name(),
                ));
            }
        }
        problems
    }

    /// The median over the rounds of `subject`.
    fn median(&self, subject: Subject, metric: Metric) -> Option<f64> {
        stats::median(
            self.rounds(subject)
                .filter_map(|one| one.metrics.get(&metric).copied()),
        )
    }

    /// Gonfalon's median as a part of etcd's.
    fn ratio(&self, metric: Metric) -> Option<f64> {
        stats::ratio(
            self.median(Subject::Gonfalon, metric)?,
            self.median(Subject::Etcd, metric)?,
        )
    }

    /// The least and the greatest ratio of any one round.
    fn ratio_spread(&self, metric: Metric) -> Option<(f64, f64)> {
        let ours = self.rounds(Subject::Gonfalon);
        let theirs = self.rounds(Subject::Etcd);
        stats::spread(ours.zip(theirs).filter_map(|(ours, theirs)| {
            stats::ratio(*ours.metrics.get(&metric)?, *theirs.metrics.get(&metric)?)
        }))
    }

    fn rounds(&self, subject: Subject) -> impl Iterator<Item = &Measurement> {
        let columns = self
            .columns
            .iter()
            .filter(move |column| column.subject == subject);
        columns.flat_map(|column| &column.rounds)
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut all: Vec<Metric> = self
            .columns
            .iter()
            .flat_map(|column| &column.rounds)
            .flat_map(|measured| measured.metrics.keys().copied())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    fn verdicts(&self) -> Vec<(Target, Verdict)> {
        let judge = |target: Target| {
            let verdict = target.verdict(|metric| self.ratio(metric));
            (target, verdict)
        };
        targets(self.case, self.nodes)
            .into_iter()
            .map(judge)
            .collect()
    }
}

/// How a run was made.
#[derive(Debug, Serialize)]
pub(crate) struct Method {
    /// The machine, and what its disk does.
    pub(crate) machine: Machine,
    /// The servers' own words.
    pub(crate) versions: Vec<(Subject, String)>,
    /// Seconds of each measurement.
    pub(crate) seconds: f64,
    /// Threads of the load generator.
    pub(crate) client_threads: usize,
    /// Its connections, where there are several clients.
    pub(crate) connections: usize,
    /// Cores that others may use before a round is measured again.
    pub(crate) noise_cores_max: f64,
}

/// Writes `rows` as `<name>.json` and `<name>.md` into `directory`.
///
/// # Errors
///
/// The directory or a file cannot be written.
pub(crate) fn write(directory: &Path, name: &str, method: &Method, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let json = serde_json::to_string_pretty(&json(method, rows))? + "\n";
    let files = [("json", json), ("md", markdown::render(method, rows))];
    for (extension, text) in files {
        let path = directory.join(format!("{name}.{extension}"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn json(method: &Method, rows: &[Row]) -> serde_json::Value {
    let row = |row: &Row| {
        let metrics: serde_json::Map<String, serde_json::Value> = row
            .metrics()
            .into_iter()
            .map(|metric| {
                let numbers = serde_json::json!({
                    "etcd": row.median(Subject::Etcd, metric),
                    "gonfalon": row.median(Subject::Gonfalon, metric),
                    "ratio": row.ratio(metric),
                    "ratio_least_and_greatest": row.ratio_spread(metric),
                });
                (key_of(metric), numbers)
            })
            .collect();
        let columns: Vec<_> = row
            .columns
            .iter()
            .map(|column| serde_json::json!({"subject": column.subject, "rounds": column.rounds}))
            .collect();
        let verdicts: Vec<_> = row
            .verdicts()
            .into_iter()
            .map(|(target, verdict)| {
                serde_json::json!({"target": target.to_string(), "verdict": verdict})
            })
            .collect();
        serde_json::json!({
            "case": row.name(),
            "description": row.case.description(),
            "medians": metrics,
            "targets": verdicts,
            "noisy_rounds_dropped": row.noisy_rounds_dropped,
            "noisy_rounds_kept": row.noisy_rounds_kept,
            "columns": columns,
        })
    };
    serde_json::json!({"method": method, "rows": rows.iter().map(row).collect::<Vec<_>>()})
}

/// The name of `metric` as serde writes it.
fn key_of(metric: Metric) -> String {
    match serde_json::to_value(metric) {
        Ok(serde_json::Value::String(name)) => name,
        _ => metric.label().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Disk;

    fn measurement(ops: f64, p50: f64, p99: f64, cpu: f64) -> Measurement {
        let metrics = [
            (Metric::OpsPerSecond, ops),
            (Metric::P50Us, p50),
            (Metric::P99Us, p99),
            (Metric::ServerCpuUs, cpu),
        ];
        Measurement {
            metrics: metrics.into(),
            operations: 1,
            ..Measurement::default()
        }
    }

    /// Put with 64 clients, three rounds, everything twice as good as etcd in the median.
    pub(super) fn row() -> Row {
        let column = |subject, rounds: [Measurement; 3]| Column {
            subject,
            rounds: rounds.into(),
        };
        Row {
            noisy_rounds_dropped: 0,
            noisy_rounds_kept: 0,
            case: Case::Put { clients: 64 },
            nodes: 1,
            columns: vec![
                column(
                    Subject::Etcd,
                    [
                        measurement(10_000.0, 4_000.0, 5_000.0, 80.0),
                        measurement(9_000.0, 4_400.0, 5_000.0, 90.0),
                        measurement(11_000.0, 3_600.0, 5_000.0, 70.0),
                    ],
                ),
                column(
                    Subject::Gonfalon,
                    [
                        measurement(20_000.0, 2_000.0, 2_500.0, 40.0),
                        measurement(27_000.0, 2_200.0, 2_500.0, 45.0),
                        measurement(11_000.0, 1_800.0, 2_500.0, 35.0),
                    ],
                ),
            ],
        }
    }

    pub(super) fn method() -> Method {
        Method {
            machine: Machine {
                cores: 2,
                processor: "a processor".to_owned(),
                memory_mib: 1024,
                kernel: "6.1".to_owned(),
                filesystem: "ext4".to_owned(),
                disk: Disk {
                    syncs_per_second: 4000.0,
                    p50_us: 200.0,
                    p99_us: 900.0,
                },
            },
            versions: vec![(Subject::Etcd, "etcd Version: 3.4".to_owned())],
            seconds: 3.0,
            client_threads: 2,
            connections: 8,
            noise_cores_max: 0.3,
        }
    }

    #[test]
    fn a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() {
        let row = row();
        assert_eq!(row.ratio(Metric::OpsPerSecond), Some(2.0));
        assert_eq!(row.ratio_spread(Metric::OpsPerSecond), Some((1.0, 3.0)));
        assert_eq!(row.ratio(Metric::RssMib), None);
    }

    #[test]
    fn a_round_without_operations_or_with_errors_is_a_problem() {
        let mut row = row();
        assert!(row.problems().is_empty());
        row.columns[1].rounds[2].errors = 3;
        row.columns[1].rounds[2].first_error = Some("lost".to_owned());
        row.columns[0].rounds[0].operations = 0;
        let problems = row.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(
            problems[1],
            "1/put-64 of gonfalon: 1 operations, 3 errors, first: lost"
        );
    }

    #[test]
    fn with_one_server_there_are_numbers_but_no_ratios() {
        let mut row = row();
        row.columns.remove(0);
        assert_eq!(
            row.median(Subject::Gonfalon, Metric::OpsPerSecond),
            Some(20_000.0)
        );
        assert_eq!(row.ratio(Metric::OpsPerSecond), None);
        assert!(
            row.verdicts()
                .iter()
                .all(|(_, verdict)| *verdict == Verdict::Unknown)
        );
    }

    #[test]
    fn both_files_are_written_and_the_json_holds_every_round() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("new");
        write(&inside, "x", &method(), &[row()]).unwrap();
        let read = |file: &str| std::fs::read_to_string(inside.join(file)).unwrap();
        assert!(read("x.md").starts_with("# "));
        let json = read("x.json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let row = &json["rows"][0];
        assert_eq!(row["medians"]["ops_per_second"]["ratio"], 2.0);
        assert_eq!(
            row["columns"][1]["rounds"][1]["metrics"]["ops_per_second"],
            27_000.0
        );
        assert_eq!(row["targets"][1]["verdict"], "met");
    }
}

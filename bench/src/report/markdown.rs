//! The report for people: the table, how it was made, and every other number.

use std::fmt::Write as _;

use super::{Method, Row, table};
use crate::metric::Metric;
use crate::software::Subject;

/// The whole report.
pub(super) fn render(method: &Method, rows: &[Row]) -> String {
    let mut text = String::from("# etcd and Gonfalon side by side\n\n");
    head(&mut text, method);
    ratios(&mut text, rows);
    details(&mut text, rows);
    text
}

fn head(text: &mut String, method: &Method) {
    let machine = &method.machine;
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "- {name}: {value}");
    };
    let cores = format!("{} x {}", machine.cores, machine.processor);
    line(
        "machine",
        &format!(
            "{cores}, {} MiB, Linux {}",
            machine.memory_mib, machine.kernel
        ),
    );
    line(
        "disk",
        &format!(
            "{}, {:.0} syncs of 4 KiB a second (p50 {:.0} us, p99 {:.0} us)",
            machine.filesystem,
            machine.disk.syncs_per_second,
            machine.disk.p50_us,
            machine.disk.p99_us
        ),
    );
    for (subject, version) in &method.versions {
        line(subject.name(), version);
    }
    line(
        "method",
        &format!(
            "both in turn, {} s each, medians; {} threads and {} connections of one closed-loop \
             load generator on the same machine; rounds with more than {} cores used by others \
             are measured again",
            method.seconds, method.client_threads, method.connections, method.noise_cores_max
        ),
    );
    text.push('\n');
}

fn ratios(text: &mut String, rows: &[Row]) {
    text.push_str(
        "Ratios are Gonfalon / etcd. CPU is the servers' processor time for one operation.\n\n\
         | case | by | etcd | Gonfalon | ratio | p50 | p99 | CPU etcd | CPU Gonfalon | ratio | \
         targets |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let cells = table::cells(row).join(" | ");
        let targets = row.verdicts().into_iter();
        let targets: Vec<_> = targets
            .map(|(aim, verdict)| format!("{aim}: {verdict}"))
            .collect();
        let _infallible = writeln!(
            text,
            "| {} | {} | {cells} | {} |",
            row.case_with_nodes(),
            row.case.primary().label(),
            targets.join("; ")
        );
    }
}

fn details(text: &mut String, rows: &[Row]) {
    text.push_str("\n## Every number\n\nThe spread is of the ratios of single rounds.\n");
    for row in rows {
        let _infallible = writeln!(text, "\n### {}\n\n{}.", row.name(), row.case.description());
        if row.noisy_rounds_kept > 0 {
            let _infallible = writeln!(
                text,
                "**{} of the rounds stayed noisy in every try.**",
                row.noisy_rounds_kept
            );
        }
        for problem in row.problems() {
            let _infallible = writeln!(text, "**{problem}**");
        }
        text.push_str("\n| | etcd | Gonfalon | ratio | spread |\n|---|--:|--:|--:|--:|\n");
        for metric in row.metrics() {
            metric_line(text, row, metric);
        }
    }
}

fn metric_line(text: &mut String, row: &Row, metric: Metric) {
    let value = |subject| {
        let median = row.median(subject, metric);
        median.map_or_else(|| "-".to_owned(), |value| table::show(metric, value))
    };
    let ratio = row
        .ratio(metric)
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let spread = row.ratio_spread(metric).map_or_else(
        || "-".to_owned(),
        |(least, most)| format!("{least:.2} to {most:.2}"),
    );
    let _infallible = writeln!(
        text,
        "| {} | {} | {} | {ratio} | {spread} |",
        metric.label(),
        value(Subject::Etcd),
        value(Subject::Gonfalon),
    );
}

impl Row {
    fn case_with_nodes(&self) -> String {
        let nodes = if self.nodes == 1 {
            String::new()
        } else {
            format!(", {} nodes", self.nodes)
        };
        format!("{}{nodes}", self.case.description())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{method, row};

    #[test]
    fn the_report_names_the_machine_the_versions_and_all_numbers() {
        let text = render(&method(), &[row()]);
        for part in [
            "- machine: 2 x a processor, 1024 MiB, Linux 6.1",
            "- etcd: etcd Version: 3.4",
            "| put of 256 bytes, 64 clients | ops/s | 10.0k | 20.0k | 2.00 | 0.50 | 0.50 |",
            "| p99 | 5000 us | 2500 us | 0.50 | 0.50 to 0.50 |",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn tables_have_as_many_cells_as_titles() {
        let text = render(&method(), &[row()]);
        for block in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let cells: Vec<usize> = block
                .lines()
                .map(|line| line.matches('|').count())
                .collect();
            assert!(cells.iter().all(|count| *count == cells[0]), "{block}");
        }
    }
}

//! The table on standard output, a line as soon as a case is done.

use std::io::{self, Write};

use super::Row;
use crate::metric::Metric;
use crate::software::Subject;

/// Width of each column after the first two, and its title.
const COLUMNS: [(usize, &str); 8] = [
    (10, "etcd"),
    (10, "gonfalon"),
    (7, "ratio"),
    (7, "p50"),
    (7, "p99"),
    (10, "CPU etcd"),
    (10, "CPU gonf."),
    (7, "ratio"),
];

/// Writes rows to `out`.
#[derive(Debug)]
pub(crate) struct Table<W> {
    out: W,
}

impl<W: Write> Table<W> {
    /// Writes the head.
    ///
    /// # Errors
    ///
    /// `out` takes nothing.
    pub(crate) fn start(mut out: W) -> io::Result<Self> {
        write!(out, "{:<27}{:>6}", "case", "by")?;
        for (width, title) in COLUMNS {
            write!(out, "{title:>width$}")?;
        }
        writeln!(out, "  targets")?;
        out.flush()?;
        Ok(Self { out })
    }

    /// Writes one line; a case with noisy rounds has a `*`, one with errors a `!`.
    ///
    /// # Errors
    ///
    /// `out` takes nothing.
    pub(crate) fn row(&mut self, row: &Row) -> io::Result<()> {
        let by = row.case.primary();
        let mark = match (row.problems().is_empty(), row.noisy_rounds_kept) {
            (false, _) => "!",
            (true, 0) => "",
            (true, _) => "*",
        };
        write!(self.out, "{:<27}{:>6}", row.name() + mark, by.label())?;
        for ((width, _), cell) in COLUMNS.into_iter().zip(cells(row)) {
            write!(self.out, "{cell:>width$}")?;
        }
        let targets = row.verdicts().into_iter();
        let targets: Vec<_> = targets
            .map(|(aim, verdict)| format!("{aim}: {verdict}"))
            .collect();
        writeln!(self.out, "  {}", targets.join("; "))?;
        self.out.flush()
    }

    /// Writes a line below the table.
    ///
    /// # Errors
    ///
    /// `out` takes nothing.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}

/// What stands in the columns of a row.
pub(super) fn cells(row: &Row) -> [String; 8] {
    let value = |subject, metric| {
        row.median(subject, metric)
            .map_or_else(|| "-".to_owned(), |value| show(metric, value))
    };
    let ratio = |metric| {
        row.ratio(metric)
            .map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"))
    };
    let by = row.case.primary();
    [
        value(Subject::Etcd, by),
        value(Subject::Gonfalon, by),
        ratio(by),
        ratio(Metric::P50Us),
        ratio(Metric::P99Us),
        value(Subject::Etcd, Metric::ServerCpuUs),
        value(Subject::Gonfalon, Metric::ServerCpuUs),
        ratio(Metric::ServerCpuUs),
    ]
}

/// A number with its unit, in a few characters.
pub(super) fn show(metric: Metric, value: f64) -> String {
    use Metric::{
        ClientCpuUs, OpsPerSecond, P50Us, P99Us, P999Us, RssAnonymousMib, RssFilledMib, RssMib,
        RssPeakMib, ServerCpuUs, StopSeconds,
    };
    match metric {
        OpsPerSecond if value >= 1e6 => format!("{:.2}M", value / 1e6),
        OpsPerSecond if value >= 1e4 => format!("{:.1}k", value / 1e3),
        OpsPerSecond => format!("{value:.0}"),
        P50Us | P99Us | P999Us | ServerCpuUs | ClientCpuUs => microseconds(value),
        RssMib | RssFilledMib | RssPeakMib | RssAnonymousMib => format!("{value:.0} MiB"),
        StopSeconds => microseconds(value * 1e6),
    }
}

fn microseconds(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2} s", v / 1e6),
        v if v >= 1e4 => format!("{:.1} ms", v / 1e3),
        v if v >= 100.0 => format!("{v:.0} us"),
        v => format!("{v:.1} us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::row;

    #[test]
    fn a_line_has_values_ratios_and_verdicts() {
        let mut table = Table::start(Vec::new()).unwrap();
        table.row(&row()).unwrap();
        let text = String::from_utf8(table.out).unwrap();
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let want = [
            "1/put-64", "ops/s", "10.0k", "20.0k", "2.00", "0.50", "0.50",
        ];
        assert_eq!(words[..7], want);
        assert!(line.contains("80.0 us   40.0 us   0.50"), "{line}");
        assert!(
            line.ends_with("CPU/op <= 0.5: met; p99 <= 0.7: met"),
            "{line}"
        );
    }

    #[test]
    fn noise_and_errors_are_marked() {
        let mut noisy = row();
        noisy.noisy_rounds_kept = 1;
        let mut wrong = row();
        wrong.columns[0].rounds[0].errors = 1;
        for (row, mark) in [(noisy, "1/put-64*"), (wrong, "1/put-64!")] {
            let mut table = Table::start(Vec::new()).unwrap();
            table.row(&row).unwrap();
            let text = String::from_utf8(table.out).unwrap();
            assert!(text.contains(mark), "{text}");
        }
    }

    #[test]
    fn numbers_are_short_and_have_units() {
        for (metric, value, want) in [
            (Metric::OpsPerSecond, 1_234.4, "1234"),
            (Metric::OpsPerSecond, 12_345.0, "12.3k"),
            (Metric::OpsPerSecond, 1_234_567.0, "1.23M"),
            (Metric::P99Us, 56.78, "56.8 us"),
            (Metric::P99Us, 5_678.0, "5678 us"),
            (Metric::P99Us, 56_780.0, "56.8 ms"),
            (Metric::P50Us, 3_210_000.0, "3.21 s"),
            (Metric::RssMib, 150.4, "150 MiB"),
            (Metric::StopSeconds, 0.25, "250.0 ms"),
        ] {
            assert_eq!(show(metric, value), want);
        }
    }
}

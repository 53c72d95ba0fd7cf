//! The results of this mode: for people and for programs.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{median, ratio, spread};

/// Everything that was measured, and on what.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) version: String,
    pub(super) workers: usize,
    pub(super) rounds: usize,
    pub(super) seconds: f64,
    pub(super) numbers: Vec<Number>,
    pub(super) comparisons: Vec<Comparison>,
}

/// One number, and what it should be.
#[derive(Debug, Serialize)]
pub(super) struct Number {
    name: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    at_most: Option<f64>,
}

impl Number {
    pub(super) fn new(name: &'static str, what: &str, value: f64, unit: &'static str) -> Self {
        Self {
            name,
            what: what.to_owned(),
            value,
            unit,
            at_most: None,
        }
    }

    pub(super) fn at_most(mut self, most: f64) -> Self {
        self.at_most = Some(most);
        self
    }

    fn target(&self) -> String {
        match self.at_most {
            None => String::new(),
            Some(most) => {
                let verdict = if self.value <= most {
                    "met"
                } else {
                    "**not met**"
                };
                format!("<= {most} {}: {verdict}", self.unit)
            }
        }
    }
}

/// One case, by both clients.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) ours: Vec<Round>,
    pub(super) theirs: Vec<Round>,
}

/// One measurement of one client.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Round {
    /// Calls, or events.
    pub(super) per_second: f64,
    /// Processor time of the client's process for each.
    pub(super) processor_us: f64,
}

impl Comparison {
    /// Medians of both, ratio of the medians, and the spread of the rounds' ratios.
    fn line(&self, of: impl Fn(&Round) -> f64, digits: usize) -> String {
        let middle = |rounds: &[Round]| median(rounds.iter().map(&of)).unwrap_or_default();
        let (ours, theirs) = (middle(&self.ours), middle(&self.theirs));
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratios = pairs.filter_map(|(ours, theirs)| ratio(of(ours), of(theirs)));
        let (least, most) = spread(ratios).unwrap_or_default();
        let ratio = ratio(ours, theirs).unwrap_or_default();
        format!("{theirs:.digits$} | {ours:.digits$} | {ratio:.2} ({least:.2} to {most:.2})")
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::from("# The client library\n\n");
        let machine = &self.machine;
        let _infallible = write!(
            text,
            "- machine: {} x {}, {} MiB, Linux {}; {}, a sync of 4 KiB takes {:.0} us\n\
             - server: {}, one member on the same machine\n\
             - method: {} rounds of {} s each, both clients in turn, {} threads; medians\n\n",
            machine.cores,
            machine.processor,
            machine.memory_mib,
            machine.kernel,
            machine.filesystem,
            machine.disk.p50_us,
            self.version,
            self.rounds,
            self.seconds,
            self.workers,
        );
        if !self.comparisons.is_empty() {
            text += "Ratios are gonfalon / etcd-client, with the least and the greatest of a round. CPU \
                     is the processor time of the client's process.\n\n\
                     | case | etcd-client, a second | gonfalon | ratio | CPU each, etcd-client, us | \
                     gonfalon | ratio |\n|---|--:|--:|--:|--:|--:|--:|\n";
        }
        for comparison in &self.comparisons {
            let rate = comparison.line(|round| round.per_second, 0);
            let cost = comparison.line(|round| round.processor_us, 2);
            let name = comparison.name;
            let _infallible = writeln!(text, "| {name} | {rate} | {cost} |");
        }
        if !self.numbers.is_empty() {
            text += "\n| what | | | target |\n|---|---|--:|---|\n";
        }
        for number in &self.numbers {
            let (name, what, unit) = (number.name, &number.what, number.unit);
            let (value, target) = (number.value, number.target());
            let _infallible = writeln!(text, "| {name} | {what} | {value:.2} {unit} | {target} |");
        }
        text
    }

    pub(super) fn print(&self, mut out: impl io::Write) -> Result<()> {
        out.write_all(self.text().as_bytes())
            .context("cannot print")
    }

    /// Writes `<name>.md` and `<name>.json` into `directory`.
    pub(super) fn write(&self, directory: &Path, name: &str) -> Result<()> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (extension, text) in [("md", self.text()), ("json", json)] {
            let path = directory.join(format!("{name}.{extension}"));
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_not_and_without_one_nothing_is_said() {
        let number = |value| Number::new("sync", "keys", value, "s");
        assert_eq!(number(0.5).target(), "");
        assert_eq!(number(0.5).at_most(1.0).target(), "<= 1 s: met");
        assert_eq!(number(1.5).at_most(1.0).target(), "<= 1 s: **not met**");
    }

    #[test]
    fn a_comparison_has_medians_and_the_spread_of_the_rounds() {
        let round = |per_second| Round {
            per_second,
            processor_us: 1.0,
        };
        let comparison = Comparison {
            name: "get-1",
            description: "reads",
            ours: vec![round(10.0), round(30.0), round(20.0)],
            theirs: vec![round(10.0), round(10.0), round(40.0)],
        };
        let line = comparison.line(|round| round.per_second, 0);
        assert_eq!(line, "10 | 20 | 2.00 (0.50 to 3.00)");
    }
}

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::plan::Scale;
use crate::software::Subject;

/// Measures etcd and Gonfalon side by side on this machine.
///
/// Both get the same flags, the same load and the same disk, in turn. The table goes to standard
/// output while it is made, and to `<results>/<name>.md` and `.json` in the end. A full run takes
/// about forty minutes, a quick one about ten.
#[derive(Debug, Parser)]
#[command(name = "gonfalon-bench", version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Options {
    /// Shorter and fewer rounds, 200 000 keys instead of a million
    #[arg(long, conflicts_with = "smoke")]
    quick: bool,

    /// Every case for an instant: fails if one does not work, whatever its speed
    #[arg(long)]
    pub(crate) smoke: bool,

    /// Measure the client library instead: beside the crate etcd-client, and what only it has
    #[arg(long, conflicts_with_all = ["quick", "list", "nodes", "only"])]
    pub(crate) clients: bool,

    /// Only cases whose name contains this (repeatable); see --list
    #[arg(long = "case", value_name = "FILTER")]
    pub(crate) cases: Vec<String>,

    /// Print the names of all cases and stop
    #[arg(long)]
    pub(crate) list: bool,

    /// Members of the cluster (repeatable) [default: 1 and 3]
    #[arg(long, value_name = "NUMBER", value_parser = ["1", "3"])]
    nodes: Vec<String>,

    /// Pairs of measurements for each case [default: 5, quick 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Length of each measurement [default: 3, quick 1]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// Measure only one of the two
    #[arg(long)]
    pub(crate) only: Option<Subject>,

    /// The etcd to compare with
    #[arg(long, env = "ETCD_BIN", default_value = "etcd", value_name = "PATH")]
    pub(crate) etcd_bin: PathBuf,

    /// The Gonfalon to measure; a program called etcd is started like etcd
    #[arg(
        long,
        env = "GONFALON_BIN",
        default_value = "target/release/gonfalon",
        value_name = "PATH"
    )]
    pub(crate) gonfalon_bin: PathBuf,

    /// Threads of the load generator
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    client_threads: u16,

    /// Connections of the load generator, where a case has several clients
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(4..))]
    connections: u16,

    /// Cores that others may use before a round is measured again
    #[arg(long, default_value_t = 0.3, value_name = "CORES")]
    pub(crate) noise_limit: f64,

    /// How often a noisy round is measured again
    #[arg(long, default_value_t = 3)]
    pub(crate) retries: usize,

    /// Servers use the 500 ports from here on; outgoing connections must not take them, so stay
    /// below the range of those (from 32768 unless the machine says otherwise)
    #[arg(long, default_value_t = 23_000, value_name = "PORT")]
    pub(crate) first_port: u16,

    /// Where servers keep their data during the run, on the disk that is to be measured
    #[arg(long, default_value = "bench/data", value_name = "DIRECTORY")]
    pub(crate) data_dir: PathBuf,

    /// Where the results go
    #[arg(long, default_value = "bench/results", value_name = "DIRECTORY")]
    pub(crate) results: PathBuf,

    /// Name of the result files [default: full or quick, -part with --case, --nodes or --only; a
    /// smoke run writes none]
    #[arg(long)]
    name: Option<String>,
}

impl Options {
    /// The sizes of the run.
    pub(crate) fn scale(&self) -> Scale {
        let mut scale = match (self.smoke, self.quick) {
            (true, _) => Scale::SMOKE,
            (_, true) => Scale::QUICK,
            _ => Scale::FULL,
        };
        if let Some(rounds) = self.rounds {
            scale.rounds = rounds.into();
        }
        if let Some(seconds) = self.seconds {
            scale.length = Duration::from_secs_f64(seconds.clamp(0.05, 600.0));
        }
        scale
    }

    /// How often each case is measured, if that was chosen.
    pub(crate) fn rounds(&self) -> Option<usize> {
        self.rounds.map(usize::from)
    }

    /// How long each measurement is, if that was chosen.
    pub(crate) fn seconds(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs_f64)
    }

    /// Sizes of the clusters to measure.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        let chosen: Vec<usize> = self
            .nodes
            .iter()
            .filter_map(|one| one.parse().ok())
            .collect();
        if chosen.is_empty() {
            vec![1, 3]
        } else {
            chosen
        }
    }

    /// Who is measured, in this order.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        self.only
            .map_or_else(|| Subject::BOTH.to_vec(), |only| vec![only])
    }

    pub(crate) fn client_threads(&self) -> usize {
        self.client_threads.into()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.into()
    }

    /// The name of the result files; without one there are none.
    pub(crate) fn name(&self) -> Option<String> {
        if self.smoke || self.name.is_some() {
            return self.name.clone();
        }
        let whole = match (self.clients, self.quick) {
            (true, _) => "clients",
            (_, true) => "quick",
            _ => "full",
        };
        // A part must not replace the results of a whole run.
        let is_part = !self.cases.is_empty() || !self.nodes.is_empty() || self.only.is_some();
        Some(format!("{whole}{}", if is_part { "-part" } else { "" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        Options::try_parse_from([&["gonfalon-bench"], arguments].concat()).unwrap()
    }

    #[test]
    fn without_options_everything_runs_in_full() {
        let options = parse(&[]);
        assert_eq!(options.scale(), Scale::FULL);
        assert_eq!(options.nodes(), [1, 3]);
        assert_eq!(options.subjects(), Subject::BOTH);
        assert_eq!(options.name().as_deref(), Some("full"));
    }

    #[test]
    fn a_part_does_not_replace_the_results_of_the_whole() {
        for arguments in [["--case", "put"], ["--nodes", "1"], ["--only", "etcd"]] {
            assert_eq!(
                parse(&arguments).name().unwrap(),
                "full-part",
                "{arguments:?}"
            );
        }
        assert_eq!(parse(&["--quick"]).name().unwrap(), "quick");
        assert_eq!(
            parse(&["--quick", "--name", "mine"]).name().unwrap(),
            "mine"
        );
        assert_eq!(parse(&["--clients"]).name().unwrap(), "clients");
        assert_eq!(parse(&["--smoke"]).name(), None, "its numbers mean nothing");
    }

    #[test]
    fn rounds_and_seconds_override_the_scale() {
        let scale = parse(&["--quick", "--rounds", "7", "--seconds", "0.5"]).scale();
        assert_eq!(
            (scale.rounds, scale.length),
            (7, Duration::from_millis(500))
        );
        assert_eq!(scale.keys, Scale::QUICK.keys);
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [["--nodes", "2"], ["--rounds", "0"], ["--connections", "3"]] {
            let all = [&["gonfalon-bench"], &arguments[..]].concat();
            assert!(Options::try_parse_from(all).is_err(), "{arguments:?}");
        }
    }
}

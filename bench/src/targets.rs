//! What Gonfalon wants to reach, as ratios to etcd on the same machine in the same run.
//!
//! Targets are for one node. A case without one is measured all the same.

use serde::Serialize;

use crate::cases::{Case, Consistency};
use crate::metric::Metric;

/// A bound on the ratio Gonfalon / etcd of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// The more the better.
    AtLeast(Metric, f64),
    /// The less the better.
    AtMost(Metric, f64),
}

/// One aim of a case: reached if any of its bounds holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Target {
    /// Alternatives.
    any_of: Vec<Bound>,
}

/// Whether a target was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// A bound holds.
    Met,
    /// No bound holds.
    NotMet,
    /// There is no ratio to compare.
    Unknown,
}

/// The targets of `case` on `nodes` members.
pub(crate) fn targets(case: Case, nodes: usize) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    use Metric::{OpsPerSecond, P50Us, P99Us, RssMib, ServerCpuUs};

    if nodes != 1 {
        return Vec::new();
    }
    let all: &[&[Bound]] = match case {
        // One client waits for the disk alone: there is nothing to win.
        Case::Put { clients: 1 } => &[],
        Case::Put { .. } => &[
            &[AtLeast(OpsPerSecond, 1.5), AtMost(ServerCpuUs, 0.5)],
            &[AtMost(P99Us, 0.7)],
        ],
        Case::Get {
            consistency: Consistency::Linearizable,
            ..
        } => &[&[AtLeast(OpsPerSecond, 1.5)], &[AtMost(ServerCpuUs, 0.5)]],
        Case::Get {
            consistency: Consistency::Serializable,
            ..
        }
        | Case::Prefix { .. } => &[&[AtLeast(OpsPerSecond, 2.0)]],
        Case::Watch { writers, .. } if writers > 1 => &[&[AtLeast(OpsPerSecond, 2.0)]],
        Case::Restart { .. } => &[&[AtMost(P50Us, 0.6)]],
        Case::Memory { .. } => &[&[AtMost(RssMib, 0.6)]],
        Case::Txn { .. }
        | Case::GetAfterWrites { .. }
        | Case::Watch { .. }
        | Case::Lease { .. } => &[],
    };
    all.iter()
        .map(|any_of| Target {
            any_of: any_of.to_vec(),
        })
        .collect()
}

impl Target {
    /// Judges by `ratio`, which gives the ratio of a metric if there is one.
    pub(crate) fn verdict(&self, ratio: impl Fn(Metric) -> Option<f64>) -> Verdict {
        let holds = self.any_of.iter().map(|bound| bound.holds(&ratio));
        holds.fold(Verdict::Unknown, |verdict, holds| match (verdict, holds) {
            (Verdict::Met, _) | (_, Some(true)) => Verdict::Met,
            (_, Some(false)) => Verdict::NotMet,
            (verdict, None) => verdict,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, bound) in self.any_of.iter().enumerate() {
            let or = if number == 0 { "" } else { " or " };
            match bound {
                Bound::AtLeast(metric, bound) => write!(f, "{or}{} >= {bound}", metric.label())?,
                Bound::AtMost(metric, bound) => write!(f, "{or}{} <= {bound}", metric.label())?,
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "NOT met",
            Self::Unknown => "unknown",
        })
    }
}

impl Bound {
    fn holds(self, ratio: impl Fn(Metric) -> Option<f64>) -> Option<bool> {
        match self {
            Self::AtLeast(metric, bound) => Some(ratio(metric)? >= bound),
            Self::AtMost(metric, bound) => Some(ratio(metric)? <= bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_are_fast_enough_by_rate_or_by_cost_and_by_their_p99() {
        let targets = targets(Case::Put { clients: 64 }, 1);
        for (ops, cpu, p99, want) in [
            (1.6, 0.9, 0.6, [Verdict::Met, Verdict::Met]),
            (1.1, 0.5, 0.7, [Verdict::Met, Verdict::Met]),
            (1.49, 0.51, 0.71, [Verdict::NotMet, Verdict::NotMet]),
        ] {
            let ratio = |metric| match metric {
                Metric::OpsPerSecond => Some(ops),
                Metric::ServerCpuUs => Some(cpu),
                Metric::P99Us => Some(p99),
                _ => None,
            };
            let got: Vec<Verdict> = targets.iter().map(|target| target.verdict(ratio)).collect();
            assert_eq!(got, want, "ops {ops}, CPU {cpu}, p99 {p99}");
        }
    }

    #[test]
    fn linearizable_gets_need_both() {
        let case = Case::Get {
            clients: 1,
            consistency: Consistency::Linearizable,
        };
        assert_eq!(targets(case, 1).len(), 2);
    }

    #[test]
    fn without_a_ratio_there_is_no_verdict() {
        for target in targets(Case::Prefix { clients: 8 }, 1) {
            assert_eq!(target.verdict(|_| None), Verdict::Unknown);
        }
    }

    #[test]
    fn a_target_reads_as_a_formula() {
        let targets = targets(Case::Put { clients: 64 }, 1);
        assert_eq!(targets[0].to_string(), "ops/s >= 1.5 or CPU/op <= 0.5");
        assert_eq!(targets[1].to_string(), "p99 <= 0.7");
    }

    #[test]
    fn three_nodes_have_no_targets() {
        assert!(targets(Case::Put { clients: 64 }, 3).is_empty());
    }
}

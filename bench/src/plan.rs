//! Which cases run, on which clusters, how often.

use std::time::Duration;

use crate::cases::{Case, Consistency};

/// Clients of the cases that are measured at three loads.
const CLIENTS: [usize; 3] = [1, 64, 256];

/// Keys in the store where the cases use others: events and leases.
const KEYS_OF_EVENTS: u64 = 1_000;

/// The sizes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Keys in the store of most cases.
    pub(crate) keys: u64,
    /// Keys in the store of the large cases.
    pub(crate) many_keys: u64,
    /// Overwrites before the reads that follow writes.
    pub(crate) burst: u64,
    /// Leases to renew.
    pub(crate) leases: usize,
    /// Watchers of the case with many.
    pub(crate) watchers: usize,
    /// Pairs of measurements for each case.
    pub(crate) rounds: usize,
    /// Load before each measurement.
    pub(crate) warm_up: Duration,
    /// Length of each measurement.
    pub(crate) length: Duration,
    /// Rest before memory is read.
    pub(crate) settle: Duration,
    /// One cluster for all cases, where results do not matter.
    pub(crate) one_cluster: bool,
}

impl Scale {
    /// What the tables in the documents are made with.
    pub(crate) const FULL: Self = Self {
        keys: 100_000,
        many_keys: 1_000_000,
        burst: 50_000,
        leases: 10_000,
        watchers: 1_000,
        rounds: 5,
        warm_up: Duration::from_millis(700),
        length: Duration::from_secs(3),
        settle: Duration::from_secs(10),
        one_cluster: false,
    };

    /// For a look during work: fewer and shorter rounds, fewer keys in the large cases.
    pub(crate) const QUICK: Self = Self {
        many_keys: 200_000,
        rounds: 3,
        warm_up: Duration::from_millis(500),
        length: Duration::from_secs(1),
        settle: Duration::from_secs(3),
        ..Self::FULL
    };

    /// For CI: every case works; the numbers mean nothing.
    pub(crate) const SMOKE: Self = Self {
        keys: 5_000,
        many_keys: 5_000,
        burst: 500,
        leases: 200,
        watchers: 100,
        rounds: 1,
        warm_up: Duration::from_millis(50),
        length: Duration::from_millis(150),
        settle: Duration::from_millis(100),
        one_cluster: true,
    };
}

/// What is done to a cluster before its cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Keys to fill.
    pub(crate) keys: u64,
    /// Single overwrites after that.
    pub(crate) burst: u64,
    /// A restart after that: etcd 3.4 reads at half its speed after writes until it is restarted.
    pub(crate) restart: bool,
    /// A new cluster for every measurement, so that a faster server does not have to work in the
    /// larger history that it made; otherwise both servers keep theirs for all cases and rounds.
    pub(crate) fresh: bool,
}

/// Cases on equally prepared clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// Members of each cluster.
    pub(crate) nodes: usize,
    /// How clusters are prepared.
    pub(crate) setup: Setup,
    /// In this order.
    pub(crate) cases: Vec<Case>,
    /// Pairs of measurements for each case.
    pub(crate) rounds: usize,
}

impl Scenario {
    /// The name of `case` in tables and filters.
    pub(crate) fn name_of(&self, case: Case) -> String {
        format!("{}/{}", self.nodes, case.name())
    }
}

/// All scenarios for clusters of `nodes` members, in the order of the table.
pub(crate) fn scenarios(scale: &Scale, nodes: &[usize]) -> Vec<Scenario> {
    let mut all = Vec::new();
    for &nodes in nodes {
        let mut these = all_cases(scale, nodes);
        if scale.one_cluster {
            let setup = Setup {
                keys: scale.keys,
                ..Setup::default()
            };
            let mut cases: Vec<Case> = these
                .drain(..)
                .flat_map(|scenario| scenario.cases)
                .collect();
            // Memory with few and with many keys is the same when many are as few.
            cases.dedup();
            these.push(Scenario {
                nodes,
                setup,
                cases,
                rounds: scale.rounds,
            });
        }
        all.extend(these);
    }
    all
}

/// Removes the cases whose names contain none of `filters`; without filters, none.
pub(crate) fn filter(scenarios: &mut Vec<Scenario>, filters: &[String]) {
    if filters.is_empty() {
        return;
    }
    for scenario in scenarios.iter_mut() {
        let nodes = scenario.nodes;
        scenario.cases.retain(|case| {
            let name = format!("{nodes}/{}", case.name());
            filters.iter().any(|filter| name.contains(filter))
        });
    }
    scenarios.retain(|scenario| !scenario.cases.is_empty());
}

/// The same cases for every number of members.
fn all_cases(scale: &Scale, nodes: usize) -> Vec<Scenario> {
    let Scale {
        keys, many_keys, ..
    } = *scale;
    let scenario = |setup, cases| Scenario {
        nodes,
        setup,
        cases,
        rounds: scale.rounds,
    };
    let fresh = |keys| Setup {
        keys,
        fresh: true,
        ..Setup::default()
    };
    let filled = |keys| Setup {
        keys,
        ..Setup::default()
    };

    let mut writes = puts();
    writes.push(Case::Txn { clients: 64 });
    let mut reads = gets();
    reads.push(Case::Prefix { clients: 8 });
    let restarted = Setup {
        restart: true,
        ..filled(keys)
    };
    let written = Setup {
        burst: scale.burst,
        ..filled(keys)
    };
    let restart = vec![Case::Restart { keys: many_keys }];
    let large = [
        scenario(fresh(many_keys), vec![Case::Memory { keys: many_keys }]),
        scenario(filled(many_keys), restart),
    ];
    let mut all = vec![
        scenario(fresh(keys), writes),
        scenario(restarted, reads),
        scenario(written, gets_after_writes()),
        scenario(filled(KEYS_OF_EVENTS), events(scale)),
        scenario(fresh(keys), vec![Case::Memory { keys }]),
    ];
    all.extend(large.map(|large| Scenario {
        rounds: large.rounds.min(large_rounds(nodes)),
        ..large
    }));
    all
}

/// Filling a million keys takes most of a minute for each pair, three times that with three members,
/// and neither memory nor a start varies much.
fn large_rounds(nodes: usize) -> usize {
    if nodes == 1 { 3 } else { 1 }
}

fn gets_after_writes() -> Vec<Case> {
    let case = |consistency| Case::GetAfterWrites {
        clients: 64,
        consistency,
    };
    Consistency::BOTH.map(case).to_vec()
}

fn events(scale: &Scale) -> Vec<Case> {
    vec![
        Case::Watch {
            watchers: 1,
            writers: 1,
        },
        Case::Watch {
            watchers: scale.watchers,
            writers: 1,
        },
        Case::Watch {
            watchers: scale.watchers,
            writers: 8,
        },
        Case::Lease {
            leases: scale.leases,
        },
    ]
}

fn puts() -> Vec<Case> {
    CLIENTS.map(|clients| Case::Put { clients }).to_vec()
}

fn gets() -> Vec<Case> {
    let both = Consistency::BOTH.into_iter();
    both.flat_map(|consistency| {
        CLIENTS.map(|clients| Case::Get {
            clients,
            consistency,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(scenarios: &[Scenario]) -> Vec<String> {
        let each = |one: &Scenario| one.cases.iter().map(|case| one.name_of(*case)).collect();
        scenarios.iter().flat_map::<Vec<String>, _>(each).collect()
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        for scale in [Scale::FULL, Scale::QUICK] {
            let names = names(&scenarios(&scale, &[1, 3]));
            let unique: BTreeSet<&String> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{names:?}");
        }
    }

    #[test]
    fn clusters_of_every_size_have_the_same_cases() {
        let cases = |nodes| -> Vec<Case> {
            let scenarios = scenarios(&Scale::FULL, &[nodes]).into_iter();
            scenarios.flat_map(|scenario| scenario.cases).collect()
        };
        assert_eq!(cases(1), cases(3));
    }

    #[test]
    fn a_smoke_run_has_all_kinds_of_a_full_one_on_one_cluster_for_each_size() {
        let smoke = scenarios(&Scale::SMOKE, &[1, 3]);
        let full = scenarios(&Scale::FULL, &[1, 3]);
        assert_eq!(smoke.len(), 2);
        let kinds = |scenarios: &[Scenario]| -> BTreeSet<String> {
            let is_size = |c: char| c.is_ascii_digit();
            let kind = |name: String| name.split(is_size).collect::<String>();
            let kind = |name: String| kind(name).trim_end_matches(['k', 'm']).to_owned();
            names(scenarios).into_iter().map(kind).collect()
        };
        assert_eq!(kinds(&smoke), kinds(&full));
    }

    #[test]
    fn filters_keep_what_contains_any_of_them() {
        let mut kept = scenarios(&Scale::FULL, &[1, 3]);
        filter(&mut kept, &["3/put".to_owned(), "lease".to_owned()]);
        assert_eq!(
            names(&kept),
            [
                "1/lease-10000",
                "3/put-1",
                "3/put-64",
                "3/put-256",
                "3/lease-10000"
            ]
        );
        let all = scenarios(&Scale::FULL, &[1]);
        let mut unfiltered = all.clone();
        filter(&mut unfiltered, &[]);
        assert_eq!(unfiltered, all);
    }

    #[test]
    fn reads_come_after_a_restart_and_writes_on_fresh_data() {
        for scenario in scenarios(&Scale::FULL, &[1, 3]) {
            for case in &scenario.cases {
                let Setup {
                    restart,
                    fresh,
                    burst,
                    ..
                } = scenario.setup;
                let is_right = match case {
                    Case::Get { .. } | Case::Prefix { .. } => restart && !fresh,
                    Case::Put { .. } | Case::Txn { .. } | Case::Memory { .. } => fresh,
                    Case::GetAfterWrites { .. } => burst > 0 && !restart,
                    Case::Watch { .. } | Case::Lease { .. } | Case::Restart { .. } => !fresh,
                };
                assert!(
                    is_right,
                    "{}: {:?}",
                    scenario.name_of(*case),
                    scenario.setup
                );
            }
        }
    }
}

//! What is measured: one file for each kind of work.
//!
//! A case runs on a prepared cluster and yields one measurement; which clusters it gets, how often
//! and in which order is decided in [`crate::plan`] and [`crate::run`].

mod get;
mod lease;
mod memory;
mod prefix;
mod put;
mod restart;
mod seat;
mod watch;

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::load::{Threads, Window};
use crate::metric::{Measurement, Metric};

/// Puts in a transaction of [`Case::Txn`].
const TXN_PUTS: u64 = 16;

/// What all cases share.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The load generator's.
    pub(crate) threads: Threads,
    /// When to measure.
    pub(crate) window: Window,
    /// Connections when there are several clients; at least one for each member is opened.
    pub(crate) connections: usize,
    /// How long a server gets to give memory back.
    pub(crate) settle: Duration,
}

/// Reads that see every write acknowledged before them, or reads of whatever the member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Agreed on by a majority.
    Linearizable,
    /// The asked member's own.
    Serializable,
}

/// One kind of work, with its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// Clients that overwrite single keys.
    Put { clients: usize },
    /// Clients that overwrite sixteen keys in one transaction.
    Txn { clients: usize },
    /// Clients that read single keys.
    Get {
        clients: usize,
        consistency: Consistency,
    },
    /// The same, on a server that has just taken many writes and was not restarted since.
    GetAfterWrites {
        clients: usize,
        consistency: Consistency,
    },
    /// Clients that read the thousand keys of a prefix.
    Prefix { clients: usize },
    /// Watchers of one key, and writers that wait until all watchers have seen their write.
    Watch { watchers: usize, writers: usize },
    /// Renewals of this many leases.
    Lease { leases: usize },
    /// A stop and a start with this many keys, up to the first linearizable get.
    Restart { keys: u64 },
    /// Memory with this many keys.
    Memory { keys: u64 },
}

impl Case {
    /// The name in tables and filters.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Put { clients } => format!("put-{clients}"),
            Self::Txn { clients } => format!("txn{TXN_PUTS}-{clients}"),
            Self::Get {
                clients,
                consistency,
            } => format!("get-{}-{clients}", consistency.name()),
            Self::GetAfterWrites {
                clients,
                consistency,
            } => {
                format!("get-{}-{clients}-after-writes", consistency.name())
            }
            Self::Prefix { clients } => format!("prefix-1000-{clients}"),
            Self::Watch {
                watchers,
                writers: 1,
            } => format!("watch-{watchers}"),
            Self::Watch { watchers, .. } => format!("fanout-{watchers}"),
            Self::Lease { leases } => format!("lease-{leases}"),
            Self::Restart { keys } => format!("restart-{}", short(keys)),
            Self::Memory { keys } => format!("memory-{}", short(keys)),
        }
    }

    /// What it does, in one line.
    pub(crate) fn description(self) -> String {
        match self {
            Self::Put { clients } => format!("put of 256 bytes, {}", clients_of(clients)),
            Self::Txn { clients } => {
                format!("transactions of {TXN_PUTS} puts, {}", clients_of(clients))
            }
            Self::Get {
                clients,
                consistency,
            } => {
                format!("{} get, {}", consistency.word(), clients_of(clients))
            }
            Self::GetAfterWrites {
                clients,
                consistency,
            } => format!(
                "{} get, {}, after a burst of writes and no restart",
                consistency.word(),
                clients_of(clients)
            ),
            Self::Prefix { clients } => {
                format!(
                    "linearizable read of 1000 keys by prefix, {}",
                    clients_of(clients)
                )
            }
            Self::Watch { watchers, writers } => format!(
                "put to event, {watchers} watcher{}, {writers} writer{}",
                plural(watchers),
                plural(writers)
            ),
            Self::Lease { leases } => format!("renewals of {leases} leases on 16 streams"),
            Self::Restart { keys } => {
                format!(
                    "start with {} keys to the first linearizable get",
                    short(keys)
                )
            }
            Self::Memory { keys } => {
                format!(
                    "filling {} keys by transactions of 100; memory at rest",
                    short(keys)
                )
            }
        }
    }

    /// The metric by which the case is known: the first numbers of its row.
    pub(crate) fn primary(self) -> Metric {
        match self {
            Self::Watch { writers: 1, .. } | Self::Restart { .. } => Metric::P50Us,
            Self::Memory { .. } => Metric::RssMib,
            _ => Metric::OpsPerSecond,
        }
    }

    /// Measures it once on `cluster`.
    ///
    /// # Errors
    ///
    /// The cluster cannot be used any more. Operations that failed are in the measurement.
    pub(crate) async fn measure(self, bench: &Bench, cluster: &mut Cluster) -> Result<Measurement> {
        match self {
            Self::Put { clients } => put::measure(bench, cluster, clients, 1).await,
            Self::Txn { clients } => put::measure(bench, cluster, clients, TXN_PUTS).await,
            Self::Get {
                clients,
                consistency,
            }
            | Self::GetAfterWrites {
                clients,
                consistency,
            } => get::measure(bench, cluster, clients, consistency).await,
            Self::Prefix { clients } => prefix::measure(bench, cluster, clients).await,
            Self::Watch { watchers, writers } => {
                watch::measure(bench, cluster, watchers, writers).await
            }
            Self::Lease { leases } => lease::measure(bench, cluster, leases).await,
            Self::Restart { .. } => restart::measure(cluster).await,
            Self::Memory { .. } => memory::measure(bench, cluster).await,
        }
    }
}

impl Consistency {
    pub(crate) const BOTH: [Self; 2] = [Self::Linearizable, Self::Serializable];

    fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "lin",
            Self::Serializable => "ser",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Serializable => "serializable",
        }
    }
}

fn clients_of(count: usize) -> String {
    format!("{count} client{}", plural(count))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// 100000 as `100k`.
fn short(count: u64) -> String {
    match count {
        0 => "0".to_owned(),
        n if n % 1_000_000 == 0 => format!("{}m", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_size() {
        let consistency = Consistency::Linearizable;
        for (case, want) in [
            (Case::Put { clients: 64 }, "put-64"),
            (Case::Txn { clients: 64 }, "txn16-64"),
            (
                Case::Get {
                    clients: 1,
                    consistency,
                },
                "get-lin-1",
            ),
            (
                Case::GetAfterWrites {
                    clients: 1,
                    consistency,
                },
                "get-lin-1-after-writes",
            ),
            (
                Case::Watch {
                    watchers: 1000,
                    writers: 1,
                },
                "watch-1000",
            ),
            (
                Case::Watch {
                    watchers: 1000,
                    writers: 8,
                },
                "fanout-1000",
            ),
            (Case::Restart { keys: 1_000_000 }, "restart-1m"),
            (Case::Memory { keys: 100_000 }, "memory-100k"),
            (Case::Memory { keys: 1_234 }, "memory-1234"),
        ] {
            assert_eq!(case.name(), want);
        }
    }
}

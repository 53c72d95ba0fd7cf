//! Keys and leases.

use std::time::Duration;

use gonfalon_core::command::{Command, Op, Put, Txn};
use gonfalon_core::{Answer, OpResult, Reply, TxnAnswer};
use prometheus::{Histogram, HistogramVec, IntCounter, IntGauge};

use super::{Buckets, Make};

/// What was asked of the replicated state.
#[derive(Debug)]
pub struct Kv {
    /// Reads, those within transactions included.
    pub ranges: IntCounter,
    /// One read of a client, waiting for the read index included.
    pub range_seconds: SuccessHistogram,
    /// One `Maintenance.Hash`.
    pub hash_seconds: Histogram,
    /// One `Maintenance.HashKV`.
    pub hash_kv_seconds: Histogram,
    /// Renewals that this member, the leader, granted.
    pub lease_renewed: IntCounter,
    /// Leases that this member, the leader, found to be over.
    pub lease_expired: IntCounter,
    /// Events told to watchers of clients.
    pub events: IntCounter,
    compact_milliseconds: Histogram,
    puts: IntCounter,
    put_bytes: IntGauge,
    deletes: IntCounter,
    txns: IntCounter,
    lease_granted: IntCounter,
    lease_revoked: IntCounter,
    lease_ttl: Histogram,
    apply_seconds: [SuccessHistogram; OPS.len()],
}

/// A histogram with the label `success`.
#[derive(Debug)]
pub struct SuccessHistogram {
    succeeded: Histogram,
    failed: Histogram,
}

/// The label `op` of `etcd_server_apply_duration_seconds`; [`op`] says which is whose.
const OPS: [&str; 8] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "Alarm",
    "ClusterMemberAttrSet",
];

impl Kv {
    pub(super) fn new(make: &Make<'_>) -> Self {
        // From a tenth of a millisecond to 52 s.
        let seconds = || Buckets::exponential(0.0001, 2.0, 20);
        let hash = || Buckets::exponential(0.01, 2.0, 15);
        let apply = make.histograms(
            "etcd_server_apply_duration_seconds",
            "Seconds that applying one command took, by kind of command.",
            &["version", "op", "success"],
            seconds(),
        );
        let range = make.histograms(
            "etcd_server_range_duration_seconds",
            "Seconds that one read of a client took.",
            &["success"],
            seconds(),
        );
        Self {
            ranges: make.counter("etcd_mvcc_range_total", "Ranges read by this member."),
            range_seconds: SuccessHistogram::of(&range, &[]),
            hash_seconds: make.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Seconds that hashing everything took.",
                hash(),
            ),
            hash_kv_seconds: make.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Seconds that hashing the history up to a revision took.",
                hash(),
            ),
            lease_renewed: make.counter(
                "etcd_debugging_lease_renewed_total",
                "Renewals of leases that this leader granted.",
            ),
            lease_expired: make.counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases whose time was up while this member led.",
            ),
            events: make.counter(
                "etcd_debugging_mvcc_events_total",
                "Events told to watchers by this member.",
            ),
            compact_milliseconds: make.histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Milliseconds that a compaction held up everything else in memory.",
                Buckets::exponential(0.5, 2.0, 14),
            ),
            puts: make.counter("etcd_mvcc_put_total", "Puts applied by this member."),
            put_bytes: make.gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "Bytes of the keys and values put since the start.",
            ),
            deletes: make.counter(
                "etcd_mvcc_delete_total",
                "Deletions applied by this member.",
            ),
            txns: make.counter(
                "etcd_mvcc_txn_total",
                "Transactions of more than one operation applied by this member.",
            ),
            lease_granted: make.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            lease_revoked: make.counter(
                "etcd_debugging_lease_revoked_total",
                "Leases ended, by request or because their time was up.",
            ),
            lease_ttl: make.histogram(
                "etcd_debugging_lease_ttl_total",
                "Seconds that leases were granted for.",
                Buckets::exponential(1.0, 2.0, 24),
            ),
            apply_seconds: OPS.map(|op| SuccessHistogram::of(&apply, &["v3", op])),
        }
    }

    /// Counts one applied command and what it did.
    pub fn applied(&self, command: &Command, reply: &Reply, took: Duration) {
        if let Some(op) = op(command) {
            self.apply_seconds[op].observe(reply.result.is_ok(), took);
        }
        let Ok(answer) = &reply.result else { return };
        match (command, answer) {
            (Command::Put(put), _) => self.count_put(put),
            (Command::DeleteRange(_), _) => self.deletes.inc(),
            (Command::Txn(txn), Answer::Txn(answer)) => {
                let is_many = self.count_txn(txn, answer) > 1;
                self.txns.inc_by(u64::from(is_many));
            }
            (_, Answer::LeaseGrant { ttl, .. }) => {
                self.lease_granted.inc();
                #[expect(clippy::cast_precision_loss, reason = "buckets are far coarser")]
                self.lease_ttl.observe(*ttl as f64);
            }
            (Command::LeaseRevoke { .. }, _) => self.lease_revoked.inc(),
            (Command::Compact { .. }, _) => {
                let milliseconds = took.as_secs_f64() * 1000.0;
                self.compact_milliseconds.observe(milliseconds);
            }
            _ => {}
        }
    }

    /// Counts the operations of the branch that was taken; answers how many there were.
    fn count_txn(&self, txn: &Txn, answer: &TxnAnswer) -> usize {
        let branch = if answer.succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let mut count = 0;
        for (op, done) in branch.iter().zip(&answer.responses) {
            count += match (op, &done.result) {
                (Op::Txn(inner), OpResult::Txn(answer)) => self.count_txn(inner, answer),
                (Op::Range(_), _) => {
                    self.ranges.inc();
                    1
                }
                (Op::Put(put), _) => {
                    self.count_put(put);
                    1
                }
                (Op::DeleteRange(_), _) => {
                    self.deletes.inc();
                    1
                }
                (Op::Txn(_), _) => 0,
            };
        }
        count
    }

    fn count_put(&self, put: &Put) {
        self.puts.inc();
        self.put_bytes
            .add(i64::try_from(put.key.len() + put.value.len()).unwrap_or(i64::MAX));
    }
}

impl SuccessHistogram {
    pub(super) fn of(all: &HistogramVec, labels: &[&str]) -> Self {
        let with = |success| all.with_label_values(&[labels, &[success]].concat());
        Self {
            succeeded: with("true"),
            failed: with("false"),
        }
    }

    /// Counts one.
    pub fn observe(&self, is_success: bool, took: Duration) {
        let histogram = if is_success {
            &self.succeeded
        } else {
            &self.failed
        };
        histogram.observe(took.as_secs_f64());
    }
}

/// The index of the command's name in [`OPS`]; none for a kind that etcd has no name for.
fn op(command: &Command) -> Option<usize> {
    let name = match command {
        Command::Put(_) => "Put",
        Command::DeleteRange(_) => "DeleteRange",
        Command::Txn(_) => "Txn",
        Command::Compact { .. } => "Compaction",
        Command::LeaseGrant { .. } => "LeaseGrant",
        Command::LeaseRevoke { .. } => "LeaseRevoke",
        Command::Alarm(_) => "Alarm",
        Command::PublishMember { .. } => "ClusterMemberAttrSet",
        _ => return None,
    };
    OPS.iter().position(|op| *op == name)
}

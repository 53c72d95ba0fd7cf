//! What goes between members, by member.
//!
//! Only members that this one has been told of have metrics: labels made of what strangers send
//! would grow without bound.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Buckets, Inflight, Make};

/// The other members, as they are reached from here.
#[derive(Debug)]
pub struct Peers {
    known: Mutex<BTreeMap<u64, Arc<Peer>>>,
    all: All,
}

/// One other member.
#[derive(Debug)]
pub struct Peer {
    id: u64,
    /// Bytes of the bodies of requests and answers sent to it.
    pub sent_bytes: IntCounter,
    /// Bytes of the bodies of requests and answers received from it.
    pub received_bytes: IntCounter,
    /// One ping and its answer.
    pub round_trip_seconds: Histogram,
    /// Snapshots on their way to it.
    pub snapshots_sent: Transfers,
    /// Snapshots that it sends.
    pub snapshots_received: Transfers,
    sent_failures: IntCounter,
    received_failures: IntCounter,
    active: IntGauge,
    disconnected: IntCounter,
    is_active: AtomicBool,
}

/// Snapshots in one direction.
#[derive(Debug)]
pub struct Transfers {
    inflight: IntGauge,
    succeeded: IntCounter,
    failed: IntCounter,
    seconds: Histogram,
}

/// A snapshot on its way; it has failed if this is dropped before it has succeeded.
#[derive(Debug)]
pub struct Transfer<'a> {
    transfers: &'a Transfers,
    started: std::time::Instant,
    is_done: bool,
    _inflight: Inflight,
}

/// The metrics before they have labels.
#[derive(Debug)]
struct All {
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip_seconds: HistogramVec,
    known: IntGaugeVec,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    snapshots_sent: AllTransfers,
    snapshots_received: AllTransfers,
}

#[derive(Debug)]
struct AllTransfers {
    inflight: IntGaugeVec,
    succeeded: IntCounterVec,
    failed: IntCounterVec,
    seconds: HistogramVec,
}

impl Peers {
    pub(super) fn new(make: &Make<'_>) -> Self {
        Self {
            known: Mutex::default(),
            all: All::new(make),
        }
    }

    /// Member `remote` as it is reached from `local`; its metrics are at zero from here on.
    pub fn learn(&self, local: u64, remote: u64) -> Arc<Peer> {
        let mut known = self.lock();
        let peer = known
            .entry(remote)
            .or_insert_with(|| Arc::new(self.all.peer(local, remote)));
        peer.clone()
    }

    /// Member `remote`, if it was told of.
    pub fn find(&self, remote: u64) -> Option<Arc<Peer>> {
        self.lock().get(&remote).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Peer>>> {
        self.known
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

impl Peer {
    /// Notes that it has answered.
    pub fn answered(&self) {
        if !self.is_active.load(Ordering::Relaxed) && !self.is_active.swap(true, Ordering::Relaxed)
        {
            self.active.set(1);
            tracing::info!(member = %format_args!("{:x}", self.id), "a member answers");
        }
    }

    /// Notes that something could not be sent, or that its answer never came.
    pub fn send_failed(&self) {
        self.sent_failures.inc();
        if self.is_active.swap(false, Ordering::Relaxed) {
            self.active.set(0);
            self.disconnected.inc();
            tracing::warn!(member = %format_args!("{:x}", self.id), "a member does not answer");
        }
    }

    /// Notes that what it was sending has broken off.
    pub fn receive_failed(&self) {
        self.received_failures.inc();
    }
}

impl Transfers {
    /// Notes that a snapshot is on its way.
    pub fn begin(&self) -> Transfer<'_> {
        Transfer {
            transfers: self,
            started: std::time::Instant::now(),
            is_done: false,
            _inflight: Inflight::of(&self.inflight),
        }
    }
}

impl Transfer<'_> {
    /// Notes that it has arrived.
    pub fn succeeded(mut self) {
        self.is_done = true;
        let took = self.started.elapsed().as_secs_f64();
        self.transfers.seconds.observe(took);
        self.transfers.succeeded.inc();
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.transfers.failed.inc_by(u64::from(!self.is_done));
    }
}

impl All {
    fn new(make: &Make<'_>) -> Self {
        let to = |name, help| make.counters(name, help, &["To"]);
        let from = |name, help| make.counters(name, help, &["From"]);
        let pair = &["Local", "Remote"];
        Self {
            sent_bytes: to(
                "etcd_network_peer_sent_bytes_total",
                "Bytes sent to a member.",
            ),
            received_bytes: from(
                "etcd_network_peer_received_bytes_total",
                "Bytes received from a member.",
            ),
            sent_failures: to(
                "etcd_network_peer_sent_failures_total",
                "Calls of a member that did not reach it, or were never answered.",
            ),
            received_failures: from(
                "etcd_network_peer_received_failures_total",
                "Messages of a member that broke off.",
            ),
            round_trip_seconds: make.histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Seconds from a ping of a member to its answer.",
                &["To"],
                Buckets::exponential(0.0001, 2.0, 16),
            ),
            known: make.gauges(
                "etcd_network_known_peers",
                "1 for each other member of the cluster.",
                pair,
            ),
            active: make.gauges(
                "etcd_network_active_peers",
                "1 if the member answered when it was last called.",
                pair,
            ),
            disconnected: make.counters(
                "etcd_network_disconnected_peers_total",
                "How often a member that had answered did not answer any more.",
                pair,
            ),
            snapshots_sent: AllTransfers::new(make, "send", "To"),
            snapshots_received: AllTransfers::new(make, "receive", "From"),
        }
    }

    fn peer(&self, local: u64, id: u64) -> Peer {
        let (local, remote) = (format!("{local:x}"), format!("{id:x}"));
        let one = [remote.as_str()];
        let pair = [local.as_str(), remote.as_str()];
        self.known.with_label_values(&pair).set(1);
        Peer {
            id,
            sent_bytes: self.sent_bytes.with_label_values(&one),
            received_bytes: self.received_bytes.with_label_values(&one),
            round_trip_seconds: self.round_trip_seconds.with_label_values(&one),
            snapshots_sent: self.snapshots_sent.of(&one),
            snapshots_received: self.snapshots_received.of(&one),
            sent_failures: self.sent_failures.with_label_values(&one),
            received_failures: self.received_failures.with_label_values(&one),
            active: self.active.with_label_values(&pair),
            disconnected: self.disconnected.with_label_values(&pair),
            is_active: AtomicBool::new(false),
        }
    }
}

impl AllTransfers {
    fn new(make: &Make<'_>, way: &str, label: &str) -> Self {
        let name = |what| format!("etcd_network_snapshot_{way}_{what}");
        let labels = &[label];
        Self {
            inflight: make.gauges(
                &name("inflights_total"),
                "Snapshots on their way between members.",
                labels,
            ),
            succeeded: make.counters(
                &name("success"),
                "Snapshots between members that arrived.",
                labels,
            ),
            failed: make.counters(
                &name("failures"),
                "Snapshots between members that did not arrive.",
                labels,
            ),
            seconds: make.histograms(
                &name("total_duration_seconds"),
                "Seconds from the first to the last byte of a snapshot between members.",
                labels,
                Buckets::exponential(0.1, 2.0, 10),
            ),
        }
    }

    fn of(&self, labels: &[&str]) -> Transfers {
        Transfers {
            inflight: self.inflight.with_label_values(labels),
            succeeded: self.succeeded.with_label_values(labels),
            failed: self.failed.with_label_values(labels),
            seconds: self.seconds.with_label_values(labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn a_peer_is_active_from_an_answer_to_a_failure() {
        let metrics = Metrics::default();
        assert!(metrics.peers.find(2).is_none(), "nobody told of it");
        let peer = metrics.peers.learn(1, 2);
        let seen = || (peer.active.get(), peer.disconnected.get());
        assert_eq!(seen(), (0, 0));
        peer.send_failed();
        assert_eq!(seen(), (0, 0), "it never was there");
        peer.answered();
        peer.answered();
        assert_eq!(seen(), (1, 0));
        peer.send_failed();
        peer.send_failed();
        assert_eq!(seen(), (0, 1));
        assert_eq!(peer.sent_failures.get(), 3);
    }

    #[test]
    fn a_snapshot_has_failed_unless_it_has_arrived() {
        let metrics = Metrics::default();
        let peer = metrics.peers.learn(1, 2);
        let sent = &peer.snapshots_sent;
        let (first, second) = (sent.begin(), sent.begin());
        assert_eq!(sent.inflight.get(), 2);
        first.succeeded();
        drop(second);
        assert_eq!((sent.inflight.get(), sent.succeeded.get()), (0, 1));
        assert_eq!((sent.failed.get(), sent.seconds.get_sample_count()), (1, 1));
    }
}

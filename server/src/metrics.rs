//! What this member counts and measures, under the names that etcd's dashboards and alerts read.
//!
//! A [`Metrics`] belongs to one node and is handed to whoever has something to report: no globals,
//! so that several members can live in one process. Reporting is an atomic addition; names and
//! labels are resolved when the value is made, never per request.
//!
//! What is only a view of the node (sizes, revisions, watchers) is not kept here: `scrape.rs` asks
//! the node when somebody reads `/metrics`.
//!
//! Names that begin with `etcd_`, `grpc_server_` and `process_` mean what they mean in etcd, and have its
//! types, labels and buckets. Our own begin with `gonfalon_`. A metric of etcd's that describes
//! something we do not have (Go's heap, bbolt's free list) is absent rather than constant.

mod clients;
mod disk;
mod health;
mod kv;
mod network;
mod peers;
mod process;
mod raft;
mod rpc;
mod scrape;

use std::fmt;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

pub use clients::Clients;
pub use disk::{Disk, Sweeps, Wal};
pub use health::Health;
pub use kv::{Kv, SuccessHistogram};
pub use network::{Network, StreamFailures};
pub use peers::{Peer, Peers, Transfer, Transfers};
pub use raft::Raft;
pub use rpc::{Call, Rpc};
pub use scrape::View;

/// Everything that one node counts and measures.
pub struct Metrics {
    /// The log, the state and the files of both.
    pub disk: Disk,
    /// Consensus.
    pub raft: Raft,
    /// Bytes to and from clients.
    pub network: Network,
    /// What goes between members.
    pub peers: Peers,
    /// Keys, leases and watchers, and how long applying takes.
    pub kv: Kv,
    /// Answers of the health endpoints.
    pub health: Health,
    /// Requests by the version of the client.
    pub clients: Clients,
    /// gRPC calls by method and code.
    pub rpc: Rpc,
    registry: Registry,
}

/// How much is measured: `--metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "the two values of etcd's flag")]
pub enum Detail {
    /// Everything but durations by gRPC method.
    #[default]
    Basic,
    /// Also `grpc_server_handling_seconds`: one histogram a method.
    Extensive,
}

impl Metrics {
    /// All at zero.
    pub fn new(detail: Detail) -> Self {
        let registry = Registry::new();
        let make = Make {
            registry: &registry,
        };
        Self {
            disk: Disk::new(&make),
            raft: Raft::new(&make),
            network: Network::new(&make),
            peers: Peers::new(&make),
            kv: Kv::new(&make),
            health: Health::new(&make),
            clients: Clients::new(&make),
            rpc: Rpc::new(&make, detail),
            registry,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Detail::Basic)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Something under way, counted by a gauge until this is dropped.
#[derive(Debug)]
pub struct Inflight(IntGauge);

impl Inflight {
    /// Counts one more.
    pub fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics and registers them.
struct Make<'a> {
    registry: &'a Registry,
}

impl Make<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Buckets) -> Histogram {
        self.register(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets.0),
        ))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Buckets,
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.0);
        self.register(HistogramVec::new(opts, labels))
    }

    /// Names and labels are literals of this crate, and every test that makes a [`Metrics`] sees
    /// all of them.
    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("a metric's name, labels and buckets are valid");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("no two metrics have one name");
        metric
    }
}

/// The upper bounds of a histogram's buckets.
struct Buckets(Vec<f64>);

impl Buckets {
    /// `count` bounds, each `factor` times the one before.
    fn exponential(first: f64, factor: f64, count: usize) -> Self {
        let buckets = prometheus::exponential_buckets(first, factor, count);
        Self(buckets.expect("a histogram's first bound is positive and its factor above 1"))
    }
}

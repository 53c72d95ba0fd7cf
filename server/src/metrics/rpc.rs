//! gRPC calls by method and code.
//!
//! Every method of the API has its counters from the start, at zero, as in etcd: a rate over a code
//! that has not happened yet is 0 and not "no data". The methods are read from the descriptors that
//! the API is compiled from. A path that is none of them is counted under one label, whatever its
//! text: labels made of what strangers send would grow without bound.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use super::kv::SuccessHistogram;
use super::{Buckets, Detail, Make};

/// The label of a service or method that is not one of the API's.
const UNKNOWN: &str = "unknown";

/// The label `grpc_type` of a method without streams.
const UNARY: &str = "unary";

/// The calls that `etcd_server_request_duration_seconds` is about, and its label `type`: reads, and
/// what is replicated.
const REQUESTS: [(&str, &str); 7] = [
    ("/etcdserverpb.KV/Range", "Range"),
    ("/etcdserverpb.KV/Put", "Put"),
    ("/etcdserverpb.KV/DeleteRange", "DeleteRange"),
    ("/etcdserverpb.KV/Txn", "Txn"),
    ("/etcdserverpb.KV/Compact", "Compaction"),
    ("/etcdserverpb.Lease/LeaseGrant", "LeaseGrant"),
    ("/etcdserverpb.Lease/LeaseRevoke", "LeaseRevoke"),
];

/// gRPC's status codes, in the order of their numbers, as go-grpc-prometheus writes them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// gRPC calls by method and code.
pub struct Rpc {
    methods: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
}

/// A call that has begun and is counted as handled when this is dropped.
#[derive(Debug)]
pub struct Call {
    method: Arc<Method>,
    code: Code,
    started: Option<Instant>,
}

struct Method {
    is_stream: bool,
    started: IntCounter,
    handled: [IntCounter; CODES.len()],
    handling_seconds: Option<Histogram>,
    /// For those of [`REQUESTS`].
    request_seconds: Option<SuccessHistogram>,
}

impl Rpc {
    pub(super) fn new(make: &Make<'_>, detail: Detail) -> Self {
        let labels = &["grpc_service", "grpc_method", "grpc_type"];
        let started = make.counters(
            "grpc_server_started_total",
            "gRPC calls that began.",
            labels,
        );
        let handled = make.counters(
            "grpc_server_handled_total",
            "gRPC calls that ended, whatever their code.",
            &["grpc_service", "grpc_method", "grpc_type", "grpc_code"],
        );
        let seconds = (detail == Detail::Extensive).then(|| {
            // From a fifth of a millisecond to 26 s.
            let buckets = Buckets::exponential(0.0002, 2.0, 18);
            make.histograms(
                "grpc_server_handling_seconds",
                "Seconds from the beginning of a gRPC call to its end.",
                labels,
                buckets,
            )
        });
        let requests = make.histograms(
            "etcd_server_request_duration_seconds",
            "Seconds from the beginning of a request to its end, by kind of request.",
            &["type", "success"],
            // From a tenth of a millisecond to 52 s, as applying and reading are measured.
            Buckets::exponential(0.0001, 2.0, 20),
        );
        let method = |service: &str, method: &str, kind: &str| {
            let labels = [service, method, kind];
            let request = REQUESTS
                .iter()
                .find(|(path, _)| *path == format!("/{service}/{method}"));
            let request = request.map(|(_, kind)| SuccessHistogram::of(&requests, &[kind]));
            let seconds = seconds.as_ref();
            Arc::new(Method::new(&started, &handled, seconds, request, labels))
        };
        let methods = methods_of_the_api()
            .map(|(service, name, kind)| {
                (format!("/{service}/{name}"), method(&service, &name, kind))
            })
            .collect();
        Self {
            methods,
            unknown: method(UNKNOWN, UNKNOWN, UNARY),
        }
    }

    /// Counts a call to `path` (`/package.Service/Method`) as begun.
    ///
    /// Until [`Call::ended`] says otherwise its code is `Canceled`: a call that is dropped before
    /// its end was given up by the client, or by a connection that broke.
    pub fn begin(&self, path: &str) -> Call {
        let method = self.methods.get(path).unwrap_or(&self.unknown);
        method.started.inc();
        let is_timed = method.handling_seconds.is_some() || method.request_seconds.is_some();
        let started = is_timed.then(Instant::now);
        Call {
            method: Arc::clone(method),
            code: Code::Cancelled,
            started,
        }
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc")
            .field("methods", &self.methods.len())
            .finish_non_exhaustive()
    }
}

impl Call {
    /// Whether either side sends a stream.
    pub fn is_stream(&self) -> bool {
        self.method.is_stream
    }

    /// The code that the call ended with.
    pub fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.handled[self.code as usize].inc();
        let Some(took) = self.started.map(|started| started.elapsed()) else {
            return;
        };
        if let Some(histogram) = &self.method.handling_seconds {
            histogram.observe(took.as_secs_f64());
        }
        if let Some(histogram) = &self.method.request_seconds {
            histogram.observe(self.code == Code::Ok, took);
        }
    }
}

impl Method {
    fn new(
        started: &IntCounterVec,
        handled: &IntCounterVec,
        seconds: Option<&HistogramVec>,
        request_seconds: Option<SuccessHistogram>,
        [service, method, kind]: [&str; 3],
    ) -> Self {
        Self {
            is_stream: kind != UNARY,
            started: started.with_label_values(&[service, method, kind]),
            handled: CODES.map(|code| handled.with_label_values(&[service, method, kind, code])),
            handling_seconds: seconds.map(|all| all.with_label_values(&[service, method, kind])),
            request_seconds,
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("started", &self.started.get())
            .finish_non_exhaustive()
    }
}

/// Service, method and `grpc_type` of everything that clients may call.
fn methods_of_the_api() -> impl Iterator<Item = (String, String, &'static str)> {
    let descriptors = FileDescriptorSet::decode(gonfalon_proto::DESCRIPTORS)
        .expect("the descriptors are what the compiler of the API wrote");
    let api = descriptors
        .file
        .into_iter()
        .filter(|file| file.package() != "gonfalon.peer.v1");
    let of_the_api = api.flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let name = format!("{package}.{}", service.name());
            service.method.into_iter().map(move |method| {
                let kind = kind(method.client_streaming(), method.server_streaming());
                (name.clone(), method.name().to_owned(), kind)
            })
        })
    });
    // Compiled into tonic-health, not into our descriptors.
    let health = [("Check", kind(false, false)), ("Watch", kind(false, true))];
    of_the_api.chain(
        health.map(|(method, kind)| ("grpc.health.v1.Health".to_owned(), method.to_owned(), kind)),
    )
}

/// The label `grpc_type`.
fn kind(client_streams: bool, server_streams: bool) -> &'static str {
    match (client_streams, server_streams) {
        (false, false) => UNARY,
        (false, true) => "server_stream",
        (true, false) => "client_stream",
        (true, true) => "bidi_stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn started(metrics: &Metrics, path: &str) -> u64 {
        metrics
            .rpc
            .methods
            .get(path)
            .unwrap_or(&metrics.rpc.unknown)
            .started
            .get()
    }

    #[test]
    fn a_request_is_timed_by_its_kind_and_success_and_a_stream_is_not() {
        let metrics = Metrics::default();
        for (path, code) in [
            ("/etcdserverpb.KV/Put", Code::Ok),
            ("/etcdserverpb.KV/Put", Code::Ok),
            ("/etcdserverpb.KV/Put", Code::NotFound),
            ("/etcdserverpb.KV/Compact", Code::Ok),
            ("/etcdserverpb.Watch/Watch", Code::Ok),
        ] {
            metrics.rpc.begin(path).ended(code);
        }
        let text = metrics.encode(&crate::metrics::View::default());
        let counts: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("etcd_server_request_duration_seconds_count"))
            .filter(|line| !line.ends_with(" 0"))
            .collect();
        let count = |labels: &str, count: u32| {
            format!("etcd_server_request_duration_seconds_count{{{labels}}} {count}")
        };
        assert_eq!(
            counts,
            [
                count("success=\"false\",type=\"Put\"", 1),
                count("success=\"true\",type=\"Compaction\"", 1),
                count("success=\"true\",type=\"Put\"", 2),
            ]
        );
    }

    #[test]
    fn every_request_that_is_timed_is_a_method_of_the_api() {
        let metrics = Metrics::default();
        for (path, _) in REQUESTS {
            let method = metrics.rpc.methods.get(path);
            let is_timed = method.is_some_and(|method| method.request_seconds.is_some());
            assert!(is_timed, "{path}");
        }
    }

    #[test]
    fn a_call_is_counted_when_it_begins_and_by_its_code_when_it_ends() {
        let metrics = Metrics::default();
        let path = "/etcdserverpb.KV/Put";
        let mut call = metrics.rpc.begin(path);
        let method = Arc::clone(&metrics.rpc.methods[path]);
        assert_eq!(method.started.get(), 1);
        assert!(
            method.handled.iter().all(|count| count.get() == 0),
            "it has not ended"
        );
        call.ended(Code::ResourceExhausted);
        drop(call);
        assert_eq!(method.handled[Code::ResourceExhausted as usize].get(), 1);
        assert_eq!(method.handled.iter().map(IntCounter::get).sum::<u64>(), 1);
    }

    #[test]
    fn a_call_that_is_dropped_counts_as_canceled() {
        let metrics = Metrics::default();
        drop(metrics.rpc.begin("/etcdserverpb.Watch/Watch"));
        let method = &metrics.rpc.methods["/etcdserverpb.Watch/Watch"];
        assert_eq!(method.handled[Code::Cancelled as usize].get(), 1);
    }

    #[test]
    fn paths_that_are_not_the_apis_share_one_counter() {
        let metrics = Metrics::default();
        for path in [
            "/",
            "/etcdserverpb.KV/Nope",
            "/a.b/c",
            "/gonfalon.peer.v1.Peer/Append",
        ] {
            drop(metrics.rpc.begin(path));
        }
        assert_eq!(metrics.rpc.unknown.started.get(), 4);
        assert_eq!(started(&metrics, "/etcdserverpb.KV/Put"), 0);
    }

    #[test]
    fn every_service_of_the_api_is_known() {
        let known: Vec<_> = methods_of_the_api().collect();
        for (service, method, kind) in [
            ("etcdserverpb.KV", "Range", "unary"),
            ("etcdserverpb.KV", "RangeStream", "server_stream"),
            ("etcdserverpb.Watch", "Watch", "bidi_stream"),
            ("etcdserverpb.Lease", "LeaseKeepAlive", "bidi_stream"),
            ("etcdserverpb.Cluster", "MemberList", "unary"),
            ("etcdserverpb.Maintenance", "Snapshot", "server_stream"),
            ("etcdserverpb.Auth", "Authenticate", "unary"),
            ("v3lockpb.Lock", "Lock", "unary"),
            ("v3electionpb.Election", "Observe", "server_stream"),
            ("grpc.health.v1.Health", "Check", "unary"),
        ] {
            let row = (service.to_owned(), method.to_owned(), kind);
            assert!(known.contains(&row), "{service}/{method} is {kind}");
        }
    }

    #[test]
    fn durations_are_measured_only_when_asked_for() {
        let path = "/etcdserverpb.KV/Range";
        assert!(
            Metrics::default().rpc.methods[path]
                .handling_seconds
                .is_none()
        );
        let metrics = Metrics::new(Detail::Extensive);
        drop(metrics.rpc.begin(path));
        let seconds = metrics.rpc.methods[path].handling_seconds.as_ref();
        assert_eq!(seconds.map(Histogram::get_sample_count), Some(1));
    }
}

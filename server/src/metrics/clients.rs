//! Requests by the version of the client that sends them.

use std::collections::BTreeMap;
use std::sync::RwLock;

use prometheus::{IntCounter, IntCounterVec};

use super::Make;

/// What a client that does not say its version is counted under.
const UNKNOWN: &str = "unknown";

/// Versions that are counted apart; a client that comes with one more is counted as unknown, since
/// labels made of what strangers send would grow without bound.
const VERSIONS_MAX: usize = 64;

/// The longest text that is taken for a version.
const VERSION_BYTES_MAX: usize = 32;

/// Requests by the version of the client.
#[derive(Debug)]
pub struct Clients {
    requests: IntCounterVec,
    unknown: Kinds,
    versions: RwLock<BTreeMap<String, Kinds>>,
}

#[derive(Debug)]
struct Kinds {
    unary: IntCounter,
    stream: IntCounter,
}

impl Clients {
    pub(super) fn new(make: &Make<'_>) -> Self {
        let requests = make.counters(
            "etcd_server_client_requests_total",
            "Requests by the version of the API that the client says it speaks.",
            &["type", "client_api_version"],
        );
        Self {
            unknown: Kinds::of(&requests, UNKNOWN),
            versions: RwLock::default(),
            requests,
        }
    }

    /// Counts one request of a client that says it has `version`.
    pub fn asked(&self, version: Option<&str>, is_stream: bool) {
        let version = version.filter(|text| text.len() <= VERSION_BYTES_MAX);
        let Some(version) = version else {
            return self.unknown.count(is_stream);
        };
        let known = self.versions.read().expect(UNPOISONED);
        if let Some(kinds) = known.get(version) {
            return kinds.count(is_stream);
        }
        drop(known);
        let mut known = self.versions.write().expect(UNPOISONED);
        if known.len() >= VERSIONS_MAX {
            return self.unknown.count(is_stream);
        }
        let kinds = known
            .entry(version.to_owned())
            .or_insert_with(|| Kinds::of(&self.requests, version));
        kinds.count(is_stream);
    }
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Kinds {
    fn of(requests: &IntCounterVec, version: &str) -> Self {
        Self {
            unary: requests.with_label_values(&["unary", version]),
            stream: requests.with_label_values(&["stream", version]),
        }
    }

    fn count(&self, is_stream: bool) {
        if is_stream {
            self.stream.inc();
        } else {
            self.unary.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn versions_are_counted_apart_and_not_without_bound() {
        let metrics = Metrics::default();
        let clients = &metrics.clients;
        for number in 0..2 * VERSIONS_MAX {
            clients.asked(Some(&format!("3.{number}")), false);
        }
        clients.asked(Some("3.0"), false);
        clients.asked(Some("3.0"), true);
        clients.asked(None, false);
        clients.asked(Some(&"9".repeat(VERSION_BYTES_MAX + 1)), true);
        let count = |kind, version| {
            let requests = &clients.requests;
            requests.with_label_values(&[kind, version]).get()
        };
        assert_eq!((count("unary", "3.0"), count("stream", "3.0")), (2, 1));
        let surplus = VERSIONS_MAX as u64;
        assert_eq!(count("unary", UNKNOWN), surplus + 1);
        assert_eq!(count("stream", UNKNOWN), 1);
    }
}

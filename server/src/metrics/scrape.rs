//! The text that `/metrics` answers with: what was counted, and a view of the node at this moment.

use prometheus::{Counter, Gauge, Registry, TextEncoder};

use super::process::Process;
use super::{Make, Metrics};
use crate::version;

/// What a scrape asks of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// This member.
    pub member_id: u64,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Raft's term.
    pub term: u64,
    /// Index of the last committed log entry.
    pub committed_index: u64,
    /// Index of the last applied log entry.
    pub applied_index: u64,
    /// Revision of the store.
    pub revision: i64,
    /// Revision of the last compaction; −1 if there was none.
    pub compacted: i64,
    /// Keys that exist.
    pub keys: usize,
    /// Leases that exist.
    pub leases: usize,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Bytes on disk in use.
    pub size_in_use_bytes: u64,
    /// Bytes of recent history in memory.
    pub recent_bytes: usize,
    /// `--quota-backend-bytes` as resolved.
    pub quota_bytes: u64,
    /// Alarms that are raised: the member, and `NOSPACE` or `CORRUPT`.
    pub alarms: Vec<(u64, &'static str)>,
    /// Open watch streams.
    pub watch_streams: usize,
    /// Watchers of all streams.
    pub watchers: usize,
    /// Watchers that are behind and read history.
    pub watchers_unsynced: usize,
    /// Events that wait to be sent to watchers.
    pub events_pending: usize,
}

impl Metrics {
    /// Everything, in Prometheus' text format 0.0.4.
    pub fn encode(&self, view: &View) -> String {
        // Gauges of the moment live as long as one scrape: a label that is gone (a cleared alarm)
        // is gone from the next one without anybody removing it.
        let now = Registry::new();
        let make = Make { registry: &now };
        view.add(&make);
        add_versions(&make, view);
        if let Some(process) = Process::read() {
            process.add(&make);
        }
        let mut families = self.registry.gather();
        families.extend(now.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("gathered metrics have valid names and a string takes what is written to it")
    }
}

impl View {
    fn add(&self, make: &Make<'_>) {
        let gauge = |name: &str, help: &str, value: i64| make.gauge(name, help).set(value);
        gauge(
            "etcd_server_has_leader",
            "1 if a leader is known.",
            self.leader.is_some().into(),
        );
        let is_leader = self.leader == Some(self.member_id);
        gauge(
            "etcd_server_is_leader",
            "1 if this member leads.",
            is_leader.into(),
        );
        gauge(
            "etcd_server_is_learner",
            "1 if this member has no vote.",
            self.is_learner.into(),
        );
        gauge("gonfalon_raft_term", "Raft's term.", signed(self.term));
        gauge(
            "etcd_server_proposals_committed_total",
            "Index of the last log entry known to be committed.",
            signed(self.committed_index),
        );
        gauge(
            "etcd_server_proposals_applied_total",
            "Index of the last log entry applied.",
            signed(self.applied_index),
        );
        self.add_store(make);
        gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Open watch streams.",
            signed(self.watch_streams),
        );
        gauge(
            "etcd_debugging_mvcc_watcher_total",
            "Watchers.",
            signed(self.watchers),
        );
        gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that are behind and read history.",
            signed(self.watchers_unsynced),
        );
        gauge(
            "etcd_debugging_mvcc_pending_events_total",
            "Events that wait to be sent to watchers.",
            signed(self.events_pending),
        );
        let alarms = make.gauges(
            "etcd_debugging_server_alarms",
            "1 for each alarm that is raised.",
            &["server_id", "alarm_type"],
        );
        for (member, kind) in &self.alarms {
            alarms
                .with_label_values(&[format!("{member:x}").as_str(), *kind])
                .set(1);
        }
    }

    fn add_store(&self, make: &Make<'_>) {
        let gauge = |name: &str, help: &str, value: i64| make.gauge(name, help).set(value);
        gauge(
            "etcd_debugging_mvcc_current_revision",
            "Revision of the store.",
            self.revision,
        );
        gauge(
            "etcd_debugging_mvcc_compact_revision",
            "Revision of the last compaction; -1 if there was none.",
            self.compacted,
        );
        gauge(
            "etcd_debugging_mvcc_keys_total",
            "Keys that exist.",
            signed(self.keys),
        );
        gauge("gonfalon_leases", "Leases that exist.", signed(self.leases));
        gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes of the database on disk.",
            signed(self.size_bytes),
        );
        gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of the database on disk that a defragmentation would leave.",
            signed(self.size_in_use_bytes),
        );
        gauge(
            "etcd_server_quota_backend_bytes",
            "Bytes that the database may take.",
            signed(self.quota_bytes),
        );
        gauge(
            "gonfalon_recent_history_bytes",
            "Bytes of recent history kept in memory for watchers and reads of the past.",
            signed(self.recent_bytes),
        );
    }
}

impl Process {
    fn add(&self, make: &Make<'_>) {
        let gauge = |name: &str, help: &str, value: i64| make.gauge(name, help).set(value);
        make.register(Counter::new(
            "process_cpu_seconds_total",
            "Processor time used, user and system.",
        ))
        .inc_by(self.cpu_seconds);
        make.register(Gauge::new(
            "process_start_time_seconds",
            "When the process started, in Unix seconds.",
        ))
        .set(self.start_time_seconds);
        gauge(
            "process_resident_memory_bytes",
            "Bytes in memory.",
            self.resident_bytes,
        );
        gauge(
            "process_virtual_memory_bytes",
            "Bytes of address space.",
            self.virtual_bytes,
        );
        gauge("process_threads", "Threads.", self.threads);
        gauge("process_open_fds", "Open file descriptors.", self.fds);
        gauge(
            "process_max_fds",
            "File descriptors that may be open.",
            self.fds_max,
        );
        gauge("os_fd_used", "Open file descriptors.", self.fds);
        gauge(
            "os_fd_limit",
            "File descriptors that may be open.",
            self.fds_max,
        );
    }
}

/// Each is 1, and its label says what.
fn add_versions(make: &Make<'_>, view: &View) {
    let id = format!("{:x}", view.member_id);
    for (name, help, label, value) in [
        (
            "etcd_server_version",
            "The etcd release whose API this is.",
            "server_version",
            version::ETCD,
        ),
        (
            "etcd_cluster_version",
            "The version that the cluster's members have in common.",
            "cluster_version",
            version::CLUSTER_SHORT,
        ),
        ("etcd_server_id", "This member.", "server_id", id.as_str()),
        (
            "gonfalon_build_info",
            "This build.",
            "version",
            version::GONFALON,
        ),
    ] {
        make.gauges(name, help, &[label])
            .with_label_values(&[value])
            .set(1);
    }
}

/// Counts and sizes are far below `i64::MAX`; one that is not is shown as that.
fn signed<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::metrics::Detail;

    /// Every name in etcd's own dashboards and alerts, and the others that we serve under its
    /// names, with their types.
    const NAMES: &str = include_str!("names.txt");

    /// With one of each label, since a metric without any is not written.
    fn text(view: &View) -> String {
        let metrics = Metrics::new(Detail::Extensive);
        metrics.health.checked("livez", "serializable_read", true);
        metrics.peers.learn(1, 2);
        metrics.clients.asked(None, false);
        metrics.encode(view)
    }

    /// Name and type of each metric of `text`, checking the grammar on the way.
    fn families(text: &str) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut helped = String::new();
        let mut samples = HashSet::new();
        assert!(text.ends_with('\n'), "the last line ends");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("HELP has a text");
                assert!(!help.is_empty(), "{name} says what it is");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("TYPE has a type");
                assert_eq!(name, helped, "HELP stands before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(
                    found.iter().all(|(other, _)| other != name),
                    "{name} appears twice"
                );
                found.push((name.to_owned(), kind.to_owned()));
            } else {
                let (family, kind) = found.last().expect("a sample stands below its TYPE");
                check_sample(line, family, kind);
                let (series, _) = line.rsplit_once(' ').expect("checked");
                assert!(samples.insert(series.to_owned()), "{series} appears twice");
            }
        }
        found
    }

    fn check_sample(line: &str, family: &str, kind: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        value
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("not a number: {line}"));
        let name = series
            .split('{')
            .next()
            .expect("split gives one part at least");
        let suffix = name
            .strip_prefix(family)
            .expect("a sample has its family's name");
        let suffixes: &[&str] = match kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line} in {kind} {family}");
        let is_name = |text: &str| {
            let mut chars = text.chars();
            chars
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        };
        assert!(is_name(name), "{name}");
    }

    fn assert_has(text: &str, line: &str) {
        let name = line
            .split(['{', ' '])
            .next()
            .expect("split gives one part at least");
        let near: Vec<_> = text.lines().filter(|got| got.starts_with(name)).collect();
        assert!(
            near.contains(&line),
            "{line}\nis none of\n{}",
            near.join("\n")
        );
    }

    #[test]
    fn the_text_follows_prometheus_grammar_and_no_name_appears_twice() {
        let found = families(&text(&View::default()));
        assert!(found.len() > 50, "{}", found.len());
        for (name, kind) in found {
            if kind == "counter" && name.starts_with("gonfalon_") {
                assert!(
                    name.ends_with("_total"),
                    "a counter of ours is called _total: {name}"
                );
            }
        }
    }

    #[test]
    fn what_etcds_dashboards_read_is_there_with_its_type() {
        let alarmed = View {
            alarms: vec![(1, "CORRUPT")],
            ..View::default()
        };
        let found = families(&text(&alarmed));
        let listed = |line: &&str| !line.is_empty() && !line.starts_with('#');
        for line in NAMES.lines().filter(listed) {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            let row = (name.to_owned(), kind.to_owned());
            assert!(found.contains(&row), "{line} is served");
        }
        for (name, kind) in &found {
            let is_listed = NAMES.lines().any(|line| line == format!("{name} {kind}"));
            assert!(
                is_listed || name.starts_with("gonfalon_"),
                "{name} {kind} is not in names.txt"
            );
        }
    }

    #[test]
    fn labels_are_spelled_as_in_etcd() {
        let view = View {
            member_id: 0xabc,
            alarms: vec![(0x1f, "NOSPACE")],
            ..View::default()
        };
        let text = text(&view);
        for line in [
            "etcd_server_id{server_id=\"abc\"} 1",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1",
            "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"1f\"} 1",
            "etcd_server_healthcheck{name=\"serializable_read\",type=\"livez\"} 1",
            "etcd_server_healthchecks_total{name=\"serializable_read\",status=\"success\",type=\"livez\"} 1",
            "grpc_server_handled_total{grpc_code=\"DeadlineExceeded\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
            "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",\
             grpc_type=\"bidi_stream\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 0",
        ] {
            assert_has(&text, line);
        }
    }

    #[test]
    fn the_view_of_the_node_is_shown() {
        let view = View {
            member_id: 7,
            leader: Some(7),
            committed_index: 12,
            revision: 5,
            compacted: -1,
            keys: 3,
            quota_bytes: 2 << 30,
            ..View::default()
        };
        let text = text(&view);
        for line in [
            "etcd_server_has_leader 1",
            "etcd_server_is_leader 1",
            "etcd_server_proposals_committed_total 12",
            "etcd_debugging_mvcc_current_revision 5",
            "etcd_debugging_mvcc_compact_revision -1",
            "etcd_debugging_mvcc_keys_total 3",
            "etcd_server_quota_backend_bytes 2147483648",
        ] {
            assert_has(&text, line);
        }
    }

    #[test]
    fn a_histogram_puts_a_duration_into_its_bucket() {
        let metrics = Metrics::default();
        metrics
            .disk
            .wal
            .fsync_seconds
            .observe(Duration::from_micros(1500).as_secs_f64());
        let text = metrics.encode(&View::default());
        for line in [
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_count 1",
        ] {
            assert_has(&text, line);
        }
    }
}

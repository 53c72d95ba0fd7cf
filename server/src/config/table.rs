//! The options that do something here, each declared once.

use std::time::Duration;

use super::foreign;
use crate::limits::REQUEST_BYTES_MAX;

/// One option: everything that is known about it.
#[derive(Debug)]
pub struct Opt {
    /// The flag without dashes, which is the key of the config file too; upper-case, with
    /// underscores and after `GONFALON_` or `ETCD_`, it is the environment variable.
    pub flag: &'static str,
    /// Other spellings of the flag and the key.
    pub also: &'static [&'static str],
    /// What a value looks like, and its limits.
    pub kind: Kind,
    /// The value when none is given; empty: none, or worked out from others (the help says how).
    pub default: &'static str,
    /// The heading it is listed under.
    pub group: Group,
    /// Whether it does something here.
    pub standing: Standing,
    /// One or two sentences for people.
    pub help: &'static str,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Go's spelling of true and false; the flag alone means true.
    Bool,
    /// A whole number.
    Number {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// A number of bytes, plain or with `KiB`, `MiB`, `GiB`, `TiB`.
    Bytes {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// Milliseconds as a plain number, or a duration.
    Millis {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// A duration with its unit; a plain number in a config file is nanoseconds, as with etcd.
    Duration {
        /// Shortest.
        min: Duration,
    },
    /// A path.
    Path,
    /// URLs with commas.
    Urls,
    /// `name=url` with commas.
    Cluster,
    /// Words with commas.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Whether an option does something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does what the help says.
    Used,
    /// It is accepted so that etcd's command lines work; the text says why it changes nothing, and
    /// is logged when the option is set.
    Accepted(&'static str),
    /// Any value but the default would be a promise that is not kept; the text says which.
    Refused(&'static str),
}

/// The headings of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// This member: its name, its data, where it listens.
    Member,
    /// How members find each other.
    Cluster,
    /// Elections and the log.
    Raft,
    /// Sizes and rates.
    Limits,
    /// History.
    Compaction,
    /// The log and the metrics.
    Observing,
    /// etcd's options that change nothing, or that are refused.
    Foreign,
}

impl Group {
    /// In the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::Member,
        Self::Cluster,
        Self::Raft,
        Self::Limits,
        Self::Compaction,
        Self::Observing,
        Self::Foreign,
    ];

    /// The heading and what stands under it.
    pub fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::Member => (
                "Member",
                "This member's name, its data, and where it listens.",
            ),
            Self::Cluster => (
                "Cluster",
                "How members find each other. Those that begin with `initial-` found the \
                  cluster on the first start of a data directory. Later starts need none of them; \
                  an `initial-cluster` that is given must still name this member as it was founded.",
            ),
            Self::Raft => ("Raft", "Elections and the log. Give all members the same."),
            Self::Limits => ("Limits", "How much a client may ask for, and connections."),
            Self::Compaction => ("Compaction", "How long history is kept."),
            Self::Observing => ("Observing", "The log and the metrics."),
            Self::Foreign => (
                "For etcd's command lines",
                "Options of etcd that change nothing here, or that are \
                  refused because ignoring them would break a promise.",
            ),
        }
    }
}

macro_rules! options {
    ($($name:ident = $flag:literal $([$($also:literal),+])?, $kind:expr, $default:literal,
       $group:ident, $help:literal;)*) => {
        $(
            pub(super) static $name: Opt = Opt {
                flag: $flag,
                also: &[$($($also),+)?],
                kind: $kind,
                default: $default,
                group: Group::$group,
                standing: Standing::Used,
                help: $help,
            };
        )*
        /// The options that do something here, in the order of the help.
        static USED: &[&Opt] = &[$(&$name),*];
    };
}

const MS: Duration = Duration::from_millis(1);
const KIB: i64 = 1 << 10;
#[expect(clippy::cast_possible_wrap, reason = "some MiB")]
const REQUEST_MAX: i64 = REQUEST_BYTES_MAX as i64;
/// etcd's bound on `--election-timeout`: beyond it a dead leader goes unnoticed for most of a minute.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

options! {
    NAME = "name", Kind::Text, "default", Member,
        "The member's name, unique in its cluster.";
    DATA_DIR = "data-dir", Kind::Path, "", Member,
        "The directory that holds everything this member keeps. Default: NAME.gonfalon, or NAME.etcd if \
         the program is called etcd.";
    LISTEN_CLIENT_URLS = "listen-client-urls", Kind::Urls, "http://localhost:2379", Member,
        "Where clients are served, over gRPC and HTTP. Set --advertise-client-urls too.";
    LISTEN_CLIENT_HTTP_URLS = "listen-client-http-urls", Kind::Urls, "", Member,
        "Serves clients' HTTP here, and only gRPC at --listen-client-urls.";
    LISTEN_PEER_URLS = "listen-peer-urls", Kind::Urls, "http://localhost:2380", Member,
        "Where the other members reach this one.";
    CORS = "cors", Kind::List, "*", Member,
        "Origins whose scripts may read the pages that clients are served; * is any origin.";
    SOCKET_REUSE_PORT = "socket-reuse-port", Kind::Bool, "false", Member,
        "Lets another process listen at the same port (SO_REUSEPORT).";
    CONFIG_FILE = "config-file", Kind::Path, "", Member,
        "Reads all options from this YAML or JSON file, and none from flags or the environment.";

    ADVERTISE_CLIENT_URLS = "advertise-client-urls", Kind::Urls, "http://localhost:2379", Cluster,
        "The client URLs that the member list shows. Required with --listen-client-urls.";
    INITIAL_ADVERTISE_PEER_URLS = "initial-advertise-peer-urls", Kind::Urls, "", Cluster,
        "Where the other members reach this one. Default: --listen-peer-urls.";
    INITIAL_CLUSTER = "initial-cluster", Kind::Cluster, "", Cluster,
        "All members: name=URL for each peer URL of each, with commas. Default: only this one.";
    INITIAL_CLUSTER_STATE = "initial-cluster-state", Kind::Choice(&["new", "existing"]), "new", Cluster,
        "new: the members start together. existing: this one was a member before, and has its data.";
    INITIAL_CLUSTER_TOKEN = "initial-cluster-token", Kind::Text, "etcd-cluster", Cluster,
        "Keeps clusters apart that were started with the same URLs.";

    HEARTBEAT_INTERVAL = "heartbeat-interval",
        Kind::Millis { min: MS, max: ELECTION_TIMEOUT_MAX }, "100", Raft,
        "How often the leader is heard from, in milliseconds.";
    ELECTION_TIMEOUT = "election-timeout",
        Kind::Millis { min: MS, max: ELECTION_TIMEOUT_MAX }, "1000", Raft,
        "How long the leader may be silent before another is elected, in milliseconds. At least 5 \
         times --heartbeat-interval.";
    PRE_VOTE = "pre-vote", Kind::Bool, "true", Raft,
        "A candidate asks whether it could win before it disturbs the leader.";
    SNAPSHOT_COUNT = "snapshot-count", Kind::Number { min: 0, max: i64::MAX }, "10000", Raft,
        "Log entries between two Raft snapshots. 0: 10000.";
    SNAPSHOT_CATCHUP_ENTRIES = "snapshot-catchup-entries" ["experimental-snapshot-catchup-entries"],
        Kind::Number { min: 0, max: i64::MAX }, "5000", Raft,
        "Log entries kept behind a snapshot for followers that are a little behind.";
    UNSAFE_NO_FSYNC = "unsafe-no-fsync", Kind::Bool, "false", Raft,
        "Unsafe: acknowledges writes before they are on disk. They are lost if the machine stops, \
         on a cluster, too. For tests.";

    QUOTA_BACKEND_BYTES = "quota-backend-bytes", Kind::Bytes { min: i64::MIN, max: i64::MAX }, "0", Limits,
        "Size of the data at which writes are refused. 0: 2 GiB; negative: no limit.";
    MAX_TXN_OPS = "max-txn-ops", Kind::Number { min: 1, max: 1 << 20 }, "128", Limits,
        "Most operations in a transaction.";
    MAX_REQUEST_BYTES = "max-request-bytes", Kind::Bytes { min: KIB, max: REQUEST_MAX }, "1572864", Limits,
        "Largest request, in bytes.";
    MAX_CONCURRENT_STREAMS = "max-concurrent-streams",
        Kind::Number { min: 1, max: 4_294_967_295 }, "4294967295", Limits,
        "Most requests and watches that one connection may have open.";
    GRPC_KEEPALIVE_INTERVAL = "grpc-keepalive-interval", Kind::Duration { min: Duration::ZERO }, "2h", Limits,
        "How often an idle connection is pinged. 0: never.";
    GRPC_KEEPALIVE_TIMEOUT = "grpc-keepalive-timeout", Kind::Duration { min: MS }, "20s", Limits,
        "How long such a ping may go unanswered before the connection is closed.";
    WATCH_PROGRESS_NOTIFY_INTERVAL = "watch-progress-notify-interval"
        ["experimental-watch-progress-notify-interval"],
        Kind::Duration { min: Duration::from_millis(100) }, "10m", Limits,
        "How often a quiet watcher that asked for it hears of the current revision.";

    AUTO_COMPACTION_MODE = "auto-compaction-mode", Kind::Choice(&["periodic", "revision"]), "periodic", Compaction,
        "periodic: history is dropped by age. revision: by number of revisions.";
    AUTO_COMPACTION_RETENTION = "auto-compaction-retention", Kind::Text, "0", Compaction,
        "How much history is kept: hours or a duration (periodic), revisions (revision, counted every 5 minutes). 0: all.";

    COMPACTION_BATCH_LIMIT = "compaction-batch-limit" ["experimental-compaction-batch-limit"],
        Kind::Number { min: 0, max: 1_000_000 }, "1000", Compaction,
        "Changes of compacted history that are swept off the disk in one go. 0: 1000.";
    COMPACTION_SLEEP_INTERVAL = "compaction-sleep-interval" ["experimental-compaction-sleep-interval"],
        Kind::Duration { min: Duration::ZERO }, "10ms", Compaction,
        "Pause after each of these, for writes to go first. 0: 10ms.";

    LOG_LEVEL = "log-level",
        Kind::Choice(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]), "info", Observing,
        "The least severe lines that are logged. The last three mean error.";
    LOG_FORMAT = "log-format", Kind::Choice(&["json", "console"]), "json", Observing,
        "Lines for programs or for people.";
    LOG_OUTPUTS = "log-outputs" ["log-output"], Kind::List, "default", Observing,
        "Where lines go: stderr (which default means), stdout, or a file's path; several with commas.";
    METRICS = "metrics", Kind::Choice(&["basic", "extensive"]), "basic", Observing,
        "extensive also measures how long each gRPC method takes.";
    LISTEN_METRICS_URLS = "listen-metrics-urls", Kind::Urls, "", Observing,
        "Serves /metrics, /health, /livez and /readyz at these URLs too.";
}

impl Opt {
    /// The variable with this prefix, `GONFALON_` or `ETCD_`.
    pub fn variable(&self, prefix: &str) -> String {
        variable(prefix, self.flag)
    }

    /// The flag and its other spellings.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> + '_ {
        std::iter::once(self.flag).chain(self.also.iter().copied())
    }
}

/// The variable of a flag's spelling.
pub(super) fn variable(prefix: &str, flag: &str) -> String {
    format!("{prefix}{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// All options, in the order of the help.
pub(super) fn all() -> impl Iterator<Item = &'static Opt> {
    USED.iter().copied().chain(foreign::FOREIGN)
}

/// The option with this flag or key, in any of its spellings.
pub(super) fn find(name: &str) -> Option<&'static Opt> {
    all().find(|opt| opt.spellings().any(|spelling| spelling == name))
}

/// The known flag that looks most like `name`, if one is near enough to be meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let limit = (name.len() / 4).clamp(1, 4);
    all()
        .flat_map(Opt::spellings)
        .map(|known| (distance(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_spelling_is_declared_once() {
        let mut seen = BTreeSet::new();
        for spelling in all().flat_map(Opt::spellings) {
            assert!(seen.insert(spelling), "{spelling} is declared twice");
        }
    }

    #[test]
    fn a_slip_finds_the_flag_that_was_meant() {
        assert_eq!(nearest("listen-client-url"), Some("listen-client-urls"));
        assert_eq!(nearest("datadir"), Some("data-dir"));
        assert_eq!(nearest("nmae"), None, "two letters of four are too far");
        assert_eq!(nearest("something-else"), None);
    }

    #[test]
    fn variables_come_from_flags() {
        assert_eq!(
            LISTEN_CLIENT_URLS.variable("ETCD_"),
            "ETCD_LISTEN_CLIENT_URLS"
        );
    }
}

//! What one member runs with, and where that is read from.
//!
//! Each option is declared once, in `config/table.rs` (those that do something here) or
//! `config/foreign.rs` (etcd's others): flag, environment variable, config-file key, default, unit,
//! limits, group and help all come from that line, and `docs/config.md` is generated from it.
//!
//! The way of a value: command line, environment or file → [`Options`] (text, all optional) →
//! [`Options::resolve`] → [`Config`] (typed, nothing left open). Nothing here reads or writes the
//! data directory, and nothing here opens a port.

mod args;
mod document;
mod env;
mod error;
mod file;
mod first_boot;
mod foreign;
mod gates;
mod resolve;
mod table;
mod url;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::metrics::Detail;
use crate::storage::{Durability, Pace};

pub use args::Invocation;
pub use document::{help, markdown};
pub use error::{ConfigError, Origin};
pub use table::{Group, Kind, Opt, Standing};
pub use url::{ListenUrl, Url};
pub use value::{format_duration, parse_duration};

/// What somebody asked for: the text of each option that was given, and where it was given.
#[derive(Debug, Clone, Default)]
pub struct Options {
    given: BTreeMap<&'static str, Given>,
    /// Whether the program is known as `etcd` where it was called.
    is_called_etcd: bool,
    /// Things worth a line in the log that are no reason to stop.
    notes: Vec<String>,
    /// Keys of the config file that mean nothing: etcd passes them over.
    unknown_keys: Vec<ConfigError>,
}

/// One option as it was written.
#[derive(Debug, Clone)]
struct Given {
    text: String,
    origin: Origin,
}

/// What one member runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The member's name, for people and for finding itself in `initial.cluster`.
    pub name: String,
    /// Everything this member keeps is in here.
    pub data_dir: PathBuf,
    /// Where clients are served: gRPC, and HTTP too unless `listen_client_http` is set.
    pub listen_client: Vec<ListenUrl>,
    /// Where clients' HTTP is served if not beside gRPC; empty: beside it.
    pub listen_client_http: Vec<ListenUrl>,
    /// How much is measured.
    pub metrics: Detail,
    /// Additional addresses for `/metrics`, `/health`, `/livez` and `/readyz`; empty: none.
    pub listen_metrics: Vec<ListenUrl>,
    /// Where the other members reach this one.
    pub listen_peer: Vec<ListenUrl>,
    /// The client URLs that the member list shows.
    pub advertise_client_urls: Vec<Url>,
    /// How the cluster starts; matters only while the data directory is new.
    pub initial: Initial,
    /// How often the leader is heard from.
    pub heartbeat_interval: Duration,
    /// How long a follower waits for the leader before it stands for election.
    pub election_timeout: Duration,
    /// Whether a candidate asks if it could win before it raises the term.
    pub pre_vote: bool,
    /// Entries applied between two Raft snapshots.
    pub snapshot_count: u64,
    /// Entries kept in the log behind a snapshot, for followers that are a little behind.
    pub snapshot_catchup_entries: u64,
    /// Size of the data at which writes are refused, in bytes; `None`: never.
    pub quota_bytes: Option<u64>,
    /// Most operations in one branch of a transaction.
    pub txn_ops_max: usize,
    /// Largest request, in bytes.
    pub request_bytes_max: usize,
    /// Most streams that one client connection may have open.
    pub concurrent_streams_max: u32,
    /// How often the server pings an idle client connection.
    pub grpc_keepalive_interval: Duration,
    /// How long it waits for the answer before it closes the connection.
    pub grpc_keepalive_timeout: Duration,
    /// Which history is compacted without being asked.
    pub auto_compaction: AutoCompaction,
    /// How fast compacted history is swept off the disk.
    pub sweep_pace: Pace,
    /// When a write counts as done.
    pub durability: Durability,
    /// How often a quiet watcher that asked for it hears of the current revision.
    pub watch_progress_notify_interval: Duration,
    /// Origins whose scripts may read the pages on the client port; `*` is any.
    pub cors: Vec<String>,
    /// Sets `SO_REUSEPORT` on listening sockets.
    pub socket_reuse_port: bool,
    /// What is logged, how, and where to.
    pub log: Log,
    /// What the user should read in the log: options without effect, unusual values.
    pub notes: Vec<String>,
}

/// How a cluster is founded on the first start of a data directory; later starts must describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initial {
    /// Where the other members reach this one.
    pub advertise_peer_urls: Vec<Url>,
    /// All members, in the order in which they were written.
    pub cluster: Vec<InitialMember>,
    /// Whether `cluster` was written, or is this member alone for want of it.
    pub is_cluster_given: bool,
    /// Whether the cluster is new or this member joins one.
    pub state: InitialState,
    /// Keeps clusters apart that were started with the same URLs.
    pub token: String,
}

/// One member of `--initial-cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its `--name`.
    pub name: String,
    /// Its `--initial-advertise-peer-urls`, sorted.
    pub peer_urls: Vec<Url>,
}

/// Whether a data directory that is new belongs to a cluster that is new too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialState {
    /// All members of `--initial-cluster` start together.
    New,
    /// The cluster runs; this member was added to it.
    Existing,
}

/// Which history is compacted without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// All but the newest revisions.
    Revisions {
        /// How many are kept.
        keep: i64,
        /// How often it is looked whether there are more.
        every: Duration,
    },
}

/// What is logged, how, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// Lines for programs or for people.
    pub format: LogFormat,
    /// Each gets every line.
    pub outputs: Vec<LogOutput>,
}

/// The least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Each request.
    Debug,
    /// Events on a human scale.
    Info,
    /// What will be tried again.
    Warn,
    /// Data or a member is in danger.
    Error,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Columns of text.
    Console,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// All options, in the order of the help.
pub fn options() -> impl Iterator<Item = &'static Opt> {
    table::all()
}

impl Options {
    /// Reads the command line (without the program's name) and the environment.
    ///
    /// A flag goes before a variable; `GONFALON_X` goes before `ETCD_X`. If a config file is named,
    /// it alone counts, as with etcd.
    pub fn read(args: &[String], vars: &[(String, String)]) -> Result<Invocation, ConfigError> {
        let mut options = match args::parse(args)? {
            Invocation::Run(options) => options,
            asked @ (Invocation::Help | Invocation::Version) => return Ok(asked),
        };
        env::fill(&mut options, vars);
        let Some(file) = options.given.get(table::CONFIG_FILE.flag) else {
            return Ok(Invocation::Run(options));
        };
        let mut from_file = file::read(&PathBuf::from(&file.text))?;
        let others = options
            .given
            .iter()
            .filter(|(flag, _)| **flag != table::CONFIG_FILE.flag);
        let ignored: Vec<_> = others
            .filter_map(|(flag, given)| match &given.origin {
                Origin::Flag(_) => Some(format!("--{flag}")),
                Origin::Variable(name) => Some(name.clone()),
                Origin::Key(_) | Origin::Default(_) => None,
            })
            .collect();
        if !ignored.is_empty() {
            from_file.notes.push(format!(
                "a config file is given, so these are ignored: {}",
                ignored.join(" ")
            ));
        }
        Ok(Invocation::Run(from_file))
    }

    /// Of a program that was called `etcd`: its data is where one looks for etcd's.
    #[must_use]
    pub fn called_etcd(self) -> Self {
        Self {
            is_called_etcd: true,
            ..self
        }
    }

    /// Sets the option that has this flag, as if it were given on the command line.
    pub fn set(&mut self, flag: &str, text: impl Into<String>) -> Result<(), ConfigError> {
        let opt = table::find(flag).ok_or_else(|| ConfigError::unknown_flag(flag))?;
        self.put(opt, text.into(), Origin::Flag(flag.to_owned()));
        Ok(())
    }

    fn put(&mut self, opt: &'static Opt, text: String, origin: Origin) {
        self.given.insert(opt.flag, Given { text, origin });
    }
}

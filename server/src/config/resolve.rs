//! Options to a configuration: types, limits, and the rules between options.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, Origin};
use super::table::{self, Kind, Opt, Standing};
use super::{
    AutoCompaction, Config, Initial, InitialMember, InitialState, ListenUrl, Log, LogFormat,
    LogLevel, LogOutput, Options, Url, gates, url, value,
};
use crate::metrics::Detail;
use crate::storage::{Durability, Pace};

/// What a `--snapshot-count` of 0 means, as with etcd: its default.
const SNAPSHOT_COUNT_DEFAULT: u64 = 10_000;
/// How often it is looked whether there are more revisions than are kept, as in etcd.
const COUNT_INTERVAL: Duration = Duration::from_mins(5);
/// Why a default is no reason to stop.
const READABLE: &str = "the table's defaults can be read";
/// etcd's size of data at which writes are refused when nothing else is said.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// Beyond this etcd warns; restarting and copying the data takes minutes.
const QUOTA_USUAL_MAX: u64 = 8 << 30;
/// Beyond this etcd warns; one such request holds up all others.
const REQUEST_USUAL_MAX: usize = 10 << 20;
/// Fewer heartbeats than this in an election timeout, and one lost packet elects a new leader.
const HEARTBEATS_IN_ELECTION_MIN: u32 = 5;

impl Options {
    /// Checks every option and the rules between them.
    pub fn resolve(mut self) -> Result<Config, ConfigError> {
        let mut notes = std::mem::take(&mut self.notes);
        let mut unknown = std::mem::take(&mut self.unknown_keys).into_iter();
        if self.is_called_etcd {
            notes.extend(unknown.map(|key| format!("{key}; it is passed over, as by etcd")));
        } else if let Some(key) = unknown.next() {
            return Err(key);
        }
        self.foreign(&mut notes)?;
        let name = self.text(&table::NAME);
        let election_timeout = self.duration(&table::ELECTION_TIMEOUT)?;
        let heartbeat_interval = self.duration(&table::HEARTBEAT_INTERVAL)?;
        check_heartbeat(heartbeat_interval, election_timeout)?;
        let listen_peer = self.listen(&table::LISTEN_PEER_URLS)?;
        let config = Config {
            data_dir: self.data_dir(&name)?,
            listen_client: self.listen(&table::LISTEN_CLIENT_URLS)?,
            listen_client_http: self.listen(&table::LISTEN_CLIENT_HTTP_URLS)?,
            metrics: self.detail()?,
            listen_metrics: self.listen(&table::LISTEN_METRICS_URLS)?,
            advertise_client_urls: self.advertised()?,
            initial: self.initial(&name, &listen_peer)?,
            listen_peer,
            heartbeat_interval,
            election_timeout,
            pre_vote: self.switch(&table::PRE_VOTE)?,
            snapshot_count: self.snapshot_count()?,
            snapshot_catchup_entries: self.count(&table::SNAPSHOT_CATCHUP_ENTRIES)?,
            quota_bytes: self.quota()?,
            txn_ops_max: self.count(&table::MAX_TXN_OPS)?,
            request_bytes_max: self.count(&table::MAX_REQUEST_BYTES)?,
            concurrent_streams_max: self.count(&table::MAX_CONCURRENT_STREAMS)?,
            grpc_keepalive_interval: self.duration(&table::GRPC_KEEPALIVE_INTERVAL)?,
            grpc_keepalive_timeout: self.duration(&table::GRPC_KEEPALIVE_TIMEOUT)?,
            auto_compaction: self.auto_compaction()?,
            sweep_pace: self.sweep_pace()?,
            durability: if self.switch(&table::UNSAFE_NO_FSYNC)? {
                Durability::System
            } else {
                Durability::Disk
            },
            watch_progress_notify_interval: self
                .duration(&table::WATCH_PROGRESS_NOTIFY_INTERVAL)?,
            cors: self.origins()?,
            socket_reuse_port: self.switch(&table::SOCKET_REUSE_PORT)?,
            log: self.log()?,
            notes: Vec::new(),
            name,
        };
        check_ports(&config)?;
        notes.extend(unusual(&config));
        Ok(Config { notes, ..config })
    }

    /// Refuses what is not done and notes what changes nothing.
    fn foreign(&self, notes: &mut Vec<String>) -> Result<(), ConfigError> {
        for (flag, given) in &self.given {
            let Some(opt) = table::find(flag) else {
                continue;
            };
            let origin = &given.origin;
            if *flag == "feature-gates" {
                notes.extend(gates::check(&given.text, origin)?);
                continue;
            }
            match opt.standing {
                Standing::Used => {}
                _ if self.asks_nothing(opt, &given.text)? => {}
                Standing::Accepted(why) => notes.push(format!("{origin} changes nothing: {why}")),
                Standing::Refused(why) => {
                    return Err(ConfigError::Unsupported {
                        origin: origin.clone(),
                        why: why.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether what is said of an option of etcd's is what holds anyway. What etcd would not
    /// understand is refused here too.
    fn asks_nothing(&self, opt: &'static Opt, text: &str) -> Result<bool, ConfigError> {
        Ok(match opt.kind {
            Kind::Bool => self.switch(opt)? == (opt.default == "true"),
            Kind::Number { .. } => {
                self.number(opt)? == value::parse_number(opt.default).expect(READABLE)
            }
            Kind::Duration { .. } => {
                self.duration(opt)? == value::parse_duration(opt.default).expect(READABLE)
            }
            Kind::Choice(_) => self.choice(opt)? == opt.default,
            _ => text == opt.default || text.is_empty(),
        })
    }

    fn data_dir(&self, name: &str) -> Result<PathBuf, ConfigError> {
        let (text, origin) = self.raw(&table::DATA_DIR);
        // A script's variable that is not set, most likely: it must not begin another cluster beside
        // the one that is meant. The key without a value is in etcd's own example of a file.
        if text.is_empty() && matches!(origin, Origin::Flag(_)) {
            return Err(ConfigError::BadValue {
                origin,
                text: String::new(),
                why: "write a directory's path, or leave the flag out".to_owned(),
            });
        }
        let path = self.path(&table::DATA_DIR);
        Ok(path.unwrap_or_else(|| self.default_data_dir(name)))
    }

    fn default_data_dir(&self, name: &str) -> PathBuf {
        let kind = if self.is_called_etcd {
            "etcd"
        } else {
            "gonfalon"
        };
        format!("{name}.{kind}").into()
    }

    fn snapshot_count(&self) -> Result<u64, ConfigError> {
        Ok(match self.count(&table::SNAPSHOT_COUNT)? {
            0 => SNAPSHOT_COUNT_DEFAULT,
            count => count,
        })
    }

    fn origins(&self) -> Result<Vec<String>, ConfigError> {
        let origin = |text: &str| {
            let is_url = ["http://", "https://"]
                .iter()
                .any(|scheme| text.starts_with(scheme));
            match text {
                "*" => Ok(text.to_owned()),
                _ if is_url => Ok(text.to_owned()),
                _ => Err("write *, or origins such as https://example.com".to_owned()),
            }
        };
        self.parse(&table::CORS, |text| {
            text.split(',').map(str::trim).map(origin).collect()
        })
    }

    fn detail(&self) -> Result<Detail, ConfigError> {
        Ok(match self.choice(&table::METRICS)? {
            "extensive" => Detail::Extensive,
            _ => Detail::Basic,
        })
    }

    fn advertised(&self) -> Result<Vec<Url>, ConfigError> {
        let opt = &table::ADVERTISE_CLIENT_URLS;
        if self.is_given(&table::LISTEN_CLIENT_URLS) && !self.is_given(opt) {
            return Err(ConfigError::Conflict(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                    .to_owned(),
            ));
        }
        let urls = self.parse(opt, url::parse_urls)?;
        check_twice(opt, &urls)?;
        Ok(urls)
    }

    fn initial(&self, name: &str, listen_peer: &[ListenUrl]) -> Result<Initial, ConfigError> {
        let opt = &table::INITIAL_ADVERTISE_PEER_URLS;
        let advertise_peer_urls = if self.is_given(opt) {
            let urls = self.parse(opt, url::parse_urls)?;
            check_twice(opt, &urls)?;
            urls
        } else {
            listen_peer
                .iter()
                .map(|listen| reachable(&listen.url))
                .collect()
        };
        let is_cluster_given = self.is_given(&table::INITIAL_CLUSTER);
        let cluster = if is_cluster_given {
            self.parse(&table::INITIAL_CLUSTER, url::parse_cluster)?
        } else {
            let mut peer_urls = advertise_peer_urls.clone();
            peer_urls.sort();
            // Of a member without a name etcd says the same, and then does not find it there.
            let name = if name.is_empty() {
                table::NAME.default
            } else {
                name
            };
            vec![InitialMember {
                name: name.to_owned(),
                peer_urls,
            }]
        };
        let state = match self.choice(&table::INITIAL_CLUSTER_STATE)? {
            "existing" => InitialState::Existing,
            _ => InitialState::New,
        };
        let token = self.text(&table::INITIAL_CLUSTER_TOKEN);
        Ok(Initial {
            advertise_peer_urls,
            cluster,
            is_cluster_given,
            state,
            token,
        })
    }

    fn quota(&self) -> Result<Option<u64>, ConfigError> {
        let bytes: i64 = self.number(&table::QUOTA_BACKEND_BYTES)?;
        Ok(match bytes {
            ..0 => None,
            0 => Some(QUOTA_DEFAULT),
            1.. => Some(bytes.unsigned_abs()),
        })
    }

    fn auto_compaction(&self) -> Result<AutoCompaction, ConfigError> {
        let opt = &table::AUTO_COMPACTION_RETENTION;
        let revisions = self.choice(&table::AUTO_COMPACTION_MODE)? == "revision";
        self.parse(opt, |text| {
            // A plain number is hours in one mode and revisions in the other.
            match (text.parse::<u64>(), revisions) {
                (Ok(0), _) => Ok(AutoCompaction::Off),
                (Ok(keep), true) => match i64::try_from(keep) {
                    Ok(keep) => Ok(AutoCompaction::Revisions {
                        keep,
                        every: COUNT_INTERVAL,
                    }),
                    Err(_) => Err(format!("must be at most {}", i64::MAX)),
                },
                // However many: some write a number that means never.
                (Ok(hours), false) => Ok(AutoCompaction::Periodic(Duration::from_secs(
                    hours.saturating_mul(3600),
                ))),
                (Err(_), true) => Err(
                    "with --auto-compaction-mode=revision, write a number of revisions".to_owned(),
                ),
                (Err(_), false) => match value::parse_duration(text) {
                    Ok(Duration::ZERO) => Ok(AutoCompaction::Off),
                    Ok(retention) => Ok(AutoCompaction::Periodic(retention)),
                    Err(_) => Err("write a number of hours, or a duration such as 30m".to_owned()),
                },
            }
        })
    }

    fn sweep_pace(&self) -> Result<Pace, ConfigError> {
        let default = Pace::default();
        let batch_changes = self.count(&table::COMPACTION_BATCH_LIMIT)?;
        let pause = self.duration(&table::COMPACTION_SLEEP_INTERVAL)?;
        Ok(Pace {
            batch_changes: if batch_changes == 0 {
                default.batch_changes
            } else {
                batch_changes
            },
            pause: if pause.is_zero() {
                default.pause
            } else {
                pause
            },
        })
    }

    fn log(&self) -> Result<Log, ConfigError> {
        let level = match self.choice(&table::LOG_LEVEL)? {
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "warn" => LogLevel::Warn,
            _ => LogLevel::Error,
        };
        let format = match self.choice(&table::LOG_FORMAT)? {
            "console" => LogFormat::Console,
            _ => LogFormat::Json,
        };
        let outputs = self.parse(&table::LOG_OUTPUTS, |text| {
            text.split(',')
                .map(|output| log_output(output.trim()))
                .collect()
        })?;
        Ok(Log {
            level,
            format,
            outputs,
        })
    }

    fn listen(&self, opt: &'static Opt) -> Result<Vec<ListenUrl>, ConfigError> {
        if self.raw(opt).0.is_empty() && opt.default.is_empty() {
            return Ok(Vec::new());
        }
        self.parse(opt, url::parse_listen_urls)
    }

    fn is_given(&self, opt: &Opt) -> bool {
        self.given.contains_key(opt.flag)
    }

    /// The text of an option and where it is from.
    fn raw(&self, opt: &'static Opt) -> (&str, Origin) {
        match self.given.get(opt.flag) {
            Some(given) => (&given.text, given.origin.clone()),
            None => (opt.default, Origin::Default(opt.flag)),
        }
    }

    fn parse<T>(
        &self,
        opt: &'static Opt,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (text, origin) = self.raw(opt);
        read(text).map_err(|why| ConfigError::BadValue {
            origin,
            text: text.to_owned(),
            why,
        })
    }

    fn text(&self, opt: &'static Opt) -> String {
        self.raw(opt).0.to_owned()
    }

    fn path(&self, opt: &'static Opt) -> Option<PathBuf> {
        let text = self.raw(opt).0;
        (!text.is_empty()).then(|| text.into())
    }

    fn switch(&self, opt: &'static Opt) -> Result<bool, ConfigError> {
        self.parse(opt, value::parse_bool)
    }

    fn choice(&self, opt: &'static Opt) -> Result<&'static str, ConfigError> {
        let Kind::Choice(words) = opt.kind else {
            unreachable!("{} is not a choice", opt.flag);
        };
        self.parse(opt, |text| {
            let word = words.iter().find(|word| **word == text);
            word.copied()
                .ok_or_else(|| format!("write one of {}", words.join(", ")))
        })
    }

    /// A number or a size within its limits.
    fn number(&self, opt: &'static Opt) -> Result<i64, ConfigError> {
        self.parse(opt, |text| {
            let (number, min, max) = match opt.kind {
                Kind::Number { min, max } => (value::parse_number(text)?, min, max),
                Kind::Bytes { min, max } => (value::parse_bytes(text)?, min, max),
                _ => unreachable!("{} is not a number", opt.flag),
            };
            match number {
                _ if number < min => Err(format!("must be at least {min}")),
                _ if number > max => Err(format!("must be at most {max}")),
                _ => Ok(number),
            }
        })
    }

    /// A number within its limits as the type that counts such things.
    fn count<T: TryFrom<i64>>(&self, opt: &'static Opt) -> Result<T, ConfigError> {
        let number = self.number(opt)?;
        self.parse(opt, |_| {
            T::try_from(number).map_err(|_| "is too large".to_owned())
        })
    }

    fn duration(&self, opt: &'static Opt) -> Result<Duration, ConfigError> {
        self.parse(opt, |text| {
            let (duration, min, max) = match opt.kind {
                Kind::Millis { min, max } => (value::parse_millis(text)?, min, max),
                Kind::Duration { min } => (value::parse_duration(text)?, min, Duration::MAX),
                _ => unreachable!("{} is not a duration", opt.flag),
            };
            if duration < min {
                Err(format!("must be at least {}", value::format_duration(min)))
            } else if duration > max {
                Err(format!("must be at most {}", value::format_duration(max)))
            } else {
                Ok(duration)
            }
        })
    }
}

/// The URL at which a listener is reached from this machine.
fn reachable(url: &Url) -> Url {
    let host = if url.is_unspecified() {
        "localhost".to_owned()
    } else {
        url.host.clone()
    };
    Url {
        host,
        port: url.port,
    }
}

fn log_output(text: &str) -> Result<LogOutput, String> {
    match text {
        "" => Err("write stderr, stdout or a file's path".to_owned()),
        "default" | "stderr" => Ok(LogOutput::Stderr),
        "stdout" => Ok(LogOutput::Stdout),
        "systemd/journal" => Err("log to stderr; systemd sends that to the journal".to_owned()),
        path => Ok(LogOutput::File(path.into())),
    }
}

fn check_heartbeat(heartbeat: Duration, election: Duration) -> Result<(), ConfigError> {
    if election >= heartbeat * HEARTBEATS_IN_ELECTION_MIN {
        return Ok(());
    }
    Err(ConfigError::Conflict(format!(
        "--election-timeout ({} ms) must be at least 5 times --heartbeat-interval ({} ms)",
        election.as_millis(),
        heartbeat.as_millis()
    )))
}

fn check_twice(opt: &Opt, urls: &[Url]) -> Result<(), ConfigError> {
    for (at, url) in urls.iter().enumerate() {
        if urls[..at].iter().any(|other| other.same_place(url)) {
            return Err(ConfigError::Conflict(format!(
                "--{} has {url} twice",
                opt.flag
            )));
        }
    }
    Ok(())
}

/// No two listeners at one address; port 0 means any free port.
fn check_ports(config: &Config) -> Result<(), ConfigError> {
    let lists = [
        (&table::LISTEN_CLIENT_URLS, &config.listen_client),
        (&table::LISTEN_CLIENT_HTTP_URLS, &config.listen_client_http),
        (&table::LISTEN_METRICS_URLS, &config.listen_metrics),
        (&table::LISTEN_PEER_URLS, &config.listen_peer),
    ];
    let mut seen: Vec<(&Opt, &ListenUrl)> = Vec::new();
    for (opt, listen) in lists
        .into_iter()
        .flat_map(|(opt, urls)| urls.iter().map(move |u| (opt, u)))
    {
        let same = |(_, other): &&(&Opt, &ListenUrl)| other.address == listen.address;
        if let Some((other, _)) = seen
            .iter()
            .find(same)
            .filter(|_| listen.address.port() != 0)
        {
            return Err(ConfigError::Conflict(if other.flag == opt.flag {
                format!("--{} has {listen} twice", opt.flag)
            } else {
                format!("--{} and --{} both have {listen}", other.flag, opt.flag)
            }));
        }
        seen.push((opt, listen));
    }
    Ok(())
}

/// Values that are allowed and yet seldom meant.
fn unusual(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.name.is_empty() {
        notes.push("--name is empty: lists show this member as one that never started".to_owned());
    }
    if config.durability == Durability::System {
        notes.push(
            "--unsafe-no-fsync: WRITES ARE ACKNOWLEDGED THAT ARE NOT ON DISK. If this machine \
             stops they are lost, and a cluster may lose what its majority had acknowledged"
                .to_owned(),
        );
    }
    if config
        .quota_bytes
        .is_some_and(|bytes| bytes > QUOTA_USUAL_MAX)
    {
        notes.push(
            "--quota-backend-bytes is above 8 GiB: restarts and snapshots take long".to_owned(),
        );
    }
    if config.request_bytes_max > REQUEST_USUAL_MAX {
        notes.push(
            "--max-request-bytes is above 10 MiB: large requests hold up small ones".to_owned(),
        );
    }
    let advertised = [
        (&table::ADVERTISE_CLIENT_URLS, &config.advertise_client_urls),
        (
            &table::INITIAL_ADVERTISE_PEER_URLS,
            &config.initial.advertise_peer_urls,
        ),
    ];
    for (opt, urls) in advertised {
        if let Some(url) = urls.iter().find(|url| url.is_unspecified()) {
            notes.push(format!(
                "--{} has {url}, which no other machine can reach",
                opt.flag
            ));
        }
    }
    notes
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;

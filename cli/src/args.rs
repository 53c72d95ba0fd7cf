//! The command line: global flags and the commands.

use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use gonfalon_server::config::{self, Kind, Standing};

use crate::commands::{
    alarm, check, compact, completion, defrag, del, elect, endpoint, get, lease, lock, member,
    move_leader, put, snapshot, txn, watch,
};
use crate::failure::{EXIT_CODES, Failure};
use crate::output::Format;
use crate::parse;

const ENDPOINTS: &str = "127.0.0.1:2379";
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// etcdctl's variables for what is not there yet. Its flags for the same are refused as unknown; a
/// variable that was passed over would let a script believe that it had logged in, or encrypted.
const REFUSED: [(&str, &str); 8] = [
    ("ETCDCTL_USER", "users are not there yet"),
    ("ETCDCTL_PASSWORD", "users are not there yet"),
    ("ETCDCTL_AUTH_JWT_TOKEN", "users are not there yet"),
    ("ETCDCTL_CACERT", "TLS is not there yet"),
    ("ETCDCTL_CERT", "TLS is not there yet"),
    ("ETCDCTL_KEY", "TLS is not there yet"),
    (
        "ETCDCTL_DISCOVERY_SRV",
        "write the servers into ETCDCTL_ENDPOINTS",
    ),
    (
        "ETCDCTL_DISCOVERY_SRV_NAME",
        "write the servers into ETCDCTL_ENDPOINTS",
    ),
];

/// Gonfalon: a server that speaks etcd v3, and the commands to use it.
#[derive(Debug, Parser)]
#[command(
    name = "gonfalon",
    version,
    arg_required_else_help = true,
    subcommand_help_heading = "Commands",
    after_help = EXIT_CODES,
    max_term_width = 100,
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command has. Each is also a variable; etcdctl's `ETCDCTL_*` are understood.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Servers, with commas; if one cannot be reached, the next is tried [default: 127.0.0.1:2379]
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        env = "GONFALON_ENDPOINTS",
        hide_env_values = true
    )]
    endpoints: Vec<String>,
    /// How long to wait for a connection [default: 2s]
    #[arg(long, global = true, value_parser = parse::timeout, env = "GONFALON_DIAL_TIMEOUT", hide_env_values = true)]
    dial_timeout: Option<Duration>,
    /// How long a command may take, without the connection [default: 5s]
    #[arg(long, global = true, value_parser = parse::timeout, env = "GONFALON_COMMAND_TIMEOUT", hide_env_values = true)]
    command_timeout: Option<Duration>,
    /// How often an idle connection is pinged, at least 10s apart [default: 10s]
    #[arg(long, global = true, value_parser = parse::timeout, env = "GONFALON_KEEPALIVE_TIME", hide_env_values = true)]
    keepalive_time: Option<Duration>,
    /// How long such a ping may go unanswered [default: 6s]
    #[arg(long, global = true, value_parser = parse::timeout, env = "GONFALON_KEEPALIVE_TIMEOUT", hide_env_values = true)]
    keepalive_timeout: Option<Duration>,
    /// How answers are written: for people, or as etcdctl does [default: human]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        env = "GONFALON_WRITE_OUT",
        hide_env_values = true
    )]
    write_out: Option<Format>,
    /// Write keys and values in hexadecimal
    #[arg(long, global = true, env = "GONFALON_HEX", hide_env_values = true)]
    hex: bool,
    /// Connections are not encrypted: the only way yet, so that =false is refused
    #[arg(
        long,
        global = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = parse::go_boolean,
        value_name = "BOOL",
        env = "GONFALON_INSECURE_TRANSPORT",
        hide_env_values = true
    )]
    insecure_transport: Option<bool>,
}

/// Global flags with nothing left open.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) format: Format,
    pub(crate) hex: bool,
}

impl Global {
    /// Fills in etcdctl's variables and the defaults.
    pub(crate) fn settle(self) -> Result<Settings, Failure> {
        self.settle_with(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn settle_with(self, var: impl Fn(&str) -> Option<String>) -> Result<Settings, Failure> {
        self.refuse_what_is_not_there(&var)?;
        let duration = |given: Option<Duration>, name: &str, default: Duration| match given {
            Some(given) => Ok(given),
            None => read(&var, name, parse::timeout).map(|set| set.unwrap_or(default)),
        };
        let endpoints = if self.endpoints.is_empty() {
            let set = var("ETCDCTL_ENDPOINTS").unwrap_or_else(|| ENDPOINTS.to_owned());
            set.split(',').map(str::to_owned).collect()
        } else {
            self.endpoints
        };
        let format = match self.write_out {
            Some(format) => format,
            None => read(&var, "ETCDCTL_WRITE_OUT", |text| {
                <Format as clap::ValueEnum>::from_str(text, false)
            })?
            .unwrap_or(Format::Human),
        };
        let hex = read(&var, "ETCDCTL_HEX", parse::go_boolean)?;
        Ok(Settings {
            endpoints,
            dial_timeout: duration(self.dial_timeout, "ETCDCTL_DIAL_TIMEOUT", DIAL_TIMEOUT)?,
            command_timeout: duration(
                self.command_timeout,
                "ETCDCTL_COMMAND_TIMEOUT",
                COMMAND_TIMEOUT,
            )?,
            keepalive_time: duration(
                self.keepalive_time,
                "ETCDCTL_KEEPALIVE_TIME",
                KEEPALIVE_TIME,
            )?,
            keepalive_timeout: duration(
                self.keepalive_timeout,
                "ETCDCTL_KEEPALIVE_TIMEOUT",
                KEEPALIVE_TIMEOUT,
            )?,
            format,
            hex: self.hex || hex.unwrap_or(false),
        })
    }

    /// Fails if the connection is to be encrypted or the caller to be known: neither would be so.
    fn refuse_what_is_not_there(
        &self,
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Failure> {
        for (name, why) in REFUSED {
            if var(name).is_some() {
                return Err(Failure::usage(format!("{name} is set, but {why}"))
                    .next(format!("Without it: env -u {name} gonfalon ...")));
            }
        }
        let insecure = match self.insecure_transport {
            Some(given) => Some(given),
            None => read(&var, "ETCDCTL_INSECURE_TRANSPORT", parse::go_boolean)?,
        };
        if insecure == Some(false) {
            return Err(Failure::usage(
                "--insecure-transport=false asks for TLS, which is not there yet",
            ));
        }
        Ok(())
    }
}

fn read<T>(
    var: impl Fn(&str) -> Option<String>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    let Some(text) = var(name) else {
        return Ok(None);
    };
    parse(&text)
        .map(Some)
        .map_err(|why| Failure::usage(format!("{name}: {text:?}: {why}")))
}

/// The whole command line, with the options of `serve` too: for the help and for completion.
///
/// `serve` itself is not read with it. Its options are in Go's syntax, so that etcd's command lines
/// work, and come from the server's own table.
pub(crate) fn command() -> clap::Command {
    let mut serve = clap::Command::new("serve").about("Run a server");
    for option in config::options().filter(|option| option.standing == Standing::Used) {
        let arg = clap::Arg::new(option.flag)
            .long(option.flag)
            .help(option.help);
        serve = serve.arg(match option.kind {
            Kind::Bool => arg.num_args(0..=1).require_equals(true),
            Kind::Choice(words) => arg.value_parser(words.to_vec()),
            _ => arg,
        });
    }
    Cli::command().subcommand(serve.display_order(0))
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read a key or a range of keys
    Get(get::Get),
    /// Write a key
    Put(put::Put),
    /// Delete a key or a range of keys
    Del(del::Del),
    /// Show changes as they happen
    Watch(watch::Watch),
    /// Compare keys, then read and write, in one step
    Txn(txn::Txn),
    /// Forget history before a revision
    #[command(alias = "compaction")]
    Compact(compact::Compact),
    /// Keys that vanish when nobody renews them
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Hold a lock, alone in the cluster, while a command runs
    Lock(lock::Lock),
    /// Stand for an election, or watch one
    Elect(elect::Elect),
    /// The members of the cluster
    #[command(subcommand)]
    Member(member::Member),
    /// Ask each server how it is
    #[command(subcommand)]
    Endpoint(endpoint::Endpoint),
    /// Copies of the data
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Give the space of deleted data back
    Defrag(defrag::Defrag),
    /// Make another member the leader
    MoveLeader(move_leader::MoveLeader),
    /// What stops the cluster from writing
    #[command(subcommand)]
    Alarm(alarm::Alarm),
    /// Measure the cluster
    #[command(subcommand)]
    Check(check::Check),
    /// Print a script that completes commands in a shell
    Completion(completion::Completion),
    /// Print the version
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(line: &str, vars: &[(&str, &str)]) -> Result<Settings, Failure> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let find = |name: &str| {
            vars.iter()
                .find(|(var, _)| *var == name)
                .map(|(_, value)| (*value).to_owned())
        };
        cli.global.settle_with(find)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_go_before_etcdctls_variables() {
        let vars = [
            ("ETCDCTL_ENDPOINTS", "a:1,b:2"),
            ("ETCDCTL_COMMAND_TIMEOUT", "7s"),
            ("ETCDCTL_WRITE_OUT", "json"),
        ];
        let settings = settle("g version", &vars).unwrap();
        assert_eq!(settings.endpoints, ["a:1", "b:2"]);
        assert_eq!(settings.command_timeout, Duration::from_secs(7));
        assert_eq!(settings.format, Format::Json);
        let settings = settle(
            "g version --endpoints c:3 --command-timeout 1s -w=fields",
            &vars,
        )
        .unwrap();
        assert_eq!(settings.endpoints, ["c:3"]);
        assert_eq!(settings.command_timeout, Duration::from_secs(1));
        assert_eq!(settings.format, Format::Fields);
    }

    #[test]
    fn a_variable_for_what_is_not_there_is_refused() {
        for (name, _) in REFUSED {
            let err = settle("g version", &[(name, "x")]).unwrap_err();
            assert!(err.what().starts_with(name), "{err:?}");
        }
    }

    #[test]
    fn connections_without_tls_are_all_there_is() {
        for flag in ["--insecure-transport", "--insecure-transport=true"] {
            assert!(settle(&format!("g {flag} version"), &[]).is_ok(), "{flag}");
        }
        let off = [("ETCDCTL_INSECURE_TRANSPORT", "false")];
        for (line, vars) in [
            ("g version --insecure-transport=false", &[][..]),
            ("g version", &off),
        ] {
            let err = settle(line, vars).unwrap_err();
            assert!(err.what().contains("TLS"), "{line}: {err:?}");
        }
        assert!(settle("g --insecure-transport version", &off).is_ok());
    }

    #[test]
    fn a_variable_that_cannot_be_read_is_named() {
        let err = settle("g version", &[("ETCDCTL_DIAL_TIMEOUT", "soon")]).unwrap_err();
        assert!(
            err.what().starts_with("ETCDCTL_DIAL_TIMEOUT: \"soon\""),
            "{err:?}"
        );
    }
}

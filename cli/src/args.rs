//! The command line: global flags and the commands.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};
use gonfalon_server::config::{self, Kind, Standing};

use crate::commands::{
    alarm, check, compact, completion, defrag, del, elect, endpoint, get, lease, lock, member,
    move_leader, put, snapshot, txn, watch,
};
use crate::failure::{AFTER_HELP, Failure};
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
    after_help = AFTER_HELP,
    max_term_width = 100,
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command has. Each is also a variable, which is read by [`Global::settle`].
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Servers, with commas; if one cannot be reached, the next is tried [default: 127.0.0.1:2379]
    #[arg(long, global = true, value_delimiter = ',', value_name = "LIST")]
    endpoints: Vec<String>,
    /// How long to wait for a connection [default: 2s]
    #[arg(long, global = true, value_parser = parse::timeout, value_name = "TIME")]
    dial_timeout: Option<Duration>,
    /// How long a command may take, without the connection [default: 5s]
    #[arg(long, global = true, value_parser = parse::timeout, value_name = "TIME")]
    command_timeout: Option<Duration>,
    /// How often an idle connection is pinged, at least 10s apart [default: 10s]
    #[arg(long, global = true, value_parser = parse::timeout, value_name = "TIME")]
    keepalive_time: Option<Duration>,
    /// How long such a ping may go unanswered [default: 6s]
    #[arg(long, global = true, value_parser = parse::timeout, value_name = "TIME")]
    keepalive_timeout: Option<Duration>,
    /// How answers are written: for people, or as etcdctl does [default: human]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    write_out: Option<Format>,
    /// Write keys and values in hexadecimal
    #[arg(long, global = true)]
    hex: bool,
    /// Connections are not encrypted: the only way yet, so that =false is refused
    #[arg(
        long,
        global = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = parse::go_boolean,
        value_name = "BOOL"
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
    /// Fills in the variables, `GONFALON_X` before etcdctl's `ETCDCTL_X`, and the defaults. A variable
    /// that is empty is not set, as with etcdctl.
    pub(crate) fn settle(self) -> Result<Settings, Failure> {
        self.settle_with(|name| {
            let text = std::env::var_os(name)?.to_string_lossy().into_owned();
            (!text.is_empty()).then_some(text)
        })
    }

    fn settle_with(self, var: impl Fn(&str) -> Option<String>) -> Result<Settings, Failure> {
        self.refuse_what_is_not_there(&var)?;
        let duration = |given: Option<Duration>, name: &str, default: Duration| match given {
            Some(given) => Ok(given),
            None => read(&var, name, parse::timeout).map(|set| set.unwrap_or(default)),
        };
        let endpoints = if self.endpoints.is_empty() {
            let list = |text: &str| Ok(text.split(',').map(str::to_owned).collect());
            read(&var, "ENDPOINTS", list)?.unwrap_or_else(|| vec![ENDPOINTS.to_owned()])
        } else {
            self.endpoints
        };
        let format = match self.write_out {
            Some(format) => format,
            None => read(&var, "WRITE_OUT", |text| {
                <Format as clap::ValueEnum>::from_str(text, false)
            })?
            .unwrap_or(Format::Human),
        };
        let hex = read(&var, "HEX", parse::go_boolean)?;
        Ok(Settings {
            endpoints,
            dial_timeout: duration(self.dial_timeout, "DIAL_TIMEOUT", DIAL_TIMEOUT)?,
            command_timeout: duration(self.command_timeout, "COMMAND_TIMEOUT", COMMAND_TIMEOUT)?,
            keepalive_time: duration(self.keepalive_time, "KEEPALIVE_TIME", KEEPALIVE_TIME)?,
            keepalive_timeout: duration(
                self.keepalive_timeout,
                "KEEPALIVE_TIMEOUT",
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
            None => read(&var, "INSECURE_TRANSPORT", parse::go_boolean)?,
        };
        if insecure == Some(false) {
            return Err(Failure::usage(
                "--insecure-transport=false asks for TLS, which is not there yet",
            ));
        }
        Ok(())
    }
}

/// What the variables of a flag say: the first that is set counts.
fn read<T>(
    var: impl Fn(&str) -> Option<String>,
    flag: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    for prefix in ["GONFALON_", "ETCDCTL_"] {
        let name = format!("{prefix}{flag}");
        if let Some(text) = var(&name) {
            return parse(&text)
                .map(Some)
                .map_err(|why| Failure::usage(format!("{name}: {text:?}: {why}")));
        }
    }
    Ok(None)
}

/// The whole command line, with `serve`: for reading it and for the help.
///
/// The help of a command has the flags of that command, and of the global ones only the names: all
/// of them explained would fill a screen before the command's own are seen.
pub(crate) fn command() -> clap::Command {
    let whole = Cli::command();
    let globals: Vec<_> = whole
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .map(|arg| arg.clone().hide(true))
        .collect();
    let names = globals.iter().filter_map(|arg| {
        let long = arg.get_long()?;
        Some(match arg.get_short() {
            Some(short) => format!("-{short}/--{long}"),
            None => format!("--{long}"),
        })
    });
    let names: Vec<_> = names.collect();
    let after = format!(
        "Global options (`gonfalon --help` explains them): {}",
        names.join(", ")
    );
    whole
        .mut_subcommands(|command| brief(command, &globals, &after))
        .subcommand(serve())
}

/// A command, and those below it, with the global flags hidden from the help.
fn brief(command: clap::Command, globals: &[clap::Arg], after: &str) -> clap::Command {
    command
        .mut_subcommands(|command| brief(command, globals, after))
        .args(globals)
        .after_help(after.to_owned())
}

/// The whole command line for scripts that complete it: `serve` has its own options and no others.
pub(crate) fn completed() -> clap::Command {
    let mut whole = Cli::command().subcommand(serve());
    whole.set_bin_name("gonfalon");
    // Here the global flags go to all commands, of which `serve` is none.
    whole.build();
    whole.mut_subcommand("serve", |_| serve().bin_name("gonfalon serve"))
}

/// `serve` with its options, for the help and for completion.
///
/// It is not read with this. Its options are in Go's syntax, so that etcd's command lines work, and
/// come from the server's own table.
fn serve() -> clap::Command {
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
    serve.display_order(0)
}

/// What a command line of etcdctl asks for that is not there; none if it is wrong in another way.
pub(crate) fn absent(error: &clap::Error, argv: &[OsString]) -> Option<Failure> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let of_member = argv.iter().any(|word| word == "member");
    Some(Failure::usage(match word.as_str() {
        "user" | "role" | "auth" => format!("{word}: users and roles are not there yet"),
        "add" | "remove" | "update" | "promote" if of_member => {
            format!("member {word}: members cannot be added, removed or changed yet")
        }
        _ => return None,
    }))
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
    fn our_variables_go_before_etcdctls() {
        let vars = [
            ("ETCDCTL_ENDPOINTS", "a:1"),
            ("GONFALON_ENDPOINTS", "b:2,c:3"),
            ("ETCDCTL_DIAL_TIMEOUT", "1s"),
            ("GONFALON_DIAL_TIMEOUT", "3s"),
        ];
        let settings = settle("g version", &vars).unwrap();
        assert_eq!(settings.endpoints, ["b:2", "c:3"]);
        assert_eq!(settings.dial_timeout, Duration::from_secs(3));
    }

    /// What `gonfalon PATH... FLAG` prints.
    fn help(path: &[&str], flag: &str) -> String {
        let argv = [&["gonfalon"], path, &[flag]].concat();
        let shown = command().try_get_matches_from(argv).unwrap_err();
        assert_eq!(shown.kind(), clap::error::ErrorKind::DisplayHelp);
        shown.to_string()
    }

    #[test]
    fn the_help_of_each_command_fits_a_screen() {
        let whole = command();
        let commands = whole.get_subcommands().filter(|c| c.get_name() != "serve");
        for command in commands {
            let name = command.get_name();
            let inner = command.get_subcommands().map(|c| vec![name, c.get_name()]);
            for path in inner.chain([vec![name]]) {
                for flag in ["-h", "--help"] {
                    let text = help(&path, flag);
                    let lines = text.lines().count();
                    assert!(lines <= 40, "{path:?} {flag}: {lines} lines:\n{text}");
                    assert!(text.contains("-w/--write-out"), "{path:?} {flag}:\n{text}");
                }
            }
        }
        let whole = help(&[], "--help");
        for flag in [
            "--endpoints <",
            "--keepalive-timeout <",
            "--insecure-transport[",
        ] {
            assert!(whole.contains(flag), "{flag}:\n{whole}");
        }
    }

    #[test]
    fn serve_is_completed_with_its_own_options_alone() {
        let whole = completed();
        let flags = |name: &str| {
            let command = whole.find_subcommand(name).unwrap();
            command
                .get_arguments()
                .filter_map(clap::Arg::get_long)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(flags("get").contains(&"endpoints".to_owned()));
        let serve = flags("serve");
        assert!(serve.contains(&"data-dir".to_owned()));
        for foreign in ["endpoints", "write-out", "hex", "dial-timeout"] {
            assert!(!serve.contains(&foreign.to_owned()), "{foreign}");
        }
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

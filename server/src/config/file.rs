//! The config file: YAML, of which JSON is a part. Keys are flags; a few come in groups.

use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use super::Options;
use super::error::{ConfigError, Origin};
use super::table::{self, Kind, Opt};

/// Keys that hold a group of options, and what an option's flag is made of: the group's beginning
/// and the key inside it.
const GROUPS: [(&str, &str); 4] = [
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
    ("socket-options", "socket-"),
    ("discovery-config", "discovery-"),
];

/// A key of a group whose flag is not simply the group's beginning and the key.
const RENAMED: [(&str, &str, &str); 9] = [
    (
        "client-transport-security",
        "allowed-cn",
        "client-cert-allowed-hostname",
    ),
    (
        "client-transport-security",
        "allowed-hostname",
        "client-cert-allowed-hostname",
    ),
    ("client-transport-security", "crl-file", "client-crl-file"),
    (
        "client-transport-security",
        "skip-client-san-verification",
        "peer-skip-client-san-verification",
    ),
    (
        "peer-transport-security",
        "allowed-cn",
        "peer-cert-allowed-cn",
    ),
    (
        "peer-transport-security",
        "allowed-hostname",
        "peer-cert-allowed-hostname",
    ),
    ("discovery-config", "discovery", "discovery"),
    ("discovery-config", "endpoints", "discovery-endpoints"),
    ("discovery-config", "token", "discovery-token"),
];

/// Reads the options in a file.
pub(super) fn read(path: &Path) -> Result<Options, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|err| ConfigError::File {
        path: path.to_owned(),
        why: err.to_string(),
    })?;
    parse(path, &text)
}

/// Reads the options in a file's text.
fn parse(path: &Path, text: &str) -> Result<Options, ConfigError> {
    let file = |why: String| ConfigError::File {
        path: path.to_owned(),
        why,
    };
    let mut documents = YamlLoader::load_from_str(text).map_err(|err| file(err.to_string()))?;
    let mut reader = Reader {
        path,
        options: Options::default(),
    };
    match (documents.pop(), documents.is_empty()) {
        (None | Some(Yaml::Null), true) => {}
        (Some(Yaml::Hash(map)), true) => {
            for (key, value) in &map {
                reader.entry(key, value)?;
            }
        }
        _ => return Err(file("must be one mapping of options to values".to_owned())),
    }
    Ok(reader.options)
}

struct Reader<'a> {
    path: &'a Path,
    options: Options,
}

impl Reader<'_> {
    fn entry(&mut self, key: &Yaml, value: &Yaml) -> Result<(), ConfigError> {
        let key = self.name(key)?;
        let Some((group, begin)) = GROUPS.iter().find(|(group, _)| *group == key) else {
            let opt = table::find(key).filter(|opt| opt.flag != table::CONFIG_FILE.flag);
            let Some(opt) = opt else {
                self.unknown(key, table::nearest(key));
                return Ok(());
            };
            return self.put(opt, key.to_owned(), value);
        };
        let members = match value {
            Yaml::Null => return Ok(()),
            Yaml::Hash(members) => members,
            _ => return Err(self.wrong(key, "must be a mapping")),
        };
        for (inner, value) in members {
            let inner = self.name(inner)?;
            let renamed = RENAMED
                .iter()
                .find(|(of, from, _)| of == group && *from == inner);
            let flag =
                renamed.map_or_else(|| format!("{begin}{inner}"), |(_, _, to)| (*to).to_owned());
            let path = format!("{key}.{inner}");
            match table::find(&flag) {
                Some(opt) => self.put(opt, path, value)?,
                None => self.unknown(&path, None),
            }
        }
        Ok(())
    }

    fn put(&mut self, opt: &'static Opt, key: String, value: &Yaml) -> Result<(), ConfigError> {
        if let Some(text) = self.text(opt, &key, value)? {
            self.options.put(opt, text, Origin::Key(key));
        }
        Ok(())
    }

    /// A value as it would be typed on a command line; `None` where nothing stands.
    fn text(&self, opt: &Opt, key: &str, value: &Yaml) -> Result<Option<String>, ConfigError> {
        Ok(Some(match value {
            Yaml::Null => return Ok(None),
            Yaml::String(text) if text.is_empty() => return Ok(None),
            Yaml::String(text) | Yaml::Real(text) => text.clone(),
            Yaml::Boolean(flag) => flag.to_string(),
            // etcd's file format is Go's: a duration as a number counts nanoseconds.
            Yaml::Integer(nanos) if matches!(opt.kind, Kind::Duration { .. }) => {
                format!("{nanos}ns")
            }
            Yaml::Integer(number) => number.to_string(),
            Yaml::Array(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match item {
                        Yaml::Array(_) => return Err(self.wrong(key, "must be a plain list")),
                        item => texts.extend(self.text(opt, key, item)?),
                    }
                }
                if texts.is_empty() {
                    return Ok(None);
                }
                texts.join(",")
            }
            Yaml::Hash(_) => return Err(self.wrong(key, "must be a plain value, not a mapping")),
            Yaml::Alias(_) | Yaml::BadValue => return Err(self.wrong(key, "has no readable value")),
        }))
    }

    fn name<'k>(&self, key: &'k Yaml) -> Result<&'k str, ConfigError> {
        let why = || "has a key that is not text".to_owned();
        key.as_str().ok_or_else(|| ConfigError::File {
            path: self.path.to_owned(),
            why: why(),
        })
    }

    fn wrong(&self, key: &str, why: &str) -> ConfigError {
        ConfigError::File {
            path: self.path.to_owned(),
            why: format!("key {key:?} {why}"),
        }
    }

    fn unknown(&mut self, key: &str, nearest: Option<&'static str>) {
        self.options.unknown_keys.push(ConfigError::UnknownKey {
            path: self.path.to_owned(),
            key: key.to_owned(),
            nearest,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let options = parse(Path::new("conf.yml"), text).map_err(|err| err.to_string())?;
        options.resolve().map_err(|err| err.to_string())
    }

    #[test]
    fn a_file_in_the_shape_of_etcds_sample_is_read() {
        let config = load(
            "# comment
name: 'm1'
data-dir:
wal-dir:
snapshot-count: 20000
heartbeat-interval: 200
election-timeout: 2000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:7001
listen-client-urls: http://localhost:7000, http://127.0.0.1:7002
advertise-client-urls: http://localhost:7000
max-snapshots: 5
cors:
initial-cluster-token: 'etcd-cluster'
discovery-fallback: 'exit'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
client-transport-security:
  cert-file:
  client-cert-auth: false
  allowed-hostname: []
peer-transport-security:
  key-file: ''
  client-cert-auth: false
self-signed-cert-validity: 1
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
log-level: debug
logger: zap
log-outputs: [stderr, /var/log/g.log]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: \"1\"
watch-progress-notify-interval: 5000000000
socket-options:
  reuse-port: true
",
        )
        .unwrap();
        assert_eq!(config.name, "m1");
        assert_eq!(config.data_dir, Path::new("m1.gonfalon"));
        assert_eq!(config.election_timeout.as_millis(), 2000);
        assert_eq!(config.listen_client.len(), 2);
        assert_eq!(config.watch_progress_notify_interval.as_secs(), 5);
        assert_eq!(config.log.outputs.len(), 2);
        assert!(config.socket_reuse_port);
        assert_eq!(
            config.notes,
            [
                "key \"cipher-suites\" of the config file changes nothing: TLS is not supported yet",
                "key \"enable-pprof\" of the config file changes nothing: there are no Go profiles \
                 here; use perf",
                "key \"strict-reconfig-check\" of the config file changes nothing: members cannot be \
                 added or removed yet",
            ]
        );
    }

    #[test]
    fn json_is_read_too() {
        let config = load(r#"{"name": "j", "pre-vote": false, "max-txn-ops": 5}"#).unwrap();
        assert_eq!(
            (config.name.as_str(), config.pre_vote, config.txn_ops_max),
            ("j", false, 5)
        );
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(load("").unwrap(), Options::default().resolve().unwrap());
        assert_eq!(
            load("# nothing\n").unwrap(),
            Options::default().resolve().unwrap()
        );
    }

    #[test]
    fn a_program_called_etcd_passes_over_what_it_does_not_know_and_says_so() {
        let text = "nope: 3\nname: a\nsocket-options: {reuse: true}\n";
        let options = parse(Path::new("conf.yml"), text).unwrap();
        let config = options.called_etcd().resolve().unwrap();
        assert_eq!(config.name, "a");
        assert_eq!(
            config.notes,
            [
                "config file conf.yml: unknown key \"nope\"; it is passed over, as by etcd",
                "config file conf.yml: unknown key \"socket-options.reuse\"; it is passed over, as by \
                 etcd"
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_one_line() {
        let cases = [
            ("nane: a", "unknown key \"nane\" (did you mean name?)"),
            ("config-file: x", "unknown key \"config-file\""),
            (
                "socket-options: {reuse: true}",
                "unknown key \"socket-options.reuse\"",
            ),
            (
                "socket-options: 3",
                "key \"socket-options\" must be a mapping",
            ),
            (
                "client-transport-security: {cert-file: a.pem}",
                "TLS is not supported yet",
            ),
            (
                "peer-transport-security: {auto-tls: true}",
                "TLS is not supported yet",
            ),
            (
                "watch-progress-notify-interval: 5",
                "must be at least 100ms",
            ),
            ("name: {a: b}", "must be a plain value"),
            ("- name", "must be one mapping"),
            ("name: a\nname: b", "config file conf.yml"),
            ("name: 'a", "config file conf.yml"),
            (
                "election-timeout: x",
                "key \"election-timeout\" of the config file",
            ),
        ];
        for (text, want) in cases {
            let err = load(text).unwrap_err();
            assert!(err.contains(want), "{text}: {err}");
            assert!(!err.contains('\n'), "{text}: {err}");
        }
    }
}

//! Examples of configurations that are taken and of those that are refused.

use std::path::Path;
use std::time::Duration;

use super::super::{Config, ConfigError, Invocation, Options};
use super::*;

fn read(line: &str, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let vars: Vec<_> = vars
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    match Options::read(&args, &vars)? {
        Invocation::Run(options) => options.resolve(),
        other => panic!("{line} asks for {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    match read(line, &[]) {
        Ok(_) => panic!("{line} was taken"),
        Err(err) => err.to_string(),
    }
}

#[test]
fn with_nothing_given_all_is_as_with_etcd() {
    let config = read("", &[]).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.gonfalon"));
    assert_eq!(config.listen_client[0].to_string(), "http://localhost:2379");
    assert_eq!(
        config.initial.cluster[0].peer_urls[0].to_string(),
        "http://localhost:2380"
    );
    assert_eq!(config.initial.token, "etcd-cluster");
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_secs(1));
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.quota_bytes, Some(2_147_483_648));
    assert_eq!(
        (config.txn_ops_max, config.request_bytes_max),
        (128, 1_572_864)
    );
    assert_eq!(config.concurrent_streams_max, u32::MAX);
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!(
        config.watch_progress_notify_interval,
        Duration::from_mins(10)
    );
    assert!(config.pre_vote);
    assert_eq!(config.log.outputs, [LogOutput::Stderr]);
    assert_eq!(config.notes, Vec::<String>::new());
}

#[test]
fn a_command_line_of_three_members_is_read() {
    let config = read(
        "--name m2 --data-dir /d --listen-client-urls http://0.0.0.0:7012 \
         --advertise-client-urls http://10.0.0.2:7012 --listen-peer-urls http://0.0.0.0:7022 \
         --initial-advertise-peer-urls http://10.0.0.2:7022 --initial-cluster-state existing \
         --initial-cluster m1=http://10.0.0.1:7022,m2=http://10.0.0.2:7022,m3=http://10.0.0.3:7022",
        &[],
    )
    .unwrap();
    assert_eq!(config.initial.cluster.len(), 3);
    assert_eq!(config.initial.state, InitialState::Existing);
    assert_eq!(config.listen_peer[0].address.to_string(), "0.0.0.0:7022");
    assert_eq!(
        config.advertise_client_urls[0].to_string(),
        "http://10.0.0.2:7012"
    );
    config.verify_first_boot().unwrap();
}

#[test]
fn peers_are_told_where_this_member_listens_unless_something_else_is_said() {
    let config = read("--listen-peer-urls http://127.0.0.1:7022", &[]).unwrap();
    assert_eq!(
        config.initial.advertise_peer_urls[0].to_string(),
        "http://127.0.0.1:7022"
    );
    let config = read("--listen-peer-urls http://0.0.0.0:7022", &[]).unwrap();
    assert_eq!(
        config.initial.advertise_peer_urls[0].to_string(),
        "http://localhost:7022"
    );
}

#[test]
fn listening_elsewhere_means_saying_where() {
    assert_eq!(
        refusal("--listen-client-urls http://localhost:7012"),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
}

#[test]
fn elections_take_at_least_five_heartbeats() {
    assert_eq!(
        refusal("--heartbeat-interval 300"),
        "--election-timeout (1000 ms) must be at least 5 times --heartbeat-interval (300 ms)"
    );
    assert!(read("--heartbeat-interval 200", &[]).is_ok());
    assert!(refusal("--election-timeout 50001").contains("must be at most 50s"));
    assert!(read("--election-timeout 50000", &[]).is_ok());
}

fn revisions_kept(keep: i64) -> AutoCompaction {
    AutoCompaction::Revisions {
        keep,
        every: Duration::from_mins(5),
    }
}

#[test]
fn retention_is_hours_a_duration_or_revisions() {
    let hour = Duration::from_hours(1);
    let cases = [
        ("--auto-compaction-retention 0", AutoCompaction::Off),
        (
            "--auto-compaction-retention 2",
            AutoCompaction::Periodic(hour * 2),
        ),
        (
            "--auto-compaction-retention 5m",
            AutoCompaction::Periodic(hour / 12),
        ),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 1000",
            revisions_kept(1000),
        ),
        ("--auto-compaction-mode revision", AutoCompaction::Off),
    ];
    for (line, want) in cases {
        assert_eq!(read(line, &[]).unwrap().auto_compaction, want, "{line}");
    }
    assert!(
        refusal("--auto-compaction-mode revision --auto-compaction-retention 5m")
            .contains("number of revisions")
    );
    assert!(refusal("--auto-compaction-mode weekly").contains("write one of periodic, revision"));
}

#[test]
fn retention_is_as_long_as_etcds_may_be() {
    let revisions = |number: &str| {
        let line = "--auto-compaction-mode revision --auto-compaction-retention";
        read(&format!("{line} {number}"), &[]).map(|config| config.auto_compaction)
    };
    let most = i64::MAX.to_string();
    assert_eq!(revisions("4294967296").unwrap(), revisions_kept(1 << 32));
    assert_eq!(revisions(&most).unwrap(), revisions_kept(i64::MAX));
    let refused = revisions("9223372036854775808").unwrap_err().to_string();
    assert!(
        refused.contains(&format!("must be at most {most}")),
        "{refused}"
    );
    for hours in [1 << 32, u64::MAX] {
        let line = format!("--auto-compaction-retention {hours}");
        let AutoCompaction::Periodic(kept) = read(&line, &[]).unwrap().auto_compaction else {
            panic!("{line} is a time");
        };
        assert!(kept >= Duration::from_hours(1 << 32), "{line}: {kept:?}");
    }
}

#[test]
fn a_snapshot_count_of_zero_is_the_default() {
    assert_eq!(
        read("--snapshot-count 0", &[]).unwrap().snapshot_count,
        10_000
    );
}

/// As in etcd, which finds it in no cluster but one that has such a member.
#[test]
fn a_member_may_have_an_empty_name_if_its_cluster_says_so() {
    let refused = read("--name=", &[]).unwrap().verify_first_boot();
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("couldn't find local name \"\""),
        "{refused}"
    );

    let config = read("--name= --initial-cluster==http://localhost:2380", &[]).unwrap();
    config.verify_first_boot().unwrap();
    assert_eq!(
        config.notes,
        ["--name is empty: lists show this member as one that never started"]
    );
}

#[test]
fn the_data_of_what_is_called_etcd_is_where_etcds_is() {
    let args = ["--name=a".to_owned()];
    let Ok(Invocation::Run(options)) = Options::read(&args, &[]) else {
        panic!("a command line that is fine");
    };
    let config = options.clone().called_etcd().resolve().unwrap();
    assert_eq!(config.data_dir, Path::new("a.etcd"));
    assert_eq!(options.resolve().unwrap().data_dir, Path::new("a.gonfalon"));
}

#[test]
fn scripts_of_the_origins_that_are_listed_may_read_pages() {
    assert_eq!(read("", &[]).unwrap().cors, ["*"]);
    let listed = read("--cors http://a.example,https://b.example:8443", &[]).unwrap();
    assert_eq!(listed.cors, ["http://a.example", "https://b.example:8443"]);
    for line in ["--cors=", "--cors=a.example", "--cors=*,"] {
        let refused = refusal(line);
        assert!(refused.contains("write *, or origins"), "{line}: {refused}");
    }
}

#[test]
fn what_etcd_would_not_understand_is_refused_even_where_it_changes_nothing() {
    for (line, want) in [
        ("--backend-batch-limit=notanumber", "write a whole number"),
        ("--warning-apply-duration=banana", "write a duration"),
        (
            "--experimental-warning-apply-duration=banana",
            "write a duration",
        ),
        ("--max-learners=-7", "must be at least 1"),
        ("--max-snapshots=-1", "must be at least 0"),
        ("--max-wals=x", "write a whole number"),
        ("--grpc-keepalive-min-time=x", "write a duration"),
        ("--backend-batch-interval=", "write a duration"),
        ("--tls-min-version=SSL3", "write one of TLS1.2, TLS1.3"),
    ] {
        let refused = refusal(line);
        assert!(refused.contains(want), "{line}: {refused}");
    }
    // What etcd takes, however odd.
    for (line, notes) in [
        ("--backend-batch-limit=-1", 1),
        ("--backend-batch-interval=0", 0),
        ("--grpc-keepalive-min-time=5000ms", 0),
        ("--max-wals=05", 0),
        ("--bcrypt-cost=1000", 1),
    ] {
        assert_eq!(read(line, &[]).unwrap().notes.len(), notes, "{line}");
    }
}

#[test]
fn a_quota_below_zero_is_none() {
    assert_eq!(
        read("--quota-backend-bytes -1", &[]).unwrap().quota_bytes,
        None
    );
    assert_eq!(
        read("--quota-backend-bytes 4GiB", &[]).unwrap().quota_bytes,
        Some(4 << 30)
    );
}

#[test]
fn no_address_is_listened_at_twice() {
    assert_eq!(
        refusal("--listen-metrics-urls http://127.0.0.1:2379"),
        "--listen-client-urls and --listen-metrics-urls both have http://127.0.0.1:2379"
    );
    assert_eq!(
        refusal("--listen-peer-urls http://localhost:7,http://127.0.0.1:7"),
        "--listen-peer-urls has http://127.0.0.1:7 twice"
    );
    assert!(
        read(
            "--listen-metrics-urls http://127.0.0.1:0,http://127.0.0.1:0",
            &[]
        )
        .is_ok()
    );
}

#[test]
fn values_out_of_bounds_are_refused_with_the_bound() {
    let cases = [
        (
            "--max-txn-ops 0",
            "--max-txn-ops: \"0\": must be at least 1",
        ),
        (
            "--max-concurrent-streams 4294967296",
            "must be at most 4294967295",
        ),
        ("--snapshot-count many", "write a whole number"),
        (
            "--watch-progress-notify-interval 50ms",
            "must be at least 100ms",
        ),
        ("--grpc-keepalive-interval 5", "write a duration"),
        ("--pre-vote=perhaps", "write true or false"),
        (
            "--log-outputs stderr,,x",
            "write stderr, stdout or a file's path",
        ),
    ];
    for (line, want) in cases {
        let err = refusal(line);
        assert!(err.contains(want), "{line}: {err}");
    }
}

#[test]
fn a_flag_that_cannot_be_read_is_the_command_lines_fault_and_a_rule_is_not() {
    assert_eq!(read("--max-txn-ops x", &[]).unwrap_err().exit_code(), 2);
    assert_eq!(
        read("--heartbeat-interval 300", &[])
            .unwrap_err()
            .exit_code(),
        1
    );
    assert_eq!(
        read("", &[("GONFALON_MAX_TXN_OPS", "x")])
            .unwrap_err()
            .exit_code(),
        1
    );
}

#[test]
fn a_promise_that_would_not_be_kept_is_refused() {
    assert_eq!(
        refusal("--cert-file server.pem"),
        "--cert-file: TLS is not supported yet; remove it, or end TLS in front of the server"
    );
    for line in [
        "--client-cert-auth",
        "--auth-token jwt,pub-key=a",
        "--discovery-srv example.com",
        "--force-new-cluster",
        "--wal-dir /fast",
        "--experimental-enable-v2v3 /v2",
        "--peer-auto-tls=true",
    ] {
        assert!(
            matches!(read(line, &[]), Err(ConfigError::Unsupported { .. })),
            "{line}"
        );
    }
    for line in [
        "--client-cert-auth=false",
        "--auth-token simple",
        "--force-new-cluster=0",
    ] {
        assert_eq!(
            read(line, &[]).unwrap().notes,
            Vec::<String>::new(),
            "{line}"
        );
    }
}

#[test]
fn what_only_tunes_etcds_insides_is_taken_and_noted() {
    let config = read(
        "--backend-batch-limit 5000 --max-wals 5 --feature-gates=InitialCorruptCheck=true \
         --experimental-initial-corrupt-check=true --experimental-wait-cluster-ready-timeout=9s",
        &[],
    )
    .unwrap();
    assert_eq!(
        config.notes,
        [
            "--backend-batch-limit changes nothing: it tunes etcd's storage engine, which is not \
             used here",
            "--experimental-initial-corrupt-check changes nothing: no check of the data against \
             other members is made yet",
            "--experimental-wait-cluster-ready-timeout changes nothing: clients are served at \
             once, and what needs a leader waits for one",
            "feature gate InitialCorruptCheck changes nothing: no check of the data against other \
             members is made yet",
        ]
    );
}

#[test]
fn every_option_that_changes_nothing_is_noted_when_it_is_set() {
    let mut noted = 0;
    for option in crate::config::options() {
        let Standing::Accepted(why) = option.standing else {
            continue;
        };
        // Gates have notes of their own.
        if option.flag == "feature-gates" {
            continue;
        }
        let value = match option.kind {
            Kind::Bool if option.default == "true" => "false",
            Kind::Bool => "true",
            Kind::Number { .. } => "7777",
            Kind::Duration { .. } => "7777s",
            Kind::Choice(words) => *words.iter().find(|word| **word != option.default).unwrap(),
            _ => "other",
        };
        for flag in option.spellings() {
            let line = format!("--{flag}={value}");
            let notes = read(&line, &[]).unwrap().notes;
            assert_eq!(
                notes,
                [format!("--{flag} changes nothing: {why}")],
                "{line}"
            );
            noted += 1;
        }
    }
    assert!(noted > 30, "{noted} options");
}

#[test]
fn a_data_directory_without_a_name_is_refused_where_somebody_wrote_it() {
    assert_eq!(
        refusal("--data-dir="),
        "--data-dir: \"\": write a directory's path, or leave the flag out"
    );
    let config = read("", &[("ETCD_DATA_DIR", "")]).unwrap();
    assert_eq!(config.data_dir, Path::new("default.gonfalon"));
}

#[test]
fn compacted_history_is_swept_at_the_pace_asked_for() {
    for (line, batch_changes, ms) in [
        ("", 1000, 10),
        (
            "--compaction-batch-limit=7 --compaction-sleep-interval=1s",
            7,
            1000,
        ),
        ("--experimental-compaction-batch-limit 20", 20, 10),
        (
            "--compaction-batch-limit=0 --compaction-sleep-interval=0s",
            1000,
            10,
        ),
    ] {
        let want = Pace {
            batch_changes,
            pause: Duration::from_millis(ms),
        };
        assert_eq!(read(line, &[]).unwrap().sweep_pace, want, "{line}");
    }
}

#[test]
fn writes_wait_for_the_disk_unless_told_otherwise_and_then_it_is_said_aloud() {
    let config = read("", &[]).unwrap();
    assert_eq!(config.durability, Durability::Disk);
    let config = read("--unsafe-no-fsync", &[]).unwrap();
    assert_eq!(config.durability, Durability::System);
    let note = config.notes.join("\n");
    assert!(note.contains("NOT ON DISK"), "{note}");
}

#[test]
fn a_config_file_counts_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("conf.yml");
    std::fs::write(&path, "name: from-file\n").unwrap();
    let line = format!("--name from-flag --config-file {}", path.display());
    let config = read(&line, &[("GONFALON_SNAPSHOT_COUNT", "3")]).unwrap();
    assert_eq!(config.name, "from-file");
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(
        config.notes,
        ["a config file is given, so these are ignored: --name GONFALON_SNAPSHOT_COUNT"]
    );

    let var = path.to_str().unwrap();
    assert_eq!(
        read("", &[("ETCD_CONFIG_FILE", var)]).unwrap().name,
        "from-file"
    );
    assert!(refusal("--config-file /nowhere/conf.yml").contains("config file /nowhere/conf.yml"));
}

#[test]
fn unusual_values_are_noted() {
    let config = read(
        "--quota-backend-bytes 9GiB --max-request-bytes 11MiB \
         --advertise-client-urls http://0.0.0.0:2379",
        &[],
    )
    .unwrap();
    let notes = config.notes.join("\n");
    for word in ["8 GiB", "10 MiB", "no other machine can reach"] {
        assert!(notes.contains(word), "no note about {word}: {notes}");
    }
}

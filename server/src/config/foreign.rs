//! etcd's other options: those that change nothing here, and those that must not be ignored.
//!
//! What only tunes etcd's insides (its B-tree file, its peer transport) is accepted, so that a
//! command line written for etcd works; it is noted in the log. What promises something that would
//! not be kept (encryption, users, discovery) is refused unless it asks for the default.

use std::time::Duration;

use super::table::{Group, Kind, Opt, Standing};

use Standing::{Accepted, Refused};

const TLS: Standing =
    Refused("TLS is not supported yet; remove it, or end TLS in front of the server");
const DISCOVERY: Standing =
    Refused("discovery is not supported; list the members in --initial-cluster");
const V2: Standing = Refused("the v2 API does not exist here");
const TRACING: Standing = Refused("sending traces is not supported");
const AUTH: Standing = Refused("users and roles are not supported yet");
const NO_BTREE: Standing = Accepted("it tunes etcd's storage engine, which is not used here");
const NO_CHECK: Standing = Accepted("no check of the data against other members is made yet");
const CHECKPOINTS: Standing = Accepted("after an election leases last as long again, as in etcd");
const ONE_TRANSPORT: Standing = Accepted("members talk over one multiplexed connection");
const NO_MEMBERS: Standing = Accepted("members cannot be added or removed yet");
const SLOW: Standing = Accepted("slow requests are seen in the metrics, not in the log");

pub(super) static FOREIGN: &[Opt] = &[
    text(
        "wal-dir",
        "",
        Refused("the log lives in --data-dir; put that on the faster disk"),
    ),
    switch(
        "socket-reuse-address",
        "false",
        Accepted("it is always so: a restart need not wait"),
    ),
    switch(
        "initial-election-tick-advance",
        "true",
        Accepted("the first election waits no longer than any other"),
    ),
    switch("strict-reconfig-check", "true", NO_MEMBERS),
    count(
        "max-snapshots",
        "5",
        Accepted("old snapshots are removed when nothing needs them"),
    ),
    count(
        "max-wals",
        "5",
        Accepted("the log is shortened after each snapshot"),
    ),
    also(
        switch("memory-mlock", "false", Refused("memory cannot be locked")),
        &["experimental-memory-mlock"],
    ),
    also(
        text("backend-bbolt-freelist-type", "map", NO_BTREE),
        &["experimental-backend-bbolt-freelist-type"],
    ),
    duration("backend-batch-interval", "0s", NO_BTREE),
    number("backend-batch-limit", "0", NO_BTREE),
    also(
        count("bootstrap-defrag-threshold-megabytes", "0", NO_BTREE),
        &["experimental-bootstrap-defrag-threshold-megabytes"],
    ),
    duration(
        "grpc-keepalive-min-time",
        "5s",
        Accepted("it is not enforced: clients may ping as often as they like"),
    ),
    duration("raft-read-timeout", "5s", ONE_TRANSPORT),
    duration("raft-write-timeout", "5s", ONE_TRANSPORT),
    text("feature-gates", "", Accepted("see the list of gates")),
    switch(
        "enable-grpc-gateway",
        "true",
        Accepted("the JSON gateway under /v3/ is not there yet"),
    ),
    text("discovery", "", DISCOVERY),
    text("discovery-token", "", DISCOVERY),
    text("discovery-endpoints", "", DISCOVERY),
    text("discovery-dial-timeout", "2s", DISCOVERY),
    text("discovery-request-timeout", "5s", DISCOVERY),
    text("discovery-keepalive-time", "2s", DISCOVERY),
    text("discovery-keepalive-timeout", "6s", DISCOVERY),
    switch("discovery-insecure-transport", "true", DISCOVERY),
    switch("discovery-insecure-skip-tls-verify", "false", DISCOVERY),
    text("discovery-cert", "", DISCOVERY),
    text("discovery-key", "", DISCOVERY),
    text("discovery-cacert", "", DISCOVERY),
    text("discovery-user", "", DISCOVERY),
    text("discovery-password", "", DISCOVERY),
    choice(
        "discovery-fallback",
        "exit",
        &["exit", "proxy"],
        Accepted("discovery is not supported"),
    ),
    text("discovery-proxy", "", DISCOVERY),
    text("discovery-srv", "", DISCOVERY),
    text("discovery-srv-name", "", DISCOVERY),
    text("cert-file", "", TLS),
    text("key-file", "", TLS),
    switch("client-cert-auth", "false", TLS),
    text("client-cert-file", "", TLS),
    text("client-key-file", "", TLS),
    text("client-crl-file", "", TLS),
    text("client-cert-allowed-hostname", "", TLS),
    text("trusted-ca-file", "", TLS),
    text("ca-file", "", TLS),
    switch("auto-tls", "false", TLS),
    text("peer-cert-file", "", TLS),
    text("peer-key-file", "", TLS),
    switch("peer-client-cert-auth", "false", TLS),
    text("peer-client-cert-file", "", TLS),
    text("peer-client-key-file", "", TLS),
    text("peer-trusted-ca-file", "", TLS),
    text("peer-ca-file", "", TLS),
    text("peer-crl-file", "", TLS),
    text("peer-cert-allowed-cn", "", TLS),
    text("peer-cert-allowed-hostname", "", TLS),
    switch("peer-auto-tls", "false", TLS),
    also(
        switch("peer-skip-client-san-verification", "false", TLS),
        &["experimental-peer-skip-client-san-verification"],
    ),
    count(
        "self-signed-cert-validity",
        "1",
        Accepted("no certificates are made"),
    ),
    text("cipher-suites", "", Accepted("TLS is not supported yet")),
    choice(
        "tls-min-version",
        "TLS1.2",
        &["TLS1.2", "TLS1.3"],
        Accepted("TLS is not supported yet"),
    ),
    choice(
        "tls-max-version",
        "",
        &["", "TLS1.2", "TLS1.3"],
        Accepted("TLS is not supported yet"),
    ),
    text(
        "host-whitelist",
        "*",
        Refused("only * is supported; filter hosts in front of the server"),
    ),
    text("auth-token", "simple", AUTH),
    count(
        "bcrypt-cost",
        "10",
        Accepted("users and roles are not supported yet"),
    ),
    count(
        "auth-token-ttl",
        "300",
        Accepted("users and roles are not supported yet"),
    ),
    switch(
        "enable-pprof",
        "false",
        Accepted("there are no Go profiles here; use perf"),
    ),
    text(
        "logger",
        "zap",
        Refused("only zap's formats are written; use --log-format"),
    ),
    switch("debug", "false", Refused("use --log-level=debug")),
    text("log-package-levels", "", Refused("use --log-level")),
    switch(
        "enable-log-rotation",
        "false",
        Refused("log to stderr, or rotate the file from outside"),
    ),
    text(
        "log-rotation-config-json",
        "",
        Accepted("logs are not rotated here"),
    ),
    also(
        duration("warning-unary-request-duration", "300ms", SLOW),
        &["experimental-warning-unary-request-duration"],
    ),
    also(
        duration("warning-apply-duration", "100ms", SLOW),
        &["experimental-warning-apply-duration"],
    ),
    also(
        switch("enable-distributed-tracing", "false", TRACING),
        &["experimental-enable-distributed-tracing"],
    ),
    also(
        text("distributed-tracing-address", "localhost:4317", TRACING),
        &["experimental-distributed-tracing-address"],
    ),
    also(
        text("distributed-tracing-service-name", "etcd", TRACING),
        &["experimental-distributed-tracing-service-name"],
    ),
    also(
        text("distributed-tracing-instance-id", "", TRACING),
        &["experimental-distributed-tracing-instance-id"],
    ),
    also(
        text("distributed-tracing-sampling-rate", "0", TRACING),
        &["experimental-distributed-tracing-sampling-rate"],
    ),
    also(
        duration("corrupt-check-time", "0s", NO_CHECK),
        &["experimental-corrupt-check-time"],
    ),
    also(
        duration("compact-hash-check-time", "1m", NO_CHECK),
        &["experimental-compact-hash-check-time"],
    ),
    switch("experimental-compact-hash-check-enabled", "false", NO_CHECK),
    switch("experimental-initial-corrupt-check", "false", NO_CHECK),
    also(
        at_least_one("max-learners", "1", NO_MEMBERS),
        &["experimental-max-learners"],
    ),
    also(
        duration(
            "downgrade-check-time",
            "5s",
            Accepted("there are no downgrades yet"),
        ),
        &["experimental-downgrade-check-time"],
    ),
    duration(
        "experimental-wait-cluster-ready-timeout",
        "5s",
        Accepted("clients are served at once, and what needs a leader waits for one"),
    ),
    switch("experimental-enable-lease-checkpoint", "false", CHECKPOINTS),
    switch(
        "experimental-enable-lease-checkpoint-persist",
        "false",
        CHECKPOINTS,
    ),
    switch(
        "experimental-stop-grpc-service-on-defrag",
        "false",
        Accepted("defragmenting does not stop the service"),
    ),
    switch(
        "experimental-txn-mode-write-with-shared-buffer",
        "true",
        NO_BTREE,
    ),
    switch(
        "experimental-set-member-localaddr",
        "false",
        Refused("the local address of connections between members cannot be chosen"),
    ),
    switch(
        "force-new-cluster",
        "false",
        Refused("making a new cluster of one member is not supported yet"),
    ),
    switch("enable-v2", "false", V2),
    text("experimental-enable-v2v3", "", V2),
    choice(
        "v2-deprecation",
        "write-only",
        &["not-yet", "write-only", "write-only-drop-data", "gone"],
        Accepted("there is no v2 API here"),
    ),
    text("proxy", "off", V2),
    count(
        "proxy-failure-wait",
        "5000",
        Accepted("there is no v2 proxy here"),
    ),
    count(
        "proxy-refresh-interval",
        "30000",
        Accepted("there is no v2 proxy here"),
    ),
    count(
        "proxy-dial-timeout",
        "1000",
        Accepted("there is no v2 proxy here"),
    ),
    count(
        "proxy-write-timeout",
        "5000",
        Accepted("there is no v2 proxy here"),
    ),
    count(
        "proxy-read-timeout",
        "0",
        Accepted("there is no v2 proxy here"),
    ),
];

const fn text(flag: &'static str, default: &'static str, standing: Standing) -> Opt {
    foreign(flag, Kind::Text, default, standing)
}

const fn number(flag: &'static str, default: &'static str, standing: Standing) -> Opt {
    numbers_from(i64::MIN, flag, default, standing)
}

const fn count(flag: &'static str, default: &'static str, standing: Standing) -> Opt {
    numbers_from(0, flag, default, standing)
}

const fn at_least_one(flag: &'static str, default: &'static str, standing: Standing) -> Opt {
    numbers_from(1, flag, default, standing)
}

const fn numbers_from(
    min: i64,
    flag: &'static str,
    default: &'static str,
    standing: Standing,
) -> Opt {
    let max = i64::MAX;
    foreign(flag, Kind::Number { min, max }, default, standing)
}

const fn duration(flag: &'static str, default: &'static str, standing: Standing) -> Opt {
    let min = Duration::ZERO;
    foreign(flag, Kind::Duration { min }, default, standing)
}

const fn choice(
    flag: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    standing: Standing,
) -> Opt {
    foreign(flag, Kind::Choice(words), default, standing)
}

const fn switch(flag: &'static str, default: &'static str, standing: Standing) -> Opt {
    foreign(flag, Kind::Bool, default, standing)
}

const fn also(mut opt: Opt, also: &'static [&'static str]) -> Opt {
    opt.also = also;
    opt
}

const fn foreign(flag: &'static str, kind: Kind, default: &'static str, standing: Standing) -> Opt {
    Opt {
        flag,
        also: &[],
        kind,
        default,
        group: Group::Foreign,
        standing,
        help: "",
    }
}

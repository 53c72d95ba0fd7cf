//! How we prove that Gonfalon is etcd.
//!
//! Real processes on loopback ([`cluster`]), the same seeded calls to a real etcd and to Gonfalon
//! ([`differential`]), and histories of concurrent clients that are checked after the fact
//! ([`workload`], [`history`], [`check`]). The suites are the files of `tests/tests/`; README.md
//! says how to run them, their long forms, and them against a real etcd.

pub mod binaries;
pub mod check;
pub mod client;
pub mod cluster;
pub mod differential;
pub mod etcdctl;
pub mod history;
pub mod process;
pub mod raw;
pub mod relay;
pub mod requests;
pub mod streams;
pub mod workload;

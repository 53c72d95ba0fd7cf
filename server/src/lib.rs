//! One member of a Gonfalon cluster: Raft, storage, and the etcd v3 API on top of them.

pub mod config;
pub mod node;
pub mod raft;
pub mod storage;
pub mod store;

//! One member of a Gonfalon cluster: Raft, storage, and the etcd v3 API on top of them.

pub mod api;
pub mod config;
mod http;
pub mod limits;
mod listen;
pub mod metrics;
pub mod node;
pub mod raft;
pub mod server;
pub mod storage;
pub mod store;
pub mod tasks;
pub mod version;
pub mod watch;

pub use server::{Server, ServerError};

//! What this server says it is.
//!
//! Clients of etcd decide by its version what they may ask for (Kubernetes gates features on it), so
//! we name the etcd whose API and behaviour this is; our own version stands beside it.

/// The etcd release whose API this is: `Status.version`, `/version`, `etcd --version`.
pub const ETCD: &str = "3.7.1";

/// The version that the members of a cluster have in common, as etcd writes it: no patch number.
pub const CLUSTER: &str = "3.7.0";

/// The same as metrics have it: two numbers.
pub const CLUSTER_SHORT: &str = "3.7";

/// The version of the storage's format, in etcd's terms: `Status.storageVersion`.
pub const STORAGE: &str = "3.7.0";

/// Our own.
pub const GONFALON: &str = env!("CARGO_PKG_VERSION");

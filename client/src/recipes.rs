//! What is built of keys, leases and watches: locks and elections.
//!
//! Both are the same queue (`queue.rs`): every contender puts a key with its lease behind the same
//! prefix, and the one whose key was created first has it. The keys are where etcd's own recipes put
//! theirs, `<name>/<lease in hexadecimal>`, with `-<number>` after it, so that users of etcd's
//! libraries and tools wait for ours and ours for theirs.
//!
//! Nobody who holds a lock or leads can know, at the moment of an act outside of the store, that he
//! still does: the process may be stopped for longer than its lease between the check and the act.
//! Writes to the store are safe through [`LockGuard::txn`]; anything else must be given
//! [`LockGuard::fence`] and refuse what is lower than it has seen.

mod election;
mod lock;
mod queue;

pub use election::{Election, Leader, LeaderChanges, LeaderState, Leadership};
pub use lock::{Lock, LockGuard};

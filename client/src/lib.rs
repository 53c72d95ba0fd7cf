//! A client of Gonfalon, and of etcd: both speak the same v3 API.
//!
//! ```no_run
//! # async fn example() -> Result<(), gonfalon::Error> {
//! use gonfalon::{Client, KeyRange};
//!
//! let client = Client::connect("http://127.0.0.1:2379").await?;
//! client.put("/config/limit", "100").await?;
//! let limit = client.get("/config/limit").await?.expect("it was just put");
//! assert_eq!(limit.value, "100");
//!
//! let mut changes = client.watch(KeyRange::prefix("/config/")).await?;
//! while let Some(batch) = changes.next().await {
//!     for event in batch?.events {
//!         println!("{:?} is now {:?}", event.kv.key, event.kv.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied upon
//!
//! - **Reads are linearizable** unless a call says otherwise.
//! - **A write is never sent twice** unless the first attempt is known not to have taken place; what
//!   cannot be known is said: [`Error::outcome`] is [`Outcome::Unknown`].
//! - **Every call ends**: it has a deadline, also when every server is gone.
//! - **A watch loses and repeats nothing** when connections break and members die; it hands over
//!   whole revisions, in order.
//! - **Handles are cheap to clone**, can be shared among threads, and need no `&mut`.

mod cache;
mod call;
mod client;
mod clock;
mod cluster;
mod credentials;
mod error;
mod kv;
mod lease;
mod maintenance;
mod op;
mod options;
mod orders;
mod recipes;
#[cfg(feature = "testkit")]
pub mod testkit;
mod transport;
mod txn;
mod types;
mod watch;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub use cache::internals;
pub use cache::{
    Cache, CacheBuilder, CacheSource, CacheStatus, Cached, CachedBuilder, CachedStructBuilder,
    Change, Changes, DiskCopy, Loaded, LossGuard, Snapshot, StatusChanges, ValueChanges,
    ValueError, ValueState, Withheld,
};
pub use client::Client;
pub use cluster::{Cluster, Member};
pub use error::{Error, ErrorKind, Outcome};
pub use kv::{Delete, Deleted, Get, Pages, Put, PutResult, Range, RangePage, Swap, Swapped};
pub use lease::{Grant, Lease, LeaseInfo, LeaseStatus, LostReason};
pub use maintenance::{Maintenance, MemberStatus};
pub use op::{DeleteOp, Op, PutOp, RangeOp, SortBy, SortOrder};
pub use options::{ClientBuilder, IntoEndpoints};
pub use recipes::{
    Barrier, Claim, Contender, Counter, DoubleBarrier, DoubleBarrierGuard, Election, Fence,
    Isolation, Leader, LeaderChanges, LeaderContext, LeaderState, Leadership, Led, Lock, LockGuard,
    MultiLock, MultiLockGuard, Permit, PriorityQueue, Queue, RwLock, RwLockReadGuard,
    RwLockWriteGuard, Semaphore, Stm, StmTxn,
};
pub use transport::ConnectionState;
pub use txn::{Compare, OpResult, Operand, Subject, Txn, TxnOp, TxnResult};
pub use types::{Event, EventKind, IntoBytes, KeyRange, KeyValue, LeaseId, Revision};
pub use watch::{Batch, OnCompacted, Overflow, Watch, WatchBuilder, WatchState};

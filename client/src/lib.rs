//! A client of Gonfalon, and of etcd: both speak the same v3 API.
//!
//! ```
//! use gonfalon::{Client, KeyRange};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), gonfalon::Error> {
//! # struct Client;
//! # impl Client {
//! #     // A server in memory instead of the one that is named.
//! #     async fn connect(_: &str) -> Result<gonfalon::Client, gonfalon::Error> {
//! #         let server = Box::leak(Box::new(gonfalon::testkit::FakeServer::start()));
//! #         Ok(server.client())
//! #     }
//! # }
//! let client = Client::connect("http://127.0.0.1:2379").await?;
//! client.put("/config/limit", "100").await?;
//! let limit = client.get("/config/limit").await?.expect("it was just put");
//! assert_eq!(limit.value, "100");
//!
//! let mut changes = client.watch(KeyRange::prefix("/config/")).await?;
//! # client.put("/config/limit", "200").await?;
//! while let Some(batch) = changes.next().await {
//!     for event in batch?.events {
//!         println!("{:?} is now {:?}", event.kv.key, event.kv.value);
//!     }
//! #   break;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! - **Keys**: [`get`](Client::get), [`put`](Client::put), [`range`](Client::range) with
//!   [pages](Range::pages) at one revision, [`delete`](Client::delete), [`txn`](Client::txn),
//!   [`compare_and_swap`](Client::compare_and_swap). Builders: settings first, then `.await`.
//! - **Watches**: [`watch`](Client::watch), a stream of batches of whole revisions.
//! - **Leases**: [`grant`](Client::grant); kept alive while the [`Lease`] lives.
//! - **Caches**: [`cache`](Client::cache), a range of keys in memory at one revision, and
//!   [`cached`](Client::cached), one key as a type of your own.
//! - **Recipes**: [`lock`](Client::lock), [`election`](Client::election), read-write locks,
//!   semaphores, barriers, queues, counters, transactions as functions; under etcd's own keys, so that
//!   its recipes and these exclude each other.
//! - **Without async**: [`blocking`].
//! - **The cluster**: [`cluster`](Client::cluster), [`maintenance`](Client::maintenance).
//!
//! ```
//! # use std::time::Duration;
//! # use gonfalon::{Cached, Client, Compare, Op};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), gonfalon::Error> {
//! # let server = gonfalon::testkit::FakeServer::start();
//! # let client: Client = server.client();
//! # client.put("/jobs/todo/7", "").await?;
//! // A record that is there as long as this process.
//! let lease = client.grant(Duration::from_secs(30)).await?;
//! client.put("/services/auth/a1", "10.0.1.5:8080").lease(&lease).await?;
//!
//! // A setting, current, read in nanoseconds; the last good value stays when a bad one is stored.
//! let limit: Cached<u32> = client.cached("/config/limit").or(100).await?;
//! if *limit.load() > 50 { /* … */ }
//!
//! // All or nothing.
//! let moved = client
//!     .txn()
//!     .when(Compare::exists("/jobs/todo/7"))
//!     .then(Op::delete("/jobs/todo/7"))
//!     .then(Op::put("/jobs/done/7", ""))
//!     .await?;
//! assert!(moved.succeeded);
//!
//! // One of many leads. What it writes under its leadership is not written once that is lost.
//! let leader = client.election("/election/jobs").campaign("node-1").await?;
//! leader.txn().then(Op::put("/jobs/owner", "node-1")).await?;
//! leader.resign().await?;
//!
//! client.close().await
//! # }
//! ```
//!
//! # What can be relied upon
//!
//! - **Reads are linearizable** unless a call says otherwise.
//! - **A write is never sent twice** unless the first attempt is known not to have taken place, or
//!   twice is the same as once; what cannot be known is said: [`Error::outcome`] is
//!   [`Outcome::Unknown`].
//! - **Every call ends**: it has a deadline, also when every server is gone.
//! - **A watch loses and repeats nothing** when connections break and members die; it hands over
//!   whole revisions, in order.
//! - **A lease is held** as long as [`Lease::is_held`] says so: it is given up here before a server
//!   ends it, whatever the network, the scheduler or a suspended machine do.
//! - **A cache shows one revision at a time** and never goes back, unless the store was restored; how
//!   old that may be is [`CacheStatus::age`].
//! - **Dropping is safe everywhere** and waits for nothing; what has to be cleaned up is, in the
//!   background.
//! - **Handles are cheap to clone**, can be shared among threads, and need no `&mut`.
//!
//! What to do about errors, what happens when a future is dropped, what to do when a lease is lost,
//! limits and defaults, metrics and spans: [`guide`].

mod auth;
pub mod blocking;
mod cache;
mod call;
mod client;
mod clock;
mod cluster;
mod credentials;
mod error;
pub mod guide;
mod kv;
mod lease;
mod maintenance;
mod observe;
mod op;
mod options;
mod orders;
mod recipes;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tls;
mod transport;
mod txn;
mod types;
mod watch;

pub use auth::{Access, Auth, AuthStatus, Permission};
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
pub use kv::{
    Delete, Deleted, Get, KeyValues, Pages, Put, PutResult, Range, RangePage, Swap, Swapped,
};
pub use lease::{Grant, Lease, LeaseInfo, LeaseStatus, LostReason};
pub use maintenance::{
    Alarm, AlarmKind, HistoryHash, Maintenance, MemberStatus, SavedSnapshot, SnapshotStream,
};
pub use op::{DeleteOp, Op, PutOp, RangeOp, SortBy, SortOrder};
pub use options::{ClientBuilder, IntoEndpoints};
pub use recipes::{
    Barrier, Claim, Contender, Counter, DoubleBarrier, DoubleBarrierGuard, Election, Fence,
    Isolation, Leader, LeaderChanges, LeaderContext, LeaderState, Leadership, Led, Lock, LockGuard,
    MultiLock, MultiLockGuard, Permit, PriorityQueue, Queue, RwLock, RwLockReadGuard,
    RwLockWriteGuard, Semaphore, Stm, StmTxn,
};
pub use tls::Tls;
pub use transport::ConnectionState;
pub use txn::{Compare, OpResult, Operand, Subject, Txn, TxnOp, TxnResult};
pub use types::{Event, EventKind, IntoBytes, KeyRange, KeyValue, LeaseId, Revision};
pub use watch::{Batch, OnCompacted, Overflow, StateChanges, Watch, WatchBuilder, WatchState};

//! A server in this process, for tests of applications that use this crate.
//!
//! [`FakeServer`] needs no binary, no port and no disk. It is not a mock: it speaks the same gRPC
//! API over pipes in memory, and behind it is the state machine of a Gonfalon server, so that
//! revisions, events, transactions, compaction and refusals are the real ones. What a test cannot
//! easily have from a real server, it can have here: a connection that breaks after a certain
//! message, an answer that is lost, a lease that ends now, a member that lags, a restored store.
//!
//! It is there with the feature `testkit`, which belongs in `[dev-dependencies]`:
//!
//! ```toml
//! [dev-dependencies]
//! gonfalon = { version = "0.1", features = ["testkit"] }
//! ```
//!
//! # Testing an application
//!
//! What is to be tested is given a [`Client`], and does not notice whose it is.
//!
//! ```
//! use gonfalon::testkit::{FakeServer, Rpc};
//! use gonfalon::{Client, Error, Outcome};
//!
//! /// The application: takes a number that nobody else takes.
//! async fn take_number(client: &Client) -> Result<u64, Error> {
//!     loop {
//!         let last = client.get("/last").await?;
//!         let number = last.as_ref().and_then(|kv| kv.value_str()?.parse().ok()).unwrap_or(0) + 1;
//!         let read = last.map_or(gonfalon::Revision::UNKNOWN, |kv| kv.mod_revision);
//!         match client.compare_and_swap("/last", read, number.to_string()).await {
//!             Ok(swapped) if swapped.is_done() => return Ok(number),
//!             Ok(_) => {}
//!             // Perhaps it is taken, perhaps not: the next one is certainly free.
//!             Err(error) if error.outcome() == Outcome::Unknown => {}
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let server = FakeServer::start();
//! let client = server.client();
//! assert_eq!(take_number(&client).await?, 1);
//!
//! // The swap takes place, and its answer is lost: the number must not be given out twice.
//! server.on_next(Rpc::Txn).drop_response();
//! assert_eq!(take_number(&client).await?, 3);
//! assert_eq!(server.received(Rpc::Txn), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # What can go wrong
//!
//! ```
//! use std::time::Duration;
//!
//! use gonfalon::testkit::{FakeServer, Frame, Rpc};
//! use gonfalon::{ErrorKind, Outcome};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), gonfalon::Error> {
//! let server = FakeServer::builder().members(2).start();
//! let client = server.client();
//!
//! // Calls: lost before anything is done or after it, late, refused in any words.
//! server.on_next(Rpc::Put).drop_request();
//! let error = client.put("k", "0").await.unwrap_err();
//! assert_eq!((error.outcome(), server.get("k")), (Outcome::Unknown, None));
//! server.on_next(Rpc::Put).refuse("etcdserver: mvcc: database space exceeded");
//! let error = client.put("k", "0").await.unwrap_err();
//! assert_eq!(*error.kind(), ErrorKind::QuotaExceeded);
//! server.on_next(Rpc::Range).times(2).delay(Duration::from_millis(10));
//! assert_eq!(client.get("k").await?, None);
//!
//! // Streams: broken after a message, here after the watch's first events; all is told, once.
//! let mut watch = client.watch("k").await?;
//! server.cut_after(Frame::Events, 1);
//! for value in ["1", "2"] {
//!     server.put("k", value);
//!     let batch = watch.next().await.expect("it goes on")?;
//!     assert_eq!(batch.events[0].kv.value, value);
//! }
//! assert_eq!(server.received(Rpc::Watch), 2);
//!
//! // Members: behind the others, silent, gone, without a leader.
//! server.member(1).lag(1);
//! server.put("k", "3");
//! let seen = server.member(1).client().range("k").serializable().await?;
//! assert_eq!(seen.kvs[0].value, "2");
//! server.member(1).lag(0);
//! server.member(0).stop();
//! client.put("k", "4").await?;
//! server.member(0).start();
//! server.member(1).lose_leader();
//! client.put("k", "5").await?;
//! server.member(1).find_leader();
//!
//! // Leases, history, and a backup that was restored.
//! let backup = server.revision();
//! let lease = client.grant(Duration::from_secs(30)).await?;
//! client.put("mine", "x").lease(&lease).await?;
//! server.expire(&lease);
//! assert_eq!(server.get("mine"), None);
//! server.compact_now();
//! let error = client.range("k").at(backup).await.unwrap_err();
//! assert!(matches!(error.kind(), ErrorKind::Compacted { .. }));
//! server.restore(backup);
//! assert_eq!(server.get("k").expect("it was there").value, "5");
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! The server's clock stands still: a lease ends there when the test says so, with
//! [`FakeServer::expire`] or [`FakeServer::advance`]. The client's deadlines, pauses and the terms
//! of its leases are in real time, or, but for leases, in tokio's when that is paused
//! (`#[tokio::test(start_paused = true)]`): then no test waits for a pause between attempts.
//!
//! # What is different from a real server
//!
//! There is no Raft: members share one store, and a member that lags only shows an older state of
//! it. Locks and elections of the server (`v3lock`, `v3election`), users and roles beyond names and
//! passwords, alarms and backups are not there; calls of these are refused as unknown. History
//! stays in memory until the server is dropped.

mod api;
mod fault;
mod front;
mod outbox;
mod pipe;
mod store;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gonfalon_core::{Command, NoHistory};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::parse::{self, Limits};

use crate::client::Client;
use crate::op::Op;
use crate::options::ClientBuilder;
use crate::types::{Event, IntoBytes, KeyRange, KeyValue, LeaseId, Revision};

pub use fault::{Frame, OnNext, Rpc};
pub(crate) use pipe::Pipes;
use world::{Shared, World};

/// As a server has it: messages about watches are split from this size on.
const FRAME_BYTES: usize = 1024 * 1024 * 3 / 2;

/// What a test does to the store itself has no limits.
const NO_LIMITS: Limits = Limits {
    request_bytes: usize::MAX,
    txn_ops: usize::MAX,
    lease_ttl_min: 0,
};

/// As if this machine had slept for so long, and the application with it: the terms of all leases
/// of this process go on meanwhile, and nothing else does. A test that uses this is best alone in
/// its process.
pub fn machine_sleeps(time: Duration) {
    crate::clock::sleep(time);
}

/// A server in this process; see the [module's page](self). Dropped, it is gone for its clients.
#[derive(Debug)]
pub struct FakeServer {
    shared: Arc<Shared>,
}

/// A server to be; each setting has a default.
#[derive(Debug, Clone)]
pub struct FakeServerBuilder {
    members: usize,
    frame_bytes: usize,
    users: BTreeMap<String, String>,
}

impl FakeServerBuilder {
    /// How many members the cluster has. Default: 1.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// The size of a message about a watch, in bytes of events: several revisions share one as
    /// long as they fit, and a revision that does not fit comes in fragments. 1: one revision a
    /// message, one event a fragment. Default: 1.5 MiB, as a server has it.
    #[must_use]
    pub fn frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    /// Somebody who may do everything. Default: nobody, and then everybody may.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.insert(name.into(), password.into());
        self
    }

    /// Starts the server on the tokio runtime that this is called on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or without a member.
    pub fn start(self) -> FakeServer {
        let shared = Shared::new(self.members, self.frame_bytes, self.users);
        FakeServer {
            shared: Arc::new(shared),
        }
    }
}

impl FakeServer {
    /// A cluster of one member, on the tokio runtime that this is called on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The settings, to be chosen.
    pub fn builder() -> FakeServerBuilder {
        FakeServerBuilder {
            members: 1,
            frame_bytes: FRAME_BYTES,
            users: BTreeMap::new(),
        }
    }

    /// A client of every member, with the default settings.
    pub fn client(&self) -> Client {
        built(self.client_builder())
    }

    /// A client of every member, whose settings can be chosen; its endpoints must stay.
    pub fn client_builder(&self) -> ClientBuilder {
        let members = 0..self.shared.world().members.len();
        let endpoints: Vec<_> = members.map(pipe::endpoint).collect();
        Client::builder()
            .endpoints(endpoints)
            .through(Pipes(self.shared.clone()))
    }

    /// One of the members, counted from 0. The first is the leader.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn member(&self, number: usize) -> FakeMember<'_> {
        let members = self.shared.world().members.len();
        assert!(number < members, "member {number} of {members}");
        FakeMember {
            server: self,
            number,
        }
    }

    /// Every change after `revision`, in the order in which they happened. No fault touches it, and
    /// nothing is counted.
    ///
    /// # Panics
    ///
    /// If that history is compacted.
    pub fn changes_after(&self, revision: Revision) -> Vec<Event> {
        let from = gonfalon_core::Revision::new(revision.get()).next();
        let world = self.shared.world();
        let state = world.store.state();
        let events = state.events(from, state.revision(), usize::MAX, true, &NoHistory);
        let events = store::read(events).expect("the history is there");
        let events = events.iter().map(|event| watch::on_the_wire(event, true));
        events.filter_map(Event::from_wire).collect()
    }

    /// The store's revision.
    pub fn revision(&self) -> Revision {
        Revision::new(self.shared.world().store.revision().get())
    }

    /// Reads a key as a client would: none if it is not there. No fault touches it, and nothing is
    /// counted.
    pub fn get(&self, key: impl IntoBytes) -> Option<KeyValue> {
        let range = gonfalon_core::KeyRange::single(key.into_bytes());
        let read = gonfalon_core::command::Range::of(range);
        let world = self.shared.world();
        let answer = store::read(world.store.state().range(&read, &NoHistory));
        let answer = answer.expect("the present can be read");
        let first = answer.kvs.into_iter().next();
        first.map(|kv| KeyValue::from_wire(gonfalon_wire::render::kv(kv)))
    }

    /// Writes a key, as another client would. No fault touches it, and nothing is counted.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Revision {
        self.txn([Op::put(key, value)])
    }

    /// Deletes keys, as another client would. No fault touches it, and nothing is counted.
    pub fn delete(&self, range: impl Into<KeyRange>) -> Revision {
        self.txn([Op::delete(range)])
    }

    /// Does all of `ops` at one revision, as another client would. No fault touches it, and nothing
    /// is counted.
    ///
    /// # Panics
    ///
    /// If a server would refuse it.
    pub fn txn<O: Into<Op>>(&self, ops: impl IntoIterator<Item = O>) -> Revision {
        let namespace = Bytes::new();
        let ops = ops.into_iter().map(|op| op.into().to_wire(&namespace));
        let request = pb::TxnRequest {
            success: ops.collect(),
            ..pb::TxnRequest::default()
        };
        let parsed = parse::txn(request, &NO_LIMITS).expect("a server would do it");
        self.apply(Command::Txn(parsed.txn))
    }

    /// Drops the history before `revision`, as another client would.
    ///
    /// # Panics
    ///
    /// If a server would refuse it: it is dropped already, or in the future.
    pub fn compact(&self, revision: Revision) {
        let revision = gonfalon_core::Revision::new(revision.get());
        self.apply(Command::Compact { revision });
    }

    /// Drops all history: only the present can be read.
    ///
    /// # Panics
    ///
    /// If there was no change since the last time.
    pub fn compact_now(&self) {
        self.compact(self.revision());
    }

    /// The leases that there are.
    pub fn leases(&self) -> Vec<LeaseId> {
        let world = self.shared.world();
        let ids = world.store.state().leases().map(|(id, _)| id.get());
        ids.map(LeaseId::new).collect()
    }

    /// Ends a lease now: its time is up, or somebody has revoked it. False if it is not there.
    pub fn expire(&self, lease: impl Into<LeaseId>) -> bool {
        let id = gonfalon_core::LeaseId::new(lease.into().get());
        let mut world = self.shared.world();
        world.apply(Command::LeaseRevoke { id }).is_ok()
    }

    /// Lets time pass on the server: leases that were not renewed for their time to live end.
    pub fn advance(&self, time: Duration) {
        let mut world = self.shared.world();
        for id in world.store.advance(time) {
            let ended = world.apply(Command::LeaseRevoke { id });
            ended.expect("a lease that is over is still there");
        }
    }

    /// Restores the store to what it was at `revision`, as from a backup: a cluster of another id,
    /// in which everything since did not happen. Connections break.
    ///
    /// # Panics
    ///
    /// If there was no such revision yet.
    pub fn restore(&self, revision: Revision) {
        self.roll_back(revision);
        self.shared.world().cluster_id += 1;
    }

    /// As [`FakeServer::restore`], but the cluster keeps its id, as it does if it is restored with the
    /// same names and addresses: only its revision tells.
    ///
    /// # Panics
    ///
    /// If there was no such revision yet.
    pub fn roll_back(&self, revision: Revision) {
        assert!(
            revision <= self.revision(),
            "there was no revision {revision} yet"
        );
        let revision = gonfalon_core::Revision::new(revision.get());
        self.shared.world().restore(revision);
    }

    /// Breaks every connection now. New ones are welcome.
    pub fn cut(&self) {
        for member in &mut self.shared.world().members {
            member.cut();
        }
    }

    /// Breaks a stream after the server has sent the `count`-th message of this kind from now on,
    /// on whichever stream that is. The message arrives. Once.
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn cut_after(&self, frame: Frame, count: usize) {
        self.shared.world().faults.cut_after(frame, count);
    }

    /// What becomes of the next call of this kind, on whichever member. Several wishes for one kind
    /// come true one after the other.
    pub fn on_next(&self, rpc: Rpc) -> OnNext<'_> {
        OnNext {
            server: self,
            rpc,
            times: 1,
        }
    }

    /// The next watch is not created, for this reason. A server that refuses a watch for lack of
    /// permission says `"rpc error: code = PermissionDenied desc = etcdserver: permission denied"`.
    pub fn refuse_watch(&self, reason: impl Into<String>) {
        self.shared.world().faults.refuse_watch(reason.into());
    }

    /// Tells every watch up to where there is nothing more to tell, as servers do now and then; also
    /// those that begin in the future, as etcd 3.4 does.
    pub fn report_progress(&self) {
        let world = self.shared.world();
        world.progress.send_modify(|wishes| *wishes += 1);
    }

    /// From now on only the keys that begin with `prefix` may be read, as if that was all that the
    /// user has a role for; watches and writes are not refused.
    ///
    /// # Panics
    ///
    /// If `prefix` is empty.
    pub fn permit_reads(&self, prefix: impl IntoBytes) {
        let prefix = prefix.into_bytes();
        assert!(!prefix.is_empty(), "without a prefix all may be read");
        let range = KeyRange::prefix(prefix).to_wire(&Bytes::new());
        self.shared.world().readable = Some(range);
    }

    /// No token is good any more; names and passwords are.
    pub fn expire_tokens(&self) {
        self.shared.world().tokens.clear();
    }

    /// No member sees a leader any more: calls are refused, and streams end.
    pub fn lose_leader(&self) {
        self.see_leader(false);
    }

    /// There is a leader again, in a new term.
    pub fn elect_leader(&self) {
        self.shared.world().term += 1;
        self.see_leader(true);
    }

    fn see_leader(&self, sees: bool) {
        for member in &mut self.shared.world().members {
            member.see_leader(sees);
        }
    }

    /// How many calls of this kind have arrived so far, those that went wrong included. A stream is
    /// one call.
    pub fn received(&self, rpc: Rpc) -> usize {
        self.shared.world().faults.received(rpc)
    }

    /// How many messages of this kind were sent so far.
    pub fn sent(&self, frame: Frame) -> usize {
        self.shared.world().faults.sent(frame)
    }

    fn apply(&self, command: Command) -> Revision {
        let (revision, _) = self
            .shared
            .world()
            .apply(command)
            .unwrap_or_else(|refusal| panic!("a server refuses that: {refusal}"));
        Revision::new(revision.get())
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        for member in &mut self.shared.world().members {
            member.is_stopped = true;
            member.cut();
        }
    }
}

/// One member of a [`FakeServer`].
#[derive(Debug, Clone, Copy)]
pub struct FakeMember<'a> {
    server: &'a FakeServer,
    number: usize,
}

impl FakeMember<'_> {
    /// A client of this member alone, with the default settings.
    pub fn client(&self) -> Client {
        let builder = self.server.client_builder();
        built(builder.endpoints(pipe::endpoint(self.number)))
    }

    /// From now on it applies what happens `revisions` later than it happens: its serializable reads
    /// and its watches are behind. 0: it catches up. What it has applied it does not forget.
    ///
    /// Writes and linearizable reads are answered through it as if it did not lag; a real member
    /// would wait until it does not.
    pub fn lag(&self, revisions: u32) {
        let mut world = self.server.shared.world();
        world.members[self.number].lag = i64::from(revisions);
        world.catch_up();
    }

    /// It does nothing until it is resumed; connections stay, and more come about.
    pub fn pause(&self) {
        self.with(|member| {
            member.is_paused.send_replace(true);
        });
    }

    /// It goes on.
    pub fn resume(&self) {
        self.with(|member| {
            member.is_paused.send_replace(false);
        });
    }

    /// Its process ends: connections break, and new ones are refused.
    pub fn stop(&self) {
        self.with(|member| {
            member.is_stopped = true;
            member.cut();
        });
    }

    /// Its process is there again.
    pub fn start(&self) {
        self.with(|member| member.is_stopped = false);
    }

    /// Breaks its connections now. New ones are welcome.
    pub fn cut(&self) {
        self.with(world::Member::cut);
    }

    /// It sees no leader any more, as behind a broken network: calls are refused, and streams end.
    pub fn lose_leader(&self) {
        self.with(|member| member.see_leader(false));
    }

    /// It sees the leader again.
    pub fn find_leader(&self) {
        self.with(|member| member.see_leader(true));
    }

    fn with(&self, act: impl FnOnce(&mut world::Member)) {
        let mut world = self.server.shared.world();
        let World { members, .. } = &mut *world;
        act(&mut members[self.number]);
    }
}

fn built(builder: ClientBuilder) -> Client {
    builder.build().expect("the endpoints are addresses")
}

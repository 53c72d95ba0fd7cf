//! What can be shared among threads, and awaited on any of them: that this compiles is the proof.
//!
//! The tests see to it that nothing of the crate is left out here.

use std::path::Path;
use std::time::Duration;

use gonfalon::blocking::{Each, Interrupt};
use gonfalon::testkit::{FakeMember, FakeServer, FakeServerBuilder};
use gonfalon::{
    Access, Alarm, AlarmKind, Auth, AuthStatus, Barrier, Batch, Cache, CacheBuilder, CacheSource,
    CacheStatus, Cached, CachedBuilder, CachedStructBuilder, Change, Changes, Claim, Client,
    ClientBuilder, Cluster, Compare, ConnectionState, Contender, Counter, Delete, DeleteOp,
    Deleted, DiskCopy, DoubleBarrier, DoubleBarrierGuard, Election, Error, ErrorKind, Event,
    EventKind, Fence, Get, Grant, HistoryHash, Isolation, KeyRange, KeyValue, KeyValues, Leader,
    LeaderChanges, LeaderContext, LeaderState, Leadership, Lease, LeaseId, LeaseInfo, LeaseStatus,
    Led, Loaded, Lock, LockGuard, LossGuard, LostReason, Maintenance, Member, MemberStatus,
    MultiLock, MultiLockGuard, OnCompacted, Op, OpResult, Outcome, Overflow, Pages, Permission,
    Permit, PriorityQueue, Put, PutOp, PutResult, Queue, Range, RangeOp, RangePage, Revision,
    RwLock, RwLockReadGuard, RwLockWriteGuard, SavedSnapshot, Semaphore, Snapshot, SnapshotStream,
    SortBy, SortOrder, StateChanges, StatusChanges, Stm, StmTxn, Subject, Swap, Swapped, Tls, Txn,
    TxnOp, TxnResult, ValueChanges, ValueError, ValueState, Watch, WatchBuilder, WatchState,
    Withheld,
};

/// Cloned and used by any number of threads.
const fn handle<T: Clone + Send + Sync + 'static>() {}
/// Used by any number of threads.
const fn shared<T: Send + Sync + 'static>() {}
/// Used by one thread at a time, whichever that is.
const fn moved<T: Send + 'static>() {}

macro_rules! all {
    ($what:ident: $($type:ty),* $(,)?) => {
        const _: () = {
            $($what::<$type>();)*
        };
    };
}

// What gives access to something.
all!(handle: Client, Auth, Cluster, Maintenance, Cache, Cached<u32>, Lease, LeaderContext, Interrupt);
// Recipes, before anything is held.
all!(handle: Barrier, Counter, DoubleBarrier, Election, Lock, MultiLock, PriorityQueue, Queue, RwLock);
all!(handle: Semaphore, Stm, StmTxn);
// Calls to be, and settings.
all!(handle: Delete, Get, Grant, Put, Range, Swap, Txn, WatchBuilder, CacheBuilder);
all!(handle: CachedBuilder<u32>, CachedStructBuilder<u32>);
all!(handle: ClientBuilder, DiskCopy, LossGuard, Tls, FakeServerBuilder);
// Values.
all!(handle: Access, Alarm, AlarmKind, AuthStatus, Batch, CacheSource, CacheStatus, Change, Compare);
all!(handle: ConnectionState, Contender, DeleteOp, Deleted, Error, ErrorKind, Event, EventKind, Fence);
all!(handle: HistoryHash, Isolation, KeyRange, KeyValue, Leader, LeaderState, LeaseId, LeaseInfo);
all!(handle: LeaseStatus, Led<u32>, LostReason, Member, MemberStatus, OnCompacted, Op, OpResult, Outcome);
all!(handle: Overflow, Permission, PutOp, PutResult, RangeOp, RangePage, Revision, SavedSnapshot);
all!(handle: Snapshot, SortBy, SortOrder, Subject<i64>, Swapped, TxnOp, TxnResult, ValueError);
all!(handle: ValueState<u32>, WatchState, Withheld, FakeMember<'static>);
// What is held.
all!(shared: LockGuard, RwLockReadGuard, RwLockWriteGuard, MultiLockGuard, Permit, Leadership);
all!(shared: DoubleBarrierGuard, Claim, Loaded<u32>);
// What comes bit by bit, to one who waits for it.
all!(shared: Changes, StateChanges, StatusChanges, ValueChanges<u32>, LeaderChanges, FakeServer);
all!(shared: Watch, Each<Watch>);
all!(moved: Pages, KeyValues, SnapshotStream);

/// Awaited on any thread.
fn sent<F>(_: F)
where
    F: IntoFuture,
    F::IntoFuture: Send,
{
}

const T: Duration = Duration::ZERO;

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn calls(client: &Client, id: LeaseId, at: Revision) {
    sent(Client::connect("http://a:1"));
    sent(client.get("k"));
    sent(client.range("k"));
    sent(client.put("k", "v"));
    sent(client.delete("k"));
    sent(client.put_if_absent("k", "v"));
    sent(client.txn());
    sent(client.watch("k"));
    sent(client.cache("k"));
    sent(client.cached::<u32>("k"));
    sent(client.cached_struct::<u32>("k"));
    sent(client.grant(T));
    sent(client.lease_info(id, true));
    sent(client.leases());
    sent(client.renew(id));
    sent(client.adopt(id));
    sent(client.revoke(id));
    sent(client.compact(at, true));
    sent(client.sync_endpoints());
    sent(client.close());
    sent(client.close_within(T));
}

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn operators(auth: &Auth, cluster: &Cluster, maintenance: &Maintenance, alarm: Alarm) {
    sent(auth.enable());
    sent(auth.disable());
    sent(auth.status());
    sent(auth.users());
    sent(auth.user("u"));
    sent(auth.add_user("u", "p"));
    sent(auth.add_user_without_password("u"));
    sent(auth.delete_user("u"));
    sent(auth.change_password("u", "p"));
    sent(auth.grant_role("u", "r"));
    sent(auth.revoke_role("u", "r"));
    sent(auth.roles());
    sent(auth.role("r"));
    sent(auth.add_role("r"));
    sent(auth.delete_role("r"));
    sent(auth.grant_permission("r", Access::Read, "k"));
    sent(auth.revoke_permission("r", "k"));
    sent(cluster.members());
    sent(cluster.members_serializable());
    sent(cluster.add(["http://a:1"]));
    sent(cluster.add_learner(["http://a:1"]));
    sent(cluster.promote(1));
    sent(cluster.update(1, ["http://a:1"]));
    sent(cluster.remove(1));
    sent(maintenance.status());
    sent(maintenance.alarms());
    sent(maintenance.raise_alarm(alarm));
    sent(maintenance.disarm_alarm(alarm));
    sent(maintenance.defragment());
    sent(maintenance.hash());
    sent(maintenance.hash_history(Revision::UNKNOWN));
    sent(maintenance.move_leader(1));
    sent(maintenance.validate_downgrade("3.5"));
    sent(maintenance.enable_downgrade("3.5"));
    sent(maintenance.cancel_downgrade());
    sent(maintenance.snapshot());
}

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn what_comes(
    mut snapshot: SnapshotStream,
    watch: &mut Watch,
    pages: &mut Pages,
    keys: &mut KeyValues,
    cache: &Cache,
    cached: &Cached<u32>,
) {
    sent(snapshot.next());
    sent(snapshot.save_to("file"));
    sent(watch.next());
    sent(pages.next());
    sent(keys.next());
    sent(cache.at_least(Revision::UNKNOWN));
    sent(cache.linearizable());
    sent(cache.save());
    sent(cache.subscribe().next());
    sent(cache.status_changes().next());
    sent(cached.changed());
    sent(cached.at_least(Revision::UNKNOWN));
    sent(cached.changes().next());
    sent(cached.changes().next_state());
}

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn leases_and_locks(client: &Client, lease: &Lease) {
    sent(lease.lost());
    sent(lease.renew_now());
    sent(lease.revoke());
    let (lock, both) = (client.lock("n"), client.rw_lock("n"));
    sent(lock.acquire());
    sent(lock.acquire_within(T));
    sent(lock.try_acquire());
    sent(lock.contenders());
    sent(both.read());
    sent(both.read_within(T));
    sent(both.try_read());
    sent(both.write());
    sent(both.write_within(T));
    sent(both.try_write());
    sent(both.contenders());
    let (semaphore, several) = (client.semaphore("n", 1), client.multi_lock(["n"]));
    sent(semaphore.acquire());
    sent(semaphore.acquire_within(T));
    sent(semaphore.try_acquire());
    sent(semaphore.contenders());
    sent(several.acquire());
    sent(several.acquire_within(T));
    sent(several.try_acquire());
}

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn what_is_held(lock: LockGuard, several: MultiLockGuard, guard: DoubleBarrierGuard) {
    sent(lock.lost());
    sent(lock.release());
    sent(several.lost());
    sent(several.release());
    sent(guard.leave());
}

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn elections(client: &Client, leader: Leadership, context: &LeaderContext) {
    let election = client.election("n");
    sent(election.campaign("v"));
    sent(election.campaign_within(T, "v"));
    sent(election.try_campaign("v"));
    sent(election.leader());
    sent(election.contenders());
    sent(election.observe());
    sent(election.run("v", |_| async {}));
    sent(election.run_once("v", |_| async {}));
    sent(leader.proclaim("v"));
    sent(leader.resign());
    sent(context.proclaim("v"));
}

#[expect(dead_code, reason = "that it compiles is all that is wanted")]
fn other_recipes(client: &Client, changes: &mut LeaderChanges, claims: [Claim; 2], txn: &StmTxn) {
    sent(changes.next());
    let (barrier, double) = (client.barrier("n"), client.double_barrier("n", 2));
    sent(barrier.hold());
    sent(barrier.release());
    sent(barrier.is_held());
    sent(barrier.wait());
    sent(double.enter());
    let (counter, queue) = (client.counter("n"), client.queue("n"));
    sent(counter.get());
    sent(counter.add(1));
    sent(queue.claim());
    sent(queue.try_claim());
    sent(queue.dequeue());
    sent(queue.try_dequeue());
    sent(queue.count());
    sent(queue.enqueue("v"));
    sent(client.priority_queue("n").enqueue("v", 1));
    let [done, given_back] = claims;
    sent(done.done());
    sent(given_back.give_back());
    let written = |_: StmTxn| async { Ok::<_, Error>(()) };
    sent(client.stm().run(written));
    sent(txn.get("k"));
}

/// The crate's sources, and this one.
fn sources(dir: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("the sources are there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else {
            into.push(std::fs::read_to_string(&path).expect("it is text"));
        }
    }
}

/// As often as there is an async function of a name, it is called above.
#[test]
fn every_public_future_can_be_awaited_on_any_thread() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let here = include_str!("handles.rs");
    let lines = all.iter().flat_map(|source| source.lines());
    let names = lines.filter_map(|line| line.trim().strip_prefix("pub async fn "));
    let mut names: Vec<&str> = names
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    names.sort_unstable();
    assert!(names.len() > 100, "{names:?}");
    for name in &names {
        let there = names.iter().filter(|other| *other == name).count();
        let called = here.matches(&format!(".{name}(")).count();
        let called = called + here.matches(&format!("::{name}(")).count();
        assert!(called >= there, "{name}: {called} of {there} are here");
    }
}

/// Every type that the crate shows stands in one of the lists above.
#[test]
fn every_public_type_can_be_given_to_another_thread() {
    let shown = include_str!("../../src/lib.rs");
    let here = include_str!("handles.rs");
    let listed: String = here
        .lines()
        .filter(|line| line.starts_with("all!("))
        .collect();
    let listed: Vec<&str> = listed.split(|c: char| !c.is_alphanumeric()).collect();
    let traits = ["IntoBytes", "IntoEndpoints", "Operand"];
    let shown = shown.split("pub use ").skip(1);
    let shown = shown.filter_map(|rest| rest.split_once(';').map(|(list, _)| list));
    let types = shown.flat_map(|list| list.split(|c: char| !c.is_alphanumeric()));
    let is_type = |word: &&str| word.starts_with(char::is_uppercase) && !traits.contains(word);
    let types: Vec<&str> = types.filter(is_type).collect();
    assert!(types.len() > 90, "{types:?}");
    for shown in types {
        assert!(listed.contains(&shown), "{shown} is in no list");
    }
}

//! What a subscriber of `tracing` sees of a client: one span for each call, with the fields that the
//! guide names, and no secret in anything.
//!
//! The subscriber is the whole process's, also of the thread that renews leases: the tests take turns.

#[path = "shared/waiting.rs"]
mod waiting;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{Access, Alarm, AlarmKind, Client, KeyRange, Op, Revision};
use tokio::sync::MutexGuard;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use waiting::{until, within};

const SOUND: &str = "nothing panics while it holds this lock";
const TTL: Duration = Duration::from_mins(1);

const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const AUTH: &str = "etcdserverpb.Auth";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";

/// Name and value of each field, as text.
type Fields = BTreeMap<&'static str, String>;

/// What was seen since it was last taken.
#[derive(Debug, Default)]
struct Seen {
    /// The client's spans named `call` that have ended.
    calls: Vec<Fields>,
    /// Everything that was said, by whoever.
    text: String,
    lines: usize,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

fn seen<T>(look: impl FnOnce(&mut Seen) -> T) -> T {
    look(SEEN.lock().expect(SOUND).get_or_insert_default())
}

#[derive(Default)]
struct Noted(Fields);

impl Visit for Noted {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// Notes what it is told.
struct Noting;

fn note(what: &Fields) {
    seen(|seen| {
        writeln!(seen.text, "{what:?}").expect("there is room");
        seen.lines += 1;
    });
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Noting {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut noted = Noted::default();
        attributes.record(&mut noted);
        note(&noted.0);
        let span = context.span(id).expect("it is new");
        span.extensions_mut().insert(noted.0);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut noted = Noted::default();
        values.record(&mut noted);
        note(&noted.0);
        let span = context.span(id).expect("it is there");
        let mut extensions = span.extensions_mut();
        let fields = extensions.get_mut::<Fields>().expect("all have some");
        fields.append(&mut noted.0);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut noted = Noted::default();
        event.record(&mut noted);
        note(&noted.0);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).expect("it is there");
        let metadata = span.metadata();
        if metadata.name() == "call" && metadata.target().starts_with("gonfalon") {
            assert_eq!(*metadata.level(), Level::DEBUG);
            let mut extensions = span.extensions_mut();
            let fields = extensions.remove::<Fields>().expect("all have some");
            seen(|seen| seen.calls.push(fields));
        }
    }
}

/// What is seen is this test's alone until it drops the guard.
async fn subscribed() -> MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    static SUBSCRIBED: OnceLock<()> = OnceLock::new();
    let turn = TURN.lock().await;
    SUBSCRIBED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Noting);
        tracing::subscriber::set_global_default(subscriber).expect("this process has no other");
    });
    *SEEN.lock().expect(SOUND) = None;
    turn
}

/// The span of the last call of this name, once it has ended.
async fn span_of(call: &str) -> Fields {
    let is_it = |fields: &Fields| fields["call"] == call;
    until(|| seen(|seen| seen.calls.iter().any(is_it))).await;
    seen(|seen| {
        let last = seen.calls.iter().rfind(|fields| is_it(fields));
        last.expect("it has been there").clone()
    })
}

/// Checks the span of a call that went to the only member and ended with `outcome`, and `error` if that
/// is one.
async fn check(call: &str, rpc: (&str, &str), outcome: &str, error: Option<&str>) {
    let fields = span_of(call).await;
    let (service, method) = rpc;
    let name = format!("{service}/{method}");
    let mut wanted = BTreeMap::from([
        ("otel.name", name.as_str()),
        ("otel.kind", "client"),
        ("rpc.system", "grpc"),
        ("rpc.service", service),
        ("rpc.method", method),
        ("call", call),
        ("attempts", "1"),
        ("outcome", outcome),
    ]);
    if let Some(error) = error {
        wanted.extend([("error.type", error), ("otel.status_code", "ERROR")]);
    }
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    found.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
    let host = found.remove("server.address").expect("a host");
    let port = found.remove("server.port").expect("a port");
    assert!(
        !host.is_empty() && port.parse::<u16>().is_ok(),
        "{fields:?}"
    );
    assert_eq!(found, wanted, "{call}");
}

#[tokio::test]
async fn every_call_has_one_span_with_the_names_of_the_guide() {
    let _turn = subscribed().await;
    let server = FakeServer::start();
    let client = server.client();
    let ok = async |call, service, method| check(call, (service, method), "ok", None).await;
    client.put("k", "1").await.unwrap();
    ok("put", KV, "Put").await;
    client.get("k").await.unwrap();
    ok("range", KV, "Range").await;
    client.txn().then(Op::put("k", "2")).await.unwrap();
    ok("txn", KV, "Txn").await;
    let deleted = client.delete("k").await.unwrap();
    ok("delete", KV, "DeleteRange").await;
    client.compact(deleted.revision, false).await.unwrap();
    ok("compact", KV, "Compact").await;
    let lease = client.grant(TTL).await.unwrap();
    ok("grant", LEASE, "LeaseGrant").await;
    client.lease_info(lease.id(), true).await.unwrap();
    ok("lease info", LEASE, "LeaseTimeToLive").await;
    client.leases().await.unwrap();
    ok("leases", LEASE, "LeaseLeases").await;
    // On the thread that keeps it.
    lease.revoke().await.unwrap();
    ok("revoke", LEASE, "LeaseRevoke").await;
    client.cluster().members().await.unwrap();
    ok("members", CLUSTER, "MemberList").await;
    client.maintenance().status().await.unwrap();
    ok("status", MAINTENANCE, "Status").await;
    let calls = seen(|seen| seen.calls.len());
    assert_eq!(calls, 11, "one each, and none beside them");
}

/// The server in memory refuses them; a span is a span.
#[tokio::test]
async fn calls_of_operators_have_spans_too() {
    let _turn = subscribed().await;
    let server = FakeServer::start();
    let client = server.client();
    let (auth, cluster, maintenance) = (client.auth(), client.cluster(), client.maintenance());
    let alarm = Alarm::new(1, AlarmKind::NoSpace);
    macro_rules! refused {
        ($($done:expr => $call:literal, $service:ident, $method:literal;)*) => {$(
            let error = $done.await.map(drop).unwrap_err();
            assert_eq!(*error.kind(), gonfalon::ErrorKind::Unimplemented, "{error}");
            check($call, ($service, $method), "not_applied", Some("Unimplemented")).await;
        )*};
    }
    refused! {
        auth.enable() => "enable authentication", AUTH, "AuthEnable";
        auth.disable() => "disable authentication", AUTH, "AuthDisable";
        auth.status() => "authentication status", AUTH, "AuthStatus";
        auth.users() => "users", AUTH, "UserList";
        auth.user("u") => "user", AUTH, "UserGet";
        auth.add_user("u", "p") => "add user", AUTH, "UserAdd";
        auth.delete_user("u") => "delete user", AUTH, "UserDelete";
        auth.change_password("u", "p") => "change password", AUTH, "UserChangePassword";
        auth.grant_role("u", "r") => "grant role", AUTH, "UserGrantRole";
        auth.revoke_role("u", "r") => "revoke role", AUTH, "UserRevokeRole";
        auth.roles() => "roles", AUTH, "RoleList";
        auth.role("r") => "role", AUTH, "RoleGet";
        auth.add_role("r") => "add role", AUTH, "RoleAdd";
        auth.delete_role("r") => "delete role", AUTH, "RoleDelete";
        auth.grant_permission("r", Access::Read, "k") => "grant permission", AUTH, "RoleGrantPermission";
        auth.revoke_permission("r", "k") => "revoke permission", AUTH, "RoleRevokePermission";
        cluster.add(["http://a:1"]) => "add member", CLUSTER, "MemberAdd";
        cluster.add_learner(["http://a:1"]) => "add learner", CLUSTER, "MemberAdd";
        cluster.promote(1) => "promote member", CLUSTER, "MemberPromote";
        cluster.update(1, ["http://a:1"]) => "update member", CLUSTER, "MemberUpdate";
        cluster.remove(1) => "remove member", CLUSTER, "MemberRemove";
        maintenance.defragment() => "defragment", MAINTENANCE, "Defragment";
        maintenance.move_leader(1) => "move leader", MAINTENANCE, "MoveLeader";
        maintenance.alarms() => "alarms", MAINTENANCE, "Alarm";
        maintenance.raise_alarm(alarm) => "raise alarm", MAINTENANCE, "Alarm";
        maintenance.disarm_alarm(alarm) => "disarm alarm", MAINTENANCE, "Alarm";
        maintenance.hash() => "hash", MAINTENANCE, "Hash";
        maintenance.hash_history(Revision::UNKNOWN) => "hash history", MAINTENANCE, "HashKV";
        maintenance.snapshot() => "snapshot", MAINTENANCE, "Snapshot";
        maintenance.validate_downgrade("3.5.0") => "validate downgrade", MAINTENANCE, "Downgrade";
        maintenance.enable_downgrade("3.5.0") => "enable downgrade", MAINTENANCE, "Downgrade";
        maintenance.cancel_downgrade() => "cancel downgrade", MAINTENANCE, "Downgrade";
    }
}

#[tokio::test]
async fn a_span_says_how_often_it_was_tried_and_what_became_of_it() {
    let _turn = subscribed().await;
    let server = FakeServer::start();
    let client = server.client();
    let outcome = |fields: &Fields| {
        let error = fields.get("error.type").cloned().unwrap_or_default();
        (fields["attempts"].clone(), fields["outcome"].clone(), error)
    };
    let is = |attempts: &str, outcome: &str, error: &str| {
        (attempts.to_owned(), outcome.to_owned(), error.to_owned())
    };
    server.on_next(Rpc::Range).times(2).drop_response();
    client.get("k").await.unwrap();
    assert_eq!(outcome(&span_of("range").await), is("3", "ok", ""));
    server.on_next(Rpc::Put).drop_response();
    client.put("k", "1").await.unwrap_err();
    let put = outcome(&span_of("put").await);
    assert_eq!(put, is("1", "unknown", "Unavailable"));
    server
        .on_next(Rpc::DeleteRange)
        .delay(Duration::from_mins(1));
    let deleting = client.delete("k").into_future();
    let dropped = tokio::time::timeout(Duration::from_millis(50), deleting).await;
    dropped.unwrap_err();
    let delete = outcome(&span_of("delete").await);
    assert_eq!(delete, is("1", "unknown", "Dropped"));
    client.close().await.unwrap();
    client.txn().await.unwrap_err();
    let txn = outcome(&span_of("txn").await);
    assert_eq!(txn, is("0", "not_applied", "Closed"));
}

/// All that a client does, at every level, of our crate and of those below it.
#[tokio::test]
async fn no_value_password_or_token_is_in_anything_that_is_said() {
    let _turn = subscribed().await;
    // A token of the server in memory is the user's name, a dot and a number.
    let server = FakeServer::builder().user("mallory", "pa55w0rd").start();
    let builder = || server.client_builder();
    let client: Client = builder().user("mallory", "pa55w0rd").build().unwrap();
    client.put("shown-key", "5ecret-1").await.unwrap();
    let mut watch = client.watch("shown-key").await.unwrap();
    let cache = client.cache(KeyRange::prefix("shown")).await.unwrap();
    let value = client.cached::<u32>("shown-key").or(1).await.unwrap();
    let lease = client.grant(TTL).await.unwrap();
    let leased = client.put("shown-key", "5ecret-2").lease(&lease).prev_kv();
    let written = leased.await.unwrap().revision;
    within(watch.next()).await.unwrap().unwrap();
    within(cache.at_least(written)).await.unwrap();
    within(value.at_least(written)).await.unwrap();
    server.expire_tokens();
    server.cut();
    let swap = client.put_if_absent("shown-key", "5ecret-3");
    swap.await.unwrap();
    let leader = client.election("e").campaign("5ecret-4").await.unwrap();
    leader.resign().await.unwrap();
    let _refused = client.auth().add_user("eve", "n3w-w0rd").await;
    let _refused = client.auth().change_password("eve", "n3w-w0rd").await;
    let wrong = builder().user("mallory", "wr0ng-w0rd").build().unwrap();
    wrong.get("shown-key").await.unwrap_err();
    within(client.close()).await.unwrap();
    let (text, lines) = seen(|seen| (std::mem::take(&mut seen.text), seen.lines));
    assert!(lines > 100, "something is said: {lines} lines");
    for secret in ["5ecret", "pa55w0rd", "n3w-w0rd", "wr0ng-w0rd", "mallory."] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is said");
    }
}

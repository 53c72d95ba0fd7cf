//! Leases: granted, kept alive in the background, and known to be lost before the server ends them.
//!
//! A [`Lease`] is a handle; while one of its clones lives, the lease is renewed (`lease/keeper.rs`,
//! over streams that are `lease/lane.rs`), and with the last it is ended (`lease/janitor.rs`). What it
//! says of itself is conservative (`lease/term.rs`): as long as [`Lease::is_held`] is true, no server
//! has ended it.
//!
//! No check by a client is enough to protect something outside of the store: between the check and
//! the act the process may be stopped for longer than the lease. Whoever needs that passes a
//! revision along, and has the other side refuse older ones.

mod janitor;
mod keeper;
mod lane;
mod term;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Repeat};
use crate::client::{Client, awaited};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Outcome};
use crate::transport::Transport;
use crate::types::LeaseId;

pub(crate) use janitor::Litter;
pub(crate) use keeper::Keeper;
use keeper::Kept;
use term::Term;
pub use term::{LeaseStatus, LostReason};

/// An application's own word on whether it is well.
#[derive(Clone)]
struct Health(Arc<dyn Fn() -> bool + Send + Sync>);

impl Health {
    /// An application whose check panics is not well.
    fn is_well(&self) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.0)())).unwrap_or(false)
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Health")
    }
}

/// A lease to be: settings first, then await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Grant {
    client: Client,
    ttl: Duration,
    id: Option<LeaseId>,
    health: Option<Health>,
    deadline: Option<Duration>,
}

impl Grant {
    pub(crate) fn new(client: Client, ttl: Duration) -> Self {
        Self {
            client,
            ttl,
            id: None,
            health: None,
            deadline: None,
        }
    }

    /// Its name; must not be taken. Default: one that nobody has.
    pub fn id(mut self, id: LeaseId) -> Self {
        self.id = Some(id);
        self
    }

    /// Asked before each renewal; while it says no, the lease is not renewed, and is lost when its
    /// time is up. For an application that lives but no longer works.
    ///
    /// It is called on the thread that renews every lease of the client, and must answer at once: what
    /// it waits for, they all wait for. If it panics, that is a no.
    pub fn health(mut self, is_well: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.health = Some(Health(Arc::new(is_well)));
        self
    }

    /// How long granting may take, all attempts together. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn send(self) -> Result<Lease, Error> {
        let seconds = self.ttl.as_secs();
        let seconds = seconds.checked_add(u64::from(self.ttl.subsec_nanos() > 0));
        let Some(ttl) = seconds.and_then(|seconds| i64::try_from(seconds).ok()) else {
            let why = format!("a lease of {:?} is too long", self.ttl);
            return Err(Error::new(ErrorKind::InvalidArgument, "grant", why));
        };
        // Before the thread is needed it must be there: a lease that cannot be kept is not granted.
        let keeper = self.client.keeper()?;
        // Nobody else has the id, so a second attempt that finds it taken found the first's.
        let id = self
            .id
            .unwrap_or_else(|| LeaseId::new(fastrand::i64(1..=i64::MAX)));
        let repeat = if self.id.is_some() {
            Repeat::Never
        } else {
            Repeat::Safe
        };
        let request = pb::LeaseGrantRequest { ttl, id: id.get() };
        let sent = Moment::now();
        let call = Call::new("grant", repeat).within(self.deadline);
        let mut orphan = Orphan {
            keeper,
            id: self.id.is_none().then_some(id),
        };
        let granted = self
            .client
            .unary(call, request, move |channel, request| async move {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await;
        let seconds = match granted {
            Ok(answer) => {
                self.client.saw(answer.header.as_ref());
                answer.ttl
            }
            Err(error)
                if self.id.is_none()
                    && error.attempts() > 1
                    && *error.kind() == ErrorKind::LeaseExists =>
            {
                remaining(&self.client, id, false).await?.granted_seconds()
            }
            Err(error) => {
                if error.outcome() == Outcome::NotApplied {
                    orphan.id = None;
                }
                return Err(error);
            }
        };
        orphan.id = None;
        let ttl = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Ok(Lease::kept(self.client.clone(), id, ttl, sent, self.health))
    }
}

awaited!(Grant => Lease);

/// A lease that may have been granted although nobody has its handle: it is ended.
struct Orphan<'a> {
    keeper: &'a Keeper,
    /// None if there is nothing to end; nor is a lease that the application named.
    id: Option<LeaseId>,
}

impl Drop for Orphan<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.keeper.revoke(id);
        }
    }
}

/// A lease that is kept alive. When its last clone is dropped it is revoked in the background, and
/// the keys that were put with it go.
#[derive(Debug, Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: LeaseId,
    term: Arc<Term>,
    client: Client,
    /// Whether it goes on without its handles.
    is_detached: AtomicBool,
}

impl Lease {
    /// A lease that was granted, or renewed, for `ttl` by a request that was sent at `sent`; it is
    /// kept from now on.
    fn kept(
        client: Client,
        id: LeaseId,
        ttl: Duration,
        sent: Moment,
        health: Option<Health>,
    ) -> Self {
        let term = Arc::new(Term::new(ttl, sent));
        match client.keeper() {
            Ok(keeper) => {
                let kept = Kept {
                    term: Arc::downgrade(&term),
                    health,
                };
                keeper.keep(id, kept);
                // Closing looks at what is kept only once; this may have come after that.
                if client.transport().closed.is_cancelled() {
                    term.lose(LostReason::Closed);
                }
            }
            Err(_) => term.lose(LostReason::Closed),
        }
        tracing::debug!(lease = %id, ?ttl, "a lease is kept");
        Self {
            inner: Arc::new(Inner {
                id,
                term,
                client,
                is_detached: AtomicBool::new(false),
            }),
        }
    }

    /// Its name.
    pub fn id(&self) -> LeaseId {
        self.inner.id
    }

    /// What the server granted last; may be more than was asked for.
    pub fn ttl(&self) -> Duration {
        self.inner.term.ttl()
    }

    /// How it stands, as of now.
    pub fn status(&self) -> LeaseStatus {
        self.inner.term.status(Moment::now())
    }

    /// Whether it is surely held: while this is true, no server has ended it.
    pub fn is_held(&self) -> bool {
        !matches!(self.status(), LeaseStatus::Lost(_))
    }

    /// How long it is surely held if it is not renewed any more.
    pub fn remaining(&self) -> Duration {
        self.inner.term.remaining(Moment::now())
    }

    /// Returns when it is lost, and why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> LostReason {
        self.inner.term.token().cancelled().await;
        self.inner.term.lost_reason()
    }

    /// How it stands, for somebody who does not keep it alive.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            id: self.inner.id,
            term: self.inner.term.clone(),
        }
    }

    /// Cancelled when it is lost: for tasks that must end with it.
    pub fn token(&self) -> CancellationToken {
        self.inner.term.token().child_token()
    }

    /// Renews it now, whatever its health says, and tells what the server granted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`]: it is lost.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it may have been renewed.
    pub async fn renew_now(&self) -> Result<Duration, Error> {
        let sent = Moment::now();
        let inner = &self.inner;
        match keep_alive(&inner.client, inner.id).await {
            Ok(ttl) => {
                inner.term.renewed(ttl, sent, Moment::now());
                Ok(ttl)
            }
            Err(error) => {
                if *error.kind() == ErrorKind::LeaseNotFound {
                    inner.term.lose(LostReason::Gone);
                }
                Err(error)
            }
        }
    }

    /// Ends it, for all clones: the keys that were put with it go. It is lost from the first moment
    /// on, also when this fails; then it ends on the server when its time is up.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it is lost here and may go on on the server until its time is up.
    pub async fn revoke(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.term.lose(LostReason::Revoked);
        inner.client.keeper()?.forget(inner.id);
        revoke(inner.client.transport(), inner.id).await
    }

    /// Renews it no more and does not end it either: its keys stay until its time is up, or for as
    /// long as somebody else renews it ([`Client::adopt`], also in another process). For all clones
    /// it is lost.
    pub fn detach(self) -> LeaseId {
        let inner = &self.inner;
        inner.is_detached.store(true, Ordering::Release);
        inner.term.lose(LostReason::Detached);
        if let Ok(keeper) = inner.client.keeper() {
            keeper.forget(inner.id);
        }
        inner.id
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_detached.load(Ordering::Acquire) {
            return;
        }
        self.term.lose(LostReason::Revoked);
        if let Ok(keeper) = self.client.keeper() {
            keeper.revoke(self.id);
        }
    }
}

impl From<&Lease> for LeaseId {
    fn from(lease: &Lease) -> Self {
        lease.id()
    }
}

/// What is known of a lease; does not keep it alive.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    id: LeaseId,
    term: Arc<Term>,
}

impl Standing {
    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    /// Why it is lost, as of now.
    pub(crate) fn lost_reason(&self) -> Option<LostReason> {
        match self.term.status(Moment::now()) {
            LeaseStatus::Lost(reason) => Some(reason),
            LeaseStatus::Held | LeaseStatus::Suspect => None,
        }
    }

    pub(crate) async fn lost(&self) -> LostReason {
        self.term.token().cancelled().await;
        self.term.lost_reason()
    }
}

/// What a server knows of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// What was granted.
    pub granted: Duration,
    /// What is left, in whole seconds.
    pub remaining: Duration,
    /// The keys that go with it, if they were asked for.
    pub keys: Vec<Bytes>,
}

impl LeaseInfo {
    fn granted_seconds(&self) -> i64 {
        i64::try_from(self.granted.as_secs()).unwrap_or(i64::MAX)
    }
}

/// See [`Client::adopt`].
pub(crate) async fn adopt(client: &Client, id: LeaseId) -> Result<Lease, Error> {
    let sent = Moment::now();
    let ttl = keep_alive(client, id).await?;
    Ok(Lease::kept(client.clone(), id, ttl, sent, None))
}

/// See [`Client::lease_info`].
pub(crate) async fn remaining(
    client: &Client,
    id: LeaseId,
    keys: bool,
) -> Result<LeaseInfo, Error> {
    let request = pb::LeaseTimeToLiveRequest { id: id.get(), keys };
    let call = Call::reads("lease info");
    let limit = client.response_bytes_max();
    let answer = client
        .unary(call, request, move |channel, request| async move {
            LeaseClient::new(channel)
                .max_decoding_message_size(limit)
                .lease_time_to_live(request)
                .await
        })
        .await?;
    client.saw(answer.header.as_ref());
    // The wire's word for "there is no such lease".
    let Ok(left) = u64::try_from(answer.ttl) else {
        return Err(Error::new(
            ErrorKind::LeaseNotFound,
            call.name,
            format!("{id}"),
        ));
    };
    let hidden = client.namespace_bytes().len();
    let shown = |key: Bytes| key.slice(hidden.min(key.len())..);
    Ok(LeaseInfo {
        granted: Duration::from_secs(u64::try_from(answer.granted_ttl).unwrap_or_default()),
        remaining: Duration::from_secs(left),
        keys: answer.keys.into_iter().map(shown).collect(),
    })
}

/// See [`Client::leases`].
pub(crate) async fn leases(client: &Client) -> Result<Vec<LeaseId>, Error> {
    let request = pb::LeaseLeasesRequest::default();
    let limit = client.response_bytes_max();
    let answer = client
        .unary(
            Call::reads("leases"),
            request,
            move |channel, request| async move {
                LeaseClient::new(channel)
                    .max_decoding_message_size(limit)
                    .lease_leases(request)
                    .await
            },
        )
        .await?;
    client.saw(answer.header.as_ref());
    let ids = answer.leases.into_iter();
    Ok(ids.map(|lease| LeaseId::new(lease.id)).collect())
}

/// Renews a lease once.
pub(crate) async fn keep_alive(client: &Client, id: LeaseId) -> Result<Duration, Error> {
    let call = Call::new("keep alive", Repeat::Safe);
    let request = pb::LeaseKeepAliveRequest { id: id.get() };
    let answer = client
        .unary(call, request, move |channel, request| async move {
            let (metadata, extensions, message) = request.into_parts();
            // The stream stays open until its answer: a server may end it with the client's half.
            let requests = futures::stream::iter([message]);
            let requests = futures::StreamExt::chain(requests, futures::stream::pending());
            let request = tonic::Request::from_parts(metadata, extensions, requests);
            let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?;
            let answer = answers.get_mut().message().await?;
            let ended = || tonic::Status::unavailable("the server ended the stream");
            answer.map(tonic::Response::new).ok_or_else(ended)
        })
        .await?;
    client.saw(answer.header.as_ref());
    match u64::try_from(answer.ttl) {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        Ok(0) | Err(_) => Err(Error::new(
            ErrorKind::LeaseNotFound,
            call.name,
            format!("{id}"),
        )),
    }
}

/// Ends a lease. One that is not there has ended.
pub(crate) async fn revoke(transport: &Transport, id: LeaseId) -> Result<(), Error> {
    let call = Call::new("revoke", Repeat::Safe);
    let request = pb::LeaseRevokeRequest { id: id.get() };
    let answer = transport
        .unary(call, request, move |channel, request| async move {
            LeaseClient::new(channel).lease_revoke(request).await
        })
        .await;
    match answer {
        Ok(answer) => {
            transport.saw(answer.header.as_ref());
            Ok(())
        }
        Err(error) if *error.kind() == ErrorKind::LeaseNotFound => Ok(()),
        Err(error) => Err(error),
    }
}

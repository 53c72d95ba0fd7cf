//! Leases: granted, kept alive in the background, and known to be lost before the server ends them.
//!
//! A [`Lease`] is a handle; while one of its clones lives, the lease is renewed on a thread for that
//! (`lease/keeper.rs`, `lease/renewals.rs`, over streams that are `lease/lane.rs`), as long as the
//! application says that it is well (`lease/health.rs`), and with the last it is ended
//! (`lease/janitor.rs`). All handles of a client that keep the same lease share it
//! (`lease/handles.rs`). What it says of itself is conservative (`lease/term.rs`): as long as
//! [`Lease::is_held`] is true, no server has ended it.
//!
//! No check by a client is enough to protect something outside of the store: between the check and
//! the act the process may be stopped for longer than the lease. Whoever needs that passes a
//! revision along, and has the other side refuse older ones.

mod handles;
mod health;
mod janitor;
mod keeper;
mod lane;
mod renewals;
mod term;

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

pub(crate) use handles::Handles;
use health::Health;
pub(crate) use janitor::Litter;
pub(crate) use keeper::Keeper;
use renewals::Kept;
use term::Term;
pub use term::{LeaseStatus, LostReason};

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

    /// Asked before each renewal, at a third of the TTL; while it does not say yes, the lease is not
    /// renewed, and is lost when its time is up. For an application that lives but no longer works.
    ///
    /// It is called on a thread of this crate, beside the one that renews leases, and costs no lease
    /// but its own: if it panics, that is a no; as long as it has not answered, the lease is not
    /// renewed, and the renewal goes as soon as it says yes. It is never called again before it has
    /// returned. Up to 4 hooks of a client are waited for at a time; one that takes longer than
    /// 100 ms no longer counts among them. Up to 256 can hang before others are not asked any more.
    ///
    /// A thread cannot be stopped: one whose hook never returns is left behind when the client is
    /// closed. What waits by [`blocking`](crate::blocking) is refused there, as in any thread of an
    /// async runtime.
    pub fn health(mut self, is_well: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.health = Some(Health::new(is_well));
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
        let origin = Origin::Granted(self.health);
        Ok(Lease::kept(&self.client, id, ttl, sent, origin))
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

/// What all handles of a client share that keep the same lease.
#[derive(Debug)]
struct Inner {
    id: LeaseId,
    term: Arc<Term>,
    client: Client,
    /// Whether it goes on without its handles.
    is_detached: AtomicBool,
}

/// How a client has come to keep a lease.
enum Origin {
    /// It is new: whoever has kept one of this name has lost it.
    Granted(Option<Health>),
    /// It was there before, and may be kept here already.
    Adopted,
}

impl Lease {
    /// A lease that was granted, or renewed, for `ttl` by a request that was sent at `sent`; it is
    /// kept from now on.
    fn kept(client: &Client, id: LeaseId, ttl: Duration, sent: Moment, origin: Origin) -> Self {
        let now = Moment::now();
        let (is_new, health) = match origin {
            Origin::Granted(health) => (true, health),
            Origin::Adopted => (false, None),
        };
        let mut is_kept = true;
        let new = || {
            let term = Arc::new(Term::new(ttl, sent));
            let kept = Kept::new(Arc::downgrade(&term), health);
            is_kept = client.keeper().is_ok_and(|keeper| keeper.keep(id, kept));
            Arc::new(Inner {
                id,
                term,
                client: client.clone(),
                is_detached: AtomicBool::new(false),
            })
        };
        let joins = |term: &Term| !is_new && !term.is_over(now);
        let (inner, before) = client.handles().enter(id, joins, new);
        if let Some(before) = before {
            before.term.lose(LostReason::Gone);
        }
        // For whoever joins; else it says nothing new.
        inner.term.renewed(ttl, sent, now);
        // Closing looks at what is kept only once; this may have come after that.
        if client.transport().closed.is_cancelled() {
            inner.term.lose(LostReason::Closed);
        } else if !is_kept {
            inner.term.lose(LostReason::NotRenewed);
        }
        tracing::debug!(lease = %id, ?ttl, "a lease is kept");
        Self { inner }
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
        inner.forget();
        revoke(inner.client.transport(), inner.id).await
    }

    /// Renews it no more and does not end it either: its keys stay until its time is up, or for as
    /// long as somebody else renews it ([`Client::adopt`], also in another process). For all clones
    /// it is lost.
    pub fn detach(self) -> LeaseId {
        let inner = &self.inner;
        inner.is_detached.store(true, Ordering::Release);
        inner.term.lose(LostReason::Detached);
        inner.forget();
        inner.id
    }
}

impl Inner {
    /// It is renewed no more, unless it is others who keep it by now.
    fn forget(&self) {
        if let Some(_ours) = self.client.handles().of(self)
            && let Ok(keeper) = self.client.keeper()
        {
            keeper.forget(self.id);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let is_detached = self.is_detached.load(Ordering::Acquire);
        self.term.lose(LostReason::Revoked);
        // Else it is others who keep it by now.
        if let Some(mut ours) = self.client.handles().of(self) {
            ours.remove(&self.id);
            if !is_detached && let Ok(keeper) = self.client.keeper() {
                keeper.revoke(self.id);
            }
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
    // A lease that nobody would renew is not adopted.
    client.keeper()?;
    let sent = Moment::now();
    let ttl = keep_alive(client, id).await?;
    Ok(Lease::kept(client, id, ttl, sent, Origin::Adopted))
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

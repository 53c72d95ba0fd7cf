//! The client: what applications hold, clone and share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use http::Uri;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::auth::Auth;
use crate::cache::{CacheBuilder, CachedBuilder, CachedStructBuilder};
use crate::call::Call;
use crate::clock::bounded;
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind};
use crate::kv::{Delete, Get, Put, Range, Swap};
use crate::lease::{Grant, Handles, Keeper, Lease, LeaseInfo};
use crate::maintenance::Maintenance;
use crate::op::Op;
use crate::options::{ClientBuilder, Config, IntoEndpoints};
use crate::transport::{ConnectionState, Transport};
use crate::txn::{Compare, Txn};
use crate::types::{IntoBytes, KeyRange, LeaseId, Revision, prefixed};
use crate::watch::{WatchBuilder, Watches};

/// What closing may take beyond its budget: a thread that was told to end needs a moment.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// A client of one cluster. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    namespace: Bytes,
    shared: Arc<Shared>,
}

struct Shared {
    transport: Arc<Transport>,
    watches: Watches,
    /// Renews leases; there once there is one.
    keeper: OnceLock<Keeper>,
    handles: Handles,
    user: Option<(String, String)>,
}

/// Makes a builder awaitable: its `send` is what is awaited.
macro_rules! awaited {
    ($type:ty => $output:ty) => {
        impl IntoFuture for $type {
            type Output = Result<$output, $crate::Error>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}
pub(crate) use awaited;

impl Client {
    /// A client with the default settings, once a server has answered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): an endpoint is no address;
    /// else why no server answered.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn connect(endpoints: impl IntoEndpoints) -> Result<Self, Error> {
        let client = Self::builder().endpoints(endpoints).build()?;
        client.maintenance().status().await?;
        Ok(client)
    }

    /// The settings, to be chosen; connections come about with the first calls.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn open(
        endpoints: Vec<Uri>,
        namespace: Bytes,
        user: Option<(String, String)>,
        config: Config,
    ) -> Self {
        let sync_interval = config.sync_interval;
        let transport = Transport::new(endpoints, user.clone(), config);
        let client = Self {
            namespace,
            shared: Arc::new(Shared {
                watches: Watches::new(transport.clone()),
                transport,
                keeper: OnceLock::new(),
                handles: Handles::default(),
                user,
            }),
        };
        if let Some(interval) = sync_interval {
            client.sync_every(interval);
        }
        client
    }

    /// The same client, seeing only the keys behind `prefix`, without it. Namespaces nest.
    #[must_use]
    pub fn namespace(&self, prefix: impl IntoBytes) -> Self {
        Self {
            namespace: prefixed(&self.namespace, &prefix.into_bytes()),
            shared: self.shared.clone(),
        }
    }

    /// Reads a key; none if it is not there.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn get(&self, key: impl IntoBytes) -> Get {
        Get::new(self.clone(), Op::get(KeyRange::key(key)))
    }

    /// Reads keys.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn range(&self, range: impl Into<KeyRange>) -> Range {
        Range::new(self.clone(), Op::get(range))
    }

    /// Writes a key.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not have been written, or be written later.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Put {
        Put::new(self.clone(), Op::put(key, value))
    }

    /// Writes a key unless it is there.
    ///
    /// # Cancel safety
    ///
    /// As [`Client::put`].
    pub fn put_if_absent(&self, key: impl IntoBytes, value: impl IntoBytes) -> Swap {
        let key = key.into_bytes();
        let expected = Compare::absent(&key);
        Swap::new(self.clone(), Op::put(key, value), expected)
    }

    /// Writes a key if it was last written at `expected` (its
    /// [`mod_revision`](crate::KeyValue::mod_revision)); [`Revision::UNKNOWN`]: if it is not there.
    ///
    /// # Cancel safety
    ///
    /// As [`Client::put`].
    pub fn compare_and_swap(
        &self,
        key: impl IntoBytes,
        expected: Revision,
        value: impl IntoBytes,
    ) -> Swap {
        let key = key.into_bytes();
        let expected = Compare::mod_revision(&key).eq(expected);
        Swap::new(self.clone(), Op::put(key, value), expected)
    }

    /// Deletes a key, or a [`KeyRange`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the keys may or may not have been deleted, or be deleted later.
    pub fn delete(&self, range: impl Into<KeyRange>) -> Delete {
        Delete::new(self.clone(), Op::delete(range))
    }

    /// A transaction: add conditions and operations, then await it.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not have taken place, or take place later.
    pub fn txn(&self) -> Txn {
        Txn::new(self.clone())
    }

    /// Watches a key, or a [`KeyRange`].
    pub fn watch(&self, range: impl Into<KeyRange>) -> WatchBuilder {
        WatchBuilder::new(self.clone(), range.into())
    }

    /// Keeps a range of keys in memory, current.
    pub fn cache(&self, range: impl Into<KeyRange>) -> CacheBuilder {
        CacheBuilder::new(self.clone(), range.into())
    }

    /// Keeps one key in memory as a `T`, current. What is stored is JSON, unless the builder is told
    /// otherwise.
    pub fn cached<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        key: impl IntoBytes,
    ) -> CachedBuilder<T> {
        CachedBuilder::json(self.clone(), key.into_bytes())
    }

    /// Keeps one key in memory as a `T`, current: what is stored is read by `read`, which says what
    /// is wrong with it otherwise. [`Client::cached`] is for JSON and for text.
    pub fn cached_by<T: Send + Sync + 'static>(
        &self,
        key: impl IntoBytes,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> CachedBuilder<T> {
        CachedBuilder::read(self.clone(), key.into_bytes(), read)
    }

    /// Keeps one key in memory as the bytes that it has, current.
    pub fn cached_bytes(&self, key: impl IntoBytes) -> CachedBuilder<Bytes> {
        CachedBuilder::bytes(self.clone(), key.into_bytes())
    }

    /// Keeps the keys below `prefix` in memory as one `T`, current, and always all of one revision.
    /// A prefix that does not end in `/` is given one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), gonfalon::Error> {
    /// # let server = gonfalon::testkit::FakeServer::start();
    /// # let client = server.client();
    /// # client.put("/config/name", "billing").await?;
    /// # client.put("/config/limits/rate", "100").await?;
    /// #[derive(serde::Deserialize)]
    /// struct Settings {
    ///     name: String,          // /config/name     billing
    ///     limits: Limits,        //
    /// }
    /// #[derive(serde::Deserialize)]
    /// struct Limits {
    ///     rate: u32,             // /config/limits/rate     100
    ///     #[serde(default)]
    ///     burst: Option<u32>,    // /config/limits/burst    not there
    /// }
    ///
    /// let settings = client.cached_struct::<Settings>("/config/").await?;
    /// assert_eq!(settings.load().name, "billing");
    /// assert_eq!((settings.load().limits.rate, settings.load().limits.burst), (100, None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Segments of a path are fields, of structs within structs; a map takes every name, a list takes
    /// the keys of a folder in the order of their names. Numbers and booleans are JSON; a text is
    /// what is stored, or what is in its quotes if that is a JSON string; `null` is no option. A
    /// struct, map or list can also be JSON in one key. Where serde has to guess the type (flattened
    /// structs, untagged enums), what can be JSON is.
    pub fn cached_struct<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        prefix: impl IntoBytes,
    ) -> CachedStructBuilder<T> {
        CachedStructBuilder::new(self.clone(), &prefix.into_bytes())
    }

    /// Grants a lease of `ttl` (in whole seconds, rounded up; servers may grant more), which is kept
    /// alive while the [`Lease`](crate::Lease) lives.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, a lease that was granted all the same is revoked in the background; one whose
    /// id was chosen ([`Grant::id`](crate::Grant::id)) is not, and ends when its time is up.
    pub fn grant(&self, ttl: Duration) -> Grant {
        Grant::new(self.clone(), ttl)
    }

    /// What the cluster knows of a lease; with `keys`, also the keys that go with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`](crate::ErrorKind::LeaseNotFound), and as any read.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lease_info(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, Error> {
        crate::lease::remaining(self, id, keys).await
    }

    /// Every lease of the cluster.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        crate::lease::leases(self).await
    }

    /// Renews, once, a lease that is not kept by a [`Lease`](crate::Lease) of this client; what the
    /// server granted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`](crate::ErrorKind::LeaseNotFound), and as any read.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it may have been renewed.
    pub async fn renew(&self, id: LeaseId) -> Result<Duration, Error> {
        crate::lease::keep_alive(self, id).await
    }

    /// Keeps a lease that is there already, as if it had been granted here: one that somebody
    /// detached ([`Lease::detach`](crate::Lease::detach)), or left behind.
    ///
    /// If this client keeps it already, what is returned is one more clone of that handle, with its
    /// health check: they are held and lost together, and the last that is dropped revokes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`](crate::ErrorKind::LeaseNotFound), and as any read.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it may have been renewed once.
    pub async fn adopt(&self, id: LeaseId) -> Result<Lease, Error> {
        crate::lease::adopt(self, id).await
    }

    /// Ends a lease: the keys that go with it are deleted. One that is not there is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not have ended.
    pub async fn revoke(&self, id: LeaseId) -> Result<(), Error> {
        crate::lease::revoke(self.transport(), id).await
    }

    /// Drops the history before `revision`: reads and watches of it fail from then on. With
    /// `physical`, returns when the space of that history is free for new data.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the history may be gone or not.
    pub async fn compact(&self, revision: Revision, physical: bool) -> Result<(), Error> {
        let request = pb::CompactionRequest {
            revision: revision.get(),
            physical,
        };
        // Twice is an error that says "compacted", which is what was asked for; so not twice.
        let call = Call::writes("compact");
        let answer = self
            .unary(call, request, move |channel, request| async move {
                KvClient::new(channel).compact(request).await
            })
            .await?;
        self.saw(answer.header.as_ref());
        Ok(())
    }

    /// Users, roles and what they may do.
    pub fn auth(&self) -> Auth {
        Auth::new(self.clone())
    }

    /// The cluster's members.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// The members' own affairs: status, alarms, space.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.clone())
    }

    /// How the client stands with the servers, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.transport.state()
    }

    /// The highest revision that any answer to this client has named.
    pub fn revision_floor(&self) -> Revision {
        self.shared.transport.seen()
    }

    /// The endpoints in use.
    pub fn endpoints(&self) -> Vec<Arc<str>> {
        self.shared.transport.names()
    }

    /// Replaces the endpoints by those that the cluster's members publish.
    ///
    /// # Errors
    ///
    /// As any read. A member whose client URLs are none that this client can use is left out; if
    /// that leaves nothing, the endpoints stay as they are.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn sync_endpoints(&self) -> Result<(), Error> {
        let members = self.cluster().members().await?;
        let urls = members.iter().flat_map(|member| &member.client_urls);
        let is_secured = self.shared.transport.config.trust.is_some();
        let uris = urls.filter_map(|url| {
            crate::options::uri(url, is_secured)
                .inspect_err(|why| tracing::warn!(%why, "a member cannot be used"))
                .ok()
        });
        let uris: Vec<Uri> = uris.collect();
        if let Some(keeper) = self.shared.keeper.get() {
            keeper.replace_endpoints(uris.clone());
        }
        self.shared.transport.replace_endpoints(uris);
        Ok(())
    }

    /// Syncs until the client is closed or gone.
    fn sync_every(&self, interval: Duration) {
        let shared = Arc::downgrade(&self.shared);
        let closed = self.shared.transport.closed.clone();
        self.shared.transport.spawn(async move {
            loop {
                let pause = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
                tokio::select! {
                    biased;
                    () = closed.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let namespace = Bytes::new();
                if let Err(error) = (Self { namespace, shared }).sync_endpoints().await {
                    tracing::debug!(%error, "the endpoints could not be synced");
                }
            }
        });
    }

    /// Ends this client and its clones in good order, within the default deadline: see
    /// [`Client::close_within`].
    ///
    /// # Errors
    ///
    /// # Cancel safety
    ///
    /// As [`Client::close_within`].
    pub async fn close(&self) -> Result<(), Error> {
        self.close_within(self.default_deadline()).await
    }

    /// Ends this client and its clones in good order.
    ///
    /// At once every call, watch and cache ends, and every later call fails, with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); every lease is lost. Then, within `budget`:
    /// the leases are revoked (what was detached stays), with them the locks and leaderships that
    /// they stand for; the keys of contenders who gave up are deleted; what caches want on disk is
    /// written; the connections are ended. When this returns, no task, thread or connection of the
    /// client is left at work, but for a [health check](crate::Grant::health) that does not return.
    ///
    /// Again, it waits for the same end, and says the same of it. Dropping the last clone sets the
    /// same in motion, with the default deadline, and waits for nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): not everything was confirmed in time.
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal): the thread that renews leases has died
    /// before, and nobody knows what has become of them. The client is closed all the same, and the
    /// leases in question end when their time is up.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the end goes on in the background.
    pub async fn close_within(&self, budget: Duration) -> Result<(), Error> {
        let (began, budget) = (Instant::now(), bounded(budget));
        let shared = &self.shared;
        shared.close(Some(budget));
        let ended = async {
            shared.transport.tasks_ended().await;
            match shared.keeper.get() {
                Some(keeper) => keeper.ended().await,
                None => Ok(()),
            }
        };
        let late = || Error::new(ErrorKind::Timeout, "close", "its tasks have not ended");
        let ended = timeout(budget + CLOSE_GRACE, ended).await;
        let ended = ended.unwrap_or_else(|_| Err(late()));
        ended.map_err(|error| error.after(0, began.elapsed()))
    }

    pub(crate) fn namespace_bytes(&self) -> &Bytes {
        &self.namespace
    }

    pub(crate) fn transport(&self) -> &Arc<Transport> {
        &self.shared.transport
    }

    /// Whoever renews leases; started with the first.
    pub(crate) fn keeper(&self) -> Result<&Keeper, Error> {
        let shared = &self.shared;
        let keeper = shared.keeper.get();
        if let Some(keeper) = keeper
            && !keeper.is_gone()
        {
            return Ok(keeper);
        }
        if shared.transport.closed.is_cancelled() {
            return Err(crate::transport::closed("grant"));
        }
        if keeper.is_some() {
            let why = "the thread that renews this client's leases has died: make another client";
            return Err(Error::new(ErrorKind::Internal, "grant", why));
        }
        let started = Keeper::start(
            shared.transport.uris(),
            shared.user.clone(),
            shared.transport.config.clone(),
        )?;
        // Another may have been faster; then this one ends at once.
        let keeper = shared.keeper.get_or_init(|| started);
        if shared.transport.closed.is_cancelled() {
            keeper.stop(None);
        }
        Ok(keeper)
    }

    /// Which leases its handles keep.
    pub(crate) fn handles(&self) -> &Handles {
        &self.shared.handles
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.shared.watches
    }

    pub(crate) fn saw(&self, header: Option<&pb::ResponseHeader>) {
        self.shared.transport.saw(header);
    }

    /// What serializable reads must not be older than.
    pub(crate) fn floor(&self) -> Option<Revision> {
        let transport = &self.shared.transport;
        transport.config.reads_go_forward.then(|| transport.seen())
    }

    pub(crate) fn default_deadline(&self) -> Duration {
        self.shared.transport.config.deadline
    }

    pub(crate) fn response_bytes_max(&self) -> usize {
        self.shared.transport.config.response_bytes_max
    }

    pub(crate) fn unary<Q: Clone, R, F>(
        &self,
        call: Call,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> impl Future<Output = Result<R, Error>>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.shared.transport.unary(call, request, send)
    }
}

impl Shared {
    fn close(&self, budget: Option<Duration>) {
        self.transport.close();
        if let Some(keeper) = self.keeper.get() {
            keeper.stop(budget);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close(None);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the password.
        f.debug_struct("Shared")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

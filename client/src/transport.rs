//! The way to the servers: which endpoint is asked, how often, and for how long.
//!
//! Every endpoint has two connections: calls go over one, streams that carry much data over the
//! other, so that a large answer never delays a lease's renewal. Which endpoint comes next is our
//! own decision: tonic's balancer goes on handing out endpoints that are dead.

mod budget;
mod connector;
mod endpoints;
mod line;
mod patience;
mod pings;
mod range_stream;

use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use gonfalon_proto::etcdserverpb as pb;
use http::Uri;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::call::{Call, Repeat, Way};
use crate::clock::bounded;
use crate::credentials::{Credentials, Proof};
use crate::error::{Error, ErrorKind, Outcome, Verdict, classify};
use crate::observe::{self, Called};
use crate::options::Config;
use crate::types::{Revision, revision_of};

use budget::Budget;
pub(crate) use connector::NotSecured;
pub(crate) use endpoints::Endpoint;
use endpoints::Endpoints;
use patience::{Waited, patiently};
pub(crate) use range_stream::RangeStream;

/// How a client stands with the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// No call was made yet.
    Idle,
    /// The last attempt was answered.
    Ready,
    /// The last attempt was answered by a member that sees no leader: it is cut off from the others,
    /// or there are too few of them. Nothing that it says can be relied upon.
    NoLeader,
    /// The last attempt was not answered, for the endpoint's sake.
    Failing,
    /// [`Client::close`](crate::Client::close) was called.
    Closed,
}

/// Everything that clones of a client share.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) config: Config,
    endpoints: Endpoints,
    credentials: Option<Credentials>,
    budget: Budget,
    /// The highest revision that any answer named.
    seen: AtomicI64,
    /// The cluster that answered last; 0 before the first answer.
    cluster_id: AtomicU64,
    /// How often it was noticed that the store went back.
    restores: AtomicU64,
    state: watch::Sender<ConnectionState>,
    pub(crate) closed: CancellationToken,
    /// Serializes changes of `state` with closing.
    closing: Mutex<()>,
    /// Everything that runs in the background on the application's runtime. Such a task ends soon
    /// after `closed`; what it has to put away it does before, and closing waits for it.
    tasks: TaskTracker,
}

/// A store as one client knows it: revisions of one have nothing to do with those of another. One that
/// was restored from a backup is another, also if it has kept its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoreId {
    /// 0: not known.
    pub(crate) cluster: u64,
    /// How often this client had noticed by then that the store went back.
    pub(crate) restores: u64,
}

/// The metadata that says: refuse, rather than wait, when there is no leader.
pub(crate) const NEEDS_LEADER: &str = "hasleader";

/// So often one call fetches another token. One is too few: users and roles may be changed meanwhile.
const TOKENS_MAX: u32 = 3;

impl Transport {
    pub(crate) fn new(
        endpoints: Vec<Uri>,
        user: Option<(String, String)>,
        config: Config,
    ) -> Arc<Self> {
        Arc::new(Self {
            endpoints: Endpoints::new(endpoints, &config),
            credentials: user.map(|(name, password)| Credentials::new(name, password)),
            budget: Budget::new(config.retry_share),
            seen: AtomicI64::new(0),
            cluster_id: AtomicU64::new(0),
            restores: AtomicU64::new(0),
            state: watch::Sender::new(ConnectionState::Idle),
            closed: CancellationToken::new(),
            closing: Mutex::default(),
            tasks: TaskTracker::new(),
            config,
        })
    }

    /// Starts a task that ends when the client is closed, at the latest; on the runtime that the client
    /// was made on, whichever this is called on.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) {
        self.tasks.spawn_on(task, self.endpoints.runtime());
    }

    /// Returns when every task has ended, once the client is closed.
    pub(crate) async fn tasks_ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sends `request` until it is answered, refused for good, or out of time.
    ///
    /// `send` is called for each attempt, with a channel and the request with its metadata.
    pub(crate) async fn unary<Q: Clone, R, F>(
        &self,
        call: Call,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let answer = self.answer(call, request, send).await?;
        Ok(answer.0)
    }

    /// The same, and who answered.
    pub(crate) async fn answer<Q: Clone, R, F>(
        &self,
        call: Call,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<(R, Arc<Endpoint>), Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut called = Called::begin(call);
        let span = called.span();
        let result = {
            // In its place from the beginning: it is large, and to instrument it would move it.
            let tries = pin!(self.tries(call, request, send, &mut called));
            tries.instrument(span).await
        };
        called.end(result)
    }

    async fn tries<Q: Clone, R, F>(
        &self,
        call: Call,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
        called: &mut Called,
    ) -> Result<(R, Arc<Endpoint>), Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let give_up = called.began() + self.patience(call.deadline);
        self.budget.earn();
        let mut pauses = self.pauses();
        let mut tried = Vec::new();
        let mut tokens = 0;
        loop {
            // None once the client is closed.
            let Some(endpoint) = self.endpoints.pick(&tried) else {
                return Err(closed(call.name));
            };
            called.attempt(&endpoint);
            let attempt = self.attempt(call, &endpoint, request.clone(), give_up, &send);
            let verdict = match attempt.await {
                Ok(answer) => {
                    self.report(&endpoint, None);
                    return Ok((answer, endpoint));
                }
                Err(verdict) => verdict,
            };
            self.report(&endpoint, Some(&verdict));
            let error = verdict.error.clone().at(endpoint.name());
            let error = match call.repeat {
                // What only reads did not take place.
                Repeat::Reads => error.outcome_is(Outcome::NotApplied),
                Repeat::Safe | Repeat::Never => error,
            };
            let mut next = || pauses.next().unwrap_or(self.config.backoff_max);
            let again = self.again(call, &verdict, &error);
            if !matches!(again, Again::WithToken) {
                tried.push(endpoint);
            }
            // As long as there are endpoints that were not tried, there is nothing to wait for.
            let has_others = self.endpoints.has_other_than(&tried);
            let pause = match again {
                // The endpoint is fine and only the token is old: at once, at first.
                Again::WithToken if tokens < TOKENS_MAX => {
                    tokens += 1;
                    if tokens == 1 { Duration::ZERO } else { next() }
                }
                Again::Yes | Again::Elsewhere if has_others => Duration::ZERO,
                Again::Yes => {
                    tried.clear();
                    next()
                }
                Again::WithToken | Again::Elsewhere | Again::No => {
                    return Err(error);
                }
            };
            if Instant::now() + pause >= give_up {
                return Err(error);
            }
            if !self.budget.spend() {
                observe::retry_budget_exhausted();
                return Err(error);
            }
            tracing::debug!(call = call.name, %error, ?pause, "trying again");
            sleep(pause).await;
        }
    }

    async fn attempt<Q, R, F>(
        &self,
        call: Call,
        endpoint: &Endpoint,
        request: Q,
        give_up: Instant,
        send: &impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<R, Verdict>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let late = || Status::deadline_exceeded("no answer within the call's deadline");
        // What the request was handed to, from then on.
        let handed = OnceLock::new();
        let answered = pin!(async {
            let mut request = Request::new(request);
            let proof = self.prepare(&mut request, call.needs_leader, endpoint);
            let proof = proof.await?;
            let channel = match call.way {
                Way::Alone => endpoint.alone(),
                Way::Streams => endpoint.streams(),
                Way::Calls => {
                    request.set_timeout(told(give_up));
                    let (calls, line) = endpoint.calls_and_line();
                    let mark = line.mark();
                    handed.get_or_init(|| (line, mark));
                    calls
                }
            };
            let answer = send(channel, request).await;
            Ok(answer.map_err(|status| (status, proof)))
        });
        match patiently(answered, give_up, &self.closed).await {
            Waited::Answered(Ok(Ok(response))) => Ok(response.into_inner()),
            Waited::Answered(Ok(Err((status, proof)))) => {
                let verdict = classify(call.name, status);
                if verdict.wants_token {
                    self.forget_token(proof);
                }
                Err(verdict)
            }
            Waited::Answered(Err(verdict)) => Err(verdict),
            Waited::Closed => {
                // It is under way: a server may have it already.
                let error = closed(call.name).outcome_is(Outcome::Unknown);
                Err(Verdict::refuse(error))
            }
            Waited::Late => {
                let mut verdict = classify(call.name, late());
                match handed.get() {
                    // While it waited for a token, nothing was sent.
                    None if call.way == Way::Calls => {
                        verdict.error = verdict.error.outcome_is(Outcome::NotApplied);
                    }
                    Some((line, mark)) if line.was_silent_since(*mark) => {
                        let message = "no connection within the call's deadline";
                        verdict.error = Error::new(ErrorKind::Connect, call.name, message);
                    }
                    _ => {}
                }
                Err(verdict)
            }
        }
    }

    /// Sends `request` to one endpoint, once.
    pub(crate) async fn ask<Q, R, F>(
        &self,
        endpoint: &Endpoint,
        call: Call,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let give_up = self.give_up(call.deadline);
        let attempt = self.attempt(call, endpoint, request, give_up, &send);
        attempt.await.map_err(|verdict| verdict.error)
    }

    /// When to give up what may take `deadline`, or as long as the client's calls.
    pub(crate) fn give_up(&self, deadline: Option<Duration>) -> Instant {
        Instant::now() + self.patience(deadline)
    }

    fn patience(&self, deadline: Option<Duration>) -> Duration {
        bounded(deadline.unwrap_or(self.config.deadline))
    }

    /// Adds to `request` what every request carries.
    pub(crate) async fn prepare<Q>(
        &self,
        request: &mut Request<Q>,
        needs_leader: bool,
        endpoint: &Endpoint,
    ) -> Result<Proof, Verdict> {
        if needs_leader {
            let yes = MetadataValue::<Ascii>::from_static("true");
            request.metadata_mut().insert(NEEDS_LEADER, yes);
        }
        let Some(credentials) = &self.credentials else {
            return Ok(Proof::default());
        };
        let (token, proof) = credentials.token(endpoint.calls()).await?;
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        Ok(proof)
    }

    /// Whether, and how, a failed call is sent again.
    fn again(&self, call: Call, verdict: &Verdict, error: &Error) -> Again {
        if verdict.wants_token && self.credentials.is_some() {
            return Again::WithToken;
        }
        let is_passing = matches!(
            error.kind(),
            ErrorKind::Connect
                | ErrorKind::Unavailable
                | ErrorKind::NoLeader
                | ErrorKind::Timeout
                | ErrorKind::TooManyRequests
        );
        if matches!(error.kind(), ErrorKind::Tls | ErrorKind::NotLeader) {
            return Again::Elsewhere;
        }
        let is_harmless = match call.repeat {
            Repeat::Reads | Repeat::Safe => true,
            Repeat::Never => error.outcome() == Outcome::NotApplied,
        };
        if is_passing && is_harmless {
            Again::Yes
        } else {
            Again::No
        }
    }

    /// An endpoint has answered a call or opened a stream, or failed for the reason that is given.
    pub(crate) fn report(&self, endpoint: &Endpoint, verdict: Option<&Verdict>) {
        let failure = verdict.filter(|verdict| verdict.blames_endpoint);
        let changed = match failure {
            None => endpoint.answered(),
            Some(_) => endpoint.failed(&self.config),
        };
        if changed {
            observe::endpoint(&endpoint.name(), failure.is_none());
        }
        self.set_state(match failure.map(|verdict| verdict.error.kind()) {
            None => ConnectionState::Ready,
            Some(ErrorKind::NoLeader) => ConnectionState::NoLeader,
            Some(_) => ConnectionState::Failing,
        });
    }

    fn set_state(&self, state: ConnectionState) {
        // As nearly every call finds it.
        if *self.state.borrow() == state {
            return;
        }
        let _closing = self
            .closing
            .lock()
            .expect("nothing panics while it holds this lock");
        if !self.closed.is_cancelled() {
            self.state.send_if_modified(|now| {
                let is_new = *now != state;
                *now = state;
                is_new
            });
        }
    }

    /// How many endpoints there are.
    pub(crate) fn choice(&self) -> usize {
        self.endpoints.len()
    }

    /// An endpoint for a stream: none of `tried`, the last of which failed last, if there is another;
    /// when all were tried, they are tried again. None once the client is closed.
    pub(crate) fn endpoint_for_stream(
        &self,
        tried: &mut Vec<Arc<Endpoint>>,
    ) -> Option<Arc<Endpoint>> {
        if self.endpoints.are_all_in(tried) {
            tried.drain(..tried.len().saturating_sub(1));
        }
        self.endpoints.pick(tried)
    }

    /// Whether there is another endpoint that could be asked instead.
    pub(crate) fn has_other_than(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.endpoints
            .has_other_than(std::slice::from_ref(endpoint))
    }

    /// Whether a user asks.
    pub(crate) fn has_user(&self) -> bool {
        self.credentials.is_some()
    }

    /// A token that was refused is not used again; whether another can be had.
    pub(crate) fn forget_token(&self, refused: Proof) -> bool {
        let Some(credentials) = &self.credentials else {
            return false;
        };
        credentials.forget(refused);
        true
    }

    /// The pauses between attempts, without end: random between nothing and a bound that doubles.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.config.backoff_min)
            .with_max_delay(self.config.backoff_max)
            .without_max_times()
            .build()
            .map(|bound| bound.mul_f64(fastrand::f64()))
    }

    /// Notes the revision that an answer named.
    pub(crate) fn saw(&self, header: Option<&pb::ResponseHeader>) {
        let Some(header) = header else { return };
        let id = header.cluster_id;
        let known = match id {
            0 => self.cluster_id(),
            id => self.cluster_id.swap(id, Ordering::AcqRel),
        };
        if id != 0 && known != 0 && id != known {
            // Of the store that was there before, nothing is to be expected of this one.
            self.seen.store(header.revision, Ordering::Release);
        } else {
            self.seen.fetch_max(header.revision, Ordering::AcqRel);
        }
    }

    /// Notes the answer to what a store does in the order of its revisions, all of which up to `seen`
    /// were named before it was asked: it names none below `least`, unless the store has gone back.
    pub(crate) fn saw_in_order(
        &self,
        seen: Revision,
        least: Revision,
        header: Option<&pb::ResponseHeader>,
    ) {
        let revision = revision_of(header);
        if header.is_some() && revision < least {
            self.went_back(seen, revision);
        }
        self.saw(header);
    }

    /// The store was restored: of what was seen, only what is up to `revision` is there.
    pub(crate) fn went_back(&self, seen: Revision, revision: Revision) {
        let order = Ordering::AcqRel;
        // Somebody else has noticed the same.
        if self.seen() < seen {
            return;
        }
        // First: whoever finds that less has been seen knows that this is another store.
        self.restores.fetch_add(1, order);
        // Whatever was noted meanwhile is of the store as it is now.
        let _ = self
            .seen
            .compare_exchange(seen.get(), revision.get(), order, Ordering::Acquire);
    }

    /// The id of the cluster that answered last; 0 before the first answer.
    pub(crate) fn cluster_id(&self) -> u64 {
        self.cluster_id.load(Ordering::Acquire)
    }

    /// The store that answers, as far as is known.
    pub(crate) fn store(&self) -> StoreId {
        StoreId {
            cluster: self.cluster_id(),
            restores: self.restores.load(Ordering::Acquire),
        }
    }

    /// The highest revision that any answer named.
    pub(crate) fn seen(&self) -> Revision {
        Revision::new(self.seen.load(Ordering::Acquire))
    }

    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.endpoints.names()
    }

    pub(crate) fn uris(&self) -> Vec<Uri> {
        self.endpoints.uris()
    }

    /// Replaces the endpoints; those that stay keep their connections.
    pub(crate) fn replace_endpoints(&self, uris: Vec<Uri>) {
        self.endpoints.replace(uris, &self.config);
    }

    pub(crate) fn close(&self) {
        let _closing = self
            .closing
            .lock()
            .expect("nothing panics while it holds this lock");
        self.closed.cancel();
        // Connections end with the last call that holds one, not with the last handle.
        self.endpoints.clear();
        self.state.send_replace(ConnectionState::Closed);
    }
}

enum Again {
    Yes,
    WithToken,
    /// On another endpoint, if there is one: on this one waiting does not help.
    Elsewhere,
    No,
}

/// The time until `give_up`, as a server is told: in whole milliseconds, rounded up. Most calls say the
/// same then, so that both sides have it in their tables of headers, instead of replacing what is there
/// with every call.
fn told(give_up: Instant) -> Duration {
    let left = give_up.saturating_duration_since(Instant::now());
    let whole = left.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
}

pub(crate) fn closed(call: &'static str) -> Error {
    Error::new(ErrorKind::Closed, call, "")
}

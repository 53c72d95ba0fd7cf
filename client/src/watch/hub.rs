//! All watches of a client on one stream, and the stream's way from member to member.
//!
//! One task owns the stream. Handles leave their orders; the task's own
//! queue for each watch (`inbox.rs`) refuses rather than waits. So nothing that an application does
//! keeps the stream from being read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::{Request, Status, Streaming};

use super::WatchState;
use super::behind::{Found, find_out};
use super::inbox::Inbox;
use super::lag::{LOOK_EVERY, Lag, Look};
use super::requests::Requests;
use super::track::{Created, Track};
use crate::credentials::Proof;
use crate::error::{Error, ErrorKind, Outcome, Verdict, classify};
use crate::observe::{self, Stream};
use crate::orders::Orders;
use crate::transport::{Endpoint, Transport, closed};
use crate::types::{Revision, revision_of};

/// A stream that has worked for this long was good: when it breaks, another is made at once.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// The watches of one client. The task starts with the first of them.
#[derive(Debug)]
pub(crate) struct Watches {
    transport: Arc<Transport>,
    wanted: Arc<Orders<Order>>,
    next_id: AtomicI64,
    is_running: AtomicBool,
    failing: Arc<Failing>,
}

/// Why there is no stream, while there is none.
#[derive(Debug, Default)]
struct Failing(Mutex<Option<Error>>);

impl Failing {
    fn set(&self, why: Option<Error>) {
        *self.lock() = why;
    }

    fn why(&self) -> Option<Error> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.0
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

#[derive(Debug)]
enum Order {
    Add(i64, Box<Watcher>),
    Remove(i64),
}

/// One watch, as the task sees it.
#[derive(Debug)]
struct Watcher {
    request: pb::WatchCreateRequest,
    track: Track,
    inbox: Arc<Inbox>,
    /// Whoever waits for the first creation.
    waiting: Option<oneshot::Sender<()>>,
    /// Whether it was refused for its token already.
    token_was_old: bool,
}

impl Watches {
    pub(crate) fn new(transport: Arc<Transport>) -> Self {
        Self {
            transport,
            wanted: Arc::default(),
            // 0 would let the server choose.
            next_id: AtomicI64::new(1),
            is_running: AtomicBool::new(false),
            failing: Arc::default(),
        }
    }

    /// Creates a watch; returns once a member has.
    pub(super) async fn add(
        &self,
        request: pb::WatchCreateRequest,
        hidden: usize,
        inbox: Arc<Inbox>,
        deadline: Option<Duration>,
    ) -> Result<i64, Error> {
        if self.transport.closed.is_cancelled() {
            return Err(closed("watch"));
        }
        if !self.is_running.swap(true, Ordering::AcqRel) {
            let hub = Hub {
                transport: self.transport.clone(),
                wanted: self.wanted.clone(),
                watchers: BTreeMap::new(),
                failing: self.failing.clone(),
            };
            self.transport.spawn(hub.run());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (waiting, created) = oneshot::channel();
        let watcher = Watcher {
            track: Track::new(request.start_revision, hidden, self.transport.seen()),
            request,
            inbox: inbox.clone(),
            waiting: Some(waiting),
            token_was_old: false,
        };
        let guard = RemoveOnDrop(self, id);
        self.wanted.leave(Order::Add(id, Box::new(watcher)));
        let began = Instant::now();
        let deadline = deadline.unwrap_or(self.transport.config.deadline);
        match timeout(deadline, created).await {
            Ok(Ok(())) => {
                std::mem::forget(guard);
                Ok(id)
            }
            Ok(Err(_)) => Err(inbox
                .take_end()
                .unwrap_or_else(|| closed("watch"))
                .after(1, began.elapsed())),
            Err(_) => {
                let why = self.failing.why();
                let late = || Error::new(ErrorKind::Timeout, "watch", "no member has created it");
                let error = why.unwrap_or_else(late).outcome_is(Outcome::NotApplied);
                Err(error.after(1, began.elapsed()))
            }
        }
    }

    /// Ends a watch.
    pub(super) fn remove(&self, id: i64) {
        self.wanted.leave(Order::Remove(id));
    }
}

/// Takes a watch back whose creation nobody waits for any more.
struct RemoveOnDrop<'a>(&'a Watches, i64);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}

/// The task.
struct Hub {
    transport: Arc<Transport>,
    wanted: Arc<Orders<Order>>,
    watchers: BTreeMap<i64, Watcher>,
    failing: Arc<Failing>,
}

/// One stream.
struct Open {
    endpoint: Arc<Endpoint>,
    proof: Proof,
    lag: Lag,
    requests: Requests,
    /// Creations that were not answered, in the order in which they were asked for: a refusal does
    /// not say of whom.
    unanswered: VecDeque<i64>,
    needs_token: bool,
    /// What was seen and the member does not show.
    behind: Option<Revision>,
    /// Finds out why, of the revision beside it.
    looking: Option<(Revision, BoxFuture<'static, Found>)>,
}

/// Why a stream is over.
enum Over {
    /// Nobody watches any more.
    Idle,
    Closed,
    Failed(Box<Verdict>),
    /// The token is no longer good for it.
    OldToken,
    /// The user is not who he says he is: no other stream will be better.
    Refused(Error),
}

impl Hub {
    async fn run(mut self) {
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut pauses = self.transport.pauses();
        // Streams that did not last, one after the other.
        let mut failures = 0;
        loop {
            self.take_orders(None);
            if self.watchers.is_empty() {
                tokio::select! {
                    biased;
                    () = self.transport.closed.cancelled() => return self.end_all(),
                    () = self.wanted.left() => continue,
                }
            }
            let Some(endpoint) = self.transport.endpoint_for_stream(&mut tried) else {
                return self.end_all();
            };
            let began = Instant::now();
            let over = self.stream(&endpoint).await;
            for watcher in self.watchers.values_mut() {
                watcher.track.broken();
                watcher.inbox.set_state(WatchState::Resuming);
            }
            match over {
                Over::Closed => return self.end_all(),
                Over::Idle => {
                    failures = 0;
                    tried.clear();
                    continue;
                }
                Over::Refused(error) => self.refuse_all(&error),
                Over::OldToken => tried.clear(),
                Over::Failed(verdict) => {
                    self.failing.set(Some(verdict.error.clone()));
                    observe::stream_failed(Stream::Watches);
                    self.transport.stream_report(&endpoint, Some(&verdict));
                    tracing::debug!(endpoint = %endpoint.name(), error = %verdict.error, "watches move on");
                    if began.elapsed() >= GOOD_AFTER {
                        tried.clear();
                    }
                    tried.push(endpoint);
                }
            }
            if began.elapsed() >= GOOD_AFTER {
                (pauses, failures) = (self.transport.pauses(), 0);
            }
            failures += 1;
            if failures > 1 {
                let pause = pauses.next().unwrap_or(self.transport.config.backoff_max);
                tokio::select! {
                    biased;
                    () = self.transport.closed.cancelled() => return self.end_all(),
                    () = sleep(pause) => {}
                }
            }
        }
    }

    /// Opens a stream to `endpoint`, creates every watch on it, and hands over what it brings.
    async fn stream(&mut self, endpoint: &Arc<Endpoint>) -> Over {
        let mut open = Open {
            endpoint: endpoint.clone(),
            proof: Proof::default(),
            lag: Lag::default(),
            requests: Requests::default(),
            unanswered: VecDeque::new(),
            needs_token: false,
            behind: None,
            looking: None,
        };
        // All at once, answered in one round trip.
        for (&id, watcher) in &self.watchers {
            open.create(id, watcher);
        }
        let mut stream = match self.open(&mut open).await {
            Ok(stream) => stream,
            Err(over) => return over,
        };
        self.transport.stream_report(endpoint, None);
        observe::stream_opened(Stream::Watches);
        self.failing.set(None);
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                biased;
                () = self.transport.closed.cancelled() => return Over::Closed,
                () = self.wanted.left() => {
                    self.take_orders(Some(&mut open));
                    if self.watchers.is_empty() {
                        return Over::Idle;
                    }
                }
                message = stream.message() => match message {
                    Ok(Some(response)) => {
                        self.respond(&mut open, response);
                        if open.needs_token {
                            return Over::OldToken;
                        }
                    }
                    Ok(None) => {
                        let status = Status::unavailable("the server ended the stream");
                        return self.failed(&open, status);
                    }
                    Err(status) => return self.failed(&open, status),
                },
                () = sleep_until(look_at), if self.transport.has_choice() => {
                    look_at = Instant::now() + LOOK_EVERY;
                    let seen = self.transport.seen();
                    match open.lag.look(seen) {
                        Look::Fine => {}
                        Look::Ask => open.ask_progress(),
                        Look::Behind => open.behind = open.behind.max(Some(seen)),
                    }
                }
                (wanted, found) = looked(&mut open.looking) => {
                    if let Some(over) = self.found(&mut open, wanted, found) {
                        return over;
                    }
                }
            }
            if let Some(wanted) = open.behind
                && open.looking.is_none()
                && let Some(key) = self.permitted(&open)
            {
                let (transport, endpoint) = (self.transport.clone(), endpoint.clone());
                let finding = find_out(transport, endpoint, wanted, key);
                open.looking = Some((wanted, Box::pin(finding)));
            }
        }
    }

    /// A key that may be read: a member has created a watch of it.
    fn permitted(&self, open: &Open) -> Option<Bytes> {
        let mut watchers = self.watchers.iter();
        let created = watchers.find(|(id, _)| !open.unanswered.contains(id));
        created.map(|(_, watcher)| watcher.request.key.clone())
    }

    async fn open(&self, open: &mut Open) -> Result<Streaming<pb::WatchResponse>, Over> {
        let transport = &self.transport;
        let (endpoint, requests) = (open.endpoint.clone(), open.requests.stream());
        let opened = async {
            let mut request = Request::new(requests);
            let prepared = transport.prepare(&mut request, true, &endpoint).await;
            open.proof = prepared.map_err(|verdict| {
                let error = verdict.error.clone().at(endpoint.name());
                if *error.kind() == ErrorKind::Unauthenticated {
                    return Over::Refused(error);
                }
                Over::Failed(Box::new(Verdict { error, ..verdict }))
            })?;
            WatchClient::new(endpoint.streams())
                .max_decoding_message_size(transport.config.response_bytes_max)
                .watch(request)
                .await
                .map(tonic::Response::into_inner)
                .map_err(|status| self.failed(open, status))
        };
        let give_up = Instant::now() + transport.config.deadline;
        tokio::select! {
            biased;
            () = transport.closed.cancelled() => Err(Over::Closed),
            opened = timeout_at(give_up, opened) => opened.unwrap_or_else(|_| {
                let status = Status::deadline_exceeded("no answer to a new watch stream");
                let mut verdict = classify("watch", status);
                verdict.error = verdict.error.at(endpoint.name());
                Err(Over::Failed(Box::new(verdict)))
            }),
        }
    }

    fn failed(&self, open: &Open, status: Status) -> Over {
        let mut verdict = classify("watch", status);
        if verdict.wants_token && self.transport.forget_token(open.proof) {
            return Over::OldToken;
        }
        verdict.error = verdict.error.at(open.endpoint.name());
        Over::Failed(Box::new(verdict))
    }

    /// Does what handles want; on `open`, if there is a stream.
    fn take_orders(&mut self, mut open: Option<&mut Open>) {
        for order in self.wanted.take() {
            match order {
                Order::Add(id, watcher) => {
                    if let Some(open) = &mut open {
                        open.create(id, &watcher);
                    }
                    self.watchers.insert(id, *watcher);
                }
                Order::Remove(id) => {
                    if self.watchers.remove(&id).is_some()
                        && let Some(open) = &open
                    {
                        open.cancel(id);
                    }
                }
            }
        }
        observe::watches(self.watchers.len());
    }

    fn respond(&mut self, open: &mut Open, response: pb::WatchResponse) {
        self.transport.saw(response.header.as_ref());
        open.lag.told(revision_of(response.header.as_ref()));
        let id = if response.created {
            match open.answered(response.watch_id) {
                Some(id) => id,
                None => return,
            }
        } else {
            response.watch_id
        };
        // One that was removed meanwhile; or progress of the whole stream, which is no news to a
        // watch: before etcd 3.4.25 and 3.5.8 it may overtake events.
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        if response.canceled {
            self.canceled(open, id, &response);
        } else if response.created {
            let created = watcher.track.created(response.header.as_ref());
            watcher.inbox.advance(watcher.track.position());
            watcher.token_was_old = false;
            if let Some(waiting) = watcher.waiting.take() {
                tracing::debug!(watch = id, from = watcher.track.start(), "watching");
                // One who has gone away takes the watch back himself.
                let _ = waiting.send(());
            } else {
                observe::watch_resumed();
                tracing::debug!(watch = id, from = watcher.track.start(), "watching again");
            }
            match created {
                Created::Fine => watcher.inbox.set_state(WatchState::Live),
                Created::Behind(seen) => open.behind = open.behind.max(Some(seen)),
                Created::Elsewhere => {
                    let now = response.header.map_or(0, |header| header.revision);
                    self.transport
                        .went_back(self.transport.seen(), Revision::new(now));
                    self.end(open, id, restored("it is another cluster"));
                    open.cancel(id);
                }
            }
        } else if response.events.is_empty() {
            watcher.track.progressed(response.header.as_ref());
            watcher.inbox.advance(watcher.track.position());
        } else if let Some(batch) = watcher.track.received(response)
            && !watcher.inbox.push(batch)
        {
            self.watchers.remove(&id);
            open.cancel(id);
        }
    }

    /// The server has ended a watch.
    fn canceled(&mut self, open: &mut Open, id: i64, response: &pb::WatchResponse) {
        if response.compact_revision > 0 {
            let oldest = Revision::new(response.compact_revision);
            observe::watch_compacted();
            let error = Error::new(ErrorKind::Compacted { oldest }, "watch", "");
            return self.end(open, id, error);
        }
        let verdict = classify("watch", Status::unknown(&*response.cancel_reason));
        let is_denied = *verdict.error.kind() == ErrorKind::PermissionDenied;
        // A stream keeps the token that it was opened with, and says "denied" when that is old.
        if (verdict.wants_token || is_denied)
            && let Some(watcher) = self.watchers.get_mut(&id)
            && !watcher.token_was_old
            && self.transport.forget_token(open.proof)
        {
            watcher.token_was_old = true;
            open.needs_token = true;
            return;
        }
        self.end(open, id, verdict.error);
    }

    /// It is known why the member was behind; why the stream is over, if it is.
    fn found(&mut self, open: &mut Open, wanted: Revision, found: Found) -> Option<Over> {
        open.looking = None;
        open.behind = open.behind.filter(|&behind| behind > wanted);
        match found {
            // It is asked again for what was noticed meanwhile.
            Found::CaughtUp if open.behind.is_some() => None,
            Found::CaughtUp => {
                for (id, watcher) in &self.watchers {
                    if !open.unanswered.contains(id) {
                        watcher.inbox.set_state(WatchState::Live);
                    }
                }
                None
            }
            Found::Lags => {
                let why = "the member lags behind what was seen";
                let error = Error::new(ErrorKind::Unavailable, "watch", why);
                Some(Over::Failed(Box::new(Verdict {
                    blames_endpoint: true,
                    ..Verdict::refuse(error)
                })))
            }
            // Another stream shows why: what is not permitted is not created again.
            Found::Refused(error) => Some(Over::Failed(Box::new(Verdict::refuse(error)))),
            Found::Restored(now) => {
                self.transport.went_back(wanted, now);
                let is_void = |watcher: &Watcher| watcher.track.seen() > now;
                let void: Vec<i64> = self
                    .watchers
                    .iter()
                    .filter(|(_, watcher)| is_void(watcher))
                    .map(|(&id, _)| id)
                    .collect();
                for id in void {
                    self.end(open, id, restored("its revision went back"));
                    open.cancel(id);
                }
                None
            }
        }
    }

    fn end(&mut self, open: &Open, id: i64, error: Error) {
        if let Some(watcher) = self.watchers.remove(&id) {
            watcher.inbox.end(error.at(open.endpoint.name()));
        }
    }

    fn refuse_all(&mut self, error: &Error) {
        for watcher in std::mem::take(&mut self.watchers).into_values() {
            watcher.inbox.end(error.clone());
        }
    }

    fn end_all(mut self) {
        // Also those that were ordered and not yet taken.
        self.take_orders(None);
        for watcher in self.watchers.values() {
            watcher.inbox.end(closed("watch"));
        }
    }
}

/// Waits for whoever is looking.
async fn looked(looking: &mut Option<(Revision, BoxFuture<'static, Found>)>) -> (Revision, Found) {
    match looking {
        Some((wanted, looking)) => (*wanted, looking.await),
        None => std::future::pending().await,
    }
}

fn restored(why: &str) -> Error {
    Error::new(ErrorKind::Restored, "watch", why)
}

impl Open {
    fn create(&mut self, id: i64, watcher: &Watcher) {
        self.unanswered.push_back(id);
        self.requests
            .push(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                watch_id: id,
                start_revision: watcher.track.start(),
                ..watcher.request.clone()
            }));
    }

    fn ask_progress(&self) {
        let ask = pb::WatchProgressRequest::default();
        self.requests.push(RequestUnion::ProgressRequest(ask));
    }

    fn cancel(&self, id: i64) {
        let cancel = pb::WatchCancelRequest { watch_id: id };
        self.requests.push(RequestUnion::CancelRequest(cancel));
    }

    /// Whose creation was answered: `id`, or the first that waits if the server does not say.
    fn answered(&mut self, id: i64) -> Option<i64> {
        // etcd 3.4 refuses as -1, 3.5 as 0; ours begin at 1.
        if id < 1 {
            return self.unanswered.pop_front();
        }
        let at = self.unanswered.iter().position(|&waiting| waiting == id)?;
        self.unanswered.remove(at)
    }
}

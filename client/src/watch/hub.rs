//! All watches of a client on one stream, and the stream's way from member to member.
//!
//! One task owns the stream (`open.rs` is one while it is open). Handles leave their orders
//! (`watches.rs`); the task's own queue for each watch (`inbox.rs`) refuses rather than waits. So
//! nothing that an application does keeps the stream from being read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::watch_client::WatchClient;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::{Request, Status, Streaming};

use super::WatchState;
use super::behind::{Found, find_out};
use super::denied::is_denied;
use super::heard::{ASK_EVERY, Heard, ask};
use super::lag::{LOOK_EVERY, Look};
use super::open::{Open, Over, awaited};
use super::track::{Created, bytes_of};
use super::watches::{Failing, Order, Watcher};
use crate::error::{Error, ErrorKind, Verdict, classify};
use crate::observe::{self, Stream};
use crate::orders::Orders;
use crate::transport::{Endpoint, Transport, closed};
use crate::types::{Revision, revision_of};

/// A stream that has worked for this long was good: when it breaks, another is made at once.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// So often in a row a user must be refused, and by as many members as there are, before his watches
/// end: one that has not heard yet of him, or of his new password, refuses him too.
const REFUSALS_MIN: usize = 2;

/// The largest message of watches that is read at all, in bytes, as a multiple of the largest that is
/// handed over. Of one that is read it is known whose it is, and it ends that watch alone.
const READ_FACTOR: usize = 4;

/// And at least that: what a server sends at once that takes requests of 10 MiB, etcd's recommended
/// maximum (a key's value and the one before), and more.
const READ_BYTES_MIN: usize = 32 * 1024 * 1024;

/// The task.
pub(super) struct Hub {
    pub(super) transport: Arc<Transport>,
    pub(super) wanted: Arc<Orders<Order>>,
    pub(super) failing: Arc<Failing>,
    pub(super) heard: Arc<Heard>,
    pub(super) watchers: BTreeMap<i64, Watcher>,
    /// How often in a row the user was refused.
    pub(super) refusals: usize,
}

impl Hub {
    pub(super) async fn run(mut self) {
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
                Over::Refused(error) => {
                    self.failing.set(Some(error.clone()));
                    self.refusals += 1;
                    if self.refusals >= self.transport.choice().max(REFUSALS_MIN) {
                        self.refuse_all(&error);
                    }
                    tried.push(endpoint);
                }
                Over::OldToken => tried.clear(),
                Over::Failed(verdict) => {
                    self.failing.set(Some(verdict.error.clone()));
                    observe::stream_failed(Stream::Watches);
                    self.transport.report(&endpoint, Some(&verdict));
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
        let mut open = Open::to(endpoint.clone());
        // All at once, answered in one round trip.
        for (&id, watcher) in &self.watchers {
            open.create(watcher.creation(id));
        }
        let mut stream = match self.open(&mut open).await {
            Ok(stream) => stream,
            Err(over) => return over,
        };
        self.transport.report(endpoint, None);
        observe::stream_opened(Stream::Watches);
        self.failing.set(None);
        self.refusals = 0;
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
                asked = awaited(open.asking.as_mut()) => {
                    open.asking = None;
                    if let Some(asked) = asked {
                        self.heard.answered(asked);
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
                    Err(status) => return self.broken(&open, status),
                },
                () = sleep_until(open.ask_at), if self.wants_to_ask(&open) => {}
                () = sleep_until(open.look_at), if self.transport.choice() > 1 => {}
                found = awaited(open.looking.as_mut()) => {
                    if let Some(over) = self.found(&mut open, found) {
                        return over;
                    }
                }
                is_denied = awaited(open.doubting.as_mut()) => {
                    if let Some(over) = self.doubted(&mut open, is_denied) {
                        return over;
                    }
                }
            }
            self.look_after(&mut open);
            self.find_out(&mut open);
        }
    }

    /// Does what is due, also on a stream that is never quiet.
    fn look_after(&self, open: &mut Open) {
        let now = Instant::now();
        if self.wants_to_ask(open) && (now >= open.ask_at || open.asks_soon) {
            (open.ask_at, open.asks_soon) = (now + ASK_EVERY, false);
            let asking = ask(self.transport.clone(), open.endpoint.clone());
            open.asking = Some(Box::pin(asking));
        }
        if now >= open.look_at && self.transport.choice() > 1 {
            open.look_at = now + LOOK_EVERY;
            let seen = self.transport.seen();
            match open.lag.look(seen) {
                Look::Fine => {}
                Look::Ask => open.ask_progress(),
                Look::Behind => open.behind = open.behind.max(Some(seen)),
            }
        }
    }

    fn wants_to_ask(&self, open: &Open) -> bool {
        self.heard.is_wanted() && open.asking.is_none()
    }

    /// Begins to find out what is to be found out.
    fn find_out(&self, open: &mut Open) {
        if let Some(wanted) = open.behind
            && open.looking.is_none()
            && let Some(key) = self.permitted(open)
        {
            let (transport, endpoint) = (self.transport.clone(), open.endpoint.clone());
            let finding = find_out(transport, endpoint, wanted, key);
            open.looking = Some(Box::pin(async move { (wanted, finding.await) }));
        }
        while open.doubting.is_none()
            && let Some((id, _)) = open.doubted.front()
        {
            if let Some(watcher) = self.watchers.get(id) {
                let asking = is_denied(self.transport.clone(), watcher.request.clone());
                open.doubting = Some(Box::pin(asking));
            } else {
                open.doubted.pop_front();
            }
        }
    }

    /// A key that may be read: a member has created a watch of it.
    fn permitted(&self, open: &Open) -> Option<Bytes> {
        let mut watchers = self.watchers.iter();
        let created = watchers.find(|(id, _)| open.has_created(**id));
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
            let accepted = transport.config.response_bytes_max;
            let limit = accepted.saturating_mul(READ_FACTOR).max(READ_BYTES_MIN);
            WatchClient::new(endpoint.streams())
                .max_decoding_message_size(limit)
                .watch(request)
                .await
                .map(tonic::Response::into_inner)
                .map_err(|status| self.failed(open, status))
        };
        let give_up = transport.give_up(None);
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

    /// The stream has failed; or it has brought a message that is not read. Whose that is cannot be
    /// known, and another stream would bring it again: so all end that could have it.
    fn broken(&mut self, open: &Open, status: Status) -> Over {
        let over = self.failed(open, status);
        if let Over::Failed(verdict) = &over
            && *verdict.error.kind() == ErrorKind::TooLarge
        {
            self.refuse_all(&verdict.error);
        }
        over
    }

    /// Does what handles want; on `open`, if there is a stream.
    fn take_orders(&mut self, mut open: Option<&mut Open>) {
        for order in self.wanted.take() {
            match order {
                Order::Add(id, watcher) => {
                    if let Some(open) = &mut open {
                        open.create(watcher.creation(id));
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
        let too_many = self.too_many(&response);
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
                Created::Fine => {
                    watcher.inbox.set_state(WatchState::Live);
                    open.asks_soon = true;
                }
                Created::Behind(seen) => open.behind = open.behind.max(Some(seen)),
                Created::Elsewhere => {
                    // All that follows from that was noted with the answer's header.
                    self.end(open, id, restored("it is another cluster"));
                    open.cancel(id);
                }
            }
        } else if response.events.is_empty() {
            watcher.track.progressed(response.header.as_ref());
            watcher.inbox.advance(watcher.track.position());
        } else if let Some(bytes) = too_many {
            let limit = self.transport.config.response_bytes_max;
            let message = format!("events of {bytes} bytes, and the client accepts {limit}");
            self.end(open, id, Error::new(ErrorKind::TooLarge, "watch", message));
            open.cancel(id);
        } else if let Some(batch) = watcher.track.received(response)
            && !watcher.inbox.push(batch)
        {
            self.watchers.remove(&id);
            open.cancel(id);
        }
    }

    /// How many bytes of events there are, if they are more than the client accepts.
    fn too_many(&self, response: &pb::WatchResponse) -> Option<usize> {
        let bytes = bytes_of(&response.events);
        (bytes > self.transport.config.response_bytes_max).then_some(bytes)
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
        let has_user = self.transport.has_user();
        match self.watchers.get_mut(&id) {
            Some(watcher) if has_user && !watcher.token_was_old && verdict.wants_token => {
                watcher.token_was_old = true;
                self.transport.forget_token(open.proof);
                open.needs_token = true;
            }
            Some(watcher) if has_user && !watcher.token_was_old && is_denied => {
                open.doubted.push_back((id, verdict.error));
            }
            _ => self.end(open, id, verdict.error),
        }
    }

    /// It is known whether the first of the doubted watches is denied; why the stream is over, if it
    /// is.
    fn doubted(&mut self, open: &mut Open, is_denied: bool) -> Option<Over> {
        open.doubting = None;
        let (id, error) = open.doubted.pop_front()?;
        if is_denied {
            self.end(open, id, error);
            return None;
        }
        // What has ended meanwhile needs no other token.
        self.watchers.get_mut(&id)?.token_was_old = true;
        self.transport.forget_token(open.proof);
        Some(Over::OldToken)
    }

    /// It is known why the member was behind; why the stream is over, if it is.
    fn found(&mut self, open: &mut Open, (wanted, found): (Revision, Found)) -> Option<Over> {
        open.looking = None;
        open.behind = open.behind.filter(|&behind| behind > wanted);
        match found {
            // It is asked again for what was noticed meanwhile.
            Found::CaughtUp if open.behind.is_some() => None,
            Found::CaughtUp => {
                for (&id, watcher) in &self.watchers {
                    if open.has_created(id) {
                        watcher.inbox.set_state(WatchState::Live);
                    }
                }
                open.asks_soon = true;
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

fn restored(why: &str) -> Error {
    Error::new(ErrorKind::Restored, "watch", why)
}

//! All watches of a client, as handles see them: what they want is left for the task that owns the
//! stream (`hub.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::heard::Heard;
use super::hub::Hub;
use super::inbox::Inbox;
use super::track::Track;
use crate::error::{Error, ErrorKind, Outcome};
use crate::orders::Orders;
use crate::transport::{Transport, closed};

/// The watches of one client. The task starts with the first of them.
#[derive(Debug)]
pub(crate) struct Watches {
    transport: Arc<Transport>,
    wanted: Arc<Orders<Order>>,
    next_id: AtomicI64,
    is_running: AtomicBool,
    failing: Arc<Failing>,
    heard: Arc<Heard>,
}

/// Why there is no stream, while there is none.
#[derive(Debug, Default)]
pub(super) struct Failing(Mutex<Option<Error>>);

impl Failing {
    pub(super) fn set(&self, why: Option<Error>) {
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
pub(super) enum Order {
    Add(i64, Box<Watcher>),
    Remove(i64),
}

/// One watch, as the task sees it.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) request: pb::WatchCreateRequest,
    pub(super) track: Track,
    pub(super) inbox: Arc<Inbox>,
    /// Whoever waits for the first creation.
    pub(super) waiting: Option<oneshot::Sender<()>>,
    /// Whether it was refused for its token already.
    pub(super) token_was_old: bool,
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
            heard: Arc::default(),
        }
    }

    /// What was heard on the stream.
    pub(crate) fn heard(&self) -> &Arc<Heard> {
        &self.heard
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
                failing: self.failing.clone(),
                heard: self.heard.clone(),
                watchers: BTreeMap::new(),
                refusals: 0,
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
        match timeout_at(self.transport.give_up(deadline), created).await {
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

impl Watcher {
    /// What creates it where it stands.
    pub(super) fn creation(&self, id: i64) -> pb::WatchCreateRequest {
        pb::WatchCreateRequest {
            watch_id: id,
            start_revision: self.track.start(),
            ..self.request.clone()
        }
    }
}

/// Takes a watch back whose creation nobody waits for any more.
struct RemoveOnDrop<'a>(&'a Watches, i64);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}

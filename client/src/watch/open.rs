//! One stream of watches while it is open: what was asked on it, and what was not answered yet.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use gonfalon_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use tokio::time::Instant;

use super::behind::Found;
use super::heard::ASK_EVERY;
use super::lag::{LOOK_EVERY, Lag};
use super::requests::Requests;
use crate::clock::Stamp;
use crate::credentials::Proof;
use crate::error::{Error, Verdict};
use crate::transport::Endpoint;
use crate::types::Revision;

/// One stream.
pub(super) struct Open {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) proof: Proof,
    pub(super) lag: Lag,
    /// When the lag is looked at.
    pub(super) look_at: Instant,
    /// When the member is asked whether it is there.
    pub(super) ask_at: Instant,
    /// It is to be asked at once, because a watch has come of which the last answer says nothing.
    pub(super) asks_soon: bool,
    /// Asks it.
    pub(super) asking: Option<BoxFuture<'static, Option<Stamp>>>,
    pub(super) requests: Requests,
    /// Creations that were not answered, in the order in which they were asked for: a refusal does
    /// not say of whom.
    unanswered: VecDeque<i64>,
    /// Watches that were denied, perhaps for the stream's token alone.
    pub(super) doubted: VecDeque<(i64, Error)>,
    /// Finds out of the first of these whether it is really denied.
    pub(super) doubting: Option<BoxFuture<'static, bool>>,
    pub(super) needs_token: bool,
    /// What was seen and the member does not show.
    pub(super) behind: Option<Revision>,
    /// Finds out why, of the revision beside what is found.
    pub(super) looking: Option<BoxFuture<'static, (Revision, Found)>>,
}

/// Why a stream is over.
pub(super) enum Over {
    /// Nobody watches any more.
    Idle,
    Closed,
    Failed(Box<Verdict>),
    /// The token is no longer good for it.
    OldToken,
    /// The user is not who he says he is, says this member.
    Refused(Error),
}

impl Open {
    pub(super) fn to(endpoint: Arc<Endpoint>) -> Self {
        let now = Instant::now();
        Self {
            endpoint,
            proof: Proof::default(),
            lag: Lag::default(),
            look_at: now + LOOK_EVERY,
            ask_at: now + ASK_EVERY,
            asks_soon: false,
            asking: None,
            requests: Requests::default(),
            unanswered: VecDeque::new(),
            doubted: VecDeque::new(),
            doubting: None,
            needs_token: false,
            behind: None,
            looking: None,
        }
    }

    /// Asks for a watch of this id.
    pub(super) fn create(&mut self, request: pb::WatchCreateRequest) {
        self.unanswered.push_back(request.watch_id);
        self.requests.push(RequestUnion::CreateRequest(request));
    }

    pub(super) fn ask_progress(&self) {
        let ask = pb::WatchProgressRequest::default();
        self.requests.push(RequestUnion::ProgressRequest(ask));
    }

    pub(super) fn cancel(&self, id: i64) {
        let cancel = pb::WatchCancelRequest { watch_id: id };
        self.requests.push(RequestUnion::CancelRequest(cancel));
    }

    /// Whose creation was answered: `id`, or the first that waits if the server does not say.
    pub(super) fn answered(&mut self, id: i64) -> Option<i64> {
        // etcd 3.4 refuses as -1, 3.5 as 0; ours begin at 1.
        if id < 1 {
            return self.unanswered.pop_front();
        }
        let at = self.unanswered.iter().position(|&waiting| waiting == id)?;
        self.unanswered.remove(at)
    }

    /// Whether the member has created this watch.
    pub(super) fn has_created(&self, id: i64) -> bool {
        !self.unanswered.contains(&id) && self.doubted.iter().all(|(denied, _)| *denied != id)
    }
}

/// What waits for nothing if there is nothing to wait for.
pub(super) async fn awaited<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

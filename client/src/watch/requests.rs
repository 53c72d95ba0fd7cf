//! What waits to be sent on the watch stream: the sender never waits.
//!
//! It is bounded by nature: there is at most one creation and one cancellation for each watch, and one
//! question in five seconds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use gonfalon_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;

/// The sending end; dropped, the stream ends.
#[derive(Debug, Default)]
pub(super) struct Requests {
    shared: Arc<Mutex<Waiting>>,
}

/// The stream for tonic.
#[derive(Debug)]
pub(super) struct Sent {
    shared: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<RequestUnion>,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Requests {
    pub(super) fn push(&self, request: RequestUnion) {
        let waker = {
            let mut waiting = lock(&self.shared);
            waiting.requests.push_back(request);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn stream(&self) -> Sent {
        Sent {
            shared: self.shared.clone(),
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let waker = {
            let mut waiting = lock(&self.shared);
            waiting.is_closed = true;
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Stream for Sent {
    type Item = pb::WatchRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut waiting = lock(&self.shared);
        if let Some(request) = waiting.requests.pop_front() {
            return Poll::Ready(Some(pb::WatchRequest {
                request_union: Some(request),
            }));
        }
        if waiting.is_closed {
            return Poll::Ready(None);
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn lock(shared: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    shared
        .lock()
        .expect("nothing panics while it holds this lock")
}

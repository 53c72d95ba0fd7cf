//! The requests of one connection, worked on by the connection's own task.
//!
//! hyper gives every HTTP/2 stream to an executor, which in general makes a task of it: that one is
//! scheduled, on another processor perhaps, and its answer wakes the connection again. Most requests
//! here cost a few microseconds or wait for an entry of the log, so that this would be a good part
//! of their price. They stay with their connection instead: once woken, it reads what has come,
//! begins it, goes on with what was waiting, and writes all answers in one go.
//!
//! The price: requests of one connection do not run beside each other. What takes long must give way
//! in between, or go to a thread that may block.

use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hyper::rt::Executor;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the requests of one connection. All clones are one place.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<Work>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, request: F) {
        // A request that panics takes down no other, as if it had a task of its own.
        let request = AssertUnwindSafe(request).catch_unwind().map(drop);
        self.lock().push(Box::pin(request));
    }
}

impl Begun {
    fn take(&self) -> Vec<Work> {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Work>> {
        self.0
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// The requests of one connection; dropped with it.
#[derive(Default)]
pub(super) struct Requests {
    begun: Begun,
    under_way: FuturesUnordered<Work>,
}

impl Requests {
    /// Where the connection shall put its requests.
    pub(super) fn executor(&self) -> Begun {
        self.begun.clone()
    }

    /// Goes on with the connection and its requests until neither gets any further. Ready when the
    /// connection has ended.
    pub(super) fn poll<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        context: &mut Context<'_>,
    ) -> Poll<C::Output> {
        loop {
            let ended = connection.as_mut().poll(context);
            if ended.is_ready() {
                return ended;
            }
            self.under_way.extend(self.begun.take());
            let mut is_answered = false;
            while let Poll::Ready(Some(())) = self.under_way.poll_next_unpin(context) {
                is_answered = true;
            }
            // Answers are with the connection now, and it can write them.
            if !is_answered {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::pin;

    use tokio::sync::oneshot;

    use super::*;

    /// A connection that begins `requests` when it is first polled and ends once `ends` is told.
    async fn connection(
        executor: Begun,
        requests: Vec<Work>,
        ends: oneshot::Receiver<&'static str>,
    ) -> &'static str {
        for request in requests {
            executor.execute(request);
        }
        ends.await.expect("told")
    }

    #[tokio::test]
    async fn requests_are_worked_on_and_their_answers_reach_the_connection_at_once() {
        let mut requests = Requests::default();
        let (end, ends) = oneshot::channel();
        let (answer, question) = oneshot::channel();
        let waiting: Work = Box::pin(async move {
            question.await.expect("answered");
            end.send("ended").expect("the connection waits");
        });
        let other: Work = Box::pin(async move {
            tokio::task::yield_now().await;
            answer.send(()).expect("the first request waits");
        });
        let mut connection = pin!(connection(requests.executor(), vec![waiting, other], ends));
        let ended = poll_fn(|context| requests.poll(connection.as_mut(), context)).await;
        assert_eq!(ended, "ended");
    }

    #[tokio::test]
    async fn a_request_that_panics_takes_down_no_other() {
        let mut requests = Requests::default();
        let (end, ends) = oneshot::channel();
        let panics: Work = Box::pin(async { panic!("this one is meant") });
        let ends_it: Work = Box::pin(async move { end.send("ended").expect("it waits") });
        let mut connection = pin!(connection(requests.executor(), vec![panics, ends_it], ends));
        let ended = poll_fn(|context| requests.poll(connection.as_mut(), context)).await;
        assert_eq!(ended, "ended");
    }

    #[tokio::test]
    async fn requests_end_with_their_connection() {
        let (held, dropped) = oneshot::channel::<()>();
        let mut requests = Requests::default();
        let executor = requests.executor();
        executor.execute(async move {
            let _held = held;
            pending::<()>().await;
        });
        let mut first = true;
        let mut connection = pin!(poll_fn(move |context| {
            if mem::take(&mut first) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        }));
        poll_fn(|context| requests.poll(connection.as_mut(), context)).await;
        drop((requests, executor));
        assert!(dropped.await.is_err(), "nobody holds it any more");
    }
}

//! How long an answer is waited for: until the call's deadline, and until the client is closed.
//!
//! Both are registered with the first poll and no more: a call is polled four times and more, and to
//! ask a timer and a token again each time costs four locks. Whoever is registered will be woken, so
//! that afterwards it is enough to look.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What came first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited<R> {
    Answered(R),
    Late,
    Closed,
}

/// Waits for `answer`, but not beyond `give_up` or once `closed` is cancelled. If that was so
/// before, the answer is not asked for at all.
pub(super) async fn patiently<R>(
    mut answer: Pin<&mut impl Future<Output = R>>,
    give_up: Instant,
    closed: &CancellationToken,
) -> Waited<R> {
    let mut late = pin!(sleep_until(give_up));
    let mut over = pin!(closed.cancelled());
    let mut registered: Option<Waker> = None;
    poll_fn(|context| {
        let is_registered = registered
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()));
        // Without tokio's budget: whoever has used his up is told to come again, unregistered.
        let is_over = if is_registered {
            closed.is_cancelled()
        } else {
            pin!(unconstrained(over.as_mut())).poll(context).is_ready()
        };
        if is_over {
            return Poll::Ready(Waited::Closed);
        }
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(Waited::Answered(answer));
        }
        let is_late = if is_registered {
            late.is_elapsed()
        } else {
            registered = Some(context.waker().clone());
            pin!(unconstrained(late.as_mut())).poll(context).is_ready()
        };
        if is_late {
            return Poll::Ready(Waited::Late);
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::time::Duration;

    use tokio::task::coop::consume_budget;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(20);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn soon() -> Instant {
        Instant::now() + DEADLINE
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_first_ends_the_waiting() {
        let closed = CancellationToken::new();
        let answered = patiently(pin!(ready(7)), soon(), &closed).await;
        assert_eq!(answered, Waited::Answered(7));
        let began = Instant::now();
        let late = patiently(pin!(pending::<()>()), soon(), &closed).await;
        assert_eq!((late, began.elapsed()), (Waited::Late, DEADLINE));
        let close = async {
            tokio::time::sleep(DEADLINE / 2).await;
            closed.cancel();
        };
        let began = Instant::now();
        let waiting = async { patiently(pin!(pending::<()>()), soon(), &closed).await };
        let (over, ()) = tokio::join!(waiting, close);
        assert_eq!((over, began.elapsed()), (Waited::Closed, DEADLINE / 2));
        let over = patiently(pin!(ready(7)), soon(), &closed).await;
        assert_eq!(over, Waited::Closed, "a closed client asks nobody");
    }

    #[tokio::test]
    async fn whichever_task_polled_last_is_woken() {
        let closed = CancellationToken::new();
        let far = Instant::now() + Duration::from_hours(1);
        let mut never = pin!(pending::<()>());
        let mut waiting = pin!(patiently(never.as_mut(), far, &closed));
        let [first, last] = [Arc::new(Woken::default()), Arc::new(Woken::default())];
        for task in [&first, &first, &last, &last] {
            let waker = Waker::from(task.clone());
            let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        closed.cancel();
        assert_eq!(
            last.0.load(Ordering::SeqCst),
            1,
            "who polled last waits in vain"
        );
        let waker = Waker::from(last.clone());
        let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(Waited::Closed));
    }

    /// A timer that is polled without budget is not registered.
    #[tokio::test]
    async fn a_task_that_never_rests_is_late_all_the_same() {
        let closed = CancellationToken::new();
        let restless = async {
            loop {
                consume_budget().await;
            }
        };
        let waiting = async { patiently(pin!(restless), soon(), &closed).await };
        let late: Waited<()> = timeout(Duration::from_secs(10), waiting)
            .await
            .expect("the deadline is noticed");
        assert_eq!(late, Waited::Late);
    }
}

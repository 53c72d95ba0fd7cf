//! Waiting in tests: for what must happen, and not for ever.

use std::time::Duration;

/// How long something that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: IntoFuture>(what: F) -> F::Output {
    let ended = tokio::time::timeout(PATIENCE, what.into_future()).await;
    ended.expect("it happens in time")
}

pub(crate) async fn until(check: impl Fn() -> bool) {
    let checked = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(checked).await;
}

//! The threads of the load generator, each with a runtime of its own.
//!
//! One runtime over all threads moves tasks between them, and a woken thread costs several
//! microseconds: as much as the rest of a call. Here a connection and its clients stay together.

use std::future::Future;
use std::thread;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Runs tasks until it is dropped.
#[derive(Debug)]
pub(crate) struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    // The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Threads {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    ///
    /// The system gives no more threads.
    pub(crate) fn start(count: usize) -> Result<Self> {
        (0..count.max(1))
            .map(Thread::start)
            .collect::<Result<_>>()
            .map(Self)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs `work` on thread number `thread`.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        thread: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0[thread].runtime.spawn(work)
    }
}

impl Thread {
    fn start(number: usize) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime of the load generator")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new()
            .name(format!("load-{number}"))
            .spawn(move || {
                // The sender is only ever dropped; both outcomes mean: stop.
                let _closed = runtime.block_on(stopped);
            })
            .context("cannot start a thread of the load generator")?;
        Ok(Self {
            runtime: handle,
            _stop: stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_the_thread_it_was_given_to() {
        let threads = Threads::start(2).unwrap();
        for number in 0..threads.count() {
            let name = threads.spawn(number, async {
                thread::current().name().map(str::to_owned)
            });
            assert_eq!(name.await.unwrap(), Some(format!("load-{number}")));
        }
    }
}

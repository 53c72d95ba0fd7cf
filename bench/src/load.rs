//! The load generator: clients that each wait for one answer before they ask again.
//!
//! A client is a task on one of a few threads; its connection lives on the same thread, so an
//! answer wakes nobody else. What clients do is in [`crate::cases`]; here is when they do it, and
//! how it is counted: an operation counts if it *ends* between the opening and the closing of the
//! window, an error counts whenever it happens.

mod connections;
mod recorder;
mod threads;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinHandle;

pub(crate) use self::connections::{Connection, connect};
pub(crate) use self::recorder::Recorder;
pub(crate) use self::threads::Threads;
use crate::metric::Measurement;
use crate::sampling::{Sample, Usage};

/// The longest that a client may need to finish its last operation and its checks.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(30);

/// A client that failed waits this long, so that a dead server is not asked a million times.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// When to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Load before it, that is not counted.
    pub(crate) warm_up: Duration,
    /// Its length.
    pub(crate) length: Duration,
}

/// What clients need to know of the window.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    const WARM_UP: u8 = 0;
    const OPEN: u8 = 1;
    const CLOSED: u8 = 2;

    /// Operations that end now count.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OPEN
    }

    /// Clients start nothing new.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::CLOSED
    }

    fn pass_to(&self, phase: u8) {
        assert!(
            phase > Self::WARM_UP,
            "the warm-up comes first and only once"
        );
        self.0.store(phase, Ordering::Relaxed);
    }
}

/// What one client does again and again.
pub(crate) trait Operation: Send + 'static {
    /// Asks once, waits, and checks the answer.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Checks, after the last call, what only shows afterwards.
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// Clients at work on one cluster, and what they counted.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    threads: &'a Threads,
    recorders: Vec<Arc<Recorder>>,
    gate: Arc<Gate>,
    clients: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(threads: &'a Threads) -> Self {
        Self {
            threads,
            recorders: (0..threads.count()).map(|_| Arc::default()).collect(),
            gate: Arc::default(),
            clients: Vec::new(),
            background: Vec::new(),
        }
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Where tasks on `thread` count.
    pub(crate) fn recorder(&self, thread: usize) -> Arc<Recorder> {
        Arc::clone(&self.recorders[thread])
    }

    /// Starts a client on `thread` that repeats `operation` until the window closes.
    pub(crate) fn repeat(&mut self, thread: usize, mut operation: impl Operation) {
        let (gate, recorder) = (self.gate(), self.recorder(thread));
        self.client(thread, async move {
            while !gate.is_closed() {
                let started = Instant::now();
                match operation.call().await {
                    Ok(()) if gate.is_open() => recorder.completed(started.elapsed()),
                    Ok(()) => {}
                    Err(error) => {
                        recorder.failed(&error);
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    }
                }
            }
            operation.finish().await
        });
    }

    /// Starts a client on `thread` that watches the gate and counts by itself.
    pub(crate) fn client(
        &mut self,
        thread: usize,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let task = self.spawn(thread, work);
        self.clients.push(task);
    }

    /// Starts a task on `thread` that runs until all clients are done.
    pub(crate) fn background(
        &mut self,
        thread: usize,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let task = self.spawn(thread, work);
        self.background.push(task);
    }

    fn spawn(
        &self,
        thread: usize,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) -> JoinHandle<()> {
        let recorder = self.recorder(thread);
        self.threads.spawn(thread, async move {
            if let Err(error) = work.await {
                recorder.failed(&error);
            }
        })
    }

    /// Lets the clients work through `window`, and measures the processes `servers` meanwhile.
    ///
    /// # Errors
    ///
    /// A client does not come to its end. Failed operations are in the measurement.
    pub(crate) async fn measure(self, window: Window, servers: &[u32]) -> Result<Measurement> {
        tokio::time::sleep(window.warm_up).await;
        let before = Sample::take(servers)?;
        self.gate.pass_to(Gate::OPEN);
        tokio::time::sleep(window.length).await;
        self.gate.pass_to(Gate::CLOSED);
        let usage = before.until(&Sample::take(servers)?);
        self.close(&usage).await
    }

    /// Waits until the clients are done by themselves, and measures the processes `servers`
    /// meanwhile. There is no window: such clients count all that they do.
    ///
    /// # Errors
    ///
    /// They need longer than `longest`.
    pub(crate) async fn complete(
        mut self,
        longest: Duration,
        servers: &[u32],
    ) -> Result<Measurement> {
        let before = Sample::take(servers)?;
        let clients = std::mem::take(&mut self.clients);
        join(clients, longest).await?;
        let usage = before.until(&Sample::take(servers)?);
        self.close(&usage).await
    }

    async fn close(self, usage: &Usage) -> Result<Measurement> {
        join(self.clients, LAST_ANSWER_MAX).await?;
        for task in self.background {
            task.abort();
            if let Err(ended) = task.await
                && ended.is_panic()
            {
                bail!("a background task of the load generator panicked");
            }
        }
        Ok(recorder::merge(&self.recorders, usage))
    }
}

async fn join(clients: Vec<JoinHandle<()>>, longest: Duration) -> Result<()> {
    let all = async {
        for client in clients {
            client.await.context("a client panicked")?;
        }
        Ok(())
    };
    match tokio::time::timeout(longest, all).await {
        Ok(joined) => joined,
        Err(_) => bail!("a client still waits for its answer after {longest:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    struct Nap {
        naps: u32,
        fails: bool,
    }

    impl Operation for Nap {
        async fn call(&mut self) -> Result<()> {
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.naps += 1;
            anyhow::ensure!(!self.fails, "overslept");
            Ok(())
        }

        async fn finish(&mut self) -> Result<()> {
            anyhow::ensure!(self.naps > 0, "never slept");
            Ok(())
        }
    }

    const WINDOW: Window = Window {
        warm_up: Duration::from_millis(20),
        length: Duration::from_millis(200),
    };

    #[tokio::test]
    async fn a_window_counts_what_ends_inside_it() {
        let threads = Threads::start(2).unwrap();
        let mut session = Session::new(&threads);
        for client in 0..4 {
            session.repeat(
                client % 2,
                Nap {
                    naps: 0,
                    fails: false,
                },
            );
        }
        let measured = session
            .measure(WINDOW, &[std::process::id()])
            .await
            .unwrap();
        assert!(measured.is_clean(), "{measured:?}");
        // Four clients, at most one nap each 2 ms, plus the naps under way at the opening.
        assert!(measured.operations <= 4 * 101, "{measured:?}");
        assert!(measured.metrics[&Metric::P50Us] >= 2_000.0, "{measured:?}");
    }

    #[tokio::test]
    async fn failures_are_counted_and_the_first_is_kept() {
        let threads = Threads::start(1).unwrap();
        let mut session = Session::new(&threads);
        session.repeat(
            0,
            Nap {
                naps: 0,
                fails: true,
            },
        );
        let measured = session
            .measure(WINDOW, &[std::process::id()])
            .await
            .unwrap();
        assert!(!measured.is_clean());
        assert!(measured.errors > 0 && measured.operations == 0);
        assert_eq!(measured.first_error.as_deref(), Some("overslept"));
    }

    #[tokio::test]
    async fn clients_with_a_fixed_amount_of_work_are_waited_for() {
        let threads = Threads::start(1).unwrap();
        let mut session = Session::new(&threads);
        let recorder = session.recorder(0);
        session.client(0, async move {
            for _ in 0..5 {
                recorder.completed(Duration::from_micros(7));
            }
            Ok(())
        });
        let servers = [std::process::id()];
        let measured = session
            .complete(Duration::from_secs(5), &servers)
            .await
            .unwrap();
        assert_eq!((measured.operations, measured.errors), (5, 0));
    }
}

//! Sweeping what a compaction dropped out of the database, on a thread of its own.
//!
//! The work is proportional to the history that is dropped, not to the database: each change up to
//! the compacted revision names the version that it superseded, which nobody can read any more.
//! Sweeping the same history twice does no harm, so a sweep that was interrupted begins again where
//! the last finished batch ended.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gonfalon_core::{EventKind, Revision};
use rocksdb::{Direction, IteratorMode, WriteBatch};
use tokio::sync::watch;

use super::records::{At, change_key, read_change, read_change_key, version_key};
use super::{Files, meta, number, options};
use crate::metrics::Sweeps;
use crate::storage::{FailStop, StorageError};

/// How fast compacted history is swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the two options of the command line"
)]
pub struct Pace {
    /// Changes swept in one batch, about: a revision is never split.
    pub batch_changes: usize,
    /// Pause between two batches, for commits to go first.
    pub pause: Duration,
}

impl Default for Pace {
    /// As in etcd.
    fn default() -> Self {
        Self {
            batch_changes: 1000,
            pause: Duration::from_millis(10),
        }
    }
}

/// What one batch has swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swept {
    /// Everything below is swept.
    pub(super) upto: Revision,
    /// Versions that were dropped.
    pub(super) versions: u64,
}

/// The sweeper's handle. Dropping it ends the thread after its present batch.
#[derive(Debug)]
pub(super) struct Compactor {
    orders: Arc<Orders>,
    swept: watch::Receiver<Revision>,
    /// None once it was stopped.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Orders {
    order: Mutex<Order>,
    changed: Condvar,
    pace: Pace,
    metrics: Sweeps,
}

#[derive(Debug)]
struct Order {
    target: Revision,
    is_stopped: bool,
}

impl Compactor {
    /// Starts the thread; `swept` is what was swept before.
    ///
    /// # Errors
    ///
    /// The system has no room for one more thread.
    pub(super) fn start(
        files: &Arc<Files>,
        swept: Revision,
        fail_stop: FailStop,
        pace: Pace,
        metrics: Sweeps,
    ) -> Result<Self, StorageError> {
        let orders = Arc::new(Orders {
            order: Mutex::new(Order {
                target: swept,
                is_stopped: false,
            }),
            changed: Condvar::new(),
            pace,
            metrics,
        });
        let (done, receiver) = watch::channel(swept);
        let (own, swept_files) = (orders.clone(), files.clone());
        let run = move || {
            if let Err(error) = own.run(&swept_files, &done) {
                fail_stop.raise(&error);
            }
        };
        let thread = std::thread::Builder::new()
            .name("sweeper".into())
            .spawn(run)
            .map_err(|error| files.error("starting the sweeper", error))?;
        Ok(Self {
            orders,
            swept: receiver,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What it was started with.
    pub(super) fn settings(&self) -> (Pace, Sweeps) {
        (self.orders.pace, self.orders.metrics.clone())
    }

    /// Asks for everything below `revision` to be swept. Returns at once.
    pub(super) fn sweep_to(&self, revision: Revision) {
        let mut order = self.orders.order.lock().expect(UNPOISONED);
        order.target = order.target.max(revision);
        self.orders.changed.notify_one();
    }

    /// Returns when everything below `revision` is swept.
    pub(super) async fn wait(&self, revision: Revision) -> Result<(), StorageError> {
        let mut swept = self.swept.clone();
        match swept.wait_for(|&swept| swept >= revision).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StorageError::Io {
                dir: std::path::PathBuf::new(),
                op: "sweeping compacted history",
                why: "the database is being closed".into(),
            }),
        }
    }

    /// Ends the thread after its present batch; a later start goes on from there. Blocks.
    pub(super) fn stop(&self) {
        self.orders.order.lock().expect(UNPOISONED).is_stopped = true;
        self.orders.changed.notify_one();
        let thread = self.thread.lock().expect(UNPOISONED).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the sweeper panicked");
        }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.stop();
    }
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Orders {
    fn run(&self, files: &Files, done: &watch::Sender<Revision>) -> Result<(), StorageError> {
        let mut swept = *done.borrow();
        let mut began = None;
        while let Some(target) = self.next(swept) {
            let now = Instant::now();
            let began_at = *began.get_or_insert(now);
            let batch = sweep_batch(files, swept, target, self.pace.batch_changes)?;
            swept = batch.upto;
            done.send_replace(swept);
            self.metrics.batch(batch.versions, now.elapsed());
            if swept < target {
                self.pause();
            } else {
                self.metrics.finished(began_at.elapsed());
                began = None;
            }
        }
        Ok(())
    }

    /// Waits for something to sweep; none when the database is being closed.
    fn next(&self, swept: Revision) -> Option<Revision> {
        let order = self.order.lock().expect(UNPOISONED);
        let order = self
            .changed
            .wait_while(order, |order| !order.is_stopped && order.target <= swept)
            .expect(UNPOISONED);
        (!order.is_stopped).then_some(order.target)
    }

    fn pause(&self) {
        let order = self.order.lock().expect(UNPOISONED);
        // Whether it was the time or the end that came first shows when the lock is taken again.
        let _ended = self
            .changed
            .wait_timeout_while(order, self.pace.pause, |order| !order.is_stopped)
            .expect(UNPOISONED);
    }
}

/// Sweeps about `batch_changes` changes from `swept` on, at most up to `target`.
pub(super) fn sweep_batch(
    files: &Files,
    swept: Revision,
    target: Revision,
    batch_changes: usize,
) -> Result<Swept, StorageError> {
    let (kv, rev) = (files.family(options::KV), files.family(options::REV));
    let failed = |error: rocksdb::Error| files.error("sweeping compacted history", error);
    let mut batch = WriteBatch::default();
    let mut reached = target;
    let mut versions = 0;
    let mut last: Option<At> = None;
    let start = change_key((swept, 0));
    let changes = files
        .db
        .iterator_cf(rev, IteratorMode::From(&start, Direction::Forward));
    for (count, item) in changes.enumerate() {
        let (at, record) = item.map_err(failed)?;
        let at = read_change_key(&at).ok_or_else(|| files.corrupt("a change's key"))?;
        if at.0 > target {
            break;
        }
        if count >= batch_changes && last.is_some_and(|last| last.0 != at.0) {
            reached = at.0;
            break;
        }
        let change = read_change(&record).ok_or_else(|| files.corrupt("a change"))?;
        // What was superseded within the compacted revision stays, so that each change that is left
        // in `rev` still finds its version.
        if let Some(previous) = change.previous.filter(|previous| previous.0 < target) {
            batch.delete_cf(kv, version_key(change.key, previous));
            versions += 1;
        }
        // A deletion at the compacted revision itself is kept, for a watcher that starts there.
        if change.kind == EventKind::Delete && at.0 < target {
            batch.delete_cf(kv, version_key(change.key, at));
            versions += 1;
        }
        last = Some(at);
    }
    batch.delete_range_cf(rev, change_key((swept, 0)), change_key((reached, 0)));
    batch.put_cf(files.family(options::META), meta::SWEPT, number(reached));
    files.write(batch)?;
    Ok(Swept {
        upto: reached,
        versions,
    })
}

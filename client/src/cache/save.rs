//! When a cache's copy on disk is written: in the background, never on a reader's way.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::disk::{self, Contents, Identity, Refusal};
use super::snapshot::Snapshot;
use super::status::CacheSource;
use super::{CacheStatus, Shared};
use crate::client::Client;
use crate::clock::bounded;
use crate::error::{Error, ErrorKind};

/// A copy that nothing changes is written again after this part of its maximum age: what counts is
/// when it was surely current, and as long as nothing changes it is.
const REFRESHES_PER_AGE: u32 = 4;

/// A copy of a cache in a file, for [`CacheBuilder::disk`](crate::CacheBuilder::disk): with it an
/// application starts while the cluster is away.
///
/// The file is replaced as a whole (written beside, synced, renamed) and carries a checksum; one
/// that is damaged, too old, of another range, namespace or cluster, or of an unknown version is
/// refused with a warning in the log, and the cache starts as if there were none. Values are in it
/// as they are in the store, unencrypted; only the file's owner can read it. Two caches must not
/// share a path.
#[derive(Debug, Clone)]
pub struct DiskCopy {
    path: PathBuf,
    age_max: Duration,
    wait: Duration,
    every: Duration,
    cluster: u64,
}

impl DiskCopy {
    /// A copy at `path`, whose folder exists.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            age_max: Duration::from_hours(24),
            wait: Duration::from_secs(2),
            every: Duration::from_secs(10),
            cluster: 0,
        }
    }

    /// A copy is not used if it was last surely current longer ago than this, by the wall clock.
    /// Default: 24 h.
    #[must_use]
    pub fn age_max(mut self, age: Duration) -> Self {
        self.age_max = age;
        self
    }

    /// How long the cluster may take to answer before the copy is used. Default: 2 s.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = bounded(wait);
        self
    }

    /// The shortest time between two writes of the file. Default: 10 s. What changes in the
    /// meantime is written when the cache is dropped, as long as the runtime still runs: see
    /// [`Cache::save`](crate::Cache::save).
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[must_use]
    pub fn every(mut self, pause: Duration) -> Self {
        assert!(!pause.is_zero(), "a file is not written all the time");
        self.every = bounded(pause);
        self
    }

    /// The id of the cluster that a copy must be of. Default: any, unless this client has already
    /// been answered by a cluster; then that one.
    #[must_use]
    pub fn cluster_id(mut self, id: u64) -> Self {
        self.cluster = id;
        self
    }

    /// How long the cluster may take to answer.
    pub(super) fn patience(&self) -> Duration {
        self.wait
    }
}

/// Reads and writes the file of one cache.
#[derive(Debug)]
pub(super) struct Saver {
    copy: DiskCopy,
    range: (bytes::Bytes, bytes::Bytes),
    client: Client,
    shared: Arc<Shared>,
    /// What was written last, and when. Locked while a file is being written: of two writers the
    /// later one writes the later state.
    written: Mutex<Option<(Arc<Snapshot>, Instant)>>,
}

impl Saver {
    pub(super) fn new(
        copy: DiskCopy,
        range: (bytes::Bytes, bytes::Bytes),
        client: Client,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            copy,
            range,
            client,
            shared,
            written: Mutex::default(),
        }
    }

    /// What the file has, and how old it is; none, and a line in the log, if it cannot be used.
    pub(super) async fn load(self: &Arc<Self>) -> Option<(Contents, Duration)> {
        let saver = self.clone();
        let read = spawn_blocking(move || {
            let cluster = match saver.copy.cluster {
                0 => saver.client.transport().cluster_id(),
                chosen => chosen,
            };
            let identity = saver.identity(cluster);
            disk::load(
                &saver.copy.path,
                &identity,
                saver.copy.age_max,
                SystemTime::now(),
            )
        });
        let path = self.copy.path.display();
        match read.await.ok()? {
            Ok((copy, age)) => {
                tracing::warn!(%path, ?age, revision = %copy.snapshot.revision(),
                    "no server answers; a cache starts from its copy on disk");
                Some((copy, age))
            }
            Err(Refusal::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(%path, "no server answers, and a cache has no copy on disk yet");
                None
            }
            Err(refusal) => {
                tracing::warn!(%path, %refusal, "a cache's copy on disk is not used");
                None
            }
        }
    }

    /// Writes what is new from time to time, and in the end.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut state = self.shared.state.subscribe();
        let mut ticks = interval(self.copy.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = state.wait_for(|state| state.is_closed) => true,
                _ = ticks.tick() => false,
            };
            let saver = self.clone();
            match spawn_blocking(move || saver.save(false)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let path = self.copy.path.display();
                    tracing::warn!(%path, %error, "a cache's copy cannot be written");
                }
                // The runtime ends.
                Err(_) => return,
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes what there is now.
    pub(super) async fn save_now(self: &Arc<Self>) -> Result<(), Error> {
        let saver = self.clone();
        let failed = |why: String| Error::new(ErrorKind::File, "save", why);
        let saved = spawn_blocking(move || saver.save(true)).await;
        saved
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| {
                failed(format!("{}: {error}", self.copy.path.display())).because(error)
            })
    }

    /// Writes the file if there is something new to write, or `always`. What came from the file
    /// itself is never written back: it would look younger than it is.
    fn save(&self, always: bool) -> io::Result<()> {
        let mut written = self
            .written
            .lock()
            .expect("nothing panics while it holds this lock");
        // In this order: the snapshot is at least as current as the status says.
        let now = SystemTime::now();
        let status = *self.shared.state.borrow();
        let snapshot = self.shared.snapshot.load_full();
        if status.source == CacheSource::Disk
            || !(always || self.is_due(&status, &snapshot, written.as_ref()))
        {
            return Ok(());
        }
        // Not the one that answers now: that may be another.
        let cluster = snapshot.store().cluster;
        let copy = Contents {
            cluster,
            current_at: now.checked_sub(status.age()).unwrap_or(now),
            snapshot,
        };
        disk::save(&self.copy.path, &self.identity(cluster), &copy)?;
        *written = Some((copy.snapshot, Instant::now()));
        Ok(())
    }

    fn is_due(
        &self,
        status: &CacheStatus,
        snapshot: &Arc<Snapshot>,
        written: Option<&(Arc<Snapshot>, Instant)>,
    ) -> bool {
        let Some((last, at)) = written else {
            return true;
        };
        let is_old = at.elapsed() >= self.copy.age_max / REFRESHES_PER_AGE;
        !Arc::ptr_eq(last, snapshot) || (is_old && status.source == CacheSource::Live)
    }

    fn identity(&self, cluster: u64) -> Identity {
        Identity {
            range: self.range.clone(),
            cluster,
        }
    }
}

//! How a cache comes about: from the cluster, or from its copy on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::follow::Follower;
use super::loss::LossGuard;
use super::publish::Publish;
use super::save::{DiskCopy, Saver};
use super::snapshot::Snapshot;
use super::status::CacheStatus;
use super::{Cache, Inner, Shared, disk};
use crate::client::{Client, awaited};
use crate::clock::{Stamp, bounded};
use crate::error::{Error, ErrorKind};
use crate::types::KeyRange;

/// A cache to be: settings first, then await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct CacheBuilder {
    client: Client,
    range: KeyRange,
    page_keys: u32,
    deadline: Option<Duration>,
    guard: Option<LossGuard>,
    disk: Option<DiskCopy>,
}

impl CacheBuilder {
    pub(crate) fn new(client: Client, range: KeyRange) -> Self {
        Self {
            client,
            range,
            page_keys: 10_000,
            deadline: None,
            guard: None,
            disk: None,
        }
    }

    /// How many keys are read at once, at most, when the range is listed; fewer if they are large.
    /// Default: 10,000.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn page_keys(mut self, keys: u32) -> Self {
        assert!(keys > 0, "a page has at least one key");
        self.page_keys = keys;
        self
    }

    /// How long the first listing may take. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(bounded(deadline));
        self
    }

    /// A sudden loss of most keys is not shown at once. Default: everything is.
    pub fn guard_loss(mut self, guard: LossGuard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The cache keeps a copy on disk and starts from it if the cluster does not answer. Default:
    /// it does not.
    ///
    /// A cache that started so has [`CacheSource::Disk`](crate::CacheSource::Disk) in its status until a member answers;
    /// subscribers are then told what is different. It goes on trying for as long as it lives.
    pub fn disk(mut self, copy: DiskCopy) -> Self {
        self.disk = Some(copy);
        self
    }

    pub(super) async fn send(self) -> Result<Cache, Error> {
        let give_up = self.client.transport().give_up(self.deadline);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            snapshot: Publish::new(Snapshot::default()),
            state: watch::Sender::new(CacheStatus::begun()),
            accepted: Notify::new(),
            went_back: Notify::new(),
        });
        let saver = self.disk.map(|copy| {
            let range = self.range.to_wire(self.client.namespace_bytes());
            let saver = Saver::new(copy.clone(), range, self.client.clone(), shared.clone());
            (copy.patience(), Arc::new(saver))
        });
        let mut follower = Follower::new(
            self.client.clone(),
            self.range.clone(),
            self.page_keys,
            shared.clone(),
            self.guard,
        );
        begin(&mut follower, &shared, saver.as_ref(), give_up).await?;
        let saver = saver.map(|(_, saver)| saver);
        let transport = self.client.transport();
        transport.spawn(follower.run(stop.clone()));
        if let Some(saver) = &saver {
            transport.spawn(saver.clone().run(stop.clone()));
        }
        Ok(Cache {
            inner: Arc::new(Inner {
                shared,
                client: self.client,
                range: self.range,
                saver,
                _stop: stop.drop_guard(),
            }),
        })
    }
}

awaited!(CacheBuilder => Cache);

/// Where a cache begins.
enum First {
    /// By requests the first of which was sent at this moment.
    Listed(Snapshot, Stamp),
    FromDisk(disk::Contents, Duration),
}

/// Puts the first snapshot in place.
async fn begin(
    follower: &mut Follower,
    shared: &Shared,
    saver: Option<&(Duration, Arc<Saver>)>,
    give_up: Instant,
) -> Result<(), Error> {
    match first(follower, saver, give_up).await? {
        First::Listed(listed, asked) => {
            shared.state.send_modify(|state| state.was_listed(asked));
            follower.show_first(listed);
        }
        First::FromDisk(copy, age) => {
            shared.state.send_modify(|state| state.is_from_disk(age));
            follower.show_first(Snapshot::clone(&copy.snapshot));
        }
    }
    Ok(())
}

async fn first(
    follower: &Follower,
    saver: Option<&(Duration, Arc<Saver>)>,
    give_up: Instant,
) -> Result<First, Error> {
    let listing = timeout_at(give_up, follower.list());
    tokio::pin!(listing);
    let listed = |ended: Result<Result<(Snapshot, Stamp), Error>, _>| {
        let message = "the range was not listed in time";
        let late = |_| Error::new(ErrorKind::Timeout, "cache", message);
        let (listed, asked) = ended.map_err(late)??;
        Ok(First::Listed(listed, asked))
    };
    let Some((patience, saver)) = saver else {
        return listed(listing.await);
    };
    let enough = sleep_until((Instant::now() + *patience).min(give_up));
    let early = tokio::select! {
        biased;
        ended = &mut listing => Some(listed(ended)),
        () = enough => None,
    };
    match early {
        // What another attempt cannot mend is said, rather than covered by something old.
        Some(Err(error)) if !error.is_retryable() => return Err(error),
        Some(Ok(first)) => return Ok(first),
        Some(Err(_)) | None => {}
    }
    match (saver.load().await, early) {
        (Some((copy, age)), _) => Ok(First::FromDisk(copy, age)),
        (None, Some(failed)) => failed,
        (None, None) => listed(listing.await),
    }
}

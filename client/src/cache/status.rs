//! How current a cache is, and how to hear of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Cache;
use super::loss::Withheld;
use crate::clock::Stamp;
use crate::types::Revision;

/// Where what a cache shows comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheSource {
    /// A member has confirmed that it reports changes as they happen. How lately it was heard of is
    /// the status's [`age`](CacheStatus::age).
    Live,
    /// The range was read, and no member reports changes of it: the watch is being made, for the
    /// first time or, after a connection broke, again.
    Resuming,
    /// The copy on disk: no member has answered since the cache was made, or what it answered is
    /// withheld.
    Disk,
}

/// How current a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The revision that its snapshot is of: nothing in the range has changed between this and the
    /// last change before it.
    pub revision: Revision,
    /// Where the snapshot comes from.
    pub source: CacheSource,
    /// Since when no member reports changes: what is shown was surely what the store had then. None
    /// while one does.
    pub cut_off_since: Option<Instant>,
    /// The store as it is and as it is not shown, because too much was lost at once.
    pub withheld: Option<Withheld>,
    /// How often the whole range was listed, the first time included.
    pub listings: u64,
    /// Whether the client was closed: nothing will change any more.
    pub is_closed: bool,
    /// When the copy on disk was read, and how old it was then.
    from_disk: (Stamp, Duration),
    /// The last moment at which what is known of the store was surely so.
    known_at: Stamp,
}

impl CacheStatus {
    /// Of a cache that shows nothing yet.
    pub(super) fn begun() -> Self {
        let now = Stamp::now();
        Self {
            revision: Revision::UNKNOWN,
            source: CacheSource::Resuming,
            cut_off_since: Some(now.instant()),
            withheld: None,
            listings: 0,
            is_closed: false,
            from_disk: (now, Duration::ZERO),
            known_at: now,
        }
    }

    /// How long ago the snapshot was surely what the store had. It is about a second, at most, on a
    /// connection that works, however little happens; the machine's sleep counts.
    ///
    /// It is counted from the last question that the member has answered: while there are caches,
    /// it is asked every second how far it is, over the connection that its reports come from. So a
    /// member that falls silent, or behind what the client has seen, is seen here at once, because the
    /// age grows. The source is no longer [`Live`](CacheSource::Live) once the connection is given
    /// up, with [`keep_alive`](crate::ClientBuilder::keep_alive)'s defaults after 15 s of silence.
    ///
    /// An answer may overtake reports of the same moment: what has to be certain is read by
    /// [`Cache::linearizable`].
    pub fn age(&self) -> Duration {
        let known = match self.source {
            CacheSource::Live | CacheSource::Resuming => self.known_at.elapsed(),
            CacheSource::Disk => self.from_disk.0.elapsed() + self.from_disk.1,
        };
        let withheld = self.withheld.map(|withheld| withheld.since.elapsed());
        known.max(withheld.unwrap_or_default())
    }

    /// What came from disk and is still shown stays as old as it is, whatever members say.
    fn is_held_back(&self) -> bool {
        self.source == CacheSource::Disk && self.withheld.is_some()
    }

    /// The range was read, by requests the first of which was sent at `asked`.
    pub(super) fn was_listed(&mut self, asked: Stamp) {
        self.known_at = asked;
        if !self.is_held_back() {
            self.source = CacheSource::Resuming;
            self.cut_off_since = Some(asked.instant());
        }
    }

    /// What happened up to `asked` has been reported, and is known.
    pub(super) fn is_known(&mut self, asked: Stamp) {
        self.known_at = self.known_at.max(asked);
    }

    /// A member reports changes. Whether that is news.
    pub(super) fn is_live(&mut self) -> bool {
        if self.is_held_back() {
            return false;
        }
        let is_new = self.source != CacheSource::Live;
        self.source = CacheSource::Live;
        self.cut_off_since = None;
        is_new
    }

    /// What is shown was read from disk, and was `age` old then.
    pub(super) fn is_from_disk(&mut self, age: Duration) {
        let now = Stamp::now();
        self.source = CacheSource::Disk;
        self.from_disk = (now, age);
        self.cut_off_since = Some(now.instant());
    }

    /// No member does any more. Whether that is news.
    pub(super) fn is_cut_off(&mut self) -> bool {
        if self.source != CacheSource::Live {
            return false;
        }
        self.source = CacheSource::Resuming;
        self.cut_off_since = Some(self.known_at.instant());
        true
    }
}

/// The changes of a cache's status: other than its revision, which goes with every change of a key.
#[derive(Debug)]
pub struct StatusChanges {
    changes: watch::Receiver<CacheStatus>,
    cache: Cache,
    has_ended: bool,
}

impl StatusChanges {
    pub(super) fn new(changes: watch::Receiver<CacheStatus>, cache: Cache) -> Self {
        Self {
            changes,
            cache,
            has_ended: false,
        }
    }

    /// The status after the next change, or after the last of several; none once the client is
    /// closed and that was told.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<CacheStatus> {
        if self.has_ended || self.changes.changed().await.is_err() {
            return None;
        }
        self.changes.mark_unchanged();
        let status = self.cache.status();
        self.has_ended = status.is_closed;
        Some(status)
    }
}

//! How current a cache is, and how to hear of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Cache;
use super::loss::Withheld;
use crate::types::Revision;

/// Where what a cache shows comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheSource {
    /// A member reports changes as they happen.
    Live,
    /// A member did; the connection broke, and another is being made.
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
    /// Since when no member reports changes; none while one does.
    pub cut_off_since: Option<Instant>,
    /// The store as it is and as it is not shown, because too much was lost at once.
    pub withheld: Option<Withheld>,
    /// How often the whole range was listed, the first time included.
    pub listings: u64,
    /// Whether the client was closed: nothing will change any more.
    pub is_closed: bool,
    /// How old the copy on disk was when it was read.
    pub(super) age_on_disk: Duration,
}

impl Default for CacheStatus {
    fn default() -> Self {
        Self {
            revision: Revision::UNKNOWN,
            source: CacheSource::Live,
            cut_off_since: None,
            withheld: None,
            listings: 0,
            is_closed: false,
            age_on_disk: Duration::ZERO,
        }
    }
}

impl CacheStatus {
    /// How long ago the snapshot was what the store had, as far as is known: nothing while a member
    /// reports changes and all of them are shown. A connection that dies without a word is noticed
    /// after the client's keep-alive timeouts.
    pub fn age(&self) -> Duration {
        let since = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| since.elapsed());
        let cut_off = self.age_on_disk + since(self.cut_off_since);
        cut_off.max(since(self.withheld.map(|withheld| withheld.since)))
    }

    /// A member reports changes. What came from disk and is still shown stays as old as it is.
    pub(super) fn is_live_now(&mut self) {
        if self.source == CacheSource::Disk && self.withheld.is_some() {
            return;
        }
        self.source = CacheSource::Live;
        self.cut_off_since = None;
        self.age_on_disk = Duration::ZERO;
    }

    /// What is shown was read from disk, and was `age` old then.
    pub(super) fn is_from_disk(&mut self, age: Duration) {
        self.source = CacheSource::Disk;
        self.cut_off_since = Some(Instant::now());
        self.age_on_disk = age;
    }

    /// No member does any more.
    pub(super) fn is_cut_off(&mut self) {
        if self.source == CacheSource::Live {
            self.source = CacheSource::Resuming;
        }
        self.cut_off_since.get_or_insert_with(Instant::now);
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

//! Reading entries: from memory if they are recent, else from RocksDB on a blocking thread.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures::Stream;
use openraft::{OptionalSend, RaftLogReader};
use rocksdb::{IteratorMode, ReadOptions};

use super::records::{self, entry_key};
use super::{LogStore, Shared, options};
use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::raft::{Entry, TypeConfig, Vote};
use crate::storage::StorageError;

/// A batch of entries sent to a peer, or read to be applied, is at most this large unless its one
/// entry is larger. Far below what a peer accepts in one message.
pub const READ_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(READ_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);

impl Shared {
    /// The entries from `start` on, below `end`, up to about `bytes_max` but at least one.
    ///
    /// Fewer only if the log was purged or cut in between.
    async fn read(
        self: &std::sync::Arc<Self>,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        if let Some(entries) = self.read_recent(start, end, bytes_max) {
            return Ok(entries);
        }
        let shared = self.clone();
        tokio::task::spawn_blocking(move || shared.read_disk(start, end, bytes_max))
            .await
            .map_err(|error| StorageError::io(&self.dir, "reading the log", error))?
    }

    fn read_recent(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let view = self.view();
        let mut left = bytes_max;
        let mut entries = Vec::new();
        for (entry, bytes) in view.recent.range(start, end)? {
            if *bytes > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(*bytes);
            entries.push(entry.clone());
        }
        Some(entries)
    }

    fn read_disk(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(entry_key(end));
        // Entries are read once, to be sent or applied: they would only push out others.
        read.fill_cache(false);
        let from = entry_key(start);
        let mode = IteratorMode::From(&from, rocksdb::Direction::Forward);
        let mut entries = Vec::new();
        let mut left = bytes_max;
        for item in self
            .db
            .iterator_cf_opt(self.family(options::LOG), read, mode)
        {
            let (key, value) =
                item.map_err(|error| StorageError::io(&self.dir, "reading the log", error))?;
            if value.len() > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(value.len());
            let entry = records::decode_entry(&key, &value).map_err(|why| {
                StorageError::corrupt(&self.dir, format!("log entry {key:?}"), why)
            })?;
            let expected = start + entries.len() as u64;
            if entry.log_id.index != expected {
                // Entries before it are missing. Fine if they were purged or cut while this was
                // reading; else the log has a hole.
                if self.present(expected) {
                    let why = format!("the next one is {}", entry.log_id);
                    let what = format!("log entry {expected} is missing");
                    return Err(StorageError::corrupt(&self.dir, what, why));
                }
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Whether the log should hold an entry at `index`.
    fn present(&self, index: u64) -> bool {
        let view = self.view();
        index >= view.first && view.last.is_some_and(|last| index <= last.index)
    }

    /// The part of `range` that the log holds, as a half-open interval.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let view = self.view();
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let after_last = view.last.map_or(0, |last| last.index + 1);
        (start.max(view.first), end.min(after_last))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut start, end) = self.shared.clip(&range);
        let mut entries = Vec::new();
        while start < end {
            let part = self.shared.read(start, end, READ_BYTES_MAX).await?;
            if part.is_empty() {
                break;
            }
            start += part.len() as u64;
            entries.extend(part);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = self.shared.clip(&(start..end));
        if start >= end {
            return Ok(Vec::new());
        }
        Ok(self.shared.read(start, end, READ_BYTES_MAX).await?)
    }

    /// Reads ahead of the consumer by one part only: a member that starts may have gigabytes to
    /// apply.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.shared.clip(&range);
        let shared = self.shared.clone();
        let parts =
            futures::stream::try_unfold((shared, start), move |(shared, start)| async move {
                if start >= end {
                    return Ok::<_, io::Error>(None);
                }
                let part = shared.read(start, end, READ_BYTES_MAX).await?;
                if part.is_empty() {
                    return Ok(None);
                }
                let next = start + part.len() as u64;
                Ok(Some((
                    futures::stream::iter(part.into_iter().map(Ok)),
                    (shared, next),
                )))
            });
        Box::pin(futures::TryStreamExt::try_flatten(parts))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.view().vote)
    }
}

//! The newest entries, in memory: what replication and apply read is almost always among them.

use std::collections::VecDeque;

use crate::raft::Entry;

/// Entries without a gap, ending with the last one of the log.
#[derive(Debug)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    /// Holds no entry yet, and never more than `bytes_max` of them unless one alone is larger.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds the entry after the last one; `bytes` is its size on disk.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        if let Some((last, _)) = self.entries.back() {
            assert_eq!(
                last.log_id.index + 1,
                entry.log_id.index,
                "the log has no gaps"
            );
        }
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            self.pop_front();
        }
    }

    /// Drops the entries behind `index`.
    pub(super) fn truncate_after(&mut self, index: Option<u64>) {
        while let Some((entry, bytes)) = self.entries.back() {
            if index.is_some_and(|index| entry.log_id.index <= index) {
                break;
            }
            self.bytes -= bytes;
            self.entries.pop_back();
        }
    }

    /// Drops the entries up to and with `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.first().is_some_and(|first| first <= index) {
            self.pop_front();
        }
    }

    /// Index of the oldest entry here.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    /// The entry at `index` and those after it, below `end`, with their sizes; none if that entry
    /// is not here.
    pub(super) fn range(
        &self,
        index: u64,
        end: u64,
    ) -> Option<impl Iterator<Item = &(Entry, usize)>> {
        let first = self.first()?;
        let last = first + self.entries.len() as u64;
        if index < first || index >= last {
            return None;
        }
        // Both are below the number of entries, which fits.
        let skip = usize::try_from(index - first).ok()?;
        let take = usize::try_from(end.min(last).saturating_sub(index)).ok()?;
        Some(self.entries.range(skip..skip + take))
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::log_id_from_pb;

    fn entry(index: u64) -> Entry {
        let log_id = log_id_from_pb(gonfalon_proto::peer::LogId { term: 1, index });
        Entry {
            log_id,
            payload: EntryPayload::Blank,
        }
    }

    fn indexes(recent: &Recent, from: u64, end: u64) -> Option<Vec<u64>> {
        Some(
            recent
                .range(from, end)?
                .map(|(entry, _)| entry.log_id.index)
                .collect(),
        )
    }

    #[test]
    fn the_oldest_entries_make_room_and_the_rest_stay_readable() {
        let mut recent = Recent::new(100);
        for index in 1..=8 {
            recent.push(entry(index), 20);
        }
        assert_eq!(recent.bytes, 100, "bounded by bytes");
        assert_eq!(indexes(&recent, 3, 9), None, "dropped");
        assert_eq!(indexes(&recent, 4, 7), Some(vec![4, 5, 6]));
        assert_eq!(
            indexes(&recent, 7, 100),
            Some(vec![7, 8]),
            "up to the last one"
        );
        assert_eq!(indexes(&recent, 9, 10), None, "not written yet");
        recent.truncate_after(Some(6));
        recent.purge(4);
        assert_eq!(indexes(&recent, 5, 9), Some(vec![5, 6]));
        assert_eq!(recent.bytes, 40);
        recent.truncate_after(None);
        assert_eq!((recent.bytes, recent.first()), (0, None));
        recent.push(entry(20), 500);
        assert_eq!(
            indexes(&recent, 20, 21),
            Some(vec![20]),
            "one alone may be larger"
        );
    }
}

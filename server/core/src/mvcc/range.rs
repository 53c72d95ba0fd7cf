//! Reads at the present and at past revisions.
//!
//! The order of work is etcd's: the range's keys in key order, then the revision filters, then the
//! sort, then the limit. The count is of the range alone.

use std::iter::Peekable;

use bytes::Bytes;

use super::Store;
use super::recent::{ChangeId, Past};
use super::version::Version;
use crate::command::{Range, Sort, SortOrder, SortTarget};
use crate::{
    Count, Error, History, HistoryError, KeyRange, KeyValue, LeaseId, Page, RangeAnswer, Revision,
};

/// A part of a count, or of a page that finds little, looks at so many keys.
const PART_KEYS_MAX: usize = 4096;

/// A version that a read found.
#[derive(Debug)]
enum Found<'a> {
    /// The newest one.
    Newest(&'a Version),
    /// One that was superseded or deleted not long ago.
    Past(&'a KeyValue),
    /// One that was read from history.
    Old(Box<KeyValue>),
}

impl Store {
    /// The revision that a read is at: that asked for, or the present.
    pub(crate) fn read_at(&self, revision: Option<Revision>) -> Result<Revision, Error> {
        match revision {
            None => Ok(self.revision),
            Some(at) if at.get() == 0 => Ok(self.revision),
            Some(at) if at > self.revision => Err(Error::FutureRevision {
                current: self.revision,
            }),
            Some(at) if at < self.compacted => Err(Error::Compacted {
                oldest: self.compacted,
            }),
            // −1 before the first compaction: etcd takes it for the present.
            Some(at) if at.get() < 0 => Ok(self.revision),
            Some(at) => Ok(at),
        }
    }

    /// Reads a range with all its options.
    pub(crate) fn range(
        &self,
        query: &Range,
        history: &dyn History,
    ) -> Result<Result<RangeAnswer, Error>, HistoryError> {
        let at = match self.read_at(query.revision) {
            Ok(at) => at,
            Err(error) => return Ok(Err(error)),
        };
        if query.count_only {
            let count = self.count_all(&query.range, at, history)?;
            return Ok(Ok(RangeAnswer {
                count,
                ..RangeAnswer::default()
            }));
        }
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        let fetch = if is_limit_pushed_down(query) {
            limit.saturating_add(1)
        } else {
            usize::MAX
        };
        let mut found = Vec::new();
        let mut walk = Walk::new(self, &query.range, at);
        while found.len() < fetch
            && let Some(key) = walk.next()
        {
            if let Some(version) = self.resolve(key, at, history)? {
                found.push(version);
            }
        }
        // When the whole range was walked, its size is known without counting again.
        let count = if found.len() < fetch {
            found.len()
        } else {
            self.count_all(&query.range, at, history)?
        };
        found.retain(|version| passes_filters(version, query));
        sort(&mut found, query.sort);
        let more = found.len() > limit;
        found.truncate(limit);
        // As etcd 3.7: keys alone are served from an index that does not know the lease.
        let has_lease = !query.keys_only || query.sort.target == SortTarget::Value;
        let kvs = found
            .iter()
            .map(|version| version.to_kv(query.keys_only, has_lease))
            .collect();
        Ok(Ok(RangeAnswer { kvs, more, count }))
    }

    /// Reads part of a range at a pinned revision.
    pub(crate) fn page(
        &self,
        range: &KeyRange,
        at: Revision,
        from: Option<&Bytes>,
        limit: usize,
        keys_only: bool,
        history: &dyn History,
    ) -> Result<Result<Page, Error>, HistoryError> {
        assert!(limit > 0, "a page has room for a key");
        if let Err(error) = self.read_at(Some(at)) {
            return Ok(Err(error));
        }
        let Some(rest) = rest_of(range, from) else {
            return Ok(Ok(Page::default()));
        };
        let mut page = Page::default();
        for (looked_at, key) in Walk::new(self, &rest, at).enumerate() {
            if page.kvs.len() == limit || looked_at - page.kvs.len() >= PART_KEYS_MAX {
                page.next = Some(Bytes::copy_from_slice(key.bytes()));
                break;
            }
            if let Some(version) = self.resolve(key, at, history)? {
                page.kvs.push(version.to_kv(keys_only, !keys_only));
            }
        }
        Ok(Ok(page))
    }

    /// Counts part of a range at a pinned revision.
    pub(crate) fn count(
        &self,
        range: &KeyRange,
        at: Revision,
        from: Option<&Bytes>,
        history: &dyn History,
    ) -> Result<Result<Count, Error>, HistoryError> {
        if let Err(error) = self.read_at(Some(at)) {
            return Ok(Err(error));
        }
        let Some(rest) = rest_of(range, from) else {
            return Ok(Ok(Count::default()));
        };
        if at >= self.recent.floor() {
            let count = self.count_recent(&rest, at);
            return Ok(Ok(Count { count, next: None }));
        }
        let mut count = Count::default();
        for (looked_at, key) in Walk::new(self, &rest, at).enumerate() {
            if looked_at == PART_KEYS_MAX {
                count.next = Some(Bytes::copy_from_slice(key.bytes()));
                break;
            }
            count.count += usize::from(self.exists(key, at, history)?);
        }
        Ok(Ok(count))
    }

    fn count_all(
        &self,
        range: &KeyRange,
        at: Revision,
        history: &dyn History,
    ) -> Result<usize, HistoryError> {
        if at >= self.recent.floor() {
            return Ok(self.count_recent(range, at));
        }
        let mut count = 0;
        for key in Walk::new(self, range, at) {
            count += usize::from(self.exists(key, at, history)?);
        }
        Ok(count)
    }

    /// Counts at a revision that memory reaches: the present's keys, less what was added since.
    fn count_recent(&self, range: &KeyRange, at: Revision) -> usize {
        let present = self.keys.count(range);
        let past = present.checked_add_signed(-self.recent.growth(range, at));
        past.expect("a range never has fewer keys than none")
    }

    fn exists(
        &self,
        key: Walked<'_>,
        at: Revision,
        history: &dyn History,
    ) -> Result<bool, HistoryError> {
        match key {
            // Created at or before `at` and not deleted since.
            Walked::Live(version) if version.create_revision() <= at => Ok(true),
            _ => Ok(self.resolve(key, at, history)?.is_some()),
        }
    }

    /// The version that a walked key has at revision `at`.
    fn resolve<'a>(
        &'a self,
        key: Walked<'a>,
        at: Revision,
        history: &dyn History,
    ) -> Result<Option<Found<'a>>, HistoryError> {
        if key.last_change().0 <= at {
            return Ok(match key {
                Walked::Live(version) => Some(Found::Newest(version)),
                Walked::Deleted(..) => None,
            });
        }
        match self.recent.past(key.last_change(), at) {
            Past::Version(kv) => Ok(Some(Found::Past(kv))),
            Past::Missing => Ok(None),
            Past::Unknown => {
                assert!(at < self.recent.floor(), "memory reaches down to the floor");
                let kv = history.version_at(key.bytes(), at)?;
                Ok(kv.map(|kv| Found::Old(Box::new(kv))))
            }
        }
    }
}

/// A key that may have existed at the revision of a walk, and its last change.
#[derive(Debug, Clone, Copy)]
enum Walked<'a> {
    Live(&'a Version),
    Deleted(&'a [u8], ChangeId),
}

impl<'a> Walked<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Live(version) => version.key(),
            Self::Deleted(key, _) => key,
        }
    }

    fn last_change(self) -> ChangeId {
        match self {
            Self::Live(version) => version.change(),
            Self::Deleted(_, change) => change,
        }
    }
}

/// The keys of a range that may have existed at a revision, in key order: those that exist now,
/// those that were deleted since, and perhaps some that were deleted before.
struct Walk<Live: Iterator, Deleted: Iterator> {
    live: Peekable<Live>,
    deleted: Peekable<Deleted>,
}

impl<'a> Walk<std::iter::Empty<&'a Version>, std::iter::Empty<(&'a [u8], ChangeId)>> {
    fn new(
        store: &'a Store,
        range: &KeyRange,
        at: Revision,
    ) -> Walk<
        impl Iterator<Item = &'a Version> + use<'a>,
        impl Iterator<Item = (&'a [u8], ChangeId)> + use<'a>,
    > {
        // Nothing is deleted after the present.
        let is_past = at < store.revision;
        let deleted = is_past.then(|| store.tombstones.deleted_after(range, at));
        Walk {
            live: store.keys.range(range).peekable(),
            deleted: deleted.into_iter().flatten().peekable(),
        }
    }
}

impl<'a, Live, Deleted> Iterator for Walk<Live, Deleted>
where
    Live: Iterator<Item = &'a Version>,
    Deleted: Iterator<Item = (&'a [u8], ChangeId)>,
{
    type Item = Walked<'a>;

    fn next(&mut self) -> Option<Walked<'a>> {
        let is_live_first = match (self.live.peek(), self.deleted.peek()) {
            (Some(live), Some(deleted)) => live.key() < deleted.0,
            (live, _) => live.is_some(),
        };
        if is_live_first {
            self.live.next().map(Walked::Live)
        } else {
            self.deleted
                .next()
                .map(|(key, change)| Walked::Deleted(key, change))
        }
    }
}

impl Found<'_> {
    fn to_kv(&self, keys_only: bool, has_lease: bool) -> KeyValue {
        let mut kv = match self {
            Self::Newest(version) if keys_only => version.to_kv_without_value(),
            Self::Newest(version) => version.to_kv(),
            Self::Past(kv) => KeyValue::clone(kv),
            Self::Old(kv) => KeyValue::clone(kv),
        };
        if keys_only {
            kv.value = Bytes::new();
        }
        if !has_lease {
            kv.lease = LeaseId::NONE;
        }
        kv
    }

    fn key(&self) -> &[u8] {
        match self {
            Self::Newest(version) => version.key(),
            Self::Past(kv) => &kv.key,
            Self::Old(kv) => &kv.key,
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Self::Newest(version) => version.value(),
            Self::Past(kv) => &kv.value,
            Self::Old(kv) => &kv.value,
        }
    }

    fn version(&self) -> i64 {
        match self {
            Self::Newest(version) => version.number_of_puts(),
            Self::Past(kv) => kv.version,
            Self::Old(kv) => kv.version,
        }
    }

    fn create_revision(&self) -> i64 {
        let revision = match self {
            Self::Newest(version) => version.create_revision(),
            Self::Past(kv) => kv.create_revision,
            Self::Old(kv) => kv.create_revision,
        };
        revision.get()
    }

    fn mod_revision(&self) -> i64 {
        let revision = match self {
            Self::Newest(version) => version.mod_revision(),
            Self::Past(kv) => kv.mod_revision,
            Self::Old(kv) => kv.mod_revision,
        };
        revision.get()
    }
}

/// Whether the first `limit` keys in key order are the answer (but for the order among them).
fn is_limit_pushed_down(query: &Range) -> bool {
    query.is_unfiltered()
        && match query.sort.order {
            SortOrder::None => true,
            SortOrder::Ascend => query.sort.target == SortTarget::Key,
            SortOrder::Descend => false,
        }
}

fn passes_filters(found: &Found<'_>, query: &Range) -> bool {
    let within = |number: i64, min: i64, max: i64| {
        (min == 0 || number >= min) && (max == 0 || number <= max)
    };
    within(
        found.mod_revision(),
        query.min_mod_revision,
        query.max_mod_revision,
    ) && within(
        found.create_revision(),
        query.min_create_revision,
        query.max_create_revision,
    )
}

/// Sorts stably, so that ties stay in key order.
fn sort(found: &mut [Found<'_>], sort: Sort) {
    let compare = |a: &Found<'_>, b: &Found<'_>| match sort.target {
        SortTarget::Key => a.key().cmp(b.key()),
        SortTarget::Version => a.version().cmp(&b.version()),
        SortTarget::Create => a.create_revision().cmp(&b.create_revision()),
        SortTarget::Mod => a.mod_revision().cmp(&b.mod_revision()),
        SortTarget::Value => a.value().cmp(b.value()),
    };
    match (sort.order, sort.target) {
        // They are in key order already.
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
        (SortOrder::None | SortOrder::Ascend, _) => found.sort_by(compare),
        (SortOrder::Descend, _) => found.sort_by(|a, b| compare(a, b).reverse()),
    }
}

/// What is left of `range` from `from` on; none if nothing is.
fn rest_of(range: &KeyRange, from: Option<&Bytes>) -> Option<KeyRange> {
    let rest = match from {
        None => range.clone(),
        Some(from) if range.contains(from) => KeyRange {
            start: from.clone(),
            ..range.clone()
        },
        Some(_) => return None,
    };
    (!rest.is_empty()).then_some(rest)
}

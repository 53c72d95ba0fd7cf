//! Large ranges, read a page at a time so that nobody waits long for the state.
//!
//! Every page is of the same revision. Between two pages other work gets its turn.

use bytes::Bytes;
use gonfalon_core::command::{Range, SortOrder, SortTarget};
use gonfalon_core::{KeyValue, RangeAnswer, Revision};

use crate::api::Api;
use crate::api::status::Refusal;

/// Keys of one page. A thousand take about 0.1 ms to collect: the longest that applying a write
/// waits for a reader.
const PAGE_KEYS_MAX: usize = 1_000;

/// Whether a read may be long, and can be cut: the answer is in key order, and nothing is left out.
pub(super) fn is_worthwhile(query: &Range) -> bool {
    let is_long = !query.range.is_single() && (query.limit == 0 || query.limit > PAGE_KEYS_MAX);
    let is_in_key_order =
        query.sort.target == SortTarget::Key && query.sort.order != SortOrder::Descend;
    is_long && is_in_key_order && query.is_unfiltered() && !query.count_only
}

/// Reads a range page by page; the answer, and the store's revision when it began.
pub(super) async fn read(api: &Api, query: &Range) -> Result<(Revision, RangeAnswer), Refusal> {
    let (revision, mut pager, mut kvs) = Pager::begin(api, query, PAGE_KEYS_MAX)?;
    while !pager.is_done() {
        tokio::task::yield_now().await;
        match pager.next(api, PAGE_KEYS_MAX) {
            Ok(page) => kvs.extend(page),
            // The present that this began with is compacted already. Whoever asks for the present
            // is not to be refused for that: once more, in one go.
            Err(Refusal::Compacted) if query.revision.is_none() => {
                return api.read_range(query);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    let (count, more) = match pager.count_rest(api) {
        Ok(rest) => (kvs.len() + rest, rest > 0),
        Err(Refusal::Compacted) if query.revision.is_none() => {
            return api.read_range(query);
        }
        Err(refusal) => return Err(refusal),
    };
    Ok((revision, RangeAnswer { kvs, more, count }))
}

/// A place in a range that is read at one revision.
pub(super) struct Pager {
    query: Range,
    at: Revision,
    /// Keys that the limit still allows.
    left: usize,
    /// The next key to read; none: the range has been read to its end.
    next: Option<Bytes>,
}

impl Pager {
    /// Pins the revision and reads the first page; also returns the store's revision.
    pub(super) fn begin(
        api: &Api,
        query: &Range,
        keys_max: usize,
    ) -> Result<(Revision, Self, Vec<KeyValue>), Refusal> {
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        let size = keys_max.min(limit);
        let (revision, (at, page)) = api.read(|state, history| {
            let at = query.revision.unwrap_or_else(|| state.revision());
            let page = state.page(&query.range, at, None, size, query.keys_only, history)?;
            Ok(page.map(|page| (at, page)))
        })?;
        let left = limit - page.kvs.len();
        Ok((
            revision,
            Self {
                query: query.clone(),
                at,
                left,
                next: page.next,
            },
            page.kvs,
        ))
    }

    /// Whether the end of the range or the limit has been reached.
    pub(super) fn is_done(&self) -> bool {
        self.next.is_none() || self.left == 0
    }

    /// The next page: at most `keys_max` keys, perhaps none although more follow.
    pub(super) fn next(&mut self, api: &Api, keys_max: usize) -> Result<Vec<KeyValue>, Refusal> {
        let Some(from) = self.next.take() else {
            return Ok(Vec::new());
        };
        let size = keys_max.min(self.left);
        let Range {
            range, keys_only, ..
        } = &self.query;
        let (_, page) = api.read(|state, history| {
            state.page(range, self.at, Some(&from), size, *keys_only, history)
        })?;
        self.left -= page.kvs.len();
        self.next = page.next;
        Ok(page.kvs)
    }

    /// How many keys of the range are behind the last page.
    pub(super) fn count_rest(&mut self, api: &Api) -> Result<usize, Refusal> {
        let mut total = 0;
        while let Some(from) = self.next.take() {
            let range = &self.query.range;
            let (_, part) =
                api.read(|state, history| state.count(range, self.at, Some(&from), history))?;
            total += part.count;
            self.next = part.next;
        }
        Ok(total)
    }
}

//! Large ranges, piece by piece, all at one revision.
//!
//! The first page is a plain read, which also tells the revision and how many keys there are. What
//! follows comes as one stream where the server has that (etcd 3.7, Gonfalon), and as one read a page
//! where it has not. The stream only ever spares round trips: whatever goes wrong with it, the next
//! page is a plain read again, which is repeated, refused or given up as any other.

use std::collections::VecDeque;

use futures::Stream;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use gonfalon_proto::etcdserverpb as pb;
use tokio::time::timeout;

use super::{Range, RangePage, all_shown};
use crate::error::{Error, ErrorKind};
use crate::transport::RangeStream;
use crate::types::{KeyValue, Revision};

/// Keys that [`Range::stream`] reads at a time, where it has to.
const STREAM_PAGE_KEYS: u32 = 1000;

/// The pages of a range, all at one revision: see [`Range::pages`].
#[must_use = "nothing is read until it is polled"]
pub struct Pages {
    stream: BoxStream<'static, Result<RangePage, Error>>,
}

/// The keys of a range, all at one revision: see [`Range::stream`].
#[must_use = "nothing is read until it is polled"]
pub struct KeyValues {
    stream: BoxStream<'static, Result<KeyValue, Error>>,
}

impl Range {
    /// All keys, `keys` at a time, as they were at the first page's revision, which every page names.
    /// Sorted by key, whatever [`Range::sort`] says; [`Range::limit`] gives way to `keys`. A page's
    /// `count` is how many keys there are from it on.
    ///
    /// The stream ends after its first error: [`ErrorKind::Compacted`](crate::ErrorKind::Compacted)
    /// if reading takes so long that the history is compacted meanwhile.
    ///
    /// # Panics
    ///
    /// If `keys` is 0.
    pub fn pages(self, keys: u32) -> Pages {
        assert!(keys > 0, "a page has at least one key");
        let mut first = self.limit(keys);
        first.op.request_mut().sort_order = 0;
        first.op.request_mut().sort_target = 0;
        let reading = Reading {
            rest: first,
            page_keys: keys as usize,
            left: None,
            pieces: None,
            buffered: VecDeque::new(),
        };
        let next = |reading: Option<Reading>| async move {
            match reading {
                None => Ok(None),
                Some(reading) => reading.next().await.map(Some),
            }
        };
        Pages {
            stream: futures::stream::try_unfold(Some(reading), next).boxed(),
        }
    }

    /// All keys, one by one, as [`Range::pages`] does it; at most as many as [`Range::limit`].
    pub fn stream(self) -> KeyValues {
        let limit = usize::try_from(self.op.keys_max())
            .ok()
            .filter(|&keys| keys > 0);
        let keys = self.pages(STREAM_PAGE_KEYS).flat_map(|page| {
            let (kvs, error) = match page {
                Ok(page) => (page.kvs, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let kvs = kvs.into_iter().map(Ok);
            futures::stream::iter(kvs.chain(error.map(Err)))
        });
        KeyValues {
            stream: keys.take(limit.unwrap_or(usize::MAX)).boxed(),
        }
    }
}

/// A range that is being read.
struct Reading {
    /// What is still to be read, as the plain read of the next page.
    rest: Range,
    page_keys: usize,
    /// How many keys that is, once the first page has told.
    left: Option<u64>,
    /// What the server streams, while it does.
    pieces: Option<RangeStream>,
    buffered: VecDeque<KeyValue>,
}

impl Reading {
    /// The next page, and what is left after it.
    async fn next(mut self) -> Result<(RangePage, Option<Self>), Error> {
        if self.left.is_some() && self.rest.op.can_be_streamed() {
            self.receive().await;
        }
        let page = if self.buffered.is_empty() {
            self.read().await?
        } else {
            self.take_page()
        };
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            return Ok((page, None));
        };
        self.left = Some(page.count.saturating_sub(page.kvs.len() as u64));
        let op = self.rest.op.continued(&last.key, page.revision);
        self.rest.op = op;
        Ok((page, Some(self)))
    }

    /// One plain read.
    async fn read(&mut self) -> Result<RangePage, Error> {
        let mut read = self.rest.clone().send().await;
        if self.left.is_some()
            && self.rest.op.is_serializable()
            && let Err(error) = &read
            && *error.kind() == ErrorKind::FutureRevision
        {
            // This member lags behind the one that was asked before; the leader does not.
            self.rest.op.request_mut().serializable = false;
            read = self.rest.clone().send().await;
        }
        let mut page = read?;
        let pinned = self.rest.op.revision();
        if pinned != Revision::UNKNOWN {
            page.revision = pinned;
        }
        Ok(page)
    }

    /// From what was streamed.
    fn take_page(&mut self) -> RangePage {
        let keys = self.page_keys.min(self.buffered.len());
        let count = self.left.unwrap_or_default();
        RangePage {
            revision: self.rest.op.revision(),
            kvs: self.buffered.drain(..keys).collect(),
            more: count > keys as u64,
            count,
        }
    }

    /// Fills the buffer with a page from the stream, which is opened if there is none; with less if
    /// it breaks.
    async fn receive(&mut self) {
        let client = self.rest.client.clone();
        let namespace = client.namespace_bytes();
        // Opened at most once for a page: a stream that brings nothing is no reason for another.
        let mut may_open = true;
        while self.buffered.len() < self.page_keys {
            let Some(pieces) = &self.pieces else {
                if !may_open || !self.buffered.is_empty() {
                    return;
                }
                may_open = false;
                let request = pb::RangeRequest {
                    limit: 0,
                    ..self.rest.op.to_wire(namespace)
                };
                self.pieces = client.transport().range_stream(request).await;
                continue;
            };
            match timeout(client.default_deadline(), pieces.next()).await {
                Ok(Some(kvs)) => self.buffered.extend(all_shown(kvs, namespace.len())),
                Ok(None) | Err(_) => self.pieces = None,
            }
        }
    }
}

impl Pages {
    /// The next page; none after the last.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the same page is read again.
    pub async fn next(&mut self) -> Option<Result<RangePage, Error>> {
        self.stream.next().await
    }
}

impl KeyValues {
    /// The next key; none after the last.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<Result<KeyValue, Error>> {
        self.stream.next().await
    }
}

macro_rules! is_stream {
    ($name:ident, $item:ty) => {
        impl Stream for $name {
            type Item = Result<$item, Error>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.stream.as_mut().poll_next(context)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

is_stream!(Pages, RangePage);
is_stream!(KeyValues, KeyValue);

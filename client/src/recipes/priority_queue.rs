//! A queue of items with priorities: the smallest number comes out first, and among equals what was
//! put in first.
//!
//! Items are where etcd's `PriorityQueue` puts them, `<name>/<priority>/<number>`, the number one
//! above the last; `__<name>/<priority>` is written with each, so that two who have read the same
//! last number do not both write.

use bytes::Bytes;

use super::items::Items;
use super::line::below;
use super::once::{Committed, aside, conflict_pauses};
use super::queue::taking;
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::op::{Op, SortBy, SortOrder};
use crate::txn::Compare;
use crate::types::{IntoBytes, KeyRange};

/// A queue with priorities by its name. Clones are one worker: their claims go with one lease.
#[derive(Debug, Clone)]
pub struct PriorityQueue {
    items: Items,
}

impl PriorityQueue {
    pub(crate) fn new(client: Client, name: Bytes) -> Self {
        Self {
            items: Items::new(client, name, SortBy::Key),
        }
    }

    taking!(items);

    /// Puts an item behind those of its priority, and before those of every higher number; its key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`]: somebody has put a key there that is no item. Else as any
    /// write; the outcome is [`Unknown`](crate::Outcome::Unknown) only if nobody answers before the
    /// deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may be in the queue or not, or come to be later.
    pub async fn enqueue(&self, value: impl IntoBytes, priority: u16) -> Result<Bytes, Error> {
        let value = value.into_bytes();
        let Items { client, name, .. } = &self.items;
        let prefix = below(name, &format!("{priority:05}"));
        let base = aside(name, &format!("{priority:05}"));
        let mut pauses = conflict_pauses();
        loop {
            let last = client
                .range(KeyRange::prefix(below(&prefix, "")))
                .sort(SortBy::Key, SortOrder::Descending)
                .limit(1)
                .keys_only()
                .await?;
            let number = match last.kvs.first() {
                Some(kv) => number_of(&kv.key)?.saturating_add(1),
                None => 0,
            };
            let key = below(&prefix, &format!("{number:016}"));
            let txn = client
                .txn()
                .when(Compare::mod_revision(&base).lt(last.revision.next()))
                .when(Compare::absent(&key))
                .then(Op::put(&base, ""))
                .then(Op::put(&key, &value));
            if let Committed::Done(_) = self.items.once.commit(txn).await? {
                return Ok(key);
            }
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
    }
}

fn number_of(key: &[u8]) -> Result<u64, Error> {
    let digits = key.rsplit(|byte| *byte == b'/').next();
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| {
            let message = format!("{} is no item", String::from_utf8_lossy(key));
            Error::new(ErrorKind::FailedPrecondition, "enqueue", message)
        })
}

//! A queue of items: what was put in first comes out first.
//!
//! Items are where etcd's `Queue` puts them: `<name>/<nanoseconds>`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::items::Items;
use super::line::below;
use super::once::Committed;
use crate::client::Client;
use crate::error::Error;
use crate::op::{Op, SortBy};
use crate::txn::Compare;
use crate::types::IntoBytes;

/// What both queues can do with their items.
macro_rules! taking {
    ($items:ident) => {
        /// How long an item waits for a worker who has died with it. Default: 30 s.
        #[must_use]
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.$items = self.$items.with_ttl(ttl);
            self
        }

        /// Claims the next item; waits until there is one. It stays in the queue until it is
        /// [`done`](crate::Claim::done), and comes back if it is not: every item is worked on at
        /// least once.
        ///
        /// etcd's own queues know of no claims and take claimed items too.
        ///
        /// # Errors
        ///
        /// As any call; but once it waits, what passes (no connection, no leader) does not end it.
        ///
        /// # Cancel safety
        ///
        /// Safe: dropped, what was claimed is given back.
        pub async fn claim(&self) -> Result<$crate::Claim, $crate::Error> {
            self.$items.claim().await
        }

        /// Claims the next item, if there is one that nobody has claimed.
        ///
        /// # Errors
        ///
        /// As any call.
        ///
        /// # Cancel safety
        ///
        /// Safe: dropped, what was claimed is given back.
        pub async fn try_claim(&self) -> Result<Option<$crate::Claim>, $crate::Error> {
            self.$items.try_claim().await
        }

        /// Takes the next item from the queue; waits until there is one. If the caller dies, it is
        /// gone: every item is worked on at most once.
        ///
        /// # Errors
        ///
        /// As any write. The outcome is [`Unknown`](crate::Outcome::Unknown) only if nobody answers
        /// before the deadline; then the item may be gone.
        ///
        /// # Cancel safety
        ///
        /// Dropped, an item may be gone.
        pub async fn dequeue(&self) -> Result<bytes::Bytes, $crate::Error> {
            Ok(self.$items.take().await?.value)
        }

        /// Takes the next item from the queue, if there is one that nobody has claimed.
        ///
        /// # Errors
        ///
        /// As for `dequeue`.
        ///
        /// # Cancel safety
        ///
        /// Dropped, an item may be gone.
        pub async fn try_dequeue(&self) -> Result<Option<bytes::Bytes>, $crate::Error> {
            Ok(self.$items.try_take().await?.map(|item| item.value))
        }

        /// How many items there are, claimed ones included.
        ///
        /// # Cancel safety
        ///
        /// Safe.
        pub async fn count(&self) -> Result<u64, $crate::Error> {
            self.$items.count().await
        }
    };
}
pub(super) use taking;

/// A queue by its name. Clones are one worker: their claims go with one lease.
#[derive(Debug, Clone)]
pub struct Queue {
    items: Items,
}

impl Queue {
    pub(crate) fn new(client: Client, name: Bytes) -> Self {
        Self {
            items: Items::new(client, name, SortBy::CreateRevision),
        }
    }

    taking!(items);

    /// Puts an item at the end; its key.
    ///
    /// # Errors
    ///
    /// As any write. The outcome is [`Unknown`](crate::Outcome::Unknown) only if nobody answers
    /// before the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may be in the queue or not, or come to be later.
    pub async fn enqueue(&self, value: impl IntoBytes) -> Result<Bytes, Error> {
        let value = value.into_bytes();
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now: Duration = now.unwrap_or_default();
            let key = below(&self.items.name, &now.as_nanos().to_string());
            // Two may have the same time.
            let txn = self.items.client.txn().when(Compare::absent(&key));
            let txn = txn.then(Op::put(&key, &value));
            if let Committed::Done(_) = self.items.once.commit(txn).await? {
                return Ok(key);
            }
        }
    }
}

//! A number that many add to, and that every addition changes exactly once.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::once::{Committed, Once, TTL, aside, conflict_pauses};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::op::Op;
use crate::txn::{Compare, OpResult};
use crate::types::{KeyValue, Revision};

/// A counter by its name, which is its key; there it is in decimal digits. Clones share what they
/// know of it.
///
/// An addition whose answer is lost is looked for, not repeated: a key beside the counter,
/// `__<name>/…`, goes with a lease of this handle and tells whether it took place.
#[derive(Debug, Clone)]
pub struct Counter {
    client: Client,
    key: Bytes,
    once: Arc<Once>,
    /// What it was when last heard of.
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    value: i64,
    /// Unknown: the key is not there.
    written: Revision,
}

impl Counter {
    pub(crate) fn new(client: Client, name: Bytes) -> Self {
        Self {
            once: Arc::new(Once::new(client.clone(), aside(&name, "once/"), TTL)),
            client,
            key: name,
            known: Arc::new(Mutex::new(Known {
                value: 0,
                written: Revision::UNKNOWN,
            })),
        }
    }

    /// The number; 0 if nobody has counted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`]: what is there is no number. Else as any read.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn get(&self) -> Result<i64, Error> {
        let found = self.client.get(&self.key).await?;
        Ok(self.learn(found)?.value)
    }

    /// Adds `number`, which may be below 0; the sum.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`]: the sum does not fit into 64 bits.
    /// [`ErrorKind::FailedPrecondition`]: what is there is no number. Else as any write; the outcome
    /// is [`Unknown`](crate::Outcome::Unknown) only if nobody answers before the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been added or not, or be added later.
    pub async fn add(&self, number: i64) -> Result<i64, Error> {
        let mut pauses = conflict_pauses();
        let mut known = *self.known();
        loop {
            let Some(sum) = known.value.checked_add(number) else {
                let found = self.client.get(&self.key).await?;
                let now = self.learn(found)?;
                if now.written != known.written {
                    known = now;
                    continue;
                }
                let message = format!("{} + {number} does not fit", known.value);
                return Err(Error::new(ErrorKind::InvalidArgument, "count", message));
            };
            let txn = self
                .client
                .txn()
                .when(Compare::mod_revision(&self.key).eq(known.written))
                .then(Op::put(&self.key, sum.to_string()))
                .or_else(Op::get(&self.key));
            let is_new = known.written == Revision::UNKNOWN;
            match self.once.commit(txn).await? {
                Committed::Done(written) => {
                    self.heard(Known {
                        value: sum,
                        written,
                    });
                    return Ok(sum);
                }
                Committed::Refused(read) => {
                    let found = read.into_iter().find_map(OpResult::into_range);
                    let found = found.and_then(|page| page.kvs.into_iter().next());
                    known = self.learn(found)?;
                }
            }
            // Others count too; the first time it was only not known.
            if !is_new {
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            }
        }
    }

    fn learn(&self, found: Option<KeyValue>) -> Result<Known, Error> {
        let known = match &found {
            None => Known {
                value: 0,
                written: Revision::UNKNOWN,
            },
            Some(kv) => Known {
                value: kv
                    .value_str()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| {
                        let message = format!("{:?} is no number", kv.value);
                        Error::new(ErrorKind::FailedPrecondition, "count", message)
                    })?,
                written: kv.mod_revision,
            },
        };
        self.heard(known);
        Ok(known)
    }

    fn heard(&self, news: Known) {
        let mut known = self.known();
        // One that is not there may have been deleted; what is wrong about that is told next time.
        if news.written > known.written || news.written == Revision::UNKNOWN {
            *known = news;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

//! Writes that take place once, also when the answer to one is lost and it is sent again.
//!
//! Together with what it changes, a transaction writes a random number to a key of its own. If it is
//! sent again, the comparison of that key fails, and what the key holds tells whether the one before
//! took place. The keys are few, are used again, and go with a lease.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Outcome};
use crate::lease::Lease;
use crate::op::Op;
use crate::txn::{Compare, OpResult, Txn};
use crate::types::Revision;

/// How long the keys stay when whoever wrote them has died.
pub(super) const TTL: Duration = Duration::from_mins(1);

/// The bound of the first pause after a conflict: about as long as a write takes.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The bound of the longest.
const PAUSE_MAX: Duration = Duration::from_millis(256);

/// Whoever writes so.
#[derive(Debug)]
pub(super) struct Once {
    client: Client,
    /// Where the keys are; ends with a slash.
    prefix: Bytes,
    ttl: Duration,
    lease: tokio::sync::Mutex<Option<Lease>>,
    /// Keys that no transaction uses now.
    free: Mutex<Vec<Marker>>,
}

/// One key.
#[derive(Debug)]
struct Marker {
    key: Bytes,
    /// When it was written last; unknown: it is not there.
    written: Revision,
    lease: Lease,
}

/// What came of a transaction.
#[derive(Debug)]
pub(super) enum Committed {
    /// It took place, once, at this revision.
    Done(Revision),
    /// One of its own conditions does not hold; what its other branch has read.
    Refused(Vec<OpResult>),
}

impl Once {
    pub(super) fn new(client: Client, prefix: Bytes, ttl: Duration) -> Self {
        Self {
            client,
            prefix,
            ttl,
            lease: tokio::sync::Mutex::default(),
            free: Mutex::default(),
        }
    }

    /// The lease that the keys go with: another one if the last was lost.
    pub(super) async fn lease(&self) -> Result<Lease, Error> {
        let mut current = self.lease.lock().await;
        if let Some(lease) = current.as_ref().filter(|lease| lease.is_held()) {
            return Ok(lease.clone());
        }
        let lease = self.client.grant(self.ttl).await?;
        *current = Some(lease.clone());
        Ok(lease)
    }

    /// Does what `txn` says, once. Its conditions must be such that once they fail they do not come
    /// to hold again.
    pub(super) async fn commit(&self, txn: Txn) -> Result<Committed, Error> {
        let mut marker = self.marker().await?;
        let proof = Bytes::from(format!("{:016x}", fastrand::u64(..)));
        let answer = txn
            .when(Compare::mod_revision(&marker.key).eq(marker.written))
            .then(Op::put(&marker.key, &proof).lease(&marker.lease))
            .or_else(Op::get(&marker.key))
            .repeatable()
            .await?;
        if answer.succeeded {
            marker.written = answer.revision;
            self.free().push(marker);
            return Ok(Committed::Done(answer.revision));
        }
        let mut results = answer.results;
        let found = results.pop().and_then(OpResult::into_range);
        let found = found.and_then(|page| page.kvs.into_iter().next());
        if let Some(earlier) = found.as_ref().filter(|kv| kv.value == proof) {
            marker.written = earlier.mod_revision;
            self.free().push(marker);
            return Ok(Committed::Done(earlier.mod_revision));
        }
        let written = found.map_or(Revision::UNKNOWN, |kv| kv.mod_revision);
        if written == marker.written && marker.lease.is_held() {
            self.free().push(marker);
            return Ok(Committed::Refused(results));
        }
        // Whatever it was, it is not proven any more that it was not done.
        let message = "the lease of the proof has ended";
        Err(Error::new(ErrorKind::Lost, "txn", message).outcome_is(Outcome::Unknown))
    }

    /// A key that nobody else uses now.
    async fn marker(&self) -> Result<Marker, Error> {
        loop {
            let free = self.free().pop();
            match free {
                Some(marker) if marker.lease.is_held() => return Ok(marker),
                Some(_) => {}
                None => break,
            }
        }
        let lease = self.lease().await?;
        let name = format!("{}-{:x}", lease.id(), fastrand::u64(..));
        Ok(Marker {
            key: [&self.prefix[..], name.as_bytes()].concat().into(),
            written: Revision::UNKNOWN,
            lease,
        })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Marker>> {
        self.free
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// The pauses after conflicts, without end: random below a bound that doubles. Each conflict is
/// somebody else's success, so that they need not be long.
pub(super) fn conflict_pauses() -> impl Iterator<Item = Duration> + Send {
    let bounds = std::iter::successors(Some(PAUSE_MIN), |bound| Some((*bound * 2).min(PAUSE_MAX)));
    bounds.map(|bound| bound.mul_f64(fastrand::f64()))
}

/// Where what belongs to `name` is kept that is not for those who read behind `name`: etcd's recipes
/// put such things there too.
pub(super) fn aside(name: &[u8], rest: &str) -> Bytes {
    [b"__", name, b"/", rest.as_bytes()].concat().into()
}

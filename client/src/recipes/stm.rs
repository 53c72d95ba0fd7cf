//! Transactions written as a function that reads and writes: it runs, what it has read is compared
//! when it is committed, and if that has changed meanwhile it runs again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::once::{Committed, Once, TTL, aside, conflict_pauses};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::op::Op;
use crate::txn::{Compare, Txn};
use crate::types::{IntoBytes, KeyValue, LeaseId, Revision};

/// How many comparisons, and how many operations, servers allow in one transaction by default.
const OPS_MAX: usize = 128;

/// What others may have done between the reads and the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// Neither what was read nor what is written was changed by others since the first read: as if
    /// all had happened at one moment, and nothing is overwritten that was not seen.
    #[default]
    SerializableSnapshot,
    /// What was read was not changed since: as if all had happened at one moment. What is only
    /// written may overwrite what somebody has just written.
    Serializable,
}

/// A transaction as a function: settings, then [`Stm::run`].
#[derive(Debug, Clone)]
pub struct Stm {
    client: Client,
    isolation: Isolation,
    ops_max: usize,
    once: Option<Arc<Once>>,
}

/// What the function reads and writes with. All reads are of one revision, that of the first; writes
/// are seen by later reads, and by others once it is committed. Clones are the same transaction.
#[derive(Debug, Clone)]
pub struct StmTxn {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    ops_max: usize,
    view: Mutex<View>,
    /// Held by the first read from the server, which says at which revision the others are.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct View {
    /// The revision of all reads; unknown before the first.
    at: Revision,
    reads: BTreeMap<Bytes, Option<KeyValue>>,
    writes: BTreeMap<Bytes, Write>,
    /// The revision cannot be read any more, or not yet: it must begin anew.
    is_void: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Put(Bytes, Option<LeaseId>),
    Delete,
}

/// Whether the function has read or written a key before, and what it holds then.
enum Known {
    Yes(Option<Bytes>),
    No,
}

impl Stm {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            isolation: Isolation::default(),
            ops_max: OPS_MAX,
            once: None,
        }
    }

    /// Default: [`Isolation::SerializableSnapshot`].
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How many keys it may read and write: servers refuse larger transactions. Default: 128, as
    /// the servers' own (`--max-txn-ops`).
    #[must_use]
    pub fn ops_max(mut self, ops: usize) -> Self {
        self.ops_max = ops;
        self
    }

    /// A commit whose answer is lost is looked for, not left unknown: a key `__<name>/…`, which
    /// goes with a lease of this handle, tells whether it took place. It counts as one more key.
    /// Default: the outcome is [`Unknown`](crate::Outcome::Unknown) then.
    #[must_use]
    pub fn once(mut self, name: impl IntoBytes) -> Self {
        let prefix = aside(&name.into_bytes(), "once/");
        self.once = Some(Arc::new(Once::new(self.client.clone(), prefix, TTL)));
        self
    }

    /// Runs `change`, again and again until nobody has changed what it has read; what it returned,
    /// and the revision of its commit. One that only reads is done without a commit, and has the
    /// revision that it has read.
    ///
    /// `change` must do nothing but read and write through what it is given: it may run often. If
    /// it returns an error, nothing is written.
    ///
    /// # Errors
    ///
    /// What `change` returns; [`ErrorKind::TooLarge`]: it reads and writes too many keys; else as
    /// any write.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been committed or not, or be committed later.
    pub async fn run<T, E, F>(
        &self,
        mut change: impl FnMut(StmTxn) -> F,
    ) -> Result<(T, Revision), E>
    where
        E: From<Error>,
        F: Future<Output = Result<T, E>>,
    {
        let mut pauses = conflict_pauses();
        loop {
            let txn = StmTxn {
                shared: Arc::new(Shared {
                    client: self.client.clone(),
                    ops_max: self.ops_max - usize::from(self.once.is_some()).min(self.ops_max),
                    view: Mutex::default(),
                    reading: tokio::sync::Mutex::default(),
                }),
            };
            let returned = change(txn.clone()).await;
            let view = std::mem::take(&mut *txn.shared.view());
            // Its errors may come from there, too.
            if !view.is_void {
                let result = returned?;
                if let Some(revision) = self.commit(view).await? {
                    return Ok((result, revision));
                }
            }
            // Somebody else was faster, and goes on; not in step with this one.
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
    }

    /// None: others have changed something meanwhile.
    async fn commit(&self, view: View) -> Result<Option<Revision>, Error> {
        if view.writes.is_empty() {
            return Ok(Some(view.at));
        }
        let mut txn = self.client.txn();
        for (key, read) in &view.reads {
            let seen = read
                .as_ref()
                .map_or(Revision::UNKNOWN, |kv| kv.mod_revision);
            txn = txn.when(Compare::mod_revision(key).eq(seen));
        }
        if self.isolation == Isolation::SerializableSnapshot && view.at != Revision::UNKNOWN {
            let unread = view.writes.keys();
            for key in unread.filter(|key| !view.reads.contains_key(*key)) {
                txn = txn.when(Compare::mod_revision(key).lt(view.at.next()));
            }
        }
        let txn = view
            .writes
            .into_iter()
            .fold(txn, |txn, (key, write)| match write {
                Write::Put(value, Some(lease)) => txn.then(Op::put(key, value).lease(lease)),
                Write::Put(value, None) => txn.then(Op::put(key, value)),
                Write::Delete => txn.then(Op::delete(key)),
            });
        self.send(txn).await
    }

    async fn send(&self, txn: Txn) -> Result<Option<Revision>, Error> {
        if let Some(once) = &self.once {
            return Ok(match once.commit(txn).await? {
                Committed::Done(revision) => Some(revision),
                Committed::Refused(_) => None,
            });
        }
        let committed = txn.await?;
        Ok(committed.succeeded.then_some(committed.revision))
    }
}

impl StmTxn {
    /// What the key holds; none if it is not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`]: it is one key too many. Else as any read. An error that comes from
    /// the revision's being compacted makes [`Stm::run`] begin anew, whatever the function returns.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn get(&self, key: impl IntoBytes) -> Result<Option<Bytes>, Error> {
        let key = key.into_bytes();
        if let Known::Yes(value) = self.shared.known(&key) {
            return Ok(value);
        }
        let turn = self.shared.reading.lock().await;
        if let Known::Yes(value) = self.shared.known(&key) {
            return Ok(value);
        }
        let at = {
            let view = self.shared.view();
            self.shared.check_room(&view, &key)?;
            view.at
        };
        let _turn = (at == Revision::UNKNOWN).then_some(turn);
        let read = self.shared.client.range(&key).at(at).await;
        let mut view = self.shared.view();
        let page = read.inspect_err(|error| {
            view.is_void |= matches!(
                error.kind(),
                ErrorKind::Compacted { .. } | ErrorKind::FutureRevision
            );
        })?;
        if view.at == Revision::UNKNOWN {
            view.at = page.revision;
        }
        // Others may have been read meanwhile.
        self.shared.check_room(&view, &key)?;
        let found = page.kvs.into_iter().next();
        let value = found.as_ref().map(|kv| kv.value.clone());
        view.reads.insert(key, found);
        Ok(value)
    }

    /// Writes the key when it is committed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`]: it is one key too many.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Result<(), Error> {
        let value = value.into_bytes();
        self.write(key.into_bytes(), Write::Put(value, None))
    }

    /// The same, and the key goes when the lease ends.
    ///
    /// # Errors
    ///
    /// As [`StmTxn::put`].
    pub fn put_with_lease(
        &self,
        key: impl IntoBytes,
        value: impl IntoBytes,
        lease: impl Into<LeaseId>,
    ) -> Result<(), Error> {
        let value = value.into_bytes();
        self.write(key.into_bytes(), Write::Put(value, Some(lease.into())))
    }

    /// Deletes the key when it is committed.
    ///
    /// # Errors
    ///
    /// As [`StmTxn::put`].
    pub fn delete(&self, key: impl IntoBytes) -> Result<(), Error> {
        self.write(key.into_bytes(), Write::Delete)
    }

    fn write(&self, key: Bytes, write: Write) -> Result<(), Error> {
        let mut view = self.shared.view();
        self.shared.check_room(&view, &key)?;
        view.writes.insert(key, write);
        Ok(())
    }
}

impl Shared {
    /// What is known of the key without asking: written, or read before.
    fn known(&self, key: &Bytes) -> Known {
        let view = self.view();
        match (view.writes.get(key), view.reads.get(key)) {
            (Some(Write::Put(value, _)), _) => Known::Yes(Some(value.clone())),
            (Some(Write::Delete), _) => Known::Yes(None),
            (None, Some(read)) => Known::Yes(read.as_ref().map(|kv| kv.value.clone())),
            (None, None) => Known::No,
        }
    }

    /// Whether one more key may be read or written.
    fn check_room(&self, view: &View, key: &Bytes) -> Result<(), Error> {
        let others = view
            .writes
            .keys()
            .filter(|key| !view.reads.contains_key(*key));
        let count = view.reads.len() + others.count();
        let is_known = view.reads.contains_key(key) || view.writes.contains_key(key);
        if is_known || count < self.ops_max {
            return Ok(());
        }
        let message = format!("a transaction has at most {} keys", self.ops_max);
        Err(Error::new(ErrorKind::TooLarge, "stm", message))
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

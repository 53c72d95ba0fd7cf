//! One place in a line: a key with a lease, and what becomes of it.
//!
//! Its name, `<lease>-<number>`, is nobody else's, so that a place whose creation nobody has
//! confirmed can be looked for, and one that was given up can be deleted by whoever comes around.

use bytes::Bytes;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Outcome};
use crate::lease::{Lease, Litter, LostReason};
use crate::op::Op;
use crate::txn::{Compare, Txn};
use crate::types::{EventKind, KeyRange, Revision};
use crate::watch::{Overflow, Watch};

/// A place in the line. Dropped, it is given up in the background.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) key: Bytes,
    /// When the key was created; unknown as long as nobody has confirmed that.
    pub(super) revision: Revision,
    /// Of which cluster.
    pub(super) cluster: u64,
    pub(super) lease: Lease,
    /// Whether the lease ends with the place; then the key goes with it.
    owns_lease: bool,
    /// What the key holds, if others may come to have the same key.
    proof: Option<Bytes>,
    is_left: bool,
}

impl Place {
    /// Behind `prefix`; nothing is written.
    pub(super) fn new(client: &Client, prefix: &[u8], lease: Lease, owns_lease: bool) -> Self {
        // Two tasks with one lease are two contenders.
        let number = fastrand::u64(..);
        let name = format!("{}-{number:x}", lease.id());
        Self {
            client: client.clone(),
            key: [prefix, name.as_bytes()].concat().into(),
            revision: Revision::UNKNOWN,
            cluster: 0,
            owns_lease,
            lease,
            proof: None,
            is_left: false,
        }
    }

    /// A key that others may come to have too, which tells by its value whose it is; nothing is
    /// written. The lease is not the place's.
    pub(super) fn shared(client: &Client, key: Bytes, proof: Bytes, lease: Lease) -> Self {
        Self {
            client: client.clone(),
            key,
            revision: Revision::UNKNOWN,
            cluster: 0,
            owns_lease: false,
            lease,
            proof: Some(proof),
            is_left: false,
        }
    }

    /// The condition that it is still there.
    pub(super) fn is_there(&self) -> Compare {
        Compare::create_revision(&self.key).eq(self.revision)
    }

    /// Why the key is not there, as far as can be said.
    pub(super) fn lost_reason(&self) -> LostReason {
        if self.lease.is_held() {
            LostReason::KeyDeleted
        } else {
            LostReason::Gone
        }
    }

    /// What `what` returns, unless the place is lost before.
    pub(super) async fn unless_lost<T>(
        &self,
        call: &'static str,
        own: &mut Option<Watch>,
        what: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            reason = self.lease.lost() => Err(lost(call, reason)),
            reason = gone(&self.client, &self.key, self.revision, own) => Err(lost(call, reason)),
            done = what => done,
        }
    }

    /// Gives the place up: only this one, should the name be somebody else's meanwhile.
    pub(super) async fn leave(self) -> Result<(), Error> {
        self.leave_with([]).await.map(drop)
    }

    /// The same, and does more in the same transaction. False: the place was not there any more, or
    /// an attempt before the last has done it all.
    pub(super) async fn leave_with(
        mut self,
        more: impl IntoIterator<Item = Op>,
    ) -> Result<bool, Error> {
        let txn = self.client.txn().when(self.is_there());
        let txn = txn.then(Op::delete(&self.key)).repeatable();
        let left = more.into_iter().fold(txn, Txn::then).await;
        if left.is_ok() {
            self.is_left = true;
        }
        // Else dropping goes on with it.
        left.map(|left| left.succeeded)
    }

    /// There is nothing to give up.
    pub(super) fn was_never_taken(mut self) {
        self.is_left = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // With a lease of its own the key goes when the lease is dropped.
        if self.is_left || self.owns_lease {
            return;
        }
        if let Ok(keeper) = self.client.keeper() {
            let namespace = self.client.namespace_bytes();
            keeper.clean(Litter {
                key: crate::types::prefixed(namespace, &self.key),
                value: self.proof.clone(),
            });
        }
    }
}

/// What `ask` answers at last: what fails for a passing reason is asked again after the client's
/// pauses, for as long as somebody waits for it.
pub(super) async fn patiently<T, F>(client: &Client, ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pauses = client.transport().pauses();
    loop {
        match ask().await {
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "waiting goes on");
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            }
            answer => return answer,
        }
    }
}

/// The error of somebody who has lost what he had or waited for.
pub(super) fn lost(call: &'static str, reason: LostReason) -> Error {
    Error::new(ErrorKind::Lost, call, reason.text()).outcome_is(Outcome::NotApplied)
}

/// What a write with a lease says when that has ended.
pub(super) fn or_lost(call: &'static str) -> impl Fn(Error) -> Error {
    move |error| match error.kind() {
        ErrorKind::LeaseNotFound => lost(call, LostReason::Gone),
        _ => error,
    }
}

/// Returns when one of the watched keys is deleted.
async fn deleted(watch: &mut Watch) -> Result<(), Error> {
    while let Some(batch) = watch.next().await {
        let events = batch?.events;
        if events.iter().any(|event| event.kind == EventKind::Delete) {
            return Ok(());
        }
    }
    Err(crate::transport::closed("watch"))
}

/// Returns when `key` has been deleted after `seen` (true), or may have been, in a history that
/// nobody has any more (false).
pub(super) async fn deleted_after(
    client: &Client,
    key: &Bytes,
    seen: Revision,
) -> Result<bool, Error> {
    let mut watch = match watch_from(client, key, seen).await {
        Err(error) if is_history_gone(&error) => return Ok(false),
        watch => watch?,
    };
    match deleted(&mut watch).await {
        Ok(()) => Ok(true),
        Err(error) if is_history_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is nothing for it but to look at the present.
pub(super) fn is_history_gone(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Compacted { .. } | ErrorKind::Restored
    )
}

/// Returns when the key that was created at `revision` is gone, or when nobody will tell any more.
pub(super) async fn gone(
    client: &Client,
    key: &Bytes,
    revision: Revision,
    own: &mut Option<Watch>,
) -> LostReason {
    if own.is_none() {
        *own = watch_from(client, key, revision).await.ok();
    }
    loop {
        if let Some(watch) = own {
            match deleted(watch).await {
                Ok(()) => return LostReason::KeyDeleted,
                Err(error) if *error.kind() == ErrorKind::Closed => return LostReason::Closed,
                // It needed history that is gone, or could not be made again. It says so once: if
                // this is dropped now, the next one must not ask it.
                Err(_) => *own = None,
            }
        }
        match watch_again(client, key, revision).await {
            Ok(watch) => *own = Some(watch),
            Err(reason) => return reason,
        }
    }
}

async fn watch_from(client: &Client, key: &Bytes, revision: Revision) -> Result<Watch, Error> {
    let watch = client.watch(key).after(revision).only_deletes();
    watch.without_prev().queue(0, Overflow::LatestOnly).await
}

/// A watch of the key from now on, if it is there; else why not. Tries until somebody answers.
async fn watch_again(
    client: &Client,
    key: &Bytes,
    revision: Revision,
) -> Result<Watch, LostReason> {
    let mut pauses = client.transport().pauses();
    loop {
        let tried = async {
            let page = client.range(KeyRange::key(key)).keys_only().await?;
            if page.kvs.iter().all(|kv| kv.create_revision != revision) {
                return Ok(None);
            }
            watch_from(client, key, page.revision).await.map(Some)
        };
        match tried.await {
            Ok(Some(watch)) => return Ok(watch),
            Ok(None) => return Err(LostReason::KeyDeleted),
            Err(error) if *error.kind() == ErrorKind::Closed => return Err(LostReason::Closed),
            Err(_) => tokio::time::sleep(pauses.next().unwrap_or_default()).await,
        }
    }
}

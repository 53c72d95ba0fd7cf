//! Ends what handles left behind: leases whose last handle is gone, keys of contenders who gave up.
//!
//! Each is a task on the keeper's thread, a bounded number at work at once. Nobody waits for them
//! until the client is closed; then they hurry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::revoke;
use crate::call::{Call, Repeat};
use crate::error::ErrorKind;
use crate::observe::{self, Left};
use crate::op::Op;
use crate::transport::Transport;
use crate::txn::{Compare, TxnOp};
use crate::types::LeaseId;

/// Leases and keys that are ended at the same time; the others wait.
const AT_ONCE_MAX: usize = 64;

/// A key that must go.
#[derive(Debug)]
pub(crate) struct Litter {
    pub(crate) key: Bytes,
    /// Only while it holds this. None: nobody else can have the key.
    pub(crate) value: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct Janitor {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    transport: Arc<Transport>,
    permits: Semaphore,
    /// The client is closed: no pauses that are not needed.
    hurry: CancellationToken,
    /// What failed since then.
    failed: AtomicUsize,
}

/// One thing that has to go. If it is dropped before it is confirmed, as in a panic, it has failed.
struct Duty {
    shared: Arc<Shared>,
    is_done: bool,
}

impl Janitor {
    pub(super) fn new(transport: Arc<Transport>) -> Self {
        let tasks = TaskTracker::new();
        // Waiting for none is possible at any time.
        tasks.close();
        Self {
            shared: Arc::new(Shared {
                transport,
                permits: Semaphore::new(AT_ONCE_MAX),
                hurry: CancellationToken::new(),
                failed: AtomicUsize::new(0),
            }),
            tasks,
        }
    }

    /// Ends a lease.
    pub(super) fn revoke(&self, id: LeaseId) {
        let duty = self.duty();
        self.tasks.spawn(async move {
            let shared = duty.shared.clone();
            let _permit = shared.permits.acquire().await;
            match revoke(&shared.transport, id).await {
                Ok(()) => duty.done(),
                Err(error) => {
                    drop(duty);
                    tracing::warn!(lease = %id, %error, "a lease ends only when its time is up");
                    observe::left_behind(Left::Lease);
                }
            }
        });
    }

    /// Deletes a key however long that takes, unless the client is closed or the server will not
    /// have it.
    pub(super) fn clean(&self, litter: Litter) {
        let duty = self.duty();
        self.tasks.spawn(async move {
            let shared = duty.shared.clone();
            if shared.clean(litter).await {
                duty.done();
            } else {
                drop(duty);
                observe::left_behind(Left::Key);
            }
        });
    }

    fn duty(&self) -> Duty {
        Duty {
            shared: self.shared.clone(),
            is_done: false,
        }
    }

    /// From now on only what is needed is waited for.
    pub(super) fn hurry(&self) {
        self.shared.hurry.cancel();
    }

    /// Returns when nothing is left to do.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn done(&self) {
        self.tasks.wait().await;
    }

    /// How much nobody has confirmed to be gone.
    pub(super) fn undone(&self) -> usize {
        self.tasks.len() + self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Duty {
    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        // Of what failed before, nobody who closes the client has to be told any more.
        if !self.is_done && self.shared.hurry.is_cancelled() {
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Whether it is gone. Twice: the request that creates the key may have been under way when it
    /// was given up, and arrive after the first deletion.
    async fn clean(&self, litter: Litter) -> bool {
        let request = deletion(litter);
        let mut pauses = self.transport.pauses();
        let mut is_second = false;
        loop {
            let permit = self.permits.acquire().await;
            let call = Call::new("delete", Repeat::Safe);
            let deleted = self
                .transport
                .unary(call, request.clone(), move |channel, request| async move {
                    KvClient::new(channel).txn(request).await
                })
                .await;
            drop(permit);
            match deleted {
                Ok(_) if is_second => return true,
                Ok(_) => {
                    is_second = true;
                    let grace = sleep(self.transport.config.deadline);
                    // Once the client is closed, what was under way is cut off, or has arrived.
                    let _ = self.hurry.run_until_cancelled(grace).await;
                }
                Err(error) if error.is_passing() => {
                    tracing::warn!(%error, "a contender's key is still there; trying again");
                    sleep(pauses.next().unwrap_or_default()).await;
                }
                Err(error) => {
                    if *error.kind() != ErrorKind::Closed {
                        tracing::warn!(%error, "a contender's key stays until its lease ends");
                    }
                    return false;
                }
            }
        }
    }
}

fn deletion(Litter { key, value }: Litter) -> pb::TxnRequest {
    let txn = TxnOp::default().then(Op::delete(&key));
    let txn = match value {
        Some(value) => txn.when(Compare::value(&key).eq(value)),
        None => txn,
    };
    // The key is whole already.
    txn.to_wire(&Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gonfalon_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

    #[test]
    fn a_key_that_others_may_have_is_deleted_only_while_it_holds_what_it_held() {
        let key = Bytes::from("k");
        let value = Some(Bytes::from("mine"));
        let shared = deletion(Litter {
            key: key.clone(),
            value,
        });
        let compare = pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Value.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::Value("mine".into())),
            ..pb::Compare::default()
        };
        assert_eq!(shared.compare, [compare]);
        assert_eq!((shared.success.len(), shared.failure.len()), (1, 0));
        let own = deletion(Litter { key, value: None });
        assert_eq!((own.compare, own.success), (vec![], shared.success));
    }
}

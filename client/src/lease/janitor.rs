//! Ends what handles left behind: leases whose last handle is gone, keys of contenders who gave up.
//!
//! Each is a task on the keeper's thread, a bounded number at work at once. Nobody waits for them
//! until the client is closed; then they hurry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::revoke;
use crate::call::{Call, Repeat};
use crate::error::ErrorKind;
use crate::transport::Transport;
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
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let _permit = shared.permits.acquire().await;
            if let Err(error) = revoke(&shared.transport, id).await {
                tracing::warn!(lease = %id, %error, "a lease ends only when its time is up");
                shared.failed();
            }
        });
    }

    /// Deletes a key however long that takes, unless the client is closed.
    pub(super) fn clean(&self, litter: Litter) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move { shared.clean(litter).await });
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

impl Shared {
    /// Twice: the request that creates the key may have been under way when it was given up, and
    /// arrive after the first deletion.
    async fn clean(&self, litter: Litter) {
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
                Ok(_) if is_second => return,
                Ok(_) => {
                    is_second = true;
                    let grace = sleep(self.transport.config.deadline);
                    // Once the client is closed, what was under way is cut off, or has arrived.
                    let _ = self.hurry.run_until_cancelled(grace).await;
                }
                Err(error) if *error.kind() == ErrorKind::Closed => return self.failed(),
                Err(error) => {
                    tracing::warn!(%error, "a contender's key is still there; trying again");
                    sleep(pauses.next().unwrap_or_default()).await;
                }
            }
        }
    }

    fn failed(&self) {
        if self.hurry.is_cancelled() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn deletion(Litter { key, value }: Litter) -> pb::TxnRequest {
    let compare = value.map(|value| pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::Value(value)),
        ..pb::Compare::default()
    });
    let delete = pb::DeleteRangeRequest {
        key,
        ..pb::DeleteRangeRequest::default()
    };
    let delete = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestDeleteRange(delete)),
    };
    pb::TxnRequest {
        compare: compare.into_iter().collect(),
        success: vec![delete],
        failure: Vec::new(),
    }
}

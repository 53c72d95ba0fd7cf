//! What somebody has, for as long as he has it: a place in a line whose turn has come.
//!
//! [`Holding`] has it, and gives it up when it is dropped. [`Tenure`] only knows of it, and can be
//! given to tasks: that keeps nothing from being given up.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fence::Fence;
use super::place::{Place, gone, lost, or_lost};
use crate::client::Client;
use crate::error::Error;
use crate::lease::{LostReason, Standing};
use crate::op::Op;
use crate::txn::{Compare, Txn};
use crate::types::{LeaseId, Revision};
use crate::watch::Watch;

/// What can be asked of everything that is held.
macro_rules! held {
    ($($tenure:ident).+) => {
        /// For resources outside of the store: higher than the fence of everybody who had it
        /// before, so that they can refuse whoever had it and does not know that he has it no
        /// more.
        pub fn fence(&self) -> $crate::Fence {
            self.$($tenure).+.fence()
        }

        /// The key that stands for it.
        pub fn key(&self) -> &bytes::Bytes {
            self.$($tenure).+.key()
        }

        /// Whether it is surely held, as of now: its lease has not ended and nobody is known to
        /// have deleted its key. A moment later that may be otherwise: this protects nothing by
        /// itself.
        pub fn is_held(&self) -> bool {
            self.$($tenure).+.lost_reason().is_none()
        }

        /// Returns when it is lost, and why.
        ///
        /// # Cancel safety
        ///
        /// Safe.
        pub async fn lost(&self) -> $crate::LostReason {
            self.$($tenure).+.lost().await
        }

        /// Cancelled when it is lost.
        pub fn token(&self) -> tokio_util::sync::CancellationToken {
            self.$($tenure).+.token()
        }

        /// A transaction that takes place only while it is held: add operations, await it, and
        /// look at [`TxnResult::succeeded`](crate::TxnResult::succeeded). The server compares, so
        /// this is safe however late it arrives.
        pub fn txn(&self) -> $crate::Txn {
            self.$($tenure).+.txn()
        }
    };
}
pub(super) use held;

/// What every guard's documentation says.
macro_rules! fencing {
    () => {
        "# What it protects\n\n\
         Writes through its `txn`, and nothing else by itself: the process may be stopped, by its \
         scheduler or its hypervisor, for longer than the lease between a look at `is_held` and \
         what follows, and then somebody else has it. A resource outside of the store must be \
         given `fence` and must refuse what is lower than it has seen."
    };
}
pub(super) use fencing;

/// A guard that is released.
macro_rules! guard {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[doc = ""]
        #[doc = $crate::recipes::hold::fencing!()]
        #[derive(Debug)]
        #[must_use = "dropped, it is released"]
        pub struct $name {
            holding: $crate::recipes::hold::Holding,
        }

        impl $name {
            $crate::recipes::hold::held!(holding.tenure);

            /// Releases it; returns when the next one can have it.
            ///
            /// # Errors
            ///
            /// As any call; then it is released in the background.
            ///
            /// # Cancel safety
            ///
            /// Safe: dropped, it is released in the background.
            pub async fn release(self) -> Result<(), $crate::Error> {
                self.holding.release().await
            }
        }

        impl From<$crate::recipes::hold::Holding> for $name {
            fn from(holding: $crate::recipes::hold::Holding) -> Self {
                Self { holding }
            }
        }
    };
}
pub(super) use guard;

/// What is known of something that is held. Clones are of the same.
#[derive(Debug, Clone)]
pub(super) struct Tenure {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    key: Bytes,
    fence: Fence,
    lease: Standing,
    lost: OnceLock<LostReason>,
    token: CancellationToken,
}

/// Something that is held. Dropped, it is given up in the background.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) tenure: Tenure,
    place: Place,
    watching: Watching,
}

/// Whoever knows of it is told when this is dropped.
#[derive(Debug)]
struct Watching {
    tenure: Tenure,
    _stop: DropGuard,
}

impl Tenure {
    pub(super) fn key(&self) -> &Bytes {
        &self.inner.key
    }

    pub(super) fn fence(&self) -> Fence {
        self.inner.fence
    }

    /// Why it is not held any more, as of now.
    pub(super) fn lost_reason(&self) -> Option<LostReason> {
        if let Some(reason) = self.inner.lease.lost_reason() {
            self.lose(reason);
        }
        self.inner.lost.get().copied()
    }

    pub(super) async fn lost(&self) -> LostReason {
        self.inner.token.cancelled().await;
        self.lost_reason()
            .expect("the token is cancelled by losing alone")
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.inner.token.child_token()
    }

    pub(super) fn txn(&self) -> Txn {
        self.inner.client.txn().when(self.is_there())
    }

    /// The condition that it is still held.
    pub(super) fn is_there(&self) -> Compare {
        Compare::create_revision(self.key()).eq(self.inner.fence.revision())
    }

    /// The first reason counts.
    pub(super) fn lose(&self, reason: LostReason) {
        if self.inner.lost.set(reason).is_ok() {
            self.inner.token.cancel();
        }
    }

    /// Writes the key's value.
    pub(super) async fn write(&self, call: &'static str, value: Bytes) -> Result<Revision, Error> {
        let lease: LeaseId = self.inner.lease.id();
        let put = Op::put(self.key(), value).lease(lease);
        let written = self.txn().then(put).await.map_err(or_lost(call))?;
        if written.succeeded {
            return Ok(written.revision);
        }
        self.lose(LostReason::KeyDeleted);
        Err(lost(call, LostReason::KeyDeleted))
    }
}

impl Holding {
    /// `place`'s turn has come: keeps an eye on it, through `own` if there is a watch already.
    pub(super) fn new(place: Place, mut own: Option<Watch>) -> Self {
        let tenure = Tenure {
            inner: Arc::new(Inner {
                client: place.client.clone(),
                key: place.key.clone(),
                fence: Fence::new(place.cluster, place.revision),
                lease: place.lease.standing(),
                lost: OnceLock::new(),
                token: CancellationToken::new(),
            }),
        };
        let stop = CancellationToken::new();
        let told = tenure.clone();
        let watching = async move {
            let inner = &told.inner;
            let reason = tokio::select! {
                biased;
                reason = inner.lease.lost() => reason,
                reason = gone(&inner.client, &inner.key, inner.fence.revision(), &mut own) => reason,
            };
            told.lose(reason);
        };
        let until = stop.clone().run_until_cancelled_owned(watching);
        place.client.transport().spawn(until);
        let watching = Watching {
            tenure: tenure.clone(),
            _stop: stop.drop_guard(),
        };
        Self {
            tenure,
            place,
            watching,
        }
    }

    /// Gives it up; returns when the next one can have it.
    pub(super) async fn release(self) -> Result<(), Error> {
        self.release_with([]).await.map(drop)
    }

    /// The same, and does more in the same transaction: see [`Place::leave_with`].
    pub(super) async fn release_with(
        self,
        more: impl IntoIterator<Item = Op>,
    ) -> Result<bool, Error> {
        // First: nobody here wants to be told of the deletion.
        drop(self.watching);
        self.place.leave_with(more).await
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tenure.lose(LostReason::Revoked);
    }
}

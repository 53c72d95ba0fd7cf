//! What is built of keys, leases and watches: locks, elections, barriers, queues, counters.
//!
//! Whatever is held is a place in a line (`line.rs`, `place.rs`): every contender puts a key with
//! its lease behind the same prefix, and those whose keys were created first have it, as many as
//! there may be. What is known of it and how it is given up is the same for all (`hold.rs`). The
//! keys are where etcd's own recipes put theirs, so that users of etcd's libraries and tools wait for
//! ours and ours for theirs.
//!
//! What is counted or put into a queue is written once, also when the answer is lost (`once.rs`).
//!
//! Nobody who holds a lock or leads can know, at the moment of an act outside of the store, that he
//! still does: the process may be stopped for longer than its lease between the check and the act.
//! Writes to the store are safe through [`LockGuard::txn`]; anything else must be given
//! [`LockGuard::fence`] and refuse what is lower than it has seen.

mod barrier;
mod contender;
mod counter;
mod double_barrier;
mod election;
mod fence;
mod hold;
mod items;
mod leading;
mod line;
mod lock;
mod multi_lock;
mod once;
mod place;
mod priority_queue;
mod queue;
mod rw_lock;
mod semaphore;
mod stm;

use crate::client::Client;
use crate::types::IntoBytes;

pub use barrier::Barrier;
pub use contender::Contender;
pub use counter::Counter;
pub use double_barrier::{DoubleBarrier, DoubleBarrierGuard};
pub use election::{Election, Leader, LeaderChanges, LeaderState, Leadership};
pub use fence::Fence;
pub use items::Claim;
pub use leading::{LeaderContext, Led};
pub use lock::{Lock, LockGuard};
pub use multi_lock::{MultiLock, MultiLockGuard};
pub use priority_queue::PriorityQueue;
pub use queue::Queue;
pub use rw_lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use stm::{Isolation, Stm, StmTxn};

impl Client {
    /// A lock: one contender at a time has it.
    pub fn lock(&self, name: impl IntoBytes) -> Lock {
        Lock::new(self.clone(), &name.into_bytes())
    }

    /// A read-write lock: many readers or one writer have it.
    pub fn rw_lock(&self, name: impl IntoBytes) -> RwLock {
        RwLock::new(self.clone(), name.into_bytes())
    }

    /// A semaphore: so many contenders at a time have a permit.
    pub fn semaphore(&self, name: impl IntoBytes, permits: u32) -> Semaphore {
        Semaphore::new(self.clone(), name.into_bytes(), permits)
    }

    /// Several locks as one: all of them or none.
    pub fn multi_lock<N: IntoBytes>(&self, names: impl IntoIterator<Item = N>) -> MultiLock {
        let names = names.into_iter().map(IntoBytes::into_bytes);
        MultiLock::new(self.clone(), names.collect())
    }

    /// An election: one of many leads.
    pub fn election(&self, name: impl IntoBytes) -> Election {
        Election::new(self.clone(), &name.into_bytes())
    }

    /// A barrier: while it is held, others wait in front of it.
    pub fn barrier(&self, name: impl IntoBytes) -> Barrier {
        Barrier::new(self.clone(), name.into_bytes())
    }

    /// A double barrier: so many participants begin together and end together.
    pub fn double_barrier(&self, name: impl IntoBytes, participants: u32) -> DoubleBarrier {
        DoubleBarrier::new(self.clone(), &name.into_bytes(), participants)
    }

    /// A counter: a number that every addition changes exactly once.
    pub fn counter(&self, name: impl IntoBytes) -> Counter {
        Counter::new(self.clone(), name.into_bytes())
    }

    /// A queue: what was put in first comes out first.
    pub fn queue(&self, name: impl IntoBytes) -> Queue {
        Queue::new(self.clone(), name.into_bytes())
    }

    /// A queue with priorities: the smallest number comes out first.
    pub fn priority_queue(&self, name: impl IntoBytes) -> PriorityQueue {
        PriorityQueue::new(self.clone(), name.into_bytes())
    }

    /// A transaction as a function that reads and writes, and runs again if others were faster.
    pub fn stm(&self) -> Stm {
        Stm::new(self.clone())
    }
}

//! Log entries → core → storage → watchers → whoever waits.
//!
//! The order is the promise: a change is in the state's database before a watcher hears of it, and
//! watchers' queues hold it before its writer is answered. Readers find it as soon as it is in
//! memory: it is committed, and on disk in the log of a majority. Entries are applied in groups: one lock,
//! one database batch and one wake-up for all of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use gonfalon_core::command::Batch;
use gonfalon_core::{MemberId, Reply};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::entry::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, RaftTypeConfig};
use tokio::sync::watch;

use super::expire::LeaseClock;
use super::pending::Pending;
use super::shorten::LogSizes;
use super::snapshot::SnapshotDir;
use crate::limits::{APPLY_BYTES_MAX, APPLY_ENTRIES_MAX};
use crate::raft::{LogId, Payload, StoredMembership, TypeConfig};
use crate::store::Store;

/// openraft's state machine: this member's copy of the state, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) origin: MemberId,
    pub(super) store: Arc<Store>,
    pub(super) pending: Arc<Pending>,
    pub(super) leases: Arc<LeaseClock>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) sizes: Arc<LogSizes>,
    /// Whether the node is open. Until then there is no snapshot to offer: what is on disk *is* the
    /// state.
    pub(super) is_open: Arc<AtomicBool>,
}

/// A group of entries on its way into the state.
#[derive(Default)]
struct Group {
    entries: Vec<<TypeConfig as RaftTypeConfig>::Entry>,
    responders: Vec<ApplyResponder<TypeConfig>>,
    bytes: usize,
}

impl Group {
    fn push(&mut self, (entry, responder): EntryResponder<TypeConfig>) {
        if let EntryPayload::Normal(Payload(bytes)) = &entry.payload {
            self.bytes += bytes.len();
        }
        self.entries.push(entry);
        self.responders.extend(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= APPLY_ENTRIES_MAX || self.bytes >= APPLY_BYTES_MAX
    }
}

impl Applier {
    fn apply_group(&self, group: Group) -> io::Result<()> {
        let Some(last) = group.entries.last().map(|entry| entry.log_id) else {
            return Ok(());
        };
        let mut batches = Vec::with_capacity(group.entries.len());
        let mut membership = None;
        for entry in group.entries {
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Payload(bytes)) => {
                    let batch = Batch::decode(bytes).map_err(|error| undecodable(last, &error))?;
                    batches.push(batch);
                }
                EntryPayload::Membership(new) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), new));
                }
            }
        }
        // Memory answers reads: they need not wait for the database.
        let readable = |leases: &[_]| {
            self.leases.applied(leases);
            self.applied.send_replace(last.index);
        };
        let replies = self.store.apply(&batches, last, membership, readable)?;
        self.answer(&batches, replies);
        self.sizes.applied(last.index, group.bytes);
        for responder in group.responders {
            responder.send(());
        }
        Ok(())
    }

    /// Tells this member's own callers.
    fn answer(&self, batches: &[Batch], replies: Vec<Vec<Reply>>) {
        for (batch, replies) in batches.iter().zip(replies) {
            if batch.origin != self.origin {
                continue;
            }
            let answers = self.pending.take(batch.sequence).unwrap_or_default();
            for (answer, reply) in answers.into_iter().zip(replies) {
                // One who has gone away does not want to know.
                let _ = answer.send(Ok(reply));
            }
        }
    }
}

/// A committed entry that this version cannot read: the member must not go on without it.
fn undecodable(near: LogId, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "a committed entry at or before index {} cannot be read: {error}",
            near.index
        ),
    )
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.store.applied_state())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut group = Group::default();
        while let Some(entry) = entries.next().await {
            group.push(entry?);
            if group.is_full() {
                self.apply_group(std::mem::take(&mut group))?;
            }
        }
        self.apply_group(group)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: self.store.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotDir,
    ) -> Result<(), io::Error> {
        let store = self.store.clone();
        let installed = snapshot.clone();
        tokio::task::spawn_blocking(move || store.install(installed.path())).await??;
        let (applied, _) = self.store.applied_state();
        if applied != meta.last_log_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a snapshot of {:?} holds {applied:?}", meta.last_log_id),
            ));
        }
        self.applied.send_replace(applied.map_or(0, |id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotDir>>, io::Error> {
        if !self.is_open.load(Ordering::Acquire) {
            return Ok(None);
        }
        let store = self.store.clone();
        let (applied, membership, dir) =
            tokio::task::spawn_blocking(move || store.checkpoint()).await??;
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: applied,
            last_membership: membership,
        };
        Ok(Some(SnapshotOf::<TypeConfig, _> {
            meta,
            snapshot: dir,
        }))
    }
}

/// Makes everything applied so far durable, so that its log entries are no longer needed.
///
/// The files themselves are only collected when a follower asks for them, by
/// `get_current_snapshot`: a copy kept all the time would pin files that compaction has replaced.
#[derive(Debug)]
pub(super) struct Builder {
    store: Arc<Store>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotDir>, io::Error> {
        let store = self.store.clone();
        let (applied, membership) = tokio::task::spawn_blocking(move || store.flush()).await??;
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: applied,
            last_membership: membership,
        };
        // openraft keeps the meta and drops the data.
        Ok(SnapshotOf::<TypeConfig, _> {
            meta,
            snapshot: SnapshotDir::empty(),
        })
    }
}

//! Queues over ordinary keys: what the lock and election services share.
//!
//! Whoever wants to be first has a key `<name>/<lease in hexadecimal>`; the order in which the keys
//! were created is the queue, and the oldest is first. The layout is that of etcd's recipes, so that
//! clients which bring their own stand in the same queue. A place lasts as long as its key: until it
//! is given up, or until the lease ends.
//!
//! Nothing here polls: who waits watches the key just before its own.

use std::fmt::Write as _;

use bytes::Bytes;
use gonfalon_core::command::{
    Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation, Sort, SortOrder, SortTarget, Txn,
};
use gonfalon_core::{Answer, Command, KeyRange, KeyValue, LeaseId, OpResult, Revision};
use tonic::Status;

use super::status::Refusal;
use super::{Api, lease, status};
use crate::watch::{LocalWatch, WatchError};

/// Seconds of the lease that is granted to a caller without one. Nobody renews it here.
const LEASE_TTL: i64 = 60;

/// Why a call of these services failed. Each goes out with the code `Unknown`, as in etcd, where
/// these services are clients of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Something that the other services refuse too.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The lease ended while its owner was waiting.
    #[error("mutex: session is expired")]
    SessionExpired,
    /// The key is gone, or somebody else's.
    #[error("election: not leader")]
    NotLeader,
    /// Nobody stands for the election.
    #[error("election: no leader")]
    NoLeader,
    /// The request names no leadership.
    #[error("\"leader\" field must be provided")]
    LeaderMissing,
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::unknown(failure.to_string())
    }
}

/// A place in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its key.
    pub(super) key: Bytes,
    /// The key's `create_revision`: the place in the order.
    pub(super) created: Revision,
}

/// A place, and how it was come by.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) place: Place,
    /// The value that the key had already; none if it is new.
    pub(super) value_before: Option<Bytes>,
    /// The store's revision afterwards.
    pub(super) revision: Revision,
}

impl Place {
    /// The queue that `name` stands for: every key below it.
    pub(super) fn queue(name: &[u8]) -> KeyRange {
        KeyRange::prefix([name, b"/"].concat().into())
    }

    fn key(name: &[u8], lease: LeaseId) -> Bytes {
        let mut hex = String::new();
        let sign = if lease.get() < 0 { "-" } else { "" };
        write!(hex, "/{sign}{:x}", lease.get().unsigned_abs()).expect("a string takes everything");
        [name, hex.as_bytes()].concat().into()
    }

    /// Holds while this place is in the queue, and is this one and not a later one with its key.
    pub(super) fn is_held(&self) -> Compare {
        created_at(self.key.clone(), self.created.get())
    }
}

impl Api {
    /// The caller's lease, renewed this once; or a new one, which is the caller's to renew.
    pub(super) async fn session(&self, lease: i64) -> Result<LeaseId, Failure> {
        if lease != 0 {
            let lease = LeaseId::new(lease);
            // One that does not exist shows when a key is put under it.
            self.node
                .lease_keep_alive(lease)
                .await
                .map_err(Refusal::from)?;
            return Ok(lease);
        }
        let id = lease::random_id();
        self.propose(Command::LeaseGrant {
            id,
            ttl: LEASE_TTL.max(self.limits.lease_ttl_min),
        })
        .await?;
        Ok(id)
    }

    /// Takes a place at the end of the queue, or finds the one that the lease has already.
    pub(super) async fn enter(
        &self,
        name: &[u8],
        lease: LeaseId,
        value: Bytes,
    ) -> Result<Entered, Failure> {
        let key = Place::key(name, lease);
        let put = put(key.clone(), value, lease);
        let get = Range::of(KeyRange::single(key.clone()));
        let txn = Txn {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![Op::Put(put)],
            failure: vec![Op::Range(get)],
        };
        let (revision, mut results) = self.transact(txn).await?;
        Ok(match results.pop() {
            Some(OpResult::Range(found)) => {
                let old = found.kvs.into_iter().next().expect("what exists is found");
                let place = Place {
                    key,
                    created: old.create_revision,
                };
                Entered {
                    place,
                    value_before: Some(old.value),
                    revision,
                }
            }
            _ => Entered {
                place: Place {
                    key,
                    created: revision,
                },
                value_before: None,
                revision,
            },
        })
    }

    /// Waits until nobody in `queue` is before `place`.
    ///
    /// What came before was applied before here, so the local state knows everybody who is ahead.
    ///
    /// # Cancel safety
    ///
    /// Safe; the place remains.
    pub(super) async fn wait_turn(&self, queue: &KeyRange, place: &Place) -> Result<(), Failure> {
        let ahead = Range {
            limit: 1,
            max_create_revision: place.created.prev().get(),
            sort: Sort {
                order: SortOrder::Descend,
                target: SortTarget::Create,
            },
            keys_only: true,
            ..Range::of(queue.clone())
        };
        loop {
            let (revision, found) = self.read_range(&ahead)?;
            let Some(before) = found.kvs.into_iter().next() else {
                return Ok(());
            };
            let store = self.node.store();
            let watchers = store.watchers().clone();
            let gone = LocalWatch::deleted(watchers, store.clone(), before.key, revision.next());
            match gone.await {
                // Compacted: it may be gone already. Look again.
                Ok(_) | Err(WatchError::Compacted { .. }) => {}
                Err(WatchError::History(error)) => return Err(status::storage(error).into()),
            }
        }
    }

    /// The store's revision if the place is still held: its lease may end while its owner waits.
    pub(super) fn still_holding(&self, place: &Place) -> Result<Option<Revision>, Failure> {
        let key = Range::of(KeyRange::single(place.key.clone()));
        let (revision, found) = self.read_range(&key)?;
        let is_held = found
            .kvs
            .iter()
            .any(|kv| kv.create_revision == place.created);
        Ok(is_held.then_some(revision))
    }

    /// Leaves the queue; the revision afterwards. Nothing happens if the place is not held.
    pub(super) async fn leave(&self, place: Place) -> Result<Revision, Failure> {
        let delete = DeleteRange {
            range: KeyRange::single(place.key.clone()),
            prev_kv: false,
        };
        let txn = Txn {
            compare: vec![place.is_held()],
            success: vec![Op::DeleteRange(delete)],
            failure: vec![],
        };
        let (revision, _) = self.transact(txn).await?;
        Ok(revision)
    }

    /// The first of a queue, and the store's revision.
    pub(super) fn first_of(
        &self,
        queue: &KeyRange,
    ) -> Result<(Revision, Option<KeyValue>), Failure> {
        let oldest = Range {
            limit: 1,
            sort: Sort {
                order: SortOrder::Ascend,
                target: SortTarget::Create,
            },
            ..Range::of(queue.clone())
        };
        let (revision, found) = self.read_range(&oldest)?;
        Ok((revision, found.kvs.into_iter().next()))
    }

    /// Runs a transaction; the revision afterwards, and what its operations did.
    pub(super) async fn transact(&self, txn: Txn) -> Result<(Revision, Vec<OpResult>), Failure> {
        let command = Command::Txn(txn);
        // etcd sends it as a request of its own, whose size is limited as every client's.
        if command.encoded_len() > self.limits.request_bytes {
            return Err(Refusal::RequestTooLarge.into());
        }
        let (revision, Answer::Txn(answer)) = self.propose(command).await? else {
            unreachable!("a transaction is answered as one");
        };
        Ok((
            revision,
            answer.responses.into_iter().map(|op| op.result).collect(),
        ))
    }
}

/// Gives a place up when it is dropped, unless it was kept: a caller that goes away while it waits
/// must not hold up the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    api: Api,
    place: Option<Place>,
}

impl Waiting {
    pub(super) fn new(api: &Api, place: Place) -> Self {
        Self {
            api: api.clone(),
            place: Some(place),
        }
    }

    /// The place is the caller's from here on.
    pub(super) fn keep(mut self) {
        self.place = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        // Without a runtime the server is gone, and the lease will end the place.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let api = self.api.clone();
        // Ends with its one proposal, whose time is limited.
        runtime.spawn(async move {
            if let Err(failure) = api.leave(place).await {
                tracing::debug!(%failure, "a place in a queue is left to its lease");
            }
        });
    }
}

pub(super) fn put(key: Bytes, value: Bytes, lease: LeaseId) -> Put {
    Put {
        key,
        value,
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

fn created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        range: KeyRange::single(key),
        target: CompareTarget::CreateRevision(revision),
        relation: Relation::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_etcds_recipes_put_them() {
        for (name, lease, key) in [
            ("lock", 0x694d_71dd_f5a1_d40a, "lock/694d71ddf5a1d40a"),
            ("lock/", 1, "lock//1"),
            ("", 255, "/ff"),
            ("n", -255, "n/-ff"),
            ("n", i64::MIN, "n/-8000000000000000"),
        ] {
            assert_eq!(
                Place::key(name.as_bytes(), LeaseId::new(lease)),
                key,
                "{name:?}, {lease}"
            );
        }
        assert!(Place::queue(b"lock").contains(b"lock/694d71ddf5a1d40a"));
        assert!(
            !Place::queue(b"lock").contains(b"lock2/1"),
            "another lock's"
        );
    }

    #[test]
    fn every_failure_is_unknown_and_has_etcds_text() {
        for (failure, text) in [
            (
                Refusal::LeaseNotFound.into(),
                "etcdserver: requested lease not found",
            ),
            (Refusal::EmptyKey.into(), "etcdserver: key is not provided"),
            (Failure::SessionExpired, "mutex: session is expired"),
            (Failure::NotLeader, "election: not leader"),
            (Failure::NoLeader, "election: no leader"),
            (Failure::LeaderMissing, "\"leader\" field must be provided"),
        ] {
            let status = Status::from(failure);
            assert_eq!(
                (status.code(), status.message()),
                (tonic::Code::Unknown, text)
            );
        }
    }
}

//! The whole replicated state, and the only function that changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::command::{AlarmChange, AlarmKind, Command, DeleteRange, Put, Range, Txn};
use crate::lease::{self, Lease, Leases};
use crate::load::Loader;
use crate::mvcc::{Store, Version, Write};
use crate::{
    Answer, Changes, Count, DeleteAnswer, Error, Event, History, HistoryError, KeyRange, LeaseId,
    MemberId, Page, PutAnswer, RangeAnswer, Reply, Revision, TxnAnswer, txn,
};

/// The replicated state of one member.
#[derive(Debug)]
pub struct State {
    keyspace: Keyspace,
    alarms: BTreeSet<(MemberId, AlarmKind)>,
    members: BTreeMap<MemberId, MemberInfo>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    /// Human-readable name.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The empty state, at revision 1.
    pub fn new() -> Self {
        Self::from_parts(Keyspace {
            store: Store::new(),
            leases: Leases::default(),
        })
    }

    /// Rebuilds a state from what storage holds.
    pub fn loader() -> Loader {
        Loader::new()
    }

    pub(crate) fn from_parts(keyspace: Keyspace) -> Self {
        Self {
            keyspace,
            alarms: BTreeSet::new(),
            members: BTreeMap::new(),
        }
    }

    /// Carries out a command; what it changed is added to `changes`.
    ///
    /// A refused command changes nothing. A [`HistoryError`] is fatal for the member: the command
    /// may have been carried out in part.
    pub fn apply(
        &mut self,
        command: &Command,
        history: &dyn History,
        changes: &mut Changes,
    ) -> Result<Reply, HistoryError> {
        let before = (self.revision(), changes.versions.len());
        let result = match self.permits(command) {
            Ok(()) => self.run(command, history, changes)?,
            Err(error) => Err(error),
        };
        let has_written = changes.versions.len() > before.1;
        let expected = if has_written {
            before.0.next()
        } else {
            before.0
        };
        assert_eq!(
            self.revision(),
            expected,
            "one revision for a command that changes keys"
        );
        assert!(
            result.is_ok() || !has_written,
            "a refused command changes nothing"
        );
        Ok(Reply {
            revision: self.revision(),
            result,
        })
    }

    /// Drops recent history from memory until it takes at most about `budget_bytes`; one step of it,
    /// since freeing takes time. Whether there is more to free.
    ///
    /// Every change so far must have been written to where [`History`] reads it from.
    pub fn evict(&mut self, budget_bytes: usize) -> bool {
        self.keyspace.store.evict(budget_bytes)
    }

    /// Reads a range.
    pub fn range(
        &self,
        query: &Range,
        history: &dyn History,
    ) -> Result<Result<RangeAnswer, Error>, HistoryError> {
        self.keyspace.store.range(query, history)
    }

    /// Carries out a transaction that only reads ([`Txn::is_read_only`]).
    pub fn read_txn(
        &self,
        txn: &Txn,
        history: &dyn History,
    ) -> Result<Result<TxnAnswer, Error>, HistoryError> {
        assert!(txn.is_read_only(), "a transaction that writes is applied");
        let branch = txn::resolve(txn, &self.keyspace.store);
        match txn::check(&branch, &self.keyspace) {
            Ok(()) => txn::run_read_only(&branch, &self.keyspace.store, history).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Reads at most `limit` keys of a range at a pinned revision, from key `from` on.
    ///
    /// The work is bounded: a page may be short, or empty, and yet have a next one.
    pub fn page(
        &self,
        range: &KeyRange,
        at: Revision,
        from: Option<&Bytes>,
        limit: usize,
        keys_only: bool,
        history: &dyn History,
    ) -> Result<Result<Page, Error>, HistoryError> {
        self.keyspace
            .store
            .page(range, at, from, limit, keys_only, history)
    }

    /// Counts the keys of a range at a pinned revision, from key `from` on, in parts.
    pub fn count(
        &self,
        range: &KeyRange,
        at: Revision,
        from: Option<&Bytes>,
        history: &dyn History,
    ) -> Result<Result<Count, Error>, HistoryError> {
        self.keyspace.store.count(range, at, from, history)
    }

    /// The changes of revisions `from..=to`, oldest first: whole revisions, and no further one
    /// once there are `limit` changes.
    ///
    /// `prev` of a change is none where the version before is compacted, and may be none otherwise
    /// unless `with_prev` is set. Empty means that nothing happened: `from` is in the future.
    pub fn events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
        history: &dyn History,
    ) -> Result<Result<Vec<Arc<Event>>, Error>, HistoryError> {
        self.keyspace
            .store
            .events(from, to, limit, with_prev, history)
    }

    /// Changes of this revision and of older ones are not in memory: they are read from history.
    pub fn history_floor(&self) -> Revision {
        self.keyspace.store.history_floor()
    }

    /// The revision of the last command that changed a key; 1 if there was none.
    pub fn revision(&self) -> Revision {
        self.keyspace.store.revision()
    }

    /// The revision of the last compaction, the oldest readable one; −1 if there was none.
    pub fn compacted(&self) -> Revision {
        self.keyspace.store.compacted()
    }

    /// How many keys exist.
    pub fn key_count(&self) -> usize {
        self.keyspace.store.key_count()
    }

    pub(crate) fn present_keys(&self, range: &KeyRange) -> usize {
        self.keyspace.store.present_keys(range)
    }

    /// About how much memory the newest versions of all keys take.
    pub fn key_bytes(&self) -> usize {
        self.keyspace.store.key_bytes()
    }

    /// About how much memory recent history takes, as [`State::evict`] measures it.
    pub fn recent_bytes(&self) -> usize {
        self.keyspace.store.recent_bytes()
    }

    /// A lease, if it exists.
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.keyspace.leases.get(id)
    }

    /// All leases, by id.
    pub fn leases(&self) -> impl ExactSizeIterator<Item = (LeaseId, &Lease)> {
        self.keyspace.leases.iter()
    }

    /// The alarms that are raised.
    pub fn alarms(&self) -> impl ExactSizeIterator<Item = (MemberId, AlarmKind)> {
        self.alarms.iter().copied()
    }

    /// What members have published of themselves.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (MemberId, &MemberInfo)> {
        self.members.iter().map(|(id, info)| (*id, info))
    }

    /// Asserts every invariant. Slow: for tests.
    pub fn check(&self) {
        let Keyspace { store, leases } = &self.keyspace;
        store.check();
        leases.check(
            store
                .iter()
                .filter(|version| !version.lease().is_none())
                .map(|version| (version.key(), version.lease())),
        );
    }

    /// Whether the alarms allow a command.
    fn permits(&self, command: &Command) -> Result<(), Error> {
        let (needs_space, is_change) = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => (true, true),
            Command::Txn(txn) => (txn.has_put(), true),
            Command::DeleteRange(_) | Command::Compact { .. } | Command::LeaseRevoke { .. } => {
                (false, true)
            }
            Command::Alarm(_) | Command::PublishMember { .. } => (false, false),
        };
        let is_raised = |kind| self.alarms.iter().any(|(_, raised)| *raised == kind);
        if is_change && is_raised(AlarmKind::Corrupt) {
            return Err(Error::Corrupt);
        }
        if needs_space && is_raised(AlarmKind::NoSpace) {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    fn run(
        &mut self,
        command: &Command,
        history: &dyn History,
        changes: &mut Changes,
    ) -> Result<Result<Answer, Error>, HistoryError> {
        let keyspace = &mut self.keyspace;
        Ok(match command {
            Command::Put(put) => check_key(put)
                .and_then(|()| keyspace.check_lease(put))
                .and_then(|()| keyspace.check_kept(put))
                .map(|()| Answer::Put(keyspace.put(&mut Write::new(changes), put))),
            Command::DeleteRange(delete) => {
                let answer = keyspace.delete(&mut Write::new(changes), delete);
                Ok(Answer::DeleteRange(answer))
            }
            Command::Txn(txn) => {
                let branch = txn::resolve(txn, &keyspace.store);
                match txn::check(&branch, keyspace) {
                    Ok(()) => {
                        let mut write = Write::new(changes);
                        Ok(Answer::Txn(txn::run(
                            &branch, keyspace, &mut write, history,
                        )?))
                    }
                    Err(error) => Err(error),
                }
            }
            Command::Compact { revision } => keyspace.store.compact(*revision).map(|()| {
                changes.compacted = Some(*revision);
                Answer::Done
            }),
            Command::LeaseGrant { id, ttl } => keyspace.grant(*id, *ttl, changes),
            Command::LeaseRevoke { id } => keyspace.revoke(*id, changes),
            Command::Alarm(change) => Ok(Answer::Alarms(self.alarm(change, changes))),
            Command::PublishMember {
                id,
                name,
                client_urls,
            } => {
                let info = MemberInfo {
                    name: name.clone(),
                    client_urls: client_urls.clone(),
                };
                self.members.insert(*id, info);
                changes.members = true;
                Ok(Answer::Done)
            }
        })
    }

    /// Raises or clears alarms; returns those raised (even if they were already) or cleared.
    fn alarm(&mut self, change: &AlarmChange, changes: &mut Changes) -> Vec<(MemberId, AlarmKind)> {
        let alarm = (change.member, change.kind);
        if change.activate {
            changes.alarms |= self.alarms.insert(alarm);
            return vec![alarm];
        }
        let was_raised = self.alarms.remove(&alarm);
        changes.alarms |= was_raised;
        if was_raised { vec![alarm] } else { Vec::new() }
    }

    pub(crate) fn restore_alarm(&mut self, member: MemberId, kind: AlarmKind) {
        self.alarms.insert((member, kind));
    }

    pub(crate) fn restore_member(&mut self, id: MemberId, info: MemberInfo) {
        self.members.insert(id, info);
    }
}

/// Whether a put has a key.
pub(crate) fn check_key(put: &Put) -> Result<(), Error> {
    if put.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    Ok(())
}

/// The keys and the leases that they are attached to, which change together.
#[derive(Debug)]
pub(crate) struct Keyspace {
    pub(crate) store: Store,
    pub(crate) leases: Leases,
}

impl Keyspace {
    /// Whether what a put wants to keep is there.
    pub(crate) fn check_kept(&self, put: &Put) -> Result<(), Error> {
        if (put.ignore_value || put.ignore_lease) && self.store.get(&put.key).is_none() {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    /// Whether the lease of a put is there.
    pub(crate) fn check_lease(&self, put: &Put) -> Result<(), Error> {
        if !put.lease.is_none() && !self.leases.contains(put.lease) {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    /// Does a put that has passed both checks.
    pub(crate) fn put(&mut self, write: &mut Write<'_>, put: &Put) -> PutAnswer {
        // A transaction is checked before it begins, and may then have deleted the key itself;
        // what is to be kept is then empty.
        let kept = if put.ignore_value || put.ignore_lease {
            self.store.get(&put.key)
        } else {
            None
        };
        let kept = kept.cloned();
        let value = match &kept {
            Some(version) if put.ignore_value => version.value(),
            _ => &put.value,
        };
        let lease = match &kept {
            Some(version) if put.ignore_lease => version.lease(),
            _ => put.lease,
        };
        let old = self.store.put(write, &put.key, value, lease);
        let lease_before = old.as_ref().map_or(LeaseId::NONE, Version::lease);
        self.leases.moved(&put.key, lease_before, lease);
        PutAnswer {
            prev: old.filter(|_| put.prev_kv).map(|old| old.to_kv()),
        }
    }

    /// Deletes the keys of a range.
    pub(crate) fn delete(&mut self, write: &mut Write<'_>, delete: &DeleteRange) -> DeleteAnswer {
        let versions: Vec<Version> = self.store.current(&delete.range).cloned().collect();
        for version in &versions {
            self.delete_key(write, version.key());
        }
        let prev = if delete.prev_kv {
            versions.iter().map(Version::to_kv).collect()
        } else {
            Vec::new()
        };
        DeleteAnswer {
            deleted: versions.len(),
            prev,
        }
    }

    fn delete_key(&mut self, write: &mut Write<'_>, key: &[u8]) {
        let old = self.store.delete(write, key);
        let old = old.expect("only keys that were found are deleted");
        self.leases.moved(key, old.lease(), LeaseId::NONE);
    }

    fn grant(&mut self, id: LeaseId, ttl: i64, changes: &mut Changes) -> Result<Answer, Error> {
        if id.is_none() {
            return Err(Error::LeaseNotFound);
        }
        // Not before the command is in its order, as in etcd: an alarm is the better reason.
        if ttl > lease::TTL_MAX {
            return Err(Error::LeaseTtlTooLarge);
        }
        if ttl <= 0 {
            return Err(Error::LeaseTtlNotPositive);
        }
        if self.leases.contains(id) {
            return Err(Error::LeaseExists);
        }
        self.leases.grant(id, ttl);
        changes.leases.push((id, Some(ttl)));
        Ok(Answer::LeaseGrant { id, ttl })
    }

    /// Ends a lease and deletes its keys, in key order, at one revision.
    fn revoke(&mut self, id: LeaseId, changes: &mut Changes) -> Result<Answer, Error> {
        let lease = self.leases.revoke(id).ok_or(Error::LeaseNotFound)?;
        changes.leases.push((id, None));
        let mut write = Write::new(changes);
        for key in lease.keys() {
            self.delete_key(&mut write, key);
        }
        Ok(Answer::Done)
    }
}

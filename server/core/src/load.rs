//! Building a [`State`] from what storage holds.

use crate::command::AlarmKind;
use crate::lease::Leases;
use crate::mvcc::{Keys, Meta, Store, Tombstones, Version};
use crate::state::Keyspace;
use crate::{LeaseId, MemberId, MemberInfo, Revision, State};
use bytes::Bytes;

/// Takes the parts of a [`State`], keys in ascending order, the rest in any.
///
/// Only the newest version of each key is needed: older ones stay in storage.
#[derive(Debug)]
pub struct Loader {
    revision: Revision,
    compacted: Revision,
    keys: Keys,
    tombstones: Tombstones,
    last_key: Vec<u8>,
    leases: Leases,
    alarms: Vec<(MemberId, AlarmKind)>,
    members: Vec<(MemberId, MemberInfo)>,
}

/// The newest version of a key that exists, as storage has it.
#[derive(Debug, Clone, Copy)]
pub struct LoadedVersion<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Revision of the put that created the key.
    pub create_revision: Revision,
    /// Revision of the put that made this version.
    pub mod_revision: Revision,
    /// Which change of `mod_revision` made it ([`crate::Written::sub`]).
    pub sub: u32,
    /// 1 for the put that created the key, then 2, 3, …
    pub version: i64,
    /// The lease that the key belongs to, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// What storage holds does not make a state: it is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored state is damaged: {0}")]
pub struct LoadError(String);

impl Loader {
    pub(crate) fn new() -> Self {
        Self {
            revision: Revision::FIRST,
            compacted: Revision::new(-1),
            keys: Keys::default(),
            tombstones: Tombstones::default(),
            last_key: Vec::new(),
            leases: Leases::default(),
            alarms: Vec::new(),
            members: Vec::new(),
        }
    }

    /// The store's revision, and that of the last compaction, if there was one.
    ///
    /// To be called first.
    pub fn revision(&mut self, revision: Revision, compacted: Option<Revision>) {
        self.revision = revision;
        if let Some(compacted) = compacted {
            self.compacted = compacted;
        }
    }

    /// The newest version of the next key, if it is a put.
    pub fn version(&mut self, version: &LoadedVersion<'_>) -> Result<(), LoadError> {
        self.next_key(version.key, version.mod_revision)?;
        if version.create_revision > version.mod_revision || version.version < 1 {
            return Err(damaged("a version before its creation", version.key));
        }
        if !version.lease.is_none() {
            if !self.leases.contains(version.lease) {
                return Err(damaged("a lease that does not exist", version.key));
            }
            self.leases.moved(version.key, LeaseId::NONE, version.lease);
        }
        let meta = Meta {
            create_revision: version.create_revision,
            mod_revision: version.mod_revision,
            version: version.version,
            lease: version.lease,
            sub: version.sub,
        };
        self.keys
            .push(Version::new(version.key, version.value, meta));
        Ok(())
    }

    /// The newest version of the next key, if it is a deletion.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision, sub: u32) -> Result<(), LoadError> {
        self.next_key(key, revision)?;
        if revision > self.compacted {
            self.tombstones
                .insert(Bytes::copy_from_slice(key), (revision, sub));
        }
        Ok(())
    }

    /// A lease; all of them come before the first version.
    pub fn lease(&mut self, id: LeaseId, ttl: i64) -> Result<(), LoadError> {
        if id.is_none() || self.leases.contains(id) {
            return Err(LoadError(format!("{id:?} is stored twice or has no id")));
        }
        self.leases.grant(id, ttl);
        Ok(())
    }

    /// An alarm that is raised.
    pub fn alarm(&mut self, member: MemberId, kind: AlarmKind) {
        self.alarms.push((member, kind));
    }

    /// What a member has published.
    pub fn member(&mut self, id: MemberId, info: MemberInfo) {
        self.members.push((id, info));
    }

    /// Builds the state.
    pub fn finish(self) -> Result<State, LoadError> {
        if self.compacted > self.revision || self.revision < Revision::FIRST {
            let (revision, compacted) = (self.revision, self.compacted);
            return Err(LoadError(format!(
                "revision {revision}, compacted at {compacted}"
            )));
        }
        let store = Store::from_parts(self.revision, self.compacted, self.keys, self.tombstones);
        let mut state = State::from_parts(Keyspace {
            store,
            leases: self.leases,
        });
        for (member, kind) in self.alarms {
            state.restore_alarm(member, kind);
        }
        for (id, info) in self.members {
            state.restore_member(id, info);
        }
        Ok(state)
    }

    fn next_key(&mut self, key: &[u8], revision: Revision) -> Result<(), LoadError> {
        if key <= self.last_key.as_slice() {
            return Err(damaged("a key out of order", key));
        }
        if revision > self.revision || revision <= Revision::FIRST {
            return Err(damaged("a version outside the history of the store", key));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }
}

fn damaged(what: &str, key: &[u8]) -> LoadError {
    LoadError(format!(
        "{what}, at key {:?}",
        key.escape_ascii().to_string()
    ))
}

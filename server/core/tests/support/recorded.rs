//! Storage as the core sees it: what was handed out in [`Changes`], and what can be read back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gonfalon_core::command::AlarmKind;
use gonfalon_core::{
    Changes, Event, EventKind, History, HistoryError, KeyValue, LeaseId, LoadedVersion, MemberId,
    MemberInfo, Revision, RevisionEvents, State,
};

/// Everything that was written, less what compaction has swept.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    revision: Revision,
    compacted: Option<Revision>,
    /// Per key its puts (`Some`) and deletions by revision and change.
    versions: BTreeMap<Bytes, BTreeMap<(Revision, u32), Option<KeyValue>>>,
    leases: BTreeMap<LeaseId, i64>,
    alarms: BTreeSet<(MemberId, AlarmKind)>,
    members: BTreeMap<MemberId, MemberInfo>,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            revision: Revision::FIRST,
            compacted: None,
            versions: BTreeMap::new(),
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            members: BTreeMap::new(),
        }
    }
}

impl Recorded {
    /// Writes a batch. `state` is the one that handed it out.
    pub(crate) fn write(&mut self, state: &State, changes: &mut Changes) {
        let changes = std::mem::take(changes);
        for written in changes.versions {
            let kv = &written.event.kv;
            let of_key = self.versions.entry(kv.key.clone()).or_default();
            let newest = of_key
                .iter()
                .next_back()
                .filter(|(_, version)| version.is_some());
            assert_eq!(
                written.previous,
                newest.map(|(at, _)| *at),
                "the version before {kv:?}"
            );
            let version = (written.event.kind == EventKind::Put).then(|| kv.clone());
            let before = of_key.insert((kv.mod_revision, written.sub), version);
            assert_eq!(before, None, "a change of {kv:?} was written twice");
            self.revision = kv.mod_revision;
        }
        for (id, ttl) in changes.leases {
            match ttl {
                Some(ttl) => assert_eq!(self.leases.insert(id, ttl), None, "{id:?} granted twice"),
                None => assert!(self.leases.remove(&id).is_some(), "{id:?} revoked twice"),
            }
        }
        if changes.alarms {
            self.alarms = state.alarms().collect();
        }
        if changes.members {
            self.members = state
                .members()
                .map(|(id, info)| (id, info.clone()))
                .collect();
        }
        if changes.compacted.is_some() {
            self.compacted = changes.compacted;
        }
        assert_eq!(self.revision, state.revision(), "everything was handed out");
    }

    /// Drops what nobody may read any more.
    pub(crate) fn sweep(&mut self) {
        let Some(compacted) = self.compacted else {
            return;
        };
        for of_key in self.versions.values_mut() {
            let newest = of_key.range(..=(compacted, u32::MAX)).next_back();
            let Some((newest, is_put)) = newest.map(|(at, kv)| (*at, kv.is_some())) else {
                continue;
            };
            let is_kept =
                |at: (Revision, u32)| at > newest || at == newest && (is_put || at.0 == compacted);
            of_key.retain(|at, _| is_kept(*at));
        }
        self.versions.retain(|_, of_key| !of_key.is_empty());
    }

    /// A state from what was written.
    pub(crate) fn load(&self) -> State {
        let mut loader = State::loader();
        loader.revision(self.revision, self.compacted);
        for (id, ttl) in &self.leases {
            loader.lease(*id, *ttl).unwrap();
        }
        for (key, of_key) in &self.versions {
            let ((revision, sub), version) = of_key.iter().next_back().unwrap();
            let Some(kv) = version else {
                loader.tombstone(key, *revision, *sub).unwrap();
                continue;
            };
            let version = LoadedVersion {
                key,
                value: &kv.value,
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
                sub: *sub,
                version: kv.version,
                lease: kv.lease,
            };
            loader.version(&version).unwrap();
        }
        for (member, kind) in &self.alarms {
            loader.alarm(*member, *kind);
        }
        for (id, info) in &self.members {
            loader.member(*id, info.clone());
        }
        loader.finish().unwrap()
    }
}

impl History for Recorded {
    fn version_at(&self, key: &[u8], at: Revision) -> Result<Option<KeyValue>, HistoryError> {
        assert!(
            self.compacted.is_none_or(|compacted| at >= compacted),
            "{at} is compacted"
        );
        let newest = |of_key: &BTreeMap<_, Option<KeyValue>>| {
            of_key
                .range(..=(at, u32::MAX))
                .next_back()
                .and_then(|(_, version)| version.clone())
        };
        Ok(self.versions.get(key).and_then(newest))
    }

    fn events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Vec<RevisionEvents>, HistoryError> {
        assert!(to <= self.revision, "{to} has not been written");
        let mut changes = BTreeMap::new();
        for (key, of_key) in &self.versions {
            for (at, version) in of_key.range((from, 0)..=(to, u32::MAX)) {
                let deleted = KeyValue {
                    key: key.clone(),
                    mod_revision: at.0,
                    ..KeyValue::default()
                };
                let (kind, kv) = match version {
                    Some(kv) => (EventKind::Put, kv.clone()),
                    None => (EventKind::Delete, deleted),
                };
                let before = of_key.range(..(at.0, 0)).next_back();
                let is_create = kv.create_revision == at.0;
                let prev = before.and_then(|(_, version)| version.clone());
                changes.insert(
                    *at,
                    Event {
                        kind,
                        kv,
                        prev: prev.filter(|_| with_prev && !is_create),
                    },
                );
            }
        }
        let mut batches: Vec<RevisionEvents> = Vec::new();
        for (count, ((revision, _), event)) in changes.into_iter().enumerate() {
            match batches.last_mut() {
                Some(last) if last.revision == revision => last.events.push(event),
                _ if count >= limit => break,
                _ => batches.push(RevisionEvents {
                    revision,
                    events: vec![event],
                }),
            }
        }
        Ok(batches)
    }
}

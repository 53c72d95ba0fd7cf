//! Versions and events that are no longer in memory.

use bytes::Bytes;
use gonfalon_core::{Event, EventKind, History, HistoryError, KeyValue, Revision, RevisionEvents};
use rocksdb::{Direction, IteratorMode};

use super::records::{
    At, VersionRecord, change_key, key_prefix, read_change, read_change_key, read_version,
    split_version_key, version_key,
};
use super::{StateDb, options};

impl History for StateDb {
    fn version_at(&self, key: &[u8], at: Revision) -> Result<Option<KeyValue>, HistoryError> {
        let mut versions = self
            .files
            .db
            .raw_iterator_cf(self.files.family(options::KV));
        // Newest first: the first version at or behind this place is the newest at or below `at`.
        versions.seek(version_key(key, (at, u32::MAX)));
        let found = match versions.item() {
            Some((encoded, record)) => match split_version_key(encoded) {
                Some((prefix, at)) if prefix == key_prefix(key) => version(key, at, record)?,
                Some(_) => None,
                None => return Err(damaged("a version's key")),
            },
            None => None,
        };
        versions.status().map_err(failed)?;
        Ok(found)
    }

    fn events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Vec<RevisionEvents>, HistoryError> {
        // A sweep takes changes away together with their versions: both are read as they are now.
        let now = self.files.db.snapshot();
        let start = change_key((from, 0));
        let changes = now.iterator_cf(
            self.files.family(options::REV),
            IteratorMode::From(&start, Direction::Forward),
        );
        let versions = self.files.family(options::KV);
        let written = |key: &[u8], at: At| {
            let record = now.get_pinned_cf(versions, version_key(key, at));
            let record = record.map_err(failed)?;
            record.map(|record| version(key, at, &record)).transpose()
        };
        let mut revisions: Vec<RevisionEvents> = Vec::new();
        for (count, item) in changes.enumerate() {
            let (at, record) = item.map_err(failed)?;
            let at = read_change_key(&at).ok_or_else(|| damaged("a change's key"))?;
            let is_new = revisions.last().is_none_or(|last| last.revision != at.0);
            if at.0 > to || is_new && count >= limit {
                break;
            }
            if is_new {
                revisions.push(RevisionEvents {
                    revision: at.0,
                    events: Vec::new(),
                });
            }
            let change = read_change(&record).ok_or_else(|| damaged("a change"))?;
            let (kind, key) = (change.kind, change.key);
            let kv = match kind {
                EventKind::Delete => KeyValue {
                    key: Bytes::copy_from_slice(key),
                    mod_revision: at.0,
                    ..KeyValue::default()
                },
                EventKind::Put => written(key, at)?
                    .flatten()
                    .ok_or_else(|| damaged("a change without its version"))?,
            };
            let is_create = kv.create_revision == at.0;
            let prev = match change.previous.filter(|_| with_prev && !is_create) {
                // The same revision has changed the key twice: what it was before that is wanted.
                Some(before) if before.0 == at.0 => self.version_at(key, at.0.prev())?,
                Some(before) => written(key, before)?.flatten(),
                None => None,
            };
            if let Some(last) = revisions.last_mut() {
                last.events.push(Event { kind, kv, prev });
            }
        }
        Ok(revisions)
    }
}

/// A version as readers see it; none for a deletion.
fn version(key: &[u8], at: At, record: &[u8]) -> Result<Option<KeyValue>, HistoryError> {
    match read_version(key, at, record) {
        Some(VersionRecord::Put(version)) => Ok(Some(KeyValue {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(version.value),
            create_revision: version.create_revision,
            mod_revision: version.mod_revision,
            version: version.version,
            lease: version.lease,
        })),
        Some(VersionRecord::Tombstone) => Ok(None),
        None => Err(damaged("a version")),
    }
}

fn failed(error: rocksdb::Error) -> HistoryError {
    HistoryError(error.to_string())
}

fn damaged(what: &str) -> HistoryError {
    HistoryError(format!("{what} was never written"))
}

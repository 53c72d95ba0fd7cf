//! A store that keeps everything and does one thing at a time: what answers are compared with.

use std::collections::BTreeMap;

use crate::history::{Change, Request, Version};

/// Every version of every key, at every revision.
#[derive(Debug)]
pub struct Model {
    /// Oldest first; `None` is a deletion.
    keys: BTreeMap<String, Vec<(i64, Option<Version>)>>,
    /// By revision, in the order in which they were made.
    changes: BTreeMap<i64, Vec<Change>>,
    revision: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            changes: BTreeMap::new(),
            revision: 1,
        }
    }
}

impl Model {
    /// The last revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The version of `key` as it was at `revision`.
    pub fn at(&self, key: &str, revision: i64) -> Option<&Version> {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|(at, _)| *at <= revision);
        versions[..after].last()?.1.as_ref()
    }

    /// The changes of one revision.
    pub fn changes_at(&self, revision: i64) -> &[Change] {
        self.changes.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// What `request` would change at `revision` if it were executed then; nothing if its
    /// expectation does not hold or there is nothing to delete.
    pub fn effect(&self, request: &Request, revision: i64) -> Vec<Change> {
        let before = revision - 1;
        match request {
            Request::Put { key, value } => vec![self.put(key, value, revision)],
            Request::Delete { key } => match self.at(key, before) {
                None => Vec::new(),
                Some(prev) => vec![Change {
                    key: key.clone(),
                    revision,
                    put: None,
                    prev: Some(prev.clone()),
                }],
            },
            Request::Swap { expect, puts } if self.holds(expect, before) => puts
                .iter()
                .map(|(key, value)| self.put(key, value, revision))
                .collect(),
            Request::Read { .. } | Request::Swap { .. } => Vec::new(),
        }
    }

    /// Whether every key has the expected `mod_revision` (0: absent) at `revision`.
    pub fn holds(&self, expect: &[(String, i64)], revision: i64) -> bool {
        expect
            .iter()
            .all(|(key, wanted)| self.at(key, revision).map_or(0, |v| v.modified) == *wanted)
    }

    /// Appends the changes of the next revision.
    pub fn commit(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        for change in &changes {
            let versions = self.keys.entry(change.key.clone()).or_default();
            versions.push((self.revision, change.put.clone()));
        }
        self.changes.insert(self.revision, changes);
    }

    fn put(&self, key: &str, value: &str, revision: i64) -> Change {
        let prev = self.at(key, revision - 1).cloned();
        let put = Version {
            value: value.to_owned(),
            create: prev.as_ref().map_or(revision, |prev| prev.create),
            modified: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
        };
        Change {
            key: key.to_owned(),
            revision,
            put: Some(put),
            prev,
        }
    }
}

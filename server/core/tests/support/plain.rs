//! The model: one whole copy of the map per revision, and the rules read off the specification.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gonfalon_core::command::{
    AlarmKind, Command, Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation, SortOrder,
    SortTarget, Txn,
};
use gonfalon_core::{
    Answer, DeleteAnswer, Error, Event, EventKind, KeyRange, KeyValue, LeaseId, MemberId, OpAnswer,
    OpResult, PutAnswer, RangeAnswer, Reply, Revision, TxnAnswer,
};

type Map = BTreeMap<Bytes, KeyValue>;

/// A store that copies everything at every revision.
#[derive(Debug, Clone)]
pub(crate) struct Plain {
    /// The map at each revision, from 0 on; the last one is the present.
    pub(crate) copies: Vec<Map>,
    /// The changes of each revision.
    pub(crate) events: Vec<Vec<Event>>,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<LeaseId, i64>,
    pub(crate) alarms: BTreeSet<(MemberId, AlarmKind)>,
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            copies: vec![Map::new(); 2],
            events: vec![Vec::new(); 2],
            compacted: -1,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
        }
    }
}

/// A command under way: the map as it has made it, and its changes.
struct Draft {
    map: Map,
    events: Vec<Event>,
}

impl Plain {
    pub(crate) fn revision(&self) -> i64 {
        i64::try_from(self.copies.len()).unwrap() - 1
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        let mut draft = Draft {
            map: self.present().clone(),
            events: Vec::new(),
        };
        let result = match self.alarmed(command) {
            Some(error) => Err(error),
            None => self.run(command, &mut draft),
        };
        if result.is_ok() && !draft.events.is_empty() {
            self.copies.push(draft.map);
            self.events.push(draft.events);
        }
        Reply {
            revision: Revision::new(self.revision()),
            result,
        }
    }

    pub(crate) fn range(&self, query: &Range) -> Result<RangeAnswer, Error> {
        self.check_revision(query)?;
        Ok(self.read(query, self.present()))
    }

    pub(crate) fn read_txn(&self, txn: &Txn) -> Result<TxnAnswer, Error> {
        let mut draft = Draft {
            map: self.present().clone(),
            events: Vec::new(),
        };
        self.check_txn(txn)?;
        Ok(self.run_txn(txn, &mut draft))
    }

    /// The changes from a revision on, as a watch that starts there sees them.
    pub(crate) fn events(&self, from: i64) -> Result<Vec<Event>, Error> {
        if from < self.compacted {
            return Err(Error::Compacted {
                oldest: Revision::new(self.compacted),
            });
        }
        let from = usize::try_from(from.max(0)).unwrap();
        let compacted = usize::try_from(self.compacted).ok();
        let mut events = Vec::new();
        for (at, changes) in self.events.iter().enumerate().skip(from) {
            for (sub, event) in changes.iter().enumerate() {
                // Of what is exactly at the compaction, only each key's last change is left. Which
                // is last is a matter of place: two deletions of a key in one revision are equal.
                let mut later = changes[sub + 1..].iter();
                if Some(at) == compacted && later.any(|other| other.kv.key == event.kv.key) {
                    continue;
                }
                let mut event = event.clone();
                if event.kv.mod_revision.get() - 1 < self.compacted {
                    event.prev = None;
                }
                events.push(event);
            }
        }
        Ok(events)
    }

    fn present(&self) -> &Map {
        self.copies.last().unwrap()
    }

    fn alarmed(&self, command: &Command) -> Option<Error> {
        let raised: BTreeSet<AlarmKind> = self.alarms.iter().map(|(_, kind)| *kind).collect();
        let is_exempt = matches!(command, Command::Alarm(_) | Command::PublishMember { .. });
        let takes_space = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => format!("{txn:?}").contains("Put("),
            _ => false,
        };
        if raised.contains(&AlarmKind::Corrupt) && !is_exempt {
            return Some(Error::Corrupt);
        }
        (raised.contains(&AlarmKind::NoSpace) && takes_space).then_some(Error::NoSpace)
    }

    fn run(&mut self, command: &Command, draft: &mut Draft) -> Result<Answer, Error> {
        Ok(match command {
            Command::Put(put) => {
                self.check_lease(put)?;
                self.check_kept(put)?;
                Answer::Put(self.put(put, draft))
            }
            Command::DeleteRange(delete) => Answer::DeleteRange(self.delete(delete, draft)),
            Command::Txn(txn) => {
                self.check_txn(txn)?;
                Answer::Txn(self.run_txn(txn, draft))
            }
            Command::Compact { revision } => {
                if revision.get() <= self.compacted {
                    return Err(Error::Compacted {
                        oldest: Revision::new(self.compacted),
                    });
                }
                self.check_future(revision.get())?;
                self.compacted = revision.get();
                Answer::Done
            }
            Command::LeaseGrant { id, ttl } => {
                if self.leases.contains_key(id) {
                    return Err(Error::LeaseExists);
                }
                self.leases.insert(*id, *ttl);
                Answer::LeaseGrant { id: *id, ttl: *ttl }
            }
            Command::LeaseRevoke { id } => {
                self.leases.remove(id).ok_or(Error::LeaseNotFound)?;
                let of_lease = |kv: &&KeyValue| kv.lease == *id;
                let keys: Vec<Bytes> = draft
                    .map
                    .values()
                    .filter(of_lease)
                    .map(|kv| kv.key.clone())
                    .collect();
                for key in keys {
                    self.delete_key(&key, draft);
                }
                Answer::Done
            }
            Command::Alarm(change) => {
                let alarm = (change.member, change.kind);
                let is_answered = change.activate || self.alarms.contains(&alarm);
                if change.activate {
                    self.alarms.insert(alarm);
                } else {
                    self.alarms.remove(&alarm);
                }
                Answer::Alarms(is_answered.then_some(alarm).into_iter().collect())
            }
            _ => Answer::Done,
        })
    }

    fn put(&self, put: &Put, draft: &mut Draft) -> PutAnswer {
        let next = Revision::new(self.revision() + 1);
        let old = draft.map.get(&put.key).cloned();
        let mut kv = old.clone().unwrap_or_else(|| KeyValue {
            key: put.key.clone(),
            create_revision: next,
            ..KeyValue::default()
        });
        kv.mod_revision = next;
        kv.version += 1;
        if !(put.ignore_value && old.is_some()) {
            kv.value = put.value.clone();
        }
        if !(put.ignore_lease && old.is_some()) {
            kv.lease = put.lease;
        }
        draft.map.insert(put.key.clone(), kv.clone());
        let is_create = kv.create_revision == next;
        let prev = self.present().get(&put.key).filter(|_| !is_create).cloned();
        draft.events.push(Event {
            kind: EventKind::Put,
            kv,
            prev,
        });
        PutAnswer {
            prev: old.filter(|_| put.prev_kv),
        }
    }

    fn delete(&self, delete: &DeleteRange, draft: &mut Draft) -> DeleteAnswer {
        let found = in_range(&draft.map, &delete.range);
        for kv in &found {
            self.delete_key(&kv.key, draft);
        }
        DeleteAnswer {
            deleted: found.len(),
            prev: if delete.prev_kv { found } else { Vec::new() },
        }
    }

    fn delete_key(&self, key: &Bytes, draft: &mut Draft) {
        draft.map.remove(key).unwrap();
        let mod_revision = Revision::new(self.revision() + 1);
        let kv = KeyValue {
            key: key.clone(),
            mod_revision,
            ..KeyValue::default()
        };
        let prev = self.present().get(key).cloned();
        draft.events.push(Event {
            kind: EventKind::Delete,
            kv,
            prev,
        });
    }

    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [Op]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (
            succeeded,
            if succeeded {
                &txn.success
            } else {
                &txn.failure
            },
        )
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = in_range(self.present(), &compare.range);
        if found.is_empty() {
            let is_value = matches!(compare.target, CompareTarget::Value(_));
            return !is_value && holds_for(compare, &KeyValue::default());
        }
        found.iter().all(|kv| holds_for(compare, kv))
    }

    /// All puts are checked before all reads.
    fn check_txn(&self, txn: &Txn) -> Result<(), Error> {
        let (mut puts, mut reads) = (Vec::new(), Vec::new());
        self.taken(txn, &mut puts, &mut reads);
        for put in puts {
            self.check_kept(put)?;
            self.check_lease(put)?;
        }
        reads
            .into_iter()
            .try_for_each(|read| self.check_revision(read))
    }

    fn taken<'t>(&self, txn: &'t Txn, puts: &mut Vec<&'t Put>, reads: &mut Vec<&'t Range>) {
        for op in self.branch(txn).1 {
            match op {
                Op::Put(put) => puts.push(put),
                Op::Range(range) => reads.push(range),
                Op::DeleteRange(_) => {}
                Op::Txn(txn) => self.taken(txn, puts, reads),
            }
        }
    }

    fn run_txn(&self, txn: &Txn, draft: &mut Draft) -> TxnAnswer {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            let result = match op {
                Op::Range(range) => OpResult::Range(self.read(range, &draft.map)),
                Op::Put(put) => OpResult::Put(self.put(put, draft)),
                Op::DeleteRange(delete) => OpResult::DeleteRange(self.delete(delete, draft)),
                Op::Txn(txn) => OpResult::Txn(self.run_txn(txn, draft)),
            };
            let revision = self.revision() + i64::from(!draft.events.is_empty());
            responses.push(OpAnswer {
                revision: Revision::new(revision),
                result,
            });
        }
        TxnAnswer {
            succeeded,
            responses,
        }
    }

    fn check_lease(&self, put: &Put) -> Result<(), Error> {
        let is_known = put.lease.is_none() || self.leases.contains_key(&put.lease);
        if is_known {
            Ok(())
        } else {
            Err(Error::LeaseNotFound)
        }
    }

    fn check_kept(&self, put: &Put) -> Result<(), Error> {
        let keeps = put.ignore_value || put.ignore_lease;
        let is_missing = !self.present().contains_key(&put.key);
        if keeps && is_missing {
            Err(Error::KeyNotFound)
        } else {
            Ok(())
        }
    }

    fn check_future(&self, revision: i64) -> Result<(), Error> {
        let current = Revision::new(self.revision());
        if revision > self.revision() {
            Err(Error::FutureRevision { current })
        } else {
            Ok(())
        }
    }

    fn check_revision(&self, query: &Range) -> Result<(), Error> {
        let revision = query.revision.map_or(0, Revision::get);
        self.check_future(revision)?;
        if revision != 0 && revision < self.compacted {
            return Err(Error::Compacted {
                oldest: Revision::new(self.compacted),
            });
        }
        Ok(())
    }

    fn read(&self, query: &Range, present: &Map) -> RangeAnswer {
        let copy = match query.revision.map_or(0, Revision::get) {
            at @ 1.. => &self.copies[usize::try_from(at).unwrap()],
            _ => present,
        };
        let mut kvs = in_range(copy, &query.range);
        let count = kvs.len();
        if query.count_only {
            return RangeAnswer {
                count,
                ..RangeAnswer::default()
            };
        }
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        let has_filter = query.min_mod_revision != 0
            || query.max_mod_revision != 0
            || query.min_create_revision != 0
            || query.max_create_revision != 0;
        if query.sort.order == SortOrder::None && !has_filter {
            kvs.truncate(limit.saturating_add(1));
        }
        let at_least = |number: Revision, bound: i64| bound == 0 || number.get() >= bound;
        let at_most = |number: Revision, bound: i64| bound == 0 || number.get() <= bound;
        kvs.retain(|kv| {
            at_least(kv.mod_revision, query.min_mod_revision)
                && at_most(kv.mod_revision, query.max_mod_revision)
                && at_least(kv.create_revision, query.min_create_revision)
                && at_most(kv.create_revision, query.max_create_revision)
        });
        kvs.sort_by(|a, b| {
            let ordering = match query.sort.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if query.sort.order == SortOrder::Descend {
                ordering.reverse()
            } else {
                ordering
            }
        });
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if query.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if query.sort.target != SortTarget::Value {
                    kv.lease = LeaseId::NONE;
                }
            }
        }
        RangeAnswer { kvs, more, count }
    }
}

/// The model's own reading of ranges, apart from the core's ordered maps.
pub(crate) fn in_range(map: &Map, range: &KeyRange) -> Vec<KeyValue> {
    map.values()
        .filter(|kv| range.contains(&kv.key))
        .cloned()
        .collect()
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(given) => kv.version.cmp(given),
        CompareTarget::CreateRevision(given) => kv.create_revision.get().cmp(given),
        CompareTarget::ModRevision(given) => kv.mod_revision.get().cmp(given),
        CompareTarget::Lease(given) => kv.lease.get().cmp(given),
        CompareTarget::Value(given) => kv.value.cmp(given),
        CompareTarget::Unknown => std::cmp::Ordering::Equal,
    };
    match compare.relation {
        Relation::Equal => ordering.is_eq(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
        Relation::Unknown => true,
    }
}

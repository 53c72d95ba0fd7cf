//! A range of keys at one revision, sharing what has not changed with the one before.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use imbl::ordmap::DiffItem;
use imbl::shared_ptr::DefaultSharedPtr;

use super::publish::Revised;
use crate::transport::StoreId;
use crate::types::{Event, EventKind, KeyRange, KeyValue, Revision};

/// A range of keys at one revision; it never changes.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    revision: Revision,
    /// What it was read from; not known of one from disk.
    store: StoreId,
    /// By name, for reads of ranges.
    ordered: imbl::OrdMap<Bytes, Arc<KeyValue>>,
    /// By hash, for reads of single keys: several times as fast.
    index: Index,
}

/// A set; as a map it gives back what it holds. A key of its own would make each entry 48 bytes
/// instead of 16, and nodes have room for 16 entries of which 3 are taken: with 100,000 keys a read
/// would wait for memory more often.
type Index = imbl::GenericHashMap<Named, (), RandomState, DefaultSharedPtr>;

/// A key and its value, found by the key alone.
#[derive(Debug, Clone)]
struct Named(Arc<KeyValue>);

impl Borrow<[u8]> for Named {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Named {}

/// A key that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What it was; none if it was not there.
    pub old: Option<Arc<KeyValue>>,
    /// What it is; none if it is not there any more.
    pub new: Option<Arc<KeyValue>>,
}

impl Change {
    /// Its name.
    pub fn key(&self) -> &Bytes {
        let kv = self.new.as_ref().or(self.old.as_ref());
        &kv.expect("a change has one side at least").key
    }
}

impl Snapshot {
    /// The revision that it shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// One key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Arc<KeyValue>> {
        let found = self.index.get_key_value(key.as_ref());
        found.map(|(Named(kv), ())| kv)
    }

    /// Every key, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KeyValue>> {
        self.ordered.values()
    }

    /// The keys that begin with `prefix`, in order.
    pub fn prefix<'a>(
        &'a self,
        prefix: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> {
        let prefix = prefix.as_ref();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let all = self.ordered.range::<_, [u8]>(from);
        all.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, kv)| kv)
    }

    /// The keys of `range`, in order.
    pub fn range(&self, range: impl Into<KeyRange>) -> impl Iterator<Item = &Arc<KeyValue>> {
        let range = range.into();
        let from = (
            Bound::Included(range.start().as_ref()),
            Bound::<&[u8]>::Unbounded,
        );
        let all = self.ordered.range::<_, [u8]>(from);
        all.take_while(move |(key, _)| range.contains(key))
            .map(|(_, kv)| kv)
    }

    /// What is different from `older`, in the order of the keys. Takes time for what is different,
    /// not for what is the same.
    pub fn changes_since(&self, older: &Self) -> Vec<Change> {
        let changes = older.ordered.diff(&self.ordered).map(|item| match item {
            DiffItem::Add(_, new) => Change {
                old: None,
                new: Some(new.clone()),
            },
            DiffItem::Update { old, new } => Change {
                old: Some(old.1.clone()),
                new: Some(new.1.clone()),
            },
            DiffItem::Remove(_, old) => Change {
                old: Some(old.clone()),
                new: None,
            },
        });
        changes.collect()
    }

    /// The same keys, known to be the same at `revision` too.
    pub(super) fn moved_to(&self, revision: Revision) -> Self {
        Self {
            revision,
            ..self.clone()
        }
    }

    /// The same, read from `store`.
    pub(super) fn of_store(self, store: StoreId) -> Self {
        Self { store, ..self }
    }

    /// What it was read from, as far as is known.
    pub(super) fn store(&self) -> StoreId {
        self.store
    }

    /// The snapshot after `steps`, all of which are later than this one.
    pub(super) fn after(&self, revision: Revision, steps: &[Step]) -> Self {
        let mut new = self.moved_to(revision);
        for step in steps {
            debug_assert!(step.revision > self.revision, "an event comes once");
            if let Some(kv) = &step.kv {
                new.put(kv.clone());
            } else {
                new.ordered.remove(&step.key);
                new.index.remove(step.key.as_ref());
            }
        }
        new
    }

    pub(super) fn put(&mut self, kv: Arc<KeyValue>) {
        self.ordered.insert(kv.key.clone(), kv.clone());
        // In the place of the one that was there: a new pair replaces the whole old one.
        self.index.insert(Named(kv), ());
    }
}

impl Revised for Snapshot {
    fn revision(&self) -> Revision {
        self.revision
    }
}

/// A snapshot that is being read from the store, key by key.
#[derive(Debug)]
pub(super) struct Listing {
    older: Arc<Snapshot>,
    new: Snapshot,
}

impl Listing {
    /// What is the same in `older` will be shared with it.
    pub(super) fn new(older: Arc<Snapshot>) -> Self {
        Self {
            older,
            new: Snapshot::default(),
        }
    }

    pub(super) fn add(&mut self, kv: &KeyValue) {
        let known = self.older.get(&kv.key).filter(|known| ***known == *kv);
        let new = || Arc::new(kv.kept());
        self.new.put(known.cloned().unwrap_or_else(new));
    }

    /// All of it was read, as of `revision`.
    pub(super) fn end(self, revision: Revision) -> Snapshot {
        Snapshot {
            revision,
            ..self.new
        }
    }
}

/// An event, as a snapshot takes it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) revision: Revision,
    key: Bytes,
    /// None: it is deleted.
    kv: Option<Arc<KeyValue>>,
}

impl Step {
    pub(super) fn new(event: Event) -> Self {
        Self {
            revision: event.kv.mod_revision,
            kv: (event.kind == EventKind::Put).then(|| Arc::new(event.kv.kept())),
            key: event.kv.key,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn kv(key: &str, revision: i64) -> KeyValue {
        KeyValue::from_wire(gonfalon_proto::mvccpb::KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            mod_revision: revision,
            ..Default::default()
        })
    }

    fn step(kind: EventKind, key: &str, revision: i64) -> Step {
        Step::new(Event {
            kind,
            kv: kv(key, revision),
            prev: None,
        })
    }

    fn listed(revision: i64, kvs: impl IntoIterator<Item = KeyValue>, older: Snapshot) -> Snapshot {
        let mut listing = Listing::new(Arc::new(older));
        kvs.into_iter().for_each(|kv| listing.add(&kv));
        listing.end(Revision::new(revision))
    }

    fn keys(snapshot: &Snapshot) -> Vec<(&str, i64)> {
        let key = |kv: &Arc<KeyValue>| kv.mod_revision.get();
        snapshot
            .iter()
            .map(|kv| (kv.key_str().unwrap(), key(kv)))
            .collect()
    }

    #[test]
    fn a_snapshot_stays_as_it_was_when_the_next_one_is_made() {
        let first = listed(3, [kv("a", 2), kv("b", 3)], Snapshot::default());
        let steps = [
            step(EventKind::Put, "a", 4),
            step(EventKind::Put, "c", 4),
            step(EventKind::Delete, "b", 5),
        ];
        let second = first.after(Revision::new(5), &steps);
        assert_eq!(keys(&first), [("a", 2), ("b", 3)]);
        assert_eq!(keys(&second), [("a", 4), ("c", 4)]);
        assert_eq!((first.revision().get(), second.revision().get()), (3, 5));
        let changes: Vec<_> = second
            .changes_since(&first)
            .into_iter()
            .map(|change| {
                let at = |kv: Option<Arc<KeyValue>>| kv.map(|kv| kv.mod_revision.get());
                (change.key().clone(), at(change.old), at(change.new))
            })
            .collect();
        assert_eq!(
            changes,
            [
                (Bytes::from("a"), Some(2), Some(4)),
                (Bytes::from("b"), Some(3), None),
                (Bytes::from("c"), None, Some(4)),
            ]
        );
    }

    #[test]
    fn listing_again_shares_what_is_the_same() {
        let first = listed(3, [kv("a", 2)], Snapshot::default());
        let again = listed(9, [kv("a", 2), kv("b", 9)], first.clone());
        assert!(Arc::ptr_eq(
            first.get("a").unwrap(),
            again.get("a").unwrap()
        ));
        assert_eq!(again.changes_since(&first).len(), 1);
    }

    #[test]
    fn prefixes_are_read_in_order() {
        let all = ["a", "b/1", "b/2", "b0", "c"].map(|key| kv(key, 2));
        let snapshot = listed(2, all, Snapshot::default());
        let names: Vec<_> = snapshot
            .prefix("b/")
            .map(|kv| kv.key_str().unwrap())
            .collect();
        assert_eq!(names, ["b/1", "b/2"]);
        assert_eq!(snapshot.prefix("").count(), 5);
        for (range, want) in [
            (KeyRange::prefix("b/"), &["b/1", "b/2"][..]),
            (KeyRange::between("a", "b/2"), &["a", "b/1"]),
            (KeyRange::from("b/2"), &["b/2", "b0", "c"]),
            (KeyRange::key("b0"), &["b0"]),
            (KeyRange::key("b"), &[]),
            (KeyRange::between("c", "a"), &[]),
        ] {
            let named = snapshot.range(range.clone());
            let named: Vec<_> = named.map(|kv| kv.key_str().unwrap()).collect();
            assert_eq!(named, want, "{range:?}");
        }
    }

    /// Model: a plain sorted map.
    #[test]
    fn any_events_lead_to_what_a_plain_map_has() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut snapshot = Snapshot::default();
        let mut model = BTreeMap::new();
        for revision in 2..2000 {
            let key = format!("{:02}", random.u8(0..50));
            let kind = if random.bool() {
                model.insert(key.clone(), revision);
                EventKind::Put
            } else {
                model.remove(&key);
                EventKind::Delete
            };
            let before = snapshot.clone();
            let steps = [step(kind, &key, revision)];
            snapshot = snapshot.after(Revision::new(revision), &steps);
            let wanted: Vec<_> = model.iter().map(|(key, at)| (key.as_str(), *at)).collect();
            assert_eq!(keys(&snapshot), wanted);
            assert_eq!(snapshot.len(), model.len());
            assert_eq!(
                snapshot.get(&key).map(|kv| kv.mod_revision.get()),
                model.get(&key).copied()
            );
            assert!(snapshot.changes_since(&before).len() <= 1);
        }
    }
}

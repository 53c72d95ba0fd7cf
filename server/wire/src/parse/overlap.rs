//! May a transaction run: does it change a key twice in a way that etcd refuses?
//!
//! The rule, for the operations of one branch: a put must not meet another put of its key, nor a
//! deletion that covers it, at this level or within a nested transaction. The two branches of one
//! nested transaction may put the same key: only one of them runs. Three oddities are etcd's, kept
//! because a request that it takes must be taken here:
//! - the deletions of a nested transaction are held only against the puts of *later* ones and of
//!   the level around it;
//! - a deletion without an end (`range_end` `"\0"`) covers no put;
//! - nor does one whose end is not above its start, not even of its start.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use gonfalon_core::command::Op;
use gonfalon_core::{KeyRange, RangeEnd};

use crate::Refusal;

/// Checks one branch of the outermost transaction.
pub(super) fn check(branch: &[Op]) -> Result<(), Refusal> {
    // Most branches are one write, or reads and one write: nothing can meet.
    let writes = branch
        .iter()
        .filter(|op| !matches!(op, Op::Range(_)))
        .count();
    let has_nested = branch.iter().any(|op| matches!(op, Op::Txn(_)));
    if writes < 2 && !has_nested {
        return Ok(());
    }
    Touched::by(branch).map(|_| ())
}

/// What a branch puts and deletes, including the transactions within it.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

impl<'a> Touched<'a> {
    fn by(branch: &'a [Op]) -> Result<Self, Refusal> {
        let mut touched = Self::default();
        for op in branch {
            if let Op::DeleteRange(delete) = op {
                touched.deletes.add(&delete.range);
            }
        }
        for op in branch {
            if let Op::Txn(txn) = op {
                let success = Self::by(&txn.success)?;
                let failure = Self::by(&txn.failure)?;
                // Both are held against what came before this transaction, not against each other.
                touched.refuse_any_of(&success.puts)?;
                touched.refuse_any_of(&failure.puts)?;
                touched.puts.extend(success.puts);
                touched.puts.extend(failure.puts);
                touched.deletes.add_all(success.deletes);
                touched.deletes.add_all(failure.deletes);
            }
        }
        for op in branch {
            if let Op::Put(put) = op {
                touched.refuse(&put.key)?;
                touched.puts.insert(&put.key);
            }
        }
        Ok(touched)
    }

    fn refuse_any_of(&self, keys: &BTreeSet<&[u8]>) -> Result<(), Refusal> {
        keys.iter().try_for_each(|key| self.refuse(key))
    }

    fn refuse(&self, key: &[u8]) -> Result<(), Refusal> {
        if self.puts.contains(key) || self.deletes.cover(key) {
            Err(Refusal::DuplicateKey)
        } else {
            Ok(())
        }
    }
}

/// A set of keys: single ones, and intervals from start (inclusive) to end (exclusive), which are
/// kept apart from each other so that one lookup decides, however many there are.
#[derive(Default)]
struct Deletes<'a> {
    single: BTreeSet<&'a [u8]>,
    intervals: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    fn add(&mut self, range: &'a KeyRange) {
        match &range.end {
            RangeEnd::Single => {
                self.single.insert(&range.start);
            }
            RangeEnd::Before(end) if *end > range.start => self.add_interval(&range.start, end),
            RangeEnd::Before(_) | RangeEnd::Unbounded => {}
        }
    }

    fn add_all(&mut self, other: Self) {
        self.single.extend(other.single);
        for (start, end) in other.intervals {
            self.add_interval(start, end);
        }
    }

    /// Joins the interval with those that it touches.
    fn add_interval(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        while let Some((&before, &before_end)) = self.at_or_before(end)
            && before_end >= start
        {
            start = start.min(before);
            end = end.max(before_end);
            self.intervals.remove(before);
        }
        self.intervals.insert(start, end);
    }

    fn cover(&self, key: &[u8]) -> bool {
        self.single.contains(key) || self.at_or_before(key).is_some_and(|(_, end)| key < *end)
    }

    /// The last interval that starts at or before `key`.
    fn at_or_before(&self, key: &[u8]) -> Option<(&&'a [u8], &&'a [u8])> {
        self.intervals
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
    }
}

#[cfg(test)]
mod tests {
    use gonfalon_core::LeaseId;
    use gonfalon_core::command::{DeleteRange, Put, Txn};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str) -> Op {
        Op::Put(Put {
            key: key.to_owned().into(),
            value: bytes::Bytes::new(),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        })
    }

    fn delete(key: &str, end: &str) -> Op {
        let range = KeyRange::from_wire(key.to_owned().into(), end.to_owned().into());
        Op::DeleteRange(DeleteRange {
            range,
            prev_kv: false,
        })
    }

    fn nested(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Txn {
            compare: vec![],
            success,
            failure,
        })
    }

    #[test]
    fn branches_are_taken_or_refused_as_etcd_does() {
        let refused = [
            vec![put("a"), put("a")],
            vec![put("a"), delete("a", "")],
            vec![delete("a", "c"), put("b")],
            vec![put("a"), nested(vec![put("a")], vec![])],
            vec![put("a"), nested(vec![delete("a", "")], vec![])],
            vec![delete("a", ""), nested(vec![], vec![put("a")])],
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![put("a")], vec![]),
            ],
            vec![
                nested(vec![delete("a", "")], vec![]),
                nested(vec![put("a")], vec![]),
            ],
            vec![nested(
                vec![nested(vec![put("a")], vec![]), put("a")],
                vec![],
            )],
        ];
        let taken = [
            vec![],
            vec![put("a"), put("b")],
            vec![put("c"), delete("a", "c")],
            vec![delete("a", ""), delete("a", "c")],
            vec![nested(vec![put("a")], vec![put("a")])],
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![delete("a", "")], vec![]),
            ],
            vec![delete("a", "\0"), put("b")],
            vec![delete("b", "a"), put("b")],
        ];
        for branch in refused {
            assert_eq!(check(&branch), Err(Refusal::DuplicateKey), "{branch:?}");
        }
        for branch in taken {
            assert_eq!(check(&branch), Ok(()), "{branch:?}");
        }
    }

    /// The rule said once more, slowly: lists, and every pair compared.
    fn naive(branch: &[Op]) -> bool {
        let own_puts: Vec<&Op> = branch
            .iter()
            .filter(|op| matches!(op, Op::Put(_)))
            .collect();
        let own_deletes: Vec<&Op> = branch
            .iter()
            .filter(|op| matches!(op, Op::DeleteRange(_)))
            .collect();
        let children: Vec<&Txn> = branch
            .iter()
            .filter_map(|op| {
                if let Op::Txn(txn) = op {
                    Some(txn)
                } else {
                    None
                }
            })
            .collect();
        let all =
            |txn: &Txn| -> Vec<Op> { leaves(&txn.success).chain(leaves(&txn.failure)).collect() };

        let children_are_fine = children
            .iter()
            .all(|child| naive(&child.success) && naive(&child.failure));
        let own_are_fine = own_puts.iter().enumerate().all(|(at, put)| {
            !own_puts[..at].iter().any(|other| meet(put, other))
                && !own_deletes.iter().any(|other| meet(put, other))
                && !children
                    .iter()
                    .any(|child| all(child).iter().any(|other| meet(put, other)))
        });
        let nested_are_fine = children.iter().enumerate().all(|(at, child)| {
            all(child)
                .iter()
                .filter(|op| matches!(op, Op::Put(_)))
                .all(|put| {
                    !own_deletes.iter().any(|other| meet(put, other))
                        && !children[..at]
                            .iter()
                            .any(|earlier| all(earlier).iter().any(|other| meet(put, other)))
                })
        });
        children_are_fine && own_are_fine && nested_are_fine
    }

    /// The puts and deletions of a branch, those within its transactions included.
    fn leaves(branch: &[Op]) -> Box<dyn Iterator<Item = Op> + '_> {
        Box::new(
            branch
                .iter()
                .flat_map(|op| -> Box<dyn Iterator<Item = Op> + '_> {
                    match op {
                        Op::Txn(txn) => Box::new(leaves(&txn.success).chain(leaves(&txn.failure))),
                        Op::Range(_) => Box::new(std::iter::empty()),
                        leaf => Box::new(std::iter::once(leaf.clone())),
                    }
                }),
        )
    }

    fn meet(put: &Op, other: &Op) -> bool {
        let Op::Put(put) = put else {
            panic!("{put:?} is not a put")
        };
        match other {
            Op::Put(other) => put.key == other.key,
            Op::DeleteRange(delete) => {
                delete.range.end != RangeEnd::Unbounded && delete.range.contains(&put.key)
            }
            Op::Range(_) | Op::Txn(_) => false,
        }
    }

    fn any_branch() -> impl Strategy<Value = Vec<Op>> {
        let leaf = prop_oneof![
            3 => "[a-e]{1,2}".prop_map(|key| put(&key)),
            1 => "[a-e]{1,2}".prop_map(|key| delete(&key, "")),
            2 => ("[a-e]{1,2}", "[a-e]{1,2}").prop_map(|(key, end)| delete(&key, &end)),
            1 => "[a-e]".prop_map(|key| delete(&key, "\0")),
        ];
        let op = leaf.prop_recursive(3, 24, 4, |op| {
            (vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(|(yes, no)| nested(yes, no))
        });
        vec(op, 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Model: `naive`, above.
        #[test]
        fn the_quick_check_agrees_with_the_slow_one(branch in any_branch()) {
            prop_assert_eq!(check(&branch).is_ok(), naive(&branch), "{:?}", branch);
        }

        /// Model: a list of ranges.
        #[test]
        fn joined_intervals_cover_what_the_single_ones_did(
            ranges in vec(("[a-d]{1,3}", "[a-d]{1,3}"), 0..12),
            key in "[a-d]{1,3}",
        ) {
            let ranges: Vec<KeyRange> =
                ranges.into_iter().map(|(k, e)| KeyRange::from_wire(k.into(), e.into())).collect();
            let mut deletes = Deletes::default();
            for range in &ranges {
                deletes.add(range);
            }
            let wanted = ranges.iter().any(|range| range.contains(key.as_bytes()));
            prop_assert_eq!(deletes.cover(key.as_bytes()), wanted);
        }
    }
}

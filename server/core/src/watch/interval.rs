//! Which watchers want a key: an index from keys to the ranges that hold them.
//!
//! Single keys, most watches of most clients, are looked up in a map. Wider ranges are nodes of an
//! AVL tree ordered by (start, end), in which every node knows the furthest end below it: a
//! subtree that ends before the key is skipped whole. Ranges that are equal share one node, so a
//! thousand watchers of one prefix cost one step of the search. The tree is balanced by height and
//! not by chance, so no choice of ranges makes it slow.
//!
//! Invariants
//! - a node or an entry of the map has at least one member;
//! - sizes of neighbouring subtrees differ by at most one level;
//! - `furthest` of a node is the greatest end in its subtree.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{KeyRange, RangeEnd};

/// Members of type `T`, each interested in one range of keys.
///
/// With `n` different ranges, inserting and removing take O(log n) steps; a search takes O(log n)
/// steps for each range that holds the key (and at least once), plus one per member found.
#[derive(Debug, Clone)]
pub(super) struct Interests<T> {
    keys: BTreeMap<Bytes, BTreeSet<T>>,
    ranges: Tree<T>,
}

type Tree<T> = Option<Box<Node<T>>>;

#[derive(Debug, Clone)]
struct Node<T> {
    start: Bytes,
    end: RangeEnd,
    members: BTreeSet<T>,
    /// The greatest `end` of this node and all below it.
    furthest: RangeEnd,
    /// Levels of this subtree; a leaf has 1. 64 levels would be more ranges than bytes of memory.
    height: u8,
    left: Tree<T>,
    right: Tree<T>,
}

impl<T> Default for Interests<T> {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            ranges: None,
        }
    }
}

impl<T: Copy + Ord> Interests<T> {
    /// Notes that `member` is interested in `range`, which must not be empty.
    pub(super) fn insert(&mut self, range: &KeyRange, member: T) {
        debug_assert!(!range.is_empty(), "an empty range has no place in the tree");
        let is_new = match range.end {
            RangeEnd::Single => self
                .keys
                .entry(range.start.clone())
                .or_default()
                .insert(member),
            _ => insert(&mut self.ranges, range, member),
        };
        assert!(is_new, "a member was inserted twice into {range:?}");
    }

    /// Forgets that `member` is interested in `range`, as it was inserted.
    pub(super) fn remove(&mut self, range: &KeyRange, member: T) {
        let was_there = match range.end {
            RangeEnd::Single => self.remove_key(&range.start, member),
            _ => remove(&mut self.ranges, range, member),
        };
        assert!(was_there, "a member was removed that is not in {range:?}");
    }

    fn remove_key(&mut self, key: &Bytes, member: T) -> bool {
        let Some(members) = self.keys.get_mut(key) else {
            return false;
        };
        let was_there = members.remove(&member);
        if members.is_empty() {
            self.keys.remove(key);
        }
        was_there
    }

    /// Calls `found` with every member whose range holds `key`; range by range, in no set order.
    pub(super) fn search(&self, key: &[u8], mut found: impl FnMut(T)) {
        if let Some(members) = self.keys.get(key) {
            members.iter().copied().for_each(&mut found);
        }
        search(self.ranges.as_deref(), key, &mut found);
    }

    /// How many members there are, over all ranges. Takes as many steps as there are ranges.
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(BTreeSet::len).sum::<usize>() + len(self.ranges.as_deref())
    }

    /// Whether nobody is interested in anything.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_none()
    }

    /// Panics if an invariant of this file's head does not hold.
    pub(super) fn check(&self) {
        assert!(
            self.keys.values().all(|members| !members.is_empty()),
            "a key without members"
        );
        check(self.ranges.as_deref());
    }
}

impl<T> Node<T> {
    /// Where `range` belongs, seen from this node.
    fn side(&self, range: &KeyRange) -> Ordering {
        (&range.start, &range.end).cmp(&(&self.start, &self.end))
    }

    /// How much higher the left side is than the right one.
    fn tilt(&self) -> i16 {
        i16::from(height(self.left.as_deref())) - i16::from(height(self.right.as_deref()))
    }

    /// Restores `height` and `furthest` after a change below.
    fn refresh(&mut self) {
        self.height = 1 + height(self.left.as_deref()).max(height(self.right.as_deref()));
        let below = [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|node| &node.furthest);
        self.furthest = below.fold(&self.end, Ord::max).clone();
    }
}

/// Whether a range that ends at `end` and starts at or before `key` holds `key`.
fn reaches(end: &RangeEnd, key: &[u8]) -> bool {
    match end {
        RangeEnd::Single => unreachable!("single keys are in the map"),
        RangeEnd::Before(end) => key < end.as_ref(),
        RangeEnd::Unbounded => true,
    }
}

fn height<T>(tree: Option<&Node<T>>) -> u8 {
    tree.map_or(0, |node| node.height)
}

fn len<T>(tree: Option<&Node<T>>) -> usize {
    tree.map_or(0, |node| {
        node.members.len() + len(node.left.as_deref()) + len(node.right.as_deref())
    })
}

fn search<T: Copy>(mut tree: Option<&Node<T>>, key: &[u8], found: &mut impl FnMut(T)) {
    while let Some(node) = tree {
        if !reaches(&node.furthest, key) {
            return;
        }
        search(node.left.as_deref(), key, found);
        if node.start.as_ref() > key {
            // All ranges on the right start even later.
            return;
        }
        if reaches(&node.end, key) {
            node.members.iter().copied().for_each(&mut *found);
        }
        tree = node.right.as_deref();
    }
}

fn insert<T: Ord>(tree: &mut Tree<T>, range: &KeyRange, member: T) -> bool {
    let Some(node) = tree else {
        *tree = Some(Box::new(Node {
            start: range.start.clone(),
            end: range.end.clone(),
            members: BTreeSet::from([member]),
            furthest: range.end.clone(),
            height: 1,
            left: None,
            right: None,
        }));
        return true;
    };
    let is_new = match node.side(range) {
        Ordering::Equal => return node.members.insert(member),
        Ordering::Less => insert(&mut node.left, range, member),
        Ordering::Greater => insert(&mut node.right, range, member),
    };
    rebalance(tree);
    is_new
}

fn remove<T: Ord>(tree: &mut Tree<T>, range: &KeyRange, member: T) -> bool {
    let Some(node) = tree else { return false };
    let was_there = match node.side(range) {
        Ordering::Less => remove(&mut node.left, range, member),
        Ordering::Greater => remove(&mut node.right, range, member),
        Ordering::Equal => {
            let was_there = node.members.remove(&member);
            if node.members.is_empty() {
                remove_root(tree);
            }
            was_there
        }
    };
    rebalance(tree);
    was_there
}

/// Takes the top node out of a tree that has one.
fn remove_root<T>(tree: &mut Tree<T>) {
    let Some(mut node) = tree.take() else { return };
    *tree = match (node.left.take(), node.right.take()) {
        (None, below) | (below, None) => below,
        (left, mut right) => {
            let mut next = take_first(&mut right).expect("the right side is not empty here");
            next.left = left;
            next.right = right;
            Some(next)
        }
    };
}

/// Takes the leftmost node out of `tree`.
fn take_first<T>(tree: &mut Tree<T>) -> Tree<T> {
    let node = tree.as_mut()?;
    if node.left.is_some() {
        let first = take_first(&mut node.left);
        rebalance(tree);
        return first;
    }
    let right = node.right.take();
    std::mem::replace(tree, right)
}

/// Restores the invariants at the top of `tree`, given that they hold below it and that one side
/// is at most two levels higher than the other.
fn rebalance<T>(tree: &mut Tree<T>) {
    let Some(node) = tree else { return };
    match node.tilt() {
        2 => {
            if node.left.as_ref().is_some_and(|left| left.tilt() < 0) {
                rotate_left(&mut node.left);
            }
            rotate_right(tree);
        }
        -2 => {
            if node.right.as_ref().is_some_and(|right| right.tilt() > 0) {
                rotate_right(&mut node.right);
            }
            rotate_left(tree);
        }
        tilt => {
            debug_assert!(tilt.abs() < 2, "one change moves a side by one level");
            node.refresh();
        }
    }
}

/// Lifts the right child above the top node.
fn rotate_left<T>(tree: &mut Tree<T>) {
    let mut down = tree.take().expect("a tree that leans has a top");
    let mut up = down.right.take().expect("the higher side is not empty");
    down.right = up.left.take();
    down.refresh();
    up.left = Some(down);
    up.refresh();
    *tree = Some(up);
}

/// Lifts the left child above the top node.
fn rotate_right<T>(tree: &mut Tree<T>) {
    let mut down = tree.take().expect("a tree that leans has a top");
    let mut up = down.left.take().expect("the higher side is not empty");
    down.left = up.right.take();
    down.refresh();
    up.right = Some(down);
    up.refresh();
    *tree = Some(up);
}

fn check<T>(tree: Option<&Node<T>>) {
    let Some(node) = tree else { return };
    assert!(!node.members.is_empty(), "a range without members");
    assert!(node.tilt().abs() < 2, "the tree leans");
    assert_eq!(
        node.height,
        1 + height(node.left.as_deref()).max(height(node.right.as_deref())),
        "height"
    );
    let mut furthest = &node.end;
    for below in [&node.left, &node.right].into_iter().flatten() {
        furthest = furthest.max(&below.furthest);
        let is_left = (&below.start, &below.end) < (&node.start, &node.end);
        let should_be_left = node
            .left
            .as_ref()
            .is_some_and(|left| std::ptr::eq(left.as_ref(), below.as_ref()));
        assert_eq!(is_left, should_be_left, "a child is on the wrong side");
        check(Some(below.as_ref()));
    }
    assert_eq!(&node.furthest, furthest, "furthest end");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn found(interests: &Interests<u32>, key: &[u8]) -> Vec<u32> {
        let mut members = Vec::new();
        interests.search(key, |member| members.push(member));
        members.sort_unstable();
        members
    }

    #[test]
    fn members_of_one_range_share_a_node_and_are_all_found() {
        let mut interests = Interests::default();
        let range = KeyRange::prefix("a/".into());
        for member in 0..1000 {
            interests.insert(&range, member);
        }
        assert_eq!(found(&interests, b"a/1"), (0..1000).collect::<Vec<_>>());
        assert_eq!(found(&interests, b"b"), Vec::<u32>::new());
        assert_eq!(height(interests.ranges.as_deref()), 1);
        for member in 0..1000 {
            interests.remove(&range, member);
        }
        assert!(interests.is_empty());
    }

    #[test]
    fn ranges_inserted_in_order_do_not_make_a_list() {
        let mut interests = Interests::default();
        let range = |n: u32| KeyRange::prefix(format!("{n:05}/").into());
        for n in 0..10_000 {
            interests.insert(&range(n), n);
        }
        interests.check();
        assert!(
            height(interests.ranges.as_deref()) <= 15,
            "height {}",
            height(interests.ranges.as_deref())
        );
        for n in (0..10_000).filter(|n| n % 3 != 0) {
            interests.remove(&range(n), n);
        }
        interests.check();
        assert!(
            height(interests.ranges.as_deref()) <= 15,
            "height {}",
            height(interests.ranges.as_deref())
        );
        assert_eq!(found(&interests, b"00003/x"), vec![3]);
        assert_eq!(found(&interests, b"00004/x"), Vec::<u32>::new());
    }

    #[test]
    #[should_panic(expected = "removed that is not in")]
    fn removing_a_stranger_is_our_mistake() {
        Interests::default().remove(&KeyRange::single("a".into()), 1);
    }

    /// Short keys over few letters, so that ranges touch, nest and coincide often.
    fn any_range() -> impl Strategy<Value = KeyRange> {
        ("[abc]{1,2}", "(\0|[abcd]{0,2})")
            .prop_map(|(start, end)| KeyRange::from_wire(start.into(), end.into()))
            .prop_filter("not empty", |range| !range.is_empty())
    }

    proptest! {
        /// Model: a list of (range, member), filtered for each key.
        #[test]
        fn a_search_finds_what_a_plain_list_finds(
            steps in vec((any_range(), any::<bool>(), any::<prop::sample::Index>()), 1..80),
        ) {
            let mut interests = Interests::default();
            let mut list: Vec<(KeyRange, u32)> = Vec::new();
            for (member, (range, is_insert, which)) in (0..).zip(steps) {
                if is_insert || list.is_empty() {
                    interests.insert(&range, member);
                    list.push((range, member));
                } else {
                    let (range, member) = list.swap_remove(which.index(list.len()));
                    interests.remove(&range, member);
                }
                interests.check();
                for key in ["", "a", "aa", "ab", "b", "bc", "c", "cc", "ccc", "d"] {
                    let mut want: Vec<u32> = list
                        .iter()
                        .filter(|(range, _)| range.contains(key.as_bytes()))
                        .map(|&(_, member)| member)
                        .collect();
                    want.sort_unstable();
                    prop_assert_eq!(found(&interests, key.as_bytes()), want, "key {:?}", key);
                }
            }
        }
    }
}

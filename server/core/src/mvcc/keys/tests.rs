//! The ordered map against the one of the standard library.

//! The leaves against a plain map.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::mvcc::version::Meta;
use crate::{LeaseId, Revision};

/// Leaves this small are split and merged all the time.
type Small = Keys<4>;

fn version(key: &[u8], value: u8) -> Version {
    let revision = Revision::new(2);
    let meta = Meta {
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: LeaseId::NONE,
        sub: 0,
    };
    Version::new(key, &[value], meta)
}

fn put<const MAX: usize>(keys: &mut Keys<MAX>, key: &[u8], value: u8) {
    match keys.find(key) {
        Ok(place) => drop(keys.replace(place, version(key, value))),
        Err(place) => keys.insert(place, version(key, value)),
    }
}

/// Keys that share prefixes of all lengths, some beyond what a digest holds, and zero bytes.
fn key() -> impl Strategy<Value = Bytes> {
    let tail = vec(
        prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)],
        0..4,
    );
    let head = prop_oneof![Just(""), Just("k"), Just("kkkkkkkk"), Just("kkkkkkkkkkkk")];
    (head, tail).prop_map(|(head, tail)| [head.as_bytes(), &tail].concat().into())
}

fn range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        Just(RangeEnd::Single),
        key().prop_map(RangeEnd::Before),
        Just(RangeEnd::Unbounded)
    ];
    (key(), end).prop_map(|(start, end)| KeyRange { start, end })
}

proptest! {
    /// Model: a `BTreeMap`.
    #[test]
    fn any_changes_leave_what_an_ordered_map_would_hold(
        changes in vec((key(), prop::option::weighted(0.6, any::<u8>())), 1..200),
        ranges in vec(range(), 1..20),
    ) {
        let mut keys = Small::default();
        let mut model = BTreeMap::new();
        for (key, value) in changes {
            let Some(value) = value else {
                let removed = keys.find(&key).ok().map(|place| keys.remove(place));
                let value = removed.map(|version| version.value()[0]);
                prop_assert_eq!(value, model.remove(&key));
                keys.check();
                continue;
            };
            put(&mut keys, &key, value);
            model.insert(key, value);
            keys.check();
        }
        let all: Vec<_> = keys.iter().map(|it| (it.key().to_vec().into(), it.value()[0])).collect();
        prop_assert_eq!(&all, &model.iter().map(|(k, v)| (k.clone(), *v)).collect::<Vec<_>>());
        prop_assert_eq!(keys.len(), model.len());
        for range in ranges {
            let found: Vec<&[u8]> = keys.range(&range).map(Version::key).collect();
            let want: Vec<&[u8]> =
                model.keys().filter(|key| range.contains(key)).map(AsRef::as_ref).collect();
            prop_assert_eq!(keys.count(&range), want.len(), "{:?}", &range);
            prop_assert_eq!(found, want, "{:?}", &range);
            let got = keys.get(&range.start).map(|version| version.value()[0]);
            prop_assert_eq!(got, model.get(&range.start).copied());
        }
    }
}

#[test]
fn keys_that_come_in_order_fill_their_leaves() {
    let mut keys = Keys::<16>::default();
    for number in 0..1600 {
        keys.push(version(format!("{number:04}").as_bytes(), 0));
    }
    keys.check();
    assert_eq!(keys.leaves.len(), 100);
}

#[test]
fn leaves_that_are_emptied_are_given_back() {
    let mut keys = Keys::<16>::default();
    for number in 0..1600 {
        keys.push(version(format!("{number:04}").as_bytes(), 0));
    }
    // Nine of ten, scattered; then the rest.
    for number in (0..1600).filter(|number| number % 10 != 0) {
        let place = keys.find(format!("{number:04}").as_bytes()).unwrap();
        keys.remove(place);
    }
    keys.check();
    assert!(
        keys.leaves.len() <= 40,
        "160 keys take {} leaves",
        keys.leaves.len()
    );
    for number in (0..1600).step_by(10) {
        let place = keys.find(format!("{number:04}").as_bytes()).unwrap();
        keys.remove(place);
        keys.check();
    }
    assert!(keys.leaves.is_empty() && keys.fences.is_empty() && keys.sizes.is_empty());
}

proptest! {
    /// Model: a search.
    #[test]
    fn a_guess_at_a_keys_place_saves_time_and_changes_nothing(
        present in vec(key(), 0..40),
        leaf in 0..12_usize,
        slot in 0..5_usize,
        sought in key(),
    ) {
        let mut keys = Small::default();
        for key in &present {
            put(&mut keys, key, 1);
        }
        let guess = Place { leaf, slot };
        for key in present.iter().chain([&sought]) {
            prop_assert_eq!(keys.find_near(guess, key), keys.find(key).ok());
        }
    }
}

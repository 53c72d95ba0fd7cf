//! Any history of a set, against a model that is a map.

use std::collections::BTreeMap;

use gonfalon_flags::{Context, ErrorCode, FlagSet, Moment, Reason};
use proptest::prelude::*;

const NOW: Moment = Moment::from_unix_ms(0);
const NAMES: [&str; 4] = ["a", "b/c", "\u{e9}", "__proto__"];

/// What is written to one flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    On,
    Off,
    Bad,
    Deleted,
}

impl Write {
    fn json(self) -> Option<&'static [u8]> {
        match self {
            Self::On => Some(br#"{"enabled": true}"#),
            Self::Off => Some(br#"{"enabled": false}"#),
            Self::Bad => Some(br#"{"enabled": "on"}"#),
            Self::Deleted => None,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// At a revision that is so much higher than the set's, or lower.
    Apply(i64, Vec<(usize, Write)>),
    Relist(i64, Vec<(usize, Write)>),
    Restore(i64, Vec<(usize, Write)>),
}

/// One flag as it must be: the revision of its last change, its last good value, and whether what
/// came after that was bad.
#[derive(Debug, Clone, Copy, Default)]
struct Flag {
    revision: Option<i64>,
    value: Option<bool>,
    is_bad: bool,
}

impl Flag {
    fn write(&mut self, revision: i64, write: Write) {
        if self.revision.is_some_and(|seen| revision <= seen) {
            return;
        }
        self.revision = Some(revision);
        self.is_bad = write == Write::Bad;
        match write {
            Write::On => self.value = Some(true),
            Write::Off => self.value = Some(false),
            Write::Deleted => self.value = None,
            Write::Bad => {}
        }
    }

    fn told(self) -> (Option<bool>, Reason, Option<ErrorCode>) {
        match (self.value, self.is_bad) {
            (Some(value), true) => (Some(value), Reason::Stale, None),
            (Some(true), false) => (Some(true), Reason::Static, None),
            (Some(false), false) => (Some(false), Reason::Disabled, None),
            (None, true) => (None, Reason::Error, Some(ErrorCode::ParseError)),
            (None, false) => (None, Reason::Error, Some(ErrorCode::FlagNotFound)),
        }
    }
}

/// One write a flag at most, as in a transaction of the store.
fn writes(writes: impl Strategy<Value = Write>) -> impl Strategy<Value = Vec<(usize, Write)>> {
    prop::collection::btree_map(0..NAMES.len(), writes, 0..NAMES.len())
        .prop_map(|writes| writes.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    let good = prop_oneof![Just(Write::On), Just(Write::Off), Just(Write::Bad)];
    let any = prop_oneof![3 => good.clone(), 1 => Just(Write::Deleted)];
    prop_oneof![
        6 => (-2..4_i64, writes(any)).prop_map(|(ahead, writes)| Step::Apply(ahead, writes)),
        2 => (-2..4_i64, writes(good.clone())).prop_map(|(ahead, all)| Step::Relist(ahead, all)),
        1 => (1..5_i64, writes(good)).prop_map(|(revision, all)| Step::Restore(revision, all)),
    ]
}

/// The listed flags, all changed at the list's revision.
fn list(
    revision: i64,
    all: &[(usize, Write)],
) -> impl Iterator<Item = (&'static str, i64, &'static [u8])> {
    let all = all.iter();
    all.map(move |(at, write)| {
        (
            NAMES[*at],
            revision,
            write.json().expect("no deletion is listed"),
        )
    })
}

fn model_list(model: &mut BTreeMap<&str, Flag>, revision: i64, all: &[(usize, Write)]) {
    for (at, name) in NAMES.iter().enumerate() {
        let listed = all.iter().find(|(listed, _)| *listed == at);
        let write = listed.map_or(Write::Deleted, |(_, write)| *write);
        let flag = model.entry(name).or_default();
        // Only what exists can be found missing.
        if write != Write::Deleted || flag.value.is_some() || flag.is_bad {
            flag.write(revision, write);
        }
    }
}

proptest! {
    #[test]
    fn any_history_of_a_set_is_that_of_a_map(steps in prop::collection::vec(step(), 1..40)) {
        let (mut set, mut model, mut revision) = (FlagSet::new(), BTreeMap::new(), 0);
        for step in &steps {
            match step {
                Step::Apply(ahead, writes) => {
                    let at = revision + ahead;
                    set.apply(at, writes.iter().map(|(at, write)| (NAMES[*at], write.json())));
                    for (name, write) in writes {
                        model.entry(NAMES[*name]).or_insert_with(Flag::default).write(at, *write);
                    }
                    revision = revision.max(at);
                }
                Step::Relist(ahead, all) => {
                    let at = revision + ahead;
                    prop_assert_eq!(set.relist(at, list(at, all)).is_some(), *ahead > 0);
                    if *ahead > 0 {
                        model_list(&mut model, at, all);
                        revision = at;
                    }
                }
                Step::Restore(at, all) => {
                    set.restore(*at, list(*at, all));
                    for flag in model.values_mut() {
                        flag.revision = None;
                    }
                    model_list(&mut model, *at, all);
                    revision = *at;
                }
            }
            prop_assert_eq!(set.revision(), revision);
            for name in NAMES {
                let want = model.get(name).copied().unwrap_or_default().told();
                for fallback in [true, false] {
                    let details = set.details(name, &Context::new(), NOW, fallback);
                    let value = want.0.unwrap_or(fallback);
                    let got = (details.value, details.reason, details.error);
                    prop_assert_eq!(got, (value, want.1, want.2), "{} after {:?}", name, step);
                    prop_assert_eq!(set.get(name, &Context::new(), NOW, fallback), value);
                }
            }
            let bad = model.values().filter(|flag| flag.is_bad).count();
            prop_assert_eq!(set.problems().count(), bad);
        }
    }
}

#[test]
fn sets_and_contexts_go_from_thread_to_thread() {
    fn goes<T: Send + Sync + 'static>() {}
    goes::<FlagSet>();
    goes::<Context<'static>>();
}

#[test]
fn ten_thousand_flags_keep_their_numbers_and_names_over_all_chunks() {
    let names: Vec<String> = (0..10_000)
        .map(|at| format!("team-{}/{at}", at % 7))
        .collect();
    let mut set = FlagSet::new();
    set.apply(
        1,
        names.iter().map(|name| (name.as_str(), Write::Off.json())),
    );
    let pinned = set.clone();
    assert!(set.names().eq(names.iter().map(String::as_str)));
    let ids: Vec<_> = names.iter().map(|name| set.id(name)).collect();
    for at in (0..names.len()).step_by(97) {
        set.apply(2, [(names[at].as_str(), Write::On.json())]);
    }
    for (at, id) in ids.iter().enumerate() {
        let [before, after] = [&pinned, &set].map(|set| set.get(id, &Context::new(), NOW, false));
        assert_eq!((before, after), (false, at % 97 == 0), "{}", names[at]);
    }
}

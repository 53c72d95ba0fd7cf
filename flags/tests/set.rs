//! The life of flags in a set: changed, broken, deleted, restored, and required by each other.

use gonfalon_flags::{Context, ErrorCode, FlagSet, Moment, Reason};

const NOW: Moment = Moment::from_unix_ms(0);
const ON: &str = r#"{"enabled": true}"#;
const OFF: &str = r#"{"enabled": false}"#;

/// A transaction at a revision.
fn apply(set: &mut FlagSet, revision: i64, changes: &[(&str, Option<&str>)]) -> usize {
    let changes = changes
        .iter()
        .map(|(name, json)| (*name, json.map(str::as_bytes)));
    set.apply(revision, changes).len()
}

fn set(flags: &[(&str, &str)]) -> FlagSet {
    let mut set = FlagSet::new();
    for (revision, (name, json)) in (1..).zip(flags) {
        apply(&mut set, revision, &[(name, Some(json))]);
    }
    set
}

fn list<'l>(all: &'l [(&str, i64, &str)]) -> impl Iterator<Item = (&'l str, i64, &'l [u8])> {
    let all = all.iter();
    all.map(|(name, revision, json)| (*name, *revision, json.as_bytes()))
}

fn is_on(set: &FlagSet, name: &str) -> bool {
    set.get(name, &Context::new(), NOW, false)
}

/// Reason and error of a flag.
fn why(set: &FlagSet, name: &str) -> (Reason, Option<ErrorCode>) {
    let details = set.details(name, &Context::new(), NOW, false);
    (details.reason, details.error)
}

fn requiring(flags: &[&str]) -> String {
    serde_json::json!({"enabled": true, "requires": flags}).to_string()
}

#[test]
fn a_flag_that_does_not_exist_is_the_fallback_until_it_does() {
    let mut set = FlagSet::new();
    let id = set.id("later");
    for fallback in [true, false] {
        assert_eq!(set.get(&id, &Context::new(), NOW, fallback), fallback);
        assert_eq!(set.get("never", &Context::new(), NOW, fallback), fallback);
    }
    assert_eq!(
        why(&set, "later"),
        (Reason::Error, Some(ErrorCode::FlagNotFound))
    );
    assert_eq!(
        why(&set, "never"),
        (Reason::Error, Some(ErrorCode::FlagNotFound))
    );
    assert_eq!(set.names().count(), 0);
    assert_eq!(apply(&mut set, 3, &[("later", Some(ON))]), 1);
    assert!(set.get(&id, &Context::new(), NOW, false));
    assert_eq!(set.names().collect::<Vec<_>>(), ["later"]);
}

#[test]
fn a_flag_that_is_deleted_is_not_found_and_keeps_its_number() {
    let mut set = set(&[("f", ON)]);
    let id = set.id("f");
    assert_eq!(apply(&mut set, 2, &[("f", None)]), 1);
    assert_eq!(
        why(&set, "f"),
        (Reason::Error, Some(ErrorCode::FlagNotFound))
    );
    assert!(set.get("f", &Context::new(), NOW, true), "the fallback");
    apply(&mut set, 3, &[("f", Some(ON))]);
    assert_eq!(set.id("f"), id);
    assert!(set.get(&id, &Context::new(), NOW, false));
}

#[test]
fn a_bad_definition_leaves_the_last_good_one_in_force_and_the_others_alone() {
    let mut set = set(&[("f", ON), ("g", ON)]);
    apply(
        &mut set,
        7,
        &[("f", Some("{\"enabled\": tru")), ("g", Some(OFF))],
    );
    assert!(is_on(&set, "f"));
    let details = set.details("f", &Context::new(), NOW, false);
    assert_eq!(
        (details.reason, details.error, details.revision),
        (Reason::Stale, None, 7)
    );
    assert!(
        details
            .message
            .is_some_and(|text| text.starts_with("no JSON")),
        "{details:?}"
    );
    assert!(!is_on(&set, "g"), "g was changed in the same transaction");
    let problems: Vec<_> = set.problems().collect();
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].name, problems[0].revision), ("f", 7));
    assert!(problems[0].has_last_good);

    // Still another bad one, for another reason: the last good one stays.
    apply(
        &mut set,
        8,
        &[("f", Some(r#"{"enabled": true, "algo": 2}"#))],
    );
    assert!(is_on(&set, "f"));
    assert_eq!(set.problems().next().unwrap().error.pointer(), "/algo");
    apply(&mut set, 9, &[("f", Some(OFF))]);
    assert_eq!(why(&set, "f"), (Reason::Disabled, None));
    assert_eq!(set.problems().count(), 0);
}

#[test]
fn a_definition_that_was_never_good_is_a_parse_error_and_not_an_absent_flag() {
    let mut set = set(&[("f", "[]")]);
    assert_eq!(why(&set, "f"), (Reason::Error, Some(ErrorCode::ParseError)));
    assert_eq!(set.names().collect::<Vec<_>>(), ["f"]);
    assert!(!set.problems().next().unwrap().has_last_good);
    // What was deleted is no last good definition.
    apply(&mut set, 2, &[("f", Some(ON))]);
    apply(&mut set, 3, &[("f", None)]);
    apply(&mut set, 4, &[("f", Some("[]"))]);
    assert_eq!(why(&set, "f"), (Reason::Error, Some(ErrorCode::ParseError)));
}

#[test]
fn what_is_not_newer_is_passed_over() {
    let mut set = FlagSet::new();
    apply(&mut set, 5, &[("f", Some(ON))]);
    assert_eq!(apply(&mut set, 4, &[("f", Some(OFF))]), 0);
    assert_eq!(apply(&mut set, 5, &[("f", None)]), 0);
    assert!(is_on(&set, "f"));
    assert_eq!(set.revision(), 5);
    apply(&mut set, 6, &[("f", None)]);
    assert_eq!(apply(&mut set, 5, &[("f", Some(ON))]), 0);
    assert_eq!(why(&set, "f").1, Some(ErrorCode::FlagNotFound));
}

#[test]
fn a_list_replaces_everything_if_it_is_newer_and_nothing_if_it_is_not() {
    let mut set = set(&[("a", ON), ("b", ON), ("c", ON)]);
    assert_eq!(set.relist(3, []), None);
    assert_eq!(set.relist(2, []), None);
    assert!(is_on(&set, "a") && is_on(&set, "b") && is_on(&set, "c"));

    let all = [("a", 1, ON), ("b", 9, "bad"), ("d", 8, ON)];
    let ids = ["b", "d", "c"].map(|name| set.id(name));
    let changed = set.relist(10, list(&all)).expect("the list is newer");
    assert_eq!(changed.len(), 3);
    assert!(ids.iter().all(|id| changed.contains(id)), "{changed:?}");
    assert_eq!(set.revision(), 10);
    assert!(is_on(&set, "a") && is_on(&set, "d"));
    assert_eq!(why(&set, "b"), (Reason::Stale, None));
    assert_eq!(why(&set, "c").1, Some(ErrorCode::FlagNotFound));
    assert_eq!(
        apply(&mut set, 10, &[("c", Some(ON))]),
        0,
        "deleted at 10 at the latest"
    );

    assert_eq!(set.relist(11, []).map(|changed| changed.len()), Some(3));
    assert_eq!(set.names().count(), 0);
}

#[test]
fn a_restored_store_is_taken_over_though_its_revision_is_lower() {
    let mut set = set(&[("a", ON), ("b", ON), ("c", ON)]);
    let all = [("a", 1, OFF), ("c", 2, "bad")];
    assert_eq!(set.relist(2, list(&all)), None);
    assert_eq!(set.restore(2, list(&all)).len(), 3);
    assert_eq!(set.revision(), 2);
    assert_eq!(why(&set, "a"), (Reason::Disabled, None));
    assert_eq!(why(&set, "b").1, Some(ErrorCode::FlagNotFound));
    assert_eq!(why(&set, "c"), (Reason::Stale, None));
    assert_eq!(apply(&mut set, 3, &[("a", Some(ON))]), 1);
    assert!(is_on(&set, "a"));
}

#[test]
fn a_clone_stays_what_it_was() {
    let mut set = set(&[("f", ON)]);
    let pinned = set.clone();
    apply(&mut set, 2, &[("f", Some(OFF)), ("g", Some(ON))]);
    assert!(is_on(&pinned, "f") && !is_on(&set, "f"));
    assert_eq!((pinned.revision(), set.revision()), (1, 2));
    let new = set.id("g");
    assert!(
        !pinned.get(&new, &Context::new(), NOW, false),
        "it was not there then"
    );
}

#[test]
fn a_flag_is_off_unless_what_it_requires_is_as_it_must_be() {
    let color = r#"{"enabled": true, "variants": {"red": 1, "blue": 2}, "default": "red"}"#;
    let red = r#"{"enabled": true, "requires": ["f", {"flag": "color", "variant": "red"}]}"#;
    let mut set = set(&[
        ("f", ON),
        ("color", color),
        ("g", red),
        ("h", &requiring(&["g"])),
    ]);
    assert!(is_on(&set, "g") && is_on(&set, "h"));
    assert_eq!(why(&set, "g"), (Reason::Default, None));

    let blue = color.replace("\"default\": \"red\"", "\"default\": \"blue\"");
    apply(&mut set, 5, &[("color", Some(&blue))]);
    assert!(!is_on(&set, "g") && !is_on(&set, "h"));
    assert_eq!(why(&set, "g"), (Reason::Disabled, None));
    apply(&mut set, 6, &[("color", Some(color)), ("f", Some(OFF))]);
    assert_eq!(why(&set, "h"), (Reason::Disabled, None));
    apply(&mut set, 7, &[("f", Some(ON))]);
    assert!(is_on(&set, "h"));
}

#[test]
fn what_is_required_sees_the_same_context() {
    let half = r#"{"enabled": true, "rollout_percent": 50}"#;
    let set = set(&[("f", half), ("g", &requiring(&["f"]))]);
    for id in 0..200_u32 {
        let context = Context::of(id.to_string());
        let [f, g] = ["f", "g"].map(|name| set.get(name, &context, NOW, false));
        assert_eq!(f, g, "{id}");
    }
}

#[test]
fn a_flag_that_requires_what_is_not_there_is_off_and_says_so_until_it_is_there() {
    let mut set = set(&[("g", &requiring(&["f"]))]);
    let broken = (Reason::Error, Some(ErrorCode::ParseError));
    assert_eq!(why(&set, "g"), broken);
    apply(&mut set, 2, &[("f", Some("bad"))]);
    assert_eq!(why(&set, "g"), broken);
    apply(&mut set, 3, &[("f", Some(ON))]);
    assert_eq!(why(&set, "g"), (Reason::Default, None));
    apply(&mut set, 4, &[("f", None)]);
    assert_eq!(why(&set, "g"), broken);
    let details = set.details("g", &Context::new(), NOW, true);
    assert_eq!(
        (details.value, details.variant),
        (false, Some("off")),
        "off, and no fallback"
    );
}

#[test]
fn flags_in_a_cycle_and_behind_it_are_off_and_the_others_are_not() {
    let mut set = set(&[
        ("a", &requiring(&["b"])),
        ("b", &requiring(&["c"])),
        ("c", &requiring(&["a"])),
        ("behind", &requiring(&["c"])),
        ("self", &requiring(&["self"])),
        ("free", ON),
        ("fine", &requiring(&["free"])),
    ]);
    for name in ["a", "b", "c", "behind", "self"] {
        assert_eq!(
            why(&set, name),
            (Reason::Error, Some(ErrorCode::ParseError)),
            "{name}"
        );
        assert!(!set.get(name, &Context::new(), NOW, true), "{name}");
    }
    assert!(is_on(&set, "fine"));
    apply(&mut set, 9, &[("c", Some(ON))]);
    for name in ["a", "b", "c", "behind"] {
        assert!(is_on(&set, name), "{name} after the cycle was cut");
    }
    apply(&mut set, 10, &[("self", None)]);
    assert_eq!(why(&set, "self").1, Some(ErrorCode::FlagNotFound));
}

#[test]
fn two_flags_may_swap_what_they_require_in_one_transaction() {
    let mut set = set(&[("b", ON), ("a", &requiring(&["b"]))]);
    let swap: [(&str, Option<&str>); 2] = [("b", Some(&requiring(&["a"]))), ("a", Some(ON))];
    let bytes = swap.map(|(name, json)| (name, json.map(str::as_bytes)));
    assert_eq!(set.check(bytes), Ok(()));
    let refused = set.check([bytes[0]]).unwrap_err();
    assert_eq!(
        (refused.name.as_str(), refused.error.pointer()),
        ("b", "/requires")
    );
    apply(&mut set, 3, &swap);
    assert!(is_on(&set, "a") && is_on(&set, "b"));
}

#[test]
fn requirements_may_be_sixteen_deep_and_no_deeper() {
    let name = |depth: usize| format!("f{depth}");
    let mut set = set(&[("f0", ON)]);
    for (depth, revision) in (1..=40).zip(2..) {
        apply(
            &mut set,
            revision,
            &[(&name(depth), Some(&requiring(&[&name(depth - 1)])))],
        );
    }
    for depth in 0..=40 {
        assert_eq!(is_on(&set, &name(depth)), depth <= 16, "{depth}");
    }
}

#[test]
fn requirements_that_fan_out_too_far_are_refused_and_cost_nothing() {
    let mut set = set(&[("l0", ON), ("r0", ON)]);
    // Each layer doubles what an evaluation would look at.
    for (layer, revision) in (1..=12_i64).zip(3..) {
        let below = layer - 1;
        let json = requiring(&[&format!("l{below}"), &format!("r{below}")]);
        let names = [format!("l{layer}"), format!("r{layer}")];
        apply(
            &mut set,
            revision,
            &[(&names[0], Some(&json)), (&names[1], Some(&json))],
        );
    }
    // 1 + 2 * (looks of the layer below): 3, 7, .. 255 in layer 7.
    for layer in 0..=12 {
        assert_eq!(is_on(&set, &format!("l{layer}")), layer <= 7, "{layer}");
    }
}

#[test]
fn what_would_make_no_sense_is_refused_before_it_is_written() {
    let set = set(&[("f", ON), ("bad", "[]"), ("g", &requiring(&["f"]))]);
    let percent = r#"{"enabled": true, "rollout_percent": 101}"#;
    let variant = r#"{"enabled": true, "requires": ["f", {"flag": "f", "variant": "blue"}]}"#;
    for (name, json, pointer) in [
        ("new", percent.to_owned(), "/rollout_percent"),
        ("f", percent.to_owned(), "/rollout_percent"),
        ("new", requiring(&["f", "none"]), "/requires/1"),
        ("new", requiring(&["bad"]), "/requires/0"),
        ("new", variant.to_owned(), "/requires/1"),
        ("f", requiring(&["g"]), "/requires"),
        ("new", requiring(&["new"]), "/requires"),
    ] {
        let refused = set.check([(name, Some(json.as_bytes()))]).expect_err(&json);
        assert_eq!(
            (refused.name.as_str(), refused.error.pointer()),
            (name, pointer),
            "{refused}"
        );
    }
    for json in [ON, OFF, &requiring(&["g"])] {
        assert_eq!(
            set.check([("new", Some(json.as_bytes()))]),
            Ok(()),
            "{json}"
        );
    }
    assert_eq!(
        set.check([("f", None), ("bad", Some(ON.as_bytes()))]),
        Ok(())
    );
    assert_eq!(set.names().count(), 3, "a check changes nothing");
}

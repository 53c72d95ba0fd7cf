//! What flagd mode promises beside flagd's own cases.

use gonfalon_flags::flagd::{Broken, Bucketing, Flag, FlagSet, Malformed, RuleError};
use gonfalon_flags::{Context, Details, ErrorCode, Moment, Reason};
use serde_json::{Value, json};

/// 2026-09-21 14:13:20 UTC.
const NOW: Moment = Moment::from_unix_ms(1_790_000_000_000);

fn set(definition: &Value) -> FlagSet {
    FlagSet::compile(definition, Bucketing::V2).expect("it is a definition")
}

/// A set of one flag, `f`, of the variants `a`, `b`, `true` and `1`.
fn flag_with(fields: &Value) -> FlagSet {
    let mut flag = json!({
        "state": "ENABLED",
        "variants": {"a": "A", "b": "B", "true": "T", "1": "one"},
    });
    for (name, value) in fields.as_object().expect("fields are an object") {
        flag[name] = value.clone();
    }
    set(&json!({"flags": {"f": flag}}))
}

/// Value, variant, reason and error.
fn short<'a>(
    details: &Details<'a, Option<&'a Value>>,
) -> (Option<&'a str>, Option<&'a str>, Reason, Option<ErrorCode>) {
    let value = details
        .value
        .map(|value| value.as_str().expect("all variants are texts"));
    (value, details.variant, details.reason, details.error)
}

#[test]
fn a_value_has_the_reason_that_flagd_gives_it() {
    let general = Some(ErrorCode::General);
    for (fields, want) in [
        // Nothing to target: static, if there is a default.
        (
            json!({"defaultVariant": "a"}),
            (Some("A"), Some("a"), Reason::Static, None),
        ),
        (
            json!({"defaultVariant": "a", "targeting": {}}),
            (Some("A"), Some("a"), Reason::Static, None),
        ),
        (json!({}), (None, None, Reason::Default, None)),
        (
            json!({"defaultVariant": ""}),
            (None, None, Reason::Default, None),
        ),
        (
            json!({"defaultVariant": "x"}),
            (None, None, Reason::Error, general),
        ),
        // What targeting gives.
        (
            json!({"defaultVariant": "a", "targeting": {"if": [false, "b"]}}),
            (Some("A"), Some("a"), Reason::Default, None),
        ),
        (
            json!({"targeting": {"if": [false, "b"]}}),
            (None, None, Reason::Default, None),
        ),
        (
            json!({"defaultVariant": "x", "targeting": {"if": [true, "b"]}}),
            (Some("B"), Some("b"), Reason::TargetingMatch, None),
        ),
        (
            json!({"targeting": {"==": [1, 1]}}),
            (Some("T"), Some("true"), Reason::TargetingMatch, None),
        ),
        (
            json!({"targeting": {"==": [1, 2]}}),
            (None, None, Reason::Error, general),
        ),
        (
            json!({"targeting": {"+": [0.5, 0.5]}}),
            (Some("one"), Some("1"), Reason::TargetingMatch, None),
        ),
        (
            json!({"defaultVariant": "a", "targeting": {"if": [true, ["b"]]}}),
            (None, None, Reason::Error, general),
        ),
        // A split is a match, for flagd.
        (
            json!({"targeting": {"fractional": [["b", 1]]}}),
            (Some("B"), Some("b"), Reason::TargetingMatch, None),
        ),
        (
            json!({"state": "DISABLED", "defaultVariant": "a"}),
            (None, None, Reason::Disabled, None),
        ),
    ] {
        let set = flag_with(&fields);
        let got = set.evaluate("f", &Context::of("u"), NOW);
        assert_eq!(short(&got), want, "{fields}");
    }
}

#[test]
fn a_flag_that_makes_no_sense_says_so_and_breaks_no_other() {
    let unknown = |name: &str| Broken::Targeting(RuleError::UnknownOperator(name.to_owned()));
    let circle = || Broken::Targeting(RuleError::CircularEvaluator("x".to_owned()));
    for (flag, why) in [
        (json!(1), Broken::NotAnObject),
        (json!({"variants": {"a": 1}}), Broken::State),
        (json!({"state": "on", "variants": {"a": 1}}), Broken::State),
        (json!({"state": "ENABLED"}), Broken::Variants),
        (
            json!({"state": "ENABLED", "variants": {}}),
            Broken::Variants,
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": 1}),
            Broken::DefaultVariant,
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "metadata": []}),
            Broken::Metadata,
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": "a"}),
            Broken::Targeting(RuleError::NotAnObject),
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"eq": []}]}}),
            unknown("eq"),
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": {"sem_ver": [{"x": 1}]}}),
            unknown("x"),
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"$ref": "x"}]}}),
            circle(),
        ),
        (
            json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"$ref": "z"}]}}),
            Broken::Targeting(RuleError::UnknownEvaluator("z".to_owned())),
        ),
    ] {
        let set = set(&json!({
            "$evaluators": {"x": {"!": {"$ref": "y"}}, "y": {"!": {"$ref": "x"}}},
            "flags": {
                "bad": flag,
                "good": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"},
            },
            "metadata": {"version": "7"},
        }));
        assert_eq!(set.flag("bad").unwrap().broken(), Some(&why), "{flag}");
        let bad = set.evaluate("bad", &Context::new(), NOW);
        assert_eq!(bad.value, None);
        assert_eq!(bad.error, Some(ErrorCode::ParseError));
        assert_eq!(bad.message, Some(why.to_string().as_str()));
        assert_eq!(bad.metadata.unwrap()["version"], "7");
        assert!(set.details("good", &Context::new(), NOW, false).value);
    }
}

#[test]
fn what_is_no_definition_is_refused_as_a_whole() {
    let parse = |text| FlagSet::parse(text, Bucketing::V3).map(|_| ());
    assert!(matches!(parse("{"), Err(Malformed::NoJson(_))));
    assert_eq!(parse("[]"), Err(Malformed::Flags));
    assert_eq!(parse("{}"), Err(Malformed::Flags));
    assert_eq!(parse(r#"{"flags": 1}"#), Err(Malformed::Flags));
    assert_eq!(parse(r#"{"flags": [{}]}"#), Err(Malformed::Flags));
    let evaluators = r#"{"flags": {}, "$evaluators": []}"#;
    assert_eq!(parse(evaluators), Err(Malformed::Evaluators));
    let metadata = r#"{"flags": {}, "metadata": "x"}"#;
    assert_eq!(parse(metadata), Err(Malformed::Metadata));
    assert_eq!(parse(r#"{"flags": {}}"#), Ok(()));
}

#[test]
fn flags_in_a_list_are_known_by_their_key() {
    let set = set(&json!({"flags": [
        {"key": "f", "state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"},
    ]}));
    assert!(set.details("f", &Context::new(), NOW, false).value);
    assert_eq!(set.flags().map(Flag::key).collect::<Vec<_>>(), ["f"]);
}

#[test]
fn a_flag_s_metadata_is_over_that_of_its_set() {
    let set = set(&json!({
        "metadata": {"owner": "us", "version": "7"},
        "flags": {"f": {
            "state": "DISABLED", "variants": {"on": true}, "metadata": {"owner": "me"},
        }},
    }));
    let known = set.evaluate("f", &Context::new(), NOW);
    assert_eq!(
        json!(known.metadata),
        json!({"owner": "me", "version": "7"})
    );
    let unknown = set.evaluate("g", &Context::new(), NOW);
    assert_eq!(unknown.error, Some(ErrorCode::FlagNotFound));
    assert_eq!(
        json!(unknown.metadata),
        json!({"owner": "us", "version": "7"})
    );
    assert_eq!(
        json!(set.metadata()),
        json!({"owner": "us", "version": "7"})
    );
}

#[test]
fn every_evaluation_says_the_revision_of_its_set() {
    let set = flag_with(&json!({"defaultVariant": "a"})).at_revision(42);
    for key in ["f", "unknown"] {
        assert_eq!(set.evaluate(key, &Context::new(), NOW).revision, 42);
    }
    let wrong = set.details("f", &Context::new(), NOW, true);
    assert_eq!((wrong.value, wrong.revision), (true, 42));
}

#[test]
fn numbers_change_between_whole_and_real_only_without_loss() {
    let beyond = (1_i64 << 53) + 2;
    let set = set(&json!({"flags": {
        "ten": {"state": "ENABLED", "variants": {"x": 10.0}, "defaultVariant": "x"},
        "broken": {"state": "ENABLED", "variants": {"x": 3.25}, "defaultVariant": "x"},
        "one": {"state": "ENABLED", "variants": {"x": 1}, "defaultVariant": "x"},
        "beyond": {"state": "ENABLED", "variants": {"x": beyond}, "defaultVariant": "x"},
        "huge": {"state": "ENABLED", "variants": {"x": u64::MAX}, "defaultVariant": "x"},
        "real": {"state": "ENABLED", "variants": {"x": 1e300}, "defaultVariant": "x"},
        "text": {"state": "ENABLED", "variants": {"x": "1"}, "defaultVariant": "x"},
    }}));
    let mismatch = Some(ErrorCode::TypeMismatch);
    for (key, whole, real) in [
        ("ten", Ok(10), Ok(10.0)),
        ("broken", Err(mismatch), Ok(3.25)),
        ("one", Ok(1), Ok(1.0)),
        ("beyond", Ok(beyond), Err(mismatch)),
        ("huge", Err(mismatch), Err(mismatch)),
        ("real", Err(mismatch), Ok(1e300)),
        ("text", Err(mismatch), Err(mismatch)),
    ] {
        let context = Context::new();
        let got = set.details(key, &context, NOW, -7);
        let want = whole.map_or_else(|error| (-7, error), |value| (value, None));
        assert_eq!((got.value, got.error), want, "{key} as a whole number");
        let got = set.details(key, &context, NOW, -7.5);
        let want = real.map_or_else(|error| (-7.5, error), |value| (value, None));
        assert_eq!((got.value, got.error), want, "{key} as a real number");
    }
}

#[test]
fn another_type_gives_the_fallback_and_no_variant() {
    let set = flag_with(&json!({"defaultVariant": "a"}));
    let got = set.details("f", &Context::new(), NOW, true);
    assert_eq!((got.value, got.variant), (true, None));
    assert_eq!(got.reason, Reason::Error);
    assert_eq!(got.error, Some(ErrorCode::TypeMismatch));
}

#[test]
fn a_rule_sees_the_flag_s_key_the_time_and_the_targeting_key() {
    for (targeting, context, want) in [
        (
            json!({"if": [{"===": [{"var": "$flagd.flagKey"}, "f"]}, "a"]}),
            Context::new(),
            "a",
        ),
        (
            json!({"if": [{"===": [{"var": "$flagd.timestamp"}, 1_790_000_000]}, "a"]}),
            Context::new(),
            "a",
        ),
        // What flagd puts there hides an attribute of that name.
        (
            json!({"if": [{"===": [{"var": "$flagd"}, 1]}, "a", "b"]}),
            Context::new().with("$flagd", 1),
            "b",
        ),
        (
            json!({"var": "targetingKey"}),
            Context::of("a").with("targetingKey", "b"),
            "a",
        ),
        (
            json!({"var": "targetingKey"}),
            Context::new().with("targetingKey", "b"),
            "b",
        ),
        // The whole context is an object, and has the same inside.
        (
            json!({"if": [{"!!": {"var": ""}}, "a"]}),
            Context::new(),
            "a",
        ),
        (
            json!({"reduce": [[1], {"if": [{"var": "$flagd.flagKey"}, "b", "a"]}]}),
            Context::new(),
            "a",
        ),
    ] {
        let set = flag_with(&json!({ "targeting": targeting }));
        let got = set.evaluate("f", &context, NOW);
        assert_eq!(got.variant, Some(want), "{targeting}");
    }
}

#[test]
fn the_time_is_in_whole_seconds_also_before_1970() {
    for (ms, seconds) in [(1_999, 1), (0, 0), (-1, -1), (-1_000, -1), (-1_001, -2)] {
        let is_then = json!({"===": [{"var": "$flagd.timestamp"}, seconds]});
        let set = flag_with(&json!({"targeting": {"if": [is_then, "a", "b"]}}));
        let got = set.evaluate("f", &Context::new(), Moment::from_unix_ms(ms));
        assert_eq!(got.variant, Some("a"), "{ms} ms");
    }
}

#[test]
fn the_two_ways_of_bucketing_disagree() {
    let definition = json!({"flags": {"f": {
        "state": "ENABLED",
        "variants": {"in": true, "out": false},
        "targeting": {"fractional": [["in", 20], ["out", 80]]},
    }}});
    let [second, third] = [Bucketing::V2, Bucketing::V3]
        .map(|bucketing| FlagSet::compile(&definition, bucketing).unwrap());
    let (mut before, mut still) = (0, 0);
    for id in 0..10_000 {
        let id = format!("user-{id}");
        let is_in = |set: &FlagSet| set.details("f", &Context::of(&*id), NOW, false).value;
        if is_in(&second) {
            before += 1;
            still += usize::from(is_in(&third));
        }
    }
    // A fifth of all, and a fifth of those: to change the way is to draw lots again.
    assert!((1_850..2_150).contains(&before), "{before} of 10,000");
    assert!((300..500).contains(&still), "{still} of {before}");
}

#[test]
fn weights_that_make_no_sense_give_the_default() {
    let whole = 2_147_483_647_u32;
    for (weights, want) in [
        (json!([["a", 0], ["b", 0]]), None),
        (json!([["a", -1], ["b", 1]]), Some("b")),
        (json!([["a", 0.0], ["b", 2.0]]), Some("b")),
        (json!([["a", 0], ["b", 0.5]]), None),
        (json!([["a", 0], ["b", "1"]]), None),
        (json!([["a", 0], ["b", null]]), None),
        (json!([["a", 0], ["b", true]]), None),
        (json!([["a", 0], ["b", whole]]), Some("b")),
        (json!([["a", 1], ["b", whole]]), None),
        (json!([["a", 0], ["b", 1, 2]]), None),
        (json!([["a", 0], []]), None),
        (json!([["a", 0], "b"]), None),
        (json!([["a", 0], ["b", {"+": [1, 2]}]]), Some("b")),
        // A list that only the context has.
        (json!([["a", 0], {"var": "share"}]), Some("b")),
        (json!([{"var": "share"}, ["a", 0]]), Some("b")),
        (json!([]), None),
    ] {
        for bucketing in [Bucketing::V2, Bucketing::V3] {
            let definition = json!({"flags": {"f": {
                "state": "ENABLED",
                "variants": {"a": 1, "b": 2},
                "targeting": {"fractional": weights},
            }}});
            let set = FlagSet::compile(&definition, bucketing).unwrap();
            let context = Context::of("u").with("share", json!(["b", 9]));
            let got = set.evaluate("f", &context, NOW);
            assert_eq!(got.variant, want, "{weights} {bucketing:?}");
            assert_eq!(got.error, None, "{weights} {bucketing:?}");
        }
    }
}

#[test]
fn nobody_without_a_targeting_key_is_bucketed_by_it() {
    for context in [
        Context::new(),
        Context::of(""),
        Context::new().with("targetingKey", 7),
    ] {
        for bucketing in [Bucketing::V2, Bucketing::V3] {
            let definition = json!({"flags": {"f": {
                "state": "ENABLED",
                "variants": {"a": 1, "b": 2},
                "defaultVariant": "b",
                "targeting": {"fractional": [["a", 1]]},
            }}});
            let set = FlagSet::compile(&definition, bucketing).unwrap();
            let got = set.evaluate("f", &context, NOW);
            assert_eq!((got.variant, got.reason), (Some("b"), Reason::Default));
        }
    }
}

#[test]
fn a_number_and_its_text_are_two_keys_only_for_the_third_way() {
    let definition = json!({"flags": {"f": {
        "state": "ENABLED",
        "variants": {"a": 1, "b": 2},
        "targeting": {"fractional": [{"var": "id"}, ["a", 1], ["b", 1]]},
    }}});
    let variants = |bucketing, id: &dyn Fn(u32) -> Value| -> Vec<bool> {
        let set = FlagSet::compile(&definition, bucketing).unwrap();
        let variant = |it| {
            let context = Context::new().with("id", id(it));
            set.evaluate("f", &context, NOW).variant == Some("a")
        };
        (0..100).map(variant).collect()
    };
    let whole = variants(Bucketing::V3, &|it| json!(it));
    let real = variants(Bucketing::V3, &|it| json!(f64::from(it)));
    let text = variants(Bucketing::V3, &|it| json!(it.to_string()));
    assert_eq!(whole, real);
    assert_ne!(whole, text);
    // The second way takes only texts: nobody is in, here that is no variant at all.
    assert_eq!(variants(Bucketing::V2, &|it| json!(it)), [false; 100]);
}

#[test]
fn a_rule_that_nests_fractional_deeply_is_evaluated_at_once() {
    // If each level evaluated the next one twice, forty of them would take many hours.
    for wrap in [
        |inner: Value| json!({"fractional": [[1, inner]]}),
        |inner: Value| json!({"fractional": [[inner, 1], [{"var": "x"}, 0]]}),
        |inner: Value| json!({"fractional": [{"cat": [inner, "x"]}, ["a", 1]]}),
        |inner: Value| json!({"substr": ["aaa", 0, {"+": [1, {"*": [0, inner]}]}]}),
    ] {
        let mut rule = json!(1);
        for _ in 0..40 {
            rule = wrap(rule);
        }
        for bucketing in [Bucketing::V2, Bucketing::V3] {
            let definition = json!({"flags": {"f": {
                "state": "ENABLED", "variants": {"a": 1}, "targeting": rule,
            }}});
            let set = FlagSet::compile(&definition, bucketing).unwrap();
            assert_eq!(set.flag("f").unwrap().broken(), None);
            set.evaluate("f", &Context::of("u"), NOW);
        }
    }
}

#[test]
fn a_rule_that_is_too_deep_or_too_large_is_refused() {
    let mut deep = json!(true);
    for _ in 0..200 {
        deep = json!({ "!": deep });
    }
    let too_deep = flag_with(&json!({ "targeting": deep }));
    let why = too_deep.flag("f").unwrap().broken();
    assert_eq!(why, Some(&Broken::Targeting(RuleError::TooDeep)));

    // Each evaluator is ten times the one before: the last one would have 10^20 nodes.
    let mut evaluators = json!({"e0": {"!": true}});
    for level in 1..20 {
        let inner = json!({"$ref": format!("e{}", level - 1)});
        evaluators[format!("e{level}")] = json!({"or": vec![inner; 10]});
    }
    let too_large = set(&json!({
        "$evaluators": evaluators,
        "flags": {"f": {
            "state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"$ref": "e19"}, "a"]},
        }},
    }));
    let why = too_large.flag("f").unwrap().broken();
    assert_eq!(why, Some(&Broken::Targeting(RuleError::TooLarge)));
}

#[test]
fn an_evaluator_may_refer_to_another_and_be_used_twice() {
    let set = set(&json!({
        "$evaluators": {
            "staff": {"ends_with": [{"var": "email"}, "@example.com"]},
            "testers": {"or": [{"$ref": "staff"}, {"in": [{"var": "plan"}, ["beta", "alpha"]]}]},
        },
        "flags": {"f": {
            "state": "ENABLED",
            "variants": {"a": 1, "b": 2, "c": 3},
            "targeting": {"if": [
                {"and": [{"$ref": "testers"}, {"$ref": "staff"}]}, "a", {"$ref": "testers"}, "b", "c",
            ]},
        }},
    }));
    for (name, value, want) in [
        ("email", "ada@example.com", "a"),
        ("plan", "beta", "b"),
        ("plan", "pro", "c"),
    ] {
        let context = Context::new().with(name, value);
        assert_eq!(
            set.evaluate("f", &context, NOW).variant,
            Some(want),
            "{value}"
        );
    }
}

//! What one flag gives to whom, and why.

use gonfalon_flags::{Context, ErrorCode, FlagSet, FlagValue, Moment, Percent, Reason, Seed};
use serde_json::{Value, json};

const NOW: Moment = Moment::from_unix_ms(1_795_827_723_004);

/// A set with the one flag `f`.
fn set(definition: &Value) -> FlagSet {
    let mut set = FlagSet::new();
    let text = definition.to_string();
    set.apply(5, [("f", Some(text.as_bytes()))]);
    let problem = set.problems().next().map(|problem| problem.error.clone());
    assert_eq!(problem, None, "{definition}");
    set
}

/// Value, variant, reason and error.
type Told<'a, T> = (T, Option<&'a str>, Reason, Option<ErrorCode>);

fn told<'s, T: FlagValue<'s>>(set: &'s FlagSet, context: &Context<'_>, fallback: T) -> Told<'s, T> {
    let details = set.details("f", context, NOW, fallback);
    (
        details.value,
        details.variant,
        details.reason,
        details.error,
    )
}

#[test]
fn a_flag_with_a_percentage_is_true_for_these_ids_and_they_stay_when_it_is_raised() {
    let at = |percent: u32| set(&json!({"enabled": true, "rollout_percent": percent}));
    let (fifth, half) = (at(20), at(50));
    let ids = |set: &FlagSet| -> Vec<u32> {
        let is_on = |id: &u32| set.get("f", &Context::of(id.to_string()), NOW, false);
        (0..10_000).filter(is_on).collect()
    };
    let (fifth_ids, half_ids) = (ids(&fifth), ids(&half));
    let share = Percent::from_percent(20.0).unwrap();
    let want = (0..10_000)
        .filter(|id: &u32| share.contains(Seed::new("f").bucket(id.to_string().as_bytes())));
    assert_eq!(fifth_ids, want.collect::<Vec<_>>());
    assert!(
        (1_880..2_120).contains(&fifth_ids.len()),
        "{} of 10,000",
        fifth_ids.len()
    );
    assert!(
        (4_850..5_150).contains(&half_ids.len()),
        "{} of 10,000",
        half_ids.len()
    );
    assert!(
        fifth_ids
            .iter()
            .all(|id| half_ids.binary_search(id).is_ok())
    );

    let (first, second) = (fifth_ids[0].to_string(), "not in it".to_owned());
    let split = Reason::Split;
    assert_eq!(
        told(&fifth, &Context::of(first), false),
        (true, Some("on"), split, None)
    );
    assert!(!share.contains(Seed::new("f").bucket(second.as_bytes())));
    assert_eq!(
        told(&fifth, &Context::of(second), true),
        (false, Some("off"), split, None)
    );
}

#[test]
fn zero_and_a_hundred_percent_decide_without_a_targeting_key() {
    for (percent, want, name) in [(0, false, "off"), (100, true, "on")] {
        let set = set(&json!({"enabled": true, "rollout_percent": percent}));
        for context in [Context::new(), Context::of(""), Context::of("u")] {
            let want = (want, Some(name), Reason::Split, None);
            assert_eq!(
                told(&set, &context, !want.0),
                want,
                "{percent} % of {context:?}"
            );
        }
    }
}

#[test]
fn without_a_targeting_key_a_percentage_is_passed_over_and_the_default_says_so() {
    let definition = json!({"enabled": true, "rollout_percent": 99.999});
    let missing = Some(ErrorCode::TargetingKeyMissing);
    for context in [
        Context::new(),
        Context::of(""),
        Context::new().with("targetingKey", "u"),
    ] {
        let want = (false, Some("off"), Reason::Error, missing);
        assert_eq!(told(&set(&definition), &context, true), want, "{context:?}");
    }
    // A later rule that needs no key decides, and nothing is wrong.
    let definition = json!({"enabled": true, "default": "off", "rules": [
        {"rollout_percent": 50}, {"if": {"attribute": "plan", "is": "pro"}},
    ]});
    let context = Context::new().with("plan", "pro");
    let want = (true, Some("on"), Reason::TargetingMatch, None);
    assert_eq!(told(&set(&definition), &context, false), want);
}

#[test]
fn a_percentage_may_be_of_an_attribute_and_a_whole_number_is_its_text() {
    let definition = json!({"enabled": true, "rollout_percent": 50, "by": ["tenant", "id"]});
    let set = set(&definition);
    let of = |id: Value| Context::new().with("tenant", json!({"id": id}));
    for number in 0..200_u32 {
        let bucket = Seed::new("f").bucket(number.to_string().as_bytes());
        let want = Percent::from_percent(50.0).unwrap().contains(bucket);
        for id in [json!(number), json!(number.to_string())] {
            assert_eq!(set.get("f", &of(id.clone()), NOW, !want), want, "{id}");
        }
    }
    for (id, error) in [
        (json!(1.5), ErrorCode::InvalidContext),
        (json!(true), ErrorCode::InvalidContext),
        (json!([1]), ErrorCode::InvalidContext),
        (json!(null), ErrorCode::TargetingKeyMissing),
        (json!(""), ErrorCode::TargetingKeyMissing),
    ] {
        let want = (false, Some("off"), Reason::Error, Some(error));
        assert_eq!(told(&set, &of(id.clone()), true), want, "{id}");
    }
    let want = (
        false,
        Some("off"),
        Reason::Error,
        Some(ErrorCode::TargetingKeyMissing),
    );
    assert_eq!(told(&set, &Context::of("user"), true), want);
}

#[test]
fn switched_off_beats_everything() {
    let rest = json!({
        "targets": {"on": ["u"]}, "rules": [{}], "rollout_percent": 100, "default": "on",
    });
    for (fields, variant) in [
        (json!({"enabled": false}), "off"),
        (json!({"enabled": true, "archived": true}), "off"),
        (json!({"enabled": false, "off": "on"}), "on"),
    ] {
        let mut definition = rest.clone();
        definition
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let set = set(&definition);
        let want = (variant == "on", Some(variant), Reason::Disabled, None);
        assert_eq!(
            told(&set, &Context::of("u"), variant == "off"),
            want,
            "{definition}"
        );
        let archived = definition["archived"] == true;
        let details = set.details("f", &Context::new(), NOW, false);
        let says_so = details
            .metadata
            .and_then(|metadata| metadata.get("archived"));
        assert_eq!(says_so, archived.then_some(&json!(true)), "{definition}");
    }
}

#[test]
fn a_flag_without_a_value_for_somebody_gives_the_fallback_and_no_variant() {
    let off = set(&json!({"enabled": false, "value": "blue"}));
    assert_eq!(
        told(&off, &Context::new(), "code"),
        ("code", None, Reason::Disabled, None)
    );
    let some = set(&json!({"enabled": true, "value": "blue", "rollout_percent": 0}));
    assert_eq!(
        told(&some, &Context::new(), "code"),
        ("code", None, Reason::Split, None)
    );
    let none = set(&json!({"enabled": true, "variants": {"a": 1}, "default": null}));
    assert_eq!(
        told(&none, &Context::new(), 7_i64),
        (7, None, Reason::Static, None)
    );
}

#[test]
fn targets_come_before_rules_and_rules_before_the_default() {
    let set = set(&json!({
        "enabled": true,
        "variants": {"red": "#f00", "green": "#0f0", "blue": "#00f", "grey": "#888"},
        "default": "grey",
        "targets": {"red": ["u2", "u1"]},
        "rules": [
            {"if": {"attribute": "plan", "is": "pro"}, "variant": "green"},
            {"if": {"attribute": "plan", "in": ["pro", "free"]}, "variant": "blue"},
        ],
        "metadata": {"ticket": "X-1"},
    }));
    let matched = Reason::TargetingMatch;
    for (id, plan, want) in [
        ("u1", "pro", ("#f00", Some("red"), matched, None)),
        ("u2", "none", ("#f00", Some("red"), matched, None)),
        ("u3", "pro", ("#0f0", Some("green"), matched, None)),
        ("u3", "free", ("#00f", Some("blue"), matched, None)),
        ("u3", "none", ("#888", Some("grey"), Reason::Default, None)),
    ] {
        let context = Context::of(id).with("plan", plan);
        assert_eq!(told(&set, &context, "code"), want, "{id} with {plan}");
    }
    let details = set.details("f", &Context::new(), NOW, "code");
    assert_eq!(details.metadata.unwrap()["ticket"], "X-1");
    assert_eq!(details.revision, 5);
}

#[test]
fn whom_a_rules_percentage_leaves_out_goes_on_to_the_next_rule() {
    let set = set(&json!({
        "enabled": true, "default": "off", "variants": {"off": 0, "a": 1, "b": 2},
        "rules": [
            {"rollout_percent": 20, "variant": "a"},
            {"rollout_percent": 50, "variant": "b"},
        ],
    }));
    for id in (0..500_u32).map(|id| id.to_string()) {
        let want = match Seed::new("f").bucket(id.as_bytes()).thousandths() {
            0..20_000 => 1,
            20_000..50_000 => 2,
            _ => 0,
        };
        assert_eq!(
            set.get("f", &Context::of(id.as_str()), NOW, 9_i64),
            want,
            "{id}"
        );
    }
}

#[test]
fn a_rule_may_have_a_salt_and_an_attribute_of_its_own() {
    let set = set(&json!({
        "enabled": true, "rollout_percent": 30, "variants": {"off": 0, "on": 1, "a": 2, "b": 3},
        "default": "off", "salt": "flag", "by": "user",
        "rules": [
            {"rollout_percent": 30, "variant": "a", "salt": "rule"},
            {"rollout_percent": 30, "variant": "b", "by": "tenant"},
        ],
    }));
    let is_in = |salt: &str, id: &str| Seed::new(salt).bucket(id.as_bytes()).thousandths() < 30_000;
    let mut counts = [0; 4];
    for number in 0..500_u32 {
        let (user, tenant) = (format!("user-{number}"), format!("tenant-{}", number % 20));
        let want = match (
            is_in("rule", &user),
            is_in("flag", &tenant),
            is_in("flag", &user),
        ) {
            (true, ..) => 2,
            (_, true, _) => 3,
            (.., true) => 1,
            _ => 0,
        };
        let context = Context::of("nobody")
            .with("user", user.as_str())
            .with("tenant", tenant.as_str());
        assert_eq!(
            set.get("f", &context, NOW, 9_i64),
            want,
            "{user} of {tenant}"
        );
        counts[usize::try_from(want).unwrap()] += 1;
    }
    assert!(
        counts.iter().all(|count| *count > 20),
        "each is given to some: {counts:?}"
    );
}

#[test]
fn a_split_is_independent_of_the_percentage_before_it() {
    let set = set(&json!({
        "enabled": true, "rollout_percent": 20, "default": null, "variants": {"a": 1, "b": 2},
        "split": [{"variant": "a", "percent": 50}, {"variant": "b", "percent": 50}],
    }));
    let mut counts = [0; 3];
    for id in (0..50_000_u32).map(|id| id.to_string()) {
        let got = set.get("f", &Context::of(id.as_str()), NOW, 0_i64);
        let is_in = Seed::new("f").bucket(id.as_bytes()).thousandths() < 20_000;
        let first = Seed::for_split("f").bucket(id.as_bytes()).thousandths() < 50_000;
        let want = i64::from(is_in) * if first { 1 } else { 2 };
        assert_eq!(got, want, "{id}");
        counts[usize::try_from(got).unwrap()] += 1;
    }
    // 5,000 each; four standard deviations are 268.
    assert!(
        counts[1..]
            .iter()
            .all(|count| (4_732..5_268).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn a_split_with_room_left_gives_the_default_to_the_rest() {
    let set = set(&json!({
        "enabled": true, "default": "rest", "variants": {"a": 1, "rest": 0},
        "split": [{"variant": "a", "percent": 30, "from": 10}], "salt": "other",
    }));
    for id in (0..500_u32).map(|id| id.to_string()) {
        let bucket = Seed::for_split("other").bucket(id.as_bytes()).thousandths();
        let (value, name) = if (10_000..40_000).contains(&bucket) {
            (1, "a")
        } else {
            (0, "rest")
        };
        let want = (value, Some(name), Reason::Split, None);
        assert_eq!(told(&set, &Context::of(id.as_str()), 9_i64), want, "{id}");
    }
    let one = json!({"enabled": true, "variants": {"a": 1}, "default": null, "split": [{"variant": "a", "percent": 100}]});
    let want = (1, Some("a"), Reason::Split, None);
    assert_eq!(told(&self::set(&one), &Context::new(), 9_i64), want);
}

#[test]
fn a_schedule_follows_the_time_that_is_given() {
    let set = set(&json!({"enabled": true, "rollout": {"steps": [
        {"at": "2026-01-01T00:00:00Z", "percent": 100},
    ]}}));
    for (time, want) in [
        ("2025-12-31T23:59:59.999Z", false),
        ("2026-01-01T00:00:00Z", true),
    ] {
        let now = Moment::parse(time).unwrap();
        assert_eq!(set.get("f", &Context::of("u"), now, !want), want, "{time}");
    }
}

#[test]
fn a_value_of_another_type_is_the_fallback_and_a_type_mismatch() {
    let set = set(&json!({"enabled": true, "value": 10.0}));
    let mismatch = Some(ErrorCode::TypeMismatch);
    let context = Context::new();
    assert_eq!(
        told(&set, &context, true),
        (true, None, Reason::Error, mismatch)
    );
    assert_eq!(
        told(&set, &context, "ten"),
        ("ten", None, Reason::Error, mismatch)
    );
    assert_eq!(
        told(&set, &context, 7_i64),
        (10, Some("on"), Reason::Static, None)
    );
    assert_eq!(
        told(&set, &context, 7.5),
        (10.0, Some("on"), Reason::Static, None)
    );
    let any = &Value::Null;
    assert_eq!(
        told(&set, &context, any),
        (&json!(10.0), Some("on"), Reason::Static, None)
    );
    assert_eq!(set.get("f", &context, NOW, "ten"), "ten");
}

#[test]
fn ids_are_compared_as_bytes_and_not_as_letters() {
    let set = set(&json!({
        "enabled": true, "default": "off",
        "targets": {"on": ["\u{fc}", "a\u{0}b", "__proto__"]},
    }));
    for (id, want) in [
        ("\u{fc}", true),
        ("u\u{308}", false),
        ("\u{dc}", false),
        ("a\u{0}b", true),
        ("a", false),
        ("__proto__", true),
    ] {
        assert_eq!(set.get("f", &Context::of(id), NOW, !want), want, "{id:?}");
    }
}

//! What holds for all rules, contexts and users of flagd mode.

use gonfalon_flags::flagd::{Bucketing, FlagSet, Schema, check};
use gonfalon_flags::{Context, Moment};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const START: Moment = Moment::from_unix_ms(0);

fn bucketings() -> impl Strategy<Value = Bucketing> {
    prop_oneof![Just(Bucketing::V2), Just(Bucketing::V3)]
}

/// A flag whose first variant has so many of `of` parts.
fn rollout(key: &str, bucketing: Bucketing, parts: u32, of: u32) -> FlagSet {
    let definition = json!({"flags": {key: {
        "state": "ENABLED",
        "variants": {"on": true, "off": false},
        "targeting": {"fractional": [["on", parts], ["off", of - parts]]},
    }}});
    FlagSet::compile(&definition, bucketing).expect("it is a definition")
}

fn is_on(set: &FlagSet, key: &str, user: &str) -> bool {
    let details = set.details(key, &Context::of(user), START, false);
    assert_eq!(details.error, None);
    details.value
}

/// All of them; `fractional` twice, since it is what matters most.
const OPERATORS: &[&str] = &[
    "var",
    "missing",
    "missing_some",
    "if",
    "?:",
    "and",
    "or",
    "!",
    "!!",
    "==",
    "===",
    "!=",
    "!==",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "min",
    "max",
    "cat",
    "substr",
    "in",
    "merge",
    "map",
    "filter",
    "all",
    "some",
    "none",
    "log",
    "starts_with",
    "ends_with",
    "sem_ver",
    "fractional",
    "fractional",
];

/// Any JSON, and often a rule.
fn logic() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3_i64..5).prop_map(Value::from),
        "[a-c.$ü😀]{0,4}".prop_map(Value::from),
        prop::sample::select(vec![
            "1.0.0",
            "v1",
            "=",
            "~",
            "targetingKey",
            "$flagd.timestamp",
            "a.b"
        ])
        .prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner.clone(), 0..3)
                .prop_map(|map| Value::from(Map::from_iter(map))),
            (
                prop::sample::select(OPERATORS),
                prop::collection::vec(inner.clone(), 0..5)
            )
                .prop_map(|(operator, arguments)| json!({operator: arguments})),
            (prop::sample::select(OPERATORS), inner)
                .prop_map(|(operator, argument)| json!({operator: argument})),
        ]
    })
}

proptest! {
    /// However strange a rule and a context are, there is an answer, and the same one twice.
    #[test]
    fn every_rule_has_an_answer_for_every_context(
        rule in logic(),
        attributes in prop::collection::btree_map("[a-c]", logic(), 0..4),
        user in prop::option::of(".{0,8}"),
        bucketing in bucketings(),
        now_ms in any::<i64>(),
    ) {
        let definition = json!({"flags": {"f": {
            "state": "ENABLED",
            "variants": {"a": 1, "true": 2, "0": 3},
            "targeting": rule,
        }}});
        // Nor may the check fail, whatever it finds.
        check(&definition, Schema::Flags);
        let set = FlagSet::compile(&definition, bucketing).unwrap();
        let mut context = user.map_or_else(Context::new, Context::of);
        for (name, value) in attributes {
            context.set(name, value);
        }
        let first = set.evaluate("f", &context, Moment::from_unix_ms(now_ms));
        let second = set.evaluate("f", &context, Moment::from_unix_ms(now_ms));
        prop_assert_eq!(&first, &second);
        prop_assert!(first.value.is_some() == first.variant.is_some());
    }

    /// More parts for the first variant only add users to it; none and all are exact.
    #[test]
    fn raising_a_share_only_adds_users(
        user in ".{1,12}",
        low in 0_u32..=1000,
        more in 0_u32..=1000,
        bucketing in bucketings(),
    ) {
        let high = (low + more).min(1000);
        let before = is_on(&rollout("f", bucketing, low, 1000), "f", &user);
        let after = is_on(&rollout("f", bucketing, high, 1000), "f", &user);
        prop_assert!(after || !before);
        prop_assert!(!is_on(&rollout("f", bucketing, 0, 1000), "f", &user));
        prop_assert!(is_on(&rollout("f", bucketing, 1000, 1000), "f", &user));
    }
}

/// Users of the independence and the evenness below; both are fixed, so they hold or do not.
const USERS: u32 = 100_000;

#[test]
fn two_flags_divide_users_independently() {
    for bucketing in [Bucketing::V2, Bucketing::V3] {
        let [first, second] = ["checkout", "dark_mode"].map(|key| rollout(key, bucketing, 20, 100));
        let both = (0..USERS)
            .map(|user| format!("user-{user}"))
            .filter(|user| is_on(&first, "checkout", user) && is_on(&second, "dark_mode", user));
        // Four of a hundred; the standard deviation is 62.
        let both = both.count();
        assert!(
            (3_750..4_250).contains(&both),
            "{both} of {USERS} with {bucketing:?}"
        );
    }
}

#[test]
fn variants_of_one_weight_get_as_many_users_each() {
    let names: Vec<String> = (0..100).map(|it| it.to_string()).collect();
    let variants: Map<String, Value> = names.iter().map(|it| (it.clone(), json!(it))).collect();
    let shares: Vec<Value> = names.iter().map(|name| json!([name])).collect();
    for bucketing in [Bucketing::V2, Bucketing::V3] {
        let definition = json!({"flags": {"f": {
            "state": "ENABLED", "variants": variants, "targeting": {"fractional": shares},
        }}});
        let set = FlagSet::compile(&definition, bucketing).unwrap();
        let mut counts = vec![0_u32; names.len()];
        for user in 0..USERS {
            let details = set.evaluate("f", &Context::of(format!("user-{user}")), START);
            let variant: usize = details.variant.unwrap().parse().unwrap();
            counts[variant] += 1;
        }
        let expected = f64::from(USERS) / 100.0;
        let chi_square: f64 = counts
            .iter()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        // 99 degrees of freedom: below 60 or above 149 once in a thousand draws.
        assert!(
            (60.0..149.0).contains(&chi_square),
            "{chi_square} with {bucketing:?}"
        );
    }
}

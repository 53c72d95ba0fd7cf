//! What holds for any ids and percentages: raising one only adds, flags are independent, buckets are
//! even.

use gonfalon_flags::{Context, Definition, FlagSet, Moment, Percent, Seed};
use proptest::prelude::*;
use serde_json::json;

const NOW: Moment = Moment::from_unix_ms(0);
const BUCKETS: u32 = 100_000;

fn set(name: &str, thousandths: u32) -> FlagSet {
    let percent = Percent::from_thousandths(thousandths).expect("a share");
    let json = json!({"enabled": true, "rollout_percent": percent.percent()}).to_string();
    let mut set = FlagSet::new();
    set.apply(1, [(name, Some(json.as_bytes()))]);
    assert_eq!(set.problems().count(), 0, "{json}");
    set
}

fn is_on(set: &FlagSet, name: &str, id: &str) -> bool {
    set.get(name, &Context::of(id), NOW, false)
}

/// How many of the first `count` ids are in the first `share` buckets of each of the salts.
fn in_all(salts: &[&str], share: u32, count: u32) -> u32 {
    let seeds: Vec<Seed> = salts.iter().map(|salt| Seed::new(salt)).collect();
    let is_in = |id: &u32| {
        let id = format!("user-{id}");
        seeds
            .iter()
            .all(|seed| seed.bucket(id.as_bytes()).thousandths() < share)
    };
    u32::try_from((0..count).filter(is_in).count()).expect("a part of count")
}

proptest! {
    #[test]
    fn raising_a_percentage_only_adds_ids(
        name in ".{1,20}", id in ".{0,40}", mut shares in prop::array::uniform2(0..=BUCKETS),
    ) {
        shares.sort_unstable();
        let [low, high] = shares.map(|share| is_on(&set(&name, share), &name, &id));
        prop_assert!(!low || high, "{id:?} has {name:?} at {} and not at {}", shares[0], shares[1]);
    }

    #[test]
    fn zero_percent_is_nobody_and_a_hundred_everybody(name in ".{1,20}", id in ".{0,40}") {
        prop_assert!(!is_on(&set(&name, 0), &name, &id));
        prop_assert!(is_on(&set(&name, BUCKETS), &name, &id));
    }

    #[test]
    fn a_percentage_ends_exactly_at_the_bucket(name in ".{1,20}", id in ".{1,40}") {
        let bucket = Seed::new(&name).bucket(id.as_bytes()).thousandths();
        prop_assert!(!is_on(&set(&name, bucket), &name, &id));
        prop_assert!(is_on(&set(&name, bucket + 1), &name, &id));
    }

    #[test]
    fn a_range_of_a_split_begins_and_ends_exactly_at_the_bucket(id in ".{1,40}") {
        let bucket = Seed::for_split("s").bucket(id.as_bytes()).thousandths();
        for (from, to, want) in [
            (0, bucket, false),
            (0, bucket + 1, true),
            (bucket, BUCKETS, true),
            (bucket + 1, BUCKETS, false),
        ] {
            let [from_percent, percent] = [from, to - from].map(|share| f64::from(share) / 1000.0);
            let json = json!({
                "enabled": true, "salt": "s", "default": "off",
                "split": [{"variant": "on", "from": from_percent, "percent": percent}],
            });
            let mut set = FlagSet::new();
            set.apply(1, [("f", Some(json.to_string().as_bytes()))]);
            prop_assert_eq!(set.problems().count(), 0, "{}", json);
            prop_assert_eq!(is_on(&set, "f", &id), want, "{} in {}..{}", bucket, from, to);
        }
    }

    /// A flag that is only a percentage is decided without looking at rules. Here is the same with
    /// a rule for nobody.
    #[test]
    fn a_percentage_alone_decides_as_one_among_rules(
        id in prop::option::of(".{0,40}"), percent in prop_oneof![Just(0), Just(100), 1..100_u32],
    ) {
        let mut set = FlagSet::new();
        let alone = json!({"enabled": true, "rollout_percent": percent, "salt": "s"});
        let mut among = alone.clone();
        among["rules"] = json!([{"if": {"any": []}}]);
        let [alone, among] = [alone, among].map(|json| json.to_string());
        let all = [("alone", Some(alone.as_bytes())), ("among", Some(among.as_bytes()))];
        set.apply(1, all);
        let context = id.map_or_else(Context::new, Context::of);
        let [alone, among] = ["alone", "among"].map(|name| set.details(name, &context, NOW, false));
        prop_assert_eq!(alone, among);
    }

    /// Shares of a split grow and shrink in any order, through the definition as it is written.
    #[test]
    fn growing_a_variant_moves_nobody_who_has_one(
        steps in prop::collection::vec(("[ab]", 0..=50_000_u32), 1..6), name in "[a-z]{1,8}",
    ) {
        let start = json!({
            "enabled": true, "variants": {"a": "a", "b": "b", "none": "none"}, "default": "none",
        });
        let mut definition = Definition::parse(start.to_string().as_bytes()).unwrap();
        let mut set = FlagSet::new();
        let ids: Vec<String> = (0..200).map(|id| format!("user-{id}")).collect();
        let mut before = vec!["none".to_owned(); ids.len()];
        for (revision, (variant, share)) in (1..).zip(steps) {
            let share = Percent::from_thousandths(share).unwrap();
            definition = definition.with_share(&variant, share).expect("half is always free");
            let split = definition.source()["split"].as_array().unwrap();
            if split.is_empty() {
                break;
            }
            let json = serde_json::Value::Object(definition.source().clone()).to_string();
            set.apply(revision, [(name.as_str(), Some(json.as_bytes()))]);
            prop_assert_eq!(set.problems().count(), 0, "{}", json);
            for (id, before) in ids.iter().zip(&mut before) {
                let now = set.get(name.as_str(), &Context::of(id.as_str()), NOW, "fallback");
                let is_moved = *before != now && *before != "none" && now != "none";
                prop_assert!(!is_moved, "{id} went from {before} to {now}");
                now.clone_into(before);
            }
        }
    }
}

#[test]
fn two_flags_with_twenty_percent_share_four_percent() {
    let count = 100_000;
    let pairs = [
        ("dark_mode", "checkout-v2"),
        ("a", "b"),
        ("flag-1", "flag-2"),
        ("", "\0variant"),
    ];
    for (one, other) in pairs {
        let both = in_all(&[one, other], 20_000, count);
        // 4,000 with a standard deviation of 62.
        assert!(
            (3_752..=4_248).contains(&both),
            "{one:?} and {other:?}: {both}"
        );
    }
}

#[test]
fn three_flags_with_half_of_all_share_an_eighth() {
    let all = in_all(&["a", "b", "c"], 50_000, 100_000);
    // 12,500 with a standard deviation of 105.
    assert!((12_080..=12_920).contains(&all), "{all}");
}

#[test]
fn buckets_are_even_by_chi_square() {
    let mut sum = 0.0;
    let salts: Vec<String> = (0..20).map(|salt| format!("flag-{salt}")).collect();
    for salt in &salts {
        let (seed, ids) = (Seed::new(salt), 100_000_u32);
        let mut counts = [0_u32; 100];
        for id in 0..ids {
            let bucket = seed.bucket(format!("user-{id}").as_bytes()).thousandths();
            counts[(bucket / 1_000) as usize] += 1;
        }
        let expected = f64::from(ids) / 100.0;
        let squares = counts.map(|count| (f64::from(count) - expected).powi(2) / expected);
        let chi_square: f64 = squares.iter().sum();
        // 99 degrees of freedom: beyond these it is once in 100,000 that chance alone does it.
        assert!((50.0..170.0).contains(&chi_square), "{salt}: {chi_square}");
        sum += chi_square;
    }
    // The mean of 20 has a standard deviation of 3.15.
    let mean = sum / 20.0;
    assert!((86.4..111.6).contains(&mean), "the mean is {mean}");
}

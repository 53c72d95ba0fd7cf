//! The golden vectors of flagd's `fractional`, made by `golden/flagd.py`.

use gonfalon_flags::flagd::{Bucketing, FlagSet};
use gonfalon_flags::{Context, Moment};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("golden/flagd.jsonl");

#[test]
fn every_key_falls_into_the_variant_where_the_reference_has_it() {
    let mut count = 0;
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).expect("a line is JSON");
        let bucketing = match vector["how"].as_u64() {
            Some(2) => Bucketing::V2,
            Some(3) => Bucketing::V3,
            _ => panic!("no way of bucketing: {line}"),
        };
        let weights = vector["weights"].as_array().expect("weights are a list");
        let mut fractional = Vec::new();
        let user = vector["user"].as_str().expect("a user is a string");
        let mut context = Context::of(user);
        if let Some(key) = vector.get("key") {
            fractional.push(json!({"var": "key"}));
            context.set("key", key.clone());
        }
        let mut variants = json!({});
        for (place, weight) in weights.iter().enumerate() {
            let name = place.to_string();
            variants[&name] = json!(place);
            fractional.push(json!([name, weight]));
        }
        let flag = vector["flag"].as_str().expect("a flag is a string");
        let definition = json!({"flags": {flag: {
            "state": "ENABLED",
            "variants": variants,
            "targeting": {"fractional": fractional},
        }}});
        let set = FlagSet::compile(&definition, bucketing).expect("it is a definition");
        let details = set.evaluate(flag, &context, Moment::from_unix_ms(0));
        assert_eq!(details.value, Some(&vector["place"]), "{line}");
        count += 1;
    }
    assert_eq!(count, 1_302, "the file is not the one that flagd.py makes");
}

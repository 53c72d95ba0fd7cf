//! How long an evaluation in flagd mode takes. Run with `cargo bench -p gonfalon-flags --bench flagd`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gonfalon_flags::flagd::{Bucketing, FlagSet};
use gonfalon_flags::{Context, Moment};
use serde_json::{Map, Value, json};

/// How many flags are in the set, so that a key is found among others.
const FLAGS: usize = 1000;
const NOW: Moment = Moment::from_unix_ms(1_790_000_000_000);

fn rules() -> Vec<(&'static str, Value)> {
    vec![
        ("static", json!({})),
        (
            "fractional",
            json!({"fractional": [["on", 20], ["off", 80]]}),
        ),
        (
            "fractional of cat",
            json!({"fractional": [
                {"cat": [{"var": "$flagd.flagKey"}, {"var": "email"}]}, ["on", 20], ["off", 80],
            ]}),
        ),
        (
            "if ends_with fractional",
            json!({"if": [
                {"ends_with": [{"var": "email"}, "@example.com"]},
                {"fractional": [["on", 20], ["off", 80]]},
                "off",
            ]}),
        ),
        (
            "two predicates and fractional",
            json!({"if": [
                {"and": [{"==": [{"var": "plan"}, "pro"]}, {">": [{"var": "age"}, 18]}]},
                {"fractional": [["on", 20], ["off", 80]]},
                "off",
            ]}),
        ),
        (
            "sem_ver",
            json!({"if": [{"sem_ver": [{"var": "version"}, ">=", "1.2.0"]}, "on", "off"]}),
        ),
    ]
}

fn evaluations(criterion: &mut Criterion) {
    let context = Context::of("5c3d8535-f81a-4478-a6d3-afaa4d51199e")
        .with("email", "ada@example.com")
        .with("plan", "pro")
        .with("age", 41)
        .with("version", "1.10.0");
    for (way, bucketing) in [("second", Bucketing::V2), ("third", Bucketing::V3)] {
        for (name, rule) in rules() {
            let flag = json!({
                "state": "ENABLED",
                "variants": {"on": true, "off": false},
                "defaultVariant": "off",
                "targeting": rule,
            });
            let flags: Map<String, Value> = (0..FLAGS)
                .map(|number| (format!("flag-{number}"), flag.clone()))
                .collect();
            let set = FlagSet::compile(&json!({ "flags": flags }), bucketing);
            let set = set.expect("it is a definition");
            criterion.bench_function(&format!("flagd/{way}/{name}"), |bencher| {
                bencher.iter(|| {
                    let details =
                        set.details(black_box("flag-500"), black_box(&context), NOW, false);
                    black_box(details.value)
                });
            });
        }
    }
}

criterion_group!(benches, evaluations);
criterion_main!(benches);

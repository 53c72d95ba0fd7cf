//! What evaluations in flagd mode must not do: allocate. The whole program counts, so it is one of
//! its own.

use std::hint::black_box;

use gonfalon_flags::flagd::{Bucketing, FlagSet};
use gonfalon_flags::{Context, Details, Moment, Reason};
use serde_json::{Value, json};

const EVALUATIONS: usize = 1000;
const NOW: Moment = Moment::from_unix_ms(1_790_000_000_000);

fn flag(targeting: &Value) -> Value {
    json!({
        "state": "ENABLED",
        "variants": {"a": 1, "b": 2, "true": 3, "false": 4},
        "defaultVariant": "a",
        "targeting": targeting,
        "metadata": {"owner": "us"},
    })
}

#[test]
fn an_evaluation_allocates_nothing() {
    let many: Vec<String> = (0..50).map(|it| format!("user-{it}")).collect();
    let rules = [
        json!({}),
        json!({"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "b"]}),
        json!({"if": [{"and": [{"==": [{"var": "plan"}, "pro"]}, {">": [{"var": "age"}, 18]}]}, "b"]}),
        json!({"in": [{"var": "targetingKey"}, many]}),
        json!({"in": [{"var": "plan"}, ["basic", "pro"]]}),
        json!({"sem_ver": [{"var": "device.version"}, ">=", "1.2.0"]}),
        json!({"fractional": [["a", 20], ["b", 80]]}),
        json!({"fractional": [{"var": "email"}, ["a", 20], ["b", 80]]}),
        json!({"fractional": [
            {"cat": [{"var": "$flagd.flagKey"}, {"var": "email"}, {"var": "age"}]},
            ["a", 20], ["b", 80],
        ]}),
        json!({"fractional": [
            ["a", {"-": [{"var": "$flagd.timestamp"}, 1_740_000_000]}],
            ["b", {"-": [1_800_000_000, {"var": "$flagd.timestamp"}]}],
        ]}),
        json!({"fractional": [[{"if": [{"var": "staff"}, "b", "a"]}, 50], ["b", 50]]}),
        json!({"if": [{"some": [{"var": "groups"}, {"==": [{"var": ""}, "admins"]}]}, "b"]}),
    ];
    let context = Context::of("5c3d8535-f81a-4478-a6d3-afaa4d51199e")
        .with("email", "ada@example.com")
        .with("plan", "pro")
        .with("age", 41)
        .with("groups", json!(["users", "admins"]))
        .with("device", json!({"version": "1.10.0"}));
    for bucketing in [Bucketing::V2, Bucketing::V3] {
        for rule in &rules {
            let set = json!({"flags": {"f": flag(rule)}});
            let set = FlagSet::compile(&set, bucketing).unwrap();
            let evaluate = || set.evaluate(black_box("f"), black_box(&context), NOW);
            let Details { error, reason, .. } = evaluate();
            assert_eq!(error, None, "{rule}");
            assert_ne!(reason, Reason::Default, "{rule}: it must decide");
            let counted = allocation_counter::measure(|| {
                for _ in 0..EVALUATIONS {
                    black_box(evaluate());
                }
            });
            assert_eq!(counted.count_total, 0, "{rule} {bucketing:?}: {counted:?}");
        }
    }
    // The counter counts.
    let told = allocation_counter::measure(|| drop(black_box(Box::new(7))));
    assert_eq!(told.count_total, 1);
}

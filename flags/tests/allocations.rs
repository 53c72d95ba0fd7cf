//! What an evaluation must not do: allocate. The whole program counts, so it is one of its own.

use std::hint::black_box;

use gonfalon_flags::{Context, ErrorCode, FlagSet, Moment, Reason};
use serde_json::json;

const TIMES: usize = 1_000;
const NOW: Moment = Moment::from_unix_ms(1_795_827_723_004);

fn counted(what: &str, call: &dyn Fn()) {
    let counted = allocation_counter::measure(|| (0..TIMES).for_each(|_| call()));
    assert_eq!(counted.count_total, 0, "{what}: {counted:?}");
}

fn set() -> FlagSet {
    let mut set = FlagSet::new();
    for (revision, (name, json)) in (1..).zip([
        ("static", json!({"enabled": true})),
        ("rollout", json!({"enabled": true, "rollout_percent": 20})),
        ("numbers", json!({"enabled": true, "rollout_percent": 20, "by": "number"})),
        ("color", json!({
            "enabled": true, "variants": {"red": "#f00", "blue": "#00f"}, "default": "red",
            "targets": {"red": ["user-7"]},
            "rules": [{
                "if": [
                    {"attribute": "plan", "in": ["pro", "team"]},
                    {"attribute": "app", "version_at_least": "1.10.0"},
                    {"not": {"attribute": ["org", "name"], "ends_with": "test"}},
                ],
                "split": [{"variant": "red", "percent": 50}, {"variant": "blue", "percent": 50}],
            }],
            "metadata": {"ticket": "X-1"},
        })),
        ("ramp", json!({"enabled": true, "rollout": {
            "ramp": {"start": "2026-01-01T00:00:00Z", "end": "2027-01-01T00:00:00Z"},
        }})),
        ("requiring", json!({"enabled": true, "requires": ["static", "rollout"]})),
        ("broken", json!([])),
    ]) {
        set.apply(revision, [(name, Some(json.to_string().as_bytes()))]);
    }
    set.apply(20, [("ramp", Some(b"bad".as_slice()))]);
    set
}

#[test]
fn an_evaluation_allocates_nothing() {
    let mut set = set();
    let id = set.id("rollout");
    let context = Context::of("user-1")
        .with("plan", "pro")
        .with("app", "1.11.0")
        .with("number", u64::MAX)
        .with("org", json!({"name": "gonfalon"}));
    let set = black_box(set);

    counted("a handle, with a new context for an id", &|| {
        black_box(set.get(&id, &Context::of(black_box("user-1")), NOW, false));
    });
    counted("a name", &|| {
        black_box(set.get(black_box("rollout"), &context, NOW, false));
    });
    counted("a percentage of a number", &|| {
        black_box(set.get("numbers", &context, NOW, false));
    });
    counted("text by rules and a split", &|| {
        assert!(set.get("color", &context, NOW, "code").starts_with('#'));
    });
    counted("what others require", &|| {
        black_box(set.get("requiring", &context, NOW, false));
    });
    counted("details by rules and a split", &|| {
        let details = set.details("color", &context, NOW, "code");
        assert!(details.reason == Reason::Split && details.metadata.is_some());
    });
    counted("details of a last good definition", &|| {
        let details = set.details("ramp", &context, NOW, false);
        assert!(details.reason == Reason::Stale && details.message.is_some());
    });
    counted(
        "details of what is not there, of another type, without a key, or broken",
        &|| {
            let nobody = Context::new();
            for (name, error) in [
                ("none", ErrorCode::FlagNotFound),
                ("static", ErrorCode::TypeMismatch),
                ("broken", ErrorCode::ParseError),
            ] {
                let details = set.details(name, &nobody, NOW, "code");
                assert!(details.value == "code" && details.error == Some(error));
            }
            let details = set.details("rollout", &nobody, NOW, false);
            assert!(details.error == Some(ErrorCode::TargetingKeyMissing));
        },
    );
    counted("a pinned set", &|| drop(black_box(set.clone())));
    // The counter counts.
    let told = allocation_counter::measure(|| drop(black_box(Box::new(7))));
    assert_eq!(told.count_total, 1);
}

//! What an evaluation costs, and what a change of one flag does.
//!
//! `cargo bench -p gonfalon-flags`

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use gonfalon_flags::{Context, FlagSet, Moment, Seed};
use serde_json::json;

const NOW: Moment = Moment::from_unix_ms(1_795_827_723_004);
const ID: &str = "user-0123456789abcdef";
const UUID: &str = "5c3d8535-f81a-4478-a6d3-afaa4d51199e";

fn name(number: u32) -> String {
    format!("team-{}/flag-{number}", number % 50)
}

/// So many flags with a percentage.
fn filled(flags: u32) -> FlagSet {
    let json = json!({"enabled": true, "rollout_percent": 20}).to_string();
    let names: Vec<String> = (0..flags).map(name).collect();
    let mut set = FlagSet::new();
    set.apply(
        1,
        names
            .iter()
            .map(|name| (name.as_str(), Some(json.as_bytes()))),
    );
    set
}

fn with(definition: &serde_json::Value) -> FlagSet {
    let mut set = filled(1_000);
    let json = definition.to_string();
    set.apply(2, [("measured", Some(json.as_bytes()))]);
    assert_eq!(set.problems().count(), 0);
    set
}

fn bucket(criterion: &mut Criterion) {
    let seed = Seed::new("measured");
    let mut group = criterion.benchmark_group("Seed::bucket");
    for id in [ID, UUID] {
        group.bench_function(
            BenchmarkId::from_parameter(format!("{} bytes", id.len())),
            |bencher| {
                bencher.iter(|| seed.bucket(black_box(id).as_bytes()));
            },
        );
    }
    group.finish();
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("FlagSet::get");
    let mut fixed = with(&json!({"enabled": true}));
    let id = fixed.id("measured");
    group.bench_function("static, by number", |bencher| {
        bencher.iter(|| fixed.get(black_box(&id), &Context::of(black_box(ID)), NOW, false));
    });
    let mut rollout = with(&json!({"enabled": true, "rollout_percent": 20}));
    let id = rollout.id("measured");
    for key in [ID, UUID] {
        let name = format!("rollout, by number, {} bytes", key.len());
        group.bench_function(name, |bencher| {
            bencher.iter(|| rollout.get(black_box(&id), &Context::of(black_box(key)), NOW, false));
        });
    }
    group.bench_function("rollout, by name", |bencher| {
        bencher.iter(|| {
            rollout.get(
                black_box("measured"),
                &Context::of(black_box(ID)),
                NOW,
                false,
            )
        });
    });
    group.bench_function("rollout, details by number", |bencher| {
        bencher.iter(|| rollout.details(black_box(&id), &Context::of(black_box(ID)), NOW, false));
    });

    let mut rules = with(&json!({
        "enabled": true, "default": "off",
        "rules": [{
            "if": [
                {"attribute": "plan", "in": ["pro", "team"]},
                {"attribute": "email", "ends_with": "@example.com"},
            ],
            "rollout_percent": 20,
        }],
    }));
    let id = rules.id("measured");
    let context = Context::of(ID)
        .with("plan", "pro")
        .with("email", "somebody@example.com")
        .with("age", 41)
        .with("country", "se");
    group.bench_function("two predicates and a rollout, by number", |bencher| {
        bencher.iter(|| rules.get(black_box(&id), black_box(&context), NOW, false));
    });
    group.bench_function(
        "two predicates and a rollout, details by number",
        |bencher| {
            bencher.iter(|| rules.details(black_box(&id), black_box(&context), NOW, false));
        },
    );
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("FlagSet::apply, one changed flag");
    let json = json!({"enabled": true, "rollout_percent": 50}).to_string();
    for flags in [100, 10_000] {
        let mut set = filled(flags);
        let mut random = fastrand::Rng::with_seed(7);
        let mut revision = 1;
        // Somebody holds the set before, as a reader would.
        let mut held = set.clone();
        group.bench_function(BenchmarkId::from_parameter(flags), |bencher| {
            let change = || {
                revision += 1;
                (revision, name(random.u32(0..flags)))
            };
            bencher.iter_batched(
                change,
                |(revision, name)| {
                    let changed = set.apply(revision, [(name.as_str(), Some(json.as_bytes()))]);
                    assert_eq!(changed.len(), 1);
                    held = set.clone();
                },
                BatchSize::SmallInput,
            );
        });
        assert_eq!(held.revision(), set.revision());
    }
    group.finish();
}

criterion_group!(benches, bucket, get, apply);
criterion_main!(benches);

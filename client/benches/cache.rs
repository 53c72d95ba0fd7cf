//! What reads of a cache cost, and what an event does. No server: nothing but memory.
//!
//! `cargo bench -p gonfalon --features internals`

use std::cell::Cell;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gonfalon::{Cache, Client, internals};
use gonfalon_proto::mvccpb;

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const VALUE_BYTES: usize = 64;

/// A client that never connects.
fn client() -> Client {
    let client = Client::builder().endpoints("127.0.0.1:1").build();
    client.expect("the endpoint is an address")
}

fn key(number: u32) -> Bytes {
    format!("/services/region-1/app-{number:08}").into()
}

fn kv(number: u32, revision: i64) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: key(number),
        value: vec![0x61; VALUE_BYTES].into(),
        create_revision: 1,
        mod_revision: revision,
        version: 1,
        lease: 0,
    }
}

fn filled(keys: u32) -> Cache {
    internals::cache(client(), (0..keys).map(|number| kv(number, 1)))
}

/// Keys in an order that no processor foresees, the same in every run. They lie in that order in one
/// piece of memory: whoever asks for a key has it at hand, and waiting for it is no part of the read.
fn shuffled(keys: u32) -> Vec<Bytes> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut numbers: Vec<u32> = (0..keys).collect();
    random.shuffle(&mut numbers);
    let each: Vec<Bytes> = numbers.into_iter().map(key).collect();
    let mut all = Bytes::from(each.concat());
    each.iter().map(|one| all.split_to(one.len())).collect()
}

fn load(criterion: &mut Criterion) {
    let value = internals::cached(filled(1), 100_u32);
    criterion.bench_function("Cached::load", |bencher| bencher.iter(|| *value.load()));
    criterion.bench_function("Cached::load_full", |bencher| {
        bencher.iter(|| value.load_full());
    });
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Cache::get");
    for keys in SIZES {
        let cache = filled(keys);
        let names = shuffled(keys);
        let mut next = names.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            bencher.iter(|| cache.get(next.next().expect("a cycle has no end")));
        });
    }
    group.finish();
}

fn prefix(criterion: &mut Criterion) {
    let cache = filled(100_000);
    let mut group = criterion.benchmark_group("Snapshot::prefix");
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 of 100000 keys", |bencher| {
        let snapshot = cache.snapshot();
        bencher.iter(|| {
            let found = snapshot.prefix(black_box("/services/region-1/app-000456"));
            assert_eq!(found.map(black_box).count(), 100);
        });
    });
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply and publish one event");
    for keys in SIZES {
        let cache = filled(keys);
        let mut random = fastrand::Rng::with_seed(7);
        let revision = Cell::new(1);
        // Somebody holds the snapshot before, as a reader would.
        let mut held = cache.snapshot();
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            let event = || {
                revision.set(revision.get() + 1);
                mvccpb::Event {
                    kv: Some(kv(random.u32(0..keys), revision.get())),
                    ..Default::default()
                }
            };
            bencher.iter_batched(
                event,
                |event| {
                    internals::apply(&cache, event);
                    held = cache.snapshot();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn subscribe(criterion: &mut Criterion) {
    let cache = filled(100_000);
    let before = cache.snapshot();
    for number in 0..50 {
        let event = mvccpb::Event {
            kv: Some(kv(number * 1_999, i64::from(number) + 2)),
            ..Default::default()
        };
        internals::apply(&cache, event);
    }
    let after = cache.snapshot();
    criterion.bench_function("Snapshot::changes_since, 50 of 100000 keys", |bencher| {
        bencher.iter(|| assert_eq!(after.changes_since(&before).len(), 50));
    });
}

fn all(criterion: &mut Criterion) {
    // Channels are made inside of a runtime, also those that never connect.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be made");
    let _inside = runtime.enter();
    for bench in [load, get, prefix, apply, subscribe] {
        bench(criterion);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);

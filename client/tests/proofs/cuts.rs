//! Wherever a stream breaks: every change once, in order, whole revisions.

use std::time::{Duration, Instant};

use futures::future::join_all;
use gonfalon::testkit::{FakeServer, Frame, Rpc};
use gonfalon::{Client, KeyRange, Op, Revision, Watch, WatchBuilder, WatchState};

use super::{Model, next, number, within};

/// What is told of, one step after the other; `s/` is watched.
fn step(server: &FakeServer, number: usize) {
    match number {
        0 => server.put("s/a", "1"),
        1 => server.put("other", "not watched"),
        // In fragments: one event each, as the server is set.
        2 => server.txn([
            Op::put("s/a", "2"),
            Op::put("s/b", "1"),
            Op::put("s/c", "1"),
        ]),
        3 => server.delete("s/b"),
        4 => server.txn([Op::put("s/d", "1"), Op::put("s/b", "2")]),
        5 => server.delete(KeyRange::prefix("s/")),
        6 => server.put("s/last", "1"),
        _ => unreachable!("there are {STEPS} steps"),
    };
    server.report_progress();
}

const STEPS: usize = 7;

/// Watches `s/` from the beginning, and from somewhere in the middle, while the steps are made and
/// streams break after the messages that `cuts` counts; how many messages were sent.
async fn run(cuts: &[usize]) -> usize {
    let server = FakeServer::builder().members(2).frame_bytes(1).start();
    let mut after = 0;
    for cut in cuts {
        after += cut;
        server.cut_after(Frame::Any, after);
    }
    let client = server.client();
    for number in 0..2 {
        step(&server, number);
    }
    let range = KeyRange::prefix("s/");
    let created = async |watch: WatchBuilder| watch.await.expect("it is created in the end");
    let watch = || client.watch(range.clone());
    let beginning = Revision::new(1);
    let mut early = created(watch().from(beginning)).await;
    let mut model = Model::after(range.clone(), beginning);
    model.take(&server, &mut early).await;
    step(&server, 2);
    let mut late_model = Model::after(range.clone(), server.revision());
    let mut late = created(watch()).await;
    // One that ends meanwhile.
    drop(created(watch()).await);
    for number in 3..STEPS {
        step(&server, number);
        // Not always: sometimes several changes wait.
        if number % 2 == 0 {
            model.take(&server, &mut early).await;
        }
    }
    model.take(&server, &mut early).await;
    late_model.take(&server, &mut late).await;
    // Whatever is said twice would be said by now.
    server.put("s/end", "1");
    for watch in [&mut early, &mut late] {
        let batch = next(watch).await;
        assert_eq!(batch.events.len(), 1, "cut after {cuts:?}: {batch:?}");
        assert_eq!(batch.revision, server.revision());
    }
    let is_cut = cuts
        .first()
        .is_some_and(|&cut| cut < server.sent(Frame::Any));
    assert_eq!(
        server.received(Rpc::Watch) > 1,
        is_cut,
        "cut after {cuts:?}"
    );
    server.sent(Frame::Any)
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_after_any_message_loses_and_repeats_nothing() {
    let all = run(&[]).await;
    assert!(all > 15, "{all} messages: the script has them all");
    for first in 1..=all {
        run(&[first]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_is_cut_again_while_it_resumes() {
    let all = run(&[]).await;
    for first in 1..=all {
        for second in 1..=8 {
            run(&[first, second]).await;
        }
    }
}

/// Cuts, pauses of members, lag and progress, at random, over three members and watches of several
/// kinds. `GONFALON_TEST_SEED` repeats a run, `GONFALON_TEST_CUTS` says how many there are;
/// `GONFALON_TEST_LONG=1`: 10,000.
#[tokio::test(start_paused = true)]
async fn cuts_at_random_lose_and_repeat_nothing() {
    let seed = number("GONFALON_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let is_long = number("GONFALON_TEST_LONG") == Some(1);
    let default = if is_long { 10_000 } else { 300 };
    let cuts = number("GONFALON_TEST_CUTS").unwrap_or(default);
    eprintln!("GONFALON_TEST_SEED={seed} GONFALON_TEST_CUTS={cuts}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = FakeServer::builder().members(3).frame_bytes(60).start();
    let (soon, later) = (Duration::from_millis(1), Duration::from_millis(20));
    let client = server
        .client_builder()
        .backoff(soon, later)
        .build()
        .unwrap();
    let ranges = [
        KeyRange::prefix("k/"),
        KeyRange::key("k/1"),
        KeyRange::between("k/1", "k/4"),
        KeyRange::all(),
    ];
    let mut watches: Vec<(Watch, Model)> = Vec::new();
    for range in ranges.iter().cycle().take(8) {
        let watch = client.watch(range.clone()).await.unwrap();
        watches.push((watch, Model::after(range.clone(), server.revision())));
    }
    for _ in 0..cuts {
        write(&server, &mut random);
        disturb(&server, &mut random);
        write(&server, &mut random);
        // Time passes: everybody does what there is to do.
        tokio::time::sleep(Duration::from_millis(random.u64(0..30))).await;
        let at = random.usize(..watches.len());
        let (watch, model) = &mut watches[at];
        match random.u8(..8) {
            0 => {
                // One ends, another begins, sometimes in the past.
                let range = ranges[random.usize(..ranges.len())].clone();
                let began = Revision::new(server.revision().get() - random.i64(0..20));
                let began = began.max(Revision::new(1));
                *watch = client.watch(range.clone()).after(began).await.unwrap();
                *model = Model::after(range, began);
            }
            1 | 2 => {
                catch_up(&server);
                model.take(&server, watch).await;
            }
            _ => {}
        }
    }
    catch_up(&server);
    for (watch, model) in &mut watches {
        model.take(&server, watch).await;
    }
    let streams = server.received(Rpc::Watch);
    eprintln!("{streams} streams, {} messages", server.sent(Frame::Any));
    assert!(
        streams as u64 > cuts / 4,
        "most disturbances break a stream"
    );
}

fn catch_up(server: &FakeServer) {
    for number in 0..3 {
        server.member(number).lag(0);
    }
}

fn write(server: &FakeServer, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(0..3) {
        let count = random.usize(1..4);
        let keys = random.choose_multiple(0..6, count);
        let ops = keys.into_iter().map(|key| -> Op {
            let key = format!("k/{key}");
            if random.u8(..4) == 0 {
                Op::delete(&key).into()
            } else {
                Op::put(&key, random.u32(..).to_string()).into()
            }
        });
        let ops: Vec<_> = ops.collect();
        server.txn(ops);
    }
}

fn disturb(server: &FakeServer, random: &mut fastrand::Rng) {
    let member = server.member(random.usize(..3));
    match random.u8(..8) {
        0 => server.cut(),
        1 => member.cut(),
        2 => member.lag(random.u32(0..5)),
        3 => server.report_progress(),
        _ => {
            let frames = [
                Frame::Any,
                Frame::Created,
                Frame::Fragment,
                Frame::Events,
                Frame::Progress,
            ];
            let frame = frames[random.usize(..frames.len())];
            server.cut_after(frame, random.usize(1..6));
        }
    }
}

#[tokio::test]
async fn ten_thousand_watches_move_on_one_stream_all_at_once() {
    const WATCHES: usize = 10_000;
    let server = FakeServer::start();
    let client = server.client();
    let watch = |number: usize| client.watch(format!("m/{number}")).into_future();
    let watches = join_all((0..WATCHES).map(watch)).await;
    let mut watches: Vec<Watch> = watches.into_iter().map(Result::unwrap).collect();
    assert_eq!(server.received(Rpc::Watch), 1);

    let began = Instant::now();
    server.cut();
    while server.sent(Frame::Created) < 2 * WATCHES {
        tokio::task::yield_now().await;
    }
    eprintln!(
        "{WATCHES} watches were created again in {:?}",
        began.elapsed()
    );
    assert_eq!(server.received(Rpc::Watch), 2, "one stream for all");
    for number in (0..WATCHES).step_by(100) {
        let key = format!("m/{number}");
        server.put(&key, "x");
        let batch = next(&mut watches[number]).await;
        assert_eq!(batch.events[0].kv.key, key);
        assert_eq!(watches[number].state(), WatchState::Live);
    }
}

/// What is left of a client that is closed.
#[tokio::test]
async fn a_closed_client_leaves_no_stream_behind() {
    let server = FakeServer::start();
    let client: Client = server.client();
    let mut watch = client.watch("k").await.unwrap();
    client.close().await.unwrap();
    let error = within(watch.next()).await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), gonfalon::ErrorKind::Closed);
    assert!(within(watch.next()).await.is_none());
}

//! Every order in which the steps of publishing and reading can happen, tried by loom.
//!
//! `publish.rs` is compiled here a second time, with a pointer and a bell whose every step loom
//! knows. What is not tried here is the inside of those two: arc-swap and tokio's channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use loom::future::block_on;
use loom::thread;

use crate::types::Revision;
use publish::{Publish, Revised};

#[path = "publish.rs"]
#[expect(dead_code, reason = "the tests need only a part of it")]
#[expect(
    clippy::duplicate_mod,
    reason = "with other primitives it is another module"
)]
mod publish;

mod primitives {
    //! A pointer and a bell, each behind a lock of loom's.

    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::{Poll, Waker};

    use loom::sync::Mutex;

    #[derive(Debug)]
    pub(super) struct Swap<T>(Mutex<Arc<T>>);

    pub(super) type Read<T> = Arc<T>;

    impl<T> Swap<T> {
        pub(super) fn new(first: Arc<T>) -> Self {
            Self(Mutex::new(first))
        }

        pub(super) fn load(&self) -> Read<T> {
            self.load_full()
        }

        pub(super) fn load_full(&self) -> Arc<T> {
            self.0.lock().unwrap().clone()
        }

        pub(super) fn store(&self, next: Arc<T>) {
            *self.0.lock().unwrap() = next;
        }

        pub(super) fn replace(&self, held: &Arc<T>, next: Arc<T>) -> bool {
            let mut now = self.0.lock().unwrap();
            let is_there = Arc::ptr_eq(&now, held);
            if is_there {
                *now = next;
            }
            is_there
        }
    }

    /// How often it rang, and who is to be woken.
    #[derive(Debug, Default)]
    struct Rope {
        rings: usize,
        wakers: Vec<Waker>,
    }

    #[derive(Debug)]
    pub(super) struct Bell(loom::sync::Arc<Mutex<Rope>>);

    #[derive(Debug)]
    pub(super) struct Listener {
        heard: usize,
        rope: loom::sync::Arc<Mutex<Rope>>,
    }

    impl Bell {
        pub(super) fn new() -> Self {
            Self(loom::sync::Arc::new(Mutex::new(Rope::default())))
        }

        pub(super) fn ring(&self) {
            let wakers = {
                let mut rope = self.0.lock().unwrap();
                rope.rings += 1;
                std::mem::take(&mut rope.wakers)
            };
            wakers.into_iter().for_each(Waker::wake);
        }

        pub(super) fn listen(&self) -> Listener {
            Listener {
                heard: self.0.lock().unwrap().rings,
                rope: self.0.clone(),
            }
        }
    }

    impl Listener {
        pub(super) async fn rung(&mut self) -> bool {
            poll_fn(|context| {
                let mut rope = self.rope.lock().unwrap();
                if rope.rings == self.heard {
                    rope.wakers.push(context.waker().clone());
                    return Poll::Pending;
                }
                self.heard = rope.rings;
                Poll::Ready(true)
            })
            .await
        }
    }
}

/// Two keys that are always written together, by the revision.
#[derive(Debug, Clone, Copy)]
struct Pair {
    revision: i64,
    one: i64,
    other: i64,
}

impl Revised for Pair {
    fn revision(&self) -> Revision {
        Revision::new(self.revision)
    }
}

fn pair(revision: i64) -> Pair {
    Pair {
        revision,
        one: revision,
        other: revision,
    }
}

/// What the follower does with an event of `revision`.
fn follow(pairs: &Publish<Pair>, revision: i64) {
    pairs.advance(|held| (held.revision < revision).then(|| pair(revision)));
}

/// What `prove` does: the keys of `held` are known to be the same at `revision`.
fn prove(pairs: &Publish<Pair>, seen: &Arc<Pair>, revision: i64) {
    pairs.advance(|held| Arc::ptr_eq(held, seen).then(|| Pair { revision, ..**seen }));
}

#[test]
fn a_reader_never_sees_an_older_revision_after_a_newer_one_or_two_mixed() {
    loom::model(|| {
        let pairs = loom::sync::Arc::new(Publish::new(pair(1)));
        let follower = thread::spawn({
            let pairs = pairs.clone();
            move || {
                follow(&pairs, 2);
                follow(&pairs, 4);
            }
        });
        let prover = thread::spawn({
            let pairs = pairs.clone();
            move || {
                let seen = pairs.load_full();
                // The store is at 3, and 3 was outside of the range.
                if seen.revision == 2 {
                    prove(&pairs, &seen, 3);
                }
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            let now = pairs.load_full();
            assert!(now.revision >= last, "{} after {last}", now.revision);
            assert_eq!(now.one, now.other, "two revisions mixed");
            last = now.revision;
        }
        follower.join().unwrap();
        prover.join().unwrap();
        assert_eq!(pairs.load_full().one, 4, "an event was lost");
    });
}

/// Waits for revision 2 while the follower, whoever proves, or both publish it.
fn wait_for_two(follows: bool, proves: bool) {
    let pairs = loom::sync::Arc::new(Publish::new(pair(1)));
    let publish = |is_wanted: bool, publish: fn(&Publish<Pair>)| {
        let pairs = pairs.clone();
        is_wanted.then(|| thread::spawn(move || publish(&pairs)))
    };
    let publishers = [
        publish(follows, |pairs| follow(pairs, 2)),
        publish(proves, |pairs| {
            let seen = pairs.load_full();
            prove(pairs, &seen, seen.revision + 1);
        }),
    ];
    // A lost wake-up is a deadlock, of which loom makes an end.
    let found = block_on(pairs.until(|now| (now.revision >= 2).then(|| now.clone())));
    assert!(found.revision >= 2);
    for publisher in publishers.into_iter().flatten() {
        publisher.join().unwrap();
    }
}

#[test]
fn who_waits_for_a_revision_is_woken_by_it_whoever_publishes_it() {
    loom::model(|| wait_for_two(true, false));
    loom::model(|| wait_for_two(false, true));
    // All orders of three threads are too many to try: those in which no more than two times a
    // thread is interrupted that could have gone on.
    let mut both = loom::model::Builder::new();
    both.preemption_bound = Some(2);
    both.check(|| wait_for_two(true, true));
}

#[test]
fn a_subscriber_is_told_of_the_last_value() {
    loom::model(|| {
        let pairs = loom::sync::Arc::new(Publish::new(pair(1)));
        let mut listener = pairs.listen();
        let follower = thread::spawn({
            let pairs = pairs.clone();
            move || {
                follow(&pairs, 2);
                follow(&pairs, 3);
            }
        });
        block_on(async {
            let mut told = 1;
            while told < 3 {
                listener.rung().await;
                let now = pairs.load_full().revision;
                assert!(now >= told, "{now} after {told}");
                told = now;
            }
        });
        follower.join().unwrap();
    });
}

/// Whether there is an order of the steps in which somebody who saw the old value is not rung for
/// the new one.
fn a_ring_can_be_lost(listens_before_looking: bool) -> bool {
    let can_be = Arc::new(AtomicBool::new(false));
    let is_lost = can_be.clone();
    loom::model(move || {
        let pairs = loom::sync::Arc::new(Publish::new(pair(1)));
        let follower = thread::spawn({
            let pairs = pairs.clone();
            move || follow(&pairs, 2)
        });
        let early = listens_before_looking.then(|| pairs.listen());
        let is_old = pairs.load_full().revision < 2;
        let mut listener = early.unwrap_or_else(|| pairs.listen());
        follower.join().unwrap();
        if is_old && listener.rung().now_or_never().is_none() {
            is_lost.store(true, Ordering::Relaxed);
        }
    });
    can_be.load(Ordering::Relaxed)
}

#[test]
fn who_listens_before_he_looks_misses_nothing_and_who_does_not_may() {
    assert!(!a_ring_can_be_lost(true));
    // The model finds what is wrong.
    assert!(a_ring_can_be_lost(false));
}

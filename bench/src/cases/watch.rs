//! Watchers of one key: latency from the put to the event, and events a second.
//!
//! A writer writes, waits until every watcher has seen that write, and writes again. So nothing
//! queues without limit, and a lost event stops its writer, which then counts as an error. Each
//! watcher checks that revisions only rise: no event comes twice or out of order.

mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::sync::Notify;

use self::reader::Reader;
use self::writer::Writer;
use super::{Bench, seat};
use crate::cluster::Cluster;
use crate::load::{Session, connect};
use crate::metric::Measurement;

/// Connections that the watchers share: as many client processes.
const WATCH_CONNECTIONS: usize = 16;

/// The key that everybody watches.
const KEY: Bytes = Bytes::from_static(b"/watch/hot");

/// One operation is one event at one watcher.
pub(super) async fn measure(
    bench: &Bench,
    cluster: &Cluster,
    watchers: usize,
    writers: usize,
) -> Result<Measurement> {
    // With several members, the writers use the leader and the watchers begin with a follower: an
    // event then crosses the cluster, whoever leads.
    let leader_first = cluster.endpoints_leader_first().await?;
    let mut followers_first = leader_first.clone();
    followers_first.rotate_left(1);

    let board = Arc::new(Board::new(writers, watchers));
    let mut session = Session::new(&bench.threads);
    let streams = watchers.min(WATCH_CONNECTIONS);
    let connections = connect(
        &bench.threads,
        bench.threads.count(),
        &followers_first,
        streams,
    )
    .await?;
    for (number, connection) in connections.into_iter().enumerate() {
        let share = (number..watchers).step_by(streams).count();
        let (board, recorder) = (Arc::clone(&board), session.recorder(connection.thread));
        let gate = session.gate();
        let opening = Reader::open(connection.channel, share, board, recorder, gate);
        let reader = bench.threads.spawn(connection.thread, opening).await?;
        session.background(connection.thread, reader?.run());
    }
    let connections = seat::open(bench, &leader_first[..1], writers).await?;
    for (slot, connection) in connections.iter().cycle().take(writers).enumerate() {
        let writer = Writer::new(connection.channel.clone(), Arc::clone(&board), slot);
        session.client(connection.thread, writer.run(session.gate()));
    }
    session.measure(bench.window, &cluster.processes()).await
}

/// Where writers say what they wrote, and watchers what they saw.
#[derive(Debug)]
struct Board {
    started: Instant,
    watchers: usize,
    slots: Vec<Slot>,
}

/// The write that one writer has under way.
#[derive(Debug, Default)]
struct Slot {
    sequence: AtomicU64,
    /// Nanoseconds after the board's start.
    sent: AtomicU64,
    /// Watchers that have not seen it.
    missing: AtomicUsize,
    all_seen: Notify,
}

impl Board {
    fn new(writers: usize, watchers: usize) -> Self {
        let slots = (0..writers).map(|_| Slot::default()).collect();
        Self {
            started: Instant::now(),
            watchers,
            slots,
        }
    }

    /// Writer number `slot` is about to send its write `sequence`.
    fn announce(&self, slot: usize, sequence: u64) {
        let slot = &self.slots[slot];
        slot.missing.store(self.watchers, Ordering::Relaxed);
        slot.sent.store(self.nanos(), Ordering::Relaxed);
        // Whoever sees the sequence sees what was stored before it.
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// A watcher got the event of that write; returns how long after [`Board::announce`].
    fn seen(&self, slot: u64, sequence: u64) -> Result<Duration> {
        let slot = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.slots.get(slot));
        let slot = slot.context("an event of a write that nobody made")?;
        let current = slot.sequence.load(Ordering::Acquire);
        ensure!(
            current == sequence,
            "an event of write {sequence} during write {current}"
        );
        let took = self
            .nanos()
            .saturating_sub(slot.sent.load(Ordering::Relaxed));
        let missing = slot.missing.fetch_sub(1, Ordering::AcqRel);
        ensure!(missing > 0, "more events of write {sequence} than watchers");
        if missing == 1 {
            slot.all_seen.notify_one();
        }
        Ok(Duration::from_nanos(took))
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("no run takes 500 years")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_goes_on_when_the_last_watcher_has_seen_its_write() {
        let board = Board::new(2, 3);
        board.announce(1, 7);
        for _ in 0..2 {
            board.seen(1, 7).unwrap();
        }
        let waiting = board.slots[1].all_seen.notified();
        assert!(
            tokio::time::timeout(Duration::from_millis(1), waiting)
                .await
                .is_err()
        );
        board.seen(1, 7).unwrap();
        board.slots[1].all_seen.notified().await;
    }

    #[test]
    fn an_event_too_many_and_one_of_another_write_are_errors() {
        let board = Board::new(1, 1);
        board.announce(0, 1);
        board.seen(0, 1).unwrap();
        assert!(board.seen(0, 1).is_err(), "seen by more than all");
        board.announce(0, 2);
        assert!(board.seen(0, 1).is_err(), "a write of the past");
        assert!(board.seen(9, 1).is_err(), "a writer that does not exist");
    }
}

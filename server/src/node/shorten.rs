//! Keeps the log short by its bytes, where Raft counts entries.
//!
//! An entry holds some bytes or some megabytes: many joined commands, or one large value. So many
//! entries as `--snapshot-count` and `--snapshot-catchup-entries` allow may be gigabytes. Past
//! [`LOG_BYTES_MAX`] the state is brought to disk early, and all but the last [`LOG_BYTES_KEPT`] go;
//! a follower that needs more is brought up by a snapshot.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Node;
use crate::limits::{LOG_BYTES_KEPT, LOG_BYTES_MAX};
use crate::tasks::{Rounds, Tasks};

/// How often the log's length is looked at. It can be exceeded by what is written in between.
const INTERVAL: Duration = Duration::from_millis(500);

/// How many bytes of entries were applied, and where they lie in the log.
#[derive(Debug, Default)]
pub(super) struct LogSizes(Mutex<Sizes>);

#[derive(Debug, Default)]
struct Sizes {
    /// Bytes of all entries that were applied and in the log at the start, or applied since.
    applied_bytes: u64,
    /// Bytes of those of them that are no longer in the log.
    purged_bytes: u64,
    /// Some entries, ascending: the index, and the bytes applied up to and with it.
    marks: VecDeque<(u64, u64)>,
}

/// Entries between two marks.
const MARK_BYTES: u64 = LOG_BYTES_KEPT / 8;

impl LogSizes {
    /// Of a log that was opened with `bytes` of entries up to the one at `applied`. Where in it they
    /// lie is not known, so they go together.
    pub(super) fn opened(applied: u64, bytes: u64) -> Self {
        Self(Mutex::new(Sizes {
            applied_bytes: bytes,
            purged_bytes: 0,
            marks: VecDeque::from([(applied, bytes)]),
        }))
    }

    /// Notes that entries of `bytes` were applied, the last of which is at `index`.
    pub(super) fn applied(&self, index: u64, bytes: usize) {
        let mut sizes = self.lock();
        sizes.applied_bytes += bytes as u64;
        let marked = sizes.marks.back().map_or(sizes.purged_bytes, |(_, at)| *at);
        if sizes.applied_bytes - marked >= MARK_BYTES {
            let mark = (index, sizes.applied_bytes);
            sizes.marks.push_back(mark);
        }
    }

    /// Up to which index the log should go, if it is too long.
    fn superfluous(&self) -> Option<u64> {
        let sizes = self.lock();
        let is_too_long = sizes.applied_bytes - sizes.purged_bytes > LOG_BYTES_MAX;
        let is_kept = |at: u64| sizes.applied_bytes - at < LOG_BYTES_KEPT;
        let mut marks = sizes.marks.iter().rev();
        let last = marks.find(|(_, at)| is_too_long && !is_kept(*at));
        last.map(|(index, _)| *index)
    }

    /// Notes that the log begins behind `index` now.
    fn purged(&self, index: u64) {
        let mut sizes = self.lock();
        while let Some((_, at)) = sizes.marks.pop_front_if(|(mark, _)| *mark <= index) {
            sizes.purged_bytes = at;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sizes> {
        self.0
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

impl Node {
    /// Shortens the log whenever it has become too long, until the node stops.
    pub(super) fn spawn_shorten(&self, sizes: Arc<LogSizes>, tasks: &mut Tasks) {
        let (node, stop) = (self.clone(), tasks.stop_token());
        tasks.spawn("shortening the log", async move {
            node.shorten_log(sizes, stop).await;
            Ok(())
        });
    }

    async fn shorten_log(&self, sizes: Arc<LogSizes>, stop: CancellationToken) {
        let mut rounds = Rounds::every(INTERVAL, stop.clone());
        while rounds.next().await {
            // What Raft purged of its own accord is gone as well.
            let (flushed, purged) = self.metrics(|metrics| {
                (
                    metrics.snapshot.map_or(0, |id| id.index),
                    metrics.purged.map_or(0, |id| id.index),
                )
            });
            sizes.purged(purged);
            let Some(upto) = sizes.superfluous() else {
                continue;
            };
            // Raft purges nothing that is not flushed. That takes a while; the next turn sees it.
            let trigger = self.raft().trigger();
            let asked = if flushed < upto {
                trigger.snapshot().await
            } else {
                trigger.purge_log(upto).await
            };
            if asked.is_err() {
                // Raft has ended: so will this.
                return stop.cancelled().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gonfalon_core::LeaseId;
    use gonfalon_core::command::{Command, Put};
    use tempfile::TempDir;

    use super::*;
    use crate::Server;
    use crate::config::{Invocation, Options};

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_log_that_is_too_long_keeps_its_end() {
        let sizes = LogSizes::default();
        let fill = |from: u64, to: u64| {
            for index in from..to {
                sizes.applied(index, usize::try_from(MIB).unwrap());
            }
        };
        let (most, kept) = (LOG_BYTES_MAX / MIB, LOG_BYTES_KEPT / MIB);
        fill(1, most + 1);
        assert_eq!(sizes.superfluous(), None, "as long as it may be");
        fill(most + 1, most + 2);
        let upto = sizes.superfluous().expect("one entry too long");
        let left = most + 1 - upto;
        assert!(
            (kept..kept + MARK_BYTES / MIB).contains(&left),
            "{left} MiB"
        );
        sizes.purged(0);
        assert_eq!(sizes.superfluous(), Some(upto), "it is still there");
        sizes.purged(upto);
        assert_eq!(sizes.superfluous(), None);
        fill(most + 2, most + 2 + upto);
        assert!(sizes.superfluous().is_some(), "as much again");
    }

    #[test]
    fn what_the_log_held_at_the_start_counts_and_goes_together() {
        let sizes = LogSizes::opened(9, LOG_BYTES_MAX - MIB);
        assert_eq!(sizes.superfluous(), None, "as long as it may be");
        sizes.applied(10, usize::try_from(LOG_BYTES_KEPT).unwrap());
        assert_eq!(sizes.superfluous(), Some(9));
        sizes.purged(9);
        assert_eq!(sizes.superfluous(), None, "it is gone");
    }

    #[test]
    fn small_entries_leave_few_marks() {
        let sizes = LogSizes::default();
        (1..100_000).for_each(|index| sizes.applied(index, 100));
        assert!(sizes.lock().marks.len() < 10);
    }

    /// A member alone that keeps its data in `dir`.
    async fn open(dir: &TempDir) -> Server {
        let args = [
            format!("--data-dir={}", dir.path().join("data").display()),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--unsafe-no-fsync".to_owned(),
        ];
        let Invocation::Run(options) = Options::read(&args, &[]).unwrap() else {
            panic!("a command line that is fine");
        };
        Server::open(options.resolve().unwrap()).await.unwrap()
    }

    /// Bytes of one large entry.
    const LARGE: u64 = 32 * MIB;

    async fn write_large(node: &Node, entries: u64) {
        for _ in 0..entries {
            let mut value = vec![0; usize::try_from(LARGE).unwrap()];
            rand::fill(value.as_mut_slice());
            let put = Put {
                key: "k".into(),
                value: value.into(),
                lease: LeaseId::NONE,
                prev_kv: false,
                ignore_value: false,
                ignore_lease: false,
            };
            node.propose(Command::Put(put)).await.unwrap();
        }
    }

    async fn wait_until_shortened(node: &Node) {
        let shortened = async {
            while node.metrics(|metrics| metrics.purged.is_none()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let shortened = tokio::time::timeout(Duration::from_secs(20), shortened).await;
        shortened.expect("a few entries are too long a log");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_shortens_its_log_when_its_entries_are_large() {
        let dir = tempfile::tempdir().unwrap();
        let server = open(&dir).await;
        write_large(server.node(), LOG_BYTES_MAX / LARGE + 1).await;
        wait_until_shortened(server.node()).await;
        server.run_until(async {}).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_that_starts_again_knows_how_long_its_log_is() {
        let dir = tempfile::tempdir().unwrap();
        let server = open(&dir).await;
        let each_time = LOG_BYTES_MAX / LARGE - 1;
        write_large(server.node(), each_time).await;
        assert!(server.node().metrics(|metrics| metrics.purged.is_none()));
        server.run_until(async {}).await.unwrap();

        let server = open(&dir).await;
        write_large(server.node(), each_time).await;
        wait_until_shortened(server.node()).await;
        server.run_until(async {}).await.unwrap();
    }
}

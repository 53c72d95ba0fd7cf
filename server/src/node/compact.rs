//! Automatic compaction: when the leader proposes to drop history, and up to where.

use std::collections::VecDeque;
use std::time::Duration;

use gonfalon_core::Revision;
use gonfalon_core::command::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::config::AutoCompaction;
use crate::tasks::Rounds;

/// "Keep the last hours" compacts at least this often, as in etcd.
const PERIOD_MAX: Duration = Duration::from_hours(1);

/// Samples of the revision in one retention period, as in etcd.
const SAMPLES: u32 = 10;

/// Decides up to where to compact, from samples of the revision.
#[derive(Debug)]
struct Schedule {
    keep: Keep,
    next_compaction: Instant,
}

#[derive(Debug)]
enum Keep {
    Revisions {
        count: i64,
        every: Duration,
    },
    /// Samples, oldest first: none is older than the one that the retention ends at.
    Period {
        retention: Duration,
        samples: VecDeque<(Instant, Revision)>,
    },
}

impl Schedule {
    fn new(option: AutoCompaction, now: Instant) -> Option<Self> {
        let keep = match option {
            AutoCompaction::Off => return None,
            AutoCompaction::Revisions { keep, every } => Keep::Revisions { count: keep, every },
            AutoCompaction::Periodic(retention) => Keep::Period {
                retention,
                samples: VecDeque::new(),
            },
        };
        let mut schedule = Self {
            keep,
            next_compaction: now,
        };
        schedule.next_compaction = now + schedule.period();
        Some(schedule)
    }

    /// Between two compactions.
    fn period(&self) -> Duration {
        match self.keep {
            Keep::Revisions { every, .. } => every,
            Keep::Period { retention, .. } => retention.min(PERIOD_MAX),
        }
    }

    /// Between two looks at the revision.
    fn interval(&self) -> Duration {
        match self.keep {
            Keep::Revisions { every, .. } => every,
            Keep::Period { .. } => (self.period() / SAMPLES).max(Duration::from_millis(100)),
        }
    }

    /// Takes notice of the revision; says up to where to compact, if it is time to.
    fn look(&mut self, now: Instant, revision: Revision) -> Option<Revision> {
        let is_due = now >= self.next_compaction;
        let target = match &mut self.keep {
            Keep::Revisions { count, .. } => Revision::new(revision.get() - *count),
            Keep::Period { retention, samples } => {
                samples.push_back((now, revision));
                // The newest sample that is old enough is the one to compact to.
                while samples
                    .get(1)
                    .is_some_and(|(at, _)| now.duration_since(*at) >= *retention)
                {
                    samples.pop_front();
                }
                let (at, oldest) = *samples.front()?;
                if now.duration_since(at) < *retention {
                    return None;
                }
                oldest
            }
        };
        is_due.then_some(target)
    }

    /// It is compacted; the next time is a period from now.
    fn done(&mut self, now: Instant) {
        self.next_compaction = now + self.period();
    }

    /// A member that does not lead samples nothing, and starts over when it does.
    fn forget(&mut self, now: Instant) {
        if let Keep::Period { samples, .. } = &mut self.keep {
            samples.clear();
        }
        self.next_compaction = now + self.period();
    }
}

impl Node {
    /// Proposes compactions as `option` says, while this member leads, until `stop`.
    pub(super) async fn compact_automatically(
        &self,
        option: AutoCompaction,
        stop: CancellationToken,
    ) {
        let Some(mut schedule) = Schedule::new(option, Instant::now()) else {
            return stop.cancelled().await;
        };
        let mut rounds = Rounds::every(schedule.interval(), stop);
        while rounds.next().await {
            if !self.raft().is_leader() {
                schedule.forget(Instant::now());
                continue;
            }
            let (revision, compacted) = self
                .store()
                .read(|state, _| (state.revision(), state.compacted()));
            let Some(target) = schedule.look(Instant::now(), revision) else {
                continue;
            };
            if target <= compacted || self.compact(target).await {
                schedule.done(Instant::now());
            }
        }
    }

    /// Whether it is compacted; if not, the next look finds it due again.
    async fn compact(&self, revision: Revision) -> bool {
        let reply = self.propose(Command::Compact { revision }).await;
        match reply.map(|reply| reply.result) {
            Ok(Ok(_)) => tracing::info!(%revision, "compacted automatically"),
            // Somebody else has compacted further meanwhile.
            Ok(Err(refused)) => tracing::debug!(%revision, %refused, "automatic compaction"),
            Err(error) => {
                tracing::warn!(%revision, %error, "automatic compaction failed; trying again");
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Duration {
        Duration::from_mins(count)
    }

    /// Looks once a tick for `ticks` ticks, one revision a second; (minute, target) of each hit.
    fn run(option: AutoCompaction, ticks: u32) -> Vec<(u64, i64)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(option, start).unwrap();
        let mut hits = Vec::new();
        for tick in 0..=ticks {
            let passed = schedule.interval() * tick;
            let revision = Revision::new(i64::try_from(passed.as_secs()).unwrap());
            if let Some(target) = schedule.look(start + passed, revision) {
                hits.push((passed.as_secs() / 60, target.get()));
                schedule.done(start + passed);
            }
        }
        hits
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_retention_compacts_every_hour_to_the_revision_of_then() {
        let hits = run(AutoCompaction::Periodic(minutes(180)), 50);
        assert_eq!(hits, [(180, 0), (240, 3600), (300, 7200)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_retention_compacts_every_period() {
        let hits = run(AutoCompaction::Periodic(minutes(10)), 35);
        assert_eq!(hits, [(10, 0), (20, 600), (30, 1200)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_of_revisions_is_kept_at_every_look() {
        let option = AutoCompaction::Revisions {
            keep: 100,
            every: minutes(5),
        };
        let hits = run(option, 3);
        assert_eq!(hits, [(5, 200), (10, 500), (15, 800)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_compaction_that_failed_is_due_at_the_next_look() {
        let start = Instant::now();
        let option = AutoCompaction::Periodic(minutes(180));
        let mut schedule = Schedule::new(option, start).unwrap();
        let mut look = |minute, revision| {
            let target = schedule.look(start + minutes(minute), Revision::new(revision));
            target.map(Revision::get)
        };
        assert_eq!(look(0, 5), None);
        assert_eq!(look(180, 9), Some(5));
        assert_eq!(look(186, 9), Some(5), "nobody said that it was done");
        schedule.done(start + minutes(186));
        let next = schedule.look(start + minutes(192), Revision::new(9));
        assert_eq!(next, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_does_not_use_what_it_sampled_before() {
        let start = Instant::now();
        let mut schedule = Schedule::new(AutoCompaction::Periodic(minutes(10)), start).unwrap();
        schedule.look(start, Revision::new(5));
        schedule.forget(start + minutes(60));
        assert_eq!(schedule.look(start + minutes(61), Revision::new(9)), None);
        assert_eq!(
            schedule.look(start + minutes(71), Revision::new(12)),
            Some(Revision::new(9))
        );
    }
}

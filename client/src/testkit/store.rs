//! The state that all members of a test's server share, and its clock, which only the test moves.
//!
//! It is the real state machine: revisions, events, compaction and refusals are those of a server.
//! Nothing is ever evicted from memory, so that there is no other history than the state itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gonfalon_core::{
    Changes, Command, Event, HistoryError, LeaseId, NoHistory, Reply, Revision, State,
};

pub(super) struct Store {
    state: State,
    /// What was carried out, to be done again up to an earlier revision.
    done: Vec<Command>,
    /// Since the server began.
    now: Duration,
    /// When leases end.
    deadlines: BTreeMap<LeaseId, Duration>,
}

/// How a lease stands, in seconds.
pub(super) struct Remaining {
    pub(super) granted: i64,
    pub(super) left: i64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(),
            done: Vec::new(),
            now: Duration::ZERO,
            deadlines: BTreeMap::new(),
        }
    }

    /// As this store was when it reached `revision`, with the leases of then beginning anew.
    pub(super) fn as_of(&self, revision: Revision) -> Self {
        let mut store = Self {
            now: self.now,
            ..Self::new()
        };
        for command in &self.done {
            if store.revision() >= revision {
                break;
            }
            store.apply(command.clone());
        }
        store
    }

    /// Carries out a command; what it answers, and what it changed.
    pub(super) fn apply(&mut self, command: Command) -> (Reply, Vec<Arc<Event>>) {
        let mut changes = Changes::default();
        let reply = read(self.state.apply(&command, &NoHistory, &mut changes));
        for (id, ttl) in changes.leases {
            match ttl {
                Some(seconds) => {
                    self.deadlines.insert(id, self.now + seconds_of(seconds));
                }
                None => {
                    self.deadlines.remove(&id);
                }
            }
        }
        if reply.result.is_ok() {
            self.done.push(command);
        }
        let events = changes.versions.into_iter().map(|written| written.event);
        (reply, events.collect())
    }

    /// Lets time pass; the leases that are over then, those first whose end came first.
    pub(super) fn advance(&mut self, time: Duration) -> Vec<LeaseId> {
        self.now += time;
        let mut over: Vec<_> = self
            .deadlines
            .iter()
            .filter(|&(_, &at)| at <= self.now)
            .map(|(&id, &at)| (at, id))
            .collect();
        over.sort_unstable();
        over.into_iter().map(|(_, id)| id).collect()
    }

    /// Begins a lease's time anew; the seconds that it has, if it is there.
    pub(super) fn renew(&mut self, id: LeaseId) -> Option<i64> {
        let ttl = self.state.lease(id)?.ttl;
        self.deadlines.insert(id, self.now + seconds_of(ttl));
        Some(ttl)
    }

    pub(super) fn remaining(&self, id: LeaseId) -> Option<Remaining> {
        let granted = self.state.lease(id)?.ttl;
        let left = self.deadlines.get(&id)?.saturating_sub(self.now).as_secs();
        Some(Remaining {
            granted,
            left: i64::try_from(left).unwrap_or(i64::MAX),
        })
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn revision(&self) -> Revision {
        self.state.revision()
    }
}

/// What was read, where there is nothing but memory to read from.
pub(super) fn read<T>(read: Result<T, HistoryError>) -> T {
    read.expect("nothing is evicted, so nothing is read from elsewhere")
}

fn seconds_of(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

//! Random commands, reads, evictions, compactions and restarts against the plain model.
//!
//! Four states are fed the same commands: one that keeps everything in memory, one that is evicted
//! and swept at random, one that drops everything at every step, and the model. All answers must be
//! equal, and every invariant must hold after each step.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/plain.rs"]
mod plain;
#[path = "support/random.rs"]
mod random;
#[path = "support/recorded.rs"]
mod recorded;

use gonfalon_core::command::{Command, Range, Txn};
use gonfalon_core::{
    Changes, Event, History, KeyRange, KeyValue, LeaseId, NoHistory, Reply, Revision, State,
};
use plain::{Plain, in_range};
use proptest::collection::vec;
use proptest::prelude::*;
use random::Step;
use recorded::Recorded;

/// A state, what was written of it, and what is still to be written.
#[derive(Debug)]
struct Member {
    state: State,
    written: Recorded,
    changes: Changes,
}

impl Member {
    fn new() -> Self {
        Self {
            state: State::new(),
            written: Recorded::default(),
            changes: Changes::default(),
        }
    }

    fn apply(&mut self, command: &Command) -> Reply {
        self.state
            .apply(command, &self.written, &mut self.changes)
            .unwrap()
    }

    fn write(&mut self) {
        self.written.write(&self.state, &mut self.changes);
    }

    fn evict(&mut self, budget_bytes: usize) {
        self.write();
        self.state.evict(budget_bytes);
        assert!(self.state.recent_bytes() <= budget_bytes);
    }

    /// As after a crash: what was not written is lost, and so must have been applied again.
    fn restart(&mut self) {
        self.write();
        self.state = self.written.load();
    }
}

/// Reads everything that can be read, in every way, and compares it with the model's copies.
fn compare(state: &State, history: &dyn History, model: &Plain, part: usize) {
    let everything = KeyRange::from_wire("\0".into(), "\0".into());
    let (revision, compacted) = (model.revision(), model.compacted);
    assert_eq!(state.revision().get(), revision);
    assert_eq!(state.compacted().get(), compacted);
    assert_eq!(state.key_count(), model.copies.last().unwrap().len());
    for at in compacted.max(1)..=revision {
        let want = in_range(&model.copies[usize::try_from(at).unwrap()], &everything);
        let at = Revision::new(at);
        let query = Range {
            revision: Some(at),
            ..Range::of(everything.clone())
        };
        let answer = state.range(&query, history).unwrap().unwrap();
        assert_eq!(answer.kvs, want, "all keys at {at}");
        assert_eq!(answer.count, want.len(), "count at {at}");
        assert_eq!(
            paged(state, history, &everything, at, part),
            want,
            "pages at {at}"
        );
        let count = state
            .count(&everything, at, None, history)
            .unwrap()
            .unwrap();
        assert_eq!(
            (count.count, count.next),
            (want.len(), None),
            "count in parts at {at}"
        );
    }
    for from in compacted.max(0)..=revision + 1 {
        let want = model.events(from).unwrap();
        assert_eq!(
            replayed(state, history, from, part),
            want,
            "changes from {from} on"
        );
    }
    if compacted > 0 {
        let from = Revision::new(compacted - 1);
        let refused = state
            .events(from, state.revision(), 10, true, history)
            .unwrap();
        assert_eq!(
            refused.unwrap_err(),
            model.events(compacted - 1).unwrap_err()
        );
    }
}

fn paged(
    state: &State,
    history: &dyn History,
    range: &KeyRange,
    at: Revision,
    limit: usize,
) -> Vec<KeyValue> {
    let mut kvs = Vec::new();
    let mut from = None;
    loop {
        let page = state
            .page(range, at, from.as_ref(), limit, false, history)
            .unwrap()
            .unwrap();
        assert!(page.kvs.len() <= limit);
        kvs.extend(page.kvs);
        from = page.next;
        if from.is_none() {
            return kvs;
        }
    }
}

fn replayed(state: &State, history: &dyn History, from: i64, limit: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut from = Revision::new(from);
    while from <= state.revision() {
        let part = state
            .events(from, state.revision(), limit, true, history)
            .unwrap()
            .unwrap();
        let Some(last) = part.last() else { break };
        from = last.kv.mod_revision.next();
        events.extend(part.iter().map(|event| Event::clone(event)));
    }
    events
}

fn compare_leases(state: &State, model: &Plain) {
    let want: Vec<(LeaseId, i64, Vec<&[u8]>)> = model
        .leases
        .iter()
        .map(|(id, ttl)| {
            let attached = model
                .copies
                .last()
                .unwrap()
                .values()
                .filter(|kv| kv.lease == *id);
            (*id, *ttl, attached.map(|kv| kv.key.as_ref()).collect())
        })
        .collect();
    let leases: Vec<_> = state
        .leases()
        .map(|(id, lease)| (id, lease.ttl, lease.keys().collect()))
        .collect();
    assert_eq!(leases, want);
    assert!(state.alarms().eq(model.alarms.iter().copied()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Model: one whole copy of the map per revision.
    #[test]
    fn any_history_reads_like_the_copies(steps in vec(random::step(), 1..50), part in 1_usize..4) {
        let mut model = Plain::default();
        let mut roomy = Member::new();
        let mut evicted = Member::new();
        let mut forgetful = Member::new();
        for step in steps {
            match step {
                Step::Apply(command) => {
                    let command = random::placed(command, model.revision());
                    let want = model.apply(&command);
                    for member in [&mut roomy, &mut evicted, &mut forgetful] {
                        prop_assert_eq!(&member.apply(&command), &want, "{:?}", &command);
                    }
                    forgetful.evict(0);
                }
                Step::Read(range) => {
                    let range = random::placed_range(range, model.revision());
                    check_range(&range, &model, &[&roomy, &evicted, &forgetful]);
                }
                Step::ReadTxn(txn) => {
                    let txn = random::placed_txn(txn, model.revision());
                    check_read_txn(&txn, &model, &[&roomy, &evicted, &forgetful]);
                }
                Step::Write => evicted.write(),
                Step::Evict(budget_bytes) => evicted.evict(budget_bytes),
                Step::Sweep => {
                    evicted.written.sweep();
                    forgetful.written.sweep();
                }
                Step::Restart => evicted.restart(),
            }
            compare(&roomy.state, &NoHistory, &model, part);
            for member in [&roomy, &evicted, &forgetful] {
                member.state.check();
                compare_leases(&member.state, &model);
            }
            compare(&evicted.state, &evicted.written, &model, part);
            compare(&forgetful.state, &forgetful.written, &model, part);
        }
    }
}

fn check_range(range: &Range, model: &Plain, members: &[&Member]) {
    let want = model.range(range);
    for member in members {
        assert_eq!(
            member.state.range(range, &member.written).unwrap(),
            want,
            "{range:?}"
        );
    }
}

fn check_read_txn(txn: &Txn, model: &Plain, members: &[&Member]) {
    assert!(txn.is_read_only(), "{txn:?}");
    let want = model.read_txn(txn);
    for member in members {
        assert_eq!(
            member.state.read_txn(txn, &member.written).unwrap(),
            want,
            "{txn:?}"
        );
    }
}

//! Random commands, reads, evictions, compactions and restarts against the plain model.
//!
//! Four states are fed the same commands: one that keeps everything in memory, one that is evicted
//! and swept at random, one that drops everything at every step, and the model. All answers must be
//! equal, and every invariant must hold after each step.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/compare.rs"]
mod compare;
#[path = "support/plain.rs"]
mod plain;
#[path = "support/random.rs"]
mod random;
#[path = "support/recorded.rs"]
mod recorded;

use compare::{compare, compare_leases};
use gonfalon_core::command::{Command, Range, Txn};
use gonfalon_core::{Changes, NoHistory, Reply, State};
use plain::Plain;
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

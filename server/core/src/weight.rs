//! How many keys a request may touch, asked before it is carried out.

use crate::command::{Command, Op, Range, Txn};
use crate::{KeyRange, State};

impl State {
    /// About how many keys carrying out `command` takes, beside those that it names one by one.
    pub fn command_weight(&self, command: &Command) -> usize {
        match command {
            Command::DeleteRange(delete) => self.keys_in(&delete.range),
            Command::Txn(txn) => self.txn_weight(txn),
            Command::LeaseRevoke { id } => self.lease(*id).map_or(0, |lease| lease.keys().len()),
            Command::Put(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::Alarm(_)
            | Command::PublishMember { .. } => 0,
        }
    }

    /// About how many keys a transaction takes, whichever branch is run.
    pub fn txn_weight(&self, txn: &Txn) -> usize {
        let compared = txn.compare.iter().map(|compare| &compare.range);
        let compared: usize = compared.map(|range| self.keys_in(range)).sum();
        let ops = txn.success.iter().chain(&txn.failure);
        let run = ops.map(|op| match op {
            Op::Range(range) => self.range_weight(range),
            Op::Put(_) => 0,
            Op::DeleteRange(delete) => self.keys_in(&delete.range),
            Op::Txn(txn) => self.txn_weight(txn),
        });
        compared + run.sum::<usize>()
    }

    /// About how many keys a read takes.
    pub fn range_weight(&self, query: &Range) -> usize {
        self.keys_in(&query.range)
    }

    fn keys_in(&self, range: &KeyRange) -> usize {
        if range.is_single() {
            return 0;
        }
        self.present_keys(range)
    }
}

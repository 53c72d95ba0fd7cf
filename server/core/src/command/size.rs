//! How large a command is in the log, without encoding it: for batches under a byte limit.
//!
//! Upper bounds: numbers are taken to be as long as they can be.

use super::{Command, Compare, CompareTarget, Op, Put, Txn};
use crate::{KeyRange, RangeEnd};

/// A number takes at most so many bytes.
const NUMBER: usize = 10;

impl Command {
    /// At most so many bytes in the log; a few dozen above the truth.
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Self::Put(it) => put(it),
            Self::DeleteRange(it) => 1 + key_range(&it.range),
            Self::Txn(it) => txn(it),
            Self::Compact { .. } | Self::LeaseRevoke { .. } => NUMBER,
            Self::LeaseGrant { .. } => 2 * NUMBER,
            Self::Alarm(_) => 2 + NUMBER,
            Self::PublishMember {
                id: _,
                name,
                client_urls,
            } => {
                let urls: usize = client_urls.iter().map(|url| NUMBER + url.len()).sum();
                3 * NUMBER + name.len() + urls
            }
        }
    }
}

fn put(it: &Put) -> usize {
    1 + 3 * NUMBER + it.key.len() + it.value.len()
}

fn txn(it: &Txn) -> usize {
    let compares: usize = it.compare.iter().map(compare).sum();
    let ops: usize = it.success.iter().chain(&it.failure).map(op).sum();
    3 * NUMBER + compares + ops
}

fn op(it: &Op) -> usize {
    1 + match it {
        Op::Range(it) => key_range(&it.range) + 3 + 6 * NUMBER,
        Op::Put(it) => put(it),
        Op::DeleteRange(it) => 1 + key_range(&it.range),
        Op::Txn(it) => txn(it),
    }
}

fn compare(it: &Compare) -> usize {
    let value = match &it.target {
        CompareTarget::Value(value) => value.len(),
        _ => 0,
    };
    key_range(&it.range) + 2 + NUMBER + value
}

fn key_range(it: &KeyRange) -> usize {
    let end = match &it.end {
        RangeEnd::Before(end) => NUMBER + end.len(),
        RangeEnd::Single | RangeEnd::Unbounded => 0,
    };
    1 + NUMBER + it.start.len() + end
}

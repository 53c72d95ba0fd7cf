//! Transactions: compare, then run one branch, at one revision.
//!
//! All compares, nested ones too, look at the state before the transaction, so which branches are
//! taken is known before anything is done ([`resolve`]). What can be refused is refused then
//! ([`check`]), on the taken branches alone; after that a transaction cannot fail.

use crate::command::{Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation, Txn};
use crate::mvcc::{Store, Version, Write};
use crate::state::{Keyspace, check_key};
use crate::{Error, History, HistoryError, OpAnswer, OpResult, TxnAnswer};

/// The branch of a transaction that is taken.
#[derive(Debug)]
pub(crate) struct Branch<'t> {
    succeeded: bool,
    steps: Vec<Step<'t>>,
}

/// An operation of the branch taken.
#[derive(Debug)]
enum Step<'t> {
    Range(&'t Range),
    Put(&'t Put),
    DeleteRange(&'t DeleteRange),
    Txn(Branch<'t>),
}

/// Evaluates the compares and chooses the branches.
pub(crate) fn resolve<'t>(txn: &'t Txn, store: &Store) -> Branch<'t> {
    let succeeded = txn.compare.iter().all(|compare| holds(compare, store));
    let ops = if succeeded {
        &txn.success
    } else {
        &txn.failure
    };
    let steps = ops
        .iter()
        .map(|op| match op {
            Op::Range(range) => Step::Range(range),
            Op::Put(put) => Step::Put(put),
            Op::DeleteRange(delete) => Step::DeleteRange(delete),
            Op::Txn(txn) => Step::Txn(resolve(txn, store)),
        })
        .collect();
    Branch { succeeded, steps }
}

/// Whether everything on the branch can be done: first all puts, then all reads, so that of two
/// reasons to refuse it the same one is given as by etcd.
pub(crate) fn check(branch: &Branch<'_>, keyspace: &Keyspace) -> Result<(), Error> {
    check_puts(branch, keyspace)?;
    check_reads(branch, &keyspace.store)
}

fn check_puts(branch: &Branch<'_>, keyspace: &Keyspace) -> Result<(), Error> {
    branch.steps.iter().try_for_each(|step| match step {
        Step::Put(put) => check_key(put)
            .and_then(|()| keyspace.check_kept(put))
            .and_then(|()| keyspace.check_lease(put)),
        Step::Txn(branch) => check_puts(branch, keyspace),
        Step::Range(_) | Step::DeleteRange(_) => Ok(()),
    })
}

fn check_reads(branch: &Branch<'_>, store: &Store) -> Result<(), Error> {
    branch.steps.iter().try_for_each(|step| match step {
        Step::Range(range) => store.read_at(range.revision).map(drop),
        Step::Txn(branch) => check_reads(branch, store),
        Step::Put(_) | Step::DeleteRange(_) => Ok(()),
    })
}

/// Runs a branch that [`check`] has passed.
pub(crate) fn run(
    branch: &Branch<'_>,
    keyspace: &mut Keyspace,
    write: &mut Write<'_>,
    history: &dyn History,
) -> Result<TxnAnswer, HistoryError> {
    let mut responses = Vec::with_capacity(branch.steps.len());
    for step in &branch.steps {
        let result = match step {
            Step::Range(range) => OpResult::Range(read(range, &keyspace.store, history)?),
            Step::Put(put) => OpResult::Put(keyspace.put(write, put)),
            Step::DeleteRange(delete) => OpResult::DeleteRange(keyspace.delete(write, delete)),
            Step::Txn(branch) => OpResult::Txn(run(branch, keyspace, write, history)?),
        };
        responses.push(OpAnswer {
            revision: keyspace.store.revision(),
            result,
        });
    }
    Ok(TxnAnswer {
        succeeded: branch.succeeded,
        responses,
    })
}

/// Runs the branch of a transaction that only reads.
pub(crate) fn run_read_only(
    branch: &Branch<'_>,
    store: &Store,
    history: &dyn History,
) -> Result<TxnAnswer, HistoryError> {
    let mut responses = Vec::with_capacity(branch.steps.len());
    for step in &branch.steps {
        let result = match step {
            Step::Range(range) => OpResult::Range(read(range, store, history)?),
            Step::Txn(branch) => OpResult::Txn(run_read_only(branch, store, history)?),
            Step::Put(_) | Step::DeleteRange(_) => unreachable!("a transaction that only reads"),
        };
        responses.push(OpAnswer {
            revision: store.revision(),
            result,
        });
    }
    Ok(TxnAnswer {
        succeeded: branch.succeeded,
        responses,
    })
}

fn read(
    range: &Range,
    store: &Store,
    history: &dyn History,
) -> Result<crate::RangeAnswer, HistoryError> {
    let answer = store.range(range, history)?;
    Ok(answer.expect("the revision was checked before the transaction began"))
}

/// Whether the condition holds for every key of its range.
fn holds(compare: &Compare, store: &Store) -> bool {
    let mut versions = store.current(&compare.range).peekable();
    if versions.peek().is_none() {
        return holds_for(compare, None);
    }
    versions.all(|version| holds_for(compare, Some(version)))
}

/// Whether the condition holds for a key, given its version if it exists.
fn holds_for(compare: &Compare, version: Option<&Version>) -> bool {
    let number = |stored: fn(&Version) -> i64| version.map_or(0, stored);
    let ordering = match &compare.target {
        CompareTarget::Version(given) => number(Version::number_of_puts).cmp(given),
        CompareTarget::CreateRevision(given) => {
            number(|version| version.create_revision().get()).cmp(given)
        }
        CompareTarget::ModRevision(given) => {
            number(|version| version.mod_revision().get()).cmp(given)
        }
        CompareTarget::Lease(given) => number(|version| version.lease().get()).cmp(given),
        CompareTarget::Value(given) => match version {
            Some(version) => version.value().cmp(given.as_ref()),
            None => return false,
        },
        // etcd compares nothing with nothing: equal.
        CompareTarget::Unknown => std::cmp::Ordering::Equal,
    };
    match compare.relation {
        Relation::Equal => ordering.is_eq(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Unknown => true,
    }
}

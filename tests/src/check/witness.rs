//! Replays the writes in the order of their revisions and compares every answer with the replay.

use std::collections::{BTreeMap, HashMap};

use super::model::Model;
use crate::history::{Answer, Change, History, Operation, Outcome, Request};

/// The answer of a call that has one.
pub(crate) fn answer(operation: &Operation) -> Option<&Answer> {
    match &operation.outcome {
        Outcome::Done(answer) => Some(answer),
        Outcome::Refused(_) | Outcome::Unknown(_) => None,
    }
}

/// Whether an answered call made a revision of its own.
fn has_written(request: &Request, answer: &Answer) -> bool {
    match request {
        Request::Read { .. } => false,
        Request::Put { .. } => true,
        Request::Delete { .. } => answer.versions.first().is_some_and(Option::is_some),
        Request::Swap { puts, .. } => answer.succeeded && !puts.is_empty(),
    }
}

/// Executes the history's writes one after the other; `seen` are the events of all watches.
///
/// Also gives the writes of unknown outcome that turned out to have happened, and at which revision.
pub fn replay<'a>(
    history: &'a History,
    seen: &BTreeMap<i64, Vec<Change>>,
    violations: &mut Vec<String>,
) -> (Model, Vec<(&'a Operation, i64)>) {
    let acknowledged = acknowledged(history, violations);
    let mut unknown: Vec<&Operation> = history
        .operations
        .iter()
        .filter(|op| matches!(op.outcome, Outcome::Unknown(_)) && !op.request.is_read())
        .collect();
    unknown.sort_by_key(|op| op.called);
    let last = acknowledged
        .keys()
        .chain(seen.keys())
        .copied()
        .max()
        .unwrap_or(1);
    let mut recovered = Vec::new();
    let mut model = Model::default();
    for revision in 2..=last {
        let events = seen.get(&revision).map_or(&[][..], Vec::as_slice);
        let changes = if let Some(operation) = acknowledged.get(&revision) {
            let changes = model.effect(&operation.request, revision);
            if changes.is_empty() {
                violations.push(format!("revision {revision} changes nothing: {operation}"));
            }
            for event in events.iter().filter(|event| !contains(&changes, event)) {
                violations.push(format!("no write made {event:?}: {operation}"));
            }
            changes
        } else if let Some(at) = unknown
            .iter()
            .position(|op| makes(&model, op, revision, events))
        {
            let operation = unknown.remove(at);
            recovered.push((operation, revision));
            model.effect(&operation.request, revision)
        } else {
            violations.push(format!(
                "revision {revision} was written by nobody: {events:?}"
            ));
            events.to_vec()
        };
        model.commit(changes);
    }
    (model, recovered)
}

/// The acknowledged writes by revision. Two at one revision: one of them is lost.
fn acknowledged<'a>(
    history: &'a History,
    violations: &mut Vec<String>,
) -> HashMap<i64, &'a Operation> {
    let mut by_revision: HashMap<i64, &Operation> = HashMap::new();
    for operation in &history.operations {
        let Some(answer) = answer(operation) else {
            continue;
        };
        if !has_written(&operation.request, answer) {
            continue;
        }
        if let Some(other) = by_revision.insert(answer.revision, operation) {
            violations.push(format!(
                "revision {} was given to two writes: {other} and {operation}",
                answer.revision
            ));
        }
    }
    by_revision
}

/// Whether executing `operation` now gives exactly what watchers saw.
fn makes(model: &Model, operation: &Operation, revision: i64, seen: &[Change]) -> bool {
    let effect = model.effect(&operation.request, revision);
    !effect.is_empty()
        && effect.len() == seen.len()
        && seen.iter().all(|event| contains(&effect, event))
}

/// Whether `changes` has this change, whatever watchers know of the version before.
fn contains(changes: &[Change], event: &Change) -> bool {
    changes
        .iter()
        .any(|change| change.key == event.key && change.put == event.put)
}

/// Compares every answer with the replay.
pub fn answers(history: &History, model: &Model, violations: &mut Vec<String>) {
    for operation in &history.operations {
        let Some(answer) = answer(operation) else {
            continue;
        };
        if let Some(wrong) = explain(operation, answer, model) {
            violations.push(format!("{wrong}: {operation}"));
        }
    }
}

/// Compares every revision with what had been answered before its call began: time never goes
/// backwards for those who look at a clock.
pub fn real_time(history: &History, recovered: &[(&Operation, i64)], violations: &mut Vec<String>) {
    let answered = || {
        history
            .operations
            .iter()
            .filter_map(|op| Some((op, answer(op)?)))
    };
    let mut returns: Vec<(u64, i64)> = answered()
        .filter_map(|(op, answer)| Some((op.returned?, answer.revision)))
        .collect();
    returns.sort_unstable();
    let mut returned = returns.into_iter().peekable();
    let mut calls: Vec<(&Operation, i64, bool)> = answered()
        .map(|(op, answer)| (op, answer.revision, has_written(&op.request, answer)))
        .chain(
            recovered
                .iter()
                .map(|(op, revision)| (*op, *revision, true)),
        )
        .collect();
    calls.sort_by_key(|(op, _, _)| op.called);
    // The greatest revision among the answers so far.
    let mut floor = 1;
    for (operation, at, is_write) in calls {
        while let Some((_, revision)) = returned.next_if(|(at, _)| *at < operation.called) {
            floor = floor.max(revision);
        }
        let is_stale = if is_write { at <= floor } else { at < floor };
        let may_be = matches!(
            operation.request,
            Request::Read {
                serializable: true,
                ..
            }
        );
        if is_stale && !may_be {
            violations.push(format!(
                "revision {floor} had been answered before this call of {at} began: {operation}"
            ));
        }
    }
}

/// What is wrong with an answer, going by the state at its revision.
fn explain(operation: &Operation, answer: &Answer, model: &Model) -> Option<String> {
    let now = answer.revision;
    if now > model.revision() {
        return Some(format!("there is no revision {now}"));
    }
    let (keys, at): (Vec<&String>, i64) = match &operation.request {
        Request::Read { keys, at, .. } => (keys.iter().collect(), at.unwrap_or(now)),
        Request::Put { key, .. } => (vec![key], now - 1),
        Request::Delete { key } if has_written(&operation.request, answer) => (vec![key], now - 1),
        Request::Delete { key } => (vec![key], now),
        Request::Swap { expect, .. } => {
            let at = if has_written(&operation.request, answer) {
                now - 1
            } else {
                now
            };
            if model.holds(expect, at) != answer.succeeded {
                return Some(format!(
                    "its expectation was judged wrongly at revision {at}"
                ));
            }
            let reads = if answer.succeeded {
                &[][..]
            } else {
                expect.as_slice()
            };
            (reads.iter().map(|(key, _)| key).collect(), at)
        }
    };
    let wanted: Vec<_> = keys.iter().map(|key| model.at(key, at).cloned()).collect();
    (wanted != answer.versions).then(|| format!("at revision {at} these were {wanted:?}"))
}

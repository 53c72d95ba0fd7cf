//! The promises of watches: ordered, unique, reliable, atomic, resumable, bookmarkable.

use std::collections::BTreeMap;

use super::model::Model;
use crate::history::{Change, History, Received, Watch};

/// What all watches saw, by revision. Two that saw different things are a violation.
pub fn union(history: &History, violations: &mut Vec<String>) -> BTreeMap<i64, Vec<Change>> {
    let mut seen: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    for watch in &history.watches {
        for event in watch.received.iter().flat_map(|received| &received.events) {
            let same_revision = seen.entry(event.revision).or_default();
            match same_revision.iter().find(|other| other.key == event.key) {
                None => same_revision.push(event.clone()),
                Some(other) if other.put == event.put => {}
                Some(other) => violations.push(format!(
                    "watchers disagree: {other:?}, and {} saw {event:?}",
                    of(watch)
                )),
            }
        }
    }
    seen
}

/// Judges one watch on one connection.
pub fn connection(watch: &Watch, model: &Model, violations: &mut Vec<String>) {
    let mut judge = Judge {
        watch,
        model,
        violations,
        last: 0,
        progress: 0,
        created: None,
    };
    let mut pieces: Vec<Change> = Vec::new();
    for received in &watch.received {
        judge.header(received);
        pieces.extend(received.events.iter().cloned());
        if received.fragment {
            if !watch.fragment {
                judge.blame("sends pieces that were not asked for");
            }
            continue;
        }
        judge.events(&std::mem::take(&mut pieces));
        if received.events.is_empty() && !received.created && !received.canceled {
            judge.progress(received.revision);
        }
    }
    if !pieces.is_empty() && watch.received.last().is_some_and(|last| last.canceled) {
        judge.blame("ended in the middle of an answer in pieces");
    }
    judge.reliable();
}

/// Judges each watcher over all its connections: together they saw everything up to the end.
pub fn chains(history: &History, model: &Model, violations: &mut Vec<String>) {
    let mut watchers: BTreeMap<u32, Vec<&Watch>> = BTreeMap::new();
    for watch in &history.watches {
        watchers.entry(watch.watcher).or_default().push(watch);
    }
    for (watcher, connections) in watchers {
        let Some(first) = connections.iter().find_map(|watch| first_revision(watch)) else {
            continue;
        };
        let wanted = expected(connections[0], model, first, model.revision());
        let seen: Vec<(i64, &str)> = connections
            .iter()
            .flat_map(|watch| &watch.received)
            .flat_map(|received| &received.events)
            .map(|event| (event.revision, event.key.as_str()))
            .collect();
        let wanted: Vec<(i64, &str)> = wanted
            .iter()
            .map(|event| (event.revision, event.key.as_str()))
            .collect();
        if let Some(difference) = first_difference(&wanted, &seen) {
            violations.push(format!(
                "watcher {watcher} over its {} connections: {difference}",
                connections.len()
            ));
        }
    }
}

struct Judge<'a> {
    watch: &'a Watch,
    model: &'a Model,
    violations: &'a mut Vec<String>,
    /// The revision of the last event.
    last: i64,
    /// The last progress report.
    progress: i64,
    /// The revision in the header of the first answer.
    created: Option<i64>,
}

impl Judge<'_> {
    fn blame(&mut self, what: &str) {
        self.violations.push(format!("{} {what}", of(self.watch)));
    }

    fn header(&mut self, received: &Received) {
        if received.created {
            if self.created.replace(received.revision).is_some() {
                self.blame("was created twice");
            }
        } else if self.created.is_none() {
            self.blame(&format!("got {received:?} before it was created"));
        }
        for event in &received.events {
            if event.revision > received.revision {
                self.blame(&format!(
                    "got {event:?} in an answer of {}",
                    received.revision
                ));
            }
        }
    }

    /// One whole answer.
    fn events(&mut self, events: &[Change]) {
        let Some(first) = events.first() else { return };
        if first.revision == self.last {
            self.blame(&format!("got revision {} in two answers", first.revision));
        }
        for event in events {
            if event.revision < self.last {
                self.blame(&format!("got {event:?} after revision {}", self.last));
            }
            if event.revision <= self.progress {
                self.blame(&format!("got {event:?} after progress {}", self.progress));
            }
            self.last = self.last.max(event.revision);
            self.event(event);
        }
    }

    fn event(&mut self, event: &Change) {
        let filtered = if event.put.is_some() {
            self.watch.no_put
        } else {
            self.watch.no_delete
        };
        if filtered || !event.key.starts_with(&self.watch.prefix) {
            self.blame(&format!("got {event:?}, which it did not ask for"));
        }
        let Some(truth) = self
            .model
            .changes_at(event.revision)
            .iter()
            .find(|change| change.key == event.key)
        else {
            self.blame(&format!("got {event:?}, which did not happen"));
            return;
        };
        let prev = if self.watch.prev_kv {
            &truth.prev
        } else {
            &None
        };
        if event.put != truth.put || event.prev != *prev {
            self.blame(&format!("got {event:?} for {truth:?}"));
        }
    }

    fn progress(&mut self, revision: i64) {
        if revision < self.progress.max(self.last) {
            let known = self.progress.max(self.last);
            self.blame(&format!("got progress {revision} after it knew {known}"));
        }
        self.progress = self.progress.max(revision);
    }

    /// Between its first revision and the last one it heard of, nothing is missing or too much.
    fn reliable(&mut self) {
        let Some(first) = first_revision(self.watch) else {
            return;
        };
        let last = self.last.max(self.progress);
        let wanted = expected(self.watch, self.model, first, last);
        let wanted: Vec<(i64, &str)> = wanted
            .iter()
            .map(|event| (event.revision, event.key.as_str()))
            .collect();
        let seen: Vec<(i64, &str)> = self
            .watch
            .received
            .iter()
            .flat_map(|received| &received.events)
            .map(|event| (event.revision, event.key.as_str()))
            .collect();
        if let Some(difference) = first_difference(&wanted, &seen) {
            self.blame(&difference);
        }
    }
}

/// The first revision that a watch must show: what it asked for, or what follows its creation.
fn first_revision(watch: &Watch) -> Option<i64> {
    let created = watch.received.iter().find(|received| received.created)?;
    Some(if watch.start == 0 {
        created.revision + 1
    } else {
        watch.start
    })
}

/// What a watch must show of revisions `first..=last`, in order.
fn expected<'a>(watch: &Watch, model: &'a Model, first: i64, last: i64) -> Vec<&'a Change> {
    (first..=last)
        .flat_map(|revision| model.changes_at(revision))
        .filter(|change| change.key.starts_with(&watch.prefix))
        .filter(|change| {
            if change.put.is_some() {
                !watch.no_put
            } else {
                !watch.no_delete
            }
        })
        .collect()
}

fn first_difference(wanted: &[(i64, &str)], seen: &[(i64, &str)]) -> Option<String> {
    let at = wanted
        .iter()
        .zip(seen)
        .take_while(|(wanted, seen)| wanted == seen)
        .count();
    match (wanted.get(at), seen.get(at)) {
        (None, None) => None,
        (Some(wanted), None) => Some(format!("missed {wanted:?} and what follows")),
        (None, Some(seen)) => Some(format!("got {seen:?}, which is too much")),
        (Some(wanted), Some(seen)) => Some(format!("got {seen:?} where {wanted:?} is next")),
    }
}

fn of(watch: &Watch) -> String {
    format!(
        "watcher {} at member {} from {}",
        watch.watcher, watch.member, watch.start
    )
}

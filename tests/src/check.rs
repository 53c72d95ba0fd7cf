//! Judges recorded histories: strict serializability of calls, and the promises of watches.
//!
//! Every etcd answer carries a revision, so no search is needed: ordering the writes by revision
//! *is* the serial execution that must explain every answer. [`witness`] replays it and compares
//! each answer, [`watch`] compares what watchers saw with the same replay. A history that passes
//! is linearizable because its linearization has been exhibited; the cost is a sort.
//!
//! The store must have been empty when recording began, and some watcher must have seen all keys
//! from the beginning: its events are how writes with unknown outcome are found out about.

pub mod model;
pub mod watch;
pub mod witness;

use std::fmt;

use crate::history::History;

/// What was checked and what was wrong.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// One sentence each; none: the history is explained.
    pub violations: Vec<String>,
    /// Calls with an answer.
    pub answered: usize,
    /// Calls with unknown outcome that did take effect.
    pub recovered: usize,
    /// The last revision.
    pub revision: i64,
    /// Events received, over all watches.
    pub events: usize,
}

/// Judges a history that was recorded from an empty store.
pub fn check(history: &History) -> Report {
    let mut violations = Vec::new();
    let seen = watch::union(history, &mut violations);
    let (model, recovered) = witness::replay(history, &seen, &mut violations);
    witness::answers(history, &model, &mut violations);
    witness::real_time(history, &recovered, &mut violations);
    for watch in &history.watches {
        watch::connection(watch, &model, &mut violations);
    }
    watch::chains(history, &model, &mut violations);
    Report {
        violations,
        answered: history
            .operations
            .iter()
            .filter(|op| witness::answer(op).is_some())
            .count(),
        recovered: recovered.len(),
        revision: model.revision(),
        events: history
            .watches
            .iter()
            .flat_map(|w| &w.received)
            .map(|r| r.events.len())
            .sum(),
    }
}

impl Report {
    /// Fails with every violation.
    ///
    /// # Panics
    /// If there is one.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// One broken promise may show in thousands of answers.
        const SHOWN: usize = 20;
        writeln!(
            f,
            "{} answers and {} events up to revision {}, {} writes recovered, {} violations",
            self.answered,
            self.events,
            self.revision,
            self.recovered,
            self.violations.len()
        )?;
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "- {violation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

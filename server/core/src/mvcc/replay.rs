//! The changes of past revisions, for watches that start there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Store;
use crate::{Error, Event, History, HistoryError, Revision};

impl Store {
    /// The changes of revisions `from..=to`, oldest first, whole revisions, about `limit` changes.
    ///
    /// `prev` is none where the version before is compacted. Changes that are no longer in memory
    /// have it only `with_prev`, since each costs a read of history.
    pub(crate) fn events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
        history: &dyn History,
    ) -> Result<Result<Vec<Arc<Event>>, Error>, HistoryError> {
        if from < self.compacted {
            return Ok(Err(Error::Compacted {
                oldest: self.compacted,
            }));
        }
        // Revision 1 is the empty store: nothing happened at it.
        let from = from.max(Revision::FIRST.next());
        let to = to.min(self.revision);
        let mut events = Vec::new();
        let floor = self.recent.floor();
        if from <= floor && from <= to {
            self.old_events(from, to.min(floor), limit, with_prev, history, &mut events)?;
        }
        let is_up_to_floor = events.last().map_or(from > floor, |last| {
            last.kv.mod_revision == floor && events.len() < limit
        });
        if is_up_to_floor && to > floor {
            self.recent_events(from.max(floor.next()), to, limit, &mut events);
        }
        if from == self.compacted {
            self.drop_superseded(&mut events);
        }
        Ok(Ok(events))
    }

    /// Leaves only each key's last change at the compacted revision: storage may have dropped the
    /// others already, and every member must answer the same.
    fn drop_superseded(&self, events: &mut Vec<Arc<Event>>) {
        let end = events.partition_point(|event| event.kv.mod_revision <= self.compacted);
        let mut seen = BTreeSet::new();
        let mut is_last: Vec<bool> = events[..end]
            .iter()
            .rev()
            .map(|event| seen.insert(event.kv.key.clone()))
            .collect();
        events.retain(|_| is_last.pop().unwrap_or(true));
    }

    fn old_events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        with_prev: bool,
        history: &dyn History,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<(), HistoryError> {
        let mut expected = from;
        for batch in history.events(from, to, limit, with_prev)? {
            if batch.revision < expected || batch.revision > to || batch.events.is_empty() {
                let revision = batch.revision;
                return Err(HistoryError(format!(
                    "asked for {from}..={to}, given {revision}"
                )));
            }
            expected = batch.revision.next();
            for mut event in batch.events {
                if !self.is_prev_readable(&event) {
                    event.prev = None;
                }
                events.push(Arc::new(event));
            }
        }
        if events.is_empty() {
            return Err(HistoryError(format!(
                "no changes at revisions {from}..={to}"
            )));
        }
        Ok(())
    }

    fn recent_events(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
        events: &mut Vec<Arc<Event>>,
    ) {
        let mut last = None;
        for event in self.recent.events(from, to) {
            let revision = event.kv.mod_revision;
            if events.len() >= limit && last != Some(revision) {
                break;
            }
            last = Some(revision);
            if event.prev.is_some() && !self.is_prev_readable(event) {
                events.push(Arc::new(Event {
                    prev: None,
                    ..Event::clone(event)
                }));
            } else {
                events.push(event.clone());
            }
        }
    }

    fn is_prev_readable(&self, event: &Event) -> bool {
        event.kv.mod_revision.prev() >= self.compacted
    }
}

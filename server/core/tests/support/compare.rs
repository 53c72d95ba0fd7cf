//! A state against the model's copies, read in every way there is.

use gonfalon_core::command::Range;
use gonfalon_core::{Event, History, KeyRange, KeyValue, LeaseId, Revision, State};

use super::plain::{Plain, in_range};

/// Reads everything that can be read, in every way, and compares it with the model's copies.
pub(crate) fn compare(state: &State, history: &dyn History, model: &Plain, part: usize) {
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

/// Leases with their keys, and alarms.
pub(crate) fn compare_leases(state: &State, model: &Plain) {
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

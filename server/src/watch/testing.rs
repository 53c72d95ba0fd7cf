//! A member without disk or Raft: the real state, the real watchers, one lock.

use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use gonfalon_core::command::{DeleteRange, Put};
use gonfalon_core::watch::{Filter, Spec};
use gonfalon_core::{
    Changes, Command, Error, HistoryError, KeyRange, LeaseId, NoHistory, Revision, State,
};

use super::{Replay, Replayed, Subscriber, Watchers};

/// Applies commands as the apply task does.
#[derive(Debug)]
pub(crate) struct Member {
    state: Arc<Past>,
    pub(crate) watchers: Arc<Watchers>,
    applying: Mutex<()>,
}

#[derive(Debug)]
struct Past(RwLock<State>);

impl Replay for Past {
    fn replay(
        &self,
        from: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Result<Replayed, Error>, HistoryError> {
        let state = self.0.read().unwrap();
        let revision = state.revision();
        let events = state.events(from, revision, limit, with_prev, &NoHistory)?;
        Ok(events.map(|events| Replayed { events, revision }))
    }
}

impl Member {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(Past(RwLock::new(State::new()))),
            watchers: Arc::new(Watchers::new(Revision::FIRST)),
            applying: Mutex::new(()),
        }
    }

    pub(crate) fn replay(&self) -> Arc<dyn Replay> {
        self.state.clone()
    }

    pub(crate) fn subscriber(&self) -> Subscriber {
        Subscriber::open(self.watchers.clone(), self.replay())
    }

    pub(crate) fn revision(&self) -> Revision {
        self.state.0.read().unwrap().revision()
    }

    /// Applies commands as one batch.
    pub(crate) fn apply(&self, commands: &[Command]) {
        let _applying = self.applying.lock().unwrap();
        let mut changes = Changes::default();
        let revision = {
            let mut state = self.state.0.write().unwrap();
            for command in commands {
                let reply = state.apply(command, &NoHistory, &mut changes).unwrap();
                assert!(reply.result.is_ok(), "{command:?}: {:?}", reply.result);
            }
            state.revision()
        };
        let events: Vec<_> = changes
            .versions
            .into_iter()
            .map(|written| written.event)
            .collect();
        self.watchers.publish(revision, &events);
    }

    /// Puts `key` so many times.
    pub(crate) fn put(&self, key: &'static str, times: usize) {
        let put = Put {
            key: key.into(),
            value: Bytes::from_static(b"value"),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        self.apply(&vec![Command::Put(put); times]);
    }

    pub(crate) fn delete(&self, key: &'static str) {
        let range = KeyRange::single(key.into());
        self.apply(&[Command::DeleteRange(DeleteRange {
            range,
            prev_kv: false,
        })]);
    }

    pub(crate) fn compact(&self, revision: i64) {
        self.apply(&[Command::Compact {
            revision: Revision::new(revision),
        }]);
    }
}

/// A watcher of everything from `start` on.
pub(crate) fn all(start: Option<i64>) -> Spec {
    Spec {
        id: None,
        range: KeyRange::from_wire("\0".into(), "\0".into()),
        start: start.map(Revision::new),
        filter: Filter::default(),
    }
}

/// A watcher of one key, from now on.
pub(crate) fn single(key: &'static str) -> Spec {
    Spec {
        range: KeyRange::single(key.into()),
        ..all(None)
    }
}

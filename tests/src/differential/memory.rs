//! Every event of a system since it was empty, seen by a watch of its own.
//!
//! It says how many events a watcher of a script is to get, so that scripts wait for what must come
//! and not for time to pass.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gonfalon_proto::etcdserverpb::WatchCreateRequest;
use gonfalon_proto::mvccpb::Event;
use gonfalon_proto::mvccpb::event::EventType;

use crate::client::Client;
use crate::streams::WatchStream;

/// `NOPUT` and `NODELETE` on the wire.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

/// A system's past.
#[derive(Debug)]
pub struct Memory {
    events: Arc<Mutex<Vec<Event>>>,
    compacted: AtomicI64,
}

impl Memory {
    /// Begins to remember; the store is empty.
    ///
    /// # Errors
    /// The watch is not created.
    pub async fn begin(client: &Client) -> Result<Self> {
        let memory = Self {
            events: Arc::default(),
            compacted: AtomicI64::new(-1),
        };
        let mut stream = WatchStream::open(client);
        let everything = b"\0".as_slice();
        stream
            .create(WatchCreateRequest {
                key: everything.into(),
                range_end: everything.into(),
                // Not the past: nothing that other watchers ask for then delays it.
                start_revision: 2,
                prev_kv: true,
                ..WatchCreateRequest::default()
            })
            .await;
        let created = stream.next(Duration::from_secs(10)).await?;
        if !created.created || created.canceled {
            bail!("a watch of everything is answered by {created:?}");
        }
        let events = memory.events.clone();
        tokio::spawn(async move {
            // Ends with the server.
            while let Ok(answer) = stream.next(Duration::MAX).await {
                events
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(answer.events);
            }
        });
        Ok(memory)
    }

    /// Waits until the events of `revision` are remembered.
    ///
    /// # Errors
    /// They do not come.
    pub async fn reaches(&self, revision: i64) -> Result<(), String> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let start = Instant::now();
        loop {
            let last = self.with(|events| events.last().map_or(1, revision_of));
            if last >= revision {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!(
                    "a watch of everything is at {last}, the store at {revision}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Remembers a compaction.
    pub fn compact(&self, revision: i64) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// The revision of the last compaction; -1 if there was none.
    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Relaxed)
    }

    /// The events that `request` asks for, from `start` on.
    pub fn matching(&self, request: &WatchCreateRequest, start: i64) -> Vec<Event> {
        self.with(|events| {
            events
                .iter()
                .filter(|event| revision_of(event) >= start && is_wanted(request, event))
                .cloned()
                .collect()
        })
    }

    /// Every event up to now, in the order in which they came, without what was before each: that
    /// may have been compacted away when an event was on its way.
    pub fn all(&self) -> Vec<Event> {
        let without_before = |event: &Event| Event {
            prev_kv: None,
            ..event.clone()
        };
        self.with(|events| events.iter().map(without_before).collect())
    }

    /// Whether `revision` deleted something.
    pub fn has_deleted_at(&self, revision: i64) -> bool {
        self.with(|events| {
            events
                .iter()
                .any(|event| revision_of(event) == revision && is_delete(event))
        })
    }

    fn with<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The revision that an event belongs to.
pub fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Whether an event is a deletion.
pub fn is_delete(event: &Event) -> bool {
    event.r#type == EventType::Delete as i32
}

fn is_wanted(request: &WatchCreateRequest, event: &Event) -> bool {
    let Some(kv) = &event.kv else { return false };
    let unwanted = if is_delete(event) { NO_DELETE } else { NO_PUT };
    let in_range = match request.range_end.as_ref() {
        b"" => kv.key == request.key,
        b"\0" => kv.key >= request.key,
        end => kv.key >= request.key && kv.key.as_ref() < end,
    };
    in_range && !request.filters.contains(&unwanted)
}

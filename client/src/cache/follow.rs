//! The task behind a cache: list, follow, and list again when the history is gone.

use std::sync::Arc;

use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Shared, Snapshot};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::types::{KeyRange, Revision};
use crate::watch::{Watch, WatchState};

/// How often a quiet watch is asked how it stands.
const LOOK: std::time::Duration = std::time::Duration::from_millis(250);

pub(super) struct Follower {
    pub(super) client: Client,
    pub(super) range: KeyRange,
    pub(super) page_keys: u32,
    pub(super) shared: Arc<Shared>,
}

/// Why a watch is over.
enum Over {
    Stopped,
    Failed(Error),
}

impl Follower {
    /// The whole range at one revision.
    pub(super) async fn list(&self) -> Result<Snapshot, Error> {
        let older = self.shared.snapshot.load_full();
        let mut pages = self.client.range(self.range.clone()).pages(self.page_keys);
        let mut revision = Revision::UNKNOWN;
        let mut kvs = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page?;
            // The first page's: the others are read as of then.
            if revision == Revision::UNKNOWN {
                revision = page.revision;
            }
            kvs.extend(page.kvs);
        }
        self.shared
            .status
            .send_modify(|status| status.listings += 1);
        Ok(Snapshot::listed(revision, kvs, &older))
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            let over = tokio::select! {
                biased;
                () = stop.cancelled() => Over::Stopped,
                over = self.follow() => over,
            };
            let error = match over {
                Over::Stopped => return,
                Over::Failed(error) => error,
            };
            self.cut_off();
            if *error.kind() == ErrorKind::Closed {
                self.shared
                    .status
                    .send_modify(|status| status.is_closed = true);
                return;
            }
            tracing::warn!(%error, "a cache lists its keys again");
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.relist(error.kind()) => {}
            }
        }
    }

    /// Follows a watch from the published snapshot on.
    async fn follow(&self) -> Over {
        let revision = self.shared.snapshot.load().revision();
        let watch = self
            .client
            .watch(self.range.clone())
            .after(revision)
            .without_prev();
        match watch.await {
            Ok(watch) => self.take(watch).await,
            Err(error) => Over::Failed(error),
        }
    }

    async fn take(&self, mut watch: Watch) -> Over {
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                biased;
                batch = watch.next() => match batch {
                    Some(Ok(batch)) => {
                        // `prove` may have published a later revision of the same keys: then there
                        // was no event up to it, and these are later.
                        self.shared.apply(batch.revision, batch.events);
                    }
                    Some(Err(error)) => return Over::Failed(error),
                    None => return Over::Stopped,
                },
                _ = looks.tick() => {}
            }
            match watch.state() {
                WatchState::Live => self.is_live(),
                WatchState::Resuming => self.cut_off(),
                // The error comes with the next batch.
                WatchState::Ended => {}
            }
        }
    }

    /// Lists until it succeeds. What is published does not go back, unless the store did.
    async fn relist(&self, why: &ErrorKind) {
        let mut pauses = self.client.transport().pauses();
        loop {
            match self.list().await {
                Ok(snapshot) => {
                    let held = self.shared.snapshot.load().revision();
                    if snapshot.revision() >= held || *why == ErrorKind::Restored {
                        return self.shared.publish(snapshot);
                    }
                    tracing::warn!(%held, listed = %snapshot.revision(), "listed an older state");
                }
                Err(error) => tracing::warn!(%error, "cannot list a cache's keys"),
            }
            if let Some(pause) = pauses.next() {
                sleep(pause).await;
            }
        }
    }

    fn is_live(&self) {
        self.shared
            .status
            .send_if_modified(|status| status.cut_off_since.take().is_some());
    }

    fn cut_off(&self) {
        self.shared.status.send_if_modified(|status| {
            let is_new = status.cut_off_since.is_none();
            status.cut_off_since.get_or_insert_with(Instant::now);
            is_new
        });
    }
}

impl Shared {
    /// Publishes what the events make of the newest snapshot.
    fn apply(&self, revision: Revision, mut events: Vec<crate::types::Event>) {
        loop {
            let held = self.snapshot.load_full();
            events.retain(|event| event.kv.mod_revision > held.revision());
            if events.is_empty() {
                return;
            }
            let next = Arc::new(held.after(revision, events.clone()));
            let before = self.snapshot.compare_and_swap(&held, next);
            if Arc::ptr_eq(&before, &held) {
                self.status.send_modify(|status| status.revision = revision);
                return;
            }
        }
    }
}

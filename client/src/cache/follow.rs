//! The task behind a cache: list, follow, and list again when the history is gone.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::loss::{Judge, LossGuard, Withheld};
use super::snapshot::{Listing, Snapshot, Step};
use super::status::{CacheSource, CacheStatus};
use crate::client::Client;
use crate::clock::Stamp;
use crate::error::{Error, ErrorKind};
use crate::observe::CacheMeter;
use crate::transport::closed;
use crate::types::{Event, KeyRange, Revision};
use crate::watch::{Listener, Watch, WatchState};

/// How often what is measured is told when nothing happens.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The least time between two questions whether what is withheld is so.
const CONFIRM_PAUSE_MIN: Duration = Duration::from_millis(250);

/// What a page of a listing should have: large enough that round trips do not count, small enough
/// that neither side holds much at once.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The first page, when nothing is known of the keys' size: values of 2 KiB make it full.
const FIRST_PAGE_KEYS: u32 = 1_000;

/// A watch that has worked for this long was good: when it ends, the pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Follower {
    client: Client,
    range: KeyRange,
    page_keys: u32,
    shared: Arc<Shared>,
    meter: CacheMeter,
    judge: Option<Judge>,
    withheld: Option<Kept>,
    /// As long as there is a cache, members are asked whether they are there.
    listener: Listener,
}

/// The range as the store has it, and as it is not shown.
#[derive(Debug)]
struct Kept {
    snapshot: Snapshot,
    since: Instant,
    /// When the store is asked whether it really is so.
    confirm_at: Option<Instant>,
    /// Its revision may be before that of what is shown: the store was restored.
    may_be_older: bool,
}

impl Follower {
    pub(super) fn new(
        client: Client,
        range: KeyRange,
        page_keys: u32,
        shared: Arc<Shared>,
        guard: Option<LossGuard>,
    ) -> Self {
        Self {
            meter: CacheMeter::new(&range),
            listener: client.watches().heard().listen(),
            client,
            range,
            page_keys,
            shared,
            judge: guard.map(Judge::new),
            withheld: None,
        }
    }

    /// The whole range at one revision, and when it was asked for.
    pub(super) async fn list(&self) -> Result<(Snapshot, Stamp), Error> {
        let mut keys = self.page_keys.min(FIRST_PAGE_KEYS);
        let mut pauses = self.client.transport().pauses();
        loop {
            match self.list_by(keys).await {
                // The history went while it was read: there is a newer present.
                Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => {
                    self.rest(pauses.next()).await;
                }
                // Large values: a smaller page passes.
                Err(error) if *error.kind() == ErrorKind::TooLarge && keys > 1 => keys /= 2,
                listed => return listed,
            }
        }
    }

    /// Lists with a first page of `keys`; the others grow or shrink with the size of the keys.
    async fn list_by(&self, mut keys: u32) -> Result<(Snapshot, Stamp), Error> {
        let asked = Stamp::now();
        let mut listing = Listing::new(self.shared.snapshot.load_full());
        let mut range = self.client.range(self.range.clone());
        let transport = self.client.transport();
        let (mut revision, mut store) = (None, transport.store());
        loop {
            let page = range.limit(keys).await?;
            // The first page's: the others are read as of then.
            let at = if let Some(at) = revision {
                at
            } else {
                let before = std::mem::replace(&mut store, transport.store());
                if store.restores != before.restores {
                    // It may be of the store as it was before.
                    range = self.client.range(self.range.clone());
                    continue;
                }
                *revision.insert(page.revision)
            };
            let mut bytes = 1;
            for kv in &page.kvs {
                bytes += kv.key.len() + kv.value.len();
                listing.add(kv);
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else {
                self.shared.state.send_modify(|state| state.listings += 1);
                self.meter.listed();
                return Ok((listing.end(at).of_store(store), asked));
            };
            let fit = (PAGE_BYTES * page.kvs.len() / bytes).max(1);
            keys = u32::try_from(fit).unwrap_or(u32::MAX).min(self.page_keys);
            range = self.client.range(self.range.after(&last.key)).at(at);
        }
    }

    /// Begins with `first`: there was nothing before it to compare it with.
    pub(super) fn show_first(&mut self, first: Snapshot) {
        if let Some(judge) = &mut self.judge {
            judge.showed(first.len(), Instant::now());
        }
        self.shared.snapshot.store(first);
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.go_on() => {}
        }
    }

    async fn go_on(&mut self) {
        let is_from_disk = self.shared.state.borrow().source == CacheSource::Disk;
        if is_from_disk && self.relist(true).await.is_err() {
            return self.close();
        }
        let mut pauses = self.client.transport().pauses();
        loop {
            let began = Instant::now();
            let error = self.follow().await;
            self.cut_off();
            if *error.kind() == ErrorKind::Closed {
                return self.close();
            }
            tracing::warn!(%error, "a cache lists its keys again");
            if began.elapsed() >= GOOD_AFTER {
                pauses = self.client.transport().pauses();
            }
            // All that follow the same cluster are here at the same moment; and a watch that is
            // refused again and again must not make a loop without rest.
            self.rest(pauses.next()).await;
            let may_be_older = *error.kind() == ErrorKind::Restored;
            if self.relist(may_be_older).await.is_err() {
                return self.close();
            }
        }
    }

    /// Waits for `pause`; a client that is closed ends it.
    async fn rest(&self, pause: Option<Duration>) {
        let closed = &self.client.transport().closed;
        // Whether it was closed is said by the next call.
        let _ = timeout(pause.unwrap_or_default(), closed.cancelled()).await;
    }

    /// Follows a watch from what is known on, to its end.
    async fn follow(&mut self) -> Error {
        let known = match &self.withheld {
            Some(kept) => kept.snapshot.revision(),
            None => self.shared.snapshot.load().revision(),
        };
        let watch = self
            .client
            .watch(self.range.clone())
            .after(known)
            .without_prev();
        match watch.await {
            Ok(watch) => self.take(watch).await,
            Err(error) => error,
        }
    }

    async fn take(&mut self, mut watch: Watch) -> Error {
        let mut states = watch.state_changes();
        let mut ticks = interval(MEASURE_EVERY);
        let mut taken = Revision::UNKNOWN;
        // As of when everything had arrived, and up to which revision that was.
        let mut heard: Option<(Stamp, Revision)> = None;
        loop {
            if self.is_of_another_store() {
                let why = "the store is not the one that the cache was read from";
                return Error::new(ErrorKind::Restored, "cache", why);
            }
            if let Some((asked, position)) = heard
                && taken >= position
            {
                heard = None;
                self.was_heard(asked, watch.live_since());
            }
            match watch.state() {
                WatchState::Live => self.is_live(),
                WatchState::Resuming => self.cut_off(),
                // The error comes with the next batch.
                WatchState::Ended => {}
            }
            self.measure();
            tokio::select! {
                biased;
                () = self.shared.accepted.notified() => self.accept(),
                () = self.shared.went_back.notified() => {
                    let why = "a read has shown another store than the cache's";
                    return Error::new(ErrorKind::Restored, "cache", why);
                }
                () = confirmation(self.withheld.as_ref()) => self.confirm().await,
                Some(asked) = self.listener.heard(), if heard.is_none() => {
                    heard = Some((asked, watch.position()));
                }
                batch = watch.next() => match batch {
                    Some(Ok(batch)) => {
                        taken = batch.revision;
                        self.apply(batch.revision, batch.events);
                    }
                    Some(Err(error)) => return error,
                    None => return closed("cache"),
                },
                // Nothing waits to be taken.
                () = ready(()), if heard.is_some() => {
                    taken = heard.map_or(taken, |(_, position)| position);
                }
                Some(_) = states.next() => {}
                _ = ticks.tick() => {}
            }
        }
    }

    /// Whether what is shown, or withheld, was read from a store that is not there any more.
    fn is_of_another_store(&self) -> bool {
        let store = match &self.withheld {
            Some(kept) => kept.snapshot.store(),
            None => self.shared.snapshot.load().store(),
        };
        store != self.client.transport().store()
    }

    /// Shows what the events make of what is known. `prove` may have published a later revision of
    /// the same keys meanwhile: then there was no event up to it, and these are later.
    fn apply(&mut self, revision: Revision, events: Vec<Event>) {
        let mut steps: Vec<Step> = events.into_iter().map(Step::new).collect();
        let mut after = |known: &Snapshot| {
            steps.retain(|step| step.revision > known.revision());
            (!steps.is_empty()).then(|| known.after(revision, &steps))
        };
        if let Some(kept) = &self.withheld {
            if let Some(next) = after(&kept.snapshot) {
                self.offer(next, false);
            }
            return;
        }
        let Some(judge) = &mut self.judge else {
            self.shared.snapshot.advance(|held| after(held));
            return;
        };
        let now = Instant::now();
        let (mut keys, mut lost) = (0, None);
        let is_shown = self.shared.snapshot.advance(|held| {
            let next = after(held)?;
            keys = next.len();
            if judge.is_loss(keys, now) {
                lost = Some(next);
                return None;
            }
            Some(next)
        });
        if let Some(lost) = lost {
            self.withhold(lost, false);
        } else if is_shown {
            judge.showed(keys, now);
        }
    }

    /// Shows `next`, which is the store's state, unless too much is lost in it.
    fn offer(&mut self, next: Snapshot, may_be_older: bool) {
        let now = Instant::now();
        let keys = next.len();
        let may_be_older =
            may_be_older || self.withheld.as_ref().is_some_and(|kept| kept.may_be_older);
        if let Some(judge) = &mut self.judge {
            if judge.is_loss(keys, now) {
                return self.withhold(next, may_be_older);
            }
            judge.showed(keys, now);
        }
        if self.withheld.take().is_some() {
            tracing::info!(keys, "a cache shows its keys as they are again");
        }
        if may_be_older {
            self.shared.snapshot.store(next);
        } else {
            let mut next = Some(next);
            self.shared.snapshot.advance(|_| next.take());
        }
        self.tell_withheld();
    }

    fn withhold(&mut self, lost: Snapshot, may_be_older: bool) {
        let now = Instant::now();
        let delay = self.judge.as_ref().and_then(Judge::confirm_after);
        let (since, confirm_at) = if let Some(kept) = &self.withheld {
            (kept.since, kept.confirm_at)
        } else {
            let shown = self.shared.snapshot.load().len();
            tracing::warn!(shown, left = lost.len(), revision = %lost.revision(),
                "a cache lost most of its keys at once, and goes on showing them");
            // An acceptance that came too late for the last loss is none of this one.
            let _ = self.shared.accepted.notified().now_or_never();
            (now, delay.map(|delay| now + delay))
        };
        self.withheld = Some(Kept {
            snapshot: lost,
            since,
            confirm_at,
            may_be_older,
        });
        self.tell_withheld();
    }

    /// Asks the store, linearizably, whether the keys are really gone.
    async fn confirm(&mut self) {
        let listed = self.list().await;
        match listed {
            Ok((listed, _)) => {
                self.lift();
                self.offer(listed, false);
            }
            Err(error) => {
                tracing::warn!(%error, "whether a cache's keys are gone cannot be said yet");
                let delay = self.judge.as_ref().and_then(Judge::confirm_after);
                if let Some(kept) = &mut self.withheld {
                    kept.confirm_at =
                        delay.map(|delay| Instant::now() + delay.max(CONFIRM_PAUSE_MIN));
                }
            }
        }
    }

    /// Somebody says that the keys may be gone.
    fn accept(&mut self) {
        if let Some(kept) = &self.withheld {
            let next = kept.snapshot.clone();
            self.lift();
            self.offer(next, false);
        }
    }

    fn lift(&mut self) {
        if let Some(judge) = &mut self.judge {
            judge.accept();
        }
    }

    fn tell_withheld(&self) {
        let told = self.withheld.as_ref().map(|kept| Withheld {
            since: kept.since,
            revision: kept.snapshot.revision(),
            keys: kept.snapshot.len(),
        });
        self.shared.state.send_if_modified(|state| {
            let is_new = state.withheld != told;
            state.withheld = told;
            is_new
        });
    }

    /// Lists until it succeeds; fails when the client is closed. What is published does not go back,
    /// unless `may_be_older`, because the store was restored or what is shown came from disk, or the
    /// listing proves that the store has gone back.
    async fn relist(&mut self, may_be_older: bool) -> Result<(), Error> {
        let mut pauses = self.client.transport().pauses();
        loop {
            // What was noticed until now is answered by what is read from now on.
            let _ = self.shared.went_back.notified().now_or_never();
            let held = self.shared.snapshot.load().revision();
            match self.list().await {
                Ok((listed, asked)) => {
                    // The listing shows all that was held before it, unless the store has gone back.
                    let went_back = listed.revision() < held;
                    if went_back && !may_be_older {
                        tracing::warn!(%held, listed = %listed.revision(), "the store has gone back");
                        self.client.transport().went_back(held, listed.revision());
                    }
                    self.offer(listed, may_be_older || went_back);
                    // After the snapshot: no status is better than what it is of.
                    let state = &self.shared.state;
                    state.send_modify(|state| state.was_listed(asked));
                    // Who waits for more than what came from disk looks at the status too.
                    self.shared.snapshot.ring();
                    return Ok(());
                }
                Err(error) if *error.kind() == ErrorKind::Closed => return Err(error),
                Err(error) => tracing::warn!(%error, "cannot list a cache's keys"),
            }
            self.rest(pauses.next()).await;
        }
    }

    fn measure(&self) {
        let snapshot = self.shared.snapshot.load();
        let since = self.shared.state.borrow().cut_off_since;
        let cut_off = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.meter
            .shows(snapshot.revision(), snapshot.len(), cut_off);
    }

    /// A member has answered what it was `asked`, on the stream of a watch that is there since
    /// `live_since`.
    fn was_heard(&self, asked: Stamp, live_since: Option<Stamp>) {
        // What was asked before the watch was there says nothing of it.
        if live_since.is_some_and(|since| since <= asked) {
            self.shared.state.send_if_modified(|state| {
                state.is_known(asked);
                false
            });
        }
    }

    fn is_live(&self) {
        let state = &self.shared.state;
        state.send_if_modified(CacheStatus::is_live);
    }

    fn cut_off(&self) {
        let state = &self.shared.state;
        state.send_if_modified(CacheStatus::is_cut_off);
    }

    fn close(&self) {
        self.shared
            .state
            .send_modify(|state| state.is_closed = true);
        // Whoever waits for a revision waits in vain.
        self.shared.snapshot.ring();
    }
}

/// Returns when it is time to ask again whether what is withheld is so.
async fn confirmation(kept: Option<&Kept>) {
    match kept.and_then(|kept| kept.confirm_at) {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

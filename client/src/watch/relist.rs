//! A watch that goes on when its history is gone: it reads its keys again, and tells what is
//! different from what it has told.
//!
//! Invariants
//! - `known` is what a consumer has who has followed every batch that was handed over;
//! - a batch that was read has every difference from that, so that he is right again after it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::sleep;

use super::standing::States;
use super::{Batch, Plain, WatchBuilder, WatchState};
use crate::error::{Error, ErrorKind};
use crate::kv::Range;
use crate::types::{Event, EventKind, KeyValue, Revision};

/// Keys that are read at once.
const PAGE_KEYS: u32 = 10_000;

type Known = BTreeMap<Bytes, KeyValue>;

pub(super) struct Relisting {
    /// What to watch, with every kind of event: who is not told of deletions must know of them.
    template: WatchBuilder,
    tells: fn(EventKind) -> bool,
    known: Known,
    /// Keys that are not known and not newer than this were there before the watch began.
    not_news: Revision,
    position: Revision,
    now: Now,
    states: States,
}

enum Now {
    Following(Plain),
    /// The keys are being read, after this failure.
    Reading(ErrorKind, Reading),
    Ended,
}

/// Never locked: it is only polled, by whoever has the watch for himself, and so others may share it.
type Reading = Mutex<BoxFuture<'static, Result<(Listed, Plain), Error>>>;

/// Every key of the range at one revision.
struct Listed {
    revision: Revision,
    kvs: Known,
}

impl Relisting {
    /// A watch that sets `states`.
    pub(super) async fn begin(builder: WatchBuilder, states: States) -> Result<Self, Error> {
        let start = Revision::new(builder.request.start_revision);
        let tells = tells(&builder);
        let mut template = builder;
        template.request.filters.clear();
        let mut pauses = template.client.transport().pauses();
        let listed = loop {
            match template.list_before(start).await {
                // The history went while the present was read: there is a newer one.
                Err(error) if start == Revision::UNKNOWN && is_healed(error.kind()) => {
                    sleep(pauses.next().unwrap_or_default()).await;
                }
                listed => break listed,
            }
        };
        let (known, position) = match listed {
            Ok(Listed { revision, kvs }) => (kvs, revision),
            Err(error) if is_healed(error.kind()) => {
                let before = Revision::new(start.get() - 1);
                return Ok(Self {
                    now: Now::read(template.clone(), states.clone(), error.kind().clone()),
                    template,
                    tells,
                    known: Known::new(),
                    not_news: before,
                    position: before,
                    states,
                });
            }
            Err(error) => return Err(error),
        };
        let first = if start == Revision::UNKNOWN {
            position.next()
        } else {
            start
        };
        let follow = template.clone().from(first);
        Ok(Self {
            now: Now::Following(follow.followed_by(&states).await?),
            template,
            tells,
            known,
            not_news: Revision::UNKNOWN,
            position,
            states,
        })
    }

    pub(super) fn position(&self) -> Revision {
        match &self.now {
            Now::Following(plain) => plain.inbox.position(),
            Now::Reading(..) | Now::Ended => self.position,
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Batch, Error>>> {
        loop {
            let batch = match &mut self.now {
                Now::Following(plain) => match ready!(plain.inbox.poll(context)) {
                    Some(Ok(batch)) => self.followed(batch),
                    Some(Err(error)) => {
                        if !is_healed(error.kind()) {
                            self.end();
                            return Poll::Ready(Some(Err(error)));
                        }
                        tracing::info!(%error, "a watch reads its keys again");
                        let (template, states) = (self.template.clone(), self.states.clone());
                        self.now = Now::read(template, states, error.kind().clone());
                        continue;
                    }
                    None => {
                        self.end();
                        continue;
                    }
                },
                Now::Reading(why, reading) => match ready!(polled(reading, context)) {
                    Ok((listed, plain)) => {
                        let is_restored = *why == ErrorKind::Restored;
                        self.now = Now::Following(plain);
                        self.relisted(listed, is_restored)
                    }
                    Err(error) => {
                        self.end();
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Now::Ended => return Poll::Ready(None),
            };
            if !batch.events.is_empty() {
                return Poll::Ready(Some(Ok(batch)));
            }
        }
    }

    fn end(&mut self) {
        self.now = Now::Ended;
        self.states.set(WatchState::Ended);
    }

    /// Notes what is told, and leaves out what is not wanted.
    fn followed(&mut self, mut batch: Batch) -> Batch {
        self.position = batch.revision;
        for event in &batch.events {
            match event.kind {
                EventKind::Put => {
                    let kv = self.template.kept(&event.kv);
                    self.known.insert(kv.key.clone(), kv);
                }
                EventKind::Delete => {
                    self.known.remove(&event.kv.key);
                }
            }
        }
        batch.events.retain(|event| (self.tells)(event.kind));
        batch
    }

    /// The differences between what was told and what there is.
    fn relisted(&mut self, listed: Listed, is_restored: bool) -> Batch {
        let Listed { revision, kvs } = listed;
        let mut told = std::mem::take(&mut self.known);
        let with_prev = self.template.request.prev_kv;
        let mut events = Vec::new();
        for kv in kvs.values() {
            let prev = told.remove(&kv.key);
            let is_new = match &prev {
                // The same revision of another history is another change.
                Some(prev) if is_restored => !with_prev || prev != kv,
                Some(prev) => prev.mod_revision != kv.mod_revision,
                None => kv.mod_revision > self.not_news || is_restored,
            };
            if is_new {
                events.push(Event {
                    kind: EventKind::Put,
                    kv: kv.clone(),
                    prev: prev.filter(|_| with_prev),
                });
            }
        }
        for (key, prev) in told {
            events.push(Event {
                kind: EventKind::Delete,
                kv: KeyValue::deleted(key, revision),
                prev: Some(prev).filter(|_| with_prev),
            });
        }
        events.retain(|event| (self.tells)(event.kind));
        events.sort_by_key(|event| event.kv.mod_revision);
        let kept = kvs.values().map(|kv| self.template.kept(kv));
        self.known = kept.map(|kv| (kv.key.clone(), kv)).collect();
        self.not_news = Revision::UNKNOWN;
        self.position = revision;
        Batch {
            revision,
            events,
            is_coalesced: true,
            is_relisted: true,
        }
    }
}

impl Now {
    /// Reads the keys until it succeeds, and follows what comes after.
    fn read(template: WatchBuilder, states: States, why: ErrorKind) -> Self {
        let reading = async move {
            let mut pauses = template.client.transport().pauses();
            loop {
                let listed = async {
                    let listed = list(template.all(), Revision::UNKNOWN, KeyValue::clone).await?;
                    let follow = template.clone().after(listed.revision);
                    Ok((listed, follow.followed_by(&states).await?))
                };
                match listed.await {
                    Err(error) if is_passing(&error) => {
                        tracing::debug!(%error, "a watch cannot read its keys");
                        sleep(pauses.next().unwrap_or_default()).await;
                    }
                    other => return other,
                }
            }
        };
        Self::Reading(why, Mutex::new(reading.boxed()))
    }
}

fn polled(
    reading: &mut Reading,
    context: &mut Context<'_>,
) -> Poll<Result<(Listed, Plain), Error>> {
    let reading = reading.get_mut().expect("nobody locks it");
    reading.poll_unpin(context)
}

impl WatchBuilder {
    /// A watch whose end is not the end of the one that sets `states`.
    async fn followed_by(self, states: &States) -> Result<Plain, Error> {
        self.plain(states.clone(), WatchState::Resuming).await
    }

    /// What is to be known of every key as it was before `start`, or as it is if that is unknown.
    async fn list_before(&self, start: Revision) -> Result<Listed, Error> {
        let at = match start.get() {
            ..=0 => Revision::UNKNOWN,
            1 => {
                return Ok(Listed {
                    revision: Revision::UNKNOWN,
                    kvs: Known::new(),
                });
            }
            start => Revision::new(start - 1),
        };
        let mut all = self.all();
        if !self.request.prev_kv {
            all = all.keys_only();
        }
        list(all, at, |kv| self.kept(kv)).await
    }

    fn all(&self) -> Range {
        self.client.range(self.range.clone())
    }

    /// What is held of a key: its value only if it is to be told as the one before.
    fn kept(&self, kv: &KeyValue) -> KeyValue {
        if self.request.prev_kv {
            return kv.kept();
        }
        let without_value = KeyValue {
            value: Bytes::new(),
            ..kv.clone()
        };
        without_value.kept()
    }
}

/// Every key of `range` at `revision`, or at the present if that is unknown, as `noted`.
async fn list(
    mut range: Range,
    revision: Revision,
    noted: impl Fn(&KeyValue) -> KeyValue,
) -> Result<Listed, Error> {
    if revision != Revision::UNKNOWN {
        range = range.at(revision);
    }
    let mut pages = range.pages(PAGE_KEYS);
    let mut listed = Listed {
        revision,
        kvs: Known::new(),
    };
    while let Some(page) = pages.next().await {
        let page = page?;
        // The first page's: the others are read as of then.
        if listed.revision == Revision::UNKNOWN {
            listed.revision = page.revision;
        }
        let kvs = page.kvs.iter().map(&noted);
        listed.kvs.extend(kvs.map(|kv| (kv.key.clone(), kv)));
    }
    Ok(listed)
}

/// Which kinds of event a watch tells.
fn tells(builder: &WatchBuilder) -> fn(EventKind) -> bool {
    use gonfalon_proto::etcdserverpb::watch_create_request::FilterType;

    match builder.request.filters().next() {
        Some(FilterType::Nodelete) => |kind| kind == EventKind::Put,
        Some(FilterType::Noput) => |kind| kind == EventKind::Delete,
        None => |_| true,
    }
}

fn is_healed(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Compacted { .. } | ErrorKind::Restored)
}

/// Whether what failed may succeed the next time.
fn is_passing(error: &Error) -> bool {
    is_healed(error.kind()) || error.is_retryable()
}

impl std::fmt::Debug for Relisting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relisting")
            .field("position", &self.position)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}

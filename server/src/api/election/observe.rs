//! Who leads an election, now and from now on.

use std::collections::VecDeque;

use futures::{Stream, stream};
use gonfalon_core::watch::Filter;
use gonfalon_core::{EventKind, KeyRange, KeyValue, Revision};
use gonfalon_proto::v3electionpb as pb;
use gonfalon_wire::render;
use tonic::Status;

use crate::api::queue::Failure;
use crate::api::{Api, status};
use crate::watch::{LocalWatch, WatchError};

/// The leader of `queue`, then every value it publishes and every leader after it. While there is
/// none, nothing is sent.
pub(super) fn leaders(
    api: Api,
    queue: KeyRange,
) -> impl Stream<Item = Result<pb::LeaderResponse, Status>> + Send {
    let observer = Observer {
        api,
        queue,
        following: None,
        told: None,
        ready: VecDeque::new(),
    };
    stream::unfold(Some(observer), |observer| async {
        let mut observer = observer?;
        Some(match observer.next().await {
            Ok(response) => (Ok(response), Some(observer)),
            Err(failure) => (Err(failure.into()), None),
        })
    })
}

struct Observer {
    api: Api,
    queue: KeyRange,
    /// The watch on the present leader's key.
    following: Option<LocalWatch>,
    /// `mod_revision` of what was told last.
    told: Option<Revision>,
    /// Published by the present leader and not told yet.
    ready: VecDeque<KeyValue>,
}

impl Observer {
    async fn next(&mut self) -> Result<pb::LeaderResponse, Failure> {
        loop {
            if let Some(kv) = self.ready.pop_front() {
                self.told = Some(kv.mod_revision);
                return Ok(self.response(kv.mod_revision, kv));
            }
            match self.following.as_mut() {
                None => {
                    if let Some((revision, kv)) = self.find().await? {
                        return Ok(self.response(revision, kv));
                    }
                }
                Some(watch) => match watch.next().await {
                    Ok(events) => {
                        for event in &events {
                            match event.kind {
                                EventKind::Put => self.ready.push_back(event.kv.clone()),
                                // Whoever leads now, it is somebody else.
                                EventKind::Delete => {
                                    self.following = None;
                                    break;
                                }
                            }
                        }
                    }
                    Err(error) => self.look_again(error)?,
                },
            }
        }
    }

    /// Waits for a leader and follows it; what it publishes, unless that was told before.
    async fn find(&mut self) -> Result<Option<(Revision, KeyValue)>, Failure> {
        let (revision, first) = self.api.first_of(&self.queue)?;
        let Some(kv) = first else {
            let filter = Filter {
                no_put: false,
                no_delete: true,
            };
            let mut arrivals = self.watch(self.queue.clone(), revision, filter);
            if let Err(error) = arrivals.next().await {
                self.look_again(error)?;
            }
            return Ok(None);
        };
        let key = KeyRange::single(kv.key.clone());
        self.following = Some(self.watch(key, revision, Filter::default()));
        let is_news = self.told != Some(kv.mod_revision);
        self.told = Some(kv.mod_revision);
        Ok(is_news.then_some((revision, kv)))
    }

    /// Watches what happens after `revision`.
    fn watch(&self, range: KeyRange, revision: Revision, filter: Filter) -> LocalWatch {
        let store = self.api.node.store();
        let (watchers, start) = (store.watchers().clone(), Some(revision.next()));
        LocalWatch::open(watchers, store.clone(), range, start, filter)
    }

    /// History that is gone is no reason to stop: the present says who leads.
    fn look_again(&mut self, error: WatchError) -> Result<(), Failure> {
        match error {
            WatchError::Compacted { .. } => {
                self.following = None;
                Ok(())
            }
            WatchError::History(error) => Err(status::storage(error).into()),
        }
    }

    fn response(&self, revision: Revision, kv: KeyValue) -> pb::LeaderResponse {
        pb::LeaderResponse {
            header: Some(self.api.header(revision)),
            kv: Some(render::kv(kv)),
        }
    }
}

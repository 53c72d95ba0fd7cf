//! What our own benchmarks see of a cache (feature `internals`): one without a server, and the step
//! that its task takes for an event. No part of what the crate promises.

use std::sync::Arc;

use gonfalon_proto::mvccpb;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::publish::Publish;
use super::snapshot::{Listing, Step};
use super::typed::Cached;
use super::{Cache, CacheStatus, Inner, Shared};
use crate::client::Client;
use crate::types::{Event, KeyRange, KeyValue, Revision};

/// A cache of `kvs` that nothing follows.
pub fn cache(client: Client, kvs: impl IntoIterator<Item = mvccpb::KeyValue>) -> Cache {
    let mut listing = Listing::new(Arc::default());
    for kv in kvs {
        listing.add(&KeyValue::from_wire(kv));
    }
    Cache {
        inner: Arc::new(Inner {
            shared: Arc::new(Shared {
                snapshot: Publish::new(listing.end(Revision::new(1))),
                state: watch::Sender::new(CacheStatus::begun()),
                accepted: Notify::new(),
                went_back: Notify::new(),
            }),
            client,
            range: KeyRange::all(),
            saver: None,
            _stop: CancellationToken::new().drop_guard(),
        }),
    }
}

/// Applies an event as it came from the network, and publishes what it leads to.
pub fn apply(cache: &Cache, event: mvccpb::Event) {
    let event = Event::from_wire(event).expect("the event has a key");
    let revision = event.kv.mod_revision;
    let steps = [Step::new(event)];
    let shown = &cache.inner.shared.snapshot;
    let is_shown = shown.advance(|held| Some(held.after(revision, &steps)));
    assert!(is_shown, "{revision} is no later than what is there");
}

/// A value that nothing follows.
pub fn cached<T: Send + Sync + 'static>(cache: Cache, value: T) -> Cached<T> {
    Cached::still(cache, value)
}

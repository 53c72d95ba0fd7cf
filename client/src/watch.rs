//! Watching: every change of a range of keys, in order, none lost and none repeated.
//!
//! All watches of a client share one stream to one member (`hub.rs`). When it breaks, they are all
//! created again on another one, each from the revision after the last that it has in full
//! (`track.rs`). The stream is always read: a consumer that is slow fills its own queue
//! (`inbox.rs`) and delays nobody.

mod behind;
mod denied;
mod heard;
mod hub;
mod inbox;
mod lag;
mod open;
mod relist;
mod requests;
mod standing;
mod track;
mod watches;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::watch_create_request::FilterType;

use crate::client::{Client, awaited};
use crate::clock::Stamp;
use crate::error::Error;
use crate::types::{Event, KeyRange, Revision};

pub(crate) use heard::Listener;
pub use standing::StateChanges;
pub(crate) use watches::Watches;

use inbox::Inbox;
use relist::Relisting;
use standing::States;

/// What a queue holds by default, in bytes of keys and values.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Changes that happened together, or one after the other: whole revisions only.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// The revision of the last event; everything before it has been handed over too.
    pub revision: Revision,
    /// The changes, in the order in which they happened; at least one.
    pub events: Vec<Event>,
    /// Whether changes before the last of a key, or of all keys, were left out, as the watch's
    /// [`Overflow`] or [`OnCompacted`] allows.
    pub is_coalesced: bool,
    /// Whether these are not changes as they happened, but the differences between what was told
    /// before and what there is at `revision`; see [`OnCompacted::Relist`].
    pub is_relisted: bool,
}

impl Batch {
    /// The events of one revision after the other.
    pub fn revisions(&self) -> impl Iterator<Item = &[Event]> {
        self.events
            .chunk_by(|one, next| one.kv.mod_revision == next.kv.mod_revision)
    }
}

/// What happens when events come faster than they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The watch ends with [`ErrorKind::Lagged`](crate::ErrorKind::Lagged), after what was queued.
    #[default]
    Fail,
    /// Only the last change of each key is kept; `prev` is the key before the first.
    CoalescePerKey,
    /// Only the last batch is kept.
    LatestOnly,
}

/// What happens when the history that a watch needs is gone: compacted, or void because the store
/// was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnCompacted {
    /// The watch ends with [`ErrorKind::Compacted`](crate::ErrorKind::Compacted) or
    /// [`Restored`](crate::ErrorKind::Restored).
    #[default]
    Fail,
    /// The keys are read again, and what is different from what was told is told in one batch, each
    /// change with the key before it, deletions included. So that it can be known, the watch reads
    /// its keys before it begins, and holds the last of each (without values, if it is
    /// [`without_prev`](WatchBuilder::without_prev)).
    ///
    /// After a restored backup a batch's revision, and those of its keys, can be lower than before.
    Relist,
}

/// How a watch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WatchState {
    /// A member reports changes as they happen.
    Live,
    /// The connection broke; nothing is lost, but nothing arrives either until another is made.
    Resuming,
    /// It ended: with an error, or because the client was closed.
    Ended,
}

/// A watch to be: settings first, then await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct WatchBuilder {
    client: Client,
    range: KeyRange,
    request: pb::WatchCreateRequest,
    queue_bytes: usize,
    overflow: Overflow,
    on_compacted: OnCompacted,
    deadline: Option<Duration>,
}

impl WatchBuilder {
    pub(crate) fn new(client: Client, range: KeyRange) -> Self {
        Self {
            client,
            range,
            request: pb::WatchCreateRequest {
                prev_kv: true,
                progress_notify: true,
                fragment: true,
                ..pb::WatchCreateRequest::default()
            },
            queue_bytes: QUEUE_BYTES,
            overflow: Overflow::default(),
            on_compacted: OnCompacted::default(),
            deadline: None,
        }
    }

    /// The first revision whose changes are reported. Default: the first after the watch was
    /// created.
    pub fn from(mut self, revision: Revision) -> Self {
        self.request.start_revision = revision.get();
        self
    }

    /// Reports what changed after `revision`, which was read.
    pub fn after(self, revision: Revision) -> Self {
        self.from(revision.next())
    }

    /// Events do not carry what was before them: less to send. Default: they do.
    pub fn without_prev(mut self) -> Self {
        self.request.prev_kv = false;
        self
    }

    /// Only writes are reported.
    pub fn only_puts(mut self) -> Self {
        self.request.filters = vec![FilterType::Nodelete.into()];
        self
    }

    /// Only deletions are reported.
    pub fn only_deletes(mut self) -> Self {
        self.request.filters = vec![FilterType::Noput.into()];
        self
    }

    /// How much may wait to be taken, in bytes of keys and values, and what happens beyond that. A
    /// single batch may be larger. Default: 16 MiB, and the watch fails.
    pub fn queue(mut self, bytes: usize, overflow: Overflow) -> Self {
        (self.queue_bytes, self.overflow) = (bytes, overflow);
        self
    }

    /// What happens when the history that it needs is gone. Default: the watch fails.
    ///
    /// A watch that reads its keys again cannot begin in the future.
    pub fn on_compacted(mut self, on_compacted: OnCompacted) -> Self {
        self.on_compacted = on_compacted;
        self
    }

    /// How long it may take until a member reports changes. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn send(self) -> Result<Watch, Error> {
        let states = States::new();
        let source = match self.on_compacted {
            OnCompacted::Fail => {
                let plain = self.plain(states.clone(), WatchState::Ended);
                Source::Plain(plain.await?)
            }
            OnCompacted::Relist => {
                let relisting = Relisting::begin(self, states.clone());
                Source::Relisting(Box::new(relisting.await?))
            }
        };
        Ok(Watch { source, states })
    }

    /// A watch that sets `states`, at its end to `at_end`.
    async fn plain(mut self, states: States, at_end: WatchState) -> Result<Plain, Error> {
        let namespace = self.client.namespace_bytes().clone();
        (self.request.key, self.request.range_end) = self.range.to_wire(&namespace);
        let inbox = Inbox::new(self.queue_bytes, self.overflow, states, at_end);
        let inbox = Arc::new(inbox);
        let watches = self.client.watches();
        let id = watches
            .add(self.request, namespace.len(), inbox.clone(), self.deadline)
            .await?;
        Ok(Plain {
            id,
            inbox,
            client: self.client,
        })
    }
}

awaited!(WatchBuilder => Watch);

/// A watch: a stream of batches, or `next`. Dropped, it ends.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    states: States,
}

/// Where a watch's batches come from.
#[derive(Debug)]
enum Source {
    Plain(Plain),
    Relisting(Box<Relisting>),
}

/// A watch that ends when its history is gone.
#[derive(Debug)]
struct Plain {
    id: i64,
    inbox: Arc<Inbox>,
    client: Client,
}

impl Watch {
    /// The next changes. After an error there is no more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Compacted`](crate::ErrorKind::Compacted): the history that it needs is gone;
    /// [`Lagged`](crate::ErrorKind::Lagged); [`Restored`](crate::ErrorKind::Restored);
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied);
    /// [`Unauthenticated`](crate::ErrorKind::Unauthenticated): every member refuses the user;
    /// [`TooLarge`](crate::ErrorKind::TooLarge): events larger than
    /// [`response_bytes_max`](crate::ClientBuilder::response_bytes_max);
    /// [`Closed`](crate::ErrorKind::Closed). Broken connections are no errors: see
    /// [`Watch::state`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the batch is there the next time.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        StreamExt::next(self).await
    }

    /// Everything up to this revision has been received; what still waits to be taken included.
    pub fn position(&self) -> Revision {
        match &self.source {
            Source::Plain(plain) => plain.inbox.position(),
            Source::Relisting(relisting) => relisting.position(),
        }
    }

    /// How it stands.
    pub fn state(&self) -> WatchState {
        self.states.now()
    }

    /// The changes of its state from now on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), gonfalon::Error> {
    /// # let server = gonfalon::testkit::FakeServer::start();
    /// # let client = server.client();
    /// use gonfalon::WatchState;
    ///
    /// let mut watch = client.watch("/config/limit").await?;
    /// let mut states = watch.state_changes();
    /// # server.cut();
    /// loop {
    ///     tokio::select! {
    ///         Some(state) = states.next() => match state {
    ///             WatchState::Resuming => println!("cut off; nothing will be lost"),
    ///             WatchState::Live => break,
    ///             _ => {}
    ///         },
    ///         Some(batch) = watch.next() => println!("{:?}", batch?.events),
    ///         else => break,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn state_changes(&self) -> StateChanges {
        self.states.changes()
    }

    /// Since when it is live, if it is.
    pub(crate) fn live_since(&self) -> Option<Stamp> {
        self.states.live_since()
    }
}

impl Stream for Watch {
    type Item = Result<Batch, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.get_mut().source {
            Source::Plain(plain) => plain.inbox.poll(context),
            Source::Relisting(relisting) => relisting.poll(context),
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.client.watches().remove(self.id);
    }
}

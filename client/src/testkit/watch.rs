//! One stream of watches.
//!
//! What its watchers are told is decided by the core's hub, as in the server; here it becomes
//! messages: whole revisions, or fragments of one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::{Stream, stream};
use gonfalon_core::watch::{Mark, Spec, StreamId, WatchId};
use gonfalon_core::{Event, EventKind, NoHistory, Revision};
use gonfalon_proto::{etcdserverpb as pb, mvccpb};
use gonfalon_wire::{Refusal, parse, render};
use pb::watch_request::RequestUnion;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::api::{Api, broken};
use super::fault::Frame;
use super::outbox::{Outbox, Told};
use super::store::read;
use super::world::World;

/// What answers about no watcher in particular are addressed to.
const NO_WATCHER: i64 = -1;

/// Answers `requests` until the stream is broken.
pub(super) fn watching(
    api: &Api,
    requests: Streaming<pb::WatchRequest>,
    leaderless: &CancellationToken,
    token: Option<&str>,
) -> impl Stream<Item = Result<pb::WatchResponse, Status>> + Send + use<> {
    let watching = Watching::new(
        api.clone(),
        requests,
        leaderless.clone(),
        token.map(str::to_owned),
    );
    stream::try_unfold(watching, |mut watching| async {
        let response = watching.next().await?;
        Ok(Some((response, watching)))
    })
}

struct Watching {
    api: Api,
    requests: Option<Streaming<pb::WatchRequest>>,
    leaderless: CancellationToken,
    /// The one that the stream was opened with.
    token: Option<String>,
    progress: watch::Receiver<u64>,
    outbox: Outbox,
    /// None when the stream is over.
    stream: Option<StreamId>,
    /// The store that the watchers are of.
    epoch: u64,
    details: HashMap<WatchId, Details>,
    ready: VecDeque<pb::WatchResponse>,
    is_cut: bool,
}

/// How a watcher wants to be told.
#[derive(Clone, Copy)]
struct Details {
    with_prev: bool,
    may_fragment: bool,
    wants_progress: bool,
}

impl Watching {
    fn new(
        api: Api,
        requests: Streaming<pb::WatchRequest>,
        leaderless: CancellationToken,
        token: Option<String>,
    ) -> Self {
        let outbox = Outbox::default();
        let mut world = api.shared.world();
        let stream = world.members[api.member].hub.open_stream(outbox.clone());
        let (epoch, progress) = (world.epoch, world.progress.subscribe());
        drop(world);
        Self {
            api,
            requests: Some(requests),
            leaderless,
            token,
            progress,
            outbox,
            stream: Some(stream),
            epoch,
            details: HashMap::new(),
            ready: VecDeque::new(),
            is_cut: false,
        }
    }

    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        if self.is_cut {
            return Err(broken());
        }
        loop {
            if let Some(response) = self.ready.pop_front() {
                let mut world = self.api.shared.world();
                self.is_cut = world.faults.frame(Frame::of(&response));
                return Ok(response);
            }
            if self.take() {
                continue;
            }
            let request = async {
                match &mut self.requests {
                    Some(requests) => requests.message().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.leaderless.cancelled() => return Err(Refusal::NoLeader.into()),
                request = request => match request? {
                    Some(request) => self.answer(request),
                    // Whoever has no more requests may go on listening.
                    None => self.requests = None,
                },
                Ok(()) = self.progress.changed() => self.report_progress(),
                () = self.outbox.filled() => {}
            }
        }
    }

    fn answer(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                if let Err(reason) = self.create(&request) {
                    let world = self.api.shared.world();
                    let at = world.members[self.api.member].applied();
                    let refused = pb::WatchResponse {
                        created: true,
                        canceled: true,
                        cancel_reason: reason,
                        ..self.about(&world, NO_WATCHER, at)
                    };
                    drop(world);
                    self.ready.push_back(refused);
                }
            }
            Some(RequestUnion::CancelRequest(request)) => self.with_hub(|member, stream| {
                member
                    .hub
                    .cancel(stream, WatchId::new(request.watch_id), None);
            }),
            Some(RequestUnion::ProgressRequest(_)) => self.with_hub(|member, stream| {
                member.hub.progress(stream, None);
            }),
            None => {}
        }
    }

    /// Creates a watcher, and gives it the history that it asks for; or says why not.
    fn create(&mut self, request: &pb::WatchCreateRequest) -> Result<(), String> {
        let shared = self.api.shared.clone();
        let mut world = shared.world();
        if let Some(reason) = world.faults.refused_watch() {
            return Err(reason);
        }
        world
            .check_token(self.token.as_deref())
            .map_err(as_go_says)?;
        let spec = parse::watch(request).map_err(|refusal| refusal.text().to_owned())?;
        if world.epoch != self.epoch {
            // The store was restored, and the connection is about to break.
            return Ok(());
        }
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        let World { members, store, .. } = &mut *world;
        let hub = &mut members[self.api.member].hub;
        let created = hub
            .create(stream, spec.clone())
            .map_err(|error| render::not_created(error).to_owned())?;
        self.details.insert(
            created.id,
            Details {
                with_prev: request.prev_kv,
                may_fragment: request.fragment,
                wants_progress: request.progress_notify,
            },
        );
        if created.is_synced {
            return Ok(());
        }
        hub.take_unsynced(stream);
        let from = spec.start.unwrap_or(created.at.next());
        let (to, all) = (created.at, usize::MAX);
        let events = store.state().events(from, to, all, true, &NoHistory);
        if let Ok(events) = read(events) {
            self.replay(created.id, &spec, &events, to);
            hub.caught_up(stream, created.id, to.next());
        } else {
            let oldest = store.state().compacted();
            hub.cancel(stream, created.id, Some(oldest));
        }
        Ok(())
    }

    /// Puts what a watcher wants of the past into the outbox.
    fn replay(&self, id: WatchId, spec: &Spec, events: &[Arc<Event>], at: Revision) {
        let mut told = self.outbox.told();
        for of_revision in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
            let is_wanted = |event: &&Arc<Event>| {
                spec.range.contains(&event.kv.key) && spec.filter.passes(event.kind)
            };
            let events: Vec<_> = of_revision.iter().filter(is_wanted).cloned().collect();
            if !events.is_empty() {
                told.push_back(Told::Events { id, events, at });
            }
        }
    }

    /// Tells those watchers of progress that have asked for it.
    fn report_progress(&self) {
        let mut ids: Vec<_> = self
            .details
            .iter()
            .filter(|(_, d)| d.wants_progress)
            .collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        self.with_hub(|member, stream| {
            for (&id, _) in ids {
                if !member.hub.progress(stream, Some(id)) {
                    // It begins in the future. Newer servers would not tell it; etcd 3.4 does.
                    let at = member.hub.revision();
                    let progress = Mark::Progress { id: Some(id), at };
                    self.outbox.told().push_back(Told::Mark(progress));
                }
            }
        });
    }

    /// Does something with the member's hub, unless it is another store's by now.
    fn with_hub(&self, act: impl FnOnce(&mut super::world::Member, &StreamId)) {
        let mut world = self.api.shared.world();
        if world.epoch == self.epoch
            && let Some(stream) = &self.stream
        {
            act(&mut world.members[self.api.member], stream);
        }
    }

    /// Makes the next messages; false if there is nothing to tell.
    fn take(&mut self) -> bool {
        let first = self.outbox.told().pop_front();
        match first {
            None => return false,
            Some(Told::Events { id, events, at }) => {
                // One whose cancellation is told has no more events.
                if let Some(&details) = self.details.get(&id) {
                    self.take_events(id, details, &events, at);
                }
            }
            Some(Told::Mark(mark)) => {
                let response = self.mark(mark);
                self.ready.push_back(response);
            }
        }
        true
    }

    /// Makes one message of these events and of those of the same watcher that follow and fit; or
    /// fragments.
    fn take_events(&mut self, id: WatchId, details: Details, events: &[Arc<Event>], at: Revision) {
        let wire = |event: &Arc<Event>| on_the_wire(event, details.with_prev);
        let mut whole: Vec<_> = events.iter().map(wire).collect();
        let mut bytes: usize = whole.iter().map(mvccpb::Event::encoded_len).sum();
        let mut at = at;
        let mut told = self.outbox.told();
        while let Some(Told::Events {
            id: next,
            events,
            at: next_at,
        }) = told.front()
            && *next == id
        {
            let more: Vec<_> = events.iter().map(wire).collect();
            bytes += more.iter().map(mvccpb::Event::encoded_len).sum::<usize>();
            if bytes > self.api.shared.frame_bytes {
                break;
            }
            whole.extend(more);
            at = *next_at;
            told.pop_front();
        }
        drop(told);
        let pieces = if details.may_fragment {
            fragments(whole, self.api.shared.frame_bytes)
        } else {
            vec![whole]
        };
        let world = self.api.shared.world();
        let last = pieces.len() - 1;
        for (number, events) in pieces.into_iter().enumerate() {
            let response = pb::WatchResponse {
                events,
                fragment: number < last,
                ..self.about(&world, id.get(), at)
            };
            self.ready.push_back(response);
        }
    }

    fn mark(&mut self, mark: Mark) -> pb::WatchResponse {
        if let Mark::Canceled { id, .. } = mark {
            self.details.remove(&id);
        }
        let world = self.api.shared.world();
        match mark {
            Mark::Created { id, at } => pb::WatchResponse {
                created: true,
                ..self.about(&world, id.get(), at)
            },
            Mark::Canceled { id, at, compacted } => pb::WatchResponse {
                canceled: true,
                compact_revision: compacted.map_or(0, Revision::get),
                // etcd leaves the revision out where history is gone.
                ..self.about(
                    &world,
                    id.get(),
                    compacted.map_or(at, |_| Revision::default()),
                )
            },
            Mark::Progress { id, at } => {
                self.about(&world, id.map_or(NO_WATCHER, WatchId::get), at)
            }
        }
    }

    fn about(&self, world: &World, watch_id: i64, at: Revision) -> pb::WatchResponse {
        pb::WatchResponse {
            header: Some(world.header(self.api.member, at)),
            watch_id,
            ..pb::WatchResponse::default()
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let stream = self.stream.take();
        let mut world = self.api.shared.world();
        if world.epoch == self.epoch
            && let Some(stream) = stream
        {
            world.members[self.api.member].hub.close_stream(stream);
        }
    }
}

/// What an interceptor written in Go says for a refusal: the text of its status, whole.
fn as_go_says(refusal: Refusal) -> String {
    format!(
        "rpc error: code = {:?} desc = {}",
        refusal.code(),
        refusal.text()
    )
}

pub(super) fn on_the_wire(event: &Event, with_prev: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev = event.prev.clone().filter(|_| with_prev);
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(render::kv(event.kv.clone())),
        prev_kv: prev.map(render::kv),
    }
}

/// Splits events into pieces of at most `bytes`, or of one event.
fn fragments(events: Vec<mvccpb::Event>, bytes: usize) -> Vec<Vec<mvccpb::Event>> {
    let mut pieces: Vec<Vec<mvccpb::Event>> = Vec::new();
    let mut taken = 0;
    for event in events {
        let size = event.encoded_len();
        match pieces.last_mut() {
            Some(piece) if taken + size <= bytes => piece.push(event),
            _ => {
                taken = 0;
                pieces.push(vec![event]);
            }
        }
        taken += size;
    }
    pieces
}

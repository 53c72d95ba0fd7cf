//! Plays a script of watches against one system and writes down what every watcher saw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gonfalon_proto::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use gonfalon_proto::mvccpb::Event;
use tonic::Code;

use super::call::{Answer, Call, Script, WatchStep};
use super::memory::{Memory, is_delete, revision_of};
use super::target::send;
use crate::binaries::Server;
use crate::client::Client;
use crate::streams::WatchStream;

/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for something that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// What the watchers of a script saw.
///
/// How events are gathered into responses is up to the server, as long as a revision stays whole;
/// so are the headers of such responses. Everything else is here as it came.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the table of differences rewrites it"
)]
pub struct Seen {
    /// By the id in the responses; -1 has refusals and answers about the whole stream.
    pub watchers: BTreeMap<i64, Vec<Piece>>,
    /// The answers to the other calls of the script.
    pub answers: Vec<Answer>,
    /// Promises that were broken, in words; equal systems have none.
    pub broken: Vec<String>,
    /// What ended the stream, if it was not the script.
    pub end: Option<(Code, String)>,
}

/// Something that a watcher was told.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the table of differences rewrites it"
)]
pub enum Piece {
    /// The answer to a request for a watcher.
    Created {
        /// With the store's revision.
        header: Option<ResponseHeader>,
        /// It was refused.
        canceled: bool,
        /// Why it was refused.
        reason: String,
    },
    /// One change.
    Event(Event),
    /// The end.
    Canceled {
        /// Of a compaction: revision 0.
        header: Option<ResponseHeader>,
        /// Why.
        reason: String,
        /// Up to where history is gone, if that is why.
        compact_revision: i64,
    },
    /// Everything up to the header's revision has been sent.
    Progress {
        /// With that revision.
        header: Option<ResponseHeader>,
    },
}

impl Seen {
    /// Every header in it.
    pub(crate) fn headers(&mut self) -> impl Iterator<Item = &mut ResponseHeader> {
        self.watchers
            .values_mut()
            .flatten()
            .filter_map(|piece| match piece {
                Piece::Created { header, .. }
                | Piece::Canceled { header, .. }
                | Piece::Progress { header } => header.as_mut(),
                Piece::Event(_) => None,
            })
    }

    fn count(&self, id: i64, is: impl Fn(&Piece) -> bool) -> usize {
        self.watchers
            .get(&id)
            .map_or(0, |pieces| pieces.iter().filter(|piece| is(piece)).count())
    }

    fn count_all(&self, is: impl Fn(&Piece) -> bool) -> usize {
        self.watchers
            .values()
            .flatten()
            .filter(|piece| is(piece))
            .count()
    }
}

/// Plays `script`.
pub(crate) async fn run(client: &Client, server: Server, script: &Script, memory: &Memory) -> Seen {
    let stream = WatchStream::open(client);
    let mut player = Player {
        client,
        server,
        memory,
        stream,
        seen: Seen::default(),
        live: BTreeMap::new(),
    };
    for step in &script.steps {
        if player.seen.end.is_some() {
            break;
        }
        player.take(step).await;
    }
    player.finish().await;
    player.seen
}

struct Player<'a> {
    client: &'a Client,
    server: Server,
    memory: &'a Memory,
    stream: WatchStream,
    seen: Seen,
    /// Watchers that were created and not ended.
    live: BTreeMap<i64, Live>,
}

#[derive(Clone)]
struct Live {
    request: WatchCreateRequest,
    /// The first revision that it must show.
    start: i64,
    /// It began before the last compaction, so all it gets is its end.
    is_lost: bool,
}

impl Player<'_> {
    async fn take(&mut self, step: &WatchStep) {
        match step {
            WatchStep::Create(request) => self.create(request).await,
            WatchStep::Cancel(id) => self.cancel(*id).await,
            WatchStep::Progress => self.progress().await,
            WatchStep::Nothing => {
                self.stream
                    .send(WatchRequest {
                        request_union: None,
                    })
                    .await;
            }
            WatchStep::Call(call) => {
                // Whether a watcher that is still catching up survives it is a matter of timing.
                assert!(
                    !matches!(**call, Call::Compact(_)),
                    "a script does not compact"
                );
                let answer = send(self.client, self.server, call).await;
                self.seen.answers.push(answer.unwrap_or_else(Answer::from));
            }
        }
    }

    async fn create(&mut self, request: &WatchCreateRequest) {
        let is_created = |piece: &Piece| matches!(piece, Piece::Created { .. });
        let before = self.seen.watchers.clone();
        let wanted = self.seen.count_all(is_created) + 1;
        self.stream.create(request.clone()).await;
        if !self
            .until("an answer to a create request", |s| {
                s.count_all(is_created) >= wanted
            })
            .await
        {
            return;
        }
        for (id, pieces) in &self.seen.watchers {
            let known = before.get(id).map_or(0, Vec::len);
            for piece in &pieces[known..] {
                if let Piece::Created {
                    header,
                    canceled: false,
                    ..
                } = piece
                {
                    let now = header.as_ref().map_or(0, |header| header.revision);
                    let asked = request.start_revision;
                    let start = if asked == 0 { now + 1 } else { asked };
                    let is_lost = asked != 0 && asked < self.memory.compacted();
                    self.live.insert(
                        *id,
                        Live {
                            request: request.clone(),
                            start,
                            is_lost,
                        },
                    );
                }
            }
        }
    }

    async fn cancel(&mut self, id: i64) {
        self.settle().await;
        self.stream.cancel(id).await;
        if self.live.remove(&id).is_some() {
            self.until("the end of a watcher", |seen| {
                seen.count(id, is_canceled) > 0
            })
            .await;
        }
    }

    async fn progress(&mut self) {
        self.settle().await;
        let now = self.revision().await;
        let is_progress = |piece: &Piece| matches!(piece, Piece::Progress { .. });
        let wanted = self.seen.count(-1, is_progress) + 1;
        let ahead = self
            .live
            .values()
            .any(|live| live.request.start_revision > now);
        if self.live.is_empty() || ahead {
            // Old servers answer all the same (see `known`): they are not asked.
            if self.server.is_current() {
                self.stream.progress().await;
            }
            self.quiet(|seen| seen.count(-1, is_progress) >= wanted)
                .await;
            return;
        }
        // A server may stay silent while a watcher catches up: ask again, as clients do.
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.stream.progress().await;
            if self
                .quiet(|seen| seen.count(-1, is_progress) >= wanted)
                .await
            {
                break;
            }
        }
        self.quiet(|_| false).await;
        // Asked twice because the first answer was late: the same news.
        if let Some(pieces) = self.seen.watchers.get_mut(&-1) {
            pieces.dedup_by(|a, b| is_progress(a) && a == b);
        }
    }

    /// Waits until every live watcher has had all its events, or has been ended by compaction.
    async fn settle(&mut self) {
        let now = self.revision().await;
        if let Err(late) = self.memory.reaches(now).await {
            self.seen.broken.push(late);
        }
        let compacted = self.memory.compacted();
        let mut ended = Vec::new();
        for (
            id,
            Live {
                request,
                start,
                is_lost,
            },
        ) in self.live.clone()
        {
            let mut events = self.memory.matching(&request, start);
            if start == compacted && !self.server.is_current() {
                events.retain(|event| revision_of(event) > compacted || !is_delete(event));
            }
            let is_event = |piece: &Piece| matches!(piece, Piece::Event(_));
            self.until("events or the end of a watcher", |seen| {
                let has_ended = seen.count(id, is_canceled) > 0;
                has_ended || (!is_lost && seen.count(id, is_event) >= events.len())
            })
            .await;
            if self.seen.count(id, is_canceled) > 0 {
                ended.push(id);
            }
        }
        self.live.retain(|id, _| !ended.contains(id));
    }

    async fn finish(&mut self) {
        if self.seen.end.is_none() {
            self.settle().await;
        }
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.cancel(id).await;
        }
    }

    async fn revision(&mut self) -> i64 {
        match self.client.get("settle").await {
            Ok(answer) => answer.header.map_or(0, |header| header.revision),
            Err(status) => {
                self.seen
                    .broken
                    .push(format!("a read between watches: {status:?}"));
                0
            }
        }
    }

    /// Reads until `done`; what is missing then is written down.
    async fn until(&mut self, what: &str, done: impl Fn(&Seen) -> bool) -> bool {
        let start = Instant::now();
        while !done(&self.seen) && self.seen.end.is_none() {
            match self
                .stream
                .next(PATIENCE.saturating_sub(start.elapsed()))
                .await
            {
                Ok(response) => self.note(response),
                Err(status) if status.code() == Code::DeadlineExceeded => {
                    self.seen.broken.push(format!("no sign of {what}"));
                    return false;
                }
                Err(status) => self.end(&status),
            }
        }
        self.seen.end.is_none()
    }

    /// Reads for a moment, or until `done`.
    async fn quiet(&mut self, done: impl Fn(&Seen) -> bool) -> bool {
        let start = Instant::now();
        while !done(&self.seen) && self.seen.end.is_none() {
            match self
                .stream
                .next(SILENCE.saturating_sub(start.elapsed()))
                .await
            {
                Ok(response) => self.note(response),
                Err(status) if status.code() == Code::DeadlineExceeded => return false,
                Err(status) => self.end(&status),
            }
        }
        true
    }

    fn end(&mut self, status: &tonic::Status) {
        self.seen.end = Some((status.code(), status.message().to_owned()));
    }

    fn note(&mut self, response: WatchResponse) {
        let id = response.watch_id;
        let (header, reason) = (response.header, response.cancel_reason);
        let pieces = self.seen.watchers.entry(id).or_default();
        let broken = &mut self.seen.broken;
        if response.created {
            pieces.push(Piece::Created {
                header,
                canceled: response.canceled,
                reason,
            });
            return;
        }
        if !response.events.is_empty() {
            let last = pieces.iter().rev().find_map(|piece| match piece {
                Piece::Event(event) => Some(revision_of(event)),
                _ => None,
            });
            let asked_for_pieces = self.live.get(&id).is_some_and(|live| live.request.fragment);
            if !asked_for_pieces && last == response.events.first().map(revision_of) {
                broken.push(format!("watcher {id} got revision {last:?} in two answers"));
            }
            let revision = header.as_ref().map_or(0, |header| header.revision);
            if response
                .events
                .iter()
                .any(|event| revision_of(event) > revision)
            {
                broken.push(format!(
                    "watcher {id} got events from after {revision}, its header"
                ));
            }
            pieces.extend(response.events.into_iter().map(Piece::Event));
        } else if !response.canceled {
            pieces.push(Piece::Progress { header });
        }
        if response.canceled {
            let compact_revision = response.compact_revision;
            pieces.push(Piece::Canceled {
                header,
                reason,
                compact_revision,
            });
        }
    }
}

fn is_canceled(piece: &Piece) -> bool {
    matches!(piece, Piece::Canceled { .. })
}

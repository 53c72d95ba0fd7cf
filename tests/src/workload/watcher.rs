//! One watcher, over as many connections as it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gonfalon_proto::etcdserverpb::watch_create_request::FilterType;
use gonfalon_proto::etcdserverpb::watch_request::RequestUnion;
use gonfalon_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use gonfalon_proto::mvccpb::event::EventType;
use gonfalon_proto::mvccpb::{Event, KeyValue};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::recorder::{Recorder, version_of};
use crate::client::{Client, prefix_end};
use crate::history::{Change, Received, Watch};

/// How often it asks how far the member is.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A member that says nothing for so long is left: it is paused, or follows nobody.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Before it tries the next member.
const PAUSE_FAILED: Duration = Duration::from_millis(50);

/// What a watcher asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    prefix: &'static str,
    prev_kv: bool,
    no_delete: bool,
}

impl Watched {
    /// Everything, with what was before.
    pub(super) const ALL: Self = Self {
        prefix: super::PREFIX,
        prev_kv: true,
        no_delete: false,
    };
    /// The puts of one key, so that most revisions are none of its business.
    pub(super) const PUTS_OF_FEW: Self = Self {
        prefix: "k1",
        prev_kv: false,
        no_delete: true,
    };
}

/// A watcher, and how far it is.
pub(super) struct Watcher {
    recorder: Arc<Recorder>,
    clients: Vec<Client>,
    watched: Watched,
    member: usize,
    number: u32,
    /// It knows of everything up to here.
    known: i64,
}

impl Watcher {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        clients: Vec<Client>,
        watched: Watched,
        home: usize,
        number: u32,
    ) -> Self {
        Self {
            recorder,
            clients,
            watched,
            member: home,
            number,
            known: 0,
        }
    }

    /// Watches until it knows of everything up to `last`.
    pub(super) async fn run(mut self, last: watch::Receiver<Option<i64>>) {
        while !self.is_done(&last) {
            let mut connection = Watch {
                member: self.member,
                watcher: self.number,
                prefix: self.watched.prefix.to_owned(),
                start: self.known + 1,
                prev_kv: self.watched.prev_kv,
                no_put: false,
                no_delete: self.watched.no_delete,
                fragment: false,
                received: Vec::new(),
            };
            // Why it ended does not matter: what it was told before is judged.
            let ended = self.connect(&mut connection, &last).await;
            self.recorder.watched(connection);
            if ended.is_err() {
                self.member = (self.member + 1) % self.clients.len();
                tokio::time::sleep(PAUSE_FAILED).await;
            }
        }
    }

    fn is_done(&self, last: &watch::Receiver<Option<i64>>) -> bool {
        last.borrow().is_some_and(|last| self.known >= last)
    }

    /// One connection; an error when another one is needed.
    async fn connect(
        &mut self,
        connection: &mut Watch,
        last: &watch::Receiver<Option<i64>>,
    ) -> Result<()> {
        let (requests, outgoing) = mpsc::channel(4);
        requests.send(self.create(connection.start)).await?;
        let mut client = self.clients[self.member].watch.clone();
        let call = client.watch(ReceiverStream::new(outgoing));
        let mut answers = tokio::time::timeout(SILENCE_MAX, call).await??.into_inner();
        let mut ask = tokio::time::interval(ASK_EVERY);
        let mut heard = Instant::now();
        while !self.is_done(last) {
            tokio::select! {
                biased;
                answer = answers.message() => {
                    heard = Instant::now();
                    let received = received(&answer?.context("the stream ended")?, self.recorder.now());
                    let canceled = received.canceled;
                    self.learn(&received);
                    connection.received.push(received);
                    if canceled {
                        bail!("canceled");
                    }
                }
                _ = ask.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        bail!("the member is silent");
                    }
                    // A full queue means that the member reads nothing: silence ends that.
                    let _ = requests.try_send(WatchRequest {
                        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
                    });
                }
            }
        }
        Ok(())
    }

    fn create(&self, start: i64) -> WatchRequest {
        let filters = if self.watched.no_delete {
            vec![FilterType::Nodelete.into()]
        } else {
            Vec::new()
        };
        WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: self.watched.prefix.into(),
                range_end: prefix_end(self.watched.prefix),
                start_revision: start,
                prev_kv: self.watched.prev_kv,
                filters,
                ..WatchCreateRequest::default()
            })),
        }
    }

    fn learn(&mut self, received: &Received) {
        let event = received.events.last().map_or(0, |event| event.revision);
        let is_progress = received.events.is_empty() && !received.created && !received.canceled;
        let progress = if is_progress { received.revision } else { 0 };
        self.known = self.known.max(event).max(progress);
    }
}

fn received(response: &WatchResponse, at: u64) -> Received {
    Received {
        at,
        revision: response.header.as_ref().map_or(0, |header| header.revision),
        created: response.created,
        canceled: response.canceled,
        compact_revision: response.compact_revision,
        fragment: response.fragment,
        events: response.events.iter().map(change).collect(),
    }
}

fn change(event: &Event) -> Change {
    let kv = event.kv.as_ref();
    let is_put = event.r#type() == EventType::Put;
    Change {
        key: kv.map_or_else(String::new, |kv: &KeyValue| {
            String::from_utf8_lossy(&kv.key).into_owned()
        }),
        revision: kv.map_or(0, |kv| kv.mod_revision),
        put: kv.filter(|_| is_put).map(version_of),
        prev: event.prev_kv.as_ref().map(version_of),
    }
}

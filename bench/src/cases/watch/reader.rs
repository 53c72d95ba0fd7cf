//! Several watchers on one stream.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use gonfalon_proto::{etcdserverpb as pb, mvccpb};
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{Board, KEY};
use crate::dataset;
use crate::load::{Gate, Recorder};

pub(super) struct Reader {
    messages: Streaming<pb::WatchResponse>,
    // The stream ends when this is dropped.
    _requests: mpsc::Sender<pb::WatchRequest>,
    /// The revision of the last event, by watch id.
    revisions: HashMap<i64, i64>,
    board: Arc<Board>,
    recorder: Arc<Recorder>,
    gate: Arc<Gate>,
}

impl Reader {
    /// Creates `watchers` watchers and waits until the server has confirmed all.
    pub(super) async fn open(
        channel: Channel,
        watchers: usize,
        board: Arc<Board>,
        recorder: Arc<Recorder>,
        gate: Arc<Gate>,
    ) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(watchers);
        for _ in 0..watchers {
            let create = pb::WatchCreateRequest {
                key: KEY,
                ..Default::default()
            };
            let request_union = Some(RequestUnion::CreateRequest(create));
            requests.send(pb::WatchRequest { request_union }).await?;
        }
        let mut client = WatchClient::new(channel);
        let mut messages = client
            .watch(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut revisions = HashMap::with_capacity(watchers);
        while revisions.len() < watchers {
            let created = messages.message().await?.context("the stream ended")?;
            ensure!(
                created.created && !created.canceled,
                "a watcher was refused: {created:?}"
            );
            let revision = created
                .header
                .context("an answer without a header")?
                .revision;
            ensure!(
                revisions.insert(created.watch_id, revision).is_none(),
                "two watchers with the id {}",
                created.watch_id
            );
        }
        Ok(Self {
            messages,
            _requests: requests,
            revisions,
            board,
            recorder,
            gate,
        })
    }

    /// Receives until it is aborted.
    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            let message = self.messages.message().await?.context("the stream ended")?;
            ensure!(
                !message.canceled,
                "a watcher was cancelled: {}",
                message.cancel_reason
            );
            let last = self.revisions.get_mut(&message.watch_id);
            let last = last.with_context(|| format!("no watcher {}", message.watch_id))?;
            for event in message.events {
                ensure!(
                    event.r#type() == mvccpb::event::EventType::Put,
                    "an event of no put"
                );
                let kv = event.kv.context("an event without its key")?;
                ensure!(
                    kv.mod_revision > *last,
                    "an event of revision {} after {last}",
                    kv.mod_revision
                );
                *last = kv.mod_revision;
                let slot = dataset::owner_of(&kv.value)?;
                let took = self
                    .board
                    .seen(slot, dataset::sequence_of(slot, &kv.value)?)?;
                if self.gate.is_open() {
                    self.recorder.completed(took);
                }
            }
        }
    }
}

//! Writes, and waits until all watchers have seen it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use std::sync::atomic::Ordering;
use tonic::transport::Channel;

use super::{Board, KEY};
use crate::dataset;
use crate::load::Gate;

/// An event that has not arrived after this long is lost.
const EVENT_MAX: Duration = Duration::from_secs(10);

pub(super) struct Writer {
    kv: KvClient<Channel>,
    board: Arc<Board>,
    slot: usize,
}

impl Writer {
    pub(super) fn new(channel: Channel, board: Arc<Board>, slot: usize) -> Self {
        Self {
            kv: KvClient::new(channel),
            board,
            slot,
        }
    }

    pub(super) async fn run(mut self, gate: Arc<Gate>) -> Result<()> {
        let mut sequence = 0;
        let mut revision = 0;
        while !gate.is_closed() {
            sequence += 1;
            self.board.announce(self.slot, sequence);
            let value = dataset::value(u64::try_from(self.slot)?, sequence);
            let request = pb::PutRequest {
                key: KEY,
                value,
                ..Default::default()
            };
            let header = self
                .kv
                .put(request)
                .await?
                .into_inner()
                .header
                .unwrap_or_default();
            ensure!(header.revision > revision, "revisions do not rise");
            revision = header.revision;
            let slot = &self.board.slots[self.slot];
            if tokio::time::timeout(EVENT_MAX, slot.all_seen.notified())
                .await
                .is_err()
            {
                let missing = slot.missing.load(Ordering::Relaxed);
                bail!("{missing} of {} events are lost", self.board.watchers);
            }
        }
        Ok(())
    }
}

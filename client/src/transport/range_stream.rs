//! One streamed range, read ahead of whoever wants it, within bounds.
//!
//! It shares its connection with the watches, so it must never wait for its reader: what is not read
//! would fill the connection's window, and no event could pass. A task takes in what comes; when it
//! holds too much, it ends the stream, and the reader opens another where this one ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::mvccpb;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Status, Streaming};

use super::{Endpoint, Transport};
use crate::error::classify;

/// What is held for a reader who takes his time.
const READ_AHEAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The reader's end.
#[derive(Debug)]
pub(crate) struct RangeStream {
    shared: Arc<Shared>,
    _wanted: DropGuard,
}

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// Each with its size.
    pieces: VecDeque<(Vec<mvccpb::KeyValue>, usize)>,
    bytes: usize,
    is_over: bool,
}

impl Transport {
    /// What `request` asks for, as a stream; none if the server has none, or it did not come about.
    pub(crate) async fn range_stream(
        self: &Arc<Self>,
        request: pb::RangeRequest,
    ) -> Option<RangeStream> {
        let endpoint = self.endpoint_for_stream(&mut Vec::new())?;
        if endpoint.lacks_range_stream() {
            return None;
        }
        let opened = self.open_range_stream(&endpoint, request);
        let give_up = self.give_up(None);
        let opened = tokio::select! {
            biased;
            () = self.closed.cancelled() => return None,
            opened = timeout_at(give_up, opened) => opened,
        };
        let stream = match opened {
            Ok(Some(stream)) => stream,
            Ok(None) => return None,
            Err(_) => {
                let late = Status::deadline_exceeded("no answer to a new stream");
                self.report(&endpoint, Some(&classify("range", late)));
                return None;
            }
        };
        let shared = Arc::new(Shared::default());
        let unwanted = CancellationToken::new();
        let taking = take_in(
            self.clone(),
            endpoint,
            stream,
            shared.clone(),
            unwanted.clone(),
        );
        self.spawn(taking);
        Some(RangeStream {
            shared,
            _wanted: unwanted.drop_guard(),
        })
    }

    async fn open_range_stream(
        &self,
        endpoint: &Endpoint,
        request: pb::RangeRequest,
    ) -> Option<Streaming<pb::RangeStreamResponse>> {
        let needs_leader = !request.serializable;
        let mut request = Request::new(request);
        // Why there is no token is said by the plain read that follows.
        let proof = self.prepare(&mut request, needs_leader, endpoint).await;
        let proof = proof.ok()?;
        let mut client = KvClient::new(endpoint.streams())
            .max_decoding_message_size(self.config.response_bytes_max);
        match client.range_stream(request).await {
            Ok(stream) => Some(stream.into_inner()),
            Err(status) => {
                if status.code() == Code::Unimplemented {
                    endpoint.has_no_range_stream();
                }
                let verdict = classify("range", status);
                if verdict.wants_token {
                    self.forget_token(proof);
                }
                self.report(endpoint, Some(&verdict));
                None
            }
        }
    }
}

/// Takes in what comes until it is over, or too much.
async fn take_in(
    transport: Arc<Transport>,
    endpoint: Arc<Endpoint>,
    mut stream: Streaming<pb::RangeStreamResponse>,
    shared: Arc<Shared>,
    unwanted: CancellationToken,
) {
    let result = loop {
        let message = tokio::select! {
            biased;
            () = transport.closed.cancelled() => break Ok(()),
            () = unwanted.cancelled() => break Ok(()),
            message = stream.message() => message,
        };
        let piece = match message {
            Ok(Some(message)) => message.range_response.unwrap_or_default(),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        };
        transport.saw(piece.header.as_ref());
        let bytes = piece.kvs.iter().map(|kv| kv.key.len() + kv.value.len());
        let bytes = bytes.sum();
        let mut held = shared.lock();
        held.pieces.push_back((piece.kvs, bytes));
        held.bytes += bytes;
        let is_much = held.bytes > READ_AHEAD_BYTES_MAX;
        drop(held);
        shared.changed.notify_one();
        if is_much {
            break Ok(());
        }
    };
    // What is left is not wanted on the way any more.
    drop(stream);
    shared.lock().is_over = true;
    shared.changed.notify_one();
    report(&transport, &endpoint, result);
}

fn report(transport: &Transport, endpoint: &Endpoint, result: Result<(), Status>) {
    let verdict = result.err().map(|status| classify("range", status));
    transport.report(endpoint, verdict.as_ref());
}

impl RangeStream {
    /// The next keys; none when it is over: at the range's end, or anywhere before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn next(&self) -> Option<Vec<mvccpb::KeyValue>> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut held = self.shared.lock();
                if let Some((kvs, bytes)) = held.pieces.pop_front() {
                    held.bytes -= bytes;
                    return Some(kvs);
                }
                if held.is_over {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

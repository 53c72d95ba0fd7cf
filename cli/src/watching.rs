//! Watching several ranges on one stream, across lost connections.
//!
//! Each watcher remembers the revision it needs next. The server sends all events of a revision in
//! one message, so that after a lost connection `next` is exactly where to go on.

use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::connection::{self, Connection};
use crate::failure::{Failure, note};
use crate::range::Range;

/// The first wait before a server is tried again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the server is asked how far all watchers are. A range where nothing happens would
/// otherwise be resumed where it began, which compaction may have taken long since.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// The watch id of an answer that speaks of all watchers of a stream.
const ALL: i64 = -1;

/// One range that is watched.
#[derive(Debug)]
pub(crate) struct Watcher {
    range: Range,
    /// The first revision not yet seen; 0: whatever comes next.
    next: i64,
}

/// What all watchers ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) prev_kv: bool,
    pub(crate) progress_notify: bool,
}

impl Watcher {
    pub(crate) fn new(range: Range, from: i64) -> Self {
        Self { range, next: from }
    }

    /// Moves past what a message told; whether it is worth showing.
    fn advance(&mut self, response: &pb::WatchResponse) -> bool {
        let now = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            if self.next == 0 {
                self.next = now + 1;
            }
            return false;
        }
        match response.events.last().and_then(|event| event.kv.as_ref()) {
            Some(kv) => self.next = kv.mod_revision + 1,
            None => self.next = self.next.max(now + 1),
        }
        true
    }
}

/// Moves watchers past what the server says they have all been told. One that does not exist yet
/// begins where the server will say.
fn reached(watchers: &mut [Watcher], response: &pb::WatchResponse) {
    let now = response.header.as_ref().map_or(0, |header| header.revision);
    for watcher in watchers.iter_mut().filter(|watcher| watcher.next != 0) {
        watcher.next = watcher.next.max(now + 1);
    }
}

/// Hands every message with events or progress to `each`, until it fails or the server refuses.
pub(crate) async fn follow(
    connection: &Connection,
    mut watchers: Vec<Watcher>,
    options: Options,
    mut each: impl AsyncFnMut(pb::WatchResponse) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut pause = PAUSE.0;
    let mut tries_left = connection.endpoints();
    let mut began = false;
    loop {
        match connection.channel().await {
            Ok((endpoint, channel)) => {
                let mut begins = false;
                let lost =
                    one_stream(channel, &mut watchers, options, &mut begins, &mut each).await;
                let status = match lost {
                    Ok(status) => status,
                    Err(End::Refused(status)) => return Err(Failure::status(&endpoint, &status)),
                    Err(End::Failed(failure)) => return Err(failure),
                };
                connection.lost().await;
                if begins {
                    // A stream that got as far as this earns a short wait again.
                    (began, pause) = (true, PAUSE.0);
                }
                tries_left = tries_left.saturating_sub(1);
                if !began && tries_left == 0 {
                    return Err(Failure::status(&endpoint, &status));
                }
                let why = status.message();
                note(format_args!(
                    "Lost {endpoint} ({why}); watching on where it stopped."
                ));
            }
            Err(failure) if !began => return Err(failure),
            Err(failure) => note(format_args!("{}; trying again.", failure.what())),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Why watching ends for good.
enum End {
    Refused(Status),
    Failed(Failure),
}

/// Watches until the stream is lost; gives the reason.
async fn one_stream(
    channel: Channel,
    watchers: &mut [Watcher],
    options: Options,
    begins: &mut bool,
    each: &mut impl AsyncFnMut(pb::WatchResponse) -> Result<(), Failure>,
) -> Result<Status, End> {
    // Room for all of them, and a question.
    let (send, receive) = mpsc::channel(watchers.len() + 1);
    for (at, watcher) in watchers.iter().enumerate() {
        // Ids begin with 1: 0 would let the server choose.
        let create = create(watcher, at + 1, options);
        send.send(create).await.ok();
    }
    let mut request = Request::new(ReceiverStream::new(receive));
    // A member that has lost its leader hears of no changes: it is to say so, not to stay silent.
    request.metadata_mut().insert(
        "hasleader",
        tonic::metadata::MetadataValue::from_static("true"),
    );
    let mut stream = match connection::watch(channel).watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return lost(status),
    };
    let mut ask = tokio::time::interval(ASK_EVERY);
    // The first tick is at once.
    ask.tick().await;
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = ask.tick() => {
                // A server that reads nothing has a full queue, and no answers either.
                send.try_send(ask_progress()).ok();
                continue;
            }
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(Status::unavailable("the server ended the stream")),
            Err(status) => return lost(status),
        };
        if response.canceled {
            return Err(End::Failed(canceled(&response)));
        }
        *begins = true;
        if response.watch_id == ALL {
            reached(watchers, &response);
            continue;
        }
        let at = usize::try_from(response.watch_id)
            .ok()
            .and_then(|id| id.checked_sub(1));
        let Some(watcher) = at.and_then(|at| watchers.get_mut(at)) else {
            continue;
        };
        if watcher.advance(&response) {
            each(response).await.map_err(End::Failed)?;
        }
    }
}

fn create(watcher: &Watcher, id: usize, options: Options) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: watcher.range.key.clone(),
        range_end: watcher.range.end.clone(),
        start_revision: watcher.next,
        progress_notify: options.progress_notify,
        prev_kv: options.prev_kv,
        watch_id: i64::try_from(id).unwrap_or(i64::MAX),
        ..Default::default()
    };
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

fn ask_progress() -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
    }
}

/// A lost connection has one of these codes; any other is the server's refusal.
fn lost(status: Status) -> Result<Status, End> {
    match status.code() {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled => Ok(status),
        _ => Err(End::Refused(status)),
    }
}

fn canceled(response: &pb::WatchResponse) -> Failure {
    match (response.compact_revision, response.cancel_reason.as_str()) {
        (0, "") => Failure::failed("the server canceled the watch"),
        (0, reason) => Failure::failed(format!("the server canceled the watch: {reason}")),
        (oldest, _) => Failure::failed(format!(
            "history before revision {oldest} is gone (compacted)"
        ))
        .next(format!(
            "Read the keys again, then watch from --rev={oldest} or later."
        )),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gonfalon_proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn message(revision: i64, events: &[i64], created: bool) -> pb::WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue {
                mod_revision: *revision,
                ..Default::default()
            }),
            ..Default::default()
        };
        pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                revision,
                ..Default::default()
            }),
            created,
            events: events.iter().map(event).collect(),
            ..Default::default()
        }
    }

    fn watcher(from: i64) -> Watcher {
        Watcher::new(
            Range {
                key: Bytes::from_static(b"k"),
                end: Bytes::new(),
            },
            from,
        )
    }

    #[test]
    fn a_watcher_goes_on_behind_the_last_thing_it_was_told() {
        let mut watcher = watcher(0);
        assert!(!watcher.advance(&message(10, &[], true)));
        assert_eq!(watcher.next, 11, "from now on");
        assert!(watcher.advance(&message(12, &[11, 12], false)));
        assert_eq!(watcher.next, 13);
        assert!(
            watcher.advance(&message(20, &[], false)),
            "progress is shown"
        );
        assert_eq!(watcher.next, 21);
    }

    #[test]
    fn catching_up_with_history_does_not_skip_any() {
        let mut watcher = watcher(3);
        watcher.advance(&message(100, &[], true));
        assert_eq!(watcher.next, 3, "created says nothing about what was seen");
        watcher.advance(&message(100, &[3, 5], false));
        assert_eq!(watcher.next, 6, "the header is ahead of the events");
    }
    #[test]
    fn a_range_where_nothing_happens_is_resumed_where_the_others_are() {
        let mut watchers = [watcher(3), watcher(50), watcher(0)];
        reached(&mut watchers, &message(20, &[], false));
        let next: Vec<i64> = watchers.iter().map(|watcher| watcher.next).collect();
        assert_eq!(next, [21, 50, 0], "idle, of the future, not created yet");
    }
}

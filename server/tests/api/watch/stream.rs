//! A client's side of one stream of watchers.

use gonfalon_proto::etcdserverpb::watch_client::WatchClient;
use gonfalon_proto::etcdserverpb::watch_request::RequestUnion;
use gonfalon_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::member::{Member, PATIENCE};

/// One stream of watchers.
pub(super) struct Stream {
    requests: Option<mpsc::Sender<WatchRequest>>,
    responses: Streaming<WatchResponse>,
    /// The id for the next watcher that only serves to be answered.
    next_probe: i64,
}

/// A watcher of one key.
pub(super) fn key(key: &'static str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// A watcher of everything.
pub(super) fn all() -> WatchCreateRequest {
    WatchCreateRequest {
        range_end: "\0".into(),
        ..Default::default()
    }
}

/// From a revision on.
pub(super) trait StartingAt {
    fn starting_at(self, start_revision: i64) -> Self;
}

impl StartingAt for WatchCreateRequest {
    fn starting_at(self, start_revision: i64) -> Self {
        Self {
            start_revision,
            ..self
        }
    }
}

impl Stream {
    pub(super) async fn open(member: &Member) -> Self {
        Self::open_on(member.channel.clone()).await
    }

    /// On a connection of its own.
    pub(super) async fn open_alone(member: &Member) -> Self {
        let url = member.config.listen_client[0].to_string();
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self::open_on(channel).await
    }

    async fn open_on(channel: Channel) -> Self {
        let (requests, receiver) = mpsc::channel(1000);
        let client = WatchClient::new(channel);
        let responses = client
            .max_decoding_message_size(usize::MAX)
            .watch(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Self {
            requests: Some(requests),
            responses,
            next_probe: 1_000_000,
        }
    }

    pub(super) async fn send(&self, request_union: Option<RequestUnion>) {
        let requests = self.requests.as_ref().expect("it is open");
        requests.send(WatchRequest { request_union }).await.unwrap();
    }

    pub(super) async fn ask_create(&self, request: WatchCreateRequest) {
        self.send(Some(RequestUnion::CreateRequest(request))).await;
    }

    pub(super) async fn cancel(&self, watch_id: i64) {
        let request = WatchCancelRequest { watch_id };
        self.send(Some(RequestUnion::CancelRequest(request))).await;
    }

    pub(super) async fn ask_progress(&self) {
        let request = WatchProgressRequest {};
        self.send(Some(RequestUnion::ProgressRequest(request)))
            .await;
    }

    /// Ends the client's half.
    pub(super) fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next response.
    pub(super) async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.message());
        let response = next.await.expect("a response comes").unwrap();
        response.expect("the stream goes on")
    }

    /// How the stream ends.
    pub(super) async fn end(&mut self) -> Status {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.responses.message());
            match next.await.expect("it ends") {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the server closed the stream"),
                Err(status) => return status,
            }
        }
    }

    /// Creates a watcher; the answer.
    pub(super) async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask_create(request).await;
        let response = self.next().await;
        assert!(response.created, "{response:?}");
        response
    }

    /// Asks for a watcher that there must not be.
    pub(super) async fn refused(&mut self, request: WatchCreateRequest, reason: &str) {
        let response = self.create(request).await;
        assert!(response.canceled, "{response:?}");
        assert_eq!(
            (response.watch_id, response.cancel_reason.as_str()),
            (-1, reason)
        );
        assert_ne!(response.header.unwrap().revision, 0);
    }

    /// Demands that nothing is on its way: the answer to one more request comes at once.
    pub(super) async fn nothing_more(&mut self) {
        let probe = WatchCreateRequest {
            watch_id: self.next_probe,
            ..key("probe")
        };
        self.next_probe += 1;
        let created = self.create(probe).await;
        self.cancel(created.watch_id).await;
        let canceled = self.next().await;
        assert!(canceled.canceled, "{canceled:?}");
    }
}

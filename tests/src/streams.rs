//! Streams in both directions: a watch and a lease's renewals, as a test wants to hold them.

use std::time::Duration;

use gonfalon_proto::etcdserverpb::watch_request::RequestUnion;
use gonfalon_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::client::Client;

/// Requests and answers that may wait on either side.
const QUEUE: usize = 1024;

/// A watch stream; many watchers can live on it.
///
/// It is opened by a task of its own, because a server may say nothing, not even that the stream is
/// open, before the first request.
#[derive(Debug)]
pub struct WatchStream {
    requests: Option<mpsc::Sender<WatchRequest>>,
    answers: mpsc::Receiver<Result<WatchResponse, Status>>,
}

impl WatchStream {
    /// Opens a stream to the client's member.
    pub fn open(client: &Client) -> Self {
        Self::open_with(client, |_| {})
    }

    /// [`WatchStream::open`] with metadata of the test's choice.
    pub fn open_with(
        client: &Client,
        prepare: impl FnOnce(&mut Request<ReceiverStream<WatchRequest>>),
    ) -> Self {
        let (requests, queued) = mpsc::channel(QUEUE);
        let (forward, answers) = mpsc::channel(QUEUE);
        let mut watch = client.watch.clone();
        let mut request = Request::new(ReceiverStream::new(queued));
        prepare(&mut request);
        tokio::spawn(async move {
            let opened = tokio::select! {
                opened = watch.watch(request) => opened,
                () = forward.closed() => return,
            };
            let mut stream = match opened {
                Ok(stream) => stream.into_inner(),
                Err(status) => return drop(forward.send(Err(status)).await),
            };
            loop {
                let next = tokio::select! {
                    next = stream.message() => next,
                    () = forward.closed() => return,
                };
                let message = match next {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let is_end = message.is_err();
                if forward.send(message).await.is_err() || is_end {
                    return;
                }
            }
        });
        Self {
            requests: Some(requests),
            answers,
        }
    }

    /// Sends a request.
    pub async fn send(&mut self, request: WatchRequest) {
        if let Some(requests) = &self.requests {
            // A stream that has ended says so to whoever reads its answers.
            let _ = requests.send(request).await;
        }
    }

    /// Asks for a watcher.
    pub async fn create(&mut self, request: WatchCreateRequest) {
        let request_union = Some(RequestUnion::CreateRequest(request));
        self.send(WatchRequest { request_union }).await;
    }

    /// Asks for the end of a watcher.
    pub async fn cancel(&mut self, watch_id: i64) {
        let request_union = Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
        self.send(WatchRequest { request_union }).await;
    }

    /// Asks up to which revision everything has been sent.
    pub async fn progress(&mut self) {
        let request_union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        self.send(WatchRequest { request_union }).await;
    }

    /// Says that no more requests will come; answers still may.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next answer.
    ///
    /// # Errors
    /// The status that ended the stream; `DeadlineExceeded` if nothing comes for `patience`.
    pub async fn next(&mut self, patience: Duration) -> Result<WatchResponse, Status> {
        match tokio::time::timeout(patience, self.answers.recv()).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(Status::new(Code::Cancelled, "the stream has ended")),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer for {patience:?}"
            ))),
        }
    }

    /// Whether nothing comes for a while.
    ///
    /// # Errors
    /// What did come, or the status that ended the stream.
    pub async fn quiet(&mut self, during: Duration) -> Result<(), String> {
        match tokio::time::timeout(during, self.answers.recv()).await {
            Err(_) => Ok(()),
            Ok(Some(Ok(answer))) => Err(format!("{answer:?}")),
            Ok(Some(Err(status))) => Err(format!("{status:?}")),
            Ok(None) => Err("the stream has ended".into()),
        }
    }
}

/// Renews leases one after the other on one stream and gives the answers in order.
///
/// # Errors
/// The status that ended the stream, or `DeadlineExceeded`.
pub async fn keep_alive(
    client: &Client,
    leases: &[i64],
) -> Result<Vec<LeaseKeepAliveResponse>, Status> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let (requests, queued) = mpsc::channel(leases.len().max(1));
    for &id in leases {
        let sent = requests.send(LeaseKeepAliveRequest { id }).await;
        sent.expect("the queue has room for every request");
    }
    let mut lease = client.lease.clone();
    let all = async {
        let mut stream = lease
            .lease_keep_alive(ReceiverStream::new(queued))
            .await?
            .into_inner();
        let mut answers = Vec::new();
        while answers.len() < leases.len() {
            match stream.message().await? {
                Some(answer) => answers.push(answer),
                None => break,
            }
        }
        Ok(answers)
    };
    let answers = tokio::time::timeout(PATIENCE, all).await;
    drop(requests);
    answers.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer to a renewal")))
}

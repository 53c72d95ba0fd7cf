//! One stream of renewals to one member: what was sent on it, and what was not answered yet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::clock::Moment;
use crate::credentials::Proof;
use crate::error::wants_token;
use crate::observe::{self, Stream};
use crate::transport::{Endpoint, Transport};
use crate::types::LeaseId;

/// Renewals on their way to the stream. The thread that fills it empties it too, so it never waits
/// for long.
const SENDING_MAX: usize = 1024;

type Answers = Streaming<pb::LeaseKeepAliveResponse>;

/// The answers, or why there are none; and the token that was shown.
type Opened = Result<(Answers, Proof), (Status, Proof)>;

/// What happens on a lane.
#[derive(Debug)]
pub(super) enum Event {
    Answer(pb::LeaseKeepAliveResponse),
    /// It is over; the lane must not be asked again.
    Failed(Status),
}

/// One stream, open or being opened.
pub(super) struct Lane {
    pub(super) endpoint: Arc<Endpoint>,
    sender: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    transport: Arc<Transport>,
    opening: Option<BoxFuture<'static, Opened>>,
    opened_by: Instant,
    answers: Option<Answers>,
    proof: Proof,
    sent: Sent,
}

/// Renewals without an answer. A server answers in order, so an answer belongs to the oldest.
#[derive(Debug, Default)]
struct Sent {
    /// For each lease, oldest first: when it was sent and when the answer is overdue.
    leases: HashMap<LeaseId, VecDeque<(Moment, Moment)>>,
    overdue: BTreeSet<(Moment, LeaseId)>,
}

impl Lane {
    /// Opens a stream to `endpoint` over `channel`; renewals can be sent at once.
    pub(super) fn open(
        transport: &Arc<Transport>,
        endpoint: Arc<Endpoint>,
        channel: Channel,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(SENDING_MAX);
        let opening = open(transport.clone(), endpoint.clone(), channel, receiver);
        Self {
            opened_by: transport.give_up(None),
            transport: transport.clone(),
            endpoint,
            sender,
            opening: Some(Box::pin(opening)),
            answers: None,
            proof: Proof::default(),
            sent: Sent::default(),
        }
    }

    /// Sends a renewal of a lease of `ttl`. False: there is no room now.
    pub(super) fn renew(&mut self, id: LeaseId, ttl: Duration) -> bool {
        // The clock is read before the request can have been sent.
        let now = Moment::now();
        let renewal = pb::LeaseKeepAliveRequest { id: id.get() };
        let is_sent = self.sender.try_send(renewal).is_ok();
        if is_sent {
            self.sent.add(id, now, now + ttl / 6);
        }
        is_sent
    }

    /// When the renewal was sent to which an answer for `id` belongs; none if nothing was.
    pub(super) fn answered(&mut self, id: LeaseId) -> Option<Moment> {
        self.sent.answered(id)
    }

    /// The moment from which on an answer is overdue.
    pub(super) fn overdue_at(&self) -> Option<Moment> {
        self.sent.overdue.first().map(|&(at, _)| at)
    }

    /// Whether an answer is overdue: another member should be asked.
    pub(super) fn is_overdue(&self, now: Moment) -> bool {
        self.overdue_at().is_some_and(|at| at <= now)
    }

    /// The leases whose renewals are not answered.
    pub(super) fn waiting(&self) -> impl Iterator<Item = LeaseId> {
        self.sent.leases.keys().copied()
    }

    /// What happens next.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn next(&mut self) -> Event {
        if let Some(opening) = &mut self.opening {
            match timeout_at(self.opened_by, opening).await {
                Ok(Ok((answers, proof))) => {
                    (self.answers, self.proof) = (Some(answers), proof);
                    observe::stream_opened(Stream::Leases);
                }
                Ok(Err((status, proof))) => {
                    self.proof = proof;
                    return self.failed(status);
                }
                Err(_) => {
                    let late = "no answer to a new stream of renewals";
                    return Event::Failed(Status::deadline_exceeded(late));
                }
            }
            self.opening = None;
        }
        let answers = self.answers.as_mut();
        let answers = answers.expect("a lane is opening, or open, until it has failed");
        match answers.message().await {
            Ok(Some(answer)) => Event::Answer(answer),
            Ok(None) => Event::Failed(Status::unavailable("the server ended the stream")),
            Err(status) => self.failed(status),
        }
    }

    /// The token may have been the reason: then the next lane has another.
    fn failed(&self, status: Status) -> Event {
        if wants_token(&status) {
            self.transport.forget_token(self.proof);
        }
        Event::Failed(status)
    }
}

async fn open(
    transport: Arc<Transport>,
    endpoint: Arc<Endpoint>,
    channel: Channel,
    receiver: mpsc::Receiver<pb::LeaseKeepAliveRequest>,
) -> Opened {
    let mut request = Request::new(ReceiverStream::new(receiver));
    let proof = transport.prepare(&mut request, true, &endpoint).await;
    let proof = proof.map_err(|verdict| {
        let why = Status::unavailable(verdict.error.to_string());
        (why, Proof::default())
    })?;
    let mut client = LeaseClient::new(channel);
    match client.lease_keep_alive(request).await {
        Ok(answers) => Ok((answers.into_inner(), proof)),
        Err(status) => Err((status, proof)),
    }
}

impl Sent {
    fn add(&mut self, id: LeaseId, at: Moment, overdue: Moment) {
        self.leases.entry(id).or_default().push_back((at, overdue));
        self.overdue.insert((overdue, id));
    }

    fn answered(&mut self, id: LeaseId) -> Option<Moment> {
        let sent = self.leases.get_mut(&id)?;
        let first = sent.pop_front();
        if sent.is_empty() {
            self.leases.remove(&id);
        }
        let (at, overdue) = first?;
        self.overdue.remove(&(overdue, id));
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_belongs_to_the_oldest_renewal_that_has_none() {
        let (one, two) = (LeaseId::new(1), LeaseId::new(2));
        let mut sent = Sent::default();
        sent.add(one, at(1), at(11));
        sent.add(two, at(2), at(4));
        sent.add(one, at(3), at(13));
        assert_eq!(sent.answered(one), Some(at(1)));
        assert_eq!(sent.answered(one), Some(at(3)));
        assert_eq!(sent.answered(one), None);
        assert_eq!(sent.answered(two), Some(at(2)));
        assert!(sent.overdue.is_empty() && sent.leases.is_empty());
    }

    #[test]
    fn a_short_lease_is_overdue_although_a_long_one_has_waited_longer() {
        let mut sent = Sent::default();
        sent.add(LeaseId::new(1), at(0), at(600));
        sent.add(LeaseId::new(2), at(5), at(6));
        assert_eq!(sent.overdue.first(), Some(&(at(6), LeaseId::new(2))));
    }
}

//! A stream that ends when the cluster has no leader: what `hasleader` asks for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Status;
use tonic::body::Body;

use crate::api::status::Refusal;
use crate::node::Node;

/// Election timeouts that the cluster may be without a leader, as in etcd: enough for an election
/// that goes wrong once.
const LEADERLESS_MAX: u32 = 3;

/// A body that ends with "no leader" once there has been none for three election timeouts.
pub(super) struct WhileLed {
    body: Body,
    node: Node,
    /// Once an election timeout.
    ticks: Interval,
    /// Ticks in a row without a leader.
    leaderless: u32,
}

impl WhileLed {
    pub(super) fn new(body: Body, node: Node, election_timeout: Duration) -> Self {
        let mut ticks = interval(election_timeout);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            body,
            node,
            ticks,
            leaderless: 0,
        }
    }
}

impl HttpBody for WhileLed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.leaderless > LEADERLESS_MAX {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        loop {
            ready!(self.ticks.poll_tick(cx));
            let has_leader = self.node.status().leader.is_some();
            self.leaderless = if has_leader { 0 } else { self.leaderless + 1 };
            if self.leaderless > LEADERLESS_MAX {
                return Poll::Ready(Some(
                    trailers(&Refusal::NoLeader.into()).map(Frame::trailers),
                ));
            }
        }
    }
}

fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

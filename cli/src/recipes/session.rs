//! A lease that is renewed while this process lives.

use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::text::lease_id;

/// A lease is renewed this many times in its life, as etcd's clients do.
const RENEWALS_IN_TTL: u32 = 3;
/// The wait before another server is asked for a renewal.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A lease that this process renews.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) lease: i64,
    /// When the lease is certainly alive until, counted from before the request was sent; `None`
    /// until something is known about it.
    alive_until: Option<Instant>,
}

impl Session {
    /// Makes a lease.
    pub(crate) async fn grant(connection: &Connection, ttl: i64) -> Result<Self, Failure> {
        let sent = Instant::now();
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        let granted = connection
            .call(Repeat::Never, async |channel| {
                connection::lease(channel).lease_grant(request).await
            })
            .await?;
        Ok(Self {
            lease: granted.id,
            alive_until: Some(sent + seconds(granted.ttl)),
        })
    }

    /// A lease that somebody else made.
    pub(crate) fn of(lease: i64) -> Self {
        Self {
            lease,
            alive_until: None,
        }
    }

    /// Renews the lease until it is lost, handing each answer to `each`; returns why it ended.
    pub(crate) async fn keep(
        &mut self,
        connection: &Connection,
        mut each: impl AsyncFnMut(&pb::LeaseKeepAliveResponse) -> Result<(), Failure>,
    ) -> Failure {
        loop {
            // Before the first answer nothing is known of the lease; one command's time must do.
            let limit = self
                .alive_until
                .unwrap_or_else(|| Instant::now() + connection.timeout());
            let lost = match self.renew(connection, limit, &mut each).await {
                Ok(failure) => return failure,
                Err(status) => status,
            };
            connection.lost().await;
            if Instant::now() + RETRY_PAUSE >= self.alive_until.unwrap_or(limit) {
                let (id, why) = (lease_id(self.lease), lost.message());
                return Failure::unreachable(format!("lease {id} was not renewed in time: {why}"));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Renews until the stream breaks (`Err`) or there is no point in it any more (`Ok`).
    async fn renew(
        &mut self,
        connection: &Connection,
        limit: Instant,
        each: &mut impl AsyncFnMut(&pb::LeaseKeepAliveResponse) -> Result<(), Failure>,
    ) -> Result<Failure, Status> {
        let late = |_| Status::unavailable("no answer");
        let connected = tokio::time::timeout_at(limit, connection.channel())
            .await
            .map_err(late)?;
        let (_, channel) = connected.map_err(|failure| Status::unavailable(failure.what()))?;
        let (ask, asked) = mpsc::channel(1);
        // The stream opens with its first message, so that is in the queue before the call.
        let request = pb::LeaseKeepAliveRequest { id: self.lease };
        let mut sent = Instant::now();
        ask.send(request).await.ok();
        let mut client = connection::lease(channel);
        let opening = client.lease_keep_alive(ReceiverStream::new(asked));
        let mut stream = tokio::time::timeout_at(limit, opening)
            .await
            .map_err(late)??
            .into_inner();
        loop {
            let limit = self.alive_until.unwrap_or(limit);
            let answer = tokio::time::timeout_at(limit, stream.message())
                .await
                .map_err(late)??;
            let answer =
                answer.ok_or_else(|| Status::unavailable("the server ended the stream"))?;
            if answer.ttl <= 0 {
                let id = lease_id(self.lease);
                return Ok(Failure::failed(format!(
                    "lease {id} expired or was revoked"
                )));
            }
            self.alive_until = Some(sent + seconds(answer.ttl));
            if let Err(failure) = each(&answer).await {
                return Ok(failure);
            }
            tokio::time::sleep(seconds(answer.ttl) / RENEWALS_IN_TTL).await;
            sent = Instant::now();
            if ask.send(request).await.is_err() {
                return Err(Status::unavailable("the connection broke"));
            }
        }
    }

    /// Gives the lease back, and with it all of its keys.
    pub(crate) async fn revoke(lease: i64, connection: &Connection) -> Result<(), Failure> {
        let request = pb::LeaseRevokeRequest { id: lease };
        connection
            .call(Repeat::Safe, async |channel| {
                connection::lease(channel).lease_revoke(request).await
            })
            .await
            .map(drop)
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

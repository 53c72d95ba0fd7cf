//! Renewals of many leases over a few streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::Bench;
use super::seat::{Seat, seats};
use crate::cluster::Cluster;
use crate::load::{Gate, Recorder, Session};
use crate::metric::Measurement;

/// Streams, each with its share of the leases.
const STREAMS: usize = 16;

/// Renewals that a stream has under way. A client that keeps many leases sends all that are due
/// without waiting; the answers come in the order of the questions.
const IN_FLIGHT: usize = 16;

/// Seconds; longer than any run, so that no lease ends by itself.
const TTL: i64 = 86_400;

pub(super) async fn measure(
    bench: &Bench,
    cluster: &mut Cluster,
    leases: usize,
) -> Result<Measurement> {
    let seats = seats(bench, cluster, STREAMS).await?;
    ensure!(leases >= STREAMS, "each stream needs a lease");
    if cluster.leases.len() != leases {
        cluster.leases = grant(bench, &seats, leases).await?;
    }
    let mut session = Session::new(&bench.threads);
    for (seat, share) in seats
        .into_iter()
        .zip(cluster.leases.chunks(leases.div_ceil(STREAMS)))
    {
        let keeper = Keeper {
            lease: LeaseClient::new(seat.channels[0].clone()),
            leases: share.to_vec(),
            gate: session.gate(),
            recorder: session.recorder(seat.thread),
        };
        session.client(seat.thread, keeper.run());
    }
    session.measure(bench.window, &cluster.processes()).await
}

/// Grants all leases, as many at once as there are streams.
async fn grant(bench: &Bench, seats: &[Seat], leases: usize) -> Result<Vec<i64>> {
    let mut tasks = Vec::new();
    for (number, seat) in seats.iter().enumerate() {
        let mut client = LeaseClient::new(seat.channels[0].clone());
        let share = (number..leases).step_by(seats.len()).count();
        tasks.push(bench.threads.spawn(seat.thread, async move {
            let mut granted = Vec::with_capacity(share);
            for _ in 0..share {
                let request = pb::LeaseGrantRequest { ttl: TTL, id: 0 };
                granted.push(client.lease_grant(request).await?.into_inner().id);
            }
            Ok::<_, tonic::Status>(granted)
        }));
    }
    let mut all = Vec::with_capacity(leases);
    for task in tasks {
        all.extend(task.await?.context("granting a lease failed")?);
    }
    Ok(all)
}

struct Keeper {
    lease: LeaseClient<Channel>,
    leases: Vec<i64>,
    gate: Arc<Gate>,
    recorder: Arc<Recorder>,
}

impl Keeper {
    async fn run(mut self) -> Result<()> {
        let (questions, receiver) = mpsc::channel(IN_FLIGHT);
        let answers = self.lease.lease_keep_alive(ReceiverStream::new(receiver));
        let mut under_way = VecDeque::with_capacity(IN_FLIGHT);
        let mut next = self.leases.iter().copied().cycle();
        let mut ask = async |under_way: &mut VecDeque<(i64, Instant)>| -> Result<()> {
            let id = next.next().context("a keeper without leases")?;
            under_way.push_back((id, Instant::now()));
            questions
                .send(pb::LeaseKeepAliveRequest { id })
                .await
                .context("the stream is closed")
        };
        // Before the stream is open: some servers answer the call with their first message.
        for _ in 0..IN_FLIGHT {
            ask(&mut under_way).await?;
        }
        let mut answers = answers.await?.into_inner();
        while let Some((id, asked)) = under_way.pop_front() {
            let answer = answers.message().await?.context("the stream ended")?;
            ensure!(
                (answer.id, answer.ttl) == (id, TTL),
                "asked to renew {id:x}, answered {:x} with a TTL of {}",
                answer.id,
                answer.ttl
            );
            if self.gate.is_open() {
                self.recorder.completed(asked.elapsed());
            }
            if !self.gate.is_closed() {
                ask(&mut under_way).await?;
            }
        }
        Ok(())
    }
}

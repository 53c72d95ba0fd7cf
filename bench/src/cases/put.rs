//! Clients that overwrite keys, one or several in a call.

use anyhow::{Context as _, Result, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::response_op::Response;
use tonic::transport::Channel;

use super::Bench;
use super::seat::{Seat, seats};
use crate::cluster::Cluster;
use crate::dataset::{self, Random};
use crate::load::{Operation, Session};
use crate::metric::Measurement;

/// Each client has its own share of the keys, so that it knows what it must find in the end.
pub(super) async fn measure(
    bench: &Bench,
    cluster: &Cluster,
    clients: usize,
    keys_per_call: u64,
) -> Result<Measurement> {
    let mut session = Session::new(&bench.threads);
    let share = cluster.filled.keys / u64::try_from(clients)?;
    ensure!(share >= keys_per_call, "too few keys for {clients} clients");
    for (number, seat) in (0..).zip(seats(bench, cluster, clients).await?) {
        let thread = seat.thread;
        session.repeat(
            thread,
            Writer::new(seat, number * share, share, keys_per_call),
        );
    }
    session.measure(bench.window, &cluster.processes()).await
}

struct Writer {
    members: Vec<KvClient<Channel>>,
    first_key: u64,
    keys: u64,
    keys_per_call: u64,
    random: Random,
    calls: u64,
    revision: i64,
    last_key: Option<u64>,
}

impl Writer {
    fn new(seat: Seat, first_key: u64, keys: u64, keys_per_call: u64) -> Self {
        Self {
            members: seat.channels.into_iter().map(KvClient::new).collect(),
            first_key,
            keys,
            keys_per_call,
            random: Random::new(first_key),
            calls: 0,
            revision: 0,
            last_key: None,
        }
    }

    async fn put(&mut self, index: u64) -> Result<Option<pb::ResponseHeader>> {
        let request = dataset::put(index, self.calls);
        Ok(self.member().put(request).await?.into_inner().header)
    }

    async fn txn(&mut self, from: u64) -> Result<Option<pb::ResponseHeader>> {
        let indexes = from..from + self.keys_per_call;
        let success = indexes.map(|index| dataset::put_in_txn(index, self.calls));
        let request = pb::TxnRequest {
            success: success.collect(),
            ..Default::default()
        };
        let answer = self.member().txn(request).await?.into_inner();
        ensure!(
            answer.succeeded,
            "a transaction without conditions did not succeed"
        );
        let puts = answer.responses.iter();
        let puts = puts
            .filter(|one| matches!(one.response, Some(Response::ResponsePut(_))))
            .count();
        ensure!(
            u64::try_from(puts)? == self.keys_per_call,
            "{puts} answers in a transaction"
        );
        Ok(answer.header)
    }

    /// The members in turn; most clients have one.
    fn member(&mut self) -> &mut KvClient<Channel> {
        let turn = self.calls % u64::try_from(self.members.len()).unwrap_or(1);
        &mut self.members[usize::try_from(turn).unwrap_or(0)]
    }
}

impl Operation for Writer {
    async fn call(&mut self) -> Result<()> {
        self.calls += 1;
        let places = self.keys - self.keys_per_call + 1;
        let from = self.first_key + self.random.below(places);
        // Forgotten until the answer is here: after an error the value is unknown.
        self.last_key = None;
        let header = match self.keys_per_call {
            1 => self.put(from).await?,
            _ => self.txn(from).await?,
        };
        let revision = header.context("an answer without a header")?.revision;
        ensure!(
            revision > self.revision,
            "a write got revision {revision} after {}",
            self.revision
        );
        (self.revision, self.last_key) = (revision, Some(from));
        Ok(())
    }

    /// The last value must be the one that is read, and from the revision that was answered.
    async fn finish(&mut self) -> Result<()> {
        let Some(index) = self.last_key else {
            return Ok(());
        };
        let request = pb::RangeRequest {
            key: dataset::key(index),
            ..Default::default()
        };
        let found = self.members[0].range(request).await?.into_inner().kvs;
        let [found] = found.as_slice() else {
            anyhow::bail!("key {index} was written and is not there");
        };
        let sequence = dataset::sequence_of(index, &found.value)?;
        ensure!(
            (sequence, found.mod_revision) == (self.calls, self.revision),
            "key {index} holds write {sequence} of revision {}, not {} of {}",
            found.mod_revision,
            self.calls,
            self.revision
        );
        Ok(())
    }
}

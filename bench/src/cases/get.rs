//! Clients that read single keys.

use anyhow::{Result, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tonic::transport::Channel;

use super::seat::seats;
use super::{Bench, Consistency};
use crate::cluster::Cluster;
use crate::dataset::{self, Random};
use crate::load::{Operation, Session};
use crate::metric::Measurement;

pub(super) async fn measure(
    bench: &Bench,
    cluster: &Cluster,
    clients: usize,
    consistency: Consistency,
) -> Result<Measurement> {
    ensure!(cluster.filled.keys > 0, "nothing to read");
    let mut session = Session::new(&bench.threads);
    for (seed, seat) in (1..).zip(seats(bench, cluster, clients).await?) {
        let reader = Reader {
            members: seat.channels.into_iter().map(KvClient::new).collect(),
            next_member: 0,
            keys: cluster.filled.keys,
            serializable: consistency == Consistency::Serializable,
            random: Random::new(seed),
        };
        session.repeat(seat.thread, reader);
    }
    session.measure(bench.window, &cluster.processes()).await
}

struct Reader {
    members: Vec<KvClient<Channel>>,
    next_member: usize,
    keys: u64,
    serializable: bool,
    random: Random,
}

impl Operation for Reader {
    async fn call(&mut self) -> Result<()> {
        let index = self.random.below(self.keys);
        let key = dataset::key(index);
        let request = pb::RangeRequest {
            key: key.clone(),
            serializable: self.serializable,
            ..Default::default()
        };
        self.next_member = (self.next_member + 1) % self.members.len();
        let answer = self.members[self.next_member]
            .range(request)
            .await?
            .into_inner();
        let [found] = answer.kvs.as_slice() else {
            anyhow::bail!("{} answers for key {index}", answer.kvs.len());
        };
        ensure!(
            answer.count == 1 && found.key == key,
            "key {index} was answered by another"
        );
        dataset::sequence_of(index, &found.value)?;
        Ok(())
    }
}

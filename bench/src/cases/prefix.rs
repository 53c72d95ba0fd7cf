//! Clients that read all keys of a prefix.

use anyhow::{Result, ensure};
use gonfalon_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tonic::transport::Channel;

use super::Bench;
use super::seat::seats;
use crate::cluster::Cluster;
use crate::dataset::{self, KEYS_PER_PREFIX, Random};
use crate::load::{Operation, Session};
use crate::metric::Measurement;

pub(super) async fn measure(
    bench: &Bench,
    cluster: &Cluster,
    clients: usize,
) -> Result<Measurement> {
    let prefixes = cluster.filled.keys / KEYS_PER_PREFIX;
    ensure!(prefixes > 0, "no prefix is full");
    let mut session = Session::new(&bench.threads);
    for (seed, seat) in (1..).zip(seats(bench, cluster, clients).await?) {
        let reader = Reader {
            members: seat.channels.into_iter().map(KvClient::new).collect(),
            next_member: 0,
            prefixes,
            random: Random::new(seed),
        };
        session.repeat(seat.thread, reader);
    }
    session.measure(bench.window, &cluster.processes()).await
}

struct Reader {
    members: Vec<KvClient<Channel>>,
    next_member: usize,
    prefixes: u64,
    random: Random,
}

impl Operation for Reader {
    async fn call(&mut self) -> Result<()> {
        let group = self.random.below(self.prefixes);
        let (key, range_end) = dataset::prefix(group);
        let request = pb::RangeRequest {
            key,
            range_end,
            ..Default::default()
        };
        self.next_member = (self.next_member + 1) % self.members.len();
        let answer = self.members[self.next_member]
            .range(request)
            .await?
            .into_inner();
        let indexes = group * KEYS_PER_PREFIX..(group + 1) * KEYS_PER_PREFIX;
        ensure!(
            u64::try_from(answer.count) == Ok(KEYS_PER_PREFIX)
                && u64::try_from(answer.kvs.len()) == Ok(KEYS_PER_PREFIX)
                && !answer.more,
            "{} of {} keys instead of {KEYS_PER_PREFIX}",
            answer.kvs.len(),
            answer.count
        );
        // Every value says whose it is, so this also checks the order and the names that matter.
        for (index, found) in indexes.clone().zip(&answer.kvs) {
            dataset::sequence_of(index, &found.value)?;
        }
        let ends = [indexes.start, indexes.end - 1].map(dataset::key);
        let found = [answer.kvs.first(), answer.kvs.last()].map(|kv| kv.map(|kv| kv.key.clone()));
        ensure!(
            found == ends.map(Some),
            "the prefix starts or ends with another key"
        );
        Ok(())
    }
}

//! Pings of the other members: how long the network takes, and who is there while nobody has
//! anything to say.

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Node;
use crate::limits::PROBE_INTERVAL;
use crate::tasks::Tasks;

impl Node {
    /// Pings every other member now and then, until the node stops.
    pub(super) fn spawn_probe(&self, tasks: &mut Tasks) {
        let (node, stop) = (self.clone(), tasks.stop_token());
        tasks.spawn("peer probe", async move {
            stop.run_until_cancelled(node.probe_peers()).await;
            Ok(())
        });
    }

    async fn probe_peers(&self) {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let peers = self.metrics(|metrics| {
                let nodes = metrics.membership_config.nodes();
                nodes.map(|(&id, _)| id).collect::<Vec<_>>()
            });
            let others = peers.into_iter().filter(|&id| id != self.id());
            futures::future::join_all(others.map(|id| self.probe(id))).await;
        }
    }

    async fn probe(&self, member: u64) {
        let asked = Instant::now();
        // A ping that fails is counted where all calls are.
        if self.inner.peers.ping(member).await.is_ok()
            && let Some(peer) = self.store().metrics().peers.find(member)
        {
            let took = asked.elapsed().as_secs_f64();
            peer.round_trip_seconds.observe(took);
        }
    }
}

//! The client against the server in memory, which does on request what real servers do rarely.

#[path = "proofs/compaction.rs"]
mod compaction;
#[path = "proofs/cuts.rs"]
mod cuts;
#[path = "proofs/disk.rs"]
mod disk;
#[path = "proofs/faults.rs"]
mod faults;
#[path = "proofs/freshness.rs"]
mod freshness;
#[path = "proofs/gone_back.rs"]
mod gone_back;
#[path = "proofs/handles.rs"]
mod handles;
#[path = "proofs/health.rs"]
mod health;
#[path = "proofs/leases.rs"]
mod leases;
#[path = "proofs/limits.rs"]
mod limits;
#[path = "proofs/members.rs"]
mod members;
#[path = "proofs/panics.rs"]
mod panics;
#[path = "proofs/patience.rs"]
mod patience;
#[path = "proofs/recipes.rs"]
mod recipes;
#[path = "proofs/server.rs"]
mod server;
#[path = "proofs/slow.rs"]
mod slow;
#[path = "shared/waiting.rs"]
mod waiting;

use gonfalon::testkit::FakeServer;
use gonfalon::{Batch, Event, KeyRange, Revision, Watch};

use waiting::{PATIENCE, until, within};

/// The next batch, which is no error.
async fn next(watch: &mut Watch) -> Batch {
    let item = within(watch.next()).await.expect("the watch goes on");
    item.expect("no error")
}

/// Keys and values of a batch, as text.
fn told(batch: &Batch) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let events = batch.events.iter();
    events
        .map(|event| (text(&event.kv.key), text(&event.kv.value)))
        .collect()
}

/// What a watch must tell: every change of its keys, as the state machine has it.
struct Model {
    range: KeyRange,
    /// Everything up to here has been told.
    told: Revision,
}

impl Model {
    fn after(range: KeyRange, told: Revision) -> Self {
        Self { range, told }
    }

    /// What is still to be told.
    fn untold(&self, server: &FakeServer) -> Vec<Event> {
        let changes = server.changes_after(self.told);
        let wanted = changes.into_iter();
        wanted
            .filter(|event| self.range.contains(&event.kv.key))
            .collect()
    }

    /// Takes all that is still to be told from `watch`, and compares.
    async fn take(&mut self, server: &FakeServer, watch: &mut Watch) {
        let wanted = self.untold(server);
        let mut seen: Vec<Event> = Vec::new();
        while seen.len() < wanted.len() {
            let batch = next(watch).await;
            assert!(!batch.is_coalesced && !batch.is_relisted, "{batch:?}");
            seen.extend(batch.events);
            let rest = wanted.get(seen.len());
            let last = seen.last().map(|event| event.kv.mod_revision);
            assert_ne!(
                rest.map(|event| event.kv.mod_revision),
                last,
                "a batch ends with a whole revision"
            );
        }
        assert_eq!(seen, wanted, "what was told, and what happened");
        self.told = server.revision();
    }
}

/// A number that the environment sets.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("it is a number"))
}

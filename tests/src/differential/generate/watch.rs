//! Scripts of one watch stream.

use gonfalon_proto::etcdserverpb::WatchCreateRequest;
use rand::Rng;

use super::Generator;
use crate::differential::call::{Call, Script, WatchStep};

impl Generator {
    pub(super) fn script(&mut self) -> Script {
        if self.one_in(12) && self.compacted > 0 {
            // Alone, because a refusal does not use up an id, and old servers do not refuse it; and
            // only after a compaction, without which such a watcher breaks others of an old server.
            let watcher = WatchCreateRequest {
                key: "a".into(),
                start_revision: self.pick(&[-1, -7, i64::MIN]),
                watch_id: 1,
                ..WatchCreateRequest::default()
            };
            return Script {
                steps: vec![WatchStep::Create(watcher)],
            };
        }
        let steps = self.rng.random_range(2..12);
        Script {
            steps: (0..steps).map(|_| self.watch_step()).collect(),
        }
    }

    fn watch_step(&mut self) -> WatchStep {
        match self.rng.random_range(0..20) {
            0..6 => WatchStep::Create(self.watcher()),
            6 => WatchStep::Cancel(self.rng.random_range(-1..6)),
            7 => WatchStep::Progress,
            8 => WatchStep::Nothing,
            n => WatchStep::Call(Box::new(match n {
                9..14 => Call::Put(self.put()),
                14..16 => Call::DeleteRange(self.delete()),
                16..19 => Call::Txn(self.txn()),
                _ => self.lease(),
            })),
        }
    }

    fn watcher(&mut self) -> WatchCreateRequest {
        let (key, range_end) = self.interval();
        let filters = match self.rng.random_range(0..10) {
            0 => vec![0],
            1 => vec![1],
            2 => vec![0, 1],
            3 if self.one_in(4) => vec![9],
            _ => Vec::new(),
        };
        let ahead = self.rng.random_range(0..6);
        let start_revision = match self.rng.random_range(0..10) {
            0..4 => 0,
            4 => self.revision + ahead,
            5 => self.compacted,
            6 => self.compacted + 1,
            _ => self.some_revision(),
        };
        let start_revision = start_revision.max(0);
        // The table of differences finds a watcher from the compacted revision by its id.
        let needs_id = start_revision == self.compacted && start_revision != 0;
        let chosen = if needs_id {
            self.rng.random_range(100..1000)
        } else {
            0
        };
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.one_in(4),
            filters,
            prev_kv: self.one_in(2),
            watch_id: if !needs_id && self.one_in(4) {
                self.rng.random_range(-2..6)
            } else {
                chosen
            },
            fragment: self.one_in(4),
        }
    }
}

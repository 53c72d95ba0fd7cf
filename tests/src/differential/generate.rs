//! Draws calls from a seed, and from what the reference has answered so far.
//!
//! The keys are few, so that calls meet; the revisions are near the present and near the last
//! compaction, where mistakes live; one call in ten is wrong in some way. A range holds at most
//! twelve keys: up to there the sort of 3.4.23 leaves equal elements in order, beyond it does not.

mod kv;
mod txn;
mod watch;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb::{
    AlarmType, HashKvRequest, LeaseGrantRequest, LeaseTimeToLiveRequest,
};
use gonfalon_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use gonfalon_proto::v3lockpb::{LockRequest, UnlockRequest};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::call::{Answer, Call, Step};
use super::known;
use crate::binaries::Server;

/// Granted to every lease of a script, so that none expires while it runs.
const TTL_S: i64 = 3600;
/// The leases that scripts use; the ids are any number but 0.
pub(super) const LEASES: [i64; 4] = [7, 0x1234_5678_9abc, -3, i64::MAX];
/// A lease that nobody grants.
const NO_LEASE: i64 = 404;
/// Between two compactions.
const CALLS_A_COMPACTION: u32 = 150;

/// A source of calls: the same seed and the same answers give the same calls.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    members: usize,
    /// The store's revision.
    revision: i64,
    /// Of the last compaction; 0 if there was none.
    compacted: i64,
    leader: Option<LeaderKey>,
    /// The reference leaves equal elements of a sort in any order.
    has_loose_ties: bool,
}

impl Generator {
    /// Calls for systems of `members` members with empty stores, the first of which is `reference`.
    pub fn new(seed: u64, members: usize, reference: Server) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self {
            rng,
            members,
            revision: 1,
            compacted: 0,
            leader: None,
            has_loose_ties: known::has_loose_ties(reference),
        }
    }

    /// The next call. `is_deletion` says whether a revision deleted something.
    pub fn draw(&mut self, is_deletion: impl Fn(i64) -> bool) -> Step {
        let member = self.rng.random_range(0..self.members);
        if self.one_in(CALLS_A_COMPACTION) {
            return Step {
                member,
                call: self.compact(is_deletion),
            };
        }
        let call = match self.rng.random_range(0..1000) {
            0..250 => Call::Put(self.put()),
            250..450 => Call::Range(self.range()),
            450..500 => Call::RangeStream(self.range()),
            500..560 => Call::DeleteRange(self.delete()),
            560..820 => Call::Txn(self.txn()),
            820..890 => self.lease(),
            890..930 => self.lock_or_election(),
            930..960 => self.maintenance(),
            960..975 => self.malformed(),
            975..983 => self.alarmed(),
            _ => Call::Watch(self.script()),
        };
        Step { member, call }
    }

    /// The revision of the last compaction; 0 if there was none.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Learns from the reference's answer, or from the calls and answers of a script.
    pub fn learn(&mut self, call: &Call, answer: &Answer) {
        let mut answer = answer.clone();
        if let Some(Some(header)) = super::normal::header(&mut answer) {
            self.revision = self.revision.max(header.revision);
        }
        match (call, &answer) {
            (Call::Compact(request), Answer::Compact(_)) => self.compacted = request.revision,
            (_, Answer::Campaign(campaign)) => self.leader.clone_from(&campaign.leader),
            (_, Answer::Watch(seen)) => {
                for answer in &seen.answers {
                    self.learn(&Call::Status, answer);
                }
            }
            _ => {}
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    fn lease(&mut self) -> Call {
        let id = self.pick(&LEASES);
        match self.rng.random_range(0..10) {
            0..3 => {
                let ttl = if self.one_in(10) { i64::MAX } else { TTL_S };
                Call::LeaseGrant(LeaseGrantRequest { ttl, id })
            }
            3 => Call::LeaseOfAnyId {
                ttl: self.pick(&[TTL_S, 0, -5, 1, 2]),
            },
            4 => Call::LeaseRevoke(self.pick(&[id, id, NO_LEASE, 0])),
            5 => {
                let other = self.pick(&LEASES);
                Call::LeaseKeepAlive(vec![id, NO_LEASE, other, 0])
            }
            6..8 => {
                let id = self.pick(&[id, id, id, NO_LEASE]);
                Call::LeaseTimeToLive(LeaseTimeToLiveRequest {
                    id,
                    keys: self.one_in(2),
                })
            }
            _ => Call::LeaseLeases,
        }
    }

    /// What takes space, and what changes anything, while there is none or the members differ.
    fn alarmed(&mut self) -> Call {
        let alarm = self.pick(&[AlarmType::Nospace, AlarmType::Corrupt]);
        let call = match self.rng.random_range(0..7) {
            0 => Call::Put(self.put()),
            1 => Call::DeleteRange(self.delete()),
            2..5 => Call::Txn(self.flat_txn()),
            5 => self.lease(),
            _ => self.lock_or_election(),
        };
        Call::Alarmed {
            alarm: alarm.into(),
            call: Box::new(call),
        }
    }

    /// Nobody competes: every lease has a lock and an election of its own, so no call waits.
    fn lock_or_election(&mut self) -> Call {
        let lease = self.pick(&[LEASES[0], LEASES[2], NO_LEASE]);
        let name = Bytes::from(format!("r{}", lease % 10));
        let leader = self.leader.clone();
        match self.rng.random_range(0..8) {
            0 => Call::Lock(LockRequest { name, lease }),
            1 => {
                let held = format!("r{}/{lease:x}", lease % 10);
                Call::Unlock(UnlockRequest {
                    key: self.pick(&[held.into(), Bytes::new()]),
                })
            }
            2..4 => Call::Campaign(CampaignRequest {
                name,
                lease,
                value: self.value(),
            }),
            4 => Call::Proclaim(ProclaimRequest {
                leader,
                value: self.value(),
            }),
            5..7 => Call::Leader(LeaderRequest { name }),
            _ => Call::Resign(ResignRequest { leader }),
        }
    }

    fn maintenance(&mut self) -> Call {
        match self.rng.random_range(0..7) {
            0 => Call::MemberList {
                linearizable: self.one_in(2),
            },
            1 => Call::Status,
            2..4 => Call::HashKv(HashKvRequest {
                revision: self.some_revision(),
            }),
            4 => Call::Alarms,
            5 => Call::Defragment,
            // Which member leads, and so refuses for another reason, is a matter of chance.
            _ if self.members > 1 => Call::Status,
            _ => Call::MoveLeader(1),
        }
    }
}

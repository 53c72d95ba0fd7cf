//! The calls that one request and one answer make, and the renewals of leases.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use gonfalon_core::{Answer, Command, LeaseId, NoHistory, Revision};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::parse::{self, Effect, Limits};
use gonfalon_wire::{Refusal, render};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::fault::Frame;
use super::pipe::endpoint;
use super::store::read;
use super::world::{Shared, World, member_id};

/// The defaults of a server.
const LIMITS: Limits = Limits {
    request_bytes: 1024 * 1024 * 3 / 2,
    txn_ops: 128,
    lease_ttl_min: 2,
};

/// The version that a member says it has.
const VERSION: &str = "3.7.1";

/// One member's answers.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) shared: Arc<Shared>,
    pub(super) member: usize,
}

type Answered<R> = Result<R, Refusal>;

impl Api {
    pub(super) fn range(&self, request: pb::RangeRequest) -> Answered<pb::RangeResponse> {
        let world = self.shared.world();
        world.may_read(&request)?;
        let mut asked = parse::range(request)?;
        let state = world.store.state();
        let at = if asked.serializable {
            let applied = world.members[self.member].applied();
            if *asked.range.revision.get_or_insert(applied) > applied {
                return Err(Refusal::FutureRevision);
            }
            applied
        } else {
            world.needs_leader(self.member)?;
            state.revision()
        };
        let answer = read(state.range(&asked.range, &NoHistory))?;
        Ok(render::range(answer, world.header(self.member, at)))
    }

    pub(super) fn put(&self, request: pb::PutRequest) -> Answered<pb::PutResponse> {
        let (world, revision, answer) = self.apply(Command::Put(parse::put(request, &LIMITS)?))?;
        let Answer::Put(answer) = answer else {
            unreachable!("a put is answered as one");
        };
        Ok(render::put(answer, world.header(self.member, revision)))
    }

    pub(super) fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Answered<pb::DeleteRangeResponse> {
        let delete = parse::delete(request, &LIMITS)?;
        let (world, revision, answer) = self.apply(Command::DeleteRange(delete))?;
        let Answer::DeleteRange(answer) = answer else {
            unreachable!("a deletion is answered as one");
        };
        Ok(render::delete(answer, world.header(self.member, revision)))
    }

    pub(super) fn txn(&self, request: pb::TxnRequest) -> Answered<pb::TxnResponse> {
        let parse::Transaction { txn, effect } = parse::txn(request, &LIMITS)?;
        let (world, revision, answer) = match effect {
            Effect::Read { .. } => {
                let world = self.shared.world();
                world.needs_leader(self.member)?;
                let state = world.store.state();
                let (revision, answer) = (state.revision(), read(state.read_txn(&txn, &NoHistory)));
                (world, revision, answer?)
            }
            Effect::Write => match self.apply(Command::Txn(txn))? {
                (world, revision, Answer::Txn(answer)) => (world, revision, answer),
                (.., other) => unreachable!("a transaction is answered as one, not {other:?}"),
            },
        };
        Ok(render::txn(answer, world.header(self.member, revision)))
    }

    pub(super) fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Answered<pb::CompactionResponse> {
        let revision = Revision::new(request.revision);
        let (world, revision, _) = self.apply(Command::Compact { revision })?;
        Ok(pb::CompactionResponse {
            header: Some(world.header(self.member, revision)),
        })
    }

    pub(super) fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Answered<pb::LeaseGrantResponse> {
        let ttl = parse::lease_ttl(request.ttl, &LIMITS);
        let id = match request.id {
            0 => LeaseId::new(fastrand::i64(1..=i64::MAX)),
            chosen => LeaseId::new(chosen),
        };
        let (world, revision, _) = self.apply(Command::LeaseGrant { id, ttl })?;
        Ok(pb::LeaseGrantResponse {
            header: Some(world.header(self.member, revision)),
            id: id.get(),
            ttl,
            error: String::new(),
        })
    }

    pub(super) fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> Answered<pb::LeaseRevokeResponse> {
        let id = LeaseId::new(request.id);
        let (world, revision, _) = self.apply(Command::LeaseRevoke { id })?;
        Ok(pb::LeaseRevokeResponse {
            header: Some(world.header(self.member, revision)),
        })
    }

    pub(super) fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Answered<pb::LeaseTimeToLiveResponse> {
        let world = self.shared.world();
        world.needs_leader(self.member)?;
        let id = LeaseId::new(request.id);
        let remaining = world.store.remaining(id);
        let lease = world.store.state().lease(id).filter(|_| request.keys);
        let keys = lease.into_iter().flat_map(gonfalon_core::Lease::keys);
        Ok(pb::LeaseTimeToLiveResponse {
            header: Some(world.header(self.member, world.store.revision())),
            id: request.id,
            ttl: remaining.as_ref().map_or(-1, |lease| lease.left),
            granted_ttl: remaining.as_ref().map_or(0, |lease| lease.granted),
            keys: keys.map(Bytes::copy_from_slice).collect(),
        })
    }

    pub(super) fn lease_leases(
        &self,
        _: pb::LeaseLeasesRequest,
    ) -> Answered<pb::LeaseLeasesResponse> {
        let world = self.shared.world();
        world.needs_leader(self.member)?;
        let leases = world.store.state().leases();
        Ok(pb::LeaseLeasesResponse {
            header: Some(world.header(self.member, world.store.revision())),
            leases: leases
                .map(|(id, _)| pb::LeaseStatus { id: id.get() })
                .collect(),
        })
    }

    /// Renews what is asked for, one after the other.
    pub(super) fn lease_keep_alive(
        &self,
        requests: Streaming<pb::LeaseKeepAliveRequest>,
        leaderless: &CancellationToken,
    ) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send + use<> {
        let state = (self.clone(), requests, leaderless.clone(), false);
        stream::try_unfold(
            state,
            |(api, mut requests, leaderless, is_cut)| async move {
                if is_cut {
                    return Err(broken());
                }
                let request = tokio::select! {
                    biased;
                    () = leaderless.cancelled() => return Err(Refusal::NoLeader.into()),
                    request = requests.message() => request?,
                };
                let Some(request) = request else {
                    return Ok(None);
                };
                let (answer, is_cut) = api.renew(request.id)?;
                Ok(Some((answer, (api, requests, leaderless, is_cut))))
            },
        )
    }

    fn renew(&self, id: i64) -> Answered<(pb::LeaseKeepAliveResponse, bool)> {
        let mut world = self.shared.world();
        world.needs_leader(self.member)?;
        let ttl = world.store.renew(LeaseId::new(id));
        let answer = pb::LeaseKeepAliveResponse {
            header: Some(world.header(self.member, world.store.revision())),
            id,
            ttl: ttl.unwrap_or(0),
        };
        Ok((answer, world.faults.frame(Frame::Renewal)))
    }

    pub(super) fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Answered<pb::MemberListResponse> {
        let world = self.shared.world();
        if request.linearizable {
            world.needs_leader(self.member)?;
        }
        let member = |number| pb::Member {
            id: member_id(number),
            name: format!("member-{number}"),
            peer_ur_ls: Vec::new(),
            client_ur_ls: vec![endpoint(number)],
            is_learner: false,
        };
        Ok(pb::MemberListResponse {
            header: Some(world.header(self.member, Revision::default())),
            members: (0..world.members.len()).map(member).collect(),
        })
    }

    pub(super) fn status(&self, _: pb::StatusRequest) -> pb::StatusResponse {
        let world = self.shared.world();
        let member = &world.members[self.member];
        let errors = if member.sees_leader() {
            Vec::new()
        } else {
            vec![Refusal::NoLeader.text().to_owned()]
        };
        pb::StatusResponse {
            header: Some(world.header(self.member, member.applied())),
            version: VERSION.to_owned(),
            // The first leads.
            leader: if member.sees_leader() {
                member_id(0)
            } else {
                0
            },
            raft_term: world.term,
            errors,
            ..pb::StatusResponse::default()
        }
    }

    pub(super) fn authenticate(
        &self,
        request: pb::AuthenticateRequest,
    ) -> Answered<pb::AuthenticateResponse> {
        let mut world = self.shared.world();
        if world.users.is_empty() {
            return Err(Refusal::AuthNotEnabled);
        }
        if world.users.get(&request.name) != Some(&request.password) {
            return Err(Refusal::AuthFailed);
        }
        world.tokens_made += 1;
        let token = format!("{}.{}", request.name, world.tokens_made);
        world.tokens.insert(token.clone());
        Ok(pb::AuthenticateResponse {
            header: Some(world.header(self.member, Revision::default())),
            token,
        })
    }

    fn apply(
        &self,
        command: Command,
    ) -> Answered<(std::sync::MutexGuard<'_, World>, Revision, Answer)> {
        let mut world = self.shared.world();
        world.needs_leader(self.member)?;
        let (revision, answer) = world.apply(command)?;
        Ok((world, revision, answer))
    }
}

impl World {
    /// Whether a member can do what needs a leader.
    fn needs_leader(&self, member: usize) -> Answered<()> {
        if self.members[member].sees_leader() {
            Ok(())
        } else {
            Err(Refusal::NoLeader)
        }
    }

    /// Whether the keys may be read that are asked for.
    fn may_read(&self, request: &pb::RangeRequest) -> Answered<()> {
        let Some((start, end)) = &self.readable else {
            return Ok(());
        };
        let last = &request.range_end;
        // An end of one zero is none.
        let is_within = request.key >= *start
            && request.key < *end
            && (last.is_empty() || (last[..] != [0] && last <= end));
        is_within.then_some(()).ok_or(Refusal::PermissionDenied)
    }

    /// Whether whoever has `token` may ask for anything.
    pub(super) fn check_token(&self, token: Option<&str>) -> Answered<()> {
        match token {
            _ if self.users.is_empty() => Ok(()),
            None => Err(Refusal::UserEmpty),
            Some(token) if self.tokens.contains(token) => Ok(()),
            Some(_) => Err(Refusal::InvalidAuthToken),
        }
    }
}

/// How a stream ends that a test has cut: as one whose server has gone away.
pub(super) fn broken() -> Status {
    Status::unavailable("the test has cut the stream")
}

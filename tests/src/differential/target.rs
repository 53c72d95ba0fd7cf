//! One of the two systems: sends it calls and hands back normalised answers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gonfalon_proto::etcdserverpb::alarm_request::AlarmAction;
use gonfalon_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, DefragmentRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, MemberListRequest, MoveLeaderRequest, PutResponse, RangeRequest,
    RangeResponse, StatusRequest, TxnResponse,
};
use prost::Message as _;
use tonic::Status;

use super::call::{Answer, Call, Step};
use super::known;
use super::memory::Memory;
use super::normal::{Identity, normalise};
use super::watching;
use crate::binaries::Server;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::raw;
use crate::streams::keep_alive;

/// No call of a script waits for another client, so an answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running system and what is known of its identity.
#[derive(Debug)]
pub struct Target {
    cluster: Cluster,
    identities: Vec<Identity>,
    memory: Memory,
}

impl Target {
    /// Starts a system with an empty store.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(server: Server, size: usize) -> Result<Self> {
        let cluster = Cluster::start(server, size).await?;
        let mut identities = Vec::new();
        for at in 0..size {
            let status = cluster.client(at).status().await?;
            let header = status.header.context("a status without a header")?;
            identities.push(Identity {
                cluster: header.cluster_id,
                member: header.member_id,
            });
        }
        let memory = Memory::begin(&cluster.client(0)).await?;
        Ok(Self {
            cluster,
            identities,
            memory,
        })
    }

    /// Which server it is.
    pub fn server(&self) -> Server {
        self.cluster.server()
    }

    /// Stubs for one member.
    pub fn client(&self, member: usize) -> Client {
        self.cluster.client(member)
    }

    /// The store's revision: headers of campaigns are behind it.
    pub async fn revision(&self) -> i64 {
        let read = self.client(0).get("revision").await;
        read.ok()
            .and_then(|answer| answer.header)
            .map_or(0, |header| header.revision)
    }

    /// The ends of the logs.
    pub fn logs(&self) -> String {
        self.cluster.logs()
    }

    /// All that has happened in it.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Sends one call and gives its normalised answer.
    pub async fn execute(&self, step: &Step) -> Answer {
        let client = self.client(step.member);
        let answer = tokio::time::timeout(PATIENCE, async {
            if self.cluster.size() > 1 && step.call.is_local() {
                // A linearizable read makes the member catch up with what was answered before.
                client.get("catch up").await?;
            }
            match &step.call {
                Call::Watch(script) => {
                    let server = self.server();
                    let seen = watching::run(&client, server, script, &self.memory).await;
                    Ok(Answer::Watch(seen))
                }
                call => send(&client, self.server(), call).await,
            }
        });
        let answer = answer.await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!(
                "no answer for {PATIENCE:?}"
            )))
        });
        if let (Call::Compact(request), Ok(_)) = (&step.call, &answer) {
            self.memory.compact(request.revision);
        }
        normalise(
            answer.unwrap_or_else(Answer::from),
            self.identities[step.member],
        )
    }
}

/// Sends one call that is not a watch.
pub(crate) async fn send(client: &Client, server: Server, call: &Call) -> Result<Answer, Status> {
    match call {
        Call::Range(_)
        | Call::RangeStream(_)
        | Call::Put(_)
        | Call::DeleteRange(_)
        | Call::Txn(_)
        | Call::Compact(_) => send_kv(client, server, call).await,
        Call::LeaseGrant(_)
        | Call::LeaseOfAnyId { .. }
        | Call::LeaseRevoke(_)
        | Call::LeaseKeepAlive(_)
        | Call::LeaseTimeToLive(_)
        | Call::LeaseLeases => send_lease(client, call).await,
        Call::Raw { path, body } => {
            let bytes = raw::unary(client, path, body.clone()).await?;
            // Noise may be a request after all.
            let understood = match *path {
                "/etcdserverpb.KV/Range" => RangeResponse::decode(bytes).map(Answer::Range),
                "/etcdserverpb.KV/Put" => PutResponse::decode(bytes).map(Answer::Put),
                "/etcdserverpb.KV/Txn" => TxnResponse::decode(bytes).map(Answer::Txn),
                _ => return Err(Status::internal(format!("{path} answered {bytes:?}"))),
            };
            understood.map_err(|error| Status::internal(error.to_string()))
        }
        Call::Watch(_) => Err(Status::internal("a watch inside a watch")),
        Call::Alarmed { alarm, call } => {
            set_alarm(client, AlarmAction::Activate, *alarm).await?;
            let answer = Box::pin(send(client, server, call)).await;
            set_alarm(client, AlarmAction::Deactivate, *alarm).await?;
            answer
        }
        _ => send_other(client, call).await,
    }
}

/// Raises or disarms an alarm of the member that is asked, which must say so.
async fn set_alarm(client: &Client, action: AlarmAction, alarm: i32) -> Result<(), Status> {
    let member_id = client.status().await?.header.map_or(0, |h| h.member_id);
    let request = AlarmRequest {
        action: action.into(),
        member_id,
        alarm,
    };
    let answer = client.maintenance.clone().alarm(request).await?;
    let changed = answer.into_inner().alarms;
    if changed != [AlarmMember { member_id, alarm }] {
        let text = format!("{action:?} of {alarm} at {member_id} changed {changed:?}");
        return Err(Status::internal(text));
    }
    Ok(())
}

async fn send_kv(client: &Client, server: Server, call: &Call) -> Result<Answer, Status> {
    let mut kv = client.kv.clone();
    Ok(match call.clone() {
        Call::RangeStream(request) if server.is_current() => {
            Answer::Range(send_range_stream(client, request).await?)
        }
        Call::Range(mut request) | Call::RangeStream(mut request) => {
            if !server.is_current() {
                request.sort_target = known::harmless(request.sort_target);
            }
            Answer::Range(kv.range(request).await?.into_inner())
        }
        Call::Put(request) => Answer::Put(kv.put(request).await?.into_inner()),
        Call::DeleteRange(request) => {
            Answer::DeleteRange(kv.delete_range(request).await?.into_inner())
        }
        Call::Txn(request) => Answer::Txn(kv.txn(request).await?.into_inner()),
        Call::Compact(request) => Answer::Compact(kv.compact(request).await?.into_inner()),
        other => return Err(Status::internal(format!("{other:?} is not a call of KV"))),
    })
}

/// All parts of a stream as one answer; a part other than the last has keys and nothing else.
async fn send_range_stream(
    client: &Client,
    request: RangeRequest,
) -> Result<RangeResponse, Status> {
    let mut stream = client.kv.clone().range_stream(request).await?.into_inner();
    let mut whole = RangeResponse::default();
    while let Some(part) = stream.message().await? {
        let part = part
            .range_response
            .ok_or_else(|| Status::internal("an empty part"))?;
        if whole.header.is_some() || whole.more || whole.count != 0 {
            return Err(Status::internal(
                "header, more or count before the last part",
            ));
        }
        whole.kvs.extend(part.kvs);
        (whole.header, whole.more, whole.count) = (part.header, part.more, part.count);
    }
    Ok(whole)
}

async fn send_lease(client: &Client, call: &Call) -> Result<Answer, Status> {
    let mut lease = client.lease.clone();
    Ok(match call.clone() {
        Call::LeaseGrant(request) => {
            Answer::LeaseGrant(lease.lease_grant(request).await?.into_inner())
        }
        Call::LeaseOfAnyId { ttl } => {
            let request = LeaseGrantRequest { id: 0, ttl };
            let mut granted = lease.lease_grant(request).await?.into_inner();
            lease
                .lease_revoke(LeaseRevokeRequest { id: granted.id })
                .await?;
            granted.id = granted.id.signum();
            Answer::LeaseGrant(granted)
        }
        Call::LeaseRevoke(id) => {
            let request = LeaseRevokeRequest { id };
            Answer::LeaseRevoke(lease.lease_revoke(request).await?.into_inner())
        }
        Call::LeaseKeepAlive(ids) => Answer::LeaseKeepAlive(keep_alive(client, &ids).await?),
        Call::LeaseTimeToLive(request) => {
            Answer::LeaseTimeToLive(lease.lease_time_to_live(request).await?.into_inner())
        }
        Call::LeaseLeases => Answer::LeaseLeases(
            lease
                .lease_leases(LeaseLeasesRequest {})
                .await?
                .into_inner(),
        ),
        other => {
            return Err(Status::internal(format!(
                "{other:?} is not a call of Lease"
            )));
        }
    })
}

async fn send_other(client: &Client, call: &Call) -> Result<Answer, Status> {
    let (mut lock, mut election) = (client.lock.clone(), client.election.clone());
    let (mut cluster, mut maintenance) = (client.cluster.clone(), client.maintenance.clone());
    Ok(match call.clone() {
        Call::Lock(request) => Answer::Lock(lock.lock(request).await?.into_inner()),
        Call::Unlock(request) => Answer::Unlock(lock.unlock(request).await?.into_inner()),
        Call::Campaign(request) => Answer::Campaign(election.campaign(request).await?.into_inner()),
        Call::Proclaim(request) => Answer::Proclaim(election.proclaim(request).await?.into_inner()),
        Call::Leader(request) => Answer::Leader(election.leader(request).await?.into_inner()),
        Call::Resign(request) => Answer::Resign(election.resign(request).await?.into_inner()),
        Call::MemberList { linearizable } => {
            let request = MemberListRequest { linearizable };
            Answer::MemberList(cluster.member_list(request).await?.into_inner())
        }
        Call::Status => Answer::Status(maintenance.status(StatusRequest {}).await?.into_inner()),
        Call::HashKv(request) => Answer::HashKv(maintenance.hash_kv(request).await?.into_inner()),
        Call::Alarms => Answer::Alarms(
            maintenance
                .alarm(AlarmRequest::default())
                .await?
                .into_inner(),
        ),
        Call::Defragment => Answer::Defragment(
            maintenance
                .defragment(DefragmentRequest {})
                .await?
                .into_inner(),
        ),
        Call::MoveLeader(target_id) => {
            let request = MoveLeaderRequest { target_id };
            Answer::MoveLeader(maintenance.move_leader(request).await?.into_inner())
        }
        other => {
            return Err(Status::internal(format!(
                "{other:?} has no way of being sent"
            )));
        }
    })
}

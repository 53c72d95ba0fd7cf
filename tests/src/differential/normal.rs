//! Strips answers of what must differ between two systems, and of nothing else.
//!
//! Ids become 1 where they are the right ones, so that a wrong or missing id still shows; numbers
//! that measure the system itself (sizes, indexes, hashes) keep only their sign.

use gonfalon_proto::etcdserverpb::response_op::Response;
use gonfalon_proto::etcdserverpb::{Member, ResponseHeader, TxnResponse};

use super::call::Answer;

/// The ids that a member's answers must carry.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "two ids, no more")]
pub struct Identity {
    /// Of the cluster.
    pub cluster: u64,
    /// Of the member that answers.
    pub member: u64,
}

/// Stands for an id that is not the expected one.
const WRONG: u64 = 2;

/// Replaces what must differ.
pub fn normalise(mut answer: Answer, identity: Identity) -> Answer {
    if let Some(Some(header)) = header(&mut answer) {
        normalise_header(header, identity);
    }
    match &mut answer {
        Answer::Txn(txn) => normalise_txn(txn, identity),
        Answer::LeaseKeepAlive(renewals) => {
            for header in renewals
                .iter_mut()
                .filter_map(|renewal| renewal.header.as_mut())
            {
                normalise_header(header, identity);
            }
        }
        Answer::LeaseTimeToLive(lease) => {
            // Time passes between the two systems' answers; only leases of an hour are asked for.
            const SLACK_S: i64 = 600;
            if lease.ttl <= lease.granted_ttl && lease.ttl >= lease.granted_ttl - SLACK_S {
                lease.ttl = lease.granted_ttl;
            }
            lease.keys.sort();
        }
        // By when they end, which a follower does not know; the checklist has an order.
        Answer::LeaseLeases(leases) => leases.leases.sort_by_key(|lease| lease.id),
        Answer::MemberList(list) => {
            list.members.sort_by(|a, b| a.name.cmp(&b.name));
            list.members.iter_mut().for_each(normalise_member);
        }
        Answer::Status(status) => {
            status.version = version_shape(&status.version);
            status.db_size = status.db_size.signum();
            status.db_size_in_use = status.db_size_in_use.signum();
            status.leader = status.leader.min(1);
            status.raft_index = status.raft_index.min(1);
            status.raft_term = status.raft_term.min(1);
            status.raft_applied_index = status.raft_applied_index.min(1);
            status.storage_version = version_shape(&status.storage_version);
        }
        Answer::HashKv(hash) => hash.hash = 0,
        // The rest of the text is the decoding library's own.
        Answer::Error {
            code: tonic::Code::Internal,
            message,
        } => {
            let undecodable = [
                "grpc: error unmarshalling request: ",
                "failed to decode Protobuf message: ",
            ];
            if undecodable.iter().any(|start| message.starts_with(start)) {
                *message = "a message that cannot be decoded".into();
            }
        }
        Answer::Watch(seen) => {
            for header in seen.headers() {
                normalise_header(header, identity);
            }
            seen.answers = seen
                .answers
                .drain(..)
                .map(|answer| normalise(answer, identity))
                .collect();
        }
        _ => {}
    }
    answer
}

fn normalise_header(header: &mut ResponseHeader, identity: Identity) {
    let id = |id: u64, right: u64| match id {
        0 => 0,
        id if id == right => 1,
        _ => WRONG,
    };
    header.cluster_id = id(header.cluster_id, identity.cluster);
    header.member_id = id(header.member_id, identity.member);
    header.raft_term = header.raft_term.min(1);
}

fn normalise_member(member: &mut Member) {
    member.id = u64::from(member.id != 0);
    for url in member.peer_ur_ls.iter_mut().chain(&mut member.client_ur_ls) {
        let is_local = url.starts_with("http://127.0.0.1:");
        *url = if is_local {
            "local".into()
        } else {
            format!("not local: {url}")
        };
    }
}

fn normalise_txn(txn: &mut TxnResponse, identity: Identity) {
    for op in &mut txn.responses {
        let header = match &mut op.response {
            Some(Response::ResponseRange(range)) => range.header.as_mut(),
            Some(Response::ResponsePut(put)) => put.header.as_mut(),
            Some(Response::ResponseDeleteRange(delete)) => delete.header.as_mut(),
            Some(Response::ResponseTxn(nested)) => {
                normalise_txn(nested, identity);
                nested.header.as_mut()
            }
            None => None,
        };
        if let Some(header) = header {
            normalise_header(header, identity);
        }
    }
}

/// `3.4.23` as `3.n.n`: that it is a version of etcd 3 is what clients rely on.
fn version_shape(version: &str) -> String {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let parts: Vec<&str> = version.split('.').collect();
    if parts.len() == 3 && parts[0] == "3" && parts.iter().all(is_number) {
        "3.n.n".into()
    } else {
        version.to_owned()
    }
}

/// The header of an answer that has one.
pub fn header(answer: &mut Answer) -> Option<&mut Option<ResponseHeader>> {
    Some(match answer {
        Answer::Range(answer) => &mut answer.header,
        Answer::Put(answer) => &mut answer.header,
        Answer::DeleteRange(answer) => &mut answer.header,
        Answer::Txn(answer) => &mut answer.header,
        Answer::Compact(answer) => &mut answer.header,
        Answer::LeaseGrant(answer) => &mut answer.header,
        Answer::LeaseRevoke(answer) => &mut answer.header,
        Answer::LeaseTimeToLive(answer) => &mut answer.header,
        Answer::LeaseLeases(answer) => &mut answer.header,
        Answer::Lock(answer) => &mut answer.header,
        Answer::Unlock(answer) => &mut answer.header,
        Answer::Campaign(answer) => &mut answer.header,
        Answer::Proclaim(answer) => &mut answer.header,
        Answer::Leader(answer) => &mut answer.header,
        Answer::Resign(answer) => &mut answer.header,
        Answer::MemberList(answer) => &mut answer.header,
        Answer::Status(answer) => &mut answer.header,
        Answer::HashKv(answer) => &mut answer.header,
        Answer::Alarms(answer) => &mut answer.header,
        Answer::Defragment(answer) => &mut answer.header,
        Answer::MoveLeader(answer) => &mut answer.header,
        Answer::LeaseKeepAlive(_) | Answer::Watch(_) | Answer::Error { .. } => {
            return None;
        }
    })
}

//! Answers as JSON: etcdctl's field names, order and base64, zero values left out.
//!
//! These types are the documented shape. Programs read them, so a field may be added and none
//! renamed. Where etcdctl's own names are inconsistent (`ID` here, `id` there) they are kept: the
//! same program reads both.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use gonfalon_proto::{etcdserverpb as pb, mvccpb};
use serde::{Serialize, Serializer};

/// Leaves a field out that has its zero value.
fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn base64<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&BASE64_STANDARD.encode(bytes))
}

/// A list of keys in base64.
pub(crate) fn base64_list<S: Serializer>(list: &[Bytes], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(|bytes| BASE64_STANDARD.encode(bytes)))
}

/// Who answered, and at which revision.
#[derive(Debug, Serialize)]
pub(crate) struct Header {
    #[serde(skip_serializing_if = "zero")]
    cluster_id: u64,
    #[serde(skip_serializing_if = "zero")]
    member_id: u64,
    #[serde(skip_serializing_if = "zero")]
    revision: i64,
    #[serde(skip_serializing_if = "zero")]
    raft_term: u64,
}

impl Header {
    pub(crate) fn of(header: Option<&pb::ResponseHeader>) -> Option<Self> {
        header.map(|header| Self {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        })
    }
}

/// An answer of which only the header matters: `put`, `compact`, `lease revoke`.
#[derive(Debug, Serialize)]
pub(crate) struct HeaderOnly {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<Header>,
}

/// A key with all that belongs to it.
#[derive(Debug, Serialize)]
pub(crate) struct KeyValue {
    #[serde(serialize_with = "base64", skip_serializing_if = "zero")]
    key: Bytes,
    #[serde(skip_serializing_if = "zero")]
    create_revision: i64,
    #[serde(skip_serializing_if = "zero")]
    mod_revision: i64,
    #[serde(skip_serializing_if = "zero")]
    version: i64,
    #[serde(serialize_with = "base64", skip_serializing_if = "zero")]
    value: Bytes,
    #[serde(skip_serializing_if = "zero")]
    lease: i64,
}

impl From<&mvccpb::KeyValue> for KeyValue {
    fn from(kv: &mvccpb::KeyValue) -> Self {
        Self {
            key: kv.key.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: kv.value.clone(),
            lease: kv.lease,
        }
    }
}

fn kvs(list: &[mvccpb::KeyValue]) -> Vec<KeyValue> {
    list.iter().map(KeyValue::from).collect()
}

/// `get`.
#[derive(Debug, Serialize)]
pub(crate) struct Range {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvs: Vec<KeyValue>,
    #[serde(skip_serializing_if = "zero")]
    more: bool,
    #[serde(skip_serializing_if = "zero")]
    count: i64,
}

impl From<&pb::RangeResponse> for Range {
    fn from(range: &pb::RangeResponse) -> Self {
        Self {
            header: Header::of(range.header.as_ref()),
            kvs: kvs(&range.kvs),
            more: range.more,
            count: range.count,
        }
    }
}

/// `put`.
#[derive(Debug, Serialize)]
pub(crate) struct Put {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<KeyValue>,
    /// The lease that `--ttl` made; etcdctl has no such flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<i64>,
}

impl From<&pb::PutResponse> for Put {
    fn from(put: &pb::PutResponse) -> Self {
        Self {
            header: Header::of(put.header.as_ref()),
            prev_kv: put.prev_kv.as_ref().map(KeyValue::from),
            lease: None,
        }
    }
}

/// `del`.
#[derive(Debug, Serialize)]
pub(crate) struct Delete {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    deleted: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prev_kvs: Vec<KeyValue>,
}

impl From<&pb::DeleteRangeResponse> for Delete {
    fn from(delete: &pb::DeleteRangeResponse) -> Self {
        Self {
            header: Header::of(delete.header.as_ref()),
            deleted: delete.deleted,
            prev_kvs: kvs(&delete.prev_kvs),
        }
    }
}

/// `txn`.
#[derive(Debug, Serialize)]
pub(crate) struct Txn {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    succeeded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<TxnAnswer>,
}

/// The answer to one operation of a transaction.
#[derive(Debug, Serialize)]
struct TxnAnswer {
    #[serde(rename = "Response")]
    response: Option<OneOf>,
}

#[derive(Debug, Serialize)]
enum OneOf {
    #[serde(rename = "response_range")]
    Range(Range),
    #[serde(rename = "response_put")]
    Put(Put),
    #[serde(rename = "response_delete_range")]
    Delete(Delete),
    #[serde(rename = "response_txn")]
    Txn(Txn),
}

impl From<&pb::TxnResponse> for Txn {
    fn from(txn: &pb::TxnResponse) -> Self {
        use pb::response_op::Response;
        let answer = |op: &pb::ResponseOp| TxnAnswer {
            response: op.response.as_ref().map(|response| match response {
                Response::ResponseRange(range) => OneOf::Range(range.into()),
                Response::ResponsePut(put) => OneOf::Put(put.into()),
                Response::ResponseDeleteRange(delete) => OneOf::Delete(delete.into()),
                Response::ResponseTxn(txn) => OneOf::Txn(txn.into()),
            }),
        };
        Self {
            header: Header::of(txn.header.as_ref()),
            succeeded: txn.succeeded,
            responses: txn.responses.iter().map(answer).collect(),
        }
    }
}

/// One message of `watch`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Watch {
    header: Option<Header>,
    events: Vec<Event>,
    compact_revision: i64,
    canceled: bool,
    created: bool,
}

#[derive(Debug, Serialize)]
struct Event {
    /// 0 (left out) is a put, 1 a deletion.
    #[serde(rename = "type", skip_serializing_if = "zero")]
    kind: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv: Option<KeyValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<KeyValue>,
}

impl From<&pb::WatchResponse> for Watch {
    fn from(watch: &pb::WatchResponse) -> Self {
        let event = |event: &mvccpb::Event| Event {
            kind: event.r#type,
            kv: event.kv.as_ref().map(KeyValue::from),
            prev_kv: event.prev_kv.as_ref().map(KeyValue::from),
        };
        Self {
            header: Header::of(watch.header.as_ref()),
            events: watch.events.iter().map(event).collect(),
            compact_revision: watch.compact_revision,
            canceled: watch.canceled,
            created: watch.created,
        }
    }
}

/// `lease grant` and `lease keep-alive`.
#[derive(Debug, Serialize)]
pub(crate) struct Lease {
    #[serde(flatten)]
    pub(crate) header: Option<Header>,
    #[serde(rename = "ID")]
    pub(crate) id: i64,
    #[serde(rename = "TTL")]
    pub(crate) ttl: i64,
    /// `grant` has it, always empty; `keep-alive` has it not.
    #[serde(rename = "Error", skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'static str>,
}

/// `lease timetolive`.
#[derive(Debug, Serialize)]
pub(crate) struct TimeToLive {
    #[serde(flatten)]
    pub(crate) header: Option<Header>,
    pub(crate) id: i64,
    pub(crate) ttl: i64,
    #[serde(rename = "granted-ttl")]
    pub(crate) granted_ttl: i64,
    #[serde(serialize_with = "base64_list")]
    pub(crate) keys: Vec<Bytes>,
}

/// `lease list`.
#[derive(Debug, Serialize)]
pub(crate) struct Leases {
    #[serde(flatten)]
    pub(crate) header: Option<Header>,
    pub(crate) leases: Vec<LeaseId>,
}

/// One of `lease list`.
#[derive(Debug, Serialize)]
pub(crate) struct LeaseId {
    pub(crate) id: i64,
}

/// `member list`.
#[derive(Debug, Serialize)]
pub(crate) struct Members {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
struct Member {
    #[serde(rename = "ID", skip_serializing_if = "zero")]
    id: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "peerURLs", skip_serializing_if = "Vec::is_empty")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner", skip_serializing_if = "zero")]
    is_learner: bool,
}

impl From<&pb::MemberListResponse> for Members {
    fn from(list: &pb::MemberListResponse) -> Self {
        let member = |member: &pb::Member| Member {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_ur_ls.clone(),
            client_urls: member.client_ur_ls.clone(),
            is_learner: member.is_learner,
        };
        Self {
            header: Header::of(list.header.as_ref()),
            members: list.members.iter().map(member).collect(),
        }
    }
}

/// `alarm list` and `alarm disarm`.
#[derive(Debug, Serialize)]
pub(crate) struct Alarms {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alarms: Vec<Alarm>,
}

#[derive(Debug, Serialize)]
struct Alarm {
    #[serde(rename = "memberID", skip_serializing_if = "zero")]
    member_id: u64,
    #[serde(skip_serializing_if = "zero")]
    alarm: i32,
}

impl From<&pb::AlarmResponse> for Alarms {
    fn from(list: &pb::AlarmResponse) -> Self {
        let alarm = |alarm: &pb::AlarmMember| Alarm {
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        Self {
            header: Header::of(list.header.as_ref()),
            alarms: list.alarms.iter().map(alarm).collect(),
        }
    }
}

/// One of `endpoint status`.
#[derive(Debug, Serialize)]
pub(crate) struct EndpointStatus {
    #[serde(rename = "Endpoint")]
    pub(crate) endpoint: String,
    #[serde(rename = "Status")]
    pub(crate) status: Status,
}

/// What a server says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "zero")]
    db_size: i64,
    #[serde(skip_serializing_if = "zero")]
    leader: u64,
    #[serde(skip_serializing_if = "zero")]
    raft_index: u64,
    #[serde(skip_serializing_if = "zero")]
    raft_term: u64,
    #[serde(skip_serializing_if = "zero")]
    raft_applied_index: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    db_size_in_use: i64,
    #[serde(skip_serializing_if = "zero")]
    is_learner: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    storage_version: String,
    #[serde(skip_serializing_if = "zero")]
    db_size_quota: i64,
}

impl From<&pb::StatusResponse> for Status {
    fn from(status: &pb::StatusResponse) -> Self {
        Self {
            header: Header::of(status.header.as_ref()),
            version: status.version.clone(),
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors.clone(),
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: status.storage_version.clone(),
            db_size_quota: status.db_size_quota,
        }
    }
}

/// One of `endpoint hashkv`.
#[derive(Debug, Serialize)]
pub(crate) struct EndpointHash {
    #[serde(rename = "Endpoint")]
    pub(crate) endpoint: String,
    #[serde(rename = "HashKV")]
    pub(crate) hash: HashKv,
}

/// The hash of a server's history.
#[derive(Debug, Serialize)]
pub(crate) struct HashKv {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    hash: u32,
    #[serde(skip_serializing_if = "zero")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "zero")]
    hash_revision: i64,
}

impl From<&pb::HashKvResponse> for HashKv {
    fn from(hash: &pb::HashKvResponse) -> Self {
        Self {
            header: Header::of(hash.header.as_ref()),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }
    }
}

/// One of `endpoint health`.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    #[serde(rename = "health")]
    pub(crate) is_healthy: bool,
    pub(crate) took: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

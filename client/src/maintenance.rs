//! The members' own affairs. These calls are answered by the member that is asked: with several
//! endpoints, make a client for the one that is meant.

mod snapshot;

use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::call::{Call, Repeat};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::types::{Revision, revision_of};

pub use snapshot::{SavedSnapshot, SnapshotStream};

/// Defragmentation reads and writes the whole store.
const DEFRAGMENT_DEADLINE: Duration = Duration::from_mins(10);
/// Hashing reads it.
const HASH_DEADLINE: Duration = Duration::from_mins(2);

/// Calls about one member.
#[derive(Debug, Clone)]
pub struct Maintenance {
    client: Client,
}

/// Something that is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Alarm {
    /// With which.
    pub member_id: u64,
    /// What.
    pub kind: AlarmKind,
}

/// What can be wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// Its space is used up: the cluster takes no writes but deletions until the alarm is disarmed.
    NoSpace,
    /// Its data are not what the others have: the cluster takes no writes at all.
    Corrupt,
    /// One that this client does not know, by its number on the wire.
    Other(i32),
}

/// What a member's history comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HistoryHash {
    /// The hash. Equal among members, if the next two are.
    pub hash: u32,
    /// The history from here on, exclusive.
    pub compact_revision: Revision,
    /// Up to here, inclusive. [`Revision::UNKNOWN`]: the server is older than etcd 3.6, and does not
    /// say.
    pub hash_revision: Revision,
}

/// How a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its id.
    pub member_id: u64,
    /// The store's revision as it has it.
    pub revision: Revision,
    /// The version of etcd that it is, or stands for.
    pub version: String,
    /// The version of what it has on disk; empty: the server is older than etcd 3.6.
    pub storage_version: String,
    /// The version to which the cluster is being taken back, if it is.
    pub downgrades_to: Option<String>,
    /// The id of the leader; 0 if it sees none.
    pub leader: u64,
    /// Raft's term.
    pub raft_term: u64,
    /// Index of the last log entry that it knows to be committed.
    pub raft_index: u64,
    /// Index of the last log entry that it has applied.
    pub raft_applied_index: u64,
    /// What its database takes on disk, in bytes.
    pub db_bytes: u64,
    /// What of that is in use.
    pub db_bytes_in_use: u64,
    /// How much it may take; 0: the server is older than etcd 3.6, and does not say.
    pub db_bytes_max: u64,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// What is wrong with it, in its own words.
    pub errors: Vec<String>,
}

/// Sends a request of the service Maintenance.
macro_rules! ask {
    ($maintenance:expr, $call:expr, $method:ident, $request:expr) => {{
        let send = move |channel, request| async move {
            MaintenanceClient::new(channel).$method(request).await
        };
        let answer = $maintenance.client.unary($call, $request, send).await?;
        $maintenance.client.saw(answer.header.as_ref());
        answer
    }};
}

impl Maintenance {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// How the member is.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn status(&self) -> Result<MemberStatus, Error> {
        let call = Call::reads("status").local();
        let answer = ask!(self, call, status, pb::StatusRequest::default());
        Ok(MemberStatus::from_wire(answer))
    }

    /// Every alarm of every member.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let request = pb::AlarmRequest::default();
        let answer = ask!(self, Call::reads("alarms").local(), alarm, request);
        Ok(answer.alarms.into_iter().map(Alarm::from_wire).collect())
    }

    /// Raises an alarm, as a member does itself when it has to. For drills and for tests.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`]: the kind is [`AlarmKind::Other`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the alarm may be raised or not.
    pub async fn raise_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        use pb::alarm_request::AlarmAction::Activate;
        self.change("raise alarm", Activate, alarm).await
    }

    /// Disarms an alarm, when its cause is gone. One that is not raised is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`]: the kind is [`AlarmKind::Other`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the alarm may be raised or not.
    pub async fn disarm_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        use pb::alarm_request::AlarmAction::Deactivate;
        self.change("disarm alarm", Deactivate, alarm).await
    }

    async fn change(
        &self,
        name: &'static str,
        action: pb::alarm_request::AlarmAction,
        alarm: Alarm,
    ) -> Result<(), Error> {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => pb::AlarmType::Nospace,
            AlarmKind::Corrupt => pb::AlarmType::Corrupt,
            AlarmKind::Other(_) => {
                let message = "an alarm that this client does not know";
                return Err(Error::new(ErrorKind::InvalidArgument, name, message));
            }
        };
        let request = pb::AlarmRequest {
            action: action.into(),
            member_id: alarm.member_id,
            alarm: kind.into(),
        };
        ask!(self, Call::new(name, Repeat::Safe), alarm, request);
        Ok(())
    }

    /// Gives space that compaction has freed back to the file system. While it does, the member may
    /// answer nothing else.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`]: it has taken longer than ten minutes. It is sent to one member at
    /// most: where its outcome is unknown, [`MemberStatus::db_bytes`] tells.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the member goes on with it.
    pub async fn defragment(&self) -> Result<(), Error> {
        // Not a second time: that could be another member.
        let call = Call::writes("defragment").local();
        let call = call.within(Some(DEFRAGMENT_DEADLINE));
        ask!(self, call, defragment, pb::DefragmentRequest::default());
        Ok(())
    }

    /// What everything that the member has on disk comes to, also what the others have otherwise.
    /// To compare members, use [`Maintenance::hash_history`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn hash(&self) -> Result<u32, Error> {
        let call = Call::reads("hash").local().within(Some(HASH_DEADLINE));
        Ok(ask!(self, call, hash, pb::HashRequest::default()).hash)
    }

    /// What the member's history up to `revision` comes to; [`Revision::UNKNOWN`]: all of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Compacted`], [`ErrorKind::FutureRevision`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn hash_history(&self, revision: Revision) -> Result<HistoryHash, Error> {
        let call = Call::reads("hash history").local();
        let call = call.within(Some(HASH_DEADLINE));
        let request = pb::HashKvRequest {
            revision: revision.get(),
        };
        let answer = ask!(self, call, hash_kv, request);
        Ok(HistoryHash {
            hash: answer.hash,
            compact_revision: Revision::new(answer.compact_revision),
            hash_revision: Revision::new(answer.hash_revision),
        })
    }

    /// Hands leadership to the member `target`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotLeader`]: none of the client's endpoints leads;
    /// [`ErrorKind::FailedPrecondition`]: `target` is no member with a vote.
    ///
    /// # Cancel safety
    ///
    /// Dropped, leadership may move or not.
    pub async fn move_leader(&self, target: u64) -> Result<(), Error> {
        let request = pb::MoveLeaderRequest { target_id: target };
        ask!(self, Call::writes("move leader"), move_leader, request);
        Ok(())
    }

    /// Whether the cluster can be taken back to `version`, written `"3.5"`; the version it has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`]: it is no version, or not the one before;
    /// [`ErrorKind::Unimplemented`]: the server is older than etcd 3.5.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn validate_downgrade(&self, version: impl Into<String>) -> Result<String, Error> {
        use pb::downgrade_request::DowngradeAction::Validate;
        let call = Call::reads("validate downgrade");
        self.downgrade(call, Validate, version.into()).await
    }

    /// Begins to take the cluster back to `version`; the version it has.
    ///
    /// # Errors
    ///
    /// As [`Maintenance::validate_downgrade`]; [`ErrorKind::FailedPrecondition`]: it has begun before.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have begun or not.
    pub async fn enable_downgrade(&self, version: impl Into<String>) -> Result<String, Error> {
        use pb::downgrade_request::DowngradeAction::Enable;
        let call = Call::writes("enable downgrade");
        self.downgrade(call, Enable, version.into()).await
    }

    /// Leaves the cluster at its version; which that is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`]: nothing has begun; [`ErrorKind::Unimplemented`]: the server
    /// is older than etcd 3.5.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been left or not.
    pub async fn cancel_downgrade(&self) -> Result<String, Error> {
        use pb::downgrade_request::DowngradeAction::Cancel;
        let call = Call::writes("cancel downgrade");
        self.downgrade(call, Cancel, String::new()).await
    }

    async fn downgrade(
        &self,
        call: Call,
        action: pb::downgrade_request::DowngradeAction,
        version: String,
    ) -> Result<String, Error> {
        let request = pb::DowngradeRequest {
            action: action.into(),
            version,
        };
        Ok(ask!(self, call, downgrade, request).version)
    }

    /// Everything that the member has, as one file in pieces: what `etcdctl snapshot save` writes.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        SnapshotStream::open(&self.client).await
    }
}

impl Alarm {
    /// For [`Maintenance::raise_alarm`] and [`Maintenance::disarm_alarm`].
    pub fn new(member_id: u64, kind: AlarmKind) -> Self {
        Self { member_id, kind }
    }

    fn from_wire(alarm: pb::AlarmMember) -> Self {
        let kind = match pb::AlarmType::try_from(alarm.alarm) {
            Ok(pb::AlarmType::Nospace) => AlarmKind::NoSpace,
            Ok(pb::AlarmType::Corrupt) => AlarmKind::Corrupt,
            Ok(pb::AlarmType::None) | Err(_) => AlarmKind::Other(alarm.alarm),
        };
        Self::new(alarm.member_id, kind)
    }
}

impl MemberStatus {
    fn from_wire(answer: pb::StatusResponse) -> Self {
        let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            member_id: answer.header.as_ref().map_or(0, |header| header.member_id),
            revision: revision_of(answer.header.as_ref()),
            version: answer.version,
            storage_version: answer.storage_version,
            downgrades_to: answer
                .downgrade_info
                .filter(|info| info.enabled)
                .map(|info| info.target_version),
            leader: answer.leader,
            raft_term: answer.raft_term,
            raft_index: answer.raft_index,
            raft_applied_index: answer.raft_applied_index,
            db_bytes: bytes(answer.db_size),
            db_bytes_in_use: bytes(answer.db_size_in_use),
            db_bytes_max: bytes(answer.db_size_quota),
            is_learner: answer.is_learner,
            errors: answer.errors,
        }
    }
}

//! What is the same for every call: its name, and what may be done when it fails.

use std::time::Duration;

use crate::clock::bounded;

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads.
    Reads,
    /// It writes, but twice is the same as once.
    Safe,
    /// Twice could do harm: only if the first attempt certainly did not take place.
    Never,
}

/// What each call is on the wire; a test finds the calls that are missing.
const RPC: &[(&str, &str, &str)] = &[
    ("range", "etcdserverpb.KV", "Range"),
    ("put", "etcdserverpb.KV", "Put"),
    ("delete", "etcdserverpb.KV", "DeleteRange"),
    ("txn", "etcdserverpb.KV", "Txn"),
    ("compact", "etcdserverpb.KV", "Compact"),
    ("watch", "etcdserverpb.KV", "Range"),
    ("grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("keep alive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("lease info", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("members", "etcdserverpb.Cluster", "MemberList"),
    ("status", "etcdserverpb.Maintenance", "Status"),
    ("defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("move leader", "etcdserverpb.Maintenance", "MoveLeader"),
    ("alarms", "etcdserverpb.Maintenance", "Alarm"),
    ("raise alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("disarm alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("hash", "etcdserverpb.Maintenance", "Hash"),
    ("hash history", "etcdserverpb.Maintenance", "HashKV"),
    ("snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    (
        "validate downgrade",
        "etcdserverpb.Maintenance",
        "Downgrade",
    ),
    ("enable downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("cancel downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("add member", "etcdserverpb.Cluster", "MemberAdd"),
    ("add learner", "etcdserverpb.Cluster", "MemberAdd"),
    ("promote member", "etcdserverpb.Cluster", "MemberPromote"),
    ("update member", "etcdserverpb.Cluster", "MemberUpdate"),
    ("remove member", "etcdserverpb.Cluster", "MemberRemove"),
    ("enable authentication", "etcdserverpb.Auth", "AuthEnable"),
    ("disable authentication", "etcdserverpb.Auth", "AuthDisable"),
    ("authentication status", "etcdserverpb.Auth", "AuthStatus"),
    ("users", "etcdserverpb.Auth", "UserList"),
    ("user", "etcdserverpb.Auth", "UserGet"),
    ("add user", "etcdserverpb.Auth", "UserAdd"),
    ("delete user", "etcdserverpb.Auth", "UserDelete"),
    ("change password", "etcdserverpb.Auth", "UserChangePassword"),
    ("grant role", "etcdserverpb.Auth", "UserGrantRole"),
    ("revoke role", "etcdserverpb.Auth", "UserRevokeRole"),
    ("roles", "etcdserverpb.Auth", "RoleList"),
    ("role", "etcdserverpb.Auth", "RoleGet"),
    ("add role", "etcdserverpb.Auth", "RoleAdd"),
    ("delete role", "etcdserverpb.Auth", "RoleDelete"),
    (
        "grant permission",
        "etcdserverpb.Auth",
        "RoleGrantPermission",
    ),
    (
        "revoke permission",
        "etcdserverpb.Auth",
        "RoleRevokePermission",
    ),
];

/// One kind of call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) repeat: Repeat,
    /// Whether a member that sees no leader should refuse rather than wait.
    pub(crate) needs_leader: bool,
    /// The client's default, if none.
    pub(crate) deadline: Option<Duration>,
    pub(crate) way: Way,
}

/// Over which connection a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The one for short answers.
    Calls,
    /// The one for watches and other streams.
    Streams,
    /// One of its own, for an answer that may take any time once it has begun.
    Alone,
}

/// The name of every call.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    RPC.iter().map(|&(name, ..)| name)
}

impl Call {
    pub(crate) const fn new(name: &'static str, repeat: Repeat) -> Self {
        Self {
            name,
            repeat,
            needs_leader: true,
            deadline: None,
            way: Way::Calls,
        }
    }

    pub(crate) const fn reads(name: &'static str) -> Self {
        Self::new(name, Repeat::Reads)
    }

    pub(crate) const fn writes(name: &'static str) -> Self {
        Self::new(name, Repeat::Never)
    }

    /// Answered by whichever member is asked, from what it has.
    pub(crate) const fn local(self) -> Self {
        Self {
            needs_leader: false,
            ..self
        }
    }

    /// Its name on the wire: gRPC's service and method.
    pub(crate) fn rpc(&self) -> Option<(&'static str, &'static str)> {
        RPC.iter()
            .find(|(name, ..)| *name == self.name)
            .map(|&(_, service, method)| (service, method))
    }

    /// Over a connection of its own, without an end once it is answered.
    pub(crate) const fn alone(self) -> Self {
        Self {
            way: Way::Alone,
            ..self
        }
    }

    /// Over the connection that the member's streams are on: what it proves, it proves of that one.
    pub(crate) const fn beside_streams(self) -> Self {
        Self {
            way: Way::Streams,
            ..self
        }
    }

    pub(crate) fn within(self, deadline: Option<Duration>) -> Self {
        Self {
            deadline: deadline.map(bounded),
            ..self
        }
    }
}

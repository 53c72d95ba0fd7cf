//! What is the same for every call: its name, and what may be done when it fails.

use std::time::Duration;

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
}

impl Call {
    pub(crate) const fn new(name: &'static str, repeat: Repeat) -> Self {
        Self {
            name,
            repeat,
            needs_leader: true,
            deadline: None,
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

    pub(crate) const fn within(self, deadline: Option<Duration>) -> Self {
        Self { deadline, ..self }
    }
}

//! What clients are told when something is refused: etcd's codes and texts, in one table.
//!
//! Clients of etcd recognise errors by their text, so each is etcd's to the byte. The table is
//! complete: errors of services that are not built yet are in it too.

use gonfalon_core::Error;
use tonic::{Code, Status};

macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $name:ident = $code:ident, $text:literal;)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[doc = $doc])* #[error($text)] $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The gRPC code that goes with it.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// The text that clients recognise it by.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// A key is empty where one is needed.
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on a missing key; an operation of a transaction that is
    /// none of those known.
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    /// A value together with `ignore_value`.
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    /// A lease together with `ignore_lease`.
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    /// More operations than `--max-txn-ops`.
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    /// A transaction puts a key twice, or puts one that it deletes.
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// The metadata `client-api-version` is not text.
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    /// A sort order or target outside of the enum.
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    /// Larger than `--max-request-bytes`.
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    /// Peer URLs that are missing or malformed.
    MemberBadUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// No user where one is needed.
    UserEmpty = InvalidArgument, "etcdserver: user name is empty";
    /// No role where one is needed.
    RoleEmpty = InvalidArgument, "etcdserver: role name is empty";
    /// Wrong password, or no such user.
    AuthFailed = InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password";
    /// A grant without a permission.
    PermissionNotGiven = InvalidArgument, "etcdserver: permission not given";
    /// A change that would lock everybody out.
    InvalidAuthManagement = InvalidArgument, "etcdserver: invalid auth management";
    /// Users or roles changed between the check and the work; ask again.
    AuthOldRevision = InvalidArgument, "etcdserver: revision of auth store is old";
    /// A downgrade target that is not `major.minor`.
    WrongDowngradeVersionFormat = InvalidArgument,
        "etcdserver: wrong downgrade target version format";
    /// A downgrade target that is not the minor version before.
    InvalidDowngradeTarget = InvalidArgument, "etcdserver: invalid downgrade target version";

    /// The revision is below the last compaction.
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// The revision has not happened yet.
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// More seconds than a lease can have.
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    /// No seconds for a lease. (The API makes it the least there is; so this has no text of etcd's.)
    LeaseTtlNotPositive = OutOfRange, "gonfalon: a lease needs a positive TTL";

    /// The NOSPACE alarm is raised.
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// Too much is waiting to be applied. (etcd means `ResourceExhausted` and sends `Unknown`.)
    TooManyRequests = Unknown, "etcdserver: too many requests";

    /// No such lease.
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    /// No such member.
    MemberNotFound = NotFound, "etcdserver: member not found";

    /// The chosen lease id is taken.
    LeaseExists = FailedPrecondition, "etcdserver: lease already exists";
    /// The member is there already.
    MemberExists = FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member has these peer URLs.
    PeerUrlExists = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// The change would leave too few started members. (etcd means `FailedPrecondition` and sends
    /// `Unknown`.)
    MemberNotEnoughStarted = Unknown,
        "etcdserver: re-configuration failed due to not enough started members";
    /// A promotion of a voter.
    MemberNotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// A promotion of a learner that lags.
    LearnerNotReady = FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    /// No room for another learner.
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// Meant for another cluster.
    ClusterIdMismatch = FailedPrecondition, "etcdserver: cluster ID mismatch";
    /// Auth cannot be enabled without the user root.
    RootUserNotExist = FailedPrecondition, "etcdserver: root user does not exist";
    /// Auth cannot be enabled unless root has the role root.
    RootRoleNotExist = FailedPrecondition, "etcdserver: root user does not have root role";
    /// The user name is taken.
    UserExists = FailedPrecondition, "etcdserver: user name already exists";
    /// No such user.
    UserNotFound = FailedPrecondition, "etcdserver: user name not found";
    /// The role name is taken.
    RoleExists = FailedPrecondition, "etcdserver: role name already exists";
    /// No such role.
    RoleNotFound = FailedPrecondition, "etcdserver: role name not found";
    /// The user does not have the role that is to be taken away.
    RoleNotGranted = FailedPrecondition, "etcdserver: role is not granted to the user";
    /// The role does not have the permission that is to be taken away.
    PermissionNotGranted = FailedPrecondition,
        "etcdserver: permission is not granted to the role";
    /// A token was asked for while auth is off.
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    /// Only the leader can do this.
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    /// The cluster's version is too low for this.
    NotCapable = FailedPrecondition, "etcdserver: not capable";
    /// A learner does not serve this.
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// Leadership cannot go to that member.
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// The cluster's version is not known yet.
    ClusterVersionUnavailable = FailedPrecondition,
        "etcdserver: cluster version not found during downgrade";
    /// A downgrade is under way.
    DowngradeInProcess = FailedPrecondition,
        "etcdserver: cluster has a downgrade job in progress";
    /// No downgrade is under way.
    NoInflightDowngrade = FailedPrecondition, "etcdserver: no inflight downgrade job";

    /// The user may not do this.
    PermissionDenied = PermissionDenied, "etcdserver: permission denied";
    /// The token is unknown or has expired.
    InvalidAuthToken = Unauthenticated, "etcdserver: invalid auth token";

    /// No leader is known.
    NoLeader = Unavailable, "etcdserver: no leader";
    /// The leader changed meanwhile.
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    /// This member is shutting down.
    Stopped = Unavailable, "etcdserver: server stopped";
    /// No answer in time.
    Timeout = Unavailable, "etcdserver: request timed out";
    /// No answer in time, and the leader was lost.
    TimeoutLeaderLost = Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure";
    /// No answer in time, and a connection was lost.
    TimeoutConnectionLost = Unavailable,
        "etcdserver: request timed out, possibly due to connection lost";
    /// This member did not catch up in time.
    TimeoutApply = Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long";
    /// Leadership did not move in time. (etcd has no code for it and sends `Unknown`.)
    TimeoutLeaderTransfer = Unknown,
        "etcdserver: request timed out, leader transfer took too long";
    /// Too few members are healthy for a change of members.
    Unhealthy = Unavailable, "etcdserver: unhealthy cluster";

    /// A member's data differ from the others'.
    Corrupt = DataLoss, "etcdserver: corrupt cluster";

    /// The client ended the watch.
    WatchCanceled = Cancelled, "etcdserver: watch canceled";
    /// The client gave up.
    RequestCanceled = Cancelled, "etcdserver: request canceled";
    /// The client's deadline has passed.
    DeadlineExceeded = DeadlineExceeded, "etcdserver: context deadline exceeded";

    /// A streamed range is in key order.
    StreamSortOrder = Unimplemented, "RangeStream does not support custom sort orders";
    /// A streamed range has every key of its range.
    StreamRevisionFilter = Unimplemented, "RangeStream does not support revision filters";

    /// The client took nothing of a snapshot for so long that others get their turn. (etcd has no
    /// text for this.)
    SnapshotStalled = DeadlineExceeded, "gonfalon: the snapshot was not read on for a minute";
    /// The disk has too little room for this. (etcd has no text for this.)
    DiskFull = ResourceExhausted, "gonfalon: not enough free disk space";
    /// The disk failed. If that was in a write, the member is about to stop. (etcd has no text for
    /// this.)
    Storage = Unknown, "gonfalon: storage failed";
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.text())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Compacted { .. } => Self::Compacted,
            Error::FutureRevision { .. } => Self::FutureRevision,
            Error::EmptyKey => Self::EmptyKey,
            Error::KeyNotFound => Self::KeyNotFound,
            Error::LeaseNotFound => Self::LeaseNotFound,
            Error::LeaseExists => Self::LeaseExists,
            Error::LeaseTtlTooLarge => Self::LeaseTtlTooLarge,
            Error::LeaseTtlNotPositive => Self::LeaseTtlNotPositive,
            Error::NoSpace => Self::NoSpace,
            Error::Corrupt => Self::Corrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Written down from the description of the API: code (as a number) and text.
    const DESCRIBED: &str = include_str!("refusal.txt");

    #[test]
    fn the_table_is_what_the_description_says() {
        let described: BTreeSet<(i32, &str)> = DESCRIBED
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(' ').expect("a line is a code and a text"))
            .map(|(code, text)| (code.parse().expect("a code is a number"), text))
            .collect();
        let ours: BTreeSet<(i32, &str)> = Refusal::ALL
            .iter()
            .map(|refusal| (refusal.code() as i32, refusal.text()))
            .collect();
        assert_eq!(ours.len(), Refusal::ALL.len(), "each text is there once");
        let ours = ours
            .into_iter()
            .filter(|(_, text)| !text.starts_with("gonfalon: "))
            .collect();

        let missing: Vec<_> = described.difference(&ours).collect();
        let surplus: Vec<_> = ours.difference(&described).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "missing {missing:?}, new {surplus:?}"
        );
    }

    #[test]
    fn a_status_carries_the_code_and_the_text() {
        for &refusal in Refusal::ALL {
            let status = Status::from(refusal);
            assert_eq!(
                (status.code(), status.message()),
                (refusal.code(), refusal.text())
            );
            assert!(
                status.details().is_empty(),
                "{refusal:?}: clients read no details"
            );
        }
    }

    #[test]
    fn what_etcd_maps_wrongly_is_unknown_here_too() {
        for refusal in [Refusal::TooManyRequests, Refusal::MemberNotEnoughStarted] {
            assert_eq!(refusal.code(), Code::Unknown, "{refusal:?}");
        }
    }
}
